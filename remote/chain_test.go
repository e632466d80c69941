package remote

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/remote/dial/dialtest"
	"nightmare.mail/mxf/remote/report"
	"nightmare.mail/mxf/remote/route"
	"nightmare.mail/mxf/remote/transport"
)

// newChain returns a delivery whose only protocol is spoken by a shell script, and
// the script's folder, which is its home.
func newChain(t *testing.T, script string, change func(*control.Settings)) (*walk, string) {
	t.Helper()
	folder := t.TempDir()
	program := filepath.Join(folder, "client")
	must.Script(t, program, "cd '"+folder+"'\n"+script)
	d := newTestWalk(t, func(s *control.Settings) {
		s.Protocols = []control.Protocol{{Service: "smtp", Program: program}}
		if change != nil {
			change(s)
		}
	})
	return d, folder
}

// shown is a stream as a log would show it.
func shown(s report.Stream) string {
	return strings.NewReplacer("\n\x00", "|", "\x00", "|").Replace(string(s.Bytes()))
}

// reach walks through n exchangers that accept connections and say nothing, and shows what
// comes of it.
func (w *walk) reach(t *testing.T, n int) string {
	t.Helper()
	var candidates []route.Candidate
	for range n {
		_, addr := dialtest.Listen(t, "127.0.0.1:0")
		candidates = append(candidates, w.candidate(addr))
	}
	return shown(w.through(t.Context(), candidates))
}

// left returns the words that a program has left in a file.
func left(t *testing.T, folder, name string) []string {
	t.Helper()
	return strings.Fields(string(must.Get(os.ReadFile(filepath.Join(folder, name)))(t)))
}

