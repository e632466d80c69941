package remote

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/remote/dial"
	"nightmare.mail/mxf/remote/dial/dialtest"
	"nightmare.mail/mxf/remote/policy"
	"nightmare.mail/mxf/remote/report"
	"nightmare.mail/mxf/remote/route"
	"nightmare.mail/mxf/remote/transport"
	"nightmare.mail/mxf/smtpc/smtptest"
	"nightmare.mail/mxf/tlsc/tlstest"
)

const testMessage = "Subject: x\n\nHello.\n"

// serverName is the exchanger's in every attempt, and in the certificate.
const serverName = "mx.example.org"

// newTestWalk returns a walk of a plan whose candidates will be servers of SMTP.
func newTestWalk(t *testing.T, change func(*control.Settings)) *walk {
	t.Helper()
	home := t.TempDir()
	path := filepath.Join(home, "message")
	must.Write(t, path, testMessage)
	must.Write(t, filepath.Join(home, "queue", "lock", "tcpto"), string(make([]byte, 1024)))
	message := must.Open(t, path)
	s := &control.Settings{
		Client:    control.Client{HeloHost: "me.example", TimeoutRemote: 20 * time.Second, TimeoutConnect: 10 * time.Second},
		Home:      home,
		Protocols: []control.Protocol{{Service: "smtp", Port: 25, Explicit: true, Program: control.SMTPProgram}},
	}
	if change != nil {
		change(s)
	}
	var mu sync.Mutex
	trace := func(line string) {
		mu.Lock()
		defer mu.Unlock()
		t.Log(line)
	}
	r, err := New(Config{Settings: s, Programs: home, Environ: os.Environ(), Exits: exits,
		Rand: func() mrand.Source { return mrand.NewPCG(1, 2) }})
	if err != nil {
		t.Fatal(err)
	}
	job := &Job{Host: "example.org", Sender: "s@example.net", Recipients: []string{"r@example.org"}, Message: message, Trace: trace}
	return newWalk(r, job, transport.NewMessage(job.Message), r.deadHosts(job))
}

// exits are those of the bundled programs.
var exits = transport.Exits{Next: 75, NoTLS: 76, Group: 77, NoEHLO: 78, Fuse: 124, TLS: []int{96, 97, 98}}

// through walks through candidates.
func (w *walk) through(ctx context.Context, candidates []route.Candidate) report.Stream {
	w.tried, w.reasons = make(map[spot]bool), nil
	return w.run(ctx, w.planned(ctx, candidates...))
}

// planned returns the steps of candidates.
func (w *walk) planned(ctx context.Context, candidates ...route.Candidate) []Step {
	steps, err := w.steps(ctx, candidates, make([]Published, len(candidates)), w.job, w.random(), w.dialer.Dead)
	if err != nil {
		panic(err)
	}
	return steps
}

// candidate is a server as an exchanger in the first protocol.
func (w *walk) candidate(addr netip.AddrPort) route.Candidate {
	return route.Candidate{Protocol: &w.Settings.Protocols[0], Host: serverName, Port: addr.Port(),
		Addrs: []netip.Addr{addr.Addr()}, Why: "test"}
}

// step is a candidate as the only step.
func (w *walk) step(c route.Candidate) *Step {
	return &w.planned(context.Background(), c)[0]
}

func newAuthority() *tlstest.Party { return tlstest.NewAuthority("authority") }

// deadHost makes addr a dead host by two time-outs, one of them a while ago.
func deadHost(t *testing.T, folder string, addr netip.Addr) {
	for _, ago := range []time.Duration{10 * time.Minute, time.Minute} {
		then := &dial.DeadHosts{Folder: folder, Now: func() time.Time { return time.Now().Add(-ago) }}
		then.TimedOut(t.Context(), addr)
	}
}

// A diary notes what servers are asked, in one word each: "0" is a connection to
// the first of them, "0clear" and "0tls" an envelope sender.
type diary struct {
	mu    sync.Mutex
	words []string
}

