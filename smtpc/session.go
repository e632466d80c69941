package smtpc

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"nightmare.mail/mxf/control/secret"
)

const (
	// readerSize is the size of the buffer that replies are read into. A line that is
	// longer is put together outside of it.
	readerSize = 4 << 10
	// earlyLimit is how long the session waits for a byte in front of the TLS handshake, on a
	// connection that cannot report whether one has arrived. It only has to be
	// long enough for one read.
	earlyLimit = 500 * time.Microsecond
	// quitLimit is how long QUIT, and what is still being written before it, may take.
	// The outcome is known then, and QUIT is a courtesy.
	quitLimit = time.Second
	// lingerLimit is how long a server that no longer reads may take to say why.
	lingerLimit = 5 * time.Second
	// abandonLimit is how long the session waits for a read of the message that nothing
	// can interrupt.
	abandonLimit = 500 * time.Millisecond
	// maxTraced bounds a line of the trace, in bytes.
	maxTraced = 1000
)

// past is a deadline that is over.
func past() time.Time { return time.Unix(1, 0) }

var (
	errNotUsable = errors.New("the session can send no further message")
	errUnreset   = errors.New("the session needs Reset before another message")
	errUsed      = errors.New("the mail was sent before")
)

// A Session is a server that has been greeted, secured and logged in to where that was
// wanted, and that can take one message after another. One goroutine at a time may use it.
//
// It closes neither the connection that it was opened on nor the one that StartTLS
// made of it: who made them does, as [Session.Quit] says. When its methods have
// returned it has no goroutine, except that of Watch, and one that waits for a message whose
// Read does not return.
type Session struct {
	options *Options
	ctx     context.Context // of the method that runs

	limits Limits            // of the delivery under way
	told   func(line string) // its trace; may be nil
	ending func()            // its OnLastByte; may be nil
	reader *bufio.Reader
	heard  func(line string) // traces a line of a reply
	caps   capabilities

	greeting  Reply    // the zero Reply before it came
	announced []string // what EHLO announced, as it was written
	loggedIn  bool     // AUTH was accepted

	secrets []secret.Secret // in what the server says, they are concealed

	mails int // how often MAIL was said

	notes  []Note   // of Open
	became Securing // of STARTTLS
	failed error    // that of Open

	stage    Stage // what is being waited for
	talking  bool  // the server expects commands, so QUIT makes sense
	secure   bool  // inside TLS
	securing bool  // STARTTLS was said, and EHLO inside TLS is not answered yet
	noTLS    bool  // TLS has failed: what is not inside TLS is in clear text because of that
	refused  bool  // STARTTLS was, and the server has answered nothing since
	unreset  bool  // RSET has to come before the next MAIL
	spent    bool  // no further message can be sent; an answer may still come
	broken   bool  // nothing can be sent, and QUIT cannot either
	owesDot  bool  // the server waits for a message, and is to get an empty one

	buffers *Buffers // may be nil
	writing *writer  // the last one started, nil before
	watch   *watch   // of the idle session, nil while it is used

	mu       sync.Mutex // guards what follows
	base     net.Conn   // what was handed to Open
	conn     net.Conn   // what is spoken on: base, or TLS over it
	expired  bool       // the deadlines are past and stay so
	cutoff   time.Time  // when reading ends, whatever is waited for; zero: not decided
	lastByte bool       // the write that ends the message was begun
	traceMu  sync.Mutex // one line at a time
}

// Open begins a conversation on conn: the greeting, EHLO or HELO, STARTTLS and EHLO again,
// AUTH, as o says. The end of ctx ends it; ctx should end with the cause ErrFuse when the time
// for a whole conversation is over.
//
// There is a session beside an error too: its Quit ends the conversation, and its Send
// returns the error in an outcome. The error is a *RefusedError or a *BrokenError, a
// *LoginError or a *NoLoginError, or ErrTLSNotOffered, or a mistake of the caller.
func Open(ctx context.Context, conn net.Conn, o *Options) (*Session, error) {
	s := newSession(conn, o)
	s.failed = s.within(ctx, s.open)
	return s, s.failed
}

func newSession(conn net.Conn, o *Options) *Session {
	s := &Session{options: o, base: conn, conn: conn, secure: o.InTLS, noTLS: o.TLSFailed, reader: o.Buffers.reader(conn), buffers: o.Buffers}
	s.serve(o.Limits, o.Trace)
	if o.Login != nil {
		s.keepSecret(o.Login.Secret.Reveal())
	}
	if tcp, ok := conn.(interface{ SetNoDelay(bool) error }); ok {
		_ = tcp.SetNoDelay(true) // a matter of speed
	}
	return s
}

