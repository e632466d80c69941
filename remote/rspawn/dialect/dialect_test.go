package dialect

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
)

func TestLimit(t *testing.T) {
	for _, c := range []struct {
		width Width
		n     int
		want  string
	}{{1, 255, "\xff"}, {1, 1, "\x01"}, {2, 500, "\xf4\x01"}, {2, 12000, "\xe0\x2e"}} {
		if got := string(c.width.Limit(c.n)); got != c.want {
			t.Errorf("%d bytes, %d: %q", c.width, c.n, got)
		}
	}
}

var long = strings.Repeat("x", MaxString)

var commands = []struct {
	in    string
	width Width
	want  []Command
}{
	{"", 1, nil},
	{"\x0511/1000\x00a@b\x00c@d\x00", 1, []Command{{Number: 5, MessageID: "11/1000", Sender: "a@b", Recipient: "c@d"}}},
	{"\x05\x0111/1000\x00\x00c@d\x00", 2, []Command{{Number: 261, MessageID: "11/1000", Recipient: "c@d"}}},
	{"\x001\x00\x00c@d\x00\x012\x00s\x00e@f", 1, []Command{{MessageID: "1", Recipient: "c@d"}}}, // the second is not whole
	{"\x001\x00" + long + "\x00c@d\x00", 1, []Command{{MessageID: "1", Sender: long, Recipient: "c@d"}}},
	{"\x001\x00" + long + "y\x00c@d\x00\x022\x00\x00e@f\x00", 1, []Command{
		{MessageID: "1", Recipient: "c@d", TooLong: true}, {Number: 2, MessageID: "2", Recipient: "e@f"}}},
	{"\xef\xbe\x00\x00\x00", 2, []Command{{Number: 0xBEEF, Reload: true}}},
	{"\xef\xbe\x00\x00a\x00", 2, []Command{{Number: 0xBEEF, Recipient: "a"}}},
	{"\xef\xbe" + long + long + "\x00\x00\x00", 2, []Command{{Number: 0xBEEF, TooLong: true}}},
	{"\xef\x00\x00\x00", 1, []Command{{Number: 0xEF}}},
}

func readAll(r io.Reader, w Width) (got []Command, err error) {
	for reader := NewReader(r, w); ; {
		c, err := reader.Next()
		if err != nil {
			return got, err
		}
		got = append(got, *c)
	}
}

func TestReader(t *testing.T) {
	for _, c := range commands {
		for how, r := range map[string]io.Reader{
			"whole":          strings.NewReader(c.in),
			"byte for byte":  iotest.OneByteReader(strings.NewReader(c.in)),
			"end with bytes": iotest.DataErrReader(strings.NewReader(c.in)),
		} {
			got, err := readAll(r, c.width)
			if err != io.EOF || !reflect.DeepEqual(got, c.want) {
				t.Errorf("%.40q, %s: %.200v, %v", c.in, how, got, err)
			}
		}
	}
	broken := errors.New("broken")
	if got, err := readAll(iotest.ErrReader(broken), 1); got != nil || err != broken {
		t.Errorf("%v, %v", got, err)
	}
}

