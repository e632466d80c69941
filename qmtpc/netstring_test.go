package qmtpc

import (
	"bufio"
	"errors"
	"io"
	"strconv"
	"strings"
	"testing"

	"nightmare.mail/mxf/qmtpc/qmtptest"
)

var goodNetstrings = []struct{ in, text, rest string }{
	{"0:,", "", ""},
	{"1:K,", "K", ""},
	{"3:a,b,next", "a,b", "next"},
	{"4:\x00\xff\r\n,", "\x00\xff\r\n", ""},
	{"10000:" + strings.Repeat("x", 10000) + ",", strings.Repeat("x", 10000), ""},
}

var badNetstrings = []struct{ in, why string }{
	{"220 ready", "' ' in a netstring's length"},
	{"+1:K,", "'+' in a netstring's length"},
	{"-1:K,", "'-' in a netstring's length"},
	{"0x1:K,", "'x' in a netstring's length"},
	{":K,", "':' in a netstring's length"},
	{"01:K,", "leading zero"},
	{"00:,", "leading zero"},
	{"1:K;", "';' where a netstring of 1 bytes should end"},
	{"1:Kok,", "'o' where"},
	{"10001:", "longer than 10000 bytes"},
	{"99999999999999999999999999", "longer than 10000 bytes"},
	{"18446744073709551617:K,", "longer than 10000 bytes"},
}

// A netstring that ends too early is a lost connection, not nonsense.
var shortNetstrings = []string{"", "1", "12", "1:", "1:K", "5:Kok"}

func TestReadNetstring(t *testing.T) {
	for _, good := range goodNetstrings {
		r := bufio.NewReader(strings.NewReader(good.in))
		text, err := readNetstring(r, maxAnswer)
		rest, _ := io.ReadAll(r)
		if err != nil || string(text) != good.text || string(rest) != good.rest {
			t.Errorf("%.20q: %.20q, rest %q, error %v", good.in, text, rest, err)
		}
	}
	for _, bad := range badNetstrings {
		_, err := readNetstring(bufio.NewReader(strings.NewReader(bad.in)), maxAnswer)
		var nonsense *ProtocolError
		if !errors.As(err, &nonsense) || !strings.Contains(err.Error(), bad.why) {
			t.Errorf("%q: error %v, want %s", bad.in, err, bad.why)
		}
	}
	for _, short := range shortNetstrings {
		_, err := readNetstring(bufio.NewReader(strings.NewReader(short)), maxAnswer)
		if err != io.EOF && err != io.ErrUnexpectedEOF {
			t.Errorf("%q: error %v, want an end of file", short, err)
		}
	}
}

// The answer to an endless length must not be endless patience.
func TestReadNetstringStopsAtOnce(t *testing.T) {
	r := bufio.NewReaderSize(io.MultiReader(strings.NewReader("123456"), &never{t}), 16)
	if _, err := readNetstring(r, maxAnswer); err == nil {
		t.Error("a length of 123456 was believed")
	}
}

type never struct{ t *testing.T }

func (n *never) Read([]byte) (int, error) {
	n.t.Error("read on after what decides")
	return 0, io.EOF
}

func TestAppendNetstring(t *testing.T) {
	for _, n := range []int{0, 1, 9, 10, 99, 100, 12345} {
		text := strings.Repeat("x", n)
		got := string(appendNetstring(nil, text))
		if got != qmtptest.Netstring(text) || len(got) != netstringLen(n) {
			t.Errorf("%d bytes: %.20q, length %d and %d", n, got, len(got), netstringLen(n))
		}
	}
}

func FuzzReadNetstring(f *testing.F) {
	for _, good := range goodNetstrings {
		f.Add([]byte(good.in))
	}
	for _, bad := range badNetstrings {
		f.Add([]byte(bad.in))
	}
	for _, short := range shortNetstrings {
		f.Add([]byte(short))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		text, err := readNetstring(bufio.NewReader(strings.NewReader(string(in))), maxAnswer)
		want, ok := obvious(string(in))
		switch {
		case (err == nil) != ok:
			t.Errorf("%q: error %v, but good is %t", in, err, ok)
		case string(text) != want:
			t.Errorf("%q: %q, want %q", in, text, want)
		case err != nil && err.Error() == "":
			t.Errorf("%q: an error without words", in)
		}
	})
}

// obvious is the slow way to read a netstring.
func obvious(in string) (string, bool) {
	digits, rest, found := strings.Cut(in, ":")
	n, err := strconv.Atoi(digits)
	if !found || err != nil || strconv.Itoa(n) != digits || n < 0 || n > maxAnswer {
		return "", false
	}
	if len(rest) < n+1 || rest[n] != ',' {
		return "", false
	}
	return rest[:n], true
}
