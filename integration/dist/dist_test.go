package main

import (
	"archive/tar"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/integration/peers"
	"nightmare.mail/mxf/integration/target"
)

// Setup: what git has for HEAD is cloned into two folders, and a release of two targets is
// made in each, by the program as it is here: this machine's, and a big-endian one.
//
// Test: the same bytes; and what is in the files.

var host = "linux-" + runtime.GOARCH

const foreign = "linux-s390x"

// A made is a release that was made.
type made struct {
	dir     string // with its files
	name    string // which they begin with
	commit  string
	version string
}

func (m *made) path(suffix string) string { return filepath.Join(m.dir, m.name+suffix) }

// clone clones this repository into a folder, or skips the test where there is none.
func clone(t *testing.T, folder string) {
	t.Helper()
	for _, program := range []string{"git", "make"} {
		if _, err := exec.LookPath(program); err != nil {
			peers.Missing(t, program, "%v", err)
		}
	}
	if _, err := os.Stat("../../.git"); err != nil {
		t.Skip("a release is made of a git repository, and this is none")
	}
	must.Get(output(exec.Command("git", "clone", "-q", "../..", folder)))(t)
}

func newRelease(t *testing.T, root string) *made {
	t.Helper()
	clone(t, root)
	var targets []target.Target
	for _, name := range []string{host, foreign} {
		one, known := target.Named(name)
		if !known {
			t.Skipf("%s is no target of a release", name)
		}
		targets = append(targets, one)
	}
	out := filepath.Join(root, "dist")
	must.OK(t, release(t.Context(), root, out, targets, t.Output()))
	commit := strings.TrimSpace(string(must.Get(output(exec.Command("git", "-C", root, "rev-parse", "HEAD")))(t)))
	version, _, _ := strings.Cut(string(must.Get(os.ReadFile(filepath.Join(root, stamp)))(t)), " ")
	return &made{out, "mxf-" + version, commit, version}
}

func TestRelease(t *testing.T) {
	first := newRelease(t, filepath.Join(t.TempDir(), "one"))
	t.Run("again", func(t *testing.T) { again(t, first) })
	t.Run("sums", func(t *testing.T) { rightSums(t, first) })
	t.Run("source", func(t *testing.T) { rightSource(t, first) })
	t.Run("archive", func(t *testing.T) { rightArchive(t, first) })
	t.Run("bill", func(t *testing.T) { rightBill(t, first) })
	t.Run("apk", func(t *testing.T) { rightAPK(t, first) })
	t.Run("rpm", func(t *testing.T) { rightRPM(t, first) })
	t.Run("alone", func(t *testing.T) { alone(t, first) })
	t.Run("debian", func(t *testing.T) { debian(t, first) })
}

// again makes the release in another folder, with another umask, time zone and language.
func again(t *testing.T, first *made) {
	for name, value := range map[string]string{"TZ": "Pacific/Kiritimati", "LC_ALL": "C.UTF-8", "GOFLAGS": "-buildvcs=false -v", "MAKEFLAGS": "HOME_DIR=/elsewhere", "SOURCE_DATE_EPOCH": "1"} {
		t.Setenv(name, value)
	}
	old := syscall.Umask(0o077)
	second := newRelease(t, filepath.Join(t.TempDir(), "another", "folder"))
	syscall.Umask(old)
	if a, b := listed(t, first.dir), listed(t, second.dir); !slices.Equal(a, b) {
		t.Errorf("%q, and then %q", a, b)
	}
	for _, name := range listed(t, first.dir) {
		a, b := must.Get(sum(filepath.Join(first.dir, name)))(t), must.Get(sum(filepath.Join(second.dir, name)))(t)
		if a != b {
			t.Errorf("%s is not the same when it is made again", name)
		}
	}
}

func listed(t *testing.T, dir string) (names []string) {
	t.Helper()
	for _, e := range must.Get(os.ReadDir(dir))(t) {
		names = append(names, e.Name())
	}
	return names
}

