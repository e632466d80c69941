// Package login makes a login of a line of control/credentials, as package smtpc wants it. The
// router and mxf-remote-smtpc log in alike.
//
//	mxf-control(5)   credentials
//	RFC 4954         AUTH
package login

import (
	"crypto/rand"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/control/secret"
	"nightmare.mail/mxf/smtpc"
	"nightmare.mail/mxf/smtpc/sasl"
)

// New returns the login of a line with its secret at a relay, which OAUTHBEARER names with its
// TCP port.
func New(line *control.Credential, words secret.Secret, relay string, port uint16) *smtpc.Login {
	account := sasl.Account{
		User: line.User, Secret: words, Token: line.Kind == control.TokenFile, Only: sasl.Only(line.Only), Host: relay, Port: port,
	}
	return &smtpc.Login{
		Place: line.String(), Needs: needs(line), Secret: words,
		Mechanisms: func(offered []string, tls bool, exporter []byte) []smtpc.Mechanism {
			var row []smtpc.Mechanism
			for _, m := range sasl.Row(account, sasl.Channel{TLS: tls, Exporter: exporter}, offered, rand.Reader) {
				row = append(row, m)
			}
			return row
		},
	}
}

func needs(line *control.Credential) smtpc.Protection {
	switch {
	case line.Clear:
		return smtpc.NoProtection
	case line.Unverified:
		return smtpc.AnyTLS
	}
	return smtpc.VerifiedTLS
}
