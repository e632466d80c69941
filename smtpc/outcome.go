package smtpc

import (
	"slices"
	"strconv"
	"strings"
)

// A Stage is a point of the conversation: what the server was to answer.
type Stage string

// The stages, in the order in which a conversation can come to them.
const (
	StageGreeting  Stage = "greeting"
	StageEHLO      Stage = "EHLO"
	StageHELO      Stage = "HELO"
	StageSTARTTLS  Stage = "STARTTLS"
	StageHandshake Stage = "the TLS handshake"
	StageAUTH      Stage = "AUTH"
	StageMAIL      Stage = "MAIL"
	StageRCPT      Stage = "RCPT"
	StageDATA      Stage = "DATA"
	StageMessage   Stage = "the message"
	StageRSET      Stage = "RSET"
)

// An Outcome says what became of a [Mail].
type Outcome struct {
	// Recipients has an answer for each recipient of the mail, in order.
	Recipients []Answer

	// Begun reports whether the server accepted MAIL.
	Begun bool
	// Probe reports whether nobody wanted a message sent: see [Session.Probe].
	Probe bool

	// LastByte reports whether the write that ends the message was begun. The server
	// may have the whole message then, whatever it said.
	LastByte bool

	// Reply accepted the message, where Err is nil.
	Reply Reply
	// Err is why the message was not accepted: a *RefusedError, a *BrokenError, a
	// *LoginError or *NoLoginError, an
	// error that makes this mail impossible for this server or for any (see the list of
	// errors), or the text of a mistake or of a panic. Nil: the message was accepted.
	Err error
	// After is what ended the conversation when Err was known already, for the
	// callers whose time limit it was. It does not change the outcome.
	After error
	// Notes are the refusals that came before and were not the end.
	Notes []Note
	// Securing is what became of STARTTLS when the session was opened.
	Securing Securing
}

// A Securing is what became of STARTTLS in a session.
type Securing int

// What can become of it.
const (
	NotAsked   Securing = iota // it was not to be used, or EHLO was not answered
	NotOffered                 // the server does not have it
	NotGranted                 // the server refused it
	NotSecured                 // it was begun, and EHLO was not answered inside TLS
	Secured                    // the session is inside the TLS that it began
)

var securings = [...]string{
	NotAsked: "not asked", NotOffered: "not offered", NotGranted: "refused", NotSecured: "failed", Secured: "up",
}

func (s Securing) String() string { return securings[s] }

// ParseSecuring returns the Securing of a word of String, and NotAsked for every other word.
func ParseSecuring(word string) Securing { return Securing(max(0, slices.Index(securings[:], word))) }

// An Answer is what the server said to RCPT.
type Answer struct {
	Status Status
	Reply  Reply // none for Unanswered and Malformed
	Err    error // why a malformed recipient cannot be sent

	// AfterAccepted reports whether the recipient was refused with 4xx other than 421, or with
	// 552, after another recipient was accepted: perhaps because of those before it.
	AfterAccepted bool
	// Inherited reports whether the reply is the 421 to a recipient before this one. The server
	// has said nothing of this one that counts.
	Inherited bool

	// Behind reports whether the server has said 2xx to it all the same, behind the 421 to another
	// recipient: a message that is sent then goes to it too.
	Behind bool

	// full reports whether it is Deferred only because a recipient behind it was accepted: the
	// reply, which is for good, then means perhaps that there are too many.
	full bool
}

// Permanent reports whether the recipient is refused for good.
func (a Answer) Permanent() bool { return a.Status == Refused || a.Status == Malformed }

// A Status is what the server decided about one recipient, or we.
type Status int

// The statuses.
const (
	Unanswered Status = iota // the conversation ended before
	Accepted                 // 2xx
	Deferred                 // refused for now
	Refused                  // refused for good
	Malformed                // it cannot be sent in SMTP, and was not
)

func (s Status) String() string {
	switch s {
	case Accepted:
		return "accepted"
	case Deferred:
		return "deferred"
	case Refused:
		return "refused"
	case Malformed:
		return "malformed"
	}
	return "unanswered"
}

// A Note is a refusal after which the conversation went on.
type Note struct {
	Stage Stage // EHLO, STARTTLS, or MAIL, which was refused with its parameters
	Reply Reply
}

// A Reply is what the server said to one command. The zero Reply is none.
type Reply struct {
	Code     int          // 200 to 599 (RFC 5321 section 4.2); 0: no reply
	Enhanced EnhancedCode // RFC 3463, where the reply has one
	Text     string       // all its lines with their codes, joined by newlines, without line ends
}

// String returns the reply in one line.
func (r Reply) String() string { return strconv.Quote(strings.ReplaceAll(r.Text, "\n", " / ")) }

// An EnhancedCode is a status code of RFC 3463: class (2, 4 or 5), subject and detail (0 to
// 999). The zero value is none.
type EnhancedCode [3]uint16
