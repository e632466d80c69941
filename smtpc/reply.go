package smtpc

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/emersion/go-smtp"
)

// What a server may say in one reply. RFC 5321 section 4.5.3.1.5 has lines of
// 512 bytes; real ones are longer, and EHLO replies have a dozen lines.
const (
	maxReplyLines = 512
	maxReplyBytes = 64 << 10 // all lines with their ends
	maxReplyLine  = 8 << 10  // without its end
)

// maxSeen bounds what a protocol error repeats of the server's words.
const maxSeen = 100

// A protocolError is something that SMTP does not have in the place where it
// was seen. It reads as what follows "Connected to 192.0.2.1 but".
type protocolError struct{ what string }

func (e *protocolError) Error() string { return e.what }

func protocolErrorf(format string, args ...any) error {
	return &protocolError{fmt.Sprintf(format, args...)}
}

// seen quotes foreign text for a protocol error.
func seen(text string) string {
	if len(text) > maxSeen {
		return strconv.Quote(text[:maxSeen]) + "..."
	}
	return strconv.Quote(text)
}

// A lostError is a connection that could not be read from or written to.
type lostError struct{ err error }

func (e *lostError) Error() string { return "connection lost: " + e.err.Error() }
func (e *lostError) Unwrap() error { return e.err }

// A reply is what the server said to one command. Message holds all its lines
// with their codes, joined by newlines, without line ends.
type reply struct{ smtp.SMTPError }

// class is the first digit of the code, on which decisions are taken
// (RFC 5321 section 4.3.2).
func (r *reply) class() int { return r.Code / 100 }

func (r *reply) refused() bool   { return r.class() == 4 || r.class() == 5 }
func (r *reply) permanent() bool { return r.class() == 5 }

// closing tells a 421: the server ends the conversation with it.
func (r *reply) closing() bool { return r.Code == 421 }

// unexpected is the error that r is where something else was due.
func (r *reply) unexpected(to string) error {
	first, _, _ := strings.Cut(r.Message, "\n")
	return protocolErrorf("it answered %s to %s", seen(first), to)
}

// readReply reads one reply from r and gives each of its lines to trace. The
// error is a *protocolError, or a *lostError when r ends before the reply does.
func readReply(r *bufio.Reader, trace func(line string)) (*reply, error) {
	var lines []string
	for total := 0; ; {
		line, n, err := readLine(r)
		if err != nil {
			return nil, err
		}
		trace(line)
		total += n
		code, more, ok := parseReplyLine(line)
		switch {
		case !ok:
			return nil, protocolErrorf("it sent %s, which is not a reply", seen(line))
		case len(lines) > 0 && line[:3] != lines[0][:3]:
			return nil, protocolErrorf("it sent a reply of several codes, %s after %s", seen(line), seen(lines[0]))
		case len(lines) == maxReplyLines:
			return nil, protocolErrorf("it sent a reply of more than %d lines, %s first", maxReplyLines, seen(lines[0]))
		case total > maxReplyBytes:
			return nil, protocolErrorf("it sent a reply of more than %d bytes, %s first", maxReplyBytes, seen(line))
		}
		lines = append(lines, line)
		if !more {
			return &reply{smtp.SMTPError{
				Code:         code,
				EnhancedCode: parseEnhancedCode(code, line),
				Message:      strings.Join(lines, "\n"),
			}}, nil
		}
	}
}

// readLine reads a line that ends in LF or CR LF, and returns it without that
// end, and the number of bytes read.
func readLine(r *bufio.Reader) (line string, n int, err error) {
	var long []byte
	for {
		part, err := r.ReadSlice('\n')
		n += len(part)
		if n > maxReplyLine+len("\r\n") {
			return "", n, protocolErrorf("it sent a line of more than %d bytes, %s", maxReplyLine, seen(string(long)+string(part)))
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			long = append(long, part...)
			continue
		case errors.Is(err, io.EOF):
			return "", n, &lostError{io.ErrUnexpectedEOF}
		case err != nil:
			return "", n, &lostError{err}
		}
		if long != nil {
			part = append(long, part...)
		}
		line := strings.TrimSuffix(string(part[:len(part)-1]), "\r")
		if len(line) > maxReplyLine {
			return "", n, protocolErrorf("it sent a line of more than %d bytes, %s", maxReplyLine, seen(line))
		}
		return line, n, nil
	}
}

// parseReplyLine reads three digits, 2xx to 5xx, and what follows them: a hyphen
// when more lines come, a space or nothing on the last.
func parseReplyLine(line string) (code int, more, ok bool) {
	if len(line) < 3 || line[0] < '2' || line[0] > '5' {
		return 0, false, false
	}
	for i := range 3 {
		if line[i] < '0' || line[i] > '9' {
			return 0, false, false
		}
		code = code*10 + int(line[i]-'0')
	}
	switch {
	case len(line) == 3, line[3] == ' ':
		return code, false, true
	case line[3] == '-':
		return code, true, true
	}
	return 0, false, false
}

// parseEnhancedCode reads the status code (RFC 2034) that the text of line
// begins with. One of another class than code is none.
func parseEnhancedCode(code int, line string) smtp.EnhancedCode {
	if len(line) < 4 {
		return smtp.EnhancedCodeNotSet
	}
	first, _, _ := strings.Cut(line[4:], " ")
	parts := strings.Split(first, ".")
	if len(parts) != 3 {
		return smtp.EnhancedCodeNotSet
	}
	var enhanced smtp.EnhancedCode
	for i, part := range parts {
		n, err := strconv.ParseUint(part, 10, 10) // at most three digits in RFC 3463
		if err != nil {
			return smtp.EnhancedCodeNotSet
		}
		enhanced[i] = int(n)
	}
	if enhanced[0] != code/100 {
		return smtp.EnhancedCodeNotSet
	}
	return enhanced
}
