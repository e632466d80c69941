package integration

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"nightmare.mail/mxf/integration/lab"
	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/smtpc/smtptest"
)

// Setup: an mxf-rspawn, and servers that go wrong at every point of the conversation, by chance: they
// hang up, reset, fall silent, refuse for now and for good, want no more, spoil TLS, close a
// connection after a message. Some exchangers refuse connections, and one does not answer. Again and again the
// worker is killed. What was deferred is sent again, as by qmail-send.
//
//	player ──► mxf-rspawn ──► worker ✗ ──► servers ──► ledger
//	   └── what it was told ───────────────────────────► ledger
//
// Test: the ledger has what servers accepted, and what was answered. Each command has one answer. K is
// said of what a server has. What a server has was answered with K, or with a word that it may come
// twice; without that word it has come once. A bounce is what a server said to this recipient.
// Memory and descriptors do not grow, and in the end no process is left.
//
//	MXF_LONG=1	200,000 deliveries and 20 ends of the worker, in place of a few hundred and 2

// A soak says how much.
type soak struct {
	bytes      int           // of a number
	batches    int           // the worker is killed once in each
	deliveries int           // in each batch
	slots      int           // at a time
	apart      time.Duration // ends of the worker are, so that three are not within a minute
}

const (
	// soakRounds is how often what was deferred is sent again.
	soakRounds = 40
	// soakRecipients is the most of a message.
	soakRecipients = 5
	// soakLimit ends the long one.
	soakLimit = 2 * time.Hour
	// doubt is in each answer after which a message may come twice.
	doubt = "Possible duplicate! "
)

func TestSoak(t *testing.T) {
	if os.Getenv("MXF_LONG") != "" {
		soak{bytes: 2, batches: 20, deliveries: 10000, slots: 100, apart: 31 * time.Second}.run(t)
		return
	}
	soak{bytes: 1, batches: 2, deliveries: 200, slots: 20}.run(t)
}

// A ledger has what servers accepted and refused, and what was answered, by recipient. Each
// recipient gets one message, and each sender sends one.
type ledger struct {
	mu       sync.Mutex
	accepted map[string]int
	refused  map[string]bool // for good: recipients, and senders
	answers  map[string]*answered
	wrong    []error
}

// answered is what a recipient's commands were answered.
type answered struct {
	letter byte // the last
	text   string
	doubts int // how often it may have arrived
	times  int
}

func (l *ledger) complain(err error) {
	const few = 20
	if err != nil && len(l.wrong) < few {
		l.wrong = append(l.wrong, err)
	}
}

// refuse notes what was refused for good.
func (l *ledger) refuse(names ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, name := range names {
		l.refused[name] = true
	}
}

// accept notes a message, which must be the one that sender and recipients belong to.
func (l *ledger) accept(tx *smtptest.Transaction) {
	l.mu.Lock()
	defer l.mu.Unlock()
	mail, _, _ := strings.Cut(tx.Sender, "@")
	if !strings.Contains(string(tx.Message), "\r\nX-Mail: "+mail+"\r\n") {
		l.complain(fmt.Errorf("sender %s with the message %.200q", tx.Sender, tx.Message))
	}
	for _, recipient := range tx.Recipients {
		if !strings.HasPrefix(recipient, mail+"-") {
			l.complain(fmt.Errorf("sender %s with the recipient %s", tx.Sender, recipient))
		}
		l.accepted[recipient]++
	}
}

// told notes an answer.
func (l *ledger) told(recipient string, a lab.Answer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.answers[recipient]
	if r == nil {
		r = new(answered)
		l.answers[recipient] = r
	}
	r.letter, r.text = a.Letter, a.Text
	r.times++
	if strings.Contains(a.Text, strings.TrimSpace(doubt)) {
		r.doubts++
		if a.Letter == 'K' {
			l.complain(fmt.Errorf("%s: %v", recipient, a))
		}
	}
}

