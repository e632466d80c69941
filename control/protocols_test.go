package control

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"nightmare.mail/mxf/control/domain"
	"nightmare.mail/mxf/control/domain/domaintest"
)

var goodProtocols = []struct {
	entry string
	want  Protocol
}{
	{"qmtps:6209:-1:Y:N:mxf-remote-qmtpc", Protocol{Service: "qmtps", Port: 6209, Slice: -1, Implicit: true, Program: "mxf-remote-qmtpc"}},
	{"qmtp:209:1:N:N:mxf-remote-qmtpc", Protocol{Service: "qmtp", Port: 209, Slice: 1, Program: "mxf-remote-qmtpc"}},
	{"smtp:25:0:N:Y:mxf-remote-smtpc", Protocol{Service: "smtp", Port: 25, Explicit: true, Program: "mxf-remote-smtpc"}},
	{"x:1:15:N:N:p", Protocol{Service: "x", Port: 1, Slice: 15, Program: "p"}},
	{"x-25:65535:0:N:N:/p q:r:", Protocol{Service: "x-25", Port: 65535, Program: "/p q:r:"}},
	{"0:0025:01:N:N:p", Protocol{Service: "0", Port: 25, Slice: 1, Program: "p"}},
	{"x:1:0:N:N:./p", Protocol{Service: "x", Port: 1, Program: "./p"}},
	{"x:1:0:N:N::", Protocol{Service: "x", Port: 1, Program: ":"}},
	{"submissions:465:-1:Y:N:p", Protocol{Service: "submissions", Port: 465, Slice: -1, Implicit: true, Program: "p"}},
	{"submission:587:-1:N:Y:p", Protocol{Service: "submission", Port: 587, Slice: -1, Explicit: true, Program: "p"}},
	{"smtps:465:-1:Y:N:p", Protocol{Service: "smtps", Port: 465, Slice: -1, Implicit: true, Program: "p"}},
	{"senders:25:0:N:Y:p", Protocol{Service: "senders", Port: 25, Explicit: true, Program: "p"}},
	{strings.Repeat("s", 62) + ":1:0:N:N:p", Protocol{Service: strings.Repeat("s", 62), Port: 1, Program: "p"}},
}

var badProtocols = []struct{ entry, expected string }{
	{"smtp", "service:defport:slice"},
	{"smtp:25:0:N:Y", "service:defport:slice"},          // no program
	{"smtp 25 0 N Y prog", "service:defport:slice"},     // blanks for colons
	{":25:0:N:Y:prog", "a service of"},                  // none
	{"SMTP:25:0:N:Y:prog", "a service of"},              // upper case
	{"smtp_x:25:0:N:Y:prog", "a service of"},            // underscore
	{"../etc/x:25:0:N:Y:prog", "a service of"},          // a routes file elsewhere
	{" smtp:25:0:N:Y:prog", "a service of"},             // blank before it
	{"smtp :25:0:N:Y:prog", "a service of"},             // blank behind it
	{"smtp\u00e9:25:0:N:Y:prog", "a service of"},        // not ASCII
	{" # smtp:25:0:N:Y:prog", "a service of"},           // # is not the first byte
	{"smtp::0:N:Y:prog", "a port"},                      // none
	{"smtp:0:0:N:Y:prog", "a port"},                     // out of range
	{"smtp:65536:0:N:Y:prog", "a port"},                 // out of range
	{"smtp:4294967321:0:N:Y:prog", "a port"},            // 25 modulo 2^32
	{"smtp:-25:0:N:Y:prog", "a port"},                   // sign
	{"smtp:+25:0:N:Y:prog", "a port"},                   // sign
	{"smtp:smtp:0:N:Y:prog", "a port"},                  // name
	{"smtp: 25:0:N:Y:prog", "a port"},                   // blank
	{"smtp:0x19:0:N:Y:prog", "a port"},                  // not decimal
	{"smtp:25::N:Y:prog", "a slice"},                    // none
	{"smtp:25:16:N:Y:prog", "a slice"},                  // out of range
	{"smtp:25:-2:N:Y:prog", "a slice"},                  // out of range
	{"smtp:25:-01:N:Y:prog", "a slice"},                 // -1 has one spelling
	{"smtp:25:-0:N:Y:prog", "a slice"},                  // sign
	{"smtp:25:+1:N:Y:prog", "a slice"},                  // sign
	{"smtp:25:a:N:Y:prog", "a slice"},                   // not decimal
	{"submissions:465:0:Y:N:prog", "slice -1"},          // for relays only
	{"submission:587:15:N:Y:prog", "slice -1"},          // for relays only
	{"smtps:465:1:Y:N:prog", "slice -1"},                // for relays only
	{"sender:25:0:N:Y:prog", "control/senderroutes"},    // a routes file with another meaning
	{"smtp:25:0::Y:prog", "implicit"},                   // none
	{"smtp:25:0:y:N:prog", "implicit"},                  // lower case
	{"smtp:25:0:No:Y:prog", "implicit"},                 // a word
	{"smtp:25:0:0:1:prog", "implicit"},                  // numbers
	{"smtp:25:0:N::prog", "explicit"},                   // none
	{"smtp:25:0:N:n:prog", "explicit"},                  // lower case
	{"smtp:25:0:N:Y :prog", "explicit"},                 // blank
	{"smtp:25:0:Y:Y:prog", "not both"},                  // both
	{"smtp:25:0:N:Y:", "a program"},                     // none
	{"smtp:25:0:N:Y: prog", "a program"},                // blank
	{"smtp:25:0:N:Y:..", "a program"},                   // always a directory
	{strings.Repeat("s", 63) + ":1:0:N:N:p", "1 to 62"}, // too long for _service
}

