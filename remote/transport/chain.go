package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"nightmare.mail/mxf/remote/dial"
	"nightmare.mail/mxf/remote/policy"
	"nightmare.mail/mxf/remote/report"
	"nightmare.mail/mxf/tlsc"
)

// maxHandshake is the longest that -K of s6-tlsc takes, an unsigned int of
// milliseconds.
const maxHandshake = (1<<32 - 1) * time.Millisecond

// inChain carries an attempt out by the programs that the control files name.
func (c *Carrier) inChain(ctx context.Context, conn *net.TCPConn, t *Target, m *Mail) (report.Stream, Securing, error) {
	args, err := c.command(t, m)
	if err != nil {
		return report.Stream{}, Securing{}, err
	}
	ctx, broken := context.WithCancelCause(ctx)
	defer broken(nil)
	stdin, done, err := m.descriptor(func(err error) {
		broken(unreadable(err))
	})
	if err != nil {
		return report.Stream{}, Securing{}, err
	}
	network, err := blockingCopy(conn)
	if err != nil {
		done()
		return report.Stream{}, Securing{}, err
	}
	// From here on the connection is the chain's.
	conn.Close()
	p, stop, err := c.spawn(args, m.traced(c.environ(t, dial.LocalAddr(conn))), stdin, network, len(m.Recipients))
	network.Close()
	if err != nil {
		done()
		first := args[0]
		if t.Manner.TLS == policy.Clear {
			first = t.Protocol.Program // as it is spelled
		}
		return report.Stream{}, Securing{}, &report.Error{Case: report.ProgramFailed,
			Facts: report.Facts{Reason: fmt.Sprintf("%q%s: %v", args[0], c.namedBy(first), notStarted(args[0], err))}, Err: err}
	}
	stream, err := p.result(ctx, c.patience(t))
	stop()
	done()
	if m.Probe == nil && stream.Message.WouldTake(t.ip()) {
		// An argument of ours has been read as the option -p: nothing was sent.
		return report.Stream{}, Securing{}, &report.Error{Case: report.ProgramFailed, Facts: report.Facts{Reason: fmt.Sprintf("%q took %q for an option", args[0], m.Host)}}
	}
	if exit := new(exitError); errors.As(err, &exit) && exit.cause != nil && exit.cause != errFuse {
		return report.Stream{}, Securing{}, exit.cause
	}
	became, rest := cutSecuring(string(p.said))
	p.said = said(rest)
	stream, err = c.meaning(t, p, stream, err)
	if !t.Protocol.Explicit || t.Manner.TLS == policy.Clear {
		return stream, Securing{}, err
	}
	return stream, became.completed(rest, err, t.ip()), err
}

// traced is an environment in which programs trace to the file of m.
func (m *Mail) traced(environ []string) []string {
	if m.TraceFile == "" {
		return environ
	}
	return append(environ, "MXF_TRACE="+m.TraceFile)
}

// descriptor returns descriptor 0 of a chain, as that of Message does. That of a probe is empty.
func (m *Mail) descriptor(broken func(error)) (f *os.File, done func(), err error) {
	if m.Probe == nil {
		return m.Message.descriptor(broken)
	}
	f, err = os.Open(os.DevNull)
	return f, func() { f.Close() }, err
}

// patience is how long a chain may run before it is killed, 0 for ever. A program
// inside implicit TLS lights its fuse when the handshake is done, which has a
// limit of its own.
func (c *Carrier) patience(t *Target) time.Duration {
	remote := c.Settings.TimeoutRemote
	if remote == 0 {
		return 0
	}
	patience := remote + fuseGrace
	if t.Protocol.Implicit {
		patience += c.handshakeLimit(t.Protocol)
	}
	return patience
}

