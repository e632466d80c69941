package integration

import (
	"bytes"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"nightmare.mail/mxf/integration/lab"
	"nightmare.mail/mxf/integration/must"
)

// Tests of the sections "The end" and "What can be seen of it".

// When 0 ends, deliveries go on and are answered.
func TestRspawn_endOfCommands(t *testing.T) {
	s := newStation(t)
	s.serve("example.org", lab.SMTP{Faults: lab.Faults{lab.Greeting: {Delay: loadPause}, lab.End: {Delay: loadPause}}})
	p := s.start(s.part())
	var calls []*lab.Call
	for range 3 {
		calls = append(calls, s.begin(p, s.mailbox()))
	}
	must.OK(t, p.Finish())
	for _, c := range calls {
		s.accepted(s.answer(c))
	}
	s.ends(p, 0)
}

func TestRspawn_endAtOnce(t *testing.T) {
	s := newStation(t)
	p := s.start(s.part())
	must.OK(t, p.Finish())
	s.ends(p, 0)
	if limit := must.Get(p.Limit(s.ctx))(t); limit != 255 {
		t.Errorf("the limit is %d", limit)
	}
}

// Nobody will hear: what is not wholly sent is cut.
func TestRspawn_nobodyReads(t *testing.T) {
	s := newStation(t)
	server := s.serve("example.org", stalls(lab.MAIL, 9))
	p := s.start(s.part())
	s.begin(p, "b@example.org")
	s.connected(server, 1, "MAIL")
	begin := time.Now()
	must.OK(t, p.Deafen())
	s.ends(p, 0)
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("it ended after %v", took)
	}
	must.Until(t, "the end of the connection", func() bool { return s.sessions(server)[0].Over() })
}

// And without a delivery too, at once: it does not wait for the next answer.
func TestRspawn_nobodyReadsIdle(t *testing.T) {
	s := newStation(t)
	p := s.start(s.part())
	must.Get(p.Limit(s.ctx))(t)
	must.OK(t, p.Deafen())
	s.ends(p, 0)
}

// After SIGTERM, by where a delivery is: who has an answer, and how long it takes.
func TestRspawn_term(t *testing.T) {
	const long = 25 * time.Second // what is well below 30 s
	stall, late := lab.Fault{Stall: true}, lab.Fault{Delay: time.Second}
	for _, c := range []struct {
		name     string
		faults   lab.Faults
		said     string // last, when it is told to end
		signals  []syscall.Signal
		answered bool
		least    time.Duration
		most     time.Duration
	}{
		{"before MAIL", lab.Faults{lab.EHLO: stall}, "EHLO", []syscall.Signal{syscall.SIGTERM}, false, 0, long},
		{"before MAIL, interrupted", lab.Faults{lab.EHLO: stall}, "EHLO", []syscall.Signal{syscall.SIGINT}, false, 0, long},
		{"late after MAIL", lab.Faults{lab.MAIL: late, lab.DATA: late}, "MAIL", []syscall.Signal{syscall.SIGTERM}, true, 0, long},
		{"late after the last byte", lab.Faults{lab.End: late}, "DATA", []syscall.Signal{syscall.SIGTERM}, true, 0, long},
		{"silent after MAIL", lab.Faults{lab.DATA: stall}, "DATA", []syscall.Signal{syscall.SIGTERM}, false, long, time.Minute},
		{"silent after MAIL, twice", lab.Faults{lab.DATA: stall}, "DATA", []syscall.Signal{syscall.SIGTERM, syscall.SIGTERM}, false, 0, long},
		{"silent after MAIL, both", lab.Faults{lab.DATA: stall}, "DATA", []syscall.Signal{syscall.SIGINT, syscall.SIGTERM}, false, 0, long},
		{"late after the last byte, twice", lab.Faults{lab.End: {Delay: 3 * time.Second}}, "DATA", []syscall.Signal{syscall.SIGTERM, syscall.SIGTERM}, true, 0, long},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newStation(t)
			// Whether all of a message has come is not seen before it is answered; that of a
			// few lines comes at once after 354.
			server := s.serve("example.org", lab.SMTP{NoPipelining: true, Faults: c.faults})
			p := s.start(s.part())
			call := s.begin(p, "b@example.org")
			s.connected(server, 1, c.said)
			if c.said == "DATA" {
				must.Until(t, "the message", func() bool { return c.faults[lab.DATA].Stall || len(s.Inbox.Messages()) == 1 })
			}
			begin := time.Now()
			for _, signal := range c.signals {
				must.OK(t, p.Signal(signal))
				time.Sleep(100 * time.Millisecond) // two at once may be one
			}
			// What comes now is not begun.
			p.Write(p.Command(99, s.message(), "", "c@example.org"))
			s.ends(p, 0)
			if took := time.Since(begin); took < c.least || took > c.most {
				t.Errorf("it took %v", took)
			}
			a, err := call.Answer(s.ctx)
			if (err == nil) != c.answered || err == nil && a.Letter != 'K' {
				t.Errorf("it was answered %v, %v", a, err)
			}
			s.arrived("c@example.org", 0)
		})
	}
}

