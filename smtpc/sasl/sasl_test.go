package sasl

import (
	"bytes"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/iotest"

	"nightmare.mail/mxf/control/secret"
)

const everything = "scram-sha-256-plus SCRAM-SHA-256 PLAIN Login CRAM-MD5 OAUTHBEARER XOAUTH2 DIGEST-MD5 GSSAPI"

// names are those of the mechanisms in row.
func names(row []Mechanism) string {
	all := make([]string, len(row))
	for i, m := range row {
		all[i] = m.Name()
	}
	return strings.Join(all, " ")
}

func TestRow(t *testing.T) {
	tls, bound := Channel{TLS: true}, Channel{TLS: true, Exporter: make([]byte, 32)}
	password := Account{User: "joe", Secret: secret.New("pencil")}
	with := func(change func(*Account)) Account { a := password; change(&a); return a }
	only := func(o Only) Account { return with(func(a *Account) { a.Only = o }) }
	token := func(o Only) Account { return with(func(a *Account) { a.Token, a.Only = true, o }) }
	user := func(u string) Account { return with(func(a *Account) { a.User = u }) }
	word := func(w string) Account { return with(func(a *Account) { a.Secret = secret.New(w) }) }
	for _, c := range []struct {
		name    string
		account Account
		channel Channel
		offered string
		want    string
	}{
		{"bound", password, bound, everything, "SCRAM-SHA-256-PLUS SCRAM-SHA-256 PLAIN LOGIN CRAM-MD5"},
		{"TLS without an exporter", password, tls, everything, "SCRAM-SHA-256 PLAIN LOGIN CRAM-MD5"},
		{"in the clear", password, Channel{}, everything, "SCRAM-SHA-256 CRAM-MD5 PLAIN LOGIN"},
		{"what is offered", password, bound, "LOGIN plain", "PLAIN LOGIN"},
		{"none", password, bound, "", ""},
		{"none that is known", password, bound, "GSSAPI NTLM XOAUTH2 SCRAM-SHA-1", ""},
		{"PLUS alone", password, bound, "SCRAM-SHA-256-PLUS", "SCRAM-SHA-256-PLUS"},
		{"only scram", only(SCRAM), bound, everything, "SCRAM-SHA-256-PLUS SCRAM-SHA-256"},
		{"only plain", only(Plain), bound, everything, "PLAIN"},
		{"only login", only(Login), Channel{}, everything, "LOGIN"},
		{"only cram-md5", only(CRAMMD5), bound, everything, "CRAM-MD5"},
		{"only what does not fit", only(XOAuth2), bound, everything, ""},
		{"a token", token(Any), bound, everything, "OAUTHBEARER XOAUTH2"},
		{"a token in the clear", token(Any), Channel{}, everything, "OAUTHBEARER XOAUTH2"},
		{"only xoauth2", token(XOAuth2), tls, everything, "XOAUTH2"},
		{"only oauthbearer", token(OAuthBearer), tls, everything, "OAUTHBEARER"},
		{"a user beyond ASCII", user("jürgen"), bound, everything, "PLAIN LOGIN CRAM-MD5"},
		{"a password beyond ASCII", word("schlüssel"), bound, everything, "PLAIN LOGIN CRAM-MD5"},
		{"a password that is no text", word("a\xff"), Channel{}, everything, "CRAM-MD5 PLAIN LOGIN"},
		{"a tab in the password", word("a\tb"), tls, everything, "PLAIN LOGIN CRAM-MD5"},
		{"only scram, beyond ASCII", with(func(a *Account) { a.Only, a.User = SCRAM, "ü" }), bound, everything, ""},
	} {
		if got := names(Row(c.account, c.channel, strings.Fields(c.offered), nil)); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// the returns the mechanism of that name, with a nonce that is known.
func the(t testing.TB, name string, a Account, c Channel, nonce []byte) Mechanism {
	t.Helper()
	row := Row(a, c, []string{name}, bytes.NewReader(nonce))
	if len(row) != 1 || row[0].Name() != name {
		t.Fatalf("no %s but %q", name, names(row))
	}
	return row[0]
}

// check plays the exchange with m. "-" is no initial response.
func (e exchange) check(t *testing.T, m Mechanism) {
	t.Helper()
	got, err := m.Start()
	switch {
	case err != nil:
		t.Fatal(err)
	case e.initial == "-" && got != nil, e.initial != "-" && string(got) != e.initial:
		t.Errorf("%s begins with %q, want %q", m.Name(), got, e.initial)
	}
	for _, step := range e.steps {
		got, err := m.Next([]byte(step[0]))
		if err != nil || got == nil || string(got) != step[1] {
			t.Errorf("%s answers %q, %v to %q; want %q", m.Name(), got, err, step[0], step[1])
		}
	}
	if err := m.Finish(); err != nil {
		t.Errorf("%s: %v", m.Name(), err)
	}
	if _, err := m.Next([]byte("more")); !errors.Is(err, ErrTurn) {
		t.Errorf("%s, challenged out of turn: %v", m.Name(), err)
	}
}

type exchange struct {
	initial string
	steps   [][2]string
}

func TestMechanisms(t *testing.T) {
	joe := Account{User: "joe", Secret: secret.New("pencil")}
	for _, c := range []struct {
		name    string
		account Account
		exchange
	}{
		// RFC 4616 section 4.
		{"PLAIN", Account{User: "tim", Secret: secret.New("tanstaaftanstaaf")}, exchange{"\x00tim\x00tanstaaftanstaaf", nil}},
		{"PLAIN", Account{User: "tim@example", Secret: secret.New(" a b:c=ü ")}, exchange{"\x00tim@example\x00 a b:c=ü ", nil}},
		// The text of the challenges does not matter.
		{"LOGIN", joe, exchange{"-", [][2]string{{"Username:", "joe"}, {"Password:", "pencil"}}}},
		{"LOGIN", joe, exchange{"-", [][2]string{{"", "joe"}, {"\xff", "pencil"}}}},
		// RFC 2195 section 2.
		{"CRAM-MD5", Account{User: "tim", Secret: secret.New("tanstaaftanstaaf")},
			exchange{"-", [][2]string{{"<1896.697170952@postoffice.reston.mci.net>", "tim b913a602c7eda7a495b4e6e7334d3890"}}}},
		// RFC 7628 section 4.1, and 4.3: what follows an error.
		{"OAUTHBEARER", Account{User: "user@example.com", Secret: secret.New("vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg=="), Token: true, Host: "server.example.com", Port: 587},
			exchange{"n,a=user@example.com,\x01host=server.example.com\x01port=587\x01auth=Bearer vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==\x01\x01",
				[][2]string{{`{"status":"invalid_token"}`, "\x01"}}}},
		{"OAUTHBEARER", Account{User: "a=b,c", Secret: secret.New("t"), Token: true, Host: "192.0.2.1", Port: 465},
			exchange{"n,a=a=3Db=2Cc,\x01host=192.0.2.1\x01port=465\x01auth=Bearer t\x01\x01", [][2]string{{"", "\x01"}}}},
		// Google's description.
		{"XOAUTH2", Account{User: "someuser@example.com", Secret: secret.New("ya29.vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg"), Token: true},
			exchange{"user=someuser@example.com\x01auth=Bearer ya29.vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg\x01\x01", [][2]string{{"{", ""}}}},
	} {
		c.check(t, the(t, c.name, c.account, Channel{}, nil))
	}
}

// What has to be read is refused when it cannot be; the rest is not looked at.
func TestNext_notDecoded(t *testing.T) {
	a := Account{User: "joe", Secret: secret.New("pencil")}
	for _, c := range []struct {
		name    string
		matters bool
	}{{"PLAIN", false}, {"LOGIN", false}, {"CRAM-MD5", true}, {"SCRAM-SHA-256", true}, {"OAUTHBEARER", false}, {"XOAUTH2", false}} {
		a.Token = strings.Contains(c.name, "OAUTH")
		m := the(t, c.name, a, Channel{}, make([]byte, nonceBytes))
		if _, err := m.Start(); err != nil {
			t.Fatal(err)
		}
		if c.name == "PLAIN" {
			continue // has nothing to say to any challenge
		}
		if _, err := m.Next(nil); errors.Is(err, ErrChallenge) != c.matters {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if _, err := the(t, "CRAM-MD5", Account{User: "joe", Secret: secret.New("x")}, Channel{}, nil).Next([]byte{}); !errors.Is(err, ErrChallenge) {
		t.Errorf("CRAM-MD5, empty: %v", err)
	}
}

// The example of RFC 7677 section 3. Its nonce is text, and not base64 of random bytes, so it
// is put in place.
func TestSCRAM_example(t *testing.T) {
	s := &scram{named: nameSCRAM, header: headerNone, user: "user", password: secret.New("pencil"), nonce: "rOprNGfwEbeRWgbNEkqO"}
	s.bare = "n=user,r=" + s.nonce
	steps := [][2]string{
		{"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
			"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="},
		{"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=", ""},
	}
	for i, step := range steps {
		if err := s.Finish(); err != ErrProof {
			t.Errorf("before step %d: %v", i, err)
		}
		got, err := s.Next([]byte(step[0]))
		if err != nil || string(got) != step[1] {
			t.Errorf("%q, %v; want %q", got, err, step[1])
		}
	}
	if err := s.Finish(); err != nil {
		t.Error(err)
	}
	if _, err := s.Next([]byte("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")); err != ErrTurn {
		t.Errorf("a third challenge: %v", err)
	}
}

// A server is the other side of SCRAM, written from the RFC and not from the client.
type server struct {
	password, salt string
	iterations     int
	binding        string

	bare, first, header string
}

// hello takes the client-first-message and returns the server-first-message.
func (s *server) hello(message string) string {
	i := strings.Index(message, ",,") + 2
	s.header, s.bare = message[:i], message[i:]
	_, nonce, _ := strings.Cut(s.bare, ",r=")
	s.first = fmt.Sprintf("r=%sSERVER,s=%s,i=%d", nonce, base64.StdEncoding.EncodeToString([]byte(s.salt)), s.iterations)
	return s.first
}

// finish takes the client-final-message and returns the server-final-message.
func (s *server) finish(t *testing.T, message string) string {
	without, proof, _ := strings.Cut(message, ",p=")
	if want := "c=" + base64.StdEncoding.EncodeToString([]byte(s.header+s.binding)) + ","; !strings.HasPrefix(without, want) {
		t.Errorf("bound by %q, want %q", without, want)
	}
	sum := func(key []byte, text string) []byte {
		h := hmac.New(sha256.New, key)
		h.Write([]byte(text))
		return h.Sum(nil)
	}
	salted, err := pbkdf2.Key(sha256.New, s.password, []byte(s.salt), s.iterations, 32)
	if err != nil {
		t.Fatal(err)
	}
	auth := s.bare + "," + s.first + "," + without
	client := sum(salted, "Client Key")
	stored := sha256.Sum256(client)
	given, err := base64.StdEncoding.DecodeString(proof)
	if err != nil || len(given) != 32 {
		t.Fatalf("proof %q: %v", proof, err)
	}
	for i, b := range sum(stored[:], auth) {
		given[i] ^= b
	}
	if !bytes.Equal(given, client) {
		return "e=invalid-proof"
	}
	return "v=" + base64.StdEncoding.EncodeToString(sum(sum(salted, "Server Key"), auth))
}

func TestSCRAM_serverSide(t *testing.T) {
	exporter := strings.Repeat("\x07\xff", 16)
	inTLS, bound := Channel{TLS: true}, Channel{TLS: true, Exporter: []byte(exporter)}
	for _, c := range []struct {
		offered string
		channel Channel
		name    string
		header  string
		binding string
	}{
		{"SCRAM-SHA-256", Channel{}, "SCRAM-SHA-256", "n,,", ""},
		{"SCRAM-SHA-256", inTLS, "SCRAM-SHA-256", "n,,", ""},
		{"SCRAM-SHA-256-PLUS SCRAM-SHA-256", inTLS, "SCRAM-SHA-256", "n,,", ""},
		{"SCRAM-SHA-256", bound, "SCRAM-SHA-256", "y,,", ""},
		{"SCRAM-SHA-256-PLUS SCRAM-SHA-256", bound, "SCRAM-SHA-256-PLUS", "p=tls-exporter,,", exporter},
	} {
		for _, password := range []string{"pencil", "pe, =ncil"} {
			for _, salt := range []string{"s", strings.Repeat("salt", 256)} {
				s := &server{password: password, salt: salt, iterations: 4096, binding: c.binding}
				row := Row(Account{User: "a=b,c", Secret: secret.New(password)}, c.channel, strings.Fields(c.offered), nil)
				m := row[0]
				initial, err := m.Start()
				if err != nil || m.Name() != c.name || !strings.HasPrefix(string(initial), c.header+"n=a=3Db=2Cc,r=") {
					t.Fatalf("%s, %q, %v", m.Name(), initial, err)
				}
				final, err := m.Next([]byte(s.hello(string(initial))))
				if err != nil {
					t.Fatal(err)
				}
				if _, err := m.Next([]byte(s.finish(t, string(final)))); err != nil || m.Finish() != nil {
					t.Errorf("%s: %v, %v", m.Name(), err, m.Finish())
				}
			}
		}
	}
}

// After PLUS the plain form says that it does not bind: y would tell a server that
// offers PLUS that somebody has taken it out of its list (RFC 5802 section 6).
func TestSCRAM_afterPlus(t *testing.T) {
	bound := Channel{TLS: true, Exporter: make([]byte, 32)}
	row := Row(Account{User: "a", Secret: secret.New("b")}, bound, []string{"SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"}, nil)
	if initial, err := row[1].Start(); err != nil || !strings.HasPrefix(string(initial), "n,,") {
		t.Errorf("%q, %v", initial, err)
	}
}

// ours is the nonce in the tables below.
var ours = base64.StdEncoding.EncodeToString(make([]byte, nonceBytes))

// badFirst are server-first-messages that are refused.
var badFirst = []string{
	"",
	"r=" + ours + "x",
	"r=" + ours + "x,s=c2FsdA==",
	"r=" + ours + ",s=c2FsdA==,i=4096",                // the nonce is ours
	"r=x" + ours + ",s=c2FsdA==,i=4096",               // ours is not in front
	"r=,s=c2FsdA==,i=4096",                            // no nonce
	"r=" + ours[1:] + "xx,s=c2FsdA==,i=4096",          // another's
	"r=" + ours + "x y,s=c2FsdA==,i=4096",             // a blank in it
	"r=" + ours + "\xff,s=c2FsdA==,i=4096",            // beyond ASCII
	"r=" + ours + "x,s=,i=4096",                       // no salt
	"r=" + ours + "x,s=c2FsdA,i=4096",                 // not base64
	"r=" + ours + "x,s=c2Fs\ndA==,i=4096",             // a line end in base64
	"r=" + ours + "x,s=c2FsdB==,i=4096",               // bits where there are none
	"r=" + ours + "x,s=" + longSalt(1025) + ",i=4096", // too long
	"r=" + ours + "x,s=c2FsdA==,i=4095",
	"r=" + ours + "x,s=c2FsdA==,i=1000001",
	"r=" + ours + "x,s=c2FsdA==,i=0",
	"r=" + ours + "x,s=c2FsdA==,i=-5000",
	"r=" + ours + "x,s=c2FsdA==,i=+5000",
	"r=" + ours + "x,s=c2FsdA==,i=05000",
	"r=" + ours + "x,s=c2FsdA==,i=5000 ",
	"r=" + ours + "x,s=c2FsdA==,i=99999999999999999999",
	"r=" + ours + "x,s=c2FsdA==,i=",
	"s=c2FsdA==,r=" + ours + "x,i=4096", // out of order
	"m=x,r=" + ours + "x,s=c2FsdA==,i=4096",
	"e=unknown-user",
	"v=AAAA",
}

// goodFirst are server-first-messages that are answered.
var goodFirst = []string{
	"r=" + ours + "x,s=c2FsdA==,i=4096",
	"r=" + ours + "!~=,s=YQ==,i=4097",
	"r=" + ours + "x,s=" + longSalt(1024) + ",i=4096",
	"r=" + ours + "x,s=c2FsdA==,i=4096,x=an extension, that nobody knows",
	"r=" + ours + strings.Repeat("x", 4000) + ",s=c2FsdA==,i=4096",
}

func longSalt(n int) string { return base64.StdEncoding.EncodeToString(make([]byte, n)) }

// scrams returns SCRAM after its initial response.
func scrams(t testing.TB) Mechanism {
	m := the(t, "SCRAM-SHA-256", Account{User: "joe", Secret: secret.New("pencil")}, Channel{}, make([]byte, nonceBytes))
	if _, err := m.Start(); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestSCRAM_firstMessages(t *testing.T) {
	for _, message := range badFirst {
		response, err := scrams(t).Next([]byte(message))
		if !errors.Is(err, ErrChallenge) || response != nil {
			t.Errorf("%q: %q, %v", message, response, err)
		}
	}
	for _, message := range goodFirst {
		if _, err := scrams(t).Next([]byte(message)); err != nil {
			t.Errorf("%q: %v", message, err)
		}
	}
	// At the most it has to be an answer within reason.
	if _, err := scrams(t).Next([]byte("r=" + ours + "x,s=c2FsdA==,i=1000000")); err != nil {
		t.Error(err)
	}
}

func TestSCRAM_finalMessages(t *testing.T) {
	for _, c := range []struct {
		message string
		want    error
		text    string
	}{
		{"v=", ErrProof, ""},
		{"", ErrProof, ""},
		{"v=AAAA", ErrProof, ""},
		{"v=" + longSalt(32), ErrProof, ""},
		{"v=!", ErrProof, ""},
		{"x=1", ErrProof, ""},
		{"e=invalid-proof", ErrChallenge, "the error invalid-proof"},
		{"e=invalid-proof,x=1", ErrChallenge, "the error invalid-proof"},
		{"e=joe, pencil", ErrChallenge, "it is an error"},
	} {
		m := scrams(t)
		if _, err := m.Next([]byte(goodFirst[0])); err != nil {
			t.Fatal(err)
		}
		response, err := m.Next([]byte(c.message))
		if !errors.Is(err, c.want) || response != nil || !strings.Contains(err.Error(), c.text) || strings.Contains(err.Error(), "joe") {
			t.Errorf("%q: %q, %v", c.message, response, err)
		}
		if m.Finish() != ErrProof {
			t.Errorf("%q is a proof", c.message)
		}
	}
}

func TestSCRAM_noChance(t *testing.T) {
	for _, random := range []string{"", "seventeen letters"} {
		m := the(t, "SCRAM-SHA-256", Account{User: "a", Secret: secret.New("b")}, Channel{}, []byte(random))
		if _, err := m.Start(); err == nil {
			t.Errorf("a nonce of %d random bytes", len(random))
		}
	}
	m := Row(Account{User: "a", Secret: secret.New("b")}, Channel{}, []string{"SCRAM-SHA-256"}, iotest.ErrReader(errors.New("none")))[0]
	if _, err := m.Start(); err == nil {
		t.Error("a nonce of no random bytes")
	}
	// Two logins have nothing in common.
	a, _ := Row(Account{User: "a", Secret: secret.New("b")}, Channel{}, []string{"SCRAM-SHA-256"}, nil)[0].Start()
	b, _ := Row(Account{User: "a", Secret: secret.New("b")}, Channel{}, []string{"SCRAM-SHA-256"}, nil)[0].Start()
	if bytes.Equal(a, b) || len(a) != len("n,,n=a,r=")+24 {
		t.Errorf("nonces %q and %q", a, b)
	}
}

// No mechanism prints its secret, whatever it has heard.
func TestMechanisms_print(t *testing.T) {
	const password = "open sesame"
	for _, isToken := range []bool{false, true} {
		a := Account{User: "joe", Secret: secret.New(password), Token: isToken}
		for _, m := range Row(a, Channel{TLS: true, Exporter: make([]byte, 32)}, strings.Fields(everything), nil) {
			if _, err := m.Start(); err != nil {
				t.Fatal(err)
			}
			_, _ = m.Next([]byte("x"))
			for _, text := range []string{fmt.Sprintf("%v %+v %#v", m, m, m), fmt.Sprintf("%v %+v %#v", a, a, a)} {
				if strings.Contains(text, password) {
					t.Errorf("%s prints %s", m.Name(), text)
				}
			}
		}
	}
}

// fuzz has a mechanism answer what it likes. It neither panics nor says its password.
func fuzz(f *testing.F, name string) {
	for _, message := range append(badFirst, goodFirst...) {
		f.Add([]byte(message), []byte("v="+longSalt(32)))
	}
	f.Add([]byte("<1896.697170952@postoffice.reston.mci.net>"), []byte("e=other-error"))
	const password = "open sesame"
	f.Fuzz(func(t *testing.T, first, second []byte) {
		if i := bytes.Index(first, []byte(",i=")); i >= 0 && len(first)-i > len(",i=9999") {
			return // minutes of hashing
		}
		a := Account{User: "joe", Secret: secret.New(password), Token: strings.Contains(name, "OAUTH")}
		m := the(t, name, a, Channel{TLS: true, Exporter: make([]byte, 32)}, make([]byte, nonceBytes))
		if _, err := m.Start(); err != nil {
			t.Fatal(err)
		}
		for _, challenge := range [][]byte{first, second, first} {
			response, err := m.Next(challenge)
			if err == nil {
				if m.Derived() && bytes.Contains(response, []byte(password)) {
					t.Errorf("%s says the password: %q", name, response)
				}
				continue
			}
			if response != nil || !errors.Is(err, ErrTurn) && !errors.Is(err, ErrChallenge) && !errors.Is(err, ErrProof) {
				t.Errorf("%q, %v", response, err)
			}
			if strings.Contains(err.Error(), password) || strings.Contains(err.Error(), "joe") {
				t.Errorf("the error is %v", err)
			}
			break
		}
		if strings.HasPrefix(name, "SCRAM") && m.Finish() == nil {
			t.Errorf("%q is a proof", second)
		}
	})
}

func FuzzPLAIN(f *testing.F)       { fuzz(f, "PLAIN") }
func FuzzLOGIN(f *testing.F)       { fuzz(f, "LOGIN") }
func FuzzCRAMMD5(f *testing.F)     { fuzz(f, "CRAM-MD5") }
func FuzzSCRAM(f *testing.F)       { fuzz(f, "SCRAM-SHA-256") }
func FuzzSCRAMPlus(f *testing.F)   { fuzz(f, "SCRAM-SHA-256-PLUS") }
func FuzzOAUTHBEARER(f *testing.F) { fuzz(f, "OAUTHBEARER") }
func FuzzXOAUTH2(f *testing.F)     { fuzz(f, "XOAUTH2") }
