package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"nightmare.mail/mxf/control/regular"
	"nightmare.mail/mxf/remote/report"
	"nightmare.mail/mxf/smtpc"
	"nightmare.mail/mxf/tlsc"
)

const (
	// fuseGrace is what a program gets after timeoutremote to print its report
	// and exit 124 before it is killed. The fuse is to be kept within a second.
	fuseGrace = 500 * time.Millisecond
	// closingGrace is how long a program whose reports are complete may take to
	// end. They are final, so nothing is gained by waiting longer.
	closingGrace = 2 * time.Second
	// killGrace is how long a program that was killed may take to end. It ends at once,
	// unless it waits in the kernel for a disk or a file server that does not answer.
	killGrace = 2 * time.Second
	// drainGrace bounds the reading of a pipe that somebody still holds open
	// after the program has ended.
	drainGrace = 100 * time.Millisecond

	// maxReport bounds what is kept of each report of a program, in bytes:
	// qmail-send keeps 10,000 (REPORTMAX). Cut, it is still a report, and a
	// message that was delivered stays so.
	maxReport = 64 << 10
	// maxReports bounds what is kept of all of them, in bytes; of those that come when it
	// is used up the beginning is kept, fewReport bytes: a server can have much to say
	// about each of thousands of recipients.
	maxReports = 16 << 20
	fewReport  = 512
	// maxQuoted bounds what is quoted of reports that are none, in bytes.
	maxQuoted = 200
	// maxPipe is the most that a pipe holds (/proc/sys/fs/pipe-max-size).
	maxPipe = 1 << 20
	// maxStderr bounds what is kept of a program's diagnostics; the beginning
	// and the end tell more than the middle, so both are kept.
	maxStderr = 8 << 10
)

// Exit codes that TLS clients have of their own, s6-tlsc and mxf-tlsc alike.
const (
	exitTLSSettings  = int(tlsc.KindSettings)
	exitTLSHandshake = int(tlsc.KindHandshake)
	exitTLSRunning   = int(tlsc.KindRunning) // of a handshake too, with s6-tlsc
)

// maxHandshake is the longest that -K of s6-tlsc takes, an unsigned int of
// milliseconds.
const maxHandshake = (1<<32 - 1) * time.Millisecond

// inChain carries an attempt out by the programs that the control files name.
func (d *delivery) inChain(ctx context.Context, a *attempt) (report.Stream, error) {
	args, err := d.command(a)
	if err != nil {
		return report.Stream{}, err
	}
	ctx, broken := context.WithCancelCause(ctx)
	defer broken(nil)
	stdin, done, err := d.message.descriptor(func(err error) {
		broken(&report.Error{Case: report.Unreadable,
			Facts: report.Facts{Reason: plain(err).Error()}, Err: err})
	})
	if err != nil {
		return report.Stream{}, err
	}
	network, err := blockingCopy(a.conn)
	if err != nil {
		done()
		return report.Stream{}, err
	}
	// From here on the connection is the chain's.
	a.conn.Close()
	p, stop, err := d.spawn(args, d.environ(a), stdin, network)
	network.Close()
	if err != nil {
		done()
		first := args[0]
		if a.tls == smtpc.None {
			first = a.candidate.Protocol.Program // as it is spelled
		}
		return report.Stream{}, &report.Error{Case: report.ProgramFailed,
			Facts: report.Facts{Reason: fmt.Sprintf("%q%s: %v", args[0], d.namedBy(first), notStarted(args[0], err))}, Err: err}
	}
	stream, err := p.result(ctx, d.patience(a))
	stop()
	done()
	var unreadable *report.Error
	if err != nil && errors.As(context.Cause(ctx), &unreadable) {
		return report.Stream{}, unreadable
	}
	return d.meaning(a, p, stream, err)
}

