package smtpc

import (
	"bytes"
	"context"
	"errors"
	"strconv"
	"strings"

	"nightmare.mail/mxf/remote/report"
)

// A transaction is MAIL, RCPT and the message, with the answers so far.
type transaction struct {
	*session
	env *envelope
	m   *message

	plain bool // MAIL goes without SIZE and BODY, which the server has refused
	answers
}

// answers are those to MAIL and RCPT.
type answers struct {
	sender  *reply // the refusal of MAIL, nil for none
	taken   int    // recipients accepted
	full    []int  // those refused because there are too many, if another is accepted
	stray   bool   // the server accepted a recipient that is not reported so
	closing *reply // the 421 to MAIL or a recipient, nil for none
	odd     *reply // the answer to a command of a group that was not understood
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
	return "MAIL FROM:<" + t.env.sender.text + ">" + t.sizeAndBody() + t.utf8()
}

// sizeAndBody are the parameters that can be done without.
func (t *transaction) sizeAndBody() string {
	var b strings.Builder
	if !t.plain && t.m.scanned && t.caps.offers(extSize) {
		b.WriteString(" SIZE=" + strconv.FormatInt(t.m.size, 10))
	}
	// Of a message that is not read twice it is not known; declaring is harmless.
	if !t.plain && t.caps.offers(ext8BitMIME) && (t.m.eightBit || !t.m.scanned) {
		b.WriteString(" BODY=8BITMIME")
	}
	return b.String()
}

// utf8 is the parameter that an address above ASCII needs.
func (t *transaction) utf8() string {
	if t.env.utf8 && t.caps.offers(extSMTPUTF8) {
		return " SMTPUTF8"
	}
	return ""
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
		if r.closing() {
			t.closing = r
		}
	default:
		return r.unexpected("MAIL")
	}
	return nil
}

// withoutParameters reports whether r may refuse the parameters of MAIL alone, and has
// the next MAIL go without those that can be done without. qmail-remote says none, so
// such a refusal is no verdict on the sender.
func (t *transaction) withoutParameters(r *reply) bool {
	if !r.refusesParameters() || t.sizeAndBody() == "" {
		return false
	}
	t.plain, t.answers = true, answers{}
	t.note("MAIL was refused with parameters before", r)
	t.trace("= MAIL once more, without parameters")
	return true
}

// rcptAnswered takes the answer to the nth RCPT. After a 421 the answers to the
// others count as 421 too, whatever they are.
func (t *transaction) rcptAnswered(n int, r *reply) error {
	i := t.env.index[n]
	switch {
	case r.class() == 2:
		t.taken++
		t.reports[i] = report.Report{Letter: report.Accepted}
		for _, full := range t.full {
			t.reports[full].Letter = report.Deferred
		}
		t.full = nil
		return nil
	case !r.refused():
		return r.unexpected("RCPT")
	}
	f := t.facts()
	f.Reply, f.Permanent = r.Message, t.forGood(report.RecipientRejected, r)
	switch {
	case !r.tooMany():
	case t.taken > 0:
		f.Permanent = false
	default:
		t.full = append(t.full, i)
	}
	refusal := report.New(report.RecipientRejected, f)
	t.reports[i] = refusal
	if r.closing() {
		t.closing = r
		for _, i := range t.env.index[n:] {
			t.reports[i] = refusal
		}
	}
	return nil
}

// mailLost is the error of a connection that was lost before MAIL was answered.
func (t *transaction) mailLost(err error) error {
	if isLost(err) && t.refused {
		return t.wantOfTLS(err) // and nothing was said since
	}
	return err
}

