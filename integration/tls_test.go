package integration

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nightmare.mail/mxf/integration/lab"
	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/integration/peers"
	"nightmare.mail/mxf/tlsc"
	"nightmare.mail/mxf/tlsc/tlstest"
	"nightmare.mail/mxf/ucspitls"
)

// Setup: mxf-tlsc and mxf-ucspitlsc, built as they are released, run this test
// binary as their prog (see client below); the server is crypto/tls in this
// process, or a program of somebody else's.
//
//	test ◄─stdin,stdout─► client ◄─6,7─► mxf-tlsc-io ◄─socket─► server in the test
//
// Test: what mxf-tlsc(8) and mxf-ucspitlsc(8) say, sentence by sentence.

// tlsLimit bounds what ought to take a moment, on a slow machine too.
const tlsLimit = 60 * time.Second

// The environment that makes this binary the client.
const (
	clientFolder = "TLS_TEST_FOLDER" // where the client leaves what it found; set: be the client
	clientAsk    = "TLS_TEST_ASK"    // what to send over the control socket; "-" closes it
	clientDo     = "TLS_TEST_DO"     // see client
)

func init() {
	if folder := os.Getenv(clientFolder); folder != "" {
		os.Exit(client(folder))
	}
}

// facts are what the client finds when it is started.
type facts struct {
	Pid     int
	Args    []string
	Environ []string
	Open    map[int]string // descriptors that came through exec, and what they are
	Blocks  map[int]bool
}

// client is the prog of the chain. It copies standard input to the network and the
// network to standard output, in both directions at once, and leaves three files:
// facts, block (what UCSPI-TLS told), tunnel (how the TLS process ended).
func client(folder string) int {
	leave := func(name string, v any) {
		data, err := json.Marshal(v)
		if err == nil {
			err = os.WriteFile(filepath.Join(folder, name), data, 0o644)
		}
		if err != nil {
			panic(err)
		}
	}
	leave("facts", look())
	in, out := 6, 7
	if os.Getenv(clientDo) == "starttls" {
		repeatTwoLines()
	}
	if ask := os.Getenv(clientAsk); ask != "" {
		told, err := request(ask)
		leave("block", map[string]any{"told": told, "failed": fmt.Sprint(err), "stderr": said()})
		in, _ = strconv.Atoi(os.Getenv(ucspitls.ReadVariable))
		out, _ = strconv.Atoi(os.Getenv(ucspitls.WriteVariable))
	}
	from, to := os.NewFile(uintptr(in), "in"), os.NewFile(uintptr(out), "out")
	do := os.Getenv(clientDo)
	switch do {
	case "exit":
		return 7
	case "deaf": // writes and does not read
		from.Close()
	case "stuck": // neither reads nor ends, until it is told
		_, _ = io.Copy(io.Discard, os.Stdin)
		return 0
	}
	var both sync.WaitGroup
	both.Go(func() { _, _ = io.Copy(to, os.Stdin); to.Close() })
	if do != "deaf" {
		both.Go(func() { _, _ = io.Copy(os.Stdout, from); os.Stdout.Close() })
	}
	both.Wait()
	var status syscall.WaitStatus
	pid, err := syscall.Wait4(-1, &status, 0, nil)
	leave("tunnel", map[string]any{"pid": pid, "failed": fmt.Sprint(err), "exit": status.ExitStatus()})
	return 0
}

func look() facts {
	f := facts{Pid: os.Getpid(), Args: os.Args, Environ: os.Environ(), Open: map[int]string{}, Blocks: map[int]bool{}}
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		panic(err)
	}
	for _, name := range names {
		fd, _ := strconv.Atoi(name.Name())
		// Go's own descriptors are close-on-exec, so they have not come through one.
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC != 0 {
			continue
		}
		f.Open[fd], _ = os.Readlink("/proc/self/fd/" + name.Name())
		flags, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		f.Blocks[fd] = flags&unix.O_NONBLOCK == 0
	}
	return f
}

// repeatTwoLines sends two lines of the server's back to it: the conversation that
// comes before TLS.
func repeatTwoLines() {
	b := make([]byte, 1)
	for lines := 0; lines < 2; {
		if n, err := unix.Read(6, b); n != 1 || err != nil {
			panic(fmt.Sprint(n, err))
		}
		_, _ = unix.Write(7, b)
		if b[0] == '\n' {
			lines++
		}
	}
}

// request asks for TLS and returns what came back.
func request(ask string) ([]string, error) {
	fd, err := strconv.Atoi(os.Getenv(ucspitls.ControlVariable))
	if err != nil {
		return nil, err
	}
	control := os.NewFile(uintptr(fd), "control")
	defer control.Close()
	switch ask {
	case "-":
		return nil, nil
	case "Y":
		return ucspitls.Start(control)
	}
	if _, err := io.WriteString(control, ask); err != nil {
		return nil, err
	}
	rest, err := io.ReadAll(control)
	return []string{string(rest)}, err
}

// said is what is on standard error so far.
func said() string {
	text, _ := os.ReadFile("/proc/self/fd/2")
	return string(text)
}

// A tlsRig is what the tests share.
type tlsRig struct {
	*issuer
	bin, cert, key string // paths
	leaf           *tlstest.Party
}

const (
	tlsName   = "mx.example.org"
	onRequest = "mxf-ucspitlsc"
)

// tunnels are the programs that speak TLS around another.
var tunnels = []string{"mxf-tlsc", onRequest}

func newTLSRig(t *testing.T) *tlsRig {
	dir := t.TempDir()
	rig := &tlsRig{issuer: newIssuer(t, dir, "authority"), bin: programs(t)}
	if testing.CoverMode() != "" {
		// What is instrumented has something to say on standard error.
		rig.bin = t.TempDir()
		must.OK(t, lab.Build(t.Context(), rig.bin))
	}
	rig.leaf = rig.Leaf(nil, tlsName)
	rig.cert, rig.key = rig.keep(t, "server", rig.leaf)
	return rig
}

// A tunnel is a chain that runs.
type tunnel struct {
	t        *testing.T
	rig      *tlsRig
	cmd      *exec.Cmd
	far      *net.TCPConn // the server's end
	near     int          // a copy of the client's
	in       io.WriteCloser
	out      io.ReadCloser
	folder   string
	stderr   string // path
	program  string
	options  []string
	prog     []string
	environ  []string
	nonblock bool
	groups   []uint32      // supplementary ones; nil: this process's
	limit    time.Duration // 0: tlsLimit
	pipes    bool          // the network is two pipes, and far is none of it
	pipeR    *os.File
	pipeW    *os.File
}

// chain prepares program with options; prog is this binary unless with says
// otherwise.
func (rig *tlsRig) chain(t *testing.T, program string, options ...string) *tunnel {
	self := must.Get(os.Executable())(t)
	c := &tunnel{t: t, rig: rig, folder: t.TempDir(), program: program, options: options, prog: []string{self, "an argument"}, near: -1}
	c.stderr = filepath.Join(c.folder, "stderr")
	// The race detector's runtime, in this binary, sleeps a second before it exits.
	c.environ = []string{"PATH=" + os.Getenv("PATH"), "CAFILE=" + rig.ca, clientFolder + "=" + c.folder, "GORACE=atexit_sleep_ms=0"}
	return c
}

// asking is chain, and has prog ask for TLS where that is what the program waits for.
func (rig *tlsRig) asking(t *testing.T, program string, options ...string) *tunnel {
	c := rig.chain(t, program, options...)
	if program == onRequest {
		c.with(clientAsk + "=Y")
	}
	return c
}

func (c *tunnel) with(environ ...string) *tunnel {
	c.environ = append(c.environ, environ...)
	return c
}

func (c *tunnel) running(prog ...string) *tunnel {
	c.prog = prog
	return c
}

