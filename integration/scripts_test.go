package integration

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/crypto/ocsp"

	"nightmare.mail/mxf/integration/lab"
	"nightmare.mail/mxf/tlsc/tlstest"
)

// Setup: every script has a lab of its own, whose home is $WORK/home; files that a
// script holds beneath home/ are in it. The real mxf-remote is run as qmail-rspawn
// runs it.
//
//	script ── rspawn ──► mxf-remote ──► name server, SMTP, QMTP, QMTPS in this process
//	   ▲                     │ 1, 2
//	   └──── verdict ◄───────┘
//
// Test: each script is one behaviour and runs twice (and a third time, see runSpawned). In "process" control/protocols
// names the bundled programs, so that mxf-remote does all by itself; in "chain" it
// names them by their paths, so that it starts them. Nothing else may differ: when
// all scripts are through, reports, wire and trace of the two ways are compared; of
// scripts that say "uneven", in which chance or the clock has a say, the letters and
// codes of the reports alone.
//
// After each delivery nothing of a login is in its reports and its trace, and in the chain
// of scripts of logins not in arguments and environments either.
//
// Variables: SMTP, SUBMISSIONS, QMTP, QMTPS are the lab's ports, SMTPC and QMTPC the programs
// for control/protocols, BIN the folder of the programs, WAY the way.
//
// Commands:
//
//	control NAME LINE...         write a control file
//	secret NAME LINE...          write a control file that others cannot read
//	trust lab|stranger           control/trustanchors
//	zone FILE                    the name server's zone; $NAMES are expanded
//	smtpserver NAME ADDR OPTION... (see smtpOptions), qmtpserver, qmtpsserver
//	dead SERVICE ADDR            packets to that address get no answer
//	stop NAME                    stop the servers of that name
//	[!] rspawn [-pipe] [-args] [-in FOLDER] [-list LIST] FILE HOST SENDER RECIPIENT...
//	                             deliver; its reports are the standard output, which must
//	                             be exactly one stream (with ! it need not); -list adds
//	                             the lines of a file, -args allows any arguments, -in takes the
//	                             programs of another folder; it is traced unless $MXF_TRACE is "-"
//	verdict K|Z|D REGEXP         what qmail-rspawn makes of it
//	took MIN MAX                 how long it took
//	exits N PROGRAM ARG...       run something that exits N
//	arrived N                    so many messages have arrived
//	unchanged N FILE             message N is FILE, except for line ends
//	wired N FILE                 message N came exactly as in FILE, with CR LF
//	envelope N SENDER RECIPIENT...
//	connections N                so many connections were made
//	peer N ADDR                  connection N came from that address
//	commands N                   the commands of connection N are the standard output
//	turns N COUNT                how often the client waited on connection N
//	queries                      the questions to the name server are the standard output
//	tlsis N|none ...             facts of connection N's TLS, see tlsis
//	tcpto ADDR COUNT AGE         a record in the table of dead hosts
//	clientcert                   control/clientcert and control/clientkey
//	certificate NAME FILE [KEY]  a certificate for NAME, and its key, beneath home/; without
//	                             KEY it is in the same file
//	showed N NAME|none           which certificate the client showed on connection N
//	grow FILE SIZE               a message of that size, with dots and 8-bit bytes
//
// Those for signatures are in signing_test.go, those for policies in policy_test.go,
// tlsrpt_test.go and mtasts_test.go. After each delivery, what its trace says of policies was kept.
func TestScripts(t *testing.T) {
	all := runAllWays(t, programs(t), testscript.Params{Dir: "testdata/script"})
	if !t.Failed() && all.not > all.spawned/mostOthers {
		t.Errorf("%d deliveries were those of mxf-rspawn, and %d were not: that is too few", all.spawned, all.not)
	}
}

// runAllWays runs the scripts that params names, with the programs in bin, in three ways, and
// compares.
func runAllWays(t *testing.T, bin string, params testscript.Params) *seen {
	process := runScripts(t, bin, params)
	return runSpawned(t, bin, params, process)
}

