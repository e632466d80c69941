// Package stamp finds out, without reading a file, that it has not changed.
//
// The system stamps a file with the time of each change, and moves the stamp in steps: two
// changes within a step have the same stamp. So a stamp proves something only when it is older
// than a step.
//
//	stat(2)                   device, inode, size, and the times of the last changes
//	inode(7)                  st_ctime: also for renames, rights and owners; nobody can set it
package stamp

import (
	"io/fs"
	"syscall"
	"time"
)

const (
	// fineStep is more than the steps of stamps that have parts of a second: a tick of the
	// kernel takes 10 ms at most, and FAT has steps of 10 ms for changes.
	fineStep = 100 * time.Millisecond
	// coarseStep is more than the steps of stamps of whole seconds: FAT has 2 s.
	coarseStep = 2100 * time.Millisecond
)

// A Stamp is what a file had when it was looked at. Two that are equal are of the same file,
// which has not changed between them if the first was [Stamp.Settled]. The zero Stamp is of no
// file.
type Stamp struct {
	device, inode, size uint64
	mode                uint32
	modified, changed   moment
}

// A moment is a time as the system has it.
type moment struct{ seconds, nanoseconds int64 }

// Of looks at what path leads to. The error is a syscall.Errno.
func Of(path string) (Stamp, error) {
	var s syscall.Stat_t
	if err := syscall.Stat(path, &s); err != nil {
		return Stamp{}, err
	}
	return of(&s), nil
}

// OfRegular returns the stamp of the file that info is of. It is the zero Stamp for anything but
// a regular file, and where the system does not say which file it is.
func OfRegular(info fs.FileInfo) Stamp {
	s, known := info.Sys().(*syscall.Stat_t)
	if !known || !info.Mode().IsRegular() {
		return Stamp{}
	}
	return of(s)
}

func of(s *syscall.Stat_t) Stamp {
	return Stamp{
		device: uint64(s.Dev), inode: uint64(s.Ino), size: uint64(s.Size), mode: uint32(s.Mode),
		modified: modified(s), changed: changed(s),
	}
}

// Settled reports whether a change after now, when the file was looked at or before that, gives
// the file another stamp. A stamp from the future is not settled.
func (s Stamp) Settled(now time.Time) bool {
	step := fineStep
	if s.changed.nanoseconds == 0 {
		step = coarseStep
	}
	return time.Unix(s.changed.seconds, s.changed.nanoseconds).Before(now.Add(-step))
}
