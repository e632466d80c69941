package check

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/remote"
	"nightmare.mail/mxf/remote/policy"
	"nightmare.mail/mxf/remote/report"
	"nightmare.mail/mxf/remote/transport"
	"nightmare.mail/mxf/smtpc"
	"nightmare.mail/mxf/tlsc"
)

// A Limit is a time-out that was shortened, for a person who waits.
type Limit struct {
	Name     string        // of the control file
	Was, Now time.Duration // 0: none
}

// Shorten has no time-out of s last longer than most, and returns those that would have. A
// quarter of timeoutremote is what one answer may take: it is that which is shortened.
func Shorten(s *control.Settings, most time.Duration) (cut []Limit) {
	const answers = 4
	for _, t := range []struct {
		name string
		at   *time.Duration
		most time.Duration
	}{
		{"timeoutconnect", &s.TimeoutConnect, most},
		{"timeoutremote", &s.TimeoutRemote, answers * most},
		{"timeoutdns", &s.TimeoutDNS, most},
	} {
		if *t.at == 0 || *t.at > t.most {
			cut = append(cut, Limit{t.name, *t.at, t.most})
			*t.at = t.most
		}
	}
	return cut
}

// A Case is what a probe was asked, for those who show what came of it.
type Case struct {
	Settings   *control.Settings // nil: they could not be read
	Recipients []string
	PlanOnly   bool
	Verbose    bool    // the conversations too
	Cut        []Limit // what Shorten returned
}

// Probe adds what came of a probe to r.
func (r *Result) Probe(p *remote.Probe, c Case) {
	r.Plan(p.Plan)
	r.cutOff(p.Plan, c.Cut)
	var seen []*remote.Attempt
	for _, a := range p.Attempts {
		one := attemptOf(a, &c)
		if a.Connected() {
			one.TLS = tlsOf(p, a)
		}
		r.Attempts = append(r.Attempts, one)
		same := func(b *remote.Attempt) bool {
			return a.Addr == b.Addr && a.Step.Host == b.Step.Host && a.Step.Protocol.Service == b.Step.Protocol.Service
		}
		if i := slices.IndexFunc(seen, same); i >= 0 {
			r.prospects[i].merge(r.row(&one, a))
			continue
		}
		seen = append(seen, a)
		r.prospects = append(r.prospects, r.row(&one, a))
	}
	tellApart(r.prospects, seen)
	if c.PlanOnly && p.Stream.Message == (report.Report{}) && p.Unknown == nil {
		return
	}
	r.Outcome = outcomeOf(p)
	if taken := p.Taken; taken != nil && c.Settings != nil {
		r.clearBad = c.Settings.TLSIsOn() && !insideTLS(taken)
		if replacesTLS(taken) {
			r.Outcome.Age = int64(c.Settings.ClearAfter / time.Second)
		}
		r.decider, r.left = taken.Step.Requirement.By, leftOut(taken, &c)
	}
}

// tellApart adds the port to addresses that are in several rows.
func tellApart(rows []prospect, of []*remote.Attempt) {
	count := make(map[string]int)
	for i := range rows {
		count[rows[i].address]++
	}
	for i := range rows {
		if count[rows[i].address] > 1 {
			rows[i].address = of[i].Addr.String()
		}
	}
}

// replacesTLS reports whether an attempt went on in the clear at a server that has offered TLS:
// what control/clearafter keeps young messages from.
func replacesTLS(a *remote.Attempt) bool {
	if a.Step.Requirement.First == policy.Clear || insideTLS(a) {
		return false
	}
	return a.Manner.TLSFailed || slices.ContainsFunc(a.Probe.Extensions, func(line string) bool { return strings.EqualFold(line, "STARTTLS") })
}

// leftOut has the recipients to whom the message would not go from an attempt that takes it.
func leftOut(a *remote.Attempt, c *Case) (all []Reply) {
	for i, one := range a.Stream.Recipients {
		if one.Letter != report.Accepted && i < len(c.Recipients) {
			all = append(all, Reply{c.Recipients[i], statusOf(one).String(), one.Text})
		}
	}
	return all
}

func statusOf(r report.Report) smtpc.Status {
	switch r.Letter {
	case report.Refused:
		return smtpc.Refused
	case report.Deferred:
		return smtpc.Deferred
	}
	return smtpc.Accepted
}

