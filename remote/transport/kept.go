package transport

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/qmtpc"
	"nightmare.mail/mxf/remote/dial"
	"nightmare.mail/mxf/remote/policy"
	"nightmare.mail/mxf/remote/report"
	"nightmare.mail/mxf/remote/together"
	"nightmare.mail/mxf/smtpc"
	"nightmare.mail/mxf/tlsc"
)

const (
	// keptMAILLimit is how long a server may take for its answer to MAIL on a connection that
	// was kept: a connection that is dead without anybody having said so costs no more.
	keptMAILLimit = 60 * time.Second
	// resetLimit is how long the answer to RSET may take after a refusal.
	resetLimit = 5 * time.Second
	// lockstepRecipients bounds a transaction with a server without PIPELINING: each recipient
	// costs all others a turn.
	lockstepRecipients = 5
)

// A Party is the deliveries that one attempt is carried out for. Its methods are called by one
// goroutine, except LastByte. Recipients are numbers, the same from Begin on.
type Party interface {
	// Begin is called when MAIL could be written, and returns what is to be sent. From then on nobody
	// joins; at most most recipients are in it if others could join until then. quiet has it wait a
	// moment for others. Nil: nothing is to be sent any more.
	Begin(ctx context.Context, most int, quiet bool) *together.Sequence
	// Recipient is the recipient of a number.
	Recipient(n int) string
	// Further is called before each transaction but the first of an attempt: what was answered until
	// then need not wait.
	Further()
	// LastByte is called before the write of the message's last byte to these recipients begins.
	LastByte(recipients []int)
	// NotSent takes LastByte back: the server has said no.
	NotSent(recipients []int)
}

// A Session is a connection to a server to which this process speaks, and which can be kept for the
// next delivery.
type Session struct {
	*session
	made time.Time // when it was connected
}

// NewSession returns a session with t on conn, over which not a byte was sent. Its End closes conn.
func (c *Carrier) NewSession(conn *net.TCPConn, t *Target) *Session {
	return &Session{session: &session{Carrier: c, target: t, under: conn}, made: time.Now()}
}

// Made is when the connection was made.
func (s *Session) Made() time.Time { return s.made }

// A Carried is what an attempt over a session has come to.
type Carried struct {
	// End is how the sequence of the party ended, where one was run.
	End *together.End
	// Packaged has the reports of the recipients in a package of QMTP, by their numbers.
	Packaged map[int]report.Stream
	// Stream and Err are what the attempt has come to for all, where there is neither: see
	// [Carrier.Carry].
	Stream report.Stream
	Err    error
	// Late: the time is over for those whom the sequence has left, and Stream is their report.
	Late bool

	LoginRefused bool // for good; Stream says so

	Opened   bool     // the session was opened in this attempt
	Securing Securing // what became of STARTTLS then
}

// Carry carries an attempt out over s, for all deliveries of party. Unlike [Carrier.Carry] it leaves
// the session open.
func (s *Session) Carry(ctx context.Context, m *Mail, party Party) *Carried {
	c := &Carried{Opened: !s.opened}
	s.Counts.connected(!s.opened)
	if !s.opened && s.target.Protocol.Implicit {
		if err := s.secure(ctx, m.Trace); err != nil {
			c.Err = brokenTLS(err.Error(), err, s.target.ip())
			return c
		}
	}
	if s.target.Protocol.Program == control.QMTPProgram {
		s.carryPackage(ctx, m, party, c)
	} else {
		s.carryMail(ctx, m, party, c)
	}
	c.Securing, c.Err = s.became, s.explained(c.Err)
	return c
}

// carryPackage sends one package of QMTP, which is all that its connection is for.
func (s *Session) carryPackage(ctx context.Context, m *Mail, party Party, c *Carried) {
	ctx, stop := s.fuse(ctx, qmtpc.ErrFuse)
	defer stop()
	s.opened = true
	sequence := party.Begin(ctx, m.Most, false)
	if sequence == nil {
		c.Err = cmp.Or(context.Cause(ctx), context.Canceled)
		return
	}
	left := sequence.Left()
	s.Counts.sent(len(left))
	mail, err := qmtpc.Prepare(ctx, m.Sender, spelled(party, left), m.Message.reader(), m.Trace)
	outcome := &qmtpc.Outcome{Err: err}
	if err == nil {
		defer mail.Close()
		mail.OnLastByte = func() { party.LastByte(left) }
		outcome = qmtpc.Send(ctx, s.conn(), mail, m.Trace)
	}
	s.ended = err == nil && !outcome.Unfinished()
	c.Packaged = make(map[int]report.Stream, len(left))
	for i, n := range left {
		stream, err := report.QMTP(outcome.Of(i), s.peer())
		if fuse := new(report.Fuse); errors.As(err, &fuse) {
			stream, err = fuse.Stream(), nil
		}
		if err != nil {
			c.Packaged, c.Err = nil, err // nobody has an answer then
			return
		}
		c.Packaged[n] = stream
	}
}

