package wire

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// Version is that of the frames. Worker and parent are the same executable, but where
// /proc does not show it the file may have been replaced.
const Version = 1

const (
	// maxFrame bounds a frame: three strings of a command are its largest content.
	maxFrame = 1 << 18
	// maxString bounds a string of a command, as dialect.MaxString does.
	maxString = 65536
	// MaxText is how much of an answer's text is sent, in bytes: dialect.MaxText goes to
	// qmail-send.
	MaxText = 9000
	// MaxIDs is how many deliveries one LastByte or NotSent names. More make several frames.
	MaxIDs = 10_000
	// MaxExchangers is how many addresses the status file has lines for.
	MaxExchangers = 100
	// maxName is how much of an exchanger's name or address is sent, in bytes: no name in
	// DNS is longer.
	maxName = 255
)

// The kinds of frames.
const (
	kindDelivery = 'd'
	kindOrder    = 'o'
	kindHello    = 'h'
	kindAnswer   = 'a'
	kindLastByte = 'l'
	kindNotSent  = 'n'
	kindDropped  = 'x'
	kindAlive    = 'v'
	kindCounters = 'c'
)

// A Command is what the parent says: *Delivery or Order.
type Command interface{ command() }

// A Delivery asks for one delivery. IDs are never used twice.
type Delivery struct {
	ID                      uint64
	Host, Sender, Recipient string
	MessageID               string   // the path below queue/mess
	Message                 *os.File // at offset 0; who receives it closes it
}

// An Order concerns no single delivery.
type Order byte

// The orders.
const (
	Forget Order = 'f' // all that was learnt (SIGHUP)
	Report Order = 'r' // Counters are wanted now (SIGUSR1)
	Stop   Order = 's' // begin nothing; answer or drop all in time, and end (SIGTERM)
	Cut    Order = 'c' // as Stop, but in no time (a second SIGTERM)
)

func (*Delivery) command() {}
func (Order) command()     {}

// A Message is what the worker says: Hello, Answer, LastByte, NotSent, Dropped, Alive or
// *Counters.
type Message interface{ message() }

// Hello is the first message. Its value is Version.
type Hello uint32

// An Answer ends a delivery.
type Answer struct {
	ID     uint64
	Letter byte   // K, Z or D
	Text   string // as dialect.Answer has it
}

// LastByte says that the write of the last byte of these deliveries' message is about to
// begin.
type LastByte struct{ IDs []uint64 }

// NotSent takes LastByte back: the server said no, or the connection was given up before
// the byte was written.
type NotSent struct{ IDs []uint64 }

// Dropped ends a delivery after Stop or Cut: it has no answer.
type Dropped struct{ ID uint64 }

// Alive says nothing but that the worker lives.
type Alive struct{}

// Counters are the worker's numbers, since its start where the comment does not say "now".
type Counters struct {
	Waiting, Busy, Idle uint64 // now: deliveries in line; connections in use and kept

	DeferralsLine      uint64 // Z because of the line
	New, Kept          uint64 // connections made; kept ones used again
	BegunAnew          uint64 // deliveries that began anew
	Transactions       uint64
	Recipients         uint64 // of all transactions
	Full, Resumed      uint64 // handshakes
	Failed             uint64 // handshakes
	DNSAsked, DNSKnown uint64 // answers
	Exchangers         []Exchanger
}

// An Exchanger is one of the busiest addresses, at most MaxExchangers.
type Exchanger struct {
	Name, Address string
	Connections   uint64 // now
	Window        uint64 // now: connections that it may have
	Waiting       uint64 // now: deliveries in line for it
	MessagesTotal uint64
}

func (Hello) message()     {}
func (Answer) message()    {}
func (LastByte) message()  {}
func (NotSent) message()   {}
func (Dropped) message()   {}
func (Alive) message()     {}
func (*Counters) message() {}

// numbers lists the numbers of c in the order in which they are sent.
func (c *Counters) numbers() []*uint64 {
	return []*uint64{
		&c.Waiting, &c.Busy, &c.Idle, &c.DeferralsLine, &c.New, &c.Kept, &c.BegunAnew, &c.Transactions,
		&c.Recipients, &c.Full, &c.Resumed, &c.Failed, &c.DNSAsked, &c.DNSKnown,
	}
}

func (e *Exchanger) numbers() []*uint64 {
	return []*uint64{&e.Connections, &e.Window, &e.Waiting, &e.MessagesTotal}
}

// frame starts a frame in b; closed by sized.
func frame(b []byte, kind byte) []byte { return append(b, 0, 0, 0, 0, kind) }

// sized writes the length of the frame that begins at start.
func sized(b []byte, start int) []byte {
	binary.BigEndian.PutUint32(b[start:], uint32(len(b)-start-4))
	return b
}

func appendText(b []byte, s string, most int) []byte {
	s = s[:min(len(s), most)]
	return append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...)
}

func (d *Delivery) append(b []byte) []byte {
	start := len(b)
	b = binary.BigEndian.AppendUint64(frame(b, kindDelivery), d.ID)
	for _, s := range []string{d.Host, d.Sender, d.Recipient, d.MessageID} {
		b = appendText(b, s, maxString)
	}
	return sized(b, start)
}

func (o Order) append(b []byte) []byte {
	return sized(append(frame(b, kindOrder), byte(o)), len(b))
}

