// Package smtptest has SMTP servers for tests. They also do what no decent server
// does: fall silent, hang up, speak out of turn, answer late or all at once.
//
// [Listen] gives a test the raw connection. [Server] knows the protocol, is told
// at each point of the conversation what to do there, remembers what it saw, and
// notes what the client must not do (see [Violation]).
//
//	RFC 5321   the conversation, the message, lengths
//	RFC 2920   which commands may be sent without waiting
//	RFC 3207   STARTTLS
//	RFC 4954   AUTH, with the server's side of seven mechanisms
package smtptest

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"
)

const (
	// patience bounds every wait of a server, so that a test fails and does
	// not hang.
	patience = 2 * time.Minute
	// quiet is how long nothing must come for a flight of commands to count as
	// over.
	quiet = 20 * time.Millisecond
	// bufferSize holds a flight of commands.
	bufferSize = 64 << 10
)

// T is the part of testing.TB that this package needs. Programs that have servers
// of this package, such as mxf-try, are not linked with package testing.
type T interface {
	Helper()
	Fatal(args ...any)
	Cleanup(func())
}

// A Conn is the server's side of a connection.
type Conn struct {
	net.Conn
	Reader *bufio.Reader

	beneath net.Conn // inside TLS: what carries it
}

// NewConn returns the server's side of a connection that was accepted.
func NewConn(conn net.Conn) *Conn {
	return &Conn{Conn: conn, Reader: bufio.NewReaderSize(conn, bufferSize)}
}

// Say writes text with every newline made CR LF.
func (c *Conn) Say(text string) error {
	_, err := io.WriteString(c, strings.ReplaceAll(text, "\n", "\r\n"))
	return err
}

// Line reads a command. A line that does not end in CR LF, or that has a CR in
// its midst, is an error.
func (c *Conn) Line() (string, error) {
	line, err := c.Reader.ReadString('\n')
	if err != nil {
		return line, err
	}
	command, ok := strings.CutSuffix(line, "\r\n")
	if !ok || strings.Contains(command, "\r") {
		return line, Violation(fmt.Sprintf("line end in %q", line))
	}
	return command, nil
}

// Reset hangs up with a TCP reset.
func (c *Conn) Reset() {
	if tcp, ok := c.raw().(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	c.Drop()
}

// Drop hangs up without a word, inside TLS too.
func (c *Conn) Drop() { _ = c.raw().Close() }

// raw is the connection beneath TLS.
func (c *Conn) raw() net.Conn {
	if c.beneath != nil {
		return c.beneath
	}
	return c.Conn
}

// Hold reads and drops what the client sends until it hangs up.
func (c *Conn) Hold() {
	_, _ = io.Copy(io.Discard, c.Reader)
}

// StartTLS goes on inside TLS.
func (c *Conn) StartTLS(config *tls.Config) error {
	plain := c.Conn
	if c.Reader != nil {
		plain = &readAhead{c.Conn, c.Reader}
	}
	secure := tls.Server(plain, config)
	if err := secure.Handshake(); err != nil {
		return err
	}
	c.Conn, c.beneath = secure, c.Conn
	c.Reader = bufio.NewReaderSize(secure, bufferSize)
	return nil
}

// readAhead is a connection some of whose bytes may wait in a buffer.
type readAhead struct {
	net.Conn
	r io.Reader
}

func (b *readAhead) Read(p []byte) (int, error) { return b.r.Read(p) }

// Listen runs serve for each connection to an address of its own, which it
// returns. The end of the test waits for all of them.
func Listen(t T, serve func(c *Conn)) string {
	t.Helper()
	return ListenAt(t, "127.0.0.1:0", serve)
}

// ListenAt is Listen with an address of the caller's choice.
func ListenAt(t T, address string, serve func(c *Conn)) string {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(patience))
				serve(NewConn(conn))
			})
		}
	})
	t.Cleanup(func() {
		listener.Close()
		running.Wait()
	})
	return listener.Addr().String()
}

// Dial connects to a server of this package.
func Dial(t T, address string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}
