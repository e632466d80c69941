package remote

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/remote/dial"
	"nightmare.mail/mxf/remote/policy"
	"nightmare.mail/mxf/remote/report"
	"nightmare.mail/mxf/remote/transport"
	"nightmare.mail/mxf/smtpc/smtptest"
	"nightmare.mail/mxf/tlsc"
	"nightmare.mail/mxf/tlsc/tlstest"
)

// probe is deliver for a probe.
func (h *house) probe(t *testing.T, how Probing) *Probe {
	t.Helper()
	h.router.ReadOnly = true
	job := &Job{Host: "example.org", Sender: "s@example.net", Recipients: []string{"r@example.org", "q@example.org"}, Trace: h.trace}
	return ProbeJob(t.Context(), job, func() (*Router, error) { return h.router, nil }, how)
}

// A probe says what a delivery would do, and no MAIL. It leaves the table of dead hosts as it is.
func TestProbeJob(t *testing.T) {
	h := newHouse(t, control.SMTPProgram)
	table := filepath.Join(h.router.Settings.Home, "queue", "lock", "tcpto")
	(&dial.DeadHosts{Folder: filepath.Dir(table), Now: time.Now}).TimedOut(t.Context(), netip.MustParseAddr("127.0.0.1")) // once: an answer would have it forgotten
	before := must.Get(os.ReadFile(table))(t)
	p := h.probe(t, Probing{})
	if got, want := string(p.Stream.Bytes()), "K127.0.0.1 would take the message.\nTLS: TLSv1.3 TLS_AES_128_GCM_SHA256 verified mx.example.org\n\x00"; !strings.HasSuffix(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if after := must.Get(os.ReadFile(table))(t); !slices.Equal(before, after) {
		t.Error("the table of dead hosts was written")
	}
	if len(p.Attempts) != 2 || p.Attempts[0].Connected() || p.Taken != p.Attempts[1] {
		t.Fatalf("%+v", p.Attempts)
	}
	a := p.Taken
	if a.Probe.Greeting.Code != 220 || !slices.Contains(a.Probe.Extensions, "PIPELINING") || !a.Probe.InTLS || a.Probe.TLS == nil ||
		a.Probe.TLS.Chain[0].Names[0] != serverName || !a.Probe.TLS.Anchors.Good() || a.Probe.Answers != nil {
		t.Errorf("%+v", a.Probe)
	}
	c := h.server.Last(t)
	if c.Accepted || !c.Ended || slices.ContainsFunc(c.Commands, func(s string) bool { return strings.HasPrefix(s, "MAIL") }) {
		t.Errorf("%q", c.Commands)
	}
}

// Where that is asked, the envelope is said and taken back.
func TestProbeJob_ask(t *testing.T) {
	for _, test := range []struct {
		at       smtptest.Phase
		reply    string
		letter   report.Letter
		statuses string
	}{
		{smtptest.QUIT, "221 x", report.Delivered, "accepted accepted"},
		{smtptest.MAIL, "550 no", report.Permanent, "unanswered unanswered"},
		{smtptest.RCPT, "550 nobody", report.Permanent, "refused refused"},
		{smtptest.RCPT, "450 later", report.Temporary, "deferred deferred"},
	} {
		h := newHouse(t, control.SMTPProgram, smtptest.At(test.at, smtptest.Action{Reply: test.reply}))
		p := h.probe(t, Probing{Ask: true})
		var statuses []string
		for _, answer := range p.Attempts[len(p.Attempts)-1].Probe.Answers {
			statuses = append(statuses, answer.Status.String())
		}
		commands := strings.Join(h.server.Last(t).Commands, "\n")
		if p.Stream.Message.Letter != test.letter || strings.Join(statuses, " ") != test.statuses ||
			!strings.Contains(commands, "\nRSET\nQUIT") || strings.Contains(commands, "DATA") || strings.Contains(commands, "SIZE=") {
			t.Errorf("%s %s: %q, %q\n%s", test.at, test.reply, p.Stream.Bytes(), statuses, commands)
		}
	}
}

// A plan alone connects to nobody.
func TestProbeJob_planOnly(t *testing.T) {
	h := newHouse(t, control.SMTPProgram)
	p := h.probe(t, Probing{PlanOnly: true})
	if len(p.Plan.Steps) != 2 || p.Attempts != nil || p.Stream.Message != (report.Report{}) || p.Unknown != nil || len(h.server.Conversations()) > 0 {
		t.Errorf("%+v", p)
	}
}

// What keeps a delivery from its first attempt is said in the same words.
func TestProbeJob_before(t *testing.T) {
	for name, job := range map[string]*Job{
		"a control byte": {Host: "a\nb", Recipients: []string{"r"}},
		"no recipient":   {Host: "example.org"},
		"no settings":    {Host: "example.org", Recipients: []string{"r"}},
	} {
		fails := func() (*Router, error) { return nil, &control.Error{File: "control/me", What: "missing"} }
		want := Deliver(t.Context(), job, fails)
		if got := ProbeJob(t.Context(), job, fails, Probing{}); string(got.Stream.Bytes()) != string(want.Bytes()) {
			t.Errorf("%s: %q, want %q", name, got.Stream.Bytes(), want.Bytes())
		}
	}
	job := &Job{Host: "example.org", Recipients: []string{"r"}}
	got := ProbeJob(t.Context(), job, func() (*Router, error) { panic("on the way") }, Probing{})
	if string(got.Stream.Bytes()) != "ZInternal error: panic: on the way. (#4.3.5)\n\x00" {
		t.Errorf("%q", got.Stream.Bytes())
	}
}

// A program that is not ours might deliver something: it is named and not run.
func TestProbeJob_foreign(t *testing.T) {
	folder := t.TempDir()
	script, ran := filepath.Join(folder, "client"), filepath.Join(folder, "ran")
	must.Script(t, script, "touch '"+ran+"'\nprintf 'r\\0Kdone\\0'")
	h := newHouse(t, script)
	p := h.probe(t, Probing{})
	if !errors.Is(p.Unknown, transport.ErrForeign) || !strings.Contains(p.Unknown.Error(), "is not ours") || p.Stream.Message.Letter != 0 || p.Taken != nil {
		t.Errorf("%+v", p)
	}
	for _, a := range p.Attempts {
		if got := p.At(a.Step, a.Addr, 0); a.Connected() && got != NobodyKnows {
			t.Errorf("%+v: %q", a, got)
		}
	}
	if _, err := os.Stat(ran); err == nil {
		t.Error("it was run")
	}
}

// Whoever ends a probe gets what is known so far.
func TestProbeJob_interrupted(t *testing.T) {
	h := newHouse(t, control.SMTPProgram, smtptest.At(smtptest.Greeting, smtptest.Action{Stall: true}))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	how := Probing{Watch: func(doing string) {
		if strings.HasPrefix(doing, "talking to "+serverName) {
			cancel()
		}
	}}
	job := &Job{Host: "example.org", Sender: "s@example.net", Recipients: []string{"r@example.org"}}
	p := ProbeJob(ctx, job, func() (*Router, error) { return h.router, nil }, how)
	if !errors.Is(p.Unknown, context.Canceled) || p.Stream.Message.Letter != 0 || len(p.Plan.Steps) != 2 || len(p.Attempts) != 2 {
		t.Fatalf("%+v", p)
	}
	// The attempt that was interrupted is there, and nothing follows from it.
	a := p.Attempts[1]
	if !a.Connected() || !errors.Is(a.Unknown, context.Canceled) || a.Stream.Message.Letter != 0 {
		t.Errorf("%+v", a)
	}
	for n := range 3 {
		if got := p.At(a.Step, a.Addr, n); got != NobodyKnows {
			t.Errorf("at %d: %q", n, got)
		}
	}
}

// Of a chain the line on TLS says what would become of a message elsewhere.
func TestSight_ofChain(t *testing.T) {
	const taken = "127.0.0.1 would take the message."
	anchors, pins := tlsc.TrustAnchors{}, tlsc.DANE{Pins: "control/tlspolicy:1"}
	may, insist, verify := policy.Requirement{First: policy.May}, policy.Requirement{First: policy.Must}, policy.Requirement{First: policy.Verified, Judge: anchors}
	none, pinned := policy.Requirement{First: policy.Clear}, policy.Requirement{First: policy.Verified, Judge: pins}
	for _, test := range []struct {
		line     string
		enforced tlsc.Judge
		r        policy.Requirement
		want     Prospect
	}{
		{"TLS: TLSv1.3 X verified mx.example.org", nil, may, TakenInTLS},
		{"TLS: TLSv1.3 X unverified mx.example.org", nil, insist, TakenInTLS},
		{"TLS: TLSv1.3 X verified mx.example.org", nil, verify, TakenInTLS},
		{"TLS: TLSv1.3 X unverified verified", nil, verify, Deferred},
		{"TLS: TLSv1.3 X verified mx.example.org dane", pins, pinned, TakenInTLS},
		{"TLS: TLSv1.3 X verified mx.example.org dane", pins, verify, NobodyKnows},
		{"TLS: TLSv1.3 X verified mx.example.org", nil, none, TakenInClear},
		{"no line", nil, may, Taken},
		{"no line", nil, verify, NobodyKnows},
	} {
		var s sight
		s.add(&Attempt{Manner: policy.Manner{TLS: policy.May}, Stream: report.Only(report.Report{Letter: report.Delivered, Text: taken + "\n" + test.line})})
		if got := s.under(&test.r, test.enforced, policy.ExplicitTLS); got != test.want {
			t.Errorf("%s, %v: %q, want %q", test.line, test.r, got, test.want)
		}
	}
}

// What would become of a message with each control/tlsstrictness follows from one attempt.
func TestProbe_At(t *testing.T) {
	right, wrong := newAuthority(), newAuthority()
	good := right.Leaf(nil, serverName)
	for _, test := range []struct {
		name   string
		change func(*smtptest.Server)
		want   [3]Prospect
	}{
		{"good", func(*smtptest.Server) {}, [3]Prospect{TakenInTLS, TakenInTLS, TakenInTLS}},
		{"expired", func(s *smtptest.Server) { s.TLS = right.Leaf(tlstest.Expired, serverName).Config() }, [3]Prospect{TakenInTLS, TakenInTLS, Deferred}},
		{"another's authority", func(s *smtptest.Server) { s.TLS = wrong.Leaf(nil, serverName).Config() }, [3]Prospect{TakenInTLS, TakenInTLS, Deferred}},
		{"another's name", func(s *smtptest.Server) { s.TLS = right.Leaf(nil, "other.example").Config() }, [3]Prospect{TakenInTLS, TakenInTLS, Deferred}},
		{"no TLS", func(s *smtptest.Server) { s.TLS = nil }, [3]Prospect{TakenInClear, TakenInClear, Deferred}},
		{"TLS refused", func(s *smtptest.Server) { s.Act = smtptest.At(smtptest.STARTTLS, smtptest.Action{Reply: "454 no"}) }, [3]Prospect{TakenInClear, TakenInClear, Deferred}},
		{"not greeted", func(s *smtptest.Server) { s.Act = smtptest.At(smtptest.Greeting, smtptest.Action{Reply: "554 no"}) }, [3]Prospect{Deferred, Deferred, Deferred}},
	} {
		for strictness := range 3 {
			server := &smtptest.Server{TLS: good.Config()}
			test.change(server)
			addr := netip.MustParseAddrPort(smtptest.Listen(t, server.Serve))
			w := newTestWalk(t, func(s *control.Settings) {
				s.TrustAnchors.File, s.TLSStrictness = tlstest.Bundle(t, right), strictness
			})
			p := &Probe{router: w.Router, lasted: make(map[netip.AddrPort]time.Duration)}
			steps := w.planned(t.Context(), w.candidate(addr))
			p.walk(t.Context(), w.job, steps)
			for n, want := range test.want {
				if got := p.At(&steps[0], addr, n); got != want {
					t.Errorf("%s, tried at %d: at %d %q, want %q", test.name, strictness, n, got, want)
				}
			}
		}
	}
}

// With All every address is tried, those that timed out lately too.
func TestProbeJob_all(t *testing.T) {
	h := newHouse(t, control.SMTPProgram)
	deadHost(t, h.router.deadHosts(&Job{}).Folder, netip.MustParseAddr("127.0.0.9"))
	if p := h.probe(t, Probing{}); len(p.Attempts) != 1 {
		t.Errorf("%d attempts", len(p.Attempts))
	}
	p := h.probe(t, Probing{All: true})
	if len(p.Attempts) != 2 || p.Taken != p.Attempts[0] || p.Attempts[1].Addr.Addr().String() != "127.0.0.9" || p.Stream.Message.Letter != report.Delivered {
		t.Errorf("%+v", p)
	}
}
