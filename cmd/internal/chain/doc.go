// Package chain is the Unix side that the mains share: inherited descriptors
// as a net.Conn, the environment, finding and running programs, giving up
// privileges, command lines, exit codes. It knows no protocol.
//
// A program of a chain inherits descriptors that other processes hold too. So this
// package never changes what belongs to the open file description and not to the
// descriptor, O_NONBLOCK above all. [Open] says how it works without.
//
//	POSIX.1-2017 XSH   poll, fcntl, execve, shutdown
//	UCSPI-TCP          descriptors 6 and 7, the environment
package chain
