package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"nightmare.mail/mxf/control/stamp"
	"nightmare.mail/mxf/qmtpc/spool"
	"nightmare.mail/mxf/remote/dial"
	"nightmare.mail/mxf/remote/report"
)

// ahead is how much of an unseekable message is read before anybody has asked
// for it, and so can be given to the next exchanger when the first took none.
const ahead = 32 << 10

// A Message is the message on descriptor 0. A file is read by whoever holds the
// descriptor and set back to its offset between attempts. Anything else is a pipe, a
// device in which one can seem to seek too: it is read here and passed on, so that it is
// known whether a byte of it is gone. Where the message is looked at before it is sent, a
// pipe is copied to a temporary file, which then takes its place.
type Message struct {
	file   *os.File
	start  int64 // offset at which the message begins
	isPipe bool
	fields []byte      // signatures that go before what is in file; shared, perhaps
	copies []*os.File  // temporary files; the last one is file
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

// Text returns the message from its beginning, to be looked at before the first attempt. A
// pipe is copied first, but no longer than ctx allows. The error is a *report.Error where
// the message cannot be read, the cause of ctx, or one of the copy. Reading changes no offset.
func (m *Message) Text(ctx context.Context) (io.ReaderAt, error) {
	if m.isPipe {
		file, err := spool.Until(ctx, m.spool, func(f *os.File) { f.Close() })
		if err != nil {
			return nil, err
		}
		m.replace(file)
	}
	return io.NewSectionReader(m.file, m.start, math.MaxInt64-m.start), nil
}

// spool copies a pipe to a file.
func (m *Message) spool() (file *os.File, err error) {
	defer func() {
		if recover() != nil {
			err = errors.New("panic while copying the message")
		}
	}()
	var broken error // of the pipe
	file, _, err = spool.File(readerFunc(func(b []byte) (int, error) {
		n, err := m.file.Read(b)
		if err != nil && err != io.EOF {
			broken = err
		}
		return n, err
	}), spool.Limit)
	switch {
	case broken != nil:
		return nil, unreadable(broken)
	case errors.Is(err, spool.ErrLong):
		return nil, unreadable(fmt.Errorf("it is not a file, and longer than the %d bytes that are spooled", spool.Limit))
	case err != nil:
		return nil, fmt.Errorf("copying the message: %w", err)
	}
	return file, nil
}

// unreadable is the error of a message that cannot be read.
func unreadable(err error) error {
	return &report.Error{Case: report.Unreadable, Facts: report.Facts{Reason: dial.Reason(err).Error()}, Err: err}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

// replace puts a copy in the place of the message's file.
func (m *Message) replace(file *os.File) {
	m.file, m.start, m.isPipe = file, 0, false
	m.copies = append(m.copies, file)
}

// Stamp is that of the file that is the message. It is the zero Stamp where the message is a
// copy, comes from a pipe, or does not begin where the file does.
func (m *Message) Stamp() stamp.Stamp {
	if m.isPipe || m.start != 0 || len(m.copies) > 0 {
		return stamp.Stamp{}
	}
	info, err := m.file.Stat()
	if err != nil {
		return stamp.Stamp{}
	}
	return stamp.OfRegular(info)
}

// Prepend has all attempts send fields before the message, which nobody may change. Text must
// have been called.
func (m *Message) Prepend(fields []byte) { m.fields = fields }

// Close gives up the copies that were made. The descriptor that the message came from stays open.
func (m *Message) Close() {
	for _, file := range m.copies {
		file.Close()
	}
}

// Rewind makes the message ready for another attempt. It fails when what was consumed cannot
// be read again. A probe has no message, and nothing to set back.
func (m *Message) Rewind() error {
	if m == nil {
		return nil
	}
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
	switch {
	case m.isPipe:
		return (*pipeReader)(m)
	case len(m.fields) > 0:
		return &signedReader{fields: m.fields, file: m.file, start: m.start}
	}
	return m.file
}

// A signedReader reads a file from an offset on, and some fields before. It looks like a
// regular file of that content.
type signedReader struct {
	fields []byte
	file   *os.File
	start  int64 // offset in file at which the message begins
	offset int64 // of the next byte, from the first of fields
}

func (s *signedReader) Read(b []byte) (int, error) {
	if s.offset < int64(len(s.fields)) {
		n := copy(b, s.fields[s.offset:])
		s.offset += int64(n)
		return n, nil
	}
	n, err := s.file.ReadAt(b, s.start+s.offset-int64(len(s.fields)))
	s.offset += int64(n)
	if n > 0 {
		err = nil
	}
	return n, err
}

func (s *signedReader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += s.offset
	case io.SeekEnd:
		info, err := s.Stat()
		if err != nil {
			return 0, err
		}
		offset += info.Size()
	}
	if offset < 0 {
		return 0, fs.ErrInvalid
	}
	s.offset = offset
	return offset, nil
}

// Stat says how long the message is by now, with its fields.
func (s *signedReader) Stat() (fs.FileInfo, error) {
	info, err := s.file.Stat()
	if err != nil {
		return nil, err
	}
	return signedInfo{info, int64(len(s.fields)) + max(info.Size()-s.start, 0)}, nil
}

type signedInfo struct {
	fs.FileInfo
	size int64
}

func (i signedInfo) Size() int64 { return i.size }

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
// then waits for more, for it must not take that for the end. A signed message is copied to a
// file the first time.
func (m *Message) descriptor(broken func(error)) (f *os.File, done func(), err error) {
	if len(m.fields) > 0 {
		if err := m.copySigned(); err != nil {
			return nil, nil, fmt.Errorf("copying the signed message: %w", err)
		}
	}
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

// copySigned puts a file with fields and message, at its beginning, in the place of the
// message's.
func (m *Message) copySigned() error {
	file, err := spool.Create()
	if err != nil {
		return err
	}
	_, err = file.Write(m.fields)
	if err == nil {
		_, err = m.file.Seek(m.start, io.SeekStart)
	}
	if err == nil {
		_, err = io.Copy(file, m.file) // by the kernel, where it can
	}
	if err == nil {
		_, err = file.Seek(0, io.SeekStart)
	}
	if err != nil {
		file.Close()
		return err
	}
	m.replace(file)
	m.fields = nil
	return nil
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
