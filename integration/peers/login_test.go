package peers

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net/smtp"
	"net/textproto"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/tlsc/tlstest"
)

// Each server that demands a login takes the right one by each of its mechanisms, and no mail
// without.
func TestLogin(t *testing.T) {
	ca := tlstest.NewAuthority("ca")
	leaf := ca.Leaf(nil, "mx."+Domain)
	dir := t.TempDir()
	o := Options{Certificate: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")}
	must.OK(t, os.WriteFile(o.Certificate, append(leaf.PEM(), ca.PEM()...), 0o644), os.WriteFile(o.Key, leaf.KeyPEM(), 0o600))
	client := &tls.Config{InsecureSkipVerify: true}
	for _, c := range []struct {
		name       string
		start      func(testing.TB, Options) *Server
		mechanisms []string
		dovecot    bool
		refusal    int // of what comes without a login
	}{
		{"postfix and cyrus", Postfix, CyrusMechanisms, false, 554},
		{"postfix and dovecot", Postfix, DovecotMechanisms, true, 554},
		{"exim", Exim, EximMechanisms, false, 530},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := &Login{User: "joe@" + Domain, Password: `a b:c$d{e}\f"`, Mechanisms: c.mechanisms, Dovecot: c.dovecot}
			o.Login = l
			s := c.start(t, o)
			offered := func(session *smtp.Client) []string {
				_, list := session.Extension("AUTH")
				words := strings.Fields(list)
				slices.Sort(words)
				return words
			}
			dial := func() *smtp.Client {
				session := must.Get(smtp.Dial(s.Addr))(t)
				if list := offered(session); len(list) > 0 {
					t.Errorf("offered in the clear: %q", list)
				}
				must.OK(t, session.StartTLS(client))
				if list := offered(session); !slices.Equal(list, slices.Sorted(slices.Values(c.mechanisms))) {
					t.Errorf("offered: %q", list)
				}
				return session
			}
			mail := func(session *smtp.Client) error {
				if err := session.Mail("s@client.example"); err != nil {
					return err
				}
				return session.Rcpt("a@" + Domain)
			}
			session := dial()
			if err := mail(session); !refused(err, c.refusal) {
				t.Errorf("without a login: %v", err)
			}
			session.Close()
			var want []string
			for _, mechanism := range c.mechanisms {
				session := dial()
				if err := session.Auth(auth(l, mechanism, l.Password+"x")); !refused(err, 535) {
					t.Errorf("%s with a wrong password: %v", mechanism, err)
				}
				session.Close()
				session = dial()
				if err := session.Auth(auth(l, mechanism, l.Password)); err != nil {
					t.Errorf("%s: %v", mechanism, err)
				}
				must.OK(t, mail(session))
				w := must.Get(session.Data())(t)
				fmt.Fprint(w, "Subject: hello\r\n\r\nhello\r\n")
				must.OK(t, w.Close(), session.Quit())
				want = append(want, mechanism+" "+l.User)
			}
			s.Stored(t, len(want))
			if got := s.Logins(); !slices.Equal(got, want) {
				t.Errorf("logged: %q, want %q", got, want)
			}
		})
	}
}

func refused(err error, code int) bool {
	var reply *textproto.Error
	return errors.As(err, &reply) && reply.Code == code
}

// auth speaks a mechanism. That of LOGIN is not in net/smtp.
func auth(l *Login, mechanism, password string) smtp.Auth {
	user, signer := l.User, Login{User: l.User, Password: password}
	token := signer.Token(time.Now().Add(time.Hour))
	switch mechanism {
	case "PLAIN":
		return smtp.PlainAuth("", user, password, "127.0.0.1")
	case "CRAM-MD5":
		return smtp.CRAMMD5Auth(user, password)
	case "OAUTHBEARER":
		return &bearer{mechanism, "n,a=" + user + ",\x01auth=Bearer " + token + "\x01\x01"}
	case "XOAUTH2":
		return &bearer{mechanism, "user=" + user + "\x01auth=Bearer " + token + "\x01\x01"}
	}
	if mechanism == "LOGIN" {
		return &login{answers: []string{user, password}}
	}
	return &scram{user: user, password: password}
}

// scram is SCRAM-SHA-256 (RFC 5802), whose server is not checked.
type scram struct{ user, password, first string }

func (s *scram) Start(*smtp.ServerInfo) (string, []byte, error) {
	s.first = "n=" + s.user + ",r=nonce"
	return "SCRAM-SHA-256", []byte("n,," + s.first), nil
}

func (s *scram) Next(challenge []byte, more bool) ([]byte, error) {
	if !more {
		return nil, nil
	}
	parts := strings.SplitN(string(challenge), ",", 3)
	if len(parts) < 3 {
		return []byte{}, nil // the server's proof
	}
	salt, err := base64.StdEncoding.DecodeString(parts[1][2:])
	count, err2 := strconv.Atoi(parts[2][2:])
	salted, err3 := pbkdf2.Key(sha256.New, s.password, salt, count, sha256.Size)
	if err := errors.Join(err, err2, err3); err != nil {
		return nil, err
	}
	code := func(key []byte, text string) []byte {
		h := hmac.New(sha256.New, key)
		h.Write([]byte(text))
		return h.Sum(nil)
	}
	key, last := code(salted, "Client Key"), "c=biws,"+parts[0]
	stored := sha256.Sum256(key)
	subtle.XORBytes(key, key, code(stored[:], s.first+","+string(challenge)+","+last))
	return []byte(last + ",p=" + base64.StdEncoding.EncodeToString(key)), nil
}

// bearer sends a token. An error is answered by what ends the exchange.
type bearer struct{ mechanism, response string }

func (b *bearer) Start(*smtp.ServerInfo) (string, []byte, error) {
	return b.mechanism, []byte(b.response), nil
}

func (b *bearer) Next(_ []byte, more bool) ([]byte, error) {
	if !more {
		return nil, nil
	}
	return []byte{1}, nil
}

type login struct{ answers []string }

func (l *login) Start(*smtp.ServerInfo) (string, []byte, error) { return "LOGIN", nil, nil }

func (l *login) Next(_ []byte, more bool) ([]byte, error) {
	if !more {
		return nil, nil
	}
	answer := l.answers[0]
	l.answers = l.answers[1:]
	return []byte(answer), nil
}

func TestLogins(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	must.Write(t, log, "x: client=unknown[127.0.0.1], sasl_method=PLAIN, sasl_username=joe@peer.example\n"+
		"LOG: MAIN <= s@client.example H=(localhost) P=esmtpsa X=TLS1.3 A=cram_md5:joe S=9\nnothing\n")
	s := Server{log: log}
	if got := s.Logins(); !slices.Equal(got, []string{"PLAIN joe@peer.example", "CRAM-MD5 joe"}) {
		t.Errorf("%q", got)
	}
}
