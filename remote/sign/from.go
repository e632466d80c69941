package sign

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"nightmare.mail/mxf/control/domain"
)

// maxDomain is more bytes than a domain can have, in UTF-8 too: RFC 1035 has 253 characters.
const maxDomain = 1 << 10

// Why the field From does not allow a signature.
const (
	errNoFrom     = Unsigned("the header has no From")
	errManyFrom   = Unsigned("the header has more than one From")
	errNoMailbox  = Unsigned("From has no mailbox")
	errNoDomain   = Unsigned("a mailbox of From has no domain")
	errTwoDomains = Unsigned("the mailboxes of From are in more than one domain")
	errSyntax     = Unsigned("From is not as RFC 5322 has it")
)

// readFrom finds the domain of From.
func (h *Header) readFrom() error {
	if n := h.count(fromField); n != 1 {
		if n == 0 {
			return errNoFrom
		}
		return errManyFrom
	}
	for _, f := range h.fields {
		if f.kind != fromField {
			continue
		}
		var err error
		if h.domain, err = mailboxDomain(section(h.text, f.start, f.end)); err != nil {
			return err
		}
	}
	return nil
}

// mailboxDomain returns the domain that all mailboxes of a From field are in. An error of r
// is returned as it is.
func mailboxDomain(r io.Reader) (domain.Domain, error) {
	p := &parser{r: bufio.NewReaderSize(r, 1<<10)}
	p.advance()
	err := p.list()
	switch {
	case p.failure != nil:
		return domain.Domain{}, p.failure
	case err != nil:
		return domain.Domain{}, err
	case p.domain == (domain.Domain{}):
		return domain.Domain{}, errNoMailbox
	}
	return p.domain, nil
}

// end is what a parser sees behind the last byte.
const end = -1

// A parser reads the mailboxes of a From field (RFC 5322 section 3.4, with the obsolete forms of
// section 4.4, groups by RFC 6854, and any byte above 127 as RFC 6532 has characters beyond
// ASCII). It looks one byte ahead and keeps nothing but a domain: the field may be long.
type parser struct {
	r       *bufio.Reader
	c       int   // the next byte, or end
	failure error // of reading

	inGroup bool
	domain  domain.Domain // of the mailboxes so far; zero before the first
}

func (p *parser) advance() {
	b, err := p.r.ReadByte()
	p.c = int(b)
	if err != nil {
		p.c = end
		if !errors.Is(err, io.EOF) {
			p.failure = err
		}
	}
}

// list reads mailboxes and groups. Elements may be missing (obs-mbox-list).
func (p *parser) list() error {
	for {
		if err := p.blanks(); err != nil {
			return err
		}
		switch {
		case p.c == ',':
			p.advance()
			continue
		case p.c == ';' && p.inGroup:
			p.inGroup = false
			p.advance()
		case p.c == end:
			if p.inGroup {
				return errSyntax
			}
			return nil
		default:
			began, err := p.element()
			if err != nil {
				return err
			}
			if began {
				continue
			}
		}
		if err := p.blanks(); err != nil {
			return err
		}
		if p.c != ',' && p.c != end && !(p.c == ';' && p.inGroup) {
			return errSyntax
		}
	}
}

// element reads a mailbox, or a group up to its colon. Words are those of a display name or
// of a local part, whichever the first special byte behind them makes of them.
func (p *parser) element() (beganGroup bool, err error) {
	words := 0
	local := true // the words can be a local part
	due := true   // in a local part a word is due: there was none yet, or a dot
	for {
		switch {
		case isAtom(p.c), p.c == '"':
			if err := p.word(); err != nil {
				return false, err
			}
			words++
			local, due = local && due, false
		case p.c == '.' && words > 0:
			p.advance()
			local, due = local && !due, true
		case p.c == '<':
			return false, p.angle()
		case p.c == '@' && words > 0 && local && !due:
			return false, p.mailbox()
		case p.c == ':' && words > 0 && !p.inGroup:
			p.inGroup = true
			p.advance()
			return true, nil
		case words > 0 && (p.c == ',' || p.c == end || p.c == ';' && p.inGroup):
			return false, errNoDomain
		default:
			return false, errSyntax
		}
		if err := p.blanks(); err != nil {
			return false, err
		}
	}
}

