package main

import (
	"context"
	"os"

	"nightmare.mail/mxf/smtpc"
)

// A deliverer sends a mail, or probes.
type deliverer struct {
	probe bool // the conversation ends before MAIL, and descriptor 0 is not read
	ask   bool // after MAIL, each RCPT and RSET
}

func (d deliverer) deliver(ctx context.Context, c *connection, sender string, recipients []string) (outcome *smtpc.Outcome, ended bool) {
	if !d.probe {
		return smtpc.Deliver(ctx, c.network, &c.options, smtpc.NewMail(sender, recipients, os.Stdin, false))
	}
	m := smtpc.NewMail(sender, recipients, nil, false)
	m.Limits, m.Trace = c.options.Limits, c.options.Trace
	if outcome = m.Unsendable(); outcome != nil {
		return outcome, false
	}
	s, _ := smtpc.Open(ctx, c.network, &c.options) // Probe has the error in its outcome
	return s.Probe(ctx, m, d.ask), s.Quit()
}
