package check

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"nightmare.mail/mxf/smtpc"
)

// levels has the colour of each level.
var levels = [...]Colour{OK: Green, Note: Bold, Warning: Purple, Error: Red}

// Findings shows what was found about the settings, a line each.
func (p *Page) Findings(all []Finding) {
	for _, f := range all {
		place := f.File
		if f.Line > 0 {
			place = fmt.Sprintf("%s:%d", f.File, f.Line)
		}
		if place != "" {
			place += ": "
		}
		p.say(fmt.Sprintf("%-8s ", f.Level), levels[f.Level], place+f.What, Plain)
		if f.Do != "" {
			p.Say(strings.Repeat(" ", 11), f.Do)
		}
	}
}

// tally counts what is to be mended: on a terminal the errors may have left it at its top.
func (p *Page) tally(all []Finding) {
	var count [len(levels)]int
	for _, f := range all {
		count[f.Level]++
	}
	text, level := plural(count[Error], "error", "errors")+", "+plural(count[Warning], "warning", "warnings"), OK
	switch {
	case count[Error] > 0:
		level = Error
	case count[Warning] > 0:
		level = Warning
	}
	p.say(fmt.Sprintf("%-8s ", "in all"), Bold, text, levels[level])
}

// Way shows a plan: where mail would go, and why.
func (p *Page) Way(r *Result, verbose bool) {
	p.Row("host", cmp.Or(r.Host, "none"))
	if !r.planned {
		return
	}
	p.Row("route", orNone(r.Route)...)
	p.Lookups(r.Lookups, verbose)
	p.Policies(r.Policy)
	p.Ways(r.Ways)
	for i, d := range r.Dropped {
		p.Row(first(i, "dropped"), d)
	}
}

func orNone(lines []string) []string {
	if len(lines) == 0 {
		return []string{"none"}
	}
	return lines
}

// first is a title for the first of several rows.
func first(i int, title string) string {
	if i > 0 {
		return ""
	}
	return title
}

// Lookups shows questions and answers. Addresses stand with their ways, and are left out.
func (p *Page) Lookups(all []Lookup, verbose bool) {
	var shown []Lookup
	width := 0
	for _, l := range all {
		if verbose || !l.plain {
			shown = append(shown, l)
			width = max(width, utf8.RuneCountInString(l.Type+" "+l.Name))
		}
	}
	width = min(width, p.Width/2)
	if p.Width-titleWidth-width-2*gap < leastAnswer {
		width = gap
	}
	slices.SortStableFunc(shown, func(a, b Lookup) int { return cmp.Compare(rank(&a), rank(&b)) })
	if len(shown) == 0 {
		p.Row("looked up", "nothing")
	}
	for i, l := range shown {
		title := p.title(first(i, "looked up"))
		columns := utf8.RuneCountInString(title)
		question := Printable(l.Type + " " + l.Name)
		if utf8.RuneCountInString(question) > width { // it has lines of its own
			p.say(title, Bold, question, Plain)
			title, question = strings.Repeat(" ", columns), ""
		}
		p.write(p.paintWord(Bold, title)+fmt.Sprintf("%-*s%*s", width, question, gap, ""), columns+width+gap, l.found(), Plain)
		if verbose {
			for _, note := range l.Notes {
				p.Row("", "  before: "+note)
			}
		}
	}
}

// rank has what most mail goes by shown first.
func rank(l *Lookup) int {
	if l.Type == "MX" {
		return 0
	}
	return 1
}

// found is what an answer says, and who said so.
func (l *Lookup) found() string {
	text := strings.Join(l.Answer, ", ")
	switch {
	case l.Error != "":
		text = l.Error
	case text == "":
		text = "none"
	}
	if l.Server != "" {
		text += fmt.Sprintf("  (%s, %d ms", l.Server, l.MS)
		if l.Secure != nil {
			text += map[bool]string{true: ", secure", false: ", insecure"}[*l.Secure]
		}
		text += ")"
	}
	if l.CutOff {
		text += ", " + cutOff
	}
	return text
}

// cutOff says that mxf-check has waited no longer, and a delivery would.
const cutOff = "cut off by option -t: mxf-remote waits longer"

// Policies shows what is known of TLS policies.
func (p *Page) Policies(all []Policy) {
	if len(all) == 0 {
		p.Row("policy", "none")
	}
	for i, one := range all {
		p.Row(first(i, "policy"), fmt.Sprintf("%-6s %s: %s", one.What, one.Of, one.Text))
	}
}

