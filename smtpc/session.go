package smtpc

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"nightmare.mail/mxf/remote/report"
)

const (
	// readerSize is the buffer that replies are read into; longer lines are
	// put together beside it.
	readerSize = 4 << 10
	// earlyLimit is how long a byte that has arrived in front of the TLS
	// handshake is waited for on a connection that cannot tell whether there is
	// one. It only has to be long enough for one read.
	earlyLimit = 500 * time.Microsecond
	// quitLimit is how long QUIT, and what is still being written before it,
	// may take: the outcome is known, and QUIT is a courtesy.
	quitLimit = time.Second
	// lingerLimit is how long a server that no longer reads may take to say why.
	lingerLimit = 5 * time.Second
	// abandonLimit is how long a read of the message that nothing can
	// interrupt is waited for.
	abandonLimit = 500 * time.Millisecond
)

// errFuse is the cause that ends the context of a session whose fuse has blown.
var errFuse = errors.New("fuse blown")

// past is a deadline that is over.
var past = time.Unix(1, 0)

// A session is one conversation and what is known in it.
type session struct {
	job  *Job
	ctx  context.Context // ends with errFuse when the fuse blows
	stop []func()        // run by close, last first

	reader *bufio.Reader
	caps   capabilities
	tls    *report.TLS // nil: in the clear

	talking  bool // the server expects commands, so QUIT makes sense
	securing bool // STARTTLS was said, and EHLO inside TLS not answered yet
	noTLS    bool // TLS has failed, so what is not inside TLS is clear text because of that
	refused  bool // STARTTLS was, on this connection
	graceful bool // the conversation was brought to its end
	accepted bool // MAIL was accepted: the transaction has begun
	reports  []report.Report
	notes    []string // what went before a temporary failure: refusals that were not the end

	writing *writer // the last one started, nil before

	mu       sync.Mutex // guards what follows
	base     net.Conn   // what was handed to Deliver
	conn     net.Conn   // what is spoken on: base, or TLS over it
	expired  bool       // the deadlines are past and stay so
	cutoff   time.Time  // when reading ends, whatever is waited for; zero: not decided
	lastByte bool       // the write that ends the message was begun
	traceMu  sync.Mutex // one line at a time
}

func newSession(ctx context.Context, conn net.Conn, job *Job) *session {
	s := &session{job: job, base: conn, conn: conn, noTLS: job.TLSFailed, reader: bufio.NewReaderSize(conn, readerSize)}
	if tcp, ok := conn.(interface{ SetNoDelay(bool) error }); ok {
		_ = tcp.SetNoDelay(true) // a matter of speed
	}
	cancel := context.CancelFunc(func() {})
	if job.TimeoutRemote > 0 {
		ctx, cancel = context.WithTimeoutCause(ctx, job.TimeoutRemote, errFuse)
	}
	s.ctx = ctx
	expired := make(chan struct{})
	quiet := context.AfterFunc(ctx, func() { defer close(expired); s.expire() })
	s.stop = append(s.stop, cancel, func() {
		if !quiet() {
			<-expired
		}
	})
	return s
}

// interruptMessage ends a writer that waits for a message that comes through a
// pipe, if the pipe lets it.
func (s *session) interruptMessage() {
	m, ok := s.job.Message.(interface{ SetReadDeadline(time.Time) error })
	if ok && m.SetReadDeadline(past) == nil {
		s.writing.wait(abandonLimit)
	}
}

// expire makes everything that waits for the server return.
func (s *session) expire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expired = true
	_ = s.conn.SetDeadline(past)
	_ = s.base.SetDeadline(past)
}

// allow sets how long from now on an answer may take, 0 for as long as it likes,
// unless the end of reading was decided already.
func (s *session) allow(limit time.Duration) {
	var t time.Time
	if limit > 0 {
		t = time.Now().Add(limit)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.expired && s.cutoff.IsZero() {
		_ = s.conn.SetReadDeadline(t)
	}
}

// cutOff decides when reading ends.
func (s *session) cutOff(t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.expired {
		s.cutoff = t
		_ = s.conn.SetReadDeadline(t)
	}
}

// patient reports whether a read that is late is so by the limit of allow.
func (s *session) patient() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.expired && s.cutoff.IsZero()
}

// speakOn goes on with conn, of which not a byte has been read.
func (s *session) speakOn(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conn = conn
	if s.expired {
		_ = conn.SetDeadline(past)
	}
	s.reader.Reset(conn)
}

