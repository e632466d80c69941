package integration

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"nightmare.mail/mxf/integration/lab"
	"nightmare.mail/mxf/integration/must"
)

// Tests of the section "Recipients together". Servers greet late, so that all deliveries of a message
// are there before its MAIL.

// lateGreeting has decide decide, after a while before the greeting of the first connection.
func lateGreeting(decide func(visit) string) func(visit) string {
	return func(v visit) string {
		if v.phase == "greeting" && v.connection == 1 {
			time.Sleep(loadPause)
		}
		return decide(v)
	}
}

func noFault(visit) string { return "" }

// group delivers one message to recipients at once, and returns the answers.
func (s *station) group(p *lab.Player, messid string, recipients ...string) (answers []lab.Answer) {
	s.t.Helper()
	var calls []*lab.Call
	for _, recipient := range recipients {
		calls = append(calls, must.Get(p.Begin(s.ctx, messid, "a@example.net", recipient))(s.t))
	}
	for _, c := range calls {
		answers = append(answers, s.answer(c))
	}
	return answers
}

// lettersOf are those of answers, in order.
func lettersOf(answers []lab.Answer) (text string) {
	for _, a := range answers {
		text += string(a.Letter)
	}
	return text
}

func to(names string, domain string) (recipients []string) {
	for _, name := range strings.Split(names, "") {
		recipients = append(recipients, name+"@"+domain)
	}
	return recipients
}

// short are recipients without their domains, transaction by transaction.
func short(transactions []string) string {
	var all []string
	for _, one := range transactions {
		names := ""
		for _, recipient := range strings.Fields(one) {
			name, _, _ := strings.Cut(recipient, "@")
			names += name
		}
		all = append(all, names)
	}
	return strings.Join(all, " ")
}

// What is said at a point, by connection, transaction and recipient.
func TestRspawn_together(t *testing.T) {
	t.Parallel() // most of its time it waits
	for _, c := range []struct {
		name   string
		decide func(visit) string
		want   string // letters, for a, b and c
		offers string // transactions that were tried
		taken  string // messages
	}{
		{"all accepted", noFault, "KKK", "abc", "abc"},
		{"one refused", refuseRCPT("b", "550 5.1.1 no"), "KDK", "abc", "ac"},
		{"all refused", func(v visit) string { return at(v, "RCPT", "550 5.1.1 no") }, "DDD", "abc", ""},
		{"the first deferred, nobody accepted before", refuseRCPT("a", "450 4.2.1 later"), "ZKK", "abc", "bc"},
		{"one deferred after an accepted one, and again", refuseRCPT("b", "450 4.2.1 later"), "KZK", "abc b", "ac"},
		{"one deferred after an accepted one", func(v visit) string {
			if v.recipient == "b@example.org" && v.mail == 0 {
				return "450 4.2.1 later"
			}
			return ""
		}, "KKK", "abc b", "ac b"},
		{"one transaction takes two", func(v visit) string {
			if v.phase == "RCPT" && v.n >= 2 {
				return "452 4.5.3 too many recipients"
			}
			return ""
		}, "KKK", "abc c", "ab c"},
		{"one transaction takes one, and says 552", func(v visit) string {
			if v.phase == "RCPT" && v.n >= 1 {
				return "552 5.5.3 too many recipients"
			}
			return ""
		}, "KKZ", "abc bc", "a b"}, // the second answer holds
		{"MAIL refused", func(v visit) string { return at(v, "MAIL", "550 5.7.1 no") }, "DDD", "abc", ""},
		{"MAIL deferred", func(v visit) string { return at(v, "MAIL", "450 4.7.1 later") }, "ZZZ", "abc", ""},
		{"the message is refused", func(v visit) string { return at(v, "message", "554 5.6.0 no") }, "DDD", "abc a", ""},
		{"the message is deferred", func(v visit) string { return at(v, "message", "451 4.3.0 later") }, "ZZZ", "abc a", ""},
		{"DATA is refused", func(v visit) string { return at(v, "DATA", "554 5.6.0 no") }, "DDD", "abc a", ""},
		{"the message is refused for many", func(v visit) string {
			if v.phase == "message" && len(v.recipients) > 1 {
				return "554 5.6.0 one at a time"
			}
			return ""
		}, "KKK", "abc a b c", "a b c"},
		{"the message is refused, and for b alone too", func(v visit) string {
			if v.phase == "message" && slices.Contains(v.recipients, "b@example.org") {
				return "554 5.6.0 not for b"
			}
			return ""
		}, "KDK", "abc a b c", "a c"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStation(t)
			f := s.fickle("example.org", true, lateGreeting(c.decide))
			p := s.play(s.part())
			answers := s.group(p, s.message(), to("abc", "example.org")...)
			if got := lettersOf(answers); got != c.want {
				t.Errorf("answered %s, want %s: %v", got, c.want, answers)
			}
			if got := short(f.transactions()); got != c.offers {
				t.Errorf("offered %q, want %q", got, c.offers)
			}
			if got := short(f.envelopes()); got != c.taken {
				t.Errorf("taken %q, want %q", got, c.taken)
			}
			if got := f.connections(); got != 1 {
				t.Errorf("%d connections", got)
			}
			for _, a := range answers {
				refused := a.Letter != 'K' && strings.Contains(a.Text, "does not like recipient")
				if refused && !strings.HasSuffix(a.Text, "\nGiving up on 127.0.2.3.\n") {
					t.Errorf("%v does not end as if it had been alone", a)
				}
			}
		})
	}
}

