package lab

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"

	"nightmare.mail/mxf/smtpc/smtptest"
)

// QMTP says how a QMTP server behaves. The zero value accepts everything.
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
	*server
	config QMTP
	inbox  *Inbox
}

// StartQMTP starts a server on a listener, which it then owns; what it receives
// goes to inbox.
func StartQMTP(listener net.Listener, config QMTP, inbox *Inbox) *QMTPServer {
	s := &QMTPServer{server: newServer(listener), config: config, inbox: inbox}
	s.run(s.serve)
	return s
}

// qmtpConn is one connection.
type qmtpConn struct {
	*connection
	config *QMTP
	inbox  *Inbox
}

func (s *QMTPServer) serve(conn net.Conn, number int64) {
	protocol := "qmtp"
	if s.config.TLS.Certificate != nil {
		protocol = "qmtps"
	}
	c := &qmtpConn{&connection{s.server, smtptest.NewConn(conn), &s.config.TLS, s.config.Faults, s.inbox.begin(protocol, s.config.Name, conn), number}, &s.config, s.inbox}
	defer c.session.end()
	if c.suffer(Greeting) || !c.secure() {
		return
	}
	for c.one() == nil {
	}
	c.end()
}

var errHungUp = errors.New("hung up")

// one receives one package and answers it.
func (c *qmtpConn) one() error {
	if _, err := c.Reader.Peek(1); err != nil {
		return err
	}
	if c.suffer(Body) {
		return errHungUp
	}
	message, err := readNetstring(c.Reader)
	if err != nil {
		return err
	}
	sender, err := readNetstring(c.Reader)
	if err != nil {
		return err
	}
	list, err := readNetstring(c.Reader)
	if err != nil {
		return err
	}
	recipients, err := splitNetstrings(list)
	if err != nil {
		return err
	}
	c.session.turn()
	answers, accepted := c.judge(recipients)
	if len(accepted) > 0 {
		c.inbox.put(&Message{
			Session: c.session, Sender: string(sender), Recipients: accepted,
			Data: decode(message), Wire: message[:min(len(message), wireLimit)],
		})
	}
	if c.suffer(End) {
		return errHungUp
	}
	_, err = io.WriteString(c.Conn, answers)
	return err
}

func (c *qmtpConn) judge(recipients []string) (answers string, accepted []string) {
	for _, r := range recipients {
		answer, ok := c.config.Answers[r]
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
