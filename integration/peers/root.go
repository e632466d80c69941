package peers

import (
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"nightmare.mail/mxf/integration/must"
)

// A root is a folder that a server takes for the whole file system: with the
// programs that it needs, their libraries, and users of its own.
type root struct {
	t   testing.TB
	dir string
}

// Users of a root. Their numbers exist nowhere else, so that nothing on the
// machine belongs to them.
const (
	serverUser = 64901
	queueUser  = 64902
	mailUser   = 64903
)

// newRoot makes a root in which user, queue and "mail" exist beside root.
func newRoot(t testing.TB, server, queue string) *root {
	t.Helper()
	r := &root{t, folder(t)}
	passwd, group := "root:x:0:0::/:/bin/sh\n", "root:x:0:\n"
	for name, id := range map[string]int{server: serverUser, queue: queueUser, "mail": mailUser} {
		passwd += fmt.Sprintf("%s:x:%d:%d::/home/%s:/bin/sh\n", name, id, id, name)
		group += fmt.Sprintf("%s:x:%d:\n", name, id)
	}
	r.write("etc/passwd", passwd)
	r.write("etc/group", group)
	r.write("etc/hosts", "127.0.0.1 localhost\n")
	r.write("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n")
	r.write("etc/resolv.conf", "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
	own(t, r.path("tmp"), 0o777|os.ModeSticky, 0, 0)
	own(t, r.path("home/mail"), 0o755, mailUser, mailUser)
	for name, device := range map[string]int{"null": 3, "zero": 5, "random": 8, "urandom": 9} {
		r.device(name, device)
	}
	return r
}

// device makes a memory device; where that is forbidden an empty file has to do.
func (r *root) device(name string, minor int) {
	path := r.path("dev/" + name)
	must.OK(r.t, os.MkdirAll(filepath.Dir(path), 0o755))
	if err := makeMemoryDevice(path, minor); err != nil {
		r.write("dev/"+name, "")
	}
	must.OK(r.t, os.Chmod(path, 0o666))
}

func (r *root) path(name string) string { return filepath.Join(r.dir, name) }

func (r *root) write(name, content string) { r.t.Helper(); write(r.t, r.path(name), content) }

// command runs a program of the root.
func (r *root) command(program string, args ...string) *exec.Cmd {
	cmd := inRoot(exec.Command(program, args...), r.dir)
	cmd.Env = []string{"PATH=" + folders}
	return cmd
}

// install copies a program to a place within the root, with its libraries.
func (r *root) install(program, place string) {
	r.t.Helper()
	r.copy(program, place, 0o755)
	seen := make(map[string]bool)
	r.libraries(program, seen)
}

// libraries copies the loader and the libraries that an ELF file asks for.
func (r *root) libraries(path string, seen map[string]bool) {
	r.t.Helper()
	file, err := elf.Open(path)
	must.OK(r.t, err)
	defer file.Close()
	if loader := interpreter(file); loader != "" {
		r.copy(loader, loader, 0o755)
	}
	names, err := file.ImportedLibraries()
	must.OK(r.t, err)
	for _, name := range names {
		if seen[name] {
			continue
		}
		seen[name] = true
		library, err := findLibrary(name)
		if err != nil {
			Missing(r.t, Package(filepath.Base(path)), "%s: %v", path, err)
		}
		r.copy(library, "lib/"+name, 0o755)
		r.libraries(library, seen)
	}
}

func interpreter(file *elf.File) string {
	for _, p := range file.Progs {
		if p.Type == elf.PT_INTERP {
			b, err := io.ReadAll(p.Open())
			if err == nil {
				return strings.TrimRight(string(b), "\x00")
			}
		}
	}
	return ""
}

// libraryFolders is where the loader looks, here and beneath $MXF_PEERS_ROOT.
var libraryFolders = []string{"usr/lib/*-linux-gnu*", "lib/*-linux-gnu*", "usr/lib64", "lib64", "usr/lib", "lib"}

func findLibrary(name string) (string, error) {
	for _, root := range []string{os.Getenv("MXF_PEERS_ROOT"), "/"} {
		if root == "" {
			continue
		}
		for _, folder := range libraryFolders {
			matches, err := filepath.Glob(filepath.Join(root, folder, name))
			if err == nil && len(matches) > 0 {
				return matches[0], nil
			}
		}
	}
	return "", fmt.Errorf("its library %s is missing", name)
}

// copy copies a file to a place within the root, unless it is there.
func (r *root) copy(from, place string, mode os.FileMode) {
	r.t.Helper()
	to := r.path(place)
	must.OK(r.t, os.MkdirAll(filepath.Dir(to), 0o755))
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if errors.Is(err, os.ErrExist) {
		return
	}
	must.OK(r.t, err)
	defer out.Close()
	in, err := os.Open(from)
	must.OK(r.t, err)
	defer in.Close()
	_, err = io.Copy(out, in)
	must.OK(r.t, err)
	must.OK(r.t, out.Close())
}

// certificates copies the files that o names to where only uid can read them,
// and returns o with their places in the root.
func (r *root) certificates(o Options, uid int) Options {
	r.t.Helper()
	for place, file := range map[string]*string{"/etc/cert.pem": &o.Certificate, "/etc/key.pem": &o.Key, "/etc/ca.pem": &o.ClientCA} {
		if *file != "" {
			r.copy(*file, place, 0o600)
			must.OK(r.t, os.Chown(r.path(place), uid, uid))
			*file = place
		}
	}
	return o
}