// at is a reply at a phase.
func at(v visit, phase, reply string) string {
	if v.phase == phase {
		return reply
	}
	return ""
}

// refuseRCPT is a reply for one recipient.
func refuseRCPT(name, reply string) func(visit) string {
	return func(v visit) string {
		if v.recipient == name+"@example.org" {
			return reply
		}
		return ""
	}
}

// After a 421 to RCPT those not yet answered begin anew on a new connection.
func TestRspawn_together421(t *testing.T) {
	s := newStation(t)
	f := s.fickle("example.org", true, lateGreeting(func(v visit) string {
		if v.connection == 1 && v.recipient == "b@example.org" {
			return "421 4.3.2 closing"
		}
		return ""
	}))
	p := s.play(s.part())
	answers := s.group(p, s.message(), to("abc", "example.org")...)
	if lettersOf(answers) != "KKK" || f.took("a@example.org") != 1 || f.took("b@example.org") != 1 || f.took("c@example.org") != 1 {
		t.Errorf("answered %v, taken %q", answers, f.envelopes())
	}
}

// Lost after the last byte: those accepted may come twice, the refused keep their refusal.
func TestRspawn_togetherLost(t *testing.T) {
	s := newStation(t)
	s.fickle("example.org", true, lateGreeting(func(v visit) string {
		if v.phase == "message" {
			return "drop"
		}
		return refuseRCPT("b", "550 5.1.1 no")(v)
	}))
	p := s.play(s.part())
	answers := s.group(p, s.message(), to("abc", "example.org")...)
	if lettersOf(answers) != "ZDZ" {
		t.Errorf("answered %v", answers)
	}
	for i, a := range answers {
		if strings.Contains(a.Text, strings.TrimSpace(doubt)) != (i != 1) {
			t.Errorf("answered %v", a)
		}
	}
}

// How many go in one transaction.
func TestRspawn_togetherMost(t *testing.T) {
	t.Parallel() // most of its time it waits
	for _, c := range []struct {
		name   string
		limits string
		piped  bool
		more   []string
		most   int
	}{
		{"connectionlimits", ":20:100:4", true, nil, 4},
		{"LIMITS", ":20:100:100", true, []string{"LIMITS RCPTMAX=3"}, 3},
		{"the lesser", ":20:100:4", true, []string{"LIMITS MAILMAX=50 RCPTMAX=7"}, 4},
		{"no PIPELINING", ":20:100:100", false, nil, 5},
		{"100", "", true, nil, 100},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStation(t)
			must.OK(t, s.Home.Set("concurrencyremote", "255"))
			if c.limits != "" {
				must.OK(t, s.Home.Set("connectionlimits", c.limits))
			}
			f := s.fickle("example.org", c.piped, lateGreeting(noFault), c.more...)
			p := s.play(s.part())
			var recipients []string
			for i := range 2*c.most + 1 {
				recipients = append(recipients, fmt.Sprintf("r%d@example.org", i))
			}
			answers := s.group(p, s.message(), recipients...)
			if lettersOf(answers) != strings.Repeat("K", len(recipients)) {
				t.Errorf("answered %s", lettersOf(answers))
			}
			largest := 0
			for _, one := range f.transactions() {
				largest = max(largest, len(strings.Fields(one)))
			}
			if n := len(f.transactions()); largest != c.most || n > 2+c.most {
				t.Errorf("at most %d in one of %d transactions, want %d", largest, n, c.most)
			}
			for _, recipient := range recipients {
				if n := f.took(recipient); n != 1 {
					t.Errorf("%s has it %d times", recipient, n)
				}
			}
		})
	}
}

