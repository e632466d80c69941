package domain

import (
	"errors"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// DNSPort is where name servers are asked (RFC 1035 section 4.2).
const DNSPort = 53

// ParseServer reads the address of a name server, as $DNSCACHEIP and control/trustresolvers have
// it: 127.0.0.1, 127.0.0.1:5300, ::1, and either in brackets, [::1] and [::1]:5300. The port is
// 1 to 65535.
func ParseServer(text string) (netip.AddrPort, error) {
	port := uint64(DNSPort)
	if host, digits, err := net.SplitHostPort(text); err == nil {
		if port, err = strconv.ParseUint(digits, 10, 16); err != nil {
			return netip.AddrPort{}, err
		}
		if port == 0 {
			return netip.AddrPort{}, errors.New("port 0")
		}
		text = host
	} else if inner, ok := strings.CutPrefix(text, "["); ok {
		if text, ok = strings.CutSuffix(inner, "]"); !ok {
			return netip.AddrPort{}, err
		}
	}
	addr, err := netip.ParseAddr(text)
	return netip.AddrPortFrom(addr, uint16(port)), err
}
