package remote

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"time"

	"nightmare.mail/mxf/remote/dial"
	"nightmare.mail/mxf/remote/policy"
	"nightmare.mail/mxf/remote/route"
	"nightmare.mail/mxf/remote/transport"
	"nightmare.mail/mxf/smtpc"
)

// A Plan is what would be done for a job, and why. Making one connects to no exchanger and
// needs no message.
type Plan struct {
	Route *route.Result // what routes files and DNS say
	Steps []Step        // in the order in which they are tried
	Err   error         // why there are none; a *route.Error
}

// A Step is one candidate, with what is required of it and what we say about ourselves.
type Step struct {
	route.Candidate
	Requirement policy.Requirement
	Identity    Identity
	Addresses   []Address // of the candidate, in the order in which they are tried

	InProcess bool  // attempts are carried out in this process, not by a chain of programs
	Err       error // why the step is passed over: its program cannot be run; nil where it is tried
}

// An Identity is what we say about ourselves.
type Identity struct {
	HeloHost    string // argument of EHLO and HELO
	Certificate string // path of the certificate that a server gets that asks for one; empty: none
}

// An Address is one address of a step.
type Address struct {
	netip.AddrPort
	Silent    time.Duration // it timed out lately and is passed over, for so long yet; 0: it is tried
	Avoid     smtpc.Avoid   // what it is not asked for
	AvoidLine int           // the line of control/smtpavoid that says so; 0: none
}

// Plan returns the plan for job, of which it needs host, number and trace. The lookups take
// timeoutdns at most.
func (r *Router) Plan(ctx context.Context, job *Job) *Plan {
	rnd := r.random()
	found, err := r.finder.Find(ctx, route.Request{Host: job.Host, Rand: rnd, Trace: job.Trace})
	p := &Plan{Route: found, Err: err}
	if err == nil {
		p.Steps = r.steps(ctx, job, found.Candidates, rnd)
	}
	return p
}

// steps makes steps of candidates.
func (r *Router) steps(ctx context.Context, job *Job, candidates []route.Candidate, rnd *rand.Rand) []Step {
	var all []netip.Addr
	for i := range candidates {
		all = append(all, candidates[i].Addrs...)
	}
	silent := r.deadHosts(job).Skipped(ctx, all)
	steps := make([]Step, 0, len(candidates))
	for _, c := range candidates {
		s := Step{
			Candidate:   c,
			Requirement: r.requirement.On(tlsOf(r.Settings, c.Protocol)),
			Identity:    Identity{r.Settings.HeloHost, r.Settings.ClientCert},
			InProcess:   r.carrier.InProcess(c.Protocol),
		}
		if !s.InProcess {
			s.Err = r.carrier.CheckProgram(c.Protocol)
		}
		for _, addr := range dial.Order(c.Addrs, rnd) {
			a := Address{AddrPort: netip.AddrPortFrom(addr, c.Port), Silent: silent[addr]}
			a.Avoid, a.AvoidLine = r.carrier.Avoids(c.Protocol, c.Host, addr)
			s.Addresses = append(s.Addresses, a)
		}
		steps = append(steps, s)
	}
	return steps
}

// manner is that of the first attempt at a.
func (s *Step) manner(a *Address) policy.Manner {
	return transport.Manner(s.Requirement.First, a.Avoid)
}

// deadHosts is the table of dead hosts, as one delivery sees it.
func (r *Router) deadHosts(job *Job) *dial.DeadHosts {
	return &dial.DeadHosts{Folder: filepath.Join(r.Settings.Home, "queue", "lock"), Number: job.Number, Now: time.Now}
}

// random returns the source of one delivery's shuffles.
func (r *Router) random() *rand.Rand {
	if r.Rand != nil {
		return rand.New(r.Rand())
	}
	return rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
}
