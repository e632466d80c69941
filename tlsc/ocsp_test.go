package tlsc

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"regexp"
	"testing"
	"time"

	asn1tag "golang.org/x/crypto/cryptobyte/asn1"
	"golang.org/x/crypto/ocsp"

	"nightmare.mail/mxf/tlsc/tlstest"
)

// respond makes an OCSP response about a certificate. change may be nil; it changes one
// that is good at testNow.
func respond(about, issuer, responder *tlstest.Party, change func(*ocsp.Response)) []byte {
	return tlstest.Respond(about, issuer, responder, func(r *ocsp.Response) {
		r.ThisUpdate, r.NextUpdate = testNow.Add(-time.Hour), testNow.Add(time.Hour)
		if change != nil {
			change(r)
		}
	})
}

func TestStaple(t *testing.T) {
	root := newCA("root")
	middle := root.Issue(nil, tlstest.Authority("middle"))
	namesake := newCA("root")
	leaf := root.Leaf(nil, host)
	sibling := root.Leaf(nil, host)
	delegate := func(change func(*x509.Certificate)) *tlstest.Party {
		return root.Issue(nil, func(c *x509.Certificate) {
			c.Subject.CommonName = "responder"
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}
			if change != nil {
				change(c)
			}
		})
	}
	otherDelegate := delegate(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })
	weakDelegate := root.Issue(rsaKey(t, 768), func(c *x509.Certificate) {
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}
	})
	oldDelegate := delegate(func(c *x509.Certificate) { c.NotAfter = date(2026, 3, 1) })
	stranger := namesake.Issue(nil, func(c *x509.Certificate) {
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}
	})
	otherIssuer := selfSigned(nil, tlstest.Authority("another"))
	revoked := func(r *ocsp.Response) { r.Status, r.RevokedAt = ocsp.Revoked, date(2030, 5, 4) }
	must := root.Leaf(tlstest.MustStaple, host)
	odd := root.Leaf(func(c *x509.Certificate) {
		c.ExtraExtensions = []pkix.Extension{{Id: oidTLSFeature, Value: []byte{5, 0}}}
	}, host)
	v2 := root.Leaf(func(c *x509.Certificate) {
		c.ExtraExtensions = []pkix.Extension{{Id: oidTLSFeature, Value: []byte{0x30, 3, 2, 1, 17}}}
	}, host)
	far := middle.Leaf(nil, host)

	for _, tt := range []struct {
		name   string
		leaf   *tlstest.Party
		staple []byte
		want   string // "" for a good verdict
		fatal  bool
	}{
		{"none", leaf, nil, "", false},
		{"good", leaf, respond(leaf, root, root, nil), "", false},
		{"good, responder appointed", leaf, respond(leaf, root, delegate(nil), nil), "", false},
		{"good, issuer's certificate in it", leaf, respond(leaf, root, root, func(r *ocsp.Response) { r.Certificate = root.Cert }), "", false},
		{"good, SHA-256", leaf, respond(leaf, root, root, func(r *ocsp.Response) { r.IssuerHash = crypto.SHA256 }), "", false},
		{"good, by the intermediate", far, respond(far, middle, middle, nil), "", false},
		{"good, by the intermediate, whose certificate is in it", far, respond(far, middle, middle, func(r *ocsp.Response) { r.Certificate = middle.Cert }), "", false},
		{"good, clocks differ", leaf, respond(leaf, root, root, func(r *ocsp.Response) { r.ThisUpdate = testNow.Add(time.Minute) }), "", false},
		{"no next update, young", leaf, respond(leaf, root, root, func(r *ocsp.Response) { r.NextUpdate = time.Time{} }), "", false},
		{"no next update, old", leaf, respond(leaf, root, root, func(r *ocsp.Response) { r.NextUpdate, r.ThisUpdate = time.Time{}, date(2030, 6, 1) }), "stapled OCSP response expired on 2030-06-02", false},
		{"expired", leaf, respond(leaf, root, root, func(r *ocsp.Response) { r.NextUpdate = date(2030, 6, 14) }), "stapled OCSP response expired on 2030-06-14", false},
		{"future", leaf, respond(leaf, root, root, func(r *ocsp.Response) { r.ThisUpdate = date(2030, 6, 16); r.NextUpdate = date(2030, 6, 17) }), "stapled OCSP response is not valid before 2030-06-16", false},
		{"unknown", leaf, respond(leaf, root, root, func(r *ocsp.Response) { r.Status = ocsp.Unknown }), "stapled OCSP response does not know the certificate", false},
		{"another certificate", leaf, respond(sibling, root, root, nil), "stapled OCSP response cannot be used: .*", false},
		{"same number, another issuer", leaf, respond(leaf, otherIssuer, &tlstest.Party{Cert: otherIssuer.Cert, Key: root.Key}, nil), "stapled OCSP response is for another certificate", false},
		{"wrong signer", leaf, respond(leaf, root, &tlstest.Party{Cert: root.Cert, Key: tlstest.NewKey()}, nil), "stapled OCSP response has a bad signature", false},
		{"stranger", leaf, respond(leaf, root, stranger, nil), "stapled OCSP response is not signed by the authority of the certificate", false},
		{"server signs for itself", leaf, respond(leaf, root, leaf, nil), "stapled OCSP response is signed by a certificate that is not for this", false},
		{"responder not appointed", leaf, respond(leaf, root, otherDelegate, nil), "stapled OCSP response is signed by a certificate that is not for this", false},
		{"responder expired", leaf, respond(leaf, root, oldDelegate, nil), "stapled OCSP response is signed by a certificate that expired on 2026-03-01", false},
		{"responder with a short key", leaf, respond(leaf, root, weakDelegate, nil), "stapled OCSP response is signed by one whose certificate has an RSA key of 768 bits, fewer than 1024", false},
		{"garbage", leaf, []byte("garbage"), "stapled OCSP response cannot be used: .*", false},
		{"responder's error", leaf, ocsp.TryLaterErrorResponse, "stapled OCSP response cannot be used: .*", false},

		{"revoked", leaf, respond(leaf, root, root, revoked), "certificate was revoked on 2030-05-04", true},
		{"revoked, by one appointed", leaf, respond(leaf, root, delegate(nil), revoked), "certificate was revoked on 2030-05-04", true},
		{"revoked, old response", leaf, respond(leaf, root, root, func(r *ocsp.Response) { revoked(r); r.NextUpdate = date(2030, 6, 1) }), "certificate was revoked on 2030-05-04", true},
		{"revoked, says nobody", leaf, respond(leaf, root, stranger, revoked), "stapled OCSP response is not signed by the authority of the certificate", false},

		{"must, good", must, respond(must, root, root, nil), "", false},
		{"must, none", must, nil, "certificate must have an OCSP response stapled to it, and has none", true},
		{"must, expired", must, respond(must, root, root, func(r *ocsp.Response) { r.NextUpdate = date(2030, 6, 14) }), "stapled OCSP response expired on 2030-06-14", true},
		{"must, unknown", must, respond(must, root, root, func(r *ocsp.Response) { r.Status = ocsp.Unknown }), "stapled OCSP response does not know the certificate", true},
		{"must, wrong signer", must, respond(must, root, stranger, nil), "stapled OCSP response is not signed by the authority of the certificate", true},
		{"must, garbage", must, []byte("garbage"), "stapled OCSP response cannot be used: .*", true},
		{"must, revoked", must, respond(must, root, root, revoked), "certificate was revoked on 2030-05-04", true},
		{"must, cannot be read", odd, nil, "certificate must have an OCSP response stapled to it, and has none", true},
		{"another feature", v2, nil, "", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			client := trusting(tlstest.Bundle(t, root))
			for version := uint16(tls.VersionTLS12); version <= tls.VersionTLS13; version++ {
				pair := tt.leaf.Pair(middle)
				pair.OCSPStaple = tt.staple
				config := &tls.Config{Certificates: []tls.Certificate{pair}, MaxVersion: version}
				verified := regexp.MustCompile("^no:" + tt.want + "$")
				if tt.want == "" {
					verified = regexp.MustCompile("^yes$")
				}
				c, err := handshakeWith(t, config, client, enforced(host))
				switch {
				case tt.fatal:
					wantError(t, err, KindHandshake, tt.want)
					wantErrorFault(t, err)
				case err != nil:
					t.Errorf("enforced: %v", err)
				case !verified.MatchString(c.Facts().Verdict.String()):
					t.Errorf("enforced: verified %q", c.Facts().Verdict)
				}
				c, err = handshakeWith(t, config, client, told(host))
				if err != nil {
					t.Fatalf("not enforced: %v", err)
				}
				v := c.Facts().Verdict
				wantFault(t, v.Reason, v.Fault)
				if !verified.MatchString(v.String()) {
					t.Errorf("not enforced: verified %q, want %q", v, tt.want)
				}
			}
		})
	}
}

