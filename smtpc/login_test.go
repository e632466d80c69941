package smtpc_test

import (
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"nightmare.mail/mxf/control/secret"
	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/remote/report"
	"nightmare.mail/mxf/smtpc"
	"nightmare.mail/mxf/smtpc/sasl"
	"nightmare.mail/mxf/smtpc/smtptest"
)

const (
	place    = "control/credentials:3"
	user     = "joe@shop.example"
	password = "open sesame"
	token    = "ya29.token"

	everyMechanism = "SCRAM-SHA-256-PLUS SCRAM-SHA-256 PLAIN LOGIN CRAM-MD5 OAUTHBEARER XOAUTH2"
)

// An attempt is a delivery to a relay that knows one account, with a login.
type attempt struct {
	account sasl.Account
	needs   smtpc.Protection
	clear   bool // the server has no TLS
	old     bool // TLS 1.2 without the extended master secret: the client has no exporter
	auth    smtptest.Auth
	offers  string // mechanisms; empty: all that the server knows
	act     func(smtptest.Point) smtptest.Action
	change  func(*job)

	traced []string
	o      *smtpc.Outcome
}

// run delivers, and returns what came of it and what the server saw.
func (a *attempt) run(t *testing.T) (result, *smtptest.Conversation) {
	t.Helper()
	if a.account.User == "" {
		a.account.User = user
	}
	if a.account.Secret.IsZero() {
		a.account.Secret = secret.New(password)
		if a.account.Token {
			a.account.Secret = secret.New(token)
		}
	}
	a.account.Host, a.account.Port = "relay.example.net", 587
	auth := a.auth
	if auth.Mechanisms = strings.Fields(everyMechanism); a.offers != "" {
		auth.Mechanisms = strings.Fields(a.offers)
	}
	if auth.Users == nil {
		auth.Users, auth.Tokens = map[string]string{user: password}, map[string]string{user: token}
	}
	auth.Clear = a.clear
	server := &smtptest.Server{Extensions: []string{"PIPELINING", "SIZE"}, Auth: &auth, Act: a.act}
	if !a.clear {
		server.TLS = serverTLS()
	}
	job := newJob(1)
	job.TimeoutRemote = 0
	job.Verified, job.Secure = true, !a.clear
	job.Exporter = func() []byte {
		if a.old {
			return nil
		}
		state := job.tunnel.(*tls.Conn).ConnectionState()
		return must.Get(state.ExportKeyingMaterial("EXPORTER-Channel-Binding", []byte{}, 32))(t)
	}
	job.Login = &smtpc.Login{Place: place, Needs: a.needs, Secret: a.account.Secret,
		Mechanisms: func(offered []string, tls bool, exporter []byte) (row []smtpc.Mechanism) {
			for _, m := range sasl.Row(a.account, sasl.Channel{TLS: tls, Exporter: exporter}, offered, nil) {
				row = append(row, m)
			}
			return row
		}}
	job.Trace = func(line string) {
		a.traced = append(a.traced, line) // one line at a time
	}
	if a.change != nil {
		a.change(job)
	}
	conn := smtptest.Dial(t, smtptest.Listen(t, server.Serve))
	a.o = send(t.Context(), conn, job)
	r, seen := show(a.o, job), server.Last(t)
	if err := seen.Violation(); err != nil {
		t.Error(err)
	}
	a.hides(t, r)
	return r, seen
}

// hides fails if anything that the attempt shows has a secret in it.
func (a *attempt) hides(t *testing.T, r result) {
	t.Helper()
	word := a.account.Secret.Reveal()
	plain := "\x00" + a.account.User + "\x00" + word
	shown := append([]string{r.reports, r.reason, fmt.Sprint(a.o.Err), fmt.Sprintf("%+v", a.o)}, a.traced...)
	for _, text := range shown {
		for _, hidden := range []string{word, base64.StdEncoding.EncodeToString([]byte(word)), base64.StdEncoding.EncodeToString([]byte(plain)), a.account.User} {
			if strings.Contains(text, hidden) {
				t.Errorf("%q shows %q", text, hidden)
			}
		}
	}
}

// said are the commands of a conversation after the last EHLO, without what goes with them:
// of AUTH the mechanism stays, and a line of the exchange is "+".
func said(seen *smtptest.Conversation) string {
	var all []string
	in := false
	for _, line := range seen.Commands {
		words := strings.Fields(line)
		switch {
		case strings.HasPrefix(line, "EHLO"), strings.HasPrefix(line, "HELO"), strings.HasPrefix(line, "STARTTLS"):
			all = nil
		case len(words) > 1 && words[0] == "AUTH":
			all, in = append(all, strings.Join(words[:2], " ")), true
		case line == "*":
			all = append(all, "*")
		case in && (len(words) == 0 || !slices.Contains([]string{"MAIL", "RCPT", "DATA", "QUIT"}, words[0])):
			all = append(all, "+")
		default:
			all = append(all, words[0])
		}
	}
	return strings.Join(all, " ")
}

const sent = " MAIL RCPT DATA QUIT"