func insideTLS(a *remote.Attempt) bool {
	if a.Probe.Found() {
		return a.Probe.InTLS
	}
	return a.Stream.Message.TLSLine() != ""
}

// why is the reason for which nobody knows what would become of the message, for people.
func why(unknown error) string {
	e := new(report.Error)
	switch {
	case errors.Is(unknown, context.Canceled):
		return "interrupted"
	case errors.Is(unknown, transport.ErrForeign) && errors.As(unknown, &e):
		return e.Facts.Reason
	}
	return unknown.Error()
}

func outcomeOf(p *remote.Probe) *Outcome {
	m := p.Stream.Message
	switch {
	case p.Unknown != nil && !errors.Is(p.Unknown, context.Canceled):
		return &Outcome{Text: why(p.Unknown)}
	case p.Unknown != nil, m.Letter == 0:
		return &Outcome{Text: "interrupted: this is what was known by then"}
	}
	o := &Outcome{Letter: string(rune(m.Letter)), Text: m.Text}
	if p.Taken != nil {
		o.Address, o.TLS = p.Taken.Addr.Addr().String(), "in the clear"
		if insideTLS(p.Taken) {
			o.TLS = m.TLSLine()
		}
	}
	return o
}

func attemptOf(a *remote.Attempt, c *Case) Attempt {
	one := Attempt{
		Address: a.Addr.Addr().String(), Port: a.Addr.Port(), Exchanger: a.Step.Host, Service: a.Step.Protocol.Service,
		Connected: a.Connected(), MS: a.Connect.Milliseconds(), Manner: mannerOf(a), Greeting: a.Probe.Greeting.Text,
		Extensions: slices.Clone(a.Probe.Extensions), Login: a.Probe.Login, CutOff: a.TimedOut && len(c.Cut) > 0,
	}
	if one.Extensions == nil {
		one.Extensions = []string{}
	}
	switch {
	case a.Err != nil:
		one.Error = a.Err.Error()
	case a.Unknown != nil:
		one.Error = why(a.Unknown)
	case a.Failure != nil:
		one.Error = a.Failure.Reason.Text
	case a.Stream.Message.Letter != report.Delivered:
		one.Error = a.Stream.Message.Text
	}
	for i, answer := range a.Probe.Answers {
		if i < len(c.Recipients) && answer.Status != 0 {
			one.Recipients = append(one.Recipients, Reply{c.Recipients[i], answer.Status.String(), answer.Reply.Text})
		}
	}
	for i, r := range a.Stream.Recipients { // of a chain this is all that is known
		if a.Probe.Answers == nil && i < len(c.Recipients) && r.Text != "" {
			one.Recipients = append(one.Recipients, Reply{c.Recipients[i], statusOf(r).String(), r.Text})
		}
	}
	switch {
	case !a.Connected() || a.Unknown != nil:
	case a.Step.Protocol.QMTP():
		one.limits = "nothing is sent by QMTP: what it would answer is not known"
	case !a.Probe.Found():
		one.limits = "a program that a control file names has made it: its report alone is known"
	}
	if c.Verbose {
		one.Conversation = a.Trace
	}
	return one
}

// mannerOf says what is different from the first attempt at a server.
func mannerOf(a *remote.Attempt) (words []string) {
	if !a.Connected() {
		return nil
	}
	m := a.Manner
	for _, w := range []struct {
		is   bool
		word string
	}{
		{m.TLS == policy.Clear && a.Step.Requirement.First != policy.Clear, "in the clear"},
		{m.NoName, "without a server name"},
		{m.SmallHello, "with the smallest ClientHello"},
		{m.OneByOne, "one command at a time"},
		{m.HELO, "with HELO"},
	} {
		if w.is {
			words = append(words, w.word)
		}
	}
	return words
}

func tlsOf(p *remote.Probe, a *remote.Attempt) *TLS {
	t := &TLS{Chain: []Certificate{}, Wrong: []Wrong{}, Strictness: make(map[string]string)}
	for n := range 3 {
		t.Strictness[strconv.Itoa(n)] = p.At(a.Step, a.Addr, n).String()
	}
	i := a.Probe.TLS
	if i == nil {
		return t
	}
	t.Version, t.Cipher, t.Group, t.Name, t.Resumed = i.Version, i.Cipher, i.Group, i.ServerName, i.Resumed
	t.Staple, t.Asked, t.Gave, t.Verdict = i.Staple, i.Asked, i.Gave, i.Verdict.String()
	for _, c := range i.Chain {
		t.Chain = append(t.Chain, Certificate{c.Subject, c.Issuer, c.NotBefore, c.NotAfter, append([]string{}, c.Names...)})
	}
	t.Wrong = append(t.Wrong, wrong(i, a.Step)...)
	t.fault = i.Anchors.Fault.String()
	if judge, ok := a.Step.Requirement.Judge.(tlsc.DANE); ok && i.Enforced && !judge.Anchors {
		t.fault = i.Verdict.Fault.String()
	}
	if t.fault == tlsc.NoFault.String() {
		t.fault = "good"
	}
	return t
}

