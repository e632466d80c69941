package dial

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"nightmare.mail/mxf/control/stamp"
	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/remote/dial/dialtest"
)

var (
	smtp4 = netip.AddrPortFrom(host4, 25)
	qmtp4 = netip.AddrPortFrom(host4, 209)
)

// newSilent returns a table, with a memory beside it.
func newSilent(t *testing.T, table []byte) (*DeadHosts, *clock) {
	d, c := newDead(t, table)
	d.Memory = NewSilences(c.now)
	return d, c
}

// falls has a connection to addr time out, as dial notes it.
func (d *DeadHosts) falls(t *testing.T, addr netip.AddrPort) {
	d.Memory.timedOut(addr, d.count(t.Context(), addr.Addr()))
}

func TestSilences_howLong(t *testing.T) {
	d, c := newSilent(t, make([]byte, 1024))
	if d.Silent(smtp4) != 0 {
		t.Error("an address that nobody tried is silent")
	}
	d.falls(t, smtp4)
	for _, step := range []struct {
		later int64
		want  time.Duration
	}{{0, 120 * time.Second}, {119, time.Second}, {1, 0}, {1000, 0}} {
		c.seconds += step.later
		if got := d.Silent(smtp4); got != step.want {
			t.Errorf("for %v, want %v", got, step.want)
		}
		if got := d.Silent(qmtp4); got != 0 {
			t.Errorf("another port for %v", got)
		}
		release, may := d.Memory.claim(smtp4)
		if may != (step.want == 0) {
			t.Errorf("it may be tried: %v, %v before the end", may, step.want)
		}
		if may {
			release()
		}
	}
}

// After the time is over one delivery at a time tries the address, until it answers.
func TestSilences_oneAtATime(t *testing.T) {
	d, c := newSilent(t, make([]byte, 1024))
	d.falls(t, smtp4)
	c.seconds += 120
	for _, end := range []string{"abandoned", "silent again", "answered"} {
		release, may := d.Memory.claim(smtp4)
		if !may {
			t.Fatalf("%s: the first may not try", end)
		}
		if _, may := d.Memory.claim(smtp4); may || d.Silent(smtp4) <= 0 {
			t.Errorf("%s: two may try", end)
		}
		switch end {
		case "silent again":
			d.falls(t, smtp4)
		case "answered":
			d.Memory.answered(smtp4)
		}
		release()
		if end == "silent again" {
			if d.Silent(smtp4) != 120*time.Second {
				t.Error("the time does not begin anew")
			}
			c.seconds += 120
		}
	}
	for range 3 { // all may, at the same time
		if _, may := d.Memory.claim(smtp4); !may {
			t.Error("an address that has answered is not tried")
		}
	}
}

// What clears the table clears the memory too, except what we do to it ourselves.
func TestSilences_cleared(t *testing.T) {
	for _, c := range []struct {
		name  string
		table []byte // before
		do    func(t *testing.T, d *DeadHosts, path string)
		want  bool // it stays silent
	}{
		{"nothing happens", make([]byte, 1024), func(*testing.T, *DeadHosts, string) {}, true},
		{"qmail-tcpok", make([]byte, 1024), func(t *testing.T, _ *DeadHosts, path string) {
			must.OK(t, os.WriteFile(path, make([]byte, 1024), 0o644))
		}, false},
		{"another process connects", make([]byte, 1024), func(t *testing.T, d *DeadHosts, _ string) {
			(&DeadHosts{Folder: d.Folder, Now: d.Now}).Answered(t.Context(), host4)
		}, false},
		{"another port answers here", make([]byte, 1024), func(t *testing.T, d *DeadHosts, _ string) {
			d.Memory.answered(qmtp4)
			d.Answered(t.Context(), host4)
		}, true},
		{"63 others time out", make([]byte, 1024), func(t *testing.T, d *DeadHosts, _ string) { others(t, d, 63) }, true},
		{"its record makes room", make([]byte, 1024), func(t *testing.T, d *DeadHosts, _ string) { others(t, d, 64) }, true},
		{"no table", nil, func(*testing.T, *DeadHosts, string) {}, true},
		{"an empty table", []byte{}, func(*testing.T, *DeadHosts, string) {}, true},
		{"the table goes", make([]byte, 1024), func(t *testing.T, _ *DeadHosts, path string) { must.OK(t, os.Remove(path)) }, true},
		{"SIGHUP", make([]byte, 1024), func(_ *testing.T, d *DeadHosts, _ string) { d.Memory.Forget() }, false},
	} {
		d, clock := newSilent(t, c.table)
		d.falls(t, smtp4)
		clock.seconds++
		c.do(t, d, filepath.Join(d.Folder, "tcpto"))
		d.skips(t, host4)
		if got := d.Silent(smtp4) > 0; got != c.want {
			t.Errorf("%s: silent %v", c.name, got)
		}
	}
}

