package spool

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"nightmare.mail/mxf/integration/must"
)

func TestFile(t *testing.T) {
	folder := t.TempDir()
	t.Setenv("TMPDIR", folder)
	for _, text := range []string{"", "x", strings.Repeat("0123456789", 10)} {
		file, size, err := File(strings.NewReader(text), 100)
		must.OK(t, err)
		got := must.Get(io.ReadAll(file))(t)
		file.Close()
		if string(got) != text || size != int64(len(text)) {
			t.Errorf("%q: %q, %d bytes", text, got, size)
		}
	}
	if _, _, err := File(strings.NewReader(strings.Repeat("x", 101)), 100); !errors.Is(err, ErrLong) {
		t.Errorf("101 bytes: %v", err)
	}
	if _, _, err := File(iotest.ErrReader(iotest.ErrTimeout), 100); !errors.Is(err, iotest.ErrTimeout) {
		t.Errorf("unreadable: %v", err)
	}
	if left := must.Get(os.ReadDir(folder))(t); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	t.Setenv("TMPDIR", filepath.Join(folder, "missing"))
	if _, _, err := File(strings.NewReader("x"), 100); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no folder: %v", err)
	}
}

func TestUntil(t *testing.T) {
	drop := func(int) { t.Error("dropped") }
	if v, err := Until(t.Context(), func() (int, error) { return 7, nil }, drop); v != 7 || err != nil {
		t.Errorf("%d, %v", v, err)
	}
	if _, err := Until(t.Context(), func() (int, error) { return 0, io.ErrNoProgress }, drop); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("%v", err)
	}
	cause := errors.New("called off")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	release, dropped := make(chan struct{}), make(chan int)
	_, err := Until(ctx, func() (int, error) { <-release; return 7, nil }, func(v int) { dropped <- v })
	close(release)
	if !errors.Is(err, cause) {
		t.Errorf("%v", err)
	}
	if v := <-dropped; v != 7 {
		t.Errorf("dropped %d", v)
	}
}
