package smtpc

import (
	"errors"
	"net"
	"sync"
	"time"
)

// A watch is the goroutine that reads from the server while the session is idle.
type watch struct {
	done chan struct{}
	lost func()

	mu    sync.Mutex // guards what follows
	woken bool       // Wake has begun: lost is not called any more
	gone  bool       // the server has left, or has spoken
}

// Watch has the session wait, idle, for the next mail. A goroutine, which ends at Wake, reads
// from the server: where that hangs up, or says anything, the session is of no further use, and
// lost is called, once, by the goroutine, perhaps before Watch has returned. Once Wake
// has begun lost is not called. lost may call Wake and Quit. A panic in it is dropped.
//
// Nothing is sent. What belongs to TLS, as a session ticket does, is nothing that the server
// says. A session that is watched keeps as little memory as it can, and nothing of the delivery
// before: no trace and no context. Until Wake it sends nothing but QUIT: Quit wakes it.
// The QUIT of a session that was not used since is not traced.
//
// Watch is for a session that is Usable and needs no Reset; any other one is lost at once.
func (s *Session) Watch(lost func()) {
	w := &watch{done: make(chan struct{}), lost: lost, gone: !s.Usable() || s.unreset}
	s.forget()
	s.watch = w
	if !w.gone {
		s.setReadDeadline(time.Time{})
	}
	go w.run(s.conn)
}

// forget lets go of what the delivery before has left behind. Its context, its trace and
// the functions of its owner may hold a lot.
func (s *Session) forget() {
	s.serve(s.limits, nil)
	s.ctx, s.ending, s.notes = nil, nil, nil
	o := *s.options
	o.Trace, o.StartTLS, o.Login, o.Exporter = nil, nil, nil, nil
	s.options = &o
	if s.Usable() { // nobody reads from it then
		s.buffers.takeReader(s.reader)
	}
	s.reader = nil
}

// run is the goroutine.
func (w *watch) run(conn net.Conn) {
	if !w.ended(conn) {
		return
	}
	defer func() { _ = recover() }() // the session is known to be lost
	if w.lost != nil {
		w.lost()
	}
}

// ended waits, and reports whether the session was lost before it was woken.
func (w *watch) ended(conn net.Conn) (lost bool) {
	defer close(w.done)
	gone := w.gone || !silent(conn)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gone = gone
	return gone && !w.woken
}

// silent reads until the read deadline, and reports whether the server has neither spoken nor
// left. A panic counts as a server that has left.
func silent(conn net.Conn) (silent bool) {
	defer func() { _ = recover() }()
	var one [1]byte
	for range maxEmptyReads {
		n, err := conn.Read(one[:])
		timeout := net.Error(nil)
		switch {
		case n > 0:
			return false
		case err != nil:
			return errors.As(err, &timeout) && timeout.Timeout()
		}
	}
	return false
}

// Wake ends Watch, and reports whether the session is usable. It does not wait for the
// server. It returns false when the session was not watched.
func (s *Session) Wake() bool {
	w := s.watch
	if w == nil {
		return false
	}
	w.mu.Lock()
	w.woken = true
	w.mu.Unlock()
	s.setReadDeadline(past())
	<-w.done
	s.watch, s.reader = nil, s.buffers.reader(s.conn)
	if w.gone {
		s.broken = true // nothing is said to a server that has left
		return false
	}
	s.setReadDeadline(time.Time{})
	return s.Usable()
}

// setReadDeadline sets the deadline unless all are past for good.
func (s *Session) setReadDeadline(t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.expired {
		_ = s.conn.SetReadDeadline(t)
	}
}
