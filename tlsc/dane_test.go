package tlsc

import (
	"cmp"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"

	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/tlsc/tlstest"
)

// A pki is what the tests of TLSA records choose certificates from.
type pki map[string]*tlstest.Party

func expired(c *x509.Certificate) { c.NotAfter = date(2026, 3, 1) }
func early(c *x509.Certificate)   { c.NotBefore = date(2031, 2, 3) }

// newPKI makes certificates. Those of servers have the name host, unless theirs says
// otherwise.
func newPKI(t testing.TB) pki {
	t.Helper()
	authority := func(name string, changes ...tlstest.Change) tlstest.Change {
		return func(c *x509.Certificate) {
			tlstest.Authority(name)(c)
			for _, change := range changes {
				change(c)
			}
		}
	}
	named := func(c *x509.Certificate) {
		c.Subject.CommonName = "self"
		c.DNSNames = []string{host}
	}
	p := pki{"root": newCA("root"), "other": newCA("other"), "namesake": newCA("root")}
	root := p["root"]
	p["expired root"] = newCA("expired root")
	p["expired root"] = selfSigned(p["expired root"].Key, authority("expired root", expired))
	p["middle"] = root.Issue(nil, tlstest.Authority("middle"))
	p["lower"] = p["middle"].Issue(nil, tlstest.Authority("lower"))
	p["expired middle"] = root.Issue(nil, authority("expired middle", expired))
	p["renewed middle"] = root.Issue(p["middle"].Key, tlstest.Authority("middle"))
	p["no authority"] = root.Issue(nil, authority("no authority", func(c *x509.Certificate) { c.IsCA = false }))
	p["last"] = root.Issue(nil, authority("last", func(c *x509.Certificate) { c.MaxPathLenZero = true }))
	p["below last"] = p["last"].Issue(nil, tlstest.Authority("below last"))
	p["constrained"] = root.Issue(nil, authority("constrained", func(c *x509.Certificate) {
		c.PermittedDNSDomains, c.PermittedDNSDomainsCritical = []string{"example.net"}, true
	}))
	p["permitting"] = root.Issue(nil, authority("permitting", func(c *x509.Certificate) {
		c.PermittedDNSDomains, c.PermittedDNSDomainsCritical = []string{"example.org"}, true
	}))

	p["leaf"] = root.Leaf(nil, host)
	p["wrong name"] = root.Leaf(nil, "mail.example.net")
	p["wildcard"] = root.Leaf(nil, "*.example.org")
	p["common name"] = root.Leaf(func(c *x509.Certificate) { c.Subject.CommonName = host })
	p["no name"] = root.Leaf(nil)
	p["address"] = root.Leaf(nil, "192.0.2.1")
	p["expired"] = root.Leaf(expired, host)
	p["early"] = root.Leaf(early, host)
	p["for clients"] = root.Leaf(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }, host)
	p["self"] = selfSigned(nil, named)
	p["self, authority"] = selfSigned(nil, func(c *x509.Certificate) { tlstest.Authority("self")(c); named(c) })
	p["self, expired, nameless"] = selfSigned(nil, expired)
	for _, authority := range []string{"expired root", "middle", "lower", "expired middle", "no authority", "last", "below last", "constrained", "permitting"} {
		p["leaf of "+authority] = p[authority].Leaf(valid, host)
	}
	return p
}

// A daneCase is what a server sends and what is published about it. Records are "2 0 1" and
// the name of a certificate; the first one sent is the server's.
type daneCase struct {
	sent    string // names, semicolons between
	records string // likewise
	fault   Fault
	reason  string // how it begins, behind recordMatches unless fault is FaultNoMatch
}

