// Package tlsc is the TLS client of the suite: it makes a handshake over a
// connection that somebody else has opened, judges the server's certificate,
// tells what was agreed upon, and, for the programs that put TLS around another
// program, carries the tunnel.
//
//	RFC 8446, 5246   TLS 1.3, 1.2
//	RFC 4346, 2246   TLS 1.1, 1.0, for unverified connections alone
//	RFC 6066         server name indication, stapled OCSP responses
//	RFC 5280         certificates and their chains
//	RFC 6125         names of servers: subject alternative names, never the CN
//	RFC 6960         OCSP
//	RFC 7633         TLS feature extension ("must staple")
//	RFC 4514         subjects as text
//
// The verdict on a certificate is reached in this order: its chain leads to a
// trust anchor and every link is in date; it names the server; the OCSP response
// stapled to it, if there is one, is good. A connection that enforces the verdict
// (Settings.Verify) reaches it inside the handshake, so that the server is told
// with an alert. One that does not, reaches it afterwards, and reads its trust
// anchors only then: Description.Verified tells what it was.
//
// A certificate that crypto/x509 would not even parse, a short RSA key or SHA-1 in the
// handshake are no reason to go without TLS where nothing is verified: see weak.go.
package tlsc

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"
)

// Settings of a handshake. Once Load has been called, any number of handshakes
// may use the same Settings at the same time.
type Settings struct {
	ServerName       string           // name to send and to verify; an IP address (without brackets) is not sent and matches iPAddress names alone; "": none sent, none verified
	NoSNI            bool             // verify ServerName but do not send it
	SmallHello       bool             // send the smallest ClientHello that there is: see ErrNoServerHello
	Verify           bool             // enforce the verdict; speak TLS 1.2 and up and the secure suites only
	Anchors          Anchors          // where the trust anchors are
	Certificate      *Certificate     // of the client, from LoadCertificate; nil: none
	HandshakeTimeout time.Duration    // 0: none
	Now              func() time.Time // the clock that certificates are held against; nil: time.Now
	Trace            func(line string)

	anchors *index // set by Load
}

// Load reads what a handshake with these settings will need: the trust anchors,
// if the verdict is to be enforced. Client does it by itself when it has not been
// done; a caller does it before he gives up the right to read files.
// Errors are of KindSettings.
func (s *Settings) Load() error {
	if !s.Verify || s.anchors != nil {
		return nil
	}
	anchors, err := s.Anchors.read()
	if err != nil {
		return err
	}
	s.anchors = anchors
	return nil
}

// trustAnchors returns what Load has read, or reads it now.
func (s *Settings) trustAnchors() (*index, error) {
	if s.anchors != nil {
		return s.anchors, nil
	}
	return s.Anchors.read()
}

// Client makes the handshake of a TLS client over conn. When ctx ends or the time
// limit is over before the handshake is done, conn is closed; after any other
// failure it is the caller's to close, and of no further use.
//
// Errors are *Error, of KindSettings when nothing was sent, else of KindHandshake.
// errors.Is finds ErrUnrecognizedName or ErrNoServerHello in one, and the context's error.
func Client(ctx context.Context, conn net.Conn, s *Settings) (*Conn, error) {
	h := handshake{settings: s, wire: &wire{Conn: conn}}
	if s.Verify {
		anchors, err := s.trustAnchors()
		if err != nil {
			return nil, err
		}
		h.anchors = anchors
	}
	c, err := h.run(ctx)
	if err != nil {
		s.trace("tls failed: %s", err)
		return nil, err
	}
	d := c.description
	s.trace("tls %s %s name %q verified %s", d.Protocol, d.Cipher, d.SNI, d.Verified)
	return c, nil
}

func (s *Settings) trace(format string, args ...any) {
	if s.Trace != nil {
		s.Trace(fmt.Sprintf(format, args...))
	}
}

func (s *Settings) now() time.Time {
	if s.Now != nil {
		return s.Now()
	}
	return time.Now()
}

// name is ServerName without final dots or the brackets. Dots alone stay: they fit no
// certificate, where an empty name would not be looked for.
func (s *Settings) name() string {
	name := strings.TrimRight(s.ServerName, ".")
	if name == "" {
		return s.ServerName
	}
	if strings.HasPrefix(name, "[") && strings.HasSuffix(name, "]") {
		name = name[1 : len(name)-1]
	}
	return name
}

// sni is the name to send: RFC 6066 section 3 has no addresses in it.
func (s *Settings) sni() string {
	name := s.name()
	if s.NoSNI || isAddress(name) || strings.HasPrefix(name, ".") {
		return ""
	}
	return name
}

