package smtpc_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/smtpc"
	"nightmare.mail/mxf/smtpc/smtptest"
)

// between is the time after the answer to one message and before the next MAIL.
const between smtptest.Phase = "between"

// A keeping is a delivery of several mails over as few connections as can be, to a
// server that goes wrong once.
type keeping struct {
	mode       string
	secure     bool
	mails      int
	bad        int // the mail at which it goes wrong
	at         smtptest.Point
	fault      fault
	recipients int
	lazy       bool // the server answers only when the client has stopped sending
}

func (k keeping) String() string {
	return fmt.Sprintf("mode %q secure %v: mail %d of %d at %s %d: %s", k.mode, k.secure, k.bad, k.mails, k.at.Phase, k.at.N, k.fault)
}

// An owner has a connection and the session on it, as long as that is usable.
type owner struct {
	t       *testing.T
	server  *smtptest.Server
	address string
	opened  int // connections

	job     *job // that the session was opened for
	session *smtpc.Session
	conn    net.Conn
}

func (k keeping) owner(t *testing.T, act func(smtptest.Point) smtptest.Action) *owner {
	server := &smtptest.Server{Extensions: strings.Fields(k.mode + " 8BITMIME"), Act: act, Lazy: k.lazy}
	if k.secure {
		server.TLS = serverTLS()
	}
	return &owner{t: t, server: server, address: smtptest.Listen(t, server.Serve)}
}

// mail is a job with the nth mail.
func (k keeping) mail(n int) *job {
	j := newJob(k.recipients)
	j.Message = strings.NewReader(fmt.Sprintf("mail: %d\n", n))
	j.TimeoutRemote, j.TimeoutConnect = 0, 0
	if k.fault == stalls {
		j.TimeoutRemote, j.TimeoutConnect = fuse, fuse/4
	}
	return j
}

// send sends the mail of j, on the session that is open if there is one.
func (o *owner) send(j *job) *smtpc.Outcome {
	ctx, cancel := j.context(o.t.Context())
	defer cancel()
	if o.session == nil {
		o.opened++
		o.conn, o.job = smtptest.Dial(o.t, o.address), j
		j.startTLS(o.conn)
		o.session, _ = smtpc.Open(ctx, o.conn, &j.Options)
	}
	outcome := o.session.Send(ctx, j.mail())
	var refused *smtpc.RefusedError
	if o.session.Usable() && errors.As(outcome.Err, &refused) {
		_ = o.session.Reset(ctx) // Usable has what came of it
	}
	if !o.session.Usable() {
		o.close()
	}
	return outcome
}

func (o *owner) close() {
	if o.session != nil {
		o.job.close(o.conn, o.session.Quit())
		o.session = nil
	}
}

// mails returns how many mails the server has accepted when all connections are over.
func (o *owner) mails() int {
	must.Until(o.t, "the end of all connections", func() bool { return len(o.server.Conversations()) >= o.opened })
	mails := 0
	for _, c := range o.server.Conversations() {
		mails += c.Mails
	}
	return mails
}

// account is an outcome without what differs from connection to connection.
func account(o *smtpc.Outcome) string {
	var b strings.Builder
	for _, a := range o.Recipients {
		fmt.Fprintf(&b, "%v %v %v, ", a.Status, a.Reply, a.Err)
	}
	fmt.Fprintf(&b, "begun %v, last byte %v, reply %v, notes %v: ", o.Begun, o.LastByte, o.Reply, o.Notes)
	var refused *smtpc.RefusedError
	var broken *smtpc.BrokenError
	var silence *smtpc.SilenceError
	switch {
	case errors.As(o.Err, &refused):
		fmt.Fprintf(&b, "refused at %s, for good %v, cause %v: %v", refused.Stage, refused.Permanent, refused.Cause, refused.Reply)
	case errors.As(o.Err, &broken) && errors.As(o.Err, &silence):
		fmt.Fprintf(&b, "broken at %s, cause %v: %v", broken.Stage, broken.Cause, silence)
	case errors.As(o.Err, &broken) && errors.Is(o.Err, smtpc.ErrLost):
		fmt.Fprintf(&b, "broken at %s, cause %v: lost", broken.Stage, broken.Cause)
	default:
		fmt.Fprintf(&b, "%v", o.Err)
	}
	return b.String()
}

