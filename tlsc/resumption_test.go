package tlsc

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"nightmare.mail/mxf/integration/must"
	"nightmare.mail/mxf/tlsc/tlstest"
)

// A visit is a server of one configuration, and a client that visits it again and again.
type visit struct {
	t      testing.TB
	clock  *handClock
	config *tls.Config // the server's; its tickets outlive a visit
	client *Client
	demand Demand
}

// newVisit is a visit of a server that shows this certificate.
func newVisit(t testing.TB, pair tls.Certificate, anchors string, demand Demand) *visit {
	clock := &handClock{testNow}
	config := &tls.Config{Certificates: []tls.Certificate{pair}, Time: clock.Now}
	config.SetSessionTicketKeys([][32]byte{{1}})
	client := &Client{Anchors: Anchors{File: anchors}, Now: clock.Now, Sessions: NewSessions(clock.Now)}
	demand.ServerName, demand.Session = host, "session"
	return &visit{t, clock, config, client, demand}
}

// try makes one handshake, and reads all that the server says.
func (v *visit) try(d Demand) (*Conn, error) {
	v.t.Helper()
	c, err := shake(v.t, tlstest.Serve(v.t, tlstest.Hello(v.config)), v.client, &d)
	if err == nil {
		if said, err := io.ReadAll(c); string(said) != "hello" || err != nil {
			v.t.Errorf("the server said %q, %v", said, err)
		}
		c.Close()
	}
	return c, err
}

// want makes a handshake that succeeds.
func (v *visit) want(resumed bool) Facts {
	v.t.Helper()
	c, err := v.try(v.demand)
	if err != nil {
		v.t.Fatal(err)
	}
	if f := c.Facts(); f.Resumed != resumed {
		v.t.Errorf("%s: resumed %v, want %v", f.Version, f.Resumed, resumed)
	}
	return c.Facts()
}

// A connection that is resumed differs in nothing from that of the full handshake.
func TestResumption(t *testing.T) {
	root := newCA("root")
	leaf := root.Leaf(nil, host)
	anchors, others := tlstest.Bundle(t, root), tlstest.Bundle(t, newCA("other"))
	records := func(kind string, about *tlstest.Party) Records {
		return must.Get(NewRecords([]TLSA{record(t, kind, about.Cert)}))(t)
	}
	for _, tt := range []struct {
		name    string
		judge   Judge
		anchors string
		want    string // the verdict begins so
	}{
		{"nobody", nil, anchors, "yes"},
		{"nobody, and bad", nil, others, "no:certificate is signed by "},
		{"nobody, and no anchors", nil, "", "no:no trust anchors"},
		{"trust anchors", TrustAnchors{}, anchors, "yes"},
		{"DANE-EE", DANE{Records: records("3 1 1", leaf)}, "", "yes"},
		{"DANE-TA", DANE{Records: records("2 0 1", root)}, "", "yes"},
		{"records and anchors", DANE{Records: records("3 1 1", leaf), Anchors: true}, anchors, "yes"},
	} {
		for version := uint16(tls.VersionTLS10); version <= tls.VersionTLS13; version++ {
			if tt.judge != nil && version < tls.VersionTLS12 {
				continue
			}
			v := newVisit(t, leaf.Pair(root), tt.anchors, Demand{Judge: tt.judge})
			v.config.MinVersion, v.config.MaxVersion = version, version
			first := v.want(false)
			for range 3 {
				again := v.want(true)
				again.Resumed = false
				if !reflect.DeepEqual(first, again) || !strings.HasPrefix(again.Verdict.String(), tt.want) || first.Version != versionName(version) {
					t.Errorf("%s: first %+v, then %+v", tt.name, first, again)
				}
			}
			if n := v.client.Sessions.Len(); n != 1 {
				t.Errorf("%s: %d sessions", tt.name, n)
			}
			v.client.Sessions.Forget()
			v.want(false)
		}
	}
}

