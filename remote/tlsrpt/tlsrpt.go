// Package tlsrpt tells a collector how TLS went, for domains that ask for reports. It has
// the TXT record, the datagram as a value and as bytes, and the socket. What happened, and
// which policy applied, is for others to say.
//
//	RFC 8460 3       the TXT record
//	RFC 8460 4.3     what can fail
//	libtlsrpt 0.5    the datagram, byte for byte: collectors count by its text
package tlsrpt

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

const (
	// maxDatagram is the longest datagram, in bytes. A collector reads no more than 64 KiB.
	maxDatagram = 32768
	// maxList is how many entries of each list are left in a datagram that is too long.
	maxList = 32
	// maxReason bounds a reason, in bytes: they are kept and counted by the collector.
	maxReason = 200
)

// RecordName is the name at which the TXT record of a policy domain is.
func RecordName(domain string) string { return "_smtp._tls." + domain }

// Record returns the record that asks for reports, among the TXT records of a policy
// domain, the strings of each joined. It is "" unless there is exactly one.
func Record(texts []string) (record string) {
	found := 0
	for _, text := range texts {
		rest, ok := strings.CutPrefix(text, "v=TLSRPTv1")
		if ok && strings.HasPrefix(strings.TrimLeft(rest, " \t"), ";") {
			record = text
			found++
		}
	}
	if found != 1 {
		return ""
	}
	return record
}

// A Type of policy.
type Type int

// The types, with the numbers of the datagram.
const (
	TLSA Type = 1
	STS  Type = 2
	None Type = 9 // nothing is published
)

// A Code says what failed (RFC 8460 4.3).
type Code int

// The codes, with the numbers of the datagram.
const (
	STARTTLSNotSupported    Code = 201
	CertificateHostMismatch Code = 202
	CertificateNotTrusted   Code = 203
	CertificateExpired      Code = 204
	ValidationFailure       Code = 205
	STSPolicyFetchError     Code = 301
	STSPolicyInvalid        Code = 302
	STSWebPKIInvalid        Code = 303
	TLSAInvalid             Code = 304
	DNSSECInvalid           Code = 305
	DANERequired            Code = 306
)

// A Failure is what failed at one exchanger. What is empty is left out.
type Failure struct {
	Code      Code
	Ours      netip.Addr // where the connection came from
	Exchanger string     // its name
	Theirs    netip.Addr // its address
	Reason    string     // at most 200 bytes of it are sent, with "-" for blanks
}

// A Policy is one that applied, and how it went.
type Policy struct {
	Type    Type
	Domain  string   // of TLSA: the base; else the policy domain
	Strings []string // of TLSA: the records, see TLSAString; of STS: the lines of the policy
	MXHosts []string // of STS alone: its patterns
	Failure *Failure // nil: it went well
}

// A Datagram is what is told about one connection, or about one event before it. Names are
// in A-labels; they are sent in lower case and without the final dot.
type Datagram struct {
	Domain   string // the policy domain
	Record   string // that asks for reports, see Record
	Policies []Policy
}

// TLSAString is a TLSA record as a string of a policy.
func TLSAString(usage, selector, matching uint8, data []byte) string {
	return fmt.Sprintf("%d %d %d %X", usage, selector, matching, data)
}

// ErrTooLong says that a datagram is too long although its lists were cut.
var ErrTooLong = fmt.Errorf("the datagram has more than %d bytes", maxDatagram)

// Bytes returns the datagram as it is sent. The error is ErrTooLong.
func (d *Datagram) Bytes() ([]byte, error) {
	data := d.encode(-1)
	if len(data) > maxDatagram {
		data = d.encode(maxList)
	}
	if len(data) > maxDatagram {
		return nil, ErrTooLong
	}
	return data, nil
}

