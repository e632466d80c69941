package smtpc_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"nightmare.mail/mxf/remote/report"
	"nightmare.mail/mxf/smtpc"
	"nightmare.mail/mxf/smtpc/smtptest"
	"nightmare.mail/mxf/tlsc/tlstest"
)

const (
	peerIP   = "192.0.2.1"
	peerName = "mx.example.org"
	tlsLine  = "\nTLS: TLSv1.3 TLS_AES_128_GCM_SHA256 unverified mx.example.org"
)

// serverTLS is a server's certificate and key, made once.
var serverTLS = sync.OnceValue(func() *tls.Config {
	return tlstest.SelfSigned(nil, func(c *x509.Certificate) { c.DNSNames = []string{peerName} }).Config()
})

// A job is what a program would be told: how to speak, and what to send.
type job struct {
	smtpc.Options
	Sender     string
	Recipients []string
	Quoted     bool
	Message    io.Reader

	TimeoutRemote  time.Duration
	TimeoutConnect time.Duration

	Secure bool        // there is a TLS client, made when the job has a connection
	facts  *report.TLS // for the reports
	tunnel net.Conn    // what TLS was made of
}

// newJob is a job with n recipients and a short message.
func newJob(n int) *job {
	j := &job{
		Options:       smtpc.Options{HeloHost: "client.example.net"},
		Sender:        "sender@example.net",
		Message:       strings.NewReader("Subject: test\n\n.dot\nend\n"),
		TimeoutRemote: 80 * time.Second,
	}
	for i := range n {
		j.Recipients = append(j.Recipients, fmt.Sprintf("r%d@example.org", i))
	}
	return j
}

// startTLS gives the job a TLS client on conn that does not verify.
func (j *job) startTLS(conn net.Conn) {
	j.StartTLS = func(ctx context.Context) (net.Conn, error) {
		c := tls.Client(conn, &tls.Config{ServerName: peerName, InsecureSkipVerify: true})
		if err := c.HandshakeContext(ctx); err != nil {
			return nil, err
		}
		state := c.ConnectionState()
		j.tunnel = c
		j.facts = &report.TLS{
			Version:    strings.Replace(tls.VersionName(state.Version), "TLS ", "TLSv", 1),
			Cipher:     tls.CipherSuiteName(state.CipherSuite),
			ServerName: peerName,
		}
		return c, nil
	}
}

// context returns one with the fuse of the job.
func (j *job) context(ctx context.Context) (context.Context, context.CancelFunc) {
	j.Limits = smtpc.LimitsOf(j.TimeoutRemote, j.TimeoutConnect)
	if j.TimeoutRemote == 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeoutCause(ctx, j.TimeoutRemote, smtpc.ErrFuse)
}

func (j *job) mail() *smtpc.Mail {
	m := smtpc.NewMail(j.Sender, j.Recipients, j.Message, j.Quoted)
	m.Limits, m.Trace = j.Limits, j.Trace
	return m
}

// close closes the connection as its owner does.
func (j *job) close(conn net.Conn, ended bool) {
	if !ended {
		conn.Close()
	}
	if j.tunnel != nil {
		j.tunnel.Close()
	}
	conn.Close()
}

// send sends the job's mail on conn and closes that.
func send(ctx context.Context, conn net.Conn, j *job) *smtpc.Outcome {
	ctx, cancel := j.context(ctx)
	defer cancel()
	if j.Secure {
		j.startTLS(conn)
	}
	outcome, ended := smtpc.Deliver(ctx, conn, &j.Options, j.mail())
	j.close(conn, ended)
	return outcome
}

// A result is what a program around Deliver would show: the exit code, what
// goes to descriptor 1, and the reason on descriptor 2.
type result struct {
	exit    int
	reports string
	reason  string
}

func (r result) String() string {
	return fmt.Sprintf("exit %d, reports %q, reason %q", r.exit, r.reports, r.reason)
}

func deliver(ctx context.Context, conn net.Conn, j *job) result {
	return show(send(ctx, conn, j), j)
}

