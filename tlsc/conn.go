package tlsc

import (
	"crypto/tls"
	"net"
	"sync/atomic"
	"time"
)

// A Conn is a connection inside TLS. Several goroutines may use it, as net.Conn
// promises. Errors after the handshake are *Error of KindRunning, except io.EOF,
// deadlines and net.ErrClosed.
type Conn struct {
	tls   *tls.Conn
	wire  *wire
	facts Facts
	asked bool        // the server asked for a certificate
	gave  bool        // and was given one
	heard atomic.Bool // the server has sent data

	resumption *resumption // nil: no sessions are kept
}

var _ net.Conn = (*Conn)(nil)

// Facts are what the handshake agreed upon.
func (c *Conn) Facts() Facts { return c.facts }

// Parameters of the channel binding tls-exporter (RFC 9266 section 2).
const (
	exporterLabel  = "EXPORTER-Channel-Binding"
	exporterLength = 32
)

// Exporter is the channel binding tls-exporter, 32 bytes that both ends know and nobody in
// between. It is nil where TLS has none: before TLS 1.2, and in TLS 1.2 without an extended
// master secret (RFC 9266 section 4.1). It is computed here, because few conversations want it.
func (c *Conn) Exporter() []byte {
	state := c.tls.ConnectionState()
	// crypto/tls makes the second check too, but $GODEBUG can switch it off.
	if state.Version < tls.VersionTLS12 || state.Version == tls.VersionTLS12 && !c.wire.plain.extended {
		return nil
	}
	// In TLS 1.2 no context and an empty one are two things (RFC 5705 section 4). RFC 9266
	// wants the empty one.
	value, err := state.ExportKeyingMaterial(exporterLabel, []byte{}, exporterLength)
	if err != nil {
		return nil
	}
	return value
}

// Truncated reports, after Read has returned io.EOF, whether the server ended the
// connection without close_notify. If so, nobody knows whether it had sent everything
// (RFC 8446 section 6.1).
func (c *Conn) Truncated() bool { return c.wire.ended.Load() }

// Read returns io.EOF at the server's close_notify. It does so too where the connection
// ends without one, between two records: see Truncated.
func (c *Conn) Read(p []byte) (int, error) {
	n, err := c.tls.Read(p)
	if n > 0 && (c.asked || c.facts.Resumed) {
		c.heard.Store(true)
	}
	c.lost(err)
	return n, c.runningError(err)
}

func (c *Conn) Write(p []byte) (int, error) {
	n, err := c.tls.Write(p)
	return n, c.runningError(err)
}

// CloseWrite sends close_notify. What the server sends can still be read.
func (c *Conn) CloseWrite() error { return c.runningError(c.tls.CloseWrite()) }

// Close sends close_notify, if that takes no more than a few seconds, and closes the
// connection underneath.
func (c *Conn) Close() error { return c.tls.Close() }

// LocalAddr is that of the connection underneath.
func (c *Conn) LocalAddr() net.Addr { return c.wire.LocalAddr() }

// RemoteAddr is that of the connection underneath.
func (c *Conn) RemoteAddr() net.Addr { return c.wire.RemoteAddr() }

// SetDeadline sets both deadlines. After a Write has met its deadline, nothing more can
// be written to the connection.
func (c *Conn) SetDeadline(t time.Time) error { return c.tls.SetDeadline(t) }

// SetReadDeadline is that of net.Conn.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.tls.SetReadDeadline(t) }

// SetWriteDeadline is that of net.Conn, with the restriction of SetDeadline.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.tls.SetWriteDeadline(t) }
