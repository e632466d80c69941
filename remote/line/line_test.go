package line

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestGet_order(t *testing.T) {
	for _, c := range []struct {
		name    string
		prepare func(t *testing.T, l *Line)
		want    int
		kept    bool
	}{
		{"room for the first", func(*testing.T, *Line) {}, 0, false},
		{"kept for the second comes before room for the first", func(t *testing.T, l *Line) { l.kept(t, to(2, "k")) }, 1, true},
		{"kept for both", func(t *testing.T, l *Line) { l.kept(t, to(1, "k")); l.kept(t, to(2, "k")) }, 0, true},
		{"kept with another key", func(t *testing.T, l *Line) { l.kept(t, to(2, "other")) }, 0, false},
		{"the first is full", func(t *testing.T, l *Line) { l.fill(t, 5, to(1, "k")) }, 1, false},
		{"the first is full by a kept session of another key", func(t *testing.T, l *Line) {
			l.fill(t, 4, to(1, "k"))
			l.kept(t, to(1, "other"))
		}, 1, false},
		{"all are full, a kept session makes room", func(t *testing.T, l *Line) {
			l.fill(t, 5, to(1, "k"))
			l.fill(t, 4, to(2, "k"))
			l.kept(t, to(2, "other"))
		}, 1, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, l *Line) {
				c.prepare(t, l)
				le := l.must(t, never, to(1, "k"), to(2, "k"))
				if le.Want != c.want || (le.Session() != nil) != c.kept {
					t.Errorf("got want %d, session %v", le.Want, le.Session())
				}
				sound(t, l)
			})
		})
	}
}

func TestGet_nothing(t *testing.T) {
	l := New(Config{Slots: 1, Kept: 1})
	if _, err := l.Get(t.Context(), never, nil); err == nil {
		t.Error("nowhere to connect, and no error")
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("why")
	cancel(why)
	if _, err := l.Get(ctx, never, []Want{to(1, "k")}); err != why {
		t.Errorf("got %v", err)
	}
}

func TestLimits(t *testing.T) {
	for _, c := range []struct {
		name  string
		slots int
		wants []Want
		most  int // connections, however large the window
	}{
		{"half of the slots", 14, []Want{to(1, "k")}, 7},
		{"half of the slots, rounded down", 15, []Want{to(1, "k")}, 7},
		{"at least one", 1, []Want{to(1, "k")}, 1},
		{"the empty entry", 100, []Want{to(1, "k").by("", 8)}, 8},
		{"the empty entry counts each address for itself", 100, []Want{to(1, "k").by("", 8), to(2, "k").by("", 8)}, 16},
		{"another entry counts all together", 100, []Want{to(1, "k").by(".example", 8), to(2, "k").by(".example", 8)}, 8},
		{"another entry may have all slots", 10, []Want{to(1, "k").by(".example", 9)}, 9},
		{"two entries", 10, []Want{to(1, "k").by(".example", 9), to(2, "k").by("mx.example", 3)}, 12},
		{"one", 100, []Want{to(1, "k").by("", 1)}, 1},
		{"what is not kept counts too", 100, []Want{{Addr: addr(1)}, to(1, "k").by("", 1)}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, l *Line) {
				l.slots = c.slots
				n := 0
				for {
					le, err := l.Get(t.Context(), never, c.wants)
					if err != nil {
						break
					}
					for range 30 {
						le.Accepted()
					}
					n++
				}
				if n != c.most {
					t.Errorf("%d connections, want %d", n, c.most)
				}
			})
		})
	}
}