// rightSums checks that SHA256SUMS has every file but itself, rightly.
func rightSums(t *testing.T, m *made) {
	var want string
	for _, name := range listed(t, m.dir) {
		if name != sums {
			want += must.Get(sum(filepath.Join(m.dir, name)))(t) + "  " + name + "\n"
		}
	}
	if got := string(must.Get(os.ReadFile(filepath.Join(m.dir, sums)))(t)); got != want {
		t.Errorf("%s has\n%swant\n%s", sums, got, want)
	}
	suffixes := []string{".tar.gz"}
	for _, name := range []string{host, foreign} {
		for _, suffix := range []string{".tar.gz", ".cdx.json", ".deb", ".rpm", ".apk"} {
			suffixes = append(suffixes, "-"+name+suffix)
		}
	}
	for _, suffix := range suffixes {
		if info, err := os.Stat(m.path(suffix)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", suffix, err)
		}
	}
}

// An entry is a file in an archive.
type entry struct {
	tar.Header
	content []byte
}

// entries reads a compressed archive, or several in a row.
func entries(t *testing.T, path string) (list []entry) {
	t.Helper()
	archive := tar.NewReader(must.Get(gzip.NewReader(must.Open(t, path)))(t))
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return list
		}
		must.OK(t, err)
		if header.Typeflag != tar.TypeDir {
			list = append(list, entry{*header, must.Get(io.ReadAll(archive))(t)})
		}
	}
}

// unpack writes an archive to a folder.
func unpack(t *testing.T, archive, folder string) {
	t.Helper()
	for _, e := range entries(t, archive) {
		path := filepath.Join(folder, filepath.FromSlash(e.Name))
		must.OK(t, os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, e.content, e.FileInfo().Mode()))
	}
}

// rightSource checks that the source is that of the commit, all of it, and knows it: a
// program that is built of it outside of git says where it comes from.
func rightSource(t *testing.T, m *made) {
	folder := t.TempDir()
	unpack(t, m.path(".tar.gz"), folder)
	root := filepath.Join(folder, m.name)
	for name := range strings.Lines(string(must.Get(output(exec.Command("git", "-C", filepath.Dir(m.dir), "ls-files")))(t))) {
		name = strings.TrimSpace(name)
		got := must.Get(os.ReadFile(filepath.Join(root, name)))(t)
		if want := must.Get(os.ReadFile(filepath.Join(filepath.Dir(m.dir), name)))(t); name != stamp && string(got) != string(want) {
			t.Errorf("%s is not as in the commit", name)
		}
	}
	// Inside a repository of something else, which must not be asked.
	must.Get(output(exec.Command("git", "init", "-q", folder)))(t)
	program := filepath.Join(folder, "program")
	build := exec.Command("go", "build", "-buildvcs=auto", "-o", program, "./cmd/qmail-remote-io")
	build.Dir, build.Env = root, append(os.Environ(), "GOFLAGS=", "CGO_ENABLED=0")
	must.Get(output(build))(t)
	m.saysVersion(t, "qmail-remote-io", exec.Command(program, "--version"))

	// In the clone Go asks git.
	build = exec.Command("go", "build", "-buildvcs=true", "-o", program, "./cmd/qmail-remote-io")
	build.Dir, build.Env = t.TempDir(), append(os.Environ(), "GOFLAGS=", "CGO_ENABLED=0")
	clone(t, build.Dir)
	must.Get(output(build))(t)
	m.saysVersion(t, "qmail-remote-io", exec.Command(program, "--version"))
}

// saysVersion checks what a program says of itself.
func (m *made) saysVersion(t *testing.T, name string, cmd *exec.Cmd) {
	t.Helper()
	date := must.Get(output(exec.Command("git", "-C", filepath.Dir(m.dir), "log", "-1", "--format=%cd", "--date=format-local:%Y-%m-%d")))(t)
	want := fmt.Sprintf("%s %s (commit %s of %s, %s)\n", name, m.version, m.commit[:12], strings.TrimSpace(string(date)), runtime.Version())
	if said, err := output(cmd); err != nil || string(said) != want {
		t.Errorf("it says %q, %v, want %q", said, err, want)
	}
}

// programNames are what is in bin of a release: a program for each folder of cmd, and scripts.
func programNames(t *testing.T) []string {
	t.Helper()
	names := []string{"mxf-remote-safe"}
	for _, main := range must.Get(filepath.Glob("../../cmd/*/main.go"))(t) {
		names = append(names, filepath.Base(filepath.Dir(main)))
	}
	slices.Sort(names)
	return names
}

