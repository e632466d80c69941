package main

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"nightmare.mail/mxf/qmtpc/qmtptest"
)

// The test binary is the program when it is told so: the real main, with real
// descriptors.
func TestMain(m *testing.M) {
	if os.Getenv("BE_MXF_REMOTE_QMTPC") != "" {
		os.Unsetenv("BE_MXF_REMOTE_QMTPC")
		main()
	}
	os.Exit(m.Run())
}

func TestUsageIsTheSynopsis(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "doc", "mxf-remote-qmtpc.8"))
	if err != nil {
		t.Fatal(err)
	}
	_, synopsis, _ := strings.Cut(string(page), ".Sh SYNOPSIS\n")
	synopsis, _, _ = strings.Cut(synopsis, ".Sh")
	for _, macro := range []struct{ is, reads string }{
		{`(?m)^\.Ar (.*)\n`, "$1 "},
		{`(?m)^\.Fl -(\S+) \| -(\S+)\n`, "--$1 | --$2"},
		{`\.Nm\n`, "\nmxf-remote-qmtpc "},
		{` +\n`, "\n"},
	} {
		synopsis = regexp.MustCompile(macro.is).ReplaceAllString(synopsis, macro.reads)
	}
	if got := strings.TrimSpace(synopsis); got != usage {
		t.Errorf("the synopsis says\n%s\nand the program\n%s", got, usage)
	}
}

type result struct {
	out, err string
	status   int
}

// start runs the program with descriptors 6 and 7 on a connection to a server that
// follows script.
func start(t *testing.T, script qmtptest.Script, stdin io.Reader, environ []string, args ...string) result {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), "BE_MXF_REMOTE_QMTPC=1")
	cmd.Env = append(cmd.Env, environ...)
	cmd.Stdin = stdin
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if script != nil {
		s, err := qmtptest.Start(script)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		conn, err := net.Dial("tcp", s.Addr())
		if err != nil {
			t.Fatal(err)
		}
		file, err := conn.(*net.TCPConn).File()
		conn.Close()
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		cmd.ExtraFiles = []*os.File{nil, nil, nil, file, file}
	}
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

func homeWith(t *testing.T, files map[string]string) string {
	t.Helper()
	home := t.TempDir()
	if err := os.Mkdir(filepath.Join(home, "control"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(home, "control", name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return "MXF_HOME=" + home
}

func TestProgram(t *testing.T) {
	home := homeWith(t, map[string]string{"me": "client.example.net\n"})
	quick := homeWith(t, map[string]string{"me": "client.example.net\n", "timeoutremote": "1\n"})
	bad := homeWith(t, map[string]string{"me": "client.example.net\n", "timeoutremote": "soon\n"})
	silent := func(c *qmtptest.Conn) error { _, err := io.Copy(io.Discard, c); return err }
	leaves := func(c *qmtptest.Conn) error { return nil }
	job := []string{"example.org", "s@example.net", "a@example.org", "b@example.org"}
	resets := func(c *qmtptest.Conn) error { c.Discard(1); return c.Reset() }
	for _, c := range []struct {
		name    string
		script  qmtptest.Script
		environ []string
		args    []string
		want    result
	}{
		{"accepted", qmtptest.Answer("Kok", "Dno"), []string{home, "TCPREMOTEIP=192.0.2.1"}, job,
			result{"r\x00h192.0.2.1 does not like recipient.\nRemote host said: no\n\x00K192.0.2.1 accepted message.\nRemote host said: ok\n\x00", "", 0}},
		{"no address", qmtptest.Answer("Zlater", "Dno"), []string{home}, job,
			result{"sunknown does not like recipient.\nRemote host said: later\n\x00hunknown does not like recipient.\nRemote host said: no\n\x00ZGiving up on unknown.\n\x00", "", 0}},
		{"inside TLS", qmtptest.Answer("Kok"), []string{home, "TCPREMOTEIP=::1", "TCPREMOTEHOST=mx.example.org", "SSL_PROTOCOL=TLSv1.2", "SSL_CIPHER=X"}, job[:3],
			result{"r\x00K::1 accepted message.\nRemote host said: ok\nTLS: TLSv1.2 X unverified mx.example.org\n\x00", "", 0}},
		{"the server leaves", leaves, []string{home}, job,
			result{"", "Connected to unknown but connection died. (#4.4.2)\n", 75}},
		{"the server resets", resets, []string{home}, job,
			result{"", "Connected to unknown but connection died. (#4.4.2)\n", 75}},
		{"the fuse", silent, []string{quick}, job,
			result{"ZConnected to unknown but the conversation took longer than 1 seconds. Possible duplicate! (#4.4.2)\n\x00", "Connected to unknown but the conversation took longer than 1 seconds. Possible duplicate! (#4.4.2)\n", 124}},
		{"no home", silent, []string{"MXF_HOME=/nonexistent/home"}, job, result{"", "nonexistent", 111}},
		{"malformed", silent, []string{bad}, job, result{"", "timeoutremote:1: ", 111}},
		{"no arguments", nil, nil, nil, result{"", usage + "\n", 100}},
		{"two arguments", nil, nil, []string{"example.org", ""}, result{"", usage + "\n", 100}},
		{"help", nil, nil, []string{"--help"}, result{usage + "\n", "", 0}},
		{"version", nil, nil, []string{"--version"}, result{"mxf-remote-qmtpc ", "", 0}},
	} {
		t.Run(c.name, func(t *testing.T) {
			message := strings.NewReader("x\n")
			if c.want.status == 75 {
				// More than a connection holds that nobody reads from: the last byte is not sent.
				message = strings.NewReader(strings.Repeat("x\n", 16<<20))
			}
			got := start(t, c.script, message, c.environ, c.args...)
			loose := c.want.status == 111 || c.name == "version"
			if got != c.want && (!loose || !strings.Contains(got.out, c.want.out) || !strings.Contains(got.err, c.want.err) || got.status != c.want.status) {
				t.Errorf("got\n%+v, want\n%+v", got, c.want)
			}
		})
	}
}
