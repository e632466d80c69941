package chain

import (
	"errors"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// FirstFree is the lowest descriptor that is not one of the standard three.
const FirstFree = 3

// lastProbed ends the search for open descriptors where the system cannot list
// them; the limit on their number can be a billion.
const lastProbed = 1 << 16

// Seal has no descriptor from 3 on survive an exec, except those that Exec and
// Spawn hand over by name: what the caller left open by accident is no business of
// the programs that come after.
func Seal() {
	if sealAll(FirstFree) {
		return
	}
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		for fd := FirstFree; fd < lastProbed; fd++ {
			_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETFD, unix.FD_CLOEXEC)
		}
		return
	}
	for _, entry := range open {
		if fd, err := strconv.Atoi(entry.Name()); err == nil && fd >= FirstFree {
			_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETFD, unix.FD_CLOEXEC)
		}
	}
}

// Inherited returns an error when fd did not come from the caller: it is not
// open, or it is one of Go's own, which are all close-on-exec. To be asked before
// [Seal].
func Inherited(fd int) error {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	if err == nil && flags&unix.FD_CLOEXEC != 0 {
		err = unix.EBADF
	}
	if err != nil {
		return notOpen(fd, err)
	}
	return nil
}

// Pipe makes a pipe whose ends are close-on-exec and block.
func Pipe() (r, w int, err error) {
	var p [2]int
	err = pipe(&p)
	return p[0], p[1], err
}

// Socketpair makes a pair of stream sockets that are close-on-exec and block.
func Socketpair() (a, b int, err error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	p, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		return -1, -1, os.NewSyscallError("socketpair", err)
	}
	syscall.CloseOnExec(p[0])
	syscall.CloseOnExec(p[1])
	return p[0], p[1], nil
}

// Closed reports whether descriptor fd, 0 or 1, was closed when the program was started:
// Go's runtime opens /dev/null there, both ways, before main. Somebody who wants to have
// nothing read or written opens it one way.
func Closed(fd int) bool {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return true
	}
	var is, null unix.Stat_t
	if unix.Fstat(fd, &is) != nil || uint32(is.Mode)&unix.S_IFMT != unix.S_IFCHR ||
		unix.Stat(os.DevNull, &null) != nil || is.Rdev != null.Rdev {
		return false
	}
	return flags&unix.O_ACCMODE == unix.O_RDWR
}

// NoCore has a crash leave no core file: there may be a client's key in it.
func NoCore() { _ = unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}) }

// endings are the signals by which people and shells end a program: SIGTERM, SIGINT and
// SIGHUP. One that is ignored stays so: nohup(1).
func endings() []os.Signal {
	return slices.DeleteFunc([]os.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP}, signal.Ignored)
}

// OnEnd has clean called when a signal of [endings] comes, and the signal then do what it
// would have done. It lasts until stop is called.
func OnEnd(clean func()) (stop func()) {
	signals := endings()
	if len(signals) == 0 {
		return func() {} // Notify takes none for all
	}
	came, done := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(came, signals...)
	go func() {
		select {
		case s := <-came:
			func() {
				defer func() { _ = recover() }()
				clean()
			}()
			signal.Reset(s)
			if number, ok := s.(syscall.Signal); ok {
				_ = syscall.Kill(os.Getpid(), number)
			}
		case <-done:
		}
	}()
	return func() {
		signal.Stop(came)
		close(done)
	}
}

// Null opens /dev/null for both directions, close-on-exec.
func Null() (int, error) {
	fd, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, Fail(ExitTemporary, "unable to open %s: %w", os.DevNull, err)
	}
	return fd, nil
}

// Close closes descriptors.
func Close(fds ...int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}