// A session is for connections with one key, and every demand makes its own.
func TestResumption_others(t *testing.T) {
	root := newCA("root")
	leaf := root.Leaf(nil, host, "other.example.org")
	records := must.Get(NewRecords([]TLSA{record(t, "3 1 1", leaf.Cert)}))(t)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		v := newVisit(t, leaf.Pair(), tlstest.Bundle(t, root), Demand{})
		v.config.MaxVersion = version
		v.want(false)
		for name, change := range map[string]func(*Demand){
			"judge":        func(d *Demand) { d.Judge = TrustAnchors{} },
			"records":      func(d *Demand) { d.Judge = DANE{Records: records} },
			"name":         func(d *Demand) { d.ServerName = "other.example.org" },
			"no name sent": func(d *Demand) { d.NoSNI = true },
			"names":        func(d *Demand) { d.Names = []string{host} },
			"certificate":  func(d *Demand) { d.Certificate = &Certificate{leaf.Pair()} },
			"caller":       func(d *Demand) { d.Session = "another" },
			"none":         func(d *Demand) { d.Session = "" },
			"full":         func(d *Demand) { d.Full = true },
			"small":        func(d *Demand) { d.SmallHello = true },
		} {
			d := v.demand
			change(&d)
			if c := must.Get(v.try(d))(t); c.Facts().Resumed {
				t.Errorf("another %s: resumed", name)
			}
			c := must.Get(v.try(d))(t)
			if kept := name != "none" && name != "full" && name != "small"; c.Facts().Resumed != kept {
				t.Errorf("another %s, again: resumed %v, want %v", name, c.Facts().Resumed, kept)
			}
		}
		v.want(true)
	}
}

// Without Sessions the ClientHello asks for none.
func TestNoSessions(t *testing.T) {
	offers := func(c *Client, d *Demand) (tickets bool) {
		h := handshake{client: c, demand: d, wire: new(wire)}
		h.prepare()
		return h.config().ClientSessionCache != nil
	}
	with := trusting("")
	with.Sessions = NewSessions(nil)
	for _, tt := range []struct {
		client *Client
		demand Demand
		want   bool
	}{
		{with, Demand{Session: "x"}, true},
		{with, Demand{Session: "x", Full: true}, true},
		{with, Demand{Session: "x", SmallHello: true}, false},
		{with, Demand{}, false},
		{trusting(""), Demand{Session: "x"}, false},
	} {
		if got := offers(tt.client, &tt.demand); got != tt.want {
			t.Errorf("%+v: %v, want %v", tt.demand, got, tt.want)
		}
	}
}

// A server that has forgotten the session makes a full handshake on the same connection.
func TestResumption_forgotten(t *testing.T) {
	root := newCA("root")
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		v := newVisit(t, root.Leaf(nil, host).Pair(), tlstest.Bundle(t, root), Demand{Judge: TrustAnchors{}})
		v.config.MaxVersion = version
		v.want(false)
		v.config.SetSessionTicketKeys([][32]byte{{2}})
		v.want(false)
		v.want(true)
		v.config.SessionTicketsDisabled = true
		v.want(false)
	}
}

// A newer server has no use for a session of its older version, and the reverse.
func TestResumption_otherVersion(t *testing.T) {
	root := newCA("root")
	v := newVisit(t, root.Leaf(nil, host).Pair(), tlstest.Bundle(t, root), Demand{Judge: TrustAnchors{}})
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13, tls.VersionTLS12} {
		v.config.MaxVersion = version
		v.want(false)
		v.want(true)
	}
}

