package dns

import (
	"cmp"
	"context"
	crand "crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	miekg "github.com/miekg/dns"
)

const (
	// defaultSockets is the bound where Config has none: a process may have 1,024
	// descriptors, and needs them for other things.
	defaultSockets = 64
	// ednsPause is how long a server is asked without EDNS0 after it did without: long
	// enough to cost few deliveries the second that the finding takes, and short enough
	// that one lost packet is not held against a server for ever.
	ednsPause = time.Hour
	// unlimitedLookup ends a lookup whose context does not, because nothing may wait for
	// ever.
	unlimitedLookup = 2 * time.Minute
)

// patience is how long each server is waited for, round by round. The first round is
// short, so that a server that is down costs little; the later ones leave time to a cache
// that must ask far away. (The rounds of djbdns are alike.)
var patience = [...]time.Duration{1 * time.Second, 3 * time.Second, 9 * time.Second, 27 * time.Second}

// A Client is a Resolver that asks name servers.
//
// The number of its sockets is bounded, whoever asks. Each is taken for one query and given
// back after the patience of one round. Those who wait for one get it in the order in which
// they came. A lookup to which a server was silent waits in a line of its own from then on,
// and such lookups have at most half of the sockets. So hundreds of questions to a dead zone
// delay the others by what stands before them in the queue, but do not keep them away.
type Client struct {
	config  Config
	sockets line
	retries line // for those who want one more try; each holds a socket too

	lastGood    atomic.Int32             // the server that gave the last good answer: it is asked first
	withoutEDNS [maxServers]atomic.Int64 // until when a server is asked without EDNS0, in Unix nanoseconds
}

// NewClient returns a Client that goes by config.
func NewClient(config Config) *Client {
	config.Servers = slices.Clone(config.Servers[:min(len(config.Servers), maxServers)])
	if config.Sockets <= 0 {
		config.Sockets = defaultSockets
	}
	if config.IDs == nil {
		config.IDs = crand.Reader
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	return &Client{config: config, sockets: make(line, config.Sockets), retries: make(line, max(config.Sockets/2, 1))}
}

// stopEDNS notes that queries with EDNS0 do not get to a server.
func (c *Client) stopEDNS(server int) {
	c.withoutEDNS[server].Store(c.config.Now().Add(ednsPause).UnixNano())
}

// mayUseEDNS reports whether a server is asked with EDNS0.
func (c *Client) mayUseEDNS(server int) bool {
	until := c.withoutEDNS[server].Load()
	return until == 0 || c.config.Now().UnixNano() >= until
}

// Lookup asks the name servers, one after the other, until one answers.
func (c *Client) Lookup(ctx context.Context, q Question) *Answer {
	began := c.config.Now()
	if end, ok := ctx.Deadline(); !ok || end.Sub(began) > unlimitedLookup {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, unlimitedLookup)
		defer cancel()
	}
	l := &lookup{Client: c, answer: &Answer{Question: q}, name: miekg.Fqdn(q.Name)}
	l.flight, _ = ctx.Value(shareKey{}).(*flight)
	l.run(ctx)
	l.answer.Took = c.config.Now().Sub(began)
	return l.answer
}

// A lookup is one question on its way.
type lookup struct {
	*Client
	answer  *Answer // in the making
	name    string  // what is asked for now, with the final dot
	aliases int     // those that led to name
	begun   bool    // a query has had a socket
	silence bool    // a server was silent, for this name or one before it
	flight  *flight // whose askers are told how far it is; nil: there is one asker
}

// run fills in the answer. It follows aliases, also those that the server left to us.
func (l *lookup) run(ctx context.Context) {
	a := l.answer
	ttl, secure := uint32(maxTTL), a.Question.Secure
	for {
		r, server, err := l.ask(ctx)
		if err != nil {
			a.Err = err
			return
		}
		ttl, secure = min(ttl, r.ttl), secure && r.secure
		if r.unfinished {
			l.name, l.aliases = r.end, r.aliases
			continue
		}
		a.End, a.Server, a.Secure = strings.TrimSuffix(r.end, "."), server, secure
		a.TTL = time.Duration(ttl) * time.Second
		if r.noName {
			a.Err = ErrNoName
		}
		a.take(r.records)
		return
	}
}