// What a program does, and what the router makes of it.
func TestProgram(t *testing.T) {
	const aside = `exec 6<&- 7>&-; ` // a child that is not to hold the connection
	for _, test := range []struct {
		name, script string
		runs         int    // how often it is run for two exchangers
		want         string // pattern
	}{
		{"accepted", `printf 'r\0Kok\0'`, 1, `^r\|Kok\|$`},
		{"refused", `printf 'hno\0Dgone\0'`, 1, `^hno\|Dgone\|$`},
		{"fewer recipients", `printf 'Zlater\0'`, 1, `^Zlater\|$`},
		{"complete whatever the exit", `printf 'r\0Kok\0'; exit 75`, 1, `^r\|Kok\|$`},
		{"complete, noise", `echo noise >&2; printf 'r\0Kok\0more\0'; exit 1`, 1, `^r\|Kok\|$`},
		{"complete, then a signal", `printf 'r\0Kok\0'; kill -KILL $$`, 1, `^r\|Kok\|$`},
		{"complete, piece by piece", `printf 'r'; sleep 0.1; printf '\0K'; sleep 0.1; printf 'ok\0'`, 1, `^r\|Kok\|$`},
		{"complete, then it lingers", `printf 'r\0Kok\0'; sleep 600`, 1, `^r\|Kok\|$`},
		{"its child lingers", aside + `sleep 600 & printf 'r\0Kok\0'; kill -KILL $! `, 1, `^r\|Kok\|$`},
		{"a report as long as a message", `printf 'r\0K'; head -c 300000 /dev/zero | tr '\0' x; printf '\0'`, 1, `^r\|Kx+\|$`},
		{"a flood of reports", `yes | head -c 300000 | tr 'y\n' 'h\0'; printf 'Kok\0'`, 1, `^ZUnable to run the protocol program: .*make no sense`},
		{"a flood of diagnostics", `head -c 300000 /dev/zero | tr '\0' x >&2; exit 1`, 1, `^ZUnable to run the protocol program: .*saying: x+\. `},
		{"nothing", `exit 0`, 1, `^ZUnable to run the protocol program: .*exit status 0`},
		{"half", `printf 'r\0Kok'`, 1, `^ZUnable to run the protocol program: .*no zero byte ends "Kok"`},
		{"no recipient, one asked for", `printf 'Kok\0'`, 1, `^r\|Kok\|$`},
		{"too many", `printf 'r\0r\0Kok\0'`, 1, `^ZUnable to run the protocol program: `},
		{"prose", `printf 'hello\n'`, 1, `^ZUnable to run the protocol program: .*no zero byte ends "hello\\n"`},
		{"prose, ended", `printf 'usage: client host\n\0'`, 1, `^ZUnable to run the protocol program: .*"usage: client host\\n" is not a report`},
		{"1", `printf 'a\001b\0c\177' >&2; exit 1`, 1, `saying: a\?b\?c\?\. \(#4\.3\.0\)\|$`},
		{"2", `exit 2`, 1, `^ZUnable to run the protocol program: .*exit status 2`},
		{"75", `echo why >&2; exit 75`, 2, `^ZConnected to 127.0.0.1 but connection died. \(#4.4.2\)\nThe protocol program said: why\n`},
		{"75, ours", `echo 'Connected to 127.0.0.1 but greeting failed.' >&2; exit 75`, 2, `^ZConnected to 127.0.0.1 but greeting failed.\n`},
		{"75, fatal, and there is no TLS", `echo 'client: fatal: why' >&2; exit 75`, 2,
			`^ZConnected to 127.0.0.1 but connection died. \(#4.4.2\)\nThe protocol program said: client: fatal: why\n1 address`},
		{"75, half a report", `printf r; exit 75`, 1, `^ZUnable to run the protocol program: `},
		{"76", `echo why >&2; exit 76`, 2, `^ZConnected to 127.0.0.1 but TLS could not be had: why. \(#4.7.5\)\n`},
		{"96", `exit 96`, 1, `^ZUnable to run the protocol program: `},
		{"97", `exit 97`, 1, `^ZUnable to run the protocol program: `},
		{"100", `exit 100`, 1, `^ZUnable to run the protocol program: `},
		{"111", `exit 111`, 1, `^ZUnable to run the protocol program: `},
		{"124", `exit 124`, 1, `^ZConnected to 127.0.0.1 but the conversation took longer than 20 seconds. \(#4.4.2\)\|$`},
		{"124, ours", `printf 'Connected to 127.0.0.1 but it took long.\nTLS: up\n' >&2; exit 124`, 1, `^ZConnected to 127.0.0.1 but it took long.\nTLS: up\|$`},
		{"124 with a report", `printf 'Zfuse\0'; exit 124`, 1, `^Zfuse\|$`},
		{"127", `exit 127`, 1, `^ZUnable to run the protocol program: `},
		{"a signal", `kill -TERM $$`, 1, `^ZUnable to run the protocol program: .*signal: terminated`},
		{"the message is read once", `cat >got; printf 'r\0K'; tr -d '\n' <got; printf '\0'`, 1, `^r\|KSubject: xHello.\|$`},
		{"the message is set back", `test -e got || { cat >got; exit 75; }; printf 'r\0K'; tr -d '\n'; printf '\0'`, 2, `^r\|KSubject: xHello.\|$`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			d, folder := newChain(t, "echo >>runs\n"+test.script+"\n", nil)
			began := time.Now()
			got := d.reach(t, 2)
			if !regexp.MustCompile(test.want).MatchString(got) {
				t.Errorf("%.2000q", got)
			}
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("took %v", took)
			}
			if runs := must.Get(os.ReadFile(filepath.Join(folder, "runs")))(t); len(runs) != test.runs {
				t.Errorf("run %d times, want %d", len(runs), test.runs)
			}
		})
	}
}

