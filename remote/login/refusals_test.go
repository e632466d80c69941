package login

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/control/secret"
	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/remote/report"
)

const usual = "relay.example::joe:password:word\n"

// written writes control/credentials, and is accounts.
func written(t *testing.T, home, text string, at time.Time) func(relay, sender string) Account {
	t.Helper()
	path := filepath.Join(home, "control", "credentials")
	must.OK(t, os.WriteFile(path, []byte(text), 0o600), os.Chtimes(path, at, at))
	return accounts(t, home)
}

// accounts reads control/credentials, and returns the account of a sender at a relay.
func accounts(t *testing.T, home string) func(relay, sender string) Account {
	t.Helper()
	all := must.Get(control.ReadCredentials(home))(t)
	return func(relay, sender string) Account {
		line := all.For(relay, sender)
		return AccountOf(relay, line, must.Get(line.Read())(t), all.Stamp())
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	home := must.Home(t, nil)
	must.OK(t, os.WriteFile(filepath.Join(home, "password"), []byte("one\n"), 0o600))
	then := time.Unix(1_700_000_000, 0)
	const text = usual + "relay.example:a@b.example:joe:password:word\nrelay.example:c@d.example:ann:password:word\n" +
		"other.example::joe:password:word\nrelay.example:@plain.example:joe:password,plain:word\nfile.example::joe:passwordfile:password\n" +
		"token.example::joe:tokenfile:password\n"
	of := written(t, home, text, then)
	now := time.Unix(1_700_000_000, 0)
	r := NewRefusals(func() time.Time { return now })
	told := report.Report{Letter: report.Temporary, Text: "Connected to 192.0.2.1 but the login was refused."}
	r.Add(of("relay.example", "x@y.example"), told)
	r.Add(of("file.example", ""), told)
	for _, c := range []struct {
		name    string
		account Account
		want    bool
	}{
		{"the same", of("relay.example", "x@y.example"), true},
		{"another line for the same user and secret", of("relay.example", "a@b.example"), true},
		{"another user", of("relay.example", "c@d.example"), false},
		{"another relay", of("other.example", ""), false},
		{"another mechanism", of("relay.example", "e@plain.example"), false},
		{"of a file", of("file.example", ""), true},
		{"a token", of("token.example", ""), false},
		{"no login", Account{}, false},
		{"read again", accounts(t, home)("relay.example", ""), true},
	} {
		if got, refused := r.Report(c.account); refused != c.want || refused && got != told {
			t.Errorf("%s: %v, %q", c.name, refused, got)
		}
	}
	must.OK(t, os.WriteFile(filepath.Join(home, "password"), []byte("two\n"), 0o600))
	if _, refused := r.Report(of("file.example", "")); refused {
		t.Error("another secret is refused")
	}
	for _, step := range []struct {
		later time.Duration
		want  bool
	}{{300*time.Second - 1, true}, {1, false}} {
		now = now.Add(step.later)
		if _, refused := r.Report(of("relay.example", "")); refused != step.want {
			t.Errorf("after %v more: %v", step.later, refused)
		}
	}
	r.Add(of("relay.example", ""), told)
	if _, refused := r.Report(written(t, home, text, then.Add(1))("relay.example", "")); refused {
		t.Error("the file was written again")
	}
	r.Forget()
	if _, refused := r.Report(of("relay.example", "")); refused {
		t.Error("it is not forgotten")
	}
}

func TestRefusals_bounds(t *testing.T) {
	t.Parallel()
	r := NewRefusals(time.Now)
	for i := range maxRefusals + 100 {
		r.Add(Account{relay: fmt.Sprint(i)}, report.Report{})
	}
	if n := r.refused.Len(); n != maxRefusals {
		t.Errorf("%d are remembered", n)
	}
}

func TestRefusals_nil(t *testing.T) {
	var r *Refusals
	r.Add(Account{relay: "a"}, report.Report{})
	if _, refused := r.Report(Account{relay: "a"}); refused {
		t.Error("nil remembers")
	}
	r.Forget()
}

func TestAccount_print(t *testing.T) {
	t.Parallel()
	a := Account{relay: "relay.example", user: secret.New("joe"), secret: secret.New("hidden")}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if printed := fmt.Sprintf(verb, struct{ a Account }{a}); strings.Contains(printed, "joe") || strings.Contains(printed, "hidden") {
			t.Errorf("%s prints %s", verb, printed)
		}
	}
}
