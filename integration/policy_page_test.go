package integration

import (
	"context"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nightmare.mail/mxf/integration/lab"
	"nightmare.mail/mxf/integration/must"
)

// Setup: one exchanger, whose SMTP server is one of five, and which may take QMTP as well; the trust anchors are the lab's, and the name
// server is trusted.
//
// Test: what comes of a delivery, for settings, records, servers and messages put together by
// chance, against what the manual says about each: letter, TLS, word, verdict, connections.

// A policyCase is one of them.
type policyCase struct {
	strictness int
	line       string // the level and what follows; empty: no line
	records    string // of TLSA
	server     string
	isSecure   bool // the answer about MX
	isWaiver   bool
	isYoung    bool // for control/clearafter
	isChain    bool
	hasQMTP    bool // in the clear, and before SMTP
}

var (
	policyLines   = []string{"", "none", "may", "must", "verify", "pin:GOOD", "pin:OTHER", "dane", "auto", "auto:may", "auto:must", "auto:verify"}
	policyRecords = []string{"none", "match", "mismatch", "unusable", "failed", "insecure"}
	// strange is a certificate that records and pins are about, and trusted one that trust
	// anchors vouch for.
	policyServers = []string{"without", "refuses", "breaks", "strange", "trusted"}
)

func anyOf(r *rand.Rand, list []string) string { return list[r.IntN(len(list))] }

func newPolicyCase(r *rand.Rand) *policyCase {
	return &policyCase{r.IntN(3), anyOf(r, policyLines), anyOf(r, policyRecords), anyOf(r, policyServers),
		r.IntN(2) == 0, r.IntN(4) == 0, r.IntN(2) == 0, r.IntN(4) == 0, r.IntN(4) == 0}
}

// A demanded is what must be of a connection.
type demanded struct {
	isLeft bool   // there must be none
	tls    string // never, offered (at once in the clear otherwise), later (in the clear at last), always
	judge  string // whose verdict counts: anchors, records; empty: nobody's
	word   string
}

// demanded is section 3 of the policies' page, and the table of levels.
func (c *policyCase) demanded() demanded {
	level, floor, _ := strings.Cut(c.line, ":")
	usable := c.records == "match" || c.records == "mismatch"
	switch level {
	case "none":
		return demanded{tls: "never"}
	case "may":
		return demanded{tls: "offered"}
	case "must":
		return demanded{tls: "always", word: "local"}
	case "verify":
		return demanded{tls: "always", judge: "anchors", word: "local"}
	case "pin":
		return demanded{tls: "always", judge: floor, word: "pin"}
	case "dane":
		return demanded{tls: "always", judge: "records", word: "dane", isLeft: !usable || !c.isSecure}
	}
	beneath := []demanded{{tls: "offered"}, {tls: "later"}, {tls: "always", judge: "anchors"}}[c.strictness]
	switch floor {
	case "may":
		beneath = demanded{tls: "offered"}
	case "must":
		beneath = demanded{tls: "always"}
	case "verify":
		beneath = demanded{tls: "always", judge: "anchors"}
	}
	switch {
	case c.records == "none", c.records == "insecure":
		return beneath
	case c.isWaiver:
		beneath.word = "waived"
		return beneath
	case c.records == "failed":
		return demanded{isLeft: true}
	case usable && c.isSecure:
		return demanded{tls: "always", judge: "records", word: "dane"}
	case usable:
		return demanded{tls: "always", judge: "records", word: "half-dane"}
	}
	return demanded{tls: "always", judge: beneath.judge, word: "dane-unusable"}
}

// isQMTP reports whether the message goes by QMTP, which has no TLS.
func (c *policyCase) isQMTP() bool {
	level, _, _ := strings.Cut(c.line, ":")
	published := (level == "" || level == "auto") && !c.isWaiver && c.records != "none" && c.records != "insecure"
	return c.hasQMTP && !published && c.demanded().tls != "always"
}

// isGood reports what a judge says of the server's certificate.
func (c *policyCase) isGood(judge string) bool {
	switch judge {
	case "records":
		return c.server == "strange" && c.records == "match"
	case "GOOD":
		return c.server == "strange"
	case "OTHER":
		return false
	}
	return c.server == "trusted"
}

// expected is the letter, what a message has come in (clear, TLS; empty: there is none), and
// the end of the line on TLS.
func (c *policyCase) expected() (letter byte, in, line string) {
	d := c.demanded()
	hasTLS := c.server == "strange" || c.server == "trusted"
	switch {
	case c.isQMTP():
		return 'K', "clear", ""
	case d.isLeft:
		return 'Z', "", ""
	case d.tls == "never":
		return 'K', "clear", ""
	case hasTLS && d.judge != "" && !c.isGood(d.judge):
		return 'Z', "", ""
	case hasTLS:
		verdict := "unverified"
		if c.isGood(d.judge) {
			verdict = "verified"
		}
		return 'K', "TLS", strings.TrimSuffix(" "+verdict+" mx.example.org "+d.word, " ") + "\n"
	case d.tls == "always", c.isYoung && c.server != "without":
		return 'Z', "", ""
	}
	return 'K', "clear", ""
}

// A policyLab is what all cases share.
type policyLab struct {
	*lab.Lab
	bin, dir      string
	addr          map[string]string // of each server
	digest, other string            // of the strange certificate, and of nobody's
}

