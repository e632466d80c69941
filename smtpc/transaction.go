package smtpc

import (
	"bytes"
	"context"
	"errors"
	"strconv"
	"strings"
)

// A transaction is MAIL, RCPT and the message, with the answers so far.
type transaction struct {
	*Session
	mail    *Mail
	outcome *Outcome

	bare bool // MAIL goes without SIZE and BODY, which the server has refused
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
	oddTo   Stage
}

// Send sends m, whose outcome it returns. The end of ctx ends the transaction, and
// the session with it; its cause is ErrFuse where the time for the conversation is over.
// It sends nothing if Open has failed, and returns that error in the outcome. The notes of
// Open are those of the first mail.
func (s *Session) Send(ctx context.Context, m *Mail) *Outcome {
	return s.take(ctx, m, (*transaction).run)
}

// take works on the transaction of m.
func (s *Session) take(ctx context.Context, m *Mail, work func(*transaction) error) *Outcome {
	o := m.outcome()
	o.Securing = s.became
	switch {
	case m.err != nil:
		o.Err = m.err
	case s.failed != nil:
		o.Err = s.failed
		o.Notes, s.notes = s.notes, nil
	case m.used:
		o.Err = errUsed
	case ctx.Err() != nil:
		// It may have ended since Open returned. Not a byte is said then.
		s.ctx, s.stage = ctx, StageMAIL
		o.Err = s.ended(ctx.Err(), false)
	case !s.able():
		o.Err = errNotUsable
	case s.unreset:
		o.Err = errUnreset
	default:
		o.Notes, s.notes = s.notes, nil
		s.lastByte = false // no writer is left that would set it, or trace
		s.serve(m.Limits, m.Trace)
		s.ending = m.OnLastByte
		t := &transaction{Session: s, mail: m, outcome: o}
		o.Err = s.within(ctx, func() error { return work(t) })
		o.LastByte = s.mayHaveSent()
		s.unreset = isRefusal(o.Err)
	}
	return o
}

func isRefusal(err error) bool {
	if err == nil {
		return false
	}
	var refused *RefusedError
	return errors.As(err, &refused)
}

// run is the conversation from MAIL on. The message is sent after 354 and not
// before: only then has the server said that it will not read it as commands.
func (t *transaction) run() error {
	if err := t.fits(); err != nil {
		return err
	}
	t.mail.used = true
	if err := t.unasked(); err != nil {
		return t.fails(err)
	}
	if t.caps.offers(extPipelining) {
		return t.pipelining()
	}
	return t.lockstep()
}

// fits is the error of a message or an address that this server cannot take.
func (t *transaction) fits() error {
	if t.mail.utf8 && !t.mail.quoted && !t.caps.offers(extSMTPUTF8) {
		avoid := t.options.Avoid
		avoided := avoid.SMTPUTF8 || avoid.EHLO // our doing: the server was not asked
		return &UTF8Error{Avoided: avoided, Clear: !avoided && t.noTLS && !t.secure}
	}
	message := t.mail.message
	if limit := t.caps.sizeLimit(); limit > 0 && message.scanned && message.size > limit {
		return &SizeError{Size: message.size, Limit: limit}
	}
	return nil
}

// fails is the error of a transaction that err has ended.
func (t *transaction) fails(err error) error {
	if t.writing != nil {
		t.writing.halt() // from here on mayHaveSent does not change
	}
	return t.ended(err, t.outcome.Begun)
}

// mayHaveSent reports whether the server may have all of the message.
func (s *Session) mayHaveSent() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lastByte
}

// mailCommand is MAIL with the parameters that the server knows, which is said then.
func (t *transaction) mailCommand() string {
	t.mails++
	return "MAIL FROM:<" + t.mail.sender.text + ">" + t.sizeAndBody() + t.utf8()
}

