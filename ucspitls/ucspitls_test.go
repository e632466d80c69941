package ucspitls

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// A socket answers with what Reader has and keeps what is written to it.
type socket struct {
	io.Reader
	bytes.Buffer
}

func (s *socket) Read(p []byte) (int, error)  { return s.Reader.Read(p) }
func (s *socket) Write(p []byte) (int, error) { return s.Buffer.Write(p) }

var goodBlocks = map[string][]string{
	"\x00":                        nil, // an empty list
	"A=1\x00\x00":                 {"A=1"},
	"A=1\x00B\x00C=\x00\x00":      {"A=1", "B", "C="},
	"A=1\x00\x00what follows\x00": {"A=1"}, // not ours to read
	"A=x=y\nz\xff\x00\x00":        {"A=x=y\nz\xff"},
	"A=" + strings.Repeat("x", MaxBlock-4) + "\x00\x00": {"A=" + strings.Repeat("x", MaxBlock-4)},
}

var badBlocks = map[string]error{
	"":                                  ErrHandshake,
	"A":                                 ErrTruncated,
	"A=1\x00":                           ErrTruncated, // the list is not ended
	"A=1\x00B":                          ErrTruncated,
	"=1\x00\x00":                        ErrMalformed,
	"A\x00=\x00\x00":                    ErrMalformed,
	strings.Repeat("x", MaxBlock):       ErrTooLong,
	strings.Repeat("A=1\x00", MaxBlock): ErrTooLong,
	"A=" + strings.Repeat("x", MaxBlock-3) + "\x00\x00": ErrTooLong,
}

func TestStart(t *testing.T) {
	readers := map[string]func(io.Reader) io.Reader{
		"at once":           func(r io.Reader) io.Reader { return r },
		"in pieces":         iotest.HalfReader,
		"byte by byte":      iotest.OneByteReader,
		"data with the end": iotest.DataErrReader,
	}
	for how, wrap := range readers {
		for block, want := range goodBlocks {
			s := &socket{Reader: wrap(strings.NewReader(block))}
			got, err := Start(s)
			if err != nil || !slices.Equal(got, want) {
				t.Errorf("%s, %.40q: %.40q, %v", how, block, got, err)
			}
			if s.String() != "Y" {
				t.Errorf("sent %q", s.String())
			}
		}
		for block, want := range badBlocks {
			if got, err := Start(&socket{Reader: wrap(strings.NewReader(block))}); !errors.Is(err, want) || got != nil {
				t.Errorf("%s, %.40q: %.40q, %v, want %v", how, block, got, err, want)
			}
		}
	}
	broken := errors.New("broken")
	if _, err := Start(&socket{Reader: iotest.ErrReader(broken)}); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

// Receive needs the block and nothing more: nobody waits for a TLS client that forgets to
// close the socket.
func TestReceiveDoesNotWaitForTheEnd(t *testing.T) {
	r, w := io.Pipe()
	go func() { _, _ = io.WriteString(w, "A=1\x00\x00") }()
	if got, err := Receive(r); err != nil || len(got) != 1 {
		t.Errorf("%q, %v", got, err)
	}
}

func TestAwait(t *testing.T) {
	for in, want := range map[string]Command{"y": Quiet, "Y": Full, "": None, "Yy": Full} {
		if got, err := Await(strings.NewReader(in)); got != want || err != nil {
			t.Errorf("Await(%q) = %q, %v", in, got, err)
		}
	}
	for _, in := range []string{"x", "\x00", "\n", "\xff"} {
		_, err := Await(strings.NewReader(in))
		if unknown := UnknownCommand(0); !errors.As(err, &unknown) || byte(unknown) != in[0] {
			t.Errorf("Await(%q): %v", in, err)
		}
	}
	broken := errors.New("broken")
	if c, err := Await(iotest.ErrReader(broken)); c != None || !errors.Is(err, broken) {
		t.Errorf("got %q, %v", c, err)
	}
}

func TestTell(t *testing.T) {
	var out bytes.Buffer
	if err := Tell(&out, []string{"A=1", "B", "C="}); err != nil || out.String() != "A=1\x00B\x00C=\x00\x00" {
		t.Errorf("%q, %v", out.String(), err)
	}
	for _, bad := range [][]string{{""}, {"=x"}, {"A=\x00"}, {"A=1", ""}} {
		if err := Tell(io.Discard, bad); !errors.Is(err, ErrMalformed) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if err := Tell(io.Discard, []string{strings.Repeat("x", MaxBlock)}); !errors.Is(err, ErrTooLong) {
		t.Errorf("got %v", err)
	}
}

func FuzzReceive(f *testing.F) {
	for block := range goodBlocks {
		f.Add([]byte(block))
	}
	for block := range badBlocks {
		f.Add([]byte(block))
	}
	f.Fuzz(func(t *testing.T, block []byte) {
		got, err := Receive(bytes.NewReader(block))
		slow, slowErr := Receive(iotest.OneByteReader(bytes.NewReader(block)))
		if !slices.Equal(got, slow) || !errors.Is(slowErr, err) {
			t.Errorf("at once: %q, %v; byte by byte: %q, %v", got, err, slow, slowErr)
		}
		if err != nil {
			return
		}
		var out bytes.Buffer
		if err := Tell(&out, got); err != nil || !bytes.HasPrefix(block, out.Bytes()) {
			t.Errorf("%q is told as %q, %v", got, out.String(), err)
		}
	})
}
