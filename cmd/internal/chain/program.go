package chain

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// home is the qmail home. A build can set it:
// -ldflags "-X nightmare.mail/mxf/cmd/internal/chain.home=/somewhere".
var home = "/var/qmail"

// Home returns the qmail home: $MXF_HOME if it is set and not empty, else that of the
// build.
func Home() string {
	if h := os.Getenv("MXF_HOME"); h != "" {
		return h
	}
	return home
}

// Self returns the path of the running executable. In a sandbox without /proc it is the
// path under which the executable was started.
func Self() (string, error) {
	self, err := os.Executable()
	if err == nil {
		return self, nil
	}
	name := startedAs()
	if name == "" {
		return "", err
	}
	return filepath.Abs(name)
}

// Beside returns the path of the program name in the folder of the running executable.
// It does not check that the program exists.
func Beside(name string) (string, error) {
	self, err := Self()
	if err != nil {
		return "", err
	}
	if real, err := filepath.EvalSymlinks(self); err == nil {
		self = real
	}
	return filepath.Join(filepath.Dir(self), name), nil
}

// defaultPath is searched when $PATH is not set.
const defaultPath = "/usr/bin:/bin"

// FindProgram returns the path under which name can be executed: name itself if it
// contains a slash, else the first executable file of that name in the folders of $PATH
// in environ. An empty folder means the current one, as for execvp. The error has exit
// status 127 if there is no such file, and 126 if there is one that cannot be run.
func FindProgram(name string, environ []string) (string, error) {
	if name == "" {
		return "", Fail(ExitNotFound, "unable to run %q: %w", name, syscall.ENOENT)
	}
	if strings.Contains(name, "/") {
		if err := executable(name); err != nil {
			return "", cannotRun(name, err)
		}
		return name, nil
	}
	path, set := Lookup(environ, "PATH")
	if !set {
		path = defaultPath
	}
	found := error(syscall.ENOENT)
	for _, folder := range strings.Split(path, ":") {
		if folder == "" {
			folder = "."
		}
		// filepath.Join would turn "./name" into a name without a slash.
		candidate := folder + "/" + name
		err := executable(candidate)
		if err == nil {
			return candidate, nil
		}
		if !absent(err) {
			found = err
		}
	}
	return "", cannotRun(name, found)
}

func absent(err error) bool {
	return errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ENOTDIR)
}

// cannotRun returns the error for a program that was not found or could not be executed.
func cannotRun(name string, err error) error {
	code := ExitCannotExec
	if absent(err) {
		code = ExitNotFound
	}
	return Fail(code, "unable to run %q: %w", name, err)
}

// IsChild reports whether the process was started under name: the zeroth argument says
// which part of the program this process plays.
func IsChild(name string) bool {
	return len(os.Args) > 0 && filepath.Base(os.Args[0]) == name
}