// close ends the goroutines and the connection. One that was not brought to its
// end is cut below TLS, so that nothing of it can be taken for a whole.
func (s *session) close() {
	for i := len(s.stop) - 1; i >= 0; i-- {
		s.stop[i]()
	}
	if s.writing != nil {
		s.writing.halt()
	}
	if !s.graceful {
		s.expire()
		_ = s.base.Close()
	}
	if s.writing != nil && !s.writing.wait(abandonLimit) {
		s.interruptMessage()
	}
	_ = s.conn.Close()
	_ = s.base.Close()
}

// quit says QUIT if the server can still make sense of it, and does not wait
// for the answer.
func (s *session) quit(before string) {
	if s.writing != nil {
		s.writing.halt()
		if !s.writing.wait(quitLimit) || s.writing.failure() != nil || s.writing.inside {
			return
		}
	}
	if !s.talking {
		return
	}
	s.mu.Lock()
	if !s.expired {
		_ = s.conn.SetWriteDeadline(time.Now().Add(quitLimit))
	}
	s.mu.Unlock()
	s.trace("> QUIT")
	_, err := s.conn.Write([]byte(before + "QUIT\r\n"))
	s.graceful = err == nil
}

func (s *session) trace(line string) {
	if s.job.Trace == nil {
		return
	}
	s.traceMu.Lock()
	defer s.traceMu.Unlock()
	s.job.Trace(report.Diagnostic(line))
}

// send writes one command, which waits for its answer before another is sent.
func (s *session) send(command string) error {
	if err := s.unasked(); err != nil {
		return err
	}
	s.trace("> " + command)
	if _, err := s.conn.Write([]byte(command + "\r\n")); err != nil {
		// The server may have said why before it left: that is read first.
		s.cutOff(time.Now().Add(lingerLimit))
	}
	return nil
}

// unasked is the error of a server that has spoken out of turn: what it said
// would be taken for the answer to a command that it has not seen yet. Empty lines
// say nothing.
func (s *session) unasked() error {
	if waiting, _ := s.reader.Peek(s.reader.Buffered()); len(bytes.Trim(waiting, "\r\n")) == 0 {
		return nil
	}
	return s.early()
}

// early is the error of a server whose words are there before they were asked for.
func (s *session) early() error {
	waiting, _ := s.reader.Peek(s.reader.Buffered())
	return protocolErrorf("it sent %s without being asked", seen(string(waiting)))
}

// Limits of RFC 5321 section 4.5.3.2, in proportion to the fuse.
func (s *session) answerLimit() time.Duration  { return s.job.TimeoutRemote / 4 }
func (s *session) messageLimit() time.Duration { return s.job.TimeoutRemote / 2 }

// receive reads the reply to a command, which takes limit at most.
func (s *session) receive(to string, limit time.Duration) (*reply, error) {
	s.allow(limit)
	return s.read(to, limit)
}

// read reads the reply to a command, whose limit was set before. Where the goroutine
// that writes has failed for a reason of ours, that is the error.
func (s *session) read(to string, limit time.Duration) (*reply, error) {
	r, err := readReply(s.reader, func(line string) { s.trace("< " + line) })
	if err == nil {
		return r, nil
	}
	if s.writing != nil {
		if own := s.writing.failure(); own != nil && !isLost(own) {
			return nil, own
		}
	}
	if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() && s.patient() {
		quiet := &silence{to: to, limit: limit}
		s.trace("= " + quiet.Error())
		return nil, &lostError{quiet}
	}
	return nil, err
}

// silence is the error of a server that did not answer in time.
type silence struct {
	to    string // the command, or greeting
	limit time.Duration
}

func (e *silence) Error() string {
	what := "answer to " + e.to
	if e.to == greeting {
		what = greeting
	}
	return fmt.Sprintf("no %s within %s seconds", what, strconv.FormatFloat(e.limit.Seconds(), 'f', -1, 64))
}

// greeting stands for a command in what waits for the server's first words.
const greeting = "greeting"

func isLost(err error) bool {
	var lost *lostError
	return errors.As(err, &lost)
}

// ask sends a command and reads its answer.
func (s *session) ask(command string) (*reply, error) {
	return s.askWithin(s.answerLimit(), command)
}

func (s *session) askWithin(limit time.Duration, command string) (*reply, error) {
	if err := s.send(command); err != nil {
		return nil, err
	}
	verb, _, _ := strings.Cut(command, " ")
	return s.receive(verb, limit)
}

// note remembers a refusal that is not the end, for the case that a temporary failure
// comes after it.
func (s *session) note(what string, r *reply) {
	s.notes = append(s.notes, what+": "+strings.ReplaceAll(r.Message, "\n", " / "))
}

