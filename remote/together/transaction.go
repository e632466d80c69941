package together

import (
	"errors"
	"slices"

	"nightmare.mail/mxf/smtpc"
)

// The replies by which a server says that it closes (RFC 5321 section 3.8), that it has not
// enough of something, that there are too many recipients (section 4.5.3.1.10), and that it did
// not expect the command.
const (
	codeClosing  = 421
	codeStorage  = 452
	codeTooMany  = 552
	codeSequence = 503
)

// A transaction is one whose outcome is known: who has an answer, and what the
// others do next.
type transaction struct {
	*run
	batch
	outcome *smtpc.Outcome
	used    bool // the session had had a transaction before
	stopped bool // the time is over: nothing begins anew

	refused  *smtpc.RefusedError // the refusal of MAIL, DATA or the message; or that of all recipients
	accepted int                 // recipients that RCPT accepted
	closing  bool                // a recipient got 421
	sent     int                 // recipients that were offered

	anew     []int // begin anew on a new connection
	declined []int // of whom the answer was not taken
	retry    []int // are offered once more, with each other
	suspects []int // were refused the message together; places in the batch
	most     int   // that the next transaction may have, because of 421; 0: no limit
}

// judge gives each recipient of the batch its answer, or a place in what follows.
func (t *transaction) judge() {
	t.look()
	for n := range t.who {
		switch a := t.answer(n); a.Status {
		case smtpc.Malformed:
			t.settle(n)
		case smtpc.Refused:
			t.refusedForGood(n, a)
		case smtpc.Deferred:
			t.deferred(n, a)
		default:
			t.open(n)
		}
	}
}

// look counts what the server said.
func (t *transaction) look() {
	if t.outcome.Err != nil {
		errors.As(t.outcome.Err, &t.refused)
	}
	for n := range t.who {
		a := t.answer(n)
		if a.Status != smtpc.Malformed {
			t.sent++
		}
		if a.Status == smtpc.Accepted {
			t.accepted++
		}
		t.closing = t.closing || a.Reply.Code == codeClosing
	}
	t.end.Refusals += t.outcome.Refusals()
	t.end.Unreset = t.refused != nil
}

// answer is what RCPT of the nth recipient of the batch got.
func (t *transaction) answer(n int) smtpc.Answer {
	if n < len(t.outcome.Recipients) {
		a := t.outcome.Recipients[n]
		if a.Behind && t.outcome.LastByte {
			a = smtpc.Answer{Status: smtpc.Accepted} // it has got the message
		}
		return a
	}
	return smtpc.Answer{}
}

// refusedForGood is a recipient that was refused for good. After an accepted one 552 may mean
// that there are too many, whatever its status code, and 503 behind one that was refused may be
// because of that: no recipient bounces because of another.
func (t *transaction) refusedForGood(n int, a smtpc.Answer) {
	r := &t.recipients[t.who[n]]
	if (a.AfterAccepted || a.Reply.Code == codeSequence && n > 0) && !r.retried {
		r.retried = true
		t.retry = append(t.retry, t.who[n])
		return
	}
	t.settle(n)
}

// deferred is a recipient that was refused for now.
func (t *transaction) deferred(n int, a smtpc.Answer) {
	i := t.who[n]
	r := &t.recipients[i]
	switch {
	case a.Reply.Code == codeClosing && t.sent > 1 && t.mayRegroup(i):
		t.begin(i, "421 to RCPT")
	case a.Reply.Code == codeClosing && t.used && t.mayBegin(i):
		t.begin(i, "421 to RCPT")
	case a.Reply.Code == codeClosing, r.retried:
		t.settle(n)
	case t.crowded(a):
		r.retried = true
		if o := alone(t.outcome, n); !o.Recipients[0].Permanent() {
			r.held = o
		}
		t.retry = append(t.retry, i)
	case a.Reply.Code == codeStorage && t.terms.Kept && t.mayBegin(i):
		t.begin(i, "452 to RCPT")
	default:
		t.settle(n)
	}
}

