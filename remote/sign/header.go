package sign

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"hash"
	"io"
	"math"
	"strings"

	"nightmare.mail/mxf/control/domain"
)

// The bounds of a header that is signed. No program that writes mail comes near them.
const (
	maxHeader = 1 << 20  // bytes, the empty line at its end not counted
	maxLine   = 64 << 10 // bytes without the line end
	maxNames  = 200      // in h=
)

const errManyNames = Unsigned("more than 200 names would stand in h=")

// An often is how often h= has a name beyond the fields that there are. Once more means that
// nobody can add a field (RFC 6376 section 8.15).
type often int

const (
	asIs    often = iota
	oneMore       // also where there is none
	ifThere       // once more where there is one
)

// signedFields lists the fields that are signed, in the order of h=.
var signedFields = []struct {
	name  string
	often often
}{
	{"From", oneMore}, {"To", oneMore}, {"Cc", oneMore}, {"Reply-To", oneMore}, {"Subject", oneMore},
	{"Date", ifThere}, {"Message-ID", ifThere}, {"Sender", ifThere}, {"MIME-Version", ifThere},
	{"Content-Type", ifThere}, {"Content-Transfer-Encoding", ifThere},
	{"In-Reply-To", asIs}, {"References", asIs}, {"Content-ID", asIs}, {"Content-Description", asIs},
	{"Resent-From", asIs}, {"Resent-Sender", asIs}, {"Resent-To", asIs}, {"Resent-Cc", asIs},
	{"Resent-Date", asIs}, {"Resent-Message-ID", asIs},
	{"List-Id", asIs}, {"List-Help", asIs}, {"List-Subscribe", asIs}, {"List-Unsubscribe", asIs},
	{"List-Unsubscribe-Post", asIs}, {"List-Post", asIs}, {"List-Owner", asIs}, {"List-Archive", asIs},
	{"Feedback-ID", asIs}, {"Autocrypt", asIs},
}

// fromField is the index of From in signedFields.
const fromField = 0

// A field is where the value of a field is that can be signed.
type field struct {
	kind       int   // index in signedFields
	start, end int64 // behind the colon; before the last line end
}

// A Header is what is known of a message whose header was read. The values of its fields are
// read again when they are needed: a header may be as large as the memory that all of this
// may take.
type Header struct {
	text    io.ReaderAt
	newline string // that of its first line
	fields  []field
	body    int64 // offset

	domain      domain.Domain // of From
	deliveredTo bool
	fromNetwork bool // the first field is that of qmail-queue, for mail from outside
}

// Read reads the header of the message that text has from offset 0 on. Text is read again
// by Sign, and must not change until then. The error is Unsigned for a header that does
// not allow a signature, and otherwise one of reading.
func Read(text io.ReaderAt) (*Header, error) {
	h := &Header{text: text, newline: "\n"}
	if err := h.read(); err != nil {
		return nil, err
	}
	if len(h.names()) > maxNames {
		return nil, errManyNames
	}
	return h, h.readFrom()
}

// From returns the domain that all mailboxes of From are in, in A-labels, or an address in
// brackets.
func (h *Header) From() string { return h.domain.String() }

// read finds the fields. A line that is neither a field nor part of one is passed over: a
// verifier that goes on at all has nothing to do with it.
func (h *Header) read() error {
	lines := lineReader{r: bufio.NewReaderSize(section(h.text, 0, math.MaxInt64), 8<<10)}
	first := true   // no field so far
	signed := false // the field that the line may go on with is one of fields
	for {
		start := lines.next
		line, end, err := lines.read()
		if start == 0 {
			h.setNewline(end)
		}
		if errors.Is(err, io.EOF) || err == nil && len(line) == 0 {
			h.body = lines.next
			return nil
		}
		if err != nil {
			return err
		}
		if lines.next > maxHeader {
			return Unsigned(fmt.Sprintf("the header has more than %d bytes", maxHeader))
		}
		if isBlank(line[0]) {
			if start == 0 {
				// It would go on with the signature.
				return Unsigned("the message begins with a blank")
			}
			if signed {
				h.fields[len(h.fields)-1].end = start + int64(len(line))
			}
			continue
		}
		name, colon := fieldName(line)
		signed = h.note(name, start+int64(colon)+1, start+int64(len(line)))
		if len(h.fields) > maxNames {
			return errManyNames
		}
		h.deliveredTo = h.deliveredTo || strings.EqualFold(name, "Delivered-To")
		if name != "" {
			h.fromNetwork = h.fromNetwork || first && invokedFromNetwork(line)
			first = false
		}
	}
}

func (h *Header) setNewline(end string) {
	if end == "\r\n" {
		h.newline = end
	}
}

// note notes where a field is, and reports whether a field of its name can be signed.
func (h *Header) note(name string, start, end int64) bool {
	for kind := range signedFields {
		if strings.EqualFold(signedFields[kind].name, name) {
			h.fields = append(h.fields, field{kind, start, end})
			return true
		}
	}
	return false
}