// sizeAndBody are the parameters that MAIL can do without.
func (t *transaction) sizeAndBody() string {
	var b strings.Builder
	message := t.mail.message
	if !t.bare && message.scanned && t.caps.offers(extSize) {
		b.WriteString(" SIZE=" + strconv.FormatInt(message.size, 10))
	}
	// A message that is not read twice may have such a byte; declaring it is harmless.
	if !t.bare && t.caps.offers(ext8BitMIME) && (message.eightBit || !message.scanned) {
		b.WriteString(" BODY=8BITMIME")
	}
	return b.String()
}

// utf8 is the parameter that an address above ASCII needs.
func (t *transaction) utf8() string {
	if t.mail.utf8 && t.caps.offers(extSMTPUTF8) {
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
	for _, a := range t.mail.recipients {
		add(rcptCommand(a))
	}
	add("DATA")
	return b.Bytes()
}

// mailAnswered takes the answer to MAIL.
func (t *transaction) mailAnswered(r *reply) error {
	switch {
	case r.class() == 2:
		t.outcome.Begun = true
	case r.refused():
		t.sender = r
		if r.closing() {
			t.closing = r
		}
	default:
		return r.unexpected(StageMAIL)
	}
	return nil
}

// withoutParameters reports whether r may refuse the parameters of MAIL alone, and has
// the next MAIL go without those that it can do without. qmail-remote says none, so
// such a refusal does not judge the sender.
func (t *transaction) withoutParameters(r *reply) bool {
	if !r.refusesParameters() || t.sizeAndBody() == "" {
		return false
	}
	t.bare, t.answers = true, answers{}
	t.outcome.Notes = append(t.outcome.Notes[:len(t.outcome.Notes):len(t.outcome.Notes)], Note{StageMAIL, r.Reply})
	t.trace("= MAIL once more, without parameters")
	return true
}

// rcptAnswered takes the answer to the nth RCPT. After a 421 the answers to the
// others count as 421 too, whatever they are.
func (t *transaction) rcptAnswered(n int, r *reply) error {
	all, i := t.outcome.Recipients, t.mail.index[n]
	switch {
	case r.class() == 2:
		t.taken++
		all[i] = Answer{Status: Accepted, Reply: r.Reply}
		for _, full := range t.full {
			all[full].Status, all[full].full = Deferred, true
		}
		t.full = nil
		return nil
	case !r.refused():
		return r.unexpected(StageRCPT)
	}
	refusal := Answer{Status: Refused, Reply: r.Reply, AfterAccepted: t.taken > 0 && r.mayBeTooMany()}
	switch {
	case !t.forGood(StageRCPT, r):
		refusal.Status = Deferred
	case !r.tooMany():
	case t.taken > 0:
		refusal.Status = Deferred
	default:
		t.full = append(t.full, i)
	}
	all[i] = refusal
	if r.closing() {
		t.closing = r
		refusal.Inherited = true
		for _, i := range t.mail.index[n+1:] {
			all[i] = refusal
		}
	}
	return nil
}

// lockstep waits for the answer to each command.
func (t *transaction) lockstep() error {
	if err := t.envelope(); err != nil {
		return err
	}
	r, err := t.ask(StageDATA, "DATA")
	if err != nil {
		return t.fails(err)
	}
	return t.dataAnswered(r)
}

// envelope says MAIL and each RCPT, and waits for each answer. Without an error the message
// would go to one recipient at least.
func (t *transaction) envelope() error {
	r, err := t.askWithin(t.limits.mail(), StageMAIL, t.mailCommand())
	if err == nil && t.withoutParameters(r) {
		switch r, err = t.askWithin(t.limits.mail(), StageMAIL, t.mailCommand()); {
		case err != nil:
			return t.groupLost(err)
		case r.refusesSecondMAIL():
			return t.stumbled(StageMAIL, r)
		}
	}
	if err == nil {
		err = t.mailAnswered(r)
	} else {
		err = t.firstLost(err)
	}
	if err != nil {
		return t.fails(err)
	}
	if t.sender != nil {
		return t.rejected()
	}
	for n := 0; n < len(t.mail.recipients) && t.closing == nil; n++ {
		if r, err = t.ask(StageRCPT, rcptCommand(t.mail.recipients[n])); err == nil {
			err = t.rcptAnswered(n, r)
		}
		if err != nil {
			return t.fails(err)
		}
	}
	if t.taken == 0 {
		return t.rejected()
	}
	return nil
}

// pipelining writes MAIL, all RCPT and DATA at once. A server that stumbles over that
// has not judged the message: qmail-remote would not have said so.
func (t *transaction) pipelining() error {
	r, err := t.group()
	if err == nil && t.sender != nil && r.class() != 3 && t.withoutParameters(t.sender) {
		r, err = t.group()
	}
	if err == nil && t.sender != nil && t.sender.refusesParameters() && t.sizeAndBody() != "" {
		t.odd, t.oddTo = t.sender, StageMAIL // and 354 to DATA all the same
	}
	switch {
	case err != nil:
		return t.groupLost(err)
	case t.odd != nil:
		t.broken = r.class() == 3 // QUIT would be a line of the message
		return t.stumbled(t.oddTo, t.odd)
	case t.decided():
		t.leaveData(r)
		return t.rejected()
	}
	return t.dataAnswered(r)
}

// group sends MAIL, all RCPT and DATA, and takes the answers. It returns the one to
// DATA.
func (t *transaction) group() (*reply, error) {
	group, limit := t.groupCommands(), t.limits.Answer
	t.write(nil, func(w *writer) error { return w.commands(group) })
	mail, err := t.receive(StageMAIL, t.limits.mail())
	if err != nil {
		return nil, t.firstLost(err)
	}
	if err := t.mailAnswered(mail); err != nil {
		return nil, err
	}
	t.understood(StageMAIL, mail, true, true)
	if t.bare && mail.refusesSecondMAIL() {
		t.odd, t.oddTo, t.closing = mail, StageMAIL, nil
	}
	before := mail
	for n := range t.mail.recipients {
		r, err := t.receive(StageRCPT, limit)
		if err != nil {
			return nil, err
		}
		t.understood(StageRCPT, r, t.sender == nil, before.class() == 2)
		before = r
		// After MAIL was refused, or a 421, this says nothing about the recipient.
		switch {
		case t.sender == nil && t.closing == nil:
			if err := t.rcptAnswered(n, r); err != nil {
				return nil, err
			}
		case r.class() == 2:
			t.stray = true
			t.outcome.Recipients[t.mail.index[n]].Behind = t.sender == nil
		}
	}
	r, err := t.receive(StageDATA, limit)
	if err == nil {
		t.understood(StageDATA, r, t.taken > 0, t.taken > 0)
	}
	return r, err
}

// understood looks for an answer that says that the server cannot read a group: it
// does not know the command although it was due, or says that it comes out of order
// although the command before it was accepted. To a command that was not due, because
// what it needs was refused, servers say what they like. After a 421 they have not tried.
func (t *transaction) understood(to Stage, r *reply, due, inOrder bool) {
	if t.odd == nil && t.closing == nil && due && r.misunderstood() && (r.Code != 503 || inOrder) {
		t.odd, t.oddTo = r, to
	}
}

// groupLost is the error of a group of which an answer is missing. Neither a server
// that hangs up nor one that falls silent has said that it read a group, whatever it
// said before, unless it took its leave with 421.
func (t *transaction) groupLost(err error) error {
	var tlsLost *BrokenError
	switch {
	case errors.As(err, &tlsLost):
		return err
	case !isLost(err), t.ctx.Err() != nil, t.closing != nil:
		broken := t.fails(err)
		if t.decided() {
			t.outcome.After = broken
			return t.rejected()
		}
		return broken
	case t.odd != nil:
		t.broken = true
		return t.stumbled(t.oddTo, t.odd)
	}
	return t.breaks(ErrStumbled, err)
}

// stumbled is the error that r is, the answer to something that qmail-remote would not
// have said.
func (t *transaction) stumbled(to Stage, r *reply) error {
	t.spent = true
	return &RefusedError{Stage: to, Reply: r.Reply, Cause: ErrStumbled}
}

// leaveData ends a transaction in which nothing is to be delivered, after the
// answer to DATA. A server that wants the message all the same gets an empty
// one for nobody; one that would deliver it to somebody gets none.
func (t *transaction) leaveData(r *reply) {
	t.owesDot = r.class() == 3 && !t.stray
	t.broken = r.class() == 3 && t.stray
}

// decided reports whether the answers to MAIL and RCPT leave nothing to deliver.
func (t *transaction) decided() bool {
	if t.sender != nil {
		return true
	}
	for _, a := range t.outcome.Recipients {
		if a.Status == Unanswered {
			return false
		}
	}
	return t.taken == 0
}

// rejected returns the error when nothing is left to deliver. It stands whatever comes after.
func (t *transaction) rejected() error {
	switch {
	case t.sender == nil:
		return t.allRejected()
	case t.utf8() != "" && t.sender.refusesParameters():
		// What refuses the parameter that an address needs says nothing of the sender.
		return &RefusedError{Stage: StageMAIL, Reply: t.sender.Reply}
	}
	return t.refuse(StageMAIL, t.sender)
}

// allRejected is the error when no recipient is left: for good when each was
// refused for good.
func (t *transaction) allRejected() error {
	e := &RefusedError{Stage: StageRCPT, Permanent: true}
	for _, a := range t.outcome.Recipients {
		e.Permanent = e.Permanent && a.Permanent()
	}
	return e
}

// refuse is the error that the server's refusal is.
func (t *transaction) refuse(stage Stage, r *reply) error {
	return &RefusedError{Stage: stage, Reply: r.Reply, Permanent: t.forGood(stage, r)}
}

// forGood reports whether a refusal is permanent. In clear text that follows a failure
// of TLS one that TLS might have spared is not: TLS may work tomorrow. That a relay wants
// a login is for us to mend.
func (s *Session) forGood(stage Stage, r *reply) bool {
	if s.options.Relay && r.Code == 530 && stage != StageMessage {
		return false
	}
	if s.noTLS && !s.secure && (r.ofSecurity() || stage == StageMAIL) {
		return false
	}
	return r.permanent()
}

// dataAnswered goes on after the answer to DATA when there are recipients.
func (t *transaction) dataAnswered(r *reply) error {
	switch {
	case r.refused():
		return t.refuseLast(StageDATA, r)
	case r.class() != 3:
		return t.fails(r.unexpected(StageDATA))
	}
	if err := t.unasked(); err != nil {
		return t.fails(err)
	}
	t.allow(0) // until the message is written
	w := t.write(t.mail.message.reader, func(w *writer) error { return w.data(t.mail.message) })
	r, err := t.read(StageMessage, t.limits.Message)
	if err != nil {
		return t.fails(err)
	}
	w.halt() // an answer that comes before the end of data is not waited with
	switch {
	case r.refused():
		return t.refuseLast(StageMessage, r)
	case r.class() != 2:
		return t.fails(r.unexpected(StageMessage))
	case !t.mayHaveSent():
		return t.fails(r.unexpected(partOfMessage))
	}
	return t.delivered(r)
}

// partOfMessage is what a server has answered that did not wait for the end.
const partOfMessage Stage = "a part of the message"

// delivered takes the answer by which the server has accepted the message, provided
// that it was there to be accepted.
func (t *transaction) delivered(r *reply) error {
	if !t.writing.wait(lingerLimit) {
		return t.fails(r.unexpected(partOfMessage))
	}
	if err := t.writing.failure(); err != nil {
		return t.fails(err)
	}
	if err := t.contradicted(r); err != nil {
		return t.fails(err)
	}
	t.outcome.Reply = r.Reply
	return nil
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

// refuseLast is the error of a refusal that no other answer is to follow.
func (t *transaction) refuseLast(stage Stage, r *reply) error {
	if err := t.contradicted(r); err != nil {
		return t.fails(err)
	}
	return t.refuse(stage, r)
}
