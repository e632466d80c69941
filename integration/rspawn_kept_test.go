package integration

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"nightmare.mail/mxf/integration/lab"
	"nightmare.mail/mxf/integration/must"
)

// Tests of the section "Connections are kept".

// verbs are the commands of a connection, one letter for each: EHLO, STARTTLS is "T", MAIL, RCPT, DATA,
// RSET is "S", QUIT, NOOP.
func verbs(s *lab.Session) string {
	var b strings.Builder
	for _, command := range s.Commands() {
		verb, _, _ := strings.Cut(strings.TrimPrefix(command, "TLS "), " ")
		letter, known := map[string]string{"STARTTLS": "T", "RSET": "S"}[verb]
		if !known {
			letter = verb[:1]
		}
		b.WriteString(letter)
	}
	return b.String()
}

// spoke checks what was said on the connections to a server.
func (s *station) spoke(server *lab.SMTPServer, want ...string) {
	s.t.Helper()
	var got []string
	same := func() bool {
		got = nil
		for _, session := range s.sessions(server) {
			got = append(got, verbs(session))
		}
		return slices.Equal(got, want)
	}
	if !eventually(settle/4, same) {
		s.t.Errorf("on the connections was said %q, want %q", got, want)
	}
}

// once delivers n messages, one after the other, which are all to be accepted.
func (s *station) once(p *lab.Player, domain string, n int) {
	s.t.Helper()
	for range n {
		recipient := s.mailboxAt(domain)
		s.accepted(s.deliver(p, recipient))
		s.arrived(recipient, 1)
	}
}

// On a kept connection the conversation begins with MAIL, and after an accepted message nothing is
// said before the next.
func TestRspawn_kept(t *testing.T) {
	for _, c := range []struct {
		name   string
		secure bool
		config lab.SMTP
		want   string
		turns  int // of the first message, the greeting included; each further one has more
		more   int
	}{
		{"clear", false, lab.SMTP{}, "EMRDMRDMRD", 4, 2},
		{"clear, without PIPELINING", false, lab.SMTP{NoPipelining: true}, "EMRDMRDMRD", 6, 4},
		{"TLS", true, lab.SMTP{}, "ETEMRDMRDMRD", 7, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStation(t)
			start := s.serve
			if c.secure {
				start = s.secure
			}
			server := start("example.org", c.config)
			p := s.start(s.part())
			s.once(p, "example.org", 1)
			first := s.sessions(server)[0].Turns()
			s.once(p, "example.org", 2)
			s.spoke(server, c.want)
			if got := s.sessions(server)[0].Turns(); got-first != 2*c.more {
				t.Errorf("%d turns, and then %d", first, got)
			}
			must.OK(t, p.Finish())
			s.ends(p, 0)
			s.spoke(server, c.want+"Q")
		})
	}
}

// Kept connections are ended by QUIT after connectionidle; with 0 none is kept.
func TestRspawn_idle(t *testing.T) {
	t.Parallel() // most of its time it waits
	for idle, want := range map[string][]string{"0": {"EMRDQ", "EMRDQ"}, "1": {"EMRDMRDQ"}} {
		t.Run(idle, func(t *testing.T) {
			s := newStation(t)
			must.OK(t, s.Home.Set("connectionidle", idle))
			server := s.serve("example.org", lab.SMTP{})
			p := s.play(s.part())
			s.once(p, "example.org", 2)
			s.spoke(server, want...)
		})
	}
}

