package smtpc

import (
	"errors"
	"io"
)

// A Mail is an envelope and a message, ready to be sent once.
type Mail struct {
	// Limits and Trace are of the delivery that the mail belongs to. Whoever sends the mail
	// sets them before.
	Limits Limits
	Trace  func(line string) // each command and each line of a reply; may be nil
	// OnLastByte is called once, before the write begins that may bring the end of the message
	// to the server; that write waits for it. It is not called for a message that comes to no
	// such write, but the write is not begun if the context has ended when it returns. A goroutine of the session calls it. A panic in it ends the transaction as
	// an error of ours, and nothing is written. May be nil.
	OnLastByte func()

	sender     address
	recipients []address // those that can be sent
	index      []int     // where each of them stands among all
	malformed  []malformed
	utf8       bool // one of the addresses has a byte above 127
	quoted     bool
	text       io.Reader // the message, before it is looked through
	message    *message  // afterwards, unless flaw says what is wrong with it
	flaw       error     // of the sender or the message, whoever the recipients are

	err  error // why it cannot be sent to anybody
	used bool  // its transaction was begun
}

// Why a recipient cannot be added to a mail.
var (
	// ErrTooLate: the transaction was begun.
	ErrTooLate = errors.New("the mail is being sent, or was sent")
	// ErrApart: SMTPUTF8 (RFC 6531) is for all addresses of a transaction, and this mail needs
	// it for the recipient alone, or for its other addresses alone.
	ErrApart = errors.New("the recipient needs SMTPUTF8 and the others do not, or the other way round")
)

// errOnce is the error of a second mail with a message that was not read twice.
var errOnce = &MessageError{errors.New("it can be read only once")}

// A malformed is a recipient that cannot be sent.
type malformed struct {
	index int
	err   error
}

// NewMail reads the addresses and looks the message through, before any server is listened
// to. If the mail cannot be sent whatever a server says, Unsendable has its outcome.
//
// The sender may be empty. With quoted the addresses are quoted as SMTP wants them and are
// sent as they are. The message has UNIX newlines. When it is an io.Seeker whose Seek
// works it is read from where it stands, twice unless it is small; otherwise it is read
// once, not before MAIL is about to be sent. Nil is an empty message.
func NewMail(sender string, recipients []string, message io.Reader, quoted bool) *Mail {
	m := &Mail{quoted: quoted, text: message}
	var err error
	if m.sender, err = parseAddress(sender, quoted); err != nil {
		m.flaw = &SenderError{err}
	}
	m.address(recipients)
	return m
}

// Again returns a mail with the sender and the message of m, which it does not look through
// again, to other recipients. It has the limits of m, no trace and no OnLastByte. Of mails
// with the same message one at a time may be sent; it is read from its beginning each time.
// After a message that can be read only once the mail is unsendable, with a *MessageError.
func (m *Mail) Again(recipients []string) *Mail {
	m.look()
	again := &Mail{Limits: m.Limits, sender: m.sender, quoted: m.quoted, flaw: m.flaw}
	if m.message != nil {
		again.message = m.message.again()
		if again.message == nil && again.flaw == nil {
			again.flaw = errOnce
		}
	}
	again.address(recipients)
	return again
}

// address gives the mail its first recipients.
func (m *Mail) address(recipients []string) {
	m.utf8 = m.sender.utf8
	switch {
	case len(recipients) == 0:
		m.err = errors.New("a mail without recipients")
		return
	case m.hasNoSender():
		m.err = m.flaw
		return
	}
	m.recipients, m.index = make([]address, 0, len(recipients)), make([]int, 0, len(recipients))
	for _, raw := range recipients {
		a, err := parseAddress(raw, m.quoted)
		m.take(a, err)
	}
	m.err = m.check()
}

// take has a further recipient, or err, why it cannot be sent to.
func (m *Mail) take(a address, err error) {
	i := len(m.recipients) + len(m.malformed)
	if err != nil {
		m.malformed = append(m.malformed, malformed{i, err})
		return
	}
	m.recipients, m.index = append(m.recipients, a), append(m.index, i)
	m.utf8 = m.utf8 || a.utf8
}

// check is the error of a mail that cannot be sent to anybody. The message is looked through
// when there is somebody to send it to.
func (m *Mail) check() error {
	if len(m.recipients) == 0 {
		return &RefusedError{Stage: StageRCPT, Permanent: true}
	}
	m.look()
	return m.flaw
}

// look looks the message through, unless that was done or would be of no use.
func (m *Mail) look() {
	if m.message != nil || m.flaw != nil {
		return
	}
	m.message, m.flaw = newMessage(m.text)
	m.text = nil
	if m.flaw == nil && m.message.partial {
		m.flaw = ErrPartialLine
	}
}

// hasNoSender reports whether the sender cannot be sent. Nothing is said of recipients then.
func (m *Mail) hasNoSender() bool {
	var wrong *SenderError
	return errors.As(m.flaw, &wrong)
}

// Add adds a recipient behind the others: its answer is the next in the outcome. One that cannot
// be sent to is added too, as NewMail has it. The error is ErrTooLate or ErrApart, and then
// nothing has changed. Add is not to be called while a session has the mail.
func (m *Mail) Add(recipient string) error {
	a, malformed := parseAddress(recipient, m.quoted)
	switch {
	case m.used:
		return ErrTooLate
	case m.hasNoSender():
		return nil // which is all that its outcome says
	case malformed == nil && len(m.recipients) > 0 && m.needsUTF8(a) != m.utf8:
		return ErrApart
	}
	m.take(a, malformed)
	m.err = m.check()
	return nil
}

// needsUTF8 reports whether a mail to a alone needs SMTPUTF8.
func (m *Mail) needsUTF8(a address) bool { return m.sender.utf8 || a.utf8 }

// Unsendable returns the outcome of a mail that cannot be sent, and nil for one that can.
func (m *Mail) Unsendable() *Outcome {
	if m.err == nil {
		return nil
	}
	o := m.outcome()
	o.Err = m.err
	return o
}

// outcome is the one of before the mail is sent: what cannot be sent is known.
func (m *Mail) outcome() *Outcome {
	o := &Outcome{Recipients: make([]Answer, len(m.recipients)+len(m.malformed))}
	for _, r := range m.malformed {
		o.Recipients[r.index] = Answer{Status: Malformed, Err: r.err}
	}
	return o
}
