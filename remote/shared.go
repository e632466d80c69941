package remote

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/control/domain"
	"nightmare.mail/mxf/control/stamp"
	"nightmare.mail/mxf/remote/dial"
	"nightmare.mail/mxf/remote/line"
	"nightmare.mail/mxf/remote/report"
	"nightmare.mail/mxf/remote/tlsrpt"
	"nightmare.mail/mxf/remote/together"
	"nightmare.mail/mxf/remote/transport"
	"nightmare.mail/mxf/smtpc"
	"nightmare.mail/mxf/tlsc"
)

// What changes on the walk where a process carries out many deliveries: connections are counted and
// waited for, sessions are kept, and a job is carried out for all those who go with it.

const (
	// maxCrowded is how often a delivery waits again because a server wants no more connections.
	maxCrowded = 3
)

// Shared is what all deliveries of a process have in common, whatever the control files say. It is nil
// in a process with one delivery.
type Shared struct {
	Line    *line.Line
	Counts  *transport.Counts
	Scripts stamp.Memory[bool] // see transport.Carrier
	Buffers smtpc.Buffers
}

// A Company is the deliveries that a [Job] is carried out for, where others may go with the first, that
// of Recipients. One goroutine calls its methods, except LastByte.
type Company interface {
	// Take ends the joining, and returns the recipients, the first and at most most in all; 0: no
	// limit. The others are carried out by themselves. quiet: it first waits a moment for others. Nil:
	// nothing is to be sent any more.
	Take(ctx context.Context, most int, quiet bool) []string
	// Leave has some, by index in what Take returned, carried out by themselves.
	Leave(recipients []int)
	// LastByte is called before the write of the message's last byte to these begins.
	LastByte(recipients []int)
	// NotSent takes LastByte back.
	NotSent(recipients []int)
	// Answered has the reports of some, each once.
	Answered(answers []Answer)
}

// An Answer is the reports of one recipient, by index in what Take returned.
type Answer struct {
	Recipient int
	Stream    report.Stream
}

// Apart reports whether a delivery must go by itself: it has something that can be sent to nobody, which
// is nothing to the others.
func Apart(host, sender, recipient string) bool {
	return strings.ContainsAny(host+sender+recipient, domain.Forbidden) || !smtpc.IsRecipient(recipient)
}

// A party is the company of a job on its walk.
type party struct {
	Company
	walk     *walk
	taken    []string
	sequence *together.Sequence // nil: others may still join

	visit   *visit             // of the attempt under way
	session *transport.Session // of it
	none    error              // why an attempt has given no answer: a *report.NoTransaction
	ready   []Answer           // that are not given yet
	anew    string             // why some begin anew
	held    map[int]report.Stream
}

func newParty(w *walk) *party {
	if w.job.Company == nil {
		return nil
	}
	return &party{Company: w.job.Company, walk: w, held: make(map[int]report.Stream)}
}

// Begin implements transport.Company.
func (p *party) Begin(ctx context.Context, most int, quiet bool) *together.Sequence {
	if p.sequence != nil {
		return p.sequence
	}
	if p.taken = p.Take(ctx, most, quiet); len(p.taken) > 0 {
		p.sequence = together.NewSequence(p.taken, p)
	}
	return p.sequence
}

// Recipient implements transport.Company.
func (p *party) Recipient(n int) string { return p.taken[n] }

// Further implements transport.Company.
func (p *party) Further() {
	if len(p.ready) > 0 {
		p.Answered(p.ready)
	}
	p.ready = nil
}

// Answer implements together.Deliveries.
func (p *party) Answer(n int, o *smtpc.Outcome) (taken bool) {
	stream, err := p.session.Report(o)
	if none := new(report.NoTransaction); errors.As(err, &none) {
		p.none = err
		return false
	}
	p.ready = append(p.ready, Answer{n, p.walk.final(p.visit, stream, err)})
	return true
}

// Anew implements together.Deliveries.
func (p *party) Anew(_ int, why string) { p.anew = why }

// end answers those who were refused for now and could not be offered once more.
func (p *party) end() {
	for _, n := range p.left() {
		if stream, held := p.held[n]; held {
			p.ready = append(p.ready, Answer{n, stream})
		}
	}
	p.Further()
}

