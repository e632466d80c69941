package remote

import (
	"errors"
	"strings"
	"testing"

	"nightmare.mail/mxf/remote/report"
)

var goodHosts = []struct{ text, name string }{
	{"example.org", "example.org"},
	{"EXAMPLE.Org", "example.org"},
	{"example.org.", "example.org"}, // one final dot is DNS for "from the root"
	{"org", "org"},
	{"a_b._c.example.org", "a_b._c.example.org"},
	{"r3---sn-x.example.org", "r3---sn-x.example.org"},
	{"192.0.2.1", "192.0.2.1"}, // a domain, for routes and the DNS to judge
	{"xn--mnchen-3ya.example", "xn--mnchen-3ya.example"},
	{"münchen.example", "xn--mnchen-3ya.example"},
	{"MÜNCHEN.example", "xn--mnchen-3ya.example"},
	{"mu\u0308nchen.example", "xn--mnchen-3ya.example"}, // not composed
	{"faß.example", "xn--fa-hia.example"},               // non-transitional: not fass
	{"例え。テスト", "xn--r8jz45g.xn--zckzah"},                // an ideographic full stop
	{"ＥＸＡＭＰＬＥ.org", "example.org"},
	{strings.Repeat("a.", 126) + "a", strings.Repeat("a.", 126) + "a"}, // 253 bytes
	{strings.Repeat("a", 63) + ".org", strings.Repeat("a", 63) + ".org"},

	{"[192.0.2.1]", "[192.0.2.1]"},
	{"[IPv6:2001:db8::1]", "[2001:db8::1]"},
	{"[ipv6:2001:DB8:0::1]", "[2001:db8::1]"},
	{"[2001:db8::1]", "[2001:db8::1]"},
	{"[::ffff:192.0.2.1]", "[192.0.2.1]"},
	{"[IPv6:::ffff:192.0.2.1]", "[192.0.2.1]"},
	{"[::]", "[::]"},
}

var badHosts = []string{
	"", ".", "..", ".example.org", "example..org", "example.org..",
	"-a.example.org", "a-.example.org",
	"a b.example.org", "a\tb", "exam\\ple.org", "example.org:25", "a/b", "*.example.org", "user@example.org",
	strings.Repeat("a", 64) + ".org",
	strings.Repeat("a.", 127) + "a", // 255 bytes
	"\xff.example.org",              // not UTF-8
	"a\u200db.example",              // a joiner out of place
	"\u202eexample.org",             // a change of direction
	"א1a.example",                   // mixed directions (RFC 5893)
	strings.Repeat("ü", 60) + ".org",
	strings.Repeat("ü", 600),
	"[", "[]", "]", "[192.0.2.1", "192.0.2.1]", "[192.0.2.256]", "[192.0.2]", "[192.000.2.1]", "[ 192.0.2.1]",
	"[IPv6:]", "[IPv6:192.0.2.1]", "[IPv6:2001:db8::1", "[2001:db8::1%eth0]", "[IPv4:192.0.2.1]", "[x:y]", "[[192.0.2.1]]",
	"[example.org]", "[192.0.2.1].example.org", "2001:db8::1",
}

func TestParseHost(t *testing.T) {
	for _, c := range goodHosts {
		host, err := ParseHost(c.text)
		if err != nil || host.Name != c.name {
			t.Errorf("%q: %q, %v; want %q", c.text, host.Name, err, c.name)
		}
		if literal := strings.HasPrefix(c.text, "["); literal != host.Addr.IsValid() {
			t.Errorf("%q: address %v", c.text, host.Addr)
		}
	}
	for _, text := range badHosts {
		host, err := ParseHost(text)
		var e *report.Error
		if !errors.As(err, &e) || e.Case != report.NoSuchHost || e.Facts.Host != text {
			t.Errorf("%q: %+v, %v", text, host, err)
		}
	}
	for _, text := range []string{"a\x00b", "example.org\r", "\nexample.org", "[192.0.2.1]\n"} {
		_, err := ParseHost(text)
		var e *report.Error
		if !errors.As(err, &e) || e.Case != report.BadHost {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func FuzzParseHost(f *testing.F) {
	for _, c := range goodHosts {
		f.Add(c.text)
	}
	for _, text := range badHosts {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		host, err := ParseHost(text)
		if err != nil {
			return
		}
		if strings.ContainsAny(host.Name, "\x00\r\n ") || len(host.Name) > 253 || host.Name != strings.ToLower(host.Name) {
			t.Errorf("%q: name %q", text, host.Name)
		}
		if host.Addr.IsValid() && (host.Addr.Is4In6() || host.Name != "["+host.Addr.String()+"]") {
			t.Errorf("%q: %q is not %v", text, host.Name, host.Addr)
		}
		again, err := ParseHost(host.Name)
		if err != nil || again != host {
			t.Errorf("%q: %q becomes %+v, %v", text, host.Name, again, err)
		}
	})
}

func TestTargetName(t *testing.T) {
	for target, want := range map[string]string{
		"mx.example.org.":    "mx.example.org",
		"MX.Example.ORG.":    "MX.Example.ORG",
		"mx_1.example.org.":  "mx_1.example.org",
		"localhost.":         "localhost",
		".":                  "",
		"192.0.2.1.":         "",
		"[192.0.2.1].":       "",
		"\\091192.0.2.1.":    "",
		"2001:db8::1.":       "",
		"mx.10.":             "",
		"a\\032b.example.":   "",
		"a\\.b.example.":     "",
		"a\\000b.example.":   "",
		"mx\\195\\188.test.": "",
		"-mx.example.org.":   "",
		"*.example.org.":     "",
	} {
		name, ok := targetName(target)
		if ok != (want != "") || ok && name != want {
			t.Errorf("%q: %q, %v; want %q", target, name, ok, want)
		}
	}
}
