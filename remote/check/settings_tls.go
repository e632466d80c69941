package check

import (
	"context"
	"crypto/x509"
	"errors"
	"os"
	"slices"
	"strings"
	"time"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/remote/transport"
	"nightmare.mail/mxf/tlsc"
)

// soonOver is when the end of a certificate is worth a warning.
const soonOver = 30 * 24 * time.Hour

// commonRoots are parts of the names of authorities that most mail servers' certificates come
// from. Who trusts none of them verifies hardly any server.
var commonRoots = []string{
	"ISRG Root", "DigiCert", "Sectigo", "USERTrust", "COMODO", "GTS Root", "GlobalSign", "Amazon Root", "Starfield", "Go Daddy",
	"Entrust", "Actalis", "Certum", "Buypass", "HARICA", "QuoVadis", "SwissSign", "T-TeleSec", "Telekom Security", "Baltimore CyberTrust",
	"Microsoft RSA Root", "Microsoft ECC Root", "SSL.com",
}

// tls looks at trust anchors, certificates and clients, and at demands that cannot be met.
func (l *look) tls(context.Context) {
	l.clients()
	l.anchors()
	l.clientCertificate()
	for _, c := range l.settings.ClientCerts.Lines() {
		l.sender("clientcerts", c.ClientCert.Line, c.Sender)
		l.exchangerMatches("clientcerts", c.ClientCert.Line, c.Exchanger)
		l.certificateFor(&c.ClientCert)
	}
	if l.isBroken("trustanchors", "trustresolvers", "tlsclient", "ucspitlsclient", "protocols", "tlsstrictness") {
		return
	}
	l.strictness()
	for _, err := range l.settings.Contradictions(l.carrier.HasOurClient) {
		if e := new(control.Error); errors.As(err, &e) && !l.has(e.File, e.Line) {
			l.failFor(e)
		}
	}
}

// anchors counts the trust anchors.
func (l *look) anchors() {
	named := l.settings.TrustAnchors
	const file, do = "control/trustanchors", "name the bundle of this system (INSTALL.md, section 5), or one with these certificates"
	if named == (control.Anchors{}) {
		if !l.isBroken("trustanchors") && !l.settings.TLSIsOn() {
			l.warn(file, 0, do, "TLS is off: all mail goes in the clear")
		}
		return
	}
	all, unreadable, err := tlsc.Anchors{File: named.File, Dir: named.Dir}.All()
	if err != nil {
		l.fail(file, 1, do, "%s", err)
		return
	}
	over := 0
	for _, c := range all {
		if l.Now().After(c.NotAfter) {
			over++
		}
	}
	switch {
	case over == len(all):
		l.fail(file, 1, do, "%s, all of them out of date or of no use: no certificate can be verified", plural(len(all)+unreadable, "trust anchor", "trust anchors"))
	case over+unreadable > 0:
		l.note(file, 1, "%s, %d of them out of date, %d unreadable", plural(len(all)+unreadable, "trust anchor", "trust anchors"), over, unreadable)
	default:
		l.ok(file, 1, "%s", plural(len(all), "trust anchor", "trust anchors"))
	}
	switch isCommon := slices.ContainsFunc(all, isCommonRoot); {
	case isCommon:
	case l.allRelayed:
		l.note(file, 1, "none of the trust anchors is one of the web's common roots, which is right if the relays' certificates come from yours")
	default:
		l.warn(file, 1, do, "none of the trust anchors is one of the web's common roots, so hardly any server can be verified")
	}
}

func isCommonRoot(c *x509.Certificate) bool {
	name := c.Subject.String()
	return slices.ContainsFunc(commonRoots, func(root string) bool { return strings.Contains(name, root) })
}

// clientCertificate looks at control/clientcert and control/clientkey.
func (l *look) clientCertificate() {
	s := l.settings
	if s.ClientCert == "" {
		return
	}
	own, err := tlsc.LoadCertificate(s.ClientCert, s.ClientKey)
	if err != nil {
		file := "control/clientcert"
		if fault := new(tlsc.Error); errors.As(err, &fault) && fault.File == s.ClientKey {
			file = "control/clientkey"
		}
		l.fail(file, 1, "name a certificate and its key, both readable for the user that delivers (chgrp qmail, chmod 640)", "%s", err)
		return
	}
	if info, err := os.Stat(s.ClientKey); err == nil && info.Mode()&0o007 != 0 {
		l.warn("control/clientkey", 1, "take it away from others: chgrp qmail and chmod 640 on that file", "the key can be read by all: its mode is %04o", info.Mode().Perm())
	}
	l.certificate("control/clientcert", 1, own.Leaf())
}

