// Mxf-remote-qmtpc delivers a message by QMTP over descriptors 6 and 7; see
// mxf-remote-qmtpc(8).
package main

import (
	"os"
	"slices"

	"nightmare.mail/mxf/cmd/internal/chain"
	"nightmare.mail/mxf/cmd/internal/protocol"
	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/qmtpc"
	"nightmare.mail/mxf/remote/report"
)

const usage = `mxf-remote-qmtpc [-p] host sender recipient ...
mxf-remote-qmtpc --help | --version`

func main() { chain.Main("mxf-remote-qmtpc", usage, run) }

func run(args []string) error {
	probe := false
	args, err := chain.ParseOptions(args, []chain.Option{{Short: 'p', Set: func() { probe = true }}})
	if err != nil {
		return err
	}
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
	server := protocol.ReadServer(os.Environ())
	peer := report.Peer{IP: server.IP, Fuse: settings.TimeoutRemote, TLS: server.TLS(os.Environ())}
	if probe {
		accepted := slices.Repeat([]report.Report{{Letter: report.Accepted}}, len(args[2:]))
		return protocol.Finish(report.Would(accepted, peer), conn.Close())
	}
	conn.NoDelay()
	ctx, trace := protocol.Fuse(settings.TimeoutRemote, qmtpc.ErrFuse), chain.OpenTrace()
	mail, err := qmtpc.Prepare(ctx, args[1], args[2:], os.Stdin, trace)
	outcome := &qmtpc.Outcome{Err: err}
	if err == nil {
		defer mail.Close()
		outcome = qmtpc.Send(ctx, conn, mail, trace)
	}
	return protocol.Finish(report.QMTP(outcome, peer))
}