var daneCases = []daneCase{
	// Usage 3: nothing but the certificate matters.
	{"leaf", "3 0 1 leaf", NoFault, ""},
	{"leaf", "3 1 1 leaf", NoFault, ""},
	{"leaf", "3 0 2 leaf", NoFault, ""},
	{"leaf", "3 1 2 leaf", NoFault, ""},
	{"leaf", "3 0 0 leaf", NoFault, ""},
	{"leaf", "3 1 0 leaf", NoFault, ""},
	{"wrong name", "3 1 1 wrong name", NoFault, ""},
	{"no name", "3 1 1 no name", NoFault, ""},
	{"expired", "3 0 1 expired", NoFault, ""},
	{"early", "3 0 1 early", NoFault, ""},
	{"for clients", "3 0 1 for clients", NoFault, ""},
	{"self, expired, nameless", "3 1 1 self, expired, nameless", NoFault, ""},
	{"leaf", "3 1 1 other;3 1 1 root;3 1 1 leaf", NoFault, ""},
	{"leaf", "2 1 1 other;3 1 1 leaf", NoFault, ""},
	{"leaf;root", "3 1 1 root", FaultNoMatch, "certificate matches none of the usable TLSA records of mx.example.org (1)"},
	{"leaf;root", "3 1 1 other;3 0 0 root;1 1 1 leaf", FaultNoMatch, "certificate matches none of the usable TLSA records of mx.example.org (2)"},
	{"leaf", "3 1 1 other;3 1 2 other", FaultNoMatch, "certificate matches none of the usable TLSA records of mx.example.org (2)"},
	{"leaf", "3 1 1 leaf;3 1 2 other", FaultNoMatch, ""}, // agility
	{"leaf", "3 1 1 leaf;3 0 2 other", NoFault, ""},

	// Usage 2, all that names an authority.
	{"leaf;root", "2 0 1 root", NoFault, ""},
	{"leaf;root", "2 1 1 root", NoFault, ""},
	{"leaf;root", "2 0 2 root", NoFault, ""},
	{"leaf;root", "2 1 2 root", NoFault, ""},
	{"leaf;root", "2 0 0 root", NoFault, ""},
	{"leaf;root", "2 1 0 root", NoFault, ""},
	{"leaf", "2 0 0 root", NoFault, ""},
	{"leaf", "2 1 0 root", FaultNoMatch, ""}, // a key is not looked for above what was sent
	{"leaf", "2 0 1 root", FaultNoMatch, ""},
	{"leaf", "2 1 1 root", FaultNoMatch, ""},
	{"leaf of middle;middle;root", "2 0 1 middle", NoFault, ""},
	{"leaf of middle;middle", "2 1 0 middle", NoFault, ""},
	{"leaf of middle;middle", "2 0 0 middle", NoFault, ""},
	{"leaf of middle", "2 0 0 middle", NoFault, ""},
	{"leaf of middle;middle;root", "2 1 2 root", NoFault, ""},
	{"leaf of middle;middle", "2 0 0 root", NoFault, ""},
	{"leaf of middle", "2 0 0 root", FaultNoMatch, ""},
	{"leaf of middle;root", "2 0 1 root", FaultNoMatch, ""}, // one is missing between
	{"leaf of middle;root;middle", "2 0 1 root", NoFault, ""},
	{"leaf of lower;lower;middle;root", "2 1 1 middle", NoFault, ""},
	{"leaf of middle;renewed middle", "2 1 1 middle", NoFault, ""},
	{"leaf of middle;renewed middle", "2 0 1 middle", FaultNoMatch, ""},
	{"leaf;root", "2 1 1 other", FaultNoMatch, ""},
	{"leaf;other", "2 1 1 other", FaultNoMatch, ""},
	{"leaf;namesake", "2 1 1 namesake", FaultNoMatch, ""},
	{"leaf;namesake;root", "2 1 1 root", NoFault, ""},
	{"leaf;root", "2 1 1 other;2 0 0 namesake;2 1 2 root", NoFault, ""},
	{"wildcard;root", "2 1 1 root", NoFault, ""},

	// The leaf is no authority over itself.
	{"leaf", "2 0 1 leaf", FaultNoMatch, ""},
	{"leaf", "2 0 0 leaf", FaultNoMatch, ""},
	{"self", "2 0 1 self", FaultNoMatch, ""},
	{"self", "2 1 1 self", FaultNoMatch, ""},
	{"self", "2 0 0 self", FaultNoMatch, ""},
	{"self;self", "2 0 1 self", FaultNoMatch, ""},
	{"self, authority;self, authority", "2 1 0 self, authority", FaultNoMatch, ""},
	{"self, authority", "2 0 0 self, authority", FaultNoMatch, ""},
	{"leaf;root;leaf", "2 1 1 leaf", FaultNoMatch, ""},

	// Usage 2: everything else matters.
	{"wrong name;root", "2 1 1 root", FaultName, `certificate is for "mail.example.net", not "mx.example.org"`},
	{"common name;root", "2 1 1 root", FaultName, `certificate names "mx.example.org" in its common name only`},
	{"no name;root", "2 1 1 root", FaultName, `certificate names no host`},
	{"address;root", "2 1 1 root", FaultName, `certificate is for "192.0.2.1"`},
	{"expired;root", "2 1 1 root", FaultDate, "certificate expired on 2026-03-01"},
	{"early;root", "2 0 0 root", FaultDate, "certificate is not valid before 2031-02-03"},
	{"leaf of expired middle;expired middle;root", "2 1 1 root", FaultDate, `certificate of the authority "CN=expired middle" expired`},
	{"leaf of expired middle;expired middle", "2 1 1 expired middle", FaultDate, `certificate of the authority "CN=expired middle" expired`},
	{"leaf of expired root", "2 0 0 expired root", FaultDate, `certificate of the authority "CN=expired root" expired`},
	{"for clients;root", "2 1 1 root", FaultUse, "certificate is not for servers"},
	{"leaf of no authority;no authority", "2 1 1 no authority", FaultUse, `certificate of the authority "CN=no authority" is not that of an authority`},
	{"leaf of no authority;no authority;root", "2 1 1 root", FaultUse, `certificate of the authority "CN=no authority" is not that of an authority`},
	{"leaf of last;last", "2 1 1 last", NoFault, ""},
	{"leaf of below last;below last;last", "2 1 1 last", FaultOther, "certificate is not acceptable: "},
	{"leaf of below last;below last", "2 1 1 below last", NoFault, ""}, // nothing above it matters
	{"leaf of constrained;constrained", "2 1 1 constrained", FaultUse, "certificate names a host for which its authority may not sign"},
	{"leaf of constrained;constrained", "2 1 1 root;2 0 0 constrained", FaultUse, "certificate names a host for which its authority may not sign"},
	{"leaf of permitting;permitting", "2 1 1 permitting", NoFault, ""},

	// One match is enough, whatever the others say.
	{"expired;root", "2 1 1 root;3 1 1 expired", NoFault, ""},
	{"leaf of expired middle;expired middle;root", "2 1 1 expired middle;3 0 1 leaf of expired middle", NoFault, ""},
}

