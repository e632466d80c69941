package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"nightmare.mail/mxf/integration/lab"
)

func TestParse(t *testing.T) {
	file := filepath.Join(t.TempDir(), "message")
	if err := os.WriteFile(file, []byte("x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{}, {"-v"}, {file}, {"-v", file}, {"--", file}, {"-v", "--", file}} {
		if _, err := parse(args); err != nil {
			t.Errorf("%q: %v", args, err)
		}
	}
	for _, args := range [][]string{{"-x"}, {file, file}, {file, "-v"}, {"--verbose"}, {file + "x"}} {
		if _, err := parse(args); err == nil {
			t.Errorf("%q was understood", args)
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

func TestArrived_tellsAChange(t *testing.T) {
	m := &lab.Message{Sender: "a@b", Recipients: []string{"c@d"}, Data: []byte("x\r\ny\r\n")}
	if got := arrived([]byte("x\ny\n"), m); !strings.HasPrefix(got, "unchanged") {
		t.Error(got)
	}
	if got := arrived([]byte("x\nz\n"), m); !strings.HasPrefix(got, "CHANGED") {
		t.Error(got)
	}
	if got := arrived([]byte("x\n"), nil); got != "nothing" {
		t.Error(got)
	}
}
