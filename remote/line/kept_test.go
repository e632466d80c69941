package line

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestKeep_for(t *testing.T) {
	for _, c := range []struct {
		name    string
		prepare func(l *Line, le *Lease)
		keeping Keeping
		age     time.Duration // of the connection; 0: that of its lease
		want    time.Duration // for which it is kept
	}{
		{"connectionidle", nil, Keeping{Idle: 5 * time.Second}, 0, 5 * time.Second},
		{"none is kept", nil, Keeping{}, 0, 0},
		{"300 s old", nil, Keeping{Idle: time.Second}, 300 * time.Second, 0},
		{"297 s old", nil, Keeping{Idle: 5 * time.Second}, 297 * time.Second, 3 * time.Second},
		{"300 s after the lease", func(*Line, *Lease) { time.Sleep(300 * time.Second) }, Keeping{Idle: time.Second}, 0, 0},
		{"300 s at most", nil, Keeping{Idle: time.Hour}, 0, 300 * time.Second},
		{"its last message", func(_ *Line, le *Lease) { le.Sent(); le.Sent() }, Keeping{Idle: time.Second, MaxMessages: 2}, 0, 0},
		{"one message left", func(_ *Line, le *Lease) { le.Sent() }, Keeping{Idle: time.Second, MaxMessages: 2}, 0, time.Second},
		{"9 refusals", func(_ *Line, le *Lease) { le.Refused(9) }, Keeping{Idle: time.Second}, 0, time.Second},
		{"10 refusals", func(_ *Line, le *Lease) { le.Refused(4); le.Refused(6) }, Keeping{Idle: time.Second}, 0, 0},
		{"the line is closed", func(l *Line, _ *Lease) { l.Close() }, Keeping{Idle: time.Second}, 0, 0},
		{"SIGHUP before", func(l *Line, _ *Lease) { l.Forget() }, Keeping{Idle: time.Second}, 0, time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, l *Line) {
				le := l.must(t, never, to(1, "k"))
				if c.prepare != nil {
					c.prepare(l, le)
				}
				if c.age > 0 {
					c.keeping.Made = time.Now().Add(-c.age)
				}
				s := &fake{}
				le.Keep(s, c.keeping)
				if l.hasKept(to(1, "k")) != (c.want > 0) || s.ended() == (c.want > 0) {
					t.Fatalf("kept %v, ended %v", l.hasKept(to(1, "k")), s.ended())
				}
				if c.want > 0 {
					time.Sleep(c.want - 1)
					synctest.Wait()
					if s.ended() {
						t.Error("ended too soon")
					}
					time.Sleep(time.Nanosecond)
					synctest.Wait()
				}
				if !s.ended() || l.Stats().Idle != 0 || l.Stats().Busy != 0 {
					t.Errorf("not ended: %+v", l.Stats())
				}
				s.check(t)
			})
		})
	}
}

func TestKeep_counts(t *testing.T) {
	bubble(t, func(t *testing.T, l *Line) {
		s := &fake{}
		made := time.Now()
		for i := range 3 {
			le := l.must(t, never, to(1, "k"))
			if le.Messages() != i {
				t.Errorf("%d messages, want %d", le.Messages(), i)
			}
			le.Sent()
			le.Refused(3)
			le.Keep(s, Keeping{Idle: time.Minute, MaxMessages: 4, Made: made})
			le.Refused(1) // not its session any more
			le.End()
		}
		le := l.must(t, never, to(1, "k"))
		le.Sent()
		le.Keep(s, Keeping{Idle: time.Minute, MaxMessages: 4, Made: made})
		if !s.ended() {
			t.Error("kept after its last message")
		}
		s.check(t)
	})
}

func TestKeep_not(t *testing.T) {
	bubble(t, func(t *testing.T, l *Line) {
		w := to(1, "k")
		w.Keepable = false
		s := &fake{}
		l.must(t, never, w).Keep(s, keeping)
		if !s.ended() {
			t.Error("kept, and it cannot be")
		}
		l.kept(t, to(1, "k"))
		if le := l.must(t, never, w); le.Session() != nil {
			t.Error("a kept session for what cannot use one")
		}
		le := l.must(t, never, to(1, "k"))
		le.Keep(nil, keeping)
		if l.Stats().Busy != 1 {
			t.Error("no session counts")
		}
		late := &fake{}
		le.Keep(late, keeping)
		if !late.ended() || l.Stats().Busy != 1 || l.Stats().Idle != 0 {
			t.Errorf("a lease that has ended: %+v", l.Stats())
		}
	})
}

