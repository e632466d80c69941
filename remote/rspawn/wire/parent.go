package wire

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// patience is how long a descriptor is offered to a kernel that has too many of this
	// user's on their way. The worker takes them at once, if it lives.
	patience = time.Minute
	// pause is the time between two offers.
	pause = 10 * time.Millisecond
)

// Pair makes a connected pair: the parent's end, and that of the worker, which is handed
// down. Both are close-on-exec.
func Pair() (parent *net.UnixConn, worker *os.File, err error) {
	fds, err := pair()
	if err != nil {
		return nil, nil, fmt.Errorf("unable to make a pair of sockets: %w", err)
	}
	worker = os.NewFile(uintptr(fds[1]), "worker")
	file := os.NewFile(uintptr(fds[0]), "parent")
	parent, err = unixConn(file)
	if err != nil {
		worker.Close()
		return nil, nil, err
	}
	return parent, worker, nil
}

func pair() (fds [2]int, err error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	fds, err = syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(fds[0])
		syscall.CloseOnExec(fds[1])
	}
	return fds, err
}

// unixConn makes a connection of a socket, which it takes over.
func unixConn(file *os.File) (*net.UnixConn, error) {
	conn, err := net.FileConn(file)
	file.Close()
	if err != nil {
		return nil, err
	}
	u, ok := conn.(*net.UnixConn)
	if !ok {
		conn.Close()
		return nil, fmt.Errorf("%s is no Unix socket", file.Name())
	}
	return u, nil
}

// A Parent is the parent's end. One goroutine may write and another one read.
type Parent struct {
	conn *net.UnixConn
	in   *bufio.Reader
}

// NewParent returns the parent's end of conn, which it takes over.
func NewParent(conn *net.UnixConn) *Parent { return &Parent{conn, bufio.NewReaderSize(conn, readSize)} }

// Close ends the connection, and with it calls that wait. The worker sees that.
func (p *Parent) Close() error { return p.conn.Close() }

// Order sends an order. It blocks while the worker does not read.
func (p *Parent) Order(o Order) error {
	_, err := p.conn.Write(o.append(nil))
	return err
}

// Deliver sends a delivery with a copy of the descriptor of its message, which stays the
// caller's and shares its offset with the copy. It blocks while the worker does not read.
// After an error the connection is of no more use.
func (p *Parent) Deliver(d *Delivery) error {
	raw, err := d.Message.SyscallConn()
	if err != nil {
		return err
	}
	b := d.append(nil)
	var sent error
	// The descriptor stays open until this returns, whoever closes the file.
	err = raw.Control(func(fd uintptr) {
		var n int
		if n, sent = p.offer(b, unix.UnixRights(int(fd))); sent == nil && n < len(b) {
			_, sent = p.conn.Write(b[n:])
		}
	})
	return errors.Join(err, sent)
}

// offer writes some of b, with rights.
func (p *Parent) offer(b, rights []byte) (n int, err error) {
	for range patience / pause {
		n, _, err = p.conn.WriteMsgUnix(b, rights, nil)
		if !errors.Is(err, unix.ETOOMANYREFS) && !errors.Is(err, unix.ENOBUFS) {
			break
		}
		time.Sleep(pause)
	}
	return n, err
}

// Read returns what the worker has said: at least one message, and all that came together.
// The error is io.EOF when the worker has closed its end. Messages that came before an error
// are returned with it.
func (p *Parent) Read() ([]Message, error) {
	var all []Message
	for {
		kind, content, err := readFrame(p.in)
		if err != nil {
			return all, err
		}
		m, err := parseMessage(kind, content)
		if err != nil {
			return all, err
		}
		if h, hello := m.(Hello); hello && h != Version {
			return all, garbage("version %d, want %d", h, Version)
		}
		if all = append(all, m); !p.whole() {
			return all, nil
		}
	}
}

// whole reports whether another whole frame has come already.
func (p *Parent) whole() bool {
	size, err := p.in.Peek(min(4, p.in.Buffered()))
	return err == nil && len(size) == 4 && p.in.Buffered()-4 >= int(min(binary.BigEndian.Uint32(size), maxFrame))
}
