package transport

import (
	"net/netip"
	"strings"
	"testing"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/control/secret"
	"nightmare.mail/mxf/remote/policy"
)

// A chain learns of a relay, our name, a certificate and the word of a policy what holds for this
// attempt, and nothing that was inherited. No secret and no user is in its environment or its
// arguments.
func TestCarrier_environ(t *testing.T) {
	const ours = "MXF_RELAY MXF_HELO MXF_POLICY MXF_TLS TCPLOCALHOST CERTFILE KEYFILE SSL_TLS_EXPORTER SSL_PROTOCOL"
	c := &Carrier{Settings: &control.Settings{Home: "/home"}, Programs: "/programs"}
	for name := range strings.FieldsSeq(ours) {
		c.Environ = append(c.Environ, name+"=stale")
	}
	c.Environ = append(c.Environ, "OTHER=stays")
	account := Login{control.Credential{Line: 3, User: "joe-user", Kind: control.Password}, secret.New("s3cret-word")}
	explicit := &control.Protocol{Service: "smtp", Explicit: true, Program: "/bin/true"}
	implicit := &control.Protocol{Service: "submissions", Implicit: true, Program: "/bin/true"}
	addr := netip.MustParseAddrPort("192.0.2.1:25")
	for _, test := range []struct {
		target Target
		want   string
	}{
		{Target{Protocol: explicit, Addr: addr, Identity: Identity{HeloHost: "me.example"}},
			"MXF_HELO=me.example MXF_TLS=none TCPLOCALHOST=me.example"},
		{Target{Protocol: explicit, Addr: addr, Relay: "relay.example", Word: "login", Manner: policy.Manner{TLS: policy.Verified},
			Identity: Identity{HeloHost: "one.example", Certificate: "/c", Key: "/k", Login: account}},
			"MXF_RELAY=relay.example MXF_HELO=one.example MXF_POLICY=login MXF_TLS=verify TCPLOCALHOST=one.example CERTFILE=/c KEYFILE=/k"},
		{Target{Protocol: implicit, Addr: addr, Relay: "relay.example", Manner: policy.Manner{TLS: policy.Must}, Identity: Identity{HeloHost: "me.example", Login: account}},
			"MXF_RELAY=relay.example MXF_HELO=me.example MXF_TLS=must TCPLOCALHOST=me.example"},
	} {
		environ := c.environ(&test.target, netip.MustParseAddrPort("192.0.2.2:1"))
		var got []string
		for name := range strings.FieldsSeq(ours + " OTHER") {
			for _, assignment := range environ {
				if strings.HasPrefix(assignment, name+"=") {
					got = append(got, assignment)
				}
			}
		}
		if said := strings.Join(got, " "); said != test.want+" OTHER=stays" {
			t.Errorf("got  %s\nwant %s", said, test.want)
		}
		args, err := c.command(&test.target, &Mail{Host: "example.org", Sender: "s@example.net", Recipients: []string{"r@example.org"}})
		if all := strings.Join(append(args, environ...), "\n"); err != nil || strings.Contains(all, "s3cret") || strings.Contains(all, "joe-user") {
			t.Errorf("%v: %s", err, all)
		}
		if shows := strings.Contains(" "+strings.Join(args, " "), " -y "); shows != (test.target.Identity.Certificate != "") {
			t.Errorf("a client certificate: %v in %q", shows, args)
		}
	}
}
