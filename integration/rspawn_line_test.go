package integration

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"nightmare.mail/mxf/integration/lab"
	"nightmare.mail/mxf/integration/must"
)

// Tests of the section "How many connections".

// many begins deliveries of a message each.
func (s *station) many(p *lab.Player, domain string, n int) (calls []*lab.Call) {
	s.t.Helper()
	for range n {
		calls = append(calls, s.begin(p, s.mailboxAt(domain)))
	}
	return calls
}

// all waits for answers.
func (s *station) all(calls []*lab.Call) (answers []lab.Answer) {
	s.t.Helper()
	for _, c := range calls {
		answers = append(answers, s.answer(c))
	}
	return answers
}

// slowly answers messages after a while.
func slowly(v visit) string {
	if v.phase == "message" {
		time.Sleep(50 * time.Millisecond)
	}
	return ""
}

// At most connections at a time, by entry, by half of the slots, and by the window of 5, to which
// each accepted message adds one.
func TestRspawn_connections(t *testing.T) {
	t.Parallel() // most of its time it waits
	for _, c := range []struct {
		name        string
		limits      []string
		concurrency string
		count       int
		most        int
	}{
		{"the entry of a name", []string{"mx.example.org:2"}, "120", 40, 2},
		{"the entry of an address", []string{"[127.0.2.3]:3"}, "120", 40, 3},
		{"the entry of a suffix", []string{".example.org:1", ".org:9"}, "120", 20, 1},
		{"the empty entry", []string{":4"}, "120", 40, 4},
		{"half of the slots", nil, "6", 20, 3},
		{"half of one slot", nil, "1", 4, 1},
		{"a name is not bound by slots", []string{"mx.example.org:4"}, "4", 20, 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStation(t)
			must.OK(t, s.Home.Set("concurrencyremote", c.concurrency))
			if c.limits != nil {
				must.OK(t, s.Home.Set("connectionlimits", c.limits...))
			}
			f := s.fickle("example.org", true, slowly)
			p := s.play(s.part())
			for _, a := range s.all(s.many(p, "example.org", c.count)) {
				s.accepted(a)
			}
			if got := f.atOnce(); got != c.most {
				t.Errorf("%d connections at a time, want %d", got, c.most)
			}
		})
	}
}

// An entry other than the empty one counts all that it fits together.
func TestRspawn_connectionsOfProvider(t *testing.T) {
	s := newStation(t)
	must.OK(t, s.Home.Set("connectionlimits", ".provider.example:2"), s.Home.Set("concurrencyremote", "120"))
	var busy, most atomic.Int32
	count := func(v visit) string {
		if v.phase == "message" {
			if n := busy.Add(1); n > most.Load() {
				most.Store(n)
			}
			defer busy.Add(-1)
		}
		return slowly(v)
	}
	one, two := s.fickle("one.provider.example", true, count), s.fickle("two.provider.example", true, count)
	p := s.play(s.part())
	calls := append(s.many(p, "one.provider.example", 20), s.many(p, "two.provider.example", 20)...)
	for _, a := range s.all(calls) {
		s.accepted(a)
	}
	if most.Load() > 2 || one.atOnce() > 2 || two.atOnce() > 2 {
		t.Errorf("%d messages at a time, %d and %d connections", most.Load(), one.atOnce(), two.atOnce())
	}
}

// The window begins with 5.
func TestRspawn_window(t *testing.T) {
	s := newStation(t)
	must.OK(t, s.Home.Set("concurrencyremote", "120"), s.Home.Set("connectionlimits", ":60"))
	var once sync.Once
	hold := make(chan struct{})
	f := s.fickle("example.org", true, func(v visit) string {
		if v.phase == "message" {
			<-hold
		}
		return ""
	})
	s.t.Cleanup(func() { once.Do(func() { close(hold) }) })
	p := s.play(s.part())
	calls := s.many(p, "example.org", 60)
	must.Until(t, "five connections", func() bool { return f.connections() == 5 })
	time.Sleep(loadPause)
	if n := f.connections(); n != 5 {
		t.Errorf("%d connections before a message was accepted", n)
	}
	once.Do(func() { close(hold) })
	for _, a := range s.all(calls) {
		s.accepted(a)
	}
	if n := f.atOnce(); n <= 5 {
		t.Errorf("%d connections at a time, after messages were accepted", n)
	}
}

// All full: a delivery waits, but not longer than connectionwait. With 0 it does not wait.
func TestRspawn_waits(t *testing.T) {
	t.Parallel() // most of its time it waits
	for _, wait := range []string{"0", "3"} {
		t.Run(wait, func(t *testing.T) {
			s := newStation(t)
			must.OK(t, s.Home.Set("connectionlimits", ":1"), s.Home.Set("connectionwait", wait))
			server := s.serve("example.org", stalls(lab.MAIL, 99))
			p := s.start(s.part())
			s.begin(p, "b@example.org")
			s.connected(server, 1, "MAIL")
			begin := time.Now()
			a := s.deliver(p, "c@example.org")
			want := fmt.Sprintf("Sorry, mx.example.org (127.0.2.3) has as many connections from here as it may (1), and none came free in %s seconds. (#4.4.5)", wait)
			if a.Letter != 'Z' || strings.TrimSuffix(a.Text, "\n") != want {
				t.Errorf("it was answered %v, want %q", a, want)
			}
			if took := time.Since(begin); wait == "3" && took < 2*time.Second || took > 20*time.Second {
				t.Errorf("it waited %v", took)
			}
			p.Kill()
			s.ends(p, -1)
		})
	}
}

