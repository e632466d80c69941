package integration

import (
	"fmt"
	"strings"
	"testing"

	"nightmare.mail/mxf/integration/peers"
)

// QMTP carries every byte, so here the message has to arrive as it is.
func TestPeersQMTP(t *testing.T) {
	b := newBench(t)
	mailfront := peers.Mailfront(t)
	stunnel := peers.Stunnel(t, mailfront, b.tls())
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	set := []letter{
		{name: "empty", data: nil},
		{name: "every byte, no last newline", data: every},
	}
	for _, l := range letters() {
		// Mailfront answers once for all recipients together.
		if l.recipients <= 1 {
			set = append(set, l)
		}
	}
	for _, by := range []struct {
		server *peers.Server
		way    way
	}{
		{mailfront, b.clear("mxf-remote-qmtpc")},
		{stunnel, b.secure("mxf-tlsc", "mxf-remote-qmtpc")},
	} {
		for _, l := range set {
			t.Run(by.way.name+"/"+l.name, func(t *testing.T) { b.delivers(t, by.server, by.way, l, same(l.data)) })
		}
	}
}

// A refusal is told, and nothing is stored.
func TestPeersQMTPRefused(t *testing.T) {
	b := newBench(t)
	mailfront := peers.Mailfront(t)
	e := b.run(t, b.clear("mxf-remote-qmtpc"), mailfront.Addr, []byte("x\n"), "s@client.example", []string{"refused@" + peers.Domain})
	if len(e.reports) != 2 || !strings.HasPrefix(e.reports[0], "h127.0.0.1 does not like recipient.\nRemote host said: ") ||
		e.reports[1] != "DGiving up on 127.0.0.1." {
		t.Errorf("reports %q", e.reports)
	}
	if left := mailfront.Stored(t, 0); len(left) != 0 {
		t.Errorf("stored: %q", left)
	}
}

// qmtpfront-echo counts what it has read and says so, or falls over it: then
// nobody knows what it has done with the message.
func TestPeersQMTPFrontEcho(t *testing.T) {
	b := newBench(t)
	echo := peers.QMTPFrontEcho(t)
	for _, size := range []int{0, 1, 1000, 10 << 20} {
		e := b.run(t, b.clear("mxf-remote-qmtpc"), echo.Addr, []byte(strings.Repeat("x", size)), "", []string{"a@" + peers.Domain})
		got := fmt.Sprintf("exit %d, %q, %q", e.status, e.reports, e.stderr)
		accepted := fmt.Sprintf(`exit 0, ["r" "K127.0.0.1 accepted message.\nRemote host said: Received %d bytes."], ""`, size)
		const died = `exit 0, ["ZConnected to 127.0.0.1 but connection died. Possible duplicate! (#4.4.2)"], ""`
		const left = `exit 75, [], "Connected to 127.0.0.1 but connection died. (#4.4.2)\n"`
		if got != accepted && (size == 0 || got != died && (size < 1<<20 || got != left)) {
			t.Errorf("%d bytes: %s", size, got)
		}
	}
}

// A TLS end with a certificate that we do not trust, or for another name, gets
// nothing: the TLS client never starts the protocol program.
func TestPeersQMTPSUntrusted(t *testing.T) {
	b := newBench(t)
	mailfront := peers.Mailfront(t)
	stunnel := peers.Stunnel(t, mailfront, b.tls())
	for what, w := range b.strangers("mxf-tlsc", "mxf-remote-qmtpc") {
		e := b.run(t, w, stunnel.Addr, []byte("x\n"), "", []string{"a@" + peers.Domain})
		if e.status != 97 || len(e.reports) != 0 || !strings.HasPrefix(e.stderr, "mxf-tlsc: fatal: ") {
			t.Errorf("%s: exit %d, reports %q, standard error %q", what, e.status, e.reports, e.stderr)
		}
	}
	if left := mailfront.Stored(t, 0); len(left) != 0 {
		t.Errorf("stored: %q", left)
	}
}

// A server that wants to know who we are is shown a certificate.
func TestPeersQMTPSClientCertificate(t *testing.T) {
	b := newBench(t)
	mailfront := peers.Mailfront(t)
	stunnel := peers.Stunnel(t, mailfront, b.demanding())
	b.delivers(t, stunnel, b.known("mxf-tlsc", "mxf-remote-qmtpc"), letters()[0], same(letters()[0].data))
	b.refusesAnonymous(t, stunnel, b.secure("mxf-tlsc", "mxf-remote-qmtpc"))
}
