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
	"syscall"
	"testing"

	"nightmare.mail/mxf/smtpc/smtptest"
	"nightmare.mail/mxf/ucspitls"
)

// The test binary is the program when it is told so: the real main, with real
// descriptors.
func TestMain(m *testing.M) {
	if os.Getenv("BE_MXF_REMOTE_SMTPC") != "" {
		os.Unsetenv("BE_MXF_REMOTE_SMTPC")
		main()
	}
	os.Exit(m.Run())
}

func TestUsageIsTheSynopsis(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "doc", "mxf-remote-smtpc.8"))
	if err != nil {
		t.Fatal(err)
	}
	_, synopsis, _ := strings.Cut(string(page), ".Sh SYNOPSIS\n")
	synopsis, _, _ = strings.Cut(synopsis, ".Sh")
	for _, macro := range []struct{ is, reads string }{
		{`(?m)^\.Ar (.*)\n`, "$1 "},
		{`(?m)^\.Fl -(\S+) \| -(\S+)\n`, "--$1 | --$2"},
		{`\.Nm\n`, "\nmxf-remote-smtpc "},
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

// dial returns a descriptor on a connection to a server.
func dial(t *testing.T, address string) *os.File {
	t.Helper()
	conn := smtptest.Dial(t, address)
	file, err := conn.(*net.TCPConn).File()
	conn.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return file
}

// start runs the program with the files as descriptors 6 and up.
func start(t *testing.T, files []*os.File, environ []string, args ...string) result {
	t.Helper()
	return startWith(t, strings.NewReader("Subject: test\n\n.dot\n"), files, environ, args...)
}

func startWith(t *testing.T, message io.Reader, files []*os.File, environ []string, args ...string) result {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Env = append([]string{"BE_MXF_REMOTE_SMTPC=1", "GORACE=atexit_sleep_ms=0"}, environ...)
	cmd.Stdin = message
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.ExtraFiles = append(make([]*os.File, 3), files...)
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

func one(phase smtptest.Phase, act smtptest.Action) func(smtptest.Point) smtptest.Action {
	return func(p smtptest.Point) smtptest.Action {
		if p.Phase == phase {
			return act
		}
		return smtptest.Action{}
	}
}

func TestProgram(t *testing.T) {
	home := homeWith(t, map[string]string{"me": "client.example.net\n"})
	quick := homeWith(t, map[string]string{"me": "client.example.net\n", "timeoutremote": "8\n"})
	bad := homeWith(t, map[string]string{"me": "client.example.net\n", "timeoutremote": "soon\n"})
	job := []string{"example.org", "s@example.net", "a@example.org", "b@example.org"}
	for _, c := range []struct {
		name    string
		act     func(smtptest.Point) smtptest.Action
		environ []string
		args    []string
		want    result
	}{
		{"accepted", nil, []string{home, "TCPREMOTEIP=192.0.2.1"}, job,
			result{"r\x00r\x00K192.0.2.1 accepted message.\nRemote host said: 250 accepted\n\x00", "", 0}},
		{"inside TLS", nil, []string{home, "TCPREMOTEIP=::1", "TCPREMOTEHOST=mx.example.org", "SSL_PROTOCOL=TLSv1.2", "SSL_CIPHER=X"}, job[:3],
			result{"r\x00K::1 accepted message.\nRemote host said: 250 accepted\nTLS: TLSv1.2 X unverified mx.example.org\n\x00", "", 0}},
		{"refused", one(smtptest.MAIL, smtptest.Action{Reply: "550 no"}), []string{home}, job,
			result{"DConnected to unknown but sender was rejected.\nRemote host said: 550 no\n\x00", "", 0}},
		{"next exchanger", one(smtptest.Greeting, smtptest.Action{Reply: "554 no"}), []string{home}, job,
			result{"", "Connected to unknown but greeting failed.\nRemote host said: 554 no\n", 75}},
		{"the server leaves", one(smtptest.EHLO, smtptest.Action{Close: true}), []string{home}, job,
			result{"", "Connected to unknown but connection died. (#4.4.2)\n", 78}},
		{"no answer, begun", one(smtptest.RCPT, smtptest.Action{Stall: true}), []string{quick}, job,
			result{"ZConnected to unknown but connection died: no answer to RCPT within 2 seconds. (#4.4.2)\n\x00", "", 0}},
		{"no greeting", one(smtptest.Greeting, smtptest.Action{Stall: true}), []string{quick, "TCPREMOTEPORT=465"}, job,
			result{"", "Connected to unknown but connection died: no greeting within 2 seconds, " +
				"and a server on port 465 waits for TLS from the first byte. (#4.4.2)\n", 75}},
		{"avoiding", func(p smtptest.Point) smtptest.Action {
			if p.Phase == smtptest.EHLO {
				return smtptest.Action{Reply: "550 nobody was to say EHLO"}
			}
			return smtptest.Action{}
		}, []string{home, "MXF_SMTPAVOID=PIPELINING,EHLO"}, job,
			result{"r\x00r\x00Kunknown accepted message.\nRemote host said: 250 accepted\n\x00", "", 0}},
		{"avoiding what is not known", nil, []string{home, "MXF_SMTPAVOID=PIPELINING,DSN"}, job,
			result{"", "MXF_SMTPAVOID: \"DSN\" is none of PIPELINING, SIZE, 8BITMIME, SMTPUTF8, EHLO\n", 100}},
		{"after TLS failed", one(smtptest.MAIL, smtptest.Action{Reply: "550 5.1.8 not you"}), []string{home, "MXF_TLS=none", "MXF_TLSFAILED=1"}, job,
			result{"ZConnected to unknown but sender was rejected.\nRemote host said: 550 5.1.8 not you\n\x00", "", 0}},
		{"inside TLS that nobody speaks of", nil, []string{home, "MXF_TLS=verify", "MXF_INTLS=1", "TCPREMOTEHOST=mx.example.org"}, job,
			result{"r\x00r\x00Kunknown accepted message.\nRemote host said: 250 accepted\nTLS: unknown unknown verified mx.example.org\n\x00", "", 0}},
		{"no TLS client", nil, []string{home, "MXF_TLS=must"}, job,
			result{"", "Connected to unknown but TLS could not be had: there is no TLS client. (#4.7.5)\n", 76}},
		{"no such policy", nil, []string{home, "MXF_TLS=always"}, job,
			result{"", "MXF_TLS: TLS policy \"always\" is none of none, may, must, verify\n", 100}},
		{"half a TLS client", nil, []string{home, "SSLCTLFD=8"}, job,
			result{"", "SSLCTLFD=\"8\" SSLREADFD=\"\" SSLWRITEFD=\"\" are not three descriptors\n", 100}},
		{"no home", nil, []string{"MXF_HOME=/nonexistent/home"}, job, result{"", "nonexistent", 111}},
		{"malformed", nil, []string{bad}, job, result{"", "timeoutremote:1: ", 111}},
		{"no arguments", nil, nil, nil, result{"", usage + "\n", 100}},
		{"two arguments", nil, nil, []string{"example.org", ""}, result{"", usage + "\n", 100}},
		{"help", nil, nil, []string{"--help"}, result{usage + "\n", "", 0}},
		{"version", nil, nil, []string{"--version"}, result{"mxf-remote-smtpc ", "", 0}},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := &smtptest.Server{Act: c.act}
			network := dial(t, smtptest.Listen(t, server.Serve))
			got := start(t, []*os.File{network, network}, c.environ, c.args...)
			loose := c.want.status == 111 || c.name == "version"
			if got != c.want && (!loose || !strings.Contains(got.out, c.want.out) || !strings.Contains(got.err, c.want.err) || got.status != c.want.status) {
				t.Errorf("got\n%+v, want\n%+v", got, c.want)
			}
		})
	}
	t.Run("no network", func(t *testing.T) {
		if got := start(t, nil, []string{home}, job...); got.status != 111 || got.out != "" || got.err == "" {
			t.Errorf("got %+v", got)
		}
	})
}

