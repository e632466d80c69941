package integration

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"net/netip"
	"nightmare.mail/mxf/integration/lab"
	"nightmare.mail/mxf/integration/must"
)

// Tests of the sections "Control files" and "What else is remembered".

// asked counts questions.
func (s *station) asked(kind, name string) (n int) {
	for _, q := range s.DNS.Queries() {
		if q.Type == kind && q.Name == name {
			n++
		}
	}
	return n
}

func (s *station) wasAsked(kind, name string, want int) {
	s.t.Helper()
	if got := s.asked(kind, name); got != want {
		s.t.Errorf("%s of %s was asked %d times, want %d", kind, name, got, want)
	}
}

// Names are asked once, also by deliveries at the same time; after SIGHUP again.
func TestRspawn_asksOnce(t *testing.T) {
	s := newStation(t)
	must.OK(t, s.Home.Set("connectionidle", "0"))
	s.serve("example.org", lab.SMTP{})
	p := s.play(s.part())
	for _, a := range s.all(s.many(p, "example.org", 20)) {
		s.accepted(a)
	}
	s.once(p, "example.org", 3)
	s.wasAsked("MX", "example.org", 1)
	s.wasAsked("A", "mx.example.org", 1)
	must.OK(t, p.Signal(syscall.SIGHUP))
	must.Until(t, "another question", func() bool {
		s.once(p, "example.org", 1)
		return s.asked("MX", "example.org") == 2
	})
	s.once(p, "example.org", 1)
	s.wasAsked("MX", "example.org", 2)
}

// What is not there is remembered too.
func TestRspawn_asksOnceForNothing(t *testing.T) {
	s := newStation(t)
	s.record("other.example A 127.0.2.9")
	p := s.play(s.part())
	for range 3 {
		if a := s.deliver(p, "b@failing.example"); a.Letter == 'K' {
			t.Errorf("it was answered %v", a)
		}
	}
	if n := s.asked("MX", "failing.example"); n > 3 {
		t.Errorf("it was asked %d times", n)
	}
}

// Failures are remembered for 10 seconds.
func TestRspawn_asksOnceForFailures(t *testing.T) {
	s := newStation(t)
	s.record("failing.example MX !SERVFAIL")
	p := s.play(s.part())
	first := s.deliver(p, "b@failing.example")
	n := s.asked("MX", "failing.example")
	second := s.deliver(p, "c@failing.example")
	if first.Letter != 'Z' || first.Text != second.Text || s.asked("MX", "failing.example") != n {
		t.Errorf("%v, and then %v; it was asked %d and %d times", first, second, n, s.asked("MX", "failing.example"))
	}
}

// TLS sessions are resumed, unless tlsresumption says not.
func TestRspawn_resumption(t *testing.T) {
	for value, want := range map[string][2]bool{"1": {false, true}, "0": {false, false}} {
		for name, version := range map[string]uint16{"TLS 1.2": 0x0303, "TLS 1.3": 0x0304} {
			t.Run(name+" "+value, func(t *testing.T) {
				s := newStation(t)
				must.OK(t, s.Home.Set("tlsresumption", value), s.Home.Set("connectionidle", "0"))
				server := s.secure("example.org", lab.SMTP{TLS: lab.TLS{MaxVersion: version}})
				p := s.play(s.part())
				s.once(p, "example.org", 2)
				for i, session := range s.sessions(server)[:2] {
					if state := session.TLS(); state == nil || state.DidResume != want[i] {
						t.Errorf("connection %d: %v, want %v", i+1, state, want[i])
					}
				}
			})
		}
	}
}