func show(outcome *smtpc.Outcome, j *job) result {
	stream, err := report.SMTP(outcome, report.Peer{IP: peerIP, Fuse: j.TimeoutRemote, TLS: j.facts})
	var r result
	var blown *report.Fuse
	if errors.As(err, &blown) && blown.Reports != nil {
		stream = *blown.Reports
	}
	if stream.Message.Letter != 0 {
		r.reports = string(stream.Bytes())
	}
	if err != nil {
		r.exit, r.reason = exitCode(err), err.Error()
		if r.exit == 124 {
			r.reason = "" // stands in the report, if there is one
		}
	}
	return r
}

func exitCode(err error) int {
	var none *report.NoTransaction
	var blown *report.Fuse
	switch {
	case errors.As(err, &blown):
		return 124
	case !errors.As(err, &none):
		return 111
	case none.NoTLS():
		return 76
	case errors.Is(err, smtpc.ErrStumbled):
		return 77
	case errors.Is(err, smtpc.ErrEHLOLost):
		return 78
	}
	return 75
}

// The modes of conversation, by what the server offers.
const (
	lockstep   = ""
	pipelining = "PIPELINING"
)

// A fault is what a server does at one point.
type fault string

const (
	closes  fault = "closes"
	resets  fault = "resets"
	stalls  fault = "stalls"
	garbage fault = "hello"
	says2xx fault = "200 fine"
	says3xx fault = "399 more"
	says4xx fault = "451 later"
	says5xx fault = "554-no\n554 never"
	says421 fault = "421 closing"
)

var faults = []fault{closes, resets, stalls, garbage, says2xx, says3xx, says4xx, says5xx, says421}

func (f fault) action() smtptest.Action {
	switch f {
	case closes:
		return smtptest.Action{Close: true}
	case resets:
		return smtptest.Action{Reset: true}
	case stalls:
		return smtptest.Action{Stall: true}
	}
	return smtptest.Action{Reply: string(f), Close: f == says421}
}

// A scenario is one row of the truth table.
type scenario struct {
	mode       string
	secure     bool // STARTTLS is offered and used
	recipients int
	at         smtptest.Point
	fault      fault
}

func (s scenario) String() string {
	return fmt.Sprintf("mode %q secure %v recipients %d: %s %d (in TLS: %v) %s",
		s.mode, s.secure, s.recipients, s.at.Phase, s.at.N, s.at.Secure, s.fault)
}

// The limits of the conversations. An answer has a quarter of the fuse, the one to the
// message a half; what is not to be late has to come in its time on a busy machine.
const (
	fuse         = 20 * time.Second
	answerLimit  = "5"
	messageLimit = "10"
)

