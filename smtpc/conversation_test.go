package smtpc_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/remote/report"
	"nightmare.mail/mxf/smtpc"
	"nightmare.mail/mxf/smtpc/smtptest"
)

// talk delivers job to server.
func talk(t *testing.T, server *smtptest.Server, job *job) (result, *smtptest.Conversation) {
	t.Helper()
	conn := smtptest.Dial(t, smtptest.Listen(t, server.Serve))
	r := deliver(t.Context(), conn, job)
	return r, server.Last(t)
}

// at is replies at one phase.
func at(phase smtptest.Phase, texts ...string) func(smtptest.Point) smtptest.Action {
	return replies(map[smtptest.Phase][]string{phase: texts})
}

func wantReports(t *testing.T, got result, want string) {
	t.Helper()
	if got.exit != 0 || got.reports != want {
		t.Errorf("got %v\nwant reports %q", got, want)
	}
}

const accepted = "K192.0.2.1 accepted message.\nRemote host said: 250 accepted\n\x00"

// onlyReader hides what else a reader can do.
type onlyReader struct{ io.Reader }

func TestTurnsAreCounted(t *testing.T) {
	t.Parallel()
	serverTLS()
	var running sync.WaitGroup
	for _, c := range []struct {
		extensions string
		secure     bool
		want       int // with one recipient
		perMore    int // for each further one
	}{
		{"PIPELINING", false, 4, 0},
		{"PIPELINING CHUNKING", false, 4, 0},
		{"", false, 6, 1},
		{"PIPELINING", true, 7, 0},
		{"", true, 9, 1},
	} {
		for _, n := range []int{1, 4} {
			running.Go(func() {
				server := &smtptest.Server{Extensions: strings.Fields(c.extensions), Lazy: true}
				if c.secure {
					server.TLS = serverTLS()
				}
				job := newJob(n)
				job.Secure = true
				r, seen := talk(t, server, job)
				if r.exit != 0 || !strings.Contains(r.reports, "\x00K") || !seen.Ended {
					t.Errorf("%+v, %d recipients: %v, QUIT: %v", c, n, r, seen.Ended)
				}
				if want := c.want + (n-1)*c.perMore; seen.Turns != want {
					t.Errorf("%+v, %d recipients: %d turns, want %d; server saw %q", c, n, seen.Turns, want, seen.Commands)
				}
			})
		}
	}
	running.Wait()
}

// countingConn counts writes.
type countingConn struct {
	net.Conn
	mu     sync.Mutex
	writes [][]byte
}

func (c *countingConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	c.writes = append(c.writes, bytes.Clone(p))
	c.mu.Unlock()
	return c.Conn.Write(p)
}

func TestWhatBelongsTogetherIsOneWrite(t *testing.T) {
	server := &smtptest.Server{Extensions: []string{"PIPELINING", "SIZE"}}
	conn := &countingConn{Conn: smtptest.Dial(t, smtptest.Listen(t, server.Serve))}
	wantReports(t, deliver(t.Context(), conn, newJob(2)), "r\x00r\x00"+accepted)
	want := []string{
		"EHLO client.example.net\r\n",
		"MAIL FROM:<sender@example.net> SIZE=28\r\nRCPT TO:<r0@example.org>\r\nRCPT TO:<r1@example.org>\r\n" +
			"DATA\r\n",
		"Subject: test\r\n\r\n..dot\r\nend\r\n.\r\n",
		"QUIT\r\n",
	}
	if got := fmt.Sprintf("%q", conn.writes); got != fmt.Sprintf("%q", want) {
		t.Errorf("wrote %s\nwant %q", got, want)
	}
}

func TestLargeMessageLeavesInLargeWrites(t *testing.T) {
	t.Parallel()
	text := strings.Repeat(strings.Repeat("x", 70)+"\n", 30000)
	for _, extensions := range []string{"", "PIPELINING"} {
		server := &smtptest.Server{Extensions: strings.Fields(extensions)}
		conn := &countingConn{Conn: smtptest.Dial(t, smtptest.Listen(t, server.Serve))}
		job := newJob(1)
		job.Message = strings.NewReader(text)
		wantReports(t, deliver(t.Context(), conn, job), "r\x00"+accepted)
		small := 0
		for _, w := range conn.writes {
			if len(w) < 64<<10 {
				small++
			}
		}
		if small > 8 {
			t.Errorf("%q: %d of %d writes are small", extensions, small, len(conn.writes))
		}
		if got := server.Last(t); string(got.Message) != strings.ReplaceAll(text, "\n", "\r\n") {
			t.Errorf("%q: the message has changed", extensions)
		}
	}
}

// many returns lines of size bytes in all.
func many(size int) string {
	return strings.Repeat(strings.Repeat("x", 63)+"\n", size/64)
}

// messages are texts whose lines are told apart by the servers' side only.
var messages = map[string]string{
	"empty":      "",
	"one line":   "a\n",
	"dots":       ".\n..\n.a\na.\n\n.\n",
	"bare CR":    "a\rb\r.\rc\n.\r\n.\r",
	"CR dot LF":  "\r.\n",
	"NUL, 8-bit": "a\x00b\xff\n",
	"long line":  strings.Repeat("x", 300<<10) + "\n.\n",
	"many dots":  strings.Repeat(".\n", 100<<10),
	"many CR":    strings.Repeat("\r", 150<<10),
}

