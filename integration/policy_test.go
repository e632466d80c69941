package integration

import (
	"cmp"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"nightmare.mail/mxf/integration/lab"
	"nightmare.mail/mxf/integration/must"
)

// Commands of scripts for policies:
//
//	shown FILE KIND NAME [alone] what a server shows as cert=file:FILE, of a kind of certificate (see
//	                             certificate) and for NAME: certificates from the server's own upwards, or that
//	                             alone, and the key
//	tlsa VAR U S M FILE [N]      sets VAR to the data of a TLSA record about certificate N of FILE, from 0; without N
//	                             it is the server's for usages 1 and 3, and the one above it for 0 and 2. VAR_DATA is
//	                             its last field: with selector and matching 1, a pin
//	written FILE AGE             the file was last changed so long ago, or, below 0, will be
var policyCommands = map[string]command{
	"shown":   plain(3, (*rig).shown),
	"tlsa":    plain(5, (*rig).tlsaRecord),
	"written": plain(2, written),
}

func (r *rig) shown(_ *testscript.TestScript, args []string) error {
	pair, err := r.certificate(args[1], args[2], netip.Addr{})
	if err != nil {
		return err
	}
	if len(args) > 3 {
		pair.Certificate = pair.Certificate[:1]
	}
	var text []byte
	for _, der := range pair.Certificate {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	text = append(text, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})...)
	return errors.Join(err, os.WriteFile(filepath.Join(r.work, args[0]), text, 0o600))
}

func (r *rig) tlsaRecord(ts *testscript.TestScript, args []string) error {
	var numbers [3]int
	for i := range numbers {
		var err error
		if numbers[i], err = strconv.Atoi(args[1+i]); err != nil {
			return err
		}
	}
	usage, selector, matching := numbers[0], numbers[1], numbers[2]
	n := 1 - usage%2 // authorities have even numbers
	if len(args) > 5 {
		var err error
		if n, err = strconv.Atoi(args[5]); err != nil {
			return err
		}
	}
	about, err := certificateOf(filepath.Join(r.work, args[4]), n)
	if err != nil {
		return err
	}
	data := about.Raw
	if selector == 1 {
		data = about.RawSubjectPublicKeyInfo
	}
	switch matching {
	case 1:
		sum := sha256.Sum256(data)
		data = sum[:]
	case 2:
		sum := sha512.Sum512(data)
		data = sum[:]
	}
	ts.Setenv(args[0]+"_DATA", hex.EncodeToString(data))
	ts.Setenv(args[0], fmt.Sprintf("%d %d %d %x", usage, selector, matching, data))
	return nil
}

// certificateOf reads certificate n of a file, from 0.
func certificateOf(path string, n int) (*x509.Certificate, error) {
	rest, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return nil, fmt.Errorf("%s has no certificate %d", filepath.Base(path), n)
		}
		if block.Type == "CERTIFICATE" {
			if n--; n < 0 {
				return x509.ParseCertificate(block.Bytes)
			}
		}
	}
}

func written(_ *rig, ts *testscript.TestScript, args []string) error {
	age, err := time.ParseDuration(args[1])
	if err != nil {
		return err
	}
	at := time.Now().Add(-age)
	return os.Chtimes(ts.MkAbs(args[0]), at, at)
}

// What a trace says of a way: the exchanger, the port, the word, level or floor, and why.
var policyLine = regexp.MustCompile(`(?m)^\S+ \d+(?:\.\d+)? policy (\S+) \S+ (\d+): ([^:\n]+): (.*)$`)

// insists reports whether a line of the trace says that clear text is out of the question.
func insists(title, why string) bool {
	switch title {
	case "none", "may", "waived", "floor may":
		return false
	case "floor must":
		return !strings.HasPrefix(why, "control/tlsstrictness")
	}
	return true
}

