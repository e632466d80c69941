package integration

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"nightmare.mail/mxf/integration/lab"
	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/integration/peers"
)

// The servers that others wrote receive the same set of messages, and what they
// have stored is compared byte for byte.
//
//	message ─▶ mxf-remote-smtpc ─▶ Postfix, Exim, OpenSMTPD ─▶ maildir ─▶ compared
//	message ─▶ mxf-remote-qmtpc ─▶ [stunnel] ─▶ tcpserver mailfront ─▶ files ─▶ compared

const (
	peerName = "mx." + peers.Domain
	// peerPatience ends a program that does not end by itself.
	peerPatience = 2 * time.Minute
)

// A letter is one message of the set.
type letter struct {
	name       string
	data       []byte
	recipients int    // 1 when 0
	refuse     int    // every so many-th recipient is one that the server refuses; 0: none
	nobody     bool   // the sender is empty
	local      string // begins the local part of sender and recipients
	utf8       bool   // needs SMTPUTF8
}

const peerHeader = "From: s@client.example\nTo: r@peer.example\nSubject: a test\n" +
	"Date: Sun, 22 Nov 2026 08:17:00 +0000\nMessage-ID: <1@client.example>\nMIME-Version: 1.0\n" +
	"Content-Type: text/plain; charset=iso-8859-1\nContent-Transfer-Encoding: 8bit\n\n"

// letters is what every server has to store unchanged.
func letters() []letter {
	everyHigh := make([]byte, 0, 2*128)
	for b := 128; b < 256; b++ {
		everyHigh = append(everyHigh, byte(b), ' ')
	}
	message := func(body string) []byte { return []byte(peerHeader + body) }
	return []letter{
		{name: "small", data: message("hello\n")},
		{name: "no body", data: message("")},
		{name: "empty sender", data: message("a bounce\n"), nobody: true},
		{name: "8-bit", data: message(string(everyHigh) + "\n")},
		{name: "dots", data: message(".\n..\n...\n.a\n..a\na.\n\n.\n\n.\n")},
		{name: "line ends", data: message("a\r\n.\r\nb\r.\rc\r\r\nd\n.\r")},
		{name: "long lines", data: message(longLines(998, 999, 2048, 4096, 10000))},
		{name: "10 MB", data: message(text(10 << 20))},
		{name: "100 recipients", data: message("hello\n"), recipients: 100},
		{name: "some refused", data: message("hello\n"), recipients: 100, refuse: 3},
		{name: "SMTPUTF8", data: message("hello\n"), local: "jörg", utf8: true},
	}
}

func longLines(lengths ...int) string {
	var b strings.Builder
	for _, n := range lengths {
		b.WriteString("." + strings.Repeat("x", n-1) + "\n")
	}
	return b.String()
}

// text returns n bytes of lines of every length, some of which begin with dots.
func text(n int) string {
	random := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, 0, n)
	for len(b) < n-1 {
		for range min(random.IntN(200), n-1-len(b)) {
			b = append(b, "..abcdefghijklmnopqrstuvwxyz \xe4\xf6"[random.IntN(31)])
		}
		b = append(b, '\n')
	}
	return string(b[:n-1]) + "\n"
}

// unixLines is what a server that stores UNIX newlines makes of a message that
// went through SMTP: each LF, CR LF and CR is one line end.
func unixLines(data []byte) []byte {
	data = bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n"))
	return bytes.ReplaceAll(data, []byte("\r"), []byte("\n"))
}

// envelope returns sender and recipients of a letter that goes by way, and those
// recipients that will be accepted. No two letters to a server share an address.
func (l letter) envelope(way string) (sender string, recipients, accepted []string) {
	word := l.local + strings.NewReplacer(" ", "-").Replace(l.name+"-"+way)
	if !l.nobody {
		sender = word + "@client.example"
	}
	for i := range max(l.recipients, 1) {
		r := fmt.Sprintf("%s-%d@%s", word, i, peers.Domain)
		if l.refuse > 0 && i%l.refuse == 0 {
			r = peers.RefusedPrefix + r
		} else {
			accepted = append(accepted, r)
		}
		recipients = append(recipients, r)
	}
	return sender, recipients, accepted
}

// A bench is what the tests with foreign servers share: our programs, a home and
// certificates.
type bench struct {
	*issuer
	bin, otherCA        string // the programs; the certificate of another authority
	certificate, key    string
	clientCert, clientK string
	coverage            string
}

