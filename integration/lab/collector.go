package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"unicode/utf8"
)

// A Collector is what tlsrpt-collectd is to a router: a Unix datagram socket. What it gets must be,
// byte for byte, what libtlsrpt 0.5 sends, and keep to RFC 8460.
type Collector struct {
	conn *net.UnixConn
	path string
	done chan struct{} // closed when nobody reads any more; nil: nobody ever has
	call chan struct{} // gets a value when a call is read

	mu   sync.Mutex
	told []Told
	errs []error
}

// A Told is a datagram.
type Told struct {
	Raw      string
	Domain   string // that asks for reports
	Record   string // by which it does
	Policies []ToldPolicy
}

// A ToldPolicy is a policy that applied, and what failed.
type ToldPolicy struct {
	Type    int // 1 TLSA, 2 MTA-STS, 9 none
	Domain  string
	Strings []string
	MXHosts []string
	Failure *ToldFailure // nil: nothing
}

// A ToldFailure is what failed. What is not said is empty.
type ToldFailure struct {
	Code         int
	Ours, Theirs string // addresses
	Exchanger    string
	Reason       string
}

// maxTold is the longest datagram that is taken, in bytes.
const maxTold = 32768

// StartCollector listens at path.
func StartCollector(path string) (*Collector, error) {
	c, err := listenCollector(path)
	if err != nil {
		return nil, err
	}
	c.done = make(chan struct{})
	go c.read()
	return c, nil
}

// StartFullCollector listens at path and reads nothing, and its queue is full.
func StartFullCollector(path string) (*Collector, error) {
	c, err := listenCollector(path)
	if err != nil {
		return nil, err
	}
	if err := c.fill(); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func listenCollector(path string) (*Collector, error) {
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, err
	}
	return &Collector{conn: conn, path: path, call: make(chan struct{}, 1)}, nil
}

// fill fills the queue.
func (c *Collector) fill() error {
	conn, err := c.dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	for full := false; !full; {
		err := raw.Write(func(fd uintptr) bool {
			_, err := syscall.Write(int(fd), []byte("x")) // it does not wait
			full = err != nil && err != syscall.EINTR
			return true
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *Collector) dial() (*net.UnixConn, error) {
	return net.DialUnix("unixgram", nil, &net.UnixAddr{Name: c.path, Net: "unixgram"})
}

// call is a datagram of our own, behind which nothing is left of those before it.
const call = "call"

func (c *Collector) read() {
	defer close(c.done)
	buf := make([]byte, 1<<17)
	for {
		n, err := c.conn.Read(buf)
		if err != nil {
			return
		}
		if string(buf[:n]) == call {
			c.call <- struct{}{}
			continue
		}
		told, err := ParseTold(string(buf[:n]))
		c.mu.Lock()
		c.told = append(c.told, told)
		if err != nil {
			c.errs = append(c.errs, fmt.Errorf("%w: %q", err, buf[:n]))
		}
		c.mu.Unlock()
	}
}

// Told returns all datagrams that were sent before.
func (c *Collector) Told() ([]Told, error) {
	if c.done == nil {
		return nil, nil
	}
	conn, err := c.dial()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(call)); err != nil {
		return nil, err
	}
	<-c.call
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.told), nil
}

// Wrong returns what was wrong with the datagrams so far.
func (c *Collector) Wrong() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return errors.Join(c.errs...)
}

// Close removes the socket.
func (c *Collector) Close() error {
	err := c.conn.Close()
	if c.done != nil {
		<-c.done
	}
	return err
}

// ParseTold reads a datagram. The error says what is not as it should be.
func ParseTold(text string) (Told, error) {
	told := Told{Raw: text}
	r := &toldReader{rest: text}
	r.want(`{"dpv": "1","d": `)
	told.Domain = r.text()
	r.want(`,"pr": `)
	told.Record = r.text()
	r.want(`,"policies":[`)
	for first := true; r.err == nil && (first || r.skip(",")); first = false {
		told.Policies = append(told.Policies, r.policy())
	}
	r.want("]}")
	if r.err == nil && r.rest != "" {
		r.fail("%q behind the end", r.rest)
	}
	if r.err == nil {
		r.err = told.check()
	}
	return told, r.err
}

