// Package tlstest makes the certificates of the tests and of the lab, and plays servers
// that do in a handshake what crypto/tls would not do.
//
// Where a certificate cannot be made as it was asked for, the functions panic: that is a
// mistake in the test.
package tlstest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/crypto/ocsp"
)

// A TB is what this package needs of a *testing.T or *testing.B. It imports no testing,
// because mxf-try is linked with the lab.
type TB interface {
	Helper()
	Fatal(args ...any)
	Cleanup(func())
	TempDir() string
}

// A Party is a certificate and its key.
type Party struct {
	Cert *x509.Certificate
	Key  crypto.Signer

	from, until time.Time // when certificates are valid that it issues
}

// A Change changes a certificate before it is signed.
type Change = func(*x509.Certificate)

const (
	day  = 24 * time.Hour
	year = 365 * day
)

// NewAuthority makes an authority that has signed its own certificate. The certificate,
// and those that it issues directly or indirectly, are valid for a year before and after
// now, if no Change says otherwise.
func NewAuthority(name string, changes ...Change) *Party {
	return SelfSigned(nil, append([]Change{Authority(name)}, changes...)...)
}

// SelfSigned makes a certificate that its own key has signed. If key is nil, it makes one.
func SelfSigned(key crypto.Signer, changes ...Change) *Party {
	p := sign(nil, key, Valid(time.Now().Add(-year), time.Now().Add(year)), changes)
	p.from, p.until = p.Cert.NotBefore, p.Cert.NotAfter
	return p
}

// Issue makes a certificate that p has signed. If key is nil, it makes one.
func (p *Party) Issue(key crypto.Signer, changes ...Change) *Party {
	issued := sign(p, key, Valid(p.from, p.until), changes)
	issued.from, issued.until = p.from, p.until
	return issued
}

// Leaf makes a certificate for servers and clients. Names that are IP addresses are
// among the addresses of the certificate. change may be nil.
func (p *Party) Leaf(change Change, names ...string) *Party {
	return p.Issue(nil, func(c *x509.Certificate) {
		c.Subject = pkix.Name{CommonName: "server"}
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
		c.KeyUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment
		for _, name := range names {
			if address := net.ParseIP(name); address != nil {
				c.IPAddresses = append(c.IPAddresses, address)
			} else {
				c.DNSNames = append(c.DNSNames, name)
			}
		}
		if change != nil {
			change(c)
		}
	})
}

func sign(ca *Party, key crypto.Signer, valid Change, changes []Change) *Party {
	if key == nil {
		key = NewKey()
	}
	template := &x509.Certificate{
		SerialNumber:          must(rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))),
		BasicConstraintsValid: true,
	}
	for _, change := range append([]Change{valid}, changes...) {
		change(template)
	}
	parent, signer := template, key
	if ca != nil {
		parent, signer = ca.Cert, ca.Key
	}
	der := must(x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer))
	return &Party{Cert: must(x509.ParseCertificate(der)), Key: key}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(fmt.Sprintf("tlstest: %v", err))
	}
	return v
}

// NewKey makes an ECDSA key.
func NewKey() crypto.Signer { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) }

// Authority makes it the certificate of an authority.
func Authority(name string) Change {
	return func(c *x509.Certificate) {
		c.Subject = pkix.Name{CommonName: name}
		c.IsCA = true
		c.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	}
}

// Valid makes a certificate valid between two times.
func Valid(from, until time.Time) Change {
	return func(c *x509.Certificate) { c.NotBefore, c.NotAfter = from, until }
}

// Expired makes a certificate that was valid until yesterday.
func Expired(c *x509.Certificate) { c.NotAfter = time.Now().Add(-day) }

// Early makes a certificate that is valid from tomorrow on.
func Early(c *x509.Certificate) { c.NotBefore = time.Now().Add(day) }

// MustStaple makes a certificate that promises a stapled OCSP response (RFC 7633 section 6).
func MustStaple(c *x509.Certificate) {
	c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{
		Id:    asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 24},
		Value: []byte{0x30, 0x03, 0x02, 0x01, 0x05},
	})
}

// With is the party with another certificate.
func (p *Party) With(cert *x509.Certificate) *Party {
	twin := *p
	twin.Cert = cert
	return &twin
}

// Called is the party under another name, in DER, as the certificates spell it that it
// issues.
func (p *Party) Called(name []byte) *Party {
	cert := *p.Cert
	cert.RawSubject = name
	return p.With(&cert)
}

// Spelled is the party under its own name in another spelling: in capitals, as UTF8String.
func (p *Party) Spelled() *Party {
	var name pkix.RDNSequence
	must(asn1.Unmarshal(p.Cert.RawSubject, &name))
	for _, set := range name {
		for i := range set {
			text := strings.ToUpper(fmt.Sprint(set[i].Value))
			set[i].Value = asn1.RawValue{Tag: asn1.TagUTF8String, Bytes: []byte(text)}
		}
	}
	return p.Called(must(asn1.Marshal(name)))
}

// Respond makes an OCSP response about a certificate. change may be nil; it changes a
// response that is good now.
func Respond(about, issuer, responder *Party, change func(*ocsp.Response)) []byte {
	template := ocsp.Response{
		Status:       ocsp.Good,
		SerialNumber: about.Cert.SerialNumber,
		ThisUpdate:   time.Now().Add(-2 * day),
		NextUpdate:   time.Now().Add(2 * day),
	}
	if !responder.Cert.Equal(issuer.Cert) {
		template.Certificate = responder.Cert
	}
	if change != nil {
		change(&template)
	}
	return must(ocsp.CreateResponse(issuer.Cert, responder.Cert, template, responder.Key))
}

// Revoked is a change of Respond: the certificate was revoked three days ago.
func Revoked(r *ocsp.Response) {
	r.Status, r.RevokedAt, r.RevocationReason = ocsp.Revoked, time.Now().Add(-3*day), ocsp.KeyCompromise
}

// Pair is what a server or a client shows: the certificate, and those of others.
func (p *Party) Pair(others ...*Party) tls.Certificate {
	pair := tls.Certificate{Certificate: [][]byte{p.Cert.Raw}, PrivateKey: p.Key, Leaf: p.Cert}
	for _, other := range others {
		pair.Certificate = append(pair.Certificate, other.Cert.Raw)
	}
	return pair
}

// Config is that of a server that shows the certificate, and those of others.
func (p *Party) Config(others ...*Party) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{p.Pair(others...)}}
}

// Pool is the party as the only trust anchor.
func (p *Party) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(p.Cert)
	return pool
}

// PEM is the certificate as a PEM file holds it.
func (p *Party) PEM() []byte { return encode("CERTIFICATE", p.Cert.Raw) }

// KeyPEM is the key as a PEM file holds it.
func (p *Party) KeyPEM() []byte {
	return encode("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(p.Key)))
}

func encode(label string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: label, Bytes: der})
}

// Bundle writes the certificates into one file and returns its path.
func Bundle(t TB, parties ...*Party) string {
	t.Helper()
	var data []byte
	for _, p := range parties {
		data = append(data, p.PEM()...)
	}
	return File(t, "anchors.pem", data)
}

// File writes a file into a new folder and returns its path.
func File(t TB, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