// Every mechanism, against a server that knows it.
func TestLogin_mechanisms(t *testing.T) {
	isToken := sasl.Account{Token: true}
	long := sasl.Account{Token: true, Secret: secret.New(strings.Repeat("t", 8192)), User: strings.Repeat("u", 255)}
	longWords := smtptest.Auth{Tokens: map[string]string{long.User: long.Secret.Reveal()}, Users: map[string]string{}}
	longPassword := sasl.Account{Secret: secret.New(strings.Repeat("p", 360))}
	for _, c := range []struct {
		name  string
		a     attempt
		verbs string
		turns int
	}{
		{"the first of the row", attempt{}, "AUTH SCRAM-SHA-256-PLUS + +", 3},
		{"no exporter", attempt{old: true}, "AUTH SCRAM-SHA-256 + +", 3},
		{"the server has no PLUS", attempt{offers: "SCRAM-SHA-256"}, "AUTH SCRAM-SHA-256 + +", 3},
		{"PLAIN", attempt{offers: "LOGIN PLAIN"}, "AUTH PLAIN", 1},
		{"LOGIN", attempt{offers: "CRAM-MD5 LOGIN"}, "AUTH LOGIN + +", 3},
		{"CRAM-MD5", attempt{offers: "CRAM-MD5"}, "AUTH CRAM-MD5 +", 2},
		{"in the clear", attempt{clear: true, needs: smtpc.NoProtection}, "AUTH SCRAM-SHA-256 + +", 3},
		{"in the clear, without SCRAM", attempt{clear: true, needs: smtpc.NoProtection, offers: "LOGIN PLAIN CRAM-MD5"}, "AUTH CRAM-MD5 +", 2},
		{"OAUTHBEARER", attempt{account: isToken}, "AUTH OAUTHBEARER", 1},
		{"XOAUTH2", attempt{account: isToken, offers: "PLAIN XOAUTH2"}, "AUTH XOAUTH2", 1},
		{"a long token", attempt{account: long, auth: longWords}, "AUTH OAUTHBEARER +", 2},
		{"a long token, XOAUTH2", attempt{account: long, auth: longWords, offers: "XOAUTH2"}, "AUTH XOAUTH2 +", 2},
		{"a long password", attempt{account: longPassword, offers: "PLAIN", auth: smtptest.Auth{Users: map[string]string{user: longPassword.Secret.Reveal()}}}, "AUTH PLAIN +", 2},
		{"the old form of AUTH", attempt{auth: smtptest.Auth{Old: true}, offers: "PLAIN"}, "AUTH PLAIN", 1},
		{"one mechanism only", attempt{account: sasl.Account{Only: sasl.Login}}, "AUTH LOGIN + +", 3},
		{"beyond ASCII", attempt{account: sasl.Account{Secret: secret.New("schlüssel")}, auth: smtptest.Auth{Users: map[string]string{user: "schlüssel"}}}, "AUTH PLAIN", 1},
		{"many iterations", attempt{auth: smtptest.Auth{Iterations: 20000}}, "AUTH SCRAM-SHA-256-PLUS + +", 3},
		{"demanded", attempt{auth: smtptest.Auth{Demand: true}, offers: "PLAIN"}, "AUTH PLAIN", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, seen := c.a.run(t)
			if r.exit != 0 || !strings.HasPrefix(r.reports, "r\x00K") || !seen.Accepted || said(seen) != c.verbs+sent {
				t.Fatalf("%v, server saw %s", r, said(seen))
			}
			before := 7
			if c.a.clear {
				before = 4
			}
			if seen.Turns != before+c.turns {
				t.Errorf("%d turns, want %d and %d", seen.Turns, before, c.turns)
			}
			last := seen.Logins[len(seen.Logins)-1]
			if len(seen.Logins) != 1 || !last.Accepted || last.User != c.a.account.User {
				t.Errorf("logins %+v", last)
			}
			for _, line := range seen.Commands {
				if strings.HasPrefix(line, "AUTH") && len(line) > 510 || strings.HasPrefix(line, "MAIL") && strings.Contains(line, "AUTH=") {
					t.Errorf("it said %q", line)
				}
			}
		})
	}
}

// The initial response goes with the command up to 512 bytes.
func TestLogin_initialResponse(t *testing.T) {
	const user = "u"
	// AUTH PLAIN, a blank, and CR LF leave 499 bytes; base64 of 372 has 496.
	for n, want := range map[int]bool{372: true, 373: false} {
		word := strings.Repeat("p", n-len("\x00u\x00"))
		account := sasl.Account{User: user, Secret: secret.New(word)}
		server := &smtptest.Server{Auth: &smtptest.Auth{Mechanisms: []string{"PLAIN"}, Users: map[string]string{user: word}, Clear: true}}
		o := &smtpc.Options{HeloHost: "h", TLS: smtpc.Never, Login: &smtpc.Login{Place: place, Needs: smtpc.NoProtection, Secret: account.Secret,
			Mechanisms: func(offered []string, _ bool, _ []byte) (row []smtpc.Mechanism) {
				return []smtpc.Mechanism{sasl.Row(account, sasl.Channel{}, offered, nil)[0]}
			}}}
		s, err := smtpc.Open(t.Context(), smtptest.Dial(t, smtptest.Listen(t, server.Serve)), o)
		must.OK(t, err)
		s.Quit()
		if got := server.Last(t).Logins; len(got) != 1 || got[0].Initial != want || !got[0].Accepted {
			t.Errorf("%d bytes: %+v", n, got[0])
		}
	}
}

