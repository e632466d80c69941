package control

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"nightmare.mail/mxf/integration/must"
)

// logins makes a home with this file, and with these files beside it, all with mode 640.
func logins(t testing.TB, text string, beside map[string]string) *Settings {
	t.Helper()
	home := must.Home(t, map[string]string{"credentials": text})
	must.OK(t, os.Chmod(filepath.Join(home, "control", "credentials"), 0o640))
	for name, content := range beside {
		path := filepath.Join(home, name)
		must.Write(t, path, content)
		must.OK(t, os.Chmod(path, 0o640))
	}
	return &Settings{Home: home}
}

const someCredentials = `# logins
smtp.gmail.com::joe@gmail.com:password:abcd:ef gh
Smtp.Work.example.:Joe@Work.example:joe:passwordfile,scram:secrets/joe
smtp.work.example:@.work.example:sub:tokenfile,oauthbearer,unverified:/nowhere/token
smtp.work.example:<>:bounces:password,unverified,cram-md5:b
[127.0.0.1]::joe@contoso.example:password,clear:local secret
[IPv6:2001:DB8:0::1]:joe@[2001:db8::2]:v6:password:v6
b` + "\u00fc" + `cher.example:@b` + "\u00fc" + `cher.example:idn user:password: leading
`

func TestCredential(t *testing.T) {
	s := logins(t, someCredentials, map[string]string{"secrets/joe": "from the file \t\r\nnot this\n"})
	for _, test := range []struct {
		relay, sender string
		want          Credential // what is exported
		words         string
	}{
		{"smtp.gmail.com", "anybody@example.org", Credential{Line: 2, User: "joe@gmail.com", Kind: Password}, "abcd:ef gh"},
		{"smtp.gmail.com", "", Credential{Line: 2, User: "joe@gmail.com", Kind: Password}, "abcd:ef gh"},
		{"smtp.work.example", "JOE@work.example", Credential{Line: 3, User: "joe", Kind: PasswordFile, Only: Scram}, "from the file"},
		{"smtp.work.example", "x@a.work.example", Credential{Line: 4, User: "sub", Kind: TokenFile, Only: OAuthBearer, Unverified: true}, ""},
		{"smtp.work.example", "", Credential{Line: 5, User: "bounces", Kind: Password, Only: CRAMMD5, Unverified: true}, "b"},
		{"smtp.work.example", "mary@work.example", Credential{}, ""},
		{"smtp.work.example", "root", Credential{}, ""},
		{"127.0.0.1", "x", Credential{Line: 6, User: "joe@contoso.example", Kind: Password, Clear: true}, "local secret"},
		{"[127.0.0.1]", "x", Credential{Line: 6, User: "joe@contoso.example", Kind: Password, Clear: true}, "local secret"},
		{"2001:db8::1", "joe@[2001:db8::2]", Credential{Line: 7, User: "v6", Kind: Password}, "v6"},
		{"2001:db8::1", "joe@[2001:db8::3]", Credential{}, ""},
		{"xn--bcher-kva.example", "x@xn--bcher-kva.example", Credential{Line: 8, User: "idn user", Kind: Password}, " leading"},
		{"gmail.com", "x", Credential{}, ""},
		{"x.smtp.gmail.com", "x", Credential{}, ""},
		{"", "x", Credential{}, ""},
		{"smtp.gmail.com:25", "x", Credential{}, ""},
	} {
		c, err := credential(s, test.relay, test.sender)
		if err != nil {
			t.Fatal(err)
		}
		if test.want.Line == 0 {
			if c != nil {
				t.Errorf("%s, %q: got %v, want none", test.relay, test.sender, c)
			}
			continue
		}
		if c == nil {
			t.Errorf("%s, %q: got none, want %v", test.relay, test.sender, test.want)
			continue
		}
		if got := (Credential{c.Line, c.User, c.Kind, c.Unverified, c.Clear, c.Only, test.want.home, test.want.password, test.want.path}); got != test.want {
			t.Errorf("%s, %q: got %v by %s, want %v", test.relay, test.sender, got, c.Kind, test.want)
		}
		words, err := c.Read()
		if words.Reveal() != test.words || (err == nil) != (test.words != "") {
			t.Errorf("%s, %q: got %q, %v, want %q", test.relay, test.sender, words.Reveal(), err, test.words)
		}
		same, err := credential(s, test.relay, test.sender)
		if err != nil || same == nil || *same != *c {
			t.Errorf("%s, %q: a program has %v, %v", test.relay, test.sender, same, err)
		}
	}
}

