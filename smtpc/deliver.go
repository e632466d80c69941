package smtpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"nightmare.mail/mxf/remote/report"
)

// A Policy says what is to be done about STARTTLS.
type Policy int

// The policies. May is what an unset MXF_TLS means.
const (
	May    Policy = iota // STARTTLS when offered, else in the clear
	None                 // never STARTTLS
	Must                 // STARTTLS, or nothing is delivered
	Verify               // Must, and StartTLS has been told to verify
)

// ParsePolicy reads the value of MXF_TLS: none, may, must or verify; empty is may.
// Any other value is an error.
func ParsePolicy(s string) (Policy, error) {
	switch s {
	case "none":
		return None, nil
	case "", "may":
		return May, nil
	case "must":
		return Must, nil
	case "verify":
		return Verify, nil
	}
	return 0, fmt.Errorf("TLS policy %q is none of none, may, must, verify", s)
}

// String returns the word that ParsePolicy reads.
func (p Policy) String() string {
	switch p {
	case None:
		return "none"
	case Must:
		return "must"
	case Verify:
		return "verify"
	}
	return "may"
}

func (p Policy) required() bool { return p == Must || p == Verify }

// Start says how far the conversation has come when it is handed over.
type Start int

// The starting points.
const (
	FromGreeting Start = iota // the server has yet to greet
	FromEHLO                  // greeted: EHLO is the first command
	FromMAIL                  // greeted and answered: MAIL is the first command, and no extension is known
)

// A Job is what is to be said on one connection.
type Job struct {
	Sender     string   // envelope sender without <>, may be empty
	Recipients []string // at least one
	Quoted     bool     // the addresses are quoted as SMTP wants them and are sent as they are

	// Message has UNIX newlines. When it is an io.Seeker whose Seek works it is
	// read from where it stands, twice unless it is small; otherwise it is
	// read once, not before MAIL is about to be sent. Nil is an empty message.
	Message io.Reader

	HeloHost   string // argument of EHLO; may be empty with FromMAIL only
	RemoteIP   string // for the report text; empty reads as unknown
	RemotePort int    // TCP port, for the report text; 0: unknown
	ServerName string // for the TLS line of the report: the exchanger's name; empty: RemoteIP

	Start Start
	TLS   Policy
	Avoid Avoid

	// TLSFailed says that TLS failed on an earlier connection to this server. In
	// clear text a refusal that TLS might have spared is temporary then.
	TLSFailed bool

	// StartTLS makes the TLS handshake on the connection after STARTTLS was
	// accepted, and returns the connection to speak on and the SSL_*
	// assignments that describe it. The text of its error is the reason in the
	// report. Nil: there is no TLS to be had.
	StartTLS func(ctx context.Context) (net.Conn, []string, error)

	// Environ holds SSL_* assignments when the connection is inside TLS
	// already, and then STARTTLS is not used. InTLS says the same of a connection
	// whose TLS client tells nothing.
	Environ []string
	InTLS   bool

	// TimeoutRemote is the fuse, lit when Deliver is called. A quarter of it is the
	// limit of each answer, and a half that of the answer to the message (RFC 5321
	// section 4.5.3.2 has 5 and 10 minutes). 0: no limits.
	TimeoutRemote  time.Duration
	TimeoutConnect time.Duration     // limit of the answer to STARTTLS; 0: none
	Trace          func(line string) // each command and each line of a reply; may be nil
}

// Deliver holds the conversation of job on conn and reports its outcome. It
// closes conn, and what StartTLS made of it, before it returns. No goroutine is
// left, except one that waits for a Message whose Read does not return.
//
// With a nil error the stream is complete. Otherwise the error is
//
//   - *report.NoTransaction: nothing was sent that the server could deliver, and
//     another exchanger may be tried; the stream is empty;
//   - *report.Fuse: TimeoutRemote ran out; the stream is complete when Begun is
//     set, else empty;
//   - the error of ctx, when that ended before a transaction had begun, or an
//     error of our own making; the stream is empty.
func Deliver(ctx context.Context, conn net.Conn, job *Job) (stream report.Stream, err error) {
	s := newSession(ctx, conn, job)
	defer s.close()
	defer func() {
		if p := recover(); p != nil {
			stream, err = report.Stream{}, fmt.Errorf("panic in the SMTP conversation: %v", p)
		}
	}()
	return s.deliver()
}

// Final makes of what Deliver returned the reports of a program that nothing
// comes after: what let another exchanger be tried is a temporary failure there.
func Final(stream report.Stream, err error) report.Stream {
	var none *report.NoTransaction
	var fuse *report.Fuse
	switch {
	case err == nil:
		return stream
	case errors.As(err, &none):
		return report.Only(report.Report{Letter: report.Temporary, Text: none.Reason.Text})
	case errors.As(err, &fuse) && fuse.Begun:
		return stream
	case errors.As(err, &fuse):
		return report.Only(fuse.Reason)
	}
	return report.Only(report.For(err))
}
