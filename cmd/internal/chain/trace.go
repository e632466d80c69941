package chain

import (
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// OpenTrace returns a function that appends text to the file that $MXF_TRACE names. It
// returns nil if the variable is not set, or names a file that traceFile does not open.
// Each line of the text gets a time stamp (UTC, microseconds) and the process id. The text
// is one write(2), so that processes can share the file. A failed write is ignored.
// Several goroutines may call the function.
func OpenTrace() func(line string) {
	line, _ := TraceTo(os.Getenv("MXF_TRACE"), strconv.Itoa(os.Getpid()))
	return line
}

// TraceTo is OpenTrace for the file name, with who in place of the process id. done closes
// the file: line does nothing after it. Both are nil where nothing is traced.
func TraceTo(name, who string) (line func(line string), done func()) {
	if name == "" {
		return nil, nil
	}
	fd := traceFile(name)
	if fd < 0 {
		return nil, nil
	}
	// The limit on the size of a file must not end the program.
	signal.Ignore(syscall.SIGXFSZ)
	var mu sync.RWMutex // writing while it is closed could reach another file
	line = func(text string) {
		stamp := time.Now().UTC().Format("2006-01-02T15:04:05.000000Z") + " " + who + " "
		var out strings.Builder
		for line := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n") {
			out.WriteString(stamp + oneLine(line) + "\n")
		}
		mu.RLock()
		defer mu.RUnlock()
		if fd >= 0 {
			_, _ = syscall.Write(fd, []byte(out.String()))
		}
	}
	return line, func() {
		mu.Lock()
		defer mu.Unlock()
		if fd >= 0 {
			_ = syscall.Close(fd)
			fd = -1
		}
	}
}

// traceFile opens or creates the file name, or returns -1. It must be a regular file,
// because a FIFO or a terminal can block a delivery. It must not be the file of a standard
// descriptor, which has the reports or the message.
func traceFile(name string) int {
	var is syscall.Stat_t
	if syscall.Stat(name, &is) == nil && is.Mode&syscall.S_IFMT != syscall.S_IFREG {
		return -1 // before it is opened: that alone makes some devices act
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
