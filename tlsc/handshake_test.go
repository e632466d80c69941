package tlsc

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

const host = "mx.example.org"

// Both ways of connecting reach the same verdict; one enforces it.
func TestVerdict(t *testing.T) {
	root := newCA(t, "root", nil)
	other := newCA(t, "other", nil)
	middle := newCA(t, "middle", root)
	good := root.server(t, nil, host)
	far := middle.server(t, nil, host)
	self := issue(t, nil, newKey(t), func(c *x509.Certificate) {
		c.Subject.CommonName = "self"
		c.DNSNames = []string{host}
	})
	// The same authority under two certificates: its own, and one by another root.
	crossed := issue(t, other, root.key, asCA("root"))
	// Another authority of the same name.
	namesake := newCA(t, "root", nil)
	constrained := issue(t, root, newKey(t), func(c *x509.Certificate) {
		asCA("constrained")(c)
		c.PermittedDNSDomains = []string{"example.net"}
		c.PermittedDNSDomainsCritical = true
	})
	old := issue(t, root, newKey(t), func(c *x509.Certificate) {
		asCA("old")(c)
		c.NotAfter = date(2026, 3, 1)
	})
	expire := func(c *x509.Certificate) { c.NotAfter = date(2026, 3, 1) }
	later := func(c *x509.Certificate) { c.NotBefore = date(2031, 2, 3) }
	many := []string{"a.example", "b.example", "c.example", "d.example", "e.example", "f.example"}

	for _, tt := range []struct {
		name    string
		anchors []*party
		pair    tls.Certificate
		server  string
		want    string // "" for a good verdict; FILE is the name of the anchors' file
	}{
		{"good", []*party{other, root}, good.pair(), host, ""},
		{"case", []*party{root}, good.pair(), "MX.Example.ORG", ""},
		{"final dot", []*party{root}, good.pair(), host + ".", ""},
		{"nothing but a dot", []*party{root}, good.pair(), ".", `certificate is for "mx.example.org", .*not "\."`},
		{"no name", []*party{root}, good.pair(), "", ""},
		{"intermediate", []*party{root}, far.pair(middle), host, ""},
		{"intermediates out of order", []*party{root}, far.pair(other, root, middle), host, ""},
		{"intermediate is the anchor", []*party{middle}, far.pair(), host, ""},
		{"intermediate missing", []*party{root}, far.pair(), host, "certificate is signed by an authority that is not in FILE"},
		{"wrong authority", []*party{other}, good.pair(), host, "certificate is signed by an authority that is not in FILE"},
		{"namesake first", []*party{namesake, root}, good.pair(), host, ""},
		{"namesake only", []*party{namesake}, good.pair(), host, "certificate is signed by an authority that is not in FILE"},
		{"cross-signed, own root", []*party{root}, good.pair(crossed), host, ""},
		{"cross-signed, other root", []*party{other}, good.pair(crossed), host, ""},
		{"self-signed", []*party{root}, self.pair(), host, "certificate is self-signed, so signed by an authority that is not in FILE"},
		{"self-signed is the anchor", []*party{self}, self.pair(), host, ""},
		{"leaf is the anchor", []*party{good}, good.pair(), host, ""},
		{"wildcard", []*party{root}, root.server(t, nil, "*.example.org").pair(), host, ""},
		{"wildcard is one label", []*party{root}, root.server(t, nil, "*.org").pair(), host, `certificate is for "*.org", not "mx.example.org"`},
		{"wrong name", []*party{root}, root.server(t, nil, "mail.example.net").pair(), host, `certificate is for "mail.example.net", not "mx.example.org"`},
		{"many names", []*party{root}, root.server(t, nil, many...).pair(), host, `certificate is for "a.example", "b.example", "c.example", "d.example" and 2 more, not "mx.example.org"`},
		{"common name only", []*party{root}, root.server(t, func(c *x509.Certificate) { c.Subject.CommonName = host }).pair(), host, `certificate names "mx.example.org" in its common name only, which does not count`},
		{"no names", []*party{root}, root.server(t, nil).pair(), host, `certificate names no host, and so not "mx.example.org"`},
		{"address", []*party{root}, root.server(t, nil, "192.0.2.1", "2001:db8::1").pair(), "192.0.2.1", ""},
		{"IPv6", []*party{root}, root.server(t, nil, "192.0.2.1", "2001:db8::1").pair(), "2001:DB8:0::1", ""},
		{"wrong address", []*party{root}, root.server(t, nil, "192.0.2.1").pair(), "192.0.2.2", `certificate is for "192.0.2.1", not "192.0.2.2"`},
		{"address as a name", []*party{root}, root.server(t, func(c *x509.Certificate) { c.Subject.CommonName = "192.0.2.1" }, host).pair(), "192.0.2.1", `certificate is for "mx.example.org", not "192.0.2.1"`},
		{"expired", []*party{root}, root.server(t, expire, host).pair(), host, "certificate expired on 2026-03-01"},
		{"not yet valid", []*party{root}, root.server(t, later, host).pair(), host, "certificate is not valid before 2031-02-03"},
		{"expired authority", []*party{root}, old.server(t, nil, host).pair(old), host, `certificate of the authority "CN=old" expired on 2026-03-01`},
		{"name constraint", []*party{root}, constrained.server(t, nil, host).pair(constrained), host, `certificate names a host for which its authority may not sign: .*mx\.example\.org.*`},
		{"not an authority", []*party{root}, good.server(t, nil, host).pair(good), host, `certificate is signed by an authority that is not in FILE|certificate of the authority "CN=server" is not that of an authority, but used as one`},
		{"for clients", []*party{root}, root.server(t, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }, host).pair(), host, "certificate is not for servers"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			file := bundle(t, tt.anchors...)
			want := strings.ReplaceAll(tt.want, "FILE", file)
			if !strings.ContainsAny(want, `|`) && !strings.Contains(want, ".*") {
				want = regexp.QuoteMeta(want)
			}
			for version := uint16(tls.VersionTLS12); version <= tls.VersionTLS13; version++ {
				config := &tls.Config{Certificates: []tls.Certificate{tt.pair}, MaxVersion: version}
				enforced := &Settings{ServerName: tt.server, Verify: true, Anchors: Anchors{File: file}}
				c, err := handshakeWith(t, config.Clone(), enforced)
				switch {
				case tt.want == "" && err != nil:
					t.Errorf("enforced: %v", err)
				case tt.want == "" && c.Description().Verified != "yes":
					t.Errorf("enforced: verified %q", c.Description().Verified)
				case tt.want != "":
					wantError(t, err, KindHandshake, want)
				}
				told := &Settings{ServerName: tt.server, Anchors: Anchors{File: file}}
				c, err = handshakeWith(t, config.Clone(), told)
				if err != nil {
					t.Fatalf("not enforced: %v", err)
				}
				verified := "yes"
				if want != "" {
					verified = "no:(" + want + ")"
				}
				if got := c.Description().Verified; !regexp.MustCompile("^" + verified + "$").MatchString(got) {
					t.Errorf("not enforced: verified %q, want %q", got, verified)
				}
			}
		})
	}
}

