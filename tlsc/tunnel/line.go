package tunnel

import (
	"errors"
	"io"
	"net"
	"sync/atomic"
	"time"
)

// A Line is the connection to the server. The handshake is made over it, as over any
// net.Conn. From Relay on, it puts a queue in front of what crypto/tls writes, and reads
// ahead of what crypto/tls asks for.
type Line struct {
	net.Conn
	queue  *queue                      // takes what is written; nil before Relay
	pull   func(p []byte) (int, error) // reads from the connection; nil before Relay
	ahead  []byte                      // what was read ahead of crypto/tls
	space  []byte                      // what ahead is a part of
	broken atomic.Bool                 // reading has failed, other than by a deadline
}

// NewLine returns a Line over a connection. If the connection can end its directions
// separately, it has a CloseWrite method. If others may hold copies of its descriptor, it
// has a Shutdown method, which ends the connection for them too.
func NewLine(conn net.Conn) *Line { return &Line{Conn: conn} }

// begin makes it the line of a tunnel.
func (l *Line) begin(q *queue, pull func(p []byte) (int, error)) {
	l.Conn.SetDeadline(time.Time{})
	l.queue, l.pull, l.space = q, pull, make([]byte, relayBuffer)
}

// Read reads ahead in a tunnel: crypto/tls asks for a record at a time, and the system
// has several.
func (l *Line) Read(p []byte) (int, error) {
	if l.pull == nil {
		return l.Conn.Read(p)
	}
	if len(l.ahead) == 0 {
		n, err := l.pull(l.space)
		l.ahead = l.space[:n]
		if n == 0 {
			if err != io.EOF && !isTimeout(err) {
				l.broken.Store(true)
			}
			return 0, err
		}
		// An error that came with data comes again.
	}
	n := copy(p, l.ahead)
	l.ahead = l.ahead[n:]
	return n, nil
}

func (l *Line) Write(p []byte) (int, error) {
	if l.queue != nil {
		return l.queue.Write(p)
	}
	return l.Conn.Write(p)
}

// SetWriteDeadline does nothing in a tunnel: when crypto/tls has sent close_notify, it
// ends writing by a deadline of now, but the queue still holds the close_notify.
func (l *Line) SetWriteDeadline(t time.Time) error {
	if l.queue != nil {
		return nil
	}
	return l.Conn.SetWriteDeadline(t)
}

// SetDeadline is SetReadDeadline in a tunnel.
func (l *Line) SetDeadline(t time.Time) error {
	if l.queue != nil {
		return l.Conn.SetReadDeadline(t)
	}
	return l.Conn.SetDeadline(t)
}

// canHalfClose reports whether the directions of the connection can end separately.
func (l *Line) canHalfClose() bool {
	_, ok := l.Conn.(interface{ CloseWrite() error })
	return ok
}

// halfClose ends the sending direction, if that is possible. An error would say that the
// other end is gone, which shows elsewhere.
func (l *Line) halfClose() {
	if half, ok := l.Conn.(interface{ CloseWrite() error }); ok {
		half.CloseWrite()
	}
}

// shut ends both directions, for everybody who holds a copy of the descriptor, and
// closes our copy.
func (l *Line) shut() {
	switch c := l.Conn.(type) {
	case interface{ Shutdown() error }:
		c.Shutdown()
	case interface {
		CloseRead() error
		CloseWrite() error
	}:
		c.CloseWrite()
		c.CloseRead()
	}
	l.Close()
}

func isTimeout(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.As(err, &timeout) && timeout.Timeout()
}

// innermost is the error at the end of the chain: "connection reset by peer" without the
// addresses, which the reader knows.
func innermost(err error) error {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err
		}
		err = next
	}
}
