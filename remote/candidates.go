package remote

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/remote/report"
)

const (
	// maxTargets bounds the exchangers whose addresses are looked up for one delivery:
	// a stranger's zone costs neither memory nor time. One that has more is cut where
	// it is worst. Twenty addresses are tried.
	maxTargets = 30
	// maxDroppedTraced bounds the trace lines on exchangers that are not candidates.
	maxDroppedTraced = 50

	// hurriedSRV and hurriedMX stand for a quarter and a half of timeoutdns when
	// that sets no limit.
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

// A Finder finds where a message is to go, and why.
type Finder struct {
	Settings *control.Settings
	Resolver *Resolver
	Ours     func(netip.Addr) bool        // reports whether an address is in ipme; nil: none is
	Rand     *rand.Rand                   // for shuffles and weights; nil: seeded by the system
	Usable   func(*control.Protocol) bool // reports whether a protocol can be spoken
	Trace    func(line string)            // nil: no trace; called from the caller's goroutine only
}

// An exchanger is a host that takes mail for the domain, with the ways in which
// it is to be spoken to.
type exchanger struct {
	host     string       // as its record spells it; empty: addrs are known
	addrs    []netip.Addr // at least one, unless its lookups failed
	ways     []way        // in the order in which they are tried
	rank     string       // exchangers of the same rank are compared by standing
	standing uint16       // preference or priority: lower is better
	route    string       // the file and line that name it as a relay, which is not subject to loop cutting

	ours    netip.Addr // an address of it that is ours
	trouble *lookup    // a lookup of its addresses that failed for now
	unknown bool       // its name does not exist
}

// A way is a protocol, and a port, to try with an exchanger.
type way struct {
	protocol *control.Protocol
	port     uint16
	why      string
	twin     bool
	foreign  bool // see Candidate.ForeignPort
}

// A search is one use of a Finder.
type search struct {
	*Finder
	host    Host
	given   string              // the host as the caller spells it
	usable  []*control.Protocol // in file order
	mail    *control.Protocol   // the one that every MX record leads to, unless its host declines it; may be nil
	out     []*control.Protocol // those that the host declines by SRV
	idle    string              // file and line of a relay that is not used because there is no TLS
	rand    *rand.Rand
	dropped int // exchangers that are not candidates
}

// Candidates returns the exchangers for host, the HOST argument, in the order in
// which they are to be tried, at least one. It takes timeoutdns at most.
//
// The error is a *report.Error of case BadHost, NoSuchHost, LookupFailed, NullMX,
// NoAddress, OnlyOurselves, or, where that follows from our control files,
// RelayUnknown, RelayNoAddress or ControlFiles, which are temporary.
func (f *Finder) Candidates(ctx context.Context, host string) ([]Candidate, error) {
	s := &search{Finder: f, given: host, rand: f.Rand}
	if s.rand == nil {
		s.rand = rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	}
	var err error
	if s.host, err = ParseHost(host); err != nil {
		return nil, err
	}
	for i := range f.Settings.Protocols {
		if p := &f.Settings.Protocols[i]; f.Usable(p) {
			s.usable = append(s.usable, p)
		}
	}
	s.mail = s.protocolOf(otherSlice)
	if len(s.usable) == 0 {
		return nil, unreadable("control/protocols: no protocol is usable while TLS is off")
	}
	if f.Settings.TimeoutDNS > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, f.Settings.TimeoutDNS)
		defer cancel()
	}
	relays, err := s.relays()
	if err != nil {
		return nil, err
	}
	if len(relays) > 0 {
		return s.resolve(ctx, relays, nil)
	}
	find := s.domain
	if s.host.Addr.IsValid() {
		find = s.literal
	}
	candidates, err := find(ctx)
	if err != nil && s.idle != "" && report.For(err).Letter == report.Permanent {
		// The host that the DNS does not know may well be known to the relay.
		return nil, unreadable(s.idle + ": expected TLS for this relay, and there is none; without the relay there is no way for this mail")
	}
	return candidates, err
}

