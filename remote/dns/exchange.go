package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"

	miekg "github.com/miekg/dns"
)

const (
	// payload is the UDP size announced with EDNS0: the largest that is never
	// fragmented on its way (DNS flag day 2020).
	payload = 1232
	// maxDatagram is more than a server may send by UDP, so that it is noticed.
	maxDatagram = 4096
	// maxStrays bounds the stray datagrams read for one query, so that a flood of them does
	// not keep a processor busy.
	maxStrays = 1000
	// leastTCP is the time that a query by TCP has at least: it takes two round
	// trips, and the server has the answer already.
	leastTCP = 5 * time.Second
	// leastTLSA is the size of a TLSA record without data, in bytes (RFC 6698 section 2.1).
	// The library takes less than that for zeros.
	leastTLSA = 3
)

// A query is one message to one server.
type query struct {
	server netip.AddrPort
	tcp    bool
	name   string // with the final dot
	qtype  Type
	secure bool // the server is asked to say whether it has validated the answer
	edns   bool // sent with EDNS0
	wait   time.Duration
}

// askServer asks one server, by UDP with EDNS0, again without it if the server may not
// know what that is, and by TCP if the answer does not fit, or cannot be used.
func (l *lookup) askServer(ctx context.Context, server int, edns bool, wait time.Duration) (*reading, error) {
	q := query{server: l.config.Servers[server], name: l.name, qtype: l.answer.Question.Type, secure: l.answer.Question.Secure, wait: wait}
	var m *miekg.Msg
	var err error
	if l.config.TCP {
		m, err = l.exchangeTCP(ctx, q)
	} else {
		q.edns = edns && l.mayUseEDNS(server)
		if m, err = l.exchangeUDP(ctx, server, q); wantsTCP(m, err) {
			reason := "a truncated answer"
			var unusable unusableMessage
			if errors.As(err, &unusable) {
				reason = string(unusable)
			}
			if m, err = l.exchangeTCP(ctx, q); err != nil {
				err = fmt.Errorf("by TCP after %s: %w", reason, err)
			}
		}
	}
	if err != nil {
		return nil, err
	}
	return read(m, q.name, q.qtype, l.aliases)
}

func wantsTCP(m *miekg.Msg, err error) bool {
	return errors.As(err, new(unusableMessage)) || err == nil && m.Truncated
}

func (l *lookup) exchangeTCP(ctx context.Context, q query) (*miekg.Msg, error) {
	q.tcp, q.edns, q.wait = true, false, max(q.wait, leastTCP)
	return l.exchange(ctx, q)
}

// exchangeUDP sends q, and once more without EDNS0 if the server seems to refuse that.
func (l *lookup) exchangeUDP(ctx context.Context, server int, q query) (*miekg.Msg, error) {
	m, err := l.exchange(ctx, q)
	if err != nil || !q.edns || !mayRefuseEDNS(m.Rcode) {
		return m, err
	}
	q.edns = false
	again, err := l.exchange(ctx, q)
	if err != nil && !refusesEDNS(m.Rcode) {
		return m, nil
	}
	// It was EDNS0 that the server refused if the query without it succeeds.
	if err == nil && refusesEDNS(m.Rcode) && !mayRefuseEDNS(again.Rcode) {
		l.stopEDNS(server)
	}
	return again, err
}

// refusesEDNS reports whether rcode is the answer of a server that knows no EDNS0
// (RFC 6891 section 7); mayRefuseEDNS, of one that may just not say so.
func refusesEDNS(rcode int) bool {
	return rcode == miekg.RcodeFormatError || rcode == miekg.RcodeNotImplemented || rcode == miekg.RcodeBadVers
}

func mayRefuseEDNS(rcode int) bool {
	return refusesEDNS(rcode) || rcode == miekg.RcodeServerFailure || rcode == miekg.RcodeRefused
}

// An unusableMessage has come by UDP, and TCP may have a better one.
type unusableMessage string

const (
	malformed unusableMessage = "an answer that cannot be read"
	overlong  unusableMessage = "an answer longer than promised"
)

func (u unusableMessage) Error() string { return "the server has given " + string(u) }

// exchange sends one query from a new socket, whose port the kernel chooses at
// random, and waits for the answer to it.
func (l *lookup) exchange(ctx context.Context, q query) (*miekg.Msg, error) {
	id, packed, err := l.pack(q)
	if err != nil {
		return nil, err
	}
	give, err := l.takeSocket(ctx)
	if err != nil {
		return nil, err
	}
	defer give()
	// The server's time begins now: it is not to blame for a wait for a socket.
	began := l.config.Now()
	deadline := began.Add(q.wait)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	m, err := q.carryOut(ctx, deadline, id, packed)
	if err != nil {
		return nil, describe(err, l.config.Now().Sub(began))
	}
	return m, nil
}

// carryOut connects, sends the packed query and reads the answer.
func (q *query) carryOut(ctx context.Context, deadline time.Time, id uint16, packed []byte) (*miekg.Msg, error) {
	network := "udp"
	if q.tcp {
		network = "tcp"
	}
	dialer := net.Dialer{Deadline: deadline}
	conn, err := dialer.DialContext(ctx, network, q.server.String())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(deadline); err != nil {
		return nil, err
	}
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	if q.tcp {
		packed = append(binary.BigEndian.AppendUint16(nil, uint16(len(packed))), packed...)
	}
	if _, err := conn.Write(packed); err != nil {
		return nil, err
	}
	return q.await(conn, id)
}

