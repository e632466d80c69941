package route

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"nightmare.mail/mxf/remote/dns"
	"nightmare.mail/mxf/remote/dns/dnstest"
)

// longDomain returns a domain of n bytes, from 100 on.
func longDomain(n int) string {
	labels := strings.Repeat("a.", n/2)
	return strings.Repeat("b", n%2) + labels[:n-n%2-len("x.test")] + "x.test"
}

const textsZone = routingZone + `
_mta-sts.example.org.           TXT  "v=STSv1; " "id=1"
_mta-sts.example.org.           TXT  "spam"
_smtp._tls.example.org.         TXT  "v=TLSRPTv1"
_mta-sts.relay.example.net.     TXT  "relay's"
_mta-sts.alias.test.            CNAME _mta-sts.example.org.
_mta-sts.test.                  TXT  "the parent's"
`

// TestTexts: TXT is asked for each policy domain, and for no other.
func TestTexts(t *testing.T) {
	t.Parallel()
	sts := `_mta-sts "v=STSv1; id=1" "spam"`
	zone := textsZone
	for _, n := range []int{242, 243, 244, 245, 246} {
		zone += longDomain(n) + ". A 192.0.2.9\n"
	}
	server := dnstest.New(t, zone, routingTrouble)
	for _, c := range []struct {
		host, routes string
		want         []string // domain: the texts at each prefix
	}{
		{"example.org", "", []string{"example.org: " + sts + ` / _smtp._tls "v=TLSRPTv1"`}},
		{"EXAMPLE.org", "", []string{"example.org: " + sts + ` / _smtp._tls "v=TLSRPTv1"`}},
		{"alias.test", "", []string{"alias.test: " + sts + " / _smtp._tls no such name"}},
		{"itself.test", "", []string{"itself.test: _mta-sts no such name / _smtp._tls no such name"}},
		{"[192.0.2.1]", "", nil},
		{"example.org", "example.org:192.0.2.50\n", nil},
		{"[192.0.2.1]", ":relay.Example.NET\n", []string{`relay.example.net: _mta-sts "relay's" / _smtp._tls no such name`}},
		{"null.test", "", nil}, // it is over before
		{"mxbroken.test", "", nil},
		{"nowhere.test", "", []string{"nowhere.test: _mta-sts no such name / _smtp._tls no such name"}},
		{longDomain(242), "", []string{longDomain(242) + ": _mta-sts no such name / _smtp._tls no such name"}},
		{longDomain(243), "", []string{longDomain(243) + ": _mta-sts no such name / _smtp._tls not asked"}},
		{longDomain(244), "", []string{longDomain(244) + ": _mta-sts no such name / _smtp._tls not asked"}},
		{longDomain(245), "", []string{longDomain(245) + ": _mta-sts not asked / _smtp._tls not asked"}},
		{longDomain(246), "", []string{longDomain(246) + ": _mta-sts not asked / _smtp._tls not asked"}},
	} {
		f := finder(t, settings(t, files("protocols", onlySMTP, "smtproutes", c.routes)), server.Addr)
		f.Secure = true
		r := request(c.host)
		r.Texts = []string{"_mta-sts", "_smtp._tls"}
		told := map[string][]*dns.Answer{}
		r.OnTexts = func(domain string, answers []*dns.Answer) { told[domain] = answers }
		result, _ := f.Find(t.Context(), r)
		var got []string
		for domain, answers := range result.Texts {
			got = append(got, domain+": "+showTexts(t, result, domain, answers))
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: got  %q\nwant %q", c.host, got, c.want)
		}
		if !maps.EqualFunc(told, result.Texts, slices.Equal[[]*dns.Answer]) {
			t.Errorf("%s: told of %v, found %v", c.host, told, result.Texts)
		}
		for _, candidate := range result.Candidates {
			if _, ok := result.Texts[result.PolicyDomain(&candidate)]; ok != (len(c.want) > 0) {
				t.Errorf("%s: policy domain %q", c.host, result.PolicyDomain(&candidate))
			}
		}
	}
	if server.Questions()["TXT _mta-sts.test"] > 0 {
		t.Error("the parent domain was asked")
	}
}

