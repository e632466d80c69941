// Package smtptest has SMTP servers for tests that do what no decent server
// does: fall silent, hang up, speak out of turn, answer late or all at once.
//
// [Listen] gives a test the raw connection. [Server] knows the protocol, is told
// at each point of the conversation what to do there, and remembers what it saw.
package smtptest

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	// patience bounds every wait of a server, so that a test fails and does
	// not hang.
	patience = 30 * time.Second
	// quiet is how long nothing must come for a flight of commands to count as
	// over.
	quiet = 20 * time.Millisecond
	// bufferSize holds a flight of commands.
	bufferSize = 64 << 10
)

// A Conn is the server's side of a connection.
type Conn struct {
	net.Conn
	Reader *bufio.Reader
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
		return line, fmt.Errorf("line end in %q", line)
	}
	return command, nil
}

// Reset hangs up with a TCP reset.
func (c *Conn) Reset() {
	conn := c.Conn
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn()
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

// Hold reads and drops what the client sends until it hangs up.
func (c *Conn) Hold() {
	_, _ = io.Copy(io.Discard, c.Reader)
}

// StartTLS goes on inside TLS.
func (c *Conn) StartTLS(config *tls.Config) error {
	secure := tls.Server(c.Conn, config)
	if err := secure.Handshake(); err != nil {
		return err
	}
	c.Conn = secure
	c.Reader = bufio.NewReaderSize(secure, bufferSize)
	return nil
}

// Listen runs serve for each connection to an address of its own, which it
// returns. The end of the test waits for all of them.
func Listen(t testing.TB, serve func(c *Conn)) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
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
				serve(&Conn{conn, bufio.NewReaderSize(conn, bufferSize)})
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
func Dial(t testing.TB, address string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// A Phase is a point at which a server says something.
type Phase string

// The phases, in the order of the conversation.
const (
	Greeting Phase = "greeting"
	EHLO     Phase = "EHLO"
	HELO     Phase = "HELO"
	STARTTLS Phase = "STARTTLS"
	MAIL     Phase = "MAIL"
	RCPT     Phase = "RCPT"
	DATA     Phase = "DATA"
	Message  Phase = "message" // after the end of data
	QUIT     Phase = "QUIT"
	Unknown  Phase = "unknown"
)

// A Point is a phase, how often it has come before on this connection (but not
// before STARTTLS), and whether it is inside TLS.
type Point struct {
	Phase  Phase
	N      int
	Secure bool
}

// An Action is what a server does instead of answering as it should. The zero
// Action is to answer as it should.
type Action struct {
	Reply string          // sent instead, newlines made CR LF; a final one is added
	Close bool            // hang up (after Reply)
	Reset bool            // hang up with a reset
	Stall bool            // say nothing and go on reading
	Deaf  <-chan struct{} // say nothing and read nothing until it is closed
}

// A Server speaks SMTP. Its fields are not to be changed once it serves.
type Server struct {
	Extensions []string           // of the reply to EHLO, STARTTLS aside
	TLS        *tls.Config        // offers STARTTLS
	Act        func(Point) Action // nil: as it should be
	Lazy       bool               // answers only when the client has stopped sending

	mu   sync.Mutex
	seen []*Conversation
}

// A Conversation is what a server saw on one connection.
type Conversation struct {
	Commands []string // lines
	Message  []byte   // as it came, dots not stuffed, the end of data taken off
	Raw      []byte   // between DATA and its end, all included
	Accepted bool     // sender, a recipient and then a message were answered with 2xx
	Ended    bool     // QUIT came
	Turns    int      // how often the client had to wait
	Err      error    // what was wrong with what the client sent
}

// Conversations returns what was seen on connections that are over.
func (s *Server) Conversations() []*Conversation {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*Conversation(nil), s.seen...)
}

// Last returns the last conversation that was over. It waits for one.
func (s *Server) Last(t testing.TB) *Conversation {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if all := s.Conversations(); len(all) > 0 {
			return all[len(all)-1]
		}
	}
	t.Fatal("no conversation has come to its end")
	return nil
}

