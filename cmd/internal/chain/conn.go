package chain

import (
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// A Conn is a net.Conn over two inherited descriptors. See [Open].
//
// Its methods return *net.OpError. After a deadline the error matches
// os.ErrDeadlineExceeded, after Close net.ErrClosed. One Read and one Write can run at
// a time; further ones wait for their turn.
type Conn struct {
	in, out half
}

// kind is what a descriptor can do without blocking.
type kind int

const (
	socket kind = iota // MSG_DONTWAIT
	fifo               // RWF_NOWAIT where the kernel has it, else poll(2) first
	other              // poll(2) first
)

type half struct {
	descriptor
	number int // the caller's number, for error texts
	kind   kind
	polls  bool // a fifo without RWF_NOWAIT: ask poll(2) first
	volume volume
}

// OpenInherited is Open for descriptors that the caller must have left open. Go's own
// descriptors can have the same numbers. Call it before [Seal].
func OpenInherited(rfd, wfd int) (*Conn, error) {
	for _, fd := range []int{rfd, wfd} {
		if err := Inherited(fd); err != nil {
			return nil, err
		}
	}
	return Open(rfd, wfd)
}

// Open returns a Conn that reads from rfd and writes to wfd, and owns both from then
// on. They can be one number, two numbers of one socket, two sockets, two pipes, or
// one of each. Files and terminals work as far as poll(2) works for them.
//
// Open does not change whether the descriptors block: that belongs to the open file,
// which other processes may hold. Each call on a socket says MSG_DONTWAIT, each call on
// a pipe RWF_NOWAIT. Without these, poll(2) is asked first, and no more is written at
// once than a writable pipe has room for; then a process that reads the same pipe at
// the same time can make a Read block.
//
// Errors: a descriptor that is not open.
func Open(rfd, wfd int) (*Conn, error) {
	c := new(Conn)
	c.in.number, c.out.number = rfd, wfd
	if rfd == wfd {
		second, err := unix.FcntlInt(uintptr(rfd), unix.F_DUPFD_CLOEXEC, FirstFree)
		if err != nil {
			return nil, notOpen(rfd, err)
		}
		wfd = second
	}
	if err := c.in.open(rfd); err != nil {
		return nil, err
	}
	if err := c.out.open(wfd); err != nil {
		return nil, err
	}
	return c, nil
}

func notOpen(fd int, err error) error {
	return Fail(ExitTemporary, "descriptor %d cannot be used: %w", fd, err)
}

func (h *half) open(fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return notOpen(h.number, err)
	}
	switch uint32(st.Mode) & unix.S_IFMT {
	case unix.S_IFSOCK:
		h.kind = socket
	case unix.S_IFIFO:
		h.kind = fifo
	default:
		h.kind = other
	}
	h.fd = fd
	return nil
}

// Read returns the bytes that have arrived, and waits if there are none. An orderly end
// is io.EOF.
func (c *Conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	h := &c.in
	h.use.Lock()
	defer h.use.Unlock()
	for {
		if err := h.check(); err != nil {
			return 0, h.fail("read", err)
		}
		n, err := h.readNow(p)
		switch {
		case err == nil && n == 0:
			return 0, io.EOF
		case err == nil:
			h.count(n)
			return n, nil
		case err == unix.EINTR:
			continue
		case err != unix.EAGAIN:
			return 0, h.fail("read", os.NewSyscallError("read", err))
		}
		if _, err := h.wait(unix.POLLIN); err != nil {
			return 0, h.fail("read", err)
		}
	}
}

// Write writes all of p. When it fails, n bytes were written.
func (c *Conn) Write(p []byte) (n int, err error) {
	h := &c.out
	h.use.Lock()
	defer h.use.Unlock()
	for n < len(p) {
		if err := h.check(); err != nil {
			return n, h.fail("write", err)
		}
		m, err := h.writeNow(p[n:])
		switch {
		case err == nil:
			n += m
			h.count(m)
			continue
		case err == unix.EINTR:
			continue
		case err != unix.EAGAIN:
			return n, h.fail("write", os.NewSyscallError("write", err))
		}
		if _, err := h.wait(unix.POLLOUT); err != nil {
			return n, h.fail("write", err)
		}
	}
	return n, nil
}

// readNow reads without blocking: unix.EAGAIN when nothing has arrived.
func (h *half) readNow(p []byte) (int, error) {
	switch h.kind {
	case socket:
		n, _, err := unix.Recvfrom(h.fd, p, unix.MSG_DONTWAIT)
		return n, err
	case fifo:
		if h.polls {
			break
		}
		n, err := readNoWait(h.fd, p)
		if !unsupported(err) {
			return n, err
		}
		h.polls = true
	}
	if err := h.ready(unix.POLLIN); err != nil {
		return 0, err
	}
	return unix.Read(h.fd, p)
}

