package main

import (
	"net"
	"time"

	"nightmare.mail/mxf/cmd/internal/chain"
	"nightmare.mail/mxf/smtpc"
)

// parse reads the command line and opens the network that it names.
func parse(args []string) (net.Conn, *smtpc.Job, error) {
	const most = 1<<31 - 1 // C's int
	rfd, wfd, timeout := 6, 7, 1200
	job := &smtpc.Job{Quoted: true, Start: smtpc.FromMAIL, TLS: smtpc.None}
	args, err := chain.ParseOptions(args, []chain.Option{
		{Short: 't', Long: []string{"timeoutremote"}, Take: chain.Count(&timeout, 0, most)},
		{Short: '6', Long: []string{"fdr"}, Take: chain.Count(&rfd, chain.FirstFree, most)},
		{Short: '7', Long: []string{"fdw"}, Take: chain.Count(&wfd, chain.FirstFree, most)},
		{Short: 'h', Take: func(v string) error { job.HeloHost, job.Start = v, smtpc.FromEHLO; return nil }},
	})
	if err != nil {
		return nil, nil, err
	}
	if len(args) < 3 {
		return nil, nil, chain.Fail(chain.ExitUsage, "%s", usage)
	}
	job.RemoteIP, job.ServerName, job.Sender, job.Recipients = args[0], args[0], args[1], args[2:]
	job.TimeoutRemote = time.Duration(timeout) * time.Second
	conn, err := chain.OpenInherited(rfd, wfd)
	if err != nil {
		return nil, nil, err
	}
	conn.NoDelay()
	return conn, job, nil
}