// wantError wants an *Error of this kind, the whole text of which matches.
func wantError(t *testing.T, err error, kind Kind, pattern string) {
	t.Helper()
	failure := new(Error)
	if !errors.As(err, &failure) {
		t.Fatalf("error %v (%T), want one of kind %d that says %q", err, err, kind, pattern)
	}
	if failure.ExitCode() != int(kind) {
		t.Errorf("exit code %d, want %d", failure.ExitCode(), kind)
	}
	if !regexp.MustCompile("^(" + pattern + ")$").MatchString(err.Error()) {
		t.Errorf("error says\n\t%s\nwant\n\t%s", err, pattern)
	}
}

func TestVerdictReachesTheServer(t *testing.T) {
	root, other := newCA(t, "root", nil), newCA(t, "other", nil)
	alert := make(chan error, 1)
	conn := serve(t, func(conn *net.TCPConn) {
		server := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{root.server(t, nil, host).pair()}})
		alert <- server.Handshake()
	})
	_, err := client(t, conn, &Settings{ServerName: host, Verify: true, Anchors: Anchors{File: bundle(t, other)}})
	if err == nil {
		t.Fatal("handshake succeeded")
	}
	if err := <-alert; err == nil || !strings.Contains(err.Error(), "bad certificate") {
		t.Errorf("server saw %v, want the alert bad_certificate", err)
	}
}