// oracle says what is to come of a scenario. It
// knows nothing of how the client goes about it.
func oracle(s scenario) result {
	at := s.at.Phase
	sent := at == smtptest.Message
	begun := sent || at == smtptest.RCPT || at == smtptest.DATA
	grouped := s.mode == pipelining && (at == smtptest.MAIL || at == smtptest.RCPT || at == smtptest.DATA)
	line, dup := "", ""
	if s.at.Secure {
		line = tlsLine
	}
	if sent {
		dup = "Possible duplicate! "
	}
	accepted := s.recipients // recipients with an r before the fault
	switch at {
	case smtptest.RCPT:
		accepted = s.at.N
	case smtptest.DATA, smtptest.Message:
	default:
		accepted = 0
	}
	said := "\nRemote host said: " + string(s.fault)
	recipients := strings.Repeat("r\x00", accepted)

	message := func(text string) result { return result{reports: recipients + text + line + "\n\x00"} }
	// The router reports it, when TLS is down.
	next := func(text string) result { return result{exit: 75, reason: text} }
	noTLS := func(reason string) result {
		return result{exit: 76, reason: "Connected to " + peerIP + " but TLS could not be had: " + reason + ". (#4.7.5)"}
	}
	broken := func(text string) result {
		if begun {
			return message("Z" + text)
		}
		return next(text)
	}
	success := func(recipients string) result {
		line := ""
		if s.secure && (at != smtptest.STARTTLS) && !(at == smtptest.EHLO && !s.at.Secure) {
			line = tlsLine
		}
		return result{reports: recipients + "K" + peerIP + " accepted message.\nRemote host said: 250 accepted" + line + "\n\x00"}
	}
	all := func() string { return strings.Repeat("r\x00", s.recipients) }
	byReply := func(text string) result {
		if s.fault == says5xx {
			return message("D" + text + said)
		}
		return message("Z" + text + said)
	}

	securing := at == smtptest.STARTTLS || at == smtptest.EHLO && s.at.Secure
	lost := s.fault == closes || s.fault == resets || s.fault == stalls
	quiet := "no answer to " + string(at) + " within " + answerLimit + " seconds"
	switch at {
	case smtptest.Greeting:
		quiet = "no greeting within " + answerLimit + " seconds"
	case smtptest.Message:
		quiet = "no answer to the message within " + messageLimit + " seconds"
	}
	died := "Connected to " + peerIP + " but connection died. " + dup + "(#4.4.2)"
	if s.fault == stalls {
		died = "Connected to " + peerIP + " but connection died: " + quiet + ". " + dup + "(#4.4.2)"
	}
	switch {
	case lost && securing && s.fault == stalls:
		return noTLS(quiet)
	case lost && securing && s.at.Secure:
		return noTLS("server ended the connection inside TLS instead of answering EHLO")
	case lost && securing:
		return noTLS("server ended the connection instead of answering STARTTLS")
	case lost && at == smtptest.EHLO:
		return result{exit: 78, reason: died}
	case lost && grouped:
		return result{exit: 77, reason: died}
	case lost:
		return broken(died)
	case s.fault == garbage && securing:
		return noTLS(fmt.Sprintf("it sent %q, which is not a reply", s.fault))
	case s.fault == garbage:
		return broken(fmt.Sprintf("Connected to %s but it sent %q, which is not a reply. %s(#4.5.0)", peerIP, s.fault, dup))
	}
	out := func(to string) result {
		if securing {
			return noTLS(fmt.Sprintf("it answered %q to %s", s.fault, to))
		}
		return broken(fmt.Sprintf("Connected to %s but it answered %q to %s. %s(#4.5.0)", peerIP, s.fault, to, dup))
	}
	refusal := s.fault == says4xx || s.fault == says5xx || s.fault == says421

	switch at {
	case smtptest.Greeting:
		return next("Connected to " + peerIP + " but greeting failed." + said)
	case smtptest.EHLO:
		switch s.fault {
		case says5xx:
			return success(all())
		case says4xx, says421:
			if securing {
				r := noTLS("it refused EHLO inside TLS")
				r.reason += said
				return r
			}
			return next("Connected to " + peerIP + " but my name was rejected." + said)
		}
		return out("EHLO")
	case smtptest.STARTTLS:
		switch s.fault {
		case says5xx, says4xx:
			return success(all())
		case says421:
			r := noTLS("STARTTLS was refused")
			r.reason += said
			return r
		}
		return out("STARTTLS")
	case smtptest.MAIL:
		switch {
		case refusal:
			return byReply("Connected to " + peerIP + " but sender was rejected.")
		case s.fault == says2xx:
			return success(all())
		}
		return out("MAIL")
	case smtptest.RCPT:
		dislike := peerIP + " does not like recipient." + said + "\n\x00"
		switch {
		case s.fault == says2xx:
			return success(all())
		case s.fault == says3xx:
			return out("RCPT")
		case s.fault == says421:
			recipients += strings.Repeat("s"+dislike, s.recipients-s.at.N)
			if accepted > 0 {
				return message("ZConnected to " + peerIP + " but connection died. " + dup + "(#4.4.2)")
			}
		default:
			letter := "s"
			if s.fault == says5xx {
				letter = "h"
			}
			recipients += letter + dislike + strings.Repeat("r\x00", s.recipients-s.at.N-1)
			if s.recipients > 1 {
				return success(recipients)
			}
		}
		if s.fault == says5xx {
			return message("DGiving up on " + peerIP + ".")
		}
		return message("ZGiving up on " + peerIP + ".")
	case smtptest.DATA:
		switch {
		case s.fault == says3xx:
			return success(all())
		case refusal:
			return byReply(peerIP + " failed on DATA command.")
		}
		return out("DATA")
	case smtptest.Message:
		switch {
		case s.fault == says2xx:
			r := success(all())
			r.reports = strings.Replace(r.reports, "250 accepted", string(s.fault), 1)
			return r
		case refusal:
			return byReply(peerIP + " failed after I sent the message.")
		}
		return out("the message")
	}
	panic("a phase that the oracle does not know")
}

