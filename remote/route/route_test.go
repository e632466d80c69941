package route

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/remote/dns"
	"nightmare.mail/mxf/remote/dns/dnstest"
)

const (
	threeProtocols = "qmtps:6209:-1:Y:N:mxf-remote-qmtpc\nqmtp:209:1:N:N:mxf-remote-qmtpc\nsmtp:25:0:N:Y:mxf-remote-smtpc\n" // the default
	onlySMTP       = "smtp:25:0:N:Y:mxf-remote-smtpc\n"
)

// files returns control files by name and content.
func files(pairs ...string) map[string]string {
	m := map[string]string{"me": "mail.example.net\n", "ipme": "192.0.2.200\n2001:db8::200\n"}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = pairs[i+1]
	}
	return m
}

func settings(t testing.TB, files map[string]string) *control.Settings {
	t.Helper()
	return must.Get(control.Read(must.Home(t, files)))(t)
}

// A caller is a Finder, and what each request to it says by the control files.
type caller struct {
	Finder
	request Request
	timeout time.Duration // of the context; 0: none
}

// finder returns a caller for s. There is TLS where there are trust anchors.
func finder(t testing.TB, s *control.Settings, servers ...netip.AddrPort) *caller {
	t.Helper()
	return &caller{
		Finder: Finder{Protocols: s.Protocols, Resolver: dns.NewClient(dns.Config{Servers: servers})},
		request: Request{
			Usable: func(p *control.Protocol) bool { return !p.Implicit || s.TrustAnchors != control.Anchors{} },
			Ours:   func(a netip.Addr) bool { return slices.Contains(s.IPMe, a) },
			Limit:  s.TimeoutDNS,
		},
		timeout: s.TimeoutDNS,
	}
}

func (c *caller) Find(ctx context.Context, r Request) (*Result, error) {
	r.Usable, r.Ours, r.Limit = c.request.Usable, c.request.Ours, c.request.Limit
	if c.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.timeout)
		defer cancel()
	}
	return c.Finder.Find(ctx, r)
}

// request is a request for host, with the same chance each time.
func request(host string) Request { return Request{Host: host, Rand: rand.New(rand.NewPCG(1, 2))} }

// verdict returns an error as the table below has it.
func verdict(t testing.TB, err error) string {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("%v is no error of this package", err)
	}
	if e.Kind == LookupFailed || e.Relay != "" {
		return e.Kind.String() + " " + e.Host
	}
	return e.Kind.String()
}

// outcome returns what comes of host as the table below has it, and the trace.
func outcome(t testing.TB, f *caller, host string) (got []string, trace []string) {
	t.Helper()
	r := request(host)
	r.Trace = func(line string) { trace = append(trace, line) }
	result, err := f.Find(t.Context(), r)
	for _, c := range result.Candidates {
		got = append(got, show(c))
	}
	if err != nil {
		got = append(got, verdict(t, err))
	}
	for _, line := range trace {
		if strings.ContainsAny(line, "\n\r\x00") {
			t.Errorf("trace line %q", line)
		}
	}
	return got, trace
}

// show returns a candidate as the table below has it.
func show(c Candidate) string {
	var addrs []string
	for _, a := range c.Addrs {
		addrs = append(addrs, a.String())
	}
	slices.Sort(addrs)
	twin := ""
	if c.Twin {
		twin = " twin"
	}
	return fmt.Sprintf("%s %s:%d %s%s; %s", c.Protocol.Service, c.Host, c.Port, strings.Join(addrs, " "), twin, c.Why)
}

const routingZone = `
example.org.            MX   10 mx1.example.org.
example.org.            MX   20 MX2.Example.org.
mx1.example.org.        A    192.0.2.1
mx1.example.org.        AAAA 2001:db8::1
mx2.example.org.        A    192.0.2.2
mx3.example.org.        A    192.0.2.3
mx4.example.org.        A    192.0.2.4
us.example.org.         A    192.0.2.200
us6.example.org.        AAAA 2001:db8::200
us6.example.org.        A    192.0.2.6
zero.example.org.       A    0.0.0.0
zero6.example.org.      AAAA ::
mapped.example.org.     AAAA ::ffff:192.0.2.200
v6broken.example.org.   A    192.0.2.7
hung.example.org.       A    192.0.2.8
relay.example.net.      A    192.0.2.100

sliced.test.            MX   12801 mx1.example.org.
sliced.test.            MX   12816 mx2.example.org.
sliced.test.            MX   12803 mx3.example.org.
sliced.test.            MX   13056 mx4.example.org.

srv.test.               MX   10 mx3.example.org.
_smtp._tcp.srv.test.    SRV  20 0 2525 mx2.example.org.
_smtp._tcp.srv.test.    SRV  10 0 2526 MX1.example.org.
_qmtp._tcp.srv.test.    SRV  10 5 209  mx4.example.org.
_qmtps._tcp.srv.test.   SRV  10 5 6200 mx1.example.org.

srvonly.test.           TXT  "x"
_smtp._tcp.srvonly.test. SRV 10 0 2525 mx2.example.org.

smuggle.test.           MX   10 mx1.example.org.
_qmtp._tcp.smuggle.test. SRV 10 0 25   mx2.example.org.
_qmtp._tcp.smuggle.test. SRV 20 0 209  mx3.example.org.
_qmtp._tcp.smuggle.test. SRV 30 0 6379 mx4.example.org.
smuggleonly.test.       A    192.0.2.9
_qmtp._tcp.smuggleonly.test. SRV 10 0 25 mx2.example.org.

nosmtp.test.            MX   10 mx1.example.org.
_smtp._tcp.nosmtp.test. SRV  0 0 0 .

noqmtp.test.            MX   12801 mx1.example.org.
_qmtp._tcp.noqmtp.test. SRV  0 0 0 .

noqmtps.test.           MX   10 mx1.example.org.
_qmtps._tcp.noqmtps.test. SRV 0 0 0 .

tlsonly.test.           MX   10 mx1.example.org.
_smtp._tcp.tlsonly.test. SRV 0 0 0 .
_qmtps._tcp.tlsonly.test. SRV 0 0 6209 mx1.example.org.

_smtp._tcp.tlsonly2.test. SRV 0 0 0 .
_qmtp._tcp.tlsonly2.test. SRV 0 0 0 .
_qmtps._tcp.tlsonly2.test. SRV 0 0 6209 mx1.example.org.

nothing.test.           A    192.0.2.9
_qmtps._tcp.nothing.test. SRV 0 0 0 .
_qmtp._tcp.nothing.test.  SRV 0 0 0 .
_smtp._tcp.nothing.test.  SRV 0 0 0 .

onlyqmtp.test.          A    192.0.2.9
_smtp._tcp.onlyqmtp.test. SRV 0 0 0 .

mixedsrv.test.          A    192.0.2.9
_smtp._tcp.mixedsrv.test. SRV 0 0 0 .
_smtp._tcp.mixedsrv.test. SRV 1 0 25 mx1.example.org.
_smtp._tcp.mixedsrv.test. SRV 2 0 0 mx2.example.org.
_smtp._tcp.mixedsrv.test. SRV 3 0 25 192.0.2.1.

badsrv.test.            A    192.0.2.9
_smtp._tcp.badsrv.test. SRV  1 0 25 192.0.2.1.

null.test.              MX   0 .
null.test.              A    192.0.2.9
nullsrv.test.           MX   0 .
_smtp._tcp.nullsrv.test. SRV 1 0 25 mx1.example.org.
mixednull.test.         MX   0 .
mixednull.test.         MX   5 mx1.example.org.
twonulls.test.          MX   0 .
twonulls.test.          MX   5 .

itself.test.            A    192.0.2.9
itself.test.            AAAA 2001:db8::9
alias.test.             CNAME itself.test.
mxalias.test.           CNAME example.org.
dangling.test.          CNAME gone.test.
empty.test.             TXT  "no address"
weself.test.            A    192.0.2.200
weself.test.            A    192.0.2.9

literal.test.           MX   10 192.0.2.1.
literal.test.           MX   10 \091192.0.2.1\093.
literal.test.           MX   10 a\032b.example.org.
literal.test.           MX   20 mx1.example.org.
onlyliteral.test.       MX   10 192.0.2.1.
onlyliteral.test.       A    192.0.2.9

gone.example.           MX   10 nowhere.example.org.
gonepart.test.          MX   10 nowhere.example.org.
gonepart.test.          MX   20 mx2.example.org.
softpart.test.          MX   10 broken.example.org.
softpart.test.          MX   20 mx2.example.org.
softall.test.           MX   10 broken.example.org.
softall.test.           MX   20 nowhere.example.org.
half.test.              MX   10 v6broken.example.org.
hung.test.              MX   10 hung.example.org.

loop.test.              MX   5  mx1.example.org.
loop.test.              MX   10 us.example.org.
loop.test.              MX   10 mx2.example.org.
loop.test.              MX   20 mx3.example.org.
looplate.test.          MX   5  mx1.example.org.
looplate.test.          MX   20 mx2.example.org.
looplate.test.          MX   30 us.example.org.
looplate.test.          MX   15 us6.example.org.
we.test.                MX   10 us.example.org.
we.test.                MX   20 mx1.example.org.
wezero.test.            MX   10 zero.example.org.
wezero6.test.           MX   10 zero6.example.org.
wemapped.test.          MX   10 mapped.example.org.
wegone.test.            MX   5  nowhere.example.org.
wegone.test.            MX   10 us.example.org.
wesoft.test.            MX   5  broken.example.org.
wesoft.test.            MX   10 us.example.org.
softwe.test.            MX   10 us.example.org.
softwe.test.            MX   20 broken.example.org.

wesrv.test.             MX   10 mx1.example.org.
_smtp._tcp.wesrv.test.  SRV  10 0 25 mx2.example.org.
_smtp._tcp.wesrv.test.  SRV  20 0 26 us.example.org.
_smtp._tcp.wesrv.test.  SRV  30 0 27 mx3.example.org.
_qmtp._tcp.wesrv.test.  SRV  25 0 209 mx4.example.org.

srvbroken.test.         A    192.0.2.9
srvhung.test.           MX   10 mx1.example.org.
mxbroken.test.          A    192.0.2.9
mxdenied.test.          A    192.0.2.9
mxdeniedwe.test.        A    192.0.2.200
mxdeniedempty.test.     TXT  "x"
_smtp._tcp.mxdeniedsrv.test. SRV 1 0 25 mx1.example.org.
lamemx.test.            MX   10 lame.example.org.
mxhungsrv.test.         A    192.0.2.9
_smtp._tcp.mxhungsrv.test. SRV 1 0 25 mx1.example.org.
mxbrokenwe.test.        A    192.0.2.9
_smtp._tcp.mxbrokenwe.test. SRV 1 0 25 us.example.org.

xn--mnchen-3ya.test.    MX   10 mx1.example.org.
wild.example.org.       A    192.0.2.10
many.test.              MX   10 five.hundred.test.
` + "\n"

