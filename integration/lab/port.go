package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

// addresses are the loopback addresses on which a lab reserves its ports. Nothing
// answers on those that no server was started on: connections are refused. The
// first is never used: it makes the number unavailable to other labs while servers
// on the others come and go.
var addresses = [...]string{
	"127.0.0.250", "127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5",
	"127.0.0.6", "127.0.0.7", "127.0.0.8", "::1",
}

// portTries bounds the search for a number that is free on every address.
const portTries = 50

// A Port is one TCP port number, reserved on all addresses of the lab: sockets
// that are bound and do not listen. They refuse connections, and nobody else can
// be given the number meanwhile.
type Port struct {
	Number uint16

	mu    sync.Mutex
	bound map[netip.Addr]int // descriptors
}

// ReservePort returns a port that the kernel chose. Addresses that this machine has not
// are left out: IPv6 on some, all but 127.0.0.1 on others.
func ReservePort() (*Port, error) {
	var last error
	for range portTries {
		p, err := reserve()
		if err == nil {
			return p, nil
		}
		last = err
	}
	return nil, fmt.Errorf("no port is free on all addresses: %w", last)
}

func reserve() (*Port, error) {
	p := &Port{bound: make(map[netip.Addr]int)}
	for _, text := range addresses {
		addr := netip.MustParseAddr(text)
		fd, err := bind(addr, p.Number)
		if errors.Is(err, syscall.EADDRNOTAVAIL) || err != nil && addr.Is6() && !errors.Is(err, syscall.EADDRINUSE) {
			continue // this machine has no such address
		}
		if err != nil {
			p.Close()
			return nil, err
		}
		p.bound[addr] = fd
		if p.Number == 0 {
			if p.Number, err = portOf(fd); err != nil {
				p.Close()
				return nil, err
			}
		}
	}
	if p.Number == 0 {
		return nil, errors.New("this machine has none of the loopback addresses")
	}
	return p, nil
}

func bind(addr netip.Addr, port uint16) (int, error) {
	family := syscall.AF_INET
	var name syscall.Sockaddr = &syscall.SockaddrInet4{Port: int(port), Addr: as4(addr)}
	if addr.Is6() {
		family = syscall.AF_INET6
		name = &syscall.SockaddrInet6{Port: int(port), Addr: addr.As16()}
	}
	syscall.ForkLock.RLock()
	fd, err := syscall.Socket(family, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(fd)
	}
	syscall.ForkLock.RUnlock()
	if err == nil {
		err = syscall.SetNonblock(fd, true)
	}
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	// A server may be started again while connections of the last one linger.
	err = syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1)
	if err := errors.Join(err, syscall.Bind(fd, name)); err != nil {
		syscall.Close(fd)
		return -1, os.NewSyscallError("bind", err)
	}
	return fd, nil
}

func portOf(fd int) (uint16, error) {
	name, err := syscall.Getsockname(fd)
	if err != nil {
		return 0, os.NewSyscallError("getsockname", err)
	}
	switch n := name.(type) {
	case *syscall.SockaddrInet4:
		return uint16(n.Port), nil
	case *syscall.SockaddrInet6:
		return uint16(n.Port), nil
	}
	return 0, errors.New("socket without a port")
}

// AddrPort returns the port on addr.
func (p *Port) AddrPort(addr netip.Addr) netip.AddrPort { return netip.AddrPortFrom(addr, p.Number) }

// Listen turns the reservation on addr into a listener. An address can be
// listened on again after its listener was closed.
func (p *Port) Listen(addr netip.Addr) (net.Listener, error) {
	fd, err := p.take(addr)
	if err != nil {
		return nil, err
	}
	if err := syscall.Listen(fd, syscall.SOMAXCONN); err != nil {
		syscall.Close(fd)
		return nil, os.NewSyscallError("listen", err)
	}
	f := os.NewFile(uintptr(fd), "listener")
	defer f.Close()
	return net.FileListener(f)
}

func (p *Port) take(addr netip.Addr) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if fd, ok := p.bound[addr]; ok {
		delete(p.bound, addr)
		return fd, nil
	}
	// A process that is being started holds a copy of every descriptor from its
	// fork to its exec, so the last listener may outlive its Close by a moment.
	for end := time.Now().Add(rebindLimit); ; time.Sleep(5 * time.Millisecond) {
		fd, err := bind(addr, p.Number)
		if !errors.Is(err, syscall.EADDRINUSE) || time.Now().After(end) {
			return fd, err
		}
	}
}

const rebindLimit = 5 * time.Second

// BlackHole makes addr a host that is down: packets to it are not answered. It is
// a listener whose queue is full. Close ends it.
func (p *Port) BlackHole(addr netip.Addr) (*BlackHole, error) {
	fd, err := p.take(addr)
	if err != nil {
		return nil, err
	}
	if err := syscall.Listen(fd, 0); err != nil {
		syscall.Close(fd)
		return nil, os.NewSyscallError("listen", err)
	}
	hole := &BlackHole{fds: []int{fd}}
	for range blackHoleQueue {
		c, err := startConnect(p.AddrPort(addr))
		if err != nil {
			hole.Close()
			return nil, err
		}
		hole.fds = append(hole.fds, c)
	}
	return hole, nil
}

// blackHoleQueue is more connections than a queue of length 0 holds (the kernel
// adds one), so that further ones stay unanswered.
const blackHoleQueue = 4

// startConnect begins a connection and does not wait for its end.
func startConnect(to netip.AddrPort) (int, error) {
	fd, err := bind(unspecified(to.Addr()), 0)
	if err != nil {
		return -1, err
	}
	var name syscall.Sockaddr = &syscall.SockaddrInet4{Port: int(to.Port()), Addr: as4(to.Addr())}
	if to.Addr().Is6() {
		name = &syscall.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
	}
	if err := syscall.Connect(fd, name); err != nil && !errors.Is(err, syscall.EINPROGRESS) {
		syscall.Close(fd)
		return -1, os.NewSyscallError("connect", err)
	}
	return fd, nil
}

func unspecified(like netip.Addr) netip.Addr {
	if like.Is6() {
		return netip.IPv6Unspecified()
	}
	return netip.IPv4Unspecified()
}

func as4(addr netip.Addr) (b [4]byte) {
	if addr.Is4() {
		b = addr.As4()
	}
	return b
}

// A BlackHole is an address that does not answer.
type BlackHole struct{ fds []int }

// Close makes the address refuse connections again.
func (h *BlackHole) Close() error {
	for _, fd := range h.fds {
		syscall.Close(fd)
	}
	h.fds = nil
	return nil
}

// Close gives the reservations back. Whoever has a listener closes it.
func (p *Port) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for addr, fd := range p.bound {
		syscall.Close(fd)
		delete(p.bound, addr)
	}
	return nil
}
