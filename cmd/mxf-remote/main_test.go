package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"nightmare.mail/mxf/cmd/internal/cmdtest"
	"nightmare.mail/mxf/integration/must"
)

func TestMain(m *testing.M) { cmdtest.Main(m, main) }

// start runs the program under way to a server that says nothing, with protocols
// as its control file.
func start(t *testing.T, protocols string) (cmd *exec.Cmd, out *bytes.Buffer) {
	t.Helper()
	server := must.Get(net.Listen("tcp", "127.0.0.1:0"))(t).(*net.TCPListener)
	defer server.Close()
	_ = server.SetDeadline(time.Now().Add(must.Patience))
	home := cmdtest.Home(t, map[string]string{"me": "me.example", "protocols": protocols, "ipme": "", "smtproutes": ":" + server.Addr().String()})
	cmd = cmdtest.Command(t, []string{home, "DNSCACHEIP=127.0.0.1:9"}, "example.org", "s@example.net", "r@example.org")
	out = new(bytes.Buffer)
	cmd.Stdout, cmd.Stderr = out, out // as qmail-rspawn has it
	must.OK(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	conn := must.Get(server.Accept())(t)
	t.Cleanup(func() { conn.Close() })
	return cmd, out
}

// What Go cannot recover from ends the program by a signal. qmail-rspawn takes that for
// temporary. It would bounce the message for Go's own exit status 2.
func TestFatalIsACrash(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGQUIT, syscall.SIGSEGV, syscall.SIGABRT, syscall.SIGTERM} {
		cmd, out := start(t, "smtp:25:0:N:Y:mxf-remote-smtpc")
		_ = cmd.Process.Signal(signal)
		_ = cmd.Wait()
		if !cmdtest.Crashed(cmd) {
			t.Errorf("%v: %v", signal, cmd.ProcessState)
		}
		if out.Len() > 0 {
			t.Errorf("%v: it says %q", signal, out)
		}
	}
}

// A crash leaves no core file: a key may be in it.
func TestNoCore(t *testing.T) {
	cmd, _ := start(t, "smtp:25:0:N:Y:mxf-remote-smtpc")
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", cmd.Process.Pid))
	if err != nil {
		t.Skip(err)
	}
	if !regexp.MustCompile(`(?m)^Max core file size +0 +0 `).Match(limits) {
		t.Errorf("%s", limits)
	}
}

// A chain does not outlive its router: it might deliver the message, and nobody
// would know. What a script has started ends as well.
func TestChainEndsWithRouter(t *testing.T) {
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skip(err)
	}
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP} {
		must.Heeded(t, signal)
		folder := t.TempDir()
		script := filepath.Join(folder, "client")
		must.Script(t, script, "cd '"+folder+"'\nsleep 600 &\necho $! >new && mv new pid\nwait")
		cmd, _ := start(t, "smtp:25:0:N:N:"+script)
		pid := ""
		must.Until(t, "the start of the program", func() bool {
			b, _ := os.ReadFile(filepath.Join(folder, "pid"))
			pid = strings.TrimSpace(string(b))
			return pid != ""
		})
		_ = cmd.Process.Signal(signal)
		_ = cmd.Wait()
		t.Cleanup(func() {
			if n, err := strconv.Atoi(pid); t.Failed() && err == nil {
				_ = syscall.Kill(n, syscall.SIGKILL)
			}
		})
		must.Gone(t, pid)
	}
}

// The program gives the second processor up before other packages initialise. After them
// it would cost page faults.
func TestStartFirst(t *testing.T) {
	out := cmdtest.Run(t, cmdtest.Command(t, []string{"GODEBUG=inittrace=1"}, "--version")).Err
	ours := strings.Index(out, "init nightmare.mail/mxf/cmd/internal/start ")
	others := strings.Index(out, "init syscall ")
	if ours < 0 || others < ours {
		t.Errorf("cmd/internal/start is initialised too late:\n%s", out)
	}
}
