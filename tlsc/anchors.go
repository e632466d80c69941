package tlsc

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"nightmare.mail/mxf/control/regular"
)

// Anchors say where the trust anchors are: in the folder Dir if it is set, otherwise in
// File. A file holds certificates in PEM, one after another and with any text between,
// or in DER. In a folder, the names of the files do not matter; files without a
// certificate, and sub-folders, are skipped.
type Anchors struct{ File, Dir string }

func (a Anchors) String() string {
	if a.Dir != "" {
		return a.Dir
	}
	return a.File
}

const (
	// anchorsLimit bounds the files of trust anchors, all together, because what is
	// found in them is kept in memory. Bundles have 0.3 MB.
	anchorsLimit = 32 << 20
	// certificateLimit bounds the file of a client certificate and the file of its key.
	// Chains have some kB.
	certificateLimit = 1 << 20
	// steadyReads is how often a file is read that changes while it is read.
	steadyReads = 3
)

// read makes the index. The error is an *AnchorsError: a file or folder that cannot be
// read, or no certificate in it.
func (a Anchors) read() (*index, error) {
	x := newIndex(a.String())
	var err error
	if a.Dir != "" {
		err = x.addFolder(a.Dir)
	} else {
		err = x.addFile(a.File)
	}
	if err == nil && len(x.entries) == 0 {
		err = fmt.Errorf("no certificate in %s", x.where)
	}
	if err != nil && (len(x.entries) == 0 || errors.Is(err, errTooLarge)) {
		return nil, &AnchorsError{File: x.where, Err: err}
	}
	return x, nil
}

// An index finds trust anchors by their subject. A handshake needs one or two of about
// 150: the others are not parsed. Once it is made, an index does not change.
//
// Entries whose subject, or body, has the same hash form a list: the map has the last
// one, and each entry has the one before it. So the time for 20,000 entries is 20,000
// times the time for one.
type index struct {
	where    string // the file or folder, for people
	size     int64  // of the files that were read
	entries  []entry
	seed     maphash.Seed
	subjects map[uint64]int // to the last entry, counted from 1
	bodies   map[uint64]int
}

// An entry is one certificate, as the file has it.
type entry struct {
	subject     []byte // DER
	body        []byte // DER, or base64 with line ends
	pem         bool
	sameSubject int // the entry before, counted from 1, whose subject has the same hash
	sameBody    int
}

func newIndex(where string) *index {
	return &index{where: where, seed: maphash.MakeSeed(), subjects: make(map[uint64]int), bodies: make(map[uint64]int)}
}

// addFolder adds the certificates of all files in a folder. It returns an error if the
// folder cannot be read or holds too much. Otherwise it returns the first error of a
// file. The caller ignores that one if there are certificates, because a folder may
// hold a private key as well.
func (x *index) addFolder(path string) error {
	names, err := os.ReadDir(path)
	if err != nil {
		return err
	}
	for _, name := range names {
		fileErr := x.addFile(filepath.Join(path, name.Name()))
		switch {
		case errors.Is(fileErr, errTooLarge):
			return fileErr
		case errors.Is(fileErr, regular.ErrNot), errors.Is(fileErr, fs.ErrNotExist):
		case err == nil:
			err = fileErr
		}
	}
	return err
}

func (x *index) addFile(path string) error {
	data, err := readSteady(path, anchorsLimit-x.size)
	if errors.Is(err, errTooLarge) {
		return fmt.Errorf("%s has %w than %d bytes", x.where, errTooLarge, anchorsLimit)
	}
	if err != nil {
		return err
	}
	x.size += int64(len(data))
	x.add(data)
	return nil
}

// add adds the certificates of one file.
func (x *index) add(data []byte) {
	if bytes.Contains(data, pemBegin) {
		x.addPEM(data)
	} else {
		x.addDER(data)
	}
}

var errTooLarge = errors.New("more")