func TestRspawn_termIdle(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		must.Heeded(t, signal)
		s := newStation(t)
		s.serve("example.org", lab.SMTP{})
		p := s.start(s.part())
		s.accepted(s.deliver(p, "b@example.org"))
		must.OK(t, p.Signal(signal))
		s.ends(p, 0)
	}
}

// Signals that end nothing.
func TestRspawn_goesOn(t *testing.T) {
	t.Parallel() // most of its time it waits
	for _, signal := range []syscall.Signal{syscall.SIGHUP, syscall.SIGPIPE, syscall.SIGUSR1} {
		t.Run(signal.String(), func(t *testing.T) {
			s := newStation(t)
			server := s.serve("example.org", lab.SMTP{Faults: lab.Faults{lab.MAIL: {Delay: loadPause}}})
			p := s.play(s.part())
			c := s.begin(p, "b@example.org")
			s.connected(server, 1, "MAIL")
			must.OK(t, p.Signal(signal))
			s.accepted(s.answer(c))
			must.OK(t, p.Signal(signal))
			s.accepted(s.deliver(p, "c@example.org"))
			s.arrived("b@example.org", 1)
		})
	}
}

// The signals of a terminal and of a shell come to the worker as well.
func TestRspawn_signalsToAll(t *testing.T) {
	s := newStation(t)
	s.serve("example.org", lab.SMTP{})
	p := s.play(s.part())
	worker := must.Get(p.AwaitWorker(s.ctx, 0))(t)
	for _, signal := range []syscall.Signal{syscall.SIGHUP, syscall.SIGPIPE, syscall.SIGUSR1} {
		must.OK(t, syscall.Kill(worker, signal))
	}
	s.accepted(s.deliver(p, "b@example.org"))
	if now := p.Worker(); now != worker {
		t.Errorf("the worker was %d and is %d", worker, now)
	}
}

// Kept connections get QUIT at the end.
func TestRspawn_quitAtEnd(t *testing.T) {
	for _, end := range []func(*lab.Player) error{(*lab.Player).Finish, func(p *lab.Player) error { return p.Signal(syscall.SIGTERM) }} {
		s := newStation(t)
		server := s.serve("example.org", lab.SMTP{})
		p := s.start(s.part())
		s.accepted(s.deliver(p, "b@example.org"))
		must.OK(t, end(p))
		s.ends(p, 0)
		s.connected(server, 1, "QUIT")
	}
}

// statusNames are all names of the status file, without their beginning.
var statusNames = strings.Fields(`limit slots in_flight waiting answers_total deferrals_total connections connections_total
begun_anew_total transactions_total recipients_total handshakes_total dns_total worker_ends_total processes_total
exchanger_connections exchanger_window exchanger_waiting exchanger_messages_total`)