// left are those without an answer; nil where others may still join.
func (p *party) left() []int {
	if p.sequence == nil {
		return nil
	}
	return p.sequence.Left()
}

// alone has a program, which gets one recipient, carry the attempt out for the first. Others of whom it
// is known already that they go in it are left to themselves. The program may send the last byte at any
// time; done says that it has ended, and how. The error is that of a delivery that is not to be made.
func (p *party) alone(ctx context.Context, m *transport.Mail) (done func(error), err error) {
	if p == nil {
		return func(error) {}, nil
	}
	if p.Begin(ctx, 1, false) == nil {
		return nil, cmp.Or(context.Cause(ctx), context.Canceled)
	}
	left := p.left()
	p.Leave(left[1:])
	p.sequence.Only(left[0])
	m.Recipients = []string{p.taken[left[0]]}
	p.LastByte(left[:1])
	return func(err error) {
		if none := new(report.NoTransaction); errors.As(err, &none) {
			p.NotSent(left[:1])
		}
	}, nil
}

// A renewal is what is known of attempts that began anew at one address.
type renewal struct {
	fresh bool // no session that was kept is taken any more
	full  bool // no TLS session either
}

// An anewError says that an attempt is no event: it begins anew, on a new connection to the same address.
type anewError struct {
	why     string
	crowded *line.Lease // that the server wants no more connections has ended; nil: that is not why
	session bool        // the handshake failed with a TLS session
}

func (e *anewError) Error() string { return e.why }

// renews reports whether the attempt that err has ended begins anew.
func (w *walk) renews(v *visit, err error) bool {
	var anew *anewError
	if !errors.As(err, &anew) {
		return false
	}
	w.job.tracef("anew: %s", oneLine(anew.why))
	w.Shared.Counts.Anew.Add(1)
	switch {
	case anew.crowded != nil:
		w.crowded++
		w.back = anew.crowded
	case anew.session:
		v.full = true
	default:
		v.fresh = true
	}
	return w.mail.Message.Rewind() == nil
}

// pointers returns the steps themselves.
func pointers(steps []Step) []*Step {
	all := make([]*Step, len(steps))
	for i := range steps {
		all[i] = &steps[i]
	}
	return all
}

// A grant is a place that the line has given for the next connection.
type grant struct {
	step *Step
	hold *hold
}

// equalsOf returns those of left that stand as well as its first, and come after it; a twin, and what
// has no equals, has none.
func equalsOf(left []*Step) []*Step {
	first := left[0]
	if first.Standing == "" || first.Twin {
		return nil
	}
	end := 1
	for end < len(left) && left[end].Standing == first.Standing {
		end++
	}
	return left[1:end]
}

// prefer puts that one of the exchangers of equal preference at the beginning of left to which a session
// is kept, or to which there may be a connection, and waits for one of them. Without others it does
// nothing: whoever connects waits then.
func (w *walk) prefer(ctx context.Context, left []*Step) ([]*Step, error) {
	if w.Shared == nil {
		return left, nil
	}
	if w.granted == nil {
		wants, whose := w.wants(ctx, left[:1+len(equalsOf(left))])
		if len(wants) == 0 || whose[0] == whose[len(whose)-1] {
			return left, nil
		}
		lease, err := w.stand(ctx, wants)
		if err != nil {
			return nil, err
		}
		w.granted = &grant{step: whose[lease.Want], hold: &hold{addr: wants[lease.Want].Addr, lease: lease}}
	}
	i := slices.Index(left, w.granted.step)
	if i < 0 {
		return left, nil
	}
	end := i + 1
	for end < len(left) && left[end].Twin {
		end++
	}
	return slices.Concat(left[i:end], left[:i], left[end:]), nil
}

// wants are what is wanted of the line for the first attempts at steps, and whose each is.
func (w *walk) wants(ctx context.Context, steps []*Step) (wants []line.Want, whose []*Step) {
	for _, s := range steps {
		if s.Twin || s.Err != nil {
			continue
		}
		for _, addr := range w.untried(s) {
			wants, whose = append(wants, w.want(ctx, s, addr, nil)), append(whose, s)
		}
	}
	return wants, whose
}

// isElsewhere reports whether the line has given a place at another exchanger than s.
func (w *walk) isElsewhere(s *Step) bool {
	return w.granted != nil && w.granted.step != s
}