func TestCredential_noFile(t *testing.T) {
	s := &Settings{Home: must.Home(t, nil)}
	if c, err := credential(s, "smtp.gmail.com", ""); c != nil || err != nil {
		t.Errorf("got %v, %v", c, err)
	}
	if c, err := credential(logins(t, "", nil), "smtp.gmail.com", ""); c != nil || err != nil {
		t.Errorf("got %v, %v", c, err)
	}
}

// No verb prints a user, a password or a path.
func TestCredential_printsItsPlace(t *testing.T) {
	s := logins(t, "relay.example::s3cret-user:password:s3cret\n", nil)
	c := must.Get(credential(s, "relay.example", ""))(t)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x"} {
		for _, value := range []any{c, *c, struct{ C any }{*c}} {
			if got := fmt.Sprintf(verb, value); !strings.Contains(got, "control/credentials:1") || strings.Contains(got, "s3cret") {
				t.Errorf("%s: got %q", verb, got)
			}
		}
	}
}

// Each has a word s3cret, which no error repeats.
var badCredentials = []struct{ entry, expected string }{
	{"s3cret", "relay:sender:user:how:secret, found one field"},
	{"relay.example::joe:password", "relay:sender:user:how:secret, found 4 fields"},
	{"relay.example joe s3cret", "relay:sender:user:how:secret, found one field"},
	{"::joe:password:s3cret", "as the relay"},
	{".relay.example::joe:password:s3cret", "as the relay"},
	{"s3cret relay::joe:password:x", "as the relay"},
	{"relay..example::joe:password:s3cret", "as the relay"},
	{"192.0.2.256::joe:password:s3cret", "as the relay"},
	{"[s3cret]::joe:password:s3cret", "as the relay"},
	{"2001:db8::1::joe:password:s3cret", "as the relay"},
	{"[2001:db8::1]587::joe:password:s3cret", "as the relay"},
	{"relay.example:587::joe:password:s3cret", "as the third field"}, // any port
	{"relay.example:s3cret@:joe:password:s3cret", "as the sender"},
	{"relay.example:x@.s3cret.example:joe:password:s3cret", "as the sender"},
	{"relay.example: s3cret:joe:password:s3cret", "as the sender"},
	{"relay.example:::password:s3cret", "a user of 1 to 255 bytes"},
	{"relay.example::s3cret\ts3cret:password:s3cret", "a user of 1 to 255 bytes"},
	{"relay.example::s3cret\x7f:password:s3cret", "a user of 1 to 255 bytes"},
	{"relay.example::" + strings.Repeat("s3cret", 43) + ":password:x", "a user of 1 to 255 bytes"},
	{"relay.example::joe::s3cret", "password, passwordfile or tokenfile"},
	{"relay.example::joe:s3cret:password", "password, passwordfile or tokenfile"},
	{"relay.example::joe:Password:s3cret", "password, passwordfile or tokenfile"},
	{"relay.example::joe: password:s3cret", "password, passwordfile or tokenfile"},
	{"relay.example::joe:clear,password:s3cret", "password, passwordfile or tokenfile"},
	{"relay.example::joe:password,:s3cret", "scram, plain, login, cram-md5 as options of password"},
	{"relay.example::joe:password,s3cret:s3cret", "scram, plain, login, cram-md5 as options of password"},
	{"relay.example::joe:password, clear:s3cret", "scram, plain, login, cram-md5 as options of password"},
	{"relay.example::joe:password,CLEAR:s3cret", "scram, plain, login, cram-md5 as options of password"},
	{"relay.example::joe:password,xoauth2:s3cret", "scram, plain, login, cram-md5 as options of password"},
	{"relay.example::joe:passwordfile,oauthbearer:s3cret", "scram, plain, login, cram-md5 as options of passwordfile"},
	{"relay.example::joe:tokenfile,plain:s3cret", "xoauth2, oauthbearer as options of tokenfile"},
	{"relay.example::joe:password,plain,login:s3cret", "one mechanism at most"},
	{"relay.example::joe:password,plain,plain:s3cret", "one mechanism at most"},
	{"relay.example::joe:password,clear,clear:s3cret", "each option once"},
	{"relay.example::joe:password,unverified,unverified:s3cret", "each option once"},
	{"relay.example::joe:password,unverified,clear:s3cret", "not both"},
	{"relay.example::joe:password,clear,unverified:s3cret", "not both"},
	{"relay.example::joe:password:", "a password of 1 to 1024 bytes, found none"},
	{"relay.example::joe:password: \t", "a password of 1 to 1024 bytes, found none"}, // blanks at the end are not there
	{"relay.example::joe:password:s3cret\rs3cret", "a password of 1 to 1024 bytes without NUL and CR"},
	{"relay.example::joe:password:" + strings.Repeat("s3cret--", 128) + "x", "a password of 1 to 1024 bytes, found a longer one"},
	{"relay.example::joe:passwordfile:", "the path of a file"},
	{"relay.example::joe:passwordfile: s3cret", "the path of a file"},
	{"relay.example::joe:tokenfile:-----BEGIN s3cret", "the path of a file"},
	{"relay.example::joe:password:s3cret\nRelay.Example.::mary:tokenfile:x", `another line for this sender at "relay.example"`},
	{"127.0.0.1:<>:joe:password:s3cret\n[127.0.0.1]:<>:joe:password:s3cret", `another line for this sender at "127.0.0.1"`},
	{"relay.example:J@x.example:joe:password:s3cret\nrelay.example:j@X.example.:joe:password:s3cret", "another line for this sender"},
	{"relay.example::joe:password:s3cret\x00", "found a zero byte"},
	{"relay.example::joe:password:" + strings.Repeat("s3cret", 700), "a line of at most 4096 bytes"},
}

