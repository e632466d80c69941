package transport

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/remote/report"
	"nightmare.mail/mxf/tlsc"
)

// On a machine so busy that the time for reading is over before it began, what is
// in the pipe counts all the same: a message that was delivered must not be sent
// again.
func TestResult_reportsAreReadLate(t *testing.T) {
	r, w := must.Pipe(t)
	e, we := must.Pipe(t)
	_, _ = w.WriteString("r\x00Kok\x00")
	_, _ = we.WriteString("why")
	self, err := os.StartProcess("/bin/true", []string{"true"}, &os.ProcAttr{})
	if err != nil {
		t.Skip(err)
	}
	// No reader runs: it has met its deadline.
	p := &process{Process: self, printed: printed{reports: report.Parser{Recipients: 1}}, stdout: r, stderr: e, complete: make(chan struct{}), ended: make(chan struct{})}
	if stream, err := p.result(t.Context(), 0); err != nil || shown(stream) != "r|Kok|" || string(p.said) != "why" {
		t.Errorf("%q, %v, %q", shown(stream), err, p.said)
	}
}

// However it is cut, what is kept is the same.
func TestPrinted(t *testing.T) {
	long := strings.Repeat("x", 3*maxReport)
	for _, test := range []struct {
		in, want string // want is the stream, or in the error
		complete bool
	}{
		{"r\x00Kok\x00", "r|Kok|", true},
		{"r\x00Kok\x00Zand more\x00", "r|Kok|", true},
		{"Kok\x00", "r|Kok|", true},
		{"r\x00K" + long + "\x00", "r|K" + long[:maxReport-1] + "|", true},
		{"h" + long + "\x00Dno\x00", "h" + long[:maxReport-1] + "|Dno|", true},
		{"", "incomplete reports", false},
		{"hello\n", `incomplete reports: no zero byte ends "hello\n"`, false},
		{"r\x00Kok", `incomplete reports: no zero byte ends "Kok"`, false},
		{long, `ends "` + long[:maxQuoted] + `"`, false},
		{"goodbye\n\x00", `"goodbye\n" is not a report`, false},
		{long + "\x00", `"` + long[:maxQuoted] + `" is not a report`, false},
		{"r\x00r\x00Kok\x00", "more recipient reports than the 1 recipients", false},
		{strings.Repeat("\x00", 5*maxReport), "a report without a letter", false},
	} {
		for _, step := range []int{1, 7, maxReport, max(1, len(test.in))} {
			p := printed{reports: report.Parser{Recipients: 1}}
			complete := false
			for b := range slices.Chunk([]byte(test.in), step) {
				p.add(b)
				if complete && !p.complete() {
					t.Errorf("%.20q by %d: no longer complete", test.in, step)
				}
				complete = p.complete()
			}
			stream, err := p.stream()
			if complete != test.complete || (err == nil) != test.complete ||
				err == nil && shown(stream) != test.want || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("%.20q by %d: %.30q, %.300v", test.in, step, shown(stream), err)
			}
			if p.nothing() != (test.in == "") || cap(p.bytes) > 4*maxReport {
				t.Errorf("%.20q by %d: nothing %v, %d bytes kept", test.in, step, p.nothing(), cap(p.bytes))
			}
		}
	}
}

// What is kept of a thousand long reports has a bound, and every one of them counts.
func TestPrinted_bound(t *testing.T) {
	const recipients = 1000
	p := printed{reports: report.Parser{Recipients: recipients}}
	long := []byte("s" + strings.Repeat("x", maxReport) + "\x00")
	for range recipients {
		p.add(long)
	}
	p.add([]byte("Zlater\x00"))
	stream, err := p.stream()
	if err != nil || len(stream.Recipients) != recipients || stream.Message.Text != "later" {
		t.Errorf("%d reports, %q, %v", len(stream.Recipients), stream.Message.Text, err)
	}
	if n := len(stream.Bytes()); n > maxReports+maxReport+recipients*(fewReport+10) {
		t.Errorf("%d bytes are kept", n)
	}
}

// Each report is read once, however many there are and in however small pieces they come.
func TestPrinted_manyReports(t *testing.T) {
	const recipients = 20_000
	p := printed{reports: report.Parser{Recipients: recipients}}
	refusal := []byte("h127.0.0.1 does not like recipient.\nRemote host said: 550 no such user\n\x00")
	add := func() {
		for piece := range slices.Chunk(refusal, 16) {
			p.add(piece)
			_ = p.complete()
		}
	}
	const measured = 100
	for range recipients - measured - 1 {
		add()
	}
	// What is read again is allocated again: nothing but the new report is.
	if n := testing.AllocsPerRun(measured, add); n > 5 {
		t.Errorf("%v allocations for a report", n)
	}
	p.add([]byte("Dgone\n\x00"))
	if stream, err := p.stream(); err != nil || len(stream.Recipients) != recipients {
		t.Errorf("%d reports, %v", len(stream.Recipients), err)
	}
}

func TestSaid(t *testing.T) {
	var s said
	s.add([]byte("begin"))
	for range 100 {
		s.add(bytes.Repeat([]byte{'x'}, maxStderr))
	}
	s.add([]byte("end"))
	if len(s) != maxStderr || !bytes.HasPrefix(s, []byte("beginx")) || !bytes.HasSuffix(s, []byte("xend")) {
		t.Errorf("%d bytes, %q...%q", len(s), s[:10], s[len(s)-10:])
	}
}

