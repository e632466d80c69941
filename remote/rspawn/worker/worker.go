// Package worker carries out the deliveries that the parent of mxf-rspawn hands on, each as a
// goroutine, with what they share: connections, TLS sessions, answers of DNS, signatures.
//
//	mxf-rspawn(8)  what is shared, and what becomes of a delivery that is cut
//
// One delivery is one call of [remote.Deliver], for itself and for those who go with it. What happens in
// it, a panic included, ends that call alone.
package worker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/control/stamp"
	"nightmare.mail/mxf/remote"
	"nightmare.mail/mxf/remote/report"
	"nightmare.mail/mxf/remote/route"
	"nightmare.mail/mxf/remote/rspawn/dialect"
	"nightmare.mail/mxf/remote/rspawn/wire"
	"nightmare.mail/mxf/remote/stack"
	"nightmare.mail/mxf/remote/together"
)

const (
	// stopGrace is how long deliveries that have sent MAIL may go on after the worker was told to
	// stop; then those are cut whose last byte is not begun.
	stopGrace = 30 * time.Second
	// maxNumber bounds the number by which a delivery returns to a host that timed out: that of a
	// process id.
	maxNumber = 1 << 15
)

// A Parent is told what becomes of deliveries, by the id that it gave them. Any number of goroutines
// may call it at a time.
type Parent interface {
	// Answer has the one answer of each of some deliveries.
	Answer(answers ...Answer)
	// LastByte says that the write of the last byte of the message is about to begin. When it
	// returns the parent will know, whatever becomes of the worker.
	LastByte(ids []uint64)
	// NotSent takes LastByte back.
	NotSent(ids []uint64)
	// Dropped says that a delivery is not answered: the worker was told to stop.
	Dropped(id uint64)
}

// An Answer is that of one delivery.
type Answer struct {
	ID uint64
	dialect.Answer
}

// A Trace is the trace of one delivery; see [Config].
type Trace struct {
	File  string            // that programs are told to write to; empty: none
	Line  func(line string) // may be nil
	Close func()            // may be nil
}

// A Config is what a Worker goes by.
type Config struct {
	Home    string
	Parent  Parent
	Routers *Routers
	Parties *together.Parties // in which deliveries meet; nil: new ones
	// OpenTrace opens the trace of delivery n. file is that of control/trace for its host; empty: none.
	OpenTrace func(file string, n uint64) Trace
	About     func(s *control.Settings) string // see remote.About
	Now       func() time.Time                 // the clock, by which the system stamps files too
}

// A Worker carries deliveries out. Its methods may be called by several goroutines.
type Worker struct {
	Config
	settings *control.Reader
	ctx      context.Context
	cut      context.CancelFunc

	mu       sync.Mutex
	stopping bool
	calls    map[*call]struct{} // under way
	running  sync.WaitGroup
}

// New returns a Worker.
func New(c Config) *Worker {
	if c.Parties == nil {
		c.Parties = together.NewParties()
	}
	settings := control.NewReader(c.Home)
	settings.Now = c.Now
	ctx, cut := context.WithCancel(context.Background())
	return &Worker{Config: c, settings: settings, ctx: ctx, cut: cut, calls: make(map[*call]struct{})}
}

// Deliver carries d out, and does not wait for its end. One goroutine calls it.
func (w *Worker) Deliver(d *wire.Delivery) {
	m := &member{Delivery: d, worker: w}
	w.mu.Lock()
	stopping := w.stopping
	w.mu.Unlock()
	if stopping {
		m.drop()
		m.release()
		return
	}
	w.running.Add(1)
	w.begin(m)
}

// begin has m go with others, or begins a call for it. Deliveries are begun one after the other, so that
// those that go together are in the order of their commands.
func (w *Worker) begin(m *member) {
	defer w.running.Done()
	defer m.recovered()
	set, err := w.settings.Read()
	m.open(set, err)
	if err != nil || remote.Apart(m.Host, m.Sender, m.Recipient) {
		w.start(&call{worker: w, taken: []*member{m}, set: set, err: err})
		return
	}
	w.join(m, set)
}

