package remote

import (
	"context"
	"errors"
	"net"
	"time"

	"nightmare.mail/mxf/qmtpc"
	"nightmare.mail/mxf/remote/report"
	"nightmare.mail/mxf/smtpc"
	"nightmare.mail/mxf/tlsc"
)

// The bundled protocol programs: named without a slash, they are not run but
// called.
const (
	smtpProgram = "mxf-remote-smtpc"
	qmtpProgram = "mxf-remote-qmtpc"
)

// inProcess carries an attempt out by calling the packages that the bundled
// programs are made of. What the chain would tell them by their environment they
// are told by their jobs; everything else is theirs.
func (d *delivery) inProcess(ctx context.Context, a *attempt) (report.Stream, error) {
	var conn net.Conn = a.conn
	var environ []string
	protocol := a.candidate.Protocol
	ip := a.addr.Addr().String()
	serverName := a.candidate.ServerName(a.addr.Addr())

	if protocol.Implicit {
		tls, err := d.startTLS(ctx, a)
		if err != nil {
			return report.Stream{}, &report.NoTransaction{NoTLS: true,
				Reason: report.New(report.TLSUnavailable, report.Facts{IP: ip, Reason: err.Error()})}
		}
		conn, environ = tls, tls.Description().Environ()
	}
	if protocol.Program == qmtpProgram {
		return qmtpc.Deliver(ctx, conn, &qmtpc.Job{
			Sender:        d.job.Sender,
			Recipients:    d.job.Recipients,
			Message:       d.message.reader(),
			RemoteIP:      ip,
			ServerName:    serverName,
			Environ:       environ,
			TimeoutRemote: d.Settings.TimeoutRemote,
			Trace:         d.Trace,
		})
	}
	job := &smtpc.Job{
		Sender:        d.job.Sender,
		Recipients:    d.job.Recipients,
		Message:       d.message.reader(),
		HeloHost:      d.Settings.HeloHost,
		RemoteIP:      ip,
		ServerName:    serverName,
		TLS:           a.tls,
		Environ:       environ,
		TimeoutRemote: d.Settings.TimeoutRemote,
		Trace:         d.Trace,
	}
	if protocol.Explicit && a.tls != smtpc.None {
		job.StartTLS = func(ctx context.Context) (net.Conn, []string, error) {
			tls, err := d.startTLS(ctx, a)
			if err != nil {
				return nil, nil, err
			}
			return tls, tls.Description().Environ(), nil
		}
	}
	return smtpc.Deliver(ctx, conn, job)
}

// startTLS makes the handshake on a's connection, as the control files want it.
func (d *delivery) startTLS(ctx context.Context, a *attempt) (*tlsc.Conn, error) {
	s := d.Settings
	settings := &tlsc.Settings{
		ServerName:       a.candidate.ServerName(a.addr.Addr()),
		NoSNI:            a.noSNI,
		Verify:           s.TLSStrictness == strict,
		Anchors:          tlsc.Anchors{File: s.TrustAnchors.File, Dir: s.TrustAnchors.Dir},
		HandshakeTimeout: s.TimeoutConnect,
		Now:              time.Now,
	}
	if s.ClientCert != "" {
		certificate, err := tlsc.LoadCertificate(s.ClientCert, s.ClientKey)
		if err != nil {
			return nil, err
		}
		settings.Certificate = certificate
	}
	if err := settings.Load(); err != nil {
		return nil, err
	}
	conn, err := tlsc.Client(ctx, a.conn, settings)
	if err != nil {
		var timeout net.Error
		if errors.As(err, &timeout) && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, err
	}
	return conn, nil
}
