package remote

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"time"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/remote/dial"
	"nightmare.mail/mxf/remote/line"
	"nightmare.mail/mxf/remote/report"
	"nightmare.mail/mxf/remote/transport"
)

// How the walk asks the line, where deliveries share connections: before it chooses among exchangers of
// equal preference, before it connects, and for each address of a race.

// A hold is what an attempt has got from the line: the lease of a kept session, or of the room for a
// connection. A nil hold has nothing: the process has one delivery.
type hold struct {
	step  *Step
	addr  netip.AddrPort // that the lease was given for
	lease *line.Lease    // of that address; after a race, of the connection
	other *line.Lease    // in a race that another address has won: of the connection
}

// kept is the session that was kept; nil: there is the room for a connection.
func (h *hold) kept() *transport.Session {
	if h == nil || h.lease.Session() == nil {
		return nil
	}
	return h.lease.Session().(*transport.Session)
}

// first puts the address of the lease at the beginning of addrs.
func (h *hold) first(addrs []netip.AddrPort) []netip.AddrPort {
	if h == nil {
		return addrs
	}
	return slices.Concat([]netip.AddrPort{h.addr}, without(addrs, h.addr))
}

// won says that a race has ended with a connection. If another address has won, the lease that was waited
// for ends.
func (h *hold) won() {
	if h != nil && h.other != nil {
		h.lease.End()
		h.lease = h.other
	}
}

// end ends the lease.
func (h *hold) end() {
	if h != nil {
		h.lease.End()
	}
}

// pointers returns pointers to steps, in order.
func pointers(steps []Step) []*Step {
	all := make([]*Step, len(steps))
	for i := range steps {
		all[i] = &steps[i]
	}
	return all
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

// prefer asks the line for all exchangers of equal preference at the beginning of left, waits, and puts the
// one first for which the line grants something. With one exchanger it does nothing: connect waits then.
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
		w.granted = &hold{step: whose[lease.Want], addr: wants[lease.Want].Addr, lease: lease}
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

// isElsewhere reports whether the line has granted something at another exchanger than s.
func (w *walk) isElsewhere(s *Step) bool {
	return w.granted != nil && w.granted.step != s
}

// giveBack gives back what the line has granted and no attempt has taken.
func (w *walk) giveBack() {
	w.granted.end()
	w.granted = nil
}

// wait waits for a kept session at one of addrs, or for the room for a connection. The error is
// errElsewhere, or that of stand.
func (w *walk) wait(ctx context.Context, s *Step, addrs []netip.AddrPort, v *visit) (*hold, error) {
	if w.Shared == nil {
		return nil, nil
	}
	if g := w.granted; g != nil {
		w.granted = nil
		if g.step == s && slices.Contains(addrs, g.addr) {
			return g, nil
		}
		g.end()
	}
	wants := make([]line.Want, len(addrs))
	for i, addr := range addrs {
		wants[i] = w.want(ctx, s, addr, v)
	}
	var whose []*Step
	if v == nil { // else it has to be this address
		var others []line.Want
		others, whose = w.wants(ctx, w.equals)
		wants = append(wants, others...)
	}
	lease, err := w.stand(ctx, wants)
	if err != nil {
		return nil, err
	}
	h := &hold{step: s, addr: wants[lease.Want].Addr, lease: lease}
	if other := lease.Want - len(addrs); other >= 0 {
		h.step, w.granted = whose[other], h
		return nil, errElsewhere
	}
	return h, nil
}

// errElsewhere says that the line has granted something at an exchanger of equal preference.
var errElsewhere = errors.New("the line has granted another exchanger of equal preference")

// stand stands in line until one of wants is granted. A delivery that has waited before waits for what is
// left of connectionwait. The error is a *report.Error, or the cause of ctx.
func (w *walk) stand(ctx context.Context, wants []line.Want) (*line.Lease, error) {
	began := w.Now()
	lease, err := w.Shared.Line.Get(ctx, w.caller(), wants)
	w.waited += w.Now().Sub(began)
	if err != nil {
		return nil, w.lineError(err)
	}
	return lease, nil
}

// lineError is the error of a delivery that was not let into the line, or that has waited in vain.
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

// wants returns what is wanted of the line for the first attempts at steps, and the step of each.
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

// want is what is wanted of the line at addr: for v, or if v is nil for the first attempt there.
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

// admit returns what asks the line for each address that is raced. h has the lease of one of them.
func (w *walk) admit(ctx context.Context, h *hold, s *Step) func(netip.AddrPort) (func(*net.TCPConn), bool) {
	if h == nil {
		return nil
	}
	taken := false // the lease of h
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