// rightArchive looks at the archives of both targets, whose bytes must not come from this
// machine, and asks the program that can run here for its version.
func rightArchive(t *testing.T, m *made) {
	for _, of := range []string{host, foreign} {
		top := m.name + "-" + of + "/"
		var programs, names []string
		for _, e := range entries(t, m.path("-"+of+".tar.gz")) {
			name, beneath := strings.CutPrefix(e.Name, top)
			if !beneath || e.Uid != 0 || e.Gid != 0 || e.Uname != "" || e.Gname != "" || e.Typeflag != tar.TypeReg {
				t.Errorf("%s: %+v", of, e.Header)
			}
			want := int64(plain)
			if path.Dir(name) == "bin" && name != "bin/.home" {
				programs, want = append(programs, path.Base(name)), executable
			}
			if e.Mode != want {
				t.Errorf("%s: %s has mode %o", of, name, e.Mode)
			}
			names = append(names, name)
		}
		if want := programNames(t); !slices.Equal(programs, want) {
			t.Errorf("%s: programs %q, want %q", of, programs, want)
		}
		if !slices.IsSorted(names) {
			t.Errorf("%s: %q is not sorted", of, names)
		}
		for _, want := range []string{"README.md", "LICENSE", "LICENSES/go_LICENSE", "Makefile", "doc/INSTALL.md", "doc/mxf-remote.8", "doc/mxf-control.5", "doc/examples/relay/control/credentials", billName} {
			if !slices.Contains(names, want) {
				t.Errorf("%s: %s is missing", of, want)
			}
		}
	}
	folder := t.TempDir()
	unpack(t, m.path("-"+host+".tar.gz"), folder)
	root := filepath.Join(folder, m.name+"-"+host)
	for _, name := range programNames(t) {
		if name != "mxf-remote-safe" {
			m.saysVersion(t, name, exec.Command(filepath.Join(root, "bin", name), "--version"))
		}
	}
	// It has its own make install, which needs no Go.
	install := exec.Command("make", "-C", root, "install", "GO=false", "DESTDIR="+filepath.Join(folder, "dest"))
	install.Env = append(environ(), "HOME_DIR=")
	if out, err := install.CombinedOutput(); err != nil {
		t.Errorf("make install: %v\n%s", err, out)
	}
	if _, err := os.Stat(filepath.Join(folder, "dest", home, "bin/mxf-remote")); err != nil {
		t.Error(err)
	}
}

// rightBill checks the bill of materials by what the go command says of the programs.
func rightBill(t *testing.T, m *made) {
	var b bill
	must.OK(t, json.Unmarshal(must.Get(os.ReadFile(m.path("-"+host+".cdx.json")))(t), &b))
	if b.Format != "CycloneDX" || b.Spec != "1.6" || b.Version != 1 || b.Metadata.Component.Version != m.version {
		t.Errorf("%+v", b)
	}
	folder := t.TempDir()
	unpack(t, m.path("-"+host+".tar.gz"), folder)
	refs, hashes := map[string]bool{b.Metadata.Component.Ref: true}, map[string]string{}
	for _, c := range b.Components {
		refs[c.Ref] = true
		if c.PURL == "" || len(c.Licences) != 1 || c.Licences[0].License.ID == "" {
			t.Errorf("%+v", c)
		}
	}
	for _, c := range b.Metadata.Component.Parts {
		refs[c.Ref] = true
		hashes[c.Name] = c.Hashes[0].Content
	}
	on := map[string][]string{}
	for _, d := range b.Dependencies {
		on[d.Ref] = d.On
		for _, ref := range append(d.On, d.Ref) {
			if !refs[ref] {
				t.Errorf("%s is no component", ref)
			}
		}
	}
	for _, name := range programNames(t) {
		program := filepath.Join(folder, m.name+"-"+host, "bin", name)
		if got := must.Get(sum(program))(t); hashes[name] != got {
			t.Errorf("%s has the hash %s, and the bill says %s", name, got, hashes[name])
		}
		if name == "mxf-remote-safe" {
			continue
		}
		want := []string{"pkg:golang/std@" + strings.TrimPrefix(runtime.Version(), "go")}
		for line := range strings.Lines(string(must.Get(output(exec.Command("go", "version", "-m", program)))(t))) {
			if words := strings.Fields(line); len(words) >= 3 && words[0] == "dep" {
				want = append(want, "pkg:golang/"+words[1]+"@"+words[2])
			}
		}
		slices.Sort(want)
		if got := slices.Sorted(slices.Values(on[name])); !slices.Equal(got, want) {
			t.Errorf("%s is made of %q, and the bill says %q", name, want, got)
		}
	}
}