func (p pki) parties(t testing.TB, names string) []*tlstest.Party {
	t.Helper()
	var parties []*tlstest.Party
	for name := range strings.SplitSeq(names, ";") {
		if p[name] == nil {
			t.Fatalf("no certificate is called %q", name)
		}
		parties = append(parties, p[name])
	}
	return parties
}

func (p pki) pair(t testing.TB, names string) tls.Certificate {
	t.Helper()
	parties := p.parties(t, names)
	return parties[0].Pair(parties[1:]...)
}

func (p pki) records(t testing.TB, text string) Records {
	t.Helper()
	var records []TLSA
	for one := range strings.SplitSeq(text, ";") {
		kind, name := one[:len("3 1 1")], one[len("3 1 1 "):]
		records = append(records, record(t, kind, p.parties(t, name)[0].Cert))
	}
	return must.Get(NewRecords(records))(t)
}

func TestDANE(t *testing.T) {
	p := newPKI(t)
	for _, tt := range daneCases {
		t.Run(tt.sent+" by "+tt.records, func(t *testing.T) {
			t.Parallel()
			for version := uint16(tls.VersionTLS12); version <= tls.VersionTLS13; version++ {
				config := &tls.Config{Certificates: []tls.Certificate{p.pair(t, tt.sent)}, MaxVersion: version}
				d := &Demand{ServerName: host, Judge: DANE{Records: p.records(t, tt.records)}}
				c, err := handshakeWith(t, config, trusting(""), d)
				if tt.fault == NoFault {
					if err != nil {
						t.Errorf("%v", err)
					} else if v := c.Facts().Verdict; !v.Good() || v.Fault != NoFault || v.Faults != (Faults{}) {
						t.Errorf("verified %q, %v", v, v.Faults)
					}
					continue
				}
				want := cmp.Or(tt.reason, "certificate matches none of the usable TLSA records of mx.example.org (")
				if tt.fault != FaultNoMatch {
					want = "a TLSA record matches, but " + want
				}
				wantRefusal(t, err, want, Faults{Records: tt.fault})
			}
		})
	}
}

