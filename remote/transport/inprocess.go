package transport

import (
	"cmp"
	"context"
	"errors"
	"net"
	"time"

	"golang.org/x/sys/unix"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/qmtpc"
	"nightmare.mail/mxf/remote/policy"
	"nightmare.mail/mxf/remote/report"
	"nightmare.mail/mxf/smtpc"
	"nightmare.mail/mxf/tlsc"
)

// inProcess carries an attempt out by calling the packages that the bundled programs are
// made of.
func (c *Carrier) inProcess(ctx context.Context, a *Attempt) (report.Stream, error) {
	var conn net.Conn = socket{a.Conn}
	var facts *report.TLS
	if a.Protocol.Implicit {
		tls, err := c.startTLS(ctx, a)
		if err != nil {
			return report.Stream{}, brokenTLS(err.Error(), err, a.ip())
		}
		conn, facts = tls, tlsFacts(a, tls)
	}
	speak := c.speakSMTP
	if a.Protocol.Program == control.QMTPProgram {
		speak = c.speakQMTP
	}
	stream, err := speak(ctx, a, conn, facts)
	var none *report.NoTransaction
	if !errors.As(err, &none) {
		return stream, err
	}
	if why := report.TLSFailure(err); why != "" && a.Protocol.Implicit {
		return stream, brokenTLS(why, none.Err, a.ip())
	}
	return stream, left(none.Reason, failure(none), none.Err)
}

// failure is what package policy has for the failure of a conversation, or nil.
func failure(err error) error {
	switch {
	case errors.Is(err, smtpc.ErrTLSFailed):
		return policy.ErrTLS
	case errors.Is(err, smtpc.ErrTLSNotOffered):
		return policy.ErrNotOffered
	case errors.Is(err, smtpc.ErrStumbled):
		return policy.ErrStumbled
	case errors.Is(err, smtpc.ErrEHLOLost):
		return policy.ErrEHLOLost
	}
	return nil
}

// brokenTLS is the failure of implicit TLS before a transaction began. That can come after
// the handshake: a server of TLS 1.3 looks at the client's certificate only when the client
// has finished.
func brokenTLS(why string, cause error, ip string) *report.NoTransaction {
	return left(report.New(report.TLSUnavailable, report.Facts{IP: ip, Reason: why}), policy.ErrTLS, cause)
}

func (c *Carrier) speakQMTP(ctx context.Context, a *Attempt, conn net.Conn, facts *report.TLS) (report.Stream, error) {
	ctx, stop := c.fuse(ctx, qmtpc.ErrFuse)
	defer stop()
	mail, err := qmtpc.Prepare(ctx, a.Sender, a.Recipients, a.Message.reader(), a.Trace)
	outcome := &qmtpc.Outcome{Err: err}
	if err == nil {
		defer mail.Close()
		outcome = qmtpc.Send(ctx, conn, mail, a.Trace)
	}
	stream, err := report.QMTP(outcome, c.peer(a, facts))
	if err == nil && !outcome.Unfinished() {
		conn.Close() // in TLS, with close_notify
	}
	return stream, err
}

func (c *Carrier) speakSMTP(ctx context.Context, a *Attempt, conn net.Conn, facts *report.TLS) (report.Stream, error) {
	ctx, stop := c.fuse(ctx, smtpc.ErrFuse)
	defer stop()
	options := &smtpc.Options{
		HeloHost:  c.Settings.HeloHost,
		TLS:       policies[a.Manner.TLS],
		Avoid:     a.avoid(),
		TLSFailed: a.Manner.TLSFailed,
		InTLS:     facts != nil,
		Limits:    smtpc.LimitsOf(c.Settings.TimeoutRemote, c.Settings.TimeoutConnect),
		Trace:     a.Trace,
	}
	spoken := conn
	if a.Protocol.Explicit && a.Manner.TLS != policy.Clear {
		options.StartTLS = func(ctx context.Context) (net.Conn, error) {
			tls, err := c.startTLS(ctx, a)
			if err != nil {
				return nil, err
			}
			spoken, facts = tls, tlsFacts(a, tls)
			if a.Trace != nil {
				a.Trace("= " + report.Diagnostic(facts.String()))
			}
			return tls, nil
		}
	}
	mail := smtpc.NewMail(a.Sender, a.Recipients, a.Message.reader(), false)
	outcome, ended := smtpc.Deliver(ctx, conn, options, mail)
	if !ended {
		a.Conn.Close() // beneath TLS
	}
	spoken.Close()
	return report.SMTP(outcome, c.peer(a, facts))
}

