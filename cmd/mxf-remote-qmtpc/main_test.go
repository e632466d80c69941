package main

import (
	"errors"
	"io"
	"net"
	"os/exec"
	"strings"
	"testing"

	"nightmare.mail/mxf/cmd/internal/cmdtest"
	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/qmtpc/qmtptest"
)

func TestMain(m *testing.M) { cmdtest.Main(m, main) }

// connect gives the program a connection to a server that follows script.
func connect(t *testing.T, cmd *exec.Cmd, script qmtptest.Script) {
	t.Helper()
	s := must.Get(qmtptest.Start(script))(t)
	t.Cleanup(func() { s.Close() })
	network := cmdtest.File(t, must.Get(net.Dial("tcp", s.Addr()))(t))
	cmd.ExtraFiles = cmdtest.From(6, network, network)
}

func TestProgram(t *testing.T) {
	home := cmdtest.Home(t, map[string]string{"me": "client.example.net"})
	quick := cmdtest.Home(t, map[string]string{"me": "client.example.net", "timeoutremote": "1"})
	bad := cmdtest.Home(t, map[string]string{"me": "client.example.net", "timeoutremote": "soon"})
	silent := func(c *qmtptest.Conn) error { _, err := io.Copy(io.Discard, c); return err }
	leaves := func(c *qmtptest.Conn) error { return nil }
	job := []string{"example.org", "s@example.net", "a@example.org", "b@example.org"}
	resets := func(c *qmtptest.Conn) error { c.Discard(1); return c.Reset() }
	for _, c := range []struct {
		name    string
		script  qmtptest.Script
		environ []string
		args    []string
		want    cmdtest.Result
	}{
		{"accepted", qmtptest.Answer("Kok", "Dno"), []string{home, "TCPREMOTEIP=192.0.2.1"}, job,
			cmdtest.Want("r\x00h192.0.2.1 does not like recipient.\nRemote host said: no\n\x00K192.0.2.1 accepted message.\nRemote host said: ok\n\x00", "", 0)},
		{"no address", qmtptest.Answer("Zlater", "Dno"), []string{home}, job,
			cmdtest.Want("sunknown does not like recipient.\nRemote host said: later\n\x00hunknown does not like recipient.\nRemote host said: no\n\x00ZGiving up on unknown.\n\x00", "", 0)},
		{"inside TLS", qmtptest.Answer("Kok"), []string{home, "TCPREMOTEIP=::1", "TCPREMOTEHOST=mx.example.org", "SSL_PROTOCOL=TLSv1.2", "SSL_CIPHER=X"}, job[:3],
			cmdtest.Want("r\x00K::1 accepted message.\nRemote host said: ok\nTLS: TLSv1.2 X unverified mx.example.org\n\x00", "", 0)},
		{"a probe says nothing", func(c *qmtptest.Conn) error {
			if n, _ := io.Copy(io.Discard, c); n > 0 {
				return errors.New("it said something")
			}
			return nil
		}, []string{home}, append([]string{"-p"}, job...), cmdtest.Want("r\x00r\x00Kunknown would take the message.\n\x00", "", 0)},
		{"the server leaves", leaves, []string{home}, job,
			cmdtest.Want("", "Connected to unknown but connection died. (#4.4.2)\n", 75)},
		{"the server resets", resets, []string{home}, job,
			cmdtest.Want("", "Connected to unknown but connection died. (#4.4.2)\n", 75)},
		{"the fuse", silent, []string{quick}, job,
			cmdtest.Want("ZConnected to unknown but the conversation took longer than 1 seconds. Possible duplicate! (#4.4.2)\n\x00", "Connected to unknown but the conversation took longer than 1 seconds. Possible duplicate! (#4.4.2)\n", 124)},
		{"no home", silent, []string{"MXF_HOME=/nonexistent/home"}, job, cmdtest.Want("", "nonexistent", 111)},
		{"malformed", silent, []string{bad}, job, cmdtest.Want("", "timeoutremote:1: ", 111)},
		{"no arguments", nil, nil, nil, cmdtest.Want("", usage+"\n", 100)},
		{"two arguments", nil, nil, []string{"example.org", ""}, cmdtest.Want("", usage+"\n", 100)},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd := cmdtest.Command(t, c.environ, c.args...)
			cmd.Stdin = strings.NewReader("x\n")
			if c.want.Status == 75 {
				// More than a connection holds that nobody reads from: the last byte is not sent.
				cmd.Stdin = strings.NewReader(strings.Repeat("x\n", 16<<20))
			}
			if c.script != nil {
				connect(t, cmd, c.script)
			}
			cmdtest.Run(t, cmd).Check(t, c.want)
		})
	}
}
