package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"nightmare.mail/mxf/integration/bench/runs"
)

// A sinkProcess is the sink as its parent sees it.
type sinkProcess struct {
	cmd   *exec.Cmd
	in    io.WriteCloser
	out   *bufio.Reader
	facts sinkFacts
}

func startSink(ctx context.Context, certFile, keyFile string) (*sinkProcess, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	s := &sinkProcess{cmd: exec.CommandContext(ctx, self, "sink", certFile, keyFile)}
	s.cmd.Stderr = os.Stderr
	if s.in, err = s.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	s.out = bufio.NewReader(out)
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	if err := s.hear(&s.facts); err != nil {
		s.stop()
		return nil, err
	}
	return s, nil
}

func (s *sinkProcess) hear(answer any) error {
	line, err := s.out.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("the sink is gone: %w", err)
	}
	return json.Unmarshal(line, answer)
}

func (s *sinkProcess) ask(command string, answer any) error {
	if _, err := io.WriteString(s.in, command+"\n"); err != nil {
		return err
	}
	return s.hear(answer)
}

func (s *sinkProcess) stop() {
	_ = s.in.Close()
	_ = s.cmd.Wait()
}

// launch has the launcher run programs. Every run must succeed, and what it prints must
// report an acceptance.
func (b *bench) launch(job runs.Job) ([]runs.Result, error) {
	return b.launchIn(job, nil)
}

func (b *bench) launchIn(job runs.Job, attributes *syscall.SysProcAttr) ([]runs.Result, error) {
	spec, err := json.Marshal(job)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(b.ctx, b.launcher)
	cmd.SysProcAttr = attributes
	cmd.Stdin, cmd.Stderr = bytes.NewReader(spec), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, err
	}
	var results []runs.Result
	if err := json.Unmarshal(out, &results); err != nil {
		return nil, err
	}
	for i, r := range results {
		silent := filepath.Base(job.Runs[i][0]) == "empty"
		if r.Exit != 0 || !silent && !strings.Contains(r.Output, "K") {
			return nil, fmt.Errorf("%q: exit status %d, %q", job.Runs[i], r.Exit, r.Output)
		}
	}
	return results, nil
}

// alternate runs several programs n times, in turn, so that other work of the machine
// affects all alike. Each round begins with another program, because the order matters
// too.
func (b *bench) alternate(n int, stdin string, environ []string, programs ...[]string) ([][]runs.Result, error) {
	return b.alternateIn(n, stdin, slices.Repeat([][]string{environ}, len(programs)), programs)
}

// alternateIn is alternate for programs that each have an environment of their own.
func (b *bench) alternateIn(n int, stdin string, environs, programs [][]string) ([][]runs.Result, error) {
	job := runs.Job{Stdin: stdin}
	turn := func(i int) int { return (i%len(programs) + i/len(programs)) % len(programs) }
	for i := range n * len(programs) {
		job.Runs = append(job.Runs, programs[turn(i)])
		job.Environs = append(job.Environs, environs[turn(i)])
	}
	all, err := b.launch(job)
	if err != nil {
		return nil, err
	}
	results := make([][]runs.Result, len(programs))
	for i, r := range all {
		results[turn(i)] = append(results[turn(i)], r)
	}
	return results, nil
}

// values returns one value of each result, sorted.
func values[T int64 | time.Duration](results []runs.Result, value func(runs.Result) T) []T {
	list := make([]T, len(results))
	for i, r := range results {
		list[i] = value(r)
	}
	slices.Sort(list)
	return list
}

func wall(r runs.Result) time.Duration { return r.Wall }
func cpu(r runs.Result) time.Duration  { return r.CPU }
func peak(r runs.Result) int64         { return r.Peak }

func median[T any](sorted []T) T { return sorted[len(sorted)/2] }

// nearlyAll returns the value that 95 of 100 do not exceed.
func nearlyAll[T any](sorted []T) T { return sorted[len(sorted)*95/100] }

func mean(list []time.Duration) time.Duration {
	var sum time.Duration
	for _, d := range list {
		sum += d
	}
	return sum / time.Duration(len(list))
}

// descendants returns a process and everything that it has started, directly or not.
func descendants(pid int) []int {
	all := []int{pid}
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, path := range lists {
		list, _ := os.ReadFile(path)
		for _, field := range strings.Fields(string(list)) {
			if child, err := strconv.Atoi(field); err == nil {
				all = append(all, descendants(child)...)
			}
		}
	}
	return all
}

// A footprint is the memory of a process tree, bytes.
type footprint struct{ pss, private int64 }

func memory(pid int) (f footprint, err error) {
	for _, p := range descendants(pid) {
		rollup, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", p))
		if err != nil {
			return f, err
		}
		for line := range strings.Lines(string(rollup)) {
			fields := strings.Fields(line)
			if len(fields) != 3 || fields[2] != "kB" {
				continue
			}
			kb, err := strconv.ParseInt(fields[1], 10, 64)
			if err != nil {
				return f, err
			}
			switch fields[0] {
			case "Pss:":
				f.pss += kb << 10
			case "Private_Clean:", "Private_Dirty:":
				f.private += kb << 10
			}
		}
	}
	return f, nil
}

// threads returns how many threads a process has.
func threads(pid int) int {
	list, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	return len(list)
}

// A held is a number of deliveries that wait for a slow server.
type held struct {
	b    *bench
	cmds []*exec.Cmd
	outs []*bytes.Buffer
}

// heldLimit is how long deliveries may take to get as far as they are held.
const heldLimit = 30 * time.Second

// hold starts n deliveries and returns when all of them wait for the server. After an
// error it returns those that run.
func (b *bench) hold(n int, environ, argv []string) (*held, error) {
	h := &held{b: b}
	for range n {
		message, err := os.Open(b.small)
		if err != nil {
			return h, err
		}
		cmd := exec.CommandContext(b.ctx, argv[0], argv[1:]...)
		out := new(bytes.Buffer)
		cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = environ, message, out, out
		err = cmd.Start()
		message.Close()
		if err != nil {
			return h, err
		}
		h.cmds, h.outs = append(h.cmds, cmd), append(h.outs, out)
	}
	for end := time.Now().Add(heldLimit); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		var waiting int
		if err := b.sink.ask("held", &waiting); err != nil {
			return h, err
		}
		if waiting == n {
			return h, nil
		}
	}
	return h, errors.New("the deliveries did not get as far as the server")
}

// release makes the server answer, and waits for the deliveries to end.
func (h *held) release() error {
	var answer string
	err := h.b.sink.ask("release", &answer)
	for i, cmd := range h.cmds {
		if failed := cmd.Wait(); failed != nil || !strings.Contains(h.outs[i].String(), "K") {
			err = errors.Join(err, failed, fmt.Errorf("a delivery ended with %q", h.outs[i]))
		}
	}
	return err
}