// angle reads an address in angle brackets, with a route perhaps (obs-angle-addr).
func (p *parser) angle() error {
	p.advance()
	if err := p.blanks(); err != nil {
		return err
	}
	if p.c == '@' || p.c == ',' {
		if err := p.route(); err != nil {
			return err
		}
	}
	for {
		if err := p.blanks(); err != nil {
			return err
		}
		if err := p.word(); err != nil {
			return err
		}
		if err := p.blanks(); err != nil {
			return err
		}
		if p.c != '.' {
			break
		}
		p.advance()
	}
	if p.c == '>' {
		return errNoDomain
	}
	if p.c != '@' {
		return errSyntax
	}
	if err := p.mailbox(); err != nil {
		return err
	}
	if p.c != '>' {
		return errSyntax
	}
	p.advance()
	return nil
}

// route reads the domains before an address, up to the colon (obs-route). They are nobody's
// mailbox.
func (p *parser) route() error {
	any, comma := false, true // a domain came; the next may come
	for {
		if err := p.blanks(); err != nil {
			return err
		}
		switch {
		case p.c == ',':
			comma = true
			p.advance()
		case p.c == '@' && comma:
			p.advance()
			if _, err := p.name(); err != nil {
				return err
			}
			any, comma = true, false
		case p.c == ':' && any:
			p.advance()
			return nil
		default:
			return errSyntax
		}
	}
}

// mailbox reads the domain of a mailbox, from the @ on, and what may follow it.
func (p *parser) mailbox() error {
	p.advance()
	text, err := p.name()
	if err != nil {
		return err
	}
	d, err := domain.Parse(text)
	if err != nil {
		return Unsigned(fmt.Sprintf("the domain of a mailbox of From is none: %v", err))
	}
	if p.domain != (domain.Domain{}) && p.domain != d {
		return errTwoDomains
	}
	p.domain = d
	return nil
}

// name reads a domain or an address literal, and the blanks and comments around it and within
// (obs-domain).
func (p *parser) name() (string, error) {
	if err := p.blanks(); err != nil {
		return "", err
	}
	if p.c == '[' {
		return p.literal()
	}
	var text []byte
	for {
		if !isAtom(p.c) {
			return "", errSyntax
		}
		for ; isAtom(p.c); p.advance() {
			if text = append(text, byte(p.c)); len(text) > maxDomain {
				return "", errSyntax
			}
		}
		if err := p.blanks(); err != nil {
			return "", err
		}
		if p.c != '.' {
			return string(text), nil
		}
		text = append(text, '.')
		p.advance()
		if err := p.blanks(); err != nil {
			return "", err
		}
	}
}

// literal reads an address literal. Blanks in it do not count.
func (p *parser) literal() (string, error) {
	text := []byte{'['}
	for p.advance(); p.c != ']'; p.advance() {
		if isFold(p.c) {
			continue
		}
		if p.c == '\\' {
			p.advance()
		} else if p.c == '[' || p.c == 0 {
			return "", errSyntax
		}
		if p.c == end || len(text) > maxDomain {
			return "", errSyntax
		}
		text = append(text, byte(p.c))
	}
	p.advance()
	return string(text) + "]", p.blanks()
}

// word reads an atom or a quoted string.
func (p *parser) word() error {
	switch {
	case p.c == '"':
		return p.quoted()
	case !isAtom(p.c):
		return errSyntax
	}
	for isAtom(p.c) {
		p.advance()
	}
	return nil
}

// quoted reads a quoted string.
func (p *parser) quoted() error {
	for p.advance(); p.c != '"'; p.advance() {
		if err := p.text(); err != nil {
			return err
		}
	}
	p.advance()
	return nil
}

// text reads a byte of a quoted string or a comment, and leaves the parser at its last.
func (p *parser) text() error {
	if p.c == '\\' {
		p.advance() // whatever it is (obs-qp)
	} else if p.c == 0 {
		return errSyntax
	}
	if p.c == end {
		return errSyntax
	}
	return nil
}

// blanks passes over blanks, line ends and comments.
func (p *parser) blanks() error {
	depth := 0
	for {
		switch {
		case p.c == '(':
			depth++
		case depth == 0 && !isFold(p.c):
			return nil
		case p.c == ')':
			depth--
		case depth > 0:
			if err := p.text(); err != nil {
				return err
			}
		}
		p.advance()
	}
}

// isFold reports whether c is a blank or a byte of a line end. A line end within a field has
// a blank behind it.
func isFold(c int) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

// isAtom reports whether c is a byte of an atom (RFC 5322 section 3.2.3, RFC 6532 section 3.2).
func isAtom(c int) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c >= 0x80:
		return true
	}
	switch c {
	case '!', '#', '$', '%', '&', '\'', '*', '+', '-', '/', '=', '?', '^', '_', '`', '{', '|', '}', '~':
		return true
	}
	return false
}
