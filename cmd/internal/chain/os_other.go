//go:build unix && !linux

package chain

import "golang.org/x/sys/unix"

// noSignal is 0: not every BSD has MSG_NOSIGNAL, and Go turns SIGPIPE on a socket
// into EPIPE anyway.
const noSignal = 0

// pipeRoom is PIPE_BUF of the BSDs.
const pipeRoom = 512

func readNoWait(int, []byte) (int, error)  { return 0, unix.ENOSYS }
func writeNoWait(int, []byte) (int, error) { return 0, unix.ENOSYS }

func dup2(from, to int) error { return unix.Dup2(from, to) }

func sealAll(int) bool { return false }

// growPipe does nothing: the BSDs enlarge pipes themselves.
func growPipe(int, int) {}

// startedAs is not needed: os.Executable works without /proc, except on NetBSD.
func startedAs() string { return "" }
