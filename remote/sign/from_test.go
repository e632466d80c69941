package sign

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// froms are values of From with the domain that all its mailboxes are in, or why there is none.
var froms = []struct {
	value  string
	domain string
	err    error
}{
	{"joe@shop.example", "shop.example", nil},
	{" <joe@SHOP.example>", "shop.example", nil},
	{"Joe <joe@shop.example>", "shop.example", nil},
	{"Joe Q. Public <joe@shop.example>", "shop.example", nil},
	{`"Public, Joe <root@other.example>" <joe@shop.example>`, "shop.example", nil},
	{`"a\"b\\" <joe@shop.example>`, "shop.example", nil},
	{`"joe@other.example"@shop.example`, "shop.example", nil},
	{`"a"."b".c@shop.example`, "shop.example", nil},
	{`a . b @ shop . example`, "shop.example", nil},
	{"joe@shop.example (a comment, with joe@other.example (nested \\) one))", "shop.example", nil},
	{"(a)joe(b)@(c)shop(d).(e)example(f)", "shop.example", nil},
	{"(a)Joe(b)<(c)joe(d)@(e)shop.example(f)>(g)", "shop.example", nil},
	{"Joe\r\n\t<joe@shop.example>", "shop.example", nil},
	{"Joe\n <joe\n @shop.example>\n ", "shop.example", nil},
	{"<@a.example,@b.example:joe@shop.example>", "shop.example", nil},
	{"<, @a.example,, @b.example,:joe@shop.example>", "shop.example", nil},
	{"a@shop.example, B <b@shop.example>,c@Shop.Example", "shop.example", nil},
	{", ,a@shop.example,,b@shop.example,", "shop.example", nil},
	{"Staff: a@shop.example, B <b@shop.example>;", "shop.example", nil},
	{"Staff:;, a@shop.example", "shop.example", nil},
	{"A:a@shop.example;,B:,b@shop.example,;,c@shop.example", "shop.example", nil},
	{"J\xf6rg <joe@shop.example>", "shop.example", nil},
	{"\"J\xc3\xb6rg\" (\xff) <j\xc3\xb6@shop.example>", "shop.example", nil},
	{"joe@b\xc3\xbccher.example", "xn--bcher-kva.example", nil},
	{"joe@xn--bcher-kva.example, joe@B\xc3\x9cCHER.example", "xn--bcher-kva.example", nil},
	{"=?utf-8?q?J=C3=B6rg?= <joe@shop.example>", "shop.example", nil},
	{"joe@[192.0.2.1]", "[192.0.2.1]", nil},
	{"joe@[ IPv6:2001:db8::1 ]", "[2001:db8::1]", nil},
	{"joe@localhost", "localhost", nil},
	{"\"\\\x00\x01\x7f\" <joe@shop.example>", "shop.example", nil},
	{"\"\" <joe@shop.example>", "shop.example", nil},
	{"\"\"@shop.example", "shop.example", nil},

	{"", "", errNoMailbox},
	{" \n ", "", errNoMailbox},
	{"(nobody)", "", errNoMailbox},
	{",", "", errNoMailbox},
	{"undisclosed:;", "", errNoMailbox},
	{"a@shop.example, b@other.example", "", errTwoDomains},
	{"a@shop.example, G: b@www.shop.example;", "", errTwoDomains},
	{"joe", "", errNoDomain},
	{"<joe>", "", errNoDomain},
	{"joe, joe@shop.example", "", errNoDomain},
	{"G: joe; , joe@shop.example", "", errNoDomain},
	{"<>", "", errSyntax},
	{"Joe <>", "", errSyntax},
	{"Joe joe@shop.example", "", errSyntax},
	{"Joe <joe@shop.example", "", errSyntax},
	{"Joe <joe@shop.example> x", "", errSyntax},
	{"Joe <joe@shop.example>> ", "", errSyntax},
	{"<joe@shop.example> <b@shop.example>", "", errSyntax},
	{"joe@shop.example joe@shop.example", "", errSyntax},
	{"joe@shop.example; b@shop.example", "", errSyntax},
	{"a..b@shop.example", "", errSyntax},
	{".a@shop.example", "", errSyntax},
	{"a.@shop.example", "", errSyntax},
	{"<a.@shop.example>", "", errSyntax},
	{"\"a\"b@shop.example", "", errSyntax},
	{"@shop.example", "", errSyntax},
	{"a@@shop.example", "", errSyntax},
	{"a@b@shop.example", "", errSyntax},
	{"a@shop..example", "", errSyntax},
	{"a@shop.example.", "", errSyntax},
	{"a@.shop.example", "", errSyntax},
	{"a@", "", errSyntax},
	{"a@[192.0.2.1", "", errSyntax},
	{"a@[192.0.2.1][", "", errSyntax},
	{"<@a.example @b.example:joe@shop.example>", "", errSyntax},
	{"<,:joe@shop.example>", "", errSyntax},
	{"<@a.example joe@shop.example>", "", errSyntax},
	{"G: H: a@shop.example;;", "", errSyntax},
	{"G: a@shop.example", "", errSyntax},
	{": a@shop.example;", "", errSyntax},
	{"a@shop.example (open", "", errSyntax},
	{"a@shop.example )", "", errSyntax},
	{"\"open <joe@shop.example>", "", errSyntax},
	{"\"open\\", "", errSyntax},
	{"(open\\", "", errSyntax},
	{"joe\x00@shop.example", "", errSyntax},
	{"\"\x00\" <joe@shop.example>", "", errSyntax},
	{"a\\b@shop.example", "", errSyntax},
	{"[a] <joe@shop.example>", "", errSyntax},
	{"joe@" + strings.Repeat("a", maxDomain+1), "", errSyntax},
	{"joe@[" + strings.Repeat("a", maxDomain+1), "", errSyntax},
	{"joe@shop!example", "", Unsigned("the domain of a mailbox of From is none: a byte is not a letter, digit, underscore, hyphen or dot")},
	{"joe@b\xfccher.example", "", Unsigned("the domain of a mailbox of From is none: the name is not UTF-8")},
	{"joe@[shop.example]", "", Unsigned("the domain of a mailbox of From is none: the brackets do not hold one IP address without a zone")},
}

