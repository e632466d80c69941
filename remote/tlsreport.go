package remote

import (
	"bytes"
	"net/netip"
	"slices"

	"nightmare.mail/mxf/remote/dane"
	"nightmare.mail/mxf/remote/mtasts"
	"nightmare.mail/mxf/remote/policy"
	"nightmare.mail/mxf/remote/tlsrpt"
	"nightmare.mail/mxf/remote/transport"
	"nightmare.mail/mxf/smtpc"
	"nightmare.mail/mxf/tlsc"
)

// What is told to those who asked for reports on TLS (RFC 8460): what there is to tell of a
// connection, of a step that is left and of a policy that could not be fetched, and the sending,
// after the delivery.

// The reasons that stand for themselves in a report.
const (
	reasonRefused  = "starttls-refused"
	reasonIssuer   = "untrusted"
	reasonNoMatch  = "tlsa-mismatch"
	reasonUnlisted = "mx-mismatch"
	reasonUnusable = "all-unusable"
)

// A meeting is a connection to a step, and what became of STARTTLS on it.
type meeting struct {
	securing     transport.Securing
	ours, theirs netip.Addr
}

// report is what is told about a meeting with s; nil: nothing.
func (m meeting) report(s *Step) *tlsrpt.Datagram {
	if s.Published.Reports == "" || m.securing.What == smtpc.NotAsked {
		return nil
	}
	policies, failed := s.applied(), false
	for i := range policies {
		code, reason := s.failureOf(policies[i].Type, &m.securing)
		if code == 0 {
			continue
		}
		failed = true
		policies[i].Failure = &tlsrpt.Failure{Code: code, Ours: m.ours, Exchanger: s.Host, Theirs: m.theirs, Reason: reason}
	}
	if m.securing.What == smtpc.NotSecured && !failed {
		return nil // nobody but us insists on another certificate
	}
	return s.datagram(policies...)
}

func (s *Step) datagram(policies ...tlsrpt.Policy) *tlsrpt.Datagram {
	return &tlsrpt.Datagram{Domain: s.Published.Domain, Record: s.Published.Reports, Policies: policies}
}

// applied are the policies that applied to a connection to s.
func (s *Step) applied() (all []tlsrpt.Policy) {
	p := &s.Published
	if p.hasTLSA() {
		all = append(all, p.tlsaPolicy())
	}
	if sts := p.policy(); sts != nil && s.Requirement.Word != policy.WordDANE {
		all = append(all, stsPolicy(p.Domain, sts))
	}
	if all == nil {
		all = append(all, tlsrpt.Policy{Type: tlsrpt.None, Domain: p.Domain})
	}
	return all
}

// hasTLSA reports whether there are secure TLSA records.
func (p *Published) hasTLSA() bool {
	return p.TLSA.State == dane.Usable || p.TLSA.State == dane.NoneUsable
}

// policy is the MTA-STS policy that holds, nil for none.
func (p *Published) policy() *mtasts.Policy {
	if p.STS == nil {
		return nil
	}
	return p.STS.Policy()
}

// tlsaPolicy is the TLSA records, if there are any, as a policy.
func (p *Published) tlsaPolicy() tlsrpt.Policy {
	told := tlsrpt.Policy{Type: tlsrpt.TLSA, Domain: p.TLSA.Base}
	for _, r := range p.TLSA.Records.List() {
		told.Strings = append(told.Strings, tlsrpt.TLSAString(r.Usage, r.Selector, r.Matching, r.Data))
	}
	return told
}

// stsPolicy is the policy of a domain; nil: there is none.
func stsPolicy(domain string, sts *mtasts.Policy) tlsrpt.Policy {
	told := tlsrpt.Policy{Type: tlsrpt.STS, Domain: domain}
	if sts != nil {
		told.Strings, told.MXHosts = sts.Lines, sts.MX
	}
	return told
}

// failureOf is the failure of one policy on a connection to s, and its reason; 0: it did not
// fail. Mode testing is as enforce here, which is what it is for. Where it stands beside TLSA
// records, though, trust anchors were not asked, and it cannot have found a fault.
func (s *Step) failureOf(t tlsrpt.Type, became *transport.Securing) (tlsrpt.Code, string) {
	switch {
	case t == tlsrpt.TLSA && s.Published.TLSA.State == dane.NoneUsable:
		return tlsrpt.TLSAInvalid, reasonUnusable
	case t == tlsrpt.STS && !s.Published.policy().Matches(s.Host):
		return tlsrpt.ValidationFailure, reasonUnlisted
	case became.What == smtpc.NotOffered:
		return tlsrpt.STARTTLSNotSupported, ""
	case became.What == smtpc.NotGranted:
		return tlsrpt.STARTTLSNotSupported, reasonRefused
	case became.What == smtpc.NotSecured && became.Faults == tlsc.Faults{}:
		return tlsrpt.ValidationFailure, became.Reason
	case t == tlsrpt.TLSA:
		return failureBy(became.Faults.Records, became)
	case t == tlsrpt.STS:
		return failureBy(became.Faults.Anchors, became)
	}
	return 0, "" // nobody has said which certificate it is to be
}