// A handshake that fails with a session says so, and the session is given up.
func TestResumption_fails(t *testing.T) {
	root := newCA("root")
	broken := map[string]func(*tls.Config) func(*net.TCPConn){
		"alert": func(config *tls.Config) func(*net.TCPConn) {
			config.UnwrapSession = func([]byte, tls.ConnectionState) (*tls.SessionState, error) { return nil, errors.New("no") }
			return tlstest.Hello(config)
		},
		"lost":      func(*tls.Config) func(*net.TCPConn) { return func(conn *net.TCPConn) { tlstest.ReadRecord(conn) } },
		"other TLS": func(*tls.Config) func(*net.TCPConn) { return tlstest.Answer("\x15\x03\x01\x00\x02\x02\x70") },
		"silent":    func(*tls.Config) func(*net.TCPConn) { return func(conn *net.TCPConn) { io.Copy(io.Discard, conn) } },
	}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for name, breaks := range broken {
			var lines []string
			v := newVisit(t, root.Leaf(nil, host).Pair(), tlstest.Bundle(t, root), Demand{Judge: TrustAnchors{}, Trace: func(line string) { lines = append(lines, line) }})
			v.config.MaxVersion = version
			v.want(false)
			d := v.demand
			if name == "silent" {
				d.TimeLimit = 60 * time.Millisecond
			}
			_, err := shake(t, tlstest.Serve(t, breaks(v.config.Clone())), v.client, &d)
			wantError(t, err, KindHandshake, ".*")
			if own := new(Error); !errors.Is(err, ErrResumption) || !errors.As(err, &own) || !own.Offered {
				t.Errorf("%s: %v does not say that a session was offered", name, err)
			}
			if last := lines[len(lines)-1]; !strings.HasPrefix(last, "tls failed with a session: ") {
				t.Errorf("%s: traced %q", name, last)
			}
			// Without a session it says nothing of one.
			d.Full = true
			_, err = shake(t, tlstest.Serve(t, tlstest.Answer("no TLS")), v.client, &d)
			wantError(t, err, KindHandshake, "server does not speak TLS.*")
			if errors.Is(err, ErrResumption) {
				t.Errorf("%s: a session was offered in a full handshake", name)
			}
			// None is kept for an hour.
			must.Get(v.try(v.demand))(t)
			v.want(false)
			v.clock.forward(sessionAge)
			v.want(false)
			v.want(true)
			if line := lines[len(lines)-1]; !strings.HasSuffix(line, ` name "mx.example.org" resumed verified yes`) {
				t.Errorf("traced %q", line)
			}
		}
	}
}

// Where the caller gives up, nobody is to try again, and nothing is said of the server.
func TestResumption_givenUp(t *testing.T) {
	root := newCA("root")
	v := newVisit(t, root.Leaf(nil, host).Pair(), "", Demand{})
	v.want(false)
	ctx, cancel := context.WithCancel(context.Background())
	conn := tlstest.Serve(t, func(conn *net.TCPConn) {
		tlstest.ReadRecord(conn)
		cancel()
		io.Copy(io.Discard, conn)
	})
	_, err := v.client.Handshake(ctx, conn, &v.demand)
	if !errors.Is(err, context.Canceled) || errors.Is(err, ErrResumption) {
		t.Errorf("%v", err)
	}
	v.want(false)
	v.want(true)
}

// A connection that is resumed and lost before the server has said a word casts doubt on
// the session. One that is lost later, or that we close, does not.
func TestResumption_lostAfter(t *testing.T) {
	root := newCA("root")
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, tt := range []struct {
			name   string
			ends   func(*visit)
			resume bool
		}{
			{"lost", func(v *visit) {
				conn := tlstest.Serve(t, func(conn *net.TCPConn) { tls.Server(conn, v.config).Handshake() })
				c := must.Get(shake(t, conn, v.client, &v.demand))(t)
				if _, err := c.Read(make([]byte, 1)); err == nil {
					t.Error("something was read")
				}
			}, false},
			{"closed", func(v *visit) {
				conn := tlstest.Serve(t, func(conn *net.TCPConn) { tls.Server(conn, v.config).Handshake(); io.Copy(io.Discard, conn) })
				c := must.Get(shake(t, conn, v.client, &v.demand))(t)
				c.SetReadDeadline(time.Now().Add(-time.Second))
				c.Read(make([]byte, 1))
				c.Close()
				c.Read(make([]byte, 1))
			}, true},
		} {
			v := newVisit(t, root.Leaf(nil, host).Pair(), "", Demand{})
			v.config.MaxVersion = version
			v.want(false)
			v.want(true)
			tt.ends(v)
			if got := v.want(tt.resume); got.Resumed {
				v.want(true)
			}
		}
	}
}

