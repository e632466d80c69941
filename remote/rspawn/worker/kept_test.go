package worker_test

import (
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/smtpc/smtptest"
)

// A relay is a server, with the number of its connections.
type relay struct {
	smtptest.Server
	came atomic.Int32
	at   string
}

// listen has r serve, until the test ends.
func (r *relay) listen(t *testing.T) *relay {
	r.at = smtptest.Listen(t, func(c *smtptest.Conn) {
		r.came.Add(1)
		r.Serve(c)
	})
	return r
}

// mails is how many messages were accepted on connections that are over.
func (r *relay) mails() (n int) {
	for _, c := range r.Conversations() {
		n += c.Mails
	}
	return n
}

// check holds all conversations against what a client must not do.
func (r *relay) check(t *testing.T) {
	t.Helper()
	for _, c := range r.Conversations() {
		if err := c.Violation(); err != nil {
			t.Error(err)
		}
	}
}

// on is an Act for one phase of the second transaction of a connection.
func on(phase smtptest.Phase, act smtptest.Action) func(smtptest.Point) smtptest.Action {
	return func(p smtptest.Point) smtptest.Action {
		if p.Phase == phase && p.Mail == 1 {
			return act
		}
		return smtptest.Action{}
	}
}

// say and hangUp are what servers do.
func say(reply string) smtptest.Action { return smtptest.Action{Reply: reply} }

var hangUp = smtptest.Action{Close: true}

// What a kept connection that fails comes to: the delivery begins anew on another, once, until the
// last byte is begun.
func TestKept_fails(t *testing.T) {
	for _, test := range []struct {
		name  string
		phase smtptest.Phase
		act   smtptest.Action
		anew  bool
		want  string // the beginning of the answer
	}{
		{"MAIL 450", smtptest.MAIL, say("450 no"), true, "K"},
		{"MAIL 550", smtptest.MAIL, say("550 no"), true, "K"},
		{"MAIL 421", smtptest.MAIL, say("421 no"), true, "K"},
		{"MAIL 452", smtptest.MAIL, say("452 no"), true, "K"},
		{"MAIL 503", smtptest.MAIL, say("503 no"), true, "K"},
		{"MAIL 530", smtptest.MAIL, say("530 5.7.0 no"), true, "K"},
		{"MAIL lost", smtptest.MAIL, hangUp, true, "K"},
		{"MAIL reset", smtptest.MAIL, smtptest.Action{Reset: true}, true, "K"},
		{"MAIL garbage", smtptest.MAIL, say("hello"), true, "K"},
		{"MAIL 421 and lost", smtptest.MAIL, smtptest.Action{Reply: "421 bye", Close: true}, true, "K"},
		{"RCPT 421", smtptest.RCPT, say("421 no"), true, "K"},
		{"RCPT 452", smtptest.RCPT, say("452 no"), true, "K"},
		{"RCPT lost", smtptest.RCPT, hangUp, true, "K"},
		{"RCPT garbage", smtptest.RCPT, say("hello"), true, "K"},
		{"RCPT 450", smtptest.RCPT, say("450 no"), false, "Z"},
		{"RCPT 550", smtptest.RCPT, say("550 no"), false, "D"},
		{"DATA 421", smtptest.DATA, say("421 no"), true, "K"},
		{"DATA 452", smtptest.DATA, say("452 no"), true, "K"},
		{"DATA lost", smtptest.DATA, hangUp, true, "K"},
		{"DATA garbage", smtptest.DATA, say("hello"), true, "K"},
		{"DATA 451", smtptest.DATA, say("451 no"), false, "Z"},
		{"DATA 554", smtptest.DATA, say("554 no"), false, "D"},
		{"message 421", smtptest.Message, say("421 no"), true, "K"},
		{"message 452", smtptest.Message, say("452 no"), true, "K"},
		{"message 451", smtptest.Message, say("451 no"), false, "Z"},
		{"message 554", smtptest.Message, say("554 no"), false, "D"},
		{"message lost", smtptest.Message, hangUp, false, "ZConnected to 127.0.0.1 but connection died. Possible duplicate! "},
	} {
		for _, extensions := range [][]string{nil, {"PIPELINING"}} {
			t.Run(fmt.Sprint(test.name, extensions), func(t *testing.T) {
				t.Parallel()
				r := (&relay{Server: smtptest.Server{Extensions: extensions, Act: on(test.phase, test.act)}}).listen(t)
				h := newHost(t, r.at, nil)
				if a := h.send("r1@example.org"); a[0] != 'K' {
					t.Fatal(a)
				}
				id := h.next + 1
				if a := h.send("r2@example.org"); !strings.HasPrefix(a, test.want) {
					t.Errorf("%s\n%s", a, h.traced())
				}
				connections := 1
				if test.anew {
					connections = 2
				}
				if got := int(r.came.Load()); got != connections {
					t.Errorf("%d connections\n%s", got, h.traced())
				}
				if anew := strings.Contains(h.traced(), fmt.Sprintf("%d anew: ", id)); anew != test.anew {
					t.Errorf("anew: %v\n%s", anew, h.traced())
				}
				if h.last[id] != (test.want[0] == 'K' || test.phase == smtptest.Message && test.act.Reply == "") {
					t.Errorf("the last byte is begun: %v", h.last[id])
				}
				h.Stop()
				h.Wait()
				must.Until(t, "the ends of the connections", func() bool { return len(r.Conversations()) == connections })
				if n := r.mails(); n != 1+strings.Count(test.want, "K") {
					t.Errorf("%d messages", n)
				}
				r.check(t)
			})
		}
	}
}

