package integration

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"nightmare.mail/mxf/integration/lab"
	"nightmare.mail/mxf/integration/peers"
)

// Commands of scripts for signatures:
//
//	signingkey FILE KIND [MODE]  a key beneath home/, of the mode 0640 otherwise: rsaBITS,
//	                             pkcs1 (RSA, 1024 bits), ed25519, ec, encrypted, long
//	dkim [-add FIELD] N|all|FILE VERIFIER pass|fail...
//	                             what a verifier (dkimpy, Mail::DKIM, OpenDKIM) says of each signature
//	                             of message N, of all that arrived, or of a file, when a field was added
//	                             at either end of the header; the keys are those of control/signingkeys
//	signed N|FILE COUNT FILE     message N, or a file, is FILE behind so many signature fields, which look
//	                             as they should
//	sized N                      SIZE of MAIL was the length of message N
var signingCommands = map[string]command{
	"signingkey": plain(2, (*rig).signingKey),
	"dkim":       plain(3, (*rig).dkim),
	"signed":     plain(3, (*rig).signed),
	"sized":      onMessage(1, sized),
}

func (r *rig) signingKey(_ *testscript.TestScript, args []string) error {
	kind, der, err := newSigningKey(args[1])
	mode := uint64(0o640)
	if err == nil && len(args) > 2 {
		mode, err = strconv.ParseUint(args[2], 8, 32)
	}
	if err != nil {
		return err
	}
	path := r.Home.Path(args[0])
	text := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	if args[1] == "long" {
		text = append(text, make([]byte, 64<<10)...)
	}
	return errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, text, 0o600), os.Chmod(path, os.FileMode(mode)))
}

// newSigningKey returns the PEM block of a new key.
func newSigningKey(kind string) (block string, der []byte, err error) {
	const pkcs1, pkcs8 = "RSA PRIVATE KEY", "PRIVATE KEY"
	if digits, ok := strings.CutPrefix(kind, "rsa"); ok {
		bits, err := strconv.Atoi(digits)
		if err != nil {
			return "", nil, err
		}
		if bits < 1024 || bits > 4096 { // crypto/rsa does not make these, or takes long
			der, err := oddRSA(bits)
			return pkcs1, der, err
		}
		key, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			return "", nil, err
		}
		der, err = x509.MarshalPKCS8PrivateKey(key)
		return pkcs8, der, err
	}
	var key any
	switch kind {
	case "pkcs1":
		key, err := rsa.GenerateKey(rand.Reader, 1024)
		if err != nil {
			return "", nil, err
		}
		return pkcs1, x509.MarshalPKCS1PrivateKey(key), nil
	case "ed25519", "long":
		_, key, err = ed25519.GenerateKey(rand.Reader)
	case "ec":
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "encrypted":
		return "ENCRYPTED PRIVATE KEY", []byte("nobody can tell"), nil
	default:
		err = fmt.Errorf("unknown kind of key %q", kind)
	}
	if err != nil {
		return "", nil, err
	}
	der, err = x509.MarshalPKCS8PrivateKey(key)
	return pkcs8, der, err
}

// oddRSA returns what looks like an RSA key of a size, in PKCS #1. Its factors are odd, but
// primes only if it is small.
func oddRSA(bits int) ([]byte, error) {
	one, e := big.NewInt(1), big.NewInt(65537)
	factor := func(bits int) (*big.Int, error) {
		if bits <= 512 {
			return rand.Prime(rand.Reader, bits)
		}
		n, err := rand.Int(rand.Reader, new(big.Int).Lsh(one, uint(bits-2)))
		if err != nil {
			return nil, err
		}
		n.SetBit(n, bits-1, 1).SetBit(n, bits-2, 1)
		return n.SetBit(n, 0, 1), nil
	}
	for {
		p, err := factor(bits / 2)
		q, err2 := factor(bits - bits/2)
		if err := errors.Join(err, err2); err != nil {
			return nil, err
		}
		p1, q1 := new(big.Int).Sub(p, one), new(big.Int).Sub(q, one)
		d := new(big.Int).ModInverse(e, new(big.Int).Mul(p1, q1))
		n, inverse := new(big.Int).Mul(p, q), new(big.Int).ModInverse(q, p)
		if n.BitLen() == bits && d != nil && inverse != nil {
			return asn1.Marshal(struct {
				Version                  int
				N, E, D, P, Q, P1, Q1, I *big.Int
			}{0, n, e, d, p, q, new(big.Int).Mod(d, p1), new(big.Int).Mod(d, q1), inverse})
		}
	}
}

