package control

import (
	"net/netip"
	"strings"
	"testing"

	"nightmare.mail/mxf/control/domain/domaintest"
	"nightmare.mail/mxf/integration/must"
)

const someSources = `# where from
@shop.example:192.0.2.10:mail.shop.example
@Shop.example.:[2001:db8::10]:mail6.shop.example
boss@shop.example:ipv6
@.shop.example:ipv4:[192.0.2.11]
joe@[2001:db8::1]:[IPv6:2001:DB8:0::12]:m` + "\u00fc" + `nchen.example
<>:[2001:db8::13]
`

func TestSources(t *testing.T) {
	addr := netip.MustParseAddr
	all := must.Get(dir{home: "/home"}.parseSources([]byte(someSources)))(t)
	for _, test := range []struct {
		sender    string
		four, six Source
		fits      bool
	}{
		{"x@shop.example", Source{2, addr("192.0.2.10"), "mail.shop.example"}, Source{3, addr("2001:db8::10"), "mail6.shop.example"}, true},
		{"Boss@Shop.example", Source{}, Source{Line: 4}, true},
		{"x@a.shop.example", Source{Line: 5, Helo: "[192.0.2.11]"}, Source{}, true},
		{"joe@[2001:db8::1]", Source{}, Source{6, addr("2001:db8::12"), "xn--mnchen-3ya.example"}, true},
		{"", Source{}, Source{Line: 7, Addr: addr("2001:db8::13")}, true},
		{"x@example.org", Source{}, Source{}, false},
		{"root", Source{}, Source{}, false},
	} {
		if four, six, fits := all.For(test.sender); four != test.four || six != test.six || fits != test.fits {
			t.Errorf("%q: got %v, %v, %v, want %v", test.sender, four, six, fits, test)
		}
	}
	if four, six, fits := (Sources{}).For("x"); fits || four != (Source{}) || six != (Source{}) {
		t.Errorf("got %v, %v", four, six)
	}
	all = must.Get(dir{home: "/home"}.parseSources([]byte(":192.0.2.1\n")))(t)
	for _, sender := range []string{"", "root", "x@example.org", "#@[]"} {
		if four, six, fits := all.For(sender); four.Line != 1 || six.Line != 0 || !fits {
			t.Errorf("%q: got %v, %v, %v", sender, four, six, fits)
		}
	}
}

var badSources = []struct{ entry, expected string }{
	{"192.0.2.1", "found one field"},
	{"@shop.example", "found one field"},
	{"@shop.example:192.0.2.1:mail:25", "found 4 fields"},
	{"@shop.example:2001:db8::10", "found 5 fields"},
	{"@shop.example:", "the source"},
	{"@shop.example:ipv4:", "a host name after the second colon"},
	{"@shop.example:ipv5", `the source, found "ipv5"`},
	{"@shop.example:IPv4", "the source"},
	{"@shop.example: ipv4", "the source"},
	{"@shop.example:[192.0.2.1]", "the source"},
	{"@shop.example:[::ffff:192.0.2.1]", "the source"},
	{"@shop.example:192.0.2.256", "the source"},
	{"@shop.example:0.0.0.0", "the source"},
	{"@shop.example:224.0.0.1", "the source"},
	{"@shop.example:255.255.255.255", "the source"},
	{"@shop.example:[ff02::1]", "the source"},
	{"@shop.example:[::]", "the source"},
	{"@shop.example:[2001:db8::1%eth0]", "the source"},
	{"@shop.example:[2001:db8::1]x", "the source"},
	{"@shop.example:mail.shop.example", "the source"},
	{"@shop.example:ipv4:two words", "a host name without blanks"},
	{"joe@.shop.example:ipv4", "the sender"},
	{"@:ipv4", "the sender"},
	{"@shop.example:ipv4\n@Shop.Example.:192.0.2.1", "each sender once for ipv4"},
	{":[2001:db8::1]\n:ipv4\n:ipv6", "each sender once for ipv6"},
}

func TestSources_malformed(t *testing.T) {
	for _, test := range badSources {
		text := "# first\n" + test.entry + "\n"
		_, err := dir{home: "/home"}.parseSources([]byte(text))
		isMalformed(t, text, err, "control/sources", test.expected)
	}
	for _, helo := range domaintest.BadUnicode {
		if _, _, _, problem := parseSource(":ipv4:" + helo); problem == "" {
			t.Errorf("%q passes", helo)
		}
	}
}

// isMalformed wants an error in the last line of text.
func isMalformed(t *testing.T, text string, err error, file, expected string) {
	t.Helper()
	e, _ := err.(*Error)
	if e == nil || e.File != file || e.Line != strings.Count(text, "\n") || !strings.HasPrefix(e.What, "expected ") || !strings.Contains(e.What, expected) {
		t.Errorf("%q: got %v, want %q", text, err, expected)
	}
}

