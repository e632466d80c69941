package dns

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	miekg "github.com/miekg/dns"

	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/remote/dns/dnstest"
)

func newClient(servers ...netip.AddrPort) *Client { return NewClient(Config{Servers: servers}) }

// ask asks r one question in a goroutine, as Start does.
func ask(t testing.TB, r Resolver, qtype Type, name string) *Answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	return (<-Start(ctx, r, []Question{{Name: name, Type: qtype}})).Answer
}

func chain(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "c%d.chain%d. CNAME c%d.chain%d.\n", i, n, i+1, n)
	}
	fmt.Fprintf(&b, "c%d.chain%d. A 192.0.2.1\n", n, n)
	return b.String()
}

var zone = dnstest.Many(500, "big.test. A 10.0.%d.%d") + dnstest.Many(3900, "huge.test. A 10.1.%d.%d") + chain(10) + chain(11) + `
a.test.        A     192.0.2.1
a.test.        AAAA  2001:db8::1
_x._tcp.a.test. SRV  1 2 2525 a.test.
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
_25._tcp.a.test. TLSA 3 1 1 AB12
_25._tcp.a.test. TLSA 0 0 255 00
_25._tcp.two.test. CNAME _25._tcp.a.test.
_25._tcp.empty.test. TYPE52 \# 3 020100
_25._tcp.tiny.test. A 192.0.2.1
noedns.test.   A     192.0.2.19
noudp.test.    A     192.0.2.20
` + dnstest.Many(200, "bignotcp.test. A 10.2.%d.%d") + dnstest.Many(200, "bigplain.test. A 10.3.%d.%d") +
	dnstest.Many(30, "overlong.test. A 10.4.%d.%d") + dnstest.Many(100, "overlonger.test. A 10.5.%d.%d") + dnstest.Many(300, "overlongest.test. A 10.6.%d.%d") +
	dnstest.Many(60, "nolarge.test. A 10.7.%d.%d")

var trouble = map[string]string{
	"one.test": "onealias", "two.test": "onealias",
	"strays.test": "strays", "upper.test": "uppercase",
	"formerr.test": "formerr", "notimp.test": "notimp", "bigplain.test": "formerr", "stubborn.test": "alwaysformerr",
	"servfail.test": "servfail", "refused.test": "refused", "header.test": "headerrefused",
	"referral.test": "referral", "mangled.test": "mangled", "bignotcp.test": "notcp",
	"mangledudp.test": "mangledudp", "overlong.test": "overlong", "overlonger.test": "overlong", "overlongest.test": "overlong",
	"cut.test": "cut", "lame.test": "lame", "lamer.test": "lamenxdomain", "soa.test": "soa", "authority.test": "authority",
	"others.test": "others", "types.test": "othertypes", "denied.test": "deniedwithrecords", "aliasdenied.test": "aliasdenied",
	"servfail2.test": "ednsservfail", "refused2.test": "ednsrefused", "badvers2.test": "ednsbadvers",
	"_25._tcp.tiny.test": "tiny",
	"announces.test":     "announces", "promises.test": "announcesauthority", "bare.test": "bare",
	"noedns.test": "noedns", "nolarge.test": "nolarge", "noudp.test": "noudp",
}

