package integration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"

	"nightmare.mail/mxf/integration/lab"
	"nightmare.mail/mxf/integration/must"
)

// Setup: a lab with twenty exchangers, one of which refuses every recipient, one
// of which hangs up in the middle of every message, and two of which are slow;
// every fourth has TLS. The test is a qmail-rspawn with loadSlots slots that are
// always full.
//
// Test: each message is accounted for exactly once: its reports are complete and
// say what became of it, and it has arrived as often as they say. No process and
// no descriptor is left. What a delivery holds in memory is a figure of make bench:
// how many are at which point of their conversations, and so the mean of those that
// are looked at, depends on what else the machine does.

const (
	loadMessages = 5000
	loadFew      = 600 // in -short mode and under the race detector
	loadSlots    = 120 // qmail's concurrencyremote is 20 by default and 120 at most
	loadServers  = 20
	loadSlow     = 2 // of them
	loadPause    = 300 * time.Millisecond
	loadLimit    = 10 * time.Minute
)

// conduct is what a server does.
type conduct struct {
	letter byte // of the message report
	smtp   lab.SMTP
}

func conductOf(server int) conduct {
	switch {
	case server < loadSlow:
		pause := lab.Fault{Delay: loadPause}
		return conduct{'K', lab.SMTP{Faults: lab.Faults{lab.Greeting: pause, lab.MAIL: pause, lab.End: pause}}}
	case server == loadSlow:
		return conduct{'D', lab.SMTP{Faults: lab.Faults{lab.RCPT: {Reply: "550 5.1.1 nobody here"}}}}
	case server == loadSlow+1:
		return conduct{'Z', lab.SMTP{Faults: lab.Faults{lab.Body: {Drop: true}}}}
	}
	return conduct{letter: 'K'}
}

// loadCount returns the number of messages.
func loadCount(t *testing.T) int {
	if testing.Short() {
		t.Logf("-short: %d messages in place of %d", loadFew, loadMessages)
		return loadFew
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "-race" && s.Value == "true" {
				t.Logf("race detector: %d messages in place of %d", loadFew, loadMessages)
				return loadFew
			}
		}
	}
	return loadMessages
}

func TestLoad_everyMessageOnce(t *testing.T) {
	if _, err := os.Stat("/proc/self/environ"); err != nil {
		t.Skip("what is left behind is found in /proc")
	}
	count, program := loadCount(t), filepath.Join(programs(t), "mxf-remote")
	before := openDescriptors(t)
	ctx, cancel := context.WithTimeout(t.Context(), loadLimit)
	defer cancel()
	l := loadLab(t)
	message := filepath.Join(t.TempDir(), "message")
	put(t, message, []byte("Subject: load\n\n"+strings.Repeat("a line of text, and not a long one\n.\n", 90)))

	mark := fmt.Sprintf("MXF_LOAD=%d.%d", os.Getpid(), time.Now().UnixNano())
	spawner := &loadSpawner{
		program: program, message: message, dir: t.TempDir(),
		environ: append(l.Environ(), mark, "GOCOVERDIR="+coverageIfAny(t)),
	}
	begin := time.Now()
	outcomes := spawner.deliver(ctx, count)
	took := time.Since(begin)

	loadAccount(t, l, outcomes)
	if left := processesWith(mark); len(left) != 0 {
		t.Errorf("processes are left: %v", left)
	}
	must.Check(t, errors.Join(l.Close(), l.Inbox.Wrong()))
	if after := openDescriptors(t); after > before {
		t.Errorf("%d descriptors were open before, %d are after", before, after)
	}
	t.Logf("%d messages in %.1f s", count, took.Seconds())
}

// loadLab starts the servers; mail for dN.example goes to the Nth.
func loadLab(t *testing.T) *lab.Lab {
	l := must.Get(lab.Open(t.TempDir()))(t)
	t.Cleanup(func() { l.Close() })
	must.OK(t, l.Home.Trust(l.Authority))
	var zone strings.Builder
	for n := range loadServers {
		addr := netip.AddrFrom4([4]byte{127, 0, 1, byte(n + 1)})
		name := fmt.Sprintf("mx%d.example", n)
		config := conductOf(n).smtp
		config.Name = name
		if n%4 == 0 {
			config.TLS.Certificate = l.Certificate(name)
		}
		must.Get(l.SMTP(addr, config))(t)
		fmt.Fprintf(&zone, "d%d.example MX 10 %s\n%s A %s\n", n, name, name, addr)
	}
	must.OK(t, l.Zone(zone.String()))
	return l
}

