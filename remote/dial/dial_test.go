package dial

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/remote/dial/dialtest"
)

// plenty is the budget of a delivery that has not tried anything.
var plenty = Budget{Slow: MaxSlow, Quick: MaxQuick}

func newDialer(t *testing.T) (*Dialer, *clock) {
	d, clock := newDead(t, make([]byte, 1024))
	return &Dialer{Timeout: 20 * time.Second, Dead: d, Trace: t.Logf}, clock
}

func TestRace_nextAfterRefusal(t *testing.T) {
	_, good := dialtest.Listen(t, "127.0.0.1:0")
	bad := dialtest.Refused(t)
	c, _ := newDialer(t)
	conn, failures := c.Race(t.Context(), []netip.AddrPort{bad, good}, plenty, false)
	if conn == nil || RemoteAddr(conn) != good || len(failures) != 1 || failures[0].Addr != bad || failures[0].Err.Error() != "connection refused" {
		t.Fatalf("%v after %v", conn, failures)
	}
	conn.Close()
}

func TestRace_allFail(t *testing.T) {
	a, b := dialtest.Refused(t), dialtest.Refused(t)
	c, _ := newDialer(t)
	conn, failures := c.Race(t.Context(), []netip.AddrPort{a, b}, plenty, false)
	if conn != nil || len(failures) != 2 {
		t.Errorf("%v, %v", conn, failures)
	}
}

// The next address does not wait for the time-out of the one before it.
func TestRace_race(t *testing.T) {
	_, good := dialtest.Listen(t, "127.0.0.1:0")
	slow := dialtest.Silent(t)
	began := time.Now()
	c, _ := newDialer(t)
	conn, failures := c.Race(t.Context(), []netip.AddrPort{slow, good}, plenty, false)
	if conn == nil || RemoteAddr(conn) != good || len(failures) != 0 {
		t.Fatalf("%v, %v", conn, failures)
	}
	defer conn.Close()
	if took := time.Since(began); took < attemptDelay || took > 15*time.Second {
		t.Errorf("connected after %s", took)
	}
}

func TestRace_timeoutCounts(t *testing.T) {
	c, clock := newDialer(t)
	c.Timeout = 300 * time.Millisecond
	addr := dialtest.Silent(t)
	for range 2 {
		if conn, failures := c.Race(t.Context(), []netip.AddrPort{addr}, plenty, false); conn != nil || len(failures) != 1 {
			t.Fatalf("%v, %v", conn, failures)
		}
		clock.seconds += 121
	}
	if !c.Dead.skips(t, addr.Addr()) {
		t.Error("two time-outs left no trace in the table")
	}
}

// What a stranger's zone can have us connect to is not written to the table that
// all deliveries share: not that it timed out, and not that it lives.
func TestRace_foreignPort(t *testing.T) {
	c, clock := newDialer(t)
	c.Timeout = 300 * time.Millisecond
	dark := dialtest.Silent(t)
	for range 2 {
		if conn, failures := c.Race(t.Context(), []netip.AddrPort{dark}, plenty, true); conn != nil || len(failures) != 1 || !failures[0].Late {
			t.Fatalf("%v, %v", conn, failures)
		}
		clock.seconds += 121
	}
	if c.Dead.skips(t, dark.Addr()) {
		t.Error("a port that a zone named made its address a dead host")
	}
	c.Timeout = 20 * time.Second
	_, good := dialtest.Listen(t, "127.0.0.1:0")
	for _, addr := range []netip.AddrPort{good, dialtest.Refused(t)} {
		clock.kill(t, c.Dead, addr.Addr())
		if conn, _ := c.Race(t.Context(), []netip.AddrPort{addr}, plenty, true); conn != nil {
			conn.Close()
		}
		if !c.Dead.skips(t, addr.Addr()) {
			t.Errorf("%s: a port that a zone named had a dead host forgotten", addr)
		}
	}
}