func TestNoAnchors(t *testing.T) {
	root := newCA(t, "root", nil)
	config := &tls.Config{Certificates: []tls.Certificate{root.server(t, nil, host).pair()}}
	c, err := handshakeWith(t, config, &Settings{ServerName: host})
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Description().Verified; got != "no:no trust anchors" {
		t.Errorf("verified %q", got)
	}
	_, err = handshakeWith(t, config, &Settings{ServerName: host, Verify: true})
	wantError(t, err, KindSettings, "no trust anchors are configured")

	missing := Anchors{File: "/nonexistent/anchors.pem"}
	c, err = handshakeWith(t, config, &Settings{ServerName: host, Anchors: missing})
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Description().Verified; !strings.HasPrefix(got, "no:cannot read trust anchors: open /nonexistent/anchors.pem") {
		t.Errorf("verified %q", got)
	}
	_, err = handshakeWith(t, config, &Settings{ServerName: host, Verify: true, Anchors: missing})
	wantError(t, err, KindSettings, "cannot read trust anchors: open /nonexistent/anchors.pem: .*")
}

// Nothing is read before an unverified handshake is done, and Load reads what a
// verified one needs.
func TestLoad(t *testing.T) {
	root := newCA(t, "root", nil)
	file := bundle(t, root)
	loose := &Settings{Anchors: Anchors{File: file}}
	if err := loose.Load(); err != nil || loose.anchors != nil {
		t.Errorf("not verifying: Load gives %v, index %v", err, loose.anchors)
	}
	strict := &Settings{ServerName: host, Verify: true, Anchors: Anchors{File: file}}
	if err := strict.Load(); err != nil {
		t.Fatal(err)
	}
	writeOver(t, file, []byte("nothing"))
	config := &tls.Config{Certificates: []tls.Certificate{root.server(t, nil, host).pair()}}
	if _, err := handshakeWith(t, config, strict); err != nil {
		t.Errorf("after Load, with the file gone: %v", err)
	}
}

