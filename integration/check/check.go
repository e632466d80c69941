package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// A check is what is known so far.
type check struct {
	mu      sync.Mutex
	out     io.Writer
	ci      bool      // there everything has to be tested
	spoken  time.Time // when the last line was written
	started time.Time

	doing    string // the step
	packages map[string]*pack

	passed, skipped int
	failures        []string
	lacking         map[string][]string // tests, by what they want
	others          []string            // skipped for other reasons
}

func newCheck(out io.Writer, ci bool) *check {
	now := time.Now()
	return &check{out: out, ci: ci, spoken: now, started: now,
		packages: make(map[string]*pack), lacking: make(map[string][]string)}
}

// A pack is a package under test.
type pack struct {
	tests  map[string]*test
	order  []string
	output []string // of no test
}

// A test is a test or a subtest.
type test struct {
	action  string // its end: pass, fail or skip; empty: none yet
	begun   bool   // it was run: a slash in the name of a subtest makes a parent that never is
	parent  bool   // it has subtests
	failing bool   // one of those has failed
	output  []string
}

func (c *check) say(format string, args ...any) {
	c.spoken = time.Now()
	fmt.Fprintf(c.out, format+"\n", args...)
}

// keepTalking says now and then what is going on, until it is stopped.
func (c *check) keepTalking(pause time.Duration) (stop func()) {
	done := make(chan struct{})
	var ended sync.WaitGroup
	ended.Go(func() {
		tick := time.NewTicker(pause / 10)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
			}
			c.mu.Lock()
			if time.Since(c.spoken) >= pause {
				c.say("... %s, %s", time.Since(c.started).Round(time.Second), c.now())
			}
			c.mu.Unlock()
		}
	})
	return func() { close(done); ended.Wait() }
}

// now tells which packages are under test, and how far they are.
func (c *check) now() string {
	var running []string
	for _, name := range slices.Sorted(maps.Keys(c.packages)) {
		done := 0
		for _, t := range c.packages[name].tests {
			if t.action != "" {
				done++
			}
		}
		running = append(running, fmt.Sprintf("%s (%d done)", short(name), done))
	}
	if len(running) == 0 {
		return c.doing
	}
	return c.doing + ": " + strings.Join(running, ", ")
}

func (c *check) begin(step string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.doing = step
}

// end counts a step that is no test.
func (c *check) end(step string, output []byte, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		c.passed++
		c.say("ok    %s", step)
		return
	}
	c.failures = append(c.failures, step)
	var status *exec.ExitError
	if !errors.As(err, &status) || len(output) == 0 {
		output = append(output, err.Error()...)
	}
	c.say("%s\nFAIL  %s", strings.TrimRight(string(output), "\n"), step)
}

// missing counts a step that cannot be done here. In CI it has failed.
func (c *check) missing(step, needs, why string) {
	if c.ci {
		c.end(step, []byte(why), errors.New("in CI everything has to be tested"))
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.skipped++
	c.lacking[needs] = append(c.lacking[needs], step)
	c.say("skip  %s: %s", step, why)
}

// unasked says that a step got no answer from outside. That is no failure, here or in CI:
// nothing in the project can mend it.
func (c *check) unasked(step string, output []byte, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	why := err.Error()
	if lines := strings.Split(strings.TrimSpace(string(output)), "\n"); lines[len(lines)-1] != "" {
		why = lines[len(lines)-1]
	}
	c.skipped++
	c.others = append(c.others, step+": "+why)
	c.say("NOT DONE  %s: %s", step, why)
}

func (c *check) failed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.failures) > 0
}

// An event is one of go test -json (go doc test2json).
type event struct {
	Action      string
	Package     string
	ImportPath  string // of build output
	Test        string
	Elapsed     float64
	Output      string
	FailedBuild string
}

// event takes notice of one line of go test -json. What is no JSON is handed on.
func (c *check) event(line []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var e event
	if json.Unmarshal(line, &e) != nil {
		c.say("%s", line)
		return
	}
	if e.Action == "build-output" {
		c.say("%s", strings.TrimRight(e.Output, "\n"))
	}
	if e.Package == "" {
		return
	}
	p := c.packages[e.Package]
	if p == nil {
		p = &pack{tests: make(map[string]*test)}
		c.packages[e.Package] = p
	}
	if e.Test == "" {
		c.ofPackage(p, &e)
		return
	}
	t := p.test(e.Test)
	t.begun = true
	switch e.Action {
	case "output":
		t.output = append(t.output, e.Output)
	case "pass", "fail", "skip":
		t.action = e.Action
		for up := e.Test; e.Action == "fail" && strings.Contains(up, "/"); {
			up = up[:strings.LastIndexByte(up, '/')]
			p.test(up).failing = true
		}
	}
}

