package control

import (
	"bytes"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"

	"nightmare.mail/mxf/control/domain"
	"nightmare.mail/mxf/control/regular"
	"nightmare.mail/mxf/control/secret"
	"nightmare.mail/mxf/control/stamp"
)

// Limits of what a login says, in bytes. A line of AUTH has room for them in base64.
const (
	maxUser     = 255
	maxPassword = 1024
	maxToken    = 8192
)

// A Kind says what the secret of a login is and where it is.
type Kind string

// The kinds, as the file has them.
const (
	Password     Kind = "password"     // the password stands in the line
	PasswordFile Kind = "passwordfile" // the first line of a file
	TokenFile    Kind = "tokenfile"    // the first line of a file, an OAuth access token (RFC 6750)
)

// The mechanisms that a line can ask for. Scram means both forms of SCRAM-SHA-256.
const (
	Scram       = "scram"
	Plain       = "plain"
	Login       = "login"
	CRAMMD5     = "cram-md5"
	XOAuth2     = "xoauth2"
	OAuthBearer = "oauthbearer"
)

// mechanisms are those that fit a kind.
var mechanisms = map[Kind][]string{
	Password:     {Scram, Plain, Login, CRAMMD5},
	PasswordFile: {Scram, Plain, Login, CRAMMD5},
	TokenFile:    {XOAuth2, OAuthBearer},
}

// A Credential is one line of control/credentials: how we log in at a relay. It prints as
// its file and line.
type Credential struct {
	Line int
	User string // 1 to 255 bytes without control bytes; belongs in no trace, report or error
	Kind Kind

	Unverified bool   // TLS always, its certificate is not enforced
	Clear      bool   // no demand on TLS; never together with Unverified
	Only       string // the one mechanism to use, in the word of the file; "": any that fits

	home     dir
	password secret.Secret // of Password
	path     string        // absolute, of the other kinds
}

// String returns the place of the line, for the trace.
func (c Credential) String() string { return fmt.Sprintf("control/credentials:%d", c.Line) }

// Format prints String, whatever the verb and its flags: none of them shows the user. See
// [fmt.Formatter].
func (c Credential) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, c.String()) }

// Read returns the secret. A file is read anew each time, because a token is renewed every
// hour. An error is an *Error at the line of control/credentials, also for what is wrong
// with the file that it names.
func (c Credential) Read() (secret.Secret, error) {
	if c.Kind == Password {
		return c.password, nil
	}
	data, err := c.home.readSecret("credentials", c.Line, c.path)
	if err != nil {
		return secret.Secret{}, err
	}
	first, _, _ := bytes.Cut(data, []byte("\n"))
	words := string(trim(first))
	if problem := checkSecretWords(words, c.Kind); problem != "" {
		return secret.Secret{}, c.home.malformed("credentials", c.Line, problem)
	}
	return secret.New(words), nil
}

// Credentials are the lines of control/credentials.
type Credentials struct {
	relays keyed[keyed[Credential]]
	stamp  stamp.Stamp
}

// Stamp is that of the file: the zero Stamp where there is none.
func (c Credentials) Stamp() stamp.Stamp { return c.stamp }

// ReadCredentials reads control/credentials of a home, and checks it as a whole. There are none
// where there is no such file. An error is an *Error.
func ReadCredentials(home string) (Credentials, error) {
	d, err := openDir(home)
	if err != nil {
		return Credentials{}, err
	}
	data, seen, err := d.readCredentials()
	if err != nil {
		return Credentials{}, err
	}
	c, err := d.parseCredentials(data)
	c.stamp = seen
	return c, err
}

// For returns the login for a relay and an envelope sender, nil if there is none. relay is what
// [Relay.Name] returns; sender is as in the argument, "" for the null sender.
//
// Only a relay is logged in at. The caller must not ask for an exchanger that DNS gave.
func (c Credentials) For(relay, sender string) *Credential {
	key, ok := relayKey(relay)
	if !ok {
		return nil
	}
	if found, fits := c.relays[key].first(senderKeys(sender)); fits {
		return &found
	}
	return nil
}

// readCredentials is read for a file that is a secret. It returns the stamp of what it
// has read too.
func (d dir) readCredentials() (data []byte, seen stamp.Stamp, err error) {
	const file = "credentials"
	info, err := d.stat(file)
	if info == nil || err != nil {
		return nil, seen, err
	}
	f, info, err := regular.OpenKnown(d.name(file), os.O_RDONLY, 0)
	if err != nil {
		return nil, seen, d.unreadable(file, err)
	}
	defer f.Close()
	if err := d.checkSecret(file, 0, info.Mode()); err != nil {
		return nil, seen, err
	}
	data, err = d.readAll(file, f, info.Size())
	return data, stamp.OfRegular(info), err
}

