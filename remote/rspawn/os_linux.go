package rspawn

import (
	"os"
	"syscall"
)

// tied returns the attributes of a process that is the first of its group, and is killed
// when the thread that started it ends.
func tied() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// own is the executable of this process, though the file may have been replaced.
const own = "/proc/self/exe"

// self returns a path to the executable of this process.
func self() (string, error) {
	if _, err := os.Stat(own); err == nil {
		return own, nil
	}
	return os.Executable()
}
