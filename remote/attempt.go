package remote

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/remote/line"
	"nightmare.mail/mxf/remote/report"
	"nightmare.mail/mxf/remote/tlsrpt"
	"nightmare.mail/mxf/remote/transport"
	"nightmare.mail/mxf/smtpc"
	"nightmare.mail/mxf/tlsc"
)

// An attempt of a party over a session, new or kept: how it is carried out, what becomes of the session, and
// when it begins anew.

// maxCrowded is how often a delivery waits again because a server wants no more connections: one that
// says so to every attempt would have a delivery in the line for ever.
const maxCrowded = 3

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
// kept. Whoever gets reports in it is answered in it. The error is an *anewError where the attempt is no
// event for those who are left.
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

// sent is the end of an attempt that came as far as its transactions.
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
	l.conn, l.hold = nil, nil // from here on they belong to others
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

// packaged is the end of an attempt in QMTP: every recipient of the package has an answer.
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

// dismiss keeps session for others, or ends it. After a refusal RSET comes first; nobody waits for its
// answer.
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

// A renewal is what attempts that began anew at one address do without.
type renewal struct {
	fresh bool // a session that was kept
	full  bool // a TLS session
}

// An anewError says that an attempt is no event: it begins anew, on a new connection to the same address.
type anewError struct {
	why     string
	crowded *line.Lease // ended, because the server wants no more connections; nil: that is not why
	session bool        // because the handshake failed with a TLS session
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