// A toldReader reads what is left of a datagram.
type toldReader struct {
	rest string
	err  error // the first
}

func (r *toldReader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf(format, args...)
	}
}

func (r *toldReader) skip(text string) bool {
	rest, found := strings.CutPrefix(r.rest, text)
	r.rest = rest
	return found
}

func (r *toldReader) want(text string) {
	if !r.skip(text) {
		r.fail("no %s at %.40q", text, r.rest)
	}
}

func (r *toldReader) policy() (p ToldPolicy) {
	r.want(`{"policy-type":`)
	p.Type = r.number()
	r.want(`,"policy-domain": `)
	p.Domain = r.text()
	if r.skip(`,"policy-string":`) {
		p.Strings = r.list()
	}
	if r.skip(`,"mx-host":`) {
		p.MXHosts = r.list()
	}
	if r.skip(`,"failure-details":[`) {
		p.Failure = r.failure()
		r.want("]")
	}
	r.want(`,"t":`)
	failed := r.number()
	r.want(`,"f":`)
	if result := r.number(); result != failed || (failed == 1) != (p.Failure != nil) {
		r.fail("t %d and f %d do not fit the failures", failed, result)
	}
	r.want("}")
	return p
}

func (r *toldReader) failure() *ToldFailure {
	f := new(ToldFailure)
	r.want(`{"c":`)
	f.Code = r.number()
	for _, member := range []struct {
		name string
		to   *string
	}{{"s", &f.Ours}, {"n", &f.Exchanger}, {"r", &f.Theirs}, {"f", &f.Reason}} {
		if r.skip(`,"` + member.name + `": `) {
			*member.to = r.text()
		}
	}
	r.want("}")
	return f
}

func (r *toldReader) number() int {
	digits := r.rest[:len(r.rest)-len(strings.TrimLeft(r.rest, "0123456789"))]
	r.rest = r.rest[len(digits):]
	n, err := strconv.Atoi(digits)
	if err != nil || strconv.Itoa(n) != digits {
		r.fail("%q is no number", digits)
	}
	return n
}

func (r *toldReader) list() (values []string) {
	r.want("[")
	for first := true; r.err == nil && (first || r.skip(",")); first = false {
		values = append(values, r.text())
	}
	r.want("]")
	return values
}

// toldText is a string that is not empty: what has an escape is not there as it is, and nothing else is escaped.
var toldText = regexp.MustCompile(`\A"((?:[^\x00-\x1f\x7f"\\]|\\[bfnrt\\"]|\\u00[01][0-9a-f]|\\u007f)+)"`)

var toldEscape = regexp.MustCompile(`\\(?:[bfnrt\\"]|u00..)`)

func (r *toldReader) text() string {
	quoted := toldText.FindStringSubmatch(r.rest)
	if quoted == nil || !utf8.ValidString(quoted[1]) {
		r.fail("no string at %.40q", r.rest)
		return ""
	}
	r.rest = r.rest[len(quoted[0]):]
	return toldEscape.ReplaceAllStringFunc(quoted[1], func(escape string) string {
		if i := strings.IndexByte(`bfnrt\"`, escape[1]); i >= 0 {
			return "\b\f\n\r\t\\\""[i : i+1]
		}
		n, _ := strconv.ParseUint(escape[2:], 16, 8)
		if b := string([]byte{byte(n)}); strings.ContainsAny(b, "\b\f\n\r\t") {
			r.fail("%s has a shorter escape", escape)
		}
		return string([]byte{byte(n)})
	})
}

// check looks at what a datagram says.
func (d *Told) check() error {
	var types []int
	for _, p := range d.Policies {
		types = append(types, p.Type)
		if err := p.check(d.Domain); err != nil {
			return fmt.Errorf("policy of type %d: %w", p.Type, err)
		}
	}
	switch {
	case len(d.Raw) > maxTold:
		return fmt.Errorf("%d bytes", len(d.Raw))
	case !isToldName(d.Domain):
		return fmt.Errorf("%q is no domain", d.Domain)
	case !strings.HasPrefix(d.Record, "v=TLSRPTv1"):
		return fmt.Errorf("%q is no record", d.Record)
	case !slices.ContainsFunc([][]int{{1}, {2}, {1, 2}, {9}}, func(known []int) bool { return slices.Equal(known, types) }):
		return fmt.Errorf("policies of the types %d", types)
	}
	return nil
}

