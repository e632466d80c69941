package together_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"nightmare.mail/mxf/remote/together"
	"nightmare.mail/mxf/smtpc"
)

// account is what an accountant knows of one recipient: what the servers did, and what it was
// told.
type account struct {
	accepted int             // messages that a server took for it
	doubtful bool            // a server may have taken one, and did not say
	heard    map[string]bool // refusals that it can be told, as judge has them
	answers  []string
}

// TestAccountant has servers do what they like, and holds each answer against what they did.
func TestAccountant(t *testing.T) {
	rounds := 20000
	if testing.Short() {
		rounds = 2000
	}
	for seed := range uint64(rounds) {
		if complaint := audit(t, rand.New(rand.NewPCG(seed, 14))); complaint != "" {
			t.Fatalf("seed %d: %s", seed, complaint)
		}
	}
}

// moods are what a server may do; most often it accepts.
var moods = map[string][]reply{
	"mail":    {"450", "550", "421", lost, silent, garbage, stumble},
	"rcpt":    {"450", "452", "421", "550", "552", "503", "450", lost, silent, garbage, stumble},
	"data":    {"451", "554", "421", "452", lost, silent, garbage, stumble},
	"message": {"451", "554", "421", "452", "554", lost, silent, garbage, cut},
}

func audit(t *testing.T, chance *rand.Rand) string {
	count := 1 + chance.IntN(8)
	names, addresses := make([]string, count), make([]string, count)
	books := make(map[string]*account)
	for i := range names {
		names[i] = string(rune('a' + i))
		addresses[i] = names[i] + "@host.example"
		books[names[i]] = &account{heard: make(map[string]bool)}
	}
	var log []string
	rarely := 2 + chance.IntN(12)
	mood := func(stage string) reply {
		if chance.IntN(rarely) > 0 {
			return ""
		}
		return moods[stage][chance.IntN(len(moods[stage]))]
	}
	complain := func(format string, args ...any) string {
		return fmt.Sprintf(format, args...) + "\n" + strings.Join(log, "\n")
	}
	told := &accountant{names: names, books: books}
	q := together.NewSequence(addresses, told)
	kept := chance.IntN(2) == 0
	for sessions := 0; len(q.Left()) > 0; sessions++ {
		if sessions > 10*count {
			return complain("it does not end")
		}
		s := &server{names: names, resetFail: chance.IntN(4) == 0, dead: kept && chance.IntN(8) == 0}
		transactions := 0
		s.next = func(offered []string) script {
			if transactions++; transactions > 10*count {
				t.Fatal(complain("the session does not end"))
			}
			sc := script{mail: mood("mail"), data: mood("data"), message: mood("message"), rcpt: make(map[string]reply), close: chance.IntN(8) == 0}
			for _, name := range offered {
				sc.rcpt[name] = mood("rcpt")
				switch b := books[name]; {
				case len(b.answers) > 0:
					told.wrong = append(told.wrong, name+" is offered after its answer")
				case b.accepted > 0 || b.doubtful:
					told.wrong = append(told.wrong, name+" is sent twice")
				}
			}
			note(books, offered, &sc)
			log = append(log, fmt.Sprintf("session %d kept %v: %v: %+v", sessions, kept, offered, sc))
			return sc
		}
		s.begun = func(name string, last, accepted bool) {
			b := books[name]
			b.doubtful = b.doubtful || last && !accepted
			if accepted {
				b.accepted++
			}
		}
		end := q.Run(t.Context(), s, together.Terms{Kept: kept, Most: chance.IntN(4)})
		kept = false
		switch {
		case len(s.mistakes)+len(told.wrong) > 0:
			return complain("%q", append(s.mistakes, told.wrong...))
		case end.Why == "" != (len(q.Left()) == 0):
			return complain("ended with %q, and %v are left", end.Why, q.Left())
		case end.Outcome != nil && sessions > 5: // the walk has no further exchanger
			for _, i := range q.Left() {
				told.books[names[i]].answers = append(told.books[names[i]].answers, "no connection")
			}
			return told.close(complain)
		}
	}
	return told.close(complain)
}

// note has the accounts of those offered get the refusals of a transaction.
func note(books map[string]*account, offered []string, sc *script) {
	for _, name := range offered {
		b := books[name]
		b.heard["mail"+string(sc.mail)] = true
		b.heard["rcpt"+string(sc.rcpt[name])] = true
		b.heard["data"+string(sc.data)] = true
		b.heard["message"+string(sc.message)] = true
		if sc.rcpt[name] == "421" { // it counts for those behind
			for _, behind := range offered {
				books[behind].heard["rcpt421"] = true
			}
		}
	}
}

// An accountant is told the answers.
type accountant struct {
	names []string
	books map[string]*account
	wrong []string
}

func (a *accountant) Answer(i int, o *smtpc.Outcome) bool {
	if goesOn(o) {
		return false
	}
	b := a.books[a.names[i]]
	b.answers = append(b.answers, judge(o))
	return true
}

func (a *accountant) Anew(i int, why string) {
	if b := a.books[a.names[i]]; b.accepted > 0 || b.doubtful || len(b.answers) > 0 || why == "" {
		a.wrong = append(a.wrong, a.names[i]+" begins anew")
	}
}

// close holds the answers against what happened.
func (a *accountant) close(complain func(string, ...any) string) string {
	for _, name := range a.names {
		b := a.books[name]
		switch {
		case len(b.answers) != 1:
			return complain("%s has the answers %q", name, b.answers)
		case (b.answers[0] == "K") != (b.accepted == 1), b.accepted > 1:
			return complain("%s was accepted %d times, and is told %s", name, b.accepted, b.answers[0])
		case strings.ContainsAny(b.answers[0], "45") && !b.heard[b.answers[0]]:
			return complain("%s is told %s, which no server has said to it", name, b.answers[0])
		case (b.answers[0] == "duplicate") != b.doubtful:
			return complain("%s is told %s, and may be doubled: %v", name, b.answers[0], b.doubtful)
		}
	}
	return ""
}
