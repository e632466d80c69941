package smtptest

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"time"
)

// A Phase is a point at which a server says something.
type Phase string

// The phases, in the order of the conversation. At those that only [Server.Answer]
// is asked about, a server that behaves says nothing.
const (
	Greeting  Phase = "greeting"
	EHLO      Phase = "EHLO"
	HELO      Phase = "HELO"
	STARTTLS  Phase = "STARTTLS"
	Handshake Phase = "handshake" // the ClientHello has come; Answer alone
	AUTH      Phase = "AUTH"
	Response  Phase = "response" // a line of the client within AUTH
	MAIL      Phase = "MAIL"
	RCPT      Phase = "RCPT"
	DATA      Phase = "DATA"
	Body      Phase = "body"    // the first bytes of a message have come; Answer alone
	Message   Phase = "message" // after the end of data
	RSET      Phase = "RSET"
	QUIT      Phase = "QUIT"
	Unknown   Phase = "unknown"
)

// A Point is a phase, how often it has come before in this transaction (or, outside of
// one, on this connection since STARTTLS), whether it is inside TLS, and how many
// transactions have ended before on this connection, by a message or by RSET.
type Point struct {
	Phase  Phase
	N      int
	Secure bool
	Mail   int
}

// An Action is what a server does instead of answering as it should. The zero
// Action is to answer as it should. What an Action does besides a Reply comes
// after it.
type Action struct {
	Reply string          // sent instead, newlines made CR LF; a final one is added
	Spoil bool            // send what nobody can decipher, and hang up
	Close bool            // hang up
	Reset bool            // hang up with a reset
	Stall bool            // say no more and go on reading
	Deaf  <-chan struct{} // say no more and read nothing until it is closed

	Wait <-chan struct{} // wait after Reply until it is closed,
	Then string          // then say this, if it is not empty, and do the others
}

// ends reports whether the conversation is over with the action.
func (a Action) ends() bool { return a.Spoil || a.Close || a.Reset || a.Stall || a.Deaf != nil }

// A Server speaks SMTP. Its fields are not to be changed once it serves.
type Server struct {
	Extensions []string           // of the reply to EHLO, STARTTLS aside
	TLS        *tls.Config        // offers STARTTLS
	Implicit   bool               // TLS from the first byte, in place of STARTTLS
	Act        func(Point) Action // nil: as it should be
	Lazy       bool               // answers only when the client has stopped sending
	Blank      bool               // an empty line in front of each reply
	Auth       *Auth              // nil: AUTH is not offered
	Remember   bool               // conversations keep their transactions

	// Answer takes the place of Act where more has to be known.
	Answer func(*Exchange) Action

	mu   sync.Mutex
	seen []*Conversation
}

// An Exchange is a command, or what stands for one, that a server is about to
// answer.
type Exchange struct {
	Point
	Line         string // the command as it came; "" where there was none
	More         bool   // the client sent more without waiting for the answer
	Hello        int    // at Handshake: bytes of the TLS record that has come
	Conversation *Conversation
	Transaction  *Transaction
}

// A Transaction is what began with MAIL, so far.
type Transaction struct {
	Begun      bool // MAIL was accepted
	Sender     string
	Parameters string   // of MAIL, as they were sent
	Recipients []string // those that were accepted
	Message    []byte   // as it came, dots not stuffed, the end of data taken off
	Raw        []byte   // between DATA and its end, all included
	Accepted   bool     // sender, a recipient and then the message were answered with 2xx
}

// A Conversation is what a server saw on one connection.
type Conversation struct {
	Commands []string // lines
	Message  []byte   // the last, as in Transaction
	Raw      []byte   // the last, as in Transaction
	Accepted bool     // sender, a recipient and then a message were answered with 2xx
	Mails    int      // how often that was so

	// Transactions are those that have ended, by a message or by RSET, if the server is to
	// remember them.
	Transactions []*Transaction

	Ended  bool     // QUIT came
	Logins []*Login // in order

	// Turns is how often the client had to wait, the TLS handshake included. A lazy
	// server knows; another counts the answers that it gave when it had read all
	// that had come, except the answer to QUIT.
	Turns int

	TLS       *tls.ConnectionState // nil: no TLS
	Handshake error                // why there is no TLS

	// Err is the first Violation, or else the error that ended the conversation.
	Err error
}

