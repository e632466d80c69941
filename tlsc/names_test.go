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

// rawName is the name of one attribute after another.
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
	plain := cn(asn1.PrintableString, "Some Authority")
	two := []rdn{{commonName, asn1.UTF8String, "a"}, {organization, asn1.UTF8String, "b"}}
	turned := []rdn{two[1], two[0]}
	for _, tt := range []struct {
		name string
		a, b []byte
		want bool
	}{
		{"itself", plain, plain, true},
		{"UTF8String", plain, cn(asn1.UTF8String, "Some Authority"), true},
		{"T61String", plain, cn(asn1.T61String, "Some Authority"), true},
		{"IA5String", plain, cn(asn1.IA5String, "Some Authority"), true},
		{"BMPString", plain, cn(bmpString, "\x00S\x00o\x00m\x00e\x00 \x00A\x00u\x00t\x00h\x00o\x00r\x00i\x00t\x00y"), true},
		{"UniversalString", cn(asn1.UTF8String, "aé"), cn(universalString, "\x00\x00\x00a\x00\x00\x00\xe9"), true},
		{"Latin-1", cn(asn1.UTF8String, "aé"), cn(asn1.T61String, "a\xe9"), true},
		{"case", plain, cn(asn1.PrintableString, "SOME authority"), true},
		{"case above ASCII", cn(asn1.UTF8String, "ÄΣ"), cn(asn1.UTF8String, "äς"), true},
		{"sharp s", cn(asn1.UTF8String, "STRASSE"), cn(asn1.UTF8String, "straße"), true},
		{"composed", cn(asn1.UTF8String, "é"), cn(asn1.UTF8String, "e\u0301"), true},
		{"wide", cn(asn1.UTF8String, "ａ"), cn(asn1.UTF8String, "A"), true},
		{"blanks", plain, cn(asn1.UTF8String, "  Some \t\u00a0 Authority "), true},
		{"a blank less", plain, cn(asn1.UTF8String, "SomeAuthority"), false},
		{"nothing to see", plain, cn(asn1.UTF8String, "So\u00adme\u200b Authority"), true},
		{"nothing but blanks", cn(asn1.UTF8String, ""), cn(asn1.UTF8String, "  "), true},
		{"other text", plain, cn(asn1.UTF8String, "Some Authorities"), false},
		{"other attribute", plain, rawName(rdn{organization, asn1.PrintableString, "Some Authority"}), false},
		{"more", rawName(two...), rawName(two[0]), false},
		{"order of parts", rawName(two...), rawName(turned...), false},
		{"order in a set", rawSets(two), rawSets(turned), true},
		{"a set and two", rawSets(two), rawName(two...), false},
		{"text that runs on", rawName(two...), rawName(rdn{commonName, asn1.UTF8String, "ab"}), false},
		{"no string", cn(asn1.OCTET_STRING, "A"), cn(asn1.OCTET_STRING, "a"), false},
		{"bad UTF-8", cn(asn1.UTF8String, "A\xff"), cn(asn1.UTF8String, "a\xff"), false},
		{"odd BMPString", cn(bmpString, "\x00A\x00"), cn(bmpString, "\x00a\x00"), false},
		{"no name", []byte("A"), []byte("a"), false},
		{"rubbish behind", append(bytes.Clone(plain), 0), plain, false},
		{"empty", rawName(), rawName(), true},
		{"empty and not", rawName(), plain, false},
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

// called is an authority under another spelling of its name, as those whom it signs for
// have it.
func (p *party) called(name []byte) *party {
	twin := *p.cert
	twin.RawSubject = name
	return &party{&twin, p.key, p.ca}
}

// A chain is found whatever its names are written in, and all else is checked as ever.
func TestNamesInChains(t *testing.T) {
	printable := rawName(rdn{commonName, asn1.PrintableString, "Some Authority"})
	spelled := rawName(rdn{commonName, asn1.UTF8String, " some  AUTHORITY"})
	middleName, middleSpelled := rawName(rdn{commonName, asn1.PrintableString, "Middle"}), rawName(rdn{commonName, asn1.UTF8String, "MIDDLE"})
	authority := func(name []byte, change func(*x509.Certificate)) func(*x509.Certificate) {
		return func(c *x509.Certificate) {
			asCA("")(c)
			c.RawSubject = name
			if change != nil {
				change(c)
			}
		}
	}
	root := issue(t, nil, newKey(t), authority(printable, nil))
	namesake := issue(t, nil, newKey(t), authority(printable, nil))
	middle := func(change func(*x509.Certificate)) *party {
		return issue(t, root.called(spelled), newKey(t), authority(middleName, change))
	}
	plainMiddle := middle(nil)
	far := plainMiddle.called(middleSpelled)
	expired := middle(func(c *x509.Certificate) { c.NotAfter = date(2026, 3, 1) })
	notCA := middle(func(c *x509.Certificate) { c.IsCA, c.KeyUsage = false, x509.KeyUsageDigitalSignature })
	short := middle(func(c *x509.Certificate) { c.MaxPathLenZero = true })
	below := issue(t, short.called(middleSpelled), newKey(t), authority(rawName(rdn{commonName, asn1.UTF8String, "below"}), nil))
	constrained := middle(func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"example.net"} })
	clients := middle(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} })
	self := issue(t, nil, newKey(t), func(c *x509.Certificate) { c.DNSNames, c.RawSubject = []string{host}, spelled })

	for _, tt := range []struct {
		name    string
		anchors []*party
		pair    tls.Certificate
		want    string
	}{
		{"anchor", []*party{namesake, root}, root.called(spelled).server(t, nil, host).pair(), ""},
		{"intermediate", []*party{root}, far.server(t, nil, host).pair(plainMiddle), ""},
		{"an anchor below the root", []*party{plainMiddle}, far.server(t, nil, host).pair(), ""},
		{"namesake only", []*party{namesake}, root.called(spelled).server(t, nil, host).pair(), "certificate is signed by an authority that is not in FILE"},
		{"other host", []*party{root}, root.called(spelled).server(t, nil, "other.example").pair(), `certificate is for "other.example", not "mx.example.org"`},
		{"expired", []*party{root}, root.called(spelled).server(t, func(c *x509.Certificate) { c.NotAfter = date(2026, 3, 1) }, host).pair(), "certificate expired on 2026-03-01"},
		{"expired authority", []*party{root}, expired.called(middleSpelled).server(t, nil, host).pair(expired), `certificate of the authority "CN=Middle" expired on 2026-03-01`},
		{"no authority", []*party{root}, notCA.called(middleSpelled).server(t, nil, host).pair(notCA), `certificate of the authority "CN=Middle" is not that of an authority, but used as one`},
		{"path length", []*party{root}, below.server(t, nil, host).pair(below, short), `certificate is not acceptable: .*`},
		{"name constraint", []*party{root}, constrained.called(middleSpelled).server(t, nil, host).pair(constrained), `certificate names a host for which its authority may not sign: .*`},
		{"for clients", []*party{root}, clients.called(middleSpelled).server(t, nil, host).pair(clients), "certificate is not for servers"},
		{"self-signed", []*party{root}, self.pair(), "certificate is self-signed, so signed by an authority that is not in FILE"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := bundle(t, tt.anchors...)
			wantVerdict(t, Anchors{File: file}, tt.pair, strings.ReplaceAll(tt.want, "FILE", regexp.QuoteMeta(file)))
		})
	}
}

