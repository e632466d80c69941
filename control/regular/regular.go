// Package regular opens regular files and nothing else: not a FIFO, whose writer would
// be waited for, nor a terminal, a device or a directory, which somebody may have put
// where a control file, a table or a certificate is to be read.
package regular

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// ErrNot says that a path leads to a directory, device, FIFO or socket, where a file
// should be.
var ErrNot = errors.New("it is not a regular file")

// Open is os.OpenFile for a regular file. It never waits, and does not make the line of
// a terminal ours. What is not a file is not even opened, for some devices do something
// then.
//
// The error is a *fs.PathError; errors.Is finds ErrNot in it where there is no file.
func Open(path string, flag int, perm fs.FileMode) (*os.File, fs.FileInfo, error) {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return nil, nil, not(path)
	}
	return OpenKnown(path, flag, perm)
}

// OpenKnown is Open for who has seen that the path does not lead to a device.
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