// Ways shows the steps of a plan, in their order.
func (p *Page) Ways(all []Way) {
	for i := range all {
		w := &all[i]
		title := fmt.Sprintf("way %d", i+1)
		if w.Skipped != "" && len(w.Silent) == 0 {
			p.Row(title, fmt.Sprintf("%s  %s port %d  because %s", cmp.Or(w.Exchanger, "address"), strings.ToUpper(w.Service), w.Port, w.Why))
		} else {
			p.Row(title, fmt.Sprintf("%s  %s port %d  TLS %s  because %s", cmp.Or(w.Exchanger, "address"), strings.ToUpper(w.Service), w.Port, w.decision(), w.Why))
		}
		var addrs []string
		for _, a := range w.Addresses {
			if _, silent := w.Silent[a]; !silent {
				addrs = append(addrs, a)
			}
		}
		if len(addrs) > 0 {
			p.Row("", strings.Join(addrs, ", "))
		}
		for _, a := range w.Addresses {
			if left := w.Silent[a]; left != "" {
				p.row("", Purple, fmt.Sprintf("%s  skipped: it did not answer lately, for about %s still", a, inMinutes(left)))
			}
		}
		if w.Records != "" {
			p.Row("", "records "+strings.ReplaceAll(w.Records, ",", ", "))
		}
		for _, line := range w.Identity {
			p.Row("", line)
		}
		if w.Skipped != "" {
			p.row("", Purple, "passed over: "+w.Skipped)
		}
	}
}

// decision is the TLS that is wanted, by what, and who decided it.
func (w *Way) decision() string {
	text := w.TLS
	switch {
	case w.Title == "", w.Title == w.TLS, strings.HasPrefix(w.Policy, "control/tlsstrictness"): // that file is the floor
	case w.Title == "floor "+w.TLS:
		text = w.Title
	default:
		text += ", " + w.Title
	}
	return text + " (" + w.Policy + ")"
}

// inMinutes is a duration as a person says it: to the second it differs from delivery to delivery.
func inMinutes(text string) string {
	left, err := time.ParseDuration(text)
	if err != nil {
		return text
	}
	return plural(int(left.Round(time.Minute)/time.Minute), "minute", "minutes")
}

// Attempts shows what the attempts have found.
func (p *Page) Attempts(r *Result, verbose bool) {
	for i := range r.Attempts {
		if i > 0 {
			fmt.Fprintln(p.W)
		}
		p.attempt(fmt.Sprintf("try %d", i+1), &r.Attempts[i], r.Checked, verbose)
	}
}

func (p *Page) attempt(title string, a *Attempt, now time.Time, verbose bool) {
	place := a.Address
	if a.Exchanger != "" {
		place = fmt.Sprintf("%s (%s)", a.Exchanger, a.Address)
	}
	place += fmt.Sprintf("  %s port %d", strings.ToUpper(a.Service), a.Port)
	for _, word := range a.Manner {
		place += ", " + word
	}
	if !a.Connected {
		p.Row(title, place)
		p.row("", Red, fmt.Sprintf("not connected: %s, after %d ms", a.Error, a.MS))
		p.cutOff(a)
		return
	}
	p.Row(title, fmt.Sprintf("%s: connected in %d ms", place, a.MS))
	if a.limits != "" {
		p.Row("", a.limits)
	}
	if a.Greeting != "" {
		p.Row("greeting", strings.Split(a.Greeting, "\n")...)
	}
	if len(a.Extensions) > 0 {
		p.Row("offers", strings.Join(a.Extensions, ", "))
	}
	if a.TLS != nil && a.TLS.Version != "" {
		p.tls(a.TLS, now, verbose)
	}
	if a.Login != "" {
		p.row("login", Green, "taken ("+a.Login+")")
	}
	for i, one := range a.Recipients {
		p.Row(first(i, "recipient"), fmt.Sprintf("%s: %s: %s", one.Recipient, one.Status, strings.ReplaceAll(one.Reply, "\n", " / ")))
	}
	if a.Error != "" {
		p.row("left", Red, strings.Split(a.Error, "\n")...)
	}
	p.cutOff(a)
	if len(a.Conversation) > 0 {
		p.Row("said", a.Conversation...)
	}
}

func (p *Page) cutOff(a *Attempt) {
	if a.CutOff {
		p.row("", Purple, cutOff)
	}
}

// tls shows a handshake. Without verbose it shows the server's own certificate alone.
func (p *Page) tls(t *TLS, now time.Time, verbose bool) {
	session := "new session"
	if t.Resumed {
		session = "resumed session"
	}
	p.Row("TLS", strings.Join(slices.DeleteFunc([]string{t.Version, t.Cipher, t.Group}, func(s string) bool { return s == "" }), " ")+", "+session)
	chain := t.Chain
	if !verbose {
		chain = chain[:min(len(chain), 1)]
	}
	for i, c := range chain {
		p.Row(fmt.Sprintf("cert %d", i), c.Subject, "signed by "+c.Issuer,
			fmt.Sprintf("from %s to %s", c.NotBefore.Format(time.DateOnly), c.NotAfter.Format(time.DateOnly)),
			"names "+strings.Join(orNone(c.Names), ", "))
	}
	if more := len(t.Chain) - len(chain); more > 0 {
		p.Row("", fmt.Sprintf("and %d more behind it (option -v)", more))
	}
	if t.Staple != "" {
		p.Row("staple", t.Staple)
	}
	if t.Asked {
		p.Row("client", "it asked for our certificate and "+map[bool]string{true: "got it", false: "got none"}[t.Gave])
	}
	if len(t.Wrong) == 0 {
		p.row("verdict", Green, "good")
	}
	for i, w := range t.Wrong {
		matters := "it matters nowhere"
		if len(w.Matters) > 0 {
			matters = "it matters at " + strings.Join(w.Matters, ", ")
		}
		p.row(first(i, "wrong"), Purple, w.What+" ("+matters+")")
	}
}

