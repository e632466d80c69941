package control

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"nightmare.mail/mxf/control/domain/domaintest"
)

// goodSenders are the sender fields that are well-formed, and their one form.
var goodSenders = append([]domaintest.Name{
	{Text: "", Want: ""},
	{Text: "<>", Want: "<>"},
	{Text: "root", Want: "root"},
	{Text: "ROOT", Want: "root"},
	{Text: "Joe@Shop.Example.", Want: "joe@shop.example"},
	{Text: "@Shop.Example", Want: "@shop.example"},
	{Text: "@.Shop.Example", Want: "@.shop.example"},
	{Text: "joe@B\u00fccher.example", Want: "joe@xn--bcher-kva.example"},
	{Text: "@.b\u00fccher.example", Want: "@.xn--bcher-kva.example"},
	{Text: "J\u00d6@shop.example", Want: "j\u00d6@shop.example"}, // only ASCII has no case
	{Text: "a@b@shop.example", Want: "a@b@shop.example"},
	{Text: "@.@shop.example", Want: "@.@shop.example"},
	{Text: "@a@shop.example", Want: "@a@shop.example"},
	{Text: "joe of shop@shop.example", Want: "joe of shop@shop.example"},
	{Text: "joe@[IPv6:2001:DB8::1]", Want: "joe@[2001:db8::1]"},
	{Text: "@[192.0.2.1]", Want: "@[192.0.2.1]"},
	{Text: "shop.example", Want: "shop.example"}, // a local part, as root is
}, func() []domaintest.Name {
	var all []domaintest.Name
	for _, n := range domaintest.Good() {
		all = append(all, domaintest.Name{Text: "@" + n.Text, Want: "@" + n.Want}, domaintest.Name{Text: "X@" + n.Text, Want: "x@" + n.Want})
	}
	return all
}()...)

var badSenders = append([]string{
	"@", "joe@", "@.", "joe@.shop.example", "@.[192.0.2.1]", "<joe@shop.example>", " joe@shop.example", "joe@shop.example ", "root ", "\troot", "jo\re",
	"joe@shop..example",
}, func() []string {
	var all []string
	for _, text := range domaintest.Bad() {
		if !strings.Contains(text, "@") { // else its last domain may be good
			all = append(all, "@"+text, "x@"+text)
		}
	}
	return all
}()...)

func TestParseSender(t *testing.T) {
	for _, n := range goodSenders {
		if key, problem := parseSender(n.Text); key != n.Want || problem != "" {
			t.Errorf("%q: got %q, %q, want %q", n.Text, key, problem, n.Want)
		}
	}
	for _, text := range badSenders {
		if key, problem := parseSender(text); key != "" || !strings.HasPrefix(problem, "expected an address, @domain") {
			t.Errorf("%q: got %q, %q", text, key, problem)
		}
	}
}

// The keys of a sender are tried from the left.
func TestSenderKeys(t *testing.T) {
	for sender, want := range map[string]string{
		"":                           "<> |",
		"<>":                         "|",
		"Root":                       "root |",
		"Joe@Shop.Example":           "joe@shop.example @shop.example @.example |",
		"joe-ext=x@a.shop.example.":  "joe-ext=x@a.shop.example @a.shop.example @.shop.example @.example |",
		"a@b@shop.example":           "a@b@shop.example @shop.example @.example |",
		"@shop.example":              "@shop.example @shop.example @.example |",
		"joe@B\u00dccher.example":    "joe@xn--bcher-kva.example @xn--bcher-kva.example @.example |",
		"joe@[IPv6:2001:DB8:0:0::1]": "joe@[2001:db8::1] @[2001:db8::1] |",
		"joe@localhost":              "joe@localhost @localhost |",
		"#@[]":                       "|", // qmail's double bounces
		"joe@":                       "|",
		"joe@.shop.example":          "|",
		"joe@shop..example":          "|",
	} {
		if got := strings.Join(senderKeys(sender), " ") + "|"; got != want {
			t.Errorf("%q: got %q, want %q", sender, got, want)
		}
	}
}

func TestExchangerKeys(t *testing.T) {
	addr := netip.MustParseAddr("::ffff:192.0.2.1")
	for host, want := range map[string]string{
		"":                     "[192.0.2.1] |",
		"MX.a.example.org.":    "mx.a.example.org .a.example.org .example.org .org |",
		"b\u00fccher.example":  "xn--bcher-kva.example .example |",
		"[IPv6:2001:DB8:0::1]": "[2001:db8::1] |",
		"mx..example.org":      "|",
	} {
		if got := strings.Join(exchangerKeys(host, addr), " ") + "|"; got != want {
			t.Errorf("%q: got %q, want %q", host, got, want)
		}
	}
}

func TestFields(t *testing.T) {
	for entry, want := range map[string][]string{
		"":                                   {""},
		"a":                                  {"a"},
		"a:":                                 {"a", ""},
		":":                                  {"", ""},
		"a:b:c":                              {"a", "b", "c"},
		"[2001:db8::1]:b":                    {"[2001:db8::1]", "b"},
		"joe@[IPv6:2001:db8::1]:b":           {"joe@[IPv6:2001:db8::1]", "b"},
		"[::1]:joe@[::2]:[::3]":              {"[::1]", "joe@[::2]", "[::3]"},
		"a:joe@[::2]:b":                      {"a", "joe@[::2]", "b"},
		"jo[e@shop.example:b":                {"jo[e@shop.example", "b"},
		"[192.0.2.1]x:b":                     {"[192.0.2.1]x", "b"},
		"[192.0.2.1:b":                       {"[192.0.2.1", "b"},
		"joe@[192.0.2.1:b":                   {"joe@[192.0.2.1", "b"},
		"2001:db8::1":                        {"2001", "db8", "", "1"},
		"@shop.example:[2001:db8::1]:[::1]:": {"@shop.example", "[2001:db8::1]", "[::1]", ""},
	} {
		if got := allFields(entry); !slices.Equal(got, want) {
			t.Errorf("%q: got %q, want %q", entry, got, want)
		}
	}
	if got := fields("a:b:c:d", 3); !slices.Equal(got, []string{"a", "b", "c:d"}) {
		t.Errorf("got %q", got)
	}
}

// isSenderSuffix reports whether a key is one of @.suffix.
func isSenderSuffix(key string) bool {
	return strings.HasPrefix(key, "@.") && strings.LastIndexByte(key, '@') == 0
}

// FuzzSender wants one form of a key, and of a sender that its own key fits it first. The
// keys of a sender are such forms, each once, and the last one is that of all senders.
func FuzzSender(f *testing.F) {
	for _, n := range goodSenders {
		f.Add(n.Text)
	}
	for _, text := range badSenders {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		keys := senderKeys(text)
		if keys[len(keys)-1] != "" || slices.Index(keys, "") != len(keys)-1 {
			t.Errorf("%q: keys %q", text, keys)
		}
		key, problem := parseSender(text)
		if problem != "" {
			if key != "" {
				t.Errorf("%q: %q beside %s", text, key, problem)
			}
			return
		}
		if again, problem := parseSender(key); again != key || problem != "" {
			t.Errorf("%q: %q becomes %q, %s", text, key, again, problem)
		}
		if text != "" && text != nullSender && !isSenderSuffix(key) && keys[0] != key {
			t.Errorf("%q: key %q, and the sender's keys are %q", text, key, keys)
		}
		if text != "" && slices.Contains(keys, nullSender) {
			t.Errorf("%q is taken for the null sender", text)
		}
		if got := strings.Join(allFields(text), ":"); got != text {
			t.Errorf("%q has the fields of %q", text, got)
		}
	})
}