// While the first in line has waited for more than a third of connectionwait no further delivery is
// let in.
func TestRspawn_lineClosed(t *testing.T) {
	t.Parallel() // most of its time it waits
	s := newStation(t)
	must.OK(t, s.Home.Set("connectionlimits", ":1"), s.Home.Set("connectionwait", "30"))
	server := s.serve("example.org", stalls(lab.MAIL, 99))
	p := s.start(s.part())
	s.begin(p, "b@example.org")
	s.connected(server, 1, "MAIL")
	first := s.begin(p, "c@example.org")
	time.Sleep(11 * time.Second) // a third is 10
	begin := time.Now()
	a := s.deliver(p, "d@example.org")
	if a.Letter != 'Z' || !strings.Contains(a.Text, "(#4.4.5)") {
		t.Errorf("it was answered %v", a)
	}
	if took := time.Since(begin); first.Answered() || took > 10*time.Second {
		t.Errorf("it was answered after %v; the first in line has an answer: %v", took, first.Answered())
	}
	// A message at its last attempt is let in.
	old := s.message()
	at := time.Now().Add(-8 * 24 * time.Hour)
	must.OK(t, os.Chtimes(s.Home.Path("queue/mess/"+old), at, at))
	c := must.Get(p.Begin(s.ctx, old, "", "e@example.org"))(t)
	time.Sleep(time.Second)
	if c.Answered() {
		t.Errorf("a message at its last attempt was answered %v", s.answer(c))
	}
	p.Kill()
	s.ends(p, -1)
}

// A full address is passed over for exchangers of equal preference, not for worse ones.
func TestRspawn_fullIsPassedOver(t *testing.T) {
	s := newStation(t)
	must.OK(t, s.Home.Set("connectionlimits", ":1"), s.Home.Set("connectionwait", "1"))
	stalled := s.serve("one.example", stalls(lab.MAIL, 99))
	s.serve("two.example", lab.SMTP{})
	s.record("equal.example MX 10 mx.one.example\nequal.example MX 10 mx.two.example")
	s.record("worse.example MX 10 mx.one.example\nworse.example MX 20 mx.two.example")
	p := s.start(s.part())
	s.begin(p, "b@one.example")
	s.connected(stalled, 1, "MAIL")
	s.once(p, "equal.example", 4)
	if a := s.deliver(p, "c@worse.example"); a.Letter != 'Z' {
		t.Errorf("it was answered %v", a)
	}
	p.Kill()
	s.ends(p, -1)
}

// A server that takes three connections: nothing is deferred, and few are refused.
func TestRspawn_wantsNoMore(t *testing.T) {
	t.Parallel() // most of its time it waits
	for _, refusal := range []string{"421 4.3.2 too many connections", "450 4.3.2 too many connections", "drop"} {
		for _, phase := range []string{"greeting", "EHLO"} {
			if refusal == "drop" && phase == "EHLO" {
				continue
			}
			t.Run(phase+" "+refusal, func(t *testing.T) {
				s := newStation(t)
				must.OK(t, s.Home.Set("concurrencyremote", "40"))
				var mu sync.Mutex
				refused, inside := 0, make(map[int]bool)
				f := s.fickle("example.org", true, func(v visit) string {
					if v.phase == "message" {
						time.Sleep(10 * time.Millisecond)
					}
					mu.Lock()
					defer mu.Unlock()
					if v.phase == "greeting" && v.open <= 3 {
						inside[v.connection] = true // whoever comes next is one too many
					}
					if v.phase != phase || inside[v.connection] {
						return ""
					}
					refused++
					return refusal
				})
				p := s.play(s.part())
				for _, a := range s.all(s.many(p, "example.org", 200)) {
					s.accepted(a)
				}
				const few = 30
				if refused > few {
					t.Errorf("%d connections of %d were refused", refused, f.connections())
				}
				t.Logf("%d connections, %d refused", f.connections(), refused)
			})
		}
	}
}

// Without another connection to the address such a refusal says nothing of the number: the next exchanger is tried.
func TestRspawn_aloneIsNotTooMany(t *testing.T) {
	s := newStation(t)
	s.fickle("one.example", true, func(v visit) string { return at(v, "greeting", "421 4.3.2 not now") })
	s.serve("two.example", lab.SMTP{})
	s.record("example.org MX 10 mx.one.example\nexample.org MX 20 mx.two.example")
	p := s.play(s.part())
	s.accepted(s.deliver(p, "b@example.org"))
}

// Trace lines say who waits where.
func TestRspawn_traceOfLine(t *testing.T) {
	s := newStation(t)
	must.OK(t, s.Home.Set("connectionlimits", ":1"))
	path := s.Home.Path("trace")
	s.fickle("example.org", true, slowly)
	p := s.start(s.part("MXF_TRACE=" + path))
	for _, a := range s.all(s.many(p, "example.org", 4)) {
		s.accepted(a)
	}
	must.OK(t, p.Finish())
	s.ends(p, 0)
	if text := readFile(t, path); !matches(text, `(?m)^\S+ \d+\.\d+ line 127\.0\.2\.3: 1$`) {
		t.Errorf("nobody stands in line:\n%s", text)
	}
}
