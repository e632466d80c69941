package control

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"nightmare.mail/mxf/control/domain/domaintest"
	"nightmare.mail/mxf/integration/must"
)

var goodRelays = []struct {
	relay string
	want  Relay
}{
	{"", Relay{}},
	{"relay", Relay{Host: "relay"}},
	{"Relay.Example.ORG", Relay{Host: "Relay.Example.ORG"}},
	{"relay.example.org:26", Relay{Host: "relay.example.org", Port: 26}},
	{"relay:1", Relay{Host: "relay", Port: 1}},
	{"relay:65535", Relay{Host: "relay", Port: 65535}},
	{"relay:0026", Relay{Host: "relay", Port: 26}},
	{"b\u00fccher.example:26", Relay{Host: "xn--bcher-kva.example", Port: 26}},
	{"192.0.2.1", Relay{Addr: netip.MustParseAddr("192.0.2.1")}},
	{"192.0.2.1:26", Relay{Addr: netip.MustParseAddr("192.0.2.1"), Port: 26}},
	{"[192.0.2.1]:26", Relay{Addr: netip.MustParseAddr("192.0.2.1"), Port: 26}},
	{"[2001:db8::25]:26", Relay{Addr: netip.MustParseAddr("2001:db8::25"), Port: 26}},
	{"[IPv6:2001:DB8:0::25]:26", Relay{Addr: netip.MustParseAddr("2001:db8::25"), Port: 26}},
}

var badRelays = []struct{ relay, expected string }{
	{"relay:", "a port"},             // none
	{"relay:0", "a port"},            // out of range
	{"relay:65536", "a port"},        // out of range
	{"relay:-1", "a port"},           // sign
	{"relay:smtp", "a port"},         // name
	{"relay: 26", "a port"},          // blank
	{"relay:26:27", "a port"},        // one too many
	{"relay:26 # comment", "a port"}, // comments have their own line
	{"2001:db8::25", "an IPv6 address stands in brackets: [2001:"}, // no brackets
	{"::1", "in brackets: [::1]"},                                  // no brackets
	{":", "a port"},                                                // neither
	{":26", "no port where there is no relay"},                     // a port of nothing
	{"two relays", "a host name"},                                  // blank
	{"relay\texample", "a host name"},                              // blank
	{".example.org", "a host name"},                                // empty label
	{"192.0.2.256", "a host name"},                                 // no address, no name
	{"192.0.2", "a host name"},                                     // no address, no name
	{"10", "a host name"},                                          // no address, no name
	{"192.0.2.1.", "a host name"},                                  // no address, no name
	{"[192.0.2.1]26", "an address in brackets"},                    // no colon
	{"[2001:db8::25]:", "a port"},                                  // none
	{"[2001:db8::25]:0", "a port"},                                 // out of range
}

func TestParseRelay(t *testing.T) {
	for _, test := range goodRelays {
		if got, problem := parseRelay(test.relay); problem != "" || got != test.want {
			t.Errorf("%q: got %+v, %q, want %+v", test.relay, got, problem, test.want)
		}
	}
	for _, n := range domaintest.Good() {
		got, problem := parseRelay(n.Text)
		if problem != "" || strings.ToLower(whither(&got)) != strings.Trim(n.Want, "[]") {
			t.Errorf("%q: got %+v, %q, want %q", n.Text, got, problem, n.Want)
		}
	}
	for _, test := range badRelays {
		got, problem := parseRelay(test.relay)
		if !strings.HasPrefix(problem, "expected ") || !strings.Contains(problem, test.expected) || got != (Relay{}) {
			t.Errorf("%q: got %+v, %q, want %q", test.relay, got, problem, test.expected)
		}
	}
	for _, relay := range domaintest.Bad() {
		expected := "expected a host name"
		if relay[0] == '[' {
			expected = "expected an address in brackets"
		}
		if got, problem := parseRelay(relay); !strings.HasPrefix(problem, expected) || got != (Relay{}) {
			t.Errorf("%q: got %+v, %q, want %q", relay, got, problem, expected)
		}
	}
}