func TestCheck(t *testing.T) {
	inUse := func(n int) bool { return n == 3 }
	for _, c := range []struct {
		command Command
		want    error
	}{
		{Command{0, "11/1000", "", "a@b", false, false}, nil},
		{Command{0, "0123456789/", "", "@", false, false}, nil},
		{Command{9, "x", "", "", true, false}, TooLong},
		{Command{9, "x", "", "", false, false}, TooBig},
		{Command{4, "1", "", "a@b", false, false}, TooBig},
		{Command{3, "x", "", "", false, false}, InUse},
		{Command{2, "x", "", "", false, false}, NonNumerics},
		{Command{2, "/1", "", "", false, false}, NonNumerics},
		{Command{2, "../1", "", "", false, false}, NonNumerics},
		{Command{2, "1 ", "", "", false, false}, NonNumerics},
		{Command{2, strings.Repeat("1", 100) + "x", "", "", false, false}, NonNumerics},
		{Command{2, "1x" + strings.Repeat("1", 100), "", "", false, false}, NonNumerics},
		{Command{2, strings.Repeat("1", 100), "", "", false, false}, IDTooLong},
		{Command{2, strings.Repeat("1", 99), "", "a@b", false, false}, nil},
		{Command{2, "", "", "", false, false}, IDTooShort},
		{Command{2, "1", "", "ab", false, false}, NoHost},
	} {
		if got := c.command.Check(4, inUse); got != c.want {
			t.Errorf("%+.60v: %v, want %v", c.command, got, c.want)
		}
	}
}

func TestHost(t *testing.T) {
	for recipient, want := range map[string]string{"a@b": "b", "a@b@c": "c", "a@": "", "ab": "ab"} {
		if got := (&Command{Recipient: recipient}).Host(); got != want {
			t.Errorf("%q: %q", recipient, got)
		}
	}
}

func TestAppend(t *testing.T) {
	cut := strings.Repeat("x", MaxText)
	for _, c := range []struct {
		answer Answer
		width  Width
		number int
		want   string
	}{
		{Answer{'K', "said\n"}, 1, 7, "\x07Ksaid\n\x00"},
		{Answer{'D', ""}, 2, 300, "\x2c\x01D\x00"},
		{Answer{'Z', "a\x00b"}, 1, 0, "\x00Za\x00"},
		{Answer{'Z', cut + "y"}, 1, 1, "\x01Z" + cut + "\x00"},
		{Answer{'x', "a"}, 1, 1, "\x01Za\x00"},
		{Answer{0, "a"}, 1, 1, "\x01Za\x00"},
		{Deferred(NoHost), 1, 1, "\x01ZSorry, address must include host name. (#4.3.5)\n\x00"},
	} {
		if got := string(c.answer.Append([]byte("before"), c.width, c.number)); got != "before"+c.want {
			t.Errorf("%.40q: %.60q", c.answer, got)
		}
	}
}

var cut = incomplete()

var streams = []struct {
	stream string
	want   Answer
}{
	{"r\x00Kyes\n\x00", Answer{'K', "yes\n"}},
	{"Kyes\n\x00", Answer{'K', "yes\n"}},
	{"Zno\n\x00", Answer{'Z', "no\n"}},
	{"Dno\n\x00", Answer{'D', "no\n"}},
	{"hno user\n\x00DGiving up\n\x00", Answer{'D', "no user\nGiving up\n"}},
	{"hno user\n\x00ZGiving up\n\x00", Answer{'D', "no user\n"}}, // the message's letter is better
	{"hno user\n\x00Kaccepted\n\x00", Answer{'D', "no user\n"}},  //
	{"slater\n\x00Kaccepted\n\x00", Answer{'Z', "later\n"}},      //
	{"slater\n\x00ZGiving up\n\x00", Answer{'Z', "later\nGiving up\n"}},
	{"slater\n\x00DGiving up\n\x00", Answer{'Z', "later\nGiving up\n"}}, // it is worse
	{"r\x00Dfailed\n\x00", Answer{'D', "failed\n"}},
	{"r\x00Zfailed\n\x00", Answer{'Z', "failed\n"}},
	{"r\x00r\x00Kyes\n\x00", Answer{'K', ""}}, // the second is not the message's
	{"rone\x00rtwo\x00Kyes\n\x00", Answer{'K', "one"}},
	{"Kyes\n\x00more", Answer{'K', "yes\n"}},
	{"Kyes\n\x00Dno", Answer{'K', "yes\n"}},
	{"r\x00", Answer{'D', ""}}, // none of K, Z, D
	{"xyz\x00", Answer{'D', "yz"}},
	{"hno\n\x00", Answer{'D', "no\n"}},
	{"sno\n\x00", Answer{'Z', "no\n"}},
	{"hno\n\x00Dcut", Answer{'D', "no\n"}},
	{"\x00", Answer{'D', ""}},
	{"\x00Kyes\x00", Answer{'K', "yes"}},
	{"", cut},
	{"Kyes", cut},
	{"h", cut},
	{"r\x00Kyes", cut},
	{"r\x00r\x00D", cut},
}

