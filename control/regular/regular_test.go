package regular

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"nightmare.mail/mxf/integration/must"
)

func TestOpen(t *testing.T) {
	folder := t.TempDir()
	path := func(name string) string { return filepath.Join(folder, name) }
	socket := must.Get(net.Listen("unix", path("socket")))(t)
	defer socket.Close()
	must.OK(t, os.WriteFile(path("file"), []byte("text"), 0o600), syscall.Mkfifo(path("fifo"), 0o600),
		os.Symlink("file", path("link")), os.Symlink("fifo", path("link to a fifo")))
	for name, want := range map[string]error{
		"file": nil, "link": nil, "missing": fs.ErrNotExist,
		"fifo": ErrNot, "link to a fifo": ErrNot, "socket": ErrNot, ".": ErrNot,
	} {
		f, info, err := Open(path(name), os.O_RDONLY, 0)
		if !errors.Is(err, want) || (err == nil) != (f != nil) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
		if err == nil && info.Size() != int64(len("text")) {
			t.Errorf("%s: %d bytes", name, info.Size())
		}
		f.Close()
	}
	// A FIFO has taken the place of the file.
	if _, _, err := OpenKnown(path("fifo"), os.O_RDONLY, 0); !errors.Is(err, ErrNot) {
		t.Errorf("a FIFO: %v", err)
	}
	for _, device := range []string{"/dev/null", "/dev/zero"} {
		if _, _, err := Open(device, os.O_RDONLY, 0); !errors.Is(err, ErrNot) {
			t.Errorf("%s: %v", device, err)
		}
	}
	f, _, err := Open(path("new"), os.O_RDWR|os.O_CREATE, 0o600)
	must.OK(t, err)
	f.Close()
}
