// Package chain is the Unix side that the mains share: inherited descriptors
// as a net.Conn, the environment, finding and running programs, giving up
// privileges, command lines, exit codes. It knows no protocol.
//
// A program of a chain is handed descriptors that other processes hold too. What
// belongs to the open file description and not to the descriptor, O_NONBLOCK
// above all, is therefore never changed here: [Open] says how that is done.
//
//	POSIX.1-2017 XSH   poll, fcntl, execve, shutdown
//	UCSPI-TCP          descriptors 6 and 7, the environment
package chain
