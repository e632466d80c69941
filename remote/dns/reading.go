package dns

import (
	"fmt"
	"slices"
	"strings"

	miekg "github.com/miekg/dns"
)

const (
	// maxCNAMEs bounds a chain of aliases, which may be a loop.
	maxCNAMEs = 10
	// maxTTL is the largest TTL that there is; what is above it counts as 0 (RFC 2181
	// section 8).
	maxTTL = 1<<31 - 1
)

// A reading is what one message says about a name: records, or that there are none, or no
// such name, or an alias that is to be asked for.
type reading struct {
	records    []miekg.RR
	end        string // the name at the end of the aliases, with the final dot
	noName     bool
	unfinished bool   // end is to be asked for
	aliases    int    // number of aliases so far, those of earlier messages too
	ttl        uint32 // the least of the aliases and the records, or of what denies them
	secure     bool   // the server has validated the message
}

// A saying is what a server says in place of an answer, or what is wrong with it.
type saying string

func (s saying) Error() string { return string(s) }

// read reads m, which is to answer for name. It gives an error unless m has records or a
// denial, because bounces rest on denials. A denial is whole, comes from a server that
// looks names up, or is in charge of this one, or shows the zone's SOA, and has no record
// under the name. At the end of a chain of aliases it must show the SOA (RFC 2308 section
// 2.2): without it the server may just not have looked, and the alias is asked for.
func read(m *miekg.Msg, name string, qtype Type, aliases int) (*reading, error) {
	switch m.Rcode {
	case miekg.RcodeSuccess, miekg.RcodeNameError:
	case miekg.RcodeServerFailure:
		return nil, saying("server failure")
	case miekg.RcodeRefused:
		return nil, saying("the server refuses to answer")
	default:
		if text, ok := miekg.RcodeToString[m.Rcode]; ok {
			return nil, saying("the server answers " + text)
		}
		return nil, saying(fmt.Sprintf("the server answers with response code %d", m.Rcode))
	}
	if m.Truncated {
		return nil, saying("the server's answer is cut by TCP too")
	}
	r := &reading{end: name, aliases: aliases, ttl: maxTTL, secure: m.AuthenticatedData}
	if err := r.follow(m, qtype); err != nil {
		return nil, err
	}
	noName := m.Rcode == miekg.RcodeNameError
	soa := soaOf(m, r.end)
	switch {
	case len(r.records) > 0 && noName:
		return nil, saying("the server says that there is no such name and gives its records")
	case len(r.records) > 0:
		return r, nil
	case !m.RecursionAvailable && !m.Authoritative && !slices.ContainsFunc(m.Ns, isSOA):
		return nil, saying("the server neither looks up names nor is in charge of this one")
	case r.end == name && len(m.Answer) > 0:
		return nil, saying("the server answers with other records")
	case r.end == name, soa != nil && !has(m, r.end):
		// With aliases it is the last name that does not exist (RFC 6604 section 2.1).
		r.noName = noName
		r.denied(soa)
		return r, nil
	}
	r.unfinished = true
	return r, nil
}

// follow walks the aliases in m from r.end on, and takes the records of qtype that it finds
// where they end.
func (r *reading) follow(m *miekg.Msg, qtype Type) error {
	for {
		var alias *miekg.CNAME
		for _, rr := range m.Answer {
			h := rr.Header()
			if h.Class != miekg.ClassINET || !strings.EqualFold(h.Name, r.end) {
				continue
			}
			if Type(h.Rrtype) == qtype {
				r.records = append(r.records, rr)
				r.holdsFor(h.Ttl)
			} else if cname, ok := rr.(*miekg.CNAME); ok {
				alias = cname
			}
		}
		if len(r.records) > 0 || alias == nil {
			return nil
		}
		if r.aliases++; r.aliases > maxCNAMEs {
			return saying(fmt.Sprintf("more than %d CNAMEs, or a loop of them", maxCNAMEs))
		}
		r.holdsFor(alias.Hdr.Ttl)
		r.end = alias.Target
	}
}

// holdsFor bounds the TTL by one more.
func (r *reading) holdsFor(ttl uint32) {
	if ttl > maxTTL {
		ttl = 0
	}
	r.ttl = min(r.ttl, ttl)
}

// denied bounds the TTL by that of a denial (RFC 2308 section 5). One that shows no SOA
// must not be kept.
func (r *reading) denied(soa *miekg.SOA) {
	if soa == nil {
		r.ttl = 0
		return
	}
	r.holdsFor(soa.Hdr.Ttl)
	r.holdsFor(soa.Minttl)
}

// soaOf returns the SOA of name's zone that m shows, or nil.
func soaOf(m *miekg.Msg, name string) *miekg.SOA {
	for _, rr := range m.Ns {
		if soa, ok := rr.(*miekg.SOA); ok && miekg.IsSubDomain(soa.Hdr.Name, name) {
			return soa
		}
	}
	return nil
}

// has reports whether there is a record of name in m's answer.
func has(m *miekg.Msg, name string) bool {
	return slices.ContainsFunc(m.Answer, func(rr miekg.RR) bool { return strings.EqualFold(rr.Header().Name, name) })
}

func isSOA(rr miekg.RR) bool { return rr.Header().Rrtype == miekg.TypeSOA }
