package main

import (
	"bufio"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"nightmare.mail/mxf/integration/lab"
)

// domain contains all names of the bench.
const domain = "bench.example"

// mxName is the name of every server, and of the certificate.
const mxName = "mx." + domain

// flightDelay is how long a server that counts turns waits before each flight of answers.
const flightDelay = 50 * time.Millisecond

// A mode is how one of the sink's servers behaves.
type mode struct {
	name         string
	kind         string // smtp, qmtp, drain, source
	tls          bool   // from the first byte
	noPipelining bool
	hold         bool // wait for "release" before the answer to the message
	auth         bool // a login by PLAIN is offered, and taken whatever it is
	slow         bool // flightDelay before each flight of answers, and turns are counted

	many  *block        // addresses, each that of a mail domain; nil: see listen
	most  int           // connections at a time; further ones are greeted with 421; 0: no bound
	takes time.Duration // to answer a message
}

// modes are the servers. Each one's mail domain begins with the name of the mode.
var modes = []mode{
	{name: "fast", kind: "smtp"},
	{name: "data", kind: "smtp"},
	{name: "qmtp", kind: "qmtp"},
	{name: "qmtps", kind: "qmtp", tls: true},
	{name: "hold", kind: "smtp", hold: true},
	{name: "turns-data", kind: "smtp", slow: true},
	{name: "turns-plain", kind: "smtp", slow: true, noPipelining: true},
	{name: "turns-qmtp", kind: "qmtp", slow: true},
	{name: "turns-qmtps", kind: "qmtp", slow: true, tls: true},
	{name: "login", kind: "smtp", auth: true},
	{name: "turns-login", kind: "smtp", auth: true, slow: true},
	{name: "drain", kind: "drain", tls: true},
	{name: "source", kind: "source", tls: true},
	{name: "near", kind: "smtp", many: &block{"127.0.1", 1}},
	{name: "herd", kind: "smtp", many: &block{"127.0.2", herdHosts}, hold: true},
	{name: "flock", kind: "smtp", many: &block{"127.0.3", herdSize}},
	{name: "late", kind: "smtp", many: &block{"127.0.4", 1}, slow: true},
	{name: "three", kind: "smtp", many: &block{"127.0.5", 1}, most: 3},
	{name: "sluggish", kind: "smtp", many: &block{"127.0.6", 1}, takes: sluggishness},
}

const (
	// These two share the SMTP port, to which MX records lead.
	fastAddress = "127.0.0.2"
	deadAddress = "127.0.0.3"
	// tunnelSize is what a source sends, bytes.
	tunnelSize = 1 << 30
)

// sinkFacts is the first line that a sink prints.
type sinkFacts struct {
	DNS     string
	Addrs   map[string]string // of each mode
	Port    uint16            // SMTP, to which MX records lead
	Refused uint16            // nobody listens here
	Reports string            // the socket that takes reports on TLS
}

// A sink has all servers of the bench, in a process of its own.
type sink struct {
	config  *tls.Config // without session tickets
	tickets *tls.Config // with session tickets
	facts   sinkFacts
	dns     *lab.DNS

	mu       sync.Mutex
	reports  int
	held     int
	released chan struct{}
	turns    map[string]int // of the last conversation in each mode
	counts   map[string]*counts
}

// runSink serves until standard input ends. Each line of that is a command, which gets a
// line as its answer: held, release, turns, questions, reports, counts or forget.
func runSink(certFile, keyFile string) error {
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return err
	}
	s := &sink{
		config:   &tls.Config{Certificates: []tls.Certificate{pair}, SessionTicketsDisabled: true, DynamicRecordSizingDisabled: true},
		tickets:  &tls.Config{Certificates: []tls.Certificate{pair}},
		facts:    sinkFacts{Addrs: make(map[string]string)},
		released: make(chan struct{}),
		turns:    make(map[string]int),
		counts:   make(map[string]*counts),
	}
	if err := s.start(); err != nil {
		return err
	}
	if err := s.collect(filepath.Join(filepath.Dir(certFile), "reports")); err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	if err := out.Encode(s.facts); err != nil {
		return err
	}
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		if err := out.Encode(s.obey(in.Text())); err != nil {
			return err
		}
	}
	return in.Err()
}

func (s *sink) obey(command string) any {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch command {
	case "held":
		return s.held
	case "release":
		close(s.released)
		s.released, s.held = make(chan struct{}), 0
		return "released"
	case "turns":
		return s.turns
	case "questions":
		return len(s.dns.Queries())
	case "reports":
		return s.reports
	case "counts":
		return s.counts
	case "forget":
		for _, n := range s.counts {
			*n = counts{Open: n.Open, Most: n.Open}
		}
		return "forgotten"
	}
	return "unknown command"
}