// runScripts runs the scripts that params names, with the programs in bin, both ways, and
// compares. It returns what came of the deliveries in one process.
func runScripts(t *testing.T, bin string, params testscript.Params) *record {
	process, chain := newRecord(), newRecord()
	t.Run("process", func(t *testing.T) { runWay(t, bin, params, "process", process) })
	t.Run("chain", func(t *testing.T) { runWay(t, bin, params, "chain", chain) })
	t.Run("alike", func(t *testing.T) { alike(t, process, chain) })
	return process
}

// runWay runs scripts in one of the ways.
func runWay(t *testing.T, bin string, params testscript.Params, way string, record *record) {
	params.Setup = func(env *testscript.Env) error { return setUp(t, env, bin, way, record) }
	params.Cmds, params.Condition, params.RequireUniqueNames = allCommands(), condition, true
	testscript.Run(t, params)
}

func condition(name string) (bool, error) {
	if name != "ipv6" {
		return false, fmt.Errorf("unknown condition %q", name)
	}
	l, err := net.Listen("tcp", "[::1]:0")
	if err == nil {
		l.Close()
	}
	return err == nil, nil
}

type rigKey struct{}

// A rig is what one script has.
type rig struct {
	*lab.Lab
	bin     string
	work    string
	tb      testing.TB                      // the script
	servers map[string]map[string]io.Closer // by name and protocol
	outcome *lab.Outcome
	record  *record
	uneven  bool

	collector *lab.Collector // the last one that was started; nil before
	checked   *checked       // nil: mxf-check is not asked before
	spawned   *spawned       // nil: mxf-remote is run, not mxf-rspawn
}

func setUp(t *testing.T, env *testscript.Env, bin, way string, record *record) error {
	home := filepath.Join(env.WorkDir, "home")
	l, err := lab.Open(home)
	if err != nil {
		return err
	}
	env.Defer(func() {
		l.Close()
		if err := l.Inbox.Wrong(); err != nil {
			env.T().Fatal(err)
		}
	})
	r := &rig{Lab: l, bin: bin, work: env.WorkDir, tb: env.T().(testing.TB), servers: make(map[string]map[string]io.Closer), record: record}
	env.Values[rigKey{}] = r
	smtpc, qmtpc := "mxf-remote-smtpc", "mxf-remote-qmtpc"
	if way == "chain" {
		smtpc, qmtpc = filepath.Join(bin, smtpc), filepath.Join(bin, qmtpc)
		if strings.HasPrefix(filepath.Base(env.WorkDir), "script-login_") {
			if smtpc, err = r.spy(smtpc); err != nil {
				return err
			}
		}
	}
	for name, value := range map[string]string{
		"SMTP":        strconv.Itoa(int(l.Port("smtp"))),
		"SUBMISSIONS": strconv.Itoa(int(l.Port("submissions"))),
		"QMTP":        strconv.Itoa(int(l.Port("qmtp"))),
		"QMTPS":       strconv.Itoa(int(l.Port("qmtps"))),
		"SMTPC":       smtpc,
		"QMTPC":       qmtpc,
		"BIN":         bin,
		"WAY":         way,
		"DNS":         l.DNS.Addr(),
	} {
		env.Setenv(name, value)
	}
	for _, assignment := range l.Environ() {
		name, value, _ := strings.Cut(assignment, "=")
		env.Setenv(name, value)
	}
	if testing.CoverMode() != "" {
		env.Setenv("GOCOVERDIR", coverage(t))
	}
	return l.Home.Set("protocols", fmt.Sprintf("smtp:%d:0:N:Y:%s", l.Port("smtp"), smtpc))
}

// inherited are the variables of a script that mxf-remote gets.
var inherited = []string{"PATH", "MXF_HOME", "DNSCACHEIP", "MXF_TRACE", "GOCOVERDIR", "TMPDIR", "BIN", "WORK", "EXTRA", "MXF_POLICY", "MXF_TLSA", "MXF_TLSNAMES"}

type command = func(ts *testscript.TestScript, neg bool, args []string)

