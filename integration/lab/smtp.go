package lab

import (
	"crypto/tls"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"nightmare.mail/mxf/smtpc/smtptest"
)

// SMTP says how an SMTP server behaves. The zero value accepts everything,
// offers PIPELINING, 8BITMIME, ENHANCEDSTATUSCODES, CHUNKING and SIZE, and no
// STARTTLS.
type SMTP struct {
	Name     string // said in the greeting
	TLS      TLS    // with a certificate STARTTLS is offered
	Implicit bool   // TLS from the first byte, in place of STARTTLS

	Submissions bool   // on the lab's port of that service; Implicit goes with it
	Port        uint16 // a port in place of the lab's, in a network of one's own; 0: none

	Auth *smtptest.Auth // logins; nil: AUTH is not offered

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
	*server
	config SMTP
	tls    *tls.Config // nil: no TLS; one for all connections, so that sessions are resumed
	inbox  *Inbox
}

// StartSMTP starts a server on a listener, which it then owns; what it receives
// goes to inbox.
func StartSMTP(listener net.Listener, config SMTP, inbox *Inbox) *SMTPServer {
	s := &SMTPServer{server: newServer(listener), config: config, inbox: inbox}
	if config.TLS.Certificate != nil {
		s.tls = config.TLS.config()
	}
	s.run(s.serve)
	return s
}

// serve has a server of smtptest for one connection.
func (s *SMTPServer) serve(conn net.Conn, number int64) {
	v := &visit{SMTPServer: s, number: number, session: s.inbox.begin("smtp", s.config.Name, conn)}
	protocol := &smtptest.Server{Implicit: s.config.Implicit, Blank: s.config.Blank, Auth: s.config.Auth, Answer: v.answer, TLS: s.tls}
	protocol.Serve(smtptest.NewConn(conn))
	v.session.follow(protocol.Conversations()[0])
	v.session.end()
}

// A visit is one connection.
type visit struct {
	*SMTPServer
	number  int64
	session *Session
}

// answer decides what the server does at a point of the conversation.
func (v *visit) answer(e *smtptest.Exchange) smtptest.Action {
	v.session.follow(e.Conversation)
	if e.Line != "" || e.Phase == smtptest.Response {
		v.session.note(e.Line)
	}
	v.session.conceal(spoken(e))
	reply := v.reply(e)
	if e.Phase == smtptest.Message && strings.HasPrefix(reply, "2") {
		v.receive(e.Transaction)
	}
	for _, step := range due(e) {
		f, ok := v.config.Faults.at(step, v.number)
		if !ok {
			continue
		}
		if !v.wait(f.Delay) {
			return smtptest.Action{Close: true}
		}
		if f.over() {
			return smtptest.Action{Reply: f.Reply, Spoil: f.Spoil, Close: f.Drop, Reset: f.Reset, Stall: f.Stall}
		}
	}
	return smtptest.Action{Reply: reply}
}

// spoken is what an Exchange has of a login, in base64: what nobody may be told.
func spoken(e *smtptest.Exchange) string {
	switch words := strings.Fields(e.Line); {
	case e.Phase == smtptest.Response:
		return e.Line
	case e.Phase == smtptest.AUTH && len(words) > 2:
		return words[2]
	}
	return ""
}

// onePacket is what a path with a small MTU lets through of a ClientHello.
const onePacket = 1400

// due returns the steps at which a fault may happen now.
func due(e *smtptest.Exchange) []Step {
	switch {
	case e.Phase == smtptest.EHLO && e.Secure:
		return []Step{AgainEHLO}
	case e.Phase == smtptest.Message:
		return []Step{End}
	case e.Phase == smtptest.MAIL && e.More:
		return []Step{MAIL, Group}
	case e.Phase == smtptest.Handshake && e.Hello > onePacket:
		return []Step{Handshake, BigHello}
	case e.Phase == smtptest.AUTH:
		mechanism, _, _ := strings.Cut(argument(e.Line), " ")
		return []Step{AUTH, AUTH + Step(":"+strings.ToLower(mechanism))}
	case e.Phase == smtptest.Response:
		return []Step{Response, Response + Step(":"+strconv.Itoa(e.N))}
	case e.Phase == smtptest.Unknown:
		verb, _, _ := strings.Cut(e.Line, " ")
		return []Step{Step(strings.ToLower(verb))}
	}
	return []Step{Step(strings.ToLower(string(e.Phase)))}
}

