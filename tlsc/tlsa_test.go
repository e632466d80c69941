package tlsc

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"testing"

	"nightmare.mail/mxf/integration/must"
)

// Texts of records, and what each becomes: "" is malformed.
var recordTexts = []struct{ text, want string }{
	{"3 1 1 ab12", "3 1 1 ab12"},
	{"3 1 1 AB12", "3 1 1 ab12"},
	{"3 1 1 aB12,2 0 1 cd34", "3 1 1 ab12,2 0 1 cd34"},
	{"2 0 1 cd34,3 1 1 ab12", "2 0 1 cd34,3 1 1 ab12"},
	{"3 1 1 ab12,3 1 1 ab12", "3 1 1 ab12,3 1 1 ab12"},
	{"255 255 255 00", "255 255 255 00"},
	{"0 0 0 ff", "0 0 0 ff"},
	{strings.Repeat("3 1 1 ab,", 99) + "3 1 1 ab", strings.Repeat("3 1 1 ab,", 99) + "3 1 1 ab"},
	{"3 1 1 " + strings.Repeat("ab", (maxRecordsText-6)/2), "3 1 1 " + strings.Repeat("ab", (maxRecordsText-6)/2)},
	{"", ""},
	{" ", ""},
	{",", ""},
	{"3 1 1 ab12,", ""},
	{",3 1 1 ab12", ""},
	{"3 1 1 ab12,,3 1 1 ab12", ""},
	{"3 1 1 ab12, 3 1 1 ab12", ""},
	{"3 1 1 ab12;3 1 1 ab12", ""},
	{"3 1 1 ab12\n", ""},
	{"3 1 1", ""},
	{"3 1 1 ", ""},
	{"3  1 1 ab12", ""},
	{"3\t1 1 ab12", ""},
	{" 3 1 1 ab12", ""},
	{"3 1 1 ab12 ", ""},
	{"3 1 1 ab 12", ""},
	{"3 1 1 ab1", ""},
	{"3 1 1 xy", ""},
	{"3 1 1 0xab", ""},
	{"3 1 256 ab12", ""},
	{"-1 1 1 ab12", ""},
	{"+3 1 1 ab12", ""},
	{"03 1 1 ab12", ""},
	{"a 1 1 ab12", ""},
	{"3 1 SHA2-256 ab12", ""},
	{"ab12", ""},
	{strings.Repeat("3 1 1 ab,", 100) + "3 1 1 ab", ""},
	{"3 1 1 " + strings.Repeat("ab", maxRecordsText/2), ""},
}

func TestParseRecords(t *testing.T) {
	for _, tt := range recordTexts {
		r, err := ParseRecords(tt.text)
		if (err == nil) != (tt.want != "") || r.String() != tt.want {
			t.Errorf("%.60q: %.60q, %v", tt.text, r, err)
		}
		if err != nil && len(err.Error()) > 500 {
			t.Errorf("%.60q: error of %d bytes", tt.text, len(err.Error()))
		}
		again, err := NewRecords(r.List())
		if err != nil || again != r {
			t.Errorf("%.60q packs as %.60q, %v", tt.text, again, err)
		}
	}
}

// What DNS gives can be anything.
func TestNewRecords(t *testing.T) {
	empty := must.Get(NewRecords([]TLSA{{3, 1, 1, nil}, {2, 0, 1, []byte{1}}}))(t)
	if got := empty.String(); got != "3 1 1 ,2 0 1 01" || len(empty.List()) != 2 {
		t.Errorf("%q", got)
	}
	if got := empty.Usable(); got != (Records{}) || got.List() != nil {
		t.Errorf("usable: %q", got)
	}
	many := make([]TLSA, maxRecords+1)
	if _, err := NewRecords(many); err == nil {
		t.Errorf("%d records will do", len(many))
	}
	must.Get(NewRecords(many[1:]))(t)
	if _, err := NewRecords([]TLSA{{3, 0, 0, make([]byte, maxRecordsText/2)}}); err == nil {
		t.Error("too long a record will do")
	}
}

// about returns the record of this kind about a certificate.
func (r TLSA) about(c *x509.Certificate) TLSA {
	r.Data = c.Raw
	if r.Selector == selectorSPKI {
		r.Data = c.RawSubjectPublicKeyInfo
	}
	switch r.Matching {
	case matchingSHA256:
		sum := sha256.Sum256(r.Data)
		r.Data = sum[:]
	case matchingSHA512:
		sum := sha512.Sum512(r.Data)
		r.Data = sum[:]
	}
	return r
}

func record(t testing.TB, kind string, c *x509.Certificate) TLSA {
	t.Helper()
	r := must.Get(ParseTLSA(kind + " 00"))(t)
	return r.about(c)
}

func TestUsable(t *testing.T) {
	c := newCA("root").Cert
	for usage := range uint8(5) {
		for selector := range uint8(3) {
			for matching := range uint8(4) {
				r := TLSA{usage, selector, matching, nil}.about(c)
				want := (usage == 2 || usage == 3) && selector <= 1 && matching <= 2
				if got := r.Usable(); got != want {
					t.Errorf("%d %d %d: usable %v", usage, selector, matching, got)
				}
				if want && !r.matches(c) {
					t.Errorf("%d %d %d does not match what it was made for", usage, selector, matching)
				}
				for what, data := range map[string][]byte{"empty": nil, "short": r.Data[:len(r.Data)-1], "long": append(slices.Clone(r.Data), 0)} {
					bad := TLSA{usage, selector, matching, data}
					if bad.Usable() || bad.matches(c) {
						t.Errorf("%d %d %d, %s: usable %v, matches %v", usage, selector, matching, what, bad.Usable(), bad.matches(c))
					}
				}
			}
		}
	}
	if (TLSA{3, 0, 0, c.RawSubjectPublicKeyInfo}).Usable() || (TLSA{3, 1, 0, c.Raw}).Usable() {
		t.Error("a key passes for a certificate, or the reverse")
	}
}

