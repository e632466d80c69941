package rspawn

import (
	"fmt"
	"os"
	"slices"
	"time"

	"nightmare.mail/mxf/remote/rspawn/dialect"
	"nightmare.mail/mxf/remote/rspawn/wire"
)

const (
	// maxProcesses is how many deliveries in processes of their own there are at a time,
	// where there should be a worker.
	maxProcesses = 20
	// maxSilence is how many seconds a worker may give no sign of life.
	maxSilence = 60
	// After manyEnds ends of workers within endsWithin there is none for longPause: it would
	// end again.
	manyEnds   = 3
	endsWithin = time.Minute
	longPause  = 10 * time.Minute
	// shortPause is the time after a worker could not be started.
	shortPause = time.Second
)

// A delivery is a command that was found right, with the open file of its message.
type delivery struct {
	id      uint64
	number  int
	command *dialect.Command
	message *os.File
	key     messageKey

	in       *worker // nil: none
	lastByte bool    // the write of the message's last byte may have begun
}

// A worker is one that runs.
type worker struct {
	link     link
	silent   int // seconds without a sign of life
	killed   bool
	counters wire.Counters
}

// A link leads to a worker's process. It does not block.
type link interface {
	deliver(*delivery)
	order(wire.Order)
	kill()
}

// A world does what a parent wants done. It does not block.
type world interface {
	answer(*delivery, dialect.Answer) // and closes the message, as drop does
	drop(*delivery)                   // it gets no answer
	startWorker()                     // workerStarted or workerFailed follows
	startProcess(*delivery)           // processEnded follows
	trace(line string)
}

// A parent is what is known of all deliveries. Its methods say what has happened. One
// goroutine calls them.
type parent struct {
	world world
	now   func() time.Time
	alone bool // there is no worker: each delivery is a process, as many as come

	live      map[uint64]*delivery // all without an answer
	last      uint64               // the ID given last
	worker    *worker              // nil: none
	starting  bool                 // a worker is being started
	waiting   []*delivery          // for the worker that is being started
	queue     []*delivery          // for a process
	processes int
	suspects  suspects
	ends      []time.Time // of workers: the last ones
	next      time.Time   // no worker is started before

	inputEnded bool // no command will come
	stopping   bool // nothing is begun

	counts counts
}

func newParent(w world, now func() time.Time) *parent {
	return &parent{world: w, now: now, live: make(map[uint64]*delivery)}
}

// begin begins a delivery.
func (p *parent) begin(d *delivery) {
	if p.stopping {
		p.world.drop(d)
		return
	}
	p.last++
	d.id = p.last
	p.live[d.id] = d
	switch {
	case p.alone || p.now().Before(p.next) || p.suspects.has(d.key, p.now()):
		p.process(d)
	case p.worker != nil:
		p.hand(d)
	default:
		p.waiting = append(p.waiting, d)
		p.hire()
	}
}

// lives reports whether d has no answer yet.
func (p *parent) lives(d *delivery) bool { return p.live[d.id] == d }

// answer answers d, unless that was done.
func (p *parent) answer(d *delivery, a dialect.Answer) {
	if p.lives(d) {
		delete(p.live, d.id)
		p.world.answer(d, a)
	}
}

// drop ends d without an answer, which qmail-send takes for the end of this program.
func (p *parent) drop(d *delivery) {
	if p.lives(d) {
		delete(p.live, d.id)
		p.world.drop(d)
	}
}

// hand gives d to the worker.
func (p *parent) hand(d *delivery) {
	if p.lives(d) {
		d.in, d.lastByte = p.worker, false
		p.worker.link.deliver(d)
	}
}

// process carries d out in a process of its own, as soon as there is room.
func (p *parent) process(d *delivery) {
	d.in, d.lastByte = nil, false
	p.queue = append(p.queue, d)
	p.fill()
}

func (p *parent) fill() {
	for len(p.queue) > 0 && (p.alone || p.processes < maxProcesses) {
		d := p.queue[0]
		p.queue = p.queue[1:]
		if p.lives(d) {
			p.processes++
			p.counts.processes++
			p.world.startProcess(d)
		}
	}
}

// processEnded says what became of a delivery in a process of its own.
func (p *parent) processEnded(d *delivery, a dialect.Answer) {
	p.processes--
	p.answer(d, a)
	p.fill()
}

// hire has a worker started, if there should be one.
func (p *parent) hire() {
	if !p.alone && p.worker == nil && !p.starting && !p.stopping && !p.now().Before(p.next) {
		p.starting = true
		p.world.startWorker()
	}
}

// workerStarted takes a new worker, which gets what waits for it.
func (p *parent) workerStarted(w *worker) {
	p.starting, p.worker = false, w
	if p.stopping {
		w.link.order(wire.Stop)
		return
	}
	for _, d := range p.takeWaiting() {
		p.hand(d)
	}
}

