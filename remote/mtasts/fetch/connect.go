package fetch

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"time"

	"nightmare.mail/mxf/remote/dial"
	"nightmare.mail/mxf/remote/dns"
	"nightmare.mail/mxf/tlsc"
)

// otherFamily is how long the addresses of one family wait for those of the other: as long
// as a name server's first round, so that one that drops AAAA costs no more.
const otherFamily = time.Second

// connect returns a connection inside TLS, whose certificate is good for host.
func (c *Client) connect(ctx context.Context, host string) (*tlsc.Conn, error) {
	addrs, err := c.addresses(ctx, host)
	if err != nil {
		return nil, err
	}
	var ends []netip.AddrPort
	for _, addr := range dial.Order(addrs, dial.Sources{}, rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))) {
		ends = append(ends, netip.AddrPortFrom(addr, c.Port))
	}
	dialer := dial.Dialer{Trace: func(string, ...any) {}}
	// The table of dead hosts is for mail alone.
	conn, failures := dialer.Race(ctx, ends, dial.Budget{Slow: dial.MaxSlow, Quick: dial.MaxQuick}, true)
	if conn == nil {
		err := errors.New("no address could be connected to")
		if len(failures) > 0 {
			err = failures[len(failures)-1].Err
		}
		return nil, err
	}
	secure, err := c.TLS.Handshake(ctx, conn, &tlsc.Demand{ServerName: host, Judge: tlsc.TrustAnchors{}, Certificate: tlsc.NoCertificate})
	if err != nil {
		conn.Close()
		return nil, err
	}
	return secure, nil
}

// addresses returns those of host, of both families.
func (c *Client) addresses(ctx context.Context, host string) ([]netip.Addr, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	arrivals := dns.Start(ctx, c.Resolver, []dns.Question{{Name: host, Type: dns.TypeAAAA}, {Name: host, Type: dns.TypeA}})
	var addrs []netip.Addr
	var enough <-chan time.Time
	failure := errors.New("it has no address")
	for range 2 {
		select {
		case arrival := <-arrivals:
			addrs = append(addrs, arrival.Answer.Addrs...)
			if arrival.Answer.Err != nil {
				failure = arrival.Answer.Err
			}
			if len(addrs) > 0 {
				enough = time.After(otherFamily)
			}
		case <-enough:
			return addrs, nil
		}
	}
	if len(addrs) == 0 {
		return nil, failure
	}
	return addrs, nil
}
