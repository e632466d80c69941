package smtpc

import (
	"strings"
	"testing"

	"nightmare.mail/mxf/control/secret"
)

var concealing = []struct {
	secrets string // with | between
	text    string
	want    string
}{
	{"password", "535 no", "535 no"},
	{"password", "535 password is wrong", "535 (secret) is wrong"},
	{"password", "535 mypasswords, password", "535 my(secret)s, (secret)"},
	{"password", "535 PASSWORD", "535 PASSWORD"},
	{"password", "535 pass\rword\r", "535 (secret)"},
	{"secret", "535 secret", "535 (secret)"}, // what is put in is not looked at again
	{"a b:c d", "535 'a b:c d'", "535 '(secret)'"},
	{"schlüssel", "535 schlüssel", "535 (secret)"},
	{"aaaaaa", "535 aaaaaaaaaaaaab", "535 (secret)b"},
	{"abcdef|defghi", "535 abcdefghi!", "535 (secret)!"},
	{"abcdef|xabcdefx", "535 xabcdefx abcdef", "535 (secret) (secret)"},
	// A short one is a word of its own.
	{"joe", "535 joe, joey, ajoe, 1joe joe1 joe", "535 (secret), joey, ajoe, 1joe joe1 (secret)"},
	{"joe", "535 <joe>:joe@b", "535 <(secret)>:(secret)@b"},
	{"no", "535 ünoü no", "535 ünoü (secret)"},
	{"a b", "535 xa b a b", "535 xa b (secret)"},
	{"!", "535 no!", "535 no!"},
	{"!", "535 no !", "535 no (secret)"},
	// A reply stays one.
	{"250 ok", "250 ok", "250 (secret)"},
	{"250-PIPELINING", "250-PIPELINING", "250-(secret)"},
	{"535", "535 535 5.7.8", "535 (secret)"},
	{"35 no!", "535 no!", "535 (secret)"},
	{"hello!", "hello!", "(secret)"}, // which is no reply
}

func TestConceal(t *testing.T) {
	for _, c := range concealing {
		s := new(Session)
		for word := range strings.SplitSeq(c.secrets, "|") {
			s.keepSecret(word)
			s.keepSecret(word)
		}
		if n := strings.Count(c.secrets, "|") + 1; len(s.secrets) != n {
			t.Errorf("%d secrets, want %d", len(s.secrets), n)
		}
		if got := s.concealLine(c.text); got != c.want {
			t.Errorf("%q in %q: %q, want %q", c.secrets, c.text, got, c.want)
		}
	}
	s := new(Session)
	if s.keepSecret(""); s.concealLine("250 a\rb") != "250 a\rb" {
		t.Error("a line has changed without a secret")
	}
}

func FuzzConceal(f *testing.F) {
	for _, c := range concealing {
		one, two, _ := strings.Cut(c.secrets, "|")
		f.Add(one, two, c.text)
	}
	f.Fuzz(func(t *testing.T, one, two, text string) {
		got := withoutSecrets(text, []secret.Secret{secret.New(one), secret.New(two)})
		for _, word := range []string{one, two} {
			// What the mark itself brings may look like a secret.
			for _, part := range strings.Split(got, concealed) {
				if len(word) >= minConcealed && !strings.Contains(word, "\r") && strings.Contains(part, word) {
					t.Errorf("%q stands in %q, made of %q", word, got, text)
				}
			}
		}
	})
}

// A line that is too long is quoted in part, and so could be a secret in it.
func TestConceal_longLine(t *testing.T) {
	s := new(Session)
	s.keepSecret("open sesame")
	for _, c := range []struct{ text, want string }{
		{strings.Repeat("open sesame", 1000), `"(secret)"`},
		{strings.Repeat("x", 9000), `"xxx`},
	} {
		_, err := readReply(bufferOf(c.text+"\r\n"), s.concealLine, func(string) {})
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "sesame") {
			t.Errorf("%v", err)
		}
	}
}
