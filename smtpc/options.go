package smtpc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"
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

// Options say how a server is spoken to.
type Options struct {
	HeloHost string // argument of EHLO; may be empty with FromMAIL only
	Start    Start
	TLS      Policy
	Avoid    Avoid

	// TLSFailed says that TLS failed on an earlier connection to this server. In
	// clear text a refusal that TLS might have spared is temporary then.
	TLSFailed bool

	// InTLS says that the connection is inside TLS already. STARTTLS is not used then.
	InTLS bool

	// StartTLS makes the TLS handshake on the connection after STARTTLS was accepted, and
	// returns the connection to speak on. The error of a handshake that failed is that
	// of the outcome. Nil: there is no TLS client.
	StartTLS func(ctx context.Context) (net.Conn, error)

	// Limits and Trace are of Open alone: each [Mail] has its own.
	Limits Limits
	Trace  func(line string) // each command and each line of a reply; may be nil
}

// check finds mistakes of the caller.
func (o *Options) check() error {
	switch {
	case o.HeloHost == "" && o.Start != FromMAIL:
		return errors.New("no name to say in EHLO")
	case hasControl(o.HeloHost):
		return errors.New("a control byte in the name to say in EHLO")
	}
	return nil
}

// Limits are how long the server may take for one answer; 0 is no limit.
type Limits struct {
	Answer   time.Duration // to a command, and for the greeting
	Message  time.Duration // to the message
	STARTTLS time.Duration
}

// LimitsOf returns the limits within a conversation that may take remote, in the proportion
// of RFC 5321 section 4.5.3.2: 5 minutes and 10 out of 20. The answer to STARTTLS may take
// connect, for a server without TLS at hand is to be left as soon as one that does
// not answer a connection.
func LimitsOf(remote, connect time.Duration) Limits {
	return Limits{Answer: remote / 4, Message: remote / 2, STARTTLS: connect}
}
