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
)

// The test binary is the program when it is told so.
func TestMain(m *testing.M) {
	if os.Getenv("BE_MXF_REMOTE") != "" {
		os.Unsetenv("BE_MXF_REMOTE")
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// patience bounds what should take no time.
const patience = 20 * time.Second

// start runs the program under way to a server that says nothing, with protocols
// as its control file.
func start(t *testing.T, protocols string) (cmd *exec.Cmd, out *bytes.Buffer) {
	t.Helper()
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	accepted := make(chan net.Conn, 1)
	go func() {
		if conn, err := server.Accept(); err == nil {
			accepted <- conn
		}
	}()
	home := t.TempDir()
	if err := os.Mkdir(filepath.Join(home, "control"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"me": "me.example", "protocols": protocols, "ipme": "",
		"smtproutes": ":" + server.Addr().String(),
	} {
		if err := os.WriteFile(filepath.Join(home, "control", name), []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd = exec.Command(self, "example.org", "s@example.net", "r@example.org")
	cmd.Env = append(os.Environ(), "BE_MXF_REMOTE=1", "MXF_HOME="+home, "DNSCACHEIP=127.0.0.1:9")
	out = new(bytes.Buffer)
	cmd.Stdout, cmd.Stderr = out, out // as qmail-rspawn has it
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	select {
	case conn := <-accepted:
		t.Cleanup(func() { conn.Close() })
	case <-time.After(patience):
		t.Fatal("it does not connect")
	}
	return cmd, out
}

// What Go does not recover from has it end by a signal: qmail-rspawn takes that for
// temporary, and bounces the message for Go's own exit status 2.
func TestFatalIsACrash(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGQUIT, syscall.SIGSEGV, syscall.SIGABRT, syscall.SIGTERM} {
		cmd, out := start(t, "smtp:25:0:N:Y:mxf-remote-smtpc")
		_ = cmd.Process.Signal(signal)
		_ = cmd.Wait()
		if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && !status.Signaled() {
			t.Errorf("%v: %v", signal, cmd.ProcessState)
		}
		if out.Len() > 0 {
			t.Errorf("%v: it says %q", signal, out)
		}
	}
}

// A crash leaves no core file, in which there may be a key.
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
// would know. That goes for what a script has started too.
func TestChainEndsWithRouter(t *testing.T) {
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skip(err)
	}
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP} {
		folder := t.TempDir()
		script := filepath.Join(folder, "client")
		text := "#!/bin/sh\ncd '" + folder + "'\nsleep 600 &\necho $! >new && mv new pid\nwait\n"
		if err := os.WriteFile(script, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
		cmd, _ := start(t, "smtp:25:0:N:N:"+script)
		pid := ""
		for end := time.Now().Add(patience); pid == ""; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("the program is not run")
			}
			b, _ := os.ReadFile(filepath.Join(folder, "pid"))
			pid = strings.TrimSpace(string(b))
		}
		_ = cmd.Process.Signal(signal)
		_ = cmd.Wait()
		ended(t, signal, pid)
	}
}

// ended waits for a process to end.
func ended(t *testing.T, signal syscall.Signal, pid string) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		stat, err := os.ReadFile("/proc/" + pid + "/stat")
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return
		}
		if time.Now().After(end) {
			n, _ := strconv.Atoi(pid)
			_ = syscall.Kill(n, syscall.SIGKILL)
			t.Fatalf("%v: what the program has started is still running", signal)
		}
	}
}

// A second processor is given up before other packages initialise: after them it costs
// page faults.
func TestStartFirst(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "--version")
	cmd.Env = []string{"BE_MXF_REMOTE=1", "GODEBUG=inittrace=1"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatal(err)
	}
	ours := strings.Index(string(out), "init nightmare.mail/mxf/cmd/internal/start ")
	others := strings.Index(string(out), "init syscall ")
	if ours < 0 || others < ours {
		t.Errorf("cmd/internal/start is initialised too late:\n%s", out)
	}
}
