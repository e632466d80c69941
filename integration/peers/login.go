package peers

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"nightmare.mail/mxf/integration/must"
)

// A Login is what a server demands before it takes mail from anybody.
type Login struct {
	User, Password string
	Mechanisms     []string // that it offers, upper case
	Dovecot        bool     // Postfix asks a Dovecot; else Cyrus SASL
	InClear        bool     // it is offered outside TLS too
}

// Token is an access token for the user that a Dovecot takes until it expires: a JSON Web
// Token (RFC 7519) that is signed with the password.
func (l *Login) Token(expires time.Time) string {
	claims := fmt.Sprintf(`{"sub":%q,"iat":%d,"exp":%d}`, l.User, expires.Add(-time.Hour).Unix(), expires.Unix())
	encoding := base64.RawURLEncoding
	text := encoding.EncodeToString([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + encoding.EncodeToString([]byte(claims))
	mac := hmac.New(sha256.New, []byte(l.Password))
	mac.Write([]byte(text))
	return text + "." + encoding.EncodeToString(mac.Sum(nil))
}

// What the servers can do. None of them binds a login to its connection (-PLUS).
var (
	CyrusMechanisms   = []string{"PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-256"}
	DovecotMechanisms = []string{"PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-256", "OAUTHBEARER", "XOAUTH2"}
	EximMechanisms    = []string{"PLAIN", "LOGIN", "CRAM-MD5"}
)

// logins finds successful logins in the logs of Postfix and of Exim, whose authenticators
// are named after their mechanisms.
var logins = regexp.MustCompile(`sasl_method=(\S+), sasl_username=([^\n]*)|<= .* A=(\S+?):(\S+)`)

// Logins returns the mechanism and the user of each login that mail was taken after, with a
// blank between, as far as the server has logged them.
func (s *Server) Logins() []string {
	var found []string
	for _, m := range logins.FindAllStringSubmatch(s.Log(), -1) {
		found = append(found, m[1]+strings.ToUpper(strings.ReplaceAll(m[3], "_", "-"))+" "+m[2]+m[4])
	}
	return found
}

// cyrusFiles makes the settings and the passwords of Cyrus SASL in a folder, for a server
// that runs as uid and gid. A user without a domain is in Domain.
func cyrusFiles(t testing.TB, dir string, l *Login, uid, gid int) {
	t.Helper()
	saslpasswd := find(t, "saslpasswd2")
	passwords := filepath.Join(dir, "sasldb2")
	write(t, filepath.Join(dir, "smtpd.conf"), fmt.Sprintf("pwcheck_method: auxprop\nauxprop_plugin: sasldb\nsasldb_path: %s\nmech_list: %s\n",
		passwords, strings.Join(l.Mechanisms, " ")))
	name, realm, found := strings.Cut(l.User, "@")
	if !found {
		realm = Domain
	}
	cmd := exec.Command(saslpasswd, "-p", "-c", "-f", passwords, "-u", realm, name)
	cmd.Stdin = strings.NewReader(l.Password)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("saslpasswd2: %v: %s", err, out)
	}
	must.OK(t, os.Chown(passwords, uid, gid))
	for plugin, needs := range map[string]string{"libscram.so": "libsasl2-modules", "libsasldb.so": "libsasl2-modules-db"} {
		if _, err := findLibrary(filepath.Join("sasl2", plugin)); err != nil {
			Missing(t, needs, "Cyrus SASL: %v", err)
		}
	}
}

// dovecot starts a Dovecot that checks logins for a Postfix and does nothing else.
func dovecot(t testing.TB, l *Login) *Server {
	t.Helper()
	needRoot(t, "dovecot")
	program := find(t, "dovecot")
	for _, name := range []string{"dovecot", "dovenull"} {
		if _, err := user.Lookup(name); err != nil {
			Missing(t, "dovecot-core", "dovecot without its users: %v", err)
		}
	}
	dir := folder(t)
	passwords := write(t, filepath.Join(dir, "passwords"), l.User+":{PLAIN.b64}"+base64.StdEncoding.EncodeToString([]byte(l.Password))+"\n")
	// The key of tokens is found by issuer, algorithm and name.
	write(t, filepath.Join(dir, "keys", "default", "HS256", "default"), base64.StdEncoding.EncodeToString([]byte(l.Password)))
	tokens := write(t, filepath.Join(dir, "tokens"), "introspection_mode = local\nlocal_validation_key_dict = fs:posix:prefix="+dir+"/keys/\nusername_attribute = sub\n")
	log := filepath.Join(dir, "log")
	return launch{name: "dovecot", log: log, command: func(port string) *exec.Cmd {
		config := write(t, filepath.Join(dir, "dovecot.conf"), fmt.Sprintf(`base_dir = %[1]s/run
state_dir = %[1]s/state
log_path = /dev/stderr
protocols =
ssl = no
auth_mechanisms = %[2]s
auth_username_format = %%u
auth_failure_delay = 0
disable_plaintext_auth = no
auth_verbose = yes
passdb {
  driver = passwd-file
  mechanisms = plain login cram-md5 scram-sha-256
  args = scheme=PLAIN %[3]s
}
passdb {
  driver = oauth2
  mechanisms = oauthbearer xoauth2
  args = %[6]s
}
userdb {
  driver = static
  args = uid=%[4]d gid=%[4]d home=/nowhere
}
service anvil {
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
service auth {
  inet_listener {
    address = 127.0.0.1
    port = %[5]s
  }
}
`, dir, strings.ToLower(strings.Join(l.Mechanisms, " ")), passwords, mailUser, port, tokens))
		return exec.Command(program, "-F", "-c", config)
	}}.start(t)
}

// postfixLogin are the lines of main.cf for a login. Cyrus SASL has its files in dir.
func postfixLogin(dir string, l *Login, auth *Server) []string {
	main := []string{
		"smtpd_sasl_auth_enable = yes",
		"smtpd_sasl_security_options = noanonymous",
		"smtpd_client_restrictions = permit_sasl_authenticated, reject",
	}
	if auth != nil {
		main = append(main, "smtpd_sasl_type = dovecot", "smtpd_sasl_path = inet:"+auth.Addr)
	} else {
		main = append(main, "smtpd_sasl_type = cyrus", "smtpd_sasl_path = smtpd",
			"cyrus_sasl_config_path = "+dir, "smtpd_sasl_local_domain = "+Domain)
	}
	if !l.InClear {
		main = append(main, "smtpd_tls_auth_only = yes")
	}
	return main
}

// eximAuthenticators are what an Exim checks a login with. User and password are in files of
// its root, so that they need not be written in its language.
func eximAuthenticators(l *Login) string {
	const (
		userFile     = "${readfile{/etc/exim4/user}{}}"
		passwordFile = "${readfile{/etc/exim4/password}{}}"
	)
	is := func(name, password string) string {
		return "  server_condition = ${if and{{eq{" + name + "}{" + userFile + "}}{eq{" + password + "}{" + passwordFile + "}}}}\n  server_set_id = " + name + "\n"
	}
	known := map[string]string{
		"PLAIN":    "plain:\n  driver = plaintext\n  public_name = PLAIN\n  server_prompts = :\n" + is("$auth2", "$auth3"),
		"LOGIN":    "login:\n  driver = plaintext\n  public_name = LOGIN\n  server_prompts = <| Username: | Password:\n" + is("$auth1", "$auth2"),
		"CRAM-MD5": "cram_md5:\n  driver = cram_md5\n  public_name = CRAM-MD5\n  server_secret = ${if eq{$auth1}{" + userFile + "}{" + passwordFile + "}fail}\n  server_set_id = $auth1\n",
	}
	var b strings.Builder
	for _, mechanism := range l.Mechanisms {
		b.WriteString(known[mechanism])
		if !l.InClear {
			b.WriteString("  server_advertise_condition = ${if def:tls_in_cipher}\n")
		}
	}
	return b.String()
}
