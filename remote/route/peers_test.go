package route

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"nightmare.mail/mxf/integration/peers"
	"nightmare.mail/mxf/remote/dns/dnstest"
)

// The finder against name servers that others wrote:
//
//	Finder ── UDP, TCP ──► unbound (a cache) ──► nsd (the zone)
//	Finder ── UDP, TCP ───────────────────────► nsd
//
// Both run on loopback ports, in the foreground, from a folder of the test.

const peerZone = `$ORIGIN peers.test.
$TTL 60
@              SOA   ns hostmaster 1 3600 600 86400 60
@              NS    ns
ns             A     127.0.0.1
@              MX    20 mx2
@              MX    10 mx1
@              MX    12801 mx3
mx1            A     192.0.2.1
mx1            AAAA  2001:db8::1
mx2            CNAME real
real           A     192.0.2.2
mx3            A     192.0.2.3
_qmtp._tcp     SRV   5 10 209 mx3
_smtp._tcp.no  SRV   0 0 0 .
no             MX    10 mx1
null           MX    0 .
null           A     192.0.2.9
itself         AAAA  2001:db8::9
odd            MX    5 odd\032\000name
odd            MX    10 192.0.2.1
odd            MX    20 mx1
alias          CNAME itself
dangling       CNAME nowhere
loop           CNAME pool
pool           CNAME loop
empty          TXT   "nothing"
lame           NS    ns.lame
ns.lame        A     127.0.0.1
*.wild         MX    10 mx1
wide           MX    10 farm
`

// peersWant is what every peer must lead to: candidates as in routingTable, or a
// an error.
var peersWant = []struct {
	host string
	want []string
}{
	{"peers.test", []string{
		"qmtp mx3.peers.test:209 192.0.2.3; SRV 5 10 _qmtp._tcp.peers.test",
		"smtp mx1.peers.test:25 192.0.2.1 2001:db8::1; MX 10",
		"smtp mx2.peers.test:25 192.0.2.2; MX 20",
		"qmtp mx3.peers.test:209 192.0.2.3; MX 12801 (slice 1)",
		"smtp mx3.peers.test:25 192.0.2.3 twin; MX 12801 (slice 0)"}},
	{"no.peers.test", []string{"no address"}},
	{"null.peers.test", []string{"null MX"}},
	{"alias.peers.test", []string{
		"qmtp alias.peers.test:209 2001:db8::9; no MX or SRV: the host itself",
		"smtp alias.peers.test:25 2001:db8::9; no MX or SRV: the host itself"}},
	{"odd.peers.test", []string{"smtp mx1.peers.test:25 192.0.2.1 2001:db8::1; MX 20"}},
	{"a.b.wild.peers.test", []string{"smtp mx1.peers.test:25 192.0.2.1 2001:db8::1; MX 10"}},
	{"dangling.peers.test", []string{"no such host"}},
	{"nowhere.peers.test", []string{"no such host"}},
	{"empty.peers.test", []string{"no address"}},
	{"loop.peers.test", []string{"lookup failed loop.peers.test"}},
	{"elsewhere.invalid", []string{"lookup failed elsewhere.invalid"}}, // both refuse to answer
}

func TestPeerNSD(t *testing.T) {
	t.Parallel()
	checkPeer(t, startNSD(t))
}

func TestPeerUnbound(t *testing.T) {
	t.Parallel()
	checkPeer(t, peers.Unbound(t, "peers.test", startNSD(t)))
}

func startNSD(t *testing.T) *peers.Server {
	t.Helper()
	return peers.NSD(t, "peers.test", peerZone+dnstest.Many(500, "farm A 10.0.%d.%d"))
}

func checkPeer(t *testing.T, peer *peers.Server) {
	server := netip.MustParseAddrPort(peer.Addr)
	s := settings(t, files())
	s.TimeoutDNS = 20 * time.Second
	for _, c := range peersWant {
		got, trace := outcome(t, finder(t, s, server), c.host)
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: got:\n%s\nwant:\n%s\ntrace:\n%s", c.host,
				strings.Join(got, "\n"), strings.Join(c.want, "\n"), strings.Join(trace, "\n"))
		}
	}
	result, err := finder(t, s, server).Find(t.Context(), request("wide.peers.test"))
	if err != nil || len(result.Candidates) != 1 || len(result.Candidates[0].Addrs) != maxAddrs {
		t.Errorf("500 addresses: %d candidates, %v", len(result.Candidates), err)
	}
}
