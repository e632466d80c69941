package tlsc

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"regexp"
	"testing"
	"time"

	asn1tag "golang.org/x/crypto/cryptobyte/asn1"
	"golang.org/x/crypto/ocsp"
)

// respond makes an OCSP response about a certificate, signed by responder; change is
// called on the template of a good, current one.
func respond(t testing.TB, about, issuer, responder *party, change func(*ocsp.Response)) []byte {
	t.Helper()
	template := ocsp.Response{
		Status:       ocsp.Good,
		SerialNumber: about.cert.SerialNumber,
		ThisUpdate:   testNow.Add(-time.Hour),
		NextUpdate:   testNow.Add(time.Hour),
	}
	if !responder.cert.Equal(issuer.cert) {
		template.Certificate = responder.cert
	}
	if change != nil {
		change(&template)
	}
	der, err := ocsp.CreateResponse(issuer.cert, responder.cert, template, responder.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func withMustStaple(c *x509.Certificate) {
	value, _ := asn1.Marshal([]int{statusRequest})
	c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: oidTLSFeature, Value: value})
}

func TestStaple(t *testing.T) {
	root := newCA(t, "root", nil)
	middle := newCA(t, "middle", root)
	namesake := newCA(t, "root", nil)
	leaf := root.server(t, nil, host)
	sibling := root.server(t, nil, host)
	delegate := func(change func(*x509.Certificate)) *party {
		return issue(t, root, newKey(t), func(c *x509.Certificate) {
			c.Subject.CommonName = "responder"
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}
			if change != nil {
				change(c)
			}
		})
	}
	plainDelegate := delegate(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })
	weakDelegate := issue(t, root, rsaKey(t, 768), func(c *x509.Certificate) {
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}
	})
	oldDelegate := delegate(func(c *x509.Certificate) { c.NotAfter = date(2026, 3, 1) })
	stranger := issue(t, namesake, newKey(t), func(c *x509.Certificate) {
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}
	})
	otherIssuer := issue(t, nil, newKey(t), asCA("another"))
	revoked := func(r *ocsp.Response) { r.Status, r.RevokedAt = ocsp.Revoked, date(2030, 5, 4) }
	must := root.server(t, withMustStaple, host)
	odd := root.server(t, func(c *x509.Certificate) {
		c.ExtraExtensions = []pkix.Extension{{Id: oidTLSFeature, Value: []byte{5, 0}}}
	}, host)
	v2 := root.server(t, func(c *x509.Certificate) {
		c.ExtraExtensions = []pkix.Extension{{Id: oidTLSFeature, Value: []byte{0x30, 3, 2, 1, 17}}}
	}, host)
	far := middle.server(t, nil, host)

	for _, tt := range []struct {
		name   string
		leaf   *party
		staple []byte
		want   string // "" for a good verdict
		fatal  bool
	}{
		{"none", leaf, nil, "", false},
		{"good", leaf, respond(t, leaf, root, root, nil), "", false},
		{"good, responder appointed", leaf, respond(t, leaf, root, delegate(nil), nil), "", false},
		{"good, issuer's certificate in it", leaf, respond(t, leaf, root, root, func(r *ocsp.Response) { r.Certificate = root.cert }), "", false},
		{"good, SHA-256", leaf, respond(t, leaf, root, root, func(r *ocsp.Response) { r.IssuerHash = crypto.SHA256 }), "", false},
		{"good, by the intermediate", far, respond(t, far, middle, middle, nil), "", false},
		{"good, by the intermediate, whose certificate is in it", far, respond(t, far, middle, middle, func(r *ocsp.Response) { r.Certificate = middle.cert }), "", false},
		{"good, clocks differ", leaf, respond(t, leaf, root, root, func(r *ocsp.Response) { r.ThisUpdate = testNow.Add(time.Minute) }), "", false},
		{"no next update, young", leaf, respond(t, leaf, root, root, func(r *ocsp.Response) { r.NextUpdate = time.Time{} }), "", false},
		{"no next update, old", leaf, respond(t, leaf, root, root, func(r *ocsp.Response) { r.NextUpdate, r.ThisUpdate = time.Time{}, date(2030, 6, 1) }), "stapled OCSP response expired on 2030-06-02", false},
		{"expired", leaf, respond(t, leaf, root, root, func(r *ocsp.Response) { r.NextUpdate = date(2030, 6, 14) }), "stapled OCSP response expired on 2030-06-14", false},
		{"future", leaf, respond(t, leaf, root, root, func(r *ocsp.Response) { r.ThisUpdate = date(2030, 6, 16); r.NextUpdate = date(2030, 6, 17) }), "stapled OCSP response is not valid before 2030-06-16", false},
		{"unknown", leaf, respond(t, leaf, root, root, func(r *ocsp.Response) { r.Status = ocsp.Unknown }), "stapled OCSP response does not know the certificate", false},
		{"another certificate", leaf, respond(t, sibling, root, root, nil), "stapled OCSP response cannot be used: .*", false},
		{"same number, another issuer", leaf, respond(t, leaf, otherIssuer, &party{cert: otherIssuer.cert, key: root.key}, nil), "stapled OCSP response is for another certificate", false},
		{"wrong signer", leaf, respond(t, leaf, root, &party{cert: root.cert, key: newKey(t)}, nil), "stapled OCSP response has a bad signature", false},
		{"stranger", leaf, respond(t, leaf, root, stranger, nil), "stapled OCSP response is not signed by the authority of the certificate", false},
		{"server signs for itself", leaf, respond(t, leaf, root, leaf, nil), "stapled OCSP response is signed by a certificate that is not for this", false},
		{"responder not appointed", leaf, respond(t, leaf, root, plainDelegate, nil), "stapled OCSP response is signed by a certificate that is not for this", false},
		{"responder expired", leaf, respond(t, leaf, root, oldDelegate, nil), "stapled OCSP response is signed by a certificate that expired on 2026-03-01", false},
		{"responder with a short key", leaf, respond(t, leaf, root, weakDelegate, nil), "stapled OCSP response is signed by one whose certificate has an RSA key of 768 bits, fewer than 1024", false},
		{"garbage", leaf, []byte("garbage"), "stapled OCSP response cannot be used: .*", false},
		{"responder's error", leaf, ocsp.TryLaterErrorResponse, "stapled OCSP response cannot be used: .*", false},

		{"revoked", leaf, respond(t, leaf, root, root, revoked), "certificate was revoked on 2030-05-04", true},
		{"revoked, by one appointed", leaf, respond(t, leaf, root, delegate(nil), revoked), "certificate was revoked on 2030-05-04", true},
		{"revoked, old response", leaf, respond(t, leaf, root, root, func(r *ocsp.Response) { revoked(r); r.NextUpdate = date(2030, 6, 1) }), "certificate was revoked on 2030-05-04", true},
		{"revoked, says nobody", leaf, respond(t, leaf, root, stranger, revoked), "stapled OCSP response is not signed by the authority of the certificate", false},

		{"must, good", must, respond(t, must, root, root, nil), "", false},
		{"must, none", must, nil, "certificate must have an OCSP response stapled to it, and has none", true},
		{"must, expired", must, respond(t, must, root, root, func(r *ocsp.Response) { r.NextUpdate = date(2030, 6, 14) }), "stapled OCSP response expired on 2030-06-14", true},
		{"must, unknown", must, respond(t, must, root, root, func(r *ocsp.Response) { r.Status = ocsp.Unknown }), "stapled OCSP response does not know the certificate", true},
		{"must, wrong signer", must, respond(t, must, root, stranger, nil), "stapled OCSP response is not signed by the authority of the certificate", true},
		{"must, garbage", must, []byte("garbage"), "stapled OCSP response cannot be used: .*", true},
		{"must, revoked", must, respond(t, must, root, root, revoked), "certificate was revoked on 2030-05-04", true},
		{"must, cannot be read", odd, nil, "certificate must have an OCSP response stapled to it, and has none", true},
		{"another feature", v2, nil, "", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			anchors := Anchors{File: bundle(t, root)}
			for version := uint16(tls.VersionTLS12); version <= tls.VersionTLS13; version++ {
				pair := tt.leaf.pair(middle)
				pair.OCSPStaple = tt.staple
				config := &tls.Config{Certificates: []tls.Certificate{pair}, MaxVersion: version}
				verified := regexp.MustCompile("^no:" + tt.want + "$")
				if tt.want == "" {
					verified = regexp.MustCompile("^yes$")
				}
				c, err := handshakeWith(t, config, &Settings{ServerName: host, Verify: true, Anchors: anchors})
				switch {
				case tt.fatal:
					wantError(t, err, KindHandshake, tt.want)
				case err != nil:
					t.Errorf("enforced: %v", err)
				case !verified.MatchString(c.Description().Verified):
					t.Errorf("enforced: verified %q", c.Description().Verified)
				}
				c, err = handshakeWith(t, config, &Settings{ServerName: host, Anchors: anchors})
				if err != nil {
					t.Fatalf("not enforced: %v", err)
				}
				if !verified.MatchString(c.Description().Verified) {
					t.Errorf("not enforced: verified %q, want %q", c.Description().Verified, tt.want)
				}
			}
		})
	}
}

