package smtpc

import (
	"bytes"
	"context"
	"errors"
	"strconv"
	"strings"

	"github.com/emersion/go-smtp"

	"nightmare.mail/mxf/remote/report"
)

// A transaction is MAIL, RCPT and the message, with the answers so far.
type transaction struct {
	*session
	env *envelope
	m   *message

	sender  *reply // the refusal of MAIL, nil for none
	taken   int    // recipients accepted
	stray   bool   // the server accepted a recipient that is not reported so
	closing *reply // the 421 to a recipient, nil for none
}

// transact is the conversation from MAIL on. The message is sent after 354 and not
// before: only then has the server said that it will not read it as commands.
func (s *session) transact(env *envelope, m *message) (report.Stream, error) {
	t := &transaction{session: s, env: env, m: m}
	if err := s.unasked(); err != nil {
		return s.outcome(err)
	}
	if s.caps.offers(extPipelining) {
		return t.pipelining()
	}
	return t.lockstep()
}

// mailCommand is MAIL with the parameters that the server knows.
func (t *transaction) mailCommand() string {
	var o smtp.MailOptions
	if t.m.scanned && t.caps.offers(extSize) {
		o.Size = t.m.size
	}
	// Of a message that is not read twice it is not known; declaring is harmless.
	if t.caps.offers(ext8BitMIME) && (t.m.eightBit || !t.m.scanned) {
		o.Body = smtp.Body8BitMIME
	}
	o.UTF8 = t.env.utf8 && t.caps.offers(extSMTPUTF8)

	var b strings.Builder
	b.WriteString("MAIL FROM:<" + t.env.sender.text + ">")
	if t.m.scanned && t.caps.offers(extSize) {
		b.WriteString(" SIZE=" + strconv.FormatInt(o.Size, 10))
	}
	if o.Body != "" {
		b.WriteString(" BODY=" + string(o.Body))
	}
	if o.UTF8 {
		b.WriteString(" SMTPUTF8")
	}
	return b.String()
}

func rcptCommand(a address) string { return "RCPT TO:<" + a.text + ">" }

// groupCommands are MAIL, all RCPT and DATA, for one write.
func (t *transaction) groupCommands() []byte {
	var b bytes.Buffer
	add := func(command string) {
		t.trace("> " + command)
		b.WriteString(command + "\r\n")
	}
	add(t.mailCommand())
	for _, a := range t.env.recipients {
		add(rcptCommand(a))
	}
	add("DATA")
	return b.Bytes()
}

// mailAnswered takes the answer to MAIL.
func (t *transaction) mailAnswered(r *reply) error {
	switch {
	case r.class() == 2:
		t.accepted = true
	case r.refused():
		t.sender = r
	default:
		return r.unexpected("MAIL")
	}
	return nil
}

// rcptAnswered takes the answer to the nth RCPT. After a 421 the answers to the
// others count as 421 too, whatever they are.
func (t *transaction) rcptAnswered(n int, r *reply) error {
	f := t.facts()
	switch {
	case r.class() == 2:
		t.taken++
		t.reports[t.env.index[n]] = report.Report{Letter: report.Accepted}
		return nil
	case !r.refused():
		return r.unexpected("RCPT")
	}
	f.Reply, f.Permanent = r.Message, r.permanent()
	refusal := report.New(report.RecipientRejected, f)
	t.reports[t.env.index[n]] = refusal
	if r.closing() {
		t.closing = r
		for _, i := range t.env.index[n:] {
			t.reports[i] = refusal
		}
	}
	return nil
}

// lockstep waits for the answer to each command.
func (t *transaction) lockstep() (report.Stream, error) {
	r, err := t.ask(t.mailCommand())
	if err == nil {
		err = t.mailAnswered(r)
	}
	if err != nil {
		return t.outcome(err)
	}
	if t.sender != nil {
		t.quit("")
		return t.rejected(), nil
	}
	for n := 0; n < len(t.env.recipients) && t.closing == nil; n++ {
		if r, err = t.ask(rcptCommand(t.env.recipients[n])); err == nil {
			err = t.rcptAnswered(n, r)
		}
		if err != nil {
			return t.outcome(err)
		}
	}
	if t.taken == 0 {
		t.quit("")
		return t.allRejected(), nil
	}
	if r, err = t.ask("DATA"); err != nil {
		return t.outcome(err)
	}
	return t.dataAnswered(r)
}

// pipelining writes MAIL, all RCPT and DATA at once.
func (t *transaction) pipelining() (report.Stream, error) {
	group := t.groupCommands()
	t.write(func(w *writer) error { return w.commands(group) })
	err := t.envelopeAnswered()
	var r *reply
	if err == nil {
		r, err = t.receive()
	}
	switch {
	case t.decided() && err == nil:
		t.leaveData(r)
		return t.rejected(), nil
	case t.decided():
		return t.settled(t.rejected(), err)
	case err != nil:
		return t.outcome(err)
	}
	return t.dataAnswered(r)
}

