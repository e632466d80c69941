package smtpc_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/smtpc"
	"nightmare.mail/mxf/smtpc/smtptest"
)

// modes are the extensions of the servers of a test.
var modes = []string{lockstep, pipelining}

// OnLastByte has returned before the server can have the message.
func TestOnLastByte(t *testing.T) {
	for _, text := range []string{"", "a\n", many(2 << 20)} {
		for _, mode := range modes {
			inBoth(t, func(t *testing.T, config *tls.Config) {
				var called atomic.Int32
				server := &smtptest.Server{TLS: config, Extensions: strings.Fields(mode), Act: func(p smtptest.Point) (a smtptest.Action) {
					if p.Phase == smtptest.Message && called.Load() != 1 {
						a.Reply = fmt.Sprintf("554 called %d times", called.Load())
					}
					return a
				}}
				s := opened(t, server)
				m := smtpc.NewMail("", []string{"r@example.org"}, strings.NewReader(text), false)
				m.OnLastByte = func() { time.Sleep(time.Millisecond); called.Add(1) }
				o := s.Send(t.Context(), m)
				// The next mail has none.
				if next := s.Send(t.Context(), mailTo("q@example.org")); o.Err != nil || next.Err != nil || called.Load() != 1 {
					t.Errorf("%v, %v, called %d times", o.Err, next.Err, called.Load())
				}
				s.Quit()
			})
		}
	}
}

// Where the end of the message is not written, OnLastByte is not called.
func TestOnLastByte_never(t *testing.T) {
	for _, mode := range modes {
		for name, act := range map[string]func(smtptest.Point) smtptest.Action{
			"MAIL":          at(smtptest.MAIL, "550 no"),
			"RCPT":          at(smtptest.RCPT, "550 no"), // and 354 with PIPELINING
			"DATA":          at(smtptest.DATA, "550 no"),
			"lost at DATA":  doing(smtptest.Point{Phase: smtptest.DATA}, smtptest.Action{Close: true}),
			"more than 354": at(smtptest.DATA, "354 go\n250 queued"),
		} {
			s := opened(t, &smtptest.Server{Extensions: strings.Fields(mode), Act: act})
			m := mailTo("r@example.org")
			m.OnLastByte = func() { t.Errorf("%s, mode %q: called", name, mode) }
			if o := s.Send(t.Context(), m); o.Err == nil || o.LastByte {
				t.Errorf("%s, mode %q: %+v", name, mode, o)
			}
			s.Quit()
		}
	}
}

func TestOnLastByte_panic(t *testing.T) {
	server := &smtptest.Server{}
	s := opened(t, server)
	m := mailTo("r@example.org")
	m.OnLastByte = func() { panic("now") }
	o := s.Send(t.Context(), m)
	if o.Err == nil || !strings.Contains(o.Err.Error(), "panic while sending: now") || !o.LastByte || s.Usable() || s.Quit() {
		t.Errorf("%+v", o)
	}
}

// The end of a message is not written once the context has ended, though nobody but OnLastByte has
// had time to notice.
func TestOnLastByte_over(t *testing.T) {
	for _, mode := range modes {
		for range 20 { // the connection hears of it at any time
			server := &smtptest.Server{Extensions: strings.Fields(mode)}
			t.Run(mode, func(t *testing.T) {
				s := opened(t, server)
				ctx, cancel := context.WithCancel(t.Context())
				m := mailTo("r@example.org")
				m.OnLastByte = cancel
				if o := s.Send(ctx, m); o.Err == nil {
					t.Errorf("%+v", o)
				}
			})
			if seen := server.Last(t); seen.Mails != 0 {
				t.Fatalf("mode %q: the message has arrived", mode)
			}
		}
	}
}

