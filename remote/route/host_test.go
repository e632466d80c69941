package route

import (
	"errors"
	"strings"
	"testing"

	"nightmare.mail/mxf/control/domain/domaintest"
)

// badHosts are bad for HOST alone: routes read them in another way.
var badHosts = append([]string{"", ".example.org", "example.org:25", "2001:db8::1"}, domaintest.Bad()...)

func TestParseHost(t *testing.T) {
	for _, n := range domaintest.Good() {
		host, err := ParseHost(n.Text)
		if err != nil || host.String() != n.Want {
			t.Errorf("%q: %q, %v; want %q", n.Text, host.String(), err, n.Want)
		}
		if literal := strings.HasPrefix(n.Text, "["); literal != host.Addr().IsValid() {
			t.Errorf("%q: address %v", n.Text, host.Addr())
		}
	}
	for _, text := range badHosts {
		host, err := ParseHost(text)
		var e *Error
		if !errors.As(err, &e) || e.Kind != NoSuchHost || e.Host != text {
			t.Errorf("%q: %q, %v", text, host, err)
		}
	}
	for _, text := range []string{"a\x00b", "example.org\r", "\nexample.org", "[192.0.2.1]\n"} {
		_, err := ParseHost(text)
		var e *Error
		if !errors.As(err, &e) || e.Kind != BadHost {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func FuzzParseHost(f *testing.F) {
	for _, n := range domaintest.Good() {
		f.Add(n.Text)
	}
	for _, text := range badHosts {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		host, err := ParseHost(text)
		if err != nil {
			return
		}
		if strings.ContainsAny(host.String(), "\x00\r\n ") || len(host.String()) > 253 || host.String() != strings.ToLower(host.String()) {
			t.Errorf("%q: name %q", text, host.String())
		}
		if host.Addr().IsValid() && (host.Addr().Is4In6() || host.String() != "["+host.Addr().String()+"]") {
			t.Errorf("%q: %q is not %v", text, host.String(), host.Addr())
		}
		again, err := ParseHost(host.String())
		if err != nil || again != host {
			t.Errorf("%q: %q becomes %q, %v", text, host.String(), again, err)
		}
	})
}
