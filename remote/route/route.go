// Package route finds where a message for a host is to go: the candidates, in the order in
// which they are to be tried, each with its reason. This is how:
//
//  1. The host is an address literal, or a domain that is turned into A-labels.
//  2. The routes files of the protocols are asked, in the order of control/protocols. If
//     any names a relay, the relays are the candidates. But routes of the empty domain stand
//     behind control/senderroutes, which goes by the envelope sender. A relay at port 465 of
//     SMTP is spoken to with implicit TLS (RFC 8314).
//  3. Otherwise an address literal is its own only candidate, in every protocol that has a
//     slice. For a domain SRV of every usable protocol and MX are looked up at once; protocols
//     that are for relays alone are left out. A null
//     MX is the end. Candidates are those from SRV, in RFC 2782 order (plain QMTP at its own
//     port alone), then those from MX by preference, each in the protocol of its MXPS slice
//     and then, as its twin, in that of slice 0. Without SRV and MX the host itself is the
//     candidate in every usable protocol. One that the host declines by SRV (the target ".")
//     is not used.
//     What is asked for beside them is TXT of the policy domain, if the caller wants that.
//  4. Names become addresses, those of the first thirty exchangers, all at once. Exchangers
//     at which we ourselves stand are dropped with all of the same or worse standing.
//
// It connects to nobody but name servers. What it goes by:
//
//	RFC 2782              SRV
//	RFC 5321 section 5    MX
//	RFC 7505              null MX
//	RFC 5890 to 5895      names beyond ASCII, as UTS 46 maps them
//	MXPS                  slices (cr.yp.to/proto/mxps.txt)
package route

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/control/domain"
	"nightmare.mail/mxf/remote/dns"
)

// maxDropped bounds Result.Dropped.
const maxDropped = 50

// A Finder finds candidates. It is not changed by that: any number of deliveries may use it
// at a time.
type Finder struct {
	Protocols []control.Protocol // in file order
	Resolver  dns.Resolver
	Secure    bool // name servers are asked which answers they have validated, see dns.Question

	// BySender returns the line of control/senderroutes that holds for an envelope sender, nil
	// if there is none. Nil: there is no such file.
	BySender func(sender string) *control.Relay
}

// A Request is what one delivery wants to know.
type Request struct {
	Host   string                       // the HOST argument
	Sender string                       // the envelope sender; empty: the null sender
	Usable func(*control.Protocol) bool // reports whether a protocol can be spoken, as far as TLS goes; nil: all can
	Ours   func(netip.Addr) bool        // reports whether an address is in ipme; nil: none is
	Limit  time.Duration                // the time that the context gives to all lookups together, of which SRV and the like have a share; 0: none
	Rand   *rand.Rand                   // for shuffles and weights; used by this request alone; nil: seeded by the system
	Trace  func(line string)            // nil: no trace; called from the caller's goroutine only

	// Texts are prefixes, without a final dot: TXT is asked for at each of them below each
	// policy domain (see Result.PolicyDomain), with SRV and MX or, of a relay, with its
	// addresses. As SRV they are not waited for longer than a quarter of Limit, 5 s where that
	// is 0.
	Texts []string
	// OnTexts is called with the answers of one policy domain, as they are in Result.Texts,
	// when they have come and addresses are still looked up. Nil: nobody is told. It is called
	// from the caller's goroutine only, and is to return soon.
	OnTexts func(domain string, answers []*dns.Answer)
}

// A Result is all that was learnt about a host.
type Result struct {
	Host       domain.Domain
	Routes     []Route             // what the routes files say
	Answers    []*dns.Answer       // in the order in which they were asked for
	Declined   []*control.Protocol // those that the host declines by SRV
	Candidates []Candidate         // in the order in which they are to be tried

	// Texts has, by policy domain, an answer for each of Request.Texts, in that order. It is nil
	// where the search ended before addresses were looked up.
	Texts map[string][]*dns.Answer

	Dropped []Drop // what is no candidate, the first 50
	More    int    // number of those beyond Dropped
}

// A Route is a line of a routes file that holds for the host, or of senderroutes.
type Route struct {
	File     string            // its name in control, for example smtproutes
	Protocol *control.Protocol // by which its relay is spoken to
	Relay    *control.Relay
	Use      Use
}

