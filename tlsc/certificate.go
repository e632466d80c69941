package tlsc

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

// A Certificate is the client's own, with its private key.
type Certificate struct{ pair tls.Certificate }

// NoCertificate is for a Demand whose server is shown none, whatever the Client has.
var NoCertificate = new(Certificate)

// LoadCertificate reads a client certificate and its private key. Both may be PEM or DER,
// and both may be in the same file. A PEM file, or a file of certificates in DER one
// after another, may also hold the certificates of authorities, which are sent too. The
// key is RSA, ECDSA or Ed25519, in PKCS #8, PKCS #1 or SEC 1, and not encrypted.
//
// Errors are *Error of KindSettings, with the file: one that cannot be read or does not
// hold what it should, a key that does not fit.
func LoadCertificate(certFile, keyFile string) (*Certificate, error) {
	files, err := readPair(certFile, keyFile)
	if err != nil {
		return nil, err
	}
	return files.parse()
}

// A pairFiles is what the files of a certificate and its key hold.
type pairFiles struct {
	certFile, keyFile string
	cert, key         []byte
}

func readPair(certFile, keyFile string) (f pairFiles, err error) {
	f = pairFiles{certFile: certFile, keyFile: keyFile}
	if f.cert, err = readSteady(certFile, certificateLimit); err != nil {
		return f, unusable(certFile, err)
	}
	if f.key, err = readSteady(keyFile, certificateLimit); err != nil {
		return f, unusable(keyFile, err)
	}
	return f, nil
}

func (f *pairFiles) parse() (*Certificate, error) {
	certFile, keyFile := f.certFile, f.keyFile
	chain, err := parseChain(certFile, f.cert)
	if err != nil {
		return nil, unusable(certFile, err)
	}
	key, err := parseKeyFile(keyFile, f.key)
	if err != nil {
		return nil, unusable(keyFile, err)
	}
	pair := fit(chain, key)
	if pair == nil {
		return nil, unusable(certFile, fmt.Errorf("the key in %s does not fit the certificate in %s", keyFile, certFile))
	}
	return &Certificate{pair: *pair}, nil
}

func unusable(file string, err error) error {
	return &Error{Kind: KindSettings, What: "cannot use client certificate: " + err.Error(), Err: err, File: file}
}

// fit finds the certificate of the key. It returns nil if no certificate fits.
func fit(chain []*x509.Certificate, key crypto.Signer) *tls.Certificate {
	pair := &tls.Certificate{PrivateKey: key}
	for i, c := range chain {
		public, comparable := c.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
		if !comparable || !public.Equal(key.Public()) {
			continue
		}
		pair.Leaf = c
		pair.Certificate = [][]byte{c.Raw}
		for _, other := range append(chain[:i:i], chain[i+1:]...) {
			pair.Certificate = append(pair.Certificate, other.Raw)
		}
		return pair
	}
	return nil
}

func parseChain(path string, data []byte) ([]*x509.Certificate, error) {
	blocks := pemBlocks(data)
	if blocks == nil {
		chain, err := x509.ParseCertificates(data)
		if err != nil || len(chain) == 0 {
			return nil, fmt.Errorf("no certificate in %s", path)
		}
		return chain, nil
	}
	var chain []*x509.Certificate
	for _, block := range blocks {
		if block.Type != "CERTIFICATE" && block.Type != "X509 CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("malformed certificate in %s: %s", path, brief(err))
		}
		chain = append(chain, c)
	}
	if len(chain) == 0 {
		return nil, fmt.Errorf("no certificate in %s", path)
	}
	return chain, nil
}

func parseKeyFile(path string, data []byte) (crypto.Signer, error) {
	blocks := pemBlocks(data)
	if blocks == nil {
		return parseKey(path, data)
	}
	for _, block := range blocks {
		if block.Type == "ENCRYPTED PRIVATE KEY" || strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED") {
			return nil, fmt.Errorf("the private key in %s is encrypted", path)
		}
		if block.Type == "PRIVATE KEY" || strings.HasSuffix(block.Type, " PRIVATE KEY") {
			return parseKey(path, block.Bytes)
		}
	}
	return nil, fmt.Errorf("no private key in %s", path)
}

// pemBlocks returns nil if the data is not PEM.
func pemBlocks(data []byte) []*pem.Block {
	var blocks []*pem.Block
	for {
		block, rest := pem.Decode(data)
		if block == nil {
			return blocks
		}
		blocks = append(blocks, block)
		data = rest
	}
}

// parseKey tries the three forms. None of them can be taken for another.
func parseKey(path string, der []byte) (crypto.Signer, error) {
	if key, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return key, nil
	}
	if key, err := x509.ParseECPrivateKey(der); err == nil {
		return key, nil
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("no private key in %s", path)
	}
	switch key := key.(type) {
	case *rsa.PrivateKey:
		return key, nil
	case *ecdsa.PrivateKey:
		return key, nil
	case ed25519.PrivateKey:
		return key, nil
	}
	return nil, fmt.Errorf("private key in %s: %w", path, errKeyKind)
}

var errKeyKind = errors.New("neither RSA, ECDSA nor Ed25519")
