package integration

import (
	"context"
	"debug/elf"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"nightmare.mail/mxf/integration/lab"
)

// Setup: the programs are built once, as they are released, into a folder that
// all tests share and TestMain removes.

var built struct {
	once   sync.Once
	folder string
	err    error
}

func TestMain(m *testing.M) {
	status := m.Run()
	if built.folder != "" {
		os.RemoveAll(built.folder)
	}
	os.Exit(status)
}

// programs returns the folder of the built programs. Under go test -cover they
// are instrumented as well, and write to $GOCOVERDIR.
func programs(t testing.TB) string {
	t.Helper()
	built.once.Do(func() {
		if built.folder, built.err = os.MkdirTemp("", "mxf-programs"); built.err != nil {
			return
		}
		var flags []string
		if testing.CoverMode() != "" {
			flags = []string{"-cover", "-covermode=" + testing.CoverMode(), "-coverpkg=" + module + "..."}
			built.err = os.Mkdir(filepath.Join(built.folder, "coverage"), 0o755)
		}
		built.err = errors.Join(built.err, lab.Build(context.Background(), built.folder, flags...))
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.folder
}

// coverage returns the folder where instrumented programs leave their counts.
func coverage(t testing.TB) string {
	if folder := os.Getenv("GOCOVERDIR"); folder != "" {
		return folder
	}
	return filepath.Join(programs(t), "coverage")
}

func TestPrograms_areStatic(t *testing.T) {
	list, err := filepath.Glob(filepath.Join(programs(t), "*m*"))
	if err != nil || len(list) < 7 {
		t.Fatalf("programs %q, %v", list, err)
	}
	for _, path := range list {
		f, err := elf.Open(path)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		for _, p := range f.Progs {
			if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
				t.Errorf("%s is a dynamic executable", filepath.Base(path))
			}
		}
		f.Close()
	}
}