// readSteady reads a whole file through one descriptor, so that a bundle that is renamed
// over the old one does no harm. It reads again if the file was changed in place.
func readSteady(path string, limit int64) ([]byte, error) {
	file, before, err := regular.Open(path, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	for range steadyReads {
		data, err := readWhole(file, before.Size(), limit)
		if err != nil {
			return nil, err
		}
		after, err := file.Stat()
		if err != nil {
			return nil, err
		}
		if after.ModTime().Equal(before.ModTime()) && after.Size() == before.Size() {
			return data, nil
		}
		before = after
		if _, err = file.Seek(0, io.SeekStart); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("%s changes while it is read", path)
}

func readWhole(file *os.File, size, limit int64) ([]byte, error) {
	tooLarge := fmt.Errorf("%s has %w than %d bytes", file.Name(), errTooLarge, limit)
	if size > limit {
		return nil, tooLarge
	}
	data := bytes.NewBuffer(make([]byte, 0, size+bytes.MinRead))
	if _, err := data.ReadFrom(io.LimitReader(file, limit+1)); err != nil {
		return nil, err
	}
	if int64(data.Len()) > limit {
		return nil, tooLarge
	}
	return data.Bytes(), nil
}

var (
	pemBegin = []byte("-----BEGIN ")
	pemDash  = []byte("-----")
	pemEnd   = []byte("-----END ")
)

// addPEM adds what stands between the BEGIN and the END of certificates. It skips broken
// certificates and everything else, which cannot be an anchor.
func (x *index) addPEM(data []byte) {
	var scratch []byte
	for {
		_, rest, found := bytes.Cut(data, pemBegin)
		if !found {
			return
		}
		label, rest, found := bytes.Cut(rest, pemDash)
		if !found {
			return
		}
		end := bytes.Index(rest, pemEnd)
		if end < 0 {
			return
		}
		body := rest[:end]
		data = rest[end:]
		if string(label) != "CERTIFICATE" && string(label) != "X509 CERTIFICATE" {
			continue
		}
		var err error
		if scratch, err = decodeBase64(scratch, body); err != nil {
			continue
		}
		if subject, ok := subjectOf(scratch); ok {
			x.insert(entry{subject: bytes.Clone(subject), body: body, pem: true})
		}
	}
}

// addDER adds one certificate after another, up to the first bytes that are none.
func (x *index) addDER(data []byte) {
	rest := cryptobyte.String(data)
	for !rest.Empty() {
		var certificate cryptobyte.String
		if !rest.ReadASN1Element(&certificate, asn1.SEQUENCE) {
			return
		}
		subject, ok := subjectOf(certificate)
		if !ok {
			return
		}
		x.insert(entry{subject: subject, body: certificate})
	}
}

// insert leaves out what is already there, because a folder often holds the same
// certificate under two or three names.
func (x *index) insert(e entry) {
	body, subject := maphash.Bytes(x.seed, e.body), maphash.Bytes(x.seed, e.subject)
	e.sameBody, e.sameSubject = x.bodies[body], x.subjects[subject]
	for i := e.sameBody; i > 0; i = x.entries[i-1].sameBody {
		if bytes.Equal(e.body, x.entries[i-1].body) {
			return
		}
	}
	x.entries = append(x.entries, e)
	x.bodies[body], x.subjects[subject] = len(x.entries), len(x.entries)
}

// named returns the entries with a subject, in the order of the files.
func (x *index) named(subject []byte) []*entry {
	var found []*entry
	for i := x.subjects[maphash.Bytes(x.seed, subject)]; i > 0; i = x.entries[i-1].sameSubject {
		if e := &x.entries[i-1]; bytes.Equal(e.subject, subject) {
			found = append(found, e)
		}
	}
	slices.Reverse(found)
	return found
}

// pool returns the anchors whose subject the chain names, as an issuer or as a subject.
// A subject is named when the server's certificate is an anchor itself, or when the
// server sends an authority that is cross-signed.
func (x *index) pool(chain []*x509.Certificate) *x509.CertPool {
	pool := x509.NewCertPool()
	looked := make(map[string]bool)
	for _, c := range chain {
		for _, name := range [][]byte{c.RawIssuer, c.RawSubject} {
			if looked[string(name)] {
				continue
			}
			looked[string(name)] = true
			for _, e := range x.named(name) {
				if certificate, err := e.parse(); err == nil {
					pool.AddCert(certificate)
				}
			}
		}
	}
	return pool
}

// anchorsFor are the anchors that a chain may lead to, renamed. For those that cannot be
// used it has the reason, by subject.
type anchorsFor struct {
	usable   []*x509.Certificate
	unusable map[string]error
}

// anchorsFor is pool for renamed certificates. It has to prepare the names of all
// anchors.
func (x *index) anchorsFor(chain []*x509.Certificate, twins *renamed) anchorsFor {
	wanted := make(map[string]bool)
	for _, c := range chain {
		wanted[string(c.RawIssuer)], wanted[string(c.RawSubject)] = true, true
	}
	found := anchorsFor{unusable: make(map[string]error)}
	for _, e := range x.entries {
		name := string(preparedName(e.subject))
		if !wanted[name] {
			continue
		}
		certificate, err := e.parse()
		if err != nil {
			found.unusable[name] = err
			continue
		}
		found.usable = append(found.usable, twins.add(certificate))
	}
	return found
}

func (e entry) parse() (*x509.Certificate, error) {
	der := e.body
	if e.pem {
		var err error
		if der, err = decodeBase64(nil, der); err != nil {
			return nil, err
		}
	}
	return x509.ParseCertificate(der)
}

// decodeBase64 decodes into buf, or into a larger one. The decoder skips line ends.
// Blanks, which are rare, have to be removed for it.
func decodeBase64(buf, text []byte) ([]byte, error) {
	if size := base64.StdEncoding.DecodedLen(len(text)); cap(buf) < size {
		buf = make([]byte, size)
	}
	buf = buf[:cap(buf)]
	n, err := base64.StdEncoding.Decode(buf, text)
	if err != nil && bytes.ContainsAny(text, " \t") {
		blank := func(r rune) rune {
			if r == ' ' || r == '\t' {
				return -1
			}
			return r
		}
		n, err = base64.StdEncoding.Decode(buf, bytes.Map(blank, text))
	}
	if err == nil && n == 0 {
		err = errors.New("empty block")
	}
	return buf[:n], err
}

// subjectOf finds the subject in a certificate (RFC 5280 section 4.1). It looks at
// nothing else.
func subjectOf(der []byte) (subject []byte, ok bool) {
	var certificate, tbs, element cryptobyte.String
	input := cryptobyte.String(der)
	ok = input.ReadASN1(&certificate, asn1.SEQUENCE) &&
		certificate.ReadASN1(&tbs, asn1.SEQUENCE) &&
		tbs.SkipOptionalASN1(asn1.Tag(0).Constructed().ContextSpecific()) && // version
		tbs.SkipASN1(asn1.INTEGER) && // serial number
		tbs.SkipASN1(asn1.SEQUENCE) && // signature algorithm
		tbs.SkipASN1(asn1.SEQUENCE) && // issuer
		tbs.SkipASN1(asn1.SEQUENCE) && // validity
		tbs.ReadASN1Element(&element, asn1.SEQUENCE)
	return element, ok
}
