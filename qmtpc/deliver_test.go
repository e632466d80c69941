package qmtpc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"nightmare.mail/mxf/qmtpc/qmtptest"
	"nightmare.mail/mxf/remote/report"
)

const (
	ip = "192.0.2.1"
	// patience is far beyond what any of these conversations takes.
	patience = 30 * time.Second
)

// start runs a scripted server for the length of a test.
func start(t *testing.T, script qmtptest.Script) *qmtptest.Server {
	t.Helper()
	s, err := qmtptest.Start(script)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func dial(t *testing.T, s *qmtptest.Server) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// deliver sends job to a server that follows script. What the job leaves open is
// filled in.
func deliver(t *testing.T, script qmtptest.Script, job Job) (report.Stream, []qmtptest.Package, error) {
	t.Helper()
	s := start(t, script)
	if job.Recipients == nil {
		job.Recipients = []string{"a@example.org"}
	}
	if job.Message == nil {
		job.Message = strings.NewReader("Subject: x\n\ny\n")
	}
	if job.TimeoutRemote == 0 {
		job.TimeoutRemote = patience
	}
	job.RemoteIP = ip
	stream, err := Deliver(context.Background(), dial(t, s), &job)
	return stream, s.Packages(), err
}

func rcpts(n int) []string {
	r := make([]string, n)
	for i := range r {
		r[i] = "r" + strconv.Itoa(i) + "@example.org"
	}
	return r
}

// text is the stream as it goes to descriptor 1, with | for the end of a report.
func text(s report.Stream) string {
	return strings.NewReplacer("\n\x00", "|", "\x00", "|").Replace(string(s.Bytes()))
}

func want(t *testing.T, stream report.Stream, err error, expected string) {
	t.Helper()
	if err != nil {
		t.Errorf("error %v, want none", err)
	}
	if got := text(stream); got != expected {
		t.Errorf("reports\n %q, want\n %q", got, expected)
	}
}

func TestAccepted(t *testing.T) {
	stream, got, err := deliver(t, qmtptest.Answer("Kok 17"), Job{Sender: "s@example.net"})
	want(t, stream, err, "r|K192.0.2.1 accepted message.\nRemote host said: ok 17|")
	expected := []qmtptest.Package{{Message: []byte("Subject: x\n\ny\n"), Sender: "s@example.net", Recipients: []string{"a@example.org"}}}
	if fmt.Sprint(got) != fmt.Sprint(expected) {
		t.Errorf("arrived: %q", got)
	}
}

// Every mixture of K, Z and D for one to four recipients, against the rule as
// the specification words it.
func TestMixtures(t *testing.T) {
	var mixtures []string
	for _, more := 0, []string{""}; len(more[0]) < 4; {
		var longer []string
		for _, m := range more {
			longer = append(longer, m+"K", m+"Z", m+"D")
		}
		mixtures = append(mixtures, longer...)
		more = longer
	}
	s := start(t, func(c *qmtptest.Conn) error {
		p, err := c.Package()
		if err != nil {
			return err
		}
		for i, letter := range p.Sender {
			if err := c.Say(string(letter) + "because " + strconv.Itoa(i)); err != nil {
				return err
			}
		}
		return nil
	})
	for _, m := range mixtures {
		stream, err := Deliver(context.Background(), dial(t, s), &Job{
			Sender: m, Recipients: rcpts(len(m)), Message: strings.NewReader("x\n"), RemoteIP: ip, TimeoutRemote: patience,
		})
		want(t, stream, err, expectMixture(m))
	}
}

func expectMixture(m string) string {
	var out strings.Builder
	for i, letter := range m {
		switch letter {
		case 'K':
			out.WriteString("r|")
		case 'Z':
			fmt.Fprintf(&out, "s%s does not like recipient.\nRemote host said: because %d|", ip, i)
		case 'D':
			fmt.Fprintf(&out, "h%s does not like recipient.\nRemote host said: because %d|", ip, i)
		}
	}
	first := strings.IndexByte(m, 'K')
	switch {
	case first >= 0:
		fmt.Fprintf(&out, "K%s accepted message.\nRemote host said: because %d|", ip, first)
	case strings.Trim(m, "D") == "":
		fmt.Fprintf(&out, "DGiving up on %s.|", ip)
	default:
		fmt.Fprintf(&out, "ZGiving up on %s.|", ip)
	}
	return out.String()
}

func TestPackagesArriveUnchanged(t *testing.T) {
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	random := make([]byte, 3<<20)
	chacha := rand.NewChaCha8([32]byte{1})
	chacha.Read(random)
	messages := map[string][]byte{
		"empty":           {},
		"every byte":      every,
		"no last newline": []byte("a"),
		"dots and CRs":    []byte("..\r\n.\r\n\r.\n"),
		"one write less":  random[:writeSize-1],
		"one write":       random[:writeSize],
		"one write more":  random[:writeSize+1],
		"spool less one":  random[:spoolInMemory-1],
		"spool":           random[:spoolInMemory],
		"spool more one":  random[:spoolInMemory+1],
		"large":           random,
	}
	senders := []string{"", "s@example.net", "\"a b\"@x", "ü@ü.example"}
	for name, message := range messages {
		for way, open := range map[string]func(*testing.T, []byte) io.Reader{
			"file": fileOf, "file at an offset": fileAtOffset, "pipe": pipeOf, "reader": readerOf, "seeker": seekerOf,
		} {
			t.Run(name+"/"+way, func(t *testing.T) {
				t.Setenv("TMPDIR", t.TempDir())
				sender := senders[len(message)%len(senders)]
				stream, got, err := deliver(t, qmtptest.Answer("Kok"), Job{Sender: sender, Message: open(t, message)})
				want(t, stream, err, "r|K192.0.2.1 accepted message.\nRemote host said: ok|")
				if len(got) != 1 || !bytes.Equal(got[0].Message, message) || got[0].Sender != sender {
					t.Error("something else arrived")
				}
				if left, _ := os.ReadDir(os.TempDir()); len(left) != 0 {
					t.Errorf("left behind: %v", left)
				}
			})
		}
	}
}

func fileOf(t *testing.T, b []byte) io.Reader { return fileAt(t, b, 0) }

func fileAtOffset(t *testing.T, b []byte) io.Reader {
	return fileAt(t, append([]byte("envelope"), b...), int64(len("envelope")))
}

func fileAt(t *testing.T, b []byte, offset int64) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "message"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if _, err := f.Write(b); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	return f
}

