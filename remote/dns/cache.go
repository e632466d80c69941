package dns

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"nightmare.mail/mxf/remote/memory"
	"nightmare.mail/mxf/remote/stack"
)

// The bounds of a Cache.
const (
	// longestKept bounds the TTL of records: exchangers move, and whoever moves one waits for
	// no longer than this.
	longestKept = time.Hour
	// longestDenied bounds the TTL of a denial (RFC 2308 section 5 recommends hours): mail is
	// often sent to a domain a moment after it was set up.
	longestDenied = 5 * time.Minute
	// failureKept is how long a failure is kept (RFC 2308 section 7 allows five minutes): the
	// deliveries to a dead zone that begin together ask once, and nobody waits for the next
	// try of a resolver that has come back.
	failureKept = 10 * time.Second
	// maxAnswers and maxAnswerBytes bound the answers that are kept: an answer can have 64 KB.
	maxAnswers     = 10_000
	maxAnswerBytes = 32 << 20
	// answerBytes is what an answer takes beside its records, and recordBytes what a record
	// takes beside its text, about.
	answerBytes = 512
	recordBytes = 32
)

// Counts is how often questions were asked. It may be read at any time.
type Counts struct {
	Asked atomic.Int64 // of name servers
	Known atomic.Int64 // answered by what is kept, or by a lookup that was under way
}

// A Cache is a Resolver that keeps the answers of another one: records for their TTL, at most
// an hour; denials as RFC 2308 says, at most five minutes; failures for ten seconds. It asks
// the same question once at a time, and all who want to know get the answer, whatever its TTL.
//
// A lookup lasts as long as anybody waits for it. Each caller waits as long as its own context
// lasts, and gets, when that ends, the answer that a lookup of its own would have come to. A
// lookup that nobody waited for to its end says nothing to others. A panic of the other
// Resolver is a failure.
//
// An answer that was kept took no time, and has no Notes.
type Cache struct {
	under  Resolver
	now    func() time.Time
	counts *Counts

	mu      sync.Mutex
	answers memory.Map[Question, *Answer]
	flights map[Question]*flight // under way
}

// NewCache returns an empty Cache in front of under. now is the clock, counts are those that
// it adds to.
func NewCache(under Resolver, now func() time.Time, counts *Counts) *Cache {
	return &Cache{under: under, now: now, counts: counts, flights: make(map[Question]*flight),
		answers: memory.Map[Question, *Answer]{Values: maxAnswers, Bytes: maxAnswerBytes}}
}

// Forget drops all answers. Those that are under way are not kept either.
func (c *Cache) Forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answers.Clear()
	clear(c.flights)
}

// Lookup returns the answer to q.
func (c *Cache) Lookup(ctx context.Context, q Question) *Answer {
	began := c.now()
	me := &asker{}
	me.share, _ = ctx.Value(shareKey{}).(queuer)
	known, f := c.join(ctx, q, me, began)
	if known != nil {
		return known
	}
	defer c.leave(ctx, f, me)
	select {
	case <-f.landed:
		return f.answer
	case <-ctx.Done():
	}
	select {
	case <-f.landed:
		return f.answer
	default:
	}
	a := f.cutShort(ctx)
	a.Took = c.now().Sub(began)
	return a
}

// join returns the answer that is known, or the lookup under way that me waits for now.
func (c *Cache) join(ctx context.Context, q Question, me *asker, now time.Time) (*Answer, *flight) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if a, ok := c.answers.Get(q, now); ok {
		c.counts.Known.Add(1)
		return a, nil
	}
	f := c.flights[q]
	if f == nil {
		c.counts.Asked.Add(1)
		f = &flight{question: q, askers: make(map[*asker]bool), landed: make(chan struct{})}
		ctx, f.cancel = context.WithCancelCause(context.WithValue(context.WithoutCancel(ctx), shareKey{}, f))
		c.flights[q] = f
		go c.fly(ctx, f)
	} else {
		c.counts.Known.Add(1)
	}
	f.enter(me)
	return nil, f
}

