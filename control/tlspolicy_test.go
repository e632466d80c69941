package control

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"nightmare.mail/mxf/integration/must"
)

// pin is a digest as a line has it.
var pin = strings.Repeat("Ab", 32)

var someTLSPolicies = `# what we insist on
bank.example:verify
.bank.example:pin:` + pin + `,` + strings.Repeat("01", 32) + `
www.Bank.example.:auto:must
[192.0.2.1]:none
[IPv6:2001:DB8:0::1]:may
b` + "\u00fc" + `cher.example:dane
@Relay.example.:must
@.relay.example:verify:MX.relay.example.,.other.example,b` + "\u00fc" + `cher.example
@[2001:db8::25]:none
@.a.relay.example:auto
:auto:verify
`

// The first that has a line wins: the host, its suffixes from the longest, the exchanger, its
// suffixes from the longest, the empty domain.
func TestTLSPolicies(t *testing.T) {
	all := must.Get(dir{home: "/home"}.parseTLSPolicies([]byte(someTLSPolicies)))(t)
	const four, six = "192.0.2.25", "2001:db8::25"
	for _, test := range []struct {
		host, exchanger, addr string
		line                  int
	}{
		{"bank.example", "relay.example", four, 2},
		{"BANK.Example.", "relay.example", four, 2},
		{"a.bank.example", "relay.example", four, 3},
		{"www.bank.example", "relay.example", four, 4},
		{"a.www.bank.example", "relay.example", four, 3},
		{"[192.0.2.1]", "", "192.0.2.1", 5},
		{"[2001:db8::1]", "", "2001:db8::1", 6},
		{"xn--bcher-kva.example", "relay.example", four, 7},
		{"B\u00dcCHER.example", "relay.example", four, 7},
		{"example.org", "relay.example", four, 8},
		{"example.org", "RELAY.example", six, 8},
		{"example.org", "mx.relay.example", six, 9}, // it has a name, so its address does not decide
		{"example.org", "", six, 10},
		{"example.org", "[IPv6:2001:db8::25]", four, 10},
		{"example.org", "x.a.relay.example", four, 11},
		{"example.org", "a.relay.example", four, 9},
		{"example.org", "mx.example.org", four, 12},
		{"relay.example", "mx.example.org", four, 12}, // an exchanger's line is not the host's
		{"example.org", "bank.example", four, 12},     // nor the reverse
		{"x..y", "relay.example", four, 8},
		{"", "mx.example.org", four, 12},
		{"example.org", "x..y", four, 12},
	} {
		line := all.For(test.host, test.exchanger, netip.MustParseAddr(test.addr))
		if line == nil || line.Line != test.line {
			t.Errorf("%q %q %s: got %v, want line %d", test.host, test.exchanger, test.addr, line, test.line)
		}
	}
	all = must.Get(dir{home: "/home"}.parseTLSPolicies([]byte("a.example:must\n@b.example:may\n")))(t)
	if line := all.For("example.org", "mx.example.org", netip.MustParseAddr(four)); line != nil {
		t.Errorf("got %v", line)
	}
	if line := (TLSPolicies{}).For("example.org", "mx.example.org", netip.Addr{}); line != nil {
		t.Errorf("got %v", line)
	}
}

func TestTLSPolicies_values(t *testing.T) {
	all := must.Get(dir{home: "/home"}.parseTLSPolicies([]byte(someTLSPolicies)))(t)
	for host, want := range map[string]string{
		"bank.example":         `verify "" [] 0`,
		"a.bank.example":       `pin "" [] 2`,
		"www.bank.example":     `auto "must" [] 0`,
		"[192.0.2.1]":          `none "" [] 0`,
		"b\u00fccher.example":  `dane "" [] 0`,
		"example.org":          `verify "" ["mx.relay.example" ".other.example" "xn--bcher-kva.example"] 0`,
		"no..name":             `verify "" ["mx.relay.example" ".other.example" "xn--bcher-kva.example"] 0`,
		"[IPv6:2001:db8:0::1]": `may "" [] 0`,
	} {
		p := all.For(host, "mx.relay.example", netip.Addr{})
		if got := fmt.Sprintf("%s %q %q %d", p.Level, p.Floor, p.Names, len(p.Pins)); got != want {
			t.Errorf("%q: got %s, want %s", host, got, want)
		}
	}
	p := all.For("a.bank.example", "", netip.Addr{})
	if p.Pins[0] != [32]byte([]byte(strings.Repeat("\xab", 32))) || p.Place() != "control/tlspolicy:3" {
		t.Errorf("got %x of %s", p.Pins, p.Place())
	}
}