// wantVerdict wants the same verdict where it is enforced and where it is not.
func wantVerdict(t *testing.T, anchors Anchors, pair tls.Certificate, want string) {
	t.Helper()
	config := &tls.Config{Certificates: []tls.Certificate{pair}}
	_, err := handshakeWith(t, config.Clone(), &Settings{ServerName: host, Verify: true, Anchors: anchors})
	if want == "" && err != nil {
		t.Errorf("enforced: %v", err)
	} else if want != "" {
		wantError(t, err, KindHandshake, want)
	}
	c, err := handshakeWith(t, config.Clone(), &Settings{ServerName: host, Anchors: anchors})
	if err != nil {
		t.Fatal(err)
	}
	verified := "yes"
	if want != "" {
		verified = "no:(" + want + ")"
	}
	if got := c.Description().Verified; !regexp.MustCompile("^" + verified + "$").MatchString(got) {
		t.Errorf("not enforced: verified %q, want %q", got, verified)
	}
}

// Where the authority is there and no use, the words do not say that it is missing.
func TestBrokenChains(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	sha1 := func(c *x509.Certificate) { c.SignatureAlgorithm = x509.SHA1WithRSA }
	root := issue(t, nil, rsaKey, asCA("root"))
	oldMiddle := issue(t, root, newKey(t), func(c *x509.Certificate) { asCA("middle")(c); sha1(c) })
	noSigner := issue(t, nil, newKey(t), func(c *x509.Certificate) { asCA("root")(c); c.KeyUsage = x509.KeyUsageDigitalSignature })
	namesake := newCA(t, "root", nil)
	unknownCurve := newCA(t, "root", nil)
	der := bytes.Replace(unknownCurve.cert.Raw, []byte("\x2a\x86\x48\xce\x3d\x03\x01\x07"), []byte("\x2a\x86\x48\xce\x3d\x03\x01\x02"), 1)
	unusable := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	for _, tt := range []struct {
		name    string
		anchors []byte
		pair    tls.Certificate
		want    string
	}{
		{"SHA-1", root.pem(), root.server(t, sha1, host).pair(), `certificate is signed with SHA1-RSA, which proves nothing any more`},
		{"SHA-1 above", root.pem(), oldMiddle.server(t, nil, host).pair(oldMiddle), `certificate of the authority "CN=middle" is signed with SHA1-RSA, which proves nothing any more`},
		{"SHA-1 by a namesake", namesake.pem(), root.server(t, sha1, host).pair(), `certificate is signed by an authority that is not in FILE`},
		{"no right to sign", noSigner.pem(), noSigner.server(t, nil, host).pair(), `certificate of the authority "CN=root" is not that of an authority, but used as one`},
		{"unusable", unusable, unknownCurve.server(t, nil, host).pair(), `certificate is signed by an authority whose certificate in FILE cannot be used: unsupported elliptic curve`},
		{"unusable and a namesake", slices.Concat(unusable, namesake.pem()), unknownCurve.server(t, nil, host).pair(), `certificate is signed by an authority whose certificate in FILE cannot be used: unsupported elliptic curve`},
		{"unusable and not needed", slices.Concat(unusable, namesake.pem()), namesake.server(t, nil, host).pair(), ``},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := writeFile(t, "anchors", tt.anchors)
			wantVerdict(t, Anchors{File: file}, tt.pair, strings.ReplaceAll(tt.want, "FILE", regexp.QuoteMeta(file)))
		})
	}
}

// A server that sends hundreds of certificates of one name is not worth more signature
// checks than x509 makes.
func TestBrokenIsBounded(t *testing.T) {
	root := newCA(t, "root", nil)
	leaf := root.server(t, nil, host)
	x := newIndex("")
	twins := newRenamed()
	given := []*x509.Certificate{twins.add(leaf.cert)}
	for i := range 2 * signatureChecks {
		twin := *root.cert
		twin.Raw = big.NewInt(int64(i + 1)).Bytes() // each another one
		twin.PublicKey = newCA(t, "root", nil).cert.PublicKey
		if i == signatureChecks+1 {
			twin.KeyUsage, twin.PublicKey = x509.KeyUsageDigitalSignature, root.cert.PublicKey
		}
		given = append(given, twins.add(&twin))
	}
	words := func(*x509.Certificate) string { return "it" }
	if got := x.broken(given, anchorsFor{}, words); got != "" {
		t.Errorf("past the bound: %q", got)
	}
	if got := x.broken(append(given[:1:1], given[signatureChecks:]...), anchorsFor{}, words); got != "it"+notAnAuthority {
		t.Errorf("within the bound: %q", got)
	}
}