// fuse returns a context that ends by cause when timeoutremote is over.
func (c *Carrier) fuse(ctx context.Context, cause error) (context.Context, context.CancelFunc) {
	if c.Settings.TimeoutRemote == 0 {
		return ctx, func() {}
	}
	return context.WithTimeoutCause(ctx, c.Settings.TimeoutRemote, cause)
}

// peer is the server as reports mention it.
func (c *Carrier) peer(a *Attempt, facts *report.TLS) report.Peer {
	return report.Peer{IP: a.ip(), Port: int(a.Addr.Port()), Fuse: c.Settings.TimeoutRemote, TLS: facts}
}

// tlsFacts are what reports say of the TLS that conn is. That trust anchors cannot be read is
// a fault of the control file that names them, and their path stands there.
func tlsFacts(a *Attempt, conn *tlsc.Conn) *report.TLS {
	f := conn.Facts()
	t := &report.TLS{Version: f.Version, Cipher: f.Cipher, Verified: f.Verdict.Good(), ServerName: cmp.Or(f.ServerName, a.serverName())}
	if unusable := new(tlsc.AnchorsError); errors.As(f.Verdict.Cause, &unusable) {
		t.Fault = report.AnchorsFault(unusable.WithoutPath())
	}
	return t
}

// policies are the words of smtpc for the levels.
var policies = map[policy.Level]smtpc.Policy{
	policy.Clear: smtpc.None, policy.May: smtpc.May, policy.Must: smtpc.Must, policy.Verified: smtpc.Verify,
}

// A socket can tell whether something has arrived.
type socket struct{ *net.TCPConn }

// Readable tells, without waiting, whether Read would return at once.
func (s socket) Readable() bool {
	raw, err := s.SyscallConn()
	if err != nil {
		return true
	}
	readable := true
	_ = raw.Control(func(fd uintptr) {
		fds := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds[:], 0)
		readable = n > 0 || err != nil
	})
	return readable
}

// LoadTLS reads what the control files name for TLS: a client key that cannot be read, or
// trust anchors where each certificate is verified, stop all deliveries before anything is
// looked up. None becomes one in the clear because of them. That goes for TLS clients that a
// control file names too, which are given the same files. With once, trust anchors are not
// read again when their files change. Errors are *control.Error.
func (c *Carrier) LoadTLS(verify, once bool) error {
	s := c.Settings
	c.tls = &tlsc.Client{
		Anchors:  tlsc.Anchors{File: s.TrustAnchors.File, Dir: s.TrustAnchors.Dir},
		Now:      time.Now,
		ReadOnce: once,
	}
	if s.ClientCert != "" {
		var err error
		if c.tls.Certificate, err = tlsc.LoadCertificate(s.ClientCert, s.ClientKey); err != nil {
			file := "control/clientcert"
			if fault := new(tlsc.Error); errors.As(err, &fault) && fault.File == s.ClientKey {
				file = "control/clientkey"
			}
			return &control.Error{File: file, Line: 1, What: err.Error()}
		}
	}
	if !verify || s.TrustAnchors == (control.Anchors{}) {
		return nil // they are not needed yet, or a client that is named sees to its own
	}
	if err := c.tls.Load(); err != nil {
		return &control.Error{File: "control/trustanchors", Line: 1, What: err.Error()}
	}
	return nil
}

// startTLS makes the handshake on a's connection, as the control files want it.
func (c *Carrier) startTLS(ctx context.Context, a *Attempt) (*tlsc.Conn, error) {
	demand := &tlsc.Demand{
		ServerName: a.serverName(),
		NoSNI:      a.Manner.NoName,
		SmallHello: a.Manner.SmallHello,
		TimeLimit:  c.handshakeLimit(a.Protocol),
		Trace:      a.Trace,
	}
	if a.Manner.TLS == policy.Verified {
		demand.Judge = tlsc.TrustAnchors{}
	}
	conn, err := c.tls.Handshake(ctx, a.Conn, demand)
	if err != nil {
		var timeout net.Error
		if errors.As(err, &timeout) && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, err
	}
	return conn, nil
}
