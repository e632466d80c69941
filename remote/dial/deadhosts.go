package dial

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"nightmare.mail/mxf/control/regular"
)

// The table of hosts that did not answer is shared with qmail-remote,
// qmail-tcpto and qmail-tcpok: queue/lock/tcpto holds up to 64 records of 16
// bytes, the address (4), a count (1), three unused bytes, the time (4,
// little-endian) and four more unused ones. IPv6 has a table of its own with
// records of 28 bytes, the address (16), a count (1), three unused bytes and the
// time (8, little-endian). Each use of a table holds flock(2) on it.
const (
	deadRecords   = 64
	deadMin       = 2   // time-outs before an address is skipped
	deadMax       = 10  // qmail's ceiling for the count
	deadDebounce  = 120 // seconds in which a second time-out does not count
	deadLockTries = 50  // a table that stays locked this long is no help
	deadLockPause = 10 * time.Millisecond

	// An address is skipped for (deadShare + Number mod deadSpread) × deadUnit seconds
	// after its last time-out, so that not all deliveries come back to it at once.
	deadShare  = 60
	deadSpread = 32
	deadUnit   = 64
)

// DeadHosts remembers the addresses that timed out, for one delivery. A table that is
// missing or cannot be read, locked or written is no memory, and no error. It may be used
// by several goroutines at a time.
type DeadHosts struct {
	Folder string           // <home>/queue/lock
	Number int              // what qmail takes the process id for: it spreads the deliveries that come back to an address
	Now    func() time.Time // the clock
	// ReadOnly has nothing written: no time-out is counted, and nobody forgotten.
	ReadOnly bool
	// Memory is what the process of many deliveries remembers besides; nil: nothing.
	Memory *Silences

	stuck atomic.Bool // a table stayed locked: it is not waited for again
}

// layout is where the parts of one record are.
type layout struct {
	name              string
	size, count, when int
	wide              bool // an 8-byte time
	create            bool
}

var (
	layout4 = layout{name: "tcpto", size: 16, count: 4, when: 8}
	layout6 = layout{name: "tcpto6", size: 28, count: 16, when: 20, wide: true, create: true}
)

func layoutOf(addr netip.Addr) layout {
	if addr.Is4() {
		return layout4
	}
	return layout6
}

// Skipped returns those of addrs that timed out twice, and lately, and how much longer each
// is skipped. Each table is read once, and with a memory only if it has changed.
func (d *DeadHosts) Skipped(ctx context.Context, addrs []netip.Addr) map[netip.Addr]time.Duration {
	skipped := make(map[netip.Addr]time.Duration)
	window := uint64(deadShare+d.Number%deadSpread) * deadUnit
	for _, four := range []bool{true, false} {
		same := func(a netip.Addr) bool { return a.Is4() == four }
		first := slices.IndexFunc(addrs, same)
		if first < 0 {
			continue
		}
		looked := d.silences().clock()
		t := d.table(ctx, addrs[first])
		if t == nil {
			continue
		}
		for _, addr := range addrs {
			if !same(addr) {
				continue
			}
			i := t.find(addr)
			if i >= 0 && t.countOf(i) >= deadMin && t.age(i, d.Now()) < window {
				skipped[addr] = time.Duration(window-t.age(i, d.Now())) * time.Second
			}
			if d.Memory != nil && t.isCleared(i) {
				d.Memory.cleared(addr, looked)
			}
		}
	}
	return skipped
}

// table returns the table for addr as it is, or was when it was last changed; nil: there is none.
func (d *DeadHosts) table(ctx context.Context, addr netip.Addr) *deadTable {
	read := func() (*deadTable, bool) {
		var found *deadTable
		d.with(ctx, addr, false, func(t *deadTable) { found = &deadTable{layout: t.layout, bytes: t.bytes} })
		return found, found != nil
	}
	if d.Memory == nil {
		t, _ := read()
		return t
	}
	return d.Memory.tables.Of(filepath.Join(d.Folder, layoutOf(addr).name), d.Memory.now, read)
}

// TimedOut counts a connection that was not answered in time.
func (d *DeadHosts) TimedOut(ctx context.Context, addr netip.Addr) { d.count(ctx, addr) }

// count is TimedOut, and reports whether the table has a record of it.
func (d *DeadHosts) count(ctx context.Context, addr netip.Addr) (recorded bool) {
	d.with(ctx, addr, true, func(t *deadTable) {
		i := t.find(addr)
		if i < 0 {
			if i = t.spare(d.Now()); i < 0 {
				return
			}
			t.set(i, addr, 0, d.Now())
		} else if t.countOf(i) > 0 && t.age(i, d.Now()) < deadDebounce {
			recorded = true
			return
		}
		t.set(i, addr, min(t.countOf(i)+1, deadMax), d.Now())
		recorded = t.save(i) == nil
	})
	return recorded
}

