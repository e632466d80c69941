// Package avoid has what an SMTP client can be told not to use, in the words of
// control/smtpavoid and $MXF_SMTPAVOID. It is a leaf: the file, the client and the
// environment of a program all have the same words.
//
//	RFC 5321 4.1.1.1  EHLO and HELO
//	RFC 2920          PIPELINING
//	RFC 1870          SIZE
//	RFC 6152          8BITMIME
//	RFC 6531          SMTPUTF8
package avoid

import (
	"fmt"
	"strings"
)

// A Set is what a client does not use although the server offers it. The zero Set is nothing.
type Set struct {
	Pipelining   bool // PIPELINING: each command waits for its answer
	Size         bool // SIZE: the parameter of MAIL, and the limit that the server announces
	EightBitMIME bool // 8BITMIME: the parameter of MAIL
	SMTPUTF8     bool // SMTPUTF8: an address that needs it is not sent
	EHLO         bool // EHLO: HELO is said first, and nothing is offered
}

// fields are the words, in the order in which String has them, and what each one sets.
var fields = [...]struct {
	word string
	of   func(*Set) *bool
}{
	{"PIPELINING", func(s *Set) *bool { return &s.Pipelining }},
	{"SIZE", func(s *Set) *bool { return &s.Size }},
	{"8BITMIME", func(s *Set) *bool { return &s.EightBitMIME }},
	{"SMTPUTF8", func(s *Set) *bool { return &s.SMTPUTF8 }},
	{"EHLO", func(s *Set) *bool { return &s.EHLO }},
}

// Known returns all words with ", " between.
func Known() string {
	words := make([]string, len(fields))
	for i := range fields {
		words[i] = fields[i].word
	}
	return strings.Join(words, ", ")
}

// A WordError is the error of a word that is none of ours.
type WordError struct{ Word string }

func (e *WordError) Error() string { return fmt.Sprintf("%q is none of %s", e.Word, Known()) }

// Parse reads words with commas between, in capitals and without blanks. Empty is to avoid
// nothing. The error is a *WordError.
func Parse(words string) (Set, error) {
	var s Set
	if words == "" {
		return s, nil
	}
	for word := range strings.SplitSeq(words, ",") {
		set := s.field(word)
		if set == nil {
			return Set{}, &WordError{word}
		}
		*set = true
	}
	return s, nil
}

// field returns the field that word sets, or nil.
func (s *Set) field(word string) *bool {
	for i := range fields {
		if fields[i].word == word {
			return fields[i].of(s)
		}
	}
	return nil
}

// Words returns the words of s: those of extensions are their keywords in the answer to EHLO.
func (s Set) Words() []string {
	var words []string
	for i := range fields {
		if *fields[i].of(&s) {
			words = append(words, fields[i].word)
		}
	}
	return words
}

// String returns the words that Parse reads.
func (s Set) String() string { return strings.Join(s.Words(), ",") }

// Or returns what s or other avoids.
func (s Set) Or(other Set) Set {
	for i := range fields {
		if *fields[i].of(&other) {
			*fields[i].of(&s) = true
		}
	}
	return s
}
