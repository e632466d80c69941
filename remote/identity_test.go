package remote

import (
	"cmp"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/remote/dns"
	"nightmare.mail/mxf/remote/dns/dnstest"
	"nightmare.mail/mxf/remote/policy"
	"nightmare.mail/mxf/remote/report"
	"nightmare.mail/mxf/smtpc/smtptest"
	"nightmare.mail/mxf/tlsc/tlstest"
)

// A persona is an envelope sender and what is said for it.
type persona struct {
	sender string
	from   string // in From
	user   string // logs in; empty: nobody
	helo   string
	signed string // d=; empty: unsigned
}

// The personae of TestRouter_identities, by its control files. Neighbours differ by little:
// case, IDNA, quotes, sub-addresses, an @ in the local part, a domain below another.
var personae = []persona{
	{"joe@one.example", "joe@one.example", "one-joe", "one.helo.example", "one.example"},
	{"JOE@One.Example", "joe@ONE.example", "one-joe", "one.helo.example", "one.example"},
	{"joe+x@one.example", "joe+x@one.example", "one", "one.helo.example", "one.example"},
	{"joe@one.example@two.example", "joe@one.example", "two", "two.helo.example", ""},
	{"joe@two.example", "joe@two.example", "two", "two.helo.example", ""},
	{"joe@two.example@one.example", "joe@two.example", "one", "one.helo.example", ""},
	{"joe@a.one.example", "joe@a.one.example", "all", "me.example", ""},
	{"joe@a.b.two.example", "joe@a.one.example", "below-two", "below.helo.example", ""},
	{"joe@bücher.example", "joe@xn--bcher-kva.example", "books", "me.example", "xn--bcher-kva.example"},
	{"joe@XN--BCHER-KVA.example", "joe@BÜCHER.example", "books", "me.example", "xn--bcher-kva.example"},
	{"", "joe@one.example", "null", "me.example", "one.example"},
	{"root", "root@one.example", "root", "me.example", ""},
	{"joe@stranger.example", "joe@one.example", "all", "me.example", ""},
	{"SRS0=x=y=stranger.example=joe@one.example", "joe@one.example", "one", "one.helo.example", ""},
}

// identityFiles are the control files of the personae. PORT is that of the relay.
var identityFiles = map[string]string{
	"smtproutes": ":" + serverName + ":PORT\n",
	"credentials": serverName + ":joe@one.example:one-joe:password,plain:password of one-joe\n" +
		serverName + ":@one.example:one:password,plain:password of one\n" +
		serverName + ":@two.example:two:password,plain:password of two\n" +
		serverName + ":@.two.example:below-two:password,plain:password of below-two\n" +
		serverName + ":@bücher.example:books:password,plain:password of books\n" +
		serverName + ":<>:null:password,plain:password of null\n" +
		serverName + ":root:root:password,plain:password of root\n" +
		serverName + "::all:password,plain:password of all\n",
	"sources": "@one.example:127.0.0.11:one.helo.example\n" +
		"@two.example:127.0.0.12:two.helo.example\n" +
		"@.two.example:ipv4:below.helo.example\n",
	"signingkeys": "one.example:s1:keys/one\n" +
		"bücher.example:s1:keys/books\n" +
		".two.example:s1:keys/two\n",
	"ipme": "192.0.2.1\n",
	"me":   "me.example\n",
}