// With implicit TLS a TLS client's own exit codes mean that there was no TLS.
func TestProgram_tlsClient(t *testing.T) {
	t.Parallel()
	const (
		unknown = `mxf-tlsc: fatal: server does not know the name "mx.example.org": unrecognized name (alert 112)`
		silence = `mxf-tlsc: fatal: no answer to the handshake within 9 ms`
	)
	for _, test := range []struct {
		code, strictness int
		words, want      string
		runs             string // whether each was told a name, and to send a small ClientHello
	}{
		{97, 0, "s6-tlsc: fatal: bad certificate", `: bad certificate. \(#4.7.5\)`, "named"},
		{96, 2, "mxf-tlsc: fatal: no anchors\nmore", `: no anchors. \(#4.7.5\)`, "named"},
		{97, 1, "mxf-tlsc: fatal: server does not know the name: x", `does not know the name: x. \(#4.7.5\)`, "named"}, // not in our words
		{97, 1, unknown, `unrecognized name \(alert 112\). \(#4.7.5\)`, "named nameless"},
		{97, 2, unknown, `unrecognized name \(alert 112\). \(#4.7.5\)`, "named"},
		{97, 1, "s6-tlsc" + strings.TrimPrefix(unknown, "mxf-tlsc"), `unrecognized name \(alert 112\). \(#4.7.5\)`, "named"}, // not ours
		{97, 1, "454-" + unknown + "\n454 said the server", `gave no reason|said the server`, "named"},                       // not a client's
		{97, 2, silence, `no answer to the handshake within 9 ms. \(#4.7.5\)`, "named named small"},
		{97, 0, "", `the TLS client gave no reason. \(#4.7.5\)`, "named"},
		{98, 0, "s6-tlsc-io: fatal: unable to handshake", `: unable to handshake. \(#4.7.5\)`, "named"},
	} {
		d, folder := newChain(t, fmt.Sprintf(`case " $* " in *' -k mx.example.org '*) echo named;; *) echo nameless;; esac >>runs
echo $MXF_TLSHELLO >>runs
echo '%s' >&2; exit %d`, test.words, test.code), func(s *control.Settings) {
			s.TLSStrictness = test.strictness
			s.TLSClient = s.Protocols[0].Program
			s.Protocols[0].Implicit = true
		})
		if got := d.reach(t, 1); !regexp.MustCompile(`^Z.*` + test.want).MatchString(got) {
			t.Errorf("%d %q: %q", test.code, test.words, got)
		}
		if got := strings.Join(left(t, folder, "runs"), " "); got != test.runs {
			t.Errorf("%d %q at %d: run %q, want %q", test.code, test.words, test.strictness, got, test.runs)
		}
	}
}

