package check

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"strings"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/control/domain"
	"nightmare.mail/mxf/remote/dns"
)

// Addresses of root servers (a.root-servers.net): whatever has a way to the Internet has a way
// to these. Nothing is sent there.
var (
	somewhere4 = netip.AddrFrom4([4]byte{198, 41, 0, 4})
	somewhere6 = netip.AddrFrom16([16]byte{0x20, 0x01, 0x05, 0x03, 0xba, 0x3e, 15: 0x30, 13: 0x02})
)

// An appearance is how a server sees us: the address that we come from, and the name that we say.
type appearance struct {
	addr netip.Addr
	helo string
	file string
	line int
}

// names looks at what we say our name is, once for each source address.
func (l *look) names(ctx context.Context) {
	all := l.appearances()
	var helos []string
	for _, a := range all {
		if !slices.Contains(helos, a.helo) {
			helos = append(helos, a.helo)
			l.helo(&a)
		}
	}
	if !l.canAsk() {
		return
	}
	var questions []dns.Question
	for _, helo := range helos {
		if isHostName(helo) {
			questions = append(questions, addressQuestions(lower(helo))...)
		}
	}
	for i := range all {
		if q := all[i].reverse(); !slices.Contains(questions, q) {
			questions = append(questions, q)
		}
	}
	answers := l.ask(ctx, questions)
	for i := range all {
		l.appearance(&all[i], answers)
	}
}

// appearances lists each source address with each name that goes with it.
func (l *look) appearances() []appearance {
	var all []appearance
	add := func(addr netip.Addr, helo, file string, line int) {
		same := func(a appearance) bool { return a.addr == addr && a.helo == helo }
		if addr.IsValid() && helo != "" && !slices.ContainsFunc(all, same) {
			all = append(all, appearance{addr, helo, file, line})
		}
	}
	everybody := false // has lines of its own, and no sender takes the default
	for _, s := range l.settings.Sources.Lines() {
		everybody = everybody || s.Sender == ""
		addr := s.Source.Addr
		if !addr.IsValid() {
			addr = l.outgoing(s.Family)
		}
		add(addr, cmp.Or(s.Source.Helo, l.settings.HeloHost), "control/sources", s.Source.Line)
	}
	if everybody {
		return all
	}
	file, line := "control/me", 1
	if f := l.survey.File("helohost"); f != nil && f.Value != "" {
		file = "control/helohost"
	}
	for _, family := range []control.Family{control.IPv4, control.IPv6} {
		if l.uses(family) {
			add(l.outgoing(family), l.settings.HeloHost, file, line)
		}
	}
	return all
}

// uses reports whether control/families lets a family be used towards some exchanger.
func (l *look) uses(family control.Family) bool {
	lines := l.settings.Families.Lines()
	everybody := slices.IndexFunc(lines, func(f control.FamilyLine) bool { return f.Exchanger == "" })
	return everybody < 0 || slices.ContainsFunc(lines, func(f control.FamilyLine) bool { return f.Only == family })
}

// outgoing is the address that the system picks in a family, the zero Addr if it has no way.
func (l *look) outgoing(family control.Family) netip.Addr {
	to := somewhere4
	if family == control.IPv6 {
		to = somewhere6
	}
	addr, err := l.LocalAddr(to)
	if err != nil {
		return netip.Addr{}
	}
	return addr
}

// helo looks at the name alone.
func (l *look) helo(a *appearance) {
	const do = "write the full name of this host, one that has an address in the DNS"
	switch {
	case strings.HasPrefix(a.helo, "["):
		l.note(a.file, a.line, "we say the address literal %q, which some servers do not like", a.helo)
	case !strings.Contains(strings.TrimSuffix(a.helo, "."), "."):
		l.warn(a.file, a.line, do, "the name %q has no dot, and many servers refuse it", a.helo)
	case !isHostName(a.helo):
		l.warn(a.file, a.line, do, "%q is no host name, and many servers refuse it", a.helo)
	}
}

func isHostName(helo string) bool {
	_, err := domain.HostName(helo)
	return err == nil && strings.Contains(strings.TrimSuffix(helo, "."), ".")
}

// lower is the one form of a name.
func lower(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

func (a *appearance) reverse() dns.Question {
	return dns.Question{Name: dns.ReverseName(a.addr), Type: dns.TypePTR}
}

func (a *appearance) kind() string {
	if a.addr.Is4() {
		return "A"
	}
	return "AAAA"
}

// appearance looks at what the DNS says of a name and an address.
func (l *look) appearance(a *appearance, answers map[dns.Question]*dns.Answer) {
	if a.addr.IsPrivate() || a.addr.IsLoopback() || a.addr.IsLinkLocalUnicast() {
		l.note(a.file, a.line, "we connect from %s, which others do not see: whether %q fits the address that they see is not known here", a.addr, a.helo)
		return
	}
	good := l.forward(a, answers)
	reverse := answers[a.reverse()]
	isHelo := func(name string) bool { return lower(name) == lower(a.helo) }
	switch {
	case reverse.Failed():
		l.note(a.file, a.line, "the reverse name of %s cannot be looked up for now: %v", a.addr, reverse.Err)
	case len(reverse.PTR) == 0:
		name := a.helo
		if !isHostName(name) {
			name = "the full name of this host"
		}
		l.warn(a.file, a.line, "have who gave you the address enter "+name+" as its reverse name (PTR)",
			"the address %s that we send from has no reverse name, and many servers refuse such mail", a.addr)
	case !slices.ContainsFunc(reverse.PTR, isHelo):
		l.warn(a.file, a.line, "make the two the same: another name here, or another PTR record with who gave you the address",
			"the reverse name of %s, which we send from, is %s and not %q", a.addr, listed(reverse.PTR), a.helo)
	case good:
		l.ok(a.file, a.line, "%q has the address %s that we send from, and is its reverse name", a.helo, a.addr)
	}
}

// forward reports whether the name has the address.
func (l *look) forward(a *appearance, answers map[dns.Question]*dns.Answer) bool {
	if !isHostName(a.helo) {
		return false
	}
	addrs, failed := addressesOf(lower(a.helo), answers)
	do := "give the name an " + a.kind() + " record with " + a.addr.String() + ", or say another name"
	ofFamily := slices.DeleteFunc(slices.Clone(addrs), func(b netip.Addr) bool { return a.addr.Is4() != b.Is4() })
	switch {
	case failed != nil:
		l.note(a.file, a.line, "the addresses of %q cannot be looked up for now: %v", a.helo, failed.Err)
	case len(addrs) == 0:
		l.warn(a.file, a.line, do, "the name %q that we say has no address, and many servers refuse it", a.helo)
	case len(ofFamily) == 0:
		l.warn(a.file, a.line, do, "the name %q that we say has no %s record, and we send from %s", a.helo, a.kind(), a.addr)
	case !slices.Contains(ofFamily, a.addr):
		l.warn(a.file, a.line, do, "we send from %s, which is none of the addresses of %q (%s)", a.addr, a.helo, listed(ofFamily))
	default:
		return true
	}
	return false
}
