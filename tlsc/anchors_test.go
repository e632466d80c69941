package tlsc

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"hash/maphash"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/tlsc/tlstest"
)

func writeOver(t testing.TB, path string, data []byte) {
	t.Helper()
	must.OK(t, os.WriteFile(path, data, 0o600))
}

// has reports whether c is good by the anchors that are loaded for it.
func (x *index) has(c *x509.Certificate) bool {
	_, err := c.Verify(x509.VerifyOptions{Roots: x.pool([]*x509.Certificate{c}), CurrentTime: testNow, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	return err == nil
}

func TestAnchorFiles(t *testing.T) {
	a, b := newCA("a"), newCA("b")
	crlf := bytes.ReplaceAll(b.PEM(), []byte("\n"), []byte("\r\n"))
	blanks := bytes.ReplaceAll(b.PEM(), []byte("\n"), []byte(" \t\n"))
	key := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("secret")})
	broken := []byte("-----BEGIN CERTIFICATE-----\nMIIB!!!!\n-----END CERTIFICATE-----\n")
	for _, tt := range []struct {
		name string
		data []byte
		a, b bool
	}{
		{"PEM", slices.Concat(a.PEM(), b.PEM()), true, true},
		{"DER", a.Cert.Raw, true, false},
		{"two in DER", slices.Concat(a.Cert.Raw, b.Cert.Raw), true, true},
		{"DER and rubbish", slices.Concat(a.Cert.Raw, []byte("rubbish")), true, false},
		{"text between", slices.Concat([]byte("# A\n"), a.PEM(), []byte("\nthis is B:\n"), b.PEM(), []byte("end\n")), true, true},
		{"CRLF", slices.Concat(crlf, a.PEM()), true, true},
		{"blanks at line ends", slices.Concat(blanks, a.PEM()), true, true},
		{"no final newline", bytes.TrimSuffix(a.PEM(), []byte("\n")), true, false},
		{"key and certificate", slices.Concat(key, a.PEM()), true, false},
		{"broken one first", slices.Concat(broken, b.PEM()), false, true},
		{"old label", bytes.ReplaceAll(a.PEM(), []byte("CERTIFICATE"), []byte("X509 CERTIFICATE")), true, false},
		{"other label", bytes.ReplaceAll(a.PEM(), []byte("CERTIFICATE"), []byte("CERTIFICATE REQUEST")), false, false},
		{"key", key, false, false},
		{"empty", nil, false, false},
		{"text", []byte("hello\n"), false, false},
		{"broken only", broken, false, false},
		{"cut off", a.PEM()[:200], false, false},
		{"DER cut off", a.Cert.Raw[:200], false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := tlstest.File(t, "file", tt.data)
			x, err := Anchors{File: path}.read()
			if !tt.a && !tt.b {
				wantError(t, settings(err), KindSettings, "cannot read trust anchors: no certificate in "+path)
				return
			}
			must.OK(t, err)
			if x.has(a.Cert) != tt.a || x.has(b.Cert) != tt.b {
				t.Errorf("a %v, b %v", x.has(a.Cert), x.has(b.Cert))
			}
		})
	}
}

func TestAnchorFolder(t *testing.T) {
	a, b := newCA("a"), newCA("b")
	dir := t.TempDir()
	err := (&Client{Anchors: Anchors{Dir: dir}}).Load()
	wantError(t, err, KindSettings, "cannot read trust anchors: no certificate in "+dir)

	writeOver(t, filepath.Join(dir, "README"), []byte("not a certificate"))
	writeOver(t, filepath.Join(dir, "empty.pem"), nil)
	must.OK(t, os.Mkdir(filepath.Join(dir, "sub.pem"), 0o700))
	writeOver(t, filepath.Join(dir, "sub.pem", "deep"), newCA("deep").PEM())
	must.OK(t, os.Symlink("nowhere", filepath.Join(dir, "dangling.0")))
	err = (&Client{Anchors: Anchors{Dir: dir}}).Load()
	wantError(t, err, KindSettings, "cannot read trust anchors: no certificate in "+dir)

	writeOver(t, filepath.Join(dir, "any name"), a.PEM())
	writeOver(t, filepath.Join(dir, "b.crt"), b.Cert.Raw)
	must.OK(t, os.Symlink("b.crt", filepath.Join(dir, "01234567.0")))
	x := must.Get(Anchors{Dir: dir, File: "/nonexistent"}.read())(t)
	if !x.has(a.Cert) || !x.has(b.Cert) || len(x.entries) != 2 {
		t.Errorf("a %v, b %v, %d entries", x.has(a.Cert), x.has(b.Cert), len(x.entries))
	}
	err = (&Client{Anchors: Anchors{Dir: filepath.Join(dir, "none")}}).Load()
	wantError(t, err, KindSettings, "cannot read trust anchors: open .*/none: .*")
}

