package policy

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"nightmare.mail/mxf/tlsc"
)

// This file says what must hold for a way, once more and in another form than decide.go: as
// rows with patterns, and sentences that are applied to them one after the other. Every
// combination of facts is held against it.

// situation is a combination of facts, in words.
type situation struct {
	kind       string // none, explicit, implicit
	line       string // "", or a line of levels
	strictness int
	tlsa       string // none, usable, unusable, failed
	elsewhere  bool   // another way of the exchanger has secure records, or the lookup failed there
	path       string // secure, insecure
	sts        string // no, none, testing, listed, unlisted: the last two enforce
	login      string // "", must, verify
	waived     bool
}

// expected is what must hold.
type expected struct {
	left        string // "": the way is used; else why not, and who says so
	tls         string // never, may, first, always
	certificate string // whichever, anchors, names, TLSA, TLSA and anchors, pins
	word        string
	nameless    bool // a try without SNI is allowed
}

// published are the rows by what the destination publishes; patterns are words with a bar
// between, or * for all.
var published = []struct{ tlsa, path, sts, outcome, word string }{
	{"usable", "secure", "*", "TLSA", "dane"},
	{"usable", "insecure", "no|none|testing", "TLSA", "half-dane"},
	{"usable", "insecure", "listed", "TLSA and anchors", "half-dane+sts"},
	{"unusable", "*", "no|none|testing", "floor, TLS always", "dane-unusable"},
	{"none|unusable", "*", "listed", "anchors", "sts"},
	{"none", "*", "no|none|testing", "floor", ""},
	{"failed", "*", "*", "left", "lookup failed: dane"},
	{"none|unusable", "*", "unlisted", "left", "not in the policy: sts"},
	{"usable", "insecure", "unlisted", "left", "not in the policy: sts"},
}

// levels are the lines that say all by themselves.
var levels = map[string]expected{
	"none":         {tls: "never", certificate: "whichever"},
	"may":          {tls: "may", certificate: "whichever", nameless: true},
	"must":         {tls: "always", certificate: "whichever", word: "local"},
	"verify":       {tls: "always", certificate: "anchors", word: "local"},
	"verify:names": {tls: "always", certificate: "names", word: "local"},
	"pin":          {tls: "always", certificate: "pins", word: "pin"},
	"dane":         {tls: "always", certificate: "TLSA", word: "dane"},
}

// floors are those of lines that say auto, and of the three numbers where no line does.
var floors = map[string]expected{
	"auto:may":    {tls: "may", certificate: "whichever", nameless: true},
	"auto:must":   {tls: "always", certificate: "whichever"},
	"auto:verify": {tls: "always", certificate: "anchors"},
	"0":           {tls: "may", certificate: "whichever", nameless: true},
	"1":           {tls: "first", certificate: "whichever", nameless: true},
	"2":           {tls: "always", certificate: "anchors"},
}

const (
	place      = "control/tlspolicy:7"
	loginPlace = "control/credentials:3"
)

func fits(pattern, word string) bool {
	return pattern == "*" || slices.Contains(strings.Split(pattern, "|"), word)
}

// page says what must hold.
func page(t *testing.T, s situation) expected {
	// First the line, if it is not auto.
	if local, is := levels[s.line]; is {
		return s.settle(s.byLine(local), place)
	}

	// The floor: that of the line, else of tlsstrictness. A login raises it.
	key, who := s.line, place
	if s.line == "" || s.line == "auto" {
		key, who = fmt.Sprint(s.strictness), fmt.Sprintf("control/tlsstrictness %d", s.strictness)
	}
	floor, known := floors[key]
	if !known {
		t.Fatalf("no floor %q", key)
	}
	if raised := s.raised(floor); raised != floor {
		floor, who = raised, loginPlace
	}

	// Then what is published. The rows exclude one another, except that a lookup that
	// failed comes before MTA-STS.
	var outcome, word string
	for _, row := range published {
		if !fits(row.tlsa, s.tlsa) || !fits(row.path, s.path) || !fits(row.sts, s.sts) {
			continue
		}
		if outcome != "" {
			t.Fatalf("%+v: two rows", s)
		}
		outcome, word = row.outcome, row.word
	}
	if outcome == "" {
		t.Fatalf("%+v: no row", s)
	}
	// A way without records beside one with them is not used.
	if s.tlsa == "none" && s.elsewhere {
		outcome, word = "left", "no protocol: dane"
	}
	// The sender of the message can waive all that, and then the floor holds.
	if s.waived && word != "" {
		outcome, word = "floor", "waived"
	}

	var e expected
	switch outcome {
	case "left":
		return expected{left: word}
	case "floor":
		e = floor
		if word == "waived" {
			e.word = word
		}
		return s.settle(e, who)
	case "floor, TLS always":
		e = expected{tls: "always", certificate: floor.certificate, word: word}
	default:
		e = expected{tls: "always", certificate: outcome, word: word}
	}
	return s.settle(e, word)
}