// others has n other addresses time out.
func others(t *testing.T, d *DeadHosts, n int) {
	for i := range n {
		d.TimedOut(t.Context(), netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}))
	}
}

// IPv6 has a table of its own, which is made.
func TestSilences_six(t *testing.T) {
	d, _ := newSilent(t, nil)
	smtp6 := netip.AddrPortFrom(host6, 25)
	d.falls(t, smtp6)
	if d.skips(t, host6); d.Silent(smtp6) == 0 {
		t.Error("it is not silent")
	}
	must.OK(t, os.WriteFile(filepath.Join(d.Folder, "tcpto6"), make([]byte, 1792), 0o644))
	if d.skips(t, host6); d.Silent(smtp6) != 0 {
		t.Error("an empty table clears nothing")
	}
}

// A table is read again when somebody has changed it, and only then.
func TestSilences_tables(t *testing.T) {
	d, _ := newSilent(t, make([]byte, 1024))
	d.Now = time.Now
	d.Memory.now = time.Now
	path := filepath.Join(d.Folder, "tcpto")
	settled := func() {
		t.Helper()
		must.Until(t, "the stamp settles", func() bool { return must.Get(stamp.Of(path))(t).Settled(time.Now()) })
	}
	skips := func(want bool) {
		t.Helper()
		if d.skips(t, host4) != want {
			t.Errorf("skipped: not %v", want)
		}
	}
	settled()
	skips(false)
	first := d.table(t.Context(), host4)
	if d.table(t.Context(), host4) != first {
		t.Error("it was read again")
	}
	dead := make([]byte, 1024)
	copy(dead, host4.AsSlice())
	dead[4] = deadMin
	binary.LittleEndian.PutUint32(dead[8:], uint32(time.Now().Unix()))
	must.OK(t, os.WriteFile(path, dead, 0o644))
	skips(true)
	settled()
	skips(true)
	d.Answered(t.Context(), host4)
	skips(false)
}

// What timed out after the table was looked at is not cleared by it.
func TestSilences_looked(t *testing.T) {
	d, clock := newSilent(t, make([]byte, 1024))
	looked := d.Now()
	clock.seconds++
	d.falls(t, smtp4)
	if d.Memory.cleared(host4, looked); d.Silent(smtp4) == 0 {
		t.Error("it was cleared")
	}
	if d.Memory.cleared(host4, d.Now()); d.Silent(smtp4) != 0 {
		t.Error("it was not cleared")
	}
}

func TestSilences_bounds(t *testing.T) {
	d, _ := newSilent(t, nil)
	for i := range maxSilent + 1000 {
		d.Memory.timedOut(netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 25), false)
	}
	for port := range uint16(1000) {
		d.Memory.timedOut(netip.AddrPortFrom(host4, port), false)
	}
	host, _ := d.Memory.hosts.Get(host4, d.Now())
	if n := d.Memory.hosts.Len(); n != maxSilent || len(host.ports) != maxSilentPorts {
		t.Errorf("%d addresses, %d ports of one", n, len(host.ports))
	}
}

