// Package spool keeps a text that can be read only once, such as a pipe, in a temporary file
// that has no name any more.
package spool

import (
	"context"
	"errors"
	"io"
	"os"
)

// Limit bounds what is kept of a text, in bytes: no mail is as large, and a pipe or a device
// without end must not fill the disk.
const Limit = 1 << 30

// ErrLong says that a text is longer than what is kept.
var ErrLong = errors.New("the text is longer than what is spooled")

// Create returns a file for reading and writing, in the folder for temporary files. It is
// unlinked at once: whatever becomes of this process, nothing stays.
func Create() (*os.File, error) {
	file, err := os.CreateTemp("", "mxf-spool-")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(file.Name()); err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// File copies text to its end into a file of Create, and returns that at its beginning, and its
// size in bytes. An error is ErrLong where text has more than limit bytes, or that of text,
// or one of the file.
func File(text io.Reader, limit int64) (*os.File, int64, error) {
	file, err := Create()
	if err != nil {
		return nil, 0, err
	}
	size, err := io.Copy(file, io.LimitReader(text, limit+1))
	if err == nil && size > limit {
		err = ErrLong
	}
	if err == nil {
		_, err = file.Seek(0, io.SeekStart)
	}
	if err != nil {
		file.Close()
		return nil, 0, err
	}
	return file, size, nil
}

// Until returns what read returns, or the cause of ctx when that ends first: a pipe can be
// silent for ever. The goroutine that is left then ends with the pipe, and what read returns
// is dropped. Read must not panic.
func Until[T any](ctx context.Context, read func() (T, error), drop func(T)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result)
	go func() {
		var r result
		r.value, r.err = read()
		select {
		case done <- r:
		case <-ctx.Done():
			if r.err == nil {
				drop(r.value)
			}
		}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		var none T
		return none, context.Cause(ctx)
	}
}
