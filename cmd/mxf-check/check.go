package main

import (
	"bufio"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"time"

	"nightmare.mail/mxf/cmd/internal/chain"
	"nightmare.mail/mxf/cmd/internal/exits"
	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/remote"
	"nightmare.mail/mxf/remote/check"
	"nightmare.mail/mxf/remote/dns"
)

// check does what the command line asks for.
func (c *command) check(ctx context.Context) *check.Result {
	result := check.New(chain.Version("mxf-check"), c.host, time.Now())
	if chain.IsTerminal(os.Stderr) {
		c.waiting = &check.Waiting{W: os.Stderr, Width: chain.Columns(os.Stderr)}
		defer c.waiting.Clear()
	}
	if c.host == "" {
		c.waiting.Show("looking at the settings")
		result.Findings = append(result.Findings, settings(ctx, c)...)
		return result
	}
	how := check.Case{Recipients: c.recipients, PlanOnly: c.how.PlanOnly, Verbose: c.verbose}
	c.how.Watch = c.waiting.Show
	job := &remote.Job{Host: c.host, Sender: c.sender, Recipients: c.recipients, Number: os.Getpid()}
	probe := remote.ProbeJob(ctx, job, func() (*remote.Router, error) { return c.prepare(&how) }, c.how)
	result.Probe(probe, how)
	return result
}

// prepare returns the router of a delivery, which writes nothing.
func (c *command) prepare(how *check.Case) (*remote.Router, error) {
	s, err := control.Read(chain.Home())
	if err != nil {
		return nil, err
	}
	how.Settings, how.Cut = s, check.Shorten(s, c.limit())
	servers, err := dns.ReadConfig(s.TrustResolvers, os.Getenv("DNSCACHEIP"), "/etc/resolv.conf")
	if err != nil {
		return nil, err
	}
	self, err := chain.Beside("mxf-check")
	if err != nil {
		return nil, err
	}
	return remote.New(remote.Config{
		Settings: s, Resolver: dns.NewClient(servers), Programs: filepath.Dir(self),
		Environ: chain.Change(os.Environ(), []string{"MXF_TRACE"}), Exits: exits.OfChain(), Once: true, ReadOnly: true,
	})
}

// show prints the result on standard output.
func (c *command) show(r *check.Result) error {
	if c.json {
		out := json.NewEncoder(os.Stdout)
		out.SetEscapeHTML(false)
		out.SetIndent("", "  ")
		return out.Encode(r)
	}
	out := bufio.NewWriter(os.Stdout)
	page := &check.Page{W: out, Width: chain.Columns(os.Stdout), Colour: chain.Colours(os.Stdout)}
	page.All(r, c.verbose)
	return out.Flush()
}
