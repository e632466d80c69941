package control_test

import "testing"

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
		s := read(t, files{"trace": test.value + "\n"})
		for want, hosts := range map[string][]string{"/tmp/t": test.traced, "": test.untraced} {
			for _, host := range hosts {
				if got := s.Trace.For(host); got != want {
					t.Errorf("%q: %q is traced to %q", test.value, host, got)
				}
			}
		}
	}
}

func TestTrace_beginsAtTheHome(t *testing.T) {
	s := read(t, files{"trace": "log/trace example.org\n"})
	if got := s.Trace.For("example.org"); got != s.Home+"/log/trace" {
		t.Errorf("got %q", got)
	}
}

func TestTrace_malformed(t *testing.T) {
	for value, quoted := range map[string]string{
		" /tmp/t":               `" " first`,
		"/tmp/t example..org":   "example..org",
		"/tmp/t fine.x [::1%1]": "[::1%1]",
		"/tmp/t a_b/c":          "a_b/c",
	} {
		malformed(t, files{"trace": value + "\n"}, "trace", 1, quoted)
	}
}