// leave has me wait no longer. What nobody waits for ends, and is not joined any more.
func (c *Cache) leave(ctx context.Context, f *flight, me *asker) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.leave(me) > 0 {
		return
	}
	if c.flights[f.question] == f {
		delete(c.flights, f.question)
	}
	f.cancel(context.Cause(ctx))
}

// fly carries a lookup out, and keeps its answer.
func (c *Cache) fly(ctx context.Context, f *flight) {
	stack.Grow()
	defer func() {
		if p := recover(); p != nil {
			f.answer = &Answer{Question: f.question, Err: fmt.Errorf("panic during lookup: %v", p)}
		}
		c.land(f)
	}()
	f.answer = c.under.Lookup(ctx, f.question)
}

// land hands the answer to those who wait for it. It is kept if the lookup was not given up.
func (c *Cache) land(f *flight) {
	now := c.now()
	kept := *f.answer
	kept.Took, kept.Notes = 0, nil
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.flights[f.question] == f {
		delete(c.flights, f.question)
		c.answers.Put(f.question, &kept, now, kept.keptFor(), kept.bytes())
	}
	close(f.landed)
}

// keptFor is how long an answer is kept.
func (a *Answer) keptFor() time.Duration {
	switch {
	case a.Failed():
		return failureKept
	case a.Len() == 0:
		return min(a.TTL, longestDenied)
	}
	return min(a.TTL, longestKept)
}

// bytes is what an answer takes, about.
func (a *Answer) bytes() int64 {
	n := answerBytes + len(a.Question.Name) + len(a.End) + len(a.rest) + recordBytes*(a.Len()-a.More)
	for i := range a.MX {
		n += len(a.MX[i].Exchanger)
	}
	for i := range a.SRV {
		n += len(a.SRV[i].Target)
	}
	for i := range a.TLSA {
		n += len(a.TLSA[i].Data)
	}
	for _, texts := range [][]string{a.CNAME, a.PTR, a.TXT} {
		for _, text := range texts {
			n += len(text)
		}
	}
	return int64(n)
}

// A flight is a lookup under way, for one caller or several.
type flight struct {
	question Question
	cancel   context.CancelCauseFunc
	soFar    atomic.Pointer[Answer] // what it will have come to for those who leave now
	landed   chan struct{}          // closed when there is an answer
	answer   *Answer                // set before landed is closed

	mu      sync.Mutex
	askers  map[*asker]bool
	waiting int // lookups that wait for their first socket: one at most
}

// An asker is somebody who waits for a flight.
type asker struct {
	share queuer // the part of its time that it waits; nil: all of it
	leave func() // of the queue that its share knows of; nil: the flight is in none
}

func (a *asker) enterQueue() {
	if a.share != nil {
		a.leave = a.share.queue()
	}
}

func (a *asker) leaveQueue() {
	if a.leave != nil {
		a.leave()
		a.leave = nil
	}
}

func (f *flight) enter(a *asker) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.askers[a] = true
	if f.waiting > 0 {
		a.enterQueue()
	}
}

// leave returns how many still wait for f.
func (f *flight) leave(a *asker) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.askers, a)
	a.leaveQueue()
	return len(f.askers)
}

// queue stops the clock of each share of those who wait for f.
func (f *flight) queue() (leave func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.waiting++; f.waiting == 1 {
		for a := range f.askers {
			a.enterQueue()
		}
	}
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.waiting--; f.waiting == 0 {
			for a := range f.askers {
				a.leaveQueue()
			}
		}
	}
}

// cutShort is the answer for one whose context has ended.
func (f *flight) cutShort(ctx context.Context) *Answer {
	a := Answer{Question: f.question, Err: errors.New("no answer in time")}
	if soFar := f.soFar.Load(); soFar != nil {
		a = *soFar
	}
	if cause := ctx.Err(); errors.Is(cause, context.DeadlineExceeded) || errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
		a.Err = &cutShort{a.Err, context.DeadlineExceeded}
	} else {
		a.Err = &cutShort{errNotWaitedFor, cause}
	}
	return &a
}
