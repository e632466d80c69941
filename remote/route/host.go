package route

import (
	"net/netip"
	"strings"

	"nightmare.mail/mxf/control/domain"
)

// A Host is where a message is to go: a domain, or an address literal.
type Host struct {
	Name string     // A-labels in lower case, no final dot; an address literal in brackets, [192.0.2.1] or [2001:db8::1]
	Addr netip.Addr // of an address literal, unmapped; else the zero Addr
}

// forbidden is what would end an argument, or an SMTP command, before its end.
const forbidden = "\x00\r\n"

// ParseHost reads the HOST argument.
//
// An address literal is [192.0.2.1], [IPv6:2001:db8::1] (RFC 5321 section 4.1.3)
// or [2001:db8::1]. Anything else is a domain, 192.0.2.1 without brackets too:
// a route may know it, and the DNS will say that it does not exist. A domain is
// mapped as UTS 46 says, non-transitionally, and may have one final dot.
// Names with underscores are accepted, because they receive mail.
//
// The error is an *Error: BadHost for a NUL, CR or LF, else NoSuchHost.
func ParseHost(text string) (Host, error) {
	if strings.ContainsAny(text, forbidden) {
		return Host{}, &Error{Kind: BadHost, Host: text}
	}
	// The routes files have the same rules, or a route would not be found.
	d, err := domain.Parse(text)
	if err != nil {
		return Host{}, &Error{Kind: NoSuchHost, Host: text}
	}
	return Host{Name: d.String(), Addr: d.Addr()}, nil
}
