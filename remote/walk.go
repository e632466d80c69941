package remote

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"nightmare.mail/mxf/remote/dial"
	"nightmare.mail/mxf/remote/line"
	"nightmare.mail/mxf/remote/policy"
	"nightmare.mail/mxf/remote/report"
	"nightmare.mail/mxf/remote/tlsrpt"
	"nightmare.mail/mxf/remote/transport"
)

// A walk is one job on its way through the steps of its plan.
type walk struct {
	*Router
	job    *Job
	mail   *transport.Mail
	dialer dial.Dialer
	probe  *Probe // nil: a delivery

	party   *party        // of those it is carried out for; nil in a process with one delivery
	granted *hold         // by the line, for the next connection; nil: none
	equals  []*Step       // those that stand as well as the one that is tried, and come after it
	crowded int           // how often a server wanted no more connections, and this delivery waited again
	back    *line.Lease   // that of the last time; nil: there was none
	waited  time.Duration // in line, so far

	tried   map[spot]bool   // what was connected to, or could not be
	quick   int             // of those, what refused at once, or could not be reached from here
	began   time.Time       // start of the first connection
	reasons []report.Report // why each attempt was left, in their order
	without []report.Report // why steps have no address; they count where there is no other reason
	pass    policy.Pass     // the present one
	waiting [policy.Passes][]*visit
}

// A spot is an address and the service that is expected there: an exchanger that both SRV
// and MX name is not tried twice. Under another name the same address may have another
// certificate, once it was connected to.
type spot struct {
	service string
	addr    netip.AddrPort
	name    string // in lower case; empty where there was no connection, or is no TLS
}

// A visit is one address of a step, and the manner in which it is tried, or is to be tried
// next.
type visit struct {
	step    *Step
	addr    *Address
	manner  policy.Manner
	failure *report.NoTransaction // of the last attempt, nil before
	next    *policy.Rung          // what waits for its pass
	notes   []string              // what was changed so far and why, for the report

	renewal // in a process with many deliveries
}

func newWalk(r *Router, job *Job, message *transport.Message, dead *dial.DeadHosts) *walk {
	w := &walk{
		Router: r,
		job:    job,
		mail: &transport.Mail{Host: job.Host, Sender: job.Sender, Recipients: job.Recipients,
			Message: message, Trace: job.Trace, TraceFile: job.TraceFile},
		dialer: dial.Dialer{Timeout: r.Settings.TimeoutConnect, Dead: dead, Trace: job.tracef},
		tried:  make(map[spot]bool),
	}
	w.party = newParty(w)
	return w
}

// run tries step after step until one attempt reports.
func (w *walk) run(ctx context.Context, steps []Step) report.Stream {
	defer w.giveBack()
	conversed := false
	for left := pointers(steps); len(left) > 0; {
		var err error
		if left, err = w.prefer(ctx, left); err != nil {
			return report.Only(report.For(err))
		}
		s := left[0]
		w.equals = equalsOf(left)
		if !s.Twin {
			conversed = false
		} else if conversed {
			w.job.tracef("skip %s %s: the conversation in the protocol of its slice had begun", s.Protocol.Service, s.Host)
			left = left[1:]
			continue
		}
		stream, final := w.try(ctx, s, &conversed)
		if w.isElsewhere(s) {
			continue
		}
		w.giveBack()
		if final {
			return stream
		}
		left = left[1:]
	}
	for w.pass = policy.Second; w.pass < policy.Passes; w.pass++ {
		for _, v := range w.waiting[w.pass] {
			w.climb(v)
			if stream, final := w.visit(ctx, v, nil); final {
				return stream
			}
		}
	}
	return report.Only(w.lastReason())
}