func pipeOf(t *testing.T, b []byte) io.Reader {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	go func() {
		w.Write(b)
		w.Close()
	}()
	return r
}

func readerOf(_ *testing.T, b []byte) io.Reader { return io.MultiReader(bytes.NewReader(b)) }
func seekerOf(_ *testing.T, b []byte) io.Reader { return bytes.NewReader(b) }

// "in memory up to 1 MiB, then to an unlinked temporary file"
func TestSpool(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	for _, size := range []int{0, 1, spoolInMemory, spoolInMemory + 1, spoolInMemory * 2} {
		m, err := spool(readerOf(t, make([]byte, size)), spoolLimit)
		if err != nil {
			t.Fatal(err)
		}
		f, onDisk := m.Reader.(*os.File)
		if onDisk != (size > spoolInMemory) || m.size != int64(size) {
			t.Errorf("%d bytes: on disk %t, size %d", size, onDisk, m.size)
		}
		if onDisk {
			if _, err := os.Stat(f.Name()); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s still has its name: %v", f.Name(), err)
			}
		}
		m.close()
	}
	t.Setenv("TMPDIR", filepath.Join(dir, "missing"))
	_, got, err := deliver(t, qmtptest.Accept, Job{Message: readerOf(t, make([]byte, spoolInMemory+1))})
	var known *report.Error
	if err == nil || errors.As(err, &known) || len(got) != 0 {
		t.Errorf("no room for the spool: error %v, %d packages", err, len(got))
	}
}

