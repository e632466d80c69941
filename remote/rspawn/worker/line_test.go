package worker_test

import (
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/remote/dns/dnstest"
	"nightmare.mail/mxf/smtpc/smtptest"
)

// busiest counts connections at a time.
type busiest struct {
	now, most atomic.Int32
}

func (b *busiest) enter() {
	for now := b.now.Add(1); ; {
		if most := b.most.Load(); now <= most || b.most.CompareAndSwap(most, now) {
			return
		}
	}
}

// To an address there are no more connections than the entry, the slots and the window allow.
func TestLine_limits(t *testing.T) {
	for _, test := range []struct {
		name   string
		slots  int
		limits string
		most   int32
	}{
		{"an entry", 20, ":20\n[127.0.0.1]:2\n", 2},
		{"half of the slots", 6, ":20\n", 3},
		{"one slot", 1, ":20\n", 1},
		{"an entry is not bounded by slots", 2, ":20\n[127.0.0.1]:4\n", 4},
		{"the window", 40, ":20\n", 5},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var b busiest
			more := make(chan struct{})
			server := &smtptest.Server{Act: func(p smtptest.Point) smtptest.Action {
				if p.Phase == smtptest.Message {
					<-more
				}
				return smtptest.Action{}
			}}
			at := smtptest.Listen(t, func(c *smtptest.Conn) {
				b.enter()
				defer b.now.Add(-1)
				server.Serve(c)
			})
			h := setup{slots: test.slots}.newHost(t, at, map[string]string{"connectionlimits": test.limits})
			const deliveries = 12
			for n := range deliveries {
				h.deliver(h.message(text), fmt.Sprintf("r%d@example.org", n))
			}
			must.Until(t, "all others in line", func() bool {
				c := h.Counters()
				return c.Waiting == deliveries-uint64(test.most) && c.Busy == uint64(test.most)
			})
			if most := b.most.Load(); most > test.most {
				t.Errorf("%d connections", most)
			}
			close(more)
			h.wait(t, deliveries)
			for id, a := range h.answers {
				if a.Letter != 'K' {
					t.Errorf("%d: %c%s", id, a.Letter, a.Text)
				}
			}
		})
	}
}

// Who finds no connection in time is deferred, and nobody at the last attempt.
func TestLine_full(t *testing.T) {
	at, more := make(chan struct{}, 10), make(chan struct{})
	r := (&relay{Server: smtptest.Server{Answer: held(smtptest.Message, at, more)}}).listen(t)
	h := newHost(t, r.at, map[string]string{"connectionlimits": ":1\n", "connectionwait": "1"})
	first := h.deliver(h.message(text), "a@example.org")
	<-at
	if a := h.send("b@example.org"); a != "ZSorry, 127.0.0.1 (127.0.0.1) has as many connections from here as it may (1), and none came free in 1 seconds. (#4.4.5)\n" {
		t.Errorf("%q", a)
	}
	h.control("connectionwait", "0")
	if a := h.send("c@example.org"); !strings.HasPrefix(a, "ZSorry, 127.0.0.1 (127.0.0.1) has as many") {
		t.Errorf("%q", a)
	}
	old := h.message(text)
	before := time.Now().Add(-8 * 24 * time.Hour)
	must.OK(t, os.Chtimes(old, before, before))
	last := h.deliver(old, "d@example.org")
	must.Until(t, "the last attempt in line", func() bool { return h.Counters().Waiting == 1 })
	close(more)
	if a := h.answerTo(last); a[0] != 'K' {
		t.Error(a)
	}
	if a := h.answerTo(first); a[0] != 'K' {
		t.Error(a)
	}
	if c := h.Counters(); c.DeferralsLine != 2 {
		t.Errorf("%+v", c)
	}
}

// A host of several exchangers: servers on addresses of loopback, at one port.
type exchangers struct {
	port  string
	zone  strings.Builder
	names *dnstest.Server
}

// exchanger adds one with a preference.
func (e *exchangers) add(t *testing.T, n, preference int, serve func(*smtptest.Conn)) {
	t.Helper()
	if e.port == "" {
		// A port that is free on all addresses that will be used.
		l := must.Get(net.Listen("tcp", "127.0.0.1:0"))(t)
		_, e.port, _ = net.SplitHostPort(l.Addr().String())
		l.Close()
	}
	smtptest.ListenAt(t, fmt.Sprintf("127.0.0.%d:%s", n, e.port), serve)
	fmt.Fprintf(&e.zone, "example.org. MX %d mx%d.example.org.\nmx%d.example.org. A 127.0.0.%d\n", preference, n, n, n)
}

// newHost makes the host that sends there.
func (e *exchangers) newHost(t *testing.T, files map[string]string) *host {
	e.names = dnstest.New(t, e.zone.String(), nil)
	all := map[string]string{"ipme": "192.0.2.1", "protocols": "smtp:" + e.port + ":0:N:Y:mxf-remote-smtpc"}
	for name, text := range files {
		all[name] = text
	}
	return setup{resolver: e.names.Addr.String()}.newHost(t, "", all)
}