// Violation returns what the client did that it must not do, or nil.
func (c *Conversation) Violation() error {
	if v := Violation(""); errors.As(c.Err, &v) {
		return v
	}
	return nil
}

// Conversations returns what was seen on connections that are over.
func (s *Server) Conversations() []*Conversation {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*Conversation(nil), s.seen...)
}

// Last returns the last conversation that was over. It waits for one.
func (s *Server) Last(t T) *Conversation {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if all := s.Conversations(); len(all) > 0 {
			return all[len(all)-1]
		}
	}
	t.Fatal("no conversation has come to its end")
	return nil
}

// At is an Act for one phase.
func At(phase Phase, act Action) func(Point) Action {
	return func(p Point) Action {
		if p.Phase == phase {
			return act
		}
		return Action{}
	}
}

// Serve is for [Listen].
func (s *Server) Serve(c *Conn) {
	d := &dialogue{server: s, conn: c, seen: new(Conversation), tx: new(Transaction), count: make(map[Phase]int)}
	err := d.run()
	if d.seen.Err == nil && err != nil && !errors.Is(err, errOver) && !errors.Is(err, io.EOF) {
		d.seen.Err = err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = append(s.seen, d.seen)
}

// errOver ends a dialogue at the server's wish.
var errOver = errors.New("over")

type dialogue struct {
	server *Server
	conn   *Conn
	seen   *Conversation
	tx     *Transaction
	rules  rules
	count  map[Phase]int
	mails  int // transactions that have ended
	secure bool
	waited bool            // the client waits for an answer, so that one is a turn
	out    strings.Builder // answers that wait for the end of a flight
}

// at asks what the server does at a phase.
func (d *dialogue) at(e Exchange) Action {
	e.Point = Point{e.Phase, d.count[e.Phase], d.secure, d.mails}
	d.count[e.Phase]++
	switch {
	case d.server.Answer != nil:
		e.Conversation, e.Transaction = d.seen, d.tx
		return d.server.Answer(&e)
	case d.server.Act != nil && e.Phase != Handshake && e.Phase != Body:
		return d.server.Act(e.Point)
	}
	return Action{}
}

// say answers at a phase, and returns what was said. An empty proper answer is
// silence.
func (d *dialogue) say(e Exchange, proper string) (reply string, err error) {
	act := d.at(e)
	if reply = act.Reply; reply == "" && !act.ends() {
		reply = proper
	}
	if reply != "" {
		if d.server.Blank {
			d.out.WriteString("\r\n")
		}
		d.out.WriteString(strings.ReplaceAll(reply+"\n", "\n", "\r\n"))
		if !d.server.Lazy {
			d.push(e.Phase)
		}
	}
	if act.Wait != nil {
		d.push(e.Phase)
		<-act.Wait
		if act.Then != "" {
			_ = d.conn.Say(act.Then + "\n")
		}
	}
	if act.ends() {
		d.push(e.Phase)
		d.end(act)
		return reply, errOver
	}
	return reply, nil
}

// positive reports whether a reply is of class 2.
func positive(reply string) bool { return strings.HasPrefix(reply, "2") }

// spoilt is a record of TLS that is not encrypted with any key.
var spoilt = append([]byte{0x17, 3, 3, 0, 64}, make([]byte, 64)...)

// end ends the conversation. Its caller closes the connection.
func (d *dialogue) end(act Action) {
	switch {
	case act.Spoil:
		_, _ = d.conn.raw().Write(spoilt)
	case act.Deaf != nil:
		<-act.Deaf
	case act.Stall:
		d.conn.Hold()
	case act.Reset:
		d.conn.Reset()
	}
}

// push sends what waits.
func (d *dialogue) push(phase Phase) {
	if d.out.Len() == 0 {
		return
	}
	if d.waited && !d.server.Lazy && phase != QUIT {
		d.seen.Turns++
	}
	d.waited = false
	_, _ = io.WriteString(d.conn, d.out.String())
	d.out.Reset()
}

// rest is called where the server is going to read. When the client sends no
// more it waits, and that is a turn.
func (d *dialogue) rest() {
	if d.conn.Reader.Buffered() > 0 {
		return
	}
	d.waited = true
	if !d.server.Lazy || d.out.Len() == 0 {
		return
	}
	_ = d.conn.SetReadDeadline(time.Now().Add(quiet))
	_, err := d.conn.Reader.Peek(1)
	_ = d.conn.SetReadDeadline(time.Now().Add(patience))
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		d.seen.Turns++
		d.push("")
	}
}

