package qmtpc

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"nightmare.mail/mxf/remote/report"
)

// A Job is one message to be delivered to one server.
type Job struct {
	Sender     string    // envelope sender, may be empty
	Recipients []string  // at least one; sent as they are
	Message    io.Reader // UNIX newlines; one that cannot be measured is spooled

	RemoteIP   string   // the server's address, for the reports; empty reads as unknown
	ServerName string   // for the TLS line of the reports
	Environ    []string // SSL_* assignments when the connection is inside TLS, else nil
	Verified   bool     // the TLS client was told to verify, for one that does not tell its verdict
	InTLS      bool     // the connection is inside TLS, for a TLS client that tells nothing

	TimeoutRemote time.Duration     // limit of the whole conversation; 0: none
	Trace         func(line string) // called for each step, from several goroutines; may be nil
}

// answerGrace is how long a server that takes no more bytes is listened to: what
// it said before it closed has arrived, or is a round trip away.
const answerGrace = 10 * time.Second

// Why a conversation is ended from our side.
var (
	errFuse     = errors.New("the fuse blew")
	errFinished = errors.New("the conversation is over")
	errDeaf     = errors.New("the server takes no more bytes and says nothing")
)

// longAgo is a deadline that has passed.
var longAgo = time.Unix(1, 0)

