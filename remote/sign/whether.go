package sign

import (
	"bytes"
	"fmt"
	"strings"

	"nightmare.mail/mxf/control/domain"
)

// Sender returns why mail from an envelope sender is not signed, or nil. Ours reports whether
// a domain is one of this host: lower case, in A-labels, or an address in brackets. Of the
// null sender the header decides: see [Header.NullSender].
func Sender(sender string, ours func(domain string) bool) error {
	if sender == "" {
		return nil
	}
	at := strings.LastIndexByte(sender, '@')
	if at < 0 {
		return Unsigned("the envelope sender has no domain")
	}
	if d, err := domain.Parse(sender[at+1:]); err != nil || !ours(d.String()) {
		return Unsigned("the envelope sender is not one of ours")
	}
	// Such addresses stand for senders elsewhere, whose mail is forwarded.
	for _, prefix := range []string{"SRS0", "SRS1"} {
		if at >= len(prefix) && strings.EqualFold(sender[:len(prefix)], prefix) {
			return Unsigned(fmt.Sprintf("the envelope sender begins with %s: the mail is forwarded", prefix))
		}
	}
	return nil
}

// NullSender returns why mail from the null sender is not signed, or nil: a bounce or an
// automatic answer is ours if it began here.
func (h *Header) NullSender() error {
	switch {
	case h.deliveredTo:
		return Unsigned("the envelope sender is empty and the header has Delivered-To")
	case h.fromNetwork:
		return Unsigned("the envelope sender is empty and the message came from the network")
	}
	return nil
}

// invokedFromNetwork reports whether line begins as the field does that qmail-queue puts on top
// of what qmail-smtpd and its kin hand it.
func invokedFromNetwork(line []byte) bool {
	rest, ok := bytes.CutPrefix(line, []byte("Received: (qmail "))
	if !ok {
		return false
	}
	digits := len(rest) - len(bytes.TrimLeft(rest, "0123456789"))
	return digits > 0 && bytes.HasPrefix(rest[digits:], []byte(" invoked from network)"))
}