// alone returns the outcome of a mail that has a connection of its own, on which the server
// goes wrong in the same way.
func (k keeping) alone(t *testing.T) *smtpc.Outcome {
	at := k.at
	if at.Phase == between {
		at.Phase = smtptest.MAIL // the first thing that the client hears after it
	}
	o := k.owner(t, doing(at, k.fault.action()))
	defer o.close()
	return o.send(k.mail(0))
}

// sole is k without what does not matter to a mail that is alone.
func (k keeping) sole() keeping {
	k.mails, k.bad = 1, 0
	return k
}

// run sends the mails, and returns their outcomes and the owner.
func (k keeping) run(t *testing.T) ([]*smtpc.Outcome, *owner) {
	at, action := k.at, k.fault.action()
	at.Mail = k.bad
	now := make(chan struct{})
	switch {
	case at.Phase == between && k.fault == stalls:
		at.Phase = smtptest.MAIL // where it shows
	case at.Phase == between:
		at.Phase, at.Mail = smtptest.Message, k.bad-1
		action = smtptest.Action{Reply: "250 accepted", Wait: now, Then: action.Reply, Close: true}
	}
	var once sync.Once // not on a second connection
	o := k.owner(t, func(p smtptest.Point) (a smtptest.Action) {
		if p == at {
			once.Do(func() { a = action })
		}
		return a
	})
	var outcomes []*smtpc.Outcome
	for n := range k.mails {
		if n == k.bad {
			close(now)
		}
		outcomes = append(outcomes, o.send(k.mail(n)))
	}
	o.close()
	return outcomes, o
}

// keepings are all rows of the table.
func keepings() []keeping {
	var all []keeping
	for _, mode := range []string{lockstep, pipelining} {
		for _, secure := range []bool{false, true} {
			for _, mails := range []int{2, 3} {
				for bad := range mails {
					for _, at := range append(points(mode, secure, 2), smtptest.Point{Phase: between, Secure: secure}) {
						switch at.Phase {
						case smtptest.Greeting, smtptest.EHLO, smtptest.STARTTLS:
							continue // of a connection, not of a mail
						}
						for _, f := range []fault{closes, stalls, says4xx, says5xx, says421} {
							if at.Phase == between && (bad == 0 || f == says4xx || f == says5xx) {
								continue
							}
							all = append(all, keeping{mode, secure, mails, bad, at, f, 2, false})
						}
					}
				}
			}
		}
	}
	return all
}

// TestSession sends two and three mails over one session, to a server that goes wrong at each
// point of each of them: what comes of each mail is what comes of it on a connection of
// its own.
func TestSession(t *testing.T) {
	t.Parallel()
	serverTLS()
	var running sync.WaitGroup
	turn := make(chan struct{}, maxAtOnce)
	apart := make(map[keeping]func() string)
	for _, k := range keepings() {
		alone, well := k.sole(), k.sole()
		well.at.Phase = "never"
		for _, k := range []keeping{alone, well} {
			if apart[k] == nil {
				apart[k] = sync.OnceValue(func() string { return account(k.alone(t)) })
			}
		}
		bad, good := apart[alone], apart[well]
		running.Go(func() {
			if k.fault != stalls {
				turn <- struct{}{}
				defer func() { <-turn }()
			}
			k.check(t, bad, good)
		})
	}
	running.Wait()
	t.Logf("%d sessions", len(keepings()))
}