// inPackages checks the names of the files in a package: those that a release has, nothing
// beneath control, and nothing that qmail has.
func inPackages(t *testing.T, names []string) {
	t.Helper()
	for _, name := range names {
		switch folder := path.Dir(name); {
		case folder == "var/qmail/bin" && slices.Contains(programNames(t), path.Base(name)) && path.Base(name) != "qmail-remote":
		case folder == "usr/share/man/man5", folder == "usr/share/man/man8":
		case strings.HasPrefix(name, "usr/share/doc/mxf/"):
		default:
			t.Errorf("the package has %s", name)
		}
	}
	for _, program := range programNames(t) {
		if !slices.Contains(names, "var/qmail/bin/"+program) {
			t.Errorf("the package has no %s", program)
		}
	}
	for _, want := range []string{"usr/share/man/man8/mxf-remote.8", "usr/share/man/man5/mxf-control.5", "usr/share/doc/mxf/INSTALL.md", "usr/share/doc/mxf/examples/relay/control/credentials", "usr/share/doc/mxf/LICENSES/go_LICENSE", "usr/share/doc/mxf/" + billName} {
		if !slices.Contains(names, want) {
			t.Errorf("the package has no %s", want)
		}
	}
}

// rightAPK looks into the packages for apk, which are archives in a row.
func rightAPK(t *testing.T, m *made) {
	for of, arch := range map[string]string{host: "", foreign: "s390x"} {
		var names []string
		for _, e := range entries(t, m.path("-"+of+".apk")) {
			switch {
			case e.Name == ".PKGINFO":
				for line := range strings.Lines(string(e.content)) {
					if key, _, ok := strings.Cut(line, " = "); !ok && line[0] != '#' || strings.Contains(key, " ") {
						t.Errorf("%s: .PKGINFO has %q", of, line)
					}
				}
				if !strings.Contains(string(e.content), "\narch = "+arch) {
					t.Errorf("%s: %s", of, e.content)
				}
			case e.Name[0] == '.':
				if e.Name != ".pre-deinstall" || string(e.content) != string(beforeRemoval) {
					t.Errorf("%s: script %s", of, e.Name)
				}
			default:
				names = append(names, e.Name)
			}
		}
		inPackages(t, names)
	}
}

// rightRPM has rpm look into the packages for it, and install one in a folder.
func rightRPM(t *testing.T, m *made) {
	if _, err := exec.LookPath("rpm"); err != nil {
		peers.Missing(t, "rpm", "%v", err)
	}
	db := "--dbpath=" + t.TempDir()
	for of, arch := range map[string]string{host: "", foreign: "s390x"} {
		file := m.path("-" + of + ".rpm")
		must.Get(output(exec.Command("rpm", db, "--checksig", "--nosignature", file)))(t)
		said := string(must.Get(output(exec.Command("rpm", db, "-qp", "--queryformat", `%{ARCH} %{VERSION} %{LICENSE}\n[%{FILEMODES:perms} %{FILENAMES}\n]`, file)))(t))
		first, rest, _ := strings.Cut(said, "\n")
		if !strings.HasPrefix(first, arch) || !strings.HasSuffix(first, " "+strings.Replace(m.version, "-", "~", 1)+" ISC") {
			t.Errorf("%s: %q", of, first)
		}
		var names []string
		for line := range strings.Lines(rest) {
			if mode, name, _ := strings.Cut(strings.TrimSpace(line), " /"); mode[0] == '-' {
				names = append(names, name)
			}
		}
		inPackages(t, names)
		scripts := string(must.Get(output(exec.Command("rpm", db, "-qp", "--scripts", file)))(t))
		if strings.Count(scripts, "scriptlet") != 1 || !strings.Contains(scripts, "preuninstall scriptlet") || !strings.Contains(scripts, strings.TrimSpace(string(beforeRemoval))) {
			t.Errorf("%s: %s", of, scripts)
		}
	}
}

// snapshot returns the files beneath a folder and what is in them.
func snapshot(t *testing.T, root string) map[string]string {
	t.Helper()
	found := make(map[string]string)
	must.OK(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		text := info.Mode().String()
		if info.Mode().IsRegular() {
			content, err := sum(path)
			if err != nil {
				return err
			}
			text += " " + content + info.ModTime().String()
		}
		found[strings.TrimPrefix(path, root)] = text
		return nil
	}))
	return found
}
