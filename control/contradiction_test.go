package control_test

import (
	"strings"
	"testing"

	"nightmare.mail/mxf/control"
)

// What can never be met is told of a file and a line, and everything else passes.
func TestCheckPolicy(t *testing.T) {
	ours := func(*control.Protocol) bool { return true }
	foreign := func(*control.Protocol) bool { return false }
	pin := strings.Repeat("ab", 32)
	for _, test := range []struct {
		text     string
		isOurs   func(*control.Protocol) bool
		file     string // "": no contradiction
		line     int
		expected string
	}{
		{"", ours, "", 0, ""},
		{"mtasts sts", ours, "mtasts", 1, "trust anchors"},
		{"mtasts sts\ntrustanchors ca.pem", ours, "", 0, ""},
		{"mtasts sts\ntrustanchors ca/", ours, "", 0, ""},
		{"mtasts sts\ntlsclient s6-tlsc\nucspitlsclient s6-ucspitlsc", foreign, "mtasts", 1, "trust anchors"},

		{"tlspolicy x.example:dane", ours, "tlspolicy", 1, "control/trustresolvers"},
		{"tlspolicy x.example:dane\ntrustanchors ca.pem", ours, "tlspolicy", 1, "control/trustresolvers"},
		{"tlspolicy x.example:dane\ntrustresolvers 127.0.0.1", ours, "", 0, ""},

		{"tlspolicy x.example:none\n y.example:may\n z.example:auto\n @x.example:auto:may", ours, "", 0, ""},
		{"tlspolicy x.example:may\n @y.example:must", ours, "tlspolicy", 2, "TLS for must"},
		{"tlspolicy x.example:verify", ours, "tlspolicy", 1, "TLS for verify"},
		{"tlspolicy x.example:pin:" + pin, ours, "tlspolicy", 1, "TLS for pin"},
		{"tlspolicy x.example:auto:must", ours, "tlspolicy", 1, "TLS for auto:must"},
		{"tlspolicy x.example:auto:verify", ours, "tlspolicy", 1, "TLS for auto:verify"},
		{"tlspolicy x.example:must\ntrustanchors ca.pem", ours, "", 0, ""},
		{"tlspolicy x.example:must\ntrustresolvers 127.0.0.1", ours, "", 0, ""},
		{"tlspolicy x.example:must\ntlsclient s6-tlsc", foreign, "", 0, ""},
		{"tlspolicy x.example:must\nucspitlsclient s6-ucspitlsc", foreign, "", 0, ""},
		{"tlspolicy x.example:must\ntrustanchors ca.pem\nprotocols qmtp:209:1:N:N:mxf-remote-qmtpc", ours, "tlspolicy", 1, "no protocol has TLS"},
		{"tlspolicy x.example:must\ntlsclient s6-tlsc\nprotocols smtp:25:0:N:Y:mxf-remote-smtpc", foreign, "tlspolicy", 1, "no protocol has TLS"},

		{"tlspolicy x.example:verify\ntrustresolvers 127.0.0.1", ours, "tlspolicy", 1, "trust anchors for verify"},
		{"tlspolicy x.example:auto:verify\ntrustresolvers 127.0.0.1", ours, "tlspolicy", 1, "trust anchors for auto:verify"},
		{"tlspolicy x.example:verify\ntrustanchors ca.pem", ours, "", 0, ""},
		{"tlspolicy x.example:verify\n y.example:auto:verify\ntlsclient s6-tlsc", foreign, "", 0, ""},
		{"tlsstrictness 2\ntrustresolvers 127.0.0.1", ours, "tlsstrictness", 1, "trust anchors for 2"},
		{"tlsstrictness 2\ntrustanchors ca.pem\ntrustresolvers 127.0.0.1", ours, "", 0, ""},
		{"tlsstrictness 2\ntlsclient s6-tlsc", foreign, "", 0, ""},
		{"tlsstrictness 1\ntrustresolvers 127.0.0.1", ours, "", 0, ""},

		{"trustresolvers 127.0.0.1\ntlsclient s6-tlsc", foreign, "tlsclient", 1, "control/trustresolvers"},
		{"trustresolvers 127.0.0.1\nucspitlsclient s6-ucspitlsc", foreign, "ucspitlsclient", 1, "control/trustresolvers"},
		{"trustresolvers 127.0.0.1\ntlsclient mxf-tlsc\nucspitlsclient mxf-ucspitlsc", ours, "", 0, ""},
		{"trustresolvers 127.0.0.1\ntlsclient s6-tlsc\nprotocols smtp:25:0:N:Y:mxf-remote-smtpc", foreign, "", 0, ""},
		{"trustresolvers 127.0.0.1\nucspitlsclient s6-ucspitlsc\nprotocols qmtps:6209:-1:Y:N:mxf-remote-qmtpc", foreign, "", 0, ""},
		{"trustresolvers 127.0.0.1\ntlsclient s6-tlsc\nprotocols submissions:465:-1:Y:N:mxf-remote-smtpc", foreign, "tlsclient", 1, "control/trustresolvers"},
		{"tlspolicy x.example:may\n y.example:pin:" + pin + "\ntrustanchors ca.pem\ntlsclient s6-tlsc", foreign, "tlsclient", 1, "control/tlspolicy:2"},
		{"tlspolicy x.example:verify:y.example\ntrustanchors ca.pem\nucspitlsclient s6-ucspitlsc", foreign, "ucspitlsclient", 1, "control/tlspolicy:1"},
		{"tlspolicy x.example:pin:" + pin + "\ntrustanchors ca.pem\ntlsclient mxf-tlsc", ours, "", 0, ""},
		{"mtasts sts\ntlspolicy x.example:verify\ntrustanchors ca.pem\ntlsclient s6-tlsc\nucspitlsclient s6-ucspitlsc", foreign, "", 0, ""},
	} {
		err := setting(t, test.text).CheckPolicy(test.isOurs)
		if test.file == "" {
			if err != nil {
				t.Errorf("%q: %v", test.text, err)
			}
			continue
		}
		refused(t, err, test.file, test.line, test.expected)
	}
}

// Only the client of a kind of TLS that a protocol has is asked about.
func TestCheckPolicy_oneClient(t *testing.T) {
	s := setting(t, "trustresolvers 127.0.0.1\ntlsclient mxf-tlsc\nucspitlsclient s6-ucspitlsc")
	refused(t, s.CheckPolicy(func(p *control.Protocol) bool { return p.Implicit }), "ucspitlsclient", 1, "no other client than ours")
	if err := s.CheckPolicy(func(p *control.Protocol) bool { return p.Implicit || p.Explicit }); err != nil {
		t.Error(err)
	}
}

func TestHasTLS(t *testing.T) {
	for _, test := range []struct {
		text               string
		implicit, explicit bool
	}{
		{"", false, false},
		{"trustanchors ca.pem", true, true},
		{"trustresolvers 127.0.0.1", true, true},
		{"tlsclient s6-tlsc", true, false},
		{"ucspitlsclient s6-ucspitlsc", false, true},
		{"mtasts sts\ntlspolicy :must", false, false},
	} {
		s := setting(t, test.text)
		if got := s.HasTLS(s.Service(control.Submissions)); got != test.implicit {
			t.Errorf("%q: implicit %v", test.text, got)
		}
		if got := s.HasTLS(s.Service(control.SMTP)); got != test.explicit {
			t.Errorf("%q: explicit %v", test.text, got)
		}
		if s.HasTLS(s.Service("qmtp")) || s.TLSIsOn() != (test.implicit || test.explicit) {
			t.Errorf("%q: TLS is on: %v", test.text, s.TLSIsOn())
		}
	}
}
