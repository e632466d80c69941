package remote

import (
	"bufio"
	"context"
	crand "crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/miekg/dns"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/control/regular"
	"nightmare.mail/mxf/remote/report"
	"nightmare.mail/mxf/remote/stack"
)

const (
	// maxServers bounds the name servers that are asked; djbdns reads as many.
	maxServers = 16
	// maxParallel bounds the queries under way at once, each of which holds a
	// socket: a process may have 1,024 descriptors. All exchangers have their turn.
	maxParallel = 64
	// maxKept bounds the addresses kept of one lookup: an answer can have 4,000, and
	// a delivery has many lookups.
	maxKept = 40
	// maxCNAMEs bounds a chain of aliases, which may be a loop.
	maxCNAMEs = 10
	// payload is the UDP size announced with EDNS0: the largest that is never
	// fragmented on its way (DNS flag day 2020).
	payload = 1232
	// maxDatagram is more than a server may send by UDP, which is to be noticed.
	maxDatagram = 4096
	// maxWrongAnswers bounds the stray datagrams read for one query, lest a flood
	// of them keep a processor busy.
	maxWrongAnswers = 1000
	// leastTCP is the time that a query by TCP has at least: it takes two round
	// trips, and the server has the answer already.
	leastTCP = 5 * time.Second
	// unlimitedLookup ends a lookup when timeoutdns sets no limit, because
	// nothing may wait for ever.
	unlimitedLookup = 2 * time.Minute
)

// patience is how long each server is waited for, round by round. The first is
// short, so that a dead server costs little; the later ones leave time to a cache
// that must ask far away. (The rounds of djbdns are alike.)
var patience = [...]time.Duration{1 * time.Second, 3 * time.Second, 9 * time.Second, 27 * time.Second}

// errNoName says that a name does not exist (NXDOMAIN, RFC 2308 section 2.1).
var errNoName = errors.New("no such name")

// NewResolver returns a Resolver of the name servers in dnscacheip, the value of
// $DNSCACHEIP, or, when it names none, of those in the file resolvConf, see
// resolv.conf(5), or, when that is missing or names none, of this host's own.
// They are 16 at most. An error is a *report.Error of case ControlFiles.
func NewResolver(dnscacheip, resolvConf string) (*Resolver, error) {
	r := new(Resolver)
	var servers []netip.AddrPort
	for _, field := range strings.FieldsFunc(dnscacheip, func(r rune) bool { return strings.ContainsRune(" \t,/", r) }) {
		server, ok := parseServer(field)
		if !ok {
			return nil, unreadable(fmt.Sprintf("$DNSCACHEIP: %q is not an IP address with or without a port", field))
		}
		servers = append(servers, server)
	}
	if len(servers) == 0 {
		var err error
		if servers, err = r.readResolvConf(resolvConf); err != nil {
			return nil, unreadable(fmt.Sprintf("%s: expected a file that can be read, or the name servers in $DNSCACHEIP: %v", resolvConf, systemError(err)))
		}
	}
	for _, s := range servers {
		if !slices.Contains(r.Servers, s) && len(r.Servers) < maxServers {
			r.Servers = append(r.Servers, s)
		}
	}
	return r, nil
}

func unreadable(reason string) *report.Error {
	return &report.Error{Case: report.ControlFiles, Facts: report.Facts{Reason: reason}}
}

const dnsPort = 53

// parseServer reads 127.0.0.1, 127.0.0.1:5300, ::1, and either in brackets, [::1] and
// [::1]:5300.
func parseServer(text string) (netip.AddrPort, bool) {
	port := uint64(dnsPort)
	if host, digits, err := net.SplitHostPort(text); err == nil {
		if port, err = strconv.ParseUint(digits, 10, 16); err != nil || port == 0 {
			return netip.AddrPort{}, false
		}
		text = host
	} else if inner, ok := strings.CutPrefix(text, "["); ok {
		if text, ok = strings.CutSuffix(inner, "]"); !ok {
			return netip.AddrPort{}, false
		}
	}
	addr, err := netip.ParseAddr(text)
	return netip.AddrPortFrom(addr, uint16(port)), err == nil
}

