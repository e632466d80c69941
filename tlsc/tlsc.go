// Package tlsc is a TLS client. It makes a handshake over a connection that somebody
// else has opened, reaches a verdict on the server's certificate, and says what the
// handshake agreed upon.
//
//	RFC 8446, 5246   TLS 1.3, 1.2
//	RFC 4346, 2246   TLS 1.1, 1.0, where no verdict is enforced
//	RFC 6066         server name indication, stapled OCSP responses
//	RFC 5280         certificates and their chains
//	RFC 6125         server names: subject alternative names, never the common name
//	RFC 6698         TLSA records
//	RFC 7671, 7672   how they are used, with mail
//	RFC 6960         OCSP
//	RFC 7633         TLS feature extension ("must staple")
//	RFC 4514         subjects as text
//	RFC 9266         channel binding tls-exporter
//	RFC 5077         sessions that are resumed, before TLS 1.3
//	RFC 7627         only where they have an extended master secret
//
// A [Client] is what handshakes have in common and lives long. A [Demand] is what one
// handshake wants, and names the [Judge] whose verdict is enforced.
//
// An enforced verdict is reached inside the handshake, so that an alert tells the
// server. Where nobody enforces one, the verdict of the trust anchors is reached after
// the handshake, and the anchors are read no earlier. [Facts] has the verdict in both
// cases.
//
// Clients that live long may have [Sessions], so that servers resume them. There is no
// early data.
//
// A connection that enforces nothing must not fail for a certificate that crypto/x509
// does not parse, for a short RSA key or for SHA-1 in the handshake: the alternative is
// clear text. See weak.go.
package tlsc

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"
)

// A Client is what handshakes have in common. It is made once, and any number of
// goroutines may use it at the same time. Its exported fields must not change after
// the first use.
type Client struct {
	Anchors     Anchors          // where the trust anchors are
	Certificate *Certificate     // the client's own, where a Demand has no other; nil: none
	Now         func() time.Time // the clock that certificates are held against; nil: time.Now

	// ReadOnce is for a process that makes one delivery: trust anchors that have been
	// read are never looked at again. See Load.
	ReadOnce bool

	// Sessions has those that can be resumed. nil: none are, and the ClientHello does not
	// ask for any.
	Sessions *Sessions

	trusted atomic.Pointer[reading] // nil before the trust anchors are first used
	looking gate                    // passed by the goroutine that reads or looks at their files
}

// A Demand is what one handshake wants.
type Demand struct {
	// ServerName is the name to send and to find in the certificate. An IP address,
	// without brackets or with them, is not sent and matches iPAddress names only.
	// Empty: no name is sent and none is looked for.
	ServerName string
	// Names are names that will do in place of ServerName, in the certificate: one of them
	// has to be there. ".example.org" stands for every dNSName below example.org. None:
	// ServerName has to be there. The judge DANE takes ServerName beside them.
	Names      []string
	NoSNI      bool          // look for ServerName in the certificate but do not send it
	SmallHello bool          // send the smallest ClientHello that we can: see ErrNoServerHello
	TimeLimit  time.Duration // of the whole handshake; 0: none
	Judge      Judge         // whose verdict is enforced; nil: Nobody

	// Certificate is the client's own towards this server. nil: that of the Client;
	// NoCertificate: none.
	Certificate *Certificate

	// Session says which connections may resume each other's sessions: those that have it
	// in common, and besides it, whatever it says, Judge, ServerName, Names, NoSNI,
	// Certificate and the Client's Anchors. Empty: no session is offered or kept. None is
	// with SmallHello either.
	Session string
	// Full: no session is offered. It is for the handshake after one that has failed with
	// ErrResumption, on a new connection.
	Full bool

	Trace func(line string)
	// Inspect is called with what the handshake has shown of the server, if it came as far as
	// the verdict, whatever that is. Nil: nobody wants to know.
	Inspect func(Inspection)
}

