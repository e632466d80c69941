package rspawn

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"nightmare.mail/mxf/control/stamp"
	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/remote/rspawn/dialect"
	"nightmare.mail/mxf/remote/rspawn/wire"
)

// A fake is a world and the link to its worker: it notes what is done, in a word each.
type fake struct {
	parent  *parent
	at      time.Time
	done    []string
	panicky bool // the link panics
}

func newFake() *fake {
	f := &fake{at: time.Unix(1e9, 0)}
	f.parent = newParent(f, func() time.Time { return f.at })
	return f
}

func (f *fake) note(format string, a ...any) { f.done = append(f.done, fmt.Sprintf(format, a...)) }

func (f *fake) answer(d *delivery, a dialect.Answer) { f.note("answer %d %c", d.number, a.Letter) }
func (f *fake) drop(d *delivery)                     { f.note("drop %d", d.number) }
func (f *fake) startWorker()                         { f.note("hire") }
func (f *fake) startProcess(d *delivery)             { f.note("process %d", d.number) }
func (f *fake) trace(string)                         {}
func (f *fake) order(o wire.Order)                   { f.note("order %c", o) }
func (f *fake) kill()                                { f.note("kill") }
func (f *fake) deliver(d *delivery) {
	if f.panicky {
		panic("deliver")
	}
	f.note("deliver %d", d.number)
}

// want compares what was done since the last call.
func (f *fake) want(t *testing.T, want ...string) {
	t.Helper()
	if !slices.Equal(f.done, want) {
		t.Fatalf("done: %q, want %q", f.done, want)
	}
	f.done = nil
}

// begin begins the delivery of a message of that number, which is its ID too if all are
// begun in order from 1.
func (f *fake) begin(number int) *delivery {
	d := &delivery{number: number, command: &dialect.Command{Number: number}, key: messageKey{id: fmt.Sprint(number)}}
	f.parent.begin(d)
	return d
}

func (f *fake) hired() *worker {
	w := &worker{link: f}
	f.parent.workerStarted(w)
	return w
}

var killed = dialect.Ending{Signal: syscall.SIGKILL}

func TestDeliveriesWaitForTheWorker(t *testing.T) {
	f := newFake()
	f.parent.hire()
	f.begin(1)
	f.begin(2)
	f.want(t, "hire")
	w := f.hired()
	f.begin(3)
	f.want(t, "deliver 1", "deliver 2", "deliver 3")
	f.parent.said(w, []wire.Message{wire.Hello(1), wire.Answer{ID: 2, Letter: 'K'}, wire.Answer{ID: 2, Letter: 'D'}, wire.Answer{ID: 9, Letter: 'D'}})
	f.want(t, "answer 2 K")
	f.parent.said(w, []wire.Message{wire.Answer{ID: 1, Letter: 'Z'}, wire.LastByte{IDs: []uint64{1, 2, 9}}, wire.Dropped{ID: 1}})
	f.want(t, "answer 1 Z")
	f.parent.endOfInput()
	if f.parent.over() {
		t.Error("a delivery is left")
	}
	f.parent.said(w, []wire.Message{wire.Answer{ID: 3, Letter: 'D'}})
	f.want(t, "answer 3 D")
	if !f.parent.over() {
		t.Error("nothing is left")
	}
}