// relays returns the relays that the routes files give for the host.
func (s *search) relays() ([]*exchanger, error) {
	var relays []*exchanger
	for i := range s.Settings.Protocols {
		p := &s.Settings.Protocols[i]
		relay, err := p.Routes.Lookup(s.host.Name)
		if err != nil {
			return nil, &report.Error{Case: report.ControlFiles, Facts: report.Facts{Reason: err.Error()}, Err: err}
		}
		if relay == nil {
			continue
		}
		why := fmt.Sprintf("%sroutes line %d", p.Service, relay.Line)
		switch {
		case relay.Host == "" && !relay.Addr.IsValid():
			s.tracef("%s is empty: %s is looked up as usual", why, p.Service)
		case !s.Usable(p):
			s.tracef("%s is not used: TLS is off", why)
			s.idle = cmp.Or(s.idle, routeLine(p, relay))
		default:
			relays = append(relays, newRelay(p, relay, why))
		}
	}
	return relays, nil
}

func newRelay(p *control.Protocol, relay *control.Relay, why string) *exchanger {
	e := &exchanger{host: relay.Host, route: routeLine(p, relay), ways: []way{{protocol: p, port: cmp.Or(relay.Port, p.Port), why: why}}}
	if relay.Addr.IsValid() {
		e.host, e.addrs = "", []netip.Addr{relay.Addr}
	}
	return e
}

// routeLine is where relay stands, as reports have it.
func routeLine(p *control.Protocol, relay *control.Relay) string {
	return fmt.Sprintf("control/%sroutes:%d", p.Service, relay.Line)
}

func (s *search) literal(ctx context.Context) ([]Candidate, error) {
	e := &exchanger{addrs: []netip.Addr{s.host.Addr}}
	for _, p := range s.usable {
		if p.Slice >= 0 {
			e.ways = append(e.ways, s.ownPort(p, "address literal"))
		}
	}
	if len(e.ways) == 0 {
		return nil, unreadable("control/protocols: no usable protocol has a slice, which an address literal needs")
	}
	return s.resolve(ctx, []*exchanger{e}, nil)
}

// domain looks up SRV and MX, and reads from them who takes mail for the host.
func (s *search) domain(ctx context.Context) ([]Candidate, error) {
	services := make([]*lookup, len(s.usable))
	for i, p := range s.usable {
		services[i] = &lookup{name: "_" + p.Service + "._tcp." + s.host.Name, qtype: dns.TypeSRV}
	}
	mx := &lookup{name: s.host.Name, qtype: dns.TypeMX}
	s.ask(ctx, services, mx)

	if isNullMX(mx) {
		return nil, s.fail(report.NullMX)
	}
	var found []*exchanger
	named := len(mx.records) > 0
	for i, p := range s.usable {
		exchangers, counts := s.fromSRV(p, services[i])
		found = append(found, exchangers...)
		named = named || counts
	}
	var trouble *lookup
	switch {
	case mx.err == nil:
	case len(found) > 0: // what SRV gave shows that the host does exist
		if mx.err != errNoName {
			trouble = mx
		}
	case mx.err == errNoName && len(s.out) == len(s.usable): // SRV shows that the host does exist
	case mx.err == errNoName:
		// Some resolvers deny wrongly: addresses decide.
		candidates, err := s.resolve(ctx, s.itself(), nil)
		var e *report.Error
		if errors.As(err, &e) && e.Case == report.NoAddress {
			err = s.fail(report.NoSuchHost)
		}
		return candidates, err
	default:
		return nil, s.couldNotLookUp(mx)
	}
	found = append(found, s.fromMX(mx)...)
	if !named {
		found = s.itself()
	}
	if len(found) == 0 && named && s.mail == nil {
		return nil, unreadable("control/protocols: no usable protocol has slice 0, which MX records need")
	}
	if len(found) == 0 && len(s.out) > 0 {
		if p := s.offered(ctx); p != nil {
			return nil, unreadable(fmt.Sprintf("control/protocols: %s takes mail by %s, which is not usable while TLS is off", s.given, p.Service))
		}
	}
	return s.resolve(ctx, found, trouble)
}

// offered returns a protocol that is not usable here and that the host, which
// declines what is usable, offers by SRV; nil if there is none. That it is not usable
// follows from our control files, and bounces nothing.
func (s *search) offered(ctx context.Context) *control.Protocol {
	for i := range s.Settings.Protocols {
		p := &s.Settings.Protocols[i]
		if s.Usable(p) {
			continue
		}
		l := &lookup{name: "_" + p.Service + "._tcp." + s.host.Name, qtype: dns.TypeSRV}
		<-s.Resolver.start(ctx, []*lookup{l})
		s.traceLookup(l)
		for _, rr := range l.records {
			if srv, ok := rr.(*dns.SRV); ok && srv.Target != "." {
				return p
			}
		}
	}
	return nil
}

