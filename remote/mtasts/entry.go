package mtasts

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	magic = "mxf-sts 1"

	// maxHeader bounds the lines before the policy, in bytes. Ours have some 600.
	maxHeader = 4096
	// maxEntry is the longest cache file.
	maxEntry = maxHeader + MaxPolicy
	// maxReason bounds the reason of a failure, in bytes; a TLSRPT report takes as many.
	maxReason = 200
	// maxSkew is how far a policy may have been fetched in the future, by another clock.
	maxSkew = 300 * time.Second
	// timeDigits bounds a time, in seconds since 1970: the year 5138.
	timeDigits = 11
)

// A Kind of failure to fetch a policy, as reports call it (RFC 8460 4.3.2.2).
type Kind int

// The kinds.
const (
	FetchError    Kind = iota // all that is neither of the others
	PolicyInvalid             // it came, and is too long or malformed
	WebPKIInvalid             // the certificate of the HTTPS server
)

var kinds = [...]string{FetchError: "sts-policy-fetch-error", PolicyInvalid: "sts-policy-invalid", WebPKIInvalid: "sts-webpki-invalid"}

func (k Kind) String() string { return kinds[k] }

// A Failure is an attempt to fetch a policy that failed.
type Failure struct {
	Kind   Kind
	At     time.Time // whole seconds
	Reason string    // for people: one line of at most 200 bytes
}

func (f *Failure) Error() string { return f.Kind.String() + " " + f.Reason }

// NewFailure makes one line of reason.
func NewFailure(kind Kind, at time.Time, reason string) *Failure {
	reason = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == utf8.RuneError {
			return '?'
		}
		return r
	}, reason)
	if len(reason) > maxReason {
		reason = strings.ToValidUTF8(reason[:maxReason], "")
	}
	return &Failure{Kind: kind, At: time.Unix(at.Unix(), 0), Reason: strings.Trim(reason, " ")}
}

// An Entry is what the cache has about one policy domain: a policy, the last attempt that
// failed, or both. It does not change.
type Entry struct {
	Domain string // in A-labels and lower case, without the final dot

	ID      string    // in the TXT record when the policy was fetched; "": no policy
	Fetched time.Time // when it was fetched last, whole seconds
	Text    string    // as served
	Policy  *Policy   // nil: there never was one

	Failed *Failure  // nil: the last attempt succeeded
	Used   time.Time // when a delivery last asked for it, give or take a day; not in the file
}

// Expires is when the policy ends. There must be one.
func (e *Entry) Expires() time.Time { return e.Fetched.Add(e.Policy.lifetime()) }

// holds reports whether e has a policy that has not expired. e may be nil.
func (e *Entry) holds(now time.Time) bool {
	return e != nil && e.Policy != nil && now.Before(e.Expires())
}

// failedWithin reports whether an attempt failed in the last d. One in the future did not:
// a clock that was wrong must not keep a policy away. e may be nil.
func (e *Entry) failedWithin(d time.Duration, now time.Time) bool {
	if e == nil || e.Failed == nil {
		return false
	}
	age := now.Sub(e.Failed.At)
	return age >= 0 && age <= d
}

// Encode returns the cache file of e.
func (e *Entry) Encode() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s\ndomain %s\n", magic, e.Domain)
	if e.Policy != nil {
		fmt.Fprintf(&b, "id %s\nfetched %d\nbytes %d\n", e.ID, e.Fetched.Unix(), len(e.Text))
	}
	if f := e.Failed; f != nil {
		fmt.Fprintf(&b, "%s\n", strings.TrimSpace(fmt.Sprintf("failed %d %s %s", f.At.Unix(), f.Kind, f.Reason)))
	}
	b.WriteByte('\n')
	b.WriteString(e.Text)
	return b.Bytes()
}

// ParseEntry reads the cache file of a policy domain. A file that is malformed, that is for
// another domain, or whose policy was fetched in the future, is an error.
func ParseEntry(domain string, data []byte, now time.Time) (*Entry, error) {
	header, text, found := bytes.Cut(data, []byte("\n\n"))
	if !found || len(header) > maxHeader {
		return nil, errors.New("it has no empty line where the header ends")
	}
	first, rest, _ := strings.Cut(string(header), "\n")
	if first != magic {
		return nil, errors.New("it does not begin with " + magic)
	}
	lines, err := headerLines(rest)
	if err != nil {
		return nil, err
	}
	if lines["domain"] != domain {
		return nil, fmt.Errorf("it is for %q", lines["domain"])
	}
	e := &Entry{Domain: domain}
	if err := e.readPolicy(lines, string(text), now); err != nil {
		return nil, err
	}
	if line := lines["failed"]; line != "" {
		if e.Failed, err = parseFailure(line); err != nil {
			return nil, err
		}
	}
	if e.Policy == nil && e.Failed == nil {
		return nil, errors.New("it has neither a policy nor a failure")
	}
	return e, nil
}

// headerLines returns the values of the known lines. Others are for programs to come.
func headerLines(header string) (map[string]string, error) {
	lines := make(map[string]string)
	for line := range strings.SplitSeq(header, "\n") {
		name, value, _ := strings.Cut(line, " ")
		if !slices.Contains([]string{"domain", "id", "fetched", "bytes", "failed"}, name) {
			continue
		}
		if value == "" || lines[name] != "" {
			return nil, fmt.Errorf("%s has no value, or two", name)
		}
		lines[name] = value
	}
	return lines, nil
}

// readPolicy reads the policy and what the header says about it: all three lines or none.
func (e *Entry) readPolicy(lines map[string]string, text string, now time.Time) error {
	if lines["id"] == "" && lines["fetched"] == "" && lines["bytes"] == "" {
		if text != "" {
			return errors.New("it has a policy without id, fetched and bytes")
		}
		return nil
	}
	fetched, ok := digits(lines["fetched"], timeDigits)
	switch {
	case !IsID(lines["id"]):
		return errors.New("id is not one")
	case !ok:
		return errors.New("fetched is not a time")
	case lines["bytes"] != strconv.Itoa(len(text)):
		return fmt.Errorf("the policy has %d bytes, not what the line bytes says", len(text))
	}
	e.ID, e.Fetched, e.Text = lines["id"], time.Unix(fetched, 0), text
	if e.Fetched.After(now.Add(maxSkew)) {
		return errors.New("fetched is in the future")
	}
	var err error
	e.Policy, err = ParsePolicy([]byte(text))
	return err
}

func parseFailure(line string) (*Failure, error) {
	at, rest, _ := strings.Cut(line, " ")
	kind, reason, _ := strings.Cut(rest, " ")
	seconds, ok := digits(at, timeDigits)
	i := slices.Index(kinds[:], kind)
	if !ok || i < 0 {
		return nil, errors.New("failed has no time or no kind")
	}
	return NewFailure(Kind(i), time.Unix(seconds, 0), reason), nil
}
