package tlsc

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"io"
	"net"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/tlsc/tlstest"
)

// The verdict is the same whether it is enforced or told.
func TestVerdict(t *testing.T) {
	root := newCA("root")
	other := newCA("other")
	middle := root.Issue(nil, tlstest.Authority("middle"))
	good := root.Leaf(nil, host)
	far := middle.Leaf(nil, host)
	self := selfSigned(nil, func(c *x509.Certificate) {
		c.Subject.CommonName = "self"
		c.DNSNames = []string{host}
	})
	// The same authority under two certificates: its own, and one by another root.
	crossed := other.Issue(root.Key, tlstest.Authority("root"))
	// Another authority with the same name.
	namesake := newCA("root")
	constrained := root.Issue(nil, func(c *x509.Certificate) {
		tlstest.Authority("constrained")(c)
		c.PermittedDNSDomains = []string{"example.net"}
		c.PermittedDNSDomainsCritical = true
	})
	old := root.Issue(nil, func(c *x509.Certificate) {
		tlstest.Authority("old")(c)
		c.NotAfter = date(2026, 3, 1)
	})
	expire := func(c *x509.Certificate) { c.NotAfter = date(2026, 3, 1) }
	later := func(c *x509.Certificate) { c.NotBefore = date(2031, 2, 3) }
	many := []string{"a.example", "b.example", "c.example", "d.example", "e.example", "f.example"}

	for _, tt := range []struct {
		name    string
		anchors []*tlstest.Party
		pair    tls.Certificate
		server  string
		want    string // "" for a good verdict; FILE is the name of the anchors' file
	}{
		{"good", []*tlstest.Party{other, root}, good.Pair(), host, ""},
		{"case", []*tlstest.Party{root}, good.Pair(), "MX.Example.ORG", ""},
		{"final dot", []*tlstest.Party{root}, good.Pair(), host + ".", ""},
		{"nothing but a dot", []*tlstest.Party{root}, good.Pair(), ".", `certificate is for "mx.example.org", .*not "\."`},
		{"no name", []*tlstest.Party{root}, good.Pair(), "", ""},
		{"intermediate", []*tlstest.Party{root}, far.Pair(middle), host, ""},
		{"intermediates out of order", []*tlstest.Party{root}, far.Pair(other, root, middle), host, ""},
		{"intermediate is the anchor", []*tlstest.Party{middle}, far.Pair(), host, ""},
		{"intermediate missing", []*tlstest.Party{root}, far.Pair(), host, "certificate is signed by an authority that is not in FILE"},
		{"wrong authority", []*tlstest.Party{other}, good.Pair(), host, "certificate is signed by an authority that is not in FILE"},
		{"namesake first", []*tlstest.Party{namesake, root}, good.Pair(), host, ""},
		{"namesake only", []*tlstest.Party{namesake}, good.Pair(), host, "certificate is signed by an authority that is not in FILE"},
		{"cross-signed, own root", []*tlstest.Party{root}, good.Pair(crossed), host, ""},
		{"cross-signed, other root", []*tlstest.Party{other}, good.Pair(crossed), host, ""},
		{"self-signed", []*tlstest.Party{root}, self.Pair(), host, "certificate is self-signed, so signed by an authority that is not in FILE"},
		{"self-signed is the anchor", []*tlstest.Party{self}, self.Pair(), host, ""},
		{"leaf is the anchor", []*tlstest.Party{good}, good.Pair(), host, ""},
		{"wildcard", []*tlstest.Party{root}, root.Leaf(nil, "*.example.org").Pair(), host, ""},
		{"wildcard is one label", []*tlstest.Party{root}, root.Leaf(nil, "*.org").Pair(), host, `certificate is for "*.org", not "mx.example.org"`},
		{"wrong name", []*tlstest.Party{root}, root.Leaf(nil, "mail.example.net").Pair(), host, `certificate is for "mail.example.net", not "mx.example.org"`},
		{"many names", []*tlstest.Party{root}, root.Leaf(nil, many...).Pair(), host, `certificate is for "a.example", "b.example", "c.example", "d.example" and 2 more, not "mx.example.org"`},
		{"common name only", []*tlstest.Party{root}, root.Leaf(func(c *x509.Certificate) { c.Subject.CommonName = host }).Pair(), host, `certificate names "mx.example.org" in its common name only, which does not count`},
		{"no names", []*tlstest.Party{root}, root.Leaf(nil).Pair(), host, `certificate names no host, and so not "mx.example.org"`},
		{"address", []*tlstest.Party{root}, root.Leaf(nil, "192.0.2.1", "2001:db8::1").Pair(), "192.0.2.1", ""},
		{"IPv6", []*tlstest.Party{root}, root.Leaf(nil, "192.0.2.1", "2001:db8::1").Pair(), "2001:DB8:0::1", ""},
		{"wrong address", []*tlstest.Party{root}, root.Leaf(nil, "192.0.2.1").Pair(), "192.0.2.2", `certificate is for "192.0.2.1", not "192.0.2.2"`},
		{"address as a name", []*tlstest.Party{root}, root.Leaf(func(c *x509.Certificate) { c.Subject.CommonName = "192.0.2.1" }, host).Pair(), "192.0.2.1", `certificate is for "mx.example.org", not "192.0.2.1"`},
		{"expired", []*tlstest.Party{root}, root.Leaf(expire, host).Pair(), host, "certificate expired on 2026-03-01"},
		{"not yet valid", []*tlstest.Party{root}, root.Leaf(later, host).Pair(), host, "certificate is not valid before 2031-02-03"},
		{"expired authority", []*tlstest.Party{root}, old.Leaf(nil, host).Pair(old), host, `certificate of the authority "CN=old" expired on 2026-03-01`},
		{"name constraint", []*tlstest.Party{root}, constrained.Leaf(nil, host).Pair(constrained), host, `certificate names a host for which its authority may not sign: .*mx\.example\.org.*`},
		{"not an authority", []*tlstest.Party{root}, good.Leaf(nil, host).Pair(good), host, `certificate is signed by an authority that is not in FILE|certificate of the authority "CN=server" is not that of an authority, but used as one`},
		{"for clients", []*tlstest.Party{root}, root.Leaf(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }, host).Pair(), host, "certificate is not for servers"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			file := tlstest.Bundle(t, tt.anchors...)
			want := strings.ReplaceAll(tt.want, "FILE", file)
			if !strings.ContainsAny(want, `|`) && !strings.Contains(want, ".*") {
				want = regexp.QuoteMeta(want)
			}
			for version := uint16(tls.VersionTLS12); version <= tls.VersionTLS13; version++ {
				config := &tls.Config{Certificates: []tls.Certificate{tt.pair}, MaxVersion: version}
				wantVerdict(t, config, file, tt.server, want)
			}
		})
	}
}

