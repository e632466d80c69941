package sign

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"

	"nightmare.mail/mxf/integration/must"
)

func pemOf(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// rsaOf makes a key of any size. Package rsa makes small ones only where it is told to.
func rsaOf(t testing.TB, bits int) *rsa.PrivateKey {
	t.Helper()
	t.Setenv("GODEBUG", "rsa1024min=0")
	return must.Get(rsa.GenerateKey(rand.Reader, bits))(t)
}

func TestParseKey(t *testing.T) {
	pkcs8 := func(key any) string { return pemOf("PRIVATE KEY", must.Get(x509.MarshalPKCS8PrivateKey(key))(t)) }
	rsa1024, rsa4096 := rsaOf(t, 1024), rsaOf(t, 4096)
	pkcs1 := pemOf("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsa1024))
	ed := string(edPEM)
	ec := must.Get(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	encrypted := "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n"
	tests := []struct {
		name, text, algorithm, err string
	}{
		{"PKCS #8", pkcs8(rsa1024), "rsa-sha256", ""},
		{"PKCS #1", pkcs1, "rsa-sha256", ""},
		{"4096 bits", pkcs8(rsa4096), "rsa-sha256", ""},
		{"Ed25519", ed, "ed25519-sha256", ""},
		{"CR LF", strings.ReplaceAll(ed, "\n", "\r\n"), "ed25519-sha256", ""},
		{"words around it", "a key\n" + ed + "\nthe end\n", "ed25519-sha256", ""},
		{"another block before", pemOf("CERTIFICATE", []byte("x")) + ed, "ed25519-sha256", ""},
		{"two", ed + pkcs1, "ed25519-sha256", ""},
		{"64 KiB", strings.Repeat("x\n", (MaxKeyFile-len(ed))/2) + ed, "ed25519-sha256", ""},

		{"empty", "", "", "expected a private key in PEM, found none"},
		{"no PEM", "hunter2", "", "expected a private key in PEM, found none"},
		{"cut", ed[:len(ed)-10], "", "expected a private key in PEM, found none"},
		{"a public key", pemOf("PUBLIC KEY", must.Get(x509.MarshalPKIXPublicKey(rsa1024.Public()))(t)), "", "expected a private key in PEM, found none"},
		{"too large", strings.Repeat("x\n", MaxKeyFile/2) + ed, "", "the file has more than 65536 bytes"},
		{"1016 bits", pkcs8(rsaOf(t, 1016)), "", "expected an RSA key of 1024 to 4096 bits, found 1016"},
		{"4104 bits", pkcs8(rsaOf(t, 4104)), "", "expected an RSA key of 1024 to 4096 bits, found 4104"},
		{"ECDSA", pkcs8(ec), "", "expected a key of RSA or Ed25519, found another kind"},
		{"ECDSA, SEC 1", pemOf("EC PRIVATE KEY", must.Get(x509.MarshalECPrivateKey(ec))(t)), "", "expected a key of RSA or Ed25519, found another kind"},
		{"X25519", pemOf("PRIVATE KEY", x25519DER), "", "expected a key of RSA or Ed25519, found another kind"},
		{"encrypted", pemOf("ENCRYPTED PRIVATE KEY", []byte("hunter2")), "", "the key is encrypted"},
		{"encrypted, old", encrypted, "", "the key is encrypted"},
		{"rubbish", pemOf("PRIVATE KEY", []byte("hunter2")), "", "the key is not one of RSA or Ed25519 in PKCS #8"},
		{"rubbish in PKCS #1", pemOf("RSA PRIVATE KEY", []byte("hunter2")), "", "the key is not one of RSA in PKCS #1"},
		{"PKCS #8 as PKCS #1", strings.ReplaceAll(pkcs8(rsa1024), "PRIVATE", "RSA PRIVATE"), "", "the key is not one of RSA in PKCS #1"},
	}
	for _, tt := range tests {
		key, err := ParseKey([]byte(tt.text))
		if text(err) != tt.err {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.err)
			continue
		}
		if err == nil {
			if key.Algorithm() != tt.algorithm {
				t.Errorf("%s: %s", tt.name, key.Algorithm())
			}
			must.Check(t, verify(received(signed(t, from+"\nhello\n", keyOf(key))), key))
		}
	}
}

// A key of Ed25519 as openssl genpkey writes it, and one of X25519.
var (
	edPEM     = []byte("-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n")
	x25519DER = append([]byte("\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x6e\x04\x22\x04\x20"), bytes.Repeat([]byte{8}, 32)...)
)

func TestPrivateKey_record(t *testing.T) {
	for bits, prefix := range map[int]string{1024: "v=DKIM1; k=rsa; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GN", 2048: "v=DKIM1; k=rsa; p=MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A"} {
		key := rsaKey(t, bits)
		if key.Bits() != bits || !strings.HasPrefix(key.Record(), prefix) {
			t.Errorf("%d bits: %d, %s", bits, key.Bits(), key.Record())
		}
	}
	if key := must.Get(ParseKey(edPEM))(t); key.Bits() != 256 {
		t.Errorf("Ed25519: %d bits", key.Bits())
	}
}

// No verb shows what is in a key, whatever holds it.
func TestPrivateKey_print(t *testing.T) {
	key := keyOf(edKey(t))
	inside := struct{ key Key }{key}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q", "%d"} {
		for _, v := range []any{key, &key, []Key{key}, key.Private, *key.Private, inside} {
			printed := fmt.Sprintf(verb, v)
			for _, secret := range []string{"7 7 7", "0707", "0x7, 0x7", "\a\a", `\a\a`} {
				if strings.Contains(printed, secret) {
					t.Errorf("%s of %T: %s", verb, v, printed)
				}
			}
		}
	}
	if got := fmt.Sprint(key.Private); got != "(secret)" {
		t.Error(got)
	}
}

func FuzzParseKey(f *testing.F) {
	f.Add(edPEM)
	f.Add([]byte(pemOf("PRIVATE KEY", x25519DER)))
	f.Add([]byte("-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END RSA PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if key, err := ParseKey(text); err == nil {
			must.Check(t, verify(received(signed(t, from+"\nhello\n", keyOf(key))), key))
		}
	})
}
