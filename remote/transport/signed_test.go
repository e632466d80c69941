package transport

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/remote/report"
)

const (
	testFields = "DKIM-Signature: v=1\n"
	testText   = "Subject: x\n\nhello\n"
)

// fileAt is a file with text behind something else, at the offset of text.
func fileAt(t *testing.T, text string) *os.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "message")
	must.Write(t, path, "envelope\n"+text)
	f := must.Open(t, path)
	must.Get(f.Seek(9, io.SeekStart))(t)
	return f
}

// noneLeft fails a test that leaves temporary files behind.
func noneLeft(t *testing.T) {
	t.Helper()
	folder := t.TempDir()
	t.Setenv("TMPDIR", folder)
	t.Cleanup(func() {
		if left := must.Get(os.ReadDir(folder))(t); len(left) != 0 {
			t.Errorf("left behind: %v", left)
		}
	})
}

// lookAt reads a message as one that signs does.
func lookAt(t *testing.T, m *Message) {
	t.Helper()
	text := must.Get(m.Text(t.Context()))(t)
	got := must.Get(io.ReadAll(io.NewSectionReader(text, 0, 1<<20)))(t)
	if string(got) != testText {
		t.Fatalf("%q", got)
	}
}

// A message that was looked at, and perhaps signed, is sent as often as need be, by this
// process and by children, whatever it came from.
func TestMessage_signed(t *testing.T) {
	sources := map[string]func(t *testing.T) *os.File{
		"file": func(t *testing.T) *os.File { return fileAt(t, testText) },
		"pipe": func(t *testing.T) *os.File { return must.Flow(t, testText) },
	}
	here := func(t *testing.T, m *Message) io.Reader { return m.reader() }
	child := func(t *testing.T, m *Message) io.Reader {
		f, done, err := m.descriptor(func(err error) { t.Error(err) })
		must.OK(t, err)
		t.Cleanup(done)
		info := must.Get(f.Stat())(t)
		if !info.Mode().IsRegular() {
			t.Errorf("a child is given %v", info.Mode())
		}
		return f
	}
	ways := map[string][]func(*testing.T, *Message) io.Reader{
		"here": {here, here}, "children": {child, child}, "child, then here": {child, here, child}, "here, then child": {here, child, here},
	}
	for name, source := range sources {
		for way, attempts := range ways {
			for _, fields := range []string{"", testFields} {
				t.Run(name+" "+way+" "+fields, func(t *testing.T) {
					noneLeft(t)
					file := source(t)
					m := NewMessage(file)
					lookAt(t, m)
					m.Prepend([]byte(fields))
					for _, attempt := range attempts {
						if got := must.Get(io.ReadAll(attempt(t, m)))(t); string(got) != fields+testText {
							t.Errorf("%q", got)
						}
						must.OK(t, m.Rewind())
					}
					m.Close()
					must.Get(file.Stat())(t) // it is still open
				})
			}
		}
	}
}

// What a child gets stands at offset 0 of a file of its own, and the message stays as it is.
func TestMessage_signedForChildren(t *testing.T) {
	noneLeft(t)
	file := fileAt(t, testText)
	m := NewMessage(file)
	defer m.Close()
	lookAt(t, m)
	m.Prepend([]byte(testFields))
	first, done, err := m.descriptor(func(err error) { t.Error(err) })
	must.OK(t, err)
	done()
	if at := must.Get(first.Seek(0, io.SeekCurrent))(t); at != 0 || first == file {
		t.Errorf("offset %d", at)
	}
	must.Get(io.CopyN(io.Discard, first, 5))(t)
	must.OK(t, m.Rewind())
	second, done, err := m.descriptor(func(err error) { t.Error(err) })
	must.OK(t, err)
	done()
	if at := must.Get(second.Seek(0, io.SeekCurrent))(t); at != 0 || first != second {
		t.Errorf("second: offset %d, a second copy: %v", at, first != second)
	}
	if info := must.Get(file.Stat())(t); info.Size() != int64(len("envelope\n"+testText)) {
		t.Errorf("the message has %d bytes", info.Size())
	}
}

func TestSignedReader(t *testing.T) {
	file := fileAt(t, testText)
	s := &signedReader{fields: []byte(testFields), file: file, start: 9}
	must.Check(t, iotest.TestReader(s, []byte(testFields+testText)))
	if info := must.Get(s.Stat())(t); info.Size() != int64(len(testFields+testText)) || !info.Mode().IsRegular() {
		t.Errorf("%d bytes, %v", info.Size(), info.Mode())
	}
	if _, err := s.Seek(-1, io.SeekStart); err == nil {
		t.Error("a position before the beginning")
	}
	// What happens to the file meanwhile is seen.
	must.OK(t, os.Truncate(file.Name(), 10))
	if end := must.Get(s.Seek(0, io.SeekEnd))(t); end != int64(len(testFields))+1 {
		t.Errorf("shorter: %d bytes", end)
	}
	must.OK(t, os.Truncate(file.Name(), 5))
	if end := must.Get(s.Seek(0, io.SeekEnd))(t); end != int64(len(testFields)) {
		t.Errorf("shorter than where it began: %d bytes", end)
	}
}

// A message that cannot be read, and a copy that cannot be made, are two errors.
func TestMessage_noText(t *testing.T) {
	closed := must.Open(t, os.DevNull)
	closed.Close()
	_, err := NewMessage(closed).Text(t.Context())
	if e := new(report.Error); !errors.As(err, &e) || e.Case != report.Unreadable {
		t.Errorf("closed: %v", err)
	}

	t.Setenv("TMPDIR", filepath.Join(t.TempDir(), "missing"))
	_, err = NewMessage(must.Flow(t, testText)).Text(t.Context())
	if e := new(report.Error); !errors.Is(err, os.ErrNotExist) || errors.As(err, &e) {
		t.Errorf("no folder: %v", err)
	}
	m := NewMessage(fileAt(t, testText))
	lookAt(t, m)
	m.Prepend([]byte(testFields))
	if _, _, err := m.descriptor(nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no folder for a signed copy: %v", err)
	}
	// A child is not handed the message without its signature the next time either.
	if _, _, err := m.descriptor(nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no folder, again: %v", err)
	}
}

// A pipe that is silent is not waited for longer than ctx.
func TestMessage_silentPipe(t *testing.T) {
	noneLeft(t)
	r, w := must.Pipe(t)
	before := runtime.NumGoroutine()
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("called off")
	m := NewMessage(r)
	defer m.Close()
	cancel(cause)
	if _, err := m.Text(ctx); !errors.Is(err, cause) {
		t.Errorf("%v", err)
	}
	w.Close()
	must.NoneLeft(t, before)
}

// Copies are not made in memory.
func TestMessage_memory(t *testing.T) {
	noneLeft(t)
	text := strings.Repeat("\n", 32<<20)
	pipe := must.Flow(t, text)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	m := NewMessage(pipe)
	defer m.Close()
	must.Get(m.Text(t.Context()))(t)
	m.Prepend([]byte(testFields))
	f, done, err := m.descriptor(func(err error) { t.Error(err) })
	must.OK(t, err)
	done()
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > 512<<10 {
		t.Errorf("%d bytes", used)
	}
	if info := must.Get(f.Stat())(t); info.Size() != int64(len(testFields)+len(text)) {
		t.Errorf("a copy of %d bytes", info.Size())
	}
}