func TestVersions(t *testing.T) {
	root := newCA(t, "root", nil)
	file := bundle(t, root)
	pair := root.server(t, nil, host).pair()
	for version, name := range map[uint16]string{
		tls.VersionTLS10: "TLSv1", tls.VersionTLS11: "TLSv1.1", tls.VersionTLS12: "TLSv1.2", tls.VersionTLS13: "TLSv1.3",
	} {
		t.Run(name, func(t *testing.T) {
			config := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: version, MaxVersion: version}
			c, err := handshakeWith(t, config, &Settings{ServerName: host, Anchors: Anchors{File: file}})
			if err != nil {
				t.Fatal(err)
			}
			if d := c.Description(); d.Protocol != name || d.Verified != "yes" || d.SNI != host || d.Resumed {
				t.Errorf("%+v", d)
			}
			if text, err := io.ReadAll(c); string(text) != "hello" || err != nil || c.Truncated() {
				t.Errorf("read %q, %v, truncated %v", text, err, c.Truncated())
			}
			_, err = handshakeWith(t, config, &Settings{ServerName: host, Verify: true, Anchors: Anchors{File: file}})
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

// A server may also take an old version that it was not offered.
func TestOldVersionChosen(t *testing.T) {
	hello := "\x16\x03\x01\x00\x2a\x02\x00\x00\x26\x03\x01" + strings.Repeat("r", 32) + "\x00\x00\x2f\x00"
	for _, verify := range []bool{false, true} {
		conn := answerRaw(t, hello)
		settings := &Settings{ServerName: host, Verify: verify}
		want := "handshake failed: .*|connection closed during the handshake"
		if verify {
			settings.Anchors.File = bundle(t, newCA(t, "root", nil))
			want = `server speaks TLSv1 only, a verified connection needs TLSv1\.2 or newer`
		}
		_, err := client(t, conn, settings)
		wantError(t, err, KindHandshake, want)
	}
}

// Every suite that Go has serves an unverified connection, whatever $GODEBUG says;
// the insecure ones do not serve a verified one.
func TestCipherSuites(t *testing.T) {
	t.Setenv("GODEBUG", "tlsrsakex=0,tls3des=0")
	root := newCA(t, "root", nil)
	file := bundle(t, root)
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	rsaPair := issue(t, root, key, func(c *x509.Certificate) {
		c.DNSNames = []string{host}
		c.KeyUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment
	}).pair()
	ecPair := root.server(t, nil, host).pair()
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
			c, err := handshakeWith(t, config, &Settings{ServerName: host})
			if err != nil {
				t.Fatal(err)
			}
			if got := c.Description().Cipher; got != suite.Name {
				t.Errorf("cipher %s", got)
			}
			_, err = handshakeWith(t, config, &Settings{ServerName: host, Verify: true, Anchors: Anchors{File: file}})
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
	root := newCA(t, "root", nil)
	file := bundle(t, root)
	pair := root.server(t, nil, host, "127.0.0.1").pair()
	for _, tt := range []struct {
		settings Settings
		sni      string
	}{
		{Settings{ServerName: host}, host},
		{Settings{ServerName: host + "."}, host},
		{Settings{ServerName: host + ".."}, host},
		{Settings{ServerName: host, NoSNI: true}, ""},
		{Settings{ServerName: "127.0.0.1"}, ""},
		{Settings{ServerName: "[127.0.0.1]"}, ""},
		{Settings{}, ""},
	} {
		sent := make(chan string, 1)
		config := &tls.Config{
			Certificates: []tls.Certificate{pair},
			GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
				sent <- hello.ServerName
				return nil, nil
			},
		}
		tt.settings.Verify, tt.settings.Anchors = true, Anchors{File: file}
		c, err := handshakeWith(t, config, &tt.settings)
		if err != nil {
			t.Errorf("%+v: %v", tt.settings, err)
			continue
		}
		if got := <-sent; got != tt.sni || c.Description().SNI != tt.sni {
			t.Errorf("%q sent %q, tells %q, want %q", tt.settings.ServerName, got, c.Description().SNI, tt.sni)
		}
		environ := c.Description().Environ()
		want := "SSL_TLS_SNI_SERVERNAME=" + tt.sni
		if tt.sni == "" {
			want = "SSL_TLS_SNI_SERVERNAME"
		}
		if !slices.Contains(environ, want) {
			t.Errorf("%q: environment %q", tt.settings.ServerName, environ)
		}
	}
}

// answerRaw is a server that waits for the client's hello and sends an answer that
// crypto/tls would not, then ends its output.
func answerRaw(t *testing.T, answer string) *net.TCPConn {
	return serve(t, func(conn *net.TCPConn) {
		header := make([]byte, 5)
		io.ReadFull(conn, header)
		io.CopyN(io.Discard, conn, int64(header[3])<<8|int64(header[4]))
		io.WriteString(conn, answer)
		conn.CloseWrite()
		io.Copy(io.Discard, conn)
	})
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
			_, err := client(t, answerRaw(t, tt.answer), &Settings{ServerName: host})
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

// What a server can put into our words does not look like a cause.
func TestCauseIsNotTheServers(t *testing.T) {
	for _, words := range []string{nothingHeard, unknownName + `"x"`, wantsAName} {
		root := newCA(t, words, nil)
		leaf := root.server(t, func(c *x509.Certificate) { c.Subject.CommonName = words }, words)
		other := bundle(t, newCA(t, "other", nil))
		for _, anchors := range []string{other, bundle(t, root)} {
			_, err := handshakeWith(t, &tls.Config{Certificates: []tls.Certificate{leaf.pair()}},
				&Settings{ServerName: host, Verify: true, Anchors: Anchors{File: anchors}})
			if err == nil {
				t.Fatal("handshake succeeded")
			}
			wantCause(t, err, nil)
		}
		_, err := client(t, answerRaw(t, words+"\r\n"), &Settings{})
		wantCause(t, err, nil)
	}
	for _, line := range []string{"", "x: " + nothingHeard, "\n" + nothingHeard, " " + wantsAName} {
		if got := Cause(line); got != nil {
			t.Errorf("the cause of %q is %v", line, got)
		}
	}
}

// packet is what the middle boxes take that are known to stumble: one read.
const packet = 1400

func TestSmallHello(t *testing.T) {
	longest := strings.Repeat(strings.Repeat("x", 62)+".", 4)
	longest = longest[:len(longest)-1] + "yz" // 253 bytes, the longest name there is
	root := newCA(t, "root", nil)
	file := bundle(t, root)
	pair := root.server(t, nil, longest).pair()
	for _, verify := range []bool{false, true} {
		for name, limit := range map[string]int{host: 340, longest: 590} {
			small := &Settings{ServerName: name, SmallHello: true, Verify: verify, Anchors: Anchors{File: file}}
			if size := helloSize(t, small); size > limit {
				t.Errorf("verify %v: a small ClientHello for a name of %d bytes has %d bytes", verify, len(name), size)
			}
		}
		small := &Settings{ServerName: longest, SmallHello: true, Verify: verify, Anchors: Anchors{File: file}}
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			c, err := handshakeWith(t, &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: version, MaxVersion: version}, small)
			if err != nil {
				t.Fatal(err)
			}
			if d := c.Description(); d.Verified != "yes" {
				t.Errorf("%+v", d)
			}
		}
	}
	if size := helloSize(t, &Settings{ServerName: host}); size <= packet {
		t.Errorf("an ordinary ClientHello has %d bytes: there is no need for a small one", size)
	}
}

// helloSize is how many bytes the client sends first. The server reads once and goes.
func helloSize(t *testing.T, s *Settings) int {
	t.Helper()
	size := make(chan int, 1)
	conn := serve(t, func(conn *net.TCPConn) {
		header := make([]byte, 5)
		io.ReadFull(conn, header)
		n, _ := io.CopyN(io.Discard, conn, int64(header[3])<<8|int64(header[4]))
		size <- len(header) + int(n)
	})
	_, err := client(t, conn, s)
	wantCause(t, err, ErrNoServerHello)
	return <-size
}

func TestNameMissed(t *testing.T) {
	for _, settings := range []Settings{{}, {ServerName: "192.0.2.1"}, {ServerName: host, NoSNI: true}} {
		_, err := client(t, answerRaw(t, "\x15\x03\x01\x00\x02\x02\x70"), &settings)
		wantError(t, err, KindHandshake, `server wants to be sent a name: unrecognized name \(alert 112\)`)
		wantCause(t, err, ErrUnrecognizedName)
	}
}

// A server's unrecognized_name warning is not an end.
func TestUnrecognizedNameWarning(t *testing.T) {
	root := newCA(t, "root", nil)
	conn := serve(t, func(conn *net.TCPConn) {
		io.WriteString(conn, "\x15\x03\x01\x00\x02\x01\x70")
		server := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{root.server(t, nil, host).pair()}, MaxVersion: tls.VersionTLS12})
		server.Handshake()
		server.Close()
	})
	if _, err := client(t, conn, &Settings{ServerName: host}); err != nil {
		t.Error(err)
	}
}

