package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"

	"github.com/emersion/go-smtp"
)

// SMTP says how an SMTP server is to behave. The zero value accepts everything,
// offers PIPELINING, 8BITMIME, ENHANCEDSTATUSCODES, CHUNKING and SIZE, and no
// STARTTLS.
type SMTP struct {
	Name     string // said in the greeting
	TLS      TLS    // with a certificate STARTTLS is offered
	Implicit bool   // TLS from the first byte, in place of STARTTLS

	NoEHLO       bool // EHLO is answered 502
	NoPipelining bool
	No8BitMIME   bool
	SMTPUTF8     bool
	Size         int64    // limit that is announced and kept; 0: none
	Extensions   []string // further lines of the EHLO reply

	Senders    map[string]string // sender -> reply to MAIL, e.g. "550 5.7.1 not from you"
	Recipients map[string]string // recipient -> reply to RCPT
	Message    string            // reply after the message; empty: 250
	Parameters string            // reply to MAIL with anything behind its bracket
	Clear      string            // reply to MAIL, RCPT and DATA outside TLS
	Blank      bool              // an empty line in front of each reply
	Inject     string            // sent in the clear along with the 220 to STARTTLS
	Faults     Faults
}

// SMTPServer is a running SMTP server.
type SMTPServer struct {
	config   SMTP
	inbox    *Inbox
	listener *wireListener
	server   *smtp.Server
	serving  sync.WaitGroup
}

// StartSMTP starts a server on a listener, which it then owns; what it receives
// goes to inbox.
func StartSMTP(listener net.Listener, config SMTP, inbox *Inbox) *SMTPServer {
	s := &SMTPServer{config: config, inbox: inbox}
	s.listener = &wireListener{Listener: listener, server: s, open: make(map[*wire]bool)}
	s.server = smtp.NewServer(smtp.BackendFunc(s.session))
	s.server.Domain = config.Name
	s.server.MaxLineLength = 0
	if config.Size > 0 {
		// go-smtp refuses a message by DATA that has exactly as many bytes as it allows.
		s.server.MaxMessageBytes = config.Size + 1
	}
	s.server.EnableSMTPUTF8 = config.SMTPUTF8
	s.server.ErrorLog = log.New(io.Discard, "", 0)
	s.serving.Go(func() { s.server.Serve(s.listener) })
	return s
}

// AddrPort returns where the server listens.
func (s *SMTPServer) AddrPort() netip.AddrPort { return addrPort(s.listener.Addr()) }

// Close stops the server and hangs up all its connections. It may be called
// again.
func (s *SMTPServer) Close() error {
	s.listener.hangUpAll()
	s.serving.Wait()
	// Not go-smtp's Close, which writes to connections that are being served.
	// Their servants end by themselves, now that nothing can be read.
	err := s.server.Shutdown(context.Background())
	if errors.Is(err, smtp.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
		err = nil
	}
	return err
}

func addrPort(a net.Addr) netip.AddrPort {
	if tcp, ok := a.(*net.TCPAddr); ok {
		ap := tcp.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPort{}
}

// session is go-smtp's view of a connection.
func (s *SMTPServer) session(c *smtp.Conn) (smtp.Session, error) {
	w, ok := c.Conn().(*wire)
	if !ok {
		return nil, errors.New("a connection that is not the lab's")
	}
	return &smtpSession{server: s, wire: w}, nil
}

// smtpSession is one transaction of go-smtp's after the other.
type smtpSession struct {
	server     *SMTPServer
	wire       *wire
	sender     string
	recipients []string
}

func (s *smtpSession) Mail(from string, _ *smtp.MailOptions) error {
	s.sender = from
	return refusal(s.server.config.Senders[from])
}

func (s *smtpSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	if err := refusal(s.server.config.Recipients[to]); err != nil {
		return err
	}
	s.recipients = append(s.recipients, to)
	return nil
}

func (s *smtpSession) Data(r io.Reader) error {
	data, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if err := refusal(s.server.config.Message); err != nil {
		return err
	}
	s.server.inbox.put(&Message{
		Session:    s.wire.session,
		Sender:     s.sender,
		Parameters: s.wire.parameters,
		Recipients: s.recipients,
		Data:       data,
		Wire:       s.wire.takeMessage(),
	})
	return nil
}

func (s *smtpSession) Reset() { s.sender, s.recipients = "", nil }

func (s *smtpSession) Logout() error { return nil }

// refusal makes a reply go-smtp's error; an empty one and a 2xx are nil.
func refusal(reply string) error {
	if reply == "" || reply[0] == '2' {
		return nil
	}
	digits, text, _ := strings.Cut(reply, " ")
	code, err := strconv.Atoi(digits)
	if err != nil {
		return fmt.Errorf("not a reply: %q", reply)
	}
	return &smtp.SMTPError{Code: code, EnhancedCode: smtp.NoEnhancedCode, Message: text}
}
