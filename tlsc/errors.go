package tlsc

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"unicode/utf8"
)

// A Kind of error, which is the exit code of the program that meets it.
type Kind int

// The kinds of errors.
const (
	KindSettings  Kind = 96 // trust anchors or a certificate that cannot be used
	KindHandshake Kind = 97 // the handshake failed, for whatever reason
	KindRunning   Kind = 98 // TLS failed, or the connection, after the handshake
)

// An Error of this package. What is for a person to read.
type Error struct {
	Kind Kind
	What string
	Err  error  // what is behind it; may be nil
	File string // the one of a client certificate that cannot be used, or its key
}

func (e *Error) Error() string { return e.What }
func (e *Error) Unwrap() error { return e.Err }

// TLSFailure returns the text, for reports of a conversation that it has ended.
func (e *Error) TLSFailure() string { return e.What }

// ExitCode is that of a program which ends for this error.
func (e *Error) ExitCode() int { return int(e.Kind) }

// What a caller may mend by another handshake, on another connection. errors.Is finds
// them in the error of Client, and Cause in its text.
var (
	// ErrUnrecognizedName: the server has no certificate for the name that it was sent
	// (RFC 6066 section 3). Without a name it may have one.
	ErrUnrecognizedName = errors.New("unrecognized name")
	// ErrNoServerHello: the handshake ended before the first byte of a ServerHello, by
	// the end of the connection, by a reset, or by silence until the limit. Something
	// on the way may have stumbled over the length of our ClientHello: see
	// Settings.SmallHello. An alert is an answer, and so is anything else that was said.
	ErrNoServerHello = errors.New("no answer to the handshake")
)

// The first words of the errors that Cause knows. No other error of this package
// begins with them, whatever a server says: what is quoted of one stands behind words
// of ours.
const (
	unknownName  = "server does not know the name "
	wantsAName   = "server wants to be sent a name: "
	nothingHeard = "no answer to the handshake"
)

// Cause returns what errors.Is would find in the error of a handshake that was made
// in another process: ErrUnrecognizedName, ErrNoServerHello, or nil. fatal is what
// mxf-tlsc or mxf-ucspitlsc says behind "fatal: ".
func Cause(fatal string) error {
	switch {
	case strings.HasPrefix(fatal, unknownName), strings.HasPrefix(fatal, wantsAName):
		return ErrUnrecognizedName
	case strings.HasPrefix(fatal, nothingHeard):
		return ErrNoServerHello
	}
	return nil
}

// saidLimit bounds what is quoted of a server that speaks something else than TLS:
// enough to know a greeting, or HTTP, by.
const saidLimit = 80

// Alerts that are told apart (RFC 8446 section 6.2).
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

// explain words the failure of a handshake for the person who has to act on it.
func (h *handshake) explain(ctx context.Context, err error) error {
	if own := new(Error); errors.As(err, &own) {
		return own
	}
	failure := &Error{Kind: KindHandshake, Err: err}
	alert, alerted := remoteAlert(err)
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
		// Which of the two it is hangs on whether the server had read our ClientHello.
		failure.What = nothingHeard + ": connection closed or reset"
		failure.Err = h.unanswered(err)
	case h.wire.ended.Load(), err == io.EOF: // the latter for close_notify
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

// answered reports whether the server sent more than what stands in front of a
// ServerHello.
func (h *handshake) answered() bool {
	first := h.wire.first
	return len(first) > recordHeader || len(first) > 0 && first[0] != handshakeRecord
}

// unanswered adds ErrNoServerHello to err, if that is the case.
func (h *handshake) unanswered(err error) error {
	if h.answered() {
		return err
	}
	return errors.Join(ErrNoServerHello, err)
}

// late words that the time limit is over. A packet filter says nothing at all, a slow
// server something.
func (h *handshake) late() string {
	ms := h.settings.HandshakeTimeout.Milliseconds()
	if h.answered() {
		return fmt.Sprintf("handshake not finished within %d ms", ms)
	}
	return fmt.Sprintf(nothingHeard+" within %d ms", ms)
}

// refusal words an alert that ended the handshake.
func (h *handshake) refusal(alert tls.AlertError) string {
	detail := alertText(alert)
	switch alert {
	case alertUnrecognizedName:
		if h.settings.sni() == "" {
			return wantsAName + detail
		}
		return fmt.Sprintf(unknownName+"%q: %s", h.settings.sni(), detail)
	case alertProtocolVersion:
		if h.settings.Verify {
			return "server speaks no version of TLS from 1.2 up, which a verified connection needs: " + detail
		}
		return "server speaks no version of TLS that we speak: " + detail
	}
	if what := certificateRefusal(alert, h.asked, h.gave); what != "" {
		return what
	}
	return "server refused the handshake: " + detail
}

// certificateRefusal words an alert that can only, or most likely, concern the
// client's certificate; it is empty for others, and when the server had not asked for
// one.
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

// remoteAlert finds the alert that the server sent. The type that crypto/tls puts
// into its errors is not exported; its text is that of tls.AlertError.
func remoteAlert(err error) (tls.AlertError, bool) {
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

// speaksNoTLS tells whether the first bytes were no record of a handshake.
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
		if h.settings.Verify {
			return fmt.Sprintf("server speaks %s only, a verified connection needs TLSv1.2 or newer", versionName(version))
		}
		return fmt.Sprintf("server speaks %s only", versionName(version))
	}
	return "handshake failed: " + plain(err)
}

// runningError words what Read and Write meet after the handshake. The end of the
// connection and deadlines are left as they are.
func (c *Conn) runningError(err error) error {
	if err == nil || err == io.EOF || isTimeout(err) || errors.Is(err, net.ErrClosed) {
		return err
	}
	if own := new(Error); errors.As(err, &own) {
		return err
	}
	failure := &Error{Kind: KindRunning, Err: err}
	alert, alerted := remoteAlert(err)
	// In TLS 1.3 the client has finished before the server looks at its certificate.
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
		failure.What = "TLS failed: " + plain(err)
	}
	return failure
}

// wantsRenegotiation finds the alert with which crypto/tls refuses and gives up.
func wantsRenegotiation(err error) bool {
	op := new(net.OpError)
	return errors.As(err, &op) && op.Op == "local error" && op.Err.Error() == tls.AlertError(alertNoRenegotiation).Error()
}

func isTimeout(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.As(err, &timeout) && timeout.Timeout()
}

// innermost is the error at the end of the chain: "connection reset by peer"
// without the addresses, which the reader knows.
func innermost(err error) error {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err
		}
		err = next
	}
}

// plain is an error's text without the prefixes of the standard library, on one
// line and of bounded length: parts of it come from the server's certificate.
func plain(err error) string {
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