// kept is the error of a delivery, whose trace is given and which messages came of, that does
// not keep a policy: a message has gone in the clear, or bounces although no server has said
// that it is to.
func kept(trace string, o *lab.Outcome, messages []*lab.Message) error {
	insisted := make(map[string]string)
	for _, line := range policyLine.FindAllStringSubmatch(trace, -1) {
		if insists(line[3], line[4]) {
			insisted[strings.ToLower(line[1])+":"+line[2]] = line[0]
		}
	}
	if len(insisted) == 0 {
		return nil
	}
	var errs []error
	for _, m := range messages {
		for _, name := range []string{strings.ToLower(m.Session.Server), m.Session.Local.Addr().String()} {
			line := insisted[name+":"+strconv.Itoa(int(m.Session.Local.Port()))]
			if line != "" && m.Session.TLS() == nil {
				errs = append(errs, fmt.Errorf("a message has gone in the clear in spite of %q", line))
			}
		}
	}
	if o.Letter == 'D' && !strings.Contains(o.Text, "Remote host said") {
		errs = append(errs, fmt.Errorf("the message bounces: %q", o.Text))
	}
	return errors.Join(errs...)
}

// A watch is a look at a lab before a delivery.
type watch struct {
	trace    string
	size     int64
	messages int
}

// watch looks at the trace and at the inbox. Scripts may have their own trace.
func (r *rig) watch(ts *testscript.TestScript) watch {
	w := watch{trace: cmp.Or(ts.Getenv("MXF_TRACE"), r.trace()), messages: len(r.Inbox.Messages())}
	if info, err := os.Stat(w.trace); err == nil && info.Mode().IsRegular() {
		w.size = info.Size()
	}
	return w
}

// kept is the error of a delivery that has not kept a policy, since w.
func (r *rig) kept(w watch, o *lab.Outcome) error {
	info, err := os.Stat(w.trace)
	if err != nil || !info.Mode().IsRegular() {
		return nil // nobody wrote a trace
	}
	text, err := os.ReadFile(w.trace)
	if err != nil {
		return err
	}
	return kept(string(text[min(int64(len(text)), w.size):]), o, r.Inbox.Messages()[w.messages:])
}

// What all scripts rely on: a message in the clear is found, where a policy is against it.
func TestKept(t *testing.T) {
	const begin = "2026-01-01T00:00:00Z 77 "
	clear := []*lab.Message{{Session: &lab.Session{Server: "mx.example.org", Local: netip.MustParseAddrPort("127.0.0.2:25")}}}
	bounce := &lab.Outcome{Letter: 'D', Text: "Sorry."}
	for _, c := range []struct {
		trace    string
		outcome  *lab.Outcome
		messages []*lab.Message
		good     bool
	}{
		{"", new(lab.Outcome), clear, true},
		{"", bounce, nil, true},
		{"policy MX.example.org smtp 25: dane: TLSA records of mx.example.org", new(lab.Outcome), clear, false},
		{"policy 127.0.0.2 smtp 25: must: control/tlspolicy:1", new(lab.Outcome), clear, false},
		{"policy mx.example.org smtp 26: dane: TLSA records of mx.example.org", new(lab.Outcome), clear, true},
		{"policy other.example.org smtp 25: dane: TLSA records of other.example.org", new(lab.Outcome), clear, true},
		{"policy mx.example.org smtp 25: dane: the lookup of its TLSA records failed", new(lab.Outcome), clear, false},
		{"policy mx.example.org smtp 25: floor must: control/tlsstrictness 1", new(lab.Outcome), clear, true},
		{"policy mx.example.org smtp 25: floor must: control/tlspolicy:2", new(lab.Outcome), clear, false},
		{"policy mx.example.org smtp 25: floor may: control/tlsstrictness 0", new(lab.Outcome), clear, true},
		{"policy mx.example.org smtp 25: waived: control/tlsstrictness 0", new(lab.Outcome), clear, true},
		{"policy mx.example.org smtp 25: none: control/tlspolicy:1", bounce, clear, true},
		{"policy mx.example.org smtp 25: sts: the MTA-STS policy of example.org", bounce, nil, false},
		{"policy mx.example.org smtp 25: sts: the MTA-STS policy of example.org", &lab.Outcome{Letter: 'D', Text: "x\nRemote host said: 550"}, nil, true},
	} {
		if err := kept(begin+c.trace+"\n", c.outcome, c.messages); (err == nil) != c.good {
			t.Errorf("%q, %c: %v", c.trace, c.outcome.Letter, err)
		}
	}
	// A look tells one delivery from those before.
	l := must.Get(lab.Open(filepath.Join(t.TempDir(), "home")))(t)
	defer l.Close()
	r := &rig{Lab: l, work: t.TempDir()}
	put(t, r.trace(), []byte(begin+"policy mx.example.org smtp 25: dane: x\n"))
	if err := r.kept(watch{trace: r.trace()}, bounce); err == nil {
		t.Error("a bounce was not found")
	}
	if err := r.kept(watch{trace: r.trace(), size: 1 << 20}, bounce); err != nil {
		t.Error(err)
	}
}

