package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"nightmare.mail/mxf/remote/report"
)

func TestNewResolver(t *testing.T) {
	dir := t.TempDir()
	file := func(content string) string {
		path := filepath.Join(dir, strconv.Itoa(len(content)))
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	missing := filepath.Join(dir, "missing")
	var twenty, sixteen []string
	for i := range 20 {
		twenty = append(twenty, fmt.Sprintf("192.0.2.%d", i))
		sixteen = append(sixteen, fmt.Sprintf("192.0.2.%d:53", i))
	}
	for _, c := range []struct{ env, file, want string }{
		{"127.0.0.1", missing, "127.0.0.1:53"},
		{"127.0.0.1:5300", missing, "127.0.0.1:5300"},
		{"[::1]:5300", missing, "[::1]:5300"},
		{"::1", missing, "[::1]:53"},
		{"[::1]", missing, "[::1]:53"},
		{"127.0.0.1 127.0.0.2,127.0.0.3/127.0.0.4:54", missing, "127.0.0.1:53 127.0.0.2:53 127.0.0.3:53 127.0.0.4:54"},
		{" ,127.0.0.1,, 127.0.0.1/", missing, "127.0.0.1:53"},
		{strings.Join(twenty, "/"), missing, strings.Join(sixteen[:16], " ")},
		{"", missing, "127.0.0.1:53 [::1]:53"},
		{" ", missing, "127.0.0.1:53 [::1]:53"},
		{"", file(""), "127.0.0.1:53 [::1]:53"},
		{"", file("# nameserver 192.0.2.9\n;nameserver 192.0.2.8\nsearch example.org\nnameserver\n"), "127.0.0.1:53 [::1]:53"},
		{"", file("nameserver 192.0.2.1\nnameserver\t2001:db8::1 # two\noptions rotate\n  nameserver fe80::1%eth0\nnameserver none\nnameserver 192.0.2.1"),
			"192.0.2.1:53 [2001:db8::1]:53 [fe80::1%eth0]:53"},
		{"192.0.2.3", file("nameserver 192.0.2.1"), "192.0.2.3:53"},
		{"localhost", missing, "error"},
		{"127.0.0.1:0", missing, "error"},
		{"127.0.0.1:65536", missing, "error"},
		{"127.0.0.1:", missing, "error"},
		{"[::1", missing, "error"},
		{"[]", missing, "error"},
		{"127.0.0.1,x", missing, "error"},
		{"", dir, "error"}, // a directory
	} {
		r, err := NewResolver(c.env, c.file)
		if r == nil {
			r = new(Resolver)
		}
		var texts []string
		for _, s := range r.Servers {
			texts = append(texts, s.String())
		}
		got := strings.Join(texts, " ")
		var e *report.Error
		if err != nil {
			if got = "error"; !errors.As(err, &e) || e.Case != report.ControlFiles {
				t.Errorf("%q: %v", c.env, err)
			}
		}
		if got != c.want {
			t.Errorf("%q: %s, %v; want %s", c.env, got, err, c.want)
		}
	}
}

func TestResolvConf(t *testing.T) {
	file := filepath.Join(t.TempDir(), "resolv.conf")
	for content, want := range map[string]bool{
		"options edns0 use-vc\nnameserver 127.0.0.1\n": true, // ../field
		"nameserver 127.0.0.1\noptions\tusevc\n":       true, // FreeBSD
		"options tcp\n":                                true, // OpenBSD
		"options edns0 timeout:3\n#options use-vc\n":   false,
		"search use-vc\n":                              false,
	} {
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		if r, err := NewResolver("", file); err != nil || r.tcp != want {
			t.Errorf("%q: %v", content, err)
		}
	}
	// It is opened without waiting, and its want is told with the remedy.
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := NewResolver("", fifo)
	if r := report.For(err); r.Letter != report.Temporary || !strings.Contains(r.Text, fifo) || !strings.Contains(r.Text, "$DNSCACHEIP") {
		t.Errorf("%q", r)
	}
}

// TestNobodyNamed: where no name server is named, that is said, and not that one which
// nobody has named does not answer.
func TestNobodyNamed(t *testing.T) {
	t.Parallel()
	silent, refuses := closedServer(t), newNameServer(t, "", map[string]string{"a.test": "refused"})
	for _, c := range []struct {
		servers []netip.AddrPort
		want    string
	}{
		{[]netip.AddrPort{silent}, "/etc/resolv.conf names no name server, and none answers on this machine"},
		{[]netip.AddrPort{refuses.addr, silent}, "/etc/resolv.conf names no name server, and this machine's own: the server refuses to answer"},
	} {
		r := &Resolver{Servers: c.servers, guess: "/etc/resolv.conf names no name server"}
		if l := lookupOne(t, r, dns.TypeA, "a.test"); l.err == nil || l.err.Error() != c.want {
			t.Errorf("%v, want %s", l.err, c.want)
		}
	}
}

func lookupOne(t testing.TB, r *Resolver, qtype uint16, name string) *lookup {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	l := &lookup{name: name, qtype: qtype}
	<-r.start(ctx, []*lookup{l})
	return l
}

func many(n int, format string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, format+"\n", i/256, i%256)
	}
	return b.String()
}

