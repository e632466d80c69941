package integration

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"nightmare.mail/mxf/integration/lab"
)

// A record is what came of every delivery of one way, by script.
type record struct {
	mu   sync.Mutex
	runs map[string][]string
	made map[string][]lab.Outcome // the reports are abstract
}

func newRecord() *record {
	return &record{runs: make(map[string][]string), made: make(map[string][]lab.Outcome)}
}

// trace is where a delivery writes its trace unless the script has a say in that.
func (r *rig) trace() string { return filepath.Join(r.work, ".trace") }

// settle is how long servers may take to notice that a client has gone: on a busy
// machine, seconds.
const settle = 20 * time.Second

// note records a delivery.
func (r *rig) note(ts *testscript.TestScript, o *lab.Outcome) {
	made := *o
	made.Raw, made.Text = []byte(r.abstract(string(o.Raw))), r.abstract(o.Text)
	reports := "reports: " + strings.ReplaceAll(string(o.Raw), "\x00", "\\0\n") + "\n"
	if r.spawned != nil && r.spawned.aside {
		r.record.add(ts, made, aside)
		os.Remove(r.trace())
		return
	}
	if r.uneven {
		r.record.add(ts, made, gist(o.Raw))
		return
	}
	eventually(settle, func() bool {
		return !slices.ContainsFunc(r.Inbox.Sessions(), func(s *lab.Session) bool { return !s.Over() })
	})
	var b strings.Builder
	b.WriteString(reports)
	for _, s := range r.Inbox.Sessions() {
		// A connection on which nothing was said may be gone before it is accepted.
		if all := s.Commands(); len(all) > 0 {
			// A nonce and what comes of it are different each time.
			b.WriteString(r.hidden(s.Server + "\n  " + strings.Join(all, "\n  ") + "\n"))
		}
	}
	for _, m := range r.Inbox.Messages() {
		wire := m.Wire[:min(len(m.Wire), 3000)]
		b.WriteString("message: " + anySignature(string(wire)) + "\n")
	}
	b.WriteString(r.toldSoFar(ts))
	if text, err := os.ReadFile(r.trace()); err == nil {
		b.WriteString("trace:\n" + evened(r.neutral(string(text)))) // ports decide the order of lookups
		os.Remove(r.trace())
	}
	r.record.add(ts, made, r.neutral(b.String()))
}

// aside is in the place of what is not compared.
const aside = "(not compared)"

func (r *record) add(ts *testscript.TestScript, o lab.Outcome, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	name := filepath.Base(ts.Name())
	r.runs[name] = append(r.runs[name], text)
	r.made[name] = append(r.made[name], o)
}

// of returns what deliveries of a script have come to, as far as it has run.
func (r *record) of(name string) []lab.Outcome {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.made[name]
}

// What differs from run to run in a trace, and what takes its place: time and
// process; digests; how long things took and how far they got; in whose words the system
// said no; and, after a failed handshake, the reason, which the line before it
// gives: a program that is not the TLS client does not know it.
var chance = []struct {
	pattern *regexp.Regexp
	instead string
}{
	{regexp.MustCompile(`(?m)^\S+ \d+(\.\d+)? `), ""},
	{regexp.MustCompile(`\(\d+ ms\)`), "(n ms)"},
	{regexp.MustCompile(`\b[0-9a-f]{64,}\b(\.\.\.)?`), "(digest)"},
	{regexp.MustCompile(`(tls certificate .*) from \S+ to \S+ `), "$1 "},
	{regexp.MustCompile(`(tls failed: certificate matches none) of .*`), "$1"},
	{regexp.MustCompile(`no answer in .*`), "no answer"},
	{regexp.MustCompile(`no answer to the handshake (in time|within \d+ ms)`), "no answer to the handshake"},
	{regexp.MustCompile(`(tlsrpt \S+): sent \d+ bytes`), "$1: sent"}, // what was sent is compared
	{regexp.MustCompile(`(lookup SRV \S+): (no such name|not waited for).*`), "$1: none"},
	{regexp.MustCompile(`qmtp > (stopped|sent).*`), "qmtp > over"},
	{regexp.MustCompile(`qmtp lost: .*`), "qmtp lost"},
}

