package control

import (
	"strings"
	"testing"

	"nightmare.mail/mxf/integration/must"
)

const someSenderRoutes = `# by sender
@work.example:smtp.work.example:587
@shop.example:Email-SMTP.eu-west-1.example:465
boss@shop.example:[2001:db8::25]
@.shop.example:192.0.2.25
@.eu.shop.example:
root:root.example.org
joe@[IPv6:2001:DB8:0::1]:literal.example.org
@b` + "\u00fc" + `cher.example:idn.example.org
<>:
`

func TestSenderRoutes(t *testing.T) {
	for _, all := range []string{"", ":all.example.org:587\n"} {
		r := must.Get(dir{home: "/home"}.parseSenderRoutes([]byte(someSenderRoutes+all), true))(t)
		for _, test := range []struct {
			sender, relay string
			port          uint16
			line          int
		}{
			{"joe@work.example", "smtp.work.example", 587, 2},
			{"JOE-ext=a=b@WORK.example", "smtp.work.example", 587, 2},
			{"joe@sub.work.example", "all", 0, 0},
			{"joe@shop.example", "email-smtp.eu-west-1.example", 465, 3},
			{"Boss@Shop.Example.", "2001:db8::25", 0, 4},
			{"joe@boss@shop.example", "email-smtp.eu-west-1.example", 465, 3},
			{"joe@a.shop.example", "192.0.2.25", 0, 5},
			{"joe@eu.shop.example", "192.0.2.25", 0, 5},
			{"joe@a.eu.shop.example", "", 0, 6},
			{"ROOT", "root.example.org", 0, 7},
			{"root@shop.example", "email-smtp.eu-west-1.example", 465, 3},
			{"joe@[2001:db8::1]", "literal.example.org", 0, 8},
			{"mary@[2001:db8::1]", "all", 0, 0},
			{"joe@xn--bcher-kva.example", "idn.example.org", 0, 9},
			{"joe@B\u00dcCHER.example", "idn.example.org", 0, 9},
			{"", "", 0, 10},
			{"joe", "all", 0, 0},
			{"#@[]", "all", 0, 0},
			{"joe@example.org", "all", 0, 0},
		} {
			if test.relay == "all" {
				test.relay, test.port, test.line = "all.example.org", 587, 11
				if all == "" {
					test.line = 0
				}
			}
			relay := r.Lookup(test.sender)
			switch {
			case test.line == 0 && relay != nil:
				t.Errorf("%q: got %+v, want none", test.sender, relay)
			case test.line == 0:
			case relay == nil || relay.Line != test.line || relay.Port != test.port || relay.Name() != test.relay || relay.Wildcard:
				t.Errorf("%q: got %+v, want %q port %d line %d", test.sender, relay, test.relay, test.port, test.line)
			}
		}
	}
	if relay := (SenderRoutes{}).Lookup("joe@example.org"); relay != nil {
		t.Errorf("got %v", relay)
	}
}

// A bounce has no line of its own here.
func TestSenderRoutes_everySenderIsTheNullOneToo(t *testing.T) {
	r := must.Get(dir{home: "/home"}.parseSenderRoutes([]byte(":all.example.org\n"), true))(t)
	if relay := r.Lookup(""); relay == nil || relay.Line != 1 {
		t.Errorf("got %v", relay)
	}
}

var badSenderRoutes = []struct{ entry, expected string }{
	{"@shop.example", "sender:relay or sender:relay:port"},
	{"joe@[2001:db8::1]", "sender:relay or sender:relay:port"},
	{"<>::25", "no port where there is no relay"},
	{"@shop.example::587", "no port where there is no relay"},
	{"@shop.example:relay:", "a port"},
	{"@shop.example:relay:0", "a port"},
	{"@shop.example:relay:587:x", "a port"},
	{"@shop.example:2001:db8::25", "an IPv6 address stands in brackets"},
	{"@shop.example:192.0.2.256", "a host name"},
	{"@shop.example:[192.0.2.1", "an address in brackets"},
	{"joe@.shop.example:relay", "the sender"},
	{"@:relay", "the sender"},
	{"<joe@shop.example>:relay", "the sender"},
	{"@shop.example:relay user", "logins belong in control/credentials"},
	{"@shop.example:relay|user", "logins belong in control/credentials"},
	{" @shop.example:relay", "logins belong in control/credentials"},
	{"Joe@Work.example.:x\njoe@work.example:y", "each sender once"},
	{"<>:\n<>:", "each sender once"},
	{":\n:relay", "each sender once"},
	{"@b\u00fccher.example:\n@xn--bcher-kva.example:", "each sender once"},
}

func TestSenderRoutes_malformed(t *testing.T) {
	for _, test := range badSenderRoutes {
		text := "# first\n" + test.entry + "\n"
		_, err := dir{home: "/home"}.parseSenderRoutes([]byte(text), true)
		e, _ := err.(*Error)
		if e == nil || e.Line != strings.Count(text, "\n") || !strings.Contains(e.What, test.expected) {
			t.Errorf("%q: got %v, want %q", test.entry, err, test.expected)
		}
	}
}

func TestSenderRoutes_withoutSMTP(t *testing.T) {
	if _, err := (dir{home: "/home"}.parseSenderRoutes([]byte("<>:\n"), false)); err != nil {
		t.Error(err)
	}
	_, err := dir{home: "/home"}.parseSenderRoutes([]byte("<>:\n@shop.example:relay\n"), false)
	if err == nil || !strings.HasPrefix(err.Error(), "control/senderroutes:2: expected no relay") {
		t.Errorf("got %v", err)
	}
}

// FuzzSenderRoutes wants of every file that it is malformed in a line that exists, or has
// routes that are found by their own senders. No error repeats what is behind a blank or '|'.
func FuzzSenderRoutes(f *testing.F) {
	f.Add(someSenderRoutes)
	for _, test := range badSenderRoutes {
		f.Add(test.entry)
		f.Add(someSenderRoutes + test.entry)
	}
	for _, n := range goodSenders {
		f.Add(n.Text + ":relay")
	}
	for _, test := range goodRelays {
		f.Add("@shop.example:" + test.relay)
	}
	f.Fuzz(func(t *testing.T, text string) {
		routes, err := dir{home: "/home"}.parseSenderRoutes([]byte(text), true)
		if err != nil {
			checkError(t, err, "control/senderroutes", []byte(text))
			if len(routes.senders) != 0 {
				t.Errorf("routes beside %v", err)
			}
			return
		}
		for key, relay := range routes.senders {
			if relay.Line < 1 || relay.Line > 1+strings.Count(text, "\n") || relay.Name() == "" && relay.Port != 0 {
				t.Errorf("%q: %+v", key, relay)
			}
			sender := key
			switch {
			case key == "" || key == nullSender:
				sender = ""
			case isSenderSuffix(key):
				sender = "nobody@elsewhere" + key[1:]
			}
			got := routes.Lookup(sender)
			if len(key) < 200 && key != "" && (got == nil || *got != relay) {
				t.Errorf("%q: got %+v, want %+v", sender, got, relay)
			}
		}
	})
}
