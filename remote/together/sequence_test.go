package together_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"nightmare.mail/mxf/remote/together"
	"nightmare.mail/mxf/smtpc"
)

// A reply is what a server does where an answer is due: a code, or one of the words.
type reply string

const (
	lost    reply = "lost"    // the connection ends
	silent  reply = "silent"  // nothing comes in time
	garbage reply = "garbage" // not SMTP
	stumble reply = "stumble" // the group is not understood
	cut     reply = "cut"     // to the message: lost before its last byte
)

func (r reply) code() int {
	code, _ := strconv.Atoi(strings.TrimSuffix(string(r), "!"))
	return code
}

// A script is what a server says in one transaction. What is left out is accepted.
type script struct {
	mail, data, message reply
	rcpt                map[string]reply
	close               bool // afterwards
}

// parse reads "mail=450 b=450 data=554 message=lost close".
func parse(text string) script {
	s := script{rcpt: make(map[string]reply)}
	for _, word := range strings.Fields(text) {
		what, value, _ := strings.Cut(word, "=")
		switch r := reply(value); what {
		case "mail":
			s.mail = r
		case "data":
			s.data = r
		case "message":
			s.message = r
		case "close":
			s.close = true
		case "ok":
		default:
			s.rcpt[what] = r
		}
	}
	return s
}

// A server is a fake of one session. It makes of scripts what smtpc makes of servers.
type server struct {
	names     []string
	next      func(offered []string) script
	resetFail bool

	dead, unreset bool
	offered       []string // of each transaction, as "abc"
	resets        int
	mistakes      []string
	begun         func(name string, last bool, accepted bool) // what became of a recipient on the wire; may be nil
}

func (s *server) Usable() bool { return !s.dead }

func (s *server) Reset(context.Context) error {
	s.resets++
	if s.resetFail {
		s.dead = true
		return errors.New("no answer")
	}
	s.unreset = false
	return nil
}

func (s *server) Send(ctx context.Context, recipients []int) *smtpc.Outcome {
	var offered []string
	for _, i := range recipients {
		offered = append(offered, s.names[i])
	}
	s.offered = append(s.offered, strings.Join(offered, ""))
	if s.dead || s.unreset {
		s.mistakes = append(s.mistakes, "a transaction on a session that cannot have one")
	}
	t := s.next(offered)
	o := &smtpc.Outcome{Recipients: make([]smtpc.Answer, len(recipients))}
	o.Err = s.converse(&t, offered, o)
	var refused *smtpc.RefusedError
	var broken *smtpc.BrokenError
	s.unreset = errors.As(o.Err, &refused)
	s.dead = errors.As(o.Err, &broken) || s.dead || t.close
	if s.begun != nil {
		for n, a := range o.Recipients {
			s.begun(offered[n], a.Status == smtpc.Accepted && o.LastByte && (o.Err == nil || broken != nil), a.Status == smtpc.Accepted && o.Err == nil)
		}
	}
	return o
}

func replyOf(r reply) smtpc.Reply { return smtpc.Reply{Code: r.code(), Text: string(r)} }

// fails is the error of an answer that is none.
func (s *server) fails(stage smtpc.Stage, r reply) error {
	switch r {
	case lost, cut:
		return &smtpc.BrokenError{Stage: stage, Err: smtpc.ErrLost}
	case silent:
		return &smtpc.BrokenError{Stage: stage, Err: &lostSilence{&smtpc.SilenceError{Stage: stage, Limit: 60e9}}}
	case garbage:
		return &smtpc.BrokenError{Stage: stage, Err: &smtpc.ProtocolError{What: "garbage"}}
	case stumble:
		s.dead = true
		return &smtpc.RefusedError{Stage: stage, Reply: smtpc.Reply{Code: 500}, Cause: smtpc.ErrStumbled}
	}
	if r.code()/100 == 4 || r.code()/100 == 5 {
		s.dead = s.dead || r.code() == 421
		return &smtpc.RefusedError{Stage: stage, Reply: replyOf(r), Permanent: r.code()/100 == 5}
	}
	return nil
}

type lostSilence struct{ silence error }

