package remote

import (
	"errors"
	"fmt"
	"io/fs"
	"testing"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/remote/dns"
	"nightmare.mail/mxf/remote/policy"
	"nightmare.mail/mxf/remote/report"
	"nightmare.mail/mxf/remote/route"
)

// Each error that can come before the first attempt has its report, whose letter agrees with
// what the error says of itself.
func TestRefusal(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{&route.Error{Kind: route.BadHost, Host: "a\nb"}, "DI cannot send to a host with a control byte in its name: a\nb. (#5.1.3)"},
		{&route.Error{Kind: route.NoSuchHost, Host: "a.test"}, "DSorry, I couldn't find any host named a.test. (#5.1.2)"},
		{&route.Error{Kind: route.LookupFailed, Host: "a.test", Reason: "MX: server failure"}, "ZSorry, I couldn't look up a.test: MX: server failure. (#4.4.3)"},
		{&route.Error{Kind: route.LookupFailed, Host: "b.test", Relay: "control/smtproutes:1", Reason: "A: server failure"},
			"ZSorry, I couldn't look up b.test: A: server failure. (#4.4.3)\nIt is the relay of control/smtproutes:1."},
		{&route.Error{Kind: route.RelayUnknown, Host: "b.test", Relay: "control/smtproutes:1"},
			"ZSorry, I couldn't find any host named b.test, the relay of control/smtproutes:1. (#4.4.4)"},
		{&route.Error{Kind: route.RelayNoAddress, Host: "b.test", Relay: "control/smtproutes:1"},
			"ZSorry, I couldn't find an address for b.test, the relay of control/smtproutes:1. (#4.4.4)"},
		{&route.Error{Kind: route.NullMX, Host: "a.test"}, "Da.test does not accept mail (null MX). (#5.1.10)"},
		{&route.Error{Kind: route.NoAddress, Host: "a.test"}, "DSorry, I couldn't find a mail exchanger or IP address. (#5.4.4)"},
		{&route.Error{Kind: route.OnlyOurselves, Host: "a.test"},
			"DSorry. Although I'm listed as a best-preference MX or A for that host,\nit isn't in my control/locals file, so I don't treat it as local. (#5.4.6)"},
		{&route.Error{Kind: route.ControlFiles, Reason: "control/protocols: why"}, "ZUnable to read control files: control/protocols: why. (#4.3.0)"},
		{&route.Error{Kind: route.ControlFiles, Reason: "control/smtproutes:3: why", Err: &control.Error{File: "control/smtproutes", Line: 3, What: "why"}},
			"ZUnable to read control files: control/smtproutes:3: why. (#4.3.0)"},
		{&control.Error{File: "control/me", Line: 1, What: "why"}, "ZUnable to read control files: control/me:1: why. (#4.3.0)"},
		{&dns.ConfigError{Source: "/etc/resolv.conf", What: "why", Err: fs.ErrPermission}, "ZUnable to read control files: /etc/resolv.conf: why. (#4.3.0)"},
		{&report.Error{Case: report.Usage}, "DI (qmail-remote) was invoked improperly. (#5.3.5)"},
		{errors.New("why"), "ZInternal error: wrapped: why. (#4.3.5)"},
	} {
		got := report.For(refusal(fmt.Errorf("wrapped: %w", c.err)))
		if string(got.Letter)+got.Text != c.want {
			t.Errorf("%v:\ngot  %c%s\nwant %s", c.err, got.Letter, got.Text, c.want)
		}
		if !errors.Is(refusal(c.err), c.err) {
			t.Errorf("%v: the cause is lost", c.err)
		}
		var e *route.Error
		if errors.As(c.err, &e) && e.Permanent() != (got.Letter == report.Permanent) {
			t.Errorf("%v: letter %c", e, got.Letter)
		}
	}
	if n := len(routeCases) - 1; n != int(route.ControlFiles) {
		t.Errorf("%d kinds have reports", n)
	}
}

func TestUsable(t *testing.T) {
	const qmtps, qmtp, smtp = 1, 2, 4
	protocols := map[int]control.Protocol{qmtps: {Service: "qmtps", Implicit: true}, qmtp: {Service: "qmtp"}, smtp: {Service: "smtp", Explicit: true}}
	anchors := control.Anchors{File: "ca.pem"}
	for _, c := range []struct {
		settings control.Settings
		want     int
	}{
		{control.Settings{}, qmtp | smtp},
		{control.Settings{TrustAnchors: anchors}, qmtps | qmtp | smtp},
		{control.Settings{TrustAnchors: anchors, TLSStrictness: 1}, qmtps | qmtp | smtp},
		{control.Settings{TrustAnchors: anchors, TLSStrictness: 2}, qmtps | smtp}, // what is never in TLS is left out
		{control.Settings{TLSClient: "/bin/true"}, qmtps | qmtp | smtp},           // a named client turns its kind on
		{control.Settings{TLSClient: "/bin/true", TLSStrictness: 2}, qmtps},
		{control.Settings{UCSPITLSClient: "/bin/true"}, qmtp | smtp},
		{control.Settings{UCSPITLSClient: "/bin/true", TLSStrictness: 2}, smtp},
		{control.Settings{TLSStrictness: 2}, 0},
	} {
		r := &Router{Config: Config{Settings: &c.settings}, requirement: policy.Strictness(c.settings.TLSStrictness)}
		got := 0
		for bit, p := range protocols {
			if r.usable(&p, "example.org") {
				got |= bit
			}
		}
		if got != c.want {
			t.Errorf("%+v: %b, want %b", c.settings, got, c.want)
		}
	}
}
