package sign

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"strings"
)

// MaxKeyFile bounds the text of a key, in bytes: an RSA key of 4096 bits has 3.3 KB.
const MaxKeyFile = 64 << 10

// The sizes of RSA keys, in bits. Verifiers must take 1024 to 4096 (RFC 8301 section 3.2).
const (
	minBits = 1024
	maxBits = 4096
)

// A PrivateKey signs. It prints as (secret).
type PrivateKey struct {
	algorithm string
	bits      int
	public    []byte                       // as p= of a key record has it
	sign      func([]byte) ([]byte, error) // a function, in which no print can look
}

// ParseKey reads a private key: PEM, PKCS #8 or PKCS #1, RSA of 1024 to 4096 bits, or Ed25519 in
// PKCS #8. The first private key in text counts. Errors quote nothing of it.
func ParseKey(text []byte) (*PrivateKey, error) {
	if len(text) > MaxKeyFile {
		return nil, fmt.Errorf("the file has more than %d bytes", MaxKeyFile)
	}
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return nil, errors.New("expected a private key in PEM, found none")
		}
		switch {
		case block.Type == "ENCRYPTED PRIVATE KEY", strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED"):
			return nil, errors.New("the key is encrypted")
		case block.Type == "PRIVATE KEY":
			key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			if err != nil {
				return nil, errors.New("the key is not one of RSA or Ed25519 in PKCS #8")
			}
			return newKey(key)
		case block.Type == "RSA PRIVATE KEY":
			key, err := x509.ParsePKCS1PrivateKey(block.Bytes)
			if err != nil {
				return nil, errors.New("the key is not one of RSA in PKCS #1")
			}
			return newKey(key)
		case strings.HasSuffix(block.Type, "PRIVATE KEY"):
			return nil, errors.New("expected a key of RSA or Ed25519, found another kind")
		}
	}
}

func newKey(key any) (*PrivateKey, error) {
	switch key := key.(type) {
	case ed25519.PrivateKey:
		return &PrivateKey{
			algorithm: "ed25519-sha256",
			bits:      256,
			public:    key.Public().(ed25519.PublicKey),
			// The hash is signed as a message would be (RFC 8463 section 3).
			sign: func(hash []byte) ([]byte, error) { return ed25519.Sign(key, hash), nil },
		}, nil
	case *rsa.PrivateKey:
		bits := key.N.BitLen()
		if bits < minBits || bits > maxBits {
			return nil, fmt.Errorf("expected an RSA key of %d to %d bits, found %d", minBits, maxBits, bits)
		}
		public, err := x509.MarshalPKIXPublicKey(key.Public())
		if err != nil {
			return nil, errors.New("the public key has no form in DER")
		}
		return &PrivateKey{
			algorithm: "rsa-sha256",
			bits:      bits,
			public:    public,
			sign: func(hash []byte) ([]byte, error) {
				return rsa.SignPKCS1v15(nil, key, crypto.SHA256, hash)
			},
		}, nil
	}
	return nil, errors.New("expected a key of RSA or Ed25519, found another kind")
}

// Algorithm returns what a= says: rsa-sha256 or ed25519-sha256.
func (k *PrivateKey) Algorithm() string { return k.algorithm }

// Bits returns the size of the key.
func (k *PrivateKey) Bits() int { return k.bits }

// Record returns the text of the TXT record that publishes the key (RFC 6376 section 3.6.1,
// RFC 8463 section 4).
func (k *PrivateKey) Record() string {
	kind, _, _ := strings.Cut(k.algorithm, "-")
	return "v=DKIM1; k=" + kind + "; p=" + base64.StdEncoding.EncodeToString(k.public)
}

// Format prints no key, whatever the verb.
func (k *PrivateKey) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, "(secret)") }
