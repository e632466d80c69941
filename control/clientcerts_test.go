package control

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nightmare.mail/mxf/integration/must"
)

const someClientCerts = `# who we are
Relay.example.::certs/relay.pem
mx.example.org:@shop.example:/certs/shop.pem:/keys/shop.pem
mx.example.org:<>:
.example.org:@work.example:certs/work.pem:keys/work.pem
.org::certs/org.pem
[192.0.2.1]::certs/four.pem
:@shop.example:certs/shop.pem
`

func TestClientCerts(t *testing.T) {
	all := must.Get(dir{home: "/home"}.parseClientCerts([]byte(someClientCerts)))(t)
	for _, test := range []struct {
		host, sender     string
		certificate, key string
		line             int
	}{
		{"relay.example", "", "/home/certs/relay.pem", "/home/certs/relay.pem", 2},
		{"RELAY.example", "x@shop.example", "/home/certs/relay.pem", "/home/certs/relay.pem", 2},
		{"mx.example.org", "x@shop.example", "/certs/shop.pem", "/keys/shop.pem", 3},
		{"mx.example.org", "", "", "", 4},
		{"mx.example.org", "x@work.example", "/home/certs/work.pem", "/home/keys/work.pem", 5}, // the next exchanger that fits
		{"mx.example.org", "x@other.example", "/home/certs/org.pem", "/home/certs/org.pem", 6},
		{"a.example.org", "x@shop.example", "/home/certs/org.pem", "/home/certs/org.pem", 6}, // the exchanger first
		{"", "x@shop.example", "/home/certs/four.pem", "/home/certs/four.pem", 7},
		{"mx.example.com", "x@shop.example", "/home/certs/shop.pem", "/home/certs/shop.pem", 8},
		{"mx.example.com", "x@work.example", "", "", 0},
	} {
		cert := all.For(test.host, netip.MustParseAddr("192.0.2.1"), test.sender)
		switch {
		case test.line == 0 && cert != nil:
			t.Errorf("%q %q: got %v, want none", test.host, test.sender, cert)
		case test.line == 0:
		case cert == nil || cert.Line != test.line || cert.Certificate != test.certificate || cert.Key != test.key:
			t.Errorf("%q %q: got %v, want %v", test.host, test.sender, cert, test)
		}
	}
	if cert := (ClientCerts{}).For("mx.example.org", netip.Addr{}, ""); cert != nil {
		t.Errorf("got %v", cert)
	}
}

var badClientCerts = []struct{ entry, expected string }{
	{"certs/x.pem", "found one field"},
	{":certs/x.pem", "found 2 fields"},
	{"::x:y:", "found 5 fields"},
	{"::x:", "a key after the third colon"},
	{":::y", "a certificate before the key"},
	{":::", "a certificate before the key"},
	{":: x", "a path without blanks before it"},
	{"::x: y", "a path without blanks before it"},
	{"::-----BEGIN CERTIFICATE-----", "the path of a file"},
	{"::x:-----BEGIN PRIVATE KEY-----", "the path of a file"},
	{"mx..example.org::x", "the exchanger"},
	{"[192.0.2.1::x", "the exchanger"},
	{"mx.example.org:joe@:x", "the sender"},
	{"::x\n::y", "each exchanger and sender once"},
	{"mx.example.org:@shop.example:x\nMX.example.org.:@Shop.Example:", "each exchanger and sender once"},
}

func TestClientCerts_malformed(t *testing.T) {
	for _, test := range badClientCerts {
		text := "# first\n" + test.entry + "\n"
		_, err := dir{home: "/home"}.parseClientCerts([]byte(text))
		isMalformed(t, text, err, "control/clientcerts", test.expected)
	}
}

// The file with the key is a secret, that of the certificate alone is not.
func TestClientCert_CheckKey(t *testing.T) {
	home := must.Home(t, nil)
	path := func(name string) string { return filepath.Join(home, name) }
	must.Write(t, path("cert"), "certificate")
	must.Write(t, path("key"), "key")
	certs := must.Get(dir{home: home}.parseClientCerts([]byte("a::cert:key\nb::key\nc::\nd::cert:missing\n")))(t)
	check := func(host string) error { return certs.For(host, netip.Addr{}, "").CheckKey() }
	for mode := range modes {
		must.OK(t, os.Chmod(path("key"), mode))
		goodMode(t, "control/clientcerts:1", mode, check("a"))
		goodMode(t, "control/clientcerts:2", mode, check("b"))
	}
	if err := check("c"); err != nil {
		t.Error(err)
	}
	if err := check("d"); !errors.Is(err, os.ErrNotExist) || !strings.HasPrefix(err.Error(), "control/clientcerts:4: expected a file that can be read") {
		t.Errorf("got %v", err)
	}
	if place := certs.For("d", netip.Addr{}, "").Place(); place != "control/clientcerts:4" {
		t.Errorf("got %q", place)
	}
}

func FuzzClientCerts(f *testing.F) {
	f.Add(someClientCerts)
	for _, test := range badClientCerts {
		f.Add(test.entry)
		f.Add(someClientCerts + test.entry)
	}
	for _, n := range goodPatterns {
		f.Add(n.Text + ":" + "<>" + ":x")
	}
	f.Fuzz(func(t *testing.T, text string) {
		certs, err := dir{home: "/home"}.parseClientCerts([]byte(text))
		if err != nil {
			checkError(t, err, "control/clientcerts", []byte(text))
			return
		}
		for exchanger, senders := range certs.exchangers {
			for sender, cert := range senders {
				if again, problem := parseExchanger(exchanger); again != exchanger || problem != "" {
					t.Errorf("exchanger %q is %q, %s", exchanger, again, problem)
				}
				if again, problem := parseSender(sender); again != sender || problem != "" {
					t.Errorf("sender %q is %q, %s", sender, again, problem)
				}
				if both := cert.Certificate != "" && cert.Key != ""; cert.Line < 1 || both != (cert.Certificate != "") || both != (cert.Key != "") ||
					both && !(filepath.IsAbs(cert.Certificate) && filepath.IsAbs(cert.Key)) {
					t.Errorf("%q: %v", exchanger, cert)
				}
			}
		}
	})
}
