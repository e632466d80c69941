package integration

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"nightmare.mail/mxf/integration/lab"
	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/smtpc/smtptest"
)

// loginOption reads the options of a server that has logins: auth=MECHANISM,..., for which
// it is announced; user:NAME=PASSWORD and token:NAME=TOKEN; oldauth (AUTH= alone), clearauth
// (outside TLS too), demand (530 to MAIL without), iterations=NUMBER and noproof (SCRAM). Faults
// are those of the steps auth, auth:MECHANISM, response and response:NUMBER.
func loginOption(auth **smtptest.Auth, key, value string) (known bool, err error) {
	a := *auth
	if a == nil {
		a = &smtptest.Auth{Users: make(map[string]string), Tokens: make(map[string]string)}
	}
	kind, name, _ := strings.Cut(key, ":")
	switch kind {
	case "auth":
		a.Mechanisms = strings.Split(value, ",")
	case "user":
		a.Users[name] = unescape(value)
	case "token":
		a.Tokens[name] = value
	case "oldauth":
		a.Old = true
	case "clearauth":
		a.Clear = true
	case "demand":
		a.Demand = true
	case "iterations":
		a.Iterations, err = strconv.Atoi(value)
	case "noproof":
		a.NoProof = true
	default:
		return false, nil
	}
	*auth = a
	return true, err
}

// spy makes a program that writes down what it and its parent are told, and becomes another.
func (r *rig) spy(program string) (string, error) {
	path := r.Home.Path("bin/spy")
	const script = `#!/bin/sh
{ env; printf '%%s\n' "$@"; tr '\0' '\n' </proc/$PPID/environ; tr '\0' '\n' </proc/$PPID/cmdline; } >>%q
exec %q "$@"
`
	return path, os.WriteFile(path, fmt.Appendf(nil, script, r.told(), program), 0o755)
}

// told is where the spy writes to.
func (r *rig) told() string { return r.Home.Path("told") }

// discreet is the error of a delivery that has told something of a login.
func (r *rig) discreet(o *lab.Outcome, trace string) error {
	words := r.private()
	var errs []error
	for _, place := range []string{trace, r.told()} {
		text, err := os.ReadFile(place)
		if err == nil {
			errs = append(errs, betrayal(filepath.Base(place), string(text), words))
		} else if !os.IsNotExist(err) {
			errs = append(errs, err)
		}
	}
	return errors.Join(append(errs, betrayal("the reports", string(o.Raw), words))...)
}

// betrayal is the error of a text that has one of words.
func betrayal(place, text string, words []string) error {
	for _, word := range words {
		if i := strings.Index(text, word); i >= 0 {
			return fmt.Errorf("%s: there is %q in %q", place, word, text[max(0, i-100):min(len(text), i+len(word)+100)])
		}
	}
	return nil
}

// shortest is the length of what is too short for a word of its own, in bytes.
const shortest = 6

// private is what nobody may be told: users and secrets of control/credentials, in the clear
// and in base64, and what servers were told.
func (r *rig) private() (words []string) {
	for _, s := range r.Inbox.Sessions() {
		words = append(words, s.Secrets()...)
	}
	data, _ := os.ReadFile(r.Home.Path("control/credentials"))
	for line := range strings.Lines(string(data)) {
		fields := strings.SplitN(strings.TrimRight(line, " \t\n"), ":", 5)
		if len(fields) < 5 || strings.HasPrefix(line, "#") {
			continue
		}
		user, secret := fields[2], fields[4]
		if kind, _, _ := strings.Cut(fields[3], ","); kind != "password" {
			secret = r.firstLine(secret)
		}
		words = append(words, user, secret, base64.StdEncoding.EncodeToString([]byte(user)), base64.StdEncoding.EncodeToString([]byte(secret)),
			base64.StdEncoding.EncodeToString([]byte("\x00"+user+"\x00"+secret)))
	}
	long := words[:0]
	for _, word := range words {
		if len(word) >= shortest {
			long = append(long, word)
		}
	}
	return long
}

func (r *rig) firstLine(path string) string {
	if !filepath.IsAbs(path) {
		path = r.Home.Path(path)
	}
	data, _ := os.ReadFile(path)
	first, _, _ := strings.Cut(string(data), "\n")
	return strings.TrimRight(first, " \t")
}

// hidden is text without what clients said in base64.
func (r *rig) hidden(text string) string {
	var secrets []string
	for _, s := range r.Inbox.Sessions() {
		secrets = append(secrets, s.Secrets()...)
	}
	// One may be a part of another.
	slices.SortFunc(secrets, func(a, b string) int { return len(b) - len(a) })
	for _, secret := range secrets {
		text = strings.ReplaceAll(text, secret, "(secret)")
	}
	return text
}

// What scripts of logins rely on: words of a login are found in whatever is told.
func TestDiscreet(t *testing.T) {
	l := must.Get(lab.Open(filepath.Join(t.TempDir(), "home")))(t)
	defer l.Close()
	r := &rig{Lab: l, work: t.TempDir()}
	must.OK(t, l.Home.Set("credentials", "# x", "relay.example::relayuser:password:pass word:1", "other.example::jo:tokenfile:control/token"),
		l.Home.Set("token", "ya29.token  ", "second"))
	for text, told := range map[string]bool{
		"nothing":                          false,
		"a pass word:1 b":                  true,
		"cGFzcyB3b3JkOjE=":                 true, // the password
		"AHJlbGF5dXNlcgBwYXNzIHdvcmQ6MQ==": true, // of PLAIN
		"by relayuser":                     true,
		"auth=Bearer ya29.token":           true,
		"jo, second":                       false,
	} {
		if err := r.discreet(&lab.Outcome{Raw: []byte(text)}, r.trace()); (err != nil) != told {
			t.Errorf("in the reports, %q: %v", text, err)
		}
		for _, place := range []string{r.trace(), r.told()} {
			put(t, place, []byte(text))
			if err := r.discreet(new(lab.Outcome), r.trace()); (err != nil) != told {
				t.Errorf("%s, %q: %v", place, text, err)
			}
			must.OK(t, os.Remove(place))
		}
	}
}
