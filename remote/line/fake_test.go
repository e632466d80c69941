package line

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"nightmare.mail/mxf/control"
)

// A fake is a session without a connection.
type fake struct {
	mu       sync.Mutex
	watch    func()
	dead     bool // the server has closed, and the watch has not seen it
	wakes    int  // that have found it usable
	quits    int
	panics   bool
	wrong    []string // calls that must not come
	whenQuit func()
}

func (f *fake) Watch(lost func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.watch != nil || f.quits > 0 {
		f.wrong = append(f.wrong, "Watch")
	}
	f.watch = lost
}

func (f *fake) Wake() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.quits > 0 {
		f.wrong = append(f.wrong, "Wake after Quit")
	}
	f.watch = nil
	if !f.dead {
		f.wakes++
	}
	return !f.dead
}

func (f *fake) Quit() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.quits++
	if f.quits > 1 || f.watch != nil {
		f.wrong = append(f.wrong, "Quit")
	}
	if f.whenQuit != nil {
		f.whenQuit()
	}
	if f.panics {
		panic("quit")
	}
}

// die has the server close the connection, seen by the watch.
func (f *fake) die() {
	f.mu.Lock()
	lost := f.watch
	f.watch, f.dead = nil, true
	f.mu.Unlock()
	if lost != nil {
		lost()
	}
}

func (f *fake) ended() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.quits == 1
}

func (f *fake) check(t testing.TB) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.wrong) > 0 {
		t.Errorf("calls of a session that must not come: %v", f.wrong)
	}
}

func addr(n int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(n)}), 25)
}

// to is a want by the empty entry.
func to(n int, key string) Want {
	return Want{Key: key, Addr: addr(n), Exchanger: fmt.Sprintf("mx%d.example", n), Keepable: true,
		Limit: control.ConnectionLimit{Connections: 20, Messages: 100, Recipients: 100}}
}

// by is w under a limit.
func (w Want) by(entry string, connections int) Want {
	w.Limit.Entry, w.Limit.Connections = entry, connections
	return w
}

var (
	patient = Caller{Wait: 30 * time.Second}
	never   = Caller{}
	keeping = Keeping{Idle: 5 * time.Second}
)

// bubble runs f with a line of 40 slots, and with a clock that is not the world's.
func bubble(t *testing.T, f func(t *testing.T, l *Line)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l := New(Config{Slots: 40, Kept: 40})
		f(t, l)
		l.Close()
		synctest.Wait()
		sound(t, l)
	})
}

// sound checks the invariant of the line, and its books.
func sound(t testing.TB, l *Line) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	total, waiters := 0, map[*waiter]bool{}
	for n, a := range l.accounts {
		if a.name != n || a.connections < 0 || a.greeted < 0 || a.crowded < 0 || len(a.idle) > a.connections {
			t.Errorf("account %v: %+v", n, a)
		}
		if free := a.connections == 0 && a.waiters.Len() == 0; free != (a.unused != nil) {
			t.Errorf("account %v: free %v, among the unused %v", n, free, a.unused != nil)
		}
		if n.entry == "" {
			total += a.connections
		}
		var last uint64
		for at := a.waiters.Front(); at != nil; at = at.Next() {
			w := at.Value.(*waiter)
			if w.arrived <= last {
				t.Errorf("account %v: the line is out of order", n)
			}
			last = w.arrived
			waiters[w] = true
		}
	}
	if total != l.busy+l.idle.Len() {
		t.Errorf("%d connections, %d busy, %d idle", total, l.busy, l.idle.Len())
	}
	if len(waiters) != l.waiting {
		t.Errorf("%d waiters, %d waiting", len(waiters), l.waiting)
	}
	for w := range waiters {
		for i, want := range w.wants {
			p := w.places[i]
			if l.fitting(p, want) != nil || p.room() > 0 || l.victims(p) != nil {
				t.Errorf("caller %d waits for what is free at %v", w.arrived, want.Addr)
			}
		}
	}
}

func (l *Line) must(t testing.TB, c Caller, wants ...Want) *Lease {
	t.Helper()
	le, err := l.Get(t.Context(), c, wants)
	if err != nil {
		t.Fatal(err)
	}
	return le
}

// fill takes n connections for w, past their EHLO.
func (l *Line) fill(t testing.TB, n int, w Want) []*Lease {
	t.Helper()
	var all []*Lease
	for range n {
		le := l.must(t, never, w)
		le.Greeted()
		all = append(all, le)
	}
	return all
}

// kept leaves a kept session for w.
func (l *Line) kept(t testing.TB, w Want) *fake {
	t.Helper()
	s := &fake{}
	t.Cleanup(func() { s.check(t) })
	l.must(t, never, w).Keep(s, keeping)
	return s
}

// A visit is a Get under way.
type visit struct {
	lease    *Lease
	err      error
	position int
	done     bool
}

// goes has a caller come, and waits until it has a lease, or waits.
func (l *Line) goes(ctx context.Context, c Caller, wants ...Want) *visit {
	v := &visit{}
	c.Position = func(_ netip.AddrPort, n int) { v.position = n }
	go func() {
		v.lease, v.err = l.Get(ctx, c, wants)
		v.done = true
	}()
	synctest.Wait()
	return v
}

func (v *visit) served() bool {
	synctest.Wait()
	return v.done && v.err == nil
}

func (v *visit) failed() error {
	synctest.Wait()
	return v.err
}

// full checks that err is a FullError of n.
func full(t testing.TB, err error, n int) {
	t.Helper()
	var e *FullError
	if !errors.As(err, &e) || e.N != n {
		t.Errorf("got %v, want a full line of %d", err, n)
	}
}

// hasKept reports whether a kept session fits w.
func (l *Line) hasKept(w Want) bool {
	l.mu.Lock()
	defer l.unlock()
	return l.fitting(l.place(w, false), w) != nil
}

// hasRoom reports whether a new connection could be made at once, by ending a kept session if that is needed.
func (l *Line) hasRoom(w Want) bool {
	l.mu.Lock()
	defer l.unlock()
	p := l.place(w, false)
	return p.room() > 0 || l.victims(p) != nil
}
