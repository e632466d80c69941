// Mxf-remote takes the place of qmail-remote: it decides where a message goes and
// delivers it; see mxf-remote(8).
package main

import (
	"context"
	"math"
	"os"
	"runtime/debug"

	"nightmare.mail/mxf/cmd/internal/chain"
	_ "nightmare.mail/mxf/cmd/internal/start"
	"nightmare.mail/mxf/remote"
)

const usage = `mxf-remote host sender recipient ...
mxf-remote --help | --version`

func main() {
	// A fatal error of Go's runtime then ends in SIGABRT, which qmail-rspawn takes for
	// temporary. Its usual exit status 2 would bounce the message.
	debug.SetTraceback("crash")
	if chain.Informed("mxf-remote", usage, os.Args[min(1, len(os.Args)):]) {
		return
	}
	// Descriptor 2 is the pipe of the reports too: not even Go's runtime may write to it.
	_ = chain.Silence()
	chain.NoCore()
	settleMemory()
	if chain.Closed(1) {
		os.Exit(chain.ExitTemporary) // nobody would learn of a delivery
	}
	chain.Seal() // programs get descriptors 0, 1, 2, 6 and 7 alone
	job := &remote.Job{Message: os.Stdin}
	if args := os.Args[1:]; len(args) >= 3 {
		job.Host, job.Sender, job.Recipients = args[0], args[1], args[2:]
	}
	reports := remote.Deliver(context.Background(), job, func() (*remote.Router, error) { return prepare(job) })
	if _, err := reports.WriteTo(chain.Output{}); err != nil {
		os.Exit(chain.ExitTemporary)
	}
	job.Tell()
}

// settleMemory undoes what the environment says about the garbage collector: with too low
// a limit it would do nothing but collect.
func settleMemory() {
	if os.Getenv("GOMEMLIMIT") != "" {
		debug.SetMemoryLimit(math.MaxInt64)
	}
	if os.Getenv("GOGC") != "" {
		debug.SetGCPercent(100)
	}
}
