package smtpc

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
)

const (
	// blockSize is what is read of the message at a time. A message that fits
	// into one block is read once and kept.
	blockSize = 64 << 10
	// minBlock is the least that is set aside for a message that says it is
	// empty: its length may have been wrong.
	minBlock = 512
	// maxEmptyReads bounds the reads in a row that bring nothing.
	maxEmptyReads = 100
)

// What is wrong with a message to which somebody writes while it is being sent.
var (
	errShrunk    = errors.New("it became shorter while it was being sent")
	errGrown     = errors.New("it became longer while it was being sent")
	errTruncated = errors.New("it changed while it was being sent")
)

// A message is the text that is sent after DATA.
type message struct {
	reader io.Reader
	block  []byte // what reader is read into
	err    error  // what the last read from reader ended with
	held   bool   // all of the message is in block
	given  bool   // and next has returned it
	rewind bool   // reader stands anywhere, and has to go back to start first

	seeker   io.Seeker // reader, if it was looked through
	start    int64     // where it began
	end      int64     // where it ended then
	scanned  bool      // the following are known
	size     int64     // bytes with CR LF line ends, dots not stuffed (RFC 1870 section 5)
	eightBit bool
	partial  bool
}

// newMessage looks a message through if r can be rewound, and leaves r alone if not. The error
// is a *MessageError.
func newMessage(r io.Reader) (*message, error) {
	if r == nil {
		r = new(bytes.Reader)
	}
	m := &message{reader: r}
	seeker, ok := r.(io.Seeker)
	if !ok {
		return m, nil
	}
	start, err := seeker.Seek(0, io.SeekCurrent)
	if err != nil || !isRegular(r) {
		return m, nil
	}
	m.seeker, m.start = seeker, start
	if m.end, err = seeker.Seek(0, io.SeekEnd); err == nil {
		_, err = seeker.Seek(start, io.SeekStart)
	}
	if err == nil {
		err = m.scan(max(m.end-start, 0))
	}
	if err == nil && !m.held {
		_, err = seeker.Seek(start, io.SeekStart)
	}
	if err != nil {
		return nil, &MessageError{err}
	}
	return m, nil
}

// again returns the message as it was when it had been looked through, nil if it was not.
func (m *message) again() *message {
	if !m.scanned {
		return nil
	}
	again := *m
	again.given, again.err = false, nil
	if !m.held {
		again.block, again.rewind = nil, true
	}
	return &again
}

// scan reads the message to its end and keeps it if it fits into a block. Length is the size
// that the message is expected to have, in bytes.
func (m *message) scan(length int64) error {
	m.block = make([]byte, min(max(length+1, minBlock), blockSize))
	var c counter
	for first := true; ; first = false {
		n, err := io.ReadFull(m.reader, m.block)
		c.add(m.block[:n])
		switch {
		case err == io.EOF, err == io.ErrUnexpectedEOF:
			if first {
				m.held, m.block = true, m.block[:n]
			}
			m.scanned, m.size, m.eightBit = true, c.size, c.eightBit
			m.partial = c.any && c.last != '\n' && c.last != '\r'
			return nil
		case err != nil:
			return err
		case len(m.block) < blockSize:
			m.block = make([]byte, blockSize)
		}
	}
}

// next returns the next bytes of the message, valid until it is called again,
// and io.EOF after the last.
func (m *message) next() ([]byte, error) {
	if m.held {
		if m.given || len(m.block) == 0 {
			return nil, io.EOF
		}
		m.given = true
		return m.block, nil
	}
	if m.rewind {
		m.rewind = false
		if _, m.err = m.seeker.Seek(m.start, io.SeekStart); m.err != nil {
			return nil, m.err
		}
	}
	if m.block == nil {
		m.block = make([]byte, blockSize)
	}
	for range maxEmptyReads {
		if m.err != nil {
			return nil, m.err
		}
		var n int
		if n, m.err = m.reader.Read(m.block); n > 0 {
			return m.block[:n], nil
		}
	}
	return nil, io.ErrNoProgress
}

// isRegular reports whether r certainly has an end. A terminal and /dev/zero can be rewound, too.
func isRegular(r io.Reader) bool {
	file, ok := r.(interface{ Stat() (fs.FileInfo, error) })
	if !ok {
		return true
	}
	info, err := file.Stat()
	return err == nil && (info.Mode().IsRegular() || info.IsDir())
}

