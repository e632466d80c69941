package control

import (
	"cmp"
	"slices"
)

// What follows lists the lines of files, for who explains them; a delivery asks for the one
// that fits. Keys are in their one form. Lines are in the order of the file.

// A Route is one line of a routes file.
type Route struct {
	Domain string // a name, .suffix, an address in brackets, or "" for all
	Relay  Relay
}

// Lines calls each for every line of the table that has no mistake. The error is an *Error:
// a long table is read again.
func (r *Routes) Lines(each func(Route)) error {
	if r == nil {
		return nil
	}
	list := func(block []byte, before int) error {
		for line := before + 1; len(block) > 0; line++ {
			var entry []byte
			entry, block = cutLine(block)
			if route, ok := parseRoute(entry); ok {
				route.Relay.Line = line
				each(route)
			}
		}
		return nil
	}
	if r.info == nil {
		return list(r.data, 0)
	}
	lenient := *r
	lenient.dir.all = newCollector() // that a line is too long was said before
	return lenient.blocks(list)
}

// parseRoute parses a line that has been checked. It is false for one without a route, and
// for one with a mistake.
func parseRoute(entry []byte) (route Route, ok bool) {
	if len(entry) == 0 || entry[0] == '#' || len(entry) > MaxLine {
		return Route{}, false
	}
	pattern, to, ok := cutRoute(entry)
	if !ok {
		return Route{}, false
	}
	key, err := parsePattern(string(pattern))
	relay, problem := parseRelay(string(to))
	relay.Wildcard = key == ""
	return Route{Domain: key, Relay: relay}, err == nil && problem == ""
}

// A SenderRoute is one line of control/senderroutes.
type SenderRoute struct {
	Sender string // as parsed: "" for all, <> for the null sender
	Relay  Relay
}

// Lines returns all lines.
func (r SenderRoutes) Lines() []SenderRoute {
	var all []SenderRoute
	for sender, relay := range r.senders {
		all = append(all, SenderRoute{sender, relay})
	}
	return byLine(all, func(r SenderRoute) int { return r.Relay.Line })
}

// A CredentialLine is one line of control/credentials.
type CredentialLine struct {
	Relay, Sender string // Relay as [Relay.Name] returns it
	Credential    Credential
}

// Lines returns all lines.
func (c Credentials) Lines() []CredentialLine {
	var all []CredentialLine
	for relay, senders := range c.relays {
		for sender, credential := range senders {
			all = append(all, CredentialLine{relay, sender, credential})
		}
	}
	return byLine(all, func(c CredentialLine) int { return c.Credential.Line })
}

// A SourceLine is one line of control/sources.
type SourceLine struct {
	Sender string
	Family Family // IPv4 or IPv6
	Source Source
}

// Lines returns all lines.
func (s Sources) Lines() []SourceLine {
	var all []SourceLine
	for sender, both := range s.senders {
		if both.four.Line > 0 {
			all = append(all, SourceLine{sender, IPv4, both.four})
		}
		if both.six.Line > 0 {
			all = append(all, SourceLine{sender, IPv6, both.six})
		}
	}
	return byLine(all, func(s SourceLine) int { return s.Source.Line })
}

// A FamilyLine is one line of control/families.
type FamilyLine struct {
	Line      int
	Exchanger string
	Only      Family
}

// Lines returns all lines.
func (f Families) Lines() []FamilyLine {
	var all []FamilyLine
	for exchanger, line := range f.exchangers {
		all = append(all, FamilyLine{line.line, exchanger, line.only})
	}
	return byLine(all, func(f FamilyLine) int { return f.Line })
}

// A ClientCertLine is one line of control/clientcerts.
type ClientCertLine struct {
	Exchanger, Sender string
	ClientCert        ClientCert
}

// Lines returns all lines.
func (c ClientCerts) Lines() []ClientCertLine {
	var all []ClientCertLine
	for exchanger, senders := range c.exchangers {
		for sender, cert := range senders {
			all = append(all, ClientCertLine{exchanger, sender, cert})
		}
	}
	return byLine(all, func(c ClientCertLine) int { return c.ClientCert.Line })
}

// Lines returns all lines.
func (k SigningKeys) Lines() []SigningKey {
	var all []SigningKey
	for _, keys := range k.domains {
		all = append(all, keys...)
	}
	return byLine(all, func(k SigningKey) int { return k.Line })
}

// A TLSPolicyLine is one line of control/tlspolicy.
type TLSPolicyLine struct {
	Key         string // a name, .suffix, an address in brackets, or "" for all
	IsExchanger bool   // Key stands behind an @, and is never ""
	Policy      TLSPolicy
}

// Lines returns all lines.
func (p TLSPolicies) Lines() []TLSPolicyLine {
	var all []TLSPolicyLine
	for key, line := range p.keys {
		isExchanger := len(key) > 0 && key[:1] == exchangerMark
		if isExchanger {
			key = key[1:]
		}
		all = append(all, TLSPolicyLine{key, isExchanger, line})
	}
	return byLine(all, func(p TLSPolicyLine) int { return p.Policy.Line })
}

func byLine[T any](all []T, line func(T) int) []T {
	slices.SortFunc(all, func(a, b T) int { return cmp.Compare(line(a), line(b)) })
	return all
}
