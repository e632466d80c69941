package check

import (
	"time"

	"nightmare.mail/mxf/smtpc"
)

// A Result is what mxf-check has found, as values. Its fields are those of the JSON that
// mxf-check(8) describes: they are only ever added to. Texts from outside are as they came.
type Result struct {
	Version  string    `json:"version"`
	Checked  time.Time `json:"checked"`
	Host     string    `json:"host"`
	Findings []Finding `json:"findings"`
	Route    []string  `json:"route"` // the lines of control files that lead there; none: DNS decides
	Lookups  []Lookup  `json:"lookups"`
	Policy   []Policy  `json:"policy"` // what was found about TLS policies; none: there are none
	Ways     []Way     `json:"ways"`
	Dropped  []string  `json:"dropped"` // exchangers that are no candidates, and why
	Attempts []Attempt `json:"attempts"`
	Outcome  *Outcome  `json:"outcome"` // nil: nobody asked where mail would go, or it was not tried

	prospects []prospect // of each address tried, in order
	planned   bool       // it was found out where mail would go, or tried
	decider   string     // who decided on the TLS of the attempt that takes the message
	left      []Reply    // the recipients that it does not take
	now       time.Time
	clearBad  bool // TLS is on, and the message would go in the clear
}

// New returns a Result of a check of host, which may be empty. version names the program.
func New(version, host string, now time.Time) *Result {
	return &Result{
		Version: version, Checked: now.UTC().Truncate(time.Second), Host: host, now: now,
		Findings: []Finding{}, Route: []string{}, Lookups: []Lookup{}, Policy: []Policy{}, Ways: []Way{}, Dropped: []string{}, Attempts: []Attempt{},
	}
}

// A Lookup is one answer of DNS.
type Lookup struct {
	Name   string   `json:"name"`
	Type   string   `json:"type"`
	Answer []string `json:"answer"` // records in presentation format; none: the name has none of that type
	Error  string   `json:"error,omitempty"`
	Server string   `json:"server"`            // empty: none answered
	Secure *bool    `json:"secure,omitempty"`  // nil: nobody asked whether it was validated
	CutOff bool     `json:"cut_off,omitempty"` // mxf-remote would have waited longer
	MS     int64    `json:"ms"`
	Notes  []string `json:"notes,omitempty"` // the tries that failed before

	plain bool // about addresses, which stand with their way
}

// A Policy is one thing that is known about the TLS policy towards a destination.
type Policy struct {
	What string `json:"what"` // line, sts, tlsrpt, path
	Of   string `json:"of"`   // a domain, an exchanger, or a file and line
	Text string `json:"text"`
}

// A Way is one step of the plan.
type Way struct {
	Exchanger string            `json:"exchanger"` // empty for an address
	Service   string            `json:"service"`
	Port      uint16            `json:"port"`
	Addresses []string          `json:"addresses"` // in the order in which they are tried
	Silent    map[string]string `json:"silent,omitempty"`
	Why       string            `json:"why"`
	TLS       string            `json:"tls"`                // none, may, must, verify: of the first attempt
	Policy    string            `json:"policy"`             // who decided that
	Title     string            `json:"title,omitempty"`    // what was decided, as a trace calls it: dane, sts, floor may
	Records   string            `json:"records,omitempty"`  // usable TLSA records or pins, commas between
	Identity  []string          `json:"identity,omitempty"` // what is said about ourselves there, where a control file says so
	Skipped   string            `json:"skipped,omitempty"`  // why the whole way is passed over
}

// An Attempt is one attempt at one address.
type Attempt struct {
	Address      string   `json:"address"`
	Port         uint16   `json:"port"`
	Exchanger    string   `json:"exchanger"`
	Service      string   `json:"service"`
	Connected    bool     `json:"connected"`
	MS           int64    `json:"ms"`               // of the connection, or its failure
	Manner       []string `json:"manner,omitempty"` // what is different from the first attempt
	Greeting     string   `json:"greeting"`
	Extensions   []string `json:"extensions"`
	TLS          *TLS     `json:"tls,omitempty"`   // nil without a connection
	Login        string   `json:"login,omitempty"` // the place of the login that was accepted
	Recipients   []Reply  `json:"recipients,omitempty"`
	Error        string   `json:"error,omitempty"`   // why it was left, or what ended the delivery
	CutOff       bool     `json:"cut_off,omitempty"` // mxf-remote would have waited longer
	Conversation []string `json:"conversation,omitempty"`

	limits string // of what is known, for people
}

// A TLS is what is known of TLS with a server. Without a handshake that came as far as a
// certificate it has Strictness alone.
type TLS struct {
	Version    string            `json:"version"`
	Cipher     string            `json:"cipher"`
	Group      string            `json:"group"` // key exchange
	Name       string            `json:"name"`  // server name that was sent; empty: none
	Resumed    bool              `json:"resumed"`
	Chain      []Certificate     `json:"chain"`
	Staple     string            `json:"staple"` // good, what is wrong with it, or empty: there is none
	Asked      bool              `json:"asked"`  // for a client certificate
	Gave       bool              `json:"gave"`
	Verdict    string            `json:"verdict"` // yes, or no: and why
	Wrong      []Wrong           `json:"wrong"`
	Strictness map[string]string `json:"strictness"` // what would become of a message: of "0", "1" and "2"

	fault string // of the certificate, in few words
}

// A Wrong is a fault, and with what it would matter.
type Wrong struct {
	What    string   `json:"what"`
	Matters []string `json:"matters"` // 0, 1, 2, dane, sts; none: nowhere
}

// A Certificate is one of a chain.
type Certificate struct {
	Subject   string    `json:"subject"`
	Issuer    string    `json:"issuer"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	Names     []string  `json:"names"`
}

// A Reply is what was answered to a recipient.
type Reply struct {
	Recipient string `json:"recipient"`
	Status    string `json:"status"`
	Reply     string `json:"reply"`
}

// An Outcome is what would become of the message.
type Outcome struct {
	Letter  string `json:"letter"` // K, Z or D; empty: nobody knows
	Text    string `json:"text"`   // of the report, where it would end before MAIL or as -r was answered
	Address string `json:"address,omitempty"`
	TLS     string `json:"tls,omitempty"` // the line on TLS, or "in the clear"
	Age     int64  `json:"age,omitempty"` // in seconds: a younger message waits (control/clearafter)
}

// A prospect is a row of the table.
type prospect struct {
	address, connect, tls, certificate string
	at                                 [3]string
}

// MarshalText is the word.
func (l Level) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// Exit codes of mxf-check.
const (
	exitWarning = 1
	exitError   = 2
	exitBounce  = 3
)

// Exit returns the exit status: 0 all in order, 1 a warning, 2 an error or deferred, 3 it would
// bounce, for some recipient at least. What nobody knows is a warning.
func (r *Result) Exit() int {
	status := 0
	for _, f := range r.Findings {
		switch f.Level {
		case Warning:
			status = max(status, exitWarning)
		case Error:
			status = max(status, exitError)
		}
	}
	if r.Outcome == nil {
		return status
	}
	switch r.Outcome.Letter {
	case "D":
		return exitBounce
	case "Z":
		return max(status, exitError)
	case "K":
		if r.clearBad {
			status = max(status, exitWarning)
		}
		for _, one := range r.left {
			if one.Status == smtpc.Refused.String() {
				return exitBounce
			}
			status = max(status, exitError)
		}
		return status
	}
	return max(status, exitWarning)
}
