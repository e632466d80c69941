package chain

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"syscall"
)

// The exit codes of all programs; each manual page has its own.
const (
	ExitOK = 0

	// A protocol program with one of these has printed nothing, and the server cannot have
	// the message. The router decides by it what to try next.
	ExitNextExchanger = 75 // the connection was lost, or the server wants no mail now
	ExitNoTLS         = 76 // TLS failed, or is required and not offered
	ExitStumbled      = 77 // the server stumbled over several commands at once, or over an extension
	ExitNoEHLO        = 78 // the connection was lost before EHLO was answered

	// ExitNotFetched is that of mxf-policy: a policy could not be fetched, or there is none.
	ExitNotFetched = 75

	// ExitFuse: timeoutremote ran out. There are reports if a transaction had begun.
	ExitFuse = 124

	// A TLS client has these, as s6-tlsc has.
	ExitTLSSettings  = 96 // trust anchors or a client certificate cannot be used
	ExitTLSHandshake = 97 // the handshake failed
	ExitTLSRunning   = 98 // TLS failed after the handshake

	ExitUsage      = 100 // wrong usage
	ExitTemporary  = 111 // a system call failed
	ExitCannotExec = 126 // there is such a program and it cannot be run
	ExitNotFound   = 127 // there is no such program
)

// A Failure is an error that decides the exit status.
type Failure struct {
	Code int
	Err  error
}

func (f *Failure) Error() string { return f.Err.Error() }
func (f *Failure) Unwrap() error { return f.Err }

// ExitCode returns the exit status, for [ExitCode].
func (f *Failure) ExitCode() int { return f.Code }

// Fail returns a *Failure with a text made as by fmt.Errorf.
func Fail(code int, format string, a ...any) error {
	return &Failure{Code: code, Err: fmt.Errorf(format, a...)}
}

// ExitCode returns the exit status for err: 0 for nil, else what the first error
// of its tree that has an ExitCode method says, else 111. A code that no process
// can exit with, and a 0 that would hide an error, become 111.
func ExitCode(err error) int {
	if err == nil {
		return ExitOK
	}
	var coded interface{ ExitCode() int }
	if !errors.As(err, &coded) {
		return ExitTemporary
	}
	if code := coded.ExitCode(); code > 0 && code < 256 {
		return code
	}
	return ExitTemporary
}

// maxLine bounds a line on standard error, so that it goes into a pipe in one
// piece whatever else is written there (PIPE_BUF is 4096 on Linux and 512 by
// POSIX; the router quotes 1,000 bytes).
const maxLine = 2000

// Complain writes "program: kind: text" and a newline to standard error, in one
// write, with every control character of the text made harmless. That it
// cannot be written is no reason to do anything else.
func Complain(program, kind, text string) {
	line := program + ": " + kind + ": " + oneLine(text)
	if len(line) > maxLine {
		line = line[:maxLine]
	}
	// Not os.Stderr: a broken pipe there would kill the process.
	_, _ = syscall.Write(2, []byte(line+"\n"))
}

func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, strings.TrimRight(s, "\r\n"))
}

// Main is the main function of the protocol programs: it answers --help, with usage,
// and --version, or calls run with the arguments, prints its error on standard
// error as it is, and exits with its status.
func Main(program, usage string, run func(args []string) error) {
	CatchSIGPIPE()
	os.Exit(Guard(program, func() int {
		args := os.Args[min(1, len(os.Args)):]
		if Informed(program, usage, args) {
			return ExitOK
		}
		NoCore()
		err := standard()
		if err == nil {
			err = run(args)
		}
		if err != nil {
			_, _ = syscall.Write(2, []byte(err.Error()+"\n"))
		}
		return ExitCode(err)
	}))
}

// standard returns an error when the message or the reports have no place: an empty
// message must not be delivered, nor one of which nobody hears.
func standard() error {
	for _, fd := range []int{0, 1} {
		if Closed(fd) {
			return Fail(ExitTemporary, "descriptor %d is closed", fd)
		}
	}
	return nil
}

// Informed prints usage or the version on standard output if args are --help or
// --version and nothing else, and reports whether they are.
func Informed(program, usage string, args []string) bool {
	if len(args) != 1 {
		return false
	}
	switch args[0] {
	case "--help":
		fmt.Println(usage)
	case "--version":
		fmt.Println(Version(program))
	default:
		return false
	}
	return true
}

// Guard runs work and returns its exit status. A panic in it becomes one line on
// standard error and 111: Go's own exit status for a panic, 2, would have
// qmail-rspawn bounce the message. It covers the calling goroutine only.
func Guard(program string, work func() int) (status int) {
	defer Recover(func(what, stack string) {
		Complain(program, "fatal", what)
		if trace := OpenTrace(); trace != nil {
			trace(program + ": " + what + "\n" + stack)
		}
		status = ExitTemporary
	})
	return work()
}

// Recover is for a defer statement: when the goroutine panics it is stopped
// there and report is told what happened, in one line, and where.
func Recover(report func(what, stack string)) {
	if cause := recover(); cause != nil {
		report(oneLine(fmt.Sprintf("internal error: %v", cause)), string(debug.Stack()))
	}
}
