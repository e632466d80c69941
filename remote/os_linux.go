package remote

import "syscall"

// ownGroup starts a chain in a process group of its own. If the router is killed
// so is the chain: nobody would hear that it delivered the message, which would be
// sent once more.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