// fieldName returns the name of the field that begins on line, without blanks before the
// colon, and where the colon is. Of another line it returns an empty name.
func fieldName(line []byte) (name string, colon int) {
	colon = bytes.IndexByte(line, ':')
	if colon < 0 {
		return "", -1
	}
	text := bytes.TrimRight(line[:colon], " \t")
	for _, c := range text {
		if c <= ' ' || c > '~' {
			return "", colon
		}
	}
	return string(text), colon
}

// names returns the names for h=.
func (h *Header) names() []string {
	var names []string
	for kind, s := range signedFields {
		there := h.count(kind)
		n := there
		if s.often == oneMore || s.often == ifThere && there > 0 {
			n++
		}
		for range n {
			names = append(names, s.name)
		}
	}
	return names
}

func (h *Header) count(kind int) int {
	n := 0
	for _, f := range h.fields {
		if f.kind == kind {
			n++
		}
	}
	return n
}

// hashFields hashes the fields in the order of h=, those of one name from the bottom up
// (RFC 6376 section 5.4.2).
func (h *Header) hashFields() (hash.Cloner, error) {
	to := newHash()
	c := canonicalField{to: to, out: make([]byte, 0, 1<<10)}
	block := make([]byte, 4<<10)
	for kind, s := range signedFields {
		for i := len(h.fields) - 1; i >= 0; i-- {
			f := h.fields[i]
			if f.kind != kind {
				continue
			}
			c.name(s.name)
			if err := c.addFrom(h.text, f.start, f.end, block); err != nil {
				return nil, err
			}
			c.end()
		}
	}
	return to, nil
}

// A canonicalField writes fields in their relaxed form (RFC 6376 section 3.4.2): the name in
// lower case, each run of blanks one space, folded lines made one, no blanks around the colon
// and at the end.
type canonicalField struct {
	to    io.Writer
	out   []byte // not yet written
	any   bool   // something of the value was written
	blank bool   // blanks came, and nothing after them
}

// name begins a field.
func (c *canonicalField) name(name string) {
	c.any, c.blank = false, false
	c.out = append(append(c.out, strings.ToLower(name)...), ':')
}

// add takes the next bytes of the value. A line end is a blank: one follows, or it would be
// the end of the field.
func (c *canonicalField) add(value []byte) {
	for _, b := range value {
		if special[b] {
			c.blank = true
			continue
		}
		if c.blank && c.any {
			c.out = append(c.out, ' ')
		}
		c.out = append(c.out, b)
		c.any, c.blank = true, false
	}
	if len(c.out) > 8<<10 {
		c.flush()
	}
}

// addFrom adds what text has from start to end.
func (c *canonicalField) addFrom(text io.ReaderAt, start, end int64, block []byte) error {
	for start < end {
		n := min(int64(len(block)), end-start)
		read, err := text.ReadAt(block[:n], start)
		if int64(read) < n {
			if errors.Is(err, io.EOF) {
				err = errShrunk
			}
			return err
		}
		c.add(block[:n])
		start += n
	}
	return nil
}

var errShrunk = errors.New("the message became shorter while it was being signed")

// end ends a field.
func (c *canonicalField) end() {
	c.out = append(c.out, '\r', '\n')
	c.flush()
}

func (c *canonicalField) flush() {
	_, _ = c.to.Write(c.out) // a hash takes everything
	c.out = c.out[:0]
}

// A lineReader reads lines that end in LF, CR LF or a bare CR.
type lineReader struct {
	r    *bufio.Reader
	next int64 // offset of the next line
	line []byte
}

// read returns a line, valid until the next call, and what ends it: nothing, where the text
// ends. The error is io.EOF where there is no further line.
func (l *lineReader) read() (line []byte, end string, err error) {
	l.line = l.line[:0]
	for {
		c, err := l.r.ReadByte()
		switch {
		case errors.Is(err, io.EOF) && len(l.line) > 0:
			return l.line, "", nil
		case err != nil:
			return nil, "", err
		}
		l.next++
		switch c {
		case '\n':
			return l.line, "\n", nil
		case '\r':
			end, err := l.afterCR()
			return l.line, end, err
		}
		if len(l.line) == maxLine {
			return nil, "", Unsigned(fmt.Sprintf("a line of the header has more than %d bytes", maxLine))
		}
		l.line = append(l.line, c)
	}
}

// afterCR reads the LF that may follow a CR.
func (l *lineReader) afterCR() (end string, err error) {
	c, err := l.r.ReadByte()
	switch {
	case errors.Is(err, io.EOF):
		return "\r", nil
	case err != nil:
		return "", err
	case c != '\n':
		return "\r", l.r.UnreadByte()
	}
	l.next++
	return "\r\n", nil
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' }

// section returns what text has from start to end.
func section(text io.ReaderAt, start, end int64) *io.SectionReader {
	return io.NewSectionReader(text, start, end-start)
}
