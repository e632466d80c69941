package mtasts

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

var now = time.Unix(1764100000, 0)

const policy118 = "version: STSv1\nmode: enforce\nmx: mail.example.org\nmx: *.example.net\nmx: backup.mx.example.com\nmax_age: 604800\n"

// page is the example of the page, with its policy behind it.
var page = "mxf-sts 1\ndomain example.org\nid 20160831085700Z\nfetched 1764000000\n" + fmt.Sprintf("bytes %d\n", len(policy118)) +
	"failed 1764090000 sts-policy-fetch-error mta-sts.example.org: connection refused\n\n" + policy118

// The file is the page's, byte for byte.
func TestEntry_page(t *testing.T) {
	e, err := ParseEntry("example.org", []byte(page), now)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(e.Encode()); got != page {
		t.Errorf("written as\n%s", got)
	}
	if e.Domain != "example.org" || e.ID != "20160831085700Z" || e.Fetched.Unix() != 1764000000 || e.Text != policy118 ||
		e.Policy.Mode != Enforce || e.Failed.Kind != FetchError || e.Failed.At.Unix() != 1764090000 ||
		e.Failed.Reason != "mta-sts.example.org: connection refused" || e.Expires().Unix() != 1764000000+604800 {
		t.Errorf("%+v", e)
	}
	never := &Entry{Domain: "example.org", Failed: NewFailure(WebPKIInvalid, now, "mta-sts.example.org: certificate expired\non 2025 ")}
	if got, want := string(never.Encode()), "mxf-sts 1\ndomain example.org\nfailed 1764100000 sts-webpki-invalid mta-sts.example.org: certificate expired?on 2025\n\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	e.Failed = nil
	if got, want := string(e.Encode()), strings.Replace(page, "failed 1764090000 sts-policy-fetch-error mta-sts.example.org: connection refused\n", "", 1); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

var entries = []struct {
	from, to string // what is changed in the page's example
	ok       bool
}{
	{"", "", true},
	{"mxf-sts 1\n", "mxf-sts 1\nfuture line\nfuture\n", true},
	{"fetched 1764000000", "fetched 1764100300", true},
	{"fetched 1764000000", "fetched 0", true},
	{"sts-policy-fetch-error mta-sts.example.org: connection refused", "sts-policy-invalid", true},
	{"id 20160831085700Z\nfetched 1764000000\n", "fetched 1764000000\nid 20160831085700Z\n", true},
	{"fetched 1764000000", "fetched 1764100301", false},
	{"fetched 1764000000", "fetched -1", false},
	{"fetched 1764000000", "fetched 176400000000", false},
	{"fetched 1764000000", "fetched 1764000000 ", false},
	{"fetched 1764000000\n", "", false},
	{"id 20160831085700Z\n", "", false},
	{"id 20160831085700Z", "id 2016-08", false},
	{"id 20160831085700Z", "id 1\nid 2", false},
	{"id 20160831085700Z", "id", false},
	{"bytes 1", "bytes 2", false},
	{"bytes 1", "bytes +1", false},
	{"bytes 1", "bytes 01", false},
	{"max_age: 604800\n", "max_age: 604800", false},
	{"max_age: 604800\n", "max_age: 604800\n\n", false},
	{"mode: enforce", "mode: enforcf", false},
	{"mxf-sts 1", "mxf-sts 2", false},
	{"mxf-sts 1", " mxf-sts 1", false},
	{"domain example.org", "domain example.com", false},
	{"domain example.org\n", "", false},
	{"failed 1764090000", "failed", false},
	{"failed 1764090000", "failed soon", false},
	{"sts-policy-fetch-error", "sts-bogus", false},
	{"\n\nversion", "\nversion", false},
	{"mxf-sts 1\n", "mxf-sts 1\n" + strings.Repeat("x", maxHeader) + "\n", false},
}

func TestParseEntry(t *testing.T) {
	for _, c := range entries {
		if c.from != "" && !strings.Contains(page, c.from) {
			t.Fatalf("%q changes nothing", c.from)
		}
		e, err := ParseEntry("example.org", []byte(strings.Replace(page, c.from, c.to, 1)), now)
		if (err == nil) != c.ok || (e != nil) != c.ok {
			t.Errorf("%q for %q: %+v, %v", c.to, c.from, e, err)
		}
	}
	for _, text := range []string{"", "\n\n", "mxf-sts 1\n\n", "mxf-sts 1\ndomain example.org\n\n", "mxf-sts 1\ndomain example.org\nfailed 1 sts-policy-invalid x\n\n" + policy118, page[:len(page)-1]} {
		if e, err := ParseEntry("example.org", []byte(text), now); err == nil {
			t.Errorf("%q: %+v", text, e)
		}
	}
}

func FuzzParseEntry(f *testing.F) {
	for _, c := range entries {
		f.Add([]byte(strings.Replace(page, c.from, c.to, 1)))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := ParseEntry("example.org", data, now)
		if err != nil {
			return
		}
		again, err := ParseEntry("example.org", e.Encode(), now)
		if err != nil || string(again.Encode()) != string(e.Encode()) {
			t.Errorf("%q is written as %q, %v", data, e.Encode(), err)
		}
		if e.Policy == nil && e.Failed == nil || e.Fetched.After(now.Add(maxSkew)) {
			t.Errorf("%+v", e)
		}
	})
}

func TestNewFailure(t *testing.T) {
	for reason, want := range map[string]string{
		"a\r\nb\x7f\xff": "a??b??", "  a ": "a", strings.Repeat("\u00e9", 101): strings.Repeat("\u00e9", 100),
		"x" + strings.Repeat("\u00e9", 100): "x" + strings.Repeat("\u00e9", 99),
	} {
		if got := NewFailure(PolicyInvalid, now, reason).Reason; got != want {
			t.Errorf("%q: %q, want %q", reason, got, want)
		}
	}
}