// namedBy says, in brackets, which line of which control file names program, as a path or
// as [control.Protocol] has it. It is "" for what is not named anywhere but a default.
func (d *delivery) namedBy(program string) string {
	s := d.Settings
	switch program {
	case s.TLSClient:
		return " (control/tlsclient:1)"
	case s.UCSPITLSClient:
		return " (control/ucspitlsclient:1)"
	}
	for _, p := range s.Protocols {
		if p.Program == program && p.Line > 0 {
			return fmt.Sprintf(" (control/protocols:%d)", p.Line)
		}
	}
	return ""
}

// programName quotes the path of a program up to a blank: there are people who put
// arguments there, and passwords among those.
func programName(path string) string {
	word, _, more := strings.Cut(path, " ")
	if more {
		return fmt.Sprintf("%q and more behind it, where no arguments can be given", word)
	}
	return fmt.Sprintf("%q", path)
}

// scriptHead is how much of a script is read to find its interpreter, in bytes; Linux looks
// at 256.
const scriptHead = 256

// notStarted says why the system did not start the program at path, which is there and
// may be executed. For a script its own words would be about some other file.
func notStarted(path string, err error) error {
	err = plain(err)
	head := make([]byte, scriptHead)
	if f, _, unreadable := regular.Open(path, os.O_RDONLY, 0); unreadable == nil {
		n, _ := io.ReadFull(f, head)
		head = head[:n]
		f.Close()
	} else {
		return err
	}
	line, isScript := bytes.CutPrefix(bytes.SplitN(head, []byte("\n"), 2)[0], []byte("#!"))
	words := bytes.Fields(bytes.ReplaceAll(line, []byte("\r"), []byte(`\r`)))
	switch {
	case isScript && len(words) > 0 && (err == syscall.ENOENT || err == syscall.ENOTDIR):
		return fmt.Errorf("its first line names the interpreter \"%s\", which is missing", words[0])
	case isScript && len(words) > 0:
		return fmt.Errorf("its interpreter \"%s\" cannot be run: %w", words[0], err)
	case err == syscall.ENOEXEC:
		return errors.New("it is neither a program for this machine nor a script that begins with #! and an interpreter")
	case err == syscall.ENOENT:
		return errors.New("the loader that it wants is missing")
	}
	return err
}

// patience is how long a chain may run before it is killed, 0 for ever. A program
// inside implicit TLS lights its fuse when the handshake is done, which has a
// limit of its own.
func (d *delivery) patience(a *attempt) time.Duration {
	remote := d.Settings.TimeoutRemote
	if remote == 0 {
		return 0
	}
	patience := remote + fuseGrace
	if a.candidate.Protocol.Implicit {
		patience += d.handshakeLimit(a.candidate.Protocol)
	}
	return patience
}

// command returns the words of the chain for a.
func (d *delivery) command(a *attempt) ([]string, error) {
	protocol := a.candidate.Protocol
	program, err := d.programPath(protocol.Program)
	if err != nil {
		return nil, err
	}
	var args []string
	if a.tls != smtpc.None {
		args = append(args, d.tlsClientPath(protocol), "-S", "-j", "-z", "-v", "0",
			"-K", strconv.FormatInt(min(d.handshakeLimit(protocol), maxHandshake).Milliseconds(), 10))
		if !a.noSNI {
			args = append(args, "-k", a.serverName())
		}
		if d.Settings.ClientCert != "" {
			args = append(args, "-y")
		}
		if d.Settings.TLSStrictness < strict {
			args = append(args, "--no-verify-cert")
		}
		args = append(args, "--")
	}
	args = append(args, program, d.job.Host, d.job.Sender)
	return append(args, d.job.Recipients...), nil
}

