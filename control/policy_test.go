package control_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/integration/must"
)

func TestMTASTS(t *testing.T) {
	for text, want := range map[string]string{"/var/cache/sts \n": "/var/cache/sts", "sts\nremark\n": "HOME/sts", "\n": "", "": ""} {
		h := home(t, files{"mtasts": text})
		s := must.Get(control.Read(h))(t)
		if want = strings.Replace(want, "HOME", h, 1); s.MTASTS != want {
			t.Errorf("%q: %q, want %q", text, s.MTASTS, want)
		}
	}
	malformed(t, files{"mtasts": " sts\n"}, "mtasts", 1, "a path without blanks")
	malformed(t, files{"mtasts": "a\x00b\n"}, "mtasts", 1, "zero byte")
}

func TestTrustResolvers(t *testing.T) {
	if s := read(t, nil); s.TrustResolvers != nil || s.MTASTS != "" {
		t.Errorf("nothing: %v, %q", s.TrustResolvers, s.MTASTS)
	}
	s := read(t, files{"trustresolvers": "# ours\n127.0.0.1 \r\n\n[::1]\n::1\n127.0.0.2:5300\n[2001:db8::1]:53\n[192.0.2.1]\n"})
	var got []string
	for _, server := range s.TrustResolvers {
		got = append(got, server.String())
	}
	if want := []string{"127.0.0.1:53", "[::1]:53", "[::1]:53", "127.0.0.2:5300", "[2001:db8::1]:53", "192.0.2.1:53"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	var many strings.Builder
	for i := range 16 {
		fmt.Fprintf(&many, "192.0.2.%d\n", i)
	}
	if s := read(t, files{"trustresolvers": many.String()}); len(s.TrustResolvers) != 16 || s.TrustResolvers[15] != netip.MustParseAddrPort("192.0.2.15:53") {
		t.Errorf("%v", s.TrustResolvers)
	}
	malformed(t, files{"trustresolvers": many.String() + "127.0.0.1\n"}, "trustresolvers", 17, "at most 16 name servers")
	malformed(t, files{"trustresolvers": ""}, "trustresolvers", 0, "at least one name server")
	malformed(t, files{"trustresolvers": "# 127.0.0.1\n\n"}, "trustresolvers", 0, "at least one name server")
	for _, entry := range []string{
		"localhost", "127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1:domain", "127.0.0.1:", "[::1", "::1]", "[]", ":53", " 127.0.0.1",
		"127.0.0.1 127.0.0.2", "127.0.0.1,127.0.0.2", "127.1", "300.0.0.1",
	} {
		malformed(t, files{"trustresolvers": "127.0.0.1\n" + entry + "\n"}, "trustresolvers", 2, "the IP address of a name server")
	}
}

// What mxf-policy reads does not depend on files that it has no use for.
func TestReadPolicy(t *testing.T) {
	h := must.Home(t, map[string]string{"mtasts": "sts\n", "trustresolvers": "127.0.0.1\n", "trustanchors": "ca/\n", "smtproutes": "malformed\n"})
	s := must.Get(control.ReadPolicy(h))(t)
	if s.Home != h || s.MTASTS != h+"/sts" || s.TrustAnchors.Dir != h+"/ca/" || len(s.TrustResolvers) != 1 {
		t.Errorf("%+v", s)
	}
	for _, file := range []string{"mtasts", "trustanchors"} {
		_, err := control.ReadPolicy(must.Home(t, map[string]string{file: " x\n"}))
		refused(t, err, file, 1, "a path")
	}
	_, err := control.ReadPolicy(must.Home(t, map[string]string{"trustresolvers": "x\n"}))
	refused(t, err, "trustresolvers", 1, "name server")
}

func TestTLSRPTSocket(t *testing.T) {
	for text, want := range map[string]string{"/run/tlsrpt/socket \n": "/run/tlsrpt/socket", "tlsrpt\nremark\n": "HOME/tlsrpt", "\n": "", "": ""} {
		h := home(t, files{"tlsrptsocket": text})
		s := must.Get(control.Read(h))(t)
		if want = strings.Replace(want, "HOME", h, 1); s.TLSRPTSocket != want {
			t.Errorf("%q: %q, want %q", text, s.TLSRPTSocket, want)
		}
	}
	longest := "/" + strings.Repeat("x", 106)
	if s := read(t, files{"tlsrptsocket": longest + "\n"}); s.TLSRPTSocket != longest {
		t.Errorf("%q", s.TLSRPTSocket)
	}
	malformed(t, files{"tlsrptsocket": longest + "x\n"}, "tlsrptsocket", 1, "at most 107 bytes, found one of 108")
	malformed(t, files{"tlsrptsocket": longest[1:] + "\n"}, "tlsrptsocket", 1, "at most 107 bytes") // below the home
	malformed(t, files{"tlsrptsocket": " x\n"}, "tlsrptsocket", 1, "a path without blanks")
}

func TestClearAfter(t *testing.T) {
	for text, want := range map[string]time.Duration{"": 0, "\n": 0, "0\n": 0, "3600 \n": time.Hour, "2147483647\n": 2147483647 * time.Second} {
		if s := read(t, files{"clearafter": text}); s.ClearAfter != want {
			t.Errorf("%q: %v", text, s.ClearAfter)
		}
	}
	if s := read(t, nil); s.ClearAfter != 0 || s.TLSRPTSocket != "" || s.TLSPolicy.ForHost("example.org") != nil {
		t.Errorf("nothing: %+v", s)
	}
	for _, text := range []string{"-1\n", "1h\n", "2147483648\n", "1.5\n"} {
		malformed(t, files{"clearafter": text}, "clearafter", 1, "a whole number of seconds")
	}
}

func TestTLSPolicyFile(t *testing.T) {
	s := read(t, files{"tlspolicy": "# ours\n\nexample.org:must \r\n"})
	if line := s.TLSPolicy.ForHost("example.org"); line == nil || line.Line != 3 || line.Level != control.TLSMust {
		t.Errorf("%+v", line)
	}
	malformed(t, files{"tlspolicy": "example.org:must\nexample.org:may\n"}, "tlspolicy", 2, "each domain")
}
