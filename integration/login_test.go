package integration

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
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
		if info, err := os.Stat(place); err != nil || !info.Mode().IsRegular() {
			continue // nothing was written there
		}
		text, err := os.ReadFile(place)
		errs = append(errs, err, betrayal(filepath.Base(place), string(text), words))
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

// Mxf-remote-smtpc by itself, as any TLS client may start it: it logs in at what MXF_RELAY
// names and nowhere else, and without the TLS that is due it says nothing of the login.
func TestLoginOfProgram(t *testing.T) {
	b := newBench(t)
	const line, inTLS = "relay.example::relayuser:password", "SSL_PROTOCOL=TLSv1.3"
	l := must.Get(lab.Open(filepath.Join(t.TempDir(), "home")))(t)
	defer l.Close()
	s := must.Get(l.SMTP(netip.MustParseAddr("127.0.0.2"), lab.SMTP{Name: "relay.example",
		Auth: &smtptest.Auth{Mechanisms: []string{"PLAIN"}, Clear: true, Users: map[string]string{"relayuser": "pass word:1"}}}))(t)
	for _, c := range []struct {
		name, line string
		environ    []string
		status     int
		isLogin    bool
	}{
		{"no relay", line, []string{"MXF_TLS=verify", inTLS}, 0, false},
		{"another relay", line, []string{"MXF_RELAY=other.example", "MXF_TLS=may"}, 0, false},
		{"nothing is said of TLS", line, []string{"MXF_RELAY=relay.example"}, 76, false},
		{"in the clear", line, []string{"MXF_RELAY=relay.example", "MXF_TLS=none"}, 76, false},
		{"TLS as it comes", line, []string{"MXF_RELAY=relay.example", "MXF_TLS=may", inTLS}, 76, false},
		{"TLS that is not verified", line, []string{"MXF_RELAY=relay.example", "MXF_TLS=must", inTLS}, 76, false},
		{"no TLS to verify", line, []string{"MXF_RELAY=relay.example", "MXF_TLS=verify"}, 76, false},
		{"verified", line, []string{"MXF_RELAY=relay.example", "MXF_TLS=verify", inTLS}, 0, true},
		{"unverified, in TLS", line + ",unverified", []string{"MXF_RELAY=relay.example", "MXF_TLS=must", inTLS}, 0, true},
		{"unverified, in the clear", line + ",unverified", []string{"MXF_RELAY=relay.example", "MXF_TLS=none"}, 76, false},
		{"clear", line + ",clear", []string{"MXF_RELAY=relay.example", "MXF_TLS=none"}, 0, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(b.dir, "home", "control", "credentials")
			put(t, path, []byte(c.line+":pass word:1\n"))
			must.OK(t, os.Chmod(path, 0o640))
			l.Inbox.Empty()
			w := way{program: "mxf-remote-smtpc", environ: append(b.environ("MXF_HELO=mine.example"), c.environ...)}
			e := b.run(t, w, s.AddrPort().String(), []byte("Subject: x\n\nx\n"), "a@example.net", []string{"b@example.org"})
			if e.status != c.status || len(e.reports) > 0 != (c.status == 0) {
				t.Errorf("exit %d, reports %q, standard error %q", e.status, e.reports, e.stderr)
			}
			said := must.Get(nth("connection", "1", l.Inbox.Sessions))(t)
			eventually(settle, said.Over)
			all := strings.Join(said.Commands(), "\n")
			if !strings.HasPrefix(all, "EHLO mine.example\n") || strings.Contains(all, "\nAUTH PLAIN AHJlbGF5dXNlcgBwYXNzIHdvcmQ6MQ==\nMAIL") != c.isLogin || strings.Contains(all, "AUTH") != c.isLogin {
				t.Errorf("it said %q", all)
			}
			must.OK(t, betrayal("standard error", e.stderr+strings.Join(e.reports, ""), []string{"relayuser", "pass word", "AHJlbGF5"}))
		})
	}
}