func TestReset(t *testing.T) {
	conn := serve(t, func(conn *net.TCPConn) {
		conn.Read(make([]byte, 1))
		conn.SetLinger(0)
	})
	_, err := client(t, conn, &Settings{})
	wantError(t, err, KindHandshake, "no answer to the handshake: connection closed or reset")
	wantCause(t, err, ErrNoServerHello)
}

func TestTimeLimit(t *testing.T) {
	for name, first := range map[string]string{"no answer to the handshake": "", "handshake not finished": "\x16\x03\x03\x00\x40\x02"} {
		conn := serve(t, func(conn *net.TCPConn) {
			io.WriteString(conn, first)
			io.Copy(io.Discard, conn)
		})
		_, err := client(t, conn, &Settings{HandshakeTimeout: 60 * time.Millisecond})
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
	conn := serve(t, func(conn *net.TCPConn) {
		conn.Read(make([]byte, 1))
		cancel(reason)
		io.Copy(io.Discard, conn)
	})
	_, err := Client(ctx, conn, &Settings{HandshakeTimeout: time.Hour})
	wantError(t, err, KindHandshake, "handshake given up: fuse")
	if !errors.Is(err, reason) {
		t.Error("the reason is lost")
	}
	wantCause(t, err, nil)
}

// A deadline that somebody else has set on the connection is silence too.
func TestDeadline(t *testing.T) {
	conn := serve(t, func(conn *net.TCPConn) { io.Copy(io.Discard, conn) })
	conn.SetReadDeadline(time.Now().Add(60 * time.Millisecond))
	_, err := client(t, conn, &Settings{})
	wantError(t, err, KindHandshake, "no answer to the handshake in time")
	wantCause(t, err, ErrNoServerHello)
}

// A closer is a connection that closes after so many bytes written.
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
	root := newCA(t, "root", nil)
	pair := root.server(t, nil, host).pair()
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for bytes := 1; bytes < 600; bytes += 37 {
			conn := serve(t, func(conn *net.TCPConn) {
				tls.Server(&closer{conn, bytes}, &tls.Config{Certificates: []tls.Certificate{pair}, MaxVersion: version}).Handshake()
				io.Copy(io.Discard, conn)
			})
			_, err := client(t, conn, &Settings{ServerName: host})
			if bytes <= 5 { // the header of a record
				wantError(t, err, KindHandshake, "no answer to the handshake: connection closed or reset")
				continue
			}
			wantError(t, err, KindHandshake, "connection closed during the handshake")
		}
	}
}

