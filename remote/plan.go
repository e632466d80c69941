package remote

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/remote/dial"
	"nightmare.mail/mxf/remote/dns"
	"nightmare.mail/mxf/remote/login"
	"nightmare.mail/mxf/remote/policy"
	"nightmare.mail/mxf/remote/report"
	"nightmare.mail/mxf/remote/route"
	"nightmare.mail/mxf/remote/transport"
	"nightmare.mail/mxf/smtpc"
)

// A Plan is what would be done for a job, and why. Making one connects to no exchanger and
// needs no message.
type Plan struct {
	Route *route.Result // what routes files and DNS say
	Steps []Step        // in the order in which they are tried
	Err   error         // why there are none: a *route.Error, or settings that cannot be kept

	unfetched []unfetched // to be told
}

// A Step is one candidate, with what is required of it and what we say about ourselves.
type Step struct {
	route.Candidate
	Published   Published
	Requirement policy.Requirement
	Addresses   []Address // of the candidate, in the order in which they are tried

	InProcess bool  // attempts are carried out in this process, not by a chain of programs
	Err       error // why the step is passed over: its program cannot be run, or no address is left; nil where it is tried

	account login.Account // by which Config.Refusals knows the login; zero: none
}

// An Address is one address of a step.
type Address struct {
	netip.AddrPort
	Identity   transport.Identity // what we say about ourselves there
	SourceLine int                // the line of control/sources that says from where; 0: none
	Silent     time.Duration      // it timed out lately and is passed over, for how much longer; 0: it is tried
	Avoid      smtpc.Avoid        // what it is not asked for
	AvoidLine  int                // the line of control/smtpavoid that says so; 0: none
}

// Plan returns the plan for job, of which it needs host, sender, number and trace. The lookups
// take timeoutdns at most.
func (r *Router) Plan(ctx context.Context, job *Job) *Plan { return r.plan(ctx, job, r.deadHosts(job)) }

