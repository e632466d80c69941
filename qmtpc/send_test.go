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
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/qmtpc/qmtptest"
	"nightmare.mail/mxf/qmtpc/spool"
)

// patience is far beyond what any of these conversations takes.
const patience = 30 * time.Second

// start runs a scripted server for the length of a test.
func start(t *testing.T, script qmtptest.Script) *qmtptest.Server {
	t.Helper()
	s := must.Get(qmtptest.Start(script))(t)
	t.Cleanup(func() { s.Close() })
	return s
}

func dial(t *testing.T, s *qmtptest.Server) net.Conn {
	t.Helper()
	conn := must.Get(net.Dial("tcp", s.Addr()))(t)
	t.Cleanup(func() { conn.Close() })
	return conn
}

// A post is what a test sends. What it leaves open is filled in.
type post struct {
	sender     string
	recipients []string  // default: one
	text       io.Reader // default: a short message
	trace      func(string)
}

// send sends p to a server that follows script, and closes the connection.
func send(t *testing.T, script qmtptest.Script, p post) (*Outcome, []qmtptest.Package) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	return sendWithin(ctx, t, script, p)
}

func sendWithin(ctx context.Context, t *testing.T, script qmtptest.Script, p post) (*Outcome, []qmtptest.Package) {
	t.Helper()
	if p.recipients == nil {
		p.recipients = rcpts(1)
	}
	if p.text == nil {
		p.text = strings.NewReader("Subject: x\n\ny\n")
	}
	mail, err := Prepare(ctx, p.sender, p.recipients, p.text, p.trace)
	if err != nil {
		return &Outcome{Err: err}, nil
	}
	defer mail.Close()
	s := start(t, script)
	conn := dial(t, s)
	outcome := Send(ctx, conn, mail, p.trace)
	if err := conn.Close(); err != nil {
		t.Errorf("the connection was closed before: %v", err)
	}
	return outcome, s.Packages()
}

func rcpts(n int) []string {
	r := make([]string, n)
	for i := range r {
		r[i] = "r" + strconv.Itoa(i) + "@example.org"
	}
	return r
}

// brief returns an outcome as a line: each answer, how far the package came, whether
// anything was heard, and what went wrong.
func brief(o *Outcome) string {
	var words []string
	for _, a := range o.Recipients {
		if a == (Answer{}) {
			words = append(words, "?")
			continue
		}
		words = append(words, fmt.Sprintf("%s %q", a.Status, a.Text))
	}
	switch {
	case o.LastByte:
		words = append(words, "sent")
	case o.FirstByte:
		words = append(words, "begun")
	}
	if o.Heard {
		words = append(words, "heard")
	}
	return strings.Join(append(words, kind(o.Err)), ", ")
}

// kind says of which type an error is, and what its cause is.
func kind(err error) string {
	var broken *BrokenError
	var nonsense *ProtocolError
	var message *MessageError
	var panicked *panicError
	switch {
	case err == nil:
		return "complete"
	case errors.As(err, &message) && errors.Is(err, ErrChanged):
		return "message changed"
	case errors.As(err, &message):
		return "message: " + message.Error()
	case errors.As(err, &panicked):
		return panicked.Error()
	case !errors.As(err, &broken):
		return err.Error()
	case errors.Is(err, ErrFuse):
		return "broken: fuse"
	case errors.Is(err, ErrDeaf):
		return "broken: deaf"
	case errors.Is(err, context.Canceled):
		return "broken: canceled"
	case errors.As(err, &nonsense):
		return "broken: not QMTP: " + nonsense.Seen
	}
	return "broken"
}

func want(t *testing.T, o *Outcome, expected string) {
	t.Helper()
	if got := brief(o); got != expected {
		t.Errorf("outcome\n %s, want\n %s", got, expected)
	}
}

