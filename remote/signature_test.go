package remote

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	randv2 "math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/integration/lab"
	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/integration/peers"
	"nightmare.mail/mxf/remote/report"
	"nightmare.mail/mxf/remote/sign"
)

// Setup: an SMTP and a QMTP server at one address, and a home whose routes lead there, with an
// RSA and an Ed25519 key.
//
//	message ─▶ Deliver ─▶ smtpc, qmtpc ─▶ server ─▶ a verifier of this file; dkimpy, Mail::DKIM
//
// Test: whatever the message, what the server has of it is the message, behind signatures that
// hold if there are any; and there are, where From says so plainly.
type signer struct {
	*lab.Lab
	byQMTP map[bool]*Router
	path   string // of the message under way

	rsa *rsa.PrivateKey
	ed  ed25519.PrivateKey

	mu    sync.Mutex
	trace []string
}

// signerAt is where the servers are.
var signerAt = netip.MustParseAddr("127.0.0.2")

func newSigner(t testing.TB) *signer {
	t.Helper()
	folder := t.TempDir()
	s := &signer{Lab: must.Get(lab.Open(filepath.Join(folder, "home")))(t), byQMTP: make(map[bool]*Router), path: filepath.Join(folder, "message")}
	t.Cleanup(func() { must.Check(t, s.Inbox.Wrong(), s.Close()) })
	must.Get(s.SMTP(signerAt, lab.SMTP{}))(t)
	must.Get(s.QMTP(signerAt, lab.QMTP{}))(t)
	s.rsa = must.Get(rsa.GenerateKey(rand.Reader, 1024))(t)
	_, s.ed, _ = ed25519.GenerateKey(rand.Reader)
	for name, key := range map[string]any{"rsa": s.rsa, "ed25519": s.ed} {
		der := must.Get(x509.MarshalPKCS8PrivateKey(key))(t)
		must.OK(t, os.WriteFile(s.Home.Path("control/"+name), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600))
	}
	must.OK(t, s.Home.Set("signingkeys", "shop.example:rsa:control/rsa", "shop.example:ed25519:control/ed25519"))
	for isQMTP, lines := range map[bool][2]string{
		false: {fmt.Sprintf("smtp:%d:0:N:N:mxf-remote-smtpc", s.Port("smtp")), "smtproutes"},
		true:  {fmt.Sprintf("qmtp:%d:0:N:N:mxf-remote-qmtpc", s.Port("qmtp")), "qmtproutes"},
	} {
		must.OK(t, s.Home.Set("protocols", lines[0]), s.Home.Set(lines[1], ":"+signerAt.String()))
		s.byQMTP[isQMTP] = must.Get(New(Config{Settings: must.Get(control.Read(s.Home.Dir))(t)}))(t)
		must.OK(t, s.Home.Remove(lines[1]))
	}
	return s
}

// records are those that publish the keys.
func (s *signer) records(t testing.TB) map[string]string {
	public := must.Get(x509.MarshalPKIXPublicKey(s.rsa.Public()))(t)
	return map[string]string{
		"rsa._domainkey.shop.example":     "v=DKIM1; k=rsa; p=" + base64.StdEncoding.EncodeToString(public),
		"ed25519._domainkey.shop.example": "v=DKIM1; k=ed25519; p=" + base64.StdEncoding.EncodeToString(s.ed.Public().(ed25519.PublicKey)),
	}
}

// send returns what a server has of a message, with line ends of CR LF; nothing, if it cannot be
// sent.
func (s *signer) send(t testing.TB, isQMTP bool, message []byte) []byte {
	t.Helper()
	must.OK(t, os.WriteFile(s.path, message, 0o600))
	return s.sendFile(t, isQMTP, message)
}

