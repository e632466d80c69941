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

	"nightmare.mail/mxf/control/domain"
	"nightmare.mail/mxf/control/regular"
)

// A Relay is where a route leads. Host and Addr are never both set. If neither is, the
// domain is looked up as if there were no routes, and Port is 0.
type Relay struct {
	Host string     // a name as the file spells it, in A-labels, without the final dot
	Addr netip.Addr // valid if the relay is an address; no zone, IPv4-mapped addresses as IPv4
	Port uint16     // 0: the protocol's
	Line int        // of the route, from 1

	// Wildcard says that the line is one of the empty domain, which every host matches.
	// False for routes by sender.
	Wildcard bool
}

// Name returns the name or the address that the route says, in the form by which other
// files know a relay: lower case, no brackets. It is "" if the route has no relay.
func (r *Relay) Name() string {
	if r.Addr.IsValid() {
		return r.Addr.String()
	}
	return strings.ToLower(r.Host)
}

// Routes are the artificial routes of one service.
//
// A table does not become a map. One process makes one delivery, which is one lookup,
// and a map of a million routes costs 100 MB and half a second. So the table is checked
// line by line when it is read, and scanned line by line for each lookup. A table of up
// to MaxFile bytes stays in memory. A longer one is read again in pieces, so that a
// hundred deliveries at a time do not hold a hundred copies of it.
type Routes struct {
	dir     dir
	file    string      // its name in dir
	data    []byte      // the whole table, unless it is longer than MaxFile
	info    fs.FileInfo // of a longer table, when it was checked
	unicode bool        // some patterns are beyond ASCII
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
	r, err := d.checkRoutes(file)
	if r != nil {
		r.dir = d.plain()
	}
	return r, err
}

func (d dir) checkRoutes(file string) (*Routes, error) {
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
		if d.seen != nil {
			d.seen.table(d.name(file))
		}
		err = r.blocks(func(block []byte, before int) error { return c.check(r, block, before) })
	}
	r.unicode = c.unicode
	return r, err
}

// Lookup returns the route for host, or nil if there is none. host is what
// [domain.Domain.String] returns. The exact domain wins, then the longest suffix, then
// the empty domain; if a domain has two lines the last of them wins, as in qmail. An
// error is an *Error. It is possible only if a long table has changed since it was read.
func (r *Routes) Lookup(host string) (*Relay, error) {
	if r == nil {
		return nil, nil
	}
	s := search{host: host, unicode: r.unicode, rank: -1}
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
	relay.Line, relay.Wildcard = s.line, s.rank == 0
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

// blocks calls each for every piece of a long table. A piece has whole lines, and
// before is the number of lines before it.
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

// pieces is blocks for a file that is open, with a buffer longer than MaxLine.
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
			if err := r.dir.tooLong(r.file, before+1); err != nil {
				return err
			}
			filled = MaxLine + 1 // its end is looked for, and nothing else in it
		}
	}
}

// A checker checks a table block by block.
type checker struct {
	unicode bool // some patterns are beyond ASCII
}

// check finds the first malformed line, or all of them.
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
		if problem := c.checkRoute(entry); problem != "" {
			if err := r.dir.malformed(r.file, line, withoutLogin(entry, problem)); err != nil {
				return err
			}
			continue
		}
		if r.dir.all != nil {
			r.dir.all.entry(r.file, line, entry)
		}
	}
	return nil
}

func (c *checker) checkRoute(entry []byte) (problem string) {
	pattern, relay, ok := cutRoute(entry)
	if !ok {
		return fmt.Sprintf("expected domain:relay or domain:relay:port, found %s", found(string(entry)))
	}
	if problem := c.checkPattern(pattern); problem != "" || isPlainRelay(relay) {
		return problem
	}
	_, problem = parseRelay(string(relay))
	return problem
}

// withoutLogin returns what is wrong with a route. Other qmails keep a login in the line,
// behind a blank or a '|'. Neither is in any good route, and nothing of such a line may
// be repeated.
func withoutLogin(entry []byte, problem string) string {
	if !bytes.ContainsAny(entry, " \t\r|") {
		return problem
	}
	return `expected a route without blanks and without "|"; logins belong in control/credentials`
}

