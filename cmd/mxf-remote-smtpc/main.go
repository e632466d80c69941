// Mxf-remote-smtpc delivers a message by SMTP over descriptors 6 and 7; see
// mxf-remote-smtpc(8).
package main

import (
	"cmp"
	"context"
	"os"

	"nightmare.mail/mxf/cmd/internal/chain"
	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/smtpc"
)

const usage = `mxf-remote-smtpc host sender recipient ...
mxf-remote-smtpc --help | --version`

func main() { chain.Main("mxf-remote-smtpc", usage, run) }

func run(args []string) error {
	if len(args) < 3 {
		return chain.Fail(chain.ExitUsage, "%s", usage)
	}
	settings, err := control.ReadClient(chain.Home())
	if err != nil {
		return err
	}
	conn, job, err := connection(os.Environ())
	if err != nil {
		return err
	}
	job.Sender, job.Recipients, job.Message = args[1], args[2:], os.Stdin
	job.HeloHost = settings.HeloHost
	job.TimeoutRemote, job.TimeoutConnect = settings.TimeoutRemote, settings.TimeoutConnect
	job.Trace = chain.OpenTrace()
	reports, err := smtpc.Deliver(context.Background(), conn, job)
	if reports.Message.Letter != 0 {
		_, failed := reports.WriteTo(os.Stdout)
		err = cmp.Or(failed, err)
	}
	return err
}