// start runs the chain on a connection of its own, with two descriptors open that
// nobody asked for.
func (c *tunnel) start() *tunnel {
	t := c.t
	t.Helper()
	network := c.network()
	stderr := must.Get(os.Create(c.stderr))(t)
	defer stderr.Close()
	stray := must.Open(t, os.DevNull)
	args := append(slices.Clone(c.options), "--")
	c.cmd = exec.Command(filepath.Join(c.rig.bin, c.program), append(args, c.prog...)...)
	c.cmd.Env, c.cmd.Stderr = c.environ, stderr
	c.cmd.ExtraFiles = []*os.File{nil, nil, stray, network[0], network[1], stray}
	if c.groups != nil {
		c.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Groups: c.groups}}
	}
	c.in = must.Get(c.cmd.StdinPipe())(t)
	// Not StdoutPipe: Wait would close it with bytes unread.
	r, w := must.Pipe(t)
	c.out, c.cmd.Stdout = r, w
	must.OK(t, c.cmd.Start())
	w.Close()
	network[0].Close()
	network[1].Close()
	watch := time.AfterFunc(cmp.Or(c.limit, tlsLimit), func() { _ = c.cmd.Process.Kill() })
	t.Cleanup(func() {
		watch.Stop()
		c.in.Close()
		if c.far != nil {
			c.far.Close()
		}
		_ = c.cmd.Process.Kill()
		_ = c.cmd.Wait()
		c.release()
	})
	return c
}

// network makes the connection and returns what 6 and 7 will be.
func (c *tunnel) network() [2]*os.File {
	t := c.t
	if c.pipes {
		r, theirs := must.Pipe(t)
		ours, w := must.Pipe(t)
		c.pipeR, c.pipeW = ours, theirs
		return [2]*os.File{r, w}
	}
	l := must.Get(net.Listen("tcp", "127.0.0.1:0"))(t)
	defer l.Close()
	dialed := must.Get(net.Dial("tcp", l.Addr().String()))(t).(*net.TCPConn)
	defer dialed.Close()
	c.far = must.Get(l.Accept())(t).(*net.TCPConn)
	_ = c.far.SetDeadline(time.Now().Add(cmp.Or(c.limit, tlsLimit)))
	file := must.Get(dialed.File())(t)
	defer file.Close()
	c.near = must.Get(unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 3))(t)
	must.OK(t, unix.SetNonblock(c.near, c.nonblock))
	var out [2]*os.File
	for i := range out {
		fd := must.Get(unix.FcntlInt(uintptr(c.near), unix.F_DUPFD_CLOEXEC, 3))(t)
		out[i] = os.NewFile(uintptr(fd), "network")
	}
	return out
}

// release closes the test binary's copy of the client's end, which keeps the connection
// alive.
func (c *tunnel) release() {
	if c.near >= 0 {
		unix.Close(c.near)
	}
	c.near = -1
}

// accept makes the server's handshake.
func (c *tunnel) accept(change ...func(*tls.Config)) *tls.Conn {
	c.t.Helper()
	return c.acceptOn(c.far, change...)
}

// acceptOn is accept with a connection in front of c.far.
func (c *tunnel) acceptOn(network net.Conn, change ...func(*tls.Config)) *tls.Conn {
	c.t.Helper()
	c.release()
	server := tls.Server(network, c.rig.config(change...))
	if err := server.Handshake(); err != nil {
		c.t.Fatalf("handshake: %v, client says %q", err, c.errors())
	}
	return server
}

func (rig *tlsRig) config(change ...func(*tls.Config)) *tls.Config {
	config := rig.leaf.Config(rig.Party)
	config.MinVersion = tls.VersionTLS10
	for _, f := range change {
		f(config)
	}
	return config
}

func (c *tunnel) errors() string {
	text, _ := os.ReadFile(c.stderr)
	return string(text)
}

// wait returns the exit status.
func (c *tunnel) wait() int {
	c.t.Helper()
	err := c.cmd.Wait()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		c.t.Fatal(err)
	}
	if status := c.cmd.ProcessState.Sys().(syscall.WaitStatus); status.Signaled() {
		c.t.Fatalf("ended by signal %v; %q", status.Signal(), c.errors())
	}
	return c.cmd.ProcessState.ExitCode()
}

// left reads what the client has left under name, which it may not have done yet.
func (c *tunnel) left(name string, v any) {
	c.t.Helper()
	until(c.t, "the client's "+name, func() bool {
		data, err := os.ReadFile(filepath.Join(c.folder, name))
		return err == nil && json.Unmarshal(data, v) == nil
	})
}

func (c *tunnel) facts() facts {
	c.t.Helper()
	var f facts
	c.left("facts", &f)
	return f
}

// tunnelEnd is how the TLS process ended, as its parent, the client, has seen it.
func (c *tunnel) tunnelEnd() int {
	c.t.Helper()
	var end struct{ Exit int }
	c.left("tunnel", &end)
	return end.Exit
}

// exits fails the test unless prog ends with this status, and nobody has said anything.
func (c *tunnel) exits(status int) {
	c.t.Helper()
	if got := c.wait(); got != status || c.errors() != "" {
		c.t.Errorf("status %d, want %d; %q", got, status, c.errors())
	}
}

// over ends the conversation from both sides: nobody has anything to say about it.
func (c *tunnel) over(server *tls.Conn) {
	c.t.Helper()
	server.Close()
	c.in.Close()
	c.ends(0, "")
}

// ends fails the test unless prog, and the TLS process with a status and words on
// standard error, end.
func (c *tunnel) ends(child int, said string) {
	c.t.Helper()
	if status, end := c.wait(), c.tunnelEnd(); status != 0 || end != child || c.errors() != said {
		c.t.Errorf("prog's status is %d, the child's %d, want %d; %q", status, end, child, c.errors())
	}
}

// never fails the test if the client was started.
func (c *tunnel) never() {
	c.t.Helper()
	if _, err := os.Stat(filepath.Join(c.folder, "facts")); err == nil {
		c.t.Error("prog was started")
	}
}

// child waits for the TLS process and returns its id.
func (c *tunnel) child() int {
	c.t.Helper()
	child := 0
	until(c.t, "the TLS process", func() bool {
		for _, pid := range processes(c.t) {
			stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			_, after, _ := strings.Cut(string(stat), ") ")
			line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			if f := strings.Fields(after); len(f) > 1 && f[1] == strconv.Itoa(c.cmd.Process.Pid) && bytes.HasPrefix(line, []byte(c.program+"-io\x00")) {
				child = pid
			}
		}
		return child != 0
	})
	return child
}

func processes(t *testing.T) []int {
	var pids []int
	for _, e := range must.Get(os.ReadDir("/proc"))(t) {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

func TestTLS(t *testing.T) {
	if _, err := os.Stat("/proc/self/fd"); err != nil {
		t.Skip("no /proc here")
	}
	rig := newTLSRig(t)
	for _, test := range []struct {
		name string
		run  func(*testing.T, *tlsRig)
	}{
		{"exec", testExec},
		{"environment", testEnvironment},
		{"usage", testUsage},
		{"settings", testSettings},
		{"handshake", testHandshakeFails},
		{"small hello", testSmallHello},
		{"TLSA", testTLSA},
		{"TLSA, settings", testTLSASettings},
		{"TLSA, removed", testTLSARemoved},
		{"program", testProgramCannotRun},
		{"half-close", testHalfClose},
		{"truncation", testTruncation},
		{"deaf", testDeaf},
		{"back-pressure", testBackPressure},
		{"both write first", testBothWriteFirst},
		{"readers stop", testReadersStop},
		{"trickle", testTrickle},
		{"bulk", testBulk},
		{"pipes", testPipes},
		{"deaths", testDeaths},
		{"privileges", testPrivileges},
		{"verbosity", testVerbosity},
		{"client certificate", testClientCertificate},
		{"on request", testOnRequest},
		{"on request, refused", testOnRequestFails},
		{"on request, not a byte early", testOnRequestNotAByteEarly},
		{"openssl", testOpenSSL},
		{"openssl old", testOpenSSLOld},
		{"openssl weak", testOpenSSLWeak},
		{"openssl key update", testOpenSSLKeyUpdate},
		{"openssl renegotiation", testOpenSSLRenegotiation},
		{"openssl staple", testOpenSSLStaple},
		{"openssl client certificate", testOpenSSLClientCertificate},
		{"gnutls", testGnuTLS},
		{"exporter", testExporterPeers},
		{"stunnel", testStunnel},
		{"manual", testManual},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.run(t, rig)
		})
	}
}

// needProgram returns the path of a program, or skips the test.
func needProgram(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		peers.Missing(t, peers.Package(program), "%s is not installed", program)
	}
	return path
}

