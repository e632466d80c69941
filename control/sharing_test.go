package control_test

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/integration/must"
)

func readSharing(t testing.TB, f files) *control.Sharing {
	t.Helper()
	return must.Get(control.ReadSharing(home(t, f)))(t)
}

func TestReadSharing(t *testing.T) {
	defaults := control.Sharing{Idle: 5 * time.Second, Wait: 30 * time.Second, Resumption: true, QueueLifetime: 604_800 * time.Second}
	for _, test := range []struct {
		name string
		f    files
		want control.Sharing
	}{
		{"nothing", nil, defaults},
		{"empty", files{"connectionlimits": "", "connectionidle": "\n", "connectionwait": " \n", "tlsresumption": "", "statusfile": "\r\n", "queuelifetime": ""}, defaults},
		{"nobody else's mistakes", files{"me": "two words\n", "delnumbytes": "x", "spawnlimit": "x"}, defaults},
		{"nothing is shared", files{"connectionidle": "0\n", "connectionwait": "0\n", "tlsresumption": "0\n", "queuelifetime": "0\n"}, control.Sharing{}},
		{"the most", files{"connectionidle": "300\n", "connectionwait": "3600\n", "tlsresumption": "1\n", "statusfile": "/run/mxf/a status\n", "queuelifetime": "86400\n"},
			control.Sharing{Idle: 300 * time.Second, Wait: time.Hour, Resumption: true, QueueLifetime: 24 * time.Hour, StatusFile: "/run/mxf/a status"}},
	} {
		if got := readSharing(t, test.f); !reflect.DeepEqual(*got, test.want) {
			t.Errorf("%s: got %+v, want %+v", test.name, *got, test.want)
		}
	}
}

func TestReadSharing_queueLifetime(t *testing.T) {
	for text, want := range qmailNumbers {
		if want < 0 {
			want = 604_800
		}
		if s := readSharing(t, files{"queuelifetime": text}); s.QueueLifetime != time.Duration(want)*time.Second {
			t.Errorf("%.20q is %v", text, s.QueueLifetime)
		}
	}
}

func TestReadSharing_malformed(t *testing.T) {
	for name, more := range map[string]struct{ text, what string }{
		"connectionidle": {"301", "from 0 to 300"}, "connectionwait": {"3601", "from 0 to 3600"}, "tlsresumption": {"2", "expected 0 or 1"},
	} {
		for _, text := range append([]string{more.text}, badNumbers...) {
			s, err := control.ReadSharing(home(t, files{name: text}))
			refused(t, err, name, 1, more.what)
			if s != nil {
				t.Errorf("%s: %+v comes with an error", name, s)
			}
		}
	}
	for text, what := range map[string]string{
		"status": "an absolute path", "./status": "an absolute path", " /run/status": "without blanks before it", "/run/": "found that of a folder",
	} {
		h := home(t, files{"statusfile": text})
		_, err := control.ReadSharing(h)
		refused(t, err, "statusfile", 1, what)
		_, err = control.ReadStatusFile(h)
		refused(t, err, "statusfile", 1, what)
	}
}

// The parent reads statusfile alone.
func TestReadStatusFile(t *testing.T) {
	for text, want := range map[string]string{"": "", "\n": "", "/run/mxf status \n": "/run/mxf status"} {
		if got := must.Get(control.ReadStatusFile(home(t, files{"statusfile": text, "me": "two words\n", "connectionidle": "x"})))(t); got != want {
			t.Errorf("%q is %q", text, got)
		}
	}
	if got := must.Get(control.ReadStatusFile(home(t, nil)))(t); got != "" {
		t.Errorf("no file is %q", got)
	}
}

