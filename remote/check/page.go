package check

import (
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A Page is text for a person: folded at its width, with words in colour where that is wanted.
// Bytes that a terminal cannot show are written as \xNN.
type Page struct {
	W      io.Writer
	Width  int    // of a line, in columns
	Colour bool   // escape sequences are understood
	Margin string // before each title
}

const (
	// titleWidth is that of the titles of rows.
	titleWidth = 10
	// minText is the least room for text beside a prefix, however narrow the page is.
	minText = 1
	// maxText bounds one text, in characters: more is no use to a reader.
	maxText = 8000
)

// A Colour is how a word is shown. They can be read on a dark ground and on a light one.
type Colour string

// The colours.
const (
	Plain  Colour = ""
	Bold   Colour = "\x1b[1m"
	Green  Colour = "\x1b[32m"
	Purple Colour = "\x1b[35m"
	Red    Colour = "\x1b[31m"
)

const reset = "\x1b[0m"

// paint has text in a colour, if the page has any.
func (p *Page) paint(c Colour, text string) string {
	if !p.Colour || c == Plain || text == "" {
		return text
	}
	return string(c) + text + reset
}

// Say writes text behind prefix, folded at blanks where it is wider than a line. Further
// lines stand under its beginning.
func (p *Page) Say(prefix, text string) { p.say(prefix, Plain, text, Plain) }

func (p *Page) say(prefix string, ofPrefix Colour, text string, ofText Colour) {
	p.write(p.paintWord(ofPrefix, prefix), utf8.RuneCountInString(prefix), text, ofText)
}

// write is say for a prefix that is painted, and so many columns wide.
func (p *Page) write(prefix string, columns int, text string, c Colour) {
	for _, line := range Fold(Printable(text), max(p.Width-columns, minText)) {
		fmt.Fprintln(p.W, strings.TrimRight(prefix+p.paint(c, line), " "))
		prefix = strings.Repeat(" ", columns)
	}
}

// title is the title of a row, in the columns that it takes.
func (p *Page) title(text string) string { return fmt.Sprintf("%s%-*s ", p.Margin, titleWidth, text) }

// paintWord paints text without the blanks around it.
func (p *Page) paintWord(c Colour, text string) string {
	word := strings.TrimSpace(text)
	if c == Plain || word == "" {
		return text
	}
	before, after, _ := strings.Cut(text, word)
	return before + p.paint(c, word) + after
}

// Row writes a title and lines beside it.
func (p *Page) Row(title string, lines ...string) { p.row(title, Plain, lines...) }

func (p *Page) row(title string, c Colour, lines ...string) {
	if len(lines) == 0 {
		lines = []string{"nothing"}
	}
	for i, line := range lines {
		if i > 0 {
			title = ""
		}
		p.say(p.title(title), Bold, line, c)
	}
}

// Fold breaks text into lines of at most width characters: at a blank, or within a word that is
// longer. What was indented stays so.
func Fold(text string, width int) (lines []string) {
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

// Printable makes a line fit for a terminal.
func Printable(line string) string {
	var out strings.Builder
	count := 0
	for i := 0; i < len(line); count++ {
		r, size := utf8.DecodeRuneInString(line[i:])
		switch {
		case count == maxText:
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

// A Waiting is a line that says what is waited for, rewritten in place. The zero Waiting, and
// nil, show nothing.
type Waiting struct {
	W     io.Writer // nil: nobody looks
	Width int
}

const clearLine = "\r\x1b[K"

// Show replaces the line.
func (w *Waiting) Show(doing string) {
	if w == nil || w.W == nil {
		return
	}
	text := []rune(Printable(doing) + " ...")
	_, _ = io.WriteString(w.W, clearLine+string(text[:min(len(text), max(w.Width-1, 0))]))
}

// Clear removes the line.
func (w *Waiting) Clear() {
	if w != nil && w.W != nil {
		_, _ = io.WriteString(w.W, clearLine)
	}
}
