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

	sender     address
	recipients []address // those that can be sent
	index      []int     // where each of them stands among all
	malformed  []malformed
	utf8       bool // one of the addresses has a byte above 127
	quoted     bool
	message    *message

	err  error // why it cannot be sent to anybody
	used bool  // its transaction was begun
}

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
	m := &Mail{quoted: quoted}
	m.err = m.prepare(sender, recipients, message)
	return m
}

func (m *Mail) prepare(sender string, recipients []string, text io.Reader) error {
	if len(recipients) == 0 {
		return errors.New("a mail without recipients")
	}
	var err error
	if m.sender, err = parseAddress(sender, m.quoted); err != nil {
		return &SenderError{err}
	}
	m.utf8 = m.sender.utf8
	m.recipients, m.index = make([]address, 0, len(recipients)), make([]int, 0, len(recipients))
	for i, raw := range recipients {
		a, err := parseAddress(raw, m.quoted)
		if err != nil {
			m.malformed = append(m.malformed, malformed{i, err})
			continue
		}
		m.recipients, m.index = append(m.recipients, a), append(m.index, i)
		m.utf8 = m.utf8 || a.utf8
	}
	if len(m.recipients) == 0 {
		return &RefusedError{Stage: StageRCPT, Permanent: true}
	}
	if m.message, err = newMessage(text); err == nil && m.message.partial {
		err = ErrPartialLine
	}
	return err
}

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
