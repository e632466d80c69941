package chain

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nightmare.mail/mxf/integration/must"
)

type exits int

func (e exits) Error() string { return "exits" }
func (e exits) ExitCode() int { return int(e) }

func TestExitCode(t *testing.T) {
	for _, c := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{errors.New("any"), 111},
		{exits(97), 97},
		{fmt.Errorf("outer: %w", exits(98)), 98},
		{errors.Join(errors.New("other"), exits(96)), 96},
		{exits(0), 111}, // an error is not success
		{exits(-1), 111},
		{exits(256), 111}, // would be 0 to wait(2)
		{Fail(100, "usage: %w", exits(97)), 100},
	} {
		if got := ExitCode(c.err); got != c.want {
			t.Errorf("ExitCode(%v) = %d, want %d", c.err, got, c.want)
		}
	}
}

func TestGuard(t *testing.T) {
	trace := filepath.Join(t.TempDir(), "trace")
	t.Setenv("MXF_TRACE", trace)
	var status int
	said := stderrOf(t, func() { status = Guard("prog", func() int { panic("first\nsecond") }) })
	if status != 111 || said != "prog: fatal: internal error: first?second\n" {
		t.Errorf("a panic: status %d, %q on standard error", status, said)
	}
	if got, _ := os.ReadFile(trace); !bytes.Contains(got, []byte("chain_test.go")) {
		t.Errorf("the trace does not tell where: %q", got)
	}
	if status := Guard("prog", func() int { return 7 }); status != 7 {
		t.Errorf("status %d, want 7", status)
	}
}

// stderrOf returns what f writes to descriptor 2.
func stderrOf(t *testing.T, f func()) string {
	t.Helper()
	file := must.Get(os.Create(filepath.Join(t.TempDir(), "stderr")))(t)
	defer file.Close()
	saved := dup(t, 2)
	defer unix.Close(saved)
	must.OK(t, dup2(int(file.Fd()), 2))
	defer func() { _ = dup2(saved, 2) }()
	f()
	return string(must.Get(os.ReadFile(file.Name()))(t))
}

func TestComplainIsOneBoundedLine(t *testing.T) {
	said := stderrOf(t, func() { Complain("prog", "fatal", "a\x1b[31m\r\nb\x00"+strings.Repeat("x", 1<<20)+"\n") })
	if len(said) > maxLine+1 || strings.Count(said, "\n") != 1 || !strings.HasPrefix(said, "prog: fatal: a?[31m??b?xxx") {
		t.Errorf("%d bytes: %.40q", len(said), said)
	}
}

func TestSilence(t *testing.T) {
	said := stderrOf(t, func() {
		must.Check(t, Silence())
		Complain("prog", "fatal", "nobody hears it")
	})
	if said != "" {
		t.Errorf("%q", said)
	}
}

func TestHomeBeside(t *testing.T) {
	for set, want := range map[string]string{"": "/var/qmail", "/elsewhere": "/elsewhere"} {
		t.Setenv("MXF_HOME", set)
		if got := Home(); got != want {
			t.Errorf("Home() = %q", got)
		}
	}
	self := must.Get(os.Executable())(t)
	if got, err := Beside("other"); err != nil || got != filepath.Join(filepath.Dir(self), "other") {
		t.Errorf("Beside() = %q, %v", got, err)
	}
}

func TestTrace(t *testing.T) {
	name := filepath.Join(t.TempDir(), "trace")
	t.Setenv("MXF_TRACE", name)
	must.OK(t, os.WriteFile(name, []byte("before\n"), 0o600))
	OpenTrace()("one")
	OpenTrace()("two\rlines\nof it\n")
	got := must.Get(os.ReadFile(name))(t)
	lines := strings.Split(strings.TrimSuffix(string(got), "\n"), "\n")
	wants := []string{"before", "one", "two?lines", "of it"}
	if len(lines) != len(wants) {
		t.Fatalf("%q", lines)
	}
	for i, want := range wants[1:] {
		var stamp string
		var pid int
		n, err := fmt.Sscan(lines[i+1], &stamp, &pid)
		if _, bad := time.Parse(time.RFC3339Nano, stamp); bad != nil || n != 2 || err != nil || pid != os.Getpid() || !strings.HasSuffix(lines[i+1], " "+want) {
			t.Errorf("%q", lines[i+1])
		}
	}
}

// A trace goes to a regular file alone, and opening it never waits.
func TestTraceGoesToFilesAlone(t *testing.T) {
	folder := t.TempDir()
	fifo := filepath.Join(folder, "fifo")
	must.OK(t, unix.Mkfifo(fifo, 0o600))
	// A FIFO with a reader can be opened for writing without waiting.
	reader := must.Get(unix.Open(fifo, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0))(t)
	defer unix.Close(reader)
	for _, name := range []string{"", folder, folder + "/none/trace", fifo, "/dev/null", "/dev/full", "/dev/ptmx", "/dev/tty"} {
		t.Setenv("MXF_TRACE", name)
		must.Within(t, name, func() {
			if OpenTrace() != nil {
				t.Errorf("MXF_TRACE=%q is accepted", name)
			}
		})
	}
}

