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
)

func writeOver(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// has counts the anchors that are loaded for a chain of one certificate.
func (x *index) has(c *x509.Certificate) bool {
	_, err := c.Verify(x509.VerifyOptions{Roots: x.pool([]*x509.Certificate{c}), CurrentTime: testNow, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	return err == nil
}

func TestAnchorFiles(t *testing.T) {
	a, b := newCA(t, "a", nil), newCA(t, "b", nil)
	crlf := bytes.ReplaceAll(b.pem(), []byte("\n"), []byte("\r\n"))
	blanks := bytes.ReplaceAll(b.pem(), []byte("\n"), []byte(" \t\n"))
	key := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("secret")})
	broken := []byte("-----BEGIN CERTIFICATE-----\nMIIB!!!!\n-----END CERTIFICATE-----\n")
	for _, tt := range []struct {
		name string
		data []byte
		a, b bool
	}{
		{"PEM", slices.Concat(a.pem(), b.pem()), true, true},
		{"DER", a.cert.Raw, true, false},
		{"two in DER", slices.Concat(a.cert.Raw, b.cert.Raw), true, true},
		{"DER and rubbish", slices.Concat(a.cert.Raw, []byte("rubbish")), true, false},
		{"text between", slices.Concat([]byte("# A\n"), a.pem(), []byte("\nthis is B:\n"), b.pem(), []byte("end\n")), true, true},
		{"CRLF", slices.Concat(crlf, a.pem()), true, true},
		{"blanks at line ends", slices.Concat(blanks, a.pem()), true, true},
		{"no final newline", bytes.TrimSuffix(a.pem(), []byte("\n")), true, false},
		{"key and certificate", slices.Concat(key, a.pem()), true, false},
		{"broken one first", slices.Concat(broken, b.pem()), false, true},
		{"old label", bytes.ReplaceAll(a.pem(), []byte("CERTIFICATE"), []byte("X509 CERTIFICATE")), true, false},
		{"other label", bytes.ReplaceAll(a.pem(), []byte("CERTIFICATE"), []byte("CERTIFICATE REQUEST")), false, false},
		{"key", key, false, false},
		{"empty", nil, false, false},
		{"text", []byte("hello\n"), false, false},
		{"broken only", broken, false, false},
		{"cut off", a.pem()[:200], false, false},
		{"DER cut off", a.cert.Raw[:200], false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := writeFile(t, "file", tt.data)
			x, err := Anchors{File: path}.read()
			if !tt.a && !tt.b {
				wantError(t, err, KindSettings, "cannot read trust anchors: no certificate in "+path)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if x.has(a.cert) != tt.a || x.has(b.cert) != tt.b {
				t.Errorf("a %v, b %v", x.has(a.cert), x.has(b.cert))
			}
		})
	}
}

func TestAnchorFolder(t *testing.T) {
	a, b := newCA(t, "a", nil), newCA(t, "b", nil)
	dir := t.TempDir()
	_, err := Anchors{Dir: dir}.read()
	wantError(t, err, KindSettings, "cannot read trust anchors: no certificate in "+dir)

	writeOver(t, filepath.Join(dir, "README"), []byte("not a certificate"))
	writeOver(t, filepath.Join(dir, "empty.pem"), nil)
	if err := os.Mkdir(filepath.Join(dir, "sub.pem"), 0o700); err != nil {
		t.Fatal(err)
	}
	writeOver(t, filepath.Join(dir, "sub.pem", "deep"), newCA(t, "deep", nil).pem())
	if err := os.Symlink("nowhere", filepath.Join(dir, "dangling.0")); err != nil {
		t.Fatal(err)
	}
	_, err = Anchors{Dir: dir}.read()
	wantError(t, err, KindSettings, "cannot read trust anchors: no certificate in "+dir)

	writeOver(t, filepath.Join(dir, "any name"), a.pem())
	writeOver(t, filepath.Join(dir, "b.crt"), b.cert.Raw)
	if err := os.Symlink("b.crt", filepath.Join(dir, "01234567.0")); err != nil {
		t.Fatal(err)
	}
	x, err := Anchors{Dir: dir, File: "/nonexistent"}.read()
	if err != nil {
		t.Fatal(err)
	}
	if !x.has(a.cert) || !x.has(b.cert) || len(x.entries) != 2 {
		t.Errorf("a %v, b %v, %d entries", x.has(a.cert), x.has(b.cert), len(x.entries))
	}
	_, err = Anchors{Dir: filepath.Join(dir, "none")}.read()
	wantError(t, err, KindSettings, "cannot read trust anchors: open .*/none: .*")
}

// Only what the chain names is parsed, and all of that: authorities may share a name.
func TestPoolIsSmall(t *testing.T) {
	name := func(cn string) pkix.Name { return pkix.Name{CommonName: cn} }
	var all []*party
	for i := range 20 {
		all = append(all, newCA(t, fmt.Sprint("root ", i), nil))
	}
	twin := newCA(t, "root 7", nil)
	all = append(all, twin)
	x, err := Anchors{File: bundle(t, all...)}.read()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		subject, issuer string
		want            []*party
	}{
		{"server", "root 7", []*party{all[7], twin}},
		{"root 3", "root 4", []*party{all[3], all[4]}},
		{"server", "nobody", nil},
	} {
		ca := issue(t, nil, newKey(t), asCA(tt.issuer))
		chain := []*x509.Certificate{issue(t, ca, newKey(t), func(c *x509.Certificate) { c.Subject = name(tt.subject) }).cert}
		want := x509.NewCertPool()
		for _, p := range tt.want {
			want.AddCert(p.cert)
		}
		if !x.pool(chain).Equal(want) {
			t.Errorf("%s by %s: another pool", tt.subject, tt.issuer)
		}
	}
}