func TestParseProtocol(t *testing.T) {
	for _, test := range goodProtocols {
		got, problem := parseProtocol(test.entry)
		if problem != "" || got != test.want {
			t.Errorf("%q: got %+v, %q, want %+v", test.entry, got, problem, test.want)
		}
	}
	for _, test := range badProtocols {
		got, problem := parseProtocol(test.entry)
		if !strings.HasPrefix(problem, "expected ") || !strings.Contains(problem, test.expected) || got != (Protocol{}) {
			t.Errorf("%q: got %+v, %q, want %q", test.entry, got, problem, test.expected)
		}
	}
}

func TestQMTP(t *testing.T) {
	for p, want := range map[Protocol]bool{
		{Service: "qmtp", Program: QMTPProgram}:                  true,
		{Service: "mine", Program: QMTPProgram}:                  true,
		{Service: "mine", Program: "/usr/lib/mxf-remote-qmtpc"}:  true,
		{Service: "qmtps", Program: "/usr/lib/another-client"}:   true,
		{Service: "qmtp", Program: "another-client"}:             true,
		{Service: "smtp", Program: SMTPProgram}:                  false,
		{Service: "smtp", Program: "/usr/lib/mxf-remote-smtpc"}:  false,
		{Service: "submission", Program: "/usr/lib/qmtp-client"}: false,
	} {
		if p.QMTP() != want {
			t.Errorf("%s with %s: %v", p.Service, p.Program, !want)
		}
	}
}

func TestRelayOnly(t *testing.T) {
	for service, want := range map[string]bool{
		"submissions": true, "submission": true, "smtps": true, "smtp": false, "qmtps": false, "submissionss": false, "": false,
	} {
		if p := (&Protocol{Service: service}); p.RelayOnly() != want {
			t.Errorf("%s: got %v", service, !want)
		}
	}
}

// spell returns the line of control/protocols that means p.
func spell(p Protocol) string {
	yn := map[bool]string{true: "Y", false: "N"}
	return fmt.Sprintf("%s:%d:%d:%s:%s:%s", p.Service, p.Port, p.Slice, yn[p.Implicit], yn[p.Explicit], p.Program)
}