func testExec(t *testing.T, rig *tlsRig) {
	for _, nonblock := range []bool{false, true} {
		t.Run(fmt.Sprintf("non-blocking %v", nonblock), func(t *testing.T) {
			c := rig.chain(t, "mxf-tlsc", "-k", tlsName)
			c.nonblock = nonblock
			c.start()
			sameMode := c.keepsMode()
			server := c.accept()
			f := c.facts()
			child := c.child()
			if len(f.Args) != 2 || f.Args[1] != "an argument" || f.Args[0] != c.prog[0] {
				t.Errorf("prog was started as %q", f.Args)
			}
			c.becameProg(f, 0, 1, 2, 6, 7)
			for _, fd := range []int{6, 7} {
				if !strings.HasPrefix(f.Open[fd], "pipe:") || !f.Blocks[fd] {
					t.Errorf("descriptor %d is %s, blocking: %v", fd, f.Open[fd], f.Blocks[fd])
				}
			}
			if f.Open[2] != c.stderr {
				t.Errorf("standard error is %s", f.Open[2])
			}
			testChildDescriptors(t, child, f)
			sameMode()
			c.over(server)
			must.Gone(t, strconv.Itoa(child))
		})
	}
}

// keepsMode returns a check that the network's blocking mode has not changed.
func (c *tunnel) keepsMode() (check func()) {
	copied := must.Get(unix.FcntlInt(uintptr(c.near), unix.F_DUPFD_CLOEXEC, 3))(c.t)
	return func() {
		c.t.Helper()
		if flags := must.Get(unix.FcntlInt(uintptr(copied), unix.F_GETFL, 0))(c.t); flags&unix.O_NONBLOCK == 0 == c.nonblock {
			c.t.Errorf("the network's blocking mode has changed: %x", flags)
		}
		unix.Close(copied)
	}
}

// becameProg fails the test unless the program has become prog, with these descriptors and
// no others.
func (c *tunnel) becameProg(f facts, want ...int) {
	c.t.Helper()
	if f.Pid != c.cmd.Process.Pid {
		c.t.Errorf("prog is process %d, %s was %d", f.Pid, c.program, c.cmd.Process.Pid)
	}
	open := slices.Sorted(maps.Keys(f.Open))
	if !slices.Equal(open, slices.Sorted(slices.Values(want))) {
		c.t.Errorf("prog has descriptors %v, want %v: %v", open, want, f.Open)
	}
}

// The child holds neither prog's descriptors 0 and 1 nor a stray one.
func testChildDescriptors(t *testing.T, child int, f facts) {
	names := must.Get(os.ReadDir(fmt.Sprintf("/proc/%d/fd", child)))(t)
	for _, name := range names {
		link, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", child, name.Name()))
		switch {
		case link == f.Open[0], link == f.Open[1]:
			t.Errorf("the child holds prog's %s", link)
		case name.Name() == "0" && link != os.DevNull, name.Name() == "1" && link != os.DevNull:
			t.Errorf("the child's descriptor %s is %s", name.Name(), link)
		case link == os.DevNull && name.Name() != "0" && name.Name() != "1":
			t.Errorf("the child's descriptor %s is a stray one", name.Name())
		}
	}
}

func testEnvironment(t *testing.T, rig *tlsRig) {
	given := []string{"CERTFILE=c", "KEYFILE=k", "CERTFILE:x=c", "KEYFILE:x=k", "TLS_UID=" + strconv.Itoa(os.Getuid()), "TLS_GID=" + strconv.Itoa(os.Getgid()),
		"CADIR=", "OTHER=stays", "SSL_TLS_SNI_SERVERNAME=stale", "SSL_PROTOCOL=stale", "SSL_PEER_VERIFIED=stale", "SSL_TLS_EXPORTER=stale"}
	digest := fmt.Sprintf("SHA256:%x", sha256.Sum256(rig.leaf.Cert.Raw))
	for _, test := range []struct {
		name    string
		options []string
		want    []string // "NAME" alone: not there
		change  func(*tls.Config)
	}{
		{"verified", []string{"-k", tlsName}, []string{
			"SSL_PROTOCOL=TLSv1.3", "SSL_TLS_SNI_SERVERNAME=" + tlsName, "SSL_PEER_CERT_HASH=" + digest, "SSL_PEER_CERT_SUBJECT=CN=server",
			"SSL_PEER_VERIFIED=yes", "SSL_SESSION_RESUMED=no", "OTHER=stays",
			"CADIR", "CAFILE", "CERTFILE", "KEYFILE", "CERTFILE:x", "KEYFILE:x", "TLS_UID", "TLS_GID"}, func(*tls.Config) {}},
		{"no name", nil, []string{"SSL_TLS_SNI_SERVERNAME", "SSL_PEER_VERIFIED=yes", "SSL_PROTOCOL=TLSv1.2", "SSL_CIPHER=TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"},
			func(c *tls.Config) {
				c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}
			}},
		{"an address", []string{"-k", "192.0.2.1", "--no-verify-cert"}, []string{"SSL_TLS_SNI_SERVERNAME", "SSL_TLS_EXPORTER", "SSL_PROTOCOL=TLSv1.1"},
			func(c *tls.Config) { c.MaxVersion = tls.VersionTLS11 }},
		{"kept", []string{"-Z", "-k", tlsName}, append([]string{"CAFILE=" + rig.ca}, given[:6]...), func(*tls.Config) {}},
		{"kept and not", []string{"-Zz"}, []string{"CAFILE"}, func(*tls.Config) {}},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := rig.chain(t, "mxf-tlsc", test.options...).with(given...).with(clientDo + "=exit").start()
			c.accept(test.change)
			c.exits(7) // prog's own
			f := c.facts()
			for _, want := range test.want {
				name, _, there := strings.Cut(want, "=")
				var found []string
				for _, e := range f.Environ {
					if n, _, _ := strings.Cut(e, "="); n == name {
						found = append(found, e)
					}
				}
				if there && (len(found) != 1 || found[0] != want) || !there && len(found) != 0 {
					t.Errorf("found %q, want %q", found, want)
				}
			}
			for _, e := range f.Environ {
				if strings.HasPrefix(e, "SSL_PEER_VERIFIED=") && strings.HasSuffix(e, "=") {
					t.Error("the verdict is empty")
				}
			}
		})
	}
}

// outcome runs a chain that is expected to fail before prog is started.
func (c *tunnel) outcome(t *testing.T, status int, line string) {
	t.Helper()
	if got := c.wait(); got != status {
		t.Errorf("status %d, want %d", got, status)
	}
	said := c.errors()
	if ok, err := regexp.MatchString(`\A`+c.program+`: `+line+`\n\z`, said); !ok || err != nil {
		t.Errorf("standard error is %q, want %s", said, line)
	}
	c.never()
}

func testUsage(t *testing.T, rig *tlsRig) {
	for _, program := range tunnels {
		for _, test := range []struct {
			options []string
			line    string
		}{
			{[]string{"-q"}, `fatal: unknown option "-q"`},
			{[]string{"-Sqz"}, `fatal: unknown option "-q"`},
			{[]string{"-K", "soon"}, `fatal: option "-K": "soon" is not a number from 0 to 4294967295`},
			{[]string{"-6", "2"}, `fatal: option "-6": "2" is not a number from 3 to 2147483647`},
			{[]string{"-6", "7"}, `fatal: the descriptors .* are both 7`},
			{[]string{"--version"}, `fatal: unknown option "--version"`}, // alone only
		} {
			rig.chain(t, program, test.options...).start().outcome(t, 100, test.line)
		}
		rig.chain(t, program).running().start().outcome(t, 100, `usage: `+program+` \[-S \| -s\].* prog \[argument \.\.\.\]`)
		rig.chain(t, program, "-6", "40").start().outcome(t, 111, `fatal: descriptor 40 cannot be used: bad file descriptor`)
	}
}

