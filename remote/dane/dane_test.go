package dane

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"nightmare.mail/mxf/remote/dns"
	"nightmare.mail/mxf/remote/dns/dnstest"
)

const (
	digest  = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	another = "f3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
)

// What is below u.test has no signatures; all else has.
const zone = `
mx.s.test.            A     192.0.2.1
mx.s.test.            AAAA  2001:db8::1
_25._tcp.mx.s.test.   TLSA  3 1 1 ` + digest + `
_25._tcp.mx.s.test.   TLSA  2 0 1 ` + another + `
_26._tcp.mx.s.test.   TLSA  1 0 1 ` + digest + `
_26._tcp.mx.s.test.   TLSA  3 1 1 ab12
_27._tcp.mx.s.test.   TLSA  3 1 1 ab12
_27._tcp.mx.s.test.   TLSA  3 1 1 ` + digest + `
_28._tcp.mx.s.test.   CNAME _25._tcp.mx.s.test.
_29._tcp.mx.s.test.   CNAME _25._tcp.mx.u.test.
_30._tcp.mx.s.test.   CNAME _30._tcp.mx.s.test.
_33._tcp.mx.s.test.   TLSA  3 1 1 ` + digest + `
v4.s.test.            A     192.0.2.1
_25._tcp.v4.s.test.   TLSA  3 1 1 ` + digest + `
v4u.s.test.           A     192.0.2.1
_25._tcp.v4u.s.test.  TLSA  3 1 1 ` + digest + `
*.wild.s.test.        A     192.0.2.1
mx.u.test.            A     192.0.2.2
_25._tcp.mx.u.test.   TLSA  3 1 1 ` + digest + `
tou.s.test.           CNAME mx.u.test.
_25._tcp.tou.s.test.  TLSA  3 1 1 ` + another + `
tou2.s.test.          CNAME mx.u.test.
brokentou.s.test.     CNAME mx.u.test.
deadtou.s.test.       CNAME mx.u.test.
tos.s.test.           CNAME MX.S.Test.
_25._tcp.tos.s.test.  TLSA  3 1 1 ` + another + `
toempty.s.test.       CNAME empty.s.test.
empty.s.test.         A     192.0.2.3
_25._tcp.toempty.s.test. TLSA 3 1 1 ` + another + `
tonone.s.test.        CNAME empty.s.test.
tobroken.s.test.      CNAME broken.s.test.
_25._tcp.tobroken.s.test. TLSA 3 1 1 ` + another + `
broken.s.test.        A     192.0.2.4
refused.s.test.       A     192.0.2.4
tounusable.s.test.    CNAME unusable.s.test.
unusable.s.test.      A     192.0.2.4
_25._tcp.unusable.s.test.   TLSA 0 0 1 ` + digest + `
_25._tcp.tounusable.s.test. TLSA 3 1 1 ` + another + `
tos.u.test.           CNAME mx.s.test.
_25._tcp.tos.u.test.  TLSA  3 1 1 ` + another + `
toodd.s.test.         CNAME odd\032name.s.test.
odd\032name.s.test.   A     192.0.2.5
_25._tcp.toodd.s.test. TLSA 3 1 1 ` + another + `
far.s.test.           CNAME nearer.s.test.
nearer.s.test.        CNAME mx.s.test.
hundred.s.test.       A     192.0.2.6
hundred1.s.test.      A     192.0.2.6
large.s.test.         A     192.0.2.7
`

var trouble = map[string]string{
	"u.test":                "insecure",
	"AAAA v4u.s.test":       "insecure",
	"_25._tcp.empty.s.test": "", "_25._tcp.broken.s.test": "servfail", "_25._tcp.refused.s.test": "refused",
	"_31._tcp.mx.s.test": "formerr", "_32._tcp.mx.s.test": "alwaysformerr", "_33._tcp.mx.s.test": "mangled",
	"_34._tcp.mx.s.test":     "lame",
	"CNAME deadtou.s.test":   "silence",
	"CNAME brokentou.s.test": "servfail",
}

