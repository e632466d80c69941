package smtpc

import "nightmare.mail/mxf/control/avoid"

// Avoid says what the client does not use although the server offers it.
type Avoid = avoid.Set

// OneByOne makes a conversation like that of qmail-remote, but with EHLO in place of HELO: one
// command at a time, and MAIL without parameters.
var OneByOne = Avoid{Pipelining: true, Size: true, EightBitMIME: true}

// without returns c without what is avoided.
func (c capabilities) without(a Avoid) capabilities {
	for _, keyword := range a.Words() {
		delete(c, keyword)
	}
	return c
}
