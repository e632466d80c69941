// Package dial connects to one exchanger at a time: its addresses are raced (RFC 8305), and
// those that timed out lately are known from the table of dead hosts that all of qmail
// shares.
//
//	RFC 8305             Happy Eyeballs
//	RFC 6724             source addresses, where none is set
//	qmail-tcpto(8)       the table of dead hosts
package dial

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"syscall"
	"time"

	"nightmare.mail/mxf/remote/stack"
)

const (
	// attemptDelay separates the starts of connections to one exchanger's
	// addresses: RFC 8305, section 5, Connection Attempt Delay.
	attemptDelay = 250 * time.Millisecond
	// MaxSlow bounds the addresses that one delivery tries, so that a zone with hundreds
	// of them cannot hold a delivery slot for hours.
	MaxSlow = 20
	// MaxQuick bounds those that do not count to MaxSlow because they cost no time: they
	// refuse at once, or this host has no route to them.
	MaxQuick = 100
)

// A Dialer connects to one exchanger at a time.
type Dialer struct {
	Timeout time.Duration // for each address; 0: the kernel's
	From    Sources       // never replaced by another address
	Dead    *DeadHosts
	Trace   func(format string, args ...any)
	Now     func() time.Time // the clock by which an attempt is measured; nil: time.Now
	// Measure is told how long each connection took, from several goroutines; nil: nobody is.
	Measure func(addr netip.AddrPort, took time.Duration)

	// Admit is asked before each connection is begun; nil: all may be. An address that is not
	// admitted is passed over. For one that is, done is called once, when the attempt is over:
	// with the connection that Race returns, before it does, or with nil, when nothing is left
	// of the attempt. Both are called by the goroutine of Race.
	Admit func(addr netip.AddrPort) (done func(conn *net.TCPConn), admitted bool)
}

// A Failure is an address that could not be connected to.
type Failure struct {
	Addr netip.AddrPort
	Err  error // a *SourceError if the reason is our own address; ErrSilent if it was not tried
	Late bool  // it did not answer in time
	Took time.Duration
}

// A Budget is how many addresses may still be tried: how many that take their time, and
// how many that fail at once.
type Budget struct{ Slow, Quick int }

// Spent reports whether no further address may be tried.
func (b Budget) Spent() bool { return b.Slow <= 0 || b.Quick <= 0 }

// Race races the addresses in their order, each started attemptDelay after the one before
// it or as soon as that one failed, as long as the budget lasts. It returns the first
// connection, or nil, and the failures that came before it. Addresses that lost the race, and
// those that Admit passes over, are in neither. Where a stranger had a say in the port
// (foreign) the table of dead hosts is not told.
func (c *Dialer) Race(ctx context.Context, addrs []netip.AddrPort, left Budget, foreign bool) (*net.TCPConn, []Failure) {
	r := race{Dialer: c, foreign: foreign, results: make(chan result)}
	var cancel context.CancelFunc
	r.ctx, cancel = context.WithCancel(ctx)
	defer r.drain()
	defer cancel()

	next := time.NewTimer(0)
	defer next.Stop()
	for {
		select {
		case <-next.C:
			switch {
			case len(addrs) > 0 && !left.Spent() && r.running < left.Slow:
				wait := time.Duration(0) // for the next one, where this one is passed over
				if r.start(addrs[0]) {
					wait = attemptDelay
				}
				addrs = addrs[1:]
				next.Reset(wait)
			case r.running == 0:
				return nil, r.failures
			}
		case got := <-r.results:
			r.running--
			if got.failure == nil {
				got.done(got.conn)
				return got.conn, r.failures
			}
			got.done(nil)
			r.failures = append(r.failures, *got.failure)
			if got.failure.Late {
				left.Slow--
			} else {
				left.Quick--
			}
			next.Reset(0)
		}
	}
}

// A race is one call of Race.
type race struct {
	*Dialer
	ctx      context.Context // ends with the race
	foreign  bool
	results  chan result
	running  int
	failures []Failure
}

// A result is the end of one attempt.
type result struct {
	conn    *net.TCPConn
	failure *Failure // nil for a connection
	done    func(*net.TCPConn)
}

// start begins an attempt, and reports whether it did.
func (r *race) start(addr netip.AddrPort) bool {
	release, may := r.Dead.silences().claim(addr)
	if !may {
		r.Trace("connect %s: %v", addr, ErrSilent)
		r.failures = append(r.failures, Failure{Addr: addr, Err: ErrSilent})
		return false
	}
	done := func(*net.TCPConn) {}
	if r.Admit != nil {
		var admitted bool
		if done, admitted = r.Admit(addr); !admitted {
			release()
			return false
		}
	}
	r.running++
	go func() {
		stack.Grow()
		got := result{done: done}
		defer func() {
			if p := recover(); p != nil {
				got = result{failure: &Failure{Addr: addr, Err: fmt.Errorf("panic while connecting: %v", p)}, done: done}
			}
			release()
			r.results <- got
		}()
		got.conn, got.failure = r.dial(r.ctx, addr, r.foreign)
	}()
	return true
}