// join has m go with others under the control files in set, or begins a call for it.
func (w *Worker) join(m *member, set *control.Set) {
	party, first := w.Parties.Join(m.partyName(set), m)
	if first {
		w.start(&call{worker: w, party: party, set: set, first: m})
	}
}

// start carries c out, in a goroutine.
func (w *Worker) start(c *call) {
	w.running.Add(1)
	go func() {
		defer w.running.Done()
		defer c.leader().recovered()
		stack.Grow()
		w.call(c)
	}()
}

// call carries c out.
func (w *Worker) call(c *call) {
	ctx, cancel := context.WithCancelCause(w.ctx)
	defer cancel(nil)
	c.cancel = cancel
	w.mu.Lock()
	w.calls[c] = struct{}{}
	stopping := w.stopping
	w.mu.Unlock()
	if stopping {
		c.stop(false)
	}
	defer func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.calls, c)
	}()
	c.run(ctx)
}

// errStopped is the cause of the end of a delivery that is not answered.
var errStopped = errors.New("mxf-rspawn was told to end")

// Stop has nothing begun any more. Deliveries that have sent MAIL go on for 30 s, then those whose last
// byte is not begun are cut.
func (w *Worker) Stop() {
	w.stop(false)
	time.AfterFunc(stopGrace, func() { survive(w.Cut) })
}

// Cut ends what Stop lets go on, except deliveries whose last byte is begun.
func (w *Worker) Cut() { w.stop(true) }

// stop has nothing begun any more, and stops all calls under way; see call.stop.
func (w *Worker) stop(cut bool) {
	w.mu.Lock()
	w.stopping = true
	calls := slices.Collect(maps.Keys(w.calls))
	w.mu.Unlock()
	for _, c := range calls {
		c.stop(cut)
	}
}

// Wait waits until no delivery is under way, and then ends what was kept.
func (w *Worker) Wait() {
	w.running.Wait()
	w.Routers.Close()
}

// Kill cuts everything: nobody hears of it.
func (w *Worker) Kill() { w.cut() }

// Forget forgets all that was learnt.
func (w *Worker) Forget() { w.Routers.Forget() }

// Address implements together.Member.
func (m *member) Address() string { return m.Recipient }

// A member is one delivery of a call.
type member struct {
	*wire.Delivery
	worker *Worker
	trace  Trace
	about  string

	mu     sync.Mutex
	closed bool // answered, or dropped
	begun  bool // the last byte, in an attempt that is not over
}

// open opens the trace of m.
func (m *member) open(set *control.Set, err error) {
	file := ""
	if err == nil {
		file = set.Trace.For(m.Host)
		m.about = m.worker.About(set.Settings)
	} else {
		m.about = m.worker.About(nil)
	}
	m.closeTrace()
	m.trace = m.worker.OpenTrace(file, m.ID)
}

func (m *member) tracef(format string, args ...any) {
	if m.trace.Line != nil {
		m.trace.Line(fmt.Sprintf(format, args...))
	}
}

// A messageFile is a message and its file. The path of a message is used again later.
type messageFile struct {
	id   string
	file stamp.Stamp // zero: it is not known, and the path alone says which message it is
}

// partyName is that of the parties that m may go in.
func (m *member) partyName(set *control.Set) together.Name {
	host := m.Host
	if parsed, err := route.ParseHost(m.Host); err == nil {
		host = parsed.String()
	}
	message := messageFile{id: m.MessageID}
	if info, err := m.Message.Stat(); err == nil {
		message.file = stamp.OfRegular(info)
	}
	return together.Name{Message: message, Sender: m.Sender, Host: host, Settings: set}
}

