package regular

import (
	"io/fs"
	"syscall"
)

// A Version is one state of one file. Two that are equal are of the same content, unless the
// file was written twice within a tick of the file system's clock, or its inode was given to
// another file of the same size within one. The zero Version is of no file.
type Version struct {
	device, inode  uint64
	size, modified int64 // bytes; nanoseconds since 1970
}

// VersionOf returns the version of the file that info is of. It is the zero Version for
// anything but a regular file, and where the system does not say which file it is.
func VersionOf(info fs.FileInfo) Version {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.Mode().IsRegular() {
		return Version{}
	}
	return Version{uint64(stat.Dev), uint64(stat.Ino), info.Size(), info.ModTime().UnixNano()}
}
