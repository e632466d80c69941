package smtpc_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/smtpc"
	"nightmare.mail/mxf/smtpc/smtptest"
)

// A party is a server that has an opinion of each recipient, and what it says to the message.
type party struct {
	mode       string
	recipients []string // what is answered to each, proper if empty, or malformed
	at         smtptest.Phase
	fault      fault
}

func (p party) String() string {
	return fmt.Sprintf("mode %q, recipients %q, %s: %q", p.mode, p.recipients, p.at, p.fault)
}

// malformed is an answer that is ours.
const malformed = "malformed"

// address is that of the nth recipient.
func (p party) address(n int) string {
	if p.recipients[n] == malformed {
		return fmt.Sprintf("r%d\x01@example.org", n)
	}
	return fmt.Sprintf("r%d@example.org", n)
}

func (p party) server() *smtptest.Server {
	return &smtptest.Server{Extensions: strings.Fields(p.mode), Answer: func(e *smtptest.Exchange) smtptest.Action {
		switch e.Phase {
		case p.at:
			return p.fault.action()
		case smtptest.RCPT:
			var n int
			_, _ = fmt.Sscanf(e.Line, "RCPT TO:<r%d@", &n)
			return smtptest.Action{Reply: p.recipients[n]}
		case smtptest.DATA:
			if len(e.Transaction.Recipients) == 0 {
				return smtptest.Action{Reply: "554 no valid recipients"}
			}
		}
		return smtptest.Action{}
	}}
}

// send sends to the recipients n, the first in a new mail and the others added to it.
func (p party) send(t *testing.T, n ...int) *smtpc.Outcome {
	j := newJob(0)
	for _, i := range n {
		j.Recipients = append(j.Recipients, p.address(i))
	}
	rest := j.Recipients[1:]
	j.Recipients = j.Recipients[:1]
	ctx, cancel := j.context(t.Context())
	defer cancel()
	m := j.mail()
	for _, r := range rest {
		must.OK(t, m.Add(r))
	}
	conn := smtptest.Dial(t, smtptest.Listen(t, p.server().Serve))
	o, ended := smtpc.Deliver(ctx, conn, &j.Options, m)
	j.close(conn, ended)
	return o
}

// reported is what a delivery with the outcome shows.
func reported(o *smtpc.Outcome) string { return show(o, newJob(1)).String() }

// parties are all rows of the table: three recipients each, and one fault of the message.
func parties() []party {
	says := []string{"", "450 later", "550-no\n550 5.1.1 never", "552 5.2.2 full", malformed}
	var all []party
	for _, mode := range []string{lockstep, pipelining} {
		for _, f := range []struct {
			at     smtptest.Phase
			faults []fault
		}{
			{smtptest.EHLO, []fault{says421}},
			{smtptest.MAIL, []fault{says4xx, says5xx, says421, garbage, closes}},
			{smtptest.DATA, []fault{says4xx, says5xx, says421, garbage, closes}},
			{smtptest.Message, []fault{"250 yes", says4xx, says5xx, says421, garbage, closes}},
		} {
			for _, fault := range f.faults {
				for n := range len(says) * len(says) * len(says) {
					three := []string{says[n%5], says[n/5%5], says[n/25]}
					all = append(all, party{mode, three, f.at, fault})
				}
			}
		}
	}
	return all
}

// TestOf holds what Of makes of the outcome of a group against what comes of a mail to each
// recipient alone, at the same server: the reports are the same.
func TestOf(t *testing.T) {
	t.Parallel()
	apart := make(map[string]func() string)
	var running sync.WaitGroup
	turn := make(chan struct{}, maxAtOnce)
	for _, p := range parties() {
		var alone [3]func() string
		for i, says := range p.recipients {
			only := party{p.mode, []string{says}, p.at, p.fault}
			key := only.String()
			if apart[key] == nil {
				apart[key] = sync.OnceValue(func() string { return reported(only.send(t, 0)) })
			}
			alone[i] = apart[key]
		}
		turn <- struct{}{}
		running.Go(func() {
			defer func() { <-turn }()
			o := p.send(t, 0, 1, 2)
			for i := range alone {
				if got := reported(o.Of(i)); got != alone[i]() {
					t.Errorf("%v\nrecipient %d\n got %s\nwant %s", p, i, got, alone[i]())
				}
			}
		})
	}
	running.Wait()
}