// appendMessage appends the frames of m.
func appendMessage(b []byte, m Message) []byte {
	start := len(b)
	switch m := m.(type) {
	case Hello:
		b = binary.BigEndian.AppendUint32(frame(b, kindHello), uint32(m))
	case Answer:
		b = binary.BigEndian.AppendUint64(frame(b, kindAnswer), m.ID)
		b = appendText(append(b, m.Letter), m.Text, MaxText)
	case LastByte:
		return appendIDs(b, kindLastByte, m.IDs)
	case NotSent:
		return appendIDs(b, kindNotSent, m.IDs)
	case Dropped:
		b = binary.BigEndian.AppendUint64(frame(b, kindDropped), m.ID)
	case Alive:
		b = frame(b, kindAlive)
	case *Counters:
		b = m.append(frame(b, kindCounters))
	}
	return sized(b, start)
}

func appendIDs(b []byte, kind byte, ids []uint64) []byte {
	for len(ids) > 0 {
		some := ids[:min(len(ids), MaxIDs)]
		ids = ids[len(some):]
		start := len(b)
		b = frame(b, kind)
		for _, id := range some {
			b = binary.BigEndian.AppendUint64(b, id)
		}
		sized(b, start)
	}
	return b
}

func (c *Counters) append(b []byte) []byte {
	for _, n := range c.numbers() {
		b = binary.BigEndian.AppendUint64(b, *n)
	}
	for _, e := range c.Exchangers[:min(len(c.Exchangers), MaxExchangers)] {
		b = appendText(appendText(b, e.Name, maxName), e.Address, maxName)
		for _, n := range e.numbers() {
			b = binary.BigEndian.AppendUint64(b, *n)
		}
	}
	return b
}

// errGarbage is what all errors of frames match that the other end cannot have sent.
var errGarbage = errors.New("not a frame of this protocol")

func garbage(format string, a ...any) error {
	return fmt.Errorf("%w: %w", errGarbage, fmt.Errorf(format, a...))
}

// readFrame reads one frame. It is io.EOF at the end before its first byte, and
// io.ErrUnexpectedEOF within.
func readFrame(r *bufio.Reader) (kind byte, content []byte, err error) {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n == 0 || n > maxFrame {
		return 0, nil, garbage("a frame of %d bytes", n)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, err
	}
	return b[0], b[1:], nil
}

// A content is taken apart from its beginning. The first fault stays.
type content struct {
	rest []byte
	err  error
}

func (c *content) take(n int) []byte {
	if c.err != nil || n > len(c.rest) {
		c.err = garbage("a frame that is too short")
		return nil
	}
	taken := c.rest[:n]
	c.rest = c.rest[n:]
	return taken
}

func (c *content) uint32() uint32 {
	if b := c.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (c *content) uint64() uint64 {
	if b := c.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (c *content) byte() byte {
	if b := c.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (c *content) text(most int) string {
	n := c.uint32()
	if n > uint32(most) {
		c.err = garbage("a text of %d bytes", n)
		return ""
	}
	return string(c.take(int(n)))
}

func (c *content) ids() []uint64 {
	if len(c.rest)%8 != 0 || len(c.rest) > 8*MaxIDs {
		c.err = garbage("%d bytes of IDs", len(c.rest))
		return nil
	}
	ids := make([]uint64, 0, len(c.rest)/8)
	for len(c.rest) > 0 {
		ids = append(ids, c.uint64())
	}
	return ids
}

// end returns the first fault; to be at the end is none.
func (c *content) end() error {
	if c.err == nil && len(c.rest) > 0 {
		c.err = garbage("%d bytes too many", len(c.rest))
	}
	return c.err
}

// parseMessage returns what the worker said in one frame.
func parseMessage(kind byte, b []byte) (Message, error) {
	c := content{rest: b}
	var m Message
	switch kind {
	case kindHello:
		m = Hello(c.uint32())
	case kindAnswer:
		a := Answer{ID: c.uint64(), Letter: c.byte()}
		a.Text = c.text(MaxText)
		if a.Letter != 'K' && a.Letter != 'Z' && a.Letter != 'D' {
			return nil, garbage("letter %q", a.Letter)
		}
		m = a
	case kindLastByte:
		m = LastByte{c.ids()}
	case kindNotSent:
		m = NotSent{c.ids()}
	case kindDropped:
		m = Dropped{c.uint64()}
	case kindAlive:
		m = Alive{}
	case kindCounters:
		m = c.counters()
	default:
		return nil, garbage("kind %q", kind)
	}
	if err := c.end(); err != nil {
		return nil, err
	}
	return m, nil
}

func (c *content) counters() *Counters {
	k := new(Counters)
	for _, n := range k.numbers() {
		*n = c.uint64()
	}
	for len(c.rest) > 0 && c.err == nil {
		if len(k.Exchangers) == MaxExchangers {
			c.err = garbage("more than %d exchangers", MaxExchangers)
			break
		}
		e := Exchanger{Name: c.text(maxName), Address: c.text(maxName)}
		for _, n := range e.numbers() {
			*n = c.uint64()
		}
		k.Exchangers = append(k.Exchangers, e)
	}
	return k
}

// parseCommand returns what the parent said in one frame, a delivery without its message.
func parseCommand(kind byte, b []byte) (Command, error) {
	c := content{rest: b}
	switch kind {
	case kindDelivery:
		d := &Delivery{ID: c.uint64()}
		for _, s := range []*string{&d.Host, &d.Sender, &d.Recipient, &d.MessageID} {
			*s = c.text(maxString)
		}
		if err := c.end(); err != nil {
			return nil, err
		}
		return d, nil
	case kindOrder:
		o := Order(c.byte())
		if err := c.end(); err != nil {
			return nil, err
		}
		switch o {
		case Forget, Report, Stop, Cut:
			return o, nil
		}
		return nil, garbage("order %q", byte(o))
	}
	return nil, garbage("kind %q", kind)
}