func (p *pack) test(name string) *test {
	t := p.tests[name]
	if t == nil {
		t = &test{}
		p.tests[name] = t
		p.order = append(p.order, name)
		if up := strings.LastIndexByte(name, '/'); up >= 0 {
			p.test(name[:up]).parent = true
		}
	}
	return t
}

func (c *check) ofPackage(p *pack, e *event) {
	switch e.Action {
	case "output":
		p.output = append(p.output, e.Output)
	case "pass", "fail", "skip":
		c.count(p, e)
		delete(c.packages, e.Package)
	}
}

// count adds up a package that is through. Of a test with subtests these count, and
// itself only where it has failed and none of them has.
func (c *check) count(p *pack, e *event) {
	passed, skipped, before := 0, 0, len(c.failures)
	for _, name := range p.order {
		t := p.tests[name]
		bad := t.action == "fail" || t.begun && t.action == "" && e.Action == "fail" // it was running when all ended
		if bad {
			fmt.Fprint(c.out, strings.Join(t.output, ""))
		}
		switch {
		case bad && !t.failing:
			c.failures = append(c.failures, name)
		case t.parent || t.action == "":
		case t.action == "skip":
			skipped++
			c.lacks(name, strings.Join(t.output, ""))
		default:
			passed++
		}
	}
	c.passed, c.skipped = c.passed+passed, c.skipped+skipped
	word := "ok  "
	if e.Action == "fail" {
		word = "FAIL"
		fmt.Fprint(c.out, strings.Join(p.output, ""))
		if len(c.failures) == before {
			c.failures = append(c.failures, short(e.Package))
		}
	}
	c.say("%s  %s %.1fs: %d passed, %d skipped, %d failed", word, short(e.Package), e.Elapsed, passed, skipped, len(c.failures)-before)
}

// wanting is how a test says what it wants: a Debian package, or root's rights.
var wanting = regexp.MustCompile(`NOT TESTED, needs ([^:\n]+): `)

// lacks files a skipped test under what it wants.
func (c *check) lacks(name, output string) {
	if m := wanting.FindStringSubmatch(output); m != nil {
		c.lacking[m[1]] = append(c.lacking[m[1]], name)
		return
	}
	why := ""
	for line := range strings.Lines(output) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "===") && !strings.HasPrefix(line, "---") {
			why = line
		}
	}
	c.others = append(c.others, name+": "+why)
}

// namesShown is how many tests are named where many want the same.
const namesShown = 4

// close writes what was not tested, and the last line. It is false when something
// has failed.
func (c *check) close() bool {
	if len(c.lacking) > 0 {
		fmt.Fprintln(c.out, "\nNot tested, and what it needs (Debian packages, or root):")
		for _, needs := range slices.Sorted(maps.Keys(c.lacking)) {
			names := c.lacking[needs]
			shown := strings.Join(names[:min(len(names), namesShown)], " ")
			if more := len(names) - namesShown; more > 0 {
				shown += fmt.Sprintf(" and %d more", more)
			}
			fmt.Fprintf(c.out, "  %-20s %s\n", needs, shown)
		}
	}
	if len(c.others) > 0 {
		fmt.Fprintln(c.out, "\nSkipped for other reasons:")
		for _, line := range c.others {
			fmt.Fprintln(c.out, "  "+line)
		}
	}
	last := fmt.Sprintf("%d passed, %d skipped, %d failed", c.passed, c.skipped, len(c.failures))
	if len(c.failures) > 0 {
		last += ": " + strings.Join(c.failures, " ")
	}
	fmt.Fprintln(c.out, "\n"+last)
	if c.ci { // in the words that its runner counts
		fmt.Fprintf(c.out, "%d passed, %d failed, %d skipped\n", c.passed, len(c.failures), c.skipped)
	}
	return len(c.failures) == 0
}

// short is the name of a package without that of the module.
func short(name string) string {
	if _, rest, found := strings.Cut(name, "/mxf/"); found {
		return rest
	}
	return name
}
