package report

import "strings"

// noAnchors begins the verdict of mxf-tlsc, and of the one process, where it is our
// fault that nothing could be verified. What a server sends cannot begin a verdict.
const noAnchors = "no:cannot read trust anchors: "

// ParseTLS reads the SSL_* assignments that a TLS client gives to its program
// (mxf-tlsc(8), s6-tlsc). It returns nil when environ does not name SSL_PROTOCOL,
// which is to say: no TLS, unless inTLS says that there is TLS of a client that tells
// nothing. serverName serves where no name was sent as SNI, and
// verify where the client does not tell its verdict in our words, "yes" or "no:" and why:
// it says whether the client had been told to enforce one, and it did go on. Where there
// is no verdict because trust anchors cannot be read, that becomes the fault of the control
// file by which the router names them.
func ParseTLS(environ []string, serverName string, verify, inTLS bool) *TLS {
	t := TLS{Cipher: "unknown", Verified: verify, ServerName: serverName}
	for _, assignment := range environ {
		name, value, _ := strings.Cut(assignment, "=")
		if value == "" {
			continue
		}
		switch name {
		case "SSL_PROTOCOL":
			t.Version = value
		case "SSL_CIPHER":
			t.Cipher = value
		case "SSL_TLS_SNI_SERVERNAME":
			t.ServerName = value
		case "SSL_PEER_VERIFIED":
			t.Verified = value == "yes" || verify && !strings.HasPrefix(value, "no:")
			if what, ours := strings.CutPrefix(value, noAnchors); ours {
				// The path stands in the control file.
				if i := strings.LastIndex(what, ": "); i >= 0 && strings.HasPrefix(what, "open ") {
					what = what[i+len(": "):]
				}
				t.Fault = "control/trustanchors:1: " + strings.ReplaceAll(Diagnostic(what), "\n", "?")
			}
		}
	}
	switch {
	case t.Version != "":
		return &t
	case inTLS:
		return &TLS{Version: "unknown", Cipher: "unknown", Verified: verify, ServerName: serverName}
	}
	return nil
}
