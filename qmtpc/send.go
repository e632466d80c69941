package qmtpc

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// answerGrace is how long a server that takes no more bytes is listened to: what
// it said before it closed has arrived, or is a round trip away.
const answerGrace = 10 * time.Second

// errOver ends the writing when nothing can come of the package any more.
var errOver = errors.New("the conversation is over")

// longAgo returns a deadline that has passed.
func longAgo() time.Time { return time.Unix(1, 0) }

// Send sends mail on conn, reads the answers and returns the outcome. It never closes
// conn, but leaves a deadline on it that has passed when the conversation ended too
// early. No goroutine of its own is left.
//
// The end of ctx ends the conversation. Trace is called for each step, from several
// goroutines; it may be nil.
func Send(ctx context.Context, conn net.Conn, mail *Mail, trace func(line string)) *Outcome {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	c := &conversation{
		conn:    conn,
		pack:    newPack(mail),
		outcome: &Outcome{Recipients: make([]Answer, len(mail.Recipients))},
		trace:   tracer(trace),
		end:     end,
	}
	c.pack.over = ctx.Done()
	// Every end from our side goes through the context, and from there to the
	// connection: no two deadlines can undo one another.
	disarm := context.AfterFunc(ctx, func() { conn.SetDeadline(longAgo()) })
	defer disarm()
	c.trace("> package of %d bytes: message %d, sender %q, %d recipients",
		c.pack.size(), mail.message.size, mail.Sender, len(mail.Recipients))
	c.run(ctx)
	return c.outcome
}

// tracer returns a function that traces what it formats. Not even a panic in trace changes
// what becomes of the package.
func tracer(trace func(line string)) func(format string, args ...any) {
	return func(format string, args ...any) {
		defer func() { _ = recover() }()
		if trace != nil {
			trace("qmtp " + fmt.Sprintf(format, args...))
		}
	}
}

// A conversation is one package on its way and its answers.
type conversation struct {
	conn    net.Conn
	pack    *pack
	outcome *Outcome
	trace   func(format string, args ...any)
	end     context.CancelCauseFunc
	deaf    *time.Timer // runs when writing has failed
}

// run writes the package in the background and reads the answers.
func (c *conversation) run(ctx context.Context) {
	wrote := make(chan error, 1)
	go func() { wrote <- guard(c.write) }()

	lost := guard(c.readAnswers)
	// Only the writer knows whether the server can have the whole package, so it is
	// waited for. An acceptance alone gives it time to finish.
	if !c.pack.sent() && (lost != nil || c.outcome.FirstAccepted() == nil) {
		c.end(errOver)
	}
	failed := <-wrote
	if c.deaf != nil {
		c.deaf.Stop()
	}
	if lost != nil {
		c.trace("lost: %v", lost)
	}
	c.outcome.FirstByte, c.outcome.LastByte = c.pack.begun(), c.pack.sent()
	c.outcome.Err = c.failure(context.Cause(ctx), lost, failed)
}

// write is the background half of a conversation.
func (c *conversation) write() error {
	err := guard(func() error { return c.pack.writeTo(c.conn) })
	switch {
	case err == nil:
		c.trace("> sent")
	case isOurs(err):
		c.trace("cut short: %v", err)
		c.end(err)
	default:
		c.trace("> stopped after %d bytes: %v", c.pack.written.Load(), err)
		c.deaf = time.AfterFunc(answerGrace, func() { c.end(ErrDeaf) })
	}
	return err
}

// isOurs reports whether the message, or a bug, and not the connection is at fault.
func isOurs(err error) bool {
	var message *MessageError
	var panicked *panicError
	return errors.As(err, &message) || errors.As(err, &panicked)
}

// failure returns the outcome's error. Cause is why we ended the conversation if we
// did, lost is why no more answers came, failed is why no more was written.
func (c *conversation) failure(cause, lost, failed error) error {
	// An acceptance of what was never wholly sent cannot be true.
	complete := lost == nil && (c.pack.sent() || c.outcome.FirstAccepted() == nil)
	switch {
	case complete:
		return nil
	case isOurs(failed):
		return failed
	case isOurs(lost):
		return lost
	case cause == errOver:
		cause = nil
	}
	return &BrokenError{errors.Join(cause, lost, failed)}
}

// readAnswers reads an answer for each recipient, and returns why it could not.
func (c *conversation) readAnswers() error {
	in := bufio.NewReader(&ear{c.conn, &c.outcome.Heard})
	for n := range c.outcome.Recipients {
		text, err := readNetstring(in, maxAnswer)
		if err != nil {
			return err
		}
		c.trace("< %d of %d: %.200q", n+1, len(c.outcome.Recipients), text)
		if c.outcome.Recipients[n], err = parseAnswer(text); err != nil {
			return err
		}
	}
	return nil
}

// parseAnswer reads the text of one answer: a letter, and words for a person.
func parseAnswer(text []byte) (Answer, error) {
	if len(text) == 0 {
		return Answer{}, notQMTP("an answer without a letter")
	}
	a := Answer{Text: string(text[1:])}
	switch text[0] {
	case 'K':
		a.Status = Accepted
	case 'Z':
		a.Status = Deferred
	case 'D':
		a.Status = Refused
	default:
		return Answer{}, notQMTP("an answer that begins with %q", text[0])
	}
	return a, nil
}

// An ear notes that something was heard.
type ear struct {
	r     io.Reader
	heard *bool
}

func (e *ear) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	*e.heard = *e.heard || n > 0
	return n, err
}
