package sasl

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"nightmare.mail/mxf/control/secret"
)

const (
	// nonceBytes is how many random bytes there are in a nonce. They are 24 letters.
	nonceBytes = 18
	// maxSalt bounds a salt, in bytes. Those of servers have 12 to 64.
	maxSalt = 1024
	// The iterations that a server may ask for. RFC 7677 section 4 has the least. The most keeps
	// a server from making us compute for minutes: it is about half a second.
	minIterations = 4096
	maxIterations = 1_000_000
)

// The GS2 headers (RFC 5802 section 7), none with an authorization identity.
const (
	headerPlus  = "p=tls-exporter,,"
	headerCould = "y,," // we could bind to the channel, and the server does not offer that
	headerNone  = "n,,"
)

// errNotDecoded is the error of a challenge that could not be decoded.
var errNotDecoded = fmt.Errorf("%w: it is not base64", ErrChallenge)

// scram is SCRAM-SHA-256, with the binding to the channel or without.
type scram struct {
	named    string
	header   string
	binding  []byte // nil without PLUS
	user     string
	password secret.Secret
	random   io.Reader

	challenges int    // so far
	nonce      string // ours
	bare       string // client-first-message-bare
	signature  []byte // that the server has to send
	proved     bool   // it has
}

func (s *scram) Name() string  { return s.named }
func (s *scram) Derived() bool { return true }

func (s *scram) Finish() error {
	if !s.proved {
		return ErrProof
	}
	return nil
}

// Start returns the client-first-message.
func (s *scram) Start() ([]byte, error) {
	var chance [nonceBytes]byte
	if _, err := io.ReadFull(s.random, chance[:]); err != nil {
		return nil, fmt.Errorf("no random bytes: %w", err)
	}
	s.nonce = base64.StdEncoding.EncodeToString(chance[:])
	s.bare = "n=" + saslname(s.user) + ",r=" + s.nonce
	return []byte(s.header + s.bare), nil
}

func (s *scram) Next(challenge []byte) ([]byte, error) {
	s.challenges++
	switch {
	case s.challenges > 2:
		return nil, ErrTurn
	case challenge == nil:
		return nil, errNotDecoded
	case s.challenges == 1:
		return s.first(string(challenge))
	}
	return s.final(string(challenge))
}

// first takes the server-first-message, and returns the client-final-message.
func (s *scram) first(message string) ([]byte, error) {
	p, err := s.parseFirst(message)
	if err != nil {
		return nil, err
	}
	salted, err := pbkdf2.Key(sha256.New, s.password.Reveal(), p.salt, p.iterations, sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("the password cannot be hashed: %w", err) // has nothing of it
	}
	bound := base64.StdEncoding.EncodeToString(append([]byte(s.header), s.binding...))
	final := "c=" + bound + ",r=" + p.nonce
	signed := s.bare + "," + message + "," + final
	clientKey := mac(salted, "Client Key")
	stored := sha256.Sum256(clientKey)
	proof := mac(stored[:], signed)
	for i, b := range clientKey {
		proof[i] ^= b
	}
	s.signature = mac(mac(salted, "Server Key"), signed)
	return []byte(final + ",p=" + base64.StdEncoding.EncodeToString(proof)), nil
}

// parameters are what a server-first-message says.
type parameters struct {
	nonce      string
	salt       []byte
	iterations int
}

// parseFirst reads a server-first-message (RFC 5802 section 7). Extensions behind it do not
// matter; one in front of it, m=, would.
func (s *scram) parseFirst(message string) (parameters, error) {
	if err := serverError(message); err != nil {
		return parameters{}, err
	}
	if strings.HasPrefix(message, "m=") {
		return parameters{}, fmt.Errorf("%w: it demands an extension", ErrChallenge)
	}
	fields := strings.SplitN(message, ",", 4)
	for i, name := range []string{"r=", "s=", "i="} {
		if i >= len(fields) || !strings.HasPrefix(fields[i], name) {
			return parameters{}, fmt.Errorf("%w: it has no %s in its place", ErrChallenge, name)
		}
		fields[i] = fields[i][len(name):]
	}
	p := parameters{nonce: fields[0]}
	if !strings.HasPrefix(p.nonce, s.nonce) || len(p.nonce) == len(s.nonce) || !printable(p.nonce) || strings.Contains(p.nonce, " ") {
		return p, fmt.Errorf("%w: its nonce does not extend ours", ErrChallenge)
	}
	var err error
	if p.salt, err = decode(fields[1]); err != nil || len(p.salt) == 0 || len(p.salt) > maxSalt {
		return p, fmt.Errorf("%w: its salt is not 1 to %d bytes in base64", ErrChallenge, maxSalt)
	}
	n, err := strconv.ParseUint(fields[2], 10, 32)
	if err != nil || fields[2][0] == '0' || n < minIterations || n > maxIterations {
		return p, fmt.Errorf("%w: it does not ask for %d to %d iterations", ErrChallenge, minIterations, maxIterations)
	}
	p.iterations = int(n)
	return p, nil
}

// final takes the server-final-message, which has the proof. Nothing is left to say to it.
func (s *scram) final(message string) ([]byte, error) {
	if err := serverError(message); err != nil {
		return nil, err
	}
	verifier, _, _ := strings.Cut(message, ",")
	encoded, ok := strings.CutPrefix(verifier, "v=")
	if !ok {
		return nil, ErrProof
	}
	signature, err := decode(encoded)
	if err != nil || !hmac.Equal(signature, s.signature) {
		return nil, ErrProof
	}
	s.proved = true
	return []byte{}, nil
}

// serverErrors are those of RFC 5802 section 7. No other is repeated: a server could put
// into it what it has heard.
var serverErrors = []string{
	"invalid-encoding", "extensions-not-supported", "invalid-proof", "channel-bindings-dont-match",
	"server-does-support-channel-binding", "channel-binding-not-supported", "unsupported-channel-binding-type",
	"unknown-user", "invalid-username-encoding", "no-resources", "other-error",
}

// serverError is the error that a server has put in the place of its message, or nil.
func serverError(message string) error {
	value, ok := strings.CutPrefix(message, "e=")
	if !ok {
		return nil
	}
	if value, _, _ = strings.Cut(value, ","); !slices.Contains(serverErrors, value) {
		return fmt.Errorf("%w: it is an error", ErrChallenge)
	}
	return fmt.Errorf("%w: it is the error %s", ErrChallenge, value)
}

// decode reads base64 without line ends, which the decoder would pass over.
func decode(text string) ([]byte, error) {
	if strings.ContainsAny(text, "\r\n") {
		return nil, errNotDecoded
	}
	return base64.StdEncoding.Strict().DecodeString(text)
}

func mac(key []byte, message string) []byte {
	h := hmac.New(sha256.New, key)
	io.WriteString(h, message)
	return h.Sum(nil)
}
