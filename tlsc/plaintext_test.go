package tlsc

import (
	"crypto/tls"
	"strings"
	"testing"
	"time"
)

// The messages of a handshake are seen, however they are cut into records and reads.
func TestPlaintext(t *testing.T) {
	record := func(kind byte, p string) string {
		return string([]byte{kind, 3, 3, byte(len(p) >> 8), byte(len(p))}) + p
	}
	message := func(kind byte, p string) string {
		return string([]byte{kind, 0, byte(len(p) >> 8), byte(len(p))}) + p
	}
	const handshake, alert, cipher = 22, 21, 20
	start := "\x03\x03" + strings.Repeat("r", 32) + "\x20" + strings.Repeat("s", 32) + "\xc0\x2b\x00"
	hello := message(2, start+"\x00\x09\xff\x01\x00\x01\x00\x00\x17\x00\x00")
	bare := message(2, start+"\x00\x05\xff\x01\x00\x01\x17")
	farHello := message(2, start+"\x01\x34\x00\x10\x01\x2c"+strings.Repeat("p", 300)+"\x00\x17\x00\x00")
	certificate := message(11, strings.Repeat("\x0c", 3000))
	key := message(12, "\x03\x00\x1d\x20"+strings.Repeat("k", 32)+"\x02\x01\x00\x02ss")
	longKey := message(12, "\x03\x00\x19\xff"+strings.Repeat("k", 255)+"\x02\x03"+strings.Repeat("s", 500))
	all := hello + certificate + key
	for _, tt := range []struct {
		name, sent string
		scheme     tls.SignatureScheme
		extended   bool
	}{
		{"a record each", record(handshake, hello) + record(handshake, certificate) + record(handshake, key), tls.PKCS1WithSHA1, true},
		{"one record", record(handshake, all), tls.PKCS1WithSHA1, true},
		{"cut in two", record(handshake, all[:3015]) + record(handshake, all[3015:]), tls.PKCS1WithSHA1, true},
		{"cut in the header", record(handshake, all[:2]) + record(handshake, all[2:]), tls.PKCS1WithSHA1, true},
		{"alerts between", record(alert, "\x01\x70") + record(handshake, all[:7]) + record(alert, "\x01\x70") + record(handshake, all[7:]), tls.PKCS1WithSHA1, true},
		{"empty ones between", record(handshake, hello) + record(handshake, "") + record(handshake, message(14, "")+key), tls.PKCS1WithSHA1, true},
		{"long", record(handshake, hello+longKey), tls.ECDSAWithSHA1, true},
		{"none", record(handshake, hello) + record(handshake, message(14, "")), 0, true},
		{"encrypted", record(handshake, hello) + record(cipher, "\x01") + record(handshake, key), 0, true},
		{"short", record(handshake, hello+message(12, "\x03\x00\x1d\x20kkk")+key), 0, true},
		{"empty", record(handshake, hello+message(12, "")+key), 0, true},
		{"no extension", record(handshake, bare+key), tls.PKCS1WithSHA1, false},
		{"no extensions", record(handshake, message(2, start)+key), tls.PKCS1WithSHA1, false},
		{"short hello", record(handshake, message(2, start[:40])+key), tls.PKCS1WithSHA1, false},
		{"empty hello", record(handshake, message(2, "")+key), tls.PKCS1WithSHA1, false},
		{"long hello", record(handshake, farHello+key), tls.PKCS1WithSHA1, false},
		{"no hello", record(handshake, message(11, hello)+key), tls.PKCS1WithSHA1, false},
	} {
		for _, size := range []int{1, 2, 5, 7, 1 << 20} {
			var f plaintext
			for rest := []byte(tt.sent); len(rest) > 0; {
				n := min(size, len(rest))
				f.read(rest[:n])
				rest = rest[n:]
			}
			if f.scheme != tt.scheme || f.extended != tt.extended {
				t.Errorf("%s, read by %d: %v, extended %v; want %v, %v", tt.name, size, f.scheme, f.extended, tt.scheme, tt.extended)
			}
			if cap(f.message) > 2*keyStart {
				t.Errorf("%s: %d bytes are kept", tt.name, cap(f.message))
			}
		}
	}
}

// The lifetime of a session is in a message behind the key exchange, or in its place where a
// session is resumed.
func TestPlaintext_lifetime(t *testing.T) {
	record := func(p string) string { return string([]byte{handshakeRecord, 3, 3, 0, byte(len(p))}) + p }
	message := func(kind byte, p string) string { return string([]byte{kind, 0, 0, byte(len(p))}) + p }
	hello := message(serverHello, "\x03\x03"+strings.Repeat("r", 32)+"\x00\xc0\x2b\x00")
	key := message(serverKeyMessage, "\x03\x00\x1d\x04kkkk\x04\x03\x00\x02ss")
	const change = "\x14\x03\x03\x00\x01\x01"
	for _, tt := range []struct {
		name, sent string
		want       time.Duration
		scheme     tls.SignatureScheme
	}{
		{"full", record(hello) + record(key) + record(message(newSessionTicket, "\x00\x00\x1c\x20\x00\x02tt")), 2 * time.Hour, tls.ECDSAWithP256AndSHA256},
		{"one record", record(hello + key + message(newSessionTicket, "\x00\x00\x00\x3c\x00\x02tt")), time.Minute, tls.ECDSAWithP256AndSHA256},
		{"resumed", record(hello) + record(message(newSessionTicket, "\x00\x00\x00\x01\x00\x00")), time.Second, 0},
		{"longest", record(hello + message(newSessionTicket, "\xff\xff\xff\xff\x00\x00")), (1<<32 - 1) * time.Second, 0},
		{"unspecified", record(hello + key + message(newSessionTicket, "\x00\x00\x00\x00\x00\x02tt")), 0, tls.ECDSAWithP256AndSHA256},
		{"short", record(hello + message(newSessionTicket, "\x00\x00\x01")), 0, 0},
		{"none", record(hello + key), 0, tls.ECDSAWithP256AndSHA256},
		{"encrypted", record(hello+key) + change + record(message(newSessionTicket, "\x00\x00\x00\x01\x00\x00")), 0, tls.ECDSAWithP256AndSHA256},
	} {
		for _, size := range []int{1, 3, 1 << 20} {
			var f plaintext
			for rest := []byte(tt.sent); len(rest) > 0; {
				n := min(size, len(rest))
				f.read(rest[:n])
				rest = rest[n:]
			}
			if f.lifetime != tt.want || f.scheme != tt.scheme {
				t.Errorf("%s, read by %d: %v, %v", tt.name, size, f.lifetime, f.scheme)
			}
		}
	}
}
