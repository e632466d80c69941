package main

import (
	"errors"
	"os"

	"nightmare.mail/mxf/cmd/internal/chain"
	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/remote/dns"
	"nightmare.mail/mxf/remote/mtasts"
	"nightmare.mail/mxf/remote/mtasts/fetch"
	"nightmare.mail/mxf/remote/report"
	"nightmare.mail/mxf/tlsc"
)

// A cache is what all commands work on.
type cache struct {
	*mtasts.Store
	settings *control.Settings
}

// openCache reads the control files, and looks at the folder that they name. With look nothing
// will be stored in that.
func openCache(look bool) (*cache, error) {
	settings, err := control.ReadPolicy(chain.Home())
	if err != nil {
		return nil, unusable(err)
	}
	c := &cache{&mtasts.Store{Folder: settings.MTASTS}, settings}
	switch {
	case settings.MTASTS == "":
		return nil, unusable(&control.Error{File: "control/mtasts", What: "expected the folder of the policy cache, and this file is missing or empty"})
	case settings.TrustAnchors == (control.Anchors{}):
		return nil, unusable(&control.Error{File: "control/mtasts", Line: 1, What: "expected trust anchors for it, and control/trustanchors is missing or empty"})
	}
	if err := c.Check(); err != nil && !look {
		return nil, unusable(&control.Error{File: "control/mtasts", Line: 1, What: err.Error()})
	}
	return c, nil
}

// unusable is the error for control files, in the words of the report that a delivery
// gives.
func unusable(err error) error {
	return errors.New(report.New(report.ControlFiles, report.Facts{Reason: err.Error()}).Text)
}

// A fetcher is a cache with the way to servers.
type fetcher struct {
	*cache
	client   *fetch.Client
	resolver dns.Resolver
	look     bool // nothing is stored
}

// openFetcher is openCache, and also reads the trust anchors: what we cannot read is no fault of a server's.
func openFetcher(look bool) (*fetcher, error) {
	c, err := openCache(look)
	if err != nil {
		return nil, err
	}
	anchors := c.settings.TrustAnchors
	tls := &tlsc.Client{Anchors: tlsc.Anchors{File: anchors.File, Dir: anchors.Dir}}
	if err := tls.Load(); err != nil {
		return nil, unusable(&control.Error{File: "control/trustanchors", Line: 1, What: err.Error()})
	}
	servers, err := dns.ReadConfig(c.settings.TrustResolvers, os.Getenv("DNSCACHEIP"), "/etc/resolv.conf")
	if err != nil {
		return nil, unusable(err)
	}
	resolver := dns.NewClient(servers)
	return &fetcher{cache: c, client: &fetch.Client{Resolver: resolver, TLS: tls, Port: fetch.Port}, resolver: resolver, look: look}, nil
}
