package report

import (
	"errors"

	"nightmare.mail/mxf/qmtpc"
)

// QMTP returns the reports of o, the outcome of a conversation with peer.
//
// The error is nil when there is a stream, which is complete. It is *NoTransaction when
// another server may be tried, and *Fuse, which has the reports, when the fuse blew. Any
// other error is a failure of this machine: nothing was sent, and there is nothing to report.
func QMTP(o *qmtpc.Outcome, peer Peer) (Stream, error) {
	c, facts := qmtpCase(o)
	peer.fill(&facts)
	switch {
	case c == Internal && o.Recipients == nil: // the mail could not be prepared
		return Stream{}, o.Err
	case c == ConnectionDied && o.NoTransaction():
		return Stream{}, NewNoTransaction(c, facts, o.Err)
	case c == FuseBlown:
		if !o.FirstByte && !o.Heard {
			return Stream{}, NewFuse(facts, nil)
		}
		return Stream{}, NewFuse(facts, &Stream{qmtpRecipients(o, &peer), New(c, facts)})
	}
	return Stream{qmtpRecipients(o, &peer), New(c, facts)}, nil
}

// qmtpCase returns the case of the message report, and its facts.
func qmtpCase(o *qmtpc.Outcome) (Case, Facts) {
	var unreadable *qmtpc.MessageError
	var nonsense *qmtpc.ProtocolError
	var broken *qmtpc.BrokenError
	switch {
	case o.Err == nil:
		if first := o.FirstAccepted(); first != nil {
			return MessageAccepted, Facts{Reply: first.Text}
		}
		return AllRejected, Facts{Permanent: o.Permanent()}
	case errors.As(o.Err, &unreadable):
		return Unreadable, Facts{Reason: unreadable.Error()}
	case errors.Is(o.Err, qmtpc.ErrFuse):
		return FuseBlown, Facts{Duplicate: o.MayHaveMessage()}
	case !errors.As(o.Err, &broken):
		return Internal, Facts{Reason: o.Err.Error(), Duplicate: o.MayHaveMessage()}
	}
	facts := Facts{Duplicate: o.MayHaveMessage()}
	if why := TLSFailure(broken); why != "" {
		facts.Detail = TLSFailureLine(why)
	}
	if errors.As(broken, &nonsense) {
		facts.Reason = nonsense.Error()
		return ProtocolError, facts
	}
	return ConnectionDied, facts
}

// qmtpRecipients returns a report for each recipient that was answered.
func qmtpRecipients(o *qmtpc.Outcome, peer *Peer) []Report {
	var reports []Report
	for _, answer := range o.Recipients {
		switch answer.Status {
		case qmtpc.Unanswered:
			return reports
		case qmtpc.Accepted:
			reports = append(reports, Report{Letter: Accepted})
		default:
			facts := Facts{Reply: answer.Text, Permanent: answer.Permanent()}
			peer.fill(&facts)
			reports = append(reports, New(RecipientRejected, facts))
		}
	}
	return reports
}
