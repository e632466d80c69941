//go:build !linux

package remote

import "syscall"

// ownGroup starts a chain in a process group of its own.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
