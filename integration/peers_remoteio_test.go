package integration

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/integration/peers"
)

// Qmail-remote-io as smtpd-starttls-proxy's qmail-remote runs it: somebody else has
// made the connection and greeted the server, or has had STARTTLS accepted and put a
// TLS client in between.
func TestPeersRemoteIO(t *testing.T) {
	b := newBench(t)
	postfix := peers.Postfix(t, b.tls())
	clear := []string{filepath.Join(b.bin, "qmail-remote-io"), "-t", "60", "127.0.0.1"}
	secure := append(append([]string{filepath.Join(b.bin, "mxf-tlsc")}, tlsOptions...),
		"--", clear[0], "-h", "client.example", "-t", "60", "--", "127.0.0.1")
	for name, c := range map[string]struct{ before, argv []string }{
		"greeted":    {[]string{"HELO client.example"}, clear},
		"inside TLS": {[]string{"EHLO client.example", "STARTTLS"}, secure},
	} {
		for _, l := range letters() {
			if l.utf8 && name == "greeted" {
				continue // plain SMTP has no way to say it
			}
			t.Run(name+"/"+l.name, func(t *testing.T) {
				sender, recipients, accepted := l.envelope(strings.ReplaceAll(name, " ", "-"))
				message := filepath.Join(t.TempDir(), "message")
				put(t, message, l.data)
				network := greeted(t, postfix.Addr, c.before)
				defer network.Close()
				e := must.Get(b.start(network, message, b.environ("CAFILE="+b.ca), append(c.argv[:len(c.argv):len(c.argv)], sender), recipients))(t)
				checkReports(t, e, way{tls: name == "inside TLS"}, recipients)
				if !t.Failed() {
					checkStored(t, postfix, sender, recipients, accepted, same(unixLines(l.data)))
				}
			})
		}
	}
}

// greeted is a connection to addr on which the commands before have been said.
func greeted(t *testing.T, addr string, before []string) *os.File {
	t.Helper()
	network := must.Get(connect(addr))(t)
	in := bufio.NewReader(network)
	replied(t, in)
	for _, command := range before {
		_ = must.Get(io.WriteString(network, command+"\r\n"))(t)
		replied(t, in)
	}
	if n := in.Buffered(); n > 0 {
		t.Fatalf("%d bytes that nobody asked for", n)
	}
	return network
}

// replied reads a positive reply.
func replied(t *testing.T, in *bufio.Reader) {
	t.Helper()
	for {
		line, err := in.ReadString('\n')
		if err != nil || line == "" || line[0] != '2' || len(line) < 4 {
			t.Fatal(fmt.Sprintf("%q", line), err)
		}
		if line[3] != '-' {
			return
		}
	}
}
