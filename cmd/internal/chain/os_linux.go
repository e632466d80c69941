package chain

import (
	"math"
	"unsafe"

	"golang.org/x/sys/unix"
)

const noSignal = unix.MSG_NOSIGNAL

// pipeRoom is the size of a page: a writable pipe has at least one free (pipe(7)).
const pipeRoom = 4096

// RWF_NOWAIT works on pipes from Linux 6.4 on; older kernels return EOPNOTSUPP. An
// offset of -1 stands for the current one of the file.

func readNoWait(fd int, p []byte) (int, error) {
	return unix.Preadv2(fd, [][]byte{p}, -1, unix.RWF_NOWAIT)
}

func writeNoWait(fd int, p []byte) (int, error) {
	return unix.Pwritev2(fd, [][]byte{p}, -1, unix.RWF_NOWAIT)
}

func dup2(from, to int) error { return unix.Dup3(from, to, 0) }

// sealAll marks every descriptor from first on close-on-exec, in one call. It returns
// false if the kernel is too old for that (before 5.11).
func sealAll(first int) bool {
	return unix.CloseRange(uint(first), math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC) == nil
}

// growPipe enlarges a pipe where that is allowed.
func growPipe(fd, size int) { _, _ = unix.FcntlInt(uintptr(fd), unix.F_SETPIPE_SZ, size) }

// atExecFn is AT_EXECFN of getauxval(3): the path that was given to execve(2).
const atExecFn = 31

// startedAs returns the path that execve was given for this program. The kernel leaves it
// in the program's memory. It is empty if it is not known.
func startedAs() string {
	vector, err := unix.Auxv()
	if err != nil {
		return ""
	}
	for _, entry := range vector {
		if entry[0] == atExecFn && entry[1] != 0 {
			return unix.BytePtrToString((*byte)(unsafe.Add(unsafe.Pointer(nil), entry[1])))
		}
	}
	return ""
}