// serve has the limits and the trace of a delivery hold from now on.
func (s *Session) serve(limits Limits, trace func(line string)) {
	s.limits, s.told, s.heard = limits, trace, func(string) {}
	if trace != nil {
		s.heard = func(line string) { s.trace("< " + s.withoutChallenge(line)) }
	}
}

// within has work done while ctx lasts. A panic in it becomes its error.
func (s *Session) within(ctx context.Context, work func() error) (err error) {
	s.ctx = ctx
	expired := make(chan struct{})
	quiet := context.AfterFunc(ctx, func() { defer close(expired); s.expire() })
	defer func() {
		if !quiet() {
			<-expired
		}
	}()
	defer s.settle()
	defer func() {
		if p := recover(); p != nil {
			s.broken = true
			err = fmt.Errorf("panic in the SMTP conversation: %v", p)
		}
	}()
	return work()
}

// Usable reports whether Send can send another message, after Reset if the last one was
// refused. Between Watch and Wake it cannot. It cannot when the server has said 421, or something that is not
// SMTP, when the connection was lost, or when a message was begun and not brought to
// its end.
func (s *Session) Usable() bool { return s.able() && !s.waiting() }

// able is Usable without the check for unread words, for which Send has an error of its own.
func (s *Session) able() bool {
	return s.failed == nil && s.watch == nil && s.talking && !s.broken && !s.spent && !s.owesDot && !s.hasExpired()
}

// Reset says RSET, which is needed after a message that was refused. The limits and the trace
// are those of that mail, and the end of ctx ends it too. After an error the session is not
// usable.
func (s *Session) Reset(ctx context.Context) error {
	if !s.Usable() {
		return errNotUsable
	}
	return s.within(ctx, func() error {
		r, err := s.ask(StageRSET, "RSET")
		switch {
		case err != nil:
			return s.breaks(nil, err)
		case r.refused():
			s.spent = true
			return &RefusedError{Stage: StageRSET, Reply: r.Reply, Permanent: r.permanent()}
		case r.Code != 250:
			return s.breaks(nil, r.unexpected(StageRSET))
		}
		s.unreset = false
		return nil
	})
}

// Quit says QUIT if the server can still make sense of it, and does not wait for the
// answer. The trace is that of the last mail. It reports whether the conversation was brought to its end. If it was not, the
// owner has to cut the connection beneath TLS, so that nothing of it can be taken for
// a whole.
func (s *Session) Quit() (ended bool) {
	defer func() { _ = recover() }() // what is known of the message stays known
	if s.watch != nil {
		s.Wake() // it is broken then if the server has left
	}
	if s.broken || !s.talking {
		return false
	}
	s.mu.Lock()
	if !s.expired {
		_ = s.conn.SetWriteDeadline(time.Now().Add(quitLimit))
	}
	s.mu.Unlock()
	last := "QUIT\r\n"
	if s.owesDot {
		s.trace("> .")
		last = endOfData + last
	}
	s.trace("> QUIT")
	s.broken = true
	_, err := s.conn.Write([]byte(last))
	return err == nil
}

// settle ends the goroutine that writes. If the conversation goes on, the goroutine gets the
// time to write what it has begun.
func (s *Session) settle() {
	w := s.writing
	if w == nil {
		return
	}
	w.halt()
	if s.broken || !w.wait(quitLimit) {
		s.broken = true
		s.expire()
		if !w.wait(abandonLimit) {
			s.interruptMessage()
		}
		return
	}
	s.writing = nil
	if w.failure() != nil || w.inside {
		s.broken = true
	}
}

// interruptMessage ends a writer that waits for a message from a pipe, if the pipe has
// deadlines.
func (s *Session) interruptMessage() {
	m, ok := s.writing.message.(interface{ SetReadDeadline(time.Time) error })
	if ok && m.SetReadDeadline(past()) == nil {
		s.writing.wait(abandonLimit)
	}
}

// expire makes everything that waits for the server return.
func (s *Session) expire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expired = true
	_ = s.conn.SetDeadline(past())
	_ = s.base.SetDeadline(past())
}

func (s *Session) hasExpired() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.expired
}

// allow sets how long an answer may take from now on; 0 is no limit. It does nothing if the
// end of reading is decided already.
func (s *Session) allow(limit time.Duration) {
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
func (s *Session) cutOff(t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.expired {
		s.cutoff = t
		_ = s.conn.SetReadDeadline(t)
	}
}

// patient reports whether it was the limit of allow that a late read has passed.
func (s *Session) patient() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.expired && s.cutoff.IsZero()
}

// speakOn goes on with conn, of which not a byte has been read.
func (s *Session) speakOn(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conn = conn
	if s.expired {
		_ = conn.SetDeadline(past())
	}
	s.reader.Reset(conn)
}

func (s *Session) trace(line string) {
	if s.told == nil {
		return
	}
	s.traceMu.Lock()
	defer s.traceMu.Unlock()
	s.told(printable(line))
}

