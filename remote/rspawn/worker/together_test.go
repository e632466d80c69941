package worker_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/smtpc/smtptest"
)

// A gate is a relay that greets nobody before it is opened.
type gate struct {
	relay
	shut  chan struct{}
	unbar func() // opens it
}

// newGate returns a closed gate. Its server remembers transactions.
func newGate(t *testing.T, extensions []string, answer func(*smtptest.Exchange) smtptest.Action) *gate {
	g := &gate{shut: make(chan struct{})}
	g.unbar = sync.OnceFunc(func() { close(g.shut) })
	g.Extensions, g.Answer, g.Remember = extensions, answer, true
	if answer == nil {
		g.Answer = func(*smtptest.Exchange) smtptest.Action { return smtptest.Action{} }
	}
	g.at = smtptest.Listen(t, func(c *smtptest.Conn) {
		g.came.Add(1)
		<-g.shut
		g.Serve(c)
	})
	t.Cleanup(g.unbar)
	return g
}

// group delivers one message to recipients, at one host, and opens the gate when all of them but apart
// are in one party, and these are at the gate by themselves. The answers are in the order of the recipients.
func (h *host) group(g *gate, apart int, recipients ...string) []string {
	h.t.Helper()
	message := h.message(text)
	var ids []uint64
	for _, r := range recipients {
		ids = append(ids, h.deliver(message, r+"@example.org"))
		if apart == 0 {
			must.Until(h.t, "the order", func() bool { return h.joined() == len(ids) })
		}
	}
	must.Until(h.t, "a party", func() bool {
		return h.joined() == len(recipients)-apart && (apart == 0 || int(g.came.Load()) == 1+apart)
	})
	g.unbar()
	var answers []string
	for _, id := range ids {
		answers = append(answers, h.answerTo(id))
	}
	if len(h.twice) > 0 {
		h.t.Error("answered twice:", h.twice)
	}
	return answers
}

// transactions ends the host, and shows the recipients of each transaction that came to an end.
func (h *host) transactions(g *gate, connections int) string {
	h.t.Helper()
	h.Stop()
	h.Wait()
	must.Until(h.t, "the ends of the connections", func() bool { return len(g.Conversations()) == connections })
	var all []string
	for _, c := range g.Conversations() {
		for _, tx := range c.Transactions {
			local := make([]string, len(tx.Recipients))
			for i, r := range tx.Recipients {
				local[i], _, _ = strings.Cut(r, "@")
			}
			if tx.Accepted {
				all = append(all, strings.Join(local, "+"))
			} else {
				all = append(all, "("+strings.Join(local, "+")+")")
			}
		}
	}
	g.check(h.t)
	return strings.Join(all, " ")
}

// refuses is an Answer for a command that has some word in it, or for the message to a recipient.
func refuses(phase smtptest.Phase, word string, act smtptest.Action) func(*smtptest.Exchange) smtptest.Action {
	return func(e *smtptest.Exchange) smtptest.Action {
		to := strings.Contains(e.Line, word)
		if phase == smtptest.DATA || phase == smtptest.Message {
			to = strings.Contains(strings.Join(e.Transaction.Recipients, " "), word)
		}
		if e.Phase == phase && to {
			return act
		}
		return smtptest.Action{}
	}
}

