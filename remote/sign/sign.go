// Package sign makes DKIM signatures: it reads a message as it is stored, says whether it is
// to be signed, and returns the fields that go on top of it. It is given keys and a reader,
// and opens nothing.
//
//	message ─▶ Read ─▶ Header: From, NullSender ─▶ Sign ─▶ DKIM-Signature fields
//
// What is signed is the message as SMTP has it: each LF, CR LF and bare CR is one line end.
// Both canonicalizations are relaxed.
//
//	RFC 6376              signatures; 3.4.2 and 3.4.4 canonicalization, 3.5 tags, 8.15 added fields
//	RFC 8301              RSA with SHA-256, at least 1024 bits
//	RFC 8463              Ed25519
//	RFC 5322, 6532, 6854  the mailboxes of From: obsolete forms, UTF-8, groups
//	RFC 7468, 8017, 5958  private keys: PEM, PKCS #1, PKCS #8
package sign

import (
	"crypto/sha256"
	"encoding/base64"
	"hash"
	"strconv"
	"time"
)

// An Unsigned error is why a message goes without a signature. Its text is for the trace. Any
// other error of this package says that something failed.
type Unsigned string

func (u Unsigned) Error() string { return string(u) }

// A Key is what one signature is made with. Its text has no secret.
type Key struct {
	Domain   string // d=, lower case, in A-labels
	Selector string // s=
	Private  *PrivateKey
}

// Sign reads the body and returns a DKIM-Signature field for each of keys, the first on top,
// with the line ends of the message. Now is t=. An error is one of reading or of a key.
func (h *Header) Sign(keys []Key, now time.Time) ([]byte, error) {
	body, err := hashBody(h.text, h.body)
	if err != nil {
		return nil, err
	}
	signed, err := h.hashFields()
	if err != nil {
		return nil, err
	}
	var fields []byte
	for i := range keys {
		f := h.describe(&keys[i], body, now)
		signature, err := keys[i].sign(signed, f.text)
		if err != nil {
			return nil, err
		}
		f.fill(base64.StdEncoding.EncodeToString(signature))
		fields = append(append(fields, f.text...), h.newline...)
	}
	return fields, nil
}

const signatureName = "DKIM-Signature"

// describe returns the signature field up to the value of b=, which ends it: what is hashed has
// an empty one there. The value begins on the line of its name: not every verifier takes a
// fold before it for a part of it.
func (h *Header) describe(k *Key, body []byte, now time.Time) *folded {
	f := &folded{newline: h.newline}
	f.join(signatureName + ":")
	f.word("v=1;")
	f.word("a=" + k.Private.Algorithm() + ";")
	f.word("c=relaxed/relaxed;")
	f.word("d=" + k.Domain + ";")
	f.word("s=" + k.Selector + ";")
	f.word("t=" + strconv.FormatInt(now.Unix(), 10) + ";")
	names := h.names()
	for i, name := range names {
		end := ":"
		if i == len(names)-1 {
			end = ";"
		}
		if i == 0 {
			f.word("h=" + name + end)
		} else {
			f.join(name + end)
		}
	}
	f.word("bh=" + base64.StdEncoding.EncodeToString(body) + ";")
	f.fold()
	f.join("b=")
	return f
}

// sign signs the fields that were hashed into signed, followed by field, the signature's own
// (RFC 6376 section 3.7).
func (k *Key) sign(signed hash.Cloner, field []byte) ([]byte, error) {
	h, err := signed.Clone()
	if err != nil {
		return nil, err
	}
	c := canonicalField{to: h}
	c.name(signatureName)
	c.add(field[len(signatureName)+1:])
	c.flush() // without a line end
	return k.Private.sign(h.Sum(nil))
}

// newHash is the one that both algorithms hash with.
func newHash() hash.Cloner { return sha256.New().(hash.Cloner) }

// maxWidth is the length of a line of ours, in bytes without its end (RFC 5322 section 2.1.1
// recommends 78).
const maxWidth = 76

// A folded text is a header field whose lines are folded where the words allow.
type folded struct {
	text    []byte
	newline string
	column  int // bytes of the last line
}

// word appends s after a space, or on a new line.
func (f *folded) word(s string) {
	if f.column+1+len(s) > maxWidth {
		f.fold()
	} else {
		f.put(" ")
	}
	f.put(s)
}

// join appends s at once, or on a new line.
func (f *folded) join(s string) {
	if f.column+len(s) > maxWidth {
		f.fold()
	}
	f.put(s)
}

// fill appends base64, which may be folded anywhere.
func (f *folded) fill(s string) {
	for s != "" {
		n := min(maxWidth-f.column, len(s))
		if n <= 0 {
			f.fold()
			continue
		}
		f.put(s[:n])
		s = s[n:]
	}
}

func (f *folded) fold() {
	f.text = append(append(f.text, f.newline...), '\t')
	f.column = 1
}

func (f *folded) put(s string) {
	f.text = append(f.text, s...)
	f.column += len(s)
}
