package remote

import (
	"net/netip"

	"nightmare.mail/mxf/control"
)

// A Candidate is one exchanger and the protocol in which it is to be spoken to.
type Candidate struct {
	Protocol *control.Protocol
	Host     string       // name of the exchanger as its record spells it, without the final dot; empty for an address
	Port     uint16       // TCP port
	Addrs    []netip.Addr // unmapped, no duplicates, in the order of the answers
	Why      string       // why it exists: "smtproutes line 3", "SRV 10 60 _smtp._tcp.example.org", "MX 12801 (slice 1)", "no MX or SRV: the host itself", "address literal"

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

// ServerName is the name that TLS asks for: the exchanger's, or the address.
func (c *Candidate) ServerName(addr netip.Addr) string {
	if c.Host != "" {
		return c.Host
	}
	return addr.String()
}