func chain(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "c%d.chain%d. CNAME c%d.chain%d.\n", i, n, i+1, n)
	}
	fmt.Fprintf(&b, "c%d.chain%d. A 192.0.2.1\n", n, n)
	return b.String()
}

var resolverZone = many(500, "big.test. A 10.0.%d.%d") + many(3900, "huge.test. A 10.1.%d.%d") + chain(10) + chain(11) + `
a.test.        A     192.0.2.1
a.test.        AAAA  2001:db8::1
mapped.test.   AAAA  ::ffff:192.0.2.7
mx.test.       MX    10 a.test.
odd.test.      MX    10 a\.b\000\255\010\"c.test.
odd.test.      MX    20 a.test.
alias.test.    CNAME odd\032name.test.
odd\032name.test. A  192.0.2.3
loop.test.     CNAME pool.test.
pool.test.     CNAME loop.test.
self.test.     CNAME self.test.
away.test.     CNAME nowhere.invalid.
nov6.test.     CNAME v4.test.
v4.test.       A     192.0.2.4
one.test.      CNAME two.test.
two.test.      CNAME a.test.
strays.test.   A     192.0.2.5
upper.test.    A     192.0.2.6
formerr.test.  A     192.0.2.8
notimp.test.   A     192.0.2.9
bignotcp.test. TXT   "x"
mangled.test.  A     192.0.2.11
mangledudp.test. A   192.0.2.12
cut.test.      A     192.0.2.13
lame.test.     A     192.0.2.14
denied.test.   A     192.0.2.15
servfail2.test. A    192.0.2.16
refused2.test. A     192.0.2.17
badvers2.test. A     192.0.2.18
aliasdenied.test. CNAME a.test.
announces.test. MX   0 .
noedns.test.   A     192.0.2.19
noudp.test.    A     192.0.2.20
` + many(200, "bignotcp.test. A 10.2.%d.%d") + many(200, "bigplain.test. A 10.3.%d.%d") +
	many(30, "overlong.test. A 10.4.%d.%d") + many(100, "overlonger.test. A 10.5.%d.%d") + many(300, "overlongest.test. A 10.6.%d.%d") +
	many(60, "nolarge.test. A 10.7.%d.%d")

var resolverTrouble = map[string]string{
	"one.test": "onealias", "two.test": "onealias",
	"strays.test": "strays", "upper.test": "uppercase",
	"formerr.test": "formerr", "notimp.test": "notimp", "bigplain.test": "formerr", "stubborn.test": "alwaysformerr",
	"servfail.test": "servfail", "refused.test": "refused", "header.test": "headerrefused",
	"referral.test": "referral", "mangled.test": "mangled", "bignotcp.test": "notcp",
	"mangledudp.test": "mangledudp", "overlong.test": "overlong", "overlonger.test": "overlong", "overlongest.test": "overlong",
	"cut.test": "cut", "lame.test": "lame", "lamer.test": "lamenxdomain", "soa.test": "soa", "authority.test": "authority",
	"others.test": "others", "types.test": "othertypes", "denied.test": "deniedwithrecords", "aliasdenied.test": "aliasdenied",
	"servfail2.test": "ednsservfail", "refused2.test": "ednsrefused", "badvers2.test": "ednsbadvers",
	"announces.test": "announces", "promises.test": "announcesauthority", "bare.test": "bare",
	"noedns.test": "noedns", "nolarge.test": "nolarge", "noudp.test": "noudp",
}

