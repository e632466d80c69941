package rspawn

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/remote/rspawn/dialect"
	"nightmare.mail/mxf/remote/rspawn/wire"
)

// The test binary is a parent, or a worker, when it is told so.
func TestMain(m *testing.M) {
	if os.Args[0] == WorkerName {
		os.Exit(standIn())
	}
	if os.Getenv("RSPAWN_BE_PARENT") != "" {
		os.Exit(Run(Config{
			Home: os.Getenv("MXF_HOME"), Commands: 0, Answers: 1, Environ: os.Environ(),
			Delivers: os.Getenv("DELIVERS"), InPlace: os.Getenv("QMAILREMOTE"),
			Find: func(name string, _ []string) (string, error) { return exec.LookPath(name) },
			Now:  time.Now, Trace: traceTo(os.Getenv("TRACE")),
		}))
	}
	os.Exit(m.Run())
}

func traceTo(path string) func(string) {
	return func(line string) {
		if f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600); err == nil {
			_, _ = f.WriteString(line + "\n")
			f.Close()
		}
	}
}

// standIn is a worker that does with a delivery what the local part of its recipient says.
func standIn() int {
	if os.Getenv("WORKER") == "none" {
		return 7
	}
	w, err := wire.Inherited(WorkerSocket)
	if err != nil {
		return 3
	}
	if os.Getenv("WORKER") != "silent" {
		_ = w.Send(wire.Hello(wire.Version))
	}
	var counters wire.Counters
	held := make(map[uint64]bool) // whether the last byte is written
	for {
		c, err := w.Read()
		if err != nil {
			return 0
		}
		switch c := c.(type) {
		case wire.Order:
			counters.Transactions = 42
			if c == wire.Forget {
				counters.DNSAsked = 7
			}
			_ = w.Send(&counters)
			if c == wire.Stop {
				for id, last := range held {
					if last {
						_ = w.Send(wire.Answer{ID: id, Letter: 'K', Text: "after stop\n"})
					} else {
						_ = w.Send(wire.Dropped{ID: id})
					}
				}
				return 0
			}
		case *wire.Delivery:
			play(w, c, held)
		}
	}
}

func play(w *wire.Worker, d *wire.Delivery, held map[uint64]bool) {
	defer d.Message.Close()
	ids := []uint64{d.ID}
	switch what, _, _ := strings.Cut(d.Recipient, "@"); what {
	case "read":
		b, _ := io.ReadAll(d.Message)
		_ = w.Send(wire.Answer{ID: d.ID, Letter: 'K', Text: fmt.Sprintf("%s %s %s %s", d.Host, d.Sender, d.MessageID, b)})
	case "hang":
		_, _ = io.ReadAll(d.Message)
		held[d.ID] = false
	case "last":
		_ = w.Send(wire.LastByte{IDs: ids})
		held[d.ID] = true
	case "slow":
		go func() {
			_ = w.Send(wire.LastByte{IDs: ids})
			time.Sleep(20 * time.Millisecond)
			_ = w.Send(wire.Answer{ID: d.ID, Letter: 'K'})
		}()
	case "undo":
		_ = w.Send(wire.LastByte{IDs: ids}, wire.NotSent{IDs: ids})
		held[d.ID] = false
	case "say":
		_ = w.Send(wire.Answer{ID: d.ID, Letter: 'K', Text: "said\n"})
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	case "exit":
		os.Exit(2)
	case "kill":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	case "twice":
		_ = w.Send(wire.Answer{ID: d.ID, Letter: 'D', Text: "once\n"}, wire.Answer{ID: d.ID, Letter: 'K', Text: "twice\n"})
	case "hangup":
		w.Close()
		time.Sleep(time.Hour)
	}
}

// A caller plays qmail-send.
type caller struct {
	t        *testing.T
	home     string
	cmd      *exec.Cmd
	commands *os.File
	answers  *os.File
	width    dialect.Width

	mu  sync.Mutex
	got map[int][]string // by number
	end chan struct{}    // closed at the end of answers
}