var routingTrouble = map[string]string{
	"broken.example.org":        "servfail",
	"AAAA v6broken.example.org": "servfail",
	"AAAA hung.example.org":     "silence",
	"_smtp._tcp.srvbroken.test": "servfail",
	"_qmtp._tcp.srvbroken.test": "refused",
	"_smtp._tcp.srvhung.test":   "silence",
	"MX mxbroken.test":          "servfail",
	"MX mxhungsrv.test":         "silence",
	"MX mxbrokenwe.test":        "refused",
	"MX mxrefused.test":         "refused",
	"MX mxdenied.test":          "nxdomain",
	"MX tlsonly2.test":          "nxdomain",
	"MX mxdeniedwe.test":        "nxdomain",
	"MX mxdeniedempty.test":     "nxdomain",
	"MX mxdeniedbroken.test":    "nxdomain",
	"mxdeniedbroken.test":       "servfail",
	"MX mxdeniedlame.test":      "nxdomain",
	"mxdeniedlame.test":         "lame",
	"MX mxdeniedsrv.test":       "nxdomain",
	"lame.example.org":          "lame",
	"MX lame.test":              "referral",
	"_smtp._tcp.mxhungsrv.test": "slow",
	"_qmtp._tcp.mxhungsrv.test": "slow",
	"_smtp._tcp.nullsrv.test":   "silence",
	"_qmtp._tcp.nullsrv.test":   "silence",
}

