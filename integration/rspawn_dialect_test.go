package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"nightmare.mail/mxf/integration/lab"
	"nightmare.mail/mxf/integration/must"
)

// Tests of the section "What is said on 0 and 1".

// Both dialects, with numbers beyond a byte in the second.
func TestRspawn_dialects(t *testing.T) {
	for bytes, count := range map[int]int{1: 255, 2: 400} {
		t.Run(fmt.Sprint(bytes), func(t *testing.T) {
			t.Parallel()
			s := newStation(t)
			must.OK(t, s.Home.Set("delnumbytes", fmt.Sprint(bytes)), s.Home.Set("connectionlimits", ":200"), s.Home.Set("concurrencyremote", "400"))
			// None is answered before all are begun.
			s.serve("example.org", lab.SMTP{Faults: lab.Faults{lab.End: {Delay: loadPause}}})
			part := s.part()
			part.Bytes, part.Shell = bytes, "ulimit -n 4096"
			p := s.play(part)
			var calls []*lab.Call
			for i := range count {
				calls = append(calls, must.Get(p.Begin(s.ctx, s.message(), fmt.Sprintf("a%d@example.net", i), fmt.Sprintf("b%d@example.org", i)))(t))
			}
			for _, c := range calls {
				s.accepted(s.answer(c))
			}
			for i := range count {
				s.arrived(fmt.Sprintf("b%d@example.org", i), 1)
			}
		})
	}
}

// A refusal is a command and the answer that there must be.
type refusal struct {
	name                      string
	number                    int
	messid, sender, recipient string
	want                      string
}

// Everything down to the owner is refused in this order, and always with Z.
func TestRspawn_checks(t *testing.T) {
	const (
		memory   = "Zqmail-spawn out of memory. (#4.3.0)"
		big      = "ZInternal error: delnum too big. (#4.3.5)"
		numerics = "ZInternal error: messid has nonnumerics. (#4.3.5)"
		long     = "ZInternal error: messid too long. (#4.3.5)"
		short    = "ZInternal error: messid too short. (#4.3.5)"
		host     = "ZSorry, address must include host name. (#4.3.5)"
		opened   = "Zqmail-spawn unable to open message. (#4.3.0)"
		wrong    = "ZSorry, message has wrong type. (#4.3.5)"
		owner    = "ZSorry, message has wrong owner. (#4.3.5)"
	)
	x := func(n int) string { return strings.Repeat("x", n) }
	digits := func(n int) string { return strings.Repeat("1", n) }
	for _, limit := range []string{"5", "nonsense"} {
		t.Run(limit, func(t *testing.T) {
			s := newStation(t)
			must.OK(t, s.Home.Set("spawnlimit", limit))
			p := s.play(s.part())
			n := must.Get(p.Limit(s.ctx))(t)
			fifo, folder, others := s.Home.Path("queue/mess/1/1"), s.Home.Path("queue/mess/1/2"), s.message()
			must.OK(t, os.MkdirAll(filepath.Dir(fifo), 0o755), syscall.Mkfifo(fifo, 0o644), os.Mkdir(folder, 0o755))
			rows := []refusal{
				{"sender too long", 0, "1/1", x(65537), "b@example.org", memory},
				{"recipient too long", 0, "1/1", "", x(65537), memory},
				{"messid too long for a string", 0, digits(65537), "", "b@example.org", memory},
				{"very long", 0, "1/1", x(1 << 20), "b@example.org", memory},
				{"strings at the limit", 0, "x", x(65536), x(65536), numerics},
				{"messid at the limit", 0, digits(65536), "", "", long},
				{"letters", 0, "1/a", "", "b@example.org", numerics},
				{"a blank", 0, "1/1 ", "", "b@example.org", numerics},
				{"dots", 0, "../mess/1", "", "b@example.org", numerics},
				{"absolute", 0, "/1/1", "", "b@example.org", numerics},
				{"8-bit", 0, "1/\xb2", "", "b@example.org", numerics},
				{"letters, and too long", 0, x(100), "", "b", numerics},
				{"100 digits", 0, digits(100), "", "b", long},
				{"99 digits", 0, digits(99), "", "b@example.org", opened},
				{"no messid", 0, "", "", "b", short},
				{"no @", 0, "7/7", "", "b", host},
				{"no recipient", 0, "7/7", "", "", host},
				{"no file", 0, "7/7", "", "b@example.org", opened},
				{"fifo", 0, "1/1", "", "b@example.org", wrong},
				{"folder", 0, "1/2", "", "b@example.org", wrong},
			}
			if n < 255 {
				rows = append(rows,
					refusal{"number too big", n, "1/1", "", "b@example.org", big},
					refusal{"number too big, and letters", 255, "x", "", "b", big},
					refusal{"number too big, and a string", n, "1/1", x(65537), "b", memory})
			}
			if os.Geteuid() == 0 {
				const nobody = 65534
				must.OK(t, os.Chown(s.Home.Path("queue/mess/"+others), nobody, -1))
				rows = append(rows, refusal{"owner", 0, others, "", "b@example.org", owner})
			}
			for _, c := range rows {
				t.Run(c.name, func(t *testing.T) {
					s := &station{Lab: s.Lab, t: t, ctx: s.ctx}
					must.OK(t, p.Write(p.Command(c.number, c.messid, c.sender, c.recipient)))
					s.said(p, c.number, c.want)
				})
			}
		})
	}
}

