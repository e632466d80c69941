package dns

import (
	"context"
	"encoding/hex"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	miekg "github.com/miekg/dns"
)

// A Probe is one query to one name server, sent in one way. Unlike a lookup it is not tried
// in another way when it fails: it finds out which ways there are.
type Probe struct {
	Server   netip.AddrPort
	Question Question
	TCP      bool
	EDNS     bool          // with EDNS0; never by TCP
	Wait     time.Duration // how long the answer is waited for
}

// Probe sends p. The answer has no more than the first alias, and no Notes. Its Err is nil for
// an answer that is cut, which UDP may give.
func (c *Client) Probe(ctx context.Context, p Probe) *Answer {
	began := c.config.Now()
	l := &lookup{Client: c, answer: &Answer{Question: p.Question}, name: miekg.Fqdn(p.Question.Name)}
	l.probe(ctx, p)
	l.answer.Took = c.config.Now().Sub(began)
	return l.answer
}

func (l *lookup) probe(ctx context.Context, p Probe) {
	a := l.answer
	m, err := l.exchange(ctx, query{server: p.Server, tcp: p.TCP, name: l.name, qtype: p.Question.Type,
		secure: p.Question.Secure, edns: p.EDNS && !p.TCP, wait: p.Wait})
	if err != nil {
		a.Err = err
		return
	}
	a.Server = p.Server
	if m.Truncated && !p.TCP {
		return
	}
	r, err := read(m, l.name, p.Question.Type, 0)
	if err != nil {
		a.Err = err
		return
	}
	a.End, a.Secure = strings.TrimSuffix(r.end, "."), p.Question.Secure && r.secure
	if r.noName {
		a.Err = ErrNoName
	}
	a.take(r.records)
}

// ReverseName is the name whose PTR record says what addr is called (RFC 1035 section 3.5,
// RFC 3596 section 2.5), without the final dot.
func ReverseName(addr netip.Addr) string {
	var labels []string
	if addr = addr.Unmap(); addr.Is4() {
		for _, b := range addr.AsSlice() {
			labels = append(labels, strconv.Itoa(int(b)))
		}
		slices.Reverse(labels)
		return strings.Join(labels, ".") + ".in-addr.arpa"
	}
	for _, digit := range hex.EncodeToString(addr.AsSlice()) {
		labels = append(labels, string(digit))
	}
	slices.Reverse(labels)
	return strings.Join(labels, ".") + ".ip6.arpa"
}
