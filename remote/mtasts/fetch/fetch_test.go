package fetch

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/remote/dial/dialtest"
	"nightmare.mail/mxf/remote/dns"
	"nightmare.mail/mxf/remote/dns/dnstest"
	"nightmare.mail/mxf/remote/mtasts"
	"nightmare.mail/mxf/tlsc"
	"nightmare.mail/mxf/tlsc/tlstest"
)

const (
	policy = "version: STSv1\r\nmode: enforce\r\nmx: mail.example.test\r\nmax_age: 86400\r\n"
	name   = "mta-sts.example.test"
)

// A server gives one answer to all.
type server struct {
	answer   func(conn *tls.Conn)
	config   atomic.Pointer[tls.Config]
	port     uint16
	conns    atomic.Int32
	requests chan *http.Request
}

// says is an answer in these bytes, with close_notify behind it.
func says(text string) func(*tls.Conn) {
	return func(conn *tls.Conn) { _, _ = io.WriteString(conn, text) }
}

// plain is an answer with a body of known length. header has lines.
func plain(header, body string) func(*tls.Conn) {
	return says(fmt.Sprintf("HTTP/1.1 200 OK\r\n%sContent-Length: %d\r\n\r\n%s", header, len(body), body))
}

const typed = "Content-Type: text/plain\r\n"

// listen starts the server on an address of loopback, whose port is the server's.
func (s *server) listen(t testing.TB, addr string) {
	t.Helper()
	l, at := dialtest.Listen(t, addr)
	s.port = at.Port()
	s.requests = make(chan *http.Request, 200)
	var all sync.WaitGroup
	t.Cleanup(func() { l.Close(); all.Wait() })
	all.Go(func() {
		for {
			raw, err := l.Accept()
			if err != nil {
				return
			}
			s.conns.Add(1)
			all.Go(func() { s.serve(raw) })
		}
	})
}

func (s *server) serve(raw net.Conn) {
	defer raw.Close()
	_ = raw.SetDeadline(time.Now().Add(must.Patience))
	conn := tls.Server(raw, s.config.Load())
	if conn.Handshake() != nil {
		return
	}
	request, err := http.ReadRequest(bufio.NewReader(conn))
	if err != nil {
		return
	}
	s.requests <- request
	s.answer(conn)
	_ = conn.CloseWrite()
	_, _ = io.Copy(io.Discard, raw) // so that a reset does not destroy the answer
}

// world is a name server and an authority.
type world struct {
	authority *tlstest.Party
	client    *Client
}

func newWorld(t testing.TB, zone string, port uint16) *world {
	t.Helper()
	ns := dnstest.New(t, zone, map[string]string{"mta-sts.broken.test": "servfail", "mta-sts.silent.test": "silence"})
	w := &world{authority: tlstest.NewAuthority("authority")}
	w.client = &Client{
		Resolver: dns.NewClient(dns.Config{Servers: []netip.AddrPort{ns.Addr}}),
		TLS:      &tlsc.Client{Anchors: tlsc.Anchors{File: tlstest.Bundle(t, w.authority)}},
		Port:     port,
	}
	return w
}

const zone = "mta-sts.example.test. A 127.0.0.1\n"