func TestLookup(t *testing.T) {
	t.Parallel()
	server := newNameServer(t, resolverZone, resolverTrouble)
	const unreadable = "by TCP after an answer that cannot be read: the server has given an answer that cannot be read"
	for _, c := range []struct {
		qtype   uint16
		name    string
		want    string // the answers, "N records", "no data", or what the error says
		queries int    // 0: any number
	}{
		{dns.TypeA, "a.test", "192.0.2.1", 1},
		{dns.TypeA, "A.TEST", "192.0.2.1", 1},
		{dns.TypeAAAA, "a.test", "2001:db8::1", 1},
		{dns.TypeAAAA, "mapped.test", "192.0.2.7", 1},
		{dns.TypeMX, "a.test", "no data", 1},
		{dns.TypeMX, "test", "no data", 1},
		{dns.TypeMX, "nowhere.test", "no such name", 1},
		{dns.TypeMX, "mx.test", "1 records", 1},
		{dns.TypeMX, "odd.test", "2 records", 1},
		{dns.TypeA, "big.test", "500 records", 2},
		{dns.TypeA, "huge.test", "3900 records", 2},
		{dns.TypeA, "c0.chain10", "192.0.2.1", 1},
		{dns.TypeA, "c0.chain11", "more than 10 CNAMEs, or a loop of them", 1},
		{dns.TypeA, "loop.test", "more than 10 CNAMEs, or a loop of them", 1},
		{dns.TypeA, "self.test", "more than 10 CNAMEs, or a loop of them", 1},
		{dns.TypeA, "alias.test", "192.0.2.3", 1},
		{dns.TypeMX, "away.test", "no such name", 1},
		{dns.TypeAAAA, "nov6.test", "no data", 1}, // the SOA says so, there is no need to ask again
		{dns.TypeA, "one.test", "192.0.2.1", 3},   // each alias alone
		{dns.TypeA, "strays.test", "192.0.2.5", 1},
		{dns.TypeA, "upper.test", "192.0.2.6", 1},
		{dns.TypeA, "servfail.test", "server failure", 2}, // once more without EDNS0
		{dns.TypeA, "refused.test", "the server refuses to answer", 2},
		{dns.TypeA, "header.test", "the server refuses to answer", 2},
		{dns.TypeA, "servfail2.test", "192.0.2.16", 2},
		{dns.TypeA, "refused2.test", "192.0.2.17", 2},
		{dns.TypeA, "badvers2.test", "192.0.2.18", 2},
		{dns.TypeA, "mangled.test", unreadable, 2},
		{dns.TypeA, "mangledudp.test", "192.0.2.12", 2},
		{dns.TypeA, "overlong.test", "29 records", 1}, // 1,232 bytes were promised
		{dns.TypeA, "overlonger.test", "100 records", 2},
		{dns.TypeA, "overlongest.test", "300 records", 2}, // more than is read
		// What is no denial is no answer.
		{dns.TypeA, "cut.test", "the server's answer is cut by TCP too", 2},
		{dns.TypeAAAA, "cut.test", "the server's answer is cut by TCP too", 2},
		{dns.TypeA, "referral.test", "the server neither looks up names nor is in charge of this one", 1},
		{dns.TypeA, "lame.test", "the server neither looks up names nor is in charge of this one", 1},
		{dns.TypeMX, "lame.test", "the server neither looks up names nor is in charge of this one", 1},
		{dns.TypeMX, "lamer.test", "the server neither looks up names nor is in charge of this one", 1},
		{dns.TypeMX, "others.test", "the server answers with other records", 1},
		{dns.TypeMX, "types.test", "the server answers with other records", 1},
		{dns.TypeA, "denied.test", "the server says that there is no such name and gives its records", 1},
		{dns.TypeMX, "announces.test", unreadable, 2},
		{dns.TypeMX, "promises.test", unreadable, 2},
		{dns.TypeA, "bare.test", unreadable, 2},
		{dns.TypeAAAA, "bare.test", unreadable, 2},
		{dns.TypeMX, "bare.test", unreadable, 2},
		{dns.TypeSRV, "bare.test", unreadable, 2},
		{dns.TypeCNAME, "bare.test", unreadable, 2},
		{dns.TypeA, "soa.test", "no data", 1},
		{dns.TypeA, "authority.test", "no data", 1},
		{dns.TypeA, "aliasdenied.test", "192.0.2.1", 2}, // without an SOA: the alias is asked for
		{dns.TypeA, "bignotcp.test", "by TCP after a truncated answer: the connection was closed before the answer", 2},
		{dns.TypeA, "stubborn.test", "the server answers FORMERR", 2},
	} {
		r := &Resolver{Servers: []netip.AddrPort{server.addr}}
		before := server.queries.Load()
		l := lookupOne(t, r, c.qtype, c.name)
		var got string
		switch addrs := l.addrs; {
		case l.err != nil:
			got = strings.TrimPrefix(l.err.Error(), server.addr.String()+": ")
		case len(addrs) == 1:
			got = addrs[0].String()
		case len(l.records) > 0:
			got = fmt.Sprintf("%d records", len(l.records)+l.cut)
		default:
			got = "no data"
		}
		if asked := int(server.queries.Load() - before); got != c.want || c.queries != 0 && asked != c.queries {
			t.Errorf("%s %s: %s (%d queries), want %s (%d)", dns.TypeToString[c.qtype], c.name, got, asked, c.want, c.queries)
		}
		if errors.Is(l.err, errNoName) != (c.want == errNoName.Error()) {
			t.Errorf("%s: %v", c.name, l.err)
		}
		if line := l.String(); len(line) > 1000 || strings.ContainsAny(line, "\n\x00\t") {
			t.Errorf("trace line %q", line)
		}
	}
}

