package check

import (
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/remote"
	"nightmare.mail/mxf/remote/dns"
	"nightmare.mail/mxf/remote/policy"
	"nightmare.mail/mxf/remote/route"
)

// everything has something of everything, and bytes that a terminal must not get.
func everything() *Result {
	now := time.Date(2026, 11, 26, 8, 0, 0, 0, time.UTC)
	r := New("mxf-check 1", "example.org", now)
	secure := true
	r.Lookups = append(r.Lookups, Lookup{Name: "example.org", Type: "MX", Answer: []string{"10 mx.example.org", "20 \x1b[2J"}, Server: "127.0.0.1:53", Secure: &secure, Notes: []string{"no answer"}},
		Lookup{Name: strings.Repeat("a", 60) + ".example.org", Type: "TXT", Error: "no such name", Server: "[::1]:53", MS: 3, CutOff: true})
	r.Policy = append(r.Policy, Policy{"sts", "example.org", "enforce cached 1"})
	r.Ways = append(r.Ways, Way{Exchanger: "mx.example.org", Service: "smtp", Port: 25, Addresses: []string{"192.0.2.1", "2001:db8:1111:2222:3333:4444:5555:6666"},
		Silent: map[string]string{"2001:db8:1111:2222:3333:4444:5555:6666": "41m0s"}, Why: "MX 10", TLS: "verify", Policy: "control/tlsstrictness 2", Records: "3 1 1 ab,2 0 1 cd", Identity: []string{"logs in (control/credentials:3)"}},
		Way{Exchanger: "mx2.example.org", Service: "smtp", Port: 25, Addresses: []string{}, Why: "MX 20", Skipped: "no usable TLSA records"})
	r.Dropped = append(r.Dropped, "mx3.example.org (MX 30): it is this host")
	chain := []Certificate{{"CN=\x1b[31mred", "CN=authority", now.AddDate(-1, 0, 0), now.AddDate(0, 0, -3), []string{"mx.example.org"}}}
	r.Attempts = append(r.Attempts,
		Attempt{Address: "192.0.2.1", Port: 25, Service: "smtp", Exchanger: "mx.example.org", Connected: true, MS: 12, Greeting: "220 mx \xff\xfe\n220 hello", Extensions: []string{"PIPELINING"}, Login: "control/credentials:3",
			TLS:        &TLS{Version: "TLSv1.3", Cipher: "TLS_AES_128_GCM_SHA256", Group: "X25519", Chain: chain, Staple: "good", Asked: true, Wrong: []Wrong{{"certificate expired", []string{"2", "sts"}}}},
			Recipients: []Reply{{"a@example.org", "accepted", "250 ok"}}, Conversation: []string{"> EHLO x", "< 250 y"}},
		Attempt{Address: "192.0.2.2", Port: 25, Error: "no answer within 10 s", MS: 10000, CutOff: true})
	r.prospects = []prospect{
		{"192.0.2.1", "12 ms", "TLSv1.3", "expired 3 days ago", [3]string{"taken, TLS", "taken, clear", "deferred"}},
		{"192.0.2.2", "no answer within 10 s", "", "", [3]string{}},
	}
	r.planned, r.decider, r.left = true, "control/tlsstrictness 2", []Reply{{"b@example.org", "refused", "192.0.2.1 does not like recipient.\nRemote host said: 550 \x1b[2J"}}
	r.Outcome = &Outcome{Letter: "K", Text: "192.0.2.1 would take the message.", Address: "192.0.2.1", TLS: "TLSv1.3 TLS_AES_128_GCM_SHA256 unverified mx.example.org"}
	return r
}