// try tries the addresses of one step until none is left. It sets conversed when a protocol
// was spoken with one of them.
func (w *walk) try(ctx context.Context, s *Step, conversed *bool) (stream report.Stream, final bool) {
	if len(s.Addresses) == 0 {
		w.job.tracef("skip %s: %s", s.Protocol.Service, oneLine(s.Err.Error()))
		w.without = append(w.without, report.For(s.Err))
		return report.Stream{}, false
	}
	addrs := w.open(s)
	if len(addrs) == 0 {
		return report.Stream{}, false
	}
	if s.Err != nil {
		w.job.tracef("skip %s: %s", s.Protocol.Service, oneLine(s.Err.Error()))
		w.reasons = append(w.reasons, report.For(s.Err))
		if left := new(policy.Left); errors.As(s.Err, &left) {
			w.job.owe(debt{once: true, make: func() *tlsrpt.Datagram { return reportLeft(s, left.Why) }})
		}
		return report.Stream{}, false
	}
	if told, refused := w.Refusals.Report(s.account); refused {
		return report.Only(told), true
	}
	for len(addrs) > 0 {
		if w.late() {
			w.job.tracef("no further attempt: timeoutremote has gone by since the first")
			return report.Only(w.lastReason()), true
		}
		l, failures, err := w.connect(ctx, s, addrs, nil)
		if w.isElsewhere(s) {
			return report.Stream{}, false
		}
		if err != nil {
			return report.Only(report.For(err)), true
		}
		for _, f := range failures {
			addrs = without(addrs, f.Addr)
			w.probe.unconnected(ctx, s, f)
			w.noConnection(s, f, nil)
		}
		if l == nil && w.Shared != nil && len(failures) > 0 {
			continue // others were passed over, because they have as many connections as they may
		}
		if l == nil {
			break
		}
		addrs = without(addrs, l.addr)
		v := w.firstVisit(s, l.addr)
		stream, final := w.visit(ctx, v, l)
		if v.spoke() {
			*conversed = true
		}
		if final {
			return stream, true
		}
	}
	return report.Stream{}, false
}

// open returns the addresses of s that may be tried, in order: those that were not tried and
// did not time out lately.
func (w *walk) open(s *Step) []netip.AddrPort {
	var addrs []netip.AddrPort
	if w.budget().Spent() {
		w.enough(s)
		return nil
	}
	for i := range s.Addresses {
		a := &s.Addresses[i]
		switch {
		case a.Silent > 0:
			table := "tcpto6"
			if a.Addr().Is4() {
				table = "tcpto"
			}
			w.job.tracef("skip %s %s: it did not answer lately (%s)", s.Protocol.Service, a.AddrPort, table)
			w.reasons = append(w.reasons, s.silence(a))
		case w.tried[spot{s.Protocol.Service, a.AddrPort, ""}], w.tried[s.spot(a.AddrPort)]:
			w.job.tracef("skip %s %s: it was tried already", s.Protocol.Service, a.AddrPort)
		default:
			addrs = append(addrs, a.AddrPort)
		}
	}
	return addrs
}

// budget is how many addresses this delivery may still try.
func (w *walk) budget() dial.Budget {
	return dial.Budget{Slow: dial.MaxSlow - (len(w.tried) - w.quick), Quick: dial.MaxQuick - w.quick}
}

func (w *walk) enough(s *Step) {
	w.job.tracef("skip %s %s: %d addresses, or %d that refuse at once, are enough for one delivery",
		s.Protocol.Service, cmp.Or(s.Host, "address"), dial.MaxSlow, dial.MaxQuick)
}

// spot is that of a connection to addr.
func (s *Step) spot(addr netip.AddrPort) spot {
	t := spot{service: s.Protocol.Service, addr: addr}
	if s.Requirement.First != policy.Clear {
		t.name = strings.ToLower(s.Host)
	}
	return t
}

// A link is what an attempt is carried out on.
type link struct {
	addr netip.AddrPort
	conn *net.TCPConn // new; nil: the session of hold is used
	hold *hold        // nil in a process with one delivery
}