// wantRefusal wants a handshake to have failed by the verdict of these judges, and its text
// to say so.
func wantRefusal(t *testing.T, err error, prefix string, faults Faults) {
	t.Helper()
	failure := new(Error)
	if !errors.As(err, &failure) {
		t.Fatalf("error %v, want %q", err, prefix)
	}
	first := faults.Records
	if first == NoFault {
		first = faults.Anchors
	}
	if failure.Kind != KindHandshake || !strings.HasPrefix(failure.What, prefix) || failure.Faults != faults || failure.Fault != first {
		t.Errorf("kind %d, %q, %v, %v; want %q, %v", failure.Kind, failure.What, failure.Fault, failure.Faults, prefix, faults)
	}
	known := func(f Fault) Fault {
		switch f {
		case FaultNoMatch, FaultName, FaultIssuer, FaultSelfSigned, FaultDate, FaultMissing, FaultStaple:
			return f
		case NoFault:
			return NoFault
		}
		return FaultOther
	}
	want := Faults{Records: known(faults.Records), Anchors: known(faults.Anchors)}
	if got := FaultsOf(failure.Fatal()); got != want {
		t.Errorf("%q is %v, want %v", failure.Fatal(), got, want)
	}
	if what, _ := CutSecond(failure.Fatal()); what != failure.What {
		t.Errorf("%q of %q, want %q", what, failure.Fatal(), failure.What)
	}
}

// Both must agree, and each has its own fault.
func TestDANE_withAnchors(t *testing.T) {
	p := newPKI(t)
	for _, tt := range []struct {
		sent, records, anchors string
		name                   string
		names                  []string
		reason                 string
		faults                 Faults
	}{
		{"leaf", "3 1 1 leaf", "root", host, nil, "", Faults{}},
		{"leaf;root", "2 1 1 root", "root", host, nil, "", Faults{}},
		{"leaf", "3 1 1 leaf", "other", host, nil, "certificate is signed by an authority that is not in ", Faults{Anchors: FaultIssuer}},
		{"self", "3 1 1 self", "other", host, nil, "certificate is self-signed", Faults{Anchors: FaultSelfSigned}},
		{"wrong name", "3 1 1 wrong name", "root", host, nil, "certificate is for ", Faults{Anchors: FaultName}},
		{"expired", "3 1 1 expired", "root", host, nil, "certificate expired on ", Faults{Anchors: FaultDate}},
		{"leaf of expired middle;expired middle", "3 1 1 leaf of expired middle", "root", host, nil, `certificate of the authority "CN=expired middle" expired`, Faults{Anchors: FaultDate}},
		{"leaf", "3 1 1 other", "root", host, nil, "certificate matches none of ", Faults{Records: FaultNoMatch}},
		{"leaf", "3 1 1 other", "other", host, nil, "certificate matches none of ", Faults{Records: FaultNoMatch, Anchors: FaultIssuer}},
		{"wrong name;root", "2 1 1 root", "root", host, nil, "a TLSA record matches, but certificate is for ", Faults{Records: FaultName, Anchors: FaultName}},
		// The records take the server's name too, the anchors take the others in its place.
		{"leaf;root", "2 1 1 root", "root", "base.example", []string{host}, "", Faults{}},
		{"leaf;root", "2 1 1 root", "root", host, []string{"mail.example"}, `certificate is for "mx.example.org", not "mail.example"`, Faults{Anchors: FaultName}},
	} {
		config := &tls.Config{Certificates: []tls.Certificate{p.pair(t, tt.sent)}}
		d := &Demand{ServerName: tt.name, Names: tt.names, Judge: DANE{Records: p.records(t, tt.records), Anchors: true}}
		client := trusting(tlstest.Bundle(t, p.parties(t, tt.anchors)...))
		c, err := handshakeWith(t, config, client, d)
		switch {
		case tt.reason != "":
			wantRefusal(t, err, tt.reason, tt.faults)
		case err != nil || !c.Facts().Verdict.Good():
			t.Errorf("%s by %s: %v", tt.sent, tt.records, err)
		}
	}
}