// Each row is a host and control files beside the zone above, and what comes of
// it: candidates with reasons, or an error.
var routingTable = []struct {
	name  string
	host  string
	files map[string]string
	want  []string
}{
	// 1. Host
	{"literal", "[192.0.2.1]", files(), []string{
		"qmtp :209 192.0.2.1; address literal", "smtp :25 192.0.2.1; address literal"}},
	{"literal with tag", "[IPv6:2001:DB8::1]", files("protocols", onlySMTP), []string{"smtp :25 2001:db8::1; address literal"}},
	{"literal without tag", "[2001:db8::1]", files("protocols", onlySMTP), []string{"smtp :25 2001:db8::1; address literal"}},
	{"literal, TLS on: slice -1 is left out all the same", "[192.0.2.1]", files("trustanchors", "ca.pem"), []string{
		"qmtp :209 192.0.2.1; address literal", "smtp :25 192.0.2.1; address literal"}},
	{"literal that is us", "[192.0.2.200]", files(), []string{"only ourselves"}},
	{"literal that is us, mapped", "[::ffff:192.0.2.200]", files(), []string{"only ourselves"}},
	{"literal of no address", "[0.0.0.0]", files(), []string{"only ourselves"}},
	{"literal of no IPv6 address", "[::]", files(), []string{"only ourselves"}},
	{"literal without a protocol", "[192.0.2.1]", files("protocols", "qmtp:209:-1:N:N:p\n"), []string{"control files"}},
	{"malformed literal", "[192.0.2]", files(), []string{"no such host"}},
	{"no host", "", files(), []string{"no such host"}},
	{"label too long", strings.Repeat("a", 64) + ".org", files(), []string{"no such host"}},
	{"upper case and final dot", "EXAMPLE.org.", files("protocols", onlySMTP), []string{
		"smtp mx1.example.org:25 192.0.2.1 2001:db8::1; MX 10", "smtp MX2.Example.org:25 192.0.2.2; MX 20"}},
	{"international", "MÜNCHEN.test", files("protocols", onlySMTP), []string{"smtp mx1.example.org:25 192.0.2.1 2001:db8::1; MX 10"}},
	{"four numbers are a domain", "192.0.2.1", files(), []string{"no such host"}},

	// 2. Routes
	{"route to a name", "example.org", files("smtproutes", "example.org:relay.example.net\n"), []string{
		"smtp relay.example.net:25 192.0.2.100; smtproutes line 1"}},
	{"route to an address and port", "example.org", files("smtproutes", "# first\n:192.0.2.50:2525\n"), []string{
		"smtp :2525 192.0.2.50; smtproutes line 2"}},
	{"route to an IPv6 address", "Example.ORG", files("smtproutes", "example.org:[2001:db8::25]:26\n"), []string{
		"smtp :26 2001:db8::25; smtproutes line 1"}},
	{"routes of two services, in file order of the protocols", "example.org", files("smtproutes", ":192.0.2.50\n", "qmtproutes", ":192.0.2.51\n"), []string{
		"qmtp :209 192.0.2.51; qmtproutes line 1", "smtp :25 192.0.2.50; smtproutes line 1"}},
	{"route of a service that needs TLS, TLS off", "itself.test", files("protocols", threeProtocols, "qmtpsroutes", ":192.0.2.50\n"), []string{
		"qmtp itself.test:209 192.0.2.9 2001:db8::9; no MX or SRV: the host itself", "smtp itself.test:25 192.0.2.9 2001:db8::9; no MX or SRV: the host itself"}},
	{"route of a service that needs TLS, TLS on", "itself.test", files("trustanchors", "ca.pem", "qmtpsroutes", ":192.0.2.50\n"), []string{
		"qmtps :6209 192.0.2.50; qmtpsroutes line 1"}},
	{"empty route shields", "example.org", files("protocols", onlySMTP, "smtproutes", "example.org:\n:192.0.2.50\n"), []string{
		"smtp mx1.example.org:25 192.0.2.1 2001:db8::1; MX 10", "smtp MX2.Example.org:25 192.0.2.2; MX 20"}},
	{"one empty route, one relay", "example.org", files("qmtproutes", "example.org:\n", "smtproutes", ":192.0.2.50\n"), []string{
		"smtp :25 192.0.2.50; smtproutes line 1"}},
	{"route for a literal", "[192.0.2.1]", files("smtproutes", "[192.0.2.1]:192.0.2.50\n"), []string{"smtp :25 192.0.2.50; smtproutes line 1"}},
	{"route for an IPv6 literal", "[IPv6:2001:db8:0::1]", files("smtproutes", "[2001:db8::1]:192.0.2.50\n"), []string{"smtp :25 192.0.2.50; smtproutes line 1"}},
	{"a route for all is one for literals too", "[192.0.2.1]", files("smtproutes", ":192.0.2.50\n"), []string{"smtp :25 192.0.2.50; smtproutes line 1"}},
	{"a relay may be us", "example.org", files("smtproutes", ":192.0.2.200:26\n", "qmtproutes", ":us.example.org:2090\n"), []string{
		"qmtp us.example.org:2090 192.0.2.200; qmtproutes line 1", "smtp :26 192.0.2.200; smtproutes line 1"}},
	{"a relay's MX is not looked at", "example.net", files("smtproutes", ":itself.test\n"), []string{
		"smtp itself.test:25 192.0.2.9 2001:db8::9; smtproutes line 1"}},
	{"a relay does not exist", "example.org", files("smtproutes", ":nowhere.test\n"), []string{"relay does not exist nowhere.test"}},
	{"a relay has no address", "example.org", files("smtproutes", ":empty.test\n"), []string{"relay has no address empty.test"}},
	{"a relay cannot be looked up", "example.org", files("smtproutes", ":broken.example.org\n"), []string{"lookup failed broken.example.org"}},
	{"the next relay is there", "example.org", files("smtproutes", ":relay.example.net\n", "qmtproutes", ":nowhere.test\n"), []string{
		"smtp relay.example.net:25 192.0.2.100; smtproutes line 1"}},
	{"no relay is there", "nowhere.test", files("smtproutes", ":broken.example.org\n", "qmtproutes", ":nowhere.test\n"), []string{"relay does not exist nowhere.test"}},
	{"the host of a relay that has no TLS does not exist", "nowhere.test", files("protocols", threeProtocols, "qmtpsroutes", ":192.0.2.50\n"), []string{"control files"}},
	{"the host of a relay that has no TLS takes no mail", "null.test", files("protocols", threeProtocols, "qmtpsroutes", ".test:192.0.2.50\n"), []string{"control files"}},
	{"an empty route of a protocol that has no TLS", "nowhere.test", files("protocols", threeProtocols, "qmtpsroutes", "nowhere.test:\n"), []string{"no such host"}},
	{"a route for a domain that does not exist", "nowhere.test", files("smtproutes", ":192.0.2.50\n"), []string{"smtp :25 192.0.2.50; smtproutes line 1"}},

	// 3. SRV and MX
	{"MX by preference", "example.org", files(), []string{
		"smtp mx1.example.org:25 192.0.2.1 2001:db8::1; MX 10", "smtp MX2.Example.org:25 192.0.2.2; MX 20"}},
	{"slices", "sliced.test", files(), []string{
		"qmtp mx1.example.org:209 192.0.2.1 2001:db8::1; MX 12801 (slice 1)",
		"smtp mx1.example.org:25 192.0.2.1 2001:db8::1 twin; MX 12801 (slice 0)",
		"smtp mx3.example.org:25 192.0.2.3; MX 12803 (nothing for slice 3)",
		"smtp mx2.example.org:25 192.0.2.2; MX 12816 (slice 0)",
		"smtp mx4.example.org:25 192.0.2.4; MX 13056"}},
	{"a slice whose protocol needs TLS, TLS off", "sliced.test", files("protocols", "qmtps:6209:1:Y:N:p\nqmtp:209:3:N:N:p\nsmtp:25:0:N:Y:p\n"), []string{
		"smtp mx1.example.org:25 192.0.2.1 2001:db8::1; MX 12801 (nothing for slice 1)",
		"qmtp mx3.example.org:209 192.0.2.3; MX 12803 (slice 3)",
		"smtp mx3.example.org:25 192.0.2.3 twin; MX 12803 (slice 0)",
		"smtp mx2.example.org:25 192.0.2.2; MX 12816 (slice 0)",
		"smtp mx4.example.org:25 192.0.2.4; MX 13056"}},
	{"no protocol for slice 0", "example.org", files("protocols", "qmtp:209:1:N:N:p\n"), []string{"control files"}},
	{"no protocol for slice 0, and another declined", "noqmtps.test", files("protocols", "qmtps:6209:-1:Y:N:p\nqmtp:209:1:N:N:p\n", "trustanchors", "ca.pem"), []string{"control files"}},
	{"no usable protocol", "example.org", files("protocols", "qmtps:6209:0:Y:N:p\n"), []string{"control files"}},
	{"SRV before MX, protocols in file order", "srv.test", files("trustanchors", "ca.pem"), []string{
		"qmtps mx1.example.org:6200 192.0.2.1 2001:db8::1; SRV 10 5 _qmtps._tcp.srv.test",
		"qmtp mx4.example.org:209 192.0.2.4; SRV 10 5 _qmtp._tcp.srv.test",
		"smtp MX1.example.org:2526 192.0.2.1 2001:db8::1; SRV 10 0 _smtp._tcp.srv.test",
		"smtp mx2.example.org:2525 192.0.2.2; SRV 20 0 _smtp._tcp.srv.test",
		"smtp mx3.example.org:25 192.0.2.3; MX 10"}},
	{"SRV leads plain QMTP to its own port alone", "smuggle.test", files(), []string{
		"qmtp mx3.example.org:209 192.0.2.3; SRV 20 0 _qmtp._tcp.smuggle.test",
		"smtp mx1.example.org:25 192.0.2.1 2001:db8::1; MX 10"}},
	{"SRV that leads to no port where QMTP is spoken is none", "smuggleonly.test", files("protocols", onlySMTP+"qmtp:209:1:N:Y:/bin/other\n"), []string{
		"smtp smuggleonly.test:25 192.0.2.9; no MX or SRV: the host itself",
		"qmtp smuggleonly.test:209 192.0.2.9; no MX or SRV: the host itself"}},
	{"SRV of an unusable protocol is not used", "srv.test", files("protocols", "qmtps:6209:-1:Y:N:p\n"+onlySMTP), []string{
		"smtp MX1.example.org:2526 192.0.2.1 2001:db8::1; SRV 10 0 _smtp._tcp.srv.test",
		"smtp mx2.example.org:2525 192.0.2.2; SRV 20 0 _smtp._tcp.srv.test",
		"smtp mx3.example.org:25 192.0.2.3; MX 10"}},
	{"SRV and no MX", "srvonly.test", files(), []string{"smtp mx2.example.org:2525 192.0.2.2; SRV 10 0 _smtp._tcp.srvonly.test"}},
	{"SRV declines SMTP, by MX too", "nosmtp.test", files(), []string{"no address"}},
	{"SRV declines SMTP and offers what needs TLS, TLS off", "tlsonly.test", files(), []string{"control files"}},
	{"the same, and MX is denied", "tlsonly2.test", files(), []string{"control files"}},
	{"SRV declines SMTP and offers what needs TLS, TLS on", "tlsonly.test", files("trustanchors", "ca.pem"), []string{
		"qmtps mx1.example.org:6209 192.0.2.1 2001:db8::1; SRV 0 0 _qmtps._tcp.tlsonly.test"}},
	{"SRV declines a slice's protocol", "noqmtp.test", files(), []string{
		"smtp mx1.example.org:25 192.0.2.1 2001:db8::1; MX 12801 (nothing for slice 1)"}},
	{"SRV declines all", "nothing.test", files("trustanchors", "ca.pem"), []string{"no address"}},
	{"SRV declines one, the host itself takes the others", "onlyqmtp.test", files(), []string{
		"qmtp onlyqmtp.test:209 192.0.2.9; no MX or SRV: the host itself"}},
	{"SRV that is odd in parts", "mixedsrv.test", files(), []string{
		"smtp mx1.example.org:25 192.0.2.1 2001:db8::1; SRV 1 0 _smtp._tcp.mixedsrv.test"}},
	{"SRV that is odd", "badsrv.test", files(), []string{"no address"}},
	{"null MX", "null.test", files(), []string{"null MX"}},
	{"null MX beats SRV", "nullsrv.test", files(), []string{"null MX"}},
	{"null MX among others", "mixednull.test", files(), []string{"smtp mx1.example.org:25 192.0.2.1 2001:db8::1; MX 5"}},
	{"two null MXs", "twonulls.test", files(), []string{"no address"}},
	{"MX targets that are no host names", "literal.test", files(), []string{"smtp mx1.example.org:25 192.0.2.1 2001:db8::1; MX 20"}},
	{"no MX target that is a host name", "onlyliteral.test", files(), []string{"no address"}},
	{"the host itself", "itself.test", files("trustanchors", "ca.pem"), []string{
		"qmtps itself.test:6209 192.0.2.9 2001:db8::9; no MX or SRV: the host itself",
		"qmtp itself.test:209 192.0.2.9 2001:db8::9; no MX or SRV: the host itself",
		"smtp itself.test:25 192.0.2.9 2001:db8::9; no MX or SRV: the host itself"}},
	{"the host is an alias", "alias.test", files("protocols", onlySMTP), []string{"smtp alias.test:25 192.0.2.9 2001:db8::9; no MX or SRV: the host itself"}},
	{"the host is an alias that has MX", "mxalias.test", files("protocols", onlySMTP), []string{
		"smtp mx1.example.org:25 192.0.2.1 2001:db8::1; MX 10", "smtp MX2.Example.org:25 192.0.2.2; MX 20"}},
	{"the host is an alias of nothing", "dangling.test", files(), []string{"no such host"}},
	{"no such host", "nowhere.test", files(), []string{"no such host"}},
	{"no address", "empty.test", files(), []string{"no address"}},
	{"MX fails", "mxbroken.test", files(), []string{"lookup failed mxbroken.test"}},
	{"MX is denied and there is an address", "mxdenied.test", files(), []string{
		"qmtp mxdenied.test:209 192.0.2.9; no MX or SRV: the host itself", "smtp mxdenied.test:25 192.0.2.9; no MX or SRV: the host itself"}},
	{"MX is denied and the address is ours", "mxdeniedwe.test", files(), []string{"only ourselves"}},
	{"MX is denied and there is no address", "mxdeniedempty.test", files(), []string{"no such host"}},
	{"MX is denied and addresses cannot be looked up", "mxdeniedbroken.test", files(), []string{"lookup failed mxdeniedbroken.test"}},
	{"MX is denied, addresses are not", "mxdeniedlame.test", files(), []string{"lookup failed mxdeniedlame.test"}},
	{"MX is denied, SRV is not", "mxdeniedsrv.test", files(), []string{
		"smtp mx1.example.org:25 192.0.2.1 2001:db8::1; SRV 1 0 _smtp._tcp.mxdeniedsrv.test"}},
	{"the addresses of the only exchanger are not denied", "lamemx.test", files(), []string{"lookup failed lame.example.org"}},
	{"MX refused", "mxrefused.test", files(), []string{"lookup failed mxrefused.test"}},
	{"MX referred", "lame.test", files(), []string{"lookup failed lame.test"}},
	{"SRV fails alone", "srvbroken.test", files("protocols", onlySMTP), []string{"smtp srvbroken.test:25 192.0.2.9; no MX or SRV: the host itself"}},
	{"SRV hangs", "srvhung.test", files("timeoutdns", "1\n", "protocols", onlySMTP), []string{"smtp mx1.example.org:25 192.0.2.1 2001:db8::1; MX 10"}},
	{"MX hangs, SRV gives candidates", "mxhungsrv.test", files("timeoutdns", "2\n"), []string{
		"smtp mx1.example.org:25 192.0.2.1 2001:db8::1; SRV 1 0 _smtp._tcp.mxhungsrv.test"}},
	{"MX fails, SRV gives us", "mxbrokenwe.test", files(), []string{"lookup failed mxbrokenwe.test"}},
	{"target does not exist", "gone.example", files(), []string{"no address"}},
	{"one target does not exist", "gonepart.test", files(), []string{"smtp mx2.example.org:25 192.0.2.2; MX 20"}},
	{"one target fails", "softpart.test", files(), []string{"smtp mx2.example.org:25 192.0.2.2; MX 20"}},
	{"no address, one failure for now", "softall.test", files(), []string{"lookup failed broken.example.org"}},
	{"AAAA fails, A does not", "half.test", files(), []string{"smtp v6broken.example.org:25 192.0.2.7; MX 10"}},
	{"AAAA hangs, A does not", "hung.test", files("timeoutdns", "1\n"), []string{"smtp hung.example.org:25 192.0.2.8; MX 10"}},

	// 4. Not ourselves
	{"we and what is no better are cut", "loop.test", files(), []string{"smtp mx1.example.org:25 192.0.2.1 2001:db8::1; MX 5"}},
	{"the best of our standings counts", "looplate.test", files(), []string{"smtp mx1.example.org:25 192.0.2.1 2001:db8::1; MX 5"}},
	{"we are the best", "we.test", files(), []string{"only ourselves"}},
	{"0.0.0.0 is us", "wezero.test", files(), []string{"only ourselves"}},
	{":: is us", "wezero6.test", files(), []string{"only ourselves"}},
	{"mapped addresses are us", "wemapped.test", files(), []string{"only ourselves"}},
	{"we are one of the host's addresses", "weself.test", files(), []string{"only ourselves"}},
	{"the better one does not exist", "wegone.test", files(), []string{"only ourselves"}},
	{"the better one may yet be found", "wesoft.test", files(), []string{"lookup failed broken.example.org"}},
	{"the worse one does not matter", "softwe.test", files(), []string{"only ourselves"}},
	{"an empty ipme: nobody is us", "we.test", files("ipme", "\n"), []string{
		"smtp us.example.org:25 192.0.2.200; MX 10", "smtp mx1.example.org:25 192.0.2.1 2001:db8::1; MX 20"}},
	{"SRV is cut within its service", "wesrv.test", files(), []string{
		"qmtp mx4.example.org:209 192.0.2.4; SRV 25 0 _qmtp._tcp.wesrv.test",
		"smtp mx2.example.org:25 192.0.2.2; SRV 10 0 _smtp._tcp.wesrv.test",
		"smtp mx1.example.org:25 192.0.2.1 2001:db8::1; MX 10"}},
}

