package dial

import (
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"nightmare.mail/mxf/remote/dial/dialtest"
)

// onePort, in the environment, says that a test runs in a network of its own that has one
// port for connections.
const onePort = "TEST_ONE_PORT"

// onePortAlone makes such a network of a new one, and runs the rest.
const onePortAlone = `set -e
ip link set lo up
echo 40001 40001 >/proc/sys/net/ipv4/ip_local_port_range
exec "$@"`

// Connections to different servers share a port, and that there is none left for another to
// the same server is no error of the source, although both are EADDRNOTAVAIL.
func TestRace_onePort(t *testing.T) {
	if os.Getenv(onePort) == "" {
		again(t)
		return
	}
	for _, host := range []string{"127.0.0.1", "[::1]"} {
		d, clock := newDialer(t)
		d.From = Sources{Four: netip.MustParseAddr("127.0.0.1"), Six: netip.MustParseAddr("::1")}
		var to netip.AddrPort
		for _, port := range []string{":2001", ":2002", ":2003"} {
			_, to = dialtest.Listen(t, host+port)
			conn, failures := d.Race(t.Context(), []netip.AddrPort{to}, plenty, false)
			if conn == nil || LocalAddr(conn).Port() != 40001 {
				t.Fatalf("%v: %v, %v", to, conn, failures)
			}
			defer conn.Close()
		}
		clock.kill(t, d.Dead, to.Addr())
		conn, failures := d.Race(t.Context(), []netip.AddrPort{to}, plenty, false)
		var source *SourceError
		if conn != nil || len(failures) != 1 || failures[0].Err != syscall.EADDRNOTAVAIL || errors.As(failures[0].Err, &source) {
			t.Errorf("%v: %v, %v", to, conn, failures)
		}
		if !d.Dead.skips(t, to.Addr()) {
			t.Errorf("%v: the dead host is forgotten", to)
		}
	}
}

// again runs the test again where there is one port.
func again(t *testing.T) {
	t.Helper()
	apart := func(args ...string) *exec.Cmd {
		cmd := exec.Command("unshare", append([]string{"--map-root-user", "--net", "sh", "-c", onePortAlone, "sh"}, args...)...)
		cmd.Env = append(os.Environ(), onePort+"=1")
		return cmd
	}
	if out, err := apart("ip", "-6", "route", "get", "::1").CombinedOutput(); err != nil {
		t.Skipf("no network of its own with IPv6 (unshare and ip): %v: %s", err, out)
	}
	out, err := apart(os.Args[0], "-test.v", "-test.run=^"+t.Name()+"$").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("%v\n%s", err, out)
	}
}
