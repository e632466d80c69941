package rspawn

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"nightmare.mail/mxf/control/regular"
	"nightmare.mail/mxf/remote/rspawn/dialect"
	"nightmare.mail/mxf/remote/rspawn/wire"
)

// counts are the numbers of a parent, since its start.
type counts struct {
	processes, ends, crashes uint64
	before                   wire.Counters // of workers that have ended, without what was then
}

// absorb adds the numbers of a worker that has ended.
func (c *counts) absorb(ended *wire.Counters) { c.before = sum(c.before, gone(ended)) }

// gone returns c with nothing under way.
func gone(c *wire.Counters) wire.Counters {
	g := *c
	g.Waiting, g.Busy, g.Idle = 0, 0, 0
	g.Exchangers = slices.Clone(c.Exchangers)
	for i := range g.Exchangers {
		e := &g.Exchangers[i]
		e.Connections, e.Window, e.Waiting = 0, 0, 0
	}
	return g
}

// sum adds all numbers of a and b. Exchangers are those with the most messages.
func sum(a, b wire.Counters) wire.Counters {
	s := wire.Counters{
		Waiting: a.Waiting + b.Waiting, Busy: a.Busy + b.Busy, Idle: a.Idle + b.Idle,
		DeferralsLine: a.DeferralsLine + b.DeferralsLine, New: a.New + b.New, Kept: a.Kept + b.Kept,
		BegunAnew: a.BegunAnew + b.BegunAnew, Transactions: a.Transactions + b.Transactions,
		Recipients: a.Recipients + b.Recipients, Full: a.Full + b.Full, Resumed: a.Resumed + b.Resumed,
		Failed: a.Failed + b.Failed, DNSAsked: a.DNSAsked + b.DNSAsked, DNSKnown: a.DNSKnown + b.DNSKnown,
	}
	type key struct{ name, address string }
	all := make(map[key]wire.Exchanger)
	for _, e := range append(slices.Clone(a.Exchangers), b.Exchangers...) {
		k := key{e.Name, e.Address}
		had := all[k]
		e.Connections += had.Connections
		e.Window += had.Window
		e.Waiting += had.Waiting
		e.MessagesTotal += had.MessagesTotal
		all[k] = e
	}
	for _, e := range all {
		s.Exchangers = append(s.Exchangers, e)
	}
	slices.SortFunc(s.Exchangers, func(x, y wire.Exchanger) int {
		return cmp.Or(cmp.Compare(y.MessagesTotal, x.MessagesTotal), cmp.Compare(x.Name, y.Name), cmp.Compare(x.Address, y.Address))
	})
	s.Exchangers = s.Exchangers[:min(len(s.Exchangers), wire.MaxExchangers)]
	return s
}

// A status is what the status file says.
type status struct {
	limit, slots, inFlight        int
	success, temporary, permanent uint64
	counts                        counts
	wire.Counters                 // of all workers
}

// status returns the numbers of p, without those of its start and of its answers.
func (p *parent) status() status {
	s := status{inFlight: len(p.live), counts: p.counts, Counters: p.counts.before}
	if p.worker != nil {
		s.Counters = sum(s.Counters, p.worker.counters)
	}
	return s
}

func (s *status) answers(o *output) {
	s.success, s.temporary, s.permanent = o.answers(dialect.Success), o.answers(dialect.Temporary), o.answers(dialect.Permanent)
}

// A sample is one line of the status file.
type sample struct {
	name, labels string
	value        uint64
}

// text returns the status in the text format of Prometheus.
func (s *status) text() string {
	samples := []sample{
		{"limit", "", uint64(s.limit)},
		{"slots", "", uint64(s.slots)},
		{"in_flight", "", uint64(s.inFlight)},
		{"waiting", "", s.Waiting},
		{"answers_total", `{letter="K"}`, s.success},
		{"answers_total", `{letter="Z"}`, s.temporary},
		{"answers_total", `{letter="D"}`, s.permanent},
		{"deferrals_total", `{why="line"}`, s.DeferralsLine},
		{"deferrals_total", `{why="crash"}`, s.counts.crashes},
		{"connections", `{state="busy"}`, s.Busy},
		{"connections", `{state="idle"}`, s.Idle},
		{"connections_total", `{how="new"}`, s.New},
		{"connections_total", `{how="kept"}`, s.Kept},
		{"begun_anew_total", "", s.BegunAnew},
		{"transactions_total", "", s.Transactions},
		{"recipients_total", "", s.Recipients},
		{"handshakes_total", `{how="full"}`, s.Full},
		{"handshakes_total", `{how="resumed"}`, s.Resumed},
		{"handshakes_total", `{how="failed"}`, s.Failed},
		{"dns_total", `{how="asked"}`, s.DNSAsked},
		{"dns_total", `{how="known"}`, s.DNSKnown},
		{"worker_ends_total", "", s.counts.ends},
		{"processes_total", "", s.counts.processes},
	}
	for _, of := range []struct {
		name  string
		value func(wire.Exchanger) uint64
	}{
		{"exchanger_connections", func(e wire.Exchanger) uint64 { return e.Connections }},
		{"exchanger_window", func(e wire.Exchanger) uint64 { return e.Window }},
		{"exchanger_waiting", func(e wire.Exchanger) uint64 { return e.Waiting }},
		{"exchanger_messages_total", func(e wire.Exchanger) uint64 { return e.MessagesTotal }},
	} {
		for _, e := range s.Exchangers {
			labels := fmt.Sprintf(`{name="%s",address="%s"}`, escape(e.Name), escape(e.Address))
			samples = append(samples, sample{of.name, labels, of.value(e)})
		}
	}
	return lines(samples)
}

// lines writes samples, with the type of each name before its first.
func lines(samples []sample) string {
	var b strings.Builder
	last := ""
	for _, s := range samples {
		name := "mxf_rspawn_" + s.name
		if name != last {
			kind := "gauge"
			if strings.HasSuffix(name, "_total") {
				kind = "counter"
			}
			fmt.Fprintf(&b, "# TYPE %s %s\n", name, kind)
		}
		fmt.Fprintf(&b, "%s%s %d\n", name, s.labels, s.value)
		last = name
	}
	return b.String()
}

// escape makes a label's value of s.
func escape(s string) string {
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(strings.ToValidUTF8(s, "?"))
}

// replace writes text beside path and renames it: nobody reads half a file. What is there and is
// neither a regular file nor a link stays: it may be /dev/null. So does what a link beside it leads to,
// which somebody else may have put into a folder that all can write to.
func replace(path, text string) error {
	if err := regular.CanMake(path); err != nil {
		return err
	}
	beside := fmt.Sprintf("%s.%d", path, os.Getpid())
	_ = os.Remove(beside) // of a process that was killed, and had the same number
	f, err := os.OpenFile(beside, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	err = errors.Join(err, f.Chmod(0o644), f.Close())
	if err == nil {
		err = os.Rename(beside, path)
	}
	if err != nil {
		_ = os.Remove(beside)
	}
	return err
}
