package rspawn

import (
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"nightmare.mail/mxf/remote/rspawn/wire"
)

// WorkerName is the worker's zeroth argument. The first is the limit of deliveries at a time that was
// announced, and the second how many of them qmail-send makes: slots.
const WorkerName = "mxf-rspawn-worker"

// WorkerSocket is the descriptor on which a worker has its end of the wire.
const WorkerSocket = 3

// lastWords is how long a worker may live after it has closed its socket.
const lastWords = time.Second

// A workerProcess is a worker as a process. It is a link: what is said to it is queued, and written by a
// goroutine. At most all deliveries are in the queue, and an order once.
type workerProcess struct {
	end      *wire.Parent
	pid      int
	children *children

	mu      sync.Mutex
	changed sync.Cond
	queue   []wire.Command
	closed  bool
}

// startWorkerProcess starts a worker.
func startWorkerProcess(c *children, env []string, limit, slots int) (*workerProcess, error) {
	path, err := self()
	if err != nil {
		return nil, err
	}
	conn, socket, err := wire.Pair()
	if err != nil {
		return nil, err
	}
	defer socket.Close()
	p := &workerProcess{end: wire.NewParent(conn), children: c}
	p.changed.L = &p.mu
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err == nil {
		p.pid, err = c.startFree(path, []string{WorkerName, strconv.Itoa(limit), strconv.Itoa(slots)}, env, null, null, null, socket)
		null.Close()
	}
	if err != nil {
		p.end.Close()
		return nil, err
	}
	return p, nil
}

func (p *workerProcess) deliver(d *delivery) {
	p.say(&wire.Delivery{
		ID: d.id, Host: d.command.Host(), Sender: d.command.Sender, Recipient: d.command.Recipient,
		MessageID: d.command.MessageID, Message: d.message,
	})
}

func (p *workerProcess) order(o wire.Order) { p.say(o) }

func (p *workerProcess) say(c wire.Command) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if o, is := c.(wire.Order); is && slices.Contains(p.queue, wire.Command(o)) {
		return // it is about to be told
	}
	p.queue = append(p.queue, c)
	p.changed.Signal()
}

func (p *workerProcess) kill() { p.children.kill(p.pid) }

// close has the worker see the end of its socket.
func (p *workerProcess) close() {
	p.end.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed, p.queue = true, nil
	p.changed.Signal()
}

// write writes what is queued, until close. After an error the worker is of no more use: it is
// killed. The socket stays open, because the worker may have said something before that nobody
// has read yet, such as that a message was accepted.
func (p *workerProcess) write() {
	defer p.forsake()
	for {
		c, more := p.next()
		if !more {
			return
		}
		var err error
		switch c := c.(type) {
		case *wire.Delivery:
			err = p.end.Deliver(c)
		case wire.Order:
			err = p.end.Order(c)
		}
		if err != nil {
			return
		}
	}
}

// forsake kills a worker to which nothing is written any more, though close was not called.
func (p *workerProcess) forsake() {
	p.mu.Lock()
	closed := p.closed
	p.mu.Unlock()
	if !closed {
		p.kill()
	}
}

func (p *workerProcess) next() (c wire.Command, more bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.queue) == 0 && !p.closed {
		p.changed.Wait()
	}
	if p.closed {
		return nil, false
	}
	c, p.queue = p.queue[0], p.queue[1:]
	return c, true
}