var scriptCommands = map[string]command{
	"control":     plain(1, (*rig).control),
	"secret":      plain(1, (*rig).secret),
	"trust":       plain(1, (*rig).trust),
	"zone":        plain(1, (*rig).zone),
	"smtpserver":  plain(2, (*rig).smtpServer),
	"qmtpserver":  plain(2, (*rig).qmtpServer),
	"qmtpsserver": plain(2, (*rig).qmtpsServer),
	"dead":        plain(2, (*rig).dead),
	"stop":        plain(1, (*rig).stop),
	"rspawn":      rspawn,
	"verdict":     plain(2, (*rig).verdict),
	"took":        plain(2, (*rig).took),
	"exits":       plain(2, (*rig).exits),
	"arrived":     plain(1, (*rig).arrived),
	"unchanged":   onMessage(2, unchanged),
	"wired":       onMessage(2, wired),
	"envelope":    onMessage(2, envelope),
	"connections": plain(1, (*rig).connections),
	"peer":        onConnection(2, cameFrom),
	"commands":    onConnection(1, commands),
	"turns":       onConnection(2, turns),
	"queries":     plain(0, (*rig).queries),
	"tlsis":       onConnection(2, tlsIs),
	"grow":        plain(2, (*rig).grow),
	"tcpto":       plain(3, (*rig).tcpto),
	"clientcert":  plain(0, (*rig).clientCert),
	"certificate": plain(2, (*rig).newCertificate),
	"showed":      onConnection(2, showed),
	"uneven":      plain(0, func(r *rig, _ *testscript.TestScript, _ []string) error { r.uneven = true; return nil }),
}

// allCommands returns those above and those of signatures and policies.
func allCommands() map[string]command {
	all := maps.Clone(scriptCommands)
	maps.Copy(all, signingCommands)
	maps.Copy(all, policyCommands)
	maps.Copy(all, tlsrptCommands)
	maps.Copy(all, mtastsCommands)
	return all
}

// plain makes a method a command of at least n arguments that cannot be negated.
func plain(n int, f func(*rig, *testscript.TestScript, []string) error) command {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if neg || len(args) < n {
			ts.Fatalf("want at least %d arguments, and no !", n)
		}
		ts.Check(f(ts.Value(rigKey{}).(*rig), ts, args))
	}
}

func (r *rig) control(_ *testscript.TestScript, args []string) error {
	for i := range args {
		args[i] = unescape(args[i])
	}
	return r.Home.Set(args[0], args[1:]...)
}

// secret is control for a file that has the mode of secrets.
func (r *rig) secret(ts *testscript.TestScript, args []string) error {
	path := r.Home.Path("control/" + args[0])
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return errors.Join(r.control(ts, args), os.Chmod(path, 0o640))
}

// unescape lets scripts write bytes that their lines cannot hold.
func unescape(s string) string {
	return strings.NewReplacer(`\n`, "\n", `\r`, "\r", `\t`, "\t", `\e`, "\x1b", `\0`, "\x00").Replace(s)
}

func (r *rig) trust(_ *testscript.TestScript, args []string) error {
	if args[0] == "stranger" {
		return r.Home.Trust(r.Stranger)
	}
	return r.Home.Trust(r.Authority)
}

func (r *rig) zone(ts *testscript.TestScript, args []string) error {
	return r.Zone(os.Expand(ts.ReadFile(args[0]), ts.Getenv))
}

// begin reads a server's name and address, and closes the one before it.
func (r *rig) begin(protocol string, args []string) (name string, addr netip.Addr, err error) {
	addr, err = netip.ParseAddr(args[1])
	if old := r.servers[args[0]][protocol]; old != nil {
		err = errors.Join(err, old.Close())
	}
	return args[0], addr, err
}

// started keeps a server that was started under its name, unless it failed to start.
func (r *rig) started(protocol, name string, s io.Closer, err error) error {
	if r.servers[name] == nil {
		r.servers[name] = make(map[string]io.Closer)
	}
	if err == nil {
		r.servers[name][protocol] = s
	}
	return err
}