// Digest agility: RFC 7671 section 9.
func TestDecisive(t *testing.T) {
	d256, d512 := strings.Repeat("ab", 32), strings.Repeat("cd", 64)
	c := newCA("root").Cert
	full := record(t, "3 1 0", c).String()
	for _, tt := range []struct{ records, want []string }{
		{[]string{"3 1 1 " + d256}, []string{"3 1 1 " + d256}},
		{[]string{"3 1 1 " + d256, "3 1 2 " + d512}, []string{"3 1 2 " + d512}},
		{[]string{"3 1 2 " + d512, "3 1 1 " + d256}, []string{"3 1 2 " + d512}},
		{[]string{"3 1 1 " + d256, "3 0 2 " + d512}, []string{"3 1 1 " + d256, "3 0 2 " + d512}},
		{[]string{"3 1 1 " + d256, "2 1 2 " + d512}, []string{"3 1 1 " + d256, "2 1 2 " + d512}},
		{[]string{"3 1 1 " + d256, "3 1 2 " + d512[2:]}, []string{"3 1 1 " + d256}},
		{[]string{"3 1 1 " + d256, "3 1 2 " + d256}, []string{"3 1 1 " + d256}},
		{[]string{"3 1 1 " + d256, "3 1 2 " + d512, full}, []string{"3 1 2 " + d512, full}},
		{[]string{"3 1 1 " + d256, "1 1 2 " + d512, "0 1 1 " + d256, "3 2 2 " + d512, "3 1 3 " + d512}, []string{"3 1 1 " + d256}},
		{[]string{"1 1 1 " + d256}, nil},
	} {
		records := must.Get(ParseRecords(strings.Join(tt.records, ",")))(t)
		var got []string
		for _, r := range decisive(records.List()) {
			got = append(got, r.String())
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%.60q:\n%.60q, want\n%.60q", tt.records, got, tt.want)
		}
	}
}

func TestPins(t *testing.T) {
	a, b := sha256.Sum256([]byte("a")), sha256.Sum256([]byte("b"))
	pins := must.Get(Pins(a, b))(t)
	if want := fmt.Sprintf("3 0 1 %x,3 1 1 %x,3 0 1 %x,3 1 1 %x", a, a, b, b); pins.String() != want {
		t.Errorf("%q", pins)
	}
	if pins.Usable() != pins {
		t.Errorf("usable: %q", pins.Usable())
	}
	if _, err := Pins(make([][32]byte, maxRecords/2+1)...); err == nil {
		t.Error("51 pins will do")
	}
}

func FuzzParseRecords(f *testing.F) {
	for _, tt := range recordTexts {
		if len(tt.text) < 1000 {
			f.Add(tt.text)
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := ParseRecords(text)
		if err != nil {
			if r != (Records{}) {
				t.Errorf("records %q with error %v", r, err)
			}
			return
		}
		list := r.List()
		if len(list) == 0 || len(list) > maxRecords || len(r.String()) > maxRecordsText {
			t.Errorf("%d records, %d bytes", len(list), len(r.String()))
		}
		if !strings.EqualFold(r.String(), text) {
			t.Errorf("%q becomes %q", text, r)
		}
		if again, err := ParseRecords(r.String()); err != nil || again != r {
			t.Errorf("%q becomes %q, %v", r, again, err)
		}
		for _, decides := range decisive(list) {
			if !decides.Usable() {
				t.Errorf("%q decides", decides)
			}
		}
	})
}

// Data of any length: a record matches a certificate only if its data is what is selected,
// or the digest of that; and who matches by usage 3 is good, and nobody else.
func FuzzRecord(f *testing.F) {
	root := newCA("root")
	leaf := root.Leaf(nil, host)
	chain := []*x509.Certificate{leaf.Cert, root.Cert}
	for usage := range uint8(5) {
		for selector := range uint8(3) {
			for matching := range uint8(4) {
				for _, c := range chain {
					f.Add(usage, selector, matching, TLSA{usage, selector, matching, nil}.about(c).Data)
				}
				f.Add(usage, selector, matching, []byte(nil))
			}
		}
	}
	f.Fuzz(func(t *testing.T, usage, selector, matching uint8, data []byte) {
		r := TLSA{usage, selector, matching, data}
		is := func(c *x509.Certificate) bool {
			return selector <= 1 && matching <= 2 && bytes.Equal(TLSA{usage, selector, matching, nil}.about(c).Data, data)
		}
		if r.Usable() {
			for _, c := range chain {
				if r.matches(c) != is(c) {
					t.Errorf("%s matches: %v", r, r.matches(c))
				}
			}
		}
		records, err := NewRecords([]TLSA{r})
		if err != nil {
			return
		}
		v := DANE{Records: records}.judge(decisive(records.List()), evidence{presented: chain, server: host, now: testNow})
		if want := usage == 3 && is(leaf.Cert) || usage == 2 && is(root.Cert); v.Good() != want {
			t.Errorf("%s: %s, want %v", r, v, want)
		}
	})
}