// Deliveries of all personae share a Router. None is heard under another's login, name, or
// signature.
func TestRouter_identities(t *testing.T) {
	server := &smtptest.Server{Extensions: []string{"PIPELINING", "SMTPUTF8", "8BITMIME"},
		Auth: &smtptest.Auth{Mechanisms: []string{"PLAIN"}, Users: make(map[string]string), Demand: true}}
	for _, p := range personae {
		server.Auth.Users[p.user] = "password of " + p.user
	}
	right := newAuthority()
	server.TLS = right.Leaf(nil, serverName).Config()
	r := identityRouter(t, server, tlstest.Bundle(t, right))

	const rounds = 8
	folder := t.TempDir()
	var all sync.WaitGroup
	for n := range rounds * len(personae) {
		all.Go(func() {
			p := personae[n%len(personae)]
			path := filepath.Join(folder, fmt.Sprint(n))
			must.Write(t, path, "From: "+p.from+"\nSubject: persona "+fmt.Sprint(n%len(personae))+"\n\nhello\n")
			job := &Job{Host: "example.org", Sender: p.sender, Recipients: []string{"r@example.org"}, Message: must.Open(t, path), Number: n, Trace: func(string) {}}
			stream := Deliver(t.Context(), job, func() (*Router, error) { return r, nil })
			if stream.Message.Letter != report.Delivered {
				t.Errorf("%+v: %q", p, stream.Bytes())
			}
		})
	}
	all.Wait()
	must.Until(t, "all conversations", func() bool { return len(server.Conversations()) == rounds*len(personae) })
	heard := make(map[int]int)
	for _, c := range server.Conversations() {
		_, after, _ := strings.Cut(string(c.Message), "Subject: persona ")
		var n int
		if _, err := fmt.Sscan(after, &n); err != nil || len(c.Logins) != 1 {
			t.Fatalf("%q after %+v: %v", c.Message, c.Logins, err)
		}
		heard[n]++
		p := personae[n]
		signature, _, _ := strings.Cut(string(c.Message), "\r\nFrom:")
		var domain string
		for _, tag := range strings.Fields(signature) {
			if name, value, _ := strings.Cut(tag, "="); name == "d" {
				domain = strings.TrimSuffix(value, ";")
			}
		}
		helo := strings.TrimPrefix(c.Commands[0], "EHLO ")
		if user := c.Logins[0].User; user != p.user || helo != p.helo || domain != p.signed {
			t.Errorf("%+v was heard as user %q, name %q, signature of %q", p, user, helo, domain)
		}
	}
	for n, p := range personae {
		if heard[n] != rounds {
			t.Errorf("%+v was heard %d times of %d", p, heard[n], rounds)
		}
	}
}

