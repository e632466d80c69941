package transport

import (
	"errors"
	"strings"
	"testing"

	"nightmare.mail/mxf/remote/policy"
	"nightmare.mail/mxf/remote/report"
	"nightmare.mail/mxf/smtpc"
	"nightmare.mail/mxf/tlsc"
)

// What is known of STARTTLS in a chain, by what it said and how it ended.
func TestSecuring(t *testing.T) {
	const ip, fatalLine = "192.0.2.1", "mxf-ucspitlsc: fatal: "
	unavailable := report.New(report.TLSUnavailable, report.Facts{IP: ip, Reason: "server ended it"})
	none := func(causes ...error) error { return noTransaction(unavailable, causes...) }
	for _, c := range []struct {
		said string
		err  error
		want Securing
		rest string
	}{
		{"", nil, Securing{}, ""},
		{"anything\n", nil, Securing{}, "anything\n"},
		{securingMark + "up\n", nil, Securing{What: smtpc.Secured}, ""},
		{securingMark + "up\nanything", none(), Securing{What: smtpc.Secured}, "anything"},
		{securingMark + "up no:certificate is for \"a no: up\", not \"b\"\n", nil,
			Securing{smtpc.Secured, tlsc.Faults{Anchors: tlsc.FaultName}, `certificate is for "a no: up", not "b"`}, ""},
		{securingMark + "up no:no trust anchors\n", nil, Securing{What: smtpc.Secured, Reason: "no trust anchors"}, ""},
		{securingMark + "not offered\n", nil, Securing{What: smtpc.NotOffered}, ""},
		{securingMark + "refused", nil, Securing{What: smtpc.NotGranted}, ""},
		{securingMark + "nonsense\n", nil, Securing{}, ""},
		{"550-" + securingMark + "up\n", nil, Securing{}, "550-" + securingMark + "up\n"},
		{securingMark + "failed\nwhy\n", none(policy.ErrTLS), Securing{What: smtpc.NotSecured, Reason: "server ended it"}, "why\n"},
		{securingMark + "failed\n", &report.Fuse{}, Securing{What: smtpc.NotSecured}, ""},
		{fatalLine + "certificate expired on x\n" + securingMark + "failed\nwhy\n", none(policy.ErrTLS),
			Securing{smtpc.NotSecured, tlsc.Faults{Anchors: tlsc.FaultDate}, "certificate expired on x"}, fatalLine + "certificate expired on x\nwhy\n"},
		// Programs of others, who keep to the exit codes.
		{fatalLine + "no answer\n", none(policy.ErrTLS), Securing{What: smtpc.NotSecured, Reason: "no answer"}, fatalLine + "no answer\n"},
		{"s6-ucspitlsc: fatal: certificate expired on x\n", none(policy.ErrTLS), Securing{What: smtpc.NotSecured, Reason: "certificate expired on x"},
			"s6-ucspitlsc: fatal: certificate expired on x\n"},
		{"why", none(policy.ErrTLS), Securing{}, "why"},
		{"why", none(policy.ErrNotOffered), Securing{What: smtpc.NotOffered}, "why"},
		{"why", none(policy.ErrStumbled), Securing{}, "why"},
		{fatalLine + "why", errors.New("killed"), Securing{}, fatalLine + "why"},
	} {
		became, rest := cutSecuring(c.said)
		if got := became.completed(rest, c.err, ip); got != c.want || rest != c.rest {
			t.Errorf("%q, %v: %+v, %q; want %+v", c.said, c.err, got, rest, c.want)
		}
	}
}

// Whatever a chain says, no more of it is taken than whole lines of our own program.
func FuzzCutSecuring(f *testing.F) {
	for _, said := range []string{"", "why\n", securingMark + "up", securingMark + "up no:certificate\n550 " + securingMark + "up\n", "\n" + securingMark + "\n\n"} {
		f.Add(said)
	}
	f.Fuzz(func(t *testing.T, said string) {
		became, rest := cutSecuring(said)
		var others []string
		for line := range strings.Lines(said) {
			if !strings.HasPrefix(line, securingMark) {
				others = append(others, line)
			}
		}
		if want := strings.Join(others, ""); rest != want || rest == said && became != (Securing{}) {
			t.Errorf("%q: %+v, %q", said, became, rest)
		}
	})
}
