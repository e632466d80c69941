package smtpc

import (
	"errors"
	"fmt"
	"strconv"
	"time"
)

// What the error of an outcome, or of [Open], means for whoever decides what to try
// next. errors.Is finds them.
var (
	// ErrTLSFailed: TLS was tried, or was asked for and refused, and there is none.
	// Whatever ends a session between STARTTLS and the answer to the EHLO inside TLS is so.
	ErrTLSFailed = errors.New("TLS failed")
	// ErrTLSNotOffered: TLS is required, and the server does not offer it.
	ErrTLSNotOffered = errors.New("STARTTLS is not offered")
	// ErrEHLOLost: the connection was lost before EHLO, or the HELO after it, was answered.
	ErrEHLOLost = errors.New("connection lost instead of an answer to EHLO")
	// ErrStumbled: the server stumbled over several commands at once, or over an
	// extension. qmail-remote would have said neither, so the message is not judged.
	ErrStumbled = errors.New("the server stumbled over what SMTP without extensions does not have")

	// ErrLost: the connection could not be read from or written to.
	ErrLost = errors.New("connection lost")
	// ErrFuse is the cause of a context whose time for the conversation is over. Callers
	// put it there, by context.WithTimeoutCause.
	ErrFuse = errors.New("the fuse blew")

	// ErrPartialLine: the message's last line has no newline.
	ErrPartialLine = errors.New("partial final line")
)

// A RefusedError is the error of a server that said no.
type RefusedError struct {
	Stage     Stage // what was refused
	Reply     Reply // none where all recipients were refused: each has its own
	Permanent bool  // no later attempt can do better
	Cause     error // ErrTLSFailed, ErrStumbled, or nil: what the reply says
}

func (e *RefusedError) Error() string {
	if e.Reply.Code == 0 {
		return "every recipient was refused"
	}
	return fmt.Sprintf("%s was refused: %v", e.Stage, e.Reply)
}

// Unwrap returns the cause.
func (e *RefusedError) Unwrap() error { return e.Cause }

// A BrokenError is the error of a conversation that could not go on.
type BrokenError struct {
	Stage Stage // what was being waited for, or done
	Cause error // ErrTLSFailed, ErrStumbled, ErrEHLOLost, or nil
	// Err is what happened: ErrLost or a *SilenceError, which is a kind of that, with the
	// error of the connection; a *ProtocolError; ErrFuse; the error of the context, if
	// that ended before MAIL was accepted; or an error of our own making.
	Err error
}

func (e *BrokenError) Error() string { return string(e.Stage) + ": " + e.Err.Error() }

// Unwrap returns the cause and what happened.
func (e *BrokenError) Unwrap() []error { return []error{e.Cause, e.Err} }

// A SilenceError is the error of a server that did not answer in time.
type SilenceError struct {
	Stage Stage         // what was not answered
	Limit time.Duration // that of the answer, more than 0
}

func (e *SilenceError) Error() string {
	what := "answer to " + string(e.Stage)
	if e.Stage == StageGreeting {
		what = string(e.Stage)
	}
	return fmt.Sprintf("no %s within %s seconds", what, strconv.FormatFloat(e.Limit.Seconds(), 'f', -1, 64))
}

// A ProtocolError is something that SMTP does not have in the place where it was seen.
// What has "it" for the server: it sent "hello", which is not a reply.
type ProtocolError struct{ What string }

func (e *ProtocolError) Error() string { return e.What }

func protocolErrorf(format string, args ...any) error {
	return &ProtocolError{fmt.Sprintf(format, args...)}
}

// maxSeen bounds what a protocol error repeats of the server's words.
const maxSeen = 100

// seen quotes foreign text for a protocol error.
func seen(text string) string {
	if len(text) > maxSeen {
		return strconv.Quote(text[:maxSeen]) + "..."
	}
	return strconv.Quote(text)
}

// A lostError is a connection that could not be read from or written to.
type lostError struct{ err error }

func (e *lostError) Error() string        { return ErrLost.Error() + ": " + e.err.Error() }
func (e *lostError) Unwrap() error        { return e.err }
func (e *lostError) Is(target error) bool { return target == ErrLost }

func isLost(err error) bool { return errors.Is(err, ErrLost) }

// A SenderError is the error of an envelope sender that cannot be sent in SMTP.
type SenderError struct{ Err error }

func (e *SenderError) Error() string { return "the sender cannot be sent: " + e.Err.Error() }

// Unwrap returns the reason.
func (e *SenderError) Unwrap() error { return e.Err }

// A MessageError is the error of a message that could not be read, or not as it was
// when it was looked through.
type MessageError struct{ Err error }

func (e *MessageError) Error() string { return e.Err.Error() }

// Unwrap returns the reason.
func (e *MessageError) Unwrap() error { return e.Err }

// A SizeError is the error of a message over the limit that the server announced (RFC 1870).
// Both are in bytes, with CR LF line ends; Limit is more than 0.
type SizeError struct{ Size, Limit int64 }

func (e *SizeError) Error() string {
	return fmt.Sprintf("message of %d bytes is over the limit of %d", e.Size, e.Limit)
}

// A UTF8Error is the error of an address above ASCII and a server that does not
// offer SMTPUTF8 (RFC 6531), or is not to be asked for it.
type UTF8Error struct {
	Avoided bool // we are not to use it
	Clear   bool // it is not offered in clear text that follows a failure of TLS
}

func (e *UTF8Error) Error() string {
	switch {
	case e.Avoided:
		return "SMTPUTF8 is not asked for"
	case e.Clear:
		return "SMTPUTF8 is not offered in the clear"
	}
	return "SMTPUTF8 is not offered"
}