func TestLimits_change(t *testing.T) {
	bubble(t, func(t *testing.T, l *Line) {
		w := to(1, "k").by("", 4)
		leases := l.fill(t, 4, w)
		waiting := l.goes(t.Context(), patient, w)
		// The next decision is by the limit that is raised, and those in line come first.
		late := l.goes(t.Context(), patient, w.by("", 5))
		if !waiting.served() || late.done {
			t.Errorf("served %v %v", waiting.done, late.done)
		}
		// A lower limit ends what is kept above it.
		s := &fake{}
		if le := l.goes(t.Context(), never, w.by("", 2)); le.err == nil {
			t.Error("room above the limit")
		}
		leases[0].Keep(s, keeping)
		if !s.ended() {
			t.Error("a session above the limit is kept")
		}
		for _, le := range leases[1:] {
			le.End()
		}
		if late.served(); !late.done {
			t.Error("room, and the caller waits")
		}
	})
}

func TestLimits_lowered(t *testing.T) {
	bubble(t, func(t *testing.T, l *Line) {
		w := to(1, "k")
		var kept []*fake
		for _, le := range l.fill(t, 5, w) {
			s := &fake{}
			le.Keep(s, keeping)
			kept = append(kept, s)
		}
		le := l.must(t, never, w.by("", 2))
		if le.Session() != kept[4] {
			t.Error("not the one that was used last")
		}
		for i, s := range kept {
			if s.ended() != (i < 3) {
				t.Errorf("session %d ended: %v", i, s.ended())
			}
		}
	})
}

func TestEntry_change(t *testing.T) {
	bubble(t, func(t *testing.T, l *Line) {
		s := l.kept(t, to(1, "k"))
		full1 := l.must(t, never, to(2, "k").by(".example", 1))
		// The kept session would be one too many for the entry that it counts for now.
		if _, err := l.Get(t.Context(), never, []Want{to(1, "k").by(".example", 1)}); err == nil {
			t.Error("an entry has more than it may")
		}
		full1.End()
		le := l.must(t, never, to(1, "k").by(".example", 1))
		if le.Session() != s {
			t.Error("the kept session was not found under another entry")
		}
		if l.hasRoom(to(2, "k").by(".example", 1)) {
			t.Error("the session does not count for its new entry")
		}
		waiting := l.goes(t.Context(), patient, to(2, "k").by(".example", 1))
		le.Keep(s, keeping)
		if !waiting.served() || !s.ended() {
			t.Error("the session has not made room in its entry")
		}
		waiting.lease.Keep(&fake{}, keeping)
		if le := l.must(t, never, to(2, "k")); le.Session() == nil || !l.hasRoom(to(1, "k").by(".example", 1)) {
			t.Error("the session still counts for the entry")
		}
		sound(t, l)
	})
}

func TestWindow(t *testing.T) {
	room := func(l *Line, w Want) int {
		l.mu.Lock()
		defer l.unlock()
		return l.place(w, true).room()
	}
	for _, c := range []struct {
		name string
		f    func(t *testing.T, l *Line, w Want)
		want int // room
	}{
		{"5 at first", func(*testing.T, *Line, Want) {}, 5},
		{"one more for each accepted message", func(t *testing.T, l *Line, w Want) {
			le := l.must(t, never, w)
			le.Accepted()
			le.Accepted()
			le.End()
			le.Accepted() // the lease has ended
		}, 7},
		{"not for a refused one", func(t *testing.T, l *Line, w Want) {
			le := l.must(t, never, w)
			le.Refused(3)
			le.End()
		}, 5},
		{"never above the entry", func(t *testing.T, l *Line, w Want) {
			le := l.must(t, never, w)
			for range 100 {
				le.Accepted()
			}
			le.End()
		}, 20},
		{"known for 599 s", func(t *testing.T, l *Line, w Want) {
			le := l.must(t, never, w)
			le.Accepted()
			le.End()
			time.Sleep(599 * time.Second)
		}, 6},
		{"forgotten after 600 s", func(t *testing.T, l *Line, w Want) {
			le := l.must(t, never, w)
			le.Accepted()
			le.End()
			time.Sleep(600 * time.Second)
		}, 5},
		{"not forgotten with a connection", func(t *testing.T, l *Line, w Want) {
			le := l.must(t, never, w)
			le.Accepted()
			time.Sleep(6000 * time.Second)
			le.End()
		}, 6},
		{"forgotten at SIGHUP", func(t *testing.T, l *Line, w Want) {
			le := l.must(t, never, w)
			le.Accepted()
			l.Forget()
			le.End()
		}, 5},
	} {
		for _, entry := range []string{"", ".example"} {
			t.Run(c.name+" "+entry, func(t *testing.T) {
				bubble(t, func(t *testing.T, l *Line) {
					w := to(1, "k").by(entry, 20)
					c.f(t, l, w)
					if n := room(l, w); n != c.want {
						t.Errorf("room for %d, want %d", n, c.want)
					}
				})
			})
		}
	}
}

