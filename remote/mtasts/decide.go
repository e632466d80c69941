package mtasts

import "time"

// When a failed attempt keeps another one away, and when a policy is fetched although its
// id is the same.
const (
	// retryAfter: a policy that is missing, or known to be out of date, is worth another try
	// soon, but not at each delivery.
	retryAfter = 300 * time.Second
	// retryCurrent: a policy that is still good can wait.
	retryCurrent = 3600 * time.Second
	// refreshAge is the age at which a policy is fetched again. It is less where max_age is
	// less than two days.
	refreshAge = 24 * time.Hour
)

// A Fetch is whether a policy is to be fetched.
type Fetch int

// The three answers.
const (
	NoFetch     Fetch = iota
	FetchNow          // who fetches it already is waited for
	FetchIfFree       // not if somebody else is at it
)

// A Decision is what is to be done for one delivery.
type Decision struct {
	Holds *Entry // its policy holds if nothing is fetched, or the fetch fails; nil: there is none
	Fetch Fetch
	ID    string // to fetch with; "" with NoFetch
	Why   string // for the trace
}

// Decide says what is to be done: e is what the cache has, nil for nothing; id is that of
// the TXT record, "" for none and for no answer.
func Decide(e *Entry, id string, now time.Time) Decision {
	current := e.holds(now)
	switch {
	case !current && id == "":
		return Decision{Why: "no record"}
	case !current && e.failedWithin(retryAfter, now):
		return Decision{Why: "not fetched, it failed lately: " + e.Failed.Error()}
	case !current:
		return Decision{Fetch: FetchNow, ID: id, Why: "not cached"}
	case id != "" && id != e.ID && e.failedWithin(retryAfter, now):
		return Decision{Holds: e, Why: "cached, another id is not fetched, it failed lately: " + e.Failed.Error()}
	case id != "" && id != e.ID:
		return Decision{Holds: e, Fetch: FetchNow, ID: id, Why: "cached, another id"}
	case e.Policy.Mode == None || now.Sub(e.Fetched) < min(refreshAge, e.Policy.lifetime()/2):
		return Decision{Holds: e, Why: "cached"}
	case e.failedWithin(retryCurrent, now):
		return Decision{Holds: e, Why: "cached, it is not fetched again, that failed lately: " + e.Failed.Error()}
	}
	return Decision{Holds: e, Fetch: FetchIfFree, ID: e.ID, Why: "cached, due to be fetched again"}
}