// smtpServer starts an SMTP server. Options: those of tlsOptions and faults;
// nopipelining, no8bitmime, noehlo, smtputf8, size=BYTES,
// from:SENDER=REPLY, rcpt:RECIPIENT=REPLY, message=REPLY, extension=LINE,
// inject=TEXT, parameters=REPLY, clear=REPLY, blank, implicit, submissions (on the
// port of these, TLS from the first byte), port=NUMBER, and those of loginOption. STARTTLS is offered with a good certificate unless cert=none.
func (r *rig) smtpServer(_ *testscript.TestScript, args []string) error {
	name, addr, err := r.begin("smtp", args)
	if err != nil {
		return err
	}
	config := lab.SMTP{
		Name: name, Faults: make(lab.Faults),
		Senders: make(map[string]string), Recipients: make(map[string]string),
	}
	cert := "good"
	for _, option := range args[2:] {
		key, value, _ := strings.Cut(option, "=")
		known, err := r.common(&config.TLS, config.Faults, &cert, key, value)
		if err == nil && !known {
			if known, err = loginOption(&config.Auth, key, value); !known {
				err = smtpOption(&config, key, value)
			}
		}
		if err != nil {
			return err
		}
	}
	config.Implicit = config.Implicit || config.Submissions
	if config.TLS.Certificate, err = r.certificate(cert, name, addr); err != nil {
		return err
	}
	s, err := r.SMTP(addr, config)
	return r.started("smtp", name, s, err)
}

func smtpOption(config *lab.SMTP, key, value string) (err error) {
	kind, address, _ := strings.Cut(key, ":")
	flags := map[string]*bool{"nopipelining": &config.NoPipelining, "no8bitmime": &config.No8BitMIME, "noehlo": &config.NoEHLO,
		"smtputf8": &config.SMTPUTF8, "submissions": &config.Submissions, "blank": &config.Blank, "implicit": &config.Implicit}
	texts := map[string]*string{"message": &config.Message, "inject": &config.Inject, "parameters": &config.Parameters, "clear": &config.Clear}
	tables := map[string]map[string]string{"from": config.Senders, "rcpt": config.Recipients}
	switch {
	case flags[kind] != nil:
		*flags[kind] = true
	case texts[kind] != nil:
		*texts[kind] = value
	case tables[kind] != nil:
		tables[kind][address] = value
	case kind == "port":
		var port uint64
		port, err = strconv.ParseUint(value, 10, 16)
		config.Port = uint16(port)
	case kind == "size":
		config.Size, err = strconv.ParseInt(value, 10, 64)
	case kind == "extension":
		config.Extensions = append(config.Extensions, value)
	default:
		err = fmt.Errorf("unknown option %q", key)
	}
	return err
}

// common reads the options that all servers have: cert=KIND (see certificate),
// tls=1.0 to 1.3 (no newer, and for 1.3 no older), cbc (no suite that Go calls
// secure), refusename, requestclient, demandclient, and fault:STEP=FAULT as lab.ParseFault has it.
func (r *rig) common(t *lab.TLS, faults lab.Faults, cert *string, key, value string) (known bool, err error) {
	kind, step, _ := strings.Cut(key, ":")
	switch kind {
	case "cert":
		*cert = value
	case "tls":
		minor, ok := strings.CutPrefix(value, "1.")
		if !ok || len(minor) != 1 {
			return true, fmt.Errorf("unknown version %q", value)
		}
		t.MaxVersion = tls.VersionTLS10 + uint16(minor[0]-'0')
		if t.MaxVersion == tls.VersionTLS13 {
			t.MinVersion = tls.VersionTLS13
		}
	case "cbc":
		t.MaxVersion = tls.VersionTLS12
		t.CipherSuites = []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256}
	case "refusename":
		t.RefuseName = true
	case "requestclient":
		t.RequestClient = true
	case "demandclient":
		t.DemandClient = true
	case "fault":
		s, f, err := lab.ParseFault(step + "=" + unescape(value))
		if err != nil {
			return true, err
		}
		faults[s] = f
	default:
		return false, nil
	}
	return true, nil
}

