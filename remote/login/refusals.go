package login

import (
	"sync"
	"time"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/control/secret"
	"nightmare.mail/mxf/control/stamp"
	"nightmare.mail/mxf/remote/memory"
	"nightmare.mail/mxf/remote/report"
)

const (
	// refusalKept is how long a refused login is not tried again (identity.md 7): relays lock
	// an account after some wrong passwords within minutes.
	refusalKept = 300 * time.Second
	// maxRefusals bounds the accounts: a hosting server has one for each domain.
	maxRefusals = 10_000
)

// An Account is what a relay refuses. Accounts are equal where what is said in the login is,
// and control/credentials was not written between.
type Account struct {
	relay  string
	user   secret.Secret // is none, but belongs in no trace, and fmt looks into a Step
	token  bool
	only   string // mechanism
	secret secret.Secret
	file   stamp.Stamp // of control/credentials
}

// AccountOf is the account of a line, with its secret, at a relay. file is the stamp of the
// control/credentials that has the line.
func AccountOf(relay string, line *control.Credential, words secret.Secret, file stamp.Stamp) Account {
	return Account{relay, secret.New(line.User), line.Kind == control.TokenFile, line.Only, words, file}
}

// Refusals are the logins that were refused to the deliveries of one process. Any number of
// goroutines may use it at a time. A nil *Refusals remembers nothing.
type Refusals struct {
	now func() time.Time

	mu      sync.Mutex
	refused memory.Map[Account, report.Report]
}

// NewRefusals returns a memory without any, with a clock.
func NewRefusals(now func() time.Time) *Refusals {
	return &Refusals{now: now, refused: memory.Map[Account, report.Report]{Values: maxRefusals}}
}

// Add notes that a relay has refused a for good, and what was reported of that.
func (r *Refusals) Add(a Account, told report.Report) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refused.Put(a, told, r.now(), refusalKept, 0)
}

// Report returns what was reported of a, and whether it was refused within the last 300 s. A
// delivery reports that too, without a connection.
func (r *Refusals) Report(a Account) (told report.Report, refused bool) {
	if r == nil || a == (Account{}) {
		return report.Report{}, false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.refused.Get(a, r.now())
}

// Forget forgets all refusals.
func (r *Refusals) Forget() {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refused.Clear()
}
