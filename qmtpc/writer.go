package qmtpc

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync/atomic"
)

// writeSize is the size of one write, in bytes: large enough that system calls
// do not count, small enough for hundreds of deliveries at a time.
const writeSize = 128 << 10

// A pack is one QMTP package on its way to the server.
type pack struct {
	head    []byte // the message's length, and the LF that says: UNIX newlines
	message *sized
	tail    []byte // the end of the message, the sender, the recipients
	written atomic.Int64
}

// A sourceError is a message that cannot be sent to its end, as against a
// connection that cannot.
type sourceError struct{ err error }

func (e *sourceError) Error() string { return e.err.Error() }
func (e *sourceError) Unwrap() error { return e.err }

func newPack(message *sized, sender string, recipients []string) *pack {
	p := &pack{message: message}
	p.head = strconv.AppendInt(p.head, message.size+1, 10)
	p.head = append(p.head, ":\n"...)

	inner := 0
	for _, r := range recipients {
		inner += netstringLen(len(r))
	}
	p.tail = make([]byte, 0, len(",")+netstringLen(len(sender))+netstringLen(inner))
	p.tail = append(p.tail, ',')
	p.tail = appendNetstring(p.tail, sender)
	p.tail = strconv.AppendInt(p.tail, int64(inner), 10)
	p.tail = append(p.tail, ':')
	for _, r := range recipients {
		p.tail = appendNetstring(p.tail, r)
	}
	p.tail = append(p.tail, ',')
	return p
}

// size is the length of the whole package in bytes.
func (p *pack) size() int64 {
	return int64(len(p.head)) + p.message.size + int64(len(p.tail))
}

// begun tells whether a byte has left; sent, whether the last one has.
func (p *pack) begun() bool { return p.written.Load() > 0 }
func (p *pack) sent() bool  { return p.written.Load() == p.size() }

// writeTo writes the package. The error is a *sourceError when the message could
// not be read or was not as long as announced: then the package is left
// unfinished, and no server can take it for a whole one. Otherwise it is w's.
func (p *pack) writeTo(w io.Writer) error {
	out := bufio.NewWriterSize(&tally{w, &p.written}, int(min(p.size(), writeSize)))
	if _, err := out.Write(p.head); err != nil {
		return err
	}
	in := &marked{r: p.message}
	n, err := p.carry(w, out, in)
	switch {
	case err == nil && n < p.message.size, err == io.EOF:
		return &sourceError{fmt.Errorf("it changed while it was sent: %d bytes were announced, %d are there", p.message.size, n)}
	case err != nil:
		return err
	}
	if err := p.atEnd(in); err != nil {
		return err
	}
	if _, err := out.Write(p.tail); err != nil {
		return err
	}
	return out.Flush()
}

// directSize is the length from which a message goes from its file to the socket
// without passing through here, in bytes. A shorter one leaves in one write with the
// rest of its package.
const directSize = 1 << 20

// carry writes the message, and returns how much of it was there.
func (p *pack) carry(w io.Writer, out *bufio.Writer, in io.Reader) (int64, error) {
	file, isFile := p.message.Reader.(*os.File)
	socket, takes := w.(io.ReaderFrom)
	if !isFile || !takes || p.message.size < directSize {
		return io.CopyN(out, in, p.message.size)
	}
	if err := out.Flush(); err != nil {
		return 0, err
	}
	n, err := socket.ReadFrom(io.LimitReader(file, p.message.size)) // sendfile(2), where there is one
	p.written.Add(n)
	return n, err
}

// atEnd says whether the message ends where it was announced to end. One that
// goes on has been written to since; half of it must not be delivered.
func (p *pack) atEnd(in io.Reader) error {
	n, err := io.ReadFull(in, make([]byte, 1))
	if n > 0 {
		return &sourceError{fmt.Errorf("it changed while it was sent: more than the %d bytes that were announced are there", p.message.size)}
	}
	if err != io.EOF {
		return err
	}
	if p.message.now == nil {
		return nil
	}
	switch size, err := p.message.now(); {
	case err != nil:
		return &sourceError{err}
	case size != p.message.size:
		return &sourceError{fmt.Errorf("it changed while it was sent: %d bytes were announced, %d are there", p.message.size, size)}
	}
	return nil
}

// marked reads a message and marks its errors as the message's.
type marked struct{ r io.Reader }

func (m *marked) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	if err != nil && err != io.EOF {
		err = &sourceError{err}
	}
	return n, err
}

// tally counts what a connection has taken, in a failed write too.
type tally struct {
	w io.Writer
	n *atomic.Int64
}

func (t *tally) Write(p []byte) (int, error) {
	n, err := t.w.Write(p)
	t.n.Add(int64(n))
	return n, err
}

// A panicError is a panic that was caught.
type panicError struct{ value any }

func (e *panicError) Error() string { return fmt.Sprintf("panic: %v", e.value) }

// guard calls f and returns a panic in it as an error.
func guard(f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &panicError{v}
		}
	}()
	return f()
}

// isSource tells whether err is the message's fault, or ours, and not the
// connection's.
func isSource(err error) bool {
	var s *sourceError
	var p *panicError
	return errors.As(err, &s) || errors.As(err, &p)
}
