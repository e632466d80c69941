package remote

import (
	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/remote/login"
	"nightmare.mail/mxf/remote/transport"
)

// accountAt is the account of a login at a relay, the zero Account where there is no login, or
// nobody remembers refusals. logins are those that it is one of.
func (r *Router) accountAt(relay string, l *transport.Login, logins control.Credentials) login.Account {
	if l.Line == 0 || r.Refusals == nil {
		return login.Account{}
	}
	return login.AccountOf(relay, &l.Credential, l.Secret, logins.Stamp())
}
