package dial

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// Sources are the addresses that connections come from, one for each family. The zero Addr
// leaves the choice to the system. Addresses have no zone, and Six is no mapped IPv4 address.
type Sources struct{ Four, Six netip.Addr }

// Towards returns the source of connections to addr.
func (s Sources) Towards(addr netip.Addr) netip.Addr {
	if addr.Is4() {
		return s.Four
	}
	return s.Six
}

// A SourceError is a source that a connection could not be bound to. It says nothing about
// the other end.
type SourceError struct {
	Addr    netip.Addr
	NotOurs bool  // it is no address of this host
	Err     error // what the system said
}

func (e *SourceError) Error() string { return fmt.Sprintf("unable to bind to %s: %v", e.Addr, e.Err) }

func (e *SourceError) Unwrap() error { return e.Err }

// OfFamilies returns those of addrs that are of a family in use, in their order.
func OfFamilies(addrs []netip.Addr, four, six bool) []netip.Addr {
	var kept []netip.Addr
	for _, addr := range addrs {
		if addr.Is4() && four || !addr.Is4() && six {
			kept = append(kept, addr)
		}
	}
	return kept
}

// connect connects to addr, from the source for its family.
func (c *Dialer) connect(ctx context.Context, addr netip.AddrPort) (*net.TCPConn, error) {
	dialer := net.Dialer{Timeout: c.Timeout}
	source := c.From.Towards(addr.Addr())
	if source.IsValid() {
		// Bound here and not by LocalAddr, an error of bind is known as one: connect says
		// EADDRNOTAVAIL too, when no port is free.
		dialer.Control = func(_, _ string, socket syscall.RawConn) error { return bind(socket, source) }
	}
	connected, err := dialer.DialContext(ctx, "tcp", addr.String())
	if err != nil {
		return nil, err
	}
	conn := connected.(*net.TCPConn)
	if source.IsValid() && LocalAddr(conn).Addr() != source {
		// The kernel takes 0.0.0.0 and broadcast addresses, and then chooses one itself.
		conn.Close()
		return nil, &SourceError{Addr: source, NotOurs: true, Err: unix.EADDRNOTAVAIL}
	}
	return conn, nil
}

// bind binds a socket to source. Errors are *SourceError.
func bind(socket syscall.RawConn, source netip.Addr) error {
	var name unix.Sockaddr = &unix.SockaddrInet6{Addr: source.As16()}
	if source.Is4() {
		name = &unix.SockaddrInet4{Addr: source.As4()}
	}
	var bound error
	err := socket.Control(func(fd uintptr) {
		choosePortLater(int(fd))
		bound = unix.Bind(int(fd), name)
	})
	if err = cmp.Or(err, bound); err != nil {
		return &SourceError{Addr: source, NotOurs: errors.Is(err, unix.EADDRNOTAVAIL), Err: err}
	}
	return nil
}
