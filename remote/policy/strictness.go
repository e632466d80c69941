package policy

import (
	"strconv"

	"nightmare.mail/mxf/tlsc"
)

// The rungs.
var (
	// smallHello is for what stands in the way of a ClientHello that takes two packets.
	smallHello = Rung{"with the smallest ClientHello", AtOnce, []error{tlsc.ErrNoServerHello}, Change{SmallHello: true}}

	// noName is for a server that has one certificate and insists on its own name.
	noName = Rung{"without a server name", AtOnce, []error{tlsc.ErrUnrecognizedName}, Change{NoName: true}}

	// oneByOne is for a server that stumbles over what qmail-remote would not have said.
	oneByOne = Rung{"one command at a time, without parameters", AtOnce, []error{ErrStumbled}, Change{OneByOne: true}}

	// clearAtOnce and clearLater are for TLS that failed or is not offered.
	clearAtOnce = Rung{"in the clear", AtOnce, []error{ErrTLS, ErrNotOffered}, Change{Clear: true}}
	clearLater  = Rung{"in the clear", Second, []error{ErrTLS, ErrNotOffered}, Change{Clear: true}}

	// withHELO is for a server that hangs up on EHLO (RFC 1869 section 4.7). Without EHLO
	// there is no STARTTLS, which the server might have offered another day.
	withHELO = Rung{"with HELO", Last, []error{ErrEHLOLost}, Change{HELO: true, Clear: true, AsFailure: true}}
)

// strictness are the requirements of control/tlsstrictness 0, 1 and 2.
var strictness = [...]Requirement{
	{First: May, Rungs: []Rung{smallHello, noName, oneByOne, clearAtOnce, withHELO}},
	{First: Must, Rungs: []Rung{smallHello, noName, oneByOne, clearLater, withHELO}},
	{First: Verified, Rungs: []Rung{smallHello, oneByOne}, Judge: tlsc.TrustAnchors{}},
}

// insisted is TLS in every case. Without a server name it is not tried: who insists on TLS
// does not take that of another host.
var insisted = Requirement{First: Must, Rungs: []Rung{smallHello, oneByOne}}

// never is clear text, by an administrator who says so.
var never = Requirement{First: Clear, Rungs: []Rung{oneByOne, withHELO}}

// Strictness returns the requirement of control/tlsstrictness n, from 0 to 2. Every other
// number has that of 2.
func Strictness(n int) Requirement {
	if n < 0 || n >= len(strictness) {
		n = len(strictness) - 1
	}
	r := strictness[n]
	r.By = "control/tlsstrictness " + strconv.Itoa(n)
	r.Title = titleOfFloor(r.First)
	return r
}

// titleOfFloor is the Title of what holds where nothing more is said.
func titleOfFloor(l Level) string { return "floor " + l.String() }