func (e *lostSilence) Error() string        { return e.silence.Error() }
func (e *lostSilence) Unwrap() error        { return e.silence }
func (e *lostSilence) Is(target error) bool { return target == smtpc.ErrLost }

func (s *server) converse(t *script, offered []string, o *smtpc.Outcome) error {
	if err := s.fails(smtpc.StageMAIL, t.mail); err != nil {
		return err
	}
	o.Begun = true
	taken, permanent := 0, true
	for n, name := range offered {
		r := t.rcpt[name]
		a := &o.Recipients[n]
		var refused *smtpc.RefusedError
		switch err := s.fails(smtpc.StageRCPT, r); {
		case err == nil:
			taken++
			a.Status = smtpc.Accepted
			for m := range n {
				if before := &o.Recipients[m]; before.Reply.Code == 552 {
					before.Status = smtpc.Deferred
				}
			}
			continue
		case !errors.As(err, &refused), refused.Cause != nil:
			return err
		}
		*a = smtpc.Answer{Status: smtpc.Deferred, Reply: replyOf(r), AfterAccepted: taken > 0 && (r.code() == 552 || r.code()/100 == 4 && r.code() != 421)}
		if r.code()/100 == 5 && !(r.code() == 552 && taken > 0) {
			a.Status = smtpc.Refused
		}
		permanent = permanent && a.Permanent()
		if r.code() == 421 {
			for m := n + 1; m < len(offered); m++ {
				o.Recipients[m] = *a
				o.Recipients[m].Inherited = true
			}
			break
		}
	}
	if taken == 0 {
		return &smtpc.RefusedError{Stage: smtpc.StageRCPT, Permanent: permanent}
	}
	if err := s.fails(smtpc.StageDATA, t.data); err != nil {
		return err
	}
	o.LastByte = t.message != cut
	return s.fails(smtpc.StageMessage, t.message)
}

// judge is what a test makes of an outcome: K, or what was refused and how, or how the session
// broke.
func judge(o *smtpc.Outcome) string {
	var refused *smtpc.RefusedError
	var broken *smtpc.BrokenError
	var a smtpc.Answer
	if len(o.Recipients) > 0 {
		a = o.Recipients[0]
	}
	switch {
	case o.Err == nil && a.Status == smtpc.Accepted:
		return "K"
	case errors.As(o.Err, &refused) && refused.Stage == smtpc.StageRCPT && refused.Cause == nil:
		return fmt.Sprint("rcpt", a.Reply.Code)
	case errors.As(o.Err, &refused):
		return map[smtpc.Stage]string{smtpc.StageMAIL: "mail", smtpc.StageDATA: "data", smtpc.StageMessage: "message", smtpc.StageRCPT: "rcpt"}[refused.Stage] + strconv.Itoa(refused.Reply.Code)
	case errors.As(o.Err, &broken) && o.LastByte:
		return "duplicate"
	case errors.As(o.Err, &broken):
		return "broken"
	}
	return "?"
}

// goesOn is report.NoTransaction.
func goesOn(o *smtpc.Outcome) bool {
	var refused *smtpc.RefusedError
	var broken *smtpc.BrokenError
	switch {
	case errors.As(o.Err, &refused):
		return refused.Cause != nil
	case errors.As(o.Err, &broken):
		return broken.Cause != nil || !o.Begun
	}
	return false
}

// answers collects what the deliveries are told.
type answers struct {
	got  []string // "" before
	anew []string // in order
	all  []string // what is wrong
}

func (a *answers) Answer(i int, o *smtpc.Outcome) bool {
	if goesOn(o) {
		return false
	}
	if a.got[i] != "" {
		a.all = append(a.all, fmt.Sprintf("recipient %d is answered twice", i))
	}
	a.got[i] = judge(o)
	return true
}

func (a *answers) Anew(i int, why string) { a.anew = append(a.anew, string(rune('a'+i))+": "+why) }