func TestLine_fifo(t *testing.T) {
	bubble(t, func(t *testing.T, l *Line) {
		leases := l.fill(t, 5, to(1, "k"))
		a := l.goes(t.Context(), patient, to(1, "k"))
		b := l.goes(t.Context(), patient, to(1, "k"))
		c := l.goes(t.Context(), patient, to(1, "other"))
		if a.position != 1 || b.position != 2 || c.position != 3 {
			t.Errorf("positions %d %d %d", a.position, b.position, c.position)
		}
		leases[0].End()
		if !a.served() || b.done || c.done {
			t.Errorf("served %v %v %v", a.done, b.done, c.done)
		}
		s := &fake{}
		leases[1].Keep(s, keeping)
		if !b.served() || c.done || b.lease.Session() != s {
			t.Errorf("served %v %v", b.done, c.done)
		}
		leases[2].Accepted()
		if !c.served() || c.lease.Session() != nil {
			t.Error("the window has grown, and nobody has come in")
		}
	})
}

func TestLine_fifoOfEntry(t *testing.T) {
	bubble(t, func(t *testing.T, l *Line) {
		here, there := to(1, "k").by(".example", 5), to(2, "k").by(".example", 5)
		l.fill(t, 4, here)
		le := l.must(t, never, there)
		a := l.goes(t.Context(), patient, here)
		b := l.goes(t.Context(), patient, here, there)
		le.End() // the address that only b wants, and the place that both want
		if !a.served() || b.done {
			t.Errorf("served %v %v", a.done, b.done)
		}
	})
}

func TestLine_kept(t *testing.T) {
	bubble(t, func(t *testing.T, l *Line) {
		leases := l.fill(t, 5, to(1, "k"))
		first := l.goes(t.Context(), patient, to(1, "other"))
		fits := l.goes(t.Context(), patient, to(1, "k"))
		s := &fake{}
		leases[0].Sent()
		leases[0].Keep(s, keeping)
		if first.done || !fits.served() || fits.lease.Session() != s || fits.lease.Messages() != 1 {
			t.Error("the session has not gone to the first whom it fits")
		}
		fits.lease.Keep(s, keeping)
		if !first.served() || first.lease.Session() != nil || !s.ended() {
			t.Error("the session has not made room")
		}
		s.check(t)
	})
}

func TestLine_dead(t *testing.T) {
	bubble(t, func(t *testing.T, l *Line) {
		leases := l.fill(t, 5, to(1, "k"))
		a := l.goes(t.Context(), patient, to(1, "k"))
		b := l.goes(t.Context(), patient, to(1, "k"))
		s := &fake{dead: true}
		leases[0].Keep(s, keeping)
		if !a.served() || b.done || a.lease.Session() != nil || !s.ended() {
			t.Error("the place of a dead session has not gone to whom it was given")
		}
		s.check(t)
	})
	bubble(t, func(t *testing.T, l *Line) {
		leases := l.fill(t, 2, to(1, "k"))
		good, dead := &fake{}, &fake{}
		leases[0].Keep(good, keeping)
		leases[1].Keep(dead, keeping)
		dead.dead = true
		if le := l.must(t, never, to(1, "k")); le.Session() != good || !dead.ended() {
			t.Error("the search has not gone on")
		}
	})
}

