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

// Rename has ps(1), top(1) and the log of the kernel show this process by name, of which they
// have 15 bytes. They have the name of the file that was run, which is exe where that is
// /proc/self/exe. Systems without this file (proc(5)) show the name in the arguments.
func Rename(name string) { _ = os.WriteFile("/proc/self/comm", []byte(name), 0) }

// FirstFree is the lowest descriptor that is not one of the standard three.
const FirstFree = 3

// lastProbed ends the search for open descriptors where the system cannot list
// them; the limit on their number can be a billion.
const lastProbed = 1 << 16

// Seal marks every descriptor from 3 on close-on-exec. So a program that is started later
// gets only what is handed to it, and nothing that the caller left open by accident.
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

// Inherited returns an error if fd did not come from the caller: it is not open, or it is
// one of Go's own, which are all close-on-exec. Call it before [Seal].
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

// Closed reports whether descriptor fd, 0 or 1, was closed when the program was started.
// Then Go's runtime has opened /dev/null there before main, for reading and writing.
// A caller who wants an empty input, or no output, opens it one way.
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

// NoCore prevents core files: a client's key may be in one.
func NoCore() { _ = unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}) }

// endings returns the signals with which people and shells end a program: SIGTERM, SIGINT
// and SIGHUP, without those that are ignored, because of nohup(1).
func endings() []os.Signal {
	return slices.DeleteFunc([]os.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP}, signal.Ignored)
}

// OnEnd calls clean when a signal of endings comes, and then ends the process by that
// signal. It does so until stop is called.
func OnEnd(clean func()) (stop func()) {
	signals := endings()
	if len(signals) == 0 {
		return func() {} // Notify without signals would mean all
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

// Deaf has the signals do nothing by which people end a program or have it report: they are for
// another process of it, and come to all of a group. Programs that are started do not inherit that.
func Deaf() {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGUSR1)
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

// File wraps a descriptor that no other process shares. Go's poller waits for it, so
// Close ends a Read.
func File(fd int, name string) (*os.File, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, notOpen(fd, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// SpawnSelf runs the executable of this process once more, with the arguments argv, of
// which the first is its name. Its descriptors 0, 1, 2... are fds, in order, and it gets
// no others.
func SpawnSelf(argv, environ []string, fds []int) (pid int, err error) {
	self, err := Self()
	if err != nil {
		return 0, Fail(ExitTemporary, "unable to find my own executable: %w", err)
	}
	files := make([]uintptr, len(fds))
	for i, fd := range fds {
		files[i] = uintptr(fd)
	}
	// os.StartProcess would probe for pidfds, which are of no use here.
	pid, err = syscall.ForkExec(self, argv, &syscall.ProcAttr{Env: environ, Files: files})
	if err != nil {
		return 0, Fail(ExitTemporary, "unable to run %q: %w", self, err)
	}
	return pid, nil
}

// Wait waits for the child pid and returns its exit status, or the signal that ended it.
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

// A Place is a descriptor and the number under which a program expects it.
type Place struct{ FD, Number int }

// Exec replaces this process by the program at path, which gets the standard descriptors
// and those of places. It returns only on failure: the error has exit status 127 if there
// is no such program, and otherwise 126. Some descriptors may have been moved by then.
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

// executable returns why the file at path cannot be executed, as far as that shows
// without a try.
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

// Silence points descriptor 2 at /dev/null.
func Silence() error {
	null, err := Null()
	if err != nil {
		return err
	}
	defer Close(null)
	return os.NewSyscallError("dup2", dup2(null, 2))
}

// CatchSIGPIPE makes a write to a pipe that nobody reads fail with EPIPE on descriptors 1
// and 2 too. The signal is caught and not ignored: a program that is run from here
// inherits what is ignored.
func CatchSIGPIPE() {
	// Nobody reads the channel: a signal that finds it full is dropped.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
}

// Output is descriptor 1 for a program that writes there once, in the end. If nobody
// reads it the error is EPIPE, as after [CatchSIGPIPE], which costs a thread.
type Output struct{}

func (Output) Write(p []byte) (n int, err error) {
	for n < len(p) {
		m, err := unix.Write(1, p[n:])
		switch err {
		case nil:
			n += m
		case unix.EINTR:
		case unix.EAGAIN: // another process has made it non-blocking
			_, _ = unix.Poll([]unix.PollFd{{Fd: 1, Events: unix.POLLOUT}}, -1)
		default:
			return n, os.NewSyscallError("write", err)
		}
	}
	return n, nil
}

// An Identity is the user and group that a process is to become. With the zero Identity
// it stays what it is.
type Identity struct {
	uid, gid int
	set      bool
}

// NewIdentity returns the identity of a user with a group.
func NewIdentity(uid, gid int) Identity { return Identity{uid: uid, gid: gid, set: true} }

// Owner returns the identity of the owner of a file and of its group, the zero Identity if there
// is no such file.
func Owner(path string) Identity {
	var is syscall.Stat_t
	if syscall.Stat(path, &is) != nil {
		return Identity{}
	}
	return NewIdentity(int(is.Uid), int(is.Gid))
}

// maxID is the highest user or group number. To the system calls the next one means "no
// change".
const maxID = 1<<32 - 2

// ReadIdentity reads TLS_UID and TLS_GID. Its error has exit status 100 if one of them is
// not a number, or is set without the other: the process would keep half of root's
// identity.
func ReadIdentity(environ []string) (Identity, error) {
	uid, err := readID(environ, "TLS_UID")
	if err != nil {
		return Identity{}, err
	}
	gid, err := readID(environ, "TLS_GID")
	if err != nil {
		return Identity{}, err
	}
	switch {
	case uid.set && !gid.set:
		return Identity{}, Fail(ExitUsage, "TLS_UID is set and TLS_GID is not: set both or none")
	case gid.set && !uid.set:
		return Identity{}, Fail(ExitUsage, "TLS_GID is set and TLS_UID is not: set both or none")
	}
	return Identity{uid: uid.number, gid: gid.number, set: uid.set}, nil
}

// An id is the number of a user or group, if the environment has one.
type id struct {
	number int
	set    bool
}

func readID(environ []string, name string) (id, error) {
	text, set := Lookup(environ, name)
	if !set {
		return id{}, nil
	}
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil || n > maxID {
		return id{}, Fail(ExitUsage, "%s is %q, which is not a number that a user or group can have", name, text)
	}
	return id{int(n), true}, nil
}

// Assume changes the supplementary groups, the group and the user of this process, in
// all its threads and for good: to these groups and to those of id. It does nothing unless the process is root's.
func (id Identity) Assume(groups ...int) error {
	if os.Geteuid() != 0 || !id.set {
		return nil
	}
	if err := syscall.Setgroups(append([]int{}, groups...)); err != nil {
		return Fail(ExitTemporary, "unable to change supplementary groups: %w", err)
	}
	if err := syscall.Setgid(id.gid); err != nil {
		return Fail(ExitTemporary, "unable to become group %d: %w", id.gid, err)
	}
	if err := syscall.Setuid(id.uid); err != nil {
		return Fail(ExitTemporary, "unable to become user %d: %w", id.uid, err)
	}
	return nil
}
