// Package remote is what takes the place of qmail-remote(8): it decides where a
// message goes and in which protocol, connects, and has a protocol client deliver
// it. This is how:
//
//  1. HOST is an address literal, or a domain that is turned into A-labels.
//  2. The routes files of the usable protocols are asked, in the order of
//     control/protocols. If any names a relay, the relays are the candidates.
//  3. Otherwise an address literal is its own only candidate, in every protocol
//     that has a slice; and for a domain SRV of every usable protocol and MX are
//     looked up at once. A null MX ends the delivery. Candidates are those from SRV,
//     in RFC 2782 order (plain QMTP at its own port alone), then those from MX by
//     preference, each in the protocol of its MXPS slice and then, as its twin, in
//     that of slice 0. Without SRV and MX the host itself is the candidate in every
//     usable protocol. One that the host declines by SRV (the target ".") is not used.
//  4. Names become addresses, those of the first thirty exchangers, all at once.
//     Candidates at which we ourselves stand are dropped with all of the same or worse
//     standing.
//  5. Candidates are tried one after the other, a twin only if its elder could not be
//     connected to. The addresses of one exchanger are raced (RFC 8305); addresses
//     that timed out lately are skipped (tcpto). One delivery tries twenty at most,
//     and a hundred more that refuse at once, and starts no attempt once
//     timeoutremote has gone by since the first.
//  6. Once connected, the attempt is carried out, in this process or by a chain of
//     programs. Its reports end the delivery, whatever they say.
//  7. An attempt that began no transaction is followed by another at the same address,
//     if its failure leads to a rung of the ladder (ladder.go) of control/tlsstrictness;
//     otherwise, or when the rung is for later, by the exchanger's next address and then
//     the next candidate. The message is set back to its beginning.
//  8. When nothing is left, the last reason is reported; a temporary one, if there
//     was any.
//
// What it goes by:
//
//	RFC 2782                SRV
//	RFC 5321 section 5      MX
//	RFC 7505                null MX
//	RFC 8305, 6724          Happy Eyeballs, source addresses
//	RFC 5890 to 5895        names beyond ASCII, as UTS 46 maps them
//	RFC 1035, 2308, 6891    DNS, answers without data, EDNS0
//	MXPS                    slices (cr.yp.to/proto/mxps.txt)
//	qmail-remote(8)         arguments, reports
//	qmail-tcpto(8)          the table of dead hosts
package remote

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/remote/report"
)

// The degrees of control/tlsstrictness above 0, at which TLS is used where it is
// offered.
const (
	firm   = 1 // all of TLS is tried before anything in the clear
	strict = 2 // nothing is sent in the clear, and certificates are verified
)

// A Job is one delivery: what qmail-rspawn puts into the arguments of
// qmail-remote, and the message.
type Job struct {
	Host       string
	Sender     string   // may be empty
	Recipients []string // at least one
	Message    *os.File // UNIX newlines, from its present offset; may be a pipe
}

// A Router delivers. Its fields are not changed by deliveries, so that many may
// run at a time.
type Router struct {
	Settings *control.Settings
	Resolver *Resolver
	Programs string       // the folder of our own executable, where programs are found
	Environ  []string     // what the chain of programs inherits
	Rand     rand.Source  // for shuffling; used by one delivery at a time
	Trace    func(string) // a line for each step; may be nil
	Version  string       // of the program, for the trace

	// OnEnd has clean called if a signal ends this process before stop is called; may be
	// nil.
	OnEnd func(clean func()) (stop func())
}

// ErrNoMessage is for prepare of [Deliver] to return where descriptor 0 was closed.
var ErrNoMessage error = &report.Error{Case: report.Unreadable, Facts: report.Facts{Reason: "descriptor 0 is closed"}}