// Arguments, environment and descriptors of the chain.
func TestProgram_surroundings(t *testing.T) {
	t.Parallel()
	d, folder := newChain(t, `printf '%s\n' "$@" >args; env >environ; ls -l /proc/self/fd/ >fds; printf 'r\0K\0'`, func(s *control.Settings) {
		s.UCSPITLSClient = s.Protocols[0].Program
		s.Protocols[0].Explicit = true
		s.TimeoutConnect = (1<<31 - 1) * time.Second
		s.TLSStrictness = 1
	})
	d.Settings.ClientCert, d.Settings.ClientKey = "/cert", "/key" // nobody here reads them
	d.carrier.Environ = []string{"PATH=" + os.Getenv("PATH"), "TCPREMOTEINFO=x", "TLS_UID=1", "TLS_GID=1", "CAFILE=x", "CADIR=x", "SSLCTLFD=9",
		"SSL_PROTOCOL=x", "PROTO=UDP", "KEEP=a=b", "CERTFILE:x=y", "MXF_TLS=none"}
	_, addr := dialtest.Listen(t, "127.0.0.1:0")
	d.dialer.Timeout = time.Minute
	if got := shown(d.through(t.Context(), []route.Candidate{d.candidate(addr)})); got != "r|K|" {
		t.Fatalf("%q", got)
	}
	read := func(name string) []string {
		text := must.Get(os.ReadFile(filepath.Join(folder, name)))(t)
		return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	}
	program := d.Settings.Protocols[0].Program
	if got, want := read("args"), []string{"-S", "-j", "-z", "-v", "0", "-K", "4294967295", "-k", "mx.example.org", "-y", "--no-verify-cert",
		"--", program, "example.org", "s@example.net", "r@example.org"}; !slices.Equal(got, want) {
		t.Errorf("arguments %q", got)
	}
	environ := read("environ")
	for _, want := range []string{"PROTO=TCP", "TCPREMOTEIP=127.0.0.1", fmt.Sprintf("TCPREMOTEPORT=%d", addr.Port()), "TCPREMOTEHOST=mx.example.org",
		"TCPLOCALIP=127.0.0.1", "TCPLOCALHOST=me.example", "CERTFILE=/cert", "KEYFILE=/key", "MXF_HOME=" + d.Settings.Home,
		"MXF_SERVICE=smtp", "MXF_TLS=must", "KEEP=a=b"} {
		if !slices.Contains(environ, want) {
			t.Errorf("%s is missing", want)
		}
	}
	for _, gone := range []string{"TCPREMOTEINFO", "TLS_UID", "TLS_GID", "CAFILE", "CADIR", "SSLCTLFD", "SSL_PROTOCOL", "CERTFILE:x"} {
		if slices.ContainsFunc(environ, func(a string) bool { return strings.HasPrefix(a, gone+"=") }) {
			t.Errorf("%s is left", gone)
		}
	}
	if _, err := os.Stat("/proc/self/fd"); err == nil {
		text := strings.Join(read("fds"), "\n")
		for fd, want := range map[int]string{0: ".*/message$", 2: "pipe:.*", 6: "socket:.*", 7: "socket:.*"} {
			if !regexp.MustCompile(fmt.Sprintf(`(?m) %d -> %s`, fd, want)).MatchString(text) {
				t.Errorf("descriptor %d is not %s:\n%s", fd, want, text)
			}
		}
		if socket := regexp.MustCompile(`socket:\S+`).FindAllString(text, -1); len(socket) != 2 || socket[0] != socket[1] {
			t.Errorf("sockets %q", socket)
		}
	}
}

// timeoutremote holds, whatever a program does, for it and for its children.
func TestProgram_fuse(t *testing.T) {
	for _, script := range []string{
		`trap '' TERM HUP INT; sleep 600 & echo $! >child; sleep 600`,
		`exec 1>&- 2>&- 6<&- 7>&-; echo >child; sleep 600`,
		`echo >child; yes`,                                   // text without end
		`echo >child; yes | tr 'y\n' 'r\0'`,                  // reports without end
		`echo >child; yes >&2`,                               // diagnostics without end
		`echo >child; printf 'r\0Kok'; sleep 600`,            // nearly
		`echo >child; kill -STOP $$`,                         // stopped
		`echo >child; while :; do cat; done`,                 // busy
		`echo >child; (sleep 600; printf 'r\0Kok\0') & wait`, // for its child
	} {
		t.Run(script, func(t *testing.T) {
			t.Parallel()
			const fuse = 300 * time.Millisecond
			d, folder := newChain(t, script, func(s *control.Settings) { s.TimeoutRemote = fuse })
			began := time.Now()
			got := d.reach(t, 2)
			if took := time.Since(began); took < fuse || took > fuse+30*time.Second {
				t.Errorf("took %v", took)
			}
			if want := "ZConnected to 127.0.0.1 but the conversation took longer than 0 seconds. (#4.4.2)|"; got != want {
				t.Errorf("%.200q", got)
			}
			for _, pid := range left(t, folder, "child") {
				must.Gone(t, pid)
			}
		})
	}
}

// leaver is set where this program is to be one that leaves its process group for that
// of its parent, and goes on.
const leaver = "BE_LEAVER"

func init() {
	if os.Getenv(leaver) == "" {
		return
	}
	group, err := syscall.Getpgid(os.Getppid())
	if err == nil {
		err = syscall.Setpgid(0, group)
	}
	if err == nil {
		err = os.WriteFile(os.Getenv(leaver), []byte(strconv.Itoa(os.Getpid())), 0o600)
	}
	if err == nil {
		time.Sleep(10 * time.Minute)
	}
	os.Exit(1)
}

