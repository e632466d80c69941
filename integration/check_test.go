package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"nightmare.mail/mxf/integration/lab"
)

// Setup: the scripts of TestScripts once more. Before each delivery mxf-check is asked, with
// the same files, servers and environment, what will come of it.
//
// Test: where the delivery ends before MAIL, letter and text of its report are those of
// mxf-check. Where mxf-check says that the message would be taken it comes to MAIL, and if it is
// accepted, then by the address that mxf-check has named. mxf-check says MAIL to nobody, and
// delivers nothing. It does not change the home.
func TestCheck_foresees(t *testing.T) {
	all := new(checked)
	t.Run("scripts", func(t *testing.T) {
		testscript.Run(t, testscript.Params{
			Dir: "testdata/script",
			Setup: func(env *testscript.Env) error {
				if err := setUp(t, env, programs(t), "process", newRecord()); err != nil {
					return err
				}
				env.Values[rigKey{}].(*rig).checked = all
				return nil
			},
			Cmds:               allCommands(),
			Condition:          condition,
			RequireUniqueNames: true,
		})
	})
	if !t.Failed() && (all.before < leastBefore || all.taken < leastTaken) {
		t.Errorf("%d deliveries ended before MAIL as foreseen, and %d were taken so: that is too few", all.before, all.taken)
	}
	t.Logf("%d deliveries ended before MAIL as foreseen, %d were taken so, %d were not compared", all.before, all.taken, all.passed)
}

// leastBefore and leastTaken keep the comparison from being about nothing.
const leastBefore, leastTaken = 80, 80

// checked counts comparisons.
type checked struct {
	mu                    sync.Mutex
	before, taken, passed int
}

// A foresight is what mxf-check said.
type foresight struct {
	Outcome struct {
		Letter, Text, Address string
		Age                   int // in seconds, below which a message waits
	}
	status int
}

// incomparable has the scripts in which something is known to the delivery alone, and why.
var incomparable = map[string]string{
	"fault:[a-z]+=[^ ]*times:": "servers that count connections would count those of mxf-check",
	"(?m)^! ?rspawn":           "what is run is no delivery",
	"(?m)^uneven":              "chance has a say",
	`(ok|queued as) \d`:        "servers that number what they take would count connections of mxf-check",
}

// foresee asks mxf-check, and has the servers forget that it did.
func (r *rig) foresee(ts *testscript.TestScript, d lab.Delivery) *foresight {
	if r.checked == nil {
		return nil
	}
	args := d.Arguments
	script, err := os.ReadFile(filepath.Join("testdata", "script", filepath.Base(ts.Name())+".txtar"))
	ts.Check(err)
	skip := len(args) < 3 || args[0] == "" || strings.Contains(args[0], "@") || strings.ContainsRune(strings.Join(args, ""), 0)
	skip = skip || waives(d.Message)
	for pattern := range incomparable {
		skip = skip || regexp.MustCompile(pattern).Match(script)
	}
	if skip {
		r.checked.count(&r.checked.passed)
		return nil
	}
	sessions, queries := len(r.Inbox.Sessions()), len(r.DNS.Queries())
	ctx, cancel := context.WithTimeout(context.Background(), lab.DefaultLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(r.bin, "mxf-check"), append([]string{"-j", "-t", "86400", "--"}, args...)...)
	cmd.Env, cmd.Dir = d.Environ, d.Dir
	before := r.homeState(ts)
	got, err := finish(cmd)
	ts.Check(err)
	if after := r.homeState(ts); after != before {
		ts.Fatalf("mxf-check changed the home: %s, and then %s", before, after)
	}
	f := &foresight{status: got.status}
	if err := json.Unmarshal([]byte(got.out), f); err != nil || got.err != "" {
		ts.Fatalf("mxf-check: %v: exit %d, %q, %q", err, got.status, got.out, got.err)
	}
	ts.Logf("[foreseen %s %q, exit %d]", f.Outcome.Letter, f.Outcome.Text, f.status)
	fresh := func() []*lab.Session { return r.Inbox.Sessions()[sessions:] }
	eventually(settle, func() bool {
		return !slices.ContainsFunc(fresh(), func(s *lab.Session) bool { return !s.Over() })
	})
	for _, s := range fresh() {
		if began(s) {
			ts.Fatalf("mxf-check said MAIL: %q", s.Commands())
		}
	}
	r.Inbox.Rewind(sessions)
	r.DNS.Rewind(queries)
	return f
}

