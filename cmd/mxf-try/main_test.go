package main

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/integration/lab"
	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/remote"
	"nightmare.mail/mxf/remote/policy"
	"nightmare.mail/mxf/remote/route"
)

func TestParse(t *testing.T) {
	file := filepath.Join(t.TempDir(), "message")
	must.OK(t, os.WriteFile(file, []byte("x\n"), 0o600))
	good := [][]string{{}, {"-v"}, {file}, {"-v", file}, {"--", file}, {"-v", "--", file}}
	bad := [][]string{{"-x"}, {file, file}, {file, "-v"}, {"--verbose"}, {file + "x"}}
	for i, args := range append(good, bad...) {
		if _, err := parse(args); (err == nil) != (i < len(good)) {
			t.Errorf("%q: %v", args, err)
		}
	}
}

func TestPrintable_isFitForATerminal(t *testing.T) {
	for _, test := range []struct{ in, want string }{
		{"plain Grüße", "plain Grüße"},
		{"caf\xe9 \x1b[2J\t", `caf\xe9 \x1b[2J\x09`},
		{strings.Repeat("é", 2*maxLineRunes), strings.Repeat("é", maxLineRunes) + "..."},
		{strings.Repeat("x", maxLineRunes), strings.Repeat("x", maxLineRunes)},
	} {
		if got := printable(test.in); got != test.want {
			t.Errorf("%q: %q, want %q", test.in, got, test.want)
		}
	}
}

func TestFold(t *testing.T) {
	for _, test := range []struct {
		in   string
		want []string
	}{
		{"", []string{""}},
		{"one two three", []string{"one two", "three"}},
		{"one two   three", []string{"one two", "three"}},
		{"ninechars", []string{"ninechar", "s"}},
		{"  ninechars x", []string{"  ninech", "ars x"}},
		{"\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9", []string{"\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9"}},
	} {
		if got := fold(test.in, 8); !slices.Equal(got, test.want) {
			t.Errorf("%q: %q, want %q", test.in, got, test.want)
		}
	}
}

func TestReports_areLaidOut(t *testing.T) {
	got := strings.Join(reports([]byte("r\x00hno\nbecause\n\x00Kok\n\x00")), "\n")
	if want := "r\nh no\n  because\nK ok"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestOnTLS(t *testing.T) {
	const named = "version TLSv1.3;cipher TLS_AES_128_GCM_SHA256;certificate verified;server name mx.example.org"
	for text, want := range map[string]string{
		"ok\nTLS: TLSv1.3 TLS_AES_128_GCM_SHA256 verified mx.example.org\n":                               named,
		"TLS: TLSv1.3 TLS_AES_128_GCM_SHA256 verified mx.example.org dane\n":                              named + ";also dane",
		"TLS: TLSv1.3 TLS_AES_128_GCM_SHA256 verified mx.example.org (control/trustanchors:1: no \x1b)\n": named + `;also (control/trustanchors:1: no \x1b)`,
		"TLS: TLSv1.3 TLS_AES_128_GCM_SHA256 verified\n":                                                  "up, but the report does not say so",
		"no TLS: a b c d\n": "up, but the report does not say so",
		"":                  "up, but the report does not say so",
	} {
		var got []string
		for _, line := range onTLS(text) {
			got = append(got, strings.Join(strings.Fields(line), " "))
		}
		if all := strings.Join(got, ";"); all != want {
			t.Errorf("%q: %q, want %q", text, all, want)
		}
	}
}

// A way is shown with who decided on its TLS, and with what is passed over and why.
func TestWay(t *testing.T) {
	addr := func(text string, silent time.Duration) remote.Address {
		return remote.Address{AddrPort: netip.MustParseAddrPort(text), Silent: silent}
	}
	s := &remote.Step{
		Candidate: route.Candidate{Protocol: &control.Protocol{Service: "smtp"}, Host: "mx.example.org", Port: 25, Why: "MX 10"},
		Addresses: []remote.Address{addr("[2001:db8::1]:25", 0), addr("192.0.2.1:25", 62*time.Minute)},
	}
	s.Requirement.By, s.Requirement.First = "control/tlsstrictness 2", policy.Verified
	want := []string{
		"mx.example.org  SMTP port 25  TLS verify (control/tlsstrictness 2)  because MX 10",
		"2001:db8::1, 192.0.2.1 (did not answer lately: passed over for 1h2m0s more)",
	}
	if got := way(s); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	s.Err = errors.New("no such program \x1b")
	if got := way(s); !slices.Equal(got, append(want, `passed over: no such program \x1b`)) {
		t.Errorf("%q", got)
	}
}

func TestArrived_tellsAChange(t *testing.T) {
	m := &lab.Message{Sender: "a@b", Recipients: []string{"c@d"}, Data: []byte("x\r\ny\r\n")}
	for sent, want := range map[string]string{"x\ny\n": "unchanged", "x\nz\n": "CHANGED"} {
		if got := arrived([]byte(sent), m); !strings.HasPrefix(got, want) {
			t.Error(got)
		}
	}
	if got := arrived([]byte("x\n"), nil); got != "nothing" {
		t.Error(got)
	}
}
