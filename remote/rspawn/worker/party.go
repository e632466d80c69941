package worker

import (
	"context"

	"nightmare.mail/mxf/remote"
	"nightmare.mail/mxf/remote/report"
	"nightmare.mail/mxf/remote/together"
)

// What remote asks of the deliveries of one call: see remote.Party.

// Take implements remote.Party. After Stop there is nobody to send a message for.
func (c *call) Take(ctx context.Context, most int, quiet bool) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return nil
	}
	c.sending = true
	var recipients []string
	for _, m := range c.membersLocked(ctx, most, quiet) {
		recipients = append(recipients, m.Recipient)
	}
	return recipients
}

// Leave implements remote.Party: these are carried out by themselves.
func (c *call) Leave(recipients []int) {
	members := c.members()
	for _, i := range recipients {
		m := members[i]
		c.mu.Lock()
		c.taken[i] = nil
		c.mu.Unlock()
		func() {
			defer m.recovered()
			c.worker.join(m, c.set)
		}()
	}
}

// LastByte implements remote.Party. After stop has ended the call the byte will not be written: the
// context has ended, and nobody in it is answered.
func (c *call) LastByte(recipients []int) {
	if ids := c.mark(recipients, true); ids != nil {
		c.worker.Parent.LastByte(ids)
	}
}

// NotSent implements remote.Party.
func (c *call) NotSent(recipients []int) {
	if ids := c.mark(recipients, false); ids != nil {
		c.worker.Parent.NotSent(ids)
	}
	c.stopNow()
}

// mark notes for some whether their last byte is begun, and returns their ids; nil, and nothing is
// noted, if the call was ended before.
func (c *call) mark(recipients []int, begun bool) []uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return nil
	}
	members := c.membersLocked(context.Background(), together.All, false)
	ids := make([]uint64, len(recipients))
	for i, n := range recipients {
		m := members[n]
		m.mu.Lock()
		m.begun, ids[i] = begun, m.ID
		m.mu.Unlock()
	}
	return ids
}

// Answered implements remote.Party. The answers go out together: qmail-send then sends what comes next
// together.
func (c *call) Answered(answers []remote.Answer) {
	members := c.members()
	var given []Answer
	for _, a := range answers {
		given = c.conclude(given, members[a.Recipient], a.Stream)
	}
	c.worker.Parent.Answer(given...)
	c.stopNow()
}

// conclude adds the answer of m to given. After Stop it has one only if the last byte is begun.
func (c *call) conclude(given []Answer, m *member, stream report.Stream) []Answer {
	c.mu.Lock()
	over := c.over
	c.mu.Unlock()
	if over && !m.lastByte() {
		m.drop()
		return given
	}
	return m.answered(given, stream)
}

// finish answers all who are not answered yet, or drops them.
func (c *call) finish(stream report.Stream) {
	if stream.Message == (report.Report{}) { // all are answered; if not, a mistake of ours must bounce nothing
		stream = report.Only(report.New(report.Internal, report.Facts{Reason: "a delivery without an answer"}))
	}
	var given []Answer
	for _, m := range c.members() {
		if m != nil {
			given = c.conclude(given, m, stream)
		}
	}
	c.worker.Parent.Answer(given...)
}

// release closes what the deliveries of the call have open.
func (c *call) release() {
	for _, m := range c.members() {
		if m != nil {
			m.release()
		}
	}
}

// stop ends the call if it has not sent MAIL, and, with cut, as soon as the last byte is begun for nobody
// in it. Then nobody in it is answered.
func (c *call) stop(cut bool) {
	c.mu.Lock()
	c.stopping, c.cut = true, c.cut || cut
	c.mu.Unlock()
	c.stopNow()
}

// stopNow ends the call if it is to stop, and can.
func (c *call) stopNow() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.stopping || c.sending && !c.cut {
		return
	}
	for _, m := range c.taken {
		if m != nil && m.lastByte() && !m.over() {
			return
		}
	}
	c.over = true
	c.cancel(errStopped)
}
