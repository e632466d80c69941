//go:build !linux

package remote

import "syscall"

// fionread is the BSDs' FIONREAD, _IOR('f', 127, int).
const fionread = 0x4004667f

// ownGroup starts a chain in a process group of its own.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
