package transport

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/remote/report"
	"nightmare.mail/mxf/smtpc"
	"nightmare.mail/mxf/tlsc"
)

// A Probe is an attempt that delivers nothing, and what it finds. A chain finds nothing beyond
// its reports.
type Probe struct {
	Ask bool // say MAIL, each RCPT and RSET too

	Greeting   smtpc.Reply
	Extensions []string         // what EHLO announced, the last time, a line each
	TLS        *tlsc.Inspection // nil: no handshake has come as far as a certificate
	InTLS      bool             // the conversation was inside TLS at its end
	Login      string           // the place of the login that was accepted; empty: none
	Answers    []smtpc.Answer   // with Ask, of each recipient

	ran bool
}

// Found reports whether anything but reports was found out: a chain is not looked into.
func (p *Probe) Found() bool { return p.ran }

// ErrForeign is in the error of a probe that would have to run a program that is not ours: it
// might deliver something.
var ErrForeign = errors.New("a program that is not ours")

// speaksHere reports whether a probe is made in this process: its program is ours, even if a
// control file names it by its path, and no control file names a TLS client.
func (c *Carrier) speaksHere(protocol *control.Protocol) bool {
	return !c.namesClient(protocol) && c.isOurs(protocol.Program)
}

// isOurs reports whether a protocol program is one of the bundled ones, and not a script in the
// place of one.
func (c *Carrier) isOurs(program string) bool {
	if c.isScript(program) {
		return false
	}
	if program == control.SMTPProgram || program == control.QMTPProgram {
		return true
	}
	path, err := c.programPath(program)
	if err != nil {
		return false
	}
	one, err := os.Stat(path)
	if err != nil {
		return false
	}
	for _, name := range []string{control.SMTPProgram, control.QMTPProgram} {
		other, err := os.Stat(filepath.Join(c.Programs, name))
		if err == nil && os.SameFile(one, other) {
			return filepath.Base(path) == name
		}
	}
	return false
}

// mayProbe is the error of a probe that is not made, because its program is not ours.
func (c *Carrier) mayProbe(protocol *control.Protocol) error {
	if c.isOurs(protocol.Program) {
		return nil
	}
	return &report.Error{Case: report.ProgramFailed, Err: ErrForeign,
		Facts: report.Facts{Reason: fmt.Sprintf("%s%s is not ours and is not run", programName(protocol.Program), c.namedBy(protocol.Program))}}
}

// probing are the options by which a protocol program of ours probes.
func (p *Probe) probing(protocol *control.Protocol) []string {
	switch {
	case p == nil:
		return nil
	case p.Ask && !protocol.QMTP():
		return []string{"-p", "-r"}
	}
	return []string{"-p"}
}
