//go:build !linux

package main

import "syscall"

// ownMounts does nothing: then the other program cannot be given a home, and its figure
// says so.
func ownMounts() *syscall.SysProcAttr { return new(syscall.SysProcAttr) }
