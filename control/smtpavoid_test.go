package control_test

import (
	"net/netip"
	"testing"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/control/avoid"
)

func TestSMTPAvoid(t *testing.T) {
	s := read(t, files{"smtpavoid": `# servers that offer what they cannot do
.example.org:SIZE
.mx.example.org:EHLO
MX.Example.ORG.:PIPELINING,8BITMIME
mx.example.org:SMTPUTF8
[192.0.2.1]:SIZE,SMTPUTF8
[IPv6:2001:db8::1]:EHLO
bücher.example:SIZE
:PIPELINING
`})
	for _, c := range []struct {
		host, addr string
		words      string
		line       int
	}{
		{"mx.example.org", "192.0.2.1", "PIPELINING,8BITMIME", 4},
		{"MX.example.org", "192.0.2.9", "PIPELINING,8BITMIME", 4},
		{"a.mx.example.org", "192.0.2.1", "EHLO", 3},
		{"b.example.org", "192.0.2.1", "SIZE", 2},
		{"example.org", "192.0.2.1", "SIZE,SMTPUTF8", 6},
		{"", "192.0.2.1", "SIZE,SMTPUTF8", 6},
		{"", "::ffff:192.0.2.1", "SIZE,SMTPUTF8", 6},
		{"", "2001:db8::1", "EHLO", 7},
		{"xn--bcher-kva.example", "192.0.2.9", "SIZE", 8},
		{"example.net", "192.0.2.9", "PIPELINING", 9},
	} {
		set, line := s.SMTPAvoid.Lookup(c.host, netip.MustParseAddr(c.addr))
		if set.String() != c.words || line != c.line {
			t.Errorf("%q %s: %q of line %d", c.host, c.addr, set, line)
		}
	}
	if set, line := (control.Avoided{}).Lookup("mx.example.org", netip.MustParseAddr("192.0.2.1")); set != (avoid.Set{}) || line != 0 {
		t.Errorf("%q of line %d", set, line)
	}
}

func TestSMTPAvoid_malformed(t *testing.T) {
	for _, entry := range []string{
		"mx.example.org",           // no words
		"mx.example.org:",          // no words
		"mx.example.org:size",      // lower case
		"mx.example.org:SIZE,",     // an empty word
		"mx.example.org:SIZE EHLO", // a blank for the comma
		"mx.example.org: SIZE",     // a blank before the word
		"mx.example.org:CHUNKING",  // mxf never uses it
		"[192.0.2.1:SIZE",          // the bracket is not closed
		"[192.0.2.1]SIZE",          // no colon behind it
		"2001:db8::1:SIZE",         // an address without brackets
		"mx..example.org:SIZE",     // an empty label
		".:SIZE",                   // a suffix of nothing
	} {
		malformed(t, files{"smtpavoid": "\n# x\n" + entry + "\n"}, "smtpavoid", 3, "found ")
	}
}