func TestMailboxDomain(t *testing.T) {
	for _, tt := range froms {
		d, err := mailboxDomain(strings.NewReader(tt.value))
		if !errors.Is(err, tt.err) || d.String() != tt.domain {
			t.Errorf("%.80q: %q, %v; want %q, %v", tt.value, d, err, tt.domain, tt.err)
		}
	}
}

func TestMailboxDomain_unreadable(t *testing.T) {
	for _, cut := range []string{"", "Joe", "\"Joe", "(Joe", "joe@shop", "joe@[1", "joe@shop.example"} {
		_, err := mailboxDomain(io.MultiReader(strings.NewReader(cut), iotest.ErrReader(iotest.ErrTimeout)))
		if !errors.Is(err, iotest.ErrTimeout) {
			t.Errorf("%q: %v", cut, err)
		}
	}
}

// What is in a field of its own, in the message, is found there.
func TestHeader_From(t *testing.T) {
	for _, tt := range froms {
		if strings.Trim(strings.ReplaceAll(tt.value, "\r\n", "\n"), " \t\n") != tt.value {
			continue
		}
		h, err := Read(strings.NewReader("X: x\nFrom:" + tt.value + "\nTo: joe@other.example\n\nFrom: x\n"))
		if !errors.Is(err, tt.err) || err == nil && h.From() != tt.domain {
			t.Errorf("%.80q: %v, want %q, %v", tt.value, err, tt.domain, tt.err)
		}
	}
}

func FuzzMailboxDomain(f *testing.F) {
	for _, tt := range froms {
		f.Add(tt.value)
	}
	f.Fuzz(func(t *testing.T, value string) {
		d, err := mailboxDomain(strings.NewReader(value))
		if why := Unsigned(""); err != nil && (!errors.As(err, &why) || d.String() != "") {
			t.Errorf("%q, %v", d, err)
		}
		if err != nil {
			return
		}
		if !strings.Contains(value, "@") || d.String() == "" {
			t.Errorf("%q", d)
		}
		// A list of the same mailboxes twice, and a group of them, has their domain too.
		for _, more := range []string{value + "," + value, "(x)" + value + "(x)"} {
			if again, err := mailboxDomain(strings.NewReader(more)); err != nil || again != d {
				t.Errorf("%q: %q, %v", more, again, err)
			}
		}
	})
}
