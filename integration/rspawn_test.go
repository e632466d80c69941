package integration

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"nightmare.mail/mxf/integration/lab"
	"nightmare.mail/mxf/integration/must"
)

// Setup of the tests of mxf-rspawn: a lab, and a player of qmail-send's part. They know
// nothing of the program but what its page says.
//
// Domains are served as a test wants: serve(name, config) starts a server of its own address for
// name and makes it the exchanger of that domain.

// A station is a lab with an mxf-rspawn.
type station struct {
	*lab.Lab
	t    *testing.T
	ctx  context.Context
	zone strings.Builder
	next byte // the last byte of the next server's address
	mail int  // messages so far
}

// stationLimit ends a test of mxf-rspawn that does not end by itself.
const stationLimit = 2 * time.Minute

func newStation(t *testing.T) *station {
	t.Helper()
	l := must.Get(lab.Open(filepath.Join(t.TempDir(), "home")))(t)
	ctx, cancel := context.WithTimeout(t.Context(), stationLimit)
	t.Cleanup(func() {
		cancel()
		must.Check(t, l.Close(), l.Inbox.Wrong())
	})
	must.OK(t, l.Home.Set("protocols", fmt.Sprintf("smtp:%d:0:N:Y:mxf-remote-smtpc", l.Port("smtp"))))
	return &station{Lab: l, t: t, ctx: ctx, next: 2}
}

// addr returns an address that no server of the station has yet.
func (s *station) addr() netip.Addr {
	s.next++
	return netip.AddrFrom4([4]byte{127, 0, 2, s.next})
}

// record adds to the zone.
func (s *station) record(format string, a ...any) {
	s.t.Helper()
	fmt.Fprintf(&s.zone, format+"\n", a...)
	must.OK(s.t, s.Zone(s.zone.String()))
}

// serve starts a server that is the exchanger of a domain.
func (s *station) serve(domain string, config lab.SMTP) *lab.SMTPServer {
	s.t.Helper()
	addr := s.addr()
	if config.Name == "" {
		config.Name = "mx." + domain
	}
	server := must.Get(s.SMTP(addr, config))(s.t)
	s.record("%s MX 10 %s\n%s A %s", domain, config.Name, config.Name, addr)
	return server
}

// secure starts a server with STARTTLS that the home trusts.
func (s *station) secure(domain string, config lab.SMTP) *lab.SMTPServer {
	s.t.Helper()
	must.OK(s.t, s.Home.Trust(s.Authority))
	config.TLS.Certificate = s.Certificate("mx." + domain)
	return s.serve(domain, config)
}

// part is how mxf-rspawn is started here, with more variables. Of two that have one name the first
// counts.
func (s *station) part(environ ...string) lab.Part {
	return lab.Part{
		Program: filepath.Join(programs(s.t), "mxf-rspawn"), Dir: "/",
		Environ: append(append(environ, s.Environ()...), "GOCOVERDIR="+coverageIfAny(s.t)),
	}
}

// play starts mxf-rspawn. When the test ends, so does it, and everything must have been right.
func (s *station) play(part lab.Part) *lab.Player {
	s.t.Helper()
	p := s.start(part)
	s.t.Cleanup(func() { must.Check(s.t, p.Close(stationLimit)) })
	return p
}

// start is play for what ends before the test does.
func (s *station) start(part lab.Part) *lab.Player {
	s.t.Helper()
	part.Overhear = !strings.Contains(part.Shell, "2>&-")
	return must.Get(lab.Play(part))(s.t)
}

// mailbox returns a recipient at example.org that there was not yet.
func (s *station) mailbox() string { return s.mailboxAt("example.org") }

func (s *station) mailboxAt(domain string) string {
	s.mail++
	return fmt.Sprintf("b%d@%s", s.mail, domain)
}

func itoa(n int) string { return strconv.Itoa(n) }

// message puts a new message into the queue and returns its messid.
func (s *station) message() string {
	s.t.Helper()
	s.mail++
	return must.Get(s.Home.Queue(1000+s.mail, fmt.Appendf(nil, "Message-ID: <%d@example.net>\nSubject: test\n\nHello.\n", s.mail)))(s.t)
}

// begin begins a delivery of a new message.
func (s *station) begin(p *lab.Player, recipient string) *lab.Call {
	s.t.Helper()
	return must.Get(p.Begin(s.ctx, s.message(), "a@example.net", recipient))(s.t)
}

// deliver delivers a new message.
func (s *station) deliver(p *lab.Player, recipient string) lab.Answer {
	s.t.Helper()
	return s.answer(s.begin(p, recipient))
}

// answer waits for an answer.
func (s *station) answer(c *lab.Call) lab.Answer {
	s.t.Helper()
	return must.Get(c.Answer(s.ctx))(s.t)
}

// said waits for the answer to a command that no call waits for, and checks it. A newline at its
// end is left out.
func (s *station) said(p *lab.Player, number int, want string) {
	s.t.Helper()
	a, err := p.Stray(s.ctx)
	if got := string(a.Letter) + strings.TrimSuffix(a.Text, "\n"); err != nil || a.Number != number || got != want {
		s.t.Errorf("number %d is answered %q, %v, want number %d and %q", a.Number, got, err, number, want)
	}
}

// accepted checks that an answer is K.
func (s *station) accepted(a lab.Answer) {
	s.t.Helper()
	if a.Letter != 'K' {
		s.t.Errorf("it was answered %v, want K", a)
	}
}

// sessions returns the connections to a server, in order.
func (s *station) sessions(server *lab.SMTPServer) (list []*lab.Session) {
	for _, session := range s.Inbox.Sessions() {
		if session.Local == server.AddrPort() {
			list = append(list, session)
		}
	}
	return list
}

// connected waits for n connections to a server on which that was said last.
func (s *station) connected(server *lab.SMTPServer, n int, last string) {
	s.t.Helper()
	must.Until(s.t, fmt.Sprintf("%d connections on which %q is said last", n, last), func() bool {
		found := 0
		for _, session := range s.sessions(server) {
			if all := session.Commands(); len(all) == 0 && last == "" || len(all) > 0 && strings.HasPrefix(all[len(all)-1], last) {
				found++
			}
		}
		return found >= n
	})
}

// arrivals returns how often each recipient's mail has arrived.
func (s *station) arrivals() map[string]int {
	n := make(map[string]int)
	for _, m := range s.Inbox.Messages() {
		for _, recipient := range m.Recipients {
			n[recipient]++
		}
	}
	return n
}

// arrived checks how often a recipient's mail has arrived.
func (s *station) arrived(recipient string, n int) {
	s.t.Helper()
	if got := s.arrivals()[recipient]; got != n {
		s.t.Errorf("mail for %s has arrived %d times, want %d", recipient, got, n)
	}
}

// ends waits for the end of a process that was told to end, and checks its status and
// everything else.
func (s *station) ends(p *lab.Player, status int) {
	s.t.Helper()
	if got, err := p.Wait(s.ctx); err != nil || got != status {
		s.t.Errorf("it ended with %d, %v, want %d", got, err, status)
		p.Kill()
	}
	must.Check(s.t, p.Verdict())
}

// runs reports whether a program of some name is one of the processes.
func runs(pids []int, name string) bool {
	return slices.ContainsFunc(pids, func(pid int) bool {
		line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		first, _, _ := strings.Cut(string(line), "\x00")
		return filepath.Base(first) == name
	})
}
