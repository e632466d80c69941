package dialect

import (
	"bufio"
	"errors"
	"io"
	"strings"
)

const (
	// MaxString is the longest string of a command, in bytes. No address is so long, and
	// what is longer need not be kept.
	MaxString = 65536
	// MaxMessageID is the longest message id, in bytes, as in qmail-rspawn.
	MaxMessageID = 99
	// reload is the number that qmail-ldap sends to have control files read again.
	reload = 0xBEEF
)

// A Width is the number of bytes that a delivery's number has: 1 or 2.
type Width int

// Limit returns what is said first: how many deliveries there may be at a time.
func (w Width) Limit(n int) []byte { return w.append(nil, n) }

// append appends a number, the low byte first.
func (w Width) append(b []byte, n int) []byte {
	b = append(b, byte(n))
	if w > 1 {
		b = append(b, byte(n>>8))
	}
	return b
}

// A Command asks for one delivery.
type Command struct {
	Number    int // 0 to 255, or to 65,535
	MessageID string
	Sender    string // may be empty
	Recipient string
	TooLong   bool // one of the strings was longer than MaxString: it has no value
	Reload    bool // no delivery: qmail-ldap asks for a reload, and wants no answer
}

// Host returns what follows the last @ of the recipient, or nothing.
func (c *Command) Host() string {
	return c.Recipient[strings.LastIndexByte(c.Recipient, '@')+1:]
}

// A Fault is why a delivery cannot be begun. It is the text of an answer, and every one is
// temporary.
type Fault string

// Error returns the text.
func (f Fault) Error() string { return string(f) }

// The faults of a command, of the message's file and of the system.
const (
	TooLong     Fault = "qmail-spawn out of memory. (#4.3.0)"
	TooBig      Fault = "Internal error: delnum too big. (#4.3.5)"
	InUse       Fault = "Internal error: delnum in use. (#4.3.5)"
	NonNumerics Fault = "Internal error: messid has nonnumerics. (#4.3.5)"
	IDTooLong   Fault = "Internal error: messid too long. (#4.3.5)"
	IDTooShort  Fault = "Internal error: messid too short. (#4.3.5)"
	NoHost      Fault = "Sorry, address must include host name. (#4.3.5)"
	NotOpened   Fault = "qmail-spawn unable to open message. (#4.3.0)"
	WrongType   Fault = "Sorry, message has wrong type. (#4.3.5)"
	WrongOwner  Fault = "Sorry, message has wrong owner. (#4.3.5)"
	NoFork      Fault = "qmail-spawn unable to fork. (#4.3.0)"
)

// Check returns the first fault that shows without a look at the message's file: limit is
// what was announced, inUse reports whether a number below it has no answer yet.
func (c *Command) Check(limit int, inUse func(number int) bool) error {
	switch {
	case c.TooLong:
		return TooLong
	case c.Number >= limit:
		return TooBig
	case inUse(c.Number):
		return InUse
	case strings.Trim(c.MessageID, "0123456789/") != "" || strings.HasPrefix(c.MessageID, "/"):
		return NonNumerics
	case len(c.MessageID) > MaxMessageID:
		return IDTooLong
	case c.MessageID == "":
		return IDTooShort
	case !strings.Contains(c.Recipient, "@"):
		return NoHost
	}
	return nil
}

// A Reader reads commands.
type Reader struct {
	in    *bufio.Reader
	width Width
}

// NewReader returns a Reader of commands whose numbers have w bytes.
func NewReader(r io.Reader, w Width) *Reader { return &Reader{bufio.NewReader(r), w} }

// Next returns the next command. The error is io.EOF at the end, also where a command is
// not whole there; otherwise it is that of the underlying reader.
func (r *Reader) Next() (*Command, error) {
	c := new(Command)
	for i := range int(r.width) {
		b, err := r.in.ReadByte()
		if err != nil {
			return nil, err
		}
		c.Number |= int(b) << (8 * i)
	}
	for _, s := range []*string{&c.MessageID, &c.Sender, &c.Recipient} {
		if err := r.text(s, &c.TooLong); err != nil {
			return nil, err
		}
	}
	c.Reload = r.width > 1 && c.Number == reload && !c.TooLong && c.MessageID+c.Sender+c.Recipient == ""
	return c, nil
}

// text reads a string to its end, but keeps none that is too long.
func (r *Reader) text(into *string, tooLong *bool) error {
	var kept []byte
	long := false
	for {
		part, err := r.in.ReadSlice(0)
		if err == nil {
			part = part[:len(part)-1]
		} else if !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
		if long = long || len(kept)+len(part) > MaxString; !long {
			kept = append(kept, part...)
		}
		if err == nil {
			break
		}
	}
	if long {
		*tooLong = true
		return nil
	}
	*into = string(kept)
	return nil
}
