package remote

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/remote/policy"
	"nightmare.mail/mxf/remote/report"
	"nightmare.mail/mxf/remote/route"
)

// A plan needs no message and connects to no exchanger. It has the candidates with what is
// required of them, what we say about ourselves, and what is passed over.
func TestRouter_Plan(t *testing.T) {
	h := newHouse(t, control.SMTPProgram)
	deadHost(t, h.router.deadHosts(&Job{}).Folder, netip.MustParseAddr("127.0.0.9"))
	plan := h.router.Plan(t.Context(), &Job{Host: "EXAMPLE.org.", Number: 32})
	if plan.Err != nil || len(plan.Steps) != 2 {
		t.Fatalf("%+v", plan)
	}
	first, second := plan.Steps[0], plan.Steps[1]
	if first.Host != "mx1.example.org" || first.Why != "MX 10" || second.Host != serverName || second.Why != "MX 20" {
		t.Errorf("steps %+v and %+v", first.Candidate, second.Candidate)
	}
	if n := first.Addresses[0].Silent.Round(time.Minute); n != 63*time.Minute || second.Addresses[0].Silent != 0 {
		t.Errorf("passed over for %v and %v", n, second.Addresses[0].Silent)
	}
	for _, s := range plan.Steps {
		if s.Requirement.By != "control/tlsstrictness 0" || s.Requirement.First != policy.May || !s.InProcess || s.Err != nil || s.Addresses[0].Identity.HeloHost != "me.example" {
			t.Errorf("%s: %+v", s.Host, s)
		}
	}
	var asked []string
	for _, a := range plan.Route.Answers {
		asked = append(asked, a.Question.Type.String()+" "+a.Question.Name)
	}
	if got, want := strings.Join(asked, ", "), "SRV _smtp._tcp.example.org, MX example.org, AAAA mx1.example.org, A mx1.example.org, AAAA mx.example.org, A mx.example.org"; got != want {
		t.Errorf("asked for %s, want %s", got, want)
	}
	if seen := h.server.Conversations(); len(seen) > 0 {
		t.Errorf("connected %d times", len(seen))
	}
}

// A plan that ends without a candidate says why, and what was learnt until then.
func TestRouter_Plan_refused(t *testing.T) {
	h := newHouse(t, control.SMTPProgram)
	plan := h.router.Plan(t.Context(), &Job{Host: "nobody.example.org"})
	var refused *route.Error
	if !errors.As(plan.Err, &refused) || refused.Kind != route.NoSuchHost || len(plan.Steps) > 0 || len(plan.Route.Answers) == 0 || plan.Report().Letter != report.Permanent {
		t.Errorf("%+v", plan)
	}
}

// A step knows what control/smtpavoid says of its addresses, and a program that is missing.
func TestRouter_steps(t *testing.T) {
	w := newTestWalk(t, func(s *control.Settings) {
		s.Protocols = append(s.Protocols, control.Protocol{Service: "nntp", Program: "mxf-remote-nntpc"})
	})
	addr := netip.MustParseAddrPort("127.0.0.1:25")
	c := w.candidate(addr)
	missing := c
	missing.Protocol = &w.Settings.Protocols[1]
	steps := w.planned(context.Background(), c, missing)
	if s := steps[0]; s.Err != nil || !s.InProcess || s.Requirement.First != policy.Clear || s.Addresses[0].AddrPort != addr {
		t.Errorf("%+v", s)
	}
	if s := steps[1]; s.Err == nil || s.InProcess {
		t.Errorf("%+v", s)
	}
}

// A plan says what is reported where nothing can be tried, and nothing where something can.
func TestPlan_Report(t *testing.T) {
	open := Address{AddrPort: netip.MustParseAddrPort("192.0.2.1:25")}
	silent := Address{AddrPort: netip.MustParseAddrPort("192.0.2.2:25"), Silent: time.Minute}
	smtp := route.Candidate{Protocol: &control.Protocol{Service: "smtp"}, Host: "mx.example.org"}
	missing := &report.Error{Case: report.ProgramFailed, Facts: report.Facts{Reason: "no such file"}}
	unused := &report.Error{Case: report.FamilyNotUsed, Facts: report.Facts{Line: "control/families:1", Host: "mx6.example.org"}}
	const none = "\nNo address was tried."
	for _, test := range []struct {
		steps []Step
		want  string
	}{
		{[]Step{{Candidate: smtp, Addresses: []Address{silent, open}}}, ""},
		{[]Step{{Candidate: smtp, Addresses: []Address{silent}}, {Candidate: smtp, Addresses: []Address{open}}}, ""},
		{[]Step{{Candidate: smtp, Addresses: []Address{silent}}}, "ZSorry, I wasn't able to establish an SMTP connection. (#4.4.1)\n" +
			"mx.example.org (192.0.2.2) port 25 did not answer lately and was not tried (see qmail-tcpto)" + none},
		{[]Step{{Candidate: smtp, Addresses: []Address{open}, Err: missing}}, "ZUnable to run the protocol program: no such file. (#4.3.0)" + none},
		{[]Step{{Candidate: smtp, Err: unused}}, "ZSorry, control/families:1 leaves mx6.example.org without an address. (#4.4.4)" + none},
		{[]Step{{Candidate: smtp, Err: unused}, {Candidate: smtp, Addresses: []Address{open}}}, ""},
		// One that was left out in favour of another is not the reason.
		{[]Step{{Candidate: smtp, Addresses: []Address{silent}}, {Candidate: smtp, Err: unused}}, "ZSorry, I wasn't able to establish an SMTP connection. (#4.4.1)\n" +
			"mx.example.org (192.0.2.2) port 25 did not answer lately and was not tried (see qmail-tcpto)" + none},
	} {
		r := (&Plan{Steps: test.steps}).Report()
		got := ""
		if r.Letter != 0 {
			got = string(r.Letter) + r.Text
		}
		if got != test.want {
			t.Errorf("got  %q\nwant %q", got, test.want)
		}
	}
}
