package stamp

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"nightmare.mail/mxf/integration/must"
)

func TestSettled(t *testing.T) {
	for _, test := range []struct {
		changed moment
		now     time.Time
		want    bool
	}{
		{moment{1000, 1}, time.Unix(1000, 1), false},
		{moment{1000, 1}, time.Unix(1000, 1).Add(fineStep), false},
		{moment{1000, 1}, time.Unix(1000, 2).Add(fineStep), true},
		{moment{1000, 0}, time.Unix(1000, 2).Add(fineStep), false}, // of a file system that has seconds
		{moment{1000, 0}, time.Unix(1000, 0).Add(coarseStep), false},
		{moment{1000, 0}, time.Unix(1000, 1).Add(coarseStep), true},
		{moment{2000, 1}, time.Unix(1000, 0), false}, // from the future
	} {
		if got := (Stamp{changed: test.changed}).Settled(test.now); got != test.want {
			t.Errorf("%v at %v: %v", test.changed, test.now.Sub(time.Unix(1000, 0)), got)
		}
	}
}

// Each change makes another stamp, once the one before has settled.
func TestOf(t *testing.T) {
	folder := t.TempDir()
	file, link := filepath.Join(folder, "file"), filepath.Join(folder, "link")
	must.OK(t, os.WriteFile(file, []byte("text"), 0o600), os.Symlink("file", link))
	look := func(path string) Stamp { return must.Get(Of(path))(t) }
	first := look(file)
	if look(file) != first || look(link) != first {
		t.Error("two stamps of the same file differ")
	}
	for _, change := range []struct {
		name, path string
		do         func() error
	}{
		{"same size", file, func() error { return os.WriteFile(file, []byte("more"), 0o600) }},
		{"through the link", link, func() error { return os.WriteFile(file, []byte("text"), 0o600) }},
		{"as if it were old", file, func() error { return os.Chtimes(file, time.Unix(1, 0), time.Unix(1, 0)) }},
		{"rights", file, func() error { return os.Chmod(file, 0o640) }},
		{"a new file", folder, func() error { return os.WriteFile(filepath.Join(folder, "new"), nil, 0o600) }},
		{"another file", link, func() error { return os.Rename(filepath.Join(folder, "new"), file) }},
		{"no file", folder, func() error { return os.Remove(link) }},
	} {
		before := look(change.path)
		must.Until(t, "the stamp settles", func() bool { return before.Settled(time.Now()) })
		must.OK(t, change.do())
		if look(change.path) == before {
			t.Errorf("%s makes no other stamp", change.name)
		}
	}
	if s, err := Of(link); !errors.Is(err, fs.ErrNotExist) || s != (Stamp{}) {
		t.Errorf("of nothing: %v, %v", s, err)
	}
}

func TestOfRegular(t *testing.T) {
	folder := t.TempDir()
	file := filepath.Join(folder, "file")
	must.Write(t, file, "text")
	info := must.Get(os.Stat(file))(t)
	if s := OfRegular(info); s == (Stamp{}) || s != must.Get(Of(file))(t) {
		t.Errorf("%v is not that of the path", s)
	}
	if OfRegular(must.Get(os.Stat(folder))(t)) != (Stamp{}) || OfRegular(strange{info}) != (Stamp{}) {
		t.Error("a stamp of no file")
	}
}

// strange is of a file system that has no inodes.
type strange struct{ fs.FileInfo }

func (strange) Sys() any { return nil }