// goodPatterns are spellings of a route's pattern, and their one form.
var goodPatterns = append([]domaintest.Name{
	{Text: "", Want: ""},
	{Text: ".example.com", Want: ".example.com"},
	{Text: ".COM", Want: ".com"},
	{Text: ".example.com.", Want: ".example.com"},
	{Text: ".B\u00fccher.example", Want: ".xn--bcher-kva.example"},
}, domaintest.Good()...)

var badPatterns = append([]string{
	".example-",    // a hyphen at a label's edge
	".[192.0.2.1]", // a suffix of an address
}, domaintest.Bad()...)

func TestPatterns(t *testing.T) {
	for _, n := range goodPatterns {
		if got, err := parsePattern(n.Text); err != nil || got != n.Want {
			t.Errorf("%q: got %q, %v, want %q", n.Text, got, err, n.Want)
		}
		host := n.Want
		if host == "" || host[0] == '.' {
			host = "x" + host // a suffix matches what ends with it
		}
		if relay, err := table(t, n.Text+":relay.example.org:26").Lookup(host); err != nil || relay == nil || relay.Port != 26 {
			t.Errorf("%q does not match %q: %v, %v", n.Text, host, relay, err)
		}
	}
	for _, pattern := range badPatterns {
		if got, err := parsePattern(pattern); err == nil {
			t.Errorf("%q: got %q", pattern, got)
		}
		what := "expected a domain"
		if strings.ContainsAny(pattern, " \t|") {
			what = "expected a route without blanks"
		}
		if pattern[0] == '[' && strings.IndexByte(pattern, ']') != len(pattern)-1 {
			what = "expected domain:relay" // where the domain ends is not clear
		}
		_, err := parseTable(pattern + ":relay")
		var e *Error
		if !errors.As(err, &e) || e.Line != 1 || !strings.HasPrefix(e.What, what) {
			t.Errorf("%q: got %v", pattern, err)
		}
	}
	for _, line := range []string{"example.com", "[192.0.2.1", "[192.0.2.1]", "[192.0.2.1]relay", "[192.0.2.1] :relay", "[2001:db8::1", "x", "relay 26"} {
		what := "domain:relay or domain:relay:port"
		if strings.Contains(line, " ") {
			what = "expected a route without blanks"
		}
		if _, err := parseTable(line); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%q: got %v", line, err)
		}
	}
}

// parseTable reads a short table.
func parseTable(text string) (*Routes, error) {
	r := &Routes{dir: dir{home: "/home"}, file: "smtproutes", data: []byte(text)}
	if err := r.dir.checkLines(r.file, r.data, 0); err != nil {
		return nil, err
	}
	var c checker
	err := c.check(r, r.data, 0)
	r.unicode = c.unicode
	return r, err
}

func table(t testing.TB, text string) *Routes {
	t.Helper()
	return must.Get(parseTable(text))(t)
}

func TestLookup(t *testing.T) {
	const text = `# artificial routes
example.com:exact.example.org
.example.com:suffix.example.org:26
.sub.example.com:longer.example.org

.com:tld.example.org
shielded.example.net:
.example.net:net.example.org
.shielded.example.net:
[192.0.2.1]:v4.example.org
[IPv6:2001:DB8:0::1]:[2001:db8::25]:26
twice.example:first.example.org
Twice.Example:second.example.org
not.example.com:192.0.2.25
` + "blanks.example:blanks.example.org \t\r\n"
	for _, all := range []string{"", ":all.example.org:587\n"} {
		r := table(t, text+all)
		for _, test := range []struct {
			domain, relay string
			port          uint16
			line          int
		}{
			{"example.com", "exact.example.org", 0, 2},
			{"www.example.com", "suffix.example.org", 26, 3},
			{"a.b.example.com", "suffix.example.org", 26, 3},
			{"sub.example.com", "suffix.example.org", 26, 3}, // .sub.example.com needs something before its dot
			{"x.sub.example.com", "longer.example.org", 0, 4},
			{"notexample.com", "tld.example.org", 0, 6},
			{"not.example.com", "192.0.2.25", 0, 14}, // exact, though a suffix matches
			{"shielded.example.net", "", 0, 7},
			{"x.shielded.example.net", "", 0, 9},
			{"other.example.net", "net.example.org", 0, 8},
			{"[192.0.2.1]", "v4.example.org", 0, 10},
			{"[2001:db8::1]", "2001:db8::25", 26, 11},
			{"twice.example", "second.example.org", 0, 13}, // the last line wins, as in qmail
			{"blanks.example", "blanks.example.org", 0, 15},
			{"com", "all", 0, 0},
			{"example.net", "all", 0, 0},
			{"example.org", "all", 0, 0},
			{"example.com.example.org", "all", 0, 0},
			{"[192.0.2.11]", "all", 0, 0},
			{"192.0.2.1", "all", 0, 0},
		} {
			if test.relay == "all" {
				test.relay, test.port, test.line = "all.example.org", 587, 16
				if all == "" {
					test.line = 0
				}
			}
			relay := must.Get(r.Lookup(test.domain))(t)
			if test.line == 0 {
				if relay != nil {
					t.Errorf("%s: got %+v, want none", test.domain, relay)
				}
				continue
			}
			if relay == nil || relay.Wildcard != (test.line == 16) || relay.Line != test.line || relay.Port != test.port || whither(relay) != test.relay {
				t.Errorf("%s: got %+v, want %q port %d line %d", test.domain, relay, test.relay, test.port, test.line)
			}
		}
	}
}

