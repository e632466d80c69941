package qmtpc

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"

	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/qmtpc/qmtptest"
)

// saying is the script of a server that reads a package and says these bytes. Then it leaves.
func saying(raw string) qmtptest.Script {
	return func(c *qmtptest.Conn) error {
		if _, err := c.Package(); err != nil {
			return err
		}
		return c.Raw(raw)
	}
}

// Of makes of an outcome for three recipients what each would have met alone. Where the server
// leaves, or stops speaking QMTP, that is the outcome of the recipients behind too.
func TestOf(t *testing.T) {
	answers := []string{"3:Kok,", "6:Zlater,", "3:Dno,", "", "nonsense"}
	alone := make(map[string]string)
	for _, says := range answers {
		o, _ := send(t, saying(says), post{})
		alone[says] = brief(o)
	}
	for n := range len(answers) * len(answers) * len(answers) {
		three := []string{answers[n%5], answers[n/5%5], answers[n/25]}
		last, said := "", ""
		var expected []string
		for _, says := range three {
			if last == "" {
				said += says
			}
			if last == "" && (says == "" || says == "nonsense") {
				last = alone[says]
			}
			if last != "" {
				expected = append(expected, last)
			} else {
				expected = append(expected, alone[says])
			}
		}
		o, _ := send(t, saying(said), post{recipients: rcpts(3)})
		for i := range three {
			one := o.Of(i)
			if expected[i] == alone[""] {
				one.Heard = false // what was heard was the answers to others
			}
			if got := brief(one); got != expected[i] {
				t.Errorf("%q, recipient %d:\n%s, want\n%s", three, i, got, expected[i])
			}
		}
	}
}

// A package that was not wholly sent cannot have been accepted; it can have been refused.
func TestOf_unfinished(t *testing.T) {
	yes, no := Answer{Accepted, "ok"}, Answer{Refused, "no"}
	o := &Outcome{Recipients: []Answer{yes, no}, FirstByte: true, Heard: true, Err: &BrokenError{io.EOF}}
	want(t, o.Of(0), `accepted "ok", begun, heard, broken`)
	want(t, o.Of(1), `refused "no", begun, heard, complete`)
	o = &Outcome{Err: errors.New("no room")}
	want(t, o.Of(0), "no room")
}

// A mail can grow before it is sent, and its message can be sent again to others.
func TestMail_add(t *testing.T) {
	mail := must.Get(Prepare(t.Context(), "s", []string{"a@b"}, strings.NewReader("x\n"), nil))(t)
	defer mail.Close()
	mail.Add("c")
	for _, c := range []struct {
		mail *Mail
		want string
	}{{mail, "3:\nx\n,1:s,10:3:a@b,1:c,,"}, {mail.Again([]string{"d"}), "3:\nx\n,1:s,4:1:d,,"}, {mail, "3:\nx\n,1:s,10:3:a@b,1:c,,"}} {
		conn := &scripted{answers: strings.NewReader("3:Kok,3:Kok,")}
		if o := Send(t.Context(), conn, c.mail, nil); o.Err != nil {
			t.Error(o.Err)
		}
		if got := strings.Join(conn.writes(), ""); got != c.want {
			t.Errorf("written: %q, want %q", got, c.want)
		}
	}
}

// OnLastByte has returned before the server can have the package, however that is written.
func TestOnLastByte(t *testing.T) {
	for name, c := range map[string]struct {
		text       io.Reader
		recipients int
	}{
		"short":           {strings.NewReader("x\n"), 1},
		"long":            {bytes.NewReader(make([]byte, 3*writeSize)), 1},
		"a file":          {fileOf(t, make([]byte, 2*directSize)), 1},
		"many recipients": {strings.NewReader("x\n"), 20000},
	} {
		mail := must.Get(Prepare(t.Context(), "", rcpts(c.recipients), c.text, nil))(t)
		var called atomic.Int32
		var before int32
		s := start(t, func(c *qmtptest.Conn) error {
			_, err := c.Package()
			before = called.Load()
			w := bufio.NewWriter(c)
			for range mail.Recipients {
				_, _ = w.WriteString("3:Kok,")
			}
			return errors.Join(err, w.Flush())
		})
		mail.OnLastByte = func() { called.Add(1) }
		o := Send(t.Context(), dial(t, s), mail, nil)
		if o.Err != nil || before != 1 || called.Load() != 1 {
			t.Errorf("%s: %v, called %d times, %d of them in time", name, o.Err, called.Load(), before)
		}
		mail.Close()
	}
}

func TestOnLastByte_panic(t *testing.T) {
	mail := must.Get(Prepare(t.Context(), "", rcpts(1), strings.NewReader("x\n"), nil))(t)
	mail.OnLastByte = func() { panic("now") }
	s := start(t, qmtptest.Accept)
	want(t, Send(t.Context(), dial(t, s), mail, nil), "?, panic: now")
	if got := s.Packages(); len(got) != 0 {
		t.Errorf("%d packages", len(got))
	}
}

// The end of a package is not written once the context has ended, though nobody but OnLastByte has
// had time to notice.
func TestOnLastByte_over(t *testing.T) {
	for range 20 { // the connection hears of it at any time
		mail := must.Get(Prepare(t.Context(), "", rcpts(1), strings.NewReader("x\n"), nil))(t)
		ctx, cancel := context.WithCancel(t.Context())
		mail.OnLastByte = cancel
		s := start(t, qmtptest.Accept)
		if o := Send(ctx, dial(t, s), mail, nil); o.Err == nil || o.LastByte {
			t.Errorf("%+v", o)
		}
		if got := s.Packages(); len(got) != 0 {
			t.Fatalf("%d packages", len(got))
		}
		mail.Close()
	}
}

// Nothing is announced of a package that is given up before its end.
func TestOnLastByte_never(t *testing.T) {
	text := &panicking{Seeker: bytes.NewReader(make([]byte, 2*writeSize))}
	mail := must.Get(Prepare(t.Context(), "", rcpts(1), text, nil))(t)
	mail.OnLastByte = func() { t.Error("called") }
	if o := Send(t.Context(), dial(t, start(t, qmtptest.Accept)), mail, nil); o.Err == nil || o.LastByte {
		t.Error(brief(o))
	}
}
