package remote

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"nightmare.mail/mxf/remote/dial"
	"nightmare.mail/mxf/remote/policy"
	"nightmare.mail/mxf/remote/report"
	"nightmare.mail/mxf/remote/transport"
	"nightmare.mail/mxf/smtpc"
	"nightmare.mail/mxf/tlsc"
)

// A Probing says how far a probe goes.
type Probing struct {
	PlanOnly bool // connect to no exchanger
	All      bool // try every address of every step, whatever the first ones say, and those that timed out lately too
	Ask      bool // say MAIL, each RCPT and RSET too
	// Watch is told what is waited for, from several goroutines. Nil: nobody wants to know.
	Watch func(doing string)
}

// A Probe is what came of a delivery that ends before MAIL.
type Probe struct {
	Plan     *Plan         // nil where none could be made
	Attempts []*Attempt    // in the order in which they ended
	Stream   report.Stream // what the delivery would report; zero: nobody knows, see Unknown
	Taken    *Attempt      // the one that would take the message; nil: none
	// Unknown is why nobody knows what the delivery would report: a program that is not ours,
	// or the end of the context. Nil with PlanOnly where there is something to try.
	Unknown error

	router  *Router
	how     Probing
	mu      sync.Mutex
	lasted  map[netip.AddrPort]time.Duration // of the last connection to it
	further bool                             // what is tried no longer decides the report
}

// An Attempt is one attempt of a probe at one address.
type Attempt struct {
	Step     *Step
	Addr     netip.AddrPort
	From     netip.Addr    // our end; invalid: there was no connection
	Manner   policy.Manner // of an attempt with a connection
	Connect  time.Duration // how long the connection took, or its failure
	Err      error         // why there was no connection; nil: there was
	TimedOut bool          // one of our limits ended it
	Probe    transport.Probe
	Stream   report.Stream         // the reports that end the delivery; zero: it went on
	Failure  *report.NoTransaction // why the attempt was left; nil: it was not
	Trace    []string              // lines, in their order
	Unknown  error                 // why nobody knows what would become of a message there: see Probe.Unknown; nil: somebody does
}

// Connected reports whether there was a connection.
func (a *Attempt) Connected() bool { return a.Err == nil }

// ProbeJob is [Deliver] for a job without a message: what can be known before MAIL. The reports
// are those of the delivery if that ends before MAIL, and those of report.Would otherwise.
func ProbeJob(ctx context.Context, job *Job, prepare func() (*Router, error), how Probing) (p *Probe) {
	p = &Probe{how: how, lasted: make(map[netip.AddrPort]time.Duration)}
	defer func() {
		if cause := recover(); cause != nil {
			p.Stream = report.Only(report.New(report.Internal, report.Facts{Reason: fmt.Sprintf("panic: %v", cause)}))
		}
	}()
	if err := job.check(); err != nil {
		p.Stream = report.Only(report.For(err))
		return p
	}
	router, err := prepare()
	if err != nil {
		p.Stream = report.Only(report.For(refusal(err)))
		return p
	}
	p.run(ctx, router, job)
	return p
}

func (p *Probe) run(ctx context.Context, router *Router, job *Job) {
	p.router = router
	p.watch("looking up %s", job.Host)
	p.Plan = router.Plan(ctx, job)
	switch {
	case ctx.Err() != nil:
		p.Unknown = ctx.Err()
		return
	case p.Plan.Err != nil:
		p.Stream = report.Only(report.For(refusal(p.Plan.Err)))
		return
	case p.how.PlanOnly:
		if r := p.Plan.Report(); r != (report.Report{}) {
			p.Stream = report.Only(r)
		}
		return
	}
	p.Stream = p.walk(ctx, job, p.Plan.Steps)
	if p.further = p.how.All; p.further {
		p.tryRest(ctx, job)
	}
	if ctx.Err() != nil && p.Taken == nil {
		p.Unknown = ctx.Err()
	}
	if p.Unknown != nil {
		p.Stream = report.Stream{}
	}
}

func (p *Probe) walk(ctx context.Context, job *Job, steps []Step) report.Stream {
	w := newWalk(p.router, job, nil, p.router.deadHosts(job))
	w.probe, w.dialer.Measure = p, p.measure
	return w.run(ctx, steps)
}

// tryRest tries each address that was not tried, for itself.
func (p *Probe) tryRest(ctx context.Context, job *Job) {
	for i := range p.Plan.Steps {
		s := &p.Plan.Steps[i]
		for _, a := range s.Addresses {
			if s.Err != nil || ctx.Err() != nil || p.tried(s, a.AddrPort) {
				continue
			}
			alone := *s
			a.Silent, alone.Twin = 0, false
			alone.Addresses = []Address{a}
			p.walk(ctx, job, []Step{alone})
		}
	}
}