func testSettings(t *testing.T, rig *tlsRig) {
	empty := filepath.Join(t.TempDir(), "empty")
	put(t, empty, nil)
	other := tlstest.NewAuthority("other").Leaf(nil, "client.example")
	cert, _ := rig.keep(t, "other", other)
	for _, test := range []struct {
		name    string
		options []string
		environ []string
		status  int
		line    string
	}{
		{"no anchors", nil, []string{"CAFILE="}, 100, `fatal: neither CADIR nor CAFILE is set.*`},
		{"no file", nil, []string{"CAFILE=/nowhere/ca.pem"}, 96, `fatal: .*/nowhere/ca\.pem.*`},
		{"empty file", nil, []string{"CAFILE=" + empty}, 96, `fatal: .*empty.*`},
		{"no folder", nil, []string{"CADIR=/nowhere"}, 96, `fatal: .*/nowhere.*`},
		{"no key", []string{"-y"}, []string{"CERTFILE=" + rig.cert}, 100, `fatal: -y wants both CERTFILE and KEYFILE to be set`},
		{"unreadable", []string{"-y"}, []string{"CERTFILE=/nowhere", "KEYFILE=" + rig.key}, 96, `fatal: .*/nowhere.*`},
		{"no fit", []string{"-y"}, []string{"CERTFILE=" + cert, "KEYFILE=" + rig.key}, 96, `fatal: .*does not fit.*`},
		{"uid", nil, []string{"TLS_UID=nobody"}, 100, `fatal: TLS_UID is "nobody", .*`},
		{"gid", nil, []string{"TLS_UID=1", "TLS_GID=-1"}, 100, `fatal: TLS_GID is "-1", .*`},
		{"uid without gid", nil, []string{"TLS_UID=1"}, 100, `fatal: TLS_UID is set and TLS_GID is not: set both or none`},
		{"gid without uid", nil, []string{"TLS_GID=1"}, 100, `fatal: TLS_GID is set and TLS_UID is not: set both or none`},
	} {
		t.Run(test.name, func(t *testing.T) {
			rig.chain(t, "mxf-tlsc", append([]string{"-v0"}, test.options...)...).with(test.environ...).start().outcome(t, test.status, test.line)
			// Under mxf-ucspitlsc prog runs, and finds out when it asks.
			c := rig.chain(t, "mxf-ucspitlsc", test.options...).with(test.environ...).with(clientAsk + "=Y").start()
			c.in.Close()
			if status := c.wait(); status != 0 {
				t.Errorf("prog's status is %d", status)
			}
			if got := c.tunnelEnd(); got != test.status {
				t.Errorf("the child's status is %d, want %d", got, test.status)
			}
			if ok, _ := regexp.MatchString(`\Amxf-ucspitlsc: `+test.line+`\n\z`, c.errors()); !ok {
				t.Errorf("standard error is %q", c.errors())
			}
			// Nobody asks: nobody looks.
			c = rig.chain(t, "mxf-ucspitlsc", test.options...).with(test.environ...).with(clientAsk + "=-").start()
			c.in.Close()
			c.ends(0, "")
		})
	}
}

func testHandshakeFails(t *testing.T, rig *tlsRig) {
	for _, test := range []struct {
		name    string
		options []string
		line    string
		server  func(*net.TCPConn)
	}{
		{"name", []string{"-k", "mx2.example.org"}, `fatal: certificate is for "mx.example.org", not "mx2.example.org"`, func(far *net.TCPConn) {
			_ = tls.Server(far, rig.config()).Handshake()
		}},
		{"silence", []string{"-K", "100"}, `fatal: no answer to the handshake within 100 ms`, func(far *net.TCPConn) {
			_, _ = io.Copy(io.Discard, far)
		}},
		{"no TLS", nil, `fatal: server does not speak TLS, it says "220 mx ESMTP"`, func(far *net.TCPConn) {
			_, _ = io.WriteString(far, "220 mx ESMTP\r\n")
			_, _ = io.Copy(io.Discard, far)
		}},
		{"hung up", nil, `fatal: no answer to the handshake: connection closed or reset`, func(far *net.TCPConn) {}},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := rig.chain(t, "mxf-tlsc", append([]string{"-v0"}, test.options...)...).start()
			served := make(chan struct{})
			go func() { defer close(served); test.server(c.far); c.far.Close() }()
			c.outcome(t, 97, test.line)
			<-served // though this process holds a copy of the client's socket
		})
	}
}

// A server that takes one packet at most of a ClientHello. MXF_TLSHELLO has one made
// that fits, and does not reach prog.
func testSmallHello(t *testing.T, rig *tlsRig) {
	const packet = 1400
	for _, program := range tunnels {
		for hello, fits := range map[string]bool{"": false, "large": false, "small": true} {
			c := rig.asking(t, program, "-v0", "-S", "-k", tlsName).with("MXF_TLSHELLO=" + hello)
			c.start()
			first := make([]byte, packet+1)
			n := must.Get(c.far.Read(first))(t)
			if !fits {
				if n <= packet {
					t.Errorf("%s, %q: the ClientHello has %d bytes", program, hello, n)
				}
				c.far.Close()
				c.in.Close()
				c.wait()
				_, what, _ := strings.Cut(c.errors(), ": fatal: ")
				if tlsc.Cause(what) != tlsc.ErrNoServerHello {
					t.Errorf("%s, %q: %q", program, hello, c.errors())
				}
				continue
			}
			if n > packet {
				t.Errorf("%s: the small ClientHello has %d bytes", program, n)
			}
			server := c.acceptOn(talker{c.far, io.MultiReader(bytes.NewReader(first[:n]), c.far)})
			if got := value(c.facts().Environ, "MXF_TLSHELLO"); got != "" {
				t.Errorf("%s: MXF_TLSHELLO is %q in prog's environment", program, got)
			}
			c.over(server)
		}
	}
}

// tlsa is the record of usage 2 or 3 about the key of a certificate.
func tlsa(usage int, p *tlstest.Party) string {
	return fmt.Sprintf("%d 1 1 %x", usage, sha256.Sum256(p.Cert.RawSubjectPublicKeyInfo))
}

// MXF_TLSA decides; with CAFILE beside it both decide.
func testTLSA(t *testing.T, rig *tlsRig) {
	stranger := tlstest.NewAuthority("stranger")
	folder := t.TempDir()
	strange := tlstest.Bundle(t, stranger)
	ours := filepath.Join(folder, "bundle.pem")
	must.OK(t, os.WriteFile(ours, must.Get(os.ReadFile(rig.ca))(t), 0o644))
	const noAnchors = "CAFILE="
	leaf, authority, wrong := "MXF_TLSA="+tlsa(3, rig.leaf), "MXF_TLSA="+tlsa(2, rig.Party), "MXF_TLSA="+tlsa(3, rig.Party)
	for _, test := range []struct {
		name, server string
		environ      []string
		fatal        string // "": it comes about
	}{
		{"usage 3", tlsName, []string{leaf, noAnchors}, ""},
		{"usage 3, no name", "", []string{leaf, noAnchors}, ""},
		{"usage 3, another name", "mx2.example.org", []string{leaf, noAnchors}, ""},
		{"usage 2", tlsName, []string{authority, noAnchors}, ""},
		{"one matches", tlsName, []string{wrong + "," + tlsa(2, stranger) + "," + tlsa(3, rig.leaf), noAnchors}, ""},
		{"none matches", tlsName, []string{wrong + "," + tlsa(2, stranger), noAnchors}, "certificate matches none of the usable TLSA records of mx.example.org (2)"},
		{"none matches, no name", "", []string{wrong, noAnchors}, "certificate matches none of the usable TLSA records of the server (1)"},
		{"usage 2, another name", "mx2.example.org", []string{authority, noAnchors}, `a TLSA record matches, but certificate is for "mx.example.org", not "mx2.example.org"`},
		{"usage 2, names", "mx2.example.org", []string{authority, noAnchors, "MXF_TLSNAMES=example.org mx.example.org"}, ""},
		{"usage 2, wrong names", "mx2.example.org", []string{authority, noAnchors, "MXF_TLSNAMES=example.org"}, `a TLSA record matches, but certificate is for "mx.example.org", not "mx2.example.org", "example.org"`},
		{"usage 2, names beside", tlsName, []string{authority, noAnchors, "MXF_TLSNAMES=example.org"}, ""},
		{"both, file", tlsName, []string{leaf, "CAFILE=" + rig.ca}, ""},
		{"both, folder", tlsName, []string{authority, noAnchors, "CADIR=" + folder}, ""},
		{"both, wrong anchors", tlsName, []string{leaf, "CAFILE=" + strange}, "certificate is signed by an authority that is not in " + strange},
		{"both, wrong record", tlsName, []string{wrong, "CAFILE=" + rig.ca}, "certificate matches none of the usable TLSA records of mx.example.org (1)"},
		{"both, wrong name", "mx2.example.org", []string{leaf, "CAFILE=" + rig.ca}, `certificate is for "mx.example.org", not "mx2.example.org"`},
		{"names alone", "mx2.example.org", []string{"MXF_TLSNAMES=a.example .example.org"}, ""},
		{"names in place of the server's", tlsName, []string{"MXF_TLSNAMES=a.example"}, `certificate is for "mx.example.org", not "a.example"`},
		{"no names", tlsName, []string{"MXF_TLSNAMES= "}, ""},
	} {
		for _, program := range tunnels {
			t.Run(test.name+" "+program, func(t *testing.T) {
				// CAFILE is there already, and the first one counts.
				c := rig.asking(t, program, "-v0", "-S", "-k", test.server)
				c.environ = slices.DeleteFunc(c.environ, func(e string) bool {
					return strings.HasPrefix(e, "CAFILE=") && slices.ContainsFunc(test.environ, func(e string) bool { return strings.HasPrefix(e, "CAFILE=") })
				})
				c.with(test.environ...).start()
				if test.fatal == "" {
					server := c.accept()
					verified := value(c.facts().Environ, "SSL_PEER_VERIFIED")
					if program == onRequest {
						var block struct{ Told []string }
						c.left("block", &block)
						verified = value(block.Told, "SSL_PEER_VERIFIED")
					}
					if verified != "yes" {
						t.Errorf("verified %q", verified)
					}
					c.over(server)
					return
				}
				served := make(chan error, 1)
				go func() { defer c.far.Close(); served <- tls.Server(c.far, rig.config()).Handshake() }()
				if program == onRequest {
					c.in.Close()
					c.ends(97, program+": fatal: "+test.fatal+"\n")
				} else {
					c.outcome(t, 97, "fatal: "+regexp.QuoteMeta(test.fatal))
				}
				if err := <-served; err == nil {
					t.Error("the server was not told")
				}
			})
		}
	}
}

