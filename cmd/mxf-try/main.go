// Mxf-try delivers a message through servers of its own and shows what happened;
// see mxf-try(8).
package main

import (
	_ "embed"
	"fmt"
	"os"

	"nightmare.mail/mxf/cmd/internal/chain"
)

const usage = `mxf-try [-v] [message-file]
mxf-try --help | --version`

// exitChanged says that a message did not arrive, or not as it was sent, or that one
// arrived that must not.
const exitChanged = 1

//go:embed sample.eml
var sample []byte

func main() {
	chain.CatchSIGPIPE() // what cannot be shown any more leaves nothing behind either
	os.Exit(chain.Guard("mxf-try", func() int {
		err := run(os.Args[1:])
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		return chain.ExitCode(err)
	}))
}

func run(args []string) error {
	if len(args) == 1 && args[0] == "--version" {
		_, err := fmt.Println(chain.Version("mxf-try"))
		return err
	} else if len(args) == 1 && args[0] == "--help" {
		_, err := fmt.Println(usage)
		return err
	}
	t, err := parse(args)
	if err != nil {
		return err
	}
	if t.program, err = chain.Beside("mxf-remote"); err != nil {
		return err
	}
	t.width = chain.Columns(os.Stdout)
	ctx, stop := chain.UntilSignal()
	defer stop()
	return t.run(ctx, os.Stdout)
}
