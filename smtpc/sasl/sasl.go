// Package sasl has the client's side of the mechanisms by which a mail client logs in.
//
//	RFC 4422        SASL
//	RFC 4616        PLAIN
//	LOGIN           draft-murchison-sasl-login
//	RFC 2195        CRAM-MD5
//	RFC 5802, 7677  SCRAM-SHA-256 and SCRAM-SHA-256-PLUS
//	RFC 9266        tls-exporter, the channel binding of PLUS
//	RFC 7628        OAUTHBEARER
//	XOAUTH2         as Google and Microsoft describe it
//
// It knows no SMTP: challenges and responses are bytes, and whoever carries them encodes
// them. [Row] says which mechanisms an account can use with a server, in the order in which
// they are tried.
//
// No error of this package has a secret or a user name in it.
package sasl

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"nightmare.mail/mxf/control/secret"
)

// What a mechanism says of a server. errors.Is finds them.
var (
	// ErrProof: the server has accepted the login and has not proved that it knows the
	// password, or its proof is wrong (RFC 5802 section 3). Another server may be in its
	// place, so nothing else is to be said to it.
	ErrProof = errors.New("the server has not proved that it knows the password")
	// ErrTurn: the server wants an answer where the mechanism has nothing left to say.
	ErrTurn = errors.New("the server sent a challenge out of turn")
	// ErrChallenge: a challenge that the mechanism has to read is not what it should be.
	ErrChallenge = errors.New("the server sent a bad challenge")
)

// An Only restricts an account to one mechanism. The words are those of control/credentials.
type Only string

// The restrictions.
const (
	Any         Only = ""
	SCRAM       Only = "scram" // both forms
	Plain       Only = "plain"
	Login       Only = "login"
	CRAMMD5     Only = "cram-md5"
	XOAuth2     Only = "xoauth2"
	OAuthBearer Only = "oauthbearer"
)

// An Account is what we log in with. It prints without its secret.
type Account struct {
	User   string        // 1 to 255 bytes, no NUL
	Secret secret.Secret // a password, or with Token an OAuth access token (RFC 6750); no NUL
	Token  bool
	Only   Only

	Host string // the server as the user knows it, for OAUTHBEARER
	Port uint16 // likewise
}

// A Channel is what carries the conversation.
type Channel struct {
	TLS bool
	// Exporter is the binding tls-exporter of the TLS (RFC 9266), 32 bytes. Nil: it has none.
	Exporter []byte
}

// A Mechanism is one login by one mechanism. It serves for one attempt.
type Mechanism interface {
	// Name is the registered name, in capitals.
	Name() string
	// Derived reports whether the server needs the password in a certain form to check
	// what it is told. It may offer the mechanism and not have that form.
	Derived() bool
	// Start returns the initial response, nil where the server speaks first.
	Start() (response []byte, err error)
	// Next returns the response to a challenge. A challenge that could not be decoded
	// is nil. The error is ErrTurn, ErrChallenge, ErrProof, or has them in it: the
	// login is to be given up then.
	Next(challenge []byte) (response []byte, err error)
	// Finish is called when the server has accepted the login. The error is ErrProof.
	Finish() error
}

// The names of the mechanisms.
const (
	nameSCRAMPlus   = "SCRAM-SHA-256-PLUS"
	nameSCRAM       = "SCRAM-SHA-256"
	namePlain       = "PLAIN"
	nameLogin       = "LOGIN"
	nameCRAMMD5     = "CRAM-MD5"
	nameOAuthBearer = "OAUTHBEARER"
	nameXOAuth2     = "XOAUTH2"
)

// The order in which mechanisms are tried. In the clear what shows the password comes last.
var (
	passwordInTLS   = []string{nameSCRAMPlus, nameSCRAM, namePlain, nameLogin, nameCRAMMD5}
	passwordInClear = []string{nameSCRAM, nameCRAMMD5, namePlain, nameLogin}
	token           = []string{nameOAuthBearer, nameXOAuth2}
)

