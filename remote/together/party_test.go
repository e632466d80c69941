package together_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"nightmare.mail/mxf/remote/together"
)

type member string

func (m member) Address() string { return string(m) }

func word(members []together.Member) string {
	var all []string
	for _, m := range members {
		all = append(all, m.Address())
	}
	return strings.Join(all, "")
}

var name = together.Name{Message: "11/1000", Sender: "s@x", Host: "y", Settings: 1}

// join has recipients join in turn, and returns the parties that they began.
func join(p *together.Parties, n together.Name, recipients string) (begun []*together.Party) {
	for _, r := range strings.Split(recipients, "") {
		if party, first := p.Join(n, member(r)); first {
			begun = append(begun, party)
		}
	}
	return begun
}

// empty fails the test if a party is left.
func empty(t *testing.T, p *together.Parties) {
	t.Helper()
	if parties, members := p.Open(); parties != 0 || members != 0 {
		t.Errorf("%d parties with %d members are left", parties, members)
	}
}

func TestParties(t *testing.T) {
	for _, c := range []struct {
		recipients string
		most       int
		taken      string // of each party, in the order in which they began; of the rest behind /
	}{
		{"a", together.All, "a"},
		{"abc", together.All, "abc"},
		{"abc", 2, "ab/c"},
		{"abcde", 2, "ab/cd/e"},
		{"abc", 3, "abc"},
		{"aba", together.All, "ab a"},
		{"aabba", together.All, "ab ab a"},
	} {
		p := together.NewParties()
		var all []string
		for _, party := range join(p, name, c.recipients) {
			var parts []string
			for party != nil {
				taken, rest := party.Close(t.Context(), c.most, false)
				if again, more := party.Close(t.Context(), c.most, true); again != nil || more != nil {
					t.Errorf("%s: closed again: %v, %v", c.recipients, again, more)
				}
				if party.First() != taken[0] {
					t.Errorf("%s: first is %v", c.recipients, party.First())
				}
				parts, party = append(parts, word(taken)), rest
			}
			all = append(all, strings.Join(parts, "/"))
		}
		if got := strings.Join(all, " "); got != c.taken {
			t.Errorf("%s, at most %d: %q, want %q", c.recipients, c.most, got, c.taken)
		}
		empty(t, p)
	}
}

func TestOnlyEqualNamesMeet(t *testing.T) {
	p := together.NewParties()
	names := []together.Name{name, name, name, name, name}
	names[1].Message, names[2].Sender, names[3].Host, names[4].Settings = "11/1001", "", "z", 2
	for i, n := range names {
		if begun := join(p, n, fmt.Sprint(i)); len(begun) != 1 {
			t.Errorf("%v joined another", n)
		}
	}
}

func TestAClosedPartyTakesNobody(t *testing.T) {
	p := together.NewParties()
	first := join(p, name, "abc")[0]
	_, rest := first.Close(t.Context(), 2, false)
	if party, begins := p.Join(name, member("d")); begins || party != rest {
		t.Error("d did not join the rest")
	}
	if taken, _ := rest.Close(t.Context(), together.All, false); word(taken) != "cd" {
		t.Errorf("the rest is %q", word(taken))
	}
	if _, begins := p.Join(name, member("e")); !begins {
		t.Error("e joined a closed party")
	}
}

func TestQuiet(t *testing.T) {
	const ms = time.Millisecond
	for what, c := range map[string]struct {
		before time.Duration // from the first member to Close
		every  time.Duration // somebody joins then
		joins  int
		most   int
		taken  int
		waited time.Duration
	}{
		"nobody":                   {0, ms, 0, together.All, 1, 2 * ms},
		"nobody for a long time":   {5 * ms, ms, 0, together.All, 1, 0},
		"a few":                    {0, ms, 3, together.All, 4, 5 * ms},
		"too late":                 {0, 3 * ms, 3, together.All, 1, 2 * ms},
		"without end":              {0, ms + ms/2, 50, together.All, 14, 20 * ms},
		"until there is no room":   {0, ms, 50, 4, 4, 3 * ms},
		"no room for another ever": {0, ms, 0, 1, 1, 0},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := together.NewParties()
				party, _ := p.Join(name, member("first"))
				time.Sleep(c.before)
				var joining sync.WaitGroup
				defer joining.Wait()
				joining.Go(func() {
					for i := range c.joins {
						time.Sleep(c.every)
						p.Join(name, member(fmt.Sprint(i)))
					}
				})
				begun := time.Now()
				taken, _ := party.Close(t.Context(), c.most, true)
				if waited := time.Since(begun); len(taken) != c.taken || waited != c.waited {
					t.Errorf("%d taken after %v, want %d after %v", len(taken), waited, c.taken, c.waited)
				}
			})
		})
	}
}

func TestQuietEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		party, _ := together.NewParties().Join(name, member("a"))
		begun := time.Now()
		if taken, _ := party.Close(ctx, together.All, true); len(taken) != 1 || time.Since(begun) != time.Millisecond {
			t.Errorf("%d taken after %v", len(taken), time.Since(begun))
		}
	})
}

// TestEachIsTakenOnce has many join and close at a time.
func TestEachIsTakenOnce(t *testing.T) {
	const deliveries, recipients = 3000, 400
	p := together.NewParties()
	var all, carried sync.WaitGroup
	var mu sync.Mutex
	taken := make(map[together.Member]int)
	var carry func(party *together.Party, quiet bool)
	carry = func(party *together.Party, quiet bool) {
		defer carried.Done()
		members, rest := party.Close(t.Context(), 7, quiet)
		if rest != nil {
			carried.Add(1)
			go carry(rest, !quiet)
		}
		mu.Lock()
		defer mu.Unlock()
		seen := make(map[string]bool)
		for _, m := range members {
			taken[m]++
			if seen[m.Address()] {
				t.Errorf("%s twice in one party", m.Address())
			}
			seen[m.Address()] = true
		}
		if len(members) == 0 || len(members) > 7 {
			t.Errorf("%d members", len(members))
		}
	}
	for i := range deliveries {
		all.Add(1)
		go func() {
			defer all.Done()
			m := &numbered{i, fmt.Sprint(i % recipients)}
			carried.Add(1)
			if party, first := p.Join(name, m); first {
				go carry(party, i%2 == 0)
			} else {
				carried.Done()
			}
		}()
	}
	all.Wait()
	carried.Wait()
	if len(taken) != deliveries {
		t.Errorf("%d of %d were taken", len(taken), deliveries)
	}
	for m, n := range taken {
		if n != 1 {
			t.Errorf("%v was taken %d times", m, n)
		}
	}
	empty(t, p)
}

type numbered struct {
	number  int
	address string
}

func (m *numbered) Address() string { return m.address }
