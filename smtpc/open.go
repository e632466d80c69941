package smtpc

import "errors"

// open is the conversation up to the point where messages can be sent.
func (s *Session) open() error {
	if err := s.options.check(); err != nil {
		return err
	}
	s.talking = s.options.Start != FromGreeting
	for _, step := range []func() error{s.greet, s.hello, s.starttls, s.login} {
		if err := step(); err != nil {
			return s.ended(err, false)
		}
	}
	return nil
}

// greet waits for the greeting.
func (s *Session) greet() error {
	if s.options.Start != FromGreeting {
		return nil
	}
	r, err := s.receive(StageGreeting, s.limits.Answer)
	if err != nil {
		return err
	}
	s.talking, s.greeting = true, r.Reply
	if r.Code != 220 {
		return s.unwilling(r)
	}
	return nil
}

// unwilling is the error of a server that wants no conversation.
func (s *Session) unwilling(r *reply) error {
	e := &RefusedError{Stage: s.stage, Reply: r.Reply}
	if s.securing {
		e.Cause = ErrTLSFailed
	}
	return e
}

// hello says EHLO, or HELO to a server that does not know EHLO, and learns the
// extensions.
func (s *Session) hello() error {
	if s.options.Start == FromMAIL {
		return nil
	}
	s.caps, s.announced = nil, nil
	var refused *reply
	if !s.options.Avoid.EHLO {
		r, err := s.ask(StageEHLO, "EHLO "+s.options.HeloHost)
		switch {
		case err != nil:
			return s.ehloLost(err, nil)
		case r.Code == 250:
			s.caps, s.announced = parseCapabilities(r).without(s.options.Avoid), announced(r)
			return nil
		case r.class() == 4:
			return s.unwilling(r)
		case r.class() != 5:
			return r.unexpected(StageEHLO)
		}
		refused = r
	}
	r, err := s.ask(StageHELO, "HELO "+s.options.HeloHost)
	if err != nil {
		return s.ehloLost(err, refused)
	}
	if r.Code != 250 {
		return s.unwilling(r)
	}
	return nil
}

// ehloLost is the error of a server that has hung up on EHLO, or on the HELO after it
// refused EHLO: it may know HELO alone (RFC 1869 section 4.7).
func (s *Session) ehloLost(err error, refused *reply) error {
	if refused != nil {
		s.notes = append(s.notes, Note{StageEHLO, refused.Reply})
	}
	if !isLost(err) || s.ctx.Err() != nil || s.options.Avoid.EHLO || s.securing {
		return err
	}
	return s.breaks(ErrEHLOLost, err)
}

// starttls uses STARTTLS as the options say, and says EHLO again after it.
func (s *Session) starttls() error {
	required := s.options.TLS == Required
	switch {
	case s.options.TLS == Never, s.secure:
		return nil
	case s.options.StartTLS == nil && required:
		return &BrokenError{Stage: StageHandshake, Cause: ErrTLSFailed, Err: errors.New("there is no TLS client")}
	case s.options.StartTLS == nil:
		return nil
	case !s.caps.offers(extStartTLS):
		if !s.options.Avoid.EHLO { // else it had no occasion to offer anything
			s.became = NotOffered
		}
		if required {
			return ErrTLSNotOffered
		}
		return nil
	}
	s.securing, s.became = true, NotSecured
	defer func() { s.securing = false }()
	r, err := s.askWithin(s.limits.STARTTLS, StageSTARTTLS, "STARTTLS")
	switch {
	case err != nil:
		return s.tlsLost(err)
	case r.Code == 220:
		if err := s.tlsLost(s.handshake()); err != nil {
			return err
		}
		s.became = Secured
		return nil
	case !r.refused():
		return s.tlsLost(r.unexpected(StageSTARTTLS))
	}
	s.became = NotGranted
	if required || r.closing() {
		return &RefusedError{Stage: StageSTARTTLS, Reply: r.Reply, Cause: ErrTLSFailed}
	}
	// In the clear, then; if the server goes on.
	s.noTLS, s.refused = true, true
	s.notes = append(s.notes, Note{StageSTARTTLS, r.Reply})
	return nil
}

// tlsLost makes a failure of TLS of whatever has ended the session between STARTTLS and
// the answer to the EHLO inside. Nothing but TLS is at fault there.
func (s *Session) tlsLost(err error) error {
	var refused *RefusedError
	var broken *BrokenError
	if err == nil || s.ctx.Err() != nil || errors.As(err, &refused) || errors.As(err, &broken) {
		return err
	}
	return s.breaks(ErrTLSFailed, err)
}

// firstLost is the error of a connection that was lost before MAIL or AUTH, whichever comes
// first, was answered.
func (s *Session) firstLost(err error) error {
	if isLost(err) && s.refused {
		return s.tlsLost(err) // and nothing was said since
	}
	return err
}

// handshake makes TLS of the connection after the server's 220 to STARTTLS, and says
// EHLO inside.
func (s *Session) handshake() error {
	s.talking, s.stage = false, StageHandshake
	err := s.nothingEarly()
	switch {
	case isLost(err) && s.ctx.Err() == nil:
		// The handshake will fail for the same reason, and describe it.
	case isLost(err):
		return err
	case err != nil && s.options.TLS == Required:
		return s.breaks(ErrTLSFailed, err)
	case err != nil:
		// Somebody has put it there, or the server is out of step. Where clear text
		// would do, it is not said on a connection that somebody writes into.
		return s.breaks(nil, err)
	}
	conn, err := s.options.StartTLS(s.ctx)
	if err != nil {
		s.trace("= no TLS") // the owner knows why, and traces it
		if s.ctx.Err() != nil {
			return &lostError{err}
		}
		return s.breaks(ErrTLSFailed, err)
	}
	s.speakOn(conn)
	s.talking, s.secure = true, true
	return s.hello()
}

// nothingEarly finds plaintext that came in front of the handshake, where
// somebody between us and the server could have put it (CVE-2011-0411).
func (s *Session) nothingEarly() error {
	if s.reader.Buffered() > 0 {
		return s.early()
	}
	c, knows := s.base.(interface{ Readable() bool })
	if knows && !c.Readable() {
		return nil
	}
	if !knows {
		s.allow(earlyLimit)
		defer s.allow(0)
	}
	if _, err := s.reader.Peek(1); err != nil {
		if timeout, ok := err.(interface{ Timeout() bool }); ok && timeout.Timeout() && !knows {
			return nil
		}
		return &lostError{err}
	}
	return s.early()
}
