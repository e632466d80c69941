package line

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"nightmare.mail/mxf/integration/must"
)

const (
	modelCallers = 60
	modelRounds  = 60
	emptyMost    = 4 // connections to each address by the empty entry
	entryMost    = 6 // connections to all addresses of .example
)

// A model is what the servers see of many callers.
type model struct {
	*testing.T
	line *Line
	wild bool // sessions die, servers refuse, and control programs send signals

	mu       sync.Mutex
	open     map[string]int // connections by account
	sessions []*fake
	served   int
	refused  int
	ended    int // by the caller's context
}

func (m *model) account(w Want) string {
	if w.Limit.Entry != "" {
		return w.Limit.Entry
	}
	return w.Addr.String()
}

// connect is a connection that a server sees.
func (m *model) connect(w Want, by int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.account(w)
	m.open[n] += by
	if m.open[n] > w.Limit.Connections || m.open[n] < 0 {
		m.Errorf("%d connections to %s, and it may have %d", m.open[n], n, w.Limit.Connections)
	}
}

// wants returns places in a random order. The first three addresses go by the empty entry.
func (m *model) wants(r *rand.Rand) (wants []Want) {
	for _, i := range r.Perm(6)[:1+r.IntN(3)] {
		w := to(i, string(rune('a'+r.IntN(3)))).by("", emptyMost)
		if i >= 3 {
			w = w.by(".example", entryMost)
		}
		w.Keepable = r.IntN(8) > 0
		wants = append(wants, w)
	}
	return wants
}

// deliver is one caller.
func (m *model) deliver(r *rand.Rand) {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	why := errors.New("why")
	if r.IntN(20) == 0 {
		defer time.AfterFunc(time.Duration(r.IntN(2000))*time.Millisecond, func() { cancel(why) }).Stop()
	}
	c := Caller{Wait: time.Duration(r.IntN(60)) * time.Second, Always: r.IntN(10) == 0}
	wants := m.wants(r)
	for range 4 {
		le, err := m.line.Get(ctx, c, wants)
		if err != nil {
			m.failed(err, why)
			return
		}
		m.first(le, wants[le.Want])
		if c.Back = le; !m.converse(ctx, r, le, wants[le.Want]) {
			return
		}
	}
}

func (m *model) failed(err, why error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var e *FullError
	switch {
	case err == why:
		m.ended++
	case errors.As(err, &e):
		m.refused++
	default:
		m.Error(err)
	}
}

// first checks that nobody who came earlier waits for the same. Where sessions die, and refused
// callers come back, somebody earlier can come into the line again.
func (m *model) first(le *Lease, got Want) {
	m.line.mu.Lock()
	defer m.line.mu.Unlock()
	if m.wild {
		return
	}
	for at := le.conn.addr.waiters.Front(); at != nil; at = at.Next() {
		w := at.Value.(*waiter)
		for _, want := range w.wants {
			if w.arrived < le.arrived && want == got {
				m.Errorf("caller %d waits, and caller %d has got the same", w.arrived, le.arrived)
			}
		}
	}
}

// converse uses a lease. It reports whether the caller goes back into the line.
func (m *model) converse(ctx context.Context, r *rand.Rand, le *Lease, w Want) (back bool) {
	s, _ := le.Session().(*fake)
	if s == nil {
		m.connect(w, 1)
		time.Sleep(time.Duration(r.IntN(100)) * time.Millisecond)
		if m.wild && r.IntN(10) == 0 {
			m.connect(w, -1)
			defer le.End()
			return le.Crowded(ctx)
		}
		le.Greeted()
		s = &fake{panics: m.wild && r.IntN(10) == 0, whenQuit: func() { m.connect(w, -1) }}
		m.mu.Lock()
		m.sessions = append(m.sessions, s)
		m.mu.Unlock()
	}
	time.Sleep(time.Duration(r.IntN(1000)) * time.Millisecond)
	le.Sent()
	if r.IntN(4) == 0 {
		le.Refused(r.IntN(4))
	} else {
		le.Accepted()
	}
	m.mu.Lock()
	m.served++
	m.mu.Unlock()
	if r.IntN(8) == 0 {
		quit(s)
		le.End()
		return false
	}
	s.mu.Lock()
	s.dead = m.wild && r.IntN(5) == 0
	s.mu.Unlock()
	le.Keep(s, Keeping{Idle: time.Duration(r.IntN(3000)) * time.Millisecond, MaxMessages: 10})
	if m.wild && r.IntN(6) == 0 {
		time.Sleep(time.Duration(r.IntN(300)) * time.Millisecond)
		s.die()
	}
	return false
}