// The pool has what the chain names and nothing else. Authorities may share a name.
func TestPoolIsSmall(t *testing.T) {
	name := func(cn string) pkix.Name { return pkix.Name{CommonName: cn} }
	var all []*tlstest.Party
	for i := range 20 {
		all = append(all, newCA(fmt.Sprint("root ", i)))
	}
	twin := newCA("root 7")
	all = append(all, twin)
	x := must.Get(Anchors{File: tlstest.Bundle(t, all...)}.read())(t)
	for _, tt := range []struct {
		subject, issuer string
		want            []*tlstest.Party
	}{
		{"server", "root 7", []*tlstest.Party{all[7], twin}},
		{"root 3", "root 4", []*tlstest.Party{all[3], all[4]}},
		{"server", "nobody", nil},
	} {
		ca := selfSigned(nil, tlstest.Authority(tt.issuer))
		chain := []*x509.Certificate{ca.Issue(nil, func(c *x509.Certificate) { c.Subject = name(tt.subject) }).Cert}
		want := x509.NewCertPool()
		for _, p := range tt.want {
			want.AddCert(p.Cert)
		}
		if !x.pool(chain).Equal(want) {
			t.Errorf("%s by %s: another pool", tt.subject, tt.issuer)
		}
	}
}

// A bundle that is replaced or rewritten while others read it is never seen in part.
func TestAnchorsReplaced(t *testing.T) {
	var old, renewed []byte
	var last *tlstest.Party
	for range 30 {
		last = newCA("some authority")
		old = append(old, last.PEM()...)
	}
	renewed = append(slices.Clone(old), old...)
	dir := t.TempDir()
	path := filepath.Join(dir, "bundle")
	writeOver(t, path, old)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 100 {
			next := filepath.Join(dir, "next")
			data := old
			if i%2 == 0 {
				data = renewed
			}
			os.WriteFile(next, data, 0o600)
			os.Rename(next, path)
		}
	}()
	for {
		x := must.Get(Anchors{File: path}.read())(t)
		if len(x.entries) != 30 || !x.has(last.Cert) {
			t.Fatalf("%d entries", len(x.entries))
		}
		select {
		case <-done:
			return
		default:
		}
	}
}

func TestAnchorFileTooLarge(t *testing.T) {
	path := tlstest.File(t, "large", nil)
	must.OK(t, os.Truncate(path, anchorsLimit+1))
	err := (&Client{Anchors: Anchors{File: path}}).Load()
	wantError(t, err, KindSettings, "cannot read trust anchors: .*/large has more than 33554432 bytes")
}

// The limit is for all files together.
func TestAnchorFolderTooLarge(t *testing.T) {
	dir := t.TempDir()
	// It counts even if something else is wrong first.
	must.OK(t, os.Symlink("/proc/self/mem", filepath.Join(dir, "0")))
	writeOver(t, filepath.Join(dir, "a.pem"), newCA("a").PEM())
	for _, name := range []string{"b", "c"} {
		writeOver(t, filepath.Join(dir, name), nil)
		must.OK(t, os.Truncate(filepath.Join(dir, name), anchorsLimit/2))
	}
	err := (&Client{Anchors: Anchors{Dir: dir}}).Load()
	wantError(t, err, KindSettings, "cannot read trust anchors: "+dir+" has more than 33554432 bytes")
}

// Only regular files are read. Nobody waits for a FIFO without a writer, a terminal that
// says nothing, or a device without an end.
func TestNotRegular(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	must.OK(t, syscall.Mkfifo(fifo, 0o600))
	leaf := newCA("leaf")
	cert := tlstest.File(t, "cert", leaf.PEM())
	paths := []string{fifo, dir, "/dev/zero", "/dev/tty", "/dev/null"}
	if _, err := os.Stat("/dev/ptmx"); err == nil {
		paths = append(paths, "/dev/ptmx")
	}
	for _, path := range paths {
		what := "open " + path + ": it is not a regular file"
		err := (&Client{Anchors: Anchors{File: path}}).Load()
		wantError(t, err, KindSettings, "cannot read trust anchors: "+what)
		_, err = LoadCertificate(path, path)
		wantError(t, err, KindSettings, "cannot use client certificate: "+what)
		wantFile(t, err, path)
		_, err = LoadCertificate(cert, path)
		wantError(t, err, KindSettings, "cannot use client certificate: "+what)
		wantFile(t, err, path)
	}
	writeOver(t, filepath.Join(dir, "anchor"), leaf.PEM())
	x, err := Anchors{Dir: dir}.read()
	if err != nil || len(x.entries) != 1 {
		t.Errorf("a folder with a FIFO in it: %v", err)
	}
	err = (&Client{Anchors: Anchors{Dir: fifo}}).Load()
	wantError(t, err, KindSettings, "cannot read trust anchors: open "+fifo+": not a directory")
}