func whither(r *Relay) string {
	if r.Addr.IsValid() {
		return r.Addr.String()
	}
	return r.Host
}

// Other files know a relay by its name.
func TestRelayName(t *testing.T) {
	for text, want := range map[string]string{
		"": "", "Relay.Example.ORG.:26": "relay.example.org", "B\u00fccher.example": "xn--bcher-kva.example", "192.0.2.1": "192.0.2.1",
		"[192.0.2.1]:26": "192.0.2.1", "[IPv6:2001:DB8:0::1]": "2001:db8::1", "[::ffff:192.0.2.1]": "192.0.2.1",
	} {
		relay, problem := parseRelay(text)
		if got := relay.Name(); got != want || problem != "" {
			t.Errorf("%q: got %q, %q, want %q", text, got, problem, want)
		}
	}
}

func TestNilAndEmptyRoutesHaveNothing(t *testing.T) {
	for _, r := range []*Routes{nil, {}, table(t, ""), table(t, "\n# nothing\n \n")} {
		if relay, err := r.Lookup("example.com"); relay != nil || err != nil {
			t.Errorf("got %v, %v", relay, err)
		}
	}
}

// long returns a table that is longer than MaxFile and ends with line.
func long(line string) string {
	var b strings.Builder
	for i := 0; b.Len() <= MaxFile; i++ {
		fmt.Fprintf(&b, "domain%d.example:relay%d.example.org\n", i, i%7)
	}
	return b.String() + line
}

func writeRoutes(t testing.TB, text string) dir {
	t.Helper()
	d := dir{home: t.TempDir()}
	must.Write(t, d.name("smtproutes"), text)
	return d
}

func TestLongTable(t *testing.T) {
	text := long("last.example:last.example.org:26") // no newline
	lines := strings.Count(text, "\n") + 1
	r := must.Get(writeRoutes(t, text).readRoutes("smtproutes"))(t)
	if r.data != nil {
		t.Error("a long table is in memory")
	}
	for domain, want := range map[string]*Relay{
		"domain0.example":    {Host: "relay0.example.org", Line: 1},
		"domain9000.example": {Host: "relay5.example.org", Line: 9001},
		"last.example":       {Host: "last.example.org", Port: 26, Line: lines},
		"none.example":       nil,
	} {
		if relay, err := r.Lookup(domain); err != nil || !reflect.DeepEqual(relay, want) {
			t.Errorf("%s: got %+v, %v, want %+v", domain, relay, err, want)
		}
	}
	for line, what := range map[string]string{
		"last.example\n":                             "domain:relay",
		"last.example:relay:smtp\n":                  "a port",
		"last.\x00example:relay\n":                   "zero byte",
		"# " + strings.Repeat("x", MaxLine) + "\n":   "at most 4096 bytes",
		"# " + strings.Repeat("x", MaxLine):          "at most 4096 bytes",
		"# " + strings.Repeat("x", 2*blockSize):      "at most 4096 bytes",
		"*:" + strings.Repeat("x", MaxLine-2) + "\n": "a domain",
	} {
		_, err := writeRoutes(t, long(line)).readRoutes("smtproutes")
		var e *Error
		if !errors.As(err, &e) || e.Line != lines || !strings.Contains(e.What, what) {
			t.Errorf("%.20q: got %v, want line %d: %s", line, err, lines, what)
		}
	}
}