func (d *diary) note(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.words = append(d.words, fmt.Sprintf(format, args...))
}

func (d *diary) String() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return strings.Join(d.words, " ")
}

// start starts the nth server, of a kind, and returns where it is.
func (d *diary) start(t *testing.T, n int, kind string, right, wrong *tlstest.Party) netip.AddrPort {
	t.Helper()
	if kind == "away" {
		return dialtest.Refused(t)
	}
	actions := map[smtptest.Phase]smtptest.Action{
		"busy":      {Reply: "421 busy", Close: true},
		"refuses":   {Reply: "454 not now"},
		"lost mail": {Close: true},
		"451 mail":  {Reply: "451 later"},
		"550 rcpt":  {Reply: "550 no"},
		"lost rcpt": {Close: true},
	}
	at := map[string]smtptest.Phase{"busy": smtptest.Greeting, "refuses": smtptest.STARTTLS,
		"lost mail": smtptest.MAIL, "451 mail": smtptest.MAIL, "550 rcpt": smtptest.RCPT, "lost rcpt": smtptest.RCPT}
	s := &smtptest.Server{Act: func(p smtptest.Point) smtptest.Action {
		switch {
		case p.Phase == smtptest.Greeting:
			d.note("%d", n)
		case p.Phase == smtptest.MAIL && p.Secure:
			d.note("%dtls", n)
		case p.Phase == smtptest.MAIL:
			d.note("%dclear", n)
		}
		if p.Phase == at[kind] {
			return actions[smtptest.Phase(kind)]
		}
		return smtptest.Action{}
	}}
	switch kind {
	case "plain":
	case "wrong CA":
		s.TLS = wrong.Leaf(nil, serverName).Config()
	case "other name":
		s.TLS = right.Leaf(nil, "other.example.org").Config()
	case "broken":
		s.TLS = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			return nil, errors.New("broken")
		}}
	case "no such name":
		good := right.Leaf(nil, serverName).Config()
		s.TLS = &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			if hello.ServerName != "" {
				return &tls.Config{}, nil // without certificates the answer is unrecognized_name
			}
			return good, nil
		}}
	default:
		s.TLS = right.Leaf(nil, serverName).Config()
	}
	return netip.MustParseAddrPort(smtptest.Listen(t, s.Serve))
}