// Each answer to AUTH, and to the lines after it, and what it leads to.
func TestLogin_answers(t *testing.T) {
	const (
		final = "final"     // reported, and no other address is tried
		next  = "next"      // another address may be tried
		good  = "delivered" // after all
	)
	auth := func(n int, text string) func(smtptest.Point) smtptest.Action {
		return doing(smtptest.Point{Phase: smtptest.AUTH, N: n, Secure: true}, smtptest.Action{Reply: text})
	}
	response := func(n int, text string) func(smtptest.Point) smtptest.Action {
		return doing(smtptest.Point{Phase: smtptest.Response, N: n, Secure: true}, smtptest.Action{Reply: text})
	}
	hangUp := func(phase smtptest.Phase, n int) func(smtptest.Point) smtptest.Action {
		return doing(smtptest.Point{Phase: phase, N: n, Secure: true}, smtptest.Action{Close: true})
	}
	wrong := map[string]string{user: "another"}
	isToken, wrongToken := sasl.Account{Token: true}, smtptest.Auth{Users: wrong, Tokens: wrong}
	scramOnly := sasl.Account{Only: sasl.SCRAM}
	without := func(step int, from, to string) smtptest.Auth {
		return smtptest.Auth{Alter: func(mechanism string, at int, challenge string) string {
			if at == step && strings.HasPrefix(mechanism, "SCRAM") {
				return strings.Replace(challenge, from, to, 1)
			}
			return challenge
		}}
	}
	for _, c := range []struct {
		name  string
		a     attempt
		end   string
		says  string // in the report, or in the reason
		verbs string
	}{
		// Refusals that are final.
		{"535", attempt{offers: "PLAIN", auth: smtptest.Auth{Users: wrong}}, final, "(PLAIN). (#4.7.8)\nRemote host said: 535 5.7.8 authentication failed" + tlsLine, "AUTH PLAIN QUIT"},
		{"432", attempt{offers: "PLAIN LOGIN", act: auth(0, "432 4.7.12 change it")}, final, "said: 432 4.7.12 change it\n", "AUTH PLAIN QUIT"},
		{"454", attempt{offers: "PLAIN LOGIN", act: auth(0, "454 4.7.0 broken")}, final, "said: 454 4.7.0 broken\n", "AUTH PLAIN QUIT"},
		{"534", attempt{offers: "PLAIN", act: auth(0, "534 5.7.9 too weak")}, final, "said: 534", "AUTH PLAIN QUIT"},
		{"538", attempt{offers: "PLAIN", act: auth(0, "538 5.7.11 no")}, final, "said: 538", "AUTH PLAIN QUIT"},
		{"550", attempt{offers: "PLAIN LOGIN", act: auth(0, "550-no\n550 never")}, final, "said: 550-no\n550 never\n", "AUTH PLAIN QUIT"},
		{"LOGIN", attempt{offers: "LOGIN", auth: smtptest.Auth{Users: wrong}}, final, "(LOGIN). (#4.7.8)\nRemote host said: 535", "AUTH LOGIN + + QUIT"},
		{"LOGIN, at the user", attempt{offers: "LOGIN", act: response(0, "535 no such user")}, final, "(LOGIN). (#4.7.8)\nRemote host said: 535 no such user", "AUTH LOGIN + QUIT"},
		{"500 later in the exchange", attempt{offers: "LOGIN CRAM-MD5", act: response(0, "501 bad")}, final, "said: 501 bad", "AUTH LOGIN + QUIT"},
		{"OAUTHBEARER", attempt{account: isToken, auth: wrongToken}, final, "(OAUTHBEARER). (#4.7.8)\nRemote host said: 535", "AUTH OAUTHBEARER + QUIT"},
		{"XOAUTH2", attempt{account: isToken, auth: wrongToken, offers: "XOAUTH2"}, final, "(XOAUTH2). (#4.7.8)\nRemote host said: 535", "AUTH XOAUTH2 + QUIT"},
		{"a second error of OAUTHBEARER", attempt{account: isToken, auth: wrongToken, act: response(0, "334 e30=")}, final, "(OAUTHBEARER). (#4.7.8)\nthe server sent a challenge out of turn" + tlsLine, "AUTH OAUTHBEARER + * QUIT"},

		// The next in the row.
		{"504 to one", attempt{act: auth(0, "504 5.5.4 no")}, good, "", "AUTH SCRAM-SHA-256-PLUS AUTH SCRAM-SHA-256 + +" + sent},
		{"500 to PLAIN", attempt{offers: "PLAIN LOGIN", act: auth(0, "500 what")}, good, "", "AUTH PLAIN AUTH LOGIN + +" + sent},
		{"503 to all", attempt{offers: "PLAIN LOGIN", act: func(p smtptest.Point) smtptest.Action {
			if p.Phase == smtptest.AUTH {
				return smtptest.Action{Reply: fmt.Sprintf("503 no %d", p.N)}
			}
			return smtptest.Action{}
		}}, final, "(LOGIN). (#4.7.8)\nRemote host said: 503 no 1\n", "AUTH PLAIN AUTH LOGIN QUIT"},
		{"501 to the only one", attempt{offers: "PLAIN", act: auth(0, "501 no")}, final, "said: 501 no", "AUTH PLAIN QUIT"},
		{"504, then 535", attempt{offers: "PLAIN LOGIN CRAM-MD5", auth: smtptest.Auth{Users: wrong}, act: auth(0, "504 no")}, final, "(LOGIN)", "AUTH PLAIN AUTH LOGIN + + QUIT"},

		// The password itself, once.
		{"535 to SCRAM", attempt{act: response(0, "535 no form of it")}, good, "", "AUTH SCRAM-SHA-256-PLUS + AUTH PLAIN" + sent},
		{"454 to the command", attempt{act: auth(0, "454 not now")}, good, "", "AUTH SCRAM-SHA-256-PLUS AUTH PLAIN" + sent},
		{"535 to SCRAM, LOGIN", attempt{offers: "SCRAM-SHA-256 LOGIN CRAM-MD5", act: response(0, "535 no")}, good, "", "AUTH SCRAM-SHA-256 + AUTH LOGIN + +" + sent},
		{"501 in SCRAM", attempt{act: response(0, "501 no")}, good, "", "AUTH SCRAM-SHA-256-PLUS + AUTH PLAIN" + sent},
		{"535 to both", attempt{auth: smtptest.Auth{Users: wrong}}, final, "(PLAIN). (#4.7.8)\nRemote host said: 535", "AUTH SCRAM-SHA-256-PLUS + AUTH PLAIN QUIT"},
		{"535 to SCRAM, 504 to PLAIN", attempt{act: replies(map[smtptest.Phase][]string{smtptest.AUTH: {"", "504 no"}, smtptest.Response: {"535 no"}})}, good, "",
			"AUTH SCRAM-SHA-256-PLUS + AUTH PLAIN AUTH LOGIN + +" + sent},
		{"535 to SCRAM, CRAM-MD5 is left", attempt{offers: "SCRAM-SHA-256 CRAM-MD5", act: response(0, "535 no")}, final, "(SCRAM-SHA-256)", "AUTH SCRAM-SHA-256 + QUIT"},
		{"535 to SCRAM, nothing is left", attempt{offers: "SCRAM-SHA-256-PLUS SCRAM-SHA-256", act: response(0, "535 no")}, final, "(SCRAM-SHA-256-PLUS)", "AUTH SCRAM-SHA-256-PLUS + QUIT"},
		{"535 to SCRAM, and no other is wanted", attempt{account: scramOnly, act: response(0, "535 no")}, final, "(SCRAM-SHA-256-PLUS)", "AUTH SCRAM-SHA-256-PLUS + QUIT"},
		{"535 to CRAM-MD5", attempt{offers: "CRAM-MD5 PLAIN", clear: true, needs: smtpc.NoProtection,
			act: doing(smtptest.Point{Phase: smtptest.Response}, smtptest.Action{Reply: "535 no"})}, good, "", "AUTH CRAM-MD5 + AUTH PLAIN" + sent},
		{"535 to the proof", attempt{act: response(1, "535 disabled")}, good, "", "AUTH SCRAM-SHA-256-PLUS + + AUTH PLAIN" + sent},

		// Servers that are not to be trusted.
		{"no proof", attempt{auth: smtptest.Auth{NoProof: true}}, final, "(SCRAM-SHA-256-PLUS). (#4.7.8)\nthe server has not proved that it knows the password" + tlsLine, "AUTH SCRAM-SHA-256-PLUS + QUIT"},
		{"235 at once", attempt{act: auth(0, "235 welcome")}, final, "has not proved", "AUTH SCRAM-SHA-256-PLUS QUIT"},
		{"a wrong proof", attempt{auth: without(1, "v=", "v=AAAA")}, final, "has not proved", "AUTH SCRAM-SHA-256-PLUS + * QUIT"},
		{"no signature", attempt{auth: without(1, "v=", "x=")}, final, "has not proved", "AUTH SCRAM-SHA-256-PLUS + * QUIT"},
		{"e=", attempt{act: response(0, "334 "+base64.StdEncoding.EncodeToString([]byte("e=invalid-proof")))}, final, "it is the error invalid-proof", "AUTH SCRAM-SHA-256-PLUS + * QUIT"},
		{"e= at once", attempt{auth: without(0, "r=", "e=")}, final, "it is an error", "AUTH SCRAM-SHA-256-PLUS * QUIT"},
		{"few iterations", attempt{auth: without(0, "i=4096", "i=4095")}, final, "it does not ask for 4096 to 1000000 iterations", "AUTH SCRAM-SHA-256-PLUS * QUIT"},
		{"many iterations", attempt{auth: without(0, "i=4096", "i=1000001")}, final, "iterations", "AUTH SCRAM-SHA-256-PLUS * QUIT"},
		{"no salt", attempt{auth: without(0, "c2FsdCBvZiB0aGUgc2VydmVy", "")}, final, "salt", "AUTH SCRAM-SHA-256-PLUS * QUIT"},
		{"a nonce of its own", attempt{auth: without(0, "r=", "r=x")}, final, "nonce", "AUTH SCRAM-SHA-256-PLUS * QUIT"},
		{"an extension", attempt{auth: without(0, "r=", "m=x,r=")}, final, "demands an extension", "AUTH SCRAM-SHA-256-PLUS * QUIT"},

		// Challenges.
		{"not base64", attempt{act: auth(0, "334 what?")}, final, "it is not base64", "AUTH SCRAM-SHA-256-PLUS * QUIT"},
		{"not base64, CRAM-MD5", attempt{offers: "CRAM-MD5", act: auth(0, "334 what?")}, final, "(CRAM-MD5). (#4.7.8)\nthe server sent a bad challenge: it is not base64\n", "AUTH CRAM-MD5 * QUIT"},
		{"not base64, LOGIN", attempt{offers: "LOGIN", act: func(p smtptest.Point) smtptest.Action {
			if p.Phase == smtptest.AUTH || p.Phase == smtptest.Response && p.N == 0 {
				return smtptest.Action{Reply: "334 Who are you?"}
			}
			return smtptest.Action{}
		}}, good, "", "AUTH LOGIN + +" + sent},
		{"without a text, LOGIN", attempt{offers: "LOGIN", act: auth(0, "334")}, good, "", "AUTH LOGIN + +" + sent},
		{"several lines", attempt{offers: "LOGIN", act: auth(0, "334-VXNl\n334 cm5hbWU6")}, final, "the server sent a challenge of several lines", "AUTH LOGIN * QUIT"},
		{"out of turn, PLAIN", attempt{offers: "PLAIN", act: auth(0, "334 ")}, final, "the server sent a challenge out of turn", "AUTH PLAIN * QUIT"},
		{"out of turn, LOGIN", attempt{offers: "LOGIN", act: response(1, "334 ")}, final, "out of turn", "AUTH LOGIN + + * QUIT"},
		{"out of turn, SCRAM", attempt{act: response(1, "334 ")}, final, "out of turn", "AUTH SCRAM-SHA-256-PLUS + + * QUIT"},
		{"out of turn, CRAM-MD5", attempt{offers: "CRAM-MD5", act: response(0, "334 ")}, final, "out of turn", "AUTH CRAM-MD5 + * QUIT"},
		{"cancelation is refused", attempt{offers: "PLAIN", act: replies(map[smtptest.Phase][]string{smtptest.AUTH: {"334 "}, smtptest.Response: {"421 bye"}})}, final, "out of turn", "AUTH PLAIN * QUIT"},
		{"hung up on at the cancelation", attempt{offers: "PLAIN", act: func(p smtptest.Point) smtptest.Action {
			switch p.Phase {
			case smtptest.AUTH:
				return smtptest.Action{Reply: "334 "}
			case smtptest.Response:
				return smtptest.Action{Close: true}
			}
			return smtptest.Action{}
		}}, final, "out of turn", "AUTH PLAIN *"},

		// No judgement.
		{"421", attempt{offers: "PLAIN LOGIN", act: auth(0, "421 4.3.2 busy")}, next, "the login of " + place + " was refused (PLAIN). (#4.7.8)\nRemote host said: 421 4.3.2 busy", "AUTH PLAIN QUIT"},
		{"421 to SCRAM", attempt{act: response(0, "421 busy")}, next, "421 busy", "AUTH SCRAM-SHA-256-PLUS + QUIT"},
		{"hangs up", attempt{act: hangUp(smtptest.AUTH, 0)}, next, "connection died", "AUTH SCRAM-SHA-256-PLUS"},
		{"hangs up later", attempt{act: hangUp(smtptest.Response, 1)}, next, "connection died", "AUTH SCRAM-SHA-256-PLUS + +"},
		{"no mechanism in common", attempt{offers: "GSSAPI NTLM"}, next, "Connected to 192.0.2.1 but it offers no login that " + place + " can use (GSSAPI NTLM). (#4.7.8)", "QUIT"},
		{"only what is not wanted", attempt{account: scramOnly, offers: "PLAIN LOGIN"}, next, "(PLAIN LOGIN)", "QUIT"},
		{"many mechanisms", attempt{offers: strings.Repeat("MECHANISM-", 19) + " X Y"}, next, strings.Repeat("MECHANISM-", 19) + " X Y). (#4.7.8)", "QUIT"},
		{"too many mechanisms", attempt{offers: strings.Repeat("MECHANISM-", 21)}, next, strings.Repeat("MECHANISM-", 20) + "...). (#4.7.8)", "QUIT"},
		{"no AUTH", attempt{act: doing(smtptest.Point{Phase: smtptest.EHLO, Secure: true}, smtptest.Action{Reply: "250-x\n250 SIZE"})}, next, "can use (none). (#4.7.8)", "QUIT"},
		{"HELO only", attempt{act: doing(smtptest.Point{Phase: smtptest.EHLO, Secure: true}, smtptest.Action{Reply: "502 no"})}, next, "can use (none). (#4.7.8)", "QUIT"},
		{"EHLO is avoided", attempt{clear: true, needs: smtpc.NoProtection, change: func(j *job) { j.Avoid.EHLO = true }}, next, "can use (none). (#4.7.8)", "QUIT"},
		{"something else", attempt{offers: "PLAIN", act: auth(0, "250 ok")}, next, `it answered "250 ok" to AUTH`, "AUTH PLAIN"},
		{"no reply", attempt{offers: "PLAIN", act: auth(0, "hello")}, next, `it sent "hello", which is not a reply`, "AUTH PLAIN"},
		{"a huge challenge", attempt{act: auth(0, "334 "+strings.Repeat("A", 9000))}, next, "it sent a line of more than 8192 bytes", "AUTH SCRAM-SHA-256-PLUS"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r, seen := c.a.run(t)
			end := good
			switch {
			case r.exit == 75:
				end = next
			case strings.HasPrefix(r.reports, "ZConnected to 192.0.2.1 but the login of "+place+" was refused ("):
				end = final
			}
			if text := r.reports + r.reason; end != c.end || r.exit != 0 && r.exit != 75 || !strings.Contains(text, c.says) || said(seen) != c.verbs {
				t.Errorf("%s: %v, server saw %s", end, r, said(seen))
			}
			if seen.Accepted != (c.end == good) || c.end != good && strings.Contains(said(seen), "MAIL") {
				t.Errorf("accepted: %v; server saw %q", seen.Accepted, seen.Commands)
			}
			if err := (*smtpc.LoginError)(nil); errors.As(c.a.o.Err, &err) && err.Final() != (c.end == final) {
				t.Errorf("final: %v", err.Final())
			}
		})
	}
}

