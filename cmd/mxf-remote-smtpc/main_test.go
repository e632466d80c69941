package main

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"

	"nightmare.mail/mxf/cmd/internal/cmdtest"
	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/smtpc"
	"nightmare.mail/mxf/smtpc/smtptest"
	"nightmare.mail/mxf/ucspitls"
)

func TestMain(m *testing.M) { cmdtest.Main(m, main) }

// dial returns a descriptor on a connection to a server.
func dial(t *testing.T, serve func(*smtptest.Conn)) *os.File {
	t.Helper()
	return cmdtest.File(t, smtptest.Dial(t, smtptest.Listen(t, serve)))
}

// start runs the program with the files as descriptors 6 and up.
func start(t *testing.T, files []*os.File, environ []string, args ...string) cmdtest.Result {
	t.Helper()
	cmd := cmdtest.Command(t, environ, args...)
	cmd.Stdin = strings.NewReader("Subject: test\n\n.dot\n")
	cmd.ExtraFiles = cmdtest.From(6, files...)
	return cmdtest.Run(t, cmd)
}

func TestProgram(t *testing.T) {
	home := cmdtest.Home(t, map[string]string{"me": "client.example.net"})
	quick := cmdtest.Home(t, map[string]string{"me": "client.example.net", "timeoutremote": "8"})
	bad := cmdtest.Home(t, map[string]string{"me": "client.example.net", "timeoutremote": "soon"})
	open := cmdtest.Home(t, map[string]string{"me": "client.example.net", "credentials": "relay.example::joe:password:secret"})
	job := []string{"example.org", "s@example.net", "a@example.org", "b@example.org"}
	for _, c := range []struct {
		name    string
		act     func(smtptest.Point) smtptest.Action
		environ []string
		args    []string
		want    cmdtest.Result
	}{
		{"accepted", nil, []string{home, "TCPREMOTEIP=192.0.2.1"}, job,
			cmdtest.Want("r\x00r\x00K192.0.2.1 accepted message.\nRemote host said: 250 accepted\n\x00", "", 0)},
		{"inside TLS", nil, []string{home, "TCPREMOTEIP=::1", "TCPREMOTEHOST=mx.example.org", "SSL_PROTOCOL=TLSv1.2", "SSL_CIPHER=X"}, job[:3],
			cmdtest.Want("r\x00K::1 accepted message.\nRemote host said: 250 accepted\nTLS: TLSv1.2 X unverified mx.example.org\n\x00", "", 0)},
		{"refused", smtptest.At(smtptest.MAIL, smtptest.Action{Reply: "550 no"}), []string{home}, job,
			cmdtest.Want("DConnected to unknown but sender was rejected.\nRemote host said: 550 no\n\x00", "", 0)},
		{"a probe", smtptest.At(smtptest.MAIL, smtptest.Action{Reply: "550 nobody was to say MAIL"}), []string{home, "TCPREMOTEIP=192.0.2.1"}, append([]string{"-p"}, job...),
			cmdtest.Want("r\x00r\x00K192.0.2.1 would take the message.\n\x00", "", 0)},
		{"a probe with the envelope", smtptest.At(smtptest.RCPT, smtptest.Action{Reply: "550 nobody"}), []string{home}, append([]string{"-p", "-r", "--"}, job[:3]...),
			cmdtest.Want("hunknown does not like recipient.\nRemote host said: 550 nobody\n\x00DGiving up on unknown.\n\x00", "", 0)},
		{"a probe, next exchanger", smtptest.At(smtptest.Greeting, smtptest.Action{Reply: "554 no"}), []string{home}, append([]string{"-p"}, job...),
			cmdtest.Want("", "Connected to unknown but greeting failed.\nRemote host said: 554 no\n", 75)},
		{"-r without -p", nil, nil, append([]string{"-r"}, job...), cmdtest.Want("", usage+"\n", 100)},
		{"next exchanger", smtptest.At(smtptest.Greeting, smtptest.Action{Reply: "554 no"}), []string{home}, job,
			cmdtest.Want("", "Connected to unknown but greeting failed.\nRemote host said: 554 no\n", 75)},
		{"the server leaves", smtptest.At(smtptest.EHLO, smtptest.Action{Close: true}), []string{home}, job,
			cmdtest.Want("", "Connected to unknown but connection died. (#4.4.2)\n", 78)},
		{"no answer, begun", smtptest.At(smtptest.RCPT, smtptest.Action{Stall: true}), []string{quick}, job,
			cmdtest.Want("ZConnected to unknown but connection died: no answer to RCPT within 2 seconds. (#4.4.2)\n\x00", "", 0)},
		{"no greeting", smtptest.At(smtptest.Greeting, smtptest.Action{Stall: true}), []string{quick, "TCPREMOTEPORT=465"}, job,
			cmdtest.Want("", "Connected to unknown but connection died: no greeting within 2 seconds, "+
				"and a server on port 465 waits for TLS from the first byte. (#4.4.2)\n", 75)},
		{"avoiding", smtptest.At(smtptest.EHLO, smtptest.Action{Reply: "550 nobody was to say EHLO"}), []string{home, "MXF_SMTPAVOID=PIPELINING,EHLO"}, job,
			cmdtest.Want("r\x00r\x00Kunknown accepted message.\nRemote host said: 250 accepted\n\x00", "", 0)},
		{"avoiding what is not known", nil, []string{home, "MXF_SMTPAVOID=PIPELINING,DSN"}, job,
			cmdtest.Want("", "MXF_SMTPAVOID: \"DSN\" is none of PIPELINING, SIZE, 8BITMIME, SMTPUTF8, EHLO\n", 100)},
		{"after TLS failed", smtptest.At(smtptest.MAIL, smtptest.Action{Reply: "550 5.1.8 not you"}), []string{home, "MXF_TLS=none", "MXF_TLSFAILED=1"}, job,
			cmdtest.Want("ZConnected to unknown but sender was rejected.\nRemote host said: 550 5.1.8 not you\n\x00", "", 0)},
		{"inside TLS that nobody speaks of", nil, []string{home, "MXF_TLS=verify", "MXF_INTLS=1", "TCPREMOTEHOST=mx.example.org"}, job,
			cmdtest.Want("r\x00r\x00Kunknown accepted message.\nRemote host said: 250 accepted\nTLS: unknown unknown verified mx.example.org\n\x00", "", 0)},
		{"no TLS client", nil, []string{home, "MXF_TLS=must"}, job,
			cmdtest.Want("", "Connected to unknown but TLS could not be had: there is no TLS client. (#4.7.5)\n", 76)},
		{"no such policy", nil, []string{home, "MXF_TLS=always"}, job,
			cmdtest.Want("", "MXF_TLS: TLS policy \"always\" is none of none, may, must, verify\n", 100)},
		{"half a TLS client", nil, []string{home, "SSLCTLFD=8"}, job,
			cmdtest.Want("", "SSLCTLFD=\"8\" SSLREADFD=\"\" SSLWRITEFD=\"\" are not three descriptors\n", 100)},
		{"no home", nil, []string{"MXF_HOME=/nonexistent/home"}, job, cmdtest.Want("", "nonexistent", 111)},
		{"malformed", nil, []string{bad}, job, cmdtest.Want("", "timeoutremote:1: ", 111)},
		{"credentials that others can read", nil, []string{open, "MXF_RELAY=relay.example"}, job, cmdtest.Want("", "control/credentials:0: expected a file that others cannot read", 111)},
		{"credentials that are not needed", nil, []string{open}, job,
			cmdtest.Want("r\x00r\x00Kunknown accepted message.\nRemote host said: 250 accepted\n\x00", "", 0)},
		{"a relay wants a login", smtptest.At(smtptest.MAIL, smtptest.Action{Reply: "530 log in"}), []string{home, "MXF_RELAY=relay.example"}, job,
			cmdtest.Want("ZConnected to unknown but sender was rejected.\nRemote host said: 530 log in\n\x00", "", 0)},
		{"somebody else wants a login", smtptest.At(smtptest.MAIL, smtptest.Action{Reply: "530 log in"}), []string{home}, job,
			cmdtest.Want("DConnected to unknown but sender was rejected.\nRemote host said: 530 log in\n\x00", "", 0)},
		{"no TLS client to tell of", nil, []string{home, "MXF_TLSRPT=1", "MXF_TLS=may"}, job,
			cmdtest.Want("r\x00r\x00Kunknown accepted message.\nRemote host said: 250 accepted\n\x00", "", 0)},
		{"no arguments", nil, nil, nil, cmdtest.Want("", usage+"\n", 100)},
		{"two arguments", nil, nil, []string{"example.org", ""}, cmdtest.Want("", usage+"\n", 100)},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := &smtptest.Server{Act: c.act}
			network := dial(t, server.Serve)
			start(t, []*os.File{network, network}, c.environ, c.args...).Check(t, c.want)
			network.Close()
			must.Check(t, server.Last(t).Violation())
		})
	}
	t.Run("no network", func(t *testing.T) {
		start(t, nil, []string{home}, job...).Check(t, cmdtest.Want("", "", 111))
	})
}

