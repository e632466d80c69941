package transport

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/qmtpc"
	"nightmare.mail/mxf/remote/login"
	"nightmare.mail/mxf/remote/policy"
	"nightmare.mail/mxf/remote/report"
	"nightmare.mail/mxf/smtpc"
	"nightmare.mail/mxf/tlsc"
)

// A session is a server to which this process speaks, with what is known of the TLS in
// between. It does not close the connection beneath.
type session struct {
	*Carrier
	target *Target
	under  *net.TCPConn
	tls    *tlsc.Conn     // nil: in the clear
	facts  *report.TLS    // of it
	smtp   *smtpc.Session // nil in QMTP, which has no sessions
	became Securing       // of STARTTLS
	probe  *Probe         // nil: the session is for deliveries
	opened bool           // something was said, or there was nothing to say
	ended  bool           // the conversation was brought to its end
}

// inProcess carries an attempt out by calling the packages that the bundled programs are
// made of.
func (c *Carrier) inProcess(ctx context.Context, conn *net.TCPConn, t *Target, m *Mail) (report.Stream, Securing, error) {
	s := &session{Carrier: c, target: t, under: conn, probe: m.Probe}
	stream, err := s.carry(ctx, m)
	return stream, s.became, err
}

func (s *session) carry(ctx context.Context, m *Mail) (report.Stream, error) {
	t := s.target
	if t.Protocol.Implicit {
		if err := s.secure(ctx, m.Trace); err != nil {
			return report.Stream{}, brokenTLS(err.Error(), err, t.ip())
		}
	}
	speak := s.sendSMTP
	if t.Protocol.Program == control.QMTPProgram {
		speak = s.sendQMTP
	}
	stream, err := speak(ctx, m)
	return stream, s.explained(err)
}

