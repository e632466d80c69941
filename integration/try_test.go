package integration

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"nightmare.mail/mxf/integration/lab"
	"nightmare.mail/mxf/integration/must"
)

// Setup: mxf-try beside a mxf-remote that hangs.
//
// Test: at each of the signals by which it is ended it leaves neither its folder nor
// the delivery behind, and says why it ends.
func TestTry_leavesNothing(t *testing.T) {
	if _, err := os.Stat("/proc/self/environ"); err != nil {
		t.Skip("what is left behind is found in /proc")
	}
	folder, program := t.TempDir(), "mxf-try"
	must.OK(t, os.Link(filepath.Join(programs(t), program), filepath.Join(folder, program)))
	put(t, filepath.Join(folder, "mxf-remote"), []byte("#!/bin/sh\nsleep 600 &\necho >\"$MXF_HOME/../running\"\nsleep 600\n"))
	must.OK(t, os.Chmod(filepath.Join(folder, "mxf-remote"), 0o755))
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		t.Run(sig.String(), func(t *testing.T) {
			must.Heeded(t, sig)
			temporary := t.TempDir()
			mark := fmt.Sprintf("TRY_LEAVES=%d.%d", os.Getpid(), time.Now().UnixNano())
			cmd := exec.Command(filepath.Join(folder, program))
			cmd.Env = append(os.Environ(), "TMPDIR="+temporary, mark)
			var out, errs bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &errs
			must.OK(t, cmd.Start())
			watch := time.AfterFunc(lab.DefaultLimit, func() { _ = cmd.Process.Kill() })
			defer watch.Stop()
			until(t, "the beginning of a delivery", func() bool {
				found, _ := filepath.Glob(filepath.Join(temporary, "*", "running"))
				return len(found) == 1
			})
			must.OK(t, cmd.Process.Signal(sig))
			var status *exec.ExitError
			if err := cmd.Wait(); !errors.As(err, &status) || status.ExitCode() != 111 || errs.String() != "mxf-try: ended by a signal\n" {
				t.Errorf("%v, %q", err, &errs)
			}
			if left, _ := os.ReadDir(temporary); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
			until(t, "the end of what it has started", func() bool { return len(processesWith(mark)) == 0 })
		})
	}
}
