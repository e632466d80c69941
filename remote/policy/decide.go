package policy

import (
	"strings"

	"nightmare.mail/mxf/tlsc"
)

// A Way is what is known of one way to an exchanger, a protocol and a port, before anybody
// connects. It has all that decides what TLS the way must have.
type Way struct {
	Kind       Kind
	Exchanger  string   // its name, without the final dot; empty for an address
	Itself     bool     // it is HOST itself, or a relay that a route names
	Hosts      []string // HOST, and the end of its aliases; nil for an address
	Strictness int      // control/tlsstrictness
	Line       *Line    // that of control/tlspolicy which holds; nil: none
	Login      Demand   // of a login here; zero: none, or one that does without TLS

	TLSA      TLSA         // what is known of TLSA records at this way
	Records   tlsc.Records // those that are usable, where TLSA is Usable
	Base      string       // the name that they belong to, and that a certificate may have; empty where TLSA is NoRecords
	Elsewhere bool         // the exchanger has a way whose TLSA is not NoRecords
	Secure    bool         // the path: a route, or an answer that was secure, has named the exchanger

	STS    Mode   // of the policy of Domain
	Listed bool   // an mx of the policy matches the exchanger
	Domain string // the policy domain; empty where STS is NoSTS

	Waived bool // the message has the field TLS-Required: No
}

// TLSA is what is known of secure TLSA records at a way.
type TLSA int

// The states.
const (
	NoRecords TLSA = iota // there are none, or nobody asked
	Usable                // one of them at least can be used
	Unusable              // there are some, and none of them can be used
	Failed                // the lookup failed
)

// A Mode is what the MTA-STS policy of a domain wants (RFC 8461 section 5).
type Mode int

// The modes.
const (
	NoSTS Mode = iota // there is no policy
	STSNone
	STSTesting
	STSEnforce
)

// A Demand is a level, Must or Verified, on which somebody insists, and who does. The zero
// Demand is none.
type Demand struct {
	Level Level
	By    string // file and line
}

// A Line is what a line of control/tlspolicy says.
type Line struct {
	Place string // file and line
	Level LineLevel
	Floor LineLevel    // of LineAuto: LineMay, LineMust or LineVerify; empty: Strictness
	Names string       // of LineVerify, blanks between: see [tlsc.Demand]; empty: the exchanger's name
	Pins  tlsc.Records // of LinePin
}

// A LineLevel is the level of a line, as the file has it.
type LineLevel string

// The levels of lines.
const (
	LineNone   LineLevel = "none"
	LineMay    LineLevel = "may"
	LineMust   LineLevel = "must"
	LineVerify LineLevel = "verify"
	LinePin    LineLevel = "pin"
	LineDANE   LineLevel = "dane"
	LineAuto   LineLevel = "auto"
)

// Left is why a way is left, unconnected. Nothing of it is permanent.
type Left struct {
	Why Reason
	By  string // who says so: a word, or the place of a line
}

// A Reason is why a way is left.
type Reason int

// The reasons.
const (
	LeftLookup        Reason = iota // the lookup of its TLSA records failed
	LeftUnlisted                    // the exchanger is not in the MTA-STS policy
	LeftUnsatisfied                 // its line wants DANE, and there is no secure usable record on a secure path
	LeftNoProtocol                  // the protocol cannot have the TLS that is wanted, or other ways of the exchanger have TLSA records
	LeftContradiction               // its line forbids TLS, and its login wants TLS: the delivery ends here
)

func (l *Left) Error() string {
	return [...]string{
		LeftLookup:        "the lookup of its TLSA records failed",
		LeftUnlisted:      "the MTA-STS policy does not list it",
		LeftUnsatisfied:   "no secure usable TLSA record on a secure path",
		LeftNoProtocol:    "this protocol cannot be used",
		LeftContradiction: "expected another level than none, since a login here wants TLS",
	}[l.Why]
}

// Decide returns what TLS a way must have, or why it is left: by its line, if that is not
// auto, else by what the destination publishes, else by the floor.
func Decide(w *Way) (Requirement, *Left) {
	decide := w.published
	switch {
	case w.line().Level != LineAuto:
		decide = w.local
	case w.Waivable() && w.Waived:
		decide = w.waived
	}
	r, left := decide()
	if left == nil && !r.Possible(w.Kind) {
		left = &Left{LeftNoProtocol, r.spokesman()}
	}
	if left != nil {
		return Requirement{}, left
	}
	return r.On(w.Kind), nil
}

// published is the requirement of what the destination publishes, first DANE, then MTA-STS,
// and where it publishes nothing that counts the floor.
func (w *Way) published() (Requirement, *Left) {
	floor := w.floor()
	enforced := w.STS == STSEnforce
	switch {
	case w.TLSA == Failed:
		return leave(LeftLookup, WordDANE)
	case w.TLSA == NoRecords && w.Elsewhere:
		return leave(LeftNoProtocol, WordDANE) // an attacker would answer here
	case w.TLSA == Usable && w.Secure:
		return w.byTLSA(WordDANE), nil
	case enforced && !w.Listed:
		return leave(LeftUnlisted, WordSTS)
	case w.TLSA == Usable && enforced:
		return w.byTLSA(WordHalfDANESTS), nil
	case w.TLSA == Usable:
		return w.byTLSA(WordHalfDANE), nil
	case enforced:
		return verified(tlsc.TrustAnchors{}).publish(WordSTS, "the MTA-STS policy of "+w.Domain), nil
	case w.TLSA == Unusable && floor.Verifies():
		return verified(floor.Judge).publish(WordUnusable, "no usable TLSA record of "+w.Base+", and "+floor.By), nil
	case w.TLSA == Unusable:
		return insisted.publish(WordUnusable, "no usable TLSA record of "+w.Base), nil
	}
	return floor, nil
}