// crowded reports whether a may be a refusal because of the others: with 4xx behind one that was
// accepted, or with 552 beside one.
func (t *transaction) crowded(a smtpc.Answer) bool {
	return a.AfterAccepted || t.accepted > 0 && a.Reply.Code == codeTooMany
}

// open is a recipient that gets the answer of the message.
func (t *transaction) open(n int) {
	i := t.who[n]
	why := t.failure()
	switch {
	case t.outcome.Err == nil:
		t.settle(n)
	case t.judged():
		switch {
		case why != "" && t.mayBegin(i):
			t.begin(i, why)
		case t.accepted > 1:
			t.suspects = append(t.suspects, n)
		default:
			t.settle(n)
		}
	case t.outcome.LastByte:
		t.settle(n)
	case t.closing && t.sent > 1 && t.mayRegroup(i):
		t.begin(i, "421 to RCPT")
	case why != "" && t.mayBegin(i):
		t.begin(i, why)
	default:
		t.settle(n)
	}
}

// judged reports whether the server has refused DATA or the message, and still listens to
// what is said of the recipients.
func (t *transaction) judged() bool {
	switch {
	case t.refused == nil:
		return false
	case t.refused.Stage == smtpc.StageDATA:
		return !t.closing // else it has refused everything
	}
	return t.refused.Stage == smtpc.StageMessage
}

// failure is what a session that had had a transaction before has failed with, and what
// is no event there if the last byte was not begun or the server has said no; empty for an
// outcome that counts as everywhere.
func (t *transaction) failure() string {
	switch {
	case !t.used:
		return ""
	case t.refused != nil:
		return t.refusal()
	}
	var silence *smtpc.SilenceError
	var protocol *smtpc.ProtocolError
	switch err := t.outcome.Err; {
	case errors.As(err, &silence) && silence.Stage == smtpc.StageMAIL:
		return "MAIL was not answered"
	case errors.As(err, &silence):
		return "" // it was there to answer MAIL
	case errors.Is(err, smtpc.ErrLost):
		return "connection lost"
	case errors.As(err, &protocol):
		return "protocol error"
	}
	return ""
}

// refusal is failure for a server that said no.
func (t *transaction) refusal() string {
	code := t.refused.Reply.Code
	switch stage := t.refused.Stage; {
	case stage == smtpc.StageMAIL:
		return "MAIL was refused"
	case stage == smtpc.StageRCPT:
		return ""
	case code == codeClosing:
		return "421 to " + string(stage)
	case code == codeStorage && t.terms.Kept:
		return "452 to " + string(stage)
	}
	return ""
}

// mayBegin reports whether recipient i has not begun anew yet because a session had failed
// it, and does so now.
func (t *transaction) mayBegin(i int) bool {
	r := &t.recipients[i]
	may := !r.fresh && !t.stopped
	r.fresh = r.fresh || may
	return may
}

// mayRegroup is mayBegin for a 421 to the RCPT of a group. The next transactions have no
// more recipients than the server took.
func (t *transaction) mayRegroup(i int) bool {
	t.most = t.accepted
	if t.used && t.mayBegin(i) {
		return true
	}
	r := &t.recipients[i]
	may := !r.regroup && !t.stopped
	r.regroup = r.regroup || may
	return may
}

func (t *transaction) begin(i int, why string) {
	t.anew = append(t.anew, i)
	t.end.Why = why
	t.deliveries.Anew(i, why)
}

// settle gives the nth recipient its answer.
func (t *transaction) settle(n int) {
	i := t.who[n]
	o := alone(t.outcome, n)
	if held := t.recipients[i].held; t.recipients[i].retried && held != nil && unheard(o) {
		o = held
	}
	if !t.give(i, o) {
		t.declined = append(t.declined, i)
	}
}

// unheard reports whether o ended before the server had a say.
func unheard(o *smtpc.Outcome) bool {
	var broken *smtpc.BrokenError
	return !o.LastByte && errors.As(o.Err, &broken)
}

