package transport

import (
	"bytes"
	"errors"
	"io"
	"os"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/control/regular"
)

// ProgramPath returns where the program of a protocol is found. The error is that of
// CheckProgram.
func (c *Carrier) ProgramPath(protocol *control.Protocol) (string, error) {
	return c.programPath(protocol.Program)
}

// ClientPath returns where a TLS client is found that a control file names, and why it cannot
// be run.
func (c *Carrier) ClientPath(client string) (string, error) {
	path := c.clientPath(client)
	return path, runnable(path)
}

// A Form is what an executable file is.
type Form int

// The forms.
const (
	Unknown    Form = iota // it cannot be read, which no system needs to run it
	Binary                 // whatever has a zero byte at its beginning
	Script                 // it begins with #!
	BareScript             // text without #!, which a shell would run and the system does not
)

// FormOf looks at the beginning of a file.
func FormOf(path string) Form {
	f, _, err := regular.Open(path, os.O_RDONLY, 0)
	if err != nil {
		return Unknown
	}
	defer f.Close()
	head := make([]byte, scriptHead)
	n, err := io.ReadFull(f, head)
	switch head = head[:n]; {
	case err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
		return Unknown
	case bytes.HasPrefix(head, []byte("#!")):
		return Script
	case bytes.IndexByte(head, 0) >= 0:
		return Binary
	}
	return BareScript
}
