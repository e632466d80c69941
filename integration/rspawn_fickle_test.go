package integration

import (
	"net"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"

	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/smtpc/smtptest"
)

// A fickle is a server that a test decides for, command by command.
type fickle struct {
	mu       sync.Mutex
	made     int // connections so far
	open     int
	most     int // open at a time
	envelope [][]string
	said     []string // MAIL and RCPT of all connections, in order: "1 MAIL", "1 RCPT b@example.org"
}

// A visit is a point at which the server says something.
type visit struct {
	connection int    // from 1
	mail       int    // transactions before on it
	phase      string // greeting, EHLO, MAIL, RCPT, DATA, message, RSET, QUIT
	sender     string
	recipient  string   // at RCPT
	recipients []string // at message: those that were accepted
	n          int      // how often the phase has come before in the transaction
	open       int      // connections that are open now
}

// fickle starts a server that is the exchanger of a domain. Decide returns what it says in place of
// the right thing, or "drop", "reset", "stall"; nothing for the right thing. A reply of 421 ends the connection.
func (s *station) fickle(domain string, piped bool, decide func(visit) string, extensions ...string) *fickle {
	s.t.Helper()
	f := new(fickle)
	addr := s.addr()
	s.record("%s MX 10 mx.%s\nmx.%s A %s", domain, domain, domain, addr)
	listener := must.Get(net.Listen("tcp", netip.AddrPortFrom(addr, s.Port("smtp")).String()))(s.t)
	if piped {
		extensions = append(extensions, "PIPELINING")
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			all.Go(func() { f.serve(s.t, conn, extensions, decide) })
		}
	})
	s.t.Cleanup(func() { listener.Close(); all.Wait() })
	return f
}

func (f *fickle) serve(t *testing.T, conn net.Conn, extensions []string, decide func(visit) string) {
	defer conn.Close()
	f.mu.Lock()
	f.made++
	f.open++
	f.most = max(f.most, f.open)
	number := f.made
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.open--
	}()
	server := &smtptest.Server{Extensions: extensions, Answer: func(e *smtptest.Exchange) smtptest.Action { return f.answer(e, number, decide) }}
	server.Serve(smtptest.NewConn(conn))
	for _, c := range server.Conversations() {
		if err := c.Violation(); err != nil {
			t.Errorf("%v: %q", err, c.Commands)
		}
	}
}

func (f *fickle) answer(e *smtptest.Exchange, number int, decide func(visit) string) smtptest.Action {
	v := visit{connection: number, mail: e.Mail, phase: string(e.Phase), n: e.N}
	if e.Transaction != nil {
		v.sender, v.recipients = e.Transaction.Sender, e.Transaction.Recipients
	}
	f.mu.Lock()
	v.open = f.open
	switch e.Phase {
	case smtptest.RCPT:
		v.recipient, _, _ = smtptest.Path(e.Line)
		f.said = append(f.said, itoa(number)+" RCPT "+v.recipient)
	case smtptest.MAIL:
		f.said = append(f.said, itoa(number)+" MAIL")
	}
	f.mu.Unlock()
	said := decide(v)
	switch said {
	case "drop":
		return smtptest.Action{Close: true}
	case "reset":
		return smtptest.Action{Reset: true}
	case "stall":
		return smtptest.Action{Stall: true}
	}
	if e.Phase == smtptest.Message && len(v.recipients) > 0 && (said == "" || said[0] == '2') {
		f.mu.Lock()
		f.envelope = append(f.envelope, append([]string(nil), v.recipients...))
		f.mu.Unlock()
	}
	return smtptest.Action{Reply: said, Close: strings.HasPrefix(said, "421")}
}

// took returns how often a recipient's mail was accepted.
func (f *fickle) took(recipient string) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, recipients := range f.envelope {
		for _, one := range recipients {
			if one == recipient {
				n++
			}
		}
	}
	return n
}

// envelopes returns the recipients of each message that was accepted, in order.
func (f *fickle) envelopes() (all []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, recipients := range f.envelope {
		all = append(all, strings.Join(recipients, " "))
	}
	return all
}

// transactions returns the recipients that were offered in each transaction, in order.
func (f *fickle) transactions() (all []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	at := make(map[string]int)
	for _, line := range f.said {
		connection, rest, _ := strings.Cut(line, " ")
		if rest == "MAIL" {
			at[connection] = len(all)
			all = append(all, "")
			continue
		}
		one := &all[at[connection]]
		*one = strings.TrimSpace(*one + " " + strings.TrimPrefix(rest, "RCPT "))
	}
	return all
}

func (f *fickle) connections() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.made
}

// atOnce returns how many connections there were at a time.
func (f *fickle) atOnce() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.most
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	return string(must.Get(os.ReadFile(path))(t))
}

func matches(text, pattern string) bool { return regexp.MustCompile(pattern).MatchString(text) }

func quoteMeta(text string) string { return regexp.QuoteMeta(text) }
