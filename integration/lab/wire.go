package lab

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"
)

// wireListener gives go-smtp connections that are wires.
type wireListener struct {
	net.Listener
	server *SMTPServer
	count  connCounter

	mu     sync.Mutex
	open   map[*wire]bool
	closed bool
}

func (l *wireListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	w := &wire{
		Conn:     conn,
		raw:      conn,
		in:       bufio.NewReaderSize(conn, wireBuffer),
		config:   &l.server.config,
		listener: l,
		number:   l.count.next(),
		gone:     make(chan struct{}),
		session: &Session{
			Protocol: "smtp",
			Server:   l.server.config.Name,
			Local:    addrPort(conn.LocalAddr()),
			Remote:   addrPort(conn.RemoteAddr()),
		},
	}
	l.server.inbox.open(w.session)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		conn.Close()
		return nil, net.ErrClosed
	}
	l.open[w] = true
	return w, nil
}

func (l *wireListener) forget(w *wire) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, w)
}

// hangUpAll closes the listener and all connections.
func (l *wireListener) hangUpAll() {
	l.Listener.Close()
	l.mu.Lock()
	l.closed = true
	var all []*wire
	for w := range l.open {
		all = append(all, w)
	}
	l.mu.Unlock()
	for _, w := range all {
		w.Close()
	}
}

// wireBuffer holds the longest command that is read.
const wireBuffer = 64 << 10

// A wire stands between a client and go-smtp's server. It hands commands on one
// at a time, so that it always knows which one is being answered; with that it
// rewrites the EHLO reply, does STARTTLS itself, keeps messages as they came, and
// misbehaves where it is told to.
//
// Reading and Write are go-smtp's, in one goroutine; Close may be anybody's.
type wire struct {
	net.Conn // the stream: raw, or TLS over it
	raw      net.Conn
	in       *bufio.Reader
	config   *SMTP
	listener *wireListener
	number   int64
	session  *Session
	once     sync.Once
	gone     chan struct{}

	verb       Step   // of the command that is being answered; empty: none yet
	rest       []byte // of a command that go-smtp's buffer was too small for
	reply      []byte // of an answer that is not complete
	parameters string // of the last MAIL
	wrote      bool   // since the last byte was read
	started    bool   // something of this message was read

	inData   bool   // until the end of data
	tail     []byte // the last bytes of data, to find its end
	complete bool   // the whole message has been read, and not been answered

	mu      sync.Mutex
	message []byte
}

// Close is go-smtp's, and the listener's.
func (w *wire) Close() error {
	err := w.raw.Close()
	w.once.Do(func() { close(w.gone) })
	w.session.end()
	w.listener.forget(w)
	return err
}

func (w *wire) takeMessage() []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	m := w.message
	w.message = nil
	return m
}

func (w *wire) keep(b []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.message = append(w.message, b[:min(len(b), wireLimit-len(w.message))]...)
}

func (w *wire) Read(p []byte) (int, error) {
	for {
		select {
		case <-w.gone: // what is buffered died with the connection
			return 0, net.ErrClosed
		default:
		}
		switch {
		case len(w.rest) > 0:
			n := copy(p, w.rest)
			w.rest = w.rest[n:]
			return n, nil
		case w.inData:
			return w.readData(p)
		default:
			line, err := w.readCommand()
			if err != nil {
				return 0, err
			}
			w.rest = line
		}
	}
}

// fill waits for at least one byte.
func (w *wire) fill() error {
	if w.in.Buffered() == 0 {
		w.wrote = false
	}
	_, err := w.in.Peek(1)
	return err
}

// readCommand returns the next command that is go-smtp's to answer.
func (w *wire) readCommand() ([]byte, error) {
	for {
		if err := w.fill(); err != nil {
			return nil, err
		}
		line, err := w.in.ReadBytes('\n')
		if err != nil {
			return nil, err
		}
		text := strings.TrimRight(string(line), "\r\n")
		w.session.note(text)
		w.note(text)
		mine, err := w.intercept(text)
		if err != nil {
			return nil, err
		}
		if !mine {
			return line, nil
		}
	}
}

// note remembers which command is being answered.
func (w *wire) note(line string) {
	verb, argument, _ := strings.Cut(line, " ")
	w.verb = Step(strings.ToLower(verb))
	w.complete = false
	switch w.verb {
	case EHLO:
		if w.session.TLS() != nil {
			w.verb = AgainEHLO
		}
	case MAIL:
		_, w.parameters, _ = strings.Cut(argument, "> ")
		w.started = false
		w.takeMessage()
	}
}

