package route

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"nightmare.mail/mxf/remote/dns"
)

const (
	// maxTargets bounds the exchangers whose addresses are looked up for one delivery:
	// a stranger's zone costs neither memory nor time. Of more than that the worst are left
	// out; twenty addresses are tried.
	maxTargets = 30
	// maxAddrs bounds the addresses that are taken from one answer.
	maxAddrs = 40
)

// resolve looks up the addresses of found, cuts loops, and takes what is left
// as candidates. mx is the lookup for MX records if that one failed for now.
func (s *search) resolve(ctx context.Context, found []*exchanger, mx *dns.Answer) error {
	s.addresses(ctx, found)
	kept, cut := cutLoops(found)
	for _, e := range cut {
		if e.ours.IsValid() {
			s.drop(e.name(), e.ways[0].why, "%s is ours", e.ours)
			s.result.Dropped[len(s.result.Dropped)-1].Ours = s.result.More == 0
		} else {
			s.drop(e.name(), e.ways[0].why, "no better than ourselves")
		}
	}
	trouble, relay := mx, (*exchanger)(nil)
	for _, e := range kept {
		if len(e.addrs) > 0 {
			s.candidates(e)
			continue
		}
		if e.relay != nil {
			relay = cmp.Or(relay, e)
		}
		trouble = cmp.Or(trouble, e.trouble)
		if e.trouble != nil {
			s.drop(e.name(), e.ways[0].why, "its addresses could not be looked up")
		} else {
			s.drop(e.name(), e.ways[0].why, "no address")
		}
	}
	if s.result.More > 0 {
		s.tracef("dropped %d more", s.result.More)
	}
	switch {
	case len(s.result.Candidates) > 0:
		for i := range s.result.Candidates {
			if s.request.Trace != nil {
				s.tracef("candidate %d: %s", i+1, &s.result.Candidates[i])
			}
		}
		return nil
	case relay != nil:
		return noRelay(relay)
	case trouble != nil: // a better one than ourselves may yet be found
		return couldNotLookUp(trouble)
	case len(cut) > 0:
		return s.fail(OnlyOurselves)
	}
	return s.fail(NoAddress)
}

// candidates takes e as a candidate in each of its ways.
func (s *search) candidates(e *exchanger) {
	var relay, name string
	if e.relay != nil {
		relay, name = e.relay.Place(), e.relay.Relay.Name()
	}
	standing := ""
	if e.rank != "" {
		standing = fmt.Sprintf("%s %d", e.rank, e.standing)
	}
	for _, w := range e.ways {
		s.result.Candidates = append(s.result.Candidates, Candidate{
			Relay: relay, RelayName: name,
			Protocol: w.protocol, Host: e.host, Port: w.port, Addrs: e.addrs, Why: w.why,
			NamedBy: e.namedBy, Resolved: e.resolved, Standing: standing, Twin: w.twin, ForeignPort: w.foreign,
		})
	}
}

// noRelay says that no relay has an address, by the first of them.
func noRelay(e *exchanger) error {
	switch {
	case e.trouble != nil:
		err := couldNotLookUp(e.trouble)
		err.Relay = e.relay.Place()
		return err
	case e.unknown:
		return &Error{Kind: RelayUnknown, Host: e.host, Relay: e.relay.Place()}
	}
	return &Error{Kind: RelayNoAddress, Host: e.host, Relay: e.relay.Place()}
}

// name returns the host, or the address when there is none.
func (e *exchanger) name() string {
	if e.host == "" && len(e.addrs) > 0 {
		return e.addrs[0].String()
	}
	return e.host
}

// cutLoops cuts every exchanger that is us, and those of the same rank that stand
// no better (RFC 5321 section 5.1).
func cutLoops(found []*exchanger) (kept, cut []*exchanger) {
	best := make(map[string]uint16)
	for _, e := range found {
		if e.relay != nil || !e.ours.IsValid() {
			continue
		}
		if at, ok := best[e.rank]; !ok || e.standing < at {
			best[e.rank] = e.standing
		}
	}
	for _, e := range found {
		if at, ok := best[e.rank]; e.relay != nil || !ok || e.standing < at {
			kept = append(kept, e)
		} else {
			cut = append(cut, e)
		}
	}
	return kept, cut
}

// addresses looks up AAAA and A of every exchanger that is known by name.
func (s *search) addresses(ctx context.Context, found []*exchanger) {
	places := make(map[string]int, min(len(found), maxTargets)) // of a name's two answers
	var questions []dns.Question
	for _, e := range found {
		name := strings.ToLower(e.host)
		if _, ok := places[name]; ok || name == "" || len(places) == maxTargets {
			continue
		}
		places[name] = len(questions)
		questions = append(questions, s.question(name, dns.TypeAAAA), s.question(name, dns.TypeA))
	}
	answers := s.askForAddresses(ctx, questions)
	for _, e := range found {
		if e.host == "" {
			known := e.addrs
			e.addrs = nil
			s.keep(e, known)
			continue
		}
		at, ok := places[strings.ToLower(e.host)]
		if !ok {
			e.trouble = &dns.Answer{Question: s.question(e.host, dns.TypeA), Err: fmt.Errorf("more than %d exchangers", maxTargets)}
			continue
		}
		e.unknown = true
		e.resolved = [2]*dns.Answer(answers[at : at+2])
		for _, a := range e.resolved {
			s.takeAnswer(e, a)
		}
	}
}

// askForAddresses asks the questions. Once a quarter of the time has gone by, the answers
// that have come must do: one zone among the exchangers' that does not answer, or a server
// that does not answer for AAAA, must not cost every delivery the whole of it. The time that
// a question waits for a socket of ours does not count.
func (s *search) askForAddresses(ctx context.Context, questions []dns.Question) []*dns.Answer {
	if len(questions) == 0 {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ctx, share := s.share(ctx, 4, hurriedSRV)
	defer share.Stop()
	arrivals := dns.Start(ctx, s.Resolver, questions)
	s.waitForTexts()
	answers := make([]*dns.Answer, len(questions))
	found, late := false, false
	for left := len(questions); left > 0; {
		select {
		case arrival := <-arrivals:
			left--
			answers[arrival.Index] = arrival.Answer
			found = found || arrival.Answer.Len() > 0
		case <-share.C:
			late = true
		}
		if found && late {
			cancel()
		}
	}
	s.note(answers...)
	return answers
}

// takeAnswer takes from one answer what it says about e.
func (s *search) takeAnswer(e *exchanger, a *dns.Answer) {
	s.keep(e, a.Addrs)
	if a.More > 0 && !e.ours.IsValid() {
		for addr := range a.All() {
			s.compare(e, addr)
		}
	}
	e.unknown = e.unknown && a.Err == dns.ErrNoName
	if a.Failed() {
		e.trouble = a
	}
}

// keep adds the first of addrs to e's, and notes if any of them is ours.
func (s *search) keep(e *exchanger, addrs []netip.Addr) {
	for i, addr := range addrs {
		s.compare(e, addr)
		if i < maxAddrs && !slices.Contains(e.addrs, addr) {
			e.addrs = append(e.addrs, addr)
		}
	}
}

// compare notes the first address of e that is ours.
func (s *search) compare(e *exchanger, addr netip.Addr) {
	if !e.ours.IsValid() && (addr.IsUnspecified() || s.request.Ours != nil && s.request.Ours(addr)) {
		e.ours = addr
	}
}
