package control

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"nightmare.mail/mxf/control/avoid"
	"nightmare.mail/mxf/control/domain"
)

// Avoided is what servers must not be asked for although they offer it, in the order of
// the file.
type Avoided []avoided

type avoided struct {
	exchanger string // as parsePattern returns it
	set       avoid.Set
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
		set, err := avoid.Parse(string(words))
		var unknown *avoid.WordError
		if errors.As(err, &unknown) {
			return fmt.Sprintf("expected words of %s with commas between, found %s", avoid.Known(), found(unknown.Word))
		}
		s.SMTPAvoid = append(s.SMTPAvoid, avoided{pattern, set, line})
		return ""
	})
}

// Lookup returns what a server must not be asked for and the line that says so, or nothing
// and line 0. host is the server's name as the record spells it, "" if it has none. The
// first of these that has a line wins: the name, its suffixes from the longest, the
// address, the empty pattern. If it has two lines the first of them wins.
func (a Avoided) Lookup(host string, addr netip.Addr) (set avoid.Set, line int) {
	if len(a) == 0 {
		return set, 0
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
			return a[i].set, a[i].line
		}
	}
	return set, 0
}
