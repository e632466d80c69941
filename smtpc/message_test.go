package smtpc

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"nightmare.mail/mxf/integration/must"
)

// reference is the rule of lines said as slowly and plainly as can be: cut the
// text into lines, then write each with CR LF and, if dots are stuffed, a dot
// before its dot. whole reports whether the last line has an end.
func reference(text string, stuff bool) (wire string, whole bool) {
	text = strings.ReplaceAll(text, "\r\n", "\n")
	text = strings.ReplaceAll(text, "\r", "\n")
	lines := strings.Split(text, "\n")
	whole = lines[len(lines)-1] == ""
	if whole {
		lines = lines[:len(lines)-1]
	}
	for i, line := range lines {
		if stuff && strings.HasPrefix(line, ".") {
			line = "." + line
		}
		wire += line
		if whole || i < len(lines)-1 {
			wire += "\r\n"
		}
	}
	return wire, whole
}

// encodeIn encodes text cut into pieces of the given sizes, the last repeated.
func encodeIn(text string, sizes ...int) (string, encoder) {
	e := newEncoder()
	var out []byte
	for i := 0; len(text) > 0; i++ {
		n := min(len(text), sizes[min(i, len(sizes)-1)])
		out = e.append(out, []byte(text[:n]))
		text = text[n:]
	}
	return string(out), e
}

func checkEncoding(t *testing.T, text string, sizes ...int) {
	t.Helper()
	want, whole := reference(text, true)
	got, e := encodeIn(text, sizes...)
	if got != want || e.bol != whole {
		t.Fatalf("encoding %q in pieces of %v: %q, whole %v; want %q, %v", text, sizes, got, e.bol, want, whole)
	}
	unstuffed, _ := reference(text, false)
	var c counter
	for rest := text; len(rest) > 0; {
		n := min(len(rest), sizes[0])
		c.add([]byte(rest[:n]))
		rest = rest[n:]
	}
	if e.size != int64(len(unstuffed)) || c.size != e.size {
		t.Fatalf("size of %q: encoder %d, counter %d, want %d", text, e.size, c.size, len(unstuffed))
	}
	if read := strings.ReplaceAll("\r\n"+got, "\r\n.", "\r\n"); read != "\r\n"+unstuffed {
		t.Fatalf("a server reads %q back as %q", text, read)
	}
	if bare := strings.ReplaceAll(got, "\r\n", ""); strings.ContainsAny(bare, "\r\n") {
		t.Fatalf("encoding %q has a bare CR or LF: %q", text, got)
	}
	if whole && strings.Count("\r\n"+got+".\r\n", "\r\n.\r\n") != 1 {
		t.Fatalf("encoding %q has an end of data within: %q", text, got)
	}
}

// every calls f with every string over the letters up to the length given.
func every(letters string, length int, f func(string)) {
	f("")
	if length == 0 {
		return
	}
	for _, c := range letters {
		every(letters, length-1, func(rest string) { f(string(c) + rest) })
	}
}

func TestEveryStringIsEncodedAsTheReferenceHasIt(t *testing.T) {
	t.Parallel()
	seen := make(map[string]bool)
	every("\r\n.a", 7, func(text string) {
		if seen[text] {
			return
		}
		seen[text] = true
		checkEncoding(t, text, len(text)+1)
		checkEncoding(t, text, 1)
		checkEncoding(t, text, 2, 3)
	})
	if want := (1<<16 - 1) / 3; len(seen) != want {
		t.Errorf("tried %d strings, want %d", len(seen), want)
	}
}

func FuzzEncoder(f *testing.F) {
	for _, text := range []string{"", "a", "a\n", ".\n", "\r.\n", "\r.\r", "\r\n.\r\n", "a\r", "\n.\r.\n", "a\x00\xff\n"} {
		f.Add(text, uint8(3))
	}
	f.Fuzz(func(t *testing.T, text string, size uint8) {
		checkEncoding(t, text, int(size)+1)
	})
}

// onlyReader hides what else a reader can do.
type onlyReader struct{ io.Reader }

