// Package dialtest has addresses on loopback that tests connect to.
package dialtest

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
)

// A TB is what this package needs of a test.
type TB interface {
	Helper()
	Fatal(args ...any)
	Cleanup(func())
}

// Listen listens on addr until the test ends.
func Listen(t TB, addr string) (net.Listener, netip.AddrPort) {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, l.Addr().(*net.TCPAddr).AddrPort()
}

// Silent returns an address that neither accepts nor refuses: that of a listener whose
// queue is full.
func Silent(t TB) netip.AddrPort {
	t.Helper()
	socket := func(act func(fd int) error) int {
		t.Helper()
		fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { syscall.Close(fd) })
		syscall.CloseOnExec(fd)
		if err := act(fd); err != nil && err != syscall.EINPROGRESS {
			t.Fatal(err)
		}
		return fd
	}
	loopback := [4]byte{127, 0, 0, 1}
	listener := socket(func(fd int) error {
		return errors.Join(syscall.Bind(fd, &syscall.SockaddrInet4{Addr: loopback}), syscall.Listen(fd, 0))
	})
	name, err := syscall.Getsockname(listener)
	if err != nil {
		t.Fatal(err)
	}
	port := name.(*syscall.SockaddrInet4).Port
	for range 4 { // more than a queue of length 0 holds: the kernel adds one
		socket(func(fd int) error {
			if err := syscall.SetNonblock(fd, true); err != nil {
				return err
			}
			return syscall.Connect(fd, &syscall.SockaddrInet4{Addr: loopback, Port: port})
		})
	}
	return netip.AddrPortFrom(netip.AddrFrom4(loopback), uint16(port))
}

// Refused returns an address at which nobody listens.
func Refused(t TB) netip.AddrPort {
	t.Helper()
	l, addr := Listen(t, "127.0.0.1:0")
	l.Close()
	return addr
}