// File wraps a descriptor that no other process shares, so that Go's poller
// takes care of it and a Close wakes a Read.
func File(fd int, name string) (*os.File, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, notOpen(fd, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// SpawnSelf runs the executable of this process once more, under the name and
// with the arguments argv. Its descriptors 0, 1, 2... are fds, in order, and it
// has no others.
func SpawnSelf(argv, environ []string, fds []int) (pid int, err error) {
	self, err := Self()
	if err != nil {
		return 0, Fail(ExitTemporary, "unable to find my own executable: %w", err)
	}
	files := make([]uintptr, len(fds))
	for i, fd := range fds {
		files[i] = uintptr(fd)
	}
	// Not os.StartProcess: its pidfd is of no use here and costs a probe.
	pid, err = syscall.ForkExec(self, argv, &syscall.ProcAttr{Env: environ, Files: files})
	if err != nil {
		return 0, Fail(ExitTemporary, "unable to run %q: %w", self, err)
	}
	return pid, nil
}

// Wait reaps the child pid and returns its exit status, or the signal that
// ended it.
func Wait(pid int) (status int, by syscall.Signal, err error) {
	for {
		var ws syscall.WaitStatus
		_, err := syscall.Wait4(pid, &ws, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return 0, 0, os.NewSyscallError("wait", err)
		case ws.Exited():
			return ws.ExitStatus(), 0, nil
		case ws.Signaled():
			return 0, ws.Signal(), nil
		}
	}
}

// A Place is a descriptor and the number that a program shall find it under.
type Place struct{ FD, Number int }

// Exec replaces this process by the program at path, with the descriptors of
// places besides the standard three. It returns only on failure, with exit status
// 127 when there is no such program and 126 otherwise; the descriptors may have
// been moved by then.
func Exec(path string, argv, environ []string, places ...Place) error {
	for _, p := range places {
		if err := place(p); err != nil {
			return Fail(ExitTemporary, "unable to move descriptor %d to %d: %w", p.FD, p.Number, err)
		}
	}
	return cannotRun(argv[0], syscall.Exec(path, argv, environ))
}

func place(p Place) error {
	if p.FD != p.Number {
		return dup2(p.FD, p.Number)
	}
	_, err := unix.FcntlInt(uintptr(p.FD), unix.F_SETFD, 0)
	return err
}

// executable returns why the file at path cannot be executed, as far as that
// can be told without trying.
func executable(path string) error {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return err
	}
	if uint32(st.Mode)&unix.S_IFMT != unix.S_IFREG {
		return unix.EACCES
	}
	return unix.Access(path, unix.X_OK)
}

// Silence lets nothing more come out of descriptor 2.
func Silence() error {
	null, err := Null()
	if err != nil {
		return err
	}
	defer Close(null)
	return os.NewSyscallError("dup2", dup2(null, 2))
}

// CatchSIGPIPE has a write to a pipe that nobody reads fail with EPIPE on
// descriptors 1 and 2 too. The signal is caught, not ignored, so that programs
// run from here get the default disposition back.
func CatchSIGPIPE() {
	// Nobody reads the channel: a signal that finds it full is dropped.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
}

// Output is descriptor 1 for a program that says there, in the end, all that it
// has to say. When nobody reads it the error is EPIPE, as after [CatchSIGPIPE], but
// without the thread that this costs.
type Output struct{}

func (Output) Write(p []byte) (n int, err error) {
	for n < len(p) {
		m, err := unix.Write(1, p[n:])
		switch err {
		case nil:
			n += m
		case unix.EINTR:
		case unix.EAGAIN: // somebody else has made it so
			_, _ = unix.Poll([]unix.PollFd{{Fd: 1, Events: unix.POLLOUT}}, -1)
		default:
			return n, os.NewSyscallError("write", err)
		}
	}
	return n, nil
}

// An Identity is whom to become. The zero Identity is to stay who one is.
type Identity struct {
	uid, gid int
	set      bool
}

// maxID is the highest user or group number; the one above it means "leave
// as it is" to the system calls.
const maxID = 1<<32 - 2

// ReadIdentity reads TLS_UID and TLS_GID. The error's exit status is 100 when one of
// them is not a number, or there without the other: half of an identity would leave
// root's in place.
func ReadIdentity(environ []string) (Identity, error) {
	uid, setUID, err := number(environ, "TLS_UID")
	if err != nil {
		return Identity{}, err
	}
	gid, setGID, err := number(environ, "TLS_GID")
	if err != nil {
		return Identity{}, err
	}
	switch {
	case setUID && !setGID:
		return Identity{}, Fail(ExitUsage, "TLS_UID is set and TLS_GID is not: set both or none")
	case setGID && !setUID:
		return Identity{}, Fail(ExitUsage, "TLS_GID is set and TLS_UID is not: set both or none")
	}
	return Identity{uid: uid, gid: gid, set: setUID}, nil
}

func number(environ []string, name string) (int, bool, error) {
	text, set := Lookup(environ, name)
	if !set {
		return 0, false, nil
	}
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil || n > maxID {
		return 0, false, Fail(ExitUsage, "%s is %q, which is not a number that a user or group can have", name, text)
	}
	return int(n), true, nil
}

// Assume gives up the supplementary groups, the group and the user of this
// process, of all its threads and for good. It does nothing unless the process
// is root's.
func (id Identity) Assume() error {
	if os.Geteuid() != 0 || !id.set {
		return nil
	}
	if err := syscall.Setgroups([]int{}); err != nil {
		return Fail(ExitTemporary, "unable to give up supplementary groups: %w", err)
	}
	if err := syscall.Setgid(id.gid); err != nil {
		return Fail(ExitTemporary, "unable to become group %d: %w", id.gid, err)
	}
	if err := syscall.Setuid(id.uid); err != nil {
		return Fail(ExitTemporary, "unable to become user %d: %w", id.uid, err)
	}
	return nil
}