// wantVerdict wants the same verdict of a client with these anchors, enforced and told.
func wantVerdict(t *testing.T, config *tls.Config, file, name, want string) {
	t.Helper()
	client := trusting(file)
	c, err := handshakeWith(t, config.Clone(), client, enforced(name))
	switch {
	case want != "":
		wantError(t, err, KindHandshake, want)
		wantErrorFault(t, err)
	case err != nil:
		t.Errorf("enforced: %v", err)
	case !c.Facts().Verdict.Good():
		t.Errorf("enforced: verified %q", c.Facts().Verdict)
	}
	if c, err = handshakeWith(t, config.Clone(), client, told(name)); err != nil {
		t.Fatalf("not enforced: %v", err)
	}
	v := c.Facts().Verdict
	wantFault(t, v.Reason, v.Fault)
	if v.Good() != (want == "") || !regexp.MustCompile("^("+want+")$").MatchString(v.Reason) {
		t.Errorf("not enforced: verified %q, want %q", v, want)
	}
}

// faultsBySaying has the fault that goes with each reason that these tests want.
var faultsBySaying = []struct {
	reason *regexp.Regexp
	fault  Fault
}{
	{regexp.MustCompile(`^$`), NoFault},
	{regexp.MustCompile(`^no trust anchors$|^cannot read trust anchors`), FaultOurs},
	{regexp.MustCompile(`^certificate (is for "|names no host|names ".*common name only)`), FaultName},
	{regexp.MustCompile(`^certificate is signed by an authority (that is not|whose)`), FaultIssuer},
	{regexp.MustCompile(`^certificate is self-signed`), FaultSelfSigned},
	{regexp.MustCompile(`^certificate (of the authority .*)?(expired on|is not valid before)`), FaultDate},
	{regexp.MustCompile(`^certificate was revoked`), FaultRevoked},
	{regexp.MustCompile(`^certificate must have an OCSP response`), FaultNoStaple},
	{regexp.MustCompile(`^stapled OCSP response `), FaultStaple},
	{regexp.MustCompile(`negative serial|RSA key of|SHA-?1|does not sign|proves nothing`), FaultWeak},
	{regexp.MustCompile(`not that of an authority|not for servers|may not sign`), FaultUse},
	{regexp.MustCompile(`^certificate matches none of `), FaultNoMatch},
	{regexp.MustCompile(`not acceptable|not known here`), FaultOther},
}

// wantFault wants the fault that goes with a reason.
func wantFault(t *testing.T, reason string, fault Fault) {
	t.Helper()
	for _, f := range faultsBySaying {
		if f.reason.MatchString(reason) {
			if f.fault != fault {
				t.Errorf("%q is the fault %q, want %q", reason, fault, f.fault)
			}
			return
		}
	}
	t.Errorf("%q: no fault is known for it", reason)
}

