package tlsc

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/tlsc/tlstest"
)

// An rdn is an attribute of a name: kind is the last number of its type (2.5.4.kind).
type rdn struct {
	kind byte
	tag  asn1.Tag
	text string
}

const (
	commonName   = 3
	organization = 10
)

// rawName is a name, in which each attribute is a set.
func rawName(parts ...rdn) []byte {
	var sets [][]rdn
	for _, p := range parts {
		sets = append(sets, []rdn{p})
	}
	return rawSets(sets...)
}

func rawSets(sets ...[]rdn) []byte {
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for _, set := range sets {
			b.AddASN1(asn1.SET, func(b *cryptobyte.Builder) {
				for _, p := range set {
					b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
						b.AddASN1(asn1.OBJECT_IDENTIFIER, func(b *cryptobyte.Builder) { b.AddBytes([]byte{0x55, 4, p.kind}) })
						b.AddASN1(p.tag, func(b *cryptobyte.Builder) { b.AddBytes([]byte(p.text)) })
					})
				}
			})
		}
	})
	return b.BytesOrPanic()
}

func TestSameName(t *testing.T) {
	cn := func(tag asn1.Tag, text string) []byte { return rawName(rdn{commonName, tag, text}) }
	usual := cn(asn1.PrintableString, "Some Authority")
	two := []rdn{{commonName, asn1.UTF8String, "a"}, {organization, asn1.UTF8String, "b"}}
	turned := []rdn{two[1], two[0]}
	for _, tt := range []struct {
		name string
		a, b []byte
		want bool
	}{
		{"itself", usual, usual, true},
		{"UTF8String", usual, cn(asn1.UTF8String, "Some Authority"), true},
		{"T61String", usual, cn(asn1.T61String, "Some Authority"), true},
		{"IA5String", usual, cn(asn1.IA5String, "Some Authority"), true},
		{"BMPString", usual, cn(bmpString, "\x00S\x00o\x00m\x00e\x00 \x00A\x00u\x00t\x00h\x00o\x00r\x00i\x00t\x00y"), true},
		{"UniversalString", cn(asn1.UTF8String, "aé"), cn(universalString, "\x00\x00\x00a\x00\x00\x00\xe9"), true},
		{"Latin-1", cn(asn1.UTF8String, "aé"), cn(asn1.T61String, "a\xe9"), true},
		{"case", usual, cn(asn1.PrintableString, "SOME authority"), true},
		{"case above ASCII", cn(asn1.UTF8String, "ÄΣ"), cn(asn1.UTF8String, "äς"), true},
		{"sharp s", cn(asn1.UTF8String, "STRASSE"), cn(asn1.UTF8String, "straße"), true},
		{"composed", cn(asn1.UTF8String, "é"), cn(asn1.UTF8String, "e\u0301"), true},
		{"wide", cn(asn1.UTF8String, "ａ"), cn(asn1.UTF8String, "A"), true},
		{"blanks", usual, cn(asn1.UTF8String, "  Some \t\u00a0 Authority "), true},
		{"a blank less", usual, cn(asn1.UTF8String, "SomeAuthority"), false},
		{"nothing to see", usual, cn(asn1.UTF8String, "So\u00adme\u200b Authority"), true},
		{"nothing but blanks", cn(asn1.UTF8String, ""), cn(asn1.UTF8String, "  "), true},
		{"other text", usual, cn(asn1.UTF8String, "Some Authorities"), false},
		{"other attribute", usual, rawName(rdn{organization, asn1.PrintableString, "Some Authority"}), false},
		{"more", rawName(two...), rawName(two[0]), false},
		{"order of parts", rawName(two...), rawName(turned...), false},
		{"order in a set", rawSets(two), rawSets(turned), true},
		{"a set and two", rawSets(two), rawName(two...), false},
		{"text that runs on", rawName(two...), rawName(rdn{commonName, asn1.UTF8String, "ab"}), false},
		{"no string", cn(asn1.OCTET_STRING, "A"), cn(asn1.OCTET_STRING, "a"), false},
		{"bad UTF-8", cn(asn1.UTF8String, "A\xff"), cn(asn1.UTF8String, "a\xff"), false},
		{"odd BMPString", cn(bmpString, "\x00A\x00"), cn(bmpString, "\x00a\x00"), false},
		{"no name", []byte("A"), []byte("a"), false},
		{"rubbish behind", append(bytes.Clone(usual), 0), usual, false},
		{"empty", rawName(), rawName(), true},
		{"empty and not", rawName(), usual, false},
	} {
		if got := sameName(tt.a, tt.b); got != tt.want || sameName(tt.b, tt.a) != got {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

func FuzzPreparedName(f *testing.F) {
	f.Add(rawName(rdn{commonName, asn1.UTF8String, " ÄΣ ß\u200b  K"}))
	f.Add(rawName(rdn{commonName, bmpString, "\xd8\x00\x00a"}))
	f.Fuzz(func(t *testing.T, der []byte) {
		preparedName(der)
		if text := string(der); prepare(prepare(text)) != prepare(text) {
			t.Errorf("%q becomes %q and then %q", text, prepare(text), prepare(prepare(text)))
		}
	})
}

// A chain is found however its names are encoded, and everything else is checked.
func TestNamesInChains(t *testing.T) {
	printable := rawName(rdn{commonName, asn1.PrintableString, "Some Authority"})
	spelled := rawName(rdn{commonName, asn1.UTF8String, " some  AUTHORITY"})
	middleName, middleSpelled := rawName(rdn{commonName, asn1.PrintableString, "Middle"}), rawName(rdn{commonName, asn1.UTF8String, "MIDDLE"})
	authority := func(name []byte, change func(*x509.Certificate)) func(*x509.Certificate) {
		return func(c *x509.Certificate) {
			tlstest.Authority("")(c)
			c.RawSubject = name
			if change != nil {
				change(c)
			}
		}
	}
	root := selfSigned(nil, authority(printable, nil))
	namesake := selfSigned(nil, authority(printable, nil))
	middle := func(change func(*x509.Certificate)) *tlstest.Party {
		return root.Called(spelled).Issue(nil, authority(middleName, change))
	}
	goodMiddle := middle(nil)
	far := goodMiddle.Called(middleSpelled)
	expired := middle(func(c *x509.Certificate) { c.NotAfter = date(2026, 3, 1) })
	notCA := middle(func(c *x509.Certificate) { c.IsCA, c.KeyUsage = false, x509.KeyUsageDigitalSignature })
	short := middle(func(c *x509.Certificate) { c.MaxPathLenZero = true })
	below := short.Called(middleSpelled).Issue(nil, authority(rawName(rdn{commonName, asn1.UTF8String, "below"}), nil))
	constrained := middle(func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"example.net"} })
	clients := middle(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} })
	self := selfSigned(nil, func(c *x509.Certificate) { c.DNSNames, c.RawSubject = []string{host}, spelled })

	for _, tt := range []struct {
		name    string
		anchors []*tlstest.Party
		pair    tls.Certificate
		want    string
	}{
		{"anchor", []*tlstest.Party{namesake, root}, root.Called(spelled).Leaf(nil, host).Pair(), ""},
		{"intermediate", []*tlstest.Party{root}, far.Leaf(nil, host).Pair(goodMiddle), ""},
		{"an anchor below the root", []*tlstest.Party{goodMiddle}, far.Leaf(nil, host).Pair(), ""},
		{"namesake only", []*tlstest.Party{namesake}, root.Called(spelled).Leaf(nil, host).Pair(), "certificate is signed by an authority that is not in FILE"},
		{"other host", []*tlstest.Party{root}, root.Called(spelled).Leaf(nil, "other.example").Pair(), `certificate is for "other.example", not "mx.example.org"`},
		{"expired", []*tlstest.Party{root}, root.Called(spelled).Leaf(func(c *x509.Certificate) { c.NotAfter = date(2026, 3, 1) }, host).Pair(), "certificate expired on 2026-03-01"},
		{"expired authority", []*tlstest.Party{root}, expired.Called(middleSpelled).Leaf(nil, host).Pair(expired), `certificate of the authority "CN=Middle" expired on 2026-03-01`},
		{"no authority", []*tlstest.Party{root}, notCA.Called(middleSpelled).Leaf(nil, host).Pair(notCA), `certificate of the authority "CN=Middle" is not that of an authority, but used as one`},
		{"path length", []*tlstest.Party{root}, below.Leaf(nil, host).Pair(below, short), `certificate is not acceptable: .*`},
		{"name constraint", []*tlstest.Party{root}, constrained.Called(middleSpelled).Leaf(nil, host).Pair(constrained), `certificate names a host for which its authority may not sign: .*`},
		{"for clients", []*tlstest.Party{root}, clients.Called(middleSpelled).Leaf(nil, host).Pair(clients), "certificate is not for servers"},
		{"self-signed", []*tlstest.Party{root}, self.Pair(), "certificate is self-signed, so signed by an authority that is not in FILE"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := tlstest.Bundle(t, tt.anchors...)
			wantVerdict(t, &tls.Config{Certificates: []tls.Certificate{tt.pair}}, file, host, strings.ReplaceAll(tt.want, "FILE", regexp.QuoteMeta(file)))
		})
	}
}

