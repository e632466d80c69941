package tlsc

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"io"
	"math/big"
	"regexp"
	"testing"

	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/tlsc/tlstest"
)

// resign changes the signed part of a certificate and has ca sign it again. It makes what
// x509.CreateCertificate would not make.
func resign(t testing.TB, p, ca *tlstest.Party, change func(tbs []byte)) *tlstest.Party {
	t.Helper()
	var c struct {
		TBS       asn1.RawValue
		Algorithm asn1.RawValue
		Signature asn1.BitString
	}
	must.Get(asn1.Unmarshal(p.Cert.Raw, &c))(t)
	change(c.TBS.FullBytes)
	sum := sha256.Sum256(c.TBS.FullBytes)
	signature := must.Get(ca.Key.Sign(rand.Reader, sum[:], crypto.SHA256))(t)
	c.Signature = asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)}
	der := must.Get(asn1.Marshal(c))(t)
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatalf("%v (without the godebug settings of go.mod?)", err)
	}
	return p.With(cert)
}

// serial is a number that negative finds in a certificate.
var serial = big.NewInt(0x11223344)

// negative makes the serial number of such a certificate negative.
func negative(t testing.TB, p, ca *tlstest.Party) *tlstest.Party {
	t.Helper()
	return resign(t, p, ca, func(tbs []byte) {
		at := bytes.Index(tbs, append([]byte{2, 4}, serial.Bytes()...))
		if at < 0 {
			t.Fatalf("the serial number is %v", p.Cert.SerialNumber)
		}
		tbs[at+2] |= 0x80
	})
}

// An otherKey is a key with the public half of another key.
type otherKey struct {
	crypto.Signer
	public crypto.PublicKey
}

func (k otherKey) Public() crypto.PublicKey { return k.public }

func rsaKey(t testing.TB, bits int) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatalf("%v (without the godebug settings of go.mod?)", err)
	}
	return key
}