// A program that has left its process group is not waited for either.
func TestProgram_leavesItsGroup(t *testing.T) {
	t.Parallel()
	self := must.Get(os.Executable())(t)
	folder := t.TempDir()
	d := newTestWalk(t, func(s *control.Settings) {
		s.Protocols = []control.Protocol{{Service: "smtp", Program: self}}
		s.TimeoutRemote = 3 * time.Second // it must have left by then
	})
	d.carrier.Environ = append(os.Environ(), leaver+"="+filepath.Join(folder, "pid"))
	over := time.AfterFunc(time.Minute, func() { panic("it is waited for") })
	defer over.Stop()
	got := d.reach(t, 1)
	if !strings.HasPrefix(got, "ZConnected to 127.0.0.1 but the conversation took longer than 3 seconds") {
		t.Errorf("%q", got)
	}
	must.Gone(t, left(t, folder, "pid")[0])
}

// Whoever holds a pipe after the program's end holds nothing up.
func TestProgram_pipesHeld(t *testing.T) {
	t.Parallel()
	for _, script := range []string{
		`sleep 600 & echo $! >child; printf 'r\0Kok\0'`,
		`sleep 600 & echo $! >child; echo why >&2; exit 75`,
		`yes >&2 & echo $! >child; exit 75`,
		`yes & echo $! >child; exit 0`,
	} {
		d, folder := newChain(t, script, nil)
		began := time.Now()
		d.reach(t, 1)
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("%s: took %v", script, took)
		}
		child := must.Get(strconv.Atoi(left(t, folder, "child")[0]))(t)
		_ = syscall.Kill(child, syscall.SIGKILL)
	}
}

// A message from a pipe serves the programs that do not read of it, and the first
// that does.
func TestProgram_messageFromPipe(t *testing.T) {
	for _, test := range []struct {
		script string
		runs   int
		want   string
	}{
		{`test -s runs.2 || { echo x >runs.2; exit 75; }; printf 'r\0K'; tr -d '\n'; printf '\0'`, 2, `^r\|KSubject: xHello\.\|$`},
		{`head -c 1 >/dev/null; exit 75`, 1, `^ZConnected to 127.0.0.1 but connection died`},
	} {
		d, folder := newChain(t, "echo >>runs\n"+test.script, nil)
		d.mail.Message = transport.NewMessage(must.Flow(t, testMessage))
		got := d.reach(t, 2)
		runs, _ := os.ReadFile(filepath.Join(folder, "runs"))
		if !regexp.MustCompile(test.want).MatchString(got) || len(runs) != test.runs {
			t.Errorf("%q in %d runs", got, len(runs))
		}
	}
}