// sendFile is send for a file that has message already.
func (s *signer) sendFile(t testing.TB, isQMTP bool, message []byte) []byte {
	t.Helper()
	file := must.Get(os.Open(s.path))(t)
	defer file.Close()
	s.Inbox.Empty()
	s.trace = nil
	job := &Job{Host: "example.org", Sender: "joe@shop.example", Recipients: []string{"you@example.org"}, Message: file, Trace: func(line string) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.trace = append(s.trace, line)
	}}
	stream := Deliver(t.Context(), job, func() (*Router, error) { return s.byQMTP[isQMTP], nil })
	if stream.Message.Letter == report.Permanent && !isQMTP && strings.Contains(stream.Message.Text, "partial final lines") {
		return nil
	}
	came := s.Inbox.Messages()
	if stream.Message.Letter != report.Delivered || len(came) != 1 {
		t.Fatalf("%q: %d messages, %q", message, len(came), stream.Bytes())
	}
	if isQMTP && !bytes.HasSuffix(came[0].Data, message) {
		t.Fatalf("%q came as %q", message, came[0].Data)
	}
	return crlf(came[0].Data)
}

// crlf has each line end in CR LF: each LF, CR LF and bare CR is one line end, and one is put
// where it is missing.
func crlf(message []byte) []byte {
	text := strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(string(message))
	if text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	return []byte(strings.ReplaceAll(text, "\n", "\r\n"))
}

// check sends a message both ways, verifies what came, and returns it.
func (s *signer) check(t testing.TB, message []byte) (came [][]byte) {
	t.Helper()
	for _, isQMTP := range []bool{false, true} {
		got := s.send(t, isQMTP, message)
		if got == nil && !isQMTP {
			continue
		}
		came = append(came, got)
		plain := crlf(message)
		signed := slices.ContainsFunc(s.trace, func(line string) bool { return strings.HasPrefix(line, "signed ") })
		switch why := slices.IndexFunc(s.trace, func(line string) bool { return strings.HasPrefix(line, "not signed: ") }); {
		case signed == (why >= 0):
			t.Errorf("%q: %q", message, s.trace)
		case signed:
			rest := got
			for _, public := range []crypto.PublicKey{s.rsa.Public(), s.ed.Public()} {
				must.Check(t, wrapped(message, verifyTop(rest, plain, public)))
				rest = afterField(rest)
			}
			if !bytes.Equal(rest, plain) {
				t.Errorf("%q became %q", message, rest)
			}
		case !bytes.Equal(got, plain):
			t.Errorf("%q is not signed, and became %q", message, got)
		case isPlain(plain):
			t.Errorf("%q: %s", message, s.trace[why])
		}
	}
	return came
}

func wrapped(message []byte, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%q: %w", message, err)
}

// fuzzFrom is a From field that is to be signed.
const fuzzFrom = "From: a@shop.example"

// isPlain reports whether a message must be signed: it has fuzzFrom and no other From, and begins
// with a field.
func isPlain(plain []byte) bool {
	fields := headerFields(plain)
	if fields == nil || bytes.ContainsAny(plain[:1], " \t") {
		return false
	}
	plainly := 0
	for _, f := range fields {
		switch {
		case strings.EqualFold(fieldName(f), "from") && f != fuzzFrom+"\r\n":
			return false
		case f == fuzzFrom+"\r\n":
			plainly++
		}
	}
	return plainly == 1
}

// headerFields are the lines of a header, each with those that go on with it.
func headerFields(message []byte) (fields []string) {
	for line := range strings.Lines(string(message)) {
		switch {
		case line == "\r\n":
			return fields
		case strings.ContainsAny(line[:1], " \t") && len(fields) > 0:
			fields[len(fields)-1] += line
		default:
			fields = append(fields, line)
		}
	}
	return fields
}

// fieldName is the name of a field, empty where it is none.
func fieldName(field string) string {
	name, _, found := strings.Cut(field, ":")
	if name = strings.TrimRight(name, " \t"); !found || strings.ContainsAny(name, " \t\r\n") {
		return ""
	}
	return name
}

// afterField returns what follows the first field of a message.
func afterField(message []byte) []byte {
	if fields := headerFields(message); len(fields) > 0 {
		return message[len(fields[0]):]
	}
	return nil
}

