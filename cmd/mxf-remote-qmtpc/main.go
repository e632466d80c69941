// Mxf-remote-qmtpc delivers a message by QMTP over descriptors 6 and 7; see
// mxf-remote-qmtpc(8).
package main

import (
	"cmp"
	"context"
	"os"

	"nightmare.mail/mxf/cmd/internal/chain"
	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/qmtpc"
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
	ip := os.Getenv("TCPREMOTEIP")
	reports, err := qmtpc.Deliver(context.Background(), conn, &qmtpc.Job{
		Sender: args[1], Recipients: args[2:], Message: os.Stdin,
		RemoteIP: ip, ServerName: cmp.Or(os.Getenv("TCPREMOTEHOST"), ip), Environ: os.Environ(),
		Verified: os.Getenv("MXF_TLS") == "verify", InTLS: os.Getenv("MXF_INTLS") != "",
		TimeoutRemote: settings.TimeoutRemote, Trace: chain.OpenTrace(),
	})
	if reports.Message.Letter != 0 {
		_, failed := reports.WriteTo(os.Stdout)
		err = cmp.Or(failed, err)
	}
	return err
}
