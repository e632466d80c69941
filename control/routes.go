package control

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"strings"

	"nightmare.mail/mxf/control/regular"
)

// A Relay is where a route leads. Host and Addr are never both set; when
// neither is, the domain is looked up as if there were no routes, and Port is 0.
type Relay struct {
	Host string     // a name as it is spelled, in A-labels, without the final dot
	Addr netip.Addr // valid when the relay is an address; no zone, IPv4-mapped addresses as IPv4
	Port uint16     // 0: the protocol's
	Line int        // of the route, from 1
}

// Routes are the artificial routes of one service.
//
// A table is not turned into a map: one process makes one delivery, and so one
// lookup, and a million routes would cost it 100 MB and half a second to
// arrange for that. It is checked line by line when it is read, and scanned
// line by line for each lookup. A table of up to MaxFile bytes is kept as it
// is; a longer one is read again in pieces, so that a hundred deliveries at a
// time do not hold a hundred copies of it.
type Routes struct {
	dir     dir
	file    string      // its name in dir
	data    []byte      // all of it, unless it is longer than MaxFile
	info    fs.FileInfo // of a longer one, when it was checked
	unicode bool        // there are domains beyond ASCII
}

// blockSize is how much of a long table is in memory at a time.
const blockSize = 256 << 10

func (d dir) routes(s *Settings) error {
	for i := range s.Protocols {
		p := &s.Protocols[i]
		r, err := d.readRoutes(p.Service + "routes")
		if err != nil {
			return err
		}
		p.Routes = r
	}
	return nil
}

func (d dir) readRoutes(file string) (*Routes, error) {
	r := &Routes{dir: d, file: file}
	info, err := d.stat(file)
	if info == nil || err != nil {
		return r, err
	}
	var c checker
	if info.Size() <= MaxFile {
		if r.data, err = d.read(file); err != nil {
			return nil, err
		}
		err = c.check(r, r.data, 0)
	} else {
		r.info = info
		err = r.blocks(func(block []byte, before int) error { return c.check(r, block, before) })
	}
	r.unicode = c.unicode
	return r, err
}

// Lookup returns the route for domain, or nil when there is none. domain is in the
// form that [ParseDomain] returns. The exact domain wins, then the
// longest suffix, then the empty domain; where a domain has two lines the last
// of them wins, as in qmail. An error, possible only when a long table was
// changed since it was read, is an *Error.
func (r *Routes) Lookup(domain string) (*Relay, error) {
	if r == nil {
		return nil, nil
	}
	s := search{domain: domain, unicode: r.unicode, rank: -1}
	if err := r.scan(&s); err != nil {
		return nil, err
	}
	if s.rank < 0 {
		return nil, nil
	}
	relay, problem := parseRelay(string(s.relay))
	if problem != "" {
		return nil, r.dir.malformed(r.file, s.line, problem)
	}
	relay.Line = s.line
	return &relay, nil
}

func (r *Routes) scan(s *search) error {
	if r.info == nil {
		s.block(r.data, 0)
		return nil
	}
	info, err := r.dir.stat(r.file)
	if err != nil {
		return err
	}
	if info == nil {
		return r.dir.unreadable(r.file, fs.ErrNotExist)
	}
	same := os.SameFile(info, r.info) && info.Size() == r.info.Size() && info.ModTime().Equal(r.info.ModTime())
	var c checker
	return r.blocks(func(block []byte, before int) error {
		if !same {
			if err := c.check(r, block, before); err != nil {
				return err
			}
			s.unicode = c.unicode
		}
		s.block(block, before)
		return nil
	})
}

// blocks calls each for all of a long table in pieces of whole lines. before is
// the number of lines before the piece.
func (r *Routes) blocks(each func(block []byte, before int) error) error {
	f, info, err := regular.OpenKnown(r.dir.name(r.file), os.O_RDONLY, 0)
	if err != nil {
		return r.dir.unreadable(r.file, err)
	}
	defer f.Close()
	if info.Size() > MaxRoutes {
		return r.dir.tooLarge(r.file, MaxRoutes)
	}
	return r.pieces(f, make([]byte, blockSize), each)
}

