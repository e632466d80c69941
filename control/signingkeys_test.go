package control

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nightmare.mail/mxf/integration/must"
)

const someSigningKeys = `# DKIM
shop.example:s2026:keys/shop-rsa.pem
Shop.Example.:E2026:/keys/shop-ed25519.pem
.shop.example:a.b-c.d:keys/below.pem
.eu.shop.example:s:keys/eu.pem
b` + "\u00fc" + `cher.example:s:keys/idn.pem
shop.example:s3:keys/shop-3.pem
shop.example:s4:keys/shop-4.pem
`

func TestSigningKeys(t *testing.T) {
	keys := must.Get(dir{home: "/home"}.parseSigningKeys([]byte(someSigningKeys)))(t)
	for name, want := range map[string]string{
		"shop.example": "2 shop.example s2026 /home/keys/shop-rsa.pem, 3 shop.example E2026 /keys/shop-ed25519.pem, " +
			"7 shop.example s3 /home/keys/shop-3.pem, 8 shop.example s4 /home/keys/shop-4.pem",
		"SHOP.example.":         "2 shop.example s2026",
		"a.shop.example":        "4 shop.example a.b-c.d /home/keys/below.pem",
		"a.b.shop.example":      "4 shop.example a.b-c.d /home/keys/below.pem",
		"eu.shop.example":       "4 shop.example a.b-c.d /home/keys/below.pem",
		"a.eu.shop.example":     "5 eu.shop.example s /home/keys/eu.pem",
		"xn--bcher-kva.example": "6 xn--bcher-kva.example s /home/keys/idn.pem",
		"B\u00dccher.example":   "6 xn--bcher-kva.example s /home/keys/idn.pem",
		"workshop.example":      "",
		"example":               "",
		"[192.0.2.1]":           "",
		"no domain":             "",
		"":                      "",
	} {
		var got []string
		for _, k := range keys.For(name) {
			got = append(got, fmt.Sprint(k.Line, " ", k.Domain, " ", k.Selector, " ", k.Path))
		}
		if all := strings.Join(got, ", "); !strings.HasPrefix(all, want) || want == "" && all != "" {
			t.Errorf("%q: got %q, want %q", name, all, want)
		}
	}
	if empty := (SigningKeys{}); keys.Empty() || !empty.Empty() || empty.For("shop.example") != nil {
		t.Errorf("%v", empty)
	}
}

var badSigningKeys = []struct{ entry, expected string }{
	{"shop.example", "domain:selector:key, found one field"},
	{"shop.example:s", "domain:selector:key, found 2 fields"},
	{"shop.example:s:key:", "domain:selector:key, found 4 fields"},
	{":s:key", "a domain or a .suffix"},
	{".:s:key", "a domain or a .suffix"},
	{"@shop.example:s:key", "a domain or a .suffix"},
	{"[192.0.2.1]:s:key", "a domain or a .suffix"},
	{"shop..example:s:key", "a domain or a .suffix"},
	{"shop.example::key", "a selector"},
	{"shop.example:a_b:key", "a selector"},
	{"shop.example:a..b:key", "a selector"},
	{"shop.example:.a:key", "a selector"},
	{"shop.example:a.:key", "a selector"},
	{"shop.example:-a:key", "a selector"},
	{"shop.example:a-:key", "a selector"},
	{"shop.example: a:key", "a selector"},
	{"shop.example:b\u00fccher:key", "a selector"},
	{"shop.example:" + strings.Repeat("a.", 31) + "ab:key", "a selector"},
	{"shop.example:s:", "the path of a key"},
	{"shop.example:s: key", "a path without blanks before it"},
	{"shop.example:s:-----BEGIN PRIVATE KEY-----", "the path of a file"},
	{"shop.example:s:key\nShop.Example.:S:other", "each domain and selector once"},
	{".shop.example:s:key\n.shop.example:s:key", "each domain and selector once"},
	{"shop.example:a:k\nshop.example:b:k\nshop.example:c:k\n.shop.example:d:k\nshop.example:d:k\nshop.example:e:k", "at most 4 keys for one domain"},
}