func newBench(t *testing.T) *bench {
	t.Helper()
	dir := t.TempDir()
	b := &bench{issuer: newIssuer(t, dir, "peers"), bin: programs(t), coverage: coverageIfAny(t)}
	b.newHome(t, "home")
	b.otherCA = newIssuer(t, dir, "others").ca
	b.certificate, b.key = b.issue(t, "server", peerName)
	b.clientCert, b.clientK = b.issue(t, "client", "client.example")
	return b
}

// tls are the options of a server that has TLS.
func (b *bench) tls() peers.Options { return peers.Options{Certificate: b.certificate, Key: b.key} }

// demanding are the options of a server that demands a client certificate too.
func (b *bench) demanding() peers.Options {
	return peers.Options{Certificate: b.certificate, Key: b.key, ClientCA: b.ca}
}

func (b *bench) newHome(t *testing.T, name string) *lab.Home {
	t.Helper()
	return must.Get(lab.NewHome(filepath.Join(b.dir, name)))(t)
}

// A way is how a message reaches a server.
type way struct {
	name    string
	chain   []string // the TLS client and its options, or nothing
	program string
	environ []string
	tls     bool // the report has to tell that it was verified TLS
	routed  bool // the program makes the connection itself
}

// tlsOptions are those that the router gives to the TLS client.
var tlsOptions = []string{"-S", "-j", "-z", "-v", "0", "-K", "60000", "-k", peerName}

// clear is a protocol program without TLS.
func (b *bench) clear(program string) way {
	return way{name: "clear", program: program, environ: b.environ("MXF_TLS=none")}
}

// secure is a protocol program under a TLS client.
func (b *bench) secure(client, program string, options ...string) way {
	chain := append([]string{filepath.Join(b.bin, client)}, tlsOptions...)
	chain = append(append(chain, options...), "--")
	return way{name: "secure", chain: chain, program: program, environ: b.environ("MXF_TLS=verify", "CAFILE="+b.ca), tls: true}
}

// strangers are ways on which the server's certificate does not verify.
func (b *bench) strangers(client, program string) map[string]way {
	stranger := b.secure(client, program)
	stranger.environ = b.environ("MXF_TLS=verify", "CAFILE="+b.otherCA)
	return map[string]way{
		"another name":      b.secure(client, program, "-k", "other.example"),
		"another authority": stranger,
	}
}

// known is a protocol program under a TLS client that has a certificate to show.
func (b *bench) known(client, program string) way {
	w := b.secure(client, program, "-y")
	w.environ = append(w.environ, "CERTFILE="+b.clientCert, "KEYFILE="+b.clientK)
	return w
}

// environ is what the router tells the chain.
func (b *bench) environ(more ...string) []string {
	return append([]string{"MXF_HOME=" + filepath.Join(b.dir, "home"), "TCPREMOTEIP=127.0.0.1", "TCPREMOTEHOST=" + peerName}, more...)
}

// An ending is how a program ended.
type ending struct {
	status  int
	reports []string
	stderr  string
}

// run runs a chain on a connection to addr.
func (b *bench) run(t *testing.T, w way, addr string, data []byte, sender string, recipients []string) ending {
	t.Helper()
	message := filepath.Join(t.TempDir(), "message")
	put(t, message, data)
	return must.Get(b.try(w, addr, message, sender, recipients))(t)
}

// try is run for goroutines that are not the test's.
func (b *bench) try(w way, addr, message, sender string, recipients []string) (e ending, err error) {
	var network *os.File
	if !w.routed {
		if network, err = connect(addr); err != nil {
			return e, err
		}
		defer network.Close()
	}
	argv := append(slices.Clone(w.chain), filepath.Join(b.bin, w.program), peers.Domain, sender)
	return b.start(network, message, w.environ, argv, recipients)
}

// start runs a command on a network, which is nil if it makes its own connection, and
// reads its reports.
func (b *bench) start(network *os.File, message string, environ, argv, recipients []string) (e ending, err error) {
	stdin, err := os.Open(message)
	if err != nil {
		return e, err
	}
	defer stdin.Close()
	ctx, cancel := context.WithTimeout(context.Background(), peerPatience)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], append(argv[1:len(argv):len(argv)], recipients...)...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "GOCOVERDIR=" + b.coverage}, environ...)
	cmd.Stdin = stdin
	if network != nil {
		cmd.ExtraFiles = []*os.File{nil, nil, nil, network, network}
	}
	got, err := finish(cmd)
	if err != nil {
		return e, err
	}
	e.status, e.stderr = got.status, got.err
	if got.out != "" {
		e.reports, err = lab.Reports([]byte(got.out), len(recipients))
	}
	return e, err
}