// check holds the outcomes of k against those of mails that are alone on their connections.
func (k keeping) check(t *testing.T, bad, good func() string) {
	var running sync.WaitGroup
	running.Go(func() { _, _ = bad(), good() })
	got, o := k.run(t)
	running.Wait()
	accepted := 0
	for n, outcome := range got {
		want := good
		if n == k.bad {
			want = bad
		}
		if account(outcome) != want() {
			t.Errorf("%v\nmail %d\n got %s\nwant %s", k, n, account(outcome), want())
		}
		if outcome.Err == nil {
			accepted++
		}
	}
	// A refusal leaves the session usable, unless it is 421, or the server waits for a
	// message all the same: 354 after MAIL was refused.
	refused := k.fault == says4xx || k.fault == says5xx
	usable := refused && !(k.mode == pipelining && k.at.Phase == smtptest.MAIL)
	want := 1
	if !usable && k.bad < k.mails-1 {
		want = 2
	}
	if o.opened != want {
		t.Errorf("%v\n%d connections, want %d", k, o.opened, want)
	}
	if seen := o.mails(); seen != accepted {
		t.Errorf("%v\nthe server accepted %d mails, %d outcomes say so", k, seen, accepted)
	}
}

// TestReset has a server go wrong at RSET, after it has refused a message.
func TestReset(t *testing.T) {
	t.Parallel()
	serverTLS()
	var running sync.WaitGroup
	for _, mode := range []string{lockstep, pipelining} {
		for _, secure := range []bool{false, true} {
			for _, f := range []fault{closes, stalls, garbage, says2xx, says4xx, says5xx, says421} {
				running.Go(func() {
					k := keeping{mode: mode, secure: secure, fault: f, recipients: 1}
					refuses := doing(smtptest.Point{Phase: smtptest.Message, Secure: secure}, smtptest.Action{Reply: "554 not this one"})
					o := k.owner(t, func(p smtptest.Point) smtptest.Action {
						if p.Phase == smtptest.RSET {
							return f.action()
						}
						return refuses(p)
					})
					defer o.close()
					var refused *smtpc.RefusedError
					if first := o.send(k.mail(0)); !errors.As(first.Err, &refused) || refused.Stage != smtpc.StageMessage {
						t.Errorf("%v: %v", k, first.Err)
					}
					if o.session != nil {
						t.Errorf("%v: the session is usable", k)
					}
				})
			}
		}
	}
	running.Wait()
}

// A second mail does without the greeting, EHLO and STARTTLS.
func TestTurnsOfASecondMail(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		mode   string
		secure bool
		want   int // the first mail's and the second's
	}{{pipelining, false, 4 + 2}, {lockstep, false, 6 + 4}, {pipelining, true, 7 + 2}, {lockstep, true, 9 + 4}} {
		k := keeping{mode: c.mode, secure: c.secure, recipients: 1, lazy: true}
		o := k.owner(t, nil)
		for n := range 2 {
			if outcome := o.send(k.mail(n)); outcome.Err != nil {
				t.Errorf("%+v: %v", c, outcome.Err)
			}
		}
		o.close()
		if seen := o.server.Last(t); seen.Turns != c.want || seen.Mails != 2 || !seen.Ended {
			t.Errorf("%+v: %d turns, %d mails, QUIT %v: %q", c, seen.Turns, seen.Mails, seen.Ended, seen.Commands)
		}
	}
}

// open opens a session for j on conn.
func open(t *testing.T, ctx context.Context, conn net.Conn, j *job) *smtpc.Session {
	t.Helper()
	s := must.Get(smtpc.Open(ctx, conn, &j.Options))(t)
	return s
}

// The empty message for nobody and QUIT are one write.
func TestOwedDot(t *testing.T) {
	server := &smtptest.Server{Extensions: []string{"PIPELINING"}, Act: at(smtptest.RCPT, "550 no")}
	conn := &countingConn{Conn: smtptest.Dial(t, smtptest.Listen(t, server.Serve))}
	j := newJob(1)
	s := open(t, t.Context(), conn, j)
	outcome := s.Send(t.Context(), j.mail())
	var refused *smtpc.RefusedError
	if !errors.As(outcome.Err, &refused) || refused.Stage != smtpc.StageRCPT || !refused.Permanent || !outcome.Begun || outcome.LastByte {
		t.Errorf("%+v", outcome)
	}
	if s.Usable() || s.Reset(t.Context()) == nil {
		t.Error("the session is usable")
	}
	if !s.Quit() || s.Quit() {
		t.Error("QUIT was not said, or twice")
	}
	if last := conn.writes[len(conn.writes)-1]; string(last) != ".\r\nQUIT\r\n" {
		t.Errorf("at the end: %q", last)
	}
}

