package policy

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"nightmare.mail/mxf/tlsc"
)

// What is said of a decision, and which names a certificate may have.
func TestDecide(t *testing.T) {
	records := mustRecords("2 1 1 " + strings.Repeat("ab", 32) + ",3 1 1 " + strings.Repeat("cd", 32))
	way := func(change func(*Way)) *Way {
		w := &Way{Kind: ExplicitTLS, Exchanger: "MX.example.org", Hosts: []string{"example.org", "example.net"}, Secure: true}
		change(w)
		return w
	}
	dane := func(w *Way) { w.TLSA, w.Records, w.Base = Usable, records, "mx.example.org" }
	sts := func(w *Way) { w.STS, w.Listed, w.Domain = STSEnforce, true, "example.org" }
	line := func(level LineLevel) *Line { return &Line{Place: place, Level: level} }
	for _, test := range []struct {
		name   string
		change func(*Way)
		title  string
		by     string
		judge  string
		names  string // the server's name, and the others behind a bar
	}{
		{"nothing", func(w *Way) {}, "floor may", "control/tlsstrictness 0", "<nil>", "|"},
		{"strictness 1", func(w *Way) { w.Strictness = 1 }, "floor must", "control/tlsstrictness 1", "<nil>", "|"},
		{"strictness 2", func(w *Way) { w.Strictness = 2 }, "floor verify", "control/tlsstrictness 2", "trust anchors", "|"},
		{"dane", dane, "dane", "TLSA records of mx.example.org", "2 TLSA records", "mx.example.org|example.org example.net"},
		{"dane, strictness 2", func(w *Way) { dane(w); w.Strictness = 2 }, "dane", "TLSA records of mx.example.org", "2 TLSA records", "mx.example.org|example.org example.net"},
		{"dane at an alias", func(w *Way) { dane(w); w.Base = "a.example" }, "dane", "TLSA records of a.example", "2 TLSA records", "a.example|example.org example.net"},
		{"dane at an alias of HOST itself", func(w *Way) { dane(w); w.Base, w.Itself, w.Exchanger = "a.example", true, "example.org" },
			"dane", "TLSA records of a.example", "2 TLSA records", "a.example|example.org example.net"},
		{"dane, HOST is the base", func(w *Way) {
			dane(w)
			w.Base, w.Itself, w.Exchanger, w.Hosts = "example.org", true, "Example.org", []string{"EXAMPLE.org", ""}
		},
			"dane", "TLSA records of example.org", "2 TLSA records", "example.org|"},
		{"dane, the base in capitals", func(w *Way) { dane(w); w.Base = "EXAMPLE.org" }, "dane", "TLSA records of EXAMPLE.org", "2 TLSA records", "EXAMPLE.org|example.net"},
		{"half-dane", func(w *Way) { dane(w); w.Secure = false }, "half-dane", "TLSA records of mx.example.org", "2 TLSA records", "mx.example.org|"},
		{"half-dane of HOST itself", func(w *Way) {
			dane(w)
			w.Secure, w.Itself, w.Base, w.Exchanger = false, true, "a.example", "example.org"
		},
			"half-dane", "TLSA records of a.example", "2 TLSA records", "a.example|example.org"},
		{"half-dane+sts", func(w *Way) { dane(w); sts(w); w.Secure = false }, "half-dane+sts",
			"TLSA records of mx.example.org and the MTA-STS policy of example.org", "2 TLSA records and trust anchors", "mx.example.org|"},
		{"half-dane+sts at an alias", func(w *Way) { dane(w); sts(w); w.Secure, w.Base = false, "a.example" }, "half-dane+sts",
			"TLSA records of a.example and the MTA-STS policy of example.org", "2 TLSA records and trust anchors", "a.example|MX.example.org"},
		{"dane and sts", func(w *Way) { dane(w); sts(w); w.Listed = false }, "dane", "TLSA records of mx.example.org", "2 TLSA records", "mx.example.org|example.org example.net"},
		{"sts", sts, "sts", "the MTA-STS policy of example.org", "trust anchors", "|"},
		{"unusable", func(w *Way) { w.TLSA, w.Base = Unusable, "mx.example.org" }, "dane-unusable", "no usable TLSA record of mx.example.org", "<nil>", "|"},
		{"unusable, strictness 2", func(w *Way) { w.TLSA, w.Base, w.Strictness = Unusable, "mx.example.org", 2 }, "dane-unusable",
			"no usable TLSA record of mx.example.org, and control/tlsstrictness 2", "trust anchors", "|"},
		{"waived", func(w *Way) { dane(w); w.Waived = true }, "waived", "control/tlsstrictness 0", "<nil>", "|"},
		{"none", func(w *Way) { dane(w); w.Line = line(LineNone) }, "none", place, "<nil>", "|"},
		{"may", func(w *Way) { w.Strictness, w.Line = 2, line(LineMay) }, "may", place, "<nil>", "|"},
		{"must", func(w *Way) { sts(w); w.Line = line(LineMust) }, "must", place, "<nil>", "|"},
		{"verify", func(w *Way) { dane(w); w.Line = line(LineVerify) }, "verify", place, "trust anchors", "|"},
		{"verify with names", func(w *Way) { w.Line = line(LineVerify); w.Line.Names = "a.example .b.example" }, "verify", place, "trust anchors", "|a.example .b.example"},
		{"pin", func(w *Way) { dane(w); w.Line = line(LinePin); w.Line.Pins = somePins }, "pin", place, "the pins of control/tlspolicy:7", "|"},
		{"dane line", func(w *Way) { dane(w); w.Line = line(LineDANE) }, "dane", place, "2 TLSA records", "mx.example.org|example.org example.net"},
		{"auto", func(w *Way) { w.Strictness, w.Line = 1, line(LineAuto) }, "floor must", "control/tlsstrictness 1", "<nil>", "|"},
		{"auto:verify", func(w *Way) { w.Line = line(LineAuto); w.Line.Floor = LineVerify }, "floor verify", place, "trust anchors", "|"},
		{"login", func(w *Way) { w.Login = Demand{Verified, loginPlace} }, "floor verify", loginPlace, "trust anchors", "|"},
		{"login and must", func(w *Way) { w.Line, w.Login = line(LineMust), Demand{Verified, loginPlace} }, "floor verify", loginPlace, "trust anchors", "|"},
		{"login and pin", func(w *Way) { w.Line, w.Login = line(LinePin), Demand{Verified, loginPlace}; w.Line.Pins = somePins }, "pin", place, "the pins of control/tlspolicy:7", "|"},
		{"login and dane", func(w *Way) { dane(w); w.Login = Demand{Verified, loginPlace} }, "dane", "TLSA records of mx.example.org", "2 TLSA records", "mx.example.org|example.org example.net"},
	} {
		r, left := Decide(way(test.change))
		if left != nil {
			t.Errorf("%s: left: %+v", test.name, left)
			continue
		}
		if r.Title != test.title || r.By != test.by || fmt.Sprint(r.Judge) != test.judge || r.ServerName+"|"+r.Names != test.names {
			t.Errorf("%s:\n got %q, %q, %v, %s|%s\nwant %q, %q, %s, %s", test.name, r.Title, r.By, r.Judge, r.ServerName, r.Names, test.title, test.by, test.judge, test.names)
		}
	}
}

