package chain

import (
	"context"
	"os"
	"os/signal"
	"strconv"

	"golang.org/x/sys/unix"
)

const (
	// defaultColumns is the width if f is not a terminal.
	defaultColumns = 80
	// minColumns keeps the output legible if $COLUMNS is 1.
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

// UntilSignal returns a context that ends at the signals of endings, so that the program
// can clean up.
func UntilSignal() (context.Context, context.CancelFunc) {
	signals := endings()
	if len(signals) == 0 {
		return context.WithCancel(context.Background())
	}
	return signal.NotifyContext(context.Background(), signals...)
}

// IsTerminal reports whether f is a terminal on which lines can be rewritten and coloured: not
// one that $TERM calls dumb.
func IsTerminal(f *os.File) bool {
	_, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	return err == nil && os.Getenv("TERM") != "dumb"
}

// Colours reports whether words on f are to be in colour: it is a terminal, and nobody has set
// $NO_COLOR (no-color.org).
func Colours(f *os.File) bool { return IsTerminal(f) && os.Getenv("NO_COLOR") == "" }