// A delivery begins anew once: what the new connection says is its answer.
func TestKept_once(t *testing.T) {
	var refuses atomic.Bool
	r := (&relay{Server: smtptest.Server{Act: func(p smtptest.Point) smtptest.Action {
		if p.Phase == smtptest.MAIL && refuses.Load() {
			return say("450 no")
		}
		return smtptest.Action{}
	}}}).listen(t)
	h := newHost(t, r.at, nil)
	h.send("r1@example.org")
	refuses.Store(true)
	if a := h.send("r2@example.org"); a[0] != 'Z' || !strings.Contains(a, "450 no") || r.came.Load() != 2 {
		t.Errorf("%s\n%s", a, h.traced())
	}
}

// The connection that takes the place of one that failed is kept too.
func TestKept_renewed(t *testing.T) {
	r := (&relay{Server: smtptest.Server{Act: on(smtptest.MAIL, hangUp)}}).listen(t)
	h := newHost(t, r.at, nil)
	h.send("r1@example.org")
	h.send("r2@example.org") // on the second connection
	if strings.Contains(h.traced(), "3 reuse") {
		t.Fatal(h.traced())
	}
	h.send("r3@example.org") // begins anew: its connection was kept
	if got := r.came.Load(); got != 3 || !strings.Contains(h.traced(), "3 reuse "+r.at+" (message 2)") {
		t.Errorf("%d connections\n%s", got, h.traced())
	}
}

// The server that had the kept connection is gone: the answer is that of a server that cannot be reached.
func TestKept_unreachable(t *testing.T) {
	leave := make(chan struct{})
	l := must.Get(listener())(t)
	server := &smtptest.Server{Act: on(smtptest.MAIL, hangUp)}
	go func() {
		conn, err := l.Accept()
		l.Close()
		if err == nil {
			server.Serve(smtptest.NewConn(conn))
			conn.Close()
		}
		close(leave)
	}()
	h := newHost(t, l.Addr().String(), nil)
	if a := h.send("r1@example.org"); a[0] != 'K' {
		t.Fatal(a)
	}
	if a := h.send("r2@example.org"); !strings.HasPrefix(a, "ZSorry, I wasn't able to establish an SMTP connection") {
		t.Errorf("%s\n%s", a, h.traced())
	}
	<-leave
}

func listener() (net.Listener, error) { return net.Listen("tcp", "127.0.0.1:0") }

// A kept connection that does not answer MAIL costs no delivery, with a short fuse too.
func TestKept_silent(t *testing.T) {
	t.Parallel()
	r := (&relay{Server: smtptest.Server{Act: on(smtptest.MAIL, smtptest.Action{Stall: true})}}).listen(t)
	h := newHost(t, r.at, map[string]string{"timeoutremote": "8"})
	h.send("r1@example.org")
	if a := h.send("r2@example.org"); a[0] != 'K' || r.came.Load() != 2 {
		t.Errorf("%s\n%s", a, h.traced())
	}
}

// What the server says to an idle connection, or that it closes it, is seen at once.
func TestKept_lost(t *testing.T) {
	for name, act := range map[string]smtptest.Action{
		"closed": {Reply: "250 accepted", Close: true},
		"spoken": {Reply: "250 accepted", Wait: closed, Then: "421 timeout"},
	} {
		t.Run(name, func(t *testing.T) {
			r := (&relay{Server: smtptest.Server{Act: smtptest.At(smtptest.Message, act)}}).listen(t)
			h := newHost(t, r.at, nil)
			for n := range 2 {
				if a := h.send("r@example.org"); a[0] != 'K' {
					t.Error(a)
				}
				must.Until(t, "the end of the connection", func() bool {
					c := h.Counters()
					return c.Idle+c.Busy == 0 && len(r.Conversations()) == n+1
				})
			}
			if strings.Contains(h.traced(), "reuse") {
				t.Error(h.traced())
			}
		})
	}
}