// A Use is what comes of a route.
type Use int

// The uses.
const (
	Taken     Use = iota // it is a candidate
	Empty                // it has no relay: the host is looked up as usual
	Off                  // the protocol is not usable
	Overruled            // it is of the empty domain, and senderroutes has a line for the sender
)

// Place is the file and line of the route, as reports have it.
func (r *Route) Place() string { return fmt.Sprintf("control/%s:%d", r.File, r.Relay.Line) }

// A Drop is an exchanger that is not a candidate.
type Drop struct {
	Exchanger string // as its record spells it, with the port of SRV; or its address
	Why       string // why it would be a candidate, as in Candidate
	Reason    string // why it is not a candidate
	Ours      bool   // it has an address of this host
}

func (d *Drop) String() string { return d.Exchanger + " (" + d.Why + "): " + d.Reason }

// A search is one use of a Finder.
type search struct {
	*Finder
	request Request
	result  *Result
	rand    *rand.Rand
	usable  []*control.Protocol // those that are not for relays alone, in file order
	mail    *control.Protocol   // the one that every MX record leads to, unless its host declines it; may be nil
	texts   *texts              // nil: none are asked for
	off     *Route              // the first relay that is not used because its protocol is not usable
}

// An exchanger is a host that takes mail for the domain, with the ways in which
// it is to be spoken to.
type exchanger struct {
	host     string       // as its record spells it; empty: addrs are known
	addrs    []netip.Addr // at least one, unless its lookups failed
	ways     []way        // in the order in which they are tried
	rank     string       // exchangers of the same rank are compared by standing
	standing uint16       // preference or priority: lower is better
	relay    *Route       // what names it as a relay, which is not subject to loop cutting; nil for others
	namedBy  *dns.Answer  // see Candidate.NamedBy

	resolved [2]*dns.Answer // see Candidate.Resolved

	ours    netip.Addr  // an address of it that is ours
	trouble *dns.Answer // a lookup of its addresses that failed for now
	unknown bool        // its name does not exist
}

// A way is a protocol, and a port, to try with an exchanger.
type way struct {
	protocol *control.Protocol
	port     uint16
	why      string
	twin     bool
	foreign  bool // see Candidate.ForeignPort
}

// Find finds the candidates for a host. It ends with ctx at the latest.
//
// There is always a Result: with one candidate at least, or, beside an error, with what was
// learnt until then. The error is an *Error.
func (f *Finder) Find(ctx context.Context, r Request) (*Result, error) {
	s := &search{Finder: f, request: r, result: new(Result), rand: r.Rand}
	if s.rand == nil {
		s.rand = rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	}
	err := s.find(ctx)
	var e *Error
	if s.off != nil && errors.As(err, &e) && e.Permanent() {
		// The host that the DNS does not know may well be known to the relay.
		err = controlFiles("%s: expected TLS for this relay, and there is none; without the relay there is no way for this mail", s.off.Place())
	}
	return s.result, err
}

func (s *search) find(ctx context.Context) error {
	var err error
	if s.result.Host, err = ParseHost(s.request.Host); err != nil {
		return err
	}
	for i := range s.Protocols {
		if p := &s.Protocols[i]; !p.RelayOnly() && s.canSpeak(p) {
			s.usable = append(s.usable, p)
		}
	}
	s.mail = s.protocolOf(otherSlice)
	relays, err := s.relays()
	switch {
	case err != nil:
		return err
	case len(relays) > 0:
		s.startTexts(ctx, namesOf(relays))
		defer s.stopTexts()
		return s.resolve(ctx, relays, nil)
	case len(s.usable) == 0:
		return s.nothingUsable()
	case s.result.Host.Addr().IsValid():
		return s.literal(ctx)
	default:
		return s.domain(ctx)
	}
}

