package check

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/remote"
	"nightmare.mail/mxf/remote/dns"
	"nightmare.mail/mxf/remote/transport"
)

// DefaultBogusName is a name of the public DNS whose signature is broken on purpose. Who
// validates has no answer for it.
const DefaultBogusName = "dnssec-failed.org"

const (
	// defaultPatience is how long one question to the DNS, or one program that says its
	// version, is waited for: a person waits too.
	defaultPatience = 10 * time.Second
	// maxOfAKind bounds the findings of one kind about one file: nobody reads more.
	maxOfAKind = 50
)

// SettingsOptions say what [Settings] looks at, and through what it sees the world. It runs no
// program, writes to no file and connects to nobody but name servers.
type SettingsOptions struct {
	Home     string // the qmail home
	Programs string // the folder of our own programs
	Version  string // of our own programs, as they print it behind their name for --version
	Verbose  bool   // each value too, and whether it is the default

	Servers    dns.Config    // the name servers of deliveries
	ServersErr error         // why they are not known, a *dns.ConfigError; nil: they are
	Resolver   dns.Resolver  // asked about our own names; nil: a dns.Client of Servers
	BogusName  string        // a name whose DNSSEC signature is broken; "": DefaultBogusName
	Patience   time.Duration // for one question; 0: 10 seconds

	// RunVersion runs one of our own programs with --version, and returns what it prints; nil:
	// none is run.
	RunVersion func(ctx context.Context, path string) (string, error)
	// Interfaces returns the addresses of this machine; nil: net.InterfaceAddrs.
	Interfaces func() ([]netip.Addr, error)
	// LocalAddr returns the address from which the system would connect to another one; nil:
	// that of a UDP socket, by which nothing is sent.
	LocalAddr func(to netip.Addr) (netip.Addr, error)
	Proc      string           // where processes can be seen, /proc; "": nowhere
	Now       func() time.Time // the clock; nil: time.Now

	// Waiting is called with what is waited for, before that; may be nil.
	Waiting func(what string)
}

// Settings looks at the settings of a home, and finds all that is wrong with them. The
// findings are in the order of the table of mxf-check(8), those about control files first. If
// ctx ends, they are those of what was looked at until then, and a warning that says so.
func Settings(ctx context.Context, o SettingsOptions) []Finding {
	l, err := newLook(o)
	if err != nil {
		return []Finding{{Level: Error, File: "control", What: err.Error(), Do: "name the qmail home by an absolute path"}}
	}
	if !l.canSearch() {
		return l.findings
	}
	l.files()
	l.otherFiles()
	for _, section := range []func(context.Context){
		l.askServers, l.routes, l.logins, l.names, l.tls, l.programs, l.resolvers, l.addresses,
		l.deadHosts, l.policies, l.signingKeys, l.qmail, l.deliveries,
	} {
		before := len(l.findings)
		section(ctx)
		if ctx.Err() != nil {
			l.findings = l.findings[:before] // what is cut off looks like a failure
			l.warn("", 0, "run it again, and let it come to its end", "interrupted: the rest was not looked at")
			break
		}
	}
	l.tidy()
	return l.findings
}

// tidy has no file or line called in order about which there is something worse.
func (l *look) tidy() {
	worse := map[string]bool{} // by file, and by file and line
	place := func(f *Finding) string { return fmt.Sprintf("%s:%d", f.File, f.Line) }
	for i := range l.findings {
		if f := &l.findings[i]; f.File != "" && f.Level >= Warning {
			worse[f.File], worse[place(f)] = true, true
		}
	}
	for i := range l.findings {
		if f := &l.findings[i]; f.Level == OK && (f.Line == 0 && worse[f.File] || worse[place(f)]) {
			f.Level = Note
		}
	}
}

// A look is one use of Settings.
type look struct {
	SettingsOptions
	survey   *control.Survey
	settings *control.Settings
	carrier  *transport.Carrier
	findings []Finding

	relays     []relay        // what routes name, the first of each name, port and file
	relayNames map[string]int // lines by name, of all routes but those of QMTP; see control.Relay.Name
	allRelayed bool           // no mail goes to an exchanger that DNS names

	servers      []server // as they answered
	interfaces   []netip.Addr
	interfaceErr error
}

