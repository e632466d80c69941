package avoid

import (
	"errors"
	"testing"
)

var good = map[string]Set{
	"":                                       {},
	"PIPELINING":                             {Pipelining: true},
	"SIZE":                                   {Size: true},
	"8BITMIME":                               {EightBitMIME: true},
	"SMTPUTF8":                               {SMTPUTF8: true},
	"EHLO":                                   {EHLO: true},
	"PIPELINING,SIZE,8BITMIME,SMTPUTF8,EHLO": {true, true, true, true, true},
}

func TestParse(t *testing.T) {
	for words, want := range good {
		if got, err := Parse(words); got != want || err != nil || got.String() != words {
			t.Errorf("%q: %+v, %v", words, got, err)
		}
	}
	for words, bad := range map[string]string{
		"size": "size", "SIZE,": "", ",": "", "SIZE,,EHLO": "", "SIZE EHLO": "SIZE EHLO", " SIZE": " SIZE", "CHUNKING": "CHUNKING", "EHLO,STARTTLS": "STARTTLS",
	} {
		var unknown *WordError
		if got, err := Parse(words); got != (Set{}) || !errors.As(err, &unknown) || unknown.Word != bad {
			t.Errorf("%q: %+v, %v", words, got, err)
		}
	}
	const want = `"DSN" is none of PIPELINING, SIZE, 8BITMIME, SMTPUTF8, EHLO`
	if _, err := Parse("SIZE,DSN"); err.Error() != want {
		t.Errorf("%v", err)
	}
}

func TestOr(t *testing.T) {
	for words, a := range good {
		for other, b := range good {
			want := Set{a.Pipelining || b.Pipelining, a.Size || b.Size, a.EightBitMIME || b.EightBitMIME, a.SMTPUTF8 || b.SMTPUTF8, a.EHLO || b.EHLO}
			if got := a.Or(b); got != want {
				t.Errorf("%q, %q: %+v", words, other, got)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	for words := range good {
		f.Add(words)
	}
	for _, words := range []string{"size", "SIZE,", ",", "SIZE,,EHLO", "EHLO,EHLO"} {
		f.Add(words)
	}
	f.Fuzz(func(t *testing.T, words string) {
		a, err := Parse(words)
		if err != nil {
			return
		}
		if again, err := Parse(a.String()); again != a || err != nil {
			t.Errorf("%q: %v, and again %v, %v", words, a, again, err)
		}
	})
}
