// Package policy says what TLS a way to an exchanger must have, who says so, and what is
// tried in which order, as one value: a [Requirement]. It connects to nobody.
//
//	RFC 3207 section 4   STARTTLS, and going on without it
//	RFC 6066 section 3   server names
//	RFC 1869 section 4.7 HELO after EHLO
//	RFC 7672             DANE: TLSA records say how a server is verified
//	RFC 8461             MTA-STS: a policy says which exchangers there are
//	RFC 8689 section 5   TLS-Required: No
package policy

import (
	"errors"
	"slices"
	"time"

	"nightmare.mail/mxf/tlsc"
)

// A Level is how much TLS an attempt has.
type Level int

// The levels, from nothing upwards.
const (
	Clear    Level = iota // no TLS
	May                   // TLS where the server offers it
	Must                  // TLS with any certificate
	Verified              // TLS with a certificate on which a judge's verdict is enforced
)

// String returns the word that a protocol program reads in $MXF_TLS: none, may, must or
// verify.
func (l Level) String() string { return [...]string{"none", "may", "must", "verify"}[l] }

// A Manner is how a server is spoken to in one attempt.
type Manner struct {
	TLS        Level
	NoName     bool // the handshake sends no server name
	SmallHello bool // the handshake begins with the smallest ClientHello
	OneByOne   bool // one command at a time, and MAIL without parameters
	HELO       bool // HELO in place of EHLO
	TLSFailed  bool // TLS has failed here, and clear text comes after it
}

// What kept an attempt from beginning a transaction, as far as it leads to a rung;
// errors.Is finds one of these in its error, or one of package tlsc.
var (
	ErrTLS        = errors.New("TLS was begun and failed, or was refused")
	ErrNotOffered = errors.New("TLS is required and the server does not offer it")
	ErrStumbled   = errors.New("the server stumbled over several commands at once, or over an extension")
	ErrEHLOLost   = errors.New("the connection was lost before the answer to EHLO")
)

// OfTLS reports whether TLS is what failed.
func OfTLS(failure error) bool {
	return errors.Is(failure, ErrTLS) || errors.Is(failure, ErrNotOffered)
}

// A Pass is when a rung is tried.
type Pass int

// The passes.
const (
	AtOnce Pass = iota
	Second      // after each candidate has been tried
	Last        // after all else
	Passes
)

// A Change is what a rung makes of the manner before.
type Change struct {
	NoName, SmallHello, OneByOne, HELO bool

	Clear     bool // go on in the clear
	AsFailure bool // clear text that replaces TLS counts as following a failure, whatever failed
}

// of returns m changed.
func (c Change) of(m Manner) Manner {
	m.NoName = m.NoName || c.NoName
	m.SmallHello = m.SmallHello || c.SmallHello
	m.OneByOne = m.OneByOne || c.OneByOne
	m.HELO = m.HELO || c.HELO
	if c.Clear && m.TLS != Clear {
		m.TLS, m.TLSFailed = Clear, m.TLSFailed || c.AsFailure
	}
	return m
}

// A Rung is one more manner in which the same address is tried, on a new connection,
// after an attempt that began no transaction.
type Rung struct {
	Words string  // what is different, for trace and report
	In    Pass    // when it is tried
	After []error // the failures that lead here
	Do    Change
}

// isNew reports whether c changes m. Where it has a flag, that must be new: clear text alone is
// no reason to try the rest once more.
func (c Change) isNew(m Manner) bool {
	flags := c
	flags.Clear, flags.AsFailure = false, false
	if flags == (Change{}) {
		flags = c
	}
	return flags.of(m) != m
}

// leads reports whether failure leads to g from m. A rung that changes nothing leads
// nowhere.
func (g *Rung) leads(m Manner, failure error) bool {
	return g.Do.isNew(m) && slices.ContainsFunc(g.After, func(cause error) bool { return errors.Is(failure, cause) })
}

// ReplacesTLS reports whether g, after the failure of an attempt in manner m, is clear text in place
// of TLS that failed, there or in an attempt before: what control/clearafter keeps young messages
// from. A server that offers no TLS has not failed.
func (g *Rung) ReplacesTLS(m Manner, failure error) bool {
	return g.Do.Clear && (errors.Is(failure, ErrTLS) || m.TLSFailed)
}

// TooYoung reports whether a message that was last written then may not be sent in the clear in
// place of TLS that failed, because it is not after old. One from the future may.
func TooYoung(written, now time.Time, after time.Duration) bool {
	age := now.Sub(written)
	return age >= 0 && age < after
}

