package tlsc

import "crypto/x509"

// All reads the trust anchors, as a handshake that verifies does, and parses each of them.
// unreadable is how many cannot be parsed, and are no use. The error is an *AnchorsError.
func (a Anchors) All() (anchors []*x509.Certificate, unreadable int, err error) {
	x, err := a.read()
	if err != nil {
		return nil, 0, err
	}
	for _, e := range x.entries {
		c, err := e.parse()
		if err != nil {
			unreadable++
			continue
		}
		anchors = append(anchors, c)
	}
	return anchors, unreadable, nil
}

// Leaf returns the certificate that the key is for. It is not to be changed.
func (c *Certificate) Leaf() *x509.Certificate { return c.pair.Leaf }
