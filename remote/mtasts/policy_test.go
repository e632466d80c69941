package mtasts

import (
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

const good = "version: STSv1\nmode: enforce\nmx: mail.example.com\nmx: *.example.net\nmax_age: 604800\n"

var policies = []struct {
	text string
	want string // mode, max_age and patterns, or what the error has
	ok   bool
}{
	{good, "enforce 604800 mail.example.com *.example.net", true},
	{strings.ReplaceAll(good, "\n", "\r\n"), "enforce 604800 mail.example.com *.example.net", true},
	{strings.TrimSuffix(good, "\n"), "enforce 604800 mail.example.com *.example.net", true},
	{"\n \t\n" + strings.ReplaceAll(good, "\n", " \t\r\n\r\n"), "enforce 604800 mail.example.com *.example.net", true},
	{"max_age:0\nmx:\t MAIL.Example.COM\nmode:testing\nversion:STSv1", "testing 0 mail.example.com", true},
	{"version: STSv1\nmode: none\nmax_age: 86400", "none 86400", true},
	{"version: STSv1\nmode: none\nmx: a.example\nmax_age: 86400", "none 86400 a.example", true},
	{good + "version: STSv2\nmode: bogus\nmax_age: x\n", "enforce 604800 mail.example.com *.example.net", true},
	{good + "future.field-1_x: any: thing; \u00e9\n", "enforce 604800 mail.example.com *.example.net", true},
	{strings.Replace(good, "604800", "31557600", 1), "enforce 31557600 mail.example.com *.example.net", true},
	{strings.Replace(good, "604800", "31557601", 1), "enforce 31557600 mail.example.com *.example.net", true},
	{strings.Replace(good, "604800", "9999999999", 1), "enforce 31557600 mail.example.com *.example.net", true},
	{strings.Replace(good, "604800", "0000000007", 1), "enforce 7 mail.example.com *.example.net", true},
	{strings.Replace(good, "604800", "99999999999", 1), "line 5: max_age", false},
	{strings.Replace(good, "604800", "-1", 1), "line 5: max_age", false},
	{strings.Replace(good, "604800", "+1", 1), "line 5: max_age", false},
	{strings.Replace(good, "604800", "1.5", 1), "line 5: max_age", false},
	{strings.Replace(good, "604800", "1 2", 1), "line 5: max_age", false},
	{strings.Replace(good, "604800", "", 1), "line 5: not a name", false},
	{strings.Replace(good, "max_age", "Max_age", 1), "no max_age", false},
	{strings.Replace(good, "STSv1", "STSv2", 1), "line 1: version", false},
	{strings.Replace(good, "STSv1", "stsv1", 1), "line 1: version", false},
	{strings.Replace(good, "version: STSv1\n", "", 1), "no version", false},
	{strings.Replace(good, "enforce", "Enforce", 1), "line 2: mode", false},
	{strings.Replace(good, "enforce", "report", 1), "line 2: mode", false},
	{strings.Replace(good, "mode: enforce\n", "", 1), "no mode", false},
	{"version: STSv1\nmode: enforce\nmax_age: 1\n", "no mx", false},
	{"version: STSv1\nmode: testing\nmax_age: 1\n", "no mx", false},
	{good + "mx: *\n", "line 6: mx", false},
	{good + "mx: *.\n", "line 6: mx", false},
	{good + "mx: *.*.example\n", "line 6: mx", false},
	{good + "mx: a*.example\n", "line 6: mx", false},
	{good + "mx: .example\n", "line 6: mx", false},
	{good + "mx: a.example.\n", "line 6: mx", false},
	{good + "mx: a b\n", "line 6: mx", false},
	{good + "mx: b\u00fccher.example\n", "line 6: mx", false},
	{good + "mx: 192.0.2.1\n", "line 6: mx", false},
	{good + "mx: [192.0.2.1]\n", "line 6: mx", false},
	{good + "mx: " + strings.Repeat("a", 64) + ".example\n", "line 6: mx", false},
	{good + "junk\n", "line 6: not a name", false},
	{good + ": x\n", "line 6: not a name", false},
	{good + "a :x\n", "line 6: not a name", false},
	{good + " a: x\n", "line 6: not a name", false},
	{good + "a:\n", "line 6: not a name", false},
	{good + "a: x\ty\n", "line 6: not a name", false},
	{good + "a: x\ry\n", "line 6: not a name", false},
	{good + "a: \xff\n", "line 6: not a name", false},
	{good + "a: \x00\n", "line 6: not a name", false},
	{good + strings.Repeat("a", 33) + ": x\n", "line 6: not a name", false},
	{"\ufeff" + good, "line 1: not a name", false},
	{"<html></html>", "line 1: not a name", false},
	{"", "no version", false},
	{good + strings.Repeat("\n", MaxPolicy-len(good)), "enforce 604800 mail.example.com *.example.net", true},
	{good + strings.Repeat("\n", MaxPolicy-len(good)+1), "more than 65536 bytes", false},
}

func TestParsePolicy(t *testing.T) {
	for _, c := range policies {
		p, err := ParsePolicy([]byte(c.text))
		if !c.ok {
			if err == nil || !strings.HasPrefix(err.Error(), c.want) {
				t.Errorf("%.200q: %+v, %v, want error %s", c.text, p, err, c.want)
			}
			continue
		}
		if err != nil {
			t.Errorf("%.200q: %v", c.text, err)
			continue
		}
		got := strings.Join(append([]string{p.Mode.String(), seconds(p.MaxAge)}, p.MX...), " ")
		if got != c.want {
			t.Errorf("%.200q: %s, want %s", c.text, got, c.want)
		}
	}
}

func seconds(d time.Duration) string { return strconv.Itoa(int(d / time.Second)) }

func TestPolicy_lines(t *testing.T) {
	p, err := ParsePolicy([]byte("version: STSv1 \r\n\r\nmode:  none\t\nmax_age: 1"))
	if err != nil || !slices.Equal(p.Lines, []string{"version: STSv1", "mode:  none", "max_age: 1"}) {
		t.Errorf("%q, %v", p.Lines, err)
	}
}

func TestPolicy_matches(t *testing.T) {
	p, err := ParsePolicy([]byte("version: STSv1\nmode: enforce\nmax_age: 1\nmx: Mail.Example.com\nmx: *.Example.net\n"))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{
		"mail.example.com": true, "MAIL.example.COM.": true, "a.example.net": true, "A.EXAMPLE.NET.": true,
		"example.net": false, ".example.net": false, "a.b.example.net": false, "a.example.com": false, "xmail.example.com": false,
		"mail.example.com..": false, "mail.example.com.evil.example": false, "aexample.net": false, "": false, ".": false, "*.example.net": true,
	} {
		if p.Matches(name) != want {
			t.Errorf("%q: %v", name, !want)
		}
	}
}

func FuzzParsePolicy(f *testing.F) {
	for _, c := range policies[:len(policies)-2] {
		f.Add(c.text, "mail.example.com")
	}
	f.Fuzz(func(t *testing.T, text, name string) {
		p, err := ParsePolicy([]byte(text))
		if err != nil {
			if p != nil || strings.ContainsAny(err.Error(), "\r\n") {
				t.Errorf("%+v, %v", p, err)
			}
			return
		}
		if p.MaxAge < 0 || p.MaxAge > maxAge*time.Second || p.Mode != None && len(p.MX) == 0 {
			t.Errorf("%q: %+v", text, p)
		}
		again, err := ParsePolicy([]byte(strings.Join(p.Lines, "\n")))
		if err != nil || again.Mode != p.Mode || again.MaxAge != p.MaxAge || !slices.Equal(again.MX, p.MX) || !slices.Equal(again.Lines, p.Lines) {
			t.Errorf("%q: its lines say something else: %+v, %v", text, again, err)
		}
		for _, pattern := range p.MX {
			if !p.Matches(strings.Replace(pattern, "*", "any", 1)) {
				t.Errorf("%q matches nothing", pattern)
			}
		}
		if p.Matches(name) && (name == "" || strings.HasPrefix(name, ".")) {
			t.Errorf("matches %q", name)
		}
	})
}
