package control

import (
	"fmt"
	"strings"

	"nightmare.mail/mxf/control/domain"
)

// A Trace says which deliveries are traced, and to which file.
type Trace struct {
	File    string   // absolute path; empty: nothing is traced
	Domains []string // as parsePattern returns them; none: all deliveries are traced
}

// For returns the file that a delivery to host is traced to, or "". host is the
// router's argument as it came.
func (t Trace) For(host string) string {
	if len(t.Domains) == 0 {
		return t.File
	}
	d, err := domain.Parse(host)
	if err != nil {
		return ""
	}
	for _, pattern := range t.Domains {
		if d.String() == pattern || pattern[0] == '.' && strings.HasSuffix(d.String(), pattern) {
			return t.File
		}
	}
	return ""
}

// trace reads one line: a path, then domains. The trace file is not looked at here: if
// nobody can write to it the mail goes all the same.
func (d dir) trace(s *Settings) error {
	value, err := d.path("trace")
	if err != nil || value == "" {
		return err
	}
	words := strings.FieldsFunc(value, func(r rune) bool { return r < 0x80 && isBlank(byte(r)) })
	s.Trace.File = d.absolute(words[0])
	for _, word := range words[1:] {
		pattern, err := parsePattern(word)
		if err != nil {
			return d.malformed("trace", 1, fmt.Sprintf(
				"expected a path and then domains, .suffixes or addresses in brackets, found %s", found(word)))
		}
		s.Trace.Domains = append(s.Trace.Domains, pattern)
	}
	return nil
}
