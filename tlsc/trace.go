package tlsc

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"strings"
	"time"
)

const (
	// certificatesTraced is how many certificates of a server's chain are traced. Real
	// chains have up to five.
	certificatesTraced = 10
	// namesTraced is how many names of each are traced: more than anybody reads.
	namesTraced = 30
)

// traceCertificates traces the chain that the server has sent, whatever the verdict on it
// will be. It is a tls.Config.VerifyConnection that never fails.
func (h *handshake) traceCertificates(state tls.ConnectionState) error {
	if h.demand.Trace == nil {
		return nil
	}
	chain := state.PeerCertificates
	for i, c := range chain[:min(len(chain), certificatesTraced)] {
		h.demand.trace("tls certificate %d subject %q issuer %q from %s to %s names %s", i,
			cut(distinguishedName(c.RawSubject), subjectLimit), cut(distinguishedName(c.RawIssuer), subjectLimit),
			c.NotBefore.UTC().Format(time.RFC3339), c.NotAfter.UTC().Format(time.RFC3339), namesOf(c))
	}
	if more := len(chain) - certificatesTraced; more > 0 {
		h.demand.trace("tls certificates: %d more", more)
	}
	return nil
}

func namesOf(c *x509.Certificate) string {
	var names []string
	for _, name := range c.DNSNames {
		names = append(names, fmt.Sprintf("%q", cut(name, nameLimit)))
	}
	for _, addr := range c.IPAddresses {
		names = append(names, addr.String())
	}
	switch more := len(names) - namesTraced; {
	case len(names) == 0:
		return "none"
	case more > 0:
		return fmt.Sprintf("%s and %d more", strings.Join(names[:namesTraced], " "), more)
	}
	return strings.Join(names, " ")
}
