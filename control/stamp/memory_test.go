package stamp

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"nightmare.mail/mxf/integration/must"
)

// A file that has not changed is not looked into again; one that has, or may have, is.
func TestMemory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	var m Memory[string]
	var none *Memory[string]
	finds := 0
	of := func(m *Memory[string], lasts bool) string {
		return m.Of(path, time.Now, func() (string, bool) {
			finds++
			data, _ := os.ReadFile(path)
			return string(data), lasts
		})
	}
	check := func(name, got, want string, times int) {
		t.Helper()
		if got != want || finds != times {
			t.Errorf("%s: %q after %d looks, want %q after %d", name, got, finds, want, times)
		}
		finds = 0
	}
	settle := func() {
		t.Helper()
		must.Until(t, "the stamp settles", func() bool { return must.Get(Of(path))(t).Settled(time.Now()) })
	}
	check("no file", of(&m, true)+of(&m, true), "", 2)
	must.OK(t, os.WriteFile(path, []byte("a"), 0o600))
	check("young", of(&m, true), "a", 1)
	settle()
	check("old, and it does not last", of(&m, false)+of(&m, false), "aa", 2)
	check("old", of(&m, true)+of(&m, true)+of(&m, true), "aaa", 1)
	must.OK(t, os.WriteFile(path, []byte("b"), 0o600))
	check("changed", of(&m, true), "b", 1)
	settle()
	check("no memory", of(none, true)+of(none, true), "bb", 2)
	must.OK(t, os.Remove(path))
	check("gone", of(&m, true), "", 1)
}

func TestMemoryIsBounded(t *testing.T) {
	folder := t.TempDir()
	var m Memory[int]
	later := func() time.Time { return time.Now().Add(time.Hour) } // all are settled
	for i := range 2*maxRemembered + 1 {
		path := filepath.Join(folder, fmt.Sprint(i))
		must.OK(t, os.WriteFile(path, nil, 0o600))
		m.Of(path, later, func() (int, bool) { return i, true })
	}
	if len(m.known) != 1 {
		t.Errorf("%d files are known", len(m.known))
	}
}
