package main

import (
	"bytes"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"nightmare.mail/mxf/cmd/internal/cmdtest"
	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/smtpc/smtptest"
	"nightmare.mail/mxf/tlsc/tlstest"
)

func TestMain(m *testing.M) { cmdtest.Main(m, main) }

func TestParse(t *testing.T) {
	for _, test := range []struct {
		args             string
		host, recipients string // empty: wrong usage
	}{
		{"example.org", "example.org", "postmaster@example.org"},
		{"a@example.org", "example.org", "a@example.org"},
		{"-ajrv -t 3 -u joe example.org s@example.net", "example.org", "postmaster@example.org"},
		{"-n -t3 example.org s@example.net r1@example.org r2@example.org", "example.org", "r1@example.org r2@example.org"},
		{"-- -x.example", "-x.example", "postmaster@-x.example"},
		{"a@", "", ""}, {"-x example.org", "", ""}, {"-t 0 example.org", "", ""}, {"-t soon example.org", "", ""}, {"-n", "", ""}, {"-ar", "", ""}, {"-u", "", ""},
		{"example.org -n", "", ""}, {"-- example.org -n", "example.org", "postmaster@example.org"},
	} {
		c, err := parse(strings.Fields(test.args))
		if (err == nil) != (test.host != "") || err == nil && (c.host != test.host || strings.Join(c.recipients, " ") != test.recipients) {
			t.Errorf("%q: %+v, %v", test.args, c, err)
		}
	}
	if c, err := parse([]string{"-jv"}); err != nil || c.host != "" || !c.json || !c.verbose || c.seconds != patience {
		t.Errorf("%+v, %v", c, err)
	}
}

// home has a route to a server.
func home(t *testing.T, server *smtptest.Server, files map[string]string) string {
	t.Helper()
	addr := smtptest.Listen(t, server.Serve)
	all := map[string]string{"me": "me.example", "ipme": "192.0.2.1", "smtproutes": ":" + addr}
	for name, text := range files {
		all[name] = text
	}
	return cmdtest.Home(t, all)
}

// What is printed on a pipe has no escape sequences and no line of waiting, and ends in what would
// become of the message; so does the exit status.
func TestProgram(t *testing.T) {
	deferred := smtptest.At(smtptest.Greeting, smtptest.Action{Reply: "450 busy"})
	bounced := smtptest.At(smtptest.MAIL, smtptest.Action{Reply: "550 5.1.8 not you"})
	refusesTLS := smtptest.At(smtptest.STARTTLS, smtptest.Action{Reply: "454 not now"})
	anchors := string(tlstest.NewAuthority("some authority").PEM())
	oneOfTwo := func(p smtptest.Point) smtptest.Action {
		if p.Phase == smtptest.RCPT && p.N == 0 {
			return smtptest.Action{Reply: "550 5.1.1 nobody"}
		}
		return smtptest.Action{}
	}
	for _, test := range []struct {
		name   string
		act    func(smtptest.Point) smtptest.Action
		files  map[string]string
		args   string
		last   string
		status int
	}{
		{"taken", nil, nil, "example.org", "it would be taken by 127.0.0.1, in the clear (control/tlsstrictness 0)", 0},
		{"the plan alone", deferred, nil, "-n example.org", "127.0.0.1", 0},
		{"deferred", deferred, nil, "example.org", "1 address was tried.", 2},
		{"bounced", bounced, nil, "-r example.org s@example.net", "Remote host said: 550 5.1.8 not you", 3},
		{"a young message", refusesTLS, map[string]string{"clearafter": "3600", "trustanchors": "control/anchors.pem", "anchors.pem": anchors}, "example.org", "only once it is 3600 seconds old: a younger one goes by another way or waits (control/clearafter)", 1},
		{"one recipient of two", oneOfTwo, nil, "-r example.org s@example.net r1@example.org r2@example.org", "refused, so it would bounce", 3},
		{"not asked", bounced, nil, "example.org s@example.net", "it would be taken by 127.0.0.1, in the clear (control/tlsstrictness 0)", 0},
		{"settings that cannot be read", nil, map[string]string{"timeoutdns": "soon"}, "example.org", "control/timeoutdns:1", 2},
		{"malformed settings", nil, map[string]string{"timeoutdns": "soon"}, "", "control/timeoutdns:1", 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			environ := []string{home(t, &smtptest.Server{Act: test.act, Extensions: extensions(test.files)}, test.files), "DNSCACHEIP=127.0.0.1:9", "COLUMNS=200"}
			got := cmdtest.Run(t, cmdtest.Command(t, environ, strings.Fields(test.args)...))
			said := strings.TrimSpace(got.Out)
			if test.args != "" { // what would become of the message stands last
				said = said[strings.LastIndexByte(said, '\n')+1:]
			}
			if got.Status != test.status || got.Err != "" || !strings.Contains(said, test.last) || strings.Contains(got.Out, "\x1b") {
				t.Errorf("%+v", got)
			}
		})
	}
}

