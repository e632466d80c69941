// Package secret holds passwords and tokens so that they are not printed by mistake.
package secret

import (
	"fmt"
	"io"
	"unique"
)

// shown stands for a secret wherever one is printed.
const shown = "(secret)"

// A Secret is a password or a token. It prints as "(secret)" under every verb of fmt, in
// JSON and as text, alone and inside other values, an empty one too. Only Reveal gives
// its words. The zero Secret is empty. Secrets compare with == by their words.
type Secret struct {
	// fmt does not call the methods of what stands in an unexported field: it looks
	// inside. There it finds a pointer and prints the address.
	words unique.Handle[string]
}

// New makes a secret of words.
func New(words string) Secret {
	if words == "" {
		return Secret{}
	}
	return Secret{unique.Make(words)}
}

// Reveal returns the words of the secret.
func (s Secret) Reveal() string {
	if s.IsZero() {
		return ""
	}
	return s.words.Value()
}

// IsZero reports whether the secret is empty.
func (s Secret) IsZero() bool { return s == Secret{} }

// Format prints "(secret)", whatever the verb and its flags. See [fmt.Formatter].
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, shown) }

// String returns "(secret)".
func (Secret) String() string { return shown }

// MarshalText returns "(secret)", for JSON and all other encodings.
func (Secret) MarshalText() ([]byte, error) { return []byte(shown), nil }