// A trace does not go to the file of the reports or the message, under whatever name.
func TestTraceSparesStandardDescriptors(t *testing.T) {
	folder := t.TempDir()
	name, link := filepath.Join(folder, "out"), filepath.Join(folder, "link")
	file := must.Get(os.Create(name))(t)
	defer file.Close()
	must.OK(t, os.Link(name, link))
	for standard := range FirstFree {
		saved := dup(t, standard)
		must.OK(t, dup2(int(file.Fd()), standard))
		var opened bool
		for _, path := range []string{name, link} {
			os.Setenv("MXF_TRACE", path)
			opened = opened || OpenTrace() != nil
		}
		os.Unsetenv("MXF_TRACE")
		_ = dup2(saved, standard)
		Close(saved)
		if opened {
			t.Errorf("a trace goes to the file of descriptor %d", standard)
		}
	}
	t.Setenv("MXF_TRACE", link)
	if OpenTrace() == nil {
		t.Error("a file that nobody uses is not accepted")
	}
}

// A trace that may not grow further does not end the program.
func TestTraceAtTheLimit(t *testing.T) {
	var was unix.Rlimit
	must.OK(t, unix.Getrlimit(unix.RLIMIT_FSIZE, &was))
	limit := was
	limit.Cur = 100
	must.OK(t, unix.Setrlimit(unix.RLIMIT_FSIZE, &limit))
	defer func() { _ = unix.Setrlimit(unix.RLIMIT_FSIZE, &was) }()
	name := filepath.Join(t.TempDir(), "trace")
	t.Setenv("MXF_TRACE", name)
	trace := OpenTrace()
	for range 10 {
		trace("a line of some length")
	}
	if info, err := os.Stat(name); err != nil || info.Size() != 100 {
		t.Errorf("%v, %v", info.Size(), err)
	}
}

func TestEnvironment(t *testing.T) {
	env := []string{"A=1", "B=2", "A=3", "bare", "C=x=y"}
	for name, want := range map[string]string{"A": "1", "C": "x=y", "D": "", "bare": "", "": ""} {
		if v, ok := Lookup(env, name); v != want || ok != (want != "") {
			t.Errorf("%q is %q, %v", name, v, ok)
		}
	}
	got := Change(env, []string{"A=new", "B", "", "=x", "D=", "E=1", "E"})
	if want := []string{"bare", "C=x=y", "A=new", "D="}; !slices.Equal(got, want) {
		t.Errorf("Change: %q, want %q", got, want)
	}
	if env[0] != "A=1" || len(env) != 5 {
		t.Errorf("Change changed its argument: %q", env)
	}
}

func TestTLSSetting(t *testing.T) {
	settings := []string{"CADIR", "CAFILE", "CERTFILE", "KEYFILE", "TLS_UID", "TLS_GID", "MXF_TLSHELLO", "MXF_TLSA", "MXF_TLSNAMES", "CERTFILE:a.example", "KEYFILE:a.example"}
	others := []string{"", "CADIRS", "CADIR:x", "CERTFILES", "MXF_TLS", "MXF_TLSAS", "SSL_PROTOCOL", "TCPREMOTEIP", "PATH"}
	for i, name := range append(settings, others...) {
		if goes := TLSSetting(name); goes != (i < len(settings)) {
			t.Errorf("%s goes: %v", name, goes)
		}
	}
}