// byLine is what a line says, with what the other facts add.
func (s situation) byLine(local expected) expected {
	switch {
	case s.line == "none" && s.login != "":
		return expected{left: "contradiction: " + place}
	case s.line == "none" && s.kind == "implicit":
		return expected{left: "no protocol: " + place}
	case s.line == "dane" && s.tlsa == "failed":
		return expected{left: "lookup failed: dane"}
	case s.line == "dane" && (s.tlsa != "usable" || s.path != "secure"):
		return expected{left: "not satisfied: " + place}
	}
	return s.raised(local)
}

// raised is e with what a login demands: TLS always, with the server's name, and, unless the login does without,
// a certificate that somebody vouches for.
func (s situation) raised(e expected) expected {
	more := e
	if s.login != "" {
		more.tls, more.nameless = "always", false
	}
	if s.login == "verify" && e.certificate == "whichever" {
		more.certificate = "anchors"
	}
	if more != e {
		more.word = "login"
	}
	return more
}

// settle has a way without TLS left where TLS is always wanted.
func (s situation) settle(e expected, who string) expected {
	if e.left == "" && e.tls == "always" && s.kind == "none" {
		if e.word == "login" {
			who = loginPlace
		}
		return expected{left: "no protocol: " + who}
	}
	return e
}

var (
	someRecords = mustRecords("3 1 1 " + strings.Repeat("ab", 32))
	somePins    = mustRecords("3 0 1 " + strings.Repeat("cd", 32))
)

func mustRecords(text string) tlsc.Records {
	records, err := tlsc.ParseRecords(text)
	if err != nil {
		panic(err)
	}
	return records
}

// way has the facts of s.
func (s situation) way() *Way {
	w := &Way{
		Kind:       map[string]Kind{"none": NoTLS, "explicit": ExplicitTLS, "implicit": ImplicitTLS}[s.kind],
		Exchanger:  "mx.example.org",
		Strictness: s.strictness,
		TLSA:       map[string]TLSA{"none": NoRecords, "usable": Usable, "unusable": Unusable, "failed": Failed}[s.tlsa],
		Base:       "base.example.net",
		Elsewhere:  s.elsewhere,
		Secure:     s.path == "secure",
		STS:        map[string]Mode{"no": NoSTS, "none": STSNone, "testing": STSTesting, "listed": STSEnforce, "unlisted": STSEnforce}[s.sts],
		Listed:     s.sts == "listed",
		Domain:     "example.org",
		Waived:     s.waived,
	}
	if w.TLSA == Usable {
		w.Records = someRecords
	}
	if s.login != "" {
		w.Login = Demand{Level: map[string]Level{"must": Must, "verify": Verified}[s.login], By: loginPlace}
	}
	if s.line != "" {
		level, more, _ := strings.Cut(s.line, ":")
		w.Line = &Line{Place: place, Level: LineLevel(level)}
		switch {
		case level == "auto":
			w.Line.Floor = LineLevel(more)
		case more == "names":
			w.Line.Names = "a.example .b.example"
		case level == "pin":
			w.Line.Pins = somePins
		}
	}
	return w
}

// seen is what a requirement makes of the facts, in the words of the page.
func seen(t *testing.T, w *Way, r Requirement, left *Left) expected {
	if left != nil {
		return expected{left: map[Reason]string{
			LeftLookup: "lookup failed", LeftUnlisted: "not in the policy", LeftUnsatisfied: "not satisfied", LeftNoProtocol: "no protocol", LeftContradiction: "contradiction",
		}[left.Why] + ": " + left.By}
	}
	e := expected{word: r.Word, certificate: certificateOf(t, &r)}
	failed := tried(t, &r, ErrTLS)
	switch {
	case r.First == Clear:
		e.tls = "never"
	case r.First == May:
		e.tls = "may"
	case strings.Contains(failed, "later"):
		e.tls = "first"
	default:
		e.tls = "always"
	}
	e.nameless = strings.Contains(tried(t, &r, errors.Join(ErrTLS, tlsc.ErrUnrecognizedName)), "nameless")
	return e
}

func certificateOf(t *testing.T, r *Requirement) string {
	t.Helper()
	if (r.Judge != nil) != (r.First == Verified) || r.Verifies() != (r.First == Verified) {
		t.Errorf("level %v, judge %v", r.First, r.Judge)
	}
	switch judge := r.Judge.(type) {
	case nil:
		return "whichever"
	case tlsc.TrustAnchors:
		if r.ServerName != "" {
			t.Errorf("server name %q", r.ServerName)
		}
		if r.Names != "" {
			return "names"
		}
		return "anchors"
	case tlsc.DANE:
		switch {
		case judge.Pins == place && judge.Records == somePins && !judge.Anchors && r.ServerName == "":
			return "pins"
		case judge.Pins == "" && judge.Records == someRecords && judge.Anchors && r.ServerName == "base.example.net":
			return "TLSA and anchors"
		case judge.Pins == "" && judge.Records == someRecords && r.ServerName == "base.example.net":
			return "TLSA"
		}
	}
	t.Errorf("judge %#v", r.Judge)
	return ""
}

