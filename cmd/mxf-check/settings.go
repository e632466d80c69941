package main

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"nightmare.mail/mxf/cmd/internal/chain"
	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/remote/check"
	"nightmare.mail/mxf/remote/dns"
	"nightmare.mail/mxf/remote/transport"
)

// settings looks at the settings alone.
func settings(ctx context.Context, c *command) []check.Finding {
	self, err := chain.Beside("mxf-check")
	if err != nil {
		return []check.Finding{{Level: check.Error, What: err.Error(), Do: "run it by its path"}}
	}
	o := check.SettingsOptions{
		Home: chain.Home(), Programs: filepath.Dir(self), Version: strings.Fields(chain.Version("mxf-check"))[1],
		Verbose: c.verbose, Patience: c.limit(), RunVersion: transport.ProgramVersion, Proc: "/proc", Waiting: c.waiting.Show,
	}
	// Files that are malformed are findings, and the name servers of those that are not are asked.
	var trusted []netip.AddrPort
	if survey, err := control.ReadAll(o.Home); err == nil {
		trusted = survey.Settings.TrustResolvers
	}
	o.Servers, o.ServersErr = dns.ReadConfig(trusted, os.Getenv("DNSCACHEIP"), "/etc/resolv.conf")
	return check.Settings(ctx, o)
}