// reply returns what a server that does as it is told says; nothing where smtptest's
// words will do.
func (v *visit) reply(e *smtptest.Exchange) string {
	c, tx := &v.config, e.Transaction
	switch e.Phase {
	case smtptest.MAIL, smtptest.RCPT, smtptest.DATA:
		if c.Clear != "" && !e.Secure {
			return c.Clear
		}
	}
	switch e.Phase {
	case smtptest.Greeting:
		return "220 " + c.Name + " ESMTP Service Ready"
	case smtptest.EHLO:
		return v.capabilities(e)
	case smtptest.HELO:
		return "250 2.0.0 Hello " + argument(e.Line)
	case smtptest.STARTTLS:
		return v.goAhead(e)
	case smtptest.MAIL:
		return v.mail(e, tx)
	case smtptest.RCPT:
		return v.rcpt(e, tx)
	case smtptest.DATA:
		if len(tx.Recipients) == 0 {
			return "502 5.5.1 Missing RCPT TO command."
		}
		return "354 Go ahead. End your data with <CR><LF>.<CR><LF>"
	case smtptest.Message:
		return v.message(tx)
	case smtptest.RSET:
		return "250 2.0.0 Session reset"
	case smtptest.QUIT:
		return "221 2.0.0 Bye"
	case smtptest.Unknown:
		return "502 5.5.1 what is that"
	}
	return ""
}

func argument(line string) string {
	_, word, _ := strings.Cut(line, " ")
	return word
}

func (v *visit) capabilities(e *smtptest.Exchange) string {
	c := &v.config
	if c.NoEHLO {
		return "502 5.5.1 what is that"
	}
	size := "SIZE"
	if c.Size > 0 {
		size = fmt.Sprintf("SIZE %d", c.Size)
	}
	lines := []string{"Hello " + argument(e.Line)}
	for _, extension := range []struct {
		line    string
		offered bool
	}{
		{"PIPELINING", !c.NoPipelining}, {"8BITMIME", !c.No8BitMIME}, {"ENHANCEDSTATUSCODES", true}, {"CHUNKING", true},
		{"SMTPUTF8", c.SMTPUTF8}, {size, true}, {"STARTTLS", c.TLS.Certificate != nil && !e.Secure}, {c.Auth.Offer(e.Secure), c.Auth.Offer(e.Secure) != ""},
	} {
		if extension.offered {
			lines = append(lines, extension.line)
		}
	}
	return smtptest.Reply("250", append(lines, c.Extensions...)...)
}

// goAhead answers STARTTLS.
func (v *visit) goAhead(e *smtptest.Exchange) string {
	switch {
	case v.config.TLS.Certificate == nil:
		return "502 5.5.1 TLS not supported"
	case e.Secure:
		return "502 5.5.1 Already running in TLS"
	case v.config.Inject != "":
		return "220 2.0.0 go ahead\n" + strings.ReplaceAll(v.config.Inject, `\n`, "\n")
	}
	return "220 2.0.0 go ahead"
}

func (v *visit) mail(e *smtptest.Exchange, tx *smtptest.Transaction) string {
	size := int64(0)
	for word := range strings.FieldsSeq(tx.Parameters) {
		if digits, ok := strings.CutPrefix(word, "SIZE="); ok {
			size, _ = strconv.ParseInt(digits, 10, 64)
		}
	}
	switch reply := v.config.Senders[tx.Sender]; {
	case tx.Sender != "" && !strings.Contains(tx.Sender, "@"):
		return "501 5.5.2 Was expecting MAIL arg syntax of FROM:<address>"
	case v.config.Auth != nil && v.config.Auth.Demand && !slices.ContainsFunc(e.Conversation.Logins, func(l *smtptest.Login) bool { return l.Accepted }):
		return "530 5.7.0 Authentication required"
	case v.config.Parameters != "" && tx.Parameters != "":
		return v.config.Parameters
	case v.config.Size > 0 && size > v.config.Size:
		return "552 5.3.4 Max message size exceeded"
	case reply != "":
		return reply
	}
	return "250 2.0.0 Roger, accepting mail from <" + tx.Sender + ">"
}

func (v *visit) rcpt(e *smtptest.Exchange, tx *smtptest.Transaction) string {
	recipient, _, _ := smtptest.Path(e.Line)
	switch reply := v.config.Recipients[recipient]; {
	case !tx.Begun:
		return "502 5.5.1 Missing MAIL FROM command."
	case !strings.Contains(recipient, "@"):
		return "501 5.5.2 Was expecting RCPT arg syntax of TO:<address>"
	case reply != "":
		return reply
	}
	return "250 2.0.0 I'll make sure <" + recipient + "> gets this"
}

func (v *visit) message(tx *smtptest.Transaction) string {
	switch {
	case v.config.Size > 0 && int64(len(tx.Message)) > v.config.Size:
		return "552 5.3.4 Maximum message size exceeded"
	case v.config.Message != "":
		return v.config.Message
	}
	return "250 2.0.0 OK: queued"
}

// receive puts a message where all of the lab are.
func (v *visit) receive(tx *smtptest.Transaction) {
	v.inbox.put(&Message{
		Session:    v.session,
		Sender:     tx.Sender,
		Parameters: tx.Parameters,
		Recipients: tx.Recipients,
		Data:       tx.Message,
		Wire:       append([]byte(nil), tx.Raw[:min(len(tx.Raw), wireLimit)]...),
	})
}