// TestEDNS0Refused: once more without, and that server is not asked with it again.
func TestEDNS0Refused(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"formerr.test", "notimp.test"} {
		server := newNameServer(t, resolverZone, resolverTrouble)
		r := &Resolver{Servers: []netip.AddrPort{server.addr}}
		for range 2 {
			if l := lookupOne(t, r, dns.TypeA, name); l.err != nil || len(l.records) != 1 {
				t.Errorf("%s: %v", name, l.err)
			}
		}
		if all, plain := server.queries.Load(), server.plain.Load(); all != 3 || plain != 2 {
			t.Errorf("%s: %d queries, %d without EDNS0", name, all, plain)
		}
	}
	server := newNameServer(t, resolverZone, resolverTrouble)
	l := lookupOne(t, &Resolver{Servers: []netip.AddrPort{server.addr}}, dns.TypeA, "bigplain.test")
	if len(l.addrs) != 200 || len(l.records) != maxKept || server.byTCP.Load() != 1 {
		t.Errorf("without EDNS0 by TCP: %d records, %v", len(l.records), l.err)
	}
	// A name that is answered with FORMERR whatever is asked says nothing about EDNS0.
	r := &Resolver{Servers: []netip.AddrPort{server.addr}}
	lookupOne(t, r, dns.TypeA, "stubborn.test")
	if r.plain[0].Load() {
		t.Error("EDNS0 was given up for nothing")
	}
}

// TestEDNS0Silence: a firewall that drops queries with EDNS0, or answers of more than
// 512 bytes, costs one short wait, once; not half of timeoutdns.
func TestEDNS0Silence(t *testing.T) {
	t.Parallel()
	server := newNameServer(t, resolverZone, resolverTrouble)
	for _, c := range []struct {
		name  string
		addrs int
		byTCP int32
	}{{"noedns.test", 1, 0}, {"nolarge.test", 60, 1}} {
		r := &Resolver{Servers: []netip.AddrPort{server.addr}}
		tcp := server.byTCP.Load()
		l := lookupOne(t, r, dns.TypeA, c.name)
		if len(l.addrs) != c.addrs || len(l.notes) == 0 || server.byTCP.Load()-tcp < c.byTCP {
			t.Errorf("%s: %d addresses, %v after %q", c.name, len(l.addrs), l.err, l.notes)
		}
		if !r.plain[0].Load() {
			t.Errorf("%s: the next lookup would wait again", c.name)
		}
	}
	// Another server's answer says nothing about the one that was silent, nor of itself.
	r := &Resolver{Servers: []netip.AddrPort{deadServer(t), server.addr}}
	if l := lookupOne(t, r, dns.TypeA, "a.test"); len(l.addrs) != 1 || r.plain[0].Load() || r.plain[1].Load() {
		t.Errorf("%v, %v", l.addrs, l.err)
	}
}

// TestTCPAlone: with use-vc nothing goes by UDP.
func TestTCPAlone(t *testing.T) {
	t.Parallel()
	server := newNameServer(t, resolverZone, resolverTrouble)
	r := &Resolver{Servers: []netip.AddrPort{server.addr}, tcp: true}
	for _, name := range []string{"noudp.test", "a.test", "huge.test", "noedns.test"} {
		if l := lookupOne(t, r, dns.TypeA, name); len(l.addrs) == 0 {
			t.Errorf("%s: %v", name, l.err)
		}
	}
	if all, tcp := server.queries.Load(), server.byTCP.Load(); all != tcp || all != 4 {
		t.Errorf("%d of %d queries by TCP", tcp, all)
	}
}