// The owner of messages is that of queue/mess, whoever it is.
func TestRspawn_owner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root gives files away")
	}
	s := newStation(t)
	s.serve("example.org", lab.SMTP{})
	const qmailq = 1234
	must.OK(t, os.Chown(s.Home.Path("queue/mess"), qmailq, -1))
	p := s.play(s.part())
	messid := s.message()
	must.OK(t, os.Chown(s.Home.Path("queue/mess/"+messid), qmailq, -1))
	s.accepted(must.Get(p.Deliver(s.ctx, messid, "", "b@example.org"))(t))
}

// A number that is in use is refused, and the delivery that has it goes on.
func TestRspawn_numberInUse(t *testing.T) {
	s := newStation(t)
	server := s.serve("example.org", lab.SMTP{Faults: lab.Faults{lab.Greeting: {Delay: loadPause}}})
	p := s.play(s.part())
	must.Get(p.Limit(s.ctx))(t)
	must.OK(t, p.Write(p.Command(7, s.message(), "", "b@example.org")))
	s.connected(server, 1, "")
	must.OK(t, p.Write(p.Command(7, "x", "", "")))
	s.said(p, 7, "ZInternal error: delnum in use. (#4.3.5)")
	if a := must.Get(p.Stray(s.ctx))(t); a.Number != 7 || a.Letter != 'K' {
		t.Errorf("the delivery was answered %v", a)
	}
	// And is free again.
	must.OK(t, p.Write(p.Command(7, "x", "", "")))
	s.said(p, 7, "ZInternal error: messid has nonnumerics. (#4.3.5)")
}

// The host is what follows the last @. The sender may be empty.
func TestRspawn_hostIsBehindTheLastAt(t *testing.T) {
	s := newStation(t)
	s.serve("example.org", lab.SMTP{})
	p := s.play(s.part())
	s.accepted(must.Get(p.Deliver(s.ctx, s.message(), "", "b@other.example@example.org"))(t))
	s.arrived(`"b@other.example"@example.org`, 1)
}

// With the wrong setting of delnumbytes nothing bounces and nothing is delivered.
func TestRspawn_wrongDialect(t *testing.T) {
	for set, spoken := range map[string]int{"1": 2, "2": 1} {
		t.Run(set, func(t *testing.T) {
			s := newStation(t)
			s.serve("example.org", lab.SMTP{})
			must.OK(t, s.Home.Set("delnumbytes", set))
			part := s.part()
			part.Bytes = 3 - spoken // what it is set to, so that its answers are read
			p := s.start(part)
			must.Get(p.Limit(s.ctx))(t)
			for n := range 100 {
				number := []byte{byte(n), 0}[:spoken]
				must.OK(t, p.Write(fmt.Appendf(number, "%s\x00%s\x00%s\x00", s.message(), "a@example.net", "b@example.org")))
			}
			must.OK(t, p.Finish())
			must.Get(p.Wait(s.ctx))(t)
			for {
				a, err := p.Stray(s.ctx)
				if err != nil {
					break
				}
				if a.Letter != 'Z' {
					t.Errorf("it was answered %v", a)
				}
			}
			s.ends(p, 0)
			s.arrived("b@example.org", 0)
		})
	}
}

// Number 0xBEEF with empty strings is the reload of qmail-ldap, and has no answer.
func TestRspawn_reload(t *testing.T) {
	const reload = 0xbeef
	s := newStation(t)
	s.serve("example.org", lab.SMTP{})
	must.OK(t, s.Home.Set("delnumbytes", "2"))
	part := s.part()
	part.Bytes = 2
	p := s.play(part)
	must.Get(p.Limit(s.ctx))(t)
	must.OK(t, p.Write(p.Command(reload, "", "", "")))
	s.accepted(s.deliver(p, "b@example.org"))
	must.OK(t, p.Write(p.Command(reload, "", "", "")), p.Write(p.Command(reload, "1/1", "", "b@example.org")))
	s.said(p, reload, "ZInternal error: delnum too big. (#4.3.5)")
	s.accepted(s.deliver(p, "c@example.org"))
}

