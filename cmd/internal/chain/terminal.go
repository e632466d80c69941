package chain

import (
	"context"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// defaultColumns is the width of what is no terminal.
	defaultColumns = 80
	// minColumns keeps lines apart where somebody's $COLUMNS is 0 or 1.
	minColumns = 40
)

// Columns returns how wide lines on f may be: $COLUMNS, or the width of the terminal,
// or 80.
func Columns(f *os.File) int {
	columns, err := strconv.Atoi(os.Getenv("COLUMNS"))
	if err != nil || columns <= 0 {
		columns = defaultColumns
		if size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil && size.Col > 0 {
			columns = int(size.Col)
		}
	}
	return max(columns, minColumns)
}

// UntilSignal returns a context that ends at the signals by which people and shells
// end a program, so that it can clean up. One that is ignored stays so: nohup(1).
func UntilSignal() (context.Context, context.CancelFunc) {
	var caught []os.Signal
	for _, s := range []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP} {
		if !signal.Ignored(s) {
			caught = append(caught, s)
		}
	}
	if len(caught) == 0 {
		return context.WithCancel(context.Background())
	}
	return signal.NotifyContext(context.Background(), caught...)
}