// encode writes most entries of each list; -1: all.
func (d *Datagram) encode(most int) []byte {
	var w writer
	w = append(w, '{')
	w.text("dpv", "1")
	w.text("d", name(d.Domain))
	w.text("pr", d.Record)
	w.member("policies")
	w = append(w, '[')
	for i := range d.Policies {
		w.comma()
		w.policy(&d.Policies[i], most)
	}
	return append(w, "]}"...)
}

// A writer appends JSON. A member or an element is written with the comma before it.
type writer []byte

func (w *writer) comma() {
	if last := (*w)[len(*w)-1]; last != '{' && last != '[' {
		*w = append(*w, ',')
	}
}

// member writes a name, for a number or a list.
func (w *writer) member(name string) {
	w.comma()
	*w = append(*w, '"')
	*w = append(*w, name...)
	*w = append(*w, `":`...)
}

func (w *writer) number(name string, n int) {
	w.member(name)
	*w = strconv.AppendInt(*w, int64(n), 10)
}

// text writes a string, with the blank that libtlsrpt writes before it.
func (w *writer) text(name, value string) {
	w.member(name)
	*w = append(*w, ' ')
	w.quote(value)
}

// textIf leaves out what has no value.
func (w *writer) textIf(name, value string) {
	if value != "" {
		w.text(name, value)
	}
}

func (w *writer) list(name string, values []string, most int) {
	if most >= 0 {
		values = values[:min(len(values), most)]
	}
	if len(values) == 0 {
		return
	}
	w.member(name)
	*w = append(*w, '[')
	for _, value := range values {
		w.comma()
		w.quote(value)
	}
	*w = append(*w, ']')
}

func (w *writer) policy(p *Policy, most int) {
	var values, hosts []string
	switch p.Type {
	case TLSA:
		values = slices.Sorted(slices.Values(p.Strings))
	case STS:
		values = p.Strings
		for _, host := range p.MXHosts {
			hosts = append(hosts, name(host))
		}
	}
	failed := 0
	*w = append(*w, '{')
	w.number("policy-type", int(p.Type))
	w.textIf("policy-domain", name(p.Domain))
	w.list("policy-string", values, most)
	w.list("mx-host", hosts, most)
	if p.Failure != nil {
		failed = 1
		w.member("failure-details")
		*w = append(*w, '[')
		w.failure(p.Failure)
		*w = append(*w, ']')
	}
	w.number("t", failed)
	w.number("f", failed)
	*w = append(*w, '}')
}

func (w *writer) failure(f *Failure) {
	*w = append(*w, '{')
	w.number("c", int(f.Code))
	w.textIf("s", address(f.Ours))
	w.textIf("n", name(f.Exchanger))
	w.textIf("r", address(f.Theirs))
	w.textIf("f", reason(f.Reason))
	*w = append(*w, '}')
}

// quote writes a string with the escapes of libtlsrpt.
func (w *writer) quote(value string) {
	const short = "\b\f\n\r\t\\\""
	*w = append(*w, '"')
	for at := 0; at < len(value); {
		r, size := utf8.DecodeRuneInString(value[at:])
		switch i := strings.IndexRune(short, r); {
		case r == utf8.RuneError && size == 1:
			*w = append(*w, '?')
		case i >= 0:
			*w = append(*w, '\\', `bfnrt\"`[i])
		case r < ' ' || r == 0x7f:
			*w = fmt.Appendf(*w, `\u00%02x`, r)
		default:
			*w = append(*w, value[at:at+size]...)
		}
		at += size
	}
	*w = append(*w, '"')
}

// name is a name as reports have it.
func name(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, strings.TrimSuffix(s, "."))
}

func address(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.Unmap().WithZone("").String()
}

// reason is a reason as it is sent. It is cut between characters.
func reason(s string) string {
	s = strings.NewReplacer(" ", "-", "\t", "-").Replace(s)
	if len(s) <= maxReason {
		return s
	}
	end := maxReason
	for end > maxReason-utf8.UTFMax && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end]
}
