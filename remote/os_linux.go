package remote

import (
	"syscall"

	"golang.org/x/sys/unix"
)

const fionread = unix.TIOCINQ // the number of FIONREAD on Linux

// ownGroup starts a chain in a process group of its own. If the router is killed
// so is the chain: nobody would hear that it delivered the message, which would be
// sent once more.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