// TestFuse has a message that does not come to its end.
func TestFuse(t *testing.T) {
	home := cmdtest.Home(t, map[string]string{"me": "client.example.net", "timeoutremote": "4"})
	network := dial(t, new(smtptest.Server).Serve)
	r, _ := must.Pipe(t)
	cmd := cmdtest.Command(t, []string{home}, "example.org", "s@example.net", "a@example.org")
	cmd.Stdin, cmd.ExtraFiles = r, cmdtest.From(6, network, network)
	const slow = "Connected to unknown but the conversation took longer than 4 seconds. (#4.4.2)"
	cmdtest.Run(t, cmd).Check(t, cmdtest.Want("r\x00Z"+slow+"\n\x00", slow+"\n", 124))
}

// TestUCSPITLS plays the TLS client: what it calls the tunnel is a connection to
// a server of its own.
func TestUCSPITLS(t *testing.T) {
	home := cmdtest.Home(t, map[string]string{"me": "client.example.net"})
	const told = "MXF_TLSRPT=1"
	for _, c := range []struct {
		name   string
		more   string // in the environment
		answer func(ctl *os.File) error
		want   cmdtest.Result
	}{
		{"told", told, func(ctl *os.File) error {
			return ucspitls.Tell(ctl, []string{"SSL_PROTOCOL=TLSv1.3", "SSL_CIPHER=X", "SSL_PEER_VERIFIED=yes"})
		}, cmdtest.Want("r\x00Kunknown accepted message.\nRemote host said: 250 ok\nTLS: TLSv1.3 X verified mx.example.org\n\x00", "mxf-remote-smtpc: starttls: up\n", 0)},
		{"told, not verified", told, func(ctl *os.File) error {
			return ucspitls.Tell(ctl, []string{"SSL_PROTOCOL=TLSv1.3", "SSL_CIPHER=X", "SSL_PEER_VERIFIED=no:certificate is bad"})
		}, cmdtest.Want("r\x00Kunknown accepted message.\nRemote host said: 250 ok\nTLS: TLSv1.3 X unverified mx.example.org\n\x00", "mxf-remote-smtpc: starttls: up no:certificate is bad\n", 0)},
		{"told, no handshake", told, func(*os.File) error { return nil },
			cmdtest.Want("", "mxf-remote-smtpc: starttls: failed\nConnected to unknown but TLS could not be had: the TLS client could not start TLS. (#4.7.5)\n", 76)},
		{"handshake", "MXF_TLSRPT=", func(ctl *os.File) error {
			return ucspitls.Tell(ctl, []string{"SSL_PROTOCOL=TLSv1.3", "SSL_CIPHER=X", "SSL_PEER_VERIFIED=yes"})
		}, cmdtest.Want("r\x00Kunknown accepted message.\nRemote host said: 250 ok\nTLS: TLSv1.3 X verified mx.example.org\n\x00", "", 0)},
		{"no handshake", "MXF_TLSRPT=", func(*os.File) error { return nil },
			cmdtest.Want("", "Connected to unknown but TLS could not be had: the TLS client could not start TLS. (#4.7.5)\n", 76)},
	} {
		t.Run(c.name, func(t *testing.T) {
			clear := dial(t, func(c *smtptest.Conn) {
				c.Say("220 a\n")
				c.Line()
				c.Say("250-a\n250 STARTTLS\n")
				c.Line()
				c.Say("220 go\n")
				if rest, err := c.Reader.ReadByte(); err == nil {
					t.Errorf("%q came in the clear after STARTTLS", rest)
				}
			})
			tunnel := dial(t, func(c *smtptest.Conn) {
				for {
					line, err := c.Line()
					if err != nil {
						return
					}
					if line == "DATA" {
						c.Say("354 go\n")
						for line, err = c.Line(); err == nil && line != "."; {
							line, err = c.Line()
						}
					}
					c.Say("250 ok\n")
				}
			})
			pair := must.Get(syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0))(t)
			syscall.CloseOnExec(pair[0]) // no flag of socketpair(2) on macOS
			syscall.CloseOnExec(pair[1])
			ours, theirs := os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
			answered := make(chan error, 1)
			go func() {
				defer ours.Close()
				command, err := ucspitls.Await(ours)
				if err == nil && command != ucspitls.Full {
					err = errors.New("no Y")
				}
				answered <- errors.Join(err, c.answer(ours))
			}()
			got := start(t, []*os.File{clear, clear, theirs, tunnel, tunnel},
				[]string{home, c.more, "TCPREMOTEHOST=mx.example.org", "SSLCTLFD=8", "SSLREADFD=9", "SSLWRITEFD=10", "SSL_PROTOCOL=old"},
				"example.org", "s@example.net", "a@example.org")
			theirs.Close()
			must.Check(t, <-answered)
			got.Check(t, c.want)
		})
	}
}

func TestParseTLS(t *testing.T) {
	for word, want := range map[string]smtpc.STARTTLS{
		"none": smtpc.Never, "": smtpc.IfOffered, "may": smtpc.IfOffered, "must": smtpc.Required, "verify": smtpc.Required,
	} {
		if got, err := parseTLS(word); got != want || err != nil {
			t.Errorf("%q: %d, %v", word, got, err)
		}
	}
	for _, word := range []string{"always", "May", " may", "may,must"} {
		if _, err := parseTLS(word); err == nil {
			t.Errorf("%q: no error", word)
		}
	}
}
