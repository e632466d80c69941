package remote

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/remote/report"
	"nightmare.mail/mxf/smtpc"
	"nightmare.mail/mxf/tlsc"
)

// TestLadders climbs each ladder with a server that fails in the same way every time:
// what is tried, and in which pass.
func TestLadders(t *testing.T) {
	failed := func(why report.Why, cause error) *report.NoTransaction {
		return &report.NoTransaction{Why: why, Err: cause}
	}
	failures := map[string]*report.NoTransaction{
		"not now":     failed(report.NotNow, nil),
		"handshake":   failed(report.WantOfTLS, errors.New("bad certificate")),
		"no answer":   failed(report.WantOfTLS, fmt.Errorf("x: %w", tlsc.ErrNoServerHello)),
		"not my name": failed(report.WantOfTLS, fmt.Errorf("x: %w", tlsc.ErrUnrecognizedName)),
		"not offered": failed(report.NoTLSOffered, nil),
		"group":       failed(report.GroupStumbled, nil),
		"EHLO":        failed(report.EHLOLost, nil),
	}
	const (
		small, nameless, single = "with the smallest ClientHello", "without a server name", "one command at a time, without parameters"
		clear, later, helo      = "in the clear", "in the clear (pass 1)", "with HELO (pass 2)"
	)
	for _, c := range []struct {
		failure  string
		explicit bool
		want     [3]string // at strictness 0, 1, 2
	}{
		{"not now", true, [3]string{}},
		{"handshake", true, [3]string{clear, later, ""}},
		{"handshake", false, [3]string{}},
		{"no answer", true, [3]string{small + ", " + clear, small + ", " + later, small}},
		{"no answer", false, [3]string{small, small, small}},
		{"not my name", true, [3]string{nameless + ", " + clear, nameless + ", " + later, ""}},
		{"not my name", false, [3]string{nameless, nameless, ""}},
		{"not offered", true, [3]string{clear, later, ""}},
		{"group", true, [3]string{single, single, single}},
		{"EHLO", true, [3]string{helo, helo, ""}},
	} {
		for strictness, want := range c.want {
			var got []string
			m := manner{explicit: c.explicit, tls: ladders[strictness].first}
			for now := atOnce; ; {
				r := ladders[strictness].next(m, failures[c.failure], now, true)
				if r == nil {
					break
				}
				words := r.words
				if now = max(now, r.in); r.in > atOnce {
					words += fmt.Sprintf(" (pass %d)", r.in)
				}
				got = append(got, words)
				r.take(&m, failures[c.failure])
				if strictness == strict && m.tls != smtpc.Verify {
					t.Fatalf("%s: clear text at strictness 2", c.failure)
				}
			}
			if strings.Join(got, ", ") != want {
				t.Errorf("%s (explicit %v) at %d: %q, want %q", c.failure, c.explicit, strictness, got, want)
			}
			failed := failures[c.failure].Why == report.WantOfTLS || m.tls == smtpc.None && c.failure != "not offered"
			if m.tlsFailed != (failed && c.explicit && want != "") {
				t.Errorf("%s at %d: TLS failed: %v", c.failure, strictness, m.tlsFailed)
			}
		}
	}
}

// In clear text too a group can be stumbled over; an address that could not be
// connected to waits for a later pass.
func TestLadder_conditions(t *testing.T) {
	group := &report.NoTransaction{Why: report.GroupStumbled}
	noTLS := &report.NoTransaction{Why: report.WantOfTLS}
	clear := manner{explicit: true, tls: smtpc.None, tlsFailed: true}
	if r := ladders[1].next(clear, group, secondPass, true); r == nil || r.words != oneByOne.words {
		t.Errorf("%+v", r)
	}
	clear.avoid = smtpc.Plain
	if r := ladders[1].next(clear, group, secondPass, true); r != nil {
		t.Errorf("twice: %+v", r)
	}
	secure := manner{explicit: true, tls: smtpc.May}
	if r := ladders[0].next(secure, noTLS, atOnce, false); r != nil {
		t.Errorf("not connected: %+v", r)
	}
	if r := ladders[1].next(secure, noTLS, atOnce, false); r == nil || r.in != secondPass {
		t.Errorf("not connected: %+v", r)
	}
}

func TestDiagnosis(t *testing.T) {
	for said, want := range map[string]struct {
		fatal fatal
		rest  string
	}{
		"":                                     {},
		"mxf-tlsc: fatal: why\n":               {fatal{"mxf-tlsc", "why"}, ""},
		"a sentence\ns6-tlsc-io: fatal: why\n": {fatal{"s6-tlsc-io", "why"}, "a sentence"},
		"mxf-tlsc: fatal: why: fatal: more":    {fatal{"mxf-tlsc", "why: fatal: more"}, ""},
		"550-evil: fatal: why\n550 no":         {fatal{}, "550-evil: fatal: why\n550 no"},
		"two words: fatal: why":                {fatal{}, "two words: fatal: why"},
		": fatal: why":                         {fatal{}, ": fatal: why"},
	} {
		if f, rest := diagnosis(said); f != want.fatal || rest != want.rest {
			t.Errorf("%q: %+v, %q", said, f, rest)
		}
	}
}

// What control/smtpavoid may say is what smtpc understands.
func TestAvoidedWords(t *testing.T) {
	words := smtpc.Avoid{Pipelining: true, Size: true, EightBitMIME: true, SMTPUTF8: true, EHLO: true}.String()
	home := t.TempDir()
	for name, text := range map[string]string{"me": "me.example\n", "smtpavoid": ":" + words + "\n"} {
		if err := errors.Join(os.MkdirAll(filepath.Join(home, "control"), 0o755),
			os.WriteFile(filepath.Join(home, "control", name), []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	s, err := control.Read(home)
	if err != nil {
		t.Fatal(err)
	}
	found, _ := s.SMTPAvoid.Lookup("mx.example.org", netip.Addr{})
	if avoid, err := smtpc.ParseAvoid(strings.Join(found, ",")); err != nil || avoid.String() != words {
		t.Errorf("%q: %v, %v", found, avoid, err)
	}
}