func TestUnreadable(t *testing.T) {
	broken := brokenReader{errors.New("input/output error")}
	closed := fileAt(t, []byte("x\n"), 0)
	closed.Close()
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	for name, message := range map[string]io.Reader{
		"at once":    broken,
		"later":      io.MultiReader(strings.NewReader("x\n"), broken),
		"from disk":  io.MultiReader(bytes.NewReader(make([]byte, 2*spoolInMemory)), broken),
		"closed":     closed,
		"a folder":   dir,
		"seek fails": &badSeeker{},
	} {
		stream, got, err := deliver(t, qmtptest.Accept, Job{Message: message})
		if s := text(stream); err != nil || len(got) != 0 || !strings.HasPrefix(s, "ZUnable to read message: ") {
			t.Errorf("%s: %q, error %v, %d packages", name, s, err, len(got))
		}
	}
}

type brokenReader struct{ err error }

func (e brokenReader) Read([]byte) (int, error) { return 0, e.err }

type badSeeker struct{}

func (*badSeeker) Read([]byte) (int, error) { return 0, io.EOF }
func (*badSeeker) Seek(_ int64, whence int) (int64, error) {
	if whence == io.SeekEnd {
		return 0, errors.New("no end")
	}
	return 0, nil
}

// A file that is not what it was announced to be is never delivered.
func TestFileChanges(t *testing.T) {
	for name, change := range map[string]func(*os.File) error{
		"shrinks":        func(f *os.File) error { return f.Truncate(5 << 20) },
		"shrinks by one": func(f *os.File) error { return f.Truncate(8<<20 - 1) },
		"vanishes":       func(f *os.File) error { return f.Truncate(0) },
		"grows":          func(f *os.File) error { _, err := f.WriteAt([]byte("x"), 8<<20); return err },
	} {
		t.Run(name, func(t *testing.T) {
			f := fileAt(t, make([]byte, 8<<20), 0)
			changed := make(chan struct{})
			script := func(c *qmtptest.Conn) error {
				if err := c.Discard(1000); err != nil {
					return err
				}
				<-changed
				_, err := io.Copy(io.Discard, c)
				if err != nil {
					return err
				}
				return c.Say("Kyou must be joking")
			}
			started := &once{Reader: f, do: func() {
				if err := change(f); err != nil {
					t.Error(err)
				}
				close(changed)
			}}
			stream, got, err := deliver(t, script, Job{Message: started})
			if s := text(stream); err != nil || !strings.HasPrefix(s, "ZUnable to read message: it changed while it was sent: ") ||
				strings.Contains(s, "accepted") || len(got) != 0 {
				t.Errorf("%q, error %v", s, err)
			}
		})
	}
}

// once is a regular file to the eye, and calls do at the first read.
type once struct {
	io.Reader
	do   func()
	done bool
}

func (o *once) Stat() (os.FileInfo, error) { return o.Reader.(*os.File).Stat() }
func (o *once) Seek(off int64, whence int) (int64, error) {
	return o.Reader.(*os.File).Seek(off, whence)
}
func (o *once) Read(p []byte) (int, error) {
	if !o.done {
		o.done = true
		o.do()
	}
	return o.Reader.Read(p)
}