// connect connects to one of addrs, or, if addrs is one address that was tried before,
// connects to it again, for v. In a process with many deliveries it may find a session that was
// kept, and it may have to wait; the error is that of a delivery that has waited in vain.
func (w *walk) connect(ctx context.Context, s *Step, addrs []netip.AddrPort, v *visit) (*link, []dial.Failure, error) {
	left := w.budget()
	again := w.tried[s.spot(addrs[0])]
	if again {
		left = dial.Budget{Slow: 1, Quick: 1}
	}
	if left.Spent() {
		w.enough(s)
		return nil, nil, nil
	}
	h, err := w.wait(ctx, s, addrs, v)
	if err != nil {
		return nil, nil, err
	}
	if h.kept() != nil {
		return &link{addr: h.addr, hold: h}, nil, nil
	}
	if w.began.IsZero() {
		w.began = w.Now()
	}
	w.dialer.Admit = w.admit(ctx, h, s)
	conn, failures := w.race(ctx, s, h.first(addrs), left, again)
	if conn == nil && noDescriptor(failures) && h != nil && w.Shared.Line.MakeRoom() {
		var more []dial.Failure
		if conn, more = w.race(ctx, s, h.first(addrs), left, true); len(more) > 0 {
			failures = more
		}
	}
	if conn == nil {
		h.end()
		return nil, failures, nil
	}
	h.won()
	return &link{addr: dial.RemoteAddr(conn), conn: conn, hold: h}, failures, nil
}

// race connects to one of addrs. With again, that is not counted.
func (w *walk) race(ctx context.Context, s *Step, addrs []netip.AddrPort, left dial.Budget, again bool) (*net.TCPConn, []dial.Failure) {
	w.dialer.From = s.sources()
	w.probe.connecting(s, addrs)
	conn, failures := w.dialer.Race(ctx, addrs, left, s.ForeignPort)
	if again {
		return conn, failures // it was counted
	}
	for _, f := range failures {
		t := spot{s.Protocol.Service, f.Addr, ""}
		if !f.Late && !w.tried[t] {
			w.quick++
		}
		w.tried[t] = true
	}
	if conn != nil {
		w.tried[s.spot(dial.RemoteAddr(conn))] = true
	}
	return conn, failures
}

// late reports whether the time in which attempts may be started is over.
func (w *walk) late() bool {
	limit := w.Settings.TimeoutRemote
	return limit > 0 && !w.began.IsZero() && w.Now().Sub(w.began) >= limit
}

func (w *walk) noConnection(s *Step, f dial.Failure, notes []string) {
	var source *dial.SourceError
	if errors.As(f.Err, &source) {
		w.reasons = append(w.reasons, s.noSource(f.Addr, source).With(notes...))
		return
	}
	w.reasons = append(w.reasons, report.New(report.NoConnection, report.Facts{
		Protocol: strings.ToUpper(s.Protocol.Service),
		Detail:   fmt.Sprintf("%s: %v", place(s, f.Addr), f.Err),
	}).With(notes...))
}

// firstVisit returns the visit for the first attempt at addr, which has begun.
func (w *walk) firstVisit(s *Step, addr netip.AddrPort) *visit {
	v := w.visitOf(s, addr)
	if v.addr.AvoidLine > 0 {
		note := fmt.Sprintf("%s is not asked for %s (control/smtpavoid:%d)", addr.Addr(), v.addr.Avoid, v.addr.AvoidLine)
		w.job.tracef("%s", note)
		v.notes = append(v.notes, note+".")
	}
	return v
}

// visitOf returns the visit for a first attempt at addr.
func (w *walk) visitOf(s *Step, addr netip.AddrPort) *visit {
	v := &visit{step: s, addr: &Address{AddrPort: addr}}
	for i := range s.Addresses {
		if s.Addresses[i].AddrPort == addr {
			v.addr = &s.Addresses[i]
		}
	}
	v.manner = transport.Manner(w.firstLevel(s), v.addr.Avoid)
	return v
}

// firstLevel is how much TLS the first attempt at an address of s has. Where TLS is taken as it
// comes, a server that refuses STARTTLS gets the message in the clear on the same connection: one
// that is too young for that asks for TLS, and follows the rungs.
func (w *walk) firstLevel(s *Step) policy.Level {
	if s.Requirement.First == policy.May && w.tooYoung() {
		return policy.Must
	}
	return s.Requirement.First
}