// mess makes a home with messages 0/1 to 0/9.
func mess(t *testing.T, control map[string]string) string {
	t.Helper()
	home := must.Home(t, control)
	for n := 1; n <= 9; n++ {
		must.Write(t, filepath.Join(home, "queue/mess/0", fmt.Sprint(n)), fmt.Sprintf("message %d\n", n))
	}
	must.OK(t, os.MkdirAll(filepath.Join(home, "queue/lock"), 0o755))
	must.Script(t, filepath.Join(home, "remote"), `printf 'r\0Kprocess %s, %s, %s, %s\n\0' "$1" "$2" "$3" "$(cat)"`)
	return home
}

// call starts a parent.
func call(t *testing.T, home string, width dialect.Width, environ ...string) *caller {
	t.Helper()
	c := &caller{t: t, home: home, width: width, got: make(map[int][]string), end: make(chan struct{})}
	in, commands, err := os.Pipe()
	must.OK(t, err)
	answers, out, err := os.Pipe()
	must.OK(t, err)
	c.commands, c.answers = commands, answers
	c.cmd = exec.Command(must.Get(os.Executable())(t))
	c.cmd.Env = append([]string{"RSPAWN_BE_PARENT=1", "GORACE=atexit_sleep_ms=0", "PATH=" + os.Getenv("PATH"), "MXF_HOME=" + home,
		"DELIVERS=" + home + "/remote", "TRACE=" + home + "/trace"}, environ...)
	c.cmd.Stdin, c.cmd.Stdout = in, out
	must.OK(t, c.cmd.Start())
	in.Close()
	out.Close()
	t.Cleanup(func() {
		_ = c.cmd.Process.Kill()
		commands.Close()
		answers.Close()
	})
	return c
}

// limit reads the limit, and then all answers as they come.
func (c *caller) limit() int {
	c.t.Helper()
	b := make([]byte, c.width)
	must.Get(io.ReadFull(c.answers, b))(c.t)
	go c.listen()
	n := int(b[0])
	if c.width > 1 {
		n += int(b[1]) << 8
	}
	return n
}

