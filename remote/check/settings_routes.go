package check

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/remote/dns"
)

// maxRelays bounds the relays that are looked up: a table can have a million.
const maxRelays = 200

// Ports where a server is no client's proxy but a mail server that others send to.
const (
	portSMTP       = 25
	portSubmission = 587
)

// A relay is a line of a routes file that has one.
type relay struct {
	control.Relay
	file     string            // without control/
	protocol *control.Protocol // by which it is spoken to; nil: there is none
	port     uint16            // where
}

// place is the name of the file for a finding.
func (r *relay) place() string { return "control/" + r.file }

// name is what the line says, for people.
func (r *relay) name() string { return fmt.Sprintf("%q", r.Name()) }

// A relayKey is what is looked at once, however many lines have it.
type relayKey struct {
	file, name string
	port       uint16
}

// A tables is what goes through all routes.
type tables struct {
	*look
	seen      map[relayKey]bool
	more      int            // relays beyond maxRelays
	wildcard  bool           // a line sends everything to a relay
	exception bool           // a line sends something to exchangers that DNS names
	empty     map[string]int // the line of the empty domain, by file
}

// routes looks at routes and their relays.
func (l *look) routes(ctx context.Context) {
	t := &tables{look: l, seen: map[relayKey]bool{}, empty: map[string]int{}}
	for i := range l.settings.Protocols {
		t.table(&l.settings.Protocols[i])
	}
	t.bySender()
	l.allRelayed = t.wildcard && !t.exception
	if t.more > 0 {
		l.note("", 0, "%d more relays were not looked at", t.more)
	}
	l.protocolPorts()
	for i := range l.relays {
		l.relayTLS(&l.relays[i])
	}
	l.relayAddresses(ctx)
}

// table goes through the routes of a protocol. Of two lines for a domain the last wins.
func (t *tables) table(p *control.Protocol) {
	file := p.Service + "routes"
	lines := map[string]int{}
	idle := 0
	err := p.Routes.Lines(func(r control.Route) {
		if earlier := lines[r.Domain]; earlier > 0 {
			if idle++; idle <= maxOfAKind {
				t.warn("control/"+file, earlier, "remove one of the two lines",
					"this line never matches: line %d has the same domain, and the last one wins", r.Relay.Line)
			}
		}
		lines[r.Domain] = r.Relay.Line
		t.take(file, p, r.Relay)
	})
	if idle > maxOfAKind {
		t.warn("control/"+file, 0, "remove one of each two lines", "%d more lines never match, for the same reason", idle-maxOfAKind)
	}
	if err != nil {
		t.failFor(err)
	}
	if line := lines[""]; line > 0 {
		t.empty[file] = line
	}
}

// take keeps a relay that is looked at later.
func (t *tables) take(file string, p *control.Protocol, r control.Relay) {
	name := r.Name()
	if name == "" {
		t.exception = true
		return
	}
	t.wildcard = t.wildcard || r.Wildcard
	if p != nil && !p.QMTP() {
		if t.relayNames[name] == 0 {
			t.relayNames[name] = r.Line
		}
	}
	if r.Port == control.SubmissionsPort && (file == "smtproutes" || file == "senderroutes") {
		p = t.settings.Service(control.Submissions)
	}
	key := relayKey{file, name, r.Port}
	switch {
	case t.seen[key]:
		return
	case len(t.relays) == maxRelays:
		t.more++
		return
	}
	t.seen[key] = true
	taken := relay{Relay: r, file: file, protocol: p, port: r.Port}
	if p != nil {
		taken.port = cmp.Or(r.Port, p.Port)
	}
	t.relays = append(t.relays, taken)
}

// bySender goes through control/senderroutes.
func (t *tables) bySender() {
	smtp := t.settings.Service(control.SMTP)
	for _, r := range t.settings.SenderRoutes.Lines() {
		r.Relay.Wildcard = r.Sender == ""
		t.take("senderroutes", smtp, r.Relay)
		t.sender("senderroutes", r.Relay.Line, r.Sender)
		if r.Sender != "" {
			continue
		}
		for file, line := range t.empty {
			t.warn("control/"+file, line, "remove one of the two lines",
				"this line never matches: control/senderroutes:%d is for every sender, and comes before lines of the empty domain", r.Relay.Line)
		}
	}
}