// verifyTop verifies the signature on top of a message by RFC 6376, without anything that
// package sign has. Plain is the message as it was before it was signed.
func verifyTop(message, plain []byte, public crypto.PublicKey) error {
	fields := headerFields(message)
	if len(fields) == 0 || fieldName(fields[0]) != "DKIM-Signature" {
		return errors.New("no signature is on top")
	}
	tag := make(map[string]string)
	_, tags, _ := strings.Cut(fields[0], ":")
	for one := range strings.SplitSeq(tags, ";") {
		name, value, _ := strings.Cut(one, "=")
		tag[strings.Trim(name, " \t\r\n")] = strings.NewReplacer(" ", "", "\t", "", "\r\n", "").Replace(value)
	}
	_, body, _ := bytes.Cut(slices.Concat([]byte("\r\n"), plain), []byte("\r\n\r\n"))
	if sum := sha256.Sum256(relaxedBody(body)); base64.StdEncoding.EncodeToString(sum[:]) != tag["bh"] {
		return errors.New("bh= is wrong")
	}
	var text strings.Builder
	taken := make([]bool, len(fields))
	for name := range strings.SplitSeq(tag["h"], ":") {
		for i := len(fields) - 1; i > 0; i-- {
			if !taken[i] && strings.EqualFold(fieldName(fields[i]), name) {
				taken[i] = true
				text.WriteString(relaxedField(fields[i]) + "\r\n")
				break
			}
		}
	}
	before, _, _ := strings.Cut(relaxedField(fields[0]), " b=") // the last tag
	text.WriteString(before + " b=")
	sum := sha256.Sum256([]byte(text.String()))
	signature, err := base64.StdEncoding.DecodeString(tag["b"])
	if err != nil {
		return err
	}
	switch public := public.(type) {
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(public, crypto.SHA256, sum[:], signature)
	case ed25519.PublicKey:
		if !ed25519.Verify(public, sum[:], signature) {
			return errors.New("b= is wrong")
		}
	}
	return nil
}

// oneBlank makes each run of blanks one space.
func oneBlank(text string) string {
	return strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r == ' ' || r == '\t' }), " ")
}

func relaxedField(field string) string {
	name, value, _ := strings.Cut(field, ":")
	return strings.ToLower(strings.TrimRight(name, " \t")) + ":" + oneBlank(strings.ReplaceAll(value, "\r\n", ""))
}

func relaxedBody(body []byte) []byte {
	var lines []string
	for line := range strings.SplitSeq(strings.TrimSuffix(string(body), "\r\n"), "\r\n") {
		relaxed := oneBlank(line)
		if relaxed != "" && strings.ContainsAny(line[:1], " \t") {
			relaxed = " " + relaxed
		}
		lines = append(lines, relaxed)
	}
	for len(lines) > 0 && lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	if len(lines) == 0 {
		return nil
	}
	return []byte(strings.Join(lines, "\r\n") + "\r\n")
}

// Of these, random messages are made.
var (
	fuzzParts  = []string{"\r", "\n", "\r\n", " ", "\t", ".", ":", "a", "b", "From", "Subject:", fuzzFrom, "\n" + fuzzFrom + "\n", "\nTo:", "\n\n"}
	fuzzEnds   = []string{"\r", "\n", "\r\n"}
	fuzzFields = []string{"Subject", "TO", "cc", "Reply-To", "Date", "Message-ID", "X", "References", "Content-Type"}
)

// wild is any string of the parts.
func wild(random *randv2.Rand) []byte {
	var b []byte
	for range random.IntN(40) {
		b = append(b, fuzzParts[random.IntN(len(fuzzParts))]...)
	}
	return b
}

// decent is a message with fields as everybody reads them, and any body.
func decent(random *randv2.Rand) []byte {
	pick := func(list []string) string { return list[random.IntN(len(list))] }
	text := func() (s string) {
		for range random.IntN(8) {
			s += pick([]string{" ", "\t", ".", ":", "a", "b"})
		}
		return s
	}
	fields := []string{fuzzFrom}
	for range random.IntN(8) {
		f := pick(fuzzFields) + ":" + text()
		for range random.IntN(3) {
			f += "\x00" + pick([]string{" ", "\t"}) + text()
		}
		fields = append(fields, f)
	}
	random.Shuffle(len(fields), func(i, j int) { fields[i], fields[j] = fields[j], fields[i] })
	var b []byte
	for _, c := range strings.Join(fields, "\x00") + "\x00\x00" {
		if c != 0 {
			b = append(b, string(c)...)
			continue
		}
		end := pick(fuzzEnds)
		if end == "\n" && len(b) > 0 && b[len(b)-1] == '\r' {
			end = "\r" // or the two would be one line end
		}
		b = append(b, end...)
	}
	for range random.IntN(30) {
		b = append(b, pick(fuzzParts[:9])...)
	}
	return b
}