// A Requirement is what TLS a way must have: the level of the first attempt at an address,
// and the rungs that are tried after it, in this order.
type Requirement struct {
	By        string // who decided: "control/tlsstrictness 1", "TLSA records of mx.example.org"
	Title     string // what a trace calls it: the word, the level of a line, or "floor" and a level
	Word      string // what the line on TLS of a report says of it: one of the words; empty: nothing
	Published bool   // the destination has published it, and nobody here has said it
	First     Level
	Rungs     []Rung

	Judge      tlsc.Judge // whose verdict is enforced where First is Verified, one of package tlsc; else nil
	ServerName string     // what TLS asks for, and the first name that the certificate may have; empty: the exchanger's name
	Names      string     // see [tlsc.Demand]; blanks between; empty: none
}

// The words.
const (
	WordDANE        = "dane"
	WordHalfDANE    = "half-dane"
	WordHalfDANESTS = "half-dane+sts"
	WordUnusable    = "dane-unusable"
	WordSTS         = "sts"
	WordPin         = "pin"
	WordLocal       = "local"
	WordWaived      = "waived"
	WordLogin       = "login"
)

// AllowsClear reports whether mail may go in the clear.
func (r *Requirement) AllowsClear() bool {
	return r.First <= May || slices.ContainsFunc(r.Rungs, func(g Rung) bool { return g.Do.Clear })
}

// Verifies reports whether each certificate must be verified.
func (r *Requirement) Verifies() bool { return r.First == Verified }

// A Kind is how a protocol has TLS.
type Kind int

// The kinds.
const (
	NoTLS       Kind = iota // the protocol has none, or TLS is off
	ExplicitTLS             // on request, in the middle of the conversation
	ImplicitTLS             // from the first byte
)

// AtLeast returns r where somebody insists on level, which is Must or Verified, and whether that
// is more than r has: then By and Word are by and word, and trust anchors verify where the level
// is Verified. TLS is never replaced by clear text then, not even at last, and the server is
// always told which name it is to be. What r asks for beyond that stays.
func (r Requirement) AtLeast(level Level, by, word string) (raised Requirement, isMore bool) {
	if r.First >= level && !r.AllowsClear() {
		return r, false
	}
	rungs := make([]Rung, 0, len(r.Rungs))
	for _, g := range r.Rungs {
		if !g.Do.Clear && !g.Do.NoName {
			rungs = append(rungs, g)
		}
	}
	raised = Requirement{By: by, Word: word, First: max(r.First, level), Rungs: rungs}
	raised.Title = titleOfFloor(raised.First)
	if raised.Verifies() {
		raised.Judge = tlsc.TrustAnchors{}
	}
	return raised, true
}

// Possible reports whether r can be met by a protocol of kind k.
func (r *Requirement) Possible(k Kind) bool { return k != NoTLS || r.AllowsClear() }

// On returns r for a protocol of kind k: implicit TLS cannot be left for clear text, and
// without TLS its rungs have no meaning.
func (r Requirement) On(k Kind) Requirement {
	if k == ExplicitTLS {
		return r
	}
	rungs := make([]Rung, 0, len(r.Rungs))
	for _, g := range r.Rungs {
		g.Do.Clear, g.Do.AsFailure = false, false
		if k == NoTLS {
			g.Do.NoName, g.Do.SmallHello = false, false
		}
		if g.Do != (Change{}) {
			rungs = append(rungs, g)
		}
	}
	r.Rungs = rungs
	if r.First = max(r.First, Must); k == NoTLS {
		r.First = Clear
	}
	return r
}

// Next returns the rung after the failure of an attempt in manner m, or nil. Where the
// address could not even be connected to, only one of a later pass than now can help.
func (r *Requirement) Next(m Manner, failure error, now Pass, connected bool) *Rung {
	for i := range r.Rungs {
		if g := &r.Rungs[i]; g.leads(m, failure) && (connected || g.In > now) {
			return g
		}
	}
	return nil
}

// Take returns the manner of rung g after the failure of an attempt in manner m. Clear text
// that comes after TLS has failed is known as such, also when the server no longer offers
// TLS then.
func (r *Requirement) Take(g *Rung, m Manner, failure error) Manner {
	if r.AllowsClear() && errors.Is(failure, ErrTLS) {
		m.TLSFailed = true
	}
	return g.Do.of(m)
}