func testTLSASettings(t *testing.T, rig *tlsRig) {
	good := tlsa(3, rig.leaf)
	for _, program := range tunnels {
		for _, malformed := range []string{"", ",", "rubbish", good + ",", "3 1 1", "3 1 1 abc", "256 1 1 ab", good + " ", strings.Repeat("3 1 1 ab,", 100) + "3 1 1 ab"} {
			for _, verify := range []string{"--verify-cert", "--no-verify-cert"} {
				// Before prog, with mxf-ucspitlsc too.
				rig.asking(t, program, verify, "-k", tlsName).with("MXF_TLSA="+malformed).start().outcome(t, 100, `fatal: MXF_TLSA is malformed: .*`)
			}
		}
		for _, unusable := range []string{"1 1 1 " + good[6:], "3 1 1 abcd", "3 2 1 " + good[6:], "3 0 0 ab", "0 0 0 ab,2 1 3 ab"} {
			c := rig.asking(t, program, "-v0", "-k", tlsName).with("MXF_TLSA=" + unusable).start()
			c.in.Close()
			const line = "fatal: none of the TLSA records can be used"
			if program == onRequest {
				c.ends(96, program+": "+line+"\n")
			} else {
				c.outcome(t, 96, line)
			}
			c.release()
			if sent, err := io.ReadAll(c.far); len(sent) != 0 || err != nil {
				t.Errorf("%s sent %q, %v", program, sent, err)
			}

			// Nobody verifies: it is ignored.
			c = rig.asking(t, program, "-v0", "-S", "-k", "mx2.example.org", "--no-verify-cert").with("MXF_TLSA=" + unusable).start()
			c.over(c.accept())
		}
		c := rig.asking(t, program, "-v0", "-S", "-k", tlsName, "--no-verify-cert").with("MXF_TLSA=" + tlsa(3, rig.Party)).start()
		c.over(c.accept())
	}
}

// What prog finds of the two variables.
func testTLSARemoved(t *testing.T, rig *tlsRig) {
	given := []string{"MXF_TLSA=" + tlsa(3, rig.leaf), "MXF_TLSNAMES=" + tlsName}
	for _, program := range tunnels {
		for option, stays := range map[string]bool{"-z": false, "-Z": true, "-Zz": false, "--no-verify-cert": false} {
			c := rig.asking(t, program, "-v0", "-S", option).with(given...).start()
			server := c.accept()
			environ := c.facts().Environ
			for _, e := range given {
				if slices.Contains(environ, e) != stays {
					t.Errorf("%s %s: %s stays: %v", program, option, e, !stays)
				}
			}
			c.over(server)
		}
	}
}

func testProgramCannotRun(t *testing.T, rig *tlsRig) {
	plain := filepath.Join(t.TempDir(), "plain")
	put(t, plain, []byte("#!/bin/sh\n"))
	noInterpreter := filepath.Join(t.TempDir(), "script")
	must.OK(t, os.WriteFile(noInterpreter, []byte("#!/nowhere/sh\n"), 0o755))
	for _, program := range tunnels {
		for prog, status := range map[string]int{"/nowhere/prog": 127, "no-such-program": 127, plain: 126, filepath.Dir(plain): 126, "": 127} {
			c := rig.chain(t, program).running(prog).start()
			c.outcome(t, status, fmt.Sprintf("fatal: unable to run %q: .*", prog))
			_ = unix.Shutdown(c.near, unix.SHUT_WR)
			if sent, err := io.ReadAll(c.far); len(sent) != 0 || err != nil {
				t.Errorf("%s with %q said %q to the network, %v", program, prog, sent, err)
			}
		}
	}
	// What only exec can find out: the tunnel that was up ends.
	c := rig.chain(t, "mxf-tlsc").running(noInterpreter).start()
	server := c.accept()
	_, _ = io.Copy(io.Discard, server)
	c.outcome(t, 127, fmt.Sprintf("fatal: unable to run %q: .*", noInterpreter))
	// $PATH finds it, in the order of its folders.
	c = rig.chain(t, "mxf-tlsc").with("PATH=/nowhere:"+filepath.Dir(plain)+":/usr/bin:/bin").running("sh", "-c", "exit 9").start()
	c.accept()
	c.exits(9) // prog's own
}

// noise is data that does not compress or repeat.
func noise(seed uint64, size int) []byte {
	p := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{0: byte(seed)}).Read(p)
	return p
}

// collect reads all of r in the background.
func collect(r io.Reader) <-chan []byte {
	got := make(chan []byte, 1)
	go func() {
		data, _ := io.ReadAll(r)
		got <- data
	}()
	return got
}

// received fails the test unless somebody has got what was sent.
func received(t *testing.T, who string, got, sent []byte) {
	t.Helper()
	if !bytes.Equal(got, sent) {
		t.Errorf("%s has %d bytes, not the %d that were sent", who, len(got), len(sent))
	}
}

// A tape keeps the last bytes that came in.
type tape struct {
	net.Conn
	last []byte
}

func (r *tape) Read(p []byte) (int, error) {
	n, err := r.Conn.Read(p)
	r.last = append(r.last, p[:n]...)
	r.last = r.last[max(0, len(r.last)-lastAlert):]
	return n, err
}

// lastAlert is the size of an alert record in TLS 1.2 with AES-GCM: header, nonce,
// level and description, tag (RFC 5246 sections 6.2 and 7.2, RFC 5288 section 3).
const lastAlert = 5 + 8 + 2 + 16

// endedByAlert reports whether the client's last record was an alert, as
// close_notify is one. In TLS 1.3 an alert looks like anything else.
func (r *tape) endedByAlert() bool {
	return bytes.HasPrefix(r.last, []byte{21, 3, 3, 0, lastAlert - 5})
}

