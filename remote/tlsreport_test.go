package remote

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/remote/dane"
	"nightmare.mail/mxf/remote/mtasts"
	"nightmare.mail/mxf/remote/policy"
	"nightmare.mail/mxf/remote/route"
	"nightmare.mail/mxf/remote/tlsrpt"
	"nightmare.mail/mxf/remote/transport"
	"nightmare.mail/mxf/smtpc"
	"nightmare.mail/mxf/tlsc"
)

const (
	tlsBase  = "base.example.org"
	asksTold = "v=TLSRPTv1; rua=mailto:tls@example.org"
)

// toldOf is a datagram in a line: for each policy its type, domain and entries, and what failed.
func toldOf(d *tlsrpt.Datagram) string {
	if d == nil {
		return "nothing"
	}
	var all []string
	for _, p := range d.Policies {
		words := fmt.Sprintf("%d %s %d/%d", p.Type, p.Domain, len(p.Strings), len(p.MXHosts))
		if f := p.Failure; f != nil {
			words += fmt.Sprintf(" %d", f.Code)
			for _, part := range []string{f.Reason, f.Exchanger} {
				words += " " + part
			}
			if f.Ours.IsValid() {
				words += fmt.Sprintf(" %v>%v", f.Ours, f.Theirs)
			}
		}
		all = append(all, words)
	}
	return strings.Join(all, "; ")
}

// publishedAs is what a destination has published: TLSA records (usable, unusable, failed or none), an MTA-STS
// policy by its mode, which lists the exchanger or, with "other-" before it, another one.
func publishedAs(t *testing.T, tlsa, sts string) Published {
	t.Helper()
	p := Published{Domain: "example.org", Reports: asksTold, TLSA: dane.Finding{Base: "mx.example.org"}}
	record := tlsc.TLSA{Usage: 3, Selector: 1, Matching: 1, Data: []byte(strings.Repeat("\xab", 32))}
	switch tlsa {
	case "usable":
		p.TLSA.State = dane.Usable
	case "unusable":
		p.TLSA.State, record.Usage = dane.NoneUsable, 1
	case "failed":
		p.TLSA.State, p.TLSA.Err = dane.Failed, errors.New("server failure")
	case "none":
		p.TLSA.State = dane.None
	}
	if p.TLSA.State != dane.NotAsked && p.TLSA.State != dane.None {
		p.TLSA.Base = tlsBase
	}
	if p.hasTLSA() {
		p.TLSA.Records = must.Get(tlsc.NewRecords([]tlsc.TLSA{record}))(t)
	}
	mode, other := strings.CutPrefix(sts, "other-")
	mx := "mx.example.org"
	if other {
		mx = "*.example.net"
	}
	if mode != "" {
		text := "version: STSv1\nmode: " + mode + "\nmx: " + mx + "\nmx: mx2.example.org\nmax_age: 86400\n"
		p.STS = &mtasts.Finding{Holds: &mtasts.Entry{Policy: must.Get(mtasts.ParsePolicy([]byte(text)))(t)}}
	}
	return p
}

