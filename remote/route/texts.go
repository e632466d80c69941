package route

import (
	"context"

	"nightmare.mail/mxf/remote/dns"
)

// maxName is the length of the longest name, in bytes of text without the final dot (RFC 1035
// section 2.3.4).
const maxName = 253

// PolicyDomain returns the domain whose policies hold for a candidate of r: the name of its
// relay, or HOST. It is in lower case and A-labels; of an address it is empty.
func (r *Result) PolicyDomain(c *Candidate) string {
	switch {
	case c.Host == "":
		return ""
	case c.Relay != "":
		return c.RelayName
	}
	return r.Host.String()
}

// texts are TXT questions on their way.
type texts struct {
	domains []string
	answers []*dns.Answer // of each domain one for each prefix
	asked   []int         // index in answers, of each question
	// Of the lookups:
	arrivals <-chan dns.Arrival
	quarter  *dns.Share
	cancel   context.CancelCauseFunc
}

// startTexts asks for the texts of policy domains, beside what else is asked. A name that is
// too long does not exist, and the domain above it is another one: about neither is anybody
// asked.
func (s *search) startTexts(ctx context.Context, domains []string) {
	if len(s.request.Texts) == 0 || len(domains) == 0 {
		return
	}
	t := &texts{domains: domains}
	var questions []dns.Question
	for _, domain := range domains {
		for _, prefix := range s.request.Texts {
			q := s.question(prefix+"."+domain, dns.TypeTXT)
			if len(q.Name) <= maxName {
				questions = append(questions, q)
				t.asked = append(t.asked, len(t.answers))
			}
			t.answers = append(t.answers, &dns.Answer{Question: q, Err: dns.ErrNoName})
		}
	}
	ctx, t.cancel = context.WithCancelCause(ctx)
	ctx, t.quarter = s.share(ctx, 4, hurriedSRV)
	t.arrivals = dns.Start(ctx, s.Resolver, questions)
	s.texts = t
}

// stopTexts ends the lookups that nobody waits for.
func (s *search) stopTexts() {
	if s.texts != nil {
		s.texts.cancel(nil)
		s.texts.quarter.Stop()
	}
}

// waitForTexts takes the texts into the result when all are there. As SRV they are not waited
// for longer than a quarter of the time.
func (s *search) waitForTexts() {
	t := s.texts
	if t == nil {
		return
	}
	for left := len(t.asked); left > 0; {
		select {
		case arrival := <-t.arrivals:
			left--
			t.answers[t.asked[arrival.Index]] = arrival.Answer
		case <-t.quarter.C:
			t.cancel(context.DeadlineExceeded)
		}
	}
	for _, at := range t.asked {
		s.note(t.answers[at])
	}
	s.result.Texts = make(map[string][]*dns.Answer, len(t.domains))
	n := len(s.request.Texts)
	for i, domain := range t.domains {
		answers := t.answers[i*n : (i+1)*n]
		s.result.Texts[domain] = answers
		if s.request.OnTexts != nil {
			s.request.OnTexts(domain, answers)
		}
	}
}
