package smtptest

import (
	"bytes"
	"fmt"
	"strings"
)

// A Violation is something that the client must not do. The server goes on as if
// nothing had happened, unless it cannot know where a command ends.
//
// Long lines of a message are none: a client that passes a message on as it is has
// no choice.
type Violation string

func (v Violation) Error() string { return "wrong of the client: " + string(v) }

func violation(format string, a ...any) error { return Violation(fmt.Sprintf(format, a...)) }

// The longest command, CR LF included (RFC 5321 section 4.5.3.1.4), and what the
// parameters of MAIL and RCPT may add (RFC 1870, 6152 and 6531).
const (
	maxCommand    = 512
	maxParameters = 26 + 17 + 460
)

// parameterOf has the extension that a parameter of MAIL or RCPT belongs to.
var parameterOf = map[string]string{
	"SIZE": "SIZE", "BODY": "8BITMIME", "SMTPUTF8": "SMTPUTF8", "REQUIRETLS": "REQUIRETLS",
	"RET": "DSN", "ENVID": "DSN", "NOTIFY": "DSN", "ORCPT": "DSN",
}

// rules hold a client to what it may say where.
type rules struct {
	greeted bool            // EHLO or HELO was accepted
	offered map[string]bool // the extensions of the last reply to EHLO
	mail    bool            // MAIL was sent, accepted or not
	rcpt    bool            // RCPT was sent after it

	mechanisms []string // of AUTH, in the last reply to EHLO
	loggedIn   bool
	sent       bool // MAIL was sent since the greeting or EHLO
}

// greet notes what a positive reply to EHLO or HELO offers.
func (r *rules) greet(phase Phase, reply string) {
	*r = rules{greeted: true, offered: make(map[string]bool)}
	if phase == HELO {
		return
	}
	for _, line := range strings.Split(reply, "\n")[1:] {
		if words := strings.Fields(strings.ToUpper(line[min(len("250-"), len(line)):])); len(words) > 0 {
			r.offered[words[0]] = true
			r.learn(words)
		}
	}
}

func (r *rules) reset() { r.mail, r.rcpt = false, false }

// check returns a violation, or nil. More says that the client has sent more than this
// command without waiting.
func (r *rules) check(verb, line string, more, secure bool, tx *Transaction) error {
	waits := !r.offered["PIPELINING"]
	limit := maxCommand
	if verb == "MAIL" || verb == "RCPT" {
		limit += maxParameters
	}
	switch {
	case len(line)+len("\r\n") > limit:
		return violation("command of %d bytes, %.40q", len(line)+len("\r\n"), line)
	case more && waits:
		return violation("more before the answer to %.40q, without PIPELINING", line)
	}
	switch verb {
	case "EHLO", "HELO", "STARTTLS", "AUTH", "DATA", "QUIT":
		if more {
			return violation("more before the answer to %q", line)
		}
	}
	return r.order(verb, line, secure, waits, tx)
}

// order checks that a command is due.
func (r *rules) order(verb, line string, secure, waits bool, tx *Transaction) error {
	wellFormed := line == verb
	due := true
	switch verb {
	case "EHLO", "HELO":
		words := strings.Split(line, " ")
		wellFormed = len(words) == 2 && words[1] != ""
	case "STARTTLS":
		due = r.greeted && r.offered["STARTTLS"] && !secure && !tx.Begun
	case "MAIL":
		due = r.greeted && !tx.Begun
		wellFormed = r.acceptable(line)
		r.mail, r.rcpt, r.sent = true, false, true
	case "RCPT":
		due = r.mail && (tx.Begun || !waits)
		wellFormed = r.acceptable(line)
		r.rcpt = true
	case "DATA":
		due = r.rcpt && (len(tx.Recipients) > 0 || !waits)
	case "AUTH":
		wellFormed = true // checkAuth looks at it
	case "RSET", "QUIT":
	case "NOOP":
		wellFormed = true
	default:
		return violation("unknown command %.40q", line)
	}
	if !due {
		return violation("%.40q out of order", line)
	}
	if !wellFormed {
		return violation("%.200q is malformed, or has a parameter that was not offered", line)
	}
	return nil
}

// acceptable reports whether a command has a path and no parameter that was not
// offered.
func (r *rules) acceptable(line string) bool {
	_, parameters, ok := Path(line)
	for _, word := range strings.Fields(parameters) {
		name, _, _ := strings.Cut(strings.ToUpper(word), "=")
		ok = ok && r.offered[parameterOf[name]]
	}
	return ok
}

// Path returns what stands between the brackets of MAIL or RCPT, and what follows
// them.
func Path(line string) (address, parameters string, ok bool) {
	verb, rest, _ := strings.Cut(line, "<")
	if verb != "MAIL FROM:" && verb != "RCPT TO:" {
		return "", "", false
	}
	quoted := false
	for i := 0; i < len(rest); i++ {
		switch c := rest[i]; {
		case c < ' ' || c == 127:
			return "", "", false
		case c == '"':
			quoted = !quoted
		case c == '\\' && quoted:
			i++
		case quoted:
		case c == ' ' || c == '<':
			return "", "", false
		case c == '>':
			parameters, spaced := strings.CutPrefix(rest[i+1:], " ")
			return rest[:i], parameters, spaced == (parameters != "")
		}
	}
	return "", "", false
}

// checkText returns what is wrong with a line of a message on the wire, or nil.
func checkText(line []byte) error {
	text, ok := bytes.CutSuffix(line, []byte("\r\n"))
	switch {
	case !ok || bytes.IndexByte(text, '\r') >= 0:
		return violation("line end in %.200q", line)
	case len(text) > 0 && text[0] == '.' && !bytes.HasPrefix(text, []byte("..")):
		return violation("dot not doubled in %.200q", line)
	}
	return nil
}
