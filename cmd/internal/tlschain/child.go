package tlschain

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"nightmare.mail/mxf/cmd/internal/chain"
	"nightmare.mail/mxf/tlsc"
	"nightmare.mail/mxf/tlsc/tunnel"
	"nightmare.mail/mxf/ucspitls"
)

// The child's descriptors, besides standard error. 0 and 1 are /dev/null: if the child
// held those of prog, a pipe would stay open that prog has closed.
const (
	networkRead  = 3
	networkWrite = 4
	fromProg     = 5
	toProg       = 6
	talk         = 7 // the pipe to the parent, or the control socket
)

// child is the process that speaks TLS. The parent has already read the options, so they
// are good.
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
	// end prints the reason before the exit closes the control socket: who sees the
	// socket close finds the reason.
	return p.end(p.tunnel(options, environ, answer))
}

func (p *Program) tunnel(o chain.Tunnel, environ []string, answer *os.File) error {
	published, err := records(environ)
	if err != nil {
		return err
	}
	client, err := prepare(o, environ, published)
	if err != nil {
		return err
	}
	descriptors, err := chain.Open(networkRead, networkWrite)
	if err != nil {
		return err
	}
	descriptors.NoDelay()
	line := tunnel.NewLine(network{descriptors})
	defer line.Close()
	local, err := chain.OpenLocal(fromProg, toProg)
	if err != nil {
		return err
	}
	conn, err := handshake(client, line, local, p.demand(o, environ, client, published))
	if err != nil {
		return err
	}
	facts := conn.Facts()
	if o.Verbosity >= 2 {
		chain.Complain(p.Name, "info", fmt.Sprintf("%s, %s, server name %q, verified: %s",
			facts.Version, facts.Cipher, o.ServerName, facts.Verdict))
	}
	// If prog has ended meanwhile, the relay notices.
	_ = ucspitls.Tell(answer, assignments(facts, conn.Exporter()))
	_ = answer.Close()
	var told error
	err = tunnel.Relay(context.Background(), conn, line, local, tunnel.Options{
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

// prepare makes the client, and gives up privileges when every file has been read.
func prepare(o chain.Tunnel, environ []string, published tlsc.Records) (*tlsc.Client, error) {
	client, err := newClient(o, environ, published)
	if err != nil {
		return nil, err
	}
	identity, err := chain.ReadIdentity(environ)
	if err != nil {
		return nil, err
	}
	if o.Verify && client.Anchors != (tlsc.Anchors{}) {
		if err := client.Load(); err != nil {
			return nil, err
		}
	}
	return client, identity.Assume()
}

// handshake gives up when nobody is left who would use the tunnel.
func handshake(client *tlsc.Client, line net.Conn, local *chain.Local, d *tlsc.Demand) (*tlsc.Conn, error) {
	ctx, cancel := context.WithCancelCause(context.Background())
	over := make(chan struct{})
	go func() {
		defer close(over)
		if local.Gone(ctx) == nil {
			cancel(errors.New("the program has ended"))
		}
	}()
	defer func() { cancel(nil); <-over }()
	return client.Handshake(ctx, line, d)
}

// From the handshake on, only the tunnel uses the network: copies of its descriptor that
// others hold do not keep it open.
type network struct{ *chain.Conn }

// Close shuts a socket down before it closes the descriptors.
func (n network) Close() error { return errors.Join(n.Shutdown(), n.Conn.Close()) }

// newClient reads the environment. A variable that is missing is wrong usage; a file that
// cannot be read is a wrong setting.
func newClient(o chain.Tunnel, environ []string, published tlsc.Records) (*tlsc.Client, error) {
	client := &tlsc.Client{ReadOnce: true}
	client.Anchors.Dir, _ = chain.Lookup(environ, "CADIR")
	client.Anchors.File, _ = chain.Lookup(environ, "CAFILE")
	if o.Verify && client.Anchors == (tlsc.Anchors{}) && published == (tlsc.Records{}) {
		return nil, chain.Fail(chain.ExitUsage, "neither CADIR nor CAFILE is set, and MXF_TLSA is not: nothing to verify a certificate with")
	}
	if !o.ClientCertificate {
		return client, nil
	}
	cert, _ := chain.Lookup(environ, "CERTFILE")
	key, _ := chain.Lookup(environ, "KEYFILE")
	if cert == "" || key == "" {
		return nil, chain.Fail(chain.ExitUsage, "-y wants both CERTFILE and KEYFILE to be set")
	}
	var err error
	client.Certificate, err = tlsc.LoadCertificate(cert, key)
	return client, err
}

// records reads MXF_TLSA. It returns none where that is not set. A variable that is set and
// empty is malformed: a script that has found nothing must not turn a check off.
func records(environ []string) (tlsc.Records, error) {
	text, set := chain.Lookup(environ, "MXF_TLSA")
	if !set {
		return tlsc.Records{}, nil
	}
	published, err := tlsc.ParseRecords(text)
	if err != nil {
		return tlsc.Records{}, chain.Fail(chain.ExitUsage, "MXF_TLSA is malformed: %w", err)
	}
	return published, nil
}

// demand is what the options and the environment want of the handshake.
func (p *Program) demand(o chain.Tunnel, environ []string, client *tlsc.Client, published tlsc.Records) *tlsc.Demand {
	d := &tlsc.Demand{ServerName: o.ServerName, TimeLimit: o.HandshakeTimeout, Trace: p.trace(o)}
	switch {
	case !o.Verify:
	case published != (tlsc.Records{}):
		d.Judge = tlsc.DANE{Records: published, Anchors: client.Anchors != (tlsc.Anchors{})}
	default:
		d.Judge = tlsc.TrustAnchors{}
	}
	names, _ := chain.Lookup(environ, "MXF_TLSNAMES")
	d.Names = strings.Fields(names)
	hello, _ := chain.Lookup(environ, "MXF_TLSHELLO")
	d.SmallHello = hello == "small"
	return d
}

// trace writes to $MXF_TRACE and, from -v 3 on, to standard error.
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