// command returns the words of the chain for t.
func (c *Carrier) command(t *Target, m *Mail) ([]string, error) {
	protocol := t.Protocol
	program, err := c.programPath(protocol.Program)
	if err != nil {
		return nil, err
	}
	var args []string
	if t.Manner.TLS != policy.Clear {
		args = append(args, c.tlsClientPath(protocol), "-S", "-j", "-z", "-v", "0",
			"-K", strconv.FormatInt(min(c.handshakeLimit(protocol), maxHandshake).Milliseconds(), 10))
		if !t.Manner.NoName {
			args = append(args, "-k", t.serverName())
		}
		if t.Identity.Certificate != "" {
			args = append(args, "-y")
		}
		if t.Manner.TLS != policy.Verified {
			args = append(args, "--no-verify-cert")
		}
		args = append(args, "--")
	}
	args = append(args, program)
	args = append(args, m.Probe.probing(protocol)...)
	args = append(args, m.Host, m.Sender)
	return append(args, m.Recipients...), nil
}

// environ returns the environment of the chain, as a UCSPI-TCP client would make
// it, with what the TLS client and the protocol program look for.
func (c *Carrier) environ(t *Target, local netip.AddrPort) []string {
	set := map[string]string{
		"PROTO":         "TCP",
		"TCPREMOTEIP":   t.ip(),
		"TCPREMOTEPORT": strconv.Itoa(int(t.Addr.Port())),
		"TCPREMOTEHOST": t.Exchanger,
		"TCPLOCALIP":    local.Addr().String(),
		"TCPLOCALPORT":  strconv.Itoa(int(local.Port())),
		"TCPLOCALHOST":  t.Identity.HeloHost,
		"CADIR":         c.Settings.TrustAnchors.Dir,
		"CAFILE":        c.Settings.TrustAnchors.File,
		"CERTFILE":      t.Identity.Certificate,
		"KEYFILE":       t.Identity.Key,
		"MXF_HOME":      c.Settings.Home,
		"MXF_SERVICE":   t.Protocol.Service,
		"MXF_TLS":       "",
		"MXF_INTLS":     "",
		"MXF_TLSHELLO":  "",
		"MXF_TLSFAILED": "",
		"MXF_SMTPAVOID": t.avoid().String(),
		"MXF_RELAY":     t.Relay,
		"MXF_HELO":      t.Identity.HeloHost,
		"MXF_POLICY":    t.Word,
		"MXF_TLSA":      "",
		"MXF_TLSNAMES":  "",
		"MXF_TLSRPT":    "",
	}
	if c.Settings.TLSRPTSocket != "" {
		set["MXF_TLSRPT"] = "1"
	}
	if t.Manner.TLS == policy.Verified {
		set["MXF_TLSNAMES"] = t.Names
	}
	if judge, verifies := t.dane(); verifies {
		set["MXF_TLSA"] = judge.Records.Usable().String()
		if !judge.Anchors {
			set["CADIR"], set["CAFILE"] = "", "" // beside them the records would not be enough
		}
	}
	if t.Protocol.Explicit || t.Protocol.Implicit {
		set["MXF_TLS"] = t.Manner.TLS.String()
	}
	if t.Protocol.Implicit {
		set["MXF_INTLS"] = "1"
	}
	if t.Manner.SmallHello {
		set["MXF_TLSHELLO"] = "small"
	}
	if t.Manner.TLSFailed {
		set["MXF_TLSFAILED"] = "1"
	}
	environ := make([]string, 0, len(c.Environ)+len(set))
	for _, assignment := range c.Environ {
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

// foreignToChain reports whether a variable that the router happened to inherit would say
// something untrue in the chain.
func foreignToChain(name string) bool {
	switch name {
	case "TCPREMOTEINFO", "TLS_UID", "TLS_GID", "SSLCTLFD", "SSLREADFD", "SSLWRITEFD":
		return true
	}
	return strings.HasPrefix(name, "SSL_") && name != "SSL_CERT_FILE" && name != "SSL_CERT_DIR" ||
		strings.HasPrefix(name, "CERTFILE:") || strings.HasPrefix(name, "KEYFILE:")
}

// meaning turns the end of a chain into the values of Carry.
func (c *Carrier) meaning(t *Target, p *process, stream report.Stream, err error) (report.Stream, error) {
	ip := t.ip()
	var fatal fatal
	said := strings.Trim(string(p.said), "\n")
	if t.Manner.TLS != policy.Clear { // else there is no TLS client that could have said it
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
	fuse := report.Facts{IP: ip, Seconds: int64(c.Settings.TimeoutRemote / time.Second)}
	if exit.cause != nil {
		return report.Stream{}, &report.Fuse{Reason: report.New(report.FuseBlown, fuse)}
	}
	code := -1
	if exit.state != nil && exit.state.Exited() && p.printed.nothing() {
		code = exit.state.ExitCode()
	}
	facts := report.Facts{IP: ip}
	switch exits := &c.Exits; {
	case code == exits.Fuse:
		return report.Stream{}, &report.Fuse{Reason: because(report.ReasonFrom(said, report.FuseBlown, fuse))}
	case code == exits.Next, code == exits.Group, code == exits.NoEHLO:
		reason := report.ReasonFrom(said, report.ConnectionDied, facts)
		first, _, _ := strings.Cut(reason.Text, "\n")
		if fatal.what != "" && t.Protocol.Implicit && report.Sentence(first, facts) == report.ConnectionDied {
			return report.Stream{}, brokenTLS(fatal.what, nil, ip)
		}
		return report.Stream{}, noTransaction(because(reason), exits.failure(code))
	case code == exits.NoTLS, t.Protocol.Implicit && slices.Contains(exits.TLS, code):
		return report.Stream{}, noTLS(fatal.of(t), said, ip)
	}
	program := t.Protocol.Program
	reason := fmt.Sprintf("%q%s ended with %v", program, c.namedBy(program), exit)
	if !p.printed.nothing() {
		reason += fmt.Sprintf(" after reports that make no sense (%v)", exit.parse)
	}
	if all := strings.TrimSpace(string(p.said)); all != "" {
		reason += ", saying: " + report.Diagnostic(all)
	}
	return report.Stream{}, &report.Error{Case: report.ProgramFailed, Facts: report.Facts{Reason: reason}, Err: err}
}

// failure is what code says, as package policy asks for it; nil where no rung follows.
func (e *Exits) failure(code int) error {
	switch code {
	case e.Group:
		return policy.ErrStumbled
	case e.NoEHLO:
		return policy.ErrEHLOLost
	}
	return nil
}

// A fatal is the last line of a TLS client, for which it ended: mxf-tlsc's and s6-tlsc's
// begin with their name and ": fatal: ".
type fatal struct {
	program, what string
	faults        tlsc.Faults // of the certificate, that our own has found
}

// isOurs reports whether one of our own TLS clients has said it.
func (f fatal) isOurs() bool { return f.program == "mxf-tlsc" || f.program == "mxf-ucspitlsc" }

// of is f as it is about t: a TLS client does not know that the records that it was given are pins.
func (f fatal) of(t *Target) fatal {
	if judge, verifies := t.dane(); verifies && judge.Pins != "" && f.faults.Records == tlsc.FaultNoMatch {
		f.what = judge.NoMatch("")
	}
	return f
}

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
		f = fatal{program: program, what: strings.TrimSpace(what)}
		if f.isOurs() {
			f.faults = tlsc.FaultsOf(f.what)
			f.what, _ = tlsc.CutSecond(f.what)
		}
	}
	return f, strings.Trim(rest.String(), "\n")
}

// noTLS is the failure of TLS in a chain. The TLS client's own line says best why; then
// comes the sentence of a protocol program. Only a line of our own client can have a cause
// that something is done about.
func noTLS(f fatal, said, ip string) *report.NoTransaction {
	facts := report.Facts{IP: ip}
	failure := policy.ErrTLS
	switch {
	case f.what != "":
		facts.Reason = f.what
		var cause error
		if f.isOurs() {
			cause = tlsc.Cause(f.what)
		}
		return noTransaction(report.New(report.TLSUnavailable, facts), policy.ErrTLS, cause)
	case report.Sentence(said, facts) == report.TLSNotOffered:
		failure = policy.ErrNotOffered
	case said == "":
		facts.Reason = "the TLS client gave no reason"
	default:
		facts.Reason = said
	}
	return noTransaction(report.ReasonFrom(said, report.TLSUnavailable, facts), failure)
}
