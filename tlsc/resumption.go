package tlsc

import (
	"context"
	"crypto/tls"
	"errors"
)

// ErrResumption says of a failed handshake that a session was offered in it. It says
// nothing about the server, its certificate or the network, whatever else errors.Is finds:
// only a handshake without a session does. See Demand.Full. The session is given up.
var ErrResumption = errors.New("a TLS session was offered")

// A resumption is one connection's part of Sessions. It is its tls.ClientSessionCache:
// crypto/tls asks for a session in the handshake, and hands out new ones at its end or, in
// TLS 1.3, whenever they come. Its calls do not overlap.
//
// The verdict on the certificates of a session is reached before the session is offered,
// with the clock and the anchors of then. So a session on which it has changed costs no
// connection: its server makes a full handshake at once, which may show other certificates,
// or another OCSP response.
type resumption struct {
	sessions *Sessions
	key      sessionKey
	wire     *wire
	offered  *session // nil: none
	verdict  Verdict  // on offered

	template session                 // of the sessions to keep; they differ in their tickets
	ready    bool                    // the template is complete
	staged   *tls.ClientSessionState // came before it was
}

// prepare looks for a session to offer. It does nothing where none are kept. The longer
// ClientHello that offers one is no small one.
func (h *handshake) prepare() {
	d, sessions := h.demand, h.client.Sessions
	if sessions == nil || d.Session == "" || d.SmallHello {
		return
	}
	r := &resumption{sessions: sessions, key: d.sessionKey(h.client), wire: h.wire}
	h.resumption = r
	if d.Full {
		return
	}
	s := sessions.take(r.key)
	if s == nil {
		return
	}
	v := h.reach(h.evidence(tls.ConnectionState{PeerCertificates: s.chain, OCSPResponse: s.staple}))
	if v.Fault != s.verdict.Fault || v.Reason != s.verdict.Reason {
		sessions.drop(r.key, s)
		return
	}
	r.offered, r.verdict = s, v
}

// Get is that of a tls.ClientSessionCache. Its keys are those of crypto/tls, and not ours.
func (r *resumption) Get(string) (*tls.ClientSessionState, bool) {
	if r.offered == nil {
		return nil, false
	}
	return r.offered.ticket, true
}

// Put is that of a tls.ClientSessionCache. nil is what it is given for a session that it
// has not offered, because its time is over, or in whose handshake something fails.
func (r *resumption) Put(_ string, ticket *tls.ClientSessionState) {
	switch {
	case ticket != nil && r.ready:
		r.keep(ticket)
	case ticket != nil:
		r.staged = ticket
	case r.offered != nil && !r.wire.begun:
		r.sessions.drop(r.key, r.offered)
		r.offered = nil
	}
}

// settle says of a handshake that is done, and failed in nothing, what its sessions have in
// common, and keeps the one that has come already. reached is the judge's verdict.
//
// Before TLS 1.3, sessions without an extended master secret are not kept, because their
// resumption may be that of somebody between (RFC 7627 section 5.3).
func (r *resumption) settle(state tls.ConnectionState, reached Verdict, scheme tls.SignatureScheme) {
	if r == nil || state.Version < tls.VersionTLS13 && !r.wire.plain.extended {
		return
	}
	r.template = session{chain: state.PeerCertificates, staple: state.OCSPResponse, verdict: reached, scheme: scheme, born: r.sessions.now()}
	if state.DidResume {
		r.template.born = r.offered.born
	}
	r.ready = true
	if r.staged != nil {
		r.keep(r.staged)
	}
}

// keep keeps a session with this ticket, if it is not too large.
func (r *resumption) keep(ticket *tls.ClientSessionState) {
	s := r.template
	s.ticket = ticket
	label, _, err := ticket.ResumptionState()
	size := len(label) + len(s.staple)
	for _, c := range s.chain {
		size += len(c.Raw)
	}
	if err != nil || size > sessionSize {
		return
	}
	s.until = s.born.Add(sessionAge)
	// crypto/tls knows the lifetime in TLS 1.3, and does not look at it in TLS 1.2.
	if said := r.wire.plain.lifetime; said > 0 {
		if until := r.sessions.now().Add(said); until.Before(s.until) {
			s.until = until
		}
	}
	r.sessions.put(r.key, &s)
}

// failed returns the error of a handshake, with the session given up if one was offered.
// Where the caller has had enough, nobody is to try again.
func (r *resumption) failed(ctx context.Context, err error) error {
	own := new(Error)
	if r == nil || r.offered == nil || !errors.As(err, &own) {
		return err
	}
	if ctx.Err() != nil {
		r.sessions.drop(r.key, r.offered)
		return err
	}
	r.sessions.bar(r.key)
	own.Offered = true
	return err
}

// judge returns the verdict on the certificates of a handshake.
func (h *handshake) judge(state tls.ConnectionState) Verdict {
	if r := h.resumption; r != nil && state.DidResume {
		return r.verdict
	}
	return h.reach(h.evidence(state))
}

// scheme is how the server has signed: a handshake that resumes a session has no signature
// of its own, and that of the full one counts.
func (h *handshake) scheme(state tls.ConnectionState) tls.SignatureScheme {
	if r := h.resumption; r != nil && state.DidResume {
		return r.offered.scheme
	}
	return h.wire.plain.scheme
}

// lost gives up a session with which the handshake succeeded, but nothing has come after
// it. Deadlines and a Close of ours say nothing.
func (c *Conn) lost(err error) {
	if c.facts.Resumed && !c.heard.Load() && err != nil && !isTimeout(err) && !isClosed(err) {
		c.resumption.sessions.bar(c.resumption.key)
	}
}
