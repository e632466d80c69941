package route

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"nightmare.mail/mxf/remote/dns"
	"nightmare.mail/mxf/remote/dns/dnstest"
)

// benchmarkSizes are a domain as most are, and one of a large provider's.
var benchmarkSizes = []int{2, 40}

// BenchmarkOrder is what ordering costs: MX by preference, SRV by priority and
// weight, loops cut.
func BenchmarkOrder(b *testing.B) {
	for _, n := range benchmarkSizes {
		var mx []dns.MX
		var srv []dns.SRV
		var found []*exchanger
		for i := range n {
			mx = append(mx, dns.MX{Preference: uint16(i / 4 * 10)})
			srv = append(srv, dns.SRV{Priority: uint16(i / 8), Weight: uint16(i % 8 * 10)})
			found = append(found, &exchanger{rank: "MX", standing: uint16(i)})
		}
		rnd := rand.New(rand.NewPCG(1, 2))
		for _, bench := range []struct {
			name string
			do   func()
		}{
			{"MX", func() { orderMX(mx, rnd) }},
			{"SRV", func() { orderSRV(srv, rnd) }},
			{"loops", func() { cutLoops(found) }},
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

// BenchmarkFind is all of it, with a name server on loopback.
func BenchmarkFind(b *testing.B) {
	for _, n := range benchmarkSizes {
		var zone strings.Builder
		for i := range n {
			fmt.Fprintf(&zone, "example.org. MX %d mx%d.example.org.\nmx%d.example.org. A 192.0.2.%d\n", i, i, i, i+1)
		}
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			server := dnstest.New(b, zone.String(), nil)
			f := finder(b, settings(b, files()), server.Addr)
			b.ReportAllocs()
			for b.Loop() {
				result, err := f.Find(b.Context(), request("example.org"))
				if err != nil || len(result.Candidates) != min(n, maxTargets) {
					b.Fatal(len(result.Candidates), err)
				}
			}
		})
	}
}