// spelled are the recipients of numbers.
func spelled(party Party, numbers []int) []string {
	recipients := make([]string, len(numbers))
	for i, n := range numbers {
		recipients[i] = party.Recipient(n)
	}
	return recipients
}

// carryMail sends one mail, in as many transactions as it takes. The fuse is lit by the first byte of
// the conversation, or by MAIL.
func (s *Session) carryMail(ctx context.Context, m *Mail, party Party, c *Carried) {
	ctx, stop := s.fuse(ctx, smtpc.ErrFuse)
	defer stop()
	kept := s.opened
	mail := smtpc.NewMail(m.Sender, m.Recipients[:1], m.Message.reader(), false)
	mail.Limits, mail.Trace = s.limits(), m.Trace
	if unsendable := mail.Unsendable(); unsendable != nil {
		c.Stream, c.Err = report.SMTP(unsendable, s.peer()) // nothing is opened for it
		return
	}
	if !kept {
		var err error
		s.opened = true
		if s.smtp, err = smtpc.Open(ctx, s.conn(), s.options(m.Trace)); err != nil {
			outcome := s.smtp.Send(ctx, mail) // it has the error
			s.note(outcome)
			c.Stream, c.Err = report.SMTP(outcome, s.peer())
			refused := new(smtpc.LoginError)
			c.LoginRefused = errors.As(err, &refused) && refused.Final()
			return
		}
		m.Greeted()
	}
	most := s.most(m.Most)
	sequence := party.Begin(ctx, most, kept)
	if sequence == nil {
		c.Err = cmp.Or(context.Cause(ctx), context.Canceled)
		return
	}
	x := &series{Session: s, Party: party, mail: mail, most: m.MostMessages, kept: kept, sent: m.Sent, accepted: m.Accepted}
	end := sequence.Run(ctx, x, together.Terms{Kept: kept, Most: most})
	c.End = &end
	if ctx.Err() != nil {
		// Those who have no answer now have no time left for another session.
		c.Stream, _ = s.Report(&smtpc.Outcome{Recipients: make([]smtpc.Answer, 1), Begun: true, Err: &smtpc.BrokenError{Stage: smtpc.StageMAIL, Err: context.Cause(ctx)}})
		c.Late = true
	}
}

// A series is the transactions of one attempt. It sends what a sequence asks for.
type series struct {
	*Session
	Party
	mail     *smtpc.Mail // with its message; it is not sent itself
	most     int         // messages that the session may carry
	kept     bool        // the first transaction is on a session that others have used
	begun    int         // transactions
	sent     func()      // called for each
	accepted func()      // called for each that the server has accepted
}

// Send implements together.Sender.
func (x *series) Send(ctx context.Context, recipients []int) *smtpc.Outcome {
	if x.begun > 0 {
		x.Further()
	}
	mail := x.mail.Again(spelled(x.Party, recipients))
	mail.Limits, mail.Trace = x.mail.Limits, x.mail.Trace
	if x.kept && x.begun == 0 {
		mail.Limits.MAIL = keptMAILLimit
		if answer := mail.Limits.Answer; answer > 0 {
			mail.Limits.MAIL = min(answer, keptMAILLimit) // a short fuse must not blow before it
		}
	}
	mail.OnLastByte = func() { x.LastByte(recipients) }
	x.begun++
	x.Counts.sent(len(recipients))
	x.sent()
	outcome := x.smtp.Send(ctx, mail)
	if outcome.Err == nil {
		x.accepted()
	}
	if x.begun == 1 && !x.kept {
		x.note(outcome)
	}
	if unsent := notSent(outcome, recipients); len(unsent) > 0 {
		x.NotSent(unsent)
	}
	return outcome
}