func newPolicyLab(t *testing.T) *policyLab {
	l := must.Get(lab.Open(filepath.Join(t.TempDir(), "home")))(t)
	t.Cleanup(func() {
		l.Close()
		must.OK(t, l.Inbox.Wrong())
	})
	const name = "mx.example.org"
	strange := l.Stranger.Leaf(nil, name)
	pair := strange.Pair(l.Stranger)
	sum := sha256.Sum256(strange.Cert.RawSubjectPublicKeyInfo)
	p := &policyLab{l, programs(t), t.TempDir(), make(map[string]string), fmt.Sprintf("%x", sum), strings.Repeat("0", 2*sha256.Size)}
	for i, server := range policyServers {
		config := lab.SMTP{Name: name, TLS: lab.TLS{Certificate: l.Certificate(name)}, Faults: make(lab.Faults)}
		switch server {
		case "without":
			config.TLS.Certificate = nil
		case "refuses":
			config.Faults[lab.STARTTLS] = lab.Fault{Reply: "454 4.7.0 not now"}
		case "breaks":
			config.Faults[lab.Handshake] = lab.Fault{Reply: "rubbish"}
		case "strange":
			config.TLS.Certificate = &pair
		}
		p.addr[server] = fmt.Sprintf("127.0.0.%d", i+2)
		must.Get(l.SMTP(netip.MustParseAddr(p.addr[server]), config))(t)
		must.Get(l.QMTP(netip.MustParseAddr(p.addr[server]), lab.QMTP{Name: name}))(t)
	}
	must.OK(t, l.Home.Trust(l.Authority), l.Home.Set("trustresolvers", l.DNS.Addr()), l.Home.Set("clearafter", "3600"))
	return p
}

// set makes the lab that of a case, and returns the message.
func (p *policyLab) set(t *testing.T, c *policyCase) *os.File {
	t.Helper()
	record := map[string]string{"match": "3 1 1 " + p.digest, "insecure": "3 1 1 " + p.digest, "mismatch": "3 1 1 " + p.other, "unusable": "1 1 1 " + p.digest, "failed": "!SERVFAIL"}[c.records]
	preference := 10
	if c.hasQMTP {
		preference = 12801
	}
	zone := fmt.Sprintf("example.org MX %d mx.example.org\n", preference) + "mx.example.org !SECURE\nmx.example.org A " + p.addr[c.server] + "\n"
	if c.isSecure {
		zone += "example.org !SECURE\n"
	}
	if record != "" {
		zone += fmt.Sprintf("_%d._tcp.mx.example.org TLSA %s\n", p.Port("smtp"), record)
	}
	if c.records == "insecure" {
		zone += "_tcp.mx.example.org !INSECURE\n"
	}
	programs := ""
	if c.isChain {
		programs = p.bin + "/"
	}
	must.OK(t, p.Zone(zone), p.Home.Set("tlsstrictness", fmt.Sprint(c.strictness)),
		p.Home.Set("protocols", fmt.Sprintf("qmtp:%d:1:N:N:%smxf-remote-qmtpc", p.Port("qmtp"), programs),
			fmt.Sprintf("smtp:%d:0:N:Y:%smxf-remote-smtpc", p.Port("smtp"), programs)), p.Home.Remove("tlspolicy"))
	if c.line != "" {
		line := strings.NewReplacer("GOOD", p.digest, "OTHER", p.other).Replace(c.line)
		must.OK(t, p.Home.Set("tlspolicy", "example.org:"+line))
	}
	header, age := "From: a@example.net\n", 2*time.Hour
	if c.isWaiver {
		header += "TLS-Required: No\n"
	}
	if c.isYoung {
		age = time.Minute
	}
	path := filepath.Join(p.dir, "message")
	put(t, path, []byte(header+"\nHello.\n"))
	must.OK(t, os.Chtimes(path, time.Now().Add(-age), time.Now().Add(-age)))
	return must.Open(t, path)
}

func TestPolicy_byChance(t *testing.T) {
	p := newPolicyLab(t)
	seed := uint64(time.Now().UnixNano())
	r := rand.New(rand.NewPCG(seed, 0))
	const cases = 200
	for range cases {
		c := newPolicyCase(r)
		message := p.set(t, c)
		p.Inbox.Empty()
		trace := filepath.Join(p.dir, "trace")
		o := must.Get(lab.Rspawn(context.Background(), lab.Delivery{Program: filepath.Join(p.bin, "mxf-remote"), Dir: p.dir, Message: message,
			Environ: append(p.Environ(), "MXF_TRACE="+trace, "GOCOVERDIR="+coverageIfAny(t)), Host: "example.org", Sender: "a@example.net", Recipients: []string{"b@example.org"}}))(t)
		text := string(must.Get(os.ReadFile(trace))(t))
		must.OK(t, os.Remove(trace), message.Close())
		messages, in := p.Inbox.Messages(), ""
		for _, m := range messages {
			if in = "TLS"; m.Session.TLS() == nil {
				in = "clear"
			}
		}
		letter, wantIn, line := c.expected()
		wrong := o.Letter != letter || in != wantIn || len(messages) > 1 || line != "" && !strings.HasSuffix(o.Text, line) || line == "" && strings.Contains(o.Text, "TLS: ")
		wrong = wrong || letter == 'Z' && !strings.Contains(o.Text, "(#4.7.5)") || (c.demanded().isLeft && !c.isQMTP()) != (len(p.Inbox.Sessions()) == 0)
		if err := kept(text, o, messages); err != nil || wrong {
			t.Fatalf("seed %d, %+v: want %c, in %q, %q; got %c %q, in %q, on %d connections: %v\n%s",
				seed, *c, letter, wantIn, line, o.Letter, o.Text, in, len(p.Inbox.Sessions()), err, text)
		}
	}
}
