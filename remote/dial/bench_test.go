package dial

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
)

// BenchmarkOrder is what it costs to order addresses by family.
func BenchmarkOrder(b *testing.B) {
	for _, n := range []int{2, 40} {
		var addrs []netip.Addr
		for i := range n {
			addrs = append(addrs, netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}))
		}
		rnd := rand.New(rand.NewPCG(1, 2))
		b.Run(fmt.Sprintf("addresses/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Order(addrs, Sources{}, rnd)
			}
		})
	}
}
