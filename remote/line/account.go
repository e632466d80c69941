package line

import (
	"container/list"
	"math"
	"net/netip"
	"slices"
	"time"
)

const (
	firstWindow   = 5                 // connections at first: enough for a burst, few for a small server
	windowFor     = 600 * time.Second // without a connection: what was learnt of a server then is old
	frozenFor     = 60 * time.Second  // a server that wanted no more is not asked for more so soon
	mostAccounts  = 10_000            // remembered; those with connections or waiters are bounded by the deliveries
	shareOfSlots  = 2                 // one half: an address by the empty entry never has all slots
	leastAllowed  = 1                 // connections, however few slots there are: otherwise nothing could be sent
	unboundedRoom = math.MaxInt       // an address is bounded by its entry alone
)

// A name is what connections are counted for: an entry, or an address and port.
type name struct {
	entry string
	addr  netip.AddrPort
}

// An account counts the connections of a name.
type account struct {
	name
	limit   int        // connections by the control files in force; 0: an address that an entry bounds
	window  int        // 0: nothing was learnt
	frozen  time.Time  // the window is not raised before
	since   time.Time  // when the last connection ended, while there is none
	own     bool       // its limit is in force: an entry, or an address by the empty entry
	waiters *list.List // in the order of arrival

	connections int
	greeted     int           // of them past EHLO
	crowded     int           // of them refused, because the server wants no more
	idle        []*conn       // of them kept, longest unused first
	news        chan struct{} // closed when one is greeted or refused, or ends

	exchanger string   // the name by which the address was wanted last
	holder    *account // of the limit that the address had then
	messages  int      // accepted at the address

	unused *list.Element // in Line.unused
}

// A place is where a connection counts. The holder is the account that has the limit:
// the address itself by the empty entry, else the entry.
type place struct{ addr, holder *account }

func (p place) each(f func(*account)) {
	f(p.addr)
	if p.holder != p.addr {
		f(p.holder)
	}
}

// held returns what the holder of a limit may have at a time.
func (a *account) held() int {
	window := a.window
	if window == 0 {
		window = firstWindow
	}
	return min(window, max(a.limit, leastAllowed))
}

// passed returns what an address may have at a time that an entry bounds: any number, unless
// the server has said that it wants no more.
func (a *account) passed() int {
	if a.window == 0 {
		return unboundedRoom
	}
	return a.window
}

// gives reports whether somebody in line could get something here.
func (a *account) gives() bool {
	if a.own {
		return len(a.idle) > 0 || a.connections < a.held()
	}
	// Whoever waits for the address waits for its entry too.
	return a.holder.gives() && (len(a.idle) > 0 || a.connections < a.passed())
}

// room returns how many more connections there may be; it can be negative.
func (p place) room() int {
	room := p.holder.held() - p.holder.connections
	if p.holder != p.addr {
		room = min(room, p.addr.passed()-p.addr.connections)
	}
	return room
}

// bound returns the account that is full, or the holder, and how many connections it may have.
func (p place) bound() (*account, int) {
	if p.holder != p.addr && p.addr.connections >= p.addr.passed() && p.holder.connections < p.holder.held() {
		return p.addr, p.addr.passed()
	}
	return p.holder, p.holder.held()
}

// allowed returns what an address may have at a time.
func (a *account) allowed() int {
	if a.own || a.holder == nil {
		return a.held()
	}
	return min(a.holder.held(), a.passed())
}

// place returns where a connection for w counts. decide: the limit of w is in force from now on.
// l.mu is held.
func (l *Line) place(w Want, decide bool) place {
	addr := l.account(name{addr: w.Addr})
	if w.Limit.Entry == "" {
		if decide || addr.limit == 0 {
			addr.own, addr.exchanger, addr.holder = true, w.Exchanger, addr
			l.limit(addr, min(w.Limit.Connections, max(l.slots/shareOfSlots, leastAllowed)))
		}
		return place{addr, addr}
	}
	holder := l.account(name{entry: w.Limit.Entry})
	if decide || holder.limit == 0 || addr.holder == nil {
		addr.own, addr.exchanger, addr.holder = false, w.Exchanger, holder
		holder.own = true
		l.limit(holder, w.Limit.Connections)
	}
	return place{addr, holder}
}

