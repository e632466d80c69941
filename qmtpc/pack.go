package qmtpc

import (
	"bufio"
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
	message *message
	tail    []byte // the end of the message, the sender, the recipients
	written atomic.Int64
	ending  func()          // is called before the write that would complete it; may be nil
	over    <-chan struct{} // after it was closed that write is not begun; may be nil
}

func newPack(mail *Mail) *pack {
	p := &pack{message: mail.message, ending: mail.OnLastByte}
	p.head = strconv.AppendInt(p.head, p.message.size+1, 10)
	p.head = append(p.head, ":\n"...)

	inner := 0
	for _, r := range mail.Recipients {
		inner += netstringLen(len(r))
	}
	p.tail = make([]byte, 0, len(",")+netstringLen(len(mail.Sender))+netstringLen(inner))
	p.tail = append(p.tail, ',')
	p.tail = appendNetstring(p.tail, mail.Sender)
	p.tail = strconv.AppendInt(p.tail, int64(inner), 10)
	p.tail = append(p.tail, ':')
	for _, r := range mail.Recipients {
		p.tail = appendNetstring(p.tail, r)
	}
	p.tail = append(p.tail, ',')
	return p
}

// size is the length of the whole package in bytes.
func (p *pack) size() int64 {
	return int64(len(p.head)) + p.message.size + int64(len(p.tail))
}

// begun reports whether a byte may have left; sent, whether the last one may have.
func (p *pack) begun() bool { return p.written.Load() > 0 }
func (p *pack) sent() bool  { return p.written.Load() == p.size() }

// writeTo writes the package. The error is a *MessageError when the message could not
// be read or is not as long as announced. Then the package is left unfinished, and no
// server can take it for a whole one. Otherwise the error is w's.
func (p *pack) writeTo(w io.Writer) error {
	if _, err := p.message.text.Seek(p.message.start, io.SeekStart); err != nil {
		return &MessageError{err}
	}
	out := bufio.NewWriterSize(&tally{w, p}, int(min(p.size(), writeSize)))
	if _, err := out.Write(p.head); err != nil {
		return err
	}
	in := &marked{p.message.text}
	n, err := p.carry(w, out, in)
	switch {
	case err == nil && n < p.message.size, err == io.EOF:
		return p.changed(n)
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
// without passing through this process, in bytes. A shorter one leaves in one write
// with the rest of its package.
const directSize = 1 << 20

// carry writes the message, and returns how much of it was there.
func (p *pack) carry(w io.Writer, out *bufio.Writer, in io.Reader) (int64, error) {
	file, isFile := p.message.text.(*os.File)
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

// atEnd returns an error if the message does not end where it was announced to end.
// One that is longer has been written to since. Half of it must not be delivered.
func (p *pack) atEnd(in io.Reader) error {
	n, err := io.ReadFull(in, make([]byte, 1))
	if n > 0 {
		return &MessageError{fmt.Errorf("%w: more than the %d bytes that were announced are there", ErrChanged, p.message.size)}
	}
	if err != io.EOF {
		return err
	}
	if p.message.now == nil {
		return nil
	}
	switch size, err := p.message.now(); {
	case err != nil:
		return &MessageError{err}
	case size != p.message.size:
		return p.changed(size)
	}
	return nil
}

// changed is the error for a message that has another length now.
func (p *pack) changed(there int64) error {
	return &MessageError{fmt.Errorf("%w: %d bytes were announced, %d are there", ErrChanged, p.message.size, there)}
}

// A tally counts what a connection has taken of a pack, in a failed write too. It knows the
// write that brings the pack's last byte: the tail, of which that is a part, comes through here.
type tally struct {
	w    io.Writer
	pack *pack
}

func (t *tally) Write(p []byte) (int, error) {
	if t.pack.written.Load()+int64(len(p)) >= t.pack.size() {
		if t.pack.ending != nil {
			t.pack.ending()
		}
		select {
		case <-t.pack.over: // the connection may not have heard of it yet
			return 0, os.ErrDeadlineExceeded
		default:
		}
	}
	n, err := t.w.Write(p)
	t.pack.written.Add(int64(n))
	return n, err
}
