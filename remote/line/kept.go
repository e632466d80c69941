package line

import (
	"container/list"
	"slices"
	"time"
)

const (
	mostAge      = 300 * time.Second // of a connection that is kept: name servers and policies change
	mostRefusals = 10                // on one connection: a server may count them as an attack
)

// A conn is a connection that counts.
type conn struct {
	place
	key      Key
	keepable bool
	session  Session // nil: no session has been kept yet
	made     time.Time
	messages int
	refusals int
	greeted  bool // past EHLO
	crowded  bool // the server wants no more

	watch   int           // of which watch a callback is
	watched bool          // between Watch and Wake
	lost    bool          // the watch has found it dead
	kept    *list.Element // in Line.idle, while it is kept
	timer   *time.Timer   // ends it when it was kept for long enough
}

// Keeping says how long a session is kept.
type Keeping struct {
	Idle        time.Duration // without use; 0: it is not kept
	MaxMessages int           // the lesser of connectionlimits and LIMITS MAILMAX; 0: no bound
	Made        time.Time     // when the connection was made; zero: when its lease was given
}

// Keep gives the session back for others. The first in line whom it fits gets it. Otherwise those
// who want the room of that account come first, and it ends for them.
// A session that must not be kept ends by Quit, in Keep. The lease has ended.
func (le *Lease) Keep(s Session, k Keeping) {
	l, c := le.line, le.conn
	l.mu.Lock()
	if le.ended {
		l.unlock()
		quit(s)
		return
	}
	le.ended = true
	if s == nil {
		l.release(c)
		l.unlock()
		return
	}
	if !c.greeted {
		l.greet(c)
	}
	if !k.Made.IsZero() {
		c.made = k.Made
	}
	c.session = s
	idle := l.keeping(c, k)
	if idle <= 0 {
		l.doom(c)
		l.unlock()
		return
	}
	c.watch++
	c.lost = false
	watch := c.watch
	l.unlock()

	watched := guarded(func() { s.Watch(func() { l.lost(c, watch) }) })

	l.mu.Lock()
	defer l.unlock()
	c.watched = watched
	if !watched || c.lost || l.closed {
		l.doom(c)
		return
	}
	l.offer(c, idle)
}

// keeping returns how long c may be kept; not positive: it must end.
func (l *Line) keeping(c *conn, k Keeping) time.Duration {
	switch {
	case l.closed, !c.keepable, c.crowded,
		c.refusals >= mostRefusals,
		k.MaxMessages > 0 && c.messages >= k.MaxMessages,
		c.holder.connections > max(c.holder.limit, leastAllowed): // the limit was lowered
		return 0
	}
	return min(k.Idle, mostAge-l.now().Sub(c.made))
}

// offer keeps c for idle, unless somebody in line wants it or its place.
func (l *Line) offer(c *conn, idle time.Duration) {
	l.busy--
	c.kept = l.idle.PushBack(c)
	watch := c.watch
	c.timer = time.AfterFunc(idle, func() { guarded(func() { l.expire(c, watch) }) })
	c.each(func(a *account) { a.idle = append(a.idle, c) })
	for at := c.addr.waiters.Front(); at != nil; at = at.Next() {
		w := at.Value.(*waiter)
		for i, want := range w.wants {
			if w.places[i].addr == c.addr && l.fits(c, w.places[i], want) {
				l.take(c, w.places[i], want)
				l.grant(w, &grant{want: i, conn: c, kept: true})
				return
			}
		}
	}
	c.each(func(a *account) { l.touch(a) })
	l.settle()
	for l.idle.Len() > l.most {
		l.doom(l.idle.Front().Value.(*conn))
	}
}

// fits reports whether the kept c serves w, which counts at p.
func (l *Line) fits(c *conn, p place, w Want) bool {
	if !w.Keepable || w.New || c.key != w.Key {
		return false
	}
	return c.holder == p.holder || p.holder == p.addr || p.holder.connections < p.holder.held()
}

// fitting returns the kept connection for w that was used last, or nil. So the others reach the
// end of their time, and no more are kept than are needed.
func (l *Line) fitting(p place, w Want) *conn {
	for _, c := range slices.Backward(p.addr.idle) {
		if l.fits(c, p, w) {
			return c
		}
	}
	return nil
}

// take takes the kept c into use for w.
func (l *Line) take(c *conn, p place, w Want) {
	l.leaveIdle(c)
	l.move(c, p)
}

// leaveIdle takes c out of what is kept. It counts as busy from now on.
func (l *Line) leaveIdle(c *conn) {
	l.idle.Remove(c.kept)
	c.kept = nil
	c.timer.Stop()
	l.busy++
	c.each(func(a *account) {
		i := slices.Index(a.idle, c)
		a.idle = slices.Delete(a.idle, i, i+1)
	})
}

// doom has unlock end c, whose session is not in use.
func (l *Line) doom(c *conn) {
	if c.kept != nil {
		l.leaveIdle(c)
	}
	l.doomed = append(l.doomed, c)
}

// woken reports whether the session of c can be used. l.mu is not held.
func (l *Line) woken(c *conn) bool {
	usable := false
	guarded(func() { usable = c.session.Wake() })
	l.mu.Lock()
	defer l.unlock()
	c.watched = false
	c.watch++ // a callback that is late means nothing
	return usable && !c.lost
}

// lost is what a watch calls.
func (l *Line) lost(c *conn, watch int) {
	l.mu.Lock()
	defer l.unlock()
	if c.watch != watch {
		return
	}
	c.lost = true
	if c.kept != nil {
		l.doom(c)
	}
}

// expire ends c, which was kept for long enough.
func (l *Line) expire(c *conn, watch int) {
	l.mu.Lock()
	defer l.unlock()
	if c.watch == watch && c.kept != nil {
		l.doom(c)
	}
}

// MakeRoom ends the kept session that was not used for longest, because a descriptor is wanted.
// It reports whether there was one.
func (l *Line) MakeRoom() bool {
	l.mu.Lock()
	defer l.unlock()
	if l.idle.Len() == 0 {
		return false
	}
	l.doom(l.idle.Front().Value.(*conn))
	return true
}

// Forget forgets what was learnt of servers, and ends the kept sessions. Those in use can be kept later.
func (l *Line) Forget() {
	l.mu.Lock()
	defer l.unlock()
	for _, a := range l.accounts {
		a.window, a.frozen = 0, time.Time{}
		l.touch(a)
	}
	l.endKept()
}

// Close ends the kept sessions. Nothing is kept from now on.
func (l *Line) Close() {
	l.mu.Lock()
	defer l.unlock()
	l.closed = true
	l.endKept()
}

func (l *Line) endKept() {
	for l.idle.Len() > 0 {
		l.doom(l.idle.Front().Value.(*conn))
	}
}

// end ends the session of c, which is neither in use nor kept. l.mu is not held.
func (l *Line) end(c *conn) {
	l.mu.Lock()
	watched := c.watched && !c.lost
	l.mu.Unlock()
	if watched {
		l.woken(c)
	}
	quit(c.session)
}

// quit ends a session. A panic in it would hit a delivery that has nothing to do with it, or the process.
func quit(s Session) {
	if s != nil {
		guarded(s.Quit)
	}
}

// guarded reports whether f has returned without a panic.
func guarded(f func()) (returned bool) {
	defer func() { _ = recover() }()
	f()
	return true
}
