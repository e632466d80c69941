// Package ucspitls speaks both ends of UCSPI-TLS, by which a program that runs under a TLS
// client (or server) asks for TLS in the middle of its conversation.
//
//	y      program to TLS client   start TLS, tell nothing
//	Y      program to TLS client   start TLS and tell about it
//	block  TLS client to program   "NAME=value\0" or "NAME\0" (remove it), any
//	                               number of times, then "\0", then end of file
//
// The bytes travel over the stream socket that $SSLCTLFD names. From then on the program
// reads $SSLREADFD and writes $SSLWRITEFD. If the handshake fails, the TLS client closes
// the socket and sends nothing.
//
// The protocol is defined by UCSPI-TLS (Scott Gifford, 2004) and by the program pages of
// s6-networking (s6-ucspitlsc, s6-ucspitlsd).
package ucspitls

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
)

// The environment variables that name the three descriptors, in decimal.
const (
	ControlVariable = "SSLCTLFD"
	ReadVariable    = "SSLREADFD"
	WriteVariable   = "SSLWRITEFD"
)

// MaxBlock bounds a block, in bytes with all its zeros. It is ten times what any TLS
// client sends, and no more than a socket takes at once.
const MaxBlock = 64 << 10

// The errors, besides those of reading and writing.
var (
	ErrHandshake = errors.New("the TLS client could not start TLS")               // nothing was sent
	ErrTruncated = errors.New("the TLS client broke off in the middle of a list") // end of file before the last zero
	ErrTooLong   = errors.New("the TLS client's list is too long")                // more than MaxBlock
	ErrMalformed = errors.New("the TLS client's list has an entry without a name")
)

// A Command is what the program asks for.
type Command byte

// The commands.
const (
	None  Command = 0   // end of file: nobody will ask for TLS
	Quiet Command = 'y' // start TLS
	Full  Command = 'Y' // start TLS and tell about it
)

// An UnknownCommand is a byte on the control socket that is not a command.
type UnknownCommand byte

func (u UnknownCommand) Error() string {
	return fmt.Sprintf("unknown command %q on the control socket", string(rune(u)))
}

// Start is the program's end. It asks for TLS and returns what the TLS client tells about
// it: assignments to apply to the environment in order ("NAME" alone: remove). It blocks
// until the handshake is done. The TLS client limits the time for that. The caller closes
// ctl.
//
// Errors are ErrHandshake, ErrTruncated, ErrTooLong, ErrMalformed, and the errors of ctl.
func Start(ctl io.ReadWriter) (environ []string, err error) {
	if _, err := ctl.Write([]byte{byte(Full)}); err != nil {
		return nil, fmt.Errorf("unable to ask for TLS: %w", err)
	}
	return Receive(ctl)
}

// Receive reads a block: the second half of Start.
func Receive(r io.Reader) ([]string, error) {
	block := make([]byte, 0, 1024)
	for {
		if len(block) == cap(block) {
			block = append(block, make([]byte, cap(block))...)[:len(block)]
		}
		n, err := r.Read(block[len(block):min(cap(block), MaxBlock)])
		seen := len(block)
		block = block[:seen+n]
		switch {
		case complete(block, seen):
			return parse(string(block))
		case len(block) == MaxBlock:
			return nil, ErrTooLong
		case err == io.EOF && len(block) == 0:
			return nil, ErrHandshake
		case err == io.EOF:
			return nil, ErrTruncated
		case err != nil:
			return nil, fmt.Errorf("unable to read what the TLS client tells: %w", err)
		}
	}
}

// complete reports whether the block has its last zero, which follows another zero or is
// the first byte. The first seen bytes do not have it.
func complete(block []byte, seen int) bool {
	return len(block) > 0 && block[0] == 0 || bytes.Contains(block[max(seen-1, 0):], []byte{0, 0})
}

func parse(block string) ([]string, error) {
	var environ []string
	for entry := range strings.SplitSeq(block, "\x00") {
		if entry == "" {
			break
		}
		if entry[0] == '=' {
			return nil, ErrMalformed
		}
		environ = append(environ, entry)
	}
	return environ, nil
}

// Await is the TLS client's end. It blocks until the program asks for something. None
// without an error means that nobody will.
//
// Errors are UnknownCommand and the errors of ctl, except io.EOF.
func Await(ctl io.Reader) (Command, error) {
	var b [1]byte
	switch _, err := io.ReadFull(ctl, b[:]); {
	case err == io.EOF:
		return None, nil
	case err != nil:
		return None, fmt.Errorf("unable to read the control socket: %w", err)
	}
	switch c := Command(b[0]); c {
	case Quiet, Full:
		return c, nil
	}
	return None, UnknownCommand(b[0])
}

// Tell is the TLS client's answer to Full: assignments to the environment, in one write.
// The caller closes ctl after it.
//
// Errors are ErrMalformed or ErrTooLong for what Receive would not take, or for a zero
// byte inside an entry, and the errors of ctl.
func Tell(ctl io.Writer, environ []string) error {
	var block strings.Builder
	for _, entry := range environ {
		if entry == "" || entry[0] == '=' || strings.ContainsRune(entry, 0) {
			return ErrMalformed
		}
		block.WriteString(entry + "\x00")
	}
	block.WriteByte(0)
	if block.Len() > MaxBlock {
		return ErrTooLong
	}
	_, err := io.WriteString(ctl, block.String())
	return err
}
