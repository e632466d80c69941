package lab

import (
	"bytes"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"

	"nightmare.mail/mxf/smtpc/smtptest"
)

// A Message is one that a server accepted, or would have if it had not gone away.
type Message struct {
	Session    *Session
	Sender     string
	Parameters string   // of MAIL, as they were sent; empty in QMTP
	Recipients []string // those that were accepted
	Data       []byte   // the message: in SMTP with CR LF and without the stuffed dots
	Wire       []byte   // the same as it was received, at most wireLimit bytes: stuffed, with the end of data
}

// wireLimit bounds what is kept twice of a message.
const wireLimit = 1 << 20

// A Session is one connection to a server.
type Session struct {
	Protocol string // smtp, qmtp, qmtps
	Server   string // name of the server
	Local    netip.AddrPort
	Remote   netip.AddrPort

	mu       sync.Mutex
	tls      *tls.ConnectionState
	failure  error
	commands []string
	secrets  []string
	turns    int
	wrong    error
	over     bool
}

// Over reports whether the server is through with the connection.
func (s *Session) Over() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.over
}

// follow takes over what smtptest has seen of the connection.
func (s *Session) follow(c *smtptest.Conversation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tls, s.failure, s.turns = c.TLS, c.Handshake, c.Turns
	s.wrong = c.Violation()
}

// end notes that the connection is over.
func (s *Session) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
}

// TLS returns what was negotiated, or nil.
func (s *Session) TLS() *tls.ConnectionState {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tls
}

// Failure returns the error of a failed TLS handshake, as the server saw it.
func (s *Session) Failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failure
}

// Commands returns the SMTP commands as they came, without their line ends; one
// that came inside TLS has "TLS " before it.
func (s *Session) Commands() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.commands)
}

// Turns returns how often the client had to wait, the TLS handshake included.
func (s *Session) Turns() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.turns
}

func (s *Session) setTLS(state *tls.ConnectionState, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tls, s.failure = state, err
	if err == nil {
		s.turns++
	}
}

func (s *Session) note(command string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tls != nil {
		command = "TLS " + command
	}
	s.commands = append(s.commands, command)
}

func (s *Session) turn() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.turns++
}

// Secrets returns what clients said in base64 to log in, one for each line.
func (s *Session) Secrets() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.secrets)
}

// conceal notes a part of a line that is not to be seen elsewhere.
func (s *Session) conceal(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if text != "" && text != "=" && text != "*" {
		s.secrets = append(s.secrets, text)
	}
}

// An Inbox is where all servers of a lab put what they received.
type Inbox struct {
	mu       sync.Mutex
	messages []*Message
	sessions []*Session
	past     []*Session // that were emptied
}

// Messages returns what has arrived, in the order of arrival.
func (in *Inbox) Messages() []*Message {
	in.mu.Lock()
	defer in.mu.Unlock()
	return slices.Clone(in.messages)
}

// Sessions returns all connections that were accepted, in order.
func (in *Inbox) Sessions() []*Session {
	in.mu.Lock()
	defer in.mu.Unlock()
	return slices.Clone(in.sessions)
}

// Empty forgets everything.
func (in *Inbox) Empty() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.messages, in.past, in.sessions = nil, append(in.past, in.sessions...), nil
}

// Rewind forgets the sessions from the n-th on, counted from 0.
func (in *Inbox) Rewind(n int) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.past, in.sessions = append(in.past, in.sessions[n:]...), in.sessions[:n:n]
}

// Wrong returns what clients did that they must not do, on all connections that ever
// were, or nil. Tests ask for it in the end.
func (in *Inbox) Wrong() error {
	in.mu.Lock()
	defer in.mu.Unlock()
	var errs []error
	for _, s := range append(in.past, in.sessions...) {
		s.mu.Lock()
		errs = append(errs, s.wrong)
		s.mu.Unlock()
	}
	return errors.Join(errs...)
}

func (in *Inbox) put(m *Message) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.messages = append(in.messages, m)
}

// begin returns the session of a connection that a server has accepted.
func (in *Inbox) begin(protocol, server string, conn net.Conn) *Session {
	s := &Session{Protocol: protocol, Server: server, Local: addrPort(conn.LocalAddr()), Remote: addrPort(conn.RemoteAddr())}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.sessions = append(in.sessions, s)
	return s
}

// SameText reports whether two messages are the same apart from their line ends: LF, CR
// LF and a bare CR are all one line end, as SMTP makes them.
func SameText(a, b []byte) bool { return bytes.Equal(lines(a), lines(b)) }

func lines(b []byte) []byte {
	if bytes.IndexByte(b, '\r') < 0 {
		return b
	}
	b = bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n"))
	return bytes.ReplaceAll(b, []byte("\r"), []byte("\n"))
}
