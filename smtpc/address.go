package smtpc

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"nightmare.mail/mxf/control/domain"
)

// errControlByte means that an address can never be sent: a line end in it would
// be a command of its own.
var errControlByte = errors.New("there is a control byte in it")

// An address is an envelope address as it is written between < and >.
type address struct {
	text string
	utf8 bool // it has a byte above 127 and needs SMTPUTF8
}

// parseAddress turns an address as qmail has it, not quoted, into what SMTP
// wants: the local part quoted where RFC 5321 section 4.1.2 says so, a domain
// beyond ASCII in A-labels. An address that comes quoted is taken as it is.
func parseAddress(raw string, quoted bool) (address, error) {
	if hasControl(raw) {
		return address{}, errControlByte
	}
	at := strings.LastIndexByte(raw, '@')
	if quoted || at < 0 {
		if !quoted && strings.ContainsAny(raw, "<>") {
			return address{}, errors.New("there is an angle bracket in it")
		}
		return address{raw, !domain.IsASCII(raw)}, nil
	}
	local, host := raw[:at], raw[at+1:]
	ascii, err := domain.ToASCII(host)
	if err != nil || strings.ContainsAny(ascii, " <>") {
		return address{}, fmt.Errorf("%q is not a domain", host)
	}
	return address{quoteLocal(local) + "@" + ascii, !domain.IsASCII(local)}, nil
}

// IsRecipient reports whether a recipient, as qmail has it, can be named in RCPT.
func IsRecipient(recipient string) bool {
	_, err := parseAddress(recipient, false)
	return err == nil
}

// quoteLocal returns local as it is if it is a Dot-string, else as a Quoted-string
// (RFC 5321 section 4.1.2).
func quoteLocal(local string) string {
	if isDotString(local) {
		return local
	}
	var b strings.Builder
	b.Grow(len(local) + 2)
	b.WriteByte('"')
	for i := range len(local) {
		if c := local[i]; c == '"' || c == '\\' {
			b.WriteByte('\\')
		}
		b.WriteByte(local[i])
	}
	b.WriteByte('"')
	return b.String()
}

func isDotString(local string) bool {
	dot := true // what came last is a dot, or the beginning
	for i := range len(local) {
		c := local[i]
		switch {
		case c == '.' && dot:
			return false
		case c != '.' && !isAtext(c):
			return false
		}
		dot = c == '.'
	}
	return !dot
}

// isAtext is atext of RFC 5322 section 3.2.3, and RFC 6531's bytes above ASCII.
func isAtext(c byte) bool {
	return c >= utf8.RuneSelf ||
		'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) >= 0
}

func hasControl(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] == 127 {
			return true
		}
	}
	return false
}
