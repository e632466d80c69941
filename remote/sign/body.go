package sign

import (
	"errors"
	"io"
	"math"
)

// blockSize is what is read of a body at a time, in bytes.
const blockSize = 32 << 10

// hashBody returns the hash of the body that begins at an offset of text.
func hashBody(text io.ReaderAt, offset int64) ([]byte, error) {
	h := newHash()
	body := canonicalBody{to: h, out: make([]byte, 0, 2*blockSize)}
	r := io.NewSectionReader(text, offset, math.MaxInt64-offset)
	block := make([]byte, blockSize)
	for {
		n, err := r.Read(block)
		body.add(block[:n])
		if errors.Is(err, io.EOF) {
			body.end()
			return h.Sum(nil), nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// A canonicalBody writes a body in its relaxed form (RFC 6376 section 3.4.4): each run of
// blanks is one space, none is left at the end of a line, and empty lines at the end are
// left out. What is held back, blanks and empty lines, is counted and not kept.
type canonicalBody struct {
	to    io.Writer
	out   []byte // not yet written
	any   bool   // the body is more than blanks and line ends
	ends  int64  // line ends that came, and nothing but blanks after them
	blank bool   // blanks came, and nothing after them
	cr    bool   // the line end before was a CR, whose LF may follow
}

// special has the bytes that are not copied.
var special = [256]bool{' ': true, '\t': true, '\r': true, '\n': true}

// add takes the next bytes, blockSize at most.
func (b *canonicalBody) add(src []byte) {
	for i := 0; i < len(src); {
		c := src[i]
		if !special[c] {
			start := i
			for i++; i < len(src) && !special[src[i]]; i++ {
			}
			b.text(src[start:i])
			continue
		}
		i++
		switch c {
		case ' ', '\t':
			b.blank, b.cr = true, false
		case '\n':
			if !b.cr {
				b.line()
			}
			b.cr = false
		case '\r':
			b.line()
			b.cr = true
		}
	}
	b.flush()
}

// text writes a run of bytes, and first what was held back.
func (b *canonicalBody) text(s []byte) {
	for ; b.ends > 0; b.ends-- {
		if len(b.out) > blockSize {
			b.flush()
		}
		b.out = append(b.out, '\r', '\n')
	}
	if len(b.out)+1+len(s) > cap(b.out) {
		b.flush()
	}
	if b.blank {
		b.out = append(b.out, ' ')
	}
	b.out = append(b.out, s...)
	b.any, b.blank, b.cr = true, false, false
}

// line ends a line.
func (b *canonicalBody) line() {
	b.ends++
	b.blank = false
}

// end ends the body. A last line without its end gets one.
func (b *canonicalBody) end() {
	if b.any {
		b.out = append(b.out, '\r', '\n')
	}
	b.flush()
}

func (b *canonicalBody) flush() {
	_, _ = b.to.Write(b.out) // a hash takes everything
	b.out = b.out[:0]
}