// balance returns what is wrong, and what came of all.
func (l *ledger) balance() (summary string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	letters, doubts, doubled := make(map[byte]int), 0, 0
	for recipient, r := range l.answers {
		sender, _, _ := strings.Cut(recipient, "-")
		n := l.accepted[recipient]
		letters[r.letter]++
		doubts += r.doubts
		doubled += max(0, n-1)
		switch {
		case r.letter == 'K' && n == 0:
			l.complain(fmt.Errorf("%s: K, and no server has it", recipient))
		case r.letter != 'K' && n > 0 && r.doubts == 0:
			l.complain(fmt.Errorf("%s: it has arrived, and was answered %c %q", recipient, r.letter, r.text))
		case n > 1+r.doubts:
			l.complain(fmt.Errorf("%s: it has arrived %d times, and %d answers allow for that", recipient, n, r.doubts))
		case r.letter == 'D' && !l.refused[recipient] && !l.refused[sender]:
			l.complain(fmt.Errorf("%s: it bounces, and no server has refused it: %q", recipient, r.text))
		}
	}
	for recipient := range l.accepted {
		if l.answers[recipient] == nil {
			l.complain(fmt.Errorf("%s has arrived, and nobody has sent it", recipient))
		}
	}
	summary = fmt.Sprintf("%d accepted, %d refused, %d left; %d answers in doubt, %d doubled", letters['K'], letters['D'], letters['Z'], doubts, doubled)
	return summary, errors.Join(l.wrong...)
}

// A soakServer goes wrong by chance.
type soakServer struct {
	ledger *ledger
	tls    *tls.Config

	mu     sync.Mutex
	chance *rand.Rand
}

// often and seldom are how often a server goes wrong at a point: one of so many times.
const (
	often  = 60
	seldom = 2500 // falls silent, which costs a time-out
)

// soakFaults are what can be said in place of the right thing, at each phase. Those of class 5
// are noted as refusals.
var soakFaults = map[smtptest.Phase][]string{
	smtptest.Greeting: {"421 4.3.2 not now", "450 4.3.2 not now"},
	smtptest.EHLO:     {"421 4.3.2 not now", "451 4.3.0 cannot say"},
	smtptest.STARTTLS: {"454 4.7.0 no TLS now"},
	smtptest.MAIL:     {"421 4.3.2 closing", "452 4.5.3 enough", "451 4.3.0 sorry", "550 5.7.1 not from you"},
	smtptest.RCPT:     {"421 4.3.2 closing", "452 4.5.3 too many", "552 5.5.3 too many", "450 4.2.1 later", "550 5.1.1 nobody"},
	smtptest.DATA:     {"421 4.3.2 closing", "451 4.3.0 sorry", "452 4.3.1 full", "554 5.6.0 no"},
	smtptest.Message:  {"421 4.3.2 closing", "451 4.3.0 sorry", "452 4.3.1 full", "554 5.6.0 no"},
	smtptest.RSET:     {"500 5.5.1 what", "421 4.3.2 closing"},
}

// silences are what a server does in place of saying something.
var silences = []smtptest.Action{{Close: true}, {Reset: true}, {Spoil: true}}

func (s *soakServer) answer(e *smtptest.Exchange) smtptest.Action {
	s.mu.Lock()
	wrong, silent, late := s.chance.IntN(often) == 0, s.chance.IntN(seldom) == 0, s.chance.IntN(often) == 0
	pick := s.chance.IntN(1 << 20)
	s.mu.Unlock()
	if late {
		time.Sleep(time.Duration(pick%30) * time.Millisecond)
	}
	replies := soakFaults[e.Phase]
	act := smtptest.Action{}
	switch n := pick % (len(replies) + len(silences)); {
	case silent && e.Phase != smtptest.QUIT:
		act = smtptest.Action{Stall: true}
	case wrong && n < len(replies):
		act = smtptest.Action{Reply: replies[n]}
		act.Close = strings.HasPrefix(act.Reply, "421")
		s.refuses(e, act.Reply)
	case wrong:
		act = silences[n-len(replies)]
	}
	if e.Phase == smtptest.Message {
		return s.message(e, act, pick)
	}
	return act
}

