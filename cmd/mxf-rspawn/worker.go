package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	"nightmare.mail/mxf/cmd/internal/chain"
	"nightmare.mail/mxf/cmd/internal/exits"
	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/remote"
	"nightmare.mail/mxf/remote/dns"
	"nightmare.mail/mxf/remote/rspawn"
	"nightmare.mail/mxf/remote/rspawn/wire"
	"nightmare.mail/mxf/remote/rspawn/worker"
)

// minSockets are the sockets for questions of DNS that there are at least.
const minSockets = 64

// work is the worker: it carries out what the parent says, and returns its exit status.
func work() int {
	limit, slots, err := arguments(os.Args)
	if err != nil {
		return chain.ExitTemporary
	}
	chain.Rename(rspawn.WorkerName)
	_ = chain.Silence()
	chain.NoCore()
	chain.CatchSIGPIPE()
	chain.Deaf() // signals are for the parent
	if os.Getenv("GOMAXPROCS") == "" {
		// The other half is for everybody else: qmail-send, the name server, those who send to us. What
		// the worker does is short and waits for others, and each processor more makes it dearer to hand
		// over: with one in place of two a delivery over a kept connection takes a sixth less.
		runtime.GOMAXPROCS(max(1, runtime.GOMAXPROCS(0)/2))
	}
	conn, err := wire.Inherited(rspawn.WorkerSocket)
	if err != nil {
		return chain.ExitTemporary
	}
	defer conn.Close()
	self, err := chain.Beside("mxf-remote")
	if err != nil {
		return chain.ExitTemporary
	}
	var endings worker.Endings
	defer endings.End()
	routers := worker.NewRouters(remote.Config{
		Programs: filepath.Dir(self), Environ: os.Environ(), Exits: exits.OfChain(), OnEnd: endings.OnEnd, Now: time.Now,
	}, slots, limit, &dns.Source{
		DNSCacheIP: os.Getenv("DNSCACHEIP"), ResolvConf: "/etc/resolv.conf", Sockets: max(minSockets, limit), Now: time.Now,
	})
	// The trace has the lines of mxf-remote. The version is made once: what it is made of is large.
	version := chain.Version("mxf-remote")
	worker.Run(conn, worker.Config{
		Home: chain.Home(), Routers: routers, OpenTrace: openTrace, Now: time.Now,
		About: func(s *control.Settings) string { return remote.About(version, s) },
	})
	return chain.ExitOK
}

// arguments are those of a worker: see rspawn.WorkerName.
func arguments(args []string) (limit, slots int, err error) {
	if len(args) != 3 {
		return 0, 0, errors.New("expected two arguments")
	}
	limit, err = strconv.Atoi(args[1])
	slots, second := strconv.Atoi(args[2])
	return limit, slots, errors.Join(err, second)
}

// openTrace opens the trace of delivery n.
func openTrace(file string, n uint64) worker.Trace {
	programs := ""
	if named := os.Getenv("MXF_TRACE"); named != "" {
		file = named
	} else {
		programs = file
	}
	if file == "" {
		return worker.Trace{}
	}
	line, done := chain.TraceTo(file, fmt.Sprintf("%d.%d", os.Getpid(), n))
	if line == nil {
		programs = ""
	}
	return worker.Trace{File: programs, Line: line, Close: done}
}