// long is a name that has no room for _25._tcp. before it.
var long = strings.Repeat("a.", 120) + "s.test"

func newServer(t *testing.T) *dnstest.Server {
	t.Helper()
	more := long + ". A 192.0.2.8\n"
	for i := range 101 {
		record := fmt.Sprintf("TLSA 3 1 1 %02x%s\n", i, digest[2:])
		more += "_25._tcp.hundred1.s.test. " + record
		if i < 100 {
			more += "_25._tcp.hundred.s.test. " + record
		}
	}
	for i := range 9 {
		more += fmt.Sprintf("_25._tcp.large.s.test. TLSA 3 0 0 %02x%s\n", i, strings.Repeat("ab", 2000))
	}
	return dnstest.New(t, zone+more, trouble)
}

// way is a way of an exchanger that a secure MX record of example.test names.
func way(t *testing.T, r dns.Resolver, exchanger string, port uint16) Way {
	t.Helper()
	w := Way{Exchanger: exchanger, Port: port, NamedBy: mx(true, "example.test", "")}
	for i, qtype := range []dns.Type{dns.TypeAAAA, dns.TypeA} {
		w.Resolved[i] = r.Lookup(t.Context(), dns.Question{Name: strings.ToLower(exchanger), Type: qtype, Secure: true})
	}
	return w
}

// mx is the answer of a domain, which may be an alias.
func mx(secure bool, domain, end string) *dns.Answer {
	if end == "" {
		end = domain
	}
	return &dns.Answer{Question: dns.Question{Name: domain, Type: dns.TypeMX, Secure: true}, Secure: secure, End: end, MX: []dns.MX{{Preference: 10, Exchanger: "mx.test."}}}
}

