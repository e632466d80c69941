package main

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"nightmare.mail/mxf/integration/lab"
	"nightmare.mail/mxf/remote"
	"nightmare.mail/mxf/remote/dns"
)

const (
	// What is shown of a message: enough for any that is tried by hand.
	maxLines     = 60
	maxLineRunes = 1000
)

// say writes text behind prefix, folded at blanks where it is wider than a line;
// further lines stand under its beginning.
func (t *trial) say(w io.Writer, prefix, text string) {
	room := max(t.width-utf8.RuneCountInString(prefix), 1)
	for _, line := range fold(text, room) {
		fmt.Fprintln(w, strings.TrimRight(prefix+line, " "))
		prefix = strings.Repeat(" ", utf8.RuneCountInString(prefix))
	}
}

// fold breaks text into lines of at most width runes: at a blank, or within a word
// that is longer. What was indented stays so.
func fold(text string, width int) (lines []string) {
	rest := []rune(text)
	for len(rest) > width {
		at := width
		for at > 0 && rest[at] != ' ' {
			at--
		}
		if strings.TrimSpace(string(rest[:at])) == "" {
			at = width
		}
		lines = append(lines, strings.TrimRight(string(rest[:at]), " "))
		for at < len(rest) && rest[at] == ' ' {
			at++
		}
		rest = rest[at:]
	}
	return append(lines, string(rest))
}

func (t *trial) introduce(w io.Writer) {
	what := "the sample"
	if t.name != "" {
		what = fmt.Sprintf("%q", t.name)
	}
	t.say(w, "", fmt.Sprintf("Servers of our own are running on loopback: DNS %s, SMTP with STARTTLS port %d, QMTPS port %d, QMTP port %d. "+
		"The message is %s, %d bytes.", t.lab.DNS.Addr(), t.lab.Port("smtp"), t.lab.Port("qmtps"), t.lab.Port("qmtp"), what, len(t.message)))
}

// show tells of one round.
func (t *trial) show(w io.Writer, n int, r round, res result, ok bool) {
	fmt.Fprintln(w)
	t.say(w, fmt.Sprintf("%d. ", n), r.title)
	row := func(title string, lines ...string) { t.row(w, title, lines...) }
	row("run", fmt.Sprintf("mxf-remote %s %s %s@%s", r.host, sender, localPart, r.host),
		"control/tlsstrictness "+r.strictness)
	row("looked up", lookups(res.plan.Route.Answers)...)
	for i := range res.plan.Steps {
		row(fmt.Sprintf("way %d", i+1), way(&res.plan.Steps[i])...)
	}
	row("exchanger", exchanger(res))
	row("TLS", encryption(res)...)
	row("report", reports(res.Raw)...)
	row("verdict", fmt.Sprintf("%c, exit status %d, after %d ms", res.Letter, res.Exit, res.Elapsed.Milliseconds()))
	if t.verbose || !ok {
		row("trace", res.trace...)
	}
	row("arrived", arrived(t.message, res.arrived))
	if r.refused {
		row("so", refusal(ok))
	}
	// Unchanged messages are all the same: one look is enough.
	if res.arrived != nil && (n == 1 || !ok) {
		fmt.Fprintln(w)
		t.showMessage(w, res.arrived.Data)
	}
}

// row prints a title and lines beside it.
func (t *trial) row(w io.Writer, title string, lines ...string) {
	if len(lines) == 0 {
		lines = []string{"nothing"}
	}
	for i, line := range lines {
		if i > 0 {
			title = ""
		}
		t.say(w, fmt.Sprintf("   %-10s ", title), line)
	}
}

// lookups tells each question and its answer.
func lookups(answers []*dns.Answer) (lines []string) {
	width := 0
	question := func(a *dns.Answer) string { return a.Question.Type.String() + " " + a.Question.Name }
	for _, a := range answers {
		width = max(width, len(question(a)))
	}
	for _, a := range answers {
		lines = append(lines, fmt.Sprintf("%-*s  %s", width, question(a), printable(found(a))))
	}
	return lines
}

// found is what an answer says.
func found(a *dns.Answer) string {
	switch {
	case a.Err != nil:
		return a.Err.Error()
	case a.Len() == 0:
		return "none"
	}
	records := make([]string, 0, a.Len())
	for i := range a.Len() - a.More {
		records = append(records, strings.TrimSuffix(a.Record(i), "."))
	}
	return strings.Join(records, ", ")
}

// way tells one step of the plan.
func way(s *remote.Step) []string {
	addrs := make([]string, 0, len(s.Addresses))
	for _, a := range s.Addresses {
		addr := a.Addr().String()
		if a.Silent > 0 {
			addr += fmt.Sprintf(" (did not answer lately: passed over for %v more)", a.Silent)
		}
		addrs = append(addrs, addr)
	}
	lines := []string{
		fmt.Sprintf("%s  %s port %d  TLS %s (%s)  because %s", cmp.Or(s.Host, "address"), strings.ToUpper(s.Protocol.Service), s.Port,
			s.Requirement.First, s.Requirement.By, s.Why),
		strings.Join(addrs, ", "),
	}
	if s.Err != nil {
		lines = append(lines, printable("passed over: "+s.Err.Error()))
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
	return onTLS(res.Text)
}

// onTLS tells what the line on TLS in a report says. Behind the server name it may have
// more: who wanted it so, or a fault of ours in brackets.
func onTLS(text string) []string {
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) < 5 || words[0] != "TLS:" {
			continue
		}
		lines := []string{
			"version      " + words[1],
			"cipher       " + words[2],
			"certificate  " + words[3],
			"server name  " + printable(words[4]),
		}
		if more := words[5:]; len(more) > 0 {
			lines = append(lines, "also         "+printable(strings.Join(more, " ")))
		}
		return lines
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

// refusal is the outcome of a delivery that must not arrive.
func refusal(ok bool) string {
	if ok {
		return "as it has to be: tlsstrictness 2 sends nothing to a server that cannot show whose it is"
	}
	return "WRONG: the message had to be refused, for now, because of the certificate's name"
}

func (t *trial) showMessage(w io.Writer, data []byte) {
	lines := strings.Split(strings.TrimSuffix(strings.ReplaceAll(string(data), "\r\n", "\n"), "\n"), "\n")
	for i, line := range lines {
		if i == maxLines {
			t.say(w, "   ", fmt.Sprintf("... and %d lines more", len(lines)-maxLines))
			return
		}
		for _, part := range fold(printable(line), max(t.width-5, 1)) {
			fmt.Fprintf(w, "   | %s\n", part)
		}
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