// explained is the error of a conversation, with the failure of package policy in it, if it has one.
func (s *session) explained(err error) error {
	var none *report.NoTransaction
	if !errors.As(err, &none) {
		return err
	}
	t := s.target
	if why := report.TLSFailure(err); why != "" && t.Protocol.Implicit {
		return brokenTLS(why, none.Err, t.ip())
	}
	return noTransaction(none.Reason, failure(none), none.Err)
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

// noTransaction is the error of an attempt that began no transaction, with what errors.Is is
// to find in it.
func noTransaction(reason report.Report, causes ...error) *report.NoTransaction {
	return &report.NoTransaction{Reason: reason, Err: errors.Join(causes...)}
}

// brokenTLS is the failure of implicit TLS before a transaction began. That can come after
// the handshake: a server of TLS 1.3 looks at the client's certificate only when the client
// has finished.
func brokenTLS(why string, cause error, ip string) *report.NoTransaction {
	return noTransaction(report.New(report.TLSUnavailable, report.Facts{IP: ip, Reason: why}), policy.ErrTLS, cause)
}

// secure makes TLS of the connection, as the target wants it.
func (s *session) secure(ctx context.Context, trace func(string)) error {
	manner := &s.target.Manner
	demand := &tlsc.Demand{
		ServerName: s.target.serverName(),
		Names:      strings.Fields(s.target.Names),
		NoSNI:      manner.NoName,
		SmallHello: manner.SmallHello,
		TimeLimit:  s.handshakeLimit(s.target.Protocol),
		Trace:      trace,

		Certificate: s.target.Identity.Pair,
		Session:     s.target.sessions(),
		Full:        s.target.NoSession,
	}
	if s.probe != nil {
		demand.Inspect = func(i tlsc.Inspection) { s.probe.TLS = &i }
	}
	if manner.TLS == policy.Verified {
		demand.Judge = s.target.Judge
	}
	if demand.Certificate == nil {
		demand.Certificate = tlsc.NoCertificate
	}
	conn, err := s.shake(ctx, demand)
	s.Counts.shaken(err == nil && conn.Facts().Resumed, err)
	if err != nil {
		var timeout net.Error
		if errors.As(err, &timeout) && ctx.Err() != nil {
			return ctx.Err()
		}
		return err
	}
	s.tls, s.facts = conn, s.describe(conn.Facts())
	return nil
}

// shake makes the handshake. Where a process has many deliveries it does so in a goroutine of its own: a
// handshake needs four times the stack of all else, and a goroutine that waits keeps the stack that it
// has once needed.
func (s *session) shake(ctx context.Context, demand *tlsc.Demand) (conn *tlsc.Conn, err error) {
	if s.Counts == nil {
		return s.TLS.Handshake(ctx, s.under, demand)
	}
	done := make(chan any)
	go func() {
		defer func() { done <- recover() }()
		conn, err = s.TLS.Handshake(ctx, s.under, demand)
	}()
	if cause := <-done; cause != nil {
		panic(cause) // as if it had come here
	}
	return conn, err
}

// describe is what reports say of TLS. That trust anchors cannot be read is a fault of the
// control file that names them, and their path stands there.
func (s *session) describe(f tlsc.Facts) *report.TLS {
	t := &report.TLS{Version: f.Version, Cipher: f.Cipher, Verified: f.Verdict.Good(), ServerName: cmp.Or(f.ServerName, s.target.serverName()), Word: s.target.Word}
	if unusable := new(tlsc.AnchorsError); errors.As(f.Verdict.Cause, &unusable) {
		t.Fault = report.AnchorsFault(unusable.WithoutPath())
	}
	return t
}

// conn is what is spoken on.
func (s *session) conn() net.Conn {
	if s.tls != nil {
		return s.tls
	}
	return socket{s.under}
}

// close ends the session. TLS that STARTTLS began is cut beneath where the conversation was not
// brought to its end. Implicit TLS is closed as a TLS client around a program closes it.
func (s *session) close(ended bool) {
	if !ended && !s.target.Protocol.Implicit {
		s.under.Close()
	}
	if s.tls != nil {
		s.tls.Close() // with close_notify, if the connection is there
	}
}

// peer is the server as reports mention it.
func (s *session) peer() report.Peer {
	return report.Peer{IP: s.target.ip(), Port: int(s.target.Addr.Port()), Fuse: s.Settings.TimeoutRemote, TLS: s.facts}
}

// fuse returns a context that ends by cause when timeoutremote is over.
func (s *session) fuse(ctx context.Context, cause error) (context.Context, context.CancelFunc) {
	if s.Settings.TimeoutRemote == 0 {
		return ctx, func() {}
	}
	return context.WithTimeoutCause(ctx, s.Settings.TimeoutRemote, cause)
}

func (s *session) sendQMTP(ctx context.Context, m *Mail) (report.Stream, error) {
	if m.Probe != nil {
		s.close(true)
		m.Probe.InTLS = s.tls != nil
		return report.Would(nil, s.peer()), nil
	}
	ctx, stop := s.fuse(ctx, qmtpc.ErrFuse)
	defer stop()
	mail, err := qmtpc.Prepare(ctx, m.Sender, m.Recipients, m.Message.reader(), m.Trace)
	outcome := &qmtpc.Outcome{Err: err}
	if err == nil {
		defer mail.Close()
		outcome = qmtpc.Send(ctx, s.conn(), mail, m.Trace)
	}
	stream, err := report.QMTP(outcome, s.peer())
	s.close(err == nil && !outcome.Unfinished())
	return stream, err
}

// sendSMTP opens a session of SMTP, sends one mail and quits. A mail that can be sent to
// nobody is not opened for.
func (s *session) sendSMTP(ctx context.Context, m *Mail) (report.Stream, error) {
	ctx, stop := s.fuse(ctx, smtpc.ErrFuse)
	defer stop()
	mail := smtpc.NewMail(m.Sender, m.Recipients, m.text(), false)
	mail.Limits, mail.Trace = s.limits(), m.Trace
	outcome, ended := mail.Unsendable(), false
	if outcome == nil {
		s.smtp, _ = smtpc.Open(ctx, s.conn(), s.options(m.Trace)) // Send has the error in its outcome
		outcome = s.send(ctx, mail)
		ended = s.smtp.Quit()
	}
	s.note(outcome)
	s.close(ended)
	return report.SMTP(outcome, s.peer())
}

// note remembers what became of STARTTLS.
func (s *session) note(outcome *smtpc.Outcome) {
	if t := s.target; t.Protocol.Explicit && t.Manner.TLS != policy.Clear {
		s.became = s.securing(outcome)
	}
}

// send sends a mail, or probes.
func (s *session) send(ctx context.Context, mail *smtpc.Mail) *smtpc.Outcome {
	p := s.probe
	if p == nil {
		return s.smtp.Send(ctx, mail)
	}
	outcome := s.smtp.Probe(ctx, mail, p.Ask)
	p.Greeting, p.Extensions, p.InTLS = s.smtp.Greeting(), s.smtp.Extensions(), s.smtp.InTLS()
	if s.smtp.LoggedIn() {
		p.Login = s.target.Identity.Login.Credential.String()
	}
	if p.Ask {
		p.Answers = outcome.Recipients
	}
	return outcome
}

// text is the message for an attempt in this process. A probe has none.
func (m *Mail) text() io.Reader {
	if m.Probe != nil {
		return nil
	}
	return m.Message.reader()
}

// limits are how long the server may take for one answer.
func (s *session) limits() smtpc.Limits {
	return smtpc.LimitsOf(s.Settings.TimeoutRemote, s.Settings.TimeoutConnect)
}

// options say how SMTP is spoken to the target.
func (s *session) options(trace func(string)) *smtpc.Options {
	o := &smtpc.Options{
		HeloHost:  s.target.Identity.HeloHost,
		TLS:       starttls(s.target.Manner.TLS),
		Avoid:     s.target.avoid(),
		TLSFailed: s.target.Manner.TLSFailed,
		InTLS:     s.tls != nil,
		Relay:     s.target.Relay != "",
		Verified:  s.target.Manner.TLS == policy.Verified,
		Exporter:  s.exporter,
		Buffers:   s.Buffers,
		Limits:    s.limits(),
		Trace:     trace,
	}
	if account := &s.target.Identity.Login; account.Line > 0 {
		o.Login = login.New(&account.Credential, account.Secret, s.target.Relay, s.target.Addr.Port())
	}
	if s.target.Protocol.Explicit && s.target.Manner.TLS != policy.Clear {
		o.StartTLS = func(ctx context.Context) (net.Conn, error) {
			if err := s.secure(ctx, trace); err != nil {
				return nil, err
			}
			if trace != nil {
				trace("= " + report.Diagnostic(s.facts.String()))
			}
			return s.tls, nil
		}
	}
	return o
}

// exporter returns the channel binding of the TLS that is up, nil where it has none.
func (s *session) exporter() []byte {
	if s.tls == nil {
		return nil
	}
	return s.tls.Exporter()
}

// starttls returns how a conversation at level uses STARTTLS.
func starttls(level policy.Level) smtpc.STARTTLS {
	switch level {
	case policy.Clear:
		return smtpc.Never
	case policy.May:
		return smtpc.IfOffered
	}
	return smtpc.Required
}

// A socket is a connection in the clear that reports whether something has arrived.
type socket struct{ *net.TCPConn }

// Readable reports, without waiting, whether Read would return at once.
func (s socket) Readable() bool {
	raw, err := s.SyscallConn()
	if err != nil {
		return true
	}
	readable := true
	_ = raw.Control(func(fd uintptr) {
		fds := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds[:], 0)
		for err == unix.EINTR { // a signal that was pending, such as one of Go's own: nothing has arrived because of it
			n, err = unix.Poll(fds[:], 0)
		}
		readable = n > 0 || err != nil
	})
	return readable
}

