package route

import (
	"fmt"
	"strings"
)

// A Kind says why there is no candidate.
type Kind int

// The kinds of errors. Only what the DNS, or the host itself, says for good is permanent:
// our own affairs are no reason to bounce the mail of others.
const (
	BadHost        Kind = iota + 1 // the host has a byte that no host has
	NoSuchHost                     // the name does not exist, or cannot be a name
	LookupFailed                   // DNS gave no answer that could be trusted
	RelayUnknown                   // the relay of a route does not exist
	RelayNoAddress                 // the relay of a route has no address
	NullMX                         // the host takes no mail (RFC 7505)
	NoAddress                      // there are names but no addresses
	OnlyOurselves                  // every exchanger is this host
	ControlFiles                   // it follows from our control files, or they cannot be read
)

// kinds has the words of each kind, and whether it is permanent.
var kinds = [...]struct {
	words     string
	permanent bool
}{
	BadHost:        {"control byte in the host", true},
	NoSuchHost:     {"no such host", true},
	LookupFailed:   {"lookup failed", false},
	RelayUnknown:   {"relay does not exist", false},
	RelayNoAddress: {"relay has no address", false},
	NullMX:         {"null MX", true},
	NoAddress:      {"no address", true},
	OnlyOurselves:  {"only ourselves", true},
	ControlFiles:   {"control files", false},
}

func (k Kind) String() string { return kinds[k].words }

// An Error says why there is no candidate for a host.
type Error struct {
	Kind   Kind
	Host   string // HOST as it was given, or the relay, or the name that could not be looked up
	Relay  string // the file and line of the relay that it is about, else empty
	Reason string // of LookupFailed and ControlFiles: what is wrong
	Err    error  // the cause, may be nil
}

// Error returns the kind and what is known beside it.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Kind.String())
	if e.Host != "" {
		fmt.Fprintf(&b, ": %q", e.Host)
	}
	for _, more := range []string{e.Relay, e.Reason} {
		if more != "" {
			b.WriteString(": " + more)
		}
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Permanent reports whether the mail is to be bounced.
func (e *Error) Permanent() bool { return kinds[e.Kind].permanent }

// controlFiles is the error for what follows from our control files.
func controlFiles(format string, args ...any) *Error {
	return &Error{Kind: ControlFiles, Reason: fmt.Sprintf(format, args...)}
}