// A program that cannot be found or run is nobody's permanent failure, and the words lead
// to what is to be mended.
func TestProgram_notRunnable(t *testing.T) {
	d, folder := newChain(t, "", nil)
	for name, content := range map[string]string{
		"rubbish": "\x00\x01", "no-interpreter": "#!/nowhere/sh -e\n", "from-windows": "#!/bin/sh\r\nexit 0\r\n",
		"no-head": "echo hello\n", "odd-interpreter": "#! /\n", "empty": "",
	} {
		must.OK(t, os.WriteFile(filepath.Join(folder, name), []byte(content), 0o755))
	}
	_, addr := dialtest.Listen(t, "127.0.0.1:0")
	const neither = "neither a program for this machine nor a script that begins with #! and an interpreter"
	for program, words := range map[string]string{
		folder:                                   `" (control/protocols:7): it is a directory`,
		filepath.Join(folder, "none"):            `none" (control/protocols:7): no such file or directory`,
		filepath.Join(folder, "none s3cret"):     `none" and more behind it, where no arguments can be given (control/protocols:7): no such`,
		filepath.Join(folder, "rubbish"):         `rubbish" (control/protocols:7): it is ` + neither,
		filepath.Join(folder, "no-head"):         `no-head" (control/protocols:7): it is ` + neither,
		filepath.Join(folder, "empty"):           `empty" (control/protocols:7): it is ` + neither,
		filepath.Join(folder, "from-windows"):    `names the interpreter "/bin/sh\r", which is missing`,
		filepath.Join(folder, "no-interpreter"):  `no-interpreter" (control/protocols:7): its first line names the interpreter "/nowhere/sh", which is missing`,
		filepath.Join(folder, "odd-interpreter"): `its interpreter "/" cannot be run: permission denied`,
		"mxf-remote-nntpc":                       `mxf-remote-nntpc" (control/protocols:7): no such file`,
		"/dev/null":                              `"/dev/null" (control/protocols:7): it is not a regular file`,
	} {
		d.Settings.Protocols[0].Program, d.Settings.Protocols[0].Line = program, 7
		got := shown(d.through(t.Context(), []route.Candidate{d.candidate(addr)}))
		if !strings.HasPrefix(got, "ZUnable to run the protocol program: ") || !strings.Contains(got, "(#4.3.0)") ||
			!strings.Contains(got, words) || strings.Contains(got, "s3cret") {
			t.Errorf("%s: %q", program, got)
		}
	}
}

// A delivery leaves no descriptor behind, whatever came of it.
func TestProgram_nothingLeft(t *testing.T) {
	count := func() int {
		open, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Skip(err)
		}
		return len(open)
	}
	d, _ := newChain(t, `case $$ in *[02468]) exit 75;; *) printf 'r\0K\0';; esac`, nil)
	_, addr := dialtest.Listen(t, "127.0.0.1:0")
	away := dialtest.Refused(t)
	d.through(t.Context(), []route.Candidate{d.candidate(addr)})
	before := count()
	for range 20 {
		d.mail.Message = transport.NewMessage(d.job.Message)
		d.through(t.Context(), []route.Candidate{d.candidate(away), d.candidate(addr)})
	}
	if after := count(); after > before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}

// A program that is not there is left for the next candidate, and said in the end
// where there is none.
func TestProgram_missingGoesOn(t *testing.T) {
	d, _ := newChain(t, `cat >/dev/null; printf 'r\0Kdone\0'`, func(s *control.Settings) {
		s.Protocols = append(s.Protocols, control.Protocol{Service: "nntp", Program: "mxf-remote-nntpc"})
	})
	_, addr := dialtest.Listen(t, "127.0.0.1:0")
	missing := d.candidate(addr)
	missing.Protocol = &d.Settings.Protocols[1]
	if got := shown(d.through(t.Context(), []route.Candidate{missing, d.candidate(addr)})); got != "r|Kdone|" {
		t.Errorf("%q", got)
	}
}

// A delivery that is called off is not one that took too long.
func TestProgram_calledOff(t *testing.T) {
	t.Parallel()
	w, folder := newChain(t, "echo >running; sleep 600", nil)
	_, addr := dialtest.Listen(t, "127.0.0.1:0")
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer cancel()
		for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
			if _, err := os.Stat(filepath.Join(folder, "running")); err == nil {
				return
			}
		}
	}()
	got := shown(w.through(ctx, []route.Candidate{w.candidate(addr)}))
	if got != "ZInternal error: context canceled. (#4.3.5)|" {
		t.Errorf("%q", got)
	}
}

// A probe that nobody asked for has delivered nothing, whatever its letter is.
func TestProgram_wouldTake(t *testing.T) {
	w, _ := newChain(t, `printf 'r\0K127.0.0.1 would take the message.\nTLS: x\n\0'`, nil)
	if got := w.reach(t, 1); !strings.HasPrefix(got, "ZUnable to run the protocol program: ") || !strings.Contains(got, "for an option. (#4.3.0)") {
		t.Errorf("%q", got)
	}
}
