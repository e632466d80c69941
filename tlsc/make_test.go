package tlsc

import (
	"context"
	"crypto"
	"crypto/tls"
	"errors"
	"net"
	"testing"
	"time"

	"nightmare.mail/mxf/tlsc/tlstest"
)

const host = "mx.example.org"

// The clock of these tests stands still. Certificates are valid from 2020 to 2040, unless
// a test says otherwise.
var (
	testNow = date(2030, 6, 15)
	valid   = tlstest.Valid(date(2020, 1, 1), date(2040, 1, 1))
)

func date(y, m, d int) time.Time { return time.Date(y, time.Month(m), d, 12, 0, 0, 0, time.UTC) }

func testClock() time.Time { return testNow }

func newCA(name string) *tlstest.Party { return tlstest.NewAuthority(name, valid) }

func selfSigned(key crypto.Signer, change tlstest.Change) *tlstest.Party {
	return tlstest.SelfSigned(key, valid, change)
}

// trusting is a client with a file of trust anchors; "" is none.
func trusting(file string) *Client { return &Client{Anchors: Anchors{File: file}, Now: testClock} }

// enforced and told demand a server by name. The verdict is enforced, or only told.
func enforced(name string) *Demand { return &Demand{ServerName: name, Judge: TrustAnchors{}} }
func told(name string) *Demand     { return &Demand{ServerName: name} }

// handshakeWith makes a handshake with a server of this configuration, which then says
// "hello" and closes.
func handshakeWith(t testing.TB, config *tls.Config, c *Client, d *Demand) (*Conn, error) {
	t.Helper()
	if config.Time == nil {
		config.Time = testClock
	}
	return shake(t, tlstest.Serve(t, tlstest.Hello(config)), c, d)
}

const patience = 20 * time.Second // a test that takes longer has failed

func shake(t testing.TB, conn net.Conn, c *Client, d *Demand) (*Conn, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	made, err := c.Handshake(ctx, conn, d)
	if errors.Is(err, context.DeadlineExceeded) && d.TimeLimit == 0 {
		t.Fatal("handshake takes too long")
	}
	return made, err
}