func TestClientCertificate(t *testing.T) {
	root := newCA(t, "root", nil)
	pair := root.server(t, nil, host).pair()
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
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
		config.ClientCAs.AddCert(newCA(t, "stranger", nil).cert)
		for name, client := range map[string]*party{
			"RSA":     issue(t, root, rsaKey, func(c *x509.Certificate) { c.Subject.CommonName = "rsa" }),
			"ECDSA":   issue(t, root, ecKey, func(c *x509.Certificate) { c.Subject.CommonName = "ecdsa" }),
			"Ed25519": issue(t, root, edKey, func(c *x509.Certificate) { c.Subject.CommonName = "ed25519" }),
		} {
			c, err := handshakeWith(t, config.Clone(), &Settings{Certificate: &Certificate{client.pair(root)}})
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			if _, err := io.ReadAll(c); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if got := <-shown; len(got) != 2 || !got[0].Equal(client.cert) {
				t.Errorf("%s: server was shown %d certificates, or another", name, len(got))
			}
		}
		// None given: TLS 1.2 fails in the handshake, TLS 1.3 after it.
		c, err := handshakeWith(t, config.Clone(), &Settings{})
		kind := KindHandshake
		if err == nil {
			_, err = io.ReadAll(c)
			kind = KindRunning
		}
		wantError(t, err, kind, `server demands a client certificate: .* \(alert \d+\)`)
		// One that the server does not like.
		config.VerifyConnection = func(tls.ConnectionState) error { return errors.New("no") }
		c, err = handshakeWith(t, config.Clone(), &Settings{Certificate: &Certificate{issue(t, root, ecKey, func(*x509.Certificate) {}).pair()}})
		if err == nil {
			_, err = io.ReadAll(c)
			wantError(t, err, KindRunning, `server does not accept our client certificate: bad certificate \(alert 42\)`)
		} else {
			wantError(t, err, KindHandshake, `server does not accept our client certificate: bad certificate \(alert 42\)`)
		}
	}
}

func TestTrace(t *testing.T) {
	root := newCA(t, "root", nil)
	config := &tls.Config{Certificates: []tls.Certificate{root.server(t, nil, host).pair()}}
	var lines []string
	settings := &Settings{ServerName: host, Trace: func(line string) { lines = append(lines, line) }}
	if _, err := handshakeWith(t, config, settings); err != nil {
		t.Fatal(err)
	}
	settings.Verify, settings.Anchors.File = true, bundle(t, newCA(t, "other", nil))
	handshakeWith(t, config, settings)
	const certificate = `tls certificate 0 subject "CN=server" issuer "CN=root" from 2020-01-01T12:00:00Z to 2040-01-01T12:00:00Z names "mx.example.org"`
	if len(lines) != 4 || lines[0] != certificate || lines[2] != certificate ||
		!strings.HasPrefix(lines[1], `tls TLSv1.3 TLS_`) || !strings.HasSuffix(lines[1], ` name "mx.example.org" verified no:no trust anchors`) ||
		!strings.HasPrefix(lines[3], "tls failed: certificate is signed by") {
		t.Errorf("%q", lines)
	}
}

// However much a server shows, the trace stays readable.
func TestTrace_bounded(t *testing.T) {
	var lines []string
	s := &Settings{Trace: func(line string) { lines = append(lines, line) }}
	one := &x509.Certificate{IPAddresses: []net.IP{net.IPv4(192, 0, 2, 1)}}
	for range 500 {
		one.DNSNames = append(one.DNSNames, strings.Repeat("x\x1b", 1000))
	}
	var state tls.ConnectionState
	for range 500 {
		state.PeerCertificates = append(state.PeerCertificates, one)
	}
	_ = s.traceCertificates(state)
	if len(lines) != certificatesTraced+1 || lines[certificatesTraced] != "tls certificates: 490 more" {
		t.Errorf("%d lines, the last %q", len(lines), lines[len(lines)-1])
	}
	if line := lines[0]; len(line) > namesTraced*nameLimit*4 || strings.Contains(line, "\x1b") || !strings.HasSuffix(line, " and 471 more") {
		t.Errorf("%d bytes: %q", len(line), line)
	}
}

