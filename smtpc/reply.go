package smtpc

import (
	"bufio"
	"errors"
	"io"
	"strconv"
	"strings"
)

// What a server may say in one reply. RFC 5321 section 4.5.3.1.5 has lines of
// 512 bytes; real ones are longer, and EHLO replies have a dozen lines.
const (
	maxReplyLines = 512
	maxReplyBytes = 64 << 10 // all lines with their ends
	maxReplyLine  = 8 << 10  // without its end
	// maxEmptyLines bounds the empty lines in front of a reply, so that a server that
	// sends nothing else has an end.
	maxEmptyLines = 10
)

// A reply is a [Reply] under the questions that the conversation asks.
type reply struct {
	Reply
	raw string // Text before anything in it was concealed. It decides, and is not shown
}

// class is the first digit of the code, on which decisions are taken
// (RFC 5321 section 4.3.2).
func (r *reply) class() int { return r.Code / 100 }

func (r *reply) refused() bool   { return r.class() == 4 || r.class() == 5 }
func (r *reply) permanent() bool { return r.class() == 5 }

// misunderstood reports whether the server did not understand the command, or knows
// no such parameter or order of commands (RFC 5321 section 4.2.2): 500 to 504.
func (r *reply) misunderstood() bool { return 500 <= r.Code && r.Code <= 504 }

// refusesParameters reports whether r can be a refusal of the parameters of MAIL: 555
// (RFC 5321 section 4.1.1.11), or what servers say that do not know of any.
func (r *reply) refusesParameters() bool { return r.misunderstood() || r.Code == 555 }

// refusesSecondMAIL reports whether r answers a second MAIL because there was a first, which
// was refused for its parameters: some servers want RSET between them, or a new connection.
func (r *reply) refusesSecondMAIL() bool { return r.refusesParameters() || r.closing() }

// tooMany reports whether r can mean that there are too many recipients. 552 meant that before
// there was 452 (RFC 5321 section 4.5.3.1.10). With the status codes x.2.2 and x.3.4 (RFC 3463)
// it means that a mailbox is full or the message is too large.
func (r *reply) tooMany() bool {
	subject, detail := r.Enhanced[1], r.Enhanced[2]
	return r.Code == 552 && !(subject == 2 && detail == 2) && !(subject == 3 && detail == 4)
}

// mayBeTooMany reports whether r, to a RCPT after one that was accepted, may be about the number of
// recipients, whatever its enhanced code: 552, or any refusal that is not for good. It is not so
// with 421, which is about the conversation.
func (r *reply) mayBeTooMany() bool { return r.Code == 552 || r.class() == 4 && !r.closing() }

// ofSecurity reports whether TLS might have prevented the refusal: 530, or a status code
// of security (x.7.x).
func (r *reply) ofSecurity() bool { return r.Code == 530 || r.Enhanced[1] == 7 }

// closing reports whether the server ends the conversation with r: 421.
func (r *reply) closing() bool { return r.Code == 421 }

// unexpected is the error of a server that answers r where SMTP has something else.
func (r *reply) unexpected(to Stage) error {
	first, _, _ := strings.Cut(r.Text, "\n")
	return protocolErrorf("it answered %s to %s", seen(first), to)
}

// readReply reads one reply from r. Each of its lines goes through clean, and what comes of
// that is what the reply and the errors say, and what is given to trace. The error is a
// *ProtocolError, or it is ErrLost because r ends before the reply does.
func readReply(r *bufio.Reader, clean func(line string) string, trace func(line string)) (*reply, error) {
	var lines, raws []string
	var enhanced EnhancedCode
	for total, empty := 0, 0; ; {
		raw, n, err := readLine(r, clean)
		if err != nil {
			return nil, err
		}
		line := clean(raw)
		trace(line)
		if line == "" && len(lines) == 0 && empty < maxEmptyLines {
			empty++
			continue
		}
		total += n
		code, more, ok := parseReplyLine(raw)
		switch {
		case !ok:
			return nil, protocolErrorf("it sent %s, which is not a reply", seen(line))
		case len(lines) > 0 && raw[:3] != raws[0][:3]:
			return nil, protocolErrorf("it sent a reply of several codes, %s after %s", seen(line), seen(lines[0]))
		case len(lines) == maxReplyLines:
			return nil, protocolErrorf("it sent a reply of more than %d lines, %s first", maxReplyLines, seen(lines[0]))
		case total > maxReplyBytes:
			return nil, protocolErrorf("it sent a reply of more than %d bytes, %s first", maxReplyBytes, seen(line))
		}
		lines, raws = append(lines, line), append(raws, raw)
		if enhanced == (EnhancedCode{}) {
			enhanced = parseEnhanced(code, raw)
		}
		if !more {
			return &reply{Reply{code, enhanced, strings.Join(lines, "\n")}, strings.Join(raws, "\n")}, nil
		}
	}
}

// seenInPart is seen for a line whose end was cut off: there the beginning of a secret may
// stand that clean did not know.
func seenInPart(line string, clean func(string) string) string {
	if strings.Contains(clean(line), concealed) {
		return seen(concealed)
	}
	return seen(line)
}

// readLine reads a line that ends in LF or CR LF. It returns the line without that end, and
// the number of bytes read. Errors quote it as clean returns it.
func readLine(r *bufio.Reader, clean func(line string) string) (line string, n int, err error) {
	var long []byte
	for {
		part, err := r.ReadSlice('\n')
		n += len(part)
		if n > maxReplyLine+len("\r\n") {
			return "", n, protocolErrorf("it sent a line of more than %d bytes, %s", maxReplyLine, seenInPart(string(long)+string(part), clean))
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
			return "", n, protocolErrorf("it sent a line of more than %d bytes, %s", maxReplyLine, seen(clean(line)))
		}
		return line, n, nil
	}
}

// parseReplyLine reads three digits, 2xx to 5xx, and what follows them: a hyphen if more lines
// come, a space or nothing on the last line.
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

// parseEnhanced reads the status code (RFC 2034) at the beginning of the text of line. A
// status code of another class than code does not count.
func parseEnhanced(code int, line string) EnhancedCode {
	if len(line) < 4 {
		return EnhancedCode{}
	}
	first, _, _ := strings.Cut(line[4:], " ")
	parts := strings.Split(first, ".")
	if len(parts) != 3 {
		return EnhancedCode{}
	}
	var enhanced EnhancedCode
	for i, part := range parts {
		n, err := strconv.ParseUint(part, 10, 10) // at most three digits in RFC 3463
		if err != nil {
			return EnhancedCode{}
		}
		enhanced[i] = uint16(n)
	}
	if int(enhanced[0]) != code/100 {
		return EnhancedCode{}
	}
	return enhanced
}
