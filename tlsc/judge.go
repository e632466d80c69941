package tlsc

import (
	"crypto/x509"
	"errors"
	"time"
)

// A Judge says whose verdict on the server's certificate is enforced. The judges are
// values of this package, which can be compared and printed.
type Judge interface {
	// String names the judge, for people.
	String() string
	// enforces reports whether a connection with a bad verdict must not come about. If
	// so, the handshake offers TLS 1.2 and later and the secure cipher suites only.
	enforces() bool
	// convene reads what an enforced verdict needs, before the first byte is sent, and
	// returns what reaches the verdict. Errors are *Error of KindSettings.
	convene(c *Client, trace tracer) (func(evidence) Verdict, error)
}

type tracer = func(format string, args ...any)

// evidence is what a verdict rests on.
type evidence struct {
	presented []*x509.Certificate // what the server sent, its own certificate first
	staple    []byte              // the OCSP response that came with it; nil: none
	names     []string            // the certificate is to name one of them; none: the name does not matter
	now       time.Time
}

// A Verdict on a server's certificate. The zero Verdict is good.
type Verdict struct {
	Reason string // why the certificate is not good, for people; empty: it is good
	// Cause is what errors.Is and errors.As find where it is not the certificate's
	// fault: ErrNoAnchors, or an *AnchorsError. It is nil otherwise.
	Cause error

	fatal bool // a connection that enforces the verdict does not come about
}

// Good reports whether the certificate is good.
func (v Verdict) Good() bool { return v.Reason == "" }

// String is "yes", or "no:" and the reason.
func (v Verdict) String() string {
	if v.Good() {
		return "yes"
	}
	return "no:" + v.Reason
}

// bad is a verdict that ends the handshake where it is enforced.
func bad(reason string) Verdict { return Verdict{Reason: reason, fatal: true} }

// Nobody enforces a verdict: TLS 1.0 and later, every cipher suite and every certificate
// will do. The verdict of the trust anchors is reached after the handshake all the same.
type Nobody struct{}

func (Nobody) String() string { return "nobody" }

func (Nobody) enforces() bool { return false }

func (Nobody) convene(c *Client, trace tracer) (func(evidence) Verdict, error) {
	return func(e evidence) Verdict {
		anchors, err := c.trustAnchors(trace)
		switch {
		case errors.Is(err, ErrNoAnchors):
			return Verdict{Reason: "no trust anchors", Cause: ErrNoAnchors}
		case err != nil:
			return Verdict{Reason: err.Error(), Cause: err}
		}
		return anchors.judge(e)
	}, nil
}

// TrustAnchors enforce their verdict: the certificate leads to one of the Client's trust
// anchors, every certificate on the way is in date, it names the server, and no OCSP
// response that is stapled to it speaks against it.
type TrustAnchors struct{}

func (TrustAnchors) String() string { return "trust anchors" }

func (TrustAnchors) enforces() bool { return true }

func (TrustAnchors) convene(c *Client, trace tracer) (func(evidence) Verdict, error) {
	anchors, err := c.trustAnchors(trace)
	if err != nil {
		return nil, settings(err)
	}
	return anchors.judge, nil
}