// sender warns of the sender of a line that no envelope has. It quotes nothing: the line may be
// one of control/credentials.
func (l *look) sender(file string, line int, sender string) {
	local, _, isAddress := strings.Cut(sender, "@")
	what, do := "", ""
	switch {
	case sender == "" || sender == "<>":
	case !isAddress && strings.Contains(sender, "."):
		what = "this line never matches a domain: its sender has no @, and is compared with whole senders"
		do = "write @domain for all senders of a domain, @.domain for those below it"
	case strings.Contains(sender, "*"):
		what = "this line never matches: in a sender * is a character like others"
		do = "write @domain for all senders of a domain, nothing for all senders"
	case strings.HasPrefix(local, `"`):
		what = "this line never matches: envelope senders are compared without quotes"
		do = "write the local part without quotes"
	}
	if what != "" {
		l.warn("control/"+file, line, do, "%s", what)
	}
}

// protocolPorts warns of lines of control/protocols with the TLS of another port.
func (l *look) protocolPorts() {
	for i := range l.settings.Protocols {
		p := &l.settings.Protocols[i]
		const do = "write Y:N behind the slice, or take port 587"
		switch {
		case p.Line == 0:
		case p.Port == control.SubmissionsPort && !p.Implicit:
			l.warn("control/protocols", p.Line, do, "port 465 is spoken without implicit TLS, and a server there never speaks first")
		case p.Service == control.Submissions && !p.Implicit:
			l.warn("control/protocols", p.Line, do, "relays with port 465 are spoken to by this line, which has no implicit TLS")
		case p.Implicit && (p.Port == portSMTP || p.Port == portSubmission):
			l.warn("control/protocols", p.Line, "write N:Y behind the slice", "port %d is spoken with implicit TLS, and servers there want STARTTLS", p.Port)
		}
	}
}

// relayTLS looks at how a relay has TLS.
func (l *look) relayTLS(r *relay) {
	p := r.protocol
	switch {
	case p == nil:
	case r.port == control.SubmissionsPort && !p.Implicit && p.Port != control.SubmissionsPort && p.Service != control.Submissions:
		l.warn(r.place(), r.Line, "move the line to control/submissionsroutes, or have implicit TLS in the protocol",
			"port 465 of %s is spoken without implicit TLS, and a server there never speaks first", r.name())
	case r.Port == portSubmission && p.Implicit:
		l.warn(r.place(), r.Line, "move the line to control/smtproutes, where port 587 is spoken with STARTTLS, or take port 465",
			"port 587 of %s is spoken with implicit TLS, and servers there want STARTTLS", r.name())
	case p.Implicit && !l.settings.HasTLS(p) && !l.isBroken("trustanchors", "trustresolvers", "tlsclient"):
		l.fail(r.place(), r.Line, "name the CA certificates in control/trustanchors (INSTALL.md, section 5)",
			"expected TLS for the relay %s, and there is none: control/trustanchors names nothing", r.name())
	}
}

// relayAddresses looks the relays up.
func (l *look) relayAddresses(ctx context.Context) {
	var questions []dns.Question
	for _, r := range l.relays {
		if r.Host != "" {
			questions = append(questions, addressQuestions(r.Name())...)
		}
	}
	slices.SortFunc(questions, func(a, b dns.Question) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), cmp.Compare(a.Type, b.Type))
	})
	questions = slices.Compact(questions)
	var answers map[dns.Question]*dns.Answer
	if l.canAsk() {
		answers = l.ask(ctx, questions)
	}
	for i := range l.relays {
		r := &l.relays[i]
		if r.Addr.IsValid() {
			l.relayIsOurs(r, []netip.Addr{r.Addr})
		} else if answers != nil {
			l.relayResolves(r, answers)
		}
	}
}

func addressQuestions(name string) []dns.Question {
	return []dns.Question{{Name: name, Type: dns.TypeA}, {Name: name, Type: dns.TypeAAAA}}
}

// addressesOf returns the addresses of a name, and the lookup that failed for now if there are none.
func addressesOf(name string, answers map[dns.Question]*dns.Answer) (addrs []netip.Addr, failed *dns.Answer) {
	for _, q := range addressQuestions(name) {
		a := answers[q]
		if a.Failed() {
			failed = a
		}
		addrs = append(addrs, a.Addrs...)
	}
	if len(addrs) > 0 {
		failed = nil
	}
	return addrs, failed
}

