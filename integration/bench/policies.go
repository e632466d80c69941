package main

import (
	"fmt"
	"os"
	"time"

	"nightmare.mail/mxf/integration/bench/runs"
	"nightmare.mail/mxf/integration/lab"
)

const (
	// policyFactor is how much a delivery may take that goes by all that is published, times
	// one that is verified by trust anchors and asks for nothing.
	policyFactor = 1.25
	// stsPolicy is the policy of MTA-STS that is cached.
	stsPolicy = "version: STSv1\nmode: enforce\nmx: *." + domain + "\nmax_age: 604800\n"
)

// policies measures what a delivery costs more that goes by what is published.
func (b *bench) policies() error {
	may, err := b.home("may", map[string]string{"trustanchors": b.bundle})
	if err != nil {
		return err
	}
	asking, err := b.home("asking", map[string]string{"trustanchors": b.bundle, "trustresolvers": b.sink.facts.DNS})
	if err != nil {
		return err
	}
	all, err := b.home("policies", map[string]string{"trustanchors": b.bundle, "tlsstrictness": "2",
		"trustresolvers": b.sink.facts.DNS, "mtasts": "sts", "tlsrptsocket": b.sink.facts.Reports})
	if err != nil {
		return err
	}
	if err := cachePolicy(all, "fast."+domain); err != nil {
		return err
	}
	for _, c := range []struct {
		name, mode string
		homes      [2]*lab.Home // of which the first asks for nothing that is published
		more       int
	}{
		{"trustresolvers, an unsigned exchanger", "unsigned", [...]*lab.Home{may, asking}, 0},
		{"trustresolvers, a signed exchanger", "fast", [...]*lab.Home{may, asking}, 1},
		{"trustresolvers, mtasts and tlsrptsocket, a signed exchanger", "fast", [...]*lab.Home{b.verified, all}, 3},
	} {
		if err := b.compareQuestions(c.name, c.mode, c.homes, c.more); err != nil {
			return err
		}
	}
	return b.goByPolicies(all)
}

// cachePolicy puts a policy of MTA-STS into the cache of a home.
func cachePolicy(h *lab.Home, domain string) error {
	if err := os.Mkdir(h.Path("sts"), 0o755); err != nil {
		return err
	}
	return os.WriteFile(h.Path("sts/"+domain), fmt.Appendf(nil, "mxf-sts 1\ndomain %s\nid 1\nfetched %d\nbytes %d\n\n%s",
		domain, time.Now().Unix(), len(stsPolicy), stsPolicy), 0o644)
}

// compareQuestions counts the questions to name servers of a delivery from each of two homes.
func (b *bench) compareQuestions(name, mode string, homes [2]*lab.Home, more int) error {
	var asked [2]int
	for i, home := range homes {
		var before, after int
		if err := b.sink.ask("questions", &before); err != nil {
			return err
		}
		if _, err := b.launch(runs.Job{Environ: b.environ(home), Stdin: b.small, Runs: [][]string{b.deliver(mode)}}); err != nil {
			return err
		}
		if err := b.sink.ask("questions", &after); err != nil {
			return err
		}
		asked[i] = after - before
	}
	b.table.add("questions to name servers, "+name, fmt.Sprint(asked[1]), fmt.Sprintf("without: %d", asked[0]),
		fmt.Sprintf("%d more", more), verdict(asked[1] == asked[0]+more))
	return nil
}

// goByPolicies measures a delivery by DANE, with a policy of MTA-STS in the cache and a report.
func (b *bench) goByPolicies(h *lab.Home) error {
	var before int
	if err := b.sink.ask("reports", &before); err != nil {
		return err
	}
	results, err := b.beside(inARow, b.small, b.deliver("fast"), b.verified, h)
	if err != nil {
		return err
	}
	told, err := b.reports(before)
	if err != nil {
		return err
	}
	const figure = "one delivery by DANE, MTA-STS cached, TLSRPT: "
	for _, m := range []struct {
		name          string
		without, ours time.Duration
	}{
		{"wall", median(values(results[0], wall)), median(values(results[1], wall))},
		{"CPU", mean(values(results[0], cpu)), mean(values(results[1], cpu))},
	} {
		b.table.add(figure+m.name, ms(m.ours), "STARTTLS, verified: "+ms(m.without),
			fmt.Sprintf("≤ %.2f × that; it is %s", policyFactor, times(m.ours.Seconds(), m.without.Seconds())), verdict(m.ours.Seconds() <= policyFactor*m.without.Seconds()))
	}
	b.table.add(figure+"peak memory", mb(median(values(results[1], peak))), "STARTTLS, verified: "+mb(median(values(results[0], peak))), "", "")
	b.table.add(fmt.Sprintf("reports on TLS, of %d deliveries", inARow), fmt.Sprint(told), "", fmt.Sprint(inARow), verdict(told == inARow))
	return nil
}

// reportLimit is how long the last report may take to be read by the sink.
const reportLimit = time.Second

// reports returns how many reports have come since there were some, when there is one for each
// delivery, or no more come.
func (b *bench) reports(before int) (int, error) {
	for end := time.Now().Add(reportLimit); ; time.Sleep(20 * time.Millisecond) {
		var all int
		err := b.sink.ask("reports", &all)
		if err != nil || all-before >= inARow || time.Now().After(end) {
			return all - before, err
		}
	}
}