func TestSpeaksFirst(t *testing.T) {
	for line, want := range map[string]bool{
		"qmtp:209:1:N:N:mxf-remote-qmtpc":                 true,
		"qmtp:209:1:N:N:/usr/bin/other":                   true,
		"qmtp:209:1:N:Y:/usr/bin/other":                   true,
		"other:209:1:N:N:/usr/bin/mxf-remote-qmtpc":       true,
		"other:209:1:N:Y:mxf-remote-qmtpc":                true,
		"other:1209:1:N:N:/usr/bin/other":                 true, // nobody knows
		"qmtps:6209:-1:Y:N:mxf-remote-qmtpc":              false,
		"smtp:25:0:N:Y:mxf-remote-smtpc":                  false,
		"smtp:25:0:N:N:/usr/bin/other":                    false,
		"submission:587:-1:N:Y:/usr/bin/other":            false,
		"submission:587:-1:N:N:/usr/bin/mxf-remote-smtpc": false,
	} {
		s := settings(t, files("protocols", line+"\n"))
		if got := speaksFirst(&s.Protocols[0]); got != want {
			t.Errorf("%s: %v", line, got)
		}
	}
}

// TestForeignPort: only where every MX record leads to, and where a route does,
// does the table of dead hosts hear of time-outs.
func TestForeignPort(t *testing.T) {
	t.Parallel()
	server := dnstest.New(t, routingZone+`
dark.test.            MX  12801 mx1.example.org.
_smtp._tcp.dark.test. SRV 0 0 0 .
sliced.srv.test.      MX  12801 mx1.example.org.
_smtp._tcp.same.test. SRV 0 0 25 mx1.example.org.
`, nil)
	for _, c := range []struct {
		host  string
		files map[string]string
		want  string
	}{
		{"example.org", files(), "smtp false smtp false"},
		{"srv.test", files("trustanchors", "ca.pem"), "qmtps true qmtp true smtp true smtp true smtp false"},
		{"same.test", files(), "smtp true"},
		{"sliced.srv.test", files(), "qmtp true smtp false"},
		{"dark.test", files(), "qmtp true"}, // a filtered port of a stranger's choice
		{"itself.test", files("trustanchors", "ca.pem"), "qmtps true qmtp true smtp false"},
		{"[192.0.2.1]", files(), "qmtp true smtp false"},
		{"example.org", files("qmtproutes", ":192.0.2.1\n", "smtproutes", ":192.0.2.1:26\n"), "qmtp false smtp false"},
	} {
		result, err := finder(t, settings(t, c.files), server.Addr).Find(t.Context(), request(c.host))
		var got []string
		for _, c := range result.Candidates {
			got = append(got, fmt.Sprint(c.Protocol.Service, " ", c.ForeignPort))
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: %q, %v; want %s", c.host, got, err, c.want)
		}
	}
}