// environ returns the environment of the chain, as a UCSPI-TCP client would make
// it, with what the TLS client and the protocol program look for.
func (d *delivery) environ(a *attempt) []string {
	set := map[string]string{
		"PROTO":         "TCP",
		"TCPREMOTEIP":   a.ip(),
		"TCPREMOTEPORT": strconv.Itoa(int(a.addr.Port())),
		"TCPREMOTEHOST": a.candidate.Host,
		"TCPLOCALIP":    a.local.Addr().String(),
		"TCPLOCALPORT":  strconv.Itoa(int(a.local.Port())),
		"TCPLOCALHOST":  d.Settings.HeloHost,
		"CADIR":         d.Settings.TrustAnchors.Dir,
		"CAFILE":        d.Settings.TrustAnchors.File,
		"CERTFILE":      d.Settings.ClientCert,
		"KEYFILE":       d.Settings.ClientKey,
		"MXF_HOME":      d.Settings.Home,
		"MXF_SERVICE":   a.candidate.Protocol.Service,
		"MXF_TLS":       "",
		"MXF_INTLS":     "",
		"MXF_TLSHELLO":  "",
		"MXF_TLSFAILED": "",
		"MXF_SMTPAVOID": a.avoid.String(),
	}
	switch {
	case a.candidate.Protocol.Explicit:
		set["MXF_TLS"] = a.tls.String()
	case a.candidate.Protocol.Implicit:
		set["MXF_TLS"], set["MXF_INTLS"] = implicitPolicy(a.tls).String(), "1"
	}
	if a.small {
		set["MXF_TLSHELLO"] = "small"
	}
	if a.tlsFailed {
		set["MXF_TLSFAILED"] = "1"
	}
	environ := make([]string, 0, len(d.Environ)+len(set))
	for _, assignment := range d.Environ {
		name, _, _ := strings.Cut(assignment, "=")
		if _, ours := set[name]; !ours && !foreignToChain(name) {
			environ = append(environ, assignment)
		}
	}
	for name, value := range set {
		if value != "" {
			environ = append(environ, name+"="+value)
		}
	}
	return environ
}

// implicitPolicy is what a program inside implicit TLS is told: there is no "may".
func implicitPolicy(p smtpc.Policy) smtpc.Policy {
	if p == smtpc.May {
		return smtpc.Must
	}
	return p
}

// foreignToChain tells whether a variable that the router happened to inherit
// would say something untrue in the chain.
func foreignToChain(name string) bool {
	switch name {
	case "TCPREMOTEINFO", "TLS_UID", "TLS_GID", "SSLCTLFD", "SSLREADFD", "SSLWRITEFD":
		return true
	}
	return strings.HasPrefix(name, "SSL_") && name != "SSL_CERT_FILE" && name != "SSL_CERT_DIR" ||
		strings.HasPrefix(name, "CERTFILE:") || strings.HasPrefix(name, "KEYFILE:")
}

// blockingCopy returns a descriptor of conn in blocking mode, which is what
// programs expect of descriptors that they inherit.
func blockingCopy(conn *net.TCPConn) (*os.File, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd := -1
	var inner error
	err = raw.Control(func(orig uintptr) {
		syscall.ForkLock.RLock()
		defer syscall.ForkLock.RUnlock()
		if fd, inner = syscall.Dup(int(orig)); inner == nil {
			syscall.CloseOnExec(fd)
			inner = syscall.SetNonblock(fd, false)
		}
	})
	if err = errors.Join(err, inner); err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "network"), nil
}

// A process is a chain that was started.
type process struct {
	*os.Process
	stdout   *os.File
	stderr   *os.File
	complete chan struct{} // closed when a complete report stream was read

	printed printed
	said    said
	reading sync.WaitGroup
}

// spawn starts a chain that does not outlive this process, should a signal end that:
// the chain might deliver the message, and nobody would know. stop is called when the
// chain has ended.
func (d *delivery) spawn(args, environ []string, stdin, network *os.File) (p *process, stop func(), err error) {
	stop = func() {}
	var starting sync.Mutex // a signal waits until it is known what there is to end
	starting.Lock()
	defer starting.Unlock()
	if d.OnEnd != nil {
		stop = d.OnEnd(func() {
			starting.Lock()
			defer starting.Unlock()
			if p != nil {
				p.signal()
			}
		})
	}
	p, err = spawn(args, environ, stdin, network, len(d.job.Recipients))
	if err != nil {
		stop()
	}
	return p, stop, err
}