var lookups = []struct {
	exchanger string
	port      uint16
	want      string // state, base and records, or what the error has
	asked     string // type and name of each question, in their order
}{
	{"mx.s.test", 25, "usable TLSA records of mx.s.test: 2 of 2", "TLSA _25._tcp.mx.s.test"},
	{"MX.s.Test", 25, "usable TLSA records of mx.s.test: 2 of 2", "TLSA _25._tcp.mx.s.test"},
	{"mx.s.test", 26, "no usable TLSA records of mx.s.test: 0 of 2", "TLSA _26._tcp.mx.s.test"},
	{"mx.s.test", 27, "usable TLSA records of mx.s.test: 1 of 2", "TLSA _27._tcp.mx.s.test"},
	// Aliases of the records' name do not change the base.
	{"mx.s.test", 28, "usable TLSA records of mx.s.test: 2 of 2", "TLSA _28._tcp.mx.s.test"},
	{"mx.s.test", 29, "no secure TLSA records of mx.s.test", "TLSA _29._tcp.mx.s.test"},
	{"mx.s.test", 30, "more than 10 CNAMEs", "TLSA _30._tcp.mx.s.test"},
	// Denials and failures.
	{"mx.s.test", 6209, "no secure TLSA records of mx.s.test", "TLSA _6209._tcp.mx.s.test"},
	{"a.wild.s.test", 25, "no secure TLSA records of a.wild.s.test", "TLSA _25._tcp.a.wild.s.test"},
	{"broken.s.test", 25, "server failure", "TLSA _25._tcp.broken.s.test"},
	{"refused.s.test", 25, "refuses", "TLSA _25._tcp.refused.s.test"},
	{"mx.s.test", 31, "no secure TLSA records of mx.s.test", "TLSA _31._tcp.mx.s.test"}, // no EDNS0, that is all
	{"mx.s.test", 32, "FORMERR", "TLSA _32._tcp.mx.s.test"},
	{"mx.s.test", 33, "cannot be read", "TLSA _33._tcp.mx.s.test"},
	{"mx.s.test", 34, "neither looks up names", "TLSA _34._tcp.mx.s.test"},
	// One family is enough, and a denial of the other.
	{"v4.s.test", 25, "usable TLSA records of v4.s.test: 1 of 1", "TLSA _25._tcp.v4.s.test"},
	{"v4u.s.test", 25, "usable TLSA records of v4u.s.test: 1 of 1", "TLSA _25._tcp.v4u.s.test"},
	// What has no signatures is not asked about.
	{"mx.u.test", 25, "nothing is secure", ""},
	{"nowhere.u.test", 25, "nothing is secure", ""},
	{"", 25, "nothing is secure", ""},
	// Out of what is secure: the own name alone counts.
	{"tou.s.test", 25, "usable TLSA records of tou.s.test: 1 of 1", "CNAME tou.s.test, TLSA _25._tcp.tou.s.test"},
	{"tou2.s.test", 25, "no secure TLSA records of tou2.s.test", "CNAME tou2.s.test, TLSA _25._tcp.tou2.s.test"},
	{"brokentou.s.test", 25, "server failure", "CNAME brokentou.s.test"},
	{"tos.u.test", 25, "nothing is secure", "CNAME tos.u.test"},
	// Aliases that are secure: their end, then the own name.
	{"tos.s.test", 25, "usable TLSA records of mx.s.test: 2 of 2", "TLSA _25._tcp.mx.s.test"},
	{"far.s.test", 25, "usable TLSA records of mx.s.test: 2 of 2", "TLSA _25._tcp.mx.s.test"},
	{"toempty.s.test", 25, "usable TLSA records of toempty.s.test: 1 of 1", "TLSA _25._tcp.empty.s.test, TLSA _25._tcp.toempty.s.test"},
	{"tonone.s.test", 25, "no secure TLSA records of tonone.s.test", "TLSA _25._tcp.empty.s.test, TLSA _25._tcp.tonone.s.test"},
	{"tobroken.s.test", 25, "not known of broken.s.test: ", "TLSA _25._tcp.broken.s.test"},
	{"tounusable.s.test", 25, "no usable TLSA records of unusable.s.test: 0 of 1", "TLSA _25._tcp.unusable.s.test"},
	{"toodd.s.test", 25, "usable TLSA records of toodd.s.test: 1 of 1", "TLSA _25._tcp.toodd.s.test"},
	// Limits.
	{"hundred.s.test", 25, "usable TLSA records of hundred.s.test: 100 of 100", "TLSA _25._tcp.hundred.s.test"},
	{"hundred1.s.test", 25, "more than 100 TLSA records", "TLSA _25._tcp.hundred1.s.test"},
	{"large.s.test", 25, "TLSA records of more than 32768 bytes as text", "TLSA _25._tcp.large.s.test"},
	{long, 25, "nothing is secure", ""},
}

func TestFind(t *testing.T) {
	t.Parallel()
	server := newServer(t)
	client := dns.NewClient(dns.Config{Servers: []netip.AddrPort{server.Addr}})
	var all []Way
	var each []Finding
	for _, c := range lookups {
		w := way(t, client, c.exchanger, c.port)
		var trace []string
		result := Find(t.Context(), client, Request{Host: "example.test", Ways: []Way{w}, Trace: func(line string) { trace = append(trace, line) }})
		f := result.Findings[0]
		var asked []string
		for _, a := range result.Answers {
			asked = append(asked, a.Question.Type.String()+" "+a.Question.Name)
			if !a.Question.Secure || !slices.Contains(trace, a.String()) {
				t.Errorf("%v is not in the trace %q", a, trace)
			}
		}
		if got := f.String(); got != c.want && (f.State != Failed || !strings.Contains(got, c.want)) || strings.Join(asked, ", ") != c.asked {
			t.Errorf("%s %d: %s, asked %q; want %s, %q", c.exchanger, c.port, got, asked, c.want, c.asked)
		}
		if (f.Err != nil) != (f.State == Failed) || !f.Secure || (f.Base == "") != (c.exchanger == "") {
			t.Errorf("%s %d: %+v", c.exchanger, c.port, f)
		}
		if f.State == Usable && len(f.Records.Usable().List()) == 0 || f.State != Usable && f.State != NoneUsable && len(f.Records.List()) > 0 {
			t.Errorf("%s %d: %v has %v", c.exchanger, c.port, f.State, f.Records)
		}
		all, each = append(all, w), append(each, f)
	}
	// All at once they are the same, and no question is asked twice.
	result := Find(t.Context(), client, Request{Host: "example.test", Ways: all})
	for i, f := range result.Findings {
		if each[i].Err != nil && f.Err != nil { // its words have the time
			f.Err = each[i].Err
		}
		if f != each[i] {
			t.Errorf("%s %d: %v alone, %v among others", all[i].Exchanger, all[i].Port, each[i], f)
		}
	}
	asked := make(map[dns.Question]bool)
	for _, a := range result.Answers {
		if asked[a.Question] {
			t.Errorf("%v is asked twice", a.Question)
		}
		asked[a.Question] = true
	}
}

