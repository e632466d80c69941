package remote

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/control/regular"
	"nightmare.mail/mxf/remote/report"
	"nightmare.mail/mxf/smtpc"
	"nightmare.mail/mxf/tlsc"
)

// A delivery is one job on its way through its candidates.
type delivery struct {
	*Router
	job       *Job
	message   *source
	connector connector
	rand      *rand.Rand
	tls       tlsc.Settings // of our own TLS client, but for the server's name

	tried   map[trial]bool      // what was connected to, or could not be
	refused int                 // of those, what refused at once, or could not be reached from here
	skipped map[netip.Addr]bool // whether an address was a dead host when it was first asked for
	began   time.Time           // start of the first connection
	reasons []report.Report     // why each attempt was left, in their order
	pass    pass                // the present one
	waiting [passes][]*visit    // what is left for a later one
}

// A trial is an address and the service that was to be had there: an exchanger
// that both SRV and MX name is not tried twice. Under another name the same address
// may have another certificate, once it was connected to.
type trial struct {
	service string
	addr    netip.AddrPort
	name    string // in lower case; empty where there was no connection, or is no TLS
}

// A target is one address of a candidate.
type target struct {
	candidate *Candidate
	addr      netip.AddrPort
	own       bool // attempts are carried out in this process, see ownProcess
}

// A visit is one address and the manner in which it is tried, or is to be tried next.
type visit struct {
	target
	manner
	left  *report.NoTransaction // why the last attempt was left, nil before
	next  *rung                 // what waits for its pass
	steps []string              // what was changed so far and why, for the report
}

// An attempt is one connection and what is to be spoken over it.
type attempt struct {
	target
	manner
	conn  *net.TCPConn
	local netip.AddrPort
}

// ip is the server's address, as reports have it.
func (a *attempt) ip() string { return a.addr.Addr().String() }

// serverName is what TLS asks for.
func (a *attempt) serverName() string { return a.candidate.ServerName(a.addr.Addr()) }

// run tries candidate after candidate until one attempt reports.
func (d *delivery) run(ctx context.Context, candidates []Candidate) report.Stream {
	d.tried, d.skipped = make(map[trial]bool), make(map[netip.Addr]bool)
	conversed := false
	for i := range candidates {
		c := &candidates[i]
		if !c.Twin {
			conversed = false
		} else if conversed {
			d.tracef("skip %s %s: the conversation in the protocol of its slice had begun", c.Protocol.Service, c.Host)
			continue
		}
		stream, final := d.tryCandidate(ctx, c, &conversed)
		if final {
			return stream
		}
	}
	for d.pass = secondPass; d.pass < passes; d.pass++ {
		for _, v := range d.waiting[d.pass] {
			d.step(v)
			if stream, final := d.climb(ctx, v, nil); final {
				return stream
			}
		}
	}
	return report.Only(d.lastReason())
}

// tryCandidate tries the addresses of one candidate until none is left. It sets
// conversed when a protocol was spoken with one of them.
func (d *delivery) tryCandidate(ctx context.Context, c *Candidate, conversed *bool) (report.Stream, bool) {
	addrs := d.living(c)
	if len(addrs) == 0 {
		return report.Stream{}, false
	}
	own := d.ownProcess(c.Protocol)
	if !own {
		if _, err := d.programPath(c.Protocol.Program); err != nil {
			d.tracef("skip %s: %v", c.Protocol.Service, err)
			d.reasons = append(d.reasons, report.For(err))
			return report.Stream{}, false
		}
	}
	for len(addrs) > 0 {
		if d.began.IsZero() {
			d.began = time.Now()
		} else if d.late() {
			d.tracef("no further attempt: timeoutremote has gone by since the first")
			return report.Only(d.lastReason()), true
		}
		conn, failures := d.connect(ctx, c, addrs)
		for _, f := range failures {
			addrs = without(addrs, f.addr)
			d.noConnection(c, f, nil)
		}
		if conn == nil {
			break
		}
		addr := remoteAddr(conn)
		addrs = without(addrs, addr)
		v := d.firstVisit(target{c, addr, own})
		stream, final := d.climb(ctx, v, conn)
		if v.spoke() {
			*conversed = true
		}
		if final {
			return stream, true
		}
	}
	return report.Stream{}, false
}