// identityRouter returns a Router of identityFiles whose relay is server.
func identityRouter(t *testing.T, server *smtptest.Server, anchors string) *Router {
	t.Helper()
	relay := netip.MustParseAddrPort(smtptest.Listen(t, server.Serve))
	names := dnstest.New(t, serverName+". A 127.0.0.1\n", nil)
	files := map[string]string{"trustanchors": anchors + "\n"}
	for name, text := range identityFiles {
		files[name] = strings.ReplaceAll(text, "PORT", fmt.Sprint(relay.Port()))
	}
	home := must.Home(t, files)
	must.OK(t, os.Chmod(filepath.Join(home, "control", "credentials"), 0o640))
	for _, name := range []string{"one", "books", "two"} {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		der := must.Get(x509.MarshalPKCS8PrivateKey(key))(t)
		path := filepath.Join(home, "keys", name)
		must.Write(t, path, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
		must.OK(t, err, os.Chmod(path, 0o600))
	}
	s := must.Get(control.Read(home))(t)
	// On a slow machine a hundred conversations take long.
	s.TimeoutDNS, s.TimeoutConnect, s.TimeoutRemote = time.Hour, time.Hour, time.Hour
	return must.Get(New(Config{Settings: s, Programs: home, Exits: exits, Resolver: dns.NewClient(dns.Config{Servers: []netip.AddrPort{names.Addr}})}))(t)
}

// What a plan requires of a relay at which we log in, and what we show it. Each line of settings
// is a control file and what is in it. ANCHORS, CERT and KEY are paths of good files.
func TestRouter_Plan_login(t *testing.T) {
	const (
		relay   = "smtproutes :127.0.0.1:2525"
		login   = "credentials 127.0.0.1::joe:password:s3cret"
		anchors = "trustanchors ANCHORS"
		noTLS   = "protocols smtp:25:0:N:N:mxf-remote-smtpc"
		certs   = "clientcerts [127.0.0.1]::CERT:KEY"
	)
	pin := strings.Repeat("ab", sha256.Size)
	party := newAuthority()
	paths := strings.NewReplacer("ANCHORS", tlstest.Bundle(t, party), "CERT", tlstest.File(t, "cert.pem", party.PEM()), "KEY", tlstest.File(t, "key.pem", party.KeyPEM()))
	must.OK(t, os.Chmod(paths.Replace("KEY"), 0o600))
	for name, test := range map[string]struct {
		settings []string
		want     string // level, who decided, word, line of the login, certificate; or the beginning of the error
	}{
		"no login":                 {[]string{relay}, "none control/tlsstrictness 0 - 0 -"},
		"TLS is off":               {[]string{relay, login}, "control/credentials:1: expected TLS for this login"},
		"clear":                    {[]string{relay, withOption("clear")}, "none control/tlsstrictness 0 - 1 -"},
		"clear, TLS is on":         {[]string{relay, withOption("clear"), anchors}, "may control/tlsstrictness 0 - 1 -"},
		"verified":                 {[]string{relay, login, anchors}, "verify control/credentials:1 login 1 -"},
		"unverified":               {[]string{relay, withOption("unverified"), anchors}, "must control/credentials:1 login 1 -"},
		"strictness 1":             {[]string{relay, login, anchors, "tlsstrictness 1"}, "verify control/credentials:1 login 1 -"},
		"strictness 1, unverified": {[]string{relay, withOption("unverified"), anchors, "tlsstrictness 1"}, "must control/credentials:1 login 1 -"},
		"strictness 2":             {[]string{relay, login, anchors, "tlsstrictness 2"}, "verify control/tlsstrictness 2 - 1 -"},
		"strictness 2, unverified": {[]string{relay, withOption("unverified"), anchors, "tlsstrictness 2"}, "verify control/tlsstrictness 2 - 1 -"},
		"a named client":           {[]string{relay, login, "ucspitlsclient /bin/sh"}, "verify control/credentials:1 login 1 -"},
		"a client of another kind": {[]string{relay, login, "tlsclient /bin/sh"}, "control/credentials:1: expected TLS for this login"},
		"a protocol without TLS":   {[]string{relay, login, anchors, noTLS}, "control/credentials:1: expected TLS for this login"},
		"port 465":                 {[]string{"smtproutes :127.0.0.1:465", withOption("unverified"), anchors}, "must control/credentials:1 login 1 -"},
		"port 465, TLS is off":     {[]string{"smtproutes :127.0.0.1:465", withOption("clear")}, "control files: control/smtproutes:1: expected TLS for this relay"},
		"no anchors to verify by":  {[]string{relay, login, "trustanchors none.pem"}, "control/trustanchors:1: cannot read trust anchors"},
		"none are needed":          {[]string{relay, withOption("unverified"), "trustanchors none.pem"}, "must control/credentials:1 login 1 -"},
		"no route":                 {[]string{login, anchors}, "may control/tlsstrictness 0 - 0 -"},
		"another relay":            {[]string{relay, "credentials 127.0.0.2::joe:password:s3cret"}, "none control/tlsstrictness 0 - 0 -"},
		"QMTP":                     {[]string{"qmtproutes :127.0.0.1:2525", login}, "none control/tlsstrictness 0 - 0 -"},
		"no file with a password":  {[]string{relay, "credentials 127.0.0.1::joe:passwordfile,clear:none"}, "control/credentials:1: expected a file that can be read"},
		"a certificate":            {[]string{relay, anchors, certs}, "may control/tlsstrictness 0 - 0 CERT"},
		"no certificate for it":    {[]string{relay, anchors, "clientcert CERT", "clientkey KEY", "clientcerts [127.0.0.1]::"}, "may control/tlsstrictness 0 - 0 -"},
		"one for all others":       {[]string{relay, anchors, "clientcert CERT", "clientkey KEY", "clientcerts [127.0.0.2]::"}, "may control/tlsstrictness 0 - 0 CERT"},
		"no key fits":              {[]string{relay, anchors, "clientcerts [127.0.0.1]::CERT:ANCHORS"}, "control/clientcerts:1: cannot use client certificate"},
		"an unreadable one":        {[]string{relay, anchors, "clientcerts [127.0.0.1]::none:KEY"}, "control/clientcerts:1: "},
		// A client that does not match pins is not given any.
		"pins, and a foreign client":  {[]string{"smtproutes :127.0.0.1:465", anchors, "tlsclient /bin/sh", "tlspolicy [127.0.0.1]:pin:" + pin}, "control/tlsclient:1: expected no other client than ours"},
		"pins":                        {[]string{"smtproutes :127.0.0.1:465", anchors, "tlspolicy [127.0.0.1]:pin:" + pin}, "verify control/tlspolicy:1 pin 0 -"},
		"verify by a foreign client":  {[]string{"smtproutes :127.0.0.1:465", anchors, "tlsclient /bin/sh", "tlspolicy [127.0.0.1]:verify"}, "verify control/tlspolicy:1 local 0 -"},
		"names, and a foreign client": {[]string{"smtproutes :127.0.0.1:465", anchors, "tlsclient /bin/sh", "tlspolicy [127.0.0.1]:verify:mx.example.org"}, "control/tlsclient:1: expected no other client than ours"},
		// Submissions, which is understood, has TLS; whoever does not use it does not notice.
		"no TLS but that":      {[]string{relay, anchors, noTLS, "clientcert /none", "clientkey KEY"}, "none control/tlsstrictness 0 - 0 /none"},
		"that TLS":             {[]string{"smtproutes :127.0.0.1:465", anchors, noTLS, "clientcert /none", "clientkey KEY"}, "control/clientcert:1: "},
		"no TLS to show it in": {[]string{relay, "clientcerts [127.0.0.1]::none"}, "none control/tlsstrictness 0 - 0 -"},
	} {
		t.Run(name, func(t *testing.T) {
			if got, want := planned(t, paths, test.settings), paths.Replace(test.want); got != want && !(strings.Contains(want, ": ") && strings.HasPrefix(got, want)) {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
}

// withOption is a line of control/credentials with an option.
func withOption(option string) string {
	return "credentials 127.0.0.1::joe:password," + option + ":s3cret"
}

// planned returns what a plan under these settings says of its only way, or its error.
func planned(t *testing.T, paths *strings.Replacer, settings []string) string {
	t.Helper()
	files := map[string]string{"me": "me.example\n", "ipme": "192.0.2.1\n"}
	for _, line := range settings {
		name, text, _ := strings.Cut(paths.Replace(line), " ")
		files[name] = text + "\n"
	}
	home := must.Home(t, files)
	if files["credentials"] != "" {
		must.OK(t, os.Chmod(filepath.Join(home, "control", "credentials"), 0o640))
	}
	s, err := control.Read(home)
	if err != nil {
		return err.Error()
	}
	r, err := New(Config{Settings: s, Programs: home, Exits: exits})
	if err != nil {
		return err.Error()
	}
	plan := r.Plan(t.Context(), &Job{Host: "[127.0.0.1]", Sender: "joe@one.example"})
	if plan.Err != nil {
		return plan.Err.Error()
	}
	step := plan.Steps[len(plan.Steps)-1]
	if shown := fmt.Sprintf("%v %+v %#v", step, step, step); strings.Contains(shown, "s3cret") || strings.Contains(shown, "joe") {
		t.Errorf("a step prints a login: %s", shown)
	}
	who := step.Addresses[0].Identity
	if (who.Pair != nil) != (who.Certificate != "") && step.Requirement.First != policy.Clear {
		t.Errorf("certificate %q, %v", who.Certificate, who.Pair)
	}
	return fmt.Sprintf("%v %s %s %d %s", step.Requirement.First, step.Requirement.By, cmp.Or(step.Requirement.Word, "-"), who.Login.Line, cmp.Or(who.Certificate, "-"))
}
