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
	"net"
	"net/netip"
	"time"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/control/secret"
	"nightmare.mail/mxf/control/stamp"
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
	TLS      *tlsc.Client // with the trust anchors; shared with others, perhaps
	Counts   *Counts      // nil: nobody counts
	// Certificates remembers client certificates; nil: each is read.
	Certificates *tlsc.Certificates
	// Scripts remembers which programs are scripts; nil: each is looked at.
	Scripts *stamp.Memory[bool]
	Buffers *smtpc.Buffers // nil: memory is made anew

	// OnEnd has clean called if a signal ends this process before stop is called; may be
	// nil.
	OnEnd func(clean func()) (stop func())

	own *tlsc.Certificate // that of control/clientcert: see Load
}

// Exits are the exit codes by which programs of a chain report that they began no
// transaction (mxf-remote-smtpc(8), mxf-tlsc(8)).
type Exits struct {
	Next   int   // not now: another exchanger may be tried
	NoTLS  int   // TLS failed, or is required and not offered
	Group  int   // the server stumbled over a group of commands
	NoEHLO int   // the connection was lost before the answer to EHLO
	Fuse   int   // timeoutremote is over
	TLS    []int // those of a TLS client: its settings, its handshake, its connection

	NotFetched int // of mxf-policy(8): what is known is on its descriptor 1 all the same
}

// A Target is a server, and all that decides how it is spoken to. A session can serve
// another message where the two targets are equal, as == has it.
type Target struct {
	Protocol  *control.Protocol
	Exchanger string     // its name, as its record spells it; empty for an address
	Relay     string     // what the route that names it calls it; empty: no route does, and nobody logs in
	Word      string     // of package policy, for the line on TLS; empty: none
	Judge     tlsc.Judge // who verifies, where Manner says so
	// ServerName is the name that TLS asks for, and Names are further ones that will do, see
	// policy.Requirement. Empty: the name of the exchanger, and none.
	ServerName, Names string
	Addr              netip.AddrPort // where it is
	Manner            policy.Manner
	NoSession         bool        // no TLS session is resumed
	Avoid             smtpc.Avoid // what control/smtpavoid says of it
	Identity          Identity
}

// An Identity is what we say about ourselves to one server.
type Identity struct {
	HeloHost    string // the argument of EHLO and HELO
	Certificate string // path of the certificate that the server gets if it asks for one; empty: none
	Key         string // path of its key

	Pair   *tlsc.Certificate // what was read of the two; nil: none
	Source netip.Addr        // the address that we speak from; invalid: the system picks one
	Login  Login             // at a relay; zero: none
}

// A Login is an account at a relay, and what is to be known of it when an attempt is carried out.
type Login struct {
	control.Credential
	Secret secret.Secret
}

// A Mail is what all attempts for one job have in common.
type Mail struct {
	Host       string // as the caller spells it
	Sender     string
	Recipients []string
	Message    *Message
	Trace      func(line string) // may be nil
	Most       int               // most recipients in one transaction, where there is a party
	// Where there is a party: called when the server has answered EHLO, when a transaction begins,
	// and when its message is accepted; and how many messages a session may carry.
	Greeted, Sent, Accepted func()
	MostMessages            int
	TraceFile               string // that programs trace to, where their environment names none; may be empty
	Probe                   *Probe // not nil: nothing is delivered, Message is not looked at, and what is found is left there
}

// Carry carries one attempt out, on conn, which leads to t and which the caller closes. A
// chain is handed conn, and it is closed here then. A probe ends before MAIL, and in
// QMTP with its connection; the reports are those of a delivery that ends there, or those of
// report.Would.
//
// With a nil error the reports are complete, and final. Otherwise the error is
//
//   - *report.NoTransaction: nothing was sent that the server could deliver. errors.Is
//     finds the failure in it that leads to a rung of package policy;
//   - *report.Fuse: timeoutremote is over; it has the reports;
//   - another, which is temporary and ends the delivery.
//
// What became of STARTTLS decides nothing. It is zero where it is not known.
func (c *Carrier) Carry(ctx context.Context, conn *net.TCPConn, t *Target, m *Mail, inProcess bool) (report.Stream, Securing, error) {
	if m.Probe != nil {
		if err := c.mayProbe(t.Protocol); err != nil {
			return report.Stream{}, Securing{}, err
		}
		inProcess = c.speaksHere(t.Protocol)
		m.Probe.ran = inProcess
	}
	if inProcess {
		return c.inProcess(ctx, conn, t, m)
	}
	return c.inChain(ctx, conn, t, m)
}

// ip is the server's address, as reports have it.
func (t *Target) ip() string { return t.Addr.Addr().String() }

// serverName is what TLS asks for: the exchanger's name, or what stands for it, or the address.
func (t *Target) serverName() string { return cmp.Or(t.ServerName, t.Exchanger, t.ip()) }

// dane is the judge of TLSA records or pins, if it is one of these that verifies.
func (t *Target) dane() (judge tlsc.DANE, verifies bool) {
	judge, verifies = t.Judge.(tlsc.DANE)
	return judge, verifies && t.Manner.TLS == policy.Verified
}

// avoid is what the server is not asked for.
func (t *Target) avoid() smtpc.Avoid {
	avoid := t.Avoid
	if t.Manner.OneByOne {
		avoid = avoid.Or(smtpc.OneByOne)
	}
	avoid.EHLO = avoid.EHLO || t.Manner.HELO
	return avoid
}

// Manner is the manner of the first attempt at a server that is not asked for avoid.
func Manner(level policy.Level, avoid smtpc.Avoid) policy.Manner {
	return policy.Manner{TLS: level, OneByOne: avoid.Or(smtpc.OneByOne) == avoid, HELO: avoid.EHLO}
}

// handshakeLimit is how long a handshake may take, 0 for no limit. That of implicit TLS
// comes before the fuse is lit, and must end all the same.
func (c *Carrier) handshakeLimit(protocol *control.Protocol) time.Duration {
	if protocol.Implicit {
		return cmp.Or(c.Settings.TimeoutConnect, c.Settings.TimeoutRemote)
	}
	return c.Settings.TimeoutConnect
}
