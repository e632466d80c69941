package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"
)

// said is what a check writes of the events of go test.
func said(t *testing.T, events ...string) (text string, ok bool) {
	t.Helper()
	var out bytes.Buffer
	c := newCheck(&out, false)
	c.follow(strings.NewReader(strings.Join(events, "\n")))
	ok = c.close()
	return out.String(), ok
}

func TestFollow(t *testing.T) {
	text, ok := said(t,
		`{"Action":"start","Package":"nightmare.mail/mxf/remote"}`,
		`{"Action":"run","Package":"nightmare.mail/mxf/remote","Test":"TestA"}`,
		`{"Action":"output","Package":"nightmare.mail/mxf/remote","Test":"TestA","Output":"never shown\n"}`,
		`{"Action":"pass","Package":"nightmare.mail/mxf/remote","Test":"TestA"}`,
		`{"Action":"run","Package":"nightmare.mail/mxf/remote","Test":"TestB"}`,
		`{"Action":"run","Package":"nightmare.mail/mxf/remote","Test":"TestB/one"}`,
		`{"Action":"run","Package":"nightmare.mail/mxf/remote","Test":"TestB/two"}`,
		`{"Action":"output","Package":"nightmare.mail/mxf/remote","Test":"TestB/two","Output":"    x_test.go:1: NOT TESTED, needs postfix: there is no postfix\n"}`,
		`{"Action":"pass","Package":"nightmare.mail/mxf/remote","Test":"TestB/one"}`,
		`{"Action":"skip","Package":"nightmare.mail/mxf/remote","Test":"TestB/two"}`,
		`{"Action":"pass","Package":"nightmare.mail/mxf/remote","Test":"TestB"}`,
		`{"Action":"output","Package":"nightmare.mail/mxf/remote","Test":"TestC","Output":"    x_test.go:2: the moon is full\n"}`,
		`{"Action":"output","Package":"nightmare.mail/mxf/remote","Test":"TestC","Output":"--- SKIP: TestC (0.00s)\n"}`,
		`{"Action":"skip","Package":"nightmare.mail/mxf/remote","Test":"TestC"}`,
		`{"Action":"output","Package":"nightmare.mail/mxf/remote","Output":"ok\n"}`,
		`{"Action":"pass","Package":"nightmare.mail/mxf/remote","Elapsed":1.5}`,
	)
	const want = `ok    remote 1.5s: 2 passed, 2 skipped, 0 failed

Not tested, and what it needs (Debian packages, or root):
  postfix              TestB/two

Skipped for other reasons:
  TestC: x_test.go:2: the moon is full

2 passed, 2 skipped, 0 failed
`
	if text != want || !ok {
		t.Errorf("%v, got\n%s\nwant\n%s", ok, text, want)
	}
}

// What fails is shown whole and named in the last line: a subtest in place of the test
// that it belongs to, tests that a panic has cut off, packages that cannot be built.
func TestFollow_failures(t *testing.T) {
	for _, test := range []struct {
		what   string
		events []string
		shown  []string
		last   string
	}{
		{"a subtest", []string{
			`{"Action":"run","Package":"m/mxf/p","Test":"TestA"}`,
			`{"Action":"run","Package":"m/mxf/p","Test":"TestA/x"}`,
			`{"Action":"output","Package":"m/mxf/p","Test":"TestA/x","Output":"first\n"}`,
			`{"Action":"output","Package":"m/mxf/p","Test":"TestA/x","Output":"second\n"}`,
			`{"Action":"fail","Package":"m/mxf/p","Test":"TestA/x"}`,
			`{"Action":"fail","Package":"m/mxf/p","Test":"TestA"}`,
			`{"Action":"run","Package":"m/mxf/p","Test":"TestB"}`,
			`{"Action":"fail","Package":"m/mxf/p","Test":"TestB"}`,
			`{"Action":"fail","Package":"m/mxf/p"}`,
		}, []string{"first\nsecond\n"}, "0 passed, 0 skipped, 2 failed: TestA/x TestB"},
		{"a panic", []string{
			`{"Action":"run","Package":"m/mxf/p","Test":"TestA"}`,
			`{"Action":"output","Package":"m/mxf/p","Test":"TestA","Output":"panic: oh\n"}`,
			`{"Action":"output","Package":"m/mxf/p","Output":"FAIL\tm/mxf/p\n"}`,
			`{"Action":"fail","Package":"m/mxf/p"}`,
		}, []string{"panic: oh\n", "FAIL\tm/mxf/p\n"}, "0 passed, 0 skipped, 1 failed: TestA"},
		{"no build", []string{
			`{"ImportPath":"m/mxf/p [m/mxf/p.test]","Action":"build-output","Output":"./x.go:1: oh\n"}`,
			`{"ImportPath":"m/mxf/p [m/mxf/p.test]","Action":"build-fail"}`,
			`{"Action":"start","Package":"m/mxf/p"}`,
			`{"Action":"fail","Package":"m/mxf/p","FailedBuild":"m/mxf/p [m/mxf/p.test]"}`,
		}, []string{"./x.go:1: oh\n"}, "0 passed, 0 skipped, 1 failed: p"},
		{"no JSON", []string{`go: cannot find module`, `{"Action":"fail","Package":"m/mxf/p"}`},
			[]string{"go: cannot find module\n"}, "0 passed, 0 skipped, 1 failed: p"},
	} {
		text, ok := said(t, test.events...)
		if ok || !strings.HasSuffix(text, "\n\n"+test.last+"\n") {
			t.Errorf("%s: %v, got\n%s\nwant the last line %q", test.what, ok, text, test.last)
		}
		for _, part := range test.shown {
			if !strings.Contains(text, part) {
				t.Errorf("%s: %q is not in\n%s", test.what, part, text)
			}
		}
	}
}

