package chain

import (
	"math"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A descriptor is one direction of an open file. A deadline, a close or an interruption
// ends a wait for it. Go's own poller would need O_NONBLOCK, which would change the file
// for other processes that hold it.
type descriptor struct {
	use sync.Mutex // held by the one call that uses the descriptor

	mu       sync.Mutex // guards what follows
	fd       int        // -1: closed
	closing  bool
	deadline time.Time
	waiting  bool   // somebody is in poll(2)
	kicked   bool   // the call that waits must look at the state again
	wake     [2]int // a pipe that ends poll(2); made when it is first needed
	wakeMade bool
}

// check returns why the descriptor must not be used any more, or nil.
func (d *descriptor) check() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.checkLocked()
}

func (d *descriptor) checkLocked() error {
	if d.closing || d.fd < 0 {
		return net.ErrClosed
	}
	if !d.deadline.IsZero() && !time.Now().Before(d.deadline) {
		return os.ErrDeadlineExceeded
	}
	return nil
}

// wait blocks until one of events, an error or a hang-up occurs, and returns what did, or
// 0 after an interruption. The caller holds d.use.
//
// Errors: net.ErrClosed, os.ErrDeadlineExceeded, *os.SyscallError.
func (d *descriptor) wait(events int16) (int16, error) {
	timeout, err := d.enter()
	if err != nil || timeout == 0 {
		return 0, err
	}
	fds := [2]unix.PollFd{
		{Fd: int32(d.fd), Events: events},
		{Fd: int32(d.wake[0]), Events: unix.POLLIN},
	}
	_, err = unix.Poll(fds[:], timeout)
	d.leave()
	if err != nil && err != unix.EINTR {
		return 0, os.NewSyscallError("poll", err)
	}
	return fds[0].Revents, d.check()
}

// enter prepares for poll(2) and returns its time limit; 0 means that the caller must not
// wait.
func (d *descriptor) enter() (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.checkLocked(); err != nil {
		return 0, err
	}
	if d.kicked {
		d.kicked = false
		return 0, nil
	}
	if !d.wakeMade {
		if err := pipe(&d.wake); err != nil {
			return 0, err
		}
		for _, fd := range d.wake {
			if err := unix.SetNonblock(fd, true); err != nil {
				return 0, os.NewSyscallError("fcntl", err)
			}
		}
		d.wakeMade = true
	}
	d.waiting = true
	if d.deadline.IsZero() {
		return -1, nil
	}
	// Rounded up: a poll that ends a moment early would be repeated again and again.
	ms := time.Until(d.deadline)/time.Millisecond + 1
	return int(min(max(ms, 1), math.MaxInt32)), nil
}

func (d *descriptor) leave() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.waiting, d.kicked = false, false
	var drain [16]byte
	for {
		if n, err := unix.Read(d.wake[0], drain[:]); err == unix.EINTR {
			continue
		} else if n < len(drain) {
			return
		}
	}
}

// kickLocked makes the call that waits, or else the next one that would, look at the state
// again.
func (d *descriptor) kickLocked() {
	d.kicked = true
	if d.waiting {
		// It can fail only if the pipe is full, which ends poll(2) as well.
		_, _ = unix.Write(d.wake[1], []byte{0})
	}
}

func (d *descriptor) interrupt() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.kickLocked()
}

func (d *descriptor) setDeadline(t time.Time) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closing {
		return net.ErrClosed
	}
	d.deadline = t
	d.kickLocked()
	return nil
}

// close ends the call that waits, and closes the descriptor when that has returned. Only
// the first close does anything.
func (d *descriptor) close() error {
	d.mu.Lock()
	if d.closing {
		d.mu.Unlock()
		return net.ErrClosed
	}
	d.closing = true
	d.kickLocked()
	d.mu.Unlock()

	d.use.Lock()
	defer d.use.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	fd := d.fd
	d.fd = -1
	if d.wakeMade {
		Close(d.wake[:]...)
		d.wakeMade = false
	}
	if fd < 0 {
		return nil
	}
	return os.NewSyscallError("close", unix.Close(fd))
}

// with calls f with the descriptor unless it is closed.
func (d *descriptor) with(f func(fd int) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fd < 0 || d.closing {
		return net.ErrClosed
	}
	return f(d.fd)
}

// pipe is pipe(2) with both ends close-on-exec. Not every Unix has pipe2.
func pipe(p *[2]int) error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := syscall.Pipe(p[:]); err != nil {
		return os.NewSyscallError("pipe", err)
	}
	syscall.CloseOnExec(p[0])
	syscall.CloseOnExec(p[1])
	return nil
}
