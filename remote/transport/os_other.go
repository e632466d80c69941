//go:build !linux

package transport

import (
	"os"
	"os/exec"
	"syscall"
)

// start starts a program in a process group of its own.
func start(args []string, attr *os.ProcAttr, _ <-chan struct{}) (*os.Process, error) {
	attr.Sys = &syscall.SysProcAttr{Setpgid: true}
	return os.StartProcess(args[0], args, attr)
}

// runToEnd runs a program to its end. The error is that of starting it, a *startError, or that of Wait.
func runToEnd(cmd *exec.Cmd) error {
	if err := cmd.Start(); err != nil {
		return &startError{err}
	}
	return cmd.Wait()
}
