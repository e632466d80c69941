package control_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/integration/must"
)

func TestReadSpawn(t *testing.T) {
	for _, test := range []struct {
		name string
		f    files
		want control.Spawn
	}{
		{"nothing", nil, control.Spawn{NumberBytes: 1, Limit: 255, Concurrency: 20}},
		{"empty", files{"delnumbytes": "\n", "spawnlimit": "", "concurrencyremote": "\n"}, control.Spawn{NumberBytes: 1, Limit: 255, Concurrency: 20}},
		{"one byte", files{"delnumbytes": "1\n", "spawnlimit": "1 \r\n", "concurrencyremote": "120\n"}, control.Spawn{NumberBytes: 1, Limit: 1, Concurrency: 120}},
		{"two bytes", files{"delnumbytes": "2\n"}, control.Spawn{NumberBytes: 2, Limit: 500, Concurrency: 20}},
		{"two bytes, many", files{"delnumbytes": "2", "spawnlimit": "12000\nmore\n", "concurrencyremote": "0"}, control.Spawn{NumberBytes: 2, Limit: 12000}},
		{"nobody else's mistakes", files{"me": "two words\n", "connectionlimits": "x\n", "statusfile": "x\n"}, control.Spawn{NumberBytes: 1, Limit: 255, Concurrency: 20}},
	} {
		if got := must.Get(control.ReadSpawn(home(t, test.f)))(t); got != test.want {
			t.Errorf("%s: got %+v, want %+v", test.name, got, test.want)
		}
	}
}

func TestReadSpawn_malformed(t *testing.T) {
	for _, text := range append([]string{"0", "3", "two"}, badNumbers...) {
		_, err := control.ReadSpawn(home(t, files{"delnumbytes": text}))
		refused(t, err, "delnumbytes", 1, "expected 1 or 2, found ")
	}
	h := home(t, nil)
	must.OK(t, os.Mkdir(filepath.Join(h, "control", "delnumbytes"), 0o755))
	_, err := control.ReadSpawn(h)
	refused(t, err, "delnumbytes", 0, "found a directory")
}

// A malformed spawnlimit is announced as its default.
func TestReadSpawn_fault(t *testing.T) {
	for _, bytes := range []string{"1", "2"} {
		limit, most, above := 255, "from 1 to 255 (control/delnumbytes 2 allows more", "256"
		if bytes == "2" {
			limit, most, above = 500, "from 1 to 12000, found", "12001"
		}
		for _, text := range append([]string{"0", above}, badNumbers...) {
			s := must.Get(control.ReadSpawn(home(t, files{"delnumbytes": bytes, "spawnlimit": text})))(t)
			refused(t, s.LimitFault, "spawnlimit", 1, most)
			if s.Limit != limit {
				t.Errorf("%q: the limit is %d", text, s.Limit)
			}
		}
	}
	h := home(t, nil)
	must.OK(t, os.Symlink("nowhere", filepath.Join(h, "control", "spawnlimit")))
	s := must.Get(control.ReadSpawn(h))(t)
	refused(t, s.LimitFault, "spawnlimit", 0, "link to nothing")
	if s.Limit != 255 {
		t.Errorf("the limit is %d", s.Limit)
	}
}

// qmailNumbers are files as qmail-send reads them, with -1 for its default.
var qmailNumbers = map[string]int{
	"": -1, "\n": -1, "many\n": -1, "-1\n": -1, "+1\n": -1, " 7\n": -1, "\n7\n": -1, "#7\n": -1,
	"7": 7, "7\n8\n": 7, "7 of them\n": 7, "007x\n": 7, "7.5": 7, "7\x00\n": 7, "0\n": 0,
	"2147483647\n": 1<<31 - 1, "2147483648\n": 1<<31 - 1, strings.Repeat("9", 5000): 1<<31 - 1,
}

func TestReadSpawn_concurrency(t *testing.T) {
	for text, want := range qmailNumbers {
		if want < 0 {
			want = control.DefaultConcurrencyRemote
		}
		if s := must.Get(control.ReadSpawn(home(t, files{"concurrencyremote": text})))(t); s.Concurrency != want {
			t.Errorf("%.20q is %d, want %d", text, s.Concurrency, want)
		}
	}
	h := home(t, nil)
	must.OK(t, os.Mkdir(filepath.Join(h, "control", "concurrencyremote"), 0o755))
	if s := must.Get(control.ReadSpawn(h))(t); s.Concurrency != control.DefaultConcurrencyRemote {
		t.Errorf("a folder is %d", s.Concurrency)
	}
}

// FuzzReadSpawn: whatever stands in the files, the numbers are within their bounds.
func FuzzReadSpawn(f *testing.F) {
	for _, text := range []string{"", "1\n", "2", "255\n", "256\n", "12000", "12001", "-1", "many\n", "0\n", "\x00", "1\r\n2\n"} {
		f.Add("1", text, text)
		f.Add("2\n", text, "120\n")
		f.Add(text, "20\n", text)
	}
	f.Fuzz(func(t *testing.T, bytes, limit, concurrency string) {
		s, err := control.ReadSpawn(home(t, files{"delnumbytes": bytes, "spawnlimit": limit, "concurrencyremote": concurrency}))
		if err != nil {
			if s != (control.Spawn{}) {
				t.Errorf("%+v comes with %v", s, err)
			}
			return
		}
		most, fallback := 255, 255
		if s.NumberBytes == 2 {
			most, fallback = 12000, 500
		} else if s.NumberBytes != 1 {
			t.Errorf("%d bytes", s.NumberBytes)
		}
		if s.Limit < 1 || s.Limit > most || s.LimitFault != nil && s.Limit != fallback || s.Concurrency < 0 {
			t.Errorf("got %+v", s)
		}
	})
}