// A loadOutcome is what came out of one delivery.
type loadOutcome struct {
	raw  []byte
	exit int
	err  error // of starting it or reading its reports
}

// A loadSpawner is the qmail-rspawn.
type loadSpawner struct {
	program, message, dir string
	environ               []string
}

func loadSender(n int) string { return fmt.Sprintf("bounce-%d@sender.example", n) }
func loadHost(n int) string   { return fmt.Sprintf("d%d.example", n%loadServers) }

// deliver runs count deliveries and keeps the slots filled.
func (s *loadSpawner) deliver(ctx context.Context, count int) []loadOutcome {
	outcomes := make([]loadOutcome, count)
	next := make(chan int)
	var slots sync.WaitGroup
	for range loadSlots {
		slots.Go(func() {
			for n := range next {
				outcomes[n] = s.one(ctx, n)
			}
		})
	}
	for n := range count {
		next <- n
	}
	close(next)
	slots.Wait()
	return outcomes
}

func (s *loadSpawner) one(ctx context.Context, n int) (o loadOutcome) {
	message, err := os.Open(s.message)
	if err != nil {
		return loadOutcome{err: err}
	}
	defer message.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return loadOutcome{err: err}
	}
	defer r.Close()
	cmd := exec.CommandContext(ctx, s.program, loadHost(n), loadSender(n), fmt.Sprintf("to-%d@%s", n, loadHost(n)))
	cmd.Env, cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = s.environ, s.dir, message, w, w
	err = cmd.Start()
	w.Close()
	if err != nil {
		return loadOutcome{err: err}
	}
	o.raw, err = io.ReadAll(r)
	o.err = err
	if err := cmd.Wait(); ctx.Err() != nil {
		o.err = errors.Join(o.err, err)
	}
	o.exit = cmd.ProcessState.ExitCode()
	return o
}

// loadAccount holds what the reports say against what the servers have.
func loadAccount(t *testing.T, l *lab.Lab, outcomes []loadOutcome) {
	t.Helper()
	arrived := make(map[string]int)
	for _, m := range l.Inbox.Messages() {
		arrived[m.Sender]++
	}
	var said [256]int
	wrong := 0
	for n, o := range outcomes {
		problem := loadProblem(n, o, arrived[loadSender(n)])
		if letter, _ := lab.Verdict(o.raw, o.exit); o.err == nil {
			said[letter]++
		}
		if problem == "" {
			continue
		}
		if wrong++; wrong <= 10 {
			t.Errorf("message %d to %s: %s", n, loadHost(n), problem)
		}
	}
	if wrong > 10 {
		t.Errorf("and %d more", wrong-10)
	}
	if len(arrived) > len(outcomes) {
		t.Errorf("%d messages arrived of %d", len(arrived), len(outcomes))
	}
	t.Logf("%d delivered, %d deferred, %d refused", said['K'], said['Z'], said['D'])
}

// loadProblem returns what is wrong with the account of the nth message, which has
// arrived so many times.
func loadProblem(n int, o loadOutcome, arrived int) string {
	want := conductOf(n % loadServers).letter
	if o.err != nil || o.exit != 0 {
		return fmt.Sprintf("exit status %d, %v, %q", o.exit, o.err, o.raw)
	}
	if _, err := lab.Reports(o.raw, 1); err != nil {
		return err.Error()
	}
	if letter, text := lab.Verdict(o.raw, o.exit); letter != want {
		return fmt.Sprintf("the verdict is %c %q, want %c", letter, text, want)
	}
	expected := 0
	if want == 'K' {
		expected = 1
	}
	if arrived != expected {
		return fmt.Sprintf("it was reported %c and has arrived %d times", want, arrived)
	}
	return ""
}

// openDescriptors counts those of this process, in which the servers are.
func openDescriptors(t *testing.T) int {
	t.Helper()
	list := must.Get(os.ReadDir("/proc/self/fd"))(t)
	return len(list)
}

// processesWith returns the processes that have an assignment in their environment.
func processesWith(assignment string) (pids []string) {
	list, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, path := range list {
		if environ, _ := os.ReadFile(path); bytes.Contains(environ, []byte(assignment+"\x00")) {
			pids = append(pids, strings.Split(path, "/")[2])
		}
	}
	return pids
}
