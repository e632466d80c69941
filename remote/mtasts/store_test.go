package mtasts

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"nightmare.mail/mxf/integration/must"
)

// newStore returns a store whose clock says now.
func newStore(t testing.TB) *Store {
	t.Helper()
	folder := filepath.Join(t.TempDir(), "sts")
	must.OK(t, os.Mkdir(folder, 0o755))
	return &Store{Folder: folder, Now: func() time.Time { return now }}
}

func listed(t testing.TB, s *Store) []string {
	t.Helper()
	var names []string
	for _, f := range must.Get(os.ReadDir(s.Folder))(t) {
		names = append(names, f.Name())
	}
	return names
}

func TestStore(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	s := newStore(t)
	if e, err := s.Load("example.org"); e != nil || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("nothing there: %+v, %v", e, err)
	}
	s.Rand = bytes.NewReader([]byte{0, 1, 2, 0xab, 4, 5, 6, 7})
	p := must.Get(ParsePolicy([]byte(policy118)))(t)
	e := must.Get(s.Fetched("example.org", "1", policy118, p, time.Time{}))(t)
	path := filepath.Join(s.Folder, "example.org")
	info := must.Get(os.Stat(path))(t)
	if info.Mode() != 0o644 || !info.ModTime().Equal(now) || !slices.Equal(listed(t, s), []string{"example.org"}) {
		t.Errorf("%v %v %q", info.Mode(), info.ModTime(), listed(t, s))
	}
	want := fmt.Sprintf("mxf-sts 1\ndomain example.org\nid 1\nfetched %d\nbytes %d\n\n", now.Unix(), len(policy118)) + policy118
	if got := string(must.Get(os.ReadFile(path))(t)); got != want || string(e.Encode()) != want {
		t.Errorf("%s", got)
	}
	s.Rand = nil
	old := now.Add(-time.Hour)
	failed := must.Get(s.FetchFailed("example.org", NewFailure(FetchError, now, "x"), old))(t)
	loaded := must.Get(s.Load("example.org"))(t)
	if loaded.Text != policy118 || loaded.Failed == nil || !loaded.Used.Equal(old) || string(loaded.Encode()) != string(failed.Encode()) {
		t.Errorf("after a failure: %+v", loaded)
	}
	// A success removes it.
	must.Get(s.Fetched("example.org", "2", policy118, p, old))(t)
	if loaded = must.Get(s.Load("example.org"))(t); loaded.Failed != nil || loaded.ID != "2" || !loaded.Used.Equal(old) {
		t.Errorf("after a success: %+v", loaded)
	}
	must.Get(s.FetchFailed("never.example", NewFailure(WebPKIInvalid, now, "x"), time.Time{}))(t)
	if loaded = must.Get(s.Load("never.example"))(t); loaded.Policy != nil || loaded.Failed.Kind != WebPKIInvalid {
		t.Errorf("never one: %+v", loaded)
	}
	if must.OK(t, os.Symlink(path, filepath.Join(s.Folder, "link.example"))); len(must.Get(s.Entries())(t)) != 2 {
		t.Errorf("%q", listed(t, s))
	}
}

// What cannot be used is as nothing.
func TestStore_unusable(t *testing.T) {
	s := newStore(t)
	must.Write(t, filepath.Join(s.Folder, "malformed.example"), "mxf-sts 1\n")
	must.Write(t, filepath.Join(s.Folder, "other.example"), page)
	must.Write(t, filepath.Join(s.Folder, "long.example"), strings.Repeat("x", maxEntry+1))
	must.OK(t, os.Mkdir(filepath.Join(s.Folder, "folder.example"), 0o755), syscall.Mkfifo(filepath.Join(s.Folder, "fifo.example"), 0o600))
	for _, name := range []string{"malformed.example", "other.example", "long.example", "folder.example", "fifo.example", "none.example", "../sts/other.example", ""} {
		if e, err := s.Load(name); e != nil || err == nil {
			t.Errorf("%s: %+v, %v", name, e, err)
		}
	}
	if err := s.Save(&Entry{Domain: "../x", Failed: NewFailure(FetchError, now, "x")}); err != errName {
		t.Errorf("a path: %v", err)
	}
}

