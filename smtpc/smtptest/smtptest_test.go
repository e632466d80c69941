package smtptest

import (
	"bufio"
	"io"
	"strings"
	"testing"

	"nightmare.mail/mxf/integration/must"
)

// talk sends flights, each after the answers to the one before it, and returns what
// the server saw.
func talk(t *testing.T, server *Server, flights ...string) *Conversation {
	t.Helper()
	conn := Dial(t, Listen(t, server.Serve))
	in := bufio.NewReader(conn)
	answered(in, 1)
	for _, flight := range flights {
		must.Get(io.WriteString(conn, flight))(t)
		answers := strings.Count(flight, "\r\n")
		if strings.HasSuffix("\r\n"+flight, "\r\n.\r\n") {
			answers = 1
		}
		answered(in, answers)
	}
	conn.Close()
	return server.Last(t)
}

// answered reads replies, or to the end.
func answered(in *bufio.Reader, count int) {
	for count > 0 {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		if len(line) < 4 || line[3] != '-' {
			count--
		}
	}
}

const (
	ehlo = "EHLO a\r\n"
	mail = "MAIL FROM:<a@b>\r\n"
	rcpt = "RCPT TO:<c@d>\r\n"
	data = "DATA\r\n"
	quit = "QUIT\r\n"
	text = "Subject: x\r\n\r\n..\r\nend\r\n.\r\n"
)

func TestViolations(t *testing.T) {
	grouped := []string{"PIPELINING", "SIZE", "8BITMIME"}
	refusedMAIL := func(p Point) Action {
		if p.Phase == MAIL && p.N == 0 {
			return Action{Reply: "550 no"}
		}
		return Action{}
	}
	for _, c := range []struct {
		name       string
		extensions []string
		act        func(Point) Action
		flights    []string
		want       string // of the violation; empty: there is none
	}{
		{"one by one", nil, nil, []string{ehlo, mail, rcpt, data, text, quit}, ""},
		{"HELO", nil, nil, []string{"HELO a\r\n", mail, rcpt, data, text, quit}, ""},
		{"grouped", grouped, nil, []string{ehlo, mail + rcpt + rcpt + data, text, mail + rcpt + data, text, quit}, ""},
		{"message and QUIT", grouped, nil, []string{ehlo, mail + rcpt + data, text + quit}, ""},
		{"once more without parameters", grouped, refusedMAIL, []string{ehlo, "MAIL FROM:<> SIZE=1\r\n", mail, rcpt, data, text, quit}, ""},
		{"grouped behind a refusal", grouped, refusedMAIL, []string{ehlo, mail + rcpt + data, ".\r\n", quit}, ""},
		{"a quoted path", nil, nil, []string{ehlo, `MAIL FROM:<"a > \" b"@c>` + "\r\n", quit}, ""},
		{"RSET", nil, nil, []string{ehlo, mail, "RSET\r\n", mail, quit}, ""},

		{"bare LF", nil, nil, []string{"EHLO a\n"}, "line end in \"EHLO a\\n\""},
		{"bare CR", nil, nil, []string{"EHLO\ra\r\n"}, "line end"},
		{"bare LF in the message", nil, nil, []string{ehlo, mail, rcpt, data, "a\nb\r\n.\r\n"}, "line end in \"a\\n\""},
		{"bare CR in the message", nil, nil, []string{ehlo, mail, rcpt, data, "a\rb\r\n.\r\n"}, "line end"},
		{"a single dot", nil, nil, []string{ehlo, mail, rcpt, data, ".a\r\n.\r\n"}, "dot not doubled"},
		{"MAIL first", nil, nil, []string{mail}, "out of order"},
		{"RCPT first", nil, nil, []string{ehlo, rcpt}, "out of order"},
		{"DATA first", grouped, nil, []string{ehlo, mail, data}, "out of order"},
		{"MAIL twice", nil, nil, []string{ehlo, mail, mail}, "out of order"},
		{"RCPT after a refusal", nil, refusedMAIL, []string{ehlo, mail, rcpt}, "out of order"},
		{"STARTTLS that is not offered", nil, nil, []string{ehlo, "STARTTLS\r\n"}, "out of order"},
		{"grouped without PIPELINING", nil, nil, []string{ehlo, mail + rcpt}, "without PIPELINING"},
		{"grouped after HELO", grouped, nil, []string{"HELO a\r\n", mail + rcpt}, "without PIPELINING"},
		{"EHLO in front", grouped, nil, []string{ehlo + mail}, "before the answer"},
		{"the message before 354", grouped, nil, []string{ehlo, mail + rcpt + data + text}, "more before the answer to \"DATA\""},
		{"behind QUIT", grouped, nil, []string{ehlo, quit + mail}, "more before the answer to \"QUIT\""},
		{"a parameter that is not offered", nil, nil, []string{ehlo, "MAIL FROM:<> BODY=8BITMIME\r\n"}, "not offered"},
		{"no such parameter", grouped, nil, []string{ehlo, "MAIL FROM:<> SIZE=1 X=Y\r\n"}, "not offered"},
		{"no brackets", nil, nil, []string{ehlo, "MAIL FROM:a@b\r\n"}, "malformed"},
		{"a space", nil, nil, []string{ehlo, "MAIL FROM: <a@b>\r\n"}, "malformed"},
		{"no name", nil, nil, []string{"EHLO\r\n"}, "malformed"},
		{"DATA with a word", nil, nil, []string{ehlo, mail, rcpt, "DATA now\r\n"}, "malformed"},
		{"too long", nil, nil, []string{ehlo, mail, "RCPT TO:<" + strings.Repeat("x", 1100) + "@b>\r\n"}, "command of 1114 bytes"},
		{"unknown", nil, nil, []string{"VRFY a\r\n"}, "unknown command"},
	} {
		t.Run(c.name, func(t *testing.T) {
			seen := talk(t, &Server{Extensions: c.extensions, Act: c.act}, c.flights...)
			err := seen.Violation()
			if (err != nil) != (c.want != "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q; %q", err, c.want, seen.Commands)
			}
		})
	}
}

// The count of turns is the same whether a server waits for the client or not.
func TestTurns(t *testing.T) {
	for _, lazy := range []bool{false, true} {
		seen := talk(t, &Server{Extensions: []string{"PIPELINING"}, Lazy: lazy}, ehlo, mail+rcpt+data, text, quit)
		if seen.Turns != 4 || !seen.Accepted || string(seen.Message) != "Subject: x\r\n\r\n.\r\nend\r\n" || string(seen.Raw) != text {
			t.Errorf("lazy %v: %+v", lazy, seen)
		}
	}
}