func newLook(o SettingsOptions) (*look, error) {
	survey, err := control.ReadAll(o.Home)
	if err != nil {
		return nil, err
	}
	l := &look{SettingsOptions: o, survey: survey, settings: survey.Settings, relayNames: map[string]int{}}
	l.Home = l.settings.Home
	l.Patience = cmp.Or(l.Patience, defaultPatience)
	l.BogusName = cmp.Or(l.BogusName, DefaultBogusName)
	if l.Now == nil {
		l.Now = time.Now
	}
	if l.Resolver == nil {
		l.Resolver = dns.NewClient(l.Servers)
	}
	if l.LocalAddr == nil {
		l.LocalAddr = localAddr
	}
	if l.Interfaces == nil {
		l.Interfaces = interfaceAddrs
	}
	l.interfaces, l.interfaceErr = l.Interfaces()
	l.carrier = &transport.Carrier{Settings: l.settings, Programs: l.Programs}
	return l, nil
}

// localAddr connects a UDP socket, which sends nothing.
func localAddr(to netip.Addr) (netip.Addr, error) {
	const discard = 9
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, discard)))
	if err != nil {
		return netip.Addr{}, err
	}
	defer conn.Close()
	local, ok := conn.LocalAddr().(*net.UDPAddr)
	if !ok {
		return netip.Addr{}, errors.New("the socket has no address")
	}
	return local.AddrPort().Addr().Unmap().WithZone(""), nil
}

func interfaceAddrs() ([]netip.Addr, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var addrs []netip.Addr
	for _, i := range all {
		if prefix, err := netip.ParsePrefix(i.String()); err == nil {
			addrs = append(addrs, prefix.Addr().Unmap().WithZone(""))
		}
	}
	return addrs, nil
}

func (l *look) add(level Level, file string, line int, do, what string) {
	l.findings = append(l.findings, Finding{Level: level, File: file, Line: line, What: what, Do: do})
}

func (l *look) ok(file string, line int, format string, args ...any) {
	l.add(OK, file, line, "", fmt.Sprintf(format, args...))
}

func (l *look) note(file string, line int, format string, args ...any) {
	l.add(Note, file, line, "", fmt.Sprintf(format, args...))
}

func (l *look) warn(file string, line int, do, format string, args ...any) {
	l.add(Warning, file, line, do, fmt.Sprintf(format, args...))
}

func (l *look) fail(file string, line int, do, format string, args ...any) {
	l.add(Error, file, line, do, fmt.Sprintf(format, args...))
}

// failFor adds the error of a control file.
func (l *look) failFor(err error) {
	if e := new(control.Error); errors.As(err, &e) {
		l.fail(e.File, e.Line, mend(e), "%s", e.What)
	}
}

// has reports whether there is an error about a line already.
func (l *look) has(file string, line int) bool {
	return slices.ContainsFunc(l.findings, func(f Finding) bool { return f.Level == Error && f.File == file && f.Line == line })
}

// isBroken reports whether one of the control files has mistakes, so that what follows from it
// cannot be told.
func (l *look) isBroken(names ...string) bool {
	return slices.ContainsFunc(names, l.survey.HasMistakes)
}

func (l *look) waitFor(format string, args ...any) {
	if l.Waiting != nil {
		l.Waiting(fmt.Sprintf(format, args...))
	}
}

// ask asks all questions at once and returns the answers by question.
func (l *look) ask(ctx context.Context, questions []dns.Question) map[dns.Question]*dns.Answer {
	answers := make(map[dns.Question]*dns.Answer, len(questions))
	if len(questions) == 0 {
		return answers
	}
	l.waitFor("%d names in the DNS", len(questions))
	ctx, cancel := context.WithTimeout(ctx, l.Patience)
	defer cancel()
	arrivals := dns.Start(ctx, l.Resolver, questions)
	for range questions {
		a := <-arrivals
		answers[questions[a.Index]] = a.Answer
	}
	return answers
}

// canAsk reports whether some name server answers. If none does, that is one finding and not
// one for each name.
func (l *look) canAsk() bool { return slices.ContainsFunc(l.servers, server.answers) }

// deliveries asks a router: whatever it would refuse each delivery for is an error, also where
// no section knows of it.
func (l *look) deliveries(context.Context) {
	if len(l.survey.Mistakes) > 0 {
		return // that is what it would say
	}
	_, err := remote.New(remote.Config{Settings: l.settings, Resolver: l.Resolver, Programs: l.Programs, Once: true, Now: l.Now})
	if e := new(control.Error); errors.As(err, &e) && !l.has(e.File, e.Line) {
		l.failFor(e)
	}
}

// listed is a list for people, cut where it gets long.
func listed[T any](all []T) string {
	const most = 6
	var words []string
	for _, one := range all[:min(len(all), most)] {
		words = append(words, fmt.Sprint(one))
	}
	if len(all) > most {
		words = append(words, fmt.Sprintf("and %d more", len(all)-most))
	}
	return strings.Join(words, ", ")
}

// plural is a number with its word, which has two forms.
func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
