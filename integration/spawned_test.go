package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"nightmare.mail/mxf/integration/lab"
)

// Setup: in the third way a script's deliveries are those of an mxf-rspawn. Each has one of its
// own, to which a player of qmail-send's part gives one command for each recipient.
//
//	script ── rspawn ──► player ──0──► mxf-rspawn ──► name server, SMTP, QMTP, QMTPS
//	   ▲                   ▲              │
//	   └── verdict ◄───────┴──────1───────┘
//
// Test: each answer is what qmail-rspawn makes of the reports of mxf-remote in the first way; what
// the servers saw and the trace are those of the first way. The reports that the script looks
// at then are those of the first way too. How
// connections end is not compared (see ends).
//
// A delivery that qmail-rspawn cannot have is run by mxf-remote: from a pipe, without a
// recipient, with a host that is not the recipient's, and the like.

// A spawned is what the third way knows of the first.
type spawned struct {
	process *record
	seen    *seen
	aside   bool // of the last delivery nothing but the verdict is compared
}

// seen counts deliveries.
type seen struct {
	mu           sync.Mutex
	spawned, not int
}

func (s *seen) count(n *int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	*n++
}

// mostOthers keeps TestScripts from being about nothing: at most one in so many is a delivery that
// qmail-rspawn cannot have.
const mostOthers = 5

// runSpawned runs the scripts the third way, and compares with the first.
func runSpawned(t *testing.T, bin string, params testscript.Params, process *record) *seen {
	own, all := newRecord(), new(seen)
	t.Run("spawned", func(t *testing.T) {
		params.Setup = func(env *testscript.Env) error {
			if err := setUp(t, env, bin, "process", own); err != nil {
				return err
			}
			env.Values[rigKey{}].(*rig).spawned = &spawned{process: process, seen: all}
			return nil
		}
		params.Cmds, params.Condition, params.RequireUniqueNames = allCommands(), condition, true
		testscript.Run(t, params)
	})
	t.Run("spawned alike", func(t *testing.T) { alike(t, process, own, ends, resumed) })
	t.Logf("%d deliveries of mxf-rspawn, %d that qmail-rspawn cannot have", all.spawned, all.not)
	return all
}

// message is the number of a script's message in the queue.
const scriptMessage = 1000

// spawn has an mxf-rspawn deliver. It returns nil where qmail-rspawn cannot do that.
func (r *rig) spawn(ts *testscript.TestScript, d lab.Delivery) *lab.Outcome {
	s := r.spawned
	s.aside = false
	if !r.spawns(ts, d) {
		s.seen.count(&s.seen.not)
		return nil
	}
	s.seen.count(&s.seen.spawned)
	name := filepath.Base(ts.Name())
	n, first := len(r.record.of(name)), s.process.of(name)
	if n >= len(first) {
		ts.Fatalf("the first way has no delivery %d of %s: both have to be run", n+1, name)
	}
	o := first[n]
	o.Raw, o.Text = []byte(r.concrete(string(o.Raw))), r.concrete(o.Text)
	recipients := d.Arguments[2:]
	s.aside = len(recipients) > 1
	answers, took, err := r.played(ts, d)
	if err != nil {
		ts.Fatalf("%v", err)
	}
	for i, a := range answers {
		if err := r.asAlone(a, o.Raw, i, len(recipients)); err != nil {
			ts.Fatalf("%s: %v", recipients[i], err)
		}
	}
	o.Elapsed, o.Left = took, false
	return &o
}

// otherwise has scripts of what is not so in mxf-rspawn. Nor is what comes of several recipients
// in those whose name begins with "program_": programs that control files name get one each.
var otherwise = map[string]string{
	"usage_control_bytes": "one bad address ends a delivery to several",
	"trace_control":       "the trace names all recipients",
	"trace_is_the_report": "one trace is that of all messages",
	"recipients_too_many": "552 after an accepted recipient is offered once more",
}

// spawns reports whether a delivery is one that qmail-rspawn can have.
func (r *rig) spawns(ts *testscript.TestScript, d lab.Delivery) bool {
	if len(d.Arguments) < 3 || ts.Getenv("MXF_HOME") != r.Home.Dir || filepath.Dir(d.Program) != filepath.Clean(r.bin) {
		return false
	}
	name := filepath.Base(ts.Name())
	if otherwise[name] != "" || len(d.Arguments) > 3 && strings.HasPrefix(name, "program_") {
		return false
	}
	if info, err := d.Message.Stat(); err != nil || !info.Mode().IsRegular() {
		return false
	}
	for _, recipient := range d.Arguments[2:] {
		at := strings.LastIndexByte(recipient, '@')
		if at < 0 || recipient[at+1:] != d.Arguments[0] {
			return false
		}
	}
	return !strings.Contains(strings.Join(d.Arguments, ""), "\x00")
}

