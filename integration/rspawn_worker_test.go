package integration

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"nightmare.mail/mxf/integration/lab"
	"nightmare.mail/mxf/integration/must"
)

// Tests of the section "The worker". A server stalls where a delivery is to be when the worker
// ends; Times lets the next connection through.

// stalls is a server that keeps its first so many connections waiting at a step.
func stalls(step lab.Step, times int) lab.SMTP {
	return lab.SMTP{Faults: lab.Faults{step: {Stall: true, Times: times}}}
}

func TestRspawn_oneWorker(t *testing.T) {
	s := newStation(t)
	server := s.serve("example.org", stalls(lab.MAIL, 1))
	p := s.start(s.part())
	worker := must.Get(p.AwaitWorker(s.ctx, 0))(t)
	for range 5 {
		s.begin(p, "b@example.org")
	}
	s.connected(server, 1, "MAIL")
	must.Until(t, "four answers", func() bool { return p.Answers() == 4 })
	if others, workers := p.Others(), p.Workers(); len(others) != 0 || len(workers) != 1 || workers[0] != worker {
		t.Errorf("workers %v, others %v", workers, others)
	}
	must.OK(t, p.Signal(syscall.SIGTERM), p.Signal(syscall.SIGTERM))
	s.ends(p, 0)
}

// ps(1) and kill(1) know the worker by its name.
func TestRspawn_workerName(t *testing.T) {
	s := newStation(t)
	p := s.play(s.part())
	worker := must.Get(p.AwaitWorker(s.ctx, 0))(t)
	path := filepath.Join("/proc", itoa(worker), "comm")
	if _, err := os.Stat(path); err != nil {
		t.Skip("the system does not say it")
	}
	must.Until(t, "the name", func() bool {
		name, _ := os.ReadFile(path)
		return string(name) == "mxf-rspawn-work\n" // Linux keeps 15 bytes
	})
}

// A delivery that had not begun to write its last byte begins anew in a process of its own; one that
// had is answered.
func TestRspawn_workerKilled(t *testing.T) {
	for _, step := range []lab.Step{lab.Greeting, lab.EHLO, lab.STARTTLS, lab.Handshake, lab.AgainEHLO, lab.MAIL, lab.RCPT, lab.DATA} {
		t.Run(string(step), func(t *testing.T) {
			s := newStation(t)
			server := s.secure("example.org", stalls(step, 1))
			p := s.play(s.part())
			c := s.begin(p, "b@example.org")
			must.Until(t, "a connection", func() bool { return len(s.sessions(server)) == 1 })
			if step != lab.Greeting {
				s.connected(server, 1, map[lab.Step]string{lab.EHLO: "EHLO", lab.STARTTLS: "STARTTLS", lab.Handshake: "STARTTLS", lab.AgainEHLO: "TLS EHLO",
					lab.MAIL: "TLS MAIL", lab.RCPT: "TLS RCPT", lab.DATA: "TLS DATA"}[step])
			}
			first := must.Get(p.SignalWorker(syscall.SIGKILL))(t)
			s.accepted(s.answer(c))
			s.arrived("b@example.org", 1)
			// Another worker takes deliveries soon.
			begin := time.Now()
			must.Get(p.AwaitWorker(s.ctx, first))(t)
			s.accepted(s.deliver(p, "c@example.org"))
			t.Logf("another worker delivered after %v", time.Since(begin))
		})
	}
}

func TestRspawn_workerKilledAfterLastByte(t *testing.T) {
	for _, n := range []string{"1 delivery", "3 deliveries"} {
		t.Run(n, func(t *testing.T) {
			s := newStation(t)
			after := s.serve("after.example", stalls(lab.End, 1))
			before := s.serve("before.example", stalls(lab.MAIL, 2))
			p := s.play(s.part())
			c := s.begin(p, "b@after.example")
			s.connected(after, 1, "DATA")
			must.Until(t, "the message", func() bool { return len(s.Inbox.Messages()) == 1 })
			var others []*lab.Call
			if n != "1 delivery" {
				others = append(others, s.begin(p, "b@before.example"), s.begin(p, "c@before.example"))
				s.connected(before, 2, "MAIL")
			}
			must.Get(p.SignalWorker(syscall.SIGKILL))(t)
			want := "qmail-remote crashed.\nThe worker ended by signal killed, with " + n + ". Possible duplicate! (#4.3.0)"
			if a := s.answer(c); a.Letter != 'Z' || strings.TrimSuffix(a.Text, "\n") != want {
				t.Errorf("it was answered %v, want %q", a, want)
			}
			for _, c := range others {
				s.accepted(s.answer(c))
			}
			s.arrived("b@after.example", 1)
		})
	}
}

