//go:build !linux

package rspawn

import (
	"os"
	"syscall"
)

// tied returns the attributes of a process that is the first of its group. It sees the end
// of its socket or pipe when this process ends.
func tied() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// self returns a path to the executable of this process.
func self() (string, error) { return os.Executable() }
