package tlsc

import (
	"crypto/sha256"
	"sync"
	"time"
)

// maxCertificates bounds the client certificates that are remembered: control/clientcerts has
// one for each hosted domain.
const maxCertificates = 1000

// Certificates are the client certificates of a process of many deliveries. Their files are
// looked at again after a second. As long as they hold the same, whatever their paths, the
// same *Certificate is returned, so that two can be compared by ==. Any number of goroutines
// may use it at a time. A nil *Certificates reads the files each time.
type Certificates struct {
	now func() time.Time

	mu    sync.Mutex
	pairs map[[2]string]held // by the paths of certificate and key
}

// A held certificate is what was read when its files were looked at last.
type held struct {
	looked      time.Time
	digest      [2][sha256.Size]byte // of what the files held
	certificate *Certificate
}

// NewCertificates returns a memory without any, with a clock.
func NewCertificates(now func() time.Time) *Certificates {
	return &Certificates{now: now, pairs: make(map[[2]string]held)}
}

// Load is LoadCertificate for files that were read before, perhaps. An error is not remembered.
func (c *Certificates) Load(certFile, keyFile string) (*Certificate, error) {
	if c == nil {
		return LoadCertificate(certFile, keyFile)
	}
	paths := [2]string{certFile, keyFile}
	now := c.now()
	if found := c.fresh(paths, now); found != nil {
		return found, nil
	}
	files, err := readPair(certFile, keyFile)
	if err != nil {
		return nil, err
	}
	digest := [2][sha256.Size]byte{sha256.Sum256(files.cert), sha256.Sum256(files.key)}
	c.mu.Lock()
	defer c.mu.Unlock()
	certificate := c.known(digest)
	if certificate == nil {
		if certificate, err = files.parse(); err != nil {
			return nil, err
		}
	}
	if _, replaced := c.pairs[paths]; !replaced && len(c.pairs) >= maxCertificates {
		c.makeRoom()
	}
	c.pairs[paths] = held{now, digest, certificate}
	return certificate, nil
}

// fresh returns the certificate whose files were looked at a moment ago, or nil.
func (c *Certificates) fresh(paths [2]string, now time.Time) *Certificate {
	c.mu.Lock()
	defer c.mu.Unlock()
	have := c.pairs[paths]
	if age := now.Sub(have.looked); age < 0 || age >= lookInterval {
		return nil
	}
	return have.certificate
}

// known returns the certificate that was made of the same content, or nil.
func (c *Certificates) known(digest [2][sha256.Size]byte) *Certificate {
	for _, have := range c.pairs {
		if have.digest == digest {
			return have.certificate
		}
	}
	return nil
}

// makeRoom drops the one that was looked at the longest time ago.
func (c *Certificates) makeRoom() {
	var oldest [2]string
	var looked time.Time
	for paths, have := range c.pairs {
		if looked.IsZero() || have.looked.Before(looked) {
			oldest, looked = paths, have.looked
		}
	}
	delete(c.pairs, oldest)
}
