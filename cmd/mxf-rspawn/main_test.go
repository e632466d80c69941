package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nightmare.mail/mxf/cmd/internal/chain"
	"nightmare.mail/mxf/cmd/internal/cmdtest"
	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/remote/rspawn"
)

func TestMain(m *testing.M) {
	if chain.IsChild(rspawn.WorkerName) {
		main() // started by the program that the test binary was before
	}
	cmdtest.Main(m, main)
}

// queue makes a home with a queue, and returns the assignment that names it.
func queue(t *testing.T, control map[string]string) string {
	t.Helper()
	home := cmdtest.Home(t, control)
	must.Write(t, filepath.Join(strings.TrimPrefix(home, "MXF_HOME="), "queue/mess/1/2"), "Subject: x\n\ntext\n")
	return home
}

func TestArguments(t *testing.T) {
	home := queue(t, map[string]string{"me": "me.example"})
	for _, args := range [][]string{{"x"}, {"--help", "x"}, {"--version", "--help"}, {""}, {"-h"}} {
		cmdtest.Run(t, cmdtest.Command(t, []string{home}, args...)).Check(t, cmdtest.Want("", usage+"\n", 100))
	}
	cmdtest.Run(t, cmdtest.Command(t, nil, "--help")).Check(t, cmdtest.Want(usage+"\n", "", 0))
	if got := cmdtest.Run(t, cmdtest.Command(t, nil, "--version")); !strings.HasPrefix(got.Out, "mxf-rspawn ") || got.Status != 0 {
		t.Errorf("%+v", got)
	}
}

// What is wrong at the start is not said.
func TestStart(t *testing.T) {
	for _, home := range []string{"MXF_HOME=/nowhere", queue(t, map[string]string{"delnumbytes": "x"})} {
		if got := cmdtest.Run(t, cmdtest.Command(t, []string{home})); got != cmdtest.Want("", "", 111) {
			t.Errorf("%s: %+v", home, got)
		}
	}
	home := queue(t, map[string]string{"me": "me.example"})
	if got := cmdtest.Run(t, cmdtest.Command(t, []string{home})); got != cmdtest.Want("\xff", "", 0) {
		t.Errorf("no commands: %+v", got)
	}
	cmd := cmdtest.Command(t, []string{home})
	script := filepath.Join(t.TempDir(), "closed")
	must.Script(t, script, `exec "$0.program" >&-`)
	must.OK(t, os.Symlink(cmd.Path, script+".program"))
	cmd.Path = script
	if got := cmdtest.Run(t, cmd); got != cmdtest.Want("", "", 0) {
		t.Errorf("descriptor 1 closed: %+v", got)
	}
}

// A delivery, with $QMAILREMOTE found in $PATH, from a relative home.
func TestDelivery(t *testing.T) {
	home := strings.TrimPrefix(queue(t, map[string]string{"me": "me.example"}), "MXF_HOME=")
	must.Script(t, filepath.Join(home, "deliver"), `printf 'r\0K%s %s %s %s\n\0' "$1" "$2" "$3" "$(cat)"; echo x >&2`)
	cmd := cmdtest.Command(t, []string{"MXF_HOME=" + filepath.Base(home), "QMAILREMOTE=deliver", "PATH=" + home + ":" + os.Getenv("PATH")})
	cmd.Dir = filepath.Dir(home)
	cmd.Stdin = bytes.NewReader([]byte("\x071/2\x00s@a\x00r@b\x00"))
	if got := cmdtest.Run(t, cmd); got != cmdtest.Want("\xff\x07Kb s@a r@b Subject: x\n\ntext\n\x00", "", 0) {
		t.Errorf("%+v", got)
	}
}