// The names of fields are promised, and what is foreign is valid UTF-8.
func TestResult_JSON(t *testing.T) {
	r := everything()
	r.Findings = append(r.Findings, Finding{Warning, "control/me", 1, "odd", "mend it"})
	text := must.Get(json.Marshal(r))(t)
	var all map[string]any
	must.OK(t, json.Unmarshal(text, &all))
	for path, names := range map[string]string{
		"": "attempts checked dropped findings host lookups outcome policy route version ways", "findings": "do file level line what",
		"lookups": "answer ms name notes secure server type", "ways": "addresses exchanger identity policy port records service silent tls why",
		"attempts": "address connected conversation exchanger extensions greeting login ms port recipients service tls", "outcome": "address letter text tls",
	} {
		value := any(all)
		if path != "" {
			value = all[path]
		}
		if list, ok := value.([]any); ok {
			value = list[0]
		}
		var got []string
		for name := range value.(map[string]any) {
			got = append(got, name)
		}
		slices.Sort(got)
		if strings.Join(got, " ") != names {
			t.Errorf("%q: %q", path, got)
		}
	}
	if all["checked"] != "2026-11-26T08:00:00Z" || !strings.Contains(string(text), `"level":"warning"`) || !strings.Contains(string(text), `220 mx \ufffd\ufffd`) {
		t.Errorf("%s", text)
	}
	for _, list := range []string{"findings", "route", "lookups", "policy", "ways", "dropped", "attempts"} {
		if empty := string(must.Get(json.Marshal(New("x", "", time.Now())))(t)); !strings.Contains(empty, `"`+list+`":[]`) {
			t.Errorf("%s: %s", list, empty)
		}
	}
}

func TestResult_Exit(t *testing.T) {
	with := func(letter string, clear bool, levels ...Level) *Result {
		r := &Result{clearBad: clear}
		if letter != "-" {
			r.Outcome = &Outcome{Letter: letter}
		}
		for _, l := range levels {
			r.Findings = append(r.Findings, Finding{Level: l})
		}
		return r
	}
	left := func(r *Result, statuses ...string) *Result {
		for _, s := range statuses {
			r.left = append(r.left, Reply{Status: s})
		}
		return r
	}
	for _, test := range []struct {
		r    *Result
		want int
	}{
		{with("-", false), 0}, {with("-", false, OK, Note), 0}, {with("-", false, Warning, OK), 1}, {with("-", false, Error, Warning), 2},
		{with("K", false), 0}, {with("K", true), 1}, {with("Z", false), 2}, {with("D", false), 3}, {with("", false), 1}, {with("K", false, Error), 2},
		{left(with("K", true), "deferred"), 2}, {left(with("K", false), "deferred", "refused"), 3}, {left(with("K", false, Error), "refused"), 3},
	} {
		if got := test.r.Exit(); got != test.want {
			t.Errorf("%+v: %d, want %d", test.r, got, test.want)
		}
	}
}

// A way is shown with who decided on its TLS, and with what is passed over and why.
func TestWay(t *testing.T) {
	addr := func(text string, silent time.Duration) remote.Address {
		return remote.Address{AddrPort: netip.MustParseAddrPort(text), Silent: silent}
	}
	s := &remote.Step{
		Candidate: route.Candidate{Protocol: &control.Protocol{Service: "smtp"}, Host: "mx.example.org", Port: 25, Why: "MX 10"},
		Addresses: []remote.Address{addr("[2001:db8::1]:25", 0), addr("192.0.2.1:25", 62*time.Minute)},
	}
	s.Requirement.By, s.Requirement.First = "control/tlsstrictness 2", policy.Verified
	w := wayOf(s)
	if w.Exchanger != "mx.example.org" || w.TLS != "verify" || w.Policy != "control/tlsstrictness 2" || !slices.Equal(w.Addresses, []string{"2001:db8::1", "192.0.2.1"}) ||
		w.Silent["192.0.2.1"] != "1h2m0s" || len(w.Silent) != 1 || w.Skipped != "" {
		t.Errorf("%+v", w)
	}
	s.Err = errors.New("no such program")
	if w = wayOf(s); w.Skipped != "no such program" {
		t.Errorf("%+v", w)
	}
	s.Err, s.Addresses[0].Silent = nil, time.Minute
	if w = wayOf(s); w.Skipped != "no address of it has answered lately" {
		t.Errorf("%+v", w)
	}
}

