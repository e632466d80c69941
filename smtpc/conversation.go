package smtpc

import (
	"errors"
	"time"

	"nightmare.mail/mxf/remote/report"
)

// An envelope is who the message is from and who it is to, as SMTP has it.
type envelope struct {
	sender     address
	recipients []address // those that can be sent
	index      []int     // where in the job each of them stands
	utf8       bool      // one of the addresses has a byte above 127
}

// deliver is the whole conversation, in the order of events.
func (s *session) deliver() (report.Stream, error) {
	if err := s.checkJob(); err != nil {
		return report.Stream{}, err
	}
	s.talking = s.job.Start != FromGreeting
	s.tls = report.ParseTLS(s.job.Environ, s.serverName(), s.job.TLS == Verify)

	env, m, err := s.prepare()
	if err != nil {
		s.quit("")
		return s.outcome(err)
	}
	for _, step := range []func() error{s.greet, s.hello, s.secure} {
		if err := step(); err != nil {
			return s.outcome(err)
		}
	}
	if err := s.fits(env, m); err != nil {
		s.quit("")
		return s.outcome(err)
	}
	return s.transact(env, m)
}

// prepare looks at what is to be sent, before the server is listened to.
func (s *session) prepare() (*envelope, *message, error) {
	env, err := s.envelope()
	if err != nil {
		f := s.facts()
		f.Reason = err.Error()
		return nil, nil, &report.Error{Case: report.BadSender, Facts: f, Err: err}
	}
	if len(env.recipients) == 0 {
		f := s.facts()
		f.Permanent = true
		return nil, nil, &report.Error{Case: report.AllRejected, Facts: f}
	}
	m, err := newMessage(s.job.Message)
	if err == nil && m.partial {
		err = errPartialLine
	}
	return env, m, err
}

// checkJob finds mistakes of the caller's.
func (s *session) checkJob() error {
	switch {
	case len(s.job.Recipients) == 0:
		return errors.New("a job without recipients")
	case s.job.HeloHost == "" && s.job.Start != FromMAIL:
		return errors.New("a job without a name to say in EHLO")
	case hasControl(s.job.HeloHost):
		return errors.New("a control byte in the name to say in EHLO")
	}
	return nil
}

func (s *session) serverName() string {
	if s.job.ServerName != "" {
		return s.job.ServerName
	}
	return s.job.RemoteIP
}

// envelope reads the job's addresses. A recipient that cannot be sent is
// reported so; a sender that cannot be sent is the error.
func (s *session) envelope() (*envelope, error) {
	sender, err := parseAddress(s.job.Sender, s.job.Quoted)
	if err != nil {
		return nil, err
	}
	env := &envelope{sender: sender, utf8: sender.utf8}
	s.reports = make([]report.Report, len(s.job.Recipients))
	for i, raw := range s.job.Recipients {
		a, err := parseAddress(raw, s.job.Quoted)
		if err != nil {
			f := s.facts()
			f.Reason = err.Error()
			s.reports[i] = report.New(report.RecipientMalformed, f)
			continue
		}
		env.recipients = append(env.recipients, a)
		env.index = append(env.index, i)
		env.utf8 = env.utf8 || a.utf8
	}
	return env, nil
}

// greet waits for the greeting.
func (s *session) greet() error {
	if s.job.Start != FromGreeting {
		return nil
	}
	r, err := s.receive()
	if err != nil {
		return err
	}
	s.talking = true
	if r.Code != 220 {
		return s.unwilling(report.GreetingFailed, r)
	}
	return nil
}

// unwilling ends a conversation in which the server wants no transaction.
func (s *session) unwilling(c report.Case, r *reply) error {
	s.quit("")
	f := s.facts()
	f.Reply = r.Message
	return report.NewNoTransaction(c, f, false)
}

// hello says EHLO, or HELO to a server that does not know EHLO, and learns the
// extensions.
func (s *session) hello() error {
	if s.job.Start == FromMAIL {
		return nil
	}
	s.caps = nil
	r, err := s.ask("EHLO " + s.job.HeloHost)
	switch {
	case err != nil:
		return err
	case r.Code == 250:
		s.caps = parseCapabilities(r)
		return nil
	case r.class() == 4:
		return s.unwilling(report.NameRejected, r)
	case r.class() != 5:
		return r.unexpected("EHLO")
	}
	if r, err = s.ask("HELO " + s.job.HeloHost); err != nil {
		return err
	}
	if r.Code != 250 {
		return s.unwilling(report.NameRejected, r)
	}
	return nil
}