// readResolvConf reads the nameserver lines of resolv.conf(5), and of the options
// the one that has it ask by TCP. Like the C library it passes over what it does
// not understand, as the file is not ours.
func (r *Resolver) readResolvConf(path string) ([]netip.AddrPort, error) {
	local := []netip.AddrPort{
		netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), dnsPort),
		netip.AddrPortFrom(netip.IPv6Loopback(), dnsPort),
	}
	f, _, err := regular.Open(path, os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		r.guess = "there is no " + path
		return local, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var servers []netip.AddrPort
	lines := bufio.NewScanner(io.LimitReader(f, control.MaxFile))
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		switch {
		case len(fields) < 2:
		case fields[0] == "options":
			// As glibc, FreeBSD and OpenBSD call it.
			for _, option := range fields[1:] {
				r.tcp = r.tcp || option == "use-vc" || option == "usevc" || option == "tcp"
			}
		case fields[0] == "nameserver":
			if addr, err := netip.ParseAddr(fields[1]); err == nil {
				servers = append(servers, netip.AddrPortFrom(addr, dnsPort))
			}
		}
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if len(servers) == 0 {
		r.guess = path + " names no name server"
		return local, nil
	}
	return servers, nil
}

// A Resolver asks caching name servers (RFC 1034 section 5.3, RFC 6891). It may
// be used by many goroutines and must not be copied.
type Resolver struct {
	Servers []netip.AddrPort // asked in this order; those after the sixteenth are not
	IDs     io.Reader        // source of query ids; nil: crypto/rand

	tcp   bool   // resolv.conf wants TCP alone
	guess string // why Servers are this host's own, which nobody has named; else empty

	answering atomic.Int32            // the server that gave the last good answer is asked first
	plain     [maxServers]atomic.Bool // servers that EDNS0 does not get to
}

// A lookup is one question and, once it is done, what came of it.
type lookup struct {
	name  string // without the final dot
	qtype uint16

	records []dns.RR     // those of qtype at the end of the chain of aliases, of addresses the first; none: the name has no such data
	addrs   []netip.Addr // all addresses among them, unmapped
	cut     int          // how many more records there were
	err     error        // errNoName, or anything else, which is temporary
	notes   []string     // what happened on the way, for the trace
	took    time.Duration
}

// start does the lookups at the same time, but for maxParallel, and sends each
// to the channel when it is done. They end with ctx at the latest.
func (r *Resolver) start(ctx context.Context, lookups []*lookup) <-chan *lookup {
	done := make(chan *lookup, len(lookups))
	var next atomic.Int32
	for range min(len(lookups), maxParallel) {
		go func() {
			stack.Grow()
			for {
				i := int(next.Add(1)) - 1
				if i >= len(lookups) {
					return
				}
				r.do(ctx, lookups[i])
				done <- lookups[i]
			}
		}()
	}
	return done
}

// do answers l, and turns a panic into its error.
func (r *Resolver) do(ctx context.Context, l *lookup) {
	began := time.Now()
	defer func() {
		if p := recover(); p != nil {
			l.records, l.err = nil, fmt.Errorf("panic during lookup: %v", p)
		}
		l.took = time.Since(began)
	}()
	ctx, cancel := context.WithTimeout(ctx, unlimitedLookup)
	defer cancel()
	records, err := r.chase(ctx, l)
	l.records, l.err = records, err
	if l.qtype == dns.TypeA || l.qtype == dns.TypeAAAA {
		l.addrs = addresses(records)
		if l.cut = max(0, len(records)-maxKept); l.cut > 0 {
			l.records = slices.Clone(records[:maxKept])
		}
	}
}