// What is looked up before the exchangers are known.
func TestTLSPolicies_ForHost(t *testing.T) {
	for _, test := range []struct {
		text, host string
		line       int
		sts, tlsa  bool
	}{
		{"", "example.org", 0, true, true},
		{"other.example:must", "example.org", 0, true, true},
		{"example.org:must", "Example.org.", 1, false, false},
		{"example.org:none", "example.org", 1, false, false},
		{"example.org:may", "example.org", 1, false, false},
		{"example.org:verify", "example.org", 1, false, false},
		{"example.org:pin:" + pin, "example.org", 1, false, false},
		{"example.org:dane", "example.org", 1, false, true},
		{"example.org:auto", "example.org", 1, true, true},
		{"example.org:auto:must", "example.org", 1, true, true},
		{".org:must", "example.org", 1, false, false},
		{".org:must\n.example.org:auto", "a.example.org", 2, true, true},
		{":must", "example.org", 1, false, false},
		{":must\n.org:auto", "example.org", 2, true, true},
		{":must\n@relay.example:none", "example.org", 1, false, false},
		{":must\n@relay.example:auto", "example.org", 0, true, true}, // which may be one of its exchangers
		{"example.org:must\n@relay.example:auto", "example.org", 1, false, false},
		{"@relay.example:must", "example.org", 0, true, true},
		{"@relay.example:must", "relay.example", 0, true, true},
	} {
		line := must.Get(dir{home: "/home"}.parseTLSPolicies([]byte(test.text)))(t).ForHost(test.host)
		if got := line; got == nil && test.line != 0 || got != nil && got.Line != test.line {
			t.Errorf("%q, %q: got %v, want line %d", test.text, test.host, got, test.line)
		}
		if line.AsksMTASTS() != test.sts || line.AsksTLSA() != test.tlsa {
			t.Errorf("%q, %q: asks MTA-STS %v, TLSA %v", test.text, test.host, line.AsksMTASTS(), line.AsksTLSA())
		}
	}
}

var badTLSPolicies = []struct{ entry, expected string }{
	{"must", "found one field"},
	{"x.example", "found one field"},
	{"x.example:auto:must:", "found 4 fields"},
	{"2001:db8::1:must", "found 5 fields"},
	{"x.example:", "the level"},
	{"x.example:Must", `the level, found "Must"`},
	{"x.example: must", "the level"},
	{"x.example:encrypt", `the level, found "encrypt"`},
	{"x..example:must", "a domain, a .suffix"},
	{".:must", "a domain, a .suffix"},
	{".[192.0.2.1]:must", "a domain, a .suffix"},
	{"[192.0.2.1:must", "a domain, a .suffix"},
	{"x.example :must", "a domain, a .suffix"},
	{"joe@x.example:must", "a domain, a .suffix"},
	{"@:must", "after the @"},
	{"@.:must", "after the @"},
	{"@@mx.example:must", "after the @"},
	{"@ mx.example:must", "after the @"},
	{"@[192.0.2.1:must", "after the @"},
	{"@.[192.0.2.1]:must", "after the @"},
	{"x.example:none:", "nothing after none"},
	{"x.example:may:", "nothing after may"},
	{"x.example:must:", "nothing after must"},
	{"x.example:must:may", "nothing after must"},
	{"x.example:dane:verify", "nothing after dane"},
	{"x.example:auto:", "the floor of auto"},
	{"x.example:auto:none", `the floor of auto, found "none"`},
	{"x.example:auto:dane", "the floor of auto"},
	{"x.example:auto:auto", "the floor of auto"},
	{"x.example:auto:MAY", "the floor of auto"},
	{"x.example:verify:", "host names and suffixes"},
	{"x.example:verify:,", "host names and suffixes"},
	{"x.example:verify:a.example,", "host names and suffixes"},
	{"x.example:verify:a.example, b.example", "host names and suffixes"},
	{"x.example:verify:.", "host names and suffixes"},
	{"x.example:verify:*.a.example", "host names and suffixes"},
	{"x.example:verify:[192.0.2.1]", "host names and suffixes"},
	{"x.example:verify:192.0.2.1", "host names and suffixes"},
	{"x.example:verify:" + strings.Repeat("a.example,", 20) + "b.example", "at most 20 names, found 21"},
	{"x.example:pin", "digests as the third field"},
	{"x.example:pin:", "digests of 64"},
	{"x.example:pin:" + pin[2:], "digests of 64"},
	{"x.example:pin:" + pin + "00", "digests of 64"},
	{"x.example:pin:g" + pin[1:], "digests of 64"},
	{"x.example:pin:" + pin + ",", "digests of 64"},
	{"x.example:pin:" + pin + ", " + pin, "digests of 64"},
	{"x.example:pin:" + strings.Repeat(pin+",", 20) + pin, "at most 20 digests, found 21"},
	{"x.example:must\nX.example.:may", "each domain and each exchanger once"},
	{"@x.example:must\n@X.example.:may", "each domain and each exchanger once"},
	{":must\n:must", "each domain and each exchanger once"},
	{"[2001:db8::1]:must\n[IPv6:2001:db8:0::1]:must", "each domain and each exchanger once"},
	{"@[2001:db8::1]:must\n@[IPv6:2001:db8:0::1]:must", "each domain and each exchanger once"},
	{".b\u00fccher.example:must\n.xn--bcher-kva.example:must", "each domain and each exchanger once"},
}

