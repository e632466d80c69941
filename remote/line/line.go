// Package line decides who may connect where, which sessions are kept, and who waits.
//
// It connects to nobody and knows no SMTP. A caller says where it would connect (Want).
// It gets a lease: a kept session, or the room for a new connection. Otherwise it waits in line.
// When it is done it gives the session back for others, or says that the connection has gone.
//
//	spec/rspawn.md, Connections are kept 1    kept sessions come first, in the order of what is wanted
//	spec/rspawn.md, Connections are kept 6    what ends a kept session, and which one makes room
//	spec/rspawn.md, How many connections      limits, windows, the line, "the server wants no more"
//	RFC 9422, section 4 (MAILMAX)             messages over one session: the caller hands it on
//
// A connection counts from the moment its lease is given until it has ended: being made,
// in use, and kept. It counts for its address and port. Where an entry of connectionlimits
// names the exchanger, it counts for that entry too. Each of these is an account.
//
// The line has one invariant: while nobody holds the lock, no waiter could have what is free.
// So whoever comes may take what is free without a look at the line.
package line

import (
	"container/list"
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"

	"nightmare.mail/mxf/control"
)

// A Session is an open connection that can be kept. Its methods are called without a lock of
// the line's, and never two at a time.
type Session interface {
	// Watch has lost called, once, if the server closes the connection or says anything.
	// That holds until Wake. lost may call Quit: its caller holds no lock that Quit needs, and
	// Quit does not wait for lost to return.
	Watch(lost func())
	// Wake ends the watch. It reports whether the session can be used.
	Wake() bool
	// Quit ends the session by QUIT and closes the connection. It does not wait for the answer.
	// A session that is lost, or that Wake found dead, only closes it. Quit comes once for each
	// session that was given to Keep and is not in use, and never between Watch and Wake, but in lost.
	Quit()
}

// A Key is what a kept session must have in common with what is wanted: a comparable value
// that the caller makes.
type Key any

// A Want is one place where a caller would connect.
type Want struct {
	Key       Key
	Addr      netip.AddrPort
	Exchanger string // its name; "": the address is all that is known
	Limit     control.ConnectionLimit
	New       bool // no kept session will do; what is made may be kept
	Keepable  bool // false: the connection is only counted; no kept session fits, and it is not kept
}

// A Caller says how somebody waits.
type Caller struct {
	// Wait bounds the wait. 0: the caller does not wait at all.
	Wait time.Duration
	// Always lets the caller into the line, however long the first one has waited. Wait is then
	// timeoutremote, and 0 is no bound.
	Always bool
	// Back is the lease that Crowded has ended. The caller goes back to its old place in the line,
	// is not refused for those who wait, and its earlier wait counts. nil: it comes for the first time.
	Back *Lease
	// Position is told, once, the place in the line, from 1, before the caller waits. It may be nil.
	Position func(addr netip.AddrPort, position int)
}

// A Config is what a Line is made of.
type Config struct {
	Slots int              // deliveries at a time; by the empty entry an address has half of them at most
	Kept  int              // sessions that are kept at a time, at most
	Now   func() time.Time // the clock; nil: time.Now
}

// A Line knows all connections of a process. It may be used by any number of callers at a time.
type Line struct {
	slots, most int
	now         func() time.Time

	mu       sync.Mutex
	accounts map[name]*account
	unused   *list.List // accounts that nothing is counted for and nobody waits for, longest unused first
	idle     *list.List // kept connections, longest unused first
	busy     int        // connections being made and in use, and those that end
	waiting  int        // callers in line
	arrivals uint64     // callers so far
	closed   bool       // nothing is kept any more
	touched  []*account // somebody in line may be served here: settle looks
	doomed   []*conn    // kept connections that unlock ends
}

// New returns a line without connections.
func New(c Config) *Line {
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Line{
		slots: c.Slots, most: c.Kept, now: c.Now,
		accounts: make(map[name]*account), unused: list.New(), idle: list.New(),
	}
}

var errNoWant = errors.New("nowhere to connect")

// Get returns a lease for one of wants: a kept session for the first want that has one, or else
// room for a new connection for the first want that has room. Room can be made by ending a kept
// session that does not fit. Otherwise the caller waits in line.
//
// The error is a *FullError, or the cause of ctx.
func (l *Line) Get(ctx context.Context, c Caller, wants []Want) (*Lease, error) {
	if len(wants) == 0 {
		return nil, errNoWant
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	w := &waiter{caller: c, wants: wants, granted: make(chan *grant, 1)}
	for {
		g, err := l.next(ctx, w)
		if err != nil {
			return nil, err
		}
		if lease := l.open(w, g); lease != nil {
			return lease, nil
		}
		w.dead = g.conn
	}
}

// next decides what w gets, and waits in line if that is nothing yet.
func (l *Line) next(ctx context.Context, w *waiter) (*grant, error) {
	l.mu.Lock()
	if w.arrived == 0 {
		l.arrive(w)
	}
	if w.dead != nil {
		// What the dead session leaves free is for w first. The others get the rest at unlock.
		l.resolve(w, false)
		l.release(w.dead)
		w.dead = nil
	}
	if g := l.pick(w); g != nil {
		l.unlock()
		return g, nil
	}
	if err := l.admit(w); err != nil {
		l.unlock()
		return nil, err
	}
	position := l.join(w)
	l.unlock()
	if f := w.caller.Position; f != nil && !w.told {
		w.told = true
		guarded(func() { f(w.wants[0].Addr, position) }) // w is in line, whatever f does
	}
	return l.wait(ctx, w)
}

// open makes a lease of g. It returns nil if the kept session is dead.
func (l *Line) open(w *waiter, g *grant) *Lease {
	for _, c := range g.victims {
		l.end(c) // before the connection that takes its place is made
	}
	if g.kept && !l.woken(g.conn) {
		l.end(g.conn)
		return nil
	}
	return &Lease{Want: g.want, line: l, conn: g.conn, session: g.conn.session, arrived: w.arrived, waited: w.waited}
}

// Try returns the room for one more connection, or nil. It does not wait, and ends no kept session.
func (l *Line) Try(w Want) *Lease {
	l.mu.Lock()
	defer l.unlock()
	p := l.place(w, true)
	l.settle()
	if p.room() < 1 {
		return nil
	}
	return &Lease{line: l, conn: l.connect(p, w), arrived: l.number()}
}

// number returns the next number of arrival. l.mu is held.
func (l *Line) number() uint64 {
	l.arrivals++
	return l.arrivals
}

// unlock serves the line, ends the kept connections that have to end, and gives up l.mu.
// A connection counts until its QUIT is written, so that the server never sees one too many.
func (l *Line) unlock() {
	for l.settle(); len(l.doomed) > 0; l.settle() {
		doomed := l.doomed
		l.doomed = nil
		l.mu.Unlock()
		for _, c := range doomed {
			l.end(c)
		}
		l.mu.Lock()
		for _, c := range doomed {
			l.release(c)
		}
	}
	l.mu.Unlock()
}
