package regular

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"nightmare.mail/mxf/integration/must"
)

func TestCanMake(t *testing.T) {
	folder := t.TempDir()
	path := func(name string) string { return filepath.Join(folder, name) }
	must.OK(t, os.WriteFile(path("file"), nil, 0o600), os.Mkdir(path("folder"), 0o700), os.Mkdir(path("locked"), 0o500), os.Symlink("file", path("link")))
	for name, want := range map[string]error{
		"file": nil, "new": nil, "link": nil, "folder/new": nil,
		"folder": ErrNot, "missing/new": fs.ErrNotExist, "file/new": ErrNotFolder, "locked/new": fs.ErrPermission,
	} {
		if name == "locked/new" && os.Getuid() == 0 {
			want = nil // root may everything
		}
		if err := CanMake(path(name)); !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", name, err, want)
		}
	}
	entries := must.Get(os.ReadDir(path("folder")))(t)
	if len(entries) > 0 {
		t.Error("something was written")
	}
}