// That STARTTLS was refused is of no account once the server has answered a command after it.
func TestRefusedSTARTTLSAndLaterLoss(t *testing.T) {
	const normal, bare = smtptest.MAIL, smtptest.Phase("MAIL without parameters")
	for _, mode := range []string{lockstep, pipelining} {
		for _, c := range []struct {
			lost  int // the mail whose MAIL is not answered
			at    smtptest.Phase
			cause error
		}{{0, normal, smtpc.ErrTLSFailed}, {1, normal, nil}, {0, bare, smtpc.ErrStumbled}} {
			if mode == pipelining && c.at == normal && c.lost == 1 {
				c.cause = smtpc.ErrStumbled // as for each group that is not answered
			}
			mails := 0
			server := &smtptest.Server{TLS: serverTLS(), Extensions: strings.Fields(mode + " 8BITMIME SIZE"), Act: func(p smtptest.Point) smtptest.Action {
				switch {
				case p.Phase == smtptest.STARTTLS:
					return smtptest.Action{Reply: "454 not now"}
				case p.Phase == smtptest.DATA && c.at == bare:
					return smtptest.Action{Reply: "503 no mail"}
				case p.Phase != smtptest.MAIL:
					return smtptest.Action{}
				}
				mails++
				switch {
				case c.at == bare && mails == 1:
					return smtptest.Action{Reply: "555 5.5.4 parameters"}
				case c.at == bare, mails == c.lost+1:
					return smtptest.Action{Close: true}
				}
				return smtptest.Action{}
			}}
			j := newJob(1)
			conn := smtptest.Dial(t, smtptest.Listen(t, server.Serve))
			j.startTLS(conn)
			s := open(t, t.Context(), conn, j)
			for n := range c.lost {
				if outcome := s.Send(t.Context(), newJob(1).mail()); outcome.Err != nil || len(outcome.Notes) != 1 {
					t.Errorf("%q, %+v, mail %d: %+v", mode, c, n, outcome)
				}
			}
			outcome := s.Send(t.Context(), newJob(1).mail())
			for _, cause := range []error{smtpc.ErrTLSFailed, smtpc.ErrStumbled} {
				if errors.Is(outcome.Err, cause) != (cause == c.cause) {
					t.Errorf("%q, %+v: %v is %v", mode, c, outcome.Err, cause)
				}
			}
			if !errors.Is(outcome.Err, smtpc.ErrLost) {
				t.Errorf("%q, %+v: %v", mode, c, outcome.Err)
			}
			if c.lost > 0 && len(outcome.Notes) > 0 {
				t.Errorf("%q, %+v: notes %v of an earlier mail", mode, c, outcome.Notes)
			}
		}
	}
}

// A mail that is not sent takes the notes of Open from none that is.
func TestNotesAreOfTheFirstMail(t *testing.T) {
	server := &smtptest.Server{TLS: serverTLS(), Act: at(smtptest.STARTTLS, "454 not now")}
	j := newJob(1)
	conn := smtptest.Dial(t, smtptest.Listen(t, server.Serve))
	j.startTLS(conn)
	s := open(t, t.Context(), conn, j)
	for n, want := range []struct {
		mail  *smtpc.Mail
		notes int
	}{{smtpc.NewMail("", []string{"x\n@x"}, nil, false), 0}, {newJob(1).mail(), 1}, {newJob(1).mail(), 0}} {
		if o := s.Send(t.Context(), want.mail); len(o.Notes) != want.notes {
			t.Errorf("mail %d: %+v", n, o)
		}
	}
}

