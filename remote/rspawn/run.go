package rspawn

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/remote/rspawn/dialect"
	"nightmare.mail/mxf/remote/rspawn/wire"
)

const (
	// statusEvery is the time between two looks at the numbers, in ticks of a second.
	statusEvery = 10
	// reportWait is how long a worker's numbers are waited for where the status is asked for.
	reportWait = 300 * time.Millisecond
	// farewell is how long a worker has for QUIT on its connections, in the end.
	farewell = 2 * time.Second
	// unheard is how long it has where nobody reads the answers: this process ends within a
	// second then.
	unheard = 400 * time.Millisecond
	// lastStatus is how long the status file may take in the end.
	lastStatus = 200 * time.Millisecond
)

// The exit statuses.
const (
	exitOK        = 0
	exitTemporary = 111
)

// A Config is what a parent needs from outside.
type Config struct {
	Home     string // the qmail home
	Commands int    // descriptor
	Answers  int    // descriptor
	Environ  []string
	Delivers string                                              // path of mxf-remote
	InPlace  string                                              // $QMAILREMOTE: runs for every delivery; empty: none
	Find     func(name string, environ []string) (string, error) // finds InPlace as execvp does
	Now      func() time.Time
	Trace    func(line string) // nil: none
}

// Run is a parent's life. It returns the exit status.
func Run(c Config) int {
	signals := make(chan os.Signal, 16)
	heed(signals)
	begun, err := start(c.Home)
	if err != nil {
		return exitTemporary
	}
	readyThreads()
	width := dialect.Width(begun.spawn.NumberBytes)
	if writeAll(c.Answers, width.Limit(begun.limit)) != nil {
		return exitOK // nobody reads
	}
	h := newHost(c, begun, width)
	h.signals = signals
	defer h.children.killAll()
	h.parent.hire()
	h.run("awaitNobody", func() { awaitNobody(c.Answers); once(h.lost) }, nil)
	h.run("output", func() {
		if !h.out.run() {
			once(h.lost)
		}
	}, func() { close(h.written) })
	h.run("input", h.read, func() { h.post(nil, h.parent.endOfInput) })
	h.loop()
	h.finish()
	return exitOK
}

// A host runs a parent: it is its world. Whatever happens becomes an event, and one
// goroutine, that of loop, tells the parent. No event waits for that goroutine but in the
// channel, and it waits for nobody.
type host struct {
	Config
	begun    *beginning
	parent   *parent
	in       *input
	out      *output
	children *children

	signals <-chan os.Signal
	events  chan event
	lost    chan struct{} // gets one value when nobody reads the answers
	written chan struct{} // closed when all answers are written
	unheard bool
	ticks   int

	writing bool   // the status file is being written
	again   bool   // and asked for once more
	wrote   string // what it has
}

// An event is something that has happened. If telling it fails, the delivery that it is
// about gets an answer nevertheless.
type event struct {
	about *delivery // may be nil
	tell  func()
}

func newHost(c Config, b *beginning, w dialect.Width) *host {
	h := &host{
		Config: c, begun: b, children: newChildren(),
		out:    newOutput(c.Answers, w, b.limit),
		events: make(chan event), lost: make(chan struct{}, 1), written: make(chan struct{}),
	}
	h.in = &input{commands: dialect.NewReader(descriptor(c.Commands), w), out: h.out, limit: b.limit, owner: b.owner, fault: b.fault()}
	h.parent = newParent(h, c.Now)
	h.parent.alone = c.InPlace != ""
	return h
}

