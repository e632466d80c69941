package smtpc_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"nightmare.mail/mxf/smtpc"
	"nightmare.mail/mxf/smtpc/smtptest"
)

// A probe ends before MAIL, or, where that is asked, before DATA, and finds what the server has
// said of itself.
func TestProbe(t *testing.T) {
	for _, test := range []struct {
		name     string
		act      func(smtptest.Point) smtptest.Action
		ask      bool
		sender   string
		want     string // the error; empty: none
		commands string
	}{
		{"nothing asked", nil, false, "s@example.net", "", "EHLO me.example,QUIT"},
		{"asked", nil, true, "s@example.net", "", "EHLO me.example,MAIL FROM:<s@example.net>,RCPT TO:<a@example.org>,RCPT TO:<b@example.org>,RSET,QUIT"},
		{"sender refused", smtptest.At(smtptest.MAIL, smtptest.Action{Reply: "550 no"}), true, "s@example.net", "MAIL was refused", "EHLO me.example,MAIL FROM:<s@example.net>,RSET,QUIT"},
		{"the end of the conversation", smtptest.At(smtptest.RCPT, smtptest.Action{Reply: "421 bye", Close: true}), true, "s@example.net", "every recipient was refused", "EHLO me.example,MAIL FROM:<s@example.net>,RCPT TO:<a@example.org>,QUIT"},
		{"an address that is not ASCII", nil, false, "j\u00f6rg@example.net", "SMTPUTF8 is not offered", "EHLO me.example,QUIT"},
		{"a greeting that is none", smtptest.At(smtptest.Greeting, smtptest.Action{Reply: "554 no"}), false, "", "greeting was refused", "QUIT"},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := &smtptest.Server{Extensions: []string{"PIPELINING", "SIZE 1000"}, Act: test.act}
			conn := smtptest.Dial(t, smtptest.Listen(t, server.Serve))
			defer conn.Close()
			s, _ := smtpc.Open(context.Background(), conn, &smtpc.Options{HeloHost: "me.example"})
			o := s.Probe(context.Background(), smtpc.NewMail(test.sender, []string{"a@example.org", "b@example.org"}, nil, false), test.ask)
			s.Quit()
			conn.Close()
			if !o.Probe || (o.Err == nil) != (test.want == "") || o.Err != nil && !strings.Contains(o.Err.Error(), test.want) {
				t.Errorf("%+v", o)
			}
			if got := strings.Join(server.Last(t).Commands, ","); got != test.commands && !strings.HasPrefix(test.commands, got+",QUIT") {
				t.Errorf("%q", got)
			}
			if test.want == "" && (s.Greeting().Code != 220 || !slices.Equal(s.Extensions(), []string{"PIPELINING", "SIZE 1000"}) || s.InTLS() || s.LoggedIn() ||
				o.Recipients[1].Status != smtpc.Accepted || o.LastByte) {
				t.Errorf("%q, %q, %+v", s.Greeting(), s.Extensions(), o)
			}
		})
	}
}

// A mail that nobody can be sent is not said to be taken.
func TestProbe_malformed(t *testing.T) {
	server := &smtptest.Server{}
	conn := smtptest.Dial(t, smtptest.Listen(t, server.Serve))
	defer conn.Close()
	s, _ := smtpc.Open(context.Background(), conn, &smtpc.Options{HeloHost: "me.example"})
	o := s.Probe(context.Background(), smtpc.NewMail("a\x01@example.net", []string{"a@example.org"}, nil, false), false)
	s.Quit()
	var bad *smtpc.SenderError
	if !errors.As(o.Err, &bad) {
		t.Errorf("%+v", o)
	}
}