// lostCases are all the places where a server can leave or talk nonsense.
// before: it has not read the whole package; then answers may come early.
var lostCases = []struct {
	name   string
	before bool
	say    string
	next   bool   // exit 75
	want   string // reports for two recipients
}{
	{"no byte before", true, "", true, "ZConnected to 192.0.2.1 but connection died. (#4.4.2)|"},
	{"half an answer before", true, "5:K", false, "ZConnected to 192.0.2.1 but connection died. (#4.4.2)|"},
	{"one refusal before", true, "3:Dno,", false, "h192.0.2.1 does not like recipient.\nRemote host said: no|ZConnected to 192.0.2.1 but connection died. (#4.4.2)|"},
	{"nonsense before", true, "421 too busy\r\n", false, "ZConnected to 192.0.2.1 but its answer is not QMTP: ' ' in a netstring's length. (#4.5.0)|"},
	{"both refused before", true, "3:Dno,3:Dno,", false, "h192.0.2.1 does not like recipient.\nRemote host said: no|h192.0.2.1 does not like recipient.\nRemote host said: no|DGiving up on 192.0.2.1.|"},
	{"refused and deferred before", true, "3:Dno,4:Zyes,", false, "h192.0.2.1 does not like recipient.\nRemote host said: no|s192.0.2.1 does not like recipient.\nRemote host said: yes|ZGiving up on 192.0.2.1.|"},
	// It cannot have the message, and says that it has: doubt.
	{"both accepted before", true, "3:Kok,3:Kok,", false, "r|r|ZConnected to 192.0.2.1 but connection died. Possible duplicate! (#4.4.2)|"},
	{"one accepted before", true, "3:Kok,3:Dno,", false, "r|h192.0.2.1 does not like recipient.\nRemote host said: no|ZConnected to 192.0.2.1 but connection died. Possible duplicate! (#4.4.2)|"},

	{"no byte after", false, "", false, "ZConnected to 192.0.2.1 but connection died. Possible duplicate! (#4.4.2)|"},
	{"half an answer after", false, "5:K", false, "ZConnected to 192.0.2.1 but connection died. Possible duplicate! (#4.4.2)|"},
	{"one acceptance after", false, "3:Kok,", false, "r|ZConnected to 192.0.2.1 but connection died. Possible duplicate! (#4.4.2)|"},
	{"one refusal after", false, "3:Dno,", false, "h192.0.2.1 does not like recipient.\nRemote host said: no|ZConnected to 192.0.2.1 but connection died. Possible duplicate! (#4.4.2)|"},
	{"one and a half after", false, "3:Kok,3:Zn", false, "r|ZConnected to 192.0.2.1 but connection died. Possible duplicate! (#4.4.2)|"},
	{"nonsense after", false, "250 ok\r\n", false, "ZConnected to 192.0.2.1 but its answer is not QMTP: ' ' in a netstring's length. Possible duplicate! (#4.5.0)|"},
	{"a letter that is none", false, "3:Kok,3:Xno,", false, "r|ZConnected to 192.0.2.1 but its answer is not QMTP: an answer that begins with 'X'. Possible duplicate! (#4.5.0)|"},
	{"a small letter", false, "3:kok,", false, "ZConnected to 192.0.2.1 but its answer is not QMTP: an answer that begins with 'k'. Possible duplicate! (#4.5.0)|"},
	{"no letter", false, "0:,3:Kok,", false, "ZConnected to 192.0.2.1 but its answer is not QMTP: an answer without a letter. Possible duplicate! (#4.5.0)|"},
	{"too long an answer", false, "10001:K", false, "ZConnected to 192.0.2.1 but its answer is not QMTP: a netstring longer than 10000 bytes. Possible duplicate! (#4.5.0)|"},
	{"a leading zero", false, "03:Kok,", false, "ZConnected to 192.0.2.1 but its answer is not QMTP: a netstring's length with a leading zero. Possible duplicate! (#4.5.0)|"},
	{"no comma", false, "3:Kok;", false, "ZConnected to 192.0.2.1 but its answer is not QMTP: ';' where a netstring of 3 bytes should end. Possible duplicate! (#4.5.0)|"},
	{"more answers than recipients", false, "3:Kok,3:Kok,3:Dno,what", false, "r|r|K192.0.2.1 accepted message.\nRemote host said: ok|"},
}

