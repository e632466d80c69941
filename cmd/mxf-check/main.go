// Mxf-check says whether the settings of a mail host are in order, where mail for a host would
// go, and whether it would be taken there; see mxf-check(8).
package main

import (
	"context"
	"fmt"
	"os"

	"nightmare.mail/mxf/cmd/internal/chain"
)

const usage = `mxf-check [-jv] [-t seconds] [-u user]
mxf-check [-ajnrv] [-t seconds] [-u user] host [sender] [recipient ...]
mxf-check --help | --version`

func main() {
	chain.CatchSIGPIPE()
	os.Exit(chain.Guard("mxf-check", func() int {
		if chain.Informed("mxf-check", usage, os.Args[min(1, len(os.Args)):]) {
			return chain.ExitOK
		}
		chain.NoCore()
		chain.Seal() // programs get descriptors 0, 1, 2, 6 and 7 alone
		status, err := run(os.Args[min(1, len(os.Args)):])
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return chain.ExitCode(err)
		}
		return status
	}))
}

func run(args []string) (status int, err error) {
	c, err := parse(args)
	if err != nil {
		return 0, err
	}
	if err := become(c.user); err != nil {
		return 0, err
	}
	ctx, stop := chain.UntilSignal()
	defer stop()
	context.AfterFunc(ctx, stop) // the second signal ends us at once
	result := c.check(ctx)
	return result.Exit(), c.show(result)
}
