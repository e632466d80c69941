package control

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"

	"nightmare.mail/mxf/control/domain"
)

// A TLSLevel is what a line of control/tlspolicy wants of TLS, in the word of the file.
type TLSLevel string

// The levels. The second word of TLSAuto is one of TLSMay, TLSMust and TLSVerify.
const (
	TLSNone   TLSLevel = "none"   // no TLS
	TLSMay    TLSLevel = "may"    // as control/tlsstrictness 0
	TLSMust   TLSLevel = "must"   // always, with any certificate
	TLSVerify TLSLevel = "verify" // always, with a certificate that trust anchors vouch for
	TLSPin    TLSLevel = "pin"    // always, with a certificate that the line has the digest of
	TLSDANE   TLSLevel = "dane"   // always, with a certificate that TLSA records are about
	TLSAuto   TLSLevel = "auto"   // what the destination publishes
)

// digestSize is the length of a SHA-256 digest, in bytes. (crypto/sha256 says so too, and would
// be linked into programs that need nothing of it.)
const digestSize = 32

// maxTLSPolicyValues is how many names or pins one line has at most. Each costs every
// handshake a comparison or a digest.
const maxTLSPolicyValues = 20

// A TLSPolicy is one line of control/tlspolicy: what TLS a host or an exchanger must have.
type TLSPolicy struct {
	Line  int // from 1
	Level TLSLevel
	Floor TLSLevel           // of TLSAuto: TLSMay, TLSMust or TLSVerify; "": that of control/tlsstrictness
	Names []string           // of TLSVerify: names in place of the exchanger's, or .suffix, in lower case and A-labels; nil: that
	Pins  [][digestSize]byte // of TLSPin: SHA-256 of a certificate or of its SubjectPublicKeyInfo
}

// Place returns the file and the line, for errors and the trace.
func (p *TLSPolicy) Place() string { return fmt.Sprintf("control/tlspolicy:%d", p.Line) }

// AsksTLSA reports whether TLSA records are looked up where p holds; nil: where no line does.
func (p *TLSPolicy) AsksTLSA() bool { return p == nil || p.Level == TLSAuto || p.Level == TLSDANE }

// AsksMTASTS is AsksTLSA for the policy of MTA-STS.
func (p *TLSPolicy) AsksMTASTS() bool { return p == nil || p.Level == TLSAuto }

// alwaysTLS reports whether p wants TLS in every case.
func (p *TLSPolicy) alwaysTLS() bool {
	switch p.Level {
	case TLSMust, TLSVerify, TLSPin, TLSDANE:
		return true
	}
	return p.Floor == TLSMust || p.Floor == TLSVerify
}

// verifies reports whether p has trust anchors vouch for a certificate.
func (p *TLSPolicy) verifies() bool { return p.Level == TLSVerify || p.Floor == TLSVerify }

// TLSPolicies are the lines of control/tlspolicy by host and exchanger.
type TLSPolicies struct {
	// The key of an exchanger begins with exchangerMark.
	keys  keyed[TLSPolicy]
	lines []TLSPolicy // all of them, in their order
}

// exchangerMark is what the key of an exchanger begins with, in the file too.
const exchangerMark = "@"

func (d dir) tlsPolicy(s *Settings) error {
	data, err := d.read("tlspolicy")
	if err != nil {
		return err
	}
	s.TLSPolicy, err = d.parseTLSPolicies(data)
	return err
}

func (d dir) parseTLSPolicies(data []byte) (policies TLSPolicies, err error) {
	err = d.entries("tlspolicy", data, func(line int, entry string) string {
		key, p, problem := parseTLSPolicy(entry)
		if problem != "" {
			return problem
		}
		p.Line = line
		if !policies.keys.add(key, p) {
			return "expected each domain and each exchanger once, found this one for the second time"
		}
		policies.lines = append(policies.lines, p)
		return ""
	})
	if err != nil {
		return TLSPolicies{}, err
	}
	return policies, nil
}

// parseTLSPolicy parses domain:level, @exchanger:level, or either with a third field.
// problem says what is wrong, and is "" if nothing is.
func parseTLSPolicy(entry string) (key string, p TLSPolicy, problem string) {
	wrong := func(problem string) (string, TLSPolicy, string) { return "", TLSPolicy{}, problem }
	field := allFields(entry)
	if len(field) != 2 && len(field) != 3 {
		return wrong("expected domain:level, @exchanger:level or either with a third field, found " + foundFields(field))
	}
	if key, problem = parseTLSPolicyKey(field[0]); problem != "" {
		return wrong(problem)
	}
	p.Level = TLSLevel(field[1])
	if problem = p.parseMore(field[2:]); problem != "" {
		return wrong(problem)
	}
	return key, p, ""
}

