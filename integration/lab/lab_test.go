package lab

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"net/smtp"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"nightmare.mail/mxf/integration/must"
)

func newLab(t *testing.T) *Lab {
	t.Helper()
	l := must.Get(Open(t.TempDir()))(t)
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("closing the lab: %v", err)
		}
	})
	return l
}

// serve starts an SMTP server in a lab of its own.
func serve(t *testing.T, config SMTP) (*Lab, *SMTPServer) {
	t.Helper()
	l := newLab(t)
	return l, must.Get(l.SMTP(two, config))(t)
}

// dial connects to a server.
func dial(t *testing.T, s interface{ AddrPort() netip.AddrPort }) net.Conn {
	t.Helper()
	conn := must.Get(net.Dial("tcp", s.AddrPort().String()))(t)
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	return conn
}

var (
	one = netip.MustParseAddr("127.0.0.1")
	two = netip.MustParseAddr("127.0.0.2")
)

const literalZone = `
; a comment
example.org         MX    10 mx.example.org
mx.example.org      A     127.0.0.2
mx.example.org      AAAA  ::1
www.example.org     CNAME mx.example.org
lost.example.org    CNAME gone.example.org
loop.example.org    CNAME loop.example.org
deep.er.example.org TXT   "x"
broken.example      MX    !SERVFAIL
silent.example      *     !TIMEOUT
cut.example         A     !TRUNCATED
cut.example         A     127.0.0.3
old.example         MX    !NOEDNS
old.example         MX    5 mx.example.org
id.example          A     !WRONGID
id.example          A     127.0.0.4
lame.example        A     !LAME
chopped.example     A     !CUT
others.example      A     !OTHERS
contrary.example    A     !CONTRARY
contrary.example    A     127.0.0.5
noedns.example      A     !EDNSLOST
noedns.example      A     127.0.0.6
noudp.example       A     !UDPLOST
noudp.example       A     127.0.0.7
`

func TestDNSAnswersFromALiteralZone(t *testing.T) {
	l := newLab(t)
	must.OK(t, l.Zone(literalZone))
	for _, test := range []struct {
		name  string
		rtype uint16
		rcode int
		count int
	}{
		{"example.org.", dns.TypeMX, dns.RcodeSuccess, 1},
		{"EXAMPLE.org.", dns.TypeMX, dns.RcodeSuccess, 1},
		{"mx.example.org.", dns.TypeA, dns.RcodeSuccess, 1},
		{"mx.example.org.", dns.TypeMX, dns.RcodeSuccess, 0},
		{"www.example.org.", dns.TypeAAAA, dns.RcodeSuccess, 2},
		{"lost.example.org.", dns.TypeA, dns.RcodeNameError, 1},
		{"loop.example.org.", dns.TypeA, dns.RcodeSuccess, maxChain},
		{"er.example.org.", dns.TypeA, dns.RcodeSuccess, 0}, // an empty non-terminal
		{"none.example.org.", dns.TypeA, dns.RcodeNameError, 0},
		{"broken.example.", dns.TypeMX, dns.RcodeServerFailure, 0},
		{"broken.example.", dns.TypeA, dns.RcodeSuccess, 0},
		{"old.example.", dns.TypeMX, dns.RcodeSuccess, 1},
	} {
		q := new(dns.Msg).SetQuestion(test.name, test.rtype)
		m, err := dns.Exchange(q, l.DNS.Addr())
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		if m.Rcode != test.rcode || len(m.Answer) != test.count {
			t.Errorf("%s %s: %s with %d records, want %s with %d", test.name, dns.TypeToString[test.rtype],
				dns.RcodeToString[m.Rcode], len(m.Answer), dns.RcodeToString[test.rcode], test.count)
		}
	}
	if got := l.DNS.Queries()[0]; got != (Query{"example.org", "MX", "udp", "10 mx.example.org"}) {
		t.Errorf("first query %+v", got)
	}
}