// lockstep waits for the answer to each command.
func (t *transaction) lockstep() (report.Stream, error) {
	r, err := t.ask(t.mailCommand())
	if err == nil && t.withoutParameters(r) {
		switch r, err = t.ask(t.mailCommand()); {
		case err != nil:
			return t.groupLost(err)
		case r.refusesSecondMAIL():
			t.quit("")
			return t.stumbled(r)
		}
	}
	if err != nil {
		return t.outcome(t.mailLost(err))
	}
	if err := t.mailAnswered(r); err != nil {
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

// pipelining writes MAIL, all RCPT and DATA at once. A server that stumbles over that
// has not judged the message: qmail-remote would not have said so.
func (t *transaction) pipelining() (report.Stream, error) {
	r, err := t.group()
	if err == nil && t.sender != nil && r.class() != 3 && t.withoutParameters(t.sender) {
		r, err = t.group()
	}
	if err == nil && t.sender != nil && t.sender.refusesParameters() && t.sizeAndBody() != "" {
		t.odd = t.sender // and 354 to DATA all the same
	}
	switch {
	case err != nil:
		return t.groupLost(err)
	case t.odd != nil:
		if r.class() != 3 {
			t.quit("")
		}
		return t.stumbled(t.odd)
	case t.decided():
		t.leaveData(r)
		return t.rejected(), nil
	}
	return t.dataAnswered(r)
}

// group sends MAIL, all RCPT and DATA, and takes the answers. It returns the one to
// DATA.
func (t *transaction) group() (*reply, error) {
	group := t.groupCommands()
	t.write(func(w *writer) error { return w.commands(group) })
	mail, err := t.receive("MAIL", t.answerLimit())
	if err != nil {
		return nil, t.mailLost(err)
	}
	if err := t.mailAnswered(mail); err != nil {
		return nil, err
	}
	t.understood(mail, true, true)
	if t.plain && mail.refusesSecondMAIL() {
		t.odd, t.closing = mail, nil
	}
	before := mail
	for n := range t.env.recipients {
		r, err := t.receive("RCPT", t.answerLimit())
		if err != nil {
			return nil, err
		}
		t.understood(r, t.sender == nil, before.class() == 2)
		before = r
		// After MAIL was refused, or a 421, this says nothing about the recipient.
		switch {
		case t.sender == nil && t.closing == nil:
			if err := t.rcptAnswered(n, r); err != nil {
				return nil, err
			}
		case r.class() == 2:
			t.stray = true
		}
	}
	r, err := t.receive("DATA", t.answerLimit())
	if err == nil {
		t.understood(r, t.taken > 0, t.taken > 0)
	}
	return r, err
}

// understood looks for an answer that says that the server cannot read a group: it
// does not know the command although it was due, or says that it comes out of order
// although the command before it was accepted. To a command that was not due, because
// what it needs was refused, servers say what they like. After a 421 they have not tried.
func (t *transaction) understood(r *reply, due, inOrder bool) {
	if t.odd == nil && t.closing == nil && due && r.misunderstood() && (r.Code != 503 || inOrder) {
		t.odd = r
	}
}

// groupLost is the outcome of a group of which an answer is missing. Neither a server
// that hangs up nor one that falls silent has said that it read a group, whatever it
// said before, unless it took its leave with 421. A want of TLS is told by its error.
func (t *transaction) groupLost(err error) (report.Stream, error) {
	var none *report.NoTransaction
	switch {
	case errors.As(err, &none):
		return report.Stream{}, none
	case !isLost(err), t.ctx.Err() != nil, t.closing != nil:
		if t.decided() {
			return t.settled(t.rejected(), err)
		}
		return t.outcome(err)
	}
	if t.odd != nil {
		return t.stumbled(t.odd)
	}
	return report.Stream{}, t.none(report.GroupStumbled, report.ConnectionDied, t.died(t.facts(), err), err)
}

// stumbled is the outcome of r, which answers something that qmail-remote would not have
// said.
func (t *transaction) stumbled(r *reply) (report.Stream, error) {
	f := t.facts()
	f.Reply = r.Message
	return report.Stream{}, t.none(report.GroupStumbled, report.GroupNotUnderstood, f, nil)
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

// decided reports whether the answers to MAIL and RCPT leave nothing to deliver.
func (t *transaction) decided() bool {
	return t.sender != nil || t.taken == 0 && len(t.answered()) == len(t.reports)
}

// rejected is the outcome then, which stands whatever comes after.
func (t *transaction) rejected() report.Stream {
	if t.sender == nil {
		return t.allRejected()
	}
	// What refuses the parameter that an address needs says nothing of the sender.
	if t.utf8() != "" && t.sender.refusesParameters() {
		f := t.facts()
		f.Reply = t.sender.Message
		return t.end(report.SenderRejected, f)
	}
	return t.refuse(report.SenderRejected, t.sender)
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
	t.allow(0) // until the message is written
	w := t.write(func(w *writer) error { return w.data(t.m) })
	r, err := t.read("the message", t.messageLimit())
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
