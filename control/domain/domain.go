// Package domain reads the names of hosts and domains, and address literals.
//
// HOST, the domains and relays of routes, the targets of DNS records, recipients and
// the name in EHLO are all read here. Two readers that differ in one corner give a
// route that is never found, or a recipient that bounces although its HOST is good.
//
//	RFC 1035 2.3.4          lengths
//	RFC 1123 2.1            letters, digits and hyphens; no number at the end
//	RFC 5321 4.1.3          address literals
//	RFC 4291 2.2, RFC 5952  IPv6 addresses: every spelling is read, one is written
//	RFC 5890, UTS 46        A-labels of names beyond ASCII, non-transitional
package domain

import (
	"net/netip"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

const (
	maxName  = 253 // bytes, RFC 1035 2.3.4, as text without the final dot
	maxLabel = 63  // bytes, RFC 1035 2.3.4

	// maxUnicode is the longest name worth converting, in bytes: every character
	// takes at least one byte of an A-label and at most four of UTF-8.
	maxUnicode = 4 * maxName
)

// Forbidden has the bytes that end an argument, or a command of SMTP, before its end. No
// host, sender or recipient may have one of them.
const Forbidden = "\x00\r\n"

// A problem is what makes a text unfit. It does not repeat the text: only the caller
// knows whether the text may be shown.
type problem string

func (p problem) Error() string { return string(p) }

const (
	errEmpty       = problem("the name is empty")
	errLong        = problem("the name has more than 253 bytes")
	errEmptyLabel  = problem("a label is empty")
	errLongLabel   = problem("a label has more than 63 bytes")
	errHyphen      = problem("a label begins or ends with a hyphen")
	errByte        = problem("a byte is not a letter, digit, underscore, hyphen or dot")
	errNumber      = problem("the last label is a number")
	errLongUnicode = problem("the name has more than 1012 bytes of UTF-8")
	errUTF8        = problem("the name is not UTF-8")
	errUnicode     = problem("the name has no form in ASCII by UTS 46")
	errLiteral     = problem("the brackets do not hold one IP address without a zone")
)

// A Domain is a name or an address literal. Two that mean the same are equal. The zero
// Domain is neither.
type Domain struct {
	text string
	addr netip.Addr
}

// String returns a name in lower case and A-labels without the final dot, or the
// address in brackets, without a tag.
func (d Domain) String() string { return d.text }

// Addr returns the address of a literal, IPv4-mapped ones as IPv4, and the zero Addr
// for a name.
func (d Domain) Addr() netip.Addr { return d.addr }

// Parse reads a name, which may have one final dot, or an address literal:
// [192.0.2.1], [2001:db8::1] or [IPv6:2001:db8::1]. An address without brackets is a
// name: a route may know it, and the DNS will say that it does not exist.
//
// UTS 46 maps only what is not ASCII. All that it could do to an ASCII name is to
// refuse what the DNS may have, such as an A-label that is younger than our tables.
func Parse(text string) (Domain, error) {
	if strings.HasPrefix(text, "[") {
		addr, err := parseLiteral(text)
		if err != nil {
			return Domain{}, err
		}
		return Domain{"[" + addr.String() + "]", addr}, nil
	}
	name, err := spelled(text)
	return Domain{text: strings.ToLower(name)}, err
}

// HostName reads the name of a host that is to be connected to: a relay, or the target
// of a record. It returns A-labels without the final dot, ASCII in the case it has: a
// server is asked for by TLS as the administrator or the zone spells it.
//
// No host's name ends in a number (RFC 1123 2.1, RFC 3696 2): such a text is a mistyped
// IPv4 address.
func HostName(text string) (string, error) {
	name, err := spelled(text)
	if err == nil && strings.Trim(name[strings.LastIndexByte(name, '.')+1:], "0123456789") == "" {
		return "", errNumber
	}
	return name, err
}

// ToASCII returns text for the wire, where it is the domain of a recipient or the name
// in EHLO. Text in ASCII is returned as it is, whatever it is: the server judges it.
// Any other text must be a name, and becomes the same as by Parse.
func ToASCII(text string) (string, error) {
	if IsASCII(text) {
		return text, nil
	}
	return spelled(text)
}

// IsName reports whether s can be a name, without a final dot: labels of letters,
// digits, underscores and hyphens. Underscores pass because names that have them
// receive mail.
func IsName[S string | []byte](s S) bool { return check(s) == nil }

// IsASCII reports whether s has no byte above 127.
func IsASCII[S string | []byte](s S) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// spelled returns a name in A-labels without the final dot, ASCII in the case it has.
func spelled(text string) (string, error) {
	name := text
	if !IsASCII(text) {
		var err error
		if name, err = aLabels(text); err != nil {
			return "", err
		}
	}
	name = strings.TrimSuffix(name, ".")
	if err := check(name); err != nil {
		return "", err
	}
	return name, nil
}

// aLabels converts a name beyond ASCII. Underscores and hyphens are left to check.
func aLabels(text string) (string, error) {
	switch {
	case len(text) > maxUnicode:
		return "", errLongUnicode
	case !utf8.ValidString(text):
		return "", errUTF8
	}
	profile := idna.New(idna.MapForLookup(), idna.Transitional(false), idna.BidiRule(),
		idna.CheckHyphens(false), idna.StrictDomainName(false))
	name, err := profile.ToASCII(text)
	if err != nil || !IsASCII(name) {
		return "", errUnicode
	}
	return name, nil
}

func check[S string | []byte](name S) error {
	switch {
	case len(name) == 0:
		return errEmpty
	case len(name) > maxName:
		return errLong
	}
	start := 0 // of the label
	for i := range len(name) {
		switch c := name[i]; {
		case 'a' <= c|0x20 && c|0x20 <= 'z', '0' <= c && c <= '9', c == '_', c == '-':
		case c == '.':
			if err := checkLabel(name[start:i]); err != nil {
				return err
			}
			start = i + 1
		default:
			return errByte
		}
	}
	return checkLabel(name[start:])
}

func checkLabel[S string | []byte](label S) error {
	switch {
	case len(label) == 0:
		return errEmptyLabel
	case len(label) > maxLabel:
		return errLongLabel
	case label[0] == '-', label[len(label)-1] == '-':
		return errHyphen
	}
	return nil
}

func parseLiteral(text string) (netip.Addr, error) {
	const tag = "IPv6:"
	inner, closed := strings.CutSuffix(strings.TrimPrefix(text, "["), "]")
	tagged := len(inner) > len(tag) && strings.EqualFold(inner[:len(tag)], tag)
	if tagged {
		inner = inner[len(tag):]
	}
	addr, err := netip.ParseAddr(inner)
	if err != nil || !closed || addr.Zone() != "" || tagged && addr.Is4() {
		return netip.Addr{}, errLiteral
	}
	return addr.Unmap(), nil
}