// keyRecords returns the TXT records of the keys in control/signingkeys, by their names.
func (r *rig) keyRecords() (map[string]string, error) {
	text, err := os.ReadFile(r.Home.Path("control/signingkeys"))
	if err != nil {
		return nil, err
	}
	records := make(map[string]string)
	for line := range strings.Lines(string(text)) {
		field := strings.Split(strings.TrimSpace(line), ":")
		if len(field) != 3 {
			continue
		}
		if records[field[1]+"._domainkey."+strings.Trim(field[0], ".")], err = keyRecord(r.Home.Path(field[2])); err != nil {
			return nil, err
		}
	}
	return records, nil
}

// keyRecord returns the text that publishes the key in a file (RFC 6376 section 3.6.1, RFC 8463
// section 4).
func keyRecord(path string) (string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return "", fmt.Errorf("%s has no key", path)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		if key, err = x509.ParsePKCS1PrivateKey(block.Bytes); err != nil {
			return "", err
		}
	}
	switch public := key.(crypto.Signer).Public().(type) {
	case ed25519.PublicKey:
		return "v=DKIM1; k=ed25519; p=" + base64.StdEncoding.EncodeToString(public), nil
	default:
		der, err := x509.MarshalPKIXPublicKey(public)
		return "v=DKIM1; k=rsa; p=" + base64.StdEncoding.EncodeToString(der), err
	}
}

var verifiers = map[string]func(testing.TB) *peers.Verifier{"dkimpy": peers.DKIMPy, "Mail::DKIM": peers.MailDKIM, "OpenDKIM": peers.OpenDKIM}

func (r *rig) dkim(ts *testscript.TestScript, args []string) error {
	var added string
	if args[0] == "-add" {
		added, args = args[1], args[2:]
	}
	if verifiers[args[1]] == nil {
		return fmt.Errorf("unknown verifier %q", args[1])
	}
	messages, err := r.received(ts, args[0])
	if err != nil {
		return err
	}
	if added != "" {
		messages = withField(messages, added+"\r\n")
	}
	records, err := r.keyRecords()
	if err != nil {
		return err
	}
	for i, all := range verifiers[args[1]](r.tb).Verify(r.tb, records, messages) {
		said := slices.Clone(all)
		for j := range said {
			if said[j] != "pass" {
				said[j] = "fail"
			}
		}
		if !slices.Equal(said, args[2:]) {
			return fmt.Errorf("%s says of message %d, %.300q...: %q", args[1], i+1, messages[i], all)
		}
	}
	return nil
}

// received returns what a server has of a message, of all, or would have of a file: lines
// that end in CR LF.
func (r *rig) received(ts *testscript.TestScript, which string) ([][]byte, error) {
	var data [][]byte
	if _, err := strconv.Atoi(which); err == nil {
		m, err := nth("message", which, r.Inbox.Messages)
		if err != nil {
			return nil, err
		}
		data = append(data, m.Data)
	} else if which == "all" {
		for _, m := range r.Inbox.Messages() {
			data = append(data, m.Data)
		}
		if len(data) == 0 {
			return nil, errors.New("nothing has arrived")
		}
	} else {
		data = append(data, []byte(ts.ReadFile(which)))
	}
	for i := range data {
		data[i] = inLines(data[i])
	}
	return data, nil
}