// living returns the addresses of c that may be tried, in order: no dead hosts,
// and none that were tried.
func (d *delivery) living(c *Candidate) []netip.AddrPort {
	var addrs []netip.AddrPort
	if d.left().spent() {
		d.enough(c)
		return nil
	}
	for _, a := range order(c.Addrs, d.rand) {
		addr := netip.AddrPortFrom(a, c.Port)
		switch {
		case d.dead(a):
			table, see := "tcpto6", "queue/lock/tcpto6; to have it tried again, empty that file"
			if a.Is4() {
				table, see = "tcpto", "qmail-tcpto"
			}
			d.tracef("skip %s %s: it did not answer lately (%s)", c.Protocol.Service, addr, table)
			d.reasons = append(d.reasons, report.New(report.NoConnection, report.Facts{
				Protocol: strings.ToUpper(c.Protocol.Service),
				Detail:   fmt.Sprintf("%s did not answer lately and was not tried (see %s)", place(c, addr), see),
			}))
		case d.tried[trial{c.Protocol.Service, addr, ""}], d.tried[d.trial(c, addr)]:
			d.tracef("skip %s %s: it was tried already", c.Protocol.Service, addr)
		default:
			addrs = append(addrs, addr)
		}
	}
	return addrs
}

// left is how many addresses this delivery may still try.
func (d *delivery) left() budget {
	return budget{slow: maxAddresses - (len(d.tried) - d.refused), quick: maxRefused - d.refused}
}

func (d *delivery) enough(c *Candidate) {
	d.tracef("skip %s %s: %d addresses, or %d that refuse at once, are enough for one delivery",
		c.Protocol.Service, cmp.Or(c.Host, "address"), maxAddresses, maxRefused)
}

// dead tells whether addr was a dead host before this delivery: a port that does
// not answer, such as QMTP's behind a firewall, must not take the twin's away.
func (d *delivery) dead(addr netip.Addr) bool {
	dead, known := d.skipped[addr]
	if !known {
		dead = d.connector.dead.dead(addr)
		d.skipped[addr] = dead
	}
	return dead
}

// trial is that of a connection to addr.
func (d *delivery) trial(c *Candidate, addr netip.AddrPort) trial {
	t := trial{service: c.Protocol.Service, addr: addr}
	if d.policy(c.Protocol) != smtpc.None {
		t.name = strings.ToLower(c.Host)
	}
	return t
}

// connect connects to one of addrs, or, where that was tried, to the one of them
// once more.
func (d *delivery) connect(ctx context.Context, c *Candidate, addrs []netip.AddrPort) (*net.TCPConn, []failure) {
	left := d.left()
	again := d.tried[d.trial(c, addrs[0])]
	if again {
		left = budget{slow: 1, quick: 1}
	}
	if left.spent() {
		d.enough(c)
		return nil, nil
	}
	conn, failures := d.connector.connect(ctx, addrs, left, c.ForeignPort)
	if again {
		return conn, failures // it was counted
	}
	for _, f := range failures {
		t := trial{c.Protocol.Service, f.addr, ""}
		if !f.late && !d.tried[t] {
			d.refused++
		}
		d.tried[t] = true
	}
	if conn != nil {
		d.tried[d.trial(c, remoteAddr(conn))] = true
	}
	return conn, failures
}

// late tells whether the time in which attempts may be started is over.
func (d *delivery) late() bool {
	limit := d.Settings.TimeoutRemote
	return limit > 0 && time.Since(d.began) >= limit
}

func (d *delivery) noConnection(c *Candidate, f failure, steps []string) {
	d.reasons = append(d.reasons, report.New(report.NoConnection, report.Facts{
		Protocol: strings.ToUpper(c.Protocol.Service),
		Detail:   fmt.Sprintf("%s: %v", place(c, f.addr), f.err),
	}).With(steps...))
}

// firstVisit is the one with which an address is tried first.
func (d *delivery) firstVisit(t target) *visit {
	protocol := t.candidate.Protocol
	v := &visit{target: t, manner: manner{explicit: protocol.Explicit, tls: d.policy(protocol)}}
	if protocol.Program == qmtpProgram {
		return v
	}
	if words, line := d.Settings.SMTPAvoid.Lookup(t.candidate.Host, t.addr.Addr()); len(words) > 0 {
		// What the file has was looked at when it was read.
		v.avoid, _ = smtpc.ParseAvoid(strings.Join(words, ","))
		note := fmt.Sprintf("%s is not asked for %s (control/smtpavoid:%d)", t.addr.Addr(), v.avoid, line)
		d.tracef("%s", note)
		v.steps = append(v.steps, note+".")
	}
	return v
}