// Everything that the page names, each as a server does it.
func TestFetch(t *testing.T) {
	full := policy + strings.Repeat("\n", mtasts.MaxPolicy-len(policy))
	chunked := func(body string) string {
		var b strings.Builder
		for piece := range strings.SplitAfterSeq(body, "\n") {
			if piece != "" {
				fmt.Fprintf(&b, "%x\r\n%s\r\n", len(piece), piece)
			}
		}
		return "HTTP/1.1 200 OK\r\n" + typed + "Transfer-Encoding: chunked\r\n\r\n" + b.String() + "0\r\n\r\n"
	}
	const ok, fetchError, invalid, webPKI = mtasts.Kind(-1), mtasts.FetchError, mtasts.PolicyInvalid, mtasts.WebPKIInvalid
	for _, c := range []struct {
		name   string
		answer func(*tls.Conn)
		kind   mtasts.Kind
		reason string // what it has
	}{
		{"good", plain(typed, policy), ok, ""},
		{"parameters", plain("Content-Type: Text/Plain ; charset=utf-8; x=\"\r\n", policy), ok, ""},
		{"identity", plain(typed+"Content-Encoding: Identity\r\n", policy), ok, ""},
		{"chunked", says(chunked(policy)), ok, ""},
		{"until the end", says("HTTP/1.0 200 OK\r\n" + typed + "\r\n" + policy), ok, ""},
		{"65536 bytes", plain(typed, full), ok, ""},
		{"65536 bytes in chunks", says(chunked(full)), ok, ""},
		{"201", says("HTTP/1.1 201 Created\r\n" + typed + "Content-Length: 0\r\n\r\n"), fetchError, "status 201"},
		{"206", says("HTTP/1.1 206 Partial Content\r\n" + typed + "Content-Length: 0\r\n\r\n"), fetchError, "status 206"},
		{"301", says("HTTP/1.1 301 Moved Permanently\r\nLocation: https://mta-sts.example.test/\r\nContent-Length: 0\r\n\r\n"), fetchError, "status 301"},
		{"302", says("HTTP/1.1 302 Found\r\nLocation: /.well-known/mta-sts.txt\r\nContent-Length: 0\r\n\r\n"), fetchError, "status 302"},
		{"304", says("HTTP/1.1 304 Not Modified\r\n\r\n"), fetchError, "status 304"},
		{"404", says("HTTP/1.1 404 Not Found\r\n" + typed + "Content-Length: 0\r\n\r\n"), fetchError, "status 404"},
		{"500", says("HTTP/1.1 500 No\r\n" + typed + "Content-Length: 0\r\n\r\n"), fetchError, "status 500"},
		{"html", plain("Content-Type: text/html; charset=utf-8\r\n", policy), fetchError, `media type is "text/html; charset=utf-8"`},
		{"markdown", plain("Content-Type: text/plainer\r\n", policy), fetchError, "media type"},
		{"two types", plain(typed+"Content-Type: text/html\r\n", policy), fetchError, "media type"},
		{"no type", plain("", policy), fetchError, "no media type"},
		{"empty type", plain("Content-Type:\r\n", policy), fetchError, "media type"},
		{"gzip", plain(typed+"Content-Encoding: gzip\r\n", policy), fetchError, "content encoding"},
		{"gzip and identity", plain(typed+"Content-Encoding: identity\r\nContent-Encoding: br\r\n", policy), fetchError, "content encoding"},
		{"65537 bytes", plain(typed, full+"\n"), invalid, "more than 65536 bytes"},
		{"65537 bytes in chunks", says(chunked(full + "\n")), invalid, "more than 65536 bytes"},
		{"65537 bytes until the end", says("HTTP/1.0 200 OK\r\n" + typed + "\r\n" + full + "\n"), invalid, "more than 65536 bytes"},
		{"too long and html", plain("Content-Type: text/html\r\n", full+"\n"), fetchError, "media type"},
		{"invalid", plain(typed, "version: STSv1\n"), invalid, "no mode"},
		{"another version", plain(typed, strings.Replace(policy, "STSv1", "STSv2", 1)), invalid, "version"},
		{"no mx", plain(typed, strings.Replace(policy, "mx", "xm", 1)), invalid, "no mx"},
		{"bad mx", plain(typed, policy+"mx: a b\n"), invalid, "line 5: mx"},
		{"junk", plain(typed, policy+"junk\n"), invalid, "line 5"},
		{"empty", plain(typed, ""), invalid, "no version"},
		{"cut", says("HTTP/1.1 200 OK\r\n" + typed + "Content-Length: 1000\r\n\r\n" + policy), fetchError, "ended before the policy did"},
		{"cut chunks", says(strings.TrimSuffix(chunked(policy), "0\r\n\r\n")), fetchError, "ended before the policy did"},
		{"no close_notify", func(conn *tls.Conn) {
			_, _ = io.WriteString(conn, "HTTP/1.0 200 OK\r\n"+typed+"\r\n"+policy)
			conn.NetConn().(*net.TCPConn).CloseWrite()
		}, fetchError, "ended before the policy did"},
		{"no close_notify and a length", func(conn *tls.Conn) {
			plain(typed, policy)(conn)
			conn.NetConn().(*net.TCPConn).CloseWrite()
		}, ok, ""},
		{"no answer", func(*tls.Conn) {}, fetchError, "EOF"},
		{"no HTTP", says("220 mail.example.test ESMTP\r\n"), fetchError, "malformed"},
		{"endless header", func(conn *tls.Conn) {
			_, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\n")
			for err == nil {
				_, err = io.WriteString(conn, "X: "+strings.Repeat("x", 1000)+"\r\n")
			}
		}, fetchError, "exceeded"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := &server{answer: c.answer}
			s.listen(t, "127.0.0.1:0")
			w := newWorld(t, zone, s.port)
			s.config.Store(w.authority.Leaf(nil, name).Config())
			text, p, failed := w.client.Fetch(t.Context(), "example.test")
			if c.kind == ok {
				if failed != nil || p.Mode != mtasts.Enforce || !strings.HasPrefix(text, policy) {
					t.Errorf("%.100q, %+v, %v", text, p, failed)
				}
			} else if failed == nil || failed.Kind != c.kind || !strings.HasPrefix(failed.Reason, name+": ") || !strings.Contains(failed.Reason, c.reason) || text != "" || p != nil {
				t.Errorf("%v, want %v with %q", failed, c.kind, c.reason)
			}
			if n := s.conns.Load(); n != 1 {
				t.Errorf("%d connections", n)
			}
		})
	}
}

