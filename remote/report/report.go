// Package report is what a delivery has to say on descriptor 1: the letters
// that qmail-rspawn reads, and every outcome that mxf can report with its
// letter, its wording and its enhanced status code.
//
//	qmail-remote(8)  letters r, h, s and K, Z, D; each report ends in a zero byte
//	RFC 3463         enhanced status codes
//
// The first sentence of each text is qmail-remote's own, because log analysers
// and bounce parsers read it. Whatever is not known to be permanent is Z.
package report

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
)

// A Letter is the first byte of a report.
type Letter byte

// The letters of qmail-remote(8): three for a recipient, three for the message.
const (
	Accepted Letter = 'r' // recipient accepted
	Refused  Letter = 'h' // recipient refused for good
	Deferred Letter = 's' // recipient refused for now

	Delivered Letter = 'K' // message accepted for every r recipient
	Temporary Letter = 'Z' // temporary failure
	Permanent Letter = 'D' // permanent failure
)

// OfRecipient reports whether l begins a recipient report.
func (l Letter) OfRecipient() bool { return l == Accepted || l == Refused || l == Deferred }

// OfMessage reports whether l begins a message report.
func (l Letter) OfMessage() bool { return l == Delivered || l == Temporary || l == Permanent }

// A Report is one letter and its text, which has no newline at its end: Bytes
// adds it.
type Report struct {
	Letter Letter
	Text   string
}

// Lost reports whether r says that a connection to ip was lost. It serves to add a line to the
// report of a program, and decides nothing else.
func (r Report) Lost(ip string) bool {
	opening, _, _ := strings.Cut(catalogue[ConnectionDied].text, "{why}")
	return strings.HasPrefix(r.Text, strings.ReplaceAll(opening, "{ip}", Foreign(ip)))
}

// NoTLS returns the reason in a report that TLS with the server at ip could not be had, or that the server
// spoke out of turn before it; "" where r is another report. Like Lost, it decides nothing.
func (r Report) NoTLS(ip string) string {
	first, _, _ := strings.Cut(r.Text, "\n")
	for _, c := range [...]Case{TLSUnavailable, ProtocolError} {
		opening, ending, _ := strings.Cut(New(c, Facts{IP: ip, Reason: "\x00"}).Text, "?")
		rest, begins := strings.CutPrefix(first, opening)
		if reason, ends := strings.CutSuffix(rest, ending); begins && ends {
			return reason
		}
	}
	return ""
}

// WouldTake reports whether r is that of a probe of ip, by a program of ours, which has sent
// nothing.
func (r Report) WouldTake(ip string) bool {
	return r.Letter == Delivered && strings.HasPrefix(r.Text, New(WouldTake, Facts{IP: ip}).Text)
}

// TLSLine returns the line on TLS that ends r, without its opening; "" if there is none.
func (r Report) TLSLine() string {
	text := strings.TrimSuffix(r.Text, "\n")
	line, found := strings.CutPrefix(text[strings.LastIndexByte(text, '\n')+1:], tlsOpening)
	if !found {
		return ""
	}
	return line
}

// With returns r with further lines of ours. They come before the line on TLS, which is the
// last one, also in the reports of a program.
func (r Report) With(lines ...string) Report {
	if len(lines) == 0 {
		return r
	}
	text, tls := strings.TrimSuffix(r.Text, "\n"), ""
	if i := strings.LastIndexByte(text, '\n'); i >= 0 && strings.HasPrefix(text[i+1:], tlsOpening) {
		text, tls = text[:i], text[i:]
	}
	for _, line := range lines {
		text += "\n" + Diagnostic(line)
	}
	r.Text = text + tls
	return r
}

// A Stream is all that one delivery reports: recipient reports in the order of
// the arguments, then one message report. There may be fewer recipient reports
// than recipients when Message is Temporary or Permanent.
type Stream struct {
	Recipients []Report
	Message    Report
}

// Only returns a stream that has no recipient reports.
func Only(r Report) Stream { return Stream{Message: r} }

