package worker

import (
	"context"
	"reflect"
	"runtime/debug"
	"sync"
	"time"

	"nightmare.mail/mxf/remote/line"
	"nightmare.mail/mxf/remote/rspawn/wire"
)

const (
	// signOfLife is how often the worker says that it lives. It is killed after 60 s without that.
	signOfLife = 5 * time.Second
	// tellEvery is how often the parent gets numbers that have changed: a worker that is killed takes
	// those of the last second with it.
	tellEvery = time.Second
	// restAfter is how many attempts make it worth while to give memory back when nothing happens any
	// more: what they leave behind would stay until the next collection of garbage, which may be two
	// minutes away, and the system may use it better.
	restAfter = 50
)

// Run carries out what the parent asks for on conn, until it is told to stop or the parent is gone. Then
// it returns: after the last delivery, or at once.
func Run(conn *wire.Worker, c Config) {
	link := &link{conn: conn}
	c.Parent = link
	w := New(c)
	defer w.Routers.Close()
	if conn.Send(wire.Hello(wire.Version)) != nil {
		return
	}
	over, cancel := context.WithCancel(context.Background())
	defer cancel()
	// The deliveries end before tell returns: a last byte that cannot be told is not written.
	link.gone = func() { w.Kill(); cancel() }
	go w.heartbeat(over, link)
	done := make(chan struct{})
	go func() {
		defer cancel()
		survive(func() { w.obey(link, done) })
	}()
	select {
	case <-done:
	case <-over.Done():
		w.Kill()
	}
}

// obey does what the parent says until it says nothing more. It closes done when the last delivery is over
// after Stop.
func (w *Worker) obey(l *link, done chan struct{}) {
	var once sync.Once
	finish := func() {
		once.Do(func() {
			go func() {
				defer close(done)
				survive(w.Wait)
				survive(func() { l.tell(w.Counters()) })
			}()
		})
	}
	for {
		command, err := l.conn.Read()
		if err != nil {
			return
		}
		switch c := command.(type) {
		case *wire.Delivery:
			w.Deliver(c)
		case wire.Order:
			switch c {
			case wire.Forget:
				go survive(w.Forget)
			case wire.Report:
				go survive(func() { l.tell(w.Counters()) })
			case wire.Stop:
				w.Stop()
				finish()
			case wire.Cut:
				w.Stop()
				w.Cut()
				finish()
			}
		}
	}
}

// heartbeat says that the worker lives, and tells its numbers, until ctx ends.
func (w *Worker) heartbeat(ctx context.Context, l *link) {
	defer func() { _ = recover() }() // the parent hears nothing then, and kills the worker
	alive, tell := time.NewTicker(signOfLife), time.NewTicker(tellEvery)
	defer alive.Stop()
	defer tell.Stop()
	var rested uint64 // the attempts there had been when memory was given back
	for {
		select {
		case <-alive.C:
			l.tell(wire.Alive{})
		case <-tell.C:
			now := w.Counters()
			switch {
			case l.news(now):
				l.tell(now)
			case now.New+now.Kept-rested >= restAfter:
				rested = now.New + now.Kept
				debug.FreeOSMemory()
			}
		case <-ctx.Done():
			return
		}
	}
}

// Counters are the numbers of now.
func (w *Worker) Counters() *wire.Counters {
	r := w.Routers
	stats, counts := r.line.Stats(), r.counts
	c := &wire.Counters{
		Waiting: uint64(stats.Waiting), Busy: uint64(stats.Busy), Idle: uint64(stats.Idle),
		DeferralsLine: counts.Line.Load(), New: counts.New.Load(), Kept: counts.Kept.Load(), BegunAnew: counts.Anew.Load(),
		Transactions: counts.Transactions.Load(), Recipients: counts.Recipients.Load(),
		Full: counts.Full.Load(), Resumed: counts.Resumed.Load(), Failed: counts.Failed.Load(),
		DNSAsked: uint64(r.asked.Asked.Load()), DNSKnown: uint64(r.asked.Known.Load()),
	}
	c.Exchangers = exchangers(stats.Addresses)
	return c
}

// exchangers are addresses with all their ports together.
func exchangers(addrs []line.Address) (all []wire.Exchanger) {
	index := make(map[string]int)
	for _, a := range addrs {
		address := a.Addr.Addr().String()
		i, seen := index[address]
		if !seen {
			i = len(all)
			index[address] = i
			all = append(all, wire.Exchanger{Name: a.Name, Address: address})
		}
		e := &all[i]
		e.Connections += uint64(a.Connections)
		e.Window += uint64(a.Window)
		e.Waiting += uint64(a.Waiting)
		e.MessagesTotal += uint64(a.Messages)
	}
	return all
}

// A link is the parent on the other end of a socket.
type link struct {
	conn *wire.Worker
	gone func() // called when the parent is
	last wire.Counters
}

// tell sends what is to be sent, or finds that nobody hears it.
func (l *link) tell(m ...wire.Message) {
	if l.conn.Send(m...) != nil {
		l.gone()
	}
}

// news reports whether the numbers have changed since they were told last.
func (l *link) news(now *wire.Counters) bool {
	before := l.last
	l.last = *now
	return !reflect.DeepEqual(&before, now)
}

func (l *link) Answer(answers ...Answer) {
	all := make([]wire.Message, len(answers))
	for i, a := range answers {
		all[i] = wire.Answer{ID: a.ID, Letter: a.Letter, Text: a.Text}
	}
	l.tell(all...)
}

func (l *link) LastByte(ids []uint64) { l.tell(wire.LastByte{IDs: ids}) }
func (l *link) NotSent(ids []uint64)  { l.tell(wire.NotSent{IDs: ids}) }
func (l *link) Dropped(id uint64)     { l.tell(wire.Dropped{ID: id}) }
