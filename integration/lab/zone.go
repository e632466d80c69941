package lab

import (
	"fmt"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// A Failure is how a name server can fail one question.
type Failure string

// The failures that a zone can name.
const (
	NXDOMAIN      Failure = "NXDOMAIN"      // the name does not exist, whatever stands beneath it
	NODATA        Failure = "NODATA"        // no answer of that type
	SERVFAIL      Failure = "SERVFAIL"      // server failure
	REFUSED       Failure = "REFUSED"       // refused
	TIMEOUT       Failure = "TIMEOUT"       // no answer at all
	TRUNCATED     Failure = "TRUNCATED"     // over UDP an empty answer with TC; TCP has the records
	NOEDNS        Failure = "NOEDNS"        // FORMERR to questions with EDNS0
	WRONGID       Failure = "WRONGID"       // an answer of another id comes first
	WRONGQUESTION Failure = "WRONGQUESTION" // an answer to another question comes first
	SLOW          Failure = "SLOW"          // the answer comes after slowAnswer
	LAME          Failure = "LAME"          // no answer, from a server that neither recurses nor is authoritative
	CUT           Failure = "CUT"           // an empty answer with TC, over TCP too
	OTHERS        Failure = "OTHERS"        // records of another owner alone
	CONTRARY      Failure = "CONTRARY"      // NXDOMAIN, with the records
	EDNSLOST      Failure = "EDNSLOST"      // a firewall drops questions with EDNS0
	LARGELOST     Failure = "LARGELOST"     // a firewall drops answers of more than 512 bytes over UDP
	UDPLOST       Failure = "UDPLOST"       // nothing gets through over UDP
)

// slowAnswer is long enough to show in a trace and short enough for a test.
const slowAnswer = 700 * time.Millisecond

var failures = map[Failure]bool{
	NXDOMAIN: true, NODATA: true, SERVFAIL: true, REFUSED: true, TIMEOUT: true, TRUNCATED: true,
	NOEDNS: true, WRONGID: true, WRONGQUESTION: true, SLOW: true, LAME: true, CUT: true, OTHERS: true,
	CONTRARY: true, EDNSLOST: true, LARGELOST: true, UDPLOST: true,
}

// A Zone is everything that a name server knows, literally.
type Zone struct {
	records  map[string][]dns.RR // by owner, lower case, with the final dot
	failures map[zoneKey]Failure
	signed   map[string]bool // by owner: whether it and what is beneath it counts as validated
}

// zoneKey has "*" for any owner and dns.TypeANY for any type.
type zoneKey struct {
	owner string
	rtype uint16
}

// ParseZone reads a zone: one record a line as in a master file, without class
// and TTL, or a failure in place of the data:
//
//	example.org         MX   10 mx.example.org
//	mx.example.org      A    127.0.0.2
//	example.net         MX   !SERVFAIL
//	lost.example.org    *    !TIMEOUT
//	*                   *    !REFUSED
//	example.org         !SECURE
//	mx.example.org      !INSECURE
//
// !SECURE has a name, and all beneath it, pass for signed: who asks with the AD bit is told that
// the answer was validated if each name that it is about does. !INSECURE is its opposite, which
// everything is that has neither.
//
// An answer without records has the SOA record of the nearest name above that has one, which allows it to
// be kept (RFC 2308).
//
// All names are absolute, with or without the final dot. Empty lines and lines
// that begin with ; or # are skipped. The error names the line.
func ParseZone(text string) (*Zone, error) {
	z := &Zone{records: make(map[string][]dns.RR), failures: make(map[zoneKey]Failure), signed: make(map[string]bool)}
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == ';' || line[0] == '#' {
			continue
		}
		if err := z.add(line); err != nil {
			return nil, fmt.Errorf("zone line %d: %w", i+1, err)
		}
	}
	return z, nil
}