func TestSigningKeys_malformed(t *testing.T) {
	for _, test := range badSigningKeys {
		text := "# first\n" + test.entry + "\n"
		_, err := dir{home: "/home"}.parseSigningKeys([]byte(text))
		isMalformed(t, text, err, "control/signingkeys", test.expected)
	}
	for _, good := range []string{"shop.example:" + strings.Repeat("a.", 31) + "a:k", "shop.example:s:k\n.shop.example:s:k"} {
		if _, err := (dir{home: "/home"}.parseSigningKeys([]byte(good))); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
}

func TestSigningKey_Read(t *testing.T) {
	home := must.Home(t, nil)
	path := func(name string) string { return filepath.Join(home, name) }
	for name, text := range map[string]string{"key": "s3cret\n", "longest": strings.Repeat("x", maxSecretFile), "long": strings.Repeat("x", maxSecretFile+1)} {
		must.Write(t, path(name), text)
		must.OK(t, os.Chmod(path(name), 0o640))
	}
	keys := must.Get(dir{home: home}.parseSigningKeys([]byte("a:s:key\nb:s:longest\nc:s:long\nd:s:missing\n")))(t)
	for name, want := range map[string]int{"a": len("s3cret\n"), "b": maxSecretFile} {
		if text := must.Get(keys.For(name)[0].Read())(t); len(text.Reveal()) != want {
			t.Errorf("%s: got %d bytes", name, len(text.Reveal()))
		}
	}
	for name, want := range map[string]string{
		"c": "control/signingkeys:3: expected a key of at most 65536 bytes, found a longer one",
		"d": "control/signingkeys:4: expected a file that can be read: no such file or directory",
	} {
		if text, err := keys.For(name)[0].Read(); !text.IsZero() || err == nil || err.Error() != want {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, err := keys.For("d")[0].Read(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	for mode := range modes {
		must.OK(t, os.Chmod(path("key"), mode))
		_, err := keys.For("a")[0].Read()
		goodMode(t, keys.For("a")[0].Place(), mode, err)
	}
}

// me is read for signingkeys alone. What nobody has as a domain stops no mail.
func TestMe(t *testing.T) {
	for _, test := range []struct{ me, keys, want string }{
		{"MX.Example.org.\n", "shop.example:s:k", "mx.example.org"},
		{"B\u00fccher.example", "shop.example:s:k", "xn--bcher-kva.example"},
		{"mx.example.org", "# none", "mx.example.org"},
		{"mx.example.org", "", "mx.example.org"},
		{"mx.example.org", "missing", ""},
		{"missing", "shop.example:s:k", ""},
		{"", "shop.example:s:k", ""},
		{"two words", "shop.example:s:k", ""},
	} {
		f := map[string]string{"helohost": "helo.example.org", "me": test.me, "signingkeys": test.keys}
		for name, text := range f {
			if text == "missing" {
				delete(f, name)
			}
		}
		if s, err := Read(must.Home(t, f)); err != nil || s.Me != test.want {
			t.Errorf("%v: got %v, %v", test, s, err)
		}
	}
	home := must.Home(t, map[string]string{"helohost": "helo.example.org", "signingkeys": "shop.example:s:k"})
	must.OK(t, os.Mkdir(filepath.Join(home, "control", "me"), 0o755))
	if _, err := Read(home); err == nil || !strings.HasPrefix(err.Error(), "control/me:0: ") {
		t.Errorf("got %v", err)
	}
}

func FuzzSigningKeys(f *testing.F) {
	f.Add(someSigningKeys)
	for _, test := range badSigningKeys {
		f.Add(test.entry)
		f.Add(someSigningKeys + test.entry)
	}
	for _, n := range goodPatterns {
		f.Add(n.Text + ":s:k")
	}
	f.Fuzz(func(t *testing.T, text string) {
		keys, err := dir{home: "/home"}.parseSigningKeys([]byte(text))
		if err != nil {
			checkError(t, err, "control/signingkeys", []byte(text))
			return
		}
		for pattern, all := range keys.domains {
			if again, err := parsePattern(pattern); again != pattern || err != nil || pattern == "" || len(all) == 0 || len(all) > 4 {
				t.Errorf("%q: %v, %v", pattern, all, err)
			}
			selectors := map[string]bool{}
			for _, k := range all {
				selectors[strings.ToLower(k.Selector)] = true
				if k.Domain != strings.TrimPrefix(pattern, ".") || !filepath.IsAbs(k.Path) || k.Line < 1 || k.Line > 1+strings.Count(text, "\n") ||
					k.Selector == "" || len(k.Selector) > 63 || strings.Trim(strings.ToLower(k.Selector), "abcdefghijklmnopqrstuvwxyz0123456789-.") != "" {
					t.Errorf("%q: %v", pattern, k)
				}
			}
			if len(selectors) != len(all) {
				t.Errorf("%q: %v", pattern, all)
			}
		}
	})
}
