package chain

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

const noSignal = unix.MSG_NOSIGNAL

// pipeRoom: a writable pipe has a free page at least (pipe(7)).
const pipeRoom = 4096

// RWF_NOWAIT works on pipes from Linux 6.4 on; before that the kernel says
// EOPNOTSUPP. An offset of -1 is the file's own.

func readNoWait(fd int, p []byte) (int, error) {
	return unix.Preadv2(fd, [][]byte{p}, -1, unix.RWF_NOWAIT)
}

func writeNoWait(fd int, p []byte) (int, error) {
	return unix.Pwritev2(fd, [][]byte{p}, -1, unix.RWF_NOWAIT)
}

func dup2(from, to int) error { return unix.Dup3(from, to, 0) }

// sealAll marks every descriptor from first on close-on-exec, in one call; false
// where the kernel (before 5.11) cannot.
func sealAll(first int) bool {
	return unix.CloseRange(uint(first), ^uint(0)>>1&0xffffffff, unix.CLOSE_RANGE_CLOEXEC) == nil
}

// growPipe makes a pipe larger where that is allowed.
func growPipe(fd, size int) { _, _ = unix.FcntlInt(uintptr(fd), unix.F_SETPIPE_SZ, size) }

// atExecFn is AT_EXECFN of getauxval(3): the path that was given to execve(2).
const atExecFn = 31

// startedAs returns the path of this program's execve, which the kernel has left in
// its memory; empty where it is not known.
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
