package tlsc

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// A verdict on a server's certificate. The zero verdict is a good one.
type verdict struct {
	reason string // why not
	fatal  bool   // a connection that enforces verdicts does not come about
}

// String is the verdict as Description has it.
func (v verdict) String() string {
	if v.reason == "" {
		return "yes"
	}
	return "no:" + v.reason
}

// judge reaches the verdict.
func (s *Settings) judge(anchors *index, state tls.ConnectionState) verdict {
	if len(state.PeerCertificates) == 0 {
		return verdict{"server sent no certificate", true}
	}
	leaf, now := state.PeerCertificates[0], s.now()
	for _, c := range state.PeerCertificates {
		if reason := unfit(c, leaf); reason != "" {
			return verdict{reason, true}
		}
	}
	chains, err := anchors.verify(state.PeerCertificates, now)
	if err != nil {
		return verdict{err.Error(), true}
	}
	chains, v := strong(chains, leaf)
	if v.fatal {
		return v
	}
	if name := s.name(); name != "" && leaf.VerifyHostname(name) != nil {
		return verdict{misnamed(leaf, name), true}
	}
	return judgeStaple(state.OCSPResponse, leaf, chains, now)
}

// verify returns the chains from a certificate to trust anchors, all of whose links
// are in date and allowed to be where they are.
func (x *index) verify(presented []*x509.Certificate, now time.Time) ([][]*x509.Certificate, error) {
	intermediates := x509.NewCertPool()
	for _, c := range presented[1:] {
		intermediates.AddCert(c)
	}
	chains, err := presented[0].Verify(x509.VerifyOptions{
		Roots:         x.pool(presented),
		Intermediates: intermediates,
		CurrentTime:   now,
	})
	if err != nil {
		return nil, errors.New(x.unverified(presented[0], err, now))
	}
	return chains, nil
}

// unverified words why there is no chain.
func (x *index) unverified(leaf *x509.Certificate, err error, now time.Time) string {
	invalid, unknown := x509.CertificateInvalidError{}, x509.UnknownAuthorityError{}
	switch {
	case errors.As(err, &unknown):
		if bytes.Equal(leaf.RawIssuer, leaf.RawSubject) && leaf.CheckSignature(leaf.SignatureAlgorithm, leaf.RawTBSCertificate, leaf.Signature) == nil {
			return "certificate is self-signed, so signed by an authority that is not in " + x.where
		}
		return "certificate is signed by an authority that is not in " + x.where
	case errors.As(err, &invalid):
		who := "certificate"
		if invalid.Cert != nil {
			who = whose(invalid.Cert, leaf)
		}
		switch invalid.Reason {
		case x509.Expired:
			return who + " " + outOfDate(invalid.Cert, now)
		case x509.NotAuthorizedToSign:
			return who + " is not that of an authority, but used as one"
		case x509.IncompatibleUsage:
			return who + " is not for servers"
		case x509.CANotAuthorizedForThisName:
			return "certificate names a host for which its authority may not sign: " + plain(errors.New(invalid.Detail))
		}
	}
	return "certificate is not acceptable: " + plain(err)
}

func outOfDate(c *x509.Certificate, now time.Time) string {
	if now.Before(c.NotBefore) {
		return "is not valid before " + day(c.NotBefore)
	}
	return "expired on " + day(c.NotAfter)
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }

const (
	// namesListed is how many names of a certificate for another host are told:
	// enough to see whose it is, where some have a hundred.
	namesListed = 4
	// nameLimit bounds each of them (RFC 1035 section 2.3.4).
	nameLimit = 255
)

// misnamed words that a certificate is for somebody else.
func misnamed(leaf *x509.Certificate, name string) string {
	var names []string
	for _, address := range leaf.IPAddresses {
		names = append(names, address.String())
	}
	if isAddress(name) {
		names = append(names, leaf.DNSNames...)
	} else {
		names = append(leaf.DNSNames[:len(leaf.DNSNames):len(leaf.DNSNames)], names...)
	}
	if len(names) == 0 {
		if strings.EqualFold(leaf.Subject.CommonName, name) {
			return fmt.Sprintf("certificate names %q in its common name only, which does not count", name)
		}
		return fmt.Sprintf("certificate names no host, and so not %q", name)
	}
	listed := make([]string, 0, namesListed)
	for _, n := range names[:min(len(names), namesListed)] {
		listed = append(listed, strconv.Quote(cut(n, nameLimit)))
	}
	list := strings.Join(listed, ", ")
	if more := len(names) - len(listed); more > 0 {
		list += fmt.Sprintf(" and %d more", more)
	}
	return fmt.Sprintf("certificate is for %s, not %q", list, name)
}
