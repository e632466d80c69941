package dial

import (
	"context"
	"encoding/binary"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nightmare.mail/mxf/integration/must"
)

// A clock that tests set.
type clock struct{ seconds int64 }

func (c *clock) now() time.Time { return time.Unix(c.seconds, 0) }

func newDead(t *testing.T, table []byte) (*DeadHosts, *clock) {
	t.Helper()
	folder := t.TempDir()
	if table != nil {
		must.Write(t, filepath.Join(folder, "tcpto"), string(table))
	}
	c := &clock{1_700_000_000}
	return &DeadHosts{Folder: folder, Number: 32, Now: c.now}, c
}

// kill has addr time out twice, so that it is a dead host.
func (c *clock) kill(t *testing.T, d *DeadHosts, addr netip.Addr) {
	d.TimedOut(t.Context(), addr)
	c.seconds += 120
	d.TimedOut(t.Context(), addr)
}

// skips reports whether addr is skipped.
func (d *DeadHosts) skips(t *testing.T, addr netip.Addr) bool {
	t.Helper()
	return d.Skipped(t.Context(), []netip.Addr{addr})[addr] > 0
}

var (
	host4 = netip.MustParseAddr("192.0.2.1")
	host6 = netip.MustParseAddr("2001:db8::1")
)

func TestDeadHosts_twoTimeouts(t *testing.T) {
	for _, addr := range []netip.Addr{host4, host6} {
		d, c := newDead(t, make([]byte, 1024))
		for _, step := range []struct {
			later    int64
			timesOut bool
			dead     bool
			what     string
		}{
			{0, true, false, "after one time-out"},
			{119, true, false, "after a second time-out within 120 s"},
			{1, true, true, "after two time-outs"},
			{60*64 - 1, false, true, "a second before it is forgotten"},
			{1, false, false, "after (60 + Number mod 32) × 64 s"},
		} {
			if c.seconds += step.later; step.timesOut {
				d.TimedOut(t.Context(), addr)
			}
			if got := d.skips(t, addr); got != step.dead {
				t.Errorf("%s: dead %v %s", addr, got, step.what)
			}
		}
	}
}

func TestDeadHosts_comesBack(t *testing.T) {
	for _, addr := range []netip.Addr{host4, host6} {
		d, c := newDead(t, make([]byte, 1024))
		c.kill(t, d, addr)
		d.Answered(t.Context(), addr)
		if d.skips(t, addr) {
			t.Errorf("%s: dead though it answered", addr)
		}
	}
}

// The bytes are qmail's: address, count, three unused, the time in little-endian.
func TestDeadHosts_bytes(t *testing.T) {
	d, c := newDead(t, make([]byte, 1024))
	d.TimedOut(t.Context(), host4)
	table, err := os.ReadFile(filepath.Join(d.Folder, "tcpto"))
	if err != nil || len(table) != 1024 {
		t.Fatalf("%d bytes, %v", len(table), err)
	}
	want := make([]byte, 1024)
	copy(want, []byte{192, 0, 2, 1, 1, 0, 0, 0})
	binary.LittleEndian.PutUint32(want[8:], uint32(c.seconds))
	if string(table) != string(want) {
		t.Errorf("record %x, want %x", table[:16], want[:16])
	}
	d.TimedOut(t.Context(), host6)
	table, err = os.ReadFile(filepath.Join(d.Folder, "tcpto6"))
	if err != nil || len(table) != 64*28 {
		t.Fatalf("tcpto6: %d bytes, %v", len(table), err)
	}
	if table[16] != 1 || binary.LittleEndian.Uint64(table[20:]) != uint64(c.seconds) {
		t.Errorf("tcpto6 record %x", table[:28])
	}
}

func TestDeadHosts_oddTables(t *testing.T) {
	full := make([]byte, 1024)
	for i := range 64 {
		copy(full[i*16:], []byte{10, 0, 0, byte(i), 5})
		binary.LittleEndian.PutUint32(full[i*16+8:], uint32(1_700_000_000-1000+i))
	}
	for _, test := range []struct {
		name      string
		table     []byte
		remembers bool
	}{
		{"missing", nil, false},
		{"empty", []byte{}, false},
		{"half a record", make([]byte, 8), false},
		{"two records and a half", make([]byte, 40), true},
		{"larger than ours", make([]byte, 4096), true},
		{"full", full, true},
	} {
		d, c := newDead(t, test.table)
		c.kill(t, d, host4)
		if got := d.skips(t, host4); got != test.remembers {
			t.Errorf("%s: dead is %v, want %v", test.name, got, test.remembers)
		}
		if info, err := os.Stat(filepath.Join(d.Folder, "tcpto")); err == nil && info.Size() != int64(len(test.table)) {
			t.Errorf("%s: the size of the table changed to %d", test.name, info.Size())
		} else if err != nil && test.table != nil {
			t.Error(err)
		}
	}
}

// The oldest record makes room in a full table.
func TestDeadHosts_oldestGoes(t *testing.T) {
	table := make([]byte, 1024)
	for i := range 64 {
		copy(table[i*16:], []byte{10, 0, 0, byte(i), 2})
		binary.LittleEndian.PutUint32(table[i*16+8:], uint32(1_700_000_000-10-(i+7)%64))
	}
	d, _ := newDead(t, table)
	d.TimedOut(t.Context(), host4)
	if d.skips(t, netip.MustParseAddr("10.0.0.56")) { // (56+7)%64 is the largest age
		t.Error("the oldest record was kept")
	}
	for i := range 64 {
		if a := netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}); i != 56 && !d.skips(t, a) {
			t.Errorf("%s was thrown out", a)
		}
	}
}