// Row returns the mechanisms that a can use among those that the server has offered, by
// name and without regard to case, in the order in which they are tried. Each is good for one
// attempt. The nonce of SCRAM comes from random; nil is crypto/rand.
func Row(a Account, c Channel, offered []string, random io.Reader) []Mechanism {
	if random == nil {
		random = rand.Reader
	}
	names := make([]string, len(offered))
	for i, name := range offered {
		names[i] = strings.ToUpper(name)
	}
	var row []Mechanism
	for _, name := range a.order(c) {
		if slices.Contains(names, name) && a.usable(name, c) {
			row = append(row, a.mechanism(name, c, slices.Contains(names, nameSCRAMPlus), random))
		}
	}
	return row
}

// order returns the mechanisms for the kind of secret.
func (a *Account) order(c Channel) []string {
	switch {
	case a.Token:
		return token
	case c.TLS:
		return passwordInTLS
	}
	return passwordInClear
}

// usable reports whether a may and can use the mechanism.
func (a *Account) usable(name string, c Channel) bool {
	switch name {
	case nameSCRAMPlus:
		return a.scrams() && len(c.Exporter) > 0
	case nameSCRAM:
		return a.scrams()
	}
	return a.Only == Any || strings.EqualFold(string(a.Only), name)
}

// scrams reports whether a may and can use SCRAM. SASLprep (RFC 4013) leaves printable ASCII
// as it is and forbids control bytes. What is beyond ASCII it would have to normalize.
func (a *Account) scrams() bool {
	return (a.Only == Any || a.Only == SCRAM) && printable(a.User) && printable(a.Secret.Reveal())
}

func printable(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' })
}

// mechanism makes the one of that name. plus reports whether the server offers PLUS.
func (a *Account) mechanism(name string, c Channel, plus bool, random io.Reader) Mechanism {
	user, password := a.User, a.Secret
	switch name {
	case nameSCRAMPlus:
		return &scram{named: nameSCRAMPlus, header: headerPlus, binding: c.Exporter, user: user, password: password, random: random}
	case nameSCRAM:
		s := &scram{named: nameSCRAM, header: headerNone, user: user, password: password, random: random}
		if c.TLS && len(c.Exporter) > 0 && !plus {
			s.header = headerCould
		}
		return s
	case namePlain:
		return &script{named: namePlain, start: func() string { return "\x00" + user + "\x00" + password.Reveal() }}
	case nameLogin:
		return &script{named: nameLogin, next: []func() string{func() string { return user }, password.Reveal}}
	case nameCRAMMD5:
		return &cramMD5{user: user, password: password}
	case nameOAuthBearer:
		return &script{named: nameOAuthBearer, start: a.bearer, next: []func() string{func() string { return "\x01" }}}
	}
	return &script{named: nameXOAuth2, start: a.xoauth2, next: []func() string{func() string { return "" }}}
}

// A script is a mechanism whose responses do not depend on what the server says.
type script struct {
	named string
	start func() string   // nil: there is no initial response
	next  []func() string // one response to each challenge
}

func (s *script) Name() string  { return s.named }
func (s *script) Derived() bool { return false }
func (s *script) Finish() error { return nil }

func (s *script) Start() ([]byte, error) {
	if s.start == nil {
		return nil, nil
	}
	return []byte(s.start()), nil
}

func (s *script) Next([]byte) ([]byte, error) {
	if len(s.next) == 0 {
		return nil, ErrTurn
	}
	response := s.next[0]()
	s.next = s.next[1:]
	return []byte(response), nil
}

// bearer is the initial response of OAUTHBEARER (RFC 7628 section 3.1). A challenge after it
// describes an error, and is answered by one byte 1 (section 3.2.3).
func (a *Account) bearer() string {
	return fmt.Sprintf("n,a=%s,\x01host=%s\x01port=%d\x01auth=Bearer %s\x01\x01", saslname(a.User), a.Host, a.Port, a.Secret.Reveal())
}

// xoauth2 is the initial response of XOAUTH2. A challenge after it describes an error, and is
// answered by nothing.
func (a *Account) xoauth2() string {
	return "user=" + a.User + "\x01auth=Bearer " + a.Secret.Reveal() + "\x01\x01"
}

// saslname is a user name within a message of attributes (RFC 5802 section 5.1).
func saslname(user string) string { return strings.NewReplacer("=", "=3D", ",", "=2C").Replace(user) }
