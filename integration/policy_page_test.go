package integration

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"io"
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

// Setup: two exchangers, each with a server of SMTP that is one of five, and perhaps one of QMTP; the
// trust anchors are the lab's, and the name server is trusted.
//
// Test: what comes of a delivery, for settings, records, servers and messages put together by
// chance, against what the manual says about each: letter, exchanger, TLS, word, verdict.

// A policyCase is one of them.
type policyCase struct {
	strictness int
	isSecure   bool // the answer about MX
	isWaiver   bool
	isYoung    bool // for control/clearafter
	isChain    bool
	hasQMTP    bool // in the clear, and before SMTP
	exchangers [2]policyExchanger
}

// A policyExchanger is one exchanger, and what is known of it.
type policyExchanger struct {
	line    string // the level and what follows; empty: no line
	records string // of TLSA
	server  string
}

var (
	policyLines   = []string{"", "", "", "none", "may", "must", "verify", "pin:GOOD", "pin:OTHER", "dane", "auto", "auto:may", "auto:must", "auto:verify"}
	policyRecords = []string{"none", "match", "mismatch", "unusable", "failed", "insecure"}
	// strange is a certificate that records and pins are about, and trusted one that trust
	// anchors vouch for.
	policyServers = []string{"without", "refuses", "breaks", "strange", "trusted"}
)

func newPolicyCase(r *rand.Rand) *policyCase {
	c := &policyCase{strictness: r.IntN(3), isSecure: r.IntN(2) == 0, isWaiver: r.IntN(4) == 0, isYoung: r.IntN(2) == 0,
		isChain: r.IntN(4) == 0, hasQMTP: r.IntN(4) == 0}
	anyOf := func(list []string) string { return list[r.IntN(len(list))] }
	for i := range c.exchangers {
		c.exchangers[i] = policyExchanger{anyOf(policyLines), anyOf(policyRecords), anyOf(policyServers)}
	}
	return c
}

// A demanded is what must be of a connection.
type demanded struct {
	isLeft bool   // there must be none
	tls    string // never, offered (at once in the clear otherwise), later (in the clear at last), always
	judge  string // whose verdict counts: records, GOOD, OTHER (pins); empty and anchors: trust anchors, the first without enforcing it
	word   string
}

// demanded is section 3 of the policies' page, and the table of levels.
func (c *policyCase) demanded(e *policyExchanger) demanded {
	level, more, _ := strings.Cut(e.line, ":")
	usable := e.records == "match" || e.records == "mismatch"
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
		return demanded{tls: "always", judge: more, word: "pin"}
	case "dane":
		return demanded{tls: "always", judge: "records", word: "dane", isLeft: !usable || !c.isSecure}
	}
	beneath := []demanded{{tls: "offered"}, {tls: "later"}, {tls: "always", judge: "anchors"}}[c.strictness]
	switch more {
	case "may":
		beneath = demanded{tls: "offered"}
	case "must":
		beneath = demanded{tls: "always"}
	case "verify":
		beneath = demanded{tls: "always", judge: "anchors"}
	}
	switch {
	case !e.publishes():
		return beneath
	case c.isWaiver:
		beneath.word = "waived"
		return beneath
	case e.records == "failed":
		return demanded{tls: "always", isLeft: true}
	case usable && c.isSecure:
		return demanded{tls: "always", judge: "records", word: "dane"}
	case usable:
		return demanded{tls: "always", judge: "records", word: "half-dane"}
	}
	return demanded{tls: "always", judge: beneath.judge, word: "dane-unusable"}
}

// publishes reports whether there are secure records, or nobody knows.
func (e *policyExchanger) publishes() bool { return e.records != "none" && e.records != "insecure" }

// isGood reports what a judge says of the server's certificate.
func (e *policyExchanger) isGood(judge string) bool {
	switch judge {
	case "records":
		return e.server == "strange" && e.records == "match"
	case "GOOD":
		return e.server == "strange"
	case "OTHER":
		return false
	}
	return e.server == "trusted"
}

// A came is where, and how, a message has come. The zero came is: not at all.
type came struct {
	to   string // 1 or 2
	in   string // clear, TLS
	line string // the end of the line on TLS
}