// The trust anchors of then decide, also about a session.
func TestRspawn_resumptionIsVerified(t *testing.T) {
	t.Parallel() // most of its time it waits
	s := newStation(t)
	must.OK(t, s.Home.Set("connectionidle", "0"), s.Home.Set("tlsstrictness", "2"))
	s.secure("example.org", lab.SMTP{})
	p := s.play(s.part())
	s.once(p, "example.org", 2)
	must.OK(t, s.Home.Trust(s.Stranger))
	time.Sleep(1500 * time.Millisecond) // in force within a second
	if a := s.deliver(p, "b@example.org"); a.Letter != 'Z' {
		t.Errorf("it was answered %v", a)
	}
	must.OK(t, s.Home.Trust(s.Authority))
	time.Sleep(1500 * time.Millisecond)
	s.once(p, "example.org", 1)
}

// An address that timed out is not tried again for a while; others are used.
func TestRspawn_silentAddress(t *testing.T) {
	t.Parallel() // most of its time it waits
	s := newStation(t)
	must.OK(t, s.Home.Set("timeoutconnect", "2"))
	silent := netip.MustParseAddr("127.0.0.8")
	must.OK(t, s.Dead("smtp", silent))
	s.serve("two.example", lab.SMTP{})
	s.record("mx.one.example A %s\nexample.org MX 10 mx.one.example\nexample.org MX 20 mx.two.example", silent)
	p := s.play(s.part())
	s.once(p, "example.org", 1)
	begin := time.Now()
	s.once(p, "example.org", 5)
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("it was tried again: %v", took)
	}
}

// Control files are in force for each command that was written after the change.
func TestRspawn_controlFilesAtOnce(t *testing.T) {
	s := newStation(t)
	s.serve("one.example", lab.SMTP{})
	s.serve("two.example", lab.SMTP{})
	p := s.play(s.part())
	for i := range 20 {
		name := []string{"one", "two"}[i%2]
		addr := []string{"127.0.2.3", "127.0.2.4"}[i%2]
		must.OK(t, s.Home.Set("smtproutes", ":mx."+name+".example:"+itoa(int(s.Port("smtp")))))
		if a := s.deliver(p, s.mailbox()); !strings.HasPrefix(a.Text, addr+" accepted message.\n") {
			t.Fatalf("change %d, to %s: it was answered %v", i, name, a)
		}
	}
}

// A malformed file defers what comes while it is so, and names itself.
func TestRspawn_malformedFile(t *testing.T) {
	for name, value := range map[string]string{
		"connectionlimits": "nonsense", "connectionidle": "301", "connectionwait": "3601", "tlsresumption": "2", "timeoutremote": "x", "tlsstrictness": "9",
	} {
		t.Run(name, func(t *testing.T) {
			s := newStation(t)
			s.serve("example.org", lab.SMTP{})
			p := s.play(s.part())
			s.once(p, "example.org", 1)
			must.OK(t, s.Home.Set(name, value))
			if a := s.deliver(p, "b@example.org"); a.Letter != 'Z' || !strings.Contains(a.Text, "control/"+name) {
				t.Errorf("it was answered %v", a)
			}
			must.OK(t, s.Home.Remove(name))
			s.once(p, "example.org", 1)
		})
	}
}

// Limits of connections that are malformed in one way each.
func TestRspawn_malformedLimits(t *testing.T) {
	for line, good := range map[string]bool{
		":20:100:100": true, ":1": true, "mx.example.org:10000:10000:1000": true, "[127.0.2.3]:1:1": true, ".example.org:5:5:5": true, "[::1]:5": true,
		":": false, "": true, ":0": false, ":10001": false, ":1:0": false, ":1:10001": false, ":1:1:0": false, ":1:1:1001": false, ":1:1:1:1": false, "mx.example.org": false,
		":x": false, ":-1": false, "[127.0.2]:5": false,
	} {
		s := newStation(t)
		s.serve("example.org", lab.SMTP{})
		must.OK(t, s.Home.Set("connectionlimits", line))
		p := s.play(s.part())
		if a := s.deliver(p, "b@example.org"); (a.Letter == 'K') != good {
			t.Errorf("%q: it was answered %v", line, a)
		}
	}
}
