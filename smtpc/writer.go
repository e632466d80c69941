package smtpc

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// errHalted ends a writer that was halted.
var errHalted = errors.New("halted")

// A writer is the goroutine that writes while replies are read. It decides
// alone what is written, one flight at a time, until it is halted; it writes a flight
// that it has begun to its end.
type writer struct {
	s    *Session
	done chan struct{}
	over <-chan struct{} // closed at the end of the context
	// message is what it reads from, nil for commands.
	message io.Reader

	// inside is set while what was written ends in the middle of a message, where no
	// command can follow. It may be read after done.
	inside bool

	mu     sync.Mutex // guards what follows
	halted bool
	err    error
}

// write starts a goroutine in which work writes, and reads from message. It waits for
// an earlier one.
func (s *Session) write(message io.Reader, work func(*writer) error) *writer {
	before := s.writing
	w := &writer{s: s, over: s.ctx.Done(), message: message, done: make(chan struct{})}
	s.writing = w
	go func() {
		defer close(w.done)
		if before != nil {
			<-before.done
			if err := before.failure(); err != nil {
				w.fail(err)
				return
			}
		}
		w.fail(w.guarded(work))
	}()
	return w
}

func (w *writer) guarded(work func(*writer) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic while sending: %v", p)
		}
	}()
	return work(w)
}

// fail keeps err and ends the wait for an answer: at once if the fault is ours, and later
// if the connection was lost, because the server may have said why.
func (w *writer) fail(err error) {
	if err == nil || errors.Is(err, errHalted) {
		return
	}
	w.mu.Lock()
	w.err = err
	w.mu.Unlock()
	if isLost(err) {
		w.s.cutOff(time.Now().Add(lingerLimit))
	} else {
		w.s.cutOff(past())
	}
}

// failure is the error that the writer ended with, nil while it has not.
func (w *writer) failure() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// halt keeps the writer from beginning another flight.
func (w *writer) halt() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.halted = true
}

// wait waits for the writer to end, limit at most, and reports whether it has.
func (w *writer) wait(limit time.Duration) bool {
	select {
	case <-w.done:
		return true
	default:
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-w.done:
		return true
	case <-timer.C:
		return false
	}
}

// begin is called before each flight. If the message's last byte is in the flight, it is
// noted before a byte of the flight can be sent.
func (w *writer) begin(last bool) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.halted {
		return errHalted
	}
	if last {
		w.s.mu.Lock()
		w.s.lastByte = true
		w.s.mu.Unlock()
	}
	return nil
}

// inTime is called between begin and the flight that has the message's last byte. After the
// end of the context that is not sent, though the connection may not have heard of it yet:
// whoever ended it may count on that.
func (w *writer) inTime() error {
	select {
	case <-w.over:
	default:
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.halted { // else somebody has seen it
		w.s.mu.Lock()
		w.s.lastByte = false
		w.s.mu.Unlock()
	}
	return errHalted
}

func (w *writer) flush(p []byte) error {
	if _, err := w.s.conn.Write(p); err != nil {
		return &lostError{err}
	}
	return nil
}

// commands writes a group of commands.
func (w *writer) commands(group []byte) error {
	if err := w.begin(false); err != nil {
		return err
	}
	return w.flush(group)
}

// data writes the message and the end of data.
func (w *writer) data(m *message) error {
	f, e := w.s.buffers.flight(m), newEncoder()
	w.inside = true
	err := w.encode(m, f, &e, func() error {
		if err := w.begin(false); err != nil {
			return err
		}
		return w.flush(f.take())
	})
	if err != nil {
		return err
	}
	f.buf = append(f.buf, endOfData...)
	if err := w.begin(true); err != nil {
		return err
	}
	w.s.trace("> .")
	if w.s.ending != nil {
		w.s.ending()
	}
	if err := w.inTime(); err != nil {
		return err
	}
	w.inside = false
	if err := w.flush(f.take()); err != nil {
		return err
	}
	w.s.buffers.takeFlight(f)
	w.s.allow(w.s.limits.Message) // from here on the answer is due
	return nil
}

// encode puts the message into f and calls full whenever f is full and there is more. In the
// end f holds the rest of the message, and the message is known to be whole.
func (w *writer) encode(m *message, f *flight, e *encoder, full func() error) error {
	for {
		block, err := m.next()
		if err == io.EOF {
			return m.verify(e)
		}
		if err != nil {
			return &MessageError{err}
		}
		for len(block) > 0 {
			n := min(len(block), f.room()/2)
			if n < minPiece && n < len(block) {
				if err := full(); err != nil {
					return err
				}
				continue
			}
			f.buf = e.append(f.buf, block[:n])
			block = block[n:]
		}
	}
}
