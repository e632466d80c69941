package report

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"
)

// The wording, letter by letter.
func TestCatalogue(t *testing.T) {
	tls := &TLS{"TLSv1.3", "TLS_AES_128_GCM_SHA256", true, "mx.example.org", "", ""}
	ip := "192.0.2.1"
	for _, test := range []struct {
		c     Case
		facts Facts
		want  string
	}{
		{MessageAccepted, Facts{IP: ip, Reply: "250 ok"}, "K192.0.2.1 accepted message.\nRemote host said: 250 ok"},
		{MessageAccepted, Facts{IP: ip, Reply: "250 ok", TLS: tls},
			"K192.0.2.1 accepted message.\nRemote host said: 250 ok\nTLS: TLSv1.3 TLS_AES_128_GCM_SHA256 verified mx.example.org"},
		{MessageAccepted, Facts{IP: ip, TLS: &TLS{"TLSv1.3", "C", true, "mx.example.org", "login", ""}},
			"K192.0.2.1 accepted message.\nTLS: TLSv1.3 C verified mx.example.org login"},
		{MessageAccepted, Facts{IP: ip, TLS: &TLS{"TLSv1.3", "C", false, "mx.example.org", "login", AnchorsFault("it is empty")}},
			"K192.0.2.1 accepted message.\nTLS: TLSv1.3 C unverified mx.example.org login (control/trustanchors:1: it is empty)"},
		{RecipientRejected, Facts{IP: ip, Permanent: true, Reply: "550 no", TLS: tls}, "h192.0.2.1 does not like recipient.\nRemote host said: 550 no"},
		{RecipientRejected, Facts{IP: ip, Reply: "450 later"}, "s192.0.2.1 does not like recipient.\nRemote host said: 450 later"},
		{AllRejected, Facts{IP: ip, Permanent: true}, "DGiving up on 192.0.2.1."},
		{AllRejected, Facts{IP: ip}, "ZGiving up on 192.0.2.1."},
		{GreetingFailed, Facts{IP: ip, Permanent: true}, "ZConnected to 192.0.2.1 but greeting failed."},
		{NameRejected, Facts{IP: ip}, "ZConnected to 192.0.2.1 but my name was rejected."},
		{SenderRejected, Facts{IP: ip, Permanent: true}, "DConnected to 192.0.2.1 but sender was rejected."},
		{SenderRejected, Facts{IP: ip}, "ZConnected to 192.0.2.1 but sender was rejected."},
		{DataRejected, Facts{IP: ip, Permanent: true}, "D192.0.2.1 failed on DATA command."},
		{MessageRejected, Facts{IP: ip}, "Z192.0.2.1 failed after I sent the message."},
		{ConnectionDied, Facts{IP: ip}, "ZConnected to 192.0.2.1 but connection died. (#4.4.2)"},
		{ConnectionDied, Facts{IP: ip, Duplicate: true}, "ZConnected to 192.0.2.1 but connection died. Possible duplicate! (#4.4.2)"},
		{FuseBlown, Facts{IP: ip, Seconds: 1200}, "ZConnected to 192.0.2.1 but the conversation took longer than 1200 seconds. (#4.4.2)"},
		{FuseBlown, Facts{IP: ip, Seconds: 2, Duplicate: true}, "ZConnected to 192.0.2.1 but the conversation took longer than 2 seconds. Possible duplicate! (#4.4.2)"},
		{NoConnection, Facts{Protocol: "SMTP"}, "ZSorry, I wasn't able to establish an SMTP connection. (#4.4.1)"},
		{NoSuchHost, Facts{Host: "no.example"}, "DSorry, I couldn't find any host named no.example. (#5.1.2)"},
		{LookupFailed, Facts{Host: "a.example", Reason: "server failure"}, "ZSorry, I couldn't look up a.example: server failure. (#4.4.3)"},
		{NoAddress, Facts{}, "DSorry, I couldn't find a mail exchanger or IP address. (#5.4.4)"},
		{RelayUnknown, Facts{Host: "gone.example", Reason: "control/smtproutes:3"},
			"ZSorry, I couldn't find any host named gone.example, the relay of control/smtproutes:3. (#4.4.4)"},
		{RelayNoAddress, Facts{Host: "empty.example", Reason: "control/smtproutes:3"},
			"ZSorry, I couldn't find an address for empty.example, the relay of control/smtproutes:3. (#4.4.4)"},
		{NullMX, Facts{Host: "a.example"}, "Da.example does not accept mail (null MX). (#5.1.10)"},
		{OnlyOurselves, Facts{}, "DSorry. Although I'm listed as a best-preference MX or A for that host,\nit isn't in my control/locals file, so I don't treat it as local. (#5.4.6)"},
		{PartialLine, Facts{}, "DSMTP cannot transfer messages with partial final lines. (#5.6.2)"},
		{ControlFiles, Facts{Reason: "protocols:3: slice from -1 to 15"}, "ZUnable to read control files: protocols:3: slice from -1 to 15. (#4.3.0)"},
		{TLSUnavailable, Facts{IP: ip, Reason: "not offered"}, "ZConnected to 192.0.2.1 but TLS could not be had: not offered. (#4.7.5)"},
		{Usage, Facts{}, "DI (qmail-remote) was invoked improperly. (#5.3.5)"},
		{LoginRefused, Facts{IP: ip, Line: "control/credentials:3", Mechanism: "PLAIN", Reply: "535-5.7.8 no\n535 5.7.8 never", Permanent: true, TLS: tls},
			"ZConnected to 192.0.2.1 but the login of control/credentials:3 was refused (PLAIN). (#4.7.8)\nRemote host said: 535-5.7.8 no\n535 5.7.8 never\nTLS: TLSv1.3 TLS_AES_128_GCM_SHA256 verified mx.example.org"},
		{LoginRefused, Facts{IP: ip, Line: "control/credentials:3", Mechanism: "SCRAM-SHA-256", Detail: "the server has not proved it"},
			"ZConnected to 192.0.2.1 but the login of control/credentials:3 was refused (SCRAM-SHA-256). (#4.7.8)\nthe server has not proved it"},
		{NoLogin, Facts{IP: ip, Line: "control/credentials:3", Reason: "none"},
			"ZConnected to 192.0.2.1 but it offers no login that control/credentials:3 can use (none). (#4.7.8)"},
		{SourceNotOurs, Facts{IP: "2001:db8::10", Line: "control/sources:2"},
			"ZSorry, 2001:db8::10 of control/sources:2 is no address of this host. (#4.3.0)"},
		{SourceUnusable, Facts{IP: "192.0.2.10", Line: "control/sources:2", Reason: "permission denied"},
			"ZSorry, 192.0.2.10 of control/sources:2 cannot be used: permission denied. (#4.3.0)"},
		{FamilyNotUsed, Facts{Line: "control/families:1", Host: "mx.example.org"},
			"ZSorry, control/families:1 leaves mx.example.org without an address. (#4.4.4)"},
		{TLSALookupFailed, Facts{Host: "MX.example.org", Port: 25, Reason: "server failure", Permanent: true},
			"ZSorry, I couldn't look up the TLSA records of MX.example.org port 25: server failure. (#4.7.5)"},
		{NotInPolicy, Facts{Host: "mx.example.org", Domain: "example.org", Permanent: true},
			"ZSorry, mx.example.org is no mail exchanger in the MTA-STS policy of example.org. (#4.7.5)"},
		{NoUsableTLSA, Facts{Host: "mx.example.org", Line: "control/tlspolicy:3", Permanent: true},
			"ZSorry, mx.example.org has no usable TLSA records on a secure path, as control/tlspolicy:3 wants. (#4.7.5)"},
		{NoProtocolLeft, Facts{Host: "mx.example.org", Line: "half-dane+sts", Permanent: true},
			"ZSorry, the TLS policy for mx.example.org (half-dane+sts) leaves no protocol to speak to it. (#4.7.5)"},
		{LineFull, Facts{Host: "mx.example.org", IP: ip, Limit: 10, Seconds: 30, Permanent: true},
			"ZSorry, mx.example.org (192.0.2.1) has as many connections from here as it may (10), and none came free in 30 seconds. (#4.4.5)"},
		{TooLarge, Facts{IP: ip, Size: 11, Limit: 10}, "D192.0.2.1: message of 11 bytes is over the limit of 10. (#5.3.4)"},
		{Internal, Facts{Reason: "x"}, "ZInternal error: x. (#4.3.5)"},
		{Case(-1), Facts{Reason: "x"}, "ZInternal error: x. (#4.3.5)"},
		{Case(1000), Facts{Reason: "x"}, "ZInternal error: x. (#4.3.5)"},
		{MessageAccepted, Facts{Reply: "250 ok"}, "Kunknown accepted message.\nRemote host said: 250 ok"},
	} {
		r := New(test.c, test.facts)
		if got := string(rune(r.Letter)) + r.Text; got != test.want {
			t.Errorf("case %d:\n got %q\nwant %q", test.c, got, test.want)
		}
	}
}