func TestMessageArrives(t *testing.T) {
	t.Parallel()
	for name, text := range messages {
		for _, extensions := range []string{"", "PIPELINING"} {
			for _, seekable := range []bool{true, false} {
				server := &smtptest.Server{Extensions: strings.Fields(extensions)}
				job := newJob(1)
				if job.Message = strings.NewReader(text); !seekable {
					job.Message = onlyReader{job.Message}
				}
				r, seen := talk(t, server, job)
				wantReports(t, r, "r\x00"+accepted)
				want := strings.ReplaceAll(strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\r", "\n"), "\n", "\r\n")
				if string(seen.Message) != want {
					t.Errorf("%s %q seekable=%v: arrived as %.80q", name, extensions, seekable, seen.Message)
				}
			}
		}
	}
}

func TestQuitIsNotWaitedFor(t *testing.T) {
	server := &smtptest.Server{Act: smtptest.At(smtptest.QUIT, smtptest.Action{Stall: true})}
	begin := time.Now()
	r, seen := talk(t, server, newJob(1))
	wantReports(t, r, "r\x00"+accepted)
	if !seen.Ended || time.Since(begin) > 10*time.Second {
		t.Errorf("QUIT seen: %v, took %v", seen.Ended, time.Since(begin))
	}
}

func TestQuitIsSaid(t *testing.T) {
	for _, c := range []struct {
		name   string
		server *smtptest.Server
	}{
		{"greeting", &smtptest.Server{Act: at(smtptest.Greeting, "554 no service")}},
		{"EHLO", &smtptest.Server{Act: at(smtptest.EHLO, "450 not you")}},
		{"MAIL", &smtptest.Server{Act: at(smtptest.MAIL, "550 not you")}},
		{"MAIL pipelined", &smtptest.Server{Extensions: []string{"PIPELINING"}, Act: func(p smtptest.Point) smtptest.Action {
			if p.Phase == smtptest.Greeting || p.Phase == smtptest.EHLO || p.Phase == smtptest.QUIT {
				return smtptest.Action{}
			}
			return smtptest.Action{Reply: "503 no"}
		}}},
		{"RCPT", &smtptest.Server{Act: at(smtptest.RCPT, "550 no", "450 no")}},
		{"DATA", &smtptest.Server{Act: at(smtptest.DATA, "450 no")}},
		{"message", &smtptest.Server{Act: at(smtptest.Message, "550 spam")}},
		{"SIZE", &smtptest.Server{Extensions: []string{"SIZE 1"}}},
	} {
		if _, seen := talk(t, c.server, newJob(2)); !seen.Ended || seen.Accepted {
			t.Errorf("%s: no QUIT in %q", c.name, seen.Commands)
		}
	}
}

func TestHello(t *testing.T) {
	for _, c := range []struct {
		ehlo, helo string
		commands   string
		exit       int
		reason     string
	}{
		{"500 what", "250 ok", "EHLO HELO MAIL RCPT DATA QUIT", 0, ""},
		{"502 what", "250 ok", "EHLO HELO MAIL RCPT DATA QUIT", 0, ""},
		{"504 what", "250 ok", "EHLO HELO MAIL RCPT DATA QUIT", 0, ""},
		{"550 what", "250 ok", "EHLO HELO MAIL RCPT DATA QUIT", 0, ""},
		{"421 away", "", "EHLO QUIT", 75, "Connected to 192.0.2.1 but my name was rejected.\nRemote host said: 421 away"},
		{"451 later", "", "EHLO QUIT", 75, "Connected to 192.0.2.1 but my name was rejected.\nRemote host said: 451 later"},
		{"500 what", "550 go away", "EHLO HELO QUIT", 75, "Connected to 192.0.2.1 but my name was rejected.\nRemote host said: 550 go away"},
		{"500 what", "251 hm", "EHLO HELO QUIT", 75, "Connected to 192.0.2.1 but my name was rejected.\nRemote host said: 251 hm"},
	} {
		server := &smtptest.Server{Act: replies(map[smtptest.Phase][]string{smtptest.EHLO: {c.ehlo}, smtptest.HELO: {c.helo}})}
		r, seen := talk(t, server, newJob(1))
		if got := verbs(seen); got != c.commands || r.exit != c.exit || r.reason != c.reason {
			t.Errorf("EHLO %q, HELO %q: %q, %v", c.ehlo, c.helo, got, r)
		}
	}
}

func verbs(seen *smtptest.Conversation) string {
	var all []string
	for _, command := range seen.Commands {
		verb, _, _ := strings.Cut(command, " ")
		all = append(all, verb)
	}
	return strings.Join(all, " ")
}

func TestStart(t *testing.T) {
	for _, c := range []struct {
		start    smtpc.Start
		commands string
	}{
		{smtpc.FromEHLO, "EHLO MAIL RCPT DATA QUIT"},
		{smtpc.FromMAIL, "MAIL RCPT DATA QUIT"},
	} {
		server := &smtptest.Server{Extensions: []string{"PIPELINING", "SIZE"}}
		job := newJob(1)
		job.Start, job.Quoted, job.Recipients = c.start, true, []string{`"a b"@x`}
		conn := smtptest.Dial(t, smtptest.Listen(t, server.Serve))
		// The greeting has been read by somebody else.
		must.Get(io.ReadFull(conn, make([]byte, len("220 fake.example.org ESMTP\r\n"))))(t)
		wantReports(t, deliver(t.Context(), conn, job), "r\x00"+accepted)
		seen := server.Last(t)
		if got := verbs(seen); got != c.commands {
			t.Errorf("start %d: %q", c.start, got)
		}
		if !strings.Contains(strings.Join(seen.Commands, "\n"), `RCPT TO:<"a b"@x>`) {
			t.Errorf("start %d: %q", c.start, seen.Commands)
		}
	}
}

func TestMailParameters(t *testing.T) {
	for _, c := range []struct {
		extensions []string
		text       string
		stream     bool
		sender     string
		want       string
	}{
		{nil, "\xff\n", false, "a@x", "MAIL FROM:<a@x>"},
		{[]string{"SIZE"}, ".\n", false, "a@x", "MAIL FROM:<a@x> SIZE=3"},
		{[]string{"size 100"}, "", false, "", "MAIL FROM:<> SIZE=0"},
		{[]string{"SIZE 3"}, "a\n", false, "", "MAIL FROM:<> SIZE=3"},
		{[]string{"SIZE 0"}, "aa\n", false, "", "MAIL FROM:<> SIZE=4"},
		{[]string{"SIZE 1"}, "aa\n", true, "", "MAIL FROM:<>"},
		{[]string{"8BITMIME"}, "a\n", false, "a@x", "MAIL FROM:<a@x>"},
		{[]string{"8BITMIME"}, "\x80\n", false, "a@x", "MAIL FROM:<a@x> BODY=8BITMIME"},
		{[]string{"8BITMIME"}, "a\n", true, "a@x", "MAIL FROM:<a@x> BODY=8BITMIME"},
		{[]string{"SIZE", "8BITMIME", "SMTPUTF8"}, "\x80\n", false, "\u00e9@x", "MAIL FROM:<\u00e9@x> SIZE=3 BODY=8BITMIME SMTPUTF8"},
		{[]string{"SMTPUTF8"}, "a\n", false, "a@\u00e9.example", "MAIL FROM:<a@xn--9ca.example>"},
	} {
		job := newJob(1)
		job.Sender, job.Message = c.sender, strings.NewReader(c.text)
		if c.stream {
			job.Message = onlyReader{job.Message}
		}
		r, seen := talk(t, &smtptest.Server{Extensions: c.extensions}, job)
		wantReports(t, r, "r\x00"+accepted)
		if seen.Commands[1] != c.want {
			t.Errorf("%q, %q: %q, want %q", c.extensions, c.text, seen.Commands[1], c.want)
		}
	}
}

// A server that has refused MAIL for its parameters may want RSET, or a new connection,
// before it hears another: that is no verdict either.
func TestSecondMAIL(t *testing.T) {
	const rejected = "Connected to 192.0.2.1 but sender was rejected.\nRemote host said: "
	for second, want := range map[smtptest.Action]result{
		{Reply: "503 nested MAIL"}:          {exit: 77},
		{Reply: "501 no parameters"}:        {exit: 77},
		{Reply: "555 no parameters"}:        {exit: 77},
		{Reply: "421 too many errors"}:      {exit: 77},
		{Reply: "421 closing", Close: true}: {exit: 77},
		{Close: true}:                       {exit: 77},
		{Reply: "550 not you"}:              {reports: "D" + rejected + "550 not you\n\x00"},
		{Reply: "553 not you"}:              {reports: "D" + rejected + "553 not you\n\x00"},
		{Reply: "451 later"}:                {reports: "Z" + rejected + "451 later\nMAIL was refused with parameters before: 501 no parameters\n\x00"},
	} {
		for _, extensions := range []string{"SIZE", "PIPELINING SIZE"} {
			mails := 0
			server := &smtptest.Server{Extensions: strings.Fields(extensions), Act: func(p smtptest.Point) smtptest.Action {
				switch p.Phase {
				case smtptest.MAIL:
					if mails++; mails > 1 {
						return second
					}
					return smtptest.Action{Reply: "501 no parameters"}
				case smtptest.RCPT, smtptest.DATA:
					return smtptest.Action{Reply: "503 MAIL first"}
				}
				return smtptest.Action{}
			}}
			r, seen := talk(t, server, newJob(1))
			if r.exit != want.exit || r.reports != want.reports {
				t.Errorf("%s, %+v: %v, want %v", extensions, second, r, want)
			}
			if second.Reply != "" && want.exit == 77 && !strings.Contains(r.reason, second.Reply) {
				t.Errorf("%s, %+v: reason %q", extensions, second, r.reason)
			}
			if mails != 2 || seen.Accepted {
				t.Errorf("%s, %+v: %q", extensions, second, seen.Commands)
			}
		}
	}
}

func TestMessageOverTheLimitIsNotOffered(t *testing.T) {
	r, seen := talk(t, &smtptest.Server{Extensions: []string{"PIPELINING", "SIZE 27"}}, newJob(1))
	wantReports(t, r, "D192.0.2.1: message of 28 bytes is over the limit of 27. (#5.3.4)\n\x00")
	if got := verbs(seen); got != "EHLO QUIT" {
		t.Errorf("server saw %q", got)
	}
}

func TestAddressAboveASCII(t *testing.T) {
	const reason = "192.0.2.1 cannot take an address that is not ASCII: SMTPUTF8 is not offered. (#5.6.7)"
	job := newJob(1)
	job.Recipients = append(job.Recipients, "jos\u00e9@b\u00fccher.example")
	r, seen := talk(t, &smtptest.Server{}, job)
	if r.exit != 75 || r.reason != reason || r.reports != "" || verbs(seen) != "EHLO QUIT" {
		t.Errorf("%v, server saw %q", r, seen.Commands)
	}
	// In clear text that follows a failure of TLS it is not for good.
	for _, job.TLSFailed = range []bool{false, true} {
		outcome := send(t.Context(), smtptest.Dial(t, smtptest.Listen(t, new(smtptest.Server).Serve)), job)
		var unable *smtpc.UTF8Error
		if !errors.As(outcome.Err, &unable) || *unable != (smtpc.UTF8Error{Clear: job.TLSFailed}) {
			t.Errorf("TLS failed %v: error %#v", job.TLSFailed, outcome.Err)
		}
	}

	job.Message, job.TLSFailed = strings.NewReader("a\n"), false
	r, seen = talk(t, &smtptest.Server{Extensions: []string{"SMTPUTF8"}}, job)
	wantReports(t, r, "r\x00r\x00"+accepted)
	want := []string{"MAIL FROM:<sender@example.net> SMTPUTF8", "RCPT TO:<r0@example.org>", "RCPT TO:<jos\u00e9@xn--bcher-kva.example>"}
	if got := fmt.Sprintf("%q", seen.Commands[1:4]); got != fmt.Sprintf("%q", want) {
		t.Errorf("server saw %s", got)
	}
}

func TestAddressThatCannotBeSent(t *testing.T) {
	const refused = "hI cannot send to this recipient: there is a control byte in it. (#5.1.3)\n\x00"
	for _, extensions := range []string{"", "PIPELINING"} {
		server := &smtptest.Server{Extensions: strings.Fields(extensions)}
		job := newJob(2)
		job.Recipients = []string{"x\n@x", job.Recipients[0], "x\r\nDATA\r\n@x", job.Recipients[1], "x@x\x7f"}
		r, seen := talk(t, server, job)
		wantReports(t, r, refused+"r\x00"+refused+"r\x00"+refused+accepted)
		if got := strings.Count(verbs(seen), "RCPT"); got != 2 || strings.Contains(strings.Join(seen.Commands, ""), "<x") {
			t.Errorf("server saw %q", seen.Commands)
		}

		job = newJob(1)
		job.Recipients = []string{"x\n@x", "y\x00@x"}
		r, seen = talk(t, new(smtptest.Server), job)
		if len(seen.Commands) != 0 {
			t.Errorf("server saw %q", seen.Commands)
		}
		wantReports(t, r, refused+refused+"DGiving up on 192.0.2.1.\n\x00")

		job = newJob(1)
		job.Sender = "a@x>\r\nRCPT TO:<victim@example.org"
		r, seen = talk(t, new(smtptest.Server), job)
		wantReports(t, r, "DI cannot send a message with this envelope sender: there is a control byte in it. (#5.1.7)\n\x00")
		if len(seen.Commands) != 0 {
			t.Errorf("server saw %q", seen.Commands)
		}
	}
}

func TestPartialLine(t *testing.T) {
	t.Parallel()
	const partial = "DSMTP cannot transfer messages with partial final lines. (#5.6.2)\n\x00"
	for _, extensions := range []string{"", "PIPELINING"} {
		for _, text := range []string{"x", "a\nb", many(800<<10) + "x"} {
			server := &smtptest.Server{Extensions: strings.Fields(extensions)}
			job := newJob(1)
			job.Message = strings.NewReader(text)
			r, seen := talk(t, server, job)
			wantReports(t, r, partial)
			if strings.Contains(verbs(seen), "MAIL") {
				t.Errorf("%q: MAIL was sent", extensions)
			}

			job.Message = onlyReader{strings.NewReader(text)}
			server = &smtptest.Server{Extensions: strings.Fields(extensions)}
			r, seen = talk(t, server, job)
			if r.exit != 0 || strings.TrimPrefix(r.reports, "r\x00") != partial {
				t.Errorf("%q: %v", extensions, r)
			}
			if seen.Accepted || bytes.HasSuffix(seen.Raw, []byte("\r\n.\r\n")) {
				t.Errorf("%q: the end of the message was sent", extensions)
			}
		}
	}
}

// changingFile is a message that is another when it is read again.
type changingFile struct {
	*strings.Reader
	again string
	times int
}

func (f *changingFile) Seek(offset int64, whence int) (int64, error) {
	if f.times++; f.times == 4 { // position, end, back, and back after the scan
		f.Reader = strings.NewReader(f.again)
	}
	return f.Reader.Seek(offset, whence)
}

func TestMessageThatChangesWhileItIsSent(t *testing.T) {
	long := strings.Repeat("0123456789\n", 40000)
	for _, extensions := range []string{"SIZE", "SIZE PIPELINING"} {
		for _, c := range []struct{ name, again, became string }{
			{"grows", long + long, "longer"},
			{"grows a partial line", long + "x", "longer"},
			{"changes", strings.Repeat("012345678\n\n", 40000), "longer"},
			{"shrinks", long[:len(long)/2], "shorter"},
			{"vanishes", "", "shorter"},
		} {
			job := newJob(1)
			job.Message = &changingFile{Reader: strings.NewReader(long), again: c.again}
			server := &smtptest.Server{Extensions: strings.Split(extensions, " ")}
			r, seen := talk(t, server, job)
			want := "ZUnable to read message: it became " + c.became + " while it was being sent. (#4.3.0)\n\x00"
			if r.exit != 0 || strings.TrimPrefix(r.reports, "r\x00") != want || seen.Accepted {
				t.Errorf("%s %s: %v, accepted %v", extensions, c.name, r, seen.Accepted)
			}
		}
	}
}

// failingReader fails after some text.
type failingReader struct{ text *strings.Reader }

func (r failingReader) Read(p []byte) (int, error) {
	if n, _ := r.text.Read(p); n > 0 {
		return n, nil
	}
	return 0, errors.New("disk on fire")
}

func TestMessageThatCannotBeRead(t *testing.T) {
	for _, extensions := range []string{"", "PIPELINING"} {
		job := newJob(1)
		job.Message = failingReader{strings.NewReader(many(600 << 10))}
		r, seen := talk(t, &smtptest.Server{Extensions: strings.Fields(extensions)}, job)
		if r.exit != 0 || strings.TrimPrefix(r.reports, "r\x00") != "ZUnable to read message: disk on fire. (#4.3.0)\n\x00" || seen.Accepted {
			t.Errorf("%q: %v", extensions, r)
		}
	}
	job := newJob(1)
	job.Message = must.Open(t, t.TempDir())
	r, seen := talk(t, &smtptest.Server{}, job)
	if r.exit != 0 || !strings.HasPrefix(r.reports, "ZUnable to read message: ") || len(seen.Commands) > 0 {
		t.Errorf("a folder: %v", r)
	}
}

func TestEmptyMessageForNobody(t *testing.T) {
	const dislikes, over = "192.0.2.1 does not like recipient.\nRemote host said: ", "ZGiving up on 192.0.2.1.\n\x00"
	for _, c := range []struct {
		act       func(smtptest.Point) smtptest.Action
		want, raw string
	}{
		{at(smtptest.RCPT, "550 no", "450 no"), "h" + dislikes + "550 no\n\x00s" + dislikes + "450 no\n\x00" + over, ".\r\n"},
		// MAIL refused, but recipients accepted: a message would have readers.
		{at(smtptest.MAIL, "550 no"), "DConnected to 192.0.2.1 but sender was rejected.\nRemote host said: 550 no\n\x00", ""},
		// The same behind a 421 that the server does not mean.
		{at(smtptest.RCPT, "421 tired"), strings.Repeat("s"+dislikes+"421 tired\n\x00", 2) + over, ""},
	} {
		r, seen := talk(t, &smtptest.Server{Extensions: []string{"PIPELINING"}, Act: c.act}, newJob(2))
		wantReports(t, r, c.want)
		if string(seen.Raw) != c.raw || !seen.Ended && c.raw != "" {
			t.Errorf("after 354 came %q, QUIT: %v", seen.Raw, seen.Ended)
		}
	}
}

func TestAnswerThatGoesOnAfter421(t *testing.T) {
	const deferred = "s192.0.2.1 does not like recipient.\nRemote host said: 421 tired\n\x00"
	for _, extensions := range []string{"", "PIPELINING"} {
		server := &smtptest.Server{Extensions: strings.Fields(extensions), Act: at(smtptest.RCPT, "", "421 tired")}
		r, _ := talk(t, server, newJob(3))
		wantReports(t, r, "r\x00"+deferred+deferred+accepted)
	}
}

func early(t *testing.T, extensions, answer string, more func(c *smtptest.Conn)) string {
	return smtptest.Listen(t, func(c *smtptest.Conn) {
		c.Say("220 hello\n")
		for {
			line, err := c.Line()
			if err != nil {
				return
			}
			switch {
			case strings.HasPrefix(line, "EHLO") && extensions != "":
				c.Say("250-hello\n250 " + extensions + "\n")
			case strings.HasPrefix(line, "DATA"):
				c.Say("354 go\n")
				io.CopyN(io.Discard, c.Reader, 1000)
				c.Say(answer)
				more(c)
				return
			default:
				c.Say("250 ok\n")
			}
		}
	})
}

func TestAnswerInTheMidstOfTheMessage(t *testing.T) {
	t.Parallel()
	for _, extensions := range []string{"", "PIPELINING"} {
		for answer, want := range map[string]string{
			"552 too big\n": "D192.0.2.1 failed after I sent the message.\nRemote host said: 552 too big\n\x00",
			"452 full\n":    "Z192.0.2.1 failed after I sent the message.\nRemote host said: 452 full\n\x00",
			"250 fine\n":    "ZConnected to 192.0.2.1 but it answered \"250 fine\" to a part of the message. (#4.5.0)\n\x00",
			"354 more\n":    "ZConnected to 192.0.2.1 but it answered \"354 more\" to the message. (#4.5.0)\n\x00",
		} {
			gone := make(chan struct{})
			address := early(t, extensions, answer, func(*smtptest.Conn) { <-gone })
			job := newJob(1)
			job.Message = strings.NewReader(many(8 << 20))
			r := deliver(t.Context(), smtptest.Dial(t, address), job)
			close(gone)
			wantReports(t, r, "r\x00"+want)
		}
	}
}

// script is a server that says a fixed text at each command.
func script(t *testing.T, greeting string, answers ...string) string {
	return smtptest.Listen(t, func(c *smtptest.Conn) {
		c.Say(greeting)
		for _, answer := range answers {
			if _, err := c.Line(); err != nil {
				return
			}
			c.Say(answer)
		}
		c.Hold()
	})
}

// TestAnswersOutOfTurn has servers that send more answers than commands they
// have seen. None may be taken for the answer to a later command.
func TestAnswersOutOfTurn(t *testing.T) {
	for _, c := range []struct {
		name    string
		address string
		exit    int
		want    string
	}{
		{"two greetings", script(t, "220 a\n250 b\n"), 75, `it sent "250 b\r\n" without being asked`},
		{"after EHLO", script(t, "220 a\n", "250 b\n250 c\n250 d\n354 e\n250 f\n"), 75, "without being asked"},
		{"after MAIL", script(t, "220 a\n", "250 b\n", "250 c\n250 d\n354 e\n250 f\n"), 0, "without being asked"},
		{"after DATA", script(t, "220 a\n", "250 b\n", "250 c\n", "250 d\n", "354 e\n250 f\n"), 0, "without being asked"},
		{"after DATA, pipelined", script(t, "220 a\n", "250-b\n250 PIPELINING\n", "250 c\n", "250 d\n", "354 e\n250 f\n"), 0, "without being asked"},
	} {
		r := deliver(t.Context(), smtptest.Dial(t, c.address), newJob(1))
		if r.exit != c.exit || !strings.Contains(r.reports+r.reason, c.want) || strings.Contains(r.reports, "K") ||
			strings.Contains(r.reports, "duplicate") {
			t.Errorf("%s: %v", c.name, r)
		}
	}
}

// TestContraryBehindTheLastAnswer has an answer too many, so that the last one
// stood perhaps in the place of its contrary.
func TestContraryBehindTheLastAnswer(t *testing.T) {
	const (
		accepted = "K192.0.2.1 accepted message.\nRemote host said: 250 e\n\x00"
		refused  = "D192.0.2.1 failed after I sent the message.\nRemote host said: 550 e\n\x00"
		doubt    = "ZConnected to 192.0.2.1 but it sent %q without being asked. Possible duplicate! (#4.5.0)\n\x00"
	)
	for last, want := range map[string]string{
		"250 e\n550 f\n": fmt.Sprintf(doubt, "550 f\r\n"),
		"550 e\n250 f\n": fmt.Sprintf(doubt, "250 f\r\n"),
		"250 e\n421 f\n": accepted,
		"250 e\n221 f\n": accepted,
		"250 e\n250 f\n": accepted,
		"250 e\nf\n":     accepted,
		"550 e\n221 f\n": refused,
		"550 e\n550 f\n": refused,
	} {
		for _, address := range []string{
			script(t, "220 a\n", "250-b\n250 PIPELINING\n", "250 c\n250 d\n354 e\n", "", "", "", "", last),
			script(t, "220 a\n", "250 b\n", "250 c\n", "250 d\n", "354 e\n", "", "", "", "", last),
		} {
			wantReports(t, deliver(t.Context(), smtptest.Dial(t, address), newJob(1)), "r\x00"+want)
		}
	}
	// A recipient's refusal in the place of DATA's answer.
	address := script(t, "220 a\n", "250-b\n250 PIPELINING\n", "250 c\n250 d\n550 e\n354 f\n")
	wantReports(t, deliver(t.Context(), smtptest.Dial(t, address), newJob(1)),
		"r\x00ZConnected to 192.0.2.1 but it sent \"354 f\\r\\n\" without being asked. (#4.5.0)\n\x00")
}

func TestForeignTextIsMadeHarmless(t *testing.T) {
	server := &smtptest.Server{Act: at(smtptest.Message, "550-a\x00b\r\x1b[2J\x7f\n550 "+strings.Repeat("\xe9", 6000))}
	r, _ := talk(t, server, newJob(1))
	said := "550-a?b?[2J?\n550 "
	said += strings.Repeat("\xe9", 5000-len(said))
	wantReports(t, r, "r\x00D192.0.2.1 failed after I sent the message.\nRemote host said: "+said+"\n\x00")
}

func TestReplyWithoutEnd(t *testing.T) {
	for _, text := range []string{strings.Repeat("220-x\n", 1<<18), strings.Repeat("x", 1<<20), "220-" + strings.Repeat("\x00", 1<<20)} {
		address := smtptest.Listen(t, func(c *smtptest.Conn) { c.Say(text); c.Hold() })
		r := deliver(t.Context(), smtptest.Dial(t, address), newJob(1))
		if r.exit != 75 || !strings.Contains(r.reason, "it sent a") || len(r.reason) > 1500 {
			t.Errorf("%v", r)
		}
	}
}

// TestFuse only waits, and so waits for all at once.
func TestFuse(t *testing.T) {
	t.Parallel()
	var running sync.WaitGroup
	fuseInFrontOfADeafServer(t, &running)
	fuseBehindAPipeThatNobodyWrites(t, &running)
	running.Wait()
}

// A server that does not read the message is not one that owes an answer.
func fuseInFrontOfADeafServer(t *testing.T, running *sync.WaitGroup) {
	running.Go(func() {
		gone := make(chan struct{})
		address := smtptest.Listen(t, func(c *smtptest.Conn) {
			c.Say("220 a\n")
			for _, reply := range []string{"250 a", "250 sender", "250 recipient", "354 go"} {
				c.Line()
				c.Say(reply + "\n")
			}
			<-gone
		})
		job := newJob(1)
		job.Message, job.TimeoutRemote = strings.NewReader(many(8<<20)), 8*time.Second
		r := deliver(t.Context(), smtptest.Dial(t, address), job)
		close(gone)
		const want = "r\x00ZConnected to 192.0.2.1 but the conversation took longer than 8 seconds. (#4.4.2)\n\x00"
		if r.exit != 124 || r.reports != want {
			t.Errorf("%v", r)
		}
	})
	// Before a transaction: the answer to STARTTLS has a limit of its own, here none.
	running.Go(func() {
		server := &smtptest.Server{TLS: serverTLS(), Act: smtptest.At(smtptest.STARTTLS, smtptest.Action{Stall: true})}
		job := newJob(1)
		job.Secure, job.TimeoutRemote = true, 8*time.Second
		if r, _ := talk(t, server, job); r.exit != 124 || r.reports != "" {
			t.Errorf("%v", r)
		}
	})
}

func fuseBehindAPipeThatNobodyWrites(t *testing.T, running *sync.WaitGroup) {
	for _, extensions := range []string{"", "PIPELINING"} {
		r, _ := must.Pipe(t)
		running.Go(func() {
			job := newJob(1)
			job.Message, job.TimeoutRemote = r, 8*time.Second
			got, _ := talk(t, &smtptest.Server{Extensions: strings.Fields(extensions)}, job)
			if got.exit != 124 || strings.Contains(got.reports, "duplicate") {
				t.Errorf("%q: %v", extensions, got)
			}
		})
	}
}

// smallBuffer is much less than what 5,000 recipients take, both ways, and not so
// little that the kernel falls back on its timers.
const smallBuffer = 16 << 10

// tiny makes the buffers of a socket small.
func tiny(t *testing.T, conn net.Conn) {
	tcp := conn.(*net.TCPConn)
	must.Check(t, errors.Join(tcp.SetReadBuffer(smallBuffer), tcp.SetWriteBuffer(smallBuffer)))
}

func TestFiveThousandRecipientsDoNotBlock(t *testing.T) {
	t.Parallel()
	const n = 5000
	for _, extensions := range []string{"PIPELINING"} {
		for _, lazy := range []bool{false, true} {
			server := &smtptest.Server{Extensions: strings.Fields(extensions), Lazy: lazy}
			address := smtptest.Listen(t, func(c *smtptest.Conn) {
				tiny(t, c.Conn)
				server.Serve(c)
			})
			conn := smtptest.Dial(t, address)
			tiny(t, conn)
			wantReports(t, deliver(t.Context(), conn, newJob(n)), strings.Repeat("r\x00", n)+accepted)
			if seen := server.Last(t); !seen.Accepted {
				t.Errorf("%s lazy=%v: not accepted", extensions, lazy)
			}
		}
	}
}

// TestServerThatWritesLate reads everything, and only then writes an answer at
// a time.
func TestServerThatWritesLate(t *testing.T) {
	const n = 300
	address := smtptest.Listen(t, func(c *smtptest.Conn) {
		tiny(t, c.Conn)
		c.Say("220 a\n")
		c.Line()
		c.Say("250-a\n250 PIPELINING\n")
		for range n + 2 {
			if _, err := c.Line(); err != nil {
				return
			}
		}
		for i := range n + 1 {
			for _, b := range fmt.Sprintf("250 %s %d\n", strings.Repeat("x", 20), i) {
				c.Say(string(b))
			}
		}
		c.Say("354 go\n")
		for line := ""; line != "."; {
			line, _ = c.Line()
		}
		c.Say("250 accepted\n")
		c.Hold()
	})
	conn := smtptest.Dial(t, address)
	tiny(t, conn)
	wantReports(t, deliver(t.Context(), conn, newJob(n)), strings.Repeat("r\x00", n)+accepted)
}

func TestStartTLSPolicies(t *testing.T) {
	failing := func(context.Context) (net.Conn, error) {
		return nil, errors.New(`certificate is for "a", not "b"`)
	}
	const (
		offered = "offered"
		absent  = "not offered"
		refused = "refused"
		fails   = "handshake fails"
		nothing = "no TLS client"
	)
	clear := "r\x00" + accepted
	secure := strings.Replace(clear, "250 accepted", "250 accepted"+tlsLine, 1)
	unavailable := func(reason string) string {
		return "Connected to 192.0.2.1 but TLS could not be had: " + reason + ". (#4.7.5)"
	}
	for _, c := range []struct {
		uses   []smtpc.STARTTLS
		server string
		exit   int
		want   string
		verbs  string
	}{
		{[]smtpc.STARTTLS{smtpc.Never}, offered, 0, clear, "EHLO MAIL RCPT DATA QUIT"},
		{[]smtpc.STARTTLS{smtpc.IfOffered, smtpc.Required}, offered, 0, secure, "EHLO STARTTLS EHLO MAIL RCPT DATA QUIT"},
		{[]smtpc.STARTTLS{smtpc.Never, smtpc.IfOffered}, absent, 0, clear, "EHLO MAIL RCPT DATA QUIT"},
		{[]smtpc.STARTTLS{smtpc.Required}, absent, 76, unavailable("STARTTLS is not offered"), "EHLO QUIT"},
		{[]smtpc.STARTTLS{smtpc.IfOffered}, refused, 0, clear, "EHLO STARTTLS MAIL RCPT DATA QUIT"},
		{[]smtpc.STARTTLS{smtpc.Required}, refused, 76, unavailable("STARTTLS was refused") + "\nRemote host said: 454 not now", "EHLO STARTTLS QUIT"},
		{[]smtpc.STARTTLS{smtpc.IfOffered, smtpc.Required}, fails, 76, unavailable(`certificate is for "a", not "b"`), "EHLO STARTTLS"},
		{[]smtpc.STARTTLS{smtpc.Never, smtpc.IfOffered}, nothing, 0, clear, "EHLO MAIL RCPT DATA QUIT"},
		{[]smtpc.STARTTLS{smtpc.Required}, nothing, 76, unavailable("there is no TLS client"), "EHLO QUIT"},
	} {
		for _, use := range c.uses {
			server := &smtptest.Server{TLS: serverTLS()}
			switch c.server {
			case absent:
				server.TLS = nil
			case refused:
				server.Act = at(smtptest.STARTTLS, "454 not now")
			}
			job := newJob(1)
			job.TLS = use
			switch c.server {
			case fails:
				job.StartTLS = failing
			case nothing:
			default:
				job.Secure = true
			}
			r, seen := talk(t, server, job)
			if r.exit != c.exit || r.reports+r.reason != c.want {
				t.Errorf("%s, use %d: %v", c.server, use, r)
			}
			if verbs(seen) != c.verbs {
				t.Errorf("%s, use %d: server saw %q", c.server, use, seen.Commands)
			}
		}
	}
}

func TestWhatWasSaidBeforeTLSIsForgotten(t *testing.T) {
	server := &smtptest.Server{TLS: serverTLS(), Act: func(p smtptest.Point) smtptest.Action {
		if p.Phase == smtptest.EHLO && p.Secure {
			return smtptest.Action{Reply: "250 nothing on offer here"}
		}
		return smtptest.Action{}
	}, Extensions: []string{"PIPELINING", "SIZE 1"}}
	job := newJob(1)
	job.Secure = true
	r, seen := talk(t, server, job)
	if r.exit != 0 || !strings.Contains(r.reports, "K") {
		t.Error(r)
	}
	if got := verbs(seen); got != "EHLO STARTTLS EHLO MAIL RCPT DATA QUIT" {
		t.Errorf("server saw %q", got)
	}
}

// TestPlaintextInFrontOfTLS is CVE-2011-0411.
func TestPlaintextInFrontOfTLS(t *testing.T) {
	for _, use := range []smtpc.STARTTLS{smtpc.IfOffered, smtpc.Required} {
		address := script(t, "220 a\n", "250-a\n250 STARTTLS\n", "220 go\n250 injected\n")
		conn := smtptest.Dial(t, address)
		job := newJob(1)
		job.TLS = use
		job.StartTLS = func(context.Context) (net.Conn, error) {
			t.Error("TLS was started")
			return nil, errors.New("no")
		}
		r := deliver(t.Context(), conn, job)
		exit := 76
		if use == smtpc.IfOffered {
			exit = 75
		}
		if r.exit != exit || r.reason != `Connected to 192.0.2.1 but TLS could not be had: it sent "250 injected\r\n" without being asked. (#4.7.5)` {
			t.Errorf("use %d: %v", use, r)
		}
	}
}

func TestInsideTLSAlready(t *testing.T) {
	server := &smtptest.Server{TLS: serverTLS()}
	job := newJob(1)
	job.TLS = smtpc.Required
	job.InTLS = true
	job.facts = &report.TLS{Version: "TLSv1.2", Cipher: "X", Verified: true, ServerName: peerName}
	r, seen := talk(t, server, job)
	wantReports(t, r, "r\x00"+strings.TrimSuffix(accepted, "\n\x00")+"\nTLS: TLSv1.2 X verified mx.example.org\n\x00")
	if strings.Contains(verbs(seen), "STARTTLS") {
		t.Errorf("server saw %q", seen.Commands)
	}
}

func TestContextThatEnds(t *testing.T) {
	for _, c := range []struct {
		phase smtptest.Phase
		exit  int
		want  string
	}{
		{smtptest.EHLO, 111, "context canceled"},
		{smtptest.DATA, 0, "r\x00ZConnected to 192.0.2.1 but connection died. (#4.4.2)\n\x00"},
		{smtptest.Message, 0, "r\x00ZConnected to 192.0.2.1 but connection died. Possible duplicate! (#4.4.2)\n\x00"},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		server := &smtptest.Server{Act: func(p smtptest.Point) smtptest.Action {
			if p.Phase == c.phase {
				cancel()
				return smtptest.Action{Stall: true}
			}
			return smtptest.Action{}
		}}
		r := deliver(ctx, smtptest.Dial(t, smtptest.Listen(t, server.Serve)), newJob(1))
		if r.exit != c.exit || r.reports+r.reason != c.want {
			t.Errorf("%s: %v", c.phase, r)
		}
	}
}

func TestPanicBecomesAnError(t *testing.T) {
	job := newJob(1)
	server := &smtptest.Server{TLS: serverTLS()}
	job.StartTLS = func(context.Context) (net.Conn, error) { panic("in the handshake") }
	r, _ := talk(t, server, job)
	if r.exit != 111 || !strings.Contains(r.reason, "in the handshake") || r.reports != "" {
		t.Error(r)
	}
	job = newJob(1)
	job.Message = onlyReader{nil} // its Read panics, in the goroutine that writes
	r, _ = talk(t, &smtptest.Server{}, job)
	if r.exit != 0 || !strings.HasPrefix(r.reports, "r\x00ZInternal error: panic while sending: ") {
		t.Error(r)
	}
}

// After the last byte the server may have the message, whatever becomes of us.
func TestPanicAfterTheLastByte(t *testing.T) {
	for _, c := range []struct{ line, want string }{
		{"> .", "r\x00ZInternal error: panic while sending: now. Possible duplicate! (#4.3.5)\n\x00"},
		{"< 250 accepted", "r\x00ZInternal error: panic in the SMTP conversation: now. Possible duplicate! (#4.3.5)\n\x00"},
		{"> QUIT", "r\x00" + accepted},
	} {
		job := newJob(1)
		job.Trace = func(line string) {
			if line == c.line {
				panic("now")
			}
		}
		r, _ := talk(t, &smtptest.Server{}, job)
		wantReports(t, r, c.want)
	}
}

func TestMistakesOfTheCaller(t *testing.T) {
	for name, spoil := range map[string]func(*job){
		"no recipient":     func(j *job) { j.Recipients = nil },
		"no name":          func(j *job) { j.HeloHost = "" },
		"a name of two":    func(j *job) { j.HeloHost = "a\r\nMAIL" },
		"no name for EHLO": func(j *job) { j.HeloHost, j.Start = "", smtpc.FromEHLO },
	} {
		job := newJob(1)
		spoil(job)
		if r, seen := talk(t, &smtptest.Server{}, job); r.exit != 111 || r.reports != "" || len(seen.Commands) > 0 {
			t.Errorf("%s: %v", name, r)
		}
	}
}

func TestTraceHasCommandsAndRepliesOnly(t *testing.T) {
	for _, extensions := range []string{"", "PIPELINING"} {
		var lines []string
		job := newJob(1)
		job.Message = strings.NewReader("Subject: secret\n\nsecret\n")
		job.Trace = func(line string) { lines = append(lines, line) }
		talk(t, &smtptest.Server{Extensions: strings.Fields(extensions), TLS: serverTLS()}, job)
		all := strings.Join(lines, "\n") + "\n"
		for _, want := range []string{
			"< 220 fake.example.org ESMTP\n", "> EHLO client.example.net\n", "< 250-fake.example.org greets you\n",
			"> MAIL FROM:<sender@example.net>\n", "> RCPT TO:<r0@example.org>\n", "< 250 accepted\n", "> QUIT\n",
		} {
			if !strings.Contains(all, want) {
				t.Errorf("%q: no %q in %q", extensions, want, all)
			}
		}
		if strings.Contains(all, "secret") {
			t.Errorf("%q: the message is in %q", extensions, all)
		}
	}
}

func TestMemoryDoesNotGrowWithTheMessage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "message")
	line := strings.Repeat("x", 75) + "\n"
	must.Write(t, path, strings.Repeat(line, 80<<10)) // 6 MB
	for _, extensions := range []string{"8BITMIME", "PIPELINING"} {
		address := smtptest.Listen(t, func(c *smtptest.Conn) { sink(c, extensions) })
		job := newJob(1)
		job.Message = must.Open(t, path)
		conn := smtptest.Dial(t, address)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		r := deliver(t.Context(), conn, job)
		runtime.ReadMemStats(&after)
		wantReports(t, r, "r\x00"+accepted)
		if used := after.TotalAlloc - before.TotalAlloc; used > 3<<20 {
			t.Errorf("%q: %d bytes allocated, both ends together", extensions, used)
		}
	}
}

