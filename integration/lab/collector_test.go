package lab

import (
	"strings"
	"testing"
)

// The reader takes what the page has, and nothing that is a little different.
func TestParseTold(t *testing.T) {
	const head = `{"dpv": "1","d": "example.org","pr": "v=TLSRPTv1; rua=mailto:a@example.org","policies":[`
	const plain = head + `{"policy-type":9,"policy-domain": "example.org","t":0,"f":0}]}`
	const failed = head + `{"policy-type":1,"policy-domain": "mx.example.org","policy-string":["3 1 1 AB12","3 1 1 AB13"],` +
		`"failure-details":[{"c":203,"s": "192.0.2.1","n": "mx.example.org","r": "192.0.2.2","f": "tlsa-mismatch"}],"t":1,"f":1},` +
		`{"policy-type":2,"policy-domain": "example.org","policy-string":["version: STSv1"],"mx-host":["*.example.org"],"t":0,"f":0}]}`
	const event = head + `{"policy-type":2,"policy-domain": "example.org","failure-details":[{"c":301,"f": "x-\\\"\u0001\n"}],"t":1,"f":1}]}`
	for _, text := range []string{plain, failed, event} {
		if _, err := ParseTold(text); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
	told, _ := ParseTold(failed)
	if got, want := told.String(), "example.org: 1 mx.example.org 2/0 203 tlsa-mismatch mx.example.org 192.0.2.1 192.0.2.2; 2 example.org 1/1 good"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	for _, c := range []struct{ text, old, new string }{
		{plain, `{"dpv": "1"`, `{"dpv":"1"`},
		{plain, `"dpv": "1"`, `"dpv": "2"`},
		{plain, `example.org","pr"`, `Example.org","pr"`},
		{plain, `example.org","pr"`, `example.org.","pr"`},
		{plain, `example.org","pr"`, `ex\u00e4mple.org","pr"`},
		{plain, `v=TLSRPTv1`, `v=STSv1`},
		{plain, `v=TLSRPTv1`, `v=TLSRPTv1\/`},
		{plain, `v=TLSRPTv1`, `v=TLSRPTv1\u000A`},
		{plain, `v=TLSRPTv1`, `v=TLSRPTv1\u000a`},
		{plain, `v=TLSRPTv1`, "v=TLSRPTv1\t"},
		{plain, `v=TLSRPTv1`, "v=TLSRPTv1\xff"},
		{plain, `"t":0`, `"t": 0`},
		{plain, `"t":0`, `"t":00`},
		{plain, `"t":0`, `"t":1`},
		{plain, `,"f":0`, ``},
		{plain, `,"policies"`, `, "policies"`},
		{plain, `]}`, "]}\n"},
		{plain, `]}`, `]`},
		{plain, `"policy-type":9`, `"policy-type":3`},
		{plain, `"policy-type":9`, `"policy-type":2,"mx-host":["a.example"]`},
		{plain, `"policy-domain": "example.org"`, `"policy-domain": "example.net"`},
		{plain, `"t":0,"f":0}`, `"failure-details":[{"c":202,"s": "192.0.2.1","n": "mx.example.org","r": "192.0.2.2"}],"t":1,"f":1}`},
		{plain, `"t":0,"f":0}`, `"failure-details":[],"t":0,"f":0}`},
		{plain, `"t":0,"f":0}`, `"t":0,"f":0},{"policy-type":9,"policy-domain": "example.org","t":0,"f":0}`},
		{failed, `AB12`, `ab12`},
		{failed, `AB13`, `AB11`},
		{failed, `"n": "mx.example.org","r": "192.0.2.2"`, `"r": "192.0.2.2","n": "mx.example.org"`},
		{failed, `"n": "mx`, `"n": "MX`},
		{failed, `"s": "192.0.2.1",`, ``},
		{failed, `192.0.2.2`, `::ffff:192.0.2.2`},
		{failed, `tlsa-mismatch`, `tlsa mismatch`},
		{failed, `,"f": "tlsa-mismatch"`, `,"f": ""`},
		{failed, `tlsa-mismatch`, strings.Repeat("x", 201)},
		{failed, `"c":203`, `"c":301`},
		{failed, `"t":1,"f":1`, `"t":1,"f":0`},
		{failed, `version: STSv1`, `version: STSv1 `},
		{failed, `,"mx-host":["*.example.org"]`, ``},
		{failed, `*.example.org`, `*.Example.org`},
		{failed, `"policy-type":1`, `"policy-type":2`},
		{event, `"c":301`, `"c":301,"s": "192.0.2.1"`},
	} {
		changed := strings.Replace(c.text, c.old, c.new, 1)
		if told, err := ParseTold(changed); err == nil || changed == c.text {
			t.Errorf("%s in place of %s: %v", c.new, c.old, told)
		}
	}
}
