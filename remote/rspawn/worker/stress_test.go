package worker_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"

	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/smtpc/smtptest"
	"nightmare.mail/mxf/tlsc/tlstest"
)

// An accountant knows what servers have taken: for each message and recipient how often it was accepted, or
// may have been.
type accountant struct {
	mu    sync.Mutex
	rnd   *rand.Rand
	taken map[string]int
	sworn map[string]int // of these: 250 was said
}

// fault is what a server does instead, one time out of so many.
func (a *accountant) fault(e *smtptest.Exchange) smtptest.Action {
	a.mu.Lock()
	defer a.mu.Unlock()
	act := a.drawLocked(e)
	if e.Phase != smtptest.Message || act.Reply != "" && act.Reply[0] != '2' {
		return act
	}
	subject, _, _ := strings.Cut(string(e.Transaction.Message), "\r\n")
	for _, r := range e.Transaction.Recipients {
		a.taken[subject+" "+r]++
		if act.Reply != "" || !act.Close {
			a.sworn[subject+" "+r]++
		}
	}
	return act
}

// refusals are the replies and other troubles of each phase.
var troubles = map[smtptest.Phase][]smtptest.Action{
	smtptest.Greeting:  {say("421 no"), hangUp},
	smtptest.EHLO:      {say("421 no"), hangUp},
	smtptest.Handshake: {hangUp},
	smtptest.MAIL:      {say("450 no"), say("421 no"), hangUp, {Reply: "421 no", Close: true}, say("nonsense")},
	smtptest.RCPT:      {say("450 no"), say("452 no"), say("421 no"), hangUp, {Reply: "421 no", Close: true}},
	smtptest.DATA:      {say("451 no"), say("452 no"), hangUp, say("421 no")},
	smtptest.Message: {say("451 no"), say("452 no"), say("421 no"), hangUp, {Reset: true},
		{Reply: "250 yes", Close: true}, {Reply: "250 yes\n421 bye", Close: true}},
	smtptest.RSET: {hangUp, say("421 no"), say("500 what")},
	smtptest.QUIT: {hangUp},
}

func (a *accountant) drawLocked(e *smtptest.Exchange) smtptest.Action {
	if e.Phase == smtptest.RCPT && strings.Contains(e.Line, "bad") {
		return say("550 no such user")
	}
	possible := troubles[e.Phase]
	if len(possible) == 0 || a.rnd.IntN(20) > 0 {
		return smtptest.Action{}
	}
	return possible[a.rnd.IntN(len(possible))]
}

// Hundreds of deliveries, of which many go together, to servers with faults: each is answered once, nothing is
// lost, nothing is doubled, and nothing is left over.
func TestStress(t *testing.T) {
	const messages, most = 150, 6
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			a := &accountant{rnd: rand.New(rand.NewPCG(seed, 0)), taken: make(map[string]int), sworn: make(map[string]int)}
			secure := tlstest.NewAuthority("authority").Leaf(nil, "127.0.0.1").Config()
			var routes strings.Builder
			for n, server := range []*smtptest.Server{
				{Answer: a.fault, Extensions: []string{"PIPELINING"}},
				{Answer: a.fault},
				{Answer: a.fault, Extensions: []string{"PIPELINING", "LIMITS MAILMAX=3 RCPTMAX=4"}, TLS: secure},
			} {
				fmt.Fprintf(&routes, "host%d:%s\n", n, smtptest.Listen(t, server.Serve))
				t.Cleanup(func() {
					for _, c := range server.Conversations() {
						if err := c.Violation(); err != nil {
							t.Error(err)
						}
					}
				})
			}
			h := newHost(t, "", map[string]string{"smtproutes": routes.String(), "connectionlimits": ":4\n"})
			goroutines, descriptors := runtime.NumGoroutine(), openFiles()
			var names []string // by id - 1
			for n := range messages {
				message := h.message(fmt.Sprintf("Subject: %d\n\ntext\n", n))
				for r := range 1 + n%most {
					user := "user"
					if (n+r)%9 == 0 {
						user = "bad"
					}
					recipient := fmt.Sprintf("%s%d@host%d", user, r, n%3)
					names = append(names, fmt.Sprintf("Subject: %d %s", n, recipient))
					h.deliver(message, recipient)
				}
				if n%40 == 39 {
					h.wait(t, len(names)-40) // so that connections are kept, and used again
				}
			}
			h.wait(t, len(names))
			h.Stop()
			h.Wait()
			h.audit(a, names)
			must.NoneLeft(t, goroutines)
			must.Until(t, "the end of all descriptors", func() bool { return openFiles() <= descriptors })
			if c := h.Counters(); c.Busy+c.Idle+c.Waiting != 0 {
				t.Errorf("%+v", c)
			}
		})
	}
}

// audit holds the answers against the books of the servers.
func (h *host) audit(a *accountant, names []string) {
	h.t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	letters := make(map[byte]int)
	for i, name := range names {
		answer, answered := h.answers[uint64(i+1)]
		text := string(answer.Letter) + answer.Text
		duplicate := strings.Contains(text, "Possible duplicate! ")
		bad := strings.Contains(name, "bad")
		letters[answer.Letter]++
		switch taken := a.taken[name]; {
		case !answered:
			h.t.Errorf("%s: no answer", name)
		case taken > 1:
			h.t.Errorf("%s: taken %d times: %s\n%s", name, taken, text, h.tracesOf(names, i))
		case answer.Letter == 'K' && a.sworn[name] != 1:
			h.t.Errorf("%s: accepted %d times: %s", name, a.sworn[name], text)
		case answer.Letter != 'K' && taken > 0 && !duplicate:
			h.t.Errorf("%s: taken: %s\n%s", name, text, h.tracesOf(names, i))
		case answer.Letter == 'D' && !bad:
			h.t.Errorf("%s: %s", name, text)
		case bad && answer.Letter == 'K':
			h.t.Errorf("%s: %s", name, text)
		}
	}
	if len(h.twice) > 0 || len(h.dropped) > 0 {
		h.t.Errorf("answered twice: %v, dropped: %v", h.twice, h.dropped)
	}
	h.t.Logf("%d K, %d Z, %d D", letters['K'], letters['Z'], letters['D'])
}

// tracesOf are the traces of all deliveries of the message of names[i].
func (h *host) tracesOf(names []string, i int) (all string) {
	subject := func(name string) string { return strings.Join(strings.Fields(name)[:2], " ") }
	for j, name := range names {
		if subject(name) == subject(names[i]) {
			all += h.traceOf(uint64(j + 1))
		}
	}
	return all
}

// traceOf is the trace of one delivery.
func (h *host) traceOf(id uint64) string {
	var all []string
	for line := range strings.Lines(h.traced()) {
		if strings.HasPrefix(line, fmt.Sprintf("%d ", id)) {
			all = append(all, line)
		}
	}
	return strings.Join(all, "")
}

// openFiles is how many descriptors this process has; 0 where that cannot be known.
func openFiles() int {
	all, _ := os.ReadDir("/proc/self/fd")
	return len(all)
}