// A slash in the name of a subtest makes no test of what stands in front of it.
func TestFollow_slashInAName(t *testing.T) {
	text, ok := said(t,
		`{"Action":"run","Package":"nightmare.mail/mxf/remote","Test":"TestA"}`,
		`{"Action":"run","Package":"nightmare.mail/mxf/remote","Test":"TestA/clear/small"}`,
		`{"Action":"pass","Package":"nightmare.mail/mxf/remote","Test":"TestA/clear/small"}`,
		`{"Action":"run","Package":"nightmare.mail/mxf/remote","Test":"TestA/secure/small"}`,
		`{"Action":"fail","Package":"nightmare.mail/mxf/remote","Test":"TestA/secure/small"}`,
		`{"Action":"fail","Package":"nightmare.mail/mxf/remote","Test":"TestA"}`,
		`{"Action":"fail","Package":"nightmare.mail/mxf/remote","Elapsed":1}`,
	)
	if ok || !strings.HasSuffix(text, "\n1 passed, 0 skipped, 1 failed: TestA/secure/small\n") {
		t.Errorf("%v, %s", ok, text)
	}
}

func TestStep(t *testing.T) {
	var out bytes.Buffer
	c := newCheck(&out, false)
	c.end("vet", nil, nil)
	c.end("lint", []byte("bad line\n"), errors.New("status 1"))
	c.missing("manual pages", "mandoc", "mandoc is not installed")
	if text := out.String(); c.close() || !strings.Contains(text, "bad line\n") || !strings.Contains(text, "skip  manual pages: mandoc is not installed\n") {
		t.Errorf("%s", text)
	}
	if !strings.HasSuffix(out.String(), "\n1 passed, 1 skipped, 1 failed: lint\n") {
		t.Errorf("%s", out.String())
	}

	out.Reset()
	c = newCheck(&out, true)
	c.missing("manual pages", "mandoc", "mandoc is not installed")
	if c.close() || !strings.HasSuffix(out.String(), "\n0 passed, 0 skipped, 1 failed: manual pages\n0 passed, 1 failed, 0 skipped\n") {
		t.Errorf("in CI: %s", out.String())
	}
}

func TestUnasked(t *testing.T) {
	for _, ci := range []bool{false, true} {
		for output, why := range map[string]string{"loading\nno such host\n\n": "no such host", "": "status 1"} {
			var out bytes.Buffer
			c := newCheck(&out, ci)
			c.unasked("scan", []byte(output), errors.New("status 1"))
			if text := out.String(); !c.close() || text != "NOT DONE  scan: "+why+"\n" {
				t.Errorf("%v, %s", ci, text)
			}
			if !strings.Contains(out.String(), "\nSkipped for other reasons:\n  scan: "+why+"\n\n0 passed, 1 skipped, 0 failed\n") {
				t.Errorf("%v, %s", ci, out.String())
			}
		}
	}
}

// lines hands on what is written, line by line.
type lines chan string

func (l lines) Write(b []byte) (int, error) { l <- string(b); return len(b), nil }

func TestKeepTalking(t *testing.T) {
	out := make(lines, 100)
	c := newCheck(out, false)
	c.begin("go test")
	c.event([]byte(`{"Action":"pass","Package":"m/mxf/p","Test":"TestA"}`))
	stop := c.keepTalking(10 * time.Millisecond)
	if line := <-out; !strings.HasSuffix(line, ", go test: p (1 done)\n") {
		t.Errorf("%q", line)
	}
	stop()
}