// The table of the page, and its rules, for connections.
func TestMeeting_report(t *testing.T) {
	type securing = transport.Securing
	up, absent, refused := securing{What: smtpc.Secured}, securing{What: smtpc.NotOffered}, securing{What: smtpc.NotGranted}
	broken := securing{What: smtpc.NotSecured, Reason: "no answer"}
	failed := func(records, anchors tlsc.Fault) securing {
		return securing{What: smtpc.NotSecured, Faults: tlsc.Faults{Records: records, Anchors: anchors}, Reason: "why"}
	}
	unenforced := func(fault tlsc.Fault) securing {
		return securing{What: smtpc.Secured, Faults: tlsc.Faults{Anchors: fault}, Reason: "why"}
	}
	const (
		who  = " mx.example.org 192.0.2.1>192.0.2.2"
		none = "9 example.org 0/0"
		one  = "1 " + tlsBase + " 1/0"
		two  = "2 example.org 5/2"
	)
	for _, c := range []struct {
		tlsa, sts, word string
		became          securing
		want            string
	}{
		// Nothing is published.
		{"", "", "", up, none},
		{"none", "none", "", up, none},
		{"", "", "", absent, none + " 201 " + who},
		{"", "", "", refused, none + " 201 starttls-refused" + who},
		{"", "", "", broken, none + " 205 no answer" + who},
		{"", "", "", unenforced(tlsc.FaultName), none},
		{"", "", "", failed(0, tlsc.FaultName), "nothing"},
		{"", "", "", failed(0, tlsc.FaultRevoked), "nothing"},
		{"", "", "local", failed(0, tlsc.FaultIssuer), "nothing"},
		{"", "", "local", up, none},
		{"", "", "pin", failed(tlsc.FaultNoMatch, 0), "nothing"},
		{"", "", "login", failed(0, tlsc.FaultDate), "nothing"},
		{"", "", "", securing{}, "nothing"},
		// DANE.
		{"usable", "enforce", "dane", up, one},
		{"usable", "other-enforce", "dane", up, one},
		{"usable", "testing", "dane", up, one},
		{"usable", "", "dane", absent, one + " 201 " + who},
		{"usable", "", "dane", refused, one + " 201 starttls-refused" + who},
		{"usable", "", "dane", broken, one + " 205 no answer" + who},
		{"usable", "", "dane", failed(tlsc.FaultNoMatch, 0), one + " 203 tlsa-mismatch" + who},
		{"usable", "", "dane", failed(tlsc.FaultName, 0), one + " 202 " + who},
		{"usable", "", "dane", failed(tlsc.FaultDate, 0), one + " 204 " + who},
		{"usable", "", "dane", failed(tlsc.FaultWeak, 0), one + " 205 why" + who},
		{"usable", "", "dane", failed(tlsc.FaultMissing, 0), one + " 205 why" + who},
		{"usable", "", "half-dane", up, one},
		{"usable", "testing", "half-dane", up, one + "; " + two},
		{"usable", "other-testing", "half-dane", up, one + "; " + two + " 205 mx-mismatch" + who},
		{"usable", "none", "half-dane", up, one},
		// Both.
		{"usable", "enforce", "half-dane+sts", up, one + "; " + two},
		{"usable", "enforce", "half-dane+sts", failed(tlsc.FaultNoMatch, tlsc.FaultName), one + " 203 tlsa-mismatch" + who + "; " + two + " 202 " + who},
		{"usable", "enforce", "half-dane+sts", failed(tlsc.FaultNoMatch, 0), one + " 203 tlsa-mismatch" + who + "; " + two},
		{"usable", "enforce", "half-dane+sts", failed(0, tlsc.FaultIssuer), one + "; " + two + " 203 untrusted" + who},
		{"usable", "enforce", "half-dane+sts", absent, one + " 201 " + who + "; " + two + " 201 " + who},
		{"usable", "enforce", "half-dane+sts", broken, one + " 205 no answer" + who + "; " + two + " 205 no answer" + who},
		// MTA-STS.
		{"none", "enforce", "sts", up, two},
		{"none", "enforce", "sts", absent, two + " 201 " + who},
		{"none", "enforce", "sts", failed(0, tlsc.FaultName), two + " 202 " + who},
		{"none", "enforce", "sts", failed(0, tlsc.FaultIssuer), two + " 203 untrusted" + who},
		{"none", "enforce", "sts", failed(0, tlsc.FaultSelfSigned), two + " 203 untrusted" + who},
		{"none", "enforce", "sts", failed(0, tlsc.FaultDate), two + " 204 " + who},
		{"none", "enforce", "sts", failed(0, tlsc.FaultRevoked), two + " 205 why" + who},
		{"none", "testing", "", up, two},
		{"none", "testing", "", unenforced(tlsc.FaultSelfSigned), two + " 203 untrusted" + who},
		{"none", "testing", "", unenforced(tlsc.FaultStaple), two},
		{"none", "testing", "", unenforced(tlsc.FaultRevoked), two + " 205 why" + who},
		{"none", "testing", "", unenforced(tlsc.FaultOurs), two},
		{"none", "testing", "", failed(0, tlsc.FaultDate), two + " 204 " + who}, // a floor of 2
		{"none", "testing", "", refused, two + " 201 starttls-refused" + who},
		{"none", "other-testing", "", up, two + " 205 mx-mismatch" + who},
		{"none", "other-testing", "", unenforced(tlsc.FaultName), two + " 205 mx-mismatch" + who},
		// Records that cannot be used.
		{"unusable", "", "dane-unusable", up, one + " 304 all-unusable" + who},
		{"unusable", "", "dane-unusable", absent, one + " 304 all-unusable" + who},
		{"unusable", "", "dane-unusable", failed(0, tlsc.FaultName), one + " 304 all-unusable" + who},
		{"unusable", "testing", "dane-unusable", up, one + " 304 all-unusable" + who + "; " + two},
		{"unusable", "enforce", "sts", failed(0, tlsc.FaultName), one + " 304 all-unusable" + who + "; " + two + " 202 " + who},
	} {
		s := &Step{Candidate: route.Candidate{Host: "mx.example.org", Protocol: &control.Protocol{Explicit: true}},
			Published: publishedAs(t, c.tlsa, c.sts), Requirement: policy.Requirement{Word: c.word}}
		m := meeting{c.became, netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")}
		got := m.report(s)
		if words := toldOf(got); words != c.want {
			t.Errorf("%s, %s, %s, %v: %s\nwant %s", c.tlsa, c.sts, c.word, c.became, words, c.want)
		}
		if got != nil && (got.Domain != "example.org" || got.Record != asksTold) {
			t.Errorf("%+v", got)
		}
		s.Published.Reports = ""
		if words := toldOf(m.report(s)); words != "nothing" {
			t.Errorf("nobody asked: %s", words)
		}
	}
}

// Each fault has its code where trust anchors or TLSA records find it.
func TestFailureBy(t *testing.T) {
	for fault := tlsc.FaultMissing; fault <= tlsc.FaultOther; fault++ {
		if code, _ := failureBy(fault, &transport.Securing{What: smtpc.NotSecured}); code < 202 || code > 205 {
			t.Errorf("%v: %d", fault, code)
		}
	}
}

// Steps that are left.
func TestReportLeft(t *testing.T) {
	for _, c := range []struct {
		tlsa, sts string
		why       policy.Reason
		want      string
	}{
		{"none", "other-enforce", policy.LeftUnlisted, "2 example.org 5/2 205 mx-mismatch mx.example.org"},
		{"usable", "other-enforce", policy.LeftUnlisted, "2 example.org 5/2 205 mx-mismatch mx.example.org"},
		{"failed", "enforce", policy.LeftLookup, "1 " + tlsBase + " 0/0 305 server failure mx.example.org"},
		{"none", "", policy.LeftUnsatisfied, "1 mx.example.org 0/0 306  mx.example.org"},
		{"unusable", "", policy.LeftUnsatisfied, "1 " + tlsBase + " 1/0 306  mx.example.org"},
		{"usable", "", policy.LeftUnsatisfied, "1 " + tlsBase + " 1/0 306  mx.example.org"},
		{"usable", "", policy.LeftNoProtocol, "nothing"},
		{"none", "", policy.LeftContradiction, "nothing"},
	} {
		s := &Step{Candidate: route.Candidate{Host: "mx.example.org", Protocol: &control.Protocol{Explicit: true}}, Published: publishedAs(t, c.tlsa, c.sts)}
		if got := toldOf(reportLeft(s, c.why)); got != c.want {
			t.Errorf("%s, %s, %v: %s\nwant %s", c.tlsa, c.sts, c.why, got, c.want)
		}
		s.Protocol = &control.Protocol{Implicit: true}
		if got := toldOf(reportLeft(s, c.why)); got != "nothing" {
			t.Errorf("implicit TLS: %s", got)
		}
		s.Protocol, s.Published.Reports = &control.Protocol{Explicit: true}, ""
		if got := toldOf(reportLeft(s, c.why)); got != "nothing" {
			t.Errorf("nobody asked: %s", got)
		}
	}
}

// Policies that could not be fetched.
func TestUnfetched_report(t *testing.T) {
	cached := publishedAs(t, "", "enforce").STS.Holds
	for kind, code := range map[mtasts.Kind]string{mtasts.FetchError: "301", mtasts.PolicyInvalid: "302", mtasts.WebPKIInvalid: "303"} {
		for entry, lists := range map[*mtasts.Entry]string{nil: "0/0", cached: "5/2"} {
			u := unfetched{"example.org", asksTold, mtasts.Finding{Holds: entry, Failed: &mtasts.Failure{Kind: kind, Reason: "why"}}}
			if got, want := toldOf(u.report()), "2 example.org "+lists+" "+code+" why "; got != want {
				t.Errorf("%q, want %q", got, want)
			}
		}
	}
}

// What is told comes after the delivery, and nothing of it gets in the way.
func TestJob_Tell(t *testing.T) {
	var trace []string
	job := &Job{Trace: func(line string) { trace = append(trace, line) }, collector: filepath.Join(t.TempDir(), "none")}
	job.Tell()
	if len(trace) > 0 {
		t.Errorf("nothing to tell: %q", trace)
	}
	long := &tlsrpt.Datagram{Domain: "long.example", Record: strings.Repeat("x", 40000)}
	event := &tlsrpt.Datagram{Domain: "example.org", Record: asksTold}
	for _, d := range []*tlsrpt.Datagram{nil, long, event, event} {
		job.owe(debt{make: func() *tlsrpt.Datagram { return d }})
	}
	job.owe(debt{once: true, make: func() *tlsrpt.Datagram { return event }})
	must.Within(t, "telling", job.Tell)
	want := []string{"tlsrpt long.example: not sent: the datagram has more than 32768 bytes",
		"tlsrpt example.org: not sent: no such file or directory", "tlsrpt example.org: not sent: no such file or directory"}
	if strings.Join(trace, "\n") != strings.Join(want, "\n") {
		t.Errorf("%q", trace)
	}
	job.owe(debt{make: func() *tlsrpt.Datagram { panic("on the way") }})
	job.Tell()
}