// untried returns the addresses of s that may be tried, in order.
func (w *walk) untried(s *Step) (addrs []netip.AddrPort) {
	for i := range s.Addresses {
		a := &s.Addresses[i]
		if a.Silent == 0 && !w.tried[spot{s.Protocol.Service, a.AddrPort, ""}] && !w.tried[s.spot(a.AddrPort)] {
			addrs = append(addrs, a.AddrPort)
		}
	}
	return addrs
}

// A hold is the place of one attempt in the line. A nil hold has none.
type hold struct {
	addr  netip.AddrPort // of the place that was waited for
	lease *line.Lease    // for it; after a race, that of the connection
	other *line.Lease    // in a race that another address has won: that of the connection
}

// won says that a race has ended with a connection. The place that was waited for is given back where
// another one has won.
func (h *hold) won() {
	if h != nil && h.other != nil {
		h.lease.End()
		h.lease = h.other
	}
}

// admit returns what asks the line for each address that is raced, where h has the place of one.
func (w *walk) admit(ctx context.Context, h *hold, s *Step) func(netip.AddrPort) (func(*net.TCPConn), bool) {
	if h == nil {
		return nil
	}
	taken := false // the place that was waited for
	return func(addr netip.AddrPort) (done func(*net.TCPConn), admitted bool) {
		lease := h.lease
		if addr != h.addr || taken {
			if lease = w.Shared.Line.Try(w.want(ctx, s, addr, nil)); lease == nil {
				return nil, false
			}
		}
		taken = taken || addr == h.addr
		return func(conn *net.TCPConn) {
			switch {
			case conn == nil:
				lease.End()
			case lease != h.lease:
				h.other = lease
			}
		}, true
	}
}

// noDescriptor reports whether connections failed because there is no descriptor left.
func noDescriptor(failures []dial.Failure) bool {
	return slices.ContainsFunc(failures, func(f dial.Failure) bool { return dial.NoDescriptor(f.Err) })
}

// giveBack gives back a place that nobody has taken.
func (w *walk) giveBack() {
	if w.granted != nil {
		w.granted.hold.end()
		w.granted = nil
	}
}

// wait waits for a place at one of addrs, or a session there.
func (w *walk) wait(ctx context.Context, s *Step, addrs []netip.AddrPort, v *visit) (*hold, error) {
	if w.Shared == nil {
		return nil, nil
	}
	if g := w.granted; g != nil {
		w.granted = nil
		if g.step == s && slices.Contains(addrs, g.hold.addr) {
			return g.hold, nil
		}
		g.hold.end()
	}
	wants := make([]line.Want, len(addrs))
	for i, addr := range addrs {
		wants[i] = w.want(ctx, s, addr, v)
	}
	var whose []*Step
	if v == nil { // else it is to be this address
		var others []line.Want
		others, whose = w.wants(ctx, w.equals)
		wants = append(wants, others...)
	}
	lease, err := w.stand(ctx, wants)
	if err != nil {
		return nil, err
	}
	h := &hold{addr: wants[lease.Want].Addr, lease: lease}
	if lease.Want >= len(addrs) {
		w.granted = &grant{step: whose[lease.Want-len(addrs)], hold: h}
		return nil, errElsewhere
	}
	return h, nil
}

// errElsewhere says that there is a place at another exchanger, in granted.
var errElsewhere = errors.New("there is a place at an exchanger of equal preference")

// stand stands in line until there is a place at one of wants. A delivery that has waited before waits
// for what is left of connectionwait.
func (w *walk) stand(ctx context.Context, wants []line.Want) (*line.Lease, error) {
	began := w.Now()
	lease, err := w.Shared.Line.Get(ctx, w.caller(), wants)
	w.waited += w.Now().Sub(began)
	if err != nil {
		return nil, w.lineError(err)
	}
	return lease, nil
}

// lineError is the error of a delivery that was not let in, or whose time was over.
func (w *walk) lineError(err error) error {
	full := new(line.FullError)
	if !errors.As(err, &full) {
		return err
	}
	w.Shared.Counts.Line.Add(1)
	return &report.Error{Case: report.LineFull, Err: err, Facts: report.Facts{
		Host: cmp.Or(full.Host, full.Addr.String()), IP: full.Addr.String(), Limit: int64(full.N), Seconds: max(int64(full.Seconds), int64(w.Sharing.Wait/time.Second))}}
}

