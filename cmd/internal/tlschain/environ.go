package tlschain

import (
	"encoding/hex"

	"nightmare.mail/mxf/tlsc"
)

// assignments are the facts as the assignments that s6-tlsc gives to its program, and the
// channel binding tls-exporter (RFC 9266). A name without "=" is to be removed from the
// environment.
func assignments(f tlsc.Facts, exporter []byte) []string {
	name := "SSL_TLS_SNI_SERVERNAME"
	if f.ServerName != "" {
		name += "=" + f.ServerName
	}
	hash := ""
	if len(f.CertHash) > 0 {
		hash = "SHA256:" + hex.EncodeToString(f.CertHash)
	}
	// A binding of an outer connection must not pass for one of this connection.
	binding := "SSL_TLS_EXPORTER"
	if exporter != nil {
		binding += "=" + hex.EncodeToString(exporter)
	}
	resumed := "no"
	if f.Resumed {
		resumed = "yes"
	}
	return []string{
		"SSL_PROTOCOL=" + f.Version,
		"SSL_CIPHER=" + f.Cipher,
		binding,
		name,
		"SSL_PEER_CERT_HASH=" + hash,
		"SSL_PEER_CERT_SUBJECT=" + f.CertSubject,
		"SSL_PEER_VERIFIED=" + f.Verdict.String(),
		"SSL_SESSION_RESUMED=" + resumed,
	}
}
