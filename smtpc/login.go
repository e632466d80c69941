package smtpc

import (
	"encoding/base64"
	"errors"
	"strings"

	"nightmare.mail/mxf/control/secret"
)

const (
	// maxInitialLine bounds an AUTH command that has the initial response, CR LF included
	// (RFC 4954 section 4).
	maxInitialLine = 512
	// maxLoginLine bounds our other lines, CR LF included (RFC 4954 section 4).
	maxLoginLine = 12288
	// maxOffered bounds what an error repeats of the mechanisms that a server offers, in
	// bytes. A dozen names are shorter.
	maxOffered = 200
)

// cancelation ends an exchange (RFC 4954 section 4).
const cancelation = "*"

// A Protection is the TLS without which a login is not tried.
type Protection int

// The protections.
const (
	VerifiedTLS  Protection = iota // TLS whose certificate, or key, was verified
	AnyTLS                         // TLS
	NoProtection                   // none, so that the login may be in clear text
)

// A Login is how a session logs in (RFC 4954). It prints without its secret.
type Login struct {
	// Place is where the login is configured, such as "control/credentials:3". Trace and
	// errors have it in the place of the user's name.
	Place string
	// Needs is the TLS without which AUTH is not said. Then the error is ErrTLSNotOffered,
	// or has ErrTLSFailed in it.
	Needs Protection
	// Secret is the password or the token. It is replaced by "(secret)" in whatever the
	// server says from the greeting on. Of less than six bytes it is where it is a word.
	Secret secret.Secret
	// Mechanisms returns the mechanisms that can be used, in the order in which they are
	// to be tried, out of those that are offered, whose names are in capitals. The
	// exporter is the binding tls-exporter (RFC 9266) of the TLS that is up; nil: none.
	Mechanisms func(offered []string, tls bool, exporter []byte) []Mechanism
}

// A Mechanism is one attempt to log in by one mechanism (RFC 4422). Package smtpc/sasl has
// them.
type Mechanism interface {
	Name() string                          // in capitals
	Derived() bool                         // the server needs a form of the password that it may not have
	Start() ([]byte, error)                // the initial response; nil: the server speaks first
	Next(challenge []byte) ([]byte, error) // the response; a challenge that is not base64 is nil
	Finish() error                         // after 235: the error of a server that has not proved who it is
}

// A LoginError is the error of a login that was refused: by the server, or by us because of
// what the server said. It is not the message that was refused, and the account must not be
// tried again at another address of the server, which may count failures.
type LoginError struct {
	Place     string // that of the Login
	Mechanism string // the last that was tried
	Reply     Reply  // of the server; none where Reason stands
	Reason    string // ours, lower case, no full stop
}

func (e *LoginError) Error() string {
	if e.Reply.Code != 0 {
		return "the login of " + e.Place + " was refused (" + e.Mechanism + "): " + e.Reply.String()
	}
	return "the login of " + e.Place + " was refused (" + e.Mechanism + "): " + e.Reason
}

// Final reports whether no other address of the server is to be tried. A server that has said
// 421 has judged nothing.
func (e *LoginError) Final() bool { return e.Reply.Code != 421 }

// A NoLoginError is the error of a server that offers no mechanism that the login can use.
// Nothing secret was sent.
type NoLoginError struct {
	Place   string // that of the Login
	Offered string // the mechanisms with blanks between, cut at 200 bytes; empty: no AUTH
}

func (e *NoLoginError) Error() string {
	if e.Offered == "" {
		return "no login is offered that " + e.Place + " can use"
	}
	return "no login is offered that " + e.Place + " can use: " + e.Offered
}

// login logs in, if that is wanted.
func (s *Session) login() error {
	l := s.options.Login
	if l == nil {
		return nil
	}
	if err := s.protects(l.Needs); err != nil {
		return err
	}
	var exporter []byte
	if s.secure && s.options.Exporter != nil {
		exporter = s.options.Exporter()
	}
	offered := s.caps.mechanisms()
	row := l.Mechanisms(offered, s.secure, exporter)
	if len(row) == 0 {
		names := s.conceal(strings.Join(offered, " "))
		if len(names) > maxOffered {
			names = names[:maxOffered] + "..."
		}
		return &NoLoginError{Place: l.Place, Offered: names}
	}
	return s.logIn(row)
}

// protects is the error of a session that has not the TLS that a login needs.
func (s *Session) protects(needs Protection) error {
	s.stage = StageAUTH
	switch {
	case needs == NoProtection:
		return nil
	case !s.secure && s.noTLS:
		return &BrokenError{Stage: StageAUTH, Cause: ErrTLSFailed, Err: errors.New("a login needs it, and it has failed")}
	case !s.secure:
		return ErrTLSNotOffered
	case needs == VerifiedTLS && !s.options.Verified:
		return &BrokenError{Stage: StageAUTH, Cause: ErrTLSFailed, Err: errors.New("a login needs a certificate that is verified")}
	}
	return nil
}