// A bad chain comes before a bad staple.
func TestStapleOfUnknownAuthority(t *testing.T) {
	root := newCA("root")
	leaf := root.Leaf(tlstest.MustStaple, host)
	file := tlstest.Bundle(t, newCA("other"))
	config := leaf.Config()
	_, err := handshakeWith(t, config, trusting(file), enforced(host))
	wantError(t, err, KindHandshake, "certificate is signed by an authority that is not in "+file)
}

func FuzzStaple(f *testing.F) {
	root := newCA("root")
	leaf := root.Leaf(tlstest.MustStaple, host)
	responder := root.Issue(nil, func(c *x509.Certificate) {
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}
	})
	good := respond(leaf, root, root, nil)
	f.Add(good)
	f.Add(respond(leaf, root, responder, nil))
	f.Add(respond(leaf, root, root, func(r *ocsp.Response) { r.Status = ocsp.Revoked; r.RevokedAt = testNow }))
	f.Add(ocsp.TryLaterErrorResponse)
	f.Add([]byte{0x30, 0x80})
	chains := [][]*x509.Certificate{{leaf.Cert, root.Cert}}
	f.Fuzz(func(t *testing.T, staple []byte) {
		v := judgeStaple(staple, leaf.Cert, chains, testNow)
		if (v.Good()) == v.fatal {
			t.Errorf("verdict %+v on a certificate that must have a staple", v)
		}
		certID(staple, big.NewInt(1))
	})
}

// The responder may spell the issuer's name as the issuer does, or as the certificate
// does.
func TestStapleOfSpelledIssuer(t *testing.T) {
	root := newCA("root")
	spelled := root.Called(rawName(rdn{commonName, asn1tag.UTF8String, "ROOT"}))
	leaf := spelled.Leaf(tlstest.MustStaple, host)
	config, file := leaf.Config(), tlstest.Bundle(t, root)
	for _, issuer := range []*tlstest.Party{root, spelled} {
		config.Certificates[0].OCSPStaple = respond(leaf, issuer, issuer, nil)
		wantVerdict(t, config, file, host, "")
	}
	other := root.Called(rawName(rdn{commonName, asn1tag.UTF8String, "other"}))
	config.Certificates[0].OCSPStaple = respond(leaf, other, other, nil)
	wantVerdict(t, config, file, host, "stapled OCSP response is for another certificate")
}
