package tlsc

import (
	"io"
	"net"
	"sync/atomic"
	"time"
)

// A wire is the connection under crypto/tls. It knows what crypto/tls does not
// tell: whether an end of file was the connection's or a close_notify, whether a
// failure is the network's or TLS's, and what a server said that speaks no TLS.
type wire struct {
	net.Conn
	ended     atomic.Bool // the connection has come to its end
	broken    atomic.Bool // reading or writing has failed, but for a deadline
	first     []byte      // of what was read during the handshake, up to saidLimit
	listening bool        // first is being filled, and the server's signature looked for
	signature signatureFinder

	// In a tunnel:
	queue *queue                      // takes what is written
	pull  func(p []byte) (int, error) // reads from the connection
	ahead []byte                      // what was read ahead of crypto/tls
	space []byte                      // what ahead is a part of
}

// listen and ignore begin and end the keeping of first bytes.
func (w *wire) listen() { w.listening = true }
func (w *wire) ignore() { w.listening = false }

// Read reports the connection's end by itself, never with the last bytes: so ended
// is set only when crypto/tls has used them up and asks for more.
func (w *wire) Read(p []byte) (int, error) {
	n, err := w.read(p)
	if w.listening {
		w.first = append(w.first, p[:min(n, saidLimit-len(w.first))]...)
		w.signature.read(p[:n])
	}
	switch {
	case err == nil:
	case err == io.EOF && n > 0:
		return n, nil
	case err == io.EOF:
		w.ended.Store(true)
	case !isTimeout(err):
		w.broken.Store(true)
	}
	return n, err
}

// read reads ahead in a tunnel: crypto/tls asks for a record at a time, and the system
// has several.
func (w *wire) read(p []byte) (int, error) {
	if w.pull == nil {
		return w.Conn.Read(p)
	}
	if len(w.ahead) == 0 {
		n, err := w.pull(w.space)
		w.ahead = w.space[:n]
		if n == 0 {
			return 0, err
		}
		// An error that came with data comes again.
	}
	n := copy(p, w.ahead)
	w.ahead = w.ahead[n:]
	return n, nil
}

func (w *wire) Write(p []byte) (int, error) {
	if w.queue != nil {
		return w.queue.Write(p)
	}
	n, err := w.Conn.Write(p)
	if err != nil && !isTimeout(err) {
		w.broken.Store(true)
	}
	return n, err
}

// SetWriteDeadline does nothing while there is a queue: crypto/tls ends writing by
// a deadline of now once it has sent close_notify, which the queue still holds.
func (w *wire) SetWriteDeadline(t time.Time) error {
	if w.queue != nil {
		return nil
	}
	return w.Conn.SetWriteDeadline(t)
}

func (w *wire) SetDeadline(t time.Time) error {
	if w.queue != nil {
		return w.Conn.SetReadDeadline(t)
	}
	return w.Conn.SetDeadline(t)
}

// canHalfClose tells whether the directions of the connection can end by themselves.
func (w *wire) canHalfClose() bool {
	_, ok := w.Conn.(interface{ CloseWrite() error })
	return ok
}

// halfClose ends the sending direction, if it can. An error would say that the other
// end is gone, which shows elsewhere.
func (w *wire) halfClose() {
	if half, ok := w.Conn.(interface{ CloseWrite() error }); ok {
		half.CloseWrite()
	}
}

// shut ends both directions for everybody who holds a copy of the descriptor, and
// closes ours.
func (w *wire) shut() {
	switch c := w.Conn.(type) {
	case interface{ Shutdown() error }:
		c.Shutdown()
	case interface {
		CloseRead() error
		CloseWrite() error
	}:
		c.CloseWrite()
		c.CloseRead()
	}
	w.Close()
}