func TestLookup(t *testing.T) {
	t.Parallel()
	server := dnstest.New(t, zone, trouble)
	const unreadable = "by TCP after an answer that cannot be read: the server has given an answer that cannot be read"
	for _, c := range []struct {
		qtype   Type
		name    string
		want    string // the address, "N records", "no data", or the error
		queries int    // 0: any number
	}{
		{TypeA, "a.test", "192.0.2.1", 1},
		{TypeA, "A.TEST", "192.0.2.1", 1},
		{TypeAAAA, "a.test", "2001:db8::1", 1},
		{TypeAAAA, "mapped.test", "192.0.2.7", 1},
		{TypeMX, "a.test", "no data", 1},
		{TypeMX, "test", "no data", 1},
		{TypeMX, "nowhere.test", "no such name", 1},
		{TypeMX, "mx.test", "1 records", 1},
		{TypeMX, "odd.test", "2 records", 1},
		{TypeA, "big.test", "500 records", 2},
		{TypeA, "huge.test", "3900 records", 2},
		{TypeA, "c0.chain10", "192.0.2.1", 1},
		{TypeA, "c0.chain11", "more than 10 CNAMEs, or a loop of them", 1},
		{TypeA, "loop.test", "more than 10 CNAMEs, or a loop of them", 1},
		{TypeA, "self.test", "more than 10 CNAMEs, or a loop of them", 1},
		{TypeA, "alias.test", "192.0.2.3", 1},
		{TypeMX, "away.test", "no such name", 1},
		{TypeAAAA, "nov6.test", "no data", 1}, // the SOA says so, there is no need to ask again
		{TypeA, "one.test", "192.0.2.1", 3},   // each alias alone
		{TypeA, "strays.test", "192.0.2.5", 1},
		{TypeA, "upper.test", "192.0.2.6", 1},
		{TypeA, "servfail.test", "server failure", 2}, // once more without EDNS0
		{TypeA, "refused.test", "the server refuses to answer", 2},
		{TypeA, "header.test", "the server refuses to answer", 2},
		{TypeA, "servfail2.test", "192.0.2.16", 2},
		{TypeA, "refused2.test", "192.0.2.17", 2},
		{TypeA, "badvers2.test", "192.0.2.18", 2},
		{TypeA, "mangled.test", unreadable, 2},
		{TypeA, "mangledudp.test", "192.0.2.12", 2},
		{TypeA, "overlong.test", "29 records", 1}, // 1,232 bytes were promised
		{TypeA, "overlonger.test", "100 records", 2},
		{TypeA, "overlongest.test", "300 records", 2}, // more than is read
		// What is no denial is no answer.
		{TypeA, "cut.test", "the server's answer is cut by TCP too", 2},
		{TypeAAAA, "cut.test", "the server's answer is cut by TCP too", 2},
		{TypeA, "referral.test", "the server neither looks up names nor is in charge of this one", 1},
		{TypeA, "lame.test", "the server neither looks up names nor is in charge of this one", 1},
		{TypeMX, "lame.test", "the server neither looks up names nor is in charge of this one", 1},
		{TypeMX, "lamer.test", "the server neither looks up names nor is in charge of this one", 1},
		{TypeMX, "others.test", "the server answers with other records", 1},
		{TypeMX, "types.test", "the server answers with other records", 1},
		{TypeA, "denied.test", "the server says that there is no such name and gives its records", 1},
		{TypeMX, "announces.test", unreadable, 2},
		{TypeMX, "promises.test", unreadable, 2},
		{TypeA, "bare.test", unreadable, 2},
		{TypeAAAA, "bare.test", unreadable, 2},
		{TypeMX, "bare.test", unreadable, 2},
		{TypeSRV, "bare.test", unreadable, 2},
		{TypeCNAME, "bare.test", unreadable, 2},
		{TypeTLSA, "bare.test", unreadable, 2},
		{TypeTLSA, "_25._tcp.tiny.test", unreadable, 2},
		{TypeTLSA, "_25._tcp.a.test", "2 records", 1},
		{TypeTLSA, "_25._tcp.two.test", "2 records", 1},
		{TypeTLSA, "_26._tcp.a.test", "no such name", 1},
		{TypeTLSA, "a.test", "no data", 1},
		{TypeTLSA, "servfail.test", "server failure", 2},
		{TypeTLSA, "cut.test", "the server's answer is cut by TCP too", 2},
		{TypeTLSA, "c0.chain11", "more than 10 CNAMEs, or a loop of them", 1},
		{TypeCNAME, "alias.test", "1 records", 1},
		{TypeCNAME, "loop.test", "1 records", 1},
		{TypeCNAME, "a.test", "no data", 1},
		{TypeA, "soa.test", "no data", 1},
		{TypeA, "authority.test", "no data", 1},
		{TypeA, "aliasdenied.test", "192.0.2.1", 2}, // without an SOA: the alias is asked for
		{TypeA, "bignotcp.test", "by TCP after a truncated answer: the connection was closed before the answer", 2},
		{TypeA, "stubborn.test", "the server answers FORMERR", 2},
	} {
		before := server.Queries.Load()
		a := ask(t, newClient(server.Addr), c.qtype, c.name)
		var got string
		switch {
		case a.Err != nil:
			got = strings.TrimPrefix(a.Err.Error(), server.Addr.String()+": ")
		case len(a.Addrs) == 1:
			got = a.Addrs[0].String()
		case a.Len() > 0:
			got = fmt.Sprintf("%d records", a.Len())
		default:
			got = "no data"
		}
		if asked := int(server.Queries.Load() - before); got != c.want || c.queries != 0 && asked != c.queries {
			t.Errorf("%s %s: %s (%d queries), want %s (%d)", c.qtype, c.name, got, asked, c.want, c.queries)
		}
		if errors.Is(a.Err, ErrNoName) != (c.want == ErrNoName.Error()) || a.Failed() != (a.Err != nil && a.Err != ErrNoName) {
			t.Errorf("%s: %v", c.name, a.Err)
		}
		if answered := a.Server == server.Addr; answered == a.Failed() || answered == (a.End == "") {
			t.Errorf("%s: answered by %v, end of aliases %q, %v", c.name, a.Server, a.End, a.Err)
		}
		if a.Secure || a.Failed() && a.TTL != 0 {
			t.Errorf("%s: secure %v, TTL %v", c.name, a.Secure, a.TTL)
		}
		if line := a.String(); len(line) > 1000 || strings.ContainsAny(line, "\n\x00\t") {
			t.Errorf("trace line %q", line)
		}
	}
	if server.WithAD.Load() > 0 {
		t.Error("the AD bit was sent, which nobody asked for")
	}
}

