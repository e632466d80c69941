package integration

import (
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/integration/peers"
)

// A mailServer is one of the three, and in what it differs from the others.
type mailServer struct {
	name   string
	start  func(testing.TB, peers.Options) *peers.Server
	utf8   bool // SMTPUTF8 is offered
	choice bool // extensions can be left out, client certificates demanded
	tls    bool // STARTTLS works
	// empty is what it stores of a message without a byte.
	empty string
}

var mailServers = []mailServer{
	{"postfix", peers.Postfix, true, true, true, ""},
	{"exim", peers.Exim, true, true, true, "\n"},
	// Version 6.8.0p2, built with OpenSSL 3, cannot sign (its issue 1239): no
	// handshake ever succeeds. It also completes headers.
	{"opensmtpd", peers.OpenSMTPD, false, false, false, "Date: .*\nMessage-ID: .*\n\n?"},
}

// onEach runs a test on each of the servers, started with options, or on those alone that
// are good for it.
func onEach(t *testing.T, options peers.Options, good func(mailServer) bool, test func(t *testing.T, m mailServer, s *peers.Server)) {
	t.Helper()
	for _, m := range mailServers {
		if good(m) {
			t.Run(m.name, func(t *testing.T) { test(t, m, m.start(t, options)) })
		}
	}
}

func every(mailServer) bool        { return true }
func withChoice(m mailServer) bool { return m.choice }

func TestPeersSMTP(t *testing.T) {
	b := newBench(t)
	onEach(t, b.tls(), every, func(t *testing.T, m mailServer, s *peers.Server) {
		ways := []way{b.clear("mxf-remote-smtpc")}
		if m.tls {
			ways = append(ways, b.secure("mxf-ucspitlsc", "mxf-remote-smtpc"))
		}
		for _, w := range ways {
			for _, l := range letters() {
				t.Run(w.name+"/"+l.name, func(t *testing.T) {
					if l.utf8 && !m.utf8 {
						b.cannot(t, s, w, l)
						return
					}
					b.delivers(t, s, w, l, same(unixLines(l.data)))
				})
			}
			t.Run(w.name+"/empty", func(t *testing.T) { b.delivers(t, s, w, letter{name: "empty"}, like(m.empty)) })
		}
	})
}

// cannot sends a letter that the server has no extension for: the program leaves
// it to the next exchanger.
func (b *bench) cannot(t *testing.T, s *peers.Server, w way, l letter) {
	t.Helper()
	sender, recipients, _ := l.envelope(w.name)
	e := b.run(t, w, s.Addr, l.data, sender, recipients)
	if e.status != 75 || len(e.reports) > 0 || !strings.Contains(e.stderr, "SMTPUTF8") {
		t.Errorf("exit %d, reports %q, standard error %q", e.status, e.reports, e.stderr)
	}
}

// Without PIPELINING everything takes longer and arrives the same.
func TestPeersSMTPOneByOne(t *testing.T) {
	b := newBench(t)
	onEach(t, peers.Options{NoPipelining: true}, withChoice, func(t *testing.T, _ mailServer, s *peers.Server) {
		for _, l := range letters() {
			t.Run(l.name, func(t *testing.T) { b.delivers(t, s, b.clear("mxf-remote-smtpc"), l, same(unixLines(l.data))) })
		}
	})
}

// Verified TLS or nothing: a wrong name, a wrong authority, and a server that
// has no TLS at all get no mail.
func TestPeersSMTPUntrusted(t *testing.T) {
	b := newBench(t)
	onEach(t, b.tls(), every, func(t *testing.T, m mailServer, s *peers.Server) {
		for what, w := range b.strangers("mxf-ucspitlsc", "mxf-remote-smtpc") {
			b.noTLS(t, s, w, what)
		}
		b.noTLS(t, m.start(t, peers.Options{}), b.secure("mxf-ucspitlsc", "mxf-remote-smtpc"), "no TLS")
	})
}

func (b *bench) noTLS(t *testing.T, s *peers.Server, w way, what string) {
	t.Helper()
	e := b.run(t, w, s.Addr, []byte("x\n"), "", []string{"a@" + peers.Domain})
	if e.status != 76 || len(e.reports) != 0 || e.stderr == "" {
		t.Errorf("%s: exit %d, reports %q, standard error %q", what, e.status, e.reports, e.stderr)
	}
	if left := s.Stored(t, 0); len(left) != 0 {
		t.Errorf("%s: stored: %q", what, left)
	}
}

// A server that demands a client certificate gets one, and without it refuses.
func TestPeersSMTPClientCertificate(t *testing.T) {
	b := newBench(t)
	onEach(t, b.demanding(), withChoice, func(t *testing.T, _ mailServer, s *peers.Server) {
		b.delivers(t, s, b.known("mxf-ucspitlsc", "mxf-remote-smtpc"), letters()[0], same(letters()[0].data))
		b.refusesAnonymous(t, s, b.secure("mxf-ucspitlsc", "mxf-remote-smtpc"))
	})
}

// smtp-sink takes whatever comes: many at a time, each reported once.
func TestPeersSMTPSink(t *testing.T) {
	b := newBench(t)
	sink := peers.SMTPSink(t)
	const deliveries, atATime = 200, 20
	message := filepath.Join(t.TempDir(), "message")
	put(t, message, letters()[0].data)
	recipients := []string{"a@" + peers.Domain, "b@" + peers.Domain}
	w := b.clear("mxf-remote-smtpc")
	work := make(chan int)
	var workers sync.WaitGroup
	for range atATime {
		workers.Go(func() {
			for range work {
				e, err := b.try(w, sink.Addr, message, "s@client.example", recipients)
				must.Check(t, err)
				checkReports(t, e, w, recipients)
			}
		})
	}
	for i := range deliveries {
		work <- i
	}
	close(work)
	workers.Wait()
}
