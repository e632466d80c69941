package control

import (
	"fmt"
	"net/netip"

	"nightmare.mail/mxf/control/domain"
)

// A Source is one line of control/sources: where we connect from in one family, and what
// we say our name is.
type Source struct {
	Line int        // from 1; 0: the family is not used
	Addr netip.Addr // ours, to be bound; invalid: the system picks one
	Helo string     // as Client.HeloHost; "": that one
}

// Sources are our addresses and names by sender. There is one line at most for each sender
// and family.
type Sources struct{ senders keyed[bothFamilies] }

// bothFamilies has a line for IPv4 and one for IPv6.
type bothFamilies struct{ four, six Source }

func (d dir) sources(s *Settings) error {
	data, err := d.read("sources")
	if err != nil {
		return err
	}
	s.Sources, err = d.parseSources(data)
	return err
}

func (d dir) parseSources(data []byte) (sources Sources, err error) {
	err = d.entries("sources", data, func(line int, entry string) string {
		key, family, source, problem := parseSource(entry)
		if problem != "" {
			return problem
		}
		source.Line = line
		both := sources.senders[key]
		of := &both.four
		if family == IPv6 {
			of = &both.six
		}
		if of.Line != 0 {
			return fmt.Sprintf("expected each sender once for %s, found this one for the second time", family)
		}
		*of = source
		sources.senders.set(key, both)
		return ""
	})
	if err != nil {
		return Sources{}, err
	}
	return sources, nil
}

// parseSource parses sender:source or sender:source:helo. problem says what is wrong, and
// is "" if nothing is.
func parseSource(entry string) (key string, family Family, source Source, problem string) {
	wrong := func(problem string) (string, Family, Source, string) { return "", Both, Source{}, problem }
	field := allFields(entry)
	if len(field) != 2 && len(field) != 3 {
		return wrong(fmt.Sprintf("expected sender:source or sender:source:helo, an IPv6 address in brackets, found %s", foundFields(field)))
	}
	if key, problem = parseSender(field[0]); problem != "" {
		return wrong(problem)
	}
	if family, source.Addr, problem = parseSourceAddr(field[1]); problem != "" {
		return wrong(problem)
	}
	if len(field) == 3 {
		if field[2] == "" {
			return wrong("expected a host name after the second colon, or no second colon, found nothing")
		}
		if source.Helo, problem = parseHeloHost(field[2]); problem != "" {
			return wrong(problem)
		}
	}
	return key, family, source, ""
}

// parseSourceAddr reads an address, or a family whose address the system picks.
func parseSourceAddr(s string) (family Family, addr netip.Addr, problem string) {
	if family, known := familyWords[s]; known {
		return family, addr, ""
	}
	wrong := fmt.Sprintf("expected an IPv4 address, an IPv6 address in brackets, ipv4 or ipv6 as the source, found %s", found(s))
	if addr, err := netip.ParseAddr(s); err == nil && addr.Is4() && isHost(addr) {
		return IPv4, addr, ""
	}
	literal, err := domain.Parse(s)
	if addr = literal.Addr(); err != nil || !addr.Is6() || !isHost(addr) {
		return Both, netip.Addr{}, wrong
	}
	return IPv6, addr, ""
}

// isHost reports whether addr can be that of one host. The kernel binds others, and speaks from
// an address of its own choice.
func isHost(addr netip.Addr) bool {
	broadcast := addr == netip.AddrFrom4([4]byte{255, 255, 255, 255})
	return !addr.IsUnspecified() && !addr.IsMulticast() && !broadcast
}

// For returns what holds for an envelope sender, for each family, and whether any line fits
// it. If one does, a family whose Source has line 0 is not used. If none does, both
// families are used, unbound, with the name of helohost. sender is as in the argument, ""
// for the null sender.
func (s Sources) For(sender string) (four, six Source, fits bool) {
	both, fits := s.senders.first(senderKeys(sender))
	return both.four, both.six, fits
}

// A Family is a restriction to one of the two families of addresses.
type Family int

// The families. Both is no restriction.
const (
	Both Family = iota
	IPv4
	IPv6
)

// familyWords are the families as files name them.
var familyWords = map[string]Family{"ipv4": IPv4, "ipv6": IPv6}

func (f Family) String() string {
	for word, family := range familyWords {
		if f == family {
			return word
		}
	}
	return "both"
}

// Allows reports whether addr may be used.
func (f Family) Allows(addr netip.Addr) bool {
	return f == Both || addr.IsValid() && addr.Unmap().Is4() == (f == IPv4)
}

// Families are the families of addresses that exchangers are reached by.
type Families struct{ exchangers keyed[familyLine] }

type familyLine struct {
	only Family
	line int
}

func (d dir) families(s *Settings) error {
	data, err := d.read("families")
	if err != nil {
		return err
	}
	s.Families, err = d.parseFamilies(data)
	return err
}

func (d dir) parseFamilies(data []byte) (families Families, err error) {
	err = d.entries("families", data, func(line int, entry string) string {
		field := allFields(entry)
		if len(field) != 2 {
			return "expected exchanger:family, found " + foundFields(field)
		}
		key, problem := parseExchanger(field[0])
		if problem != "" {
			return problem
		}
		only, known := familyWords[field[1]]
		if !known {
			return fmt.Sprintf("expected ipv4 or ipv6 as the family, found %s", found(field[1]))
		}
		if !families.exchangers.add(key, familyLine{only, line}) {
			return "expected each exchanger once, found this one for the second time"
		}
		return ""
	})
	if err != nil {
		return Families{}, err
	}
	return families, nil
}

// For returns the family that an exchanger is reached by and the line that says so, or
// Both and 0. host is the exchanger's name as the record or the route spells it. If it has
// none, as an address literal or a relay that is an address, host is "" and addr decides.
func (f Families) For(host string, addr netip.Addr) (only Family, line int) {
	fits, _ := f.exchangers.first(exchangerKeys(host, addr))
	return fits.only, fits.line
}
