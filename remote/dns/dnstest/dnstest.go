// Package dnstest is a name server for tests, with a literal zone and named troubles.
package dnstest

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// payload is the UDP size that the client announces.
const payload = 1232

// A Server answers from a literal zone on a loopback port, UDP and TCP, as a
// caching server would: it follows aliases as far as it can. To a query with the AD bit it
// says that it has validated the answer, unless that has to do with a name whose trouble is
// "insecure", or with one beneath it.
type Server struct {
	Addr netip.AddrPort

	Queries     atomic.Int32 // all that came
	ByTCP       atomic.Int32
	WithoutEDNS atomic.Int32
	WithAD      atomic.Int32
	Busiest     atomic.Int32 // the most queries that were not answered at one time

	records map[string][]dns.RR // by name in lower case
	trouble map[string]string   // by "TYPE name" or "name" in lower case: what goes wrong there; see ServeDNS
	busy    atomic.Int32

	mu   sync.Mutex
	seen map[string]int // by question
}

// New starts a server for zone, in master file format, relative to the root. It stops when
// the test ends.
func New(t testing.TB, zone string, trouble map[string]string) *Server {
	t.Helper()
	s := &Server{records: map[string][]dns.RR{}, trouble: trouble, seen: map[string]int{}}
	parser := dns.NewZoneParser(strings.NewReader("$TTL 60\n"+zone), ".", "")
	for rr, ok := parser.Next(); ok; rr, ok = parser.Next() {
		name := strings.ToLower(rr.Header().Name)
		s.records[name] = append(s.records[name], rr)
	}
	if err := parser.Err(); err != nil {
		t.Fatal(err)
	}
	s.listen(t)
	return s
}

func (s *Server) listen(t testing.TB) {
	t.Helper()
	var packets net.PacketConn
	var streams net.Listener
	for try := 0; streams == nil; try++ { // a UDP port whose TCP port is free too
		var err error
		if packets, err = net.ListenPacket("udp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		if streams, err = net.Listen("tcp", packets.LocalAddr().String()); err != nil {
			packets.Close()
			if try == 20 {
				t.Fatal(err)
			}
		}
	}
	s.Addr = netip.MustParseAddrPort(packets.LocalAddr().String())
	for _, server := range []*dns.Server{{PacketConn: packets, Handler: s}, {Listener: streams, Handler: s}} {
		started := make(chan struct{})
		server.NotifyStartedFunc = func() { close(started) }
		stopped := make(chan error, 1)
		go func() { stopped <- server.ActivateAndServe() }()
		select {
		case <-started:
		case err := <-stopped:
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = server.Shutdown()
			<-stopped
		})
	}
}

// A counter counts a query as answered before its client can ask the next one.
type counter struct {
	dns.ResponseWriter
	answered func()
}

func (w counter) WriteMsg(m *dns.Msg) error {
	w.answered()
	return w.ResponseWriter.WriteMsg(m)
}

func (w counter) Write(b []byte) (int, error) {
	w.answered()
	return w.ResponseWriter.Write(b)
}