func TestLost(t *testing.T) {
	for _, c := range lostCases {
		t.Run(c.name, func(t *testing.T) {
			script := func(conn *qmtptest.Conn) error {
				if c.before {
					conn.Discard(10000)
				} else if _, err := conn.Package(); err != nil {
					return err
				}
				conn.Raw(c.say)
				if c.before {
					// Unread bytes make it a reset, sooner or later; the end of
					// what was said must arrive whole all the same.
					return conn.Conn.(*net.TCPConn).CloseWrite()
				}
				return nil
			}
			job := Job{Recipients: rcpts(2)}
			if c.before {
				job.Message = bytes.NewReader(make([]byte, 32<<20))
			}
			stream, _, err := deliver(t, script, job)
			if !c.next {
				want(t, stream, err, c.want)
				return
			}
			var none *report.NoTransaction
			if !errors.As(err, &none) || none.ExitCode() != report.ExitNextExchanger {
				t.Fatalf("error %v, want exit 75", err)
			}
			if got := text(report.Only(none.Reason)); got != c.want || len(stream.Recipients) > 0 {
				t.Errorf("reason %q, want %q", got, c.want)
			}
		})
	}
}

func TestReset(t *testing.T) {
	for _, after := range []bool{false, true} {
		stream, _, err := deliver(t, func(c *qmtptest.Conn) error {
			if after {
				if _, err := c.Package(); err != nil {
					return err
				}
			} else {
				c.Discard(1000)
			}
			return c.Reset()
		}, Job{Message: bytes.NewReader(make([]byte, 32<<20))})
		var none *report.NoTransaction
		switch {
		case after:
			want(t, stream, err, "ZConnected to 192.0.2.1 but connection died. Possible duplicate! (#4.4.2)|")
		case !errors.As(err, &none):
			t.Errorf("error %v, want exit 75", err)
		}
	}
}

// A server that answers everything while the package is on its way is heard
// out, and what it then reads counts.
func TestAnswersEarly(t *testing.T) {
	message := bytes.Repeat([]byte("0123456789abcde\n"), 1<<20)
	for _, letter := range []string{"K", "D"} {
		stream, got, err := deliver(t, func(c *qmtptest.Conn) error {
			if err := c.Say(letter+"already", letter+"already"); err != nil {
				return err
			}
			_, err := c.Package()
			return err
		}, Job{Recipients: rcpts(2), Message: bytes.NewReader(message)})
		if letter == "K" {
			want(t, stream, err, "r|r|K192.0.2.1 accepted message.\nRemote host said: already|")
			continue
		}
		if s := text(stream); err != nil || !strings.HasSuffix(s, "|DGiving up on 192.0.2.1.|") || len(got) > 1 {
			t.Errorf("%q, error %v", s, err)
		}
	}
}

// A server that refuses everyone and stops reading does not hold us.
func TestRefusesAndStopsReading(t *testing.T) {
	began := time.Now()
	stream, _, err := deliver(t, func(c *qmtptest.Conn) error {
		c.Say("Dtoo large")
		<-c.Closing()
		return nil
	}, Job{Message: bytes.NewReader(make([]byte, 32<<20))})
	want(t, stream, err, "h192.0.2.1 does not like recipient.\nRemote host said: too large|DGiving up on 192.0.2.1.|")
	if took := time.Since(began); took > patience/2 {
		t.Errorf("it took %v", took)
	}
}

// Neither side can block the other: the server sends all its answers, more than
// any window holds, before it reads on.
func TestManyRecipients(t *testing.T) {
	const n = 5000
	long := strings.Repeat("x", 9000)
	stream, got, err := deliver(t, func(c *qmtptest.Conn) error {
		if err := c.Discard(1); err != nil {
			return err
		}
		for i := range n {
			if err := c.Say("K" + strconv.Itoa(i) + long); err != nil {
				return err
			}
		}
		_, err := io.Copy(io.Discard, c)
		return err
	}, Job{Recipients: rcpts(n), Message: bytes.NewReader(make([]byte, 16<<20))})
	if err != nil || len(stream.Recipients) != n || stream.Message.Letter != report.Delivered {
		t.Errorf("%d recipient reports, %q, error %v", len(stream.Recipients), stream.Message.Letter, err)
	}
	if len(got) != 0 {
		t.Error("the script does not read packages")
	}

	stream, got, err = deliver(t, qmtptest.Accept, Job{Recipients: rcpts(n)})
	if err != nil || len(stream.Recipients) != n || stream.Message.Letter != report.Delivered {
		t.Errorf("%d recipient reports, %q, error %v", len(stream.Recipients), stream.Message.Letter, err)
	}
	if len(got) != 1 || !slices.Equal(got[0].Recipients, rcpts(n)) {
		t.Error("other recipients arrived")
	}
}