// Deliver sends job's message over conn and returns what is to be reported. It
// leaves conn open, except when the message turns out unreadable half-way: that
// package is cut short.
//
// The error is nil when the stream is complete; *report.NoTransaction when the
// package cannot have been taken and another server may be tried; *report.Fuse
// after TimeoutRemote, with a stream if the fuse's Begun is set; anything else
// is a failure of this machine, with nothing to report and nothing sent.
func Deliver(ctx context.Context, conn net.Conn, job *Job) (report.Stream, error) {
	if len(job.Recipients) == 0 {
		return report.Stream{}, errors.New("a delivery without recipients")
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(errFinished)
	if job.TimeoutRemote > 0 {
		fuse := time.AfterFunc(job.TimeoutRemote, func() { cancel(errFuse) })
		defer fuse.Stop()
	}
	d := &delivery{Job: job, conn: conn, tls: report.ParseTLS(job.Environ, job.ServerName, job.Verified, job.InTLS)}
	message, err := measure(ctx, job.Message)
	if err != nil {
		return d.unmeasured(err)
	}
	defer message.close()
	d.pack = newPack(message, job.Sender, job.Recipients)
	return d.converse(ctx, cancel)
}

// A delivery is a job under way.
type delivery struct {
	*Job
	conn net.Conn
	tls  *report.TLS
	pack *pack

	heard    bool            // an answer byte was read
	answers  []report.Report // one for each recipient answered
	taken    bool            // one of them is an acceptance
	takenFor string          // what the server said with the first
}

// unmeasured is how a delivery ends whose message could not be measured.
func (d *delivery) unmeasured(err error) (report.Stream, error) {
	d.trace("message: %v", err)
	var known *report.Error
	switch {
	case errors.Is(err, errFuse):
		return report.Stream{}, report.NewFuse(d.facts(report.Facts{}), false)
	case errors.As(err, &known):
		return report.Only(d.report(known.Case, known.Facts)), nil
	}
	return report.Stream{}, err
}

// converse writes the package in the background and reads the answers.
func (d *delivery) converse(ctx context.Context, cancel context.CancelCauseFunc) (report.Stream, error) {
	// Every end from our side goes through the context, and from there to the
	// connection: no two deadlines can undo one another.
	disarm := context.AfterFunc(ctx, func() { d.conn.SetDeadline(longAgo) })
	defer disarm()

	d.trace("> package of %d bytes: message %d, sender %q, %d recipients",
		d.pack.size(), d.pack.message.size, d.Sender, len(d.Recipients))
	wrote := make(chan error, 1)
	go func() { wrote <- guard(func() error { return d.write(cancel) }) }()

	lost := d.readAnswers()
	// The writer has the last word on whether the server can have the whole
	// package, so it is waited for; only an acceptance gives it time to finish.
	if !d.pack.sent() && (lost != nil || !d.taken) {
		cancel(errFinished)
	}
	failed := <-wrote
	if lost != nil {
		d.trace("lost: %v", lost)
	}
	return d.outcome(context.Cause(ctx), lost, failed)
}

// write is the background half of a conversation.
func (d *delivery) write(cancel context.CancelCauseFunc) error {
	err := guard(func() error { return d.pack.writeTo(d.conn) })
	switch {
	case err == nil:
		d.trace("> sent")
	case isSource(err):
		d.trace("cut short: %v", err)
		cancel(err)
		d.conn.Close()
	default:
		d.trace("> stopped after %d bytes: %v", d.pack.written.Load(), err)
		time.AfterFunc(answerGrace, func() { cancel(errDeaf) })
	}
	return err
}

// readAnswers reads an answer for each recipient, and returns why it could not.
func (d *delivery) readAnswers() error {
	in := bufio.NewReader(&ear{d.conn, &d.heard})
	for n := range d.Recipients {
		text, err := readNetstring(in, maxAnswer)
		if err == nil {
			d.trace("< %d of %d: %.200q", n+1, len(d.Recipients), text)
			err = d.answer(text)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// answer notes what the server says about the next recipient.
func (d *delivery) answer(text []byte) error {
	if len(text) == 0 {
		return notQMTP("an answer without a letter")
	}
	letter, said := text[0], string(text[1:])
	switch letter {
	case 'K':
		if !d.taken {
			d.taken, d.takenFor = true, said
		}
		d.answers = append(d.answers, report.Report{Letter: report.Accepted})
	case 'Z', 'D':
		refusal := d.report(report.RecipientRejected, report.Facts{Reply: said, Permanent: letter == 'D'})
		d.answers = append(d.answers, refusal)
	default:
		return notQMTP("an answer that begins with %q", letter)
	}
	return nil
}

// outcome is what comes of a conversation: cause is why it was ended from our
// side if it was, lost why no more answers came, failed why no more was written.
func (d *delivery) outcome(cause, lost, failed error) (report.Stream, error) {
	// An acceptance of what was never sent whole is none.
	complete := lost == nil && (d.pack.sent() || !d.taken)
	switch {
	case complete:
		return d.stream(d.verdict()), nil
	case isSource(failed):
		return d.stream(d.unsendable(failed)), nil
	case errors.Is(cause, errFuse):
		return d.blown()
	}
	died, facts := report.ConnectionDied, report.Facts{Duplicate: d.duplicate()}
	if why := report.TLSFailure(errors.Join(lost, failed)); why != "" {
		facts.Detail = report.TLSFailureLine(why)
	}
	var nonsense *protocolError
	if errors.As(lost, &nonsense) {
		died, facts.Reason = report.ProtocolError, nonsense.Error()
	}
	if !d.pack.sent() && !d.heard {
		none := report.NewNoTransaction(report.NotNow, died, d.facts(facts))
		none.Err = errors.Join(lost, failed)
		return report.Stream{}, none
	}
	return d.stream(d.report(died, facts)), nil
}

// verdict is the message report of a conversation that went to its end.
func (d *delivery) verdict() report.Report {
	if d.taken {
		return d.report(report.MessageAccepted, report.Facts{Reply: d.takenFor})
	}
	permanent := true
	for _, a := range d.answers {
		permanent = permanent && a.Letter == report.Refused
	}
	return d.report(report.AllRejected, report.Facts{Permanent: permanent})
}

// unsendable is the report of a package that we cut short ourselves.
func (d *delivery) unsendable(err error) report.Report {
	var s *sourceError
	if errors.As(err, &s) {
		return d.report(report.Unreadable, report.Facts{Reason: s.Error()})
	}
	return d.report(report.Internal, report.Facts{Reason: err.Error()})
}

// blown is how a conversation ends that took too long.
func (d *delivery) blown() (report.Stream, error) {
	fuse := report.NewFuse(d.facts(report.Facts{Duplicate: d.duplicate()}), d.pack.begun() || d.heard)
	if !fuse.Begun {
		return report.Stream{}, fuse
	}
	return d.stream(fuse.Reason), fuse
}

// duplicate tells whether the server may have the message although it did not
// say so, or not for everyone: it has had the last byte, or claims to have.
func (d *delivery) duplicate() bool { return d.pack.sent() || d.taken }

func (d *delivery) stream(message report.Report) report.Stream {
	return report.Stream{Recipients: d.answers, Message: message}
}

func (d *delivery) report(c report.Case, f report.Facts) report.Report {
	return report.New(c, d.facts(f))
}

// facts fills in those that all reports of a delivery share.
func (d *delivery) facts(f report.Facts) report.Facts {
	f.IP, f.TLS = d.RemoteIP, d.tls
	f.Seconds = int64(d.TimeoutRemote / time.Second)
	return f
}

func (d *delivery) trace(format string, args ...any) {
	if d.Trace != nil {
		d.Trace("qmtp " + fmt.Sprintf(format, args...))
	}
}

// ear notes that something was heard.
type ear struct {
	r     io.Reader
	heard *bool
}

func (e *ear) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	*e.heard = *e.heard || n > 0
	return n, err
}
