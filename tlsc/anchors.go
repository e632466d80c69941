package tlsc

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// Anchors tell where the trust anchors are: in the folder Dir, if it is set, else
// in File. The files hold certificates in PEM, one after another and with any text
// between, or in DER. Files of a folder that hold none are passed over, and its
// sub-folders too; their names do not matter.
type Anchors struct{ File, Dir string }

func (a Anchors) String() string {
	if a.Dir != "" {
		return a.Dir
	}
	return a.File
}

const (
	// anchorFileLimit bounds a file of trust anchors; bundles are of 0.3 MB.
	anchorFileLimit = 32 << 20
	// steadyReads is how often a file that changes while it is read is read again.
	steadyReads = 3
)

// read makes the index. Errors are of KindSettings: none configured, a file or
// folder that cannot be read, no certificate in it.
func (a Anchors) read() (*index, error) {
	x := &index{where: a.String()}
	var err error
	switch {
	case a.Dir != "":
		err = x.addFolder(a.Dir)
	case a.File != "":
		err = x.addFile(a.File)
	default:
		return nil, &Error{Kind: KindSettings, What: "no trust anchors are configured"}
	}
	if err != nil && len(x.entries) == 0 {
		return nil, &Error{Kind: KindSettings, What: "cannot read trust anchors: " + err.Error(), Err: err}
	}
	if len(x.entries) == 0 {
		return nil, &Error{Kind: KindSettings, What: fmt.Sprintf("no certificate in %s", x.where)}
	}
	return x, nil
}

// An index finds trust anchors by their subject. A handshake needs one or two of
// some 150: the others are read past, not parsed.
type index struct {
	where   string // the file or folder, for people
	entries []entry
}

// An entry is one certificate, as the file has it.
type entry struct {
	subject []byte // DER
	body    []byte // DER, or base64 with line ends
	pem     bool
}

// addFolder adds the certificates of all files in a folder. It returns an error if
// the folder cannot be read, or else the first of a file; that counts only when
// nothing was found: a folder may hold a private key as well.
func (x *index) addFolder(path string) error {
	names, err := os.ReadDir(path)
	if err != nil {
		return err
	}
	for _, name := range names {
		file := filepath.Join(path, name.Name())
		if info, statErr := os.Stat(file); statErr != nil || !info.Mode().IsRegular() {
			continue
		}
		if fileErr := x.addFile(file); err == nil {
			err = fileErr
		}
	}
	return err
}

func (x *index) addFile(path string) error {
	data, err := readSteady(path)
	if err != nil {
		return err
	}
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

// readSteady reads a whole file from one descriptor, so that a bundle renamed over
// the old one does no harm, and once more if it was changed in place meanwhile.
func readSteady(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	before, err := file.Stat()
	for range steadyReads {
		if err != nil {
			return nil, err
		}
		var data []byte
		if data, err = readWhole(file, before.Size()); err != nil {
			return nil, err
		}
		var after os.FileInfo
		if after, err = file.Stat(); err != nil {
			return nil, err
		}
		if after.ModTime().Equal(before.ModTime()) && after.Size() == before.Size() {
			return data, nil
		}
		before = after
		_, err = file.Seek(0, io.SeekStart)
	}
	return nil, fmt.Errorf("%s changes while it is read", path)
}

func readWhole(file *os.File, size int64) ([]byte, error) {
	if size > anchorFileLimit {
		return nil, fmt.Errorf("%s has more than %d bytes", file.Name(), anchorFileLimit)
	}
	data := bytes.NewBuffer(make([]byte, 0, size+bytes.MinRead))
	if _, err := data.ReadFrom(io.LimitReader(file, anchorFileLimit+1)); err != nil {
		return nil, err
	}
	if data.Len() > anchorFileLimit {
		return nil, fmt.Errorf("%s has more than %d bytes", file.Name(), anchorFileLimit)
	}
	return data.Bytes(), nil
}

var (
	pemBegin = []byte("-----BEGIN ")
	pemDash  = []byte("-----")
	pemEnd   = []byte("-----END ")
)

// addPEM adds what is between the BEGIN and the END of certificates. What is no
// certificate, or a broken one, is passed over: it cannot be anybody's anchor.
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

// addDER adds one certificate after another, up to the first thing that is none.
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

// insert leaves out what is there already: a folder often holds the same certificate
// under two or three names.
func (x *index) insert(e entry) {
	if slices.ContainsFunc(x.entries, func(other entry) bool {
		return bytes.Equal(e.subject, other.subject) && bytes.Equal(e.body, other.body)
	}) {
		return
	}
	x.entries = append(x.entries, e)
}

// pool returns the anchors whose subject is named in the chain, as an issuer or as
// a subject: the latter for a server whose certificate is an anchor itself, or
// which sends an authority that is cross-signed.
func (x *index) pool(chain []*x509.Certificate) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, e := range x.entries {
		if !slices.ContainsFunc(chain, func(c *x509.Certificate) bool {
			return bytes.Equal(e.subject, c.RawIssuer) || bytes.Equal(e.subject, c.RawSubject)
		}) {
			continue
		}
		if certificate, err := e.parse(); err == nil {
			pool.AddCert(certificate)
		}
	}
	return pool
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

// decodeBase64 decodes into buf, or a larger one. Line ends are passed over by the
// decoder; blanks, which are rare, have to be taken out for it.
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

// subjectOf finds the subject in a certificate (RFC 5280 section 4.1), and looks at
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
