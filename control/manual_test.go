package control

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"nightmare.mail/mxf/integration/must"
)

// TestManual compares mxf-control(5) with the code: its defaults are ours, and its
// examples of lists are well-formed.
func TestManual(t *testing.T) {
	page := must.Get(os.ReadFile("../doc/mxf-control.5"))(t)
	text := strings.ReplaceAll(string(page), `\&.`, ".")
	if !strings.Contains(text, "\n"+defaultProtocols+".Ed\n") {
		t.Error("the default protocols are not those of the manual")
	}
	for _, name := range []string{
		"me", "helohost", "protocols", "smtproutes", "qmtproutes", "qmtpsroutes", "tlsclient", "ucspitlsclient", "trustanchors",
		"clientcert", "clientkey", "tlsstrictness", "ipme", "timeoutconnect", "timeoutremote", "timeoutdns", "trace",
		"senderroutes", "submissionsroutes", "credentials", "sources", "families", "clientcerts", "signingkeys",
		"trustresolvers", "mtasts", "tlspolicy", "tlsrptsocket", "clearafter",
		"delnumbytes", "spawnlimit", "connectionlimits", "connectionidle", "connectionwait", "tlsresumption", "statusfile",
	} {
		if !regexp.MustCompile(`(?m)^\.It Pa .*\b` + name + `\b`).MatchString(text) {
			t.Errorf("%s has no entry", name)
		}
	}
	if !strings.Contains(text, fmt.Sprintf("\nDefault:\n.Li :%d:%d:%d .\n", DefaultConnections, DefaultMessages, DefaultRecipients)) {
		t.Error("the default of connectionlimits is not that of the manual")
	}
	_, examples, _ := strings.Cut(text, "\n.Sh EXAMPLES\n")
	routes := between(examples, "# the branch office", ".Ed")
	r := must.Get(parseTable(routes))(t)
	for domain, want := range map[string]string{
		"x.branch.example.com": "2001:db8::25", "[2001:db8::1]": "test.example.com", "partner.example.org": "", "example.net": "192.0.2.25",
	} {
		if relay, err := r.Lookup(domain); err != nil || relay == nil || whither(relay) != want {
			t.Errorf("%s: got %v, %v, want %q", domain, relay, err, want)
		}
	}
	protocols, err := dir{home: "/home"}.parseProtocols([]byte(between(examples, "smtps:465:", ".Ed")))
	if err != nil || len(protocols) != 2 {
		t.Errorf("got %+v, %v", protocols, err)
	}
}

// between returns text from the first begin to the next end. text must have both.
func between(text, begin, end string) string {
	return text[strings.Index(text, begin):][:strings.Index(text[strings.Index(text, begin):], end)]
}