func TestFindProgram(t *testing.T) {
	dir := t.TempDir()
	write := func(path string, mode os.FileMode) string {
		path = filepath.Join(dir, path)
		must.Write(t, path, "#!/bin/sh\n")
		must.OK(t, os.Chmod(path, mode))
		return path
	}
	plain := write("a/plain", 0o644)
	second := write("b/prog", 0o755)
	write("a/later", 0o644)
	later := write("b/later", 0o755)
	must.OK(t, os.MkdirAll(filepath.Join(dir, "a", "prog"), 0o755))
	path := []string{"PATH=" + filepath.Join(dir, "none") + ":" + filepath.Join(dir, "a") + ":" + filepath.Join(dir, "b")}
	for _, c := range []struct {
		name    string
		environ []string
		want    string
		code    int
	}{
		{"prog", path, second, 0}, // a folder of that name comes first
		{"later", path, later, 0},
		{"plain", path, "", 126}, // no run bit
		{plain, path, "", 126},
		{"absent", path, "", 127},
		{"", path, "", 127},
		{dir + "/absent", path, "", 127},
		{plain + "/under", path, "", 127},
		{dir, path, "", 126}, // a folder
		{second, nil, second, 0},
		{"sh", nil, "", 0}, // no PATH: the default one
		{"sh", []string{"PATH=" + dir}, "", 127},
		{"sh", []string{"PATH="}, "", 127}, // the current folder
	} {
		got, err := FindProgram(c.name, c.environ)
		if ExitCode(err) != c.code || c.want != "" && got != c.want {
			t.Errorf("FindProgram(%q, %q) = %q, %v, want %q and %d", c.name, c.environ, got, err, c.want, c.code)
		}
	}
	t.Chdir(filepath.Join(dir, "b"))
	for _, p := range []string{"PATH=", "PATH=/nowhere:", "PATH=:/nowhere"} {
		if got, err := FindProgram("prog", []string{p}); got != "./prog" || err != nil {
			t.Errorf("%s: %q, %v", p, got, err)
		}
	}
}

// highest is maxID as an int. It is negative where an int has 32 bits.
func highest() int {
	n := uint32(maxID)
	return int(n)
}

func TestIdentity(t *testing.T) {
	for _, c := range []struct {
		environ []string
		want    Identity
		bad     bool
	}{
		{nil, Identity{}, false},
		{[]string{"TLS_UID=12"}, Identity{}, true},
		{[]string{"TLS_GID=12"}, Identity{}, true},
		{[]string{"TLS_UID=12", "TLS_GID=0"}, Identity{uid: 12, set: true}, false},
		{[]string{"TLS_UID=4294967294", "TLS_GID=1"}, Identity{uid: highest(), gid: 1, set: true}, false},
		{[]string{"TLS_UID=4294967295", "TLS_GID=1"}, Identity{}, true}, // -1: "leave it"
		{[]string{"TLS_UID=-1", "TLS_GID=1"}, Identity{}, true},
		{[]string{"TLS_UID=", "TLS_GID=1"}, Identity{}, true},
		{[]string{"TLS_UID=root", "TLS_GID=1"}, Identity{}, true},
		{[]string{"TLS_UID=1", "TLS_GID=1x"}, Identity{}, true},
		{[]string{"TLS_UID=1", "TLS_GID= 1"}, Identity{}, true},
	} {
		got, err := ReadIdentity(c.environ)
		if got != c.want || c.bad != (ExitCode(err) == ExitUsage) {
			t.Errorf("%q: %+v, %v", c.environ, got, err)
		}
	}
}

func TestInheritedIsNotOurs(t *testing.T) {
	r, w, err := Pipe()
	must.OK(t, err)
	if Inherited(r) == nil {
		t.Error("a close-on-exec descriptor cannot have come from the caller")
	}
	must.Get(unix.FcntlInt(uintptr(r), unix.F_SETFD, 0))(t)
	must.Check(t, Inherited(r))
	Seal()
	if Inherited(r) == nil {
		t.Error("Seal left a descriptor to be inherited")
	}
	must.Check(t, Inherited(2)) // Seal does not touch standard error
	Close(r, w)
	if err := Inherited(r); !errors.Is(err, syscall.EBADF) {
		t.Errorf("a closed descriptor: %v", err)
	}
}