func TestWorkerEnds(t *testing.T) {
	f := newFake()
	f.parent.hire()
	w := f.hired()
	for n := 1; n <= 5; n++ {
		f.begin(n)
	}
	f.done = nil
	f.parent.said(w, []wire.Message{
		wire.LastByte{IDs: []uint64{1, 2, 3}}, wire.NotSent{IDs: []uint64{2}}, wire.Answer{ID: 3, Letter: 'K'}, &wire.Counters{New: 7, Idle: 3},
	})
	f.parent.workerEnded(w, killed)
	f.want(t, "answer 3 K", "answer 1 Z", "process 2", "process 4", "process 5", "hire")
	w = f.hired()
	f.parent.processEnded(f.parent.live[2], dialect.Answer{Letter: 'K'})
	f.want(t, "answer 2 K")
	// The messages that were in the first worker are kept from the second.
	for _, n := range []int{1, 2, 4, 5} {
		f.begin(n)
	}
	f.begin(3)
	f.want(t, "process 1", "process 2", "process 4", "process 5", "deliver 3")
	f.at = f.at.Add(suspectFor)
	f.begin(5)
	f.want(t, "deliver 5")
	if s := f.parent.status(); s.New != 7 || s.Idle != 0 || s.counts.ends != 1 || s.counts.crashes != 1 || s.counts.processes != 7 {
		t.Errorf("%+v", s)
	}
	f.parent.said(w, []wire.Message{&wire.Counters{New: 2, Idle: 1}})
	if s := f.parent.status(); s.New != 9 || s.Idle != 1 {
		t.Errorf("%+v", s)
	}
}

func TestManyEnds(t *testing.T) {
	f := newFake()
	f.parent.hire()
	for range manyEnds - 1 {
		f.parent.workerEnded(f.hired(), killed)
		f.at = f.at.Add(endsWithin / 2)
	}
	f.want(t, "hire", "hire", "hire")
	f.parent.workerEnded(f.hired(), killed)
	f.begin(1)
	f.at = f.at.Add(longPause - 1)
	f.parent.tick()
	f.begin(2)
	f.want(t, "process 1", "process 2")
	f.at = f.at.Add(1)
	f.parent.tick()
	f.begin(3)
	f.want(t, "hire")
	f.hired()
	f.want(t, "deliver 3")
}

func TestNoWorkerCanBeStarted(t *testing.T) {
	f := newFake()
	f.parent.hire()
	d := f.begin(1)
	f.parent.workerFailed(errors.New("no memory"))
	f.begin(2)
	f.want(t, "hire", "process 1", "process 2")
	f.parent.processEnded(d, dialect.Deferred(dialect.NoFork))
	f.at = f.at.Add(shortPause)
	f.parent.tick()
	f.want(t, "answer 1 Z", "hire")
}

func TestProcessesAreBounded(t *testing.T) {
	f := newFake()
	f.parent.hire()
	w := f.hired()
	for n := range maxProcesses + 2 {
		f.begin(n)
	}
	f.parent.workerEnded(w, killed)
	if n := strings.Count(strings.Join(f.done, "\n"), "process"); n != maxProcesses {
		t.Errorf("%d processes", n)
	}
	f.done = nil
	f.parent.processEnded(f.parent.live[1], dialect.Answer{Letter: 'K'})
	f.want(t, "answer 0 K", fmt.Sprint("process ", maxProcesses))
	f.parent.stop() // the last one is not begun
	f.want(t, fmt.Sprint("drop ", maxProcesses+1))
}

func TestInPlace(t *testing.T) {
	f := newFake()
	f.parent.alone = true
	f.parent.hire()
	for n := range maxProcesses + 2 {
		f.begin(n)
	}
	f.parent.tick()
	if len(f.done) != maxProcesses+2 || f.parent.processes != maxProcesses+2 {
		t.Errorf("%q", f.done)
	}
}

func TestSilence(t *testing.T) {
	f := newFake()
	f.parent.hire()
	w := f.hired()
	for range maxSilence - 1 {
		f.parent.tick()
	}
	f.parent.said(w, []wire.Message{wire.Alive{}})
	for range maxSilence - 1 {
		f.parent.tick()
	}
	f.want(t, "hire")
	f.parent.tick()
	f.parent.tick()
	f.want(t, "kill")
}