func TestFault_hasWords(t *testing.T) {
	for f := NoFault; f <= FaultOther; f++ {
		if f.String() == "" {
			t.Errorf("fault %d has no words", f)
		}
	}
	if len(faults) != int(FaultOther)+1 {
		t.Errorf("%d faults", len(faults))
	}
}

// wantError wants an *Error of this kind whose whole text matches.
func wantError(t *testing.T, err error, kind Kind, pattern string) {
	t.Helper()
	failure := new(Error)
	if !errors.As(err, &failure) {
		t.Fatalf("error %v (%T), want one of kind %d that says %q", err, err, kind, pattern)
	}
	if failure.Kind != kind {
		t.Errorf("error of kind %d, want %d", failure.Kind, kind)
	}
	if !regexp.MustCompile("^(" + pattern + ")$").MatchString(err.Error()) {
		t.Errorf("error says\n\t%s\nwant\n\t%s", err, pattern)
	}
}

// wantErrorFault wants the fault of err to be that of the reason that it tells.
func wantErrorFault(t *testing.T, err error) {
	t.Helper()
	if failure := new(Error); errors.As(err, &failure) {
		wantFault(t, failure.What, failure.Fault)
	}
}

func TestVerdictReachesTheServer(t *testing.T) {
	root, other := newCA("root"), newCA("other")
	alert := make(chan error, 1)
	conn := tlstest.Serve(t, func(conn *net.TCPConn) {
		server := tls.Server(conn, root.Leaf(nil, host).Config())
		alert <- server.Handshake()
	})
	_, err := shake(t, conn, trusting(tlstest.Bundle(t, other)), enforced(host))
	if err == nil {
		t.Fatal("handshake succeeded")
	}
	if err := <-alert; err == nil || !strings.Contains(err.Error(), "bad certificate") {
		t.Errorf("server saw %v, want the alert bad_certificate", err)
	}
}

func TestNoAnchors(t *testing.T) {
	config := newCA("root").Leaf(nil, host).Config()
	for _, tt := range []struct{ file, told, failure string }{
		{"", "no trust anchors", "no trust anchors are configured"},
		{"/nonexistent/anchors.pem", "cannot read trust anchors: open /nonexistent/anchors.pem: no such file or directory", ""},
	} {
		client := trusting(tt.file)
		c := must.Get(handshakeWith(t, config, client, told(host)))(t)
		v := c.Facts().Verdict
		if v.Reason != tt.told || v.Fault != FaultOurs {
			t.Errorf("verified %q, %v", v, v.Fault)
		}
		_, err := handshakeWith(t, config, client, enforced(host))
		wantError(t, err, KindSettings, cmp.Or(tt.failure, tt.told))
		for _, cause := range []error{v.Cause, err} {
			var unusable *AnchorsError
			switch found := errors.As(cause, &unusable); {
			case errors.Is(cause, ErrNoAnchors) != (tt.file == "") || found != (tt.file != ""):
				t.Errorf("the cause is %v", cause)
			case found && (unusable.File != tt.file || unusable.WithoutPath() != "no such file or directory"):
				t.Errorf("the cause is %q: %q", unusable.File, unusable.WithoutPath())
			}
		}
	}
}

func TestVersions(t *testing.T) {
	root := newCA("root")
	file := tlstest.Bundle(t, root)
	pair := root.Leaf(nil, host).Pair()
	for version, name := range map[uint16]string{
		tls.VersionTLS10: "TLSv1", tls.VersionTLS11: "TLSv1.1", tls.VersionTLS12: "TLSv1.2", tls.VersionTLS13: "TLSv1.3",
	} {
		t.Run(name, func(t *testing.T) {
			config := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: version, MaxVersion: version}
			c := must.Get(handshakeWith(t, config, trusting(file), told(host)))(t)
			if f := c.Facts(); f.Version != name || !f.Verdict.Good() || f.ServerName != host || f.Resumed {
				t.Errorf("%+v", f)
			}
			if text, err := io.ReadAll(c); string(text) != "hello" || err != nil || c.Truncated() {
				t.Errorf("read %q, %v, truncated %v", text, err, c.Truncated())
			}
			_, err := handshakeWith(t, config, trusting(file), enforced(host))
			if version >= tls.VersionTLS12 {
				if err != nil {
					t.Errorf("verified: %v", err)
				}
				return
			}
			wantError(t, err, KindHandshake, `server speaks no version of TLS from 1\.2 up, which a verified connection needs: protocol version not supported \(alert 70\)`)
		})
	}
}

