package tlsc_test

import (
	"errors"
	"os"
	"testing"

	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/tlsc"
	"nightmare.mail/mxf/tlsc/tlstest"
)

func TestAnchorsAll(t *testing.T) {
	one, two := tlstest.NewAuthority("one"), tlstest.NewAuthority("two")
	file := tlstest.Bundle(t, one, two, one)
	anchors, unreadable, err := tlsc.Anchors{File: file}.All()
	if len(anchors) != 2 || unreadable != 0 || err != nil || !anchors[0].Equal(one.Cert) || !anchors[1].Equal(two.Cert) {
		t.Errorf("got %d, %d, %v", len(anchors), unreadable, err)
	}
	must.OK(t, os.WriteFile(file, []byte("nothing\n"), 0o644))
	if _, _, err = (tlsc.Anchors{File: file}).All(); !errors.As(err, new(*tlsc.AnchorsError)) {
		t.Errorf("got %v", err)
	}
}

func TestLeaf(t *testing.T) {
	p := tlstest.NewAuthority("one").Issue(nil)
	cert, key := tlstest.File(t, "cert.pem", p.PEM()), tlstest.File(t, "key.pem", p.KeyPEM())
	if got := must.Get(tlsc.LoadCertificate(cert, key))(t).Leaf(); !got.Equal(p.Cert) {
		t.Errorf("got %v", got.Subject)
	}
}