func TestTooYoungLine(t *testing.T) {
	if got, want := TooYoungLine(3600), "It is not sent in the clear before it is 3600 seconds old."; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Every row says something, under a letter that goes to descriptor 1.
func TestCatalogue_whole(t *testing.T) {
	for c := range catalogue {
		for _, permanent := range []bool{false, true} {
			r := New(Case(c), Facts{Permanent: permanent})
			if !r.Letter.OfMessage() && !r.Letter.OfRecipient() {
				t.Errorf("case %d has letter %q", c, byte(r.Letter))
			}
			if r.Text == "" || strings.ContainsAny(r.Text, "{}") {
				t.Errorf("case %d reads %q", c, r.Text)
			}
		}
	}
}

// Facts are put in once: what a server says is never taken for a gap to fill.
func TestNew_factsAreNotTemplates(t *testing.T) {
	r := New(LookupFailed, Facts{Host: "{reason}", Reason: "{host}{dup}", Duplicate: true})
	if want := "Sorry, I couldn't look up {reason}: {host}{dup}. (#4.4.3)"; r.Text != want {
		t.Errorf("got %q, want %q", r.Text, want)
	}
}

func TestForeign(t *testing.T) {
	for _, test := range []struct{ in, want string }{
		{"250-a\r\n250 b\r\n", "250-a\n250 b"},
		{"a\x00b\x01c\x7fd\te", "a?b?c?d?e"},
		{"h\xe9llo \u00e9", "h\xe9llo \u00e9"},
		{strings.Repeat("x", 6000), strings.Repeat("x", 5000)},
		{"\n\n", ""},
	} {
		if got := Foreign(test.in); got != test.want {
			t.Errorf("Foreign(%.20q) = %.20q, want %.20q", test.in, got, test.want)
		}
	}
	if got := len(Diagnostic(strings.Repeat("x", 6000))); got != 1000 {
		t.Errorf("a diagnostic of %d bytes", got)
	}
}

func TestStream_noZeroByteFromOutside(t *testing.T) {
	s := Stream{[]Report{{Accepted, ""}, {Refused, "a\x00K"}}, Report{Delivered, "b\x00"}}
	if got, want := string(s.Bytes()), "r\x00ha?K\n\x00Kb?\n\x00"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

type oneWrite struct{ writes int }

func (w *oneWrite) Write(b []byte) (int, error) { w.writes++; return len(b), nil }

func TestStream_oneWrite(t *testing.T) {
	var w oneWrite
	s := Stream{make([]Report, 1000), Report{Delivered, ""}}
	if _, err := s.WriteTo(&w); err != nil || w.writes != 1 {
		t.Errorf("%d writes, error %v", w.writes, err)
	}
}

// parse reads the stream of a delivery to n recipients from the beginning of b.
func parse(b []byte, n int) (Stream, error) {
	p := Parser{Recipients: n}
	for {
		text, rest, ended := bytes.Cut(b, []byte{0})
		if !ended || p.Add(text) {
			return p.Stream()
		}
		b = rest
	}
}

func TestParser(t *testing.T) {
	accepted := Report{Accepted, ""}
	for _, test := range []struct {
		in   string
		n    int
		want Stream
	}{
		{"r\x00Kok\x00", 1, Stream{[]Report{accepted}, Report{Delivered, "ok"}}},
		{"r\x00hno\x00K\x00", 2, Stream{[]Report{accepted, {Refused, "no"}}, Report{Delivered, ""}}},
		{"Zlater\x00", 3, Only(Report{Temporary, "later"})},
		{"r\x00Dno\x00", 3, Stream{[]Report{accepted}, Report{Permanent, "no"}}},
		{"Dno\x00trailing", 1, Only(Report{Permanent, "no"})}, // what follows is not ours
		{"r\x00hno\n\x00Ka\nb\n\x00", 2, Stream{[]Report{accepted, {Refused, "no"}}, Report{Delivered, "a\nb"}}},
		{"Zlater\n\n\x00", 1, Only(Report{Temporary, "later\n"})},           // the program's own empty line
		{"Kok\x00", 1, Stream{[]Report{accepted}, Report{Delivered, "ok"}}}, // as qmail-rspawn reads it
	} {
		got, err := parse([]byte(test.in), test.n)
		if err != nil || !reflect.DeepEqual(got, test.want) {
			t.Errorf("parse(%q, %d) = %v, %v", test.in, test.n, got, err)
		}
	}
	for _, test := range []struct {
		in, why    string
		n          int
		incomplete bool
	}{
		{"", "nothing", 1, true},
		{"r\x00", "no message report", 1, true},
		{"r\x00K ok", "no final zero byte", 1, true},
		{"K\x00", "K without the recipients' reports", 2, false},
		{"r\x00K\x00", "K without the second recipient's report", 2, false},
		{"r\x00r\x00K\x00", "more reports than recipients", 1, false},
		{"\x00", "no letter", 1, false},
		{"x\x00", "no such letter", 1, false},
		{"goodbye\n\x00", "prose", 1, false},
	} {
		_, err := parse([]byte(test.in), test.n)
		if err == nil || errors.Is(err, ErrIncomplete) != test.incomplete {
			t.Errorf("%s: parse(%q, %d): %v", test.why, test.in, test.n, err)
		}
	}
}

func FuzzParser(f *testing.F) {
	f.Add([]byte("r\x00hno\x00Kok\x00"), uint8(2))
	f.Add([]byte("Z\x00"), uint8(1))
	f.Add([]byte("K\x00"), uint8(1))
	f.Fuzz(func(t *testing.T, b []byte, count uint8) {
		n := int(count)
		s, err := parse(b, n)
		if err != nil {
			return
		}
		if n == 1 && b[0] == byte(Delivered) {
			b = append([]byte("r\x00"), b...) // one recipient's lone K
		}
		if !bytes.HasPrefix(bare(b), bare(s.Bytes())) {
			t.Errorf("%q was read as %q", b, s.Bytes())
		}
		for text := range bytes.SplitSeq(bytes.TrimSuffix(s.Bytes(), []byte{0}), []byte{0}) {
			if len(text) > 1 && text[len(text)-1] != '\n' {
				t.Errorf("%q became %q", b, text)
			}
		}
		if s.Message.Letter == Delivered && len(s.Recipients) != n {
			t.Errorf("K with %d reports for %d recipients", len(s.Recipients), n)
		}
	})
}

// bare takes one newline off the end of each report.
func bare(b []byte) []byte { return bytes.ReplaceAll(b, []byte("\n\x00"), []byte{0}) }

func TestFor(t *testing.T) {
	known := &Error{Case: NoAddress, Err: io.EOF}
	if r := For(fmt.Errorf("while routing: %w", known)); r.Letter != Permanent {
		t.Errorf("a known error became %c%s", r.Letter, r.Text)
	}
	if !errors.Is(known, io.EOF) {
		t.Error("the cause is lost")
	}
	if r := For(io.ErrUnexpectedEOF); r.Letter != Temporary || !strings.Contains(r.Text, "unexpected EOF") {
		t.Errorf("an unknown error became %c%s", r.Letter, r.Text)
	}
}

func TestReasonFrom(t *testing.T) {
	f := Facts{IP: "192.0.2.1"}
	for _, test := range []struct {
		said   string
		letter Letter
		want   string
	}{
		{"Connected to 192.0.2.1 but greeting failed.\nRemote host said: 554 no", Temporary, "Connected to 192.0.2.1 but greeting failed.\nRemote host said: 554 no"},
		{New(NeedsSMTPUTF8, f).Text, Permanent, New(NeedsSMTPUTF8, f).Text},
		{"cannot (#5.6.7)", Temporary, "Connected to 192.0.2.1 but connection died. (#4.4.2)\nThe protocol program said: cannot (#5.6.7)"},
		{"", Temporary, "Connected to 192.0.2.1 but connection died. (#4.4.2)"},
	} {
		if r := ReasonFrom(test.said, ConnectionDied, f); r.Letter != test.letter || r.Text != test.want {
			t.Errorf("%q became %c%q", test.said, r.Letter, r.Text)
		}
	}
}

func TestReport_NoTLS(t *testing.T) {
	for _, c := range []struct {
		report Report
		want   string
	}{
		{New(TLSUnavailable, Facts{IP: "192.0.2.1", Reason: `server says "no. (#4.7.5)"`, Reply: "454 no"}), `server says "no. (#4.7.5)"`},
		{New(ProtocolError, Facts{IP: "192.0.2.1", Reason: "it sent \"x\" without being asked"}), "it sent \"x\" without being asked"},
		{New(TLSUnavailable, Facts{IP: "192.0.2.2", Reason: "why"}), ""},
		{New(ConnectionDied, Facts{IP: "192.0.2.1", Reason: "why"}), ""},
		{New(GreetingFailed, Facts{IP: "192.0.2.1"}), ""},
		{Report{}, ""},
	} {
		if got := c.report.NoTLS("192.0.2.1"); got != c.want {
			t.Errorf("%q: %q, want %q", c.report.Text, got, c.want)
		}
	}
}