// What is asked, and that no proxy is.
func TestFetch_request(t *testing.T) {
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1")
	t.Setenv("https_proxy", "http://127.0.0.1:1")
	s := &server{answer: plain(typed, policy)}
	s.listen(t, "127.0.0.1:0")
	w := newWorld(t, zone, s.port)
	config := w.authority.Leaf(nil, name).Config()
	sni := make(chan string, 1)
	config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) { sni <- hello.ServerName; return nil, nil }
	s.config.Store(config)
	if _, _, failed := w.client.Fetch(t.Context(), "example.test"); failed != nil {
		t.Fatal(failed)
	}
	r := <-s.requests
	if got := <-sni; got != name {
		t.Errorf("server name %q", got)
	}
	if r.Method != "GET" || r.URL.Path != "/.well-known/mta-sts.txt" || r.Host != fmt.Sprintf("%s:%d", name, s.port) || r.Header.Get("Accept-Encoding") != "identity" {
		t.Errorf("%+v", r)
	}
}

// The certificate, and what else a handshake can be.
func TestFetch_tls(t *testing.T) {
	for _, c := range []struct {
		name   string
		config func(a *tlstest.Party) *tls.Config
		kind   mtasts.Kind
		reason string
	}{
		{"expired", func(a *tlstest.Party) *tls.Config { return a.Leaf(tlstest.Expired, name).Config() }, mtasts.WebPKIInvalid, "expired"},
		{"early", func(a *tlstest.Party) *tls.Config { return a.Leaf(tlstest.Early, name).Config() }, mtasts.WebPKIInvalid, "not valid before"},
		{"another name", func(a *tlstest.Party) *tls.Config { return a.Leaf(nil, "example.test", "mail.example.test").Config() }, mtasts.WebPKIInvalid, "certificate is for"},
		{"common name alone", func(a *tlstest.Party) *tls.Config {
			return a.Leaf(func(c *x509.Certificate) { c.Subject.CommonName = name }).Config()
		}, mtasts.WebPKIInvalid, "common name only"},
		{"its address", func(a *tlstest.Party) *tls.Config { return a.Leaf(nil, "127.0.0.1").Config() }, mtasts.WebPKIInvalid, "certificate is for"},
		{"untrusted", func(*tlstest.Party) *tls.Config { return tlstest.NewAuthority("other").Leaf(nil, name).Config() }, mtasts.WebPKIInvalid, "authority that is not in"},
		{"self-signed", func(*tlstest.Party) *tls.Config {
			return tlstest.SelfSigned(nil, func(c *x509.Certificate) { c.DNSNames = []string{name} }).Config()
		}, mtasts.WebPKIInvalid, "self-signed"},
		{"TLS 1.1", func(a *tlstest.Party) *tls.Config {
			c := a.Leaf(nil, name).Config()
			c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
			return c
		}, mtasts.FetchError, "1.2"},
		{"no certificate for the name", func(*tlstest.Party) *tls.Config {
			return &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, io.EOF }}
		}, mtasts.FetchError, "internal error"},
		{"no anchors", nil, mtasts.FetchError, "no trust anchors"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := &server{answer: plain(typed, policy)}
			s.listen(t, "127.0.0.1:0")
			w := newWorld(t, zone, s.port)
			if c.config == nil {
				w.client.TLS = new(tlsc.Client)
			} else {
				s.config.Store(c.config(w.authority))
			}
			if _, _, failed := w.client.Fetch(t.Context(), "example.test"); failed == nil || failed.Kind != c.kind || !strings.Contains(failed.Reason, c.reason) {
				t.Errorf("%v, want %v with %q", failed, c.kind, c.reason)
			}
			if len(s.requests) > 0 {
				t.Error("asked for a policy")
			}
		})
	}
}

// Wildcards and TLS 1.2 will do.
func TestFetch_tlsGood(t *testing.T) {
	s := &server{answer: plain(typed, policy)}
	s.listen(t, "127.0.0.1:0")
	w := newWorld(t, zone, s.port)
	config := w.authority.Leaf(nil, "*.example.test").Config()
	config.MaxVersion = tls.VersionTLS12
	s.config.Store(config)
	if _, _, failed := w.client.Fetch(t.Context(), "example.test"); failed != nil {
		t.Error(failed)
	}
}

