package main

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"nightmare.mail/mxf/integration/lab"
)

const (
	// What is shown of a message: enough for any that is tried by hand.
	maxLines     = 60
	maxLineRunes = 120
)

func (t *trial) introduce(w io.Writer) {
	what := "the sample"
	if t.name != "" {
		what = fmt.Sprintf("%q", t.name)
	}
	fmt.Fprintf(w, `Servers of our own are running on loopback: DNS %s,
SMTP with STARTTLS port %d, QMTPS port %d, QMTP port %d.
The message is %s, %d bytes.
`, t.lab.DNS.Addr(), t.lab.Port("smtp"), t.lab.Port("qmtps"), t.lab.Port("qmtp"), what, len(t.message))
}

// show tells of one round.
func (t *trial) show(w io.Writer, n int, r round, res result, ok bool) {
	fmt.Fprintf(w, "\n%d. %s\n", n, r.title)
	row(w, "run", fmt.Sprintf("mxf-remote %s %s %s@%s", r.host, sender, localPart, r.host),
		"control/tlsstrictness "+r.strictness)
	row(w, "looked up", lookups(res.queries)...)
	row(w, "exchanger", exchanger(res))
	row(w, "TLS", encryption(res)...)
	row(w, "report", reports(res.Raw)...)
	row(w, "verdict", fmt.Sprintf("%c, exit status %d, after %d ms", res.Letter, res.Exit, res.Elapsed.Milliseconds()))
	if t.verbose || !ok {
		row(w, "trace", res.trace...)
	}
	row(w, "arrived", arrived(t.message, res.arrived))
	// Unchanged messages are all the same: one look is enough.
	if res.arrived != nil && (n == 1 || !ok) {
		fmt.Fprintln(w)
		showMessage(w, res.arrived.Data)
	}
}

// row prints a title and lines beside it.
func row(w io.Writer, title string, lines ...string) {
	if len(lines) == 0 {
		lines = []string{"nothing"}
	}
	for i, line := range lines {
		if i > 0 {
			title = ""
		}
		fmt.Fprintf(w, "   %-10s %s\n", title, line)
	}
}

func lookups(queries []lab.Query) (lines []string) {
	width := 0
	for _, q := range queries {
		width = max(width, len(q.Type)+1+len(q.Name))
	}
	for _, q := range queries {
		lines = append(lines, fmt.Sprintf("%-*s  %s", width, q.Type+" "+q.Name, printable(q.Answer)))
	}
	return lines
}

func exchanger(res result) string {
	s := res.session
	if s == nil {
		return "none was connected to"
	}
	return fmt.Sprintf("%s, %s port %d, %s", s.Server, s.Local.Addr(), s.Local.Port(), strings.ToUpper(s.Protocol))
}

// encryption tells what mxf-remote says of TLS in its report, and what the server
// saw of it.
func encryption(res result) []string {
	if res.session == nil {
		return []string{"none: nothing was connected to"}
	}
	if err := res.session.Failure(); err != nil {
		return []string{"the handshake failed: " + printable(err.Error())}
	}
	if res.session.TLS() == nil {
		return []string{"none: in the clear"}
	}
	for line := range strings.Lines(res.Text) {
		words := strings.Fields(line)
		if len(words) == 5 && words[0] == "TLS:" {
			return []string{
				"version      " + words[1],
				"cipher       " + words[2],
				"certificate  " + words[3],
				"server name  " + printable(words[4]),
			}
		}
	}
	return []string{"up, but the report does not say so"}
}

// reports lays out what came out of descriptor 1.
func reports(raw []byte) (lines []string) {
	for _, one := range bytes.Split(bytes.TrimSuffix(raw, []byte{0}), []byte{0}) {
		if len(one) == 0 {
			continue
		}
		for i, line := range strings.Split(strings.TrimSuffix(string(one[1:]), "\n"), "\n") {
			letter := ' '
			if i == 0 {
				letter = rune(one[0])
			}
			lines = append(lines, strings.TrimRight(fmt.Sprintf("%c %s", letter, printable(line)), " "))
		}
	}
	return lines
}

func arrived(sent []byte, m *lab.Message) string {
	switch {
	case m == nil:
		return "nothing"
	case !lab.SameText(sent, m.Data):
		return fmt.Sprintf("CHANGED: %d bytes from %s for %s", len(m.Data), m.Sender, strings.Join(m.Recipients, " "))
	}
	return fmt.Sprintf("unchanged, from %s for %s", m.Sender, strings.Join(m.Recipients, " "))
}

func showMessage(w io.Writer, data []byte) {
	lines := strings.Split(strings.TrimSuffix(strings.ReplaceAll(string(data), "\r\n", "\n"), "\n"), "\n")
	for i, line := range lines {
		if i == maxLines {
			fmt.Fprintf(w, "   ... and %d lines more\n", len(lines)-maxLines)
			return
		}
		fmt.Fprintf(w, "   | %s\n", printable(line))
	}
}

// printable makes a line fit for a terminal.
func printable(line string) string {
	var out strings.Builder
	count := 0
	for i := 0; i < len(line); count++ {
		r, size := utf8.DecodeRuneInString(line[i:])
		switch {
		case count == maxLineRunes:
			return out.String() + "..."
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&out, `\x%02x`, line[i])
		case !unicode.IsPrint(r):
			fmt.Fprintf(&out, `\x%02x`, r)
		default:
			out.WriteRune(r)
		}
		i += size
	}
	return out.String()
}
