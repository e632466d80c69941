package check

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"time"

	"nightmare.mail/mxf/remote/dns"
)

// A server is a name server, as it answered the one question and the other.
type server struct {
	addr           netip.AddrPort
	udp, edns, tcp *dns.Answer // nil: not asked so
	bogus          *dns.Answer // of a name whose signature is broken; nil: not asked
}

// answers reports whether it answered in some way.
func (s server) answers() bool {
	return slices.ContainsFunc([]*dns.Answer{s.udp, s.edns, s.tcp}, func(a *dns.Answer) bool { return a != nil && !a.Failed() })
}

// root is what every name server has an answer to.
func (l *look) root() dns.Question {
	return dns.Question{Type: dns.TypeSOA, Secure: len(l.settings.TrustResolvers) > 0}
}

// askServers asks each name server, all at once.
func (l *look) askServers(ctx context.Context) {
	if l.ServersErr != nil {
		return
	}
	l.waitFor("%s", plural(len(l.Servers.Servers), "name server", "name servers"))
	client := dns.NewClient(l.Servers)
	l.servers = make([]server, len(l.Servers.Servers))
	var all sync.WaitGroup
	for i, addr := range l.Servers.Servers {
		s := &l.servers[i]
		s.addr = addr
		probe := func(to **dns.Answer, q dns.Question, tcp, edns bool) {
			all.Go(func() {
				*to = client.Probe(ctx, dns.Probe{Server: addr, Question: q, TCP: tcp, EDNS: edns, Wait: l.Patience})
			})
		}
		probe(&s.tcp, l.root(), true, false)
		if !l.Servers.TCP {
			probe(&s.udp, l.root(), false, false)
			probe(&s.edns, l.root(), false, true)
		}
		if l.root().Secure {
			probe(&s.bogus, dns.Question{Name: l.BogusName, Type: dns.TypeA, Secure: true}, l.Servers.TCP, !l.Servers.TCP)
		}
	}
	all.Wait()
}

// resolvers says how each name server answered.
func (l *look) resolvers(context.Context) {
	if l.ServersErr != nil {
		l.fail("", 0, "correct it, or name the servers in control/trustresolvers or $DNSCACHEIP", "the name servers are not known: %v", l.ServersErr)
		return
	}
	if l.Servers.Guess != "" {
		l.warn("", 0, "name the servers in /etc/resolv.conf, $DNSCACHEIP or control/trustresolvers", "no name server is named: %s", l.Servers.Guess)
	}
	for i := range l.servers {
		l.server(&l.servers[i])
	}
	if !l.canAsk() {
		l.fail(l.serversFile(), 0, "start a name server, or name one that answers", "no name server answers: all mail waits, and names were not looked up here")
	}
}

// serversFile is the file that names the servers, if it is one of ours.
func (l *look) serversFile() string {
	if len(l.settings.TrustResolvers) > 0 {
		return "control/trustresolvers"
	}
	return ""
}

func (l *look) server(s *server) {
	file := l.serversFile()
	source := cmp.Or(l.Servers.Source, "its place")
	firewall := "see whether a firewall stands in the way, or name another server in " + source
	udpWorks := s.udp != nil && !s.udp.Failed()
	switch {
	case !s.answers():
		l.warn(file, 0, "start it, or name another one in "+source, "the name server %s does not answer: %v", s.addr, s.tcp.Err)
		return
	case s.udp != nil && !udpWorks && s.edns.Failed():
		l.warn(file, 0, firewall, "the name server %s does not answer by UDP: %v", s.addr, s.udp.Err)
	case s.udp != nil && s.edns.Failed():
		l.warn(file, 0, firewall, "the name server %s does not answer with EDNS0, which costs time: %v", s.addr, s.edns.Err)
	case s.tcp.Failed():
		l.warn(file, 0, firewall, "the name server %s does not answer by TCP, so long answers are not had: %v", s.addr, s.tcp.Err)
	case s.udp == nil:
		l.ok(file, 0, "the name server %s answers by TCP (%d ms)", s.addr, s.tcp.Took.Milliseconds())
	default:
		l.ok(file, 0, "the name server %s answers by UDP (%d ms), with EDNS0 and by TCP (%d ms)", s.addr, s.edns.Took.Milliseconds(), s.tcp.Took.Milliseconds())
	}
	if s.bogus != nil {
		l.validates(s)
	}
}

// validates looks at a server whose word on DNSSEC counts.
func (l *look) validates(s *server) {
	const file, do = "control/trustresolvers", "name a server that validates (INSTALL.md, section 12)"
	signed := slices.ContainsFunc([]*dns.Answer{s.udp, s.edns, s.tcp}, func(a *dns.Answer) bool { return a != nil && a.Secure })
	switch {
	case !signed:
		l.fail(file, 0, do, "the name server %s does not validate: it does not set AD for the SOA record of the root, so there is no DANE", s.addr)
	case !s.bogus.Failed() && s.bogus.Len() > 0:
		l.fail(file, 0, do, "the name server %s does not validate: it has addresses of %s, whose signature is broken", s.addr, l.BogusName)
	case !s.bogus.Failed():
		l.note(file, 0, "whether the name server %s validates is not sure: it knows no addresses of %s, by whose broken signature one could tell", s.addr, l.BogusName)
	case isTimeout(s.bogus.Err):
		l.note(file, 0, "whether the name server %s validates is not sure: it did not answer for %s in %s", s.addr, l.BogusName, l.Patience.Round(time.Second))
	default:
		l.ok(file, 0, "the name server %s validates: AD for the SOA record of the root, no answer for %s, whose signature is broken", s.addr, l.BogusName)
	}
	if !s.addr.Addr().IsLoopback() {
		l.note(file, 0, "the name server %s is not on this host: its word counts only if nobody else can write on the path to it", s.addr)
	}
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}