func TestServersInTurn(t *testing.T) {
	t.Parallel()
	good := newNameServer(t, resolverZone, nil)
	bad := newNameServer(t, resolverZone, map[string]string{"a.test": "servfail", "v4.test": "mangled", "mx.test": "refused"})

	// Those that answer at once that they cannot tell cost no time.
	r := &Resolver{Servers: []netip.AddrPort{closedServer(t), bad.addr, good.addr}}
	for _, name := range []string{"a.test", "v4.test"} {
		l := lookupOne(t, r, dns.TypeA, name)
		if len(l.records) != 1 || strings.Contains(strings.Join(l.notes, "\n"), "no answer") {
			t.Errorf("%s: %v, %q", name, l.err, l.notes)
		}
		r.answering.Store(0)
	}
	if l := lookupOne(t, r, dns.TypeMX, "mx.test"); len(l.records) != 1 || len(l.notes) != 2 {
		t.Errorf("mx.test: %v, %q", l.err, l.notes)
	}

	// A server that says so is asked once, however much time there is.
	before := bad.queries.Load()
	r = &Resolver{Servers: []netip.AddrPort{bad.addr, closedServer(t)}}
	if l := lookupOne(t, r, dns.TypeA, "a.test"); l.err == nil || bad.queries.Load()-before != 2 { // with EDNS0, and without
		t.Errorf("%v, %d queries", l.err, bad.queries.Load()-before)
	}
}

// TestDeadServer: one dead server among three costs a second, once.
func TestDeadServer(t *testing.T) {
	t.Parallel()
	good := newNameServer(t, resolverZone, nil)
	r := &Resolver{Servers: []netip.AddrPort{deadServer(t), good.addr, deadServer(t)}}
	l := lookupOne(t, r, dns.TypeA, "a.test")
	if len(l.records) != 1 || len(l.notes) != 1 || l.took < patience[0] {
		t.Errorf("%v after %v, %q", l.err, l.took, l.notes)
	}
	l = lookupOne(t, r, dns.TypeAAAA, "a.test")
	if len(l.records) != 1 || len(l.notes) != 0 {
		t.Errorf("the second lookup: %v, %q", l.err, l.notes)
	}
}

