package route

import (
	"strings"

	"nightmare.mail/mxf/control/domain"
)

// ParseHost reads the HOST argument: a domain, or an address literal.
//
// An address literal is [192.0.2.1], [IPv6:2001:db8::1] (RFC 5321 section 4.1.3)
// or [2001:db8::1]. Anything else is a domain, 192.0.2.1 without brackets too:
// a route may know it, and the DNS will say that it does not exist. A domain is
// mapped as UTS 46 says, non-transitionally, and may have one final dot.
// Names with underscores are accepted, because they receive mail.
//
// The error is an *Error: BadHost for a NUL, CR or LF, else NoSuchHost.
func ParseHost(text string) (domain.Domain, error) {
	if strings.ContainsAny(text, domain.Forbidden) {
		return domain.Domain{}, &Error{Kind: BadHost, Host: text}
	}
	// The routes files have the same rules, or a route would not be found.
	host, err := domain.Parse(text)
	if err != nil {
		return domain.Domain{}, &Error{Kind: NoSuchHost, Host: text}
	}
	return host, nil
}
