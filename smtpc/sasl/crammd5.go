package sasl

import (
	"crypto/hmac"
	"crypto/md5"
	"encoding/hex"
	"fmt"

	"nightmare.mail/mxf/control/secret"
)

// cramMD5 is CRAM-MD5 (RFC 2195).
type cramMD5 struct {
	user     string
	password secret.Secret
	spoken   bool
}

func (c *cramMD5) Name() string           { return nameCRAMMD5 }
func (c *cramMD5) Derived() bool          { return true }
func (c *cramMD5) Start() ([]byte, error) { return nil, nil }
func (c *cramMD5) Finish() error          { return nil }

func (c *cramMD5) Next(challenge []byte) ([]byte, error) {
	switch {
	case c.spoken:
		return nil, ErrTurn
	case challenge == nil:
		return nil, errNotDecoded
	case len(challenge) == 0:
		return nil, fmt.Errorf("%w: it is empty", ErrChallenge)
	}
	c.spoken = true
	mac := hmac.New(md5.New, []byte(c.password.Reveal()))
	mac.Write(challenge)
	return []byte(c.user + " " + hex.EncodeToString(mac.Sum(nil))), nil
}
