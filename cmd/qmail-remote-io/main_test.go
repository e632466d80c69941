package main

import (
	"bytes"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"nightmare.mail/mxf/remote/report"
	"nightmare.mail/mxf/smtpc/smtptest"
)

// The test binary is the program when it is told so: the real main, with real
// descriptors.
func TestMain(m *testing.M) {
	if os.Getenv("BE_QMAIL_REMOTE_IO") != "" {
		os.Unsetenv("BE_QMAIL_REMOTE_IO")
		main()
	}
	os.Exit(m.Run())
}

func TestUsageIsTheSynopsis(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "doc", "qmail-remote-io.8"))
	if err != nil {
		t.Fatal(err)
	}
	_, synopsis, _ := strings.Cut(string(page), ".Sh SYNOPSIS\n")
	synopsis, _, _ = strings.Cut(synopsis, ".Sh")
	for _, macro := range []struct{ is, reads string }{
		{`(?m)^\.Op Fl (\S+) Ar (.*)\n`, "[-$1 $2] "},
		{`\.Op Fl -\n`, "[--] "},
		{`\.Ar (.*)\n`, "$1 "},
		{`(?m)^\.Fl -(\S+) \| -(\S+)\n`, "--$1 | --$2"},
		{`\.Nm\n`, "\nqmail-remote-io "},
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

// command is the program with descriptor fd on a connection to server whose
// greeting has been read.
func command(t *testing.T, server *smtptest.Server, fd int, environ []string, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	conn := smtptest.Dial(t, smtptest.Listen(t, server.Serve))
	for c := make([]byte, 1); c[0] != '\n'; {
		if _, err := conn.Read(c); err != nil {
			t.Fatal(err)
		}
	}
	file, err := conn.(*net.TCPConn).File()
	conn.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	cmd := exec.Command(self, args...)
	cmd.Env = append([]string{"BE_QMAIL_REMOTE_IO=1", "GORACE=atexit_sleep_ms=0"}, environ...)
	cmd.Stdin = strings.NewReader("Subject: test\n\n.dot\n")
	cmd.ExtraFiles = append(make([]*os.File, fd-3), file, file)
	return cmd
}

func start(t *testing.T, server *smtptest.Server, fd int, environ []string, args ...string) result {
	t.Helper()
	cmd := command(t, server, fd, environ, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	defer func() { cmd.ExtraFiles[fd-3].Close() }() // the server is to see the end
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

func one(phase smtptest.Phase, act smtptest.Action) func(smtptest.Point) smtptest.Action {
	return func(p smtptest.Point) smtptest.Action {
		if p.Phase == phase {
			return act
		}
		return smtptest.Action{}
	}
}

func TestProgram(t *testing.T) {
	all := []string{"PIPELINING", "CHUNKING", "8BITMIME", "SIZE"}
	job := []string{"192.0.2.1", `"s t"@example.net`, "a@example.org"}
	const yes = "r\x00K192.0.2.1 accepted message.\nRemote host said: 250 accepted"
	for _, c := range []struct {
		name    string
		fd      int
		act     func(smtptest.Point) smtptest.Action
		environ []string
		args    []string
		want    result
		seen    string
	}{
		{"greeted and answered", 6, nil, nil, job, result{yes + "\n\x00", "", 0},
			`MAIL FROM:<"s t"@example.net>|RCPT TO:<a@example.org>|DATA|QUIT`},
		{"hello", 6, nil, nil, append([]string{"-h", "client.example.net", "--"}, job...), result{yes + "\n\x00", "", 0},
			`EHLO client.example.net|MAIL FROM:<"s t"@example.net> BODY=8BITMIME|RCPT TO:<a@example.org>|DATA|QUIT`},
		{"inside TLS", 6, nil, []string{"SSL_PROTOCOL=TLSv1.3", "SSL_CIPHER=X", "MXF_TLS=must"}, job,
			result{yes + "\nTLS: TLSv1.3 X unverified 192.0.2.1\n\x00", "", 0}, ""},
		{"one descriptor", 9, nil, nil, append([]string{"-6", "9", "-7", "9"}, job...), result{yes + "\n\x00", "", 0}, ""},
		{"long names", 9, nil, nil, append([]string{"--fdr=9", "--fdw=9", "--timeoutremote=60"}, job...), result{yes + "\n\x00", "", 0}, ""},
		{"no extensions", 6, nil, nil, []string{"192.0.2.1", "\u00e9@x", "b\u00fccher@b\u00fccher.example"}, result{yes + "\n\x00", "", 0},
			"MAIL FROM:<\u00e9@x>|RCPT TO:<b\u00fccher@b\u00fccher.example>|DATA|QUIT"},
		{"what would be 75", 6, one(smtptest.MAIL, smtptest.Action{Close: true}), nil, job,
			result{"ZConnected to 192.0.2.1 but connection died. (#4.4.2)\n\x00", "", 0}, ""},
		{"what would be 77", 6, one(smtptest.DATA, smtptest.Action{Close: true}), nil, append([]string{"-h", "client.example.net", "--"}, job...),
			result{"ZConnected to 192.0.2.1 but connection died. (#4.4.2)\n\x00", "", 0}, ""},
		{"no answer", 6, one(smtptest.MAIL, smtptest.Action{Stall: true}), nil, append([]string{"-t8"}, job...),
			result{"ZConnected to 192.0.2.1 but connection died: no answer to MAIL within 2 seconds. (#4.4.2)\n\x00", "", 0}, ""},
		{"no answer, begun", 6, one(smtptest.Message, smtptest.Action{Stall: true}), nil, append([]string{"-t8"}, job...),
			result{"r\x00ZConnected to 192.0.2.1 but connection died: no answer to the message within 4 seconds. Possible duplicate! (#4.4.2)\n\x00", "", 0}, ""},
		{"no such descriptor", 6, nil, nil, append([]string{"-6", "33"}, job...), result{"", "descriptor 33 ", 111}, ""},
		{"no arguments", 6, nil, nil, nil, result{"", usage + "\n", 100}, ""},
		{"two arguments", 6, nil, nil, job[:2], result{"", usage + "\n", 100}, ""},
		{"no such option", 6, nil, nil, append([]string{"-x"}, job...), result{"", "unknown option \"-x\"\n", 100}, ""},
		{"no time", 6, nil, nil, append([]string{"-t", "soon"}, job...), result{"", "option \"-t\": \"soon\" is not a number from 0 to 2147483647\n", 100}, ""},
		{"help", 6, nil, nil, []string{"--help"}, result{usage + "\n", "", 0}, ""},
		{"version", 6, nil, nil, []string{"--version"}, result{"qmail-remote-io ", "", 0}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := &smtptest.Server{Extensions: all, Act: c.act}
			got := start(t, server, c.fd, c.environ, c.args...)
			loose := c.want.status == 111 || c.name == "version"
			if got != c.want && (!loose || !strings.HasPrefix(got.out, c.want.out) || !strings.HasPrefix(got.err, c.want.err) || got.status != c.want.status) {
				t.Errorf("got\n%+v, want\n%+v", got, c.want)
			}
			if seen := strings.Join(server.Last(t).Commands, "|"); c.seen != "" && seen != c.seen {
				t.Errorf("server saw %q", seen)
			}
		})
	}
}

// TestWhatCannotBeRecoveredFrom is a crash to qmail-rspawn, and so temporary. The
// signal stands for all that Go's runtime ends with exit status 2.
func TestWhatCannotBeRecoveredFrom(t *testing.T) {
	reached := make(chan struct{})
	server := &smtptest.Server{Act: func(p smtptest.Point) smtptest.Action {
		if p.Phase == smtptest.MAIL {
			close(reached)
			return smtptest.Action{Stall: true}
		}
		return smtptest.Action{}
	}}
	cmd := command(t, server, 6, nil, "192.0.2.1", "s@example.net", "a@example.org")
	cmd.Dir = t.TempDir() // for a core file
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	cmd.ExtraFiles[6-3].Close()
	<-reached
	_ = cmd.Process.Signal(syscall.SIGQUIT)
	_ = cmd.Wait()
	if status := cmd.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() {
		t.Errorf("%v", cmd.ProcessState)
	}
}

func TestFinal(t *testing.T) {
	stream := report.Only(report.Report{Letter: report.Delivered, Text: "ok"})
	blown := report.Report{Letter: report.Temporary, Text: "slow"}
	for _, c := range []struct {
		err  error
		want string
	}{
		{nil, "Kok\n\x00"},
		{&report.NoTransaction{Reason: report.Report{Letter: report.Permanent, Text: "no"}}, "Zno\n\x00"},
		{&report.Fuse{Reason: blown}, "Zslow\n\x00"},
		{&report.Fuse{Reason: blown, Begun: true}, "Kok\n\x00"},
		{errors.New("broken"), "ZInternal error: broken. (#4.3.5)\n\x00"},
	} {
		if got := string(final(stream, c.err).Bytes()); got != c.want {
			t.Errorf("error %v: %q, want %q", c.err, got, c.want)
		}
	}
}