// wrong returns the faults of a handshake, each with what it would matter to.
func wrong(i *tlsc.Inspection, s *remote.Step) (all []Wrong) {
	verified := []string{"2", "sts"}
	if !i.Anchors.Good() {
		w := Wrong{What: i.Anchors.Reason, Matters: []string{}}
		if i.Anchors.Fatal() {
			w.Matters = verified
		}
		all = append(all, w)
	}
	if _, ok := s.Requirement.Judge.(tlsc.DANE); ok && i.Enforced && i.Verdict.Faults.Records != tlsc.NoFault {
		all = append(all, Wrong{i.Verdict.Reason, []string{s.Requirement.Word}})
	}
	everywhere := append(slices.Clone(verified), "dane")
	switch {
	case i.Signature != "":
		all = append(all, Wrong{i.Signature, everywhere})
	case !i.Strong:
		all = append(all, Wrong{fmt.Sprintf("%s %s is not good enough where a certificate is verified", i.Version, i.Cipher), everywhere})
	}
	return all
}

// row is the row of the table for an attempt.
func (r *Result) row(one *Attempt, a *remote.Attempt) prospect {
	p := prospect{address: one.Address, connect: fmt.Sprintf("%d ms", one.MS)}
	if a.Err != nil {
		p.connect = shortError(a)
		return p
	}
	for n := range p.at {
		p.at[n] = one.TLS.Strictness[strconv.Itoa(n)]
	}
	p.tls = one.TLS.Version
	switch t := one.TLS; {
	case t.Version == "":
	case t.fault == tlsc.FaultDate.String() && len(t.Chain) > 0 && t.Chain[0].NotAfter.Before(r.now):
		p.certificate = "expired " + ago(r.now.Sub(t.Chain[0].NotAfter))
	default:
		p.certificate = t.fault
	}
	if p.tls == "" {
		p.tls = withoutFacts(a)
	}
	if words := strings.Fields(a.Stream.Message.TLSLine()); p.certificate == "" && len(words) > verdictWord {
		p.certificate = words[verdictWord]
	}
	return p
}

// verdictWord is where the line on TLS has the verdict.
const verdictWord = 2

// withoutFacts says what is known of the TLS of an attempt that has not come as far as a
// certificate, or that a chain made.
func withoutFacts(a *remote.Attempt) string {
	version, _, _ := strings.Cut(a.Stream.Message.TLSLine(), " ")
	switch {
	case a.Unknown != nil:
		return ""
	case a.Failure != nil && errors.Is(a.Failure, policy.ErrTLS):
		return "failed"
	case version != "":
		return version
	case a.Failure == nil && a.Probe.Found() || a.Failure != nil && errors.Is(a.Failure, policy.ErrNotOffered):
		return "none"
	}
	return ""
}

// merge has a later attempt at the same address complete a row.
func (p *prospect) merge(later prospect) {
	p.at = later.at
	if p.tls == "" || p.tls == "none" && later.tls != "none" {
		p.tls, p.certificate = later.tls, later.certificate
	}
	if p.certificate == "" {
		p.certificate = later.certificate
	}
}

// shortError is an error of a connection in few words.
func shortError(a *remote.Attempt) string {
	if a.TimedOut {
		return "no answer"
	}
	return strings.TrimPrefix(a.Err.Error(), "connection ")
}

// ago is an age in days.
func ago(age time.Duration) string {
	const day = 24 * time.Hour
	switch days := int(age / day); days {
	case 0:
		return "today"
	case 1:
		return "1 day ago"
	default:
		return fmt.Sprintf("%d days ago", days)
	}
}

// Split returns HOST and, where host is a whole address, that as the recipient.
func Split(host string) (domain, recipient string) {
	if i := strings.LastIndexByte(host, '@'); i >= 0 {
		return host[i+1:], host
	}
	return host, ""
}
