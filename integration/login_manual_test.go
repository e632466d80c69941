package integration

import (
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"nightmare.mail/mxf/integration/lab"
	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/smtpc/smtptest"
)

// The examples of mxf-control(5), as they stand there, with servers of those names on those
// ports, in a network of its own. Control files, keys and records are what the page makes of
// them; nothing but the folders is put in its place.

// manualAddresses are those of the examples, besides apartAddresses.
var manualAddresses = []string{"192.0.2.1/24", "192.0.2.10/24", "2001:db8::10/64"}

const manualZone = `
smtp.gmail.com                        A     198.51.100.25
smtp.office365.com                    A     198.51.100.25
smtp.work.example                     A     198.51.100.25
email-smtp.eu-west-1.amazonaws.com    A     198.51.100.26
example.org                           MX    10 mx.example.org
mx.example.org                        A     198.51.100.11
mx.example.org                        AAAA  2001:db8:1::11
`

// manualBlocks are the literal blocks of a section of a page.
func manualBlocks(t *testing.T, page, section string) []string {
	t.Helper()
	text := string(must.Get(os.ReadFile("../doc/" + page))(t))
	_, text, found := strings.Cut(text, "\n.Ss "+section+"\n")
	if !found {
		t.Fatalf("%s has no section %q", page, section)
	}
	text, _, _ = strings.Cut(text, "\n.Sh ")
	text, _, _ = strings.Cut(text, "\n.Ss ")
	var blocks []string
	for _, part := range strings.Split(text, "\n.Bd -literal -offset indent\n")[1:] {
		block, _, _ := strings.Cut(part, "\n.Ed\n")
		blocks = append(blocks, strings.NewReplacer(`\(aq`, `'`, `\(dq`, `"`, `\e`, `\`).Replace(block)+"\n")
	}
	return blocks
}

var setting = regexp.MustCompile(`(?m)^([a-z]*) {2,}(\S.*)$`)

// controlFiles are the lines of each file in a block of settings.
func controlFiles(block string) map[string][]string {
	files, name := make(map[string][]string), ""
	for _, m := range setting.FindAllStringSubmatch(block, -1) {
		if m[1] != "" {
			name = m[1]
		}
		files[name] = append(files[name], m[2])
	}
	return files
}

// A manualHome is a home with the settings of one example.
type manualHome struct {
	*lab.Lab
	dir   string
	files map[string][]string
}

// account is what a line of credentials says.
func (m *manualHome) account(t *testing.T, relay string) (user, secret string) {
	t.Helper()
	for _, line := range m.files["credentials"] {
		if field := strings.SplitN(line, ":", 5); field[0] == relay {
			return field[2], field[4]
		}
	}
	t.Fatalf("no line for %s", relay)
	return "", ""
}

// serve starts a server of that name.
func (m *manualHome) serve(t *testing.T, name, addr string, port uint16, auth *smtptest.Auth, change func(*lab.SMTP)) *lab.SMTPServer {
	t.Helper()
	config := lab.SMTP{Name: name, Port: port, Implicit: port == 465, Auth: auth, TLS: lab.TLS{Certificate: m.Certificate(name)}}
	if change != nil {
		change(&config)
	}
	return must.Get(m.SMTP(netip.MustParseAddr(addr), config))(t)
}

// deliver delivers a message of sender, and returns what came to the servers.
func (m *manualHome) deliver(t *testing.T, sender string) *lab.Message {
	t.Helper()
	message := filepath.Join(m.dir, "message")
	put(t, message, []byte("From: "+sender+"\nTo: b@example.org\nSubject: hello\n\nHello.\n"))
	before := len(m.Inbox.Messages())
	trace := filepath.Join(m.dir, "trace")
	o := must.Get(lab.Rspawn(t.Context(), lab.Delivery{Program: filepath.Join(programs(t), "mxf-remote"),
		Environ: append(m.Environ(), "MXF_TRACE="+trace, "GOCOVERDIR="+coverageIfAny(t)), Dir: m.dir,
		Message: must.Open(t, message), Host: "example.org", Sender: sender, Recipients: []string{"b@example.org"}}))(t)
	if o.Letter != 'K' || len(m.Inbox.Messages()) != before+1 {
		said, _ := os.ReadFile(trace)
		t.Fatalf("from %s: %c %q\n%s", sender, o.Letter, o.Text, said)
	}
	return m.Inbox.Messages()[before]
}

// through checks where a message went.
func through(t *testing.T, m *lab.Message, server string, port uint16, isLogin bool) {
	t.Helper()
	if s := m.Session; s.Server != server || s.Local.Port() != port || len(s.Secrets()) > 0 != isLogin {
		t.Errorf("the mail of %q went to %s, port %d, commands %q", m.Sender, s.Server, s.Local.Port(), s.Commands())
	}
}

func TestManualLogins(t *testing.T) {
	if !apart(t, slices.Concat(apartAddresses, manualAddresses)) {
		return
	}
	var settings, commands []string
	for _, block := range manualBlocks(t, "mxf-control.5", "Logins, senders and signatures") {
		if setting.MatchString(strings.SplitAfter(block, "\n")[0]) {
			settings = append(settings, block)
		} else {
			commands = append(commands, block)
		}
	}
	examples := []struct {
		name string
		run  func(*testing.T, *manualHome)
	}{
		{"gmail", manualGmail}, {"office", manualOffice}, {"proxy", manualProxy}, {"by sender", manualBySender},
		{"hosting", func(t *testing.T, m *manualHome) { manualHosting(t, m, commands) }},
	}
	if len(settings) != len(examples) || len(commands) != 2 {
		t.Fatalf("the page has %d examples and %d blocks of commands", len(settings), len(commands))
	}
	for _, way := range []string{"process", "chain"} {
		for i, e := range examples {
			t.Run(way+"/"+e.name, func(t *testing.T) { e.run(t, newManualHome(t, way, settings[i])) })
		}
	}
}

// newManualHome makes a home with the settings of a block and nothing else but trust anchors.
func newManualHome(t *testing.T, way, block string) *manualHome {
	t.Helper()
	dir := t.TempDir()
	m := &manualHome{Lab: must.Get(lab.Open(filepath.Join(dir, "home")))(t), dir: dir}
	t.Cleanup(func() { must.OK(t, m.Inbox.Wrong(), m.Close()) })
	must.OK(t, m.Zone(manualZone), m.Home.Trust(m.Authority), m.Home.Remove("protocols"))
	if way == "chain" {
		must.OK(t, m.Home.Set("tlsclient", filepath.Join(programs(t), "mxf-tlsc")), m.Home.Set("ucspitlsclient", filepath.Join(programs(t), "mxf-ucspitlsc")))
	}
	m.files = controlFiles(strings.ReplaceAll(block, "/run/mail/", dir+"/"))
	for name, lines := range m.files {
		must.OK(t, m.Home.Set(name, lines...))
		if name == "credentials" {
			must.OK(t, os.Chmod(m.Home.Path("control/"+name), 0o640))
		}
	}
	return m
}

func manualGmail(t *testing.T, m *manualHome) {
	user, password := m.account(t, "smtp.gmail.com")
	m.serve(t, "smtp.gmail.com", "198.51.100.25", 465, &smtptest.Auth{Demand: true,
		Mechanisms: []string{"LOGIN", "PLAIN", "XOAUTH2", "PLAIN-CLIENTTOKEN", "OAUTHBEARER", "XOAUTH"}, Users: map[string]string{user: password}}, nil)
	through(t, m.deliver(t, "joe@gmail.com"), "smtp.gmail.com", 465, true)
	through(t, m.deliver(t, ""), "smtp.gmail.com", 465, true)
}

func manualOffice(t *testing.T, m *manualHome) {
	user, file := m.account(t, "smtp.office365.com")
	const token = "eyJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiJ9.e30.c2ln"
	must.OK(t, os.WriteFile(file, []byte(token+"\n"), 0o640))
	for _, mechanisms := range [][]string{{"LOGIN", "XOAUTH2"}, {"OAUTHBEARER", "XOAUTH2"}} {
		s := m.serve(t, "smtp.office365.com", "198.51.100.25", 587, &smtptest.Auth{Demand: true, Mechanisms: mechanisms, Tokens: map[string]string{user: token}}, nil)
		through(t, m.deliver(t, "relay@contoso.example"), "smtp.office365.com", 587, true)
		must.OK(t, s.Close())
	}
}

// The proxy is on this machine, and control/ipme is not there, so that loopback is ourselves.
func manualProxy(t *testing.T, m *manualHome) {
	user, password := m.account(t, "127.0.0.1")
	must.OK(t, m.Home.Remove("trustanchors"), m.Home.Remove("ipme"))
	m.serve(t, "localhost", "127.0.0.1", 2525, &smtptest.Auth{Demand: true, Clear: true, Mechanisms: []string{"PLAIN", "LOGIN"},
		Users: map[string]string{user: password}}, func(c *lab.SMTP) { c.TLS.Certificate = nil })
	through(t, m.deliver(t, "joe@contoso.example"), "localhost", 2525, true)
}

func manualBySender(t *testing.T, m *manualHome) {
	user, file := m.account(t, "smtp.work.example")
	must.OK(t, os.Mkdir(m.Home.Path("control/secrets"), 0o755), os.WriteFile(m.Home.Path(file), []byte("joes secret\n"), 0o640))
	m.serve(t, "smtp.work.example", "198.51.100.25", 587, &smtptest.Auth{Demand: true, Mechanisms: []string{"PLAIN", "SCRAM-SHA-256"},
		Users: map[string]string{user: "joes secret"}}, nil)
	user, password := m.account(t, "email-smtp.eu-west-1.amazonaws.com")
	m.serve(t, "email-smtp.eu-west-1.amazonaws.com", "198.51.100.26", 465, &smtptest.Auth{Demand: true, Mechanisms: []string{"PLAIN", "LOGIN"},
		Users: map[string]string{user: password}}, func(c *lab.SMTP) { c.Senders = map[string]string{"": "554 Transaction failed: Empty sender"} })
	m.serve(t, "mx.example.org", "198.51.100.11", 25, nil, nil)
	through(t, m.deliver(t, "joe@work.example"), "smtp.work.example", 587, true)
	through(t, m.deliver(t, "orders@shop.example"), "email-smtp.eu-west-1.amazonaws.com", 465, true)
	through(t, m.deliver(t, ""), "mx.example.org", 25, false)
	through(t, m.deliver(t, "a@example.net"), "mx.example.org", 25, false)
}

func manualHosting(t *testing.T, m *manualHome, commands []string) {
	inHome := func(script string) string {
		// Here is no group of that name.
		script = strings.NewReplacer("/var/qmail", m.Home.Dir, "root:qmail", "0:0").Replace(script)
		cmd := exec.CommandContext(t.Context(), "sh", "-ec", script)
		cmd.Dir = m.Home.Path("control")
		var complaint strings.Builder
		cmd.Stderr = &complaint
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v: %s", err, complaint.String())
		}
		return string(out)
	}
	inHome(commands[0])
	m.serve(t, "mx.example.org", "198.51.100.11", 25, nil, nil)
	from := func(sender, addr, name string, signatures int) {
		t.Helper()
		got := m.deliver(t, sender)
		through(t, got, "mx.example.org", 25, false)
		if s := got.Session; s.Remote.Addr() != netip.MustParseAddr(addr) || s.Commands()[0] != "EHLO "+name {
			t.Errorf("the mail of %q came from %v, commands %q", sender, s.Remote, s.Commands())
		}
		if n := strings.Count(string(got.Data), "DKIM-Signature:"); n != signatures {
			t.Errorf("the mail of %q has %d signatures", sender, n)
		}
		for _, tag := range []string{"a=rsa-sha256", "s=s2026", "a=ed25519-sha256", "s=e2026"} {
			if strings.Contains(string(got.Data), tag+";") != (signatures > 0) {
				t.Errorf("%s: %s", tag, got.Data)
			}
		}
	}
	from("joe@shop.example", "192.0.2.10", "mail.shop.example", 2)
	from("a@example.net", "192.0.2.1", lab.HeloHost, 0)
	from("", "192.0.2.1", lab.HeloHost, 0)
	m.serve(t, "mx.example.org", "2001:db8:1::11", 25, nil, nil)
	from("joe@shop.example", "2001:db8::10", "mail.shop.example", 2)
	from("a@example.net", "192.0.2.1", lab.HeloHost, 0)

	records := strings.Split(strings.TrimSpace(inHome("cd keys\n"+commands[1])), "\n")
	published := strings.Join(records, "\n")
	if len(records) != 3 {
		t.Fatalf("the records are %q", published)
	}
	for i, name := range []string{"shop-rsa.pem", "shop-ed25519.pem"} {
		text := strings.ReplaceAll(strings.Join([][]string{records[:2], records[2:]}[i], ""), `"`, "")
		_, p, _ := strings.Cut(text, "p=")
		key := must.Get(base64.StdEncoding.DecodeString(p))(t)
		block, _ := pem.Decode(must.Get(os.ReadFile(m.Home.Path("control/keys/" + name)))(t))
		same := false
		switch private := must.Get(x509.ParsePKCS8PrivateKey(block.Bytes))(t).(type) {
		case *rsa.PrivateKey:
			public, err := x509.ParsePKIXPublicKey(key)
			same = err == nil && private.PublicKey.Equal(public) && strings.HasPrefix(text, "v=DKIM1; k=rsa; p=")
		case ed25519.PrivateKey:
			same = ed25519.PublicKey(key).Equal(private.Public()) && strings.HasPrefix(text, "v=DKIM1; k=ed25519; p=")
		}
		if !same {
			t.Errorf("the record of %s is %q", name, text)
		}
	}
	for _, record := range records {
		if len(record) > 255+len(`""`) {
			t.Errorf("a string of %d bytes", len(record))
		}
	}
}
