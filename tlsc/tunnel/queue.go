package tunnel

import (
	"io"
	"sync"
	"time"

	"nightmare.mail/mxf/tlsc"
)

// A queue stands in front of a writer and has its own goroutine, so that writing to it
// does not block. Each direction of a tunnel has one: one goroutine does the
// cryptography while another waits for the system.
//
// Towards the server there is another reason. crypto/tls answers a request for new keys
// (RFC 8446 section 4.6.3) inside Read, and for that it needs the lock that a blocked
// Write holds. Without a queue, a server that reads nothing until its own data has been
// taken would stop both directions for ever.
type queue struct {
	dst    io.Writer
	limit  int           // of what it holds, in bytes
	failed chan struct{} // closed with the first error

	mu      sync.Mutex
	changed sync.Cond
	waiting []byte        // is sent next
	sending int           // bytes that are being sent
	held    bool          // wait for more before sending, up to queueBatch
	over    bool          // drop what is written from now on
	stall   time.Duration // give up when nothing can be sent for this long; 0: never
	err     error
}

func newQueue(dst io.Writer, limit int) *queue {
	q := &queue{dst: dst, limit: limit, failed: make(chan struct{})}
	q.changed.L = &q.mu
	return q
}

// Write takes p as a whole, or fails.
func (q *queue) Write(p []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.err != nil:
		return 0, q.err
	case q.over:
		return len(p), nil
	case len(q.waiting)+q.sending+len(p) > q.limit:
		q.fail(&tlsc.Error{Kind: tlsc.KindRunning, What: "server asks for more than it takes"})
		return 0, q.err
	}
	q.waiting = append(q.waiting, p...)
	if !q.held || len(q.waiting) >= queueBatch {
		q.changed.Broadcast()
	}
	return len(p), nil
}

// hold and release stand around writes that follow one another closely, so that they go
// to the system together.
func (q *queue) hold() { q.setHeld(true) }

func (q *queue) release() { q.setHeld(false) }

func (q *queue) setHeld(held bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.held = held
	if !held && len(q.waiting) > 0 {
		q.changed.Broadcast()
	}
}

// fail sets the queue's error, once. The caller holds q.mu.
func (q *queue) fail(err error) {
	if q.err == nil {
		q.err = err
		close(q.failed)
	}
	q.changed.Broadcast()
}

// stop makes everybody who uses the queue fail with err.
func (q *queue) stop(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.fail(err)
}

// finish drops what is written from now on. What the queue holds is still sent.
func (q *queue) finish() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.over = true
}

// error is the queue's error. It is nil while the queue works.
func (q *queue) error() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.err
}

// await waits until no more than n bytes are left to send.
func (q *queue) await(n int) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.err == nil && len(q.waiting)+q.sending > n {
		q.changed.Wait()
	}
	return q.err
}

// run sends until the queue fails.
func (q *queue) run() error {
	var spare []byte
	for {
		batch, err := q.take(spare)
		if err != nil {
			return err
		}
		if err := q.send(batch); err != nil {
			q.stop(err)
			return err
		}
		spare = batch[:0]
	}
}

// take waits for something to send, and leaves spare in its place.
func (q *queue) take(spare []byte) ([]byte, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.sending = 0
	q.changed.Broadcast()
	for q.err == nil && (len(q.waiting) == 0 || q.held && len(q.waiting) < queueBatch) {
		q.changed.Wait()
	}
	batch := q.waiting
	q.waiting, q.sending = spare, len(batch)
	return batch, q.err
}

func (q *queue) send(p []byte) error {
	for len(p) > 0 {
		q.arm()
		n, err := q.dst.Write(p)
		if err != nil && (n == 0 || !isTimeout(err)) {
			return err
		}
		p = p[n:]
	}
	return nil
}

// limitStall makes the queue give up when nothing can be sent for this long.
func (q *queue) limitStall(limit time.Duration) {
	q.mu.Lock()
	q.stall = limit
	q.mu.Unlock()
	q.arm()
}

func (q *queue) arm() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if conn, ok := q.dst.(interface{ SetWriteDeadline(time.Time) error }); ok && q.stall > 0 {
		conn.SetWriteDeadline(time.Now().Add(q.stall))
	}
}