// drain waits for what still runs once the race is over: it has been cancelled and ends at once.
func (r *race) drain() {
	for ; r.running > 0; r.running-- {
		got := <-r.results
		if got.conn != nil {
			got.conn.Close()
		}
		got.done(nil)
	}
}

func (c *Dialer) now() time.Time {
	if c.Now != nil {
		return c.Now()
	}
	return time.Now()
}

// dial makes one connection and tells the table of dead hosts how it went.
func (c *Dialer) dial(ctx context.Context, addr netip.AddrPort, foreign bool) (*net.TCPConn, *Failure) {
	began := c.now()
	conn, err := c.connect(ctx, addr)
	lasted := c.now().Sub(began)
	took := lasted.Milliseconds()
	deadline, limited := ctx.Deadline()
	if err != nil && (ctx.Err() != nil || limited && !c.now().Before(deadline)) {
		// It lost the race, which says nothing about the host.
		return nil, &Failure{Addr: addr, Err: cmp.Or(ctx.Err(), context.DeadlineExceeded)}
	}
	var source *SourceError
	if errors.As(err, &source) {
		c.Trace("connect %s: %v", addr, source)
		return nil, &Failure{Addr: addr, Err: source, Took: lasted}
	}
	late := timedOut(err)
	switch {
	case foreign:
		if err == nil {
			c.Dead.silences().answered(addr)
		}
	case late:
		c.Dead.silences().timedOut(addr, c.Dead.count(ctx, addr.Addr()))
	case err == nil, errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ECONNRESET):
		c.Dead.silences().answered(addr)
		c.Dead.Answered(ctx, addr.Addr())
	default: // this host has no descriptor, port or route, or may not connect: that says nothing about the other
	}
	if err == nil {
		c.Trace("connect %s: connected (%d ms)", addr, took)
		if c.Measure != nil {
			c.Measure(addr, lasted)
		}
		return conn, nil
	}
	if late {
		err = fmt.Errorf("no answer within %d s", took/1000)
	} else {
		err = Reason(err)
	}
	c.Trace("connect %s: %v (%d ms)", addr, err, took)
	return nil, &Failure{Addr: addr, Err: err, Late: late, Took: lasted}
}

// Reason returns what the system said, without the operation and the address, which the
// caller names itself.
func Reason(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}

// NoDescriptor reports whether err says that this process, or this host, has no descriptor left.
func NoDescriptor(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

// timedOut reports whether err says that no answer came, by the kernel's limit or
// by ours. (EAGAIN, by which some kernels say that no port is free, calls itself a
// time-out too.)
func timedOut(err error) bool {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno == syscall.ETIMEDOUT
	}
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// Order returns an exchanger's addresses in the order in which they are tried: the families
// alternate, each shuffled, IPv6 first when this host can use it from the source that is set.
func Order(addrs []netip.Addr, from Sources, rnd *rand.Rand) []netip.Addr {
	var six, four []netip.Addr
	for _, a := range addrs {
		if a.Is4() {
			four = append(four, a)
		} else {
			six = append(six, a)
		}
	}
	for _, family := range [][]netip.Addr{six, four} {
		rnd.Shuffle(len(family), func(i, j int) { family[i], family[j] = family[j], family[i] })
	}
	first, second := four, six
	if len(six) > 0 && len(four) > 0 && usesIPv6(six[0], from.Six) {
		first, second = six, four
	}
	ordered := make([]netip.Addr, 0, len(addrs))
	for i := range max(len(first), len(second)) {
		if i < len(first) {
			ordered = append(ordered, first[i])
		}
		if i < len(second) {
			ordered = append(ordered, second[i])
		}
	}
	return ordered
}

// usesIPv6 reports whether the kernel would connect to an address from source, or, if none is
// set, from a global one (RFC 6724). Connecting a UDP socket sends nothing.
func usesIPv6(to, source netip.Addr) bool {
	const discard = 9
	var from *net.UDPAddr
	if source.IsValid() {
		from = net.UDPAddrFromAddrPort(netip.AddrPortFrom(source, 0))
	}
	conn, err := net.DialUDP("udp6", from, net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, discard)))
	if err != nil {
		return false
	}
	defer conn.Close()
	local, ok := conn.LocalAddr().(*net.UDPAddr)
	return ok && (source.IsValid() || local.IP.IsGlobalUnicast() && !local.IP.IsPrivate())
}

// RemoteAddr is the address that conn leads to, unmapped.
func RemoteAddr(conn *net.TCPConn) netip.AddrPort { return unmapped(conn.RemoteAddr()) }

// LocalAddr is the address that conn comes from, unmapped.
func LocalAddr(conn *net.TCPConn) netip.AddrPort { return unmapped(conn.LocalAddr()) }

func unmapped(a net.Addr) netip.AddrPort {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	addr := tcp.AddrPort()
	return netip.AddrPortFrom(addr.Addr().Unmap().WithZone(""), addr.Port())
}
