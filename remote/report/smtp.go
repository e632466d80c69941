package report

import (
	"cmp"
	"context"
	"errors"
	"strings"
	"time"

	"nightmare.mail/mxf/smtpc"
)

// A Peer is what all reports of a conversation share.
type Peer struct {
	IP   string        // the server's address, without brackets; empty reads as unknown
	Port int           // TCP port; 0: unknown
	Fuse time.Duration // the limit of the conversation, 0 for none
	TLS  *TLS          // the TLS that is up, nil for none
}

func (p *Peer) fill(f *Facts) {
	f.IP, f.TLS, f.Seconds = p.IP, p.TLS, int64(p.Fuse/time.Second)
}

// SMTP returns the reports of o, the outcome of a conversation with peer.
//
// The error is nil when there is a stream, which is complete. It is *NoTransaction when
// nothing was sent that the server could deliver, so that something else may be tried, and
// *Fuse, which has the reports, when the fuse blew. Any other error is a mistake, a panic
// before the message's last byte, or the end of the context before a transaction had begun,
// with nothing to report.
func SMTP(o *smtpc.Outcome, peer Peer) (Stream, error) {
	if o.Err == nil && o.Probe {
		return Would(smtpRecipients(o, &peer), peer), nil
	}
	if o.Err == nil {
		facts := Facts{Reply: o.Reply.Text}
		peer.fill(&facts)
		return Stream{smtpRecipients(o, &peer), New(MessageAccepted, facts)}, nil
	}
	var broken *smtpc.BrokenError
	if !o.LastByte && errors.As(o.Err, &broken) && (broken.Err == context.Canceled || broken.Err == context.DeadlineExceeded) {
		return Stream{}, broken.Err
	}
	c, facts := smtpCase(o, &peer)
	peer.fill(&facts)
	facts.Duplicate = o.LastByte
	facts.Notes = append(smtpNotes(o.Notes), facts.Notes...)
	switch {
	case c == Internal && broken == nil && !o.LastByte:
		return Stream{}, o.Err
	case c == FuseBlown:
		return Stream{}, smtpFuse(o, &peer, facts)
	case c != Internal && smtpMayGoOn(o):
		return Stream{}, NewNoTransaction(c, facts, o.Err)
	}
	stream := Stream{smtpRecipients(o, &peer), New(c, facts)}
	if errors.Is(o.After, smtpc.ErrFuse) {
		facts = Facts{}
		peer.fill(&facts)
		return Stream{}, NewFuse(facts, &stream)
	}
	return stream, nil
}

// Would returns the stream of a probe of peer that found nothing in the way of a message.
func Would(recipients []Report, peer Peer) Stream {
	var facts Facts
	peer.fill(&facts)
	return Stream{recipients, New(WouldTake, facts)}
}

// smtpFuse is a conversation that took too long.
func smtpFuse(o *smtpc.Outcome, peer *Peer, facts Facts) *Fuse {
	facts.Notes = nil
	if !o.Begun {
		return NewFuse(facts, nil)
	}
	return NewFuse(facts, &Stream{smtpRecipients(o, peer), New(FuseBlown, facts)})
}

// smtpMayGoOn reports whether nothing was sent that the server could deliver, and nothing was
// said that judges the message.
func smtpMayGoOn(o *smtpc.Outcome) bool {
	var refused *smtpc.RefusedError
	var broken *smtpc.BrokenError
	var unable *smtpc.UTF8Error
	var login *smtpc.LoginError
	var none *smtpc.NoLoginError
	switch {
	case errors.Is(o.Err, smtpc.ErrTLSNotOffered), errors.As(o.Err, &unable), errors.As(o.Err, &none):
		return true
	case errors.As(o.Err, &refused):
		switch refused.Stage {
		case smtpc.StageGreeting, smtpc.StageEHLO, smtpc.StageHELO:
			return true
		}
		return refused.Cause != nil
	case errors.As(o.Err, &login):
		return !login.Final()
	case errors.As(o.Err, &broken):
		return broken.Cause != nil || !o.Begun
	}
	return false
}

// smtpCase returns the case of the message report, of a message that was not accepted, and the
// facts that are its own.
func smtpCase(o *smtpc.Outcome, peer *Peer) (Case, Facts) {
	var refused *smtpc.RefusedError
	var broken *smtpc.BrokenError
	var sender *smtpc.SenderError
	var size *smtpc.SizeError
	var unable *smtpc.UTF8Error
	var message *smtpc.MessageError
	var login *smtpc.LoginError
	var none *smtpc.NoLoginError
	switch err := o.Err; {
	case errors.As(err, &refused):
		return smtpRefused(refused)
	case errors.As(err, &broken):
		return smtpBroken(broken, peer)
	case errors.Is(err, smtpc.ErrTLSNotOffered):
		return TLSNotOffered, Facts{}
	case errors.As(err, &login):
		return LoginRefused, Facts{Line: login.Place, Mechanism: login.Mechanism, Reply: login.Reply.Text, Detail: login.Reason}
	case errors.As(err, &none):
		return NoLogin, Facts{Line: none.Place, Reason: cmp.Or(none.Offered, "none")}
	case errors.Is(err, smtpc.ErrPartialLine):
		return PartialLine, Facts{}
	case errors.As(err, &sender):
		return BadSender, Facts{Reason: sender.Err.Error()}
	case errors.As(err, &message):
		return Unreadable, Facts{Reason: message.Error()}
	case errors.As(err, &size):
		return TooLarge, Facts{Size: size.Size, Limit: size.Limit}
	case errors.As(err, &unable):
		return smtpUTF8(unable), Facts{}
	}
	return Internal, Facts{Reason: o.Err.Error()}
}

