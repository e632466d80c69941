package tlsc

import (
	"crypto/tls"
	"time"

	"golang.org/x/crypto/cryptobyte"
)

// A plaintext reads along in a handshake of TLS 1.2, as long as that is in the clear, and
// keeps what crypto/tls does not say. It sees the messages as crypto/tls does, which lets
// only one ServerHello and one ServerKeyExchange pass.
type plaintext struct {
	over    bool
	record  []byte // the header of a record, as far as it has been read
	inside  int    // bytes left of the record
	message []byte // the header of a message and its beginning
	rest    int    // bytes left of the message

	extended bool                // the master secret is an extended one (RFC 7627)
	scheme   tls.SignatureScheme // how the server has signed; 0: not at all, or nobody knows
	keyed    bool                // a ServerKeyExchange has come
	lifetime time.Duration       // of the session, as the server says; 0: it says nothing
}

const (
	recordHeader     = 5
	messageHeader    = 4
	alertRecord      = 21
	handshakeRecord  = 22
	serverHello      = 2
	newSessionTicket = 4
	serverKeyMessage = 12
	// keyStart bounds what is kept of a message: of a ServerKeyExchange the header, the
	// curve, a public key of up to 255 bytes, and the scheme (RFC 8422 section 5.4).
	keyStart = messageHeader + 4 + 255 + 2
)

// read takes what the server has sent next.
func (f *plaintext) read(p []byte) {
	for len(p) > 0 && !f.over {
		if f.inside == 0 {
			f.record = append(f.record, p[0])
			p = p[1:]
			if len(f.record) == recordHeader {
				f.beginRecord()
			}
			continue
		}
		n := min(len(p), f.inside)
		f.inside -= n
		if f.record[0] == handshakeRecord {
			f.readMessages(p[:n])
		}
		p = p[n:]
		if f.inside == 0 {
			f.record = f.record[:0]
		}
	}
}

// beginRecord ends the search at the first record that is encrypted, or that announces
// encryption.
func (f *plaintext) beginRecord() {
	f.inside = int(f.record[3])<<8 | int(f.record[4])
	f.over = f.record[0] != handshakeRecord && f.record[0] != alertRecord
	if f.inside == 0 {
		f.record = f.record[:0]
	}
}

func (f *plaintext) readMessages(p []byte) {
	for len(p) > 0 && !f.over {
		if len(f.message) < messageHeader {
			f.message = append(f.message, p[0])
			p = p[1:]
			if len(f.message) == messageHeader {
				f.rest = int(f.message[1])<<16 | int(f.message[2])<<8 | int(f.message[3])
			}
		} else {
			n := min(len(p), f.rest)
			f.message = append(f.message, p[:min(n, keyStart-len(f.message))]...)
			p, f.rest = p[n:], f.rest-n
		}
		if len(f.message) >= messageHeader && f.rest == 0 {
			f.endMessage()
		}
	}
}

func (f *plaintext) endMessage() {
	switch f.message[0] {
	case serverHello:
		f.extended = extendsMaster(f.message[messageHeader:])
	case newSessionTicket:
		f.lifetime = lifetimeOf(f.message[messageHeader:])
	case serverKeyMessage:
		if !f.keyed {
			f.keyed, f.scheme = true, keyExchangeScheme(f.message[messageHeader:])
		}
	}
	f.message = f.message[:0]
}

// keyExchangeScheme is the scheme in a ServerKeyExchange of TLS 1.2 with a named curve,
// the only kind that crypto/tls speaks. It is 0 when there is no scheme.
func keyExchangeScheme(p []byte) tls.SignatureScheme {
	const keyLength = 3 // after the type of curve and its name
	if len(p) <= keyLength {
		return 0
	}
	p = p[keyLength:]
	if key := 1 + int(p[0]); len(p) >= key+2 {
		return tls.SignatureScheme(uint16(p[key])<<8 | uint16(p[key+1]))
	}
	return 0
}

// lifetimeOf is the lifetime in a NewSessionTicket of TLS 1.2. 0: it has none (RFC 5077
// section 3.3).
func lifetimeOf(p []byte) time.Duration {
	if len(p) < 4 {
		return 0
	}
	return time.Duration(uint32(p[0])<<24|uint32(p[1])<<16|uint32(p[2])<<8|uint32(p[3])) * time.Second
}

// extendsMaster reports whether a ServerHello of TLS 1.2 has the extension
// extended_master_secret. Of a long ServerHello only the beginning is known, so that the
// answer can be a wrong no.
func extendsMaster(hello cryptobyte.String) bool {
	const (
		versionAndRandom     = 2 + 32
		cipherAndCompression = 2 + 1
		lengthOfExtensions   = 2
		extendedMasterSecret = 23 // RFC 7627 section 5.1
	)
	var session, data cryptobyte.String
	if !hello.Skip(versionAndRandom) || !hello.ReadUint8LengthPrefixed(&session) ||
		!hello.Skip(cipherAndCompression+lengthOfExtensions) {
		return false
	}
	var extension uint16
	for hello.ReadUint16(&extension) && hello.ReadUint16LengthPrefixed(&data) {
		if extension == extendedMasterSecret {
			return true
		}
	}
	return false
}
