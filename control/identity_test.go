package control_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/integration/must"
)

// setting makes a home of a table: a file and its line, and further lines below. Logins are
// not for others.
func setting(t *testing.T, text string) *control.Settings {
	t.Helper()
	f := files{}
	name := ""
	for line := range strings.Lines(text) {
		file, entry, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if file != "" {
			name = file
		}
		f[name] += strings.TrimLeft(entry, " ") + "\n"
	}
	h := home(t, f)
	if _, there := f["credentials"]; there {
		must.OK(t, os.Chmod(filepath.Join(h, "control", "credentials"), 0o640))
	}
	return must.Get(control.Read(h))(t)
}

// way says where mail goes and how we log in there: the service, relay, port and user.
func way(t *testing.T, s *control.Settings, host, sender string) string {
	t.Helper()
	var relay *control.Relay
	service := control.SMTP
	for i := range s.Protocols {
		if r := must.Get(s.Protocols[i].Routes.Lookup(host))(t); r != nil && (relay == nil || !r.Wildcard) {
			relay, service = r, s.Protocols[i].Service
		}
	}
	if r := s.SenderRoutes.Lookup(sender); r != nil && (relay == nil || relay.Wildcard) {
		relay, service = r, control.SMTP
	}
	if relay == nil || relay.Name() == "" {
		return "direct"
	}
	if relay.Port == control.SubmissionsPort {
		service = control.Submissions
	}
	c := must.Get(control.ReadCredentials(s.Home))(t).For(relay.Name(), sender)
	if c == nil {
		return service + " " + relay.Name()
	}
	return service + " " + relay.Name() + " " + c.User
}

// TestExamples are the settings that most hosts have.
func TestExamples(t *testing.T) {
	for _, example := range []struct {
		text string
		ways map[string]string // by sender, to example.org
	}{
		{`submissionsroutes   :smtp.gmail.com
credentials         smtp.gmail.com::joe@gmail.com:password:abcdefghijklmnop
`, map[string]string{"": "submissions smtp.gmail.com joe@gmail.com", "x@y.example": "submissions smtp.gmail.com joe@gmail.com"}},
		{`smtproutes          :smtp.office365.com:587
credentials         smtp.office365.com::relay@contoso.example:tokenfile:/run/mail/token
`, map[string]string{"x@contoso.example": "smtp smtp.office365.com relay@contoso.example"}},
		{`smtproutes          :127.0.0.1:2525
credentials         127.0.0.1::joe@contoso.example:password,clear:local secret
`, map[string]string{"x@contoso.example": "smtp 127.0.0.1 joe@contoso.example"}},
		{`senderroutes        @work.example:smtp.work.example:587
                    @shop.example:email-smtp.eu-west-1.amazonaws.com:465
                    <>:
credentials         smtp.work.example::joe:passwordfile:control/secrets/joe
                    email-smtp.eu-west-1.amazonaws.com:@shop.example:AKIAEXAMPLE:password:BGx/examplE
`, map[string]string{
			"joe@work.example": "smtp smtp.work.example joe", "mary@shop.example": "submissions email-smtp.eu-west-1.amazonaws.com AKIAEXAMPLE",
			"": "direct", "x@example.net": "direct",
		}},
		{`smtproutes          example.org:inside.example
                    :outside.example
senderroutes        @work.example:smtp.work.example
`, map[string]string{"joe@work.example": "smtp inside.example", "": "smtp inside.example"}},
		{`smtproutes          :outside.example
senderroutes        @work.example:smtp.work.example
                    <>:
`, map[string]string{"joe@work.example": "smtp smtp.work.example", "": "direct", "x@example.net": "smtp outside.example"}},
	} {
		s := setting(t, example.text)
		for sender, want := range example.ways {
			if got := way(t, s, "example.org", sender); got != want {
				t.Errorf("%s%q: got %s, want %s", example.text, sender, got, want)
			}
		}
	}
}

func TestExamples_hosting(t *testing.T) {
	s := setting(t, `sources             @shop.example:192.0.2.10:mail.shop.example
                    @shop.example:[2001:db8::10]:mail.shop.example
                    :192.0.2.1
signingkeys         shop.example:s2026:control/keys/shop-rsa.pem
                    shop.example:e2026:control/keys/shop-ed25519.pem
families            :ipv4
`)
	four, six, _ := s.Sources.For("joe@shop.example")
	if four.Helo != "mail.shop.example" || six.Addr != netip.MustParseAddr("2001:db8::10") {
		t.Errorf("got %v, %v", four, six)
	}
	if four, six, _ = s.Sources.For("joe@example.net"); four.Addr != netip.MustParseAddr("192.0.2.1") || six.Line != 0 {
		t.Errorf("got %v, %v", four, six)
	}
	keys := s.SigningKeys.For("shop.example")
	if len(keys) != 2 || keys[1].Selector != "e2026" || keys[0].Path != s.Home+"/control/keys/shop-rsa.pem" {
		t.Errorf("got %v", keys)
	}
	if only, line := s.Families.For("mx.example.org", netip.MustParseAddr("2001:db8::1")); only != control.IPv4 || line != 1 {
		t.Errorf("got %v of line %d", only, line)
	}
}