// Handshake makes the handshake over conn. When ctx ends or the time limit is over
// before the handshake is done, conn is closed. After any other failure the caller
// closes conn, which is of no further use.
//
// Errors are *Error: of KindSettings when nothing was sent, otherwise of KindHandshake.
// Their Fault says what is wrong with the server's certificate, if that is the reason.
// errors.Is finds in them ErrUnrecognizedName, ErrNoServerHello or the context's error, and
// ErrResumption, which is to be looked for first.
func (c *Client) Handshake(ctx context.Context, conn net.Conn, d *Demand) (*Conn, error) {
	judge := d.judge()
	// The wait for trust anchors that others read has a limit of its own: the server is not
	// to blame for it, and has all of its time.
	reading, cancel := d.limit(ctx)
	defer cancel()
	reach, err := judge.convene(reading, c, d.trace)
	if err != nil {
		return nil, err
	}
	h := handshake{client: c, demand: d, wire: &wire{Conn: conn}, enforced: judge.enforces(), reach: reach}
	h.prepare()
	made, err := h.run(ctx)
	if err != nil {
		err = h.resumption.failed(ctx, err)
		how := ""
		if errors.Is(err, ErrResumption) {
			how = " with a session"
		}
		d.trace("tls failed%s: %s", how, err)
		return nil, err
	}
	f, how := made.facts, ""
	if f.Resumed {
		how = "resumed "
	}
	d.trace("tls %s %s name %q %sverified %s", f.Version, f.Cipher, f.ServerName, how, f.Verdict)
	return made, nil
}

// limit returns a context that ends with the time limit too.
func (d *Demand) limit(ctx context.Context) (context.Context, context.CancelFunc) {
	if d.TimeLimit > 0 {
		return context.WithTimeoutCause(ctx, d.TimeLimit, errTimeLimit)
	}
	return context.WithCancel(ctx)
}

func (c *Client) now() time.Time {
	if c.Now != nil {
		return c.Now()
	}
	return time.Now()
}

func (d *Demand) judge() Judge {
	if d.Judge == nil {
		return Nobody{}
	}
	return d.Judge
}

func (d *Demand) trace(format string, args ...any) {
	if d.Trace != nil {
		d.Trace(fmt.Sprintf(format, args...))
	}
}

// certificate is what the server is shown when it asks. nil: nothing.
func (d *Demand) certificate(c *Client) *Certificate {
	own := cmp.Or(d.Certificate, c.Certificate)
	if own == nil || len(own.pair.Certificate) == 0 {
		return nil
	}
	return own
}

// name is ServerName without final dots or brackets. A name of dots alone stays: it
// fits no certificate, whereas an empty name would not be looked for.
func (d *Demand) name() string {
	return bare(d.ServerName)
}

func bare(given string) string {
	name := strings.TrimRight(given, ".")
	if name == "" {
		return given
	}
	if strings.HasPrefix(name, "[") && strings.HasSuffix(name, "]") {
		name = name[1 : len(name)-1]
	}
	return name
}

// sni is the name to send. RFC 6066 section 3 allows no addresses.
func (d *Demand) sni() string {
	name := d.name()
	if d.NoSNI || isAddress(name) || strings.HasPrefix(name, ".") {
		return ""
	}
	return name
}

func isAddress(name string) bool {
	_, err := netip.ParseAddr(name)
	return err == nil
}

// A handshake is one handshake while it is being made.
type handshake struct {
	client   *Client
	demand   *Demand
	wire     *wire
	enforced bool                   // a bad verdict ends the handshake
	reach    func(evidence) Verdict // the judge's

	resumption *resumption // nil: no sessions are offered or kept

	verdict Verdict
	asked   bool // the server asked for a certificate
	gave    bool // and was given one
}

var errTimeLimit = errors.New("time limit of the handshake is over")

func (h *handshake) run(ctx context.Context) (*Conn, error) {
	ctx, cancel := h.demand.limit(ctx)
	defer cancel()
	client := tls.Client(h.wire, h.config())
	h.wire.listen()
	err := client.HandshakeContext(ctx)
	h.wire.ignore()
	if err != nil {
		return nil, h.explain(ctx, err)
	}
	state := client.ConnectionState()
	if err := h.conclude(state); err != nil {
		return nil, err
	}
	return &Conn{tls: client, wire: h.wire, asked: h.asked, gave: h.gave, facts: gather(state, h.demand.sni(), h.verdict), resumption: h.resumption}, nil
}

