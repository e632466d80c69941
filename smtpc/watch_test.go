package smtpc_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/smtpc"
	"nightmare.mail/mxf/smtpc/smtptest"
	"nightmare.mail/mxf/tlsc/tlstest"
)

// opened returns a session with a server, in TLS if that offers it.
func opened(t testing.TB, server *smtptest.Server) *smtpc.Session {
	t.Helper()
	return openedAt(t, smtptest.Listen(t, server.Serve))
}

func openedAt(t testing.TB, address string) *smtpc.Session {
	t.Helper()
	conn := smtptest.Dial(t, address)
	options := &smtpc.Options{HeloHost: "helo.example.org"}
	options.StartTLS = func(ctx context.Context) (net.Conn, error) {
		secure := tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
		return secure, secure.HandshakeContext(ctx)
	}
	return must.Get(smtpc.Open(t.Context(), conn, options))(t)
}

// mailTo is a short mail.
func mailTo(recipients ...string) *smtpc.Mail {
	return smtpc.NewMail("s@example.org", recipients, strings.NewReader("a: b\n\nc\n"), false)
}

// inBoth runs a test in the clear and in TLS.
func inBoth(t *testing.T, test func(t *testing.T, config *tls.Config)) {
	t.Run("clear", func(t *testing.T) { test(t, nil) })
	t.Run("TLS", func(t *testing.T) { test(t, serverTLS()) })
}

func TestWatch_wake(t *testing.T) {
	inBoth(t, func(t *testing.T, config *tls.Config) {
		for _, extensions := range [][]string{nil, {"PIPELINING"}} {
			server := &smtptest.Server{TLS: config, Extensions: extensions}
			s := opened(t, server)
			const mails = 20
			for range mails {
				if o := s.Send(t.Context(), mailTo("r@example.org")); o.Err != nil {
					t.Fatal(o.Err)
				}
				s.Watch(func() { t.Error("lost") })
				if s.Usable() {
					t.Error("usable while it is watched")
				}
				if !s.Wake() {
					t.Fatal("not usable after Wake")
				}
			}
			s.Watch(func() { t.Error("lost") })
			if !s.Quit() {
				t.Error("no QUIT")
			}
			seen := server.Last(t)
			want := "EHLO" + strings.Repeat(" MAIL RCPT DATA", mails) + " QUIT"
			if config != nil {
				want = "EHLO STARTTLS " + want
			}
			if got := verbs(seen); got != want || seen.Mails != mails {
				t.Errorf("%d mails, %s", seen.Mails, got)
			}
			must.OK(t, seen.Err)
		}
	})
}

func TestWatch_lost(t *testing.T) {
	for name, act := range map[string]smtptest.Action{
		"hangs up":           {Close: true},
		"resets":             {Reset: true},
		"says 421":           {Then: "421 bye", Stall: true},
		"says 421 and goes":  {Then: "421 bye", Close: true},
		"says an empty line": {Then: "", Stall: true},
	} {
		t.Run(name, func(t *testing.T) {
			inBoth(t, func(t *testing.T, config *tls.Config) {
				idle := make(chan struct{})
				act.Reply, act.Wait = "250 accepted", idle
				if name == "says an empty line" {
					act.Then = "\n"
				}
				s := opened(t, &smtptest.Server{TLS: config, Act: smtptest.At(smtptest.Message, act)})
				must.OK(t, s.Send(t.Context(), mailTo("r@example.org")).Err)
				var lost atomic.Int32
				called := make(chan bool)
				s.Watch(func() { lost.Add(1); called <- s.Wake() || s.Quit() })
				close(idle)
				if <-called {
					t.Error("it can be woken, or takes QUIT")
				}
				if s.Wake() || s.Usable() || lost.Load() != 1 {
					t.Errorf("lost %d times", lost.Load())
				}
			})
		})
	}
}

// A session that cannot take a mail is lost at once.
func TestWatch_unusable(t *testing.T) {
	for name, act := range map[string]func(smtptest.Point) smtptest.Action{
		"421":     at(smtptest.Message, "421 bye"),
		"unreset": at(smtptest.Message, "550 no"),
		"early":   at(smtptest.Message, "250 yes\n250 and more"),
	} {
		s := opened(t, &smtptest.Server{Act: act})
		s.Send(t.Context(), mailTo("r@example.org"))
		lost := make(chan bool)
		s.Watch(func() { close(lost); panic("lost") })
		select {
		case <-lost:
		case <-time.After(must.Patience):
			t.Error(name, "is not lost")
		}
		if s.Wake() || s.Quit() {
			t.Error(name, "usable")
		}
	}
}

// Half a record of TLS comes while the session is idle, and the rest after Wake: nothing of it
// is lost.
func TestWatch_halfARecord(t *testing.T) {
	inner, outer := tlstest.TCP(t)
	config := serverTLS()
	ready := make(chan *tls.Conn, 1)
	server := &holding{Conn: outer}
	go func() {
		secure := tls.Server(server, config)
		_ = secure.Handshake()
		ready <- secure
	}()
	client := tls.Client(inner, &tls.Config{InsecureSkipVerify: true})
	must.OK(t, client.Handshake())
	secure := <-ready
	s := must.Get(smtpc.Open(t.Context(), client, &smtpc.Options{Start: smtpc.FromMAIL, InTLS: true}))(t)
	s.Watch(func() { t.Error("lost") })
	server.hold = true
	must.Get(secure.Write([]byte("250 sender ok\r\n")))(t)
	half := len(server.held) / 2
	must.Get(outer.Write(server.held[:half]))(t)
	time.Sleep(20 * time.Millisecond) // for the goroutine to have read it; it need not
	if !s.Wake() {
		t.Fatal("not usable")
	}
	done := make(chan *smtpc.Outcome)
	go func() { done <- s.Send(t.Context(), mailTo("r@example.org")) }()
	r := bufio.NewReader(secure)
	for n, answer := range []string{"", "250 recipient ok\r\n", "354 go\r\n"} {
		must.Get(r.ReadString('\n'))(t)
		if n == 0 {
			must.Get(outer.Write(server.held[half:]))(t)
			server.hold = false
			continue
		}
		must.Get(secure.Write([]byte(answer)))(t)
	}
	for line := ""; line != ".\r\n"; line = must.Get(r.ReadString('\n'))(t) {
	}
	must.Get(secure.Write([]byte("250 yes\r\n")))(t)
	must.OK(t, (<-done).Err)
}

// A holding connection keeps what is written, if it is to.
type holding struct {
	net.Conn
	hold bool
	held []byte
}

func (h *holding) Write(p []byte) (int, error) {
	if !h.hold {
		return h.Conn.Write(p)
	}
	h.held = append(h.held, p...)
	return len(p), nil
}
