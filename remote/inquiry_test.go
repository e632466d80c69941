package remote

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/remote/dns"
	"nightmare.mail/mxf/remote/mtasts"
	"nightmare.mail/mxf/remote/report"
)

// newInquiry returns an inquiry about MTA-STS whose mxf-policy is a script.
func newInquiry(t *testing.T, script string) *inquiry {
	t.Helper()
	programs, cache := t.TempDir(), t.TempDir()
	if script != "" {
		must.Script(t, filepath.Join(programs, "mxf-policy"), script)
	}
	codes := exits
	codes.NotFetched = 75
	r := must.Get(New(Config{Settings: &control.Settings{Home: t.TempDir(), IPMe: nil}, Programs: programs, Environ: os.Environ(), Exits: codes}))(t)
	r.Settings.MTASTS = cache
	return r.inquire(&Job{Host: "example.org"})
}

// hear has q hear of a record, and returns what comes of it.
func (q *inquiry) hear(ctx context.Context) (mtasts.Finding, error) {
	q.heard(ctx, "example.org", []*dns.Answer{{TXT: []string{"v=STSv1; id=1;"}}})
	err := q.wait()
	return q.sts["example.org"], err
}

const stsEntry = `printf 'mxf-sts 1\ndomain example.org\nid 1\nfetched 1000000000\nbytes 62\n\nversion: STSv1\nmode: enforce\nmx: mx.example.org\nmax_age: 9999\n'`

// What keeps a policy from being fetched is a failure of the domain's, which has no policy then,
// or one of ours, which ends the delivery for now.
func TestInquiry_fetch(t *testing.T) {
	for _, c := range []struct {
		name, script string
		want         string // of the finding, or in the report
		isOurs       bool
	}{
		{"fetched", stsEntry, "enforce fetched 1: not cached", false},
		{"not fetched", `printf 'mxf-sts 1\ndomain example.org\nfailed 1000000000 sts-policy-invalid no mx\n\n'; exit 75`, "none: sts-policy-invalid no mx", false},
		{"rubbish", `echo hello`, "none: sts-policy-fetch-error it has no empty line", false},
		{"nothing", `exit 75`, "none: sts-policy-fetch-error it has no empty line", false},
		{"killed", `kill -9 $$`, "none: sts-policy-fetch-error mxf-policy ended with signal: killed", false},
		{"settings", `echo 'Control files are broken.' >&2; exit 111`, "exit status 111, saying: Control files are broken.", true},
		{"usage", `exit 100`, "exit status 100", true},
		{"missing", "", "no such file or directory", true},
	} {
		q := newInquiry(t, c.script)
		finding, err := q.hear(t.Context())
		got := finding.String()
		unable := new(report.Error)
		if errors.As(err, &unable) != c.isOurs {
			t.Errorf("%s: %v", c.name, err)
		}
		if c.isOurs {
			r := report.For(err)
			if got = r.Text; r.Letter != report.Temporary || !strings.Contains(got, "(#4.3.0)") {
				t.Errorf("%s: %+v", c.name, r)
			}
		}
		if !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
		e, _ := q.store().Load("example.org")
		if remembered := e != nil && e.Failed != nil; remembered != strings.HasPrefix(c.want, "none: sts-policy-fetch-error") {
			t.Errorf("%s: the cache has %+v", c.name, e)
		}
	}
}

// A fetch that ends with its delivery is no failure that others are to go by.
func TestInquiry_over(t *testing.T) {
	q := newInquiry(t, `touch "$MXF_HOME/begun"; exec sleep 60`)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	over := make(chan struct{})
	go func() {
		defer close(over)
		if finding, err := q.hear(ctx); err != nil || finding.Holds != nil || finding.Failed != nil {
			t.Errorf("%+v, %v", finding, err)
		}
	}()
	must.Until(t, "mxf-policy", func() bool { _, err := os.Stat(filepath.Join(q.Settings.Home, "begun")); return err == nil })
	cancel()
	must.Within(t, "end", func() { <-over })
	if e, _ := q.store().Load("example.org"); e != nil {
		t.Errorf("the cache has %+v", e)
	}
}

// What is unforeseen must not pass for a domain without a policy.
func TestInquiry_panic(t *testing.T) {
	q := newInquiry(t, stsEntry)
	q.Router.Now = func() time.Time { panic("unforeseen") }
	_, err := q.hear(t.Context())
	if err == nil || report.For(err).Letter != report.Temporary {
		t.Errorf("%v", err)
	}
}

// waivers are messages, and whether they waive what is published.
var waivers = []struct {
	text string
	want bool
}{
	{"TLS-Required: No\n\nbody\n", true},
	{"Subject: x\ntls-required:nO \t\nFrom: y\n\nbody\n", true},
	{"TLS-Required: No\r\n\r\nbody\r\n", true},
	{"TLS-Required : No\n", true},
	{"TLS-Required: No", true},
	{"TLS-Required:\n No\n\n", true}, // folded
	{"TLS-Required:\r\n\tNo\r\n \r\n\r\n", true},
	{"TLS-Required: No\n x\n\n", false},
	{"Subject: x\n TLS-Required: No\n\n", false},
	{"TLS-Required: No\nTLS-Required: NO\n\n", true}, // all of them
	{"TLS-Required: No\nTLS-Required: Yes\n\n", false},
	{"TLS-Required: Yes\nTLS-Required: No\n\n", false},
	{"TLS-Required: Nope\n\n", false},
	{"TLS-Required: N o\n\n", false},
	{"TLS-Required:\n\n", false},
	{"TLS-Required\n\n", false},
	{"X-TLS-Required: No\n\n", false},
	{"TLS-Requiredx: No\n\n", false},
	{"Subject: x\n\nTLS-Required: No\n", false}, // in the body
	{"\nTLS-Required: No\n", false},
	{"\n TLS-Required: No\n", false},
	{"\r\nTLS-Required: No\r\n", false},
	{"", false},
	{"TLS-Required: No\nX: " + strings.Repeat("x", maxWaiver), true},
	{"X: " + strings.Repeat("x", maxWaiver) + "\nTLS-Required: No\n", false},
	{"X:" + strings.Repeat("\n ", maxWaiver), false},
}

// The message is read from its present offset, which stays.
func TestWaives(t *testing.T) {
	for _, c := range waivers {
		path := filepath.Join(t.TempDir(), "message")
		for _, before := range []string{"", "\n", "TLS-Required: No\n"} {
			must.Write(t, path, before+c.text)
			message := must.Open(t, path)
			at := must.Get(message.Seek(int64(len(before)), io.SeekStart))(t)
			if got := waives(message); got != c.want {
				t.Errorf("%.100q: %v", c.text, got)
			}
			if now := must.Get(message.Seek(0, io.SeekCurrent))(t); now != at {
				t.Errorf("%.100q: the offset is %d and was %d", c.text, now, at)
			}
		}
	}
	r, w := must.Pipe(t)
	must.Get(w.WriteString("TLS-Required: No\n\n"))(t)
	if waives(r) || waives(nil) {
		t.Error("a pipe, or no message, waives")
	}
}

func FuzzWaives(f *testing.F) {
	for _, c := range waivers {
		f.Add(c.text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if saysNo("X: y\n"+text) && !strings.Contains(strings.ToLower(text), "tls-required") {
			t.Errorf("%q", text)
		}
	})
}