// verify is the error of a message that has changed since it was looked through, or that ends
// in a partial line. e has encoded it to its end.
func (m *message) verify(e *encoder) error {
	if m.scanned {
		end, err := m.seeker.Seek(0, io.SeekEnd)
		switch {
		case err != nil:
			return &MessageError{err}
		case e.size < m.size, end < m.end:
			return &MessageError{errShrunk}
		case e.size > m.size && e.bol, end > m.end:
			return &MessageError{errGrown}
		}
	}
	switch {
	case m.scanned && !e.bol:
		return &MessageError{errTruncated}
	case !e.bol:
		return ErrPartialLine
	}
	return nil
}

// A counter counts what the encoder would write.
type counter struct {
	size     int64
	eightBit bool
	any      bool
	last     byte
}

func (c *counter) add(b []byte) {
	if len(b) == 0 {
		return
	}
	lf, cr := bytes.Count(b, []byte{'\n'}), bytes.Count(b, []byte{'\r'})
	ends := lf + cr
	if cr > 0 {
		ends -= bytes.Count(b, []byte("\r\n"))
	}
	if c.last == '\r' && b[0] == '\n' {
		ends--
	}
	c.size += int64(len(b) - lf - cr + 2*ends)
	c.eightBit = c.eightBit || hasEightBit(b)
	c.any, c.last = true, b[len(b)-1]
}

func hasEightBit(b []byte) bool {
	const high = 0x8080808080808080
	for ; len(b) >= 8; b = b[8:] {
		if binary.NativeEndian.Uint64(b)&high != 0 {
			return true
		}
	}
	for _, c := range b {
		if c >= 0x80 {
			return true
		}
	}
	return false
}

// An encoder turns message text into lines for the wire: every LF, CR LF and bare CR becomes
// one CR LF, and then every line that begins with a dot gets another one (RFC 5321 sections
// 2.3.8 and 4.5.2). So no input can make an end of data. The text may be cut anywhere between
// two calls of append.
type encoder struct {
	bol  bool  // at the beginning of a line
	cr   bool  // the line end before was a CR, whose LF may follow
	size int64 // bytes returned so far, less the stuffed dots
}

func newEncoder() encoder { return encoder{bol: true} }

// append appends src in its wire form to dst. It grows by 2*len(src) at most.
func (e *encoder) append(dst, src []byte) []byte {
	before, stuffed := len(dst), 0
	if e.cr && len(src) > 0 {
		e.cr = false
		if src[0] == '\n' {
			src = src[1:]
		}
	}
	lf, cr := -1, -1
	for i := 0; i < len(src); {
		lf, cr = following(src, i, lf, '\n'), following(src, i, cr, '\r')
		end := min(lf, cr)
		if e.bol && src[i] == '.' {
			dst = append(dst, '.')
			stuffed++
		}
		dst = append(dst, src[i:end]...)
		if e.bol = end < len(src); !e.bol {
			break
		}
		dst = append(dst, '\r', '\n')
		i = end + 1
		if end == cr {
			if i == len(src) {
				e.cr = true
			} else if src[i] == '\n' {
				i++
			}
		}
	}
	e.size += int64(len(dst) - before - stuffed)
	return dst
}

// following returns the first position of c at or after i, or len(b). Found is what it returned
// before: it searches only when i has passed that, so that a block is searched once for
// each of its line ends.
func following(b []byte, i, found int, c byte) int {
	if found >= i {
		return found
	}
	if n := bytes.IndexByte(b[i:], c); n >= 0 {
		return i + n
	}
	return len(b)
}

// The sizes of what is written at a time.
const (
	// flightSize bounds the message bytes of one write, for the sake of memory.
	flightSize = 256 << 10
	// minFlight is the least room for message bytes.
	minFlight = 4 << 10
	// minPiece is the room under which a flight counts as full.
	minPiece = 1 << 10

	endOfData = ".\r\n"
)

// A flight is the message bytes of one write.
type flight struct{ buf []byte }

func newFlight(m *message) *flight {
	return &flight{buf: make([]byte, 0, int(flightRoom(m))+len(endOfData))}
}

// flightRoom is the room for message bytes that the flight of m has at least.
func flightRoom(m *message) int64 {
	if m.scanned {
		return min(flightSize, max(2*m.size, minFlight))
	}
	return flightSize
}

// room is how much more text fits in.
func (f *flight) room() int { return cap(f.buf) - len(endOfData) - len(f.buf) }

// take returns the text and empties the flight; the text is valid until the
// flight is used again.
func (f *flight) take() []byte {
	out := f.buf
	f.buf = f.buf[:0]
	return out
}