// ask asks the servers for the name, one after the other and in rounds, until one answers.
// A server that says that it cannot tell is not asked again. Once one was silent the rest
// are asked without EDNS0: there are firewalls that let only that pass.
func (l *lookup) ask(ctx context.Context) (*reading, netip.AddrPort, error) {
	n := len(l.config.Servers)
	if n == 0 {
		return nil, netip.AddrPort{}, errors.New("no name server is known")
	}
	first := int(l.lastGood.Load()) % n
	var settled, silent [maxServers]bool
	edns := true
	var last, said error // said by a server, not by its absence
	for _, wait := range patience {
		for i := range n {
			s := (first + i) % n
			if settled[s] {
				continue
			}
			server := l.config.Servers[s]
			l.tell(cmp.Or(last, tooLate(server, nil)), said)
			r, err := l.askServer(ctx, s, edns, wait)
			if err == nil {
				l.lastGood.Store(int32(s))
				if silent[s] {
					l.stopEDNS(s)
				}
				return r, server, nil
			}
			if errors.As(err, new(saying)) {
				said = err
			}
			if over := l.over(ctx); over != nil {
				return nil, netip.AddrPort{}, l.cutShort(over, cmp.Or(last, tooLate(server, err)), said)
			}
			l.answer.Notes = append(l.answer.Notes, server.String()+": "+err.Error())
			if isTimeout(err) {
				last = tooLate(server, err)
				silent[s] = silent[s] || edns
				edns = false
				l.silence = true
				continue
			}
			last = fmt.Errorf("%s: %w", server, err)
			settled[s] = true
		}
		if !slices.Contains(settled[:n], false) {
			break
		}
	}
	return nil, netip.AddrPort{}, l.why(last, said)
}

// tell tells those who share the lookup what it will have come to if their time ends now.
func (l *lookup) tell(last, said error) {
	if l.flight != nil {
		l.flight.soFar.Store(&Answer{Question: l.answer.Question, Err: l.why(last, said), Notes: slices.Clone(l.answer.Notes)})
	}
}

// over returns the error of a context that is over: that of its deadline too where somebody
// ended it because a part of the time was over (context.Cause). A socket's deadline can be
// noticed before the context's, which is the same.
func (l *lookup) over(ctx context.Context) error {
	if end, ok := ctx.Deadline(); ok && !l.config.Now().Before(end) || errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
		return context.DeadlineExceeded
	}
	return ctx.Err()
}

// why is what is reported when no server has answered: the last reason. Where nobody has
// named any servers, that is the reason, and not that this host has none of its own.
func (l *lookup) why(last, said error) error {
	switch guess := l.config.Guess; {
	case guess == "":
		return last
	case said != nil:
		return fmt.Errorf("%s, and this machine's own: %w", guess, said)
	default:
		return fmt.Errorf("%s, and none answers on this machine", guess)
	}
}

// cutShort is why a lookup failed that the context has ended.
func (l *lookup) cutShort(cause, last, said error) error {
	if errors.Is(cause, context.Canceled) {
		return &cutShort{errNotWaitedFor, cause}
	}
	return &cutShort{l.why(last, said), cause}
}

// cutShort is a failure of a lookup that had no time left, which says nothing to others.
type cutShort struct {
	error
	cause error // the context's
}

func (e *cutShort) Unwrap() []error { return []error{e.error, e.cause} }

// errNotWaitedFor says that the caller gave a lookup up.
var errNotWaitedFor = errors.New("not waited for any longer")

// errNoSocket says that the time was over while all sockets were in use.
var errNoSocket = errors.New("no socket was free in time")

// tooLate is the reason of a lookup that ran out of time with server.
func tooLate(server netip.AddrPort, err error) error {
	if errors.Is(err, errNoSocket) {
		return err
	}
	return fmt.Errorf("%s: no answer in time", server)
}

// A line lets a bounded number pass at a time. A channel serves those who wait in their
// order, and nobody gets past them, because it is full as long as anybody waits.
type line chan struct{}

// enter waits for a place. wait is called if there is none at once.
func (l line) enter(ctx context.Context, wait func()) error {
	select {
	case l <- struct{}{}:
		return nil
	default:
	}
	wait()
	select {
	case l <- struct{}{}:
		return nil
	case <-ctx.Done():
		return errNoSocket
	}
}

func (l line) leave() { <-l }

// takeSocket waits until a socket is free. give gives it back.
func (l *lookup) takeSocket(ctx context.Context) (give func(), err error) {
	leave := func() {}
	wait := func() {
		if !l.begun {
			leave = queue(ctx)
		}
	}
	defer func() { leave() }()
	give = l.sockets.leave
	if l.silence {
		if err := l.retries.enter(ctx, wait); err != nil {
			return nil, err
		}
		give = func() { l.sockets.leave(); l.retries.leave() }
	}
	if err := l.sockets.enter(ctx, wait); err != nil {
		if l.silence {
			l.retries.leave()
		}
		return nil, err
	}
	l.begun = true
	return give, nil
}
