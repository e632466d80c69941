package lab

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"

	"nightmare.mail/mxf/smtpc/smtptest"
)

// httpsPort is where an MTA-STS policy is served (RFC 8461 section 3.3), and nowhere else.
const httpsPort = 443

// HTTPS says how a server of MTA-STS policies behaves: it gives the same answer to whatever
// it is asked.
type HTTPS struct {
	Name   string
	TLS    TLS      // with a certificate
	Status string   // empty: "200 OK"
	Header []string // lines of the answer, without Content-Length
	Body   string
	// Faults happen at greeting (once connected), handshake and end (in place of the
	// answer). A Reply is sent as it is.
	Faults Faults
}

// HTTPSServer is a running server of policies.
type HTTPSServer struct {
	*server
	config HTTPS
	inbox  *Inbox
}

// HTTPS starts a server of policies on port 443 of addr, which must be free: a network of its
// own has one. Its connections are sessions of the inbox, and the lines of each request their
// commands.
func (l *Lab) HTTPS(addr netip.Addr, config HTTPS) (*HTTPSServer, error) {
	listener, err := net.Listen("tcp", netip.AddrPortFrom(addr, httpsPort).String())
	if err != nil {
		return nil, err
	}
	s := &HTTPSServer{newServer(listener), config, l.Inbox}
	s.run(s.serve)
	l.closers = append(l.closers, s.Close)
	return s, nil
}

// ProtocolHTTPS is the Protocol of a session with a server of policies.
const ProtocolHTTPS = "https"

func (s *HTTPSServer) serve(conn net.Conn, number int64) {
	c := &connection{s.server, smtptest.NewConn(conn), &s.config.TLS, s.config.Faults, s.inbox.begin(ProtocolHTTPS, s.config.Name, conn), number}
	defer c.session.end()
	if c.suffer(Greeting) || !c.secure() {
		return
	}
	for {
		line, err := c.Line()
		if err != nil {
			return
		}
		if line == "" {
			break
		}
		c.session.note(line)
	}
	if c.suffer(End) {
		return
	}
	_, _ = io.WriteString(c, s.config.answer())
	c.end()
	c.Hold() // a connection that is closed with bytes unread ends with a reset
}

// answer is what is sent.
func (h *HTTPS) answer() string {
	status := h.Status
	if status == "" {
		status = "200 OK"
	}
	lines := append([]string{"HTTP/1.1 " + status}, h.Header...)
	return strings.Join(lines, "\r\n") + fmt.Sprintf("\r\nContent-Length: %d\r\n\r\n%s", len(h.Body), h.Body)
}