func TestTLSPolicies_malformed(t *testing.T) {
	for _, test := range badTLSPolicies {
		text := "# first\n" + test.entry + "\n"
		_, err := dir{home: "/home"}.parseTLSPolicies([]byte(text))
		isMalformed(t, text, err, "control/tlspolicy", test.expected)
	}
	full := "x.example:pin:" + strings.Repeat(pin+",", 19) + pin + "\n@x.example:verify:" + strings.Repeat(".a.example,", 19) + "b.example\n"
	if all := must.Get(dir{home: "/home"}.parseTLSPolicies([]byte(full)))(t); len(all.lines) != 2 {
		t.Errorf("%d lines", len(all.lines))
	}
}

// FuzzTLSPolicies wants of each line that is taken: one form of its key, values within their
// limits that belong to the level, and that the line is found where its key fits.
func FuzzTLSPolicies(f *testing.F) {
	f.Add(someTLSPolicies)
	for _, test := range badTLSPolicies {
		f.Add(test.entry)
		f.Add(someTLSPolicies + test.entry)
	}
	for _, n := range goodPatterns {
		f.Add(n.Text + ":must\n@" + n.Text + ":verify:" + n.Text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		all, err := dir{home: "/home"}.parseTLSPolicies([]byte(text))
		if err != nil {
			checkError(t, err, "control/tlspolicy", []byte(text))
			return
		}
		if len(all.keys) != len(all.lines) {
			t.Errorf("%d keys, %d lines", len(all.keys), len(all.lines))
		}
		for key, p := range all.keys {
			if again, problem := parseTLSPolicyKey(key); again != key || problem != "" {
				t.Errorf("%q is %q, %s", key, again, problem)
			}
			if p.Line < 1 || p.Line > 1+strings.Count(text, "\n") {
				t.Errorf("%q: line %d", key, p.Line)
			}
			pins, names, floor := len(p.Pins) > 0, len(p.Names) > 0, p.Floor != ""
			if len(p.Pins) > maxTLSPolicyValues || len(p.Names) > maxTLSPolicyValues || pins != (p.Level == TLSPin) ||
				names && p.Level != TLSVerify || floor && p.Level != TLSAuto {
				t.Errorf("%q: %+v", key, p)
			}
			again := TLSPolicy{}
			if problem := again.parseNames(strings.Join(p.Names, ",")); names && (problem != "" || !slices.Equal(again.Names, p.Names)) {
				t.Errorf("names %q are %q, %s", p.Names, again.Names, problem)
			}
			exchanger, isExchanger := strings.CutPrefix(key, exchangerMark)
			found := all.For(key, "", netip.Addr{})
			if isExchanger {
				found = all.For("", exchanger, netip.Addr{})
			}
			if key != "" && !strings.HasPrefix(exchanger, ".") && (found == nil || found.Line != p.Line) {
				t.Errorf("%q is line %d, found %v", key, p.Line, found)
			}
		}
	})
}
