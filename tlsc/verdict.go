package tlsc

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// judge reaches the verdict of the trust anchors. It looks in this order: whether a
// chain of certificates that are in date leads to an anchor, whether the certificate
// names the server, and what an OCSP response says that is stapled to it.
func (x *index) judge(e evidence) Verdict {
	chains, v := x.chains(e)
	if v.Good() {
		v = e.judgeName(false)
	}
	if v.Good() {
		v = judgeStaple(e.staple, e.presented[0], chains, e.now)
	}
	v.Faults = Faults{Anchors: v.Fault}
	return v
}

const noCertificate = "server sent no certificate"

// chains returns the chains that lead from the server's certificate to a trust anchor and
// prove something. If there are none, the verdict is bad.
func (x *index) chains(e evidence) ([][]*x509.Certificate, Verdict) {
	if len(e.presented) == 0 {
		return nil, bad(FaultMissing, noCertificate)
	}
	leaf := e.presented[0]
	for _, c := range e.presented {
		if reason := unfit(c, leaf); reason != "" {
			return nil, bad(FaultWeak, reason)
		}
	}
	chains, v := x.verify(e.presented, e.now)
	if !v.Good() {
		return nil, v
	}
	chains, reason := strong(chains, leaf)
	if reason != "" {
		return nil, bad(FaultWeak, reason)
	}
	return chains, Verdict{}
}

// verify returns the chains from a certificate to trust anchors. Every link in them is
// in date and allowed to be where it is. If there are none, the verdict is bad. It compares
// names as x509 does, and if that gives no chain, as RFC 5280 does, which takes more time.
func (x *index) verify(presented []*x509.Certificate, now time.Time) ([][]*x509.Certificate, Verdict) {
	chains, err := verifyChain(presented, x.pool(presented), now)
	if err == nil {
		return chains, Verdict{}
	}
	twins := newRenamed()
	var given []*x509.Certificate
	for _, c := range presented {
		given = append(given, twins.add(c))
	}
	anchors := x.anchorsFor(given, twins)
	pool := x509.NewCertPool()
	for _, c := range anchors.usable {
		pool.AddCert(c)
	}
	chains, err = verifyChain(given, pool, now)
	if err == nil {
		return twins.back(chains), Verdict{}
	}
	return nil, x.unverified(given, anchors, twins, err, now)
}

func verifyChain(presented []*x509.Certificate, roots *x509.CertPool, now time.Time) ([][]*x509.Certificate, error) {
	intermediates := x509.NewCertPool()
	for _, c := range presented[1:] {
		intermediates.AddCert(c)
	}
	return presented[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: intermediates, CurrentTime: now})
}

// unverified is the verdict where there is no chain. All certificates are renamed.
func (x *index) unverified(given []*x509.Certificate, anchors anchorsFor, twins *renamed, err error, now time.Time) Verdict {
	leaf := given[0]
	who := func(c *x509.Certificate) string { return whose(twins.original[c], twins.original[leaf]) }
	invalid, unknown := x509.CertificateInvalidError{}, x509.UnknownAuthorityError{}
	switch {
	case errors.As(err, &unknown):
		if v := x.broken(given, anchors, who); !v.Good() {
			return v
		}
		if bytes.Equal(leaf.RawIssuer, leaf.RawSubject) && signs(leaf, leaf) {
			return bad(FaultSelfSigned, "certificate is self-signed, so signed by an authority that is not in "+x.where)
		}
		return bad(FaultIssuer, "certificate is signed by an authority that is not in "+x.where)
	case errors.As(err, &invalid):
		whose := "certificate"
		if invalid.Cert != nil {
			whose = who(invalid.Cert)
		}
		switch invalid.Reason {
		case x509.Expired:
			return bad(FaultDate, whose+" "+outOfDate(invalid.Cert, now))
		case x509.NotAuthorizedToSign:
			return bad(FaultUse, whose+notAnAuthority)
		case x509.IncompatibleUsage:
			return bad(FaultUse, whose+" is not for servers")
		case x509.CANotAuthorizedForThisName:
			return bad(FaultUse, "certificate names a host for which its authority may not sign: "+brief(errors.New(invalid.Detail)))
		}
	}
	return bad(FaultOther, "certificate is not acceptable: "+brief(err))
}

const notAnAuthority = " is not that of an authority, but used as one"

// signatureChecks bounds how many signatures are checked to find words, because a server
// may send hundreds of certificates with one name. x509 has the same bound.
const signatureChecks = 100