// certificate issues what a server shows: good, wrongca, wrongname, cnonly, expired,
// early, ip, muststaple, stapled (must-staple with a good staple), revoked, sha1 (good,
// but signs the handshake with SHA-1), spelled (good, but names its authority otherwise
// than that does), none, for:NAME (good, for another name), or file:NAME (with its key, in PEM).
func (r *rig) certificate(kind, name string, addr netip.Addr) (*tls.Certificate, error) {
	if file, ok := strings.CutPrefix(kind, "file:"); ok {
		file = filepath.Join(r.work, file)
		pair, err := tls.LoadX509KeyPair(file, file)
		return &pair, err
	}
	authority, names := r.Authority, []string{name}
	if other, ok := strings.CutPrefix(kind, "for:"); ok {
		kind, names = "good", []string{other}
	}
	var change tlstest.Change
	var staple func(*ocsp.Response) // changes a good one; nil: there is none
	switch kind {
	case "none":
		return nil, nil
	case "good", "sha1":
	case "spelled":
		authority = authority.Spelled()
	case "wrongca":
		authority = r.Stranger
	case "wrongname":
		names = []string{"other.example.net"}
	case "cnonly":
		change, names = func(c *x509.Certificate) { c.Subject.CommonName = name }, nil
	case "expired":
		change = tlstest.Expired
	case "early":
		change = tlstest.Early
	case "ip":
		names = []string{addr.String()}
	case "muststaple":
		change = tlstest.MustStaple
	case "stapled":
		change, staple = tlstest.MustStaple, func(*ocsp.Response) {}
	case "revoked":
		staple = tlstest.Revoked
	default:
		return nil, fmt.Errorf("unknown certificate %q", kind)
	}
	leaf := authority.Leaf(change, names...)
	pair := leaf.Pair(authority)
	if staple != nil {
		pair.OCSPStaple = tlstest.Respond(leaf, authority, authority, staple)
	}
	if kind == "sha1" {
		pair.SupportedSignatureAlgorithms = []tls.SignatureScheme{tls.ECDSAWithSHA1}
	}
	return &pair, nil
}

func (r *rig) qmtpServer(_ *testscript.TestScript, args []string) error {
	return r.qmtp("qmtp", "none", args)
}

func (r *rig) qmtpsServer(_ *testscript.TestScript, args []string) error {
	return r.qmtp("qmtps", "good", args)
}

// qmtp starts a QMTP server. Options: common, and rcpt:RECIPIENT=ANSWER.
func (r *rig) qmtp(protocol, cert string, args []string) error {
	name, addr, err := r.begin(protocol, args)
	if err != nil {
		return err
	}
	config := lab.QMTP{Name: name, Faults: make(lab.Faults), Answers: make(map[string]string)}
	for _, option := range args[2:] {
		key, value, _ := strings.Cut(option, "=")
		known, err := r.common(&config.TLS, config.Faults, &cert, key, value)
		recipient, isRecipient := strings.CutPrefix(key, "rcpt:")
		switch {
		case err != nil:
			return err
		case isRecipient:
			config.Answers[recipient] = unescape(value)
		case !known:
			return fmt.Errorf("unknown option %q", key)
		}
	}
	if config.TLS.Certificate, err = r.certificate(cert, name, addr); err != nil {
		return err
	}
	s, err := r.QMTP(addr, config)
	return r.started(protocol, name, s, err)
}

func (r *rig) dead(_ *testscript.TestScript, args []string) error {
	addr, err := netip.ParseAddr(args[1])
	if err != nil {
		return err
	}
	return r.Dead(args[0], addr)
}

func (r *rig) stop(_ *testscript.TestScript, args []string) error {
	if r.servers[args[0]] == nil {
		return fmt.Errorf("no server %q", args[0])
	}
	var err error
	for _, s := range r.servers[args[0]] {
		err = errors.Join(err, s.Close())
	}
	return err
}