func (c *caller) listen() {
	defer close(c.end)
	var rest []byte
	b := make([]byte, 1<<16)
	for {
		n, err := c.answers.Read(b)
		rest = append(rest, b[:n]...)
		c.mu.Lock()
		for {
			i := bytes.IndexByte(rest[min(len(rest), int(c.width)):], 0)
			if i < 0 {
				break
			}
			number := int(rest[0])
			if c.width > 1 {
				number += int(rest[1]) << 8
			}
			text := rest[c.width : int(c.width)+i]
			c.got[number] = append(c.got[number], string(text))
			rest = rest[int(c.width)+i+1:]
		}
		c.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (c *caller) say(number int, id, sender, recipient string) {
	c.t.Helper()
	b := append(c.width.Limit(number), id+"\x00"+sender+"\x00"+recipient+"\x00"...)
	must.Get(c.commands.Write(b))(c.t)
}

// want waits for the nth answer to a number, from 1.
func (c *caller) want(number, nth int, want string) {
	c.t.Helper()
	var got []string
	must.Until(c.t, fmt.Sprintf("answer %d to number %d", nth, number), func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		got = c.got[number]
		return len(got) >= nth
	})
	if got[nth-1] != want {
		c.t.Errorf("number %d: %q, want %q", number, got[nth-1], want)
	}
}

// ended waits for the end, and returns the exit status and how many answers there were.
func (c *caller) ended() (status, answers int) {
	c.t.Helper()
	must.Within(c.t, "end", func() { _ = c.cmd.Wait(); <-c.end })
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range c.got {
		answers += len(a)
	}
	return c.cmd.ProcessState.ExitCode(), answers
}

func (c *caller) wantEnd(answers int) {
	c.t.Helper()
	if status, n := c.ended(); status != 0 || n != answers {
		c.t.Errorf("status %d, %d answers, want %d", status, n, answers)
	}
}

func TestRun(t *testing.T) {
	linuxOnly(t)
	home := mess(t, nil)
	must.Write(t, home+"/queue/lock/tcpto", strings.Repeat("x", 1030))
	c := call(t, home, 1)
	if n := c.limit(); n != 255 {
		t.Errorf("limit %d", n)
	}
	if got := string(must.Get(os.ReadFile(home + "/queue/lock/tcpto"))(t)); got != strings.Repeat("\x00", 1024)+"xxxxxx" {
		t.Errorf("tcpto: %q", got)
	}
	if _, err := os.Stat(home + "/queue/lock/tcpto6"); err == nil {
		t.Error("a table was made")
	}
	for n := 1; n <= 9; n++ {
		c.say(n, fmt.Sprintf("0/%d", n), "s@example", "read@host.example")
	}
	for n := 1; n <= 9; n++ {
		c.want(n, 1, fmt.Sprintf("Khost.example s@example 0/%d message %d\n", n, n))
	}
	c.say(1, "0/1", "", "twice@h")
	c.want(1, 2, "Donce\n")
	c.say(200, "0/2", "", "hang@h")
	c.say(200, "0/1", "", "read@h")
	c.want(200, 1, "ZInternal error: delnum in use. (#4.3.5)\n")
	c.say(255, "0/1", "", "read@h")
	c.want(255, 1, "ZInternal error: delnum too big. (#4.3.5)\n")
	c.say(2, "0", "", "read@h")
	c.want(2, 2, "ZSorry, message has wrong type. (#4.3.5)\n")
	c.say(2, "0/10", "", "read@h")
	c.want(2, 3, "Zqmail-spawn unable to open message. (#4.3.0)\n")
	if os.Getuid() == 0 {
		must.OK(t, os.Chown(home+"/queue/mess/0/9", 1, 1))
		c.say(2, "0/9", "", "read@h")
		c.want(2, 4, "ZSorry, message has wrong owner. (#4.3.5)\n")
	}
	must.Get(c.commands.Write([]byte("\x030/1\x00\x00not whole")))(t)
	c.commands.Close()
	// The parent ends when the delivery that hangs has ended.
	select {
	case <-c.end:
		t.Error("the parent has ended before the last answer")
	case <-time.After(50 * time.Millisecond):
	}
	_ = syscall.Kill(c.worker(), syscall.SIGKILL)
	c.want(200, 2, "Kprocess h, , hang@h, message 2\n")
	if status, _ := c.ended(); status != 0 {
		t.Errorf("status %d", status)
	}
}

// worker returns the process ID of the worker.
func (c *caller) worker() int {
	c.t.Helper()
	pid := 0
	must.Until(c.t, "a worker", func() bool {
		list, _ := filepath.Glob("/proc/[0-9]*/stat")
		for _, path := range list {
			stat, _ := os.ReadFile(path)
			line, _ := os.ReadFile(filepath.Dir(path) + "/cmdline")
			var parent int
			_, rest, _ := strings.Cut(string(stat), ") ")
			_, _ = fmt.Sscanf(rest, "%1s %d", new(string), &parent)
			if parent == c.cmd.Process.Pid && strings.HasPrefix(string(line), WorkerName) {
				_, _ = fmt.Sscan(filepath.Base(filepath.Dir(path)), &pid)
				return true
			}
		}
		return false
	})
	return pid
}

func linuxOnly(t *testing.T) {
	if _, err := os.Stat("/proc/self/cmdline"); err != nil {
		t.Skip("processes are found in /proc")
	}
}

func TestWorkerCrashes(t *testing.T) {
	for _, test := range []struct{ how, said string }{
		{"exit", "exit status 2"}, {"kill", "signal killed"}, {"hangup", "signal killed"}} {
		c := call(t, mess(t, nil), 1)
		c.limit()
		c.say(1, "0/1", "s", "last@h")
		c.say(2, "0/2", "s", "hang@h")
		c.say(3, "0/3", "s", "undo@h")
		c.say(4, "0/4", "s", test.how+"@h")
		c.want(1, 1, "Zqmail-remote crashed.\nThe worker ended by "+test.said+", with 4 deliveries. Possible duplicate! (#4.3.0)\n")
		c.want(2, 1, "Kprocess h, s, hang@h, message 2\n")
		c.want(3, 1, "Kprocess h, s, undo@h, message 3\n")
		c.want(4, 1, "Kprocess h, s, "+test.how+"@h, message 4\n")
		// The messages are kept from the next worker; others are not.
		c.say(1, "0/1", "s", "read@h")
		c.want(1, 2, "Kprocess h, s, read@h, message 1\n")
		c.say(5, "0/5", "s", "read@h")
		c.want(5, 1, "Kh s 0/5 message 5\n")
		c.commands.Close()
		c.wantEnd(6)
		if trace := string(must.Get(os.ReadFile(c.home + "/trace"))(t)); !strings.Contains(trace, "worker ended: "+test.said+"\n") {
			t.Errorf("%q", trace)
		}
	}
}

// What a worker said before its end counts.
func TestSaidBeforeTheEnd(t *testing.T) {
	c := call(t, mess(t, nil), 1)
	c.limit()
	c.say(1, "0/1", "s", "say@h")
	c.want(1, 1, "Ksaid\n")
	c.commands.Close()
	c.wantEnd(1)
}

func TestNoWorker(t *testing.T) {
	c := call(t, mess(t, map[string]string{"delnumbytes": "2\n", "spawnlimit": "300\n"}), 2, "WORKER=none")
	if n := c.limit(); n != 300 {
		t.Errorf("limit %d", n)
	}
	for n := range 299 {
		c.say(n+1, "0/1", "s", "read@h")
	}
	for n := range 299 {
		c.want(n+1, 1, "Kprocess h, s, read@h, message 1\n")
	}
	must.Get(c.commands.Write([]byte("\xef\xbe\x00\x00\x00")))(t)
	c.commands.Close()
	c.wantEnd(299)
}

func TestProcesses(t *testing.T) {
	for _, test := range []struct{ script, want string }{
		{"kill -9 $$", "Zqmail-remote crashed.\n"},
		{"exit 100", "ZUnable to run qmail-remote.\n"},
		{"exit 0", "Zqmail-remote produced no output.\n"},
		{"printf K", "Zqmail-remote produced an incomplete report. (#4.3.0)\n"},
		{`printf 'hno\n\0DGiving up\n\0' >&2`, "Dno\nGiving up\n"},
		{`printf 'r\0K%s\0' "$0 $#"`, "K$0 3"},
		{`printf 'r\0K'; head -c 300000 /dev/zero | tr '\0' x; printf '\0'`, "Zqmail-remote produced an incomplete report. (#4.3.0)\n"},
		{`printf 'r\0K%s\0' "$(pwd)"`, "K$HOME/queue/mess"},
	} {
		home := mess(t, nil)
		must.Script(t, home+"/remote", test.script)
		c := call(t, home, 1, "QMAILREMOTE="+home+"/remote")
		c.limit()
		c.say(1, "0/1", "s", "read@h")
		want := strings.NewReplacer("$0", home+"/remote", "$HOME", must.Get(filepath.EvalSymlinks(home))(t)).Replace(test.want)
		c.want(1, 1, want)
		c.commands.Close()
		c.wantEnd(1)
	}
	c := call(t, mess(t, nil), 1, "QMAILREMOTE=there-is-no-such-program")
	c.limit()
	c.say(1, "0/1", "s", "read@h")
	c.want(1, 1, "ZUnable to run qmail-remote.\n")
}

// Neither a worker nor a process.
func TestNothingCanBeStarted(t *testing.T) {
	home := mess(t, nil)
	must.OK(t, os.Remove(home+"/remote"))
	c := call(t, home, 1, "WORKER=none")
	c.limit()
	c.say(1, "0/1", "s", "read@h")
	c.want(1, 1, "Zqmail-spawn unable to fork. (#4.3.0)\n")
}

func TestStart(t *testing.T) {
	home := mess(t, map[string]string{"delnumbytes": "3\n"})
	c := call(t, home, 1)
	if b, err := io.ReadAll(c.answers); len(b) > 0 || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	_ = c.cmd.Wait()
	if got := c.cmd.ProcessState.ExitCode(); got != 111 {
		t.Errorf("status %d", got)
	}
	c = call(t, t.TempDir(), 1)
	_ = c.cmd.Wait()
	if got := c.cmd.ProcessState.ExitCode(); got != 111 {
		t.Errorf("status %d", got)
	}
	c = call(t, mess(t, map[string]string{"spawnlimit": "256\n"}), 1)
	if n := c.limit(); n != 255 {
		t.Errorf("limit %d", n)
	}
	c.say(1, "0/1", "s", "read@h")
	c.want(1, 1, `ZUnable to read control files: control/spawnlimit:1: expected a whole number of deliveries from 1 to 255 (control/delnumbytes 2 allows more, if this qmail-send speaks it), found "256". (#4.3.0)`+"\n")
}

func TestStopped(t *testing.T) {
	for _, s := range []os.Signal{syscall.SIGTERM, syscall.SIGINT} {
		c := call(t, mess(t, nil), 1)
		c.limit()
		c.say(1, "0/1", "s", "hang@h")
		c.say(2, "0/2", "s", "last@h")
		c.say(3, "0/3", "s", "read@h")
		c.want(3, 1, "Kh s 0/3 message 3\n")
		must.OK(t, c.cmd.Process.Signal(s))
		c.want(2, 1, "Kafter stop\n")
		c.wantEnd(2)
	}
}

// Nobody reads the answers: this is seen at once, and nothing is left.
func TestNobodyReads(t *testing.T) {
	home := mess(t, nil)
	must.Script(t, home+"/remote", "echo $$ >"+home+"/pid; exec sleep 600")
	for _, environ := range []string{"WORKER=", "QMAILREMOTE=" + home + "/remote"} {
		c := call(t, home, 1, environ)
		must.Get(c.answers.Read(make([]byte, 1)))(t)
		c.say(1, "0/1", "s", "hang@h")
		if environ != "WORKER=" {
			must.Until(t, "a process", func() bool { b, _ := os.ReadFile(home + "/pid"); return len(b) > 1 })
		}
		c.answers.Close()
		must.Within(t, "end", func() { _ = c.cmd.Wait() })
		if got := c.cmd.ProcessState.ExitCode(); got != 0 {
			t.Errorf("status %d", got)
		}
	}
	must.Gone(t, strings.TrimSpace(string(must.Get(os.ReadFile(home+"/pid"))(t))))
}

// If the parent is killed nothing is left.
func TestParentKilled(t *testing.T) {
	linuxOnly(t)
	home := mess(t, nil)
	must.Script(t, home+"/remote", "echo $$ >"+home+"/pid; exec sleep 600")
	c := call(t, home, 1)
	c.limit()
	c.say(1, "0/1", "s", "hang@h")
	c.say(2, "0/2", "s", "kill@h")
	must.Until(t, "a process", func() bool { b, _ := os.ReadFile(home + "/pid"); return len(b) > 1 })
	worker := c.worker()
	must.OK(t, c.cmd.Process.Kill())
	must.Gone(t, fmt.Sprint(worker))
	must.Gone(t, strings.TrimSpace(string(must.Get(os.ReadFile(home+"/pid"))(t))))
}

func TestStatusFile(t *testing.T) {
	home := mess(t, nil)
	must.Write(t, home+"/control/statusfile", home+"/status\n")
	c := call(t, home, 1)
	c.limit()
	c.say(1, "0/1", "s", "read@h")
	c.want(1, 1, "Kh s 0/1 message 1\n")
	has := func(line string) {
		t.Helper()
		must.Until(t, line, func() bool {
			b, _ := os.ReadFile(home + "/status")
			return strings.Contains(string(b), "mxf_rspawn_"+line+"\n")
		})
	}
	must.OK(t, c.cmd.Process.Signal(syscall.SIGUSR1))
	has(`answers_total{letter="K"} 1`)
	has(`transactions_total 42`)
	must.OK(t, c.cmd.Process.Signal(syscall.SIGHUP), c.cmd.Process.Signal(syscall.SIGPIPE))
	must.Until(t, "the worker's answer to SIGHUP", func() bool {
		_ = c.cmd.Process.Signal(syscall.SIGUSR1)
		b, _ := os.ReadFile(home + "/status")
		return strings.Contains(string(b), `dns_total{how="asked"} 7`)
	})
	c.say(1, "0/1", "s", "say@h")
	c.want(1, 2, "Ksaid\n")
	c.commands.Close()
	c.wantEnd(2)
	has(`dns_total{how="asked"} 7`) // of the worker that has ended
}

// Programs get the soft limit of open files that this one was started with.
func TestSoftLimit(t *testing.T) {
	home := mess(t, nil)
	must.Script(t, home+"/remote", `printf 'r\0K%s\0' "$(ulimit -S -n)"`)
	var was unix.Rlimit
	must.OK(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &was))
	if was.Max < 800 {
		t.Skip("the hard limit is low")
	}
	limit := was
	limit.Cur = 777
	must.OK(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit))
	c := call(t, home, 1, "QMAILREMOTE="+home+"/remote")
	must.OK(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &was))
	c.limit()
	c.say(1, "0/1", "s", "read@h")
	c.want(1, 1, "K777")
}

