package remote

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/remote/report"
)

// newChain returns a delivery whose only protocol is spoken by a shell script, and
// the script's folder, which is its home.
func newChain(t *testing.T, script string, change func(*control.Settings)) (*delivery, string) {
	t.Helper()
	folder := t.TempDir()
	program := filepath.Join(folder, "client")
	if err := os.WriteFile(program, []byte("#!/bin/sh\ncd '"+folder+"'\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	d := newDelivery(t, func(s *control.Settings) {
		s.Protocols = []control.Protocol{{Service: "smtp", Program: program}}
		if change != nil {
			change(s)
		}
	})
	return d, folder
}

// said is a stream as a log would show it.
func shown(s report.Stream) string {
	return strings.NewReplacer("\n\x00", "|", "\x00", "|").Replace(string(s.Bytes()))
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
			_, one := listen(t, "127.0.0.1:0")
			_, two := listen(t, "127.0.0.1:0")
			began := time.Now()
			got := shown(d.run(t.Context(), []Candidate{d.candidate(one), d.candidate(two)}))
			if !regexp.MustCompile(test.want).MatchString(got) {
				t.Errorf("%.2000q", got)
			}
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("took %v", took)
			}
			if runs, _ := os.ReadFile(filepath.Join(folder, "runs")); len(runs) != test.runs {
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
		_, addr := listen(t, "127.0.0.1:0")
		got := shown(d.run(t.Context(), []Candidate{d.candidate(addr)}))
		if !regexp.MustCompile(`^Z.*` + test.want).MatchString(got) {
			t.Errorf("%d %q: %q", test.code, test.words, got)
		}
		runs, _ := os.ReadFile(filepath.Join(folder, "runs"))
		if got := strings.Join(strings.Fields(string(runs)), " "); got != test.runs {
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
		s.TLSStrictness = firm
	})
	d.Settings.ClientCert, d.Settings.ClientKey = "/cert", "/key" // nobody here reads them
	d.Environ = []string{"PATH=" + os.Getenv("PATH"), "TCPREMOTEINFO=x", "TLS_UID=1", "TLS_GID=1", "CAFILE=x", "CADIR=x", "SSLCTLFD=9",
		"SSL_PROTOCOL=x", "PROTO=UDP", "KEEP=a=b", "CERTFILE:x=y", "MXF_TLS=none"}
	_, addr := listen(t, "127.0.0.1:0")
	d.connector.timeout = time.Minute
	if got := shown(d.run(t.Context(), []Candidate{d.candidate(addr)})); got != "r|K|" {
		t.Fatalf("%q", got)
	}
	read := func(name string) []string {
		text, err := os.ReadFile(filepath.Join(folder, name))
		if err != nil {
			t.Fatal(err)
		}
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
			_, addr := listen(t, "127.0.0.1:0")
			began := time.Now()
			got := shown(d.run(t.Context(), []Candidate{d.candidate(addr), d.candidate(addr)}))
			if took := time.Since(began); took < fuse || took > fuse+30*time.Second {
				t.Errorf("took %v", took)
			}
			if want := "ZConnected to 127.0.0.1 but the conversation took longer than 0 seconds. (#4.4.2)|"; got != want {
				t.Errorf("%.200q", got)
			}
			child, err := os.ReadFile(filepath.Join(folder, "child"))
			if err != nil {
				t.Error(err)
			}
			if pid := strings.TrimSpace(string(child)); pid != "" {
				gone(t, pid)
			}
		})
	}
}

// gone waits for a process to end.
func gone(t *testing.T, pid string) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		stat, err := os.ReadFile("/proc/" + pid + "/stat")
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return
		}
	}
	t.Errorf("process %s is still there", pid)
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
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	pid := filepath.Join(t.TempDir(), "pid")
	d := newDelivery(t, func(s *control.Settings) {
		s.Protocols = []control.Protocol{{Service: "smtp", Program: self}}
		s.TimeoutRemote = 3 * time.Second // it must have left by then
	})
	d.Environ = append(os.Environ(), leaver+"="+pid)
	_, addr := listen(t, "127.0.0.1:0")
	over := time.AfterFunc(time.Minute, func() { panic("it is waited for") })
	defer over.Stop()
	got := shown(d.run(t.Context(), []Candidate{d.candidate(addr)}))
	if !strings.HasPrefix(got, "ZConnected to 127.0.0.1 but the conversation took longer than 3 seconds") {
		t.Errorf("%q", got)
	}
	left, err := os.ReadFile(pid)
	if err != nil {
		t.Fatal(err)
	}
	gone(t, string(left))
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
		_, addr := listen(t, "127.0.0.1:0")
		began := time.Now()
		d.run(t.Context(), []Candidate{d.candidate(addr)})
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("%s: took %v", script, took)
		}
		child, err := os.ReadFile(filepath.Join(folder, "child"))
		if err != nil {
			t.Fatal(err)
		}
		if p, err := os.FindProcess(atoi(string(child))); err == nil {
			_ = p.Kill()
		}
	}
}

