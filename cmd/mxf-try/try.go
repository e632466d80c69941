package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"nightmare.mail/mxf/cmd/internal/chain"
	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/integration/lab"
	"nightmare.mail/mxf/remote"
	"nightmare.mail/mxf/remote/dns"
)

// A trial is one run of mxf-try.
type trial struct {
	program string // mxf-remote
	name    string // of the message file; empty: the sample
	verbose bool
	width   int // of a line
	message []byte
	lab     *lab.Lab
	folder  string
}

// A round is one delivery of the message.
type round struct {
	title      string
	host       string
	strictness string
	refused    bool // it must not arrive
}

// The rounds. Each host of the zone leads to one server; the last to one whose
// certificate has another name.
var rounds = [...]round{
	{"SMTP inside STARTTLS, verified against control/trustanchors", "example.org", "2", false},
	{"QMTP inside TLS (qmtps), found by SRV, verified", "secure.example.org", "2", false},
	{"QMTP in the clear, found by the preference of its MX (MXPS)", "quick.example.org", "0", false},
	{"SMTP to a server whose certificate is another's: nothing may arrive", "wrong.example.org", "2", true},
}

// address is that of every server: where there is one loopback address, as on macOS and
// the BSDs, this is it. Their ports tell them apart.
const address = "127.0.0.1"

const zone = `
example.org                     MX   10 mx.example.org
_qmtps._tcp.secure.example.org  SRV  0 0 %d qmtps.example.org
quick.example.org               MX   12801 qmtp.example.org
wrong.example.org               MX   10 other.example.org
mx.example.org                  A    ` + address + `
other.example.org               A    ` + address + `
qmtps.example.org               A    ` + address + `
qmtp.example.org                A    ` + address + `
`

const (
	sender    = "sender@example.net"
	localPart = "recipient"
	// limit ends a delivery that hangs; all of them take milliseconds.
	limit = 5 * time.Minute
)

// parse reads the command line and the message.
func parse(args []string) (*trial, error) {
	t := &trial{message: sample}
	if len(args) > 0 && args[0] == "-v" {
		t.verbose = true
		args = args[1:]
	}
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	} else if len(args) > 0 && strings.HasPrefix(args[0], "-") {
		return nil, chain.Fail(chain.ExitUsage, "%s", usage)
	}
	if len(args) > 1 {
		return nil, chain.Fail(chain.ExitUsage, "%s", usage)
	}
	if len(args) == 1 {
		var err error
		t.name = args[0]
		if t.message, err = os.ReadFile(t.name); err != nil {
			return nil, fmt.Errorf("mxf-try: %w", err)
		}
	}
	return t, nil
}

// run carries out all rounds and tells of them on w.
func (t *trial) run(ctx context.Context, w io.Writer) (err error) {
	if t.folder, err = os.MkdirTemp("", "mxf-try"); err != nil {
		return err
	}
	defer os.RemoveAll(t.folder)
	if t.lab, err = lab.Open(filepath.Join(t.folder, "home")); err != nil {
		return err
	}
	defer t.lab.Close()
	if err := t.start(); err != nil {
		return err
	}
	if err := os.WriteFile(t.path("message"), t.message, 0o600); err != nil {
		return err
	}
	t.introduce(w)
	var good, wanted [2]int // those that have to arrive, and those that must not
	for i, r := range rounds {
		ok, err := t.round(ctx, w, i+1, r)
		switch {
		case ctx.Err() != nil:
			return errors.New("mxf-try: ended by a signal")
		case err != nil:
			return err
		}
		kind := 0
		if r.refused {
			kind = 1
		}
		wanted[kind]++
		if ok {
			good[kind]++
		}
	}
	fmt.Fprintln(w)
	t.page(w).Say("", fmt.Sprintf("%d of %d messages arrived unchanged, and %d of %d that must not arrive did not.",
		good[0], wanted[0], good[1], wanted[1]))
	if good != wanted {
		return chain.Fail(exitChanged, "mxf-try: not every delivery ended as it should")
	}
	return nil
}

func (t *trial) path(name string) string { return filepath.Join(t.folder, name) }