// intercept does what go-smtp is not to do, and tells whether it did.
func (w *wire) intercept(line string) (mine bool, err error) {
	if f, ok := w.config.Faults.at(w.verb, w.number); ok && w.verb != Greeting {
		if err := w.suffer(f); err != nil {
			return true, err
		}
		if f.over() {
			return true, nil
		}
	}
	if f, ok := w.config.Faults.at(Group, w.number); ok && w.verb == MAIL && w.in.Buffered() > 0 {
		if err := w.suffer(f); err != nil || f.over() {
			return true, err
		}
	}
	_, parameters, _ := strings.Cut(line, ">")
	switch transaction := w.verb == MAIL || w.verb == RCPT || w.verb == DATA; {
	case w.config.Clear != "" && transaction && w.session.TLS() == nil:
		return true, w.say(w.config.Clear)
	case w.config.Parameters != "" && w.verb == MAIL && parameters != "":
		return true, w.say(w.config.Parameters)
	}
	switch w.verb {
	case EHLO:
		if w.config.NoEHLO {
			return true, w.say("502 5.5.1 what is that")
		}
	case BDAT:
		return true, w.say("502 5.5.1 what follows is commands")
	case STARTTLS:
		if w.config.TLS.Certificate != nil && w.session.TLS() == nil {
			return true, w.startTLS()
		}
	}
	return false, nil
}

// suffer carries a fault out. An error means that the connection is at its end.
func (w *wire) suffer(f Fault) error {
	if f.Delay > 0 {
		select {
		case <-time.After(f.Delay):
		case <-w.gone:
			return net.ErrClosed
		}
	}
	if f.Reply != "" {
		if err := w.say(f.Reply); err != nil {
			return err
		}
	}
	if f.Spoil {
		if _, err := w.raw.Write(spoilt); err != nil {
			return err
		}
	}
	if f.Stall {
		io.Copy(io.Discard, w.in)
	}
	if f.ends() {
		hangUp(w.raw, f.Reset)
		w.Close()
		return io.EOF
	}
	return nil
}

// spoilt is a record of TLS that is not encrypted with any key.
var spoilt = append([]byte{0x17, 3, 3, 0, 64}, make([]byte, 64)...)

// say answers in go-smtp's place.
func (w *wire) say(reply string) error {
	return w.send([]byte(strings.ReplaceAll(reply, "\n", "\r\n") + "\r\n"))
}

func (w *wire) send(b []byte) error {
	if !w.wrote {
		w.wrote = true
		w.session.flight()
	}
	if w.config.Blank {
		b = append([]byte("\r\n"), b...)
	}
	_, err := w.Conn.Write(b)
	return err
}

// onePacket is what a path with a small MTU lets through of a ClientHello.
const onePacket = 1400

// bigHello waits for the ClientHello and reports whether it needs a second packet.
func (w *wire) bigHello() (bool, error) {
	const header = 5 // type, version, length (RFC 8446 section 5.1)
	record, err := w.in.Peek(header)
	if err != nil {
		return false, err
	}
	return header+(int(record[3])<<8|int(record[4])) > onePacket, nil
}

func (w *wire) startTLS() error {
	if err := w.say("220 2.0.0 go ahead" + inject(w.config.Inject)); err != nil {
		return err
	}
	if f, ok := w.config.Faults.at(Handshake, w.number); ok {
		if err := w.fill(); err != nil {
			return err
		}
		if err := w.suffer(f); err != nil || f.over() {
			w.Close()
			return io.EOF
		}
	}
	if f, ok := w.config.Faults.at(BigHello, w.number); ok {
		big, err := w.bigHello()
		if err == nil && big {
			err = w.suffer(f)
		}
		if err != nil {
			w.Close()
			return io.EOF
		}
	}
	return w.handshake()
}

// handshake goes on inside TLS.
func (w *wire) handshake() error {
	server := tls.Server(&buffered{w.raw, w.in}, w.config.TLS.config())
	if err := server.Handshake(); err != nil {
		w.session.setTLS(nil, err)
		w.Close()
		return io.EOF
	}
	state := server.ConnectionState()
	w.session.setTLS(&state, nil)
	w.Conn = server
	w.in = bufio.NewReaderSize(server, wireBuffer)
	return nil
}