// refuses notes a refusal for good.
func (s *soakServer) refuses(e *smtptest.Exchange, reply string) {
	if !strings.HasPrefix(reply, "5") {
		return
	}
	switch path, _, _ := smtptest.Path(e.Line); e.Phase {
	case smtptest.MAIL:
		sender, _, _ := strings.Cut(path, "@")
		s.ledger.refuse(sender)
	case smtptest.RCPT:
		s.ledger.refuse(path)
	case smtptest.DATA, smtptest.Message:
		s.ledger.refuse(e.Transaction.Recipients...)
	}
}

// message answers a message. One that is accepted may be so without a word, and what follows
// a word may be the end of the connection.
func (s *soakServer) message(e *smtptest.Exchange, act smtptest.Action, pick int) smtptest.Action {
	switch {
	case act.Reply != "" || len(e.Transaction.Recipients) == 0:
		return act
	case act == smtptest.Action{}:
		s.ledger.accept(e.Transaction)
		if pick%13 == 0 { // a kept connection dies
			return smtptest.Action{Reply: "250 2.0.0 taken", Close: true}
		}
	case pick%2 == 0:
		s.ledger.accept(e.Transaction)
	}
	return act
}

// serve serves until the listener is closed.
func (s *soakServer) serve(t *testing.T, listener net.Listener) {
	var all sync.WaitGroup
	for {
		conn, err := listener.Accept()
		if err != nil {
			all.Wait()
			return
		}
		all.Go(func() {
			defer conn.Close()
			server := &smtptest.Server{Extensions: []string{"PIPELINING", "SIZE", "8BITMIME"}, TLS: s.tls, Answer: s.answer}
			server.Serve(smtptest.NewConn(conn))
			for _, c := range server.Conversations() {
				if err := c.Violation(); err != nil {
					t.Errorf("%v: %q", err, c.Commands)
				}
			}
		})
	}
}

// A soaking is a soak under way.
type soaking struct {
	soak
	*station
	ledger  *ledger
	p       *lab.Player
	domains []string
	kills   int
	killed  time.Time
	mails   int
}

func (k soak) run(t *testing.T) {
	s := &soaking{soak: k, station: newStation(t), ledger: &ledger{accepted: make(map[string]int), refused: make(map[string]bool), answers: make(map[string]*answered)}}
	if k.apart > 0 {
		ctx, cancel := context.WithTimeout(t.Context(), soakLimit)
		defer cancel()
		s.ctx = ctx
	}
	s.servers()
	for name, value := range map[string]string{
		"timeoutremote": "3", "timeoutconnect": "1", "connectionidle": "1", "delnumbytes": itoa(k.bytes), "concurrencyremote": itoa(k.slots),
		"spawnlimit": itoa(max(k.slots, 200)),
	} {
		must.OK(t, s.Home.Set(name, value))
	}
	part := s.part()
	part.Bytes, part.Slots = k.bytes, k.slots
	s.p = s.start(part)
	begin := time.Now()
	left := 0
	var pss [2]int64 // at half time, and at the end
	var open [2]int
	for batch := range k.batches {
		left += s.batch()
		if batch == (k.batches-1)/2 || batch == k.batches-1 {
			i := 0
			if batch == k.batches-1 {
				i = 1
			}
			pss[i], open[i] = s.quiet()
		}
	}
	took := time.Since(begin)
	must.Check(t, s.p.Close(stationLimit))
	summary, err := s.ledger.balance()
	must.Check(t, err)
	t.Logf("%d messages in %.0f s, %d ends of the worker, %d answers: %s", s.mails, took.Seconds(), s.kills, s.p.Answers(), summary)
	t.Logf("Pss %.1f MB at half time, %.1f MB at the end; %d and %d descriptors", float64(pss[0])/(1<<20), float64(pss[1])/(1<<20), open[0], open[1])
	if s.kills != k.batches {
		t.Errorf("the worker was killed %d times, not %d", s.kills, k.batches)
	}
	const fewLeft = 50 // one of so many may be left
	if total := len(s.ledger.answers); left > total/fewLeft+soakRecipients*2 {
		t.Errorf("%d of %d recipients are left after %d rounds", left, total, soakRounds)
	}
	if k.apart > 0 && float64(pss[1]) > 1.2*float64(pss[0]) {
		t.Errorf("memory grows")
	}
	const slack = 8 // the kernel's and the runtime's, which come and go
	if open[1] > open[0]+slack {
		t.Errorf("descriptors grow from %d to %d", open[0], open[1])
	}
}