// Nothing is said of a login without the TLS that it needs.
func TestLogin_needs(t *testing.T) {
	notVerified := func(j *job) { j.Verified = false }
	refuses := doing(smtptest.Point{Phase: smtptest.STARTTLS}, smtptest.Action{Reply: "454 no"})
	for _, c := range []struct {
		name   string
		a      attempt
		reason string // empty: it logs in
	}{
		{"verified", attempt{}, ""},
		{"any, not verified", attempt{needs: smtpc.AnyTLS, change: notVerified}, ""},
		{"none, not verified", attempt{needs: smtpc.NoProtection, change: notVerified}, ""},
		{"none, in the clear", attempt{needs: smtpc.NoProtection, clear: true}, ""},
		{"not verified", attempt{change: notVerified}, "a login needs a certificate that is verified"},
		{"not offered", attempt{clear: true}, "STARTTLS is not offered"},
		{"not offered, any", attempt{clear: true, needs: smtpc.AnyTLS}, "STARTTLS is not offered"},
		{"never used", attempt{needs: smtpc.AnyTLS, change: func(j *job) { j.TLS = smtpc.Never }}, "STARTTLS is not offered"},
		{"failed before", attempt{clear: true, needs: smtpc.AnyTLS, change: func(j *job) { j.TLS, j.TLSFailed = smtpc.Never, true }}, "a login needs it, and it has failed"},
		{"refused", attempt{needs: smtpc.AnyTLS, act: refuses}, "a login needs it, and it has failed"},
	} {
		r, seen := c.a.run(t)
		if c.reason == "" {
			if r.exit != 0 || !seen.Accepted || len(seen.Logins) != 1 {
				t.Errorf("%s: %v", c.name, r)
			}
			continue
		}
		if r.exit != 76 || !strings.Contains(r.reason, "TLS could not be had: "+c.reason+". (#4.7.5)") || len(seen.Logins) != 0 || !seen.Ended || seen.Accepted {
			t.Errorf("%s: %v, server saw %q", c.name, r, seen.Commands)
		}
	}
}