// rspawn delivers a message.
func rspawn(ts *testscript.TestScript, neg bool, args []string) {
	r := ts.Value(rigKey{}).(*rig)
	pipe, any, folder := false, false, r.bin
	var list []string
	for len(args) > 0 && strings.HasPrefix(args[0], "-") {
		switch args[0] {
		case "-pipe":
			pipe = true
		case "-args":
			any = true
		case "-list":
			any, list, args = true, strings.Fields(ts.ReadFile(args[1])), args[1:]
		case "-in":
			folder, args = ts.MkAbs(args[1]), args[1:]
		default:
			ts.Fatalf("unknown option %s", args[0])
		}
		args = args[1:]
	}
	if len(args) < 4 && !any || len(args) == 0 {
		ts.Fatalf("usage: rspawn [-pipe] [-args] [-list list] file host sender recipient ...")
	}
	message, err := open(ts.MkAbs(args[0]), pipe)
	ts.Check(err)
	defer message.Close()
	d := lab.Delivery{
		Program: filepath.Join(folder, "mxf-remote"), Dir: r.work, Message: message, Arguments: []string{},
	}
	for _, arg := range append(args[1:], list...) {
		d.Arguments = append(d.Arguments, unescape(arg))
	}
	for _, name := range inherited {
		if value := ts.Getenv(name); value != "" && (name != "MXF_TRACE" || value != "-") {
			d.Environ = append(d.Environ, name+"="+value)
		}
	}
	if ts.Getenv("MXF_TRACE") == "" {
		d.Environ = append(d.Environ, "MXF_TRACE="+r.trace())
	}
	before := r.watch(ts)
	foreseen := r.foresee(ts, d)
	o, err := r.deliver(ts, d, pipe)
	ts.Check(err)
	r.compare(ts, foreseen, o)
	r.outcome = o
	ts.Check(r.kept(before, o))
	ts.Check(r.discreet(o, cmp.Or(ts.Getenv("MXF_TRACE"), r.trace())))
	r.note(ts, o)
	ts.Stdout().Write(o.Raw)
	ts.Logf("[%c %.1000q, exit %d, %v]", o.Letter, o.Text, o.Exit, o.Elapsed)
	switch _, err := lab.Reports(o.Raw, max(0, len(d.Arguments)-2)); {
	case neg:
	case o.Exit != 0:
		ts.Fatalf("mxf-remote exited %d", o.Exit)
	case err != nil:
		ts.Fatalf("not one complete report stream: %v", err)
	case o.Left:
		ts.Fatalf("processes of the delivery were left behind")
	}
}

// deliver runs a delivery in the way of the script.
func (r *rig) deliver(ts *testscript.TestScript, d lab.Delivery, pipe bool) (*lab.Outcome, error) {
	if r.spawned != nil && !pipe {
		if o := r.spawn(ts, d); o != nil {
			return o, nil
		}
	}
	return lab.Rspawn(context.Background(), d)
}

// open opens a message, or has it come through a pipe.
func open(path string, pipe bool) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil || !pipe {
		return f, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		f.Close()
		return nil, err
	}
	go func() {
		defer f.Close()
		defer w.Close()
		io.Copy(w, f)
	}()
	return r, nil
}

func (r *rig) verdict(_ *testscript.TestScript, args []string) error {
	if r.outcome == nil {
		return errors.New("nothing was delivered yet")
	}
	pattern, err := regexp.Compile(`(?s)` + args[1])
	if err != nil {
		return err
	}
	if string(r.outcome.Letter) != args[0] || !pattern.MatchString(r.outcome.Text) {
		return fmt.Errorf("verdict is %c %q", r.outcome.Letter, r.outcome.Text)
	}
	return nil
}

func (r *rig) took(_ *testscript.TestScript, args []string) error {
	least, err := time.ParseDuration(args[0])
	most, err2 := time.ParseDuration(args[1])
	if err = errors.Join(err, err2); err != nil {
		return err
	}
	if r.spawned != nil {
		least = 0 // an answer does not wait for what follows it
	}
	if e := r.outcome.Elapsed; e < least || e > most {
		return fmt.Errorf("it took %v", e)
	}
	return nil
}

func (r *rig) exits(ts *testscript.TestScript, args []string) error {
	want, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), lab.DefaultLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[1], args[2:]...)
	cmd.Dir = r.work
	cmd.Env = append(r.Environ(), "TMPDIR="+ts.Getenv("TMPDIR"), "GOCOVERDIR="+ts.Getenv("GOCOVERDIR"))
	got, err := finish(cmd)
	if err != nil {
		return err
	}
	_, _ = io.WriteString(ts.Stdout(), got.out)
	_, _ = io.WriteString(ts.Stderr(), got.err)
	if got.status != want {
		return fmt.Errorf("it exited %d", got.status)
	}
	return nil
}

