// Check runs everything that make check is: gofmt, vet, staticcheck, the linter of
// manual pages, the sums of modules, and every test, under the race detector where there
// is one. In CI it also vets every target of a release, and asks for known
// vulnerabilities. It says what it does, shows whole what fails, groups what could not be
// tested by the Debian package that is missing, and ends in one line:
//
//	412 passed, 3 skipped, 0 failed
//
// Its exit status is 0 when nothing has failed.
package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"nightmare.mail/mxf/integration/target"
)

const (
	// silence is the longest time without a line.
	silence = 30 * time.Second
	// testLimit is go test's for one package: that of integration takes four minutes on
	// two idle processors, and nobody's are always idle.
	testLimit = "60m"
)

func main() {
	quick := flag.Bool("tests", false, "the tests alone")
	cross := flag.Bool("cross", false, "vet of every target of a release, and nothing else")
	flag.Parse()
	patterns := flag.Args()
	if len(patterns) == 0 {
		patterns = []string{"./..."}
	}
	c := newCheck(os.Stdout, os.Getenv("CI") == "true")
	stop := c.keepTalking(silence)
	if !*quick && !*cross {
		c.format()
		c.step("go vet", "go", append([]string{"vet"}, patterns...)...)
		c.step("staticcheck", "go", append([]string{"tool", "staticcheck"}, patterns...)...)
		c.manuals()
		c.step("sums of modules", "go", "mod", "verify")
		c.step("sums of the tools' modules", "go", "-C", tools, "mod", "verify")
	}
	if *cross || c.ci && !*quick {
		c.targets(patterns)
	}
	if c.ci && !*quick && !*cross {
		c.vulnerabilities(patterns)
	}
	if !*cross {
		c.test(patterns)
	}
	stop()
	if !c.close() {
		os.Exit(1)
	}
}

// step runs a command that says nothing when all is well.
func (c *check) step(name, program string, args ...string) {
	c.begin(name)
	out, err := exec.Command(program, args...).CombinedOutput()
	c.end(name, out, err)
}

func (c *check) format() {
	root, err := exec.Command("go", "env", "GOROOT").Output()
	gofmt := filepath.Join(strings.TrimSpace(string(root)), "bin", "gofmt")
	if _, found := os.Stat(gofmt); err != nil || found != nil {
		gofmt = "gofmt"
	}
	c.begin("gofmt")
	out, err := exec.Command(gofmt, "-l", ".").CombinedOutput()
	if err == nil && len(out) > 0 {
		err = fmt.Errorf("files that are not formatted")
	}
	c.end("gofmt", out, err)
}

func (c *check) manuals() {
	pages, _ := filepath.Glob("doc/*.[58]")
	if _, err := exec.LookPath("mandoc"); err != nil {
		c.missing("manual pages", "mandoc", "mandoc is not installed")
		return
	}
	c.step("manual pages", "mandoc", append([]string{"-T", "lint", "-W", "warning"}, pages...)...)
}

// tools is the folder of the module that names programs which are no part of mxf.
const tools = "integration/tools"

// targets vets for every target of a release. The flags are those of a release, so that
// what is compiled here is compiled for make dist as well.
func (c *check) targets(patterns []string) {
	for _, t := range target.All {
		name := "go vet for " + t.String()
		c.begin(name)
		cmd := exec.Command("go", append([]string{"vet", "-trimpath"}, patterns...)...)
		cmd.Env = append(os.Environ(), t.Environ()...)
		out, err := cmd.CombinedOutput()
		c.end(name, out, err)
	}
}

const (
	// found is the exit status of govulncheck where it has found something.
	found = 3
	// vulnerabilityLimit is for all that govulncheck does, its fetching too.
	vulnerabilityLimit = 5 * time.Minute
)

// vulnerabilities asks the database of known vulnerabilities about what we call. Where that
// cannot be asked it says so, and nothing has failed.
func (c *check) vulnerabilities(patterns []string) {
	const name = "govulncheck"
	c.begin(name)
	folder, err := os.MkdirTemp("", "mxf-check")
	if err != nil {
		c.end(name, nil, err)
		return
	}
	defer os.RemoveAll(folder)
	program := filepath.Join(folder, name)
	if out, err := exec.Command("go", "-C", tools, "build", "-o", program, "golang.org/x/vuln/cmd/govulncheck").CombinedOutput(); err != nil {
		c.end(name, out, err)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), vulnerabilityLimit)
	defer cancel()
	out, err := exec.CommandContext(ctx, program, patterns...).CombinedOutput()
	var status *exec.ExitError
	if err == nil || errors.As(err, &status) && status.ExitCode() == found {
		c.end(name, out, err)
		return
	}
	c.unasked(name, out, err)
}

// test runs go test and follows what it says.
func (c *check) test(patterns []string) {
	args := []string{"test", "-json", "-timeout", testLimit}
	environ := os.Environ()
	if why := c.noRace(); why == "" {
		args, environ = append(args, "-race"), append(environ, cgo)
	} else {
		c.missing("race detector", "gcc libc6-dev", why)
	}
	args = append(args, c.tested(patterns)...)
	c.begin("go test")
	cmd := exec.Command("go", args...)
	cmd.Env = environ
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		c.end("go test", nil, err)
		return
	}
	c.follow(out)
	if err := cmd.Wait(); err != nil && !c.failed() {
		c.end("go test", nil, err)
	}
}

// cgo is what the race detector wants.
const cgo = "CGO_ENABLED=1"

// noRace tries whether a test can be built and run under the race detector: it wants
// a C compiler, and a processor and system that it knows. It returns why not.
func (c *check) noRace() string {
	c.begin("the race detector")
	cmd := exec.Command("go", "test", "-race", "-count=1", "-run", "^$", "./remote/report")
	cmd.Env = append(os.Environ(), cgo)
	out, err := cmd.CombinedOutput()
	if err == nil {
		return ""
	}
	for line := range strings.Lines(string(out)) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			return line
		}
	}
	return err.Error()
}

// tested returns the packages that have tests. go list says itself what is wrong with
// the others, and go test will say it again.
func (c *check) tested(patterns []string) []string {
	args := append([]string{"list", "-buildvcs=false", "-e", "-f", "{{if or .TestGoFiles .XTestGoFiles .Error}}{{.ImportPath}}{{end}}"}, patterns...)
	out, err := exec.Command("go", args...).Output()
	if list := strings.Fields(string(out)); err == nil && len(list) > 0 {
		return list
	}
	return patterns
}

// follow reads the events of go test -json.
func (c *check) follow(r io.Reader) {
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadBytes('\n')
		if line = bytes.TrimSpace(line); len(line) > 0 {
			c.event(line)
		}
		if err != nil {
			return
		}
	}
}
