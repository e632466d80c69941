package main

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"nightmare.mail/mxf/integration/lab"
	"nightmare.mail/mxf/remote/check"
)

// maxLines is what is shown of a message: enough for any that is tried by hand.
const maxLines = 60

// page is what is written on: as mxf-check shows things.
func (t *trial) page(w io.Writer) *check.Page {
	return &check.Page{W: w, Width: t.width, Margin: "   "}
}

func (t *trial) introduce(w io.Writer) {
	what := "the sample"
	if t.name != "" {
		what = fmt.Sprintf("%q", t.name)
	}
	t.page(w).Say("", fmt.Sprintf("Servers of our own are running on loopback: DNS %s, SMTP with STARTTLS port %d, QMTPS port %d, QMTP port %d. "+
		"The message is %s, %d bytes.", t.lab.DNS.Addr(), t.lab.Port("smtp"), t.lab.Port("qmtps"), t.lab.Port("qmtp"), what, len(t.message)))
}

// show tells of one round.
func (t *trial) show(w io.Writer, n int, r round, res result, ok bool) {
	fmt.Fprintln(w)
	p := t.page(w)
	p.Say(fmt.Sprintf("%d. ", n), r.title)
	p.Row("run", fmt.Sprintf("mxf-remote %s %s %s@%s", r.host, sender, localPart, r.host),
		"control/tlsstrictness "+r.strictness)
	var found check.Result
	found.Plan(res.plan)
	p.Lookups(found.Lookups, t.verbose)
	p.Ways(found.Ways)
	p.Row("server", server(res))
	p.Row("TLS", encryption(res)...)
	p.Row("report", reports(res.Raw)...)
	p.Row("verdict", fmt.Sprintf("%c, exit status %d, after %d ms", res.Letter, res.Exit, res.Elapsed.Milliseconds()))
	if t.verbose || !ok {
		p.Row("trace", res.trace...)
	}
	p.Row("arrived", arrived(t.message, res.arrived))
	if r.refused {
		p.Row("so", refusal(ok))
	}
	// Unchanged messages are all the same: one look is enough.
	if res.arrived != nil && (n == 1 || !ok) {
		fmt.Fprintln(w)
		t.showMessage(w, res.arrived.Data)
	}
}

// server is the one that was connected to, by the name that it says itself.
func server(res result) string {
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
		return []string{"the handshake failed: " + check.Printable(err.Error())}
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
			"server name  " + check.Printable(words[4]),
		}
		if more := words[5:]; len(more) > 0 {
			lines = append(lines, "also         "+check.Printable(strings.Join(more, " ")))
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
			lines = append(lines, strings.TrimRight(fmt.Sprintf("%c %s", letter, check.Printable(line)), " "))
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
			t.page(w).Say("   ", fmt.Sprintf("... and %d lines more", len(lines)-maxLines))
			return
		}
		for _, part := range check.Fold(check.Printable(line), max(t.width-5, 1)) {
			fmt.Fprintf(w, "   | %s\n", part)
		}
	}
}