// pieces does what blocks says with a buffer longer than MaxLine.
func (r *Routes) pieces(f io.Reader, buf []byte, each func(block []byte, before int) error) error {
	filled, before, total := 0, 0, 0
	for {
		n, err := f.Read(buf[filled:])
		filled += n
		if total += n; total > MaxRoutes {
			return r.dir.tooLarge(r.file, MaxRoutes)
		}
		if errors.Is(err, io.EOF) {
			return each(buf[:filled], before)
		}
		if err != nil {
			return r.dir.unreadable(r.file, err)
		}
		whole := bytes.LastIndexByte(buf[:filled], '\n') + 1
		if err := each(buf[:whole], before); err != nil {
			return err
		}
		before += bytes.Count(buf[:whole], []byte("\n"))
		if filled = copy(buf, buf[whole:filled]); filled > MaxLine {
			return r.dir.tooLong(r.file, before+1)
		}
	}
}

// checker goes through a table block by block.
type checker struct {
	unicode bool // there are domains beyond ASCII
}

// check finds the first malformed line.
func (c *checker) check(r *Routes, block []byte, before int) error {
	if err := r.dir.checkLines(r.file, block, before); err != nil {
		return err
	}
	for line := before + 1; len(block) > 0; line++ {
		var entry []byte
		entry, block = cutLine(block)
		if len(entry) == 0 || entry[0] == '#' {
			continue
		}
		domain, relay, ok := cutRoute(entry)
		if !ok {
			return r.dir.malformed(r.file, line, fmt.Sprintf("expected domain:relay or domain:relay:port, found %s", found(string(entry))))
		}
		if problem := c.checkDomain(domain); problem != "" {
			return r.dir.malformed(r.file, line, problem)
		}
		if isPlainRelay(relay) {
			continue
		}
		if _, problem := parseRelay(string(relay)); problem != "" {
			return r.dir.malformed(r.file, line, problem)
		}
	}
	return nil
}

func (c *checker) checkDomain(domain []byte) string {
	name := bytes.TrimPrefix(domain, []byte("."))
	if len(domain) == 0 || IsName(name) {
		return "" // nearly all of them
	}
	if !isASCII(domain) {
		c.unicode = true
	}
	if _, ok := canonicalDomain(string(domain)); !ok {
		return fmt.Sprintf("expected a domain, a .suffix, an address in brackets or nothing before the colon, found %s", found(string(domain)))
	}
	return ""
}

// cutLine takes the first line, without trailing blanks, off block.
func cutLine(block []byte) (line, rest []byte) {
	n := bytes.IndexByte(block, '\n')
	if n < 0 {
		return trim(block), nil
	}
	return trim(block[:n]), block[n+1:]
}

// cutRoute cuts a line at the colon after the domain, which is not one of those
// inside the brackets of a literal.
func cutRoute(entry []byte) (domain, relay []byte, ok bool) {
	n := 0
	if entry[0] == '[' {
		n = bytes.IndexByte(entry, ']') + 1
		if n == 0 || n == len(entry) || entry[n] != ':' {
			return nil, nil, false
		}
	} else if n = bytes.IndexByte(entry, ':'); n < 0 {
		return nil, nil, false
	}
	return entry[:n], entry[n+1:], true
}

// canonicalDomain returns the domain of a route as Lookup compares it.
func canonicalDomain(s string) (domain string, ok bool) {
	if s == "" {
		return "", true
	}
	if suffix, found := strings.CutPrefix(s, "."); found {
		name, ok := parseName(suffix)
		return "." + name, ok
	}
	domain, _, ok = ParseDomain(s)
	return domain, ok
}