// A bad chain is told before the staple is looked at.
func TestStapleOfUnknownAuthority(t *testing.T) {
	root := newCA(t, "root", nil)
	leaf := root.server(t, withMustStaple, host)
	file := bundle(t, newCA(t, "other", nil))
	config := &tls.Config{Certificates: []tls.Certificate{leaf.pair()}}
	_, err := handshakeWith(t, config, &Settings{ServerName: host, Verify: true, Anchors: Anchors{File: file}})
	wantError(t, err, KindHandshake, "certificate is signed by an authority that is not in "+file)
}

func FuzzStaple(f *testing.F) {
	root := newCA(f, "root", nil)
	leaf := root.server(f, withMustStaple, host)
	responder := issue(f, root, newKey(f), func(c *x509.Certificate) {
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}
	})
	good := respond(f, leaf, root, root, nil)
	f.Add(good)
	f.Add(respond(f, leaf, root, responder, nil))
	f.Add(respond(f, leaf, root, root, func(r *ocsp.Response) { r.Status = ocsp.Revoked; r.RevokedAt = testNow }))
	f.Add(ocsp.TryLaterErrorResponse)
	f.Add([]byte{0x30, 0x80})
	chains := [][]*x509.Certificate{{leaf.cert, root.cert}}
	f.Fuzz(func(t *testing.T, staple []byte) {
		v := judgeStaple(staple, leaf.cert, chains, testNow)
		if (v.reason == "") == v.fatal {
			t.Errorf("verdict %+v on a certificate that must have a staple", v)
		}
		certID(staple, big.NewInt(1))
	})
}

// The responder may know the issuer by its own spelling of its name, or by that in the
// certificate.
func TestStapleOfSpelledIssuer(t *testing.T) {
	root := newCA(t, "root", nil)
	spelled := root.called(rawName(rdn{commonName, asn1tag.UTF8String, "ROOT"}))
	leaf := spelled.server(t, withMustStaple, host)
	for _, issuer := range []*party{root, spelled} {
		pair := leaf.pair()
		pair.OCSPStaple = respond(t, leaf, issuer, issuer, nil)
		wantVerdict(t, Anchors{File: bundle(t, root)}, pair, "")
	}
	other := root.called(rawName(rdn{commonName, asn1tag.UTF8String, "other"}))
	pair := leaf.pair()
	pair.OCSPStaple = respond(t, leaf, other, other, nil)
	wantVerdict(t, Anchors{File: bundle(t, root)}, pair, "stapled OCSP response is for another certificate")
}
