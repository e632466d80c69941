// Qmail-remote-io is the SMTP client of smtpd-starttls-proxy's qmail-remote; see
// qmail-remote-io(8).
package main

import (
	"context"
	"os"
	"runtime/debug"

	"nightmare.mail/mxf/cmd/internal/chain"
	"nightmare.mail/mxf/smtpc"
)

const usage = `qmail-remote-io [-t timeout] [-6 fd] [-7 fd] [-h helohost] [--] ip sender recipient ...
qmail-remote-io --help | --version`

func main() {
	// What Go cannot recover from ends by SIGABRT, a crash, which qmail-rspawn takes for
	// temporary; its usual exit status 2 would bounce the message.
	debug.SetTraceback("crash")
	chain.Main("qmail-remote-io", usage, run)
}

func run(args []string) error {
	conn, job, err := parse(args)
	if err != nil {
		return err
	}
	job.Message, job.Environ, job.Trace = os.Stdin, os.Environ(), chain.OpenTrace()
	_, err = smtpc.Final(smtpc.Deliver(context.Background(), conn, job)).WriteTo(os.Stdout)
	return err
}