// What has changed since the full handshake changes the verdict, and the server is asked
// for a full one on the same connection.
func TestResumption_judgedAgain(t *testing.T) {
	root, other := newCA("root"), newCA("other")
	until := testNow.Add(30 * time.Minute)
	short := func(c *x509.Certificate) { c.NotAfter = until }
	leaf := root.Leaf(nil, host)
	dying := root.Leaf(short, host)
	middle := root.Issue(nil, func(c *x509.Certificate) { tlstest.Authority("middle")(c); short(c) })
	below := middle.Leaf(func(c *x509.Certificate) { c.NotAfter = date(2040, 1, 1) }, host)
	stapled := func(next time.Time) tls.Certificate {
		pair := leaf.Pair()
		pair.OCSPStaple = respond(leaf, root, root, func(r *ocsp.Response) { r.NextUpdate = next })
		return pair
	}
	distrust := func(v *visit) {
		must.OK(t, os.WriteFile(v.client.Anchors.File, other.PEM(), 0o600))
	}
	later := func(d time.Duration) func(*visit) { return func(v *visit) { v.clock.forward(d) } }
	for _, tt := range []struct {
		name   string
		pair   tls.Certificate
		dane   *tlstest.Party // nil: trust anchors
		change func(*visit)
		resume bool
		want   string // the verdict, or the error where it is enforced
		fatal  bool
	}{
		{"nothing", leaf.Pair(), nil, later(40 * time.Minute), true, "yes", false},
		{"another anchor", leaf.Pair(), nil, func(v *visit) {
			must.OK(t, os.WriteFile(v.client.Anchors.File, append(other.PEM(), root.PEM()...), 0o600))
			v.clock.forward(2 * time.Second)
			must.OK(t, v.client.Load())
		}, true, "yes", false},
		{"no anchor any more", leaf.Pair(), nil, func(v *visit) {
			distrust(v)
			v.clock.forward(2 * time.Second)
			must.OK(t, v.client.Load())
		}, false, "certificate is signed by an authority that is not in ", true},
		{"expired", dying.Pair(), nil, later(40 * time.Minute), false, "certificate expired on 2030-06-15", true},
		{"expired and renewed", dying.Pair(), nil, func(v *visit) {
			v.clock.forward(40 * time.Minute)
			v.config.Certificates[0] = leaf.Pair()
		}, false, "yes", false},
		{"authority expired", below.Pair(middle), nil, later(40 * time.Minute), false, `certificate of the authority "CN=middle" expired on 2030-06-15`, true},
		{"staple expired", stapled(until), nil, later(40 * time.Minute), false, "no:stapled OCSP response expired on 2030-06-15", false},
		{"staple renewed", stapled(until), nil, func(v *visit) {
			v.clock.forward(40 * time.Minute)
			v.config.Certificates[0] = stapled(until.Add(time.Hour))
		}, false, "yes", false},
		{"DANE, its own", leaf.Pair(), leaf, later(40 * time.Minute), true, "yes", false},
		{"DANE, authority expired", below.Pair(middle), middle, later(40 * time.Minute), false, `a TLSA record matches, but certificate of the authority "CN=middle" expired on 2030-06-15`, true},
		{"DANE, its own expired", dying.Pair(), dying, later(40 * time.Minute), false, "yes", false}, // which crypto/tls does not offer
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			for _, enforces := range []bool{true, false} {
				var judge Judge = TrustAnchors{}
				switch {
				case tt.dane != nil && !enforces:
					continue
				case tt.dane == middle:
					judge = DANE{Records: must.Get(NewRecords([]TLSA{record(t, "2 0 1", middle.Cert)}))(t)}
				case tt.dane != nil:
					judge = DANE{Records: must.Get(NewRecords([]TLSA{record(t, "3 0 1", tt.dane.Cert)}))(t)}
				case !enforces:
					judge = nil
				}
				v := newVisit(t, tt.pair, tlstest.Bundle(t, root), Demand{Judge: judge})
				v.config.MaxVersion = version
				v.want(false)
				v.want(true)
				tt.change(v)
				c, err := v.try(v.demand)
				if enforces && tt.fatal {
					wantError(t, err, KindHandshake, tt.want+".*")
					if errors.Is(err, ErrResumption) {
						t.Errorf("%s: a session was offered on which the verdict is bad", tt.name)
					}
					continue
				}
				if err != nil {
					t.Errorf("%s, enforced %v: %v", tt.name, enforces, err)
					continue
				}
				want := tt.want
				if tt.fatal {
					want = "no:" + want
				}
				if f := c.Facts(); f.Resumed != tt.resume || !strings.HasPrefix(f.Verdict.String(), want) {
					t.Errorf("%s, enforced %v: resumed %v, verified %q", tt.name, enforces, f.Resumed, f.Verdict)
				}
			}
		}
	}
}

