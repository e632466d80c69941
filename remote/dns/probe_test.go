package dns_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"nightmare.mail/mxf/remote/dns"
	"nightmare.mail/mxf/remote/dns/dnstest"
)

func TestProbe(t *testing.T) {
	const zone = "good.test. A 192.0.2.1\nlong.test. A 192.0.2.1\n1.2.0.192.in-addr.arpa. PTR good.test.\n"
	for _, test := range []struct {
		name, trouble string
		probe         dns.Probe
		want          string // in the trace line
	}{
		{"udp", "", dns.Probe{}, "192.0.2.1"},
		{"edns", "", dns.Probe{EDNS: true}, "192.0.2.1"},
		{"tcp", "", dns.Probe{TCP: true}, "192.0.2.1"},
		{"no edns", "noedns", dns.Probe{EDNS: true}, "no answer"},
		{"without edns all the same", "noedns", dns.Probe{}, "192.0.2.1"},
		{"edns refused", "formerr", dns.Probe{EDNS: true}, "FORMERR"},
		{"no udp", "noudp", dns.Probe{}, "no answer"},
		{"tcp all the same", "noudp", dns.Probe{TCP: true}, "192.0.2.1"},
		{"no tcp", "notcp", dns.Probe{TCP: true}, "closed"},
		{"servfail", "servfail", dns.Probe{}, "server failure"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := dnstest.New(t, zone, map[string]string{"good.test": test.trouble})
			test.probe.Server, test.probe.Question, test.probe.Wait = s.Addr, dns.Question{Name: "good.test", Type: dns.TypeA}, 10*time.Second
			if strings.HasPrefix(test.want, "no answer") {
				test.probe.Wait = 50 * time.Millisecond
			}
			if got := dns.NewClient(dns.Config{}).Probe(t.Context(), test.probe).String(); !strings.Contains(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestProbeSecure(t *testing.T) {
	s := dnstest.New(t, "good.test. A 192.0.2.1\nplain.test. A 192.0.2.1\n", map[string]string{"plain.test": "insecure"})
	c := dns.NewClient(dns.Config{})
	for name, want := range map[string]bool{"": true, "good.test": true, "plain.test": false} {
		p := dns.Probe{Server: s.Addr, Question: dns.Question{Name: name, Type: dns.TypeSOA, Secure: true}, Wait: 10 * time.Second}
		if a := c.Probe(t.Context(), p); a.Secure != want || a.Err != nil {
			t.Errorf("%q: got %+v", name, a)
		}
	}
}

func TestReverse(t *testing.T) {
	s := dnstest.New(t, "1.2.0.192.in-addr.arpa. PTR Good.test.\n", nil)
	c := dns.NewClient(dns.Config{Servers: []netip.AddrPort{s.Addr}})
	a := c.Lookup(t.Context(), dns.Question{Name: dns.ReverseName(netip.MustParseAddr("::ffff:192.0.2.1")), Type: dns.TypePTR})
	if a.Len() != 1 || a.Record(0) != "Good.test." || a.Err != nil {
		t.Errorf("got %v", a)
	}
	const six = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa"
	if got := dns.ReverseName(netip.MustParseAddr("2001:db8::1")); got != six {
		t.Errorf("got %s", got)
	}
}
