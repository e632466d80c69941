package together

import (
	"context"
	"slices"
	"strings"

	"nightmare.mail/mxf/smtpc"
)

// A Sender sends the message over one session. [smtpc.Session] is what is behind it.
type Sender interface {
	// Send offers the message to these recipients, numbers of the sequence, in one
	// transaction. The outcome has an answer for each of them, in this order.
	Send(ctx context.Context, recipients []int) *smtpc.Outcome
	// Reset says RSET, which has to come between a refusal and the next transaction.
	Reset(ctx context.Context) error
	// Usable reports whether another transaction may be tried, after Reset where that has to
	// come. It is false too where the connection has had the messages that it may have.
	Usable() bool
}

// Deliveries are told what became of the recipients. The methods are called by Run, in
// its goroutine.
type Deliveries interface {
	// Answer takes the outcome of recipient i, as if it had been the only one, and reports
	// whether it is taken. If it is, that was the recipient's answer, and the only one. It is not
	// taken when nothing was sent that the server could deliver and something else is to be
	// tried (report.NoTransaction): then the recipient stays in the sequence, and Run
	// ends. An outcome with LastByte, and one that accepts the message, counts as taken
	// whatever is returned: it must never be sent again.
	Answer(i int, o *smtpc.Outcome) (taken bool)
	// Anew says that recipient i begins anew on a new connection: "anew: " why.
	Anew(i int, why string)
}

// Terms are what holds for one session.
type Terms struct {
	// Kept reports whether the session has had a transaction of others before. What fails
	// on it begins anew then, instead of being an answer.
	Kept bool
	// Most is how many recipients a transaction may have; 0: no limit.
	Most int
}

// An End says how a session of a sequence ended.
type End struct {
	// Why is empty when each recipient has its answer. Otherwise it is why the
	// others need another session: words for the trace. Where Outcome is nil that is a new
	// connection to the same address.
	Why string
	// Outcome is the one that was not taken: something else is to be tried.
	Outcome *smtpc.Outcome

	Transactions int  // that were begun
	Refusals     int  // replies that refused something
	Unreset      bool // the session needs Reset before it serves another transaction
}

// A Sequence is the transactions of one party. It outlives a session: what is left goes on over
// the next one. The number of its transactions is bounded: each gives a recipient its answer, or
// uses up one of the few second chances that a recipient has. One goroutine at a time
// may use it.
type Sequence struct {
	deliveries Deliveries
	recipients []recipient
	queue      []batch // has each recipient without an answer, once
}

// A recipient is what the sequence knows of one.
type recipient struct {
	answered bool
	retried  bool // its second offer counts: it was refused behind another that was accepted
	fresh    bool // it began anew once because a kept connection failed it
	regroup  bool // it began anew once because of a 421 to the RCPT of its group
	// held is a refusal for now that it got, and that holds if it cannot be offered again.
	held *smtpc.Outcome
}

// A batch is what goes in one transaction.
type batch struct {
	who   []int
	trial *trial // nil for none
}

// A trial is recipients whose message was refused together. The first of them, alone in
// its batch, shows whether that was because of what they are together.
type trial struct {
	others []int
	common []*smtpc.Outcome // the refusal of each of the others, as if alone
}

// NewSequence returns the sequence of these recipients, all different. The number of
// a recipient is its place in them.
//
// A recipient whose local part is not ASCII goes in another transaction than those
// whose is: SMTPUTF8, which it needs, belongs to MAIL (RFC 6531 section 3.4), and a
// server that does not have it would refuse all.
func NewSequence(recipients []string, d Deliveries) *Sequence {
	q := &Sequence{deliveries: d, recipients: make([]recipient, len(recipients))}
	var plain, international []int
	for i, r := range recipients {
		if isASCII(localPart(r)) {
			plain = append(plain, i)
		} else {
			international = append(international, i)
		}
	}
	for _, who := range [][]int{plain, international} {
		if len(who) > 0 {
			q.queue = append(q.queue, batch{who: who})
		}
	}
	return q
}

func localPart(recipient string) string {
	if at := strings.LastIndexByte(recipient, '@'); at >= 0 {
		return recipient[:at]
	}
	return recipient
}

func isASCII(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r > 127 }) < 0
}

// Left returns the recipients without an answer, in ascending order.
func (q *Sequence) Left() []int {
	var left []int
	for i := range q.recipients {
		if !q.recipients[i].answered {
			left = append(left, i)
		}
	}
	return left
}

// Only leaves recipient i alone in the sequence, if it has no answer yet. Others see to the rest.
func (q *Sequence) Only(i int) {
	for n := range q.recipients {
		q.recipients[n].answered = q.recipients[n].answered || n != i
	}
	q.queue = nil
	if !q.recipients[i].answered {
		q.queue = []batch{{who: []int{i}}}
	}
}

// Held returns a refusal for now that recipient i got and that is its answer if it cannot be
// offered once more, nil for none.
func (q *Sequence) Held(i int) *smtpc.Outcome { return q.recipients[i].held }

// Run sends to the recipients that are left over s, and tells the deliveries, until each has its
// answer or another session is needed.
func (q *Sequence) Run(ctx context.Context, s Sender, t Terms) End {
	r := &run{Sequence: q, sender: s, terms: t}
	for len(q.queue) > 0 && r.mayGoOn(ctx) {
		r.next(ctx)
	}
	return r.end
}

// A run is a sequence on one session.
type run struct {
	*Sequence
	sender Sender
	terms  Terms
	end    End
}

// used reports whether the session has had a transaction: its next one is made on what the
// server may have had enough of.
func (r *run) used() bool { return r.terms.Kept || r.end.Transactions > 0 }

// Why another session is needed, where no recipient has begun anew.
const (
	whyClosed  = "the kept connection was closed"
	whyTime    = "the time is over"
	whyUnreset = "RSET was not answered with 250"
	whyUsed    = "the connection takes no further transaction"

	whyDeclined = "something else is tried"
)

// mayGoOn reports whether the next transaction can be begun.
func (r *run) mayGoOn(ctx context.Context) bool {
	switch {
	case r.end.Why != "":
	case !r.used():
		return true // if the session is not usable, Send says why
	case r.end.Transactions > 0 && ctx.Err() != nil:
		r.end.Why = whyTime
	case !r.sender.Usable():
		r.end.Why = whyUsed
		if r.end.Transactions == 0 {
			r.end.Why = whyClosed
			for _, i := range r.Left() {
				r.recipients[i].fresh = true
				r.deliveries.Anew(i, whyClosed)
			}
		}
	case !r.end.Unreset:
		return true
	case r.sender.Reset(ctx) != nil || !r.sender.Usable():
		r.end.Why = whyUnreset
	default:
		r.end.Unreset = false
		return true
	}
	return false
}

// next carries out one transaction.
func (r *run) next(ctx context.Context) {
	b := r.queue[0]
	r.queue = r.queue[1:]
	if most := r.terms.Most; most > 0 && len(b.who) > most {
		r.push(batch{who: b.who[most:]})
		b.who = b.who[:most:most]
	}
	used := r.used()
	r.end.Transactions++
	o := r.sender.Send(ctx, slices.Clone(b.who))
	t := &transaction{run: r, batch: b, outcome: credible(o), used: used, stopped: ctx.Err() != nil}
	t.judge()
	t.follow()
}

// push puts batches in front of the others, in this order.
func (r *run) push(batches ...batch) { r.queue = slices.Concat(batches, r.queue) }
