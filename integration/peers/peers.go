// Package peers starts servers that others wrote, for tests: Postfix, Exim and
// OpenSMTPD, Postfix's smtp-sink, and mailfront's QMTP servers under tcpserver,
// behind stunnel for QMTPS. It also runs verifiers of DKIM signatures, and NSD and Unbound,
// with zones that ldns signs.
// Each server runs from a folder of its own, with its own
// configuration and queue, on a loopback port, and is gone when the test ends.
//
// Where a program is missing the test is skipped, loudly; when the environment
// has CI=true it fails instead. Debian's three mail servers exclude one another
// as packages, so a program and its libraries are looked for beneath
// $MXF_PEERS_ROOT first, where packages can be unpacked without being installed.
//
// Postfix can demand logins, which Cyrus SASL or a Dovecot checks, and Exim can by itself.
//
// Postfix, Exim and OpenSMTPD are several processes with several users, which
// takes root to start. Exim and OpenSMTPD have paths and user names compiled in;
// they get a root folder and a list of users made for them (Root).
package peers

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"nightmare.mail/mxf/integration/must"
)

const (
	// patience is how long a server may take to start, to deliver, and to stop.
	patience = 30 * time.Second
	// pause is the time between two looks at something that will happen.
	pause = 20 * time.Millisecond
	// attempts is how often a server is started on a new port: another process
	// may take the port that the kernel named before the server does.
	attempts = 3
)

// Domain is the domain that the servers take mail for; "refused" and what begins
// so are no mailboxes in it.
const Domain = "peer.example"

// RefusedPrefix begins the local parts that every server refuses for good.
const RefusedPrefix = "refused"

// Options is what differs from one server to the next.
type Options struct {
	Certificate, Key string // PEM files; without them there is no TLS
	ClientCA         string // PEM file; a client must show a certificate from it (Postfix, Exim)
	NoPipelining     bool   // do not offer PIPELINING (Postfix, Exim)
	Login            *Login // demanded of everybody (Postfix, Exim); nil: none is offered
}

func (o Options) tls() bool { return o.Certificate != "" }

// A Message is one copy of a message that a server has stored.
type Message struct {
	Sender     string
	Recipients []string
	Data       []byte // UNIX newlines, without the trace fields that the server has put before it
}

// A Server is a server under way.
type Server struct {
	Name string
	Addr string // host:port

	log    string // path
	stored func() ([]Message, error)
}

// Stored waits for n messages to be stored, and returns all there are then.
func (s *Server) Stored(t testing.TB, n int) []Message {
	t.Helper()
	return s.StoredWhen(t, func(m []Message) bool { return len(m) >= n })
}

// StoredWhen waits until enough is true of what is stored, and returns it.
func (s *Server) StoredWhen(t testing.TB, enough func([]Message) bool) []Message {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(pause) {
		messages, err := s.stored()
		switch {
		case err != nil:
			t.Fatalf("what %s has stored: %v", s.Name, err)
		case enough(messages):
			return messages
		case time.Now().After(end):
			t.Fatalf("%s has stored %d messages, and no more; its log:\n%s", s.Name, len(messages), s.Log())
		}
	}
}

