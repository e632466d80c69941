package line

import (
	"context"
	"time"
)

// crowdedFor is how long the server that wants no more is given to greet another connection:
// greeting and EHLO of connections that were begun together come seconds apart at most.
const crowdedFor = 5 * time.Second

// A Lease is a connection that counts for its holder: the right to make it, or a session.
// It ends by Keep, End, or Crowded. It belongs to one goroutine at a time.
type Lease struct {
	Want int // the index of what was given, in wants

	line    *Line
	conn    *conn
	session Session
	arrived uint64        // of the caller
	waited  time.Duration // by the caller
	ended   bool
}

// Session returns the kept session. nil: there is the room for a new connection.
func (le *Lease) Session() Session { return le.session }

// Messages returns how many transactions were begun over the connection so far.
func (le *Lease) Messages() int {
	le.line.mu.Lock()
	defer le.line.unlock()
	return le.conn.messages
}

// with calls f with the lock held, unless the lease has ended.
func (le *Lease) with(f func(l *Line, c *conn)) {
	le.line.mu.Lock()
	defer le.line.unlock()
	if !le.ended {
		f(le.line, le.conn)
	}
}

// Greeted says that the new connection is past its EHLO.
func (le *Lease) Greeted() {
	le.with(func(l *Line, c *conn) {
		if !c.greeted {
			l.greet(c)
		}
	})
}

func (l *Line) greet(c *conn) {
	c.greeted = true
	c.each(func(a *account) {
		a.greeted++
		a.tell()
	})
}

// Sent says that a transaction is begun, whatever becomes of it. LIMITS MAILMAX counts these.
func (le *Lease) Sent() {
	le.with(func(_ *Line, c *conn) { c.messages++ })
}

// Accepted says that a message was accepted. The window grows by one connection,
// but not within 60 s after the server wanted no more.
func (le *Lease) Accepted() {
	le.with(func(l *Line, c *conn) {
		c.addr.messages++
		l.raise(c.place)
	})
}

// Refused says that the server has refused n things of any kind. After 10 the session is not kept.
func (le *Lease) Refused(n int) {
	le.with(func(_ *Line, c *conn) { c.refusals += n })
}

// End says that the connection has gone, or never came to be. It may be called again.
func (le *Lease) End() {
	le.with(func(l *Line, c *conn) {
		le.ended = true
		l.release(c)
	})
}

// Crowded says that the server wants no more: it has refused the new connection. If another one to
// the same address is past its EHLO, or is being made and gets there within 5 s, Crowded returns
// true: the window is now the number of the others, and the lease has ended. The caller goes back
// into the line (Caller.Back). Otherwise the server has refused the delivery, and the lease goes on.
func (le *Lease) Crowded(ctx context.Context) bool {
	ctx, stop := context.WithTimeout(ctx, crowdedFor)
	defer stop()
	for {
		crowded, news := le.crowded()
		if news == nil {
			return crowded
		}
		select {
		case <-news:
		case <-ctx.Done():
			return false
		}
	}
}

// crowded returns the answer of Crowded. If news is not nil the answer is open until news is closed.
func (le *Lease) crowded() (crowded bool, news <-chan struct{}) {
	le.with(func(l *Line, c *conn) {
		if !c.crowded {
			c.crowded = true
			c.each(func(a *account) {
				a.crowded++
				a.tell() // the others in Crowded do not wait for this one
			})
		}
		others := c.addr.greeted
		if c.greeted {
			others--
		}
		switch {
		case others > 0:
			l.narrow(c.place)
			le.ended, crowded = true, true
			l.release(c)
		case c.addr.connections > c.addr.crowded:
			news = c.addr.listen()
		}
	})
	return crowded, news
}
