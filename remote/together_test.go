package remote

import (
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"nightmare.mail/mxf/control"
	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/remote/report"
)

// deliveriesTogether is how many deliveries one Router carries out at a time here.
const deliveriesTogether = 300

// Hundreds of deliveries share a Router, its resolver and its TLS client. Each message
// arrives once, with its own envelope, over verified TLS.
func TestRouter_shared(t *testing.T) {
	h := newHouse(t, control.SMTPProgram)
	// No limit is what this is about: on a slow machine three hundred conversations take long.
	s := h.router.Settings
	s.TimeoutDNS, s.TimeoutConnect, s.TimeoutRemote = time.Hour, time.Hour, time.Hour
	folder := t.TempDir()
	var all sync.WaitGroup
	for n := range deliveriesTogether {
		all.Go(func() {
			path := filepath.Join(folder, fmt.Sprint(n))
			text := fmt.Sprintf("Subject: %d\n\nbody of %d\n", n, n)
			must.Write(t, path, text)
			message := must.Open(t, path)
			job := &Job{Host: "example.org", Sender: fmt.Sprintf("s%d@example.net", n), Recipients: []string{fmt.Sprintf("r%d@example.org", n)},
				Message: message, Number: n, Trace: func(string) {}}
			stream := Deliver(t.Context(), job, func() (*Router, error) { return h.router, nil })
			if stream.Message.Letter != report.Delivered || !strings.Contains(stream.Message.Text, " verified "+serverName) {
				t.Errorf("%d: %q", n, stream.Bytes())
			}
			if at, _ := message.Seek(0, io.SeekCurrent); at != int64(len(text)) {
				t.Errorf("%d: read to %d of %d", n, at, len(text))
			}
		})
	}
	all.Wait()
	must.Until(t, "all messages", func() bool { return h.taken() >= deliveriesTogether })
	seen := make(map[string]bool)
	for _, c := range h.server.Conversations() {
		if !c.Accepted {
			continue // another server's MX
		}
		var n int
		if _, err := fmt.Sscanf(string(c.Message), "Subject: %d\r\n", &n); err != nil || seen[string(c.Message)] {
			t.Errorf("%q has come before, or is nobody's: %v", c.Message, err)
		}
		seen[string(c.Message)] = true
		envelope := strings.Join(c.Commands, " ")
		if !strings.Contains(envelope, fmt.Sprintf("MAIL FROM:<s%d@example.net>", n)) || !strings.Contains(envelope, fmt.Sprintf("RCPT TO:<r%d@example.org>", n)) {
			t.Errorf("message %d came with %q", n, envelope)
		}
	}
}
