package secret_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"nightmare.mail/mxf/control/secret"
)

const words = "open sesame"

// hides fails when text has the secret in it, as it is or encoded.
func hides(t *testing.T, what, text string) {
	t.Helper()
	for _, form := range []string{words, "open", "sesame", hex.EncodeToString([]byte(words)), base64.StdEncoding.EncodeToString([]byte(words)), "111 112 101 110"} {
		if strings.Contains(strings.ToLower(text), strings.ToLower(form)) {
			t.Errorf("%s shows the secret: %s", what, text)
		}
	}
}

func TestSecret_prints(t *testing.T) {
	for name, s := range map[string]secret.Secret{"full": secret.New(words), "empty": {}} {
		for _, verb := range strings.Fields("%v %+v %#v %s %q %x %X %+x %d %t %o %c %U %e %-20v") {
			if got := fmt.Sprintf(verb, s); got != "(secret)" {
				t.Errorf("%s with %s prints %s", name, verb, got)
			}
		}
		if got := s.String(); got != "(secret)" {
			t.Errorf("%s: String is %q", name, got)
		}
		if got, err := json.Marshal(s); err != nil || string(got) != `"(secret)"` {
			t.Errorf("%s: JSON is %s, %v", name, got, err)
		}
		if got, err := s.MarshalText(); err != nil || string(got) != "(secret)" {
			t.Errorf("%s: text is %s, %v", name, got, err)
		}
	}
}

func TestSecret_insideOthers(t *testing.T) {
	s := secret.New(words)
	hidden := struct {
		User string
		pass secret.Secret
	}{"joe", s}
	values := map[string]any{
		"pointer": &s, "unexported": hidden, "pointer to unexported": &hidden,
		"slice": []secret.Secret{s}, "map": map[string]secret.Secret{"a": s}, "key": map[secret.Secret]int{s: 1},
		"any": []any{s}, "nested": struct{ A any }{hidden},
	}
	for name, value := range values {
		for _, verb := range strings.Fields("%v %+v %#v %s %q %x %d %p %T") {
			hides(t, name+" with "+verb, fmt.Sprintf(verb, value))
		}
	}
	hides(t, "%p", fmt.Sprintf("%p", s))
	hides(t, "an error", fmt.Errorf("it failed: %v", hidden).Error())

	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("login", "secret", s, "in", hidden)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("login", "secret", s, "in", hidden)
	hides(t, "a log", log.String())
	if got, err := json.Marshal(hidden); err != nil || string(got) != `{"User":"joe"}` {
		t.Errorf("JSON is %s, %v", got, err)
	}
}

func TestSecret_compares(t *testing.T) {
	if a, b := secret.New(words), secret.New(strings.Clone(words)); a != b || a.Reveal() != words {
		t.Error("the same words make two secrets, or lose their words")
	}
	if secret.New(words) == secret.New("open") {
		t.Error("different words make one secret")
	}
	if empty := secret.New(""); !empty.IsZero() || empty.Reveal() != "" || empty != (secret.Secret{}) {
		t.Error("no words are a secret")
	}
	if secret.New(" ").IsZero() {
		t.Error("a blank is no secret")
	}
}
