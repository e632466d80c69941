package route

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"path"
	"slices"
	"time"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/control/domain"
	"nightmare.mail/mxf/remote/dns"
)

// hurriedSRV and hurriedMX stand for a quarter and a half of the time where that has no limit.
const (
	hurriedSRV = 5 * time.Second
	hurriedMX  = 10 * time.Second
)

// MXPS: a preference in this range names a slice, which is a protocol.
const (
	firstSliced = 12800
	lastSliced  = 13055
	sliceCount  = 16
	otherSlice  = 0 // that of every other preference
)

func (s *search) question(name string, t dns.Type) dns.Question {
	return dns.Question{Name: name, Type: t, Secure: s.Secure}
}

// services is the question where p is served for the host.
func (s *search) services(p *control.Protocol) dns.Question {
	return s.question("_"+p.Service+"._tcp."+s.result.Host.String(), dns.TypeSRV)
}

// ask looks up SRV of each usable protocol, and MX, at the same time, and returns when all
// are done. SRV is not waited for longer than a quarter of the time, because many name
// servers stumble over it. If it has given targets by then, MX has half of the time, so
// that there is time left for addresses. The time that a question waits for a socket of ours
// does not count.
func (s *search) ask(ctx context.Context) (services []*dns.Answer, mx *dns.Answer) {
	questions := make([]dns.Question, len(s.usable))
	for i, p := range s.usable {
		questions[i] = s.services(p)
	}
	forSRV, cancelSRV := context.WithCancelCause(ctx)
	defer cancelSRV(nil)
	forSRV, quarter := s.share(forSRV, 4, hurriedSRV)
	defer quarter.Stop()
	forMX, cancelMX := context.WithCancel(ctx)
	defer cancelMX()
	forMX, half := s.share(forMX, 2, hurriedMX)
	defer half.Stop()
	srvArrivals := dns.Start(forSRV, s.Resolver, questions)
	mxArrivals := dns.Start(forMX, s.Resolver, []dns.Question{s.question(s.result.Host.String(), dns.TypeMX)})

	services = make([]*dns.Answer, len(questions))
	gaveTargets, late := false, false
	for left := len(services); left > 0 || mx == nil; {
		select {
		case srv := <-srvArrivals:
			left--
			services[srv.Index] = srv.Answer
			gaveTargets = gaveTargets || len(srv.Answer.SRV) > 0
		case arrival := <-mxArrivals:
			mx = arrival.Answer
			if isNullMX(mx) {
				cancelSRV(nil)
			}
		case <-quarter.C:
			cancelSRV(context.DeadlineExceeded)
		case <-half.C:
			late = true
		}
		if late && gaveTargets && left == 0 {
			cancelMX()
		}
	}
	s.note(services...)
	s.note(mx)
	return services, mx
}

// share gives lookups one part in n of the time, or unlimited where that has no limit.
func (s *search) share(ctx context.Context, n, unlimited time.Duration) (context.Context, *dns.Share) {
	if s.request.Limit > 0 {
		return dns.WithShare(ctx, s.request.Limit/n)
	}
	return dns.WithShare(ctx, unlimited)
}

// note takes answers into the result and traces them.
func (s *search) note(answers ...*dns.Answer) {
	s.result.Answers = append(s.result.Answers, answers...)
	if s.request.Trace == nil {
		return
	}
	for _, a := range answers {
		a.Trace(s.request.Trace)
	}
}

// offered returns a protocol that is not usable here and that the host, which
// declines what is usable, offers by SRV; nil if there is none. That it is not usable
// follows from our control files, and bounces nothing.
func (s *search) offered(ctx context.Context) *control.Protocol {
	for i := range s.Protocols {
		p := &s.Protocols[i]
		if p.RelayOnly() || slices.Contains(s.usable, p) {
			continue
		}
		a := (<-dns.Start(ctx, s.Resolver, []dns.Question{s.services(p)})).Answer
		s.note(a)
		if slices.ContainsFunc(a.SRV, func(srv dns.SRV) bool { return srv.Target != "." }) {
			return p
		}
	}
	return nil
}

// isNullMX reports whether the host says that it takes no mail (RFC 7505).
func isNullMX(mx *dns.Answer) bool { return len(mx.MX) == 1 && mx.MX[0].Exchanger == "." }

// fromSRV returns the exchangers that an answer names for p, and whether it has any records
// that count: those of a port where p is not spoken do not. A single record with
// the target "." puts p on the list of those declined.
func (s *search) fromSRV(p *control.Protocol, a *dns.Answer) (found []*exchanger, counts bool) {
	if len(a.SRV) == 1 && a.SRV[0].Target == "." {
		s.result.Declined = append(s.result.Declined, p)
		s.tracef("%s is declined by SRV %s", p.Service, a.Question.Name)
		return nil, false
	}
	for _, srv := range orderSRV(a.SRV, s.rand) {
		why := fmt.Sprintf("SRV %d %d %s", srv.Priority, srv.Weight, a.Question.Name)
		host, err := domain.HostName(srv.Target)
		if srv.Port != p.Port && speaksFirst(p) {
			s.drop(withPort(srv), why, "%s, whose client speaks first, goes to port %d alone", p.Service, p.Port)
			continue
		}
		counts = true
		if err != nil || srv.Port == 0 {
			s.drop(withPort(srv), why, "not a host")
			continue
		}
		found = append(found, &exchanger{
			host: host, rank: "SRV " + p.Service, standing: srv.Priority, namedBy: a,
			ways: []way{{protocol: p, port: srv.Port, why: why, foreign: true}},
		})
	}
	return found, counts
}

