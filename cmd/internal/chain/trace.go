package chain

import (
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// OpenTrace returns the function that appends a line to the file that
// $MXF_TRACE names, or nil when it is unset, cannot be opened, or is no file to write
// to, see traceFile. Each line gets a time stamp (UTC, microseconds) and the process id
// and is one write(2), so that processes can share the file; a text of several lines is
// several lines, written at once. What cannot be written is dropped in silence. The
// function may be called by several goroutines.
func OpenTrace() func(line string) {
	name := os.Getenv("MXF_TRACE")
	if name == "" {
		return nil
	}
	fd := traceFile(name)
	if fd < 0 {
		return nil
	}
	// A file that may not grow further must not end the program.
	signal.Ignore(syscall.SIGXFSZ)
	pid := strconv.Itoa(os.Getpid())
	return func(text string) {
		stamp := time.Now().UTC().Format("2006-01-02T15:04:05.000000Z") + " " + pid + " "
		var out strings.Builder
		for line := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n") {
			out.WriteString(stamp + oneLine(line) + "\n")
		}
		_, _ = syscall.Write(fd, []byte(out.String()))
	}
}

// traceFile opens or makes the file name, or returns -1. It must be a regular file: a
// FIFO or a terminal can hold a delivery up. It must not be one of the standard
// descriptors' files, in which reports and the message are.
func traceFile(name string) int {
	var is syscall.Stat_t
	if syscall.Stat(name, &is) == nil && is.Mode&syscall.S_IFMT != syscall.S_IFREG {
		return -1 // not even opened: some devices do something then
	}
	const flags = syscall.O_WRONLY | syscall.O_APPEND | syscall.O_CREAT |
		syscall.O_CLOEXEC | syscall.O_NONBLOCK | syscall.O_NOCTTY
	fd, err := syscall.Open(name, flags, 0o600)
	if err != nil {
		return -1
	}
	err = syscall.Fstat(fd, &is)
	usable := err == nil && is.Mode&syscall.S_IFMT == syscall.S_IFREG
	for standard := range FirstFree {
		var other syscall.Stat_t
		if syscall.Fstat(standard, &other) == nil && other.Dev == is.Dev && other.Ino == is.Ino {
			usable = false
		}
	}
	if !usable {
		_ = syscall.Close(fd)
		return -1
	}
	return fd
}