// TestFind_names: which names may stand in a certificate, and which path is secure.
func TestFind_names(t *testing.T) {
	t.Parallel()
	denied := func(secure bool, end string) *dns.Answer {
		a := mx(secure, "example.test", end)
		a.MX = nil
		return a
	}
	srv := &dns.Answer{Question: dns.Question{Name: "_smtp._tcp.example.test", Type: dns.TypeSRV, Secure: true}, Secure: true, End: "other.test"}
	for _, c := range []struct {
		way    Way
		secure bool
		want   string
	}{
		{Way{Exchanger: "MX.test", NamedBy: mx(true, "example.test", "")}, true, "example.test"},
		{Way{Exchanger: "mx.test", NamedBy: mx(true, "example.test", "End.test")}, true, "example.test end.test"},
		{Way{Exchanger: "mx.test", NamedBy: mx(false, "example.test", "end.test")}, false, ""},
		{Way{Exchanger: "end.test", NamedBy: mx(true, "example.test", "end.test")}, true, "example.test"}, // it is the base
		{Way{Exchanger: "mx.test", NamedBy: srv}, true, "example.test"},
		{Way{Exchanger: "Example.test", NamedBy: denied(true, "end.test")}, true, "end.test"},
		{Way{Exchanger: "example.test", NamedBy: denied(false, "end.test")}, false, ""},
		{Way{Exchanger: "example.test", NamedBy: denied(false, ""), Resolved: to("end.test", true)}, false, "example.test"},
		{Way{Exchanger: "mx.test", NamedBy: mx(false, "example.test", ""), Resolved: to("end.test", true)}, false, ""},
		{Way{Exchanger: "mx.test", NamedBy: mx(true, "example.test", ""), Resolved: to("end.test", true)}, true, "example.test"},
		{Way{Exchanger: "Relay.test", Relay: true}, true, ""},
		{Way{Exchanger: "Relay.test", Relay: true, Resolved: to("end.test", true)}, true, "relay.test"},
		{Way{Relay: true}, true, ""},
		{Way{}, false, ""},
	} {
		c.way.Port = 25
		r := resolverOf(func(q dns.Question) *dns.Answer {
			return &dns.Answer{Question: q, Secure: true, TLSA: []dns.TLSA{{Usage: 2, Data: "x"}}}
		})
		f := Find(t.Context(), r, Request{Host: "example.test", Ways: []Way{c.way}}).Findings[0]
		if f.Secure != c.secure || f.Names != c.want {
			t.Errorf("%+v: %+v, want %v, %q", c.way, f, c.secure, c.want)
		}
	}
}

// to is the answers of an alias.
func to(end string, secure bool) [2]*dns.Answer {
	a := &dns.Answer{Question: dns.Question{Name: "alias.test", Type: dns.TypeA, Secure: true}, End: end, Secure: secure}
	return [2]*dns.Answer{a, a}
}

// resolverOf is a resolver that has an answer at once.
type resolverOf func(dns.Question) *dns.Answer

func (r resolverOf) Lookup(_ context.Context, q dns.Question) *dns.Answer { return r(q) }