// NewTLS returns a TLS client for settings. With once, trust anchors are not read again when
// their files change.
func NewTLS(s *control.Settings, once bool, now func() time.Time) *tlsc.Client {
	return &tlsc.Client{Anchors: tlsc.Anchors{File: s.TrustAnchors.File, Dir: s.TrustAnchors.Dir}, Now: now, ReadOnce: once}
}

// Load reads what the control files name for TLS: a client key that cannot be read, or
// trust anchors where each certificate is verified, stop all deliveries before anything is
// looked up. None becomes one in the clear because of them. That goes for TLS clients that a
// control file names too, which are given the same files. Errors are *control.Error.
func (c *Carrier) Load(verify bool) error {
	s := c.Settings
	if s.ClientCert != "" {
		var err error
		if c.own, err = c.Certificates.Load(s.ClientCert, s.ClientKey); err != nil {
			file := "control/clientcert"
			if fault := new(tlsc.Error); errors.As(err, &fault) && fault.File == s.ClientKey {
				file = "control/clientkey"
			}
			return &control.Error{File: file, Line: 1, What: err.Error()}
		}
	}
	if !verify {
		return nil // they are not needed yet
	}
	return c.LoadAnchors()
}

// LoadAnchors reads the trust anchors, for a server whose certificate is verified. The error is a
// *control.Error. Where none are named there is none: a client that is named sees to its own.
func (c *Carrier) LoadAnchors() error {
	if c.Settings.TrustAnchors == (control.Anchors{}) {
		return nil
	}
	if err := c.TLS.Load(); err != nil {
		return &control.Error{File: "control/trustanchors", Line: 1, What: err.Error()}
	}
	return nil
}

// Identity is what we say about ourselves where no file says otherwise.
func (c *Carrier) Identity() Identity {
	return Identity{HeloHost: c.Settings.HeloHost, Certificate: c.Settings.ClientCert, Key: c.Settings.ClientKey, Pair: c.own}
}