// Which server is asked, how, and in which order; and what is reported.
func TestAttempts(t *testing.T) {
	right, wrong := newAuthority(), newAuthority()
	anchors := tlstest.Bundle(t, right)
	for _, test := range []struct {
		strictness int
		servers    string // kinds, separated by commas
		off        bool   // TLS is
		asked      string
		report     string // pattern
	}{
		// Strictness 0.
		{0, "good", false, "0 0tls", `^K(?s).*\nTLS: TLSv1.3 \S+ verified mx.example.org$`},
		{0, "wrong CA", false, "0 0tls", `^K(?s).*\nTLS: TLSv1.3 \S+ unverified mx.example.org$`},
		{0, "plain", false, "0 0clear", `^K127.0.0.1 accepted message.\nRemote host said: [^\n]*$`},
		{0, "refuses", false, "0 0clear", `^K`},
		{0, "broken", false, "0 0 0clear", `^K`},
		{0, "broken,good", false, "0 0 0clear", `^K`},
		{0, "no such name", false, "0 0 0tls", `^K(?s).* verified mx.example.org$`},
		{0, "good", true, "0 0clear", `^K`},
		// Strictness 1: all with TLS, then in the clear, in the same order.
		{1, "plain,good", false, "0 1 1tls", `^K`},
		{1, "wrong CA,good", false, "0 0tls", `^K(?s).* unverified `},
		{1, "plain,refuses", false, "0 1 0 0clear", `^K`},
		{1, "away,broken,plain", false, "1 2 1 1clear", `^K`},
		{1, "broken,busy", false, "0 1 0 0clear", `^K`},
		{1, "no such name", false, "0 0 0tls", `^K`},
		{1, "plain,good", true, "0 0clear", `^K`},
		// Strictness 2: never in the clear, never without the name.
		{2, "good", false, "0 0tls", `^K(?s).* verified `},
		{2, "wrong CA,other name,good", false, "0 1 2 2tls", `^K(?s).* verified `},
		{2, "plain,broken,refuses,wrong CA,other name,no such name", false, "0 1 2 3 4 5",
			`^ZConnected to 127.0.0.1 but TLS could not be had: (?s).*\(#4.7.5\)\n.*1 address was tried.$`},
		{2, "other name", false, "0", `^ZConnected .*"other.example.org".*\(#4.7.5\)`},
		{2, "plain,away", false, "0", `^ZSorry, I wasn't able to establish an SMTP connection. \(#4.4.1\)\n`},
		// Fallback. From an answer to MAIL on there is no other exchanger.
		{0, "busy,good", false, "0 1 1tls", `^K`},
		{0, "away,busy", false, "1", `^ZConnected to 127.0.0.1 but greeting failed.\nRemote host said: 421 busy\n`},
		{0, "busy,away", false, "0", `^ZSorry, I wasn't able .*\nmx.example.org \(127.0.0.1\) port \d+: connection refused\n1 address was tried.$`},
		{0, "lost mail,good", false, "0 0tls 1 1tls", `^K`},
		{0, "451 mail,good", false, "0 0tls", `^ZConnected to 127.0.0.1 but sender was rejected.`},
		{0, "550 rcpt,good", false, "0 0tls", `^DGiving up on 127.0.0.1.`},
		{0, "lost rcpt,good", false, "0 0tls", `^ZConnected to 127.0.0.1 but connection died`},
		{1, "lost rcpt,good", false, "0 0tls", `^ZConnected to 127.0.0.1 but connection died`},
	} {
		t.Run(fmt.Sprintf("%d %s", test.strictness, test.servers), func(t *testing.T) {
			d := newTestWalk(t, func(s *control.Settings) {
				s.TLSStrictness = test.strictness
				if !test.off {
					s.TrustAnchors.File = anchors
				}
			})
			var seen diary
			var candidates []route.Candidate
			for n, kind := range strings.Split(test.servers, ",") {
				candidates = append(candidates, d.candidate(seen.start(t, n, kind, right, wrong)))
			}
			stream := d.through(t.Context(), candidates)
			got := string(stream.Message.Letter) + stream.Message.Text
			if !regexp.MustCompile(test.report).MatchString(got) {
				t.Errorf("reported %q", got)
			}
			if seen.String() != test.asked {
				t.Errorf("asked %q, want %q", seen.String(), test.asked)
			}
			if accepted := stream.Message.Letter == report.Delivered; accepted != (len(stream.Recipients) == 1 && stream.Recipients[0].Letter == report.Accepted) {
				t.Errorf("%c with recipients %v", stream.Message.Letter, stream.Recipients)
			}
		})
	}
}

// A server that has hung up by the time of the try without a name was still had
// without TLS: the second pass is its own.
func TestAttempts_noNameThenAway(t *testing.T) {
	d := newTestWalk(t, func(s *control.Settings) {
		s.TLSStrictness = 1
		s.TrustAnchors.File = tlstest.Bundle(t, newAuthority())
	})
	listener, addr := dialtest.Listen(t, "127.0.0.1:0")
	served := make(chan struct{})
	go func() {
		defer close(served)
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		listener.Close()
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		s := smtptest.Server{TLS: &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			return &tls.Config{}, nil
		}}}
		s.Serve(smtptest.NewConn(conn))
	}()
	d.through(t.Context(), []route.Candidate{d.candidate(addr)})
	<-served
	if n := len(d.waiting[policy.Second]); n != 1 {
		t.Errorf("%d addresses for the second pass, want 1", n)
	}
}