// printable makes a line fit for a trace: CR removed, control bytes shown as ?, no
// newline at its end, cut at maxTraced bytes.
func printable(line string) string {
	if len(line) <= maxTraced && !hasControl(line) {
		return line
	}
	out := make([]byte, 0, min(len(line), maxTraced))
	for i := 0; i < len(line) && len(out) < maxTraced; i++ {
		switch c := line[i]; {
		case c == '\r':
		case c < ' ' && c != '\n', c == 127:
			out = append(out, '?')
		default:
			out = append(out, c)
		}
	}
	return string(bytes.TrimRight(out, "\n"))
}

// withoutChallenge is a line of a reply as the trace has it.
func (s *Session) withoutChallenge(line string) string {
	switch code, more, ok := parseReplyLine(line); {
	case s.stage != StageAUTH || !ok || code != 334:
		return line
	case more:
		return "334-(challenge)"
	}
	return "334 (challenge)"
}

// send writes one command. Its answer has to be read before another is sent.
func (s *Session) send(command string) error { return s.sendAs(command, command) }

// sendAs is send for a command that the trace shows as another.
func (s *Session) sendAs(command, shown string) error {
	if err := s.unasked(); err != nil {
		return err
	}
	s.trace("> " + shown)
	if _, err := s.conn.Write([]byte(command + "\r\n")); err != nil {
		// The server may have said why before it left: that is read first.
		s.spent = true
		s.cutOff(time.Now().Add(lingerLimit))
	}
	return nil
}

// waiting reports whether the server has spoken out of turn. Its words would be taken for the
// answer to a command that it has not seen yet. Empty lines do not count.
func (s *Session) waiting() bool {
	if s.reader == nil {
		return false // the session is idle
	}
	waiting, _ := s.reader.Peek(s.reader.Buffered())
	return len(bytes.Trim(waiting, "\r\n")) > 0
}

// unasked is the error of a server that has spoken out of turn.
func (s *Session) unasked() error {
	if !s.waiting() {
		return nil
	}
	return s.early()
}

// early is the error of a server whose words have come before they were asked for.
func (s *Session) early() error {
	waiting, _ := s.reader.Peek(s.reader.Buffered())
	return protocolErrorf("it sent %s without being asked", seen(s.conceal(string(waiting))))
}

// receive reads the reply to a command. It may take limit.
func (s *Session) receive(to Stage, limit time.Duration) (*reply, error) {
	s.allow(limit)
	return s.read(to, limit)
}

// read reads the reply to a command. Its limit was set before. If the goroutine that writes
// has failed for a reason of ours, that reason is the error.
func (s *Session) read(to Stage, limit time.Duration) (*reply, error) {
	s.stage = to
	r, err := readReply(s.reader, s.concealLine, s.heard)
	if err == nil {
		s.refused = false
		s.spent = s.spent || r.closing()
		return r, nil
	}
	if s.writing != nil {
		if own := s.writing.failure(); own != nil && !isLost(own) {
			return nil, own
		}
	}
	if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() && s.patient() {
		quiet := &SilenceError{Stage: to, Limit: limit}
		s.trace("= " + quiet.Error())
		return nil, &lostError{quiet}
	}
	return nil, err
}

// ask sends a command and reads its answer.
func (s *Session) ask(stage Stage, command string) (*reply, error) {
	return s.askWithin(s.limits.Answer, stage, command)
}

func (s *Session) askWithin(limit time.Duration, stage Stage, command string) (*reply, error) {
	s.stage = stage
	if err := s.send(command); err != nil {
		return nil, err
	}
	return s.receive(stage, limit)
}

// breaks ends a conversation because of err. The cause is for those who decide what to try
// next.
func (s *Session) breaks(cause, err error) *BrokenError {
	s.broken = true
	return &BrokenError{Stage: s.stage, Cause: cause, Err: err}
}

// ended is the error of a conversation that err has ended, as an outcome has it. begun
// reports whether MAIL was accepted.
func (s *Session) ended(err error, begun bool) error {
	var refused *RefusedError
	var broken *BrokenError
	var unreadable *MessageError
	var protocol *ProtocolError
	var login *LoginError
	var none *NoLoginError
	switch {
	case errors.As(err, &refused), errors.As(err, &broken), errors.Is(err, ErrTLSNotOffered), errors.As(err, &login), errors.As(err, &none):
		return err
	case errors.As(err, &unreadable), errors.Is(err, ErrPartialLine):
		s.broken = true
		return err
	case errors.As(err, &protocol):
		return s.breaks(nil, err)
	case errors.Is(context.Cause(s.ctx), ErrFuse):
		return s.breaks(nil, ErrFuse)
	case s.ctx.Err() != nil && !begun:
		return s.breaks(nil, s.ctx.Err())
	}
	return s.breaks(nil, err)
}
