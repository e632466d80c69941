package control

import (
	"fmt"
	"slices"
)

// HasTLS reports whether TLS is on for a protocol that has any: there are trust anchors, or
// servers whose word on DNSSEC counts, or a file names the client for its kind of TLS, which
// sees to its own.
func (s *Settings) HasTLS(p *Protocol) bool {
	either := s.TrustAnchors != (Anchors{}) || len(s.TrustResolvers) > 0
	return p.Implicit && (either || s.TLSClient != "") || p.Explicit && (either || s.UCSPITLSClient != "")
}

// TLSIsOn reports whether some protocol has TLS. One that is understood without a line does
// not count: only some routes lead to it.
func (s *Settings) TLSIsOn() bool { return s.named(s.HasTLS) }

// named reports whether is holds for a protocol that is not understood without a line.
func (s *Settings) named(is func(*Protocol) bool) bool {
	return slices.ContainsFunc(s.Protocols, func(p Protocol) bool {
		return (p.Service != Submissions || p.Line > 0) && is(&p)
	})
}

// CanVerify reports whether somebody can verify a certificate by trust anchors: we, or a
// client that a file names.
func (s *Settings) CanVerify() bool {
	return s.TrustAnchors != (Anchors{}) || s.TLSClient != "" || s.UCSPITLSClient != ""
}

// CheckPolicy returns the first of Contradictions.
func (s *Settings) CheckPolicy(isOurs func(*Protocol) bool) error {
	if all := s.Contradictions(isOurs); len(all) > 0 {
		return all[0]
	}
	return nil
}

// Contradictions returns an *Error for each demand on TLS that these settings can never
// meet. isOurs reports whether the TLS client of a protocol is the bundled one. What is wrong
// with the folder of control/mtasts is for others to say.
func (s *Settings) Contradictions(isOurs func(*Protocol) bool) []error {
	var all []error
	d := dir{home: s.Home}
	if s.MTASTS != "" && s.TrustAnchors == (Anchors{}) {
		all = append(all, d.malformed("mtasts", 1, "expected trust anchors for it, and control/trustanchors is missing or empty"))
	}
	if s.TLSStrictness == 2 && !s.CanVerify() {
		all = append(all, d.malformed("tlsstrictness", 1, "expected trust anchors for 2, or a client that sees to its own, "+noneToVerify))
	}
	for i := range s.TLSPolicy.lines {
		if problem := s.contradicts(&s.TLSPolicy.lines[i]); problem != "" {
			all = append(all, d.malformed("tlspolicy", s.TLSPolicy.lines[i].Line, problem))
		}
	}
	return append(all, s.checkClients(isOurs)...)
}

const noneToVerify = "and control/trustanchors, control/tlsclient and control/ucspitlsclient name none"

// contradicts says what p wants in vain, and is "" if nothing is.
func (s *Settings) contradicts(p *TLSPolicy) (problem string) {
	switch {
	case p.Level == TLSDANE && len(s.TrustResolvers) == 0:
		return "expected control/trustresolvers for dane, and this file is missing"
	case p.alwaysTLS() && !s.TLSIsOn():
		return fmt.Sprintf("expected TLS for %s, and there is none: trustanchors names nothing, or no protocol has TLS", p.words())
	case p.verifies() && !s.CanVerify():
		return fmt.Sprintf("expected trust anchors for %s, or a client that sees to its own, %s", p.words(), noneToVerify)
	}
	return ""
}

// words are the level and the floor, as the file has them.
func (p *TLSPolicy) words() string {
	if p.Floor != "" {
		return string(p.Level + ":" + p.Floor)
	}
	return string(p.Level)
}

// checkClients refuses a client that can match neither TLSA records nor pins nor further
// names where that may be wanted.
func (s *Settings) checkClients(isOurs func(*Protocol) bool) (all []error) {
	demand := s.ourDemand()
	if demand == "" {
		return nil
	}
	for _, kind := range []struct {
		file, client string
		has          func(*Protocol) bool
	}{
		{"tlsclient", s.TLSClient, func(p *Protocol) bool { return p.Implicit }},
		{"ucspitlsclient", s.UCSPITLSClient, func(p *Protocol) bool { return p.Explicit }},
	} {
		if kind.client != "" && s.named(func(p *Protocol) bool { return kind.has(p) && !isOurs(p) }) {
			all = append(all, dir{home: s.Home}.malformed(kind.file, 1, fmt.Sprintf("expected no other client than ours beside %s", demand)))
		}
	}
	return all
}

// ourDemand returns the place of what no client but the bundled ones can do, "" if nothing
// wants that.
func (s *Settings) ourDemand() string {
	if len(s.TrustResolvers) > 0 {
		return "control/trustresolvers, since others do not match TLSA records"
	}
	for i := range s.TLSPolicy.lines {
		switch p := &s.TLSPolicy.lines[i]; {
		case p.Level == TLSPin:
			return p.Place() + ", since others do not match pins"
		case p.Level == TLSVerify && len(p.Names) > 0:
			return p.Place() + ", since others take one name only"
		}
	}
	return ""
}
