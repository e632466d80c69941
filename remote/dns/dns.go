// Package dns asks caching name servers. A question gets one answer, which has all that
// decides whether it may be kept and believed; a failure is an answer too.
//
// What it goes by:
//
//	RFC 1034, 1035      names, aliases, TXT, messages by UDP and TCP
//	RFC 2308            denials, and how long they hold
//	RFC 2782, 5321      SRV, MX
//	RFC 6604            aliases of a name that does not exist
//	RFC 6698            TLSA
//	RFC 6840 (5.7)      the AD bit
//	RFC 6891            EDNS0
//	resolv.conf(5)      the name servers
package dns

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	miekg "github.com/miekg/dns"

	"nightmare.mail/mxf/remote/stack"
)

const (
	// maxParallel bounds the goroutines of one Start: more than its caller asks at a time.
	maxParallel = 64
	// maxKept bounds Answer.Addrs: an answer can have 4,000 addresses.
	maxKept = 40
	// maxTracedRecords bounds the records of one answer that a trace shows, and
	// maxTracedRecord the bytes of each: a name of 253 bytes and three numbers fit.
	maxTracedRecords = 12
	maxTracedRecord  = 300
)

// ErrNoName is the error of an answer that denies that the name exists (NXDOMAIN,
// RFC 2308 section 2.1). Every other error is temporary.
var ErrNoName = errors.New("no such name")

// A Type is a type of records.
type Type uint16

// The types that are asked for.
const (
	TypeA     = Type(miekg.TypeA)
	TypeAAAA  = Type(miekg.TypeAAAA)
	TypeCNAME = Type(miekg.TypeCNAME) // the alias itself, which is not followed
	TypeMX    = Type(miekg.TypeMX)
	TypePTR   = Type(miekg.TypePTR)
	TypeSOA   = Type(miekg.TypeSOA) // whether there is one, and whether it is secure: its data is not kept
	TypeSRV   = Type(miekg.TypeSRV)
	TypeTLSA  = Type(miekg.TypeTLSA)
	TypeTXT   = Type(miekg.TypeTXT)
)

func (t Type) String() string { return miekg.TypeToString[uint16(t)] }

// A Question is what is asked. It is comparable, so that answers may be kept by it.
type Question struct {
	Name string // in A-labels and lower case, without the final dot
	Type Type

	// Secure asks the name servers to say which answers they have validated, and
	// believes them. It is right only if they validate, and if nobody else can write on
	// the path to them.
	Secure bool
}

// An MX is one MX record.
type MX struct {
	Preference uint16
	Exchanger  string // in presentation format, with the final dot
}

// An SRV is one SRV record.
type SRV struct {
	Priority, Weight, Port uint16
	Target                 string // in presentation format, with the final dot
}

// A TLSA is one TLSA record (RFC 6698 section 2.1).
type TLSA struct {
	Usage, Selector, Matching uint8
	Data                      string // the bytes that are on the wire; may be empty
}

// An Answer is what a lookup has come to. It does not change: it may be kept, and many
// may read it at a time.
type Answer struct {
	Question Question

	// The records of the type that was asked for, in the order in which they came. If
	// there are none, and there is no error, then the name has no data of that type.
	Addrs []netip.Addr // of A and AAAA, unmapped; the first 40, see All
	MX    []MX
	SRV   []SRV
	CNAME []string // targets in presentation format, with the final dot
	PTR   []string // names in presentation format, with the final dot
	TLSA  []TLSA
	TXT   []string // the strings of each record joined, as they are on the wire
	More  int      // number of the addresses that are not in Addrs

	End    string         // the name at the end of the aliases, without the final dot; of a failure, empty
	TTL    time.Duration  // how long the answer may be kept; 0: not at all, or it is a failure
	Secure bool           // the server has validated all of it; only if the question was for that
	Server netip.AddrPort // the server that answered; of a failure, the zero AddrPort
	Err    error          // ErrNoName, or a temporary failure; it wraps the context's error if that cut the lookup short
	Notes  []string       // the tries that failed before, for the trace
	Took   time.Duration

	rest string // the addresses that are not in Addrs, 4 or 16 bytes each
}