// A session that crypto/tls does not offer, because the certificate has expired, is not to
// blame for a failure.
func TestResumption_notOffered(t *testing.T) {
	root := newCA("root")
	leaf := root.Leaf(func(c *x509.Certificate) { c.NotAfter = testNow.Add(time.Minute) }, host)
	records := must.Get(NewRecords([]TLSA{record(t, "3 1 1", leaf.Cert)}))(t)
	v := newVisit(t, leaf.Pair(), "", Demand{Judge: DANE{Records: records}})
	v.want(false)
	v.clock.forward(2 * time.Minute)
	_, err := shake(t, tlstest.Serve(t, tlstest.Answer("no TLS")), v.client, &v.demand)
	wantError(t, err, KindHandshake, "server does not speak TLS.*")
	if errors.Is(err, ErrResumption) || v.client.Sessions.Len() != 0 {
		t.Errorf("%v says that a session was offered, or one of %d is left", err, v.client.Sessions.Len())
	}
}

// A session is used for an hour from its full handshake, however often it is renewed.
func TestSessionAge(t *testing.T) {
	root := newCA("root")
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		v := newVisit(t, root.Leaf(nil, host).Pair(), "", Demand{})
		v.config.MaxVersion = version
		v.want(false)
		for range 3 {
			v.clock.forward(sessionAge / 4)
			v.want(true)
		}
		v.clock.forward(sessionAge / 4)
		v.want(false)
		v.want(true)
		v.clock.forward(-sessionAge) // a clock that was wrong
		v.want(false)
	}
}

// The server's lifetime counts where it is shorter. crypto/tls counts that of TLS 1.3.
func TestSessionLifetime(t *testing.T) {
	for said, want := range map[time.Duration]time.Duration{0: sessionAge, time.Minute: time.Minute, 2 * time.Hour: sessionAge} {
		clock := &handClock{testNow}
		s := NewSessions(clock.Now)
		r := &resumption{sessions: s, key: keyed(""), wire: &wire{plain: plaintext{extended: true, lifetime: said}}}
		r.settle(tls.ConnectionState{Version: tls.VersionTLS12}, Verdict{}, 0)
		r.Put("", new(tls.ClientSessionState))
		clock.forward(want - time.Second)
		if s.take(r.key) == nil {
			t.Errorf("%v: given up early", said)
		}
		clock.forward(time.Second)
		if s.take(r.key) != nil {
			t.Errorf("%v: offered late", said)
		}
	}
}