func TestConnectionLimits(t *testing.T) {
	limits := readSharing(t, files{"connectionlimits": `# what they take
.Example.org:5
.mx.example.org:6:7
MX.Example.ORG.:8:9:10
mx.example.org:11
[192.0.2.1]:1:10000:1000
[IPv6:2001:db8::1]:10000:1:1
bücher.example:12
:13:14:15
`}).Limits
	line := map[int]control.ConnectionLimit{
		2: {".Example.org", 5, 100, 100, 2}, 3: {".mx.example.org", 6, 7, 100, 3}, 4: {"MX.Example.ORG.", 8, 9, 10, 4}, 6: {"[192.0.2.1]", 1, 10000, 1000, 6},
		7: {"[IPv6:2001:db8::1]", 10000, 1, 1, 7}, 8: {"bücher.example", 12, 100, 100, 8}, 9: {"", 13, 14, 15, 9},
	}
	for _, test := range []struct {
		exchanger, addr string
		line            int
	}{
		{"mx.example.org", "192.0.2.9", 4},
		{"Mx.example.org.", "192.0.2.9", 4},
		{"mx.example.org", "192.0.2.1", 6}, // the address before the name
		{"a.mx.example.org", "192.0.2.9", 3},
		{"b.example.org", "192.0.2.9", 2},
		{"example.org", "192.0.2.9", 9},
		{"", "::ffff:192.0.2.1", 6},
		{"", "2001:db8::1", 7},
		{"[2001:db8::1]", "2001:db8::1", 7},
		{"xn--bcher-kva.example", "192.0.2.9", 8},
		{"two..dots", "192.0.2.9", 9},
		{"", "192.0.2.9", 9},
	} {
		if got := limits.For(test.exchanger, netip.MustParseAddr(test.addr)); got != line[test.line] {
			t.Errorf("%q %s: got %+v, want line %d", test.exchanger, test.addr, got, test.line)
		}
	}
	if all := limits.Lines(); len(all) != len(line) || all[0].Limit != line[2] || all[0].Exchanger != ".example.org" || all[len(all)-1].Limit != line[9] {
		t.Errorf("got %+v", all)
	}
	want := control.ConnectionLimit{Connections: 20, Messages: 100, Recipients: 100}
	for _, text := range []string{"", "\n# none\n", "elsewhere.example:1\n"} {
		if got := readSharing(t, files{"connectionlimits": text}).Limits.For("mx.example.org", netip.MustParseAddr("192.0.2.1")); got != want {
			t.Errorf("%q: got %+v", text, got)
		}
	}
}

func TestConnectionLimits_malformed(t *testing.T) {
	for entry, what := range map[string]string{
		"mx.example.org": "found one field", "[2001:db8::1]": "found one field", "mx:1:2:3:4": "found 5 fields", "2001:db8::1:5": "an address in brackets",
		"mx:": "of connections from 1 to 10000", ":0": "of connections", ":10001": "of connections", ":-1": "of connections", ": 1": "of connections", ":1x": "of connections",
		"mx:1:": "of messages from 1 to 10000", ":1::1": "of messages", ":1:0": "of messages", ":1:10001": "of messages",
		":1:1:": "of recipients from 1 to 1000", ":1:1:0": "of recipients", ":1:1:1001": "of recipients", ":1:1:1 #": "of recipients",
		"mx..example.org:1": "as the exchanger", ".:1": "as the exchanger", "[192.0.2.1:1": "as the exchanger", ".[192.0.2.1]:1": "as the exchanger", " mx:1": "as the exchanger",
	} {
		_, err := control.ReadSharing(home(t, files{"connectionlimits": "\n# x\n" + entry + "\n"}))
		refused(t, err, "connectionlimits", 3, what)
	}
}

// FuzzConnectionLimits: what a line says is found again by what it is for, and is within bounds.
func FuzzConnectionLimits(f *testing.F) {
	for _, text := range []string{
		":20:100:100", "mx.example.org:5", ".example.org:5:1", "[192.0.2.1]:1:2:3", "[IPv6:2001:db8::1]:7", ":0", "mx:1:", "mx\n", "#\n:1\n:2\n", "b\u00fccher.example:3",
		strings.Repeat("x", control.MaxLine+1),
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		h := home(t, files{"connectionlimits": text})
		s, err := control.ReadSharing(h)
		all := must.Get(control.ReadAll(h))(t)
		if (err == nil) == all.HasMistakes("connectionlimits") {
			t.Fatalf("ReadSharing says %v, ReadAll %v", err, all.Mistakes)
		}
		if err != nil {
			return
		}
		for _, found := range s.Limits.Lines() {
			limit := found.Limit
			if limit.Connections < 1 || limit.Connections > 10_000 || limit.Messages < 1 || limit.Messages > 10_000 || limit.Recipients < 1 || limit.Recipients > 1_000 || limit.Line < 1 {
				t.Errorf("got %+v", limit)
			}
			if name := limit.Entry; !strings.HasPrefix(name, ".") && s.Limits.For(name, netip.Addr{}) != limit {
				t.Errorf("%q finds %s", name, fmt.Sprint(s.Limits.For(name, netip.Addr{})))
			}
		}
	})
}