// facts are what every report of the session says.
func (s *session) facts() report.Facts {
	return report.Facts{IP: s.job.RemoteIP, TLS: s.tls}
}

// mayHaveSent tells whether the server may have all of the message.
func (s *session) mayHaveSent() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lastByte
}

// answered are the reports of the recipients up to the first without an answer.
func (s *session) answered() []report.Report {
	for i, r := range s.reports {
		if r.Letter == 0 {
			return s.reports[:i]
		}
	}
	return s.reports
}

// end is the outcome that a case has, with the recipients answered so far.
func (s *session) end(c report.Case, f report.Facts) report.Stream {
	message := report.New(c, f)
	if message.Letter == report.Temporary {
		message = message.With(s.notes...)
	}
	return report.Stream{Recipients: s.answered(), Message: message}
}

// none is the error of a conversation in which no transaction has begun. Its reason is
// what a program shows on its standard error, of which no more is kept.
func (s *session) none(why report.Why, c report.Case, f report.Facts, cause error) *report.NoTransaction {
	e := report.NewNoTransaction(why, c, f)
	e.Reason, e.Err = e.Reason.With(s.notes...), cause
	e.Reason.Text = report.Diagnostic(e.Reason.Text)
	return e
}

// refuse ends with what the server refused.
func (s *session) refuse(c report.Case, r *reply) report.Stream {
	f := s.facts()
	f.Reply, f.Permanent = r.Message, s.forGood(c, r)
	return s.end(c, f)
}

// forGood reports whether a refusal is permanent. In clear text that follows a failure
// of TLS one that TLS might have spared is not: TLS may work tomorrow.
func (s *session) forGood(c report.Case, r *reply) bool {
	if s.noTLS && s.tls == nil && (r.ofSecurity() || c == report.SenderRejected) {
		return false
	}
	return r.permanent()
}

// outcome is the outcome of a conversation that err has ended.
func (s *session) outcome(err error) (report.Stream, error) {
	if s.writing != nil {
		s.writing.halt() // from here on mayHaveSent does not change
	}
	f := s.facts()
	f.Duplicate = s.mayHaveSent()
	begun := s.accepted || f.Duplicate

	var none *report.NoTransaction
	var known *report.Error
	var protocol *protocolError
	var unreadable *unreadableError
	switch {
	case errors.As(err, &none):
		return report.Stream{}, none
	case errors.As(err, &known):
		return s.end(known.Case, known.Facts), nil
	case errors.As(err, &unreadable):
		f.Reason = err.Error()
		return s.end(report.Unreadable, f), nil
	case errors.Is(err, errPartialLine):
		return s.end(report.PartialLine, f), nil
	case errors.As(err, &protocol):
		f.Reason = protocol.what
		return s.lost(report.ProtocolError, f, begun, err)
	case errors.Is(context.Cause(s.ctx), errFuse):
		return s.blown(f, begun)
	case s.ctx.Err() != nil && !begun:
		return report.Stream{}, s.ctx.Err()
	case isLost(err):
		return s.lost(report.ConnectionDied, s.died(f, err), begun, err)
	}
	f.Reason = err.Error()
	return s.end(report.Internal, f), nil
}

// died adds to f why the connection was lost, as far as more is known than its end.
func (s *session) died(f report.Facts, err error) report.Facts {
	var quiet *silence
	if errors.As(err, &quiet) {
		f.Reason = quiet.Error()
		if quiet.to == greeting && s.job.RemotePort == portOfSMTPS {
			f.Reason += ", and a server on port 465 waits for TLS from the first byte"
		}
	}
	if why := report.TLSFailure(err); why != "" {
		s.notes = append(s.notes, report.TLSFailureLine(why))
	}
	return f
}

// portOfSMTPS is that of submission inside TLS (RFC 8314 section 3.3).
const portOfSMTPS = 465

// lost lets something else be tried as long as nothing has begun.
func (s *session) lost(c report.Case, f report.Facts, begun bool, cause error) (report.Stream, error) {
	if !begun {
		return report.Stream{}, s.none(report.NotNow, c, f, cause)
	}
	return s.end(c, f), nil
}

func (s *session) blown(f report.Facts, begun bool) (report.Stream, error) {
	f.Seconds = int64(s.job.TimeoutRemote / time.Second)
	fuse := report.NewFuse(f, begun)
	if !begun {
		return report.Stream{}, fuse
	}
	return report.Stream{Recipients: s.answered(), Message: fuse.Reason}, fuse
}