// parseRelay parses what stands behind the domain's colon: relay or relay:port.
// It returns what is wrong, or "".
func parseRelay(s string) (relay Relay, problem string) {
	host, port, hasPort := cutPort(s)
	if hasPort {
		n, ok := parsePort(port)
		if !ok {
			return Relay{}, fmt.Sprintf("expected a port from 1 to 65535, found %s%s", foundPort(port), bracketHint(s))
		}
		relay.Port = n
	}
	switch {
	case host == "" && hasPort:
		return Relay{}, fmt.Sprintf("expected no port where there is no relay, found %s", found(s))
	case host == "":
		return relay, ""
	case host[0] == '[':
		addr, ok := parseLiteral(host)
		if !ok {
			return Relay{}, fmt.Sprintf("expected an address in brackets as the relay, found %s", found(host))
		}
		relay.Addr = addr
		return relay, ""
	}
	if addr, err := netip.ParseAddr(host); err == nil && addr.Is4() {
		relay.Addr = addr
		return relay, ""
	}
	name, ok := spelledName(host)
	if !ok || EndsInNumber(name) {
		return Relay{}, fmt.Sprintf("expected a host name, an IPv4 address, an address in brackets or nothing as the relay, found %s", found(host))
	}
	relay.Host = name
	return relay, ""
}

// foundPort is found for a port: what is no part of a service's name or number ends it.
// A second colon may stand before a password.
func foundPort(port string) string {
	return foundUpTo(port, strings.IndexFunc(port, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-'
	}))
}

// isPlainRelay tells, without allocating, whether relay is a host name with or
// without a port, as nearly all of them are. Where it is false parseRelay decides.
func isPlainRelay(relay []byte) bool {
	host, port, hasPort := bytes.Cut(relay, []byte(":"))
	if !IsName(host) || '0' <= host[len(host)-1] && host[len(host)-1] <= '9' {
		return false
	}
	if !hasPort {
		return true
	}
	_, ok := parsePort(port)
	return ok
}

// cutPort cuts at the colon after the relay, which is not one of those inside
// brackets.
func cutPort(s string) (host, port string, hasPort bool) {
	if strings.HasPrefix(s, "[") {
		if n := strings.IndexByte(s, ']') + 1; n > 0 && n < len(s) && s[n] == ':' {
			return s[:n], s[n+1:], true
		}
		return s, "", false
	}
	return strings.Cut(s, ":")
}

// bracketHint explains the commonest cause of a bad port.
func bracketHint(s string) string {
	if addr, err := netip.ParseAddr(s); err == nil && addr.Is6() {
		return fmt.Sprintf("; an IPv6 address stands in brackets: [%s]", addr)
	}
	return ""
}

// search is one lookup on its way through a table.
type search struct {
	domain  string
	unicode bool // there may be domains beyond ASCII

	rank  int    // of the best route so far: see match; -1: none
	relay []byte // behind the domain's colon, a copy
	line  int
}

// block looks at every line of a piece of the table.
func (s *search) block(block []byte, before int) {
	for line := before + 1; len(block) > 0; line++ {
		var entry []byte
		entry, block = cutLine(block)
		if len(entry) == 0 || entry[0] == '#' {
			continue
		}
		domain, relay, ok := cutRoute(entry)
		if !ok {
			continue // checked before
		}
		if rank := s.match(domain); rank >= 0 && rank >= s.rank {
			s.rank, s.line = rank, line
			s.relay = append(s.relay[:0], relay...)
		}
	}
}

// match ranks a route: by the length of what its domain matches, and an exact
// match, which is as long as any suffix can get and one dot longer, highest. It
// returns -1 when the domain does not match.
func (s *search) match(domain []byte) int {
	if len(domain) == 0 {
		return 0
	}
	if domain[0] == '[' || domain[len(domain)-1] == '.' || s.unicode && !isASCII(domain) {
		if domain[0] == '[' && (s.domain == "" || s.domain[0] != '[') {
			return -1
		}
		canonical, ok := canonicalDomain(string(domain))
		if !ok {
			return -1
		}
		domain = []byte(canonical)
	}
	switch rest := len(s.domain) - len(domain); {
	case rest == 0 && equalFold(domain, s.domain):
		return len(s.domain) + 1
	case rest > 0 && domain[0] == '.' && equalFold(domain, s.domain[rest:]):
		return len(domain)
	}
	return -1
}

// equalFold compares two texts of one length. b is in lower case.
func equalFold(a []byte, b string) bool {
	for i, c := range a {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != b[i] {
			return false
		}
	}
	return true
}