// Some things that crypto/tls and crypto/x509 refuse are accepted where no verdict is
// enforced, and the verdict has the reason. Where it is enforced, they end the handshake.
// That holds for certificates that are otherwise good, and whatever $GODEBUG says.
func TestWeak(t *testing.T) {
	root := newCA("root")
	number := func(c *x509.Certificate) { c.SerialNumber = serial }
	server := func(c *x509.Certificate) {
		c.DNSNames = []string{host}
		c.Subject.CommonName = "server"
		c.KeyUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment
	}
	minus := negative(t, root.Leaf(number, host), root)

	numbered := func(c *x509.Certificate) { tlstest.Authority("middle")(c); number(c) }
	middle := root.Issue(nil, numbered)
	minusMiddle := negative(t, middle, root)
	minusRoot := selfSigned(nil, numbered)
	minusRoot = negative(t, minusRoot, minusRoot)

	short := root.Issue(rsaKey(t, 768), server)
	shortRoot := selfSigned(rsaKey(t, 768), tlstest.Authority("short"))
	shortMiddle := root.Issue(rsaKey(t, 768), tlstest.Authority("short middle"))
	// There is another chain than the one with the short key.
	strongTwin := root.Issue(rsaKey(t, 1024), tlstest.Authority("twin"))
	weakTwin := shortRoot.Issue(strongTwin.Key, tlstest.Authority("twin"))

	modulus := new(big.Int).Lsh(big.NewInt(3), 9000)
	long := root.Issue(otherKey{root.Key, &rsa.PublicKey{N: modulus.Add(modulus, big.NewInt(1)), E: 65537}}, tlstest.Authority("long"))

	sha1RSA := root.Issue(rsaKey(t, 2048), server).Pair()
	sha1RSA.SupportedSignatureAlgorithms = []tls.SignatureScheme{tls.PKCS1WithSHA1}
	sha1EC := root.Leaf(nil, host).Pair()
	sha1EC.SupportedSignatureAlgorithms = []tls.SignatureScheme{tls.ECDSAWithSHA1}

	for _, tt := range []struct {
		name    string
		anchors []*tlstest.Party
		pair    tls.Certificate
		tls12   bool // the server's newest version
		want    string
	}{
		{"negative serial number", []*tlstest.Party{root}, minus.Pair(), false, `certificate has a negative serial number`},
		{"negative, TLS 1.2", []*tlstest.Party{root}, minus.Pair(), true, `certificate has a negative serial number`},
		{"negative and an anchor itself", []*tlstest.Party{minus}, minus.Pair(), false, `certificate has a negative serial number`},
		{"negative in the chain", []*tlstest.Party{root}, minusMiddle.Leaf(nil, host).Pair(minusMiddle), false, `certificate of the authority "CN=middle" has a negative serial number`},
		{"negative and not needed", []*tlstest.Party{root}, root.Leaf(nil, host).Pair(minusMiddle), false, `certificate of the authority "CN=middle" has a negative serial number`},
		{"negative anchor", []*tlstest.Party{minusRoot}, minusRoot.Leaf(nil, host).Pair(), false, `certificate of the authority "CN=middle" has a negative serial number`},
		{"short key", []*tlstest.Party{root}, short.Pair(), true, `certificate has an RSA key of 768 bits, fewer than 1024`},
		{"short key of an anchor", []*tlstest.Party{shortRoot}, shortRoot.Leaf(nil, host).Pair(), false, `certificate of the authority "CN=short" has an RSA key of 768 bits, fewer than 1024`},
		{"short key in the chain", []*tlstest.Party{root}, shortMiddle.Leaf(nil, host).Pair(shortMiddle), false, `certificate of the authority "CN=short middle" has an RSA key of 768 bits, fewer than 1024`},
		{"short key not needed", []*tlstest.Party{shortRoot, root}, strongTwin.Leaf(nil, host).Pair(weakTwin, shortRoot, strongTwin), false, ``},
		{"long key", []*tlstest.Party{root}, root.Leaf(nil, host).Pair(long), false, `certificate of the authority "CN=long" has an RSA key of 9002 bits, more than 8192`},
		{"SHA-1 with RSA", []*tlstest.Party{root}, sha1RSA, true, `server signs the handshake with SHA-1`},
		{"SHA-1 with ECDSA", []*tlstest.Party{root}, sha1EC, true, `server signs the handshake with SHA-1`},
	} {
		for _, godebug := range []string{"", "rsa1024min=0,tlssha1=1,x509negativeserial=1,tlsmaxrsasize=99999"} {
			t.Run(tt.name+godebug, func(t *testing.T) {
				t.Setenv("GODEBUG", godebug)
				config := &tls.Config{Certificates: []tls.Certificate{tt.pair}}
				if tt.tls12 {
					config.MaxVersion = tls.VersionTLS12
				}
				client := trusting(tlstest.Bundle(t, tt.anchors...))
				c, err := handshakeWith(t, config, client, told(host))
				if err != nil {
					t.Fatalf("not enforced: %v", err)
				}
				if got := c.Facts().Verdict.String(); tt.want != "" && got != "no:"+tt.want || tt.want == "" && got != "yes" {
					t.Errorf("not enforced: verified %q", got)
				}
				if text, err := io.ReadAll(c); string(text) != "hello" {
					t.Errorf("not enforced: the server says %q, %v", text, err)
				}
				_, err = handshakeWith(t, config, client, enforced(host))
				if tt.want == "" {
					if err != nil {
						t.Errorf("enforced: %v", err)
					}
					return
				}
				wantError(t, err, KindHandshake, regexp.QuoteMeta(tt.want))
				wantErrorFault(t, err)
			})
		}
	}
}

// A session that is resumed is not signed again, whether a verdict is enforced or not.
func TestJudgeSignature(t *testing.T) {
	for _, tt := range []struct {
		version  uint16
		scheme   tls.SignatureScheme
		enforced bool
		want     string
	}{
		{tls.VersionTLS12, tls.PSSWithSHA256, true, ""},
		{tls.VersionTLS12, tls.PKCS1WithSHA1, true, "server signs the handshake with SHA-1"},
		{tls.VersionTLS12, tls.ECDSAWithSHA1, false, "server signs the handshake with SHA-1"},
		{tls.VersionTLS12, 0, true, "server does not sign the handshake"},
		{tls.VersionTLS12, 0, false, ""}, // a suite without signatures
		{tls.VersionTLS13, 0, true, ""},
		{tls.VersionTLS10, 0, false, ""},
	} {
		v := judgeSignature(tls.ConnectionState{Version: tt.version}, tt.scheme, tt.enforced)
		if v.Reason != tt.want {
			t.Errorf("%+v: %q", tt, v)
		}
		wantFault(t, v.Reason, v.Fault)
	}
}