// ServeDNS answers one question; it is miekg/dns's to call.
func (s *Server) ServeDNS(w dns.ResponseWriter, r *dns.Msg) {
	tcp := w.LocalAddr().Network() == "tcp"
	for busy := s.busy.Add(1); ; {
		if most := s.Busiest.Load(); busy <= most || s.Busiest.CompareAndSwap(most, busy) {
			break
		}
	}
	answered := sync.OnceFunc(func() { s.busy.Add(-1) })
	defer answered()
	w = counter{w, answered}
	s.Queries.Add(1)
	if tcp {
		s.ByTCP.Add(1)
	}
	if r.IsEdns0() == nil {
		s.WithoutEDNS.Add(1)
	}
	if r.AuthenticatedData {
		s.WithAD.Add(1)
	}
	q := r.Question[0]
	name := strings.ToLower(strings.TrimSuffix(q.Name, "."))
	key := dns.TypeToString[q.Qtype] + " " + name
	s.mu.Lock()
	s.seen[key]++
	s.mu.Unlock()

	trouble, ok := s.trouble[key]
	if !ok {
		trouble = s.trouble[name]
	}
	m := new(dns.Msg)
	m.SetReply(r)
	m.RecursionAvailable, m.AuthenticatedData = true, r.AuthenticatedData
	switch trouble {
	case "silence":
		return
	case "slow":
		time.Sleep(30 * time.Millisecond)
	case "servfail":
		m.Rcode = dns.RcodeServerFailure
		_ = w.WriteMsg(m)
		return
	case "refused":
		m.Rcode = dns.RcodeRefused
		_ = w.WriteMsg(m)
		return
	case "headerrefused": // as 9.9.9.9 does
		m.Rcode, m.Question = dns.RcodeRefused, nil
		_ = w.WriteMsg(m)
		return
	case "formerr", "notimp":
		if r.IsEdns0() != nil {
			m.Rcode = dns.RcodeFormatError
			if trouble == "notimp" {
				m.Rcode = dns.RcodeNotImplemented
			}
			m.Question = nil
			_ = w.WriteMsg(m)
			return
		}
	case "alwaysformerr":
		m.Rcode = dns.RcodeFormatError
		_ = w.WriteMsg(m)
		return
	case "referral":
		m.RecursionAvailable = false
		m.Ns = []dns.RR{mustRR(". 60 IN NS a.root-servers.net.")}
		_ = w.WriteMsg(m)
		return
	case "mangled", "mangledudp":
		if tcp && trouble == "mangledudp" {
			break
		}
		s.fill(m, q)
		b, _ := m.Pack()
		_, _ = w.Write(b[:len(b)-3])
		return
	case "announces": // more records than there are
		s.fill(m, q)
		b, _ := m.Pack()
		b[7]++
		_, _ = w.Write(b)
		return
	case "announcesauthority":
		b, _ := m.Pack()
		b[9]++
		_, _ = w.Write(b)
		return
	case "bare": // a record without data
		m.Answer = []dns.RR{&dns.RFC3597{Hdr: dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET, Ttl: 60}}}
		_ = w.WriteMsg(m)
		return
	case "overlong": // all of it, however long, without TC
		if tcp {
			break
		}
		s.fill(m, q)
		m.Answer = m.Answer[:len(m.Answer)-1] // and yet not all of it
		_ = w.WriteMsg(m)
		return
	case "cut": // by TCP too
		s.fill(m, q)
		m.Answer, m.Truncated = m.Answer[:min(1, len(m.Answer))], true
		_ = w.WriteMsg(m)
		return
	case "lame": // neither looks names up nor is in charge
		m.RecursionAvailable = false
		_ = w.WriteMsg(m)
		return
	case "lamenxdomain":
		m.RecursionAvailable, m.Rcode = false, dns.RcodeNameError
		_ = w.WriteMsg(m)
		return
	case "tiny": // less than a TLSA record has
		m.Answer = []dns.RR{&dns.RFC3597{Hdr: dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET, Ttl: 60}, Rdata: "0301"}}
		_ = w.WriteMsg(m)
		return
	case "soa": // no RA, no AA, but the zone's SOA
		m.RecursionAvailable = false
		m.Ns = []dns.RR{mustRR("test. 60 IN SOA ns. hostmaster. 1 2 3 4 5")}
		_ = w.WriteMsg(m)
		return
	case "authority":
		m.RecursionAvailable, m.Authoritative = false, true
		_ = w.WriteMsg(m)
		return
	case "others": // records of somebody else
		m.Answer = []dns.RR{mustRR("other.test. 60 IN A 192.0.2.66"), mustRR("other.test. 60 IN MX 1 evil.example.")}
		_ = w.WriteMsg(m)
		return
	case "othertypes":
		m.Answer = []dns.RR{mustRR(q.Name + " 60 IN TXT x")}
		_ = w.WriteMsg(m)
		return
	case "deniedwithrecords":
		s.fill(m, q)
		m.Rcode = dns.RcodeNameError
		_ = w.WriteMsg(m)
		return
	case "nxdomain": // as a resolver that knows no MX denies
		m.Rcode = dns.RcodeNameError
		_ = w.WriteMsg(m)
		return
	case "aliasdenied": // the alias exists all the same
		for _, rr := range s.records[strings.ToLower(q.Name)] {
			if rr.Header().Rrtype == dns.TypeCNAME {
				m.Answer, m.Rcode = []dns.RR{rr}, dns.RcodeNameError
				_ = w.WriteMsg(m)
				return
			}
		}
	case "noedns": // a firewall
		if r.IsEdns0() != nil {
			return
		}
	case "nolarge": // another one
		s.fill(m, q)
		if !tcp && r.IsEdns0() != nil && m.Len() > dns.MinMsgSize {
			return
		}
		m.Answer, m.Ns = nil, nil
	case "ednsservfail", "ednsrefused", "ednsbadvers":
		if r.IsEdns0() != nil {
			m.Rcode = map[string]int{"ednsservfail": dns.RcodeServerFailure, "ednsrefused": dns.RcodeRefused, "ednsbadvers": dns.RcodeBadVers}[trouble]
			if m.Rcode == dns.RcodeBadVers {
				m.SetEdns0(payload, false)
			}
			_ = w.WriteMsg(m)
			return
		}
	case "noudp":
		if !tcp {
			return
		}
	case "strays":
		s.strays(w, r)
	case "notcp":
		if tcp {
			w.Close()
			return
		}
	case "onealias":
		for _, rr := range s.records[strings.ToLower(q.Name)] {
			if rr.Header().Rrtype == dns.TypeCNAME {
				m.Answer = []dns.RR{rr}
				_ = w.WriteMsg(m)
				return
			}
		}
	case "insecure": // see fill
	case "boasts": // that it has validated what nobody asked about
		m.AuthenticatedData = true
	case "uppercase":
		m.Question[0].Name = strings.ToUpper(m.Question[0].Name)
	case "":
	default:
		panic(fmt.Sprintf("the test asks for unknown trouble %q", trouble))
	}
	s.fill(m, q)
	m.Compress = true
	if !tcp {
		size := dns.MinMsgSize
		if opt := r.IsEdns0(); opt != nil {
			size = int(opt.UDPSize())
		}
		m.Truncate(size)
	}
	_ = w.WriteMsg(m)
}

