package smtpc

import (
	"context"
	"errors"
	"net"
	"time"
)

// A STARTTLS says when STARTTLS is used (RFC 3207).
type STARTTLS int

// The uses of STARTTLS.
const (
	IfOffered STARTTLS = iota // otherwise the conversation goes on in the clear
	Never                     // not even where it is offered
	Required                  // without TLS no mail is sent
)

// Start says how far the conversation has come when it is handed over.
type Start int

// The starting points.
const (
	FromGreeting Start = iota // the server has yet to greet
	FromEHLO                  // greeted: EHLO is the first command
	FromMAIL                  // greeted and answered: MAIL is the first command, and no extension is known
)

// Options say how a server is spoken to. Limits and Trace are of [Open] alone: each [Mail] has
// its own.
type Options struct {
	HeloHost string // argument of EHLO and HELO, no control bytes; may be empty with FromMAIL only
	Start    Start
	TLS      STARTTLS
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

	// Login is how the session logs in after the last EHLO. Nil: it does not.
	Login *Login
	// Verified says that TLS, which is up or will be, is verified: a handshake that does
	// not verify the server fails.
	Verified bool
	// Exporter returns the binding tls-exporter (RFC 9266) of the TLS that is up when it is
	// called, or nil if that has none. May be nil itself.
	Exporter func() []byte
	// Relay says that the server is a relay that a route names. A refusal with 530 (RFC 4954
	// section 6) is temporary then: the login that it asks for is ours to set up.
	Relay bool

	Buffers *Buffers // nil: memory is made anew
	Limits  Limits
	Trace   func(line string) // each command and each line of a reply; may be nil
}

// check finds mistakes of the caller.
func (o *Options) check() error {
	switch {
	case o.HeloHost == "" && o.Start != FromMAIL:
		return errors.New("no name to say in EHLO")
	case hasControl(o.HeloHost):
		return errors.New("a control byte in the name to say in EHLO")
	case o.Login != nil && o.Login.Mechanisms == nil:
		return errors.New("a login without mechanisms")
	}
	return nil
}

// Limits are how long the server may take for one answer; 0 is no limit.
type Limits struct {
	Answer   time.Duration // to a command, and for the greeting
	Message  time.Duration // to the message, from its last byte on
	STARTTLS time.Duration // to STARTTLS
	MAIL     time.Duration // to MAIL; 0 is Answer. A connection that was kept may be dead
}

// mail is the limit of the answer to MAIL.
func (l Limits) mail() time.Duration {
	if l.MAIL > 0 {
		return l.MAIL
	}
	return l.Answer
}

// LimitsOf returns the limits within a conversation that may take remote, in the proportion
// of RFC 5321 section 4.5.3.2: 5 minutes and 10 out of 20. The answer to STARTTLS may take
// connect, for a server without TLS at hand is to be left as soon as one that does
// not answer a connection.
func LimitsOf(remote, connect time.Duration) Limits {
	return Limits{Answer: remote / 4, Message: remote / 2, STARTTLS: connect}
}