const (
	wildSeeds    = 150
	decentSample = 150
)

func FuzzDeliver_signatures(f *testing.F) {
	for _, seed := range []string{"", "\n", fuzzFrom, fuzzFrom + "\n", fuzzFrom + "\n\n", fuzzFrom + "\r\rx\r\n\r", "\r" + fuzzFrom + "\n\n", " \n" + fuzzFrom,
		fuzzFrom + "\n" + fuzzFrom + "\n\n", "Subject: x\n y\n" + fuzzFrom + "\n\n.\n..\r \t\n\n", fuzzFrom + "\nFrom : a@shop.example\n\n", "a\n" + fuzzFrom + "\n\nx"} {
		f.Add([]byte(seed))
	}
	random := randv2.New(randv2.NewPCG(6, 376))
	for range wildSeeds {
		f.Add(wild(random))
		f.Add(append([]byte(fuzzFrom+"\n"), wild(random)...))
	}
	s := newSigner(f)
	f.Fuzz(func(t *testing.T, message []byte) { s.check(t, message) })
}

// A sample is verified by the verifiers of others.
func TestDeliver_signaturesPeers(t *testing.T) {
	s := newSigner(t)
	random := randv2.New(randv2.NewPCG(8, 463))
	var names []string
	var messages [][]byte
	for range decentSample {
		message := decent(random)
		for _, came := range s.check(t, message) {
			names, messages = append(names, fmt.Sprintf("%q", message)), append(messages, came)
		}
	}
	t.Run("dkimpy", func(t *testing.T) { peers.DKIMPy(t).Passed(t, s.records(t), 2, names, messages) })
	t.Run("Mail::DKIM", func(t *testing.T) {
		for i, results := range peers.MailDKIM(t).Verify(t, s.records(t), messages) {
			if len(results) != 2 || results[0] != "pass" {
				t.Errorf("of %s: %q", names[i], results)
			}
		}
	})
}

// With a memory the deliveries of one message file have one signature, whatever the protocol; a
// key that is changed, a file that is written again and a pipe have another.
func TestSignature_remembered(t *testing.T) {
	s := newSigner(t)
	at := time.Unix(1_785_000_000, 0)
	memory := sign.NewMemory(func() time.Time { return at })
	for isQMTP, router := range s.byQMTP {
		c := router.Config
		c.Signatures, c.Now = memory, func() time.Time { return at }
		s.byQMTP[isQMTP] = must.Get(New(c))(t)
	}
	message := []byte(fuzzFrom + "\nSubject: remembered\n\nbody\n")
	write := func(nanosecond int64) {
		when := time.Unix(1_785_000_000, nanosecond)
		must.OK(t, os.WriteFile(s.path, message, 0o600), os.Chtimes(s.path, when, when))
	}
	write(0)
	var before []byte
	for _, step := range []struct {
		name   string
		later  time.Duration
		isQMTP bool
		do     func()
		same   bool // as the step before
	}{
		{"the first", 0, false, func() {}, false},
		{"the second", time.Minute, false, func() {}, true},
		{"by QMTP", time.Minute, true, func() {}, true},
		{"too old", 4 * time.Minute, true, func() {}, false},
		{"another key", time.Second, true, func() {
			der := must.Get(x509.MarshalPKCS8PrivateKey(must.Get(rsa.GenerateKey(rand.Reader, 1024))(t)))(t)
			must.OK(t, os.WriteFile(s.Home.Path("control/rsa"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600))
		}, false},
		{"written again", time.Second, true, func() { write(1) }, false},
		{"the same file", time.Second, false, func() {}, true},
	} {
		at = at.Add(step.later)
		step.do()
		got := s.sendFile(t, step.isQMTP, message)
		if same := bytes.Equal(got, before); same != step.same {
			t.Errorf("%s: the same %v:\n%s", step.name, same, got)
		}
		before = got
	}
}