func TestDeadlines(t *testing.T) {
	t.Parallel()
	r := &Resolver{Servers: []netip.AddrPort{deadServer(t), deadServer(t)}}
	for _, limit := range []time.Duration{0, 100 * time.Millisecond, 1300 * time.Millisecond} {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		l := &lookup{name: "a.test", qtype: dns.TypeA}
		<-r.start(ctx, []*lookup{l})
		cancel()
		if l.err == nil || errors.Is(l.err, errNoName) || l.took < limit || l.took > limit+10*time.Second {
			t.Errorf("limit %v: %v after %v", limit, l.err, l.took)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	l := &lookup{name: "a.test", qtype: dns.TypeA}
	done := r.start(ctx, []*lookup{l})
	cancel()
	if <-done; l.err == nil || l.took > 10*time.Second {
		t.Errorf("cancelled: %v after %v", l.err, l.took)
	}
}

func TestNoServers(t *testing.T) {
	if l := lookupOne(t, &Resolver{}, dns.TypeA, "a.test"); l.err == nil || errors.Is(l.err, errNoName) {
		t.Error(l.err)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

func TestLookupPanics(t *testing.T) {
	ids := readerFunc(func([]byte) (int, error) { panic("no dice") })
	l := lookupOne(t, &Resolver{Servers: []netip.AddrPort{closedServer(t)}, IDs: ids}, dns.TypeA, "a.test")
	if l.err == nil || !strings.Contains(l.err.Error(), "no dice") {
		t.Error(l.err)
	}
	ids = readerFunc(func([]byte) (int, error) { return 0, io.ErrUnexpectedEOF })
	l = lookupOne(t, &Resolver{Servers: []netip.AddrPort{closedServer(t)}, IDs: ids}, dns.TypeA, "a.test")
	if l.err == nil {
		t.Error("a query without an id")
	}
	// A name that cannot be packed is trouble, not a panic and not a verdict.
	l = lookupOne(t, &Resolver{Servers: []netip.AddrPort{closedServer(t)}}, dns.TypeA, strings.Repeat("a", 70))
	if l.err == nil || errors.Is(l.err, errNoName) {
		t.Error(l.err)
	}
}

// TestManyLookups: at the same time, but not all sockets at once.
func TestManyLookups(t *testing.T) {
	t.Parallel()
	server := newNameServer(t, many(600, "t%d-%d.test. A 192.0.2.1"), map[string]string{"t0-1.test": "slow"})
	var lookups []*lookup
	for i := range 600 {
		lookups = append(lookups, &lookup{name: fmt.Sprintf("t%d-%d.test", i/256, i%256), qtype: dns.TypeA})
	}
	done := (&Resolver{Servers: []netip.AddrPort{server.addr}}).start(t.Context(), lookups)
	for range lookups {
		if l := <-done; l.err != nil || len(l.records) != 1 {
			t.Fatal(l.name, l.err)
		}
	}
	if n := server.busiest.Load(); n > maxParallel {
		t.Errorf("%d queries at once", n)
	}
}

// TestUnpredictable: ids and source ports differ from query to query.
func TestUnpredictable(t *testing.T) {
	t.Parallel()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ids, ports := map[uint16]bool{}, map[string]bool{}
	const queries = 50
	r := &Resolver{Servers: []netip.AddrPort{netip.MustParseAddrPort(conn.LocalAddr().String())}}
	for range queries {
		done := r.start(t.Context(), []*lookup{{name: "a.test", qtype: dns.TypeA}})
		b := make([]byte, 512)
		n, from, err := conn.ReadFrom(b)
		if err != nil {
			t.Fatal(err)
		}
		var m dns.Msg
		if err := m.Unpack(b[:n]); err != nil {
			t.Fatal(err)
		}
		if opt := m.IsEdns0(); opt == nil || opt.UDPSize() != 1232 || !m.RecursionDesired {
			t.Fatalf("query %v", &m)
		}
		ids[m.Id], ports[from.String()] = true, true
		m.Response = true
		if b, err = m.Pack(); err == nil {
			_, err = conn.WriteTo(b, from)
		}
		if <-done; err != nil {
			t.Fatal(err)
		}
	}
	if len(ids) < queries-5 || len(ports) < queries/2 {
		t.Errorf("%d ids and %d ports in %d queries", len(ids), len(ports), queries)
	}
}

func FuzzAnswer(f *testing.F) {
	query := dns.Question{Name: "a.test.", Qtype: dns.TypeA, Qclass: dns.ClassINET}
	seed := func(change func(m *dns.Msg)) {
		m := &dns.Msg{Question: []dns.Question{query}}
		m.Response = true
		change(m)
		b, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(b[:len(b)-1])
	}
	seed(func(*dns.Msg) {})
	seed(func(m *dns.Msg) { m.Rcode = dns.RcodeNameError })
	seed(func(m *dns.Msg) { m.Rcode, m.Question = dns.RcodeFormatError, nil })
	seed(func(m *dns.Msg) { m.Answer = []dns.RR{mustRR("a.test. CNAME b.test."), mustRR("b.test. A 192.0.2.1")} })
	seed(func(m *dns.Msg) { m.Answer = []dns.RR{mustRR("a.test. CNAME a.test."), mustRR("a.test. AAAA ::1")} })
	seed(func(m *dns.Msg) {
		m.Answer = []dns.RR{mustRR(`a.test. MX 0 .`), mustRR(`a.test. SRV 0 0 0 a\000\255.`)}
	})
	seed(func(m *dns.Msg) { m.Ns = []dns.RR{mustRR("test. SOA a. b. 1 2 3 4 5"), mustRR("test. NS a.")} })
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeMX, dns.TypeSRV} {
			m, err := parseAnswer(b, 0, query.Name, qtype)
			if m == nil || err != nil {
				continue
			}
			if !bytes.Equal(b[:2], []byte{0, 0}) {
				t.Fatal("an answer to another query")
			}
			_, _ = judge(m, query.Name, qtype, 0)
			aliases := 0
			records, name, err := follow(m, query.Name, qtype, &aliases)
			if err != nil {
				continue
			}
			deniedBy(m, name)
			l := &lookup{name: "a.test", qtype: qtype, records: records}
			for _, a := range addresses(records) {
				if !a.IsValid() || a.Is4In6() {
					t.Errorf("address %v", a)
				}
			}
			if line := l.String(); strings.ContainsAny(line, "\n\x00\r") {
				t.Errorf("trace line %q", line)
			}
		}
	})
}