func TestFetch_connect(t *testing.T) {
	s := &server{answer: plain(typed, policy)}
	s.listen(t, "127.0.0.1:0")
	w := newWorld(t, zone+`
mta-sts.both.test.    A     127.0.0.1
mta-sts.both.test.    AAAA  ::1
mta-sts.alias.test.   CNAME mta-sts.both.test.
mta-sts.refused.test. A     127.0.0.9
mta-sts.nodata.test.  MX    0 .
`, s.port)
	s.config.Store(w.authority.Leaf(nil, "*.both.test", "*.alias.test").Config())
	for domain, want := range map[string]string{
		// One family refuses.
		"both.test": "", "alias.test": "", "refused.test": "connection refused", "nodata.test": "it has no address", "nowhere.test": "no such name",
		"broken.test": "server failure",
	} {
		_, _, failed := w.client.Fetch(t.Context(), domain)
		switch {
		case want == "" && failed != nil:
			t.Errorf("%s: %v", domain, failed)
		case want != "" && (failed == nil || failed.Kind != mtasts.FetchError || !strings.HasPrefix(failed.Reason, "mta-sts."+domain+": ") || !strings.HasSuffix(failed.Reason, want)):
			t.Errorf("%s: %v, want %s", domain, failed, want)
		}
	}
}

// Both families can be used alone.
func TestFetch_sixAlone(t *testing.T) {
	if l, err := net.Listen("tcp", "[::1]:0"); err != nil {
		t.Skip(err)
	} else {
		l.Close()
	}
	s := &server{answer: plain(typed, policy)}
	s.listen(t, "[::1]:0")
	w := newWorld(t, "mta-sts.example.test. A 127.0.0.9\nmta-sts.example.test. AAAA ::1\n", s.port)
	s.config.Store(w.authority.Leaf(nil, name).Config())
	if _, _, failed := w.client.Fetch(t.Context(), "example.test"); failed != nil {
		t.Error(failed)
	}
}

// What takes too long ends with the time, wherever it hangs.
func TestFetch_late(t *testing.T) {
	hang := func(conn *tls.Conn) { _, _ = io.Copy(io.Discard, conn) }
	for _, c := range []struct {
		name, domain string
		answer       func(*tls.Conn)
		silent       bool
	}{
		{"no answer", "example.test", hang, false},
		{"slow body", "example.test", func(conn *tls.Conn) {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n"+typed+"Content-Length: 80\r\n\r\nversion: STSv1\r\n")
			hang(conn)
		}, false},
		{"no handshake", "example.test", nil, true},
		{"no name server", "silent.test", nil, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := &server{answer: c.answer}
			s.listen(t, "127.0.0.1:0")
			w := newWorld(t, zone, s.port)
			s.config.Store(w.authority.Leaf(nil, name).Config())
			if c.silent {
				w.client.Port = dialtest.Silent(t).Port()
			}
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			must.Within(t, "fetch", func() {
				if _, _, failed := w.client.Fetch(ctx, c.domain); failed == nil || failed.Kind != mtasts.FetchError || !strings.HasSuffix(failed.Reason, errLate.Error()) {
					t.Errorf("%v", failed)
				}
			})
		})
	}
}

// A hundred deliveries to one domain make one HTTPS connection.
func TestFetch_together(t *testing.T) {
	for _, good := range []bool{true, false} {
		s := &server{answer: plain(typed, map[bool]string{true: policy, false: "no"}[good])}
		s.listen(t, "127.0.0.1:0")
		w := newWorld(t, zone, s.port)
		s.config.Store(w.authority.Leaf(nil, name).Config())
		folder := filepath.Join(t.TempDir(), "sts")
		must.OK(t, os.Mkdir(folder, 0o755))
		var all sync.WaitGroup
		for range 100 {
			store := &mtasts.Store{Folder: folder}
			all.Go(func() {
				found := store.Find(t.Context(), "example.test", "1", func(ctx context.Context, domain, id string) (*mtasts.Entry, *mtasts.Failure) {
					text, p, failed := w.client.Fetch(ctx, domain)
					if failed != nil {
						e, _ := store.FetchFailed(domain, failed, time.Time{})
						return e, failed
					}
					e, _ := store.Fetched(domain, id, text, p, time.Time{})
					return e, nil
				})
				if (found.Policy() != nil) != good {
					t.Errorf("%s", found.String())
				}
			})
		}
		all.Wait()
		if n := s.conns.Load(); n != 1 {
			t.Errorf("%d connections", n)
		}
	}
}

// Fetches leave nothing behind.
func TestFetch_leaks(t *testing.T) {
	s := &server{answer: plain(typed, policy)}
	s.listen(t, "127.0.0.1:0")
	w := newWorld(t, zone, s.port)
	s.config.Store(w.authority.Leaf(nil, name).Config())
	before := runtime.NumGoroutine()
	for range 20 {
		if _, _, failed := w.client.Fetch(t.Context(), "example.test"); failed != nil {
			t.Fatal(failed)
		}
	}
	must.NoneLeft(t, before)
}
