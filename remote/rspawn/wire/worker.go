package wire

import (
	"bufio"
	"io"
	"net"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// readSize is how much is read at once, in bytes.
	readSize = 1 << 16
	// rightsAtOnce is the room for descriptors in one read. Linux hands out those of one
	// frame at a time; others may hand out more.
	rightsAtOnce = 64
	// maxPending bounds the descriptors that came before their frame was read. A read has no
	// more frames of deliveries than this: the shortest has 29 bytes.
	maxPending = readSize / 29
)

// A Worker is the worker's end. One goroutine may read; any number may write.
type Worker struct {
	out outlet
	in  *bufio.Reader
	src *source
}

// NewWorker returns the worker's end of conn, which it takes over.
func NewWorker(conn *net.UnixConn) (*Worker, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	src := &source{raw: raw}
	return &Worker{out: outlet{conn: conn}, in: bufio.NewReaderSize(src, readSize), src: src}, nil
}

// Inherited returns the worker's end on descriptor fd, which it takes over. No program that
// is started later gets it.
func Inherited(fd int) (*Worker, error) {
	syscall.CloseOnExec(fd)
	conn, err := unixConn(os.NewFile(uintptr(fd), "descriptor of the parent"))
	if err != nil {
		return nil, err
	}
	return NewWorker(conn)
}

// Close ends the connection.
func (w *Worker) Close() error { return w.out.conn.Close() }

// Send sends messages, in one piece and after all that was sent before. When it returns,
// they are in the kernel: the parent reads them even if this process is killed. Messages of
// several callers go out together. After an error the parent is gone.
func (w *Worker) Send(messages ...Message) error {
	var b []byte
	for _, m := range messages {
		b = appendMessage(b, m)
	}
	if len(b) == 0 {
		return nil // no IDs
	}
	return w.out.send(b)
}

// Read returns what the parent says next. The error is io.EOF when the parent has closed
// its end or has ended.
func (w *Worker) Read() (Command, error) {
	kind, content, err := readFrame(w.in)
	if err != nil {
		w.src.drop()
		return nil, err
	}
	c, err := parseCommand(kind, content)
	if err != nil {
		w.src.drop()
		return nil, err
	}
	if d, ok := c.(*Delivery); ok {
		if d.Message = w.src.message(d.MessageID); d.Message == nil {
			w.src.drop()
			return nil, garbage("a delivery without its message")
		}
	}
	return c, nil
}

// A source reads the bytes of a socket, and keeps the descriptors that come with them.
type source struct {
	raw     syscall.RawConn
	pending []int
	rights  [rightsAtOnce * 24]byte // 24: CmsgSpace(4) where it is largest
}

// Read reads bytes. Descriptors are close-on-exec before any program can be started.
func (s *source) Read(p []byte) (n int, err error) {
	var rightsLen, flags int
	failed := s.raw.Read(func(fd uintptr) bool {
		syscall.ForkLock.RLock()
		defer syscall.ForkLock.RUnlock()
		for err = unix.EINTR; err == unix.EINTR; {
			n, rightsLen, flags, _, err = unix.Recvmsg(int(fd), p, s.rights[:], unix.MSG_DONTWAIT)
		}
		if err == unix.EAGAIN {
			return false
		}
		if err == nil {
			err = s.keep(s.rights[:rightsLen])
		}
		return true
	})
	switch {
	case failed != nil:
		return 0, failed
	case err != nil:
		return 0, os.NewSyscallError("recvmsg", err)
	case flags&unix.MSG_CTRUNC != 0:
		return 0, garbage("more descriptors than there is room for")
	case len(s.pending) > maxPending:
		return 0, garbage("%d descriptors without frames", len(s.pending))
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

func (s *source) keep(rights []byte) error {
	messages, err := unix.ParseSocketControlMessage(rights)
	if err != nil {
		return err
	}
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			continue // of another kind
		}
		for _, fd := range fds {
			syscall.CloseOnExec(fd)
		}
		s.pending = append(s.pending, fds...)
	}
	return nil
}

// message returns the next descriptor as a file, or nil.
func (s *source) message(name string) *os.File {
	if len(s.pending) == 0 {
		return nil
	}
	fd := s.pending[0]
	s.pending = s.pending[1:]
	return os.NewFile(uintptr(fd), name)
}

// drop closes what was not asked for.
func (s *source) drop() {
	for _, fd := range s.pending {
		_ = unix.Close(fd)
	}
	s.pending = nil
}

// An outlet writes what several goroutines send. What comes while one of them writes is
// written by another in one piece.
type outlet struct {
	conn net.Conn

	mu      sync.Mutex
	next    *batch // what is written next, nil if nothing
	writing bool
	err     error // of a write: the parent is gone
}

type batch struct {
	bytes   []byte
	turn    chan struct{} // one of the batch's senders gets to write it
	written chan struct{} // closed
	err     error         // valid after written
}

// send writes b, or has it written.
func (o *outlet) send(b []byte) error {
	o.mu.Lock()
	if o.err != nil {
		defer o.mu.Unlock()
		return o.err
	}
	if o.next == nil {
		o.next = &batch{turn: make(chan struct{}, 1), written: make(chan struct{})}
	}
	mine := o.next
	mine.bytes = append(mine.bytes, b...)
	if !o.writing {
		o.writing = true
		mine.turn <- struct{}{}
	}
	o.mu.Unlock()
	select {
	case <-mine.written:
	case <-mine.turn:
		o.write(mine)
	}
	return mine.err
}

// write writes a batch, which gets no more bytes, and hands on the turn.
func (o *outlet) write(b *batch) {
	o.mu.Lock()
	o.next = nil
	err := o.err
	o.mu.Unlock()
	if err == nil {
		_, err = o.conn.Write(b.bytes)
	}
	b.err = err
	close(b.written)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.err = err
	if o.next != nil {
		o.next.turn <- struct{}{}
	} else {
		o.writing = false
	}
}