// The ways of one exchanger: plain QMTP before its SMTP twin, QMTPS on a port without records.
func TestDecide_elsewhere(t *testing.T) {
	records := mustRecords("3 1 1 " + strings.Repeat("ab", 32))
	for _, test := range []struct {
		smtp TLSA
		want string // for qmtps, qmtp and smtp
	}{
		{NoRecords, "floor may, floor may, floor may"},
		{Usable, "left: dane, left: dane, dane"},
		{Unusable, "left: dane, left: dane, dane-unusable"},
		{Failed, "left: dane, left: dane, left: dane"},
	} {
		ways := []Way{{Kind: ImplicitTLS}, {Kind: NoTLS}, {Kind: ExplicitTLS, TLSA: test.smtp, Base: "mx.example.org"}}
		elsewhere := slices.ContainsFunc(ways, func(w Way) bool { return w.TLSA != NoRecords })
		var got []string
		for _, w := range ways {
			w.Exchanger, w.Secure, w.Elsewhere = "mx.example.org", true, elsewhere
			if w.TLSA == Usable {
				w.Records = records
			}
			if r, left := Decide(&w); left != nil {
				got = append(got, "left: "+left.By)
			} else {
				got = append(got, r.Title)
			}
		}
		if all := strings.Join(got, ", "); all != test.want {
			t.Errorf("%v: %s, want %s", test.smtp, all, test.want)
		}
	}
}

func TestLeft(t *testing.T) {
	seen := map[string]bool{}
	for why := LeftLookup; why <= LeftContradiction; why++ {
		text := (&Left{Why: why}).Error()
		if text == "" || seen[text] {
			t.Errorf("%d: %q", why, text)
		}
		seen[text] = true
	}
}

// Only clear text after TLS that failed waits for the message to be old enough: neither that to a
// server without STARTTLS, nor that by HELO.
func TestReplacesTLS(t *testing.T) {
	for n, want := range []string{"in the clear: failed", "in the clear: failed", ""} {
		r := Strictness(n)
		var got []string
		for failure, name := range map[error]string{ErrTLS: "failed", ErrNotOffered: "not offered", ErrEHLOLost: "EHLO", ErrStumbled: "stumbled", tlsc.ErrUnrecognizedName: "name"} {
			g := r.Next(Manner{TLS: r.First}, failure, AtOnce, true)
			if g != nil && g.ReplacesTLS(Manner{TLS: r.First}, failure) {
				got = append(got, g.Words+": "+name)
			}
		}
		if all := strings.Join(got, ", "); all != want {
			t.Errorf("strictness %d: %s, want %s", n, all, want)
		}
	}
	// What failed with the large ClientHello has failed, whatever happens with the small one.
	for n := range 2 {
		r := Strictness(n)
		m := r.Take(&smallHello, Manner{TLS: Must}, ErrTLS)
		for _, failure := range []error{ErrTLS, ErrNotOffered, ErrEHLOLost} {
			if g := r.Next(m, failure, AtOnce, true); g == nil || !g.ReplacesTLS(m, failure) {
				t.Errorf("strictness %d: %v leads to clear text at once", n, failure)
			}
		}
	}
	r := Strictness(1).On(ImplicitTLS)
	if slices.ContainsFunc(r.Rungs, func(g Rung) bool { return g.ReplacesTLS(Manner{TLS: Must}, ErrTLS) }) {
		t.Error("implicit TLS is replaced")
	}
}

func TestTooYoung(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	for _, test := range []struct {
		age, after time.Duration
		want       bool
	}{
		{0, 0, false}, {time.Hour, 0, false}, {0, time.Second, true}, {-time.Nanosecond, time.Hour, false}, {-time.Hour, time.Hour, false},
		{59 * time.Minute, time.Hour, true}, {time.Hour, time.Hour, false}, {time.Hour - 1, time.Hour, true}, {2 * time.Hour, time.Hour, false},
	} {
		if got := TooYoung(now.Add(-test.age), now, test.after); got != test.want {
			t.Errorf("%v old, after %v: %v", test.age, test.after, got)
		}
	}
}
