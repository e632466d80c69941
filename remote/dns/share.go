package dns

import (
	"context"
	"sync"
	"time"
)

// A Share is the part of a caller's time that some lookups may take. A lookup that waits for
// its first socket stops the clock, and the share begins anew once none of them waits: no
// name server is to blame for a queue of our own.
//
// A Share ends nothing. The caller reads C, and decides.
type Share struct {
	C <-chan time.Time // gets one value when the share is over

	timer  *time.Timer
	length time.Duration

	mu      sync.Mutex
	waiting int // lookups that wait for their first socket
}

type shareKey struct{}

// WithShare returns a context for lookups, and the share that they have. Stop it when they
// are done. A Resolver that asks another one hands the context on.
func WithShare(ctx context.Context, length time.Duration) (context.Context, *Share) {
	s := &Share{length: length, timer: time.NewTimer(length)}
	s.C = s.timer.C
	return context.WithValue(ctx, shareKey{}, s), s
}

// Stop releases what the share holds.
func (s *Share) Stop() { s.timer.Stop() }

// queue notes that a lookup of ctx waits for its first socket, until leave is called.
func queue(ctx context.Context) (leave func()) {
	if q, ok := ctx.Value(shareKey{}).(queuer); ok {
		return q.queue()
	}
	return func() {}
}

// A queuer is told of a lookup that waits for its first socket: a Share, or what a Cache asks
// for several callers, each with a Share of its own.
type queuer interface{ queue() (leave func()) }

func (s *Share) queue() (leave func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting++
	s.timer.Stop()
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.waiting--; s.waiting == 0 {
			s.timer.Reset(s.length)
		}
	}
}