// Foreign bytes in certificates do not reach the environment, or an error, as they are.
func TestForeignNames(t *testing.T) {
	root := newCA(t, "root", nil)
	leaf := root.server(t, func(c *x509.Certificate) {
		c.Subject.CommonName = "a\x00b\n\x1b[2J"
		c.DNSNames = []string{"x\"\\y" + strings.Repeat("z", 400)}
	})
	config := &tls.Config{Certificates: []tls.Certificate{leaf.pair()}}
	_, err := handshakeWith(t, config, &Settings{ServerName: host, Verify: true, Anchors: Anchors{File: bundle(t, root)}})
	if err == nil || len(err.Error()) > 400 || strings.ContainsAny(err.Error(), "\n\x00\x1b") {
		t.Errorf("error says %q", err)
	}
	c, err := handshakeWith(t, config, &Settings{})
	if err != nil {
		t.Fatal(err)
	}
	for _, assignment := range c.Description().Environ() {
		if strings.ContainsAny(assignment, "\n\x00\x1b") {
			t.Errorf("environment has %q", assignment)
		}
	}
}

func TestEnviron(t *testing.T) {
	root := newCA(t, "root", nil)
	leaf := root.server(t, func(c *x509.Certificate) {
		c.Subject = pkix.Name{Country: []string{"DE"}, Organization: []string{"Example, Inc."}, CommonName: host}
	}, host)
	config := &tls.Config{Certificates: []tls.Certificate{leaf.pair()}}
	c, err := handshakeWith(t, config, &Settings{ServerName: host, Anchors: Anchors{File: bundle(t, root)}})
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Join(c.Description().Environ(), "\n")
	want := regexp.MustCompile(`^SSL_PROTOCOL=TLSv1\.3
SSL_CIPHER=TLS_[A-Z0-9_]+
SSL_TLS_SNI_SERVERNAME=mx\.example\.org
SSL_PEER_CERT_HASH=SHA256:[0-9a-f]{64}
SSL_PEER_CERT_SUBJECT=CN=mx\.example\.org,O=Example\\, Inc\.,C=DE
SSL_PEER_VERIFIED=yes
SSL_SESSION_RESUMED=no$`)
	if !want.MatchString(got) {
		t.Errorf("environment:\n%s", got)
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
				der, err := asn1.Marshal(v)
				if err != nil {
					t.Fatal(err)
				}
				parts = append(parts, der...)
			}
			sets = append(sets, asn1.RawValue{Tag: asn1.TagSet, IsCompound: true, Bytes: parts})
		}
		der, err := asn1.Marshal(sets)
		if err != nil {
			t.Fatal(err)
		}
		if got := distinguishedName(der); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if got := distinguishedName([]byte{1, 2}); got != "#0102" {
		t.Errorf("malformed: %s", got)
	}
}

// With a thousand of them at a time, settings are shared and nothing is mixed up.
func TestManyAtATime(t *testing.T) {
	root := newCA(t, "root", nil)
	settings := &Settings{ServerName: host, Verify: true, Anchors: Anchors{File: bundle(t, root)}, Now: testClock}
	if err := settings.Load(); err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{root.server(t, nil, host).pair()}, Time: testClock}
	errs := make(chan error)
	const many = 40
	for range many {
		conn := serve(t, func(conn *net.TCPConn) {
			server := tls.Server(conn, config)
			io.Copy(server, io.LimitReader(server, 5))
			server.Close()
		})
		go func() {
			c, err := Client(t.Context(), conn, settings)
			if err != nil {
				errs <- err
				return
			}
			defer c.Close()
			io.WriteString(c, "12345")
			echo, err := io.ReadAll(c)
			if err == nil && !bytes.Equal(echo, []byte("12345")) {
				err = fmt.Errorf("echo is %q", echo)
			}
			errs <- err
		}()
	}
	for range many {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}
