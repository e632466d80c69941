//go:build !linux

package peers

import (
	"errors"
	"syscall"
)

// dieWithParent does nothing: this system knows no such signal.
func dieWithParent(*syscall.SysProcAttr) {}

// makeMemoryDevice fails: the numbers are Linux's.
func makeMemoryDevice(string, int) error { return errors.ErrUnsupported }