func atoi(text string) (n int) {
	_, _ = fmt.Sscan(text, &n)
	return n
}

// On a machine so busy that the time for reading is over before it began, what is
// in the pipe counts all the same: a message that was delivered must not be sent
// again.
func TestResult_reportsAreReadLate(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	e, we, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	defer we.Close()
	_, _ = w.WriteString("r\x00Kok\x00")
	_, _ = we.WriteString("why")
	self, err := os.StartProcess("/bin/true", []string{"true"}, &os.ProcAttr{})
	if err != nil {
		t.Skip(err)
	}
	// No reader runs: it has met its deadline.
	p := &process{Process: self, printed: printed{reports: report.Parser{Recipients: 1}}, stdout: r, stderr: e, complete: make(chan struct{})}
	if stream, err := p.result(t.Context(), 0); err != nil || shown(stream) != "r|Kok|" || string(p.said) != "why" {
		t.Errorf("%q, %v, %q", shown(stream), err, p.said)
	}
}

// However it is cut, what is kept is the same.
func TestPrinted(t *testing.T) {
	long := strings.Repeat("x", 3*maxReport)
	for _, test := range []struct {
		in, want string // want is the stream, or in the error
		complete bool
	}{
		{"r\x00Kok\x00", "r|Kok|", true},
		{"r\x00Kok\x00Zand more\x00", "r|Kok|", true},
		{"Kok\x00", "r|Kok|", true},
		{"r\x00K" + long + "\x00", "r|K" + long[:maxReport-1] + "|", true},
		{"h" + long + "\x00Dno\x00", "h" + long[:maxReport-1] + "|Dno|", true},
		{"", "incomplete reports", false},
		{"hello\n", `incomplete reports: no zero byte ends "hello\n"`, false},
		{"r\x00Kok", `incomplete reports: no zero byte ends "Kok"`, false},
		{long, `ends "` + long[:maxQuoted] + `"`, false},
		{"goodbye\n\x00", `"goodbye\n" is not a report`, false},
		{long + "\x00", `"` + long[:maxQuoted] + `" is not a report`, false},
		{"r\x00r\x00Kok\x00", "more recipient reports than the 1 recipients", false},
		{strings.Repeat("\x00", 5*maxReport), "a report without a letter", false},
	} {
		for _, step := range []int{1, 7, maxReport, max(1, len(test.in))} {
			p := printed{reports: report.Parser{Recipients: 1}}
			complete := false
			for b := range slices.Chunk([]byte(test.in), step) {
				p.add(b)
				if complete && !p.complete() {
					t.Errorf("%.20q by %d: no longer complete", test.in, step)
				}
				complete = p.complete()
			}
			stream, err := p.stream()
			if complete != test.complete || (err == nil) != test.complete ||
				err == nil && shown(stream) != test.want || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("%.20q by %d: %.30q, %.300v", test.in, step, shown(stream), err)
			}
			if p.nothing() != (test.in == "") || cap(p.bytes) > 4*maxReport {
				t.Errorf("%.20q by %d: nothing %v, %d bytes kept", test.in, step, p.nothing(), cap(p.bytes))
			}
		}
	}
}

// What is kept of a thousand long reports has a bound, and every one of them counts.
func TestPrinted_bound(t *testing.T) {
	const recipients = 1000
	p := printed{reports: report.Parser{Recipients: recipients}}
	long := []byte("s" + strings.Repeat("x", maxReport) + "\x00")
	for range recipients {
		p.add(long)
	}
	p.add([]byte("Zlater\x00"))
	stream, err := p.stream()
	if err != nil || len(stream.Recipients) != recipients || stream.Message.Text != "later" {
		t.Errorf("%d reports, %q, %v", len(stream.Recipients), stream.Message.Text, err)
	}
	if n := len(stream.Bytes()); n > maxReports+maxReport+recipients*(fewReport+10) {
		t.Errorf("%d bytes are kept", n)
	}
}

// Each report is read once, however many there are and in however small pieces they come.
func TestPrinted_manyReports(t *testing.T) {
	const recipients = 20_000
	p := printed{reports: report.Parser{Recipients: recipients}}
	refusal := []byte("h127.0.0.1 does not like recipient.\nRemote host said: 550 no such user\n\x00")
	add := func() {
		for piece := range slices.Chunk(refusal, 16) {
			p.add(piece)
			_ = p.complete()
		}
	}
	const measured = 100
	for range recipients - measured - 1 {
		add()
	}
	// What is read again is allocated again: nothing but the new report is.
	if n := testing.AllocsPerRun(measured, add); n > 5 {
		t.Errorf("%v allocations for a report", n)
	}
	p.add([]byte("Dgone\n\x00"))
	if stream, err := p.stream(); err != nil || len(stream.Recipients) != recipients {
		t.Errorf("%d reports, %v", len(stream.Recipients), err)
	}
}

