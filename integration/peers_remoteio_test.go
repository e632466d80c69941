package integration

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"nightmare.mail/mxf/integration/lab"
	"nightmare.mail/mxf/integration/peers"
)

// Qmail-remote-io as smtpd-starttls-proxy's qmail-remote runs it: somebody else has
// made the connection and greeted the server, or has had STARTTLS accepted and put a
// TLS client in between.
func TestPeersRemoteIO(t *testing.T) {
	b := newBench(t)
	postfix := peers.Postfix(t, peers.Options{Certificate: b.certificate, Key: b.key})
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
				e := b.relayed(t, postfix.Addr, c.before, append(c.argv[:len(c.argv):len(c.argv)], sender), recipients, l.data)
				checkReports(t, e, way{tls: name == "inside TLS"}, recipients)
				if t.Failed() {
					return
				}
				copies := postfix.StoredWhen(t, func(all []peers.Message) bool { return len(arrived(all, accepted)) == len(accepted) })
				for _, m := range copies {
					if addressedTo(m, recipients) && (m.Sender != sender || !bytes.Equal(m.Data, unixLines(l.data))) {
						t.Errorf("stored from %q: %d bytes, not those that were sent", m.Sender, len(m.Data))
					}
				}
			})
		}
	}
}

// relayed says the commands before on a connection to addr, and has argv with
// recipients go on from there.
func (b *bench) relayed(t *testing.T, addr string, before, argv, recipients []string, data []byte) (e ending) {
	t.Helper()
	network, err := connect(addr)
	ok(t, err)
	defer network.Close()
	in := bufio.NewReader(network)
	replied(t, in)
	for _, command := range before {
		_, err := io.WriteString(network, command+"\r\n")
		ok(t, err)
		replied(t, in)
	}
	if n := in.Buffered(); n > 0 {
		t.Fatalf("%d bytes that nobody asked for", n)
	}
	ctx, cancel := context.WithTimeout(t.Context(), peerPatience)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], append(argv[1:], recipients...)...)
	cmd.Env = append(b.environ("CAFILE="+b.ca), "PATH="+os.Getenv("PATH"), "GOCOVERDIR="+coverageIfAny(t))
	message := filepath.Join(t.TempDir(), "message")
	ok(t, os.WriteFile(message, data, 0o600))
	file, err := os.Open(message)
	ok(t, err)
	defer file.Close()
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = file, &out, &errs
	cmd.ExtraFiles = []*os.File{nil, nil, nil, network, network}
	err = cmd.Run()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	e.status, e.stderr = cmd.ProcessState.ExitCode(), errs.String()
	if e.reports, err = lab.Reports(out.Bytes(), len(recipients)); err != nil {
		t.Error(err)
	}
	return e
}

// replied reads a reply that is to be good.
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
