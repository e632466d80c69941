package control

import (
	"fmt"
	"net/netip"
	"strings"

	"nightmare.mail/mxf/control/domain"
)

// keyed has what the lines of a file say, by their keys. Each key is in its one form, so
// that two spellings of a key are found to be the same.
type keyed[V any] map[string]V

// first returns the value of the first of keys that has one, and whether any has.
func (k keyed[V]) first(keys []string) (value V, fits bool) {
	for _, key := range keys {
		if value, fits = k[key]; fits {
			return value, true
		}
	}
	return value, false
}

// set sets the value of a key.
func (k *keyed[V]) set(key string, value V) {
	if *k == nil {
		*k = keyed[V]{}
	}
	(*k)[key] = value
}

// add is set for a key that has no value yet. It reports false, and changes nothing, if
// the key has one.
func (k *keyed[V]) add(key string, value V) bool {
	if _, twice := (*k)[key]; twice {
		return false
	}
	k.set(key, value)
	return true
}

// cutField cuts at the first colon. Colons inside the brackets of an address literal, at
// the beginning or after an '@', do not count.
func cutField(s string) (field, rest string, more bool) {
	open := 0
	if !strings.HasPrefix(s, "[") {
		open = strings.Index(s, "@[") + 1
		if open == 0 || strings.IndexByte(s, ':') < open {
			return strings.Cut(s, ":")
		}
	}
	end := open + strings.IndexByte(s[open:], ']') + 1
	field, rest, more = strings.Cut(s[end:], ":")
	return s[:end] + field, rest, more
}

// fields cuts an entry into at most n fields. The last one has the rest of the line.
func fields(entry string, n int) []string {
	var all []string
	for len(all) < n-1 {
		field, rest, more := cutField(entry)
		if !more {
			break
		}
		all, entry = append(all, field), rest
	}
	return append(all, entry)
}

// allFields cuts an entry into all its fields.
func allFields(entry string) []string { return fields(entry, len(entry)+1) }

// foundFields is what an error says in place of an entry with the wrong number of fields.
func foundFields(all []string) string {
	if len(all) == 1 {
		return "one field"
	}
	return fmt.Sprintf("%d fields", len(all))
}

// nameKeys returns the patterns that fit a domain: itself, then its suffixes from the
// longest. Nothing ends in an address.
func nameKeys(d domain.Domain) []string {
	keys := []string{d.String()}
	if d.Addr().IsValid() {
		return keys
	}
	for rest := d.String(); ; {
		_, after, more := strings.Cut(rest, ".")
		if !more {
			return keys
		}
		keys = append(keys, "."+after)
		rest = after
	}
}

// literalKey returns the pattern that fits an address.
func literalKey(addr netip.Addr) string { return "[" + addr.Unmap().WithZone("").String() + "]" }

// exchangerKeys returns the patterns that fit an exchanger, in the order in which they
// decide. host is its name as the record or the route spells it; without a name it is "",
// or an address literal, and then its address decides.
func exchangerKeys(host string, addr netip.Addr) []string {
	if host == "" {
		return []string{literalKey(addr), ""}
	}
	d, err := domain.Parse(host)
	if err != nil {
		return []string{""}
	}
	return append(nameKeys(d), "")
}

// parseExchanger reads a name, a .suffix, an address in brackets or nothing, and returns
// its one form. problem says what is wrong, and is "" if nothing is.
func parseExchanger(s string) (key, problem string) {
	key, err := parsePattern(s)
	if err != nil {
		return "", fmt.Sprintf("expected a host name, a suffix that begins with a dot, an address in brackets or nothing as the exchanger, found %s", found(s))
	}
	return key, ""
}
