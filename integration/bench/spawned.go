package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"nightmare.mail/mxf/integration/lab"
)

// What mxf-rspawn costs: this program plays qmail-send's part, and what is measured is mxf-rspawn with
// all that it starts. Beside it stands the same with a process for each delivery, which mxf-rspawn
// starts too ($QMAILREMOTE), as qmail-rspawn would.
//
//	bench ──0──► mxf-rspawn ──► worker ──────► sink
//	  ▲              │    └───► mxf-remote ──►
//	  └──────1───────┘          (beside it)
const (
	// slots is concurrencyremote, where nothing else is said.
	spawnSlots = 20
	// queued is how many messages the queue has. Deliveries at a time have different ones.
	queued = 1000
	// firstQueued is the number of the first.
	firstQueued = 1000
	// spawnLimit is how long the end of mxf-rspawn may take.
	spawnLimit = time.Minute
)

// An apart is what is measured, or what is beside it.
type apart bool

// each has a process for each delivery.
const each apart = true

// spawned measures mxf-rspawn.
func (b *bench) spawned() error {
	for _, part := range []func() error{b.spawnedCPU, b.spawnedMemory, b.spawnedRecipients, b.spawnedMessages, b.spawnedFourth, b.spawnedSluggish} {
		if err := part(); err != nil {
			return err
		}
	}
	b.table.add("200,000 deliveries with faults and 20 ends of the worker", "MXF_LONG=1 go test -run TestSoak ./integration", "", "", "")
	return nil
}

// A playing is an mxf-rspawn that is measured.
type playing struct {
	*lab.Player
	ctx  context.Context
	next int // message
}

// play starts mxf-rspawn in a home that verifies, with further settings. Its queue has messages.
func (b *bench) play(name string, how apart, slots int, settings map[string]string) (*playing, error) {
	all := map[string]string{"trustanchors": b.bundle, "tlsstrictness": "2", "concurrencyremote": strconv.Itoa(slots)}
	for file, value := range settings {
		all[file] = value
	}
	environ := func(h *lab.Home) []string { return b.environ(h) }
	if how == each {
		name += "-each"
		environ = func(h *lab.Home) []string { return append(b.environ(h), "QMAILREMOTE="+b.mxf) }
	}
	home, err := b.home("spawned-"+name, all)
	if err != nil {
		return nil, err
	}
	message, err := os.ReadFile(b.small)
	if err != nil {
		return nil, err
	}
	for n := range queued {
		if _, err := home.Queue(firstQueued+n, message); err != nil {
			return nil, err
		}
	}
	player, err := lab.Play(lab.Part{Program: filepath.Join(b.bin, "mxf-rspawn"), Environ: environ(home), Dir: "/", Slots: slots})
	if err != nil {
		return nil, err
	}
	p := &playing{Player: player, ctx: b.ctx}
	if _, err := p.Limit(b.ctx); err != nil {
		return nil, errors.Join(err, p.Close(spawnLimit))
	}
	if how != each {
		_, err = p.AwaitWorker(b.ctx, 0)
	}
	return p, err
}

// jobs returns n messages, each to a recipient at the domain that is named for it.
func (p *playing) jobs(n int, domain func(i int) string) (jobs []lab.Job) {
	for i := range n {
		jobs = append(jobs, lab.Job{Messid: lab.Messid(firstQueued + p.next%queued), Sender: sender, Recipients: []string{"someone@" + domain(i)}})
		p.next++
	}
	return jobs
}

// deliver delivers. Everything must be accepted.
func (p *playing) deliver(jobs []lab.Job) error {
	var wrong error
	err := p.Jobs(p.ctx, jobs, func(_ *lab.Job, recipient string, a lab.Answer) {
		if a.Letter != 'K' && wrong == nil {
			wrong = fmt.Errorf("%s: %v", recipient, a)
		}
	})
	return errors.Join(err, wrong)
}

// only returns a mode's first mail domain, whatever the message.
func only(mode string) func(int) string {
	return func(int) string { return manyName(mode, 1) }
}

