// Mxf-try delivers a message through servers of its own and shows what happened;
// see mxf-try(8).
package main

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/signal"

	"nightmare.mail/mxf/cmd/internal/chain"
)

const usage = `mxf-try [-v] [message-file]
mxf-try --help | --version`

// exitChanged says that a message did not arrive, or not as it was sent.
const exitChanged = 1

//go:embed sample.eml
var sample []byte

func main() {
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
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	return t.run(ctx, os.Stdout)
}