func (r *rig) arrived(_ *testscript.TestScript, args []string) error {
	return count("messages have arrived", args[0], func() int { return len(r.Inbox.Messages()) })
}

func (r *rig) connections(_ *testscript.TestScript, args []string) error {
	return count("connections were made", args[0], func() int { return len(r.Inbox.Sessions()) })
}

// count waits for a number of things. Servers may need a while to notice what a client
// did that has ended.
func count(what, number string, got func() int) error {
	want, err := strconv.Atoi(number)
	if err != nil {
		return err
	}
	eventually(settle, func() bool { return got() >= want })
	if n := got(); n != want {
		return fmt.Errorf("%d %s", n, what)
	}
	return nil
}

// nth returns one of all, counted from 1.
func nth[T any](what, number string, all func() []T) (one T, err error) {
	n, err := strconv.Atoi(number)
	if err != nil {
		return one, err
	}
	if n < 1 || !eventually(settle, func() bool { return len(all()) >= n }) {
		return one, fmt.Errorf("no %s %d", what, n)
	}
	return all()[n-1], nil
}

// onMessage is plain for a method that looks at the message that its first argument counts.
func onMessage(n int, f func(*lab.Message, *testscript.TestScript, []string) error) command {
	return plain(n, func(r *rig, ts *testscript.TestScript, args []string) error {
		m, err := nth("message", args[0], r.Inbox.Messages)
		ts.Check(err)
		return f(m, ts, args)
	})
}

// onConnection is plain for a method that looks at the connection that its first argument
// counts.
func onConnection(n int, f func(*lab.Session, *testscript.TestScript, []string) error) command {
	return plain(n, func(r *rig, ts *testscript.TestScript, args []string) error {
		s, err := nth("connection", args[0], r.Inbox.Sessions)
		ts.Check(err)
		return f(s, ts, args)
	})
}

func unchanged(m *lab.Message, ts *testscript.TestScript, args []string) error {
	sent, err := os.ReadFile(ts.MkAbs(args[1]))
	ts.Check(err)
	if !lab.SameText(sent, m.Data) {
		return fmt.Errorf("it arrived as %.200q, %d bytes", m.Data, len(m.Data))
	}
	return nil
}

func wired(m *lab.Message, ts *testscript.TestScript, args []string) error {
	want := []byte(strings.ReplaceAll(ts.ReadFile(args[1]), "\n", "\r\n"))
	if !bytes.Equal(m.Wire, want) {
		return fmt.Errorf("it came as %q, want %q", m.Wire, want)
	}
	return nil
}

func envelope(m *lab.Message, _ *testscript.TestScript, args []string) error {
	got := append([]string{m.Sender}, m.Recipients...)
	if strings.Join(got, "\n") != strings.Join(args[1:], "\n") {
		return fmt.Errorf("the envelope is %q", got)
	}
	return nil
}

func cameFrom(s *lab.Session, _ *testscript.TestScript, args []string) error {
	if got := s.Remote.Addr().String(); got != args[1] {
		return fmt.Errorf("connection %s, to %s, came from %s", args[0], s.Local, got)
	}
	return nil
}

// commands waits for the end of the connection: QUIT is sent without waiting for its
// answer. Where none comes, what has come is printed.
func commands(s *lab.Session, ts *testscript.TestScript, args []string) error {
	eventually(settle, s.Over)
	_, err := fmt.Fprintf(ts.Stdout(), "%s: %s\n", s.Server, strings.Join(s.Commands(), "\n"))
	return err
}

func turns(s *lab.Session, _ *testscript.TestScript, args []string) error {
	if !eventually(lab.DefaultLimit, s.Over) {
		return errors.New("the connection does not end")
	}
	if got := s.Turns(); strconv.Itoa(got) != args[1] {
		return fmt.Errorf("%d turns: %q", got, s.Commands())
	}
	return nil
}