// answered adds the answer of m to given, unless it has one.
func (m *member) answered(given []Answer, stream report.Stream) []Answer {
	if !m.close() {
		return given
	}
	remote.TraceReport(m.trace.Line, m.Recipient, stream)
	return append(given, Answer{m.ID, dialect.Verdict(stream.Bytes())})
}

// release closes what m has open, when no call has it any more.
func (m *member) release() {
	m.Message.Close()
	m.closeTrace()
}

func (m *member) closeTrace() {
	if m.trace.Close != nil {
		m.trace.Close()
	}
	m.trace = Trace{}
}

// drop says that m is not answered.
func (m *member) drop() {
	if m.close() {
		m.worker.Parent.Dropped(m.ID)
	}
}

// lastByte reports whether the write of the last byte is begun, in an attempt that is not over.
func (m *member) lastByte() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.begun
}

// over reports whether m is answered, or dropped.
func (m *member) over() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.closed
}

// close reports whether m has no answer yet, and counts it as answered from then on.
func (m *member) close() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	first := !m.closed
	m.closed = true
	return first
}

// recovered answers m where a panic came between its command and its call.
func (m *member) recovered() {
	if p := recover(); p != nil {
		m.worker.Parent.Answer(m.answered(nil, report.Only(report.New(report.Internal, report.Facts{Reason: fmt.Sprintf("panic: %v", p)})))...)
		m.release()
	}
}

// A call is one call of remote.Deliver, with all that go in it.
type call struct {
	worker *Worker
	party  *together.Party // nil: it is for one alone
	set    *control.Set
	err    error // why there is no set
	first  *member
	cancel context.CancelCauseFunc

	mu       sync.Mutex
	taken    []*member // nil: others may join
	sending  bool      // MAIL may have been sent
	stopping bool      // it is to stop, if it is not sending
	cut      bool      // it is to stop all the same, as soon as the last byte is begun for nobody
	over     bool      // it has stopped: nobody is answered for whom the last byte is not begun
}

// run carries the call out.
func (c *call) run(ctx context.Context) {
	w := c.worker
	leader := c.leader()
	job := &remote.Job{
		Host: leader.Host, Sender: leader.Sender, Recipients: []string{leader.Recipient}, Message: leader.Message,
		Number: rand.IntN(maxNumber), Trace: leader.trace.Line, About: leader.about, TraceFile: leader.trace.File, Party: c,
	}
	defer func() {
		if p := recover(); p != nil {
			c.finish(report.Only(report.New(report.Internal, report.Facts{Reason: fmt.Sprintf("panic: %v", p)})))
			c.release()
		}
	}()
	stream := remote.Deliver(ctx, job, func() (*remote.Router, error) {
		if c.err != nil {
			return nil, c.err
		}
		return w.Routers.For(c.set)
	})
	c.finish(stream)
	job.Tell()
	c.release()
}

// leader is the delivery that the call is carried out for first.
func (c *call) leader() *member {
	if c.first != nil {
		return c.first
	}
	return c.taken[0]
}

// members returns those who go in the call. From then on nobody joins.
func (c *call) members() []*member {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.membersLocked(context.Background(), together.All, false)
}

// membersLocked is members, for at most most of them.
func (c *call) membersLocked(ctx context.Context, most int, quiet bool) []*member {
	if c.taken != nil {
		return c.taken
	}
	taken, rest := c.party.Close(ctx, most, quiet)
	for _, m := range taken {
		c.taken = append(c.taken, m.(*member))
	}
	for _, m := range c.taken[1:] {
		m.tracef("together with %d", c.taken[0].ID)
	}
	if rest != nil {
		c.worker.carryOn(rest, c.set)
	}
	return c.taken
}

// carryOn begins a call for a party that another has left behind.
func (w *Worker) carryOn(party *together.Party, set *control.Set) {
	w.start(&call{worker: w, party: party, set: set, first: party.First().(*member)})
}
