package worker_test

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/remote"
	"nightmare.mail/mxf/remote/dns"
	"nightmare.mail/mxf/remote/rspawn/dialect"
	"nightmare.mail/mxf/remote/rspawn/wire"
	"nightmare.mail/mxf/remote/rspawn/worker"
	"nightmare.mail/mxf/remote/transport"
	"nightmare.mail/mxf/smtpc/smtptest"
)

// A parent remembers what it is told.
type parent struct {
	mu      sync.Mutex
	answers map[uint64]dialect.Answer
	twice   []uint64
	last    map[uint64]bool
	dropped []uint64
}

func (p *parent) Answer(answers ...worker.Answer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range answers {
		if _, answered := p.answers[a.ID]; answered {
			p.twice = append(p.twice, a.ID)
		}
		p.answers[a.ID] = a.Answer
	}
}

func (p *parent) mark(ids []uint64, begun bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, id := range ids {
		p.last[id] = begun
	}
}

func (p *parent) LastByte(ids []uint64) { p.mark(ids, true) }
func (p *parent) NotSent(ids []uint64)  { p.mark(ids, false) }

func (p *parent) Dropped(id uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dropped = append(p.dropped, id)
}

// wait waits until n deliveries are answered or dropped.
func (p *parent) wait(t *testing.T, n int) {
	t.Helper()
	must.Until(t, fmt.Sprintf("%d answers", n), func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return len(p.answers)+len(p.dropped) >= n
	})
}

// A host is a worker with its parent, and a home whose mail goes to one relay.
type host struct {
	*worker.Worker
	*parent
	t     *testing.T
	home  string
	relay string
	next  uint64

	mu    sync.Mutex
	trace []string
}

// A setup is what newHost makes a host of. The zero value will do.
type setup struct {
	slots    int               // 20, if it is 0
	resolver string            // of names; empty: nobody answers
	hears    func(line string) // each line of a trace, before it is written; may be nil
}

func newHost(t *testing.T, relay string, files map[string]string) *host {
	return setup{}.newHost(t, relay, files)
}

func (s setup) newHost(t *testing.T, relay string, files map[string]string) *host {
	h := &host{t: t, parent: &parent{answers: make(map[uint64]dialect.Answer), last: make(map[uint64]bool)}}
	all := map[string]string{"me": "me.example", "protocols": "smtp:25:0:N:Y:mxf-remote-smtpc"}
	if relay != "" {
		all["smtproutes"] = ":" + relay
	}
	for name, text := range files {
		all[name] = text
	}
	h.home, h.relay = must.Home(t, all), relay
	routers := worker.NewRouters(remote.Config{Programs: t.TempDir(), Exits: transport.Exits{Next: 75}, Now: time.Now}, cmp.Or(s.slots, 20), 250,
		&dns.Source{DNSCacheIP: cmp.Or(s.resolver, "127.0.0.1:9"), ResolvConf: "/dev/null", Now: time.Now})
	h.Worker = worker.New(worker.Config{
		Home: h.home, Parent: h.parent, Routers: routers, Now: time.Now,
		About: func(*control.Settings) string { return "test" },
		OpenTrace: func(_ string, n uint64) worker.Trace {
			return worker.Trace{Line: func(line string) {
				if s.hears != nil {
					s.hears(line)
				}
				h.mu.Lock()
				defer h.mu.Unlock()
				h.trace = append(h.trace, fmt.Sprintf("%d %s", n, line))
			}}
		},
	})
	t.Cleanup(func() {
		h.Kill()
		h.Wait()
	})
	return h
}

// control writes a control file.
func (h *host) control(name, text string) {
	must.Write(h.t, filepath.Join(h.home, "control", name), text)
}

// message writes a message file.
func (h *host) message(text string) string {
	path := filepath.Join(h.t.TempDir(), "message")
	must.Write(h.t, path, text)
	return path
}

// deliver has the worker deliver a message.
func (h *host) deliver(message, recipient string) uint64 {
	h.next++
	h.Deliver(&wire.Delivery{
		ID: h.next, MessageID: message, Host: recipient[strings.LastIndexByte(recipient, '@')+1:], Sender: "s@example.net",
		Recipient: recipient, Message: must.Get(os.Open(message))(h.t),
	})
	return h.next
}

// send delivers a new message to recipient, and returns the answer.
func (h *host) send(recipient string) string {
	h.t.Helper()
	return h.answerTo(h.deliver(h.message(text), recipient))
}

// answerTo waits for the answer of a delivery: its letter and its text.
func (h *host) answerTo(id uint64) (answer string) {
	h.t.Helper()
	must.Until(h.t, fmt.Sprintf("the answer of %d", id), func() bool {
		h.parent.mu.Lock()
		defer h.parent.mu.Unlock()
		a, answered := h.answers[id]
		answer = string(a.Letter) + a.Text
		return answered
	})
	return answer
}

// joined is how many deliveries are in parties that others may still join.
func (h *host) joined() int {
	_, members := h.Parties.Open()
	return members
}

func (h *host) traced() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return strings.Join(h.trace, "\n")
}

// ends ends the worker, which has had that many connections, each of which it has ended by QUIT.
func (h *host) ends(server *smtptest.Server, connections int) {
	h.t.Helper()
	h.Stop()
	h.Wait()
	must.Until(h.t, "the ends of connections", func() bool { return len(server.Conversations()) >= connections })
	if n := len(server.Conversations()); n != connections {
		h.t.Errorf("%d connections\n%s", n, h.traced())
	}
	for _, c := range server.Conversations() {
		if !c.Ended {
			h.t.Errorf("no QUIT after %q", c.Commands)
		}
	}
}

const text = "Subject: test\n\ntext\n"

// The next delivery finds the connection of the one before, and begins with MAIL.
func TestWorker_keeps(t *testing.T) {
	server := &smtptest.Server{}
	h := newHost(t, smtptest.Listen(t, server.Serve), nil)
	for n := range 3 {
		id := h.deliver(h.message(text), fmt.Sprintf("r%d@example.org", n))
		h.wait(t, n+1)
		if a := h.answers[id]; a.Letter != 'K' {
			t.Fatalf("%c%s\n%s", a.Letter, a.Text, h.traced())
		}
	}
	h.ends(server, 1)
}

// Deliveries of a message go in one transaction.
func TestWorker_together(t *testing.T) {
	server, greet := &smtptest.Server{}, make(chan struct{})
	h := newHost(t, smtptest.Listen(t, func(c *smtptest.Conn) {
		<-greet
		server.Serve(c)
	}), nil)
	message := h.message(text)
	for n := range 5 {
		h.deliver(message, fmt.Sprintf("r%d@example.org", n))
	}
	must.Until(t, "five deliveries in one party", func() bool { return h.joined() == 5 })
	close(greet)
	h.wait(t, 5)
	h.ends(server, 1)
	for id, a := range h.answers {
		if a.Letter != 'K' {
			t.Errorf("%d: %c%s", id, a.Letter, a.Text)
		}
	}
	if len(h.twice) > 0 {
		t.Error(h.twice)
	}
}