// broken follows the chain to the link that breaks it although the authority is there,
// and returns the verdict on that. It finds no fault where the authority is missing.
func (x *index) broken(given []*x509.Certificate, anchors anchorsFor, who func(*x509.Certificate) string) Verdict {
	authorities := append(slices.Clone(anchors.usable), given...)
	checks := 0
	for c := given[0]; ; {
		var next *x509.Certificate
		for _, a := range authorities {
			if !bytes.Equal(c.RawIssuer, a.RawSubject) || a.Equal(c) {
				continue
			}
			if checks++; checks > signatureChecks {
				return Verdict{}
			}
			err := c.CheckSignatureFrom(a)
			insecure, constraint := x509.InsecureAlgorithmError(0), x509.ConstraintViolationError{}
			switch {
			case err == nil:
				next = a
			case errors.As(err, &insecure) && signs(a, c):
				return bad(FaultWeak, fmt.Sprintf("%s is signed with %s, which proves nothing any more", who(c), c.SignatureAlgorithm))
			case errors.As(err, &constraint) && signs(a, c):
				return bad(FaultUse, who(a)+notAnAuthority)
			case errors.Is(err, x509.ErrUnsupportedAlgorithm):
				return bad(FaultOther, who(c)+" is signed in a way that is not known here")
			}
			if next != nil {
				break
			}
		}
		if reason := anchors.unusable[string(c.RawIssuer)]; reason != nil && next == nil {
			return bad(FaultIssuer, fmt.Sprintf("certificate is signed by an authority whose certificate in %s cannot be used: %s", x.where, brief(reason)))
		}
		if next == nil || bytes.Equal(next.RawIssuer, next.RawSubject) {
			return Verdict{}
		}
		c = next
	}
}

// signs reports whether the key of an authority has made a certificate's signature. It
// does not ask whether the authority may sign.
func signs(authority, c *x509.Certificate) bool {
	return authority.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil
}

func outOfDate(c *x509.Certificate, now time.Time) string {
	if now.Before(c.NotBefore) {
		return "is not valid before " + day(c.NotBefore)
	}
	return "expired on " + day(c.NotAfter)
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }

const (
	// namesListed is how many names are listed of a certificate for another host:
	// enough to see whose it is. Some certificates have a hundred.
	namesListed = 4
	// nameLimit bounds each of them (RFC 1035 section 2.3.4).
	nameLimit = 255
)

// judgeName reaches the verdict on the names in the certificate. For DANE, the server's name
// will do beside the others, and only a dNSName counts.
func (e evidence) judgeName(dane bool) Verdict {
	leaf, wanted := e.presented[0], e.others
	if e.server != "" && (dane || len(wanted) == 0) {
		wanted = append([]string{e.server}, wanted...)
	}
	has := func(name string) bool { return !(dane && isAddress(name)) && leaf.VerifyHostname(name) == nil }
	hasBelow := func(suffix string) bool {
		return slices.ContainsFunc(leaf.DNSNames, func(name string) bool { return isBelow(name, suffix) })
	}
	if len(wanted) == 0 || slices.ContainsFunc(wanted, has) || slices.ContainsFunc(e.others, hasBelow) {
		return Verdict{}
	}
	return bad(FaultName, misnamed(leaf, wanted))
}

// isBelow reports whether a dNSName ends in ".example.org", where suffix is that, and has
// something in front, which may be "*".
func isBelow(name, suffix string) bool {
	at := len(name) - len(suffix)
	return at > 0 && len(suffix) > 1 && suffix[0] == '.' && strings.EqualFold(name[at:], suffix)
}

// misnamed puts into words that a certificate is for another host.
func misnamed(leaf *x509.Certificate, wanted []string) string {
	not := listed(wanted)
	var addresses []string
	for _, address := range leaf.IPAddresses {
		addresses = append(addresses, address.String())
	}
	names := slices.Concat(leaf.DNSNames, addresses)
	if isAddress(wanted[0]) {
		names = slices.Concat(addresses, leaf.DNSNames)
	}
	if len(names) > 0 {
		return fmt.Sprintf("certificate is for %s, not %s", listed(names), not)
	}
	for _, name := range wanted {
		if strings.EqualFold(leaf.Subject.CommonName, name) {
			return fmt.Sprintf("certificate names %q in its common name only, which does not count", name)
		}
	}
	return fmt.Sprintf("certificate names no host, and so not %s", not)
}

// listed quotes the first of some names, and says how many there are beyond.
func listed(names []string) string {
	quoted := make([]string, 0, namesListed)
	for _, n := range names[:min(len(names), namesListed)] {
		quoted = append(quoted, strconv.Quote(cut(n, nameLimit)))
	}
	list := strings.Join(quoted, ", ")
	if more := len(names) - len(quoted); more > 0 {
		list += fmt.Sprintf(" and %d more", more)
	}
	return list
}
