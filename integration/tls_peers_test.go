package integration

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"nightmare.mail/mxf/integration/lab"
	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/tlsc/tlstest"
)

// Setup: a TLS server that others wrote, on loopback, and ucspi-tcp's tcpclient
// as the UCSPI client in front:
//
//	tcpclient 127.0.0.1 port mxf-tlsc -k name sh -c '...'
//
// Test: the handshake succeeds or fails as it should and lines go both ways.

// A peer is a server that runs.
type peer struct {
	t    *testing.T
	port string
	in   io.WriteCloser // its standard input
	out  *bufio.Reader  // what it says
	end  func()
}

// runPeer starts a server and waits for the line that says where it listens; its
// first group is the port, if it has one.
func runPeer(t *testing.T, ready, port string, command ...string) *peer {
	t.Helper()
	needProgram(t, "tcpclient") // it is run in other goroutines too, which cannot skip
	cmd := exec.Command(needProgram(t, command[0]), command[1:]...)
	// The distribution's policy would forbid what is tested here.
	cmd.Env = append(os.Environ(), "OPENSSL_CONF=/dev/null")
	r, w := must.Pipe(t)
	cmd.Stdout, cmd.Stderr = w, w
	in := must.Get(cmd.StdinPipe())(t)
	must.OK(t, cmd.Start())
	w.Close()
	watch := time.AfterFunc(tlsLimit, func() { _ = cmd.Process.Kill() })
	p := &peer{t: t, port: port, in: in, out: bufio.NewReader(r)}
	p.end = func() {
		watch.Stop()
		in.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	t.Cleanup(p.end)
	said := p.until(ready)
	if port == "" {
		p.port = said[1]
	}
	return p
}

// until reads what the server says up to a line that matches.
func (p *peer) until(pattern string) []string {
	p.t.Helper()
	want := regexp.MustCompile(pattern)
	var seen strings.Builder
	for {
		line, err := p.out.ReadString('\n')
		seen.WriteString(line)
		if m := want.FindStringSubmatch(strings.TrimRight(line, "\r\n")); m != nil {
			return m
		}
		if err != nil {
			p.t.Fatalf("%v before %q, after:\n%s", err, pattern, seen.String())
		}
	}
}

// freePort returns a port of 127.0.0.1 that was free a moment ago, for servers
// that cannot be given port 0.
func freePort(t *testing.T) string {
	l := must.Get(net.Listen("tcp", "127.0.0.1:0"))(t)
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// sServer starts openssl s_server.
func (rig *tlsRig) sServer(t *testing.T, options ...string) *peer {
	t.Helper()
	needProgram(t, "openssl")
	// It does not flush all that it prints.
	return runPeer(t, `^ACCEPT .*:(\d+)`, "", append([]string{"stdbuf", "-oL", "openssl", "s_server", "-accept", "127.0.0.1:0",
		"-cert", rig.cert, "-key", rig.key, "-cert_chain", rig.ca}, options...)...)
}

// tcpclient runs a shell script inside TLS. That it is installed was seen before the
// server was started.
func (rig *tlsRig) tcpclient(t *testing.T, port string, environ []string, script string, options ...string) result {
	t.Helper()
	args := append([]string{"-RHl0", "127.0.0.1", port, filepath.Join(rig.bin, "mxf-tlsc")}, options...)
	cmd := exec.Command("tcpclient", append(args, "--", "sh", "-c", script)...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "CAFILE=" + rig.ca}, environ...)
	cmd.WaitDelay = tlsLimit // for a tunnel that outlives its program
	watch := time.AfterFunc(tlsLimit, func() { _ = cmd.Process.Kill() })
	defer watch.Stop()
	got, _ := finish(cmd)
	return got
}

// oneLine says something and repeats, with the facts, what is answered.
const oneLine = `printf 'hello\n' >&7; read -r answer <&6; echo "$answer $SSL_PROTOCOL $SSL_PEER_VERIFIED"`

func (r result) want(t *testing.T, out string) {
	t.Helper()
	if r.status != 0 || r.out != out+"\n" || r.err != "" {
		t.Errorf("%+v, want %q", r, out)
	}
}

func (r result) fails(t *testing.T, status int, line string) {
	t.Helper()
	if ok, err := regexp.MatchString(`\Amxf-tlsc: fatal: `+line+`\n\z`, r.err); !ok || err != nil || r.status != status || r.out != "" {
		t.Errorf("%+v, want %d and %s", r, status, line)
	}
}

func testOpenSSL(t *testing.T, rig *tlsRig) {
	for _, version := range []string{"1.2", "1.3"} {
		// Session tickets come after the handshake (RFC 8446 section 4.6.1).
		p := rig.sServer(t, "-tls"+strings.Replace(version, ".", "_", 1), "-rev", "-num_tickets", "4")
		for _, option := range []string{"-S", "-s"} {
			got := rig.tcpclient(t, p.port, nil, oneLine, option, "-v0", "-k", tlsName)
			got.want(t, "olleh TLSv"+version+" yes")
		}
		rig.tcpclient(t, p.port, nil, oneLine, "-k", "other.example").fails(t, 97, `certificate is for "mx.example.org", not "other.example"`)
		rig.tcpclient(t, p.port, nil, oneLine, "-S", "--no-verify-cert", "-k", "other.example").want(t,
			"olleh TLSv"+version+` no:certificate is for "mx.example.org", not "other.example"`)
		p.end()
	}
}

func testOpenSSLOld(t *testing.T, rig *tlsRig) {
	for flag, version := range map[string]string{"-tls1": "TLSv1", "-tls1_1": "TLSv1.1"} {
		p := rig.sServer(t, flag, "-rev", "-cipher", "ALL:@SECLEVEL=0")
		rig.tcpclient(t, p.port, nil, oneLine, "-S", "--no-verify-cert", "-k", tlsName).want(t, "olleh "+version+" yes")
		rig.tcpclient(t, p.port, nil, oneLine, "-k", tlsName).fails(t, 97, `server speaks .*`)
		p.end()
	}
}

// What crypto/tls refuses by itself, from a server that is not crypto/tls.
func testOpenSSLWeak(t *testing.T, rig *tlsRig) {
	needProgram(t, "openssl")
	key, cert := filepath.Join(t.TempDir(), "key"), filepath.Join(t.TempDir(), "cert")
	const lowest = "ALL:@SECLEVEL=0"
	for bits, server := range map[string]struct {
		option []string
		reason string
	}{
		"2048": {[]string{"-sigalgs", "RSA+SHA1"}, "server signs the handshake with SHA-1"},
		"512":  {[]string{"-sigalgs", "RSA+SHA256"}, "certificate has an RSA key of 512 bits, fewer than 1024"},
	} {
		run := exec.Command("openssl", "req", "-x509", "-newkey", "rsa:"+bits, "-nodes", "-days", "2",
			"-subj", "/CN="+tlsName, "-addext", "subjectAltName=DNS:"+tlsName, "-keyout", key, "-out", cert)
		if out, err := run.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		options := append([]string{"-tls1_2", "-rev", "-cipher", lowest, "-cert", cert, "-key", key}, server.option...)
		p := rig.sServer(t, options...)
		rig.tcpclient(t, p.port, []string{"CAFILE=" + cert}, oneLine, "-S", "--no-verify-cert", "-k", tlsName).want(t, "olleh TLSv1.2 no:"+server.reason)
		rig.tcpclient(t, p.port, []string{"CAFILE=" + cert}, oneLine, "-k", tlsName).fails(t, 97, server.reason)
		p.end()
	}
}

// K has the server ask for new keys in both directions (RFC 8446 section 4.6.3).
func testOpenSSLKeyUpdate(t *testing.T, rig *tlsRig) {
	p := rig.sServer(t, "-tls1_3")
	done := make(chan result, 1)
	go func() {
		done <- rig.tcpclient(t, p.port, nil, `printf 'first\n' >&7; for i in 1 2 3 4; do read -r a <&6; printf 'to %s\n' "$a" >&7; echo "$a"; done`, "-S", "-k", tlsName)
	}()
	p.until(`^first$`)
	for i, command := range []string{"K", "k", "K", "K"} {
		// Of what it reads at once, s_server looks at the first letter only.
		_, _ = fmt.Fprintf(p.in, "%s\n", command)
		p.until(`^SSL_do_handshake -> 1$`)
		_, _ = fmt.Fprintf(p.in, "line%d\n", i)
		p.until(fmt.Sprintf(`^to line%d$`, i))
	}
	if got := <-done; got.out != "line0\nline1\nline2\nline3\n" || got.status != 0 || got.err != "" {
		t.Errorf("%+v", got)
	}
}

// A server may still ask for a renegotiation (RFC 5246 section 7.4.1.1).
func testOpenSSLRenegotiation(t *testing.T, rig *tlsRig) {
	p := rig.sServer(t, "-tls1_2")
	done := make(chan result, 1)
	go func() {
		done <- rig.tcpclient(t, p.port, nil, `printf 'first\n' >&7; read -r a <&6; echo "$a" >&7; cat <&6; wait`, "-S", "-k", tlsName)
	}()
	p.until(`^first$`)
	_, _ = io.WriteString(p.in, "line\n")
	p.until(`^line$`)
	_, _ = io.WriteString(p.in, "r\n")
	if got := <-done; got.status != 0 || got.out != "" || got.err != "mxf-tlsc: fatal: server asks for another handshake inside the connection (renegotiation), which is not done\n" {
		t.Errorf("%+v", got)
	}
}

func testOpenSSLStaple(t *testing.T, rig *tlsRig) {
	for _, test := range []struct {
		name   string
		change tlstest.Change
		staple func(*ocsp.Response) // changes a good one; nil: there is none
		line   string               // empty: succeeds
	}{
		{"good", tlstest.MustStaple, func(*ocsp.Response) {}, ""},
		{"revoked", nil, tlstest.Revoked, `.*revoked.*`},
		{"missing", tlstest.MustStaple, nil, `.*staple.*`},
	} {
		t.Run(test.name, func(t *testing.T) {
			leaf := rig.Leaf(test.change, tlsName)
			cert, key := rig.keep(t, "staple-"+test.name, leaf)
			options := []string{"-rev", "-cert", cert, "-key", key}
			if test.staple != nil {
				file := filepath.Join(t.TempDir(), "response")
				put(t, file, tlstest.Respond(leaf, rig.Party, rig.Party, test.staple))
				options = append(options, "-status_file", file)
			}
			p := rig.sServer(t, options...)
			if test.line == "" {
				rig.tcpclient(t, p.port, nil, oneLine, "-S", "-k", tlsName).want(t, "olleh TLSv1.3 yes")
				return
			}
			rig.tcpclient(t, p.port, nil, oneLine, "-k", tlsName).fails(t, 97, test.line)
			got := rig.tcpclient(t, p.port, nil, oneLine, "-S", "-k", tlsName, "--no-verify-cert")
			if ok, _ := regexp.MatchString(`\Aolleh TLSv1\.3 no:`+test.line+`\n\z`, got.out); !ok || got.status != 0 {
				t.Errorf("%+v", got)
			}
		})
	}
}

func testOpenSSLClientCertificate(t *testing.T, rig *tlsRig) {
	cert, key := rig.issue(t, "peer-client", "client.example")
	environ := []string{"CERTFILE=" + cert, "KEYFILE=" + key}
	for _, version := range []string{"1_2", "1_3"} {
		p := rig.sServer(t, "-tls"+version, "-rev", "-Verify", "1", "-verify_return_error", "-CAfile", rig.ca)
		rig.tcpclient(t, p.port, environ, oneLine, "-S", "-y", "-k", tlsName).want(t, "olleh TLSv"+strings.Replace(version, "_", ".", 1)+" yes")
		got := rig.tcpclient(t, p.port, environ, oneLine, "-S", "-k", tlsName)
		// In TLS 1.3 the client is through before the server has looked.
		if version == "1_2" && got.status != 97 || !strings.Contains(got.err, "demands a client certificate") {
			t.Errorf("without a certificate: %+v", got)
		}
		p.end()
	}
}

func testGnuTLS(t *testing.T, rig *tlsRig) {
	for priority, version := range map[string]string{"NORMAL": "TLSv1.3", "NORMAL:-VERS-ALL:+VERS-TLS1.2": "TLSv1.2"} {
		port := freePort(t)
		p := runPeer(t, `listening on IPv4 .* port `+port, port, "gnutls-serv", "--echo", "--port", port, "--disable-client-cert",
			"--x509certfile", rig.cert, "--x509keyfile", rig.key, "--priority", priority)
		rig.tcpclient(t, p.port, nil, oneLine, "-S", "-k", tlsName).want(t, "hello "+version+" yes")
		rig.tcpclient(t, p.port, nil, oneLine, "-k", "other.example").fails(t, 97, `certificate is for .*`)
		p.end()
	}
}

// Both ends have the same channel binding. In TLS 1.2 s_server exports without a context, and
// so another value than RFC 9266 wants.
func testExporterPeers(t *testing.T, rig *tlsRig) {
	const script = `printf 'hello\n' >&7; read -r answer <&6; echo "$answer ${SSL_TLS_EXPORTER-none}"`
	for _, version := range []string{"1_2", "1_3"} {
		p := rig.sServer(t, "-tls"+version, "-keymatexport", "EXPORTER-Channel-Binding", "-keymatexportlen", "32")
		got := rig.tcpclient(t, p.port, []string{"SSL_TLS_EXPORTER=stale"}, `echo "$SSL_TLS_EXPORTER"`, "-S", "-k", tlsName)
		ours := regexp.MustCompile(`\A([0-9a-f]{64})\n\z`).FindStringSubmatch(got.out)
		theirs := strings.ToLower(p.until(`Keying material: ([0-9A-F]{64})`)[1])
		if ours == nil || (ours[1] == theirs) != (version == "1_3") {
			t.Errorf("TLS %s: %+v, the server's is %s", version, got, theirs)
		}
		p.end()
	}
	old := rig.sServer(t, "-tls1_1", "-rev", "-cipher", "ALL:@SECLEVEL=0")
	rig.tcpclient(t, old.port, []string{"SSL_TLS_EXPORTER=stale"}, script, "-S", "--no-verify-cert", "-k", tlsName).want(t, "olleh none")
	// In TLS 1.2 without an extended master secret there is none, whatever $GODEBUG says.
	port := freePort(t)
	runPeer(t, `listening on IPv4 .* port `+port, port, "gnutls-serv", "--echo", "--port", port, "--disable-client-cert",
		"--x509certfile", rig.cert, "--x509keyfile", rig.key, "--priority", "NORMAL:-VERS-ALL:+VERS-TLS1.2:%NO_SESSION_HASH")
	for _, godebug := range []string{"", "tlsunsafeekm=1"} {
		rig.tcpclient(t, port, []string{"SSL_TLS_EXPORTER=stale", "GODEBUG=" + godebug}, script, "-S", "-k", tlsName).want(t, "hello none")
	}
}

func testStunnel(t *testing.T, rig *tlsRig) {
	behind := must.Get(net.Listen("tcp", "127.0.0.1:0"))(t)
	defer behind.Close()
	go func() { // the echo service that stunnel puts TLS around
		for {
			c, err := behind.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c); c.Close() }()
		}
	}()
	port := freePort(t)
	config := filepath.Join(t.TempDir(), "stunnel.conf")
	put(t, config, fmt.Appendf(nil, "foreground = yes\npid =\ndebug = info\n[echo]\naccept = 127.0.0.1:%s\nconnect = %s\ncert = %s\nkey = %s\n",
		port, behind.Addr(), rig.cert, rig.key))
	p := runPeer(t, `Configuration successful`, port, "stunnel", config)
	go func() { _, _ = io.Copy(io.Discard, p.out) }()
	until(t, "stunnel", func() bool {
		c, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	for _, option := range []string{"-S", "-s"} {
		rig.tcpclient(t, port, nil, oneLine, option, "-k", tlsName).want(t, "hello TLSv1.3 yes")
	}
	// 4 MB there and back. Not with -s: OpenSSL 3 would break off what it still has to
	// send.
	size := 4 << 20
	got := rig.tcpclient(t, port, nil, `(head -c `+strconv.Itoa(size)+` /dev/zero >&7; exec 7>&-) & exec 7>&-; wc -c <&6`, "-S", "-k", tlsName)
	if strings.TrimSpace(got.out) != strconv.Itoa(size) || got.status != 0 {
		t.Errorf("%+v", got)
	}
}

// The examples of the manual pages that stay on this machine run as they stand.
func testManual(t *testing.T, rig *tlsRig) {
	for _, used := range []string{"bash", "openssl", "tcpclient"} {
		needProgram(t, used)
	}
	for program, want := range map[string]string{"mxf-tlsc": "hello\nTLSv1.3\n", "mxf-ucspitlsc": "SSL_PEER_VERIFIED=yes\nSSL_SESSION_RESUMED=no\n\nhello\n"} {
		page := filepath.Join("..", "doc", program+".8")
		port := freePort(t)
		var script strings.Builder
		for _, example := range examples(string(must.Get(os.ReadFile(page))(t))) {
			switch {
			case strings.Contains(example, "s_server"):
				// The server has to listen before the next one is run, and to end.
				script.WriteString("trap 'kill $!' EXIT\n" + example + "until (exec 3<>/dev/tcp/127.0.0.1/4465) 2>/dev/null; do :; done\n")
			case strings.Contains(example, "127.0.0.1"):
				script.WriteString(example)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), lab.DefaultLimit)
		defer cancel()
		cmd := exec.CommandContext(ctx, "bash", "-c", strings.ReplaceAll(script.String(), "4465", port))
		cmd.Dir = t.TempDir()
		cmd.Env = append(os.Environ(), "PATH="+rig.bin+":"+os.Getenv("PATH"), "OPENSSL_CONF=/etc/ssl/openssl.cnf")
		cmd.WaitDelay = tlsLimit
		out, err := cmd.Output()
		if err != nil || !strings.HasSuffix(string(out), want) {
			t.Errorf("the examples of %s: %v, %q\n%s", page, err, out, script.String())
		}
	}
}

// examples returns the displays of a manual page.
func examples(page string) []string {
	var found []string
	for _, part := range strings.Split(page, ".Bd -literal -offset indent\n")[1:] {
		display, _, _ := strings.Cut(part, ".Ed\n")
		found = append(found, strings.ReplaceAll(display, `\e`, `\`))
	}
	return found
}
