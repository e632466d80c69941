// Package qmtptest is a QMTP server for tests. It does what a script tells it
// to: answer well, answer nonsense, answer early, or hang up anywhere.
package qmtptest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
)

// maxLength bounds the length of a netstring that the server believes, in bytes.
const maxLength = 1 << 40

// A Package is what a client has sent.
type Package struct {
	Message    []byte // without the LF that announces UNIX newlines
	Sender     string
	Recipients []string
}

// A Script is what the server does with one connection. The connection is closed
// when it returns.
type Script func(c *Conn) error

// A Conn is a connection from a client.
type Conn struct {
	net.Conn
	in     *bufio.Reader
	server *Server
}

// Read reads what the client sends.
func (c *Conn) Read(p []byte) (int, error) { return c.in.Read(p) }

// Discard reads and forgets n bytes.
func (c *Conn) Discard(n int64) error {
	_, err := io.CopyN(io.Discard, c.in, n)
	return err
}

// Package reads one package, and notes it for Server.Packages.
func (c *Conn) Package() (Package, error) {
	p, err := ReadPackage(c.in)
	if err == nil {
		c.server.note(p)
	}
	return p, err
}

// Say sends each text as a netstring, all in one write.
func (c *Conn) Say(texts ...string) error {
	var b strings.Builder
	for _, text := range texts {
		b.WriteString(Netstring(text))
	}
	return c.Raw(b.String())
}

// Raw sends bytes as they are.
func (c *Conn) Raw(bytes string) error {
	_, err := io.WriteString(c.Conn, bytes)
	return err
}

// Closing is closed when the server is. A script that does nothing waits for it.
func (c *Conn) Closing() <-chan struct{} { return c.server.closing }

// Reset closes the connection so that the client gets a reset.
func (c *Conn) Reset() error {
	if tcp, ok := c.Conn.(*net.TCPConn); ok {
		if err := tcp.SetLinger(0); err != nil {
			return err
		}
	}
	return c.Close()
}

// Answer is the script of a server that reads a package and says texts.
func Answer(texts ...string) Script {
	return func(c *Conn) error {
		if _, err := c.Package(); err != nil {
			return err
		}
		return c.Say(texts...)
	}
}

// Accept is the script of a server that takes packages for everyone until the
// client leaves.
func Accept(c *Conn) error {
	for {
		p, err := c.Package()
		if err != nil {
			return err
		}
		answers := make([]string, len(p.Recipients))
		for i := range answers {
			answers[i] = "Kok " + strconv.Itoa(i)
		}
		if err := c.Say(answers...); err != nil {
			return err
		}
	}
}

// A Server is a listener and what came in by it.
type Server struct {
	listener net.Listener
	script   Script
	running  sync.WaitGroup
	closing  chan struct{}

	mu       sync.Mutex
	open     map[net.Conn]bool
	packages []Package
}

// Start listens on a loopback port of the kernel's choice.
func Start(script Script) (*Server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	return Serve(l, script), nil
}

// Serve runs script for every connection to l, which it owns from now on.
func Serve(l net.Listener, script Script) *Server {
	s := &Server{listener: l, script: script, closing: make(chan struct{}), open: map[net.Conn]bool{}}
	s.running.Add(1)
	go s.accept()
	return s
}

// Addr is where the server listens, as host:port.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// Packages returns the packages that have been read so far.
func (s *Server) Packages() []Package {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Package(nil), s.packages...)
}

// Close ends all connections and waits for their scripts. It is called once.
func (s *Server) Close() error {
	err := s.listener.Close()
	s.mu.Lock()
	close(s.closing)
	for conn := range s.open {
		conn.Close()
	}
	s.mu.Unlock()
	s.running.Wait()
	return err
}

func (s *Server) accept() {
	defer s.running.Done()
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return
		}
		if !s.enter(conn) {
			conn.Close()
			return
		}
		go s.serve(conn)
	}
}

func (s *Server) enter(conn net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.closing:
		return false
	default:
	}
	s.open[conn] = true
	s.running.Add(1)
	return true
}

func (s *Server) serve(conn net.Conn) {
	defer s.running.Done()
	defer func() {
		conn.Close()
		s.mu.Lock()
		delete(s.open, conn)
		s.mu.Unlock()
	}()
	// A script fails when its client has left, which is no fault here.
	_ = s.script(&Conn{Conn: conn, in: bufio.NewReaderSize(conn, 64<<10), server: s})
}

func (s *Server) note(p Package) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.packages = append(s.packages, p)
}

// Netstring returns text as a netstring.
func Netstring(text string) string {
	return strconv.Itoa(len(text)) + ":" + text + ","
}

// ReadPackage reads one package: three netstrings, the third full of others. It is
// strict: a client that it understands speaks QMTP.
func ReadPackage(r *bufio.Reader) (Package, error) {
	var p Package
	message, err := readNetstring(r)
	if err != nil {
		return p, fmt.Errorf("message: %w", err)
	}
	if len(message) == 0 || message[0] != '\n' {
		return p, errors.New("the message does not begin with LF")
	}
	sender, err := readNetstring(r)
	if err != nil {
		return p, fmt.Errorf("sender: %w", err)
	}
	list, err := readNetstring(r)
	if err != nil {
		return p, fmt.Errorf("recipients: %w", err)
	}
	p.Message, p.Sender = message[1:], string(sender)
	inner := bufio.NewReader(strings.NewReader(string(list)))
	for {
		if _, err := inner.Peek(1); err == io.EOF {
			return p, nil
		}
		recipient, err := readNetstring(inner)
		if err != nil {
			return p, fmt.Errorf("recipient %d: %w", len(p.Recipients)+1, err)
		}
		p.Recipients = append(p.Recipients, string(recipient))
	}
}

func readNetstring(r *bufio.Reader) ([]byte, error) {
	digits, err := r.ReadString(':')
	if err != nil {
		return nil, err
	}
	digits = strings.TrimSuffix(digits, ":")
	n, err := strconv.ParseUint(digits, 10, 63)
	if err != nil || strconv.FormatUint(n, 10) != digits || n > maxLength {
		return nil, fmt.Errorf("length %q", digits)
	}
	var text strings.Builder
	if _, err := io.CopyN(&text, r, int64(n)); err != nil {
		return nil, err
	}
	if end, err := r.ReadByte(); err != nil {
		return nil, err
	} else if end != ',' {
		return nil, fmt.Errorf("%q where a comma belongs", end)
	}
	return []byte(text.String()), nil
}
