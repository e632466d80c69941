package smtpc_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"nightmare.mail/mxf/smtpc/smtptest"
)

// A server that never stops answering, a byte at a time, has no more time than one
// that says nothing: the fuse blows in the midst of a reply too.
func TestFuseWhileTheServerTrickles(t *testing.T) {
	t.Parallel()
	const fuse, slack = time.Second, 3 * time.Second
	var running sync.WaitGroup
	for _, c := range []struct {
		before []string // the replies that come at once
		want   string
	}{
		{nil, ""},
		{[]string{"220 a\n"}, ""},
		{[]string{"220 a\n", "250 a\n"}, ""},
		{[]string{"220 a\n", "250 a\n", "250 sender\n"}, "Z"},
		{[]string{"220 a\n", "250 a\n", "250 sender\n", "250 recipient\n", "354 go\n"}, "r\x00Z"},
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
			job.TimeoutRemote = fuse
			begin := time.Now()
			got := deliver(t.Context(), conn, job)
			took := time.Since(begin)
			close(gone)
			if got.exit != 124 || !strings.HasPrefix(got.reports, c.want) || strings.Contains(got.reports, "K") {
				t.Errorf("after %q: %v", c.before, got)
			}
			if took < fuse || took > fuse+slack {
				t.Errorf("after %q: it took %v", c.before, took)
			}
		})
	}
	running.Wait()
}