// leaveData ends a transaction in which nothing is to be delivered, after the
// answer to DATA. A server that wants the message all the same gets an empty
// one for nobody; one that would deliver it to somebody gets none.
func (t *transaction) leaveData(r *reply) {
	switch {
	case r.class() != 3:
		t.quit("")
	case !t.stray:
		t.trace("> .")
		t.quit(endOfData)
	}
}

// envelopeAnswered takes the answers to MAIL and to all RCPT. After MAIL was
// refused, or a 421, those to RCPT say nothing about the recipients.
func (t *transaction) envelopeAnswered() error {
	r, err := t.receive()
	if err == nil {
		err = t.mailAnswered(r)
	}
	for n := 0; n < len(t.env.recipients) && err == nil; n++ {
		r, err = t.receive()
		switch {
		case err != nil:
		case t.sender == nil && t.closing == nil:
			err = t.rcptAnswered(n, r)
		case r.class() == 2:
			t.stray = true
		}
	}
	return err
}

// decided tells whether the answers to MAIL and RCPT leave nothing to deliver.
func (t *transaction) decided() bool {
	return t.sender != nil || t.taken == 0 && len(t.answered()) == len(t.reports)
}

// rejected is the outcome then, which stands whatever comes after.
func (t *transaction) rejected() report.Stream {
	if t.sender != nil {
		return t.refuse(report.SenderRejected, t.sender)
	}
	return t.allRejected()
}

// settled lets an outcome stand although err came after it, but tells when that
// was the fuse.
func (t *transaction) settled(stream report.Stream, err error) (report.Stream, error) {
	if err != nil && errors.Is(context.Cause(t.ctx), errFuse) {
		_, err := t.blown(t.facts(), true)
		return stream, err
	}
	return stream, nil
}

// dataAnswered goes on after the answer to DATA when there are recipients.
func (t *transaction) dataAnswered(r *reply) (report.Stream, error) {
	switch {
	case r.refused():
		return t.endRefused(report.DataRejected, r)
	case r.class() != 3:
		return t.outcome(r.unexpected("DATA"))
	}
	if err := t.unasked(); err != nil {
		return t.outcome(err)
	}
	w := t.write(func(w *writer) error { return w.data(t.m) })
	r, err := t.receive()
	if err != nil {
		return t.outcome(err)
	}
	w.halt() // an answer that comes before the end of data is not waited with
	switch {
	case r.refused():
		return t.endRefused(report.MessageRejected, r)
	case r.class() != 2:
		return t.outcome(r.unexpected("the message"))
	case !t.mayHaveSent():
		return t.outcome(r.unexpected("a part of the message"))
	}
	return t.delivered(r)
}

// delivered is the outcome after the server has accepted the message, provided
// that it was there to be accepted.
func (t *transaction) delivered(r *reply) (report.Stream, error) {
	if !t.writing.wait(lingerLimit) {
		return t.outcome(r.unexpected("a part of the message"))
	}
	if err := t.writing.failure(); err != nil {
		return t.outcome(err)
	}
	if err := t.contradicted(r); err != nil {
		return t.outcome(err)
	}
	t.quit("")
	f := t.facts()
	f.Reply = r.Message
	return t.end(report.MessageAccepted, f), nil
}

// contradicted is the error of a server that sends the contrary right behind r,
// its last answer: there was one too many, and r was perhaps the answer to
// something else. A 221 or 421 there only says that the server leaves.
func (t *transaction) contradicted(r *reply) error {
	behind, _ := t.reader.Peek(min(t.reader.Buffered(), len("250")))
	switch code := string(behind); {
	case len(code) < len("250"), code == "221", code == "421":
		return nil
	case strings.Contains("23", code[:1]) && r.refused(), strings.Contains("45", code[:1]) && !r.refused():
		return t.unasked()
	}
	return nil
}

// endRefused is the outcome after a refusal that no other answer is to follow.
func (t *transaction) endRefused(c report.Case, r *reply) (report.Stream, error) {
	if err := t.contradicted(r); err != nil {
		return t.outcome(err)
	}
	t.quit("")
	return t.refuse(c, r), nil
}

// allRejected is the outcome when no recipient is left: for good when each was
// refused for good.
func (s *session) allRejected() report.Stream {
	f := s.facts()
	f.Permanent = true
	for _, r := range s.reports {
		f.Permanent = f.Permanent && r.Letter == report.Refused
	}
	return s.end(report.AllRejected, f)
}