// climb tries one address, rung after rung, until reports end the delivery or nothing
// is left in this pass. conn is nil for an address that is to be connected to again.
// It is where all that can be tried after a failure is read in one piece; the rungs
// themselves are in ladder.go.
func (d *delivery) climb(ctx context.Context, v *visit, conn *net.TCPConn) (stream report.Stream, final bool) {
	for {
		if conn == nil {
			if d.late() {
				return report.Only(d.lastReason()), true
			}
			var failures []failure
			conn, failures = d.connect(ctx, v.candidate, []netip.AddrPort{v.addr})
			for _, f := range failures {
				d.noConnection(v.candidate, f, v.steps)
			}
		}
		connected := conn != nil
		if connected {
			stream, err := d.attempt(ctx, v, conn)
			if stream, final := d.settled(v, stream, err); final {
				return stream, true
			}
		}
		v.next = ladders[d.Settings.TLSStrictness].next(v.manner, v.left, d.pass, connected)
		if v.next == nil {
			return report.Stream{}, false
		}
		if v.next.in > d.pass {
			d.tracef("later: %s %s", v.addr, v.next.words)
			d.waiting[v.next.in] = append(d.waiting[v.next.in], v)
			return report.Stream{}, false
		}
		d.step(v)
		conn = nil
	}
}

// step has v go on to its next rung.
func (d *delivery) step(v *visit) {
	d.tracef("retry %s %s", v.addr, v.next.words)
	v.steps = append(v.steps, fmt.Sprintf("Tried again %s, after: %s", v.next.words, clip(oneLine(v.left.Reason.Text))))
	v.next.take(&v.manner, v.left)
}

// attempt carries out one attempt on conn, which it closes.
func (d *delivery) attempt(ctx context.Context, v *visit, conn *net.TCPConn) (report.Stream, error) {
	defer conn.Close()
	a := &attempt{target: v.target, manner: v.manner, conn: conn, local: localAddr(conn)}
	d.tracef("attempt %s with %s: %s", v.addr, v.candidate.Protocol.Service, v.candidate.Why)
	carry := d.inChain
	if v.own {
		carry = d.inProcess
	}
	return carry(ctx, a)
}

// settled reports whether an attempt ends the delivery, and with which reports. The
// reason of one that does not is remembered, and the message set back.
func (d *delivery) settled(v *visit, stream report.Stream, err error) (report.Stream, bool) {
	var none *report.NoTransaction
	var fuse *report.Fuse
	switch {
	case err == nil:
	case errors.As(err, &fuse):
		if !fuse.Begun {
			stream = report.Only(fuse.Reason)
		}
	case errors.As(err, &none):
		d.tracef("left: %s", oneLine(none.Reason.Text))
		v.left = none
		d.reasons = append(d.reasons, none.Reason.With(v.steps...))
		if err := d.message.rewind(); err != nil {
			d.tracef("no further attempt: %v", err)
			return report.Only(d.lastReason()), true
		}
		return report.Stream{}, false
	default:
		stream = report.Only(report.For(err))
	}
	if stream.Message.Letter == report.Temporary {
		stream.Message = stream.Message.With(v.steps...)
	}
	return stream, true
}

// spoke reports whether the protocol was spoken with the address of v, as far as it was
// tried.
func (v *visit) spoke() bool { return v.explicit || v.left == nil || !v.left.NoTLS() }

// lastReason is what is reported when nothing is left to try: the last reason, and
// how many addresses were tried. A permanent one stands only when all are: a
// server that could not be asked might have said yes. Else it is the last temporary one.
func (d *delivery) lastReason() report.Report {
	if len(d.reasons) == 0 {
		return report.New(report.NoConnection, report.Facts{Protocol: "SMTP"})
	}
	last := d.reasons[len(d.reasons)-1]
	for _, r := range d.reasons {
		if r.Letter == report.Temporary {
			last = r
		}
	}
	addrs := make(map[netip.Addr]bool)
	for t := range d.tried {
		addrs[t.addr.Addr()] = true
	}
	switch n := len(addrs); n {
	case 0:
		last.Text += "\nNo address was tried."
	case 1:
		last.Text += "\n1 address was tried."
	default:
		last.Text += fmt.Sprintf("\n%d addresses were tried; this is about the last.", n)
	}
	return last
}

// policy is the TLS of the first attempt in protocol.
func (d *delivery) policy(protocol *control.Protocol) smtpc.Policy {
	if !tlsOn(d.Settings, protocol) {
		return smtpc.None
	}
	return ladders[d.Settings.TLSStrictness].first
}

// checkTLS refuses settings that cannot be kept before anything is looked up: a TLS
// client that cannot be run, a strictness that no usable protocol has TLS for, and
// keys and trust anchors that cannot be read.
func (d *delivery) checkTLS() error {
	s := d.Settings
	for _, c := range []struct{ name, path string }{{"tlsclient", s.TLSClient}, {"ucspitlsclient", s.UCSPITLSClient}} {
		if c.path == "" {
			continue
		}
		if err := runnable(c.path); err != nil {
			return &control.Error{File: "control/" + c.name, Line: 1, What: fmt.Sprintf("cannot run %s: %v", programName(c.path), err)}
		}
	}
	secure := slices.ContainsFunc(s.Protocols, func(p control.Protocol) bool { return tlsOn(s, &p) })
	if s.TLSStrictness == strict && !secure {
		return &control.Error{File: "control/tlsstrictness", Line: 1,
			What: "2 wants TLS always, and there is none: trustanchors names nothing, or no protocol has TLS"}
	}
	return d.loadTLS()
}