func FuzzSources(f *testing.F) {
	f.Add(someSources)
	for _, test := range badSources {
		f.Add(test.entry)
		f.Add(someSources + test.entry)
	}
	for _, n := range goodSenders {
		f.Add(n.Text + ":ipv4:mail.example.org\n" + n.Text + ":[2001:db8::1]")
	}
	for _, n := range domaintest.Unicode {
		f.Add(":ipv4:" + n.Text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		all, err := dir{home: "/home"}.parseSources([]byte(text))
		if err != nil {
			checkError(t, err, "control/sources", []byte(text))
			return
		}
		for key, both := range all.senders {
			if again, problem := parseSender(key); again != key || problem != "" {
				t.Errorf("sender %q is %q, %s", key, again, problem)
			}
			if both.four.Line == 0 && both.six.Line == 0 || both.four.Line == both.six.Line {
				t.Errorf("%q: %v", key, both)
			}
			for source, right := range map[Source]bool{
				both.four: !both.four.Addr.IsValid() || both.four.Addr.Is4(),
				both.six:  !both.six.Addr.IsValid() || both.six.Addr.Is6() && !both.six.Addr.Is4In6() && both.six.Addr.Zone() == "",
			} {
				if host, problem := parseHeloHost(source.Helo); !right || host != source.Helo || problem != "" {
					t.Errorf("%q: %v", key, source)
				}
			}
		}
	})
}

const someFamilies = `# by which family
MX.example.org.:ipv4
.example.org:ipv6
.a.example.org:ipv4
[192.0.2.1]:ipv6
[IPv6:2001:DB8:0::1]:ipv4
b` + "\u00fc" + `cher.example:ipv6
`

func TestFamilies(t *testing.T) {
	for _, all := range []string{"", ":ipv4\n"} {
		families := must.Get(dir{home: "/home"}.parseFamilies([]byte(someFamilies + all)))(t)
		for _, test := range []struct {
			host, addr string
			only       Family
			line       int
		}{
			{"mx.example.org", "192.0.2.1", IPv4, 2},
			{"MX.Example.org", "192.0.2.1", IPv4, 2},
			{"x.example.org", "192.0.2.1", IPv6, 3},
			{"x.a.example.org", "192.0.2.1", IPv4, 4},
			{"", "192.0.2.1", IPv6, 5},
			{"", "::ffff:192.0.2.1", IPv6, 5},
			{"[192.0.2.1]", "192.0.2.1", IPv6, 5},
			{"", "2001:db8::1", IPv4, 6},
			{"xn--bcher-kva.example", "192.0.2.1", IPv6, 7},
			{"example.org", "192.0.2.1", Both, 0}, // it has a name, so its address does not decide
			{"", "192.0.2.2", Both, 0},
		} {
			if test.line == 0 && all != "" {
				test.only, test.line = IPv4, 8
			}
			if only, line := families.For(test.host, netip.MustParseAddr(test.addr)); only != test.only || line != test.line {
				t.Errorf("%q %s: got %v of line %d, want %v of line %d", test.host, test.addr, only, line, test.only, test.line)
			}
		}
	}
}

func TestFamily(t *testing.T) {
	for _, test := range []struct {
		family    Family
		word      string
		four, six bool
	}{{Both, "both", true, true}, {IPv4, "ipv4", true, false}, {IPv6, "ipv6", false, true}} {
		four, mapped, six := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("::ffff:192.0.2.1"), netip.MustParseAddr("2001:db8::1")
		if f := test.family; f.Allows(four) != test.four || f.Allows(mapped) != test.four || f.Allows(six) != test.six || f.String() != test.word {
			t.Errorf("%v: wrong", f)
		}
	}
}

var badFamilies = []struct{ entry, expected string }{
	{"ipv4", "exchanger:family, found one field"},
	{":ipv4:", "exchanger:family, found 3 fields"},
	{"mx.example.org", "exchanger:family, found one field"},
	{"mx.example.org:", "ipv4 or ipv6"},
	{":IPV4", "ipv4 or ipv6"},
	{":ipv4,ipv6", "ipv4 or ipv6"},
	{": ipv4", "ipv4 or ipv6"},
	{":inet", `ipv4 or ipv6 as the family, found "inet"`},
	{"2001:db8::1:ipv4", "found 5 fields"},
	{"mx..example.org:ipv4", "the exchanger"},
	{".:ipv4", "the exchanger"},
	{"[192.0.2.1:ipv4", "the exchanger"},
	{"mx.example.org :ipv4", "the exchanger"},
	{":ipv4\n:ipv4", "each exchanger once"},
	{"mx.example.org:ipv4\nMX.example.org.:ipv6", "each exchanger once"},
	{"[2001:db8::1]:ipv4\n[IPv6:2001:db8:0::1]:ipv6", "each exchanger once"},
}

func TestFamilies_malformed(t *testing.T) {
	for _, test := range badFamilies {
		text := "# first\n" + test.entry + "\n"
		_, err := dir{home: "/home"}.parseFamilies([]byte(text))
		isMalformed(t, text, err, "control/families", test.expected)
	}
}

func FuzzFamilies(f *testing.F) {
	f.Add(someFamilies)
	for _, test := range badFamilies {
		f.Add(test.entry)
		f.Add(someFamilies + test.entry)
	}
	for _, n := range goodPatterns {
		f.Add(n.Text + ":ipv4")
	}
	f.Fuzz(func(t *testing.T, text string) {
		families, err := dir{home: "/home"}.parseFamilies([]byte(text))
		if err != nil {
			checkError(t, err, "control/families", []byte(text))
			return
		}
		for key, fits := range families.exchangers {
			if again, problem := parseExchanger(key); again != key || problem != "" {
				t.Errorf("exchanger %q is %q, %s", key, again, problem)
			}
			if fits.only != IPv4 && fits.only != IPv6 || fits.line < 1 || fits.line > 1+strings.Count(text, "\n") {
				t.Errorf("%q: %v", key, fits)
			}
		}
	})
}
