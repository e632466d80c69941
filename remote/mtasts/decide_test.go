package mtasts

import (
	"testing"
	"time"
)

// cached makes an entry: mode "" is no policy. The times are seconds ago; failed -1 is
// never.
func cached(t testing.TB, mode string, maxAge string, fetched, failed int) *Entry {
	t.Helper()
	e := &Entry{Domain: "example.org"}
	ago := func(seconds int) time.Time { return now.Add(-time.Duration(seconds) * time.Second) }
	if mode != "" {
		text := "version: STSv1\nmode: " + mode + "\nmx: a.example\nmax_age: " + maxAge + "\n"
		p, err := ParsePolicy([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		e.ID, e.Fetched, e.Text, e.Policy = "same", ago(fetched), text, p
	}
	if failed != -1 {
		e.Failed = NewFailure(FetchError, ago(failed), "refused")
	}
	return e
}

// The table "cached policy, TXT, then" of the page, and its edges.
func TestDecide(t *testing.T) {
	const day, week = 86400, "604800"
	for _, c := range []struct {
		name  string
		e     *Entry
		id    string
		fetch Fetch
		holds bool
		with  string
	}{
		{"nothing, none", nil, "", NoFetch, false, ""},
		{"nothing, id", nil, "same", FetchNow, false, "same"},
		{"failed, none", cached(t, "", "", 0, 10), "", NoFetch, false, ""},
		{"failed just now, id", cached(t, "", "", 0, 0), "same", NoFetch, false, ""},
		{"failed 300 s ago, id", cached(t, "", "", 0, 300), "same", NoFetch, false, ""},
		{"failed 301 s ago, id", cached(t, "", "", 0, 301), "same", FetchNow, false, "same"},
		{"failed in the future, id", cached(t, "", "", 0, -10), "same", FetchNow, false, "same"},
		{"expired, none", cached(t, "enforce", "1000", 1000, -1), "", NoFetch, false, ""},
		{"expired, same id", cached(t, "enforce", "1000", 1000, -1), "same", FetchNow, false, "same"},
		{"expired, another id", cached(t, "enforce", "1000", 1000, -1), "new", FetchNow, false, "new"},
		{"expired, failed lately", cached(t, "enforce", "1000", 1000, 299), "same", NoFetch, false, ""},
		{"expired none, same id", cached(t, "none", "1000", 1000, -1), "same", FetchNow, false, "same"},
		{"fresh, another id", cached(t, "enforce", week, 1, -1), "new", FetchNow, true, "new"},
		{"fresh, another id, failed 300 s ago", cached(t, "enforce", week, 1000, 300), "new", NoFetch, true, ""},
		{"fresh, another id, failed 301 s ago", cached(t, "enforce", week, 1000, 301), "new", FetchNow, true, "new"},
		{"fresh none, another id", cached(t, "none", week, 1, -1), "new", FetchNow, true, "new"},
		{"fresh, same id", cached(t, "enforce", week, 1, -1), "same", NoFetch, true, ""},
		{"fresh, none", cached(t, "enforce", week, 1, -1), "", NoFetch, true, ""},
		{"almost a day, same id", cached(t, "enforce", week, day-1, -1), "same", NoFetch, true, ""},
		{"a day, same id", cached(t, "enforce", week, day, -1), "same", FetchIfFree, true, "same"},
		{"a day, none", cached(t, "enforce", week, day, -1), "", FetchIfFree, true, "same"},
		{"a day, testing", cached(t, "testing", week, day, -1), "", FetchIfFree, true, "same"},
		{"a day, mode none", cached(t, "none", week, day, -1), "same", NoFetch, true, ""},
		{"a day, failed an hour ago", cached(t, "enforce", week, day, 3600), "same", NoFetch, true, ""},
		{"a day, failed more than an hour ago", cached(t, "enforce", week, day, 3601), "same", FetchIfFree, true, "same"},
		{"half of max_age", cached(t, "enforce", "1000", 500, -1), "same", FetchIfFree, true, "same"},
		{"less than half of max_age", cached(t, "enforce", "1000", 499, -1), "same", NoFetch, true, ""},
		{"max_age 0, at once", cached(t, "enforce", "0", 0, -1), "same", NoFetch, true, ""},
		{"max_age 0, 149 s", cached(t, "enforce", "0", 149, -1), "same", NoFetch, true, ""},
		{"max_age 0, 299 s", cached(t, "enforce", "0", 299, -1), "same", FetchIfFree, true, "same"},
		{"max_age 0, 300 s", cached(t, "enforce", "0", 300, -1), "same", FetchNow, false, "same"},
		{"max_age 0, 300 s, none", cached(t, "enforce", "0", 300, -1), "", NoFetch, false, ""},
		{"fetched in the future", cached(t, "enforce", week, -300, -1), "same", NoFetch, true, ""},
		// TXT that stays the same does not make a policy last longer.
		{"the end of max_age", cached(t, "enforce", week, 604800, -1), "", NoFetch, false, ""},
		{"a second before it", cached(t, "enforce", week, 604799, 0), "", NoFetch, true, ""},
	} {
		d := Decide(c.e, c.id, now)
		if d.Fetch != c.fetch || (d.Holds != nil) != c.holds || d.Holds != nil && d.Holds != c.e || d.ID != c.with || d.Why == "" {
			t.Errorf("%s: %+v", c.name, d)
		}
	}
}