// A server that hangs up on AUTH after it refused STARTTLS has answered nothing since.
func TestLogin_lostAfterSTARTTLS(t *testing.T) {
	act := func(p smtptest.Point) smtptest.Action {
		switch p.Phase {
		case smtptest.STARTTLS:
			return smtptest.Action{Reply: "454 no"}
		case smtptest.EHLO:
			return smtptest.Action{Reply: "250-x\n250-STARTTLS\n250 AUTH PLAIN"}
		case smtptest.AUTH:
			return smtptest.Action{Close: true}
		}
		return smtptest.Action{}
	}
	server := &smtptest.Server{TLS: serverTLS(), Auth: &smtptest.Auth{Mechanisms: []string{"PLAIN"}, Clear: true}, Act: act}
	job := newJob(1)
	job.Secure = true
	job.Login = &smtpc.Login{Place: place, Needs: smtpc.NoProtection, Secret: secret.New(password), Mechanisms: func(offered []string, _ bool, _ []byte) []smtpc.Mechanism {
		return []smtpc.Mechanism{sasl.Row(sasl.Account{User: user, Secret: secret.New(password)}, sasl.Channel{}, offered, nil)[0]}
	}}
	r, _ := talk(t, server, job)
	if r.exit != 76 || !strings.Contains(r.reason, "server refused STARTTLS and ended the connection") {
		t.Error(r)
	}
}

