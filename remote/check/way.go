package check

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/remote"
	"nightmare.mail/mxf/remote/dns"
	"nightmare.mail/mxf/remote/route"
	"nightmare.mail/mxf/tlsc"
)

// Plan adds a plan to r: where mail would go, and why.
func (r *Result) Plan(p *remote.Plan) {
	if p == nil || p.Route == nil {
		return
	}
	r.planned = true
	for i := range p.Route.Routes {
		r.Route = append(r.Route, describeRoute(&p.Route.Routes[i]))
	}
	for _, a := range p.Route.Answers {
		r.Lookups = append(r.Lookups, lookupOf(a))
	}
	for i := range p.Steps {
		r.Ways = append(r.Ways, wayOf(&p.Steps[i]))
		r.policyOf(&p.Steps[i])
	}
	for i := range p.Route.Dropped {
		d := &p.Route.Dropped[i]
		text := d.String()
		if d.Ours {
			text += " (control/ipme, or without that file the interfaces)"
		}
		r.Dropped = append(r.Dropped, text)
	}
	if p.Route.More > 0 {
		r.Dropped = append(r.Dropped, fmt.Sprintf("and %d more", p.Route.More))
	}
}

// uses are what comes of a route.
var uses = map[route.Use]string{
	route.Empty:     "it has no relay: DNS decides",
	route.Off:       "not used: its protocol needs TLS, and TLS is off",
	route.Overruled: "not used: control/senderroutes has a line for the sender",
}

func describeRoute(r *route.Route) string {
	text := r.Place()
	if name := r.Relay.Name(); name != "" {
		text += " " + name
	}
	if r.Relay.Port > 0 {
		text += fmt.Sprintf(" port %d", r.Relay.Port)
	}
	if use := uses[r.Use]; use != "" {
		text += ", " + use
	}
	return text
}

func lookupOf(a *dns.Answer) Lookup {
	l := Lookup{
		Name: a.Question.Name, Type: a.Question.Type.String(), Answer: make([]string, 0, a.Len()),
		MS: a.Took.Milliseconds(), Notes: a.Notes, plain: isOfAddresses(a) && !a.Failed(),
	}
	if a.Err != nil {
		l.Error = a.Err.Error()
	}
	if a.Server.IsValid() {
		l.Server = a.Server.String()
	}
	if a.Question.Secure {
		secure := a.Secure
		l.Secure = &secure
	}
	for i := range a.Len() - a.More {
		l.Answer = append(l.Answer, recordOf(a, i))
	}
	if a.More > 0 {
		l.Answer = append(l.Answer, fmt.Sprintf("and %d more", a.More))
	}
	return l
}

// recordOf is a record of a without the dot that ends a name. The root is nothing but that.
func recordOf(a *dns.Answer, i int) string {
	text := a.Record(i)
	if text == "." || strings.HasSuffix(text, " .") {
		return text
	}
	return strings.TrimSuffix(text, ".")
}

// cutOff marks the lookups that a shorter timeoutdns has ended.
func (r *Result) cutOff(p *remote.Plan, cut []Limit) {
	if p == nil || p.Route == nil || !slices.ContainsFunc(cut, func(l Limit) bool { return l.Name == "timeoutdns" }) {
		return
	}
	for i, a := range p.Route.Answers {
		r.Lookups[i].CutOff = errors.Is(a.Err, context.DeadlineExceeded)
	}
}

// isOfAddresses reports whether an answer is about the addresses of a name.
func isOfAddresses(a *dns.Answer) bool {
	return a.Question.Type == dns.TypeA || a.Question.Type == dns.TypeAAAA
}

func wayOf(s *remote.Step) Way {
	w := Way{
		Exchanger: s.Host, Service: s.Protocol.Service, Port: s.Port, Why: s.Why, Addresses: make([]string, 0, len(s.Addresses)),
		TLS: s.Requirement.First.String(), Policy: s.Requirement.By, Title: s.Requirement.Title,
	}
	for i := range s.Addresses {
		a := &s.Addresses[i]
		w.Addresses = append(w.Addresses, a.Addr().String())
		if a.Silent > 0 {
			if w.Silent == nil {
				w.Silent = make(map[string]string)
			}
			w.Silent[a.Addr().String()] = a.Silent.Round(time.Second).String()
		}
		w.identify(s, a)
	}
	if judge, ok := s.Requirement.Judge.(tlsc.DANE); ok {
		w.Records = judge.Records.Usable().String()
	}
	switch {
	case s.Err != nil:
		w.Skipped = s.Err.Error()
	case len(w.Silent) == len(w.Addresses):
		w.Skipped = "no address of it has answered lately"
	}
	return w
}

// identify adds what control files have said about ourselves at an address.
func (w *Way) identify(s *remote.Step, a *remote.Address) {
	add := func(format string, args ...any) {
		text := fmt.Sprintf(format, args...)
		for _, known := range w.Identity {
			if known == text {
				return
			}
		}
		w.Identity = append(w.Identity, text)
	}
	if a.SourceLine > 0 {
		add("from %s as %s (control/sources:%d)", a.Identity.Source, a.Identity.HeloHost, a.SourceLine)
	}
	if login := &a.Identity.Login; login.Line > 0 {
		add("logs in (%s)", login.Credential.String())
	}
	if a.AvoidLine > 0 {
		add("%s is not asked for %s (control/smtpavoid:%d)", a.Addr(), a.Avoid, a.AvoidLine)
	}
	if a.Identity.Certificate != "" && s.Requirement.First > 0 {
		add("has the client certificate %s", a.Identity.Certificate)
	}
}

// policyOf adds what is known of policies towards a step.
func (r *Result) policyOf(s *remote.Step) {
	add := func(what, of, text string) {
		p := Policy{what, of, text}
		for _, known := range r.Policy {
			if known == p {
				return
			}
		}
		r.Policy = append(r.Policy, p)
	}
	p := &s.Published
	if p.Line != nil {
		add("line", p.Line.Place(), levelOf(p.Line))
	}
	if p.STS != nil {
		add("sts", p.Domain, p.STS.String())
	}
	if p.Reports != "" {
		add("tlsrpt", p.Domain, p.Reports)
	}
	if p.TLSA.State != 0 || p.TLSA.Secure {
		path := "insecure"
		if p.TLSA.Secure {
			path = "secure"
		}
		add("path", cmp.Or(s.Host, "address"), path+", "+p.TLSA.String())
	}
	if p.Waived {
		add("line", "TLS-Required: No", "the message waives what is published")
	}
}

func levelOf(line *control.TLSPolicy) string {
	if line.Floor != "" {
		return string(line.Level) + ", at least " + string(line.Floor)
	}
	return string(line.Level)
}