func TestMessageIsLookedThrough(t *testing.T) {
	long := strings.Repeat("0123456789\n", 20000)
	for _, c := range []struct {
		name, text        string
		size              int64
		eightBit, partial bool
		held              bool
	}{
		{"empty", "", 0, false, false, true},
		{"one line", "a\n", 3, false, false, true},
		{"no newline", "a\nb", 4, false, true, true},
		{"ends in a bare CR", "a\r", 3, false, false, true},
		{"CR LF stays", "a\r\n", 3, false, false, true},
		{"a dot is not counted twice", ".\n", 3, false, false, true},
		{"8-bit", "gr\xfc\xdfe\n", 7, true, false, true},
		{"8-bit last, behind a word", "01234567\x80\n", 11, true, false, true},
		{"NUL", "\x00\n", 3, false, false, true},
		{"one block less a byte", strings.Repeat("a", blockSize-2) + "\n", blockSize, false, false, true},
		{"one block", strings.Repeat("a", blockSize-1) + "\n", blockSize + 1, false, false, false},
		{"long", long, 240000, false, false, false},
		{"long and partial", long + "x", 240001, false, true, false},
		{"CR LF across blocks", strings.Repeat("a", blockSize-1) + "\r\nb\n", blockSize + 4, false, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := must.Get(newMessage(strings.NewReader(c.text)))(t)
			if !m.scanned || m.size != c.size || m.eightBit != c.eightBit || m.partial != c.partial || m.held != c.held {
				t.Errorf("scanned %v size %d eightBit %v partial %v held %v", m.scanned, m.size, m.eightBit, m.partial, m.held)
			}
			if got := contents(t, m); got != c.text {
				t.Errorf("the message has changed: %d bytes, want %d", len(got), len(c.text))
			}
		})
	}
}

func contents(t *testing.T, m *message) string {
	var got []byte
	for {
		block, err := m.next()
		if err == io.EOF {
			return string(got)
		}
		must.OK(t, err)
		got = append(got, block...)
	}
}

func TestMessageBeginsWhereItStands(t *testing.T) {
	for _, length := range []int{10, 3 * blockSize} {
		text := strings.Repeat("x", 5) + strings.Repeat("\n", length)
		r := strings.NewReader(text)
		must.Get(r.Seek(5, io.SeekStart))(t)
		m := must.Get(newMessage(r))(t)
		if got := contents(t, m); got != text[5:] || m.size != 2*int64(length) {
			t.Errorf("read %d bytes, size %d", len(got), m.size)
		}
	}
}

func TestMessageThatCannotBeRewoundIsLeftAlone(t *testing.T) {
	m, err := newMessage(onlyReader{iotest.ErrReader(errors.New("not yet"))})
	if err != nil || m.scanned {
		t.Errorf("scanned %v, error %v", m.scanned, err)
	}
}

// brokenSeeker fails in the midst.
type brokenSeeker struct{ *strings.Reader }

func (brokenSeeker) Read([]byte) (int, error) { return 0, errors.New("disk on fire") }

func TestMessageThatCannotBeReadIsAnError(t *testing.T) {
	_, err := newMessage(brokenSeeker{strings.NewReader("a\n")})
	var unreadable *MessageError
	if !errors.As(err, &unreadable) {
		t.Errorf("error %v", err)
	}
}

func TestMessageReaderThatBringsNothing(t *testing.T) {
	m, _ := newMessage(onlyReader{readerFunc(func([]byte) (int, error) { return 0, nil })})
	if _, err := m.next(); err != io.ErrNoProgress {
		t.Errorf("error %v", err)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestMessageLastBytesMayComeWithTheEnd(t *testing.T) {
	m, _ := newMessage(onlyReader{iotest.DataErrReader(strings.NewReader("a\nb\n"))})
	if got := contents(t, m); got != "a\nb\n" {
		t.Errorf("read %q", got)
	}
}

func benchmarkTexts() map[string][]byte {
	line := strings.Repeat("The quick brown fox jumps over the lazy dog, again", 2)[:76]
	return map[string][]byte{
		"text":  []byte(strings.Repeat(line+"\n", 1000)),
		"crlf":  []byte(strings.Repeat(line+"\r\n", 1000)),
		"lf":    bytes.Repeat([]byte{'\n'}, 64<<10),
		"cr":    bytes.Repeat([]byte{'\r'}, 64<<10),
		"dots":  bytes.Repeat([]byte(".\n"), 32<<10),
		"noend": bytes.Repeat([]byte{'a'}, 64<<10),
	}
}

func BenchmarkEncoder(b *testing.B) {
	for name, text := range benchmarkTexts() {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(text)))
			out := make([]byte, 0, 2*len(text))
			for b.Loop() {
				e := newEncoder()
				e.append(out, text)
			}
		})
	}
}

func BenchmarkScan(b *testing.B) {
	text := bytes.Repeat(benchmarkTexts()["text"], 10)
	b.ReportAllocs()
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		must.Get(newMessage(bytes.NewReader(text)))(b)
	}
}