func TestLongTableThatChanged(t *testing.T) {
	d := writeRoutes(t, long("last.example:old.example.org\n"))
	r := must.Get(d.readRoutes("smtproutes"))(t)
	must.Write(t, d.name("smtproutes"), long("last.example:newer.example.org\n"))
	if relay := must.Get(r.Lookup("last.example"))(t); relay == nil || relay.Host != "newer.example.org" {
		t.Errorf("got %v", relay)
	}
	must.Write(t, d.name("smtproutes"), "short.example:relay\n")
	if relay := must.Get(r.Lookup("short.example"))(t); relay == nil || relay.Host != "relay" {
		t.Errorf("got %v", relay)
	}
	must.Write(t, d.name("smtproutes"), long("last.example:old:example\n"))
	var e *Error
	if relay, err := r.Lookup("domain0.example"); relay != nil || !errors.As(err, &e) || !strings.Contains(e.What, "a port") {
		t.Errorf("got %v, %v", relay, err)
	}
	must.OK(t, os.Remove(d.name("smtproutes")))
	if relay, err := r.Lookup("domain0.example"); relay != nil || !errors.As(err, &e) || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, %v", relay, err)
	}
}

func TestOneTableManyLookups(t *testing.T) {
	d := writeRoutes(t, long("last.example:last.example.org\n"))
	r := must.Get(d.readRoutes("smtproutes"))(t)
	must.Write(t, d.name("smtproutes"), long("last.example:other.example.org\n"))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if relay, err := r.Lookup("last.example"); err != nil || relay == nil {
				t.Errorf("got %v, %v", relay, err)
			}
		})
	}
	wg.Wait()
}

// reference does what Routes does in the obvious way.
func reference(text, domain string) (relay *Relay, bad int) {
	routes := map[string]Relay{}
	for i, line := range strings.Split(text, "\n") {
		if len(line) > MaxLine || strings.Contains(line, "\x00") {
			return nil, i + 1
		}
		line = strings.TrimRight(line, " \t\r")
		if line == "" || line[0] == '#' {
			continue
		}
		colon := strings.Index(line, ":")
		if line[0] == '[' {
			if colon = strings.Index(line, "]:") + 1; colon == 0 || strings.Index(line, "]") != colon-1 {
				return nil, i + 1
			}
		}
		if colon < 0 {
			return nil, i + 1
		}
		pattern, err := parsePattern(line[:colon])
		relay, problem := parseRelay(line[colon+1:])
		if err != nil || problem != "" {
			return nil, i + 1
		}
		relay.Line = i + 1
		routes[pattern] = relay
	}
	keys := []string{domain}
	for i := 1; i < len(domain); i++ {
		if domain[i] == '.' && domain[0] != '[' {
			keys = append(keys, domain[i:])
		}
	}
	for _, key := range append(keys, "") {
		if relay, ok := routes[key]; ok {
			relay.Wildcard = key == ""
			return &relay, 0
		}
	}
	return nil, 0
}

// seedRoutes calls add for each table of this file, with a domain.
func seedRoutes(add func(text, domain string)) {
	var all strings.Builder
	for _, n := range goodPatterns {
		add(n.Text+":relay\n", n.Want)
		add(n.Text+":relay\n", "x"+n.Want)
		all.WriteString(n.Text + ":relay." + fmt.Sprint(len(n.Text)) + ".example\n")
	}
	for _, n := range goodPatterns {
		add(all.String(), n.Want)
		add(all.String()+"# end", "www"+n.Want)
	}
	for _, s := range badPatterns {
		add(s+":relay", "example.com")
		add("example.com:relay\n\n"+s+":relay\r\n", "example.com")
	}
	for _, test := range goodRelays {
		add("example.com:"+test.relay, "example.com")
		add(".com:relay\nexample.com:"+test.relay+" \n\n[2001:db8::1]:"+test.relay, "example.com")
		add("[2001:db8::1]:"+test.relay, "[2001:db8::1]")
	}
	for _, test := range badRelays {
		add("example.com:"+test.relay, "example.com")
		add("# a comment\n\n.com:relay\n.com:"+test.relay+"\n", "example.com")
	}
	add("b\u00fccher.example:relay\n.B\u00dcCHER.example:relay2", "xn--bcher-kva.example")
	add(strings.Repeat("x", MaxLine)+"\n", "x")
	add("#"+strings.Repeat("x", MaxLine)+"\n", "x")
	add("a:b\n\x00:\n", "a")
}