func TestDNSFailsAsNamed(t *testing.T) {
	l := newLab(t)
	must.OK(t, l.Zone(literalZone))
	const answers = 300 * time.Millisecond
	for _, test := range []struct {
		network, name string
		rtype         uint16
		edns          bool
		right         func(*dns.Msg) bool // nil: there is no answer
	}{
		{"udp", "silent.example.", dns.TypeA, false, nil},
		{"udp", "cut.example.", dns.TypeA, false, func(m *dns.Msg) bool { return m.Truncated && len(m.Answer) == 0 }},
		{"tcp", "cut.example.", dns.TypeA, false, func(m *dns.Msg) bool { return len(m.Answer) == 1 }},
		{"udp", "old.example.", dns.TypeMX, true, func(m *dns.Msg) bool { return m.Rcode == dns.RcodeFormatError }},
		{"udp", "lame.example.", dns.TypeA, false, func(m *dns.Msg) bool {
			return !m.RecursionAvailable && !m.Authoritative && len(m.Answer)+len(m.Ns) == 0
		}},
		{"tcp", "chopped.example.", dns.TypeA, false, func(m *dns.Msg) bool { return m.Truncated }},
		{"udp", "others.example.", dns.TypeA, false, func(m *dns.Msg) bool {
			return len(m.Answer) == 1 && m.Answer[0].Header().Name != "others.example."
		}},
		{"udp", "contrary.example.", dns.TypeA, false, func(m *dns.Msg) bool { return m.Rcode == dns.RcodeNameError && len(m.Answer) == 1 }},
		{"udp", "noedns.example.", dns.TypeA, true, nil},
		{"udp", "noedns.example.", dns.TypeA, false, func(*dns.Msg) bool { return true }},
		{"udp", "noudp.example.", dns.TypeA, false, nil},
		{"tcp", "noudp.example.", dns.TypeA, false, func(*dns.Msg) bool { return true }},
	} {
		q := new(dns.Msg).SetQuestion(test.name, test.rtype)
		if test.edns {
			q.SetEdns0(1232, false)
		}
		m, _, err := (&dns.Client{Net: test.network, Timeout: answers}).Exchange(q, l.DNS.Addr())
		if (err == nil) != (test.right != nil) || err == nil && !test.right(m) {
			t.Errorf("%s over %s, EDNS0 %v: %v, %v", test.name, test.network, test.edns, m, err)
		}
	}
	// The library may go on to the right answer.
	q := new(dns.Msg).SetQuestion("id.example.", dns.TypeA)
	if m, _, err := (&dns.Client{Timeout: answers}).Exchange(q, l.DNS.Addr()); err == nil && len(m.Answer) != 1 {
		t.Errorf("WRONGID: %v", m)
	}
}

// An answer counts as validated where every name in it passes for signed, and only for those
// who ask.
func TestDNSMarksWhatIsSecure(t *testing.T) {
	l := newLab(t)
	must.OK(t, l.Zone(`
s.example            !SECURE
u.s.example          !INSECURE
s.u.s.example        !SECURE
mx.s.example         A     127.0.0.2
_25._tcp.mx.s.example TLSA 3 1 1 ab12
_mta-sts.s.example   TXT   "v=STSv1; " "id=1"
mx.u.s.example       A     127.0.0.3
mx.s.u.s.example     A     127.0.0.4
tou.s.example        CNAME mx.u.s.example
tos.s.example        CNAME MX.s.u.s.example
gone.s.example       CNAME nowhere.example
denied.s.example     *     !NXDOMAIN
empty.s.example      *     !NODATA
broken.s.example     *     !SERVFAIL
late.s.example       *     !TRUNCATED
late.s.example       A     127.0.0.5
other.example        A     127.0.0.6
`))
	for _, test := range []struct {
		name   string
		rtype  uint16
		secure bool
	}{
		{"s.example.", dns.TypeMX, true},
		{"MX.S.example.", dns.TypeA, true},
		{"mx.s.example.", dns.TypeAAAA, true},
		{"nowhere.s.example.", dns.TypeA, true},
		{"_25._tcp.mx.s.example.", dns.TypeTLSA, true},
		{"_mta-sts.s.example.", dns.TypeTXT, true},
		{"mx.u.s.example.", dns.TypeA, false},
		{"nowhere.u.s.example.", dns.TypeA, false},
		{"mx.s.u.s.example.", dns.TypeA, true},
		{"tou.s.example.", dns.TypeA, false},
		{"tou.s.example.", dns.TypeCNAME, true},
		{"tos.s.example.", dns.TypeA, true},
		{"gone.s.example.", dns.TypeA, false},
		{"denied.s.example.", dns.TypeA, true},
		{"empty.s.example.", dns.TypeA, true},
		{"broken.s.example.", dns.TypeA, false},
		{"late.s.example.", dns.TypeA, true},
		{"other.example.", dns.TypeA, false},
		{"as.example.", dns.TypeA, false},
	} {
		for _, asked := range []bool{true, false} {
			q := new(dns.Msg).SetQuestion(test.name, test.rtype)
			q.AuthenticatedData = asked
			client := new(dns.Client)
			if strings.HasPrefix(test.name, "late") {
				client.Net = "tcp"
			}
			m, _, err := client.Exchange(q, l.DNS.Addr())
			if err != nil || m.AuthenticatedData != (asked && test.secure) {
				t.Errorf("%s %s, AD bit %v: %v, %v", test.name, dns.TypeToString[test.rtype], asked, m, err)
			}
		}
	}
}