// A bundle that is renamed over, or rewritten, while others read it is never seen
// in part.
func TestAnchorsReplaced(t *testing.T) {
	var old, renewed []byte
	var last *party
	for range 30 {
		last = newCA(t, "some authority", nil)
		old = append(old, last.pem()...)
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
		x, err := Anchors{File: path}.read()
		if err != nil {
			t.Fatal(err)
		}
		if len(x.entries) != 30 || !x.has(last.cert) {
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
	path := writeFile(t, "large", nil)
	if err := os.Truncate(path, anchorsLimit+1); err != nil {
		t.Fatal(err)
	}
	_, err := Anchors{File: path}.read()
	wantError(t, err, KindSettings, "cannot read trust anchors: .*/large has more than 33554432 bytes")
}

// The limit is that of all files together.
func TestAnchorFolderTooLarge(t *testing.T) {
	dir := t.TempDir()
	// Where something else is wrong before that, too.
	if err := os.Symlink("/proc/self/mem", filepath.Join(dir, "0")); err != nil {
		t.Fatal(err)
	}
	writeOver(t, filepath.Join(dir, "a.pem"), newCA(t, "a", nil).pem())
	for _, name := range []string{"b", "c"} {
		writeOver(t, filepath.Join(dir, name), nil)
		if err := os.Truncate(filepath.Join(dir, name), anchorsLimit/2); err != nil {
			t.Fatal(err)
		}
	}
	_, err := Anchors{Dir: dir}.read()
	wantError(t, err, KindSettings, "cannot read trust anchors: "+dir+" has more than 33554432 bytes")
}

// What is no regular file is not waited for: a FIFO without a writer, a terminal that
// says nothing, a device without an end.
func TestNotRegular(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	leaf := newCA(t, "leaf", nil)
	cert := writeFile(t, "cert", leaf.pem())
	paths := []string{fifo, dir, "/dev/zero", "/dev/tty", "/dev/null"}
	if _, err := os.Stat("/dev/ptmx"); err == nil {
		paths = append(paths, "/dev/ptmx")
	}
	for _, path := range paths {
		what := "open " + path + ": it is not a regular file"
		_, err := Anchors{File: path}.read()
		wantError(t, err, KindSettings, "cannot read trust anchors: "+what)
		_, err = LoadCertificate(path, path)
		wantError(t, err, KindSettings, "cannot use client certificate: "+what)
		wantFile(t, err, path)
		_, err = LoadCertificate(cert, path)
		wantError(t, err, KindSettings, "cannot use client certificate: "+what)
		wantFile(t, err, path)
	}
	writeOver(t, filepath.Join(dir, "anchor"), leaf.pem())
	x, err := Anchors{Dir: dir}.read()
	if err != nil || len(x.entries) != 1 {
		t.Errorf("a folder with a FIFO in it: %v", err)
	}
	_, err = Anchors{Dir: fifo}.read()
	wantError(t, err, KindSettings, "cannot read trust anchors: open "+fifo+": not a directory")
}

func wantFile(t *testing.T, err error, path string) {
	t.Helper()
	if fault := new(Error); !errors.As(err, &fault) || fault.File != path {
		t.Errorf("%v is about %q", err, fault.File)
	}
}

// A client certificate has no end of its own: what is far too large is not read.
func TestCertificateTooLarge(t *testing.T) {
	path := writeFile(t, "large", nil)
	if err := os.Truncate(path, certificateLimit+1); err != nil {
		t.Fatal(err)
	}
	_, err := LoadCertificate(path, path)
	wantError(t, err, KindSettings, "cannot use client certificate: .*/large has more than 1048576 bytes")
}

// manyAnchors is a bundle of n certificates that nobody has signed: the index does not
// look. Their subjects are all different or all the same.
func manyAnchors(t testing.TB, n int, alike bool) []byte {
	t.Helper()
	der := newCA(t, "00000000", nil).cert.Raw
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

// The work for each anchor does not grow with their number. Counted are the entries
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
	path := writeFile(b, "bundle", manyAnchors(b, 20_000, false))
	chain := []*x509.Certificate{newCA(b, "00012345", nil).cert}
	b.ReportAllocs()
	for b.Loop() {
		x, err := Anchors{File: path}.read()
		if err != nil {
			b.Fatal(err)
		}
		x.pool(chain)
	}
}

func FuzzAnchors(f *testing.F) {
	ca := newCA(f, "a", nil)
	f.Add(ca.pem())
	f.Add(ca.cert.Raw)
	f.Add(slices.Concat(ca.cert.Raw, ca.cert.Raw))
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
		x.pool([]*x509.Certificate{ca.cert})
	})
}

