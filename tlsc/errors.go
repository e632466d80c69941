package tlsc

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"unicode/utf8"
)

// A Kind of error says when TLS failed.
type Kind int

// The kinds of errors.
const (
	KindSettings  Kind = iota + 1 // before anything was sent: trust anchors or a client certificate cannot be used
	KindHandshake                 // in the handshake, for whatever reason
	KindRunning                   // after the handshake: TLS failed, or the connection
)

// An Error of this package.
type Error struct {
	Kind  Kind
	What  string // for people
	Err   error  // the cause; may be nil
	File  string // of a client certificate or key that cannot be used: which of the two files
	Fault Fault  // of the server's certificate, where the verdict has ended the handshake
	// Faults says who has found which fault of the certificate. It is zero where the fault is
	// the server's signature.
	Faults Faults
	Alert  uint8 // the alert by which the server ended the connection (RFC 8446 section 6); 0: none
	// Offered: a session was offered in the handshake. See ErrResumption.
	Offered bool

	second string // the reason of the second judge, where both have found a fault
}

// besides stands between the reasons of two judges.
const besides = "; besides, "

// Fatal is what a TLS client says behind "fatal: ", for FaultsOf. It is the text, and behind it
// the reason of a second judge.
func (e *Error) Fatal() string {
	if e.second == "" {
		return e.What
	}
	return e.What + besides + e.second
}

func (e *Error) Error() string { return e.What }
func (e *Error) Unwrap() error { return e.Err }

// Is finds ErrResumption.
func (e *Error) Is(target error) bool { return target == ErrResumption && e.Offered }

// TLSFailure is the text, for the report on a conversation that the error has ended.
func (e *Error) TLSFailure() string { return e.What }

// settings is the error for settings that err says cannot be used. It is nil for nil.
func settings(err error) error {
	if err == nil {
		return nil
	}
	return &Error{Kind: KindSettings, What: err.Error(), Err: err}
}

// Causes that a caller can avoid in another handshake, on another connection. errors.Is
// finds them in the error of Handshake, and Cause finds them in its text.
var (
	// ErrUnrecognizedName: the server has no certificate for the name that it was sent
	// (RFC 6066 section 3). It may have one if it is sent no name.
	ErrUnrecognizedName = errors.New("unrecognized name")
	// ErrNoServerHello: the handshake ended before the first byte of a ServerHello, by
	// the end of the connection, by a reset, or by silence until the time limit.
	// Something on the way may have stumbled over the length of our ClientHello: see
	// Demand.SmallHello. An alert is an answer, and so is everything else that the
	// server says.
	ErrNoServerHello = errors.New("no answer to the handshake")
)

// The first words of the errors that Cause knows. No other error of this package begins
// with them, whatever a server says, because every quotation stands behind words of ours.
const (
	unknownName  = "server does not know the name "
	wantsAName   = "server wants to be sent a name: "
	nothingHeard = "no answer to the handshake"
)

// Cause returns what errors.Is would find in the error of a handshake that our own client
// made in another process: ErrUnrecognizedName, ErrNoServerHello, or nil. fatal is what
// mxf-tlsc or mxf-ucspitlsc says behind "fatal: ".
//
// Here, and in FaultsOf, words decide something, and nowhere else. A process that ends has nothing
// but its exit code and its last line to say why, the exit codes are those of s6-tlsc,
// and both ends of the line are this file.
func Cause(fatal string) error {
	switch {
	case strings.HasPrefix(fatal, unknownName), strings.HasPrefix(fatal, wantsAName):
		return ErrUnrecognizedName
	case strings.HasPrefix(fatal, nothingHeard):
		return ErrNoServerHello
	}
	return nil
}

// The first words of reasons that FaultsOf knows, besides those of faultWords.
const (
	noneMatches   = "certificate matches none of "
	recordMatches = "a TLSA record matches, but "
)

// FaultsOf returns the Faults of a handshake that our own client made in another process and
// that failed. fatal is as in Cause. It knows the faults that reports on TLS tell apart (RFC
// 8460 section 4.3): FaultNoMatch, FaultName, FaultIssuer, FaultSelfSigned, FaultDate, and
// FaultMissing and FaultStaple. All others of a certificate are FaultOther. What is not about a certificate has none.
func FaultsOf(fatal string) Faults {
	what, second := CutSecond(fatal)
	if strings.HasPrefix(what, noneMatches) {
		return Faults{Records: FaultNoMatch, Anchors: faultOf(second)}
	}
	if reason, found := strings.CutPrefix(what, recordMatches); found {
		return Faults{Records: faultOf(reason), Anchors: faultOf(second)}
	}
	return Faults{Anchors: faultOf(fatal)}
}

// CutSecond parts what a TLS client says behind "fatal: " into the text of its Error and the
// reason of the second judge, if there is one.
func CutSecond(fatal string) (what, second string) {
	if !strings.HasPrefix(fatal, noneMatches) && !strings.HasPrefix(fatal, recordMatches) {
		return fatal, "" // there is no first judge
	}
	if i := strings.LastIndex(fatal, besides); i >= 0 {
		return fatal[:i], fatal[i+len(besides):]
	}
	return fatal, ""
}

