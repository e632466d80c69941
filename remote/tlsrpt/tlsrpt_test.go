package tlsrpt

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"nightmare.mail/mxf/integration/must"
)

var records = []struct {
	text string
	ok   bool
}{
	{"v=TLSRPTv1; rua=mailto:reports@example.org", true},
	{"v=TLSRPTv1;", true},
	{"v=TLSRPTv1 \t ;x", true},
	{"v=TLSRPTv1;\x00\xff\"", true},
	{"v=TLSRPTv1", false},
	{"v=TLSRPTv1 x;", false},
	{"v=TLSRPTv10;", false},
	{"v=tlsrptv1;", false},
	{" v=TLSRPTv1;", false},
	{"", false},
}

func TestRecord(t *testing.T) {
	for _, c := range records {
		want := ""
		if c.ok {
			want = c.text
		}
		if got := Record([]string{"v=spf1 -all", c.text, "v=STSv1; id=1"}); got != want {
			t.Errorf("%q: %q", c.text, got)
		}
		if got := Record([]string{c.text, "v=TLSRPTv1;rua=x"}); c.ok && got != "" {
			t.Errorf("%q and another: %q", c.text, got)
		}
	}
	if got := Record(nil); got != "" {
		t.Errorf("none: %q", got)
	}
	if got := RecordName("example.org"); got != "_smtp._tls.example.org" {
		t.Error(got)
	}
}

func FuzzRecord(f *testing.F) {
	for _, c := range records {
		f.Add(c.text, "")
		f.Add(c.text, "v=TLSRPTv1;")
	}
	f.Fuzz(func(t *testing.T, one, two string) {
		begins := regexp.MustCompile(`\Av=TLSRPTv1[ \t]*;`)
		want := ""
		if begins.MatchString(one) != begins.MatchString(two) {
			if want = one; begins.MatchString(two) {
				want = two
			}
		}
		if got := Record([]string{one, two}); got != want {
			t.Errorf("%q, %q: %q", one, two, got)
		}
	})
}