// The whole file is checked, whatever is asked for.
func TestCredential_malformed(t *testing.T) {
	for _, test := range badCredentials {
		text := "# logins\nelsewhere.example::joe:password:s3cret\n" + test.entry + "\n"
		c, err := credential(logins(t, text, nil), "elsewhere.example", "")
		var e *Error
		if c != nil || !errors.As(err, &e) || e.File != "control/credentials" || e.Line != strings.Count(text, "\n") ||
			!strings.HasPrefix(e.What, "expected ") || !strings.Contains(e.What, test.expected) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%q: got %v, %v, want %q", test.entry, c, err, test.expected)
		}
	}
}

func TestCredential_limits(t *testing.T) {
	user, password, token := strings.Repeat("u", maxUser), strings.Repeat("p", maxPassword), strings.Repeat("t", maxToken)
	s := logins(t, "a::"+user+":password:"+password+"\nb::u:passwordfile:password\nc::u:tokenfile:token\n",
		map[string]string{"password": password + "\n", "token": token + "\n"})
	for relay, want := range map[string]string{"a": password, "b": password, "c": token} {
		c := must.Get(credential(s, relay, ""))(t)
		if words := must.Get(c.Read())(t); words.Reveal() != want {
			t.Errorf("%s: got %d bytes, want %d", relay, len(words.Reveal()), len(want))
		}
	}
}