// noAnswer is one try's timeout.
type noAnswer time.Duration

func (d noAnswer) Error() string {
	return fmt.Sprintf("no answer in %v", time.Duration(d).Round(time.Millisecond))
}
func (noAnswer) Timeout() bool { return true }

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

// describe removes from a socket's error what no report needs.
func describe(err error, took time.Duration) error {
	if isTimeout(err) {
		return noAnswer(took)
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the connection was closed before the answer")
	}
	return err
}

// pack returns the message of q, with recursion desired and a random id, and that id.
func (c *Client) pack(q query) (uint16, []byte, error) {
	var id [2]byte
	if _, err := io.ReadFull(c.config.IDs, id[:]); err != nil {
		return 0, nil, fmt.Errorf("no random number: %w", err)
	}
	m := miekg.Msg{Question: []miekg.Question{{Name: q.name, Qtype: uint16(q.qtype), Qclass: miekg.ClassINET}}}
	m.Id, m.RecursionDesired, m.AuthenticatedData = binary.BigEndian.Uint16(id[:]), true, q.secure
	if q.edns {
		opt := &miekg.OPT{Hdr: miekg.RR_Header{Name: ".", Rrtype: miekg.TypeOPT}}
		opt.SetUDPSize(payload)
		m.Extra = []miekg.RR{opt}
	}
	packed, err := m.PackBuffer(make([]byte, miekg.MinMsgSize))
	return m.Id, packed, err
}

// promised returns how many bytes the answer may have by UDP.
func (q *query) promised() int {
	if q.edns {
		return payload
	}
	return miekg.MinMsgSize
}

// await reads until the answer to the query comes. What has another id or another question
// is not for us, or is a forgery, and is passed over.
func (q *query) await(conn net.Conn, id uint16) (*miekg.Msg, error) {
	var buf []byte
	if !q.tcp {
		buf = make([]byte, maxDatagram)
	}
	for range maxStrays {
		b, err := q.receive(conn, buf)
		if err != nil {
			return nil, err
		}
		m, err := q.parse(b, id)
		switch {
		case m == nil && err == nil:
		case !q.tcp && len(b) > q.promised():
			return nil, overlong
		default:
			return m, err
		}
	}
	return nil, fmt.Errorf("%d answers to other questions", maxStrays)
}

// receive reads one message: a datagram into buf, or by TCP a length and what it counts.
func (q *query) receive(conn net.Conn, buf []byte) ([]byte, error) {
	if !q.tcp {
		n, err := conn.Read(buf)
		return buf[:n], err
	}
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return nil, err
	}
	b := make([]byte, binary.BigEndian.Uint16(size[:]))
	_, err := io.ReadFull(conn, b)
	return b, err
}

// parse returns the message in b if it belongs to the query, nil if it does not, and an
// error if it seems to but cannot be read.
func (q *query) parse(b []byte, id uint16) (*miekg.Msg, error) {
	const header, response, truncated = 12, 0x80, 0x02
	if len(b) < header || binary.BigEndian.Uint16(b) != id || b[2]&response == 0 {
		return nil, nil
	}
	m := new(miekg.Msg)
	err := m.Unpack(b)
	if !q.isAskedIn(m) {
		if err != nil && len(m.Question) == 0 {
			return nil, malformed
		}
		return nil, nil
	}
	// TCP will have the whole of a message that is truncated within a record.
	if (err != nil || !whole(m, b)) && b[2]&truncated == 0 {
		return nil, malformed
	}
	return m, nil
}

// isAskedIn reports whether m repeats the question. A server that could not read it, or
// refuses it unread, need not.
func (q *query) isAskedIn(m *miekg.Msg) bool {
	if m.Opcode != miekg.OpcodeQuery {
		return false
	}
	if len(m.Question) == 0 {
		return m.Rcode != miekg.RcodeSuccess && m.Rcode != miekg.RcodeNameError
	}
	asked := m.Question[0]
	return len(m.Question) == 1 && Type(asked.Qtype) == q.qtype && asked.Qclass == miekg.ClassINET && strings.EqualFold(asked.Name, q.name)
}

// whole reports whether m has all that the header of b announces, and each record has
// data. Unpack asks for neither: an answer that ends between two records, and records
// without data, would pass for a denial, or one record of many for the only one.
// What records rest on is the answer section alone. A refusal may be a bare header.
func whole(m *miekg.Msg, b []byte) bool {
	if m.Rcode != miekg.RcodeSuccess && m.Rcode != miekg.RcodeNameError {
		return true
	}
	const answers, authority = 6, 8 // where the header has their numbers
	count := func(at int) int { return int(binary.BigEndian.Uint16(b[at:])) }
	empty := func(rr miekg.RR) bool {
		h := rr.Header()
		return h.Rdlength == 0 || h.Rrtype == miekg.TypeTLSA && h.Rdlength < leastTLSA
	}
	return len(m.Answer) == count(answers) && !slices.ContainsFunc(m.Answer, empty) &&
		(len(m.Answer) > 0 || len(m.Ns) == count(authority) && !slices.ContainsFunc(m.Ns, empty))
}