// Deliveries find only a connection that is the one that they would make.
func TestRspawn_keptForOthers(t *testing.T) {
	t.Parallel() // most of its time it waits
	for name, c := range map[string]struct {
		change func(s *station) error
		want   []string
	}{
		"nothing":     {func(*station) error { return nil }, []string{"ETEMRDMRD"}},
		"helohost":    {func(s *station) error { return s.Home.Set("helohost", "other.example") }, []string{"ETEMRD", "ETEMRD"}},
		"anchors":     {func(s *station) error { return s.Home.Trust(s.Authority, s.Stranger) }, []string{"ETEMRD", "ETEMRD"}},
		"strictness":  {func(s *station) error { return s.Home.Set("tlsstrictness", "2") }, []string{"ETEMRD", "ETEMRD"}},
		"tlspolicy":   {func(s *station) error { return s.Home.Set("tlspolicy", "example.org:must") }, []string{"ETEMRD", "ETEMRD"}},
		"other files": {func(s *station) error { return s.Home.Set("connectionwait", "10") }, []string{"ETEMRDMRD"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStation(t)
			server := s.secure("example.org", lab.SMTP{})
			p := s.play(s.part())
			s.once(p, "example.org", 1)
			must.OK(t, c.change(s))
			if name == "anchors" {
				time.Sleep(1500 * time.Millisecond) // in force within a second
			}
			s.once(p, "example.org", 1)
			s.spoke(server, c.want...)
		})
	}
}

// After a connection to a server of several domains: the next domain finds it too.
func TestRspawn_keptForAnotherDomain(t *testing.T) {
	s := newStation(t)
	server := s.serve("example.org", lab.SMTP{})
	s.record("example.com MX 10 mx.example.org")
	p := s.play(s.part())
	s.once(p, "example.org", 1)
	s.once(p, "example.com", 1)
	s.spoke(server, "EMRDMRD")
}

// Among exchangers of equal preference those to which a connection is kept come first; never a worse
// one.
func TestRspawn_keptFirst(t *testing.T) {
	s := newStation(t)
	one := s.serve("one.example", lab.SMTP{})
	two := s.serve("two.example", lab.SMTP{})
	s.record("equal.example MX 10 mx.one.example\nequal.example MX 10 mx.two.example")
	s.record("worse.example MX 10 mx.one.example\nworse.example MX 20 mx.two.example")
	p := s.play(s.part())
	s.once(p, "two.example", 1)
	s.once(p, "equal.example", 8)
	s.spoke(two, "E"+strings.Repeat("MRD", 9))
	s.once(p, "worse.example", 1)
	s.spoke(one, "EMRD")
}

// After a refusal RSET is sent at once, and the connection kept; after ten it is not.
func TestRspawn_keptAfterRefusals(t *testing.T) {
	s := newStation(t)
	server := s.serve("example.org", lab.SMTP{Recipients: map[string]string{"no@example.org": "550 5.1.1 no"}})
	p := s.play(s.part())
	for range 10 {
		if a := s.deliver(p, "no@example.org"); a.Letter != 'D' {
			t.Errorf("it was answered %v", a)
		}
	}
	must.Until(t, "the end of the connection", func() bool { return s.sessions(server)[0].Over() })
	s.once(p, "example.org", 1)
	if n := len(s.sessions(server)); n != 2 {
		t.Errorf("%d connections", n)
	}
	if said := verbs(s.sessions(server)[0]); strings.Count(said, "M") != 10 || !strings.HasSuffix(said, "Q") || strings.Count(said, "S") < 9 {
		t.Errorf("on the first was said %s", said)
	}
}

// A connection on which nothing comes in answer to RSET is not used.
func TestRspawn_resetUnanswered(t *testing.T) {
	s := newStation(t)
	server := s.serve("example.org", lab.SMTP{Recipients: map[string]string{"no@example.org": "550 5.1.1 no"}, Faults: lab.Faults{"rset": {Stall: true}}})
	p := s.play(s.part())
	begin := time.Now()
	if a := s.deliver(p, "no@example.org"); a.Letter != 'D' {
		t.Errorf("it was answered %v", a)
	}
	s.once(p, "example.org", 1)
	if took := time.Since(begin); took > 4*time.Second {
		t.Errorf("a delivery waited for RSET: %v", took)
	}
	if n := len(s.sessions(server)); n != 2 {
		t.Errorf("%d connections", n)
	}
}