// play runs a sequence for the recipients over sessions: scripts of one are separated by
// newlines. What comes after the last is accepted.
func play(t *testing.T, recipients string, kept bool, most int, sessions ...string) (got, wire, anew string, last together.End) {
	t.Helper()
	names := strings.Split(recipients, "")
	addresses := make([]string, len(names))
	for i, n := range names {
		addresses[i] = n + "@host.example"
	}
	told := &answers{got: make([]string, len(names))}
	q := together.NewSequence(addresses, told)
	var wires []string
	for n := range 20 {
		var scripts []string
		if n < len(sessions) {
			scripts = strings.Split(sessions[n], "\n")
		}
		s := &server{names: names}
		s.next = func([]string) script {
			if len(scripts) == 0 {
				return parse("")
			}
			first := scripts[0]
			scripts = scripts[1:]
			return parse(first)
		}
		switch scripts0 := strings.Join(scripts, ""); {
		case scripts0 == "dead":
			s.dead, scripts = true, nil
		case strings.HasPrefix(scripts0, "noreset"):
			s.resetFail = true
			scripts[0] = strings.TrimPrefix(scripts[0], "noreset")
		}
		last = q.Run(t.Context(), s, together.Terms{Kept: kept && n == 0, Most: most})
		wires = append(wires, strings.Join(s.offered, " "))
		for _, m := range append(s.mistakes, told.all...) {
			t.Error(m)
		}
		if last.Why == "" != (len(q.Left()) == 0) {
			t.Errorf("Run ended with %q, and %v are left", last.Why, q.Left())
		}
		if last.Why == "" || last.Outcome != nil {
			break
		}
	}
	var all []string
	for i, answer := range told.got {
		if answer == "" {
			answer = "-"
			if o := q.Held(i); o != nil {
				answer = "held " + judge(o)
			}
		}
		all = append(all, names[i]+"="+answer)
	}
	return strings.Join(all, " "), strings.Join(wires, " / "), strings.Join(told.anew, ", "), last
}