func testHalfClose(t *testing.T, rig *tlsRig) {
	const size = 3 << 20
	up, down := noise(1, size), noise(2, size)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, option := range []string{"-S", "-s"} {
			for _, notify := range []bool{true, false} {
				for _, serverFirst := range []bool{true, false} {
					name := fmt.Sprintf("%s %s server notifies %v, ends first %v", tls.VersionName(version), option, notify, serverFirst)
					t.Run(name, func(t *testing.T) {
						t.Parallel()
						c := rig.chain(t, "mxf-tlsc", option, "-v0", "-k", tlsName).start()
						network := &tape{Conn: c.far}
						server := c.acceptOn(network, func(c *tls.Config) { c.MaxVersion = version })
						end := c.far.CloseWrite
						if notify {
							end = func() error { return errors.Join(server.CloseWrite(), c.far.CloseWrite()) }
						}
						// Whoever ends second has sent one half before it sees the other's
						// end, and sends the other half after.
						atServer, atProg := collect(server), collect(c.out)
						errs := make(chan error, 2)
						var seenByServer, seenByProg []byte
						if serverFirst {
							go func() { errs <- second(server.Write(down)); errs <- end() }()
							_, err := c.in.Write(up[:size/2])
							seenByProg = <-atProg
							_, err2 := c.in.Write(up[size/2:])
							must.Check(t, errors.Join(err, err2, c.in.Close()))
							seenByServer = <-atServer
						} else {
							go func() { errs <- second(c.in.Write(up)); errs <- c.in.Close() }()
							_, err := server.Write(down[:size/2])
							seenByServer = <-atServer
							_, err2 := server.Write(down[size/2:])
							must.Check(t, errors.Join(err, err2, end()))
							seenByProg = <-atProg
						}
						must.Check(t, errors.Join(<-errs, <-errs))
						received(t, "the server", seenByServer, up)
						received(t, "prog", seenByProg, down)
						if version == tls.VersionTLS12 && network.endedByAlert() != (option == "-S") {
							t.Errorf("close_notify sent: %v", network.endedByAlert())
						}
						c.far.Close()
						c.ends(0, "")
					})
				}
			}
		}
	}
}

func second(_ int, err error) error { return err }

func testTruncation(t *testing.T, rig *tlsRig) {
	for _, test := range []struct {
		option string
		notify bool
		status int
		line   string
	}{
		{"-J", true, 0, ""},
		{"-J", false, 98, "mxf-tlsc: fatal: server ended the connection without close_notify\n"},
		{"-j", true, 0, ""},
		{"-j", false, 0, ""},
	} {
		t.Run(fmt.Sprintf("%s %v", test.option, test.notify), func(t *testing.T) {
			c := rig.chain(t, "mxf-tlsc", "-v0", test.option).start()
			server := c.accept()
			_, err := server.Write([]byte("what was said before"))
			if test.notify {
				err = errors.Join(err, server.CloseWrite())
			}
			must.Check(t, errors.Join(err, c.far.CloseWrite()))
			if got := <-collect(c.out); string(got) != "what was said before" {
				t.Errorf("prog has %q", got)
			}
			c.in.Close()
			c.ends(test.status, test.line)
		})
	}
}

// A program that closes its reading end can still send all that it has, and what the
// server sends to it is taken off the network.
func testDeaf(t *testing.T, rig *tlsRig) {
	up, down := noise(3, 1<<20), noise(4, 8<<20)
	c := rig.chain(t, "mxf-tlsc", "-S").with(clientDo + "=deaf").start()
	server := c.accept()
	must.Get(server.Write(down))(t)
	go func() { _, _ = c.in.Write(up); c.in.Close() }()
	received(t, "the server", <-collect(server), up)
	server.Close()
	c.ends(0, "")
}

// residentLimit is the most that the TLS process may hold.
const residentLimit = 16 << 10 // KiB

// small returns the most memory that a process has held, in KiB. It fails the test if that
// is too much.
func small(t *testing.T, pid int) int {
	t.Helper()
	status := must.Get(os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)))(t)
	_, after, found := strings.Cut(string(status), "VmHWM:")
	if !found {
		t.Fatalf("no VmHWM in %s", status)
	}
	kb := must.Get(strconv.Atoi(strings.Fields(after)[0]))(t)
	if kb > residentLimit {
		t.Errorf("the child has held %d KiB", kb)
	}
	return kb
}

// inFlight is more than everything between two ends can hold: three pipes, the
// socket's buffers, the tunnel.
const inFlight = 32 << 20

func testBackPressure(t *testing.T, rig *tlsRig) {
	data := noise(5, inFlight)
	t.Run("prog does not read", func(t *testing.T) {
		c := rig.chain(t, "mxf-tlsc").with(clientDo + "=stuck").start()
		server := c.accept()
		child := c.child()
		_ = c.far.SetWriteDeadline(time.Now().Add(time.Second))
		if n, err := server.Write(data); err == nil {
			t.Errorf("all of %d bytes are somewhere", n)
		}
		small(t, child)
		c.in.Close() // prog ends
		c.far.Close()
		c.wait()
		must.Gone(t, strconv.Itoa(child))
	})
	t.Run("the server does not read", func(t *testing.T) {
		c := rig.chain(t, "mxf-tlsc", "-S").start()
		server := c.accept()
		child := c.child()
		sent := 0
		deadline := c.in.(interface{ SetWriteDeadline(time.Time) error })
		_ = deadline.SetWriteDeadline(time.Now().Add(time.Second))
		sent, err := c.in.Write(data)
		if err == nil {
			t.Errorf("all of %d bytes are somewhere", sent)
		}
		small(t, child)
		// The other direction works meanwhile.
		passes(t, server, c.out, []byte("x"))
		// It reads after all, and nothing was lost.
		_ = deadline.SetWriteDeadline(time.Time{})
		go func() { _, _ = c.in.Write(data[sent:]); c.in.Close() }()
		received(t, "the server", <-collect(server), data)
		server.Close()
		c.ends(0, "")
	})
}

// passes writes to one end and reads the same at the other.
func passes(t *testing.T, w io.Writer, r io.Reader, sent []byte) {
	t.Helper()
	must.Get(w.Write(sent))(t)
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(r, got); err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("%.20q came as %.20q, %v", sent, got, err)
	}
}

func testBothWriteFirst(t *testing.T, rig *tlsRig) {
	const size = 60 << 10 // less than a pipe holds
	up, down := noise(6, size), noise(7, size)
	c := rig.chain(t, "mxf-tlsc", "-S").start()
	server := c.accept()
	// Both have written before either reads.
	must.Get(server.Write(down))(t)
	passes(t, c.in, server, up)
	got := make([]byte, size)
	must.Get(io.ReadFull(c.out, got))(t)
	received(t, "prog", got, down)
	// One byte at a time, to and fro.
	for i := range 200 {
		passes(t, c.in, server, []byte{byte(i)})
		passes(t, server, c.out, []byte{byte(i)})
	}
	c.over(server)
}

// long reports whether tests take the time that the words of the contract
// take, such as minutes and 10 GB; see doc/FIGURES.md.
func long() bool { return os.Getenv("MXF_LONG") == "1" }

// longLimit bounds what takes minutes.
const longLimit = 15 * time.Minute

// Both ends write more than there is room for, and neither reads until the other has
// come to a stop, and for a while longer: nothing piles up, and nothing is lost.
func testReadersStop(t *testing.T, rig *tlsRig) {
	pause := time.Second
	if long() {
		pause = 3 * time.Minute
	}
	up, down := noise(12, inFlight), noise(13, inFlight)
	c := rig.chain(t, "mxf-tlsc", "-S")
	c.limit = tlsLimit + pause
	c.start()
	server := c.accept()
	child := c.child()
	var progress atomic.Int64
	counted := func(w io.Writer, data []byte) {
		const step = 64 << 10
		for len(data) > 0 {
			n, err := w.Write(data[:min(step, len(data))])
			progress.Add(int64(n))
			if data = data[n:]; err != nil {
				t.Errorf("with %d bytes to go: %v", len(data), err)
				return
			}
		}
	}
	var writers sync.WaitGroup
	writers.Go(func() { counted(c.in, up) })
	writers.Go(func() { counted(server, down) })
	for last, since := int64(-1), time.Now(); time.Since(since) < pause; time.Sleep(10 * time.Millisecond) {
		if now := progress.Load(); now != last {
			last, since = now, time.Now()
		}
	}
	if n := progress.Load(); n >= 2*inFlight {
		t.Errorf("all of %d bytes are somewhere", n)
	}
	small(t, child)
	all := func(r io.Reader, want []byte) {
		got := make([]byte, len(want))
		if n, err := io.ReadFull(r, got); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes of %d arrived, %v, or not those that were sent", n, len(want), err)
		}
	}
	var readers sync.WaitGroup
	readers.Go(func() { all(server, up) })
	readers.Go(func() { all(c.out, down) })
	readers.Wait()
	writers.Wait()
	c.over(server)
}