// Each delivery of a group gets the answer that it would have had alone.
func TestTogether_answers(t *testing.T) {
	pipelining := []string{"PIPELINING"}
	const (
		accepted  = "K127.0.0.1 accepted message."
		duplicate = "ZConnected to 127.0.0.1 but connection died. Possible duplicate! "
	)
	for _, test := range []struct {
		name        string
		answer      func(*smtptest.Exchange) smtptest.Action
		want        string   // the letter of each
		texts       []string // in the answers; empty: anything
		connections int
		wire        string // the recipients of each transaction, in brackets where it was not accepted
	}{
		{"all", nil, "KKKK", []string{accepted}, 1, "a+b+c+d"},
		{"one refused", refuses(smtptest.RCPT, "b@", say("550 no b")), "KDKK", []string{"", "550 no b\nGiving up on 127.0.0.1."}, 1, "a+c+d"},
		{"one deferred", refuses(smtptest.RCPT, "a@", say("450 no a")), "ZKKK", []string{"450 no a\nGiving up on 127.0.0.1."}, 1, "b+c+d"},
		{"too many", func(e *smtptest.Exchange) smtptest.Action {
			if e.Phase == smtptest.RCPT && len(e.Transaction.Recipients) == 2 {
				return say("452 too many")
			}
			return smtptest.Action{}
		}, "KKKK", nil, 1, "a+b c+d"},
		{"552", func(e *smtptest.Exchange) smtptest.Action {
			if e.Phase == smtptest.RCPT && len(e.Transaction.Recipients) == 3 {
				return say("552 too many")
			}
			return smtptest.Action{}
		}, "KKKK", nil, 1, "a+b+c d"},
		{"deferred twice", refuses(smtptest.RCPT, "d@", say("451 no d")), "KKKZ", []string{"", "", "", "451 no d\nGiving up"}, 1, "a+b+c ()"},
		{"MAIL refused", refuses(smtptest.MAIL, "s@", say("550 no")), "DDDD", []string{"550 no"}, 1, ""},
		{"the message, because of one", refuses(smtptest.Message, "c@", say("554 no c")), "KKDK", nil, 1, "(a+b+c+d) a b (c) d"},
		{"the message, for all", refuses(smtptest.Message, "@", say("554 no")), "DDDD", []string{"554 no"}, 1, "(a+b+c+d) (a)"},
		{"the message, for all, for now", refuses(smtptest.Message, "@", say("451 no")), "ZZZZ", []string{"451 no"}, 1, "(a+b+c+d) (a)"},
		{"DATA, because of one", refuses(smtptest.DATA, "c@", say("554 no c")), "KKDK", nil, 1, "(a+b+c+d) a b (c) d"},
		{"lost after the last byte", func(e *smtptest.Exchange) smtptest.Action {
			switch {
			case e.Phase == smtptest.RCPT && strings.Contains(e.Line, "b@"):
				return say("550 no b")
			case e.Phase == smtptest.Message:
				return hangUp
			}
			return smtptest.Action{}
		}, "ZDZZ", []string{duplicate, "550 no b\nGiving up on 127.0.0.1."}, 1, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			g := newGate(t, pipelining, test.answer)
			h := newHost(t, g.at, nil)
			answers := h.group(g, 0, "a", "b", "c", "d")
			letters := ""
			for i, a := range answers {
				letters += a[:1]
				if i < len(test.texts) && !strings.Contains(a, test.texts[i]) {
					t.Errorf("%d: %q", i, a)
				}
			}
			if letters != test.want {
				t.Errorf("got %q\n%s", answers, h.traced())
			}
			if wire := h.transactions(g, test.connections); test.wire != "" && wire != test.wire {
				t.Errorf("got %q, want %q\n%s", wire, test.wire, h.traced())
			}
		})
	}
}

// A 421 to RCPT has those that are left begin anew on a new connection, once.
func TestTogether_closing(t *testing.T) {
	t.Parallel()
	g := newGate(t, []string{"PIPELINING"}, func(e *smtptest.Exchange) smtptest.Action {
		if e.Phase == smtptest.RCPT && len(e.Transaction.Recipients) == 2 {
			return smtptest.Action{Reply: "421 enough", Close: true}
		}
		return smtptest.Action{}
	})
	h := newHost(t, g.at, nil)
	answers := h.group(g, 0, "a", "b", "c", "d")
	if letters(answers) != "KKKK" {
		t.Errorf("got %q\n%s", answers, h.traced())
	}
}

func letters(answers []string) string {
	all := ""
	for _, a := range answers {
		all += a[:1]
	}
	return all
}

// What cannot be sent to one recipient concerns nobody else, wherever in the group it is.
func TestTogether_malformed(t *testing.T) {
	for at := range 3 {
		t.Run(fmt.Sprint(at), func(t *testing.T) {
			t.Parallel()
			g := newGate(t, []string{"PIPELINING"}, nil)
			h := newHost(t, g.at, nil)
			recipients := []string{"a", "b"}
			recipients = slices.Insert(recipients, at, "x\x01")
			answers := h.group(g, 1, recipients...)
			want := []string{"K", "K"}
			want = slices.Insert(want, at, "D")
			if letters(answers) != strings.Join(want, "") {
				t.Errorf("got %q\n%s", answers, h.traced())
			}
			if wire := h.transactions(g, 2); wire != "a+b" && wire != "b+a" {
				t.Errorf("got %q", wire)
			}
		})
	}
}