// chase asks for l and follows aliases, also those that the server left to us.
func (r *Resolver) chase(ctx context.Context, l *lookup) ([]dns.RR, error) {
	name, aliases := dns.Fqdn(l.name), 0
	for {
		a, err := r.query(ctx, l, name, aliases)
		switch {
		case err != nil:
			return nil, err
		case a.noName:
			return nil, errNoName
		case a.alias == "":
			return a.records, nil
		}
		name, aliases = a.alias, a.aliases
	}
}

// An answer is what a server knows: records, or that there are none, or no such name,
// or an alias that is to be asked for.
type answer struct {
	records []dns.RR
	noName  bool
	alias   string
	aliases int // how many so far
}

// judge reads m, which is to answer for name, and is as good as none unless it has
// records or a denial, because bounces rest on denials. A denial is whole, comes
// from a server that looks names up, or is in charge of this one, or shows the
// zone's SOA, and has no record under the name. At the end of a chain of aliases it
// must show the SOA (RFC 2308 section 2.2): without it the server may just not have
// looked, and the alias is asked for.
func judge(m *dns.Msg, name string, qtype uint16, aliases int) (*answer, error) {
	switch m.Rcode {
	case dns.RcodeSuccess, dns.RcodeNameError:
	case dns.RcodeServerFailure:
		return nil, errors.New("server failure")
	case dns.RcodeRefused:
		return nil, errors.New("the server refuses to answer")
	default:
		if text, ok := dns.RcodeToString[m.Rcode]; ok {
			return nil, fmt.Errorf("the server answers %s", text)
		}
		return nil, fmt.Errorf("the server answers with response code %d", m.Rcode)
	}
	if m.Truncated {
		return nil, errors.New("the server's answer is cut by TCP too")
	}
	records, end, err := follow(m, name, qtype, &aliases)
	noName := m.Rcode == dns.RcodeNameError
	switch {
	case err != nil:
		return nil, err
	case len(records) > 0 && noName:
		return nil, errors.New("the server says that there is no such name and gives its records")
	case len(records) > 0:
		return &answer{records: records}, nil
	case !m.RecursionAvailable && !m.Authoritative && !slices.ContainsFunc(m.Ns, isSOA):
		return nil, errors.New("the server neither looks up names nor is in charge of this one")
	case end == name && len(m.Answer) > 0:
		return nil, errors.New("the server answers with other records")
	case end == name, deniedBy(m, end):
		// With aliases it is the last name that does not exist (RFC 6604 section 2.1).
		return &answer{noName: noName}, nil
	}
	return &answer{alias: end, aliases: aliases}, nil
}

// follow walks the aliases in m's answer from name on. It returns the records of
// qtype where they end, and that name; aliases counts them for the whole lookup.
func follow(m *dns.Msg, name string, qtype uint16, aliases *int) ([]dns.RR, string, error) {
	for {
		var records []dns.RR
		alias := ""
		for _, rr := range m.Answer {
			h := rr.Header()
			if h.Class != dns.ClassINET || !strings.EqualFold(h.Name, name) {
				continue
			}
			if h.Rrtype == qtype {
				records = append(records, rr)
			} else if cname, ok := rr.(*dns.CNAME); ok {
				alias = cname.Target
			}
		}
		if len(records) > 0 || alias == "" {
			return records, name, nil
		}
		if *aliases++; *aliases > maxCNAMEs {
			return nil, "", fmt.Errorf("more than %d CNAMEs, or a loop of them", maxCNAMEs)
		}
		name = alias
	}
}

// deniedBy reports whether m shows the SOA of name's zone, and no record of name, the
// end of a chain of aliases.
func deniedBy(m *dns.Msg, name string) bool {
	return slices.ContainsFunc(m.Ns, func(rr dns.RR) bool {
		return isSOA(rr) && dns.IsSubDomain(rr.Header().Name, name)
	}) && !slices.ContainsFunc(m.Answer, func(rr dns.RR) bool {
		return strings.EqualFold(rr.Header().Name, name)
	})
}

func isSOA(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeSOA }

