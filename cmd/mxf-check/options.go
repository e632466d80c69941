package main

import (
	"slices"
	"strings"
	"time"

	"nightmare.mail/mxf/cmd/internal/chain"
	"nightmare.mail/mxf/remote"
	"nightmare.mail/mxf/remote/check"
)

const (
	// patience is how long a person waits for one answer, in seconds, unless he says otherwise.
	patience = 10
	// maxPatience is a day: more than any control file has reason to say.
	maxPatience = 86400
)

// A command is what the command line asks for.
type command struct {
	how     remote.Probing
	json    bool
	verbose bool
	user    string // empty: see become
	seconds int

	host, sender string
	recipients   []string
	waiting      *check.Waiting
}

func parse(args []string) (*command, error) {
	c := &command{seconds: patience}
	flag := func(short byte, to *bool) chain.Option {
		return chain.Option{Short: short, Set: func() { *to = true }}
	}
	rest, err := chain.ParseOptions(args, []chain.Option{
		flag('n', &c.how.PlanOnly), flag('a', &c.how.All), flag('r', &c.how.Ask), flag('v', &c.verbose), flag('j', &c.json),
		{Short: 'u', Take: func(v string) error { c.user = v; return nil }},
		{Short: 't', Take: chain.Count(&c.seconds, 1, maxPatience)},
	})
	if err != nil {
		return nil, err
	}
	if len(rest) > 1 && strings.HasPrefix(rest[1], "-") && !slices.Contains(args, "--") {
		return nil, chain.Fail(chain.ExitUsage, "%s", usage) // an option behind host is meant as one, and would do nothing
	}
	if len(rest) == 0 {
		if c.how.PlanOnly || c.how.All || c.how.Ask {
			return nil, chain.Fail(chain.ExitUsage, "%s", usage)
		}
		return c, nil
	}
	host, recipient := check.Split(rest[0])
	if host == "" {
		return nil, chain.Fail(chain.ExitUsage, "%s", usage)
	}
	c.host, c.recipients = host, []string{recipient}
	if recipient == "" {
		c.recipients[0] = "postmaster@" + host
	}
	if len(rest) > 1 {
		c.sender = rest[1]
	}
	if len(rest) > 2 {
		c.recipients = rest[2:]
	}
	return c, nil
}

func (c *command) limit() time.Duration { return time.Duration(c.seconds) * time.Second }
