package smtpc

import (
	"context"
	"net"
)

// Deliver sends one mail on conn and ends the conversation: [Open], [Session.Send] and
// [Session.Quit] in one, for which m has the limits and the trace of o. A mail that cannot be
// sent is not opened for. Ended is what Quit returns; conn, and what StartTLS made of it, are left open.
func Deliver(ctx context.Context, conn net.Conn, o *Options, m *Mail) (outcome *Outcome, ended bool) {
	if outcome = m.Unsendable(); outcome != nil {
		return outcome, abandon(conn, o)
	}
	m.Limits, m.Trace = o.Limits, o.Trace
	s, _ := Open(ctx, conn, o) // Send has the error in its outcome
	outcome = s.Send(ctx, m)
	return outcome, s.Quit()
}

// abandon ends a conversation that somebody else has begun.
func abandon(conn net.Conn, o *Options) (ended bool) {
	s := newSession(conn, o)
	s.talking = o.Start != FromGreeting
	return s.Quit()
}

// NeedsReset reports whether the last message was refused, so that Reset has to come before the next.
func (s *Session) NeedsReset() bool { return s.unreset }