// query asks the servers, one after the other and in rounds, until one answers
// for name. A server that says that it cannot tell is not asked again. Once one was
// silent the rest are asked without EDNS0: a firewall may let only that pass.
func (r *Resolver) query(ctx context.Context, l *lookup, name string, aliases int) (*answer, error) {
	n := min(len(r.Servers), maxServers)
	if n == 0 {
		return nil, errors.New("no name server is known")
	}
	first := int(r.answering.Load()) % n
	var settled, silent [maxServers]bool
	edns := true
	var last, said error // said by a server, not by its absence
	for _, wait := range patience {
		left := n
		for i := range n {
			s := (first + i) % n
			if settled[s] {
				left--
				continue
			}
			m, err := r.ask(ctx, s, name, l.qtype, edns, wait)
			if err == nil {
				var a *answer
				if a, err = judge(m, name, l.qtype, aliases); err == nil {
					r.answering.Store(int32(s))
					if silent[s] {
						r.plain[s].Store(true)
					}
					return a, nil
				}
				said = err
			}
			switch ctx.Err() {
			case nil:
			case context.Canceled:
				return nil, errors.New("not waited for any longer")
			default:
				if last == nil {
					last = tooLate(r.Servers[s])
				}
				return nil, r.why(last, said)
			}
			l.notes = append(l.notes, r.Servers[s].String()+": "+err.Error())
			if last = fmt.Errorf("%s: %w", r.Servers[s], err); isTimeout(err) {
				last = tooLate(r.Servers[s])
				silent[s] = silent[s] || edns
				edns = false
				continue
			}
			settled[s] = true
			left--
		}
		if left == 0 {
			break
		}
	}
	return nil, r.why(last, said)
}

// why is what is reported when no server has answered: the last reason. Where
// nobody has named any servers, that is the reason, and not that this host's own are
// not there.
func (r *Resolver) why(last, said error) error {
	switch {
	case r.guess == "":
		return last
	case said != nil:
		return fmt.Errorf("%s, and this machine's own: %w", r.guess, said)
	}
	return fmt.Errorf("%s, and none answers on this machine", r.guess)
}

func tooLate(server netip.AddrPort) error { return fmt.Errorf("%s: no answer in time", server) }

// noAnswer is one try's timeout.
type noAnswer time.Duration

func (d noAnswer) Error() string {
	return fmt.Sprintf("no answer in %v", time.Duration(d).Round(time.Millisecond))
}
func (noAnswer) Timeout() bool { return true }

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

// ask asks one server, by UDP with EDNS0, again without it if the server may not
// know what that is, and by TCP if the answer does not fit, or is not to be used.
func (r *Resolver) ask(ctx context.Context, server int, name string, qtype uint16, edns bool, wait time.Duration) (*dns.Msg, error) {
	addr := r.Servers[server]
	if r.tcp {
		return r.exchange(ctx, "tcp", addr, name, qtype, false, max(wait, leastTCP))
	}
	edns = edns && !r.plain[server].Load()
	m, err := r.exchange(ctx, "udp", addr, name, qtype, edns, wait)
	if err == nil && edns && mayRefuseEDNS(m.Rcode) {
		// Whether it was EDNS0 that it refused is seen when it likes the plain query better.
		again, err2 := r.exchange(ctx, "udp", addr, name, qtype, false, wait)
		if err2 == nil && refusesEDNS(m.Rcode) && !mayRefuseEDNS(again.Rcode) {
			r.plain[server].Store(true)
		}
		if err2 == nil || refusesEDNS(m.Rcode) {
			m, err = again, err2
		}
	}
	var unusable unusableAnswer
	reason := "a truncated answer"
	switch {
	case errors.As(err, &unusable):
		reason = string(unusable)
	case err != nil || !m.Truncated:
		return m, err
	}
	m, err = r.exchange(ctx, "tcp", addr, name, qtype, false, max(wait, leastTCP))
	if err != nil {
		return nil, fmt.Errorf("by TCP after %s: %w", reason, err)
	}
	return m, nil
}

