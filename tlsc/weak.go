package tlsc

import (
	"cmp"
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
	return longKey(c, leaf)
}

// weak puts into words why a chain with this certificate in it proves nothing. It returns
// "" when there is no reason.
func weak(c, leaf *x509.Certificate) string {
	if c.SerialNumber.Sign() < 0 {
		return whose(c, leaf) + " has a negative serial number"
	}
	return shortKey(c, leaf)
}

// badKey puts into words what is wrong with the key of a certificate of which nothing else
// matters. It returns "" when nothing is wrong.
func badKey(c, leaf *x509.Certificate) string {
	return cmp.Or(shortKey(c, leaf), longKey(c, leaf))
}

func shortKey(c, leaf *x509.Certificate) string {
	if bits := rsaBits(c); bits > 0 && bits < minRSA {
		return fmt.Sprintf("%s has an RSA key of %d bits, fewer than %d", whose(c, leaf), bits, minRSA)
	}
	return ""
}

func longKey(c, leaf *x509.Certificate) string {
	if bits := rsaBits(c); bits > maxRSA {
		return fmt.Sprintf("%s has an RSA key of %d bits, more than %d", whose(c, leaf), bits, maxRSA)
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
// signature. A session that is resumed has none of its own: scheme is that of its full
// handshake.
func judgeSignature(state tls.ConnectionState, scheme tls.SignatureScheme, enforced bool) Verdict {
	if state.Version != tls.VersionTLS12 {
		return Verdict{}
	}
	switch scheme {
	case tls.PKCS1WithSHA1, tls.ECDSAWithSHA1:
		return bad(FaultWeak, "server signs the handshake with SHA-1")
	case 0:
		if enforced {
			return bad(FaultWeak, "server does not sign the handshake")
		}
	}
	return Verdict{}
}