// Names in place of the server's.
func TestNames(t *testing.T) {
	root := newCA("root")
	file := tlstest.Bundle(t, root)
	records := must.Get(NewRecords([]TLSA{record(t, "2 1 1", root.Cert)}))(t)
	for _, tt := range []struct {
		has    string // names in the certificate
		server string
		names  string
		// whether the trust anchors take it, and TLSA records of usage 2
		anchors, dane bool
	}{
		{host, host, "", true, true},
		{host, "", "", true, true},
		{"a.example", host, "", false, false},
		{"a.example", host, "a.example", true, true},
		{"a.example", "", "a.example", true, true},
		{"b.example", "", "a.example", false, false},
		{"a.example", host, "b.example A.Example.", true, true},
		{"a.example", host, "b.example c.example", false, false},
		{host, host, "a.example", false, true},
		{"x.a.example", host, ".a.example", true, true},
		{"X.Y.a.Example", host, ".A.example", true, true},
		{"*.a.example", host, ".a.example", true, true},
		{"*.x.a.example", host, ".a.example", true, true},
		{"a.example", host, ".a.example", false, false},
		{"xa.example", host, ".a.example", false, false},
		{"*.example", host, ".a.example", false, false},
		{"x.a.example.net", host, ".a.example", false, false},
		{"a.example", host, ".", false, false},
		{"x.a.example", ".a.example", "", false, false}, // the server's name is no pattern
		{"192.0.2.1", "192.0.2.1", "", true, false},
		{"192.0.2.1", "[192.0.2.1]", "", true, false},
		{"192.0.2.1", host, "192.0.2.1", true, false},
		{"192.0.2.1 mx.example.org", "192.0.2.1", "mx.example.org", true, true},
	} {
		leaf := root.Leaf(nil, strings.Fields(tt.has)...)
		for judge, want := range map[Judge]bool{TrustAnchors{}: tt.anchors, DANE{Records: records}: tt.dane} {
			d := &Demand{ServerName: tt.server, Names: strings.Fields(tt.names), Judge: judge}
			_, err := handshakeWith(t, leaf.Config(root), trusting(file), d)
			if want && err != nil {
				t.Errorf("%s: %q for %q, %q: %v", judge, tt.has, tt.server, tt.names, err)
			}
			if !want {
				failure := new(Error)
				if !errors.As(err, &failure) || failure.Fault != FaultName {
					t.Errorf("%s: %q for %q, %q: %v", judge, tt.has, tt.server, tt.names, err)
				}
			}
		}
		told := &Demand{ServerName: tt.server, Names: strings.Fields(tt.names)}
		c := must.Get(handshakeWith(t, leaf.Config(root), trusting(file), told))(t)
		if got := c.Facts().Verdict.Good(); got != tt.anchors {
			t.Errorf("told: %q for %q, %q: %s", tt.has, tt.server, tt.names, c.Facts().Verdict)
		}
	}
	_, err := handshakeWith(t, root.Leaf(nil, host).Config(), trusting(file), &Demand{
		ServerName: host, Names: strings.Fields("a.example b.example c.example d.example e.example"), Judge: TrustAnchors{}})
	wantError(t, err, KindHandshake, `certificate is for "mx\.example\.org", not "a\.example", "b\.example", "c\.example", "d\.example" and 1 more`)
}

// What nothing was sent for.
func TestDANE_settings(t *testing.T) {
	p := newPKI(t)
	for _, tt := range []struct {
		judge DANE
		want  string
	}{
		{DANE{}, "none of the TLSA records can be used"},
		{DANE{Records: p.records(t, "1 1 1 leaf;0 0 1 root;3 1 3 leaf")}, "none of the TLSA records can be used"},
		{DANE{Records: p.records(t, "3 1 1 leaf"), Anchors: true}, "no trust anchors are configured"},
	} {
		conn := tlstest.Serve(t, func(conn *net.TCPConn) {
			if n, _ := conn.Read(make([]byte, 1)); n > 0 {
				t.Errorf("%s: something was sent", tt.want)
			}
		})
		_, err := shake(t, conn, trusting(""), &Demand{ServerName: host, Judge: tt.judge})
		wantError(t, err, KindSettings, tt.want)
	}
}