// Log returns what the server has logged.
func (s *Server) Log() string {
	b, err := os.ReadFile(s.log)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// Missing skips a test because it needs something that is not here, or fails it in
// CI, where there is everything. needs is a Debian package, or "root": make check
// reads it and says in the end what would have to be installed. It must be called in
// the goroutine of the test.
func Missing(t testing.TB, needs, format string, args ...any) {
	t.Helper()
	what := fmt.Sprintf(format, args...)
	if os.Getenv("CI") == "true" {
		t.Fatalf("in CI every server has to be there: %s", what)
	}
	t.Skipf("NOT TESTED, needs %s: %s", needs, what)
}

// debian is the package that brings a program, where their names differ.
var debian = map[string]string{
	"dovecot":          "dovecot-core",
	"exim4":            "exim4-daemon-light",
	"gnutls-serv":      "gnutls-bin",
	"ldns-keygen":      "ldnsutils",
	"ldns-signzone":    "ldnsutils",
	"mail.maildir":     "opensmtpd",
	"opendkim-testmsg": "opendkim-tools",
	"postconf":         "postfix",
	"posttls-finger":   "postfix",
	"qmtpfront-echo":   "mailfront",
	"saslpasswd2":      "sasl2-bin",
	"smtp-sink":        "postfix",
	"smtpd":            "opensmtpd",
	"stdbuf":           "coreutils",
	"stunnel":          "stunnel4",
	"tcpclient":        "ucspi-tcp",
	"tcpserver":        "ucspi-tcp",
	"unshare":          "util-linux",
}

// Package returns the Debian package that brings a program.
func Package(program string) string { return cmp.Or(debian[program], program) }

// needRoot skips a test that needs privileges.
func needRoot(t testing.TB, program string) {
	t.Helper()
	if os.Geteuid() != 0 {
		Missing(t, "root", "%s can be started by root only", program)
	}
}

// folders is where programs are looked for: daemons are not in everybody's path.
const folders = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/libexec/opensmtpd"

// find returns the path of a program.
func find(t testing.TB, program string) string {
	t.Helper()
	for _, folder := range filepath.SplitList(folders) {
		for _, root := range []string{os.Getenv("MXF_PEERS_ROOT"), "/"} {
			path := filepath.Join(root, folder, program)
			if info, err := os.Stat(path); root != "" && err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
				return path
			}
		}
	}
	Missing(t, Package(program), "there is no %s in %s, nor beneath $MXF_PEERS_ROOT (%q)", program, folders, os.Getenv("MXF_PEERS_ROOT"))
	return ""
}

// folder returns a new folder that every user may enter: servers give up root.
func folder(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	// The folder that holds a test's folders is its user's alone.
	for _, d := range []string{filepath.Dir(dir), dir} {
		must.OK(t, os.Chmod(d, 0o755))
	}
	return dir
}

// write makes a file, and the folders above it.
func write(t testing.TB, path, content string) string {
	t.Helper()
	must.Write(t, path, content)
	return path
}

// A launch is how to start one server.
type launch struct {
	name string
	log  string // a file that the server's output goes to
	// command makes the command that serves on 127.0.0.1:port, in the foreground.
	command func(port string) *exec.Cmd
	// greets: the server speaks first.
	greets bool
}

// start starts a server and has it stopped when the test ends.
func (l launch) start(t testing.TB) *Server {
	t.Helper()
	var failed error
	for range attempts {
		port, err := freePort()
		must.OK(t, err)
		s := &Server{Name: l.name, Addr: net.JoinHostPort("127.0.0.1", port), log: l.log}
		if failed = l.try(t, s, port); failed == nil {
			return s
		}
	}
	log, _ := os.ReadFile(l.log)
	t.Fatalf("%s did not start: %v; its log:\n%s", l.name, failed, log)
	return nil
}

func (l launch) try(t testing.TB, s *Server, port string) error {
	cmd := l.command(port)
	out, err := os.OpenFile(l.log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o666)
	if err != nil {
		return err
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	p, err := run(cmd)
	if err != nil {
		return err
	}
	if err := p.ready(s.Addr, l.greets); err != nil {
		p.stop()
		return err
	}
	t.Cleanup(func() {
		p.stop()
		if t.Failed() {
			t.Logf("log of %s:\n%s", s.Name, s.Log())
		}
	})
	return nil
}

// freePort returns a port that is free at the moment.
func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, err
}

// A process is a server and its children, which are a process group.
type process struct {
	group int
	ended chan struct{}
}

func run(cmd *exec.Cmd) (*process, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = new(syscall.SysProcAttr)
	}
	cmd.SysProcAttr.Setpgid = true
	// A test that is killed, or whose time is over, has no clean-up. The signal
	// comes when the thread that started the process ends, so it has to be kept.
	dieWithParent(cmd.SysProcAttr)
	p := &process{ended: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		if err == nil {
			p.group = cmd.Process.Pid
		}
		started <- err
		if err == nil {
			cmd.Wait()
			close(p.ended)
		}
	}()
	return p, <-started
}

