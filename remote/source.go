package remote

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

// A source is the message on descriptor 0. A file is read by whoever holds the
// descriptor and set back to its offset between attempts. A pipe is read here
// and passed on, so that it is known whether a byte of it is gone.
type source struct {
	file   *os.File
	start  int64 // offset at which the message begins
	isPipe bool
	gone   atomic.Bool // a byte of a pipe was, or may have been, consumed

	once   sync.Once
	chunks chan []byte // from the reader of the pipe; closed at its end
	held   []byte      // read and not yet consumed
	err    error       // why chunks was closed; set before it is
}

func newSource(file *os.File) *source {
	s := &source{file: file}
	start, err := file.Seek(0, io.SeekCurrent)
	s.start, s.isPipe = start, err != nil
	return s
}

// rewind makes the source ready for another attempt. It fails when what was
// consumed cannot be had again.
func (s *source) rewind() error {
	if s.isPipe {
		if s.gone.Load() {
			return errors.New("the message comes from a pipe and has been read from")
		}
		return nil
	}
	_, err := s.file.Seek(s.start, io.SeekStart)
	return err
}

// reader returns the message for an attempt in this process.
func (s *source) reader() io.Reader {
	if s.isPipe {
		return (*pipeReader)(s)
	}
	return s.file
}

type pipeReader source

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

func (p *pipeReader) end() error {
	if p.err != nil {
		return p.err
	}
	return io.EOF
}

// descriptor returns what a child gets as descriptor 0. done is called after the
// child has ended.
func (s *source) descriptor() (f *os.File, done func(), err error) {
	if !s.isPipe {
		return s.file, func() {}, nil
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	s.once.Do(func() {
		s.chunks = make(chan []byte)
		go s.read()
	})
	stop, stopped := make(chan struct{}), make(chan struct{})
	var written []byte // all of it, as long as it can be less than a pipe holds
	total := 0
	go func() {
		defer close(stopped)
		defer func() { _ = recover() }()
		defer w.Close()
		chunk := s.held
		for {
			if len(chunk) > 0 {
				n, err := w.Write(chunk)
				if total += n; total <= 2*ahead {
					written = append(written, chunk[:n]...)
				}
				if err != nil {
					s.held = chunk[n:]
					return
				}
			}
			var ok bool
			select {
			case chunk, ok = <-s.chunks:
				if s.held = nil; !ok {
					if s.err != nil {
						<-stop // no end of file: the message did not end here
					}
					return
				}
			case <-stop:
				s.held = nil
				return
			}
		}
	}()
	return r, func() {
		close(stop)
		_ = w.SetWriteDeadline(time.Now())
		<-stopped
		unread, err := unix.IoctlGetInt(int(r.Fd()), fionread)
		if err == nil && unread == total && total == len(written) {
			s.held = append(written, s.held...)
		} else {
			s.gone.Store(true)
		}
		r.Close()
	}, nil
}

// read passes the pipe on chunk by chunk. It ends with the pipe, or with the
// process: a read of descriptor 0 cannot be called off.
func (s *source) read() {
	defer close(s.chunks)
	defer func() {
		if recover() != nil {
			s.err = errors.New("panic while reading the message")
		}
	}()
	for {
		chunk := make([]byte, ahead)
		n, err := s.file.Read(chunk)
		if n > 0 {
			s.chunks <- chunk[:n]
		}
		if err != nil {
			if err != io.EOF {
				s.err = err
			}
			return
		}
	}
}
