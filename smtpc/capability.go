package smtpc

import (
	"strconv"
	"strings"
)

// capabilities are the extensions that EHLO announced: keyword in capitals to
// parameters as they were written.
type capabilities map[string]string

// The extensions that the conversation makes use of.
const (
	extPipelining = "PIPELINING"
	extSize       = "SIZE"
	ext8BitMIME   = "8BITMIME"
	extSMTPUTF8   = "SMTPUTF8"
	extStartTLS   = "STARTTLS"
	extAuth       = "AUTH"
	extLimits     = "LIMITS"
)

// parseCapabilities reads the reply to EHLO, whose first line is a greeting.
func parseCapabilities(r *reply) capabilities {
	c := make(capabilities)
	lines := strings.Split(r.raw, "\n")
	for _, line := range lines[1:] {
		if len(line) < 4 {
			continue
		}
		keyword, parameters, _ := strings.Cut(strings.TrimSpace(line[4:]), " ")
		keyword = strings.ToUpper(keyword)
		// Before RFC 2554 some wrote AUTH=, for clients that know no other form. Many
		// write both.
		if old, ok := strings.CutPrefix(keyword, extAuth+"="); ok {
			keyword, parameters = extAuth, old+" "+parameters
		}
		if keyword == extAuth {
			c[extAuth] = strings.TrimSpace(c[extAuth] + " " + parameters)
			continue
		}
		if _, twice := c[keyword]; keyword != "" && !twice {
			c[keyword] = strings.TrimSpace(parameters)
		}
	}
	return c
}

// announced are the lines of the reply to EHLO behind the first, without their code.
func announced(r *reply) []string {
	var lines []string
	for line := range strings.SplitSeq(r.Text, "\n") {
		lines = append(lines, strings.TrimSpace(line[min(len(line), len("250-")):]))
	}
	return lines[1:]
}

func (c capabilities) offers(keyword string) bool {
	_, ok := c[keyword]
	return ok
}

// mechanisms are those of AUTH (RFC 4954 section 3), in capitals, each once.
func (c capabilities) mechanisms() []string {
	var names []string
	seen := make(map[string]bool)
	for name := range strings.FieldsSeq(strings.ToUpper(c[extAuth])) {
		if !seen[name] {
			names = append(names, name)
		}
		seen[name] = true
	}
	return names
}

// sizeLimit is the largest message that SIZE allows, in bytes, or 0 when no
// limit was announced (RFC 1870 section 4).
func (c capabilities) sizeLimit() int64 {
	n, err := strconv.ParseInt(c[extSize], 10, 64)
	if err != nil || n < 0 {
		return 0
	}
	return n
}

// ServerLimits are what a server takes by its own account (RFC 9422); 0: it has not said.
type ServerLimits struct {
	// MailMax is how many MAIL commands it takes in a session, accepted or not, 1 to 999,999.
	MailMax int
	// RcptMax is how many RCPT commands it takes in a transaction, 1 to 999,999.
	RcptMax int
}

// maxLimitDigits is the length of the largest limit (RFC 9422 section 4).
const maxLimitDigits = 6

// limits reads LIMITS (RFC 9422 section 3). Values that are malformed do not count, nor does the
// name of a limit that is not known here: RCPTDOMAINMAX, for one. All recipients of a transaction
// have one domain as a rule, so it would bound nothing. Of a limit that comes twice the lesser
// one holds.
func (c capabilities) limits() ServerLimits {
	var l ServerLimits
	for word := range strings.FieldsSeq(strings.ToUpper(c[extLimits])) {
		name, value, _ := strings.Cut(word, "=")
		limit := limitOf(value)
		switch {
		case limit == 0:
		case name == "MAILMAX":
			l.MailMax = lesser(l.MailMax, limit)
		case name == "RCPTMAX":
			l.RcptMax = lesser(l.RcptMax, limit)
		}
	}
	return l
}

// limitOf reads the value of a limit: digits, the first not 0. It is 0 for anything else.
func limitOf(value string) int {
	if value == "" || value[0] == '0' || len(value) > maxLimitDigits || strings.Trim(value, "0123456789") != "" {
		return 0
	}
	n, _ := strconv.Atoi(value)
	return n
}

// lesser is the lesser of two limits of which the first may be none, which is 0.
func lesser(a, b int) int {
	if a == 0 {
		return b
	}
	return min(a, b)
}
