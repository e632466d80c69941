package integration

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"nightmare.mail/mxf/integration/lab"
	"nightmare.mail/mxf/integration/must"
)

// Tests of the section "Start": arguments, the limit, tables, exit status 111.

func TestRspawn_limit(t *testing.T) {
	for _, c := range []struct {
		bytes, limit string // control files; empty: none
		hard         int    // limit of open files; 0: as it is
		want         int
		fault        bool
	}{
		{"", "", 0, 255, false},
		{"1", "", 0, 255, false},
		{"1", "1", 0, 1, false},
		{"", "20", 0, 20, false},
		{"1", "255", 0, 255, false},
		{"2", "", 4096, 500, false},
		{"2", "1", 0, 1, false},
		{"2", "256", 2048, 256, false},
		{"2", "12000", 4064, 1000, false},
		{"", "", 464, 100, false},
		{"", "50", 464, 50, false},
		{"2", "", 464, 100, false},
		{"", "", 67, 1, false},
		{"", "0", 0, 255, true},
		{"", "256", 0, 255, true},
		{"", "many", 0, 255, true},
		{"2", "12001", 4096, 500, true},
		{"2", "-1", 4096, 500, true},
	} {
		t.Run(fmt.Sprintf("%q_%q_%d", c.bytes, c.limit, c.hard), func(t *testing.T) {
			s := newStation(t)
			s.serve("example.org", lab.SMTP{})
			part := s.part()
			for name, value := range map[string]string{"delnumbytes": c.bytes, "spawnlimit": c.limit} {
				if value != "" {
					must.OK(t, s.Home.Set(name, value))
				}
			}
			if c.bytes == "2" {
				part.Bytes = 2
			}
			if c.hard != 0 {
				part.Shell = fmt.Sprintf("ulimit -n %d", c.hard)
			}
			p := s.play(part)
			if got := must.Get(p.Limit(s.ctx))(t); got != c.want {
				t.Errorf("the limit is %d, want %d", got, c.want)
			}
			if c.hard != 0 && c.hard < 100 {
				return // too few for a delivery
			}
			a := s.deliver(p, "b@example.org")
			switch {
			case !c.fault:
				s.accepted(a)
			case a.Letter != 'Z' || !strings.Contains(a.Text, "control/spawnlimit"):
				t.Errorf("it was answered %v", a)
			}
		})
	}
}

// The limit does not wait for anything. Its time on a quiet machine is a figure.
func TestRspawn_limitIsSoon(t *testing.T) {
	s := newStation(t)
	best := time.Hour
	for range 5 {
		p := s.start(s.part())
		must.Get(p.Limit(s.ctx))(t)
		best = min(best, p.Latency())
		must.OK(t, p.Finish())
		s.ends(p, 0)
	}
	t.Logf("the limit is there after %v", best)
	if best > time.Second {
		t.Errorf("the limit is there after %v", best)
	}
}

func TestRspawn_doesNotStart(t *testing.T) {
	for name, spoil := range map[string]func(s *station) error{
		"no queue":                func(s *station) error { return os.RemoveAll(s.Home.Path("queue/mess")) },
		"no home":                 func(s *station) error { return os.RemoveAll(s.Home.Dir) },
		"delnumbytes 0":           func(s *station) error { return s.Home.Set("delnumbytes", "0") },
		"delnumbytes 3":           func(s *station) error { return s.Home.Set("delnumbytes", "3") },
		"delnumbytes of words":    func(s *station) error { return s.Home.Set("delnumbytes", "two") },
		"delnumbytes is a folder": func(s *station) error { return os.Mkdir(s.Home.Path("control/delnumbytes"), 0o755) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newStation(t)
			must.OK(t, spoil(s))
			p := s.start(s.part())
			s.ends(p, 111)
			if limit, err := p.Limit(s.ctx); err == nil {
				t.Errorf("the limit is %d", limit)
			}
		})
	}
}