var closed = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// What decides which connection a delivery uses, and which ones are kept.
func TestKept_which(t *testing.T) {
	pipelining := []string{"PIPELINING"}
	for _, test := range []struct {
		name        string
		server      *relay
		files       map[string]string
		change      func(h *host) // between two deliveries
		connections int
	}{
		{"another message", &relay{Server: smtptest.Server{Extensions: pipelining}}, nil, nil, 1},
		{"connectionidle 0", &relay{}, map[string]string{"connectionidle": "0"}, nil, 2},
		{"connectionidle becomes 0", &relay{}, nil, func(h *host) { h.control("connectionidle", "0") }, 1},
		{"its last message", &relay{}, map[string]string{"connectionlimits": ":5:1\n"}, nil, 2},
		{"LIMITS MAILMAX", &relay{Server: smtptest.Server{Extensions: []string{"LIMITS MAILMAX=1"}}}, nil, nil, 2},
		{"another helohost", &relay{}, nil, func(h *host) { h.control("helohost", "other.example") }, 2},
		{"another route, the same server", &relay{}, nil, func(h *host) {
			h.control("smtproutes", "example.org:"+h.relay+"\n")
		}, 1},
		{"RSET", &relay{Server: smtptest.Server{Act: func(p smtptest.Point) smtptest.Action {
			if p.Phase == smtptest.RCPT && p.Mail == 0 {
				return say("550 no")
			}
			return smtptest.Action{}
		}}}, nil, nil, 1},
		{"RSET refused", &relay{Server: smtptest.Server{Act: func(p smtptest.Point) smtptest.Action {
			switch {
			case p.Phase == smtptest.RCPT && p.Mail == 0:
				return say("550 no")
			case p.Phase == smtptest.RSET:
				return say("500 what?")
			}
			return smtptest.Action{}
		}}}, nil, nil, 2},
		{"421 at first", &relay{Server: smtptest.Server{Act: func(p smtptest.Point) smtptest.Action {
			if p.Phase == smtptest.Message {
				return say("421 no")
			}
			return smtptest.Action{}
		}}}, nil, nil, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := test.server.listen(t)
			h := newHost(t, r.at, test.files)
			h.send("r1@example.org")
			must.Until(t, "the end of what it does", func() bool { return h.Counters().Busy == 0 })
			if test.change != nil {
				test.change(h)
			}
			h.send("r2@example.org")
			if n := int(r.came.Load()); n != test.connections {
				t.Errorf("%d connections\n%s", n, h.traced())
			}
			r.check(t)
		})
	}
}

// After ten refusals a connection is not kept.
func TestKept_refusals(t *testing.T) {
	r := (&relay{Server: smtptest.Server{Act: smtptest.At(smtptest.RCPT, say("550 no"))}}).listen(t)
	h := newHost(t, r.at, nil)
	for range 11 {
		h.send("r@example.org")
		must.Until(t, "the end of RSET", func() bool { return h.Counters().Busy == 0 })
	}
	if n := r.came.Load(); n != 2 {
		t.Errorf("%d connections", n)
	}
}

// What this side finds wrong is reported on a kept connection as on a new one.
func TestKept_ours(t *testing.T) {
	for _, test := range []struct {
		name, recipient, text string
		extensions            []string
	}{
		{"no SMTPUTF8", "ü@example.org", text, nil},
		{"too large", "r@example.org", strings.Repeat(text, 100), []string{"SIZE 1000"}},
		{"a partial line", "r@example.org", "Subject: test\n\nno end", nil},
		{"a bad recipient", "\x01@example.org", text, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var answers [2]string
			for kept := range answers {
				r := (&relay{Server: smtptest.Server{Extensions: test.extensions}}).listen(t)
				h := newHost(t, r.at, nil)
				if kept == 1 {
					h.send("r@example.org")
				}
				answers[kept] = h.answerTo(h.deliver(h.message(test.text), test.recipient))
				if kept == 1 && !strings.Contains(h.traced(), "2 reuse") {
					t.Error(h.traced())
				}
				must.Until(t, "the end", func() bool { return h.Counters().Busy == 0 })
				r.check(t)
			}
			if answers[0] != answers[1] {
				t.Errorf("new:  %q\nkept: %q", answers[0], answers[1])
			}
		})
	}
}

// A sender that cannot be sent, and a message that cannot be read, do not cost the kept connection of others.
func TestKept_unharmed(t *testing.T) {
	r := (&relay{}).listen(t)
	h := newHost(t, r.at, nil)
	h.send("r@example.org")
	h.answerTo(h.deliver(h.message("no end"), "r@example.org"))
	if a := h.send("r@example.org"); a[0] != 'K' || r.came.Load() != 1 {
		t.Errorf("%s, %d connections\n%s", a, r.came.Load(), h.traced())
	}
}
