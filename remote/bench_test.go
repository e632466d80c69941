package remote

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"
	"nightmare.mail/mxf/remote/dial"
)

// benchmarkSizes are a domain as most are, and one of a large provider's.
var benchmarkSizes = []int{2, 40}

// BenchmarkOrder is what ordering costs: MX by preference, SRV by priority and
// weight, loops cut, addresses by family.
func BenchmarkOrder(b *testing.B) {
	for _, n := range benchmarkSizes {
		var mx []*dns.MX
		var srv []*dns.SRV
		var found []*exchanger
		var addrs []netip.Addr
		for i := range n {
			mx = append(mx, &dns.MX{Preference: uint16(i / 4 * 10)})
			srv = append(srv, &dns.SRV{Priority: uint16(i / 8), Weight: uint16(i % 8 * 10)})
			found = append(found, &exchanger{rank: "MX", standing: uint16(i)})
			addrs = append(addrs, netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}))
		}
		rnd := rand.New(rand.NewPCG(1, 2))
		for _, bench := range []struct {
			name string
			do   func()
		}{
			{"MX", func() { orderMX(mx, rnd) }},
			{"SRV", func() { orderSRV(srv, rnd) }},
			{"loops", func() { cutLoops(found) }},
			{"addresses", func() { dial.Order(addrs, rnd) }},
		} {
			b.Run(fmt.Sprintf("%s/%d", bench.name, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					bench.do()
				}
			})
		}
	}
}

// BenchmarkCandidates is all of it, with a name server on loopback.
func BenchmarkCandidates(b *testing.B) {
	for _, n := range benchmarkSizes {
		var zone strings.Builder
		for i := range n {
			fmt.Fprintf(&zone, "example.org. MX %d mx%d.example.org.\nmx%d.example.org. A 192.0.2.%d\n", i, i, i, i+1)
		}
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			server := newNameServer(b, zone.String(), nil)
			f := finder(b, settings(b, files()), server.addr)
			b.ReportAllocs()
			for b.Loop() {
				candidates, err := f.Candidates(context.Background(), "example.org")
				if err != nil || len(candidates) != n {
					b.Fatal(len(candidates), err)
				}
			}
		})
	}
}