// give gives recipient i its answer, and reports whether it was taken.
func (t *transaction) give(i int, o *smtpc.Outcome) (taken bool) {
	if t.deliveries.Answer(i, o) || o.Err == nil || o.LastByte {
		t.recipients[i].answered, t.recipients[i].held = true, nil
		return true
	}
	t.end.Outcome, t.end.Why = o, whyDeclined
	return false
}

// follow puts into the queue what the transaction leaves to do.
func (t *transaction) follow() {
	var next []batch
	switch {
	case t.trial == nil:
		next = append(t.tried(t.suspects), t.again()...)
	case len(t.anew)+len(t.declined) > 0:
		next = []batch{{who: t.who, trial: t.trial}} // it has shown nothing yet
	default:
		next = t.shown()
	}
	if len(t.retry) > 0 {
		next = append(next, batch{who: t.retry})
	}
	t.push(next...)
}

// again are those that go on with another session.
func (t *transaction) again() []batch {
	var next []batch
	for who := t.anew; len(who) > 0; {
		n := len(who)
		if t.most > 0 {
			// The server has had enough after that many.
			n = min(n, t.most)
		}
		next = append(next, batch{who: who[:n:n]})
		who = who[n:]
	}
	if len(t.declined) > 0 {
		next = append(next, batch{who: t.declined})
	}
	return next
}

// tried are those that were refused the message together: the first goes alone.
func (t *transaction) tried(suspects []int) []batch {
	if len(suspects) == 0 {
		return nil
	}
	trial := &trial{}
	for _, n := range suspects {
		o := alone(t.outcome, n)
		if !t.refused.Permanent {
			t.recipients[t.who[n]].held = o
		}
		trial.others, trial.common = append(trial.others, t.who[n]), append(trial.common, o)
	}
	first := trial.others[0]
	trial.others, trial.common = trial.others[1:], trial.common[1:]
	return []batch{{who: []int{first}, trial: trial}}
}

// shown is what becomes of the others when the first of those that were refused together
// has its answer. Refused again, and not more mildly: the common refusal holds. Otherwise
// it may have been because of one of them, and each is offered alone.
func (t *transaction) shown() []batch {
	var next []batch
	for n, i := range t.trial.others {
		if common := t.trial.common[n]; t.confirms(common) && t.give(i, common) {
			continue
		}
		next = append(next, batch{who: []int{i}})
	}
	return next
}

// confirms reports whether the outcome of the first, alone, is the refusal that all got.
func (t *transaction) confirms(common *smtpc.Outcome) bool {
	var before *smtpc.RefusedError
	if t.refused == nil || !errors.As(common.Err, &before) {
		return false
	}
	again := t.refused.Stage == smtpc.StageDATA || t.refused.Stage == smtpc.StageMessage
	return again && (t.refused.Permanent || !before.Permanent)
}

// errUnanswered is a mistake of the sender.
var errUnanswered = errors.New("the outcome has no answer for the recipient")

// alone is the outcome of the nth recipient of o as if it had been the only one.
func alone(o *smtpc.Outcome, n int) *smtpc.Outcome {
	one := o.Of(n)
	if one.Err == nil && (len(one.Recipients) == 0 || one.Recipients[0].Status != smtpc.Accepted) {
		one.Err = errUnanswered
	}
	return one
}

// credible is o without the answers of a server that stumbled over the group: it has judged
// nobody (smtp.md, "A server that stumbles over an extension").
func credible(o *smtpc.Outcome) *smtpc.Outcome {
	if !errors.Is(o.Err, smtpc.ErrStumbled) {
		return o
	}
	heard := *o
	heard.Recipients = slices.Clone(o.Recipients)
	for n, a := range heard.Recipients {
		if a.Status != smtpc.Malformed {
			heard.Recipients[n] = smtpc.Answer{}
		}
	}
	return &heard
}