// "The whole package is written without waiting for anything", and a small one
// in one piece.
func TestOneWrite(t *testing.T) {
	conn := &scripted{answers: strings.NewReader("3:Kok,3:Kok,")}
	stream, err := Deliver(context.Background(), conn, &Job{
		Sender: "s", Recipients: []string{"a@b", "c"}, Message: strings.NewReader("x\n"), RemoteIP: ip,
	})
	want(t, stream, err, "r|r|K192.0.2.1 accepted message.\nRemote host said: ok|")
	if got := conn.writes(); len(got) != 1 || got[0] != "3:\nx\n,1:s,10:3:a@b,1:c,," {
		t.Errorf("written: %q", got)
	}
}

// scripted is a connection without a network; it answers after the first write.
type scripted struct {
	net.Conn
	answers io.Reader
	mu      sync.Mutex
	written []string
	ready   sync.Once
	gate    chan struct{}
}

func (s *scripted) start() { s.ready.Do(func() { s.gate = make(chan struct{}) }) }

func (s *scripted) Read(p []byte) (int, error) {
	s.start()
	<-s.gate
	return s.answers.Read(p)
}

func (s *scripted) Write(p []byte) (int, error) {
	s.start()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.written = append(s.written, string(p)); len(s.written) == 1 {
		close(s.gate)
	}
	return len(p), nil
}

func (s *scripted) writes() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.written
}

func (s *scripted) SetDeadline(time.Time) error { return nil }

func TestFuse(t *testing.T) {
	const fuse = 1100 * time.Millisecond
	silent := func(c *qmtptest.Conn) error {
		_, err := io.Copy(io.Discard, c)
		return err
	}
	deaf := func(c *qmtptest.Conn) error { <-c.Closing(); return nil }
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close(); r.Close() })
	large := func() io.Reader { return bytes.NewReader(make([]byte, 32<<20)) }
	const took = "Connected to 192.0.2.1 but the conversation took longer than 1 seconds. "
	for _, c := range []struct {
		name    string
		script  qmtptest.Script
		message io.Reader
		begun   bool
		reports string
	}{
		{"silent after the package", silent, strings.NewReader("x\n"), true, "Z" + took + "Possible duplicate! (#4.4.2)|"},
		{"one answer after the package", func(c *qmtptest.Conn) error {
			if _, err := c.Package(); err != nil {
				return err
			}
			c.Say("Kok")
			return silent(c)
		}, strings.NewReader("x\n"), true, "r|Z" + took + "Possible duplicate! (#4.4.2)|"},
		{"reads nothing", deaf, large(), true, "Z" + took + "(#4.4.2)|"},
		{"accepts and reads nothing", func(c *qmtptest.Conn) error {
			c.Say("Kok", "Kok")
			return deaf(c)
		}, large(), true, "r|r|Z" + took + "Possible duplicate! (#4.4.2)|"},
		{"the message does not come", silent, r, false, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			stream, _, err := deliver(t, c.script, Job{Recipients: rcpts(2), Message: c.message, TimeoutRemote: fuse})
			var blown *report.Fuse
			if !errors.As(err, &blown) || blown.Begun != c.begun || blown.ExitCode() != report.ExitFuse {
				t.Fatalf("error %v (%+v)", err, blown)
			}
			if got := text(stream); c.begun && got != c.reports {
				t.Errorf("reports\n %q, want\n %q", got, c.reports)
			}
			if len(stream.Recipients) > 0 && !c.begun {
				t.Error("something to print, though nothing was begun")
			}
			if took := time.Since(began); took < fuse || took > fuse+patience/2 {
				t.Errorf("it took %v", took)
			}
		})
	}
}

