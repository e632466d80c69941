package report

import (
	"cmp"
	"errors"
	"strconv"
	"strings"

	"nightmare.mail/mxf/smtpc"
)

// A Case is one outcome of a delivery. The zero Case is the unforeseen one.
type Case int

// The cases, in the order in which a delivery can meet them.
const (
	Internal           Case = iota // anything unforeseen
	Usage                          // fewer than three arguments
	BadHost                        // HOST has a byte that no host has
	BadSender                      // SENDER cannot be sent in SMTP
	BadRecipientArg                // a RECIPIENT has NUL, CR or LF: nothing is connected
	ControlFiles                   // a control file is unreadable or malformed
	NoSuchHost                     // the name does not exist, or cannot be a name
	LookupFailed                   // DNS gave no answer that could be trusted
	RelayUnknown                   // the relay of a route does not exist
	RelayNoAddress                 // the relay of a route has no address
	NullMX                         // RFC 7505
	NoAddress                      // there are names but no addresses
	OnlyOurselves                  // every exchanger is this host
	SourceNotOurs                  // a source address is none of this host
	SourceUnusable                 // a source address cannot be bound for another reason
	FamilyNotUsed                  // no exchanger has an address of a family that is used
	TLSALookupFailed               // the TLSA records of a way could not be looked up
	NotInPolicy                    // the MTA-STS policy does not list the exchanger
	NoUsableTLSA                   // a line wants DANE, and there is none
	NoProtocolLeft                 // the exchanger has no protocol with the TLS that is wanted
	NoConnection                   // no exchanger could be connected to
	LineFull                       // no exchanger may have another connection from here
	TLSUnavailable                 // TLS was wanted, and failed
	TLSNotOffered                  // TLS was wanted, and the server does not offer it
	ProgramFailed                  // a protocol program did not do its job
	Unreadable                     // the message could not be read
	PartialLine                    // the message's last line has no newline
	GreetingFailed                 // the greeting was not 220
	NameRejected                   // HELO was not answered with 250
	NoLogin                        // no mechanism is offered that a login can use
	LoginRefused                   // AUTH was refused, or what was said to it is not to be trusted
	TooLarge                       // over the limit that SIZE announced
	NeedsSMTPUTF8                  // an address above ASCII and a server without SMTPUTF8
	AvoidsSMTPUTF8                 // the same, because we are not to use it
	ClearSMTPUTF8                  // the same, in clear text that follows a failure of TLS
	GroupNotUnderstood             // the server stumbled over several commands at once
	SenderRejected                 // MAIL was refused
	RecipientRejected              // RCPT was refused
	RecipientMalformed             // a recipient cannot be sent in SMTP
	AllRejected                    // no recipient was accepted
	DataRejected                   // DATA was refused
	MessageRejected                // refused after the last byte
	ConnectionDied                 // the connection was lost
	ProtocolError                  // what the server said is not the protocol
	FuseBlown                      // timeoutremote
	MessageAccepted                // 2xx after the last byte
	WouldTake                      // a probe that came to where the message would be sent
)

// byReply stands in the table where Facts.Permanent decides between the
// permanent letter of its kind and the temporary one.
const (
	messageByReply   Letter = 'm'
	recipientByReply Letter = 'c'
)

