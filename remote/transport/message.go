package transport

import (
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// ahead is how much of an unseekable message is read before anybody has asked
// for it, and so can be given to the next exchanger when the first took none.
const ahead = 32 << 10

// A Message is the message on descriptor 0. A file is read by whoever holds the
// descriptor and set back to its offset between attempts. Anything else is a pipe, a
// device in which one can seem to seek too: it is read here and passed on, so that it is
// known whether a byte of it is gone.
type Message struct {
	file   *os.File
	start  int64 // offset at which the message begins
	isPipe bool
	gone   atomic.Bool // a byte of a pipe was, or may have been, consumed

	once   sync.Once
	chunks chan []byte // from the reader of the pipe; closed at its end
	held   []byte      // read and not yet consumed
	err    error       // why chunks was closed; set before it is
}

// NewMessage returns the message that begins at the present offset of file.
func NewMessage(file *os.File) *Message {
	m := &Message{file: file}
	start, err := file.Seek(0, io.SeekCurrent)
	info, unknown := file.Stat()
	m.start, m.isPipe = start, err != nil || unknown != nil || !info.Mode().IsRegular() && !info.IsDir()
	return m
}

// Rewind makes the message ready for another attempt. It fails when what was consumed cannot
// be read again.
func (m *Message) Rewind() error {
	if m.isPipe {
		if m.gone.Load() {
			return errors.New("the message comes from a pipe and has been read from")
		}
		return nil
	}
	_, err := m.file.Seek(m.start, io.SeekStart)
	return err
}

// reader returns the message for an attempt in this process.
func (m *Message) reader() io.Reader {
	if m.isPipe {
		return (*pipeReader)(m)
	}
	return m.file
}

type pipeReader Message

func (p *pipeReader) Read(b []byte) (int, error) {
	p.gone.Store(true)
	if len(p.held) > 0 {
		n := copy(b, p.held)
		p.held = p.held[n:]
		return n, nil
	}
	if p.chunks == nil {
		return p.file.Read(b)
	}
	chunk, ok := <-p.chunks
	if !ok {
		return 0, p.end()
	}
	n := copy(b, chunk)
	p.held = chunk[n:]
	return n, nil
}

// SetReadDeadline ends a Read that waits for the pipe, where the system lets it.
func (p *pipeReader) SetReadDeadline(t time.Time) error { return p.file.SetReadDeadline(t) }

func (p *pipeReader) end() error {
	if p.err != nil {
		return p.err
	}
	return io.EOF
}

// descriptor returns what a child gets as descriptor 0. done is called after the
// child has ended. broken is called when the message cannot be read to its end: the child
// then waits for more, for it must not take that for the end.
func (m *Message) descriptor(broken func(error)) (f *os.File, done func(), err error) {
	if !m.isPipe {
		return m.file, func() {}, nil
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	m.once.Do(func() {
		m.chunks = make(chan []byte)
		go m.read()
	})
	feed := &feed{Message: m, r: r, w: w, broken: broken, stop: make(chan struct{}), stopped: make(chan struct{})}
	go feed.run()
	return r, feed.done, nil
}

// A feed hands the message on to one child.
type feed struct {
	*Message
	r, w          *os.File
	broken        func(error)
	stop, stopped chan struct{}

	written []byte // all of it, as long as it can be less than a pipe holds
	total   int    // bytes
}

func (f *feed) run() {
	defer close(f.stopped)
	defer func() { _ = recover() }()
	defer f.w.Close()
	chunk := f.held
	for {
		if len(chunk) > 0 {
			n, err := f.w.Write(chunk)
			if f.total += n; f.total <= 2*ahead {
				f.written = append(f.written, chunk[:n]...)
			}
			if err != nil {
				f.held = chunk[n:]
				return
			}
		}
		var ok bool
		select {
		case chunk, ok = <-f.chunks:
			if f.held = nil; !ok {
				if f.err != nil {
					f.broken(f.err)
					<-f.stop // no end of file: the message did not end here
				}
				return
			}
		case <-f.stop:
			f.held = nil
			return
		}
	}
}

// done ends the feed. What the child has not read is held for the next one, if that is
// all that it was given.
func (f *feed) done() {
	close(f.stop)
	_ = f.w.SetWriteDeadline(time.Now())
	<-f.stopped
	unread := 0
	_ = unix.SetNonblock(int(f.r.Fd()), true) // somebody may still hold the other end
	rest(f.r, func(b []byte) { unread += len(b) })
	if unread == f.total && f.total == len(f.written) {
		f.held = append(f.written, f.held...)
	} else {
		f.gone.Store(true)
	}
	f.r.Close()
}

// read passes the pipe on chunk by chunk. It ends with the pipe, or with the
// process: a read of descriptor 0 cannot be called off.
func (m *Message) read() {
	defer close(m.chunks)
	defer func() {
		if recover() != nil {
			m.err = errors.New("panic while reading the message")
		}
	}()
	for {
		chunk := make([]byte, ahead)
		n, err := m.file.Read(chunk)
		if n > 0 {
			m.chunks <- chunk[:n]
		}
		if err != nil {
			if err != io.EOF {
				m.err = err
			}
			return
		}
	}
}
