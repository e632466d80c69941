// Package cmdtest has what the tests of the mains share. The test binary is the program
// itself, the real main, when its environment says so. It is run as a process of its own,
// with the descriptors that a caller would give it.
package cmdtest

import (
	"bytes"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"nightmare.mail/mxf/integration/must"
)

// beProgram, in the environment, makes the test binary the program.
const beProgram = "CMDTEST_BE_PROGRAM"

// limit ends a program that does not end by itself.
const limit = 2 * time.Minute

// Main is for TestMain. It does not return.
func Main(m *testing.M, program func()) {
	if os.Getenv(beProgram) != "" {
		os.Unsetenv(beProgram)
		program()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// Command is the program with arguments, and with nothing in its environment but PATH
// and environ.
func Command(t testing.TB, environ []string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(must.Get(os.Executable())(t), args...)
	// The race detector's runtime would sleep a second before it exits.
	cmd.Env = append([]string{beProgram + "=1", "GORACE=atexit_sleep_ms=0", "PATH=" + os.Getenv("PATH")}, environ...)
	return cmd
}

// From returns ExtraFiles in which descriptors from fd on are files.
func From(fd int, files ...*os.File) []*os.File {
	return append(make([]*os.File, fd-3), files...)
}

// A Result is what came out of a program: descriptors 1 and 2, and its exit status.
type Result struct {
	Out, Err string
	Status   int
}

// Want is the Result that a test wants.
func Want(out, err string, status int) Result { return Result{out, err, status} }

// Run runs a command to its end.
func Run(t testing.TB, cmd *exec.Cmd) Result {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	must.OK(t, cmd.Start())
	watch := time.AfterFunc(limit, func() { _ = cmd.Process.Kill() })
	defer watch.Stop()
	var exit *exec.ExitError
	if err := cmd.Wait(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return Result{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

// temporary is the exit status for what the system refuses, in words of its own.
const temporary = 111

// Check holds a result against what is wanted. Where that is a failure of the system,
// its words are wanted among others.
func (r Result) Check(t testing.TB, want Result) {
	t.Helper()
	if r == want || want.Status == temporary && r.Status == temporary && r.Out == want.Out && r.Err != "" && strings.Contains(r.Err, want.Err) {
		return
	}
	t.Errorf("got\n%+v, want\n%+v", r, want)
}

// Crashed reports whether a program that has ended was ended by a signal.
func Crashed(cmd *exec.Cmd) bool {
	status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	return ok && status.Signaled()
}

// Home makes a home with these control files, and returns the assignment that names
// it.
func Home(t testing.TB, control map[string]string) string {
	t.Helper()
	home := t.TempDir()
	for name, text := range control {
		must.Write(t, filepath.Join(home, "control", name), text+"\n")
	}
	return "MXF_HOME=" + home
}

// File returns a descriptor of a connection, which it takes over.
func File(t testing.TB, conn net.Conn) *os.File {
	t.Helper()
	file, err := conn.(*net.TCPConn).File()
	conn.Close()
	must.OK(t, err)
	t.Cleanup(func() { file.Close() })
	return file
}