var toldTLSA = regexp.MustCompile(`\A\d{1,3} \d{1,3} \d{1,3} [0-9A-F]+\z`)

func (p *ToldPolicy) check(domain string) error {
	switch {
	case !isToldName(p.Domain), p.Type != 1 && p.Domain != domain:
		return fmt.Errorf("it is of %q", p.Domain)
	case p.Type == 1 && !slices.IsSorted(p.Strings):
		return errors.New("the records are not sorted")
	case p.Type == 1 && slices.ContainsFunc(p.Strings, func(s string) bool { return !toldTLSA.MatchString(s) }):
		return fmt.Errorf("%q are no records", p.Strings)
	case p.Type == 2 && slices.ContainsFunc(p.Strings, func(s string) bool { return strings.TrimRight(s, " \t\r\n") != s }):
		return fmt.Errorf("lines of the policy have blanks at their end: %q", p.Strings)
	case p.Type == 2 && (p.Strings == nil) != (p.MXHosts == nil), p.Type != 2 && p.MXHosts != nil, p.Type == 9 && p.Strings != nil:
		return fmt.Errorf("strings %q and mx-host %q", p.Strings, p.MXHosts)
	case slices.ContainsFunc(p.MXHosts, func(s string) bool { return !isToldName(strings.TrimPrefix(s, "*.")) }):
		return fmt.Errorf("mx-host %q", p.MXHosts)
	case p.Failure != nil:
		return p.Failure.check(p.Type)
	}
	return nil
}

// toldCodes are the codes that a policy of each type can have.
var toldCodes = map[int][]int{1: {201, 202, 203, 204, 205, 304, 305, 306}, 2: {201, 202, 203, 204, 205, 301, 302, 303}, 9: {201, 205}}

func (f *ToldFailure) check(of int) error {
	ours, err := netip.ParseAddr(f.Ours)
	theirs, err2 := netip.ParseAddr(f.Theirs)
	connected := f.Ours != "" || f.Theirs != ""
	switch {
	case !slices.Contains(toldCodes[of], f.Code):
		return fmt.Errorf("code %d", f.Code)
	case f.Code > 300 && f.Code != 304 && connected, f.Code < 205 && !connected, f.Code == 304 && !connected:
		return fmt.Errorf("code %d from %q to %q", f.Code, f.Ours, f.Theirs)
	case connected && (err != nil || err2 != nil || ours.Unmap().String() != f.Ours || theirs.Unmap().String() != f.Theirs):
		return fmt.Errorf("from %q to %q", f.Ours, f.Theirs)
	case f.Exchanger != "" && !isToldName(f.Exchanger):
		return fmt.Errorf("exchanger %q", f.Exchanger)
	case len(f.Reason) > 200, strings.ContainsAny(f.Reason, " \t"):
		return fmt.Errorf("reason %q", f.Reason)
	}
	return nil
}

// isToldName reports whether name is in lower case and A-labels, and has no final dot.
func isToldName(name string) bool {
	return regexp.MustCompile(`\A[a-z0-9_-]+(\.[a-z0-9_-]+)*\z`).MatchString(name)
}

// String is for a person: each policy with its type, domain, number of entries, and what failed.
func (d Told) String() string {
	var all []string
	for _, p := range d.Policies {
		words := fmt.Sprintf("%d %s %d/%d", p.Type, p.Domain, len(p.Strings), len(p.MXHosts))
		if f := p.Failure; f != nil {
			words += strings.TrimRight(fmt.Sprintf(" %d %s", f.Code, f.Reason), " ")
			for _, place := range []string{f.Exchanger, f.Ours, f.Theirs} {
				if place == "" {
					place = "-"
				}
				words += " " + place
			}
		} else {
			words += " good"
		}
		all = append(all, words)
	}
	return d.Domain + ": " + strings.Join(all, "; ")
}
