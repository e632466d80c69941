package control

import (
	"fmt"
	"strings"

	"nightmare.mail/mxf/control/domain"
)

// nullSender is how a file writes the null sender, which an argument has as "": an empty
// field means every sender.
const nullSender = "<>"

// parseSender reads the sender of a line: a whole address, @domain, @.suffix, the null
// sender, or nothing for all of them. It returns the one form: ASCII letters in lower
// case, the domain in A-labels. problem says what is wrong, and is "" if nothing is.
//
// The local part is compared as qmail hands it over, without quotes, so it may have nearly
// every byte. A blank at an edge is taken for a slip.
func parseSender(s string) (key, problem string) {
	if s == "" || s == nullSender {
		return s, ""
	}
	wrong := fmt.Sprintf("expected an address, @domain, @.suffix, <> or nothing as the sender, found %s", found(s))
	if isBlank(s[0]) || isBlank(s[len(s)-1]) || strings.ContainsAny(s, domain.Forbidden) {
		return "", wrong
	}
	at := strings.LastIndexByte(s, '@')
	if at < 0 {
		return lowerASCII(s), ""
	}
	pattern, err := parsePattern(s[at+1:])
	if err != nil || pattern == "" || pattern[0] == '.' && at > 0 {
		return "", wrong
	}
	return lowerASCII(s[:at]) + "@" + pattern, ""
}

// senderKeys returns the keys that fit an envelope sender, in the order in which they
// decide. sender is as in the argument: without quotes, "" for the null sender. The last
// '@' begins its domain. A domain that is none fits nothing but the empty key.
func senderKeys(sender string) []string {
	at := strings.LastIndexByte(sender, '@')
	switch {
	case sender == "":
		return []string{nullSender, ""}
	case sender == nullSender: // two characters that are not the null sender
		return []string{""}
	case at < 0:
		return []string{lowerASCII(sender), ""}
	}
	d, err := domain.Parse(sender[at+1:])
	if err != nil {
		return []string{""}
	}
	keys := []string{lowerASCII(sender[:at]) + "@" + d.String()}
	for _, pattern := range nameKeys(d) {
		keys = append(keys, "@"+pattern)
	}
	return append(keys, "")
}

// lowerASCII makes ASCII letters small and leaves all other bytes as they are: what else
// is the same in a local part is known to its host alone.
func lowerASCII(s string) string {
	lower := []byte(s)
	for i, c := range lower {
		if 'A' <= c && c <= 'Z' {
			lower[i] = c + 'a' - 'A'
		}
	}
	return string(lower)
}