// spawn starts the chain in a process group of its own, so that a script's
// children can be ended with it, with descriptors 0, 1, 2, 6 and 7 and no others.
func spawn(args, environ []string, stdin, network *os.File, recipients int) (*process, error) {
	outR, outW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer outW.Close()
	errR, errW, err := os.Pipe()
	if err != nil {
		outR.Close()
		return nil, err
	}
	defer errW.Close()
	proc, err := os.StartProcess(args[0], args, &os.ProcAttr{
		Env:   environ,
		Files: []*os.File{stdin, outW, errW, nil, nil, nil, network, network},
		Sys:   ownGroup(),
	})
	if err != nil {
		outR.Close()
		errR.Close()
		return nil, err
	}
	p := &process{Process: proc, printed: printed{reports: report.Parser{Recipients: recipients}},
		stdout: outR, stderr: errR, complete: make(chan struct{})}
	p.reading.Add(2)
	go p.readReports()
	go p.readDiagnostics()
	return p, nil
}

func (p *process) readReports() {
	defer p.reading.Done()
	defer func() { _ = recover() }()
	buf := make([]byte, maxReport)
	for done := false; ; {
		n, err := p.stdout.Read(buf)
		if p.printed.add(buf[:n]); !done && p.printed.complete() {
			done = true
			close(p.complete)
		}
		if err != nil {
			return
		}
	}
}

func (p *process) readDiagnostics() {
	defer p.reading.Done()
	defer func() { _ = recover() }()
	buf := make([]byte, maxStderr)
	for {
		n, err := p.stderr.Read(buf)
		p.said.add(buf[:n])
		if err != nil {
			return
		}
	}
}

// printed is what a program has printed: of each report as much as is kept, of
// reports no more than there can be.
type printed struct {
	reports report.Parser
	bytes   []byte // of the report that has not ended
	kept    int    // bytes in all
	some    bool   // there was one that has
	last    bool   // nothing that comes now counts
}

func (p *printed) add(b []byte) {
	for len(b) > 0 && !p.last {
		text, rest, end := bytes.Cut(b, []byte{0})
		room := maxReport
		if p.kept >= maxReports {
			room = fewReport
		}
		text = text[:min(len(text), max(room-len(p.bytes), 0))]
		p.bytes, p.kept, b = append(p.bytes, text...), p.kept+len(text), rest
		if !end {
			return
		}
		p.last, p.some = p.reports.Add(p.bytes), true
		p.bytes = p.bytes[:0]
	}
}

// complete reports whether a complete stream is among it.
func (p *printed) complete() bool {
	_, err := p.reports.Stream()
	return err == nil
}

// nothing reports whether not a byte was printed.
func (p *printed) nothing() bool { return !p.some && len(p.bytes) == 0 }

// stream returns the stream, or why there is none.
func (p *printed) stream() (report.Stream, error) {
	stream, err := p.reports.Stream()
	if errors.Is(err, report.ErrIncomplete) && len(p.bytes) > 0 {
		err = fmt.Errorf("%w: no zero byte ends %q", err, p.bytes[:min(len(p.bytes), maxQuoted)])
	}
	return stream, err
}

// said is what is kept of a program's diagnostics.
type said []byte

func (s *said) add(b []byte) {
	*s = append(*s, b...)
	if over := len(*s) - maxStderr; over > 0 {
		*s = append((*s)[:maxStderr/2], (*s)[maxStderr/2+over:]...)
	}
}