// caller is how long this delivery waits.
func (w *walk) caller() line.Caller {
	c := line.Caller{Wait: w.Sharing.Wait, Back: w.back, Position: func(addr netip.AddrPort, position int) {
		w.job.tracef("line %s: %d", addr.Addr(), position)
	}}
	if w.back == nil { // else the line knows how long it has waited
		c.Wait = max(0, c.Wait-w.waited)
	}
	w.back = nil
	info, err := w.job.Message.Stat()
	if err == nil && w.Now().Sub(info.ModTime()) > w.Sharing.QueueLifetime {
		c.Always, c.Wait = true, w.Settings.TimeoutRemote
	}
	return c
}

// want is what is wanted of the line at addr, for the first attempt there or for v.
func (w *walk) want(ctx context.Context, s *Step, addr netip.AddrPort, v *visit) line.Want {
	if v == nil {
		v = w.visitOf(s, addr)
	}
	t := w.target(v)
	return line.Want{
		Key: w.carrier.Key(ctx, t), Addr: addr, Exchanger: s.Host, Limit: w.Sharing.Limits.For(s.Host, addr.Addr()),
		New:      v.fresh,
		Keepable: s.InProcess && !s.Protocol.QMTP() && s.Protocol.Program == control.SMTPProgram,
	}
}

// target is the server that v leads to.
func (w *walk) target(v *visit) *transport.Target {
	t := v.step.target(v.addr, v.manner)
	t.NoSession = v.full
	return t
}

// kept is the session that was kept; nil: none.
func (h *hold) kept() *transport.Session {
	if h == nil || h.lease == nil || h.lease.Session() == nil {
		return nil
	}
	return h.lease.Session().(*transport.Session)
}

// first puts the address that was waited for at the beginning of addrs.
func (h *hold) first(addrs []netip.AddrPort) []netip.AddrPort {
	if h == nil {
		return addrs
	}
	return slices.Concat([]netip.AddrPort{h.addr}, without(addrs, h.addr))
}

// end gives all places back.
func (h *hold) end() {
	if h == nil || h.lease == nil {
		return
	}
	h.lease.End()
}

// reuse carries an attempt out over a session that was kept.
func (w *walk) reuse(ctx context.Context, v *visit, l *link) (report.Stream, error) {
	session := l.hold.kept()
	w.job.tracef("reuse %s (message %d)", l.addr, l.hold.lease.Messages()+1)
	session.Resume(&w.carrier)
	stream, err := w.carry(ctx, v, l, session)
	if anew := new(anewError); !errors.As(err, &anew) {
		w.tried[v.step.spot(l.addr)] = true
	}
	return stream, err
}

// converse carries an attempt out over a new connection, in this process.
func (w *walk) converse(ctx context.Context, v *visit, l *link) (report.Stream, error) {
	return w.carry(ctx, v, l, w.carrier.NewSession(l.conn, w.target(v)))
}

// carry carries an attempt out over session, for the whole party, and keeps the session if it can be
// kept. Those who have got their reports in it have been answered. The error is an *anewError where
// the attempt is no event for the others.
func (w *walk) carry(ctx context.Context, v *visit, l *link, session *transport.Session) (report.Stream, error) {
	lease, limit, p := l.hold.lease, w.Sharing.Limits.For(v.step.Host, l.addr.Addr()), w.party
	ours := session.LocalAddr()
	w.mail.Most, w.mail.MostMessages = limit.Recipients, limit.Messages
	w.mail.Greeted, w.mail.Sent, w.mail.Accepted = lease.Greeted, lease.Sent, lease.Accepted
	p.visit, p.session, p.none, p.anew = v, session, nil, ""
	c := session.Carry(ctx, w.mail, p)
	resuming := c.Err != nil && !v.full && errors.Is(c.Err, tlsc.ErrResumption)
	if c.Opened && !resuming {
		w.job.owe(debt{make: func() *tlsrpt.Datagram { return meeting{c.Securing, ours, v.addr.Addr()}.report(v.step) }})
	}
	switch {
	case c.End != nil:
		return w.sent(v, l, session, c, limit)
	case c.Packaged != nil:
		return w.packaged(v, lease, session, c.Packaged)
	}
	if !c.Opened {
		l.conn, l.hold = nil, nil
		w.dismiss(lease, session, limit) // nothing was said
		return c.Stream, c.Err
	}
	session.End()
	switch {
	case resuming:
		lease.End()
		return report.Stream{}, &anewError{why: "the handshake failed with a TLS session", session: true}
	case wantsNoMore(c.Err) && w.crowded < maxCrowded && lease.Crowded(ctx):
		return report.Stream{}, &anewError{why: "the server wants no more connections", crowded: lease}
	}
	lease.End()
	if c.LoginRefused && c.Err == nil {
		w.Refusals.Add(v.step.account, c.Stream.Message)
	}
	return c.Stream, c.Err
}

