// Package regular opens regular files and nothing else. Somebody may have put a FIFO, a
// terminal, a device or a directory where a control file, a table or a certificate
// belongs, and to open a FIFO is to wait for its writer.
package regular

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// ErrNot means that a path leads to a directory, a device, a FIFO or a socket.
var ErrNot = errors.New("it is not a regular file")

// Open is os.OpenFile for a regular file. It never waits, and a terminal does not become
// our controlling terminal. Anything else is not even opened, because opening has an
// effect on some devices.
//
// The error is a *fs.PathError. errors.Is finds ErrNot in it if path leads to something
// that is not a regular file.
func Open(path string, flag int, perm fs.FileMode) (*os.File, fs.FileInfo, error) {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return nil, nil, not(path)
	}
	return OpenKnown(path, flag, perm)
}

// OpenKnown is Open for a caller that has seen that path does not lead to a device.
func OpenKnown(path string, flag int, perm fs.FileMode) (*os.File, fs.FileInfo, error) {
	f, err := os.OpenFile(path, flag|syscall.O_NONBLOCK|syscall.O_NOCTTY, perm)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = not(path) // something else by now
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

func not(path string) error { return &fs.PathError{Op: "open", Path: path, Err: ErrNot} }
