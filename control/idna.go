package control

import (
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// maxUnicode is the longest name worth converting, in bytes: every character
// takes at least one byte of an A-label and at most four of UTF-8.
const maxUnicode = 4 * maxName

// toASCII makes A-labels of a name beyond ASCII (UTS 46, non-transitional).
// Underscores pass.
func toASCII(s string) (string, bool) {
	if len(s) > maxUnicode || !utf8.ValidString(s) {
		return "", false
	}
	profile := idna.New(idna.MapForLookup(), idna.Transitional(false), idna.BidiRule(),
		idna.CheckHyphens(false), idna.StrictDomainName(false))
	ascii, err := profile.ToASCII(s)
	return ascii, err == nil && isASCII(ascii)
}