// What is said for a mail goes to the trace of that mail alone, and its limits hold.
func TestTraceAndLimitsOfEachMail(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{lockstep, pipelining} {
		server := &smtptest.Server{Extensions: strings.Fields(mode), Act: func(p smtptest.Point) smtptest.Action {
			return smtptest.Action{Stall: p.Mail == 2 && p.Phase == smtptest.MAIL}
		}}
		var traces [4]strings.Builder
		tracing := func(n int, limit time.Duration) *job {
			j := newJob(1)
			j.Sender = fmt.Sprintf("sender%d@example.net", n)
			j.Limits = smtpc.Limits{Answer: limit}
			j.Trace = func(line string) { traces[n].WriteString(line + "\n") }
			return j
		}
		s := open(t, t.Context(), smtptest.Dial(t, smtptest.Listen(t, server.Serve)), tracing(0, 30*time.Second))
		for n := 1; n <= 2; n++ {
			if outcome := s.Send(t.Context(), tracing(n, 30*time.Second).mail()); outcome.Err != nil {
				t.Error(outcome.Err)
			}
		}
		var silence *smtpc.SilenceError
		if outcome := s.Send(t.Context(), tracing(3, time.Second).mail()); !errors.As(outcome.Err, &silence) || silence.Limit != time.Second {
			t.Errorf("%q: %v", mode, outcome.Err)
		}
		for n := range traces {
			got := traces[n].String()
			if strings.Contains(got, "EHLO") != (n == 0) || strings.Contains(got, "MAIL FROM") != (n > 0) ||
				n > 0 && strings.Count(got, "MAIL FROM") != strings.Count(got, fmt.Sprintf("MAIL FROM:<sender%d@", n)) ||
				(n == 1 || n == 2) && !strings.Contains(got, "> .\n< 250 accepted\n") {
				t.Errorf("%q, trace %d: %q", mode, n, got)
			}
		}
	}
}

func TestMistakesWithASession(t *testing.T) {
	server := &smtptest.Server{Act: doing(smtptest.Point{Phase: smtptest.MAIL, Mail: 1}, smtptest.Action{Reply: "450 later"})}
	j := newJob(1)
	s := open(t, t.Context(), smtptest.Dial(t, smtptest.Listen(t, server.Serve)), j)
	mail := j.mail()
	if outcome := s.Send(t.Context(), mail); outcome.Err != nil {
		t.Fatal(outcome.Err)
	}
	if outcome := s.Send(t.Context(), mail); outcome.Err == nil {
		t.Error("a mail was sent twice")
	}
	unsendable := smtpc.NewMail("", []string{"x\n@x"}, nil, false)
	if outcome := s.Send(t.Context(), unsendable); account(outcome) != account(unsendable.Unsendable()) || !s.Usable() {
		t.Errorf("%+v, usable %v", outcome, s.Usable())
	}
	next := func() *smtpc.Outcome { return s.Send(t.Context(), newJob(1).mail()) }
	next() // is refused
	if outcome := next(); outcome.Err == nil || outcome.Begun {
		t.Errorf("a mail was sent without RSET: %+v", outcome)
	}
	must.Check(t, s.Reset(t.Context()))
	if outcome := next(); outcome.Err != nil {
		t.Error(outcome.Err)
	}
	if !s.Quit() || s.Usable() || next().Err == nil {
		t.Error("a session that has ended is usable")
	}
	if seen := server.Last(t); seen.Mails != 2 || verbs(seen) != "EHLO MAIL RCPT DATA MAIL RSET MAIL RCPT DATA QUIT" {
		t.Errorf("%d mails, server saw %q", seen.Mails, seen.Commands)
	}
}

// The fuse of one mail is not that of the next.
func TestFuseOfEachMail(t *testing.T) {
	j := newJob(1)
	for range 2 {
		server := new(smtptest.Server)
		conn := smtptest.Dial(t, smtptest.Listen(t, server.Serve))
		ctx, blow := context.WithCancelCause(t.Context())
		s := open(t, ctx, conn, j)
		if outcome := s.Send(ctx, newJob(1).mail()); outcome.Err != nil {
			t.Fatal(outcome.Err)
		}
		blow(smtpc.ErrFuse)
		if !s.Usable() {
			t.Fatal("the session has ended with the mail before")
		}
		if outcome := s.Send(t.Context(), newJob(1).mail()); outcome.Err != nil {
			t.Fatal(outcome.Err)
		}
		outcome := s.Send(ctx, newJob(1).mail())
		if !errors.Is(outcome.Err, smtpc.ErrFuse) || outcome.Begun || s.Usable() || s.Quit() {
			t.Errorf("%+v", outcome)
		}
		conn.Close()
		if said := verbs(server.Last(t)); said != "EHLO MAIL RCPT DATA MAIL RCPT DATA" {
			t.Errorf("said after the fuse: %q", said)
		}
	}
}

