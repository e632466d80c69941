package main

import (
	"errors"
	"fmt"
	"time"

	"nightmare.mail/mxf/integration/lab"
)

// How long mxf-rspawn takes for many deliveries, and what the servers see of them.

// A counted is what many deliveries took.
type counted struct {
	counts
	took     time.Duration
	deferred int
}

// time plays jobs to a mode in a process of their own, or a process each, and counts.
func (b *bench) time(mode string, how apart, jobs func(p *playing) []lab.Job) (c counted, err error) {
	p, err := b.play(mode, how, spawnSlots, nil)
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, p.Close(spawnLimit)) }()
	var answer string
	if err := b.sink.ask("forget", &answer); err != nil {
		return c, err
	}
	var wrong error
	begin := time.Now()
	failed := p.Jobs(p.ctx, jobs(p), func(_ *lab.Job, recipient string, a lab.Answer) {
		switch a.Letter {
		case 'Z':
			c.deferred++
		case 'D':
			wrong = fmt.Errorf("%s: %v", recipient, a)
		}
	})
	c.took = time.Since(begin)
	if err := errors.Join(failed, wrong); err != nil {
		return c, err
	}
	c.counts, err = b.count(mode)
	return c, err
}

func (c counted) String() string {
	return fmt.Sprintf("%.2f s, %d transactions, %d connections, %d at a time, %d deferred", c.took.Seconds(), c.Transactions, c.Connections, c.Most, c.deferred)
}

// both is time, in one process and with a process each.
func (b *bench) both(mode string, jobs func(p *playing) []lab.Job) (ours, apart counted, err error) {
	if ours, err = b.time(mode, !each, jobs); err != nil {
		return ours, apart, err
	}
	apart, err = b.time(mode, each, jobs)
	return ours, apart, err
}

const (
	// recipientsTook and recipientsTransactions are bounds.
	recipientsTook         = 6500 * time.Millisecond
	recipientsTransactions = 60
	// messagesTook, messagesAtATime and messagesConnections are bounds.
	messagesTook        = 12500 * time.Millisecond
	messagesAtATime     = 10
	messagesConnections = 30
	// fourthRefused is a bound: connections.
	fourthRefused = 30
)

// spawnedRecipients sends one message to many recipients.
func (b *bench) spawnedRecipients() error {
	ours, apart, err := b.both("late", func(p *playing) []lab.Job {
		job := lab.Job{Messid: lab.Messid(firstQueued), Sender: sender}
		for i := range many {
			job.Recipients = append(job.Recipients, fmt.Sprintf("someone-%d@%s", i, manyName("late", 1)))
		}
		return []lab.Job{job}
	})
	if err != nil {
		return err
	}
	b.table.add("mxf-rspawn, 1,000 recipients of one message, each flight of answers 50 ms late", ours.String(), "a process each: "+apart.String(),
		fmt.Sprintf("≤ %.1f s, ≤ %d transactions, 1 connection", recipientsTook.Seconds(), recipientsTransactions),
		verdict(ours.took <= recipientsTook && ours.Transactions <= recipientsTransactions && ours.Connections == 1 && ours.deferred == 0))
	return nil
}

// spawnedMessages sends many messages to one host.
func (b *bench) spawnedMessages() error {
	ours, apart, err := b.both("late", func(p *playing) []lab.Job { return p.jobs(many, only("late")) })
	if err != nil {
		return err
	}
	b.table.add("mxf-rspawn, 1,000 messages to one host, each flight of answers 50 ms late", ours.String(), "a process each: "+apart.String(),
		fmt.Sprintf("≤ %.1f s, ≤ %d at a time, ≤ %d in all", messagesTook.Seconds(), messagesAtATime, messagesConnections),
		verdict(ours.took <= messagesTook && ours.Most <= messagesAtATime && ours.Connections <= messagesConnections && ours.deferred == 0))
	return nil
}

// spawnedFourth sends many messages to a server that takes three connections.
func (b *bench) spawnedFourth() error {
	ours, apart, err := b.both("three", func(p *playing) []lab.Job { return p.jobs(many, only("three")) })
	if err != nil {
		return err
	}
	said := func(c counted) string {
		return fmt.Sprintf("%d deferred, %d connections refused, %.2f s", c.deferred, c.Refused, c.took.Seconds())
	}
	b.table.add("mxf-rspawn, 1,000 messages to a server that says 421 to the fourth connection", said(ours), "a process each: "+said(apart),
		fmt.Sprintf("0 deferred, ≤ %d refused", fourthRefused), verdict(ours.deferred == 0 && ours.Refused <= fourthRefused))
	return nil
}

const (
	// sluggishSlots is concurrencyremote, and the limit.
	sluggishSlots = 120
	// connectionWait is the default of that control file.
	connectionWait = 30 * time.Second
)

// spawnedSluggish sends a fifth of many messages to a host that takes its time.
func (b *bench) spawnedSluggish() error {
	alone, err := b.besides(!each, false)
	if err != nil {
		return err
	}
	ours, err := b.besides(!each, true)
	if err != nil {
		return err
	}
	apart, err := b.besides(each, true)
	if err != nil {
		return err
	}
	bound := time.Duration(busyFactor*float64(alone)) + 2*connectionWait
	b.table.add("mxf-rspawn, 1,000 deliveries, 120 at a time, a fifth to a host that takes 30 s for each: the others are done after",
		fmt.Sprintf("%.2f s; alone %.2f s", ours.Seconds(), alone.Seconds()), fmt.Sprintf("a process each: %.2f s", apart.Seconds()),
		fmt.Sprintf("≤ %.2f s: 1.5 × alone, and 2 × connectionwait", bound.Seconds()), verdict(ours <= bound))
	return nil
}

// besides returns how long the deliveries that are not for the slow host take, with those for it
// or without.
func (b *bench) besides(how apart, slow bool) (took time.Duration, err error) {
	name := fmt.Sprintf("besides-%v", slow)
	p, err := b.play(name, how, sluggishSlots, map[string]string{"spawnlimit": fmt.Sprint(sluggishSlots)})
	if err != nil {
		return 0, err
	}
	defer p.Kill() // nobody waits for the slow host
	var jobs []lab.Job
	for i, job := range p.jobs(many, only("near")) {
		if i%10 < deadPerTen {
			if !slow {
				continue
			}
			job.Recipients = []string{"someone@" + manyName("sluggish", 1)}
		}
		jobs = append(jobs, job)
	}
	left := many - many*deadPerTen/10
	done := make(chan struct{})
	begin := time.Now()
	var wrong error
	go func() {
		_ = p.Jobs(p.ctx, jobs, func(_ *lab.Job, recipient string, a lab.Answer) {
			if recipient != "someone@"+manyName("near", 1) {
				return
			}
			if a.Letter != 'K' && wrong == nil {
				wrong = fmt.Errorf("%s: %v", recipient, a)
			}
			if left--; left == 0 {
				took = time.Since(begin)
				close(done)
			}
		})
	}()
	select {
	case <-done:
		return took, wrong
	case <-b.ctx.Done():
		return 0, b.ctx.Err()
	}
}
