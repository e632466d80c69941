package tlsc

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"slices"
	"testing"

	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/tlsc/tlstest"
)

func TestLoadCertificate(t *testing.T) {
	rsaKey := must.Get(rsa.GenerateKey(rand.Reader, 2048))(t)
	ecKey := must.Get(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	must.OK(t, err)
	sec1 := must.Get(x509.MarshalECPrivateKey(ecKey))(t)
	root := newCA("root")
	for _, tt := range []struct {
		name, label string
		key         crypto.Signer
		der         []byte
	}{
		{"RSA PKCS#1", "RSA PRIVATE KEY", rsaKey, x509.MarshalPKCS1PrivateKey(rsaKey)},
		{"RSA PKCS#8", "PRIVATE KEY", rsaKey, pkcs8(t, rsaKey)},
		{"ECDSA SEC 1", "EC PRIVATE KEY", ecKey, sec1},
		{"ECDSA PKCS#8", "PRIVATE KEY", ecKey, pkcs8(t, ecKey)},
		{"Ed25519 PKCS#8", "PRIVATE KEY", edKey, pkcs8(t, edKey)},
	} {
		leaf := root.Issue(tt.key, func(c *x509.Certificate) { c.Subject.CommonName = tt.name })
		params := pem.EncodeToMemory(&pem.Block{Type: "EC PARAMETERS", Bytes: []byte{6, 1, 42}})
		keyPEM := pem.EncodeToMemory(&pem.Block{Type: tt.label, Bytes: tt.der})
		together := tlstest.File(t, "both.pem", slices.Concat(params, keyPEM, leaf.PEM(), root.PEM()))
		for form, files := range map[string][2]string{
			"PEM":              {tlstest.File(t, "cert", leaf.PEM()), tlstest.File(t, "key", keyPEM)},
			"PEM, chain":       {tlstest.File(t, "cert", slices.Concat(leaf.PEM(), root.PEM())), tlstest.File(t, "key", keyPEM)},
			"PEM, chain first": {tlstest.File(t, "cert", slices.Concat(root.PEM(), leaf.PEM())), tlstest.File(t, "key", keyPEM)},
			"DER":              {tlstest.File(t, "cert", leaf.Cert.Raw), tlstest.File(t, "key", tt.der)},
			"DER, chain":       {tlstest.File(t, "cert", slices.Concat(leaf.Cert.Raw, root.Cert.Raw)), tlstest.File(t, "key", tt.der)},
			"one file":         {together, together},
		} {
			c, err := LoadCertificate(files[0], files[1])
			if err != nil {
				t.Errorf("%s, %s: %v", tt.name, form, err)
				continue
			}
			want := 2
			if form == "PEM" || form == "DER" {
				want = 1
			}
			if !c.pair.Leaf.Equal(leaf.Cert) || len(c.pair.Certificate) != want || !slices.Equal(c.pair.Certificate[0], leaf.Cert.Raw) {
				t.Errorf("%s, %s: %d certificates, leaf %q", tt.name, form, len(c.pair.Certificate), c.pair.Leaf.Subject)
			}
		}
	}
}

func pkcs8(t *testing.T, key crypto.Signer) []byte {
	t.Helper()
	der := must.Get(x509.MarshalPKCS8PrivateKey(key))(t)
	return der
}

func TestLoadCertificateRefused(t *testing.T) {
	leaf := newCA("leaf")
	certificate := tlstest.File(t, "cert", leaf.PEM())
	key := tlstest.File(t, "key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8(t, leaf.Key)}))
	other := tlstest.File(t, "other", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8(t, tlstest.NewKey())}))
	sealed := tlstest.File(t, "sealed", pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte{1}}))
	legacy := tlstest.File(t, "legacy", pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Headers: map[string]string{"Proc-Type": "4,ENCRYPTED"}, Bytes: []byte{1}}))
	text := tlstest.File(t, "text", []byte("hello"))
	bad := tlstest.File(t, "bad", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte{1}}))
	for _, tt := range []struct{ certificate, key, want string }{
		{certificate, other, "the key in " + other + " does not fit the certificate in " + certificate},
		{certificate, sealed, "the private key in " + sealed + " is encrypted"},
		{certificate, legacy, "the private key in " + legacy + " is encrypted"},
		{certificate, text, "no private key in " + text},
		{certificate, certificate, "no private key in " + certificate},
		{text, key, "no certificate in " + text},
		{key, key, "no certificate in " + key},
		{bad, key, "malformed certificate in " + bad + ": .*"},
		{"/nonexistent", key, "open /nonexistent: no such file or directory"},
		{certificate, "/nonexistent", "open /nonexistent: no such file or directory"},
	} {
		_, err := LoadCertificate(tt.certificate, tt.key)
		wantError(t, err, KindSettings, "cannot use client certificate: "+tt.want)
	}
}
