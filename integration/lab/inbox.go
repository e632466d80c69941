package lab

import (
	"bytes"
	"crypto/tls"
	"net/netip"
	"slices"
	"sync"
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
	flights  int
	over     bool
}

// Over tells whether the server is through with the connection.
func (s *Session) Over() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.over
}

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

// Flights returns how many times the server answered after having read: the turns
// that the client waited for, and one for QUIT. The TLS handshake does not count.
func (s *Session) Flights() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.flights
}

func (s *Session) setTLS(state *tls.ConnectionState, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tls, s.failure = state, err
}

func (s *Session) note(command string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tls != nil {
		command = "TLS " + command
	}
	s.commands = append(s.commands, command)
}

func (s *Session) flight() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flights++
}

// An Inbox is where all servers of a lab put what they received.
type Inbox struct {
	mu       sync.Mutex
	messages []*Message
	sessions []*Session
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
	in.messages, in.sessions = nil, nil
}

func (in *Inbox) put(m *Message) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.messages = append(in.messages, m)
}

func (in *Inbox) open(s *Session) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.sessions = append(in.sessions, s)
}

// SameText tells whether two messages are the same but for their line ends: LF, CR
// LF and a bare CR are all one line end, as SMTP makes them.
func SameText(a, b []byte) bool { return bytes.Equal(lines(a), lines(b)) }

func lines(b []byte) []byte {
	if bytes.IndexByte(b, '\r') < 0 {
		return b
	}
	b = bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n"))
	return bytes.ReplaceAll(b, []byte("\r"), []byte("\n"))
}