// What is wrong with a named file is reported by the line that names it.
func TestCredential_badFile(t *testing.T) {
	for _, test := range []struct {
		name, content, expected string
	}{
		{"empty", "", "a password of 1 to 1024 bytes, found none"},
		{"empty line", "\ns3cret\n", "a password of 1 to 1024 bytes, found none"},
		{"blanks", " \t\r\ns3cret\n", "a password of 1 to 1024 bytes, found none"},
		{"NUL", "s3cret\x00s3cret\n", "without NUL and CR"},
		{"CR", "s3cret\rs3cret\n", "without NUL and CR"},
		{"long", strings.Repeat("s3cret--", 128) + "x\n", "found a longer one"},
		{"very long", strings.Repeat("s3cret--", maxSecretFile/4), "found a longer one"},
	} {
		s := logins(t, "# logins\nrelay.example::joe:passwordfile:s3cret-path\n", map[string]string{"s3cret-path": test.content})
		badLogin(t, test.name, s, test.expected)
	}
	s := logins(t, "# logins\nrelay.example::joe:tokenfile:token\n", map[string]string{"token": strings.Repeat("s3cret--", 1024) + "x"})
	badLogin(t, "long token", s, "a token of 1 to 8192 bytes, found a longer one")

	for name, make := range map[string]func(path string) error{
		"missing":          func(string) error { return nil },
		"folder":           func(path string) error { return os.Mkdir(path, 0o700) },
		"FIFO":             func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"link to nothing":  func(path string) error { return os.Symlink("nowhere", path) },
		"link to a device": func(path string) error { return os.Symlink("/dev/zero", path) },
	} {
		s := logins(t, "# logins\nrelay.example::joe:passwordfile:s3cret-path\n", nil)
		must.OK(t, make(filepath.Join(s.Home, "s3cret-path")))
		badLogin(t, name, s, "a file that can be read")
	}
}

// badLogin wants the secret of line 2 to be refused.
func badLogin(t *testing.T, name string, s *Settings, expected string) {
	t.Helper()
	c := must.Get(credential(s, "relay.example", ""))(t)
	words, err := c.Read()
	var e *Error
	if !words.IsZero() || !errors.As(err, &e) || e.File != "control/credentials" || e.Line != 2 ||
		!strings.Contains(e.What, expected) || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("%s: got %v, want %q", name, err, expected)
	}
}

// A token is renewed while we run.
func TestCredential_readsAnew(t *testing.T) {
	s := logins(t, "relay.example::joe:tokenfile:token\n", map[string]string{"token": "old\n", "new": "new\n"})
	c := must.Get(credential(s, "relay.example", ""))(t)
	if words := must.Get(c.Read())(t); words.Reveal() != "old" {
		t.Errorf("got %q", words.Reveal())
	}
	must.OK(t, os.Rename(filepath.Join(s.Home, "new"), filepath.Join(s.Home, "token")))
	if words := must.Get(c.Read())(t); words.Reveal() != "new" {
		t.Errorf("got %q", words.Reveal())
	}
}

// modes are whether a file with a secret may have them.
var modes = map[fs.FileMode]bool{
	0o600: true, 0o640: true, 0o400: true, 0o440: true, 0o700: true, 0o750: true,
	0o644: false, 0o660: false, 0o604: false, 0o601: false, 0o602: false, 0o620: false, 0o666: false, 0o755: false, 0o641: false,
}

// goodMode wants err if and only if a file with this mode is refused.
func goodMode(t *testing.T, place string, mode fs.FileMode, err error) {
	t.Helper()
	want := fmt.Sprintf("%s: expected a file that others cannot read (chmod 640), found mode %04o", place, mode)
	if modes[mode] && err != nil || !modes[mode] && (err == nil || err.Error() != want) {
		t.Errorf("mode %04o: got %v", mode, err)
	}
}