func wantFile(t *testing.T, err error, path string) {
	t.Helper()
	if fault := new(Error); !errors.As(err, &fault) || fault.File != path {
		t.Errorf("%v is about %q", err, fault.File)
	}
}

// A file that is far too large for a client certificate is not read.
func TestCertificateTooLarge(t *testing.T) {
	path := tlstest.File(t, "large", nil)
	must.OK(t, os.Truncate(path, certificateLimit+1))
	_, err := LoadCertificate(path, path)
	wantError(t, err, KindSettings, "cannot use client certificate: .*/large has more than 1048576 bytes")
}

// manyAnchors is a bundle of n certificates with bad signatures, which the index does not
// check. Their subjects are all different or all the same.
func manyAnchors(t testing.TB, n int, alike bool) []byte {
	t.Helper()
	der := newCA("00000000").Cert.Raw
	var data []byte
	for i := range n {
		number := fmt.Appendf(nil, "%08d", i)
		one := bytes.ReplaceAll(der, []byte("00000000"), number)
		if alike {
			one = bytes.Clone(der)
			copy(one[len(one)-len(number):], number) // of the signature
		}
		data = append(data, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: one})...)
	}
	return data
}

// The work for each anchor does not grow with their number. The test counts the entries
// that an insert looks at.
func TestIndexIsLinear(t *testing.T) {
	const n = 20_000
	for _, alike := range []bool{false, true} {
		x := newIndex("")
		x.add(manyAnchors(t, n, alike))
		if len(x.entries) != n {
			t.Fatalf("%d entries", len(x.entries))
		}
		looks := 0
		for _, e := range x.entries {
			for i := e.sameBody; i > 0; i = x.entries[i-1].sameBody {
				looks++
			}
		}
		if looks > n/100 {
			t.Errorf("%d entries were compared with %d others", n, looks)
		}
		subject := x.entries[n/2].subject
		looks = 0
		for i := x.subjects[maphash.Bytes(x.seed, subject)]; i > 0; i = x.entries[i-1].sameSubject {
			looks++
		}
		want := 1
		if alike {
			want = n
		}
		if found := len(x.named(subject)); found != want || looks > want+n/100 {
			t.Errorf("alike %v: %d found among %d, want %d", alike, found, looks, want)
		}
	}
}

func BenchmarkManyAnchors(b *testing.B) {
	path := tlstest.File(b, "bundle", manyAnchors(b, 20_000, false))
	chain := []*x509.Certificate{newCA("00012345").Cert}
	b.ReportAllocs()
	for b.Loop() {
		x := must.Get(Anchors{File: path}.read())(b)
		x.pool(chain)
	}
}

func FuzzAnchors(f *testing.F) {
	ca := newCA("a")
	f.Add(ca.PEM())
	f.Add(ca.Cert.Raw)
	f.Add(slices.Concat(ca.Cert.Raw, ca.Cert.Raw))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----"))
	f.Add([]byte("-----BEGIN -----BEGIN CERTIFICATE----------END "))
	f.Fuzz(func(t *testing.T, data []byte) {
		x := newIndex("")
		x.add(data)
		for _, e := range x.entries {
			if c, err := e.parse(); err == nil && !bytes.Equal(c.RawSubject, e.subject) {
				t.Errorf("subject %x is indexed as %x", c.RawSubject, e.subject)
			}
		}
		x.pool([]*x509.Certificate{ca.Cert})
	})
}

// BenchmarkAnchors is what a bundle of 150 costs a verified handshake, beside what it
// would cost to parse them all.
func BenchmarkAnchors(b *testing.B) {
	var data []byte
	var ca *tlstest.Party
	for i := range 150 {
		ca = newCA(fmt.Sprintf("Some Authority with a Name of Common Length %d", i))
		data = append(data, ca.PEM()...)
	}
	path := tlstest.File(b, "bundle", data)
	chain := []*x509.Certificate{ca.Cert}
	b.Run("index", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			x := must.Get(Anchors{File: path}.read())(b)
			x.pool(chain)
		}
	})
	stranger := newCA("stranger").Leaf(nil, host)
	b.Run("index, in vain", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			x, err := Anchors{File: path}.read()
			if err != nil {
				b.Fatal(err)
			}
			if _, v := x.verify([]*x509.Certificate{stranger.Cert}, testNow); v.Good() {
				b.Fatal("verified")
			}
		}
	})
	b.Run("parse all", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			data := must.Get(os.ReadFile(path))(b)
			for rest := data; ; {
				var block *pem.Block
				if block, rest = pem.Decode(rest); block == nil {
					break
				}
				must.Get(x509.ParseCertificate(block.Bytes))(b)
			}
		}
	})
}
