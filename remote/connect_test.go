package remote

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"
)

func listen(t *testing.T, addr string) (net.Listener, netip.AddrPort) {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, l.Addr().(*net.TCPAddr).AddrPort()
}

// silent returns an address that neither accepts nor refuses: a listener with a
// full queue.
func silent(t *testing.T) netip.AddrPort {
	t.Helper()
	socket := func(act func(fd int) error) int {
		t.Helper()
		fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { syscall.Close(fd) })
		syscall.CloseOnExec(fd)
		if err := act(fd); err != nil && err != syscall.EINPROGRESS {
			t.Fatal(err)
		}
		return fd
	}
	loopback := [4]byte{127, 0, 0, 1}
	listener := socket(func(fd int) error {
		return errors.Join(syscall.Bind(fd, &syscall.SockaddrInet4{Addr: loopback}), syscall.Listen(fd, 0))
	})
	name, err := syscall.Getsockname(listener)
	if err != nil {
		t.Fatal(err)
	}
	port := name.(*syscall.SockaddrInet4).Port
	for range 4 { // more than a queue of length 0 holds: the kernel adds one
		socket(func(fd int) error {
			if err := syscall.SetNonblock(fd, true); err != nil {
				return err
			}
			return syscall.Connect(fd, &syscall.SockaddrInet4{Addr: loopback, Port: port})
		})
	}
	return netip.AddrPortFrom(netip.AddrFrom4(loopback), uint16(port))
}

// refused returns an address at which nobody listens.
func refused(t *testing.T) netip.AddrPort {
	t.Helper()
	l, addr := listen(t, "127.0.0.1:0")
	l.Close()
	return addr
}

// plenty is the budget of a delivery that has not tried anything.
var plenty = budget{slow: maxAddresses, quick: maxRefused}

func newConnector(t *testing.T) *connector {
	d, _ := newDead(t, make([]byte, 1024))
	return &connector{timeout: 20 * time.Second, dead: d, trace: t.Logf}
}

func TestConnect_nextAfterRefusal(t *testing.T) {
	_, good := listen(t, "127.0.0.1:0")
	bad := refused(t)
	conn, failures := newConnector(t).connect(t.Context(), []netip.AddrPort{bad, good}, plenty, false)
	if conn == nil {
		t.Fatal("no connection")
	}
	defer conn.Close()
	if remoteAddr(conn) != good || len(failures) != 1 || failures[0].addr != bad || failures[0].err.Error() != "connection refused" {
		t.Errorf("connected to %s after %v", remoteAddr(conn), failures)
	}
}

func TestConnect_allFail(t *testing.T) {
	a, b := refused(t), refused(t)
	conn, failures := newConnector(t).connect(t.Context(), []netip.AddrPort{a, b}, plenty, false)
	if conn != nil || len(failures) != 2 {
		t.Errorf("%v, %v", conn, failures)
	}
}

// The next address does not wait for the time-out of the one before it.
func TestConnect_race(t *testing.T) {
	_, good := listen(t, "127.0.0.1:0")
	slow := silent(t)
	began := time.Now()
	conn, failures := newConnector(t).connect(t.Context(), []netip.AddrPort{slow, good}, plenty, false)
	if conn == nil || remoteAddr(conn) != good || len(failures) != 0 {
		t.Fatalf("%v, %v", conn, failures)
	}
	defer conn.Close()
	if took := time.Since(began); took < attemptDelay || took > 15*time.Second {
		t.Errorf("connected after %s", took)
	}
}

func TestConnect_timeoutCounts(t *testing.T) {
	c := newConnector(t)
	c.timeout = 300 * time.Millisecond
	addr := silent(t)
	for range 2 {
		if conn, failures := c.connect(t.Context(), []netip.AddrPort{addr}, plenty, false); conn != nil || len(failures) != 1 {
			t.Fatalf("%v, %v", conn, failures)
		}
		c.dead.now = func() time.Time { return time.Unix(1_700_000_000+121, 0) }
	}
	if !c.dead.dead(addr.Addr()) {
		t.Error("two time-outs left no trace in the table")
	}
}

// What a stranger's zone can have us connect to is not written to the table that
// all deliveries share: not that it timed out, and not that it lives.
func TestConnect_foreignPort(t *testing.T) {
	c := newConnector(t)
	c.timeout = 300 * time.Millisecond
	dark := silent(t)
	for range 2 {
		if conn, failures := c.connect(t.Context(), []netip.AddrPort{dark}, plenty, true); conn != nil || len(failures) != 1 || !failures[0].late {
			t.Fatalf("%v, %v", conn, failures)
		}
		c.dead.now = func() time.Time { return time.Unix(1_700_000_000+121, 0) }
	}
	if c.dead.dead(dark.Addr()) {
		t.Error("a port that a zone named made its address a dead host")
	}
	c.timeout = 20 * time.Second
	_, good := listen(t, "127.0.0.1:0")
	for _, addr := range []netip.AddrPort{good, refused(t)} {
		c.dead.timedOut(addr.Addr())
		c.dead.now = func() time.Time { return time.Unix(1_700_000_000+2*121, 0) }
		c.dead.timedOut(addr.Addr())
		if conn, _ := c.connect(t.Context(), []netip.AddrPort{addr}, plenty, true); conn != nil {
			conn.Close()
		}
		if !c.dead.dead(addr.Addr()) {
			t.Errorf("%s: a port that a zone named had a dead host forgotten", addr)
		}
	}
}

