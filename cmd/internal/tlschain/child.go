package tlschain

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"

	"nightmare.mail/mxf/cmd/internal/chain"
	"nightmare.mail/mxf/tlsc"
	"nightmare.mail/mxf/ucspitls"
)

// The child's descriptors, besides standard error. 0 and 1 are /dev/null: prog's are none
// of its business, and holding them would keep a pipe open that prog has closed.
const (
	networkRead  = 3
	networkWrite = 4
	fromProg     = 5
	toProg       = 6
	talk         = 7 // the pipe to the parent, or the control socket
)

// child is the process that speaks TLS. Options have been read by the parent
// once and are good.
func (p *Program) child(args, environ []string) int {
	chain.CatchSIGPIPE()
	options, _, err := chain.ParseTunnel(args)
	if err != nil {
		return p.end(err)
	}
	for fd := networkRead; fd <= talk; fd++ {
		if chain.Inherited(fd) != nil {
			return p.end(chain.Fail(chain.ExitUsage, "this part of the program is run by %s alone", p.Name))
		}
	}
	chain.Seal()
	answer, err := chain.File(talk, "control")
	if err != nil {
		return p.end(err)
	}
	if p.OnRequest {
		command, err := ucspitls.Await(answer)
		if err != nil || command == ucspitls.None {
			return p.end(err)
		}
		if command == ucspitls.Quiet {
			_ = answer.Close()
		}
	}
	// Said before the control socket is closed, which the exit does: who sees
	// that find the reason there already.
	return p.end(p.tunnel(options, environ, answer))
}

func (p *Program) tunnel(o chain.Tunnel, environ []string, answer *os.File) error {
	settings, err := p.settings(o, environ)
	if err != nil {
		return err
	}
	identity, err := chain.ReadIdentity(environ)
	if err != nil {
		return err
	}
	if err := settings.Load(); err != nil {
		return err
	}
	if err := identity.Assume(); err != nil {
		return err
	}
	descriptors, err := chain.Open(networkRead, networkWrite)
	if err != nil {
		return err
	}
	descriptors.NoDelay()
	defer network{descriptors}.Close()
	local, err := chain.OpenLocal(fromProg, toProg)
	if err != nil {
		return err
	}
	conn, err := handshake(network{descriptors}, local, settings)
	if err != nil {
		return err
	}
	facts := conn.Description()
	if o.Verbosity >= 2 {
		chain.Complain(p.Name, "info", fmt.Sprintf("%s, %s, server name %q, verified: %s",
			facts.Protocol, facts.Cipher, o.ServerName, facts.Verified))
	}
	// One who asked and is gone by now is noticed by the relay.
	_ = ucspitls.Tell(answer, facts.Environ())
	_ = answer.Close()
	var told error
	err = tlsc.Relay(context.Background(), conn, local, tlsc.RelayOptions{
		CloseNotify:        o.CloseNotify,
		EnforceCloseNotify: o.EnforceCloseNotify,
		Announce: func(err error) {
			p.end(err)
			told = saidError{err}
		},
	})
	return cmp.Or(told, err)
}

// A saidError has been printed already.
type saidError struct{ error }

func (e saidError) Unwrap() error { return e.error }

// handshake gives up when there is nobody left who would use the tunnel.
func handshake(network net.Conn, local *chain.Local, s *tlsc.Settings) (*tlsc.Conn, error) {
	ctx, cancel := context.WithCancelCause(context.Background())
	over := make(chan struct{})
	go func() {
		defer close(over)
		if local.Gone(ctx) == nil {
			cancel(errors.New("the program has ended"))
		}
	}()
	defer func() { cancel(nil); <-over }()
	return tlsc.Client(ctx, network, s)
}

// The network is the tunnel's alone from the handshake on: that somebody holds a
// copy of its descriptor does not keep it open.
type network struct{ *chain.Conn }

// Close shuts a socket down before it closes the descriptors.
func (n network) Close() error { return errors.Join(n.Shutdown(), n.Conn.Close()) }

// settings reads the environment. What is missing there is wrong usage, what
// cannot be read is a wrong setting.
func (p *Program) settings(o chain.Tunnel, environ []string) (*tlsc.Settings, error) {
	s := &tlsc.Settings{
		ServerName:       o.ServerName,
		Verify:           o.Verify,
		HandshakeTimeout: o.HandshakeTimeout,
		Trace:            p.trace(o),
	}
	hello, _ := chain.Lookup(environ, "MXF_TLSHELLO")
	s.SmallHello = hello == "small"
	s.Anchors.Dir, _ = chain.Lookup(environ, "CADIR")
	s.Anchors.File, _ = chain.Lookup(environ, "CAFILE")
	if o.Verify && s.Anchors == (tlsc.Anchors{}) {
		return nil, chain.Fail(chain.ExitUsage, "neither CADIR nor CAFILE is set: nothing to verify a certificate with")
	}
	if !o.ClientCertificate {
		return s, nil
	}
	cert, _ := chain.Lookup(environ, "CERTFILE")
	key, _ := chain.Lookup(environ, "KEYFILE")
	if cert == "" || key == "" {
		return nil, chain.Fail(chain.ExitUsage, "-y wants both CERTFILE and KEYFILE to be set")
	}
	loaded, err := tlsc.LoadCertificate(cert, key)
	if err != nil {
		return nil, err
	}
	s.Certificate = loaded
	return s, nil
}

// trace writes to $MXF_TRACE, and from -v 3 on to standard error.
func (p *Program) trace(o chain.Tunnel) func(string) {
	file := chain.OpenTrace()
	if o.Verbosity < 3 {
		return file
	}
	return func(line string) {
		chain.Complain(p.Name, "debug", line)
		if file != nil {
			file(line)
		}
	}
}
