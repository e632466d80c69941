// Package transport carries one attempt to deliver a message out, over a connection that
// somebody else has made: in this process, by the packages that the bundled programs are
// made of, or by the chain of programs that control files name. Both ways end in the same
// values, and are the same to the server.
//
//	mxf-remote(8)          the chain: arguments, environment, descriptors, exit codes
//	UCSPI-TCP, UCSPI-TLS   what the programs of a chain find
//	RFC 3207               STARTTLS
package transport

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/remote/policy"
	"nightmare.mail/mxf/remote/report"
	"nightmare.mail/mxf/smtpc"
	"nightmare.mail/mxf/tlsc"
)

// A Carrier carries attempts out. Nothing in it changes once it is in use, and any number of
// deliveries may share it.
type Carrier struct {
	Settings *control.Settings
	Programs string   // the folder in which programs are found
	Environ  []string // what a chain inherits
	Exits    Exits

	// OnEnd has clean called if a signal ends this process before stop is called; may be
	// nil.
	OnEnd func(clean func()) (stop func())

	tls *tlsc.Client // see LoadTLS
}

// Exits are the exit codes by which programs of a chain report that they began no
// transaction (mxf-remote-smtpc(8), mxf-tlsc(8)).
type Exits struct {
	Next   int // not now: another exchanger may be tried
	NoTLS  int
	Group  int // the server stumbled over a group of commands
	NoEHLO int // the connection was lost before the answer to EHLO
	Fuse   int
	TLS    []int // those of a TLS client: its settings, its handshake, its connection
}

// A Mail is what all attempts for one job have in common.
type Mail struct {
	Host       string // as the caller spells it
	Sender     string
	Recipients []string
	Message    *Message
	Trace      func(line string) // may be nil
}

// An Attempt is one connection and what is to be said on it.
type Attempt struct {
	*Mail
	Protocol  *control.Protocol
	Exchanger string         // its name, as its record spells it; empty for an address
	Addr      netip.AddrPort // to which Conn leads
	Local     netip.AddrPort // from which it comes
	Conn      *net.TCPConn   // the caller's to close
	InProcess bool           // see [Carrier.InProcess]
	Manner    policy.Manner
	Avoid     smtpc.Avoid // what control/smtpavoid says of the server
}

// Carry carries a out.
//
// With a nil error the reports are complete, and final. Otherwise the error is
//
//   - *report.NoTransaction: nothing was sent that the server could deliver. errors.Is
//     finds the failure in it that leads to a rung of package policy;
//   - *report.Fuse: timeoutremote is over; the reports are complete when its Begun is set;
//   - another, which is temporary and ends the delivery.
func (c *Carrier) Carry(ctx context.Context, a *Attempt) (report.Stream, error) {
	if a.InProcess {
		return c.inProcess(ctx, a)
	}
	return c.inChain(ctx, a)
}

// ip is the server's address, as reports have it.
func (a *Attempt) ip() string { return a.Addr.Addr().String() }

// serverName is what TLS asks for: the exchanger's name, or the address.
func (a *Attempt) serverName() string { return cmp.Or(a.Exchanger, a.ip()) }

// avoid is what the server is not asked for.
func (a *Attempt) avoid() smtpc.Avoid {
	avoid := a.Avoid
	if a.Manner.OneByOne {
		avoid = avoid.Or(smtpc.OneByOne)
	}
	avoid.EHLO = avoid.EHLO || a.Manner.HELO
	return avoid
}

// Avoids returns what control/smtpavoid says of an exchanger of protocol, and the line that
// says so, 0 for none. QMTP has nothing to avoid.
func (c *Carrier) Avoids(protocol *control.Protocol, exchanger string, addr netip.Addr) (avoid smtpc.Avoid, line int) {
	if protocol.Program == control.QMTPProgram {
		return avoid, 0
	}
	words, line := c.Settings.SMTPAvoid.Lookup(exchanger, addr)
	avoid, _ = smtpc.ParseAvoid(strings.Join(words, ",")) // the words were looked at when the file was read
	return avoid, line
}

// Manner is the manner of the first attempt at a server that is not asked for avoid.
func Manner(level policy.Level, avoid smtpc.Avoid) policy.Manner {
	return policy.Manner{TLS: level, OneByOne: avoid.Or(smtpc.OneByOne) == avoid, HELO: avoid.EHLO}
}

// handshakeLimit is how long a handshake may take, 0 for as long as it likes. That of
// implicit TLS comes before the fuse is lit, and must end all the same.
func (c *Carrier) handshakeLimit(protocol *control.Protocol) time.Duration {
	if protocol.Implicit {
		return cmp.Or(c.Settings.TimeoutConnect, c.Settings.TimeoutRemote)
	}
	return c.Settings.TimeoutConnect
}

// cause returns what the system said, without the operation and the path, which the report
// names itself.
func cause(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}