// FuzzProtocols wants of every file that it is malformed in a line that exists, or gives
// protocols that are as mxf-control(5) says. Written out, these give the same again.
func FuzzProtocols(f *testing.F) {
	f.Add([]byte(defaultProtocols))
	f.Add([]byte("# none\n\n"))
	for _, test := range goodProtocols {
		f.Add([]byte(test.entry))
		f.Add([]byte("# a comment\r\n" + test.entry + " \t\r\n" + defaultProtocols))
	}
	for _, test := range badProtocols {
		f.Add([]byte(test.entry))
		f.Add([]byte(defaultProtocols + test.entry))
	}
	d := dir{home: "/home"}
	f.Fuzz(func(t *testing.T, data []byte) {
		protocols, err := d.parseProtocols(data)
		if err != nil {
			checkError(t, err, "control/protocols", data)
			return
		}
		if len(protocols) == 0 {
			t.Fatal("no protocol and no error")
		}
		var again strings.Builder
		seen := map[string]bool{}
		for i, p := range protocols {
			checkProtocol(t, p)
			if p.Line <= i || p.Line > 1+strings.Count(string(data), "\n") {
				t.Errorf("%q: line %d", p.Service, p.Line)
			}
			protocols[i].Line = i + 1 // where spell writes it below
			if seen[p.Service] {
				t.Errorf("%q twice", p.Service)
			}
			seen[p.Service] = true
			again.WriteString(spell(p) + "\n")
		}
		if second, err := d.parseProtocols([]byte(again.String())); err != nil || !slices.Equal(second, protocols) {
			t.Errorf("%q gives %+v, %v, want %+v", again.String(), second, err, protocols)
		}
	})
}

func checkProtocol(t *testing.T, p Protocol) {
	t.Helper()
	switch {
	case strings.Trim(p.Service, "abcdefghijklmnopqrstuvwxyz0123456789-") != "", p.Service == "", len(p.Service) > 62:
		t.Errorf("service %q", p.Service)
	case p.Service == "sender", p.RelayOnly() && p.Slice != NoSlice:
		t.Errorf("%+v", p)
	case p.Port == 0, p.Slice < -1, p.Slice > 15, p.Implicit && p.Explicit:
		t.Errorf("%+v", p)
	case p.Program == "", trimString(p.Program) != p.Program, strings.Contains(p.Program, "/") && p.Program[0] != '/':
		t.Errorf("program %q", p.Program)
	}
}

func trimString(s string) string { return string(trim([]byte(s))) }

// checkError wants an error about file, of one line, with a line number that data has.
func checkError(t *testing.T, err error, file string, data []byte) {
	t.Helper()
	e, ok := err.(*Error)
	if !ok || e.File != file || !strings.HasPrefix(e.What, "expected ") {
		t.Fatalf("error %#v", err)
	}
	if lines := 1 + strings.Count(string(data), "\n"); e.Line < 0 || e.Line > lines {
		t.Errorf("%v: there are %d lines", err, lines)
	}
	if strings.ContainsAny(err.Error(), "\x00\r\n") || len(err.Error()) > 700 {
		t.Errorf("%q cannot stand in a log", err)
	}
}

// FuzzValue wants of every value that it is refused or means one thing.
func FuzzValue(f *testing.F) {
	for _, s := range []string{
		"", "0", "60", "007", "2147483647", "2147483648", "-1", "60s", "mx.example.org", "two words", "a..b", "a\x7f", strings.Repeat("a", 256),
	} {
		f.Add(s)
	}
	for _, n := range domaintest.Unicode {
		f.Add(n.Text)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if n, ok := decimal(s, maxNumber); ok {
			if n < 0 || n > maxNumber || strings.TrimLeft(s, "0") != strings.TrimLeft(fmt.Sprint(n), "0") {
				t.Errorf("%q is %d", s, n)
			}
		}
		if host, problem := parseHeloHost(s); problem == "" {
			if host == "" && s != "" || len(host) > 255 || !domain.IsASCII(host) || strings.ContainsFunc(host, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
				t.Errorf("helohost %q", host)
			}
			if again, problem := parseHeloHost(host); again != host || problem != "" {
				t.Errorf("%q becomes %q, %s", host, again, problem)
			}
		}
	})
}