func (z *Zone) add(line string) error {
	fields := strings.Fields(line)
	if len(fields) == 3 && strings.HasPrefix(fields[2], "!") {
		return z.addFailure(fields[0], fields[1], Failure(fields[2][1:]))
	}
	if len(fields) == 2 && (fields[1] == "!SECURE" || fields[1] == "!INSECURE") {
		z.signed[dns.CanonicalName(fields[0])] = fields[1] == "!SECURE"
		return nil
	}
	rr, err := dns.NewRR(line)
	if err != nil {
		return err
	}
	if rr == nil {
		return fmt.Errorf("no record in %q", line)
	}
	rr.Header().Ttl = 60
	owner := strings.ToLower(rr.Header().Name)
	z.records[owner] = append(z.records[owner], rr)
	return nil
}

func (z *Zone) addFailure(owner, rtype string, f Failure) error {
	if !failures[f] {
		return fmt.Errorf("unknown failure %q", string(f))
	}
	t, ok := dns.StringToType[strings.ToUpper(rtype)]
	if rtype == "*" {
		t, ok = dns.TypeANY, true
	}
	if !ok {
		return fmt.Errorf("unknown record type %q", rtype)
	}
	if owner != "*" {
		owner = dns.CanonicalName(owner)
	}
	z.failures[zoneKey{owner, t}] = f
	return nil
}

// failure returns what the zone names for a question, the most particular first.
func (z *Zone) failure(owner string, rtype uint16) Failure {
	for _, key := range [...]zoneKey{{owner, rtype}, {owner, dns.TypeANY}, {"*", rtype}, {"*", dns.TypeANY}} {
		if f, ok := z.failures[key]; ok {
			return f
		}
	}
	return ""
}

// isSigned reports whether owner passes for signed: the longest name decides.
func (z *Zone) isSigned(owner string) bool {
	for name := owner; name != ""; {
		if signed, ok := z.signed[name]; ok {
			return signed
		}
		_, name, _ = strings.Cut(name, ".")
	}
	return false
}

// authority returns the SOA record of the nearest name at or above owner that has one, nil for none.
func (z *Zone) authority(owner string) []dns.RR {
	for name := owner; name != ""; _, name, _ = strings.Cut(name, ".") {
		for _, rr := range z.records[name] {
			if rr.Header().Rrtype == dns.TypeSOA {
				return []dns.RR{rr}
			}
		}
	}
	return nil
}

// isValidated reports whether a validating server could have validated an answer with these
// records.
func (z *Zone) isValidated(owner string, rtype uint16, records []dns.RR) bool {
	validated := z.isSigned(owner)
	for _, rr := range records {
		if cname, ok := rr.(*dns.CNAME); ok && rtype != dns.TypeCNAME {
			validated = validated && z.isSigned(strings.ToLower(cname.Target))
		}
	}
	return validated
}

// maxChain bounds the CNAMEs that an answer follows, so that a loop of them ends.
const maxChain = 12

// answer returns the records for a question, CNAMEs followed, and whether the
// owner exists.
func (z *Zone) answer(owner string, rtype uint16) (records []dns.RR, exists bool) {
	for range maxChain {
		all := z.records[owner]
		if len(all) == 0 && !z.hasBeneath(owner) {
			return records, false
		}
		next := ""
		for _, rr := range all {
			switch rr := rr.(type) {
			case *dns.CNAME:
				if rtype != dns.TypeCNAME {
					next = strings.ToLower(rr.Target)
				}
				records = append(records, rr)
				continue
			}
			if rr.Header().Rrtype == rtype {
				records = append(records, rr)
			}
		}
		if next == "" {
			return records, true
		}
		owner = next
	}
	return records, true
}

// hasBeneath reports whether owner exists only because names beneath it do (an
// empty non-terminal), or because a failure is named for it.
func (z *Zone) hasBeneath(owner string) bool {
	suffix := "." + owner
	for name := range z.records {
		if strings.HasSuffix(name, suffix) {
			return true
		}
	}
	for key := range z.failures {
		if key.owner == owner || strings.HasSuffix(key.owner, suffix) {
			return true
		}
	}
	return false
}