// What the worker had said before its end counts: no answer is lost, and none comes twice.
func TestRspawn_workerKilledBetweenAnswers(t *testing.T) {
	s := newStation(t)
	s.serve("example.org", lab.SMTP{})
	part := s.part()
	part.Slots = 20
	p := s.play(part)
	var jobs []lab.Job
	for range 200 {
		jobs = append(jobs, lab.Job{Messid: s.message(), Sender: "a@example.net", Recipients: []string{s.mailbox()}})
	}
	killed := false
	must.OK(t, p.Jobs(s.ctx, jobs, func(job *lab.Job, recipient string, a lab.Answer) {
		if p.Answers() > 100 && !killed {
			killed = true
			must.Get(p.SignalWorker(syscall.SIGKILL))(t)
		}
		if a.Letter != 'K' && !strings.Contains(a.Text, "Possible duplicate!") {
			t.Errorf("%s: %v", recipient, a)
		}
		if n := s.arrivals()[recipient]; n > 1 || n == 0 && a.Letter == 'K' {
			t.Errorf("%s: it was answered %c and has arrived %d times", recipient, a.Letter, n)
		}
	}))
}

// The end of a worker is described as it was.
func TestRspawn_workerExits(t *testing.T) {
	s := newStation(t)
	s.serve("example.org", stalls(lab.End, 1))
	p := s.play(s.part())
	c := s.begin(p, "b@example.org")
	must.Until(t, "the message", func() bool { return len(s.Inbox.Messages()) == 1 })
	must.Get(p.SignalWorker(syscall.SIGABRT))(t)
	a := s.answer(c)
	if !regexp.MustCompile(`^qmail-remote crashed\.\nThe worker ended by (signal \w+|exit status \d+), with 1 delivery\. Possible duplicate! \(#4\.3\.0\)\n?$`).MatchString(a.Text) {
		t.Errorf("it was answered %v", a)
	}
}

// A message that was in a worker when it ended is delivered by processes of its own. Others are
// not.
func TestRspawn_quarantine(t *testing.T) {
	s := newStation(t)
	server := s.serve("example.org", stalls(lab.MAIL, 1))
	later := s.serve("later.example", lab.SMTP{Faults: lab.Faults{lab.Greeting: {Delay: loadPause}}})
	p := s.play(s.part())
	poison := s.message()
	c := must.Get(p.Begin(s.ctx, poison, "", "b@example.org"))(t)
	s.connected(server, 1, "MAIL")
	first := must.Get(p.SignalWorker(syscall.SIGKILL))(t)
	s.accepted(s.answer(c))
	must.Get(p.AwaitWorker(s.ctx, first))(t)
	for _, x := range []struct {
		messid string
		alone  bool
	}{{poison, true}, {s.message(), false}, {poison, true}} {
		n := len(s.sessions(later))
		c := must.Get(p.Begin(s.ctx, x.messid, "", s.mailboxAt("later.example")))(t)
		must.Until(t, "a connection", func() bool { return len(s.sessions(later)) > n || c.Answered() })
		if alone := runs(p.Others(), "mxf-remote"); !c.Answered() && alone != x.alone {
			t.Errorf("message %s in a process of its own: %v", x.messid, alone)
		}
		s.accepted(s.answer(c))
	}
}

// After three ends within a minute all deliveries are processes of their own.
func TestRspawn_threeEnds(t *testing.T) {
	s := newStation(t)
	server := s.serve("example.org", lab.SMTP{Faults: lab.Faults{lab.Greeting: {Delay: loadPause}}})
	p := s.play(s.part())
	last := 0
	for range 3 {
		last = must.Get(p.AwaitWorker(s.ctx, last))(t)
		must.OK(t, syscall.Kill(last, syscall.SIGKILL))
	}
	must.Gone(t, itoa(last))
	var calls []*lab.Call
	for range 30 {
		calls = append(calls, s.begin(p, s.mailbox()))
	}
	must.Until(t, "connections", func() bool { return len(s.sessions(server)) > 0 })
	if !runs(p.Others(), "mxf-remote") || p.Worker() != 0 {
		t.Errorf("workers %v, others %v", p.Workers(), p.Others())
	}
	if n := len(p.Others()); n > 20 {
		t.Errorf("%d processes of deliveries at a time", n)
	}
	for _, c := range calls {
		s.accepted(s.answer(c))
	}
}

// A worker that gives no sign of life for a minute is killed.
func TestRspawn_workerHangs(t *testing.T) {
	t.Parallel()
	s := newStation(t)
	server := s.serve("example.org", stalls(lab.MAIL, 1))
	p := s.play(s.part())
	c := s.begin(p, "b@example.org")
	s.connected(server, 1, "MAIL")
	begin := time.Now()
	first := must.Get(p.SignalWorker(syscall.SIGSTOP))(t)
	s.accepted(s.answer(c))
	if took := time.Since(begin); took < 50*time.Second || took > 100*time.Second {
		t.Errorf("it was noticed after %v", took)
	}
	must.Gone(t, itoa(first))
	s.accepted(s.deliver(p, "c@example.org"))
}

