package smtpc_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"nightmare.mail/mxf/smtpc/smtptest"
)

// A server that never stops answering, a byte at a time, has no more time than one
// that says nothing: the limit is that of the whole answer.
func TestAnswerThatTrickles(t *testing.T) {
	t.Parallel()
	var running sync.WaitGroup
	for _, c := range []struct {
		before []string // the replies that come at once
		exit   int
		want   string
	}{
		{nil, 75, "connection died: no greeting within 2 seconds. (#4.4.2)"},
		{[]string{"220 a\n"}, 78, "connection died: no answer to EHLO within 2 seconds. (#4.4.2)"},
		{[]string{"220 a\n", "250 a\n"}, 75, "connection died: no answer to MAIL within 2 seconds. (#4.4.2)"},
		{[]string{"220 a\n", "250 a\n", "250 sender\n"}, 0, "connection died: no answer to RCPT within 2 seconds. (#4.4.2)"},
		{[]string{"220 a\n", "250 a\n", "250 sender\n", "250 recipient\n", "354 go\n"}, 0,
			"connection died: no answer to the message within 4 seconds. Possible duplicate! (#4.4.2)"},
	} {
		running.Go(func() {
			gone := make(chan struct{})
			address := smtptest.Listen(t, func(s *smtptest.Conn) {
				for i, reply := range c.before {
					if i > 0 {
						_, _ = s.Line()
					}
					s.Say(reply)
				}
				if len(c.before) > 0 {
					_, _ = s.Line()
				}
				for trickling := true; trickling; {
					s.Say("2")
					select {
					case <-gone:
						trickling = false
					case <-time.After(50 * time.Millisecond):
					}
				}
			})
			conn := smtptest.Dial(t, address)
			job := newJob(1)
			job.TimeoutRemote = 8 * time.Second
			got := deliver(t.Context(), conn, job)
			close(gone)
			if got.exit != c.exit || !strings.Contains(got.reason+got.reports, c.want) || strings.Contains(got.reports, "K") {
				t.Errorf("after %q: %v", c.before, got)
			}
		})
	}
	running.Wait()
}
