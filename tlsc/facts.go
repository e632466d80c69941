package tlsc

import (
	"crypto/sha256"
	"crypto/tls"
	"strings"
)

// Facts are what a handshake agreed upon.
type Facts struct {
	Version     string // "TLSv1.3"
	Cipher      string // IANA's name of the cipher suite
	ServerName  string // the name that was sent; empty: none
	CertHash    []byte // SHA-256 of the server's certificate
	CertSubject string // of the server's certificate, as in RFC 4514
	Verdict     Verdict
	Resumed     bool // the session was begun on another connection
}

// subjectLimit bounds CertSubject. The server chooses its length, and the whole
// environment of a program has to fit into a UCSPI-TLS block of 64 KiB.
const subjectLimit = 4096

// gather takes the facts of a handshake that is done. sni is the name that was sent.
func gather(state tls.ConnectionState, sni string, v Verdict) Facts {
	f := Facts{
		Version:    versionName(state.Version),
		Cipher:     tls.CipherSuiteName(state.CipherSuite),
		ServerName: sni,
		Verdict:    v,
		Resumed:    state.DidResume,
	}
	if len(state.PeerCertificates) > 0 {
		leaf := state.PeerCertificates[0]
		sum := sha256.Sum256(leaf.Raw)
		f.CertHash = sum[:]
		f.CertSubject = cut(distinguishedName(leaf.RawSubject), subjectLimit)
	}
	return f
}

// versionName is "TLSv1.3" for 0x0304, and so on down to "TLSv1". s6-tlsc, and the
// libraries under it, call TLS 1.0 that.
func versionName(version uint16) string {
	if version == tls.VersionTLS10 {
		return "TLSv1"
	}
	return strings.Replace(tls.VersionName(version), "TLS ", "TLSv", 1)
}