// faultWords begin the reasons of verdicts behind the words that say whose certificate it is.
var faultWords = []struct {
	words string
	fault Fault
}{
	{" is for \"", FaultName},
	{" names no host, ", FaultName},
	{" names \"", FaultName}, // in its common name only
	{" is signed by an authority ", FaultIssuer},
	{" is self-signed, ", FaultSelfSigned},
	{" expired on ", FaultDate},
	{" is not valid before ", FaultDate},
}

func faultOf(reason string) Fault {
	rest, found := strings.CutPrefix(reason, "certificate")
	switch {
	case found:
	case reason == noCertificate:
		return FaultMissing
	case strings.HasPrefix(reason, badStaple):
		return FaultStaple
	default:
		return NoFault
	}
	if authority, found := strings.CutPrefix(rest, " of the authority "); found {
		quoted, err := strconv.QuotedPrefix(authority)
		if err != nil {
			return FaultOther
		}
		rest = authority[len(quoted):]
	}
	for _, f := range faultWords {
		if strings.HasPrefix(rest, f.words) {
			return f.fault
		}
	}
	return FaultOther
}

// saidLimit bounds what is quoted of a server that does not speak TLS: enough to
// recognize a greeting, or HTTP.
const saidLimit = 80

// Alerts that have words of their own (RFC 8446 section 6.2).
const (
	alertHandshakeFailure    = 40
	alertBadCertificate      = 42
	alertUnsupportedCert     = 43
	alertCertificateRevoked  = 44
	alertCertificateExpired  = 45
	alertCertificateUnknown  = 46
	alertUnknownCA           = 48
	alertAccessDenied        = 49
	alertProtocolVersion     = 70
	alertNoRenegotiation     = 100
	alertUnrecognizedName    = 112
	alertCertificateRequired = 116
)

// explain puts the failure of a handshake into words for the person who has to act on it.
func (h *handshake) explain(ctx context.Context, err error) error {
	if own := new(Error); errors.As(err, &own) {
		return own
	}
	failure := &Error{Kind: KindHandshake, Err: err}
	alert, alerted := remoteAlert(err)
	failure.Alert = uint8(alert)
	switch {
	case errors.Is(context.Cause(ctx), errTimeLimit):
		failure.What = h.late()
		failure.Err = h.unanswered(context.DeadlineExceeded)
	case ctx.Err() != nil:
		failure.What = "handshake given up: " + context.Cause(ctx).Error()
		failure.Err = context.Cause(ctx)
	case isTimeout(err):
		failure.What = "handshake not finished in time"
		if !h.answered() {
			failure.What = nothingHeard + " in time"
		}
		failure.Err = h.unanswered(err)
	case alerted:
		failure.What = h.refusal(alert)
		if alert == alertUnrecognizedName {
			failure.Err = ErrUnrecognizedName
		}
	case (h.wire.ended.Load() || h.wire.broken.Load()) && !h.answered():
		// Which of the two it is depends on whether the server had read our ClientHello.
		failure.What = nothingHeard + ": connection closed or reset"
		failure.Err = h.unanswered(err)
	case h.wire.ended.Load(), err == io.EOF: // io.EOF: close_notify
		failure.What = "connection closed during the handshake"
	case h.wire.broken.Load():
		failure.What = "connection lost during the handshake: " + innermost(err).Error()
	case h.speaksNoTLS(err):
		failure.What = fmt.Sprintf("server does not speak TLS, it says %q", h.said())
	default:
		failure.What = h.protocolError(err)
	}
	return failure
}

// answered reports whether the server sent more than the bytes in front of a ServerHello.
func (h *handshake) answered() bool {
	first := h.wire.first
	return len(first) > recordHeader || len(first) > 0 && first[0] != handshakeRecord
}

// unanswered adds ErrNoServerHello to err if the server did not answer.
func (h *handshake) unanswered(err error) error {
	if h.answered() {
		return err
	}
	return errors.Join(ErrNoServerHello, err)
}

// late puts into words that the time limit is over. A packet filter says nothing at all;
// a slow server says something.
func (h *handshake) late() string {
	ms := h.demand.TimeLimit.Milliseconds()
	if h.answered() {
		return fmt.Sprintf("handshake not finished within %d ms", ms)
	}
	return fmt.Sprintf(nothingHeard+" within %d ms", ms)
}

// refusal puts into words an alert that ended the handshake.
func (h *handshake) refusal(alert tls.AlertError) string {
	detail := alertText(alert)
	switch alert {
	case alertUnrecognizedName:
		if h.demand.sni() == "" {
			return wantsAName + detail
		}
		return fmt.Sprintf(unknownName+"%q: %s", h.demand.sni(), detail)
	case alertProtocolVersion:
		if h.enforced {
			return "server speaks no version of TLS from 1.2 up, which a verified connection needs: " + detail
		}
		return "server speaks no version of TLS that we speak: " + detail
	}
	if what := certificateRefusal(alert, h.asked, h.gave); what != "" {
		return what
	}
	return "server refused the handshake: " + detail
}