func TestSequence(t *testing.T) {
	for name, c := range map[string]struct {
		recipients string
		kept       bool
		most       int
		sessions   []string
		got, wire  string
		anew       string
	}{
		// A new connection.
		"all accepted":               {"abc", false, 0, nil, "a=K b=K c=K", "abc", ""},
		"one refused":                {"abc", false, 0, []string{"b=550"}, "a=K b=rcpt550 c=K", "abc", ""},
		"all refused":                {"ab", false, 0, []string{"a=450 b=550"}, "a=rcpt450 b=rcpt550", "ab", ""},
		"first refused for now":      {"abc", false, 0, []string{"a=450"}, "a=rcpt450 b=K c=K", "abc", ""},
		"later refused for now":      {"abcd", false, 0, []string{"b=450 d=452"}, "a=K b=K c=K d=K", "abcd bd", ""},
		"the second answer holds":    {"abc", false, 0, []string{"b=450 c=452\nc=450"}, "a=K b=K c=rcpt450", "abc bc", ""},
		"the second answer is worse": {"ab", false, 0, []string{"b=450\nb=550"}, "a=K b=rcpt550", "ab b", ""},
		"552 behind":                 {"ab", false, 0, []string{"b=552"}, "a=K b=K", "ab b", ""},
		"552 in front":               {"ab", false, 0, []string{"a=552\na=552"}, "a=rcpt552 b=K", "ab a", ""},
		"552 alone":                  {"a", false, 0, []string{"a=552"}, "a=rcpt552", "a", ""},
		"503 behind a refused one":   {"abc", false, 0, []string{"a=550 b=503 c=503"}, "a=rcpt550 b=K c=K", "abc bc", ""},
		"503 again":                  {"ab", false, 0, []string{"a=550 b=503\nb=503"}, "a=rcpt550 b=rcpt503", "ab b", ""},
		"closed before the retry":    {"ab", false, 0, []string{"b=450 close"}, "a=K b=K", "ab / b", ""},
		"lost in the retry":          {"ab", false, 0, []string{"b=450\nmail=lost"}, "a=K b=K", "ab b / b", "b: connection lost"},
		"lost in the retry, twice":   {"ab", false, 0, []string{"b=450\nb=lost", "b=lost"}, "a=K b=rcpt450", "ab b / b", "b: connection lost"},
		"MAIL refused in the retry":  {"ab", false, 0, []string{"b=450\nmail=550"}, "a=K b=K", "ab b / b", "b: MAIL was refused"},

		"MAIL refused":                  {"ab", false, 0, []string{"mail=550"}, "a=mail550 b=mail550", "ab", ""},
		"421 to MAIL":                   {"ab", false, 0, []string{"mail=421"}, "a=mail421 b=mail421", "ab", ""},
		"lost at MAIL":                  {"ab", false, 0, []string{"mail=lost"}, "a=- b=-", "ab", ""},
		"lost at RCPT":                  {"abc", false, 0, []string{"a=550 b=lost"}, "a=rcpt550 b=broken c=broken", "abc", ""},
		"lost at DATA":                  {"abc", false, 0, []string{"b=550 c=450 data=lost"}, "a=broken b=rcpt550 c=K", "abc / c", ""},
		"lost before the last byte":     {"ab", false, 0, []string{"message=cut"}, "a=broken b=broken", "ab", ""},
		"lost after the last byte":      {"abc", false, 0, []string{"b=550 message=lost"}, "a=duplicate b=rcpt550 c=duplicate", "abc", ""},
		"silent after the last byte":    {"ab", false, 0, []string{"message=silent"}, "a=duplicate b=duplicate", "ab", ""},
		"garbage after the last byte":   {"ab", false, 0, []string{"message=garbage"}, "a=duplicate b=duplicate", "ab", ""},
		"lost with one for later":       {"abc", false, 0, []string{"b=450 message=lost"}, "a=duplicate b=K c=duplicate", "abc / b", ""},
		"the group is not understood":   {"ab", false, 0, []string{"a=550 b=stumble"}, "a=- b=-", "ab", ""},
		"DATA is not understood":        {"ab", false, 0, []string{"data=stumble"}, "a=- b=-", "ab", ""},
		"lost after stumbling in retry": {"ab", false, 0, []string{"b=450\nb=stumble"}, "a=K b=held rcpt450", "ab b", ""},

		// 421 to the RCPT of a group.
		"421 to RCPT, alone":        {"a", false, 0, []string{"a=421"}, "a=rcpt421", "a", ""},
		"421 to the first RCPT":     {"abc", false, 0, []string{"a=421"}, "a=K b=K c=K", "abc / abc", "a: 421 to RCPT, b: 421 to RCPT, c: 421 to RCPT"},
		"421 and lost":              {"abc", false, 0, []string{"c=421 data=lost"}, "a=K b=K c=K", "abc / ab c", "a: 421 to RCPT, b: 421 to RCPT, c: 421 to RCPT"},
		"421 and accepted":          {"abc", false, 0, []string{"b=421"}, "a=K b=K c=K", "abc / b c", "b: 421 to RCPT, c: 421 to RCPT"},
		"421 and DATA refused":      {"abc", false, 0, []string{"c=421 data=421"}, "a=K b=K c=K", "abc / ab c", "a: 421 to RCPT, b: 421 to RCPT, c: 421 to RCPT"},
		"421 and duplicate":         {"abc", false, 0, []string{"b=421 message=lost"}, "a=duplicate b=K c=K", "abc / b c", "b: 421 to RCPT, c: 421 to RCPT"},
		"421 behind a refused one":  {"abc", false, 0, []string{"a=550 b=421"}, "a=rcpt550 b=K c=K", "abc / bc", "b: 421 to RCPT, c: 421 to RCPT"},
		"421 to all, twice":         {"ab", false, 0, []string{"a=421", "a=421"}, "a=rcpt421 b=rcpt421", "ab / ab", "a: 421 to RCPT, b: 421 to RCPT"},
		"421 to a few, then to one": {"abc", false, 0, []string{"b=421", "b=421"}, "a=K b=rcpt421 c=K", "abc / b / c", "b: 421 to RCPT, c: 421 to RCPT"},

		// The message refused.
		"refused, alone":             {"a", false, 0, []string{"message=554"}, "a=message554", "a", ""},
		"refused, one accepted":      {"ab", false, 0, []string{"a=550 message=554"}, "a=rcpt550 b=message554", "ab", ""},
		"refused and again":          {"abc", false, 0, []string{"message=554\nmessage=554"}, "a=message554 b=message554 c=message554", "abc a", ""},
		"refused, then accepted":     {"abc", false, 0, []string{"message=554\nok\nmessage=550"}, "a=K b=message550 c=K", "abc a b c", ""},
		"refused, then for now":      {"abc", false, 0, []string{"message=554\nmessage=451\nok\nok"}, "a=message451 b=K c=K", "abc a b c", ""},
		"refused for now, then more": {"abc", false, 0, []string{"message=451\nmessage=554"}, "a=message554 b=message451 c=message451", "abc a", ""},
		"452, then again":            {"ab", false, 0, []string{"message=452\nmessage=452"}, "a=message452 b=message452", "ab a", ""},
		"DATA refused and again":     {"abc", false, 0, []string{"data=554\ndata=554"}, "a=data554 b=data554 c=data554", "abc a", ""},
		"DATA refused, then not":     {"abc", false, 0, []string{"data=554"}, "a=K b=K c=K", "abc a b c", ""},
		"the first not at RCPT":      {"abc", false, 0, []string{"message=554\na=550"}, "a=rcpt550 b=K c=K", "abc a b c", ""},
		"the first may be doubled":   {"abc", false, 0, []string{"message=554\nmessage=lost"}, "a=duplicate b=K c=K", "abc a / b c", ""},
		"the trial is lost":          {"ab", false, 0, []string{"message=554\nmail=lost", "message=554"}, "a=message554 b=message554", "ab a / a", "a: connection lost"},
		"no RSET":                    {"ab", false, 0, []string{"noresetmessage=554"}, "a=K b=K", "ab / a b", ""},
		"refused and some for later": {"abcd", false, 0, []string{"b=450 message=554\nmessage=554"}, "a=message554 b=K c=message554 d=message554", "abcd a b", ""},
		"421 to the message":         {"ab", false, 0, []string{"message=421", "message=421"}, "a=message421 b=message421", "ab / a", ""},

		// A kept connection.
		"kept: accepted":            {"ab", true, 0, nil, "a=K b=K", "ab", ""},
		"kept: dead":                {"ab", true, 0, []string{"dead"}, "a=K b=K", " / ab", "a: the kept connection was closed, b: the kept connection was closed"},
		"kept: lost at MAIL":        {"ab", true, 0, []string{"mail=lost"}, "a=K b=K", "ab / ab", "a: connection lost, b: connection lost"},
		"kept: MAIL unanswered":     {"a", true, 0, []string{"mail=silent"}, "a=K", "a / a", "a: MAIL was not answered"},
		"kept: RCPT unanswered":     {"a", true, 0, []string{"a=silent"}, "a=broken", "a", ""},
		"kept: protocol error":      {"a", true, 0, []string{"data=garbage"}, "a=K", "a / a", "a: protocol error"},
		"kept: MAIL refused":        {"a", true, 0, []string{"mail=550"}, "a=K", "a / a", "a: MAIL was refused"},
		"kept: MAIL refused twice":  {"a", true, 0, []string{"mail=550", "mail=550"}, "a=mail550", "a / a", "a: MAIL was refused"},
		"kept: lost at RCPT":        {"abc", true, 0, []string{"a=550 b=lost"}, "a=rcpt550 b=K c=K", "abc / bc", "b: connection lost, c: connection lost"},
		"kept: cut":                 {"a", true, 0, []string{"message=cut"}, "a=K", "a / a", "a: connection lost"},
		"kept: cut twice":           {"a", true, 0, []string{"message=cut", "message=cut"}, "a=broken", "a / a", "a: connection lost"},
		"kept: duplicate":           {"ab", true, 0, []string{"message=lost"}, "a=duplicate b=duplicate", "ab", ""},
		"kept: 421 to RCPT":         {"a", true, 0, []string{"a=421"}, "a=K", "a / a", "a: 421 to RCPT"},
		"kept: 421 to RCPT twice":   {"a", true, 0, []string{"a=421", "a=421"}, "a=rcpt421", "a / a", "a: 421 to RCPT"},
		"kept: 452 to RCPT":         {"a", true, 0, []string{"a=452"}, "a=K", "a / a", "a: 452 to RCPT"},
		"kept: 450 to RCPT":         {"a", true, 0, []string{"a=450"}, "a=rcpt450", "a", ""},
		"kept: 452 behind":          {"ab", true, 0, []string{"b=452\nb=452"}, "a=K b=rcpt452", "ab b", ""},
		"kept: 452 in front":        {"ab", true, 0, []string{"a=452"}, "a=K b=K", "ab / a", "a: 452 to RCPT"},
		"kept: 421 to DATA":         {"a", true, 0, []string{"data=421"}, "a=K", "a / a", "a: 421 to DATA"},
		"kept: 452 to DATA":         {"ab", true, 0, []string{"data=452"}, "a=K b=K", "ab / ab", "a: 452 to DATA, b: 452 to DATA"},
		"kept: 451 to DATA":         {"a", true, 0, []string{"data=451"}, "a=data451", "a", ""},
		"kept: 421 to the message":  {"a", true, 0, []string{"message=421"}, "a=K", "a / a", "a: 421 to the message"},
		"kept: 452 to the message":  {"a", true, 0, []string{"message=452", "message=452"}, "a=message452", "a / a", "a: 452 to the message"},
		"kept: 554 to the message":  {"a", true, 0, []string{"message=554"}, "a=message554", "a", ""},
		"kept: 554 to two":          {"ab", true, 0, []string{"message=554\nmessage=554"}, "a=message554 b=message554", "ab a", ""},
		"kept: then 421 to a group": {"abc", true, 0, []string{"mail=lost", "c=421 data=lost"}, "a=K b=K c=K", "abc / abc / ab c", "a: connection lost, b: connection lost, c: connection lost, a: 421 to RCPT, b: 421 to RCPT, c: 421 to RCPT"},
		"kept: everything at once":  {"abc", true, 0, []string{"mail=lost", "c=421 data=lost", "ok\nc=421"}, "a=K b=K c=rcpt421", "abc / abc / ab c", "a: connection lost, b: connection lost, c: connection lost, a: 421 to RCPT, b: 421 to RCPT, c: 421 to RCPT"},

		// How many go together.
		"most":                   {"abcde", false, 2, nil, "a=K b=K c=K d=K e=K", "ab cd e", ""},
		"most, the second fails": {"abcd", false, 2, []string{"ok\nmail=lost"}, "a=K b=K c=K d=K", "ab cd / cd", "c: connection lost, d: connection lost"},
	} {
		t.Run(name, func(t *testing.T) {
			got, wire, anew, _ := play(t, c.recipients, c.kept, c.most, c.sessions...)
			if got != c.got {
				t.Errorf("answers %s, want %s", got, c.got)
			}
			if wire != c.wire {
				t.Errorf("transactions %q, want %q", wire, c.wire)
			}
			if anew != c.anew {
				t.Errorf("anew %q, want %q", anew, c.anew)
			}
		})
	}
}