// Half a byte per second, each way: every byte is passed on before the next one comes.
func testTrickle(t *testing.T, rig *tlsRig) {
	text := "abc"
	if long() {
		text = strings.Repeat("half a byte ", 5)
	}
	const gap = 2 * time.Second
	c := rig.chain(t, "mxf-tlsc", "-S")
	c.limit = tlsLimit + time.Duration(len(text))*gap
	c.start()
	server := c.accept()
	for i := range len(text) {
		if i > 0 {
			time.Sleep(gap)
		}
		passes(t, c.in, server, []byte{text[i]})
		passes(t, server, c.out, []byte{text[i]})
	}
	c.over(server)
}

func testBulk(t *testing.T, rig *tlsRig) {
	rounds, limit := 200, tlsLimit // MB
	switch {
	case long():
		rounds, limit = 5<<10, longLimit
	case testing.Short():
		rounds = 20
	}
	block := noise(8, 1<<20)
	whole := sha256.New()
	for range rounds {
		whole.Write(block)
	}
	c := rig.chain(t, "mxf-tlsc", "-S")
	c.limit = limit
	c.start()
	server := c.accept()
	child := c.child()
	start := time.Now()
	send := func(w io.Writer) {
		for range rounds {
			if _, err := w.Write(block); err != nil {
				t.Error(err)
				return
			}
		}
	}
	sum := func(r io.Reader) {
		h := sha256.New()
		if n, err := io.Copy(h, io.LimitReader(r, int64(rounds)<<20)); err != nil || !bytes.Equal(h.Sum(nil), whole.Sum(nil)) {
			t.Errorf("%d bytes arrived, %v, or not those that were sent", n, err)
		}
	}
	var all sync.WaitGroup
	all.Go(func() { send(server) })
	all.Go(func() { send(c.in) })
	all.Go(func() { sum(server) })
	all.Go(func() { sum(c.out) })
	all.Wait()
	t.Logf("%d MB each way at once in %v; the child held %d KiB", rounds, time.Since(start), small(t, child))
	c.over(server)
}

// pipeEnd is the server's end of a network of two pipes.
type pipeEnd struct {
	net.Conn // nil: deadlines and addresses are not asked for
	r, w     *os.File
}

func (p pipeEnd) Read(b []byte) (int, error)       { return p.r.Read(b) }
func (p pipeEnd) Write(b []byte) (int, error)      { return p.w.Write(b) }
func (p pipeEnd) Close() error                     { return errors.Join(p.r.Close(), p.w.Close()) }
func (p pipeEnd) SetWriteDeadline(time.Time) error { return nil }

func testPipes(t *testing.T, rig *tlsRig) {
	up, down := noise(9, 1<<20), noise(10, 1<<20)
	for _, option := range []string{"-S", "-s"} {
		c := rig.chain(t, "mxf-tlsc", option, "-k", tlsName)
		c.pipes = true
		c.start()
		server := tls.Server(pipeEnd{r: c.pipeR, w: c.pipeW}, rig.config())
		atProg := collect(c.out)
		go func() { _, _ = c.in.Write(up); c.in.Close() }()
		sent := make(chan error, 1)
		go func() { sent <- second(server.Write(down)) }()
		received(t, "the server", <-collect(server), up)
		must.Check(t, errors.Join(<-sent, server.Close()))
		received(t, "prog", <-atProg, down)
		c.ends(0, "")
	}
}

func testDeaths(t *testing.T, rig *tlsRig) {
	t.Run("prog", func(t *testing.T) {
		t.Parallel()
		c := rig.chain(t, "mxf-tlsc").with(clientDo + "=stuck").start()
		server := c.accept()
		child := c.child()
		c.facts()
		_ = c.cmd.Process.Kill()
		_, _ = io.Copy(io.Discard, server)
		must.Gone(t, strconv.Itoa(child))
	})
	t.Run("prog, the server sending all the time", func(t *testing.T) {
		t.Parallel()
		c := rig.chain(t, "mxf-tlsc").with(clientDo + "=exit").start()
		server := c.accept()
		data := noise(0, 1<<16)
		for {
			if _, err := server.Write(data); err != nil {
				break // the connection is closed
			}
		}
		if status := c.wait(); status != 7 {
			t.Errorf("status %d", status)
		}
	})
	t.Run("the TLS process", func(t *testing.T) {
		c := rig.chain(t, "mxf-tlsc").start()
		c.accept()
		c.facts()
		must.OK(t, syscall.Kill(c.child(), syscall.SIGKILL))
		<-collect(c.out) // prog sees end of file
		c.in.Close()
		if status := c.wait(); status != 0 {
			t.Errorf("status %d", status)
		}
	})
	t.Run("the server", func(t *testing.T) {
		c := rig.chain(t, "mxf-tlsc").start()
		c.accept()
		child := c.child()
		_ = c.far.SetLinger(0)
		c.far.Close()
		<-collect(c.out)
		c.in.Close()
		c.wait()
		must.Gone(t, strconv.Itoa(child))
	})
	for _, program := range tunnels {
		t.Run(program+" during the handshake", func(t *testing.T) {
			c := rig.chain(t, program).with(clientAsk + "=Y").start()
			child := c.child()
			must.Get(io.ReadFull(c.far, make([]byte, 10)))(t)
			c.release()
			_ = c.cmd.Process.Signal(syscall.SIGTERM)
			_, _ = io.Copy(io.Discard, c.far)
			must.Gone(t, strconv.Itoa(child))
			if got := c.errors(); got != program+": fatal: handshake given up: the program has ended\n" {
				t.Errorf("standard error is %q", got)
			}
		})
	}
	t.Run("prog before it asked", func(t *testing.T) {
		c := rig.chain(t, "mxf-ucspitlsc").with(clientAsk+"=-", clientDo+"=exit").start()
		c.exits(7)
		c.release()
		if _, err := io.Copy(io.Discard, c.far); err != nil { // the child held the socket too
			t.Error(err)
		}
	})
}

