package tlschain

import (
	"bytes"
	"strings"
	"testing"

	"nightmare.mail/mxf/tlsc"
)

// The names and forms are those of s6-tlsc. A name alone is to be removed.
func TestAssignments(t *testing.T) {
	full := tlsc.Facts{Version: "TLSv1.3", Cipher: "TLS_AES_128_GCM_SHA256", ServerName: "mx.example.org",
		CertHash: bytes.Repeat([]byte{0xab}, 32), CertSubject: "CN=mx.example.org", Resumed: true}
	bare := tlsc.Facts{Version: "TLSv1.2", Cipher: "C", Verdict: tlsc.Verdict{Reason: "no trust anchors"}}
	for _, test := range []struct {
		facts    tlsc.Facts
		exporter []byte
		want     string
	}{
		{full, bytes.Repeat([]byte{0x0c}, 32), "SSL_PROTOCOL=TLSv1.3 SSL_CIPHER=TLS_AES_128_GCM_SHA256 SSL_TLS_EXPORTER=" + strings.Repeat("0c", 32) + " SSL_TLS_SNI_SERVERNAME=mx.example.org SSL_PEER_CERT_HASH=SHA256:" +
			strings.Repeat("ab", 32) + " SSL_PEER_CERT_SUBJECT=CN=mx.example.org SSL_PEER_VERIFIED=yes SSL_SESSION_RESUMED=yes"},
		{bare, nil, "SSL_PROTOCOL=TLSv1.2 SSL_CIPHER=C SSL_TLS_EXPORTER SSL_TLS_SNI_SERVERNAME SSL_PEER_CERT_HASH= SSL_PEER_CERT_SUBJECT= " +
			"SSL_PEER_VERIFIED=no:no trust anchors SSL_SESSION_RESUMED=no"},
	} {
		if got := strings.Join(assignments(test.facts, test.exporter), " "); got != test.want {
			t.Errorf("got  %s\nwant %s", got, test.want)
		}
	}
}