// tried is what is tried at a server that fails in the same way every time.
func tried(t *testing.T, r *Requirement, failure error) string {
	var all []string
	m := Manner{TLS: r.First}
	for now := AtOnce; ; {
		g := r.Next(m, failure, now, true)
		if g == nil {
			return strings.Join(all, " ")
		}
		if len(all) > len(r.Rungs) {
			t.Fatalf("%v: no end: %q", failure, all)
		}
		before := m
		m = r.Take(g, m, failure)
		for word, is := range map[string]bool{
			"clear": m.TLS == Clear && before.TLS != Clear, "nameless": m.NoName && !before.NoName, "later": g.In > AtOnce, "HELO": m.HELO && !before.HELO,
		} {
			if is {
				all = append(all, word)
			}
		}
		now = max(now, g.In)
	}
}

// situations calls each for every combination.
func situations(each func(situation)) {
	lines := []string{"", "none", "may", "must", "verify", "verify:names", "pin", "dane", "auto", "auto:may", "auto:must", "auto:verify"}
	no := []bool{false, true}
	for _, kind := range []string{"none", "explicit", "implicit"} {
		for _, line := range lines {
			for strictness := range 3 {
				for _, tlsa := range []string{"none", "usable", "unusable", "failed"} {
					for _, elsewhere := range no {
						for _, path := range []string{"secure", "insecure"} {
							for _, sts := range []string{"no", "none", "testing", "listed", "unlisted"} {
								for _, login := range []string{"", "must", "verify"} {
									for _, waived := range no {
										each(situation{kind, line, strictness, tlsa, elsewhere, path, sts, login, waived})
									}
								}
							}
						}
					}
				}
			}
		}
	}
}

func TestDecide_page(t *testing.T) {
	n, wrong := 0, 0
	situations(func(s situation) {
		n++
		w := s.way()
		r, left := Decide(w)
		want := page(t, s)
		got := seen(t, w, r, left)
		if s.kind == "none" && want.left == "" {
			// There is no TLS to say more of than that.
			want.tls, want.certificate, want.nameless = "never", "whichever", false
		}
		if s.kind == "implicit" && want.tls != "always" && want.left == "" {
			want.tls = "always" // it cannot be left
		}
		if got == want {
			return
		}
		if wrong++; wrong <= 20 {
			t.Errorf("%+v:\n got %+v\nwant %+v", s, got, want)
		}
	})
	if n != 3*12*3*4*2*2*5*3*2 || wrong > 0 {
		t.Errorf("%d of %d combinations are wrong", wrong, n)
	}
}

// Under policy nothing goes in the clear, whatever fails, nor later, nor without a name, nor by
// HELO; and who is connected to without TLS is so by the administrator's word, or by nobody's.
func TestDecide_invariants(t *testing.T) {
	failures := []error{
		ErrTLS, ErrNotOffered, ErrStumbled, ErrEHLOLost, errors.Join(ErrTLS, tlsc.ErrNoServerHello), errors.Join(ErrTLS, tlsc.ErrUnrecognizedName),
		errors.Join(ErrTLS, ErrNotOffered, ErrStumbled, ErrEHLOLost, tlsc.ErrNoServerHello, tlsc.ErrUnrecognizedName),
	}
	situations(func(s situation) {
		r, left := Decide(s.way())
		if left != nil {
			return
		}
		insisted := r.Published || slices.Contains([]string{"local", "pin", "dane"}, r.Word) || s.line == "auto:must" || s.line == "auto:verify"
		if insisted && (r.First < Must || r.AllowsClear()) {
			t.Errorf("%+v: %+v", s, r)
		}
		for _, failure := range failures {
			got := tried(t, &r, failure)
			if insisted && got != "" {
				t.Errorf("%+v, %v: %s", s, failure, got)
			}
			if s.login != "" && strings.Contains(got, "clear") {
				t.Errorf("%+v, %v: %s", s, failure, got)
			}
		}
		if r.By == "" || r.Title == "" {
			t.Errorf("%+v: nobody decides: %+v", s, r)
		}
		if s.waived && r.Published {
			t.Errorf("%+v: published, and waived: %+v", s, r)
		}
	})
}

// What a message can waive is what waiving changes.
func TestWaivable(t *testing.T) {
	situations(func(s situation) {
		if s.waived {
			return
		}
		r, left := Decide(s.way())
		got := s.way().Waivable()
		s.waived = true
		waived, waivedLeft := Decide(s.way())
		changed := !reflect.DeepEqual(r, waived) || !reflect.DeepEqual(left, waivedLeft)
		if got != changed {
			t.Errorf("%+v: waivable %v, and waiving it changes something: %v", s, got, changed)
		}
		if got && waivedLeft == nil && waived.Word != WordWaived {
			t.Errorf("%+v: word %q", s, waived.Word)
		}
	})
}
