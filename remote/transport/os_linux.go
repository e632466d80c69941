package transport

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
)

// start starts a program in a process group of its own. If the router is killed so is the
// program: nobody would hear that it delivered the message, which would be sent once more.
// The kernel takes the end of the thread that started it for the end of the router, so that
// thread is kept until ended is closed.
func start(args []string, attr *os.ProcAttr, ended <-chan struct{}) (*os.Process, error) {
	attr.Sys = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	type result struct {
		process *os.Process
		err     error
	}
	started := make(chan result, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer func() {
			if p := recover(); p != nil {
				started <- result{err: fmt.Errorf("panic while starting a program: %v", p)}
			}
		}()
		process, err := os.StartProcess(args[0], args, attr)
		started <- result{process, err}
		if err == nil {
			<-ended
		}
	}()
	r := <-started
	return r.process, r.err
}

// runToEnd runs a program to its end, which comes with the end of this process at the latest, for the same
// reason. The error is that of starting it, a *startError, or that of Wait.
func runToEnd(cmd *exec.Cmd) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return &startError{err}
	}
	return cmd.Wait()
}
