package remote

import (
	"cmp"
	"context"
	"errors"
	"net"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"nightmare.mail/mxf/control"
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
	var conn net.Conn = socket{a.conn}
	var environ []string
	if a.candidate.Protocol.Implicit {
		tls, err := d.startTLS(ctx, a)
		if err != nil {
			return report.Stream{}, &report.NoTransaction{Why: report.WantOfTLS, Err: err,
				Reason: report.New(report.TLSUnavailable, report.Facts{IP: a.ip(), Reason: err.Error()})}
		}
		conn, environ = tls, tls.Description().Environ()
	}
	speak := d.speakSMTP
	if a.candidate.Protocol.Program == qmtpProgram {
		speak = d.speakQMTP
	}
	stream, err := speak(ctx, a, conn, environ)
	var none *report.NoTransaction
	if why := report.TLSFailure(err); why != "" && a.candidate.Protocol.Implicit && errors.As(err, &none) {
		return stream, brokenTLS(none, why, a.ip())
	}
	return stream, err
}

// brokenTLS is a want of TLS where implicit TLS broke down before a transaction began: a
// server of TLS 1.3 looks at the client's certificate only when the client has finished.
func brokenTLS(none *report.NoTransaction, why, ip string) *report.NoTransaction {
	return &report.NoTransaction{Why: report.WantOfTLS, Err: none.Err,
		Reason: report.New(report.TLSUnavailable, report.Facts{IP: ip, Reason: why})}
}

func (d *delivery) speakQMTP(ctx context.Context, a *attempt, conn net.Conn, environ []string) (report.Stream, error) {
	stream, err := qmtpc.Deliver(ctx, conn, &qmtpc.Job{
		Sender:        d.job.Sender,
		Recipients:    d.job.Recipients,
		Message:       d.message.reader(),
		RemoteIP:      a.ip(),
		ServerName:    a.serverName(),
		Environ:       environ,
		Verified:      a.tls == smtpc.Verify,
		TimeoutRemote: d.Settings.TimeoutRemote,
		Trace:         d.Trace,
	})
	if err == nil {
		conn.Close() // in TLS, not without close_notify
	}
	return stream, err
}

func (d *delivery) speakSMTP(ctx context.Context, a *attempt, conn net.Conn, environ []string) (report.Stream, error) {
	job := &smtpc.Job{
		Sender:         d.job.Sender,
		Recipients:     d.job.Recipients,
		Message:        d.message.reader(),
		HeloHost:       d.Settings.HeloHost,
		RemoteIP:       a.ip(),
		RemotePort:     int(a.addr.Port()),
		ServerName:     a.serverName(),
		TLS:            a.tls,
		Avoid:          a.avoid,
		TLSFailed:      a.tlsFailed,
		Environ:        environ,
		TimeoutRemote:  d.Settings.TimeoutRemote,
		TimeoutConnect: d.Settings.TimeoutConnect,
		Trace:          d.Trace,
	}
	if a.candidate.Protocol.Explicit && a.tls != smtpc.None {
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

// A socket can tell whether something has arrived.
type socket struct{ *net.TCPConn }

// Readable tells, without waiting, whether Read would return at once.
func (s socket) Readable() bool {
	raw, err := s.SyscallConn()
	if err != nil {
		return true
	}
	readable := true
	_ = raw.Control(func(fd uintptr) {
		fds := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds[:], 0)
		readable = n > 0 || err != nil
	})
	return readable
}

// loadTLS reads what the control files name for TLS: a client key that cannot be read,
// or trust anchors where they are insisted on, stop the delivery before anything is
// looked up, and never make it one in the clear. That goes for TLS clients that a
// control file names too, which are given the same files.
func (d *delivery) loadTLS() error {
	s := d.Settings
	d.tls = tlsc.Settings{
		Verify:  s.TLSStrictness == strict,
		Anchors: tlsc.Anchors{File: s.TrustAnchors.File, Dir: s.TrustAnchors.Dir},
		Now:     time.Now,
		Trace:   d.Trace,
	}
	if !slices.ContainsFunc(s.Protocols, func(p control.Protocol) bool { return tlsOn(s, &p) }) {
		return nil
	}
	if s.ClientCert != "" {
		var err error
		if d.tls.Certificate, err = tlsc.LoadCertificate(s.ClientCert, s.ClientKey); err != nil {
			file := "control/clientcert"
			if fault := new(tlsc.Error); errors.As(err, &fault) && fault.File == s.ClientKey {
				file = "control/clientkey"
			}
			return &control.Error{File: file, Line: 1, What: err.Error()}
		}
	}
	if s.TrustAnchors == (control.Anchors{}) {
		return nil // a client that is named sees to its own
	}
	if err := d.tls.Load(); err != nil {
		return &control.Error{File: "control/trustanchors", Line: 1, What: err.Error()}
	}
	return nil
}

// handshakeLimit is how long a handshake may take, 0 for ever. That of implicit TLS
// comes before the fuse is lit, and must end all the same.
func (d *delivery) handshakeLimit(protocol *control.Protocol) time.Duration {
	if protocol.Implicit {
		return cmp.Or(d.Settings.TimeoutConnect, d.Settings.TimeoutRemote)
	}
	return d.Settings.TimeoutConnect
}

// startTLS makes the handshake on a's connection, as the control files want it.
func (d *delivery) startTLS(ctx context.Context, a *attempt) (*tlsc.Conn, error) {
	settings := d.tls
	settings.ServerName = a.serverName()
	settings.NoSNI, settings.SmallHello = a.noSNI, a.small
	settings.HandshakeTimeout = d.handshakeLimit(a.candidate.Protocol)
	conn, err := tlsc.Client(ctx, a.conn, &settings)
	if err != nil {
		var timeout net.Error
		if errors.As(err, &timeout) && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, err
	}
	return conn, nil
}
