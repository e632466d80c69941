package transport

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/control/regular"
	"nightmare.mail/mxf/remote/dial"
	"nightmare.mail/mxf/remote/report"
)

// InProcess reports whether an attempt in protocol is carried out in this process: its
// program is one of ours, and so is its TLS client.
func (c *Carrier) InProcess(protocol *control.Protocol) bool {
	if protocol.Program != control.SMTPProgram && protocol.Program != control.QMTPProgram {
		return false
	}
	return !c.namesClient(protocol) && !c.isScript(protocol.Program)
}

// isScript reports whether a script stands in the place of one of our programs. Somebody
// put it there to have it run.
func (c *Carrier) isScript(program string) bool {
	first := c.places(program)[0]
	return c.Scripts.Of(first, time.Now, func() (isScript, lasts bool) {
		path, err := c.programPath(program)
		if err != nil {
			return false, false
		}
		f, _, err := regular.Open(path, os.O_RDONLY, 0)
		if err != nil {
			return false, false
		}
		defer f.Close()
		var head [2]byte
		n, err := f.Read(head[:])
		return string(head[:n]) == "#!", err == nil && path == first
	})
}

// namesClient reports whether a control file names the TLS client for protocol.
func (c *Carrier) namesClient(protocol *control.Protocol) bool {
	return protocol.Implicit && c.Settings.TLSClient != "" || protocol.Explicit && c.Settings.UCSPITLSClient != ""
}

// tlsClientPath returns the TLS client for protocol.
func (c *Carrier) tlsClientPath(protocol *control.Protocol) string {
	client, own := c.clients(protocol)
	return cmp.Or(client, own)
}

// clients returns the TLS client that a control file names for protocol, "" for none, and the
// bundled one.
func (c *Carrier) clients(protocol *control.Protocol) (named, own string) {
	named, own = c.Settings.UCSPITLSClient, "mxf-ucspitlsc"
	if protocol.Implicit {
		named, own = c.Settings.TLSClient, "mxf-tlsc"
	}
	return c.clientPath(named), filepath.Join(c.Programs, own)
}

// HasOurClient reports whether the TLS client for protocol is the bundled one, which matches
// TLSA records and pins. A control file may name it too, by a symbolic link or the name of
// the file beside our own executable, whatever that file is.
func (c *Carrier) HasOurClient(protocol *control.Protocol) bool {
	named, own := c.clients(protocol)
	if named == "" {
		return true
	}
	one, err := os.Stat(named)
	if err != nil {
		return false
	}
	other, err := os.Stat(own)
	return err == nil && os.SameFile(one, other)
}

// clientPath returns the path of a TLS client that a control file names, "" for "": a bare name
// is beside our own executable if there is such a file, else in <home>/bin.
func (c *Carrier) clientPath(client string) string {
	if client == "" || filepath.IsAbs(client) {
		return client
	}
	beside := filepath.Join(c.Programs, client)
	if _, err := os.Stat(beside); err == nil {
		return beside
	}
	return filepath.Join(c.Settings.Home, "bin", client)
}

// CheckClients returns a *control.Error for a TLS client that a control file names and that
// cannot be run.
func (c *Carrier) CheckClients() error {
	for _, client := range []struct{ name, path string }{{"tlsclient", c.clientPath(c.Settings.TLSClient)}, {"ucspitlsclient", c.clientPath(c.Settings.UCSPITLSClient)}} {
		if client.path == "" {
			continue
		}
		if err := runnable(client.path); err != nil {
			return &control.Error{File: "control/" + client.name, Line: 1, What: fmt.Sprintf("cannot run %s: %v", programName(client.path), err)}
		}
	}
	return nil
}

// CheckProgram returns the *report.Error of a protocol whose program is not there or cannot
// be run.
func (c *Carrier) CheckProgram(protocol *control.Protocol) error {
	_, err := c.programPath(protocol.Program)
	return err
}

// programPath finds a protocol program (see control.Protocol): a bare name beside our own
// executable, then in <home>/bin.
func (c *Carrier) programPath(program string) (string, error) {
	var first error
	for _, place := range c.places(program) {
		err := runnable(place)
		if err == nil {
			return place, nil
		}
		if first == nil {
			first = fmt.Errorf("%s%s: %w", programName(place), c.namedBy(program), err)
		}
	}
	return "", &report.Error{Case: report.ProgramFailed, Facts: report.Facts{Reason: first.Error()}, Err: first}
}

// places are where a program may be, in order.
func (c *Carrier) places(program string) []string {
	if filepath.IsAbs(program) {
		return []string{program}
	}
	return []string{filepath.Join(c.Programs, program), filepath.Join(c.Settings.Home, "bin", program)}
}

// runnable returns nil for a file that this process may execute.
func runnable(path string) error {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return dial.Reason(err)
	case info.IsDir():
		return errors.New("it is a directory")
	case !info.Mode().IsRegular():
		return regular.ErrNot
	case unix.Access(path, unix.X_OK) != nil:
		return errors.New("it may not be executed")
	}
	return nil
}

// namedBy says, in brackets, which line of which control file names program, as a path or
// as [control.Protocol] has it. It is "" for what only a default names.
func (c *Carrier) namedBy(program string) string {
	s := c.Settings
	switch program {
	case c.clientPath(s.TLSClient):
		return " (control/tlsclient:1)"
	case c.clientPath(s.UCSPITLSClient):
		return " (control/ucspitlsclient:1)"
	}
	for _, p := range s.Protocols {
		if p.Program == program && p.Line > 0 {
			return fmt.Sprintf(" (control/protocols:%d)", p.Line)
		}
	}
	return ""
}

// programName quotes the path of a program up to a blank: people put arguments there, and
// passwords among those.
func programName(path string) string {
	word, _, more := strings.Cut(path, " ")
	if more {
		return fmt.Sprintf("%q and more behind it, where no arguments can be given", word)
	}
	return fmt.Sprintf("%q", path)
}

// scriptHead is how much of a script is read to find its interpreter, in bytes; Linux looks
// at 256.
const scriptHead = 256

// notStarted says why the system did not start the program at path, which is there and may
// be executed. What the system says of a script is about some other file.
func notStarted(path string, err error) error {
	err = dial.Reason(err)
	f, _, unreadable := regular.Open(path, os.O_RDONLY, 0)
	if unreadable != nil {
		return err
	}
	defer f.Close()
	head := make([]byte, scriptHead)
	n, _ := io.ReadFull(f, head)
	line, isScript := bytes.CutPrefix(bytes.SplitN(head[:n], []byte("\n"), 2)[0], []byte("#!"))
	words := bytes.Fields(bytes.ReplaceAll(line, []byte("\r"), []byte(`\r`)))
	switch {
	case isScript && len(words) > 0 && (err == syscall.ENOENT || err == syscall.ENOTDIR):
		return fmt.Errorf("its first line names the interpreter \"%s\", which is missing", words[0])
	case isScript && len(words) > 0:
		return fmt.Errorf("its interpreter \"%s\" cannot be run: %w", words[0], err)
	case err == syscall.ENOEXEC:
		return errors.New("it is neither a program for this machine nor a script that begins with #! and an interpreter")
	case err == syscall.ENOENT:
		return errors.New("the loader that it wants is missing")
	}
	return err
}
