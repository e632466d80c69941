package smtpc

import "context"

// Probe is Send without a message: the conversation ends before MAIL, or, with ask, before
// DATA, after MAIL and each RCPT, one command at a time, and RSET. The size of the message, and
// what is in it, do not count. An outcome without an error says that the message would be
// sent; without ask a recipient that can be sent counts as accepted, without a reply.
func (s *Session) Probe(ctx context.Context, m *Mail, ask bool) *Outcome {
	work := (*transaction).assume
	if ask {
		work = (*transaction).inquire
	}
	o := s.take(ctx, m, work)
	o.Probe = true
	return o
}

// assume ends a conversation where MAIL would be said.
func (t *transaction) assume() error {
	if err := t.fits(); err != nil {
		return err
	}
	t.mail.used = true
	for _, i := range t.mail.index {
		t.outcome.Recipients[i].Status = Accepted
	}
	return nil
}

// inquire says the envelope and takes it back.
func (t *transaction) inquire() error {
	if err := t.fits(); err != nil {
		return err
	}
	t.mail.used, t.bare = true, true // there is no size to say
	if err := t.unasked(); err != nil {
		return t.fails(err)
	}
	err := t.envelope()
	if t.broken || t.spent {
		return err
	}
	if _, failed := t.ask(StageRSET, "RSET"); failed != nil {
		t.broken = true // what was asked is answered
	}
	return err
}

// Greeting returns what the server greeted with; none where it was greeted before Open.
func (s *Session) Greeting() Reply { return s.greeting }

// Extensions returns the lines by which the server announced extensions, the last time that it
// did, in its order and without their code; none of it is left out. Nil after HELO.
func (s *Session) Extensions() []string { return s.announced }

// InTLS reports whether the conversation goes on inside TLS.
func (s *Session) InTLS() bool { return s.secure }

// LoggedIn reports whether the server has accepted a login.
func (s *Session) LoggedIn() bool { return s.loggedIn }

// Limits returns what the server takes, as it announced the last time that it announced
// extensions. The session does not hold the mails to it.
func (s *Session) Limits() ServerLimits { return s.caps.limits() }

// Pipelines reports whether the commands of a transaction leave in one write: PIPELINING is
// offered, and not avoided.
func (s *Session) Pipelines() bool { return s.caps.offers(extPipelining) }

// Mails returns how many MAIL commands were said, accepted or not: one for each mail, or two
// where its parameters were refused. That is what [ServerLimits] has a limit for.
func (s *Session) Mails() int { return s.mails }