func (r *Router) plan(ctx context.Context, job *Job, dead *dial.DeadHosts) *Plan {
	ours, err := r.ours()
	if err != nil {
		return &Plan{Route: new(route.Result), Err: err}
	}
	rnd := r.random()
	q := r.inquire(job)
	fetches, stop := context.WithCancel(ctx)
	defer stop()
	lookups := fetches
	if limit := r.Settings.TimeoutDNS; limit > 0 {
		var cancel context.CancelFunc
		lookups, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	found, err := r.find(fetches, lookups, q, rnd, ours)
	p := &Plan{Route: found, Err: err}
	if err != nil {
		stop() // nobody needs a policy any more
		_ = q.wait()
		p.unfetched = q.unfetched(found)
		return p
	}
	published, err := q.publications(lookups, found)
	p.unfetched = q.unfetched(found)
	if err != nil {
		p.Err = err
		return p
	}
	p.Steps, p.Err = r.steps(ctx, found.Candidates, published, job, rnd, dead)
	return p
}

// find finds the candidates for a job, while lookups lasts. What q fetches may take until fetches
// ends.
func (r *Router) find(fetches, lookups context.Context, q *inquiry, rnd *rand.Rand, ours func(netip.Addr) bool) (*route.Result, error) {
	job := q.job
	finder := route.Finder{
		Protocols: r.Settings.Protocols, Resolver: r.Resolver, Secure: len(r.Settings.TrustResolvers) > 0,
		BySender: r.Settings.SenderRoutes.Lookup,
	}
	return finder.Find(lookups, route.Request{
		Host: job.Host, Sender: job.Sender, Usable: func(p *control.Protocol) bool { return r.usable(p, job.Host) }, Ours: ours,
		Texts: q.texts, OnTexts: func(domain string, answers []*dns.Answer) { q.heard(fetches, domain, answers) },
		Limit: r.Settings.TimeoutDNS, Rand: rnd, Trace: job.Trace,
	})
}

// steps makes steps of candidates. The error is of settings that cannot be kept towards one of
// them, and nothing is connected then: a *control.Error.
func (r *Router) steps(ctx context.Context, candidates []route.Candidate, published []Published, job *Job, rnd *rand.Rand, dead *dial.DeadHosts) ([]Step, error) {
	var all []netip.Addr
	for i := range candidates {
		all = append(all, candidates[i].Addrs...)
	}
	silent := dead.Skipped(ctx, all)
	logins, err := r.logins(candidates)
	if err != nil {
		return nil, err
	}
	waived := sync.OnceValue(func() bool { return waives(job.Message) })
	steps := make([]Step, 0, len(candidates))
	for i, c := range candidates {
		s := Step{Candidate: c, Published: published[i], InProcess: r.carrier.InProcess(c.Protocol)}
		identity, err := r.introduce(&s, job, logins, waived)
		if err != nil {
			return nil, err
		}
		r.address(&s, job.Sender, identity, rnd, func(addr netip.AddrPort) time.Duration {
			return max(silent[addr.Addr()], dead.Silent(addr))
		})
		steps = append(steps, s)
	}
	return steps, nil
}

// address gives s the addresses of its candidate, in the order in which they are tried. silent
// says for how much longer one that timed out lately is passed over.
func (r *Router) address(s *Step, sender string, identity transport.Identity, rnd *rand.Rand, silent func(netip.AddrPort) time.Duration) {
	c := &s.Candidate
	if s.Err == nil && !s.InProcess {
		s.Err = r.carrier.CheckProgram(c.Protocol)
	}
	four, six := r.families(c, sender)
	addrs := dial.OfFamilies(c.Addrs, four.off == "", six.off == "")
	if len(addrs) == 0 && s.Err == nil {
		s.Err = noFamily(c, four, six)
	}
	for _, addr := range dial.Order(addrs, dial.Sources{Four: four.source.Addr, Six: six.source.Addr}, rnd) {
		f := of(addr, four, six)
		a := Address{AddrPort: netip.AddrPortFrom(addr, c.Port), Identity: f.speak(identity), SourceLine: f.source.Line}
		a.Silent = silent(a.AddrPort)
		a.Avoid, a.AvoidLine = r.avoids(c.Protocol, c.Host, addr)
		s.Addresses = append(s.Addresses, a)
	}
}

// avoids returns what control/smtpavoid says of an exchanger, and the line that says so, 0
// for none. QMTP has nothing to avoid.
func (r *Router) avoids(protocol *control.Protocol, exchanger string, addr netip.Addr) (avoid smtpc.Avoid, line int) {
	if protocol.QMTP() {
		return avoid, 0
	}
	return r.Settings.SMTPAvoid.Lookup(exchanger, addr)
}

// target is the server at a, as it is spoken to in manner m.
func (s *Step) target(a *Address, m policy.Manner) *transport.Target {
	return &transport.Target{
		Protocol: s.Protocol, Exchanger: s.Host, Relay: s.RelayName, Addr: a.AddrPort,
		Manner: m, Word: s.Requirement.Word, Judge: s.Requirement.Judge, ServerName: s.Requirement.ServerName, Names: s.Requirement.Names,
		Avoid: a.Avoid, Identity: a.Identity,
	}
}

// Report is what a delivery reports that ends without a connection, because there is no step
// or because every one is passed over. It is the zero Report where there is something to try.
func (p *Plan) Report() report.Report {
	if p.Err != nil {
		return report.For(refusal(p.Err))
	}
	var reasons, without []report.Report
	for i := range p.Steps {
		s := &p.Steps[i]
		silent := 0
		for j := range s.Addresses {
			if a := &s.Addresses[j]; a.Silent > 0 {
				silent++
				reasons = append(reasons, s.silence(a))
			}
		}
		switch {
		case len(s.Addresses) == 0:
			without = append(without, report.For(s.Err))
		case silent == len(s.Addresses):
		case s.Err != nil:
			reasons = append(reasons, report.For(s.Err))
		default:
			return report.Report{}
		}
	}
	return lastReason(slices.Concat(without, reasons), 0)
}

// silence is the reason for which a is passed over.
func (s *Step) silence(a *Address) report.Report {
	see := "queue/lock/tcpto6; to have it tried again, empty that file"
	if a.Addr().Is4() {
		see = "qmail-tcpto"
	}
	return report.New(report.NoConnection, report.Facts{
		Protocol: strings.ToUpper(s.Protocol.Service),
		Detail:   fmt.Sprintf("%s did not answer lately and was not tried (see %s)", place(s, a.AddrPort), see),
	})
}

// deadHosts is the table of dead hosts, as one delivery sees it.
func (r *Router) deadHosts(job *Job) *dial.DeadHosts {
	return &dial.DeadHosts{
		Folder: filepath.Join(r.Settings.Home, "queue", "lock"), Number: job.Number, Now: r.Now, ReadOnly: r.ReadOnly, Memory: r.Silences,
	}
}

// random returns the source of one delivery's shuffles.
func (r *Router) random() *rand.Rand {
	if r.Rand != nil {
		return rand.New(r.Rand())
	}
	return rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
}
