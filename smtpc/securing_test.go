package smtpc_test

import (
	"context"
	"errors"
	"net"
	"testing"

	"nightmare.mail/mxf/smtpc"
	"nightmare.mail/mxf/smtpc/smtptest"
)

// What becomes of STARTTLS is known of each conversation, however that ends.
func TestSecuring(t *testing.T) {
	close := func(phase smtptest.Phase) func(smtptest.Point) smtptest.Action {
		return smtptest.At(phase, smtptest.Action{Close: true})
	}
	inside := func(act smtptest.Action) func(smtptest.Point) smtptest.Action {
		return func(p smtptest.Point) smtptest.Action {
			if p.Phase == smtptest.EHLO && p.Secure {
				return act
			}
			return smtptest.Action{}
		}
	}
	for _, c := range []struct {
		name   string
		act    func(smtptest.Point) smtptest.Action
		change func(*job, *smtptest.Server)
		want   [2]smtpc.Securing // with IfOffered and Required
	}{
		{"secured", nil, nil, [2]smtpc.Securing{smtpc.Secured, smtpc.Secured}},
		{"lost inside TLS", close(smtptest.MAIL), nil, [2]smtpc.Securing{smtpc.Secured, smtpc.Secured}},
		{"refused inside TLS", at(smtptest.MAIL, "550 no"), nil, [2]smtpc.Securing{smtpc.Secured, smtpc.Secured}},
		{"not offered", nil, func(_ *job, s *smtptest.Server) { s.TLS = nil }, [2]smtpc.Securing{smtpc.NotOffered, smtpc.NotOffered}},
		{"not offered, lost", close(smtptest.MAIL), func(_ *job, s *smtptest.Server) { s.TLS = nil }, [2]smtpc.Securing{smtpc.NotOffered, smtpc.NotOffered}},
		{"HELO alone", at(smtptest.EHLO, "502 what"), nil, [2]smtpc.Securing{smtpc.NotOffered, smtpc.NotOffered}},
		{"EHLO is not asked for", nil, func(j *job, _ *smtptest.Server) { j.Avoid.EHLO = true }, [2]smtpc.Securing{}},
		{"refused", at(smtptest.STARTTLS, "454 not now"), nil, [2]smtpc.Securing{smtpc.NotGranted, smtpc.NotGranted}},
		{"refused and closed", at(smtptest.STARTTLS, "421 not now"), nil, [2]smtpc.Securing{smtpc.NotGranted, smtpc.NotGranted}},
		{"closed", close(smtptest.STARTTLS), nil, [2]smtpc.Securing{smtpc.NotSecured, smtpc.NotSecured}},
		{"odd answer", at(smtptest.STARTTLS, "399 more"), nil, [2]smtpc.Securing{smtpc.NotSecured, smtpc.NotSecured}},
		{"EHLO inside is lost", inside(smtptest.Action{Close: true}), nil, [2]smtpc.Securing{smtpc.NotSecured, smtpc.NotSecured}},
		{"EHLO inside is refused", inside(smtptest.Action{Reply: "451 no"}), nil, [2]smtpc.Securing{smtpc.NotSecured, smtpc.NotSecured}},
		{"failed handshake", nil, func(j *job, _ *smtptest.Server) {
			j.Secure = false
			j.StartTLS = func(context.Context) (net.Conn, error) { return nil, errors.New("no") }
		}, [2]smtpc.Securing{smtpc.NotSecured, smtpc.NotSecured}},
		{"no TLS client", nil, func(j *job, _ *smtptest.Server) { j.Secure = false }, [2]smtpc.Securing{}},
		{"lost at EHLO", close(smtptest.EHLO), nil, [2]smtpc.Securing{}},
		{"refused at EHLO", at(smtptest.EHLO, "421 no"), nil, [2]smtpc.Securing{}},
		{"refused greeting", at(smtptest.Greeting, "554 no"), nil, [2]smtpc.Securing{}},
		{"cannot be sent", nil, func(j *job, _ *smtptest.Server) { j.Sender = "a b\x00@example.org" }, [2]smtpc.Securing{}},
	} {
		for i, use := range []smtpc.STARTTLS{smtpc.IfOffered, smtpc.Required, smtpc.Never} {
			server := &smtptest.Server{TLS: serverTLS(), Act: c.act}
			j := newJob(1)
			j.TLS, j.Secure = use, true
			if c.change != nil {
				c.change(j, server)
			}
			conn := smtptest.Dial(t, smtptest.Listen(t, server.Serve))
			want := smtpc.NotAsked
			if i < len(c.want) {
				want = c.want[i]
			}
			if got := send(t.Context(), conn, j).Securing; got != want {
				t.Errorf("%s, use %d: %v, want %v", c.name, use, got, want)
			}
		}
	}
}

func TestParseSecuring(t *testing.T) {
	for s := smtpc.NotAsked; s <= smtpc.Secured; s++ {
		if got := smtpc.ParseSecuring(s.String()); got != s {
			t.Errorf("%v: %v", s, got)
		}
	}
	for _, word := range []string{"", "UP", "up ", "maybe"} {
		if got := smtpc.ParseSecuring(word); got != smtpc.NotAsked {
			t.Errorf("%q: %v", word, got)
		}
	}
}