func TestRouting(t *testing.T) {
	t.Parallel()
	server := dnstest.New(t, routingZone, routingTrouble)
	for _, row := range routingTable {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			f := finder(t, settings(t, row.files), server.Addr)
			began := time.Now()
			got, trace := outcome(t, f, row.host)
			if took := time.Since(began); took > f.timeout+10*time.Second {
				t.Errorf("took %v", took)
			}
			if !slices.Equal(got, row.want) {
				t.Errorf("got:\n%s\nwant:\n%s\ntrace:\n%s", strings.Join(got, "\n"), strings.Join(row.want, "\n"), strings.Join(trace, "\n"))
			}
		})
	}
}

// TestResult: what the trace says is in the result, so that a plan can show it.
func TestResult(t *testing.T) {
	t.Parallel()
	server := dnstest.New(t, routingZone, routingTrouble)
	for _, c := range []struct {
		host  string
		files map[string]string
	}{
		{"looplate.test", files()},
		{"softall.test", files()},
		{"sliced.test", files()},
		{"tlsonly2.test", files()}, // one more question at the end
		{"smuggle.test", files()},
		{"mixedsrv.test", files("trustanchors", "ca.pem")},
		{"example.org", files("smtproutes", ":192.0.2.50\n", "qmtpsroutes", ":192.0.2.51\n", "qmtproutes", "example.org:\n")},
		{"[192.0.2.1]", files()},
		{"null.test", files()},
	} {
		var trace, told []string
		r := request(c.host)
		r.Trace = func(line string) { trace = append(trace, line) }
		result, err := finder(t, settings(t, c.files), server.Addr).Find(t.Context(), r)
		for _, route := range result.Routes {
			switch why := fmt.Sprintf("%sroutes line %d", route.Protocol.Service, route.Relay.Line); route.Use {
			case Empty:
				told = append(told, why+" is empty: "+route.Protocol.Service+" is looked up as usual")
			case Off:
				told = append(told, why+" is not used: TLS is off")
			}
		}
		for _, a := range result.Answers {
			a.Trace(func(line string) { told = append(told, line) })
		}
		for _, p := range result.Declined {
			told = append(told, p.Service+" is declined by SRV _"+p.Service+"._tcp."+c.host)
		}
		for _, d := range result.Dropped {
			told = append(told, "dropped "+d.String())
		}
		for i, c := range result.Candidates {
			told = append(told, fmt.Sprintf("candidate %d: %s", i+1, &c))
		}
		slices.Sort(told)
		slices.Sort(trace)
		if !slices.Equal(told, trace) || (err != nil) != (len(result.Candidates) == 0) {
			t.Errorf("%s: %v, the result says:\n%s\nthe trace:\n%s", c.host, err, strings.Join(told, "\n"), strings.Join(trace, "\n"))
		}
	}
}

