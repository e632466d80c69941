package worker_test

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/smtpc/smtptest"
)

// held is an Answer that stops at a phase, as often as it says, until more is closed.
func held(phase smtptest.Phase, at chan<- struct{}, more <-chan struct{}) func(*smtptest.Exchange) smtptest.Action {
	return func(e *smtptest.Exchange) smtptest.Action {
		if e.Phase == phase {
			at <- struct{}{}
			<-more
		}
		return smtptest.Action{}
	}
}

// What becomes of a delivery when the worker is told to stop, or to cut, while the server has not answered
// something.
func TestEnd(t *testing.T) {
	for _, test := range []struct {
		phase    smtptest.Phase
		cut      bool
		answered bool
	}{
		{smtptest.Greeting, false, false},
		{smtptest.EHLO, false, false},
		{smtptest.MAIL, false, true},
		{smtptest.RCPT, false, true},
		{smtptest.DATA, false, true},
		{smtptest.Message, false, true},
		{smtptest.EHLO, true, false},
		{smtptest.MAIL, true, false},
		{smtptest.RCPT, true, false},
		{smtptest.DATA, true, false},
		{smtptest.Message, true, true},
	} {
		for _, recipients := range []int{1, 3} {
			t.Run(fmt.Sprint(test.phase, test.cut, recipients), func(t *testing.T) {
				t.Parallel()
				at, more := make(chan struct{}, 10), make(chan struct{})
				r := (&relay{Server: smtptest.Server{Extensions: []string{"PIPELINING"}, Answer: held(test.phase, at, more)}}).listen(t)
				h := newHost(t, r.at, nil)
				message := h.message(text)
				for n := range recipients {
					h.deliver(message, fmt.Sprintf("r%d@example.org", n))
				}
				<-at
				if test.cut {
					h.Cut()
				} else {
					h.Stop()
				}
				if !test.answered {
					h.wait(t, recipients)
				}
				close(more)
				late := h.deliver(h.message(text), "late@example.org")
				h.wait(t, recipients+1)
				h.Wait()
				if _, answered := h.answers[late]; answered {
					t.Error("one that came after the end was answered")
				}
				for id := range uint64(recipients) {
					a, answered := h.answers[id+1]
					if answered && a.Letter != 'K' {
						t.Errorf("%d: %c%s", id+1, a.Letter, a.Text)
					}
					if recipients == 1 && answered != test.answered || !test.answered && answered {
						t.Errorf("%d: answered: %v\n%s", id+1, answered, h.traced())
					}
					if h.last[id+1] && !answered {
						t.Errorf("%d: not answered after the last byte", id+1)
					}
				}
				if (len(h.last) > 0) != test.answered {
					t.Errorf("the last byte is begun: %v", h.last)
				}
			})
		}
	}
}

// Whatever has not sent MAIL when the worker is told to stop is not answered, however far it has come.
func TestEnd_atOnce(t *testing.T) {
	r := (&relay{}).listen(t)
	for range 50 {
		h := newHost(t, r.at, nil)
		for n := range 4 {
			h.deliver(h.message(text), fmt.Sprintf("r%d@example.org", n))
		}
		h.Stop()
		h.Wait()
		for id, a := range h.answers {
			if a.Letter != 'K' {
				t.Fatalf("%d: %c%s\n%s", id, a.Letter, a.Text, h.traced())
			}
		}
		if n := len(h.answers) + len(h.dropped); n != 4 {
			t.Fatalf("%d answers, %d dropped", len(h.answers), len(h.dropped))
		}
	}
}

// A delivery that is cut while it waits in line, or for names, is not answered.
func TestEnd_inLine(t *testing.T) {
	at, more := make(chan struct{}, 10), make(chan struct{})
	r := (&relay{Server: smtptest.Server{Answer: held(smtptest.MAIL, at, more)}}).listen(t)
	h := newHost(t, r.at, map[string]string{"connectionlimits": ":1\n"})
	h.deliver(h.message(text), "a@example.org")
	<-at
	h.deliver(h.message(text), "b@example.org")
	must.Until(t, "one in line", func() bool { return strings.Contains(h.traced(), "2 line 127.0.0.1: 1") })
	h.Stop()
	close(more)
	h.Wait()
	if len(h.answers) != 1 || len(h.dropped) != 1 || h.answers[1].Letter != 'K' {
		t.Errorf("%v, dropped %v\n%s", h.answers, h.dropped, h.traced())
	}
}

// A party that goes in several transactions is cut while one of them is under way. What is accepted is
// answered, and no further transaction is begun.
func TestEnd_severalTransactions(t *testing.T) {
	for where, here := range map[string]func(*smtptest.Exchange) bool{
		"MAIL of the second":   func(e *smtptest.Exchange) bool { return e.Phase == smtptest.MAIL && e.Mail == 1 },
		"message of the first": func(e *smtptest.Exchange) bool { return e.Phase == smtptest.Message && e.Mail == 0 },
	} {
		t.Run(where, func(t *testing.T) {
			at, more := make(chan struct{}, 10), make(chan struct{})
			g := newGate(t, []string{"PIPELINING"}, func(e *smtptest.Exchange) smtptest.Action {
				switch {
				case e.Phase == smtptest.RCPT && len(e.Transaction.Recipients) == 1:
					return say("452 one at a time")
				case here(e):
					at <- struct{}{}
					<-more
				}
				return smtptest.Action{}
			})
			h := newHost(t, g.at, nil)
			message := h.message(text)
			for n := range 3 {
				h.deliver(message, fmt.Sprintf("r%d@example.org", n))
				must.Until(t, "the order", func() bool { return h.joined() == n+1 })
			}
			g.unbar()
			<-at
			h.Cut()
			close(more)
			h.Wait()
			if len(h.answers) != 1 || h.answers[1].Letter != 'K' || len(h.dropped) != 2 {
				t.Errorf("%v, dropped %v\n%s", h.answers, h.dropped, h.traced())
			}
		})
	}
}

// What was learnt is forgotten, kept connections get QUIT, and deliveries go on.
func TestForget(t *testing.T) {
	var hold atomic.Bool
	at, more := make(chan struct{}, 10), make(chan struct{})
	r := (&relay{Server: smtptest.Server{Act: func(p smtptest.Point) smtptest.Action {
		if p.Phase == smtptest.Message && hold.Load() {
			at <- struct{}{}
			<-more
		}
		return smtptest.Action{}
	}}}).listen(t)
	h := newHost(t, r.at, nil)
	h.send("a@example.org")
	hold.Store(true)
	b := h.deliver(h.message(text), "b@example.com") // on the kept connection, which is the relay's
	<-at
	h.Forget()
	close(more)
	if a := h.answerTo(b); a[0] != 'K' {
		t.Error(a)
	}
	must.Until(t, "a kept connection", func() bool { return h.Counters().Idle == 1 })
	h.Forget()
	if c := r.Last(t); !c.Ended || c.Mails != 2 {
		t.Errorf("%+v", c)
	}
	h.send("c@example.org")
	if n := r.came.Load(); n != 2 {
		t.Errorf("%d connections", n)
	}
}

// Kept connections get QUIT at the end, whose answer is not waited for.
func TestEnd_quit(t *testing.T) {
	r := (&relay{Server: smtptest.Server{Act: smtptest.At(smtptest.QUIT, smtptest.Action{Stall: true})}}).listen(t)
	h := newHost(t, r.at, nil)
	h.send("a@example.org")
	h.Stop()
	h.Wait()
	if c := r.Last(t); !c.Ended {
		t.Errorf("%q", c.Commands)
	}
}