// visit tries one address, rung after rung of what is required of it, until reports end the
// delivery or nothing is left in this pass. conn is nil for an address that is to be
// connected to again. All that can follow a failure is read here in one piece; the rungs
// themselves are in package policy.
func (w *walk) visit(ctx context.Context, v *visit, l *link) (stream report.Stream, final bool) {
	for {
		if l == nil {
			if w.late() {
				return report.Only(w.lastReason()), true
			}
			var failures []dial.Failure
			var err error
			if l, failures, err = w.connect(ctx, v.step, []netip.AddrPort{v.addr.AddrPort}, v); err != nil {
				return report.Only(report.For(err)), true
			}
			for _, f := range failures {
				w.probe.unconnected(ctx, v.step, f)
				w.noConnection(v.step, f, v.notes)
			}
		}
		connected := l != nil
		if connected {
			stream, err := w.attempt(ctx, v, l)
			if l = nil; w.renews(v, err) {
				continue
			}
			if stream, final := w.settled(v, stream, err); final {
				return stream, true
			}
		}
		if v.failure == nil {
			return report.Stream{}, false // it began anew, and cannot be connected to any more
		}
		v.next = v.step.Requirement.Next(v.manner, v.failure, w.pass, connected)
		if v.next != nil && v.next.ReplacesTLS(v.manner, v.failure) && w.tooYoung() {
			w.staysSecure(v)
			return report.Stream{}, false
		}
		if v.next == nil {
			return report.Stream{}, false
		}
		if v.next.In > w.pass {
			w.job.tracef("later: %s %s", v.addr, v.next.Words)
			w.waiting[v.next.In] = append(w.waiting[v.next.In], v)
			return report.Stream{}, false
		}
		w.climb(v)
	}
}

// tooYoung reports whether control/clearafter keeps the message from being sent in the clear in
// place of TLS that failed. A message that is no file has no age.
func (w *walk) tooYoung() bool {
	if w.Settings.ClearAfter == 0 {
		return false
	}
	info, err := w.job.Message.Stat()
	return err == nil && info.Mode().IsRegular() && policy.TooYoung(info.ModTime(), w.Now(), w.Settings.ClearAfter)
}

// staysSecure has the report of v say that only its age keeps the message from clear text.
func (w *walk) staysSecure(v *visit) {
	line := report.TooYoungLine(int64(w.Settings.ClearAfter / time.Second))
	w.job.tracef("left: %s %s", v.addr, line)
	last := &w.reasons[len(w.reasons)-1]
	*last = last.With(line)
}

// climb has v go on to its next rung.
func (w *walk) climb(v *visit) {
	w.job.tracef("retry %s %s", v.addr, v.next.Words)
	v.notes = append(v.notes, fmt.Sprintf("Tried again %s, after: %s", v.next.Words, clip(oneLine(v.failure.Reason.Text))))
	v.manner = v.step.Requirement.Take(v.next, v.manner, v.failure)
}

// attempt carries out one attempt on l, which it closes or gives back, in a panic too.
func (w *walk) attempt(ctx context.Context, v *visit, l *link) (report.Stream, error) {
	over := false
	defer func() {
		if !over {
			w.abandon(l)
		}
	}()
	stream, err := w.attemptOn(ctx, v, l)
	over = true
	return stream, err
}

func (w *walk) attemptOn(ctx context.Context, v *visit, l *link) (report.Stream, error) {
	if l.conn == nil {
		return w.reuse(ctx, v, l)
	}
	w.job.tracef("attempt %s with %s: %s", v.addr, v.step.Protocol.Service, v.step.Why)
	if v.addr.SourceLine > 0 {
		w.job.tracef("from %s helo %s (control/sources:%d)", dial.LocalAddr(l.conn).Addr(), v.addr.Identity.HeloHost, v.addr.SourceLine)
	}
	if w.party != nil && v.step.InProcess {
		return w.converse(ctx, v, l)
	}
	defer l.conn.Close()
	defer l.hold.end()
	if w.probe != nil {
		return w.probe.attempt(ctx, l.conn, v, *w.mail)
	}
	ours := dial.LocalAddr(l.conn).Addr()
	done, err := w.party.alone(ctx, w.mail)
	if err != nil {
		return report.Stream{}, err
	}
	stream, securing, err := w.carrier.Carry(ctx, l.conn, v.step.target(v.addr, v.manner), w.mail, v.step.InProcess)
	done(err)
	w.job.owe(debt{make: func() *tlsrpt.Datagram { return meeting{securing, ours, v.addr.Addr()}.report(v.step) }})
	return stream, err
}