// TestNamedBy: a candidate knows the answer that names it, or its route.
func TestNamedBy(t *testing.T) {
	t.Parallel()
	server := dnstest.New(t, routingZone, routingTrouble)
	for _, c := range []struct{ host, routes, want string }{
		{"srv.test", "", "SRV _smtp._tcp.srv.test, SRV _smtp._tcp.srv.test, MX srv.test"},
		{"itself.test", "", "MX itself.test"},
		{"[192.0.2.1]", "", ""},
		{"example.org", "#\n:192.0.2.50\n", "control/smtproutes:2"},
	} {
		f := finder(t, settings(t, files("protocols", onlySMTP, "smtproutes", c.routes)), server.Addr)
		f.Secure = true
		result, err := f.Find(t.Context(), request(c.host))
		var got []string
		for _, candidate := range result.Candidates {
			if by := candidate.NamedBy; by == nil {
				got = append(got, candidate.Relay)
			} else {
				got = append(got, by.Question.Type.String()+" "+by.Question.Name)
				if !slices.Contains(result.Answers, by) || !by.Secure || candidate.Relay != "" {
					t.Errorf("%s: %+v", c.host, candidate)
				}
			}
		}
		if strings.Join(got, ", ") != c.want {
			t.Errorf("%s: %q, %v; want %q", c.host, got, err, c.want)
		}
		if asked := int32(len(result.Answers)); server.WithAD.Swap(0) != asked {
			t.Errorf("%s: not each of %d questions had the AD bit", c.host, asked)
		}
	}
}

// TestResolved: a candidate knows the answers that its addresses are from.
func TestResolved(t *testing.T) {
	t.Parallel()
	server := dnstest.New(t, routingZone+"aliased.test. MX 10 an.alias.test.\nan.alias.test. CNAME mx1.example.org.\n", routingTrouble)
	for _, c := range []struct{ host, routes, want string }{
		{"example.org", "", "AAAA mx1.example.org at mx1.example.org, A mx1.example.org at mx1.example.org, " +
			"AAAA mx2.example.org at mx2.example.org, A mx2.example.org at mx2.example.org"},
		{"aliased.test", "", "AAAA an.alias.test at mx1.example.org, A an.alias.test at mx1.example.org"},
		{"half.test", "", "AAAA v6broken.example.org failed, A v6broken.example.org at v6broken.example.org"},
		{"example.org", ":relay.example.net\n", "AAAA relay.example.net at relay.example.net, A relay.example.net at relay.example.net"},
		{"example.org", ":192.0.2.50\n", ""},
		{"[192.0.2.1]", "", ""},
	} {
		f := finder(t, settings(t, files("protocols", onlySMTP, "smtproutes", c.routes)), server.Addr)
		f.Secure = true
		result, err := f.Find(t.Context(), request(c.host))
		var got []string
		for _, candidate := range result.Candidates {
			for _, a := range candidate.Resolved {
				switch {
				case a == nil:
					continue
				case a.Failed():
					got = append(got, a.Question.Type.String()+" "+a.Question.Name+" failed")
				default:
					got = append(got, a.Question.Type.String()+" "+a.Question.Name+" at "+a.End)
					if !a.Secure {
						t.Errorf("%v: not secure", a)
					}
				}
				if !slices.Contains(result.Answers, a) {
					t.Errorf("%s: %v is not among the answers", c.host, a)
				}
			}
		}
		if strings.Join(got, ", ") != c.want {
			t.Errorf("%s: %q, %v; want %q", c.host, got, err, c.want)
		}
	}
}

// TestShared: hundreds of deliveries use one Finder at a time.
func TestShared(t *testing.T) {
	t.Parallel()
	server := dnstest.New(t, routingZone, nil)
	f := finder(t, settings(t, files("smtproutes", "relayed.test:relay.example.net\n")), server.Addr)
	want := map[string][]string{
		"relayed.test": {"smtp relay.example.net:25 192.0.2.100; smtproutes line 1"},
		"null.test":    {"null MX"},
		"nosuch.test":  {"no such host"},
	}
	for _, row := range routingTable {
		if row.host == "sliced.test" || row.host == "example.org" || row.host == "we.test" {
			want[row.host] = nil
		}
	}
	for host := range want {
		if want[host] == nil {
			want[host], _ = outcome(t, f, host)
		}
	}
	var all sync.WaitGroup
	for range 50 {
		for host, want := range want {
			all.Go(func() {
				if got, trace := outcome(t, f, host); !slices.Equal(got, want) {
					t.Errorf("%s: got %q, want %q, trace:\n%s", host, got, want, strings.Join(trace, "\n"))
				}
			})
		}
	}
	all.Wait()
}

// A witness is a Resolver that notes what its answers are when it gives them.
type witness struct {
	dns.Resolver
	mu   sync.Mutex
	seen map[*dns.Answer]string
}

func (w *witness) Lookup(ctx context.Context, q dns.Question) *dns.Answer {
	a := w.Resolver.Lookup(ctx, q)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.seen[a] == "" {
		w.seen[a] = fmt.Sprintf("%+v", *a)
	}
	return a
}

// TestKeptAnswers: deliveries to which answers are known find what the first one found, and
// change nothing in them.
func TestKeptAnswers(t *testing.T) {
	t.Parallel()
	server := dnstest.New(t, routingZone, nil)
	cache := dns.NewCache(dns.NewClient(dns.Config{Servers: []netip.AddrPort{server.Addr}}), time.Now, new(dns.Counts))
	w := &witness{Resolver: cache, seen: make(map[*dns.Answer]string)}
	var all sync.WaitGroup
	for _, row := range routingTable {
		f := finder(t, settings(t, row.files), server.Addr)
		want, _ := outcome(t, f, row.host)
		f.Resolver = w
		for range 5 {
			all.Go(func() {
				if got, trace := outcome(t, f, row.host); !slices.Equal(got, want) {
					t.Errorf("%s: got %q, want %q, trace:\n%s", row.name, got, want, strings.Join(trace, "\n"))
				}
			})
		}
	}
	all.Wait()
	for a, was := range w.seen {
		if is := fmt.Sprintf("%+v", *a); is != was {
			t.Errorf("an answer was changed from\n%s\nto\n%s", was, is)
		}
	}
}

// TestError: only what is said for good is permanent, and the words have what is known.
func TestError(t *testing.T) {
	for kind := BadHost; int(kind) < len(kinds); kind++ {
		e := &Error{Kind: kind, Host: "a\nb", Relay: "control/smtproutes:1", Reason: "why"}
		if text := e.Error(); kind.String() == "" || text != kind.String()+`: "a\nb": control/smtproutes:1: why` {
			t.Errorf("kind %d: %q", kind, text)
		}
		permanent := slices.Contains([]Kind{BadHost, NoSuchHost, NullMX, NoAddress, OnlyOurselves}, kind)
		if e.Permanent() != permanent {
			t.Errorf("%v: permanent is %v", kind, !permanent)
		}
	}
}