// writeNow writes some of p without blocking: unix.EAGAIN when there is no room.
// Whatever poll(2) calls writable takes pipeRoom bytes.
func (h *half) writeNow(p []byte) (int, error) {
	switch h.kind {
	case socket:
		return unix.SendmsgN(h.fd, p, nil, nil, unix.MSG_DONTWAIT|noSignal)
	case fifo:
		if h.polls {
			break
		}
		n, err := writeNoWait(h.fd, p)
		if !unsupported(err) {
			return n, err
		}
		h.polls = true
	}
	if err := h.ready(unix.POLLOUT); err != nil {
		return 0, err
	}
	return unix.Write(h.fd, p[:min(len(p), pipeRoom)])
}

func (h *half) count(n int) {
	if h.kind == fifo {
		h.volume.add(n, &h.descriptor)
	}
}

// ready asks poll(2) and does not wait.
func (h *half) ready(events int16) error {
	got, err := now(h.fd, events)
	if err == nil && got == 0 {
		return unix.EAGAIN
	}
	return err
}

// now returns which of events have occurred on fd. A signal that is pending, such as one of Go's
// own, interrupts poll(2) even where it does not wait.
func now(fd int, events int16) (int16, error) {
	fds := [1]unix.PollFd{{Fd: int32(fd), Events: events}}
	for {
		if _, err := unix.Poll(fds[:], 0); err != unix.EINTR {
			return fds[0].Revents, err
		}
	}
}

func unsupported(err error) bool {
	switch err {
	case unix.EOPNOTSUPP, unix.ENOSYS, unix.EINVAL, unix.ESPIPE:
		return true
	}
	return false
}

// Readable reports, without waiting, whether Read would return at once.
func (c *Conn) Readable() bool {
	return c.in.with(func(int) error { return c.in.ready(unix.POLLIN) }) != unix.EAGAIN
}

// Close ends a Read and a Write that are waiting, and closes both descriptors. It does
// not shut a socket down: another process may go on with its copy.
func (c *Conn) Close() error {
	return c.in.opError("close", errors.Join(c.in.close(), ignoreClosed(c.out.close())))
}

// CloseWrite sends end of file to the peer: it shuts down the sending side of a socket
// and closes anything else. A Write that is waiting fails.
func (c *Conn) CloseWrite() error {
	h := &c.out
	if h.kind != socket {
		return h.opError("close", h.close())
	}
	err := h.with(func(fd int) error {
		return os.NewSyscallError("shutdown", unix.Shutdown(fd, unix.SHUT_WR))
	})
	h.interrupt()
	return h.opError("close", err)
}

// Shutdown ends both directions of a socket, also for other processes that hold it. On
// anything else it does nothing. It closes no descriptor.
func (c *Conn) Shutdown() error {
	var failed error
	for _, h := range []*half{&c.in, &c.out} {
		if h.kind != socket {
			continue
		}
		err := h.with(func(fd int) error { return unix.Shutdown(fd, unix.SHUT_RDWR) })
		// If both are one socket, it is shut down already the second time.
		if err != nil && err != unix.ENOTCONN && !errors.Is(err, net.ErrClosed) {
			failed = os.NewSyscallError("shutdown", err)
		}
		h.interrupt()
	}
	return c.in.opError("close", failed)
}

// NoDelay makes a TCP socket send small segments at once (TCP_NODELAY). On anything
// else it does nothing.
func (c *Conn) NoDelay() {
	if c.out.kind == socket {
		_ = c.out.with(func(fd int) error {
			return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
		})
	}
}

// SetDeadline sets both deadlines. They also end calls that are waiting.
func (c *Conn) SetDeadline(t time.Time) error {
	return c.in.opError("set", errors.Join(c.in.setDeadline(t), ignoreClosed(c.out.setDeadline(t))))
}

// SetReadDeadline sets the deadline of Read; the zero time means none.
func (c *Conn) SetReadDeadline(t time.Time) error {
	return c.in.opError("set", c.in.setDeadline(t))
}

// SetWriteDeadline sets the deadline of Write; the zero time means none.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	return c.out.opError("set", c.out.setDeadline(t))
}

// ignoreClosed is for what CloseWrite may have closed before.
func ignoreClosed(err error) error {
	if err == net.ErrClosed {
		return nil
	}
	return err
}

// LocalAddr returns the numbers of the descriptors.
func (c *Conn) LocalAddr() net.Addr {
	return addr(strconv.Itoa(c.in.number) + "," + strconv.Itoa(c.out.number))
}

// RemoteAddr returns the same as LocalAddr: only the environment names the peer.
func (c *Conn) RemoteAddr() net.Addr { return c.LocalAddr() }

type addr string

func (addr) Network() string  { return "descriptors" }
func (a addr) String() string { return string(a) }

func (h *half) fail(op string, err error) error {
	return &net.OpError{Op: op, Net: "descriptor", Addr: addr(strconv.Itoa(h.number)), Err: err}
}

func (h *half) opError(op string, err error) error {
	if err == nil {
		return nil
	}
	return h.fail(op, err)
}