func TestStop(t *testing.T) {
	f := newFake()
	f.parent.hire()
	w := f.hired()
	for n := 1; n <= 5; n++ {
		f.begin(n)
	}
	f.done = nil
	f.parent.order(wire.Forget)
	f.parent.stop()
	f.parent.stop()
	f.begin(6)
	f.want(t, "order f", "order s", "order c", "drop 6")
	f.parent.said(w, []wire.Message{wire.Dropped{ID: 1}, wire.Dropped{ID: 1}, wire.LastByte{IDs: []uint64{2, 3}}, wire.Answer{ID: 2, Letter: 'K'}})
	f.want(t, "drop 1", "answer 2 K")
	f.parent.workerEnded(w, killed)
	f.parent.tick()
	f.want(t, "answer 3 Z", "drop 4", "drop 5")
	if !f.parent.over() {
		t.Error("nothing is left")
	}
}

// A worker that was told to end has not crashed, though a process still delivers.
func TestToldToEnd(t *testing.T) {
	f := newFake()
	f.parent.hire()
	f.parent.workerEnded(f.hired(), killed)
	f.parent.suspects.add(messageKey{id: "1"}, f.at)
	w := f.hired()
	d := f.begin(1)
	f.parent.stop()
	f.parent.workerEnded(w, dialect.Ending{})
	f.parent.processEnded(d, dialect.Answer{Letter: 'K'})
	f.want(t, "hire", "hire", "process 1", "order s", "answer 1 K")
	if f.parent.counts.ends != 1 || !f.parent.over() {
		t.Errorf("%d ends", f.parent.counts.ends)
	}
}

func TestStopBeforeTheWorker(t *testing.T) {
	f := newFake()
	f.parent.hire()
	f.begin(1)
	f.parent.stop()
	f.want(t, "hire", "drop 1")
	f.hired()
	f.want(t, "order s")
}

// A worker that gives a delivery back for no reason gets no other from it.
func TestDroppedWithoutStop(t *testing.T) {
	f := newFake()
	f.parent.hire()
	w := f.hired()
	f.begin(1)
	f.parent.said(w, []wire.Message{wire.LastByte{IDs: []uint64{1}}, wire.Dropped{ID: 1}, wire.Answer{ID: 1, Letter: 'K'}})
	f.want(t, "hire", "deliver 1", "process 1")
}

func TestNoWorkerAfterTheEndOfInput(t *testing.T) {
	f := newFake()
	f.parent.hire()
	w := f.hired()
	f.begin(1)
	f.parent.endOfInput()
	f.parent.workerEnded(w, killed)
	f.parent.tick()
	f.want(t, "hire", "deliver 1", "process 1")
}

// A mistake costs a delivery, and it is answered.
func TestFailed(t *testing.T) {
	f := newFake()
	f.parent.hire()
	f.hired()
	f.panicky = true
	h := &host{parent: f.parent, out: newOutput(-1, 1, 1)}
	h.tell(event{&delivery{number: 1, command: &dialect.Command{}}, func() { panic("nothing was begun") }})
	d := &delivery{number: 2, command: &dialect.Command{}}
	h.tell(event{d, func() { f.parent.begin(d) }})
	f.want(t, "hire", "answer 2 Z")
}

func TestSuspects(t *testing.T) {
	var s suspects
	now := time.Unix(1e9, 0)
	key := func(n int) messageKey { return messageKey{id: fmt.Sprint(n)} }
	if s.has(key(0), now) {
		t.Error("nothing was added")
	}
	for n := range maxSuspects {
		s.add(key(n), now)
	}
	s.add(key(0), now)
	s.add(key(maxSuspects), now)
	if s.has(key(0), now) || !s.has(key(1), now) || !s.has(key(maxSuspects), now) || len(s.until) != maxSuspects || len(s.order) != maxSuspects {
		t.Error("not the oldest is forgotten")
	}
	other := messageKey{"1", stamp.OfRegular(must.Get(os.Stat("parent_test.go"))(t))}
	if s.has(other, now) || s.has(key(1), now.Add(suspectFor)) {
		t.Error("another message, or too long")
	}
}
