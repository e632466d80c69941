package line

import (
	"container/list"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// patience is the part of its wait that the first in line may have waited, before nobody else is
// let in: a third. Whoever is let in then still has a chance.
const patience = 3

// A FullError says that a caller was not let into the line, or has waited in vain.
type FullError struct {
	Host    string     // the exchanger's name, or its address
	Addr    netip.Addr // its address
	N       int        // connections that it may have: by its window, or by its entry
	Seconds int        // for which the caller would have waited
}

func (e *FullError) Error() string {
	return fmt.Sprintf("%s (%v) has as many connections from here as it may (%d), and none came free in %d seconds",
		e.Host, e.Addr, e.N, e.Seconds)
}

// A waiter is a caller of Get.
type waiter struct {
	caller  Caller
	wants   []Want
	places  []place // of wants, as they are now
	arrived uint64  // the order of the line
	waited  time.Duration
	since   time.Time     // when it went into the line, while it is there
	seats   []seat        // in the line of each account that it wants
	left    time.Duration // of its wait when it went into the line
	let     bool          // it was let in
	told    bool          // it knows its position
	granted chan *grant
	dead    *conn // a kept session that was no good; it still counts
}

type seat struct {
	account *account
	at      *list.Element
}

// A grant is what a waiter gets.
type grant struct {
	want    int
	conn    *conn
	kept    bool    // conn has a session that must be woken
	victims []*conn // kept connections that must end first; they count no more
}

// arrive brings the limits of w into force, and gives it its place in the order. l.mu is held.
func (l *Line) arrive(w *waiter) {
	l.resolve(w, true)
	if l.settle(); len(l.doomed) > 0 {
		// Kept sessions are above a limit that was lowered. Their places may be for w.
		l.unlock()
		l.mu.Lock()
		l.resolve(w, false)
	}
	if b := w.caller.Back; b != nil {
		w.arrived, w.waited, w.let = b.arrived, b.waited, true
		return
	}
	w.arrived = l.number()
}

// resolve finds the accounts of w. decide: the limits that w brings are in force from now on.
func (l *Line) resolve(w *waiter, decide bool) {
	w.places = w.places[:0]
	for _, want := range w.wants {
		w.places = append(w.places, l.place(want, decide))
	}
}

// pick takes what w can have at once: a kept session, room, or the room of a kept session.
func (l *Line) pick(w *waiter) *grant {
	for i, want := range w.wants {
		if c := l.fitting(w.places[i], want); c != nil {
			l.take(c, w.places[i], want)
			return &grant{want: i, conn: c, kept: true}
		}
	}
	for i, want := range w.wants {
		if w.places[i].room() > 0 {
			return &grant{want: i, conn: l.connect(w.places[i], want)}
		}
	}
	for i, want := range w.wants {
		if victims := l.victims(w.places[i]); victims != nil {
			for _, c := range victims {
				l.leaveIdle(c)
				l.release(c)
			}
			return &grant{want: i, conn: l.connect(w.places[i], want), victims: victims}
		}
	}
	return nil
}

// touch says that something may have come free at a for those in line. l.mu is held.
func (l *Line) touch(a *account) {
	if a.waiters.Len() > 0 && !slices.Contains(l.touched, a) {
		l.touched = append(l.touched, a)
	}
}

// settle gives those in line what has come free, first come, first served. Where several accounts
// were touched, the order is that of all who wait for any of them. l.mu is held.
func (l *Line) settle() {
	for len(l.touched) > 0 {
		var next []*list.Element // to be asked, by account
		touched := l.touched
		l.touched = nil
		for _, a := range touched {
			next = append(next, a.waiters.Front())
		}
		for w := first(touched, next); w != nil && len(l.touched) == 0; w = first(touched, next) {
			l.grant(w, l.pick(w))
		}
		if len(l.touched) > 0 {
			// What w has got has ended something that others wait for. They are asked again.
			for _, a := range touched {
				l.touch(a)
			}
		}
	}
}

// first returns the first of those who are to be asked, and goes on to the one after it.
// nil: there is nobody, or nothing to give.
func first(accounts []*account, next []*list.Element) (w *waiter) {
	for i, at := range next {
		if at == nil || !accounts[i].gives() {
			continue
		}
		if v := at.Value.(*waiter); w == nil || v.arrived < w.arrived {
			w = v
		}
	}
	for i, at := range next {
		if at != nil && at.Value == any(w) {
			next[i] = at.Next()
		}
	}
	return w
}

// grant hands g to w, and w leaves the line. nil: it stays.
func (l *Line) grant(w *waiter, g *grant) {
	if g != nil {
		l.leave(w)
		w.granted <- g
	}
}

// admit decides whether w may go into the line.
func (l *Line) admit(w *waiter) error {
	switch {
	case w.caller.Always:
	case w.caller.Wait <= w.waited:
		return w.full()
	case w.let:
	case l.blocked(w):
		return w.full()
	}
	w.let = true
	return nil
}

// blocked reports whether the first in line has waited too long, wherever w would wait.
func (l *Line) blocked(w *waiter) bool {
	for _, p := range w.places {
		a, _ := p.bound()
		first := a.waiters.Front()
		if first == nil || first.Value.(*waiter).total(l.now()) <= w.caller.Wait/patience {
			return false
		}
	}
	return true
}

// total returns how long w, which is in line, has waited.
func (w *waiter) total(now time.Time) time.Duration { return w.waited + now.Sub(w.since) }

func (w *waiter) full() *FullError {
	_, n := w.places[0].bound()
	first := w.wants[0]
	e := &FullError{Host: first.Exchanger, Addr: first.Addr.Addr(), N: n, Seconds: int(w.caller.Wait / time.Second)}
	if e.Host == "" {
		e.Host = e.Addr.String()
	}
	return e
}

// join puts w into the line of each account that it wants. It returns the position for the first want.
func (l *Line) join(w *waiter) (position int) {
	w.since, w.left = l.now(), w.caller.Wait-w.waited
	l.waiting++
	for _, p := range w.places {
		p.each(func(a *account) {
			for _, s := range w.seats {
				if s.account == a {
					return
				}
			}
			w.seats = append(w.seats, seat{a, a.seat(w)})
			l.rest(a)
		})
	}
	a, _ := w.places[0].bound()
	position = a.waiters.Len()
	for at := a.waiters.Back(); at.Value != any(w); at = at.Prev() {
		position-- // who goes back to an old place is not the last
	}
	return position
}

// seat puts w into the line of a, before all who arrived later.
func (a *account) seat(w *waiter) *list.Element {
	at := a.waiters.Back()
	for at != nil && at.Value.(*waiter).arrived > w.arrived {
		at = at.Prev()
	}
	if at == nil {
		return a.waiters.PushFront(w)
	}
	return a.waiters.InsertAfter(w, at)
}

// leave takes w out of the line.
func (l *Line) leave(w *waiter) {
	l.waiting--
	w.waited = w.total(l.now())
	for _, s := range w.seats {
		s.account.waiters.Remove(s.at)
		l.rest(s.account)
	}
	w.seats = nil
}

// wait returns what w is given. The error says that w has waited for too long, or why ctx has ended.
func (l *Line) wait(ctx context.Context, w *waiter) (*grant, error) {
	var over <-chan time.Time
	if w.caller.Wait > 0 {
		timer := time.NewTimer(w.left)
		defer timer.Stop()
		over = timer.C
	}
	select {
	case g := <-w.granted:
		return g, nil
	case <-over:
	case <-ctx.Done():
	}
	l.mu.Lock()
	defer l.unlock()
	select {
	case g := <-w.granted: // just in time
		return g, nil
	default:
	}
	l.leave(w)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return nil, w.full()
}