func TestRefusalsAreCounted(t *testing.T) {
	for _, c := range []struct {
		recipients, script string
		refusals           int
		unreset            bool
	}{
		{"abc", "ok", 0, false},
		{"abc", "a=550 b=551", 2, false},
		{"a", "a=550", 1, true},
		{"ab", "mail=550", 1, true},
		{"ab", "message=554\nmessage=554", 2, true},
		{"abc", "b=450\nb=450", 2, true},
	} {
		_, _, _, end := play(t, c.recipients, false, 0, c.script)
		if end.Refusals != c.refusals || end.Unreset != c.unreset {
			t.Errorf("%q: %d refusals, unreset %v; want %d and %v", c.script, end.Refusals, end.Unreset, c.refusals, c.unreset)
		}
	}
}

// TestOneAddressAboveASCII: SMTPUTF8 in MAIL is only for those that need it.
func TestOneAddressAboveASCII(t *testing.T) {
	got, wire, _, _ := play(t, "aéb", false, 0)
	if want := "ab é"; wire != want || got != "a=K é=K b=K" {
		t.Errorf("transactions %q, want %q; %s", wire, want, got)
	}
}

// TestNothingAfterTheTime: what is left is not begun.
func TestNothingAfterTheTime(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := &server{names: []string{"a", "b"}, next: func([]string) script {
		cancel()
		return parse("b=450")
	}}
	told := &answers{got: make([]string, 2)}
	q := together.NewSequence([]string{"a@h", "b@h"}, told)
	end := q.Run(ctx, s, together.Terms{})
	if left := q.Left(); !slices.Equal(left, []int{1}) || end.Why == "" || q.Held(1) == nil || len(s.offered) != 1 {
		t.Errorf("left %v, why %q, held %v, transactions %q", left, end.Why, q.Held(1), s.offered)
	}
}