// A host that timed out often is kept longer than its age says, as qmail keeps it.
func TestDeadHosts_countKeeps(t *testing.T) {
	table := make([]byte, 1024)
	for i := range 64 {
		copy(table[i*16:], []byte{10, 0, 0, byte(i), 3})
		binary.LittleEndian.PutUint32(table[i*16+8:], 1_700_000_000-100)
	}
	table[20*16+4] = 10
	binary.LittleEndian.PutUint32(table[20*16+8:], 1_700_000_000-3000)
	binary.LittleEndian.PutUint32(table[40*16+8:], 1_700_000_000-2000)
	d, _ := newDead(t, table)
	d.TimedOut(t.Context(), host4)
	if !d.skips(t, netip.MustParseAddr("10.0.0.20")) || d.skips(t, netip.MustParseAddr("10.0.0.40")) {
		t.Error("the record with ten time-outs had to go, not the one with three")
	}
}

// Four bytes of seconds wrap in February 2106.
func TestDeadHosts_year2107(t *testing.T) {
	d, c := newDead(t, make([]byte, 1024))
	c.seconds = 1<<32 - 60
	c.kill(t, d, host4)
	if !d.skips(t, host4) {
		t.Error("the wrap lost a time-out")
	}
	c.seconds += 60 * 64
	if d.skips(t, host4) {
		t.Error("dead for ever")
	}
}

// Whoever only wants to know changes nothing.
func TestDeadHosts_onlyLooking(t *testing.T) {
	d, c := newDead(t, make([]byte, 1024))
	c.kill(t, d, host4)
	d.ReadOnly = true
	d.Answered(t.Context(), host4)
	c.kill(t, d, host6)
	if !d.skips(t, host4) || d.skips(t, host6) {
		t.Error("the tables were written")
	}
}

func TestDeadHosts_readOnly(t *testing.T) {
	d, c := newDead(t, make([]byte, 1024))
	c.kill(t, d, host4)
	path := filepath.Join(d.Folder, "tcpto")
	must.OK(t, os.Chmod(path, 0o444))
	d.TimedOut(t.Context(), netip.MustParseAddr("192.0.2.2"))
	if !d.skips(t, host4) {
		t.Error("a table that can be read is not")
	}
}

func TestDeadHosts_together(t *testing.T) {
	d, _ := newDead(t, make([]byte, 1024))
	var all sync.WaitGroup
	for i := range 40 {
		all.Go(func() { d.TimedOut(t.Context(), netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})) })
	}
	all.Wait()
	table := must.Get(os.ReadFile(filepath.Join(d.Folder, "tcpto")))(t)
	seen := make(map[byte]bool)
	for i := range 64 {
		if r := table[i*16:]; r[4] != 0 {
			if r[4] != 1 || seen[r[3]] {
				t.Errorf("record %d: %x", i, r[:16])
			}
			seen[r[3]] = true
		}
	}
	if len(seen) != 40 {
		t.Errorf("%d of 40 hosts remembered", len(seen))
	}
}

// What is no file is no memory, and nothing is waited for.
func TestDeadHosts_noFile(t *testing.T) {
	for name, make := range map[string]func(path string) error{
		"FIFO":      func(path string) error { return unix.Mkfifo(path, 0o600) },
		"device":    func(path string) error { return os.Symlink("/dev/zero", path) },
		"terminal":  func(path string) error { return os.Symlink("/dev/ptmx", path) },
		"directory": func(path string) error { return os.Mkdir(path, 0o700) },
	} {
		d, c := newDead(t, nil)
		over := time.AfterFunc(20*time.Second, func() { panic(name + " is waited for") })
		for _, table := range []string{"tcpto", "tcpto6"} {
			if err := make(filepath.Join(d.Folder, table)); err != nil {
				t.Skip(err)
			}
		}
		for _, addr := range []netip.Addr{host4, host6} {
			for range 3 {
				d.TimedOut(t.Context(), addr)
				c.seconds += 1000
			}
			if d.skips(t, addr) {
				t.Errorf("%s: it remembers %s", name, addr)
			}
			d.Answered(t.Context(), addr)
		}
		over.Stop()
	}
}

// Each table is read once for all addresses, and tells how long each is to be skipped.
func TestDeadHosts_skippedFor(t *testing.T) {
	d, c := newDead(t, make([]byte, 1024))
	for range 2 {
		d.TimedOut(t.Context(), host4)
		d.TimedOut(t.Context(), host6)
		c.seconds += 120
	}
	alive := netip.MustParseAddr("192.0.2.2")
	skipped := d.Skipped(t.Context(), []netip.Addr{alive, host6, host4})
	const left = (60*64 - 120) * time.Second
	if len(skipped) != 2 || skipped[host4] != left || skipped[host6] != left {
		t.Errorf("skipped: %v, want %s for each", skipped, left)
	}
}

// A locked table is waited for, but not longer than the context lasts. Whoever stops waiting
// because the race is lost does not take the table from those who come after.
func TestDeadHosts_givenUp(t *testing.T) {
	d, _ := newDead(t, make([]byte, 1024))
	f := must.Open(t, filepath.Join(d.Folder, "tcpto"))
	must.OK(t, unix.Flock(int(f.Fd()), unix.LOCK_EX))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	d.TimedOut(ctx, host4)
	if d.stuck.Load() {
		t.Error("the table is not looked at again")
	}
	f.Close()
	found := false
	d.with(t.Context(), host4, false, func(table *deadTable) { found = table.find(host4) >= 0 })
	if found {
		t.Error("the lock was not waited for")
	}
	d.TimedOut(t.Context(), host4)
	d.with(t.Context(), host4, false, func(table *deadTable) { found = table.find(host4) >= 0 })
	if !found {
		t.Error("a later time-out is not remembered")
	}
}