// TestString: the line of a trace has the records as a zone file has them.
func TestString(t *testing.T) {
	t.Parallel()
	server := dnstest.New(t, zone+"_25._tcp.long.test. TLSA 3 0 0 "+strings.Repeat("ab", 500)+"\n", trouble)
	for q, want := range map[Question]string{
		{Name: "a.test", Type: TypeA}:               "192.0.2.1",
		{Name: "a.test", Type: TypeAAAA}:            "2001:db8::1",
		{Name: "mapped.test", Type: TypeAAAA}:       "::ffff:192.0.2.7",
		{Name: "odd.test", Type: TypeMX}:            `10 a\.b\000\255\010\"c.test., 20 a.test.`,
		{Name: "_x._tcp.a.test", Type: TypeSRV}:     "1 2 2525 a.test.",
		{Name: "a.test", Type: TypeMX}:              "no data",
		{Name: "b.test", Type: TypeMX}:              "no such name",
		{Name: "servfail.test", Type: TypeA}:        server.Addr.String() + ": server failure",
		{Name: "big.test", Type: TypeA}:             "10.0.0.0, 10.0.0.1, 10.0.0.2, 10.0.0.3, 10.0.0.4, 10.0.0.5, 10.0.0.6, 10.0.0.7, 10.0.0.8, 10.0.0.9, 10.0.0.10, 10.0.0.11 and 488 more",
		{Name: "a.test", Type: TypeA, Secure: true}: "192.0.2.1",

		{Name: "_25._tcp.a.test", Type: TypeTLSA}:     "3 1 1 ab12, 0 0 255 00",
		{Name: "_25._tcp.empty.test", Type: TypeTLSA}: "2 1 0 ",
		{Name: "_25._tcp.long.test", Type: TypeTLSA}:  "3 0 0 " + strings.Repeat("ab", 147) + "...",
		{Name: "alias.test", Type: TypeCNAME}:         `odd\ name.test.`,
	} {
		a := newClient(server.Addr).Lookup(t.Context(), q)
		a.Took = 1999 * time.Microsecond
		want = fmt.Sprintf("lookup %s %s: %s (1 ms)", q.Type, q.Name, want)
		if q.Secure {
			want += " secure"
		}
		if got := a.String(); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

// TestKept: an answer says how long it may be kept, and where its aliases end.
func TestKept(t *testing.T) {
	t.Parallel()
	server := dnstest.New(t, `
long.test.   7200 A 192.0.2.1
two.test.    900  A 192.0.2.1
two.test.    300  A 192.0.2.2
zero.test.   0    A 192.0.2.1
large.test.  2147483648 A 192.0.2.1
short.test.  30   CNAME long.test.
other.test.  9000 CNAME long.test.
gone.test.   3    CNAME nowhere.test.
first.test.  40   CNAME second.test.
second.test. 20   CNAME long.test.
`, map[string]string{"first.test": "onealias", "second.test": "onealias", "denied.test": "nxdomain", "soa.test": "soa"})
	for _, c := range []struct {
		name, end string
		ttl       int // seconds
	}{
		{"long.test", "long.test", 7200},
		{"two.test", "two.test", 300},
		{"zero.test", "zero.test", 0},
		{"large.test", "large.test", 0}, // RFC 2181 section 8
		{"short.test", "long.test", 30},
		{"other.test", "long.test", 7200},
		{"first.test", "long.test", 20},     // of three messages
		{"nowhere.test", "nowhere.test", 5}, // the SOA's minimum
		{"gone.test", "nowhere.test", 3},
		{"soa.test", "soa.test", 5},
		{"denied.test", "denied.test", 0}, // shows no SOA
	} {
		if a := ask(t, newClient(server.Addr), TypeA, c.name); a.Failed() || a.End != c.end || a.TTL != time.Duration(c.ttl)*time.Second {
			t.Errorf("%s: %v, %s, %v; want %d s", c.name, a, a.End, a.TTL, c.ttl)
		}
	}
}

// TestSecure: the AD bit is sent and believed only where that is asked for, and holds for
// the whole of the answer.
func TestSecure(t *testing.T) {
	t.Parallel()
	server := dnstest.New(t, zone+"in.v4.test. CNAME a.test.\nalone.test. CNAME v4.test.\n", map[string]string{
		"one.test": "onealias", "two.test": "insecure", "v4.test": "insecure", "upper.test": "boasts", "alone.test": "onealias",
		"noedns.test": "noedns", "servfail2.test": "ednsservfail",
	})
	for q, want := range map[Question]bool{
		{Name: "a.test", Type: TypeA}: true, {Name: "nowhere.test", Type: TypeA}: true, {Name: "mx.test", Type: TypeA}: true, // denials
		{Name: "big.test", Type: TypeA}: true, {Name: "huge.test", Type: TypeA}: true, // by TCP
		{Name: "servfail2.test", Type: TypeA}: true, // without EDNS0
		{Name: "v4.test", Type: TypeA}:        false, {Name: "v4.test", Type: TypeAAAA}: false, {Name: "no.v4.test", Type: TypeA}: false,
		{Name: "one.test", Type: TypeA}: false, {Name: "alone.test", Type: TypeA}: false, // one of two messages
		{Name: "nov6.test", Type: TypeA}: false, {Name: "nov6.test", Type: TypeAAAA}: false, // one name of two
		{Name: "nov6.test", Type: TypeCNAME}: true, {Name: "in.v4.test", Type: TypeCNAME}: false, {Name: "in.v4.test", Type: TypeA}: false,
		{Name: "_25._tcp.a.test", Type: TypeTLSA}: true, {Name: "_25._tcp.two.test", Type: TypeTLSA}: false,
		{Name: "c0.chain10", Type: TypeA}: true, {Name: "upper.test", Type: TypeA}: true,
	} {
		for _, q.Secure = range []bool{true, false} {
			before := server.WithAD.Load()
			a := newClient(server.Addr).Lookup(t.Context(), q)
			if a.Failed() || a.Secure != (q.Secure && want) || (server.WithAD.Load() > before) != q.Secure {
				t.Errorf("%v: %v", q, a)
			}
			if end, words := a.String(), map[bool]string{true: " secure", false: " insecure"}[want]; strings.HasSuffix(end, words) != q.Secure {
				t.Errorf("%v: %s", q, end)
			}
		}
	}
	// The lines about tries that failed are no exception.
	a := NewClient(Config{Servers: []netip.AddrPort{dnstest.Closed(t), server.Addr}}).Lookup(t.Context(), Question{"a.test", TypeA, true})
	var lines []string
	a.Trace(func(line string) { lines = append(lines, line) })
	if len(lines) != 2 || !strings.HasSuffix(lines[0], " insecure") || !strings.HasSuffix(lines[1], " secure") {
		t.Errorf("trace %q", lines)
	}
	if a := newClient(dnstest.Closed(t)).Lookup(t.Context(), Question{"a.test", TypeA, true}); !a.Failed() || a.Secure {
		t.Error("a failure is secure: ", a)
	}
}

// TestAlias: an answer says where its aliases end, if there are any.
func TestAlias(t *testing.T) {
	t.Parallel()
	server := dnstest.New(t, zone+"UPPER.alias.test. CNAME A.Test.\n", trouble)
	for q, want := range map[Question]string{
		{Name: "a.test", Type: TypeA}:           "",
		{Name: "A.TEST", Type: TypeA}:           "",
		{Name: "upper.alias.test", Type: TypeA}: "a.test",
		{Name: "one.test", Type: TypeA}:         "a.test", // of three messages
		{Name: "nov6.test", Type: TypeAAAA}:     "v4.test",
		{Name: "away.test", Type: TypeA}:        "nowhere.invalid",
		{Name: "loop.test", Type: TypeA}:        "",
		{Name: "alias.test", Type: TypeCNAME}:   "",
	} {
		if a := newClient(server.Addr).Lookup(t.Context(), q); a.Alias() != want {
			t.Errorf("%v: %q, want %q", a, a.Alias(), want)
		}
	}
}

// TestAll: what Addrs has no room for is not lost.
func TestAll(t *testing.T) {
	t.Parallel()
	six := ""
	for i := range 100 {
		six += fmt.Sprintf("six.test. AAAA 2001:db8::%x\n", i)
	}
	server := dnstest.New(t, zone+six, nil)
	for _, c := range []struct {
		qtype Type
		name  string
		n     int
		last  string
	}{
		{TypeA, "huge.test", 3900, "10.1.15.59"},
		{TypeAAAA, "six.test", 100, "2001:db8::63"},
		{TypeA, "a.test", 1, "192.0.2.1"},
		{TypeA, "nowhere.test", 0, "invalid IP"},
	} {
		a := ask(t, newClient(server.Addr), c.qtype, c.name)
		var last netip.Addr
		n := 0
		for addr := range a.All() {
			last = addr
			n++
		}
		if n != c.n || a.Len() != c.n || len(a.Addrs) != min(c.n, maxKept) || last.String() != c.last {
			t.Errorf("%s: %d addresses to %v, %d kept, %v", c.name, n, last, len(a.Addrs), a)
		}
		for range a.All() {
			break
		}
	}
}

// TestEDNS0Refused: once more without, and that server is not asked with it again.
func TestEDNS0Refused(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"formerr.test", "notimp.test"} {
		server := dnstest.New(t, zone, trouble)
		r := newClient(server.Addr)
		for range 2 {
			if a := ask(t, r, TypeA, name); a.Err != nil || a.Len() != 1 {
				t.Errorf("%s: %v", name, a.Err)
			}
		}
		if all, without := server.Queries.Load(), server.WithoutEDNS.Load(); all != 3 || without != 2 {
			t.Errorf("%s: %d queries, %d without EDNS0", name, all, without)
		}
	}
	server := dnstest.New(t, zone, trouble)
	a := ask(t, newClient(server.Addr), TypeA, "bigplain.test")
	if a.Len() != 200 || len(a.Addrs) != maxKept || server.ByTCP.Load() != 1 {
		t.Errorf("without EDNS0 by TCP: %d records, %v", a.Len(), a.Err)
	}
	// A name that is answered with FORMERR whatever is asked says nothing about EDNS0.
	r := newClient(server.Addr)
	ask(t, r, TypeA, "stubborn.test")
	if !r.mayUseEDNS(0) {
		t.Error("EDNS0 was given up for nothing")
	}
}

// TestEDNS0Silence: a firewall that drops queries with EDNS0, or answers of more than
// 512 bytes, costs one short wait, once; not half of timeoutdns.
func TestEDNS0Silence(t *testing.T) {
	t.Parallel()
	server := dnstest.New(t, zone, trouble)
	for _, c := range []struct {
		name  string
		addrs int
		byTCP int32
	}{{"noedns.test", 1, 0}, {"nolarge.test", 60, 1}} {
		r := newClient(server.Addr)
		tcp := server.ByTCP.Load()
		a := ask(t, r, TypeA, c.name)
		if a.Len() != c.addrs || len(a.Notes) == 0 || server.ByTCP.Load()-tcp < c.byTCP {
			t.Errorf("%s: %d addresses, %v after %q", c.name, a.Len(), a.Err, a.Notes)
		}
		if r.mayUseEDNS(0) {
			t.Errorf("%s: the next lookup would wait again", c.name)
		}
	}
	// Another server's answer says nothing about the one that was silent, nor of itself.
	r := newClient(dnstest.Silent(t), server.Addr)
	if a := ask(t, r, TypeA, "a.test"); len(a.Addrs) != 1 || !r.mayUseEDNS(0) || !r.mayUseEDNS(1) {
		t.Errorf("%v, %v", a.Addrs, a.Err)
	}
}

// TestTCPAlone: with use-vc nothing goes by UDP.
func TestTCPAlone(t *testing.T) {
	t.Parallel()
	server := dnstest.New(t, zone, trouble)
	r := NewClient(Config{Servers: []netip.AddrPort{server.Addr}, TCP: true})
	for _, name := range []string{"noudp.test", "a.test", "huge.test", "noedns.test"} {
		if a := ask(t, r, TypeA, name); len(a.Addrs) == 0 {
			t.Errorf("%s: %v", name, a.Err)
		}
	}
	if all, tcp := server.Queries.Load(), server.ByTCP.Load(); all != tcp || all != 4 {
		t.Errorf("%d of %d queries by TCP", tcp, all)
	}
}

func TestServersInTurn(t *testing.T) {
	t.Parallel()
	good := dnstest.New(t, zone, nil)
	bad := dnstest.New(t, zone, map[string]string{"a.test": "servfail", "v4.test": "mangled", "mx.test": "refused"})

	// Those that answer at once that they cannot tell cost no time.
	r := newClient(dnstest.Closed(t), bad.Addr, good.Addr)
	for _, name := range []string{"a.test", "v4.test"} {
		a := ask(t, r, TypeA, name)
		if a.Len() != 1 || strings.Contains(strings.Join(a.Notes, "\n"), "no answer") {
			t.Errorf("%s: %v, %q", name, a.Err, a.Notes)
		}
		r.lastGood.Store(0)
	}
	if a := ask(t, r, TypeMX, "mx.test"); a.Len() != 1 || len(a.Notes) != 2 {
		t.Errorf("mx.test: %v, %q", a.Err, a.Notes)
	}

	// A server that says so is asked once, however much time there is.
	before := bad.Queries.Load()
	r = newClient(bad.Addr, dnstest.Closed(t))
	if a := ask(t, r, TypeA, "a.test"); a.Err == nil || bad.Queries.Load()-before != 2 { // with EDNS0, and without
		t.Errorf("%v, %d queries", a.Err, bad.Queries.Load()-before)
	}
}

// TestSilentServer: one silent server among three costs a second, once.
func TestSilentServer(t *testing.T) {
	t.Parallel()
	good := dnstest.New(t, zone, nil)
	r := newClient(dnstest.Silent(t), good.Addr, dnstest.Silent(t))
	a := ask(t, r, TypeA, "a.test")
	if a.Len() != 1 || len(a.Notes) != 1 || a.Took < patience[0] {
		t.Errorf("%v after %v, %q", a.Err, a.Took, a.Notes)
	}
	a = ask(t, r, TypeAAAA, "a.test")
	if a.Len() != 1 || len(a.Notes) != 0 {
		t.Errorf("the second lookup: %v, %q", a.Err, a.Notes)
	}
}

// TestNobodyNamed: where no name server is named, that is said, and not that one which
// nobody has named does not answer.
func TestNobodyNamed(t *testing.T) {
	t.Parallel()
	closed, refuses := dnstest.Closed(t), dnstest.New(t, "", map[string]string{"a.test": "refused"})
	for _, c := range []struct {
		servers []netip.AddrPort
		want    string
	}{
		{[]netip.AddrPort{closed}, "/etc/resolv.conf names no name server, and none answers on this machine"},
		{[]netip.AddrPort{refuses.Addr, closed}, "/etc/resolv.conf names no name server, and this machine's own: the server refuses to answer"},
	} {
		client := NewClient(Config{Servers: c.servers, Guess: "/etc/resolv.conf names no name server"})
		if a := ask(t, client, TypeA, "a.test"); a.Err == nil || a.Err.Error() != c.want {
			t.Errorf("%v, want %s", a.Err, c.want)
		}
	}
	if a := ask(t, newClient(), TypeA, "a.test"); !a.Failed() {
		t.Error("an answer of nobody: ", a)
	}
}

// TestContexts: a lookup ends with its context, and the answer shows that it did.
func TestContexts(t *testing.T) {
	t.Parallel()
	client := newClient(dnstest.Silent(t), dnstest.Silent(t))
	for _, limit := range []time.Duration{0, 100 * time.Millisecond, 1300 * time.Millisecond} {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		a := client.Lookup(ctx, Question{Name: "a.test", Type: TypeA})
		cancel()
		if !a.Failed() || !errors.Is(a.Err, context.DeadlineExceeded) || a.Took < limit || a.Took > limit+10*time.Second {
			t.Errorf("limit %v: %v", limit, a)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	arrivals := Start(ctx, client, []Question{{Name: "a.test", Type: TypeA}})
	cancel()
	if a := (<-arrivals).Answer; !a.Failed() || !errors.Is(a.Err, context.Canceled) || a.Took > 10*time.Second {
		t.Errorf("cancelled: %v", a)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

func TestStart_panic(t *testing.T) {
	config := Config{Servers: []netip.AddrPort{dnstest.Closed(t)}}
	config.IDs = readerFunc(func([]byte) (int, error) { panic("no dice") })
	if a := ask(t, NewClient(config), TypeA, "a.test"); !a.Failed() || !strings.Contains(a.Err.Error(), "no dice") {
		t.Error(a)
	}
	config.IDs = readerFunc(func([]byte) (int, error) { return 0, io.ErrUnexpectedEOF })
	if a := ask(t, NewClient(config), TypeA, "a.test"); !a.Failed() {
		t.Error("a query without an id")
	}
	// A name that cannot be packed is trouble, not a panic and not a denial.
	if a := ask(t, newClient(dnstest.Closed(t)), TypeA, strings.Repeat("a", 70)); !a.Failed() {
		t.Error(a)
	}
}

// TestShared: hundreds use one client at a time, with different and with equal questions.
// Each gets its own answer, and there are never more sockets than there may be.
func TestShared(t *testing.T) {
	t.Parallel()
	const goroutines = 300
	// abandoned is how many queries are given up: their sockets are free then, and the server
	// may still be at them.
	const abandoned = 1
	server := dnstest.New(t, dnstest.Many(goroutines, "t%d-%d.test. A 192.0.2.1")+"equal.test. MX 10 a.test.\n",
		map[string]string{"equal.test": "slow", "t0-1.test": "slow", "t0-7.test": "silence"})
	client := newClient(server.Addr)
	var all sync.WaitGroup
	for i := range goroutines {
		all.Go(func() {
			name := fmt.Sprintf("t%d-%d.test", i/256, i%256)
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			if name == "t0-7.test" {
				ctx, cancel = context.WithTimeout(t.Context(), 100*time.Millisecond)
				defer cancel()
			}
			questions := []Question{{Name: name, Type: TypeA}, {Name: "equal.test", Type: TypeMX}, {Name: name, Type: TypeMX}}
			if name == "t0-7.test" {
				questions = questions[:abandoned]
			}
			arrivals := Start(ctx, client, questions)
			for range questions {
				arrival := <-arrivals
				a, q := arrival.Answer, questions[arrival.Index]
				switch {
				case name == "t0-7.test":
				case a.Question != q, a.Err != nil, a.Server != server.Addr:
					t.Errorf("%v: %v", q, a)
				case q.Type == TypeA && !slices.Equal(a.Addrs, []netip.Addr{netip.MustParseAddr("192.0.2.1")}),
					q.Name == "equal.test" && !slices.Equal(a.MX, []MX{{10, "a.test."}}),
					q.Name == name && q.Type == TypeMX && a.Len() > 0:
					t.Errorf("%v: %v", q, a)
				}
			}
		})
	}
	all.Wait()
	if n := server.Busiest.Load(); n > defaultSockets+abandoned || n < 2 {
		t.Errorf("%d queries at once", n)
	}
	if n := len(client.sockets); n > 0 {
		t.Errorf("%d sockets are left", n)
	}
}

// TestFlood: somebody with many questions to a silent server delays the others for one
// round, and does not keep them away. Who has no time for that is told why.
func TestFlood(t *testing.T) {
	t.Parallel()
	server := dnstest.New(t, zone, map[string]string{"flood.test": "silence"})
	client := newClient(server.Addr)
	flood, stop := context.WithCancel(t.Context())
	floods := Start(flood, client, slices.Repeat([]Question{{Name: "flood.test", Type: TypeA}}, 200))
	for len(client.sockets) < defaultSockets {
		time.Sleep(time.Millisecond)
	}
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if a := client.Lookup(short, Question{Name: "a.test", Type: TypeA}); !errors.Is(a.Err, errNoSocket) || !errors.Is(a.Err, context.DeadlineExceeded) {
		t.Error(a)
	}
	if a := ask(t, client, TypeA, "a.test"); a.Len() != 1 || len(a.Notes) > 0 {
		t.Errorf("%v, %q", a, a.Notes)
	}
	stop()
	for range 200 {
		<-floods
	}
}

// TestSockets: a Client has as many sockets as its Config says, and those who want one more
// try after a silence have at most half of them.
func TestSockets(t *testing.T) {
	t.Parallel()
	const sockets = 8
	server := dnstest.New(t, "", map[string]string{"slow.test": "slow"})
	client := NewClient(Config{Servers: []netip.AddrPort{server.Addr}, Sockets: sockets})
	arrivals := Start(t.Context(), client, slices.Repeat([]Question{{Name: "slow.test", Type: TypeA}}, 50))
	for range 50 {
		if a := (<-arrivals).Answer; a.Failed() {
			t.Error(a)
		}
	}
	if n := server.Busiest.Load(); n > sockets || n < 2 {
		t.Errorf("%d queries at once", n)
	}

	var gives []func()
	take := func(want int, silence bool) {
		t.Helper()
		for n := 0; ; n++ {
			short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			give, err := (&lookup{Client: client, silence: silence}).takeSocket(short)
			cancel()
			if err != nil {
				if n != want {
					t.Errorf("%d sockets after silence %v, want %d", n, silence, want)
				}
				return
			}
			gives = append(gives, give)
		}
	}
	take(sockets/2, true)
	take(sockets/2, false)
	take(0, true)
	for _, give := range gives {
		give()
	}
	if len(client.sockets) > 0 || len(client.retries) > 0 {
		t.Errorf("%d and %d sockets are left", len(client.sockets), len(client.retries))
	}
	take(sockets, false)
	take(0, true)
	if len(client.retries) > 0 {
		t.Errorf("%d of those who gave up hold a place", len(client.retries))
	}
	for _, sockets := range []int{0, 1} {
		if c := NewClient(Config{Sockets: sockets}); cap(c.sockets) != max(sockets, 1) && cap(c.sockets) != defaultSockets || cap(c.retries) == 0 {
			t.Errorf("%d: %d and %d", sockets, cap(c.sockets), cap(c.retries))
		}
	}
}

// TestShare: the share of some lookups begins when the last of them that waited has its
// socket.
func TestShare(t *testing.T) {
	t.Parallel()
	server := dnstest.New(t, zone, map[string]string{"silent.test": "silence"})
	client := NewClient(Config{Servers: []netip.AddrPort{server.Addr}, Sockets: 1})
	_, alone := WithShare(t.Context(), time.Millisecond)
	defer alone.Stop()
	select {
	case <-alone.C: // nobody waits for a socket of ours
	case <-time.After(20 * time.Second):
		t.Fatal("the share is never over")
	}

	give, err := (&lookup{Client: client}).takeSocket(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const short = 100 * time.Millisecond
	ctx, share := WithShare(t.Context(), short)
	defer share.Stop()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	arrivals := Start(ctx, client, []Question{{Name: "silent.test", Type: TypeA}, {Name: "silent.test", Type: TypeMX}})
	waiting := func() int {
		share.mu.Lock()
		defer share.mu.Unlock()
		return share.waiting
	}
	for waiting() < 2 {
		time.Sleep(time.Millisecond)
	}
	select {
	case <-share.C:
		t.Fatal("the share is over before the lookups have begun")
	case <-time.After(3 * short):
	}
	give() // the second lookup gets the socket when the first one has had its second
	select {
	case <-share.C:
		if waiting() > 0 {
			t.Error("the share is over, and one of its lookups has not begun")
		}
	case <-time.After(20 * time.Second):
		t.Error("the share is never over")
	}
	cancel()
	for range 2 {
		<-arrivals
	}
	if waiting() != 0 {
		t.Errorf("%d lookups wait", waiting())
	}
}

// TestShare_over: a context that ends because a share is over ends lookups as its deadline
// does.
func TestShare_over(t *testing.T) {
	t.Parallel()
	client := newClient(dnstest.Silent(t))
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(context.DeadlineExceeded)
	a := client.Lookup(ctx, Question{Name: "a.test", Type: TypeA})
	if !errors.Is(a.Err, context.DeadlineExceeded) || !strings.HasSuffix(a.Err.Error(), ": no answer in time") {
		t.Error(a)
	}
}

// TestEDNS0Again: one silence is not held against a server for ever.
func TestEDNS0Again(t *testing.T) {
	t.Parallel()
	server := dnstest.New(t, zone, trouble)
	began := time.Now()
	var later atomic.Int64
	client := NewClient(Config{Servers: []netip.AddrPort{server.Addr}, Now: func() time.Time { return time.Now().Add(time.Duration(later.Load())) }})
	for _, c := range []struct {
		name    string
		later   time.Duration
		without int32
	}{
		{"formerr.test", 0, 1},
		{"a.test", 0, 1},
		{"a.test", ednsPause - time.Since(began) - time.Minute, 1},
		{"a.test", ednsPause, 0},
	} {
		later.Store(int64(c.later))
		before := server.WithoutEDNS.Load()
		if a := ask(t, client, TypeA, c.name); a.Len() != 1 || server.WithoutEDNS.Load()-before != c.without {
			t.Errorf("%s, %v later: %v, %d queries without EDNS0", c.name, c.later, a, server.WithoutEDNS.Load()-before)
		}
	}
}

// TestUnpredictable: ids and source ports differ from query to query.
func TestUnpredictable(t *testing.T) {
	t.Parallel()
	conn := must.Get(net.ListenPacket("udp", "127.0.0.1:0"))(t)
	defer conn.Close()
	ids, ports := map[uint16]bool{}, map[string]bool{}
	const queries = 50
	client := newClient(netip.MustParseAddrPort(conn.LocalAddr().String()))
	for range queries {
		arrivals := Start(t.Context(), client, []Question{{Name: "a.test", Type: TypeA}})
		b := make([]byte, 512)
		n, from, err := conn.ReadFrom(b)
		must.OK(t, err)
		var m miekg.Msg
		must.OK(t, m.Unpack(b[:n]))
		if opt := m.IsEdns0(); opt == nil || opt.UDPSize() != 1232 || opt.Do() || !m.RecursionDesired {
			t.Fatalf("query %v", &m)
		}
		ids[m.Id], ports[from.String()] = true, true
		m.Response = true
		if b, err = m.Pack(); err == nil {
			_, err = conn.WriteTo(b, from)
		}
		if <-arrivals; err != nil {
			t.Fatal(err)
		}
	}
	if len(ids) < queries-5 || len(ports) < queries/2 {
		t.Errorf("%d ids and %d ports in %d queries", len(ids), len(ports), queries)
	}
}

func FuzzParse(f *testing.F) {
	const name = "a.test."
	seed := func(rcode int, ns []string, answers ...string) {
		m := &miekg.Msg{Question: []miekg.Question{{Name: name, Qtype: miekg.TypeA, Qclass: miekg.ClassINET}}}
		m.Response, m.Rcode = true, rcode
		for _, text := range answers {
			m.Answer = append(m.Answer, must.Get(miekg.NewRR(text))(f))
		}
		for _, text := range ns {
			m.Ns = append(m.Ns, must.Get(miekg.NewRR(text))(f))
		}
		if rcode == miekg.RcodeFormatError {
			m.Question = nil
		}
		b := must.Get(m.Pack())(f)
		f.Add(b)
		f.Add(b[:len(b)-1])
	}
	seed(miekg.RcodeSuccess, nil)
	seed(miekg.RcodeNameError, nil)
	seed(miekg.RcodeFormatError, nil)
	seed(miekg.RcodeSuccess, nil, "a.test. CNAME b.test.", "b.test. A 192.0.2.1")
	seed(miekg.RcodeSuccess, nil, "a.test. CNAME a.test.", "a.test. AAAA ::1")
	seed(miekg.RcodeSuccess, nil, `a.test. MX 0 .`, `a.test. SRV 0 0 0 a\000\255.`)
	seed(miekg.RcodeSuccess, []string{"test. SOA a. b. 1 2 3 4 5", "test. NS a."})
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, qtype := range []Type{TypeA, TypeAAAA, TypeMX, TypeSRV} {
			q := query{name: name, qtype: qtype}
			m, err := q.parse(b, 0)
			if m == nil || err != nil {
				continue
			}
			if !bytes.Equal(b[:2], []byte{0, 0}) {
				t.Fatal("an answer to another query")
			}
			r, err := read(m, name, qtype, 0)
			if err != nil {
				continue
			}
			a := &Answer{Question: Question{Name: "a.test", Type: qtype}}
			a.take(r.records)
			for addr := range a.All() {
				if !addr.IsValid() || addr.Is4In6() {
					t.Errorf("address %v", addr)
				}
			}
			if line := a.String(); strings.ContainsAny(line, "\n\x00\r") || a.Len() != len(r.records) || r.ttl > maxTTL {
				t.Errorf("%d records, TTL %d, trace line %q", len(r.records), r.ttl, line)
			}
			// The line has the records as miekg/dns prints them.
			for i, rr := range r.records[:min(len(r.records), maxTracedRecords)] {
				want := strings.ReplaceAll(strings.TrimPrefix(rr.String(), rr.Header().String()), "\t", " ")
				if got := a.Record(i); got != want {
					t.Errorf("record %q, want %q", got, want)
				}
			}
		}
	})
}

// BenchmarkLookup is one question to a name server on loopback.
func BenchmarkLookup(b *testing.B) {
	client := newClient(dnstest.New(b, zone, nil).Addr)
	b.ReportAllocs()
	for b.Loop() {
		if a := client.Lookup(b.Context(), Question{Name: "a.test", Type: TypeA}); a.Err != nil {
			b.Fatal(a.Err)
		}
	}
}

func TestTXT(t *testing.T) {
	t.Parallel()
	server := dnstest.New(t, `
sts.test.    TXT "v=STSv1; " "id=1;"
sts.test.    TXT "two"
bytes.test.  TXT "a\"b\\c\000\255 \0651" "\009"
alias.test.  CNAME sts.test.
empty.test.  TXT ""
none.test.   A 192.0.2.1
`, nil)
	for _, c := range []struct {
		name string
		want []string
	}{
		{"sts.test", []string{"v=STSv1; id=1;", "two"}},
		{"alias.test", []string{"v=STSv1; id=1;", "two"}},
		{"bytes.test", []string{"a\"b\\c\x00\xff A1\t"}},
		{"empty.test", []string{""}},
		{"none.test", nil},
	} {
		a := ask(t, newClient(server.Addr), TypeTXT, c.name)
		if a.Err != nil || !slices.Equal(a.TXT, c.want) || a.Len() != len(c.want) {
			t.Errorf("%s: %q, %v, want %q", c.name, a.TXT, a.Err, c.want)
		}
		for i, text := range c.want {
			if got := a.Record(i); got != strconv.Quote(text) {
				t.Errorf("%s: record %s, want %q", c.name, got, text)
			}
		}
	}
}
