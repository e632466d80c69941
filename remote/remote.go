// Package remote is what takes the place of qmail-remote(8): it decides where a
// message goes and in which protocol, connects, and has a protocol client deliver
// it. This is how:
//
//  1. The candidates for HOST are found (package route), by the routes files and by the
//     answers of DNS.
//  2. Each candidate becomes a step of the [Plan]: with its addresses in the order in which
//     they are tried, without those that timed out lately (tcpto), and with the requirement
//     (package policy) of control/tlsstrictness.
//     What is said about ourselves goes with it: by which login, from which address, by which
//     name, with which certificate. If there is something to try, the message is signed
//     (package sign).
//  3. Steps are walked one after the other, a twin only if its elder could not be
//     connected to. The addresses of one exchanger are raced (RFC 8305). One delivery tries
//     twenty at most, and a hundred more that refuse at once, and starts no attempt once
//     timeoutremote has gone by since the first.
//  4. Once connected, the attempt is carried out (package transport), in this process or by
//     a chain of programs. Its reports end the delivery, whatever they say.
//  5. An attempt that began no transaction is followed by another at the same address,
//     if its failure leads to a rung of the requirement; otherwise, or when the rung is for
//     later, by the exchanger's next address and then the next step. The message is set back
//     to its beginning.
//  6. When nothing is left, the last reason is reported; a temporary one, if there
//     was any.
//  7. When the reports are written, a collector is told what became of TLS, for those
//     who ask for that (package tlsrpt).
//
// In a process with many deliveries ([Shared]) these are added:
//
//  1. A walk is made for a [Party]: all deliveries that go together. Others join it until MAIL
//     is written. Each gets the reports that it would have had alone (package together).
//  2. Where the walk would connect it asks the line (package line), for all exchangers of
//     equal preference at once: for a session that was kept, or for the room for a
//     connection. It may have to wait.
//  3. An attempt begins anew at the same address, and counts for nothing, if a kept session
//     failed it before the last byte, if the server wants no more connections, or if a
//     handshake failed with a TLS session.
//  4. After an attempt the session is kept for others.
//  5. Silent addresses, signatures, certificates and refused logins are remembered: the fields
//     of [Config] that are nil in a process with one delivery.
//
// What it goes by:
//
//	qmail-remote(8)       arguments, reports
//	qmail-rspawn(8)       what is done with them
//	mxf-rspawn(8)         what many deliveries share
//	RFC 5321 section 5.1  which exchanger is tried, and when the next one is
//	RFC 8460 section 4.3  what can fail about TLS
package remote

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"time"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/control/domain"
	"nightmare.mail/mxf/remote/dial"
	"nightmare.mail/mxf/remote/dns"
	"nightmare.mail/mxf/remote/login"
	"nightmare.mail/mxf/remote/policy"
	"nightmare.mail/mxf/remote/report"
	"nightmare.mail/mxf/remote/sign"
	"nightmare.mail/mxf/remote/transport"
	"nightmare.mail/mxf/tlsc"
)

// A Job is one delivery: what qmail-rspawn puts into the arguments of
// qmail-remote, and the message.
type Job struct {
	Host       string
	Sender     string   // may be empty
	Recipients []string // at least one
	Message    *os.File // UNIX newlines, from its present offset; may be a pipe

	// Number spreads the deliveries that return to a host that timed out; qmail takes the
	// process id. Any number from 0 on.
	Number int
	Trace  func(line string) // called for each step, from several goroutines; may be nil
	About  string            // what the first line of the trace begins with: see [About]

	// Party is who goes in the delivery; nil: Recipients are all. It is for a Router with Shared.
	Party Party
	// TraceFile is what programs are told to trace to, in place of what Environ says; empty: nothing else.
	TraceFile string

	collector string // the socket of the collector of reports on TLS
	debts     []debt // what Tell sends
}

// A Config is what a Router goes by. It is not changed once a Router has it.
type Config struct {
	Settings *control.Settings
	Resolver dns.Resolver
	Programs string   // the folder of our own executable, where programs are found
	Environ  []string // what a chain of programs inherits
	Exits    transport.Exits
	Once     bool             // the Router is for one delivery: files are not looked at again
	ReadOnly bool             // neither the table of dead hosts nor the cache of policies is written
	TLS      *tlsc.Client     // shared with other Routers of the same trust anchors; nil: one of its own
	Now      func() time.Time // the clock; nil: time.Now

	// Shared is what the Routers of a process with many deliveries have in common, and Sharing what the
	// control files say of it; nil: the process has one delivery.
	Shared  *Shared
	Sharing *control.Sharing
	// What deliveries of one process remember for each other; nil: nothing.
	Silences     *dial.Silences     // addresses that timed out
	Signatures   *sign.Memory       // signatures of messages, and the keys that they are made with
	Certificates *tlsc.Certificates // those of control/clientcerts
	Own          *OwnAddresses      // of this host
	Refusals     *login.Refusals    // logins that relays have refused

	// Rand returns the source of one delivery's shuffles; nil: one that the system seeds.
	Rand func() rand.Source
	// OnEnd has clean called if a signal ends this process before stop is called; may be
	// nil.
	OnEnd func(clean func()) (stop func())
}

// A Router plans deliveries and carries them out. Any number of deliveries may use it at a
// time.
type Router struct {
	Config
	requirement policy.Requirement
	carrier     transport.Carrier
	fault       error // of the client certificate, where no protocol has TLS but submissions, which is understood
}