// A policy that cannot be stored leaves nothing behind, and is good all the same.
func TestStore_cannotStore(t *testing.T) {
	s := newStore(t)
	must.OK(t, os.Mkdir(filepath.Join(s.Folder, "folder.example"), 0o755))
	p := must.Get(ParsePolicy([]byte(policy118)))(t)
	if e, err := s.Fetched("folder.example", "1", policy118, p, time.Time{}); err == nil || e == nil || e.Policy != p {
		t.Errorf("%+v, %v", e, err)
	}
	if got := listed(t, s); !slices.Equal(got, []string{"folder.example"}) {
		t.Errorf("left behind: %q", got)
	}
	s.Rand = iotest.ErrReader(errors.New("no chance"))
	if e, err := s.Fetched("a.example", "1", policy118, p, time.Time{}); err == nil || e == nil {
		t.Errorf("%+v, %v", e, err)
	}
	s.Folder += "/missing"
	if e, err := s.FetchFailed("a.example", NewFailure(FetchError, now, "x"), time.Time{}); err == nil || e == nil || e.Failed == nil {
		t.Errorf("%+v, %v", e, err)
	}
}

func TestStore_touch(t *testing.T) {
	s := newStore(t)
	for age, touched := range map[time.Duration]bool{24 * time.Hour: false, 24*time.Hour + time.Second: true, 0: false} {
		used := now.Add(-age)
		must.OK(t, s.Save(&Entry{Domain: "a.example", Failed: NewFailure(FetchError, now, "x"), Used: used}))
		s.Touch(must.Get(s.Load("a.example"))(t))
		want := used
		if touched {
			want = now
		}
		if got := must.Get(s.Load("a.example"))(t).Used; !got.Equal(want) {
			t.Errorf("%v: used %v, want %v", age, got, want)
		}
	}
	s.Touch(&Entry{Domain: "gone.example"})
	if slices.Contains(listed(t, s), "gone.example") {
		t.Error("made a file")
	}
}