// tick is the unit of the kernel's counts of processor time.
const tick = time.Second / 100

// used returns the processor time of all processes, and of those that they have waited for.
func (p *playing) used() (total time.Duration, err error) {
	for _, pid := range p.Processes() {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			return 0, err
		}
		// Behind the name: state, ten others, then utime, stime, cutime, cstime.
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		if len(fields) < 15 {
			return 0, fmt.Errorf("process %d: %q", pid, stat)
		}
		for _, field := range fields[11:15] {
			ticks, err := strconv.ParseInt(field, 10, 64)
			if err != nil {
				return 0, err
			}
			total += time.Duration(ticks) * tick
		}
	}
	return total, nil
}

const (
	// warmUp is how many deliveries come before those that are measured.
	warmUp = 500
	// measured is how many deliveries are measured, measuredEach with a process each: they are
	// slower.
	measured     = 10000
	measuredEach = 1000
	// keptCPU and anewCPU are bounds.
	keptCPU = 250 * time.Microsecond
	anewCPU = 1500 * time.Microsecond
)

// spawnedCPU measures processor time.
func (b *bench) spawnedCPU() error {
	for _, c := range []struct {
		name     string
		settings map[string]string
		bound    time.Duration
	}{
		{"connections kept", nil, keptCPU},
		{"none kept", map[string]string{"connectionidle": "0"}, anewCPU},
		{"none kept, no TLS session resumed", map[string]string{"connectionidle": "0", "tlsresumption": "0"}, 0},
	} {
		name := strings.NewReplacer(" ", "-", ",", "").Replace(c.name)
		ours, rate, err := b.perDelivery(name, !each, measured, c.settings)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		apart, apartRate, err := b.perDelivery(name, each, measuredEach, c.settings)
		if err != nil {
			return fmt.Errorf("%s, a process each: %w", c.name, err)
		}
		bound, met := "", ""
		if c.bound > 0 {
			bound, met = "≤ "+ms(c.bound), verdict(ours <= c.bound)
		}
		b.table.add("mxf-rspawn, CPU of a delivery, "+c.name, fmt.Sprintf("%s, %.0f a second", ms(ours), rate),
			fmt.Sprintf("a process each: %s, %.0f a second", ms(apart), apartRate), bound, met)
	}
	return nil
}

// perDelivery returns what one of n deliveries takes, and how many there were in a second.
func (b *bench) perDelivery(name string, how apart, n int, settings map[string]string) (took time.Duration, rate float64, err error) {
	p, err := b.play(name, how, spawnSlots, settings)
	if err != nil {
		return 0, 0, err
	}
	if err := p.deliver(p.jobs(warmUp, only("near"))); err != nil {
		return 0, 0, errors.Join(err, p.Close(spawnLimit))
	}
	before, err := p.used()
	if err != nil {
		return 0, 0, errors.Join(err, p.Close(spawnLimit))
	}
	begin := time.Now()
	err = p.deliver(p.jobs(n, only("near")))
	elapsed := time.Since(begin)
	after, failed := p.used()
	return (after - before) / time.Duration(n), float64(n) / elapsed.Seconds(), errors.Join(err, failed, p.Close(spawnLimit))
}

const (
	// spawnedPss, spawnedIdle and keptPss are bounds, bytes.
	spawnedPss  = 100 << 10
	spawnedIdle = 16 << 20
	keptPss     = 50 << 10
	// settling is how long mxf-rspawn is left alone before its memory is looked at.
	settling = 3 * time.Second
)

func kb(bytes int64) string { return fmt.Sprintf("%.1f kB", float64(bytes)/1024) }