// TestFind_bound: ways for which no question is left have failed; those that share one have not.
func TestFind_bound(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	asked := 0
	r := resolverOf(func(q dns.Question) *dns.Answer {
		mu.Lock()
		defer mu.Unlock()
		asked++
		return &dns.Answer{Question: q, Secure: true, Err: dns.ErrNoName}
	})
	var ways []Way
	for i := range 40 {
		own := &dns.Answer{Question: dns.Question{Name: fmt.Sprintf("mx%d.test", i), Type: dns.TypeA, Secure: true}, End: fmt.Sprintf("end%d.test", i), Secure: true}
		w := Way{Exchanger: own.Question.Name, Port: 25, Resolved: [2]*dns.Answer{own, own}}
		ways = append(ways, w, w)
	}
	result := Find(t.Context(), r, Request{Ways: ways})
	if asked != maxQuestions || len(result.Answers) != maxQuestions {
		t.Errorf("%d questions, %d answers", asked, len(result.Answers))
	}
	for i, f := range result.Findings {
		want := Finding{State: None, Base: ways[i].Exchanger}
		if i/2 >= maxQuestions-40 {
			want = Finding{State: Failed, Base: ways[i].Exchanger, Err: errManyQuestions}
		}
		if f != want {
			t.Errorf("%d: %v, want %v", i, f, want)
		}
	}
}

// TestFind_together: all ways are asked about at once, in at most two rounds.
func TestFind_together(t *testing.T) {
	t.Parallel()
	const n = 20
	var mu sync.Mutex
	asked, complete := 0, [2]chan struct{}{make(chan struct{}), make(chan struct{})}
	r := resolverOf(func(q dns.Question) *dns.Answer {
		mu.Lock()
		round := asked / n
		if asked++; asked%n == 0 {
			close(complete[round])
		}
		mu.Unlock()
		select {
		case <-complete[round]: // each waits for all others of its round
			return &dns.Answer{Question: q, Secure: true}
		case <-t.Context().Done():
			return &dns.Answer{Question: q, Err: t.Context().Err()}
		}
	})
	var ways []Way
	for i := range n {
		own := &dns.Answer{Question: dns.Question{Name: fmt.Sprintf("mx%d.test", i), Type: dns.TypeA, Secure: true}, End: fmt.Sprintf("end%d.test", i), Secure: i%2 > 0}
		ways = append(ways, Way{Exchanger: own.Question.Name, Port: 25, Resolved: [2]*dns.Answer{own, own}})
	}
	for i, f := range Find(t.Context(), r, Request{Ways: ways}).Findings {
		if want := (Finding{State: None, Base: ways[i].Exchanger}); f != want {
			t.Errorf("%d: %v, want %v", i, f, want)
		}
	}
}

// TestFind_late: who does not answer in a quarter of the time has failed, and holds nobody else
// up; nor does what others have answered get lost.
func TestFind_late(t *testing.T) {
	t.Parallel()
	server := newServer(t)
	client := dns.NewClient(dns.Config{Servers: []netip.AddrPort{server.Addr}})
	ways := []Way{way(t, client, "deadtou.s.test", 25), way(t, client, "tos.s.test", 25)}
	result := Find(t.Context(), client, Request{Host: "example.test", Ways: ways, Limit: 400 * time.Millisecond})
	first, second := result.Findings[0], result.Findings[1]
	if first.State != Failed || !errors.Is(first.Err, context.DeadlineExceeded) || first.Base != "deadtou.s.test" || second.State != Usable {
		t.Errorf("%v, %v", first, second)
	}
	// And with the context, at once.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for i, f := range Find(ctx, client, Request{Host: "example.test", Ways: ways}).Findings {
		if f.State != Failed || !errors.Is(f.Err, context.Canceled) {
			t.Errorf("%d: %v", i, f)
		}
	}
}

// TestFind_panic: a resolver that panics has failed.
func TestFind_panic(t *testing.T) {
	t.Parallel()
	r := resolverOf(func(dns.Question) *dns.Answer { panic("oops") })
	f := Find(t.Context(), r, Request{Ways: []Way{{Exchanger: "alias.test", Port: 25, Resolved: to("end.test", false)}}}).Findings[0]
	if f.State != Failed || !strings.Contains(f.String(), "oops") {
		t.Error(f)
	}
}