// The threads are there before they are needed: processes may be scarce then.
func TestThreads(t *testing.T) {
	linuxOnly(t)
	c := call(t, mess(t, nil), 1)
	c.limit()
	if list := must.Get(os.ReadDir(fmt.Sprintf("/proc/%d/task", c.cmd.Process.Pid)))(t); len(list) < threads {
		t.Errorf("%d threads, want %d or more", len(list), threads)
	}
}

func TestBounded(t *testing.T) {
	for _, c := range []struct {
		limit int
		files uint64
		want  int
	}{{255, 1 << 20, 255}, {12000, 1<<63 - 1, 12000}, {255, 464, 100}, {255, 67, 1}, {255, 60, 1}, {255, 0, 1}} {
		if got := bounded(c.limit, c.files); got != c.want {
			t.Errorf("%d, %d: %d, want %d", c.limit, c.files, got, c.want)
		}
	}
}

// Answers wait for who does not read, and then so do commands.
func TestOutput(t *testing.T) {
	r, w := must.Pipe(t)
	o := newOutput(int(w.Fd()), 1, 4)
	o.take(3)
	if !o.inUse(3) || o.inUse(2) {
		t.Error("number 3 is taken")
	}
	o.answer(3, dialect.Answer{Letter: 'K', Text: strings.Repeat("x", 9000)})
	if !o.inUse(3) {
		t.Error("nothing is written yet")
	}
	for range 200 {
		o.refuse(1, dialect.Answer{Letter: 'Z', Text: strings.Repeat("y", 9000)})
	}
	roomy, over := make(chan bool, 1), make(chan bool, 1)
	go func() { roomy <- o.room() }()
	select {
	case <-roomy:
		t.Error("there is no room")
	case <-time.After(20 * time.Millisecond):
	}
	o.close()
	go func() { over <- o.run(); w.Close() }()
	all := must.Get(io.ReadAll(r))(t)
	if len(all) != 201*9003 || !<-over || !<-roomy || o.inUse(3) || o.answers('Z') != 200 {
		t.Errorf("%d bytes", len(all))
	}
	closed, writing := must.Pipe(t)
	closed.Close()
	o = newOutput(int(writing.Fd()), 1, 4)
	must.Within(t, "nobody", func() { awaitNobody(o.fd) })
	o.refuse(1, dialect.Answer{Letter: 'K'})
	if o.run() || o.room() || !errors.Is(writeAll(o.fd, []byte("x")), unix.EPIPE) {
		t.Error("nobody reads")
	}
}

// Whatever befalls the workers, each command gets one answer.
func TestOneAnswerEach(t *testing.T) {
	const slots, each = 60, 12
	home := mess(t, nil)
	must.Script(t, home+"/remote", `printf 'r\0Kprocess\n\0'`)
	c := call(t, home, 1)
	c.limit()
	whats := []string{"read", "slow", "slow", "twice", "slow", "say", "read", "exit", "slow", "kill"}
	for round := range each {
		for n := range slots {
			c.say(n, fmt.Sprintf("0/%d", (n*7+round)%9+1), "s", whats[(n+3*round)%len(whats)]+"@h")
		}
		for n := range slots {
			must.Until(t, "an answer", func() bool {
				c.mu.Lock()
				defer c.mu.Unlock()
				return len(c.got[n]) > round
			})
		}
	}
	c.commands.Close()
	c.wantEnd(slots * each)
}
