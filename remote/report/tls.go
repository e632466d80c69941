package report

import (
	"fmt"
	"strings"
)

// TLS says in what TLS a report was made.
type TLS struct {
	Version    string // TLSv1.3
	Cipher     string // IANA name of the cipher suite
	Verified   bool   // the verdict on the certificate, enforced or not
	ServerName string // the name that was asked for, an address for an address literal
	Fault      string // of ours, why there is no verdict: file, line and what
}

// tlsOpening begins the line on TLS.
const tlsOpening = "TLS: "

// String returns the line that ends a message report, without a newline.
func (t TLS) String() string {
	verdict := "unverified"
	if t.Verified {
		verdict = "verified"
	}
	line := fmt.Sprintf(tlsOpening+"%s %s %s %s", t.Version, t.Cipher, verdict, t.ServerName)
	if t.Fault != "" {
		line += " (" + t.Fault + ")"
	}
	return line
}

// noAnchors begins the verdict of mxf-tlsc, and of the one process, where it is our
// fault that nothing could be verified. What a server sends cannot begin a verdict.
const noAnchors = "no:cannot read trust anchors: "

// Fault returns the fault of ours of which a verdict comes, as SSL_PEER_VERIFIED has it, or
// nothing. Trust anchors that cannot be read are a fault of the control file that names them
// to the router.
func Fault(verdict string) string {
	what, ours := strings.CutPrefix(verdict, noAnchors)
	if !ours {
		return ""
	}
	// The path stands in the control file.
	if i := strings.LastIndex(what, ": "); i >= 0 && strings.HasPrefix(what, "open ") {
		what = what[i+len(": "):]
	}
	return "control/trustanchors:1: " + strings.ReplaceAll(Diagnostic(what), "\n", "?")
}