const record = "v=TLSRPTv1; rua=mailto:tls@example.org"

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// What is sent, byte for byte.
var datagrams = []struct {
	name string
	d    Datagram
	want string
}{
	{"page", Datagram{"Example.ORG.", record, []Policy{{STS, "example.org", []string{"3 1 1 AB12"}, []string{"*.Example.org"},
		&Failure{CertificateNotTrusted, addr("192.0.2.1"), "MX.example.org.", addr("::ffff:192.0.2.2"), "untrusted"}}}},
		`{"dpv": "1","d": "example.org","pr": "v=TLSRPTv1; rua=mailto:tls@example.org","policies":[{"policy-type":2,"policy-domain": "example.org","policy-string":["3 1 1 AB12"],` +
			`"mx-host":["*.example.org"],"failure-details":[{"c":203,"s": "192.0.2.1","n": "mx.example.org","r": "192.0.2.2","f": "untrusted"}],"t":1,"f":1}]}`},
	{"success, nothing published", Datagram{"example.org", record, []Policy{{Type: None, Domain: "example.org"}}},
		`{"dpv": "1","d": "example.org","pr": "v=TLSRPTv1; rua=mailto:tls@example.org","policies":[{"policy-type":9,"policy-domain": "example.org","t":0,"f":0}]}`},
	{"neither list of type 9", Datagram{"example.org", record, []Policy{{None, "example.org", []string{"x"}, []string{"y"}, nil}}},
		`{"dpv": "1","d": "example.org","pr": "v=TLSRPTv1; rua=mailto:tls@example.org","policies":[{"policy-type":9,"policy-domain": "example.org","t":0,"f":0}]}`},
	{"two policies, TLSA sorted", Datagram{"example.org", record, []Policy{
		{TLSA, "mx.example.org", []string{TLSAString(3, 1, 1, []byte{0xff, 1}), TLSAString(2, 0, 1, []byte{0xab})}, []string{"x"},
			&Failure{Code: CertificateHostMismatch, Ours: addr("2001:db8::1"), Exchanger: "mx.example.org", Theirs: addr("fe80::1%eth0")}},
		{STS, "example.org", []string{"version: STSv1", "mode: testing"}, []string{"b", "a"}, nil}}},
		`{"dpv": "1","d": "example.org","pr": "v=TLSRPTv1; rua=mailto:tls@example.org","policies":[{"policy-type":1,"policy-domain": "mx.example.org","policy-string":["2 0 1 AB","3 1 1 FF01"],` +
			`"failure-details":[{"c":202,"s": "2001:db8::1","n": "mx.example.org","r": "fe80::1"}],"t":1,"f":1},` +
			`{"policy-type":2,"policy-domain": "example.org","policy-string":["version: STSv1","mode: testing"],"mx-host":["b","a"],"t":0,"f":0}]}`},
	{"an event without a connection", Datagram{"example.org", record, []Policy{{Type: STS, Domain: "example.org",
		Failure: &Failure{Code: STSPolicyFetchError, Reason: "mta-sts.example.org: connection refused"}}}},
		`{"dpv": "1","d": "example.org","pr": "v=TLSRPTv1; rua=mailto:tls@example.org","policies":[{"policy-type":2,"policy-domain": "example.org",` +
			`"failure-details":[{"c":301,"f": "mta-sts.example.org:-connection-refused"}],"t":1,"f":1}]}`},
	{"escapes", Datagram{"example.org", "v=TLSRPTv1;\b\f\n\r\t\\\"/\x00\x1f\x7f\u00e9\u2028\ufffd\xff\xfe\xed\xa0\x80", []Policy{{Type: None, Failure: &Failure{Code: ValidationFailure, Reason: "a b\tc\"\xff"}}}},
		`{"dpv": "1","d": "example.org","pr": "v=TLSRPTv1;\b\f\n\r\t\\\"/\u0000\u001f\u007f` + "\u00e9\u2028\ufffd" + `?????","policies":[{"policy-type":9,` +
			`"failure-details":[{"c":205,"f": "a-b-c\"?"}],"t":1,"f":1}]}`},
}