func (d *dialogue) run() error {
	defer d.push(QUIT)
	d.waited = true
	if d.server.Implicit {
		if err := d.handshake(); err != nil {
			return err
		}
	}
	if _, err := d.say(Exchange{Point: Point{Phase: Greeting}}, "220 fake.example.org ESMTP"); err != nil {
		return err
	}
	for {
		d.rest()
		line, err := d.conn.Line()
		if err != nil {
			return err
		}
		d.seen.Commands = append(d.seen.Commands, line)
		if err := d.command(line); err != nil {
			return err
		}
	}
}

// violated notes what the client must not do.
func (d *dialogue) violated(what error) {
	if d.seen.Err == nil {
		d.seen.Err = what
	}
}

func (d *dialogue) command(line string) error {
	verb, _, _ := strings.Cut(strings.ToUpper(line), " ")
	e := Exchange{Line: line, More: d.conn.Reader.Buffered() > 0}
	d.violated(d.rules.check(verb, line, e.More, d.secure, d.tx))
	var err error
	switch e.Phase = Phase(verb); e.Phase {
	case EHLO:
		err = d.greet(e, d.capabilities())
	case HELO:
		err = d.greet(e, "250 fake.example.org")
	case STARTTLS:
		err = d.startTLS(e)
	case AUTH:
		d.violated(d.rules.checkAuth(line, d.secure, d.server.Auth, d.tx))
		err = d.auth(e)
	case MAIL:
		err = d.mail(e)
	case RCPT:
		err = d.rcpt(e)
	case DATA:
		err = d.data(e)
	case RSET:
		_, err = d.say(e, "250 forgotten")
		d.reset()
	case QUIT:
		err = d.quit(e)
	default:
		e.Phase = Unknown
		_, err = d.say(e, "500 what?")
	}
	return err
}

// reset forgets a transaction.
func (d *dialogue) reset() {
	if d.server.Remember && d.rules.mail {
		d.seen.Transactions = append(d.seen.Transactions, d.tx)
	}
	d.tx = new(Transaction)
	d.rules.reset()
	d.mails++
	for _, phase := range []Phase{MAIL, RCPT, DATA, Body, Message} {
		delete(d.count, phase)
	}
}

func (d *dialogue) greet(e Exchange, proper string) error {
	reply, err := d.say(e, proper)
	if positive(reply) {
		d.rules.greet(e.Phase, reply)
		d.tx = new(Transaction)
	}
	return err
}

func (d *dialogue) capabilities() string {
	lines := append([]string{"fake.example.org greets you"}, d.server.Extensions...)
	if d.server.TLS != nil && !d.secure {
		lines = append(lines, "STARTTLS")
	}
	if offer := d.server.Auth.Offer(d.secure); offer != "" {
		lines = append(lines, offer)
	}
	return Reply("250", lines...)
}