// secure does what the policy says about STARTTLS, and says EHLO again after it.
func (s *session) secure() error {
	policy := s.job.TLS
	switch {
	case policy == None, s.tls != nil:
		return nil
	case s.job.StartTLS == nil && policy.required():
		return s.insecure("there is no TLS client", nil)
	case s.job.StartTLS == nil:
		return nil
	case !s.caps.offers(extStartTLS) && policy.required():
		return s.insecure("STARTTLS is not offered", nil)
	case !s.caps.offers(extStartTLS):
		return nil
	}
	r, err := s.ask("STARTTLS")
	switch {
	case err != nil:
		return err
	case r.Code == 220:
		return s.handshake()
	case r.refused() && (policy.required() || r.closing()):
		return s.insecure("STARTTLS was refused", r)
	case r.refused():
		return nil
	}
	return r.unexpected("STARTTLS")
}

// insecure ends a conversation that was to have TLS, or that the server ends
// instead of going on in the clear.
func (s *session) insecure(reason string, r *reply) error {
	s.quit("")
	f := s.facts()
	f.Reason = reason
	if r != nil {
		f.Reply = r.Message
	}
	return report.NewNoTransaction(report.TLSUnavailable, f, s.job.TLS.required())
}

// handshake makes TLS of the connection after the server's 220 to STARTTLS.
func (s *session) handshake() error {
	s.talking = false
	f := s.facts()
	err := s.nothingEarly()
	switch {
	case isLost(err) && s.ctx.Err() == nil:
		f.Reason = "server ended the connection instead of the handshake"
		return report.NewNoTransaction(report.TLSUnavailable, f, true)
	case isLost(err):
		return err
	case err != nil:
		f.Reason = err.Error()
		return report.NewNoTransaction(report.ProtocolError, f, s.job.TLS.required())
	}
	conn, environ, err := s.job.StartTLS(s.ctx)
	if err != nil {
		s.trace("= no TLS") // why, the router traces: in a chain it alone knows
		if s.ctx.Err() != nil {
			return &lostError{err}
		}
		f.Reason = err.Error()
		return report.NewNoTransaction(report.TLSUnavailable, f, true)
	}
	s.speakOn(conn)
	s.talking = true
	verify := s.job.TLS == Verify
	if s.tls = report.ParseTLS(environ, s.serverName(), verify); s.tls == nil {
		s.tls = &report.TLS{Version: "unknown", Cipher: "unknown", Verified: verify, ServerName: s.serverName()}
	}
	s.trace("= " + s.tls.String())
	return s.hello()
}

// nothingEarly finds plaintext that came in front of the handshake, where
// somebody between us and the server could have put it (CVE-2011-0411).
func (s *session) nothingEarly() error {
	if s.reader.Buffered() > 0 {
		return s.unasked()
	}
	c, tells := s.base.(interface{ Readable() bool })
	if tells && !c.Readable() {
		return nil
	}
	if !tells {
		s.setReadDeadline(time.Now().Add(earlyLimit))
		defer s.setReadDeadline(time.Time{})
	}
	if _, err := s.reader.Peek(1); err != nil {
		if timeout, ok := err.(interface{ Timeout() bool }); ok && timeout.Timeout() && !tells {
			return nil
		}
		return &lostError{err}
	}
	return s.unasked()
}

// fits tells of a message or an address that this server cannot take.
func (s *session) fits(env *envelope, m *message) error {
	f := s.facts()
	if env.utf8 && !s.job.Quoted && !s.caps.offers(extSMTPUTF8) {
		return report.NewNoTransaction(report.NeedsSMTPUTF8, f, false)
	}
	if limit := s.caps.sizeLimit(); limit > 0 && m.scanned && m.size > limit {
		f.Size, f.Limit = m.size, limit
		return &report.Error{Case: report.TooLarge, Facts: f}
	}
	return nil
}
