package route

import (
	"cmp"
	"fmt"
	"net/netip"
	"strings"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/remote/dns"
)

// A Candidate is one exchanger and the protocol in which it is to be spoken to.
type Candidate struct {
	Protocol *control.Protocol
	Host     string       // name of the exchanger as its record spells it, without the final dot; empty for an address
	Port     uint16       // TCP port
	Addrs    []netip.Addr // unmapped, no duplicates, in the order of the answers
	Why      string       // why it exists: "smtproutes line 3", "SRV 10 60 _smtp._tcp.example.org", "MX 12801 (slice 1)", "no MX or SRV: the host itself", "address literal"

	Relay     string // the file and line of the route that names it; else empty
	RelayName string // what that route calls it: a name in lower case and A-labels, or an address without brackets; else empty

	NamedBy *dns.Answer // the answer with its SRV or MX record, or, for the host itself, that without MX; nil for relays and address literals

	// Resolved is the answers that Addrs are from, for AAAA and for A: they say where the
	// aliases of Host end, and whether that was validated. Nil for an address.
	Resolved [2]*dns.Answer

	// Standing is what candidates of equal preference share ("MX 10", "SRV smtp 20"); empty for
	// one that has no equals.
	Standing string

	// Twin marks the slice-0 candidate of an exchanger that stands before it
	// with the protocol of its slice (MXPS): it is tried when that one could not
	// be connected to, not when its conversation failed.
	Twin bool

	// ForeignPort says that the zone had a say in the port: SRV named it, or an MX
	// preference, or a declined service, led to another protocol than the one that
	// all MX records lead to. Whether the address answers there is not written to
	// the table of dead hosts, which has no ports and which all deliveries share: a
	// stranger who names a filtered port at somebody's address would have that
	// host's mail deferred, and one who names an open port would have a dead host
	// tried again and again.
	ForeignPort bool
}

// maxTracedAddrs bounds the addresses of one candidate that a trace shows.
const maxTracedAddrs = 12

// String returns what the trace says about the candidate.
func (c *Candidate) String() string {
	var addrs strings.Builder
	for i, a := range c.Addrs {
		if i == maxTracedAddrs {
			fmt.Fprintf(&addrs, " and %d more", len(c.Addrs)-i)
			break
		}
		addrs.WriteString(" " + a.String())
	}
	return fmt.Sprintf("%s %s port %d,%s: %s", c.Protocol.Service, cmp.Or(c.Host, "address"), c.Port, addrs.String(), c.Why)
}
