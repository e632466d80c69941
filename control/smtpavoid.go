package control

import (
	"errors"
	"fmt"
	"net/netip"

	"nightmare.mail/mxf/control/avoid"
	"nightmare.mail/mxf/control/domain"
)

// Avoided is what servers must not be asked for although they offer it.
type Avoided struct{ exchangers keyed[avoided] }

type avoided struct {
	set  avoid.Set
	line int
}

func (d dir) smtpAvoid(s *Settings) error {
	data, err := d.read("smtpavoid")
	if err != nil {
		return err
	}
	return d.entries("smtpavoid", data, func(line int, entry string) string {
		exchanger, words, _ := cutField(entry)
		if words == "" {
			return fmt.Sprintf("expected exchanger:word,word, found %s", found(entry))
		}
		key, problem := parseExchanger(exchanger)
		if problem != "" {
			return problem
		}
		set, err := avoid.Parse(words)
		var unknown *avoid.WordError
		if errors.As(err, &unknown) {
			return fmt.Sprintf("expected words of %s with commas between, found %s", avoid.Known(), found(unknown.Word))
		}
		if !s.SMTPAvoid.exchangers.add(key, avoided{set, line}) { // the first of two lines stays
			d.all.idle("smtpavoid", line, s.SMTPAvoid.exchangers[key].line)
		}
		return ""
	})
}

// Lookup returns what a server must not be asked for and the line that says so, or nothing
// and line 0. host is the server's name as the record spells it, "" if it has none. The
// first of these that has a line wins: the name, its suffixes from the longest, the
// address, the empty pattern. If it has two lines the first of them wins.
func (a Avoided) Lookup(host string, addr netip.Addr) (set avoid.Set, line int) {
	if len(a.exchangers) == 0 {
		return set, 0
	}
	var keys []string
	if name, err := domain.Parse(host); err == nil && !name.Addr().IsValid() {
		keys = nameKeys(name)
	}
	// Unlike in the other files, the address of a server that has a name counts too.
	fits, _ := a.exchangers.first(append(keys, literalKey(addr), ""))
	return fits.set, fits.line
}
