package main

import (
	"time"

	"nightmare.mail/mxf/cmd/internal/chain"
	"nightmare.mail/mxf/smtpc"
)

// arguments are what the command line asks for.
type arguments struct {
	ip, sender string
	recipients []string
	timeout    time.Duration
	conn       *chain.Conn
	options    smtpc.Options
}

// parse reads the command line and opens the network that it names.
func parse(args []string) (*arguments, error) {
	const most = 1<<31 - 1 // C's int
	rfd, wfd, timeout := 6, 7, 1200
	c := &arguments{options: smtpc.Options{Start: smtpc.FromMAIL, TLS: smtpc.Never}}
	args, err := chain.ParseOptions(args, []chain.Option{
		{Short: 't', Long: []string{"timeoutremote"}, Take: chain.Count(&timeout, 0, most)},
		{Short: '6', Long: []string{"fdr"}, Take: chain.Count(&rfd, chain.FirstFree, most)},
		{Short: '7', Long: []string{"fdw"}, Take: chain.Count(&wfd, chain.FirstFree, most)},
		{Short: 'h', Take: func(v string) error { c.options.HeloHost, c.options.Start = v, smtpc.FromEHLO; return nil }},
	})
	if err != nil {
		return nil, err
	}
	if len(args) < 3 {
		return nil, chain.Fail(chain.ExitUsage, "%s", usage)
	}
	c.ip, c.sender, c.recipients = args[0], args[1], args[2:]
	c.timeout = time.Duration(timeout) * time.Second
	c.options.Limits = smtpc.LimitsOf(c.timeout, 0)
	if c.conn, err = chain.OpenInherited(rfd, wfd); err != nil {
		return nil, err
	}
	c.conn.NoDelay()
	return c, nil
}
