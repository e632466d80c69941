package transport

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nightmare.mail/mxf/integration/must"
)

func TestMessage_file(t *testing.T) {
	path := filepath.Join(t.TempDir(), "message")
	must.Write(t, path, "envelope\nSubject: x\n")
	f := must.Open(t, path)
	must.Get(f.Seek(9, io.SeekStart))(t)
	s := NewMessage(f)
	for range 2 {
		got, err := io.ReadAll(s.reader())
		if err != nil || string(got) != "Subject: x\n" {
			t.Fatalf("%q, %v", got, err)
		}
		must.OK(t, s.Rewind())
	}
}

// A pipe that nobody has read from serves the next attempt; one that was read
// from serves none.
func TestMessage_pipeInProcess(t *testing.T) {
	s := NewMessage(must.Flow(t, "Subject: x\n"))
	reader := s.reader()
	if err := s.Rewind(); err != nil {
		t.Fatalf("not read from: %v", err)
	}
	if got, err := io.ReadAll(reader); err != nil || string(got) != "Subject: x\n" {
		t.Fatalf("%q, %v", got, err)
	}
	if s.Rewind() == nil {
		t.Error("rewound a pipe that was read")
	}
}

func TestMessage_pipeToChildren(t *testing.T) {
	for _, text := range []string{"", "Subject: x\n", strings.Repeat("0123456789abcde\n", 20000)} {
		s := NewMessage(must.Flow(t, text))
		for range 3 {
			f, done, err := s.descriptor(func(err error) { t.Error(err) })
			must.OK(t, err)
			time.Sleep(time.Millisecond) // let some of it arrive; either way must do
			_ = f
			done()
			if err := s.Rewind(); err != nil {
				t.Fatalf("%d bytes: nobody read: %v", len(text), err)
			}
		}
		f, done, err := s.descriptor(func(err error) { t.Error(err) })
		must.OK(t, err)
		got, err := io.ReadAll(f)
		done()
		if err != nil || string(got) != text {
			t.Fatalf("%d bytes arrived of %d, %v", len(got), len(text), err)
		}
		if text != "" && s.Rewind() == nil {
			t.Error("rewound a pipe that was read")
		}
	}
}

// What is left after a child that read nothing can be read in this process.
func TestMessage_pipeChildThenOurselves(t *testing.T) {
	text := strings.Repeat("0123456789abcde\n", 20000)
	s := NewMessage(must.Flow(t, text))
	_, done, err := s.descriptor(func(err error) { t.Error(err) })
	must.OK(t, err)
	done()
	got, err := io.ReadAll(s.reader())
	if err != nil || string(got) != text {
		t.Fatalf("%d bytes of %d, %v", len(got), len(text), err)
	}
}

// In some devices one can seem to seek: they are read as pipes are.
func TestMessage_device(t *testing.T) {
	for _, name := range []string{"/dev/zero", "/dev/null"} {
		f, err := os.Open(name)
		if err != nil {
			t.Skip(err)
		}
		defer f.Close()
		s := NewMessage(f)
		child, done, err := s.descriptor(func(err error) { t.Error(err) })
		must.OK(t, err)
		if info, err := child.Stat(); err != nil || info.Mode().Type() != os.ModeNamedPipe {
			t.Errorf("%s: a child is given %v, %v", name, info.Mode(), err)
		}
		_, err = child.Read(make([]byte, 1))
		if wants := map[string]error{"/dev/zero": nil, "/dev/null": io.EOF}; err != wants[name] {
			t.Errorf("%s: %v", name, err)
		}
		done()
		if name == "/dev/zero" && s.Rewind() == nil {
			t.Errorf("%s: rewound although a byte is gone", name)
		}
	}
}