// conclude completes the verdict after the handshake. The server's signature comes
// last, because crypto/tls calls enforce before the server has signed.
func (h *handshake) conclude(state tls.ConnectionState) error {
	if !h.enforced {
		h.verdict = h.judge(state)
	}
	h.inspect(state)
	reached, scheme := h.verdict, h.scheme(state)
	signature := judgeSignature(state, scheme, h.enforced)
	switch {
	case !signature.fatal:
	case h.enforced:
		return &Error{Kind: KindHandshake, What: signature.Reason, Fault: signature.Fault}
	default:
		h.verdict = signature
	}
	h.resumption.settle(state, reached, scheme)
	return nil
}

// config has crypto/tls verify nothing: we reach the verdict ourselves, because we need
// it where it is not enforced as well.
func (h *handshake) config() *tls.Config {
	c := &tls.Config{
		ServerName:           h.demand.sni(),
		InsecureSkipVerify:   true,
		Time:                 h.client.Now,
		GetClientCertificate: h.clientCertificate,
		VerifyConnection:     h.traceCertificates,
		// A mail server does not wait for the first bytes of a web page: every record
		// is full.
		DynamicRecordSizingDisabled: true,
	}
	if h.resumption != nil {
		c.ClientSessionCache = h.resumption
	}
	// The suites are listed in both cases, because the default list depends on $GODEBUG.
	for _, suite := range tls.CipherSuites() {
		c.CipherSuites = append(c.CipherSuites, suite.ID)
	}
	if h.demand.SmallHello {
		c.CurvePreferences = smallCurves()
	}
	if h.enforced {
		c.MinVersion = tls.VersionTLS12
		c.VerifyConnection = h.enforce
		return c
	}
	// A bad cipher is better than clear text.
	c.MinVersion = tls.VersionTLS10
	for _, suite := range tls.InsecureCipherSuites() {
		c.CipherSuites = append(c.CipherSuites, suite.ID)
	}
	return c
}

// smallCurves are the key exchanges that fit into a small ClientHello. The share of a
// post-quantum hybrid alone has about 1,200 bytes, so that a ClientHello with one does
// not fit into a packet. Without it a ClientHello has 320 bytes and the server's name.
func smallCurves() []tls.CurveID {
	return []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384, tls.CurveP521}
}

// clientCertificate answers the server's request for a certificate. It ignores the
// authorities that the server names: the administrator has said which certificate to
// show, and a server that cares refuses it in words that can be reported.
func (h *handshake) clientCertificate(request *tls.CertificateRequestInfo) (*tls.Certificate, error) {
	h.asked = true
	certificate := h.demand.certificate(h.client)
	if certificate == nil {
		return new(tls.Certificate), nil
	}
	anyone := *request
	anyone.AcceptableCAs = nil
	own := &certificate.pair
	if err := anyone.SupportsCertificate(own); err != nil {
		h.demand.trace("tls client certificate not sent: %s", brief(err))
		return new(tls.Certificate), nil
	}
	h.gave = true
	return own, nil
}

// enforce is a tls.Config.VerifyConnection: it reaches the verdict inside the handshake.
func (h *handshake) enforce(state tls.ConnectionState) error {
	_ = h.traceCertificates(state)
	h.verdict = h.judge(state)
	if h.verdict.fatal {
		h.inspect(state)
		return &Error{Kind: KindHandshake, What: h.verdict.Reason, Err: h.verdict.Cause, Fault: h.verdict.Fault, Faults: h.verdict.Faults, second: h.verdict.second}
	}
	return nil
}

// evidence is what the judge is given.
func (h *handshake) evidence(state tls.ConnectionState) evidence {
	e := evidence{presented: state.PeerCertificates, staple: state.OCSPResponse, server: h.demand.name(), now: h.client.now()}
	for _, name := range h.demand.Names {
		e.others = append(e.others, bare(name))
	}
	return e
}
