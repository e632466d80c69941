package regular

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"nightmare.mail/mxf/integration/must"
)

func TestVersionOf(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	path := filepath.Join(folder, "a")
	of := func(path string) Version { return VersionOf(must.Get(os.Stat(path))(t)) }
	then := time.Unix(1_700_000_000, 5)
	write := func(path, text string, at time.Time) {
		must.Write(t, path, text)
		must.OK(t, os.Chtimes(path, at, at))
	}
	write(path, "text", then)
	first := of(path)
	if first == (Version{}) || first != of(path) {
		t.Errorf("%v, then %v", first, of(path))
	}
	must.OK(t, os.Chmod(path, 0o600), os.Link(path, path+".link"))
	if of(path+".link") != first {
		t.Error("another name or mode is another version")
	}
	write(path, "text", then.Add(time.Nanosecond))
	if of(path) == first {
		t.Error("the time makes no difference")
	}
	write(path, "texts", then)
	if of(path) == first {
		t.Error("the size makes no difference")
	}
	write(path+".other", "text", then)
	if of(path+".other") == first {
		t.Error("the file makes no difference")
	}
	if of(folder) != (Version{}) || VersionOf(strange{must.Get(os.Stat(path))(t)}) != (Version{}) {
		t.Error("a version of no file")
	}
}

// strange is of a file system that has no inodes.
type strange struct{ fs.FileInfo }

func (strange) Sys() any { return nil }