// The answer to MAIL has a limit of its own. The others do not.
func TestLimits_MAIL(t *testing.T) {
	for _, mode := range modes {
		s := opened(t, &smtptest.Server{Extensions: strings.Fields(mode), Act: func(p smtptest.Point) (a smtptest.Action) {
			switch {
			case p.Phase == smtptest.MAIL && p.Mail == 1:
				a.Stall = true
			case p.Phase == smtptest.DATA:
				wait := make(chan struct{})
				time.AfterFunc(100*time.Millisecond, func() { close(wait) })
				<-wait
			}
			return a
		}})
		send := func(limit time.Duration) *smtpc.Outcome {
			m := mailTo("r@example.org")
			m.Limits = smtpc.LimitsOf(time.Hour, time.Hour)
			m.Limits.MAIL = limit
			return s.Send(t.Context(), m)
		}
		must.OK(t, send(must.Patience).Err)
		o := send(30 * time.Millisecond)
		var silence *smtpc.SilenceError
		var broken *smtpc.BrokenError
		if !errors.As(o.Err, &silence) || !errors.As(o.Err, &broken) || silence.Limit != 30*time.Millisecond || broken.Stage != smtpc.StageMAIL || o.Begun || o.LastByte {
			t.Errorf("%+v", o)
		}
		if s.Usable() {
			t.Error("usable")
		}
	}
}

// What a session is good for after each kind of refusal.
func TestReset_afterEachRefusal(t *testing.T) {
	for _, c := range []struct {
		at    smtptest.Phase
		says  string
		modes string // in which it is usable: l lockstep, p PIPELINING
	}{
		{smtptest.MAIL, "550 no", "l"}, // the server says 354 to DATA all the same
		{smtptest.RCPT, "550 no", "l"},
		{smtptest.RCPT, "450 no", "l"},
		{smtptest.DATA, "554 no", "lp"},
		{smtptest.Message, "554 no", "lp"},
		{smtptest.Message, "421 no", ""},
	} {
		for i, mode := range modes {
			server := &smtptest.Server{Extensions: strings.Fields(mode), Act: func(p smtptest.Point) (a smtptest.Action) {
				if p.Phase == c.at && p.Mail == 0 {
					a.Reply = c.says
				}
				return a
			}}
			s := opened(t, server)
			o := s.Send(t.Context(), mailTo("r@example.org"))
			usable := strings.Contains(c.modes, "lp"[i:i+1])
			if o.Err == nil || s.Usable() != usable {
				t.Errorf("%s, %s, mode %q: usable %v, %v", c.at, c.says, mode, s.Usable(), o.Err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), must.Patience)
			err := s.Reset(ctx)
			cancel()
			if next := s.Send(t.Context(), mailTo("r@example.org")); (err == nil) != usable || (next.Err == nil) != usable || s.Usable() != usable {
				t.Errorf("%s, %s, mode %q: RSET %v, then %v", c.at, c.says, mode, err, next.Err)
			}
			if s.Quit() {
				must.Check(t, server.Last(t).Violation())
			}
		}
	}
}

// Servers that refuse DATA too after all recipients were refused leave a session that is usable.
func TestReset_afterRefusedGroup(t *testing.T) {
	for _, phase := range []smtptest.Phase{smtptest.MAIL, smtptest.RCPT} {
		p := func(e *smtptest.Exchange) (a smtptest.Action) {
			switch {
			case e.Mail > 0:
			case e.Phase == phase:
				a.Reply = "550 no"
			case e.Phase == smtptest.RCPT, e.Phase == smtptest.DATA:
				a.Reply = "503 out of order"
			}
			return a
		}
		server := &smtptest.Server{Extensions: []string{"PIPELINING"}, Answer: p}
		s := opened(t, server)
		for n := range 3 {
			o := s.Send(t.Context(), mailTo("r@example.org"))
			if !s.Usable() || (o.Err == nil) != (n > 0) {
				t.Fatal(phase, o.Err)
			}
			if n == 0 {
				must.OK(t, s.Reset(t.Context()))
			}
		}
		s.Quit()
		if got, want := verbs(server.Last(t)), "EHLO MAIL RCPT DATA RSET MAIL RCPT DATA MAIL RCPT DATA QUIT"; got != want || s.Mails() != 3 {
			t.Errorf("%s, %d mails", got, s.Mails())
		}
	}
}

// A server that does not answer RSET costs what the caller gives it.
func TestReset_silent(t *testing.T) {
	s := opened(t, &smtptest.Server{Act: func(p smtptest.Point) (a smtptest.Action) {
		switch p.Phase {
		case smtptest.Message:
			a.Reply = "554 no"
		case smtptest.RSET:
			a.Stall = true
		}
		return a
	}})
	s.Send(t.Context(), mailTo("r@example.org"))
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	must.Within(t, "RSET", func() {
		if err := s.Reset(ctx); err == nil || s.Usable() {
			t.Error(err)
		}
	})
}