// rest hands on what a pipe holds at this moment. A deadline that has passed keeps
// Read from looking, and on a busy machine it passes before there was a Read.
func rest(pipe *os.File, add func([]byte)) {
	raw, err := pipe.SyscallConn()
	if err != nil {
		return
	}
	buf := make([]byte, maxStderr)
	_ = raw.Control(func(fd uintptr) {
		for left := maxPipe; left > 0; {
			n, err := syscall.Read(int(fd), buf)
			if err == syscall.EINTR {
				continue
			}
			if n <= 0 {
				return
			}
			add(buf[:n])
			left -= n
		}
	})
}

// signal sends SIGKILL to the chain's process group, and to the program itself, which may
// have left that.
func (p *process) signal() {
	_ = syscall.Kill(-p.Pid, syscall.SIGKILL)
	_ = p.Process.Kill()
}

// An exitError is how a chain ended that did not print a complete stream.
type exitError struct {
	state  *os.ProcessState
	killed bool // by us, because of the fuse
	parse  error
}

func (e *exitError) Error() string {
	switch {
	case e.killed:
		return "killed after timeoutremote"
	case e.state == nil:
		return "no exit status: it does not end"
	}
	return e.state.String()
}

// result waits for the chain and returns its reports. A complete stream is final,
// whatever happens next. Otherwise the error is an *exitError.
func (p *process) result(ctx context.Context, patience time.Duration) (report.Stream, error) {
	ended := make(chan *os.ProcessState, 1)
	go func() {
		state, _ := p.Wait()
		ended <- state
	}()
	var blown <-chan time.Time
	if patience > 0 {
		timer := time.NewTimer(patience)
		defer timer.Stop()
		blown = timer.C
	}
	var state *os.ProcessState
	killed := false
	select {
	case state = <-ended:
	case <-p.complete:
		select {
		case state = <-ended:
		case <-time.After(closingGrace):
			state = p.kill(ended)
		}
	case <-blown:
		killed = true
		state = p.kill(ended)
	case <-ctx.Done():
		killed = true
		state = p.kill(ended)
	}
	// Whoever holds the pipes now is not the program that was to report.
	deadline := time.Now().Add(drainGrace)
	_ = p.stdout.SetReadDeadline(deadline)
	_ = p.stderr.SetReadDeadline(deadline)
	p.reading.Wait()
	rest(p.stdout, p.printed.add)
	rest(p.stderr, p.said.add)
	p.stdout.Close()
	p.stderr.Close()
	stream, err := p.printed.stream()
	if err == nil {
		return stream, nil
	}
	return report.Stream{}, &exitError{state: state, killed: killed, parse: err}
}

// kill ends the chain, with all that it started in its process group. The state is nil if
// it does not end even so.
func (p *process) kill(ended <-chan *os.ProcessState) *os.ProcessState {
	p.signal()
	select {
	case state := <-ended:
		return state
	case <-time.After(killGrace):
		return nil
	}
}

