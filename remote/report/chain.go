package report

import "strings"

// Sentence returns the case whose whole text, with the facts f, is said, or Internal.
//
// It is the contract of a chain of programs, and the only words that decide anything. A
// program's exit code says what its router tries next, and nothing else does; but the codes
// are fewer than the cases. So a bundled program prints the sentence of its case beside
// exit 75 or 76, and where the case makes a difference the router compares the whole text.
// No server can make a program print such a text: it has no place for a server's words.
func Sentence(said string, f Facts) Case {
	for _, c := range [...]Case{NeedsSMTPUTF8, TLSNotOffered, ConnectionDied} {
		if New(c, f).Text == said {
			return c
		}
	}
	return Internal
}

// ReasonFrom makes a report of what a protocol program printed beside exit 75 to 78. Words
// that are a [Sentence] of this catalogue keep its letter. Others are temporary, and are
// quoted after the wording of c unless they read like a report already.
func ReasonFrom(said string, c Case, f Facts) Report {
	said = Diagnostic(said)
	if own := Sentence(said, f); own != Internal {
		return New(own, f)
	}
	ip := Foreign(f.IP)
	for _, opening := range []string{"Connected to " + ip + " ", ip + " "} {
		if strings.HasPrefix(said, opening) {
			return Report{Temporary, said}
		}
	}
	if said != "" && f.Reason == "" {
		f.Detail = "The protocol program said: " + said
	}
	return New(c, f)
}
