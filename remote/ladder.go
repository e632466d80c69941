package remote

import (
	"errors"

	"nightmare.mail/mxf/remote/report"
	"nightmare.mail/mxf/smtpc"
	"nightmare.mail/mxf/tlsc"
)

// A manner is how a server is spoken to in one attempt.
type manner struct {
	explicit  bool // TLS begins in mid-conversation, which can do without it
	tls       smtpc.Policy
	noSNI     bool        // the handshake names no server
	small     bool        // the handshake begins with the smallest ClientHello
	avoid     smtpc.Avoid // what the server is not asked for
	tlsFailed bool        // TLS has failed, and clear text comes after it
}

// A pass says when a rung is tried.
type pass int

const (
	atOnce     pass = iota
	secondPass      // when all candidates have been tried
	lastPass        // and when nothing but this is left
	passes
)

// A rung is one more manner in which the same address is tried, on a new connection,
// after an attempt that began no transaction.
type rung struct {
	words  string // what is different, for the trace and the report
	in     pass
	after  func(manner, *report.NoTransaction) bool // the failures that lead here; false in a manner that has it
	change func(*manner)
}

// take changes m to the manner of r, after the failure e. Clear text that comes after TLS
// has failed is known as such, also when the server no longer offers TLS.
func (r *rung) take(m *manner, e *report.NoTransaction) {
	if m.explicit && e.Why == report.WantOfTLS {
		m.tlsFailed = true
	}
	r.change(m)
}

var (
	// smallHello is for what stands in the way of a ClientHello that takes two packets.
	smallHello = rung{"with the smallest ClientHello", atOnce,
		func(m manner, e *report.NoTransaction) bool {
			return m.tls != smtpc.None && !m.small && errors.Is(e, tlsc.ErrNoServerHello)
		},
		func(m *manner) { m.small = true }}

	// noName is for a server that has one certificate and insists on its own name.
	noName = rung{"without a server name", atOnce,
		func(m manner, e *report.NoTransaction) bool {
			return m.tls != smtpc.None && !m.noSNI && errors.Is(e, tlsc.ErrUnrecognizedName)
		},
		func(m *manner) { m.noSNI = true }}

	// oneByOne is for a server that stumbles over what qmail-remote would not have said.
	oneByOne = rung{"one command at a time, without parameters", atOnce,
		func(m manner, e *report.NoTransaction) bool {
			return e.Why == report.GroupStumbled && m.avoid.Or(smtpc.Plain) != m.avoid
		},
		func(m *manner) { m.avoid = m.avoid.Or(smtpc.Plain) }}

	// withHELO is for a server that hangs up on EHLO (RFC 1869 section 4.7). Without
	// EHLO there is no STARTTLS, which it might have had another day.
	withHELO = rung{"with HELO", lastPass,
		func(m manner, e *report.NoTransaction) bool { return e.Why == report.EHLOLost && !m.avoid.EHLO },
		func(m *manner) {
			m.avoid.EHLO = true
			if m.explicit && m.tls != smtpc.None {
				m.tls, m.tlsFailed = smtpc.None, true
			}
		}}
)

// inTheClear is for TLS that failed or is not offered, where it is a part of the
// conversation.
func inTheClear(in pass) rung {
	return rung{"in the clear", in,
		func(m manner, e *report.NoTransaction) bool {
			return m.explicit && m.tls != smtpc.None && e.NoTLS()
		},
		func(m *manner) { m.tls = smtpc.None }}
}

// A ladder is what control/tlsstrictness stands for: the TLS of the first attempt at
// an address, and what is tried after it, in this order.
type ladder struct {
	first smtpc.Policy
	rungs []rung
}

// ladders are those of tlsstrictness 0, 1 and 2.
var ladders = [...]ladder{
	{smtpc.May, []rung{smallHello, noName, oneByOne, inTheClear(atOnce), withHELO}},
	{smtpc.Must, []rung{smallHello, noName, oneByOne, inTheClear(secondPass), withHELO}},
	{smtpc.Verify, []rung{smallHello, oneByOne}},
}

// next returns the rung after the failure e of an attempt in manner m, or nil. Where
// the address could not even be connected to, it is one of a later pass than now.
func (l ladder) next(m manner, e *report.NoTransaction, now pass, connected bool) *rung {
	for i := range l.rungs {
		if r := &l.rungs[i]; r.after(m, e) && (connected || r.in > now) {
			return r
		}
	}
	return nil
}