// Where the authority is there and cannot be used, the words do not say that it is missing.
func TestBrokenChains(t *testing.T) {
	rsaKey := must.Get(rsa.GenerateKey(rand.Reader, 2048))(t)
	sha1 := func(c *x509.Certificate) { c.SignatureAlgorithm = x509.SHA1WithRSA }
	root := selfSigned(rsaKey, tlstest.Authority("root"))
	oldMiddle := root.Issue(nil, func(c *x509.Certificate) { tlstest.Authority("middle")(c); sha1(c) })
	noSigner := selfSigned(nil, func(c *x509.Certificate) { tlstest.Authority("root")(c); c.KeyUsage = x509.KeyUsageDigitalSignature })
	namesake := newCA("root")
	unknownCurve := newCA("root")
	der := bytes.Replace(unknownCurve.Cert.Raw, []byte("\x2a\x86\x48\xce\x3d\x03\x01\x07"), []byte("\x2a\x86\x48\xce\x3d\x03\x01\x02"), 1)
	unusable := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	for _, tt := range []struct {
		name    string
		anchors []byte
		pair    tls.Certificate
		want    string
	}{
		{"SHA-1", root.PEM(), root.Leaf(sha1, host).Pair(), `certificate is signed with SHA1-RSA, which proves nothing any more`},
		{"SHA-1 above", root.PEM(), oldMiddle.Leaf(nil, host).Pair(oldMiddle), `certificate of the authority "CN=middle" is signed with SHA1-RSA, which proves nothing any more`},
		{"SHA-1 by a namesake", namesake.PEM(), root.Leaf(sha1, host).Pair(), `certificate is signed by an authority that is not in FILE`},
		{"no right to sign", noSigner.PEM(), noSigner.Leaf(nil, host).Pair(), `certificate of the authority "CN=root" is not that of an authority, but used as one`},
		{"unusable", unusable, unknownCurve.Leaf(nil, host).Pair(), `certificate is signed by an authority whose certificate in FILE cannot be used: unsupported elliptic curve`},
		{"unusable and a namesake", slices.Concat(unusable, namesake.PEM()), unknownCurve.Leaf(nil, host).Pair(), `certificate is signed by an authority whose certificate in FILE cannot be used: unsupported elliptic curve`},
		{"unusable and not needed", slices.Concat(unusable, namesake.PEM()), namesake.Leaf(nil, host).Pair(), ``},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := tlstest.File(t, "anchors", tt.anchors)
			wantVerdict(t, &tls.Config{Certificates: []tls.Certificate{tt.pair}}, file, host, strings.ReplaceAll(tt.want, "FILE", regexp.QuoteMeta(file)))
		})
	}
}

// A server that sends hundreds of certificates of one name costs no more signature checks
// than x509 makes.
func TestBrokenIsBounded(t *testing.T) {
	root := newCA("root")
	leaf := root.Leaf(nil, host)
	x := newIndex("")
	twins := newRenamed()
	given := []*x509.Certificate{twins.add(leaf.Cert)}
	for i := range 2 * signatureChecks {
		twin := *root.Cert
		twin.Raw = big.NewInt(int64(i + 1)).Bytes() // each is different
		twin.PublicKey = newCA("root").Cert.PublicKey
		if i == signatureChecks+1 {
			twin.KeyUsage, twin.PublicKey = x509.KeyUsageDigitalSignature, root.Cert.PublicKey
		}
		given = append(given, twins.add(&twin))
	}
	words := func(*x509.Certificate) string { return "it" }
	if got := x.broken(given, anchorsFor{}, words); !got.Good() {
		t.Errorf("past the bound: %q", got)
	}
	if got := x.broken(append(given[:1:1], given[signatureChecks:]...), anchorsFor{}, words); got.Reason != "it"+notAnAuthority {
		t.Errorf("within the bound: %q", got)
	}
}
