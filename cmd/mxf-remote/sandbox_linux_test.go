package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"nightmare.mail/mxf/cmd/internal/cmdtest"
	"nightmare.mail/mxf/integration/must"
)

// The program in a sandbox. Where a control file can supply what the sandbox refuses, the
// report names the file.

// withoutNetlink, in the environment, has the test binary refuse itself sockets of
// AF_NETLINK, as a unit with RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 does.
const withoutNetlink = "TEST_WITHOUT_NETLINK"

func init() {
	if os.Getenv(withoutNetlink) == "" {
		return
	}
	if err := refuseNetlink(); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

func refuseNetlink() error {
	const number, firstArgument = 0, 16 // offsets in struct seccomp_data, little-endian
	load := func(offset uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
	}
	unless := func(value uint32, skip uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: value, Jf: skip}
	}
	end := func(verdict uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: verdict}
	}
	filter := []unix.SockFilter{
		load(number), unless(unix.SYS_SOCKET, 3),
		load(firstArgument), unless(unix.AF_NETLINK, 1),
		end(unix.SECCOMP_RET_ERRNO | uint32(unix.EAFNOSUPPORT)),
		end(unix.SECCOMP_RET_ALLOW),
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return errno
	}
	return nil
}

// reported runs the program with more in its environment, for host, by command, and
// returns what it reports. Nobody listens on the port of its protocol.
func reported(t *testing.T, host string, files map[string]string, environ string, command ...string) string {
	t.Helper()
	files["me"], files["protocols"] = "me.example", "smtp:1:0:N:Y:mxf-remote-smtpc"
	cmd := cmdtest.Command(t, []string{cmdtest.Home(t, files), "DNSCACHEIP=127.0.0.1:9", environ}, host, "s@example.net", "r@example.org")
	if len(command) > 0 {
		cmd.Path, cmd.Args = must.Get(exec.LookPath(command[0]))(t), append(command, cmd.Args...)
	}
	got := cmdtest.Run(t, cmd)
	// The race detector's runtime may miss something in a namespace, and say so.
	if got.Status != 0 || got.Err != "" && len(command) == 0 {
		t.Fatalf("%+v", got)
	}
	return got.Out
}

const us = "[127.0.0.53]"

func TestSandboxWithoutNetlink(t *testing.T) {
	if runtime.GOARCH != "amd64" && runtime.GOARCH != "arm64" {
		t.Skip("the filter is for amd64 and arm64")
	}
	if said := reported(t, us, map[string]string{}, withoutNetlink+"=1"); !strings.HasPrefix(said, "ZUnable to read control files: control/ipme:0: ") || !strings.Contains(said, syscall.EAFNOSUPPORT.Error()) {
		t.Errorf("without ipme: %q", said)
	}
	if said := reported(t, us, map[string]string{"ipme": "192.0.2.1"}, withoutNetlink+"=1"); !strings.HasPrefix(said, "ZSorry, I wasn't able to establish an SMTP connection. (#4.4.1)") {
		t.Errorf("with ipme: %q", said)
	}
}

// Without ipme all of loopback is this machine.
func TestLoopbackIsUs(t *testing.T) {
	if said := reported(t, us, map[string]string{}, ""); !strings.HasPrefix(said, "D") || !strings.Contains(said, "(#5.4.6)") {
		t.Errorf("%q", said)
	}
}

// apart returns a command that runs its arguments after script has changed what they
// see of the file system, and without a network.
func apart(t *testing.T, script string) []string {
	t.Helper()
	command := []string{"unshare", "--map-root-user", "--mount", "--net", "sh", "-c", script + ` && exec "$@"`, "sh"}
	if out, err := exec.Command(command[0], append(command[1:], "true")...).CombinedOutput(); err != nil {
		t.Skipf("no namespaces here: %v: %s", err, out)
	}
	return command
}

// If resolv.conf names no server, the report says so. It does not blame the default server
// for its silence.
func TestResolvConfWithoutServers(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "resolv.conf")
	must.OK(t, os.WriteFile(empty, []byte("search example.net\n"), 0o600))
	command := apart(t, "mount --bind '"+empty+"' /etc/resolv.conf")
	said := reported(t, "example.org", map[string]string{"ipme": ""}, "DNSCACHEIP=", command...)
	if want := "ZSorry, I couldn't look up example.org: MX: /etc/resolv.conf names no name server, and none answers on this machine. (#4.4.3)"; !strings.HasPrefix(said, want) {
		t.Errorf("%q", said)
	}
}

func TestWithoutProc(t *testing.T) {
	hidden := apart(t, "mount -t tmpfs none /proc && ! test -e /proc/self")
	for ipme, want := range map[string]string{"": "#4.4.1", "127.0.0.53": "#5.4.6"} {
		if said := reported(t, us, map[string]string{"ipme": ipme}, "", hidden...); !strings.Contains(said, want) {
			t.Errorf("ipme %q: %q", ipme, said)
		}
	}
}