// Race asks the memory, and tells it.
func TestRace_silent(t *testing.T) {
	_, good := dialtest.Listen(t, "127.0.0.1:0")
	silent, refused := dialtest.Silent(t), dialtest.Refused(t)
	for _, c := range []struct {
		name    string
		addr    netip.AddrPort
		foreign bool
		fell    bool // before, 120 s ago
		want    bool // it is silent after
	}{
		{"it times out", silent, false, false, true},
		{"it times out at a stranger's port", silent, true, false, false},
		{"it times out again", silent, false, true, true},
		{"it times out again at a stranger's port", silent, true, true, false},
		{"it answers", good, false, true, false},
		{"it answers at a stranger's port", good, true, true, false},
		{"it refuses", refused, false, true, false},
	} {
		d, clock := newSilent(t, make([]byte, 1024))
		if c.fell {
			d.falls(t, c.addr)
			clock.seconds += 120
		}
		dialer := &Dialer{Timeout: 300 * time.Millisecond, Dead: d, Trace: t.Logf}
		if conn, _ := dialer.Race(t.Context(), []netip.AddrPort{c.addr}, plenty, c.foreign); conn != nil {
			conn.Close()
		}
		if got := d.Silent(c.addr) > 0; got != c.want {
			t.Errorf("%s: silent %v", c.name, got)
		}
		if c.want {
			conn, failures := dialer.Race(t.Context(), []netip.AddrPort{c.addr}, plenty, c.foreign)
			if conn != nil || len(failures) != 1 || !errors.Is(failures[0].Err, ErrSilent) || failures[0].Late || failures[0].Addr != c.addr {
				t.Errorf("%s: %v, %v", c.name, conn, failures)
			}
			// The next one is started at once.
			conn, failures = dialer.Race(t.Context(), []netip.AddrPort{c.addr, good}, plenty, c.foreign)
			if conn == nil || len(failures) != 1 {
				t.Fatalf("%s: %v, %v", c.name, conn, failures)
			}
			conn.Close()
		}
	}
}

// A try that is not admitted, or loses the race, lets the next delivery try.
func TestRace_silentReleased(t *testing.T) {
	_, good := dialtest.Listen(t, "127.0.0.1:0")
	silent := dialtest.Silent(t)
	for _, admits := range []bool{false, true} {
		d, clock := newSilent(t, make([]byte, 1024))
		d.falls(t, silent)
		clock.seconds += 120
		dialer := &Dialer{Timeout: 20 * time.Second, Dead: d, Trace: t.Logf, Admit: func(addr netip.AddrPort) (func(*net.TCPConn), bool) {
			return func(*net.TCPConn) {}, admits || addr != silent
		}}
		conn, failures := dialer.Race(t.Context(), []netip.AddrPort{silent, good}, plenty, false)
		if conn == nil || len(failures) != 0 {
			t.Fatalf("%v, %v", conn, failures)
		}
		conn.Close()
		if _, may := d.Memory.claim(silent); !may {
			t.Errorf("admitted %v: nobody may try it", admits)
		}
	}
}

// Hundreds of deliveries that come after the 120 s try it once.
func TestRace_silentTogether(t *testing.T) {
	silent := dialtest.Silent(t)
	d, clock := newSilent(t, make([]byte, 1024))
	d.falls(t, silent)
	clock.seconds += 120
	var tried atomic.Int32
	var all sync.WaitGroup
	for i := range 200 {
		all.Go(func() {
			mine := &DeadHosts{Folder: d.Folder, Number: i, Now: d.Now, Memory: d.Memory}
			dialer := &Dialer{Timeout: time.Second, Dead: mine, Trace: func(string, ...any) {}}
			_, failures := dialer.Race(t.Context(), []netip.AddrPort{silent}, plenty, false)
			if len(failures) != 1 {
				t.Error(fmt.Errorf("failures %v", failures))
			} else if failures[0].Late {
				tried.Add(1)
			}
		})
	}
	if all.Wait(); tried.Load() != 1 {
		t.Errorf("it was tried %d times", tried.Load())
	}
}
