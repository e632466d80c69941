package qmtpc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"nightmare.mail/mxf/remote/report"
)

// spoolInMemory bounds what is kept in memory of a message whose size cannot be
// known beforehand, in bytes: most mail fits, and a hundred deliveries at a time
// do not fill a machine.
const spoolInMemory = 1 << 20

// spoolLimit bounds what is spooled of a message in all, in bytes: no mail is as large,
// and a pipe or a device without end must not fill the disk.
const spoolLimit = 1 << 30

// A sized message is one whose length is known before its first byte is sent.
type sized struct {
	io.Reader
	size  int64                 // bytes
	now   func() (int64, error) // what the length is by now; nil where it cannot change
	close func()
}

// measure finds the length of what is left of message: from its file's size, by
// seeking, or else by spooling it. The error is a *report.Error when message
// cannot be read, another when there is no room for the spool.
func measure(ctx context.Context, message io.Reader) (*sized, error) {
	if file, ok := message.(interface{ Stat() (fs.FileInfo, error) }); ok {
		if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
			return spoolUntil(ctx, message)
		} else if offset, ok := position(message); ok {
			m := asIs(message, info.Size()-offset)
			m.now = func() (int64, error) {
				info, err := file.Stat()
				if err != nil {
					return 0, err
				}
				return max(info.Size()-offset, 0), nil
			}
			return m, nil
		}
	}
	if offset, ok := position(message); ok {
		seeker := message.(io.Seeker)
		end, err := seeker.Seek(0, io.SeekEnd)
		if err == nil {
			_, err = seeker.Seek(offset, io.SeekStart)
		}
		if err != nil {
			return nil, unreadable(err)
		}
		return asIs(message, end-offset), nil
	}
	return spoolUntil(ctx, message)
}

// position returns the offset of what can seek.
func position(message io.Reader) (int64, bool) {
	seeker, ok := message.(io.Seeker)
	if !ok {
		return 0, false
	}
	offset, err := seeker.Seek(0, io.SeekCurrent)
	return offset, err == nil
}

func asIs(message io.Reader, size int64) *sized {
	return &sized{Reader: message, size: max(size, 0), close: func() {}}
}

func unreadable(err error) error {
	return &report.Error{Case: report.Unreadable, Facts: report.Facts{Reason: err.Error()}, Err: err}
}

// spoolUntil spools message, but no longer than ctx allows: a pipe can be silent
// for ever. What it then leaves behind ends with the message.
func spoolUntil(ctx context.Context, message io.Reader) (*sized, error) {
	type result struct {
		message *sized
		err     error
	}
	done := make(chan result)
	go func() {
		var r result
		r.err = guard(func() (err error) {
			r.message, err = spool(message, spoolLimit)
			return err
		})
		select {
		case done <- r:
		case <-ctx.Done():
			if r.message != nil {
				r.message.close()
			}
		}
	}()
	select {
	case r := <-done:
		return r.message, r.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// spool reads message to its end, into memory or a temporary file that has no
// name any more. The error is a *report.Error when it is longer than limit.
func spool(message io.Reader, limit int64) (*sized, error) {
	var memory bytes.Buffer
	n, err := io.CopyN(&memory, message, spoolInMemory+1)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, unreadable(err)
	}
	if n <= spoolInMemory {
		return asIs(&memory, n), nil
	}
	file, err := os.CreateTemp("", "mxf-qmtp-")
	if err != nil {
		return nil, fmt.Errorf("spooling the message: %w", err)
	}
	// Unlinked at once: whatever becomes of this process, nothing stays.
	err = os.Remove(file.Name())
	var size int64
	if err == nil {
		size, err = spoolTo(file, io.MultiReader(&memory, &source{message}), limit)
	}
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("spooling the message: %w", err)
	}
	return &sized{Reader: file, size: size, close: func() { file.Close() }}, nil
}

// A source marks the errors of the message, so that they are not taken for
// those of the spool.
type source struct{ io.Reader }

func (s *source) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if err != nil && err != io.EOF {
		err = unreadable(err)
	}
	return n, err
}

func spoolTo(file *os.File, message io.Reader, limit int64) (int64, error) {
	size, err := io.Copy(file, io.LimitReader(message, limit+1))
	if err != nil {
		return 0, err
	}
	if size > limit {
		return 0, unreadable(fmt.Errorf("it is not a file, and longer than the %d bytes that are spooled", limit))
	}
	_, err = file.Seek(0, io.SeekStart)
	return size, err
}
