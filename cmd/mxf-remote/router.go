package main

import (
	"os"
	"path/filepath"

	"nightmare.mail/mxf/cmd/internal/chain"
	"nightmare.mail/mxf/cmd/internal/exits"
	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/remote"
	"nightmare.mail/mxf/remote/dns"
)

// prepare returns a router for job. It sets the trace of job, also where there is an error.
func prepare(job *remote.Job) (*remote.Router, error) {
	if chain.Closed(0) {
		return nil, remote.ErrNoMessage
	}
	settings, err := control.Read(chain.Home())
	if err == nil && os.Getenv("MXF_TRACE") == "" {
		if file := settings.Trace.For(job.Host); file != "" {
			_ = os.Setenv("MXF_TRACE", file) // the chain of programs inherits it
		}
	}
	trace, environ := chain.OpenTrace(), os.Environ()
	if trace == nil {
		// The file may be descriptor 1's own, and programs find something else there.
		environ = chain.Change(environ, []string{"MXF_TRACE"})
	}
	job.Trace, job.Number, job.About = trace, os.Getpid(), remote.About(chain.Version("mxf-remote"), settings)
	if err != nil {
		return nil, err
	}
	servers, err := dns.ReadConfig(settings.TrustResolvers, os.Getenv("DNSCACHEIP"), "/etc/resolv.conf")
	if err != nil {
		return nil, err
	}
	self, err := chain.Beside("mxf-remote")
	if err != nil {
		return nil, err
	}
	return remote.New(remote.Config{
		Settings: settings, Resolver: dns.NewClient(servers), Programs: filepath.Dir(self),
		Environ: environ, Exits: exits.OfChain(), Once: true, OnEnd: chain.OnEnd,
	})
}
