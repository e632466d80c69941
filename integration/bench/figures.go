package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"nightmare.mail/mxf/integration/bench/runs"
	"nightmare.mail/mxf/integration/lab"
)

const (
	// inARow is how often a small message is sent, so that chance evens out.
	inARow = 200
	// busyFactor and speedFactor are bounds, times the floor.
	busyFactor  = 1.5
	speedFactor = 0.7
	// nagleDelay is what Nagle's algorithm and delayed acknowledgement cost together. No
	// delivery may take so much longer than the median. On a busy machine the scheduler
	// alone can cause that, in the floor too.
	nagleDelay = 40 * time.Millisecond
)

// oneDelivery measures wall and CPU time of small messages, one after the other.
func (b *bench) oneDelivery() error {
	empty := []string{filepath.Join(filepath.Dir(b.floor), "empty")}
	for _, kind := range []struct {
		name  string
		home  *lab.Home
		bound float64 // times the floor
		floor []string
		lower []string // a program that does less than the floor
	}{
		{"clear", b.clear, 1.3, b.bare("smtp", "fast"), empty},
		{"STARTTLS, verified", b.verified, 0.8, b.bare("smtp", "fast", withTLS(b.bundle)...), b.bare("smtp", "fast", withTLS(b.single)...)},
	} {
		results, err := b.alternate(inARow, b.small, b.environ(kind.home), b.deliver("fast"), kind.floor, kind.lower)
		if err != nil {
			return err
		}
		for _, m := range []struct {
			name  string
			value func(runs.Result) time.Duration
		}{{"wall", wall}, {"CPU", cpu}} {
			ours, floor, lower := values(results[0], m.value), values(results[1], m.value), values(results[2], m.value)
			a, f, l := median(ours), median(floor), median(lower)
			if m.name == "CPU" { // the kernel may count it in ticks
				a, f, l = mean(ours), mean(floor), mean(lower)
			}
			beneath := fmt.Sprintf("an empty program: %s", ms(l))
			if kind.home == b.verified {
				beneath = fmt.Sprintf("with one trust anchor in place of all: %s", ms(l))
			}
			b.table.add(fmt.Sprintf("one delivery, %s: %s", kind.name, m.name), ms(a), fmt.Sprintf("%s (%s)", ms(f), beneath),
				fmt.Sprintf("≤ %.1f × floor; it is %s", kind.bound, times(a.Seconds(), f.Seconds())), verdict(a.Seconds() <= kind.bound*f.Seconds()))
			if m.name == "wall" {
				show := func(list []time.Duration) string {
					return fmt.Sprintf("%s; the slowest %s", ms(nearlyAll(list)), ms(list[len(list)-1]))
				}
				b.table.add(fmt.Sprintf("one delivery, %s: 95 of 100 within", kind.name), show(ours), show(floor),
					"no steps of 40 ms anywhere", verdict(ours[len(ours)-1] < a+nagleDelay))
			}
		}
	}
	if err := b.asChain(); err != nil {
		return err
	}
	return b.peer()
}

// asChain measures the verified delivery by a chain of programs, for comparison.
func (b *bench) asChain() error {
	for _, program := range []string{"mxf-remote-smtpc", "mxf-ucspitlsc"} {
		if _, err := os.Stat(filepath.Join(b.bin, program)); errors.Is(err, os.ErrNotExist) {
			return nil
		}
	}
	client := filepath.Join(b.bin, "mxf-ucspitlsc")
	home, err := b.home("chain", map[string]string{"trustanchors": b.bundle, "tlsstrictness": "2", "ucspitlsclient": client})
	if err != nil {
		return err
	}
	results, err := b.alternate(inARow/4, b.small, b.environ(home), b.deliver("fast"))
	if err != nil {
		return err
	}
	b.table.add("the same as a chain of programs", fmt.Sprintf("%s wall, %s CPU",
		ms(median(values(results[0], wall))), ms(mean(values(results[0], cpu)))), "", "", "")
	return nil
}