// Bytes returns s as it goes to descriptor 1. A text that is not empty ends in a
// newline there: qmail-rspawn puts a recipient's text and the message's together
// as they are.
func (s Stream) Bytes() []byte {
	var b bytes.Buffer
	for _, r := range s.Recipients {
		r.appendTo(&b)
	}
	s.Message.appendTo(&b)
	return b.Bytes()
}

func (r Report) appendTo(b *bytes.Buffer) {
	b.WriteByte(byte(r.Letter))
	if r.Text != "" {
		b.WriteString(strings.ReplaceAll(r.Text, "\x00", "?"))
		b.WriteByte('\n')
	}
	b.WriteByte(0)
}

// WriteTo writes s to w in a single Write, so that a reader never finds half of it.
func (s Stream) WriteTo(w io.Writer) (int64, error) {
	n, err := w.Write(s.Bytes())
	return int64(n), err
}

// ErrIncomplete says that bytes are not, or not yet, a complete report stream.
var ErrIncomplete = errors.New("incomplete reports")

// maxQuoted bounds what an error repeats of something that is not a report, in bytes: enough
// for a shell's complaint.
const maxQuoted = 200

// A Parser reads the stream of a delivery report by report. What follows a complete stream is
// ignored.
type Parser struct {
	Recipients int // how many the delivery has; at least one

	stream   Stream
	complete bool
	err      error // the first that was wrong
}

// Add takes the next report, without its zero byte, and reports whether that was the
// last: the stream is complete, or cannot be one. What comes then is ignored.
func (p *Parser) Add(text []byte) (last bool) {
	if !p.complete && p.err == nil {
		p.err = p.add(text)
	}
	return p.complete || p.err != nil
}

func (p *Parser) add(text []byte) error {
	if len(text) == 0 {
		return errors.New("a report without a letter")
	}
	r := Report{Letter(text[0]), strings.TrimSuffix(string(text[1:]), "\n")}
	switch {
	case r.Letter.OfRecipient():
		if len(p.stream.Recipients) == p.Recipients {
			return fmt.Errorf("more recipient reports than the %d recipients", p.Recipients)
		}
		p.stream.Recipients = append(p.stream.Recipients, r)
		return nil
	case !r.Letter.OfMessage():
		return fmt.Errorf("%q is not a report", text[:min(len(text), maxQuoted)])
	case r.Letter == Delivered && p.Recipients == 1 && len(p.stream.Recipients) == 0:
		// To qmail-rspawn, which always has one recipient, K alone says as much.
		p.stream.Recipients = []Report{{Letter: Accepted}}
	case r.Letter == Delivered && len(p.stream.Recipients) < p.Recipients:
		return fmt.Errorf("%d recipient reports for %d recipients", len(p.stream.Recipients), p.Recipients)
	}
	p.stream.Message, p.complete = r, true
	return nil
}

// Stream returns the stream, or why there is none. The error is ErrIncomplete when reports are
// missing, and names the offending report when there can be no stream for so many recipients.
func (p *Parser) Stream() (Stream, error) {
	switch {
	case p.err != nil:
		return Stream{}, p.err
	case !p.complete:
		return Stream{}, ErrIncomplete
	}
	return p.stream, nil
}

const (
	// maxForeign bounds a reply that a report repeats; qmail-remote's HUGESMTPTEXT.
	maxForeign = 5000
	// maxReason bounds what a report quotes of another program's diagnostics.
	maxReason = 1000
)

// Foreign makes text from outside fit for a report: CR removed, control bytes
// other than newline shown as ?, bytes above 127 kept, no final newline, cut at
// 5,000 bytes.
func Foreign(text string) string { return harmless(text, maxForeign) }

// Diagnostic is Foreign for another program's standard error, cut at 1,000 bytes.
func Diagnostic(text string) string { return harmless(text, maxReason) }

func harmless(text string, limit int) string {
	out := make([]byte, 0, min(len(text), limit))
	for i := 0; i < len(text) && len(out) < limit; i++ {
		switch c := text[i]; {
		case c == '\r':
		case c < ' ' && c != '\n', c == 127:
			out = append(out, '?')
		default:
			out = append(out, c)
		}
	}
	return strings.TrimRight(string(out), "\n")
}
