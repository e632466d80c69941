package check

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestPrintable_isFitForATerminal(t *testing.T) {
	for _, test := range []struct{ in, want string }{
		{"plain Grüße", "plain Grüße"},
		{"caf\xe9 \x1b[2J\t", `caf\xe9 \x1b[2J\x09`},
		{strings.Repeat("é", 2*maxText), strings.Repeat("é", maxText) + "..."},
		{strings.Repeat("x", maxText), strings.Repeat("x", maxText)},
	} {
		if got := Printable(test.in); got != test.want {
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
		if got := Fold(test.in, 8); !slices.Equal(got, test.want) {
			t.Errorf("%q: %q, want %q", test.in, got, test.want)
		}
	}
}

// Lines are no wider than the page, whatever is on it, and there is no escape sequence unless
// colours are wanted.
func TestPage_All(t *testing.T) {
	for _, width := range []int{40, 60, 80, 200} {
		for _, colour := range []bool{false, true} {
			var out bytes.Buffer
			p := &Page{W: &out, Width: width, Colour: colour}
			p.Findings([]Finding{{Error, "control/smtproutes", 4, "what is wrong \x1b[2J", "mend it"}, {OK, "control/me", 0, "in order", ""}})
			p.All(everything(), true)
			text := out.String()
			if strings.Contains(text, "\x1b") != colour {
				t.Errorf("width %d, colour %v: %q", width, colour, text)
			}
			for _, c := range []Colour{Bold, Green, Purple, Red, reset} {
				text = strings.ReplaceAll(text, string(c), "")
			}
			if strings.Contains(text, "\x1b") {
				t.Errorf("an escape sequence that is none of ours: %q", text)
			}
			for line := range strings.Lines(text) {
				if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > width {
					t.Errorf("width %d: %d: %q", width, n, line)
				}
			}
			flat := strings.Join(strings.Fields(text), " ")
			for _, want := range []string{
				"error control/smtproutes:4: what is wrong", "host example.org", "MX example.org", "way 1 mx.example.org SMTP port 25 TLS verify (control/tlsstrictness 2) because MX 10",
				"it did not answer lately, for about 41 minutes still", "expired 3 days ago", "taken, TLS", "deferred", "cut off by option -t", "no such name ([::1]:53, 3 ms), cut off by option -t", "try 1 mx.example.org (192.0.2.1) SMTP port 25: connected",
				`but not b@example.org: 192.0.2.1 does not like recipient. / Remote host said: 550 \x1b[2J refused, so it would bounce`, "it would be taken by 192.0.2.1, TLS unverified (control/tlsstrictness 2)",
			} {
				if !strings.Contains(flat, want) {
					t.Errorf("width %d: no %q in %s", width, want, flat)
				}
			}
		}
	}
}

// The line of what is waited for is one line, and goes away.
func TestWaiting(t *testing.T) {
	var out bytes.Buffer
	w := &Waiting{W: &out, Width: 12}
	w.Show("connecting to nobody\x07")
	w.Clear()
	if got := out.String(); got != "\r\x1b[Kconnecting \r\x1b[K" {
		t.Errorf("%q", got)
	}
	var none *Waiting
	none.Show("x")
	none.Clear()
}

// What is to be mended is counted last.
func TestPage_tally(t *testing.T) {
	for _, test := range []struct {
		levels []Level
		want   string
	}{
		{nil, "in all   0 errors, 0 warnings"},
		{[]Level{OK, Warning, Error, Note, Warning}, "in all   1 error, 2 warnings"},
	} {
		r := &Result{}
		for _, l := range test.levels {
			r.Findings = append(r.Findings, Finding{Level: l, What: "x"})
		}
		var out bytes.Buffer
		(&Page{W: &out, Width: 80}).All(r, false)
		if !strings.HasSuffix("\n"+out.String(), "\n"+test.want+"\n") {
			t.Errorf("%v: %q", test.levels, out.String())
		}
	}
}

// A table of short addresses fits 80 columns with everything in it, and no title is folded.
func TestPage_Table(t *testing.T) {
	r := &Result{prospects: []prospect{
		{"192.0.2.25", "refused", "", "", [3]string{}}, {"127.0.0.14", "no answer", "", "", [3]string{}},
		{"192.0.2.1", "12 ms", "TLSv1.3", "expired 1 day ago", [3]string{"taken, clear", "taken, clear", "deferred"}},
	}}
	var out bytes.Buffer
	(&Page{W: &out, Width: 80}).Table(r)
	if head, _, _ := strings.Cut(out.String(), "\n"); strings.Join(strings.Fields(head), " ") != "address connect TLS cert strictness 0 1 2" || strings.Count(out.String(), "\n") != 5 {
		t.Errorf("%s", out.String())
	}
}
