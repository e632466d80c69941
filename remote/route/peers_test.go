package route

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/remote/dns"
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
	checkPeer(t, startUnbound(t, startNSD(t)))
}

func checkPeer(t *testing.T, server netip.AddrPort) {
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

func startNSD(t *testing.T) netip.AddrPort {
	t.Helper()
	folder, server := t.TempDir(), freePort(t)
	write(t, folder, "zone", peerZone+dnstest.Many(500, "farm A 10.0.%d.%d"))
	config := write(t, folder, "nsd.conf", fmt.Sprintf(`server:
  ip-address: 127.0.0.1@%d
  username: ""
  chroot: ""
  zonesdir: %[2]q
  database: ""
  pidfile: %[3]q
  xfrdfile: %[4]q
  xfrdir: %[2]q
  zonelistfile: %[5]q
  logfile: %[6]q
  server-count: 1
  rrl-ratelimit: 0
  rrl-whitelist-ratelimit: 0
remote-control:
  control-enable: no
zone:
  name: peers.test
  zonefile: zone
`, server.Port(), folder, filepath.Join(folder, "pid"), filepath.Join(folder, "xfrd"), filepath.Join(folder, "zones"), filepath.Join(folder, "log")))
	run(t, server, "nsd", "-d", "-c", config)
	return server
}

func startUnbound(t *testing.T, zone netip.AddrPort) netip.AddrPort {
	t.Helper()
	folder, server := t.TempDir(), freePort(t)
	config := write(t, folder, "unbound.conf", fmt.Sprintf(`server:
  interface: 127.0.0.1
  port: %d
  do-daemonize: no
  username: ""
  chroot: ""
  directory: %q
  pidfile: ""
  use-syslog: no
  logfile: ""
  num-threads: 1
  module-config: "iterator"
  do-not-query-localhost: no
  domain-insecure: "test"
  local-zone: "test." nodefault
  local-zone: "invalid." refuse
remote-control:
  control-enable: no
stub-zone:
  name: peers.test
  stub-addr: 127.0.0.1@%d
`, server.Port(), folder, zone.Port()))
	run(t, server, "unbound", "-d", "-c", config)
	return server
}

func write(t *testing.T, folder, name, content string) string {
	t.Helper()
	path := filepath.Join(folder, name)
	must.OK(t, os.WriteFile(path, []byte(content), 0o644))
	return path
}

// freePort returns a loopback port that UDP and TCP had free a moment ago.
func freePort(t *testing.T) netip.AddrPort {
	t.Helper()
	for range 20 {
		packets := must.Get(net.ListenPacket("udp", "127.0.0.1:0"))(t)
		addr := packets.LocalAddr().String()
		streams, err := net.Listen("tcp", addr)
		packets.Close()
		if err == nil {
			streams.Close()
			return netip.MustParseAddrPort(addr)
		}
	}
	t.Fatal("no free port")
	return netip.AddrPort{}
}

// lockedBuffer is what a peer prints.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// run starts a peer, waits until it answers, and ends it, with its children, when
// the test is over. A peer that is not installed is skipped, but not in CI.
func run(t *testing.T, server netip.AddrPort, program string, args ...string) {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		path, err = exec.LookPath("/usr/sbin/" + program)
	}
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s is not installed", program)
		}
		t.Skipf("NOT TESTED, needs %s: it is not installed", program) // make check reads this
	}
	var said lockedBuffer
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.WaitDelay = 5 * time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	must.OK(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			<-ended
		}
	})
	client := dns.NewClient(dns.Config{Servers: []netip.AddrPort{server}})
	for deadline := time.Now().Add(20 * time.Second); ; {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		a := client.Lookup(ctx, dns.Question{Name: "mx1.peers.test", Type: dns.TypeA})
		<-ctx.Done() // a refused port must not make this loop hot
		cancel()
		if a.Len() > 0 {
			return
		}
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("%s ended: %v\n%s", program, err, said.String())
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not answer: %v\n%s", program, a.Err, said.String())
		}
	}
}
