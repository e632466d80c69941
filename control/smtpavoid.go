package control

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"nightmare.mail/mxf/control/domain"
)

// avoidable are the words of control/smtpavoid.
var avoidable = []string{"PIPELINING", "SIZE", "8BITMIME", "SMTPUTF8", "EHLO"}

// Avoided is what servers must not be asked for although they offer it, in the order of
// the file.
type Avoided []avoided

type avoided struct {
	exchanger string // as parsePattern returns it
	words     []string
	line      int
}

func (d dir) smtpAvoid(s *Settings) error {
	data, err := d.read("smtpavoid")
	if err != nil {
		return err
	}
	return d.entries("smtpavoid", data, func(line int, entry string) string {
		exchanger, words, ok := cutRoute([]byte(entry))
		if !ok || len(words) == 0 {
			return fmt.Sprintf("expected exchanger:word,word, found %s", found(entry))
		}
		pattern, err := parsePattern(string(exchanger))
		if err != nil {
			return fmt.Sprintf("expected a host name, a suffix that begins with a dot, or an address in brackets, found %s", found(string(exchanger)))
		}
		a := avoided{exchanger: pattern, line: line}
		for word := range strings.SplitSeq(string(words), ",") {
			if !slices.Contains(avoidable, word) {
				return fmt.Sprintf("expected words of %s with commas between, found %s", strings.Join(avoidable, ", "), found(word))
			}
			a.words = append(a.words, word)
		}
		s.SMTPAvoid = append(s.SMTPAvoid, a)
		return ""
	})
}

// Lookup returns the words for a server and the line that has them, or no words and
// line 0. host is the server's name as the record spells it, "" if it has none. The
// first of these that has a line wins: the name, its suffixes from the longest, the
// address, the empty pattern. If it has two lines the first of them wins.
func (a Avoided) Lookup(host string, addr netip.Addr) (words []string, line int) {
	if len(a) == 0 {
		return nil, 0
	}
	var patterns []string
	if name, err := domain.Parse(host); err == nil && !name.Addr().IsValid() {
		patterns = append(patterns, name.String())
		for rest := name.String(); ; {
			_, after, found := strings.Cut(rest, ".")
			if !found {
				break
			}
			patterns = append(patterns, "."+after)
			rest = after
		}
	}
	patterns = append(patterns, "["+addr.Unmap().WithZone("").String()+"]", "")
	for _, pattern := range patterns {
		if i := slices.IndexFunc(a, func(e avoided) bool { return e.exchanger == pattern }); i >= 0 {
			return a[i].words, a[i].line
		}
	}
	return nil, 0
}
