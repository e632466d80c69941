package smtpc

import (
	"strings"
	"testing"

	"nightmare.mail/mxf/control/domain"
	"nightmare.mail/mxf/control/domain/domaintest"
)

var goodAddresses = []struct {
	raw, wire string
	utf8      bool
}{
	{"", "", false},
	{"postmaster", "postmaster", false},
	{"a b", "a b", false}, // no @: as it is
	{"a@example.org", "a@example.org", false},
	{"a.b@example.org", "a.b@example.org", false},
	{"a+b=c#{x}@example.org", "a+b=c#{x}@example.org", false},
	{"a b@x", `"a b"@x`, false},
	{`a"b@x`, `"a\"b"@x`, false},
	{`a\b@x`, `"a\\b"@x`, false},
	{`"a b"@x`, `"\"a b\""@x`, false}, // qmail's addresses are not quoted
	{"a@b@x", `"a@b"@x`, false},
	{"@x", `""@x`, false},
	{".a@x", `".a"@x`, false},
	{"a.@x", `"a."@x`, false},
	{"a..b@x", `"a..b"@x`, false},
	{"a>b@x", `"a>b"@x`, false},
	{"a@[192.0.2.1]", "a@[192.0.2.1]", false},
	{"a@host_name.example", "a@host_name.example", false},
	{"jos\u00e9@example.org", "jos\u00e9@example.org", true},
	{"jos\u00e9 p@example.org", "\"jos\u00e9 p\"@example.org", true},
	{"jos\u00e9@b\u00fccher.example", "jos\u00e9@xn--bcher-kva.example", true},
	{"\xff@example.org", "\xff@example.org", true},
	{"\u00e9", "\u00e9", true},
}

var badAddresses = []string{
	"a\n@x",                // a command of its own
	"a\r\nDATA\r\n@x",      // likewise
	"a@x\r\nRCPT TO:<b@x>", // in the domain
	"a\x00@x",              // qmail's own separator
	"a\t@x",                // any other
	"a\x7f@x",              // DEL
	"\n",                   // without @
	"a@x> SIZE=1",          // a parameter of MAIL
	"a@<x",                 // a path
	"x> BODY=7BIT",         // without @
	"a@b\u00fc cher.example",
}

func TestAddresses(t *testing.T) {
	for _, c := range goodAddresses {
		a, err := parseAddress(c.raw, false)
		if err != nil || a.text != c.wire || a.utf8 != c.utf8 {
			t.Errorf("address %q: %q, utf8 %v, error %v; want %q, %v", c.raw, a.text, a.utf8, err, c.wire, c.utf8)
		}
	}
	for _, raw := range badAddresses {
		if a, err := parseAddress(raw, false); err == nil {
			t.Errorf("address %q: %q", raw, a.text)
		}
	}
}

// The domains that are good for HOST are good for recipients. In ASCII any is: the
// server judges it as it is spelled.
func TestAddresses_domains(t *testing.T) {
	for _, n := range domaintest.ASCII {
		if a, err := parseAddress("a@"+n.Text, false); err != nil || a.text != "a@"+n.Text {
			t.Errorf("domain %q: %q, error %v", n.Text, a.text, err)
		}
	}
	for _, n := range domaintest.Unicode {
		if a, err := parseAddress("a@"+n.Text, false); err != nil || a.text != "a@"+n.Want || a.utf8 {
			t.Errorf("domain %q: %q, utf8 %v, error %v; want %q", n.Text, a.text, a.utf8, err, n.Want)
		}
	}
	for _, text := range domaintest.BadUnicode {
		if a, err := parseAddress("a@"+text, false); err == nil {
			t.Errorf("domain %q: %q", text, a.text)
		}
	}
}

func TestQuotedAddressesAreSentAsTheyAre(t *testing.T) {
	for _, raw := range []string{"", `"a b"@x`, "a@b\u00fccher.example", "a b@x", `"a>b"@x`} {
		if a, err := parseAddress(raw, true); err != nil || a.text != raw {
			t.Errorf("address %q: %q, error %v", raw, a.text, err)
		}
	}
	if _, err := parseAddress("a\n@x", true); err == nil {
		t.Error("a line end was let through")
	}
}

// unquote is what a server makes of a local part.
func unquote(t *testing.T, local string) string {
	if !strings.HasPrefix(local, `"`) {
		return local
	}
	if len(local) < 2 || !strings.HasSuffix(local, `"`) {
		t.Fatalf("local part %q does not end its quotes", local)
	}
	var out []byte
	for inner := local[1 : len(local)-1]; inner != ""; inner = inner[1:] {
		if inner[0] == '"' {
			t.Fatalf("local part %q has a bare quote", local)
		}
		if inner[0] == '\\' {
			if inner = inner[1:]; inner == "" {
				t.Fatalf("local part %q ends in a backslash", local)
			}
		}
		out = append(out, inner[0])
	}
	return string(out)
}

func FuzzAddress(f *testing.F) {
	for _, c := range goodAddresses {
		f.Add(c.raw)
	}
	for _, raw := range badAddresses {
		f.Add(raw)
	}
	for _, n := range domaintest.Unicode {
		f.Add("a@" + n.Text)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		a, err := parseAddress(raw, false)
		if err != nil {
			return
		}
		if hasControl(a.text) {
			t.Fatalf("address %q: control byte in %q", raw, a.text)
		}
		at := strings.LastIndexByte(a.text, '@')
		if at < 0 {
			if a.text != raw {
				t.Fatalf("address %q became %q", raw, a.text)
			}
			return
		}
		if strings.ContainsAny(a.text[at:], "<> ") || !domain.IsASCII(a.text[at:]) {
			t.Fatalf("address %q: domain of %q", raw, a.text)
		}
		if got, want := unquote(t, a.text[:at]), raw[:strings.LastIndexByte(raw, '@')]; got != want {
			t.Fatalf("address %q: a server reads the local part as %q", raw, got)
		}
	})
}