// Errors of this host say nothing about the other: a host that is dead stays so.
func TestRace_localError(t *testing.T) {
	c, clock := newDialer(t)
	broadcast := netip.MustParseAddrPort("127.255.255.255:25") // no way to it by TCP
	clock.kill(t, c.Dead, broadcast.Addr())
	conn, failures := c.Race(t.Context(), []netip.AddrPort{broadcast}, plenty, false)
	if conn != nil || len(failures) != 1 || failures[0].Late {
		t.Fatalf("%v, %v", conn, failures)
	}
	if failures[0].Err == syscall.ECONNREFUSED || failures[0].Err == syscall.ECONNRESET {
		t.Skip("this kernel answers for a broadcast address")
	}
	if !c.Dead.skips(t, broadcast.Addr()) {
		t.Errorf("%v: the host was forgotten", failures[0].Err)
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
func TestRace_budget(t *testing.T) {
	c, _ := newDialer(t)
	c.Timeout = 700 * time.Millisecond
	_, good := dialtest.Listen(t, "127.0.0.1:0")
	dark := dialtest.Silent(t)
	conn, failures := c.Race(t.Context(), []netip.AddrPort{dark, dark, good}, Budget{Slow: 2, Quick: 1}, false)
	if conn != nil || len(failures) != 2 {
		t.Errorf("%v after %v", conn, failures)
	}
	bad := dialtest.Refused(t)
	conn, failures = c.Race(t.Context(), []netip.AddrPort{bad, bad, good}, Budget{Slow: 2, Quick: 2}, false)
	if conn != nil || len(failures) != 2 {
		t.Errorf("%v after %v", conn, failures)
	}
}

// A race that was lost says nothing about a host.
func TestRace_cancelled(t *testing.T) {
	c, _ := newDialer(t)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	addr := dialtest.Silent(t)
	conn, _ := c.Race(ctx, []netip.AddrPort{addr}, plenty, false)
	if conn != nil {
		t.Fatal("connected")
	}
	c.Dead.with(t.Context(), addr.Addr(), false, func(table *deadTable) {
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
	got := Order(addrs, Sources{}, rand.New(rand.NewPCG(1, 2)))
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
		if Order(addrs, Sources{}, rnd)[0] == addrs[0] {
			first++
		}
	}
	if first < 400 || first > 600 {
		t.Errorf("the first of two addresses came first in %d of 1000 orders", first)
	}
}

// A thousand deliveries, a hundred at a time, to a domain whose first exchanger is
// dead cost the first few time-outs only. The clock runs fast: a time-out takes
// two minutes, so that the hundred that are under way count once.
func TestDeadHosts_thousandDeliveries(t *testing.T) {
	t.Parallel()
	const deliveries, atATime, timeout = 1000, 100, 200 * time.Millisecond
	dead := dialtest.Silent(t)
	shared, _ := newDead(t, make([]byte, 1024))
	began := time.Now()
	now := func() time.Time { return began.Add(time.Since(began) * (deadDebounce * time.Second / timeout)) }
	var timeouts, asked atomic.Int32
	slots := make(chan struct{}, atATime)
	for n := range deliveries {
		slots <- struct{}{}
		go func() {
			defer func() { <-slots }()
			c := &Dialer{
				Timeout: timeout,
				Dead:    &DeadHosts{Folder: shared.Folder, Number: n, Now: now},
				Trace:   func(string, ...any) {},
			}
			if c.Dead.skips(t, dead.Addr()) {
				return
			}
			asked.Add(1)
			conn, failures := c.Race(t.Context(), []netip.AddrPort{dead}, plenty, false)
			if conn != nil {
				conn.Close()
			}
			if len(failures) == 1 && strings.HasPrefix(failures[0].Err.Error(), "no answer") {
				timeouts.Add(1)
			}
		}()
	}
	for range atATime {
		slots <- struct{}{}
	}
	if n := timeouts.Load(); n > 4*atATime || n < atATime {
		t.Errorf("%d of %d deliveries waited for the dead exchanger", n, deliveries)
	}
	if timeouts.Load() != asked.Load() {
		t.Errorf("%d time-outs of %d", timeouts.Load(), asked.Load())
	}
}

// A table that stays locked costs one wait, not one for each address.
func TestDeadHosts_stuckLock(t *testing.T) {
	t.Parallel()
	d, _ := newDead(t, make([]byte, 1024))
	f := must.Get(os.OpenFile(filepath.Join(d.Folder, "tcpto"), os.O_RDWR, 0))(t)
	defer f.Close()
	if !lock(t.Context(), f) {
		t.Fatal(errors.New("cannot lock"))
	}
	began := time.Now()
	for range 20 {
		d.TimedOut(t.Context(), host4)
		if d.skips(t, host4) {
			t.Error("dead by a table that cannot be read")
		}
	}
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("took %v", took)
	}
}

// The trace, and the time of a failure, go by the clock of the Dialer.
func TestDialer_clock(t *testing.T) {
	c, _ := newDialer(t)
	now, lines := time.Unix(1_700_000_000, 0), 0
	c.Now = func() time.Time { now = now.Add(7 * time.Second); return now }
	c.Trace = func(format string, args ...any) {
		if line := fmt.Sprintf(format, args...); !strings.HasSuffix(line, ": connection refused (7000 ms)") {
			t.Error(line)
		}
		lines++
	}
	if conn, failures := c.Race(t.Context(), []netip.AddrPort{dialtest.Refused(t)}, plenty, false); conn != nil || len(failures) != 1 || lines != 1 {
		t.Errorf("%v, %v, %d lines", conn, failures, lines)
	}
}