// limit sets what a may have by the control files. Kept connections above it end.
func (l *Line) limit(a *account, connections int) {
	connections = max(connections, leastAllowed)
	if a.limit == connections {
		return
	}
	a.limit = connections
	for range min(a.connections-a.limit, len(a.idle)) {
		l.doom(a.idle[0])
	}
	l.touch(a)
}

// account returns the account of n. It makes one if there is none.
func (l *Line) account(n name) *account {
	a := l.accounts[n]
	if a == nil {
		if len(l.accounts) >= mostAccounts && l.unused.Len() > 0 {
			old := l.unused.Remove(l.unused.Front()).(*account)
			delete(l.accounts, old.name)
		}
		a = &account{name: n, since: l.now(), waiters: list.New()}
		l.accounts[n] = a
	}
	if a.connections == 0 && l.now().Sub(a.since) >= windowFor {
		a.window, a.frozen = 0, time.Time{}
	}
	if a.unused != nil {
		l.unused.MoveToBack(a.unused)
	}
	l.rest(a)
	return a
}

// rest puts a among those that can be forgotten, if nothing is counted for it and nobody waits.
func (l *Line) rest(a *account) {
	switch busy := a.connections > 0 || a.waiters.Len() > 0; {
	case busy && a.unused != nil:
		l.unused.Remove(a.unused)
		a.unused = nil
	case !busy && a.unused == nil:
		a.unused = l.unused.PushBack(a)
	}
}

// tell wakes those who wait for news of a.
func (a *account) tell() {
	if a.news != nil {
		close(a.news)
		a.news = nil
	}
}

// listen returns what is closed at the next news of a.
func (a *account) listen() <-chan struct{} {
	if a.news == nil {
		a.news = make(chan struct{})
	}
	return a.news
}

// connect counts a new connection. l.mu is held.
func (l *Line) connect(p place, w Want) *conn {
	c := &conn{place: p, key: w.Key, keepable: w.Keepable, made: l.now()}
	l.busy++
	p.each(func(a *account) { l.count(a, c, 1) })
	return c
}

// release counts c no more. l.mu is held.
func (l *Line) release(c *conn) {
	l.busy--
	c.each(func(a *account) { l.count(a, c, -1) })
}

// count adds c to what is counted for a, or takes it off (by: -1).
func (l *Line) count(a *account, c *conn, by int) {
	a.connections += by
	if c.greeted {
		a.greeted += by
	}
	if c.crowded {
		a.crowded += by
	}
	if a.connections == 0 {
		a.since = l.now()
	}
	l.rest(a)
	if by < 0 {
		l.touch(a)
		a.tell()
	}
}

// move counts c, which is in use, at another place of the same address.
func (l *Line) move(c *conn, p place) {
	if c.holder == p.holder {
		return
	}
	if c.holder != c.addr {
		l.count(c.holder, c, -1)
	}
	c.holder = p.holder
	if c.holder != c.addr {
		l.count(c.holder, c, 1)
	}
}

// victims returns the kept connections, longest unused first, whose end makes room at p.
// nil: there is room, or there are not enough of them.
func (l *Line) victims(p place) []*conn {
	var found []*conn
	if p.holder != p.addr && p.addr.passed() != unboundedRoom {
		for range p.addr.connections - p.addr.passed() + 1 {
			if len(found) == len(p.addr.idle) {
				return nil
			}
			found = append(found, p.addr.idle[len(found)])
		}
	}
	need := p.holder.connections - p.holder.held() + 1
	for _, c := range found {
		if c.holder == p.holder {
			need--
		}
	}
	for _, c := range p.holder.idle {
		if need < 1 {
			break
		}
		if !slices.Contains(found, c) {
			found, need = append(found, c), need-1
		}
	}
	if need > 0 {
		return nil
	}
	return found
}

// raise lets the account have one connection more, after an accepted message.
func (l *Line) raise(p place) {
	now := l.now()
	p.each(func(a *account) {
		switch {
		case now.Before(a.frozen):
		case a == p.holder:
			a.window = min(a.held()+1, a.limit)
		case a.window > 0:
			a.window = min(a.window+1, p.holder.limit)
		}
		l.touch(a)
	})
}

// narrow makes the window the number of the connections that the server has not refused.
func (l *Line) narrow(p place) {
	until := l.now().Add(frozenFor)
	p.each(func(a *account) {
		a.window = max(a.connections-a.crowded, leastAllowed)
		a.frozen = until
	})
}