func TestCredential_modes(t *testing.T) {
	for mode := range modes {
		s := logins(t, "\nrelay.example::joe:passwordfile:link\n", map[string]string{"password": "s3cret"})
		must.OK(t, os.Symlink("password", filepath.Join(s.Home, "link")), os.Chmod(filepath.Join(s.Home, "password"), mode))
		c := must.Get(credential(s, "relay.example", ""))(t)
		_, err := c.Read()
		goodMode(t, "control/credentials:2", mode, err)

		must.OK(t, os.Chmod(filepath.Join(s.Home, "control", "credentials"), mode))
		_, err = credential(s, "relay.example", "")
		goodMode(t, "control/credentials:0", mode, err)
	}
}

// A link is followed: the mode of the link itself says nothing.
func TestCredential_fileIsALink(t *testing.T) {
	s := logins(t, "", map[string]string{"elsewhere": "relay.example::joe:password:s3cret"})
	path := filepath.Join(s.Home, "control", "credentials")
	must.OK(t, os.Remove(path), os.Symlink("../elsewhere", path))
	if c, err := credential(s, "relay.example", ""); c == nil || err != nil {
		t.Errorf("got %v, %v", c, err)
	}
	must.OK(t, os.Chmod(filepath.Join(s.Home, "elsewhere"), 0o644))
	_, err := credential(s, "relay.example", "")
	goodMode(t, "control/credentials:0", 0o644, err)
}

// FuzzCredentials wants of every file that it is malformed in a line that exists, or has
// logins that are as mxf-control(5) says. No error quotes anything but a relay.
func FuzzCredentials(f *testing.F) {
	f.Add(someCredentials)
	for _, test := range badCredentials {
		f.Add(test.entry)
		f.Add(someCredentials + test.entry)
	}
	for _, n := range goodSenders {
		f.Add("relay.example:" + n.Text + ":joe:password:x")
	}
	for _, test := range goodRelays {
		f.Add(test.relay + "::joe:tokenfile,xoauth2,clear:x")
	}
	f.Fuzz(func(t *testing.T, text string) {
		all, err := dir{home: "/home"}.parseCredentials([]byte(text))
		if err != nil {
			checkError(t, err, "control/credentials", []byte(text))
			if what := err.(*Error).What; strings.Contains(what, `"`) && !strings.HasPrefix(what, "expected each relay and sender once") {
				t.Errorf("%q quotes", what)
			}
			if len(all.relays) != 0 {
				t.Errorf("logins beside %v", err)
			}
			return
		}
		for relay, senders := range all.relays {
			if key, ok := relayKey(relay); key != relay || !ok {
				t.Errorf("relay %q is %q", relay, key)
			}
			for sender, c := range senders {
				if again, problem := parseSender(sender); again != sender || problem != "" {
					t.Errorf("sender %q is %q, %s", sender, again, problem)
				}
				checkCredential(t, text, c)
			}
		}
	})
}

func checkCredential(t *testing.T, text string, c Credential) {
	words := c.password.Reveal()
	switch {
	case c.Line < 1 || c.Line > 1+strings.Count(text, "\n"), c.User == "" || len(c.User) > maxUser:
		t.Errorf("line %d, user %q", c.Line, c.User)
	case c.Unverified && c.Clear:
		t.Errorf("%q: both", text)
	case c.Kind == Password && (words == "" || len(words) > maxPassword || c.path != "" || !strings.Contains(text, words)):
		t.Errorf("%q: password %q", text, words)
	case c.Kind != Password && (words != "" || !filepath.IsAbs(c.path)):
		t.Errorf("%q: path %q", text, c.path)
	case c.Kind != Password && c.Kind != PasswordFile && c.Kind != TokenFile:
		t.Errorf("%q: kind %q", text, c.Kind)
	case (c.Only == XOAuth2 || c.Only == OAuthBearer) != (c.Kind == TokenFile) && c.Only != "":
		t.Errorf("%q: %s by %s", text, c.Kind, c.Only)
	}
}

// credential is the login for a relay and a sender.
func credential(s *Settings, relay, sender string) (*Credential, error) {
	all, err := ReadCredentials(s.Home)
	return all.For(relay, sender), err
}