// start starts the servers and fills the zone and the home.
func (t *trial) start() error {
	if err := t.lab.Home.Trust(t.lab.Authority); err != nil {
		return err
	}
	if err := t.lab.Zone(fmt.Sprintf(zone, t.lab.Port("qmtps"))); err != nil {
		return err
	}
	for _, start := range []func() error{t.startSMTP, t.startQMTPS, t.startQMTP} {
		if err := start(); err != nil {
			return fmt.Errorf("mxf-try: starting the servers: %w", err)
		}
	}
	return nil
}

func (t *trial) startSMTP() error {
	const name = "mx.example.org"
	_, err := t.lab.SMTP(netip.MustParseAddr(address), lab.SMTP{Name: name, TLS: lab.TLS{Certificate: t.lab.Certificate(name)}})
	return err
}

func (t *trial) startQMTPS() error {
	const name = "qmtps.example.org"
	_, err := t.lab.QMTP(netip.MustParseAddr(address), lab.QMTP{Name: name, TLS: lab.TLS{Certificate: t.lab.Certificate(name)}})
	return err
}

func (t *trial) startQMTP() error {
	_, err := t.lab.QMTP(netip.MustParseAddr(address), lab.QMTP{Name: "qmtp.example.org"})
	return err
}

// A result is what one round brought about.
type result struct {
	*lab.Outcome
	plan    *remote.Plan
	session *lab.Session // the last; nil: nothing was connected to
	arrived *lab.Message // nil: nothing arrived
	trace   []string     // lines
}

// round delivers the message once, and reports whether that ended as it should.
func (t *trial) round(ctx context.Context, w io.Writer, n int, r round) (bool, error) {
	if err := t.lab.Home.Set("tlsstrictness", r.strictness); err != nil {
		return false, err
	}
	plan, err := t.plan(ctx, r.host)
	if err != nil {
		return false, err
	}
	t.lab.Inbox.Empty()
	o, err := t.deliver(ctx, n, r)
	if err != nil {
		return false, err
	}
	trace, _ := os.ReadFile(t.tracePath(n))
	res := result{Outcome: o, plan: plan, trace: strings.Split(strings.TrimSuffix(string(trace), "\n"), "\n")}
	if all := t.lab.Inbox.Sessions(); len(all) > 0 {
		res.session = all[len(all)-1]
	}
	messages := t.lab.Inbox.Messages()
	if len(messages) > 0 {
		res.arrived = messages[0]
	}
	ok := o.Exit == 0 && o.Letter == 'K' && len(messages) == 1 && lab.SameText(t.message, messages[0].Data)
	if r.refused {
		ok = o.Exit == 0 && o.Letter == 'Z' && strings.Contains(o.Text, "(#4.7.5)") && len(messages) == 0
	}
	t.show(w, n, r, res, ok)
	return ok, nil
}

func (t *trial) tracePath(n int) string { return t.path(fmt.Sprintf("trace%d", n)) }

func (t *trial) deliver(ctx context.Context, n int, r round) (*lab.Outcome, error) {
	f, err := os.Open(t.path("message"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	environ := append(t.lab.Environ(), "MXF_TRACE="+t.tracePath(n))
	if folder := os.Getenv("GOCOVERDIR"); folder != "" {
		environ = append(environ, "GOCOVERDIR="+folder)
	}
	return lab.Rspawn(ctx, lab.Delivery{
		Program: t.program, Environ: environ, Dir: t.folder, Message: f, Limit: limit,
		Host: r.host, Sender: sender, Recipients: []string{localPart + "@" + r.host},
	})
}

// plan is what mxf-remote will do for host: it makes the same plan from the same files and
// answers.
func (t *trial) plan(ctx context.Context, host string) (*remote.Plan, error) {
	settings, err := control.Read(t.lab.Home.Dir)
	if err != nil {
		return nil, err
	}
	servers, err := dns.ReadConfig(nil, t.lab.DNS.Addr(), os.DevNull)
	if err != nil {
		return nil, err
	}
	router, err := remote.New(remote.Config{Settings: settings, Resolver: dns.NewClient(servers), Programs: filepath.Dir(t.program)})
	if err != nil {
		return nil, err
	}
	return router.Plan(ctx, &remote.Job{Host: host}), nil
}