// Answered forgets addr: it accepted or refused a connection, so it lives.
func (d *DeadHosts) Answered(ctx context.Context, addr netip.Addr) {
	d.with(ctx, addr, true, func(t *deadTable) {
		if i := t.find(addr); i >= 0 && t.countOf(i) > 0 {
			d.Memory.unrecorded(addr)
			t.record(i)[t.layout.count] = 0
			_ = t.save(i)
		}
	})
}

// with calls use with the table for addr, locked.
func (d *DeadHosts) with(ctx context.Context, addr netip.Addr, write bool, use func(*deadTable)) {
	l := layoutOf(addr)
	if d.stuck.Load() || write && d.ReadOnly {
		return
	}
	path := filepath.Join(d.Folder, l.name)
	// qmail opens for writing even to look: lockf(3), where it stands in for
	// flock(2), asks for that.
	f, _, err := regular.Open(path, os.O_RDWR, 0)
	switch {
	case err == nil:
	case errors.Is(err, os.ErrNotExist) && l.create && write:
		if f, _, err = regular.Open(path, os.O_RDWR|os.O_CREATE, 0o644); err != nil {
			return
		}
	case errors.Is(err, os.ErrNotExist) || write:
		return
	default:
		if f, _, err = regular.Open(path, os.O_RDONLY, 0); err != nil {
			return
		}
	}
	defer f.Close()
	if !lock(ctx, f) {
		if ctx.Err() == nil {
			d.stuck.Store(true)
		}
		return
	}
	t := deadTable{layout: l, file: f, bytes: make([]byte, deadRecords*l.size)}
	n, err := io.ReadFull(f, t.bytes)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return
	}
	if n == 0 && l.create && write {
		// A new table: it is as large as it will ever be.
		if _, err := f.WriteAt(t.bytes, 0); err != nil {
			return
		}
		n = len(t.bytes)
	}
	t.bytes = t.bytes[:n/l.size*l.size]
	use(&t)
}

// lock locks f. It is false for one that stays locked, and when ctx ends before.
func lock(ctx context.Context, f *os.File) bool {
	for range deadLockTries {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return true
		}
		if err != unix.EWOULDBLOCK && err != unix.EINTR {
			return false
		}
		select {
		case <-time.After(deadLockPause):
		case <-ctx.Done():
			return false
		}
	}
	return false
}

// A deadTable is the table while it is locked.
type deadTable struct {
	layout layout
	file   *os.File
	bytes  []byte // whole records
}

func (t *deadTable) record(i int) []byte {
	return t.bytes[i*t.layout.size : (i+1)*t.layout.size]
}

func (t *deadTable) countOf(i int) byte { return t.record(i)[t.layout.count] }

// age returns the seconds since record i was written. The arithmetic is that of
// the width of the field, so that a 4-byte time goes on working when it wraps in
// 2106; a time in the future is very old.
func (t *deadTable) age(i int, now time.Time) uint64 {
	r := t.record(i)[t.layout.when:]
	if t.layout.wide {
		return uint64(now.Unix()) - binary.LittleEndian.Uint64(r)
	}
	return uint64(uint32(now.Unix()) - binary.LittleEndian.Uint32(r))
}

func (t *deadTable) find(addr netip.Addr) int {
	want := addr.AsSlice()
	for i := range len(t.bytes) / t.layout.size {
		if string(t.record(i)[:len(want)]) == string(want) {
			return i
		}
	}
	return -1
}

// spare returns a record without a count, else the one that qmail gives up: the
// oldest, where each time-out makes a record younger by a good quarter of an hour.
// It is -1 if there are none.
func (t *deadTable) spare(now time.Time) int {
	oldest, greatest := -1, int64(0)
	for i := range len(t.bytes) / t.layout.size {
		if t.countOf(i) == 0 {
			return i
		}
		if age := int64(t.age(i, now)) - int64(t.countOf(i))<<10; oldest < 0 || age > greatest {
			oldest, greatest = i, age
		}
	}
	return oldest
}

func (t *deadTable) set(i int, addr netip.Addr, count byte, now time.Time) {
	r := t.record(i)
	copy(r, addr.AsSlice())
	r[t.layout.count] = count
	if t.layout.wide {
		binary.LittleEndian.PutUint64(r[t.layout.when:], uint64(now.Unix()))
	} else {
		binary.LittleEndian.PutUint32(r[t.layout.when:], uint32(now.Unix()))
	}
}

// isCleared reports whether record i, as find returns it, of an address that was counted is gone
// because somebody cleared it, or the table (qmail-tcpok(8)). In a table without a spare record
// it has made room for another one.
func (t *deadTable) isCleared(i int) bool {
	if i >= 0 {
		return t.countOf(i) == 0
	}
	for i := range len(t.bytes) / t.layout.size {
		if t.countOf(i) == 0 {
			return true
		}
	}
	return false
}

// save writes record i; if the write fails, the time-out is forgotten.
func (t *deadTable) save(i int) error {
	_, err := t.file.WriteAt(t.record(i), int64(i*t.layout.size))
	return err
}
