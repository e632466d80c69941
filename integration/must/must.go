// Package must has what every test needs before it can begin. If a test cannot have it,
// the test fails.
package must

import (
	"errors"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// Patience bounds what should take no time, on a slow machine too.
const Patience = 20 * time.Second

// Get returns v, or fails the test: Get(f())(t).
func Get[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		OK(t, err)
		return v
	}
}

// OK fails the test at once if there is an error.
func OK(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// Check fails the test if there is an error. The test goes on.
func Check(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Error(err)
	}
}

// Write writes a file, and the folder that it is in.
func Write(t testing.TB, path, text string) {
	t.Helper()
	OK(t, os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644))
}

// Script writes a script of the shell.
func Script(t testing.TB, path, text string) {
	t.Helper()
	OK(t, os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o755))
}

// Home makes a home with these control files, and returns its path.
func Home(t testing.TB, control map[string]string) string {
	t.Helper()
	home := t.TempDir()
	OK(t, os.Mkdir(filepath.Join(home, "control"), 0o755))
	for name, text := range control {
		Write(t, filepath.Join(home, "control", name), text)
	}
	return home
}

// Open opens a file until the test ends.
func Open(t testing.TB, path string) *os.File {
	t.Helper()
	f := Get(os.Open(path))(t)
	t.Cleanup(func() { f.Close() })
	return f
}

// Pipe returns the ends of a pipe, open until the test ends.
func Pipe(t testing.TB) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	OK(t, err)
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

// Flow returns a pipe that text comes through.
func Flow(t testing.TB, text string) *os.File {
	t.Helper()
	r, w := Pipe(t)
	go func() {
		defer w.Close()
		_, _ = io.WriteString(w, text)
	}()
	return r
}

// Until waits for what others do.
func Until(t testing.TB, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(Patience); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: still not after %v\n%s", what, Patience, stacks())
		}
	}
}

// Within fails the test when f has not returned soon.
func Within(t testing.TB, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(Patience):
		t.Fatalf("%s: still not done after %v\n%s", what, Patience, stacks())
	}
}

// Gone waits until a process has ended. Its parent may still have to reap it.
func Gone(t testing.TB, pid string) {
	t.Helper()
	Until(t, "the end of process "+pid, func() bool {
		stat, err := os.ReadFile("/proc/" + pid + "/stat")
		return err != nil || strings.Contains(string(stat), ") Z ")
	})
}

// NoneLeft waits until there are no more goroutines than before.
func NoneLeft(t testing.TB, before int) {
	t.Helper()
	Until(t, "the end of all goroutines", func() bool { return runtime.NumGoroutine() <= before })
}

func stacks() []byte {
	buf := make([]byte, 1<<16)
	return buf[:runtime.Stack(buf, true)]
}

// Heeded has programs that the test starts get s although this process was told to ignore it,
// as nohup and a shell's & do: what ignores a signal hands that down.
func Heeded(t testing.TB, s os.Signal) {
	if !signal.Ignored(s) {
		return
	}
	signal.Notify(make(chan os.Signal, 1), s)
	t.Cleanup(func() { signal.Ignore(s) })
}
