package tlsc

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// DANE enforces the verdict of TLSA records (RFC 7672, RFC 7671), or of pins, which have
// the same form. One record that matches is enough.
//
//   - Usage 3: it is about the server's certificate. Names, dates, issuer and purpose of
//     that do not matter.
//   - Usage 2: it is about a certificate that the server has sent above its own, or is a
//     whole certificate (2 0 0), which need not be sent. The server's certificate leads to
//     that one, every certificate on the way is in date and allowed to be where it is, and
//     a dNSName of it is the ServerName of the Demand or one of its Names.
//
// Other records are not usable, and without usable ones the handshake fails before the
// first byte, with an error of KindSettings. A stapled OCSP response is not looked at.
type DANE struct {
	Records Records
	// Pins says, for people, where the records are configured if they are pins:
	// "control/tlspolicy:3". Empty: they come from DNS.
	Pins string
	// Anchors demands a good verdict of the trust anchors as well: see TrustAnchors.
	Anchors bool
}

func (d DANE) String() string {
	who := fmt.Sprintf("%d TLSA records", len(d.Records.List()))
	if d.Pins != "" {
		who = "the pins of " + d.Pins
	}
	if d.Anchors {
		who += " and trust anchors"
	}
	return who
}

func (DANE) enforces() bool { return true }

// errNoneUsable is a fault of ours: who looks the records up does not enforce those that
// cannot be used.
var errNoneUsable = errors.New("none of the TLSA records can be used")

func (d DANE) convene(ctx context.Context, c *Client, trace tracer) (func(evidence) Verdict, error) {
	records := decisive(d.Records.List())
	if len(records) == 0 {
		return nil, settings(errNoneUsable)
	}
	if !d.Anchors {
		return func(e evidence) Verdict { return d.judge(records, e) }, nil
	}
	anchors, err := c.trustAnchors(ctx, trace)
	if err != nil {
		return nil, settings(err)
	}
	return func(e evidence) Verdict { return both(d.judge(records, e), anchors.judge(e)) }, nil
}

// both is the verdict of two: the first one's reason, if it has one.
func both(records, anchors Verdict) Verdict {
	faults := Faults{Records: records.Fault, Anchors: anchors.Fault}
	if records.Good() {
		records = anchors
	} else {
		records.second = anchors.Reason
	}
	records.Faults = faults
	return records
}

// judge reaches the verdict of the records that decide.
func (d DANE) judge(records []TLSA, e evidence) Verdict {
	v := d.look(records, e)
	v.Faults = Faults{Records: v.Fault}
	return v
}

func (d DANE) look(records []TLSA, e evidence) Verdict {
	if len(e.presented) == 0 {
		return bad(FaultMissing, noCertificate)
	}
	leaf := e.presented[0]
	about := func(r TLSA) bool { return r.Usage == usageEE && r.matches(leaf) }
	if slices.ContainsFunc(records, about) {
		// The digest says whose the key is. A key that others can compute proves nothing.
		if reason := badKey(leaf, leaf); reason != "" {
			return bad(FaultWeak, recordMatches+reason)
		}
		return Verdict{}
	}
	authorities := matched(records, e)
	if len(authorities.entries) == 0 {
		return bad(FaultNoMatch, d.NoMatch(e.server))
	}
	_, v := authorities.chains(e)
	if v.Good() {
		v = e.judgeName(true)
	}
	switch v.Fault {
	case NoFault:
		return Verdict{}
	case FaultIssuer, FaultSelfSigned:
		// The authority that matches has nothing to do with the server's certificate.
		return bad(FaultNoMatch, d.NoMatch(e.server))
	}
	return bad(v.Fault, recordMatches+v.Reason)
}

// matched returns the authorities that records of usage 2 are about, as trust anchors. The
// server's own certificate is never one of them: it is no authority over itself (RFC 7671
// section 5.2.2), however often the server sends it.
func matched(records []TLSA, e evidence) *index {
	found := newIndex("the TLSA records")
	leaf := e.presented[0]
	add := func(der []byte) {
		if subject, ok := subjectOf(der); ok && string(der) != string(leaf.Raw) {
			found.insert(entry{subject: subject, body: der})
		}
	}
	for _, r := range records {
		if r.Usage != usageTA {
			continue
		}
		if r.Selector == selectorCert && r.Matching == matchingFull {
			add(r.Data)
			continue
		}
		for _, c := range e.presented[1:] {
			if r.matches(c) {
				add(c.Raw)
			}
		}
	}
	return found
}

// NoMatch is the reason of a verdict with FaultNoMatch. server is the ServerName of the
// Demand; it may be empty.
func (d DANE) NoMatch(server string) string {
	switch {
	case d.Pins != "":
		return noneMatches + "the pins of " + d.Pins
	case server == "":
		server = "the server"
	}
	return fmt.Sprintf(noneMatches+"the usable TLSA records of %s (%d)", server, len(d.Records.Usable().List()))
}
