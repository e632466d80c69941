package smtptest

import (
	"bytes"
	"crypto/hmac"
	"crypto/md5"
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// maxResponse bounds a line of an exchange, CR LF included (RFC 4954 section 4).
const maxResponse = 12288

// An Auth is what a [Server] knows of logins (RFC 4954). It has the server's side of
// PLAIN, LOGIN, CRAM-MD5, SCRAM-SHA-256, SCRAM-SHA-256-PLUS, OAUTHBEARER and XOAUTH2.
//
// Faults at the AUTH command and at the lines after it are those of Act at the phases
// [AUTH] and [Response], and what follows here.
type Auth struct {
	Mechanisms []string          // announced inside TLS, and with Clear outside of it
	Old        bool              // announced by AUTH= alone
	Users      map[string]string // password of each user
	Tokens     map[string]string // access token of each user
	Clear      bool              // a login outside of TLS is wanted; else it is a violation
	Demand     bool              // who has not logged in is refused with 530 at MAIL

	Iterations int  // of SCRAM; 0 is 4096
	NoProof    bool // SCRAM: 235 without the server's signature

	// Alter changes a challenge before it is encoded. Step counts the challenges of one
	// exchange from 0. Nil: they are as they should be.
	Alter func(mechanism string, step int, challenge string) string
}

// A Login is an AUTH command, and what became of it.
type Login struct {
	Mechanism string
	User      string // where the exchange came so far
	Initial   bool   // the command had an initial response
	Canceled  bool
	Accepted  bool // 235
}

// Offer is the line of the reply to EHLO, empty for none.
func (a *Auth) Offer(secure bool) string {
	switch {
	case a == nil || len(a.Mechanisms) == 0 || !secure && !a.Clear:
		return ""
	case a.Old:
		return "AUTH=" + strings.Join(a.Mechanisms, " ")
	}
	return "AUTH " + strings.Join(a.Mechanisms, " ")
}

// checkAuth checks an AUTH command. A response, if it has one, may be a secret.
func (r *rules) checkAuth(line string, secure bool, a *Auth, tx *Transaction) error {
	words := strings.Split(line, " ")
	switch {
	case len(words) < 2 || len(words) > 3 || words[1] != strings.ToUpper(words[1]):
		return violation("%.40q is malformed", line)
	case !r.greeted || !slices.Contains(r.mechanisms, words[1]):
		return violation("%.40q is not offered", line)
	case r.loggedIn:
		return violation("%.40q after a login", line)
	case r.sent || tx.Begun:
		return violation("%.40q after MAIL", line)
	case a == nil || !secure && !a.Clear:
		return violation("%.40q outside of TLS", line)
	}
	if len(words) == 3 && words[2] != "=" {
		if _, err := base64.StdEncoding.DecodeString(words[2]); err != nil || words[2] == "" {
			return violation("%.40q has no initial response in base64", line)
		}
	}
	return nil
}

// learn notes what a line of the reply to EHLO says of logins.
func (r *rules) learn(words []string) {
	if old, ok := strings.CutPrefix(words[0], "AUTH="); ok {
		words = append([]string{"AUTH", old}, words[1:]...)
	}
	if words[0] == "AUTH" {
		r.mechanisms = append(r.mechanisms, words[1:]...)
	}
}

// auth takes an AUTH command and the exchange that follows.
func (d *dialogue) auth(e Exchange) error {
	words := append(strings.Split(e.Line, " "), "", "")
	x := &exchange{dialogue: d, auth: d.server.Auth, login: &Login{Mechanism: words[1], Initial: words[2] != ""}, at: e}
	if x.auth == nil {
		x.auth = new(Auth)
	}
	d.seen.Logins = append(d.seen.Logins, x.login)
	if words[2] != "" && words[2] != "=" {
		x.initial, _ = base64.StdEncoding.DecodeString(words[2])
	}
	var good bool
	var err error
	switch x.login.Mechanism {
	case "PLAIN":
		good, err = x.plain()
	case "LOGIN":
		good, err = x.loginByName()
	case "CRAM-MD5":
		good, err = x.cramMD5()
	case "SCRAM-SHA-256":
		good, err = x.scram(nil)
	case "SCRAM-SHA-256-PLUS":
		good, err = x.scram(d.exporter())
	case "OAUTHBEARER", "XOAUTH2":
		good, err = x.token()
	default:
		_, err = d.say(e, "504 no such mechanism")
		return err
	}
	switch {
	case errors.Is(err, errExchange):
		return nil
	case err != nil:
		return err
	}
	return x.decide(good)
}

// exporter is the binding tls-exporter of the connection (RFC 9266). Its context is there and
// empty, which is not the same as none in TLS 1.2.
func (d *dialogue) exporter() []byte {
	secure, ok := d.conn.Conn.(*tls.Conn)
	if !ok {
		return nil
	}
	state := secure.ConnectionState()
	binding, err := state.ExportKeyingMaterial("EXPORTER-Channel-Binding", []byte{}, 32)
	if err != nil {
		return nil
	}
	return binding
}

// An exchange is what follows AUTH.
type exchange struct {
	*dialogue
	auth    *Auth
	login   *Login
	initial []byte   // the response with the command, until it is taken
	at      Exchange // what is to be answered next
	step    int      // challenges so far
}

// errExchange ends an exchange, not the conversation.
var errExchange = errors.New("the exchange is over")

// next sends a challenge of the mechanism and returns the response.
func (x *exchange) next(challenge string) ([]byte, error) {
	if x.auth.Alter != nil {
		challenge = x.auth.Alter(x.login.Mechanism, x.step, challenge)
	}
	x.step++
	return x.ask(challenge)
}

// ask sends a challenge and returns the response.
func (x *exchange) ask(challenge string) ([]byte, error) {
	reply, err := x.say(x.at, "334 "+base64.StdEncoding.EncodeToString([]byte(challenge)))
	if err != nil {
		return nil, err
	}
	if !strings.HasPrefix(reply, "334") {
		x.end(reply)
		return nil, errExchange
	}
	x.rest()
	line, err := x.conn.Line()
	if err != nil {
		return nil, err
	}
	x.seen.Commands = append(x.seen.Commands, line)
	x.at = Exchange{Point: Point{Phase: Response}, Line: line, More: x.conn.Reader.Buffered() > 0}
	switch {
	case x.at.More:
		x.violated(violation("more before the answer to a line of %s", x.login.Mechanism))
	case len(line)+len("\r\n") > maxResponse:
		x.violated(violation("a response of %d bytes", len(line)))
	}
	if line == "*" {
		x.login.Canceled = true
		reply, err := x.say(x.at, "501 canceled")
		x.end(reply)
		if err == nil {
			err = errExchange
		}
		return nil, err
	}
	response, err := base64.StdEncoding.DecodeString(line)
	if err != nil {
		x.violated(violation("%.40q is not base64", line))
	}
	return response, nil
}

// first returns the initial response, and asks for it if it did not come with the command.
func (x *exchange) first() ([]byte, error) {
	if x.login.Initial {
		return x.initial, nil
	}
	return x.ask("")
}

// end notes what ended the exchange.
func (x *exchange) end(reply string) {
	if strings.HasPrefix(reply, "235") {
		x.login.Accepted = true
		x.rules.loggedIn = true
	}
}

// decide answers the last response. A reply of the Act that is another challenge goes on until
// the client cancels.
func (x *exchange) decide(good bool) error {
	proper := "535 5.7.8 authentication failed"
	if good {
		proper = "235 2.7.0 welcome"
	}
	reply, err := x.say(x.at, proper)
	for err == nil && strings.HasPrefix(reply, "334") {
		x.rest()
		var line string
		if line, err = x.conn.Line(); err != nil {
			break
		}
		x.seen.Commands = append(x.seen.Commands, line)
		x.login.Canceled = line == "*"
		x.at = Exchange{Point: Point{Phase: Response}, Line: line}
		reply, err = x.say(x.at, "501 canceled")
	}
	x.end(reply)
	return err
}

func (x *exchange) plain() (bool, error) {
	response, err := x.first()
	parts := strings.Split(string(response), "\x00")
	if err != nil || len(parts) != 3 || parts[0] != "" {
		return false, err
	}
	x.login.User = parts[1]
	return x.knows(parts[1], parts[2]), nil
}

func (x *exchange) knows(user, password string) bool {
	known, ok := x.auth.Users[user]
	return ok && known == password
}

func (x *exchange) loginByName() (bool, error) {
	user, err := x.next("Username:")
	if err != nil {
		return false, err
	}
	x.login.User = string(user)
	password, err := x.next("Password:")
	return x.knows(string(user), string(password)), err
}

func (x *exchange) cramMD5() (bool, error) {
	const challenge = "<1896.697170952@fake.example.org>"
	response, err := x.next(challenge)
	if err != nil {
		return false, err
	}
	i := bytes.LastIndexByte(response, ' ')
	if i < 0 {
		return false, nil
	}
	x.login.User = string(response[:i])
	password, ok := x.auth.Users[x.login.User]
	mac := hmac.New(md5.New, []byte(password))
	mac.Write([]byte(challenge))
	return ok && string(response[i+1:]) == hex.EncodeToString(mac.Sum(nil)), nil
}

// token is OAUTHBEARER and XOAUTH2. Both describe an error in a challenge before they refuse.
func (x *exchange) token() (bool, error) {
	response, err := x.first()
	if err != nil {
		return false, err
	}
	text, dummy := string(response), ""
	if x.login.Mechanism == "OAUTHBEARER" {
		text, _ = strings.CutPrefix(text, "n,a=")
		user, rest, _ := strings.Cut(text, ",\x01")
		x.login.User = strings.NewReplacer("=2C", ",", "=3D", "=").Replace(user)
		if !strings.HasPrefix(rest, "host=") || !strings.Contains(rest, "\x01port=") {
			x.violated(violation("OAUTHBEARER without host and port"))
		}
		text, dummy = rest, "\x01"
	} else {
		text, _ = strings.CutPrefix(text, "user=")
		x.login.User, text, _ = strings.Cut(text, "\x01")
	}
	token, ok := x.auth.Tokens[x.login.User]
	if ok && strings.HasSuffix("\x01"+text, "\x01auth=Bearer "+token+"\x01\x01") {
		return true, nil
	}
	answer, err := x.next(`{"status":"invalid_token"}`)
	if err == nil && string(answer) != dummy {
		x.violated(violation("%q answers an error of %s", answer, x.login.Mechanism))
	}
	return false, err
}

// scram is SCRAM-SHA-256 (RFC 5802, 7677); with PLUS the binding is not nil.
func (x *exchange) scram(binding []byte) (bool, error) {
	response, err := x.first()
	if err != nil {
		return false, err
	}
	header, bare, ok := cutHeader(string(response))
	user, nonce, ok2 := strings.Cut(strings.TrimPrefix(bare, "n="), ",r=")
	switch {
	case !ok || !ok2 || len(nonce) < 18:
		x.violated(violation("%q begins no SCRAM", response))
		return false, nil
	case !slices.Contains(x.headers(binding), header):
		x.violated(violation("SCRAM with the header %q", header))
	}
	x.login.User = strings.NewReplacer("=2C", ",", "=3D", "=").Replace(user)
	password, known := x.auth.Users[x.login.User]
	iterations := max(x.auth.Iterations, 4096)
	const salt = "salt of the server"
	first := fmt.Sprintf("r=%sserver,s=%s,i=%d", nonce, base64.StdEncoding.EncodeToString([]byte(salt)), iterations)
	if response, err = x.next(first); err != nil {
		return false, err
	}
	without, proof, _ := strings.Cut(string(response), ",p=")
	salted, err := pbkdf2.Key(sha256.New, password, []byte(salt), iterations, sha256.Size)
	if err != nil {
		return false, err
	}
	signed := bare + "," + first + "," + without
	bound := "c=" + base64.StdEncoding.EncodeToString(append([]byte(header), binding...)) + ",r=" + nonce + "server"
	if !known || without != bound || proof != clientProof(salted, signed) {
		return false, nil
	}
	if x.auth.NoProof {
		return true, nil
	}
	_, err = x.next("v=" + base64.StdEncoding.EncodeToString(sum(sum(salted, "Server Key"), signed)))
	return true, err
}

// cutHeader splits a client-first-message behind its GS2 header.
func cutHeader(message string) (header, bare string, ok bool) {
	flag, bare, ok := strings.Cut(message, ",,")
	return flag + ",,", bare, ok
}

// headers are those that a client may begin with, given what is announced and what TLS has.
func (x *exchange) headers(binding []byte) []string {
	switch plus := slices.Contains(x.auth.Mechanisms, "SCRAM-SHA-256-PLUS"); {
	case binding != nil:
		return []string{"p=tls-exporter,,"}
	case plus, x.exporter() == nil:
		return []string{"n,,"}
	}
	return []string{"n,,", "y,,"}
}

func clientProof(salted []byte, signed string) string {
	key := sum(salted, "Client Key")
	stored := sha256.Sum256(key)
	for i, b := range sum(stored[:], signed) {
		key[i] ^= b
	}
	return base64.StdEncoding.EncodeToString(key)
}

func sum(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}