func TestZoneNamesTheBadLine(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"\nexample.org MX ten mx", "zone line 2"},
		{"example.org MX !WHATEVER", `unknown failure "WHATEVER"`},
		{"example.org QX !SERVFAIL", `unknown record type "QX"`},
	} {
		if _, err := ParseZone(test.text); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%q: error %v, want %q", test.text, err, test.want)
		}
	}
}

func TestPortIsSharedByAddresses(t *testing.T) {
	p := must.Get(ReservePort())(t)
	defer p.Close()
	first := must.Get(p.Listen(one))(t)
	defer first.Close()
	second := must.Get(p.Listen(two))(t)
	conn := must.Get(net.Dial("tcp", second.Addr().String()))(t)
	conn.Close()
	second.Close()
	if conn, err := net.Dial("tcp", second.Addr().String()); err == nil {
		conn.Close()
		t.Error("a closed listener's address does not refuse")
	}
	again, err := p.Listen(two)
	if err != nil {
		t.Fatalf("listening again: %v", err)
	}
	again.Close()
	three := netip.MustParseAddr("127.0.0.3")
	if conn, err := net.Dial("tcp", p.AddrPort(three).String()); err == nil {
		conn.Close()
		t.Error("a reserved address does not refuse")
	}
}

func TestBlackHoleDoesNotAnswer(t *testing.T) {
	p := must.Get(ReservePort())(t)
	defer p.Close()
	hole := must.Get(p.BlackHole(two))(t)
	defer hole.Close()
	conn, err := net.DialTimeout("tcp", p.AddrPort(two).String(), 200*time.Millisecond)
	if err == nil {
		conn.Close()
		t.Fatal("connected")
	}
	if e, ok := err.(net.Error); !ok || !e.Timeout() {
		t.Errorf("error %v, want a time-out", err)
	}
}

const dotty = "Subject: x\r\n\r\n.\r\n..dots\r\ncaf\xe9\r\n"

func TestSMTPOverSTARTTLS(t *testing.T) {
	l := newLab(t)
	cert := l.Certificate("mx.example.org")
	s := must.Get(l.SMTP(two, SMTP{Name: "mx.example.org", TLS: TLS{Certificate: cert}}))(t)
	c := must.Get(smtp.Dial(s.AddrPort().String()))(t)
	must.OK(t, c.StartTLS(&tls.Config{ServerName: "mx.example.org", RootCAs: l.Authority.Pool()}))
	for _, err := range []error{c.Mail("s@example.net"), c.Rcpt("a@example.org"), c.Rcpt("b@example.org")} {
		must.OK(t, err)
	}
	w := must.Get(c.Data())(t)
	io.WriteString(w, dotty)
	must.OK(t, w.Close())
	must.OK(t, c.Quit())
	m := l.Inbox.Messages()
	if len(m) != 1 {
		t.Fatalf("%d messages arrived", len(m))
	}
	if m[0].Sender != "s@example.net" || strings.Join(m[0].Recipients, " ") != "a@example.org b@example.org" {
		t.Errorf("envelope %q %q", m[0].Sender, m[0].Recipients)
	}
	if string(m[0].Data) != dotty {
		t.Errorf("data %q", m[0].Data)
	}
	if want := strings.NewReplacer("\r\n.", "\r\n..").Replace(dotty) + ".\r\n"; string(m[0].Wire) != want {
		t.Errorf("wire %q, want %q", m[0].Wire, want)
	}
	if state := m[0].Session.TLS(); state == nil || state.ServerName != "mx.example.org" {
		t.Errorf("TLS %+v", state)
	}
	if got := m[0].Session.Commands(); got[1] != "STARTTLS" || got[2] != "TLS EHLO localhost" {
		t.Errorf("commands %q", got)
	}
}

