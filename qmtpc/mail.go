package qmtpc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"nightmare.mail/mxf/qmtpc/spool"
)

// spoolInMemory bounds what is kept in memory of a message whose size cannot be
// known beforehand, in bytes: most mail fits, and a hundred deliveries at a time
// do not fill a machine.
const spoolInMemory = 1 << 20

// A Mail is a message with its sender and its recipients, ready to be sent. It can be
// sent to one server after another, from the beginning each time, but not to two at
// once.
type Mail struct {
	Sender     string   // envelope sender, may be empty
	Recipients []string // at least one; sent as they are
	// OnLastByte is called once for each Send that comes so far, before the write begins that
	// may bring the last byte of the package to the server; that write waits for it, and is
	// not begun if the context has ended when it returns. A
	// goroutine of Send calls it. A panic in it ends the conversation as an error of ours, and
	// the write is not made. May be nil.
	OnLastByte func()
	message    *message
}

// Add adds a recipient behind the others: its answer is the next in the outcome. It is not to
// be called while the mail is being sent.
func (m *Mail) Add(recipient string) { m.Recipients = append(m.Recipients, recipient) }

// Again returns a mail with the sender and the message of m to other recipients, at least one. It
// has no OnLastByte. Of mails with the same message one at a time may be sent, and none after the
// Close of any.
func (m *Mail) Again(recipients []string) *Mail {
	return &Mail{Sender: m.Sender, Recipients: recipients, message: m.message}
}

// Prepare finds the length of what is left of text, which QMTP sends before it: from
// the size of a regular file, by seeking, or else by spooling. Text has UNIX newlines.
// It belongs to the mail until Close.
//
// The error is a *MessageError when text cannot be read, the cause of ctx when that
// ended while a pipe was silent, and otherwise a failure of this machine, such as one to
// make room for the spool. The outcome is then Outcome{Err: err}. Trace gets a line
// about the error; it may be nil.
func Prepare(ctx context.Context, sender string, recipients []string, text io.Reader, trace func(line string)) (*Mail, error) {
	if len(recipients) == 0 {
		return nil, errors.New("a delivery without recipients")
	}
	m, err := measure(ctx, text)
	if err != nil {
		tracer(trace)("message: %v", err)
		return nil, err
	}
	return &Mail{Sender: sender, Recipients: recipients, message: m}, nil
}

// Close gives up what was spooled.
func (m *Mail) Close() { m.message.close() }

// A message is text whose length is known before its first byte is sent.
type message struct {
	text  io.ReadSeeker
	start int64                 // offset of the first byte
	size  int64                 // bytes
	now   func() (int64, error) // the size that it has by now; nil where it cannot change
	spool *os.File              // nil where there is none
}

func (m *message) close() {
	if m.spool != nil {
		m.spool.Close()
	}
}

// measure returns text as a message.
func measure(ctx context.Context, text io.Reader) (*message, error) {
	file, isFile := text.(interface{ Stat() (fs.FileInfo, error) })
	var info fs.FileInfo
	if isFile {
		var err error
		// In a device one can seem to seek.
		if info, err = file.Stat(); err != nil || !info.Mode().IsRegular() {
			return spoolUntil(ctx, text)
		}
	}
	seeker, seeks := text.(io.ReadSeeker)
	if !seeks {
		return spoolUntil(ctx, text)
	}
	start, err := seeker.Seek(0, io.SeekCurrent)
	if err != nil {
		return spoolUntil(ctx, text)
	}
	if isFile {
		m := &message{text: seeker, start: start, size: max(info.Size()-start, 0)}
		m.now = func() (int64, error) {
			info, err := file.Stat()
			if err != nil {
				return 0, err
			}
			return max(info.Size()-start, 0), nil
		}
		return m, nil
	}
	end, err := seeker.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, &MessageError{err}
	}
	return &message{text: seeker, start: start, size: max(end-start, 0)}, nil
}

// spoolUntil spools text, but no longer than ctx allows.
func spoolUntil(ctx context.Context, text io.Reader) (*message, error) {
	return spool.Until(ctx, func() (m *message, err error) {
		err = guard(func() (err error) {
			m, err = keep(text, spool.Limit)
			return err
		})
		return m, err
	}, (*message).close)
}

// keep reads text to its end, into memory or into a file. The error is a *MessageError also when
// text is longer than limit.
func keep(text io.Reader, limit int64) (*message, error) {
	text = &marked{text}
	var memory bytes.Buffer
	n, err := io.CopyN(&memory, text, spoolInMemory+1)
	if err != nil && err != io.EOF {
		return nil, err
	}
	if n <= spoolInMemory {
		return &message{text: bytes.NewReader(memory.Bytes()), size: n}, nil
	}
	file, size, err := spool.File(io.MultiReader(&memory, text), limit)
	if errors.Is(err, spool.ErrLong) {
		err = &MessageError{fmt.Errorf("it is not a file, and longer than the %d bytes that are spooled", limit)}
	}
	if err != nil {
		return nil, fmt.Errorf("spooling the message: %w", err)
	}
	return &message{text: file, size: size, spool: file}, nil
}

// A marked reader marks the errors of the text, so that they are not taken for those
// of the connection or of the spool.
type marked struct{ r io.Reader }

func (m *marked) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	if err != nil && err != io.EOF {
		err = &MessageError{err}
	}
	return n, err
}