func parseTLSPolicyKey(s string) (key, problem string) {
	pattern, isExchanger := strings.CutPrefix(s, exchangerMark)
	key, err := parsePattern(pattern)
	switch {
	case err != nil && isExchanger, key == "" && isExchanger:
		return "", fmt.Sprintf("expected a host name, a suffix that begins with a dot or an address in brackets after the @, found %s", found(pattern))
	case err != nil:
		return "", fmt.Sprintf("expected a domain, a .suffix, an address in brackets, @ and an exchanger, or nothing before the colon, found %s", found(s))
	case isExchanger:
		key = exchangerMark + key
	}
	return key, ""
}

// parseMore parses the third field, which may be missing.
func (p *TLSPolicy) parseMore(more []string) (problem string) {
	switch p.Level {
	case TLSNone, TLSMay, TLSMust, TLSDANE:
		if len(more) > 0 {
			return fmt.Sprintf("expected nothing after %s, found a third field", p.Level)
		}
	case TLSAuto:
		return p.parseFloor(more)
	case TLSVerify:
		if len(more) > 0 {
			return p.parseNames(more[0])
		}
	case TLSPin:
		if len(more) == 0 {
			return "expected SHA-256 digests as the third field of pin, found none"
		}
		return p.parsePins(more[0])
	default:
		return fmt.Sprintf("expected none, may, must, verify, pin, dane or auto as the level, found %s", found(string(p.Level)))
	}
	return ""
}

func (p *TLSPolicy) parseFloor(more []string) (problem string) {
	if len(more) == 0 {
		return ""
	}
	switch p.Floor = TLSLevel(more[0]); p.Floor {
	case TLSMay, TLSMust, TLSVerify:
		return ""
	}
	return fmt.Sprintf("expected may, must or verify as the floor of auto, found %s", found(more[0]))
}

func (p *TLSPolicy) parseNames(list string) (problem string) {
	for word := range strings.SplitSeq(list, ",") {
		suffix, isSuffix := strings.CutPrefix(word, ".")
		name, err := domain.HostName(suffix)
		if err != nil {
			return fmt.Sprintf("expected host names and suffixes that begin with a dot, with commas between, found %s", found(word))
		}
		if name = strings.ToLower(name); isSuffix {
			name = "." + name
		}
		p.Names = append(p.Names, name)
	}
	return tooMany(len(p.Names), "names")
}

func (p *TLSPolicy) parsePins(list string) (problem string) {
	for word := range strings.SplitSeq(list, ",") {
		digest, err := hex.DecodeString(word)
		if err != nil || len(digest) != digestSize {
			return fmt.Sprintf("expected SHA-256 digests of %d hexadecimal digits, with commas between, found %s", 2*digestSize, found(word))
		}
		p.Pins = append(p.Pins, [digestSize]byte(digest))
	}
	return tooMany(len(p.Pins), "digests")
}

func tooMany(n int, what string) (problem string) {
	if n <= maxTLSPolicyValues {
		return ""
	}
	return fmt.Sprintf("expected at most %d %s, found %d", maxTLSPolicyValues, what, n)
}

// For returns the line that holds for an exchanger of a host, nil if none does. host is
// HOST as in the argument. exchanger is its name as the record or the route spells it; if it
// has none it is "", and addr decides. The first of these that has a line wins: the host, its
// suffixes from the longest, the exchanger, its suffixes from the longest, the empty domain.
func (p TLSPolicies) For(host, exchanger string, addr netip.Addr) *TLSPolicy {
	if len(p.keys) == 0 {
		return nil
	}
	keys := hostKeys(host)
	for _, key := range exchangerKeys(exchanger, addr) {
		if key != "" {
			key = exchangerMark + key
		}
		keys = append(keys, key) // the last one is empty
	}
	return p.first(keys)
}

// ForHost returns the line that holds for a host whatever its exchangers are: it can be
// asked before they are known. It is nil if no line does. It is also nil where the empty
// domain has a line but an exchanger can have one before it that says TLSAuto: then what
// the host publishes may count.
func (p TLSPolicies) ForHost(host string) *TLSPolicy {
	if len(p.keys) == 0 {
		return nil
	}
	if line := p.first(hostKeys(host)); line != nil {
		return line
	}
	for key, line := range p.keys {
		if strings.HasPrefix(key, exchangerMark) && line.Level == TLSAuto {
			return nil
		}
	}
	return p.first([]string{""})
}

// MayAllowClear reports whether a line for host, or for some exchanger, allows clear text where
// control/tlsstrictness does not.
func (p TLSPolicies) MayAllowClear(host string) bool {
	allows := func(line *TLSPolicy) bool {
		return line.Level == TLSNone || line.Level == TLSMay || line.Floor == TLSMay
	}
	if line := p.first(append(hostKeys(host), "")); line != nil && allows(line) {
		return true
	}
	for key, line := range p.keys {
		if strings.HasPrefix(key, exchangerMark) && allows(&line) {
			return true
		}
	}
	return false
}

func (p TLSPolicies) first(keys []string) *TLSPolicy {
	if line, fits := p.keys.first(keys); fits {
		return &line
	}
	return nil
}

// hostKeys returns the patterns that fit HOST, without the empty one.
func hostKeys(host string) []string {
	d, err := domain.Parse(host)
	if err != nil {
		return nil
	}
	return nameKeys(d)
}