// ask does the lookups for SRV and MX at the same time, and returns when all are
// done. SRV is not waited for longer than a quarter of timeoutdns, because many
// name servers stumble over it. If it has given targets by then, MX has half of
// timeoutdns, so that there is time left for addresses.
func (s *search) ask(ctx context.Context, services []*lookup, mx *lookup) {
	began := time.Now()
	forSRV, cancelSRV := context.WithTimeout(ctx, s.share(4, hurriedSRV))
	defer cancelSRV()
	forMX, cancelMX := context.WithCancel(ctx)
	defer cancelMX()
	srvDone := s.Resolver.start(forSRV, services)
	mxDone := s.Resolver.start(forMX, []*lookup{mx})
	gaveTargets := false
	for srvLeft, mxLeft := len(services), 1; srvLeft+mxLeft > 0; {
		select {
		case l := <-srvDone:
			srvLeft--
			gaveTargets = gaveTargets || len(l.records) > 0
			if srvLeft == 0 && gaveTargets {
				hurry := time.AfterFunc(s.share(2, hurriedMX)-time.Since(began), cancelMX)
				defer hurry.Stop()
			}
		case <-mxDone:
			mxLeft--
			if isNullMX(mx) {
				cancelSRV()
			}
		}
	}
	for _, l := range services {
		s.traceLookup(l)
	}
	s.traceLookup(mx)
}

// share returns one part in n of timeoutdns, or unlimited when that is 0.
func (s *search) share(n time.Duration, unlimited time.Duration) time.Duration {
	if s.Settings.TimeoutDNS > 0 {
		return s.Settings.TimeoutDNS / n
	}
	return unlimited
}

// isNullMX reports whether the host says that it takes no mail (RFC 7505).
func isNullMX(l *lookup) bool {
	if len(l.records) != 1 {
		return false
	}
	mx, ok := l.records[0].(*dns.MX)
	return ok && mx.Mx == "."
}

// fromSRV returns the exchangers that l names for p, and whether l has any records
// that count: those of a port where p is not spoken do not. A single record with
// the target "." puts p on the list of those declined.
func (s *search) fromSRV(p *control.Protocol, l *lookup) (found []*exchanger, counts bool) {
	var records []*dns.SRV
	for _, rr := range l.records {
		if srv, ok := rr.(*dns.SRV); ok {
			records = append(records, srv)
		}
	}
	if len(records) == 1 && records[0].Target == "." {
		s.out = append(s.out, p)
		s.tracef("%s is declined by SRV %s", p.Service, l.name)
		return nil, false
	}
	for _, srv := range orderSRV(records, s.rand) {
		why := fmt.Sprintf("SRV %d %d %s", srv.Priority, srv.Weight, l.name)
		host, ok := targetName(srv.Target)
		if srv.Port != p.Port && speaksFirst(p) {
			s.drop("%s port %d (%s): %s, whose client speaks first, goes to port %d alone", srv.Target, srv.Port, why, p.Service, p.Port)
			continue
		}
		counts = true
		if !ok || srv.Port == 0 {
			s.drop("%s port %d (%s): not a host", srv.Target, srv.Port, why)
			continue
		}
		found = append(found, &exchanger{
			host: host, rank: "SRV " + p.Service, standing: srv.Priority,
			ways: []way{{protocol: p, port: srv.Port, why: why, foreign: true}},
		})
	}
	return found, counts
}

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