// failureBy is the failure by a fault of the certificate.
func failureBy(fault tlsc.Fault, became *transport.Securing) (tlsrpt.Code, string) {
	switch fault {
	case tlsc.NoFault, tlsc.FaultOurs:
		return 0, ""
	case tlsc.FaultName:
		return tlsrpt.CertificateHostMismatch, ""
	case tlsc.FaultIssuer, tlsc.FaultSelfSigned:
		return tlsrpt.CertificateNotTrusted, reasonIssuer
	case tlsc.FaultNoMatch:
		return tlsrpt.CertificateNotTrusted, reasonNoMatch
	case tlsc.FaultDate:
		return tlsrpt.CertificateExpired, ""
	case tlsc.FaultStaple:
		if became.What == smtpc.Secured {
			return 0, "" // the server could have sent none
		}
	}
	return tlsrpt.ValidationFailure, became.Reason
}

// reportLeft is what is told about s, which is left for a reason of policy; nil: nothing.
func reportLeft(s *Step, why policy.Reason) *tlsrpt.Datagram {
	p := &s.Published
	if p.Reports == "" || !s.Protocol.Explicit {
		return nil
	}
	failure := &tlsrpt.Failure{Exchanger: s.Host}
	told := p.tlsaPolicy()
	told.Failure = failure
	switch why {
	case policy.LeftUnlisted:
		told = stsPolicy(p.Domain, p.policy())
		told.Failure = failure
		failure.Code, failure.Reason = tlsrpt.ValidationFailure, reasonUnlisted
	case policy.LeftLookup:
		failure.Code, failure.Reason = tlsrpt.DNSSECInvalid, p.TLSA.Err.Error()
	case policy.LeftUnsatisfied:
		failure.Code = tlsrpt.DANERequired
	default:
		return nil
	}
	return s.datagram(told)
}

// fetchCodes are the codes of failures to fetch a policy.
var fetchCodes = [...]tlsrpt.Code{
	mtasts.FetchError: tlsrpt.STSPolicyFetchError, mtasts.PolicyInvalid: tlsrpt.STSPolicyInvalid, mtasts.WebPKIInvalid: tlsrpt.STSWebPKIInvalid,
}

// An unfetched is a policy domain that asks for reports, by record, and whose policy this delivery could not
// fetch.
type unfetched struct {
	domain, record string
	finding        mtasts.Finding
}

// report is what is told about it.
func (u *unfetched) report() *tlsrpt.Datagram {
	told := stsPolicy(u.domain, u.finding.Policy())
	told.Failure = &tlsrpt.Failure{Code: fetchCodes[u.finding.Failed.Kind], Reason: u.finding.Failed.Reason}
	return &tlsrpt.Datagram{Domain: u.domain, Record: u.record, Policies: []tlsrpt.Policy{told}}
}

// A debt is a datagram that a delivery has not sent yet.
type debt struct {
	once bool // not if one like it has been sent
	make func() *tlsrpt.Datagram
}

// owe has Tell send what report returns, which may be nil.
func (j *Job) owe(d debt) { j.debts = append(j.debts, d) }

// Tell sends what Deliver has found to tell to the collector of reports on TLS. It is called when the
// reports of the delivery are written. It takes 100 ms at most, and does not panic.
func (j *Job) Tell() {
	defer func() { _ = recover() }()
	var domains []string
	var datagrams [][]byte
	for _, d := range j.debts {
		made := d.make()
		if made == nil {
			continue
		}
		data, err := made.Bytes()
		switch {
		case err != nil:
			j.tracef("tlsrpt %s: not sent: %v", made.Domain, err)
			continue
		case d.once && slices.ContainsFunc(datagrams, func(other []byte) bool { return bytes.Equal(other, data) }):
			continue
		}
		domains, datagrams = append(domains, made.Domain), append(datagrams, data)
	}
	if len(datagrams) == 0 {
		return
	}
	for i, err := range tlsrpt.Send(j.collector, datagrams...) {
		if err != nil {
			j.tracef("tlsrpt %s: not sent: %v", domains[i], err)
			continue
		}
		j.tracef("tlsrpt %s: sent %d bytes", domains[i], len(datagrams[i]))
	}
}