// Limits are shortened and never lengthened; one answer may take a quarter of timeoutremote.
func TestShorten(t *testing.T) {
	s := &control.Settings{TimeoutDNS: 0}
	s.TimeoutConnect, s.TimeoutRemote = 60*time.Second, 1200*time.Second
	if cut := Shorten(s, 10*time.Second); len(cut) != 3 || s.TimeoutConnect != 10*time.Second || s.TimeoutRemote != 40*time.Second || s.TimeoutDNS != 10*time.Second {
		t.Errorf("%v, %+v", cut, s.Client)
	}
	if cut := Shorten(s, 20*time.Second); cut != nil || s.TimeoutConnect != 10*time.Second {
		t.Errorf("%v", cut)
	}
}

func TestSplit(t *testing.T) {
	for text, want := range map[string][2]string{
		"example.org": {"example.org", ""}, "a@example.org": {"example.org", "a@example.org"}, "a@b@example.org": {"example.org", "a@b@example.org"}, "a@": {"", "a@"},
	} {
		if domain, recipient := Split(text); domain != want[0] || recipient != want[1] {
			t.Errorf("%q: %q, %q", text, domain, recipient)
		}
	}
}

// Rows of the table about one address differ by their ports.
func TestTellApart(t *testing.T) {
	at := func(text string) *remote.Attempt { return &remote.Attempt{Addr: netip.MustParseAddrPort(text)} }
	rows := []prospect{{address: "192.0.2.1"}, {address: "2001:db8::1"}, {address: "192.0.2.1"}}
	tellApart(rows, []*remote.Attempt{at("192.0.2.1:628"), at("[2001:db8::1]:25"), at("192.0.2.1:25")})
	if rows[0].address != "192.0.2.1:628" || rows[1].address != "2001:db8::1" || rows[2].address != "192.0.2.1:25" {
		t.Errorf("%+v", rows)
	}
}

// A record is shown without its last dot, and the root is that dot.
func TestRecordOf(t *testing.T) {
	a := &dns.Answer{Question: dns.Question{Name: "example.org", Type: dns.TypeMX}, MX: []dns.MX{{Preference: 0, Exchanger: "."}, {Preference: 10, Exchanger: "mx.example.org."}}}
	if first, second := recordOf(a, 0), recordOf(a, 1); first != "0 ." || second != "10 mx.example.org" {
		t.Errorf("%q, %q", first, second)
	}
}

// The TLS of a way is said with the word for what was decided.
func TestWay_decision(t *testing.T) {
	for _, test := range []struct{ tls, title, by, want string }{
		{"verify", "dane", "TLSA records of mx.example.org", "verify, dane (TLSA records of mx.example.org)"},
		{"verify", "floor verify", "control/credentials:3", "floor verify (control/credentials:3)"},
		{"none", "floor may", "control/tlsstrictness 0", "none (control/tlsstrictness 0)"},
		{"none", "floor may", "control/tlspolicy:2", "none, floor may (control/tlspolicy:2)"},
		{"must", "must", "control/tlspolicy:1", "must (control/tlspolicy:1)"},
	} {
		w := Way{TLS: test.tls, Title: test.title, Policy: test.by}
		if got := w.decision(); got != test.want {
			t.Errorf("%q, want %q", got, test.want)
		}
	}
}

// TestResult_manual: the manual names each field of the JSON, and with a dash those that may be
// left out.
func TestResult_manual(t *testing.T) {
	page := string(must.Get(os.ReadFile("../../doc/mxf-check.8"))(t))
	_, page, _ = strings.Cut(page, ".Sh JSON")
	page, _, _ = strings.Cut(page, ".Sh ")
	words := strings.FieldsFunc(page, func(r rune) bool { return strings.ContainsRune(" ,\n();:", r) })
	var fields func(of reflect.Type)
	fields = func(of reflect.Type) {
		for of.Kind() == reflect.Slice || of.Kind() == reflect.Pointer {
			of = of.Elem()
		}
		if of.Kind() != reflect.Struct || of == reflect.TypeFor[time.Time]() {
			return
		}
		for i := range of.NumField() {
			name, omitted, _ := strings.Cut(of.Field(i).Tag.Get("json"), ",")
			if omitted == "omitempty" {
				name = "-" + name
			}
			if name != "" && !slices.Contains(words, name) {
				t.Errorf("%s has no %q", of, name)
			}
			fields(of.Field(i).Type)
		}
	}
	fields(reflect.TypeFor[Result]())
}