// A server may also choose an old version that it was not offered.
func TestOldVersionChosen(t *testing.T) {
	hello := "\x16\x03\x01\x00\x2a\x02\x00\x00\x26\x03\x01" + strings.Repeat("r", 32) + "\x00\x00\x2f\x00"
	for _, verify := range []bool{false, true} {
		conn := tlstest.Serve(t, tlstest.Answer(hello))
		client, demand := trusting(tlstest.Bundle(t, newCA("root"))), told(host)
		want := "handshake failed: .*|connection closed during the handshake"
		if verify {
			demand = enforced(host)
			want = `server speaks TLSv1 only, a verified connection needs TLSv1\.2 or newer`
		}
		_, err := shake(t, conn, client, demand)
		wantError(t, err, KindHandshake, want)
	}
}

// Every suite that Go has is good for an unverified connection, whatever $GODEBUG says.
// For a verified connection the insecure ones are not.
func TestCipherSuites(t *testing.T) {
	t.Setenv("GODEBUG", "tlsrsakex=0,tls3des=0")
	root := newCA("root")
	file := tlstest.Bundle(t, root)
	key := must.Get(rsa.GenerateKey(rand.Reader, 2048))(t)
	rsaPair := root.Issue(key, func(c *x509.Certificate) {
		c.DNSNames = []string{host}
		c.KeyUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment
	}).Pair()
	ecPair := root.Leaf(nil, host).Pair()
	secure := tls.CipherSuites()
	for _, suite := range append(slices.Clone(secure), tls.InsecureCipherSuites()...) {
		if slices.Contains(suite.SupportedVersions, tls.VersionTLS13) {
			continue
		}
		t.Run(suite.Name, func(t *testing.T) {
			pair := rsaPair
			if strings.Contains(suite.Name, "ECDSA") {
				pair = ecPair
			}
			config := &tls.Config{
				Certificates: []tls.Certificate{pair},
				CipherSuites: []uint16{suite.ID},
				MinVersion:   tls.VersionTLS10,
				MaxVersion:   tls.VersionTLS12,
			}
			c := must.Get(handshakeWith(t, config, trusting(""), told(host)))(t)
			if got := c.Facts().Cipher; got != suite.Name {
				t.Errorf("cipher %s", got)
			}
			_, err := handshakeWith(t, config, trusting(file), enforced(host))
			if slices.ContainsFunc(secure, func(s *tls.CipherSuite) bool { return s.ID == suite.ID }) {
				if err != nil {
					t.Errorf("verified: %v", err)
				}
				return
			}
			wantError(t, err, KindHandshake, `server refused the handshake: handshake failure \(alert 40\)`)
		})
	}
}

func TestServerNameSent(t *testing.T) {
	root := newCA("root")
	client := trusting(tlstest.Bundle(t, root))
	pair := root.Leaf(nil, host, "127.0.0.1").Pair()
	for _, tt := range []struct {
		demand Demand
		sni    string
	}{
		{Demand{ServerName: host}, host},
		{Demand{ServerName: host + "."}, host},
		{Demand{ServerName: host + ".."}, host},
		{Demand{ServerName: host, NoSNI: true}, ""},
		{Demand{ServerName: "127.0.0.1"}, ""},
		{Demand{ServerName: "[127.0.0.1]"}, ""},
		{Demand{}, ""},
	} {
		sent := make(chan string, 1)
		config := &tls.Config{
			Certificates: []tls.Certificate{pair},
			GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
				sent <- hello.ServerName
				return nil, nil
			},
		}
		tt.demand.Judge = TrustAnchors{}
		c, err := handshakeWith(t, config, client, &tt.demand)
		if err != nil {
			t.Errorf("%+v: %v", tt.demand, err)
			continue
		}
		if got := <-sent; got != tt.sni || c.Facts().ServerName != tt.sni {
			t.Errorf("%q sent %q, tells %q, want %q", tt.demand.ServerName, got, c.Facts().ServerName, tt.sni)
		}
	}
}