func testPrivileges(t *testing.T, rig *tlsRig) {
	if os.Getuid() != 0 {
		peers.Missing(t, "root", "what root gives up cannot be tested by others")
	}
	cert, key := rig.issue(t, "client", "client.example")
	for _, program := range tunnels {
		c := rig.asking(t, program, "-y").with("CERTFILE="+cert, "KEYFILE="+key, "TLS_UID=65534", "TLS_GID=65533")
		c.groups = []uint32{1, 2, 3}
		c.start()
		c.accept(func(c *tls.Config) { c.ClientAuth = tls.RequireAnyClientCert })
		child := c.child()
		for _, task := range must.Get(os.ReadDir(fmt.Sprintf("/proc/%d/task", child)))(t) {
			status := must.Get(os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/status", child, task.Name())))(t)
			for _, want := range []string{
				"\nUid:\t65534\t65534\t65534\t65534\n",
				"\nGid:\t65533\t65533\t65533\t65533\n",
				"\nGroups:\t \n",
				"\nCapEff:\t0000000000000000\n",
				"\nCapPrm:\t0000000000000000\n",
			} {
				if !bytes.Contains(status, []byte(want)) {
					t.Errorf("%s, thread %s: no %q in\n%s", program, task.Name(), want, status)
				}
			}
		}
		status := must.Get(os.ReadFile(fmt.Sprintf("/proc/%d/status", c.cmd.Process.Pid)))(t)
		if !bytes.Contains(status, []byte("\nUid:\t0\t0\t0\t0\n")) || !bytes.Contains(status, []byte("\nGroups:\t1 2 3 \n")) {
			t.Errorf("%s: prog is not who it was any more: %s", program, status)
		}
		c.in.Close()
		c.far.Close()
		c.wait()
	}
}

func testVerbosity(t *testing.T, rig *tlsRig) {
	for level, want := range map[string]string{
		"-v0": `\A\z`,
		"-v1": `\A\z`,
		"-v2": `\Amxf-tlsc: info: TLSv1\.3, TLS_[A-Z0-9_]+, server name "mx\.example\.org", verified: yes\n\z`,
		"-v3": `(?s)\Amxf-tlsc: debug: .*mxf-tlsc: info: TLSv1\.3.*\n\z`,
	} {
		trace := filepath.Join(t.TempDir(), "trace")
		c := rig.chain(t, "mxf-tlsc", level, "-k", tlsName).with(clientDo+"=exit", "MXF_TRACE="+trace).start()
		c.accept()
		c.wait()
		if got := c.errors(); !regexp.MustCompile(want).MatchString(got) {
			t.Errorf("%s: %q", level, got)
		}
		if got, _ := os.ReadFile(trace); !bytes.Contains(got, []byte("TLSv1.3")) {
			t.Errorf("%s: the trace is %q", level, got)
		}
	}
}

func testClientCertificate(t *testing.T, rig *tlsRig) {
	leaf := rig.Leaf(nil, "client.example")
	cert, key := rig.keep(t, "client", leaf)
	demand := func(c *tls.Config) {
		c.ClientAuth, c.ClientCAs, c.MaxVersion = tls.RequireAndVerifyClientCert, x509.NewCertPool(), tls.VersionTLS12
		c.ClientCAs.AddCert(rig.Cert)
	}
	c := rig.chain(t, "mxf-tlsc", "-y").with("CERTFILE="+cert, "KEYFILE="+key).start()
	server := c.accept(demand)
	if got := server.ConnectionState().PeerCertificates; len(got) == 0 || !got[0].Equal(leaf.Cert) {
		t.Error("the server has seen another certificate")
	}
	server.Close()
	c.in.Close()
	c.wait()

	c = rig.chain(t, "mxf-tlsc", "-v0", "-yY").with("CERTFILE="+cert, "KEYFILE="+key).start()
	go func() { _ = tls.Server(c.far, rig.config(demand)).Handshake(); c.far.Close() }()
	c.outcome(t, 97, "fatal: server demands a client certificate: .*")

	// In TLS 1.3 prog runs by then. The reason is there before it sees the end.
	for _, test := range []struct{ option, line string }{
		{"-Y", "server demands a client certificate: certificate required (alert 116)"},
		{"-y", "server does not accept our client certificate: unknown certificate authority (alert 48)"},
	} {
		for _, program := range tunnels {
			c := rig.asking(t, program, "-v0", "-S", test.option).with("CERTFILE="+cert, "KEYFILE="+key)
			c.start()
			go func() {
				_ = tls.Server(c.far, rig.config(demand, func(c *tls.Config) { c.MaxVersion, c.ClientCAs = 0, x509.NewCertPool() })).Handshake()
				_ = c.far.CloseWrite()
			}()
			_, _ = io.WriteString(c.in, "EHLO\r\n")
			if got := <-collect(c.out); len(got) != 0 {
				t.Errorf("prog has read %q", got)
			}
			if got, want := c.errors(), program+": fatal: "+test.line+"\n"; got != want {
				t.Errorf("standard error is %q, want %q", got, want)
			}
			c.in.Close()
			if status, end := c.wait(), c.tunnelEnd(); status != 0 || end != 98 {
				t.Errorf("%s %s: status %d, the child's %d", program, test.option, status, end)
			}
			if n := strings.Count(c.errors(), "\n"); n != 1 {
				t.Errorf("standard error is %q", c.errors())
			}
		}
	}
}

func testOnRequest(t *testing.T, rig *tlsRig) {
	for _, ask := range []string{"Y", "y"} {
		for _, nonblock := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s non-blocking %v", ask, nonblock), func(t *testing.T) {
				c := rig.chain(t, "mxf-ucspitlsc", "-S", "-k", tlsName).with(clientAsk+"="+ask, "TLS_UID="+strconv.Itoa(os.Getuid()), "TLS_GID="+strconv.Itoa(os.Getgid()))
				c.nonblock = nonblock
				c.start()
				f := c.facts()
				child := c.child()
				sameMode := c.keepsMode()
				server := c.accept()
				want := []int{0, 1, 2, 6, 7}
				for _, name := range []string{ucspitls.ControlVariable, ucspitls.ReadVariable, ucspitls.WriteVariable} {
					want = append(want, must.Get(strconv.Atoi(value(f.Environ, name)))(t))
				}
				c.becameProg(f, want...)
				for _, fd := range want[3:] { // those that are not standard
					if network := fd == 6 || fd == 7; f.Blocks[fd] == (network && nonblock) {
						t.Errorf("descriptor %d blocks: %v", fd, f.Blocks[fd])
					}
				}
				if f.Open[6] != f.Open[7] || !strings.HasPrefix(f.Open[6], "socket:") {
					t.Errorf("6 is %s, 7 is %s", f.Open[6], f.Open[7])
				}
				for _, name := range []string{"CAFILE", "TLS_UID", "SSL_PROTOCOL"} {
					if got := value(f.Environ, name); got != "" {
						t.Errorf("%s is %q", name, got)
					}
				}
				testChildDescriptors(t, child, f)

				var block struct {
					Told   []string
					Failed string
				}
				c.left("block", &block)
				state := server.ConnectionState()
				binding := must.Get(state.ExportKeyingMaterial("EXPORTER-Channel-Binding", []byte{}, 32))(t)
				told := value(block.Told, "SSL_PROTOCOL") == "TLSv1.3" && value(block.Told, "SSL_PEER_VERIFIED") == "yes" &&
					value(block.Told, "SSL_TLS_EXPORTER") == hex.EncodeToString(binding)
				if told != (ask == "Y") || block.Failed != "<nil>" {
					t.Errorf("was told %q, %s", block.Told, block.Failed)
				}
				if _, err := server.Write([]byte("down")); err != nil {
					t.Error(err)
				}
				_, _ = io.WriteString(c.in, "up")
				c.in.Close()
				if got := <-collect(server); string(got) != "up" {
					t.Errorf("the server has %q", got)
				}
				server.Close()
				if got := <-collect(c.out); string(got) != "down" {
					t.Errorf("prog has %q", got)
				}
				sameMode()
				c.ends(0, "")
			})
		}
	}
}

func value(environ []string, name string) string {
	for _, e := range environ {
		if n, v, _ := strings.Cut(e, "="); n == name {
			return v
		}
	}
	return ""
}

func testOnRequestFails(t *testing.T, rig *tlsRig) {
	for _, test := range []struct {
		ask    string
		status int
		line   string
	}{
		{"Y", 97, "mxf-ucspitlsc: fatal: certificate is for \"mx.example.org\", not \"mx2.example.org\"\n"},
		{"y", 97, "mxf-ucspitlsc: fatal: certificate is for \"mx.example.org\", not \"mx2.example.org\"\n"},
		{"x", 100, "mxf-ucspitlsc: fatal: unknown command \"x\" on the control socket\n"},
		{"-", 0, ""},
	} {
		t.Run(test.ask, func(t *testing.T) {
			c := rig.chain(t, "mxf-ucspitlsc", "-v0", "-k", "mx2.example.org").with(clientAsk + "=" + test.ask).start()
			go func() { _ = tls.Server(c.far, rig.config()).Handshake() }()
			var block struct {
				Told           []string
				Failed, Stderr string
			}
			c.left("block", &block)
			// The reason is there before the control socket is closed.
			if test.ask == "Y" && (block.Failed != ucspitls.ErrHandshake.Error() || block.Stderr != test.line) {
				t.Errorf("was told %q, %s, with %q on standard error", block.Told, block.Failed, block.Stderr)
			}
			if got := <-collect(c.out); len(got) != 0 {
				t.Errorf("read %q from the tunnel", got)
			}
			c.in.Close()
			c.ends(test.status, test.line)
		})
	}
}

// Until it is asked, the TLS process leaves every byte to prog.
func testOnRequestNotAByteEarly(t *testing.T, rig *tlsRig) {
	c := rig.chain(t, "mxf-ucspitlsc", "-k", tlsName).with(clientDo+"=starttls", clientAsk+"=Y").start()
	c.child()
	c.release()
	clear := bufio.NewReader(c.far)
	for _, word := range []string{"220 hello\n", "220 go ahead\n"} {
		must.Get(io.WriteString(c.far, word))(t)
		if got, err := clear.ReadString('\n'); got != word || err != nil {
			t.Fatalf("prog has read %q, %v", got, err)
		}
	}
	server := c.acceptOn(talker{c.far, clear})
	c.over(server)
}

// A talker reads what a buffer may have read ahead.
type talker struct {
	net.Conn
	r io.Reader
}

func (t talker) Read(p []byte) (int, error) { return t.r.Read(p) }
