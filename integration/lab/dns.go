package lab

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// DNS is a name server that answers from a zone, over UDP and TCP on one port of
// 127.0.0.1.
type DNS struct {
	zone    atomic.Pointer[Zone]
	addr    string
	servers [2]*dns.Server
	serving sync.WaitGroup
	done    chan struct{}

	mu      sync.Mutex
	queries []Query
}

// A Query is a question that a name server was asked, and how it went.
type Query struct {
	Name   string // lower case, without the final dot
	Type   string // MX
	Net    string // udp or tcp
	Answer string // for a person: the records' data, or the failure
}

// StartDNS starts a name server for zone; nil is an empty one.
func StartDNS(zone *Zone) (*DNS, error) {
	if zone == nil {
		zone = &Zone{}
	}
	var last error
	for range portTries {
		d, err := startDNS(zone)
		if err == nil {
			return d, nil
		}
		last = err
	}
	return nil, fmt.Errorf("no port is free for both UDP and TCP: %w", last)
}

func startDNS(zone *Zone) (*DNS, error) {
	packets, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", packets.LocalAddr().String())
	if err != nil {
		packets.Close()
		return nil, err
	}
	d := &DNS{addr: packets.LocalAddr().String(), done: make(chan struct{})}
	d.zone.Store(zone)
	d.servers = [2]*dns.Server{
		{PacketConn: packets, Handler: d, UDPSize: dns.MaxMsgSize},
		{Listener: listener, Handler: d},
	}
	for _, s := range d.servers {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		d.serving.Go(func() { s.ActivateAndServe() })
		<-started
	}
	return d, nil
}

// Addr returns the address and port, fit for $DNSCACHEIP.
func (d *DNS) Addr() string { return d.addr }

// Use makes zone the one that is answered from.
func (d *DNS) Use(zone *Zone) { d.zone.Store(zone) }

// Queries returns the questions so far.
func (d *DNS) Queries() []Query {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]Query(nil), d.queries...)
}

// Rewind forgets the questions from the n-th on, counted from 0.
func (d *DNS) Rewind(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.queries = d.queries[:n]
}

// Close stops the server.
func (d *DNS) Close() error {
	close(d.done)
	var errs []error
	for _, s := range d.servers {
		errs = append(errs, s.Shutdown())
	}
	d.serving.Wait()
	return errors.Join(errs...)
}

// ServeDNS answers one question; it is miekg/dns's to call.
func (d *DNS) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	if len(q.Question) != 1 {
		return
	}
	zone, question := d.zone.Load(), q.Question[0]
	owner := strings.ToLower(question.Name)
	f := zone.failure(owner, question.Qtype)
	m := reply(zone, q, f, network(w))
	if lost(f, q, m, network(w)) {
		f = TIMEOUT
	}
	d.note(question, network(w), m, f)
	switch f {
	case TIMEOUT:
		return
	case SLOW:
		select {
		case <-time.After(slowAnswer):
		case <-d.done:
			return
		}
	case WRONGID:
		wrong := m.Copy()
		wrong.Id++
		w.WriteMsg(wrong)
	case WRONGQUESTION:
		wrong := m.Copy()
		wrong.Question[0].Name = "wrong.example."
		wrong.Answer = nil
		w.WriteMsg(wrong)
	}
	w.WriteMsg(m)
}

// lost reports whether question or answer do not get through a firewall.
func lost(f Failure, q, m *dns.Msg, network string) bool {
	switch f {
	case EDNSLOST:
		return q.IsEdns0() != nil
	case LARGELOST:
		return network == "udp" && m.Len() > dns.MinMsgSize
	case UDPLOST:
		return network == "udp"
	}
	return false
}

func network(w dns.ResponseWriter) string { return w.LocalAddr().Network() }

func reply(zone *Zone, q *dns.Msg, f Failure, network string) *dns.Msg {
	m := new(dns.Msg)
	m.SetReply(q)
	m.RecursionAvailable = true
	opt := q.IsEdns0()
	size := dns.MinMsgSize
	if opt != nil {
		size = max(size, int(opt.UDPSize()))
		m.SetEdns0(opt.UDPSize(), false)
	}
	question := q.Question[0]
	owner := strings.ToLower(question.Name)
	switch f {
	case NXDOMAIN:
		m.Rcode, m.AuthenticatedData = dns.RcodeNameError, q.AuthenticatedData && zone.isSigned(owner)
		return m
	case SERVFAIL:
		m.Rcode = dns.RcodeServerFailure
		return m
	case REFUSED:
		m.Rcode = dns.RcodeRefused
		return m
	case NODATA:
		m.AuthenticatedData = q.AuthenticatedData && zone.isSigned(owner)
		return m
	case LAME:
		m.RecursionAvailable = false
		return m
	case CUT:
		m.Truncated = true
		return m
	case OTHERS:
		m.Answer = []dns.RR{&dns.A{
			Hdr: dns.RR_Header{Name: "other.example.", Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60},
			A:   net.IPv4(127, 0, 0, 66),
		}}
		return m
	case NOEDNS:
		if opt != nil {
			m.Rcode, m.Extra = dns.RcodeFormatError, nil
			return m
		}
	case TRUNCATED:
		if network == "udp" {
			m.Truncated = true
			return m
		}
	}
	records, exists := zone.answer(owner, question.Qtype)
	m.Answer = records
	m.AuthenticatedData = q.AuthenticatedData && zone.isValidated(owner, question.Qtype, records)
	if !exists || f == CONTRARY {
		m.Rcode = dns.RcodeNameError
	}
	if len(records) == 0 {
		m.Ns = zone.authority(owner)
	}
	if network == "udp" {
		m.Truncate(size)
	}
	return m
}

func (d *DNS) note(q dns.Question, network string, m *dns.Msg, f Failure) {
	query := Query{
		Name:   strings.TrimSuffix(strings.ToLower(q.Name), "."),
		Type:   dns.TypeToString[q.Qtype],
		Net:    network,
		Answer: describe(m),
	}
	if f == TIMEOUT {
		query.Answer = "left without an answer"
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.queries = append(d.queries, query)
}

func describe(m *dns.Msg) string {
	switch {
	case m.Rcode == dns.RcodeNameError:
		return "no such name"
	case m.Rcode != dns.RcodeSuccess:
		return dns.RcodeToString[m.Rcode]
	case m.Truncated:
		return "truncated"
	case len(m.Answer) == 0:
		return "none"
	}
	var data []string
	for _, rr := range m.Answer {
		data = append(data, strings.TrimSuffix(strings.TrimPrefix(rr.String(), rr.Header().String()), "."))
	}
	return strings.Join(data, ", ")
}