func TestRefusals(t *testing.T) {
	alert := func(n byte) string { return "\x15\x03\x01\x00\x02\x02" + string([]byte{n}) }
	for _, tt := range []struct{ name, answer, want string }{
		{"unrecognized name", alert(112), `server does not know the name "mx.example.org": unrecognized name (alert 112)`},
		{"handshake failure", alert(40), `server refused the handshake: handshake failure (alert 40)`},
		{"protocol version", alert(70), `server speaks no version of TLS that we speak: protocol version not supported (alert 70)`},
		{"internal error", alert(80), `server refused the handshake: internal error (alert 80)`},
		{"unknown alert", alert(200), `server refused the handshake: alert(200) (alert 200)`},
		{"closed", "", `no answer to the handshake: connection closed or reset`},
		{"closed before the ServerHello", "\x16\x03\x03\x00\x40", `no answer to the handshake: connection closed or reset`},
		{"half an alert", "\x15\x03", `connection closed during the handshake`},
		{"our words", "no answer to the handshake\r\n", `server does not speak TLS, it says "no answer to the handshake"`},
		{"our words behind a line", "\nmxf-tlsc: fatal: no answer to the handshake\n", `server does not speak TLS, it says ""`},
		{"close_notify", "\x15\x03\x01\x00\x02\x01\x00", `connection closed during the handshake`},
		{"half a record", "\x16\x03\x03\x00\x40\x02", `connection closed during the handshake`},
		{"greeting", "220 mx.example.org ESMTP\r\n250 more\r\n", `server does not speak TLS, it says "220 mx.example.org ESMTP"`},
		{"long greeting", strings.Repeat("x", 500), `server does not speak TLS, it says "` + strings.Repeat("x", saidLimit) + `"`},
		{"odd bytes", "\x80\x00\xff\x1b[2J\x00\x00", `server does not speak TLS, it says "\x80\x00\xff\x1b[2J\x00\x00"`},
		{"a warning first", "\x15\x03\x01\x00\x02\x01\x70" + alert(40), `server refused the handshake: handshake failure (alert 40)`},
		{"data", "\x17\x03\x03\x00\x01x", `server does not speak TLS, it says "\x17\x03\x03\x00\x01x"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := shake(t, tlstest.Serve(t, tlstest.Answer(tt.answer)), trusting(""), told(host))
			wantError(t, err, KindHandshake, regexp.QuoteMeta(tt.want))
			var cause error
			switch {
			case strings.HasPrefix(tt.name, "unrecognized name"):
				cause = ErrUnrecognizedName
			case tt.name == "closed", tt.name == "closed before the ServerHello":
				cause = ErrNoServerHello
			}
			wantCause(t, err, cause)
		})
	}
}

// wantCause wants err to have this cause and no other, in its chain and in its text.
func wantCause(t *testing.T, err, cause error) {
	t.Helper()
	for _, known := range []error{ErrUnrecognizedName, ErrNoServerHello} {
		if got := errors.Is(err, known); got != (cause == known) {
			t.Errorf("%v: is %q: %v", err, known, got)
		}
	}
	if got := Cause(err.Error()); got != cause {
		t.Errorf("the cause of %q is %v, want %v", err, got, cause)
	}
}

// Words of a server that stand in our words do not look like a cause.
func TestCauseIsNotTheServers(t *testing.T) {
	for _, words := range []string{nothingHeard, unknownName + `"x"`, wantsAName} {
		root := newCA(words)
		leaf := root.Leaf(func(c *x509.Certificate) { c.Subject.CommonName = words }, words)
		other := tlstest.Bundle(t, newCA("other"))
		for _, anchors := range []string{other, tlstest.Bundle(t, root)} {
			_, err := handshakeWith(t, leaf.Config(),
				trusting(anchors), enforced(host))
			if err == nil {
				t.Fatal("handshake succeeded")
			}
			wantCause(t, err, nil)
		}
		_, err := shake(t, tlstest.Serve(t, tlstest.Answer(words+"\r\n")), trusting(""), told(""))
		wantCause(t, err, nil)
	}
	for _, line := range []string{"", "x: " + nothingHeard, "\n" + nothingHeard, " " + wantsAName} {
		if got := Cause(line); got != nil {
			t.Errorf("the cause of %q is %v", line, got)
		}
	}
}

// packet is what the middle boxes that are known to stumble read at a time.
const packet = 1400

func TestSmallHello(t *testing.T) {
	longest := strings.Repeat(strings.Repeat("x", 62)+".", 4)
	longest = longest[:len(longest)-1] + "yz" // 253 bytes, the longest name there is
	root := newCA("root")
	client := trusting(tlstest.Bundle(t, root))
	pair := root.Leaf(nil, longest).Pair()
	for _, demand := range []func(string) *Demand{told, enforced} {
		for name, limit := range map[string]int{host: 340, longest: 590} {
			small := demand(name)
			small.SmallHello = true
			if size := helloSize(t, client, small); size > limit {
				t.Errorf("judge %s: a small ClientHello for a name of %d bytes has %d bytes", small.judge(), len(name), size)
			}
		}
		small := demand(longest)
		small.SmallHello = true
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			c := must.Get(handshakeWith(t, &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: version, MaxVersion: version}, client, small))(t)
			if f := c.Facts(); !f.Verdict.Good() {
				t.Errorf("%+v", f)
			}
		}
	}
	if size := helloSize(t, client, told(host)); size <= packet {
		t.Errorf("an ordinary ClientHello has %d bytes: there is no need for a small one", size)
	}
}

// helloSize is how many bytes the client sends first. The server reads them and goes.
func helloSize(t *testing.T, c *Client, d *Demand) int {
	t.Helper()
	size := make(chan int, 1)
	conn := tlstest.Serve(t, func(conn *net.TCPConn) { size <- tlstest.ReadRecord(conn) })
	_, err := shake(t, conn, c, d)
	wantCause(t, err, ErrNoServerHello)
	return <-size
}

func TestNameMissed(t *testing.T) {
	for _, demand := range []Demand{{}, {ServerName: "192.0.2.1"}, {ServerName: host, NoSNI: true}} {
		_, err := shake(t, tlstest.Serve(t, tlstest.Answer("\x15\x03\x01\x00\x02\x02\x70")), trusting(""), &demand)
		wantError(t, err, KindHandshake, `server wants to be sent a name: unrecognized name \(alert 112\)`)
		wantCause(t, err, ErrUnrecognizedName)
	}
}

// A server's warning of unrecognized_name does not end the handshake.
func TestUnrecognizedNameWarning(t *testing.T) {
	root := newCA("root")
	conn := tlstest.Serve(t, func(conn *net.TCPConn) {
		io.WriteString(conn, "\x15\x03\x01\x00\x02\x01\x70")
		server := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{root.Leaf(nil, host).Pair()}, MaxVersion: tls.VersionTLS12})
		server.Handshake()
		server.Close()
	})
	if _, err := shake(t, conn, trusting(""), told(host)); err != nil {
		t.Error(err)
	}
}

func TestReset(t *testing.T) {
	conn := tlstest.Serve(t, func(conn *net.TCPConn) {
		conn.Read(make([]byte, 1))
		conn.SetLinger(0)
	})
	_, err := shake(t, conn, trusting(""), told(""))
	wantError(t, err, KindHandshake, "no answer to the handshake: connection closed or reset")
	wantCause(t, err, ErrNoServerHello)
}

func TestTimeLimit(t *testing.T) {
	for name, first := range map[string]string{"no answer to the handshake": "", "handshake not finished": "\x16\x03\x03\x00\x40\x02"} {
		conn := tlstest.Serve(t, func(conn *net.TCPConn) {
			io.WriteString(conn, first)
			io.Copy(io.Discard, conn)
		})
		_, err := shake(t, conn, trusting(""), &Demand{TimeLimit: 60 * time.Millisecond})
		wantError(t, err, KindHandshake, name+" within 60 ms")
		if !isTimeout(err) {
			t.Errorf("%v is no timeout", err)
		}
		if first == "" {
			wantCause(t, err, ErrNoServerHello)
		} else {
			wantCause(t, err, nil)
		}
	}
}

func TestContextEnds(t *testing.T) {
	reason := errors.New("fuse")
	ctx, cancel := context.WithCancelCause(context.Background())
	conn := tlstest.Serve(t, func(conn *net.TCPConn) {
		conn.Read(make([]byte, 1))
		cancel(reason)
		io.Copy(io.Discard, conn)
	})
	_, err := trusting("").Handshake(ctx, conn, &Demand{TimeLimit: time.Hour})
	wantError(t, err, KindHandshake, "handshake given up: fuse")
	if !errors.Is(err, reason) {
		t.Error("the reason is lost")
	}
	wantCause(t, err, nil)
}

// A deadline that somebody else has set on the connection counts as silence too.
func TestDeadline(t *testing.T) {
	conn := tlstest.Serve(t, func(conn *net.TCPConn) { io.Copy(io.Discard, conn) })
	conn.SetReadDeadline(time.Now().Add(60 * time.Millisecond))
	_, err := shake(t, conn, trusting(""), told(""))
	wantError(t, err, KindHandshake, "no answer to the handshake in time")
	wantCause(t, err, ErrNoServerHello)
}

// A closer is a connection that closes when so many bytes have been written.
type closer struct {
	*net.TCPConn
	left int
}

func (c *closer) Write(p []byte) (int, error) {
	n, err := c.TCPConn.Write(p[:min(len(p), c.left)])
	if c.left -= n; c.left == 0 {
		c.CloseWrite()
		return n, io.ErrClosedPipe
	}
	return n, err
}

func TestClosedAtEveryStep(t *testing.T) {
	root := newCA("root")
	pair := root.Leaf(nil, host).Pair()
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for bytes := 1; bytes < 600; bytes += 37 {
			conn := tlstest.Serve(t, func(conn *net.TCPConn) {
				tls.Server(&closer{conn, bytes}, &tls.Config{Certificates: []tls.Certificate{pair}, MaxVersion: version}).Handshake()
				io.Copy(io.Discard, conn)
			})
			_, err := shake(t, conn, trusting(""), told(host))
			if bytes <= 5 { // the header of a record
				wantError(t, err, KindHandshake, "no answer to the handshake: connection closed or reset")
				continue
			}
			wantError(t, err, KindHandshake, "connection closed during the handshake")
		}
	}
}

func TestClientCertificate(t *testing.T) {
	root := newCA("root")
	pair := root.Leaf(nil, host).Pair()
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	must.OK(t, err)
	rsaKey := must.Get(rsa.GenerateKey(rand.Reader, 2048))(t)
	ecKey := must.Get(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))(t)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		shown := make(chan []*x509.Certificate, 1)
		config := &tls.Config{
			Certificates: []tls.Certificate{pair},
			MaxVersion:   version,
			ClientAuth:   tls.RequireAnyClientCert,
			ClientCAs:    x509.NewCertPool(),
			VerifyConnection: func(state tls.ConnectionState) error {
				shown <- state.PeerCertificates
				return nil
			},
		}
		config.ClientCAs.AddCert(newCA("stranger").Cert)
		for name, client := range map[string]*tlstest.Party{
			"RSA":     root.Issue(rsaKey, func(c *x509.Certificate) { c.Subject.CommonName = "rsa" }),
			"ECDSA":   root.Issue(ecKey, func(c *x509.Certificate) { c.Subject.CommonName = "ecdsa" }),
			"Ed25519": root.Issue(edKey, func(c *x509.Certificate) { c.Subject.CommonName = "ed25519" }),
		} {
			c, err := handshakeWith(t, config.Clone(), &Client{Certificate: &Certificate{client.Pair(root)}}, &Demand{})
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			if _, err := io.ReadAll(c); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if got := <-shown; len(got) != 2 || !got[0].Equal(client.Cert) {
				t.Errorf("%s: server was shown %d certificates, or another", name, len(got))
			}
		}
		// Without a certificate TLS 1.2 fails in the handshake and TLS 1.3 after it.
		c, err := handshakeWith(t, config.Clone(), trusting(""), told(""))
		kind := KindHandshake
		if err == nil {
			_, err = io.ReadAll(c)
			kind = KindRunning
		}
		wantError(t, err, kind, `server demands a client certificate: .* \(alert \d+\)`)
		// The server does not like this one.
		config.VerifyConnection = func(tls.ConnectionState) error { return errors.New("no") }
		c, err = handshakeWith(t, config.Clone(), &Client{Certificate: &Certificate{root.Issue(ecKey, func(*x509.Certificate) {}).Pair()}}, &Demand{})
		if err == nil {
			_, err = io.ReadAll(c)
			wantError(t, err, KindRunning, `server does not accept our client certificate: bad certificate \(alert 42\)`)
		} else {
			wantError(t, err, KindHandshake, `server does not accept our client certificate: bad certificate \(alert 42\)`)
		}
	}
}

// One client shows each server the certificate of its demand, also when all do so at once.
func TestClientCertificateOfADemand(t *testing.T) {
	root := newCA("root")
	own := func(name string) *Certificate {
		return &Certificate{root.Leaf(func(c *x509.Certificate) { c.Subject.CommonName = name }).Pair()}
	}
	config := root.Leaf(nil, host).Config()
	with, without := trusting(""), trusting("")
	with.Certificate = own("the client's")
	one, other := own("one"), own("other")
	var all sync.WaitGroup
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, tt := range []struct {
			name   string
			client *Client
			demand *Certificate
			want   string
		}{
			{"the client's", with, nil, "the client's"},
			{"one", with, one, "one"},
			{"other", with, other, "other"},
			{"none", with, NoCertificate, ""},
			{"empty", with, new(Certificate), ""},
			{"none anyway", without, nil, ""},
			{"none, and no other", without, NoCertificate, ""},
			{"one alone", without, one, "one"},
		} {
			for range 5 {
				all.Go(func() {
					shown := make(chan string, 1)
					config := config.Clone()
					config.MaxVersion = version
					config.ClientAuth = tls.RequestClientCert
					config.VerifyConnection = func(state tls.ConnectionState) error {
						name := ""
						if len(state.PeerCertificates) > 0 {
							name = state.PeerCertificates[0].Subject.CommonName
						}
						shown <- name
						return nil
					}
					c, err := handshakeWith(t, config, tt.client, &Demand{ServerName: host, Certificate: tt.demand})
					if err != nil {
						t.Errorf("%s: %v", tt.name, err)
						return
					}
					io.ReadAll(c)
					if got := <-shown; got != tt.want {
						t.Errorf("%s: server was shown %q, want %q", tt.name, got, tt.want)
					}
				})
			}
		}
	}
	all.Wait()
}

func TestTrace(t *testing.T) {
	root := newCA("root")
	config := root.Leaf(nil, host).Config()
	var lines []string
	trace := func(line string) { lines = append(lines, line) }
	must.Get(handshakeWith(t, config, trusting(""), &Demand{ServerName: host, Trace: trace}))(t)
	other := trusting(tlstest.Bundle(t, newCA("other")))
	handshakeWith(t, config, other, &Demand{ServerName: host, Judge: TrustAnchors{}, Trace: trace})
	const certificate = `tls certificate 0 subject "CN=server" issuer "CN=root" from 2020-01-01T12:00:00Z to 2040-01-01T12:00:00Z names "mx.example.org"`
	if len(lines) != 4 || lines[0] != certificate || lines[2] != certificate ||
		!strings.HasPrefix(lines[1], `tls TLSv1.3 TLS_`) || !strings.HasSuffix(lines[1], ` name "mx.example.org" verified no:no trust anchors`) ||
		!strings.HasPrefix(lines[3], "tls failed: certificate is signed by") {
		t.Errorf("%q", lines)
	}
}

// However much a server sends, the trace stays readable.
func TestTrace_bounded(t *testing.T) {
	var lines []string
	h := handshake{demand: &Demand{Trace: func(line string) { lines = append(lines, line) }}}
	one := &x509.Certificate{IPAddresses: []net.IP{net.IPv4(192, 0, 2, 1)}}
	for range 500 {
		one.DNSNames = append(one.DNSNames, strings.Repeat("x\x1b", 1000))
	}
	var state tls.ConnectionState
	for range 500 {
		state.PeerCertificates = append(state.PeerCertificates, one)
	}
	_ = h.traceCertificates(state)
	if len(lines) != certificatesTraced+1 || lines[certificatesTraced] != "tls certificates: 490 more" {
		t.Errorf("%d lines, the last %q", len(lines), lines[len(lines)-1])
	}
	if line := lines[0]; len(line) > namesTraced*nameLimit*4 || strings.Contains(line, "\x1b") || !strings.HasSuffix(line, " and 471 more") {
		t.Errorf("%d bytes: %q", len(line), line)
	}
}

// Control characters in a certificate reach neither the facts nor an error.
func TestForeignNames(t *testing.T) {
	root := newCA("root")
	leaf := root.Leaf(func(c *x509.Certificate) {
		c.Subject.CommonName = "a\x00b\n\x1b[2J"
		c.DNSNames = []string{"x\"\\y" + strings.Repeat("z", 400)}
	})
	config := leaf.Config()
	_, err := handshakeWith(t, config, trusting(tlstest.Bundle(t, root)), enforced(host))
	if err == nil || len(err.Error()) > 400 || strings.ContainsAny(err.Error(), "\n\x00\x1b") {
		t.Errorf("error says %q", err)
	}
	c := must.Get(handshakeWith(t, config, trusting(""), told("")))(t)
	if subject := c.Facts().CertSubject; strings.ContainsAny(subject, "\n\x00\x1b") {
		t.Errorf("subject %q", subject)
	}
}

func TestFacts(t *testing.T) {
	root := newCA("root")
	leaf := root.Leaf(func(c *x509.Certificate) {
		c.Subject = pkix.Name{Country: []string{"DE"}, Organization: []string{"Example, Inc."}, CommonName: host}
	}, host)
	c := must.Get(handshakeWith(t, leaf.Config(), trusting(tlstest.Bundle(t, root)), told(host)))(t)
	f, hash := c.Facts(), sha256.Sum256(leaf.Cert.Raw)
	if f.Version != "TLSv1.3" || !strings.HasPrefix(f.Cipher, "TLS_") || f.ServerName != host || !bytes.Equal(f.CertHash, hash[:]) ||
		f.CertSubject != `CN=mx.example.org,O=Example\, Inc.,C=DE` || !f.Verdict.Good() || f.Resumed {
		t.Errorf("%+v", f)
	}
}

func TestDistinguishedName(t *testing.T) {
	type value struct {
		Type  asn1.ObjectIdentifier
		Value any
	}
	cn, dc, mail := asn1.ObjectIdentifier{2, 5, 4, 3}, asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 25}, asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}
	for want, name := range map[string][][]value{
		"":                                 {},
		`CN=x,DC=org`:                      {{{dc, "org"}}, {{cn, "x"}}},
		`CN=a+CN=b`:                        {{{cn, "a"}, {cn, "b"}}},
		`CN=\ a\, \"b\"\\c\ `:              {{{cn, ` a, "b"\c `}}},
		`CN=\#1`:                           {{{cn, "#1"}}},
		`CN=Zoë\0A\00`:                     {{{cn, "Zoë\n\x00"}}},
		`CN=#020105`:                       {{{cn, 5}}},
		`1.2.840.113549.1.9.1=#1303612a62`: {{{mail, asn1.RawValue{Tag: asn1.TagPrintableString, Bytes: []byte("a*b")}}}},
	} {
		var sets []asn1.RawValue
		for _, set := range name {
			var parts []byte
			for _, v := range set {
				der := must.Get(asn1.Marshal(v))(t)
				parts = append(parts, der...)
			}
			sets = append(sets, asn1.RawValue{Tag: asn1.TagSet, IsCompound: true, Bytes: parts})
		}
		der := must.Get(asn1.Marshal(sets))(t)
		if got := distinguishedName(der); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if got := distinguishedName([]byte{1, 2}); got != "#0102" {
		t.Errorf("malformed: %s", got)
	}
}
