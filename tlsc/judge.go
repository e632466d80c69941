package tlsc

import (
	"context"
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
	// returns what reaches the verdict. Neither waits for others longer than ctx lasts.
	// Errors are *Error of KindSettings.
	convene(ctx context.Context, c *Client, trace tracer) (func(evidence) Verdict, error)
}

type tracer = func(format string, args ...any)

// evidence is what a verdict rests on.
type evidence struct {
	presented []*x509.Certificate // what the server sent, its own certificate first
	staple    []byte              // the OCSP response that came with it; nil: none
	server    string              // the server's name; empty: it does not matter
	others    []string            // names that will do in its place: see Demand.Names
	now       time.Time
}

// A Fault is what is wrong with a server's certificate.
type Fault int

// The faults.
const (
	NoFault         Fault = iota // the certificate is good
	FaultOurs                    // nothing could be verified, and that is not the certificate's fault: see Verdict.Cause
	FaultMissing                 // the server sent no certificate
	FaultName                    // the certificate does not name the server
	FaultIssuer                  // no chain leads to a trust anchor
	FaultSelfSigned              // the same, and nobody else has signed the certificate
	FaultDate                    // it, or an authority's, has expired or is not valid yet
	FaultRevoked                 // its authority has revoked it
	FaultNoStaple                // it must have an OCSP response stapled to it, and has none
	FaultStaple                  // the OCSP response that is stapled to it is not good
	FaultWeak                    // a key, a signature or a number of it proves nothing
	FaultUse                     // it, or an authority's, is used for what it may not be used for
	FaultNoMatch                 // none of the TLSA records or pins matches it
	FaultOther                   // the rest
)

// faults has the words of each.
var faults = [...]string{
	NoFault: "none", FaultOurs: "not verified", FaultMissing: "no certificate", FaultName: "wrong name",
	FaultIssuer: "untrusted issuer", FaultSelfSigned: "self-signed", FaultDate: "out of date", FaultRevoked: "revoked",
	FaultNoStaple: "no staple", FaultStaple: "bad staple", FaultWeak: "weak", FaultUse: "wrong use",
	FaultNoMatch: "no match", FaultOther: "not acceptable",
}

func (f Fault) String() string { return faults[f] }

// A Verdict on a server's certificate. The zero Verdict is good.
type Verdict struct {
	Fault  Fault
	Reason string // the fault in words, for people; empty: the certificate is good
	// Cause is what errors.Is and errors.As find where it is not the certificate's
	// fault: ErrNoAnchors, or an *AnchorsError. It is nil otherwise.
	Cause error
	// Faults says who has found what. It is zero where nobody's verdict, but the server's
	// signature, is bad.
	Faults Faults

	fatal  bool   // a connection that enforces the verdict does not come about
	second string // the reason of a second judge, where Reason is that of the first
}

// Faults are the faults that each of two judges has found. NoFault: none, or he was not
// asked.
type Faults struct {
	Records Fault // found by TLSA records or pins
	Anchors Fault // found by trust anchors
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
func bad(fault Fault, reason string) Verdict {
	return Verdict{Fault: fault, Reason: reason, fatal: true}
}

// Nobody enforces a verdict: TLS 1.0 and later, every cipher suite and every certificate
// will do. The verdict of the trust anchors is reached after the handshake all the same.
type Nobody struct{}

func (Nobody) String() string { return "nobody" }

func (Nobody) enforces() bool { return false }

func (Nobody) convene(ctx context.Context, c *Client, trace tracer) (func(evidence) Verdict, error) {
	return func(e evidence) Verdict {
		anchors, err := c.trustAnchors(ctx, trace)
		switch {
		case errors.Is(err, ErrNoAnchors):
			return Verdict{Fault: FaultOurs, Reason: "no trust anchors", Cause: ErrNoAnchors, Faults: Faults{Anchors: FaultOurs}}
		case err != nil:
			return Verdict{Fault: FaultOurs, Reason: err.Error(), Cause: err, Faults: Faults{Anchors: FaultOurs}}
		}
		return anchors.judge(e)
	}, nil
}

// TrustAnchors enforce their verdict: the certificate leads to one of the Client's trust
// anchors, every certificate on the way is in date, it names the server (by the
// ServerName of the Demand or, if that has Names, by one of them instead), and no OCSP
// response that is stapled to it speaks against it.
type TrustAnchors struct{}

func (TrustAnchors) String() string { return "trust anchors" }

func (TrustAnchors) enforces() bool { return true }

func (TrustAnchors) convene(ctx context.Context, c *Client, trace tracer) (func(evidence) Verdict, error) {
	anchors, err := c.trustAnchors(ctx, trace)
	if err != nil {
		return nil, settings(err)
	}
	return anchors.judge, nil
}