// first is what comes of exchanger e in the first pass, and whether clear text is for the second.
func (c *policyCase) first(e *policyExchanger) (arrives came, waits bool) {
	d := c.demanded(e)
	clear := came{in: "clear"}
	hasTLS := e.server == "strange" || e.server == "trusted"
	switch {
	case c.hasQMTP && d.tls != "always":
		return clear, false // what is published has it always
	case d.isLeft:
		return came{}, false
	case d.tls == "never":
		return clear, false
	case hasTLS && d.judge != "" && !e.isGood(d.judge):
		return came{}, false
	case hasTLS:
		verdict := "unverified"
		if e.isGood(d.judge) {
			verdict = "verified"
		}
		return came{in: "TLS", line: strings.TrimSuffix(verdict+" NAME "+d.word, " ") + "\n"}, false
	case d.tls == "always", c.isYoung && e.server != "without":
		return came{}, false
	}
	if d.tls == "later" {
		return came{}, true
	}
	return clear, false
}

// expected is what comes of the delivery.
func (c *policyCase) expected() came {
	var second came
	for i := range c.exchangers {
		arrives, waits := c.first(&c.exchangers[i])
		name := fmt.Sprintf("mx%d.example.org", i+1)
		switch {
		case arrives.in != "":
			return came{name, arrives.in, strings.ReplaceAll(arrives.line, "NAME", name)}
		case waits && second.in == "":
			second = came{to: name, in: "clear"}
		}
	}
	return second
}

// A policyLab is what all cases share.
type policyLab struct {
	*lab.Lab
	bin, dir         string
	strange, trusted [2]tls.Certificate
	digest, other    string // of the key of the strange certificates, and of nobody's
}

func newPolicyLab(t *testing.T) *policyLab {
	l := must.Get(lab.Open(filepath.Join(t.TempDir(), "home")))(t)
	t.Cleanup(func() {
		l.Close()
		must.OK(t, l.Inbox.Wrong())
	})
	p := &policyLab{Lab: l, bin: programs(t), dir: t.TempDir(), other: strings.Repeat("0", 2*sha256.Size)}
	leaf := l.Stranger.Leaf(nil, "mx1.example.org", "mx2.example.org")
	p.digest = fmt.Sprintf("%x", sha256.Sum256(leaf.Cert.RawSubjectPublicKeyInfo))
	for i := range p.strange {
		p.strange[i], p.trusted[i] = leaf.Pair(l.Stranger), *l.Certificate(fmt.Sprintf("mx%d.example.org", i+1))
	}
	must.OK(t, l.Home.Trust(l.Authority), l.Home.Set("trustresolvers", l.DNS.Addr()), l.Home.Set("clearafter", "3600"))
	return p
}

// serve starts the servers of a case.
func (p *policyLab) serve(t *testing.T, c *policyCase) (servers []io.Closer) {
	t.Helper()
	for i := range c.exchangers {
		name, addr := fmt.Sprintf("mx%d.example.org", i+1), netip.AddrFrom4([4]byte{127, 0, 0, byte(i + 2)})
		config := lab.SMTP{Name: name, TLS: lab.TLS{Certificate: &p.trusted[i]}, Faults: make(lab.Faults)}
		switch c.exchangers[i].server {
		case "without":
			config.TLS.Certificate = nil
		case "refuses":
			config.Faults[lab.STARTTLS] = lab.Fault{Reply: "454 4.7.0 not now"}
		case "breaks":
			config.Faults[lab.Handshake] = lab.Fault{Reply: "rubbish"}
		case "strange":
			config.TLS.Certificate = &p.strange[i]
		}
		servers = append(servers, must.Get(p.SMTP(addr, config))(t), must.Get(p.QMTP(addr, lab.QMTP{Name: name}))(t))
	}
	return servers
}