// What a group alone can meet.
func TestOf_group(t *testing.T) {
	const (
		full    = "552 too many"
		box     = "552 5.2.2 full"
		many    = "452 too many"
		no      = "550 no"
		leaves  = "421 bye"
		r       = "r\x00" + accepted
		dislike = peerIP + " does not like recipient.\nRemote host said: "
	)
	deferred := func(said string) string { return "s" + dislike + said + "\n\x00ZGiving up on " + peerIP + ".\n\x00" }
	refused := func(said string) string { return "h" + dislike + said + "\n\x00DGiving up on " + peerIP + ".\n\x00" }
	for _, c := range []struct {
		recipients []string
		want       []string
		after      string // for each recipient: a, AfterAccepted; i, Inherited; -, neither
		refusals   int
	}{
		{[]string{"", full}, []string{r, deferred(full)}, "-a", 1},
		{[]string{full, ""}, []string{refused(full), r}, "--", 1},
		{[]string{full, full}, []string{refused(full), refused(full)}, "--", 2},
		{[]string{full, "", full}, []string{refused(full), r, deferred(full)}, "--a", 2},
		{[]string{"", box}, []string{r, refused(box)}, "-a", 1},
		{[]string{"", many, no, many}, []string{r, deferred(many), refused(no), deferred(many)}, "-a-a", 3},
		{[]string{many, ""}, []string{deferred(many), r}, "--", 1},
		{[]string{no, leaves, "", no}, []string{refused(no), deferred(leaves), deferred(leaves), deferred(leaves)}, "--ii", 2},
	} {
		for _, mode := range []string{lockstep, pipelining} {
			n := make([]int, len(c.recipients))
			for i := range n {
				n[i] = i
			}
			o := (party{mode: mode, recipients: c.recipients}).send(t, n...)
			var after strings.Builder
			for i, a := range o.Recipients {
				switch {
				case a.AfterAccepted:
					after.WriteString("a")
				case a.Inherited:
					after.WriteString("i")
				default:
					after.WriteString("-")
				}
				wantReports(t, show(o.Of(i), newJob(1)), c.want[i])
			}
			if after.String() != c.after || o.Refusals() != c.refusals {
				t.Errorf("%q: %s, %d refusals", c.recipients, after.String(), o.Refusals())
			}
		}
	}
}

// A server that stumbles over a group has judged nobody.
func TestOf_stumbled(t *testing.T) {
	p := party{pipelining, []string{"550 no", ""}, smtptest.DATA, "503 what?"}
	o := p.send(t, 0, 1)
	for i := range 2 {
		if one := o.Of(i); !errors.Is(one.Err, smtpc.ErrStumbled) || len(one.Recipients) != 1 {
			t.Errorf("%+v", one)
		}
	}
}

// Lost after the last byte: a duplicate is possible for those that were accepted.
func TestOf_duplicate(t *testing.T) {
	o := party{pipelining, []string{"550 no", ""}, smtptest.Message, closes}.send(t, 0, 1)
	if o.Of(0).LastByte || !o.Of(1).LastByte || !o.LastByte {
		t.Errorf("%+v", o)
	}
}

func TestOf_without(t *testing.T) {
	m := smtpc.NewMail("a\x01", []string{"r@example.org"}, nil, false)
	must.OK(t, m.Add("q@example.org"))
	o := m.Unsendable()
	for i := -1; i < 3; i++ {
		if one := o.Of(i); one.Err != o.Err || len(one.Recipients) != 0 {
			t.Errorf("%+v", one)
		}
	}
}

func TestOutcome_refusals(t *testing.T) {
	for _, c := range []struct {
		at    smtptest.Phase
		fault fault
		want  int
	}{
		{smtptest.MAIL, says5xx, 1}, {smtptest.DATA, says5xx, 1}, {smtptest.Message, says4xx, 1},
		{smtptest.Message, closes, 0}, {smtptest.EHLO, says4xx, 0}, {"", "", 0},
	} {
		if o := (party{pipelining, []string{"", ""}, c.at, c.fault}).send(t, 0, 1); o.Refusals() != c.want {
			t.Errorf("%s %s: %d refusals", c.at, c.fault, o.Refusals())
		}
	}
}

