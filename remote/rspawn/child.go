package rspawn

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"

	"nightmare.mail/mxf/remote/rspawn/dialect"
)

const (
	// maxReports is how much of a process's reports is kept, in bytes. A recipient's has
	// 5,000 bytes of the server's words, the message's likewise.
	maxReports = 1 << 17
	// firstLook and lastLook are the shortest and the longest time between two looks at a
	// process that is about to end. To wait in the kernel would take a thread each.
	firstLook = time.Millisecond
	lastLook  = 50 * time.Millisecond
)

// children are the processes that this one has started. If this one ends, they are killed
// where the system can do that: it takes the end of the thread that started one for the end
// of this process, so one thread starts them all, and stays.
type children struct {
	requests chan request

	mu   sync.Mutex
	pids map[int]bool // those that were not waited for
}

type request struct {
	path   string
	argv   []string
	env    []string
	files  []*os.File
	free   bool
	result chan<- started
}

type started struct {
	pid int
	err error
}

func newChildren() *children {
	c := &children{requests: make(chan request), pids: make(map[int]bool)}
	go func() {
		runtime.LockOSThread()
		for r := range c.requests {
			r.result <- c.fork(r)
		}
	}()
	return c
}

// start runs a program with these files as its descriptors 0, 1, 2...
func (c *children) start(path string, argv, env []string, files ...*os.File) (pid int, err error) {
	return c.ask(request{path: path, argv: argv, env: env, files: files})
}

// startFree is start for a program that sees the end of this process by itself, and has to do something
// before its own.
func (c *children) startFree(path string, argv, env []string, files ...*os.File) (pid int, err error) {
	return c.ask(request{path: path, argv: argv, env: env, files: files, free: true})
}

func (c *children) ask(r request) (pid int, err error) {
	result := make(chan started, 1)
	r.result = result
	c.requests <- r
	s := <-result
	return s.pid, s.err
}

func (c *children) fork(r request) (s started) {
	defer func() {
		if cause := recover(); cause != nil {
			s.err = fmt.Errorf("panic while starting a program: %v", cause)
		}
	}()
	attr := syscall.ProcAttr{Env: r.env, Sys: tied()}
	if r.free {
		attr.Sys = &syscall.SysProcAttr{Setpgid: true}
	}
	for _, f := range r.files {
		attr.Files = append(attr.Files, f.Fd())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s.pid, s.err = syscall.ForkExec(r.path, r.argv, &attr)
	if s.err == nil {
		c.pids[s.pid] = true
	}
	runtime.KeepAlive(r.files)
	return s
}

// kill kills a process and its group, if it has not ended.
func (c *children) kill(pid int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pids[pid] {
		_ = syscall.Kill(-pid, syscall.SIGKILL)
	}
}

// killAll kills all processes.
func (c *children) killAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for pid := range c.pids {
		_ = syscall.Kill(-pid, syscall.SIGKILL)
	}
}

// await waits for a process and returns how it ended.
func (c *children) await(pid int) dialect.Ending {
	for pause := firstLook; ; pause = min(2*pause, lastLook) {
		if how, ended := c.look(pid); ended {
			return how
		}
		time.Sleep(pause)
	}
}

// awaitFor is await, and kills a process that has not ended after a time.
func (c *children) awaitFor(pid int, most time.Duration) dialect.Ending {
	watch := time.AfterFunc(most, func() { c.kill(pid) })
	defer watch.Stop()
	return c.await(pid)
}

// unknownEnd is the exit status of a process that was not ours to wait for.
const unknownEnd = 111

func (c *children) look(pid int) (how dialect.Ending, ended bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var status syscall.WaitStatus
	got, err := syscall.Wait4(pid, &status, syscall.WNOHANG, nil)
	switch {
	case err == syscall.EINTR || err == nil && got == 0:
		return how, false
	case err != nil:
		how.Status = unknownEnd
	case status.Exited():
		how.Status = status.ExitStatus()
	case status.Signaled():
		how.Signal = status.Signal()
	default:
		return how, false // stopped
	}
	delete(c.pids, pid)
	return how, true
}

// reports returns what comes out of r, to its end, whoever has the other end. What is too
// much is read and forgotten.
func reports(r io.Reader) []byte {
	kept, _ := io.ReadAll(io.LimitReader(r, maxReports))
	_, _ = io.Copy(io.Discard, r)
	return kept
}
