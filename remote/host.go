package remote

import (
	"net/netip"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"

	"nightmare.mail/mxf/remote/report"
)

const (
	maxName  = 253 // bytes of a name in presentation form, RFC 1035 section 2.3.4
	maxLabel = 63  // RFC 1035 section 2.3.4
	// maxUnicode bounds what UTS 46 is asked to map, in bytes: more than four for
	// each of 253 characters.
	maxUnicode = 1024
)

// A Host is where a message is to go: a domain, or an address literal.
type Host struct {
	Name string     // A-labels in lower case, no final dot; an address literal in brackets, [192.0.2.1] or [2001:db8::1]
	Addr netip.Addr // of an address literal, unmapped; else the zero Addr
}

// ParseHost reads the HOST argument.
//
// An address literal is [192.0.2.1], [IPv6:2001:db8::1] (RFC 5321 section 4.1.3)
// or [2001:db8::1]. Anything else is a domain, 192.0.2.1 without brackets too:
// a route may know it, and the DNS will say that it does not exist. A domain is
// mapped as UTS 46 says, non-transitionally, and may have one final dot.
// Underscores are let pass, since names that have them receive mail.
//
// The error is a *report.Error: BadHost for a NUL, CR or LF, else NoSuchHost.
func ParseHost(text string) (Host, error) {
	if strings.ContainsAny(text, "\x00\r\n") {
		return Host{}, &report.Error{Case: report.BadHost, Facts: report.Facts{Host: text}}
	}
	if strings.HasPrefix(text, "[") {
		if addr, ok := parseLiteral(text); ok {
			return Host{Name: "[" + addr.String() + "]", Addr: addr}, nil
		}
	} else if name, ok := toASCII(text); ok {
		return Host{Name: name}, nil
	}
	return Host{}, &report.Error{Case: report.NoSuchHost, Facts: report.Facts{Host: text}}
}

func parseLiteral(text string) (netip.Addr, bool) {
	const tag = "IPv6:"
	text, closed := strings.CutSuffix(strings.TrimPrefix(text, "["), "]")
	tagged := len(text) > len(tag) && strings.EqualFold(text[:len(tag)], tag)
	if tagged {
		text = text[len(tag):]
	}
	addr, err := netip.ParseAddr(text)
	if !closed || err != nil || addr.Zone() != "" || tagged && !addr.Is6() {
		return netip.Addr{}, false
	}
	return addr.Unmap(), true
}

// toASCII returns a domain's A-labels in lower case. Names in ASCII do not see
// UTS 46: all that it could do for them is to refuse what the DNS may well have,
// such as an A-label younger than our tables.
func toASCII(text string) (string, bool) {
	if !isASCII(text) {
		if len(text) > maxUnicode || !utf8.ValidString(text) {
			return "", false
		}
		profile := idna.New(idna.MapForLookup(), idna.Transitional(false), idna.BidiRule(),
			idna.CheckHyphens(false), idna.StrictDomainName(false))
		var err error
		if text, err = profile.ToASCII(text); err != nil {
			return "", false
		}
	}
	name := strings.ToLower(strings.TrimSuffix(text, "."))
	return name, isHostName(name)
}

func isASCII(text string) bool {
	for i := range len(text) {
		if text[i] >= 0x80 {
			return false
		}
	}
	return true
}

// isHostName tells whether name, without a final dot, can be a host's: labels of
// letters, digits, hyphens within, and underscores (RFC 1123 section 2.1).
func isHostName(name string) bool {
	if name == "" || len(name) > maxName {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > maxLabel || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range []byte(label) {
			if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_') {
				return false
			}
		}
	}
	return true
}

// targetName returns the host name that a record's target spells, without the
// final dot; false when it is an address, or cannot be a host's name: no top
// level domain is a number (RFC 1123 section 2.1).
func targetName(target string) (string, bool) {
	name := strings.TrimSuffix(target, ".")
	top := name[strings.LastIndexByte(name, '.')+1:]
	return name, isHostName(name) && strings.Trim(top, "0123456789") != ""
}
