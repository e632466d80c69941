package together

import (
	"context"
	"slices"
	"sync"
	"time"
)

const (
	// lull is how long nobody must have joined before MAIL is written on a kept connection:
	// qmail-send writes the commands of one message right behind each other.
	lull = 2 * time.Millisecond
	// longestLull bounds the wait for a lull, however many join.
	longestLull = 20 * time.Millisecond
)

// A Name is what the deliveries of a party have in common. Deliveries with equal names go
// together.
type Name struct {
	// Message is which message, and which file: another file of the same name is another
	// message. The value must be comparable.
	Message any
	Sender  string // as the caller gave it; may be empty
	Host    string // what the route begins with (routing.md 1)
	// Settings are the control files in force. The value must be comparable, and equal only
	// for the same settings.
	Settings any
}

// A Member is one delivery of a party. What it is beyond its recipient is the caller's.
type Member interface {
	// Address returns the recipient, as the caller gave it. It is always the same.
	Address() string
}

// All is the limit of Close that leaves nobody out.
const All = 0

// Parties are the parties that can be joined.
//
// It holds only parties that are open, so never more members than there are deliveries under
// way. Whoever is the first of a party has to close it, whatever happens.
type Parties struct {
	mu   sync.Mutex
	open map[Name][]*Party // in order of their beginning
}

// A Party is one or more deliveries to different recipients. One goroutine carries it out:
// that of its first member. It alone calls the methods.
type Party struct {
	parties *Parties
	name    Name
	first   Member
	came    chan struct{} // has room for one: somebody has joined

	// parties.mu guards what follows.
	members []Member
	last    time.Time       // when the last of them came
	known   map[string]bool // their recipients
	closed  bool
}

// NewParties returns Parties without a party.
func NewParties() *Parties { return &Parties{open: make(map[Name][]*Party)} }

// Join has m join an open party of that name which does not have its recipient yet. If
// there is none, m begins one, and is its first: then the caller carries the party out.
// Otherwise the caller has nothing to do: who carries the party out answers m.
func (p *Parties) Join(n Name, m Member) (party *Party, first bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, party := range p.open[n] {
		if !party.known[m.Address()] {
			party.add(m)
			return party, false
		}
	}
	return p.begin(n, m), true
}

// begin opens a party. p.mu is held.
func (p *Parties) begin(n Name, members ...Member) *Party {
	party := &Party{parties: p, name: n, first: members[0], came: make(chan struct{}, 1), known: make(map[string]bool, len(members))}
	for _, m := range members {
		party.add(m)
	}
	p.open[n] = append(p.open[n], party)
	return party
}

// Open returns how many parties can be joined, and how many deliveries are in them.
func (p *Parties) Open() (parties, members int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, all := range p.open {
		parties += len(all)
		for _, party := range all {
			members += len(party.members)
		}
	}
	return parties, members
}

func (p *Party) add(m Member) {
	p.members = append(p.members, m)
	p.known[m.Address()], p.last = true, time.Now()
	select {
	case p.came <- struct{}{}:
	default: // it is known already that somebody came
	}
}

// First returns the member that the party is carried out for, after Close too.
func (p *Party) First() Member { return p.first }

// Close ends the joining, before MAIL is written, and returns those who go in the
// transaction: the first and those who came next, at most that many; All is no limit. The others
// form a party that is open, and that the caller has to carry out by itself, at once: rest,
// nil if there are no others.
//
// With quiet, on a kept connection, Close first waits until nobody has joined for 2 ms, for
// 20 ms at most, not once there are most members, and not after the end of ctx.
//
// Nobody joins a closed party. To close it again returns nothing.
func (p *Party) Close(ctx context.Context, most int, quiet bool) (taken []Member, rest *Party) {
	if quiet {
		p.awaitLull(ctx, most)
	}
	p.parties.mu.Lock()
	defer p.parties.mu.Unlock()
	if p.closed {
		return nil, nil
	}
	p.leave()
	taken, p.members = p.members, nil
	if most > 0 && len(taken) > most {
		rest = p.parties.begin(p.name, taken[most:]...)
		taken = taken[:most:most]
	}
	return taken, rest
}

// awaitLull waits until nobody joins.
func (p *Party) awaitLull(ctx context.Context, most int) {
	end, calm := time.NewTimer(longestLull), time.NewTimer(lull-p.sinceLast())
	defer end.Stop()
	defer calm.Stop()
	for !p.full(most) {
		select {
		case <-p.came:
			calm.Reset(lull - p.sinceLast())
		case <-calm.C:
			return
		case <-end.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// sinceLast is how long nobody has joined.
func (p *Party) sinceLast() time.Duration {
	p.parties.mu.Lock()
	defer p.parties.mu.Unlock()
	return time.Since(p.last)
}

// full reports whether nobody else has room in the transaction, or can come at all.
func (p *Party) full(most int) bool {
	p.parties.mu.Lock()
	defer p.parties.mu.Unlock()
	return p.closed || most > 0 && len(p.members) >= most
}

// leave takes the party out of those that can be joined. parties.mu is held.
func (p *Party) leave() {
	p.closed = true
	all := p.parties.open[p.name]
	if i := slices.Index(all, p); i >= 0 {
		all = slices.Delete(all, i, i+1)
	}
	if len(all) == 0 {
		delete(p.parties.open, p.name)
		return
	}
	p.parties.open[p.name] = all
}