// Without the control files of policies each of their names is looked for once, by the router, and
// nothing follows from that: no question more, and no line in the trace.
func TestNoPolicy(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip(err)
	}
	l := must.Get(lab.Open(filepath.Join(t.TempDir(), "home")))(t)
	defer l.Close()
	must.OK(t, l.Home.Trust(l.Authority), l.Zone("example.org !SECURE\nexample.org MX 10 mx.example.org\nmx.example.org A 127.0.0.2\n"))
	must.Get(l.SMTP(netip.MustParseAddr("127.0.0.2"), lab.SMTP{Name: "mx.example.org", TLS: lab.TLS{Certificate: l.Certificate("mx.example.org")}}))(t)
	for i, program := range []string{"mxf-remote-smtpc", filepath.Join(programs(t), "mxf-remote-smtpc")} {
		must.OK(t, l.Home.Set("protocols", fmt.Sprintf("smtp:%d:0:N:Y:%s", l.Port("smtp"), program)))
		folder := t.TempDir()
		message, calls, trace := filepath.Join(folder, "message"), filepath.Join(folder, "calls"), filepath.Join(folder, "trace")
		put(t, message, []byte("Subject: x\n\nHello.\n"))
		cmd := exec.Command(strace, "-f", "-qq", "-s", "4096", "-e", "trace=%file,connect", "-o", calls,
			filepath.Join(programs(t), "mxf-remote"), "example.org", "a@example.net", "b@example.org")
		cmd.Env, cmd.Stdin = append(l.Environ(), "MXF_TRACE="+trace, "GOCOVERDIR="+coverageIfAny(t)), must.Open(t, message)
		got := must.Get(finish(cmd))(t)
		if !strings.Contains(got.out, "accepted message") {
			t.Skipf("under strace: exit %d, %q, %q", got.status, got.out, got.err) // which not every machine allows
		}
		text := string(must.Get(os.ReadFile(calls))(t))
		for _, name := range []string{"trustresolvers", "mtasts", "tlspolicy", "tlsrptsocket", "clearafter"} {
			if n := strings.Count(text, "/control/"+name+`"`); n != 1 {
				t.Errorf("%s: control/%s was looked for %d times", program, name, n)
			}
		}
		if strings.Contains(text, "AF_UNIX") || strings.Contains(text, "mxf-policy") {
			t.Errorf("%s: it looked for mxf-policy, or for a socket:\n%s", program, text)
		}
		if text := string(must.Get(os.ReadFile(trace))(t)); regexp.MustCompile(`(?m) (policy|sts|tlsrpt) | (in)?secure$`).MatchString(text) {
			t.Errorf("%s: it speaks of policies:\n%s", program, text)
		}
		if n := len(l.Inbox.Messages()); n != i+1 {
			t.Errorf("%s: %d messages", program, n)
		}
	}
	for _, q := range l.DNS.Queries() {
		switch q.Type {
		case "MX", "SRV", "A", "AAAA":
		default:
			t.Errorf("it asked for %s of %s", q.Type, q.Name)
		}
	}
}