// The same address under another name may have the certificate for it; under the
// same name, and where it could not be connected to, it is not tried again.
func TestAttempts_sameAddress(t *testing.T) {
	right := newAuthority()
	for _, test := range []struct {
		kind, names, asked string
		want               report.Letter
	}{
		{"other name", "mx.example.org other.example.org", "0 0 0tls", report.Delivered},
		{"other name", "mx.example.org MX.example.org", "0", report.Temporary},
		{"away", "mx.example.org other.example.org", "", report.Temporary},
	} {
		d := newTestWalk(t, func(s *control.Settings) {
			s.TLSStrictness = 2
			s.TrustAnchors.File = tlstest.Bundle(t, right)
		})
		var seen diary
		addr := seen.start(t, 0, test.kind, right, nil)
		var candidates []route.Candidate
		for _, name := range strings.Fields(test.names) {
			c := d.candidate(addr)
			c.Host = name
			candidates = append(candidates, c)
		}
		stream := d.through(t.Context(), candidates)
		if stream.Message.Letter != test.want || seen.String() != test.asked {
			t.Errorf("%s: asked %q, want %q; %q", test.names, seen.String(), test.asked, stream.Message)
		}
		if len(d.reasons) > 1 {
			t.Errorf("%s: reasons %q", test.names, d.reasons)
		}
	}
}

// The twin is for an exchanger that could not be connected to.
func TestAttempts_twin(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ first, asked string }{
		{"away", "1 1clear"},
		{"busy", "0 2 2clear"},
		{"lost mail", "0 0clear 2 2clear"},
	} {
		d := newTestWalk(t, nil)
		var seen diary
		authority := newAuthority()
		var candidates []route.Candidate
		for n, kind := range []string{test.first, "plain", "plain"} {
			candidates = append(candidates, d.candidate(seen.start(t, n, kind, authority, authority)))
		}
		candidates[1].Twin = true
		stream := d.through(t.Context(), candidates)
		if stream.Message.Letter != report.Delivered || seen.String() != test.asked {
			t.Errorf("%s: asked %q, want %q; %q", test.first, seen.String(), test.asked, stream.Message)
		}
	}
}

// A port that nothing answers at, such as QMTP's behind a firewall, makes its
// address a dead host; but not for the protocol that stands by in this delivery.
func TestAttempts_deadPortTwin(t *testing.T) {
	t.Parallel()
	d := newTestWalk(t, nil)
	d.dialer.Timeout = 300 * time.Millisecond
	// One time-out long ago: the next is the second.
	then := &dial.DeadHosts{Folder: d.dialer.Dead.Folder, Now: func() time.Time { return time.Now().Add(-time.Hour) }}
	addr := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	then.TimedOut(t.Context(), addr)
	var seen diary
	twin := d.candidate(seen.start(t, 1, "plain", newAuthority(), nil))
	twin.Twin = true
	stream := d.through(t.Context(), []route.Candidate{d.candidate(dialtest.Silent(t)), twin})
	if stream.Message.Letter != report.Delivered {
		t.Errorf("%q", stream.Message)
	}
	if len(d.dialer.Dead.Skipped(t.Context(), []netip.Addr{addr})) > 0 {
		t.Error("an address that took the message is a dead host")
	}
}

// Every address is a dead host: Z 4.4.1, and nothing is connected.
func TestAttempts_allDead(t *testing.T) {
	d := newTestWalk(t, nil)
	deadHost(t, d.dialer.Dead.Folder, netip.AddrFrom4([4]byte{127, 0, 0, 1}))
	var seen diary
	stream := d.through(t.Context(), []route.Candidate{d.candidate(seen.start(t, 0, "plain", newAuthority(), nil))})
	if stream.Message.Letter != report.Temporary || !strings.Contains(stream.Message.Text, "(#4.4.1)") ||
		!strings.HasSuffix(stream.Message.Text, "\nNo address was tried.") || seen.String() != "" {
		t.Errorf("%q after %q", stream.Message, seen.String())
	}
}