// extensions has STARTTLS where there are trust anchors.
func extensions(files map[string]string) []string {
	if files["trustanchors"] == "" {
		return nil
	}
	return []string{"STARTTLS"}
}

func TestProgram_usage(t *testing.T) {
	if got := cmdtest.Run(t, cmdtest.Command(t, nil, "-a")); got != cmdtest.Want("", usage+"\n", 100) {
		t.Errorf("%+v", got)
	}
	got := cmdtest.Run(t, cmdtest.Command(t, nil, "-u", "nobody-of-this-name"))
	if got.Status != 111 || got.Out != "" || !strings.Contains(got.Err, "nobody-of-this-name") {
		t.Errorf("%+v", got)
	}
}

// A secret is in nothing that is printed, whatever the server makes of it.
func TestProgram_secret(t *testing.T) {
	const password = "open-sesame-42"
	server := &smtptest.Server{Extensions: []string{"AUTH PLAIN"}, Act: smtptest.At(smtptest.AUTH, smtptest.Action{Reply: "535 not " + password})}
	environ := home(t, server, map[string]string{"credentials": "127.0.0.1::joe:password,clear:" + password})
	folder := strings.TrimPrefix(environ, "MXF_HOME=")
	must.OK(t, os.Chmod(filepath.Join(folder, "control", "credentials"), 0o600))
	for _, option := range []string{"-v", "-jv"} {
		got := cmdtest.Run(t, cmdtest.Command(t, []string{environ, "DNSCACHEIP=127.0.0.1:9"}, option, "example.org"))
		if got.Status != 2 || strings.Contains(got.Out+got.Err, password) || !strings.Contains(got.Out, "control/credentials:1") {
			t.Errorf("%+v", got)
		}
	}
}

// The first signal has what is known printed.
func TestProgram_interrupted(t *testing.T) {
	must.Heeded(t, syscall.SIGINT)
	greeted := make(chan struct{}, 1)
	stalls := func(c *smtptest.Conn) {
		greeted <- struct{}{}
		_, _ = c.Line()
	}
	addr := smtptest.Listen(t, stalls)
	environ := cmdtest.Home(t, map[string]string{"me": "me.example", "ipme": "192.0.2.1", "smtproutes": ":" + addr})
	cmd := cmdtest.Command(t, []string{environ, "DNSCACHEIP=127.0.0.1:9"}, "-j", "-t", "600", "example.org")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	must.OK(t, cmd.Start())
	select {
	case <-greeted:
	case <-time.After(must.Patience):
		t.Fatal("no connection")
	}
	must.OK(t, cmd.Process.Signal(syscall.SIGINT))
	_ = cmd.Wait()
	var r struct {
		Ways    []any
		Outcome struct{ Letter, Text string }
	}
	if err := json.Unmarshal(out.Bytes(), &r); err != nil || len(r.Ways) != 1 || r.Outcome.Letter != "" || !strings.HasPrefix(r.Outcome.Text, "interrupted") || errs.Len() > 0 {
		t.Errorf("%v: %s %s", err, &out, &errs)
	}
	if _, port, err := net.SplitHostPort(addr); err != nil || port == "" {
		t.Error(err)
	}
}