// orderSRV returns records in the order of RFC 2782: by priority, and among
// equals drawn by weight.
func orderSRV(records []*dns.SRV, rnd *rand.Rand) []*dns.SRV {
	records = slices.Clone(records)
	rnd.Shuffle(len(records), func(i, j int) { records[i], records[j] = records[j], records[i] })
	// Those without weight come first, so that they have a very small chance.
	slices.SortStableFunc(records, func(a, b *dns.SRV) int {
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

// fromMX returns the exchangers that l names, with the protocols of their slices.
func (s *search) fromMX(l *lookup) []*exchanger {
	var records []*dns.MX
	for _, rr := range l.records {
		if mx, ok := rr.(*dns.MX); ok {
			records = append(records, mx)
		}
	}
	var found []*exchanger
	for _, mx := range orderMX(records, s.rand) {
		host, ok := targetName(mx.Mx)
		if !ok {
			s.drop("%s (MX %d): not a host", mx.Mx, mx.Preference)
			continue
		}
		ways := s.waysOf(mx.Preference)
		if len(ways) == 0 {
			s.drop("%s (MX %d): there is no protocol for it", host, mx.Preference)
			continue
		}
		found = append(found, &exchanger{host: host, rank: "MX", standing: mx.Preference, ways: ways})
	}
	return found
}

// orderMX returns records by preference, equals shuffled (RFC 5321 section 5.1).
func orderMX(records []*dns.MX, rnd *rand.Rand) []*dns.MX {
	records = slices.Clone(records)
	rnd.Shuffle(len(records), func(i, j int) { records[i], records[j] = records[j], records[i] })
	slices.SortStableFunc(records, func(a, b *dns.MX) int { return cmp.Compare(a.Preference, b.Preference) })
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
	why := fmt.Sprintf("MX %d", preference)
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
		if p.Slice == slice && !slices.Contains(s.out, p) {
			return p
		}
	}
	return nil
}

// itself returns the host as its own exchanger, with every protocol that it does
// not decline.
func (s *search) itself() []*exchanger {
	e := &exchanger{host: s.host.Name}
	for _, p := range s.usable {
		if !slices.Contains(s.out, p) {
			e.ways = append(e.ways, s.ownPort(p, "no MX or SRV: the host itself"))
		}
	}
	if len(e.ways) == 0 {
		return nil
	}
	return []*exchanger{e}
}

// resolve looks up the addresses of found, cuts loops, and returns what is left
// as candidates. mx is the lookup for MX records if that one failed for now.
func (s *search) resolve(ctx context.Context, found []*exchanger, mx *lookup) ([]Candidate, error) {
	s.addresses(ctx, found)
	kept, cut := cutLoops(found)
	for _, e := range cut {
		if e.ours.IsValid() {
			s.drop("%s (%s): %s is ours", e.name(), e.ways[0].why, e.ours)
		} else {
			s.drop("%s (%s): no better than ourselves", e.name(), e.ways[0].why)
		}
	}
	trouble, relay := mx, (*exchanger)(nil)
	var candidates []Candidate
	for _, e := range kept {
		if len(e.addrs) == 0 && e.route != "" {
			relay = cmp.Or(relay, e)
		}
		switch {
		case len(e.addrs) > 0:
		case e.trouble != nil:
			trouble = cmp.Or(trouble, e.trouble)
			s.drop("%s (%s): its addresses could not be looked up", e.name(), e.ways[0].why)
			continue
		default:
			s.drop("%s (%s): no address", e.name(), e.ways[0].why)
			continue
		}
		for _, w := range e.ways {
			candidates = append(candidates, Candidate{
				Protocol: w.protocol, Host: e.host, Port: w.port, Addrs: e.addrs, Why: w.why, Twin: w.twin, ForeignPort: w.foreign,
			})
		}
	}
	if s.dropped > maxDroppedTraced {
		s.tracef("dropped %d more", s.dropped-maxDroppedTraced)
	}
	switch {
	case len(candidates) > 0:
		s.traceCandidates(candidates)
		return candidates, nil
	case relay != nil:
		return nil, s.noRelay(relay)
	case trouble != nil: // a better one than ourselves may yet be found
		return nil, s.couldNotLookUp(trouble)
	case len(cut) > 0:
		return nil, s.fail(report.OnlyOurselves)
	}
	return nil, s.fail(report.NoAddress)
}

// noRelay says that no relay has an address, by the first of them. Our own affairs
// are no reason to bounce the mail of others.
func (s *search) noRelay(e *exchanger) error {
	switch {
	case e.trouble != nil:
		err := s.couldNotLookUp(e.trouble)
		err.Facts.Detail = "It is the relay of " + e.route + "."
		return err
	case e.unknown:
		return &report.Error{Case: report.RelayUnknown, Facts: report.Facts{Host: e.host, Reason: e.route}}
	}
	return &report.Error{Case: report.RelayNoAddress, Facts: report.Facts{Host: e.host, Reason: e.route}}
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
		if e.route != "" || !e.ours.IsValid() {
			continue
		}
		if at, ok := best[e.rank]; !ok || e.standing < at {
			best[e.rank] = e.standing
		}
	}
	for _, e := range found {
		if at, ok := best[e.rank]; e.route != "" || !ok || e.standing < at {
			kept = append(kept, e)
		} else {
			cut = append(cut, e)
		}
	}
	return kept, cut
}

// addresses looks up A and AAAA of every exchanger that is known by name.
func (s *search) addresses(ctx context.Context, found []*exchanger) {
	targets := make(map[string][]*lookup, maxTargets)
	var lookups []*lookup
	for _, e := range found {
		name := strings.ToLower(e.host)
		if name == "" || targets[name] != nil || len(targets) == maxTargets {
			continue
		}
		pair := []*lookup{{name: name, qtype: dns.TypeAAAA}, {name: name, qtype: dns.TypeA}}
		targets[name] = pair
		lookups = append(lookups, pair...)
	}
	if len(lookups) > 0 {
		s.run(ctx, lookups)
	}
	for _, e := range found {
		if e.host == "" {
			known := e.addrs
			e.addrs = nil
			s.take(e, known)
			continue
		}
		pair, ok := targets[strings.ToLower(e.host)]
		if !ok {
			e.trouble = &lookup{name: e.host, qtype: dns.TypeA, err: fmt.Errorf("more than %d exchangers", maxTargets)}
		}
		e.unknown = ok
		for _, l := range pair {
			s.take(e, l.addrs)
			e.unknown = e.unknown && l.err == errNoName
			if l.err != nil && l.err != errNoName {
				e.trouble = l
			}
		}
	}
}

// run does the lookups for addresses. Once a quarter of timeoutdns has gone by,
// what there is must do: one dead zone among the exchangers', or a server that
// does not answer for AAAA, shall not cost every delivery the whole of it.
func (s *search) run(ctx context.Context, lookups []*lookup) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	hurry := time.NewTimer(s.share(4, hurriedSRV))
	defer hurry.Stop()
	done := s.Resolver.start(ctx, lookups)
	found, late := false, false
	for left := len(lookups); left > 0; {
		select {
		case l := <-done:
			left--
			found = found || len(l.records) > 0
		case <-hurry.C:
			late = true
		}
		if found && late {
			cancel()
		}
	}
	for _, l := range lookups {
		s.traceLookup(l)
	}
}