// The caller can end a delivery; what it then says is the truth.
func TestCancelled(t *testing.T) {
	read := make(chan struct{})
	s := start(t, func(c *qmtptest.Conn) error {
		if _, err := c.Package(); err != nil {
			return err
		}
		close(read)
		_, err := io.Copy(io.Discard, c)
		return err
	})
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		<-read
		cancel()
	}()
	stream, err := Deliver(ctx, dial(t, s), &Job{Recipients: rcpts(1), Message: strings.NewReader(""), RemoteIP: ip})
	want(t, stream, err, "ZConnected to 192.0.2.1 but connection died. Possible duplicate! (#4.4.2)|")
}

func TestTLSLine(t *testing.T) {
	environ := []string{"SSL_PROTOCOL=TLSv1.3", "SSL_CIPHER=TLS_AES_128_GCM_SHA256", "SSL_PEER_VERIFIED=yes"}
	const line = "\nTLS: TLSv1.3 TLS_AES_128_GCM_SHA256 verified mx.example.org|"
	for _, c := range []struct{ say, want string }{
		{"3:Kok,", "r|K192.0.2.1 accepted message.\nRemote host said: ok" + line},
		{"3:Dno,", "h192.0.2.1 does not like recipient.\nRemote host said: no|DGiving up on 192.0.2.1." + line},
		{"", "ZConnected to 192.0.2.1 but connection died. Possible duplicate! (#4.4.2)" + line},
	} {
		stream, _, err := deliver(t, func(conn *qmtptest.Conn) error {
			if _, err := conn.Package(); err != nil {
				return err
			}
			return conn.Raw(c.say)
		}, Job{Environ: environ, ServerName: "mx.example.org"})
		want(t, stream, err, c.want)
	}
}

// What the server says is made harmless.
func TestForeignText(t *testing.T) {
	stream, _, err := deliver(t, qmtptest.Answer("Ka\x00b\x1b[2J\r\n\xff", "D"+strings.Repeat("\x01y", 4999), "Z"), Job{Recipients: rcpts(3)})
	want(t, stream, err, "r|h192.0.2.1 does not like recipient.\nRemote host said: "+strings.Repeat("?y", 2500)+
		"|s192.0.2.1 does not like recipient.|K192.0.2.1 accepted message.\nRemote host said: a?b?[2J\n\xff|")
}