// certificateFor looks at what a line of control/clientcerts names.
func (l *look) certificateFor(c *control.ClientCert) {
	if c.Certificate == "" {
		return
	}
	if err := c.CheckKey(); err != nil {
		l.failFor(err)
		return
	}
	own, err := tlsc.LoadCertificate(c.Certificate, c.Key)
	if err != nil {
		l.fail("control/clientcerts", c.Line, "name a certificate and its key, both readable for the user that delivers", "%s", err)
		return
	}
	l.certificate("control/clientcerts", c.Line, own.Leaf())
}

// certificate looks at dates and purpose.
func (l *look) certificate(file string, line int, c *x509.Certificate) {
	const do = "get a new certificate, and put certificate and key in place by renaming"
	now, day := l.Now(), c.NotAfter.UTC().Format(time.DateOnly)
	switch left := c.NotAfter.Sub(now); {
	case left <= 0:
		l.warn(file, line, do, "the certificate is out of date since %s", day)
	case now.Before(c.NotBefore):
		l.warn(file, line, "see whether the clock of this host is right", "the certificate is not valid before %s", c.NotBefore.UTC().Format(time.DateOnly))
	case left < soonOver:
		l.warn(file, line, do, "the certificate is valid for %s only, until %s", plural(int(left/(24*time.Hour)), "more day", "more days"), day)
	default:
		l.ok(file, line, "the key fits, and the certificate is valid until %s", day)
	}
	purposes := c.ExtKeyUsage
	if len(purposes)+len(c.UnknownExtKeyUsage) > 0 && !slices.Contains(purposes, x509.ExtKeyUsageClientAuth) && !slices.Contains(purposes, x509.ExtKeyUsageAny) {
		l.warn(file, line, "get a certificate for client authentication (extended key usage clientAuth)", "the certificate is not for clients, and servers may refuse it")
	}
}

// clients looks at TLS clients that control files name.
func (l *look) clients() {
	for _, c := range []struct{ name, client string }{{"tlsclient", l.settings.TLSClient}, {"ucspitlsclient", l.settings.UCSPITLSClient}} {
		if c.client == "" {
			continue
		}
		file := "control/" + c.name
		path, err := l.carrier.ClientPath(c.client)
		switch word := shown(path); {
		case err != nil:
			l.fail(file, 1, "name a program that the user that delivers can run, without arguments; a script can carry those", "cannot run %s: %v", word, err)
		case transport.FormOf(path) == transport.BareScript:
			l.fail(file, 1, "begin the script with a line #!/bin/sh", "cannot run %s: it is text without a first line #! and an interpreter", word)
		default:
			l.ok(file, 1, "%s can be run; it sees to its own trust anchors", word)
		}
	}
}

// strictness finds protocols that can never be used.
func (l *look) strictness() {
	s := l.settings
	if s.TLSStrictness == 2 && !s.TLSIsOn() {
		l.fail("control/tlsstrictness", 1, "name the CA certificates in control/trustanchors (INSTALL.md, section 5), or write 0",
			"%d wants TLS, and there is none: control/trustanchors names nothing, or no protocol has TLS", s.TLSStrictness)
	}
	policies := s.TLSPolicy.Lines()
	allowsClear := slices.ContainsFunc(policies, func(p control.TLSPolicyLine) bool {
		return p.Policy.Level == control.TLSNone || p.Policy.Level == control.TLSMay || p.Policy.Floor == control.TLSMay
	})
	for i := range s.Protocols {
		p := &s.Protocols[i]
		why := ""
		switch {
		case s.HasTLS(p):
		case p.Implicit:
			why = "TLS is off, and it has implicit TLS"
		case s.TLSStrictness == 2 && !allowsClear:
			why = "control/tlsstrictness is 2, and it has no TLS"
		}
		switch {
		case why == "":
		case p.Line > 0:
			l.warn("control/protocols", p.Line, "remove the line, or change what forbids it", "%s can never be used: %s", p.Service, why)
		case p.Service != control.Submissions:
			l.note("control/protocols", 0, "%s, which is there by default, can never be used: %s", p.Service, why)
		}
	}
}
