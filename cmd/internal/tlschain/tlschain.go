// Package tlschain is what mxf-tlsc and mxf-ucspitlsc do. Each of them is two processes:
//
//	mxf-tlsc ... prog                     mxf-tlsc-io ...
//	  reads its command line
//	  looks prog up
//	  makes two pipes, starts  ─────────► reads TLS settings and key,
//	                                      gives up privileges
//	  waits                               handshake  ◄──────► network
//	            ◄──────────── the variables, over a third pipe
//	  becomes prog, same pid  ◄─────────► carries the tunnel ◄──────► network
//
// mxf-ucspitlsc becomes prog before its child does anything. In place of the third pipe it
// has a socket, over which prog asks for TLS (package ucspitls).
//
// The child is the same executable under another name. It has only the descriptors that
// child.go lists. It is a child of the process that becomes prog, as with s6-tlsc: prog
// can wait for it.
package tlschain

import (
	"errors"
	"strconv"
	"strings"

	"nightmare.mail/mxf/cmd/internal/chain"
	"nightmare.mail/mxf/tlsc"
	"nightmare.mail/mxf/ucspitls"
)

// A Program is one of the two.
type Program struct {
	Name      string // its own; the child's name has "-io" behind it
	Usage     string // the command lines; the first one is that with prog
	OnRequest bool   // prog asks for TLS in the middle of its conversation
}

// Main runs the program and returns its exit status. args[0] is the name of the program.
// If all goes well, Main becomes prog and does not return.
func (p *Program) Main(args, environ []string) int {
	name := p.Name + "-io"
	return chain.Guard(p.Name, func() int {
		if chain.IsChild(name) {
			chain.NoCore()
			return p.child(args[1:], environ)
		}
		return p.parent(args[min(1, len(args)):], environ)
	})
}

// end prints why the program ends, once, and returns the exit status.
func (p *Program) end(err error) int {
	if said := (saidError{}); err != nil && !errors.As(err, &said) {
		what := err.Error()
		if failed := new(tlsc.Error); errors.As(err, &failed) && failed.Error() == what {
			what = failed.Fatal()
		}
		chain.Complain(p.Name, "fatal", what)
	}
	return chain.ExitCode(coded(err))
}

func (p *Program) parent(args, environ []string) int {
	if chain.Informed(p.Name, p.Usage, args) {
		return chain.ExitOK
	}
	options, prog, err := chain.ParseTunnel(args)
	if err != nil {
		return p.end(err)
	}
	if len(prog) == 0 {
		line, _, _ := strings.Cut(p.Usage, "\n")
		chain.Complain(p.Name, "usage", line)
		return chain.ExitUsage
	}
	if _, err := records(environ); err != nil {
		return p.end(err)
	}
	for _, fd := range []int{options.ReadFD, options.WriteFD} {
		if err := chain.Inherited(fd); err != nil {
			return p.end(err)
		}
	}
	chain.Seal()
	path, err := chain.FindProgram(prog[0], environ)
	if err != nil {
		return p.end(err)
	}
	// The child reads the same options again.
	given := args[:len(args)-len(prog)]
	if p.OnRequest {
		return p.end(p.ucspitlsc(options, given, path, prog, environ))
	}
	return p.tlsc(options, given, path, prog, environ)
}

// pipes are the four ends of the two pipes between prog and the tunnel.
type pipes struct{ fromProg, toProg, progReads, progWrites int }

func makePipes() (p pipes, err error) {
	if p.fromProg, p.progWrites, err = chain.Pipe(); err != nil {
		return p, err
	}
	p.progReads, p.toProg, err = chain.Pipe()
	return p, err
}

// spawn starts the child, and closes here what only the child needs.
func (p *Program) spawn(o chain.Tunnel, options, environ []string, ends pipes, status int) (pid int, err error) {
	null, err := chain.Null()
	if err != nil {
		return 0, err
	}
	argv := append([]string{p.Name + "-io"}, options...)
	pid, err = chain.SpawnSelf(argv, environ, []int{
		null, null, 2,
		networkRead:  o.ReadFD,
		networkWrite: o.WriteFD,
		fromProg:     ends.fromProg,
		toProg:       ends.toProg,
		talk:         status,
	})
	chain.Close(null, ends.fromProg, ends.toProg, status)
	return pid, err
}

func (p *Program) tlsc(o chain.Tunnel, options []string, path string, prog, environ []string) int {
	ends, err := makePipes()
	if err != nil {
		return p.end(err)
	}
	told, status, err := chain.Pipe()
	if err != nil {
		return p.end(err)
	}
	pid, err := p.spawn(o, options, environ, ends, status)
	if err != nil {
		return p.end(err)
	}
	ready, err := chain.File(told, "status")
	if err != nil {
		return p.end(err)
	}
	facts, err := ucspitls.Receive(ready)
	if err != nil {
		return p.reap(pid)
	}
	return p.end(chain.Exec(path, prog, chain.Change(p.clean(o, environ), facts),
		chain.Place{FD: ends.progReads, Number: o.ReadFD},
		chain.Place{FD: ends.progWrites, Number: o.WriteFD}))
}

// reap returns the exit status of a child that has failed and has printed why.
func (p *Program) reap(pid int) int {
	status, signal, err := chain.Wait(pid)
	switch {
	case err != nil:
		return p.end(err)
	case signal != 0:
		return p.end(chain.Fail(chain.ExitTemporary, "the process that speaks TLS was ended by signal %d (%v)", signal, signal))
	case status == chain.ExitOK:
		return p.end(chain.Fail(chain.ExitTemporary, "the process that speaks TLS ended without a word"))
	}
	return status
}

func (p *Program) ucspitlsc(o chain.Tunnel, options []string, path string, prog, environ []string) error {
	ends, err := makePipes()
	if err != nil {
		return err
	}
	control, asked, err := chain.Socketpair()
	if err != nil {
		return err
	}
	if _, err := p.spawn(o, options, environ, ends, asked); err != nil {
		return err
	}
	var places []chain.Place
	for _, fd := range []int{o.ReadFD, o.WriteFD, control, ends.progReads, ends.progWrites} {
		places = append(places, chain.Place{FD: fd, Number: fd})
	}
	return chain.Exec(path, prog, chain.Change(p.clean(o, environ), []string{
		ucspitls.ControlVariable + "=" + strconv.Itoa(control),
		ucspitls.ReadVariable + "=" + strconv.Itoa(ends.progReads),
		ucspitls.WriteVariable + "=" + strconv.Itoa(ends.progWrites),
	}), places...)
}

// clean is -z: the settings are of no use to prog.
func (p *Program) clean(o chain.Tunnel, environ []string) []string {
	if o.Keep {
		return environ
	}
	return chain.Without(environ, chain.TLSSetting)
}
