package remote

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/remote/dns"
	"nightmare.mail/mxf/remote/dns/dnstest"
	"nightmare.mail/mxf/remote/report"
	"nightmare.mail/mxf/smtpc/smtptest"
	"nightmare.mail/mxf/tlsc/tlstest"
)

// house is a whole delivery of one message: a name server, an exchanger with two
// addresses of which one refuses, and everything that Deliver wants.
type house struct {
	server  *smtptest.Server
	router  *Router
	message *os.File
	trace   func(string)
}

func newHouse(t *testing.T, program string, act ...func(smtptest.Point) smtptest.Action) *house {
	t.Helper()
	right := newAuthority()
	h := &house{server: &smtptest.Server{Extensions: []string{"PIPELINING", "CHUNKING"}, TLS: right.Leaf(nil, serverName).Config()}}
	for _, does := range act {
		h.server.Act = does
	}
	exchanger := netip.MustParseAddrPort(smtptest.Listen(t, h.server.Serve))
	// A connection that a panic has left open ends with the process; here, when it is
	// found to be nobody's.
	t.Cleanup(runtime.GC)
	names := dnstest.New(t, "example.org. MX 10 mx1.example.org.\nexample.org. MX 20 "+serverName+".\n"+
		"mx1.example.org. A 127.0.0.9\n"+serverName+". A 127.0.0.1\n", nil)
	d := newTestWalk(t, func(s *control.Settings) {
		s.Protocols = []control.Protocol{{Service: "smtp", Port: exchanger.Port(), Explicit: program == control.SMTPProgram, Program: program}}
		s.TrustAnchors.File = tlstest.Bundle(t, right)
	})
	h.message, h.router = d.job.Message, d.Router
	h.router.Resolver = dns.NewClient(dns.Config{Servers: []netip.AddrPort{names.Addr}})

	return h
}

func (h *house) deliver(t *testing.T) report.Stream {
	t.Helper()
	must.Get(h.message.Seek(0, io.SeekStart))(t)
	job := &Job{Host: "example.org", Sender: "s@example.net", Recipients: []string{"r@example.org"}, Message: h.message, Trace: h.trace}
	return Deliver(t.Context(), job, func() (*Router, error) { return h.router, nil })
}

// taken counts the messages that the server has accepted.
func (h *house) taken() (n int) {
	for _, c := range h.server.Conversations() {
		if c.Accepted {
			n++
		}
	}
	return n
}

// checkPanic holds what came of a panic against the rule: one complete stream,
// temporary, unless the message had been delivered, and then it is.
func checkPanic(t *testing.T, what string, stream report.Stream, delivered func() bool) {
	t.Helper()
	raw := stream.Bytes()
	p := report.Parser{Recipients: 1}
	for text := range bytes.SplitSeq(bytes.TrimSuffix(raw, []byte{0}), []byte{0}) {
		p.Add(text)
	}
	if _, err := p.Stream(); err != nil {
		t.Errorf("%s: %v: %q", what, err, raw)
	}
	switch stream.Message.Letter {
	case report.Temporary:
	case report.Delivered:
		must.Until(t, what+": a message", delivered)
	default:
		t.Errorf("%s: %q", what, raw)
	}
}

func never() bool { return false }

// A panic anywhere is temporary: in what makes the router, in chance, and at each
// line of the trace, in whichever goroutine that is written.
func TestDeliver_panic(t *testing.T) {
	job := &Job{Host: "example.org", Sender: "s@example.net", Recipients: []string{"r@example.org"}}
	stream := Deliver(t.Context(), job, func() (*Router, error) { panic("on the way") })
	if got, want := string(stream.Bytes()), "ZInternal error: panic: on the way. (#4.3.5)\n\x00"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	stream = Deliver(t.Context(), job, func() (*Router, error) { return nil, nil })
	checkPanic(t, "no router", stream, never)

	h := newHouse(t, control.SMTPProgram)
	h.router.Rand = func() rand.Source { return chance{} }
	checkPanic(t, "chance", h.deliver(t), never)
}

type chance struct{}

func (chance) Uint64() uint64 { panic("no dice") }

func TestDeliver_panicInTrace(t *testing.T) {
	script := filepath.Join(t.TempDir(), "client")
	must.Script(t, script, `printf 'r\0Kdone\0'`)
	for _, program := range []string{control.SMTPProgram, script} {
		h := newHouse(t, program)
		var lines atomic.Int32
		h.trace = func(string) { lines.Add(1) }
		if stream := h.deliver(t); stream.Message.Letter != report.Delivered {
			t.Fatalf("without a panic: %q", stream.Bytes())
		}
		if program != script {
			h.server.Last(t) // so that it is not mistaken for one of those to come
		}
		for n := range lines.Load() {
			var count atomic.Int32
			var at atomic.Value
			h.trace = func(line string) {
				if count.Add(1) == n+1 {
					at.Store(line)
					panic(errors.New("no more paper"))
				}
			}
			before := h.taken()
			stream := h.deliver(t)
			delivered := func() bool { return program == script || h.taken() > before }
			checkPanic(t, fmt.Sprintf("line %d, %q", n+1, at.Load()), stream, delivered)
			if text := stream.Message.Text; strings.Contains(text, "goroutine ") {
				t.Errorf("a report with a stack: %q", text)
			}
		}
	}
}
