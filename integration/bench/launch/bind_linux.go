package main

import (
	"os"
	"syscall"
)

// bind mounts the first folder over the second. This process has a mount name space of
// its own.
func bind(folders [2]string) error {
	if folders[0] == "" || folders[1] == "" {
		return nil
	}
	return os.NewSyscallError("mount", syscall.Mount(folders[0], folders[1], "", syscall.MS_BIND, ""))
}