func withPort(srv dns.SRV) string { return fmt.Sprintf("%s port %d", srv.Target, srv.Port) }

// speaksFirst reports whether p's client sends its lines before it has heard
// anything, and in the clear, as QMTP's does. Whoever names address and port of
// such a protocol has us say his lines to any service that reads lines, in our
// name. Inside TLS no other service understands them. Of protocols that are not
// ours only SMTP, and what can begin TLS in mid-conversation, is known to wait for
// a greeting.
func speaksFirst(p *control.Protocol) bool {
	switch program := path.Base(p.Program); {
	case p.Implicit, program == control.SMTPProgram:
		return false
	case program == control.QMTPProgram, p.Service == "qmtp":
		return true
	}
	return !p.Explicit && p.Service != "smtp"
}

// shuffled returns a shuffled copy of records, because answers are shared.
func shuffled[R any](records []R, rnd *rand.Rand) []R {
	records = slices.Clone(records)
	rnd.Shuffle(len(records), func(i, j int) { records[i], records[j] = records[j], records[i] })
	return records
}

// orderSRV returns records in the order of RFC 2782: by priority, and among
// equals drawn by weight.
func orderSRV(records []dns.SRV, rnd *rand.Rand) []dns.SRV {
	records = shuffled(records, rnd)
	// Those without weight come first, so that they have a very small chance.
	slices.SortStableFunc(records, func(a, b dns.SRV) int {
		return cmp.Or(cmp.Compare(a.Priority, b.Priority), cmp.Compare(min(a.Weight, 1), min(b.Weight, 1)))
	})
	for rest := records; len(rest) > 1; {
		end, sum := 0, 0
		for end < len(rest) && rest[end].Priority == rest[0].Priority {
			sum += int(rest[end].Weight)
			end++
		}
		for drawn := range end {
			pick, running, chosen := rnd.IntN(sum+1), 0, drawn
			for running = int(rest[chosen].Weight); running < pick; running += int(rest[chosen].Weight) {
				chosen++
			}
			srv := rest[chosen]
			copy(rest[drawn+1:chosen+1], rest[drawn:chosen])
			rest[drawn] = srv
			sum -= int(srv.Weight)
		}
		rest = rest[end:]
	}
	return records
}

// fromMX returns the exchangers that an answer names, with the protocols of their slices.
func (s *search) fromMX(a *dns.Answer) []*exchanger {
	var found []*exchanger
	for _, mx := range orderMX(a.MX, s.rand) {
		host, err := domain.HostName(mx.Exchanger)
		if err != nil {
			s.drop(mx.Exchanger, whyMX(mx.Preference), "not a host")
			continue
		}
		ways := s.waysOf(mx.Preference)
		if len(ways) == 0 {
			s.drop(host, whyMX(mx.Preference), "there is no protocol for it")
			continue
		}
		found = append(found, &exchanger{host: host, rank: "MX", standing: mx.Preference, ways: ways, namedBy: a})
	}
	return found
}

func whyMX(preference uint16) string { return fmt.Sprintf("MX %d", preference) }

// orderMX returns records by preference, equals shuffled (RFC 5321 section 5.1).
func orderMX(records []dns.MX, rnd *rand.Rand) []dns.MX {
	records = shuffled(records, rnd)
	slices.SortStableFunc(records, func(a, b dns.MX) int { return cmp.Compare(a.Preference, b.Preference) })
	return records
}

// sliceOf returns the MXPS slice of an MX preference, and whether it names one.
func sliceOf(preference uint16) (slice int, named bool) {
	if preference < firstSliced || preference > lastSliced {
		return otherSlice, false
	}
	return (int(preference) - firstSliced) % sliceCount, true
}

// waysOf returns the protocols for an exchanger with that MX preference: its
// slice's, then slice 0's.
func (s *search) waysOf(preference uint16) []way {
	slice, named := sliceOf(preference)
	why := whyMX(preference)
	fallback := why
	var ways []way
	if named {
		fallback = fmt.Sprintf("%s (slice 0)", why)
		if slice != otherSlice {
			if p := s.protocolOf(slice); p != nil {
				ways = append(ways, s.ownPort(p, fmt.Sprintf("%s (slice %d)", why, slice)))
			} else {
				fallback = fmt.Sprintf("%s (nothing for slice %d)", why, slice)
			}
		}
	}
	if p := s.protocolOf(otherSlice); p != nil {
		w := s.ownPort(p, fallback)
		w.twin = len(ways) > 0
		ways = append(ways, w)
	}
	return ways
}

// ownPort is the way to speak p at its own port, with a host that a zone, or the
// sender, has named.
func (s *search) ownPort(p *control.Protocol, why string) way {
	return way{protocol: p, port: p.Port, why: why, foreign: p != s.mail}
}

// protocolOf returns the first protocol in file order that has the slice, is
// usable, and is not declined by the host; nil if there is none.
func (s *search) protocolOf(slice int) *control.Protocol {
	for _, p := range s.usable {
		if p.Slice == slice && !slices.Contains(s.result.Declined, p) {
			return p
		}
	}
	return nil
}