// After the last message of connectionlimits the connection is not kept.
func TestRspawn_messagesOfConnection(t *testing.T) {
	s := newStation(t)
	must.OK(t, s.Home.Set("connectionlimits", "mx.example.org:10:2", ".example.com:10:3", ":5"))
	server, other := s.serve("example.org", lab.SMTP{}), s.serve("example.com", lab.SMTP{})
	announced := s.serve("example.net", lab.SMTP{Extensions: []string{"LIMITS MAILMAX=1"}})
	p := s.play(s.part())
	s.once(p, "example.org", 3)
	s.once(p, "example.com", 4)
	s.once(p, "example.net", 2)
	s.spoke(server, "EMRDMRDQ", "EMRD")
	s.spoke(other, "EMRDMRDMRDQ", "EMRD")
	s.spoke(announced, "EMRDQ", "EMRDQ")
}

// A kept connection that the server closes, or on which it says anything, is no event.
func TestRspawn_keptClosed(t *testing.T) {
	s := newStation(t)
	server := s.serve("example.org", lab.SMTP{})
	addr := server.AddrPort().Addr()
	p := s.play(s.part())
	s.once(p, "example.org", 1)
	must.OK(t, server.Close())
	server = must.Get(s.SMTP(addr, lab.SMTP{Name: "mx.example.org"}))(t)
	s.once(p, "example.org", 1)
	s.spoke(server, "EMRD", "EMRD") // both have the same address
}

// What a kept connection brings before the last byte makes the delivery begin anew, once, and the
// message arrives once. The second transaction of the first connection meets a fault.
func TestRspawn_beginsAnew(t *testing.T) {
	t.Parallel() // most of its time it waits
	for name, c := range map[string]struct {
		phase string
		fault string // a reply, or "drop", or "reset"
		anew  bool
		want  byte // without another connection
	}{
		"MAIL lost":         {"MAIL", "drop", true, 0},
		"MAIL reset":        {"MAIL", "reset", true, 0},
		"MAIL nonsense":     {"MAIL", "what", true, 0},
		"MAIL 421":          {"MAIL", "421 4.3.2 closing", true, 0},
		"MAIL 452":          {"MAIL", "452 4.3.1 full", true, 0},
		"MAIL 451":          {"MAIL", "451 4.3.0 sorry", true, 0},
		"MAIL 503":          {"MAIL", "503 5.5.1 enough", true, 0},
		"MAIL 550":          {"MAIL", "550 5.7.1 no", true, 0},
		"RCPT lost":         {"RCPT", "drop", true, 0},
		"RCPT 421":          {"RCPT", "421 4.3.2 closing", true, 0},
		"RCPT 452":          {"RCPT", "452 4.5.3 too many", true, 0},
		"RCPT 450":          {"RCPT", "450 4.2.1 later", false, 'Z'},
		"RCPT 550":          {"RCPT", "550 5.1.1 no", false, 'D'},
		"DATA lost":         {"DATA", "drop", true, 0},
		"DATA 421":          {"DATA", "421 4.3.2 closing", true, 0},
		"DATA 452":          {"DATA", "452 4.3.1 full", true, 0},
		"DATA 451":          {"DATA", "451 4.3.0 sorry", false, 'Z'},
		"DATA 554":          {"DATA", "554 5.6.0 no", false, 'D'},
		"message 421":       {"message", "421 4.3.2 closing", true, 0},
		"message 452":       {"message", "452 4.3.1 full", true, 0},
		"message 451":       {"message", "451 4.3.0 sorry", false, 'Z'},
		"message 554":       {"message", "554 5.6.0 no", false, 'D'},
		"message lost":      {"message", "drop", false, 'Z'},
		"message, nonsense": {"message", "what", false, 'Z'},
	} {
		t.Run(name, func(t *testing.T) {
			for _, piped := range []bool{true, false} {
				s := newStation(t)
				f := s.fickle("example.org", piped, func(v visit) string {
					if v.connection == 1 && v.mail == 1 && v.phase == c.phase {
						return c.fault
					}
					return ""
				})
				p := s.play(s.part())
				s.accepted(s.deliver(p, "b@example.org"))
				a := s.deliver(p, "c@example.org")
				wanted, connections := 1, 2
				switch {
				case c.anew:
					s.accepted(a)
				case a.Letter != c.want:
					t.Errorf("it was answered %v, want %c", a, c.want)
				}
				if !c.anew {
					wanted, connections = 0, 1
				}
				if lost := name == "message lost" || name == "message, nonsense"; lost != strings.Contains(a.Text, strings.TrimSpace(doubt)) {
					t.Errorf("it was answered %v", a)
				}
				if got := f.took("c@example.org"); got != wanted {
					t.Errorf("it has arrived %d times", got)
				}
				if got := f.connections(); got != connections {
					t.Errorf("%d connections", got)
				}
			}
		})
	}
}

