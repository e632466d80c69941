package report

import (
	"fmt"
	"strings"
)

// TLS says in what TLS a report was made.
type TLS struct {
	Version    string // TLSv1 to TLSv1.3, or unknown
	Cipher     string // IANA name of the cipher suite, or unknown
	Verified   bool   // the verdict on the certificate, enforced or not
	ServerName string // the name that was asked for, an address for an address literal
	Word       string // who demanded the level: one of the words of package policy; empty: nobody who has one
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
	if t.Word != "" {
		line += " " + t.Word
	}
	if t.Fault != "" {
		line += " (" + t.Fault + ")"
	}
	return line
}

// AnchorsFault is a Fault of trust anchors that cannot be used: of the control file by which
// a router names them, which has their path.
func AnchorsFault(why string) string {
	return "control/trustanchors:1: " + strings.ReplaceAll(Diagnostic(why), "\n", "?")
}

// TooYoungLine is the line of a report on TLS that failed, where only the age of the message
// keeps it from being sent in the clear. seconds is control/clearafter.
func TooYoungLine(seconds int64) string {
	return fmt.Sprintf("It is not sent in the clear before it is %d seconds old.", seconds)
}
