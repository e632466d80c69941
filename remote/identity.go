package remote

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/remote/dial"
	"nightmare.mail/mxf/remote/policy"
	"nightmare.mail/mxf/remote/report"
	"nightmare.mail/mxf/remote/route"
	"nightmare.mail/mxf/remote/transport"
	"nightmare.mail/mxf/tlsc"
)

// introduce decides what is required of s, and returns what we say about ourselves there, whatever
// the family of its address: control/credentials and control/clientcerts. waived reports whether
// the message waives what is published. The error is a *control.Error, and nothing is connected
// then.
func (r *Router) introduce(s *Step, job *Job, logins control.Credentials, waived func() bool) (transport.Identity, error) {
	identity := r.carrier.Identity()
	kind := tlsOf(r.Settings, s.Protocol)
	if kind != policy.NoTLS && r.fault != nil {
		return identity, r.fault
	}
	login, err := loginAt(&s.Candidate, job.Sender, logins)
	if err != nil {
		return identity, err
	}
	identity.Login = login
	s.account = r.accountAt(s.RelayName, &login, logins)
	demand := demands(&login.Credential)
	if err := r.require(s, job, demand, waived); err != nil {
		return identity, err
	}
	if demand.Level > policy.Clear {
		if err := r.canBeSecret(&login.Credential, kind); err != nil {
			return identity, err
		}
	}
	if kind != policy.NoTLS {
		err = r.certify(&s.Candidate, job.Sender, &identity)
	}
	return identity, err
}

// require decides what is required of s, or why it is left: by control/tlspolicy, what is
// published, control/tlsstrictness and the demand of a login.
func (r *Router) require(s *Step, job *Job, demand policy.Demand, waived func() bool) error {
	p := &s.Published
	w := r.way(&s.Candidate, p, demand)
	w.Waived = w.Waivable() && waived()
	p.Waived = w.Waived
	required, why := policy.Decide(w)
	if why != nil {
		err := leftError(&s.Candidate, p, why)
		if malformed := new(control.Error); errors.As(err, &malformed) {
			return err
		}
		r.tracePolicy(job, s, why.By, why.Error())
		s.Err = err
		return nil
	}
	if err := r.canMeet(&required, s.Protocol, w.Kind); err != nil {
		return err
	}
	s.Requirement = required
	r.tracePolicy(job, s, required.Title, required.By)
	if demand.Level > policy.Clear && required.By == demand.By {
		job.tracef("%s (%s)", required.Title, required.By)
	}
	switch judge := required.Judge.(type) {
	case tlsc.TrustAnchors:
		return r.carrier.LoadAnchors()
	case tlsc.DANE:
		if judge.Anchors {
			return r.carrier.LoadAnchors()
		}
	}
	return nil
}

// canMeet returns a *control.Error for a TLS client that can match neither records nor pins nor
// further names where one of these is required: the only protocol that it is for may be one that
// is understood without a line, of which control.Settings.CheckPolicy knows nothing.
func (r *Router) canMeet(required *policy.Requirement, protocol *control.Protocol, kind policy.Kind) error {
	_, byRecords := required.Judge.(tlsc.DANE)
	if !byRecords && required.Names == "" || r.carrier.HasOurClient(protocol) {
		return nil
	}
	file := "control/ucspitlsclient"
	if kind == policy.ImplicitTLS {
		file = "control/tlsclient"
	}
	return &control.Error{File: file, Line: 1, What: "expected no other client than ours where others cannot do what is wanted: " + required.By}
}

// tracePolicy says what was decided of s, where there is any policy but control/tlsstrictness.
func (r *Router) tracePolicy(job *Job, s *Step, what, why string) {
	if r.Settings.HasPolicy() {
		job.tracef("policy %s %s %d: %s: %s", cmp.Or(s.Host, s.Addrs[0].String()), s.Protocol.Service, s.Port, what, why)
	}
}

// demands is the TLS without which a login is not said.
func demands(login *control.Credential) policy.Demand {
	switch {
	case login.Line == 0, login.Clear:
		return policy.Demand{}
	case login.Unverified:
		return policy.Demand{Level: policy.Must, By: login.String()}
	}
	return policy.Demand{Level: policy.Verified, By: login.String()}
}

// canBeSecret returns a *control.Error for settings under which the secret of a login could
// never be sent.
func (r *Router) canBeSecret(login *control.Credential, kind policy.Kind) error {
	what := ""
	switch {
	case kind == policy.NoTLS:
		what = "expected TLS for this login, and there is none: control/trustanchors names nothing, or the protocol has no TLS; the option clear does without"
	case !login.Unverified && !r.Settings.CanVerify():
		what = "expected trust anchors for this login, and control/trustanchors names nothing; the option unverified does without"
	default:
		return nil
	}
	return &control.Error{File: "control/credentials", Line: login.Line, What: what}
}