// A refusal on a new connection is an answer, as everywhere: it does not begin anew.
func TestRspawn_newIsNotAnew(t *testing.T) {
	for fault, want := range map[string]byte{"421 4.3.2 closing": 'Z', "452 4.3.1 full": 'Z', "550 5.7.1 no": 'D'} {
		s := newStation(t)
		f := s.fickle("example.org", true, func(v visit) string {
			if v.phase == "MAIL" {
				return fault
			}
			return ""
		})
		p := s.play(s.part())
		if a := s.deliver(p, "b@example.org"); a.Letter != want {
			t.Errorf("%s: it was answered %v", fault, a)
		}
		if got := f.connections(); got != 1 {
			t.Errorf("%s: %d connections", fault, got)
		}
	}
}

// It begins anew once: what the new connection brings is the answer.
func TestRspawn_anewOnce(t *testing.T) {
	s := newStation(t)
	f := s.fickle("example.org", true, func(v visit) string {
		if v.phase == "MAIL" && v.sender == "second@example.net" {
			return "451 4.3.0 sorry"
		}
		return ""
	})
	p := s.play(s.part())
	s.accepted(s.deliver(p, "b@example.org"))
	if a := must.Get(p.Deliver(s.ctx, s.message(), "second@example.net", "c@example.org"))(t); a.Letter != 'Z' || !strings.Contains(a.Text, "451") {
		t.Errorf("it was answered %v", a)
	}
	if got := f.connections(); got != 2 {
		t.Errorf("%d connections", got)
	}
}

// After SIGHUP kept connections get QUIT.
func TestRspawn_hangupQuits(t *testing.T) {
	s := newStation(t)
	server := s.serve("example.org", lab.SMTP{})
	p := s.play(s.part())
	s.once(p, "example.org", 1)
	must.OK(t, p.Signal(syscall.SIGHUP))
	must.Until(t, "the end of the connection", func() bool { return s.sessions(server)[0].Over() })
	s.once(p, "example.org", 1)
	s.spoke(server, "EMRDQ", "EMRD")
}

// Trace lines of what is shared.
func TestRspawn_traceOfKept(t *testing.T) {
	s := newStation(t)
	s.serve("example.org", lab.SMTP{})
	path := s.Home.Path("trace")
	p := s.start(s.part("MXF_TRACE=" + path))
	s.once(p, "example.org", 3)
	must.OK(t, p.Finish())
	s.ends(p, 0)
	text := readFile(t, path)
	for n, want := range []string{"127.0.2.3", fmt.Sprintf("reuse 127.0.2.3:%d (message 2)", s.Port("smtp")), fmt.Sprintf("reuse 127.0.2.3:%d (message 3)", s.Port("smtp"))} {
		if !matches(text, fmt.Sprintf(`(?m)^\S+ \d+\.%d .*%s`, n+1, quoteMeta(want))) {
			t.Errorf("delivery %d: no %q in\n%s", n+1, want, text)
		}
	}
}
