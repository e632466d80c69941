package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nightmare.mail/mxf/integration/lab"
	"nightmare.mail/mxf/integration/must"
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