func TestStore_check(t *testing.T) {
	s := newStore(t)
	must.Check(t, s.Check())
	for mode, ok := range map[os.FileMode]bool{0o700: true, 0o755: true, 0o775: false, 0o757: false, 0o500: os.Geteuid() == 0} {
		must.OK(t, os.Chmod(s.Folder, mode))
		if err := s.Check(); (err == nil) != ok {
			t.Errorf("mode %04o: %v", mode, err)
		}
	}
	must.OK(t, os.Chmod(s.Folder, 0o755))
	must.Write(t, filepath.Join(s.Folder, "file"), "")
	for _, name := range []string{"missing", "file", "file/x"} {
		if err := (&Store{Folder: filepath.Join(s.Folder, name)}).Check(); err == nil || strings.Count(err.Error(), s.Folder) != 1 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLock(t *testing.T) {
	s := newStore(t)
	one := must.Get(s.TryLock("example.org"))(t)
	// SHA-256 of example.org begins with bf.
	info := must.Get(os.Stat(filepath.Join(s.Folder, ".lock-bf")))(t)
	if info.Mode() != 0o600 {
		t.Errorf("%q %v", listed(t, s), info.Mode())
	}
	if _, err := s.TryLock("example.org"); err != ErrBusy {
		t.Errorf("twice: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Lock(ctx, "example.org"); err != ErrBusy {
		t.Errorf("twice: %v", err)
	}
	other := must.Get(s.TryLock("example.com"))(t)
	other.Unlock()
	released := make(chan struct{})
	go func() { close(released); one.Unlock() }()
	<-released
	must.Get(s.Lock(t.Context(), "example.org"))(t).Unlock()
	s.Folder += "/missing"
	if _, err := s.Lock(t.Context(), "example.org"); err == nil || err == ErrBusy {
		t.Errorf("no folder: %v", err)
	}
	var none *Lock
	none.Unlock()
}

// fetcher stands for HTTPS. It counts.
type fetcher struct {
	*Store
	calls atomic.Int32
	fails bool
	ids   sync.Map
}

func (f *fetcher) fetch(_ context.Context, domain, id string) (*Entry, *Failure) {
	f.calls.Add(1)
	f.ids.Store(id, true)
	if f.fails {
		e, _ := f.FetchFailed(domain, NewFailure(FetchError, now, "refused"), time.Time{})
		return e, e.Failed
	}
	p, _ := ParsePolicy([]byte(policy118))
	e, _ := f.Fetched(domain, id, policy118, p, time.Time{})
	return e, nil
}

func TestFind(t *testing.T) {
	for _, c := range []struct {
		name  string
		e     *Entry
		id    string
		fails bool
		calls int32
		want  string
	}{
		{"no record", nil, "", false, 0, "none: no record"},
		{"first", nil, "new", false, 1, "enforce fetched new: not cached"},
		{"first, fails", nil, "new", true, 1, "none: sts-policy-fetch-error refused"},
		{"another id", cached(t, "testing", "604800", 1, -1), "new", false, 1, "enforce fetched new: cached, another id"},
		{"another id, fails", cached(t, "testing", "604800", 1, -1), "new", true, 1, "testing cached same: sts-policy-fetch-error refused"},
		{"in force", cached(t, "testing", "604800", 1, -1), "", false, 0, "testing cached same: cached"},
		{"old", cached(t, "testing", "604800", 90000, -1), "", false, 1, "enforce fetched same: cached, due to be fetched again"},
		{"old, fails", cached(t, "testing", "604800", 90000, -1), "same", true, 1, "testing cached same: sts-policy-fetch-error refused"},
		{"none", cached(t, "none", "604800", 90000, -1), "same", false, 0, "none cached same: cached"},
	} {
		s := newStore(t)
		if c.e != nil {
			must.OK(t, s.Save(c.e))
		}
		f := &fetcher{Store: s, fails: c.fails}
		got := s.Find(t.Context(), "example.org", c.id, f.fetch)
		if got.String() != c.want || f.calls.Load() != c.calls || (got.Policy() == nil) != strings.HasPrefix(c.want, "none") {
			t.Errorf("%s: %s after %d fetches, want %s", c.name, got.String(), f.calls.Load(), c.want)
		}
	}
	s := newStore(t)
	if got := s.Find(t.Context(), "[192.0.2.1]", "x", nil); got.Holds != nil || got.Failed != nil {
		t.Errorf("an address: %+v", got)
	}
}

// Whoever only wants to know finds the same, and leaves the folder as it is.
func TestFind_readOnly(t *testing.T) {
	for _, id := range []string{"", "new"} {
		s := newStore(t)
		e := cached(t, "testing", "604800", 90000, -1)
		e.Used = s.now().Add(-48 * time.Hour)
		must.OK(t, s.Save(e))
		before := must.Get(os.Stat(s.path("example.org")))(t)
		s.ReadOnly = true
		f := func(_ context.Context, domain, id string) (*Entry, *Failure) {
			return &Entry{Domain: domain, ID: id, Policy: e.Policy}, nil
		}
		if got := s.Find(t.Context(), "example.org", id, f); !got.Fetched {
			t.Errorf("%q: %s", id, got.String())
		}
		if after := must.Get(os.Stat(s.path("example.org")))(t); !after.ModTime().Equal(before.ModTime()) || len(listed(t, s)) != 1 {
			t.Errorf("%q: the folder has %q", id, listed(t, s))
		}
	}
}

// A hundred deliveries to one domain make one connection, whether it succeeds or fails.
func TestFind_together(t *testing.T) {
	for _, fails := range []bool{false, true} {
		s := newStore(t)
		f := &fetcher{Store: s, fails: fails}
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() {
				if got := s.Find(t.Context(), "example.org", "new", f.fetch); (got.Policy() == nil) != fails {
					t.Errorf("%+v", got)
				}
			})
		}
		all.Wait()
		if n := f.calls.Load(); n != 1 {
			t.Errorf("%d connections, failing %v", n, fails)
		}
	}
}

// A policy that is still good is not waited for, and one that is missing is.
func TestFind_busy(t *testing.T) {
	s := newStore(t)
	must.OK(t, s.Save(cached(t, "testing", "604800", 90000, -1)))
	lock := must.Get(s.TryLock("example.org"))(t)
	f := &fetcher{Store: s}
	if got := s.Find(t.Context(), "example.org", "same", f.fetch); got.String() != "testing cached same: cached, due to be fetched again, somebody else is fetching" {
		t.Errorf("%s", got.String())
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if got := s.Find(ctx, "example.org", "new", f.fetch); got.Failed != nil || got.Policy() == nil || !strings.HasSuffix(got.Why, ErrBusy.Error()) {
		t.Errorf("%+v", got)
	}
	lock.Unlock()
	if f.calls.Load() != 0 {
		t.Error("fetched without the lock")
	}
	// No lock can be had: what is missing is fetched all the same, what is good is not.
	must.OK(t, os.Remove(filepath.Join(s.Folder, ".lock-bf")), os.Mkdir(filepath.Join(s.Folder, ".lock-bf"), 0o755))
	if got := s.Find(t.Context(), "example.org", "same", f.fetch); got.Fetched {
		t.Errorf("%+v", got)
	}
	if got := s.Find(t.Context(), "example.org", "new", f.fetch); !got.Fetched {
		t.Errorf("%+v", got)
	}
}

func TestSweep(t *testing.T) {
	s := newStore(t)
	const day = 24 * time.Hour
	for name, c := range map[string]struct {
		mode   string
		failed int // seconds ago
		unused time.Duration
	}{
		"new.example": {"enforce", -1, 0}, "old.example": {"enforce", -1, 180 * day}, "older.example": {"enforce", -1, 180*day + time.Second},
		"failed.example": {"", 86400, 0}, "failedlong.example": {"", 86401, 0}, "failedbut.example": {"none", 86401, 0},
	} {
		e := cached(t, c.mode, "604800", 1, c.failed)
		e.Domain, e.Used = name, now.Add(-c.unused)
		must.OK(t, s.Save(e))
	}
	for name, age := range map[string]time.Duration{
		".new-0000000000000001": time.Hour, ".new-0000000000000002": time.Hour + time.Second, ".other": 999 * day, "README": 999 * day,
		"malformed.example": 179 * day, "malformedold.example": 181 * day,
	} {
		path := filepath.Join(s.Folder, name)
		must.Write(t, path, "x")
		must.OK(t, os.Chtimes(path, now.Add(-age), now.Add(-age)))
	}
	must.Check(t, s.Sweep())
	kept := slices.DeleteFunc(listed(t, s), func(name string) bool { return strings.HasPrefix(name, lockPrefix) })
	if want := []string{".new-0000000000000001", ".other", "README", "failed.example", "failedbut.example", "malformed.example", "new.example", "old.example"}; !slices.Equal(kept, want) {
		t.Errorf("kept %q, want %q", kept, want)
	}
	// Beyond the bound the longest unused go: malformed.example and old.example.
	must.Check(t, s.sweep(3))
	if got := must.Get(s.names())(t); !slices.Equal(got, []string{"failed.example", "failedbut.example", "new.example"}) {
		t.Errorf("kept %q", got)
	}
	lock := must.Get(s.TryLock("new.example"))(t)
	defer lock.Unlock()
	must.Check(t, s.sweep(0))
	if got := must.Get(s.names())(t); !slices.Equal(got, []string{"new.example"}) {
		t.Errorf("kept %q", got)
	}
}

func TestDue(t *testing.T) {
	s := newStore(t)
	for _, c := range []struct {
		e   *Entry
		due bool
	}{
		{cached(t, "enforce", "604800", 43200, -1), true}, {cached(t, "testing", "1", 43200, 10), true}, {cached(t, "enforce", "604800", 43199, -1), false},
		{cached(t, "none", "604800", 43200, -1), false}, {cached(t, "", "", 0, 43200), false}, {nil, false},
	} {
		if s.Due(c.e) != c.due {
			t.Errorf("%+v: %v", c.e, !c.due)
		}
	}
}
