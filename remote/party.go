package remote

import (
	"cmp"
	"context"
	"errors"
	"strings"

	"nightmare.mail/mxf/control/domain"
	"nightmare.mail/mxf/remote/report"
	"nightmare.mail/mxf/remote/together"
	"nightmare.mail/mxf/remote/transport"
	"nightmare.mail/mxf/smtpc"
)

// A Party is the deliveries that a [Job] is carried out for, where others may go with the first, that
// of Recipients. One goroutine calls its methods, except LastByte.
type Party interface {
	// Take ends the joining, and returns the recipients, the first and at most most in all; 0: no
	// limit. The others are carried out by themselves. quiet: it first waits a moment for others. Nil:
	// nothing is to be sent any more.
	Take(ctx context.Context, most int, quiet bool) []string
	// Leave has some, by index in what Take returned, carried out by themselves.
	Leave(recipients []int)
	// LastByte is called before the write of the message's last byte to these begins.
	LastByte(recipients []int)
	// NotSent takes LastByte back.
	NotSent(recipients []int)
	// Answered has the reports of some, each once.
	Answered(answers []Answer)
}

// An Answer is the reports of one recipient, by index in what Take returned.
type Answer struct {
	Recipient int
	Stream    report.Stream
}

// Apart reports whether a delivery must go by itself: something in it cannot be sent, and
// the others must not be refused for that.
func Apart(host, sender, recipient string) bool {
	return strings.ContainsAny(host+sender+recipient, domain.Forbidden) || !smtpc.IsRecipient(recipient)
}

// A party is that of a job on its walk: who has an answer, and who is to get one.
type party struct {
	Party
	walk     *walk
	taken    []string
	sequence *together.Sequence // nil: others may still join

	visit   *visit                // of the attempt under way
	session *transport.Session    // of it
	none    error                 // why the attempt under way has given no answer: a *report.NoTransaction
	ready   []Answer              // not given yet
	anew    string                // why some begin anew
	held    map[int]report.Stream // what those who are left get if nothing else comes of them
}

func newParty(w *walk) *party {
	if w.job.Party == nil {
		return nil
	}
	return &party{Party: w.job.Party, walk: w, held: make(map[int]report.Stream)}
}

// Begin implements transport.Party.
func (p *party) Begin(ctx context.Context, most int, quiet bool) *together.Sequence {
	if p.sequence != nil {
		return p.sequence
	}
	if p.taken = p.Take(ctx, most, quiet); len(p.taken) > 0 {
		p.sequence = together.NewSequence(p.taken, p)
	}
	return p.sequence
}

// Recipient implements transport.Party.
func (p *party) Recipient(n int) string { return p.taken[n] }

// Further implements transport.Party.
func (p *party) Further() {
	if len(p.ready) > 0 {
		p.Answered(p.ready)
	}
	p.ready = nil
}

// Answer implements together.Deliveries.
func (p *party) Answer(n int, o *smtpc.Outcome) (taken bool) {
	stream, err := p.session.Report(o)
	if none := new(report.NoTransaction); errors.As(err, &none) {
		p.none = err
		return false
	}
	p.ready = append(p.ready, Answer{n, p.walk.final(p.visit, stream, err)})
	return true
}

// Anew implements together.Deliveries.
func (p *party) Anew(_ int, why string) { p.anew = why }

// end answers those who were refused for now and could not be offered once more.
func (p *party) end() {
	for _, n := range p.left() {
		if stream, held := p.held[n]; held {
			p.ready = append(p.ready, Answer{n, stream})
		}
	}
	p.Further()
}

// left are those without an answer; nil where others may still join.
func (p *party) left() []int {
	if p.sequence == nil {
		return nil
	}
	return p.sequence.Left()
}

// alone readies an attempt of a program, which gets one recipient: the first that is left. The others are
// carried out by themselves. The program may send the last byte at any time. done says that it has ended,
// and how. The error is the cause of ctx: nothing is to be sent any more.
func (p *party) alone(ctx context.Context, m *transport.Mail) (done func(error), err error) {
	if p == nil {
		return func(error) {}, nil
	}
	if p.Begin(ctx, 1, false) == nil {
		return nil, cmp.Or(context.Cause(ctx), context.Canceled)
	}
	left := p.left()
	p.Leave(left[1:])
	p.sequence.Only(left[0])
	m.Recipients = []string{p.taken[left[0]]}
	p.LastByte(left[:1])
	return func(err error) {
		if none := new(report.NoTransaction); errors.As(err, &none) {
			p.NotSent(left[:1])
		}
	}, nil
}
