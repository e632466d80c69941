package domain_test

import (
	"strings"
	"testing"

	"nightmare.mail/mxf/control/domain"
	"nightmare.mail/mxf/control/domain/domaintest"
)

func TestParse(t *testing.T) {
	for _, n := range domaintest.Good() {
		d, err := domain.Parse(n.Text)
		if err != nil || d.String() != n.Want {
			t.Errorf("%q: %q, %v; want %q", n.Text, d, err, n.Want)
		}
		if literal := strings.HasPrefix(n.Text, "["); literal != d.Addr().IsValid() {
			t.Errorf("%q: address %v", n.Text, d.Addr())
		}
	}
	for _, text := range append(domaintest.Bad(), "") {
		if d, err := domain.Parse(text); err == nil || d != (domain.Domain{}) {
			t.Errorf("%q: %q, %v", text, d, err)
		}
	}
}

func TestParse_saysWhatIsWrong(t *testing.T) {
	for text, want := range map[string]string{
		"":                               "the name is empty",
		".":                              "the name is empty",
		strings.Repeat("a.", 127) + "a":  "more than 253 bytes",
		"example..org":                   "a label is empty",
		".example.org":                   "a label is empty",
		strings.Repeat("a", 64) + ".org": "more than 63 bytes",
		"-a.example":                     "begins or ends with a hyphen",
		"a-.example":                     "begins or ends with a hyphen",
		"s3cret word":                    "a byte is not a letter",
		strings.Repeat("ü", 600):         "more than 1012 bytes of UTF-8",
		"\xff.example":                   "not UTF-8",
		"א1a.example":                    "by UTS 46",
		"[s3cret]":                       "one IP address",
	} {
		if _, err := domain.Parse(text); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func TestHostName(t *testing.T) {
	for text, want := range map[string]string{
		"mx.example.org.":    "mx.example.org",
		"MX.Example.ORG.":    "MX.Example.ORG",
		"mx_1.example.org":   "mx_1.example.org",
		"localhost":          "localhost",
		"4you.example":       "4you.example",
		"BÜCHER.Example":     "xn--bcher-kva.example",
		"10":                 "",
		"192.0.2.1":          "",
		"192.0.2.256":        "",
		"192.0.2.1.":         "",
		"mx.１０":              "", // digits that UTS 46 maps
		"[192.0.2.1]":        "",
		"2001:db8::1":        "",
		".":                  "",
		"-mx.example.org":    "",
		"mx\\195\\188.test.": "", // as a record is printed
	} {
		if name, err := domain.HostName(text); name != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v; want %q", text, name, err, want)
		}
	}
}

func TestToASCII(t *testing.T) {
	for _, n := range domaintest.ASCII {
		if got, err := domain.ToASCII(n.Text); err != nil || got != n.Text {
			t.Errorf("%q: %q, %v", n.Text, got, err)
		}
	}
	for _, text := range append(domaintest.BadASCII, "") {
		if got, err := domain.ToASCII(text); err != nil || got != text {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
	for _, n := range domaintest.Unicode {
		if got, err := domain.ToASCII(n.Text); err != nil || got != n.Want {
			t.Errorf("%q: %q, %v; want %q", n.Text, got, err, n.Want)
		}
	}
	for _, text := range domaintest.BadUnicode {
		if got, err := domain.ToASCII(text); err == nil || got != "" {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
}

// FuzzParse wants one form of whatever is good: Parse finds the same again in it, and
// HostName and ToASCII differ from it by case and the final dot alone.
func FuzzParse(f *testing.F) {
	for _, n := range domaintest.Good() {
		f.Add(n.Text)
	}
	for _, text := range domaintest.Bad() {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		d, err := domain.Parse(text)
		if err != nil {
			if d != (domain.Domain{}) {
				t.Errorf("%q: %q beside %v", text, d, err)
			}
			if ascii, err := domain.ToASCII(text); err == nil && ascii != text {
				t.Errorf("%q: ToASCII gives %q, Parse nothing", text, ascii)
			}
			if name, err := domain.HostName(text); err == nil {
				t.Errorf("%q: HostName gives %q, Parse nothing", text, name)
			}
			return
		}
		form := d.String()
		if again, err := domain.Parse(form); err != nil || again != d {
			t.Errorf("%q: %q becomes %q, %v", text, form, again, err)
		}
		if ascii, err := domain.ToASCII(text); err != nil || ascii != form && !domain.IsASCII(text) {
			t.Errorf("%q: ToASCII gives %q, %v, Parse %q", text, ascii, err, form)
		}
		if name, err := domain.HostName(text); err == nil && strings.ToLower(name) != form {
			t.Errorf("%q: HostName gives %q, Parse %q", text, name, form)
		}
		if addr := d.Addr(); addr.IsValid() {
			if addr.Is4In6() || addr.Zone() != "" || form != "["+addr.String()+"]" {
				t.Errorf("%q: %q is not %v", text, form, addr)
			}
			return
		}
		if len(form) > 253 || form != strings.ToLower(form) || strings.Contains("."+form+".", "..") ||
			strings.Trim(form, "abcdefghijklmnopqrstuvwxyz0123456789_-.") != "" {
			t.Errorf("%q: name %q", text, form)
		}
	})
}
