package tlsc

import (
	"crypto/tls"
	"crypto/x509"
	"slices"
	"testing"

	"nightmare.mail/mxf/tlsc/tlstest"
)

// What a handshake has shown is told once, whatever the verdict is and whoever enforces it.
func TestInspect(t *testing.T) {
	root, other := newCA("root"), newCA("other")
	good, late, stranger := root.Leaf(nil, host), root.Leaf(expired, host), other.Leaf(nil, host)
	for _, test := range []struct {
		name   string
		config *tls.Config
		judge  Judge
		fault  Fault // of the trust anchors
		strong bool
		fails  bool
	}{
		{"good", &tls.Config{Certificates: []tls.Certificate{good.Pair(root)}}, Nobody{}, NoFault, true, false},
		{"good, enforced", &tls.Config{Certificates: []tls.Certificate{good.Pair(root)}}, TrustAnchors{}, NoFault, true, false},
		{"expired", &tls.Config{Certificates: []tls.Certificate{late.Pair(root)}}, Nobody{}, FaultDate, true, false},
		{"expired, enforced", &tls.Config{Certificates: []tls.Certificate{late.Pair(root)}}, TrustAnchors{}, FaultDate, true, true},
		{"a stranger's, enforced", &tls.Config{Certificates: []tls.Certificate{stranger.Pair(root)}}, TrustAnchors{}, FaultIssuer, true, true},
		{"an old version", &tls.Config{Certificates: []tls.Certificate{good.Pair(root)}, MaxVersion: tls.VersionTLS11}, Nobody{}, NoFault, false, false},
		{"a weak suite", &tls.Config{Certificates: []tls.Certificate{good.Pair(root)}, MaxVersion: tls.VersionTLS12,
			CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256}}, Nobody{}, NoFault, false, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			var seen []Inspection
			config := test.config
			config.MinVersion, config.ClientAuth = tls.VersionTLS10, tls.RequestClientCert
			_, err := handshakeWith(t, config, trusting(tlstest.Bundle(t, root)), &Demand{ServerName: host, Judge: test.judge,
				Inspect: func(i Inspection) { seen = append(seen, i) }})
			if (err != nil) != test.fails || len(seen) != 1 {
				t.Fatalf("%v, %+v", err, seen)
			}
			i := seen[0]
			if i.Anchors.Fault != test.fault || i.Anchors.Fatal() != (test.fault != NoFault) || i.Strong != test.strong || i.Asked == test.fails || i.Gave ||
				i.Enforced != test.judge.enforces() || i.ServerName != host || len(i.Chain) != 2 || i.Staple != "" {
				t.Errorf("%+v", i)
			}
			if c := i.Chain[0]; !slices.Equal(c.Names, []string{host}) || c.Issuer == "" || c.NotAfter.Before(c.NotBefore) {
				t.Errorf("%+v", c)
			}
		})
	}
}

// Of a long chain, and of its names, no more is told than a person reads.
func TestInspect_bounds(t *testing.T) {
	root := newCA("root")
	var names []string
	for range 2 * namesTraced {
		names = append(names, host)
	}
	parties := slices.Repeat([]*tlstest.Party{root}, certificatesTraced+1)
	var seen Inspection
	if _, err := handshakeWith(t, &tls.Config{Certificates: []tls.Certificate{root.Leaf(func(c *x509.Certificate) { c.DNSNames = names }).Pair(parties...)}},
		trusting(tlstest.Bundle(t, root)), &Demand{ServerName: host, Inspect: func(i Inspection) { seen = i }}); err != nil {
		t.Fatal(err)
	}
	if len(seen.Chain) != certificatesTraced || seen.More != 2 || len(seen.Chain[0].Names) != namesTraced {
		t.Errorf("%+v", seen)
	}
}