// Errors of this host say nothing about the other: a host that is dead stays so.
func TestConnect_localError(t *testing.T) {
	c := newConnector(t)
	broadcast := netip.MustParseAddrPort("127.255.255.255:25") // no way to it by TCP
	c.dead.timedOut(broadcast.Addr())
	c.dead.now = func() time.Time { return time.Unix(1_700_000_000+121, 0) }
	c.dead.timedOut(broadcast.Addr())
	conn, failures := c.connect(t.Context(), []netip.AddrPort{broadcast}, plenty, false)
	if conn != nil || len(failures) != 1 || failures[0].late {
		t.Fatalf("%v, %v", conn, failures)
	}
	if failures[0].err == syscall.ECONNREFUSED || failures[0].err == syscall.ECONNRESET {
		t.Skip("this kernel answers for a broadcast address")
	}
	if !c.dead.dead(broadcast.Addr()) {
		t.Errorf("%v: the host was forgotten", failures[0].err)
	}
}

func TestTimedOut(t *testing.T) {
	for err, want := range map[error]bool{
		&net.OpError{Err: &os.SyscallError{Err: syscall.ETIMEDOUT}}: true,
		os.ErrDeadlineExceeded: true,
		&net.OpError{Err: &os.SyscallError{Err: syscall.EAGAIN}}:       false, // no port is free
		&net.OpError{Err: &os.SyscallError{Err: syscall.EHOSTUNREACH}}: false,
		syscall.ECONNREFUSED: false,
		errors.New("other"):  false,
	} {
		if timedOut(err) != want {
			t.Errorf("%v: %v", err, !want)
		}
	}
}

// Only as many connections are under way as may still time out.
func TestConnect_budget(t *testing.T) {
	c := newConnector(t)
	c.timeout = 700 * time.Millisecond
	_, good := listen(t, "127.0.0.1:0")
	dark := silent(t)
	conn, failures := c.connect(t.Context(), []netip.AddrPort{dark, dark, good}, budget{slow: 2, quick: 1}, false)
	if conn != nil || len(failures) != 2 {
		t.Errorf("%v after %v", conn, failures)
	}
	bad := refused(t)
	conn, failures = c.connect(t.Context(), []netip.AddrPort{bad, bad, good}, budget{slow: 2, quick: 2}, false)
	if conn != nil || len(failures) != 2 {
		t.Errorf("%v after %v", conn, failures)
	}
}

// A race that was lost says nothing about a host.
func TestConnect_cancelled(t *testing.T) {
	c := newConnector(t)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	addr := silent(t)
	conn, _ := c.connect(ctx, []netip.AddrPort{addr}, plenty, false)
	if conn != nil {
		t.Fatal("connected")
	}
	c.dead.with(addr.Addr(), false, func(table *deadTable) {
		if table.find(addr.Addr()) >= 0 {
			t.Error("a cancelled connection counted as a time-out")
		}
	})
}

func TestOrder_alternates(t *testing.T) {
	var addrs []netip.Addr
	for i := range byte(4) {
		addrs = append(addrs, netip.AddrFrom4([4]byte{192, 0, 2, i}))
	}
	for i := range byte(2) {
		addrs = append(addrs, netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 15: i}))
	}
	got := order(addrs, rand.New(rand.NewPCG(1, 2)))
	if len(got) != len(addrs) {
		t.Fatalf("%d of %d addresses", len(got), len(addrs))
	}
	seen := make(map[netip.Addr]bool)
	for i, a := range got {
		if i > 0 && i < 4 && a.Is4() == got[i-1].Is4() {
			t.Errorf("families do not alternate: %v", got)
		}
		seen[a] = true
	}
	if len(seen) != len(addrs) {
		t.Errorf("an address is lost: %v", got)
	}
}

func TestOrder_shuffles(t *testing.T) {
	addrs := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")}
	rnd := rand.New(rand.NewPCG(1, 2))
	first := 0
	for range 1000 {
		if order(addrs, rnd)[0] == addrs[0] {
			first++
		}
	}
	if first < 400 || first > 600 {
		t.Errorf("the first of two addresses came first in %d of 1000 orders", first)
	}
}
