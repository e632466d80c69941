package control

import (
	"fmt"
	"net/netip"
	"strings"
)

// Limits of names.
const (
	maxHeloHost = 255 // bytes, RFC 5321 4.5.3.1.2
	maxName     = 253 // bytes, RFC 1035 2.3.4, as text without the final dot
	maxLabel    = 63  // bytes, RFC 1035 2.3.4
)

// parseHeloHost accepts whatever a server can read as one word: me is often a
// name that exists nowhere, or an address literal. Names beyond ASCII become
// A-labels, for no server is known to speak SMTPUTF8 before it is greeted.
func parseHeloHost(s string) (host, problem string) {
	const expected = "a host name without blanks and control bytes"
	host = s
	if !isASCII(s) {
		var ok bool
		if host, ok = parseName(s); !ok {
			return "", fmt.Sprintf("expected %s, found %s, which is not a valid international name", expected, found(s))
		}
	}
	for i := range len(host) {
		if host[i] <= ' ' || host[i] == 0x7f {
			return "", fmt.Sprintf("expected %s, found %s", expected, found(s))
		}
	}
	if len(host) > maxHeloHost {
		return "", fmt.Sprintf("expected %s, of at most %d bytes, found %d", expected, maxHeloHost, len(host))
	}
	return host, ""
}

// ParseDomain reads a domain, or an address literal, and returns it in the form in
// which [Routes.Lookup] compares it: a name in lower case, A-labels, no final dot; or
// brackets around netip.Addr.String() of an unmapped address, and that address, which
// is the zero Addr for a name. It is false for what is neither. A name is mapped as
// UTS 46 says, non-transitionally, but only where it is not ASCII: all that this could
// do for an ASCII one is to refuse what the DNS may well have, such as an A-label
// younger than our tables.
func ParseDomain(text string) (domain string, literal netip.Addr, ok bool) {
	if strings.HasPrefix(text, "[") {
		literal, ok = parseLiteral(text)
		return "[" + literal.String() + "]", literal, ok
	}
	domain, ok = parseName(text)
	return domain, netip.Addr{}, ok
}

// parseName returns a host name as it is compared and looked up: lower case,
// A-labels, no final dot. Underscores are let through: they exist in the wild.
func parseName(s string) (name string, ok bool) {
	name, ok = spelledName(s)
	return strings.ToLower(name), ok
}

// spelledName is parseName with the case as it is: what a server is asked for by TLS
// is what the administrator has written.
func spelledName(s string) (name string, ok bool) {
	if !isASCII(s) {
		if s, ok = toASCII(s); !ok {
			return "", false
		}
	}
	s = strings.TrimSuffix(s, ".")
	return s, IsName(s)
}

// IsName tells whether s can be a host's name, without a final dot: labels of letters,
// digits, underscores and hyphens, these within a label only, of 1 to 63 bytes each and
// 253 in all (RFC 1123 2.1, RFC 1035 2.3.4).
func IsName[S string | []byte](s S) bool {
	if len(s) == 0 || len(s) > maxName {
		return false
	}
	label, before := 0, byte('.')
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c|0x20 && c|0x20 <= 'z', '0' <= c && c <= '9', c == '_', c == '-' && before != '.':
			label++
		case c == '.' && before != '-' && label > 0 && label <= maxLabel:
			label = 0
		default:
			return false
		}
		before = c
	}
	return before != '-' && label > 0 && label <= maxLabel
}

// EndsInNumber tells whether the last label of name is a number. No such host name
// exists (RFC 1123 2.1, RFC 3696 2); it is a mistyped IPv4 address.
func EndsInNumber(name string) bool {
	return strings.Trim(name[strings.LastIndexByte(name, '.')+1:], "0123456789") == ""
}

// parseLiteral parses an address in brackets: [192.0.2.1], [2001:db8::1] or
// [IPv6:2001:db8::1] (RFC 5321 4.1.3). An IPv4-mapped address is the IPv4 one.
func parseLiteral(s string) (netip.Addr, bool) {
	if len(s) < 2 || s[0] != '[' || s[len(s)-1] != ']' {
		return netip.Addr{}, false
	}
	s = s[1 : len(s)-1]
	const tag = "IPv6:"
	tagged := len(s) > len(tag) && strings.EqualFold(s[:len(tag)], tag)
	if tagged {
		s = s[len(tag):]
	}
	addr, err := netip.ParseAddr(s)
	if err != nil || addr.Zone() != "" || tagged && addr.Is4() {
		return netip.Addr{}, false
	}
	return addr.Unmap(), true
}

func isASCII[S string | []byte](s S) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}
