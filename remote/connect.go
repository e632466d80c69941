package remote

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
	// maxAddresses bounds the addresses that one delivery tries, so that a zone
	// with hundreds of them cannot hold a delivery slot for hours.
	maxAddresses = 20
	// maxRefused bounds those that do not count to maxAddresses because they cost
	// no time: they refuse at once, or this host has no way to them.
	maxRefused = 100
)

// A connector connects to one exchanger at a time.
type connector struct {
	timeout time.Duration // per address, 0: the kernel's
	dead    *deadHosts
	trace   func(format string, args ...any)
}

// A failure is an address that could not be connected to.
type failure struct {
	addr netip.AddrPort
	err  error
	late bool // it did not answer in time
}

// A budget says how many addresses may still be tried: how many that take their
// time, and how many that fail at once.
type budget struct{ slow, quick int }

func (b budget) spent() bool { return b.slow <= 0 || b.quick <= 0 }

// connect races the addresses in their order, each started attemptDelay after the
// one before it or as soon as that one failed, as long as the budget lasts. It
// returns the first connection, and the failures that came before it. Addresses
// that lost the race are in neither.
// Where foreign is set the table of dead hosts is not told (Candidate.ForeignPort).
func (c *connector) connect(ctx context.Context, addrs []netip.AddrPort, left budget, foreign bool) (*net.TCPConn, []failure) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	type result struct {
		failure
		conn *net.TCPConn
	}
	results := make(chan result)
	running := 0
	start := func(addr netip.AddrPort) {
		running++
		go func() {
			stack.Grow()
			r := result{failure: failure{addr: addr}}
			defer func() {
				if p := recover(); p != nil {
					r.conn, r.err = nil, fmt.Errorf("panic while connecting: %v", p)
				}
				results <- r
			}()
			r.conn, r.late, r.err = c.dial(ctx, addr, foreign)
		}()
	}
	defer func() {
		// What still runs has been cancelled and ends at once.
		cancel()
		for ; running > 0; running-- {
			if r := <-results; r.conn != nil {
				r.conn.Close()
			}
		}
	}()

	next := time.NewTimer(0)
	defer next.Stop()
	var failures []failure
	for {
		select {
		case <-next.C:
			switch {
			case len(addrs) > 0 && !left.spent() && running < left.slow:
				start(addrs[0])
				addrs = addrs[1:]
				next.Reset(attemptDelay)
			case running == 0:
				return nil, failures
			}
		case r := <-results:
			running--
			if r.err == nil {
				return r.conn, failures
			}
			failures = append(failures, r.failure)
			if r.late {
				left.slow--
			} else {
				left.quick--
			}
			next.Reset(0)
		}
	}
}

// dial makes one connection and lets the table of dead hosts know how it went. It
// says whether a failure was that no answer came in time.
func (c *connector) dial(ctx context.Context, addr netip.AddrPort, foreign bool) (conn *net.TCPConn, late bool, err error) {
	began := time.Now()
	dialer := net.Dialer{Timeout: c.timeout}
	connected, err := dialer.DialContext(ctx, "tcp", addr.String())
	took := time.Since(began).Milliseconds()
	deadline, limited := ctx.Deadline()
	if err != nil && (ctx.Err() != nil || limited && !time.Now().Before(deadline)) {
		// Lost the race, which tells nothing about the host.
		return nil, false, cmp.Or(ctx.Err(), context.DeadlineExceeded)
	}
	late = timedOut(err)
	switch {
	case foreign:
	case late:
		c.dead.timedOut(addr.Addr())
	case err == nil, errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ECONNRESET):
		c.dead.answered(addr.Addr())
	default: // this host has no descriptor, port or route, or may not: it is not about the other
	}
	if err == nil {
		c.trace("connect %s: connected (%d ms)", addr, took)
		return connected.(*net.TCPConn), false, nil
	}
	if late {
		err = fmt.Errorf("no answer within %d s", took/1000)
	} else {
		var op *net.OpError
		if errors.As(err, &op) {
			err = op.Err
		}
		err = plain(err)
	}
	c.trace("connect %s: %v (%d ms)", addr, err, took)
	return nil, late, err
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

// order puts an exchanger's addresses in the order in which they are tried: the
// families alternate, each shuffled, IPv6 first when this host can use it.
func order(addrs []netip.Addr, rnd *rand.Rand) []netip.Addr {
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
	if len(six) > 0 && len(four) > 0 && hasGlobalIPv6(six[0]) {
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

// hasGlobalIPv6 reports whether the kernel would use a global source address
// towards to (RFC 6724). Connecting a UDP socket sends nothing.
func hasGlobalIPv6(to netip.Addr) bool {
	const discard = 9
	conn, err := net.DialUDP("udp6", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, discard)))
	if err != nil {
		return false
	}
	defer conn.Close()
	local, ok := conn.LocalAddr().(*net.UDPAddr)
	return ok && local.IP.IsGlobalUnicast() && !local.IP.IsPrivate()
}