func TestAccepted(t *testing.T) {
	o, got := send(t, qmtptest.Answer("Kok 17"), post{sender: "s@example.net"})
	want(t, o, `accepted "ok 17", sent, heard, complete`)
	expected := []qmtptest.Package{{Message: []byte("Subject: x\n\ny\n"), Sender: "s@example.net", Recipients: rcpts(1)}}
	if !reflect.DeepEqual(got, expected) {
		t.Errorf("arrived: %q", got)
	}
}

// Every mixture of K, Z and D for one to four recipients.
func TestMixtures(t *testing.T) {
	status := map[rune]Status{'K': Accepted, 'Z': Deferred, 'D': Refused}
	mixtures := []string{""}
	for i := 0; len(mixtures[i]) < 4; i++ {
		for letter := range status {
			mixtures = append(mixtures, mixtures[i]+string(letter))
		}
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
	for _, mixture := range mixtures[1:] {
		mail := must.Get(Prepare(t.Context(), mixture, rcpts(len(mixture)), strings.NewReader("x\n"), nil))(t)
		o := Send(t.Context(), dial(t, s), mail, nil)
		expected := Outcome{FirstByte: true, LastByte: true, Heard: true}
		for i, letter := range mixture {
			expected.Recipients = append(expected.Recipients, Answer{status[letter], "because " + strconv.Itoa(i)})
		}
		if !reflect.DeepEqual(*o, expected) {
			t.Errorf("%s: %s", mixture, brief(o))
		}
	}
}

// An outcome answers questions about the whole package.
func TestOutcome(t *testing.T) {
	yes, later, no := Answer{Accepted, "ok"}, Answer{Deferred, "later"}, Answer{Refused, "no"}
	for _, c := range []struct {
		outcome                                              Outcome
		first                                                string
		permanent, noTransaction, mayHaveMessage, unfinished bool
	}{
		{outcome: Outcome{}, noTransaction: true},
		{outcome: Outcome{Recipients: make([]Answer, 2)}, noTransaction: true},
		{outcome: Outcome{Recipients: make([]Answer, 2), FirstByte: true}, noTransaction: true, unfinished: true},
		{outcome: Outcome{Recipients: make([]Answer, 2), FirstByte: true, Heard: true}, unfinished: true},
		{outcome: Outcome{Recipients: make([]Answer, 2), FirstByte: true, LastByte: true}, mayHaveMessage: true},
		{outcome: Outcome{Recipients: []Answer{no, {}}, FirstByte: true, Heard: true}, unfinished: true},
		{outcome: Outcome{Recipients: []Answer{no, no}, FirstByte: true, Heard: true}, permanent: true, unfinished: true},
		{outcome: Outcome{Recipients: []Answer{no, later}, FirstByte: true, LastByte: true, Heard: true}, mayHaveMessage: true},
		{outcome: Outcome{Recipients: []Answer{no, yes}, FirstByte: true, Heard: true}, first: "ok", mayHaveMessage: true, unfinished: true},
		{outcome: Outcome{Recipients: []Answer{later, yes, {Accepted, "too"}}, FirstByte: true, LastByte: true, Heard: true}, first: "ok", mayHaveMessage: true},
	} {
		o, first := c.outcome, ""
		if a := o.FirstAccepted(); a != nil {
			first = a.Text
		}
		if first != c.first || o.Permanent() != c.permanent || o.NoTransaction() != c.noTransaction ||
			o.MayHaveMessage() != c.mayHaveMessage || o.Unfinished() != c.unfinished {
			t.Errorf("%s: %q, permanent %t, no transaction %t, may have the message %t, unfinished %t",
				brief(&o), first, o.Permanent(), o.NoTransaction(), o.MayHaveMessage(), o.Unfinished())
		}
	}
}

// A mail can be sent to one server after another.
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
				mail := must.Get(Prepare(t.Context(), sender, rcpts(1), open(t, message), nil))(t)
				defer mail.Close()
				s := start(t, qmtptest.Answer("Kok"))
				for range 2 {
					want(t, Send(t.Context(), dial(t, s), mail, nil), `accepted "ok", sent, heard, complete`)
				}
				got := s.Packages()
				if len(got) != 2 || !reflect.DeepEqual(got[0], got[1]) || !bytes.Equal(got[0].Message, message) || got[0].Sender != sender {
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
	f := must.Get(os.Create(filepath.Join(t.TempDir(), "message")))(t)
	t.Cleanup(func() { f.Close() })
	must.Get(f.Write(b))(t)
	must.Get(f.Seek(offset, io.SeekStart))(t)
	return f
}

func pipeOf(t *testing.T, b []byte) io.Reader   { return must.Flow(t, string(b)) }
func readerOf(_ *testing.T, b []byte) io.Reader { return io.MultiReader(bytes.NewReader(b)) }
func seekerOf(_ *testing.T, b []byte) io.Reader { return bytes.NewReader(b) }

// "in memory up to 1 MiB, then to an unlinked temporary file"
func TestSpool(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	for _, size := range []int{0, 1, spoolInMemory, spoolInMemory + 1, spoolInMemory * 2} {
		m := must.Get(keep(readerOf(t, make([]byte, size)), spool.Limit))(t)
		f, onDisk := m.text.(*os.File)
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
	_, err := Prepare(t.Context(), "", rcpts(1), readerOf(t, make([]byte, spoolInMemory+1)), nil)
	var message *MessageError
	if !errors.Is(err, os.ErrNotExist) || errors.As(err, &message) {
		t.Errorf("no room for the spool: error %v", err)
	}
}

func TestUnreadable(t *testing.T) {
	broken := brokenReader{errors.New("input/output error")}
	closed := fileAt(t, []byte("x\n"), 0)
	closed.Close()
	dir := must.Open(t, t.TempDir())
	for name, c := range map[string]struct {
		text io.Reader
		why  error // nil: whatever the system says
	}{
		"at once":    {broken, broken.err},
		"later":      {io.MultiReader(strings.NewReader("x\n"), broken), broken.err},
		"from disk":  {io.MultiReader(bytes.NewReader(make([]byte, 2*spoolInMemory)), broken), broken.err},
		"closed":     {closed, os.ErrClosed},
		"a folder":   {dir, nil},
		"seek fails": {&badSeeker{}, errNoEnd},
	} {
		_, err := Prepare(t.Context(), "", rcpts(1), c.text, nil)
		var message *MessageError
		if !errors.As(err, &message) || c.why != nil && !errors.Is(err, c.why) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

type brokenReader struct{ err error }

func (e brokenReader) Read([]byte) (int, error) { return 0, e.err }

var errNoEnd = errors.New("no end")

type badSeeker struct{}

func (*badSeeker) Read([]byte) (int, error) { return 0, io.EOF }
func (*badSeeker) Seek(_ int64, whence int) (int64, error) {
	if whence == io.SeekEnd {
		return 0, errNoEnd
	}
	return 0, nil
}

// A file that is not what it was announced to be is never delivered.
func TestFileChanges(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*os.File) error
		want   string
	}{
		"shrinks":        {func(f *os.File) error { return f.Truncate(5 << 20) }, "?, begun, message changed"},
		"shrinks by one": {func(f *os.File) error { return f.Truncate(8<<20 - 1) }, "?, begun, message changed"},
		"vanishes":       {func(f *os.File) error { return f.Truncate(0) }, "?, message changed"},
		"grows":          {func(f *os.File) error { _, err := f.WriteAt([]byte("x"), 8<<20); return err }, "?, begun, message changed"},
	} {
		t.Run(name, func(t *testing.T) {
			f := fileAt(t, make([]byte, 8<<20), 0)
			changed := make(chan struct{})
			script := func(conn *qmtptest.Conn) error {
				if err := conn.Discard(1000); err != nil {
					return err
				}
				<-changed
				_, err := io.Copy(io.Discard, conn)
				if err != nil {
					return err
				}
				return conn.Say("Kyou must be joking")
			}
			started := &once{Reader: f, do: func() {
				must.Check(t, c.change(f))
				close(changed)
			}}
			o, _ := send(t, script, post{text: started})
			want(t, o, c.want)
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
	want   string // for two recipients
}{
	{"no byte before", true, "", "?, ?, begun, broken"},
	{"half an answer before", true, "5:K", "?, ?, begun, heard, broken"},
	{"one refusal before", true, "3:Dno,", `refused "no", ?, begun, heard, broken`},
	{"nonsense before", true, "421 too busy\r\n", "?, ?, begun, heard, broken: not QMTP: ' ' in a netstring's length"},
	{"both refused before", true, "3:Dno,3:Dno,", `refused "no", refused "no", begun, heard, complete`},
	{"refused and deferred before", true, "3:Dno,4:Zyes,", `refused "no", deferred "yes", begun, heard, complete`},
	// It cannot have the message, and says that it has: doubt.
	{"both accepted before", true, "3:Kok,3:Kok,", `accepted "ok", accepted "ok", begun, heard, broken`},
	{"one accepted before", true, "3:Kok,3:Dno,", `accepted "ok", refused "no", begun, heard, broken`},

	{"no byte after", false, "", "?, ?, sent, broken"},
	{"half an answer after", false, "5:K", "?, ?, sent, heard, broken"},
	{"one acceptance after", false, "3:Kok,", `accepted "ok", ?, sent, heard, broken`},
	{"one refusal after", false, "3:Dno,", `refused "no", ?, sent, heard, broken`},
	{"one and a half after", false, "3:Kok,3:Zn", `accepted "ok", ?, sent, heard, broken`},
	{"nonsense after", false, "250 ok\r\n", "?, ?, sent, heard, broken: not QMTP: ' ' in a netstring's length"},
	{"a letter that is none", false, "3:Kok,3:Xno,", `accepted "ok", ?, sent, heard, broken: not QMTP: an answer that begins with 'X'`},
	{"a small letter", false, "3:kok,", "?, ?, sent, heard, broken: not QMTP: an answer that begins with 'k'"},
	{"no letter", false, "0:,3:Kok,", "?, ?, sent, heard, broken: not QMTP: an answer without a letter"},
	{"too long an answer", false, "10001:K", "?, ?, sent, heard, broken: not QMTP: a netstring longer than 10000 bytes"},
	{"a leading zero", false, "03:Kok,", "?, ?, sent, heard, broken: not QMTP: a netstring's length with a leading zero"},
	{"no comma", false, "3:Kok;", "?, ?, sent, heard, broken: not QMTP: ';' where a netstring of 3 bytes should end"},
	{"more answers than recipients", false, "3:Kok,3:Kok,3:Dno,what", `accepted "ok", accepted "ok", sent, heard, complete`},
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
			p := post{recipients: rcpts(2)}
			if c.before {
				p.text = large()
			}
			o, _ := send(t, script, p)
			want(t, o, c.want)
		})
	}
}

// large is a message that no connection holds while its server does not read.
func large() io.Reader { return bytes.NewReader(make([]byte, 32<<20)) }

func TestReset(t *testing.T) {
	for _, after := range []bool{false, true} {
		o, _ := send(t, func(c *qmtptest.Conn) error {
			if after {
				if _, err := c.Package(); err != nil {
					return err
				}
			} else {
				c.Discard(1000)
			}
			return c.Reset()
		}, post{text: large()})
		want(t, o, map[bool]string{false: "?, begun, broken", true: "?, sent, broken"}[after])
	}
}

// A server may answer everything while the package is on its way. It is heard to the
// end, and what it reads after that counts.
func TestAnswersEarly(t *testing.T) {
	for letter, expected := range map[string]string{
		"K": `accepted "already", accepted "already", sent, heard, complete`,
		"D": `refused "already", refused "already", heard, complete`,
	} {
		o, _ := send(t, func(c *qmtptest.Conn) error {
			if err := c.Say(letter+"already", letter+"already"); err != nil {
				return err
			}
			_, err := c.Package()
			return err
		}, post{recipients: rcpts(2), text: large()})
		if letter == "D" {
			o.FirstByte, o.LastByte = false, false // it is called off, sooner or later
		}
		want(t, o, expected)
	}
}

// A server that refuses everyone and stops reading does not hold us.
func TestRefusesAndStopsReading(t *testing.T) {
	o, _ := send(t, func(c *qmtptest.Conn) error {
		c.Discard(1)
		c.Say("Dtoo large")
		<-c.Closing()
		return nil
	}, post{text: large()})
	want(t, o, `refused "too large", begun, heard, complete`)
}

// Writing has failed, and the server says nothing: it is listened to for a while.
func TestDeaf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mail := must.Get(Prepare(t.Context(), "", rcpts(1), strings.NewReader("x\n"), nil))(t)
		here, there := net.Pipe()
		defer there.Close()
		defer here.Close()
		began := time.Now()
		o := Send(t.Context(), &mute{here}, mail, nil)
		want(t, o, "?, broken: deaf")
		if !errors.Is(o.Err, io.ErrClosedPipe) || time.Since(began) != answerGrace {
			t.Errorf("error %v after %v", o.Err, time.Since(began))
		}
	})
}