// logIn tries the mechanisms of row. A server that does not know one gets the next. One that
// refuses a mechanism for which it may lack a form of the password gets the password
// itself, once: many offer what their password file cannot do.
func (s *Session) logIn(row []Mechanism) error {
	var refusal *LoginError
	for len(row) > 0 {
		m := row[0]
		row = row[1:]
		r, unknown, err := s.authenticate(m)
		switch {
		case err != nil:
			return s.firstLost(err)
		case r.Code == 235:
			return s.proved(m)
		case !r.refused():
			return r.unexpected(StageAUTH)
		}
		refusal = s.loginRefused(m, r)
		switch {
		case r.closing():
			return refusal
		case unknown:
		case m.Derived():
			row = underived(row)
		default:
			return refusal
		}
	}
	return refusal
}

// underived are the mechanisms in row that need no form of the password.
func underived(row []Mechanism) []Mechanism {
	var rest []Mechanism
	for _, m := range row {
		if !m.Derived() {
			rest = append(rest, m)
		}
	}
	return rest
}

func (s *Session) loginRefused(m Mechanism, r *reply) *LoginError {
	return &LoginError{Place: s.options.Login.Place, Mechanism: m.Name(), Reply: r.Reply}
}

// spoilt is the error of a login that we refuse to go on with.
func (s *Session) spoilt(m Mechanism, why string) *LoginError {
	return &LoginError{Place: s.options.Login.Place, Mechanism: m.Name(), Reason: why}
}

// proved takes a login that the server has accepted.
func (s *Session) proved(m Mechanism) error {
	if err := m.Finish(); err != nil {
		return s.spoilt(m, err.Error())
	}
	s.loggedIn = true
	return nil
}

// authenticate tries one mechanism, and returns the reply that ended it. Unknown reports
// whether the reply answers the AUTH command and says that the server does not know it so.
func (s *Session) authenticate(m Mechanism) (r *reply, unknown bool, err error) {
	s.trace("login " + s.options.Login.Place + " " + m.Name())
	initial, err := m.Start()
	if err != nil {
		return nil, false, s.spoilt(m, err.Error())
	}
	command := "AUTH " + m.Name()
	shown := command
	if line := command + " " + initialText(initial); initial != nil && len(line)+len("\r\n") <= maxInitialLine {
		command, shown = line, shown+" "+concealed
		s.keepSecret(base64.StdEncoding.EncodeToString(initial))
		initial = nil
	}
	r, err = s.askSecretly(command, shown)
	unknown = err == nil && r.misunderstood()
	for err == nil && r.Code == 334 {
		var response []byte
		if response, err = respond(m, initial, r); err == nil {
			initial = nil
			r, err = s.answer(response)
		}
		if why := (*unansweredError)(nil); errors.As(err, &why) {
			err = s.cancel(m, why)
		}
	}
	return r, unknown, err
}

// initialText is an initial response within the command. One that is empty is "=".
func initialText(response []byte) string {
	if len(response) == 0 {
		return "="
	}
	return base64.StdEncoding.EncodeToString(response)
}

// An unansweredError is the error of a challenge that gets no response.
type unansweredError struct{ why string }

func (e *unansweredError) Error() string { return e.why }

// respond returns the response to the challenge r: the initial response, if it did not
// go with the command, or that of the mechanism.
func respond(m Mechanism, initial []byte, r *reply) ([]byte, error) {
	if strings.Contains(r.raw, "\n") {
		return nil, &unansweredError{"the server sent a challenge of several lines"}
	}
	if initial != nil {
		return initial, nil
	}
	response, err := m.Next(decodeChallenge(r))
	if err != nil {
		return nil, &unansweredError{err.Error()}
	}
	return response, nil
}

// decodeChallenge returns the challenge in r, which is nil when it is not base64.
func decodeChallenge(r *reply) []byte {
	text := strings.TrimPrefix(r.raw[len("334"):], " ")
	if strings.Contains(text, "\r") {
		return nil // the decoder would pass over it
	}
	challenge, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil
	}
	return challenge
}

// answer sends a response, and reads what the server says to it.
func (s *Session) answer(response []byte) (*reply, error) {
	line := base64.StdEncoding.EncodeToString(response)
	if len(line)+len("\r\n") > maxLoginLine {
		return nil, &unansweredError{"the response is longer than a server has to take"}
	}
	s.keepSecret(line)
	return s.askSecretly(line, concealed)
}

// cancel ends an exchange that cannot go on. What the server says to that decides nothing.
func (s *Session) cancel(m Mechanism, why error) error {
	if _, err := s.askSecretly(cancelation, cancelation); err != nil {
		s.broken = true
	}
	return s.spoilt(m, why.Error())
}

// askSecretly sends a line that is shown as another, and reads the answer.
func (s *Session) askSecretly(line, shown string) (*reply, error) {
	s.stage = StageAUTH
	if err := s.sendAs(line, shown); err != nil {
		return nil, err
	}
	return s.receive(StageAUTH, s.limits.Answer)
}