// take adds the first of addrs to e's, and notes if any of them is ours.
func (s *search) take(e *exchanger, addrs []netip.Addr) {
	for i, a := range addrs {
		if !e.ours.IsValid() && (a.IsUnspecified() || s.Ours != nil && s.Ours(a)) {
			e.ours = a
		}
		if i < maxKept && !slices.Contains(e.addrs, a) {
			e.addrs = append(e.addrs, a)
		}
	}
}

func (s *search) fail(c report.Case) error {
	return &report.Error{Case: c, Facts: report.Facts{Host: s.given}}
}

func (s *search) couldNotLookUp(l *lookup) *report.Error {
	return &report.Error{
		Case:  report.LookupFailed,
		Facts: report.Facts{Host: l.name, Reason: dns.TypeToString[l.qtype] + ": " + l.err.Error()},
		Err:   l.err,
	}
}

func (s *search) tracef(format string, args ...any) {
	if s.Trace != nil {
		s.Trace(fmt.Sprintf(format, args...))
	}
}

// drop traces why an exchanger is not a candidate. A zone may have thousands of those.
func (s *search) drop(format string, args ...any) {
	if s.dropped++; s.dropped <= maxDroppedTraced {
		s.tracef("dropped "+format, args...)
	}
}

func (s *search) traceLookup(l *lookup) {
	if s.Trace == nil {
		return
	}
	for _, note := range l.notes {
		if l.err == nil || note != l.err.Error() {
			s.tracef("lookup %s %s: %s", dns.TypeToString[l.qtype], l.name, note)
		}
	}
	s.Trace(l.String())
}

func (s *search) traceCandidates(candidates []Candidate) {
	if s.Trace == nil {
		return
	}
	for i, c := range candidates {
		var b strings.Builder
		for j, a := range c.Addrs {
			if j == maxTracedRecords {
				fmt.Fprintf(&b, " and %d more", len(c.Addrs)-j)
				break
			}
			b.WriteString(" " + a.String())
		}
		s.tracef("candidate %d: %s %s port %d,%s: %s", i+1, c.Protocol.Service, cmp.Or(c.Host, "address"), c.Port, b.String(), c.Why)
	}
}