func (p *Probe) tried(s *Step, addr netip.AddrPort) bool {
	return slices.ContainsFunc(p.Attempts, func(a *Attempt) bool { return a.isAt(s, addr) })
}

// isAt reports whether a is about an address as a step has it.
func (a *Attempt) isAt(s *Step, addr netip.AddrPort) bool {
	return a.Addr == addr && a.Step.Protocol.Service == s.Protocol.Service && strings.EqualFold(a.Step.Host, s.Host)
}

func (p *Probe) watch(format string, args ...any) {
	if p != nil && p.how.Watch != nil {
		p.how.Watch(fmt.Sprintf(format, args...))
	}
}

func (p *Probe) measure(addr netip.AddrPort, took time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lasted[addr] = took
}

// connecting says which exchanger is connected to. The nil Probe is a delivery.
func (p *Probe) connecting(s *Step, addrs []netip.AddrPort) {
	p.watch("connecting to %s", place(s, addrs[0]))
}

// unconnected adds an address that could not be connected to.
func (p *Probe) unconnected(ctx context.Context, s *Step, f dial.Failure) {
	if p != nil && ctx.Err() == nil {
		p.Attempts = append(p.Attempts, &Attempt{Step: s, Addr: f.Addr, Connect: f.Took, Err: f.Err, TimedOut: f.Late})
	}
}

// attempt makes an attempt on conn.
func (p *Probe) attempt(ctx context.Context, conn *net.TCPConn, v *visit, mail transport.Mail) (report.Stream, error) {
	s, addr := v.step, v.addr.AddrPort
	p.watch("talking to %s", place(s, addr))
	p.mu.Lock()
	a := &Attempt{Step: s, Addr: addr, From: dial.LocalAddr(conn).Addr(), Manner: v.manner, Connect: p.lasted[addr]}
	p.mu.Unlock()
	a.Probe.Ask = p.how.Ask
	mail.Probe = &a.Probe
	var mu sync.Mutex
	tell := mail.Trace
	mail.Trace = func(line string) {
		mu.Lock()
		a.Trace = append(a.Trace, line)
		mu.Unlock()
		if tell != nil {
			tell(line)
		}
	}
	stream, _, err := p.router.carrier.Carry(ctx, conn, s.target(v.addr, v.manner), &mail, s.InProcess)
	if a.Unknown = ctx.Err(); a.Unknown != nil {
		p.Attempts = append(p.Attempts, a) // with what it has found by now
		return stream, err
	}
	p.conclude(a, stream, err)
	return stream, err
}

// conclude adds an attempt that has ended.
func (p *Probe) conclude(a *Attempt, stream report.Stream, err error) {
	var fuse *report.Fuse
	var silence *smtpc.SilenceError
	p.Attempts = append(p.Attempts, a)
	a.TimedOut = errors.As(err, &fuse) || errors.As(err, &silence) || errors.Is(err, context.DeadlineExceeded)
	switch {
	case errors.Is(err, transport.ErrForeign):
		if !p.further {
			p.Unknown = err
		}
		a.Unknown = err
	case errors.As(err, &a.Failure):
	case fuse != nil:
		a.Stream = fuse.Stream()
	case err != nil:
		a.Stream = report.Only(report.For(err))
	default:
		a.Stream = stream
	}
	if a.Stream.Message.Letter == report.Delivered && !p.further {
		p.Taken = a
	}
}

// A Prospect is what would become of a message at one address.
type Prospect int

// The prospects.
const (
	NobodyKnows  Prospect = iota // it was not tried, or not so, or not to its end
	Unreached                    // there was no connection
	Deferred                     // not taken for now
	Refused                      // refused for good, where that was asked
	TakenInClear                 // taken without TLS
	TakenInTLS                   // taken inside TLS
	Taken                        // taken, and nobody knows how: it was tried with more than would be asked for
)

// String returns the words of the table.
func (p Prospect) String() string {
	return [...]string{"not known", "", "deferred", "refused", "taken, clear", "taken, TLS", "taken"}[p]
}

// At returns what would become of a message at an address of s, which was tried, with
// control/tlsstrictness n and everything else as it is. It follows from what the attempts at
// it have shown; nothing is tried for it.
func (p *Probe) At(s *Step, addr netip.AddrPort, n int) Prospect {
	seen := p.seen(s, addr)
	if !seen.connected {
		return Unreached
	}
	required, left := p.router.requirementAt(s, n)
	if left != nil {
		return Deferred
	}
	return seen.under(&required, s.Requirement.Judge, tlsOf(p.router.Settings, s.Protocol))
}