// The catalogue. {ip}, {host}, {port}, {domain}, {protocol}, {reason}, {line}, {mechanism}, {seconds}, {size}
// and {limit} stand for facts; {why} for ": " and the reason, where there is one; {dup}
// for "Possible duplicate! " when the message's last byte may have been sent.
var catalogue = [...]struct {
	letter Letter
	text   string
}{
	Internal:           {Temporary, "Internal error: {reason}. {dup}(#4.3.5)"},
	Usage:              {Permanent, "I (qmail-remote) was invoked improperly. (#5.3.5)"},
	BadHost:            {Permanent, "I cannot send to a host with a control byte in its name: {host}. (#5.1.3)"},
	BadSender:          {Permanent, "I cannot send a message with this envelope sender: {reason}. (#5.1.7)"},
	BadRecipientArg:    {Permanent, "I cannot send to a recipient with a control byte: {reason}. (#5.1.3)"},
	ControlFiles:       {Temporary, "Unable to read control files: {reason}. (#4.3.0)"},
	NoSuchHost:         {Permanent, "Sorry, I couldn't find any host named {host}. (#5.1.2)"},
	LookupFailed:       {Temporary, "Sorry, I couldn't look up {host}: {reason}. (#4.4.3)"},
	RelayUnknown:       {Temporary, "Sorry, I couldn't find any host named {host}, the relay of {reason}. (#4.4.4)"},
	RelayNoAddress:     {Temporary, "Sorry, I couldn't find an address for {host}, the relay of {reason}. (#4.4.4)"},
	NullMX:             {Permanent, "{host} does not accept mail (null MX). (#5.1.10)"},
	NoAddress:          {Permanent, "Sorry, I couldn't find a mail exchanger or IP address. (#5.4.4)"},
	OnlyOurselves:      {Permanent, "Sorry. Although I'm listed as a best-preference MX or A for that host,\nit isn't in my control/locals file, so I don't treat it as local. (#5.4.6)"},
	SourceNotOurs:      {Temporary, "Sorry, {ip} of {line} is no address of this host. (#4.3.0)"},
	SourceUnusable:     {Temporary, "Sorry, {ip} of {line} cannot be used: {reason}. (#4.3.0)"},
	FamilyNotUsed:      {Temporary, "Sorry, {line} leaves {host} without an address. (#4.4.4)"},
	TLSALookupFailed:   {Temporary, "Sorry, I couldn't look up the TLSA records of {host} port {port}: {reason}. (#4.7.5)"},
	NotInPolicy:        {Temporary, "Sorry, {host} is no mail exchanger in the MTA-STS policy of {domain}. (#4.7.5)"},
	NoUsableTLSA:       {Temporary, "Sorry, {host} has no usable TLSA records on a secure path, as {line} wants. (#4.7.5)"},
	NoProtocolLeft:     {Temporary, "Sorry, the TLS policy for {host} ({line}) leaves no protocol to speak to it. (#4.7.5)"},
	NoConnection:       {Temporary, "Sorry, I wasn't able to establish an {protocol} connection. (#4.4.1)"},
	LineFull:           {Temporary, "Sorry, {host} ({ip}) has as many connections from here as it may ({limit}), and none came free in {seconds} seconds. (#4.4.5)"},
	TLSUnavailable:     {Temporary, "Connected to {ip} but TLS could not be had: {reason}. (#4.7.5)"},
	TLSNotOffered:      {Temporary, "Connected to {ip} but TLS could not be had: STARTTLS is not offered. (#4.7.5)"},
	ProgramFailed:      {Temporary, "Unable to run the protocol program: {reason}. (#4.3.0)"},
	Unreadable:         {Temporary, "Unable to read message: {reason}. (#4.3.0)"},
	PartialLine:        {Permanent, "SMTP cannot transfer messages with partial final lines. (#5.6.2)"},
	GreetingFailed:     {Temporary, "Connected to {ip} but greeting failed."},
	NameRejected:       {Temporary, "Connected to {ip} but my name was rejected."},
	NoLogin:            {Temporary, "Connected to {ip} but it offers no login that {line} can use ({reason}). (#4.7.8)"},
	LoginRefused:       {Temporary, "Connected to {ip} but the login of {line} was refused ({mechanism}). (#4.7.8)"},
	TooLarge:           {Permanent, "{ip}: message of {size} bytes is over the limit of {limit}. (#5.3.4)"},
	NeedsSMTPUTF8:      {Permanent, "{ip} cannot take an address that is not ASCII: SMTPUTF8 is not offered. (#5.6.7)"},
	AvoidsSMTPUTF8:     {Temporary, "{ip} is not asked for SMTPUTF8, which an address that is not ASCII needs. (#4.6.7)"},
	ClearSMTPUTF8:      {Temporary, "{ip} cannot take an address that is not ASCII: SMTPUTF8 is not offered in the clear. (#4.6.7)"},
	GroupNotUnderstood: {Temporary, "Connected to {ip} but a group of commands was not understood. (#4.5.0)"},
	SenderRejected:     {messageByReply, "Connected to {ip} but sender was rejected."},
	RecipientRejected:  {recipientByReply, "{ip} does not like recipient."},
	RecipientMalformed: {Refused, "I cannot send to this recipient: {reason}. (#5.1.3)"},
	AllRejected:        {messageByReply, "Giving up on {ip}."},
	DataRejected:       {messageByReply, "{ip} failed on DATA command."},
	MessageRejected:    {messageByReply, "{ip} failed after I sent the message."},
	ConnectionDied:     {Temporary, "Connected to {ip} but connection died{why}. {dup}(#4.4.2)"},
	ProtocolError:      {Temporary, "Connected to {ip} but {reason}. {dup}(#4.5.0)"},
	FuseBlown:          {Temporary, "Connected to {ip} but the conversation took longer than {seconds} seconds. {dup}(#4.4.2)"},
	MessageAccepted:    {Delivered, "{ip} accepted message."},
	WouldTake:          {Delivered, "{ip} would take the message."},
}