// Reply makes lines a reply.
func Reply(code string, lines ...string) string {
	var b strings.Builder
	for i, line := range lines {
		between := "-"
		if i == len(lines)-1 {
			between = " "
		}
		b.WriteString(code + between + line + "\n")
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func (d *dialogue) startTLS(e Exchange) error {
	reply, err := d.say(e, "220 go ahead")
	if err != nil || !positive(reply) {
		return err
	}
	d.rest()
	return d.handshake()
}

// handshake goes on inside TLS.
func (d *dialogue) handshake() error {
	if d.server.Answer != nil {
		hello, err := d.hello()
		if err != nil {
			d.seen.Handshake = err
			return err
		}
		reply, err := d.say(Exchange{Point: Point{Phase: Handshake}, Hello: hello}, "")
		if err != nil {
			return err
		}
		if reply != "" {
			return errOver
		}
	}
	if d.seen.Handshake = d.conn.StartTLS(d.server.TLS); d.seen.Handshake != nil {
		return d.seen.Handshake
	}
	state := d.conn.Conn.(*tls.Conn).ConnectionState()
	d.seen.TLS = &state
	d.seen.Turns++
	d.secure, d.rules, d.count = true, rules{}, make(map[Phase]int)
	return nil
}

// hello waits for the ClientHello and returns the size of the record that it begins
// in (RFC 8446 section 5.1).
func (d *dialogue) hello() (size int, err error) {
	const header = 5 // type, version, length
	record, err := d.conn.Reader.Peek(header)
	if err != nil {
		return 0, err
	}
	return header + int(record[3])<<8 + int(record[4]), nil
}

func (d *dialogue) mail(e Exchange) error {
	d.tx = new(Transaction)
	sender, parameters, _ := Path(e.Line)
	d.tx.Sender, d.tx.Parameters = sender, parameters
	proper := "250 sender ok"
	if d.server.Auth != nil && d.server.Auth.Demand && !d.rules.loggedIn {
		proper = "530 5.7.0 log in first"
	}
	reply, err := d.say(e, proper)
	d.tx.Begun = positive(reply)
	return err
}

func (d *dialogue) rcpt(e Exchange) error {
	reply, err := d.say(e, "250 recipient ok")
	if positive(reply) {
		recipient, _, _ := Path(e.Line)
		d.tx.Recipients = append(d.tx.Recipients, recipient)
	}
	return err
}

func (d *dialogue) data(e Exchange) error {
	reply, err := d.say(e, "354 go ahead")
	if err != nil || !strings.HasPrefix(reply, "3") {
		return err
	}
	d.rest()
	if d.server.Answer != nil {
		if _, err := d.conn.Reader.Peek(1); err != nil {
			return err
		}
		if _, err := d.say(Exchange{Point: Point{Phase: Body}}, ""); err != nil {
			return err
		}
	}
	d.tx.Raw, err = d.readData()
	d.seen.Raw = d.tx.Raw
	if err != nil {
		return err
	}
	d.tx.Message = unstuff(d.tx.Raw)
	d.seen.Message = d.tx.Message
	reply, err = d.say(Exchange{Point: Point{Phase: Message}}, "250 accepted")
	if positive(reply) && d.tx.Begun && len(d.tx.Recipients) > 0 {
		d.seen.Accepted, d.tx.Accepted = true, true
		d.seen.Mails++
	}
	d.reset()
	return err
}

func (d *dialogue) quit(e Exchange) error {
	d.seen.Ended = true
	if _, err := d.say(e, "221 bye"); err != nil {
		return err
	}
	d.push(QUIT)
	if secure, ok := d.conn.Conn.(*tls.Conn); ok {
		_ = secure.CloseWrite()
	}
	return errOver
}

// readData reads to the end of data, and returns all of it.
func (d *dialogue) readData() ([]byte, error) {
	var raw []byte
	begin := 0 // of the line
	for {
		part, err := d.conn.Reader.ReadSlice('\n')
		raw = append(raw, part...)
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if err != nil {
			return raw, err
		}
		line := raw[begin:]
		if string(line) == ".\r\n" {
			return raw, nil
		}
		d.violated(checkText(line))
		begin = len(raw)
	}
}

// unstuff takes the end of data and the stuffed dots away.
func unstuff(raw []byte) []byte {
	text := make([]byte, 0, len(raw))
	for line := range bytes.Lines(raw[:len(raw)-len(".\r\n")]) {
		text = append(text, bytes.TrimPrefix(line, []byte("."))...)
	}
	return text
}
