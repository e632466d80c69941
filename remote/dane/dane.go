// Package dane finds the TLSA records of mail exchangers (RFC 7672). It goes by the answers
// that the exchangers' addresses came from, and asks as little as it can: about an exchanger
// without DNSSEC, nothing at all, because some name servers stumble over such a question.
//
//  1. The base is the name at the end of the exchanger's secure aliases. Where there are no
//     secure records the exchanger's own name is the next one.
//  2. If the aliases led out of what is secure, the alias of the exchanger's own name may be
//     secure alone: one question for it decides whether the own name is asked about.
//  3. All exchangers' questions go out at once, and then those that their answers lead to.
//
// What it goes by:
//
//	RFC 6698, 7671   TLSA
//	RFC 7672         when it is asked for, and which names may stand in a certificate
//
// Who judges by the records is package tlsc, and what follows from a finding is the policy's
// to say.
package dane

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"nightmare.mail/mxf/control/domain"
	"nightmare.mail/mxf/remote/dns"
	"nightmare.mail/mxf/tlsc"
)

const (
	// maxQuestions bounds the questions for one delivery, whose number a stranger's zone has in
	// its hands: thirty exchangers, two ports and an alias each would be twice as many.
	maxQuestions = 64
	// hurried stands for a quarter of the time where that has no limit.
	hurried = 5 * time.Second
)

// errManyQuestions is the error of ways for which no question is left.
var errManyQuestions = fmt.Errorf("more than %d questions about TLSA records", maxQuestions)

// A Way is a port of an exchanger at which TLS is spoken, and what was learnt about it.
type Way struct {
	Exchanger string         // the name of the exchanger, in any case, without the final dot; empty for an address
	Port      uint16         // TCP port
	Relay     bool           // a route names the exchanger
	NamedBy   *dns.Answer    // the answer that has its SRV or MX record, or that there is no MX; nil for relays
	Resolved  [2]*dns.Answer // the answers for AAAA and A of Exchanger; nil for an address
}

// A Request is what one delivery wants to know.
type Request struct {
	Host  string            // HOST, a name in lower case and A-labels
	Ways  []Way             // in the order in which they are tried
	Limit time.Duration     // the time of all lookups of the delivery, of which a quarter is for these; 0: none, and 5 s are for these
	Trace func(line string) // nil: no trace; called from the caller's goroutine only
}

// A State is what a lookup of TLSA records has come to.
type State int

// The states.
const (
	NotAsked   State = iota // nothing about the exchanger is secure, or its name is too long for records
	None                    // there are no secure records
	NoneUsable              // there are, and none can be used (RFC 7672 section 3.1.3)
	Usable                  // at least one can be used
	Failed                  // it is not known whether there are any: somebody may keep them away
)

var states = [...]string{
	NotAsked: "nothing is secure", None: "no secure TLSA records", NoneUsable: "no usable TLSA records",
	Usable: "usable TLSA records", Failed: "the TLSA records are not known",
}

func (s State) String() string { return states[s] }

// A Finding is what was found about one way. It can be compared.
type Finding struct {
	State  State
	Secure bool   // the path to the exchanger is: a relay's, or one that a secure answer names
	Base   string // whose records they are, in lower case, and the name for SNI; the exchanger's own where there are none, empty for an address

	// Names are the names that may stand in a certificate in place of Base where a record of
	// usage 2 decides (RFC 7672 section 3.2.2), with blanks between, in lower case.
	Names string

	Records tlsc.Records // all secure ones, those that cannot be used too
	Err     error        // why the lookup failed
}

func (f Finding) String() string {
	switch f.State {
	case NotAsked:
		return f.State.String()
	case Failed:
		return fmt.Sprintf("%v of %s: %v", f.State, f.Base, f.Err)
	case None:
		return fmt.Sprintf("%v of %s", f.State, f.Base)
	}
	return fmt.Sprintf("%v of %s: %d of %d", f.State, f.Base, len(f.Records.Usable().List()), len(f.Records.List()))
}

// A Result is what was found.
type Result struct {
	Findings []Finding     // of each way of the request, in its order
	Answers  []*dns.Answer // in the order in which they were asked for
}