// waives reports whether a message may waive what the destination publishes on TLS: mxf-check has
// no message.
func waives(message *os.File) bool {
	text := make([]byte, 1<<16)
	n, _ := message.ReadAt(text, 0) // not of a pipe
	return regexp.MustCompile("(?mi)^TLS-Required:").Match(text[:n])
}

// began reports whether a transaction was begun.
func began(s *lab.Session) bool {
	return slices.ContainsFunc(s.Commands(), func(c string) bool { return strings.HasPrefix(strings.TrimPrefix(c, "TLS "), "MAIL") })
}

// ofMessage are reports on the message itself, which mxf-check has not.
var ofMessage = regexp.MustCompile(`partial final line|Unable to read message|over the limit|control/signingkeys|not a file`)

// compare holds a delivery against what was foreseen.
func (r *rig) compare(ts *testscript.TestScript, f *foresight, o *lab.Outcome) {
	if f == nil {
		return
	}
	reports := strings.Split(strings.TrimSuffix(string(o.Raw), "\x00"), "\x00")
	last := strings.ToValidUTF8(strings.TrimSuffix(reports[len(reports)-1], "\n"), "\uFFFD")
	text := last[min(len(last), 1):]
	letter := last[:min(len(last), 1)]
	said := f.Outcome
	switch {
	case ofMessage.MatchString(last), said.Letter == "":
		r.checked.count(&r.checked.passed)
	case said.Letter == "K" && letter == "K":
		if said.Age == 0 && !strings.HasPrefix(text, said.Address+" ") && !r.cameToMAIL(said.Address) {
			ts.Fatalf("it was taken by %q, and %s was foreseen", text, said.Address)
		}
		r.checked.count(&r.checked.taken)
	case said.Letter == "K" && said.Age > 0 && strings.Contains(text, fmt.Sprintf("not sent in the clear before it is %d seconds old", said.Age)):
		r.checked.count(&r.checked.before)
	case said.Letter == "K":
		if !eventually(settle, func() bool { return r.cameToMAIL(said.Address) }) {
			ts.Fatalf("it was foreseen that %s takes it, and before MAIL came %s", said.Address, last)
		}
		r.checked.count(&r.checked.passed)
	case said.Letter != letter || alikeText(said.Text) != alikeText(text):
		ts.Fatalf("foreseen was\n%s%s\nand there came\n%s", said.Letter, said.Text, last)
	default:
		r.checked.count(&r.checked.before)
	}
}

// cameToMAIL reports whether a transaction was begun at an address. All of QMTP is one.
func (r *rig) cameToMAIL(address string) bool {
	return slices.ContainsFunc(r.Inbox.Sessions(), func(s *lab.Session) bool {
		return s.Local.Addr().String() == address && (began(s) || s.Protocol != "smtp")
	})
}

func (c *checked) count(what *int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	*what++
}

// alikeText is a text of a report without what differs from run to run.
func alikeText(text string) string {
	for _, c := range chance {
		text = c.pattern.ReplaceAllString(text, c.instead)
	}
	return text
}

// homeState is what can be seen of the files of a home.
func (r *rig) homeState(ts *testscript.TestScript) string {
	out, err := finish(exec.Command("find", r.Home.Dir, "-printf", "%P %s %T@ %m\n"))
	ts.Check(err)
	return out.out
}