func TestMail_add(t *testing.T) {
	const utf8 = "ü@example.org"
	server := &smtptest.Server{Extensions: []string{"SMTPUTF8"}}
	s := opened(t, server)
	m := mailTo("a\x01@example.org")
	if m.Unsendable() == nil {
		t.Error("sendable to nobody")
	}
	must.OK(t, m.Add("b@example.org"), m.Add("c\x01@example.org"), m.Add("d@example.org"))
	if err := m.Add(utf8); err != smtpc.ErrApart {
		t.Error(err)
	}
	o := s.Send(t.Context(), m)
	must.OK(t, o.Err)
	var got []string
	for _, a := range o.Recipients {
		got = append(got, a.Status.String())
	}
	if strings.Join(got, " ") != "malformed accepted malformed accepted" {
		t.Errorf("%q", got)
	}
	if err := m.Add("e@example.org"); err != smtpc.ErrTooLate {
		t.Error(err)
	}

	m = mailTo(utf8)
	if err := m.Add("f@example.org"); err != smtpc.ErrApart {
		t.Error(err)
	}
	must.OK(t, m.Add("ö@example.org"), s.Send(t.Context(), m).Err)
	m = smtpc.NewMail(utf8, []string{"g@example.org"}, nil, false)
	must.OK(t, m.Add(utf8), s.Send(t.Context(), m).Err)
	s.Quit()
	if got := strings.Count(strings.Join(server.Last(t).Commands, "\n"), "SMTPUTF8"); got != 2 {
		t.Errorf("SMTPUTF8 was said %d times", got)
	}
}

func TestMail_again(t *testing.T) {
	for name, text := range map[string]string{"empty": "", "short": "a: b\n\n.c\n", "long": many(200 << 10)} {
		t.Run(name, func(t *testing.T) {
			server := &smtptest.Server{Act: func(p smtptest.Point) (a smtptest.Action) {
				if p.Phase == smtptest.Message && p.Mail == 1 {
					a.Reply = "550 no"
				}
				return a
			}, Remember: true}
			s := opened(t, server)
			first := smtpc.NewMail("s@example.org", []string{"a\x01"}, strings.NewReader(text), false)
			first.Limits = smtpc.LimitsOf(time.Minute, time.Minute)
			second := first.Again([]string{"b@example.org"})
			third := second.Again([]string{"c@example.org", "d@example.org"})
			if third.Limits != first.Limits {
				t.Error("no limits")
			}
			must.OK(t, first.Add("a@example.org"))
			must.OK(t, s.Send(t.Context(), first).Err)
			if o := s.Send(t.Context(), second); o.Err == nil {
				t.Error("accepted")
			}
			must.OK(t, s.Reset(t.Context()))
			must.OK(t, s.Send(t.Context(), third).Err)
			s.Quit()
			var messages []string
			for _, tx := range server.Last(t).Transactions {
				messages = append(messages, strings.Join(tx.Recipients, " ")+" "+fmt.Sprint(tx.Accepted))
				if got := strings.ReplaceAll(string(tx.Message), "\r\n", "\n"); got != text {
					t.Errorf("%d bytes, want %d", len(got), len(text))
				}
			}
			if want := []string{"a@example.org true", "b@example.org false", "c@example.org d@example.org true"}; strings.Join(messages, ", ") != strings.Join(want, ", ") {
				t.Errorf("%q", messages)
			}
		})
	}
}

func TestMail_againUnsendable(t *testing.T) {
	var unreadable *smtpc.MessageError
	var sender *smtpc.SenderError
	to := []string{"r@example.org"}
	once := smtpc.NewMail("", to, onlyReader{strings.NewReader("a\n")}, false)
	if o := once.Again(to).Unsendable(); o == nil || !errors.As(o.Err, &unreadable) {
		t.Errorf("a stream: %+v", o)
	}
	if once.Unsendable() != nil {
		t.Error("the first mail is spoilt")
	}
	if o := smtpc.NewMail("", to, strings.NewReader("a"), false).Again(to).Unsendable(); o == nil || o.Err != smtpc.ErrPartialLine {
		t.Errorf("a partial line: %+v", o)
	}
	if o := smtpc.NewMail("\x01", to, nil, false).Again(to).Unsendable(); o == nil || !errors.As(o.Err, &sender) {
		t.Errorf("a sender: %+v", o)
	}
	if o := mailTo("r@example.org").Again(nil).Unsendable(); o == nil {
		t.Error("sendable to nobody")
	}
}