// What holds for every judge that enforces: the version, the signature, the key.
func TestDANE_weak(t *testing.T) {
	root := newCA("root")
	key := must.Get(rsa.GenerateKey(rand.Reader, 1024))(t)
	short := root.Issue(key, func(c *x509.Certificate) { c.DNSNames = []string{host} })
	by := func(kind string, p *tlstest.Party) *Demand {
		return &Demand{ServerName: host, Judge: DANE{Records: must.Get(NewRecords([]TLSA{record(t, kind, p.Cert)}))(t)}}
	}
	must.Get(handshakeWith(t, short.Config(), trusting(""), by("3 1 1", short)))(t)

	old := short.Config()
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	_, err := handshakeWith(t, old, trusting(""), by("3 1 1", short))
	wantError(t, err, KindHandshake, "server speaks no version of TLS from 1.2 up, .*")

	clear := root.Leaf(nil, host).Config()
	clear.MaxVersion, clear.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_ECDHE_ECDSA_WITH_RC4_128_SHA}
	_, err = handshakeWith(t, clear, trusting(""), by("2 0 0", root))
	wantError(t, err, KindHandshake, "server refused the handshake: .*")

	// Nothing but the judge, because a server cannot do the handshake with so short a key.
	tiny := *short.Cert
	tiny.PublicKey = &rsa.PublicKey{N: key.N, E: key.E}
	tiny.PublicKey.(*rsa.PublicKey).N.Rsh(key.N, 512)
	r := record(t, "3 1 1", &tiny)
	v := DANE{}.judge([]TLSA{r}, evidence{presented: []*x509.Certificate{&tiny}, server: host, now: testNow})
	if v.Fault != FaultWeak || v.Reason != "a TLSA record matches, but certificate has an RSA key of 512 bits, fewer than 1024" || !v.fatal {
		t.Errorf("%q, %v", v, v.Fault)
	}
	if v := (DANE{}).judge([]TLSA{r}, evidence{}); v.Fault != FaultMissing || v.Faults.Records != FaultMissing {
		t.Errorf("no certificate: %q, %v", v, v.Fault)
	}
}

// Negative serial numbers do not matter to usage 3, and a bad staple does not either.
func TestDANE_nothingElseMatters(t *testing.T) {
	root := newCA("root")
	leaf := root.Leaf(func(c *x509.Certificate) { tlstest.MustStaple(c) }, host)
	for _, kind := range []string{"3 0 1", "3 1 2"} {
		config := leaf.Config()
		config.Certificates[0].OCSPStaple = []byte("rubbish")
		d := &Demand{ServerName: host, Judge: DANE{Records: must.Get(NewRecords([]TLSA{record(t, kind, leaf.Cert)}))(t)}}
		c := must.Get(handshakeWith(t, config, trusting(""), d))(t)
		if !c.Facts().Verdict.Good() {
			t.Errorf("%s: %s", kind, c.Facts().Verdict)
		}
	}
	d := &Demand{ServerName: host, Judge: DANE{Records: must.Get(NewRecords([]TLSA{record(t, "2 1 1", root.Cert)}))(t)}}
	must.Get(handshakeWith(t, leaf.Config(root), trusting(""), d))(t)
	// Where trust anchors have to agree, they want the staple.
	d.Judge = DANE{Records: d.Judge.(DANE).Records, Anchors: true}
	_, err := handshakeWith(t, leaf.Config(root), trusting(tlstest.Bundle(t, root)), d)
	wantRefusal(t, err, "certificate must have an OCSP response stapled to it", Faults{Anchors: FaultNoStaple})
}