// loopbacks returns n addresses of this machine, from 127.BLOCK.0.1 on.
func loopbacks(block byte, n int) []netip.Addr {
	var addrs []netip.Addr
	for i := range n {
		addrs = append(addrs, netip.AddrFrom4([4]byte{127, block, byte(i / 250), byte(1 + i%250)}))
	}
	return addrs
}

// hangUp has a server at each of addrs, on one port, that hangs up on everybody.
func hangUp(t *testing.T, addrs []netip.Addr) (port uint16) {
	t.Helper()
	for _, addr := range addrs {
		at := smtptest.ListenAt(t, netip.AddrPortFrom(addr, port).String(), func(*smtptest.Conn) {})
		port = netip.MustParseAddrPort(at).Port()
	}
	return port
}

// At most 20 addresses are tried for one delivery.
func TestAttempts_twentyAddresses(t *testing.T) {
	d := newTestWalk(t, nil)
	addrs := loopbacks(1, dial.MaxSlow+5)
	port := hangUp(t, addrs)
	first, second := d.candidate(netip.AddrPortFrom(addrs[0], port)), d.candidate(netip.AddrPortFrom(addrs[0], port))
	first.Addrs, second.Addrs = addrs[:15], addrs[15:]
	stream := d.through(t.Context(), []route.Candidate{first, second})
	if want := "\n20 addresses were tried; this is about the last."; !strings.HasSuffix(stream.Message.Text, want) {
		t.Errorf("%q", stream.Message)
	}
}

// What refuses at once does not count: not the addresses of a protocol that nobody
// speaks there. But there is an end to them.
func TestAttempts_refused(t *testing.T) {
	for refused, want := range map[int]struct{ asked, ends string }{
		dial.MaxQuick - 1: {"0 0clear", "\nRemote host said: 250 accepted"},
		dial.MaxQuick:     {"", "\n100 addresses were tried; this is about the last."},
	} {
		d := newTestWalk(t, nil)
		var seen diary
		good := seen.start(t, 0, "plain", newAuthority(), nil)
		closed := d.candidate(good)
		closed.Addrs = loopbacks(2, refused)
		stream := d.through(t.Context(), []route.Candidate{closed, d.candidate(good)})
		if !strings.HasSuffix(stream.Message.Text, want.ends) || seen.String() != want.asked {
			t.Errorf("%d: %q after %q", refused, stream.Message, seen.String())
		}
	}
}

// The same address once more, in the clear, is no further address.
func TestAttempts_twentiethInTheClear(t *testing.T) {
	d := newTestWalk(t, func(s *control.Settings) { s.UCSPITLSClient = "/bin/false" })
	addrs := loopbacks(4, dial.MaxSlow)
	port := hangUp(t, addrs)
	c := d.candidate(netip.AddrPortFrom(addrs[0], port))
	for _, addr := range addrs {
		l, failures, _ := d.connect(t.Context(), d.step(c), []netip.AddrPort{netip.AddrPortFrom(addr, port)}, nil)
		if l == nil {
			t.Fatalf("%v", failures)
		}
		l.conn.Close()
	}
	again, _, _ := d.connect(t.Context(), d.step(c), []netip.AddrPort{netip.AddrPortFrom(addrs[19], port)}, nil)
	if again == nil {
		t.Fatal("not connected once more")
	}
	again.conn.Close()
	c.Host = "other.example.org"
	if other, _, _ := d.connect(t.Context(), d.step(c), []netip.AddrPort{netip.AddrPortFrom(addrs[0], port)}, nil); other != nil {
		other.conn.Close()
		t.Error("a twenty-first trial")
	}
}

