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

// What a client must not do about logins.
func TestViolations_login(t *testing.T) {
	const (
		plain = "AUTH PLAIN AGpvZQBwZW5jaWw=\r\n" // joe, pencil
		login = "AUTH LOGIN\r\n"
		name  = "am9l\r\n"
		word  = "cGVuY2ls\r\n"
	)
	offered := Auth{Mechanisms: []string{"PLAIN", "LOGIN"}, Users: map[string]string{"joe": "pencil"}, Clear: true}
	inTLS := offered
	inTLS.Clear = false
	for _, c := range []struct {
		name    string
		auth    *Auth
		act     func(Point) Action
		flights []string
		want    string // of the violation; empty: there is none
		good    bool   // the login
	}{
		{"PLAIN", &offered, nil, []string{ehlo, plain, mail, rcpt, data, text, quit}, "", true},
		{"LOGIN", &offered, nil, []string{ehlo, login, name, word, mail, quit}, "", true},
		{"PLAIN without initial response", &offered, nil, []string{ehlo, "AUTH PLAIN\r\n", "AGpvZQBwZW5jaWw=\r\n", quit}, "", true},
		{"a wrong password", &offered, nil, []string{ehlo, login, name, name, quit}, "", false},
		{"canceled", &offered, nil, []string{ehlo, login, "*\r\n", login, name, word, quit}, "", true},
		{"again after a refusal", &offered, At(AUTH, Action{Reply: "504 no"}), []string{ehlo, plain, login, quit}, "", false},
		{"not offered", nil, nil, []string{ehlo, plain}, "is not offered", false},
		{"another mechanism", &offered, nil, []string{ehlo, "AUTH CRAM-MD5\r\n"}, "is not offered", false},
		{"not offered outside of TLS", &inTLS, nil, []string{ehlo, plain}, "is not offered", true},
		{"outside of TLS", &inTLS, At(EHLO, Action{Reply: "250-x\n250 AUTH PLAIN"}), []string{ehlo, plain}, "outside of TLS", true},
		{"before EHLO", &offered, nil, []string{plain}, "is not offered", true},
		{"after HELO", &offered, nil, []string{"HELO a\r\n", plain}, "is not offered", true},
		{"after MAIL", &offered, nil, []string{ehlo, mail, plain}, "after MAIL", true},
		{"between mails", &offered, nil, []string{ehlo, mail, "RSET\r\n", plain}, "after MAIL", true},
		{"twice", &offered, nil, []string{ehlo, plain, plain}, "after a login", true},
		{"in small letters", &offered, nil, []string{ehlo, "AUTH plain AGpvZQBwZW5jaWw=\r\n"}, "malformed", false},
		{"words behind", &offered, nil, []string{ehlo, "AUTH LOGIN am9l x\r\n"}, "malformed", false},
		{"no mechanism", &offered, nil, []string{ehlo, "AUTH\r\n"}, "malformed", false},
		{"not base64", &offered, nil, []string{ehlo, "AUTH PLAIN joe\r\n"}, "no initial response in base64", false},
		{"with MAIL", &offered, nil, []string{ehlo, plain + mail}, "more before the answer", true},
		{"in a group", &offered, nil, []string{ehlo, login, name + word}, "more before the answer to a line of LOGIN", true},
		{"a parameter of MAIL", &offered, nil, []string{ehlo, plain, "MAIL FROM:<a@b> AUTH=<>\r\n"}, "not offered", true},
		{"a long command", &offered, nil, []string{ehlo, "AUTH PLAIN " + strings.Repeat("A", 500) + "\r\n"}, "command of 513 bytes", false},
		{"a long response", &offered, nil, []string{ehlo, login, strings.Repeat("A", 12288) + "\r\n"}, "a response of 12288 bytes", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			seen := talk(t, &Server{Extensions: []string{"PIPELINING"}, Auth: c.auth, Act: c.act}, c.flights...)
			err := seen.Violation()
			if (err != nil) != (c.want != "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q; %q", err, c.want, seen.Commands)
			}
			good := false
			for _, login := range seen.Logins {
				good = good || login.Accepted
			}
			if good != c.good {
				t.Errorf("logged in: %v, want %v; %q", good, c.good, seen.Commands)
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
