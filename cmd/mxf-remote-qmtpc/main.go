// Mxf-remote-qmtpc delivers a message by QMTP over descriptors 6 and 7; see
// mxf-remote-qmtpc(8).
package main

import (
	"cmp"
	"context"
	"os"
	"time"

	"nightmare.mail/mxf/cmd/internal/chain"
	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/qmtpc"
	"nightmare.mail/mxf/remote/report"
)

const usage = `mxf-remote-qmtpc host sender recipient ...
mxf-remote-qmtpc --help | --version`

func main() { chain.Main("mxf-remote-qmtpc", usage, run) }

func run(args []string) error {
	if len(args) < 3 {
		return chain.Fail(chain.ExitUsage, "%s", usage)
	}
	settings, err := control.ReadClient(chain.Home())
	if err != nil {
		return err
	}
	conn, err := chain.OpenInherited(6, 7)
	if err != nil {
		return err
	}
	conn.NoDelay()
	// A context with a deadline would do the same, and needs 8 KB more to be loaded.
	ctx, end := context.WithCancelCause(context.Background())
	defer end(nil)
	if settings.TimeoutRemote > 0 {
		time.AfterFunc(settings.TimeoutRemote, func() { end(qmtpc.ErrFuse) })
	}
	trace := chain.OpenTrace()
	mail, err := qmtpc.Prepare(ctx, args[1], args[2:], os.Stdin, trace)
	outcome := &qmtpc.Outcome{Err: err}
	if err == nil {
		defer mail.Close()
		outcome = qmtpc.Send(ctx, conn, mail, trace)
	}
	ip := os.Getenv("TCPREMOTEIP")
	reports, err := report.QMTP(outcome, report.Peer{
		IP: ip, Fuse: settings.TimeoutRemote,
		TLS: report.ParseTLS(os.Environ(), cmp.Or(os.Getenv("TCPREMOTEHOST"), ip),
			os.Getenv("MXF_TLS") == "verify", os.Getenv("MXF_INTLS") != ""),
	})
	if reports.Message.Letter != 0 {
		_, failed := reports.WriteTo(os.Stdout)
		err = cmp.Or(failed, err)
	}
	return err
}