func TestLogin_trace(t *testing.T) {
	a := attempt{offers: "SCRAM-SHA-256 PLAIN", auth: smtptest.Auth{Users: map[string]string{user: "another"}}}
	a.run(t)
	i := slices.Index(a.traced, "login "+place+" SCRAM-SHA-256")
	want := []string{
		"login " + place + " SCRAM-SHA-256",
		"> AUTH SCRAM-SHA-256 (secret)",
		"< 334 (challenge)",
		"> (secret)",
		"< 535 5.7.8 authentication failed",
		"login " + place + " PLAIN",
		"> AUTH PLAIN (secret)",
		"< 535 5.7.8 authentication failed",
		"> QUIT",
	}
	if i < 0 || !slices.Equal(a.traced[i:], want) {
		t.Errorf("traced %q", a.traced)
	}

	a = attempt{offers: "LOGIN", act: doing(smtptest.Point{Phase: smtptest.Response, N: 1, Secure: true}, smtptest.Action{Reply: "334-eA==\n334 eA=="})}
	a.run(t)
	i = slices.Index(a.traced, "login "+place+" LOGIN")
	want = []string{"login " + place + " LOGIN", "> AUTH LOGIN", "< 334 (challenge)", "> (secret)", "< 334 (challenge)", "> (secret)",
		"< 334-(challenge)", "< 334 (challenge)", "> *", "< 501 canceled", "> QUIT"}
	if i < 0 || !slices.Equal(a.traced[i:], want) {
		t.Errorf("traced %q", a.traced)
	}
}