// An unusableAnswer has come by UDP, and TCP may have a better one.
type unusableAnswer string

const (
	malformed unusableAnswer = "an answer that cannot be read"
	overlong  unusableAnswer = "an answer longer than promised"
)

func (a unusableAnswer) Error() string { return "the server has given " + string(a) }

// refusesEDNS reports whether rcode is the answer of a server that knows no EDNS0
// (RFC 6891 section 7); mayRefuseEDNS, of one that may just not say so.
func refusesEDNS(rcode int) bool {
	return rcode == dns.RcodeFormatError || rcode == dns.RcodeNotImplemented || rcode == dns.RcodeBadVers
}

func mayRefuseEDNS(rcode int) bool {
	return refusesEDNS(rcode) || rcode == dns.RcodeServerFailure || rcode == dns.RcodeRefused
}

// exchange sends one query from a new socket, whose port the kernel chooses at
// random, and waits for the answer to it.
func (r *Resolver) exchange(ctx context.Context, network string, server netip.AddrPort, name string, qtype uint16, edns bool, wait time.Duration) (*dns.Msg, error) {
	began := time.Now()
	query, err := r.newQuery(name, qtype, edns)
	if err != nil {
		return nil, err
	}
	deadline := began.Add(wait)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	dialer := net.Dialer{Deadline: deadline}
	conn, err := dialer.DialContext(ctx, network, server.String())
	if err != nil {
		return nil, describe(err, began)
	}
	defer conn.Close()
	if err := conn.SetDeadline(deadline); err != nil {
		return nil, describe(err, began)
	}
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	if network == "tcp" {
		err = writeFramed(conn, query)
	} else {
		_, err = conn.Write(query)
	}
	if err != nil {
		return nil, describe(err, began)
	}
	promised := 0
	switch {
	case network == "tcp":
	case edns:
		promised = payload
	default:
		promised = dns.MinMsgSize
	}
	m, err := await(conn, promised, binary.BigEndian.Uint16(query), name, qtype)
	if err != nil {
		return nil, describe(err, began)
	}
	return m, nil
}

// describe takes from a socket's error what a report has no use for.
func describe(err error, began time.Time) error {
	if isTimeout(err) {
		return noAnswer(time.Since(began))
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the connection was closed before the answer")
	}
	return err
}

// newQuery returns a query with recursion desired and a random id.
func (r *Resolver) newQuery(name string, qtype uint16, edns bool) ([]byte, error) {
	ids := r.IDs
	if ids == nil {
		ids = crand.Reader
	}
	var id [2]byte
	if _, err := io.ReadFull(ids, id[:]); err != nil {
		return nil, fmt.Errorf("no random number: %w", err)
	}
	m := dns.Msg{Question: []dns.Question{{Name: name, Qtype: qtype, Qclass: dns.ClassINET}}}
	m.Id, m.RecursionDesired = binary.BigEndian.Uint16(id[:]), true
	if edns {
		opt := &dns.OPT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT}}
		opt.SetUDPSize(payload)
		m.Extra = []dns.RR{opt}
	}
	return m.PackBuffer(make([]byte, 512))
}

func writeFramed(w io.Writer, query []byte) error {
	_, err := w.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(query))), query...))
	return err
}

func readFramed(r io.Reader) ([]byte, error) {
	var size [2]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	b := make([]byte, binary.BigEndian.Uint16(size[:]))
	_, err := io.ReadFull(r, b)
	return b, err
}

