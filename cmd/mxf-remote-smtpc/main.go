// Mxf-remote-smtpc delivers a message by SMTP over descriptors 6 and 7; see
// mxf-remote-smtpc(8).
package main

import (
	"cmp"
	"os"

	"nightmare.mail/mxf/cmd/internal/chain"
	"nightmare.mail/mxf/cmd/internal/protocol"
	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/remote/report"
	"nightmare.mail/mxf/smtpc"
)

const usage = `mxf-remote-smtpc [-pr] host sender recipient ...
mxf-remote-smtpc --help | --version`

func main() { chain.Main("mxf-remote-smtpc", usage, run) }

func run(args []string) error {
	var d deliverer
	args, err := chain.ParseOptions(args, []chain.Option{
		{Short: 'p', Set: func() { d.probe = true }}, {Short: 'r', Set: func() { d.ask = true }},
	})
	if err != nil {
		return err
	}
	if len(args) < 3 || d.ask && !d.probe {
		return chain.Fail(chain.ExitUsage, "%s", usage)
	}
	settings, err := control.ReadClient(chain.Home())
	if err != nil {
		return err
	}
	c, err := connect(os.Environ())
	if err != nil {
		return err
	}
	c.options.HeloHost = cmp.Or(os.Getenv("MXF_HELO"), settings.HeloHost)
	if err := c.login(chain.Home(), os.Getenv("MXF_RELAY"), args[1]); err != nil {
		return err
	}
	c.options.Limits = smtpc.LimitsOf(settings.TimeoutRemote, settings.TimeoutConnect)
	ctx := protocol.Fuse(settings.TimeoutRemote, smtpc.ErrFuse)
	outcome, ended := d.deliver(ctx, c, args[1], args[2:])
	c.close(ended)
	if os.Getenv("MXF_TLSRPT") != "" {
		c.tell(outcome.Securing)
	}
	return protocol.Finish(report.SMTP(outcome, c.peer(settings.TimeoutRemote)))
}
