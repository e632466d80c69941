package main

import (
	"os"
	"path/filepath"

	"nightmare.mail/mxf/cmd/internal/chain"
	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/remote"
	"nightmare.mail/mxf/remote/dns"
	"nightmare.mail/mxf/remote/transport"
)

// exits are the exit codes of the programs of a chain.
var exits = transport.Exits{
	Next: chain.ExitNextExchanger, NoTLS: chain.ExitNoTLS, Group: chain.ExitStumbled, NoEHLO: chain.ExitNoEHLO,
	Fuse: chain.ExitFuse, TLS: []int{chain.ExitTLSSettings, chain.ExitTLSHandshake, chain.ExitTLSRunning},
}

// prepare returns a router for job, and one that can trace when there is an error. It sets
// the trace of job.
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
	job.Trace, job.Number = trace, os.Getpid()
	config := remote.Config{
		Settings: settings, Environ: environ, Exits: exits, Version: chain.Version("mxf-remote"), Once: true, OnEnd: chain.OnEnd,
	}
	if err != nil {
		return &remote.Router{Config: config}, err
	}
	servers, err := dns.ReadConfig(os.Getenv("DNSCACHEIP"), "/etc/resolv.conf")
	if err != nil {
		return &remote.Router{Config: config}, err
	}
	self, err := chain.Beside("mxf-remote")
	if err != nil {
		return &remote.Router{Config: config}, err
	}
	config.Resolver, config.Programs = dns.NewClient(servers), filepath.Dir(self)
	return remote.New(config)
}