// quiet waits until nothing is kept, and returns memory and descriptors.
func (s *soaking) quiet() (pss int64, open int) {
	s.t.Helper()
	least, steady := 0, 0
	for end := time.Now().Add(must.Patience); time.Now().Before(end) && steady < 10; time.Sleep(200 * time.Millisecond) {
		open = s.p.Descriptors()
		if steady++; least == 0 || open < least {
			least, steady = open, 0
		}
	}
	return must.Get(s.p.Pss())(s.t), open
}

// servers starts the servers: d0 to d5 have one each, "both" has two of equal preference; the first
// exchanger of "refused" refuses connections, and that of "silent" does not answer; nobody has
// mail for "nobody".
func (s *soaking) servers() {
	must.OK(s.t, s.Home.Trust(s.Authority))
	for i := range 6 {
		domain := fmt.Sprintf("d%d.example", i)
		s.faulty(i, "mx."+domain)
		s.record("%s MX 10 mx.%s", domain, domain)
		s.domains = append(s.domains, domain)
	}
	s.record("both.example MX 10 mx.d0.example\nboth.example MX 10 mx.d1.example")
	refused, nobody := s.addr(), s.addr()
	silent := netip.MustParseAddr("127.0.0.8")
	s.record("refused.example MX 5 mx.refused.example\nmx.refused.example A %s\nrefused.example MX 10 mx.d2.example", refused)
	s.record("silent.example MX 5 mx.silent.example\nmx.silent.example A %s\nsilent.example MX 10 mx.d3.example", silent)
	s.record("nobody.example MX 5 mx.nobody.example\nmx.nobody.example A %s", nobody)
	must.OK(s.t, s.Dead("smtp", silent))
	s.domains = append(s.domains, "both.example", "refused.example", "silent.example")
}

// faulty starts a server, every second with TLS.
func (s *soaking) faulty(i int, name string) {
	addr := s.addr()
	s.record("%s A %s", name, addr)
	listener := must.Get(net.Listen("tcp", netip.AddrPortFrom(addr, s.Port("smtp")).String()))(s.t)
	const seed = 20260101
	server := &soakServer{ledger: s.ledger, chance: rand.New(rand.NewPCG(seed, uint64(i)))}
	if i%2 == 0 {
		server.tls = &tls.Config{Certificates: []tls.Certificate{*s.Certificate(name)}}
	}
	served := make(chan struct{})
	go func() { defer close(served); server.serve(s.t, listener) }()
	s.t.Cleanup(func() { listener.Close(); <-served })
}

