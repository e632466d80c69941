package policy

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"nightmare.mail/mxf/tlsc"
)

// Each requirement is walked against a server that fails in the same way every time: what
// is tried, and in which pass.
func TestStrictness(t *testing.T) {
	noAnswer, notMyName := fmt.Errorf("x: %w: %w", ErrTLS, tlsc.ErrNoServerHello), fmt.Errorf("x: %w: %w", ErrTLS, tlsc.ErrUnrecognizedName)
	handshake := fmt.Errorf("%w: bad certificate", ErrTLS)
	const (
		small, nameless, single = "with the smallest ClientHello", "without a server name", "one command at a time, without parameters"
		clear, later, helo      = "in the clear", "in the clear (pass 1)", "with HELO (pass 2)"
	)
	for _, c := range []struct {
		failure error
		kind    Kind
		want    [3]string // at strictness 0, 1, 2
	}{
		{errors.New("greeting refused"), ExplicitTLS, [3]string{}},
		{errors.New("greeting refused"), NoTLS, [3]string{}},
		{handshake, ExplicitTLS, [3]string{clear, later, ""}},
		{handshake, ImplicitTLS, [3]string{}},
		{noAnswer, ExplicitTLS, [3]string{small + ", " + clear, small + ", " + later, small}},
		{noAnswer, ImplicitTLS, [3]string{small, small, small}},
		{notMyName, ExplicitTLS, [3]string{nameless + ", " + clear, nameless + ", " + later, ""}},
		{notMyName, ImplicitTLS, [3]string{nameless, nameless, ""}},
		{ErrNotOffered, ExplicitTLS, [3]string{clear, later, ""}},
		{ErrNotOffered, ImplicitTLS, [3]string{}},
		{ErrStumbled, ExplicitTLS, [3]string{single, single, single}},
		{ErrStumbled, ImplicitTLS, [3]string{single, single, single}},
		{ErrStumbled, NoTLS, [3]string{single, single, single}},
		{ErrEHLOLost, ExplicitTLS, [3]string{helo, helo, ""}},
		{ErrEHLOLost, ImplicitTLS, [3]string{helo, helo, ""}},
		{ErrEHLOLost, NoTLS, [3]string{helo, helo, ""}},
	} {
		for n, want := range c.want {
			r := Strictness(n)
			if !r.Possible(c.kind) {
				continue
			}
			r = r.On(c.kind)
			got, m := walk(t, &r, c.failure)
			if got != want {
				t.Errorf("%v, kind %d, strictness %d: %q, want %q", c.failure, c.kind, n, got, want)
			}
			clearAfter := c.kind == ExplicitTLS && m.TLS == Clear && !errors.Is(c.failure, ErrNotOffered)
			if m.TLSFailed != clearAfter {
				t.Errorf("%v, kind %d, strictness %d: TLS failed: %v", c.failure, c.kind, n, m.TLSFailed)
			}
			if (c.kind == ImplicitTLS || n == 2) && m.TLS < Must {
				t.Errorf("%v, kind %d, strictness %d: in the clear", c.failure, c.kind, n)
			}
		}
	}
}

// walk takes each rung that failure leads to.
func walk(t *testing.T, r *Requirement, failure error) (rungs string, m Manner) {
	t.Helper()
	var words []string
	m = Manner{TLS: r.First}
	for now := AtOnce; ; {
		g := r.Next(m, failure, now, true)
		if g == nil {
			return strings.Join(words, ", "), m
		}
		if now = max(now, g.In); g.In > AtOnce {
			words = append(words, fmt.Sprintf("%s (pass %d)", g.Words, g.In))
		} else {
			words = append(words, g.Words)
		}
		m = r.Take(g, m, failure)
		if len(words) > len(r.Rungs) {
			t.Fatalf("%v: no end: %q", failure, words)
		}
	}
}

// An address that could not be connected to waits for a later pass. A rung is taken once.
func TestNext_conditions(t *testing.T) {
	lax, firm := Strictness(0), Strictness(1)
	if g := lax.Next(Manner{TLS: May}, ErrTLS, AtOnce, false); g != nil {
		t.Errorf("not connected: %+v", g)
	}
	if g := firm.Next(Manner{TLS: Must}, ErrTLS, AtOnce, false); g == nil || g.In != Second {
		t.Errorf("not connected: %+v", g)
	}
	if g := lax.Next(Manner{TLS: May, HELO: true}, ErrEHLOLost, AtOnce, true); g != nil {
		t.Errorf("HELO twice, in the clear: %+v", g)
	}
	clear := Manner{TLSFailed: true}
	if g := firm.Next(clear, ErrStumbled, Second, true); g == nil || g.Words != oneByOne.Words {
		t.Errorf("a group in the clear: %+v", g)
	}
	clear.OneByOne = true
	if g := firm.Next(clear, ErrStumbled, Second, true); g != nil {
		t.Errorf("twice: %+v", g)
	}
}

func TestPossible(t *testing.T) {
	for n, want := range []bool{true, true, false, false} {
		r := Strictness(n)
		if got := r.Possible(NoTLS); got != want || !r.Possible(ExplicitTLS) || !r.Possible(ImplicitTLS) {
			t.Errorf("strictness %d without TLS: %v", n, got)
		}
		if r.Verifies() == want {
			t.Errorf("strictness %d verifies: %v", n, r.Verifies())
		}
	}
	if r := Strictness(-1); r.AllowsClear() {
		t.Error("a number that is none allows clear text")
	}
}

func TestLevel(t *testing.T) {
	for l, want := range map[Level]string{Clear: "none", May: "may", Must: "must", Verified: "verify"} {
		if got := l.String(); got != want {
			t.Errorf("%d: %q", l, got)
		}
	}
}

// What somebody insists on is added to what the strictness has, and takes clear text away.
func TestAtLeast(t *testing.T) {
	const none = ""
	for n, want := range []map[Level]string{
		{Must: "must smallHello oneByOne", Verified: "verify smallHello oneByOne"},
		{Must: "must smallHello oneByOne", Verified: "verify smallHello oneByOne"},
		{Must: none, Verified: none},
	} {
		for level, rungs := range want {
			base := Strictness(n)
			got, isMore := base.AtLeast(level, "control/credentials:3", "login")
			if rungs == none {
				if isMore || got.By != base.By || got.Word != "" || got.First != Verified {
					t.Errorf("strictness %d, %v: %+v", n, level, got)
				}
				continue
			}
			said := got.First.String()
			for _, g := range got.Rungs {
				said += " " + map[string]string{smallHello.Words: "smallHello", noName.Words: "noName", oneByOne.Words: "oneByOne"}[g.Words]
			}
			if said != rungs || !isMore || got.By != "control/credentials:3" || got.Word != "login" || got.AllowsClear() || got.Possible(NoTLS) {
				t.Errorf("strictness %d, %v: %q, want %q; %+v", n, level, said, rungs, got)
			}
			if verified := level == Verified; got.Verifies() != verified {
				t.Errorf("strictness %d, %v verifies: %v", n, level, !verified)
			}
		}
	}
}
