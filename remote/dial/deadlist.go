package dial

import (
	"context"
	"net/netip"
)

// All returns the addresses that the tables have, those that are not skipped too, IPv4 first.
func (d *DeadHosts) All(ctx context.Context) []netip.Addr {
	var all []netip.Addr
	for _, of := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		d.with(ctx, of, false, func(t *deadTable) {
			for i := range len(t.bytes) / t.layout.size {
				addr, _ := netip.AddrFromSlice(t.record(i)[:len(of.AsSlice())])
				if t.countOf(i) > 0 {
					all = append(all, addr)
				}
			}
		})
	}
	return all
}
