package chain

import (
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// OpenTrace returns the function that appends a line to the file that
// $MXF_TRACE names, or nil when it is unset or cannot be opened. Each line
// gets a time stamp (UTC, microseconds) and the process id and is one write(2),
// so that processes can share the file; a text of several lines is several
// lines, written at once. What cannot be written is dropped in silence, and a
// FIFO that nobody reads or that is full does not hold anything up. The function
// may be called by several goroutines.
func OpenTrace() func(line string) {
	name := os.Getenv("MXF_TRACE")
	if name == "" {
		return nil
	}
	const flags = syscall.O_WRONLY | syscall.O_APPEND | syscall.O_CREAT |
		syscall.O_CLOEXEC | syscall.O_NONBLOCK | syscall.O_NOCTTY
	fd, err := syscall.Open(name, flags, 0o600)
	if err != nil {
		return nil
	}
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