// showTexts returns answers as the table above has them.
func showTexts(t *testing.T, result *Result, domain string, answers []*dns.Answer) string {
	var all []string
	for _, a := range answers {
		text := strings.TrimSuffix(a.Question.Name, "."+domain)
		asked := slices.Contains(result.Answers, a)
		switch {
		case !asked && a.Err == dns.ErrNoName:
			text += " not asked"
		case a.Err != nil:
			text += " " + a.Err.Error()
		default:
			for i := range a.TXT {
				text += " " + a.Record(i)
			}
		}
		if a.Question.Type != dns.TypeTXT || !a.Question.Secure || asked && !a.Secure {
			t.Errorf("%v", a)
		}
		all = append(all, text)
	}
	return strings.Join(all, " / ")
}

// TestTexts_relays: each relay has its own, once; an address has none.
func TestTexts_relays(t *testing.T) {
	t.Parallel()
	server := dnstest.New(t, textsZone+"_mta-sts.mx1.example.org. TXT x\n", map[string]string{"_mta-sts.mx2.example.org": "servfail"})
	f := finder(t, settings(t, files("protocols", "a:1:0:N:Y:mxf-remote-smtpc\nb:2:0:N:Y:mxf-remote-smtpc\nc:3:0:N:Y:mxf-remote-smtpc\nd:4:0:N:Y:mxf-remote-smtpc\n",
		"aroutes", ":mx1.example.org\n", "broutes", ":MX1.example.org\n", "croutes", ":192.0.2.50\n", "droutes", ":mx2.example.org\n")), server.Addr)
	r := request("example.org")
	r.Texts = []string{"_mta-sts"}
	result, err := f.Find(t.Context(), r)
	var domains []string
	for _, c := range result.Candidates {
		domains = append(domains, result.PolicyDomain(&c))
	}
	want := []string{"mx1.example.org", "mx1.example.org", "", "mx2.example.org"}
	if err != nil || !slices.Equal(domains, want) || len(result.Texts) != 2 {
		t.Fatalf("%q, %v, %v", domains, result.Texts, err)
	}
	if first, second := result.Texts[want[0]][0], result.Texts[want[3]][0]; !slices.Equal(first.TXT, []string{"x"}) || !second.Failed() {
		t.Errorf("%v, %v", first, second)
	}
	if asked := server.Questions(); asked["TXT _mta-sts.mx1.example.org"] != 1 || asked["TXT _mta-sts.example.org"] > 0 {
		t.Errorf("asked %v", asked)
	}
}

// TestTexts_late: who does not answer for TXT in a quarter of the time is not waited for, and
// nothing fails because of him; nor is he asked where nobody wants to know.
func TestTexts_late(t *testing.T) {
	t.Parallel()
	server := dnstest.New(t, textsZone, map[string]string{"_mta-sts.example.org": "silence", "_mta-sts.relay.example.net": "silence"})
	for _, routes := range []string{"", ":relay.example.net\n"} {
		f := finder(t, settings(t, files("protocols", onlySMTP, "smtproutes", routes)), server.Addr)
		f.request.Limit, f.timeout = 400*time.Millisecond, time.Minute
		r := request("example.org")
		if result, err := f.Find(t.Context(), r); err != nil || result.Texts != nil || server.Questions()["TXT _mta-sts.example.org"] > 0 && routes == "" {
			t.Errorf("%v, %v", result.Texts, err)
		}
		r.Texts = []string{"_mta-sts", "_smtp._tls"}
		result, err := f.Find(t.Context(), r)
		if err != nil || len(result.Texts) != 1 {
			t.Fatalf("%q: %v, %v", routes, result.Texts, err)
		}
		answers := result.Texts[result.PolicyDomain(&result.Candidates[0])]
		if len(answers) != 2 || !errors.Is(answers[0].Err, context.DeadlineExceeded) || answers[1].Failed() {
			t.Errorf("%q: %v", routes, fmt.Sprint(answers))
		}
	}
}