// BenchmarkAnchors is what a verified handshake pays for a bundle of 150, beside
// what parsing them all would cost.
func BenchmarkAnchors(b *testing.B) {
	var data []byte
	var ca *party
	for i := range 150 {
		ca = newCA(b, fmt.Sprintf("Some Authority with a Name of Common Length %d", i), nil)
		data = append(data, ca.pem()...)
	}
	path := writeFile(b, "bundle", data)
	chain := []*x509.Certificate{ca.cert}
	b.Run("index", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			x, err := Anchors{File: path}.read()
			if err != nil {
				b.Fatal(err)
			}
			x.pool(chain)
		}
	})
	stranger := newCA(b, "stranger", nil).server(b, nil, host)
	b.Run("index, in vain", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			x, err := Anchors{File: path}.read()
			if err != nil {
				b.Fatal(err)
			}
			if _, err := x.verify([]*x509.Certificate{stranger.cert}, testNow); err == nil {
				b.Fatal("verified")
			}
		}
	})
	b.Run("parse all", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			data, err := os.ReadFile(path)
			if err != nil {
				b.Fatal(err)
			}
			for rest := data; ; {
				var block *pem.Block
				if block, rest = pem.Decode(rest); block == nil {
					break
				}
				if _, err := x509.ParseCertificate(block.Bytes); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
}