func TestSMTPTakesExtensionsAway(t *testing.T) {
	_, s := serve(t, SMTP{NoPipelining: true, No8BitMIME: true, Extensions: []string{"X-LAB 1"}})
	c := must.Get(smtp.Dial(s.AddrPort().String()))(t)
	defer c.Close()
	for name, want := range map[string]bool{
		"PIPELINING": false, "8BITMIME": false, "STARTTLS": false, "SIZE": true, "X-LAB": true,
	} {
		if got, _ := c.Extension(name); got != want {
			t.Errorf("%s offered: %v", name, got)
		}
	}
}

func TestSMTPPipelined(t *testing.T) {
	l, s := serve(t, SMTP{Recipients: map[string]string{"no@b": "550 5.1.1 nobody"}})
	conn := dial(t, s)
	text := textproto.NewConn(conn)
	expect := func(code int) {
		t.Helper()
		if _, _, err := text.ReadResponse(code); err != nil {
			t.Fatalf("want %d: %v", code, err)
		}
	}
	expect(220)
	io.WriteString(conn, "EHLO x\r\n")
	expect(250)
	io.WriteString(conn, "MAIL FROM:<> BODY=8BITMIME SIZE=9\r\nRCPT TO:<no@b>\r\nRCPT TO:<a@b>\r\nDATA\r\n")
	for _, code := range []int{250, 550, 250, 354} {
		expect(code)
	}
	io.WriteString(conn, "..\r\n..\r\nx\r\n.\r\nQUIT\r\n")
	expect(250)
	expect(221)
	m := l.Inbox.Messages()
	if len(m) != 1 || string(m[0].Data) != ".\r\n.\r\nx\r\n" || m[0].Parameters != "BODY=8BITMIME SIZE=9" {
		t.Fatalf("messages %+v", m)
	}
	if got := m[0].Session.Turns(); got != 4 {
		t.Errorf("%d turns, want 4", got)
	}
}

func TestSMTPMisbehavesWhereItIsTold(t *testing.T) {
	for _, text := range []string{
		"greeting=drop", "greeting=reply:421 go away", "ehlo=reset", "mail=drop", "rcpt=reply:421 bye",
		"data=drop", "body=drop", "end=drop", "end=reply:rubbish", "data=delay:1ms,reply:451 later",
	} {
		t.Run(text, func(t *testing.T) {
			step, fault, err := ParseFault(text)
			must.OK(t, err)
			l, s := serve(t, SMTP{Faults: Faults{step: fault}})
			if err := smtp.SendMail(s.AddrPort().String(), nil, "a@b", []string{"c@d"}, []byte(dotty)); err == nil {
				t.Error("delivered")
			}
			if got := len(l.Inbox.Messages()); (got == 1) != (step == End) {
				t.Errorf("%d messages arrived", got)
			}
		})
	}
}

// A message that was cut short has not arrived, however short it was, and whoever
// cut it.
func TestSMTPCutShort(t *testing.T) {
	for name, sent := range map[string]string{
		"drop": "DATA\r\nx\r\n.\r\n", "reset": "DATA\r\nx\r\n.\r\n", "client": "DATA\r\nx\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			config := SMTP{Faults: make(Faults)}
			if name == "drop" || name == "reset" {
				config.Faults[Body] = Fault{Drop: name == "drop", Reset: name == "reset"}
			}
			l, s := serve(t, config)
			conn := dial(t, s)
			must.Get(io.WriteString(conn, "EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n"+sent))(t)
			_ = conn.(*net.TCPConn).CloseWrite()
			_, _ = io.Copy(io.Discard, conn)
			if err := s.Close(); err != nil { // so that nothing can arrive any more
				t.Error(err)
			}
			if got := l.Inbox.Messages(); len(got) != 0 {
				t.Errorf("arrived: %q", got[0].Data)
			}
			if l.Inbox.Wrong() == nil {
				t.Error("nobody has noticed that commands came before the answer to EHLO")
			}
		})
	}
}

func TestQMTP(t *testing.T) {
	l := newLab(t)
	s := must.Get(l.QMTP(two, QMTP{Answers: map[string]string{"no@b": "Dnobody"}}))(t)
	conn := dial(t, s)
	io.WriteString(conn, "4:\n.\n\x00,3:s@x,13:4:no@b,3:a@b,,")
	in := bufio.NewReader(conn)
	for _, want := range []string{"Dnobody", "Kok 1"} {
		if got, err := readNetstring(in); err != nil || string(got) != want {
			t.Errorf("answer %q, %v; want %q", got, err, want)
		}
	}
	m := l.Inbox.Messages()
	if len(m) != 1 || string(m[0].Data) != ".\n\x00" || m[0].Sender != "s@x" || len(m[0].Recipients) != 1 {
		t.Errorf("messages %+v", m)
	}
}