// sent is the end of an attempt whose transactions ended so.
func (w *walk) sent(v *visit, l *link, session *transport.Session, c *transport.Carried, limit control.ConnectionLimit) (report.Stream, error) {
	p, lease := w.party, l.hold.lease
	lease.Refused(c.End.Refusals)
	for _, n := range p.left() {
		if o := p.sequence.Held(n); o != nil {
			if stream, err := session.Report(o); err == nil {
				p.held[n] = w.final(v, stream, nil)
			}
		}
	}
	l.conn, l.hold = nil, nil // from here on they are others'
	w.dismiss(lease, session, limit)
	p.Further()
	left := p.left()
	switch {
	case len(left) == 0:
		return report.Stream{}, nil
	case c.Late:
		return c.Stream, nil
	}
	w.mail.Recipients = []string{p.taken[left[0]]}
	if c.End.Outcome == nil {
		return report.Stream{}, &anewError{why: cmp.Or(p.anew, c.End.Why)}
	}
	return report.Stream{}, p.none
}

// packaged is the end of an attempt in QMTP.
func (w *walk) packaged(v *visit, lease *line.Lease, session *transport.Session, streams map[int]report.Stream) (report.Stream, error) {
	session.End()
	for _, stream := range streams {
		if stream.Message.Letter == report.Delivered {
			lease.Accepted()
			break
		}
	}
	lease.End()
	for _, n := range slices.Sorted(maps.Keys(streams)) {
		w.party.ready = append(w.party.ready, Answer{n, w.final(v, streams[n], nil)})
	}
	w.party.Further()
	return report.Stream{}, nil
}

// abandon closes what a panic has left of an attempt on l. Answers that came before it count.
func (w *walk) abandon(l *link) {
	defer l.hold.end()
	if w.party != nil {
		defer w.party.Further()
	}
	if l.conn != nil {
		l.conn.Close()
	}
	if session := l.hold.kept(); session != nil {
		session.End()
	}
}

// wantsNoMore reports whether a server may have refused a connection only because there are others: with
// 4xx as its greeting or to EHLO, or by hanging up before its greeting.
func wantsNoMore(err error) bool {
	var refused *smtpc.RefusedError
	var broken *smtpc.BrokenError
	var silence *smtpc.SilenceError
	switch {
	case errors.As(err, &refused):
		return (refused.Stage == smtpc.StageGreeting || refused.Stage == smtpc.StageEHLO) && refused.Cause == nil && refused.Reply.Code/100 == 4
	case errors.As(err, &broken):
		return broken.Stage == smtpc.StageGreeting && errors.Is(broken, smtpc.ErrLost) && !errors.As(err, &silence)
	}
	return false
}

// dismiss keeps session for others, or ends it. Nobody waits for the answer to RSET.
func (w *walk) dismiss(lease *line.Lease, session *transport.Session, limit control.ConnectionLimit) {
	end := func() {
		session.End()
		lease.End()
	}
	keeping := line.Keeping{Idle: w.Sharing.Idle, MaxMessages: session.MostMessages(limit.Messages), Made: session.Made()}
	switch {
	case !session.MayBeKept() || keeping.Idle == 0:
		end()
	case session.NeedsReset():
		go func() {
			defer func() {
				if recover() != nil {
					end()
				}
			}()
			if !session.Reset() {
				end()
				return
			}
			lease.Keep(session, keeping)
		}()
	default:
		lease.Keep(session, keeping)
	}
}