func checkAgainstReference(t *testing.T, text, domain string) {
	if d, err := parsePattern(domain); err != nil || d != domain || strings.HasPrefix(d, ".") {
		return // the router never asks for it
	}
	want, bad := reference(text, domain)
	r, err := parseTable(text)
	if err != nil {
		checkError(t, err, "control/smtproutes", []byte(text))
	}
	var e *Error
	if bad != 0 && !errors.As(err, &e) || bad == 0 && err != nil {
		t.Fatalf("%q: got %v, want line %d", text, err, bad)
	}
	// Zero bytes and long lines are found before anything else.
	if e != nil && e.Line != bad && !strings.Contains(e.What, "zero byte") && !strings.Contains(e.What, "bytes, found a longer") {
		t.Fatalf("%q: got %v, want line %d", text, err, bad)
	}
	checkPieces(t, text, domain, want, bad)
	if bad != 0 {
		return
	}
	if got, err := r.Lookup(domain); err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("%q, %q: got %+v, %v, want %+v", text, domain, got, err, want)
	}
}

// checkPieces wants the same of a table in pieces as of a short one.
func checkPieces(t *testing.T, text, domain string, want *Relay, bad int) {
	r := &Routes{file: "smtproutes"}
	var c checker
	s := search{host: domain, rank: -1, unicode: true}
	err := r.pieces(iotest.HalfReader(strings.NewReader(text)), make([]byte, MaxLine+1), func(block []byte, before int) error {
		if err := c.check(r, block, before); err != nil {
			return err
		}
		s.block(block, before)
		return nil
	})
	if bad != 0 {
		if err == nil {
			t.Fatalf("%q in pieces: no error, want line %d", text, bad)
		}
		return
	}
	if err != nil {
		t.Fatalf("%q in pieces: %v", text, err)
	}
	if want == nil && s.rank >= 0 || want != nil && s.line != want.Line {
		t.Fatalf("%q in pieces, %q: line %d, want %+v", text, domain, s.line, want)
	}
}

// FuzzRoutes compares with the obvious way.
func FuzzRoutes(f *testing.F) {
	seedRoutes(func(text, domain string) { f.Add(text, domain) })
	f.Fuzz(func(t *testing.T, text, domain string) {
		checkAgainstReference(t, text, domain)
	})
}

// TestEveryShortTable compares with the obvious way for all tables of up to three of
// these lines. Each can match a.b.c in some manner, or is malformed.
func TestEveryShortTable(t *testing.T) {
	lines := []string{"", "# a.b.c:r", "a.b.c:r1", "A.B.C.:r2", ".b.c:r3", ".B.c:", ".c:r5:5", ":r6", ".a.b.c:r7", "b.c:r8", ".b.c"}
	for _, a := range lines {
		for _, b := range lines {
			for _, c := range lines {
				text := a + "\n" + b + "\r\n" + c
				for _, domain := range []string{"a.b.c", "x.a.b.c"} {
					checkAgainstReference(t, text, domain)
				}
			}
		}
	}
}

func TestReadErrorInALongTable(t *testing.T) {
	r := &Routes{file: "smtproutes"}
	broken := iotest.TimeoutReader(bytes.NewReader(bytes.Repeat([]byte(":relay\n"), 100)))
	err := r.pieces(iotest.OneByteReader(broken), make([]byte, MaxLine+1), func([]byte, int) error { return nil })
	if !errors.Is(err, iotest.ErrTimeout) || !strings.HasPrefix(err.Error(), "control/smtproutes:0: expected a file that can be read") {
		t.Errorf("got %v", err)
	}
}
