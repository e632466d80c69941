package integration

import (
	"fmt"
	"regexp"
	"strconv"

	"github.com/rogpeppe/go-internal/testscript"

	"nightmare.mail/mxf/integration/lab"
)

// Commands of scripts for reports on TLS:
//
//	collector [full]             a collector at home/tlsrpt, which control/tlsrptsocket names; one whose queue is
//	                             full reads nothing. Each datagram must be as the page has it
//	told COUNT [N REGEXP]...     so many datagrams were sent to it, and datagram N (see lab.Told.String) is matched;
//	                             they are the standard output as they came
var tlsrptCommands = map[string]command{
	"collector": plain(0, (*rig).collect),
	"told":      plain(1, (*rig).toldIs),
}

func (r *rig) collect(ts *testscript.TestScript, args []string) error {
	start := lab.StartCollector
	if len(args) > 0 && args[0] == "full" {
		start = lab.StartFullCollector
	}
	var err error
	if r.collector, err = start(r.Home.Path("tlsrpt")); err != nil {
		return err
	}
	c := r.collector
	ts.Defer(func() {
		c.Close()
		ts.Check(c.Wrong())
	})
	return r.Home.Set("tlsrptsocket", "tlsrpt")
}

func (r *rig) toldIs(ts *testscript.TestScript, args []string) error {
	all, err := r.collector.Told()
	if err != nil {
		return err
	}
	for _, d := range all {
		fmt.Fprintln(ts.Stdout(), d.Raw)
	}
	if want, err := strconv.Atoi(args[0]); err != nil || len(all) != want {
		return fmt.Errorf("%d datagrams were sent: %v", len(all), all)
	}
	for args = args[1:]; len(args) > 1; args = args[2:] {
		n, err := strconv.Atoi(args[0])
		if err != nil || n < 1 || n > len(all) {
			return fmt.Errorf("no datagram %s", args[0])
		}
		pattern, err := regexp.Compile(`\A(?:` + args[1] + `)\z`)
		if err != nil {
			return err
		}
		if got := all[n-1].String(); !pattern.MatchString(got) {
			return fmt.Errorf("datagram %d is %s", n, got)
		}
	}
	return r.collector.Wrong()
}

// What differs from run to run in a datagram: certificates, and whose clock was the first.
var (
	toldHex   = regexp.MustCompile(`\b[0-9A-F]{64,}\b`)
	toldLimit = regexp.MustCompile(`no-answer-to-the-handshake-(in-time|within-\d+-ms)`)
)

// toldSoFar is what was told, to be compared.
func (r *rig) toldSoFar(ts *testscript.TestScript) (text string) {
	if r.collector == nil {
		return ""
	}
	all, err := r.collector.Told()
	ts.Check(err)
	for _, d := range all {
		text += "told: " + toldLimit.ReplaceAllString(toldHex.ReplaceAllString(d.Raw, "HEX"), "no-answer") + "\n"
	}
	return text
}