func (c *checker) checkPattern(pattern []byte) string {
	if len(pattern) == 0 || domain.IsName(bytes.TrimPrefix(pattern, []byte("."))) {
		return "" // nearly all of them
	}
	if !domain.IsASCII(pattern) {
		c.unicode = true
	}
	if _, err := parsePattern(string(pattern)); err != nil {
		return fmt.Sprintf("expected a domain, a .suffix, an address in brackets or nothing before the colon, found %s", found(string(pattern)))
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

// cutRoute cuts a line at the colon behind the pattern. Colons inside the brackets of a
// literal do not count.
func cutRoute(entry []byte) (pattern, relay []byte, ok bool) {
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

// parsePattern reads a domain, a .suffix, a literal, or nothing, and returns the form
// that is compared with a host: lower case, A-labels, no final dot.
func parsePattern(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	suffix, isSuffix := strings.CutPrefix(s, ".")
	d, err := domain.Parse(suffix)
	switch {
	case err != nil:
		return "", err
	case !isSuffix:
		return d.String(), nil
	case d.Addr().IsValid():
		return "", errors.New("nothing ends in an address")
	}
	return "." + d.String(), nil
}

// parseRelay parses what follows the pattern's colon: relay or relay:port. problem says
// what is wrong, and is "" if nothing is.
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
		literal, err := domain.Parse(host)
		if err != nil {
			return Relay{}, fmt.Sprintf("expected an address in brackets as the relay, found %s", found(host))
		}
		relay.Addr = literal.Addr()
		return relay, ""
	}
	if addr, err := netip.ParseAddr(host); err == nil && addr.Is4() {
		relay.Addr = addr
		return relay, ""
	}
	name, err := domain.HostName(host)
	if err != nil {
		return Relay{}, fmt.Sprintf("expected a host name, an IPv4 address, an address in brackets or nothing as the relay, found %s", found(host))
	}
	relay.Host = name
	return relay, ""
}

// foundPort is found for a port. It ends before the first byte that neither a number
// nor a service's name has: a password may follow a second colon.
func foundPort(port string) string {
	return foundUpTo(port, strings.IndexFunc(port, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-'
	}))
}

// isPlainRelay reports, without allocating, whether relay is a host name with or
// without a port, as nearly all are. If it is not, parseRelay decides.
func isPlainRelay(relay []byte) bool {
	host, port, hasPort := bytes.Cut(relay, []byte(":"))
	if !domain.IsName(host) || '0' <= host[len(host)-1] && host[len(host)-1] <= '9' {
		return false
	}
	if !hasPort {
		return true
	}
	_, ok := parsePort(port)
	return ok
}

// cutPort cuts at the colon behind the relay. Colons inside brackets do not count.
func cutPort(s string) (host, port string, hasPort bool) {
	if strings.HasPrefix(s, "[") {
		if n := strings.IndexByte(s, ']') + 1; n > 0 && n < len(s) && s[n] == ':' {
			return s[:n], s[n+1:], true
		}
		return s, "", false
	}
	return strings.Cut(s, ":")
}

// bracketHint explains the most frequent cause of a bad port.
func bracketHint(s string) string {
	if addr, err := netip.ParseAddr(s); err == nil && addr.Is6() {
		return fmt.Sprintf("; an IPv6 address stands in brackets: [%s]", addr)
	}
	return ""
}

// A search is one lookup on its way through a table.
type search struct {
	host    string
	unicode bool // some patterns may be beyond ASCII

	rank  int    // of the best route so far: see match; -1: none
	relay []byte // a copy of what follows its pattern's colon
	line  int
}

// block goes through a piece of the table.
func (s *search) block(block []byte, before int) {
	for line := before + 1; len(block) > 0; line++ {
		var entry []byte
		entry, block = cutLine(block)
		if len(entry) == 0 || entry[0] == '#' {
			continue
		}
		pattern, relay, ok := cutRoute(entry)
		if !ok {
			continue // checked before
		}
		if rank := s.match(pattern); rank >= 0 && rank >= s.rank {
			s.rank, s.line = rank, line
			s.relay = append(s.relay[:0], relay...)
		}
	}
}

// match ranks a route by the length of what its pattern matches. A whole domain ranks
// above every suffix. The rank is -1 if the pattern does not match.
func (s *search) match(pattern []byte) int {
	if len(pattern) == 0 {
		return 0
	}
	literal := pattern[0] == '['
	if literal || pattern[len(pattern)-1] == '.' || s.unicode && !domain.IsASCII(pattern) {
		if literal && !strings.HasPrefix(s.host, "[") {
			return -1
		}
		parsed, err := parsePattern(string(pattern))
		if err != nil {
			return -1
		}
		pattern = []byte(parsed)
	}
	switch rest := len(s.host) - len(pattern); {
	case rest == 0 && equalFold(pattern, s.host):
		return len(s.host) + 1
	case rest > 0 && pattern[0] == '.' && equalFold(pattern, s.host[rest:]):
		return len(pattern)
	}
	return -1
}

// equalFold compares two texts of the same length without case. b is in lower case.
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