func (s *sink) start() error {
	port, err := lab.ReservePort()
	if err != nil {
		return err
	}
	s.facts.Port = port.Number
	refused, err := lab.ReservePort()
	if err != nil {
		return err
	}
	s.facts.Refused = refused.Number
	if _, err := port.BlackHole(netip.MustParseAddr(deadAddress)); err != nil {
		return err
	}
	zone := fmt.Sprintf("%s A %s\ngone.%s A %s\n", mxName, fastAddress, domain, deadAddress)
	zone += manySOA
	zone += fmt.Sprintf("fast.%[1]s MX 10 mx.%[1]s\nhalf.%[1]s MX 10 gone.%[1]s\nhalf.%[1]s MX 20 mx.%[1]s\n", domain)
	for _, m := range modes {
		if m.many != nil {
			records, err := s.startMany(m, port.Number)
			if err != nil {
				return err
			}
			zone += records
			continue
		}
		listener, err := listen(m, port)
		if err != nil {
			return err
		}
		s.facts.Addrs[m.name] = listener.Addr().String()
		if m.name != "fast" {
			zone += srv(m, listener.Addr().(*net.TCPAddr).Port)
		}
		go s.serve(listener, m)
	}
	policies, err := s.policies()
	if err != nil {
		return err
	}
	z, err := lab.ParseZone(zone + policies)
	if err != nil {
		return err
	}
	if s.dns, err = lab.StartDNS(z); err != nil {
		return err
	}
	s.facts.DNS = s.dns.Addr()
	return nil
}

// policies returns what the zone has for those who ask for policies: the domain "fast" is
// signed, so is its exchanger, whose key has a TLSA record, and it has a policy of MTA-STS and
// asks for reports. "unsigned" is an exchanger that nobody has signed.
func (s *sink) policies() (string, error) {
	leaf, err := x509.ParseCertificate(s.config.Certificates[0].Certificate[0])
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("fast.%[1]s !SECURE\n%[2]s !SECURE\n_%[3]d._tcp.%[2]s TLSA 3 1 1 %[4]x\n"+
		"_mta-sts.fast.%[1]s TXT \"v=STSv1; id=1\"\n_smtp._tls.fast.%[1]s TXT \"v=TLSRPTv1; rua=mailto:tls@%[1]s\"\n"+
		"unsigned.%[1]s MX 10 mx.unsigned.%[1]s\nmx.unsigned.%[1]s A %[5]s\n",
		domain, mxName, s.facts.Port, sha256.Sum256(leaf.RawSubjectPublicKeyInfo), fastAddress), nil
}

// maxReport is the longest report on TLS, bytes.
const maxReport = 32 << 10

// collect counts the datagrams that come to the socket at path.
func (s *sink) collect(path string) error {
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return err
	}
	s.facts.Reports = path
	go func() {
		for buf := make([]byte, maxReport+1); ; {
			if _, err := conn.Read(buf); err != nil {
				return
			}
			s.mu.Lock()
			s.reports++
			s.mu.Unlock()
		}
	}()
	return nil
}

func listen(m mode, port *lab.Port) (net.Listener, error) {
	if m.name == "fast" {
		return port.Listen(netip.MustParseAddr(fastAddress))
	}
	return net.Listen("tcp", fastAddress+":0")
}

// srv returns the SRV record that leads to a mode's port.
func srv(m mode, port int) string {
	service := m.kind
	if m.kind == "qmtp" && m.tls {
		service = "qmtps"
	}
	return fmt.Sprintf("_%s._tcp.%s.%s SRV 0 0 %d %s\n", service, m.name, domain, port, mxName)
}

func (s *sink) serve(listener net.Listener, m mode) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			c := &sinkConn{sink: s, mode: m, counter: &turnCounter{Conn: conn, slow: m.slow}}
			c.counter.note = c.noteTurns
			c.use(c.counter)
			if m.many != nil {
				if !c.enter() {
					return
				}
				defer c.quit()
			}
			if m.tls && c.secure() != nil {
				return
			}
			c.talk()
		}()
	}
}

// A turnCounter is a connection that counts flights of answers. A flight begins with the
// first write, and with each write that follows a read.
type turnCounter struct {
	net.Conn
	slow  bool
	count int
	wrote bool            // since the last read
	note  func(count int) // called before each flight; nil: no longer
}

func (t *turnCounter) Read(p []byte) (int, error) {
	n, err := t.Conn.Read(p)
	if n > 0 {
		t.wrote = false
	}
	return n, err
}

func (t *turnCounter) Write(p []byte) (int, error) {
	if t.slow && !t.wrote {
		time.Sleep(flightDelay)
		t.count++
		if t.note != nil {
			t.note(t.count)
		}
	}
	t.wrote = true
	return t.Conn.Write(p)
}

// A sinkConn is one connection to a server.
type sinkConn struct {
	*sink
	mode    mode
	counter *turnCounter
	stream  net.Conn
	in      *bufio.Reader
	out     *bufio.Writer
	inTLS   bool
	over    bool // it is no longer counted
}

const sinkBuffer = 256 << 10

func (c *sinkConn) use(conn net.Conn) {
	c.stream = conn
	size := sinkBuffer
	if c.mode.hold || c.mode.many != nil {
		size = 8 << 10
	}
	if !c.mode.slow && conn == net.Conn(c.counter) {
		c.stream = c.counter.Conn // nothing to count, and a bare connection is faster
	}
	c.in, c.out = bufio.NewReaderSize(c.stream, size), bufio.NewWriterSize(c.stream, 4<<10)
}

