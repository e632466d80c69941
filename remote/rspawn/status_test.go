package rspawn

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"testing"

	"golang.org/x/sys/unix"

	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/remote/rspawn/wire"
)

// sampleLine is a line of the text format.
var sampleLine = regexp.MustCompile(`^[a-z_]+(\{[a-z]+="([^"\\\n]|\\["\\n])*"(,[a-z]+="([^"\\\n]|\\["\\n])*")*\})? [0-9]+$`)

func TestStatusText(t *testing.T) {
	s := status{limit: 255, slots: 20, inFlight: 3, success: 9, Counters: wire.Counters{Exchangers: []wire.Exchanger{
		{Name: "mx.example", Address: "192.0.2.1", Connections: 2, Window: 5, Waiting: 1, MessagesTotal: 77},
		{Name: "a\"b\\c\nd\xff", Address: "2001:db8::1"},
	}}}
	text := s.text()
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if !strings.HasPrefix(line, "# TYPE mxf_rspawn_") && (!sampleLine.MatchString(line) || !strings.HasPrefix(line, "mxf_rspawn_")) {
			t.Errorf("%q", line)
		}
	}
	for _, want := range []string{
		"mxf_rspawn_limit 255\n", "mxf_rspawn_in_flight 3\n", "mxf_rspawn_answers_total{letter=\"K\"} 9\n",
		"# TYPE mxf_rspawn_answers_total counter\n", "# TYPE mxf_rspawn_slots gauge\n",
		"mxf_rspawn_exchanger_messages_total{name=\"mx.example\",address=\"192.0.2.1\"} 77\n",
		`mxf_rspawn_exchanger_window{name="a\"b\\c\nd?",address="2001:db8::1"} 0` + "\n",
	} {
		if strings.Count(text, want) != 1 {
			t.Errorf("not once: %s", want)
		}
	}
}

func TestSum(t *testing.T) {
	a := wire.Counters{New: 1, Exchangers: []wire.Exchanger{{Name: "a", MessagesTotal: 1}, {Name: "b", MessagesTotal: 5}}}
	b := wire.Counters{New: 2, Waiting: 4, Exchangers: []wire.Exchanger{{Name: "a", MessagesTotal: 9, Window: 3}}}
	got := sum(gone(&b), a)
	if got.New != 3 || got.Waiting != 0 || len(got.Exchangers) != 2 || got.Exchangers[0] != (wire.Exchanger{Name: "a", MessagesTotal: 10}) {
		t.Errorf("%+v", got)
	}
	many := wire.Counters{}
	for i := range 2 * wire.MaxExchangers {
		many.Exchangers = append(many.Exchangers, wire.Exchanger{Name: strings.Repeat("x", i), MessagesTotal: uint64(i)})
	}
	if got := sum(a, many).Exchangers; len(got) != wire.MaxExchangers || got[0].MessagesTotal != 2*wire.MaxExchangers-1 {
		t.Errorf("%d exchangers", len(got))
	}
}

func TestReplace(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "status")
	must.OK(t, replace(path, "one"), replace(path, "two"))
	if got, err := os.ReadFile(path); string(got) != "two" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	info := must.Get(os.Stat(path))(t)
	if left := must.Get(os.ReadDir(folder))(t); len(left) != 1 || info.Mode().Perm() != 0o644 {
		t.Errorf("%v, %v", left, info.Mode())
	}
	if replace(filepath.Join(folder, "none", "status"), "") == nil {
		t.Error("no error")
	}
}

// A status file replaces no device, and writes through no link that somebody has put beside it.
func TestReplace_else(t *testing.T) {
	folder := t.TempDir()
	fifo, path, other := filepath.Join(folder, "fifo"), filepath.Join(folder, "status"), filepath.Join(folder, "other")
	must.OK(t, unix.Mkfifo(fifo, 0o600), os.WriteFile(other, []byte("other"), 0o600))
	if replace(fifo, "text") == nil {
		t.Error("a FIFO was replaced")
	}
	if info := must.Get(os.Lstat(fifo))(t); info.Mode().Type() != os.ModeNamedPipe {
		t.Errorf("the FIFO is %v", info.Mode())
	}
	beside := fmt.Sprintf("%s.%d", path, os.Getpid())
	for _, make := range []func() error{
		func() error { return os.Symlink(other, beside) },
		func() error { return unix.Mkfifo(beside, 0o600) },
	} {
		must.OK(t, make(), replace(path, "text"))
		if got := must.Get(os.ReadFile(other))(t); string(got) != "other" {
			t.Errorf("the other file has %q", got)
		}
		if got := must.Get(os.ReadFile(path))(t); string(got) != "text" {
			t.Errorf("the status file has %q", got)
		}
	}
}