// A script in the place of a bundled program is run; the program itself is called.
func TestInProcess_script(t *testing.T) {
	c := &Carrier{Settings: &control.Settings{}, Programs: t.TempDir()}
	protocol := &control.Protocol{Service: "smtp", Program: control.SMTPProgram}
	place := filepath.Join(c.Programs, control.SMTPProgram)
	for _, test := range []struct {
		content string
		want    bool
	}{{"", true}, {"\x7fELF", true}, {"#!/bin/sh\n", false}} {
		os.Remove(place)
		if test.content != "" {
			must.OK(t, os.WriteFile(place, []byte(test.content), 0o755))
		}
		if got := c.InProcess(protocol); got != test.want {
			t.Errorf("%q: in this process: %v", test.content, got)
		}
	}
}

func TestDiagnosis(t *testing.T) {
	for said, want := range map[string]struct {
		fatal fatal
		rest  string
	}{
		"":                                     {},
		"mxf-tlsc: fatal: why\n":               {fatal{program: "mxf-tlsc", what: "why"}, ""},
		"a sentence\ns6-tlsc-io: fatal: why\n": {fatal{program: "s6-tlsc-io", what: "why"}, "a sentence"},
		"mxf-tlsc: fatal: why: fatal: more":    {fatal{program: "mxf-tlsc", what: "why: fatal: more"}, ""},
		"mxf-ucspitlsc: fatal: certificate matches none of x; besides, certificate expired on y": {fatal{"mxf-ucspitlsc", "certificate matches none of x",
			tlsc.Faults{Records: tlsc.FaultNoMatch, Anchors: tlsc.FaultDate}}, ""},
		"s6-ucspitlsc: fatal: certificate matches none of x; besides, certificate expired on y": {fatal{program: "s6-ucspitlsc",
			what: "certificate matches none of x; besides, certificate expired on y"}, ""},
		"550-evil: fatal: why\n550 no": {fatal{}, "550-evil: fatal: why\n550 no"},
		"two words: fatal: why":        {fatal{}, "two words: fatal: why"},
		": fatal: why":                 {fatal{}, ": fatal: why"},
	} {
		if f, rest := diagnosis(said); f != want.fatal || rest != want.rest {
			t.Errorf("%q: %+v, %q", said, f, rest)
		}
	}
}

// A TLS client with a bare name is beside the router or, if it is not there, in bin.
func TestClientPath(t *testing.T) {
	programs, home := t.TempDir(), t.TempDir()
	if err := errors.Join(os.MkdirAll(filepath.Join(home, "bin"), 0o755), os.WriteFile(filepath.Join(programs, "beside"), nil, 0o755),
		os.WriteFile(filepath.Join(home, "bin", "beside"), nil, 0o755)); err != nil {
		t.Fatal(err)
	}
	smtp, smtps := &control.Protocol{Explicit: true}, &control.Protocol{Implicit: true}
	for client, want := range map[string]string{
		"beside":  filepath.Join(programs, "beside"),
		"not":     filepath.Join(home, "bin", "not"),
		"/bin/no": "/bin/no",
	} {
		c := &Carrier{Settings: &control.Settings{Home: home, TLSClient: client, UCSPITLSClient: client}, Programs: programs}
		if got, other := c.tlsClientPath(smtps), c.tlsClientPath(smtp); got != want || other != want {
			t.Errorf("%q: %q and %q, want %q", client, got, other, want)
		}
		if got := c.namedBy(want); got != " (control/tlsclient:1)" {
			t.Errorf("%q: named by %q", client, got)
		}
	}
	c := &Carrier{Settings: &control.Settings{Home: home}, Programs: programs}
	if got, other := c.tlsClientPath(smtps), c.tlsClientPath(smtp); got != programs+"/mxf-tlsc" || other != programs+"/mxf-ucspitlsc" || c.namedBy(got) != "" {
		t.Errorf("by default %q and %q", got, other)
	}
}

// A client that a control file names is ours if it is the same file as the bundled one,
// whatever that is.
func TestHasOurClient(t *testing.T) {
	programs, home := t.TempDir(), t.TempDir()
	for _, path := range []string{programs + "/mxf-tlsc", programs + "/mxf-ucspitlsc", home + "/mxf-tlsc", programs + "/other"} {
		must.Script(t, path, "exit 0\n")
	}
	must.OK(t, os.Symlink(programs+"/mxf-tlsc", home+"/link"), os.Symlink(home+"/link", home+"/linklink"), os.Symlink(home+"/mxf-tlsc", programs+"/away"))
	smtp, smtps := &control.Protocol{Explicit: true}, &control.Protocol{Implicit: true}
	for client, want := range map[string][2]bool{ // for implicit and explicit TLS
		"":                         {true, true},
		"mxf-tlsc":                 {true, false},
		"mxf-ucspitlsc":            {false, true},
		programs + "/mxf-tlsc":     {true, false},
		programs + "/./mxf-tlsc":   {true, false},
		home + "/link":             {true, false},
		home + "/linklink":         {true, false},
		home + "/mxf-tlsc":         {false, false}, // a file of the same name elsewhere
		"away":                     {false, false},
		"other":                    {false, false},
		home + "/missing":          {false, false},
		programs + "/missing/file": {false, false},
	} {
		c := &Carrier{Settings: &control.Settings{Home: home, TLSClient: client, UCSPITLSClient: client}, Programs: programs}
		if got := [2]bool{c.HasOurClient(smtps), c.HasOurClient(smtp)}; got != want {
			t.Errorf("%q: %v, want %v", client, got, want)
		}
	}
	c := &Carrier{Settings: &control.Settings{Home: home, TLSClient: home + "/link"}, Programs: home + "/elsewhere"}
	if c.HasOurClient(smtps) {
		t.Error("there is no bundled one")
	}
}

// shown is a stream as a log would show it.
func shown(s report.Stream) string {
	return strings.NewReplacer("\n\x00", "|", "\x00", "|").Replace(string(s.Bytes()))
}