func TestTrace(t *testing.T) {
	var mu sync.Mutex
	var lines []string
	_, _, err := deliver(t, qmtptest.Answer("Kok 1\nand more", "Dno"), Job{
		Sender: "s@x", Recipients: rcpts(2), Message: strings.NewReader("secret\n"),
		Trace: func(line string) {
			mu.Lock()
			defer mu.Unlock()
			lines = append(lines, line)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(lines)
	expected := []string{
		`qmtp < 1 of 2: "Kok 1\nand more"`,
		`qmtp < 2 of 2: "Dno"`,
		`qmtp > package of 57 bytes: message 7, sender "s@x", 2 recipients`,
		`qmtp > sent`,
	}
	if !slices.Equal(lines, expected) {
		t.Errorf("trace %q", lines)
	}
}

// A panic is an error like others, temporary, in whichever goroutine it is.
func TestPanic(t *testing.T) {
	stream, _, err := deliver(t, qmtptest.Accept, Job{Message: &panicking{Seeker: strings.NewReader("x\n")}})
	want(t, stream, err, "ZInternal error: panic: a message that explodes. (#4.3.5)|")
	_, got, err := deliver(t, qmtptest.Accept, Job{Message: &panicking{}})
	var p *panicError
	if !errors.As(err, &p) || len(got) != 0 {
		t.Errorf("error %v", err)
	}
	stream, _, err = deliver(t, qmtptest.Answer("Kok"), Job{Trace: func(line string) {
		if line == "qmtp > sent" {
			panic(line)
		}
	}})
	want(t, stream, err, "r|K192.0.2.1 accepted message.\nRemote host said: ok|")
}

type panicking struct{ io.Seeker }

func (*panicking) Read([]byte) (int, error) { panic("a message that explodes") }
func (p *panicking) Seek(off int64, whence int) (int64, error) {
	if p.Seeker == nil {
		return 0, errors.New("no seeking")
	}
	return p.Seeker.Seek(off, whence)
}

func TestNoRecipients(t *testing.T) {
	stream, err := Deliver(context.Background(), nil, &Job{Message: strings.NewReader("")})
	if err == nil || len(stream.Recipients) != 0 {
		t.Errorf("error %v", err)
	}
}

// A message without end does not fill the disk.
func TestSpool_limit(t *testing.T) {
	const limit = 2 * spoolInMemory
	for _, size := range []int{limit - 1, limit, limit + 1, 4 * limit} {
		m, err := spool(readerOf(t, make([]byte, size)), limit)
		var known *report.Error
		switch {
		case size <= limit && err != nil, size > limit && (!errors.As(err, &known) || known.Case != report.Unreadable):
			t.Errorf("%d bytes of %d: %v", size, limit, err)
		case err == nil:
			m.close()
		}
	}
}

// A file that is cut when all of it has been read is not the one that was announced either.
func TestFileChanges_afterItsEnd(t *testing.T) {
	for _, change := range []int64{-1, 0, 1} {
		f := fileAt(t, []byte("Subject: x\n\nHello.\n"), 0)
		m, err := measure(t.Context(), f)
		if err != nil {
			t.Fatal(err)
		}
		size := m.size
		m.Reader = &atEnd{Reader: f, do: func() {
			if err := f.Truncate(size + change); err != nil {
				t.Error(err)
			}
		}}
		var out bytes.Buffer
		err = newPack(m, "s@example.net", []string{"r@example.org"}).writeTo(&out)
		if isSource(err) != (change != 0) || (err == nil) != (change == 0) {
			t.Errorf("%+d bytes: %v", change, err)
		}
		if change != 0 && bytes.HasSuffix(out.Bytes(), []byte(",")) {
			t.Errorf("%+d bytes: the package is whole: %q", change, out.Bytes())
		}
	}
}

// A long message goes from its file to the socket by itself: it arrives whole, and one
// that is shorter by then, or longer, is not ended.
func TestLongFile(t *testing.T) {
	text := bytes.Repeat([]byte("0123456789\n"), 3<<20/11)
	for _, change := range []int64{-1, 0, 1} {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		arrived := make(chan []byte, 1)
		go func() {
			var all []byte
			if conn, err := listener.Accept(); err == nil {
				all, _ = io.ReadAll(conn)
				conn.Close()
			}
			arrived <- all
		}()
		conn, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		f := fileAt(t, text, 0)
		m, err := measure(t.Context(), f)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Truncate(m.size + change); err != nil {
			t.Fatal(err)
		}
		p := newPack(m, "s@example.net", []string{"r@example.org"})
		err = p.writeTo(conn)
		conn.Close()
		got := <-arrived
		listener.Close()
		if isSource(err) != (change != 0) || p.sent() != (change == 0) || !p.begun() {
			t.Errorf("%+d bytes: %v, sent %v", change, err, p.sent())
		}
		whole := append(append(slices.Clone(p.head), text...), p.tail...)
		if bytes.Equal(got, whole) != (change == 0) || !bytes.HasPrefix(whole, got) {
			t.Errorf("%+d bytes: %d arrived", change, len(got))
		}
	}
}

// atEnd calls do at the end of a file.
type atEnd struct {
	io.Reader
	do func()
}

func (a *atEnd) Read(p []byte) (int, error) {
	n, err := a.Reader.Read(p)
	if err == io.EOF {
		a.do()
	}
	return n, err
}