// notSent returns those of recipients whom the message has not gone to, although its last byte was begun: all,
// where the server has refused it, or those that RCPT refused.
func notSent(o *smtpc.Outcome, recipients []int) (unsent []int) {
	if !o.LastByte {
		return nil
	}
	if refused := new(smtpc.RefusedError); errors.As(o.Err, &refused) {
		return recipients
	}
	for i, n := range recipients {
		if i < len(o.Recipients) && o.Of(i).Recipients[0].Status != smtpc.Accepted {
			unsent = append(unsent, n)
		}
	}
	return unsent
}

// Reset implements together.Sender.
func (x *series) Reset(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, resetLimit)
	defer cancel()
	return x.smtp.Reset(ctx)
}

// Usable implements together.Sender.
func (x *series) Usable() bool { return x.smtp.Usable() && x.smtp.Mails() < x.MostMessages(x.most) }

// Report returns the reports of an outcome on s, or the error of one after which something else may be
// tried: a *report.NoTransaction.
func (s *Session) Report(o *smtpc.Outcome) (report.Stream, error) {
	stream, err := report.SMTP(o, s.peer())
	if fuse := new(report.Fuse); errors.As(err, &fuse) {
		return fuse.Stream(), nil
	}
	return stream, s.explained(err)
}

// most is how many recipients one transaction may have.
func (s *Session) most(limit int) int {
	if said := s.smtp.Limits().RcptMax; said > 0 {
		limit = min(limit, said)
	}
	if !s.smtp.Pipelines() {
		limit = min(limit, lockstepRecipients)
	}
	return max(limit, 1)
}

// MostMessages is how many messages the session may carry: limit, or what the server has said.
func (s *Session) MostMessages(limit int) int {
	if s.smtp == nil {
		return 0
	}
	if said := s.smtp.Limits().MailMax; said > 0 {
		limit = min(limit, said)
	}
	return limit
}

// MayBeKept reports whether the session can carry another message. One in the clear that TLS was meant
// to have is not kept: the next delivery asks for TLS.
func (s *Session) MayBeKept() bool {
	if s.smtp == nil || s.target.Protocol.Program != control.SMTPProgram || !s.smtp.Usable() || s.target.Manner.TLSFailed {
		return false
	}
	return s.became.What != smtpc.NotGranted && s.became.What != smtpc.NotSecured
}

// NeedsReset reports whether the last message was refused.
func (s *Session) NeedsReset() bool { return s.smtp.NeedsReset() }

// Reset says RSET, and reports whether the session can be used.
func (s *Session) Reset() bool {
	ctx, cancel := context.WithTimeout(context.Background(), resetLimit)
	defer cancel()
	return s.smtp.Reset(ctx) == nil && s.smtp.Usable()
}

// Resume has the session go on under the settings of c, which lead to the same Key.
func (s *Session) Resume(c *Carrier) { s.Carrier = c }

// Watch and Wake are those of smtpc.Session.
func (s *Session) Watch(lost func()) { s.smtp.Watch(lost) }

// Wake ends Watch and reports whether the session can be used.
func (s *Session) Wake() bool { return s.smtp.Wake() }

// Quit ends the session by QUIT, whose answer is not waited for.
func (s *Session) Quit() { s.End() }

// End closes the connection, by QUIT if the server can make sense of that.
func (s *Session) End() {
	if s.smtp != nil {
		s.ended = s.smtp.Quit()
	}
	s.close(s.ended)
	s.under.Close()
}

// LocalAddr is the address that the connection comes from.
func (s *Session) LocalAddr() netip.Addr { return dial.LocalAddr(s.under).Addr() }

// A Key is what two attempts must have in common to use one connection, as == has it.
type Key struct {
	service  string
	implicit bool
	explicit bool
	target   Target
	trust    tlsc.Trust // by which it is verified, or said to be
}

// Key returns the key of an attempt at t.
func (c *Carrier) Key(ctx context.Context, t *Target) Key {
	k := Key{service: t.Protocol.Service, implicit: t.Protocol.Implicit, explicit: t.Protocol.Explicit, target: *t}
	k.target.Protocol, k.target.NoSession = nil, false
	if t.Manner.TLS != policy.Clear && c.Settings.HasTLS(t.Protocol) {
		k.trust = c.TLS.Trust(ctx)
	}
	return k
}

// sessions is what connections must have in common to resume the TLS sessions of each other, beyond what
// package tlsc sees to.
func (t *Target) sessions() string {
	return fmt.Sprintf("%s %s %s %s %d %s %s", t.Protocol.Service, t.Addr, t.Exchanger, t.Identity.Source, t.Manner.TLS, t.Word, t.Relay)
}