// Facts fill the gaps of a case's wording. Those that a case does not mention
// are left at zero. Strings from outside need no care: New makes them harmless.
type Facts struct {
	IP        string // the peer's address, or ours, without brackets; empty reads as unknown
	Host      string // a name or an address, as it was asked for
	Port      uint16 // of TCP
	Domain    string // a policy domain
	Protocol  string // in capitals
	Reason    string // lower case, no full stop
	Line      string // of a control file: control/credentials:3; or what else decided, in a word
	Mechanism string // of a login
	Reply     string // the server's words, all lines
	Seconds   int64  // timeoutremote, or how long the line may take
	Size      int64  // of the message, bytes
	Limit     int64  // that SIZE announced, bytes; or how many connections
	Permanent bool   // the reply was 5xx (SMTP), D (QMTP)
	Duplicate bool   // the message's last byte may have been sent
	Detail    string // a further line, ours
	// Notes are what went before a temporary failure, a line each. The other
	// letters do not have them.
	Notes []string
	TLS   *TLS // the TLS that is up, nil for none
}

// letter is that of the row, or the one that f decides.
func (c Case) letter(f *Facts) Letter {
	switch letter := catalogue[c].letter; {
	case letter == messageByReply && f.Permanent:
		return Permanent
	case letter == messageByReply:
		return Temporary
	case letter == recipientByReply && f.Permanent:
		return Refused
	case letter == recipientByReply:
		return Deferred
	default:
		return letter
	}
}

// wording is the text of the row with f in its gaps.
func (c Case) wording(f *Facts) string {
	var b strings.Builder
	for text := catalogue[c].text; ; {
		before, rest, found := strings.Cut(text, "{")
		b.WriteString(before)
		name, after, closed := strings.Cut(rest, "}")
		if !found || !closed {
			b.WriteString(rest)
			return b.String()
		}
		b.WriteString(f.gap(name))
		text = after
	}
}

// gap is what stands in the gap of this name.
func (f *Facts) gap(name string) string {
	switch name {
	case "ip":
		return cmp.Or(Foreign(f.IP), "unknown")
	case "host":
		return Diagnostic(f.Host)
	case "port":
		return strconv.Itoa(int(f.Port))
	case "domain":
		return Diagnostic(f.Domain)
	case "protocol":
		return f.Protocol
	case "reason":
		return Diagnostic(f.Reason)
	case "line":
		return Diagnostic(f.Line)
	case "mechanism":
		return Diagnostic(f.Mechanism)
	case "seconds":
		return strconv.FormatInt(f.Seconds, 10)
	case "size":
		return strconv.FormatInt(f.Size, 10)
	case "limit":
		return strconv.FormatInt(f.Limit, 10)
	case "why":
		if f.Reason != "" {
			return ": " + Diagnostic(f.Reason)
		}
	case "dup":
		if f.Duplicate {
			return "Possible duplicate! "
		}
	}
	return ""
}