// A closingConn knows whether it was closed.
type closingConn struct {
	net.Conn
	closed bool
}

func (c *closingConn) Close() error { c.closed = true; return c.Conn.Close() }

// Neither the connection nor TLS on it is closed by the session, however it ends.
func TestOwnerCloses(t *testing.T) {
	for _, f := range []fault{"", closes, says5xx, garbage} {
		server := &smtptest.Server{TLS: serverTLS()}
		if f != "" {
			server.Act = smtptest.At(smtptest.DATA, f.action())
		}
		conn := &closingConn{Conn: smtptest.Dial(t, smtptest.Listen(t, server.Serve))}
		j := newJob(1)
		j.startTLS(conn)
		s := open(t, t.Context(), conn, j)
		s.Send(t.Context(), j.mail())
		if ended := s.Quit(); ended != (f == "" || f == says5xx) {
			t.Errorf("%q: ended %v", f, ended)
		}
		if conn.closed {
			t.Errorf("%q: the connection was closed", f)
		}
	}
}

// A broken transaction ends its writer by deadlines: the connection stays open, and no
// goroutine is left.
func TestBrokenSendLeavesNoWriter(t *testing.T) {
	gone := make(chan struct{})
	defer close(gone)
	address := early(t, "", "250 fine\n", func(*smtptest.Conn) { <-gone })
	conn := &closingConn{Conn: smtptest.Dial(t, address)}
	j := newJob(1)
	j.Message = strings.NewReader(many(32 << 20))
	s := open(t, t.Context(), conn, j)
	before := runtime.NumGoroutine()
	outcome := s.Send(t.Context(), j.mail())
	var protocol *smtpc.ProtocolError
	if !errors.As(outcome.Err, &protocol) || outcome.LastByte {
		t.Errorf("%+v", outcome)
	}
	must.NoneLeft(t, before)
	if conn.closed {
		t.Error("the connection was closed")
	}
}

// A message that comes from a pipe may stall for ever. The end of the context ends the wait
// for it, if the pipe has deadlines.
func TestSilentPipeIsInterrupted(t *testing.T) {
	for _, mode := range []string{lockstep, pipelining} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		defer w.Close()
		if _, err := w.WriteString("Subject: half a mess"); err != nil {
			t.Fatal(err)
		}
		reading := &noticing{File: r, read: make(chan struct{})}
		ctx, blow := context.WithCancelCause(t.Context())
		go func() {
			<-reading.read
			blow(smtpc.ErrFuse)
		}()
		server := &smtptest.Server{Extensions: strings.Fields(mode)}
		j := newJob(1)
		s := open(t, t.Context(), smtptest.Dial(t, smtptest.Listen(t, server.Serve)), j)
		j.Message = reading
		outcome := s.Send(ctx, j.mail())
		if !errors.Is(outcome.Err, smtpc.ErrFuse) || outcome.LastByte || s.Quit() {
			t.Errorf("%q: %+v", mode, outcome)
		}
		if err, _ := reading.err.Load().(error); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%q: reading ended with %v", mode, err)
		}
	}
}

// A noticing pipe says when it is read from for the second time, and what reading ended with.
type noticing struct {
	*os.File
	reads int
	read  chan struct{}
	err   atomic.Value
}

func (n *noticing) Read(b []byte) (int, error) {
	if n.reads++; n.reads == 2 {
		close(n.read)
	}
	c, err := n.File.Read(b)
	if err != nil {
		n.err.Store(err)
	}
	return c, err
}