// An issuer's name may be spelled as RFC 5280 section 7.1 has it.
func TestDANE_spelling(t *testing.T) {
	root := newCA("root")
	leaf := root.Spelled().Leaf(nil, host)
	if string(leaf.Cert.RawIssuer) == string(root.Cert.RawSubject) {
		t.Fatal("the names are spelled alike")
	}
	for _, tt := range []struct {
		kind string
		sent []*tlstest.Party
	}{{"2 1 1", []*tlstest.Party{root}}, {"2 0 0", nil}} {
		d := &Demand{ServerName: host, Judge: DANE{Records: must.Get(NewRecords([]TLSA{record(t, tt.kind, root.Cert)}))(t)}}
		must.Get(handshakeWith(t, leaf.Config(tt.sent...), trusting(""), d))(t)
	}
}

func TestDANE_words(t *testing.T) {
	one := must.Get(ParseRecords("3 1 1 " + strings.Repeat("ab", 32) + ",3 1 1 abcd"))(t)
	for _, tt := range []struct {
		judge           DANE
		server          string
		called, noMatch string
	}{
		{DANE{Records: one}, host, "2 TLSA records", "certificate matches none of the usable TLSA records of mx.example.org (1)"},
		{DANE{Records: one}, "", "2 TLSA records", "certificate matches none of the usable TLSA records of the server (1)"},
		{DANE{Records: one, Pins: "control/tlspolicy:3"}, host, "the pins of control/tlspolicy:3", "certificate matches none of the pins of control/tlspolicy:3"},
		{DANE{Records: one, Anchors: true}, host, "2 TLSA records and trust anchors", "certificate matches none of the usable TLSA records of mx.example.org (1)"},
	} {
		if got := fmt.Sprint(tt.judge); got != tt.called {
			t.Errorf("%q, want %q", got, tt.called)
		}
		if got := tt.judge.NoMatch(tt.server); got != tt.noMatch {
			t.Errorf("%q, want %q", got, tt.noMatch)
		}
		if Judge(tt.judge) != Judge(tt.judge) {
			t.Error("a judge is not equal to itself")
		}
	}
	config := newCA("root").Leaf(nil, host).Config()
	_, err := handshakeWith(t, config, trusting(""), &Demand{ServerName: host + ".", Judge: DANE{Records: one, Pins: "control/tlspolicy:3"}})
	wantRefusal(t, err, "certificate matches none of the pins of control/tlspolicy:3", Faults{Records: FaultNoMatch})
}

// A server's words do not pass for ours.
func TestFaultsOf(t *testing.T) {
	for _, tt := range []struct {
		fatal string
		want  Faults
	}{
		{"", Faults{}},
		{"certificate", Faults{Anchors: FaultOther}},
		{`certificate names a host for which its authority may not sign: certificate expired on `, Faults{Anchors: FaultOther}},
		{`certificate of the authority "CN=x\" expired on " is not that of an authority, but used as one`, Faults{Anchors: FaultOther}},
		{`certificate of the authority CN=x expired on 2026-01-01`, Faults{Anchors: FaultOther}},
		{`certificate of the authority "CN=x\" is not" expired on 2026-01-01`, Faults{Anchors: FaultDate}},
		{`a TLSA record matches, but certificate of the authority "CN=x" expired on 2026-01-01`, Faults{Records: FaultDate}},
		{`certificate is signed with SHA1-RSA, which proves nothing any more`, Faults{Anchors: FaultOther}},
		{`certificate is signed in a way that is not known here`, Faults{Anchors: FaultOther}},
		{`certificate was revoked on 2026-01-01`, Faults{Anchors: FaultOther}},
		{`server sent no certificate`, Faults{Anchors: FaultMissing}},
		{`stapled OCSP response is not good`, Faults{Anchors: FaultStaple}},
		{`certificate matches none of the usable TLSA records of mx.example.org (1); besides, certificate expired on 2026-01-01`, Faults{FaultNoMatch, FaultDate}},
		{`a TLSA record matches, but certificate is for "a; besides, certificate expired on ", not "b"; besides, certificate is self-signed, so`, Faults{FaultName, FaultSelfSigned}},
		{`certificate is for "a; besides, certificate expired on 2026-01-01"`, Faults{Anchors: FaultName}},
		{`server does not speak TLS, it says "certificate expired on 2026-01-01"`, Faults{}},
		{`no answer to the handshake`, Faults{}},
	} {
		if got := FaultsOf(tt.fatal); got != tt.want {
			t.Errorf("%q: %v, want %v", tt.fatal, got, tt.want)
		}
	}
}