func isAddress(name string) bool {
	_, err := netip.ParseAddr(name)
	return err == nil
}

// A handshake is one, while it is being made.
type handshake struct {
	settings *Settings
	anchors  *index // nil when the verdict is not enforced
	wire     *wire

	verified string // the verdict, as Description has it
	asked    bool   // the server wanted a certificate
	gave     bool   // and got one
}

var errTimeLimit = errors.New("time limit of the handshake is over")

func (h *handshake) run(ctx context.Context) (*Conn, error) {
	if limit := h.settings.HandshakeTimeout; limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, limit, errTimeLimit)
		defer cancel()
	}
	client := tls.Client(h.wire, h.config())
	h.wire.listen()
	err := client.HandshakeContext(ctx)
	h.wire.ignore()
	if err != nil {
		return nil, h.explain(ctx, err)
	}
	state := client.ConnectionState()
	signature := judgeSignature(state, h.wire.signature.scheme, h.settings.Verify)
	if !h.settings.Verify {
		if h.verified = h.settings.unenforced(state); signature.fatal {
			h.verified = signature.String()
		}
	} else if signature.fatal {
		// crypto/tls asks for a verdict before the server has signed.
		return nil, &Error{Kind: KindHandshake, What: signature.reason}
	}
	c := &Conn{tls: client, wire: h.wire, asked: h.asked, gave: h.gave}
	c.description = describe(state, h.settings.sni(), h.verified)
	return c, nil
}

// config arranges that crypto/tls verifies nothing: the verdict is ours, because
// it has to be reached, and told, where it is not enforced too.
func (h *handshake) config() *tls.Config {
	c := &tls.Config{
		ServerName:           h.settings.sni(),
		InsecureSkipVerify:   true,
		Time:                 h.settings.Now,
		GetClientCertificate: h.clientCertificate,
		// A mail server reads no web page: whole records from the first byte.
		DynamicRecordSizingDisabled: true,
	}
	// The suites are listed in both cases: the default list depends on $GODEBUG.
	for _, suite := range tls.CipherSuites() {
		c.CipherSuites = append(c.CipherSuites, suite.ID)
	}
	if h.settings.SmallHello {
		c.CurvePreferences = smallCurves()
	}
	if h.settings.Verify {
		c.MinVersion = tls.VersionTLS12
		c.VerifyConnection = h.enforce
		return c
	}
	c.VerifyConnection = h.settings.traceCertificates
	// A bad cipher beats none, and none it would be.
	c.MinVersion = tls.VersionTLS10
	for _, suite := range tls.InsecureCipherSuites() {
		c.CipherSuites = append(c.CipherSuites, suite.ID)
	}
	return c
}

// smallCurves are the key exchanges that fit into a small ClientHello. The share of a
// post-quantum hybrid alone has some 1,200 bytes, so that a ClientHello with one is
// longer than a packet. Without, it has 320 bytes and the server's name.
func smallCurves() []tls.CurveID {
	return []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384, tls.CurveP521}
}

// clientCertificate answers the server's request for one. The authorities that the
// server names are not consulted: the administrator has said which certificate to
// show, and a server that cares will refuse it in words that can be reported.
func (h *handshake) clientCertificate(request *tls.CertificateRequestInfo) (*tls.Certificate, error) {
	h.asked = true
	if h.settings.Certificate == nil {
		return new(tls.Certificate), nil
	}
	anyone := *request
	anyone.AcceptableCAs = nil
	own := &h.settings.Certificate.pair
	if err := anyone.SupportsCertificate(own); err != nil {
		h.settings.trace("tls client certificate not sent: %s", plain(err))
		return new(tls.Certificate), nil
	}
	h.gave = true
	return own, nil
}

// enforce is the verdict as crypto/tls calls for it.
func (h *handshake) enforce(state tls.ConnectionState) error {
	_ = h.settings.traceCertificates(state)
	v := h.settings.judge(h.anchors, state)
	h.verified = v.String()
	if v.fatal {
		return &Error{Kind: KindHandshake, What: v.reason}
	}
	return nil
}

// unenforced is the verdict after the fact, as Description has it.
func (s *Settings) unenforced(state tls.ConnectionState) string {
	if s.Anchors == (Anchors{}) {
		return verdict{reason: "no trust anchors"}.String()
	}
	anchors, err := s.trustAnchors()
	if err != nil {
		return verdict{reason: err.Error()}.String()
	}
	return s.judge(anchors, state).String()
}