// TestTrace: an administrator who asks why mail went there finds every lookup
// with answer and time, the candidates with their reasons, and what was dropped.
func TestTrace(t *testing.T) {
	t.Parallel()
	server := dnstest.New(t, routingZone, routingTrouble)
	for host, want := range map[string]string{
		"looplate.test": `lookup SRV _qmtp._tcp.looplate.test: no such name (N ms)
lookup SRV _smtp._tcp.looplate.test: no such name (N ms)
lookup MX looplate.test: 5 mx1.example.org., 20 mx2.example.org., 30 us.example.org., 15 us6.example.org. (N ms)
lookup AAAA mx1.example.org: 2001:db8::1 (N ms)
lookup A mx1.example.org: 192.0.2.1 (N ms)
lookup AAAA us6.example.org: 2001:db8::200 (N ms)
lookup A us6.example.org: 192.0.2.6 (N ms)
lookup AAAA mx2.example.org: no data (N ms)
lookup A mx2.example.org: 192.0.2.2 (N ms)
lookup AAAA us.example.org: no data (N ms)
lookup A us.example.org: 192.0.2.200 (N ms)
dropped us6.example.org (MX 15): 2001:db8::200 is ours
dropped mx2.example.org (MX 20): no better than ourselves
dropped us.example.org (MX 30): 192.0.2.200 is ours
candidate 1: smtp mx1.example.org port 25, 2001:db8::1 192.0.2.1: MX 5
`,
		"softall.test": `lookup SRV _qmtp._tcp.softall.test: no such name (N ms)
lookup SRV _smtp._tcp.softall.test: no such name (N ms)
lookup MX softall.test: 10 broken.example.org., 20 nowhere.example.org. (N ms)
lookup AAAA broken.example.org: SERVER: server failure (N ms)
lookup A broken.example.org: SERVER: server failure (N ms)
lookup AAAA nowhere.example.org: no such name (N ms)
lookup A nowhere.example.org: no such name (N ms)
dropped broken.example.org (MX 10): its addresses could not be looked up
dropped nowhere.example.org (MX 20): no address
`,
	} {
		_, trace := outcome(t, finder(t, settings(t, files()), server.Addr), host)
		got := regexp.MustCompile(`\(\d+ ms\)`).ReplaceAllString(strings.Join(trace, "\n")+"\n", "(N ms)")
		got = strings.ReplaceAll(got, server.Addr.String(), "SERVER")
		if got != want {
			t.Errorf("got:\n%s\nwant:\n%s", got, want)
		}
	}
}

// TestRoundTrips: with a warm cache a delivery waits twice.
func TestRoundTrips(t *testing.T) {
	t.Parallel()
	trouble := map[string]string{}
	for _, name := range []string{"_qmtp._tcp.sliced.test", "_smtp._tcp.sliced.test", "sliced.test",
		"mx1.example.org", "mx2.example.org", "mx3.example.org", "mx4.example.org"} {
		trouble[name] = "slow"
	}
	server := dnstest.New(t, routingZone, trouble)
	f := finder(t, settings(t, files()), server.Addr)
	must.Get(f.Find(t.Context(), request("sliced.test")))(t)
	for question, n := range server.Questions() {
		if n != 1 {
			t.Errorf("%s was asked %d times", question, n)
		}
	}
	if n := server.Queries.Load(); n != 3+8 {
		t.Errorf("%d queries: %v", n, server.Questions())
	}
	if n := server.Busiest.Load(); n < 4 {
		t.Errorf("at most %d queries at once", n)
	}
}

