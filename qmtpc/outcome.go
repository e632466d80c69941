package qmtpc

import (
	"errors"
	"fmt"
)

// A Status is what the server decided about one recipient.
type Status int

// The statuses.
const (
	Unanswered Status = iota
	Accepted          // K
	Deferred          // Z, refused for now
	Refused           // D, refused for good
)

func (s Status) String() string {
	switch s {
	case Accepted:
		return "accepted"
	case Deferred:
		return "deferred"
	case Refused:
		return "refused"
	}
	return "unanswered"
}

// An Answer is what the server said about one recipient.
type Answer struct {
	Status Status
	Text   string // the server's words as they came, without the letter; less than 10,000 bytes
}

// Permanent reports whether the recipient is refused for good.
func (a Answer) Permanent() bool { return a.Status == Refused }

// An Outcome is what became of a package. That of a mail which could not be prepared has
// an error and nothing else.
type Outcome struct {
	Recipients []Answer // one for each recipient of the mail, in order

	FirstByte bool // the first byte of the package may have left
	LastByte  bool // the last one may have left
	Heard     bool // the server said something, perhaps less than an answer

	// Err is nil when every recipient is answered and the answers can be true: an
	// acceptance of a package that was not wholly sent cannot. Otherwise it is
	// a *BrokenError, or a failure of our own: a *MessageError, a panic, or what
	// Prepare returned.
	Err error
}

// Of returns the outcome that the package would have had if its recipient i had been the only
// one: the answer to it, whatever became of the others, and where it was not answered, why.
// An acceptance of a package that was not wholly sent cannot be true here either. The outcome
// of a mail that could not be prepared, which has no answers, is that of each recipient.
func (o *Outcome) Of(i int) *Outcome {
	one := *o
	if i < 0 || i >= len(o.Recipients) {
		one.Recipients = nil
		return &one
	}
	one.Recipients = []Answer{o.Recipients[i]}
	switch o.Recipients[i].Status {
	case Deferred, Refused:
		one.Err = nil
	case Accepted:
		if o.LastByte {
			one.Err = nil
		}
	}
	return &one
}

// FirstAccepted returns the first answer that accepts, nil if there is none.
func (o *Outcome) FirstAccepted() *Answer {
	for i := range o.Recipients {
		if o.Recipients[i].Status == Accepted {
			return &o.Recipients[i]
		}
	}
	return nil
}

// Permanent reports whether every recipient is refused for good.
func (o *Outcome) Permanent() bool {
	for _, a := range o.Recipients {
		if !a.Permanent() {
			return false
		}
	}
	return len(o.Recipients) > 0
}

// NoTransaction reports whether the server cannot have the message and has said
// nothing, so that another server may be tried.
func (o *Outcome) NoTransaction() bool { return !o.LastByte && !o.Heard }

// MayHaveMessage reports whether the server may have the message for recipients that
// it did not answer: it may have got the last byte, or claims that it did.
func (o *Outcome) MayHaveMessage() bool { return o.LastByte || o.FirstAccepted() != nil }

// Unfinished reports whether the package was cut short. The server waits for the rest
// of it, so the connection is of no further use. Inside TLS it is closed without
// close_notify.
func (o *Outcome) Unfinished() bool { return o.FirstByte && !o.LastByte }

// Why a conversation is ended from our side.
var (
	// ErrFuse is the cause of a caller's context that limits how long a conversation
	// may take. Who reads the outcome finds it in Err.
	ErrFuse = errors.New("the fuse blew")
	// ErrDeaf is the cause where writing has failed and no answer came.
	ErrDeaf = errors.New("the server takes no more bytes and says nothing")
)

// A BrokenError says that the conversation ended too early. It wraps each cause that
// there is: what reading and writing failed with, a *ProtocolError, and ErrDeaf or the
// cause of the context.
type BrokenError struct{ Err error }

func (e *BrokenError) Error() string { return "the conversation broke off: " + e.Err.Error() }

// Unwrap returns the causes.
func (e *BrokenError) Unwrap() error { return e.Err }

// A ProtocolError says what the server sent that is not QMTP. Nothing that follows on
// the connection can be understood.
type ProtocolError struct{ Seen string }

func (e *ProtocolError) Error() string { return "its answer is not QMTP: " + e.Seen }

// A MessageError says why the message could not be sent to its end. The connection is
// not at fault.
type MessageError struct{ Err error }

func (e *MessageError) Error() string { return e.Err.Error() }

// Unwrap returns the cause: ErrChanged, or what reading failed with.
func (e *MessageError) Unwrap() error { return e.Err }

// ErrChanged is the cause where the message is no longer as long as it was when it
// was prepared.
var ErrChanged = errors.New("it changed while it was sent")

// A panicError is a panic that was caught.
type panicError struct{ value any }

func (e *panicError) Error() string { return fmt.Sprintf("panic: %v", e.value) }

// guard calls f and returns a panic in it as an error.
func guard(f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &panicError{v}
		}
	}()
	return f()
}