func TestKept_lost(t *testing.T) {
	bubble(t, func(t *testing.T, l *Line) {
		l.fill(t, 4, to(1, "k"))
		s := l.kept(t, to(1, "k"))
		lost := s.watch
		v := l.goes(t.Context(), patient, to(1, "k"))
		if !v.served() || v.lease.Session() != s {
			t.Fatal("not served")
		}
		lost() // too late: it is in use
		v.lease.Keep(s, keeping)
		lost() // of another watch
		if s.ended() {
			t.Error("ended")
		}
		s.die()
		if !s.ended() || l.Stats().Busy != 4 || l.Stats().Idle != 0 {
			t.Errorf("a lost session counts: %+v", l.Stats())
		}
	})
}

// atOnce is a session that is lost before Watch returns.
type atOnce struct{ fake }

func (f *atOnce) Watch(lost func()) { lost() }

// broken is a session that panics.
type broken struct{ fake }

func (f *broken) Watch(func()) { panic("watch") }

func TestKept_atOnce(t *testing.T) {
	bubble(t, func(t *testing.T, l *Line) {
		s, b := &atOnce{}, &broken{}
		b.panics = true
		l.must(t, never, to(1, "k")).Keep(s, keeping)
		l.must(t, never, to(1, "k")).Keep(b, keeping)
		if !s.ended() || !b.ended() || l.Stats().Idle != 0 || l.Stats().Busy != 0 {
			t.Errorf("kept: %+v", l.Stats())
		}
	})
}

func TestKept_most(t *testing.T) {
	bubble(t, func(t *testing.T, l *Line) {
		l.most = 2
		a, b, c := l.kept(t, to(1, "k")), l.kept(t, to(2, "k")), l.kept(t, to(3, "k"))
		if !a.ended() || b.ended() || c.ended() {
			t.Error("not the longest unused has made room")
		}
		le := l.must(t, never, to(2, "k"))
		le.Keep(le.Session(), keeping)
		if !l.MakeRoom() || b.ended() || !c.ended() {
			t.Error("MakeRoom has not ended the longest unused")
		}
		if !l.MakeRoom() || l.MakeRoom() || !b.ended() {
			t.Error("MakeRoom")
		}
	})
}

func TestKept_makesRoom(t *testing.T) {
	bubble(t, func(t *testing.T, l *Line) {
		entry := func(n int, key string) Want { return to(n, key).by(".example", 5) }
		l.fill(t, 3, entry(1, "k"))
		a, b := l.kept(t, entry(2, "k")), l.kept(t, entry(3, "other"))
		outside := l.kept(t, to(4, "k"))
		open := true
		a.whenQuit = func() { open = false }
		if le := l.must(t, never, entry(1, "new")); le.Session() != nil || open {
			t.Error("the connection would be made before the other one has ended")
		}
		if !a.ended() || b.ended() || outside.ended() {
			t.Error("not the longest unused of the entry has made room")
		}
	})
}

func TestKept_forget(t *testing.T) {
	bubble(t, func(t *testing.T, l *Line) {
		leases := l.fill(t, 5, to(1, "k"))
		v := l.goes(t.Context(), patient, to(1, "k"))
		s := l.kept(t, to(2, "k"))
		l.Forget()
		if !s.ended() || v.done {
			t.Error("Forget")
		}
		leases[0].End()
		if !v.served() {
			t.Error("not served")
		}
		if after := l.kept(t, to(2, "k")); after.ended() {
			t.Error("nothing is kept any more")
		}
	})
}

// Who wants a new connection gets no kept session, and the new one is kept.
func TestKeep_new(t *testing.T) {
	bubble(t, func(t *testing.T, l *Line) {
		w := to(1, "k")
		l.must(t, never, w).Keep(&fake{}, keeping)
		w.New = true
		le := l.must(t, never, w)
		if le.Session() != nil {
			t.Error("got a kept session")
		}
		le.Keep(&fake{}, keeping)
		if idle := l.Stats().Idle; idle != 2 {
			t.Errorf("%d are kept", idle)
		}
	})
}
