// Package mtasts is MTA-STS without the network: the TXT record, the policy, what it
// matches, the cache of policies, and what is to be done when a delivery begins. Package
// fetch, below it, gets a policy by HTTPS.
//
//	RFC 8461 3.1     the TXT record
//	RFC 8461 3.2     the policy
//	RFC 8461 4.1     which exchangers it names
//	RFC 8461 5.1     when it is fetched again
//	RFC 8460 4.3     what a failed fetch is called
package mtasts

import "strings"

const (
	// MaxDomain is the longest policy domain, in bytes: with "mta-sts." in front of it, it
	// must be a name (RFC 1035 2.3.4).
	MaxDomain = 245

	maxID        = 32 // bytes, RFC 8461 3.1
	maxFieldName = 32 // bytes, RFC 8461 3.1 and 3.2
)

// RecordName is the name at which the TXT record of a policy domain is. It is "" for a
// domain that is too long to have a policy.
func RecordName(domain string) string {
	if len(domain) > MaxDomain {
		return ""
	}
	return "_mta-sts." + domain
}

// HostName is the name of the HTTPS server of a policy domain.
func HostName(domain string) string { return "mta-sts." + domain }

// ParseRecord returns the id in the TXT records of a policy domain, the strings of each
// joined. It is "" where there is no MTA-STS: no record begins as one does, or several do,
// or the one is malformed. Of two ids in one record the first counts, as in a policy.
func ParseRecord(texts []string) (id string) {
	var fields string
	found := 0
	for _, text := range texts {
		if rest, ok := afterVersion(text); ok {
			fields = rest
			found++
		}
	}
	if found != 1 {
		return ""
	}
	fields = strings.TrimRight(fields, blanks)
	fields = strings.TrimSuffix(fields, ";") // the last field may have one behind it
	for field := range strings.SplitSeq(fields, ";") {
		name, value, _ := strings.Cut(strings.Trim(field, blanks), "=")
		if !isFieldName(name) || !isFieldValue(value) {
			return ""
		}
		if name == "id" && id == "" {
			if id = value; !IsID(id) {
				return ""
			}
		}
	}
	return id
}

const blanks = " \t"

// afterVersion returns what follows the version of a record and its semicolon.
func afterVersion(text string) (rest string, ok bool) {
	rest, ok = strings.CutPrefix(text, "v=STSv1")
	if !ok {
		return "", false
	}
	return strings.CutPrefix(strings.TrimLeft(rest, blanks), ";")
}

// IsID reports whether s can be the id of a record.
func IsID(s string) bool {
	return len(s) > 0 && len(s) <= maxID && strings.IndexFunc(s, func(r rune) bool { return !isAlphanumeric(r) }) < 0
}

// isFieldName is sts-ext-name and sts-policy-ext-name of RFC 8461.
func isFieldName(s string) bool {
	other := func(r rune) bool { return !isAlphanumeric(r) && r != '_' && r != '-' && r != '.' }
	return len(s) > 0 && len(s) <= maxFieldName && isAlphanumeric(rune(s[0])) && strings.IndexFunc(s, other) < 0
}

// isFieldValue is sts-ext-value of RFC 8461: what is visible in ASCII, without "=" and ";".
func isFieldValue(s string) bool {
	other := func(r rune) bool { return r <= ' ' || r > '~' || r == '=' || r == ';' }
	return len(s) > 0 && strings.IndexFunc(s, other) < 0
}

func isAlphanumeric(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9'
}
