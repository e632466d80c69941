package tlsc

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

// Certificates for tests. Their clock stands still: certificates are valid from
// 2020 to 2040, unless a test says otherwise, and the time is 2030.

var (
	testStart = date(2020, 1, 1)
	testNow   = date(2030, 6, 15)
	testEnd   = date(2040, 1, 1)
)

func date(y, m, d int) time.Time { return time.Date(y, time.Month(m), d, 12, 0, 0, 0, time.UTC) }

func testClock() time.Time { return testNow }

var lastSerial atomic.Int64

// A party is a certificate and its key; ca is nil for one that signs for itself.
type party struct {
	cert *x509.Certificate
	key  crypto.Signer
	ca   *party
}

func newKey(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// issue makes a certificate; ca signs it, or it signs itself when ca is nil. change
// is called on the template.
func issue(t testing.TB, ca *party, key crypto.Signer, change func(*x509.Certificate)) *party {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(lastSerial.Add(1)),
		NotBefore:             testStart,
		NotAfter:              testEnd,
		BasicConstraintsValid: true,
	}
	change(template)
	parent, signer := template, key
	if ca != nil {
		parent, signer = ca.cert, ca.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &party{cert, key, ca}
}

func newCA(t testing.TB, name string, ca *party) *party {
	t.Helper()
	return issue(t, ca, newKey(t), asCA(name))
}

func asCA(name string) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		c.Subject = pkix.Name{CommonName: name}
		c.IsCA = true
		c.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	}
}

func (ca *party) server(t testing.TB, change func(*x509.Certificate), names ...string) *party {
	t.Helper()
	return issue(t, ca, newKey(t), func(c *x509.Certificate) {
		c.Subject = pkix.Name{CommonName: "server"}
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		c.KeyUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment
		for _, name := range names {
			if address := net.ParseIP(name); address != nil {
				c.IPAddresses = append(c.IPAddresses, address)
			} else {
				c.DNSNames = append(c.DNSNames, name)
			}
		}
		if change != nil {
			change(c)
		}
	})
}

// pair is what a server shows: the certificate and those given.
func (p *party) pair(others ...*party) tls.Certificate {
	pair := tls.Certificate{Certificate: [][]byte{p.cert.Raw}, PrivateKey: p.key, Leaf: p.cert}
	for _, other := range others {
		pair.Certificate = append(pair.Certificate, other.cert.Raw)
	}
	return pair
}

func (p *party) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.cert.Raw})
}

// bundle writes a file of trust anchors and returns its name.
func bundle(t testing.TB, parties ...*party) string {
	t.Helper()
	var data []byte
	for _, p := range parties {
		data = append(data, p.pem()...)
	}
	return writeFile(t, "anchors.pem", data)
}

func writeFile(t testing.TB, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// tcpPair is a connection over loopback.
func tcpPair(t testing.TB) (client, server *net.TCPConn) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	c, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); s.Close() })
	return c.(*net.TCPConn), s.(*net.TCPConn)
}

// serve does the server's part in a goroutine; the connection is closed after it.
func serve(t testing.TB, f func(conn *net.TCPConn)) *net.TCPConn {
	t.Helper()
	client, server := tcpPair(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer server.Close()
		f(server)
	}()
	t.Cleanup(func() {
		client.Close()
		server.Close()
		<-done
	})
	return client
}

// handshakeWith makes a handshake with a server of the given configuration, which
// then says "hello" and closes.
func handshakeWith(t testing.TB, config *tls.Config, s *Settings) (*Conn, error) {
	t.Helper()
	if config.Time == nil {
		config.Time = testClock
	}
	conn := serve(t, func(conn *net.TCPConn) {
		server := tls.Server(conn, config)
		if server.Handshake() == nil {
			server.Write([]byte("hello"))
			server.Close()
		} else {
			conn.CloseWrite()
			conn.Read(make([]byte, 1)) // so that an alert is not lost by a reset
		}
	})
	return client(t, conn, s)
}

const patience = 20 * time.Second // a test that takes longer has failed

func client(t testing.TB, conn net.Conn, s *Settings) (*Conn, error) {
	t.Helper()
	if s.Now == nil {
		s.Now = testClock
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := Client(ctx, conn, s)
	if errors.Is(err, context.DeadlineExceeded) && s.HandshakeTimeout == 0 {
		t.Fatal("handshake takes too long")
	}
	return c, err
}
