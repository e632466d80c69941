//go:build !linux

package transport

import (
	"os"
	"syscall"
)

// start starts a program in a process group of its own.
func start(args []string, attr *os.ProcAttr, _ <-chan struct{}) (*os.Process, error) {
	attr.Sys = &syscall.SysProcAttr{Setpgid: true}
	return os.StartProcess(args[0], args, attr)
}