// set makes the settings and the zone those of a case.
func (p *policyLab) set(t *testing.T, c *policyCase) {
	t.Helper()
	zone := ""
	if c.isSecure {
		zone += "example.org !SECURE\n"
	}
	records := map[string]string{"match": "3 1 1 " + p.digest, "insecure": "3 1 1 " + p.digest, "mismatch": "3 1 1 " + p.other, "unusable": "1 1 1 " + p.digest, "failed": "!SERVFAIL"}
	var lines []string
	for i, e := range c.exchangers {
		name, preference := fmt.Sprintf("mx%d.example.org", i+1), 10+i
		if c.hasQMTP {
			preference = 12801 + 16*i
		}
		zone += fmt.Sprintf("example.org MX %d %s\n%s !SECURE\n%s A 127.0.0.%d\n", preference, name, name, name, i+2)
		if record := records[e.records]; record != "" {
			zone += fmt.Sprintf("_%d._tcp.%s TLSA %s\n", p.Port("smtp"), name, record)
		}
		if e.records == "insecure" {
			zone += "_tcp." + name + " !INSECURE\n"
		}
		if e.line != "" {
			lines = append(lines, "@"+name+":"+strings.NewReplacer("GOOD", p.digest, "OTHER", p.other).Replace(e.line))
		}
	}
	folder := ""
	if c.isChain {
		folder = p.bin + "/"
	}
	must.OK(t, p.Zone(zone), p.Home.Set("tlsstrictness", fmt.Sprint(c.strictness)), p.Home.Set("tlspolicy", lines...),
		p.Home.Set("protocols", fmt.Sprintf("qmtp:%d:1:N:N:%smxf-remote-qmtpc", p.Port("qmtp"), folder), fmt.Sprintf("smtp:%d:0:N:Y:%smxf-remote-smtpc", p.Port("smtp"), folder)))
}

// message returns the message of a case.
func (p *policyLab) message(t *testing.T, c *policyCase) *os.File {
	t.Helper()
	header, age := "From: a@example.net\n", 2*time.Hour
	if c.isWaiver {
		header += "TLS-Required: No\n"
	}
	if c.isYoung {
		age = time.Minute
	}
	path, at := filepath.Join(p.dir, "message"), time.Now().Add(-age)
	put(t, path, []byte(header+"\nHello.\n"))
	must.OK(t, os.Chtimes(path, at, at))
	return must.Open(t, path)
}

func TestPolicy_byChance(t *testing.T) {
	p := newPolicyLab(t)
	seed := uint64(time.Now().UnixNano())
	r := rand.New(rand.NewPCG(seed, 0))
	const cases = 200
	for range cases {
		c := newPolicyCase(r)
		p.set(t, c)
		servers, message, trace := p.serve(t, c), p.message(t, c), filepath.Join(p.dir, "trace")
		p.Inbox.Empty()
		o := must.Get(lab.Rspawn(context.Background(), lab.Delivery{Program: filepath.Join(p.bin, "mxf-remote"), Dir: p.dir, Message: message,
			Environ: append(p.Environ(), "MXF_TRACE="+trace, "GOCOVERDIR="+coverageIfAny(t)), Host: "example.org", Sender: "a@example.net", Recipients: []string{"b@example.org"}}))(t)
		for _, server := range servers {
			must.OK(t, server.Close())
		}
		text := string(must.Get(os.ReadFile(trace))(t))
		must.OK(t, os.Remove(trace), message.Close())

		messages, want := p.Inbox.Messages(), c.expected()
		got, letter := came{}, byte('Z')
		for _, m := range messages {
			if got = (came{m.Session.Server, "TLS", want.line}); m.Session.TLS() == nil {
				got.in = "clear"
			}
			letter = 'K'
		}
		wrong := got != want || o.Letter != letter || len(messages) > 1 || !strings.HasSuffix(o.Text, want.line) ||
			want.line == "" && strings.Contains(o.Text, "TLS: ") || letter == 'Z' && !strings.Contains(o.Text, "(#4.7.5)")
		for _, s := range p.Inbox.Sessions() {
			i := int(s.Local.Addr().As4()[3] - 2)
			wrong = wrong || s.Protocol == "smtp" && c.demanded(&c.exchangers[i]).isLeft
		}
		if err := kept(text, o, messages); err != nil || wrong {
			t.Fatalf("seed %d, %+v: want %+v; got %c %q, %+v: %v\n%s", seed, *c, want, o.Letter, o.Text, got, err, text)
		}
	}
}