// meaning turns the end of a chain into what the router goes by.
func (d *delivery) meaning(a *attempt, p *process, stream report.Stream, err error) (report.Stream, error) {
	ip := a.ip()
	var fatal fatal
	said := strings.Trim(string(p.said), "\n")
	if a.tls != smtpc.None { // else there is no TLS client that could have said it
		fatal, said = diagnosis(said)
	}
	// A conversation that TLS has ended is one that was lost, to its program.
	because := func(r report.Report) report.Report {
		if fatal.what != "" && r.Lost(ip) {
			return r.With(report.TLSFailureLine(fatal.what))
		}
		return r
	}
	var exit *exitError
	if !errors.As(err, &exit) {
		if stream.Message.Letter == report.Temporary {
			stream.Message = because(stream.Message)
		}
		return stream, err
	}
	fuse := report.Facts{IP: ip, Seconds: int64(d.Settings.TimeoutRemote / time.Second)}
	if exit.killed {
		return report.Stream{}, &report.Fuse{Reason: report.New(report.FuseBlown, fuse)}
	}
	code := -1
	if exit.state != nil && exit.state.Exited() && p.printed.nothing() {
		code = exit.state.ExitCode()
	}
	facts := report.Facts{IP: ip}
	switch code {
	case report.ExitFuse:
		return report.Stream{}, &report.Fuse{Reason: because(report.ReasonFrom(said, report.FuseBlown, fuse))}
	case report.ExitNextExchanger, report.ExitGroup, report.ExitNoEHLO:
		none := &report.NoTransaction{Why: whyOf[code], Reason: report.ReasonFrom(said, report.ConnectionDied, facts)}
		if fatal.what != "" && a.candidate.Protocol.Implicit && none.Reason.Lost(ip) {
			return report.Stream{}, brokenTLS(none, fatal.what, ip)
		}
		none.Reason = because(none.Reason)
		return report.Stream{}, none
	case report.ExitNoTLS:
		return report.Stream{}, noTLS(fatal, said, ip)
	case exitTLSHandshake, exitTLSSettings, exitTLSRunning:
		if a.candidate.Protocol.Implicit {
			return report.Stream{}, noTLS(fatal, said, ip)
		}
	}
	program := a.candidate.Protocol.Program
	reason := fmt.Sprintf("%q%s ended with %v", program, d.namedBy(program), exit)
	if !p.printed.nothing() {
		reason += fmt.Sprintf(" after reports that make no sense (%v)", exit.parse)
	}
	if all := strings.TrimSpace(string(p.said)); all != "" {
		reason += ", saying: " + report.Diagnostic(all)
	}
	return report.Stream{}, &report.Error{Case: report.ProgramFailed, Facts: report.Facts{Reason: reason}, Err: err}
}

// whyOf is what the exit codes of a protocol program say. That of TLS is noTLS's to read.
var whyOf = map[int]report.Why{
	report.ExitNextExchanger: report.NotNow,
	report.ExitGroup:         report.GroupStumbled,
	report.ExitNoEHLO:        report.EHLOLost,
}

// A fatal is the last line of a TLS client, for which it ended: mxf-tlsc's and s6-tlsc's
// begin with their name and ": fatal: ".
type fatal struct{ program, what string }

// diagnosis parts what a chain said on its standard error: the TLS client's fatal line,
// if there is one, and the rest. Lines that repeat a server begin with its reply code,
// and no program's name begins with a digit.
func diagnosis(said string) (fatal, string) {
	const mark = ": fatal: "
	var f fatal
	var rest strings.Builder
	for line := range strings.Lines(said) {
		program, what, found := strings.Cut(line, mark)
		if !found || program == "" || strings.ContainsAny(program, " \t:") || '0' <= program[0] && program[0] <= '9' {
			rest.WriteString(line)
			continue
		}
		f = fatal{program, strings.TrimSpace(what)}
	}
	return f, strings.Trim(rest.String(), "\n")
}

// noTLS is the want of TLS in a chain. The TLS client's own line says best why; then
// comes the sentence of a protocol program. Only a line of our own client can have a
// cause that something is done about.
func noTLS(f fatal, said, ip string) *report.NoTransaction {
	facts := report.Facts{IP: ip}
	e := &report.NoTransaction{Why: report.WantOfTLS}
	switch {
	case f.what != "":
		facts.Reason = f.what
		e.Reason = report.New(report.TLSUnavailable, facts)
		if f.program == "mxf-tlsc" || f.program == "mxf-ucspitlsc" {
			e.Err = tlsc.Cause(f.what)
		}
		return e
	case said == report.New(report.TLSNotOffered, facts).Text:
		e.Why = report.NoTLSOffered
	case said == "":
		facts.Reason = "the TLS client gave no reason"
	default:
		facts.Reason = said
	}
	e.Reason = report.ReasonFrom(said, report.TLSUnavailable, facts)
	return e
}