// prospects has the colour of each.
var prospects = map[string]Colour{"taken, TLS": Green, "taken": Green, "taken, clear": Purple, "deferred": Red, "refused": Red}

// columns of the table, and the gap between them.
const (
	gap = 2
	// leastCertificate is the room that the column of certificates needs; with less, an
	// address has lines of its own.
	leastCertificate = 10
	// leastAnswer is the room that answers need beside their questions.
	leastAnswer = 30
)

// Table shows what would become of a message at each address.
func (p *Page) Table(r *Result) {
	if len(r.prospects) == 0 {
		return
	}
	head := []string{"address", "connect", "TLS", "certificate", "strictness 0", "1", "2"}
	rows := [][]string{head}
	for i := range r.prospects {
		one := &r.prospects[i]
		rows = append(rows, []string{one.address, one.connect, one.tls, one.certificate, one.at[0], one.at[1], one.at[2]})
	}
	const certificate = 3
	widths, all := make([]int, len(head)), 0
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(Printable(cell)))
		}
	}
	for _, w := range widths {
		all += w + gap
	}
	if over := all - gap - p.Width; over > 0 {
		widths[certificate] -= over
	}
	if widths[certificate] < min(leastCertificate, widths[certificate]+max(all-gap-p.Width, 0)) {
		p.list(rows)
		return
	}
	if widths[certificate] < len(head[certificate]) {
		head[certificate] = "cert"
	}
	for i, row := range rows {
		p.tableRow(row, widths, certificate, i == 0)
	}
}

// tableRow writes a row of the table. One column is folded.
func (p *Page) tableRow(row []string, widths []int, folded int, isHead bool) {
	lines := Fold(Printable(row[folded]), max(widths[folded], 1))
	for n, line := range lines {
		var b strings.Builder
		for i, cell := range row {
			cell = Printable(cell)
			if i == folded {
				cell = line
			} else if n > 0 {
				cell = ""
			}
			c := prospects[cell]
			if isHead {
				c = Bold
			}
			b.WriteString(p.paint(c, cell) + strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+gap))
		}
		fmt.Fprintln(p.W, strings.TrimRight(b.String(), " "))
	}
}

// list is the table on a narrow page.
func (p *Page) list(rows [][]string) {
	for _, row := range rows[1:] {
		p.say("", Plain, row[0], Bold)
		facts := slices.DeleteFunc(slices.Clone(row[1:4]), func(s string) bool { return s == "" })
		p.Say("  ", strings.Join(facts, ", "))
		for n, cell := range row[4:] {
			if cell != "" {
				p.say(fmt.Sprintf("  strictness %d  ", n), Plain, cell, prospects[cell])
			}
		}
	}
}

// letters has the words for each letter, and their colour.
var letters = map[string]struct {
	words  string
	colour Colour
}{
	"K": {"now", Green}, "Z": {"deferred", Red}, "D": {"bounced", Red}, "": {"not known", Purple},
}

// Outcome shows what would become of the message.
func (p *Page) Outcome(r *Result) {
	o := r.Outcome
	if o == nil {
		return
	}
	l := letters[o.Letter]
	text := strings.TrimSpace(o.Letter + " " + o.Text)
	if o.Letter == "K" {
		text = fmt.Sprintf("it would be taken by %s, %s", o.Address, inWords(o.TLS))
		if r.decider != "" {
			text += " (" + r.decider + ")"
		}
		if r.clearBad {
			l.colour = Purple
		}
	}
	p.row(l.words, l.colour, strings.Split(text, "\n")...)
	if o.Age > 0 {
		p.row("but", Purple, fmt.Sprintf("only once it is %d seconds old: a younger one goes by another way or waits (control/clearafter)", o.Age))
	}
	for i, one := range r.left {
		text := one.Recipient + ": " + strings.ReplaceAll(one.Reply, "\n", " / ")
		p.row(first(i, "but not"), Red, text, one.Status+", so it would "+map[bool]string{true: "bounce", false: "wait"}[one.Status == smtpc.Refused.String()])
	}
}

// inWords is the line on TLS for a person.
func inWords(line string) string {
	words := strings.Fields(line)
	if len(words) < 3 || words[0] == "in" {
		return line
	}
	return "TLS " + words[2]
}

// All shows everything.
func (p *Page) All(r *Result, verbose bool) {
	p.Findings(r.Findings)
	if r.Host == "" {
		p.tally(r.Findings)
		return
	}
	p.Way(r, verbose)
	if len(r.Attempts) > 0 {
		fmt.Fprintln(p.W)
		p.Attempts(r, verbose)
		fmt.Fprintln(p.W)
		p.Table(r)
		fmt.Fprintln(p.W)
	}
	p.Outcome(r)
}
