package smtpc

import (
	"fmt"
	"strings"
)

// Avoid says what the client does not use although the server offers it. The words are those
// of control/smtpavoid.
type Avoid struct {
	Pipelining   bool // PIPELINING: each command waits for its answer
	Size         bool // SIZE: the parameter of MAIL, and the limit that the server announces
	EightBitMIME bool // 8BITMIME: the parameter of MAIL
	SMTPUTF8     bool // SMTPUTF8: an address that needs it is not sent
	EHLO         bool // EHLO: HELO is said first, and nothing is offered
}

// OneByOne makes a conversation like that of qmail-remote, but with EHLO in place of HELO: one
// command at a time, and MAIL without parameters.
var OneByOne = Avoid{Pipelining: true, Size: true, EightBitMIME: true}

// field returns the field that word sets, or nil.
func (a *Avoid) field(word string) *bool {
	switch word {
	case extPipelining:
		return &a.Pipelining
	case extSize:
		return &a.Size
	case ext8BitMIME:
		return &a.EightBitMIME
	case extSMTPUTF8:
		return &a.SMTPUTF8
	case wordEHLO:
		return &a.EHLO
	}
	return nil
}

const wordEHLO = "EHLO"

// avoidWords are all words, in the order in which String has them.
var avoidWords = [...]string{extPipelining, extSize, ext8BitMIME, extSMTPUTF8, wordEHLO}

// ParseAvoid reads the value of MXF_SMTPAVOID: words with commas between, in
// capitals. Any other word is an error. Empty is to avoid nothing.
func ParseAvoid(words string) (Avoid, error) {
	var a Avoid
	if words == "" {
		return a, nil
	}
	for word := range strings.SplitSeq(words, ",") {
		set := a.field(word)
		if set == nil {
			return Avoid{}, fmt.Errorf("%q is none of %s", word, strings.Join(avoidWords[:], ", "))
		}
		*set = true
	}
	return a, nil
}

// String returns the words that ParseAvoid reads.
func (a Avoid) String() string {
	var words []string
	for _, word := range avoidWords {
		if *a.field(word) {
			words = append(words, word)
		}
	}
	return strings.Join(words, ",")
}

// Or returns what a or b avoids.
func (a Avoid) Or(b Avoid) Avoid {
	for _, word := range avoidWords {
		if *b.field(word) {
			*a.field(word) = true
		}
	}
	return a
}

// from returns c without what is avoided.
func (a Avoid) from(c capabilities) capabilities {
	for _, word := range avoidWords {
		if *a.field(word) {
			delete(c, word)
		}
	}
	return c
}
