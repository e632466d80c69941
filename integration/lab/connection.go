package lab

import (
	"crypto/tls"
	"io"

	"nightmare.mail/mxf/smtpc/smtptest"
)

// A connection is one to a server that has TLS from the first byte, or none.
type connection struct {
	*server
	*smtptest.Conn
	tls     *TLS
	faults  Faults
	session *Session
	number  int64
}

// secure makes the TLS handshake where there is one.
func (c *connection) secure() bool {
	if c.tls.Certificate == nil {
		return true
	}
	// The client's first words are read before: a connection that is closed with
	// bytes unread ends with a reset.
	if _, err := c.Reader.Peek(1); err != nil || c.suffer(Handshake) {
		return false
	}
	if err := c.StartTLS(c.tls.config()); err != nil {
		c.session.setTLS(nil, err)
		return false
	}
	state := c.Conn.Conn.(*tls.Conn).ConnectionState()
	c.session.setTLS(&state, nil)
	return true
}

// suffer carries out the fault of a step, and reports whether the connection is
// over with it.
func (c *connection) suffer(step Step) bool {
	f, ok := c.faults.at(step, c.number)
	if !ok {
		return false
	}
	if !c.wait(f.Delay) {
		return true
	}
	if f.Reply != "" {
		io.WriteString(c.Conn, f.Reply)
	}
	if f.Stall {
		c.Hold()
	}
	if f.Reset {
		c.Reset()
	} else if f.over() {
		c.Drop()
	}
	return f.over()
}

// end says inside TLS that nothing more comes.
func (c *connection) end() {
	if t, ok := c.Conn.Conn.(*tls.Conn); ok {
		t.CloseWrite()
	}
}