// Len returns the number of records.
func (a *Answer) Len() int {
	return len(a.Addrs) + a.More + len(a.MX) + len(a.SRV) + len(a.CNAME) + len(a.PTR) + len(a.TLSA) + len(a.TXT)
}

// Alias returns the name at the end of the aliases, in lower case. It is empty if there is no
// alias, and where the lookup failed.
func (a *Answer) Alias() string {
	if end := strings.ToLower(a.End); end != strings.ToLower(a.Question.Name) {
		return end
	}
	return ""
}

// Failed reports whether the lookup failed for now, so that the answer says nothing about
// the name.
func (a *Answer) Failed() bool { return a.Err != nil && a.Err != ErrNoName }

// All returns all addresses, those beyond Addrs too.
func (a *Answer) All() iter.Seq[netip.Addr] {
	return func(yield func(netip.Addr) bool) {
		for _, addr := range a.Addrs {
			if !yield(addr) {
				return
			}
		}
		for i := range a.More {
			size := len(a.rest) / a.More
			addr, _ := netip.AddrFromSlice([]byte(a.rest[i*size : (i+1)*size]))
			if !yield(addr.Unmap()) {
				return
			}
		}
	}
}

// String returns the trace line of the answer.
func (a *Answer) String() string {
	var b strings.Builder
	b.WriteString("lookup " + a.Question.Type.String() + " " + a.Question.Name + ": ")
	switch {
	case a.Err != nil:
		b.WriteString(a.Err.Error())
	case a.Len() == 0:
		b.WriteString("no data")
	}
	for i := range a.Len() {
		if i == maxTracedRecords {
			fmt.Fprintf(&b, " and %d more", a.Len()-i)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		record := a.Record(i)
		if len(record) > maxTracedRecord {
			record = record[:maxTracedRecord] + "..." // it is ASCII
		}
		b.WriteString(record)
	}
	b.WriteString(" (" + strconv.FormatInt(a.Took.Milliseconds(), 10) + " ms)")
	b.WriteString(a.security(a.Secure))
	return b.String()
}

// security ends a line of the trace where the name servers are asked what they have
// validated.
func (a *Answer) security(secure bool) string {
	switch {
	case !a.Question.Secure:
		return ""
	case secure:
		return " secure"
	}
	return " insecure"
}

// Record returns the data of record i, from 0 to Len-1, in presentation format. It does not
// have the addresses beyond Addrs, see All.
func (a *Answer) Record(i int) string {
	switch a.Question.Type {
	case TypeMX:
		mx := &a.MX[i]
		return fmt.Sprintf("%d %s", mx.Preference, mx.Exchanger)
	case TypeSRV:
		srv := &a.SRV[i]
		return fmt.Sprintf("%d %d %d %s", srv.Priority, srv.Weight, srv.Port, srv.Target)
	case TypeCNAME:
		return a.CNAME[i]
	case TypePTR:
		return a.PTR[i]
	case TypeTLSA:
		tlsa := &a.TLSA[i]
		return fmt.Sprintf("%d %d %d %x", tlsa.Usage, tlsa.Selector, tlsa.Matching, tlsa.Data)
	case TypeTXT:
		return strconv.QuoteToASCII(a.TXT[i])
	}
	if addr := a.Addrs[i]; a.Question.Type == TypeA || addr.Is6() {
		return addr.String()
	}
	return "::ffff:" + a.Addrs[i].String()
}

// Trace calls line for each of the notes, and then for the answer itself.
func (a *Answer) Trace(line func(string)) {
	for _, note := range a.Notes {
		if a.Err == nil || note != a.Err.Error() {
			line("lookup " + a.Question.Type.String() + " " + a.Question.Name + ": " + note + a.security(false))
		}
	}
	line(a.String())
}

// take turns records into those of the answer.
func (a *Answer) take(records []miekg.RR) {
	switch a.Question.Type {
	case TypeA, TypeAAAA:
		a.takeAddresses(records)
	case TypeMX:
		a.MX = make([]MX, 0, len(records))
		for _, rr := range records {
			if mx, ok := rr.(*miekg.MX); ok {
				a.MX = append(a.MX, MX{mx.Preference, mx.Mx})
			}
		}
	case TypeSRV:
		a.SRV = make([]SRV, 0, len(records))
		for _, rr := range records {
			if srv, ok := rr.(*miekg.SRV); ok {
				a.SRV = append(a.SRV, SRV{srv.Priority, srv.Weight, srv.Port, srv.Target})
			}
		}
	case TypeCNAME:
		for _, rr := range records {
			if cname, ok := rr.(*miekg.CNAME); ok {
				a.CNAME = append(a.CNAME, cname.Target)
			}
		}
	case TypePTR:
		for _, rr := range records {
			if ptr, ok := rr.(*miekg.PTR); ok {
				a.PTR = append(a.PTR, ptr.Ptr)
			}
		}
	case TypeTLSA:
		for _, rr := range records {
			if tlsa, ok := rr.(*miekg.TLSA); ok {
				data, _ := hex.DecodeString(tlsa.Certificate) // what was decoded from the wire
				a.TLSA = append(a.TLSA, TLSA{tlsa.Usage, tlsa.Selector, tlsa.MatchingType, string(data)})
			}
		}
	case TypeTXT:
		for _, rr := range records {
			if txt, ok := rr.(*miekg.TXT); ok {
				a.TXT = append(a.TXT, unescaped(strings.Join(txt.Txt, "")))
			}
		}
	}
}

// unescaped turns text in presentation format (RFC 1035 section 5.1) into what is on the
// wire: \DDD is a byte, and any other character behind a backslash is itself.
func unescaped(text string) string {
	if !strings.Contains(text, `\`) {
		return text
	}
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] == '\\' && i+1 < len(text) {
			i++
			if n, err := strconv.ParseUint(text[i:min(i+3, len(text))], 10, 8); err == nil && i+3 <= len(text) {
				b.WriteByte(byte(n))
				i += 2
				continue
			}
		}
		b.WriteByte(text[i])
	}
	return b.String()
}

func (a *Answer) takeAddresses(records []miekg.RR) {
	a.Addrs = make([]netip.Addr, 0, min(len(records), maxKept))
	var rest []byte
	for _, rr := range records {
		var addr netip.Addr
		switch rr := rr.(type) {
		case *miekg.A:
			addr, _ = netip.AddrFromSlice(rr.A.To4())
		case *miekg.AAAA:
			addr, _ = netip.AddrFromSlice(rr.AAAA)
		}
		switch {
		case !addr.IsValid():
		case len(a.Addrs) < maxKept:
			a.Addrs = append(a.Addrs, addr.Unmap())
		default:
			rest = append(rest, addr.AsSlice()...)
			a.More++
		}
	}
	a.rest = string(rest)
}

// A Resolver answers questions. Any number of goroutines may use it at a time.
type Resolver interface {
	// Lookup returns the answer to q, and never nil. It ends with ctx at the latest.
	Lookup(ctx context.Context, q Question) *Answer
}

// An Arrival is the answer to one of several questions.
type Arrival struct {
	Index  int // of the question
	Answer *Answer
}

// Start asks r the questions at the same time, at most 64 of them, and sends each answer
// to the channel when it comes. The channel has room for all of them. A panic of r is a
// failure.
func Start(ctx context.Context, r Resolver, questions []Question) <-chan Arrival {
	arrivals := make(chan Arrival, len(questions))
	var next atomic.Int32
	for range min(len(questions), maxParallel) {
		go func() {
			stack.Grow()
			for {
				i := int(next.Add(1)) - 1
				if i >= len(questions) {
					return
				}
				arrivals <- Arrival{i, answerTo(ctx, r, questions[i])}
			}
		}()
	}
	return arrivals
}

func answerTo(ctx context.Context, r Resolver, q Question) (a *Answer) {
	defer func() {
		if p := recover(); p != nil {
			a = &Answer{Question: q, Err: fmt.Errorf("panic during lookup: %v", p)}
		}
	}()
	return r.Lookup(ctx, q)
}
