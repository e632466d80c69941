package integration

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/integration/peers"
)

// Servers that others wrote demand a login, and mxf-remote logs in at them as at a relay, in
// one process and through the chain of programs.

// mechanismWords are those of control/credentials.
var mechanismWords = map[string]string{
	"PLAIN": "plain", "LOGIN": "login", "CRAM-MD5": "cram-md5", "SCRAM-SHA-256": "scram", "OAUTHBEARER": "oauthbearer", "XOAUTH2": "xoauth2",
}

const (
	peerUser     = "joe@" + peers.Domain
	peerPassword = `a b:c$d{e}\f"`
)

// A loginPeer is a server that demands a login.
type loginPeer struct {
	name       string
	start      func(testing.TB, peers.Options) *peers.Server
	mechanisms []string
	dovecot    bool
	best       []string // what is tried of them, in this order
	refusal    string   // what it says to a wrong password, a regular expression
}

// relayed are ways to s as a relay, by name: "one-process" and "chain".
func (b *bench) relayed(t *testing.T, name string, s *peers.Server) map[string]way {
	t.Helper()
	ways := make(map[string]way)
	for how, client := range map[string]string{"one-process": "", "chain": filepath.Join(b.bin, "mxf-ucspitlsc")} {
		control := map[string]string{"trustanchors": b.ca, "smtproutes": ":" + peerName}
		if client != "" {
			control["ucspitlsclient"] = client
		}
		ways[how] = b.routed(t, how+" to "+name, s, "smtp", overSTARTTLS, control)
	}
	return ways
}

// logIn writes control/credentials of a way: the line for every sender, with an option after
// the kind unless it is "". A token is in a file.
func logIn(t *testing.T, w way, kind, option, secret string) {
	t.Helper()
	folder := filepath.Join(strings.TrimPrefix(w.environ[0], "MXF_HOME="), "control")
	write := func(name, line string) {
		put(t, filepath.Join(folder, name), []byte(line+"\n"))
		must.OK(t, os.Chmod(filepath.Join(folder, name), 0o640))
	}
	if kind == "tokenfile" {
		write("token", secret)
		secret = "control/token"
	}
	if option != "" {
		kind += "," + option
	}
	write("credentials", peerName+"::"+peerUser+":"+kind+":"+secret)
}

func TestPeersLogin(t *testing.T) {
	b := newBench(t)
	scram := []string{"SCRAM-SHA-256", "PLAIN"}
	for _, p := range []loginPeer{
		{"postfix and cyrus", peers.Postfix, peers.CyrusMechanisms, false, scram, "535 5\\.7\\.8 Error: authentication failed: authentication failure"},
		{"postfix and dovecot", peers.Postfix, peers.DovecotMechanisms, true, scram, "535 5\\.7\\.8 Error: authentication failed: [^\n]*"},
		{"exim", peers.Exim, peers.EximMechanisms, false, []string{"PLAIN"}, "535 Incorrect authentication data"},
	} {
		t.Run(p.name, func(t *testing.T) { b.logsIn(t, p) })
	}
}

// A loginTry is a secret for a mechanism, or for any, and one that is wrong.
type loginTry struct {
	kind, option string
	right, wrong string
	used, last   string // the mechanism of a right secret, and the last of a wrong one
}

// tries are for p a login by default and one by each mechanism.
func (p *loginPeer) tries(l *peers.Login) []loginTry {
	all := []loginTry{{"password", "", l.Password, "another password", p.best[0], p.best[len(p.best)-1]}}
	hour := time.Now().Add(time.Hour)
	stranger := peers.Login{User: l.User, Password: "another key"}
	for _, mechanism := range p.mechanisms {
		try := loginTry{"password", mechanismWords[mechanism], l.Password, "another password", mechanism, mechanism}
		if strings.Contains(mechanism, "AUTH") {
			try.kind, try.right, try.wrong = "tokenfile", l.Token(hour), stranger.Token(hour)
			expired := try
			expired.wrong = l.Token(time.Now().Add(-time.Hour))
			all = append(all, expired)
		}
		all = append(all, try)
	}
	if slices.Contains(p.mechanisms, "OAUTHBEARER") {
		all = append(all, loginTry{"tokenfile", "", l.Token(hour), stranger.Token(hour), "OAUTHBEARER", "OAUTHBEARER"})
	}
	return all
}

func (b *bench) logsIn(t *testing.T, p loginPeer) {
	o := b.tls()
	o.Login = &peers.Login{User: peerUser, Password: peerPassword, Mechanisms: p.mechanisms, Dovecot: p.dovecot}
	s := p.start(t, o)
	const line = "\nTLS: TLSv1\\.3 [A-Z0-9_]+ verified mx\\.peer\\.example login"
	accepted := regexp.MustCompile(`\AK127\.0\.0\.1 accepted message\.\nRemote host said: 250 [^\n]*` + line + `\z`)
	var want []string
	for how, w := range b.relayed(t, p.name, s) {
		send := func() ending {
			return b.run(t, w, "", []byte(peerHeader+"hello\n"), "s@client.example", []string{"a@" + peers.Domain})
		}
		for _, try := range p.tries(o.Login) {
			logIn(t, w, try.kind, try.option, try.right)
			if e := send(); len(e.reports) != 2 || e.reports[0] != "r" || !accepted.MatchString(e.reports[1]) || e.stderr != "" {
				t.Errorf("%s, %s %s: exit %d, reports %q, standard error %q", how, try.kind, try.option, e.status, e.reports, e.stderr)
			}
			want = append(want, try.used+" "+peerUser)

			logIn(t, w, try.kind, try.option, try.wrong)
			refused := regexp.MustCompile(`\AZConnected to 127\.0\.0\.1 but the login of control/credentials:1 was refused \(` + try.last +
				`\)\. \(#4\.7\.8\)\nRemote host said: ` + p.refusal + line + `\z`)
			if e := send(); len(e.reports) != 1 || !refused.MatchString(e.reports[0]) || e.stderr != "" || e.status != 0 {
				t.Errorf("%s, wrong %s %s: exit %d, reports %q, standard error %q", how, try.kind, try.option, e.status, e.reports, e.stderr)
			}
		}
	}
	s.Stored(t, len(want))
	got := s.Logins()
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("logged: %q, want %q", got, want)
	}
}