func (l *look) relayResolves(r *relay, answers map[dns.Question]*dns.Answer) {
	addrs, failed := addressesOf(r.Name(), answers)
	switch {
	case failed != nil:
		l.warn(r.place(), r.Line, "see whether its name servers answer: dig "+r.Name(), "the relay %s cannot be looked up for now: %v", r.name(), failed.Err)
	case len(addrs) == 0:
		l.fail(r.place(), r.Line, "correct the name, or give it an address in the DNS", "the relay %s has no address, so mail for it waits", r.name())
	default:
		l.relayIsOurs(r, addrs)
	}
}

// relayIsOurs warns of a relay that is this host at a port of its own mail server. At another
// port there may be a proxy or a tunnel.
func (l *look) relayIsOurs(r *relay, addrs []netip.Addr) {
	standard := r.port == portSMTP || r.protocol != nil && r.protocol.QMTP() && r.port == r.protocol.Port
	if i := slices.IndexFunc(addrs, l.isOurs); i >= 0 && standard {
		l.warn(r.place(), r.Line, "name another relay, or the port of the proxy if there is one",
			"the relay %s is this host (%s): mail may come back and loop", r.name(), addrs[i])
	}
}

// matches reports whether a key of an exchanger fits some relay.
func (l *look) matches(key string) bool {
	fits := func(name string) bool {
		addr, err := netip.ParseAddr(name)
		return key == name || err == nil && key == "["+addr.String()+"]" || err != nil && strings.HasPrefix(key, ".") && strings.HasSuffix(name, key)
	}
	if key == "" || slices.ContainsFunc(l.relays, func(r relay) bool { return fits(r.Name()) }) {
		return true
	}
	for name := range l.relayNames {
		if fits(name) {
			return true
		}
	}
	return false
}

// exchangerMatches warns of a line for an exchanger that is never reached.
func (l *look) exchangerMatches(file string, line int, key string) {
	if l.allRelayed && len(l.relays) < maxRelays && !l.matches(key) {
		l.warn("control/"+file, line, "name the relay as its route does, or remove the line",
			"this line never matches: all mail goes to relays, and %q is none of them", key)
	}
}

// logins looks at control/credentials, and says nothing of its users and secrets.
func (l *look) logins(context.Context) {
	const file = "control/credentials"
	for _, line := range l.survey.Credentials.Lines() {
		c := &line.Credential
		l.sender("credentials", c.Line, line.Sender)
		if l.relayNames[line.Relay] == 0 && !l.isBroken("smtproutes", "submissionsroutes", "senderroutes", "protocols") {
			l.warn(file, c.Line, "spell the relay as its route does, without port; a login is said to relays alone",
				"no route of SMTP names the relay %q, so this login is never said", line.Relay)
		}
		if _, err := c.Read(); err != nil {
			l.failFor(err)
			continue
		}
		l.canBeSecret(line.Relay, c)
	}
}

// canBeSecret finds a login whose secret no way to its relay may carry.
func (l *look) canBeSecret(name string, c *control.Credential) {
	const file = "control/credentials"
	if c.Clear || l.isBroken("trustanchors", "trustresolvers", "tlsclient", "ucspitlsclient", "protocols", "tlspolicy") {
		return
	}
	for i := range l.relays {
		r := &l.relays[i]
		if r.Name() != name || r.protocol == nil || r.protocol.QMTP() || l.has(file, c.Line) {
			continue
		}
		policy := l.settings.TLSPolicy.For("", r.Host, r.Addr)
		switch {
		case !l.settings.HasTLS(r.protocol):
			l.fail(file, c.Line, "name the CA certificates in control/trustanchors (INSTALL.md, section 5); the option clear does without TLS",
				"expected TLS for this login, and there is none: control/trustanchors names nothing, or %s has no TLS", r.protocol.Service)
		case !c.Unverified && !l.settings.CanVerify():
			l.fail(file, c.Line, "name the CA certificates in control/trustanchors (INSTALL.md, section 5); the option unverified does without",
				"expected trust anchors for this login, and control/trustanchors names nothing")
		case policy != nil && policy.Level == control.TLSNone:
			l.fail(file, c.Line, "remove none from control/tlspolicy, or write the option clear here",
				"expected TLS for this login, and %s forbids it", policy.Place())
		}
	}
}
