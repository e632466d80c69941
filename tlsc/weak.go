package tlsc

import (
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"fmt"
)

// crypto/tls and crypto/x509 refuse some things even where nothing is verified. There
// the alternative is clear text. So go.mod switches those refusals off ("godebug"), and
// the verdict makes them here. $GODEBUG can switch them on again, but cannot switch off
// any part of the verdict.
const (
	// minRSA and maxRSA bound RSA keys, in bits: the limits of crypto/rsa and of
	// crypto/tls.
	minRSA = 1024
	maxRSA = 8192
)

// unfit puts into words what is wrong with a certificate that the server has sent,
// whether a chain needs it or not. It returns "" when nothing is wrong.
func unfit(c, leaf *x509.Certificate) string {
	if c.SerialNumber.Sign() < 0 {
		return whose(c, leaf) + " has a negative serial number"
	}
	if bits := rsaBits(c); bits > maxRSA {
		return fmt.Sprintf("%s has an RSA key of %d bits, more than %d", whose(c, leaf), bits, maxRSA)
	}
	return ""
}

// weak puts into words why a chain with this certificate in it proves nothing. It returns
// "" when there is no reason.
func weak(c, leaf *x509.Certificate) string {
	if c.SerialNumber.Sign() < 0 {
		return whose(c, leaf) + " has a negative serial number"
	}
	if bits := rsaBits(c); bits > 0 && bits < minRSA {
		return fmt.Sprintf("%s has an RSA key of %d bits, fewer than %d", whose(c, leaf), bits, minRSA)
	}
	return ""
}

// strong leaves out the chains that prove nothing. When none is left, it returns the
// reason.
func strong(chains [][]*x509.Certificate, leaf *x509.Certificate) (kept [][]*x509.Certificate, reason string) {
	for _, chain := range chains {
		found := ""
		for _, c := range chain {
			if found = weak(c, leaf); found != "" {
				reason = found
				break
			}
		}
		if found == "" {
			kept = append(kept, chain)
		}
	}
	if len(kept) == 0 {
		return nil, reason
	}
	return kept, ""
}

// rsaBits is the length of an RSA key, and 0 for other keys.
func rsaBits(c *x509.Certificate) int {
	if key, ok := c.PublicKey.(*rsa.PublicKey); ok {
		return key.N.BitLen()
	}
	return 0
}

// whose begins a sentence about a certificate: it says whose it is.
func whose(c, leaf *x509.Certificate) string {
	if c.Equal(leaf) {
		return "certificate"
	}
	return fmt.Sprintf("certificate of the authority %q", cut(distinguishedName(c.RawSubject), nameLimit))
}

// judgeSignature reaches the verdict on the signature that the server has made in the
// handshake. In TLS 1.3 it is never made with SHA-1. Before TLS 1.2 it is always made
// with SHA-1, and nothing is enforced. Every suite of a connection that enforces has a
// signature.
func judgeSignature(state tls.ConnectionState, scheme tls.SignatureScheme, enforced bool) Verdict {
	if state.Version != tls.VersionTLS12 {
		return Verdict{}
	}
	switch scheme {
	case tls.PKCS1WithSHA1, tls.ECDSAWithSHA1:
		return bad("server signs the handshake with SHA-1")
	case 0:
		if enforced {
			return bad("server does not sign the handshake")
		}
	}
	return Verdict{}
}

// A signatureFinder reads along in a handshake of TLS 1.2 and finds out how the server
// has signed it, which crypto/tls does not say. It sees the messages as crypto/tls does,
// which lets only one ServerKeyExchange pass.
type signatureFinder struct {
	over    bool
	record  []byte // the header of a record, as far as it has been read
	inside  int    // bytes left of the record
	message []byte // the header of a message and its beginning
	rest    int    // bytes left of the message
	scheme  tls.SignatureScheme
}

const (
	recordHeader     = 5
	messageHeader    = 4
	alertRecord      = 21
	handshakeRecord  = 22
	serverKeyMessage = 12
	// keyStart bounds what is kept of a message: the header, the curve, a public key of
	// up to 255 bytes, and the scheme (RFC 8422 section 5.4).
	keyStart = messageHeader + 4 + 255 + 2
)

// read takes what the server has sent next.
func (f *signatureFinder) read(p []byte) {
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
func (f *signatureFinder) beginRecord() {
	f.inside = int(f.record[3])<<8 | int(f.record[4])
	f.over = f.record[0] != handshakeRecord && f.record[0] != alertRecord
	if f.inside == 0 {
		f.record = f.record[:0]
	}
}

func (f *signatureFinder) readMessages(p []byte) {
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

func (f *signatureFinder) endMessage() {
	if f.message[0] == serverKeyMessage {
		f.over = true
		f.scheme = keyExchangeScheme(f.message[messageHeader:])
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