// Deliver carries job out, by the router that prepare returns, and returns its one
// complete report stream, whatever happens: what is unforeseen, a panic included,
// is temporary. Arguments that cannot be delivered to are refused before prepare
// is called. A router that prepare returns beside an error serves to trace it.
func Deliver(ctx context.Context, job *Job, prepare func() (*Router, error)) (stream report.Stream) {
	var router *Router
	defer func() {
		if p := recover(); p != nil {
			stream = report.Only(report.New(report.Internal, report.Facts{Reason: fmt.Sprintf("panic: %v", p)}))
		}
		if router != nil {
			router.traceReports(job, stream)
		}
	}()
	err := job.check()
	if err != nil {
		return report.Only(report.For(err))
	}
	router, err = prepare()
	if router != nil {
		router.traceJob(job)
	}
	if err == nil {
		stream, err = router.deliver(ctx, job)
	}
	if err != nil {
		return report.Only(report.For(controlError(err)))
	}
	return stream
}

// deliver finds the candidates for job and tries them.
func (r *Router) deliver(ctx context.Context, job *Job) (report.Stream, error) {
	d := &delivery{
		Router:  r,
		job:     job,
		message: newSource(job.Message),
		rand:    rand.New(r.Rand),
	}
	d.connector = connector{
		timeout: r.Settings.TimeoutConnect,
		trace:   d.tracef,
		dead: &deadHosts{
			folder: filepath.Join(r.Settings.Home, "queue", "lock"),
			pid:    os.Getpid(),
			now:    time.Now,
		},
	}
	if err := d.checkTLS(); err != nil {
		return report.Stream{}, err
	}
	ours, err := d.ours()
	if err != nil {
		return report.Stream{}, err
	}
	finder := Finder{Settings: r.Settings, Resolver: r.Resolver, Ours: ours, Rand: d.rand, Trace: r.Trace}
	candidates, err := finder.Candidates(ctx, job.Host)
	if err != nil {
		return report.Stream{}, err
	}
	return d.run(ctx, candidates), nil
}

// forbidden is what would end an argument, or an SMTP command, before its end.
const forbidden = "\x00\r\n"

// check refuses what no SMTP command can carry.
func (j *Job) check() error {
	switch {
	case len(j.Recipients) == 0:
		return &report.Error{Case: report.Usage}
	case strings.ContainsAny(j.Host, forbidden):
		return &report.Error{Case: report.BadHost, Facts: report.Facts{Host: fmt.Sprintf("%q", j.Host)}}
	case strings.ContainsAny(j.Sender, forbidden):
		return &report.Error{Case: report.BadSender, Facts: report.Facts{Reason: fmt.Sprintf("%q", j.Sender)}}
	}
	for _, recipient := range j.Recipients {
		if strings.ContainsAny(recipient, forbidden) {
			return &report.Error{Case: report.BadRecipientArg, Facts: report.Facts{Reason: fmt.Sprintf("%q", recipient)}}
		}
	}
	return nil
}

// ours returns what reports whether an address is ours: those of ipme, or of the
// interfaces and all of loopback.
func (r *Router) ours() (func(netip.Addr) bool, error) {
	own := make(map[netip.Addr]bool)
	for _, addr := range r.Settings.IPMe {
		own[addr] = true
	}
	if !r.Settings.IPMeDefault {
		return func(addr netip.Addr) bool { return own[addr] }, nil
	}
	interfaces, err := net.InterfaceAddrs()
	if err != nil {
		// A sandbox may refuse it (RestrictAddressFamilies without AF_NETLINK).
		var call *net.OpError
		if errors.As(err, &call) {
			err = call.Err
		}
		return nil, &control.Error{File: "control/ipme",
			What: fmt.Sprintf("expected this file, with the addresses of this machine, one a line, since they cannot be listed: %v", plain(err))}
	}
	for _, i := range interfaces {
		if prefix, err := netip.ParsePrefix(i.String()); err == nil {
			own[prefix.Addr().Unmap().WithZone("")] = true
		}
	}
	return func(addr netip.Addr) bool { return addr.IsLoopback() || own[addr] }, nil
}

func (r *Router) tracef(format string, args ...any) {
	if r.Trace != nil {
		r.Trace(fmt.Sprintf(format, args...))
	}
}