// What does not go together: other messages, senders and hosts, and the same recipient twice.
func TestRspawn_notTogether(t *testing.T) {
	s := newStation(t)
	f := s.fickle("example.org", true, lateGreeting(noFault))
	s.record("example.com MX 10 mx.example.org")
	p := s.play(s.part())
	one, two := s.message(), s.message()
	var calls []*lab.Call
	for _, c := range [][3]string{
		{one, "a@example.net", "a@example.org"}, {two, "a@example.net", "b@example.org"}, {one, "z@example.net", "c@example.org"},
		{one, "a@example.net", "d@example.com"}, {one, "a@example.net", "a@example.org"},
	} {
		calls = append(calls, must.Get(p.Begin(s.ctx, c[0], c[1], c[2]))(t))
	}
	for _, c := range calls {
		s.accepted(s.answer(c))
	}
	if got := f.transactions(); len(got) != 5 {
		t.Errorf("transactions %q", got)
	}
	if n := f.took("a@example.org"); n != 2 {
		t.Errorf("the same recipient has it %d times", n)
	}
}

// Control files that change between two commands part them.
func TestRspawn_notTogetherAfterChange(t *testing.T) {
	s := newStation(t)
	f := s.fickle("example.org", true, lateGreeting(noFault))
	p := s.play(s.part())
	messid := s.message()
	first := must.Get(p.Begin(s.ctx, messid, "a@example.net", "a@example.org"))(t)
	must.Until(t, "a connection", func() bool { return f.connections() == 1 })
	must.OK(t, s.Home.Set("timeoutremote", "77"))
	second := must.Get(p.Begin(s.ctx, messid, "a@example.net", "b@example.org"))(t)
	s.accepted(s.answer(first))
	s.accepted(s.answer(second))
	if got := short(f.transactions()); got != "a b" && got != "b a" {
		t.Errorf("transactions %q", got)
	}
}

// A package of QMTP has the recipients of several deliveries; each has its own answer.
func TestRspawn_togetherQMTP(t *testing.T) {
	s := newStation(t)
	must.OK(t, s.Home.Set("protocols", fmt.Sprintf("qmtp:%d:1:N:N:mxf-remote-qmtpc", s.Port("qmtp")), fmt.Sprintf("smtp:%d:0:N:Y:mxf-remote-smtpc", s.Port("smtp"))))
	addr := s.addr()
	must.Get(s.QMTP(addr, lab.QMTP{Name: "mx.example.org", Answers: map[string]string{"b@example.org": "Dno such user", "c@example.org": "Zlater"}}))(t)
	s.record("example.org MX 12801 mx.example.org\nmx.example.org A %s", addr)
	p := s.play(s.part())
	if answers := s.group(p, s.message(), to("abcd", "example.org")...); lettersOf(answers) != "KDZK" {
		t.Errorf("answered %v", answers)
	}
	for name, n := range map[string]int{"a": 1, "b": 0, "c": 0, "d": 1} {
		s.arrived(name+"@example.org", n)
	}
}

// Trace lines say who went with whom.
func TestRspawn_traceOfTogether(t *testing.T) {
	s := newStation(t)
	s.fickle("example.org", true, lateGreeting(noFault))
	path := s.Home.Path("trace")
	p := s.start(s.part("MXF_TRACE=" + path))
	s.group(p, s.message(), to("abc", "example.org")...)
	must.OK(t, p.Finish())
	s.ends(p, 0)
	text := readFile(t, path)
	if n := strings.Count(text, " together with 1\n"); n != 2 {
		t.Errorf("%d deliveries went with the first:\n%s", n, text)
	}
}