func TestMalformedAndImpossible(t *testing.T) {
	wrong := errors.New("a control byte")
	s := &fixed{&smtpc.Outcome{
		Recipients: []smtpc.Answer{{Status: smtpc.Accepted}, {Status: smtpc.Malformed, Err: wrong}},
		Begun:      true, LastByte: true, Err: &smtpc.BrokenError{Stage: smtpc.StageMessage, Err: smtpc.ErrLost},
	}}
	told := &answers{got: make([]string, 2)}
	q := together.NewSequence([]string{"a@h", "b@h"}, told)
	if end := q.Run(t.Context(), s, together.Terms{Kept: true}); end.Why != "" || told.got[0] != "duplicate" || told.got[1] != "rcpt0" {
		t.Errorf("%q, %q", end.Why, told.got)
	}
	// A sender that answers for nobody is a mistake, and gives nobody a K.
	told = &answers{got: make([]string, 1)}
	together.NewSequence([]string{"a@h"}, told).Run(t.Context(), &fixed{&smtpc.Outcome{}}, together.Terms{})
	if told.got[0] != "" && told.got[0] != "?" {
		t.Errorf("answered %q without an answer", told.got)
	}
}

// TestAloneWithAMalformedOne: no group gets the 421, so it is the answer.
func TestAloneWithAMalformedOne(t *testing.T) {
	s := &fixed{&smtpc.Outcome{
		Recipients: []smtpc.Answer{{Status: smtpc.Malformed, Err: errors.New("a control byte")}, {Status: smtpc.Deferred, Reply: replyOf("421")}},
		Begun:      true, Err: &smtpc.RefusedError{Stage: smtpc.StageRCPT},
	}}
	told := &answers{got: make([]string, 2)}
	together.NewSequence([]string{"a@h", "b@h"}, told).Run(t.Context(), s, together.Terms{})
	if told.got[1] != "rcpt421" || len(told.anew) > 0 {
		t.Errorf("%q, anew %q", told.got, told.anew)
	}
}