// Without an extended master secret no session of TLS 1.2 is kept.
func TestNotExtended(t *testing.T) {
	for version, want := range map[uint16]int{tls.VersionTLS10: 0, tls.VersionTLS12: 0, tls.VersionTLS13: 1} {
		s := NewSessions(nil)
		r := &resumption{sessions: s, key: keyed(""), wire: new(wire)}
		r.Put("", new(tls.ClientSessionState))
		r.settle(tls.ConnectionState{Version: version}, Verdict{}, 0)
		r.Put("", new(tls.ClientSessionState))
		if s.Len() != want {
			t.Errorf("%s: %d sessions, want %d", tls.VersionName(version), s.Len(), want)
		}
	}
}

// The server's signature in the full handshake counts in all that resume it.
func TestResumption_signature(t *testing.T) {
	root := newCA("root")
	pair := root.Leaf(nil, host).Pair()
	pair.SupportedSignatureAlgorithms = []tls.SignatureScheme{tls.ECDSAWithSHA1}
	v := newVisit(t, pair, tlstest.Bundle(t, root), Demand{})
	v.config.MaxVersion = tls.VersionTLS12
	for _, resumed := range []bool{false, true, true} {
		if f := v.want(resumed); f.Verdict.String() != "no:server signs the handshake with SHA-1" {
			t.Errorf("resumed %v: verified %q", resumed, f.Verdict)
		}
	}
	// Where it ends the handshake, its session is not kept.
	v.demand.Judge = TrustAnchors{}
	for range 2 {
		_, err := v.try(v.demand)
		wantError(t, err, KindHandshake, "server signs the handshake with SHA-1")
		if errors.Is(err, ErrResumption) {
			t.Error("a session was offered")
		}
	}
	v.demand.Judge = nil
	v.want(true)
}

// The channel binding of a connection that is resumed is its own.
func TestResumption_exporter(t *testing.T) {
	root := newCA("root")
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		v := newVisit(t, root.Leaf(nil, host).Pair(), "", Demand{})
		v.config.MaxVersion = version
		var seen []string
		for i := range 3 {
			theirs := make(chan string, 1)
			conn := tlstest.Serve(t, func(conn *net.TCPConn) {
				server := tls.Server(conn, v.config)
				server.Handshake()
				state := server.ConnectionState()
				value, _ := state.ExportKeyingMaterial(exporterLabel, []byte{}, exporterLength)
				theirs <- hex.EncodeToString(value)
				server.Write([]byte("hello"))
				server.Close()
			})
			c := must.Get(shake(t, conn, v.client, &v.demand))(t)
			io.ReadAll(c)
			ours := hex.EncodeToString(c.Exporter())
			if want := <-theirs; ours != want || len(ours) != 2*exporterLength || slices.Contains(seen, ours) || c.Facts().Resumed != (i > 0) {
				t.Errorf("%s, resumed %v: %s, the server's %s", c.Facts().Version, c.Facts().Resumed, ours, want)
			}
			seen = append(seen, ours)
		}
	}
}

// A session that was made with a client certificate is one of that certificate.
func TestResumption_clientCertificate(t *testing.T) {
	root := newCA("root")
	one, other := &Certificate{root.Leaf(nil, "one").Pair()}, &Certificate{root.Leaf(nil, "other").Pair()}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		v := newVisit(t, root.Leaf(nil, host).Pair(), "", Demand{})
		v.config.MaxVersion, v.config.ClientAuth, v.config.ClientCAs = version, tls.RequireAndVerifyClientCert, root.Pool()
		shown := make(chan []byte, 10)
		v.config.VerifyConnection = func(state tls.ConnectionState) error {
			shown <- state.PeerCertificates[0].Raw
			return nil
		}
		for _, own := range []*Certificate{one, other} {
			v.demand.Certificate = own
			for _, resumed := range []bool{false, true} {
				v.want(resumed)
				if got := <-shown; !bytes.Equal(got, own.pair.Certificate[0]) {
					t.Errorf("resumed %v: the server knows another certificate", resumed)
				}
			}
		}
	}
}