// batch delivers, kills the worker once, and returns how many recipients are left.
func (s *soaking) batch() (left int) {
	first := s.mails
	jobs := s.jobs()
	at := s.p.Answers() + s.deliveries/2
	// Ends of the worker are not too near to each other.
	if wait := s.apart - time.Since(s.killed); !s.killed.IsZero() && wait > 0 {
		time.Sleep(wait)
	}
	killed := false
	rest, err := s.p.Deferrals(s.ctx, jobs, soakRounds, func(_ *lab.Job, recipient string, a lab.Answer) {
		s.ledger.told(recipient, a)
		if !killed && s.p.Answers() >= at {
			if _, err := s.p.SignalWorker(syscall.SIGKILL); err == nil {
				killed, s.killed = true, time.Now()
				s.kills++
			}
		}
	})
	must.OK(s.t, err)
	for _, job := range rest {
		left += len(job.Recipients)
	}
	for n := first; n < s.mails; n++ {
		must.OK(s.t, s.Home.Unqueue(1000+n))
	}
	return left
}

// jobs puts messages into the queue.
func (s *soaking) jobs() (jobs []lab.Job) {
	for count := 0; count < s.deliveries; {
		n := s.mails
		s.mails++
		text := fmt.Appendf(nil, "Subject: soak\nX-Mail: m%d\n\n%s", n, strings.Repeat("a line of text\n.\n", n%200))
		job := lab.Job{Messid: must.Get(s.Home.Queue(1000+n, text))(s.t), Sender: fmt.Sprintf("m%d@sender.example", n)}
		domain := s.domains[n%len(s.domains)]
		if n%(s.deliveries/2) == 0 {
			domain = "nobody.example"
		}
		for i := range 1 + n%soakRecipients {
			if i == 3 {
				domain = s.domains[(n+1)%len(s.domains)]
			}
			job.Recipients = append(job.Recipients, fmt.Sprintf("m%d-%d@%s", n, i, domain))
		}
		count += len(job.Recipients)
		jobs = append(jobs, job)
	}
	return jobs
}

// The ledger finds what it is for.
func TestLedger(t *testing.T) {
	message := []byte("Subject: x\r\nX-Mail: m1\r\n\r\n")
	k, z, d, dup := lab.Answer{Letter: 'K'}, lab.Answer{Letter: 'Z'}, lab.Answer{Letter: 'D'}, lab.Answer{Letter: 'Z', Text: "lost. " + doubt + "(#4.4.2)"}
	for _, c := range []struct {
		name     string
		accepted int
		answers  []lab.Answer
		refused  string
		good     bool
	}{
		{"right", 1, []lab.Answer{k}, "", true},
		{"right at last", 1, []lab.Answer{z, k}, "", true},
		{"left", 0, []lab.Answer{z}, "", true},
		{"nobody has it", 0, []lab.Answer{k}, "", false},
		{"lost", 1, []lab.Answer{z}, "", false},
		{"in doubt", 1, []lab.Answer{dup}, "", true},
		{"twice in doubt", 2, []lab.Answer{dup, k}, "", true},
		{"doubled", 2, []lab.Answer{z, k}, "", false},
		{"thrice", 3, []lab.Answer{dup, k}, "", false},
		{"refused", 0, []lab.Answer{d}, "m1-0@x.example", true},
		{"its sender is refused", 0, []lab.Answer{d}, "m1", true},
		{"another is refused", 0, []lab.Answer{d}, "m1-1@x.example", false},
	} {
		l := &ledger{accepted: make(map[string]int), refused: make(map[string]bool), answers: make(map[string]*answered)}
		for range c.accepted {
			l.accept(&smtptest.Transaction{Sender: "m1@sender.example", Recipients: []string{"m1-0@x.example"}, Message: message})
		}
		l.refuse(c.refused)
		for _, a := range c.answers {
			l.told("m1-0@x.example", a)
		}
		if _, err := l.balance(); (err == nil) != c.good {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	l := &ledger{accepted: make(map[string]int), answers: make(map[string]*answered)}
	l.accept(&smtptest.Transaction{Sender: "m2@sender.example", Recipients: []string{"m3-0@x.example"}, Message: message})
	if len(l.wrong) != 2 {
		t.Errorf("what does not belong together: %v", l.wrong)
	}
}