func (d dir) parseCredentials(data []byte) (Credentials, error) {
	all := keyed[keyed[Credential]]{}
	err := d.entries("credentials", data, func(line int, entry string) string {
		relay, sender, c, problem := d.parseCredential(entry)
		if problem != "" {
			return problem
		}
		c.Line = line
		senders := all[relay]
		if !senders.add(sender, c) {
			return fmt.Sprintf("expected each relay and sender once, found another line for this sender at %q", relay)
		}
		all[relay] = senders
		return ""
	})
	if err != nil {
		return Credentials{}, err
	}
	return Credentials{relays: all}, nil
}

// parseCredential parses relay:sender:user:how:secret. problem says what is wrong and in
// which field, and is "" if nothing is. It repeats nothing of the line: who mistakes one
// field for another has a secret in any of them.
func (d dir) parseCredential(entry string) (relay, sender string, c Credential, problem string) {
	wrong := func(problem string) (string, string, Credential, string) { return "", "", Credential{}, problem }
	field := fields(entry, 5)
	if len(field) < 5 {
		return wrong("expected relay:sender:user:how:secret, found " + foundFields(field))
	}
	relay, ok := relayKey(field[0])
	if !ok {
		return wrong("expected a host name, an IPv4 address or an address in brackets as the relay, the first field")
	}
	if sender, problem = parseSender(field[1]); problem != "" {
		return wrong("expected an address, @domain, @.suffix, <> or nothing as the sender, the second field")
	}
	if !isUser(field[2]) {
		return wrong(fmt.Sprintf("expected a user of 1 to %d bytes without control bytes as the third field", maxUser))
	}
	c = Credential{User: field[2], home: d.plain()}
	if problem = c.parseHow(field[3]); problem != "" {
		return wrong(problem)
	}
	if problem = c.parseSecret(field[4]); problem != "" {
		return wrong(problem)
	}
	return relay, sender, c, ""
}

// relayKey returns the one form of a relay's name or address, which [Relay.Name] returns,
// and whether text is one. A route can have an IPv6 address in brackets only; the name of
// a relay has no brackets.
func relayKey(text string) (key string, ok bool) {
	if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
		return addr.Unmap().String(), true
	}
	relay, problem := parseRelay(text)
	return relay.Name(), problem == "" && relay.Port == 0 && relay.Name() != ""
}

func isUser(s string) bool {
	return len(s) >= 1 && len(s) <= maxUser && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}

// parseHow parses a kind and its options, commas between.
func (c *Credential) parseHow(how string) (problem string) {
	words := strings.Split(how, ",")
	c.Kind = Kind(words[0])
	fitting, known := mechanisms[c.Kind]
	if !known {
		return "expected password, passwordfile or tokenfile, and then options with commas between, as the fourth field"
	}
	for _, word := range words[1:] {
		again := false
		switch {
		case word == "unverified":
			again, c.Unverified = c.Unverified, true
		case word == "clear":
			again, c.Clear = c.Clear, true
		case slices.Contains(fitting, word):
			again, c.Only = c.Only != "", word
		default:
			return fmt.Sprintf("expected only unverified, clear, %s as options of %s in the fourth field", strings.Join(fitting, ", "), c.Kind)
		}
		if again {
			return "expected each option once, and one mechanism at most, in the fourth field"
		}
	}
	if c.Unverified && c.Clear {
		return "expected unverified or clear, not both, in the fourth field"
	}
	return ""
}

// parseSecret takes the last field: a password, or the path of a file.
func (c *Credential) parseSecret(field string) (problem string) {
	if c.Kind == Password {
		if problem := checkSecretWords(field, c.Kind); problem != "" {
			return problem + ", as the fifth field"
		}
		c.password = secret.New(field)
		return ""
	}
	if field == "" || checkPath(field) != "" {
		return fmt.Sprintf("expected the path of a file, without blanks before it, as the fifth field of a %s", c.Kind)
	}
	c.path = c.home.absolute(field)
	return ""
}

// checkSecretWords checks a password or a token. problem says what is wrong, and is "" if
// nothing is.
func checkSecretWords(words string, kind Kind) (problem string) {
	what, limit := "password", maxPassword
	if kind == TokenFile {
		what, limit = "token", maxToken
	}
	expected := fmt.Sprintf("expected a %s of 1 to %d bytes", what, limit)
	switch {
	case words == "":
		return expected + ", found none"
	case len(words) > limit:
		return expected + ", found a longer one"
	case strings.ContainsAny(words, domain.Forbidden):
		return expected + " without NUL and CR, found one of these"
	}
	return ""
}