func (r *rig) queries(ts *testscript.TestScript, _ []string) error {
	all := r.DNS.Queries()
	if len(all) == 0 {
		fmt.Fprintln(ts.Stdout(), "none")
	}
	for _, q := range all {
		fmt.Fprintf(ts.Stdout(), "%s %s %s\n", q.Net, q.Type, q.Name)
	}
	return nil
}

// tlsIs checks the TLS of connection N: "none", or VERSION and the server name that
// was asked for ("-" for none), and "client" when a client certificate was shown.
func tlsIs(s *lab.Session, _ *testscript.TestScript, args []string) error {
	got := []string{"none"}
	if state := s.TLS(); state != nil {
		name := state.ServerName
		if name == "" {
			name = "-"
		}
		got = []string{tls.VersionName(state.Version), name}
		if len(state.PeerCertificates) > 0 {
			got = append(got, "client")
		}
	}
	if strings.Join(got, " ") != strings.Join(args[1:], " ") {
		return fmt.Errorf("connection %s has TLS %q", args[0], got)
	}
	return nil
}

// grow writes a message of at least the given number of bytes, deterministic, with
// lines that begin with dots, and 8-bit bytes.
func (r *rig) grow(ts *testscript.TestScript, args []string) error {
	size, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	var b bytes.Buffer
	b.WriteString("Subject: large\n\n")
	for i := 0; b.Len() < size; i++ {
		fmt.Fprintf(&b, "%s%d line of m\xf6rtel %s\n", strings.Repeat(".", i%3), i, strings.Repeat("x", i%97))
	}
	return os.WriteFile(ts.MkAbs(args[0]), b.Bytes(), 0o644)
}

// tcpto writes one record to the table of dead hosts: ADDR COUNT AGE.
func (r *rig) tcpto(_ *testscript.TestScript, args []string) error {
	addr, err := netip.ParseAddr(args[0])
	count, err2 := strconv.Atoi(args[1])
	age, err3 := time.ParseDuration(args[2])
	table, err4 := os.ReadFile(r.Home.Path("queue/lock/tcpto"))
	if err := errors.Join(err, err2, err3, err4); err != nil {
		return err
	}
	record := addr.As4()
	copy(table, record[:])
	table[4] = byte(count)
	binary.LittleEndian.PutUint32(table[8:], uint32(time.Now().Add(-age).Unix()))
	return os.WriteFile(r.Home.Path("queue/lock/tcpto"), table, 0o644)
}

// clientCert gives the home a client certificate.
func (r *rig) clientCert(*testscript.TestScript, []string) error {
	leaf := r.Authority.Leaf(nil, lab.HeloHost)
	return errors.Join(
		os.WriteFile(r.Home.Path("control/client.pem"), append(leaf.PEM(), r.Authority.PEM()...), 0o644),
		os.WriteFile(r.Home.Path("control/client.key"), leaf.KeyPEM(), 0o600),
		r.Home.Set("clientcert", "control/client.pem"),
		r.Home.Set("clientkey", "control/client.key"))
}

// newCertificate writes a certificate and its key, which others cannot read.
func (r *rig) newCertificate(_ *testscript.TestScript, args []string) error {
	leaf := r.Authority.Leaf(nil, args[0])
	cert, key := r.Home.Path(args[1]), r.Home.Path(args[len(args)-1])
	if err := os.MkdirAll(filepath.Dir(cert), 0o755); err != nil {
		return err
	}
	if cert == key {
		return os.WriteFile(cert, append(leaf.PEM(), leaf.KeyPEM()...), 0o640)
	}
	return errors.Join(os.WriteFile(cert, leaf.PEM(), 0o644), os.WriteFile(key, leaf.KeyPEM(), 0o640))
}

func showed(s *lab.Session, _ *testscript.TestScript, args []string) error {
	got := "none"
	if state := s.TLS(); state == nil {
		got = "no TLS"
	} else if certificates := state.PeerCertificates; len(certificates) > 0 {
		got = strings.Join(certificates[0].DNSNames, " ")
	}
	if got != args[1] {
		return fmt.Errorf("on connection %s it showed %s", args[0], got)
	}
	return nil
}
