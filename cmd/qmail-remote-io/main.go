// Qmail-remote-io is the SMTP client of smtpd-starttls-proxy's qmail-remote; see
// qmail-remote-io(8).
package main

import (
	"errors"
	"os"
	"runtime/debug"

	"nightmare.mail/mxf/cmd/internal/chain"
	"nightmare.mail/mxf/cmd/internal/protocol"
	"nightmare.mail/mxf/remote/report"
	"nightmare.mail/mxf/smtpc"
)

const usage = `qmail-remote-io [-t timeout] [-6 fd] [-7 fd] [-h helohost] [--] ip sender recipient ...
qmail-remote-io --help | --version`

func main() {
	// What Go cannot recover from ends by SIGABRT, a crash, which qmail-rspawn takes for
	// temporary; its usual exit status 2 would bounce the message.
	debug.SetTraceback("crash")
	chain.Main("qmail-remote-io", usage, run)
}

func run(args []string) error {
	c, err := parse(args)
	if err != nil {
		return err
	}
	server := protocol.Server{IP: c.ip, Name: c.ip}
	tls := server.TLS(os.Environ())
	c.options.InTLS, c.options.Trace = tls != nil, chain.OpenTrace()
	ctx := protocol.Fuse(c.timeout, smtpc.ErrFuse)
	outcome, _ := smtpc.Deliver(ctx, c.conn, &c.options, smtpc.NewMail(c.sender, c.recipients, os.Stdin, true))
	c.conn.Close()
	_, err = final(report.SMTP(outcome, report.Peer{IP: c.ip, Fuse: c.timeout, TLS: tls})).WriteTo(os.Stdout)
	return err
}

// final returns the reports of a program that nothing comes after: what would let
// another exchanger be tried is a temporary failure here.
func final(reports report.Stream, err error) report.Stream {
	var none *report.NoTransaction
	var fuse *report.Fuse
	switch {
	case err == nil:
		return reports
	case errors.As(err, &none):
		return report.Only(report.Report{Letter: report.Temporary, Text: none.Reason.Text})
	case errors.As(err, &fuse):
		return fuse.Stream()
	}
	return report.Only(report.For(err))
}
