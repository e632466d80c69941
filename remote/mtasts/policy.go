package mtasts

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"nightmare.mail/mxf/control/domain"
)

const (
	// MaxPolicy is the longest policy, in bytes: RFC 8461 3.3 wants a limit and suggests
	// this one.
	MaxPolicy = 65536
	// maxAge is the longest max_age, in seconds: a year (RFC 8461 3.2).
	maxAge = 31557600
	// maxAgeDigits bounds the number (RFC 8461 3.2).
	maxAgeDigits = 10
	// minAge is how long a policy is good at least, so that max_age 0 is not a fetch for
	// each delivery.
	minAge = 300 * time.Second
)

// A Mode is what a policy wants.
type Mode int

// The modes.
const (
	None    Mode = iota // as no policy
	Testing             // reported, and nothing else
	Enforce
)

var modes = [...]string{None: "none", Testing: "testing", Enforce: "enforce"}

func (m Mode) String() string { return modes[m] }

// A Policy is what a domain publishes about its exchangers. It does not change.
type Policy struct {
	Mode   Mode
	MaxAge time.Duration // as published, at most a year
	MX     []string      // patterns in lower case: host names, or "*." and one
	Lines  []string      // as served, empty ones left out, without blanks at the end
}

// ParsePolicy reads a policy as it was served. The error says which line is wrong and why.
func ParsePolicy(text []byte) (*Policy, error) {
	if len(text) > MaxPolicy {
		return nil, fmt.Errorf("more than %d bytes", MaxPolicy)
	}
	p := &Policy{}
	seen := make(map[string]bool)
	number := 0
	for line := range strings.SplitSeq(string(text), "\n") {
		number++
		line = strings.TrimRight(strings.TrimSuffix(line, "\r"), blanks)
		if line == "" {
			continue
		}
		p.Lines = append(p.Lines, line)
		if err := p.read(line, seen); err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
	}
	for _, name := range []string{"version", "mode", "max_age"} {
		if !seen[name] {
			return nil, fmt.Errorf("no %s", name)
		}
	}
	if p.Mode != None && len(p.MX) == 0 {
		return nil, errors.New("no mx")
	}
	return p, nil
}

// read reads one line. seen has the names that there were.
func (p *Policy) read(line string, seen map[string]bool) error {
	name, value, found := strings.Cut(line, ":")
	value = strings.TrimLeft(value, blanks)
	if !found || !isFieldName(name) || !isText(value) {
		return errors.New("not a name, a colon and a value")
	}
	if name == "mx" {
		if !isPattern(value) {
			return fmt.Errorf("mx %q is neither a host name nor *. and one", clip(value))
		}
		p.MX = append(p.MX, strings.ToLower(value))
		return nil
	}
	if seen[name] {
		return nil
	}
	seen[name] = true
	switch name {
	case "version":
		if value != "STSv1" {
			return fmt.Errorf("version %q is not STSv1", clip(value))
		}
	case "mode":
		i := slices.Index(modes[:], value)
		if i < 0 {
			return fmt.Errorf("mode %q is none of enforce, testing and none", clip(value))
		}
		p.Mode = Mode(i)
	case "max_age":
		seconds, ok := digits(value, maxAgeDigits)
		if !ok {
			return fmt.Errorf("max_age %q is not a number of 1 to %d digits", clip(value), maxAgeDigits)
		}
		p.MaxAge = time.Duration(min(seconds, maxAge)) * time.Second
	}
	return nil
}

// isText is sts-policy-ext-value of RFC 8461: UTF-8 without control characters.
func isText(value string) bool {
	control := func(r rune) bool { return r < ' ' || r == 0x7f }
	return value != "" && utf8.ValidString(value) && strings.IndexFunc(value, control) < 0
}

func isPattern(value string) bool {
	name := strings.TrimPrefix(value, "*.")
	_, err := domain.HostName(name)
	return domain.IsName(name) && err == nil
}

// digits reads a number of 1 to most ASCII digits.
func digits(s string, most int) (n int64, ok bool) {
	if len(s) == 0 || len(s) > most || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil
}

// Matches reports whether the policy names an exchanger, which may be spelled in any case
// and with a final dot (RFC 8461 4.1). A wildcard stands for exactly one label.
func (p *Policy) Matches(exchanger string) bool {
	name := strings.ToLower(strings.TrimSuffix(exchanger, "."))
	label, parent, _ := strings.Cut(name, ".")
	return slices.ContainsFunc(p.MX, func(pattern string) bool {
		if suffix, wild := strings.CutPrefix(pattern, "*."); wild {
			return label != "" && parent == suffix
		}
		return name == pattern
	})
}

// lifetime is how long the policy is good after a fetch.
func (p *Policy) lifetime() time.Duration { return max(p.MaxAge, minAge) }

// clip bounds foreign text in an error.
func clip(s string) string {
	const limit = 80 // bytes: enough to recognize it
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "") + "..."
}