func inject(text string) string {
	if text == "" {
		return ""
	}
	return "\n" + strings.ReplaceAll(text, `\n`, "\n")
}

// buffered is a connection some of whose bytes have been read already.
type buffered struct {
	net.Conn
	r io.Reader
}

func (b *buffered) Read(p []byte) (int, error) { return b.r.Read(p) }

// begin is the step at which the first bytes of a message have come.
func (w *wire) begin() error {
	if err := w.fill(); err != nil || w.started {
		return cutShort(err)
	}
	w.started = true
	if f, ok := w.config.Faults.at(Body, w.number); ok {
		return cutShort(w.suffer(f))
	}
	return nil
}

// cutShort is the error of a connection that ended within a message: to go-smtp an
// end of file would be the message's own.
func cutShort(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

var endOfData = []byte("\r\n.\r\n")

// readData passes the message on, up to its end.
func (w *wire) readData(p []byte) (int, error) {
	if err := w.begin(); err != nil {
		return 0, err
	}
	b, _ := w.in.Peek(min(w.in.Buffered(), len(p)))
	seen := append(w.tail, b...)
	n := len(b)
	if i := bytes.Index(seen, endOfData); i >= 0 {
		n = i + len(endOfData) - len(w.tail)
		w.inData, w.complete = false, true
	}
	copy(p, b[:n])
	w.keep(b[:n])
	w.in.Discard(n)
	w.tail = append([]byte(nil), seen[max(0, len(seen)-len(endOfData)+1):]...)
	return n, nil
}

// Write takes what go-smtp answers, and sends it a whole reply at a time.
func (w *wire) Write(p []byte) (int, error) {
	w.reply = append(w.reply, p...)
	for {
		n := replyLength(w.reply)
		if n == 0 {
			return len(p), nil
		}
		reply := w.reply[:n:n]
		w.reply = append([]byte(nil), w.reply[n:]...)
		if err := w.answer(reply); err != nil {
			return 0, err
		}
	}
}

// replyLength returns the length of the first complete reply in b, or 0.
func replyLength(b []byte) int {
	for at := 0; ; {
		i := bytes.IndexByte(b[at:], '\n')
		if i < 0 {
			return 0
		}
		line := b[at : at+i]
		at += i + 1
		if len(line) < 4 || line[3] != '-' {
			return at
		}
	}
}

// answer sends go-smtp's reply to the command that it answers.
func (w *wire) answer(reply []byte) error {
	step := w.verb
	switch {
	case step == "":
		step = Greeting
		if w.config.Implicit {
			if err := w.handshake(); err != nil {
				return err
			}
		}
	case w.complete:
		step, w.complete = End, false
	}
	if f, ok := w.config.Faults.at(step, w.number); ok && (step == Greeting || step == End) {
		if err := w.suffer(f); err != nil {
			return err
		}
		if f.over() {
			return nil
		}
	}
	switch {
	case (step == EHLO || step == AgainEHLO) && reply[0] == '2':
		reply = w.capabilities(reply)
	case step == DATA && bytes.HasPrefix(reply, []byte("354")):
		w.inData, w.tail = true, []byte("\r\n")
	}
	if err := w.send(reply); err != nil {
		return err
	}
	if t, ok := w.Conn.(*tls.Conn); ok && step == QUIT {
		return t.CloseWrite()
	}
	return nil
}

// capabilities is go-smtp's EHLO reply with what the configuration takes and adds.
func (w *wire) capabilities(reply []byte) []byte {
	drop := map[string]bool{
		"PIPELINING": w.config.NoPipelining,
		"8BITMIME":   w.config.No8BitMIME,
	}
	var lines []string
	for line := range strings.Lines(string(reply)) {
		text := strings.TrimRight(line, "\r\n")
		keyword, _, _ := strings.Cut(text[min(4, len(text)):], " ")
		switch {
		case drop[keyword]:
		case keyword == "SIZE" && w.config.Size > 0:
			lines = append(lines, fmt.Sprintf("SIZE %d", w.config.Size))
		default:
			lines = append(lines, text[min(4, len(text)):])
		}
	}
	if w.config.TLS.Certificate != nil && w.session.TLS() == nil {
		lines = append(lines, "STARTTLS")
	}
	lines = append(lines, w.config.Extensions...)
	var out strings.Builder
	for i, text := range lines {
		between := "-"
		if i == len(lines)-1 {
			between = " "
		}
		out.WriteString("250" + between + text + "\r\n")
	}
	return []byte(out.String())
}