func TestRspawn_arguments(t *testing.T) {
	s := newStation(t)
	for _, c := range []struct {
		args   []string
		status int
		out    bool
	}{
		{[]string{"--version"}, 0, true},
		{[]string{"--help"}, 0, true},
		{[]string{"--version", "x"}, 100, false},
		{[]string{"--help", "--version"}, 100, false},
		{[]string{"x"}, 100, false},
		{[]string{""}, 100, false},
		{[]string{"-v"}, 100, false},
		{[]string{"--"}, 100, false},
	} {
		cmd := exec.CommandContext(s.ctx, filepath.Join(programs(t), "mxf-rspawn"), c.args...)
		cmd.Env = s.part().Environ
		got := must.Get(finish(cmd))(t)
		if got.status != c.status || (got.out != "") != c.out || (got.err == "") != c.out {
			t.Errorf("%q: exit %d, %q, %q", c.args, got.status, got.out, got.err)
		}
	}
}

// It is found by the name of qmail-rspawn, and finds its programs beside what that links to.
func TestRspawn_link(t *testing.T) {
	s := newStation(t)
	s.serve("example.org", lab.SMTP{})
	link := s.Home.Path("bin/qmail-rspawn")
	must.OK(t, os.Symlink(filepath.Join(programs(t), "mxf-rspawn"), link))
	part := s.part()
	part.Program = link
	p := s.play(part)
	s.accepted(s.deliver(p, "b@example.org"))
	first := must.Get(p.AwaitWorker(s.ctx, 0))(t)
	must.Get(p.SignalWorker(9))(t)
	must.Get(p.AwaitWorker(s.ctx, first))(t)
	s.accepted(s.deliver(p, "c@example.org"))
}

func TestRspawn_emptiesTables(t *testing.T) {
	s := newStation(t)
	must.OK(t, os.WriteFile(s.Home.Path("queue/lock/tcpto"), bytes.Repeat([]byte{7}, 1024), 0o644),
		os.WriteFile(s.Home.Path("queue/lock/tcpto6"), bytes.Repeat([]byte{7}, 1792), 0o644))
	p := s.play(s.part())
	must.Get(p.Limit(s.ctx))(t)
	for name, size := range map[string]int{"tcpto": 1024, "tcpto6": 1792} {
		if got := must.Get(os.ReadFile(s.Home.Path("queue/lock/" + name)))(t); !bytes.Equal(got, make([]byte, size)) {
			t.Errorf("%s has %d bytes, beginning with %.20q", name, len(got), got)
		}
	}
}

func TestRspawn_makesNoTables(t *testing.T) {
	s := newStation(t)
	must.OK(t, os.Remove(s.Home.Path("queue/lock/tcpto")))
	p := s.play(s.part())
	must.Get(p.Limit(s.ctx))(t)
	for _, name := range []string{"tcpto", "tcpto6"} {
		if _, err := os.Stat(s.Home.Path("queue/lock/" + name)); !os.IsNotExist(err) {
			t.Errorf("%s is there: %v", name, err)
		}
	}
}

// Qmail-start leaves descriptor 2 closed. No other descriptor takes its place.
func TestRspawn_withoutDescriptor2(t *testing.T) {
	s := newStation(t)
	s.serve("example.org", lab.SMTP{})
	part := s.part()
	part.Shell = "exec 2>&-"
	p := s.play(part)
	s.accepted(s.deliver(p, "b@example.org"))
	for _, pid := range append(p.Workers(), p.Pid()) {
		if to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/2", pid)); err != nil || to != "/dev/null" {
			t.Errorf("descriptor 2 is %q, %v", to, err)
		}
	}
}

// Programs that are run get the soft limit of open files that there was.
func TestRspawn_softLimit(t *testing.T) {
	s := newStation(t)
	tool := filepath.Join(t.TempDir(), "client")
	must.Script(t, tool, `printf 'r\0K%s\n\0' "$(ulimit -Sn)"`)
	part := s.part("QMAILREMOTE=" + tool)
	part.Shell = "ulimit -Sn 300"
	p := s.play(part)
	if a := s.deliver(p, "b@example.org"); a.Text != "300\n" {
		t.Errorf("the soft limit of a program is %v", a)
	}
	limits := string(must.Get(os.ReadFile(fmt.Sprintf("/proc/%d/limits", p.Pid())))(t))
	for line := range strings.Lines(limits) {
		if fields := strings.Fields(line); strings.HasPrefix(line, "Max open files") {
			soft, hard := must.Get(strconv.Atoi(fields[3]))(t), must.Get(strconv.Atoi(fields[4]))(t)
			if soft < hard-1 { // one less is how a program in Go keeps the old one for others
				t.Errorf("its own limits: %s", line)
			}
		}
	}
}