// A mute connection cannot be written to.
type mute struct{ net.Conn }

func (mute) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

// Neither side can block the other: the server sends all its answers, more than
// any window holds, before it reads on.
func TestManyRecipients(t *testing.T) {
	const n = 5000
	long := strings.Repeat("x", 9000)
	all := func(o *Outcome) {
		t.Helper()
		accepted := 0
		for _, a := range o.Recipients {
			if a.Status == Accepted {
				accepted++
			}
		}
		if o.Err != nil || !o.LastByte || accepted != n {
			t.Errorf("%d accepted, sent %t, error %v", accepted, o.LastByte, o.Err)
		}
	}
	o, _ := send(t, func(c *qmtptest.Conn) error {
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
	}, post{recipients: rcpts(n), text: large()})
	all(o)

	o, got := send(t, qmtptest.Accept, post{recipients: rcpts(n)})
	all(o)
	if len(got) != 1 || !slices.Equal(got[0].Recipients, rcpts(n)) {
		t.Error("other recipients arrived")
	}
}

// "The whole package is written without waiting for anything", and a small one
// in one piece.
func TestOneWrite(t *testing.T) {
	conn := &scripted{answers: strings.NewReader("3:Kok,3:Kok,")}
	mail := must.Get(Prepare(t.Context(), "s", []string{"a@b", "c"}, strings.NewReader("x\n"), nil))(t)
	want(t, Send(t.Context(), conn, mail, nil), `accepted "ok", accepted "ok", sent, heard, complete`)
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

// The caller ends a conversation, by its fuse or for another cause, and the outcome is
// the truth. Each case says where the fuse blows: at a line of the trace, or in the
// script.
func TestEnded(t *testing.T) {
	r, _ := must.Pipe(t)
	var blow func()
	deaf := func(c *qmtptest.Conn) error { <-c.Closing(); return nil }
	after := func(answers ...string) qmtptest.Script {
		return func(c *qmtptest.Conn) error {
			if _, err := c.Package(); err != nil {
				return err
			}
			c.Say(answers...)
			return deaf(c)
		}
	}
	before := func(then func(*qmtptest.Conn)) qmtptest.Script {
		return func(c *qmtptest.Conn) error {
			if err := c.Discard(1000); err != nil {
				return err
			}
			then(c)
			return deaf(c)
		}
	}
	for _, c := range []struct {
		name   string
		script qmtptest.Script
		text   io.Reader
		at     string
		cause  error
		want   string
	}{
		{"silent after the package", after(), nil, "qmtp > sent", ErrFuse, "?, ?, sent, broken: fuse"},
		{"one answer after the package", after("Kok"), nil, "qmtp < 1 of 2", ErrFuse, `accepted "ok", ?, sent, heard, broken: fuse`},
		{"reads nothing", before(func(*qmtptest.Conn) { blow() }), large(), "", ErrFuse, "?, ?, begun, broken: fuse"},
		{"accepts and reads nothing", before(func(c *qmtptest.Conn) { c.Say("Kok", "Kok") }), large(), "qmtp < 2 of 2", ErrFuse,
			`accepted "ok", accepted "ok", begun, heard, broken: fuse`},
		{"the message does not come", nil, r, "at once", ErrFuse, "the fuse blew"},
		{"cancelled after the package", after(), nil, "qmtp > sent", context.Canceled, "?, ?, sent, broken: canceled"},
		{"cancelled before its end", before(func(*qmtptest.Conn) { blow() }), large(), "", context.Canceled, "?, ?, begun, broken: canceled"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			blow = func() { cancel(c.cause) }
			if c.at == "at once" {
				go blow()
			}
			o, _ := sendWithin(ctx, t, c.script, post{recipients: rcpts(2), text: c.text, trace: func(line string) {
				if c.at != "" && strings.HasPrefix(line, c.at) {
					blow()
				}
			}})
			want(t, o, c.want)
		})
	}
}