// Many connections at once, of many demands, each get their own sessions.
func TestResumption_many(t *testing.T) {
	root := newCA("root")
	clock := func() time.Time { return testNow }
	configs := []*tls.Config{root.Leaf(nil, host).Config(), root.Leaf(nil, host).Config()}
	configs[0].MaxVersion = tls.VersionTLS12
	hashes := [][]byte{configs[0].Certificates[0].Certificate[0], configs[1].Certificates[0].Certificate[0]}
	for _, config := range configs {
		config.Time = clock
		config.SetSessionTicketKeys([][32]byte{{1}})
	}
	client := &Client{Anchors: Anchors{File: tlstest.Bundle(t, root)}, Now: clock, Sessions: NewSessions(clock)}
	var all sync.WaitGroup
	var mu sync.Mutex
	resumed := 0
	for i := range 300 {
		all.Go(func() {
			which := i % 2
			d := &Demand{ServerName: host, Session: []string{"old", "new"}[which]}
			if i%3 == 0 {
				d.Judge = TrustAnchors{}
			}
			if i%50 == 0 {
				client.Sessions.Forget()
			}
			client, server := client, configs[which]
			c, err := shake(t, tlstest.Serve(t, tlstest.Hello(server)), client, d)
			if err != nil {
				t.Error(err)
				return
			}
			if said, err := io.ReadAll(c); string(said) != "hello" || err != nil {
				t.Errorf("%q, %v", said, err)
			}
			if got := c.tls.ConnectionState().PeerCertificates[0].Raw; !bytes.Equal(got, hashes[which]) || !c.Facts().Verdict.Good() {
				t.Errorf("another server's certificate, or bad: %+v", c.Facts())
			}
			mu.Lock()
			defer mu.Unlock()
			if c.Facts().Resumed {
				resumed++
			}
		})
	}
	all.Wait()
	t.Logf("%d of 300 resumed", resumed)
	if n := client.Sessions.Len(); n > 4 {
		t.Errorf("%d sessions", n)
	}
}

// A full handshake and one that is resumed, verified by trust anchors, with a certificate
// and an authority of ECDSA (P-256) as most servers have them, or of RSA (2,048 bits). Both
// ends are in this process, and a connection over loopback is made and closed each time.
// cpu-ns is what all of that takes of the processors.
func BenchmarkHandshake(b *testing.B) {
	for _, keys := range []string{"ECDSA", "RSA"} {
		root := newCA("root")
		middle := root.Issue(nil, tlstest.Authority("middle"))
		leaf := middle.Leaf(nil, host)
		if keys == "RSA" {
			root = selfSigned(rsaKey(b, 2048), tlstest.Authority("root"))
			middle = root.Issue(rsaKey(b, 2048), tlstest.Authority("middle"))
			leaf = middle.Issue(rsaKey(b, 2048), func(c *x509.Certificate) { c.DNSNames = []string{host} })
		}
		for _, version := range []string{"TLSv1.2", "TLSv1.3"} {
			for _, how := range []string{"full", "resumed"} {
				b.Run(keys+"/"+version+"/"+how, func(b *testing.B) {
					v := newVisit(b, leaf.Pair(middle), tlstest.Bundle(b, root), Demand{Judge: TrustAnchors{}})
					v.config.MinVersion = map[string]uint16{"TLSv1.2": 0x303, "TLSv1.3": 0x304}[version]
					v.config.MaxVersion = v.config.MinVersion
					v.want(false)
					v.demand.Full = how == "full"
					before := cpu(b)
					for b.Loop() {
						v.want(how == "resumed")
					}
					b.ReportMetric(float64(cpu(b)-before)/float64(b.N), "cpu-ns/op")
				})
			}
		}
	}
}

// cpu is the time that this process has had of the processors.
func cpu(b *testing.B) time.Duration {
	var used syscall.Rusage
	must.OK(b, syscall.Getrusage(syscall.RUSAGE_SELF, &used))
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
