package main

import (
	"math/rand/v2"
	"os"
	"path/filepath"

	"nightmare.mail/mxf/cmd/internal/chain"
	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/remote"
)

// prepare returns a router for host, and one that can trace when there is an error.
func prepare(host string) (*remote.Router, error) {
	if chain.Closed(0) {
		return nil, remote.ErrNoMessage
	}
	settings, err := control.Read(chain.Home())
	if err == nil && os.Getenv("MXF_TRACE") == "" {
		if file := settings.Trace.For(host); file != "" {
			_ = os.Setenv("MXF_TRACE", file) // the chain of programs inherits it
		}
	}
	trace, environ := chain.OpenTrace(), os.Environ()
	if trace == nil {
		// The file may be descriptor 1's own, and programs find something else there.
		environ = chain.Change(environ, []string{"MXF_TRACE"})
	}
	router := &remote.Router{
		Settings: settings, Environ: environ, Rand: rand.NewPCG(rand.Uint64(), rand.Uint64()),
		Trace: trace, Version: chain.Version("mxf-remote"), OnEnd: chain.OnEnd,
	}
	if err != nil {
		return router, err
	}
	resolver, err := remote.NewResolver(os.Getenv("DNSCACHEIP"), "/etc/resolv.conf")
	if err != nil {
		return router, err
	}
	self, err := chain.Beside("mxf-remote")
	if err != nil {
		return router, err
	}
	router.Resolver, router.Programs = resolver, filepath.Dir(self)
	return router, nil
}