// certificateRefusal puts into words an alert that concerns the client's certificate, or
// most likely does. It returns "" for other alerts, and if the server had not asked for a
// certificate.
func certificateRefusal(alert tls.AlertError, asked, gave bool) string {
	switch alert {
	case alertHandshakeFailure, alertBadCertificate, alertUnsupportedCert, alertCertificateRevoked,
		alertCertificateExpired, alertCertificateUnknown, alertUnknownCA, alertAccessDenied, alertCertificateRequired:
	default:
		return ""
	}
	switch {
	case !asked:
		return ""
	case gave:
		return "server does not accept our client certificate: " + alertText(alert)
	}
	return "server demands a client certificate: " + alertText(alert)
}

func alertText(alert tls.AlertError) string {
	return fmt.Sprintf("%s (alert %d)", strings.TrimPrefix(alert.Error(), "tls: "), uint8(alert))
}

// remoteAlert finds the alert that the server sent. crypto/tls does not export the type
// of this error, so its text is compared with that of every tls.AlertError.
func remoteAlert(err error) (alert tls.AlertError, alerted bool) {
	op := new(net.OpError)
	if !errors.As(err, &op) || op.Op != "remote error" {
		return 0, false
	}
	text := op.Err.Error()
	for code := range 256 {
		if alert := tls.AlertError(code); alert.Error() == text {
			return alert, true
		}
	}
	return 0, false
}

// speaksNoTLS reports whether the server's first bytes were not a record of TLS.
func (h *handshake) speaksNoTLS(err error) bool {
	const firstType, lastType = 20, 23 // change_cipher_spec to application_data
	header := tls.RecordHeaderError{}
	if !errors.As(err, &header) || len(h.wire.first) == 0 {
		return false
	}
	kind := h.wire.first[0]
	return header.Conn != nil || kind < firstType || kind > lastType
}

// said is the first line of what the server said.
func (h *handshake) said() string {
	line, _, _ := bytes.Cut(h.wire.first, []byte("\n"))
	return string(bytes.TrimSuffix(line, []byte("\r")))
}

func (h *handshake) protocolError(err error) string {
	var version uint16
	if _, scanErr := fmt.Sscanf(err.Error(), "tls: server selected unsupported protocol version %x", &version); scanErr == nil {
		if h.enforced {
			return fmt.Sprintf("server speaks %s only, a verified connection needs TLSv1.2 or newer", versionName(version))
		}
		return fmt.Sprintf("server speaks %s only", versionName(version))
	}
	return "handshake failed: " + brief(err)
}

// runningError puts into words what Read and Write meet after the handshake. It leaves
// the end of the connection and deadlines as they are.
func (c *Conn) runningError(err error) error {
	if err == nil || err == io.EOF || isTimeout(err) || isClosed(err) {
		return err
	}
	if own := new(Error); errors.As(err, &own) {
		return err
	}
	failure := &Error{Kind: KindRunning, Err: err}
	alert, alerted := remoteAlert(err)
	failure.Alert = uint8(alert)
	// In TLS 1.3 the client is done before the server looks at its certificate.
	if alerted && !c.heard.Load() {
		failure.What = certificateRefusal(alert, c.asked, c.gave)
	}
	switch {
	case failure.What != "":
	case alerted:
		failure.What = "server ended the connection: " + alertText(alert)
	case errors.Is(err, io.ErrUnexpectedEOF):
		failure.What = "connection closed in the middle of a record"
	case c.wire.broken.Load():
		failure.What = "connection lost: " + innermost(err).Error()
	case wantsRenegotiation(err):
		failure.What = "server asks for another handshake inside the connection (renegotiation), which is not done"
	default:
		failure.What = "TLS failed: " + brief(err)
	}
	return failure
}

// wantsRenegotiation reports whether crypto/tls has refused to renegotiate: it sends an
// alert and gives up.
func wantsRenegotiation(err error) bool {
	op := new(net.OpError)
	return errors.As(err, &op) && op.Op == "local error" && op.Err.Error() == tls.AlertError(alertNoRenegotiation).Error()
}

func isClosed(err error) bool { return errors.Is(err, net.ErrClosed) }

func isTimeout(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.As(err, &timeout) && timeout.Timeout()
}

// innermost is the error at the end of the chain: "connection reset by peer" without the
// addresses, which the reader knows.
func innermost(err error) error {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err
		}
		err = next
	}
}

// brief is an error's text without the prefixes of the standard library, on one line and
// of bounded length, because parts of it come from the server's certificate.
func brief(err error) string {
	const limit = 300
	text := err.Error()
	for {
		before := text
		for _, prefix := range []string{"local error: ", "remote error: ", "tls: ", "x509: ", "crypto/"} {
			text = strings.TrimPrefix(text, prefix)
		}
		if text == before {
			break
		}
	}
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == utf8.RuneError {
			return '?'
		}
		return r
	}, text)
	return cut(text, limit)
}

// cut bounds s to limit bytes without cutting a character in two.
func cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit] + "..."
}
