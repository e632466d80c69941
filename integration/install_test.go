package integration

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/integration/target"
)

// makes runs make in the module with the programs in bin, and returns what it says.
func makes(t *testing.T, bin string, args ...string) (said string, err error) {
	t.Helper()
	cmd := exec.Command("make", append([]string{"-C", "..", "BIN=" + bin}, args...)...)
	// Nothing of the make that may have started these tests.
	for _, assignment := range os.Environ() {
		switch name, _, _ := strings.Cut(assignment, "="); name {
		case "MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "HOME_DIR", "BIN", "DESTDIR", "MAN_DIR", "DOC_DIR", "MXF_HOME":
		default:
			cmd.Env = append(cmd.Env, assignment)
		}
	}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// run runs a program as qmail-rspawn does, both its descriptors one, and returns what
// it says and how it ended.
func run(t *testing.T, environ []string, program string, args ...string) (said string, state *os.ProcessState) {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Env = environ
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	_ = cmd.Run()
	if cmd.ProcessState == nil {
		t.Fatalf("%s cannot be run", program)
	}
	return out.String(), cmd.ProcessState
}

// What is installed is what was built, for the home that it was built for; and with it
// the script that makes every bad end temporary, and the licences.
func TestInstall(t *testing.T) {
	if _, err := exec.LookPath("make"); err != nil {
		t.Skip(err)
	}
	bin, dest, home := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "qmail")
	if said, err := makes(t, bin, "install", "DESTDIR="+dest); err == nil || !strings.Contains(said, "run make first") {
		t.Fatalf("nothing is built: %v\n%s", err, said)
	}
	if said, err := makes(t, bin, "HOME_DIR="+home); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	if said, err := makes(t, bin, "install", "DESTDIR="+dest, "HOME_DIR=/elsewhere"); err == nil || !strings.Contains(said, "is built for the qmail home "+home) {
		t.Fatalf("for another home: %v\n%s", err, said)
	}
	if said, err := makes(t, bin, "install", "DESTDIR="+dest); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	folder := filepath.Join(dest, home, "bin")
	for _, program := range []string{"mxf-remote", "mxf-remote-safe"} {
		said, state := run(t, nil, filepath.Join(folder, program), "host.example", "", "r@host.example")
		if state.ExitCode() != 0 || !strings.Contains(said, "(home is \""+home+"\")") {
			t.Errorf("%s: %v, %q", program, state, said)
		}
	}
	licences, err := os.ReadDir("../LICENSES")
	if err != nil || len(licences) == 0 {
		t.Fatal(err)
	}
	for _, l := range licences {
		if _, err := os.Stat(filepath.Join(dest, "usr/local/share/doc/mxf/LICENSES", l.Name())); err != nil {
			t.Error(err)
		}
	}
	if commit, err := exec.Command("git", "-C", "..", "log", "-1", "--format=%h", "--abbrev=12").Output(); err == nil {
		said, _ := run(t, nil, filepath.Join(folder, "mxf-remote"), "--version")
		if !strings.Contains(said, " (commit "+strings.TrimSpace(string(commit))+" of 20") {
			t.Errorf("built of %s it says %q", commit, said)
		}
	}
	t.Run("safe", func(t *testing.T) { safe(t, folder) })
}

