package smtpc

import (
	"errors"

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
	s.tls = report.ParseTLS(s.job.Environ, s.serverName(), s.job.TLS == Verify, s.job.InTLS)

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
	r, err := s.receive(greeting, s.answerLimit())
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
	if s.securing {
		return s.insecure(report.TLSUnavailable, "it refused EHLO inside TLS", r)
	}
	s.quit("")
	f := s.facts()
	f.Reply = r.Message
	return s.none(report.NotNow, c, f, nil)
}

// hello says EHLO, or HELO to a server that does not know EHLO, and learns the
// extensions.
func (s *session) hello() error {
	if s.job.Start == FromMAIL {
		return nil
	}
	s.caps = nil
	var refused *reply
	if !s.job.Avoid.EHLO {
		r, err := s.ask("EHLO " + s.job.HeloHost)
		switch {
		case err != nil:
			return s.ehloLost(err, nil)
		case r.Code == 250:
			s.caps = s.job.Avoid.from(parseCapabilities(r))
			return nil
		case r.class() == 4:
			return s.unwilling(report.NameRejected, r)
		case r.class() != 5:
			return r.unexpected("EHLO")
		}
		refused = r
	}
	r, err := s.ask("HELO " + s.job.HeloHost)
	if err != nil {
		return s.ehloLost(err, refused)
	}
	if r.Code != 250 {
		return s.unwilling(report.NameRejected, r)
	}
	return nil
}

// ehloLost is the error of a server that has hung up on EHLO, or on the HELO after it
// refused EHLO: it may know HELO alone (RFC 1869 section 4.7).
func (s *session) ehloLost(err error, refused *reply) error {
	if refused != nil {
		s.note("EHLO was refused before", refused)
	}
	if !isLost(err) || s.ctx.Err() != nil || s.job.Avoid.EHLO || s.securing {
		return err
	}
	return s.none(report.EHLOLost, report.ConnectionDied, s.died(s.facts(), err), err)
}

// secure does what the policy says about STARTTLS, and says EHLO again after it.
func (s *session) secure() error {
	policy := s.job.TLS
	switch {
	case policy == None, s.tls != nil:
		return nil
	case s.job.StartTLS == nil && policy.required():
		return s.insecure(report.TLSUnavailable, "there is no TLS client", nil)
	case s.job.StartTLS == nil:
		return nil
	case !s.caps.offers(extStartTLS) && policy.required():
		return s.insecure(report.TLSNotOffered, "", nil)
	case !s.caps.offers(extStartTLS):
		return nil
	}
	s.securing = true
	defer func() { s.securing = false }()
	r, err := s.askWithin(s.job.TimeoutConnect, "STARTTLS")
	switch {
	case err != nil:
		return s.wantOfTLS(err)
	case r.Code == 220:
		return s.wantOfTLS(s.handshake())
	case !r.refused():
		return s.wantOfTLS(r.unexpected("STARTTLS"))
	case policy.required() || r.closing():
		return s.insecure(report.TLSUnavailable, "STARTTLS was refused", r)
	}
	// In the clear, then; if the server goes on.
	s.noTLS, s.refused = true, true
	s.note("STARTTLS was refused before", r)
	return nil
}

// insecure ends a conversation that was to have TLS, or that the server ends
// instead of going on in the clear.
func (s *session) insecure(c report.Case, reason string, r *reply) error {
	s.quit("")
	f := s.facts()
	f.Reason = reason
	why := report.WantOfTLS
	if c == report.TLSNotOffered {
		why = report.NoTLSOffered
	}
	if r != nil {
		f.Reply = r.Message
	}
	return s.none(why, c, f, nil)
}

// wantOfTLS makes a want of TLS of whatever has ended the session between STARTTLS and
// the answer to the EHLO inside. Nothing but TLS is at fault there.
func (s *session) wantOfTLS(err error) error {
	var none *report.NoTransaction
	if err == nil || s.ctx.Err() != nil || errors.As(err, &none) {
		return err
	}
	var protocol *protocolError
	var quiet *silence
	f := s.facts()
	f.Reason = report.TLSFailure(err)
	switch {
	case f.Reason != "":
	case errors.As(err, &protocol):
		f.Reason = protocol.what
	case errors.As(err, &quiet):
		f.Reason = quiet.Error()
	case s.tls != nil:
		f.Reason = "server ended the connection inside TLS instead of answering EHLO"
	case s.refused:
		f.Reason = "server refused STARTTLS and ended the connection"
	default:
		f.Reason = "server ended the connection instead of answering STARTTLS"
	}
	return s.none(report.WantOfTLS, report.TLSUnavailable, f, err)
}

// handshake makes TLS of the connection after the server's 220 to STARTTLS, and says
// EHLO inside.
func (s *session) handshake() error {
	s.talking = false
	f := s.facts()
	err := s.nothingEarly()
	switch {
	case isLost(err) && s.ctx.Err() == nil:
		// The handshake meets the same end, and words it.
	case isLost(err):
		return err
	case err != nil:
		// Somebody has put it there, or the server is out of step. Where clear text
		// would do, it is not said on a connection that somebody writes into.
		f.Reason = err.Error()
		why := report.NotNow
		if s.job.TLS.required() {
			why = report.WantOfTLS
		}
		return s.none(why, report.TLSUnavailable, f, err)
	}
	conn, environ, err := s.job.StartTLS(s.ctx)
	if err != nil {
		s.trace("= no TLS") // why, the router traces: in a chain it alone knows
		if s.ctx.Err() != nil {
			return &lostError{err}
		}
		f.Reason = err.Error()
		return s.none(report.WantOfTLS, report.TLSUnavailable, f, err)
	}
	s.speakOn(conn)
	s.talking = true
	s.tls = report.ParseTLS(environ, s.serverName(), s.job.TLS == Verify, true)
	s.trace("= " + s.tls.String())
	return s.hello()
}

// nothingEarly finds plaintext that came in front of the handshake, where
// somebody between us and the server could have put it (CVE-2011-0411).
func (s *session) nothingEarly() error {
	if s.reader.Buffered() > 0 {
		return s.early()
	}
	c, tells := s.base.(interface{ Readable() bool })
	if tells && !c.Readable() {
		return nil
	}
	if !tells {
		s.allow(earlyLimit)
		defer s.allow(0)
	}
	if _, err := s.reader.Peek(1); err != nil {
		if timeout, ok := err.(interface{ Timeout() bool }); ok && timeout.Timeout() && !tells {
			return nil
		}
		return &lostError{err}
	}
	return s.early()
}

// fits tells of a message or an address that this server cannot take.
func (s *session) fits(env *envelope, m *message) error {
	f := s.facts()
	if env.utf8 && !s.job.Quoted && !s.caps.offers(extSMTPUTF8) {
		c := report.NeedsSMTPUTF8
		switch {
		case s.job.Avoid.SMTPUTF8 || s.job.Avoid.EHLO:
			c = report.AvoidsSMTPUTF8 // our doing, and no verdict of the server's
		case s.noTLS && s.tls == nil:
			c = report.ClearSMTPUTF8 // inside TLS it may be
		}
		return s.none(report.NotNow, c, f, nil)
	}
	if limit := s.caps.sizeLimit(); limit > 0 && m.scanned && m.size > limit {
		f.Size, f.Limit = m.size, limit
		return &report.Error{Case: report.TooLarge, Facts: f}
	}
	return nil
}
