package rspawn

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/control/regular"
	"nightmare.mail/mxf/remote/rspawn/dialect"
)

const (
	// spare descriptors are for what is no delivery.
	spare = 64
	// perDelivery is how many descriptors a delivery may need at a time.
	perDelivery = 4
	// lockTries and lockPause bound the wait for a table that somebody uses: the limit must
	// be out within 50 ms. A table is in use for microseconds.
	lockTries = 10
	lockPause = time.Millisecond
)

// A beginning is what is known before the first command.
type beginning struct {
	home  string // absolute
	spawn control.Spawn
	limit int    // deliveries at a time
	owner uint32 // of queue/mess
}

// start enters the folder of messages, reads what does not change, and empties the tables
// of dead hosts.
func start(home string) (*beginning, error) {
	home, err := filepath.Abs(home)
	if err != nil {
		return nil, err
	}
	if err := os.Chdir(filepath.Join(home, "queue", "mess")); err != nil {
		return nil, err
	}
	b := &beginning{home: home}
	if b.spawn, err = control.ReadSpawn(home); err != nil {
		return nil, err
	}
	var is syscall.Stat_t
	if err := syscall.Stat(".", &is); err != nil {
		return nil, err
	}
	b.owner = is.Uid
	b.limit = bounded(b.spawn.Limit, hardLimit())
	for name, size := range map[string]int{"tcpto": 1024, "tcpto6": 1792} {
		empty(filepath.Join("..", "lock", name), size)
	}
	return b, nil
}

// fault is why no delivery is begun, or nil.
func (b *beginning) fault() error {
	if b.spawn.LimitFault == nil {
		return nil
	}
	return dialect.Fault(fmt.Sprintf("Unable to read control files: %v. (#4.3.0)", b.spawn.LimitFault))
}

// slots is how many deliveries there are at most, by what qmail-send was told.
func (b *beginning) slots() int { return min(b.limit, b.spawn.Concurrency) }

// hardLimit returns how many open files a process may have at most.
func hardLimit() uint64 {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil {
		return 0
	}
	return uint64(r.Max) // an int64 on some systems, where infinity is its largest
}

// bounded returns how many deliveries there may be with so many open files.
func bounded(limit int, files uint64) int {
	if files < spare {
		return 1
	}
	return max(1, int(min(uint64(limit), (files-spare)/perDelivery)))
}

// empty fills a table of dead hosts with zero bytes, if it is there. One that stays locked
// is emptied nevertheless, as qmail-rspawn empties it without a lock.
func empty(path string, size int) {
	f, _, err := regular.Open(path, os.O_WRONLY, 0)
	if err != nil {
		return
	}
	defer f.Close()
	for range lockTries {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			break
		}
		time.Sleep(lockPause)
	}
	_, _ = f.WriteAt(make([]byte, size), 0)
}
