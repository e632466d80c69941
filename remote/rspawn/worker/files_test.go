package worker_test

import (
	"strings"
	"testing"

	"nightmare.mail/mxf/smtpc/smtptest"
)

// A change of a control file is in force for the next delivery, and a malformed one concerns those that come
// while it is so.
func TestFiles(t *testing.T) {
	first, second := (&relay{}).listen(t), (&relay{}).listen(t)
	h := newHost(t, first.at, nil)
	for n := range 10 {
		to := []*relay{first, second}[n%2]
		h.control("smtproutes", ":"+to.at+"\n")
		if a := h.send("r@example.org"); a[0] != 'K' {
			t.Fatal(a)
		}
		if !strings.Contains(h.traced(), " smtproutes line 1") {
			t.Error(h.traced())
		}
		h.control("connectionlimits", "nonsense\n")
		if a := h.send("r@example.org"); a[0] != 'Z' || !strings.Contains(a, "control/connectionlimits:1") {
			t.Error(a)
		}
		h.control("connectionlimits", ":20\n")
	}
	if first.came.Load() != 1 || second.came.Load() != 1 {
		t.Errorf("%d and %d connections\n%s", first.came.Load(), second.came.Load(), h.traced())
	}
}

// A delivery keeps the settings that it began with, also where it has to wait.
func TestFiles_keeps(t *testing.T) {
	at, more := make(chan struct{}, 10), make(chan struct{})
	r := (&relay{Server: smtptest.Server{Answer: held(smtptest.MAIL, at, more)}}).listen(t)
	h := newHost(t, r.at, nil)
	id := h.deliver(h.message(text), "r@example.org")
	<-at
	h.control("me", "two words\n")
	close(more)
	if a := h.answerTo(id); a[0] != 'K' {
		t.Error(a)
	}
}