// once puts a value into a channel that has room for one.
func once(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// run runs f as a goroutine, and then after, though f panicked.
func (h *host) run(what string, f, after func()) {
	caught := func() {
		if cause := recover(); cause != nil {
			h.trace(fmt.Sprintf("%s: internal error: %v", what, cause))
		}
	}
	go func() {
		defer caught()
		if after != nil {
			defer after()
		}
		defer caught()
		f()
	}()
}

func (h *host) post(about *delivery, tell func()) { h.events <- event{about, tell} }

// tell tells the parent an event, and has answers written that came of it.
func (h *host) tell(e event) {
	defer h.out.flush()
	defer func() {
		if cause := recover(); cause != nil {
			h.parent.failed(e.about, cause)
		}
	}()
	e.tell()
}

// loop tells the parent all that happens, until there is nothing left to do or nobody
// hears of it.
func (h *host) loop() {
	second := time.NewTicker(time.Second)
	defer second.Stop()
	for !h.parent.over() {
		select {
		case e := <-h.events:
			h.tell(e)
		case <-second.C:
			h.tell(event{nil, h.tick})
		case s := <-h.signals:
			h.tell(event{nil, func() { h.signal(s) }})
		case <-h.lost:
			h.unheard = true
			return
		}
	}
}

// heed has signals sent to c, SIGHUP also where it was ignored, because of nohup(1): it ends nothing here.
func heed(c chan os.Signal) {
	signal.Notify(c, syscall.SIGTERM, syscall.SIGINT, syscall.SIGUSR1, syscall.SIGHUP)
}

func (h *host) signal(s os.Signal) {
	switch s {
	case syscall.SIGTERM, syscall.SIGINT:
		h.in.stopped.Store(true)
		h.parent.stop()
	case syscall.SIGHUP:
		h.parent.order(wire.Forget)
	case syscall.SIGUSR1:
		h.parent.order(wire.Report)
		time.AfterFunc(reportWait, func() { h.post(nil, func() { h.status(true) }) })
	}
}

func (h *host) tick() {
	h.parent.tick()
	if h.ticks++; h.ticks%statusEvery == 0 {
		h.status(false)
	}
}

// read reads commands.
func (h *host) read() {
	for {
		d, err := h.in.next()
		switch {
		case errors.Is(err, io.EOF) || errors.Is(err, syscall.EPIPE):
			return
		case err != nil:
			h.trace("commands cannot be read: " + err.Error())
			return
		case d == nil:
			h.post(nil, func() { h.parent.order(wire.Forget) })
		default:
			h.post(d, func() { h.parent.begin(d) })
		}
	}
}

// finish ends the worker, and all else.
func (h *host) finish() {
	h.out.close()
	patience := farewell
	if h.unheard {
		patience = unheard
		h.hangUp()
	}
	end := time.After(patience)
	h.parent.stopping = true
	h.parent.order(wire.Stop)
	written := h.written
	for h.parent.worker != nil || written != nil && !h.unheard {
		select {
		case e := <-h.events:
			h.tell(e)
		case <-written:
			written = nil
		case <-h.lost:
			h.unheard = true
		case <-end:
			h.hangUp()
			h.children.killAll()
			end = nil
			if h.unheard {
				h.lastStatus()
				return
			}
		}
	}
	h.lastStatus()
}

// hangUp has the worker see that this is the end.
func (h *host) hangUp() {
	if w := h.parent.worker; w != nil {
		w.link.(*workerProcess).close()
	}
}

func (h *host) answer(d *delivery, a dialect.Answer) {
	d.message.Close()
	h.out.answer(d.number, a)
}

func (h *host) drop(d *delivery) {
	d.message.Close()
	h.out.release(d.number)
}

func (h *host) trace(line string) {
	if h.Trace != nil {
		h.Trace(line)
	}
}

func (h *host) startWorker() {
	var p *workerProcess
	err := errors.New("internal error")
	h.run("start of a worker", func() { p, err = startWorkerProcess(h.children, h.Environ, h.begun.limit, max(1, h.begun.slots())) }, func() {
		if err != nil {
			h.post(nil, func() { h.parent.workerFailed(err) })
			return
		}
		w := &worker{link: p}
		h.run("words to the worker", p.write, nil)
		h.post(nil, func() { h.parent.workerStarted(w) })
		h.run("words of the worker", func() { h.listen(w, p) }, func() { h.reap(w, p) })
	})
}

// listen tells all that a worker says. What it cannot say is its end.
func (h *host) listen(w *worker, p *workerProcess) {
	defer p.end.Close()
	for {
		messages, err := p.end.Read()
		if len(messages) > 0 {
			h.post(nil, func() { h.parent.said(w, messages) })
		}
		if err == nil {
			continue
		}
		if !errors.Is(err, io.EOF) {
			h.trace("the worker cannot be understood: " + err.Error())
			p.kill()
		}
		return
	}
}

// reap tells how a worker ended. Nothing of it is left then.
func (h *host) reap(w *worker, p *workerProcess) {
	how := h.children.awaitFor(p.pid, lastWords)
	p.close()
	h.post(nil, func() { h.parent.workerEnded(w, how) })
}

func (h *host) startProcess(d *delivery) {
	a := internal("a process of its own")
	h.run("process", func() { a = h.deliver(d) }, func() {
		h.post(d, func() { h.parent.processEnded(d, a) })
	})
}

// deliver carries out d in a process of its own, as qmail-rspawn does: descriptors 1 and 2
// are one pipe, which is read to its end.
func (h *host) deliver(d *delivery) dialect.Answer {
	path, name, err := h.Delivers, h.Delivers, error(nil)
	if h.InPlace != "" {
		name = h.InPlace
		if path, err = h.Find(name, h.Environ); err != nil {
			return dialect.Ending{Status: exitTemporary}.Answer(nil)
		}
	}
	// A worker has read from the same open file.
	if _, err := d.message.Seek(0, io.SeekStart); err != nil {
		return dialect.Deferred(dialect.NotOpened)
	}
	r, w, err := os.Pipe()
	if err != nil {
		return dialect.Deferred(dialect.NoFork)
	}
	defer r.Close()
	pid, err := h.children.start(path, []string{name, d.command.Host(), d.command.Sender, d.command.Recipient}, h.Environ, d.message, w, w)
	w.Close()
	if err != nil {
		return dialect.Deferred(dialect.NoFork)
	}
	stream := reports(r)
	return h.children.await(pid).Answer(stream)
}

// status has the status file written, if something changed or somebody asks for it.
func (h *host) status(asked bool) {
	if h.writing {
		h.again = h.again || asked
		return
	}
	h.writing = true
	text, wrote := h.statusText(), h.wrote
	h.run("status file", func() {
		if asked || text != wrote {
			if h.writeStatus(text) {
				wrote = text
			}
		}
	}, func() {
		h.post(nil, func() {
			again := h.again
			h.writing, h.again, h.wrote = false, false, wrote
			if again {
				h.status(true)
			}
		})
	})
}

func (h *host) statusText() string {
	s := h.parent.status()
	s.limit, s.slots = h.begun.limit, h.begun.slots()
	s.answers(h.out)
	return s.text()
}

// writeStatus reports whether the status file was written. Which it is may change.
func (h *host) writeStatus(text string) bool {
	path, err := control.ReadStatusFile(h.begun.home)
	return err == nil && path != "" && replace(path, text) == nil
}

// lastStatus writes the status file once more.
func (h *host) lastStatus() {
	text, done := h.statusText(), make(chan struct{})
	h.run("status file", func() { h.writeStatus(text) }, func() { close(done) })
	select {
	case <-done:
	case <-time.After(lastStatus):
	}
}
