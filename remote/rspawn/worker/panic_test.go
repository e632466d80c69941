package worker_test

import (
	"runtime"
	"strings"
	"testing"

	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/smtpc/smtptest"
)

// A panic ends its own delivery, wherever it comes, and nothing is left behind: no connection, no place in
// the line.
func TestPanic(t *testing.T) {
	for _, line := range []string{
		"candidate 1", "connect ", "attempt ", "< 220 ", "> MAIL ", "< 354 ", "> .", "< 250 accepted", "reuse ", "report ", "> QUIT",
	} {
		t.Run(line, func(t *testing.T) {
			t.Parallel()
			r := (&relay{Server: smtptest.Server{Extensions: []string{"PIPELINING"}}}).listen(t)
			h := setup{hears: func(l string) {
				if strings.HasPrefix(l, line) {
					panic("no ink")
				}
			}}.newHost(t, r.at, map[string]string{"connectionlimits": ":1\n", "connectionwait": "0"})
			for range 3 {
				a := h.send("r@example.org")
				if a[0] != 'K' && (a[0] != 'Z' || !strings.Contains(a, "no ink")) {
					t.Errorf("%s\n%s", a, h.traced())
				}
				// The answer may come before the end.
				must.Until(t, "the end of what it had", func() bool { return h.Counters().Busy == 0 })
			}
			h.Stop()
			h.Wait()
			must.Until(t, "the ends of connections", func() bool {
				runtime.GC() // a connection that is nobody's, because a panic came while it was made
				return len(r.Conversations()) == int(r.came.Load())
			})
		})
	}
}