func TestStartUpAndCloseLeaveNothing(t *testing.T) {
	l := must.Get(Open(t.TempDir()))(t)
	s := must.Get(l.SMTP(two, SMTP{Faults: Faults{Greeting: {Stall: true}}}))(t)
	conn := dial(t, s)
	must.Check(t, l.Close())
	if _, err := conn.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
		t.Errorf("the connection outlived the lab: %v", err)
	}
}

func TestVerdictIsRspawns(t *testing.T) {
	for _, test := range []struct {
		raw    string
		exit   int
		letter byte
		text   string
	}{
		{"", 0, 'Z', "qmail-remote produced no output.\n"},
		{"r\x00Kok\x00", 111, 'Z', "Unable to run qmail-remote.\n"},
		{"r\x00Kok\x00", 2, 'D', "Unable to run qmail-remote.\n"},
		{"r\x00Kok\x00", -1, 'Z', "qmail-remote crashed.\n"},
		{"r\x00Kok\x00", 0, 'K', "ok"},
		{"hno\x00Dgiving up\x00", 0, 'D', "nogiving up"},
		{"hno\n\x00Dgiving up\n\x00", 0, 'D', "no\ngiving up\n"},
		{"snot now\x00Zgiving up\x00", 0, 'Z', "not nowgiving up"},
		{"hno\x00Kfor the others\x00", 0, 'D', "no"},
		{"snot now\x00Kfor the others\x00", 0, 'Z', "not now"},
		{"Zlater\x00", 0, 'Z', "later"},
		{"Dnever\x00", 0, 'D', "never"},
		{"panic: oh\n", 0, 'D', ""},
		{"r\x00Kcut", 0, 'D', "cut"},
	} {
		if letter, text := Verdict([]byte(test.raw), test.exit); letter != test.letter || text != test.text {
			t.Errorf("%q, exit %d: %c %q, want %c %q", test.raw, test.exit, letter, text, test.letter, test.text)
		}
	}
}

func TestReportsAreOneCompleteStream(t *testing.T) {
	for _, good := range []string{"r\x00Kok\n\x00", "Zlater\n\x00", "Dno\n\x00", "hno\n\x00Dgiving up\n\x00", "r\x00K\x00"} {
		if _, err := Reports([]byte(good), 1); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{
		"", "r\x00Kok\n", "Kok\n\x00", "r\x00r\x00Kok\n\x00", "r\x00Kok\n\x00\n", "panic\n\x00", "r\x00Kok\n\x00Zmore\n\x00", "\x00Kok\n\x00",
		"r\x00Kok\x00", "hno\x00Dgiving up\n\x00",
	} {
		if _, err := Reports([]byte(bad), 1); err == nil {
			t.Errorf("%q is taken for a report stream", bad)
		}
	}
}

func TestRspawnRunsAsRspawnDoes(t *testing.T) {
	shell, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("no shell")
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "message")
	must.OK(t, os.WriteFile(path, []byte("hello\n"), 0o644))
	run := func(script string, limit time.Duration) (*Outcome, error) {
		f := must.Get(os.Open(path))(t)
		defer f.Close()
		return Rspawn(context.Background(), Delivery{
			Program: shell, Message: f, Limit: limit,
			Arguments: []string{"-c", script, "sh", "host", "sender", "recipient"},
		})
	}
	o, err := run(`read x; printf 'r\0K%s %s\n\0' "$x" "$3"`, 0)
	if err != nil || o.Letter != 'K' || o.Text != "hello recipient\n" || o.Left {
		t.Errorf("outcome %+v, %v", o, err)
	}
	if o, err = run(`echo noise >&2; exit 2`, 0); err != nil || o.Letter != 'D' || string(o.Raw) != "noise\n" || o.Exit != 2 {
		t.Errorf("outcome %+v, %v", o, err)
	}
	if _, err = run(`sleep 600`, 200*time.Millisecond); err != ErrHung {
		t.Errorf("error %v, want ErrHung", err)
	}
}