// The words of the server are kept as they are.
func TestForeignText(t *testing.T) {
	words := []string{"a\x00b\x1b[2J\r\n\xff", strings.Repeat("\x01y", 4999), ""}
	o, _ := send(t, qmtptest.Answer("K"+words[0], "D"+words[1], "Z"), post{recipients: rcpts(3)})
	if expected := []Answer{{Accepted, words[0]}, {Refused, words[1]}, {Deferred, ""}}; !slices.Equal(o.Recipients, expected) {
		t.Errorf("answers %q", o.Recipients)
	}
}

func TestTrace(t *testing.T) {
	var mu sync.Mutex
	var lines []string
	send(t, qmtptest.Answer("Kok 1\nand more", "Dno"), post{
		sender: "s@x", recipients: rcpts(2), text: strings.NewReader("secret\n"),
		trace: func(line string) {
			mu.Lock()
			defer mu.Unlock()
			lines = append(lines, line)
		},
	})
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

// A panic is an error like others, in whichever goroutine it is.
func TestPanic(t *testing.T) {
	o, _ := send(t, qmtptest.Accept, post{text: &panicking{Seeker: strings.NewReader("x\n")}})
	want(t, o, "?, panic: a message that explodes")
	o, _ = send(t, qmtptest.Accept, post{text: &panicking{}})
	want(t, o, "panic: a message that explodes")
	o, _ = send(t, qmtptest.Answer("Kok"), post{trace: func(line string) {
		if line == "qmtp > sent" {
			panic(line)
		}
	}})
	want(t, o, `accepted "ok", sent, heard, complete`)
}

// A panic while answers are read is an error too, and the facts stay: the server may have
// the package.
func TestPanicWhileReading(t *testing.T) {
	client, server := net.Pipe()
	defer server.Close()
	go func() { _, _ = io.Copy(io.Discard, server) }()
	sent := make(chan struct{})
	trace := func(line string) {
		if line == "qmtp > sent" {
			close(sent)
		}
		panic(line) // is nobody's concern
	}
	mail, err := Prepare(t.Context(), "s@x", []string{"r@x"}, strings.NewReader("x\n"), trace)
	if err != nil {
		t.Fatal(err)
	}
	defer mail.Close()
	o := Send(t.Context(), &panickingConn{client, sent}, mail, trace)
	want(t, o, "?, sent, panic: in a read")
}

// A panickingConn panics when it is read from, once sent is closed.
type panickingConn struct {
	net.Conn
	sent chan struct{}
}

func (c *panickingConn) Read([]byte) (int, error) {
	<-c.sent
	panic("in a read")
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
	if _, err := Prepare(t.Context(), "", nil, strings.NewReader(""), nil); err == nil {
		t.Error("a mail without recipients")
	}
}

// A message without end does not fill the disk.
func TestSpool_limit(t *testing.T) {
	const limit = 2 * spoolInMemory
	for _, size := range []int{limit - 1, limit, limit + 1, 4 * limit} {
		m, err := keep(readerOf(t, make([]byte, size)), limit)
		var message *MessageError
		switch {
		case size <= limit && err != nil, size > limit && !errors.As(err, &message):
			t.Errorf("%d bytes of %d: %v", size, limit, err)
		case err == nil:
			m.close()
		}
	}
}

// A file may also change when all of it has been read. It is not delivered either.
func TestFileChanges_afterItsEnd(t *testing.T) {
	for _, change := range []int64{-1, 0, 1} {
		f := fileAt(t, []byte("Subject: x\n\nHello.\n"), 0)
		mail := must.Get(Prepare(t.Context(), "s@example.net", rcpts(1), f, nil))(t)
		size := mail.message.size
		mail.message.text = &atEnd{ReadSeeker: f, do: func() {
			must.Check(t, f.Truncate(size+change))
		}}
		var out bytes.Buffer
		err := newPack(mail).writeTo(&out)
		if errors.Is(err, ErrChanged) != (change != 0) || (err == nil) != (change == 0) {
			t.Errorf("%+d bytes: %v", change, err)
		}
		if change != 0 && bytes.HasSuffix(out.Bytes(), []byte(",")) {
			t.Errorf("%+d bytes: the package is whole: %q", change, out.Bytes())
		}
	}
}

// A long message goes from its file to the socket without passing through this
// process. It arrives whole; one that is shorter by then, or longer, is not finished.
func TestLongFile(t *testing.T) {
	text := bytes.Repeat([]byte("0123456789\n"), 3<<20/11)
	for _, change := range []int64{-1, 0, 1} {
		arrived := make(chan []byte, 1)
		conn := dial(t, start(t, func(c *qmtptest.Conn) error {
			all, err := io.ReadAll(c)
			arrived <- all
			return err
		}))
		f := fileAt(t, text, 0)
		mail := must.Get(Prepare(t.Context(), "s@example.net", rcpts(1), f, nil))(t)
		must.OK(t, f.Truncate(mail.message.size+change))
		p, socket := newPack(mail), &direct{TCPConn: conn.(*net.TCPConn)}
		err := p.writeTo(socket)
		conn.Close()
		if !socket.file {
			t.Error("the socket did not get the file")
		}
		got := <-arrived
		if errors.Is(err, ErrChanged) != (change != 0) || p.sent() != (change == 0) || !p.begun() {
			t.Errorf("%+d bytes: %v, sent %v", change, err, p.sent())
		}
		whole := append(append(slices.Clone(p.head), text...), p.tail...)
		if bytes.Equal(got, whole) != (change == 0) || !bytes.HasPrefix(whole, got) {
			t.Errorf("%+d bytes: %d arrived", change, len(got))
		}
	}
}

// direct notes that a connection is given a file, as net wants it for sendfile(2).
type direct struct {
	*net.TCPConn
	file bool
}

func (d *direct) ReadFrom(r io.Reader) (int64, error) {
	if part, ok := r.(*io.LimitedReader); ok {
		_, d.file = part.R.(*os.File)
	}
	return d.TCPConn.ReadFrom(r)
}

// atEnd calls do at the end of a file.
type atEnd struct {
	io.ReadSeeker
	do func()
}

func (a *atEnd) Read(p []byte) (int, error) {
	n, err := a.ReadSeeker.Read(p)
	if err == io.EOF {
		a.do()
	}
	return n, err
}