// scenarios are all rows of the table.
func scenarios() []scenario {
	var all []scenario
	for _, mode := range []string{lockstep, pipelining} {
		for _, secure := range []bool{false, true} {
			for _, n := range []int{1, 3} {
				for _, at := range points(mode, secure, n) {
					for _, f := range faults {
						if f == resets && at.Phase == smtptest.Greeting {
							continue // net.Dial can fail with it
						}
						all = append(all, scenario{mode, secure, n, at, f})
					}
				}
			}
		}
	}
	return all
}

func points(mode string, secure bool, recipients int) []smtptest.Point {
	p := []smtptest.Point{{Phase: smtptest.Greeting}, {Phase: smtptest.EHLO}}
	if secure {
		p = append(p, smtptest.Point{Phase: smtptest.STARTTLS}, smtptest.Point{Phase: smtptest.EHLO, Secure: true})
	}
	p = append(p, smtptest.Point{Phase: smtptest.MAIL, Secure: secure})
	for i := range recipients {
		p = append(p, smtptest.Point{Phase: smtptest.RCPT, N: i, Secure: secure})
	}
	return append(p, smtptest.Point{Phase: smtptest.DATA, Secure: secure}, smtptest.Point{Phase: smtptest.Message, Secure: secure})
}

// doing is the Act of a server that does one thing at one point.
func doing(at smtptest.Point, action smtptest.Action) func(smtptest.Point) smtptest.Action {
	return func(p smtptest.Point) smtptest.Action {
		if p == at {
			return action
		}
		return smtptest.Action{}
	}
}

// run plays a scenario, and returns what came of it and what the server saw.
func (s scenario) run(t *testing.T) (result, *smtptest.Conversation) {
	server := &smtptest.Server{
		Extensions: strings.Fields(s.mode + " 8BITMIME"),
		Act:        doing(s.at, s.fault.action()),
	}
	job := newJob(s.recipients)
	job.TimeoutRemote, job.TimeoutConnect = fuse, fuse/4
	if s.fault != stalls {
		job.TimeoutRemote, job.TimeoutConnect = 0, 0
	}
	if job.Secure = true; s.secure {
		server.TLS = serverTLS()
	}
	return talk(t, server, job)
}

// maxAtOnce bounds the conversations under way, those aside that only wait.
const maxAtOnce = 32

// TestTruth drives the client against a server that goes wrong at each point in
// each way, and compares everything that is reported with the oracle.
func TestTruth(t *testing.T) {
	t.Parallel()
	serverTLS()
	var running sync.WaitGroup
	turn := make(chan struct{}, maxAtOnce)
	for _, s := range scenarios() {
		running.Go(func() {
			if s.fault != stalls {
				turn <- struct{}{}
				defer func() { <-turn }()
			}
			got, seen := s.run(t)
			if want := oracle(s); got != want {
				t.Errorf("%v\n got %v\nwant %v\nserver saw %q", s, got, want, seen.Commands)
			}
			delivered := strings.Contains(got.reports, "\x00K")
			bounced := strings.HasPrefix(got.reports, "D") || strings.Contains(got.reports, "\x00D")
			if delivered && !seen.Accepted || bounced && seen.Accepted {
				t.Errorf("%v\n reported %q, accepted: %v", s, got.reports, seen.Accepted)
			}
			if seen.Err != nil && s.fault != stalls && s.fault != resets && s.fault != garbage {
				var lost net.Error
				if !errors.As(seen.Err, &lost) {
					t.Errorf("%v\n server: %v", s, seen.Err)
				}
			}
		})
	}
	running.Wait()
	t.Logf("%d conversations", len(scenarios()))
}

// TestReportsCanBeRead holds what Deliver returns against the parser of the
// router.
func TestReportsCanBeRead(t *testing.T) {
	for _, s := range scenarios() {
		r := oracle(s)
		if r.reports == "" {
			continue
		}
		p := report.Parser{Recipients: s.recipients}
		for text := range strings.SplitSeq(strings.TrimSuffix(r.reports, "\x00"), "\x00") {
			p.Add([]byte(text))
		}
		if _, err := p.Stream(); err != nil {
			t.Errorf("%v: %v", s, err)
		}
	}
}