// smtpRefused is what the server refused.
func smtpRefused(e *smtpc.RefusedError) (Case, Facts) {
	facts := Facts{Reply: e.Reply.Text, Permanent: e.Permanent}
	switch {
	case errors.Is(e, smtpc.ErrTLSFailed) && e.Stage == smtpc.StageSTARTTLS:
		facts.Reason = "STARTTLS was refused"
		return TLSUnavailable, facts
	case errors.Is(e, smtpc.ErrTLSFailed):
		facts.Reason = "it refused EHLO inside TLS"
		return TLSUnavailable, facts
	case errors.Is(e, smtpc.ErrStumbled):
		return GroupNotUnderstood, facts
	}
	switch e.Stage {
	case smtpc.StageGreeting:
		return GreetingFailed, facts
	case smtpc.StageEHLO, smtpc.StageHELO:
		return NameRejected, facts
	case smtpc.StageMAIL:
		return SenderRejected, facts
	case smtpc.StageRCPT:
		return AllRejected, facts
	case smtpc.StageDATA:
		return DataRejected, facts
	case smtpc.StageMessage:
		return MessageRejected, facts
	}
	facts.Reason = e.Error()
	return Internal, facts
}

// smtpBroken is what ended the conversation.
func smtpBroken(e *smtpc.BrokenError, peer *Peer) (Case, Facts) {
	var protocol *smtpc.ProtocolError
	switch {
	case errors.Is(e.Err, smtpc.ErrFuse):
		return FuseBlown, Facts{}
	case e.Stage == smtpc.StageHandshake:
		return TLSUnavailable, Facts{Reason: e.Err.Error()}
	case errors.Is(e, smtpc.ErrTLSFailed):
		return TLSUnavailable, Facts{Reason: smtpNoTLS(e)}
	case errors.As(e, &protocol):
		return ProtocolError, Facts{Reason: protocol.What}
	case errors.Is(e, smtpc.ErrLost):
		facts := Facts{Reason: smtpSilence(e, peer)}
		if why := TLSFailure(e); why != "" {
			facts.Notes = []string{TLSFailureLine(why)}
		}
		return ConnectionDied, facts
	}
	return Internal, Facts{Reason: e.Err.Error()}
}

// smtpNoTLS is why there is no TLS after STARTTLS.
func smtpNoTLS(e *smtpc.BrokenError) string {
	var protocol *smtpc.ProtocolError
	var silence *smtpc.SilenceError
	why := TLSFailure(e)
	switch {
	case why != "":
		return why
	case errors.As(e, &protocol):
		return protocol.What
	case e.Stage == smtpc.StageAUTH && !errors.Is(e, smtpc.ErrLost):
		return e.Err.Error() // what a login needs
	case errors.As(e, &silence):
		return silence.Error()
	case e.Stage == smtpc.StageSTARTTLS:
		return "server ended the connection instead of answering STARTTLS"
	case e.Stage == smtpc.StageMAIL, e.Stage == smtpc.StageAUTH:
		return "server refused STARTTLS and ended the connection"
	}
	return "server ended the connection inside TLS instead of answering EHLO"
}

// portOfSMTPS is that of submission inside TLS (RFC 8314 section 3.3).
const portOfSMTPS = 465

// smtpSilence is what was not answered, if that ended the conversation.
func smtpSilence(e *smtpc.BrokenError, peer *Peer) string {
	var silence *smtpc.SilenceError
	if !errors.As(e, &silence) {
		return ""
	}
	reason := silence.Error()
	if silence.Stage == smtpc.StageGreeting && peer.Port == portOfSMTPS {
		reason += ", and a server on port 465 waits for TLS from the first byte"
	}
	return reason
}

func smtpUTF8(e *smtpc.UTF8Error) Case {
	switch {
	case e.Avoided:
		return AvoidsSMTPUTF8
	case e.Clear:
		return ClearSMTPUTF8
	}
	return NeedsSMTPUTF8
}

// smtpNotes are the lines on refusals that were not the end.
func smtpNotes(notes []smtpc.Note) []string {
	var lines []string
	for _, note := range notes {
		what := string(note.Stage) + " was refused before: "
		if note.Stage == smtpc.StageMAIL {
			what = "MAIL was refused with parameters before: "
		}
		lines = append(lines, what+strings.ReplaceAll(note.Reply.Text, "\n", " / "))
	}
	return lines
}

// smtpRecipients returns the reports of the recipients up to the first without an answer.
func smtpRecipients(o *smtpc.Outcome, peer *Peer) []Report {
	reports := make([]Report, 0, len(o.Recipients))
	for _, answer := range o.Recipients {
		var facts Facts
		peer.fill(&facts)
		switch answer.Status {
		case smtpc.Unanswered:
			return reports
		case smtpc.Accepted:
			reports = append(reports, Report{Letter: Accepted})
			continue
		case smtpc.Malformed:
			facts.Reason = answer.Err.Error()
			reports = append(reports, New(RecipientMalformed, facts))
			continue
		}
		facts.Reply, facts.Permanent = answer.Reply.Text, answer.Permanent()
		reports = append(reports, New(RecipientRejected, facts))
	}
	return reports
}
