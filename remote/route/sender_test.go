package route

import (
	"slices"
	"strings"
	"testing"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/remote/dns/dnstest"
)

const withSubmissions = "submissions:465:-1:Y:N:p\nsmtp:25:0:N:Y:p\n"

// by is senderroutes as this table has it: one line, for everybody.
func by(relay control.Relay) func(string) *control.Relay {
	return func(string) *control.Relay { relay := relay; relay.Line = 7; return &relay }
}

// Routes for the host come first, then those by sender, then those of the empty domain, then
// the DNS.
func TestRoutesBySender(t *testing.T) {
	zone := dnstest.New(t, routingZone, routingTrouble)
	relay, empty := control.Relay{Host: "Relay.example.net"}, control.Relay{}
	const direct = "smtp itself.test:25 192.0.2.9 2001:db8::9; no MX or SRV: the host itself"
	for _, c := range []struct {
		name, host string
		files      map[string]string
		relay      control.Relay
		want       []string
		trace      string
	}{
		{"a relay for the sender", "itself.test", files("protocols", onlySMTP), relay,
			[]string{"smtp Relay.example.net:25 192.0.2.100; senderroutes line 7"}, "route control/senderroutes:7 relay.example.net port 25"},
		{"at a port", "itself.test", files("protocols", onlySMTP), control.Relay{Host: "relay.example.net", Port: 587},
			[]string{"smtp relay.example.net:587 192.0.2.100; senderroutes line 7"}, "route control/senderroutes:7 relay.example.net port 587"},
		{"for an address literal", "[192.0.2.1]", files("protocols", onlySMTP), relay,
			[]string{"smtp Relay.example.net:25 192.0.2.100; senderroutes line 7"}, ""},
		{"over the empty domain", "itself.test", files("protocols", onlySMTP, "smtproutes", ":192.0.2.50\n"), relay,
			[]string{"smtp Relay.example.net:25 192.0.2.100; senderroutes line 7"}, "smtproutes line 1 is passed over: control/senderroutes:7 holds for the sender"},
		{"an empty relay over the empty domain", "itself.test", files("protocols", onlySMTP, "smtproutes", ":192.0.2.50\n"), empty,
			[]string{direct}, "senderroutes line 7 is empty: the host is looked up as usual"},
		{"under a route for the host", "itself.test", files("protocols", onlySMTP, "smtproutes", "itself.test:192.0.2.50\n"), relay,
			[]string{"smtp :25 192.0.2.50; smtproutes line 1"}, ""},
		{"under an empty route for the host", "itself.test", files("protocols", onlySMTP, "smtproutes", ".test:\n:192.0.2.50\n"), relay,
			[]string{direct}, ""},
		{"under a route of another protocol for the host", "itself.test", files("protocols", threeProtocols, "qmtproutes", "itself.test:192.0.2.51\n", "smtproutes", ":192.0.2.50\n"), relay,
			[]string{"qmtp :209 192.0.2.51; qmtproutes line 1", "smtp :25 192.0.2.50; smtproutes line 1"}, ""},
		{"at port 465", "itself.test", files("protocols", withSubmissions, "trustanchors", "ca.pem"), control.Relay{Host: "relay.example.net", Port: 465},
			[]string{"submissions relay.example.net:465 192.0.2.100; senderroutes line 7"}, ""},
		{"at port 465, TLS off", "itself.test", files("protocols", withSubmissions), control.Relay{Host: "relay.example.net", Port: 465},
			[]string{"control files"}, ""},
		{"port 465 of smtproutes", "itself.test", files("protocols", withSubmissions, "trustanchors", "ca.pem", "smtproutes", ":192.0.2.50:465\n"), control.Relay{Line: -1},
			[]string{"submissions :465 192.0.2.50; smtproutes line 1"}, ""},
		{"port 465 of smtproutes, TLS off", "itself.test", files("protocols", withSubmissions, "smtproutes", ":192.0.2.50:465\n"), control.Relay{Line: -1},
			[]string{"control files"}, ""},
		{"port 465 of other routes", "itself.test", files("protocols", threeProtocols, "qmtproutes", ":192.0.2.50:465\n"), control.Relay{Line: -1},
			[]string{"qmtp :465 192.0.2.50; qmtproutes line 1"}, ""},
		{"submissionsroutes", "itself.test", files("protocols", withSubmissions, "trustanchors", "ca.pem", "submissionsroutes", ":192.0.2.50\n"), control.Relay{Line: -1},
			[]string{"submissions :465 192.0.2.50; submissionsroutes line 1"}, ""},
		{"no smtp and no relay", "itself.test", files("protocols", "qmtp:209:0:N:N:p\n"), empty,
			[]string{"qmtp itself.test:209 192.0.2.9 2001:db8::9; no MX or SRV: the host itself"}, ""},
		{"smtp that cannot be spoken: never round the relay", "itself.test", files("protocols", "smtp:25:0:Y:N:p\nqmtp:209:-1:N:N:p\n"), relay, []string{"control files"}, ""},
		{"the relay does not exist", "itself.test", files("protocols", onlySMTP), control.Relay{Host: "nowhere.test"}, []string{"relay does not exist nowhere.test"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := finder(t, settings(t, c.files), zone.Addr)
			if c.relay.Line == 0 {
				f.BySender = by(c.relay)
			}
			got, trace := outcome(t, f, c.host)
			if !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if c.trace != "" && !slices.Contains(trace, c.trace) {
				t.Errorf("no %q in the trace:\n%s", c.trace, strings.Join(trace, "\n"))
			}
		})
	}
}

// Services that are for relays alone are never asked for by SRV, and never tried at the host
// itself, by MX or at an address literal.
func TestRelayOnly(t *testing.T) {
	zone := dnstest.New(t, routingZone, routingTrouble)
	const protocols = "submission:587:-1:N:Y:p\nsmtps:465:-1:Y:N:p\n" + withSubmissions
	for _, host := range []string{"itself.test", "example.org", "[192.0.2.1]", "nothing.test", "mxdenied.test"} {
		f := finder(t, settings(t, files("protocols", protocols, "trustanchors", "ca.pem")), zone.Addr)
		got, trace := outcome(t, f, host)
		for _, line := range append(got, trace...) {
			if strings.Contains(line, "submission") || strings.Contains(line, "smtps") {
				t.Errorf("%s: %s", host, line)
			}
		}
	}
	f := finder(t, settings(t, files("protocols", "submissions:465:-1:Y:N:p\n", "trustanchors", "ca.pem")), zone.Addr)
	if got, _ := outcome(t, f, "itself.test"); !slices.Equal(got, []string{"control files"}) {
		t.Errorf("nothing but relays, and no route: %q", got)
	}
}