// Nor is it where the server has gone away meanwhile.
func TestAttempts_goneIsCountedOnce(t *testing.T) {
	d := newTestWalk(t, func(s *control.Settings) { s.UCSPITLSClient = "/bin/false" })
	l, addr := dialtest.Listen(t, "127.0.0.1:0")
	c := d.candidate(addr)
	made, failures, _ := d.connect(t.Context(), d.step(c), []netip.AddrPort{addr}, nil)
	if made == nil {
		t.Fatalf("%v", failures)
	}
	made.conn.Close()
	l.Close()
	before := d.budget()
	if made, failures, _ = d.connect(t.Context(), d.step(c), []netip.AddrPort{addr}, nil); made != nil || len(failures) != 1 {
		t.Fatalf("%v, %v", made, failures)
	}
	if d.budget() != before || len(d.tried) != 1 {
		t.Errorf("%+v are left, and were %+v; tried %v", d.budget(), before, d.tried)
	}
}

// What cannot be seen with qmail-tcpto is not said to be.
func TestAttempts_deadIPv6(t *testing.T) {
	d := newTestWalk(t, nil)
	addr := netip.IPv6Loopback()
	deadHost(t, d.dialer.Dead.Folder, addr)
	stream := d.through(t.Context(), []route.Candidate{d.candidate(netip.AddrPortFrom(addr, 25))})
	if text := stream.Message.Text; strings.Contains(text, "qmail-tcpto") || !strings.Contains(text, "queue/lock/tcpto6") {
		t.Errorf("%q", text)
	}
}

// The first exchanger's other addresses come before the next exchanger, each with
// the whole message.
func TestAttempts_otherAddressesFirst(t *testing.T) {
	t.Parallel()
	d := newTestWalk(t, nil)
	var seen diary
	server := func(name, address string, action smtptest.Action) (s *smtptest.Server, addr netip.AddrPort) {
		s = &smtptest.Server{Act: func(p smtptest.Point) smtptest.Action {
			if p.Phase == smtptest.Greeting {
				seen.note("%s", name)
			}
			if p.Phase == smtptest.MAIL {
				return action
			}
			return smtptest.Action{}
		}}
		return s, netip.MustParseAddrPort(smtptest.ListenAt(t, address, s.Serve))
	}
	_, one := server("first", "127.0.0.1:0", smtptest.Action{Close: true})
	_, two := server("first", fmt.Sprintf("127.0.0.2:%d", one.Port()), smtptest.Action{Close: true})
	last, three := server("last", "127.0.0.1:0", smtptest.Action{})
	first := d.candidate(one)
	first.Addrs = []netip.Addr{one.Addr(), two.Addr()}
	stream := d.through(t.Context(), []route.Candidate{first, d.candidate(three)})
	if stream.Message.Letter != report.Delivered || seen.String() != "first first last" {
		t.Fatalf("%q after %q", stream.Message, seen.String())
	}
	if got, want := string(last.Last(t).Message), strings.ReplaceAll(testMessage, "\n", "\r\n"); got != want {
		t.Errorf("arrived: %q", got)
	}
}

// No attempt is started once timeoutremote has gone by since the first.
func TestAttempts_late(t *testing.T) {
	t.Parallel()
	d := newTestWalk(t, func(s *control.Settings) { s.TimeoutRemote = time.Second })
	d.dialer.Timeout = 1100 * time.Millisecond
	var seen diary
	stream := d.through(t.Context(), []route.Candidate{d.candidate(dialtest.Silent(t)), d.candidate(seen.start(t, 1, "plain", newAuthority(), nil))})
	if stream.Message.Letter != report.Temporary || seen.String() != "" {
		t.Errorf("%q after %q", stream.Message, seen.String())
	}
}