func TestRspawn_statusFile(t *testing.T) {
	s := newStation(t)
	s.secure("example.org", lab.SMTP{Recipients: map[string]string{"no@example.org": "550 5.1.1 no", "later@example.org": "450 4.2.1 later"}})
	path := s.Home.Path("status")
	must.OK(t, s.Home.Set("statusfile", path), s.Home.Set("spawnlimit", "50"))
	p := s.start(s.part())
	for _, recipient := range []string{"b@example.org", "c@example.org", "no@example.org", "later@example.org"} {
		s.deliver(p, recipient)
	}
	read := func() string { text, _ := os.ReadFile(path); return string(text) }
	must.OK(t, p.Signal(syscall.SIGUSR1))
	must.Until(t, "the status file", func() bool {
		if strings.Contains(read(), `mxf_rspawn_answers_total{letter="K"} 2`) && strings.Contains(read(), `connections{state="idle"} 1`) {
			return true // RSET after the last refusal is answered
		}
		must.OK(t, p.Signal(syscall.SIGUSR1))
		return false
	})
	if info := must.Get(os.Stat(path))(t); info.Mode() != 0o644 {
		t.Errorf("its mode is %v", info.Mode())
	}
	text := read()
	for _, name := range statusNames {
		if !regexp.MustCompile(`(?m)^mxf_rspawn_` + name + `(\{.*\})? [0-9.e+]+$`).MatchString(text) {
			t.Errorf("there is no %s", name)
		}
	}
	for _, line := range []string{
		"limit 50", "slots 20", "in_flight 0", "waiting 0", `answers_total{letter="Z"} 1`, `answers_total{letter="D"} 1`, `connections_total{how="new"} 1`,
		`connections_total{how="kept"} 3`, `handshakes_total{how="full"} 1`, `connections{state="busy"} 0`, `connections{state="idle"} 1`, "worker_ends_total 0",
		"processes_total 0", `deferrals_total{why="line"} 0`, `deferrals_total{why="crash"} 0`, "begun_anew_total 0",
		`exchanger_messages_total{name="mx.example.org",address="127.0.2.3"} 2`,
	} {
		if !strings.Contains(text, "\nmxf_rspawn_"+line+"\n") && !strings.HasPrefix(text, "mxf_rspawn_"+line+"\n") {
			t.Errorf("there is no line %q", line)
		}
	}
	for line := range strings.Lines(text) {
		if line != "\n" && !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, "mxf_rspawn_") {
			t.Errorf("line %q", line)
		}
	}
	for _, word := range []string{"b@", "later", "a@example.net", "1001", "mess/"} {
		if strings.Contains(text, word) {
			t.Errorf("it has %q", word)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
	s.deliver(p, "d@example.org")
	must.OK(t, p.Finish())
	s.ends(p, 0)
	if !strings.Contains(read(), `mxf_rspawn_answers_total{letter="K"} 3`) {
		t.Errorf("at the end it was not written: %s", read())
	}
}

// Counters are those since the parent's start, whatever becomes of workers.
func TestRspawn_statusOutlivesWorkers(t *testing.T) {
	s := newStation(t)
	s.serve("example.org", lab.SMTP{})
	path := s.Home.Path("status")
	must.OK(t, s.Home.Set("statusfile", path))
	p := s.play(s.part())
	s.accepted(s.deliver(p, "b@example.org"))
	first := must.Get(p.SignalWorker(syscall.SIGKILL))(t)
	must.Get(p.AwaitWorker(s.ctx, first))(t)
	s.accepted(s.deliver(p, "c@example.org"))
	must.OK(t, p.Signal(syscall.SIGUSR1))
	must.Until(t, "the status file", func() bool {
		text, _ := os.ReadFile(path)
		return bytes.Contains(text, []byte(`answers_total{letter="K"} 2`)) && bytes.Contains(text, []byte("worker_ends_total 1"))
	})
}

// A status file that cannot be written changes nothing.
func TestRspawn_statusFileUnwritable(t *testing.T) {
	s := newStation(t)
	s.serve("example.org", lab.SMTP{})
	must.OK(t, s.Home.Set("statusfile", s.Home.Path("no/such/folder")))
	p := s.play(s.part())
	must.Get(p.Limit(s.ctx))(t) // it heeds signals then
	must.OK(t, p.Signal(syscall.SIGUSR1))
	s.accepted(s.deliver(p, "b@example.org"))
}