// connect makes a connection and returns its descriptor, in blocking mode as
// tcpclient would.
func connect(addr string) (*os.File, error) {
	conn, err := net.DialTimeout("tcp", addr, peerPatience)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.(*net.TCPConn).File()
}

// delivers sends a letter, holds the reports against what has to be in them, and
// has wrong tell what is wrong with each copy that was stored.
func (b *bench) delivers(t *testing.T, s *peers.Server, w way, l letter, wrong func(stored []byte) string) {
	t.Helper()
	sender, recipients, accepted := l.envelope(w.name)
	checkReports(t, b.run(t, w, s.Addr, l.data, sender, recipients), w, recipients)
	if !t.Failed() {
		checkStored(t, s, sender, recipients, accepted, wrong)
	}
}

// checkStored waits for what was accepted, and holds it against what was sent.
func checkStored(t *testing.T, s *peers.Server, sender string, recipients, accepted []string, wrong func(stored []byte) string) {
	t.Helper()
	copies := s.StoredWhen(t, func(all []peers.Message) bool { return len(arrived(all, accepted)) == len(accepted) })
	for _, m := range copies {
		if !addressedTo(m, recipients) {
			continue
		}
		if m.Sender != sender {
			t.Errorf("sender %q, want %q", m.Sender, sender)
		}
		if what := wrong(m.Data); what != "" {
			t.Errorf("stored: %s", what)
		}
	}
	if strange := arrived(copies, recipients); len(strange) != len(accepted) {
		t.Errorf("it was stored for %q, but only %q had been accepted", strange, accepted)
	}
}

// refusesAnonymous fails the test if a server that demands a client certificate takes a
// message from a client without one.
func (b *bench) refusesAnonymous(t *testing.T, s *peers.Server, w way) {
	t.Helper()
	e := b.run(t, w, s.Addr, []byte("x\n"), "", []string{"anonymous@" + peers.Domain})
	if e.status == 0 && strings.HasPrefix(e.reports[len(e.reports)-1], "K") {
		t.Errorf("without a certificate: reports %q", e.reports)
	}
}

// checkReports holds the reports against what the server had to say.
func checkReports(t *testing.T, e ending, w way, recipients []string) {
	t.Helper()
	if e.status != 0 || e.stderr != "" || len(e.reports) != len(recipients)+1 {
		t.Errorf("exit %d, standard error %q, %d reports for %d recipients: %q",
			e.status, e.stderr, len(e.reports), len(recipients), e.reports)
		return
	}
	for i, r := range recipients {
		report := e.reports[i]
		if strings.HasPrefix(r, peers.RefusedPrefix) {
			if !strings.HasPrefix(report, "h127.0.0.1 does not like recipient.\nRemote host said: ") {
				t.Errorf("%s is reported as %q", r, report)
			}
		} else if report != "r" {
			t.Errorf("%s is reported as %q", r, report)
		}
	}
	last := e.reports[len(recipients)]
	if !strings.HasPrefix(last, "K127.0.0.1 accepted message.\nRemote host said: ") {
		t.Errorf("the message is reported as %q", last)
	}
	_, tlsLine, found := strings.Cut(last, "\nTLS: ")
	if found != w.tls || found && !strings.HasSuffix(tlsLine, " verified "+peerName) {
		t.Errorf("the message is reported as %q", last)
	}
}

func addressedTo(m peers.Message, recipients []string) bool {
	return slices.ContainsFunc(m.Recipients, func(r string) bool { return slices.Contains(recipients, r) })
}

// arrived returns those of recipients that a copy was stored for, each as often
// as one was.
func arrived(copies []peers.Message, recipients []string) []string {
	var found []string
	for _, m := range copies {
		for _, r := range m.Recipients {
			if slices.Contains(recipients, r) {
				found = append(found, r)
			}
		}
	}
	return found
}

// same is for messages that are stored as want.
func same(want []byte) func([]byte) string {
	return func(got []byte) string {
		if bytes.Equal(got, want) {
			return ""
		}
		i := 0
		for i < min(len(got), len(want)) && got[i] == want[i] {
			i++
		}
		from := max(i-20, 0)
		return fmt.Sprintf("%d bytes, want %d; from byte %d on %.60q, want %.60q",
			len(got), len(want), from, got[from:], want[from:])
	}
}

// like is for messages that a server adds to.
func like(pattern string) func([]byte) string {
	return func(got []byte) string {
		if regexp.MustCompile(`\A(?:` + pattern + `)\z`).Match(got) {
			return ""
		}
		return fmt.Sprintf("%.200q, want %s", got, pattern)
	}
}