func TestLine_deadGoesBack(t *testing.T) {
	bubble(t, func(t *testing.T, l *Line) {
		w := to(1, "k").by("", 4)
		leases := l.fill(t, 4, w)
		a := l.goes(t.Context(), patient, w)
		b := l.goes(t.Context(), patient, w)
		// While a finds its session dead, the limit is lowered: the place is not free again.
		s := &fake{dead: true}
		s.whenQuit = func() {
			l.mu.Lock()
			defer l.unlock()
			l.place(w.by("", 3), true)
		}
		leases[0].Keep(s, keeping)
		synctest.Wait()
		if a.done || b.done || !s.ended() {
			t.Errorf("served %v %v above the limit", a.done, b.done)
		}
		sound(t, l)
		leases[1].End()
		if !a.served() || b.done {
			t.Errorf("served %v %v: not in the old order", a.done, b.done)
		}
	})
}

func TestLine_wait(t *testing.T) {
	bubble(t, func(t *testing.T, l *Line) {
		l.fill(t, 5, to(1, "k"))
		_, err := l.Get(t.Context(), never, []Want{to(1, "k")})
		full(t, err, 5)

		start := time.Now()
		_, err = l.Get(t.Context(), patient, []Want{to(1, "k")})
		full(t, err, 5)
		if d := time.Since(start); d != patient.Wait {
			t.Errorf("waited for %v", d)
		}
		if text := err.Error(); !strings.HasPrefix(text, "mx1.example (192.0.2.1) has as many connections from here as it may (5)") ||
			!strings.HasSuffix(text, "30 seconds") {
			t.Errorf("error %q", text)
		}
		w := to(1, "k").by("", 3)
		w.Exchanger = ""
		_, err = l.Get(t.Context(), never, []Want{w})
		full(t, err, 3)
		if text := err.Error(); !strings.HasPrefix(text, "192.0.2.1 (192.0.2.1) has") {
			t.Errorf("error %q", text)
		}
	})
}

func TestLine_third(t *testing.T) {
	for _, c := range []struct {
		name   string
		first  Caller
		after  time.Duration
		second Caller
		let    bool
	}{
		{"a third has not gone", patient, 10 * time.Second, patient, true},
		{"a third has gone", patient, 10*time.Second + 1, patient, false},
		{"the last attempt", patient, 29 * time.Second, Caller{Wait: 1200 * time.Second, Always: true}, true},
		{"the last attempt, without limit", patient, 29 * time.Second, Caller{Always: true}, true},
		{"the first is at its last attempt", Caller{Wait: 1200 * time.Second, Always: true}, 11 * time.Second, patient, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, l *Line) {
				leases := l.fill(t, 5, to(1, "k"))
				first := l.goes(t.Context(), c.first, to(1, "k"))
				time.Sleep(c.after)
				second := l.goes(t.Context(), c.second, to(1, "k"))
				if second.done == c.let {
					t.Errorf("let in: %v", !second.done)
				}
				if !c.let {
					full(t, second.failed(), 5)
				}
				// Elsewhere there is a line of its own.
				l.fill(t, 5, to(2, "k"))
				other := l.goes(t.Context(), patient, to(1, "k"), to(2, "k"))
				if other.done {
					t.Error("not let in where nobody waits")
				}
				// What is free is for whoever comes.
				if le, err := l.Get(t.Context(), patient, []Want{to(1, "k"), to(3, "k")}); err != nil || le.Want != 1 {
					t.Errorf("got %v, %v", le, err)
				}
				leases[0].End()
				leases[1].End()
				leases[2].End()
				if !first.served() || !other.served() || c.let && !second.served() {
					t.Error("somebody waits, and there is room")
				}
			})
		})
	}
}