// Among exchangers of equal preference those with a kept connection come first; a full one is passed over for
// another of these, but not for a worse one.
func TestLine_exchangers(t *testing.T) {
	var e exchangers
	var came [4]atomic.Int32
	at, more := make(chan struct{}, 10), make(chan struct{})
	var hold atomic.Bool
	server := &smtptest.Server{Act: func(p smtptest.Point) smtptest.Action {
		if p.Phase == smtptest.Message && hold.Load() {
			at <- struct{}{}
			<-more
		}
		return smtptest.Action{}
	}}
	for n, preference := range []int{10, 10, 20} {
		e.add(t, n+1, preference, func(c *smtptest.Conn) {
			came[n].Add(1)
			server.Serve(c)
		})
	}
	h := e.newHost(t, map[string]string{"connectionlimits": ":1\n"})
	for range 8 {
		if a := h.send("r@example.org"); a[0] != 'K' {
			t.Fatalf("%s\n%s", a, h.traced())
		}
	}
	if came[0].Load()+came[1].Load() != 1 {
		t.Errorf("%d and %d connections\n%s", came[0].Load(), came[1].Load(), h.traced())
	}
	hold.Store(true)
	for n := range 3 {
		h.deliver(h.message(text), fmt.Sprintf("s%d@example.org", n))
	}
	<-at
	<-at
	must.Until(t, "the third in line", func() bool { return h.Counters().Waiting == 1 })
	close(more)
	h.wait(t, 11)
	if a, b, c := came[0].Load(), came[1].Load(), came[2].Load(); a != 1 || b != 1 || c != 0 {
		t.Errorf("%d, %d, %d connections\n%s", a, b, c, h.traced())
	}
	if asked := e.names.Questions()["MX example.org"]; asked != 1 {
		t.Errorf("MX was asked for %d times", asked)
	}
}

// A server that takes three connections and says 421 to the others defers nobody, and loses no message to a
// worse exchanger.
func TestLine_wantsNoMore(t *testing.T) {
	for name, refuse := range map[string]func(c *smtptest.Conn){
		"421":     func(c *smtptest.Conn) { _ = c.Say("421 too many\n") },
		"451":     func(c *smtptest.Conn) { _ = c.Say("451 later\n"); _, _ = c.Line() },
		"hung up": func(c *smtptest.Conn) {},
		"421 to EHLO": func(c *smtptest.Conn) {
			_ = c.Say("220 hello\n")
			_, _ = c.Line()
			_ = c.Say("421 too many\n")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var e exchangers
			var mu sync.Mutex
			busy, refused := 0, 0
			server := &smtptest.Server{Extensions: []string{"PIPELINING"}}
			e.add(t, 1, 10, func(c *smtptest.Conn) {
				mu.Lock()
				full := busy >= 3
				if full {
					refused++
				} else {
					busy++
				}
				mu.Unlock()
				if full {
					refuse(c)
					return
				}
				server.Serve(c)
				mu.Lock()
				defer mu.Unlock()
				busy--
			})
			worse := new(atomic.Int32)
			e.add(t, 2, 20, func(c *smtptest.Conn) { worse.Add(1) })
			h := e.newHost(t, nil)
			const deliveries = 100
			for n := range deliveries {
				h.deliver(h.message(text), fmt.Sprintf("r%d@example.org", n))
			}
			h.wait(t, deliveries)
			for id, a := range h.answers {
				if a.Letter != 'K' {
					t.Fatalf("%d: %c%s\n%s", id, a.Letter, a.Text, h.traced())
				}
			}
			mu.Lock()
			defer mu.Unlock()
			if refused > 10 || worse.Load() > 0 {
				t.Errorf("%d were refused, %d to the worse exchanger", refused, worse.Load())
			}
		})
	}
}

// Alone, such a server refuses the delivery, which goes to the next exchanger.
func TestLine_refusesAll(t *testing.T) {
	var e exchangers
	e.add(t, 1, 10, func(c *smtptest.Conn) { _ = c.Say("421 closed\n") })
	e.add(t, 2, 20, new(smtptest.Server).Serve)
	h := e.newHost(t, nil)
	if a := h.send("r@example.org"); !strings.HasPrefix(a, "K127.0.0.2 ") {
		t.Errorf("%s\n%s", a, h.traced())
	}
}

// Never to a worse exchanger while a better one may answer, although a connection is kept to the worse.
func TestLine_better(t *testing.T) {
	var e exchangers
	var refuses atomic.Bool
	refuses.Store(true)
	better := new(smtptest.Server)
	e.add(t, 1, 10, func(c *smtptest.Conn) {
		if refuses.Load() {
			_ = c.Say("421 closed\n")
			return
		}
		better.Serve(c)
	})
	e.add(t, 2, 20, new(smtptest.Server).Serve)
	h := e.newHost(t, nil)
	if a := h.send("r@example.org"); !strings.HasPrefix(a, "K127.0.0.2 ") {
		t.Fatal(a)
	}
	refuses.Store(false)
	if a := h.send("r@example.org"); !strings.HasPrefix(a, "K127.0.0.1 ") {
		t.Errorf("%s\n%s", a, h.traced())
	}
}

// A greeting that is not SMTP says nothing of how many connections there may be: the next exchanger is tried.
func TestLine_garbage(t *testing.T) {
	var e exchangers
	var came atomic.Int32
	at, more := make(chan struct{}, 10), make(chan struct{})
	first := &smtptest.Server{Answer: held(smtptest.Message, at, more)}
	e.add(t, 1, 10, func(c *smtptest.Conn) {
		if came.Add(1) > 1 {
			_ = c.Say("hello\n")
			return
		}
		first.Serve(c)
	})
	e.add(t, 2, 20, new(smtptest.Server).Serve)
	h := e.newHost(t, nil)
	h.deliver(h.message(text), "a@example.org")
	<-at
	if a := h.send("b@example.org"); !strings.HasPrefix(a, "K127.0.0.2 ") {
		t.Errorf("%s\n%s", a, h.traced())
	}
	close(more)
}