func TestVerdict(t *testing.T) {
	for _, c := range streams {
		if got := Verdict([]byte(c.stream)); got != c.want {
			t.Errorf("%q: %q, want %q", c.stream, got, c.want)
		}
	}
}

func TestEnding(t *testing.T) {
	for _, c := range []struct {
		ending Ending
		stream string
		word   string
		want   Answer
	}{
		{Ending{Signal: syscall.SIGKILL}, "Kyes\x00", "signal killed", Answer{'Z', "qmail-remote crashed.\n"}},
		{Ending{Status: 111}, "", "exit status 111", Answer{'Z', "Unable to run qmail-remote.\n"}},
		{Ending{Status: 2}, "Dno\x00", "exit status 2", Answer{'Z', "Unable to run qmail-remote.\n"}},
		{Ending{}, "", "exit status 0", Answer{'Z', "qmail-remote produced no output.\n"}},
		{Ending{}, "K", "exit status 0", cut},
		{Ending{}, "Kyes\x00", "exit status 0", Answer{'K', "yes"}},
	} {
		if got := c.ending.Answer([]byte(c.stream)); got != c.want || c.ending.String() != c.word {
			t.Errorf("%v, %q: %q, want %q", c.ending, c.stream, got, c.want)
		}
	}
	for n, want := range map[int]string{
		1: "qmail-remote crashed.\nThe worker ended by signal killed, with 1 delivery. Possible duplicate! (#4.3.0)\n",
		7: "qmail-remote crashed.\nThe worker ended by signal killed, with 7 deliveries. Possible duplicate! (#4.3.0)\n",
	} {
		if got := (Ending{Signal: syscall.SIGKILL}).Crashed(n); got != (Answer{'Z', want}) {
			t.Errorf("%d: %q", n, got)
		}
	}
}

// Commands that are cut, mixed or too long are read alike in whatever pieces they come,
// and what is kept of them is bounded.
func FuzzReader(f *testing.F) {
	for _, c := range commands {
		f.Add([]byte(c.in), c.width > 1)
	}
	f.Fuzz(func(t *testing.T, in []byte, two bool) {
		width := Width(1)
		if two {
			width = 2
		}
		whole, err := readAll(bytes.NewReader(in), width)
		pieces, other := readAll(iotest.HalfReader(bytes.NewReader(in)), width)
		if err != io.EOF || other != io.EOF || !reflect.DeepEqual(whole, pieces) {
			t.Fatalf("%v and %v, %v, %v", whole, pieces, err, other)
		}
		for _, c := range whole {
			if max(len(c.MessageID), len(c.Sender), len(c.Recipient)) > MaxString {
				t.Fatal("too long")
			}
			if fault := c.Check(100, func(int) bool { return false }); fault == nil && (c.Host() == c.Recipient || c.MessageID[0] == '/') {
				t.Fatalf("%+v", c)
			}
		}
	})
}

func FuzzVerdict(f *testing.F) {
	for _, c := range streams {
		f.Add([]byte(c.stream))
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		a := Verdict(stream)
		out := a.Append(nil, 1, 5)
		if !isMessage(a.Letter) || bytes.IndexByte(out[2:], 0) != len(out)-3 || len(out) > MaxText+3 {
			t.Fatalf("%q", a)
		}
		if a.Letter == Success && !bytes.Contains(stream, []byte("K")) {
			t.Fatalf("%q is success", stream)
		}
	})
}
