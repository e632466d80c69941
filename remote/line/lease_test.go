package line

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// A refusal is a Crowded under way.
type refusal struct {
	more, done bool
	after      time.Duration
}

func (le *Lease) refuse(ctx context.Context) *refusal {
	r := &refusal{}
	start := time.Now()
	go func() {
		r.more = le.Crowded(ctx)
		r.after = time.Since(start)
		r.done = true
	}()
	synctest.Wait()
	return r
}

func TestCrowded(t *testing.T) {
	for _, c := range []struct {
		name  string
		f     func(t *testing.T, l *Line) // what there is
		then  func(t *testing.T, l *Line, others []*Lease)
		being int // connections that are being made
		more  bool
		after time.Duration
	}{
		{"alone", nil, nil, 0, false, 0},
		{"another one is past its EHLO", func(t *testing.T, l *Line) { l.fill(t, 1, to(1, "k")) }, nil, 0, true, 0},
		{"another one is kept", func(t *testing.T, l *Line) { l.kept(t, to(1, "k")) }, nil, 0, true, 0},
		{"another address", func(t *testing.T, l *Line) { l.fill(t, 1, to(2, "k")) }, nil, 0, false, 0},
		{"another one comes to be", nil, func(t *testing.T, l *Line, others []*Lease) {
			time.Sleep(4 * time.Second)
			others[1].Greeted()
		}, 2, true, 4 * time.Second},
		{"another one comes to be too late", nil, func(t *testing.T, l *Line, others []*Lease) {
			time.Sleep(5*time.Second + 1)
			others[0].Greeted()
		}, 1, false, 5 * time.Second},
		{"the others end", nil, func(t *testing.T, l *Line, others []*Lease) {
			time.Sleep(time.Second)
			others[0].End()
			time.Sleep(time.Second)
			others[1].End()
		}, 2, false, 2 * time.Second},
		{"the others are refused too", nil, func(t *testing.T, l *Line, others []*Lease) {
			time.Sleep(time.Second)
			others[0].refuse(t.Context())
		}, 1, false, time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, l *Line) {
				le := l.must(t, never, to(1, "new"))
				var others []*Lease
				for range c.being {
					others = append(others, l.must(t, never, to(1, "new")))
				}
				if c.f != nil {
					c.f(t, l)
				}
				r := le.refuse(t.Context())
				if c.then != nil {
					c.then(t, l, others)
				}
				synctest.Wait()
				if !r.done || r.more != c.more || r.after != c.after {
					t.Errorf("done %v: more %v after %v", r.done, r.more, r.after)
				}
				sound(t, l)
				busy := l.Stats().Busy
				le.End()
				if n := busy - l.Stats().Busy; n != map[bool]int{true: 0, false: 1}[c.more] {
					t.Errorf("%d connections ended by End", n)
				}
			})
		})
	}
}

func TestCrowded_context(t *testing.T) {
	bubble(t, func(t *testing.T, l *Line) {
		le := l.must(t, never, to(1, "k"))
		l.must(t, never, to(1, "k"))
		ctx, cancel := context.WithCancel(t.Context())
		r := le.refuse(ctx)
		cancel()
		synctest.Wait()
		if !r.done || r.more {
			t.Errorf("%+v", r)
		}
		le.End()
		if le.Crowded(t.Context()) {
			t.Error("a lease that has ended")
		}
	})
}

// A server that takes 3 connections refuses the others, which were begun at the same time.
func TestCrowded_window(t *testing.T) {
	for _, entry := range []string{"", ".example"} {
		bubble(t, func(t *testing.T, l *Line) {
			w := to(1, "k").by(entry, 10)
			leases := l.fill(t, 3, w)
			a, b := l.must(t, never, w), l.must(t, never, w)
			ra, rb := a.refuse(t.Context()), b.refuse(t.Context())
			if !ra.more || !rb.more {
				t.Fatal("not crowded")
			}
			_, err := l.Get(t.Context(), never, []Want{w})
			full(t, err, 3)
			leases[0].Accepted()
			time.Sleep(59 * time.Second)
			leases[0].Accepted()
			_, err = l.Get(t.Context(), never, []Want{w})
			full(t, err, 3)
			time.Sleep(time.Second)
			leases[0].Accepted()
			l.must(t, never, w)
			_, err = l.Get(t.Context(), never, []Want{w})
			full(t, err, 4)
		})
	}
}

// Another address of the same entry takes what this one does not.
func TestCrowded_address(t *testing.T) {
	bubble(t, func(t *testing.T, l *Line) {
		here, there := to(1, "k").by(".example", 10), to(2, "k").by(".example", 10)
		l.fill(t, 2, here)
		elsewhere := l.fill(t, 2, there)
		if le := l.must(t, never, here); !le.Crowded(t.Context()) {
			t.Fatal("not crowded")
		}
		elsewhere[0].End()
		if l.hasRoom(here) || !l.hasRoom(there) {
			t.Error("the address that wants no more is asked for more")
		}
		v := l.goes(t.Context(), patient, here)
		elsewhere[1].End()
		if v.done {
			t.Error("served")
		}
		if _, err := l.Get(t.Context(), never, []Want{here}); err == nil {
			t.Error("room")
		} else {
			full(t, err, 2)
		}
	})
}

func TestCrowded_back(t *testing.T) {
	bubble(t, func(t *testing.T, l *Line) {
		w := to(1, "k")
		leases := l.fill(t, 4, w)
		le := l.must(t, never, w)
		early := l.goes(t.Context(), patient, w)
		time.Sleep(15 * time.Second)
		if !le.Crowded(t.Context()) {
			t.Fatal("not crowded")
		}
		// It is let in although the first has waited for more than a third, and it is the first.
		c := patient
		c.Back = le
		back := l.goes(t.Context(), c, w)
		if back.done || back.position != 1 {
			t.Errorf("done %v, position %d", back.done, back.position)
		}
		time.Sleep(10 * time.Second)
		leases[0].End()
		if !back.served() || early.done {
			t.Error("not in the old order")
		}
		// Its waits count together.
		leases[1].End()
		leases[2].End()
		early.served()
		l.must(t, never, w)
		if !back.lease.Crowded(t.Context()) {
			t.Fatal("not crowded")
		}
		start := time.Now()
		c.Back = back.lease
		_, err := l.Get(t.Context(), c, []Want{w})
		full(t, err, 3)
		if d := time.Since(start); d != 20*time.Second {
			t.Errorf("waited for %v more", d)
		}
		c.Back = &Lease{waited: 30 * time.Second}
		_, err = l.Get(t.Context(), c, []Want{w})
		full(t, err, 3)
	})
}