// await reads until the answer to the query comes, in a datagram of at most promised
// bytes, or, where that is 0, framed. What has another id or another question is not
// for us, or is a forgery, and is passed over.
func await(conn net.Conn, promised int, id uint16, name string, qtype uint16) (*dns.Msg, error) {
	framed := promised == 0
	var datagram []byte
	if !framed {
		datagram = make([]byte, maxDatagram)
	}
	for range maxWrongAnswers {
		var b []byte
		var err error
		if framed {
			b, err = readFramed(conn)
		} else {
			var n int
			n, err = conn.Read(datagram)
			b = datagram[:n]
		}
		if err != nil {
			return nil, err
		}
		m, err := parseAnswer(b, id, name, qtype)
		if (m != nil || err != nil) && !framed && len(b) > promised {
			return nil, overlong
		}
		if m != nil || err != nil {
			return m, err
		}
	}
	return nil, fmt.Errorf("%d answers to other questions", maxWrongAnswers)
}

// parseAnswer returns the answer in b if it belongs to the query, nil if it does
// not, and an error if it seems to but cannot be read.
func parseAnswer(b []byte, id uint16, name string, qtype uint16) (*dns.Msg, error) {
	const header, response, truncated = 12, 0x80, 0x02
	if len(b) < header || binary.BigEndian.Uint16(b) != id || b[2]&response == 0 {
		return nil, nil
	}
	m := new(dns.Msg)
	err := m.Unpack(b)
	if !answers(m, name, qtype) {
		if err != nil && len(m.Question) == 0 {
			return nil, malformed
		}
		return nil, nil
	}
	if (err != nil || !whole(m, b)) && b[2]&truncated == 0 { // truncated within a record: TCP will have it whole
		return nil, malformed
	}
	return m, nil
}

// whole reports whether m has all that the header of b announces, and each record has
// data. Unpack asks for neither: an answer that ends between two records, and records
// without data, would pass for a denial, or one record of many for the only one.
// What records rest on is the answer section alone. A refusal may be a bare header.
func whole(m *dns.Msg, b []byte) bool {
	if m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError {
		return true
	}
	const answers, authority = 6, 8 // where the header has their numbers
	count := func(at int) int { return int(binary.BigEndian.Uint16(b[at:])) }
	bare := func(rr dns.RR) bool { return rr.Header().Rdlength == 0 }
	return len(m.Answer) == count(answers) && !slices.ContainsFunc(m.Answer, bare) &&
		(len(m.Answer) > 0 || len(m.Ns) == count(authority) && !slices.ContainsFunc(m.Ns, bare))
}

// answers reports whether m repeats the question. A server that could not read it,
// or refuses it unread, need not.
func answers(m *dns.Msg, name string, qtype uint16) bool {
	if m.Opcode != dns.OpcodeQuery {
		return false
	}
	if len(m.Question) == 0 {
		return m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError
	}
	q := m.Question[0]
	return len(m.Question) == 1 && q.Qtype == qtype && q.Qclass == dns.ClassINET && strings.EqualFold(q.Name, name)
}

// maxTracedRecords bounds the records of one answer that a trace shows.
const maxTracedRecords = 12

// String returns the trace line of a finished lookup.
func (l *lookup) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "lookup %s %s: ", dns.TypeToString[l.qtype], l.name)
	switch {
	case l.err != nil:
		b.WriteString(l.err.Error())
	case len(l.records) == 0:
		b.WriteString("no data")
	}
	for i, rr := range l.records {
		if i == maxTracedRecords {
			fmt.Fprintf(&b, " and %d more", len(l.records)-i+l.cut)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		// The header repeats the question, or an alias of it.
		b.WriteString(strings.ReplaceAll(strings.TrimPrefix(rr.String(), rr.Header().String()), "\t", " "))
	}
	b.WriteString(" (" + strconv.FormatInt(l.took.Milliseconds(), 10) + " ms)")
	return b.String()
}

// addresses returns those in records, unmapped.
func addresses(records []dns.RR) []netip.Addr {
	addrs := make([]netip.Addr, 0, len(records))
	for _, rr := range records {
		var ip net.IP
		switch rr := rr.(type) {
		case *dns.A:
			ip = rr.A
		case *dns.AAAA:
			ip = rr.AAAA
		}
		if addr, ok := netip.AddrFromSlice(ip); ok {
			addrs = append(addrs, addr.Unmap())
		}
	}
	return addrs
}
