package control_test

import (
	"errors"
	"strings"
	"testing"

	"nightmare.mail/mxf/control"
)

func TestTrace(t *testing.T) {
	for _, test := range []struct {
		value    string
		traced   []string
		untraced []string
	}{
		{"", nil, []string{"example.org"}},
		{"/tmp/t", []string{"example.org", "[192.0.2.1]", "no host at all", ""}, nil},
		{"/tmp/t \t", []string{"example.org"}, nil},
		{"/tmp/t example.org", []string{"example.org", "Example.ORG."}, []string{"x.example.org", "example.com", "badexample.org", "a b"}},
		{"/tmp/t .example.org\t\tEXAMPLE.com.", []string{"x.example.org", "a.b.example.org", "example.com"}, []string{"example.org", "x.example.com"}},
		{"/tmp/t b\u00fccher.example", []string{"xn--bcher-kva.example", "B\u00dcCHER.example"}, []string{"example"}},
		{"/tmp/t [2001:DB8::1] [192.0.2.1]", []string{"[IPv6:2001:db8:0::1]", "[192.0.2.1]"}, []string{"192.0.2.1", "[192.0.2.2]"}},
	} {
		h := home(t, files{"me": "me.example\n", "trace": test.value + "\n"})
		s, err := control.Read(h)
		if err != nil {
			t.Errorf("%q: %v", test.value, err)
			continue
		}
		for _, host := range test.traced {
			if got := s.Trace.For(host); got != "/tmp/t" {
				t.Errorf("%q: %q is traced to %q", test.value, host, got)
			}
		}
		for _, host := range test.untraced {
			if got := s.Trace.For(host); got != "" {
				t.Errorf("%q: %q is traced to %q", test.value, host, got)
			}
		}
	}
}

func TestTrace_beginsAtTheHome(t *testing.T) {
	h := home(t, files{"me": "me.example\n", "trace": "log/trace example.org\n"})
	if s, err := control.Read(h); err != nil || s.Trace.For("example.org") != h+"/log/trace" {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestTrace_malformed(t *testing.T) {
	for value, quoted := range map[string]string{
		" /tmp/t":               `" " first`,
		"/tmp/t example..org":   "example..org",
		"/tmp/t fine.x [::1%1]": "[::1%1]",
		"/tmp/t a_b/c":          "a_b/c",
		"/tmp/t a_b/c|s3cret":   "\"a_b/c\" and more",
		"/tmp/t me:s3cret@x/y":  "a word with an @",
	} {
		_, err := control.Read(home(t, files{"me": "me.example\n", "trace": value + "\n"}))
		var malformed *control.Error
		if !errors.As(err, &malformed) || malformed.File != "control/trace" || malformed.Line != 1 ||
			!strings.Contains(malformed.What, quoted) || strings.Contains(malformed.What, "s3cret") {
			t.Errorf("%q: %v", value, err)
		}
	}
}
