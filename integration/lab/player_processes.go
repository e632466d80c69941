package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// workerName is what the worker of mxf-rspawn is called.
const workerName = "mxf-rspawn-worker"

// Processes returns the process and all that it has started, by what they inherited.
func (p *Player) Processes() []int { return marked(p.mark) }

// Worker returns the process of the worker, or 0.
func (p *Player) Worker() int {
	list := p.Workers()
	if len(list) == 0 {
		return 0
	}
	return list[0]
}

// Workers returns all children that are called as the worker is. There should be one.
func (p *Player) Workers() (pids []int) {
	list, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range list {
		stat, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		// Behind the name, which may hold anything: state, parent.
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		if len(fields) < 2 || fields[0] == "Z" || fields[1] != strconv.Itoa(p.Pid()) {
			continue
		}
		cmdline, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline"))
		name, _, _ := strings.Cut(string(cmdline), "\x00")
		if filepath.Base(name) != workerName {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// AwaitWorker returns the worker as soon as there is one that is not the process other.
func (p *Player) AwaitWorker(ctx context.Context, other int) (int, error) {
	for {
		for _, pid := range p.Workers() {
			if pid != other {
				return pid, nil
			}
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("no worker: %w", ctx.Err())
		case <-time.After(look):
		}
	}
}

// SignalWorker sends the worker a signal, and returns which process it was.
func (p *Player) SignalWorker(s syscall.Signal) (int, error) {
	pid := p.Worker()
	if pid == 0 {
		return 0, errors.New("there is no worker")
	}
	return pid, syscall.Kill(pid, s)
}

// Pss returns the memory of all processes, in bytes: each page is divided by how many
// processes have it.
func (p *Player) Pss() (total int64, err error) {
	for _, pid := range p.Processes() {
		n, err := pss(pid)
		if err != nil {
			return 0, err
		}
		total += n
	}
	return total, nil
}

func pss(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if os.IsNotExist(err) || errors.Is(err, syscall.ESRCH) {
		return 0, nil // it has ended
	}
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "Pss:"); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			return n << 10, err
		}
	}
	return 0, fmt.Errorf("process %d says nothing of its memory", pid)
}

// Descriptors returns how many descriptors the process and its worker have open, without
// those of other programs.
func (p *Player) Descriptors() (n int) {
	for _, pid := range append(p.Workers(), p.Pid()) {
		list, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		n += len(list)
	}
	return n
}

// Others returns the processes that are neither the one that was started nor the worker: a
// process for each delivery, or programs that control files name.
func (p *Player) Others() []int {
	workers := append(p.Workers(), p.Pid())
	return slices.DeleteFunc(p.Processes(), func(pid int) bool { return slices.Contains(workers, pid) })
}
