package tlsc

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/integration/peers"
	"nightmare.mail/mxf/tlsc/tlstest"
)

// Setup: servers of OpenSSL and GnuTLS, which echo lines; our client, whose judge are trust
// anchors.
//
// Test: each resumes our sessions, also where it takes a ticket only once. Where it gives
// none, or one that is not to be kept, everything goes on as without.
func TestResumption_peers(t *testing.T) {
	root := tlstest.NewAuthority("root")
	leaf := root.Leaf(nil, host)
	cert, key := tlstest.File(t, "cert.pem", leaf.PEM()), tlstest.File(t, "key.pem", leaf.KeyPEM())
	anchors := tlstest.Bundle(t, root)
	openssl := func(options ...string) []string {
		return append([]string{"openssl", "s_server", "-accept", "127.0.0.1:PORT", "-cert", cert, "-key", key, "-rev", "-quiet"}, options...)
	}
	gnutls := func(priority string, options ...string) []string {
		return append([]string{"gnutls-serv", "--echo", "--quiet", "--port", "PORT", "--disable-client-cert", "--x509certfile", cert, "--x509keyfile", key, "--priority", priority}, options...)
	}
	for _, tt := range []struct {
		name, version string
		command       []string
		resumes       bool
		lifetime      bool // the server says one in the clear
	}{
		{"OpenSSL", "TLSv1.3", openssl("-tls1_3"), true, false},
		{"OpenSSL", "TLSv1.2", openssl("-tls1_2"), true, true},
		{"OpenSSL, a ticket once", "TLSv1.3", openssl("-tls1_3", "-no_ticket"), true, false},
		{"OpenSSL, without tickets", "TLSv1.2", openssl("-tls1_2", "-no_ticket"), false, false},
		{"OpenSSL, no tickets at all", "TLSv1.3", openssl("-tls1_3", "-num_tickets", "0"), false, false},
		{"GnuTLS", "TLSv1.3", gnutls("NORMAL"), true, false},
		{"GnuTLS", "TLSv1.2", gnutls("NORMAL:-VERS-ALL:+VERS-TLS1.2"), true, true},
		{"GnuTLS, not extended", "TLSv1.2", gnutls("NORMAL:-VERS-ALL:+VERS-TLS1.2:%NO_SESSION_HASH"), false, true},
		{"GnuTLS, without tickets", "TLSv1.3", gnutls("NORMAL", "--noticket"), false, false},
	} {
		t.Run(tt.name+" "+tt.version, func(t *testing.T) {
			port := startPeer(t, tt.command)
			client := &Client{Anchors: Anchors{File: anchors}, Sessions: NewSessions(nil)}
			for i := range 4 {
				c := echo(t, client, port)
				f := c.Facts()
				if f.Version != tt.version || !f.Verdict.Good() {
					t.Errorf("%+v", f)
				}
				if want := i > 0 && tt.resumes; f.Resumed != want {
					t.Errorf("connection %d: resumed %v, want %v", i, f.Resumed, want)
				}
				if said := c.wire.plain.lifetime; i == 0 && (said > 0) != tt.lifetime {
					t.Errorf("lifetime %v", said)
				}
			}
		})
	}
}

// startPeer starts a server, and waits until it takes connections.
func startPeer(t *testing.T, command []string) (port string) {
	t.Helper()
	path, err := exec.LookPath(command[0])
	if err != nil {
		peers.Missing(t, peers.Package(command[0]), "%s is not installed", command[0])
	}
	listener := must.Get(net.Listen("tcp", "127.0.0.1:0"))(t)
	_, port, _ = net.SplitHostPort(listener.Addr().String())
	listener.Close()
	var args []string
	for _, arg := range command[1:] {
		args = append(args, strings.ReplaceAll(arg, "PORT", port))
	}
	cmd := exec.Command(path, args...)
	cmd.Env = append(cmd.Environ(), "OPENSSL_CONF=/dev/null")
	stdin := must.Get(cmd.StdinPipe())(t) // held open: an end is a command to quit
	must.OK(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); stdin.Close(); _ = cmd.Wait() })
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		conn, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err == nil {
			conn.Close()
			return port
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// echo makes a connection, and has a line echoed.
func echo(t *testing.T, client *Client, port string) *Conn {
	t.Helper()
	conn := must.Get(net.Dial("tcp", "127.0.0.1:"+port))(t)
	defer conn.Close()
	d := enforced(host)
	d.Session = "peer"
	c := must.Get(shake(t, conn, client, d))(t)
	must.OK(t, c.SetDeadline(time.Now().Add(patience)))
	must.Get(fmt.Fprintln(c, "anna"))(t)
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil || strings.TrimSpace(line) != "anna" {
		t.Errorf("%q, %v", line, err)
	}
	must.OK(t, c.CloseWrite())
	_, _ = io.Copy(io.Discard, c)
	return c
}