var errEnded = errors.New("it ended at once")

// ready waits until the server answers at addr.
func (p *process) ready(addr string, greets bool) error {
	for end := time.Now().Add(patience); ; time.Sleep(pause) {
		err := knock(addr, greets)
		select {
		case <-p.ended:
			return errEnded
		default:
		}
		if err == nil || time.Now().After(end) {
			return err
		}
	}
}

// knock makes a connection and reads the greeting, if the protocol has one.
func knock(addr string, greets bool) error {
	conn, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return err
	}
	defer conn.Close()
	if !greets {
		return nil
	}
	conn.SetDeadline(time.Now().Add(patience))
	greeting := make([]byte, 512)
	n, err := conn.Read(greeting)
	if err == nil && !bytes.HasPrefix(greeting[:n], []byte("220")) {
		err = fmt.Errorf("greeting %q", greeting[:n])
	}
	conn.Write([]byte("QUIT\r\n"))
	return err
}

// stop ends the server, then whatever of it is left.
func (p *process) stop() {
	syscall.Kill(p.group, syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(patience):
	}
	syscall.Kill(-p.group, syscall.SIGKILL)
	<-p.ended
	for end := time.Now().Add(patience); p.anyLeft() && time.Now().Before(end); {
		time.Sleep(pause)
	}
}

// anyLeft reports whether a process of the group is alive. Dead ones may wait for
// ever to be reaped where the first process of a container does not care.
func (p *process) anyLeft() bool {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, stat := range stats {
		line, err := os.ReadFile(stat)
		if err != nil {
			continue
		}
		// After the name, in brackets: state, parent, group.
		fields := strings.Fields(string(line[bytes.LastIndexByte(line, ')')+1:]))
		if len(fields) > 2 && fields[0] != "Z" && fields[2] == strconv.Itoa(p.group) {
			return true
		}
	}
	return false
}

// maildir reads what is in a maildir, each message by parse.
func maildir(dir string, parse func([]byte) (Message, error)) func() ([]Message, error) {
	return func() ([]Message, error) {
		entries, err := os.ReadDir(filepath.Join(dir, "new"))
		if errors.Is(err, os.ErrNotExist) {
			return nil, nil
		} else if err != nil {
			return nil, err
		}
		var messages []Message
		for _, e := range entries {
			raw, err := os.ReadFile(filepath.Join(dir, "new", e.Name()))
			if err != nil {
				return messages, err
			}
			m, err := parse(raw)
			if err != nil {
				return messages, fmt.Errorf("%s: %w", e.Name(), err)
			}
			messages = append(messages, m)
		}
		return messages, nil
	}
}

// traceFields takes from raw the header fields that names lists, each at most
// once and in that order, with their continuation lines. They are what a server
// puts before a message; fields of the same names further down are the message's.
func traceFields(raw []byte, names ...string) (values map[string]string, rest []byte, err error) {
	values = make(map[string]string)
	for _, name := range names {
		if !hasPrefixFold(raw, name+":") {
			return nil, nil, fmt.Errorf("the server has stored no %s where it belongs: %.100q", name, raw)
		}
		end := fieldEnd(raw)
		values[name] = strings.TrimSpace(string(raw[len(name)+1 : end]))
		raw = raw[end:]
	}
	return values, raw, nil
}

func hasPrefixFold(b []byte, prefix string) bool {
	return len(b) >= len(prefix) && strings.EqualFold(string(b[:len(prefix)]), prefix)
}

// fieldEnd returns where the header field that raw begins with ends.
func fieldEnd(raw []byte) int {
	end := 0
	for {
		i := bytes.IndexByte(raw[end:], '\n')
		if i < 0 {
			return len(raw)
		}
		end += i + 1
		if end == len(raw) || raw[end] != ' ' && raw[end] != '\t' {
			return end
		}
	}
}
