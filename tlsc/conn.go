package tlsc

import (
	"crypto/tls"
	"net"
	"sync/atomic"
	"time"
)

// A Conn is a connection inside TLS. It is a net.Conn with all that this promises
// about use by several goroutines. Errors after the handshake are *Error of
// KindRunning, except io.EOF, deadlines and net.ErrClosed.
type Conn struct {
	tls         *tls.Conn
	wire        *wire
	description Description
	asked       bool        // the server wanted a certificate
	gave        bool        // and got one
	heard       atomic.Bool // the server has sent data
}

var _ net.Conn = (*Conn)(nil)

// Description tells what the handshake agreed upon.
func (c *Conn) Description() Description { return c.description }

// Truncated reports, after Read has returned io.EOF, whether the server ended the
// connection without close_notify: then nobody can tell if it had said everything
// (RFC 8446 section 6.1).
func (c *Conn) Truncated() bool { return c.wire.ended.Load() }

// Read returns io.EOF at the server's close_notify, and also where the connection
// ends without it between two records: see Truncated.
func (c *Conn) Read(p []byte) (int, error) {
	n, err := c.tls.Read(p)
	if n > 0 && c.asked {
		c.heard.Store(true)
	}
	return n, c.runningError(err)
}

func (c *Conn) Write(p []byte) (int, error) {
	n, err := c.tls.Write(p)
	return n, c.runningError(err)
}

// CloseWrite sends close_notify; what the server sends can still be read.
func (c *Conn) CloseWrite() error { return c.runningError(c.tls.CloseWrite()) }

// Close sends close_notify, if that can be done within a few seconds, and closes
// the connection underneath.
func (c *Conn) Close() error { return c.tls.Close() }

// LocalAddr is that of the connection underneath.
func (c *Conn) LocalAddr() net.Addr { return c.wire.LocalAddr() }

// RemoteAddr is that of the connection underneath.
func (c *Conn) RemoteAddr() net.Addr { return c.wire.RemoteAddr() }

// SetDeadline sets both deadlines. After a Write that met its deadline the
// connection cannot be written to any more.
func (c *Conn) SetDeadline(t time.Time) error { return c.tls.SetDeadline(t) }

// SetReadDeadline is that of net.Conn.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.tls.SetReadDeadline(t) }

// SetWriteDeadline is that of net.Conn, with the restriction of SetDeadline.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.tls.SetWriteDeadline(t) }