// Serve is for [Listen].
func (s *Server) Serve(c *Conn) {
	d := &dialogue{server: s, conn: c, seen: new(Conversation), count: make(map[Phase]int)}
	err := d.run()
	if err != nil && !errors.Is(err, errOver) && !errors.Is(err, io.EOF) {
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
	count  map[Phase]int
	secure bool
	sender bool            // MAIL was accepted
	taken  int             // recipients accepted
	out    strings.Builder // answers that wait for the end of a flight
}

// say does what is to be done at a phase, and tells the class of the reply.
func (d *dialogue) say(phase Phase, proper string) (class byte, err error) {
	point := Point{phase, d.count[phase], d.secure}
	d.count[phase]++
	var act Action
	if d.server.Act != nil {
		act = d.server.Act(point)
	}
	reply := proper
	if act.Reply != "" {
		reply = act.Reply
	}
	switch {
	case act.Deaf != nil:
		d.flush()
		<-act.Deaf
		return 0, errOver
	case act.Stall:
		d.flush()
		d.conn.Hold()
		return 0, errOver
	case act.Reset:
		d.flush()
		d.conn.Reset()
		return 0, errOver
	case act.Close && act.Reply == "":
		d.flush()
		return 0, errOver
	}
	d.out.WriteString(strings.ReplaceAll(reply+"\n", "\n", "\r\n"))
	if !d.server.Lazy {
		d.push()
	}
	if act.Close {
		d.flush()
		return 0, errOver
	}
	return reply[0], nil
}

// push sends what waits.
func (d *dialogue) push() {
	_, _ = io.WriteString(d.conn, d.out.String())
	d.out.Reset()
}

func (d *dialogue) flush() {
	if d.out.Len() > 0 {
		d.push()
	}
}

// rest is called where the server is going to read. When the client sends no
// more it waits, and that is a turn.
func (d *dialogue) rest() {
	if !d.server.Lazy || d.out.Len() == 0 || d.conn.Reader.Buffered() > 0 {
		return
	}
	_ = d.conn.SetReadDeadline(time.Now().Add(quiet))
	_, err := d.conn.Reader.Peek(1)
	_ = d.conn.SetReadDeadline(time.Now().Add(patience))
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		d.seen.Turns++
		d.push()
	}
}

func (d *dialogue) run() error {
	defer d.flush()
	if _, err := d.say(Greeting, "220 fake.example.org ESMTP"); err != nil {
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

func (d *dialogue) command(line string) error {
	verb, _, _ := strings.Cut(strings.ToUpper(line), " ")
	var err error
	switch verb {
	case "EHLO":
		_, err = d.say(EHLO, d.capabilities())
	case "HELO":
		_, err = d.say(HELO, "250 fake.example.org")
	case "STARTTLS":
		err = d.startTLS()
	case "MAIL":
		var class byte
		class, err = d.say(MAIL, "250 sender ok")
		d.sender = class == '2'
	case "RCPT":
		var class byte
		if class, err = d.say(RCPT, "250 recipient ok"); class == '2' {
			d.taken++
		}
	case "DATA":
		err = d.data()
	case "QUIT":
		d.seen.Ended = true
		if _, err = d.say(QUIT, "221 bye"); err == nil {
			err = errOver
		}
	default:
		_, err = d.say(Unknown, "500 what?")
	}
	return err
}

func (d *dialogue) capabilities() string {
	lines := append([]string{"fake.example.org greets you"}, d.server.Extensions...)
	if d.server.TLS != nil && !d.secure {
		lines = append(lines, "STARTTLS")
	}
	for i, line := range lines {
		lines[i] = "250-" + line
		if i == len(lines)-1 {
			lines[i] = "250 " + line
		}
	}
	return strings.Join(lines, "\n")
}

func (d *dialogue) startTLS() error {
	class, err := d.say(STARTTLS, "220 go ahead")
	if err != nil || class != '2' {
		return err
	}
	d.rest()
	if err := d.conn.StartTLS(d.server.TLS); err != nil {
		return err
	}
	if d.server.Lazy {
		d.seen.Turns++ // the handshake
	}
	d.secure = true
	d.count = make(map[Phase]int)
	return nil
}

func (d *dialogue) data() error {
	class, err := d.say(DATA, "354 go ahead")
	if err != nil || class != '3' {
		return err
	}
	d.rest()
	raw, err := readData(d.conn.Reader)
	d.seen.Raw = raw
	if err != nil {
		return err
	}
	d.seen.Message = unstuff(raw)
	return d.message()
}

func (d *dialogue) message() error {
	class, err := d.say(Message, "250 accepted")
	if err == nil && class == '2' && d.sender && d.taken > 0 {
		d.seen.Accepted = true
	}
	return err
}

// readData reads to the end of data, and returns all of it.
func readData(r *bufio.Reader) ([]byte, error) {
	var raw []byte
	for {
		line, err := r.ReadSlice('\n')
		begins := len(raw) == 0 || raw[len(raw)-1] == '\n'
		raw = append(raw, line...)
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if err != nil {
			return raw, err
		}
		if begins && string(line) == ".\r\n" {
			return raw, nil
		}
	}
}

// unstuff takes the end of data and the stuffed dots away.
func unstuff(raw []byte) []byte {
	text := "\r\n" + strings.TrimSuffix(string(raw), ".\r\n")
	return []byte(strings.ReplaceAll(text, "\r\n.", "\r\n")[2:])
}
