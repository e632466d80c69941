package remote

import (
	"net/netip"
	"strings"

	"nightmare.mail/mxf/control/domain"
	"nightmare.mail/mxf/remote/report"
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
	if strings.ContainsAny(text, forbidden) {
		return Host{}, &report.Error{Case: report.BadHost, Facts: report.Facts{Host: text}}
	}
	// By the rules of the routes files, or a route would not be found.
	d, err := domain.Parse(text)
	if err != nil {
		return Host{}, &report.Error{Case: report.NoSuchHost, Facts: report.Facts{Host: text}}
	}
	return Host{Name: d.String(), Addr: d.Addr()}, nil
}

// targetName returns the host name that a record's target spells, without the
// final dot; false when it is an address, or cannot be a host's name.
func targetName(target string) (string, bool) {
	name, err := domain.HostName(target)
	return name, err == nil
}
