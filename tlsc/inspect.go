package tlsc

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"slices"
	"time"
)

// An Inspection is what a handshake has shown of a server: for those who want to know what
// another judge would have said.
type Inspection struct {
	Version, Cipher, Group string // as in Facts; the key exchange by its name, empty: none that has one
	ServerName             string // the name that was sent; empty: none
	Resumed                bool
	Chain                  []Shown // as the server sent it, its own first; ten at most
	More                   int     // number of certificates beyond Chain

	Staple    string  // what is wrong with the OCSP response that is stapled to it; "good"; empty: there is none
	Asked     bool    // the server asked for a certificate; it is not heard where the verdict ends a handshake of TLS 1.3
	Gave      bool    // and was given one
	Enforced  bool    // the judge of the Demand enforces
	Verdict   Verdict // of that judge
	Anchors   Verdict // of the trust anchors about the server's name, whoever is the judge
	Strong    bool    // version, suite and signature will do where a verdict is enforced
	Signature string  // what is wrong with the signature of the handshake; empty: nothing
}

// A Shown is what a person wants to see of a certificate. Its texts are bounded.
type Shown struct {
	Subject, Issuer     string // RFC 4514
	NotBefore, NotAfter time.Time
	Names               []string // dNSNames and addresses, thirty at most
}

// Fatal reports whether a connection that enforces the verdict does not come about.
func (v Verdict) Fatal() bool { return v.fatal || v.Fault == FaultOurs }

// inspect tells of a handshake to whoever wants to know.
func (h *handshake) inspect(state tls.ConnectionState) {
	if h.demand.Inspect == nil {
		return
	}
	chain := state.PeerCertificates
	signature := judgeSignature(state, h.scheme(state), true)
	i := Inspection{
		Version: versionName(state.Version), Cipher: tls.CipherSuiteName(state.CipherSuite), ServerName: h.demand.sni(),
		Resumed: state.DidResume, More: max(len(chain)-certificatesTraced, 0),
		Asked: h.asked, Gave: h.gave, Enforced: h.enforced, Verdict: h.verdict, Signature: signature.Reason,
		Strong: state.Version >= tls.VersionTLS12 && isSecure(state.CipherSuite) && signature.Good(),
	}
	if state.CurveID != 0 {
		i.Group = state.CurveID.String()
	}
	for _, c := range chain[:len(chain)-i.More] {
		i.Chain = append(i.Chain, shownOf(c))
	}
	e := h.evidence(state)
	if len(chain) > 0 && len(e.staple) > 0 {
		i.Staple = "good"
		if v := judgeStaple(e.staple, chain[0], [][]*x509.Certificate{chain}, e.now); !v.Good() {
			i.Staple = v.Reason
		}
	}
	e.others = nil
	reach, _ := Nobody{}.convene(context.Background(), h.client, h.demand.trace)
	i.Anchors = reach(e)
	h.demand.Inspect(i)
}

func isSecure(suite uint16) bool {
	return slices.ContainsFunc(tls.CipherSuites(), func(s *tls.CipherSuite) bool { return s.ID == suite })
}

func shownOf(c *x509.Certificate) Shown {
	one := Shown{
		Subject: cut(distinguishedName(c.RawSubject), subjectLimit), Issuer: cut(distinguishedName(c.RawIssuer), subjectLimit),
		NotBefore: c.NotBefore.UTC(), NotAfter: c.NotAfter.UTC(),
	}
	for _, name := range c.DNSNames {
		one.Names = append(one.Names, cut(name, nameLimit))
	}
	for _, addr := range c.IPAddresses {
		one.Names = append(one.Names, addr.String())
	}
	one.Names = one.Names[:min(len(one.Names), namesTraced)]
	return one
}
