package integration

import (
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"nightmare.mail/mxf/integration/lab"
	"nightmare.mail/mxf/integration/must"
)

// Setup: the test binary runs a test again inside a network of its own, in which loopback
// alone is there, with more addresses. Servers, name server and programs are all in it; it is
// gone with its last process.
//
//	TestX ── unshare ──► TestX in the network ──► mxf-remote
//	                        └── servers  ◄────────────┘

// The environment of a test that runs in a network of its own.
const (
	apartInside   = "TEST_APART"          // it does
	apartPrograms = "TEST_APART_PROGRAMS" // the folder of the built programs
)

// apartScript gives lo the addresses in $1 and runs the rest.
const apartScript = `set -e
ip link set lo up
for address in $1; do ip address add "$address" dev lo; done
shift
exec "$@"`

// Addresses for documentation (RFC 5737, RFC 3849), which a network of tests has. The first
// of each family is the one that the system may pick; servers are to be on 25 and 26.
var apartAddresses = []string{
	"198.51.100.1/24", "198.51.100.10/24", "198.51.100.11/24", "198.51.100.25/24", "198.51.100.26/24",
	"2001:db8:1::1/64", "2001:db8:1::10/64", "2001:db8:1::11/64", "2001:db8:1::25/64", "2001:db8:1::26/64",
}

// apart reports whether the test runs in a network of its own. If not, it runs the test again
// in one that has these addresses, each with the length of its prefix, and there is nothing
// left to do. It skips the test where no such network can be made.
func apart(t *testing.T, addresses []string) bool {
	t.Helper()
	if os.Getenv(apartInside) != "" {
		return true
	}
	command := func(args ...string) *exec.Cmd {
		options := []string{"--net"}
		if os.Geteuid() != 0 {
			options = append(options, "--map-root-user")
		}
		options = append(options, "sh", "-c", apartScript, "sh", strings.Join(addresses, " "))
		return exec.CommandContext(t.Context(), "unshare", append(options, args...)...)
	}
	if out, err := command("true").CombinedOutput(); err != nil {
		t.Skipf("no network of its own (unshare and ip): %v: %s", err, out)
	}
	cmd := command(must.Get(os.Executable())(t), "-test.v", "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), apartInside+"=1", apartPrograms+"="+programs(t), "GOCOVERDIR="+coverageIfAny(t))
	out, err := cmd.CombinedOutput()
	switch said := string(out); {
	case err != nil:
		t.Errorf("%v\n%s", err, said)
	case strings.Contains(said, "--- SKIP: "+t.Name()+" "):
		t.Skip(said)
	case !strings.Contains(said, "--- PASS: "+t.Name()+" "):
		t.Errorf("nothing was tested:\n%s", said)
	}
	return false
}

// defaultSource is the address that the system picks towards addr.
func defaultSource(t *testing.T, addr netip.Addr) netip.Addr {
	t.Helper()
	conn := must.Get(net.Dial("udp", netip.AddrPortFrom(addr, 9).String()))(t)
	defer conn.Close()
	return conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr()
}

// The network itself: a delivery in it comes from the address that the system picks, by IPv6
// first, and nothing else is in reach.
func TestApart(t *testing.T) {
	if !apart(t, apartAddresses) {
		return
	}
	if conn, err := net.Dial("udp", "192.0.2.1:9"); err == nil {
		conn.Close()
		t.Error("the network has a way out")
	}
	dir := t.TempDir()
	l := must.Get(lab.Open(filepath.Join(dir, "home")))(t)
	defer l.Close()
	must.OK(t, l.Zone("example.org MX 10 mx.example.org\nmx.example.org A 198.51.100.25\nmx.example.org AAAA 2001:db8:1::25"))
	message := filepath.Join(dir, "message")
	put(t, message, []byte("Subject: hello\n\nHello.\n"))
	for _, text := range []string{"198.51.100.25", "2001:db8:1::25"} { // the later one comes first
		addr := netip.MustParseAddr(text)
		must.Get(l.SMTP(addr, lab.SMTP{Name: "mx.example.org"}))(t)
		before := len(l.Inbox.Sessions())
		o := must.Get(lab.Rspawn(t.Context(), lab.Delivery{Program: filepath.Join(programs(t), "mxf-remote"), Environ: l.Environ(), Dir: dir,
			Message: must.Open(t, message), Host: "example.org", Sender: "a@example.net", Recipients: []string{"b@example.org"}}))(t)
		sessions := l.Inbox.Sessions()[before:]
		if o.Letter != 'K' || len(sessions) != 1 {
			t.Fatalf("%c %q, %d connections", o.Letter, o.Text, len(sessions))
		}
		if s := sessions[0]; s.Local.Addr() != addr || s.Remote.Addr() != defaultSource(t, addr) {
			t.Errorf("from %v to %v, want from %v to %v", s.Remote, s.Local, defaultSource(t, addr), addr)
		}
	}
}