func (c *sinkConn) secure() error {
	config := c.config
	if c.mode.many != nil && !c.mode.slow { // a ticket would be a flight of its own
		config = c.tickets
	}
	t := tls.Server(c.stream, config)
	if err := t.Handshake(); err != nil {
		return err
	}
	c.inTLS = true
	c.use(t)
	return nil
}

func (c *sinkConn) talk() {
	var err error
	switch c.mode.kind {
	case "smtp":
		err = c.smtp()
	case "qmtp":
		err = c.qmtp()
	case "drain":
		err = c.drain()
	case "source":
		err = c.source()
	}
	if t, ok := c.stream.(*tls.Conn); ok && err == nil {
		_ = t.CloseWrite()
	}
}

func (c *sinkConn) drain() error {
	for {
		if _, err := c.in.Discard(sinkBuffer); err != nil {
			if err == io.EOF {
				return nil
			}
			return err
		}
	}
}

func (c *sinkConn) source() error {
	block := make([]byte, 64<<10)
	for i := range block {
		block[i] = byte(i * 11)
	}
	for left := tunnelSize; left > 0; left -= len(block) {
		if _, err := c.stream.Write(block); err != nil {
			return err
		}
	}
	return nil
}

func (c *sinkConn) noteTurns(count int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.turns[c.mode.name] = count
}

func (c *sinkConn) holdBack() {
	if !c.mode.hold {
		return
	}
	c.mu.Lock()
	c.held++
	released := c.released
	c.mu.Unlock()
	<-released
}

var errQuit = errors.New("quit")

func (c *sinkConn) smtp() error {
	c.out.WriteString("220 " + mxName + " ESMTP\r\n")
	for {
		if c.in.Buffered() == 0 {
			if err := c.out.Flush(); err != nil {
				return err
			}
		}
		line, err := c.in.ReadString('\n')
		if err != nil {
			return err
		}
		if err := c.command(strings.TrimRight(line, "\r\n")); err != nil {
			if err == errQuit {
				return nil
			}
			return err
		}
	}
}

func (c *sinkConn) command(line string) error {
	verb, _, _ := strings.Cut(line, " ")
	switch verb {
	case "EHLO":
		c.greeted()
		c.out.WriteString(c.capabilities())
	case "STARTTLS":
		c.out.WriteString("220 go ahead\r\n")
		if err := c.out.Flush(); err != nil {
			return err
		}
		return c.secure()
	case "AUTH":
		c.out.WriteString("235 ok\r\n")
	case "MAIL", "RCPT", "RSET":
		c.out.WriteString("250 ok\r\n")
	case "DATA":
		c.out.WriteString("354 go ahead\r\n")
		if err := c.out.Flush(); err != nil {
			return err
		}
		if err := c.readData(); err != nil {
			return err
		}
		return c.accept()
	case "QUIT":
		c.quit()
		c.out.WriteString("221 bye\r\n")
		_ = c.out.Flush()
		return errQuit
	default:
		c.out.WriteString("502 what\r\n")
	}
	return nil
}

func (c *sinkConn) accept() error {
	c.holdBack()
	c.take()
	c.out.WriteString("250 ok\r\n")
	err := c.out.Flush()
	c.counter.note = nil // the client does not wait for the answer to QUIT
	return err
}

func (c *sinkConn) capabilities() string {
	lines := []string{mxName, "8BITMIME", "SIZE 0"}
	if !c.mode.noPipelining {
		lines = append(lines, "PIPELINING")
	}
	if c.mode.auth {
		lines = append(lines, "AUTH PLAIN")
	}
	if !c.inTLS {
		lines = append(lines, "STARTTLS")
	}
	last := len(lines) - 1
	return "250-" + strings.Join(lines[:last], "\r\n250-") + "\r\n250 " + lines[last] + "\r\n"
}

// readData reads to the end of the message, a block at a time.
func (c *sinkConn) readData() error {
	const end = "\r\n.\r\n"
	tail := []byte("\r\n")
	for {
		if _, err := c.in.Peek(1); err != nil {
			return err
		}
		block, _ := c.in.Peek(c.in.Buffered())
		// The end is at the end of a block: the client waits for the answer to it.
		tail = append(tail, block[max(0, len(block)-len(end)):]...)
		tail = tail[max(0, len(tail)-len(end)):]
		if _, err := c.in.Discard(len(block)); err != nil {
			return err
		}
		if string(tail) == end {
			return nil
		}
	}
}

// qmtp takes packages, each with one recipient, until the connection ends.
func (c *sinkConn) qmtp() error {
	for {
		for range 3 { // message, sender, recipients
			if err := c.skipNetstring(); err != nil {
				return err
			}
		}
		c.out.WriteString("3:Kok,")
		if err := c.out.Flush(); err != nil {
			return err
		}
	}
}

func (c *sinkConn) skipNetstring() error {
	digits, err := c.in.ReadString(':')
	if err != nil {
		return err
	}
	var size int
	if _, err := fmt.Sscanf(digits, "%d:", &size); err != nil {
		return err
	}
	_, err = c.in.Discard(size + len(","))
	return err
}
