package route

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"nightmare.mail/mxf/remote/dns"
	"nightmare.mail/mxf/remote/dns/dnstest"
)

// TestShared_deadZones: forty deliveries to zones that do not answer share sixteen sockets with
// twenty to others. These get all of their answers: none is given up because of a queue of our
// own. There are as few as that so that the name server is not slow because of them.
func TestShared_deadZones(t *testing.T) {
	t.Parallel()
	const (
		dead, live = 40, 20
		sockets    = 16
		// The queue of first tries, a second each, is longer than a quarter of limit.
		limit = 16 * time.Second
		// patience is enough on any machine.
		patience = 5 * time.Minute
	)
	trouble := make(map[string]string)
	var zone strings.Builder
	for n := range dead {
		trouble[fmt.Sprintf("dead%d.test", n)] = "silence"
		trouble[fmt.Sprintf("_smtp._tcp.dead%d.test", n)] = "silence"
	}
	for n := range live {
		fmt.Fprintf(&zone, "live%d.test. MX 10 mxa.live%d.test.\nlive%d.test. MX 20 mxb.live%d.test.\n", n, n, n, n)
		for i, host := range []string{"mxa", "mxb"} {
			fmt.Fprintf(&zone, "%s.live%d.test. A 192.0.2.%d\n%s.live%d.test. AAAA 2001:db8::%d\n", host, n, i+1, host, n, i+1)
		}
		fmt.Fprintf(&zone, "_smtp._tcp.live%d.test. SRV 5 0 25 srv.live%d.test.\nsrv.live%d.test. A 192.0.2.3\nsrv.live%d.test. AAAA 2001:db8::3\n", n, n, n, n)
	}
	server := dnstest.New(t, zone.String(), trouble)
	f := finder(t, settings(t, files("protocols", onlySMTP)), server.Addr)
	f.Resolver = dns.NewClient(dns.Config{Servers: []netip.AddrPort{server.Addr}, Sockets: sockets})
	f.request.Limit, f.timeout = limit, patience

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var deads, lives sync.WaitGroup
	for n := range dead + live {
		find := func(host string) (got, trace []string) {
			r := request(host)
			r.Trace = func(line string) { trace = append(trace, line) }
			result, _ := f.Find(ctx, r)
			for _, c := range result.Candidates {
				got = append(got, show(c))
			}
			return got, trace
		}
		if n%3 != 0 {
			deads.Go(func() {
				if got, _ := find(fmt.Sprintf("dead%d.test", n-n/3-1)); len(got) > 0 {
					t.Errorf("a dead zone gives %q", got)
				}
			})
			continue
		}
		lives.Go(func() {
			n := n / 3
			want := []string{
				fmt.Sprintf("smtp srv.live%d.test:25 192.0.2.3 2001:db8::3; SRV 5 0 _smtp._tcp.live%d.test", n, n),
				fmt.Sprintf("smtp mxa.live%d.test:25 192.0.2.1 2001:db8::1; MX 10", n),
				fmt.Sprintf("smtp mxb.live%d.test:25 192.0.2.2 2001:db8::2; MX 20", n),
			}
			if got, trace := find(fmt.Sprintf("live%d.test", n)); !slices.Equal(got, want) {
				t.Errorf("got %q, want %q, trace:\n%s", got, want, strings.Join(trace, "\n"))
			}
		})
	}
	lives.Wait()
	stop()
	deads.Wait()
}