func TestSession_limits(t *testing.T) {
	server := &smtptest.Server{Extensions: []string{"PIPELINING", "LIMITS MAILMAX=2 RCPTMAX=1", "8BITMIME"}, Act: replies(map[smtptest.Phase][]string{
		smtptest.MAIL: {"555 what?"}, smtptest.RCPT: {"503 no", "503 no"}, smtptest.DATA: {"503 no"},
	})}
	s := opened(t, server)
	if got := s.Limits(); got != (smtpc.ServerLimits{MailMax: 2, RcptMax: 1}) || !s.Pipelines() || s.Mails() != 0 {
		t.Errorf("%+v", got)
	}
	m := smtpc.NewMail("", []string{"a@example.org", "b@example.org"}, strings.NewReader("\xff\n"), false)
	if o := s.Send(t.Context(), m); o.Err != nil || s.Mails() != 2 || o.Refusals() != 1 {
		t.Errorf("%d times MAIL, %d refusals", s.Mails(), o.Refusals())
	}
	s.Quit()
	other := opened(t, &smtptest.Server{})
	if (other.Limits() != smtpc.ServerLimits{}) || other.Pipelines() {
		t.Error("of a server that says nothing")
	}
	other.Quit()
}

// Several sessions carry many mails each, of deliveries that end on their own: with a context
// that is over at once, with a trace that must not be used any more, accepted and refused.
func TestSession_manyMails(t *testing.T) {
	const sessions, mails = 4, 150
	for _, mode := range modes {
		inBoth(t, func(t *testing.T, config *tls.Config) {
			before := runtime.NumGoroutine()
			server := &smtptest.Server{TLS: config, Extensions: strings.Fields(mode), Answer: func(e *smtptest.Exchange) (a smtptest.Action) {
				if e.Phase == smtptest.RCPT && strings.Contains(e.Line, "never") {
					a.Reply = "550 no"
				}
				if e.Phase == smtptest.DATA && len(e.Transaction.Recipients) == 0 {
					a.Reply = "554 nobody"
				}
				return a
			}}
			address := smtptest.Listen(t, server.Serve)
			var running sync.WaitGroup
			for range sessions {
				running.Go(func() {
					s := openedAt(t, address)
					for n := range mails {
						carry(t, s, n)
					}
					if !s.Quit() {
						t.Error("no QUIT")
					}
				})
			}
			running.Wait()
			must.Until(t, "the end of the conversations", func() bool { return len(server.Conversations()) == sessions })
			for _, c := range server.Conversations() {
				if c.Err != nil || c.Mails != mails-mails/3 {
					t.Errorf("%d mails, %v", c.Mails, c.Err)
				}
			}
			must.Until(t, "the end of the goroutines", func() bool { return runtime.NumGoroutine() <= before+1 }) // that of Listen
		})
	}
}

// carry sends the nth mail of a session. Each third is refused.
func carry(t *testing.T, s *smtpc.Session, n int) {
	var lines atomic.Int32
	var over atomic.Bool
	ctx, cancel := context.WithTimeoutCause(t.Context(), must.Patience, smtpc.ErrFuse)
	to, refused := fmt.Sprintf("r%d@example.org", n), n%3 == 2
	if refused {
		to = "never@example.org"
	}
	m := mailTo(to)
	m.Limits = smtpc.LimitsOf(time.Duration(n+1)*time.Minute, time.Minute)
	m.OnLastByte = func() {
		if over.Load() || refused {
			t.Errorf("mail %d: the last byte", n)
		}
	}
	m.Trace = func(line string) {
		lines.Add(1)
		if over.Load() {
			t.Errorf("mail %d: a trace of %q", n, line)
		}
	}
	o := s.Send(ctx, m)
	if (o.Err != nil) != refused || lines.Load() == 0 {
		t.Errorf("mail %d: %v, %d lines", n, o.Err, lines.Load())
	}
	if refused {
		must.Check(t, s.Reset(ctx))
	}
	over.Store(true)
	s.Watch(func() { t.Errorf("mail %d: lost", n) })
	cancel()
	if !s.Wake() {
		t.Errorf("mail %d: not usable", n)
	}
}
