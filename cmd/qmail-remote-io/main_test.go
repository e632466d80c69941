package main

import (
	"errors"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"nightmare.mail/mxf/cmd/internal/cmdtest"
	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/remote/report"
	"nightmare.mail/mxf/smtpc/smtptest"
)

func TestMain(m *testing.M) { cmdtest.Main(m, main) }

// command is the program with descriptors fd and up on a connection to server whose
// greeting has been read. The returned function gives the test's own copy back, so that
// the server sees the end.
func command(t *testing.T, server *smtptest.Server, fd int, environ []string, args ...string) (cmd *exec.Cmd, release func()) {
	t.Helper()
	conn := smtptest.Dial(t, smtptest.Listen(t, server.Serve))
	for c := make([]byte, 1); c[0] != '\n'; {
		must.Get(conn.Read(c))(t)
	}
	file := cmdtest.File(t, conn)
	cmd = cmdtest.Command(t, environ, args...)
	cmd.Stdin = strings.NewReader("Subject: test\n\n.dot\n")
	cmd.ExtraFiles = cmdtest.From(fd, file, file)
	return cmd, func() { file.Close() }
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
		want    cmdtest.Result
		seen    string
	}{
		{"greeted and answered", 6, nil, nil, job, cmdtest.Want(yes+"\n\x00", "", 0),
			`MAIL FROM:<"s t"@example.net>|RCPT TO:<a@example.org>|DATA|QUIT`},
		{"hello", 6, nil, nil, append([]string{"-h", "client.example.net", "--"}, job...), cmdtest.Want(yes+"\n\x00", "", 0),
			`EHLO client.example.net|MAIL FROM:<"s t"@example.net> BODY=8BITMIME|RCPT TO:<a@example.org>|DATA|QUIT`},
		{"inside TLS", 6, nil, []string{"SSL_PROTOCOL=TLSv1.3", "SSL_CIPHER=X", "MXF_TLS=must"}, job,
			cmdtest.Want(yes+"\nTLS: TLSv1.3 X unverified 192.0.2.1\n\x00", "", 0), ""},
		{"one descriptor", 9, nil, nil, append([]string{"-6", "9", "-7", "9"}, job...), cmdtest.Want(yes+"\n\x00", "", 0), ""},
		{"long names", 9, nil, nil, append([]string{"--fdr=9", "--fdw=9", "--timeoutremote=60"}, job...), cmdtest.Want(yes+"\n\x00", "", 0), ""},
		{"no extensions", 6, nil, nil, []string{"192.0.2.1", "\u00e9@x", "b\u00fccher@b\u00fccher.example"}, cmdtest.Want(yes+"\n\x00", "", 0),
			"MAIL FROM:<\u00e9@x>|RCPT TO:<b\u00fccher@b\u00fccher.example>|DATA|QUIT"},
		{"what would be 75", 6, smtptest.At(smtptest.MAIL, smtptest.Action{Close: true}), nil, job,
			cmdtest.Want("ZConnected to 192.0.2.1 but connection died. (#4.4.2)\n\x00", "", 0), ""},
		{"what would be 77", 6, smtptest.At(smtptest.DATA, smtptest.Action{Close: true}), nil, append([]string{"-h", "client.example.net", "--"}, job...),
			cmdtest.Want("ZConnected to 192.0.2.1 but connection died. (#4.4.2)\n\x00", "", 0), ""},
		{"no answer", 6, smtptest.At(smtptest.MAIL, smtptest.Action{Stall: true}), nil, append([]string{"-t8"}, job...),
			cmdtest.Want("ZConnected to 192.0.2.1 but connection died: no answer to MAIL within 2 seconds. (#4.4.2)\n\x00", "", 0), ""},
		{"no answer, begun", 6, smtptest.At(smtptest.Message, smtptest.Action{Stall: true}), nil, append([]string{"-t8"}, job...),
			cmdtest.Want("r\x00ZConnected to 192.0.2.1 but connection died: no answer to the message within 4 seconds. Possible duplicate! (#4.4.2)\n\x00", "", 0), ""},
		{"no such descriptor", 6, nil, nil, append([]string{"-6", "33"}, job...), cmdtest.Want("", "descriptor 33 ", 111), ""},
		{"no arguments", 6, nil, nil, nil, cmdtest.Want("", usage+"\n", 100), ""},
		{"two arguments", 6, nil, nil, job[:2], cmdtest.Want("", usage+"\n", 100), ""},
		{"no such option", 6, nil, nil, append([]string{"-x"}, job...), cmdtest.Want("", "unknown option \"-x\"\n", 100), ""},
		{"no time", 6, nil, nil, append([]string{"-t", "soon"}, job...), cmdtest.Want("", "option \"-t\": \"soon\" is not a number from 0 to 2147483647\n", 100), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := &smtptest.Server{Extensions: all, Act: c.act}
			cmd, release := command(t, server, c.fd, c.environ, c.args...)
			cmdtest.Run(t, cmd).Check(t, c.want)
			release()
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
	cmd, release := command(t, server, 6, nil, "192.0.2.1", "s@example.net", "a@example.org")
	cmd.Dir = t.TempDir() // for a core file
	must.OK(t, cmd.Start())
	release()
	<-reached
	_ = cmd.Process.Signal(syscall.SIGQUIT)
	_ = cmd.Wait()
	if !cmdtest.Crashed(cmd) {
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
		{&report.Fuse{Reason: blown, Reports: &stream}, "Kok\n\x00"},
		{errors.New("broken"), "ZInternal error: broken. (#4.3.5)\n\x00"},
	} {
		if got := string(final(stream, c.err).Bytes()); got != c.want {
			t.Errorf("error %v: %q, want %q", c.err, got, c.want)
		}
	}
}