func TestDatagram(t *testing.T) {
	for _, c := range datagrams {
		got, err := c.d.Bytes()
		if err != nil || string(got) != c.want {
			t.Errorf("%s: %v\n%s\nwant\n%s", c.name, err, got, c.want)
		}
		if _, err := read(string(got)); err != nil || !json.Valid(got) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// The example of the page, with what it has in angle brackets filled in. Its type 1 has
// mx-host, which type 2 alone has: it stands for the order.
func TestDatagram_page(t *testing.T) {
	page := `{"dpv": "1","d": "<policy domain>","pr": "<TXT record>","policies":[{"policy-type":1,"policy-domain": "<name>","policy-string":["3 1 1 AB12"],` +
		`"mx-host":["*.example.org"],"failure-details":[{"c":203,"s": "<our IP>","n": "<exchanger>","r": "<its IP>","f": "<reason>"}],"t":1,"f":1}]}`
	want := strings.NewReplacer("<policy domain>", "example.org", "<TXT record>", record, "<name>", "example.org", "<our IP>", "192.0.2.1",
		"<exchanger>", "mx.example.org", "<its IP>", "192.0.2.2", "<reason>", "untrusted", `"policy-type":1`, `"policy-type":2`).Replace(page)
	if got := must.Get(datagrams[0].d.Bytes())(t); string(got) != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}

// The codes are those of the page, and of libtlsrpt's header.
func TestNumbers(t *testing.T) {
	got := fmt.Sprint(TLSA, STS, None, STARTTLSNotSupported, CertificateHostMismatch, CertificateNotTrusted, CertificateExpired, ValidationFailure,
		STSPolicyFetchError, STSPolicyInvalid, STSWebPKIInvalid, TLSAInvalid, DNSSECInvalid, DANERequired)
	if got != "1 2 9 201 202 203 204 205 301 302 303 304 305 306" {
		t.Error(got)
	}
}

func TestReason(t *testing.T) {
	long := strings.Repeat("\u00e9", 100)
	for in, want := range map[string]string{
		"": "", " ": "-", "a\tb c": "a-b-c", long: long, "x" + long: "x" + long[:198], long + "y": long, strings.Repeat("a", 201): strings.Repeat("a", 200),
		strings.Repeat("\x80", 201): strings.Repeat("\x80", 196),
	} {
		if got := reason(in); got != want {
			t.Errorf("%q: %q (%d), want %q", in, got, len(got), want)
		}
	}
}

// A datagram that is too long loses entries of its lists, and nothing else.
func TestDatagram_long(t *testing.T) {
	many := func(n, size int) (list []string) {
		for i := range n {
			list = append(list, fmt.Sprintf("%0*d", size, i))
		}
		return list
	}
	for _, c := range []struct {
		strings, hosts, stringSize, hostSize int
		left                                 int // entries of each list; -1: all; -2: not sent
	}{
		{33, 33, 100, 100, -1},
		{33, 33, 500, 500, 32},
		{1, 40, 40000, 5, -2},
		{1, 1, 20000, 20000, -2},
		{32, 32, 1000, 1000, -2},
		{40, 0, 1000, 0, 32},
	} {
		d := Datagram{"d", record, []Policy{{Type: STS, Domain: "d", Strings: many(c.strings, c.stringSize), MXHosts: many(c.hosts, c.hostSize)}}}
		got, err := d.Bytes()
		if c.left == -2 {
			if !errors.Is(err, ErrTooLong) || got != nil {
				t.Errorf("%+v: %d bytes, %v", c, len(got), err)
			}
			continue
		}
		seen, readErr := read(string(got))
		if err != nil || readErr != nil || len(got) > 32768 {
			t.Fatalf("%+v: %d bytes, %v, %v", c, len(got), err, readErr)
		}
		want := func(n int) int {
			if c.left >= 0 {
				return min(n, c.left)
			}
			return n
		}
		if p := seen.policies[0]; len(p.strings) != want(c.strings) || len(p.hosts) != want(c.hosts) {
			t.Errorf("%+v: %d strings and %d hosts are left", c, len(p.strings), len(p.hosts))
		}
	}
	// The bound is exact.
	d := Datagram{"d", "", []Policy{{Type: None}}}
	d.Record = strings.Repeat("x", maxDatagram-len(must.Get(d.Bytes())(t)))
	if got, err := d.Bytes(); err != nil || len(got) != maxDatagram {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	d.Record += "x"
	if _, err := d.Bytes(); !errors.Is(err, ErrTooLong) {
		t.Error(err)
	}
}

func FuzzDatagram(f *testing.F) {
	f.Add("example.org", record, "3 1 1 AB12", "*.example.org", "mx.example.org", "untrusted", 2, 203)
	f.Add("", "\b\f\n\r\t\\\"\x00\x7f\xff\u2028", "", "", "", "a b", 1, 205)
	f.Fuzz(func(t *testing.T, domain, record, value, host, exchanger, reason string, kind, code int) {
		d := Datagram{domain, record, []Policy{
			{Type(kind), domain, []string{value, record}, []string{host}, &Failure{Code(code), addr("192.0.2.1"), exchanger, netip.Addr{}, reason}},
			{Type: STS, Domain: domain, Strings: []string{value}, MXHosts: []string{host}},
		}}
		data, err := d.Bytes()
		if err != nil {
			return
		}
		got, err := read(string(data))
		if err != nil || !json.Valid(data) {
			t.Fatalf("%q: %v", data, err)
		}
		p := got.policies[1]
		if got.record != valid(record) || len(got.policies) != 2 || len(p.strings) != 1 || p.strings[0] != valid(value) || len(p.hosts) != 1 {
			t.Errorf("%q: %+v", data, got)
		}
		if first := got.policies[0]; first.code != code || len(first.reason) > 200 || strings.ContainsAny(first.reason, " \t") {
			t.Errorf("%q: %+v", data, first)
		}
	})
}

// valid is text with a question mark for each byte that is not UTF-8.
func valid(s string) string {
	out := ""
	for at := 0; at < len(s); {
		r, size := utf8.DecodeRuneInString(s[at:])
		if r == utf8.RuneError && size == 1 {
			out += "?"
		} else {
			out += s[at : at+size]
		}
		at += size
	}
	return out
}

// A seen datagram is what a strict reader makes of one.
type seen struct {
	domain, record string
	policies       []seenPolicy
}

type seenPolicy struct {
	kind, code     int
	strings, hosts []string
	reason         string
	tries, result  int
}

// A reader goes by the text of the page: no blanks but behind the colon of a string, the
// members in their order.
type reader struct {
	rest string
	err  error
}

// read reads a whole datagram, written from the page alone.
func read(text string) (s seen, err error) {
	r := &reader{rest: text}
	r.want(`{"dpv": "1","d": `)
	s.domain = r.text()
	r.want(`,"pr": `)
	s.record = r.text()
	r.want(`,"policies":[`)
	for first := true; r.err == nil && (first || r.skip(",")); first = false {
		s.policies = append(s.policies, r.policy())
	}
	r.want("]}")
	if r.err == nil && r.rest != "" {
		r.err = fmt.Errorf("%q behind the end", r.rest)
	}
	return s, r.err
}

func (r *reader) policy() (p seenPolicy) {
	r.want(`{"policy-type":`)
	p.kind = r.number()
	if r.skip(`,"policy-domain": `) {
		r.text()
	}
	if r.skip(`,"policy-string":[`) {
		p.strings = r.list()
	}
	if r.skip(`,"mx-host":[`) {
		p.hosts = r.list()
	}
	failed := r.skip(`,"failure-details":[{"c":`)
	if failed {
		p.code = r.number()
		for _, name := range []string{"s", "n", "r", "f"} {
			if r.skip(`,"` + name + `": `) {
				p.reason = r.text()
				if name != "f" {
					p.reason = ""
				}
			}
		}
		r.want("}]")
	}
	r.want(`,"t":`)
	p.tries = r.number()
	r.want(`,"f":`)
	p.result = r.number()
	r.want("}")
	if want := map[bool]int{true: 1}[failed]; r.err == nil && (p.tries != want || p.result != want) {
		r.err = errors.New("t and f do not fit failure-details")
	}
	return p
}

func (r *reader) skip(text string) bool {
	rest, ok := strings.CutPrefix(r.rest, text)
	if ok {
		r.rest = rest
	}
	return ok
}

func (r *reader) want(text string) {
	if !r.skip(text) && r.err == nil {
		r.err = fmt.Errorf("no %q at %.40q", text, r.rest)
	}
}

func (r *reader) number() int {
	digits := regexp.MustCompile(`\A-?[0-9]+`).FindString(r.rest)
	r.rest = r.rest[len(digits):]
	n, err := strconv.Atoi(digits)
	if err != nil && r.err == nil {
		r.err = err
	}
	return n
}

func (r *reader) list() (values []string) {
	for first := true; r.err == nil && (first || r.skip(",")); first = false {
		values = append(values, r.text())
	}
	r.want("]")
	return values
}

var escaped = regexp.MustCompile(`\\(?:[bfnrt\\"]|u00[01][0-9a-f]|u007f)`)

func (r *reader) text() string {
	// Everything that is no escape stands for itself: no control character, no quote.
	quoted := regexp.MustCompile(`\A"(?:[^\x00-\x1f\x7f"\\]|\\[bfnrt\\"]|\\u00[01][0-9a-f]|\\u007f)*"`).FindString(r.rest)
	if quoted == "" || !utf8.ValidString(quoted) {
		if r.err == nil {
			r.err = fmt.Errorf("no string at %.40q", r.rest)
		}
		return ""
	}
	r.rest = r.rest[len(quoted):]
	return escaped.ReplaceAllStringFunc(quoted[1:len(quoted)-1], func(e string) string {
		if i := strings.IndexByte(`bfnrt\"`, e[1]); i >= 0 {
			return "\b\f\n\r\t\\\""[i : i+1]
		}
		n, _ := strconv.ParseUint(e[2:], 16, 8)
		return string([]byte{byte(n)})
	})
}

// listen is a collector's socket.
func listen(t testing.TB) (*net.UnixConn, string) {
	t.Helper()
	folder := must.Get(os.MkdirTemp("", "r"))(t) // t.TempDir may be too long for a socket
	t.Cleanup(func() { os.RemoveAll(folder) })
	path := filepath.Join(folder, "s")
	conn := must.Get(net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"}))(t)
	t.Cleanup(func() { conn.Close() })
	return conn, path
}

func TestSend(t *testing.T) {
	conn, path := listen(t)
	buf := make([]byte, 1<<16)
	must.OK(t, errors.Join(Send(path, []byte("a"), []byte("b"))...))
	for _, want := range []string{"a", "b"} {
		if n := must.Get(conn.Read(buf))(t); string(buf[:n]) != want {
			t.Errorf("%q, want %q", buf[:n], want)
		}
	}
	for _, size := range []int{1, 1000, maxDatagram} {
		want := []byte(strings.Repeat("x", size))
		must.OK(t, Send(path, want)[0])
		if n := must.Get(conn.Read(buf))(t); !slices.Equal(buf[:n], want) {
			t.Errorf("%d bytes, want %d", n, size)
		}
	}
}

func TestSend_fails(t *testing.T) {
	conn, path := listen(t)
	// A queue that nobody empties is not waited for long, and loses nothing that it has.
	sent := 0
	must.Within(t, "full queue", func() {
		for ; ; sent++ {
			if err := Send(path, []byte(strconv.Itoa(sent)))[0]; err != nil {
				if !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("full: %v", err)
				}
				return
			}
		}
	})
	buf := make([]byte, 100)
	for i := range sent {
		if n := must.Get(conn.Read(buf))(t); string(buf[:n]) != strconv.Itoa(i) {
			t.Errorf("%q in place %d", buf[:n], i)
		}
	}
	// The time is that of all of them.
	must.Within(t, "full queue, once more", func() {
		for range sent {
			must.OK(t, Send(path, []byte("x"))[0])
		}
		many := slices.Repeat([][]byte{[]byte("z")}, 1000)
		began := time.Now()
		for _, err := range Send(path, many...) {
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took > 100*sendLimit { // a thousand of them
			t.Errorf("it took %v", took)
		}
		for range sent {
			must.Get(conn.Read(buf))(t)
		}
	})
	// Room that comes in time is used.
	for range sent {
		must.OK(t, Send(path, []byte("x"))[0])
	}
	read := make(chan error, 1)
	go func() { _, err := conn.Read(buf); read <- err }()
	must.Check(t, Send(path, []byte("y"))[0], <-read)
	for name, p := range map[string]string{"no such file": path + "x", "too long": "/" + strings.Repeat("x", 200), "no socket": filepath.Dir(path)} {
		if err := Send(p, []byte("x"))[0]; err == nil || strings.Contains(err.Error(), p) {
			t.Errorf("%s: %v", name, err)
		}
	}
	conn.Close()
	if err := Send(path, []byte("x"))[0]; err == nil {
		t.Error("nobody listens")
	}
}
