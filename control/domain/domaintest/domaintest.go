// Package domaintest has the names and address literals that everybody who reads one
// must agree on: HOST, routes, recipients and helohost each have a test that goes
// through these tables. They also seed the fuzzers.
package domaintest

import (
	"slices"
	"strings"
)

// A Name is a good text and the one form that it has.
type Name struct{ Text, Want string }

// ASCII are good names and literals in ASCII.
var ASCII = []Name{
	{"example.org", "example.org"},
	{"EXAMPLE.Org", "example.org"},
	{"example.org.", "example.org"}, // one final dot is DNS for "from the root"
	{"org", "org"},
	{"a_b._c.example.org", "a_b._c.example.org"},
	{"_under-score.example", "_under-score.example"},
	{"r3---sn-x.example.org", "r3---sn-x.example.org"},
	{"4you.example", "4you.example"},
	{"192.0.2.1", "192.0.2.1"}, // a name as far as anyone can tell
	{"xn--mnchen-3ya.example", "xn--mnchen-3ya.example"},
	{"xn--zz--zz.example", "xn--zz--zz.example"},                       // no A-label that our tables know
	{strings.Repeat("a.", 126) + "a", strings.Repeat("a.", 126) + "a"}, // 253 bytes
	{strings.Repeat("a", 63) + ".org", strings.Repeat("a", 63) + ".org"},

	{"[192.0.2.1]", "[192.0.2.1]"},
	{"[IPv6:2001:db8::1]", "[2001:db8::1]"},
	{"[ipv6:2001:DB8:0::1]", "[2001:db8::1]"},
	{"[2001:DB8:0:0::1]", "[2001:db8::1]"},
	{"[::ffff:192.0.2.1]", "[192.0.2.1]"},
	{"[IPv6:::ffff:192.0.2.1]", "[192.0.2.1]"},
	{"[::]", "[::]"},
}

// Unicode are good names beyond ASCII.
var Unicode = []Name{
	{"münchen.example", "xn--mnchen-3ya.example"},
	{"MÜNCHEN.Example", "xn--mnchen-3ya.example"},
	{"münchen.example.", "xn--mnchen-3ya.example"},
	{"mu\u0308nchen.example", "xn--mnchen-3ya.example"}, // not composed
	{"\ufeffexample.org", "example.org"},                // an editor's byte order mark
	{"faß.example", "xn--fa-hia.example"},               // non-transitional: not fass
	{"例え。テスト", "xn--r8jz45g.xn--zckzah"},                // an ideographic full stop
	{"ＥＸＡＭＰＬＥ.org", "example.org"},
	{"bü_cher.example", "xn--b_cher-3ya.example"}, // an underscore
	{"_dmarc.bücher.example", "_dmarc.xn--bcher-kva.example"},
	{"r3---sn-ü.example", "xn--r3---sn--e6a.example"},
}

// BadASCII are neither names nor literals, and are in ASCII.
var BadASCII = []string{
	".", "..", "example..org", "..example.org", "example.org..",
	"-a.example.org", "a-.example.org", "example.org-", "-", "a.-",
	"a b.example.org", " example.org", "example.org ", " ", "a\tb", "ex\x01ample.org", "a\x7f",
	"exam\\ple.org", "a/b", "*.example.org", "*", "user@example.org",
	strings.Repeat("a", 64) + ".org",
	strings.Repeat("a.", 127) + "a", // 255 bytes
	"[", "[]", "]", "[192.0.2.1", "192.0.2.1]", "[192.0.2.256]", "[192.0.2]", "[192.000.2.1]", "[192.0.2.0/24]", "[ 192.0.2.1]",
	"[IPv6:]", "[IPv6:192.0.2.1]", "[IPv6:2001:db8::1", "[2001:db8::1%eth0]", "[IPv4:192.0.2.1]", "[x:y]", "[[192.0.2.1]]",
	"[example.org]", "[192.0.2.1].example.org", "[192.0.2.1]x",
}

// BadUnicode are not names, and are beyond ASCII.
var BadUnicode = []string{
	"\xff.example.org",  // not UTF-8
	"a\u200db.example",  // a joiner out of place
	"\u202eexample.org", // a change of direction
	"א1a.example",       // mixed directions (RFC 5893)
	"\u00ad\u00ad",      // nothing is left of it
	"bü cher.example", "bü/cher.example", "bü..cher.example", "bü.-cher.example",
	"xn--zz--zz.bü.example", // what is beside it must be right
	strings.Repeat("ü", 60) + ".org",
	strings.Repeat("ü.", 60) + "org",
	strings.Repeat("ü", 600),
	"[１９２.0.2.1]", // digits that UTS 46 maps: brackets are no part of a name
}

// Good returns all good texts.
func Good() []Name { return slices.Concat(ASCII, Unicode) }

// Bad returns all bad texts.
func Bad() []string { return slices.Concat(BadASCII, BadUnicode) }
