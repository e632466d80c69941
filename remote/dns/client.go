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
	// maxSockets bounds the sockets of a Client: a process may have 1,024 descriptors,
	// and needs them for other things.
	maxSockets = 64
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
// It has 64 sockets at most, whoever asks. Each is taken for one query and given back
// after the patience of one round. Those who wait for one get it in the order in which
// they came. So somebody with many questions delays the others, each query by what stands
// before it in the queue, but does not keep them away.
type Client struct {
	config  Config
	sockets chan struct{} // has an element for each socket in use

	lastGood    atomic.Int32            // the server that gave the last good answer: it is asked first
	withoutEDNS [maxServers]atomic.Bool // servers that queries with EDNS0 do not get to
}

// NewClient returns a Client that goes by config.
func NewClient(config Config) *Client {
	config.Servers = slices.Clone(config.Servers[:min(len(config.Servers), maxServers)])
	if config.IDs == nil {
		config.IDs = crand.Reader
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	return &Client{config: config, sockets: make(chan struct{}, maxSockets)}
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
			r, err := l.askServer(ctx, s, edns, wait)
			if err == nil {
				l.lastGood.Store(int32(s))
				if silent[s] {
					l.withoutEDNS[s].Store(true)
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

// over returns the error of a context that is over. A socket's deadline can be noticed before
// the context's, which is the same.
func (l *lookup) over(ctx context.Context) error {
	if end, ok := ctx.Deadline(); ok && !l.config.Now().Before(end) {
		return cmp.Or(ctx.Err(), context.DeadlineExceeded)
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
		return &cutShort{errors.New("not waited for any longer"), cause}
	}
	return &cutShort{l.why(last, said), cause}
}

// cutShort is a failure of a lookup that had no time left, which says nothing to others.
type cutShort struct {
	error
	cause error // the context's
}

func (e *cutShort) Unwrap() []error { return []error{e.error, e.cause} }

// errNoSocket says that the time was over while all sockets were in use.
var errNoSocket = errors.New("no socket was free in time")

// tooLate is the reason of a lookup that ran out of time with server.
func tooLate(server netip.AddrPort, err error) error {
	if errors.Is(err, errNoSocket) {
		return err
	}
	return fmt.Errorf("%s: no answer in time", server)
}

// takeSocket waits until a socket is free. A channel serves those who wait in their order,
// and nobody gets past them, because it is full as long as anybody waits.
func (c *Client) takeSocket(ctx context.Context) error {
	select {
	case c.sockets <- struct{}{}:
		return nil
	default:
	}
	select {
	case c.sockets <- struct{}{}:
		return nil
	case <-ctx.Done():
		return errNoSocket
	}
}

func (c *Client) giveSocket() { <-c.sockets }