// TestFuse has a message that does not come to its end.
func TestFuse(t *testing.T) {
	home := homeWith(t, map[string]string{"me": "client.example.net\n", "timeoutremote": "4\n"})
	network := dial(t, smtptest.Listen(t, new(smtptest.Server).Serve))
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	defer r.Close()
	got := startWith(t, r, []*os.File{network, network}, []string{home}, "example.org", "s@example.net", "a@example.org")
	const slow = "Connected to unknown but the conversation took longer than 4 seconds. (#4.4.2)"
	if want := (result{"r\x00Z" + slow + "\n\x00", slow + "\n", 124}); got != want {
		t.Errorf("got\n%+v, want\n%+v", got, want)
	}
}

// TestUCSPITLS plays the TLS client: what it calls the tunnel is a connection to
// a server of its own.
func TestUCSPITLS(t *testing.T) {
	home := homeWith(t, map[string]string{"me": "client.example.net\n"})
	for _, c := range []struct {
		name   string
		answer func(ctl *os.File) error
		want   result
	}{
		{"handshake", func(ctl *os.File) error {
			return ucspitls.Tell(ctl, []string{"SSL_PROTOCOL=TLSv1.3", "SSL_CIPHER=X", "SSL_PEER_VERIFIED=yes"})
		}, result{"r\x00Kunknown accepted message.\nRemote host said: 250 ok\nTLS: TLSv1.3 X verified mx.example.org\n\x00", "", 0}},
		{"no handshake", func(*os.File) error { return nil },
			result{"", "Connected to unknown but TLS could not be had: the TLS client could not start TLS. (#4.7.5)\n", 76}},
	} {
		t.Run(c.name, func(t *testing.T) {
			clear := dial(t, smtptest.Listen(t, func(c *smtptest.Conn) {
				c.Say("220 a\n")
				c.Line()
				c.Say("250-a\n250 STARTTLS\n")
				c.Line()
				c.Say("220 go\n")
				if rest, err := c.Reader.ReadByte(); err == nil {
					t.Errorf("%q came in the clear after STARTTLS", rest)
				}
			}))
			tunnel := dial(t, smtptest.Listen(t, func(c *smtptest.Conn) {
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
			}))
			pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
			if err != nil {
				t.Fatal(err)
			}
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
				[]string{home, "TCPREMOTEHOST=mx.example.org", "SSLCTLFD=8", "SSLREADFD=9", "SSLWRITEFD=10", "SSL_PROTOCOL=old"},
				"example.org", "s@example.net", "a@example.org")
			theirs.Close()
			if err := <-answered; err != nil {
				t.Error(err)
			}
			if got != c.want {
				t.Errorf("got\n%+v, want\n%+v", got, c.want)
			}
		})
	}
}