// sink reads a message without keeping it.
func sink(c *smtptest.Conn, extensions string) {
	c.Say("220 a\n")
	for {
		line, err := c.Line()
		if err != nil {
			return
		}
		switch {
		case strings.HasPrefix(line, "EHLO"):
			c.Say("250-a\n250-" + extensions + "\n250 HELP\n")
		case strings.HasPrefix(line, "DATA"):
			c.Say("354 go\n")
			for string(readLine(c)) != ".\r\n" {
			}
			c.Say("250 accepted\n")
		default:
			c.Say("250 ok\n")
		}
	}
}

func readLine(c *smtptest.Conn) []byte {
	line, err := c.Reader.ReadSlice('\n')
	if err != nil {
		return []byte(".\r\n")
	}
	return line
}

func TestNothingIsLeftBehind(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Run("many", func(t *testing.T) {
		for _, mode := range []string{lockstep, pipelining} {
			for _, f := range []fault{closes, says5xx, garbage} {
				for _, p := range points(mode, false, 1) {
					scenario{mode, false, 1, p, f}.run(t)
				}
			}
		}
	})
	must.NoneLeft(t, before)
}

func BenchmarkLargeMessage(b *testing.B) {
	text := strings.Repeat(strings.Repeat("x", 75)+"\n", 1<<20)
	for _, extensions := range []string{"8BITMIME", "PIPELINING"} {
		b.Run(strings.Fields(extensions)[0], func(b *testing.B) {
			address := smtptest.Listen(b, func(c *smtptest.Conn) { sink(c, extensions) })
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				job := newJob(1)
				job.Message = strings.NewReader(text)
				if r := deliver(b.Context(), smtptest.Dial(b, address), job); r.exit != 0 {
					b.Fatal(r)
				}
			}
		})
	}
	b.Run("floor", func(b *testing.B) {
		address := smtptest.Listen(b, func(c *smtptest.Conn) { c.Hold() })
		b.SetBytes(int64(len(text)))
		for b.Loop() {
			conn := smtptest.Dial(b, address)
			must.Get(io.CopyBuffer(conn, onlyReader{strings.NewReader(text)}, make([]byte, 64<<10)))(b)
			conn.Close()
		}
	})
}