// New returns the report of case c: its wording, what the server said, the detail, the notes,
// and for a message report the TLS line, in this order.
func New(c Case, f Facts) Report {
	if c < 0 || int(c) >= len(catalogue) {
		c = Internal
	}
	letter, text := c.letter(&f), c.wording(&f)
	if f.Reply != "" {
		text += "\nRemote host said: " + Foreign(f.Reply)
	}
	if f.Detail != "" {
		text += "\n" + Foreign(f.Detail)
	}
	if letter == Temporary {
		for _, note := range f.Notes {
			text += "\n" + Diagnostic(note)
		}
	}
	if f.TLS != nil && letter.OfMessage() {
		text += "\n" + Foreign(f.TLS.String())
	}
	return Report{letter, text}
}

// An Error is an error that knows its report; its permanence is its letter's.
type Error struct {
	Case  Case
	Facts Facts
	Err   error // the cause, may be nil
}

// Error returns the report's text without its letter.
func (e *Error) Error() string { return New(e.Case, e.Facts).Text }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// For returns the report of err: that of the *Error in its tree, and otherwise
// Internal, which is temporary.
func For(err error) Report {
	var e *Error
	if errors.As(err, &e) {
		return New(e.Case, e.Facts)
	}
	return New(Internal, Facts{Reason: err.Error()})
}

// NoTransaction says that nothing was sent that a server could deliver, so that
// something else may be tried. Its text becomes the Z of the last attempt. What is tried
// next depends on its cause, which errors.Is finds: those of smtpc in what SMTP and QMTP
// return, and those of remote/policy as well in the router.
type NoTransaction struct {
	Reason Report
	Err    error // the cause, may be nil
}

// NewNoTransaction returns a *NoTransaction whose reason is case c. It has no TLS
// line: the TLS is down when the router makes it its own report. It is no longer than
// what is kept of a program's standard error, on which a program shows it.
func NewNoTransaction(c Case, f Facts, cause error) *NoTransaction {
	f.TLS = nil
	reason := New(c, f)
	reason.Text = Diagnostic(reason.Text)
	return &NoTransaction{Reason: reason, Err: cause}
}

func (e *NoTransaction) Error() string { return e.Reason.Text }

// Unwrap returns the cause.
func (e *NoTransaction) Unwrap() error { return e.Err }

// NoTLS reports whether TLS was what failed.
func (e *NoTransaction) NoTLS() bool {
	return errors.Is(e.Err, smtpc.ErrTLSFailed) || errors.Is(e.Err, smtpc.ErrTLSNotOffered)
}

// TLSFailure returns why TLS broke down if that is the cause of err, else nothing. Such a
// cause has a method TLSFailure, which has the words.
func TLSFailure(err error) string {
	var failed interface{ TLSFailure() string }
	if !errors.As(err, &failed) {
		return ""
	}
	return failed.TLSFailure()
}

// TLSFailureLine is the line of a report that says why TLS broke down.
func TLSFailureLine(why string) string { return "TLS failed: " + why }

// Fuse says that timeoutremote ran out.
type Fuse struct {
	Reason  Report
	Reports *Stream // complete, where a transaction had begun; nil where none had
}

// NewFuse returns a *Fuse. If nothing had begun, the router reports it, without a TLS line.
func NewFuse(f Facts, reports *Stream) *Fuse {
	if reports == nil {
		f.TLS = nil
	}
	return &Fuse{Reason: New(FuseBlown, f), Reports: reports}
}

func (e *Fuse) Error() string { return e.Reason.Text }

// Stream returns the reports of a delivery that ends with e.
func (e *Fuse) Stream() Stream {
	if e.Reports != nil {
		return *e.Reports
	}
	return Only(e.Reason)
}
