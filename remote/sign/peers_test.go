package sign

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/integration/peers"
	"nightmare.mail/mxf/smtpc"
	"nightmare.mail/mxf/smtpc/smtptest"
)

// The verifiers that others wrote get what an SMTP server has received of a signed message.
//
//	message ─▶ Read, Sign ─▶ smtpc ─▶ smtptest ─▶ dkimpy, Mail::DKIM

// A mailbag has messages under way to a verifier.
type mailbag struct {
	names    []string
	messages [][]byte
}

// A post sends messages by SMTP.
type post struct {
	session *smtpc.Session

	mu   sync.Mutex
	came [][]byte
}

func newPost(t *testing.T) *post {
	p := new(post)
	server := &smtptest.Server{Extensions: []string{"PIPELINING"}, Answer: func(e *smtptest.Exchange) smtptest.Action {
		if e.Phase == smtptest.Message {
			p.mu.Lock()
			p.came = append(p.came, e.Transaction.Message)
			p.mu.Unlock()
		}
		return smtptest.Action{}
	}}
	conn := smtptest.Dial(t, smtptest.Listen(t, server.Serve))
	var err error
	p.session, err = smtpc.Open(t.Context(), conn, &smtpc.Options{HeloHost: "client.example", TLS: smtpc.Never})
	must.OK(t, err)
	t.Cleanup(func() {
		p.session.Quit()
		conn.Close()
		must.Check(t, server.Last(t).Err)
	})
	return p
}

// send returns what a server gets of a message. One whose last line has no end goes by QMTP
// alone. A verifier gets it with that end: it reads lines of SMTP.
func (p *post) send(t *testing.T, message string) []byte {
	t.Helper()
	m := smtpc.NewMail("joe@shop.example", []string{"you@example.org"}, strings.NewReader(message), false)
	if o := m.Unsendable(); o != nil {
		if !errors.Is(o.Err, smtpc.ErrPartialLine) {
			t.Fatal(o.Err)
		}
		return []byte(received(message + "\n"))
	}
	must.OK(t, p.session.Send(t.Context(), m).Err)
	p.mu.Lock()
	defer p.mu.Unlock()
	last := p.came[len(p.came)-1]
	p.came = nil
	return last
}

// add signs and sends what verifiers are to see.
func (b *mailbag) add(t *testing.T, p *post, name, message string, keys []Key) {
	t.Helper()
	h := must.Get(Read(strings.NewReader(message)))(t)
	fields := must.Get(h.Sign(keys, time.Now()))(t)
	b.names = append(b.names, name)
	b.messages = append(b.messages, p.send(t, string(fields)+message))
}

// verifyAll has what fill puts into a bag verified by everybody.
func verifyAll(t *testing.T, fill func(t *testing.T, add func(name, message string))) {
	rsa, ed := keyOf(rsaKey(t, 1024)), keyOf(edKey(t))
	rsa.Selector, ed.Selector = "rsa", "ed25519"
	records := map[string]string{
		"rsa._domainkey.shop.example":     rsa.Private.Record(),
		"ed25519._domainkey.shop.example": ed.Private.Record(),
	}
	for name, find := range map[string]func(testing.TB) *peers.Verifier{"dkimpy": peers.DKIMPy, "Mail::DKIM": peers.MailDKIM} {
		t.Run(name, func(t *testing.T) {
			v := find(t)
			keys := []Key{rsa}
			if v.Ed25519 {
				keys = append(keys, ed)
			}
			p, bag := newPost(t), new(mailbag)
			fill(t, func(name, message string) { bag.add(t, p, name, message, keys) })
			v.Passed(t, records, len(keys), bag.names, bag.messages)

			// It does look at what it gets. Behind a header alone a line more would be one of the header.
			whole := slices.IndexFunc(bag.messages, func(message []byte) bool { return bytes.Contains(message, []byte("\r\n\r\n")) })
			spoilt := append(slices.Clone(bag.messages[whole]), "more\r\n"...)
			for _, result := range v.Verify(t, records, [][]byte{spoilt})[0] {
				if result == "pass" {
					t.Errorf("%s takes a message that was changed", v.Name)
				}
			}
		})
	}
}

func TestPeers_messages(t *testing.T) {
	verifyAll(t, func(t *testing.T, add func(name, message string)) {
		for name, message := range messages() {
			if name != "signed before" { // the signature of others fails
				add(name, message)
			}
		}
		random := rand.New(rand.NewPCG(1, 2))
		for i := range 300 {
			add(fmt.Sprintf("random %d", i), randomMessage(random))
		}
	})
}

// randomMessage has fields that are signed, folded and twice, and all bytes but those that
// verifiers take for blanks although RFC 5234 does not.
func randomMessage(random *rand.Rand) string {
	var b strings.Builder
	ends := []string{"\r", "\r\n", "\n"}
	end := func() {
		n := len(ends)
		if strings.HasSuffix(b.String(), "\r") {
			n-- // an LF would be of the same line end
		}
		b.WriteString(ends[random.IntN(n)])
	}
	text := func(n int) {
		for range random.IntN(n) {
			if c := byte(random.IntN(256)); strings.IndexByte("\r\n\v\f\x1c\x1d\x1e\x1f\x85\xa0", c) < 0 {
				b.WriteByte(c)
			}
			if random.IntN(4) == 0 {
				b.WriteByte(" \t"[random.IntN(2)])
			}
		}
	}
	b.WriteString("From: joe@shop.example")
	end()
	for range random.IntN(12) {
		b.WriteString(signedFields[1+random.IntN(len(signedFields)-1)].name + ":")
		text(30)
		for range random.IntN(3) {
			end()
			b.WriteByte(" \t"[random.IntN(2)])
			text(30)
		}
		end()
	}
	end()
	for range random.IntN(8) {
		text(20)
		end()
		if random.IntN(3) == 0 {
			end()
		}
	}
	return b.String()
}

func TestPeers_everyBody(t *testing.T) {
	verifyAll(t, func(t *testing.T, add func(name, message string)) {
		each(bodyParts, 5, func(body string) { add(fmt.Sprintf("%q", body), from+"\n"+body) })
	})
}

func TestPeers_large(t *testing.T) {
	verifyAll(t, func(t *testing.T, add func(name, message string)) {
		add("small", from+"\nhello\n")
		line := "." + strings.Repeat("x", 900) + "  \ty \n"
		add("50 MB", from+"\n"+strings.Repeat(line, 50<<20/len(line)))
	})
}