// Without a limit for connecting, the handshake of implicit TLS has that of the
// conversation.
func TestAttempts_handshakeHasALimit(t *testing.T) {
	t.Parallel()
	for _, program := range []string{control.SMTPProgram, control.QMTPProgram} {
		d := newTestWalk(t, func(s *control.Settings) {
			s.TimeoutConnect, s.TimeoutRemote = 0, time.Second
			s.Protocols = []control.Protocol{{Service: "smtps", Implicit: true, Program: program}}
			s.TrustAnchors.File = tlstest.Bundle(t, newAuthority())
		})
		_, addr := dialtest.Listen(t, "127.0.0.1:0") // connects, and says nothing
		began := time.Now()
		stream := d.through(t.Context(), []route.Candidate{d.candidate(addr)})
		if took := time.Since(began); stream.Message.Letter != report.Temporary || took < time.Second || took > 30*time.Second {
			t.Errorf("%s: %q after %v", program, stream.Message, took)
		}
	}
}

// Refusals that are only this server's stand when all servers say the same.
func TestLastReason(t *testing.T) {
	permanent := report.New(report.NeedsSMTPUTF8, report.Facts{})
	temporary := report.New(report.ConnectionDied, report.Facts{})
	early := report.New(report.GreetingFailed, report.Facts{})
	for _, test := range []struct {
		reasons []report.Report
		want    report.Letter
	}{
		{nil, report.Temporary},
		{[]report.Report{permanent, permanent}, report.Permanent},
		{[]report.Report{permanent, temporary}, report.Temporary},
		{[]report.Report{temporary, permanent}, report.Temporary},
		{[]report.Report{early, temporary, permanent}, report.Temporary},
	} {
		d := newTestWalk(t, nil)
		d.reasons = test.reasons
		if r := d.lastReason(); r.Letter != test.want || strings.Contains(r.Text, early.Text) {
			t.Errorf("%v: %v", test.reasons, r)
		}
	}
}

// That an exchanger has no address in a family that is used is the reason only where nothing
// was tried. Even then it is no refusal: what was not asked might have said yes.
func TestAttempts_withoutAddress(t *testing.T) {
	unused := Step{Err: &report.Error{Case: report.FamilyNotUsed, Facts: report.Facts{Line: "control/families:1", Host: "mx6.example.org"}}}
	w := newTestWalk(t, nil)
	unused.Candidate = w.candidate(netip.MustParseAddrPort("[2001:db8::1]:25"))
	away := w.planned(t.Context(), w.candidate(dialtest.Refused(t)))[0]
	for _, test := range []struct {
		steps []Step
		want  string
	}{
		{[]Step{unused}, "Sorry, control/families:1 leaves mx6.example.org without an address. (#4.4.4)\nNo address was tried."},
		{[]Step{unused, away}, "connection refused\n1 address was tried."},
		{[]Step{away, unused}, "connection refused\n1 address was tried."},
	} {
		w := newTestWalk(t, nil)
		if r := w.run(t.Context(), test.steps).Message; r.Letter != report.Temporary || !strings.HasSuffix(r.Text, test.want) {
			t.Errorf("%q, want %q", r.Text, test.want)
		}
	}
	w.reasons = []report.Report{report.New(report.NeedsSMTPUTF8, report.Facts{})}
	w.without = []report.Report{report.For(unused.Err)}
	if r := w.lastReason(); r.Letter != report.Temporary || !strings.Contains(r.Text, "control/families:1") {
		t.Errorf("%+v", r)
	}
}