// inLines has each line of data end in CR LF: each LF, CR LF and bare CR is one line end, and
// one is put where it is missing.
func inLines(data []byte) []byte {
	for _, end := range []string{"\r\n", "\r"} {
		data = bytes.ReplaceAll(data, []byte(end), []byte("\n"))
	}
	if len(data) > 0 && data[len(data)-1] != '\n' {
		data = append(slices.Clip(data), '\n')
	}
	return bytes.ReplaceAll(data, []byte("\n"), []byte("\r\n"))
}

// withField returns each message twice: with a field at the top of its header, and at the end.
func withField(messages [][]byte, field string) [][]byte {
	var both [][]byte
	for _, m := range messages {
		header, body, _ := bytes.Cut(m, []byte("\r\n\r\n"))
		header = bytes.TrimSuffix(header, []byte("\r\n")) // there is no body, perhaps
		both = append(both, slices.Concat([]byte(field), m), slices.Concat(header, []byte("\r\n"+field+"\r\n"), body))
	}
	return both
}

// signatureField is a field of ours: its tags in their order, and no other.
var signatureField = regexp.MustCompile(`\ADKIM-Signature: v=1; a=(rsa|ed25519)-sha256; c=relaxed/relaxed;\s+d=[a-z0-9.-]+;\s+s=[A-Za-z0-9.-]+;\s+` +
	`t=\d+;\s+h=[A-Za-z-]+(:\s*[A-Za-z-]+)*;\s+bh=[A-Za-z0-9+/=]+;\s+b=[A-Za-z0-9+/=\s]+\n\z`)

// maxSignatureLine is how long a line of a signature may be, in bytes without its end.
const maxSignatureLine = 76

func (r *rig) signed(ts *testscript.TestScript, args []string) error {
	count, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	var data []byte
	if _, err := strconv.Atoi(args[0]); err == nil {
		m, err := nth("message", args[0], r.Inbox.Messages)
		if err != nil {
			return err
		}
		data = m.Data
	} else {
		data = []byte(ts.ReadFile(args[0]))
	}
	message, err := os.ReadFile(ts.MkAbs(args[2]))
	if err != nil {
		return err
	}
	fields, ok := cutText(data, message)
	if !ok {
		return fmt.Errorf("%.600q, %d bytes, does not end in %s", data, len(data), args[2])
	}
	text := strings.ReplaceAll(string(fields), "\r\n", "\n")
	for line := range strings.Lines(text) {
		if len(line)-1 > maxSignatureLine {
			return fmt.Errorf("a signature has the line %q", line)
		}
	}
	all := strings.Split(text, "DKIM-Signature:")
	if len(all)-1 != count {
		return fmt.Errorf("%d signatures: %q", len(all)-1, text)
	}
	for _, one := range all[1:] {
		if field := "DKIM-Signature:" + one; !signatureField.MatchString(field) || regexp.MustCompile(`\n[^\t\n]`).MatchString(field) {
			return fmt.Errorf("a signature is %q", field)
		}
	}
	return nil
}

// cutText returns what stands before message in data, whose line ends may be others.
func cutText(data, message []byte) ([]byte, bool) {
	if fields, ok := bytes.CutSuffix(data, message); ok {
		return fields, true
	}
	return bytes.CutSuffix(inLines(data), inLines(message))
}

func sized(m *lab.Message, _ *testscript.TestScript, _ []string) error {
	if want := fmt.Sprintf("SIZE=%d", len(m.Data)); !slices.Contains(strings.Fields(m.Parameters), want) {
		return fmt.Errorf("MAIL has %q, want %s", m.Parameters, want)
	}
	return nil
}

// A signature differs from one time to the next.
var signatures = []struct {
	pattern *regexp.Regexp
	instead string
}{
	{regexp.MustCompile(`\bt=\d+;`), "t=now;"},
	{regexp.MustCompile(`\tb=[A-Za-z0-9+/=]*(\r?\n\t[A-Za-z0-9+/=]*)*`), "\tb=signature"},
}

// anySignature replaces what is particular to one signature.
func anySignature(text string) string {
	for _, s := range signatures {
		text = s.pattern.ReplaceAllString(text, s.instead)
	}
	return text
}