// logsIn reports whether a login is looked for at a candidate. QMTP has none.
func logsIn(c route.Candidate) bool { return c.RelayName != "" && !c.Protocol.QMTP() }

// logins reads control/credentials, if one of candidates may have a login.
func (r *Router) logins(candidates []route.Candidate) (control.Credentials, error) {
	if !slices.ContainsFunc(candidates, logsIn) {
		return control.Credentials{}, nil
	}
	return control.ReadCredentials(r.Settings.Home)
}

// loginAt returns the login at a candidate, the zero Login if there is none.
func loginAt(c *route.Candidate, sender string, logins control.Credentials) (login transport.Login, err error) {
	if !logsIn(*c) {
		return login, nil
	}
	if found := logins.For(c.RelayName, sender); found != nil {
		login.Credential = *found
		login.Secret, err = found.Read()
	}
	return login, err
}

// certify has identity show the client certificate that control/clientcerts has for a candidate
// and a sender.
func (r *Router) certify(c *route.Candidate, sender string, identity *transport.Identity) error {
	own := r.Settings.ClientCerts.For(c.Host, c.Addrs[0], sender)
	if own == nil {
		return nil
	}
	identity.Certificate, identity.Key, identity.Pair = own.Certificate, own.Key, nil
	if own.Certificate == "" {
		return nil
	}
	if err := own.CheckKey(); err != nil {
		return err
	}
	var err error
	if identity.Pair, err = r.Certificates.Load(own.Certificate, own.Key); err != nil {
		return &control.Error{File: "control/clientcerts", Line: own.Line, What: err.Error()}
	}
	return nil
}

// A family is what the control files say of one family of addresses.
type family struct {
	source control.Source // where there is a line of control/sources; the zero Source: none
	off    string         // the file and line that leave the family out; empty: it is used
}

// families returns what holds for IPv4 and IPv6 towards the exchanger of a candidate.
func (r *Router) families(c *route.Candidate, sender string) (four, six family) {
	source4, source6, any := r.Settings.Sources.For(sender)
	four.source, six.source = source4, source6
	if any {
		// A key has a line for one family at least.
		if source4.Line == 0 {
			four.off = fmt.Sprintf("control/sources:%d", source6.Line)
		}
		if source6.Line == 0 {
			six.off = fmt.Sprintf("control/sources:%d", source4.Line)
		}
	}
	if only, line := r.Settings.Families.For(c.Host, c.Addrs[0]); line > 0 {
		place := fmt.Sprintf("control/families:%d", line)
		if only == control.IPv4 {
			six.off = cmp.Or(six.off, place)
		} else {
			four.off = cmp.Or(four.off, place)
		}
	}
	return four, six
}

// of returns what holds for the family of addr.
func of(addr netip.Addr, four, six family) family {
	if addr.Is4() {
		return four
	}
	return six
}

// speak has identity speak from the source of f, by its name.
func (f *family) speak(identity transport.Identity) transport.Identity {
	if f.source.Line > 0 {
		identity.Source, identity.HeloHost = f.source.Addr, cmp.Or(f.source.Helo, identity.HeloHost)
	}
	return identity
}

// noFamily is the error of a step whose exchanger has addresses of families alone that are not
// used.
func noFamily(c *route.Candidate, four, six family) error {
	off := of(c.Addrs[0], four, six).off
	return &report.Error{Case: report.FamilyNotUsed, Facts: report.Facts{Line: off, Host: cmp.Or(c.Host, c.Addrs[0].String())}}
}

// sources returns where connections to s come from.
func (s *Step) sources() (from dial.Sources) {
	for i := range s.Addresses {
		if a := &s.Addresses[i]; a.Addr().Is4() {
			from.Four = a.Identity.Source
		} else {
			from.Six = a.Identity.Source
		}
	}
	return from
}

// noSource is the report of a connection to addr that could not be bound to the source of its
// family.
func (s *Step) noSource(addr netip.AddrPort, failed *dial.SourceError) report.Report {
	facts := report.Facts{IP: failed.Addr.String()}
	for i := range s.Addresses {
		if a := &s.Addresses[i]; a.AddrPort == addr {
			facts.Line = fmt.Sprintf("control/sources:%d", a.SourceLine)
		}
	}
	if failed.NotOurs {
		return report.New(report.SourceNotOurs, facts)
	}
	facts.Reason = dial.Reason(failed.Err).Error()
	return report.New(report.SourceUnusable, facts)
}
