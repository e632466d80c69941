package lab

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
	"net/netip"
	"strings"
	"time"

	"golang.org/x/crypto/ocsp"
)

// An Authority is a certificate authority of the lab's own.
type Authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// A Leaf says what a server's (or client's) certificate is to look like.
type Leaf struct {
	Names      []string // DNS names in the SAN
	Addrs      []netip.Addr
	CommonName string // of the subject; the first name when empty
	Expired    bool   // its time was over yesterday
	Early      bool   // its time begins tomorrow
	MustStaple bool   // RFC 7633
	Staple     Staple // the OCSP response that the server sends along
}

// A Staple is the state that a stapled OCSP response asserts.
type Staple int

// The states of a staple.
const (
	NoStaple Staple = iota
	StapleGood
	StapleRevoked
	StapleStale // good, but its time is over
)

const day = 24 * time.Hour

// NewAuthority makes an authority whose subject is name.
func NewAuthority(name string) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{CommonName: name, Organization: []string{"mxf lab"}},
		NotBefore:             time.Now().Add(-365 * day),
		NotAfter:              time.Now().Add(365 * day),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &Authority{cert, key}, nil
}

func serial() *big.Int {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil { // crypto/rand does not fail on systems that we run on
		return big.NewInt(time.Now().UnixNano())
	}
	return n
}

// Spelled returns the authority as one that writes its name otherwise in the
// certificates that it issues: in capitals, as UTF8String.
func (a *Authority) Spelled() (*Authority, error) {
	var name pkix.RDNSequence
	if _, err := asn1.Unmarshal(a.cert.RawSubject, &name); err != nil {
		return nil, err
	}
	for _, set := range name {
		for i := range set {
			text := strings.ToUpper(fmt.Sprint(set[i].Value))
			set[i].Value = asn1.RawValue{Tag: asn1.TagUTF8String, Bytes: []byte(text)}
		}
	}
	twin := *a.cert
	var err error
	twin.RawSubject, err = asn1.Marshal(name)
	return &Authority{&twin, a.key}, err
}

// Certificate returns the authority's own certificate.
func (a *Authority) Certificate() *x509.Certificate { return a.cert }

// Pool returns the authority as the only trust anchor.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// PEM returns the authority's certificate, for control/trustanchors.
func (a *Authority) PEM() []byte { return certificatePEM(a.cert.Raw) }

func certificatePEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// mustStaple is the TLS feature extension with status_request (RFC 7633, 6).
var mustStaple = pkix.Extension{
	Id:    asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 24},
	Value: []byte{0x30, 0x03, 0x02, 0x01, 0x05},
}

// Issue makes a certificate, fit for a tls.Config.
func (a *Authority) Issue(l Leaf) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := l.template()
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	c := &tls.Certificate{Certificate: [][]byte{der, a.cert.Raw}, PrivateKey: key, Leaf: leaf}
	if l.Staple != NoStaple {
		c.OCSPStaple, err = a.staple(leaf, l.Staple)
	}
	return c, err
}

func (l Leaf) template() *x509.Certificate {
	cn := l.CommonName
	if cn == "" && len(l.Names) > 0 {
		cn = l.Names[0]
	}
	t := &x509.Certificate{
		SerialNumber: serial(),
		Subject:      pkix.Name{CommonName: cn},
		NotBefore:    time.Now().Add(-30 * day),
		NotAfter:     time.Now().Add(30 * day),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames:     l.Names,
	}
	for _, addr := range l.Addrs {
		t.IPAddresses = append(t.IPAddresses, net.IP(addr.AsSlice()))
	}
	if l.Expired {
		t.NotAfter = time.Now().Add(-day)
	}
	if l.Early {
		t.NotBefore = time.Now().Add(day)
	}
	if l.MustStaple {
		t.ExtraExtensions = []pkix.Extension{mustStaple}
	}
	return t
}

func (a *Authority) staple(leaf *x509.Certificate, s Staple) ([]byte, error) {
	r := ocsp.Response{
		Status:       ocsp.Good,
		SerialNumber: leaf.SerialNumber,
		ThisUpdate:   time.Now().Add(-2 * day),
		NextUpdate:   time.Now().Add(2 * day),
	}
	switch s {
	case StapleRevoked:
		r.Status, r.RevokedAt, r.RevocationReason = ocsp.Revoked, time.Now().Add(-3*day), ocsp.KeyCompromise
	case StapleStale:
		r.NextUpdate = time.Now().Add(-day)
	}
	return ocsp.CreateResponse(a.cert, a.cert, r, a.key)
}

// PEMPair returns a certificate with its chain, and its key, as PEM files hold them.
func PEMPair(c *tls.Certificate) (cert, key []byte, err error) {
	for _, der := range c.Certificate {
		cert = append(cert, certificatePEM(der)...)
	}
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		return nil, nil, err
	}
	return cert, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}