// Whatever a server repeats of what it heard is concealed, wherever it stands: hides looks for
// it in each case.
func TestLogin_conceals(t *testing.T) {
	line := base64.StdEncoding.EncodeToString([]byte("\x00" + user + "\x00" + password))
	echo := "no-" + password + "\n%[1]s and " + line + "\n%[1]s '" + password + "'"
	for _, c := range []struct {
		name  string
		phase smtptest.Phase
		n     int
		code  string
		want  string
	}{
		{"the login", smtptest.AUTH, 0, "535", "Remote host said: 535-no-(secret)\n535-and (secret)\n535 '(secret)'"},
		{"MAIL", smtptest.MAIL, 0, "550", "Remote host said: 550-no-(secret)\n550-and (secret)\n550 '(secret)'"},
		{"RCPT", smtptest.RCPT, 0, "450", "Remote host said: 450-no-(secret)\n450-and (secret)\n450 '(secret)'"},
		{"the message", smtptest.Message, 0, "250", "Remote host said: 250-no-(secret)\n250-and (secret)\n250 '(secret)'"},
		{"the reply is none", smtptest.Message, 0, "hello", "(secret)"},
		{"another reply", smtptest.DATA, 0, "299", "(secret)"},
	} {
		text := smtptest.Reply(c.code, strings.Split(strings.ReplaceAll(echo, "%[1]s ", ""), "\n")...)
		a := attempt{offers: "PLAIN", act: doing(smtptest.Point{Phase: c.phase, N: c.n, Secure: true}, smtptest.Action{Reply: text})}
		r, _ := a.run(t)
		if !strings.Contains(r.reports+r.reason, c.want) {
			t.Errorf("%s: %v", c.name, r)
		}
	}
	// From the greeting on, before anything was said.
	a := attempt{offers: "PLAIN", act: at(smtptest.Greeting, "554 go away, "+password)}
	if r, _ := a.run(t); !strings.Contains(r.reason, "554 go away, (secret)") || !slices.Contains(a.traced, "< 554 go away, (secret)") {
		t.Errorf("%v, traced %q", r, a.traced)
	}
	// Out of turn.
	a = attempt{offers: "PLAIN", act: at(smtptest.RCPT, "250 ok\n250 "+password+"\n250 "+password)}
	a.run(t)
	// What a server offers is read all the same.
	a = attempt{account: sasl.Account{Secret: secret.New("PIPELINING")}, auth: smtptest.Auth{Users: map[string]string{user: "PIPELINING"}}, offers: "PLAIN"}
	if r, seen := a.run(t); !seen.Accepted || seen.Turns != 7+1 {
		t.Error(r)
	}
}

// 530 from a relay is ours to mend; from anybody else it is what it says.
func TestRelay_530(t *testing.T) {
	for _, c := range []struct {
		phase smtptest.Phase
		code  string
		relay bool
		want  string
	}{
		{smtptest.MAIL, "530", true, "ZConnected to 192.0.2.1 but sender was rejected.\nRemote host said: 530 log in\n\x00"},
		{smtptest.MAIL, "530", false, "DConnected to 192.0.2.1 but sender was rejected.\nRemote host said: 530 log in\n\x00"},
		{smtptest.MAIL, "550", true, "DConnected to 192.0.2.1 but sender was rejected.\nRemote host said: 550 log in\n\x00"},
		{smtptest.RCPT, "530", true, "s192.0.2.1 does not like recipient.\nRemote host said: 530 log in\n\x00ZGiving up on 192.0.2.1.\n\x00"},
		{smtptest.RCPT, "530", false, "h192.0.2.1 does not like recipient.\nRemote host said: 530 log in\n\x00DGiving up on 192.0.2.1.\n\x00"},
		{smtptest.DATA, "530", true, "r\x00Z192.0.2.1 failed on DATA command.\nRemote host said: 530 log in\n\x00"},
		{smtptest.DATA, "530", false, "r\x00D192.0.2.1 failed on DATA command.\nRemote host said: 530 log in\n\x00"},
		{smtptest.Message, "530", true, "r\x00D192.0.2.1 failed after I sent the message.\nRemote host said: 530 log in\n\x00"},
	} {
		for _, extensions := range [][]string{nil, {"PIPELINING", "SIZE"}} {
			job := newJob(1)
			job.Relay = c.relay
			r, _ := talk(t, &smtptest.Server{Extensions: extensions, Act: at(c.phase, c.code+" log in")}, job)
			if r.exit != 0 || r.reports != c.want {
				t.Errorf("%s %s, relay %v, %v: %v", c.code, c.phase, c.relay, extensions, r)
			}
		}
	}
}

// Several mails need one login, and a refused one is the answer to each.
func TestLogin_severalMails(t *testing.T) {
	for _, word := range []string{password, "wrong password"} {
		server := &smtptest.Server{Auth: &smtptest.Auth{Mechanisms: []string{"PLAIN"}, Users: map[string]string{user: password}, Clear: true, Demand: true}}
		o := &smtpc.Options{HeloHost: "h.example", Login: &smtpc.Login{Place: place, Needs: smtpc.NoProtection, Secret: secret.New(word),
			Mechanisms: func(offered []string, _ bool, _ []byte) []smtpc.Mechanism {
				return []smtpc.Mechanism{sasl.Row(sasl.Account{User: user, Secret: secret.New(word)}, sasl.Channel{}, offered, nil)[0]}
			}}}
		s, err := smtpc.Open(t.Context(), smtptest.Dial(t, smtptest.Listen(t, server.Serve)), o)
		refused := (*smtpc.LoginError)(nil)
		if good := word == password; errors.As(err, &refused) == good || s.Usable() != good {
			t.Fatalf("%q: %v", word, err)
		}
		for range 3 {
			outcome := s.Send(t.Context(), smtpc.NewMail("a@b.example", []string{"c@d.example"}, strings.NewReader("x\n"), false))
			if (outcome.Err == nil) != (word == password) || outcome.Err != err {
				t.Errorf("%q: %v", word, outcome.Err)
			}
		}
		s.Quit()
		seen := server.Last(t)
		if want := map[bool]int{true: 3, false: 0}[word == password]; seen.Mails != want || len(seen.Logins) != 1 || seen.Violation() != nil {
			t.Errorf("%q: %d mails, %d logins, %v", word, seen.Mails, len(seen.Logins), seen.Violation())
		}
	}
}

