package integration

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"nightmare.mail/mxf/integration/lab"
	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/tlsc/tlstest"
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
	if built.folder != "" && built.folder != os.Getenv(apartPrograms) {
		os.RemoveAll(built.folder)
	}
	os.Exit(status)
}

// programs returns the folder of the built programs. Under go test -cover they
// are instrumented as well, and write to $GOCOVERDIR.
func programs(t testing.TB) string {
	t.Helper()
	built.once.Do(func() {
		if built.folder = os.Getenv(apartPrograms); built.folder != "" {
			return
		}
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

// coverageIfAny is where instrumented programs write, or nothing.
func coverageIfAny(t testing.TB) string {
	if testing.CoverMode() == "" {
		return ""
	}
	return coverage(t)
}

// put writes a file that its owner alone can read.
func put(t testing.TB, path string, data []byte) {
	t.Helper()
	must.OK(t, os.WriteFile(path, data, 0o600))
}

// eventually waits for something that other processes do, and reports whether they have
// done it within a limit.
func eventually(limit time.Duration, done func() bool) bool {
	for end := time.Now().Add(limit); !done(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

// until is eventually for a test that fails otherwise.
func until(t testing.TB, what string, done func() bool) {
	t.Helper()
	if !eventually(tlsLimit, done) {
		t.Fatalf("%s: not within %v", what, tlsLimit)
	}
}

// A result is what came out of a program.
type result struct {
	out, err string
	status   int
}

// finish runs a command to its end. An exit status is no error.
func finish(cmd *exec.Cmd) (result, error) {
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		err = nil
	}
	return result{out.String(), errs.String(), cmd.ProcessState.ExitCode()}, err
}

// An issuer is an authority that keeps what it issues in files.
type issuer struct {
	*tlstest.Party
	dir, ca string // the folder, and the file of the authority's own certificate
}

func newIssuer(t *testing.T, dir, name string) *issuer {
	t.Helper()
	i := &issuer{tlstest.NewAuthority(name), dir, filepath.Join(dir, name+".pem")}
	must.OK(t, os.WriteFile(i.ca, i.PEM(), 0o644))
	return i
}

// keep writes a certificate, with that of the authority, and its key to files.
func (i *issuer) keep(t *testing.T, file string, certificate *tlstest.Party) (cert, key string) {
	t.Helper()
	cert, key = filepath.Join(i.dir, file+".pem"), filepath.Join(i.dir, file+".key")
	must.OK(t, os.WriteFile(cert, append(certificate.PEM(), i.PEM()...), 0o644))
	put(t, key, certificate.KeyPEM())
	return cert, key
}

// issue makes a certificate for a name, and writes it and its key to files.
func (i *issuer) issue(t *testing.T, file, name string) (cert, key string) {
	t.Helper()
	return i.keep(t, file, i.Leaf(nil, name))
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
