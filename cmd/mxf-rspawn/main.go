// Mxf-rspawn takes the place of qmail-rspawn: it carries out the deliveries of a host in
// one process; see mxf-rspawn(8).
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"nightmare.mail/mxf/cmd/internal/chain"
	"nightmare.mail/mxf/remote/rspawn"
)

const usage = `mxf-rspawn
mxf-rspawn --help | --version`

func main() {
	if chain.IsChild(rspawn.WorkerName) {
		os.Exit(work())
	}
	args := os.Args[min(1, len(os.Args)):]
	if chain.Informed("mxf-rspawn", usage, args) {
		return
	}
	if len(args) > 0 {
		fmt.Fprintln(os.Stderr, usage)
		os.Exit(chain.ExitUsage)
	}
	// What the parent does is short, and most of it waits for one other goroutine: with more, each hand-over
	// would wake a thread.
	runtime.GOMAXPROCS(1)
	_ = chain.Silence()
	chain.NoCore()
	chain.CatchSIGPIPE()
	if chain.Closed(1) {
		os.Exit(chain.ExitOK) // nobody reads the answers
	}
	chain.Seal()
	delivers, err := chain.Beside("mxf-remote")
	home, failed := filepath.Abs(chain.Home())
	if err != nil || failed != nil {
		os.Exit(chain.ExitTemporary)
	}
	_ = os.Setenv("MXF_HOME", home) // programs are run in another folder
	os.Exit(rspawn.Run(rspawn.Config{
		Home: home, Commands: 0, Answers: 1, Environ: os.Environ(),
		Delivers: delivers, InPlace: os.Getenv("QMAILREMOTE"), Find: chain.FindProgram,
		Now: time.Now, Trace: chain.OpenTrace(),
	}))
}