// played plays qmail-send for one message. The tables of dead hosts are those that the
// script had, although mxf-rspawn empties them when it starts.
func (r *rig) played(ts *testscript.TestScript, d lab.Delivery) (answers []lab.Answer, took time.Duration, err error) {
	messid := lab.Messid(scriptMessage)
	path := r.Home.Path("queue/mess/" + messid)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.Link(d.Message.Name(), path)); err != nil {
		return nil, 0, err
	}
	defer os.Remove(path)
	ctx, cancel := context.WithTimeout(context.Background(), lab.DefaultLimit)
	defer cancel()
	restore := r.tables()
	p, err := lab.Play(lab.Part{Program: filepath.Join(r.bin, "mxf-rspawn"), Environ: d.Environ, Dir: "/", Overhear: true})
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, p.Close(lab.DefaultLimit)) }()
	if _, err := p.Limit(ctx); err != nil {
		return nil, 0, err
	}
	if err := restore(); err != nil {
		return nil, 0, err
	}
	begin := time.Now()
	var calls []*lab.Call
	if len(d.Arguments) > 3 { // all commands are there before the first is looked at, so that they go together
		if err := stopped(ctx, p); err != nil {
			return nil, 0, err
		}
	}
	for _, recipient := range d.Arguments[2:] {
		c, err := p.Begin(ctx, messid, d.Arguments[1], recipient)
		if err != nil {
			return nil, 0, err
		}
		calls = append(calls, c)
	}
	if len(d.Arguments) > 3 {
		time.Sleep(handedOn)
		if _, err := p.SignalWorker(syscall.SIGCONT); err != nil {
			return nil, 0, err
		}
	}
	for _, c := range calls {
		a, err := c.Answer(ctx)
		if err != nil {
			return nil, 0, err
		}
		ts.Logf("[answer %v]", a)
		answers = append(answers, a)
	}
	return answers, time.Since(begin), nil
}

// handedOn is how long the parent has to hand commands on to a worker that does not read them.
const handedOn = 50 * time.Millisecond

// stopped stops the worker.
func stopped(ctx context.Context, p *lab.Player) error {
	if _, err := p.AwaitWorker(ctx, 0); err != nil {
		return err
	}
	_, err := p.SignalWorker(syscall.SIGSTOP)
	return err
}

// tables returns what puts the tables of dead hosts back.
func (r *rig) tables() (restore func() error) {
	before := make(map[string][]byte)
	for _, name := range []string{"queue/lock/tcpto", "queue/lock/tcpto6"} {
		if data, err := os.ReadFile(r.Home.Path(name)); err == nil {
			before[name] = data
		}
	}
	return func() (err error) {
		for name, data := range before {
			if info, err := os.Stat(r.Home.Path(name)); err != nil || !info.Mode().IsRegular() {
				continue
			}
			err = errors.Join(err, os.WriteFile(r.Home.Path(name), data, 0o644))
		}
		return err
	}
}

// asAlone is the error of an answer that is not what qmail-rspawn makes of the reports of a
// delivery to n recipients, for the one with number i. One of several that was refused has the text
// of its own report in front: what follows is as if there were no others.
func (r *rig) asAlone(a lab.Answer, raw []byte, i, n int) error {
	stream, refused := streamOf(raw, i, n)
	letter, text := lab.Verdict(stream, 0)
	if r.uneven {
		if a.Letter != letter {
			return fmt.Errorf("it was answered %v, and in the first way %c %q", a, letter, text)
		}
		return nil
	}
	got, want := alikeText(r.neutral(a.Text)), alikeText(r.neutral(text))
	const most = 9000
	if a.Letter != letter || got != want[:min(len(want), most)] && !(refused && n > 1 && strings.HasPrefix(got, want)) {
		return fmt.Errorf("it was answered %v, and in the first way %c %q", a, letter, text)
	}
	return nil
}

// streamOf is the report stream of recipient i of n, and whether it was refused.
func streamOf(raw []byte, i, n int) (stream []byte, refused bool) {
	list := strings.SplitAfter(string(raw), "\x00")
	list = list[:len(list)-1] // what follows the last zero byte
	if len(list) != n+1 {
		return raw, false
	}
	return []byte(list[i] + list[n]), list[i][0] != 'r'
}

// ends is how a connection ends: mxf-rspawn says RSET after a refusal, and QUIT when a connection is
// not kept any longer.
var ends = regexp.MustCompile(`(?m)^ *(TLS |> )?(RSET|QUIT)\n|^< 250 2\.0\.0 Session reset\n|^< 221 .*\n`)

// resumed is in the trace of a TLS session of before, which a delivery that connects twice finds.
var resumed = regexp.MustCompile(`\bresumed `)

func TestStreamOf(t *testing.T) {
	for _, c := range []struct {
		raw     string
		i, n    int
		want    string
		refused bool
	}{
		{"r\x00Kok\n\x00", 0, 1, "r\x00Kok\n\x00", false},
		{"ra\x00hb\x00Kok\n\x00", 1, 2, "hb\x00Kok\n\x00", true},
		{"ra\x00hb\x00Kok\n\x00", 0, 2, "ra\x00Kok\n\x00", false},
		{"Zno\n\x00", 1, 2, "Zno\n\x00", false},
	} {
		if got, refused := streamOf([]byte(c.raw), c.i, c.n); string(got) != c.want || refused != c.refused {
			t.Errorf("%q, %d: %q, %v", c.raw, c.i, got, refused)
		}
	}
}
