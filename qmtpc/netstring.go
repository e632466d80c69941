package qmtpc

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
)

// maxAnswer bounds one answer, in bytes. An answer is a letter and a line for a
// person; no server known says more than a few hundred bytes.
const maxAnswer = 10000

func notQMTP(format string, args ...any) error {
	return &ProtocolError{fmt.Sprintf(format, args...)}
}

// readNetstring reads one netstring of at most limit bytes. The error is a
// *ProtocolError for anything else and for a longer one. Otherwise it is r's; io.EOF and
// io.ErrUnexpectedEOF both mean that r ended.
func readNetstring(r *bufio.Reader, limit int) ([]byte, error) {
	length, err := readLength(r, limit)
	if err != nil {
		return nil, err
	}
	text := make([]byte, length)
	if _, err := io.ReadFull(r, text); err != nil {
		return nil, err
	}
	end, err := r.ReadByte()
	if err != nil {
		return nil, err
	}
	if end != ',' {
		return nil, notQMTP("%q where a netstring of %d bytes should end", end, length)
	}
	return text, nil
}

// readLength reads a netstring's length and colon. It stops at the digit that makes
// the number too large, so that an endless one is refused at once.
func readLength(r *bufio.Reader, limit int) (int, error) {
	length, digits := 0, 0
	for {
		c, err := r.ReadByte()
		switch {
		case err != nil:
			return 0, err
		case c == ':' && digits > 0:
			return length, nil
		case c < '0' || c > '9':
			return 0, notQMTP("%q in a netstring's length", c)
		case digits > 0 && length == 0:
			return 0, notQMTP("a netstring's length with a leading zero")
		}
		length = 10*length + int(c-'0')
		digits++
		if length > limit {
			return 0, notQMTP("a netstring longer than %d bytes", limit)
		}
	}
}

// appendNetstring appends text to b as a netstring.
func appendNetstring(b []byte, text string) []byte {
	b = strconv.AppendInt(b, int64(len(text)), 10)
	b = append(b, ':')
	b = append(b, text...)
	return append(b, ',')
}

// netstringLen is the length of a text of n bytes as a netstring.
func netstringLen(n int) int {
	return len(strconv.Itoa(n)) + len(":,") + n
}