// evened is a trace without what differs from run to run, with what happens at the
// same time in a fixed order: lookups, and the two directions of a conversation.
func evened(trace string) string {
	for _, c := range chance {
		trace = c.pattern.ReplaceAllString(trace, c.instead)
	}
	lines := strings.SplitAfter(trace, "\n")
	for from := 0; from < len(lines); {
		to := from
		for to < len(lines) && kind(lines[to]) != "" && kind(lines[to]) == kind(lines[from]) {
			to++
		}
		block := lines[from:to]
		switch {
		case len(block) == 0:
			to++
		case kind(block[0]) == "lookup":
			slices.Sort(block)
		default:
			slices.SortStableFunc(block, func(a, b string) int { return strings.Compare(direction(a), direction(b)) })
		}
		from = to
	}
	return strings.Join(lines, "")
}

// gist is what reports amount to: their letters, and their codes where they have one.
func gist(raw []byte) string {
	code := regexp.MustCompile(`\(#\d\.\d+\.\d+\)`)
	var b strings.Builder
	for one := range strings.SplitSeq(strings.TrimSuffix(string(raw), "\x00"), "\x00") {
		b.WriteString(one[:min(1, len(one))] + code.FindString(one) + "\n")
	}
	return b.String()
}

// kind says which lines of a trace may change places with their neighbours.
func kind(line string) string {
	switch {
	case strings.HasPrefix(line, "lookup "):
		return "lookup"
	case strings.HasPrefix(line, "< "), strings.HasPrefix(line, "> "), strings.HasPrefix(line, "qmtp "):
		return "conversation"
	}
	return ""
}

func direction(line string) string { return strings.TrimPrefix(line, "qmtp ")[:1] }

// neutral replaces what is particular to one lab and one folder of programs.
func (r *rig) neutral(text string) string {
	return temporary.ReplaceAllString(r.abstract(strings.ReplaceAll(text, r.bin+"/", "")), "mxf-spool-N")
}

// abstract replaces what is particular to one lab.
func (r *rig) abstract(text string) string {
	text = strings.NewReplacer(r.work, "$WORK", r.DNS.Addr(), "$DNS").Replace(text)
	for _, service := range []string{"smtp", "submissions", "qmtp", "qmtps"} {
		port := regexp.MustCompile(`(\b|_)` + strconv.Itoa(int(r.Port(service))) + `\b`)
		text = port.ReplaceAllString(text, "$1$$"+strings.ToUpper(service))
	}
	return text
}

// concrete makes what is abstract that of this lab.
func (r *rig) concrete(text string) string {
	for _, service := range []string{"SUBMISSIONS", "SMTP", "QMTPS", "QMTP"} {
		text = strings.ReplaceAll(text, "$"+service, strconv.Itoa(int(r.Port(strings.ToLower(service)))))
	}
	return strings.NewReplacer("$WORK", r.work, "$DNS", r.DNS.Addr()).Replace(text)
}

// temporary is the name of a copy of a message.
var temporary = regexp.MustCompile(`\bmxf-spool-\d+`)

// alike compares two ways, delivery by delivery. Leave is what is left out of both.
func alike(t *testing.T, process, chain *record, leave ...*regexp.Regexp) {
	if len(process.runs) == 0 || len(chain.runs) == 0 {
		t.Skip("only one of the ways was run")
	}
	for name, runs := range process.runs {
		if len(runs) != len(chain.runs[name]) {
			t.Errorf("%s: %d deliveries in process, %d in the other way", name, len(runs), len(chain.runs[name]))
			continue
		}
		for i, in := range runs {
			out := chain.runs[name][i]
			for _, pattern := range leave {
				in, out = pattern.ReplaceAllString(in, ""), pattern.ReplaceAllString(out, "")
			}
			if in != out && out != aside {
				t.Errorf("%s, delivery %d: in process it was\n%s\nand in the other way\n%s\n%s", name, i+1, in, out, difference(in, out))
			}
		}
	}
}

// difference returns the first line in which two texts differ.
func difference(a, b string) string {
	left, right := strings.Split(a, "\n"), strings.Split(b, "\n")
	for i := range left {
		if i >= len(right) || left[i] != right[i] {
			return "first difference: " + strconv.Quote(left[i]) + " and " + strconv.Quote(append(right, "")[min(i, len(right))])
		}
	}
	return "the second goes on where the first ends"
}