// The same recipient twice goes in two transactions; so does who needs SMTPUTF8.
func TestTogether_apart(t *testing.T) {
	t.Parallel()
	g := newGate(t, []string{"PIPELINING", "SMTPUTF8", "8BITMIME"}, nil)
	h := newHost(t, g.at, nil)
	answers := h.group(g, 0, "a", "b", "a", "ü")
	if letters(answers) != "KKKK" {
		t.Errorf("got %q\n%s", answers, h.traced())
	}
	h.Stop()
	h.Wait()
	must.Until(t, "all messages", func() bool { return g.mails() == 3 })
	g.check(t)
}

// How many recipients a transaction may have.
func TestTogether_most(t *testing.T) {
	for _, test := range []struct {
		name       string
		extensions []string
		limits     string
		most       int
		transfers  int
	}{
		{"connectionlimits", []string{"PIPELINING"}, ":20:100:3\n", 3, 3},
		{"an entry", []string{"PIPELINING"}, ":20\n[127.0.0.1]:2:100:4\n", 4, 2},
		{"LIMITS", []string{"PIPELINING", "LIMITS RCPTMAX=2"}, ":20\n", 2, 4},
		{"no PIPELINING", nil, ":20\n", 5, 2},
		{"no PIPELINING, fewer", nil, ":20:100:3\n", 3, 3},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			g := newGate(t, test.extensions, nil)
			h := newHost(t, g.at, map[string]string{"connectionlimits": test.limits})
			answers := h.group(g, 0, "a", "b", "c", "d", "e", "f", "g", "h")
			if letters(answers) != "KKKKKKKK" {
				t.Errorf("got %q\n%s", answers, h.traced())
			}
			h.Stop()
			h.Wait()
			must.Until(t, "all messages", func() bool { return g.mails() >= test.transfers })
			n := 0
			for _, c := range g.Conversations() {
				for _, tx := range c.Transactions {
					n++
					if len(tx.Recipients) > test.most {
						t.Errorf("%d recipients", len(tx.Recipients))
					}
				}
			}
			if n != test.transfers {
				t.Errorf("%d transactions, want %d\n%s", n, test.transfers, h.traced())
			}
			g.check(t)
		})
	}
}

// Who differs in the sender, the host or the message goes apart.
func TestTogether_notTogether(t *testing.T) {
	t.Parallel()
	g := newGate(t, []string{"PIPELINING"}, nil)
	h := newHost(t, g.at, nil)
	message := h.message(text)
	h.deliver(message, "a@example.org")
	h.deliver(message, "b@example.com")
	h.deliver(h.message(text), "c@example.org")
	h.deliver(message, "d@EXAMPLE.org") // the same host
	must.Until(t, "all in parties", func() bool { return h.joined() == 4 })
	g.unbar()
	h.wait(t, 4)
	h.Stop()
	h.Wait()
	must.Until(t, "three messages", func() bool { return g.mails() >= 3 })
	if n := g.mails(); n != 3 {
		t.Errorf("%d messages\n%s", n, h.traced())
	}
}

// A server that says 421 to one of a group, and goes on all the same: nobody gets the message twice.
func TestTogether_goesOn(t *testing.T) {
	for at, name := range []string{"a", "b", "d"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var once atomic.Bool
			g := newGate(t, []string{"PIPELINING"}, func(e *smtptest.Exchange) smtptest.Action {
				if e.Phase == smtptest.RCPT && strings.Contains(e.Line, name+"@") && once.CompareAndSwap(false, true) {
					return say("421 later")
				}
				return smtptest.Action{}
			})
			h := newHost(t, g.at, nil)
			answers := h.group(g, 0, "a", "b", "c", "d")
			if letters(answers) != "KKKK" {
				t.Errorf("got %q\n%s", answers, h.traced())
			}
			want := []string{"a+b+c+d", "a+c+d b", "a+b+c d"}[at]
			wire := strings.Fields(h.transactions(g, 2))
			slices.Sort(wire) // either connection may end first
			if got := strings.Join(wire, " "); got != want {
				t.Errorf("got %q, want %q\n%s", got, want, h.traced())
			}
		})
	}
}