// disturb does what comes from elsewhere.
func (m *model) disturb(r *rand.Rand, stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(time.Duration(r.IntN(2000)) * time.Millisecond):
		}
		sound(m, m.line)
		w := m.wants(r)[0]
		switch {
		case r.IntN(2) == 0:
			m.line.hasKept(w)
			m.line.hasRoom(w)
			if le := m.line.Try(w); le != nil {
				m.connect(w, 1)
				m.connect(w, -1)
				le.End()
			}
		case m.wild && r.IntN(10) == 0:
			m.line.Forget()
		case m.wild:
			m.line.MakeRoom()
		}
	}
}

// Many callers come and go. No account has more than it may, the order is kept, nobody waits
// for what is free, and in the end nothing is left.
func TestLine_model(t *testing.T) {
	for _, wild := range []bool{false, true} {
		for seed := range uint64(8) {
			t.Run(fmt.Sprintf("wild %v, seed %d", wild, seed), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { run(t, wild, seed) })
			})
		}
	}
}

func run(t *testing.T, wild bool, seed uint64) {
	m := &model{T: t, wild: wild, line: New(Config{Slots: 100, Kept: 8}), open: map[string]int{}}
	stop := make(chan struct{})
	var callers, others sync.WaitGroup
	others.Go(func() { m.disturb(rand.New(rand.NewPCG(seed, 0)), stop) })
	for i := range uint64(modelCallers) {
		callers.Go(func() {
			r := rand.New(rand.NewPCG(seed, i+1))
			for range modelRounds {
				m.deliver(r)
				time.Sleep(time.Duration(r.IntN(1000)) * time.Millisecond)
			}
		})
	}
	callers.Wait()
	close(stop)
	others.Wait()
	m.line.Close()
	synctest.Wait()
	sound(t, m.line)
	if s := m.line.Stats(); s.Busy != 0 || s.Idle != 0 || s.Waiting != 0 {
		t.Errorf("something is left: %+v", s)
	}
	for n := range maps.Values(m.open) {
		if n != 0 {
			t.Errorf("connections are left: %v", m.open)
		}
	}
	reused := 0
	for _, s := range m.sessions {
		s.check(t)
		if !s.ended() {
			t.Error("a session was not ended, or more than once")
		}
		reused += s.wakes
	}
	t.Logf("%d served, %d of them on a kept session; %d refused, %d gave up", m.served, reused, m.refused, m.ended)
	if m.served == 0 || m.refused == 0 || m.ended == 0 || reused == 0 {
		t.Error("something has never happened")
	}
}

// The same without the bubble: true parallelism, for the race detector.
func TestLine_parallel(t *testing.T) {
	l := New(Config{Slots: 20, Kept: 10})
	must.Within(t, "the callers", func() {
		var callers sync.WaitGroup
		for i := range 16 {
			callers.Go(func() {
				for n := range 200 {
					le, err := l.Get(t.Context(), Caller{Always: true}, []Want{to(n%2, string(rune('a'+i%3))).by("", 4)})
					if err != nil {
						t.Error(err)
						return
					}
					s, _ := le.Session().(*fake)
					if s == nil {
						s = &fake{}
						le.Greeted()
					}
					le.Accepted()
					le.Keep(s, keeping)
					if n%5 == 0 {
						s.die()
					}
				}
			})
		}
		callers.Wait()
	})
	l.Close()
	sound(t, l)
	if s := l.Stats(); s.Busy != 0 || s.Idle != 0 || s.Waiting != 0 {
		t.Errorf("something is left: %+v", s)
	}
}