// safe tries what ends Go's runtime before main with exit status 2, for which
// qmail-rspawn bounces the message.
func safe(t *testing.T, folder string) {
	plain, script := filepath.Join(folder, "mxf-remote"), filepath.Join(folder, "mxf-remote-safe")
	for _, test := range []struct {
		name, limit string
		environ     []string
		want        int // exit status of the script
	}{
		{"a limit of the runtime that cannot be read", "", []string{"GOMEMLIMIT=much"}, 0},
		{"address space", "ulimit -v 300000", nil, 111},
	} {
		command := test.limit + "\nexec \"$0\" host.example '' r@host.example"
		said, state := run(t, test.environ, "/bin/sh", "-c", command, plain)
		if state.ExitCode() != 2 {
			t.Logf("%s: this system does not mind: %v, %q", test.name, state, said)
			continue
		}
		said, state = run(t, test.environ, "/bin/sh", "-c", command, script)
		if state.ExitCode() != test.want || (test.want == 0) != strings.HasPrefix(said, "Z") || test.want != 0 && said != "" {
			t.Errorf("%s: %v, %q", test.name, state, said)
		}
	}
	// Without the script, a variable makes a crash of what the runtime notices itself.
	_, state := run(t, []string{"GOMEMLIMIT=much", "GOTRACEBACK=crash"}, plain, "host.example", "", "r@host.example")
	if status, ok := state.Sys().(syscall.WaitStatus); ok && !status.Signaled() {
		t.Errorf("GOTRACEBACK=crash: %v", state)
	}
	// A crash, a missing program, and words before main.
	said, state := run(t, []string{"GODEBUG=inittrace=1"}, script, "host.example", "", "r@host.example")
	if state.ExitCode() != 0 || !strings.HasPrefix(said, "Z") {
		t.Errorf("%v, %q", state, said)
	}
	// No /dev/null, as in a bare chroot: no verdict of the shell's either.
	text := must.Get(os.ReadFile(script))(t)
	must.OK(t, os.WriteFile(script+"-bare", bytes.ReplaceAll(text, []byte("/dev/null"), []byte("/no/such/null")), 0o755))
	if said, state := run(t, nil, script+"-bare", "host.example", "", "r@host.example"); state.ExitCode() != 111 {
		t.Errorf("without /dev/null: %v, %q", state, said)
	}
	must.OK(t, os.Rename(plain, plain+".away"))
	for _, end := range []string{"", "kill -SEGV $$", "exit 2"} {
		if end != "" {
			must.OK(t, os.WriteFile(plain, []byte("#!/bin/sh\n"+end+"\n"), 0o755))
		}
		if said, state := run(t, nil, script, "host.example", "", "r@host.example"); state.ExitCode() != 111 || said != "" {
			t.Errorf("%q: %v, %q", end, state, said)
		}
	}
}

// oneOfEachSystem returns a target of a release for each system. What is linked for one of
// its processors is linked for the others; make dist looks into all.
func oneOfEachSystem() (list []target.Target) {
	for _, t := range target.All {
		if !slices.ContainsFunc(list, func(other target.Target) bool { return other.OS == t.OS }) {
			list = append(list, t)
		}
	}
	return list
}

// Each module that a program is linked with, and Go itself, has its licence in the
// folder that is installed, word for word, and no other has.
func TestLicences(t *testing.T) {
	from := map[string]string{}
	for _, of := range oneOfEachSystem() {
		cmd := exec.Command("go", "list", "-deps", "-f", "{{with .Module}}{{if not .Main}}{{.Path}} {{.Dir}}{{end}}{{end}}", module+"cmd/...")
		cmd.Env = append(os.Environ(), of.Environ()...)
		out := must.Get(cmd.Output())(t)
		for line := range strings.Lines(string(out)) {
			if path, dir, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
				from[path] = dir
			}
		}
	}
	// Go's own has a year in it, which is not every Go's.
	known := map[string]bool{"go_LICENSE": true, "go_PATENTS": true}
	for name := range known {
		if text, err := os.ReadFile(filepath.Join("..", "LICENSES", name)); err != nil || len(text) == 0 {
			t.Errorf("LICENSES/%s: %v", name, err)
		}
	}
	for path, dir := range from {
		for _, file := range []string{"LICENSE", "PATENTS"} {
			want, err := os.ReadFile(filepath.Join(dir, file))
			if err != nil {
				if file == "LICENSE" {
					t.Errorf("%s: %v", path, err)
				}
				continue
			}
			name := strings.ReplaceAll(path, "/", "_") + "_" + file
			known[name] = true
			if got, err := os.ReadFile(filepath.Join("..", "LICENSES", name)); err != nil || !bytes.Equal(got, want) {
				t.Errorf("LICENSES/%s is not %s (%v)", name, filepath.Join(dir, file), err)
			}
		}
	}
	files := must.Get(os.ReadDir("../LICENSES"))(t)
	for _, f := range files {
		if !known[f.Name()] {
			t.Errorf("LICENSES/%s is of nothing that is linked", f.Name())
		}
	}
}