// TestGivesUp: nobody answers, and without a timeout it ends all the same.
func TestGivesUp(t *testing.T) {
	t.Parallel()
	f := finder(t, settings(t, files()), dnstest.Silent(t))
	f.timeout, f.request.Limit = 300*time.Millisecond, 300*time.Millisecond
	began := time.Now()
	if _, err := f.Find(t.Context(), request("example.org")); verdict(t, err) != "lookup failed example.org" || time.Since(began) > 5*time.Second {
		t.Errorf("%v after %v", err, time.Since(began))
	}
	f.timeout, f.request.Limit = 0, 0
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := f.Find(ctx, request("example.org")); verdict(t, err) != "lookup failed example.org" || !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

// TestBigZone: hundreds of exchangers, thousands of addresses. Little of it is
// looked up, and less kept.
func TestBigZone(t *testing.T) {
	t.Parallel()
	zone := dnstest.Many(500, "wide.test. A 10.0.%d.%d") + dnstest.Many(3900, "wider.test. A 10.1.%d.%d") + dnstest.Many(300, "both.test. A 10.2.%d.%d")
	for i := range 300 {
		zone += fmt.Sprintf("both.test. AAAA 2001:db8::%x\n", i+1)
	}
	for i := range 600 {
		zone += fmt.Sprintf("deep.test. MX %d mx%d.deep.test.\nmx%d.deep.test. A 10.9.%d.%d\n", i, i, i, i/256, i%256)
	}
	zone += "mx25.deep.test. A 192.0.2.200\n"
	for i := range 60 {
		zone += fmt.Sprintf("vain.test. MX %d mx%d.vain.test.\n", i, i)
	}
	zone += dnstest.Many(300, "we.wide.test. A 10.3.%d.%d") + "we.wide.test. A 192.0.2.200\n"
	server := dnstest.New(t, zone, nil)
	s := settings(t, files("protocols", onlySMTP))
	find := func(host string) (*Result, error) {
		r := request(host)
		r.Trace = func(line string) {
			if len(line) > 1000 {
				t.Errorf("a trace line of %d bytes", len(line))
			}
		}
		return finder(t, s, server.Addr).Find(t.Context(), r)
	}
	for host, want := range map[string]int{"wide.test": maxAddrs, "wider.test": maxAddrs, "both.test": 2 * maxAddrs} {
		result, err := find(host)
		if err != nil || len(result.Candidates) != 1 || len(result.Candidates[0].Addrs) != want {
			t.Errorf("%s: %d candidates, %v", host, len(result.Candidates), err)
		}
	}
	result, err := find("deep.test")
	if err != nil || len(result.Candidates) != 25 { // we stand at 25
		t.Errorf("%d candidates, %v", len(result.Candidates), err)
	}
	if len(result.Dropped) != maxDropped || len(result.Candidates)+len(result.Dropped)+result.More != 600 {
		t.Errorf("%d dropped and %d more", len(result.Dropped), result.More)
	}
	// That it is ours counts, though it is not kept.
	if _, err := find("we.wide.test"); verdict(t, err) != "only ourselves" {
		t.Error(err)
	}
	s.IPMe = nil
	before := server.Queries.Load()
	result, err = find("deep.test")
	if err != nil || len(result.Candidates) != maxTargets {
		t.Errorf("%d candidates, %v", len(result.Candidates), err)
	}
	if n := server.Queries.Load() - before; n > 2*maxTargets+4 { // SRV, and MX by UDP and by TCP
		t.Errorf("%d queries", n)
	}
	// What was not looked up was not denied.
	if _, err := find("vain.test"); verdict(t, err) != "lookup failed mx30.vain.test" {
		t.Error(err)
	}
}

// TestHugeZone: as many exchangers and addresses as there can be cost little memory.
func TestHugeZone(t *testing.T) {
	zone := dnstest.Many(3900, "everywhere.test. A 10.0.%d.%d")
	for i := range 500 {
		zone += fmt.Sprintf("huge.test. MX %d mx%d.huge.test.\nmx%d.huge.test. CNAME everywhere.test.\n", i, i, i)
	}
	f := finder(t, settings(t, files("protocols", onlySMTP)), dnstest.New(t, zone, nil).Addr)
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	result, err := f.Find(t.Context(), request("huge.test"))
	if err != nil || len(result.Candidates) != maxTargets || len(result.Candidates[maxTargets-1].Addrs) != maxAddrs {
		t.Fatalf("%d candidates, %v", len(result.Candidates), err)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	// The messages were 2 MB, and what they unpack to is tens of that.
	if kept := int64(after.HeapAlloc) - int64(before.HeapAlloc); kept > 2<<20 {
		t.Errorf("%d KB kept", kept/1024)
	}
	runtime.KeepAlive(result)
}

// TestSlices compares every preference with MXPS, said another way.
func TestSlices(t *testing.T) {
	for preference := range 1 << 16 {
		want, sliced := 0, false
		if preference >= 12800 && preference <= 13055 {
			want, sliced = preference&15, true // 12800 is 800 times 16
		}
		if got, named := sliceOf(uint16(preference)); got != want || named != sliced {
			t.Fatalf("%d: slice %d, %v; want %d, %v", preference, got, named, want, sliced)
		}
	}
}

// TestSlicesGiveWays: whatever the protocols, an exchanger has slice 0's at the
// end, and before it at most one, that of its slice.
func TestSlicesGiveWays(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for range 20000 {
		s := &search{result: new(Result)}
		for i := range 1 + rnd.IntN(5) {
			s.usable = append(s.usable, &control.Protocol{Service: "p" + strconv.Itoa(i), Port: uint16(i + 1), Slice: rnd.IntN(18) - 1})
			if rnd.IntN(6) == 0 {
				s.result.Declined = append(s.result.Declined, s.usable[i])
			}
		}
		preference := uint16(12790 + rnd.IntN(280))
		slice, _ := sliceOf(preference)
		ways := s.waysOf(preference)
		for i, w := range ways {
			if slices.Contains(s.result.Declined, w.protocol) || w.port != w.protocol.Port || w.twin != (i == 1) {
				t.Fatalf("%d: way %+v", preference, w)
			}
		}
		var want []*control.Protocol
		if p := s.protocolOf(slice); slice != 0 && p != nil {
			want = append(want, p)
		}
		if p := s.protocolOf(0); p != nil {
			want = append(want, p)
		}
		var got []*control.Protocol
		for _, w := range ways {
			got = append(got, w.protocol)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("%d: %v, want %v", preference, got, want)
		}
	}
}

// TestSRVOrder compares the order with the distribution of RFC 2782: a record's
// chance to be drawn next is its weight's part in the sum of those left; that of
// a record without weight is next to nothing, but not nothing.
func TestSRVOrder(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	var records []dns.SRV
	for i, r := range [][2]uint16{{2, 0}, {1, 10}, {1, 60}, {1, 30}, {2, 0}, {3, 65535}, {3, 65535}, {2, 0}, {1, 0}} {
		records = append(records, dns.SRV{Priority: r[0], Weight: r[1], Port: uint16(i)})
	}
	const draws = 40000
	first, second := map[uint16]float64{}, map[[2]uint16]float64{} // by port
	firstOfTwo := map[uint16]float64{}
	for range draws {
		got := orderSRV(records, rnd)
		if len(got) != len(records) || !slices.IsSortedFunc(got, func(a, b dns.SRV) int { return int(a.Priority) - int(b.Priority) }) {
			t.Fatal("not by priority")
		}
		seen := map[uint16]bool{}
		for _, r := range got {
			seen[r.Port] = true
		}
		if len(seen) != len(records) {
			t.Fatal("a record was lost")
		}
		first[got[0].Port]++
		second[[2]uint16{got[0].Port, got[1].Port}]++
		firstOfTwo[got[4].Port]++
		firstOfTwo[got[7].Port]++
	}
	near := func(what string, got, part float64) {
		if sigma := math.Sqrt(draws * part * (1 - part)); math.Abs(got-draws*part) > 5*sigma {
			t.Errorf("%s: %v of %v, expected %v", what, got, draws, draws*part)
		}
	}
	// With weight 0 in front, a draw from 0 to 100 falls on it with 1 in 101.
	near("weight 0", first[8], 1.0/101)
	near("weight 10", first[1], 10.0/101)
	near("weight 60", first[2], 60.0/101)
	near("weight 30", first[3], 30.0/101)
	near("60 then 30", second[[2]uint16{2, 3}], 60.0/101*30/41)
	near("60 then 10", second[[2]uint16{2, 1}], 60.0/101*10/41)
	for _, i := range []int{0, 4, 7} {
		near("one of three without weight", firstOfTwo[uint16(i)], 1.0/3)
	}
	// A draw from 0 to 131070 favours the first of the two by one part.
	near("one of two alike", firstOfTwo[5], 0.5)

	if got := orderSRV(nil, rnd); len(got) != 0 {
		t.Error(got)
	}
}

func TestMXOrder(t *testing.T) {
	rnd := rand.New(rand.NewPCG(7, 8))
	var records []dns.MX
	for i, preference := range []uint16{20, 10, 10, 10, 5} {
		records = append(records, dns.MX{Preference: preference, Exchanger: strconv.Itoa(i)})
	}
	given := slices.Clone(records)
	first := map[string]int{}
	for range 3000 {
		got := orderMX(records, rnd)
		if got[0] != records[4] || got[4] != records[0] {
			t.Fatal("not by preference")
		}
		first[got[1].Exchanger]++
	}
	for _, r := range records[1:4] {
		if n := first[r.Exchanger]; n < 850 || n > 1150 {
			t.Errorf("one of three equals is first %d times in 3000", n)
		}
	}
	if !slices.Equal(records, given) {
		t.Error("the answer was changed, which others may read")
	}
}

// TestCutLoops: what is kept is exactly what stands better than we do, in order.
func TestCutLoops(t *testing.T) {
	rnd := rand.New(rand.NewPCG(9, 10))
	us := netip.MustParseAddr("192.0.2.200")
	for range 20000 {
		var found []*exchanger
		for range rnd.IntN(8) {
			e := &exchanger{rank: []string{"MX", "SRV smtp", "SRV qmtp"}[rnd.IntN(3)], standing: uint16(rnd.IntN(5)), relay: []*Route{nil, nil, nil, nil, nil, {}}[rnd.IntN(6)]}
			if rnd.IntN(4) == 0 {
				e.ours = us
			}
			found = append(found, e)
		}
		kept, dropped := cutLoops(found)
		for _, e := range found {
			cut := false
			for _, other := range found {
				cut = cut || e.relay == nil && other.relay == nil && other.ours.IsValid() && other.rank == e.rank && other.standing <= e.standing
			}
			if cut == slices.Contains(kept, e) {
				t.Fatalf("%+v kept: %v", e, !cut)
			}
		}
		if !slices.IsSortedFunc(kept, func(a, b *exchanger) int { return slices.Index(found, a) - slices.Index(found, b) }) {
			t.Fatal("the order changed")
		}
		if len(kept)+len(dropped) != len(found) {
			t.Fatal("neither kept nor cut")
		}
	}
}
