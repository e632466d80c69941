package remote

import (
	"strings"
	"testing"

	"nightmare.mail/mxf/integration/must"
)

// A field beyond 64 KiB, or one that goes on there, waives nothing.
func TestWaives_cut(t *testing.T) {
	const field = "TLS-Required: No"
	filler := func(n int) string { return "X: " + strings.Repeat("x", n-4) + "\n" }
	for _, c := range []struct {
		name, text string
		want       bool
	}{
		{"short", field + "\n\nx\n", true},
		{"no end", field, true},
		{"whole", filler(maxWaiver-100) + field + "\n" + filler(200) + "\n", true},
		{"a byte before the end", filler(maxWaiver-len(field)-2) + field + "\nY: y\n\n", true},
		{"at the end", filler(maxWaiver-len(field)) + field + "\n\n", false},
		{"goes on", filler(maxWaiver-len(field)) + field + "thing\n\n", false},
		{"folded across", filler(maxWaiver-len(field)-2) + field + "\n thing\n\n", false},
		{"beyond", filler(maxWaiver) + field + "\n\n", false},
		{"before a long field", field + "\n" + filler(2*maxWaiver), true},
		{"one long line", strings.Repeat("x", 2*maxWaiver), false},
		{"a long folded field", "X: x\n" + strings.Repeat(" x\n", maxWaiver), false},
	} {
		path := t.TempDir() + "/message"
		must.Write(t, path, c.text)
		if got := waives(must.Open(t, path)); got != c.want {
			t.Errorf("%s: %t", c.name, got)
		}
	}
}