// A command that is not whole when 0 ends is dropped.
func TestRspawn_halfCommand(t *testing.T) {
	for _, half := range []string{"\x00", "\x001", "\x001/1\x00", "\x001/1\x00a@example.net\x00b@example.org"} {
		s := newStation(t)
		p := s.start(s.part())
		must.Get(p.Limit(s.ctx))(t)
		must.OK(t, p.Write([]byte(half)), p.Finish())
		s.ends(p, 0)
		if n := p.Answers(); n != 0 {
			t.Errorf("%q: %d answers", half, n)
		}
	}
}

// A command may come byte by byte, and many may come at once.
func TestRspawn_pieces(t *testing.T) {
	s := newStation(t)
	p := s.play(s.part())
	must.Get(p.Limit(s.ctx))(t)
	for _, b := range p.Command(1, "x", "", "b@example.org") {
		must.OK(t, p.Write([]byte{b}))
	}
	s.said(p, 1, "ZInternal error: messid has nonnumerics. (#4.3.5)")
	var all []byte
	for n := range 200 {
		all = append(all, p.Command(n, "x", "", "")...)
	}
	must.OK(t, p.Write(all))
	seen := make(map[int]bool)
	for range 200 {
		seen[must.Get(p.Stray(s.ctx))(t).Number] = true
	}
	if len(seen) != 200 {
		t.Errorf("%d numbers are answered", len(seen))
	}
}

// What a program says is cut, and has no zero byte.
func TestRspawn_longText(t *testing.T) {
	s := newStation(t)
	tool := filepath.Join(t.TempDir(), "remote")
	must.Script(t, tool, `printf 'r'; head -c 30000 /dev/zero | tr '\0' x; printf '\0Kend\0'`)
	p := s.play(s.part("QMAILREMOTE=" + tool))
	const most = 9000
	if a := s.deliver(p, "b@example.org"); a.Letter != 'K' || a.Text != strings.Repeat("x", most) {
		t.Errorf("the text has %d bytes, letter %c", len(a.Text), a.Letter)
	}
}

// A report stream becomes letter and text as in qmail-rspawn.
func TestRspawn_reports(t *testing.T) {
	s := newStation(t)
	stream := filepath.Join(t.TempDir(), "stream")
	tool := filepath.Join(t.TempDir(), "remote")
	must.Script(t, tool, "cat "+stream)
	p := s.play(s.part("QMAILREMOTE=" + tool))
	for _, c := range []struct{ reports, want string }{
		{"rone\n|Ktwo\n|", "Kone\ntwo\n"},
		{"r|Ktwo\n|", "Ktwo\n"},
		{"rone\n|Ztwo\n|", "Zone\ntwo\n"},
		{"rone\n|Dtwo\n|", "Done\ntwo\n"},
		{"sone\n|Ktwo\n|", "Zone\n"},
		{"sone\n|Ztwo\n|", "Zone\ntwo\n"},
		{"sone\n|Dtwo\n|", "Zone\ntwo\n"},
		{"hone\n|Ktwo\n|", "Done\n"},
		{"hone\n|Ztwo\n|", "Done\n"},
		{"hone\n|Dtwo\n|", "Done\ntwo\n"},
		{"Kone\n|", "Kone\n"},
		{"Zone\n|", "Zone\n"},
		{"Done\n|", "Done\n"},
		{"xone\n|", "Done\n"},
		{"rone\n|", "Done\n"},
		{"rone\n|xtwo\n|Kthree\n|", "Kone\n"},
		{"", "Zqmail-remote produced no output.\n"},
		{"Kone\n", "Zqmail-remote produced an incomplete report. (#4.3.0)\n"},
		{"rone", "Zqmail-remote produced an incomplete report. (#4.3.0)\n"},
	} {
		must.OK(t, os.WriteFile(stream, []byte(strings.ReplaceAll(c.reports, "|", "\x00")), 0o644))
		a := s.deliver(p, "b@example.org")
		if got := string(a.Letter) + a.Text; strings.TrimSuffix(got, "\n") != strings.TrimSuffix(c.want, "\n") {
			t.Errorf("%q: got %q, want %q", c.reports, got, c.want)
		}
	}
}
