package dial

import "golang.org/x/sys/unix"

// choosePortLater has connect choose the port of a socket, and not bind. Connections to
// different servers then share ports. Without it, a source has no more connections than
// there are ports. The option is for IPv6 sockets too. Linux before 4.2 does not have it.
func choosePortLater(fd int) {
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
}