func TestLine_unlimited(t *testing.T) {
	bubble(t, func(t *testing.T, l *Line) {
		leases := l.fill(t, 5, to(1, "k"))
		v := l.goes(t.Context(), Caller{Always: true}, to(1, "k"))
		time.Sleep(24 * time.Hour)
		leases[0].End()
		if !v.served() {
			t.Error("not served")
		}
		limited := l.goes(t.Context(), Caller{Always: true, Wait: time.Hour}, to(1, "k"))
		time.Sleep(2 * time.Hour)
		full(t, limited.failed(), 5)
	})
}

func TestLine_context(t *testing.T) {
	bubble(t, func(t *testing.T, l *Line) {
		leases := l.fill(t, 5, to(1, "k"))
		why := errors.New("why")
		ctx, cancel := context.WithCancelCause(t.Context())
		a := l.goes(ctx, patient, to(1, "k"), to(1, "other"))
		b := l.goes(t.Context(), patient, to(1, "k"))
		cancel(why)
		synctest.Wait()
		if a.err != why || l.Stats().Waiting != 1 {
			t.Errorf("got %v, %d wait", a.err, l.Stats().Waiting)
		}
		leases[0].End()
		if !b.served() {
			t.Error("not served")
		}
	})
}

func TestTry(t *testing.T) {
	bubble(t, func(t *testing.T, l *Line) {
		l.fill(t, 3, to(1, "k"))
		s := l.kept(t, to(1, "k"))
		le := l.Try(to(1, "k"))
		if le == nil || le.Session() != nil {
			t.Fatal("no room")
		}
		if l.Try(to(1, "k")) != nil || s.ended() {
			t.Error("a kept session has made room for a race")
		}
		if !l.hasKept(to(1, "k")) || l.hasKept(to(1, "other")) || l.hasKept(to(2, "k")) || l.hasKept(Want{Addr: addr(1)}) {
			t.Error("hasKept")
		}
		if !l.hasRoom(to(1, "k")) || !l.hasRoom(to(2, "k")) {
			t.Error("hasRoom")
		}
		l.must(t, never, to(1, "k"))
		if l.hasRoom(to(1, "k")) || l.hasKept(to(1, "k")) {
			t.Error("all are in use")
		}
		le.End()
		le.End()
		if n := l.Stats().Busy; n != 4 {
			t.Errorf("%d are busy", n)
		}
	})
}

func TestStats(t *testing.T) {
	bubble(t, func(t *testing.T, l *Line) {
		l.fill(t, 5, to(1, "k"))
		le := l.must(t, never, to(2, "k").by(".example", 3))
		le.Accepted()
		le.Keep(&fake{}, keeping)
		l.hasRoom(to(3, "k"))
		l.goes(t.Context(), patient, to(1, "k"))
		s := l.Stats()
		if s.Busy != 5 || s.Idle != 1 || s.Waiting != 1 || len(s.Addresses) != 2 {
			t.Errorf("%+v", s)
		}
		if a := s.Addresses[0]; a != (Address{"mx1.example", addr(1), 5, 5, 1, 0}) {
			t.Errorf("%+v", a)
		}
		if a := s.Addresses[1]; a != (Address{"mx2.example", addr(2), 1, 3, 0, 1}) {
			t.Errorf("%+v", a)
		}
		for i := range 200 {
			l.must(t, never, to(i+3, "k"))
		}
		if n := len(l.Stats().Addresses); n != busiest {
			t.Errorf("%d addresses", n)
		}
		time.Sleep(time.Minute)
	})
}

func TestAccounts_bounded(t *testing.T) {
	l := New(Config{Slots: 40, Kept: 40})
	le := l.must(t, never, to(0, "k"))
	for i := range mostAccounts + 100 {
		w := to(1, "k")
		w.Addr = netip.AddrPortFrom(w.Addr.Addr(), uint16(1+i))
		l.must(t, never, w).End()
	}
	if n := len(l.accounts); n != mostAccounts {
		t.Errorf("%d accounts", n)
	}
	if l.accounts[name{addr: addr(0)}] == nil {
		t.Error("an account with a connection is forgotten")
	}
	le.End()
	sound(t, l)
}
