package peers

import "syscall"

// dieWithParent has a server end with the thread that started it.
func dieWithParent(a *syscall.SysProcAttr) { a.Pdeathsig = syscall.SIGTERM }

// makeMemoryDevice makes /dev/null or one of its kin.
func makeMemoryDevice(path string, minor int) error {
	return syscall.Mknod(path, syscall.S_IFCHR|0o666, 1<<8|minor)
}