// settled reports whether an attempt ends the delivery, and with which reports. The
// reason of one that does not is remembered, and the message set back.
func (w *walk) settled(v *visit, stream report.Stream, err error) (report.Stream, bool) {
	var none *report.NoTransaction
	if errors.As(err, &none) {
		w.job.tracef("left: %s", oneLine(none.Reason.Text))
		v.failure = none
		w.reasons = append(w.reasons, none.Reason.With(v.notes...))
		if err := w.mail.Message.Rewind(); err != nil {
			w.job.tracef("no further attempt: %v", err)
			return report.Only(w.lastReason()), true
		}
		return report.Stream{}, false
	}
	return w.final(v, stream, err), true
}

// final is the reports of an attempt that ends the delivery, with what was changed for it.
func (w *walk) final(v *visit, stream report.Stream, err error) report.Stream {
	var fuse *report.Fuse
	switch {
	case err == nil:
	case errors.As(err, &fuse):
		stream = fuse.Stream()
	default:
		stream = report.Only(report.For(err))
	}
	if stream.Message.Letter == report.Temporary {
		stream.Message = stream.Message.With(v.notes...)
	}
	return stream
}

// spoke reports whether the protocol was spoken with the address of v, as far as it was
// tried.
func (v *visit) spoke() bool {
	return v.step.Protocol.Explicit || v.failure == nil || !policy.OfTLS(v.failure)
}

// lastReason is what is reported when nothing is left to try.
func (w *walk) lastReason() report.Report {
	addrs := make(map[netip.Addr]bool)
	for t := range w.tried {
		addrs[t.addr.Addr()] = true
	}
	return lastReason(slices.Concat(w.without, w.reasons), len(addrs))
}

// lastReason returns the last of reasons, and how many addresses were tried. A permanent one
// stands only when all are: a server that could not be asked might have said yes. Otherwise it
// is the last temporary one.
func lastReason(reasons []report.Report, addrs int) report.Report {
	if len(reasons) == 0 {
		return report.New(report.NoConnection, report.Facts{Protocol: "SMTP"})
	}
	last := reasons[len(reasons)-1]
	for _, r := range reasons {
		if r.Letter == report.Temporary {
			last = r
		}
	}
	switch addrs {
	case 0:
		last.Text += "\nNo address was tried."
	case 1:
		last.Text += "\n1 address was tried."
	default:
		last.Text += fmt.Sprintf("\n%d addresses were tried; this is about the last.", addrs)
	}
	return last
}

// place is an address of s, as reports have it.
func place(s *Step, addr netip.AddrPort) string {
	if s.Host == "" {
		return fmt.Sprintf("%s port %d", addr.Addr(), addr.Port())
	}
	return fmt.Sprintf("%s (%s) port %d", s.Host, addr.Addr(), addr.Port())
}

func without(addrs []netip.AddrPort, addr netip.AddrPort) []netip.AddrPort {
	kept := make([]netip.AddrPort, 0, len(addrs))
	for _, a := range addrs {
		if a != addr {
			kept = append(kept, a)
		}
	}
	return kept
}

func oneLine(text string) string { return strings.ReplaceAll(text, "\n", " / ") }

// maxNote bounds what a note repeats of the reason for it, in bytes: a report has room for
// all of them.
const maxNote = 500

func clip(text string) string {
	if len(text) <= maxNote {
		return text
	}
	return strings.ToValidUTF8(text[:maxNote], "") + "..."
}