// peer measures the clear delivery by another qmail-remote.
func (b *bench) peer() error {
	path := os.Getenv("PEER")
	if path == "" {
		return nil
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	over := os.Getenv("PEERHOME")
	if over == "" {
		over = "/var/qmail"
	}
	relay := fmt.Sprintf(":[%s]:%d", fastAddress, b.sink.facts.Port)
	home, err := b.home("peer", map[string]string{"me": lab.HeloHost, "smtproutes": relay})
	if err != nil {
		return err
	}
	job := runs.Job{Bind: [2]string{home.Dir, over}, Environ: []string{"PATH=" + os.Getenv("PATH"), "DNSCACHEIP=" + b.sink.facts.DNS}, Stdin: b.small}
	for range inARow {
		job.Runs = append(job.Runs, append([]string{path}, b.deliver("fast")[1:]...))
	}
	figure := fmt.Sprintf("one delivery, clear, by %s", path)
	results, err := b.launchIn(job, ownMounts())
	if err != nil {
		b.table.add(figure, fmt.Sprintf("could not be run: %v", err), "", "", "")
		return nil
	}
	b.table.add(figure, fmt.Sprintf("%s wall, %s CPU, %s peak, routed to an address", ms(median(values(results, wall))),
		ms(mean(values(results, cpu))), mb(median(values(results, peak)))), "", "", "")
	return nil
}

// heldDeliveries is the number of deliveries that wait at the same time.
const heldDeliveries = 50

// inFlight measures the memory of a delivery that waits for a server.
func (b *bench) inFlight() error {
	for _, kind := range []struct {
		name  string
		home  *lab.Home
		bound int64
		floor []string
	}{
		{"clear", b.clear, 3 << 19, b.bare("smtp", "hold")},
		{"STARTTLS, verified", b.verified, 2 << 20, b.bare("smtp", "hold", withTLS(b.bundle)...)},
	} {
		ours, count, running, err := b.footprints(b.environ(kind.home), b.deliver("hold"))
		if err != nil {
			return err
		}
		floor, _, floorRunning, err := b.footprints(b.environ(kind.home), kind.floor)
		if err != nil {
			return err
		}
		b.table.add("processes alive during a delivery, "+kind.name, fmt.Sprintf("%d (%d threads)", count, running), fmt.Sprintf("1 (%d threads)", floorRunning), "1", verdict(count == 1))
		b.table.add("memory of a delivery in flight, "+kind.name+": Pss", mb(ours.pss), mb(floor.pss),
			"≤ "+mb(kind.bound), verdict(ours.pss <= kind.bound))
		b.table.add("memory of a delivery in flight, "+kind.name+": private", mb(ours.private), mb(floor.private),
			"≤ "+mb(kind.bound), verdict(ours.private <= kind.bound))
	}
	return nil
}

// footprints returns the mean footprint of the deliveries, and the highest number of
// processes and of threads that one of them has.
func (b *bench) footprints(environ, argv []string) (f footprint, processes, running int, err error) {
	h, err := b.hold(heldDeliveries, environ, argv)
	if err != nil {
		return f, 0, 0, errors.Join(err, h.release())
	}
	for _, cmd := range h.cmds {
		one, err := memory(cmd.Process.Pid)
		if err != nil {
			return f, 0, 0, errors.Join(err, h.release())
		}
		f.pss += one.pss / heldDeliveries
		f.private += one.private / heldDeliveries
		processes = max(processes, len(descendants(cmd.Process.Pid)))
		running = max(running, threads(cmd.Process.Pid))
	}
	return f, processes, running, h.release()
}

const (
	// throughputRuns is how often the large message is sent. The median counts, because
	// the scheduler makes both programs run at one of two speeds.
	throughputRuns = 9
	// peakBound is how much more memory a large message may take than a small one.
	peakBound = 4 << 20
)

// throughput measures how fast a large message goes.
func (b *bench) throughput() error {
	for _, kind := range []struct {
		name, mode string
		home       *lab.Home
		floor      []string
	}{
		{"DATA, clear", "data", b.clear, b.bare("smtp", "data")},
		{"DATA, TLS", "data", b.verified, b.bare("smtp", "data", withTLS(b.bundle)...)},
		{"QMTP, clear", "qmtp", b.routed, b.bare("qmtp", "qmtp")},
		{"QMTP, TLS", "qmtps", b.verified, b.bare("qmtp", "qmtps", withTLS(b.bundle)...)},
	} {
		environ, ours := b.environ(kind.home), b.deliver(kind.mode)
		large, err := b.alternate(throughputRuns, b.large, environ, ours, kind.floor)
		if err != nil {
			return err
		}
		small, err := b.alternate(throughputRuns, b.small, environ, ours, kind.floor)
		if err != nil {
			return err
		}
		a, f := median(values(large[0], wall)), median(values(large[1], wall))
		b.table.add("100 MB by "+kind.name, rate(largeSize, a), rate(largeSize, f),
			fmt.Sprintf("≥ 0.7 × floor; it is %s", times(f.Seconds(), a.Seconds())), verdict(f.Seconds() >= speedFactor*a.Seconds()))
		aPeak, fPeak := median(values(large[0], peak)), median(values(large[1], peak))
		aSmall, fSmall := median(values(small[0], peak)), median(values(small[1], peak))
		b.table.add("100 MB by "+kind.name+": peak memory, over that of 3.5 KB",
			fmt.Sprintf("%s, + %s", mb(aPeak), mb(aPeak-aSmall)), fmt.Sprintf("%s, + %s", mb(fPeak), mb(fPeak-fSmall)),
			"≤ + "+mb(peakBound), verdict(aPeak-aSmall <= peakBound))
	}
	return nil
}

const (
	// tunnelRuns is how often each tunnel is used. The best run counts.
	tunnelRuns = 2
	// tunnelPeak is how much memory the tunnel's process may take, bytes.
	tunnelPeak = 16 << 20
)

// tunnel measures how fast mxf-tlsc carries bytes, and how much memory it takes.
func (b *bench) tunnel() error {
	size := fmt.Sprint(tunnelSize)
	tlsc := []string{filepath.Join(b.bin, "mxf-tlsc"), "-k", mxName, "--"}
	relay := []string{b.floor, "relay", "-name", mxName, "-ca", b.bundle}
	for _, kind := range []struct{ name, mode, inside, bare string }{
		{"to the server", "drain", "write", "send"},
		{"from the server", "source", "read", "receive"},
	} {
		var ours, pipes, direct carried
		for range tunnelRuns {
			for _, one := range []struct {
				best *carried
				argv []string
			}{
				{&ours, append(slices.Clone(tlsc), b.floor, kind.inside, size)},
				{&pipes, append(slices.Clone(relay), b.floor, kind.inside, size)},
				{&direct, []string{b.floor, kind.bare, "-name", mxName, "-ca", b.bundle, b.sink.facts.Addrs[kind.mode], size}},
			} {
				got, err := b.carry(one.argv, b.sink.facts.Addrs[kind.mode])
				if err != nil {
					return err
				}
				if one.best.Seconds == 0 || got.Seconds < one.best.Seconds {
					one.best.Seconds = got.Seconds
				}
				one.best.Peak = max(one.best.Peak, got.Peak)
			}
		}
		speed := func(c carried) string {
			return rate(tunnelSize, time.Duration(c.Seconds*float64(time.Second)))
		}
		b.table.add("mxf-tlsc, 1 GB "+kind.name, speed(ours), fmt.Sprintf("%s (without pipes, and a process less: %s)", speed(pipes), speed(direct)),
			fmt.Sprintf("≥ 0.7 × floor; it is %s", times(pipes.Seconds, ours.Seconds)), verdict(pipes.Seconds >= speedFactor*ours.Seconds))
		b.table.add("mxf-tlsc, 1 GB "+kind.name+": peak memory of the tunnel", mb(ours.Peak), "", "≤ "+mb(tunnelPeak), verdict(ours.Peak <= tunnelPeak))
	}
	return nil
}

// A carried is what the floor prints after it has carried the bytes.
type carried struct {
	Seconds float64
	Peak    int64
}

// carry runs a program with a connection on descriptors 6 and 7.
func (b *bench) carry(argv []string, address string) (c carried, err error) {
	cmd := exec.CommandContext(b.ctx, argv[0], argv[1:]...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "CAFILE=" + b.bundle}
	cmd.Stderr = os.Stderr
	if !slices.Contains(argv, address) { // it does not connect by itself
		conn, err := net.Dial("tcp", address)
		if err != nil {
			return c, err
		}
		socket, err := conn.(*net.TCPConn).File()
		conn.Close()
		if err != nil {
			return c, err
		}
		defer socket.Close()
		cmd.ExtraFiles = []*os.File{nil, nil, nil, socket, socket}
	}
	out, err := cmd.Output()
	if err != nil {
		return c, fmt.Errorf("%q: %w, %q", argv, err, out)
	}
	return c, json.Unmarshal(out, &c)
}

// countTurns counts how often a delivery waits for a server that delays each flight of
// answers.
func (b *bench) countTurns() error {
	for _, kind := range []struct {
		name, mode string
		home       *lab.Home
		want       int
	}{
		{"SMTP with PIPELINING, clear", "turns-data", b.clear, 4},
		{"SMTP without PIPELINING, clear", "turns-plain", b.clear, 6},
		{"SMTP with PIPELINING, STARTTLS", "turns-data", b.verified, 7},
		{"SMTP without PIPELINING, STARTTLS", "turns-plain", b.verified, 9},
		{"QMTP", "turns-qmtp", b.routed, 1},
		{"QMTPS", "turns-qmtps", b.verified, 2},
	} {
		got, took, err := b.turns(kind.mode, kind.home)
		if err != nil {
			return err
		}
		b.table.add("turns, "+kind.name, fmt.Sprintf("%d (%s)", got, ms(took)), ms(time.Duration(kind.want)*flightDelay),
			fmt.Sprint(kind.want), verdict(got == kind.want))
	}
	return nil
}

// turns returns how often a delivery waits for the server of a mode, and how long it takes.
func (b *bench) turns(mode string, h *lab.Home) (count int, took time.Duration, err error) {
	results, err := b.launch(runs.Job{Environ: b.environ(h), Stdin: b.small, Runs: [][]string{b.deliver(mode)}})
	if err != nil {
		return 0, 0, err
	}
	var all map[string]int
	err = b.sink.ask("turns", &all)
	return all[mode], results[0].Wall, err
}

const (
	many       = 1000 // deliveries
	atATime    = 100
	deadPerTen = 2 // of ten deliveries, those to the host with a dead exchanger
	// deadTimeout is timeoutconnect of the deliveries.
	deadTimeout = 3 * time.Second
	// sinceFirst is how long ago the first time-out of the dead exchanger was. A second
	// one within two minutes does not count (qmail-tcpto).
	sinceFirst = 5 * time.Minute
)

// thousand measures a busy host, and one exchanger is down.
func (b *bench) thousand() error {
	home, err := b.home("dead", map[string]string{"timeoutconnect": fmt.Sprint(int(deadTimeout.Seconds()))})
	if err != nil {
		return err
	}
	ours := runs.Job{Environ: b.environ(home), Stdin: b.small, Parallel: atATime}
	floor := ours
	for i := range many {
		mode := "fast"
		if i%10 < deadPerTen {
			mode = "half"
		}
		ours.Runs = append(ours.Runs, b.deliver(mode))
		floor.Runs = append(floor.Runs, b.bare("smtp", "fast"))
	}
	begin := time.Now()
	if _, err := b.launch(floor); err != nil {
		return err
	}
	bare := time.Since(begin)
	for _, kind := range []struct {
		name    string
		table   []byte
		bounded bool
	}{
		{"its first time-out was 5 minutes ago", tcpto(deadAddress, time.Now().Add(-sinceFirst)), true},
		{"it was never noticed before, and a second time-out within two minutes does not count", make([]byte, tcptoSize), false},
	} {
		if err := os.WriteFile(home.Path("queue/lock/tcpto"), kind.table, 0o600); err != nil {
			return err
		}
		begin := time.Now()
		results, err := b.launch(ours)
		if err != nil {
			return err
		}
		took := time.Since(begin)
		waited := 0
		for _, r := range results {
			if r.Wall >= deadTimeout {
				waited++
			}
		}
		bound, met := "", ""
		if kind.bounded {
			most := deadTimeout + time.Duration(busyFactor*float64(bare))
			bound = fmt.Sprintf("≤ %.2f s: 1.5 × floor, and one time-out of %.0f s", most.Seconds(), deadTimeout.Seconds())
			met = verdict(took <= most)
		}
		b.table.add(fmt.Sprintf("1,000 deliveries, 100 at a time, a fifth to a dead exchanger: %s", kind.name),
			fmt.Sprintf("%.2f s, %d waited", took.Seconds(), waited), fmt.Sprintf("%.2f s, none dead", bare.Seconds()), bound, met)
	}
	return nil
}

// tcptoSize is the size of qmail's table of dead hosts.
const tcptoSize = 1024

// tcpto returns that table after one time-out; see package remote/dial.
func tcpto(address string, at time.Time) []byte {
	t := make([]byte, tcptoSize)
	copy(t, net.ParseIP(address).To4())
	t[4] = 1
	for i := range 4 {
		t[8+i] = byte(at.Unix() >> (8 * i))
	}
	return t
}

// sizeBound is how large a program may be, bytes.
const sizeBound = 9 << 20

// sizes measures the programs as they are installed.
func (b *bench) sizes() error {
	size := func(path string) int64 {
		info, err := os.Stat(path)
		if err != nil {
			return 0
		}
		return info.Size()
	}
	floor := fmt.Sprintf("%s (an empty program: %s)", mb(size(b.floor)), mb(size(filepath.Join(filepath.Dir(b.floor), "empty"))))
	programs, err := filepath.Glob(filepath.Join(b.bin, "*"))
	if err != nil {
		return err
	}
	for _, path := range programs {
		if name := filepath.Base(path); name != "mxf-try" { // it contains the servers of the tests
			b.table.add("size of "+name, mb(size(path)), floor, "≤ "+mb(sizeBound), verdict(size(path) <= sizeBound))
		}
	}
	return nil
}