// New returns a Router. The error of settings that cannot be kept is a *control.Error: a
// TLS client that cannot be run, TLS that is required and that no usable protocol has, keys
// and trust anchors that cannot be read.
func New(c Config) (*Router, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.TLS == nil {
		c.TLS = transport.NewTLS(c.Settings, c.Once, c.Now)
	}
	r := &Router{Config: c, requirement: policy.Strictness(c.Settings.TLSStrictness), carrier: transport.Carrier{
		Settings: c.Settings, Programs: c.Programs, Environ: c.Environ, Exits: c.Exits, TLS: c.TLS, OnEnd: c.OnEnd, Certificates: c.Certificates,
	}}
	if c.Shared != nil {
		r.carrier.Counts, r.carrier.Scripts, r.carrier.Buffers = c.Shared.Counts, &c.Shared.Scripts, &c.Shared.Buffers
	}
	if err := r.loadTLS(); err != nil {
		return nil, err
	}
	return r, nil
}

// loadTLS reads what the settings name for TLS.
func (r *Router) loadTLS() error {
	if err := r.carrier.CheckClients(); err != nil {
		return err
	}
	if !r.requirement.AllowsClear() && !r.Settings.TLSIsOn() {
		return &control.Error{File: "control/tlsstrictness", Line: 1,
			What: fmt.Sprintf("%d wants TLS always, and there is none: trustanchors names nothing, or no protocol has TLS", r.Settings.TLSStrictness)}
	}
	if err := r.Settings.CheckPolicy(r.carrier.HasOurClient); err != nil {
		return err
	}
	if r.Settings.MTASTS != "" {
		if err := r.store().Check(); err != nil {
			return &control.Error{File: "control/mtasts", Line: 1, What: err.Error()}
		}
	}
	hasTLS := func(p control.Protocol) bool { return r.Settings.HasTLS(&p) }
	isNamed := func(p control.Protocol) bool { return p.Service != control.Submissions || p.Line > 0 }
	switch {
	case slices.ContainsFunc(r.Settings.Protocols, func(p control.Protocol) bool { return hasTLS(p) && isNamed(p) }):
		return r.carrier.Load(r.requirement.Verifies())
	case slices.ContainsFunc(r.Settings.Protocols, hasTLS):
		r.fault = r.carrier.Load(false)
	}
	return nil
}

// tlsOf is how p has TLS.
func tlsOf(s *control.Settings, p *control.Protocol) policy.Kind {
	switch {
	case !s.HasTLS(p):
		return policy.NoTLS
	case p.Implicit:
		return policy.ImplicitTLS
	}
	return policy.ExplicitTLS
}

// usable reports whether p can be spoken with exchangers of host, as far as is known before
// there are any: explicit TLS can be left out where mail may go in the clear, implicit TLS cannot.
func (r *Router) usable(p *control.Protocol, host string) bool {
	if tlsOf(r.Settings, p) != policy.NoTLS {
		return true
	}
	return !p.Implicit && (r.requirement.AllowsClear() || r.Settings.TLSPolicy.MayAllowClear(host))
}

// ErrNoMessage is for prepare of [Deliver] to return where descriptor 0 was closed.
var ErrNoMessage error = &report.Error{Case: report.Unreadable, Facts: report.Facts{Reason: "descriptor 0 is closed"}}

// Deliver carries job out, by the router that prepare returns, and returns its one
// complete report stream, whatever happens: what is unforeseen, a panic included,
// is temporary. Arguments that cannot be delivered to are refused before prepare
// is called, which may set Trace and About of job. What is to be told about TLS is sent later, by
// [Job.Tell].
func Deliver(ctx context.Context, job *Job, prepare func() (*Router, error)) (stream report.Stream) {
	prepared := false
	defer func() {
		if p := recover(); p != nil {
			stream = report.Only(report.New(report.Internal, report.Facts{Reason: fmt.Sprintf("panic: %v", p)}))
		}
		if prepared && job.Party == nil {
			job.traceReports(stream)
		}
	}()
	err := job.check()
	if err != nil {
		return report.Only(report.For(err))
	}
	router, err := prepare()
	prepared = true
	job.traceArguments()
	if err == nil {
		stream, err = router.deliver(ctx, job)
	}
	if err != nil {
		return report.Only(report.For(refusal(err)))
	}
	return stream
}

// deliver makes a plan for job and walks it.
func (r *Router) deliver(ctx context.Context, job *Job) (report.Stream, error) {
	dead := r.deadHosts(job)
	plan := r.plan(ctx, job, dead)
	job.collector = r.Settings.TLSRPTSocket
	for i := range plan.unfetched {
		job.owe(debt{make: plan.unfetched[i].report})
	}
	if plan.Err != nil {
		return report.Stream{}, plan.Err
	}
	message := transport.NewMessage(job.Message)
	defer message.Close()
	if plan.Report() == (report.Report{}) { // there is something to try
		if err := r.sign(ctx, job, message); err != nil {
			return report.Stream{}, err
		}
	}
	w := newWalk(r, job, message, dead)
	stream := w.run(ctx, plan.Steps)
	if w.party != nil {
		w.party.end()
	}
	return stream, nil
}

// check refuses what no SMTP command can carry.
func (j *Job) check() error {
	switch {
	case len(j.Recipients) == 0:
		return &report.Error{Case: report.Usage}
	case strings.ContainsAny(j.Host, domain.Forbidden):
		return &report.Error{Case: report.BadHost, Facts: report.Facts{Host: fmt.Sprintf("%q", j.Host)}}
	case strings.ContainsAny(j.Sender, domain.Forbidden):
		return &report.Error{Case: report.BadSender, Facts: report.Facts{Reason: fmt.Sprintf("%q", j.Sender)}}
	}
	for _, recipient := range j.Recipients {
		if strings.ContainsAny(recipient, domain.Forbidden) {
			return &report.Error{Case: report.BadRecipientArg, Facts: report.Facts{Reason: fmt.Sprintf("%q", recipient)}}
		}
	}
	return nil
}