// Settings that contradict one another, or name what cannot be run, stop
// everything before the first lookup.
func TestNew_contradictions(t *testing.T) {
	smtp := control.Protocol{Service: "smtp", Explicit: true}
	qmtps := control.Protocol{Service: "qmtps", Implicit: true}
	qmtp := control.Protocol{Service: "qmtp"}
	anchors, missing := control.Anchors{File: tlstest.Bundle(t, newAuthority())}, control.Anchors{File: "/nowhere/anchors"}
	const key = "/nowhere/key"
	cache := t.TempDir()
	must.OK(t, os.Chmod(cache, 0o755))
	resolvers := []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53")}
	for _, test := range []struct {
		name string
		s    control.Settings
		file string // that is at fault; empty: none
	}{
		{"off", control.Settings{Protocols: []control.Protocol{smtp, qmtps}}, ""},
		{"strict", control.Settings{Protocols: []control.Protocol{smtp, qmtp}, TrustAnchors: anchors, TLSStrictness: 2}, ""},
		{"strict by a client", control.Settings{Protocols: []control.Protocol{smtp, qmtps}, TLSClient: "/bin/sh", TLSStrictness: 2}, ""},
		{"strict and off", control.Settings{Protocols: []control.Protocol{smtp, qmtps}, TLSStrictness: 2}, "control/tlsstrictness"},
		{"strict and no TLS", control.Settings{Protocols: []control.Protocol{qmtp}, TrustAnchors: anchors, TLSStrictness: 2}, "control/tlsstrictness"},
		{"a client of the other kind", control.Settings{Protocols: []control.Protocol{smtp}, TLSClient: "/bin/sh", TLSStrictness: 2}, "control/tlsstrictness"},
		{"no client", control.Settings{Protocols: []control.Protocol{smtp}, UCSPITLSClient: "/nowhere/client"}, "control/ucspitlsclient"},
		{"a folder", control.Settings{Protocols: []control.Protocol{qmtps}, TLSClient: "/"}, "control/tlsclient"},
		{"anchors", control.Settings{Protocols: []control.Protocol{smtp}, TrustAnchors: missing, TLSStrictness: 2}, "control/trustanchors"},
		{"anchors not insisted on", control.Settings{Protocols: []control.Protocol{smtp}, TrustAnchors: missing, TLSStrictness: 1}, ""},
		{"a key", control.Settings{Protocols: []control.Protocol{smtp}, TrustAnchors: anchors, ClientCert: key, ClientKey: key}, "control/clientkey"},
		{"a key for a client", control.Settings{Protocols: []control.Protocol{smtp}, UCSPITLSClient: "/bin/sh", ClientCert: key, ClientKey: key}, "control/clientkey"},
		{"a key without TLS", control.Settings{Protocols: []control.Protocol{smtp}, ClientCert: key, ClientKey: key}, ""},
		{"a foreign client and DANE", control.Settings{Protocols: []control.Protocol{qmtps}, TLSClient: "/bin/sh", TrustResolvers: resolvers}, "control/tlsclient"},
		{"a foreign client of the other kind and DANE", control.Settings{Protocols: []control.Protocol{smtp}, TLSClient: "/bin/sh", TrustResolvers: resolvers}, ""},
		{"strict and DANE alone", control.Settings{Protocols: []control.Protocol{smtp}, TrustResolvers: resolvers, TLSStrictness: 2}, "control/tlsstrictness"},
		{"MTA-STS without anchors", control.Settings{Protocols: []control.Protocol{smtp}, TrustResolvers: resolvers, MTASTS: "/nowhere"}, "control/mtasts"},
		{"MTA-STS without its folder", control.Settings{Protocols: []control.Protocol{smtp}, TrustAnchors: anchors, MTASTS: filepath.Join(cache, "none")}, "control/mtasts"},
		{"MTA-STS", control.Settings{Protocols: []control.Protocol{smtp}, TrustAnchors: anchors, MTASTS: cache}, ""},
		{"one that nothing uses", control.Settings{Protocols: []control.Protocol{smtp}, TLSClient: "/dev/null"}, "control/tlsclient"},
	} {
		test.s.IPMe, test.s.IPMeDefault = nil, false
		_, err := New(Config{Settings: &test.s})
		var malformed *control.Error
		if errors.As(err, &malformed); (err == nil) != (test.file == "") || malformed != nil && malformed.File != test.file {
			t.Errorf("%s: %v, want %q at fault", test.name, err, test.file)
		}
	}
}