// Waivable reports whether a message can waive something here (RFC 8689 section 5): what the
// destination publishes decides. What the administrator says cannot be waived.
func (w *Way) Waivable() bool {
	if w.line().Level != LineAuto {
		return false
	}
	r, left := w.published()
	return left != nil || r.Published
}

func (w *Way) waived() (Requirement, *Left) {
	r := w.floor()
	r.Word, r.Title = WordWaived, WordWaived
	return r, nil
}

// local is the requirement of a line that is not auto.
func (w *Way) local() (Requirement, *Left) {
	line := w.Line
	var r Requirement
	switch line.Level {
	case LineNone:
		switch {
		case w.Login.Level > Clear:
			return leave(LeftContradiction, line.Place)
		case w.Kind == ImplicitTLS:
			return leave(LeftNoProtocol, line.Place)
		}
		r = never
	case LineMay:
		r = strictness[0]
	case LineVerify:
		r = verified(tlsc.TrustAnchors{})
		r.Word, r.Names = WordLocal, line.Names
	case LinePin:
		r = verified(tlsc.DANE{Records: line.Pins, Pins: line.Place})
		r.Word = WordPin
	case LineDANE:
		switch {
		case w.TLSA == Failed:
			return leave(LeftLookup, WordDANE)
		case w.TLSA != Usable || !w.Secure:
			return leave(LeftUnsatisfied, line.Place)
		}
		r = w.byTLSA(WordDANE)
		r.Published = false
	default: // LineMust; a word that is none is not weaker
		r = insisted
		r.Word = WordLocal
	}
	r.By, r.Title = line.Place, string(line.Level)
	return w.withLogin(r), nil
}

// floor is the requirement that holds where nothing is published.
func (w *Way) floor() Requirement {
	r := Strictness(w.Strictness)
	if line := w.line(); line.Floor != "" {
		switch line.Floor {
		case LineMay:
			r = strictness[0]
		case LineMust:
			r = insisted
		default:
			r = verified(tlsc.TrustAnchors{})
		}
		r.By, r.Title = line.Place, titleOfFloor(r.First)
	}
	return w.withLogin(r)
}

// withLogin is r raised by what a login demands.
func (w *Way) withLogin(r Requirement) Requirement {
	if w.Login.Level > Clear {
		r, _ = r.AtLeast(w.Login.Level, w.Login.By, WordLogin)
	}
	return r
}

// line is the line that holds: without one, what is published and control/tlsstrictness.
func (w *Way) line() *Line {
	if w.Line == nil {
		return &Line{Level: LineAuto}
	}
	return w.Line
}

// byTLSA is the requirement of the usable records, for one of the words of DANE.
func (w *Way) byTLSA(word string) Requirement {
	judge, by, names := tlsc.DANE{Records: w.Records}, "TLSA records of "+w.Base, w.names()
	if word == WordHalfDANESTS {
		// The policy is about the name that it lists, whatever aliases that has.
		judge.Anchors, by, names = true, by+" and the MTA-STS policy of "+w.Domain, []string{w.Exchanger}
	}
	r := verified(judge).publish(word, by)
	r.ServerName, r.Names = w.Base, w.beside(names)
	return r
}

// names are the names that the certificate may have instead of the base, where records are
// about its authority (RFC 7672 section 3.2.2).
func (w *Way) names() (names []string) {
	if w.Secure {
		names = append(names, w.Hosts...)
	}
	if w.Itself {
		names = append(names, w.Exchanger)
	}
	return names
}

// beside returns names with blanks between, each once, without the base and empty ones.
func (w *Way) beside(names []string) string {
	var kept []string
	seen := map[string]bool{"": true, strings.ToLower(w.Base): true}
	for _, name := range names {
		if key := strings.ToLower(name); !seen[key] {
			seen[key] = true
			kept = append(kept, name)
		}
	}
	return strings.Join(kept, " ")
}

// verified is TLS in every case, with a certificate on which judge agrees.
func verified(judge tlsc.Judge) Requirement {
	return Requirement{First: Verified, Rungs: insisted.Rungs, Judge: judge}
}

// publish is r where the destination has published it.
func (r Requirement) publish(word, by string) Requirement {
	r.By, r.Title, r.Word, r.Published = by, word, word, true
	return r
}

// spokesman is the word for what the destination has published, and else who decided.
func (r *Requirement) spokesman() string {
	if r.Published {
		return r.Word
	}
	return r.By
}

func leave(why Reason, by string) (Requirement, *Left) { return Requirement{}, &Left{why, by} }