// controlError gives a *control.Error its report.
func controlError(err error) error {
	var malformed *control.Error
	if !errors.As(err, &malformed) {
		return err
	}
	return &report.Error{Case: report.ControlFiles, Facts: report.Facts{Reason: malformed.Error()}, Err: err}
}

// ownProcess tells whether an attempt in protocol is carried out in this process:
// when its program is one of ours and so is its TLS client.
func (d *delivery) ownProcess(protocol *control.Protocol) bool {
	if protocol.Program != smtpProgram && protocol.Program != qmtpProgram {
		return false
	}
	return !d.namesClient(protocol) && !d.isScript(protocol.Program)
}

// isScript tells whether somebody has put a script in the place of one of our
// programs: then it is meant to be run.
func (d *delivery) isScript(program string) bool {
	path, err := d.programPath(program)
	if err != nil {
		return false
	}
	f, _, err := regular.Open(path, os.O_RDONLY, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	var head [2]byte
	n, _ := f.Read(head[:])
	return string(head[:n]) == "#!"
}

// namesClient tells whether a control file names the TLS client for protocol.
func (d *delivery) namesClient(protocol *control.Protocol) bool {
	return protocol.Implicit && d.Settings.TLSClient != "" || protocol.Explicit && d.Settings.UCSPITLSClient != ""
}

// tlsClientPath returns the TLS client for protocol.
func (d *delivery) tlsClientPath(protocol *control.Protocol) string {
	client, own := d.Settings.UCSPITLSClient, "mxf-ucspitlsc"
	if protocol.Implicit {
		client, own = d.Settings.TLSClient, "mxf-tlsc"
	}
	return cmp.Or(client, filepath.Join(d.Programs, own))
}

// programPath finds a protocol program (see control.Protocol): a bare name beside our
// own executable, then in <home>/bin.
func (d *delivery) programPath(program string) (string, error) {
	places := []string{filepath.Join(d.Programs, program), filepath.Join(d.Settings.Home, "bin", program)}
	if filepath.IsAbs(program) {
		places = []string{program}
	}
	var first error
	for _, place := range places {
		err := runnable(place)
		if err == nil {
			return place, nil
		}
		if first == nil {
			first = fmt.Errorf("%s%s: %w", programName(place), d.namedBy(program), err)
		}
	}
	return "", &report.Error{Case: report.ProgramFailed, Facts: report.Facts{Reason: first.Error()}, Err: first}
}

// runnable returns nil for a file that this process may execute.
func runnable(path string) error {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return plain(err)
	case info.IsDir():
		return errors.New("it is a directory")
	case !info.Mode().IsRegular():
		return regular.ErrNot
	case unix.Access(path, unix.X_OK) != nil:
		return errors.New("it may not be executed")
	}
	return nil
}

func place(c *Candidate, addr netip.AddrPort) string {
	if c.Host == "" {
		return fmt.Sprintf("%s port %d", addr.Addr(), addr.Port())
	}
	return fmt.Sprintf("%s (%s) port %d", c.Host, addr.Addr(), addr.Port())
}

func without(addrs []netip.AddrPort, addr netip.AddrPort) []netip.AddrPort {
	kept := make([]netip.AddrPort, 0, len(addrs))
	for _, a := range addrs {
		if a != addr {
			kept = append(kept, a)
		}
	}
	return kept
}

func remoteAddr(conn *net.TCPConn) netip.AddrPort { return unmapped(conn.RemoteAddr()) }
func localAddr(conn *net.TCPConn) netip.AddrPort  { return unmapped(conn.LocalAddr()) }

func unmapped(a net.Addr) netip.AddrPort {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	addr := tcp.AddrPort()
	return netip.AddrPortFrom(addr.Addr().Unmap().WithZone(""), addr.Port())
}

// plain strips an error of the operation and the path that its text would repeat.
func plain(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

func oneLine(text string) string { return strings.ReplaceAll(text, "\n", " / ") }

// maxStep bounds what a step repeats of the reason for it, in bytes: a report has
// room for all of them.
const maxStep = 500

func clip(text string) string {
	if len(text) <= maxStep {
		return text
	}
	return strings.ToValidUTF8(text[:maxStep], "") + "..."
}
