package peers

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"nightmare.mail/mxf/integration/must"
)

// Mailfront starts mailfront's QMTP server under tcpserver. A message is stored
// exactly as it came. Version 2.12 answers once for a package and not, as QMTP
// has it, once for each recipient, so it is good for one recipient at a time.
func Mailfront(t testing.TB) *Server {
	t.Helper()
	dir := folder(t)
	for _, sub := range []string{"mail/tmp", "mail/new"} {
		must.OK(t, os.MkdirAll(filepath.Join(dir, sub), 0o755))
	}
	rules := write(t, filepath.Join(dir, "rules"), ":recipient\nd*:"+RefusedPrefix+"*:no such mailbox\n")
	s := tcpserver(t, "mailfront", dir,
		[]string{"QUEUEDIR=" + filepath.Join(dir, "mail"), "MAILRULES=" + rules},
		find(t, "mailfront"), "qmtp", "queuedir", "mailrules", "accept")
	s.stored = maildir(filepath.Join(dir, "mail"), parseQueued)
	return s
}

// QMTPFrontEcho starts mailfront's qmtpfront-echo under tcpserver. It stores
// nothing and tells in its answer how many bytes it has read; version 2.12 dies
// of a bus error when that is more than none, after it has read the package.
func QMTPFrontEcho(t testing.TB) *Server {
	t.Helper()
	return tcpserver(t, "qmtpfront-echo", folder(t), nil, find(t, "qmtpfront-echo"), "accept")
}

func tcpserver(t testing.TB, name, dir string, environ []string, program ...string) *Server {
	t.Helper()
	server := find(t, "tcpserver")
	return launch{name: name, log: filepath.Join(dir, "log"), command: func(port string) *exec.Cmd {
		// No lookups of names, no questions to identd.
		args := append([]string{"-v", "-DRH", "-c", "200", "-l", "localhost", "127.0.0.1", port}, program...)
		cmd := exec.Command(server, args...)
		cmd.Env = append([]string{"PATH=" + folders, "TMPDIR=" + dir}, environ...)
		return cmd
	}}.start(t)
}

// Stunnel starts stunnel as the TLS end before another server.
func Stunnel(t testing.TB, behind *Server, o Options) *Server {
	t.Helper()
	program := find(t, "stunnel")
	dir := folder(t)
	config := filepath.Join(dir, "stunnel.conf")
	s := launch{name: "stunnel before " + behind.Name, log: filepath.Join(dir, "log"), command: func(port string) *exec.Cmd {
		text := "foreground = yes\npid =\nsyslog = no\ndebug = 5\n[qmtps]\n" +
			"accept = 127.0.0.1:" + port + "\nconnect = " + behind.Addr +
			"\ncert = " + o.Certificate + "\nkey = " + o.Key + "\nTIMEOUTclose = 0\n"
		if o.ClientCA != "" {
			text += "verifyChain = yes\nCAfile = " + o.ClientCA + "\n"
		}
		write(t, config, text)
		cmd := exec.Command(program, config)
		cmd.Env = []string{"PATH=" + folders}
		return cmd
	}}.start(t)
	s.stored = behind.stored
	return s
}

// parseQueued reads a file of mailfront's queuedir backend: the sender and the
// recipients, each ended by a zero byte, and the message. Nothing but their
// domain tells recipients from a message with a zero byte in it.
func parseQueued(raw []byte) (Message, error) {
	sender, rest, found := bytes.Cut(raw, []byte{0})
	m := Message{Sender: string(sender), Data: rest}
	for found {
		var recipient []byte
		recipient, rest, found = bytes.Cut(m.Data, []byte{0})
		if found = found && bytes.HasSuffix(recipient, []byte("@"+Domain)); found {
			m.Recipients, m.Data = append(m.Recipients, string(recipient)), rest
		}
	}
	if len(m.Recipients) == 0 {
		return m, fmt.Errorf("the envelope has no recipient: %.100q", raw)
	}
	return m, nil
}
