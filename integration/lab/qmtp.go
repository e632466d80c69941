package lab

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"
)

// QMTP says how a QMTP server is to behave. The zero value accepts everything.
type QMTP struct {
	Name    string
	TLS     TLS               // with a certificate every connection begins with TLS (qmtps)
	Answers map[string]string // recipient -> answer, e.g. "Dno such user"; absent: "Kok"
	// Faults happen at greeting (once connected), handshake, body and end. A
	// Reply is sent as it is, without CR LF and outside any netstring.
	Faults Faults
}

// QMTPServer is a running QMTP server.
type QMTPServer struct {
	config   QMTP
	inbox    *Inbox
	listener net.Listener
	count    connCounter
	running  sync.WaitGroup
	gone     chan struct{}

	mu   sync.Mutex
	open map[net.Conn]bool
}

// StartQMTP starts a server on a listener, which it then owns; what it receives
// goes to inbox.
func StartQMTP(listener net.Listener, config QMTP, inbox *Inbox) *QMTPServer {
	s := &QMTPServer{
		config: config, inbox: inbox, listener: listener,
		gone: make(chan struct{}), open: make(map[net.Conn]bool),
	}
	s.running.Go(s.accept)
	return s
}

// AddrPort returns where the server listens.
func (s *QMTPServer) AddrPort() netip.AddrPort { return addrPort(s.listener.Addr()) }

// Close stops the server and hangs up all its connections. It may be called
// again.
func (s *QMTPServer) Close() error {
	err := s.listener.Close()
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	s.mu.Lock()
	if s.open != nil {
		close(s.gone)
	}
	for conn := range s.open {
		conn.Close()
	}
	s.open = nil
	s.mu.Unlock()
	s.running.Wait()
	return err
}

func (s *QMTPServer) accept() {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return
		}
		if !s.track(conn) {
			conn.Close()
			return
		}
		s.running.Go(func() {
			defer s.untrack(conn)
			s.serve(conn)
		})
	}
}

func (s *QMTPServer) track(conn net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		return false
	}
	s.open[conn] = true
	return true
}

func (s *QMTPServer) untrack(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	conn.Close()
	delete(s.open, conn)
}

// qmtpConn is one connection.
type qmtpConn struct {
	server  *QMTPServer
	raw     net.Conn
	stream  io.Writer
	in      *bufio.Reader
	session *Session
	number  int64
}

func (s *QMTPServer) serve(conn net.Conn) {
	protocol := "qmtp"
	if s.config.TLS.Certificate != nil {
		protocol = "qmtps"
	}
	c := &qmtpConn{
		server: s, raw: conn, stream: conn, in: bufio.NewReader(conn), number: s.count.next(),
		session: &Session{
			Protocol: protocol,
			Server:   s.config.Name,
			Local:    addrPort(conn.LocalAddr()),
			Remote:   addrPort(conn.RemoteAddr()),
		},
	}
	s.inbox.open(c.session)
	defer c.session.end()
	if c.suffer(Greeting) || !c.secure() {
		return
	}
	for c.one() == nil {
	}
	if t, ok := c.stream.(*tls.Conn); ok {
		t.CloseWrite()
	}
}

// secure makes the TLS handshake where there is to be one.
func (c *qmtpConn) secure() bool {
	if c.server.config.TLS.Certificate == nil {
		return true
	}
	// Once the client's first words were read: what is left unread when a
	// connection is closed makes the close a reset.
	if _, err := c.in.Peek(1); err != nil || c.suffer(Handshake) {
		return false
	}
	t := tls.Server(&buffered{c.raw, c.in}, c.server.config.TLS.config())
	if err := t.Handshake(); err != nil {
		c.session.setTLS(nil, err)
		return false
	}
	state := t.ConnectionState()
	c.session.setTLS(&state, nil)
	c.stream, c.in = t, bufio.NewReader(t)
	return true
}

// suffer carries out the fault of a step, and tells whether the connection is
// over with it.
func (c *qmtpConn) suffer(step Step) bool {
	f, ok := c.server.config.Faults.at(step, c.number)
	if !ok {
		return false
	}
	if f.Delay > 0 {
		select {
		case <-time.After(f.Delay):
		case <-c.server.gone:
			return true
		}
	}
	if f.Reply != "" {
		io.WriteString(c.stream, f.Reply)
	}
	if f.Stall {
		io.Copy(io.Discard, c.in)
	}
	if f.over() {
		hangUp(c.raw, f.Reset)
	}
	return f.over()
}

var errHungUp = errors.New("hung up")

// one receives one package and answers it.
func (c *qmtpConn) one() error {
	if _, err := c.in.Peek(1); err != nil {
		return err
	}
	if c.suffer(Body) {
		return errHungUp
	}
	message, err := readNetstring(c.in)
	if err != nil {
		return err
	}
	sender, err := readNetstring(c.in)
	if err != nil {
		return err
	}
	list, err := readNetstring(c.in)
	if err != nil {
		return err
	}
	recipients, err := splitNetstrings(list)
	if err != nil {
		return err
	}
	c.session.flight()
	answers, accepted := c.judge(recipients)
	if len(accepted) > 0 {
		c.server.inbox.put(&Message{
			Session: c.session, Sender: string(sender), Recipients: accepted,
			Data: decode(message), Wire: message[:min(len(message), wireLimit)],
		})
	}
	if c.suffer(End) {
		return errHungUp
	}
	_, err = io.WriteString(c.stream, answers)
	return err
}

func (c *qmtpConn) judge(recipients []string) (answers string, accepted []string) {
	for _, r := range recipients {
		answer, ok := c.server.config.Answers[r]
		if !ok {
			answer = "Kok " + strconv.FormatInt(c.number, 10)
		}
		if answer[:min(1, len(answer))] == "K" {
			accepted = append(accepted, r)
		}
		answers += strconv.Itoa(len(answer)) + ":" + answer + ","
	}
	return answers, accepted
}

// decode takes a message out of its QMTP encoding: the first byte says how lines
// end, LF here; the DOS one is CR LF.
func decode(message []byte) []byte {
	switch {
	case len(message) == 0:
		return nil
	case message[0] == '\r':
		return []byte(strings.ReplaceAll(string(message[1:]), "\r\n", "\n"))
	}
	return message[1:]
}

// maxNetstring is more than any message of a test.
const maxNetstring = 1 << 30

func readNetstring(r *bufio.Reader) ([]byte, error) {
	digits, err := r.ReadString(':')
	if err != nil {
		return nil, err
	}
	n, err := strconv.ParseUint(strings.TrimSuffix(digits, ":"), 10, 31)
	if err != nil || n > maxNetstring || len(digits) > 2 && digits[0] == '0' {
		return nil, fmt.Errorf("netstring length %q", digits)
	}
	b := make([]byte, n+1)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, err
	}
	if b[n] != ',' {
		return nil, fmt.Errorf("netstring ends in %q", b[n])
	}
	return b[:n], nil
}

func splitNetstrings(b []byte) (list []string, err error) {
	r := bufio.NewReader(strings.NewReader(string(b)))
	for {
		if _, err := r.Peek(1); err != nil {
			return list, nil
		}
		one, err := readNetstring(r)
		if err != nil {
			return nil, err
		}
		list = append(list, string(one))
	}
}
