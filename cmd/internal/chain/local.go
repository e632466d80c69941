package chain

import (
	"context"
	"errors"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// A Local is the tunnel's end of the two pipes to the program that speaks clear
// text: it reads what the program writes and writes what the program reads. The
// pipes' ends are the tunnel's alone, so they go through Go's own poller.
type Local struct {
	r, w *os.File
	// Bytes that have gone through, each counted by the one goroutine that reads or
	// writes.
	read, written volume
	// The same two open files once more, under their own numbers, for waiting
	// for what Go's poller does not tell.
	writers, reader descriptor
}

// OpenLocal takes over two descriptors that no other process shares: rfd, from
// which the program's bytes come, and wfd, to which its answers go. It makes them
// non-blocking.
//
// Errors: a descriptor that is not open, *os.SyscallError.
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

// Read reads what the program wrote; io.EOF when every copy of its writing end
// is closed.
func (l *Local) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	l.read.add(n, &l.writers)
	return n, err
}

// Write writes to the program; an error that matches EPIPE when nobody can read
// it any more.
func (l *Local) Write(p []byte) (int, error) {
	n, err := l.w.Write(p)
	l.written.add(n, &l.reader)
	return n, err
}

const (
	// muchData is when a pipe is worth being made larger: most mail is smaller. The
	// kernel limits what the pipes of one user hold together (pipe(7)), and hundreds
	// of deliveries share it.
	muchData = 4 << 20
	// largePipe is the most that Linux grants to everybody (pipe(7)): the fewer context
	// switches, the better.
	largePipe = 1 << 20
)

// A volume of data has a pipe made larger, once, when it is much.
type volume struct{ n int64 }

func (v *volume) add(n int, pipe *descriptor) {
	before := v.n
	v.n += int64(n)
	if before < muchData && v.n >= muchData {
		_ = pipe.with(func(fd int) error { growPipe(fd, largePipe); return nil })
	}
}

// CloseWrite has the program read end of file after what was written.
func (l *Local) CloseWrite() error {
	return errors.Join(ignoreClosed(l.reader.close()), l.w.Close())
}

// Close closes both pipes and wakes what is under way.
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

// ReaderGone blocks until no process can read what is written here, and returns
// nil, or until ctx ends, and returns its error. After CloseWrite there is
// nothing left to be told and it waits for ctx.
func (l *Local) ReaderGone(ctx context.Context) error {
	return l.reader.await(ctx, 0)
}

// Gone blocks until the program has closed both its ends and nothing that it
// wrote is left to be read: nobody is there for whom a handshake could be
// finished. Else as ReaderGone.
func (l *Local) Gone(ctx context.Context) error {
	if err := l.ReaderGone(ctx); err != nil {
		return err
	}
	if err := l.writers.await(ctx, 0); err != nil {
		return err
	}
	fds := [1]unix.PollFd{{Events: unix.POLLIN}}
	err := l.writers.with(func(fd int) error {
		fds[0].Fd = int32(fd)
		_, err := unix.Poll(fds[:], 0)
		return err
	})
	if err == nil && fds[0].Revents&unix.POLLIN == 0 {
		return nil
	}
	<-ctx.Done()
	return ctx.Err()
}

// await blocks until poll(2) reports an error or a hang-up, besides events.
func (d *descriptor) await(ctx context.Context, events int16) error {
	defer context.AfterFunc(ctx, d.interrupt)()
	for ctx.Err() == nil {
		d.use.Lock()
		got, err := d.wait(events)
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