// TestTakenOrNot: nothing is sent again that a server has or may have, whatever the caller
// makes of the answer.
func TestTakenOrNot(t *testing.T) {
	for _, text := range []string{"ok", "message=lost", "message=554"} {
		s := &server{names: []string{"a"}, next: func([]string) script { return parse(text) }}
		q := together.NewSequence([]string{"a@h"}, deaf{})
		if end := q.Run(t.Context(), s, together.Terms{}); end.Why != "" || len(q.Left()) > 0 || len(s.offered) != 1 {
			t.Errorf("%q: why %q, left %v, offered %q", text, end.Why, q.Left(), s.offered)
		}
	}
}

// deaf takes no answer.
type deaf struct{}

func (deaf) Answer(int, *smtpc.Outcome) bool { return false }
func (deaf) Anew(int, string)                {}

type fixed struct{ o *smtpc.Outcome }

func (f *fixed) Usable() bool                               { return true }
func (f *fixed) Reset(context.Context) error                { return nil }
func (f *fixed) Send(context.Context, []int) *smtpc.Outcome { return f.o }

// Who is left alone in a sequence is sent to, and nobody else.
func TestSequence_only(t *testing.T) {
	q := together.NewSequence([]string{"a@x", "b@x", "ü@x"}, nil)
	q.Only(1)
	if left := q.Left(); len(left) != 1 || left[0] != 1 {
		t.Errorf("%v are left", left)
	}
}