func (p *parent) takeWaiting() []*delivery {
	waiting := p.waiting
	p.waiting = nil
	return waiting
}

// workerFailed says that no worker can be started now.
func (p *parent) workerFailed(err error) {
	p.starting = false
	p.world.trace("worker ended: " + err.Error())
	p.ended(shortPause)
	for _, d := range p.takeWaiting() {
		p.process(d)
	}
}

// ended counts an end, and has no worker started for a while.
func (p *parent) ended(pause time.Duration) {
	now := p.now()
	p.ends = append(p.ends, now)
	p.ends = p.ends[max(0, len(p.ends)-manyEnds):]
	if len(p.ends) == manyEnds && now.Sub(p.ends[0]) <= endsWithin {
		pause, p.ends = longPause, nil
	}
	p.next = now.Add(pause)
}

// said takes what a worker has said.
func (p *parent) said(w *worker, messages []wire.Message) {
	w.silent = 0
	for _, m := range messages {
		switch m := m.(type) {
		case wire.Answer:
			if d := p.inside(w, m.ID); d != nil {
				p.answer(d, dialect.Answer{Letter: m.Letter, Text: m.Text})
			}
		case wire.LastByte:
			p.mark(w, m.IDs, true)
		case wire.NotSent:
			p.mark(w, m.IDs, false)
		case wire.Dropped:
			p.dropped(w, m.ID)
		case *wire.Counters:
			w.counters = *m
		}
	}
}

// inside returns the delivery id if it is in w, else nil.
func (p *parent) inside(w *worker, id uint64) *delivery {
	if d := p.live[id]; d != nil && d.in == w {
		return d
	}
	return nil
}

func (p *parent) mark(w *worker, ids []uint64, lastByte bool) {
	for _, id := range ids {
		if d := p.inside(w, id); d != nil {
			d.lastByte = lastByte
		}
	}
}

// dropped says that a worker will not answer a delivery, because it was told to stop. A worker
// that was not is wrong, and a process carries the delivery out.
func (p *parent) dropped(w *worker, id uint64) {
	switch d := p.inside(w, id); {
	case d == nil:
	case p.stopping:
		p.drop(d)
	default:
		p.process(d)
	}
}

// workerEnded says how a worker has ended. What it had said was told before.
func (p *parent) workerEnded(w *worker, how dialect.Ending) {
	if p.worker == w {
		p.worker = nil
	}
	p.counts.absorb(&w.counters)
	inside := p.allInside(w)
	if asked := p.stopping && len(inside) == 0; !asked {
		p.world.trace("worker ended: " + how.String())
		p.counts.ends++
		p.ended(0)
	}
	for _, d := range inside {
		p.suspects.add(d.key, p.now())
	}
	for _, d := range inside {
		switch {
		case d.lastByte:
			p.counts.crashes++
			p.answer(d, how.Crashed(len(inside)))
		case p.stopping:
			p.drop(d)
		default:
			p.process(d)
		}
	}
	if !p.inputEnded {
		p.hire()
	}
}

// allInside returns the deliveries in w, the oldest first.
func (p *parent) allInside(w *worker) []*delivery {
	var inside []*delivery
	for _, d := range p.live {
		if d.in == w {
			inside = append(inside, d)
		}
	}
	slices.SortFunc(inside, func(a, b *delivery) int { return int(int64(a.id - b.id)) })
	return inside
}

// tick says that a second has passed.
func (p *parent) tick() {
	if w := p.worker; w != nil {
		if w.silent++; w.silent >= maxSilence && !w.killed {
			w.killed = true
			w.link.kill()
		}
	}
	if !p.inputEnded {
		p.hire()
	}
}

// order passes on an order.
func (p *parent) order(o wire.Order) {
	if p.worker != nil {
		p.worker.link.order(o)
	}
}

// stop has nothing begun any more; what is in the worker gets its time, the second time
// none. What a process does is not known, so it is awaited.
func (p *parent) stop() {
	if p.stopping {
		p.order(wire.Cut)
		return
	}
	p.stopping = true
	for _, d := range append(p.takeWaiting(), p.queue...) {
		p.drop(d)
	}
	p.queue = nil
	p.order(wire.Stop)
}

// endOfInput says that no command will come.
func (p *parent) endOfInput() { p.inputEnded = true }

// over reports whether there is nothing left to do.
func (p *parent) over() bool {
	return (p.inputEnded || p.stopping) && len(p.live) == 0
}

// failed answers a delivery that a mistake in this program has befallen.
func (p *parent) failed(d *delivery, what any) {
	p.world.trace(fmt.Sprintf("internal error: %v", what))
	if d != nil {
		p.answer(d, internal(what))
	}
}

// internal is the answer where a mistake in this program was found.
func internal(what any) dialect.Answer {
	return dialect.Deferred(dialect.Fault(fmt.Sprintf("Internal error: %.200q. (#4.3.5)", fmt.Sprint(what))))
}
