package control

import (
	"fmt"
	"strings"

	"nightmare.mail/mxf/control/domain"
	"nightmare.mail/mxf/control/secret"
)

const (
	maxSelector    = 63 // bytes: what fits one label of a name (RFC 1035 2.3.4)
	maxSigningKeys = 4  // lines that sign one message: a key of each kind, twice while they change
)

// A SigningKey is one line of control/signingkeys: a key that signs for a domain by DKIM.
type SigningKey struct {
	Line     int    // from 1
	Domain   string // what d= says: lower case, A-labels
	Selector string // what s= says: 1 to 63 bytes
	Path     string // absolute, of a private key in PEM

	home dir
}

// SigningKeys are the keys by domain, in the order of the file.
type SigningKeys struct{ domains keyed[[]SigningKey] }

// signingKeys reads control/me too, if there are any keys: mail from that domain is ours.
func (d dir) signingKeys(s *Settings) error {
	data, err := d.read("signingkeys")
	if data == nil || err != nil {
		return err
	}
	if s.SigningKeys, err = d.parseSigningKeys(data); err != nil {
		return err
	}
	me, err := d.value("me")
	if err != nil {
		return err
	}
	// A name that only HELO can say is nobody's domain.
	if parsed, err := domain.Parse(me); err == nil {
		s.Me = parsed.String()
	}
	return nil
}

func (d dir) parseSigningKeys(data []byte) (keys SigningKeys, err error) {
	err = d.entries("signingkeys", data, func(line int, entry string) string {
		pattern, key, problem := d.parseSigningKey(entry)
		if problem != "" {
			return problem
		}
		key.Line = line
		beside := keys.domains[pattern]
		for _, other := range beside {
			if strings.EqualFold(other.Selector, key.Selector) {
				return "expected each domain and selector once, found these for the second time"
			}
		}
		if len(beside) == maxSigningKeys {
			return fmt.Sprintf("expected at most %d keys for one domain, found one more", maxSigningKeys)
		}
		keys.domains.set(pattern, append(beside, key))
		return ""
	})
	if err != nil {
		return SigningKeys{}, err
	}
	return keys, nil
}

// parseSigningKey parses domain:selector:key. problem says what is wrong, and is "" if
// nothing is.
func (d dir) parseSigningKey(entry string) (pattern string, key SigningKey, problem string) {
	wrong := func(problem string) (string, SigningKey, string) { return "", SigningKey{}, problem }
	field := allFields(entry)
	if len(field) != 3 {
		return wrong("expected domain:selector:key, found " + foundFields(field))
	}
	pattern, err := parsePattern(field[0])
	if err != nil || pattern == "" || pattern[0] == '[' {
		return wrong(fmt.Sprintf("expected a domain or a .suffix, found %s", found(field[0])))
	}
	if !isSelector(field[1]) {
		return wrong(fmt.Sprintf("expected a selector of letters, digits, hyphens and dots between, of at most %d bytes, found %s",
			maxSelector, found(field[1])))
	}
	if problem := checkPath(field[2]); problem != "" {
		return wrong(problem)
	}
	if field[2] == "" {
		return wrong("expected the path of a key as the third field, found none")
	}
	return pattern, SigningKey{Domain: strings.TrimPrefix(pattern, "."), Selector: field[1], Path: d.absolute(field[2]), home: d.plain()}, ""
}

// isSelector reports whether s is labels as RFC 6376 3.1 has them, which do not begin or
// end with a hyphen.
func isSelector(s string) bool {
	return len(s) <= maxSelector && domain.IsName(s) && !strings.Contains(s, "_")
}

// Empty reports whether there are no keys at all.
func (k SigningKeys) Empty() bool { return len(k.domains) == 0 }

// For returns the keys that sign for a domain, in the order of the file: all lines of the
// domain itself, else of its longest suffix that has any. name is a domain as an address
// has it.
func (k SigningKeys) For(name string) []SigningKey {
	d, err := domain.Parse(name)
	if err != nil {
		return nil
	}
	keys, _ := k.domains.first(nameKeys(d))
	return keys
}

// Place returns the file and the line, for errors and the trace.
func (k SigningKey) Place() string { return fmt.Sprintf("control/signingkeys:%d", k.Line) }

// Read returns the content of the key's file. An error is an *Error at the line: a file
// that cannot be read, that others can read, or that has more than 64 KiB.
func (k SigningKey) Read() (secret.Secret, error) {
	data, err := k.home.readSecret("signingkeys", k.Line, k.Path)
	if err != nil {
		return secret.Secret{}, err
	}
	if len(data) > maxSecretFile {
		return secret.Secret{}, k.home.malformed("signingkeys", k.Line, fmt.Sprintf("expected a key of at most %d bytes, found a longer one", maxSecretFile))
	}
	return secret.New(string(data)), nil
}
