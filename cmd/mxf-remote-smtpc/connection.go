package main

import (
	"cmp"
	"context"
	"net"
	"strconv"
	"time"

	"nightmare.mail/mxf/cmd/internal/chain"
	"nightmare.mail/mxf/smtpc"
	"nightmare.mail/mxf/ucspitls"
)

// connection is the network on descriptors 6 and 7, and what environ says about
// it.
func connection(environ []string) (net.Conn, *smtpc.Job, error) {
	get := func(name string) string { v, _ := chain.Lookup(environ, name); return v }
	ip := get("TCPREMOTEIP")
	job := &smtpc.Job{RemoteIP: ip, ServerName: cmp.Or(get("TCPREMOTEHOST"), ip)}
	job.RemotePort, _ = strconv.Atoi(get("TCPREMOTEPORT")) // for a hint alone
	job.InTLS, job.TLSFailed = get("MXF_INTLS") != "", get("MXF_TLSFAILED") != ""
	var err error
	if job.TLS, err = smtpc.ParsePolicy(get("MXF_TLS")); err != nil {
		return nil, nil, chain.Fail(chain.ExitUsage, "MXF_TLS: %w", err)
	}
	if job.Avoid, err = smtpc.ParseAvoid(get("MXF_SMTPAVOID")); err != nil {
		return nil, nil, chain.Fail(chain.ExitUsage, "MXF_SMTPAVOID: %w", err)
	}
	if control := get(ucspitls.ControlVariable); control == "" {
		job.Environ = environ // it can tell of TLS that is there already
	} else if job.StartTLS, err = startTLS(control, get(ucspitls.ReadVariable), get(ucspitls.WriteVariable)); err != nil {
		return nil, nil, err
	}
	conn, err := chain.OpenInherited(6, 7)
	if err != nil {
		return nil, nil, err
	}
	conn.NoDelay()
	return conn, job, nil
}

// startTLS asks for TLS on the control descriptor, and goes on with the other
// two. They are given as UCSPI-TLS has them, in decimal.
func startTLS(control, read, write string) (func(context.Context) (net.Conn, []string, error), error) {
	var fds [3]int
	for i, v := range []string{control, read, write} {
		fd, err := strconv.ParseUint(v, 10, 31)
		if err != nil {
			return nil, chain.Fail(chain.ExitUsage, "%s=%q %s=%q %s=%q are not three descriptors",
				ucspitls.ControlVariable, control, ucspitls.ReadVariable, read, ucspitls.WriteVariable, write)
		}
		fds[i] = int(fd)
	}
	return func(ctx context.Context) (net.Conn, []string, error) {
		ctl, err := chain.OpenInherited(fds[0], fds[0])
		if err != nil {
			return nil, nil, err
		}
		defer ctl.Close()
		defer context.AfterFunc(ctx, func() { _ = ctl.SetDeadline(time.Unix(1, 0)) })()
		facts, err := ucspitls.Start(ctl)
		if err != nil {
			return nil, nil, err
		}
		conn, err := chain.OpenInherited(fds[1], fds[2])
		if err != nil {
			return nil, nil, err
		}
		return conn, facts, nil
	}, nil
}