// spawnedMemory measures memory: idle, with deliveries in flight, with connections that are kept.
func (b *bench) spawnedMemory() error {
	held, err := b.held(!each)
	if err != nil {
		return err
	}
	apart, err := b.held(each)
	if err != nil {
		return err
	}
	b.table.add("mxf-rspawn, Pss idle after start", mb(held.start), "a process each: "+mb(apart.start), "≤ "+mb(spawnedIdle), verdict(held.start <= spawnedIdle))
	b.table.add(fmt.Sprintf("mxf-rspawn, Pss with %d in flight, of each", herdSize), held.String(), "a process each: "+apart.String(),
		"≤ "+kb(spawnedPss), verdict(held.each() <= spawnedPss))
	kept, err := b.kept()
	if err != nil {
		return err
	}
	b.table.add(fmt.Sprintf("mxf-rspawn, Pss with %d connections kept, of each", herdSize), kept.String(),
		fmt.Sprintf("after they were all in flight: %s", kb((held.after-held.idle)/herdSize)), "≤ "+kb(keptPss), verdict(kept.each() <= keptPss))
	return nil
}

// A holding is memory: after the start, idle after one delivery, of what is held, and afterwards. What the
// first delivery brings in, such as pages of the program and trust anchors, is not of each.
type holding struct{ start, idle, held, after int64 }

// each is what each of those that are held has.
func (h holding) each() int64 { return (h.held - h.idle) / herdSize }

func (h holding) String() string {
	return fmt.Sprintf("%s; %s with what the first delivery brings in", kb(h.each()), kb((h.held-h.start)/herdSize))
}

// herd returns the mail domains of a mode, one after the other.
func herd(mode string, size int) func(int) string {
	return func(i int) string { return manyName(mode, 1+i%size) }
}

// manySlots are the settings for all mail domains at a time.
func manySlots() map[string]string { return map[string]string{"connectionidle": "300"} }

// before measures what there is before anything is held.
func (h *holding) before(p *playing) (err error) {
	time.Sleep(settling)
	if h.start, err = p.Pss(); err != nil {
		return err
	}
	if err := p.deliver(p.jobs(1, only("near"))); err != nil {
		return err
	}
	time.Sleep(settling)
	h.idle, err = p.Pss()
	return err
}

// held has the deliveries to all of the herd wait for the answer to their messages.
func (b *bench) held(how apart) (h holding, err error) {
	p, err := b.play("held", how, herdSize, manySlots())
	if err != nil {
		return h, err
	}
	defer func() { err = errors.Join(err, p.Close(spawnLimit)) }()
	if err := h.before(p); err != nil {
		return h, err
	}
	done := make(chan error, 1)
	go func() { done <- p.deliver(p.jobs(herdSize, herd("herd", herdHosts))) }()
	failed := b.awaitHeld(herdSize)
	if failed == nil {
		time.Sleep(settling)
		h.held, failed = p.Pss()
	}
	var answer string
	if err := errors.Join(failed, b.sink.ask("release", &answer), <-done); err != nil {
		return h, err
	}
	time.Sleep(settling)
	h.after, err = p.Pss()
	return h, err
}

// awaitHeld waits until so many deliveries wait for the sink.
func (b *bench) awaitHeld(n int) error {
	for end := time.Now().Add(heldLimit); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		var waiting int
		if err := b.sink.ask("held", &waiting); err != nil || waiting == n {
			return err
		}
	}
	return errors.New("the deliveries did not get as far as the server")
}

// kept has one connection kept to each of the flock.
func (b *bench) kept() (h holding, err error) {
	p, err := b.play("kept", !each, spawnSlots, manySlots())
	if err != nil {
		return h, err
	}
	defer func() { err = errors.Join(err, p.Close(spawnLimit)) }()
	if err := h.before(p); err != nil {
		return h, err
	}
	if err := p.deliver(p.jobs(herdSize, herd("flock", herdSize))); err != nil {
		return h, err
	}
	time.Sleep(settling)
	c, err := b.count("flock")
	if err == nil && c.Open != herdSize {
		err = fmt.Errorf("%d connections are kept", c.Open)
	}
	if err != nil {
		return h, err
	}
	h.held, err = p.Pss()
	return h, err
}

// count returns what the servers of a mode have counted.
func (b *bench) count(mode string) (counts, error) {
	var all map[string]counts
	err := b.sink.ask("counts", &all)
	return all[mode], err
}