func TestSaid(t *testing.T) {
	var s said
	s.add([]byte("begin"))
	for range 100 {
		s.add(bytes.Repeat([]byte{'x'}, maxStderr))
	}
	s.add([]byte("end"))
	if len(s) != maxStderr || !bytes.HasPrefix(s, []byte("beginx")) || !bytes.HasSuffix(s, []byte("xend")) {
		t.Errorf("%d bytes, %q...%q", len(s), s[:10], s[len(s)-10:])
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
		d.message = newSource(pipeWith(t, testMessage))
		_, one := listen(t, "127.0.0.1:0")
		_, two := listen(t, "127.0.0.1:0")
		got := shown(d.run(t.Context(), []Candidate{d.candidate(one), d.candidate(two)}))
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
		if err := os.WriteFile(filepath.Join(folder, name), []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	_, addr := listen(t, "127.0.0.1:0")
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
		got := shown(d.run(t.Context(), []Candidate{d.candidate(addr)}))
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
	_, addr := listen(t, "127.0.0.1:0")
	away := refused(t)
	d.run(t.Context(), []Candidate{d.candidate(addr)})
	before := count()
	for range 20 {
		d.message = newSource(d.job.Message)
		d.run(t.Context(), []Candidate{d.candidate(away), d.candidate(addr)})
	}
	if after := count(); after > before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}

// A thousand deliveries, a hundred at a time, to a domain whose first exchanger is
// dead cost the first few time-outs only. The clock runs fast: a time-out takes
// two minutes, so that the hundred that are under way count once.
func TestDeadHosts_thousandDeliveries(t *testing.T) {
	t.Parallel()
	const deliveries, atATime, timeout = 1000, 100, 200 * time.Millisecond
	dead := silent(t)
	shared, _ := newDead(t, make([]byte, 1024))
	began := time.Now()
	now := func() time.Time { return began.Add(time.Since(began) * (deadDebounce * time.Second / timeout)) }
	var timeouts, asked atomic.Int32
	slots := make(chan struct{}, atATime)
	for n := range deliveries {
		slots <- struct{}{}
		go func() {
			defer func() { <-slots }()
			c := &connector{
				timeout: timeout,
				dead:    &deadHosts{folder: shared.folder, pid: n, now: now},
				trace:   func(string, ...any) {},
			}
			if c.dead.dead(dead.Addr()) {
				return
			}
			asked.Add(1)
			conn, failures := c.connect(t.Context(), []netip.AddrPort{dead}, plenty, false)
			if conn != nil {
				conn.Close()
			}
			if len(failures) == 1 && strings.HasPrefix(failures[0].err.Error(), "no answer") {
				timeouts.Add(1)
			}
		}()
	}
	for range atATime {
		slots <- struct{}{}
	}
	if n := timeouts.Load(); n > 4*atATime || n < atATime {
		t.Errorf("%d of %d deliveries waited for the dead exchanger", n, deliveries)
	}
	if timeouts.Load() != asked.Load() {
		t.Errorf("%d time-outs of %d", timeouts.Load(), asked.Load())
	}
}

// A table that stays locked costs one wait, not one for each address.
func TestDeadHosts_stuckLock(t *testing.T) {
	t.Parallel()
	d, _ := newDead(t, make([]byte, 1024))
	f, err := os.OpenFile(filepath.Join(d.folder, "tcpto"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if !lock(f) {
		t.Fatal(errors.New("cannot lock"))
	}
	began := time.Now()
	for range 20 {
		d.timedOut(host4)
		if d.dead(host4) {
			t.Error("dead by a table that cannot be read")
		}
	}
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("took %v", took)
	}
}

// A program that is not there is left for the next candidate, and said in the end
// where there is none.
func TestProgram_missingGoesOn(t *testing.T) {
	d, _ := newChain(t, `cat >/dev/null; printf 'r\0Kdone\0'`, func(s *control.Settings) {
		s.Protocols = append(s.Protocols, control.Protocol{Service: "nntp", Program: "mxf-remote-nntpc"})
	})
	_, addr := listen(t, "127.0.0.1:0")
	missing := d.candidate(addr)
	missing.Protocol = &d.Settings.Protocols[1]
	if got := shown(d.run(t.Context(), []Candidate{missing, d.candidate(addr)})); got != "r|Kdone|" {
		t.Errorf("%q", got)
	}
}

// A script in the place of a bundled program is run; the program itself is called.
func TestOwnProcess_script(t *testing.T) {
	d, _ := newChain(t, "", nil)
	protocol := &control.Protocol{Service: "smtp", Program: smtpProgram}
	place := filepath.Join(d.Programs, smtpProgram)
	for _, test := range []struct {
		content string
		want    bool
	}{{"", true}, {"\x7fELF", true}, {"#!/bin/sh\n", false}} {
		os.Remove(place)
		if test.content != "" {
			if err := os.WriteFile(place, []byte(test.content), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if got := d.ownProcess(protocol); got != test.want {
			t.Errorf("%q: in this process: %v", test.content, got)
		}
	}
}