// Questions returns how often each was asked.
func (s *Server) Questions() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.seen)
}

// fill answers q from the zone.
func (s *Server) fill(m *dns.Msg, q dns.Question) {
	name := strings.ToLower(q.Name)
	soa := mustRR(". 60 IN SOA ns. hostmaster. 1 2 3 4 5")
	for range 20 {
		if s.isInsecure(q.Qtype, name) {
			m.AuthenticatedData = false
		}
		alias := ""
		for _, rr := range s.records[name] {
			if rr.Header().Rrtype == q.Qtype {
				m.Answer = append(m.Answer, rr)
			} else if cname, ok := rr.(*dns.CNAME); ok && q.Qtype != dns.TypeCNAME {
				m.Answer = append(m.Answer, rr)
				alias = strings.ToLower(cname.Target)
			}
		}
		if alias == "" {
			break
		}
		name = alias
	}
	if len(m.Answer) == 0 || m.Answer[len(m.Answer)-1].Header().Rrtype != q.Qtype {
		m.Ns = []dns.RR{soa}
	}
	if !s.exists(name) {
		m.Rcode = dns.RcodeNameError
	}
}

// isInsecure reports whether an answer about name has no signatures.
func (s *Server) isInsecure(qtype uint16, name string) bool {
	name = strings.TrimSuffix(name, ".")
	insecure := s.trouble[dns.TypeToString[qtype]+" "+name] == "insecure"
	for rest, more := name, true; more && !insecure; _, rest, more = strings.Cut(rest, ".") {
		insecure = s.trouble[rest] == "insecure"
	}
	return insecure
}

// exists reports whether there is a record at or below name.
func (s *Server) exists(name string) bool {
	for n := range s.records {
		if dns.IsSubDomain(name, n) {
			return true
		}
	}
	return false
}

// strays sends what is not the answer to r but comes to its port.
func (s *Server) strays(w dns.ResponseWriter, r *dns.Msg) {
	forged := func(change func(m *dns.Msg)) {
		m := new(dns.Msg)
		m.SetReply(r)
		m.Answer = []dns.RR{
			mustRR(r.Question[0].Name + " 60 IN A 192.0.2.66"),
			mustRR(r.Question[0].Name + " 60 IN MX 1 evil.example."),
		}
		change(m)
		_ = w.WriteMsg(m)
	}
	forged(func(m *dns.Msg) { m.Id++ })
	forged(func(m *dns.Msg) { m.Response = false })
	forged(func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify })
	forged(func(m *dns.Msg) { m.Question[0].Name = "other.example." })
	forged(func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeTXT })
	forged(func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS })
	forged(func(m *dns.Msg) { m.Question = nil })
	forged(func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) })
	_, _ = w.Write([]byte("x"))
	_, _ = w.Write(nil)
}

func mustRR(text string) dns.RR {
	rr, err := dns.NewRR(text)
	if err != nil {
		panic(err)
	}
	return rr
}

// Silent is an address from which no answer comes.
func Silent(t testing.TB) netip.AddrPort {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return netip.MustParseAddrPort(conn.LocalAddr().String())
}

// Closed is an address at which nobody listens.
func Closed(t testing.TB) netip.AddrPort {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return netip.MustParseAddrPort(conn.LocalAddr().String())
}

// Many returns the records of n different numbers: format has two gaps, for n / 256 and the
// rest.
func Many(n int, format string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, format+"\n", i/256, i%256)
	}
	return b.String()
}