// Good and bad command lines seed the fuzzer too.
var goodTunnels = []struct {
	line string
	want Tunnel
	prog string
}{
	{"", Tunnel{Verify: true, Verbosity: 1, ReadFD: 6, WriteFD: 7}, ""},
	{"prog -S", Tunnel{Verify: true, Verbosity: 1, ReadFD: 6, WriteFD: 7}, "prog -S"},
	{"-- -S", Tunnel{Verify: true, Verbosity: 1, ReadFD: 6, WriteFD: 7}, "-S"},
	{"- x", Tunnel{Verify: true, Verbosity: 1, ReadFD: 6, WriteFD: 7}, "- x"},
	{"-Sjzv0 -K60000 prog", Tunnel{CloseNotify: true, Verify: true, HandshakeTimeout: time.Minute, ReadFD: 6, WriteFD: 7}, "prog"},
	{"-S -j -z -v 0 -K 60000 -k mx.example.org -y --no-verify-cert -- prog a", // what the router says
		Tunnel{CloseNotify: true, ClientCertificate: true, HandshakeTimeout: time.Minute, ServerName: "mx.example.org", ReadFD: 6, WriteFD: 7}, "prog a"},
	{"-SJyZ -SsjJYyzZ prog", Tunnel{EnforceCloseNotify: true, ClientCertificate: true, Keep: true, Verify: true, Verbosity: 1, ReadFD: 6, WriteFD: 7}, "prog"},
	{"--no-verify-cert --verify-cert -6 8 -79 p", Tunnel{Verify: true, Verbosity: 1, ReadFD: 8, WriteFD: 9}, "p"},
	{"--close-notify --enforce-close-notify --client-cert --keep --verbosity=2 --handshake-timeout=1 --servername=a --read-fd=3 --write-fd=4 p",
		Tunnel{true, true, true, true, true, 2, time.Millisecond, "a", 3, 4}, "p"},
	{"--no-close-notify --no-enforce-close-notify --no-client-cert --no-keep --verbosity 2 --kimeout 1 --servername a --read-fd 3 --write-fd 4 p",
		Tunnel{false, false, false, false, true, 2, time.Millisecond, "a", 3, 4}, "p"},
	{"-SvK5 p", Tunnel{}, "bad"}, // K5 is no number
	{"-k a -k b p", Tunnel{Verify: true, Verbosity: 1, ServerName: "b", ReadFD: 6, WriteFD: 7}, "p"},
	{"--servername=a=b p", Tunnel{Verify: true, Verbosity: 1, ServerName: "a=b", ReadFD: 6, WriteFD: 7}, "p"},
	{"--servername= p", Tunnel{Verify: true, Verbosity: 1, ReadFD: 6, WriteFD: 7}, "p"},
	{"-67 -7 6 p", Tunnel{Verify: true, Verbosity: 1, ReadFD: 7, WriteFD: 6}, "p"}, // -6 7, swapped
	{"-K 4294967295 p", Tunnel{Verify: true, Verbosity: 1, HandshakeTimeout: 4294967295 * time.Millisecond, ReadFD: 6, WriteFD: 7}, "p"},
}

var badTunnels = []string{
	"-q p",                      // unknown
	"-Sq p",                     // unknown within a bundle
	"--close p",                 // long names are not abbreviated
	"--close-notify=yes p",      // a flag
	"--=x p",                    // no name
	"---S p",                    // three dashes
	"-K",                        // no value
	"-k",                        //
	"--servername",              //
	"-v -- p",                   // "--" is no value
	"-K 1.5 p",                  // not a number
	"-K -1 p",                   //
	"-K+1 p",                    //
	"--verbosity= p",            //
	"-v x p",                    //
	"-K 4294967296 p",           // above an unsigned int
	"-6 2 p",                    // below 3
	"-7 0 p",                    //
	"-6 2147483648 p",           // above an int
	"-6 9 -7 9 p",               // equal
	"-7 6 p",                    // equal to the default
	"-6 99999999999999999999 p", // does not fit
	"--version p",               // alone only
	"--help p",                  //
}

func TestParseTunnel(t *testing.T) {
	for _, c := range goodTunnels {
		got, prog, err := ParseTunnel(strings.Fields(c.line))
		if c.prog == "bad" {
			if ExitCode(err) != ExitUsage {
				t.Errorf("%q: %v", c.line, err)
			}
			continue
		}
		if err != nil || !reflect.DeepEqual(got, c.want) || strings.Join(prog, " ") != c.prog {
			t.Errorf("%q:\n got %+v %q %v\nwant %+v %q", c.line, got, prog, err, c.want, c.prog)
		}
	}
	for _, line := range badTunnels {
		if got, prog, err := ParseTunnel(strings.Fields(line)); ExitCode(err) != ExitUsage {
			t.Errorf("%q: %+v %q %v, want an error", line, got, prog, err)
		}
	}
	_, _, err := ParseTunnel([]string{"-k", "", "p"})
	must.Check(t, err)
}

func FuzzParseTunnel(f *testing.F) {
	for _, c := range goodTunnels {
		f.Add(strings.ReplaceAll(c.line, " ", "\n"))
	}
	for _, line := range badTunnels {
		f.Add(strings.ReplaceAll(line, " ", "\n"))
	}
	f.Fuzz(func(t *testing.T, line string) {
		args := strings.Split(line, "\n")
		got, prog, err := ParseTunnel(args)
		if err != nil {
			if ExitCode(err) != ExitUsage || strings.ContainsAny(err.Error(), "\x00\r\n") {
				t.Errorf("%q: %q", args, err)
			}
			return
		}
		if got.ReadFD < FirstFree || got.WriteFD < FirstFree || got.ReadFD == got.WriteFD || got.HandshakeTimeout < 0 || got.Verbosity < 0 {
			t.Errorf("%q: %+v", args, got)
		}
		// The parent hands the child what stands before the program.
		if given := args[:len(args)-len(prog)]; len(prog) > 0 {
			again, rest, err := ParseTunnel(given)
			if err != nil || again != got || len(rest) != 0 {
				t.Errorf("%q: the child sees %+v %q %v, the parent %+v", given, again, rest, err, got)
			}
		}
	})
}