// scripted is a mechanism that says what it is told.
type scripted struct {
	initial   []byte
	responses [][]byte
	heard     []string
	failure   error
}

func (m *scripted) Name() string           { return "X-TEST" }
func (m *scripted) Derived() bool          { return false }
func (m *scripted) Start() ([]byte, error) { return m.initial, m.failure }
func (m *scripted) Finish() error          { return nil }
func (m *scripted) Next(challenge []byte) ([]byte, error) {
	m.heard = append(m.heard, fmt.Sprintf("%q %v", challenge, challenge == nil))
	if len(m.responses) == 0 {
		return nil, errors.New("nothing is left")
	}
	response := m.responses[0]
	m.responses = m.responses[1:]
	return response, nil
}

// What goes over the wire, byte for byte.
func TestLogin_lines(t *testing.T) {
	for _, c := range []struct {
		name      string
		mechanism scripted
		answers   []string // of the server, to each line
		lines     []string
		heard     []string
		reason    string
	}{
		{"an empty initial response", scripted{initial: []byte{}}, []string{"235 ok"}, []string{"AUTH X-TEST ="}, nil, ""},
		{"none", scripted{responses: [][]byte{{0xff, 0xfe}, {}}}, []string{"334 AP8=", "334 ", "235 ok"}, []string{"AUTH X-TEST", "//4=", ""},
			[]string{`"\x00\xff" false`, `"" false`}, ""},
		{"without breaks", scripted{responses: [][]byte{make([]byte, 300)}}, []string{"334", "235 ok"}, []string{"AUTH X-TEST", strings.Repeat("A", 400)}, []string{`"" false`}, ""},
		{"not base64", scripted{responses: [][]byte{{}, {}, {}}}, []string{"334 ====", "334  eA==", "334 eA", "235 ok"}, []string{"AUTH X-TEST", "", "", ""}, []string{`"" true`, `"" true`, `"" true`}, ""},
		{"as long as can be", scripted{responses: [][]byte{make([]byte, 9213)}}, []string{"334 ", "235 ok"}, []string{"AUTH X-TEST", strings.Repeat("A", 12284)}, []string{`"" false`}, ""},
		{"longer", scripted{responses: [][]byte{make([]byte, 9216)}}, []string{"334 ", "501 ok"}, []string{"AUTH X-TEST", "*"}, []string{`"" false`}, "longer than a server has to take"},
		{"no beginning", scripted{failure: errors.New("no chance")}, nil, nil, nil, "no chance"},
	} {
		lines := []string{}
		address := smtptest.Listen(t, func(conn *smtptest.Conn) {
			_ = conn.Say("220 x\n")
			_, _ = conn.Line()
			_ = conn.Say("250-x\n250 AUTH X-TEST\n")
			for _, answer := range c.answers {
				line, err := conn.Line()
				if err != nil {
					return
				}
				lines = append(lines, line)
				_ = conn.Say(answer + "\n")
			}
			conn.Hold()
		})
		m := c.mechanism
		conn := smtptest.Dial(t, address)
		_, err := smtpc.Open(t.Context(), conn, &smtpc.Options{HeloHost: "h.example", Login: &smtpc.Login{Place: place, Needs: smtpc.NoProtection,
			Mechanisms: func([]string, bool, []byte) []smtpc.Mechanism { return []smtpc.Mechanism{&m} }}})
		if (err == nil) != (c.reason == "") || err != nil && !strings.Contains(err.Error(), c.reason) {
			t.Errorf("%s: %v", c.name, err)
		}
		conn.Close()
		if !slices.Equal(lines, c.lines) || !slices.Equal(m.heard, c.heard) {
			t.Errorf("%s: said %.100q, heard %q", c.name, lines, m.heard)
		}
	}
}

func TestLogin_isWhole(t *testing.T) {
	_, err := smtpc.Open(t.Context(), nil, &smtpc.Options{HeloHost: "h.example", Login: &smtpc.Login{Place: place}})
	if err == nil || !strings.Contains(err.Error(), "without mechanisms") {
		t.Error(err)
	}
	text := fmt.Sprintf("%v %+v %#v", smtpc.Login{Secret: secret.New(password)}, &smtpc.Login{Secret: secret.New(password)}, smtpc.Login{Secret: secret.New(password)})
	if strings.Contains(text, password) {
		t.Errorf("it prints as %s", text)
	}
	if _, err := report.SMTP(&smtpc.Outcome{Err: &smtpc.NoLoginError{Place: place}}, report.Peer{IP: peerIP}); err == nil || !strings.Contains(err.Error(), "(none)") {
		t.Error(err)
	}
}