// namesOf returns the names that relays have, each once.
func namesOf(relays []*exchanger) []string {
	var names []string
	for _, e := range relays {
		if name := e.relay.Relay.Name(); e.host != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

func (s *search) canSpeak(p *control.Protocol) bool {
	return s.request.Usable == nil || s.request.Usable(p)
}

// nothingUsable is the error of a host that no route gives a relay for.
func (s *search) nothingUsable() error {
	for i := range s.Protocols {
		if !s.Protocols[i].RelayOnly() {
			return controlFiles("control/protocols: no protocol is usable while TLS is off")
		}
	}
	return controlFiles("control/protocols: every protocol is for relays alone, and no route gives one for %q", s.request.Host)
}

// relays returns the relays that the control files give for the host and the sender.
func (s *search) relays() ([]*exchanger, error) {
	routes, byHost, err := s.routes()
	if err != nil {
		return nil, err
	}
	if !byHost && s.BySender != nil {
		if relay := s.BySender(s.request.Sender); relay != nil {
			return s.bySender(relay, routes)
		}
	}
	return s.take(routes)
}

// routes returns what the routes files have for the host, and whether any of it is more than
// a line of the empty domain.
func (s *search) routes() (routes []Route, byHost bool, err error) {
	for i := range s.Protocols {
		p := &s.Protocols[i]
		relay, err := p.Routes.Lookup(s.result.Host.String())
		if err != nil {
			return nil, false, &Error{Kind: ControlFiles, Reason: err.Error(), Err: err}
		}
		if relay != nil {
			byHost = byHost || !relay.Wildcard
			routes = append(routes, Route{File: p.Service + "routes", Protocol: p, Relay: relay})
		}
	}
	return routes, byHost, nil
}

// bySender returns the relay of a line of senderroutes, the only candidate, or none where the
// line is empty; package control has seen to it that there is SMTP for a relay. Routes of the
// empty domain are passed over in both cases.
func (s *search) bySender(relay *control.Relay, passed []Route) ([]*exchanger, error) {
	r := Route{File: senderRoutes, Protocol: s.service(control.SMTP), Relay: relay}
	for i := range passed {
		passed[i].Use = Overruled
		s.tracef("%s is passed over: %s holds for the sender", passed[i].why(), r.Place())
	}
	s.result.Routes = append(s.result.Routes, passed...)
	return s.take([]Route{r})
}

// take returns the exchangers of routes, those that have a relay and a usable protocol.
func (s *search) take(routes []Route) ([]*exchanger, error) {
	var relays []*exchanger
	for _, r := range routes {
		if submissions := s.service(control.Submissions); r.isImplicit() && submissions != nil {
			r.Protocol = submissions
		}
		switch {
		case r.isEmpty():
			r.Use = Empty
			s.tracef("%s is empty: %s is looked up as usual", r.why(), r.looked())
		case s.canSpeak(r.Protocol):
			if r.File == senderRoutes {
				s.tracef("route %s %s port %d", r.Place(), r.Relay.Name(), r.port())
			}
			relays = append(relays, newRelay(&r))
		case r.Protocol.RelayOnly(), r.File == senderRoutes:
			return nil, controlFiles("%s: expected TLS for this relay, which is spoken to inside it, and there is none: control/trustanchors names nothing", r.Place())
		default:
			r.Use = Off
			s.tracef("%s is not used: TLS is off", r.why())
			s.off = cmp.Or(s.off, &r)
		}
		s.result.Routes = append(s.result.Routes, r)
	}
	return relays, nil
}

// service returns the protocol of a service, nil if there is none.
func (s *search) service(name string) *control.Protocol {
	for i := range s.Protocols {
		if p := &s.Protocols[i]; p.Service == name {
			return p
		}
	}
	return nil
}

// senderRoutes is the file of routes by sender.
const senderRoutes = "senderroutes"

// isImplicit reports whether the relay of r is one of submissions although its file is not.
func (r *Route) isImplicit() bool {
	return r.Relay.Port == control.SubmissionsPort && (r.File == "smtproutes" || r.File == senderRoutes)
}

func (r *Route) isEmpty() bool { return r.Relay.Name() == "" }

func (r *Route) port() uint16 { return cmp.Or(r.Relay.Port, r.Protocol.Port) }

// why is what makes the relay a candidate, as a trace has it.
func (r *Route) why() string { return fmt.Sprintf("%s line %d", r.File, r.Relay.Line) }

// looked is what an empty route leaves to the DNS.
func (r *Route) looked() string {
	if r.File == senderRoutes {
		return "the host"
	}
	return r.Protocol.Service
}

func newRelay(r *Route) *exchanger {
	e := &exchanger{host: r.Relay.Host, relay: r, ways: []way{{protocol: r.Protocol, port: r.port(), why: r.why()}}}
	if r.Relay.Addr.IsValid() {
		e.host, e.addrs = "", []netip.Addr{r.Relay.Addr}
	}
	return e
}

func (s *search) literal(ctx context.Context) error {
	e := &exchanger{addrs: []netip.Addr{s.result.Host.Addr()}}
	for _, p := range s.usable {
		if p.Slice >= 0 {
			e.ways = append(e.ways, s.ownPort(p, "address literal"))
		}
	}
	if len(e.ways) == 0 {
		return controlFiles("control/protocols: no usable protocol has a slice, which an address literal needs")
	}
	return s.resolve(ctx, []*exchanger{e}, nil)
}

// domain looks up SRV and MX, and reads from them who takes mail for the host.
func (s *search) domain(ctx context.Context) error {
	s.startTexts(ctx, []string{s.result.Host.String()})
	defer s.stopTexts()
	services, mx := s.ask(ctx)
	if isNullMX(mx) {
		return s.fail(NullMX)
	}
	var found []*exchanger
	named := len(mx.MX) > 0
	for i, p := range s.usable {
		exchangers, counts := s.fromSRV(p, services[i])
		found = append(found, exchangers...)
		named = named || counts
	}
	var trouble *dns.Answer
	switch denied := mx.Err != nil && !mx.Failed(); {
	case mx.Err == nil:
	case len(found) > 0: // what SRV gave shows that the host does exist
		if !denied {
			trouble = mx
		}
	case denied && len(s.result.Declined) == len(s.usable): // SRV shows that the host does exist
	case denied:
		// Some resolvers deny wrongly: addresses decide.
		err := s.resolve(ctx, s.itself(mx), nil)
		var e *Error
		if errors.As(err, &e) && e.Kind == NoAddress {
			return s.fail(NoSuchHost)
		}
		return err
	default:
		return couldNotLookUp(mx)
	}
	found = append(found, s.fromMX(mx)...)
	if !named {
		found = s.itself(mx)
	}
	if len(found) == 0 && named && s.mail == nil {
		return controlFiles("control/protocols: no usable protocol has slice 0, which MX records need")
	}
	if len(found) == 0 && len(s.result.Declined) > 0 {
		if p := s.offered(ctx); p != nil {
			return controlFiles("control/protocols: %s takes mail by %s, which is not usable while TLS is off", s.request.Host, p.Service)
		}
	}
	return s.resolve(ctx, found, trouble)
}

// itself returns the host as its own exchanger, with every protocol that it does
// not decline. mx is the answer without MX records.
func (s *search) itself(mx *dns.Answer) []*exchanger {
	e := &exchanger{host: s.result.Host.String(), namedBy: mx}
	for _, p := range s.usable {
		if !slices.Contains(s.result.Declined, p) {
			e.ways = append(e.ways, s.ownPort(p, "no MX or SRV: the host itself"))
		}
	}
	if len(e.ways) == 0 {
		return nil
	}
	return []*exchanger{e}
}

// fail is an error about the host.
func (s *search) fail(kind Kind) error { return &Error{Kind: kind, Host: s.request.Host} }

func couldNotLookUp(a *dns.Answer) *Error {
	return &Error{Kind: LookupFailed, Host: a.Question.Name, Reason: a.Question.Type.String() + ": " + a.Err.Error(), Err: a.Err}
}

func (s *search) tracef(format string, args ...any) {
	if s.request.Trace != nil {
		s.request.Trace(fmt.Sprintf(format, args...))
	}
}

// drop notes why an exchanger is not a candidate. A zone may have thousands of those.
func (s *search) drop(exchanger, why, format string, args ...any) {
	if len(s.result.Dropped) == maxDropped {
		s.result.More++
		return
	}
	d := Drop{Exchanger: exchanger, Why: why, Reason: fmt.Sprintf(format, args...)}
	s.result.Dropped = append(s.result.Dropped, d)
	s.tracef("dropped %s", &d)
}
