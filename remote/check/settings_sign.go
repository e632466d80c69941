package check

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/remote/dns"
	"nightmare.mail/mxf/remote/sign"
)

const (
	// goodBits is the size of an RSA key that is good for years (RFC 8301 section 3.2).
	goodBits = 2048
	// maxString is the longest string of a TXT record, in bytes (RFC 1035 section 3.3).
	maxString = 255
)

// A signer is a line of control/signingkeys whose key can be used.
type signer struct {
	control.SigningKey
	key *sign.PrivateKey
}

// question asks for the record that publishes the key (RFC 6376 section 3.6.2.1).
func (s *signer) question() dns.Question {
	return dns.Question{Name: lower(s.Selector + "._domainkey." + s.Domain), Type: dns.TypeTXT}
}

// signingKeys looks at the keys of DKIM, and at the records that publish them.
func (l *look) signingKeys(ctx context.Context) {
	var signers []signer
	for _, line := range l.settings.SigningKeys.Lines() {
		if key := l.signingKey(line); key != nil {
			signers = append(signers, signer{line, key})
		}
	}
	if len(signers) == 0 || !l.canAsk() {
		return
	}
	var questions []dns.Question
	for i := range signers {
		if q := signers[i].question(); !slices.Contains(questions, q) {
			questions = append(questions, q)
		}
	}
	answers := l.ask(ctx, questions)
	for i := range signers {
		l.published(&signers[i], answers[signers[i].question()])
	}
}

// signingKey reads the key of a line. It is nil if it cannot be used.
func (l *look) signingKey(line control.SigningKey) *sign.PrivateKey {
	const file = "control/signingkeys"
	text, err := line.Read()
	if err != nil {
		l.failFor(err)
		return nil
	}
	key, err := sign.ParseKey([]byte(text.Reveal()))
	if err != nil {
		l.fail(file, line.Line, "make a key: openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out FILE",
			"the key cannot be used, and mail of %s waits: %v", line.Domain, err)
		return nil
	}
	if strings.HasPrefix(key.Algorithm(), "rsa") && key.Bits() < goodBits {
		l.warn(file, line.Line, "make a key of 2048 bits, with a selector of its own", "the key has %d bits: fewer than 2048 are thought to be weak", key.Bits())
	}
	return key
}

// published compares a key with its record.
func (l *look) published(s *signer, a *dns.Answer) {
	const file = "control/signingkeys"
	name := s.question().Name
	do := "publish " + record(name, s.key.Record())
	var keys []map[string]string
	for _, txt := range a.TXT {
		if tags := tagsOf(txt); tags["p"] != "" || strings.Contains(txt, "p=") {
			keys = append(keys, tags)
		}
	}
	switch {
	case a.Failed():
		l.note(file, s.Line, "the record of the key cannot be looked up for now: %s: %v", name, a.Err)
	case len(keys) == 0:
		l.warn(file, s.Line, do, "there is no TXT record %s with the key, so nobody can verify the signatures", name)
	case len(keys) > 1:
		l.warn(file, s.Line, "leave one of them: "+record(name, s.key.Record()), "there are %d TXT records %s with a key, and receivers take any of them", len(keys), name)
	default:
		l.sameKey(s, name, keys[0], do)
	}
}

// sameKey compares a key with the tags of its record.
func (l *look) sameKey(s *signer, name string, tags map[string]string, do string) {
	const file = "control/signingkeys"
	own := tagsOf(s.key.Record())
	kind := tags["k"]
	if kind == "" {
		kind = "rsa" // RFC 6376 section 3.6.1
	}
	hashes := tags["h"]
	switch {
	case tags["p"] == "":
		l.warn(file, s.Line, do, "the key is revoked: the TXT record %s has an empty p", name)
	case kind != own["k"] || tags["p"] != own["p"]:
		l.warn(file, s.Line, do, "the TXT record %s has another key, so no signature verifies", name)
	case hashes != "" && !slices.Contains(strings.Split(hashes, ":"), "sha256"):
		l.warn(file, s.Line, do, "the TXT record %s does not allow sha256 (h=%s), so no signature verifies", name, hashes)
	case slices.Contains(strings.Split(tags["t"], ":"), "y"):
		l.note(file, s.Line, "the TXT record %s says that the domain is only testing (t=y)", name)
	default:
		l.ok(file, s.Line, "the key is that of the TXT record %s", name)
	}
}

// tagsOf reads the tags of a key record (RFC 6376 section 3.2), without white space.
func tagsOf(text string) map[string]string {
	tags := map[string]string{}
	for tag := range strings.SplitSeq(text, ";") {
		name, value, found := strings.Cut(tag, "=")
		if found {
			tags[strings.TrimSpace(name)] = strings.Join(strings.Fields(value), "")
		}
	}
	return tags
}

// record is a TXT record as a zone file has it.
func record(name, text string) string {
	var quoted []string
	for part := range slices.Chunk([]byte(text), maxString) {
		quoted = append(quoted, fmt.Sprintf("%q", part))
	}
	return name + ". IN TXT ( " + strings.Join(quoted, " ") + " )"
}
