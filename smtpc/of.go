package smtpc

import "errors"

// Of returns the outcome that the mail would have had if its recipient i had been the only
// one, as far as that can be known. Where a recipient was refused, that is its outcome, whatever
// became of the others; what came after it counts only where all were refused. A server that
// stumbled over the group has judged nobody, and one that closes and goes on all the same has the
// message for whom it accepted. Otherwise the message's outcome is that of every
// recipient that was not refused.
//
// Without answers, as in the outcome of a mail with an impossible sender, it has none either.
func (o *Outcome) Of(i int) *Outcome {
	one := *o
	if i < 0 || i >= len(o.Recipients) {
		one.Recipients = nil
		return &one
	}
	answer := o.Recipients[i]
	if answer.Status == Malformed {
		return &Outcome{Recipients: []Answer{answer}, Probe: o.Probe, Err: &RefusedError{Stage: StageRCPT, Permanent: true}}
	}
	if answer.Behind && o.LastByte { // alone, there would have been no 421 before it
		answer = Answer{Status: Accepted}
	}
	if answer.full { // alone, it cannot be one too many
		answer.Status, answer.full = Refused, false
	}
	one.Recipients = []Answer{answer}
	refused := answer.Status == Deferred || answer.Status == Refused
	if refused && !errors.Is(o.Err, ErrStumbled) {
		one.Err = &RefusedError{Stage: StageRCPT, Permanent: answer.Permanent()}
		one.LastByte, one.Reply = false, Reply{}
	}
	return &one
}

// Refusals returns how many commands the server has refused in the transaction: MAIL, each RCPT,
// DATA or the message. A refusal of DATA or of an empty message that follows from the refusal of
// all recipients does not count.
func (o *Outcome) Refusals() int {
	n := 0
	for _, note := range o.Notes {
		if note.Stage == StageMAIL {
			n++
		}
	}
	for _, a := range o.Recipients {
		if (a.Status == Deferred || a.Status == Refused) && !a.Inherited {
			n++
		}
	}
	var refused *RefusedError
	if errors.As(o.Err, &refused) && refused.Reply.Code != 0 {
		switch refused.Stage {
		case StageMAIL, StageDATA, StageMessage:
			n++
		}
	}
	return n
}
