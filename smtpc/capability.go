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
)

// parseCapabilities reads the reply to EHLO, whose first line is a greeting.
func parseCapabilities(r *reply) capabilities {
	c := make(capabilities)
	lines := strings.Split(r.Text, "\n")
	for _, line := range lines[1:] {
		if len(line) < 4 {
			continue
		}
		keyword, parameters, _ := strings.Cut(strings.TrimSpace(line[4:]), " ")
		keyword = strings.ToUpper(keyword)
		if _, twice := c[keyword]; keyword != "" && !twice {
			c[keyword] = strings.TrimSpace(parameters)
		}
	}
	return c
}

func (c capabilities) offers(keyword string) bool {
	_, ok := c[keyword]
	return ok
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
