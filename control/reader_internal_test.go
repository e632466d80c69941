package control

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"nightmare.mail/mxf/integration/must"
)

// A Reader reads again only if something has changed or the stamps prove nothing yet.
func TestReaderReadsOnce(t *testing.T) {
	home := must.Home(t, map[string]string{"me": "mx.example.org\n", "smtproutes": ":relay\n", "connectionlimits": ":5\n"})
	r := NewReader(home)
	var now time.Time
	r.Now = func() time.Time { return now }
	read := func() (*Set, *witness) {
		set := must.Get(r.Read())(t)
		return set, r.answer.seen
	}

	now = time.Now() // the files are younger than a step
	set, first := read()
	if again, seen := read(); again != set || seen == first {
		t.Error("stamps that prove nothing are believed, or the same content is another set")
	}
	now = time.Now().Add(time.Hour)
	set, first = read()
	for range 3 {
		if again, seen := read(); again != set || seen != first {
			t.Error("files that have not changed are read again")
		}
	}
	path := filepath.Join(home, "control", "connectionlimits")
	for _, change := range []func() error{
		func() error { return os.Chtimes(path, time.Unix(1, 0), time.Unix(1, 0)) },
		func() error { return os.WriteFile(filepath.Join(home, "control", "badmailfrom"), nil, 0o600) },
	} {
		must.OK(t, change())
		again, seen := read()
		if again != set || seen == first {
			t.Error("a change is not noticed, or the same content is another set")
		}
		first = seen
	}
}

// Calls that have waited for the same look have its answer, and no call has the answer of a look
// that had begun before it.
func TestReaderSharesLooks(t *testing.T) {
	home := must.Home(t, map[string]string{"me": "mx.example.org\n"})
	r := NewReader(home)
	looks := 0
	r.Now = func() time.Time { looks++; return time.Unix(0, 0) } // nothing is ever settled
	const calls = 10
	r.mu.Lock()
	done := make(chan error)
	for range calls {
		go func() {
			_, err := r.Read()
			done <- err
		}()
	}
	must.Until(t, "all have called", func() bool { return r.asked.Load() == calls })
	r.mu.Unlock()
	for range calls {
		must.OK(t, <-done)
	}
	if looks != 1 {
		t.Errorf("%d looks for %d calls", looks, calls)
	}
	must.Get(r.Read())(t)
	if looks != 2 {
		t.Error("a call has the answer of an earlier look")
	}
}