// requirementAt is what would be required of s with control/tlsstrictness n.
func (r *Router) requirementAt(s *Step, n int) (policy.Requirement, *policy.Left) {
	var demand policy.Demand
	if len(s.Addresses) > 0 {
		demand = demands(&s.Addresses[0].Identity.Login.Credential)
	}
	w := r.way(&s.Candidate, &s.Published, demand)
	w.Strictness, w.Waived = n, s.Published.Waived
	return policy.Decide(w)
}

// A sight is what the attempts at one address have shown.
type sight struct {
	connected bool
	end       report.Letter    // of the reports that ended it; 0: none
	tls       *tlsc.Inspection // of the last handshake that came as far as a certificate
	tlsNoName bool             // that sent no server name
	tlsBroken bool             // TLS failed, and not because of the certificate
	enforced  bool             // and with more wanted of the handshake than is wanted of one that is not verified
	lost      bool             // the last attempt was left, and not because of TLS
	unknown   bool             // the last attempt has shown nothing
	chain     bool             // it was made by programs, which have shown their report alone
	clear     bool             // it wanted no TLS
	line      string           // the line on TLS of the report
}

func (p *Probe) seen(s *Step, addr netip.AddrPort) (seen sight) {
	for _, a := range p.Attempts {
		if a.isAt(s, addr) {
			seen.add(a)
		}
	}
	return seen
}

func (s *sight) add(a *Attempt) {
	if !a.Connected() {
		return
	}
	s.connected, s.end = true, a.Stream.Message.Letter
	i := a.Probe.TLS
	if i != nil {
		s.tls, s.tlsNoName = i, a.Manner.NoName
	}
	ofCertificate := i != nil && i.Enforced && (i.Verdict.Fatal() || i.Signature != "")
	if a.Failure != nil && errors.Is(a.Failure, policy.ErrTLS) && !ofCertificate {
		var handshake *tlsc.Error
		s.tlsBroken, s.enforced = true, a.Manner.TLS == policy.Verified && (errors.As(a.Failure, &handshake) || !a.Probe.Found())
	}
	s.lost = a.Failure != nil && !policy.OfTLS(a.Failure)
	s.unknown, s.clear = a.Unknown != nil, a.Manner.TLS == policy.Clear
	s.chain, s.line = !a.Probe.Found(), a.Stream.Message.TLSLine()
}

// under is the prospect under a requirement. enforced is the judge of the attempts, where one
// enforced a verdict.
func (s *sight) under(r *policy.Requirement, enforced tlsc.Judge, kind policy.Kind) Prospect {
	switch {
	case s.unknown:
		return NobodyKnows
	case s.end == report.Permanent:
		return Refused
	case s.end == report.Temporary, s.lost:
		return Deferred
	case s.chain && s.end == report.Delivered && !s.clear:
		return s.ofChain(r, enforced)
	case s.isGood(r, enforced) && kind != policy.NoTLS:
		return TakenInTLS
	case s.enforced && !r.Verifies() && r.AllowsClear() && kind == policy.ExplicitTLS:
		return Taken
	case s.enforced && !r.Verifies():
		return NobodyKnows
	case kind == policy.ImplicitTLS, !r.AllowsClear():
		return Deferred
	}
	return TakenInClear
}

// ofChain is the prospect where programs have had the message taken, and wanted TLS. What is
// known of that is the line on TLS of their report, if there is one.
func (s *sight) ofChain(r *policy.Requirement, enforced tlsc.Judge) Prospect {
	words := strings.Fields(s.line)
	isVerified := slices.Contains(words[:min(len(words), verdictWords)], "verified")
	switch {
	case r.First == policy.Clear:
		return TakenInClear
	case !r.Verifies() && s.line == "":
		return Taken
	case !r.Verifies(), isVerified && s.judged(enforced) == r.Judge:
		return TakenInTLS
	case s.line != "" && !isVerified:
		return Deferred
	}
	return NobodyKnows
}

// judged is whose verdict stands in the line on TLS: where none is enforced, that of the trust
// anchors.
func (s *sight) judged(enforced tlsc.Judge) tlsc.Judge {
	if enforced == nil {
		return tlsc.TrustAnchors{}
	}
	return enforced
}

// verdictWords are the first words of the line on TLS: version, cipher and verdict.
const verdictWords = 3

// isGood reports whether the handshake that was seen does for a requirement.
func (s *sight) isGood(r *policy.Requirement, enforced tlsc.Judge) bool {
	switch {
	case s.tls == nil || s.tlsBroken:
		return false
	case s.tlsNoName && !slices.ContainsFunc(r.Rungs, func(g policy.Rung) bool { return g.Do.NoName }):
		return false
	case !r.Verifies():
		return r.First != policy.Clear
	case !s.tls.Strong:
		return false
	case s.tls.Enforced && r.Judge == enforced:
		return !s.tls.Verdict.Fatal()
	}
	return !s.tls.Anchors.Fatal()
}
