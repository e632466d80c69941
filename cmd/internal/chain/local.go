package chain

import (
	"context"
	"errors"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// A Local is the tunnel's end of the two pipes to the program that speaks clear text.
// It reads what the program writes, and writes what the program reads. No other process
// holds these ends, so Go's own poller can wait for them.
type Local struct {
	r, w *os.File
	// Each is counted by the one goroutine that reads or writes.
	read, written volume
	// Copies of r and w, to wait until nobody has the other end open: Go's poller does
	// not report that.
	writers, reader descriptor
}

// OpenLocal takes over two descriptors that no other process shares, and makes them
// non-blocking. From rfd come the program's bytes; what is written to wfd goes to it.
//
// Errors: a descriptor that is not open.
func OpenLocal(rfd, wfd int) (*Local, error) {
	l := new(Local)
	for fd, watch := range map[int]*descriptor{rfd: &l.writers, wfd: &l.reader} {
		if err := unix.SetNonblock(fd, true); err != nil {
			return nil, notOpen(fd, err)
		}
		second, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, FirstFree)
		if err != nil {
			return nil, notOpen(fd, err)
		}
		watch.fd = second
	}
	l.r = os.NewFile(uintptr(rfd), "from program")
	l.w = os.NewFile(uintptr(wfd), "to program")
	return l, nil
}

// Read reads what the program wrote. It returns io.EOF when every copy of the
// program's writing end is closed.
func (l *Local) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	l.read.add(n, &l.writers)
	return n, err
}

// Write writes to the program. Its error matches EPIPE when nobody can read that any
// more.
func (l *Local) Write(p []byte) (int, error) {
	n, err := l.w.Write(p)
	l.written.add(n, &l.reader)
	return n, err
}

const (
	// muchData is the volume, bytes, after which a pipe is enlarged. Most mail is
	// smaller. The kernel limits what the pipes of one user hold together (pipe(7)), and
	// hundreds of deliveries share that.
	muchData = 4 << 20
	// largePipe is the largest size that Linux allows to everybody (pipe(7)). A larger
	// pipe means fewer context switches.
	largePipe = 1 << 20
)

// A volume counts the bytes through a pipe, and enlarges it once, at muchData.
type volume struct{ n int64 }

func (v *volume) add(n int, pipe *descriptor) {
	before := v.n
	v.n += int64(n)
	if before < muchData && v.n >= muchData {
		_ = pipe.with(func(fd int) error { growPipe(fd, largePipe); return nil })
	}
}

// CloseWrite sends end of file to the program.
func (l *Local) CloseWrite() error {
	return errors.Join(ignoreClosed(l.reader.close()), l.w.Close())
}

// Close closes both pipes and ends calls that are waiting.
func (l *Local) Close() error {
	return errors.Join(
		ignoreClosed(l.writers.close()), ignoreClosed(l.reader.close()),
		fileClosed(l.r.Close()), fileClosed(l.w.Close()))
}

func fileClosed(err error) error {
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

// ReaderGone blocks until no process can read what is written here, and returns nil, or
// until ctx ends, and returns its error. After CloseWrite it waits for ctx alone.
func (l *Local) ReaderGone(ctx context.Context) error {
	return l.reader.awaitHangUp(ctx)
}

// Gone blocks until the program has closed both its ends and everything that it wrote
// has been read, and returns nil: then nobody needs the handshake any more. Otherwise
// it blocks until ctx ends, and returns its error.
func (l *Local) Gone(ctx context.Context) error {
	if err := l.ReaderGone(ctx); err != nil {
		return err
	}
	if err := l.writers.awaitHangUp(ctx); err != nil {
		return err
	}
	var got int16
	err := l.writers.with(func(fd int) (err error) {
		got, err = now(fd, unix.POLLIN)
		return err
	})
	if unread := got&unix.POLLIN != 0; err == nil && !unread {
		return nil
	}
	<-ctx.Done()
	return ctx.Err()
}

// awaitHangUp blocks until poll(2) reports an error or a hang-up.
func (d *descriptor) awaitHangUp(ctx context.Context) error {
	defer context.AfterFunc(ctx, d.interrupt)()
	for ctx.Err() == nil {
		d.use.Lock()
		got, err := d.wait(0) // poll(2) reports these two in any case
		d.use.Unlock()
		switch {
		case errors.Is(err, net.ErrClosed):
			<-ctx.Done()
		case err != nil:
			return err
		case got != 0:
			return nil
		}
	}
	return ctx.Err()
}
