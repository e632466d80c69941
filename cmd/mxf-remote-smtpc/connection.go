package main

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"nightmare.mail/mxf/cmd/internal/chain"
	"nightmare.mail/mxf/cmd/internal/protocol"
	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/control/avoid"
	"nightmare.mail/mxf/remote/login"
	"nightmare.mail/mxf/remote/report"
	"nightmare.mail/mxf/smtpc"
	"nightmare.mail/mxf/ucspitls"
)

// A connection is the network on descriptors 6 and 7, what the environment says about it,
// and the TLS on it.
type connection struct {
	server  protocol.Server
	port    int // for a hint alone
	options smtpc.Options
	network *chain.Conn
	tunnel  *chain.Conn // of the TLS client; nil before
	tls     *report.TLS // nil in the clear
	facts   []string    // what the TLS client says of the TLS
}

// connect opens the network as environ says.
func connect(environ []string) (*connection, error) {
	get := func(name string) string { v, _ := chain.Lookup(environ, name); return v }
	c := &connection{server: protocol.ReadServer(environ)}
	c.port, _ = strconv.Atoi(get("TCPREMOTEPORT"))
	o := &c.options
	o.Verified, o.Relay, o.Exporter = c.server.Verify, get("MXF_RELAY") != "", c.exporter
	o.TLSFailed, o.Trace = get("MXF_TLSFAILED") != "", chain.OpenTrace()
	var err error
	if o.TLS, err = parseTLS(get("MXF_TLS")); err != nil {
		return nil, chain.Fail(chain.ExitUsage, "MXF_TLS: %w", err)
	}
	if o.Avoid, err = avoid.Parse(get("MXF_SMTPAVOID")); err != nil {
		return nil, chain.Fail(chain.ExitUsage, "MXF_SMTPAVOID: %w", err)
	}
	if control := get(ucspitls.ControlVariable); control == "" {
		c.tls, c.facts = c.server.TLS(environ), environ
	} else {
		c.tls = c.server.TLS(nil) // environ is about something else
		if o.StartTLS, err = c.startTLS(control, get(ucspitls.ReadVariable), get(ucspitls.WriteVariable)); err != nil {
			return nil, err
		}
	}
	o.InTLS = c.tls != nil
	if c.network, err = chain.OpenInherited(6, 7); err != nil {
		return nil, err
	}
	c.network.NoDelay()
	return c, nil
}

// parseTLS reads $MXF_TLS: none, may, must or verify; empty is may. That TLS is to be verified
// concerns the TLS client alone.
func parseTLS(word string) (smtpc.STARTTLS, error) {
	switch word {
	case "none":
		return smtpc.Never, nil
	case "", "may":
		return smtpc.IfOffered, nil
	case "must", "verify":
		return smtpc.Required, nil
	}
	return 0, fmt.Errorf("TLS policy %q is none of none, may, must, verify", word)
}

// startTLS asks for TLS on the control descriptor, and goes on with the other
// two. They are given as UCSPI-TLS has them, in decimal.
func (c *connection) startTLS(control, read, write string) (func(context.Context) (net.Conn, error), error) {
	var fds [3]int
	for i, v := range []string{control, read, write} {
		fd, err := strconv.ParseUint(v, 10, 31)
		if err != nil {
			return nil, chain.Fail(chain.ExitUsage, "%s=%q %s=%q %s=%q are not three descriptors",
				ucspitls.ControlVariable, control, ucspitls.ReadVariable, read, ucspitls.WriteVariable, write)
		}
		fds[i] = int(fd)
	}
	return func(ctx context.Context) (net.Conn, error) {
		facts, err := startOn(ctx, fds[0])
		if err != nil {
			return nil, err
		}
		if c.tunnel, err = chain.OpenInherited(fds[1], fds[2]); err != nil {
			return nil, err
		}
		c.facts = facts
		inside := c.server
		inside.InTLS = true // even if the TLS client says nothing about it
		c.tls = inside.TLS(facts)
		if c.options.Trace != nil {
			c.options.Trace("= " + report.Diagnostic(c.tls.String()))
		}
		return c.tunnel, nil
	}, nil
}

// exporter returns the channel binding of the TLS that is up, nil where it has none.
func (c *connection) exporter() []byte { return protocol.Exporter(c.facts) }

// login has the session log in at the relay that the router names, if control/credentials has a
// line for it and for sender.
func (c *connection) login(home, relay, sender string) error {
	if relay == "" {
		return nil
	}
	logins, err := control.ReadCredentials(home)
	line := logins.For(relay, sender)
	if line == nil || err != nil {
		return err
	}
	words, err := line.Read()
	if err != nil {
		return err
	}
	c.options.Login = login.New(line, words, relay, uint16(c.port))
	return nil
}

// tell says on descriptor 2 what became of STARTTLS, for the reports on TLS that the router sends: neither
// exit code nor reports have all of it. A certificate that is not good is said too.
func (c *connection) tell(what smtpc.Securing) {
	if what == smtpc.NotAsked {
		return
	}
	words := what.String()
	if verdict, _ := chain.Lookup(chain.Change(nil, c.facts), "SSL_PEER_VERIFIED"); what == smtpc.Secured && strings.HasPrefix(verdict, "no:") {
		words += " " + verdict
	}
	chain.Complain("mxf-remote-smtpc", "starttls", words)
}

// startOn asks for TLS on the descriptor control and returns what the TLS client says about it.
func startOn(ctx context.Context, control int) ([]string, error) {
	conn, err := chain.OpenInherited(control, control)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	return ucspitls.Start(conn)
}

// peer is the server as reports mention it.
func (c *connection) peer(fuse time.Duration) report.Peer {
	return report.Peer{IP: c.server.IP, Port: c.port, Fuse: fuse, TLS: c.tls}
}

// close closes the connection. One whose conversation did not come to its end is closed
// beneath TLS first.
func (c *connection) close(ended bool) {
	if !ended {
		c.network.Close()
	}
	if c.tunnel != nil {
		c.tunnel.Close()
	}
	c.network.Close()
}