// Find finds the TLSA records of the ways of r. It ends with ctx at the latest, and a finding
// that fails says why. resolver must ask name servers that validate: see dns.Question.Secure.
func Find(ctx context.Context, resolver dns.Resolver, r Request) *Result {
	s := &search{resolver: resolver, trace: r.Trace, known: make(map[dns.Question]*dns.Answer), result: new(Result)}
	limit := r.Limit / 4
	if limit <= 0 {
		limit = hurried
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ctx, share := dns.WithShare(ctx, limit)
	defer share.Stop()
	ladders := make([]ladder, len(r.Ways))
	for i := range r.Ways {
		ladders[i] = r.Ways[i].ladder()
	}
	for { // twice at most, as no ladder is longer
		var missing []dns.Question
		for i := range ladders {
			if _, q := ladders[i].climb(s.known); q != (dns.Question{}) && !slices.Contains(missing, q) {
				missing = append(missing, q)
			}
		}
		if len(missing) == 0 {
			break
		}
		s.ask(ctx, missing, share, cancel)
	}
	for i := range r.Ways {
		f, _ := ladders[i].climb(s.known)
		f.Secure = r.Ways[i].isSecure()
		f.Names = r.Ways[i].names(r.Host, f.Base)
		s.result.Findings = append(s.result.Findings, f)
	}
	return s.result
}

// A ladder has the questions about one way, in the order in which they are asked, until one
// answer settles it.
type ladder struct {
	own   string // the exchanger's name, in lower case
	rungs []rung
}

// A rung is a question, for the records of a base or for the alias of the own name.
type rung struct {
	question dns.Question
	base     string
}

func (w *Way) ladder() ladder {
	l := ladder{own: strings.ToLower(w.Exchanger)}
	secure, end, aliased := false, "", false
	for _, a := range w.Resolved {
		if a == nil {
			continue
		}
		aliased = aliased || a.Alias() != ""
		if a.Secure {
			secure = true
			if end == "" {
				end = a.Alias()
			}
		}
	}
	switch {
	case secure:
		l.add(end, w.Port)
		l.add(l.own, w.Port)
	case aliased:
		l.rungs = append(l.rungs, rung{dns.Question{Name: l.own, Type: dns.TypeCNAME, Secure: true}, l.own})
		l.add(l.own, w.Port)
	}
	return l
}

// add adds the question for the records of a base, if there can be any: TLS is spoken to a
// host, and its name has room for what stands before it.
func (l *ladder) add(base string, port uint16) {
	name := fmt.Sprintf("_%d._tcp.%s", port, base)
	if domain.IsName(base) && domain.IsName(name) {
		l.rungs = append(l.rungs, rung{dns.Question{Name: name, Type: dns.TypeTLSA, Secure: true}, base})
	}
}

// climb returns the finding as far as it follows from the known answers, and the question whose
// answer is missing, the zero Question if there is none.
func (l *ladder) climb(known map[dns.Question]*dns.Answer) (Finding, dns.Question) {
	f := Finding{Base: l.own}
	for _, r := range l.rungs {
		a := known[r.question]
		switch {
		case a == nil:
			return f, r.question
		case a.Failed():
			return Finding{State: Failed, Base: r.base, Err: a.Err}, dns.Question{}
		case r.question.Type == dns.TypeCNAME && !a.Secure:
			return f, dns.Question{}
		case r.question.Type == dns.TypeCNAME:
			continue
		case a.Secure && len(a.TLSA) > 0:
			return found(a, r.base), dns.Question{}
		}
		f.State = None
	}
	return f, dns.Question{}
}

// found is the finding of secure records.
func found(a *dns.Answer, base string) Finding {
	list := make([]tlsc.TLSA, len(a.TLSA))
	for i, r := range a.TLSA {
		list[i] = tlsc.TLSA{Usage: r.Usage, Selector: r.Selector, Matching: r.Matching, Data: []byte(r.Data)}
	}
	records, err := tlsc.NewRecords(list)
	switch {
	case err != nil:
		return Finding{State: Failed, Base: base, Err: err}
	case records.Usable() == tlsc.Records{}:
		return Finding{State: NoneUsable, Base: base, Records: records}
	}
	return Finding{State: Usable, Base: base, Records: records}
}

// isSecure reports whether nobody but those who are to can have named the exchanger.
func (w *Way) isSecure() bool { return w.Relay || w.NamedBy != nil && w.NamedBy.Secure }

// names returns the names that may stand in a certificate beside base. A relay stands for
// itself and not for HOST, about which nobody but the administrator has said that it is the
// relay's.
func (w *Way) names(host, base string) string {
	var names []string
	own := strings.ToLower(w.Exchanger)
	if w.Relay || own == host {
		names = append(names, own)
	}
	if !w.Relay && w.isSecure() {
		names = append(names, host)
		if w.NamedBy.Question.Type == dns.TypeMX {
			names = append(names, w.NamedBy.Alias())
		}
	}
	var others []string
	for _, name := range names {
		if name != base && domain.IsName(name) && !slices.Contains(others, name) {
			others = append(others, name)
		}
	}
	return strings.Join(others, " ")
}

// A search is one use of Find.
type search struct {
	resolver dns.Resolver
	trace    func(line string)
	known    map[dns.Question]*dns.Answer
	result   *Result
}

// ask asks the questions at once, as many as there may be. Once the share is over those that
// are not answered have failed.
func (s *search) ask(ctx context.Context, questions []dns.Question, share *dns.Share, cancel context.CancelCauseFunc) {
	room := min(len(questions), maxQuestions-len(s.result.Answers))
	for _, q := range questions[room:] {
		s.known[q] = &dns.Answer{Question: q, Err: errManyQuestions}
	}
	answers := make([]*dns.Answer, room)
	arrivals := dns.Start(ctx, s.resolver, questions[:room])
	for left := room; left > 0; {
		select {
		case arrival := <-arrivals:
			left--
			answers[arrival.Index] = arrival.Answer
		case <-share.C:
			cancel(context.DeadlineExceeded)
		}
	}
	s.result.Answers = append(s.result.Answers, answers...)
	for i, a := range answers {
		s.known[questions[i]] = a
		if s.trace != nil {
			a.Trace(s.trace)
		}
	}
}