// When the parent is killed nothing is left: no worker, no program, no connection.
func TestRspawn_parentKilled(t *testing.T) {
	s := newStation(t)
	server := s.serve("example.org", stalls(lab.MAIL, 9))
	p := s.start(s.part())
	s.begin(p, "b@example.org")
	s.connected(server, 1, "MAIL")
	must.OK(t, p.Signal(syscall.SIGKILL))
	begin := time.Now()
	must.Until(t, "the end of all processes", func() bool { return len(p.Processes()) == 0 })
	t.Logf("nothing is left after %v", time.Since(begin))
	must.Until(t, "the end of the connection", func() bool { return s.sessions(server)[0].Over() })
	s.ends(p, -1)
	s.arrived("b@example.org", 0)
}

// So is a program that a control file names, and its children.
func TestRspawn_parentKilledProgram(t *testing.T) {
	s := newStation(t)
	s.serve("example.org", lab.SMTP{})
	client := s.Home.Path("bin/client")
	must.Script(t, client, "sleep 1000; exit 1")
	must.OK(t, s.Home.Set("protocols", "smtp:"+itoa(int(s.Port("smtp")))+":0:N:N:"+client))
	p := s.start(s.part())
	s.begin(p, "b@example.org")
	must.Until(t, "the program", func() bool { return runs(p.Others(), "sleep") })
	must.OK(t, p.Signal(syscall.SIGKILL))
	s.ends(p, -1)
}

// A program in the place of mxf-remote runs as qmail-rspawn runs qmail-remote.
func TestRspawn_qmailremote(t *testing.T) {
	s := newStation(t)
	folder := t.TempDir()
	tool := filepath.Join(folder, "my-remote")
	must.Script(t, tool, `read line; read line
printf 'r\0K%s|%s|%s|%s|%s|%s|' "$#" "$1" "$2" "$3" "$line" "$(pwd)"
[ /dev/fd/1 -ef /dev/fd/2 ] && printf same >&2; printf '\n\0'`)
	for _, name := range []string{tool, "my-remote"} {
		part := s.part("QMAILREMOTE="+name, "PATH="+folder+":"+os.Getenv("PATH"))
		p := s.play(part)
		want := "3|example.org|a@example.net|b@example.org|Subject: test|" + s.Home.Path("queue/mess") + "|same\n"
		if a := s.deliver(p, "b@example.org"); a.Letter != 'K' || a.Text != want {
			t.Errorf("%s: it was answered %v, want %q", name, a, want)
		}
		if workers := p.Workers(); len(workers) != 0 {
			t.Errorf("there is a worker")
		}
	}
}

// An empty $QMAILREMOTE is none.
func TestRspawn_qmailremoteEmpty(t *testing.T) {
	s := newStation(t)
	s.serve("example.org", lab.SMTP{})
	p := s.play(s.part("QMAILREMOTE="))
	must.Get(p.AwaitWorker(s.ctx, 0))(t)
	s.accepted(s.deliver(p, "b@example.org"))
}

func TestRspawn_processEnds(t *testing.T) {
	s := newStation(t)
	tool := filepath.Join(t.TempDir(), "remote")
	must.Script(t, tool, `case $2 in
kill) printf 'r\0Kok\n\0'; kill -9 $$;;
*) exit "$2";;
esac`)
	p := s.play(s.part("QMAILREMOTE=" + tool))
	for sender, want := range map[string]string{
		"kill": "Zqmail-remote crashed.", "111": "ZUnable to run qmail-remote.", "100": "ZUnable to run qmail-remote.", "1": "ZUnable to run qmail-remote.",
		"0": "Zqmail-remote produced no output.",
	} {
		a := must.Get(p.Deliver(s.ctx, s.message(), sender, "b@example.org"))(t)
		if got := string(a.Letter) + strings.TrimSuffix(a.Text, "\n"); got != want {
			t.Errorf("%s: it was answered %q, want %q", sender, got, want)
		}
	}
}

// A program that is not there: the answer says so, and never bounces.
func TestRspawn_qmailremoteMissing(t *testing.T) {
	s := newStation(t)
	for _, name := range []string{"no-such-program", s.Home.Path("bin/nothing")} {
		p := s.play(s.part("QMAILREMOTE=" + name))
		if a := s.deliver(p, "b@example.org"); a.Letter != 'Z' {
			t.Errorf("%s: it was answered %v", name, a)
		}
	}
}
